"""The anatomy of a recording as text for a terminal: bytes, lines, events, the message, and when each came.

This file knows columns, colours, and how to show characters that a terminal would obey. It refuses to know what belongs to
what, and to judge it; see `timeline.py` and `check.py` for that.

    print(explain(Recording.load("fixtures/plain.sse.jsonl"), color=sys.stdout.isatty()))
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rawsse.replay.looking.json_answer import JSONAnswer
from rawsse.replay.looking.timeline import LANES, Group, Lane, Piece, Timeline, to_json
from rawsse.replay.recording import Recording

WIDTH = 100
"""How wide the text is by default, in characters."""

MIN_WIDTH = 60
"""What the columns need at least."""

_MARGIN = 24  # time, read, byte
_LABEL = 19
_BARS = " ▁▂▃▄▅▆▇█"
# SGR parameters (ECMA-48, 8.3.117): the eight colours that every terminal has, and which its user may have chosen.
_COLORS: Mapping[Lane, str] = {
    "message": "34",
    "text": "32",
    "thinking": "35",
    "tool": "33",
    "ping": "2",
    "error": "31",
    "other": "36",
}
_DIM, _BOLD, _ALARM = "2", "1", "1;31"
# Controls are obeyed by terminals; marks of direction, and characters without a width, hide or reorder what stands around.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def explain(recording: Recording, *, color: bool = False, width: int = WIDTH) -> str:
    """The recording as text: its head; every line with the event that it completes; its times as a picture and in figures;
    the ending and the message. Never raises for what the recording holds: what is wrong is shown where it stands.
    """
    return "\n".join(_Explanation(recording, color=color, width=max(width, MIN_WIDTH)).lines()) + "\n"


def visible(text: str) -> str:
    """The text with every character that would be obeyed, or not be seen, made visible: ␊ for a line feed, for example."""
    return _UNSAFE.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # the block "Control Pictures" of Unicode
    return "␡" if code == 0x7F else f"\\u{code:04x}"


def figures(timeline: Timeline) -> Iterator[tuple[str, str]]:
    """What sums a recording up: pairs of a name and what is to be said."""
    is_stream = timeline.answer is None
    first, gap, speed = timeline.first_content, timeline.longest_gap, timeline.tokens_per_second
    if is_stream:
        yield "first event", _seconds(timeline.first_event)
        yield "first content", f"{_seconds(first.t)}, event {first.event}" if first else "none"
    yield "longest gap", f"{_seconds(gap.seconds)} after {_seconds(gap.t)}" if gap else "none"
    yield "end", _seconds(timeline.duration)
    reads = timeline.recording.reads
    if is_stream:
        yield "tokens per second", f"{speed:.1f}" if speed else "unknown"
    yield "reads", f"{len(reads):,}, {sum(len(read.data) for read in reads):,} bytes"
    if is_stream:
        kinds = ", ".join(f"{count:,} {visible(kind)}" for kind, count in timeline.kinds.items())
        yield "pings", str(timeline.pings)
        yield "events", f"{len(timeline.events):,}: {kinds}" if kinds else "0"
    if timeline.message is not None:
        yield "usage", _usage(timeline.message.usage.raw)
    yield "ending", visible(f"{timeline.recording.end}: {timeline.verdict}")


def _seconds(t: float | None) -> str:
    return "none" if t is None else f"{t:.3f} s"


def _usage(usage: Mapping[str, Any]) -> str:
    known = {name: value for name, value in usage.items() if _counts(value)}
    flat = ((name, value if isinstance(value, int | str) else to_json(value)) for name, value in known.items())
    return visible(
        ", ".join(f"{value} {name}" if isinstance(value, int) else f"{name} {value}" for name, value in flat)
    )


def _counts(value: Any) -> bool:
    """It is more than zeros."""
    return any(map(_counts, value.values())) if isinstance(value, dict) else bool(value)


class _Explanation:
    def __init__(self, recording: Recording, *, color: bool, width: int) -> None:
        self._recording = recording
        self._timeline = Timeline.of(recording)
        self._color = color
        self._width = width
        self._gaps = {gap.read: gap for gap in self._timeline.gaps}
        self._read = 0  # the one that was shown last

    def lines(self) -> Iterator[str]:
        yield from self._head()
        yield ""
        yield self._paint(_DIM, "    time  read    byte  line")
        for group in self._timeline.groups:
            yield from self._group(group)
        yield from self._gap(0)
        if self._timeline.cut_off:
            yield self._paint(_ALARM, f"{'':{_MARGIN}}! cut off: these lines are no event")
        yield ""
        yield from self._picture()
        yield ""
        for name, value in figures(self._timeline):
            yield from self._labelled(name, value)
        yield from self._message() if self._timeline.answer is None else self._answer(self._timeline.answer)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._color and code and text else text

    # --- Head ---

    def _head(self) -> Iterator[str]:
        request = self._recording.request
        if request is not None:
            yield from self._labelled("request", visible(f"{request.method} {request.path}"))
            if isinstance(request.body, dict):
                for name, value in request.body.items():
                    yield " " * _LABEL + self._fit(f"{name}: {to_json(value)}", _LABEL)
        yield from self._labelled("answer", f"HTTP status {self._recording.status}")
        for name, value in self._recording.headers.items():
            yield " " * _LABEL + self._fit(f"{name}: {value}", _LABEL)

    def _labelled(self, name: str, value: str) -> Iterator[str]:
        """A name, and its value in as many lines as it takes."""
        room = max(self._width - _LABEL, len(name))
        label = f"{name:{_LABEL}}" if len(name) < _LABEL else f"{name}  "
        for line in _wrapped(value, room - max(0, len(label) - _LABEL)):
            yield self._paint(_DIM, label) + line
            label = " " * _LABEL

    def _fit(self, text: str, used: int) -> str:
        return _cut(visible(text), self._width - used)

    # --- Lines and events ---

    def _group(self, group: Group) -> Iterator[str]:
        for piece in group.pieces:
            is_last = piece is group.pieces[-1]
            yield from self._gap(piece.read)
            yield self._margin(piece) + self._line(piece, group if is_last and group.event else None)
        for problem in group.problems:
            yield self._paint(_ALARM, f"{'':{_MARGIN}}! {self._fit(problem, _MARGIN + 2)}")

    def _gap(self, read: int) -> Iterator[str]:
        gap = self._gaps.pop(read, None)
        if gap is not None:
            words = f"┄┄┄ nothing for {gap.seconds:.3f} s ┄┄┄"
            yield self._paint(_DIM, f"{'':{_MARGIN}}{words}")

    def _margin(self, piece: Piece) -> str:
        """The read and its time stand where it begins; the byte at every line."""
        begins = f"{piece.t:8.3f}{piece.read:6}" if piece.read != self._read else " " * 14
        self._read = piece.read
        return f"{begins}{self._paint(_DIM, f'{piece.start:8}')}  "

    def _line(self, piece: Piece, completed: Group | None) -> str:
        text = visible(piece.data.decode("utf-8", "backslashreplace"))
        if completed is None:
            end = "" if piece.data.endswith((b"\r", b"\n")) else " ⋯"
            body, shown_end = (text, end) if end else (text.rstrip("␍␊"), text[len(text.rstrip("␍␊")) :])
            return _cut(body, self._width - _MARGIN - len(shown_end)) + self._paint(_DIM, shown_end)
        room = self._width - _MARGIN - len(text) - 4
        return f"{text} ═▶ {self._paint(_COLORS[completed.lane], _cut(self._event(completed), room))}"

    def _event(self, group: Group) -> str:
        index = "" if group.index is None else f" [{group.index}]"
        detail = f" {group.detail}" if group.detail else ""
        brings = f" {to_json(group.adds)}" if group.adds else f" {group.says}" if group.says else ""
        return visible(f"event {group.event}: {group.kind}{index}{detail}{brings}")

    # --- The picture ---

    def _picture(self) -> Iterator[str]:
        """A row for the reads and one for each lane that has an event: how many there were in each piece of time."""
        timeline = self._timeline
        columns, duration = self._width - _LABEL - 1, timeline.duration
        if duration <= 0 or not timeline.recording.reads:
            return
        ends = f"{'0 s':{columns - 10}}{_seconds(duration):>10}"
        yield self._paint(_DIM, f"{'timeline':{_LABEL}}{ends}")
        yield f"{'reads':{_LABEL}}" + _bars((read.t / duration for read in timeline.recording.reads), columns)
        for lane in LANES:
            times = [event.t / duration for event in timeline.events if event.lane == lane]
            if times:
                yield f"{lane:{_LABEL}}" + self._paint(_COLORS[lane], _bars(times, columns))
        if (first := timeline.first_content) is not None:
            at = min(int(first.t / duration * columns), columns - 1)
            words = f"first content {_seconds(first.t)}"
            mark = f"▲ {words}" if at + len(words) + 2 <= columns else f"{words} ▲"
            yield " " * (_LABEL + (at if mark.startswith("▲") else at - len(words) - 1)) + mark

    # --- The message ---

    def _message(self) -> Iterator[str]:
        message = self._timeline.message
        if message is None:
            yield from self._labelled("message", "none: message_start never came")
            return
        words = f"{message.get('id')}, {message.get('model')}, stop reason {message.stop_reason}"
        yield from self._labelled("message", visible(words))
        for index, block in enumerate(message.content):
            shown = {name: value for name, value in block.raw.items() if name != "type"}
            open_mark = "" if block.complete else "  (not complete)"
            yield "  " + self._fit(f"[{index}] {block.get('type')}{open_mark}: {to_json(shown)}", 2)

    def _answer(self, answer: JSONAnswer) -> Iterator[str]:
        """An answer that is no stream: its JSON, a line for each member."""
        yield from self._labelled("body", visible(answer.kind))
        if answer.value is not None:
            for line in to_json(answer.value, indent=2).split("\n"):
                yield "  " + self._fit(line, 2)


def _bars(shares: Iterable[float], columns: int) -> str:
    counts = [0] * columns
    for share in shares:
        counts[min(int(share * columns), columns - 1)] += 1
    top = max(counts)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] if count else " " for count in counts).rstrip()


def _wrapped(text: str, room: int) -> Iterator[str]:
    """The text in lines of at most `room` characters, broken between words."""
    line = ""
    for word in re.findall(r"[^ ]* ?", text):
        if line and len(line) + len(word.rstrip()) > room:
            yield line.rstrip()
            line = ""
        line += word
    yield _cut(line.rstrip(), room)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    size = f"… ({len(text)} characters)"
    return text[: limit - len(size)] + size if limit > 2 * len(size) else text[: limit - 1] + "…"
