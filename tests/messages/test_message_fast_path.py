"""The fast paths of `read_event` and `MessageBuilder.apply` for the ordinary delta have the same effect as the plain paths.

Streams are folded twice, once by a builder that looks every event up in the tables, and everything that can be observed of the
two is compared.
`read_event` takes the plain path for an event whose JSON leaves out the type.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import pytest
from support.sampling import one_in
from support.streams import (
    ANSWER,
    PING,
    STOP,
    TOOL_CALL,
    Raw,
    block_start,
    block_stop,
    delta,
    end,
    fold,
    start,
    to_sse,
    tool_block,
)

from rawsse.errors import RawsseError
from rawsse.messages import MAX_MESSAGE_BYTES, ContentBlockDelta, MessageBuilder, StreamEvent, read_event
from rawsse.replay import shipped_fixtures
from rawsse.sse import Decoder, Event

ODD: list[Any] = [None, True, 0.0, 5, "", "x", [], {}]


class PlainDelta(ContentBlockDelta):
    """The same event, but of a class that the fast path does not take."""

    __slots__ = ()


class PlainBuilder(MessageBuilder):
    def apply(self, event: StreamEvent) -> None:
        if type(event) is ContentBlockDelta:
            event.__class__ = PlainDelta
        super().apply(event)


def seen(builder: MessageBuilder, stream: Iterable[Event], *, is_watched: bool) -> Iterator[Any]:
    """Everything that can be observed of a fold. Reading its message joins the fragments: after each event only if it is
    watched, otherwise at the end."""
    derived: list[Any] = []
    for sse in stream:
        try:
            event = builder.feed(sse)
        except RawsseError as exc:
            yield type(exc), str(exc)
        else:
            assert event is not None
            for each in builder.expand(event):
                if each is event:
                    yield ends_of(event)
                else:
                    derived.append(each)
            yield builder.added_text, event.raw, repr(event.raw)  # 1 is not True
        yield builder.state, builder.phase, builder.is_complete, builder.has_content, builder.error, builder.stop_reason
        yield builder._message_bytes, builder._event_number, list(builder.deviations)
        yield [(block.complete, block.length, list(block.fragments)) for block in builder._blocks]
        if is_watched:
            yield message_of(builder)
    yield [(repr(event), repr(getattr(event, "snapshot", None))) for event in derived]
    yield message_of(builder)


def ends_of(event: StreamEvent) -> Any:
    """What the fold may put into an event of the wire."""
    set_by_it = [getattr(event, name, None) for name in ("delta", "content_block", "message")]
    kind = ContentBlockDelta if type(event) is PlainDelta else type(event)
    return kind, [(type(each), getattr(each, "raw", each)) for each in set_by_it if each is not None]


def message_of(builder: MessageBuilder) -> Any:
    if (message := builder.message) is None:
        return None
    return message.to_dict(), [(type(block), block.complete, block.input_text) for block in message.content]


def differences(stream: list[Event], *, limits: Iterable[int] = (MAX_MESSAGE_BYTES,)) -> Iterator[str]:
    for limit, (strict, is_watched) in product(limits, [(True, False), (False, True)]):
        fast = seen(MessageBuilder(strict=strict, max_message_bytes=limit), stream, is_watched=is_watched)
        plain = seen(PlainBuilder(strict=strict, max_message_bytes=limit), stream, is_watched=is_watched)
        yield from (f"{a} is not {b}: {stream}" for a, b in zip(fast, plain, strict=True) if a != b)


# --- The fold ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_a_recorded_stream_folds_alike(name: str) -> None:
    assert list(differences(Decoder().feed(shipped_fixtures()[name].body))) == []


BLOCKS: list[Raw] = [
    {"type": "text", "text": "a"},
    {"type": "thinking", "thinking": "", "signature": ""},
    tool_block(),
    {"type": "fallback"},
    {"type": "hologram", "input": {}},
    {"type": ""},
]
PIECES = [("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json"), ("", "")]
DELTAS: list[Raw] = [
    *(delta(0, kind, **{name: text}) for kind, name in PIECES for text in ('{"a": ', "1} ☺\ud800")),
    *(delta(0, "text_delta", text=odd) for odd in ODD),
    *({"type": "content_block_delta", "index": 0, "delta": {"type": odd, "text": "b", "": "c"}} for odd in ODD),
    {"type": "content_block_delta", "index": 0, "delta": {}},
    *(delta(index, "text_delta", text="b") for index in (-1, 1, 7)),
    delta(0, "signature_delta", signature="s"),
]
OTHERS: list[Raw] = [
    *(PING, STOP, end(), end(None), start(), block_stop(0), block_stop(1), {"type": "error", "error": {}}),
    *(block_start(1, raw) for raw in BLOCKS[:3]),
    *(block_start(0, raw) for raw in BLOCKS[:3]),
]


@pytest.mark.parametrize("raw", BLOCKS, ids=lambda raw: f"block {raw['type']}")
def test_any_event_in_a_block_and_the_deltas_after_it_fold_alike(raw: Raw) -> None:
    last = [delta(0, kind, **{name: "z"}) for kind, name in PIECES]
    pairs = [list(pair) for pair in product(OTHERS, OTHERS)]
    step = one_in(len(BLOCKS))  # each pair in one of the six blocks
    middles = [*([event] for event in DELTAS), *pairs[BLOCKS.index(raw) % step :: step]]
    for middle in middles:
        stream = [start(), block_start(0, raw), *middle, *last]
        assert list(differences([to_sse(event) for event in stream])) == []


@pytest.mark.parametrize("stream", [ANSWER, TOOL_CALL], ids=["text", "tool"])
def test_a_message_becomes_too_large_at_the_same_event(stream: list[Raw]) -> None:
    # Only at these sizes the outcome changes: those of the message after each event.
    sizes = {fold(stream[:count])._message_bytes + more for count in range(1, len(stream) + 1) for more in (-1, 0, 1)}
    assert list(differences([to_sse(raw) for raw in stream], limits=sorted(sizes))) == []


# --- Reading ----------------------------------------------------------------------------------------------------------


def read(raw: Raw) -> Any:
    try:
        event = read_event(Event("content_block_delta", json.dumps(raw)))
    except RawsseError as exc:
        return type(exc), str(exc).partition(": '{")[0]
    return type(event), event and event.raw


@pytest.mark.parametrize("index", [*ODD, -1, 1 << 70])
def test_a_delta_reads_as_on_the_plain_path(index: Any) -> None:
    for given in [*ODD, {"type": "text_delta", "text": "a"}]:
        for raw in ({"index": index, "delta": given}, {"index": index}, {"delta": given}, {}):
            assert read({**raw, "type": "content_block_delta"}) == read(raw)


# --- Cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(3), ids=[kind for kind, _ in PIECES[:3]])
def test_a_fragment_takes_eight_calls_of_python_functions(kind: int) -> None:
    builder = MessageBuilder()
    builder.feed(to_sse(start()))
    builder.feed(to_sse(block_start(0, BLOCKS[kind])))
    name, field = PIECES[kind]
    sse = to_sse(delta(0, name, **{field: "a"}))
    called: list[str] = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        builder.feed(sse)
    finally:
        sys.setprofile(None)
    assert len(called) <= 8, called
