"""A recording as one HTML page: its timeline as a picture (SVG); bytes, lines, events and message side by side.

    Path("plain.html").write_text(explain_html(Recording.load("fixtures/plain.sse.jsonl")), encoding="utf-8")

The page asks the network for nothing, and its Content-Security-Policy would not let it. It can be read without JavaScript; the
little that is in it lights up what belongs together. How it looks, `rawsse/web/explain.css` says, which is put into the page.
Long recordings are folded: up to `MAX_SHOWN_EVENTS` events are laid out, the others stand as one line for each run of them. In
the picture, events that would fall on each other are one mark: so the size is bounded, whatever the recording.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rawsse.messages import Block
from rawsse.replay.explain import LANES, Gap, Group, Piece, Timeline, to_json, visible
from rawsse.replay.recording import Recording

MAX_SHOWN_EVENTS = 500
"""How many events are laid out: most recordings have fewer, and a browser scrolls through so many without effort."""

MAX_SHOWN_LINES = 12
"""How many lines, or pieces of them, are shown of one event. Events of the Messages API have three."""

MAX_LINE_CHARS = 400
"""How much of a line is shown. The results of server tools have tens of thousands of characters."""

MAX_TEXT_CHARS = 100_000
"""How much of the text of one block is shown."""

_KEPT_AT_END = 60
_HEX_BYTES = 8
# Not Unicode's pictures of them: many fonts have none.
_LINE_ENDS: Mapping[bytes, str] = {
    b"\n": "<i>LF</i>",
    b"\r": "<i>CR</i>",
    b"\r\n": "<i>CR LF</i>",
    b"": '<i title="goes on in the next read">…</i>',
}
_DELTAS_AND_PINGS = ("content_block_delta", "ping")

MARK_UNITS = 2.5
"""Marks are at least so far apart: a sheet has room for about 350 in a row."""

_LEFT, _RIGHT = 92.0, 984.0  # where time 0 and the end are
_TOP, _CURVE, _READS, _LANE = 44.0, 84.0, 34.0, 24.0  # heights of the rows
_CHAR = 6.4  # about how wide a character is at 11 units
_STEPS = (1, 2, 5)


# --- The page --------------------------------------------------------------------------------------------------------


def explain_html(recording: Recording) -> str:
    """The page. Never raises for what the recording holds."""
    return "".join(_Page(Timeline.of(recording)).parts())


def _hash(source: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


def _escaped(value: str, limit: int = MAX_LINE_CHARS) -> str:
    """A text of the recording as HTML text: nothing in it is markup, and nothing in it is invisible."""
    cut = value if len(value) <= limit else f"{value[:limit]}… ({len(value):,} characters)"
    return html.escape(visible(cut))


def _prose(value: str) -> str:
    """The same for text in which line ends and tabs are to be seen as such."""
    lines = (visible(line).replace("␉", "\t") for line in value[:MAX_TEXT_CHARS].split("\n"))
    return html.escape("\n".join(lines))


def _asset(name: str) -> str:
    return (importlib.resources.files("rawsse") / "web" / name).read_text(encoding="utf-8")


class _Page:
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._recording = timeline.recording
        self._gaps = {gap.read: gap for gap in timeline.gaps}
        self._read = 0  # the one that was shown last
        self._runs = list(_runs(timeline.groups))
        # Where the mark of an event leads: to its row, or to the line that stands for it.
        self._rows = {group.event: run[0].event for run in self._runs for group in run if group.event}

    def parts(self) -> Iterator[str]:
        style, script = _asset("explain.css"), _asset("explain.js")
        name = _escaped(self._recording.name)
        sources = f"style-src {_hash(style)}; script-src {_hash(script)}"
        policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
        yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        yield f"<title>{name} explained</title>\n<style>{style}</style>\n</head>\n<body>\n"
        yield from self._header(name)
        yield "<main>\n"
        yield from self._overview()
        yield '<div class="sides">\n'
        yield from self._anatomy()
        yield from self._message()
        yield f"</div>\n</main>\n<script>{script}</script>\n</body>\n</html>\n"

    # --- Above ---

    def _header(self, name: str) -> Iterator[str]:
        request, verdict = self._recording.request, self._timeline.verdict
        is_good = verdict == "complete" and self._recording.end == "clean"
        yield f'<header><h1>{name}</h1><p class="verdict {"good" if is_good else "bad"}">{_escaped(verdict)}</p></header>\n'
        yield '<details class="exchange"><summary>'
        yield _escaped(f"{request.method} {request.path}" if request else "Request unknown")
        yield f" → HTTP status {self._recording.status}</summary>\n<dl>"
        if request is not None and isinstance(request.body, dict):
            for field, value in request.body.items():
                yield f"<dt>{_escaped(field)}</dt><dd>{_escaped(to_json(value), 4 * MAX_LINE_CHARS)}</dd>"
        for field, value in self._recording.headers.items():
            yield f"<dt>{_escaped(field)}</dt><dd>{_escaped(value)}</dd>"
        yield "</dl></details>\n"

    def _overview(self) -> Iterator[str]:
        yield '<section aria-labelledby="timeline"><h2 id="timeline">Timeline</h2>\n'
        svg = picture(self._timeline, lambda event: f"e{self._rows[event]}")
        yield f'<div class="picture" role="region" aria-label="Timeline" tabindex="0">{svg}</div>\n<dl class="figures">'
        for name, value in self._timeline.figures:
            wide = ' class="wide"' if name in ("events", "usage", "ending") else ""
            yield f"<div{wide}><dt>{_escaped(name)}</dt><dd>{html.escape(value)}</dd></div>"
        yield "</dl></section>\n"

    # --- Bytes, lines, events ---

    def _anatomy(self) -> Iterator[str]:
        yield '<section class="anatomy" aria-labelledby="anatomy"><h2 id="anatomy">Bytes, lines, events</h2>\n'
        columns = "".join(f"<span>{name}</span>" for name in ("byte", "bytes", "line", "event"))
        yield f'<div class="columns" aria-hidden="true">{columns}</div>\n<ol class="rows">\n'
        for run in self._runs:
            yield from self._row(run[0]) if len(run) == 1 else self._fold(run)
        yield from self._gap(0)
        if self._timeline.is_cut_off:
            yield '<li class="problem">The end cut these lines off: no blank line came, so they are not an event.</li>\n'
        yield "</ol></section>\n"

    def _row(self, group: Group) -> Iterator[str]:
        yield from self._gap(group.pieces[0].read)
        marks = f' id="e{group.event}" data-e="{group.event}"' if group.event else ""
        yield f'<li class="row k-{group.lane}"{marks}><div class="lines">'
        before = b"\n"
        for piece in group.pieces[:MAX_SHOWN_LINES]:
            yield from self._line(piece, is_new=before.endswith((b"\r", b"\n")))
            before = piece.data
        if (more := len(group.pieces) - MAX_SHOWN_LINES) > 0:
            yield f'<p class="more">… and {more:,} more, to byte {group.end - 1:,}</p>'
            self._read = group.read
        yield "</div>"
        yield from self._event(group)
        yield "</li>\n"

    def _gap(self, read: int) -> Iterator[str]:
        gap = self._gaps.pop(read, None)
        if gap is not None:
            yield f'<li class="wait">nothing came for {gap.seconds:.3f} s</li>\n'

    def _line(self, piece: Piece, *, is_new: bool) -> Iterator[str]:
        if piece.read != self._read:
            self._read = piece.read
            size = len(self._recording.reads[piece.read - 1].data)
            yield f'<p class="read">read {piece.read:,} · {piece.t:.3f} s · {size:,} bytes</p>'
        ended = piece.data.rstrip(b"\r\n")
        line = ended.decode("utf-8", "backslashreplace")
        field, colon, value = line.partition(":")
        name = f"<b>{_escaped(field + colon)}</b>" if is_new and colon and len(field) < 10 else _escaped(field + colon)
        end = _LINE_ENDS[piece.data[len(ended) :]]
        yield f'<p class="line"><span class="at">{piece.start}</span><code class="hex">{_hex(piece.data)}</code>'
        yield f'<code class="text">{name}{_escaped(value)}{end}</code></p>'

    def _event(self, group: Group) -> Iterator[str]:
        yield '<div class="event">'
        if group.event:
            yield f'<p class="what"><span class="number">{group.event}</span> <b>{_escaped(group.kind)}</b>'
            block = "" if group.index is None else f"block {group.index}"
            yield f'<span class="detail">{_escaped(" · ".join(filter(None, (group.detail, block))))}</span></p>'
        if group.adds:
            yield f'<p class="adds"><a href="#m{group.event}">{_escaped(group.adds)}</a></p>'
        if group.says:
            yield f'<p class="says">{_escaped(group.says)}</p>'
        for problem in group.problems:
            yield f'<p class="problem">{_escaped(problem)}</p>'
        yield "</div>"

    def _fold(self, run: Sequence[Group]) -> Iterator[str]:
        first, last = run[0], run[-1]
        kinds = Counter(group.detail or group.kind for group in run)
        words = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        waits = [self._gaps.pop(read) for read in range(first.pieces[0].read, last.read + 1) if read in self._gaps]
        waited = f"; longest gap {max(gap.seconds for gap in waits):.3f} s" if waits else ""
        self._read = last.read
        yield f'<li class="fold" id="e{first.event}" data-e="{first.event}"><b>Events {first.event:,} to {last.event:,}</b> '
        yield f"{_escaped(words)}; bytes {first.start:,} to {last.end - 1:,}, "
        yield f"{first.t:.3f} s to {last.t:.3f} s{waited}</li>\n"

    # --- The message ---

    def _message(self) -> Iterator[str]:
        message = self._timeline.message
        yield '<section class="message" aria-labelledby="message" tabindex="0"><h2 id="message">Message</h2>\n'
        if message is None:
            yield '<p class="says">None: message_start never came.</p></section>\n'
            return
        names = f"{message.get('id')}, {message.get('model')}"
        yield f'<p class="says">{_escaped(names)}</p>\n'
        for index, block in enumerate(message.content):
            yield from self._block(index, block)
        yield f'<p class="says">stop reason: {_escaped(str(message.get("stop_reason")))}</p></section>\n'

    def _block(self, index: int, block: Block) -> Iterator[str]:
        kind, tail = str(block.get("type")), "" if block.complete else " (not complete)"
        yield f'<h3><span class="number">{index}</span> {_escaped(kind)}{tail}</h3>\n'
        pieces = [group for group in self._timeline.events if group.index == index and group.adds]
        told = block.input_text or next((block.raw[name] for name in ("text", "thinking") if name in block.raw), None)
        if pieces and "".join(group.adds for group in pieces) == told:
            yield f'<p class="prose">{"".join(self._linked(pieces))}</p>\n'
        elif isinstance(told, str) and told:
            yield f'<p class="prose">{_prose(told)}</p>\n'
        rest = {name: value for name, value in block.raw.items() if name not in ("type", "text", "thinking", "input")}
        if not told and block.raw.get("input"):
            rest["input"] = block.raw["input"]
        if rest:
            yield f'<p class="says">{_escaped(to_json(rest))}</p>\n'

    def _linked(self, pieces: Sequence[Group]) -> Iterator[str]:
        """What the events added, each in its element; those that are folded share one."""
        left, row, together = MAX_TEXT_CHARS, 0, ""
        for group in pieces:
            here = self._rows[group.event]
            if here != row and together:
                yield _marked(row, together)
                together = ""
            row, together = here, together + group.adds[:left]
            left -= len(group.adds)
            if left <= 0:
                together += "…"
                break
        yield _marked(row, together)


def _marked(row: int, text: str) -> str:
    return f'<span id="m{row}" data-e="{row}">{_prose(text)}</span>'


def _runs(groups: Sequence[Group]) -> Iterator[Sequence[Group]]:
    """The groups, each alone; but in the middle of a long recording, all that come between two that are special together."""
    if len(groups) <= MAX_SHOWN_EVENTS:
        yield from ([group] for group in groups)
        return
    first, last = MAX_SHOWN_EVENTS // 2, len(groups) - _KEPT_AT_END
    special = MAX_SHOWN_EVENTS - first - _KEPT_AT_END
    run: list[Group] = []
    for at, group in enumerate(groups):
        is_special = bool(group.problems) or group.kind not in _DELTAS_AND_PINGS
        if at < first or at >= last or (is_special and special > 0):
            special -= first <= at < last
            yield from ([run] if run else [])
            yield [group]
            run = []
        else:
            run.append(group)


def _hex(data: bytes) -> str:
    """The first bytes and the last ones: where a line begins, and how it ends."""
    if len(data) <= _HEX_BYTES:
        return data.hex(" ")
    return f"{data[: _HEX_BYTES - 3].hex(' ')} … {data[-2:].hex(' ')}"


# --- The picture -----------------------------------------------------------------------------------------------------


def picture(timeline: Timeline, anchor: Callable[[int], str] = "e{}".format) -> str:
    """The picture. `anchor` says to which id on the page the mark of an event leads."""
    return "".join(_Sheet(timeline, anchor).parts())


class _Sheet:
    def __init__(self, timeline: Timeline, anchor: Callable[[int], str]) -> None:
        self._timeline = timeline
        self._anchor = anchor
        self._events = timeline.events
        self._seconds = timeline.duration or 1.0
        self._lanes = [lane for lane in LANES if any(event.lane == lane for event in self._events)]
        self._bottom = _TOP + _CURVE + _READS + _LANE * len(self._lanes)

    def parts(self) -> Iterator[str]:
        height = self._bottom + 26
        yield f'<svg viewBox="0 0 1000 {height:g}" width="1000" height="{height:g}" role="img" aria-labelledby="picture-title">'
        yield f'<title id="picture-title">{html.escape(self._in_words())}</title>'
        yield from self._axis()
        yield from self._waits()
        yield from self._curve()
        yield from self._reads()
        for number, lane in enumerate(self._lanes):
            top = _TOP + _CURVE + _READS + _LANE * number
            yield from self._lane(lane, [event for event in self._events if event.lane == lane], top)
        yield from self._first_content()
        yield "</svg>"

    def _x(self, t: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * min(t / self._seconds, 1.0), 1)

    def _in_words(self) -> str:
        first, kinds = self._timeline.first_content, len(self._events)
        began = f"the first content at {first.t:.3f} s" if first else "no content"
        return f"Timeline: {kinds} events in {self._timeline.duration:.3f} s, {began}, {len(self._timeline.gaps)} gaps."

    def _axis(self) -> Iterator[str]:
        step = _step(self._seconds)
        decimals = max(0, len(f"{step:.6f}".rstrip("0").partition(".")[2]))
        for number in range(int(self._seconds / step + 1e-9) + 1):
            x = self._x(number * step)
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{self._bottom}"/>'
            yield _text(x, self._bottom + 16, f"{number * step:.{decimals}f} s", "axis", _anchor_at(x))

    def _waits(self) -> Iterator[str]:
        """The wait for the first byte, and the gaps: shaded from top to bottom, with their seconds where there is room."""
        reads = self._timeline.recording.reads
        if reads and reads[0].t > 0:
            yield from self._shade(Gap(0.0, reads[0].t, 1), "waiting", "waiting for the first byte")
        for gap in self._timeline.gaps:
            yield from self._shade(gap, "gap", "nothing came")

    def _shade(self, gap: Gap, kind: str, words: str) -> Iterator[str]:
        left, right = self._x(gap.t), self._x(gap.t + gap.seconds)
        width, height = max(right - left, 1.0), self._bottom - _TOP + 6
        title = f"<title>{words} for {gap.seconds:.3f} s, from {gap.t:.3f} s on</title>"
        yield f'<rect class="{kind}" x="{left}" y="{_TOP - 6}" width="{width:.1f}" height="{height:g}">{title}</rect>'
        label = next(
            (text for text in (f"{words} {gap.seconds:.3f} s", f"{gap.seconds:.2f} s") if _fits(text, width)), ""
        )
        if label:
            yield _text((left + right) / 2, _TOP + 8, label, "label", "middle")

    def _curve(self) -> Iterator[str]:
        """How many characters had come at each moment."""
        total, floor = self._timeline.characters, _TOP + _CURVE - 6
        yield _text(_LEFT - 10, floor, "characters", "lane", "end")
        if not total:
            return
        room, sum_, points = _CURVE - 26, 0, [(_LEFT, floor)]
        for event in (event for event in self._events if event.adds):
            x = float(round(self._x(event.t)))
            before = points[-1][1]
            sum_ += len(event.adds)
            points.append((x, round(floor - room * sum_ / total, 1)))
            if len(points) > 2 and points[-2][0] == x:
                del points[-2]  # one point per place is enough
            else:
                points.insert(-1, (x, before))
        points.append((_RIGHT, points[-1][1]))
        line = " ".join(f"{x:g},{y:g}" for x, y in points)
        yield f'<polygon class="area" points="{line} {_RIGHT:g},{floor:g}"/><polyline class="curve" points="{line}"/>'
        yield _text(_RIGHT, points[-1][1] - 5, f"{total:,}", "label", "end")

    def _reads(self) -> Iterator[str]:
        reads, floor = self._timeline.recording.reads, _TOP + _CURVE + _READS - 8
        yield _text(_LEFT - 10, floor, "reads", "lane", "end")
        yield f'<line class="base" x1="{_LEFT}" x2="{_RIGHT}" y1="{floor}" y2="{floor}"/>'
        sums: dict[float, list[int]] = {}
        for number, read in enumerate(reads, 1):
            sums.setdefault(_snapped(self._x(read.t)), []).append(number)
        sizes = {x: sum(len(reads[number - 1].data) for number in numbers) for x, numbers in sums.items()}
        for x, numbers in sums.items():
            height = round(3 + 19 * sizes[x] / max(1, *sizes.values()), 1)
            what = f"{_span('read', numbers)}, {sizes[x]:,} bytes, at {reads[numbers[0] - 1].t:.3f} s"
            where = f'x="{x - 1:g}" y="{floor - height:g}" width="2" height="{height:g}"'
            yield f'<rect class="read" {where}><title>{what}</title></rect>'

    def _lane(self, lane: str, events: Sequence[Group], top: float) -> Iterator[str]:
        yield _text(_LEFT - 10, top + 15, lane, f"lane k-{lane}", "end")
        yield f'<line class="base" x1="{_LEFT}" x2="{_RIGHT}" y1="{top + 11}" y2="{top + 11}"/>'
        marks: dict[float, list[Group]] = {}
        for event in events:
            marks.setdefault(_snapped(self._x(event.t)), []).append(event)
        for x, group in marks.items():
            yield self._mark(lane, x, top, group)

    def _mark(self, lane: str, x: float, top: float, events: Sequence[Group]) -> str:
        first = events[0]
        kinds = ", ".join(dict.fromkeys(event.detail or event.kind for event in events))
        what = html.escape(f"{_span('event', [event.event for event in events])} at {first.t:.3f} s: {kinds[:100]}")
        shape = f'<rect x="{x - 1.5:g}" y="{top + 3:g}" width="3" height="16" rx="1"/>'
        link = f'href="#{self._anchor(first.event)}" tabindex="-1" data-e="{first.event}"'
        return f'<a class="mark k-{lane}" {link}><title>{what}</title>{shape}</a>'

    def _first_content(self) -> Iterator[str]:
        first = self._timeline.first_content
        if first is None:
            return
        x = self._x(first.t)
        yield f'<line class="first" x1="{x}" x2="{x}" y1="22" y2="{self._bottom}"/>'
        anchor = "start" if x < 700 else "end"
        yield _text(x + (4 if anchor == "start" else -4), 28, f"first content {first.t:.3f} s", "first-label", anchor)


def _step(seconds: float) -> float:
    """A round number of seconds, so that there are at most nine lines."""
    exponent = -6
    while True:
        for digit in _STEPS:
            step = digit * 10.0**exponent
            if seconds / step <= 9:
                return step
        exponent += 1


def _snapped(x: float) -> float:
    return round(round((x - _LEFT) / MARK_UNITS) * MARK_UNITS + _LEFT, 1)


def _span(noun: str, numbers: Iterable[int]) -> str:
    all_numbers = list(numbers)
    if len(all_numbers) == 1:
        return f"{noun} {all_numbers[0]}"
    return f"{len(all_numbers)} {noun}s, {all_numbers[0]} to {all_numbers[-1]}"


def _fits(text: str, width: float) -> bool:
    return len(text) * _CHAR + 8 <= width


def _anchor_at(x: float) -> str:
    return "end" if x > _RIGHT - 20 else "middle"


def _text(x: float, y: float, words: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{html.escape(words)}</text>'
