"""No JSON from the wire, however odd, causes any exception but a `RawsseError`.

Each value in each event of the shipped fixtures is replaced, in turn, by one of every type. The stream around it is short: the
start of the message, the event's content block with two deltas of each kind, the blocks before and after it, and the end. A
value that was replaced in one fixture is not replaced again in another.

The strict fold reads all these streams; the lenient one and the relay's dialects read one in three. `explain` and `check`,
which take most of the time, take turns at one in six: each value, of one of the five types, is read by one of them, and the
next value, of the next type, by the other. With RAWSSE_EVERY_CUT=1, as in CI, they read all.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from support.sampling import one_in

from rawsse.errors import RawsseError
from rawsse.messages import Ending, MessageBuilder, read_event
from rawsse.relay.dialects import Dialect, EventsDialect, MessagesDialect, TextDialect
from rawsse.relay.ui import UIDialect
from rawsse.replay import Recording, check, shipped_fixtures
from rawsse.replay.explain import explain
from rawsse.sse import Decoder, Event, encode

ODD: list[Any] = [5, "x", [], {}, None]
Path = tuple[str | int, ...]
Change = tuple[list[Any], int, Path]  # a stream, the place of one of its events, and the path to a value in it


def events_of(name: str) -> list[Any]:
    """The JSON of a fixture's events."""
    return [json.loads(sse.data) for sse in Decoder().feed(shipped_fixtures()[name].body)]


def kind_of(raw: Any) -> tuple[str, ...]:
    """What an event is about: a path leads to the same place in two events of one kind."""
    parts = [raw, raw.get("content_block", {}), raw.get("delta", {})]
    return tuple(str(part.get("type")) for part in parts)


def scenes(name: str) -> Iterator[tuple[list[Any], int]]:
    """For each content block of a fixture, a short stream with that block, which may need the one before and after it; and the
    block's index there. A fixture without blocks is its own scene."""
    events = events_of(name)
    for middle in range(max((raw["index"] for raw in events if "index" in raw), default=0) + 1):
        first = max(middle - 1, 0)
        scene: list[Any] = []
        count: Counter[Any] = Counter()
        for raw in events:
            index = raw.get("index", middle)
            count[index, kind_of(raw)] += 1
            wanted = 2 if index == middle else 1  # the odd one and a correct one after it
            if first <= index <= middle + 1 and count[index, kind_of(raw)] <= wanted:
                scene.append({**raw, "index": index - first} if "index" in raw else raw)
        yield scene, middle - first


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


def to_wire(raw: Any, name: str) -> bytes:
    return encode(json.dumps(raw), event=name)


def changes() -> dict[str, list[Change]]:
    """Every value in each fixture that is to be replaced. Of the values with the same path in the same kind of event, one is
    enough for all streams in which the events outside blocks and in its block are of the same kinds; one more if its event
    is the first of the stream."""
    seen: set[Any] = set()
    found: dict[str, list[Change]] = {}
    for name in sorted(shipped_fixtures()):
        found[name] = []
        for scene, index in scenes(name):
            outside = frozenset(kind_of(raw) for raw in scene if "index" not in raw)
            inside = frozenset(kind_of(raw) for raw in scene if raw.get("index") == index)
            for number, raw in enumerate(scene):
                if raw.get("index", index) != index:
                    continue
                company = outside | inside if "index" in raw else outside
                for path in paths_in(raw):
                    place = (company, kind_of(raw), number == 0, path)
                    if place not in seen:
                        seen.add(place)
                        found[name].append((scene, number, path))
    return found


def odd_streams(name: str) -> Iterator[tuple[str, list[bytes]]]:
    """Every stream in which one value is odd, event by event, and what was done to it."""
    for scene, number, path in CHANGES[name]:
        wire = [to_wire(raw, raw["type"]) for raw in scene]
        for odd in ODD:
            changed = to_wire(replaced(scene[number], path, odd), scene[number]["type"])
            yield f"event {number + 1}, {path}: {odd!r}", [*wire[:number], changed, *wire[number + 1 :]]


CHANGES = changes()


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
            assert len(Decoder().feed(frame.encode())) == 1


@cache
def read_one(wire: bytes) -> Event:
    (event,) = Decoder().feed(wire)
    return event


def read_all(wire: list[bytes], number: int) -> None:
    stream = [read_one(event) for event in wire]
    fold(stream, strict=True)
    if number % one_in(3) == 0:
        fold(stream, strict=False)
        relay(stream)
    if number % one_in(12) == 0:
        explain(Recording.from_sse(b"".join(wire)))
    if number % one_in(12) == 6 % one_in(12):
        check(b"".join(wire))


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_an_odd_value_anywhere_in_a_stream_is_borne_or_refused_by_an_error_of_rawsse(name: str) -> None:
    for number, (change, wire) in enumerate(odd_streams(name)):
        try:
            read_all(wire, number)
        except Exception as exc:
            exc.add_note(f"in {name}, {change}")
            raise
