"""No JSON from the wire, however odd, gets anything but a `RawsseError` out of rawsse.

Each value in each event of the shipped fixtures is replaced, in turn, by one of every type; the stream is read to its end.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from rawsse.errors import RawsseError
from rawsse.messages import Ending, MessageBuilder, read_event
from rawsse.relay.dialects import Dialect, EventsDialect, MessagesDialect, TextDialect
from rawsse.relay.ui import UIDialect
from rawsse.replay import Recording, check, shipped_fixtures
from rawsse.replay.looking.explain import explain
from rawsse.sse import Decoder, Event, encode

ODD: list[Any] = [5, "x", [], {}, None]
Path = tuple[str | int, ...]

# Longer runs of deltas say nothing new, and each stream is read some thousand times.
MAX_DELTAS_IN_A_ROW = 2


def events_of(name: str) -> list[Any]:
    """The JSON of a fixture's events, with the middle of its long runs of deltas left out."""
    short: list[Any] = []
    for sse in Decoder().feed(shipped_fixtures()[name].body):
        raw = json.loads(sse.data)
        if kinds(short[-MAX_DELTAS_IN_A_ROW:]) != [kind_of(raw)] * MAX_DELTAS_IN_A_ROW:
            short.append(raw)
    return short


def kind_of(raw: Any) -> tuple[str, ...]:
    """What an event is about: paths in two events of one kind are the same path."""
    parts = [raw, raw.get("content_block", {}), raw.get("delta", {})]
    return tuple(str(part.get("type")) for part in parts)


def kinds(events: list[Any]) -> list[tuple[str, ...]]:
    return [kind_of(raw) for raw in events]


def paths_in(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_in(inner, (*path, key))


def replaced(value: Any, path: Path, odd: Any) -> Any:
    if not path:
        return odd
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], odd)
    return changed


def to_wire(events: list[Any], names: list[str]) -> bytes:
    return b"".join(encode(json.dumps(raw), event=name) for raw, name in zip(events, names, strict=True))


def odd_streams(events: list[Any]) -> Iterator[tuple[str, bytes]]:
    """Every stream in which one value is odd, and what was done to it."""
    names = [raw["type"] for raw in events]
    seen: set[tuple[tuple[str, ...], Path]] = set()
    for number, raw in enumerate(events):
        for path in paths_in(raw):
            if (kind_of(raw), path) in seen:
                continue
            seen.add((kind_of(raw), path))
            for odd in ODD:
                changed = [*events[:number], replaced(raw, path, odd), *events[number + 1 :]]
                yield f"event {number + 1}, {path}: {odd!r}", to_wire(changed, names)


# --- Everything that reads the wire --------------------------------------------------------------------------------


def fold(stream: list[Event], *, strict: bool) -> None:
    """As a program reads: each event, what is derived from it, and at the end, failed or not, the message."""
    builder = MessageBuilder(strict=strict)
    with suppress(RawsseError):
        for sse in stream:
            event = builder.feed(sse)
            for told in builder.expand(event) if event is not None else []:
                getattr(told, "snapshot", None)
    if (message := builder.message) is not None:
        assert isinstance(message.text, str)
        assert isinstance(message.usage.total_input_tokens, int)
        message.replayable()


def relay(stream: list[Event]) -> None:
    """As a run does, except that the fold does not stop it at what is wrong: a dialect stands on its own."""
    dialects: list[Dialect] = [MessagesDialect(), EventsDialect(), TextDialect(), UIDialect()]
    builder = MessageBuilder(strict=False)
    for sse in stream:
        with suppress(RawsseError):
            builder.feed(sse)
        with suppress(RawsseError):
            if (event := read_event(sse)) is not None:
                frames(dialects, lambda dialect, event=event: dialect.event(event))
    frames(dialects, lambda dialect: dialect.end(Ending("complete", "whole", "done", builder.stop_reason)))


def frames(dialects: list[Dialect], say: Any) -> None:
    """What each dialect says can be written."""
    for dialect in dialects:
        for frame in say(dialect):
            encode(frame.data, event=frame.event)


def read_all(body: bytes) -> None:
    stream = Decoder().feed(body)
    fold(stream, strict=True)
    fold(stream, strict=False)
    relay(stream)
    explain(Recording.from_sse(body))
    check(body)


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_an_odd_value_anywhere_in_a_stream_is_borne_or_refused_by_an_error_of_rawsse(name: str) -> None:
    for change, body in odd_streams(events_of(name)):
        try:
            read_all(body)
        except Exception as exc:
            exc.add_note(f"in {name}, {change}")
            raise
