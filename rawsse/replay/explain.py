"""A recording as a timeline: its reads and lines, the events that they complete, the message, the figures.

    print(explain(Recording.load("fixtures/plain.sse.jsonl"), color=sys.stdout.isatty()))
    print(explain_event(recording, 5))          # one event, from the read to the message

    timeline = Timeline.of(recording)
    for group in timeline.groups:
        print(group.t, group.event, group.kind, [piece.data for piece in group.pieces])
    timeline.first_content, timeline.gaps, timeline.tokens_per_second, timeline.verdict, timeline.broken

`explain` and `explain_event` print a timeline as text for a terminal, `explain_page.py` as HTML. They accept a recording
with any content: the errors and warnings of `check` are the `problems` of the lines where it found them, and its errors are
counted in the figures.
"""

from __future__ import annotations

import json
import re
import statistics
import textwrap
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from rawsse.errors import ConfigurationError
from rawsse.messages import Message, MessageBuilder, StreamEvent
from rawsse.messages.events import DONE, brings_content
from rawsse.messages.lens import object_at
from rawsse.replay.check import Checker, Finding
from rawsse.replay.recording import Recording, parse_body
from rawsse.sse import Event

Lane: TypeAlias = Literal["message", "text", "thinking", "tool", "ping", "error", "other"]
# SGR parameters (ECMA-48, 8.3.117): the eight basic colours, which follow the terminal's theme.
LANES: Mapping[Lane, str] = dict(zip(get_args(Lane), ("34", "32", "35", "33", "2", "31", "36"), strict=True))
"""The subjects of events, in the order in which they are shown, and their colours."""

MIN_GAP_SECONDS = 0.25
"""A shorter wait is not a gap: it is not noticeable."""

GAP_FACTOR = 4
"""A gap is at least this many times the median wait of its recording: in a slow stream, every wait is long."""

WIDTH = 100
"""How wide the text is, in characters."""

MAX_LABELLED_LINES = 20
"""The most lines of one figure: an error's message may be long."""

MAX_LAYER_LINES = 100
"""How many lines are shown of, for example, one event's JSON."""

MAX_LAYER_READS = 25
"""How many reads are shown of one event: each takes at least four lines."""

MAX_LAYER_CHARS = 2000
"""How many characters are shown of, for example, one event's JSON, over all lines; each line gets at least `WIDTH`."""

MAX_OTHERS_CHARS = 80
"""How many characters are shown of the other events in a read, before the event and after it."""

# Keyed by the type of the event, of its delta, or of its block.
_LANE_OF: Mapping[str, Lane] = {
    **dict.fromkeys(("message_start", "message_delta", "message_stop"), "message"),
    **dict.fromkeys(("text", "text_delta"), "text"),
    "input_json_delta": "tool",
    "ping": "ping",
    "error": "error",
}
# For each delta that adds to the message: the field with the addition.
_ADDS: Mapping[str, str] = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_MARGIN = 24  # time, read, byte
_LABEL = 19
_ROOM = WIDTH - _LABEL  # beside a label
_DIM, _ALARM, _LIT = "2", "1;31", "7"
_SGR = re.compile(r"\x1b\[[\d;]*m")
# Terminals interpret control characters; direction marks and zero-width characters hide or reorder the text around them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


class Gap(NamedTuple):
    """A wait: no byte arrived for `seconds` after `t`."""

    t: float
    seconds: float


class Piece(NamedTuple):
    """A line with its end, or the part of it in one read. `read` counts from 1; `start` is the offset of its first byte.

    `time` is `t` in words: unknown in a bare event stream. `begins` is the size of the read that begins with the piece; 0 if it
    does not begin one. `is_new`: it begins its line. `gap` is the long wait before it.
    """

    read: int
    t: float
    time: str
    start: int
    data: bytes
    begins: int
    is_new: bool
    gap: Gap | None

    @property
    def last(self) -> int:
        """The offset of its last byte."""
        return self.start + len(self.data) - 1

    @property
    def text(self) -> str:
        """The line with its end; ⋯ if it continues in the next read."""
        text = self.data.decode("utf-8", "backslashreplace")
        return text if self.data.endswith((b"\r", b"\n")) else f"{text} ⋯"

    @property
    def size(self) -> str:
        """Its length in words. In the text, an invalid byte takes four characters."""
        return f"{len(self.data):,} bytes"


@dataclass(slots=True)
class Group:
    """Lines that belong together, and the event that they complete.

    `event` is the number of the event, from 1; 0 if the lines do not complete one: comments, or lines that the end cut off.
    `adds` is the text that the event adds to text, thinking or a tool's input; `says` is other content worth showing.
    `is_content`: the event brings content of the answer.
    """

    pieces: list[Piece] = field(default_factory=list)
    event: int = 0
    kind: str = ""
    detail: str = ""
    lane: Lane = "other"
    index: int | None = None
    adds: str = ""
    says: str = ""
    is_content: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def t(self) -> float:
        """When its last byte arrived."""
        return self.pieces[-1].t


@dataclass(frozen=True, slots=True)
class Timeline:
    """A recording as a timeline. Times are in seconds since the request was sent.

    `waits` are the waits between reads and before the end. The wait for the first read is excluded: the model causes it. `gaps`
    are the waits of at least `MIN_GAP_SECONDS` and `GAP_FACTOR` times the median, keyed by the number of the read that ended
    each (the end counts as one more read). `broken` are the errors of `check`, without those about secrets.
    """

    recording: Recording
    waits: tuple[Gap, ...]
    gaps: Mapping[int, Gap]
    groups: tuple[Group, ...]
    message: Message | None
    verdict: str
    broken: tuple[Finding, ...]

    @classmethod
    def of(cls, recording: Recording) -> Timeline:
        """Build the timeline of a recording."""
        checker = Checker.of(recording)
        findings = checker.feed(recording.body) + checker.close(recording.end)
        times = [*(read.t for read in recording.reads), recording.duration]
        waits = tuple(Gap(start, end - start) for start, end in pairwise(times))
        least = max(MIN_GAP_SECONDS, GAP_FACTOR * statistics.median(wait.seconds for wait in waits)) if waits else 0.0
        gaps = {number: wait for number, wait in enumerate(waits, 2) if wait.seconds >= least}
        groups: list[Group] = []
        blocks: dict[int, str] = {}  # the types of the blocks, by index
        number, pieces = 0, deque(_pieces(recording, gaps))
        for end, sse, event in (*checker.groups, (len(recording.body), None, None)):
            group = Group()
            while pieces and pieces[0].start < end:
                group.pieces.append(pieces.popleft())
            if sse is not None:
                number += 1
                _fill(group, number, sse, event, blocks)
            groups += [group] if group.pieces else []
        starts = [group.pieces[0].start for group in groups]
        for finding in findings if groups else ():
            if finding.severity != "note":
                groups[bisect_right(starts, finding.where.byte) - 1].problems.append(finding.text)
        message = checker.builder.message
        if message is None and not recording.is_stream and (whole := recording.message()):
            message = Message(whole)
        broken = tuple(finding for finding in findings if finding.severity == "error")
        return cls(recording, waits, gaps, tuple(groups), message, _verdict(recording, checker.builder, broken), broken)

    @property
    def events(self) -> tuple[Group, ...]:
        """The groups that complete an event."""
        return tuple(group for group in self.groups if group.event)

    def event(self, number: int) -> Group:
        """The event with this number, from 1. Raises `ConfigurationError` if the recording has no such event."""
        events = self.events
        if not 1 <= number <= len(events):
            is_cut = any(each.rule == "sse-cut" and each.where.event == number for each in self.broken)
            why = f"; the stream ends inside event {number}, which was never dispatched" if is_cut else ""
            raise ConfigurationError(f"there is no event {number}: {self.recording.name} has {len(events)}{why}")
        return events[number - 1]

    @property
    def first_content(self) -> Group | None:
        """The first event with content of the answer: text, thinking, a tool's input or its result."""
        return next((event for event in self.events if event.is_content), None)

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens per second, from the first content to the last; None if both arrived at the same time, or if the final
        count is missing."""
        times = [event.t for event in self.events if event.is_content]
        raw = self.message.raw if self.message else {}
        if raw.get("stop_reason") is None or not times or times[-1] <= times[0]:
            return None
        count = object_at(raw, "usage").get("output_tokens")
        return count / (times[-1] - times[0]) if type(count) is int else None

    @property
    def figures(self) -> Iterator[tuple[str, str]]:
        """The summary: names and values, which a printer makes `visible`."""
        events, first, end = self.events, self.first_content, self.recording.duration
        text = next((event for event in events if event.is_content and event.lane == "text"), None)
        longest = max(self.waits, key=lambda wait: wait.seconds, default=None)
        firsts = [("first event", events[0] if events else None), ("first content", first), ("first text", text)]
        for name, event in firsts[: 2 if text is first else 3]:
            yield name, f"{event.pieces[-1].time}, event {event.event}" if event else "none"
        gap = f"{longest.seconds:.3f} s after {longest.t:.3f} s" if longest else "none"
        yield "longest gap", gap if end else "unknown"
        yield "end", f"{end:.3f} s" if end else "unknown"
        yield "tokens per second", f"{speed:.1f}" if (speed := self.tokens_per_second) else "unknown"
        yield "reads", f"{len(self.recording.reads):,}, {len(self.recording.body):,} bytes"
        yield "pings", str(sum(event.lane == "ping" for event in events))
        yield "events", f"{len(events):,}: {kinds_of(events)}" if events else "0"
        if self.message is not None:
            usage = object_at(self.message.raw, "usage").items()
            shown = (item for item in usage if any(item[1].values() if isinstance(item[1], dict) else item[1:]))
            yield "usage", ", ".join(f"{name} {to_json(value)}" for name, value in shown)
        yield "ending", f"answer: {self.verdict}; connection: {self.recording.end if end else 'unknown'}"
        if self.broken:
            rules = "1 broken rule" if len(self.broken) == 1 else f"{len(self.broken)} broken rules, the first"
            yield "problems", f"{rules} at {self.broken[0].where}: {self.broken[0].text}"


def kinds_of(events: Sequence[Group]) -> str:
    """The number of events of each kind; deltas are counted by their own type."""
    deltas = "content_block_delta"
    kinds = Counter(event.detail or deltas if event.kind == deltas else event.kind for event in events)
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())


def _pieces(recording: Recording, gaps: Mapping[int, Gap]) -> Iterator[Piece]:
    start, is_new = 0, True
    for number, read in enumerate(recording.reads, 1):
        size, gap = len(read.data), gaps.get(number)
        time = f"{read.t:.3f} s" if recording.duration else "unknown time"
        for data in read.data.splitlines(keepends=True):
            yield Piece(number, read.t, time, start, data, size, is_new, gap)
            start, is_new, size, gap = start + len(data), data.endswith((b"\r", b"\n")), 0, None


def _verdict(recording: Recording, builder: MessageBuilder, broken: Sequence[Finding]) -> str:
    if recording.status != 200:
        match parse_body(recording.body):
            case {"error": {"type": kind, "message": message}}:
                return f"HTTP status {recording.status}, {kind}: {message}"
        return f"no stream: HTTP status {recording.status}"
    if builder.message is None and not recording.is_stream:
        return f"no stream: {recording.content_type or 'no content type'}"
    if builder.error is not None:
        return f"error event, {builder.error.error.get('type')}: {builder.error.error.get('message')}"
    word = "broken" if broken else "complete"
    if builder.is_done:
        return word
    return f"{word}, without message_stop" if builder.is_complete else f"truncated {builder.state.value}"


# --- The subject of an event -----------------------------------------------------------------------------------------


def _fill(group: Group, number: int, sse: Event, event: StreamEvent | None, blocks: dict[int, str]) -> None:
    """Describe the event that completes the group. `blocks` has the types of the blocks so far."""
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
    group.is_content = brings_content(event)
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


# --- For a reader --------------------------------------------------------------------------------------------------------


def to_json(value: Any) -> str:
    """A value as readable JSON."""
    return json.dumps(value, ensure_ascii=False)


def visible(text: str) -> str:
    """The text with control and invisible characters made visible: ␊ for a line feed, for example."""
    return _UNSAFE.sub(_picture, text)


def clip(text: str, limit: int, size: str = "", *, with_end: bool = True) -> str:
    """The text; if it is longer than `limit` characters, its beginning, its size (by default in characters) and its end."""
    if len(text) <= limit:
        return text
    mark = f"… ({size or f'{len(text):,} characters'})" + (" …" if with_end else "")
    room = limit - len(mark)
    if room < len(mark):
        return text[: limit - 1] + "…"
    end = room // 2 if with_end else 0
    return text[: room - end] + mark + text[len(text) - end :]


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the block "Control Pictures" of Unicode
    return "␡" if code == 0x7F else f"\\u{code:04x}"


# --- One event -------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """One view of an event, as lines that a printer makes `visible`. `own` is the index of the line with the event's bytes, if
    other lines hold bytes of other events."""

    name: str
    lines: list[str]
    own: int | None = None


def layers(timeline: Timeline, group: Group) -> Iterator[Layer]:
    """An event, from the network up: the reads that brought it, its lines, its JSON, and the message after it.

    A recording has the body, but not its HTTP chunks (RFC 9112, 7.1). They are rebuilt as the player sends them, one per read.
    """
    recording = timeline.recording
    checker = Checker.of(recording)
    checker.feed(recording.body[: group.pieces[-1].last + 1])
    *_, (_, _, event) = checker.groups
    reads = [(number, list(pieces)) for number, pieces in groupby(group.pieces, key=lambda piece: piece.read)]
    starts = [0, *accumulate(len(read.data) for read in recording.reads)]
    shown_reads = reads[:MAX_LAYER_READS]
    for number, pieces in shown_reads:
        data, start = recording.reads[number - 1].data, pieces[0].start
        at, count = start - starts[number - 1], sum(len(piece.data) for piece in pieces)
        words = f"{number} at {pieces[0].time}, {len(data):,} bytes; the event's: {count:,}"
        yield Layer("read", [f"{words}, from byte {start:,} of the body"])
        yield _chunk((data[:at], data[at : at + count], data[at + count :]), _room(len(shown_reads)))
    if len(reads) > MAX_LAYER_READS:
        yield Layer("read", [f"… and {len(reads) - MAX_LAYER_READS} more reads"])
    text = json.dumps(event.raw, indent=2, ensure_ascii=False) if event else group.says or "none"
    yield _limited("lines", [(piece.text, piece.size) for piece in group.pieces])
    lines = {"JSON": text.split("\n"), "problem": group.problems, "message": message_lines(checker.builder.message)}
    yield from (_limited(name, [(line, "") for line in shown]) for name, shown in lines.items())
    note = "A read's size is without the framing of HTTP chunks, which a recording lacks."
    yield Layer("note", [note, "Here each read is one chunk; `rawsse replay --split` or --segments sends others."])


def _chunk(parts: tuple[bytes, bytes, bytes], room: int) -> Layer:
    """A read as one HTTP chunk: the bytes before the event, the event's, and the bytes after it, each on a line."""
    texts = (part.decode("utf-8", "backslashreplace") for part in parts)
    limits = (MAX_OTHERS_CHARS, room, MAX_OTHERS_CHARS)
    before, own, after = map(clip, texts, limits, (f"{len(part):,} bytes" for part in parts))
    lines = [f"{sum(map(len, parts)):x}\r\n", *filter(None, (before, own, after)), "\r\n"]
    return Layer("chunk, rebuilt", lines, (2 if before else 1) if before or after else None)


def _limited(name: str, lines: Sequence[tuple[str, str]]) -> Layer:
    """A layer of lines with their sizes in words: a bounded number, with long lines shortened in the middle."""
    shown, more = lines[:MAX_LAYER_LINES], len(lines) - MAX_LAYER_LINES
    note = [f"… and {more} more lines"] if more > 0 else []
    return Layer(name, [*(clip(line, _room(len(shown)), size) for line, size in shown), *note])


def _room(lines: int) -> int:
    return max(WIDTH, MAX_LAYER_CHARS // lines)


def in_words(group: Group) -> str:
    """The event in one line: number, type, block, and the text it adds."""
    index = "" if group.index is None else f" [{group.index}]"
    words = (group.kind + index, group.detail, to_json(group.adds) if group.adds else group.says)
    return f"event {group.event}: {' '.join(filter(None, words))}"


def message_lines(message: Message | None) -> list[str]:
    """The message in a line, and each of its blocks."""
    if message is None:
        return ["none: message_start never came"]
    lines = [f"{message.get('id')}, {message.get('model')}, stop reason {message.get('stop_reason') or 'none'}"]
    for index, block in enumerate(message.content):
        shown = {name: value for name, value in block.raw.items() if name != "type"}
        open_mark = "" if block.complete else " (not complete)"
        lines.append(f"[{index}] {block.get('type')}{open_mark}: {to_json(shown)}")
    return lines


# --- As text ---------------------------------------------------------------------------------------------------------


def explain(recording: Recording, *, color: bool = False) -> str:
    """The recording as text: its head, every line with the event that it completes, the figures, and the message. Accepts a
    recording with any content.
    """
    return _text(_lines(Timeline.of(recording)), color=color)


def explain_event(recording: Recording, number: int, *, color: bool = False) -> str:
    """The `layers` of one event, counted from 1, as text. Raises `ConfigurationError` if the recording has no such event."""
    timeline = Timeline.of(recording)
    group = timeline.event(number)
    shown = (_layer(layer.name, _wrapped(layer)) for layer in layers(timeline, group))
    return _text([_event(group, WIDTH), *chain.from_iterable(shown)], color=color)


def _wrapped(layer: Layer) -> Iterator[str]:
    """The lines made visible, and wrapped. The event's own bytes are highlighted."""
    for number, line in enumerate(map(visible, layer.lines)):
        for at in range(0, max(len(line), 1), _ROOM):
            shown = line[at : at + _ROOM]
            yield _paint(_LIT, shown) if number == layer.own else _fit(shown)


def _text(lines: Iterable[str], *, color: bool) -> str:
    text = "".join(f"{line}\n" for line in lines)
    return text if color else _SGR.sub("", text)  # all other escapes have been made visible


def _lines(timeline: Timeline) -> Iterator[str]:
    request, recording = timeline.recording.request, timeline.recording
    if request is not None:
        fields = request.body.items() if isinstance(request.body, dict) else ()
        shown = (f"{name}: {to_json(value)}" for name, value in fields)
        yield from _layer("request", map(_fit, [f"{request.method} {request.path}", *shown]))
    headers = (f"{name}: {value}" for name, value in recording.headers.items())
    yield from _layer("answer", map(_fit, [f"HTTP status {recording.status}", *headers]))
    yield from ("", _paint(_DIM, "    time  read    byte  line"))
    for group in timeline.groups:
        yield from _group(group)
    yield from _gap(timeline.gaps.get(len(recording.reads) + 1))
    yield ""
    for name, value in timeline.figures:
        words = clip(visible(value), MAX_LABELLED_LINES * _ROOM)
        yield from _layer(name, textwrap.wrap(words, _ROOM, break_on_hyphens=False))
    yield from _layer("message", map(_fit, message_lines(timeline.message)))


def _layer(name: str, lines: Iterable[str]) -> Iterator[str]:
    """A name with its lines, which are visible and not too long, next to it."""
    for number, line in enumerate(lines):
        yield (" " * _LABEL if number else _paint(_DIM, f"{name:{_LABEL}}")) + line


def _group(group: Group) -> Iterator[str]:
    for piece in group.pieces:
        yield from _gap(piece.gap)
        # The read and its time are shown where it begins; the byte offset on every line.
        begins = f"{piece.time.split()[0]:>8}{piece.read:6}" if piece.begins else " " * 14
        margin = f"{begins}{_paint(_DIM, f'{piece.start:8}')}  "
        if group.event and piece is group.pieces[-1]:
            blank = visible(piece.text)
            yield f"{margin}{blank} ═▶ {_event(group, WIDTH - _MARGIN - len(blank) - 4)}"
        else:
            yield margin + _fit(piece.text, WIDTH - _MARGIN, piece.size)
    for problem in group.problems:
        yield _paint(_ALARM, f"{'':{_MARGIN}}! {clip(visible(problem), WIDTH - _MARGIN - 2, with_end=False)}")


def _gap(gap: Gap | None) -> Iterator[str]:
    if gap is not None:
        yield _paint(_DIM, f"{'':{_MARGIN}}┄┄┄ nothing for {gap.seconds:.3f} s ┄┄┄")


def _event(group: Group, room: int) -> str:
    return _paint(LANES[group.lane], clip(visible(in_words(group)), room, with_end=False))


def _paint(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _fit(text: str, room: int = _ROOM, size: str = "") -> str:
    """The text made visible, and shortened before its line end."""
    shown = visible(text)
    body = shown.rstrip("␍␊⋯")
    end = shown[len(body) :]
    return clip(body, room - len(end), size) + (_paint(_DIM, end) if end else "")
