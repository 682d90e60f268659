"""rawsse.messages.message.EventWatcher: it knows of a stream what a builder knows, and keeps none of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from support.streams import (
    ANSWER,
    PING,
    STOP,
    TOOL_CALL,
    block_start,
    block_stop,
    delta,
    end,
    input_delta,
    start,
    text_delta,
    to_sse,
    tool_block,
)

from rawsse.errors import EventOrderError
from rawsse.messages import MessageBuilder
from rawsse.messages.message import EventWatcher
from rawsse.replay import shipped_fixtures
from rawsse.sse import Decoder

TEXT = {"type": "text", "text": ""}
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
EVENTS = [
    start(),
    block_start(0, TEXT),
    text_delta(0, "Hi"),
    text_delta(1, "astray"),
    delta(0, "new_delta"),
    block_stop(0),
    block_start(1, TEXT),
    end(),
    end(None),
    PING,
    {"type": "new_event"},
    STOP,
    ERROR,
]


def known(watcher: MessageBuilder) -> tuple[Any, ...]:
    return watcher.state, watcher.phase, watcher.is_complete, watcher.has_content, watcher.stop_reason, watcher.error


def check_same(events: Iterable[Any]) -> None:
    builder, watcher = MessageBuilder(strict=False), EventWatcher(strict=False)
    for event in events:
        builder.feed(event)
        watcher.feed(event)
        assert known(watcher) == known(builder)
        assert watcher.message is None


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_it_knows_what_the_builder_knows_of_a_fixture(name: str) -> None:
    check_same(Decoder().feed(b"".join(read.data for read in shipped_fixtures()[name].reads)))


def test_it_knows_what_the_builder_knows_of_whole_answers() -> None:
    check_same(map(to_sse, ANSWER))
    check_same(map(to_sse, TOOL_CALL))


@pytest.mark.parametrize("seed", range(20))
def test_it_knows_what_the_builder_knows_in_any_order(seed: int) -> None:
    chances = random.Random(seed)
    for _ in range(20):
        check_same(map(to_sse, [start(), *chances.choices(EVENTS, k=12)]))


def test_it_counts_the_bytes_of_text_thinking_and_input_and_of_nothing_else() -> None:
    watcher = EventWatcher()
    for event in (
        start(),
        block_start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, "thinking_delta", thinking="Hm"),
        delta(0, "signature_delta", signature="c2lnbmF0dXJl"),
        block_stop(0),
        *ANSWER[1:-2],
        block_start(1, {"type": "text", "text": "Some"}),
        block_stop(1),
        block_start(2, tool_block()),
        input_delta(2, '{"a": 1}'),
        block_stop(2),
        block_start(3, {"type": "compaction", "content": None}),
        delta(3, "compaction_delta", content="So far"),
    ):
        watcher.feed(to_sse(event))
    assert watcher.content_bytes == len('HmHello ☺Some{"a": 1}So far'.encode())


def test_a_strict_one_refuses_an_event_out_of_order() -> None:
    watcher = EventWatcher()
    watcher.feed(to_sse(start()))
    with pytest.raises(EventOrderError):
        watcher.feed(to_sse(text_delta(0, "Hi")))
