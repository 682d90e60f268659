"""What came when in a recording: its bytes cut into reads and lines, the events that they complete, the message, the figures.

This file knows how reads, lines, events and message belong together, and how times are summed up. It refuses to know how they
are shown, and to judge them; see `explain.py`, `explain_html.py` and `check.py`.

    timeline = Timeline.of(Recording.load("fixtures/plain.sse.jsonl"))
    for group in timeline.groups:
        print(group.t, group.event, group.kind, [piece.data for piece in group.pieces])
    timeline.first_content, timeline.longest_gap, timeline.tokens_per_second, timeline.verdict

Nothing that a recording holds makes it fail: what is wrong stands in `problems`, where it was found.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from rawsse.errors import APIError
from rawsse.messages import Message, MessageBuilder, StreamEvent
from rawsse.messages.events import DONE
from rawsse.replay.looking.json_answer import JSONAnswer
from rawsse.replay.recording import Recording
from rawsse.sse import Decoder, Event

Lane: TypeAlias = Literal["message", "text", "thinking", "tool", "ping", "error", "other"]
LANES: tuple[Lane, ...] = ("message", "text", "thinking", "tool", "ping", "error", "other")
"""What events are about, in the order in which it is shown."""

MIN_GAP_SECONDS = 0.25
"""A shorter wait is no gap: people do not notice it."""

GAP_FACTOR = 4
"""A gap is at least so many times as long as the median wait of its recording: in a slow stream, every wait is long."""

_PIECE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# Which field of which delta brings something, and what it is about.
_BRINGS: Mapping[str, tuple[str, Lane]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "tool"),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A line with its end, or as much of it as one read brought. `read` counts from 1, `start` is its byte, from 0."""

    read: int
    t: float
    start: int
    data: bytes


@dataclass(slots=True)
class Group:
    """Lines that belong together, and the event that they complete.

    `event` is its number, from 1; 0 if the lines complete none: comments, and what the end cut off. `adds` is what it adds to
    a text, a thought or a tool's input, `says` what else is worth knowing.
    """

    pieces: list[Piece] = field(default_factory=list)
    event: int = 0
    kind: str = ""
    detail: str = ""
    lane: Lane = "other"
    index: int | None = None
    adds: str = ""
    says: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def t(self) -> float:
        """When its last byte came."""
        return self.pieces[-1].t

    @property
    def read(self) -> int:
        """The read that its last byte came in."""
        return self.pieces[-1].read

    @property
    def start(self) -> int:
        """Its first byte."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.pieces[-1].start + len(self.pieces[-1].data)


@dataclass(frozen=True, slots=True)
class Gap:
    """A long wait: nothing came for `seconds` after `t`. `read` is the one that ended it; 0: the end of the stream did."""

    t: float
    seconds: float
    read: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """A recording laid out. Times are in seconds since the request was sent; None for what never came."""

    recording: Recording
    groups: tuple[Group, ...]
    message: Message | None
    verdict: str
    cut_off: bytes
    answer: JSONAnswer | None = None
    """What came instead of a stream, if that is JSON."""

    @classmethod
    def of(cls, recording: Recording) -> Timeline:
        """Lay out a recording."""
        return _Layout(recording).timeline()

    @property
    def events(self) -> tuple[Group, ...]:
        """The groups that are events."""
        return tuple(group for group in self.groups if group.event)

    @property
    def kinds(self) -> Mapping[str, int]:
        """How many events there are of each kind: deltas by their own type."""
        deltas = "content_block_delta"
        return Counter(event.detail or deltas if event.kind == deltas else event.kind for event in self.events)

    @property
    def pings(self) -> int:
        """How many pings came."""
        return sum(event.lane == "ping" for event in self.events)

    @property
    def duration(self) -> float:
        """From the request to the end."""
        return max([self.recording.duration, *(read.t for read in self.recording.reads[-1:])])

    @property
    def first_event(self) -> float | None:
        """When the first event was complete."""
        return next((event.t for event in self.events), None)

    @property
    def first_content(self) -> Group | None:
        """The first event that adds something to a text, a thought or a tool's input: the first token."""
        return next((event for event in self.events if event.adds), None)

    @property
    def last_content(self) -> Group | None:
        """The last event that adds something."""
        return next((event for event in reversed(self.events) if event.adds), None)

    @property
    def characters(self) -> int:
        """How many characters all the deltas have added."""
        return sum(len(event.adds) for event in self.events)

    @property
    def waits(self) -> tuple[Gap, ...]:
        """The waits between two reads, and before the end. Not the one for the first byte: that is the model's."""
        reads = self.recording.reads
        ends = [*(read.t for read in reads[1:]), self.duration]
        numbers = [*range(2, len(reads) + 1), 0]
        waits = zip(reads, ends, numbers, strict=False)
        return tuple(Gap(read.t, end - read.t, number) for read, end, number in waits)

    @property
    def longest_gap(self) -> Gap | None:
        """The longest wait between two reads, or before the end."""
        return max(self.waits, key=lambda gap: gap.seconds, default=None)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The waits that stand out: at least `MIN_GAP_SECONDS`, and `GAP_FACTOR` times the median."""
        waits = self.waits
        usual = statistics.median(wait.seconds for wait in waits) if waits else 0.0
        return tuple(wait for wait in waits if wait.seconds >= max(MIN_GAP_SECONDS, GAP_FACTOR * usual))

    @property
    def output_tokens(self) -> int | None:
        """The last count of output tokens that was told."""
        count = self.message.usage.raw.get("output_tokens") if self.message else None
        return count if type(count) is int else None

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens for each second from the first content to the last; None if that was but one moment, or if the last
        count never came."""
        first, last = self.first_content, self.last_content
        if self.message is None or self.message.stop_reason is None or self.output_tokens is None:
            return None
        if first is None or last is None or last.t <= first.t:
            return None
        return self.output_tokens / (last.t - first.t)


class _Layout:
    """Feeds a recording piece by piece, so that each event is seen to come out of the line that completes it."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._decoder = Decoder()
        self._builder = MessageBuilder(strict=False)
        self._groups: list[Group] = []
        self._group = Group()
        self._number = 0
        self._answer = JSONAnswer.of(recording)
        self._is_readable = recording.status == 200 and self._answer is None
        self._blocks: dict[int, str] = {}  # the types of the blocks, by index
        self._before = b""  # the piece before

    def timeline(self) -> Timeline:
        for piece in _pieces(self._recording):
            self._place(piece)
            self._before = piece.data
        self._end_group()
        cut_off = self._decoder.close()
        return Timeline(self._recording, tuple(self._groups), self._message(), self._verdict(), cut_off, self._answer)

    def _message(self) -> Message | None:
        if self._answer is None:
            return self._builder.message
        return Message(self._answer.value) if self._answer.kind == "message" and self._answer.value else None

    def _place(self, piece: Piece) -> None:
        if piece.data == b"\n" and self._before.endswith(b"\r"):
            # The rest of a CR LF whose CR has ended the line, and perhaps the event, before.
            (self._group if self._group.pieces else self._groups[-1]).pieces.append(piece)
            self._events(piece)
            return
        is_new_line = not self._group.pieces or self._before.endswith((b"\r", b"\n"))
        self._group.pieces.append(piece)
        events = self._events(piece)
        for event in events:
            self._read(event)
        if events or (is_new_line and not piece.data.strip(b"\r\n")):
            self._end_group()

    def _events(self, piece: Piece) -> list[Event]:
        if not self._is_readable:
            return []
        try:
            return self._decoder.feed(piece.data)
        except APIError as exc:
            self._is_readable = False
            self._group.problems.append(str(exc))
            return []

    def _end_group(self) -> None:
        if self._group.pieces:
            self._groups.append(self._group)
        self._group = Group()

    def _read(self, sse: Event) -> None:
        self._number += 1
        group, known = self._group, len(self._builder.deviations)
        group.event, group.kind = self._number, sse.event
        try:
            event = self._builder.feed(sse)
        except APIError as exc:
            group.lane = "error"
            group.problems.append(str(exc))
            return
        if event is None:
            says = "the end mark [DONE], which is not the API's"
            group.kind, group.says = ("[DONE]", says) if sse.data.strip() == DONE else ("keep-alive", "no data")
            return
        group.problems += [f"{deviation.rule}: {deviation.text}" for deviation in self._builder.deviations[known:]]
        group.kind = event.type
        group.index = event.raw.get("index") if isinstance(event.raw.get("index"), int) else None
        self._look_at(event, group)

    def _look_at(self, event: StreamEvent, group: Group) -> None:
        match event.raw:
            case {"type": "content_block_delta", "delta": dict(delta)}:
                self._look_at_delta(delta, group)
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                group.detail = self._blocks[index] = str(block.get("type"))
                group.lane = _lane_of_block(group.detail)
                group.says = _named(block)
            case {"type": "content_block_stop", "index": int(index)}:
                group.lane = _lane_of_block(self._blocks.get(index, ""))
            case {"type": "message_start", "message": dict(message)}:
                group.lane, group.says = "message", str(message.get("model"))
            case {"type": "message_delta"}:
                group.lane, group.says = "message", _end_in_words(event.raw)
            case {"type": "message_stop"}:
                group.lane = "message"
            case {"type": "ping"}:
                group.lane = "ping"
            case {"type": "error", "error": dict(error)}:
                group.lane, group.says = "error", f"{error.get('type')}: {error.get('message')}"

    def _look_at_delta(self, delta: dict[str, Any], group: Group) -> None:
        group.detail = str(delta.get("type"))
        group.lane = _lane_of_block(self._blocks.get(group.index or 0, ""))
        if group.detail in _BRINGS:
            name, group.lane = _BRINGS[group.detail]
            group.adds = delta[name] if isinstance(delta.get(name), str) else ""
        else:
            values = {name: value for name, value in delta.items() if name != "type"}
            group.says = to_json(next(iter(values.values())) if len(values) == 1 else values)

    def _verdict(self) -> str:
        builder = self._builder
        if self._answer is not None and (self._answer.value is not None or self._recording.status == 200):
            return self._answer.verdict
        if self._recording.status != 200:
            return f"no stream: HTTP status {self._recording.status}"
        if builder.error is not None:
            return f"error event, {builder.error.error.get('type')}: {builder.error.error.get('message')}"
        if builder.is_done:
            return "complete"
        if builder.is_complete:
            return "complete, but message_stop is missing"
        return f"truncated {builder.state.value}"


def _pieces(recording: Recording) -> Iterator[Piece]:
    offset = 0
    for number, read in enumerate(recording.reads, 1):
        for found in _PIECE.finditer(read.data):
            yield Piece(number, read.t, offset + found.start(), found[0])
        offset += len(read.data)


def _lane_of_block(kind: str) -> Lane:
    if "thinking" in kind:
        return "thinking"
    if kind.endswith(("tool_use", "tool_result")):
        return "tool"
    return "text" if kind == "text" else "other"


def _named(block: dict[str, Any]) -> str:
    names = (block.get("name"), block.get("id") or block.get("tool_use_id"))
    return ", ".join(str(name) for name in names if name is not None)


def _end_in_words(event: dict[str, Any]) -> str:
    delta, usage = event.get("delta"), event.get("usage")
    words = []
    if isinstance(delta, dict) and delta.get("stop_reason") is not None:
        words.append(f"stop reason {delta['stop_reason']}")
    if isinstance(usage, dict) and "output_tokens" in usage:
        words.append(f"{usage['output_tokens']} tokens out")
    return ", ".join(words)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON, for a person."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
