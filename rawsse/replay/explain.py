"""A recording laid out in time: its reads and lines, the events that they complete, the message, the figures.

    print(explain(Recording.load("fixtures/plain.sse.jsonl"), color=sys.stdout.isatty()))

    timeline = Timeline.of(recording)
    for group in timeline.groups:
        print(group.t, group.event, group.kind, [piece.data for piece in group.pieces])
    timeline.first_content, timeline.gaps, timeline.tokens_per_second, timeline.verdict

`explain` prints a timeline as text for a terminal, `explain_page.py` as HTML. Neither fails because of the content of a
recording: the errors and warnings that `check` finds are the `problems` of the lines where it found them.
"""

from __future__ import annotations

import json
import re
import statistics
import textwrap
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from rawsse.messages import Message, MessageBuilder, StreamEvent
from rawsse.messages.events import DONE
from rawsse.messages.lens import object_at
from rawsse.replay.check import Checker
from rawsse.replay.recording import Recording, parse_body
from rawsse.sse import Event

Lane: TypeAlias = Literal["message", "text", "thinking", "tool", "ping", "error", "other"]
LANES: tuple[Lane, ...] = ("message", "text", "thinking", "tool", "ping", "error", "other")
"""The subjects of events, in the order in which they are shown."""

MIN_GAP_SECONDS = 0.25
"""A shorter wait is not a gap: people do not notice it."""

GAP_FACTOR = 4
"""A gap is at least so many times as long as the median wait of its recording: in a slow stream, every wait is long."""

WIDTH = 100
"""How wide the text is by default, in characters."""

MIN_WIDTH = 60
"""The smallest width that the columns fit into."""

MAX_LABELLED_LINES = 20
"""How many lines a figure takes at most: the message of an error may be long."""

_PIECE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# By the type of the event, of its delta, or of the block that it is about.
_LANE_OF: Mapping[str, Lane] = {
    **dict.fromkeys(("message_start", "message_delta", "message_stop"), "message"),
    **dict.fromkeys(("text", "text_delta"), "text"),
    "input_json_delta": "tool",
    "ping": "ping",
    "error": "error",
}
# For each delta that adds to the message: the field that does.
_ADDS: Mapping[str, str] = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_MARGIN = 24  # time, read, byte
_LABEL = 19
# SGR parameters (ECMA-48, 8.3.117): the eight colours that every terminal has, and which its user may have chosen.
_COLORS: Mapping[Lane, str] = dict(zip(LANES, ("34", "32", "35", "33", "2", "31", "36"), strict=True))
_DIM, _ALARM = "2", "1;31"
# Terminals obey controls; marks of direction, and characters without a width, hide or reorder the text around them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A wait: no byte came for `seconds` after `t`."""

    t: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A line with its end, or as much of it as one read brought. `read` counts from 1, `start` is its byte, from 0.

    `is_first`: the read begins with it. `gap` is the long wait that it ended.
    """

    read: int
    t: float
    start: int
    data: bytes
    is_first: bool
    gap: Gap | None

    @property
    def last(self) -> int:
        """Its last byte."""
        return self.start + len(self.data) - 1


@dataclass(slots=True)
class Group:
    """Lines that belong together, and the event that they complete.

    `event` is its number, from 1; 0 if the lines complete none: comments, or lines that the end cut off. `adds` is the text
    that it adds to a text, a thought or a tool's input; `says` is other content worth showing.
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
    def start(self) -> int:
        """Its first byte."""
        return self.pieces[0].start


@dataclass(frozen=True, slots=True)
class Timeline:
    """A recording laid out. Times are in seconds since the request was sent.

    `waits` are those between two reads, and before the end, but not the one for the first byte: that is the model's.
    """

    recording: Recording
    waits: tuple[Gap, ...]
    groups: tuple[Group, ...]
    message: Message | None
    verdict: str
    is_cut_off: bool
    """The stream ends within an event."""

    @classmethod
    def of(cls, recording: Recording) -> Timeline:
        """Lay out a recording."""
        checker = Checker(recording.status, recording.content_type, max_searched_bytes=0)
        findings = checker.feed(recording.body)
        groups: list[Group] = []
        blocks: dict[int, str] = {}  # the types of the blocks, by index
        times = [*(read.t for read in recording.reads), recording.duration]
        waits = tuple(Gap(start, end - start) for start, end in pairwise(times))
        number, pieces = 0, deque(_pieces(recording, waits))
        for end, sse, event in (*checker.groups, (len(recording.body), None, None)):
            group = Group()
            while pieces and pieces[0].start < end:
                group.pieces.append(pieces.popleft())
            if sse is not None:
                number += 1
                _fill(group, number, sse, event, blocks)
            groups += [group] if group.pieces else []
        starts = [group.start for group in groups]
        for finding in findings if groups else ():
            if finding.severity != "note":
                groups[bisect_right(starts, finding.where.byte) - 1].problems.append(finding.text)
        message = checker.builder.message
        if message is None and not recording.is_stream and (whole := recording.message()):
            message = Message(whole)
        is_cut_off = any(finding.rule == "sse-cut" for finding in checker.close())
        return cls(recording, waits, tuple(groups), message, _verdict(recording, checker.builder), is_cut_off)

    @property
    def events(self) -> tuple[Group, ...]:
        """The groups that are events."""
        return tuple(group for group in self.groups if group.event)

    @property
    def first_content(self) -> Group | None:
        """The first event that adds something to a text, a thought or a tool's input: the first token."""
        return next((event for event in self.events if event.adds), None)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The waits that stand out: at least `MIN_GAP_SECONDS`, and `GAP_FACTOR` times the median."""
        return tuple(filter(None, _gaps(self.waits)))

    @property
    def end_gap(self) -> Gap | None:
        """The last wait, if it stands out."""
        return next(reversed(_gaps(self.waits)), None)

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens for each second from the first content to the last; None if both came at one moment, or if the last
        count never came."""
        times = [event.t for event in self.events if event.adds]
        raw = self.message.raw if self.message else {}
        if raw.get("stop_reason") is None or not times or times[-1] <= times[0]:
            return None
        count = object_at(raw, "usage").get("output_tokens")
        return count / (times[-1] - times[0]) if type(count) is int else None

    @property
    def figures(self) -> Iterator[tuple[str, str]]:
        """The summary: names and values, as they are shown."""
        events, first, speed = self.events, self.first_content, self.tokens_per_second
        longest = max(self.waits, key=lambda wait: wait.seconds, default=None)
        yield "first event", f"{events[0].t:.3f} s" if events else "none"
        yield "first content", f"{first.t:.3f} s, event {first.event}" if first else "none"
        yield "longest gap", f"{longest.seconds:.3f} s after {longest.t:.3f} s" if longest else "none"
        yield "end", f"{self.recording.duration:.3f} s"
        yield "tokens per second", f"{speed:.1f}" if speed else "unknown"
        yield "reads", f"{len(self.recording.reads):,}, {len(self.recording.body):,} bytes"
        yield "pings", str(sum(event.lane == "ping" for event in events))
        yield "events", f"{len(events):,}: {kinds_of(events)}" if events else "0"
        if self.message is not None:
            usage = object_at(self.message.raw, "usage").items()
            counts = [
                (name, value) for name, value in usage if (any(value.values()) if isinstance(value, dict) else value)
            ]
            yield "usage", visible(", ".join(f"{name} {to_json(value)}" for name, value in counts))
        yield "ending", visible(f"{self.recording.end}: {self.verdict}")


def kinds_of(events: Sequence[Group]) -> str:
    """How many events there are of each kind: deltas by their own type."""
    deltas = "content_block_delta"
    kinds = Counter(event.detail or deltas if event.kind == deltas else event.kind for event in events)
    return ", ".join(f"{count:,} {visible(kind)}" for kind, count in kinds.items())


def _gaps(waits: Sequence[Gap]) -> list[Gap | None]:
    limit = max(MIN_GAP_SECONDS, GAP_FACTOR * statistics.median(wait.seconds for wait in waits)) if waits else 0.0
    return [wait if wait.seconds >= limit else None for wait in waits]


def _pieces(recording: Recording, waits: Sequence[Gap]) -> Iterator[Piece]:
    offset = 0
    for number, (read, gap) in enumerate(zip(recording.reads, [None, *_gaps(waits)], strict=False), 1):
        for found in _PIECE.finditer(read.data):
            is_first = found.start() == 0
            yield Piece(number, read.t, offset + found.start(), found[0], is_first, gap if is_first else None)
        offset += len(read.data)


def _verdict(recording: Recording, builder: MessageBuilder) -> str:
    if recording.status != 200:
        match parse_body(recording.body):
            case {"error": {"type": kind, "message": message}}:
                return f"HTTP status {recording.status}, {kind}: {message}"
        return f"no stream: HTTP status {recording.status}"
    if builder.message is None and not recording.is_stream:
        return f"no stream: {recording.content_type or 'no content type'}"
    if builder.error is not None:
        return f"error event, {builder.error.error.get('type')}: {builder.error.error.get('message')}"
    if builder.is_done:
        return "complete"
    return "complete, but message_stop is missing" if builder.is_complete else f"truncated {builder.state.value}"


# --- The subject of an event -----------------------------------------------------------------------------------------


def _fill(group: Group, number: int, sse: Event, event: StreamEvent | None, blocks: dict[int, str]) -> None:
    """Fill in the event. `blocks` has the types of the blocks so far."""
    group.event, group.kind = number, sse.event
    if event is None:
        if sse.data.strip() == DONE:
            group.kind, group.says = "[DONE]", "the end mark [DONE], which is not the API's"
        elif not sse.data.strip():
            group.kind, group.says = "keep-alive", "no data"
        else:
            group.lane = "error"
        return
    group.kind, index = event.type, event.raw.get("index")
    group.index = index if isinstance(index, int) else None
    match event.raw:
        case {"type": "content_block_start", "content_block": dict(block)}:
            group.detail = blocks[group.index or 0] = str(block.get("type"))
            names = (block.get("name"), block.get("id") or block.get("tool_use_id"))
            group.says = ", ".join(str(name) for name in names if name is not None)
        case {"type": "content_block_delta", "delta": dict(delta)}:
            group.detail = str(delta.get("type"))
            if group.detail not in _ADDS:
                group.says = to_json({name: value for name, value in delta.items() if name != "type"})
            elif isinstance(added := delta.get(_ADDS[group.detail]), str):
                group.adds = added
        case {"type": "message_start", "message": dict(message)}:
            group.says = str(message.get("model"))
        case {"type": "message_delta", "delta": {"stop_reason": str(reason)}}:
            group.says = f"stop reason {reason}"
        case {"type": "error", "error": dict(error)}:
            group.says = f"{error.get('type')}: {error.get('message')}"
    block_type = "" if group.index is None else blocks.get(group.index, "")
    group.lane = _lane(event.type) or _lane(group.detail) or _lane(block_type) or "other"


def _lane(kind: str) -> Lane | None:
    if "thinking" in kind:
        return "thinking"
    return "tool" if kind.endswith(("tool_use", "tool_result")) else _LANE_OF.get(kind)


# --- In words --------------------------------------------------------------------------------------------------------


def to_json(value: Any) -> str:
    """A value as JSON, for a person."""
    return json.dumps(value, ensure_ascii=False)


def visible(text: str) -> str:
    """The text with its controls and invisible characters made visible: ␊ for a line feed, for example."""
    return _UNSAFE.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the block "Control Pictures" of Unicode
    return "␡" if code == 0x7F else f"\\u{code:04x}"


# --- As text ---------------------------------------------------------------------------------------------------------


def explain(recording: Recording, *, color: bool = False, width: int = WIDTH) -> str:
    """The recording as text: its head, every line with the event that it completes, the figures, and the message. Never raises
    because of the content of the recording.
    """
    return "\n".join(_Explanation(Timeline.of(recording), color=color, width=max(width, MIN_WIDTH)).lines()) + "\n"


class _Explanation:
    def __init__(self, timeline: Timeline, *, color: bool, width: int) -> None:
        self._timeline = timeline
        self._recording = timeline.recording
        self._color = color
        self._width = width

    def lines(self) -> Iterator[str]:
        yield from self._head()
        yield ""
        yield self._paint(_DIM, "    time  read    byte  line")
        for group in self._timeline.groups:
            yield from self._group(group)
        yield from self._gap(self._timeline.end_gap)
        if self._timeline.is_cut_off:
            yield self._paint(_ALARM, f"{'':{_MARGIN}}! cut off: not an event")
        yield ""
        for name, value in self._timeline.figures:
            yield from self._labelled(name, value)
        yield from self._message()

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._color and code and text else text

    def _labelled(self, name: str, value: str) -> Iterator[str]:
        """A name, and its value in as many lines as it takes."""
        room = self._width - _LABEL
        first, *more = textwrap.wrap(_cut(value, MAX_LABELLED_LINES * room), room, break_on_hyphens=False) or [""]
        yield self._paint(_DIM, f"{name:{_LABEL}}") + first
        yield from (" " * _LABEL + line for line in more)

    def _fit(self, text: str, used: int) -> str:
        return _cut(visible(text), self._width - used)

    def _head(self) -> Iterator[str]:
        request, status = self._recording.request, self._recording.status
        if request is not None:
            yield from self._labelled("request", visible(f"{request.method} {request.path}"))
            if isinstance(request.body, dict):
                for name, value in request.body.items():
                    yield " " * _LABEL + self._fit(f"{name}: {to_json(value)}", _LABEL)
        yield from self._labelled("answer", f"HTTP status {status}")
        for name, value in self._recording.headers.items():
            yield " " * _LABEL + self._fit(f"{name}: {value}", _LABEL)

    def _group(self, group: Group) -> Iterator[str]:
        for piece in group.pieces:
            is_last = piece is group.pieces[-1]
            yield from self._gap(piece.gap)
            # The read and its time stand where it begins; the byte at every line.
            begins = f"{piece.t:8.3f}{piece.read:6}" if piece.is_first else " " * 14
            margin = f"{begins}{self._paint(_DIM, f'{piece.start:8}')}  "
            yield margin + self._line(piece, group if is_last and group.event else None)
        for problem in group.problems:
            yield self._paint(_ALARM, f"{'':{_MARGIN}}! {self._fit(problem, _MARGIN + 2)}")

    def _gap(self, gap: Gap | None) -> Iterator[str]:
        if gap is not None:
            yield self._paint(_DIM, f"{'':{_MARGIN}}┄┄┄ nothing for {gap.seconds:.3f} s ┄┄┄")

    def _line(self, piece: Piece, completed: Group | None) -> str:
        text = visible(piece.data.decode("utf-8", "backslashreplace"))
        if completed is None:
            body = text.rstrip("␍␊") if piece.data.endswith((b"\r", b"\n")) else text
            end = text[len(body) :] or " ⋯"
            return _cut(body, self._width - _MARGIN - len(end)) + self._paint(_DIM, end)
        index = "" if completed.index is None else f" [{completed.index}]"
        words = (
            completed.kind + index,
            completed.detail,
            to_json(completed.adds) if completed.adds else completed.says,
        )
        event = visible(f"event {completed.event}: {' '.join(filter(None, words))}")
        room = self._width - _MARGIN - len(text) - 4
        return f"{text} ═▶ {self._paint(_COLORS[completed.lane], _cut(event, room))}"

    def _message(self) -> Iterator[str]:
        message = self._timeline.message
        if message is None:
            yield from self._labelled("message", "none: message_start never came")
            return
        words = f"{message.get('id')}, {message.get('model')}, stop reason {message.get('stop_reason')}"
        yield from self._labelled("message", visible(words))
        for index, block in enumerate(message.content):
            shown = {name: value for name, value in block.raw.items() if name != "type"}
            open_mark = "" if block.complete else "  (not complete)"
            yield "  " + self._fit(f"[{index}] {block.get('type')}{open_mark}: {to_json(shown)}", 2)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    size = f"… ({len(text)} characters)"
    return text[: limit - len(size)] + size if limit > 2 * len(size) else text[: limit - 1] + "…"
