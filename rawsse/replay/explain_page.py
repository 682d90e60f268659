"""A recording as one HTML page: its timeline (SVG), and bytes, lines, events and message side by side.

    Path("plain.html").write_text(explain_html(Recording.load("fixtures/plain.sse.jsonl")), encoding="utf-8")
    explain_html(recording, event=5)            # one event, from the read to the message

The page makes no network requests, and its Content-Security-Policy forbids them. It works without JavaScript; a few lines of
script highlight an event's row, mark and text together. Its style sheet, `rawsse/web/explain.css`, is inlined.

The size is bounded: in a long recording, only the first and last events have rows, and one row represents the others. In the
picture, events that would overlap share a mark.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, groupby
from typing import Any, TypeAlias

from rawsse.messages import Block
from rawsse.replay.explain import LANES, Gap, Group, Piece, Timeline, clip, in_words, kinds_of, layers, to_json, visible
from rawsse.replay.recording import Read, Recording

MAX_SHOWN_EVENTS = 500
"""How many events have individual rows: most recordings have fewer, and browsers scroll through that many easily."""

MAX_SHOWN_LINES = 12
"""How many lines (or pieces of them) are shown of one event, and how many problems of a shared row. Events of the Messages API
have three lines."""

MAX_LINE_CHARS = 400
"""How much of a line is shown. Results of server tools have tens of thousands of characters."""

MAX_TEXT_CHARS = 100_000
"""How much of the text of one block is shown."""

_SHOWN_AT_END = 60
_HEX_BYTES = 8
# Many fonts lack the "Control Pictures" of Unicode, with which `visible` represents control characters.
_CONTROLS: Mapping[int, str] = {code: repr(chr(code))[1:-1] for code in (*range(0x20), 0x7F)}
_LINE_ENDS: Mapping[str, str] = {
    "\n": "<i>LF</i>",
    "\r": "<i>CR</i>",
    "\r\n": "<i>CR LF</i>",
    "": '<i title="goes on in the next read">…</i>',
}

MARK_UNITS = 2.5
"""The smallest distance between two marks: a row has room for about 350."""

_LEFT, _RIGHT = 92.0, 984.0  # x of time 0 and of the end
_TOP, _LANE = 44.0, 24.0  # y of the first row, and the height of a row
_CHAR = 6.4  # the approximate width of a character at 11 units

Anchor: TypeAlias = Callable[[int], str]
"""The id on the page for the number of an event."""

Scale: TypeAlias = Callable[[float], float]
"""The x of a time in seconds."""


# --- The page --------------------------------------------------------------------------------------------------------


def explain_html(recording: Recording, *, event: int | None = None) -> str:
    """The page; with `event`, counted from 1, the page of that event: the picture with its mark, and its `layers`. Accepts a
    recording with any content. Raises `ConfigurationError` if it has no such event.
    """
    timeline = Timeline.of(recording)
    main = _whole(timeline) if event is None else _one_event(timeline, timeline.event(event))
    style, script = _asset("explain.css"), _asset("explain.js")
    sources = f"style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(recording.name)} explained</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"{_header(timeline)}<main>\n{''.join(main)}</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _header(timeline: Timeline) -> str:
    recording, request = timeline.recording, timeline.recording.request
    quality = "good" if timeline.verdict == "complete" and recording.end == "clean" else "bad"
    verdict = timeline.verdict if recording.end == "clean" else f"{timeline.verdict}; connection: {recording.end}"
    asked = f"{request.method} {request.path}" if request else "Request unknown"
    body = request.body.items() if request is not None and isinstance(request.body, dict) else ()
    fields = [(name, _escaped(to_json(value), 4 * MAX_LINE_CHARS)) for name, value in body]
    fields += [(name, _escaped(value)) for name, value in recording.headers.items()]
    return (
        f'<header><h1>{_escaped(recording.name)}</h1><p class="verdict {quality}">{_escaped(verdict)}</p></header>\n'
        f'<details class="exchange"><summary>{_escaped(asked)} → HTTP status {recording.status}</summary>\n<dl>'
        f"{''.join(f'<dt>{_escaped(name)}</dt><dd>{value}</dd>' for name, value in fields)}</dl></details>\n"
    )


def _one_event(timeline: Timeline, group: Group) -> Iterator[str]:
    yield f'<section class="exchange"><h2 class="k-{group.lane}">{_escaped(in_words(group))}</h2>\n'
    yield f"{_framed(timeline, None, group.event)}<dl>"
    for name, lines, own in layers(timeline, group):
        shown = [_with_line_ends(line) for line in lines]
        if own is not None:
            shown[own] = f"<mark>{shown[own]}</mark>"
        text = "\n".join(shown)
        yield f'<dt>{name}</dt><dd class="prose">{text}</dd>\n' if lines else ""
    yield "</dl></section>\n"


def _whole(timeline: Timeline) -> Iterator[str]:
    runs = _runs(timeline.groups)
    # Event number -> row number: the event's own, or that of the first event in a shared row.
    rows = {event.event: events[0].event for events in map(_events, runs) for event in events}
    yield '<section aria-labelledby="timeline"><h2 id="timeline">Timeline</h2>\n'
    yield f'{_framed(timeline, lambda event: f"e{rows[event]}")}<dl class="figures">'
    for name, value in timeline.figures:
        wide = ' class="wide"' if name in ("events", "usage", "ending", "problems") else ""
        yield f"<div{wide}><dt>{_escaped(name)}</dt><dd>{_visible(value)}</dd></div>"
    yield '</dl></section>\n<div class="sides">\n'
    yield from _anatomy(timeline, runs)
    yield from _message(timeline, rows)
    yield "</div>\n"


def _hash(source: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


def _escaped(value: str, limit: int = MAX_LINE_CHARS, size: str = "") -> str:
    """A text as HTML, without markup or invisible characters."""
    return _visible(clip(value, limit, size))


def _visible(value: str) -> str:
    """The same, whole. Control characters are written as in Python: with a backslash."""
    return html.escape(visible(value.translate(_CONTROLS)))


def _with_line_ends(line: str) -> str:
    """The same for one or more whole lines."""
    parts = re.split("(\r\n|\r|\n)", line)
    return "".join(_LINE_ENDS[part] if at % 2 else _visible(part) for at, part in enumerate(parts))


def _prose(value: str) -> str:
    """The same, but with line ends and tabs unchanged."""
    return "\n".join("\t".join(map(_visible, line.split("\t"))) for line in value.split("\n"))


def _asset(name: str) -> str:
    return (importlib.resources.files("rawsse") / "web" / name).read_text(encoding="utf-8")


# --- Bytes, lines, events --------------------------------------------------------------------------------------------


def _anatomy(timeline: Timeline, runs: Sequence[Sequence[Group]]) -> Iterator[str]:
    columns = "".join(f"<span>{name}</span>" for name in ("byte", "bytes", "line", "event"))
    yield f"""<section class="anatomy" aria-labelledby="anatomy"><h2 id="anatomy">Bytes, lines, events</h2>
<p class="more">The page of one event, from the read to the message: <code>rawsse explain --event N --html OUT …</code></p>
<div class="columns" aria-hidden="true">{columns}</div>\n<ol class="rows">\n"""
    for run in runs:
        yield from _row(run[0]) if len(run) == 1 else _shared_row(run)
    yield from _waits([timeline.gaps.get(len(timeline.recording.reads) + 1)])
    yield "</ol></section>\n"


def _row(group: Group) -> Iterator[str]:
    yield from _waits([piece.gap for piece in group.pieces])
    marks = f' id="e{group.event}" data-e="{group.event}"' if group.event else ""
    yield f'<li class="row k-{group.lane}"{marks}><div class="lines">'
    yield from map(_line, group.pieces[:MAX_SHOWN_LINES])
    if (more := len(group.pieces) - MAX_SHOWN_LINES) > 0:
        yield f'<p class="more">… and {more:,} more, to byte {group.pieces[-1].last:,}</p>'
    yield '</div><div class="event">'
    if group.event:
        block = "" if group.index is None else f"block {group.index}"
        detail = _escaped(" · ".join(filter(None, (group.detail, block))))
        yield f'<p class="what"><span class="number">{group.event}</span> <b>{_escaped(group.kind)}</b>'
        yield f'<span class="detail">{detail}</span></p>'
    if group.adds:
        yield f'<p class="adds"><a href="#m{group.event}">{_escaped(group.adds)}</a></p>'
    if group.says:
        yield f'<p class="says">{_escaped(group.says)}</p>'
    yield f"{''.join(_problems(group.problems))}</div></li>\n"


def _line(piece: Piece) -> str:
    begins = f'<p class="read">read {piece.read:,} · {piece.time} · {piece.begins:,} bytes</p>' if piece.begins else ""
    line = piece.data.decode("utf-8", "backslashreplace")
    ended = line.rstrip("\r\n")
    field, colon, value = ended.partition(":")
    name = _escaped(field + colon)
    name = f"<b>{name}</b>" if piece.is_new and colon and len(field) < 10 else name
    text = f"{name}{_escaped(value, size=piece.size)}{_LINE_ENDS[line[len(ended) :]]}"
    return (
        f'{begins}<p class="line"><span class="at">{piece.start}</span><code class="hex">{_hex(piece.data)}</code>'
        f'<code class="text">{text}</code></p>'
    )


def _shared_row(run: Sequence[Group]) -> Iterator[str]:
    """One row for many events."""
    first, last, events = run[0].pieces[0], run[-1].pieces[-1], _events(run)
    marks = f' id="e{events[0].event}" data-e="{events[0].event}"' if events else ""
    name = f"Events {events[0].event:,} to {events[-1].event:,}" if events else f"{len(run):,} comments"
    gaps = [piece.gap.seconds for group in run for piece in group.pieces if piece.gap]
    waited = f"; longest gap {max(gaps):.3f} s" if gaps else ""
    yield f'<li class="fold"{marks}><b>{name}</b> {_escaped(kinds_of(events))}; bytes {first.start:,} to {last.last:,}, '
    yield f"{run[0].t:.3f} s to {last.t:.3f} s{waited}"
    yield from _problems([f"event {group.event}: {problem}" for group in run for problem in group.problems])
    yield "</li>\n"


def _runs(groups: Sequence[Group]) -> Sequence[Sequence[Group]]:
    """The groups, one each, except that the middle of a long recording is one run."""
    first, last = MAX_SHOWN_EVENTS - _SHOWN_AT_END, len(groups) - _SHOWN_AT_END
    if len(groups) <= MAX_SHOWN_EVENTS:
        return [[group] for group in groups]
    return [*([group] for group in groups[:first]), groups[first:last], *([group] for group in groups[last:])]


def _events(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if group.event]


def _waits(gaps: Iterable[Gap | None]) -> Iterator[str]:
    yield from (f'<li class="wait">nothing came for {gap.seconds:.3f} s</li>\n' for gap in gaps if gap)


def _problems(texts: Sequence[str]) -> Iterator[str]:
    yield from (f'<p class="problem">{_escaped(text)}</p>' for text in texts[:MAX_SHOWN_LINES])
    if (more := len(texts) - MAX_SHOWN_LINES) > 0:
        yield f'<p class="problem">… and {more:,} more</p>'


def _hex(data: bytes) -> str:
    """The first and the last bytes of a line."""
    if len(data) <= _HEX_BYTES:
        return data.hex(" ")
    return f"{data[: _HEX_BYTES - 3].hex(' ')} … {data[-2:].hex(' ')}"


# --- The message -----------------------------------------------------------------------------------------------------


def _message(timeline: Timeline, rows: Mapping[int, int]) -> Iterator[str]:
    message = timeline.message
    yield '<section class="message" aria-labelledby="message" tabindex="0"><h2 id="message">Message</h2>\n'
    if message is None:
        yield '<p class="says">None: message_start never came.</p></section>\n'
        return
    yield from _problems([value for name, value in timeline.figures if name == "problems"])
    names = f"{message.get('id')}, {message.get('model')}"
    yield f'<p class="says">{_escaped(names)}</p>\n'
    for index, block in enumerate(message.content):
        pieces = [group for group in timeline.events if group.index == index and group.adds]
        yield from _block(index, block, pieces, rows)
    yield f'<p class="says">stop reason: {_escaped(str(message.get("stop_reason") or "none"))}</p></section>\n'


def _block(index: int, block: Block, pieces: Sequence[Group], rows: Mapping[int, int]) -> Iterator[str]:
    kind, tail = str(block.get("type")), "" if block.complete else " (not complete)"
    yield f'<h3><span class="number">{index}</span> {_escaped(kind)}{tail}</h3>\n'
    whole = block.input_text or next((block.raw[name] for name in ("text", "thinking") if name in block.raw), None)
    if pieces and "".join(group.adds for group in pieces) == whole:
        yield f'<p class="prose">{"".join(_linked(pieces, rows))}</p>\n'
    elif isinstance(whole, str) and whole:
        yield f'<p class="prose">{_prose(whole[:MAX_TEXT_CHARS])}</p>\n'
    rest = {name: value for name, value in block.raw.items() if name not in ("type", "text", "thinking", "input")}
    if not whole and block.raw.get("input"):
        rest["input"] = block.raw["input"]
    if rest:
        yield f'<p class="says">{_escaped(to_json(rest))}</p>\n'


def _linked(pieces: Sequence[Group], rows: Mapping[int, int]) -> Iterator[str]:
    """The text that the events added, one element per row: marked, if an event has a problem."""
    left = MAX_TEXT_CHARS
    for row, groups in groupby(pieces, key=lambda group: rows[group.event]):
        added = list(groups)
        text, tag = "".join(group.adds for group in added), "mark" if any(group.problems for group in added) else "span"
        yield f'<{tag} id="m{row}" data-e="{row}">{_prose(text[:left])}</{tag}>'
        left -= len(text)
        if left < 0:
            yield "…"
            return


# --- The picture -----------------------------------------------------------------------------------------------------


def _framed(timeline: Timeline, anchor: Anchor | None, own: int = 0) -> str:
    """The picture in a frame; nothing for a bare event stream, which has no times."""
    if not timeline.recording.duration:
        return ""
    svg = picture(timeline, anchor, own)
    return f'<div class="picture" role="region" aria-label="Timeline" tabindex="0">{svg}</div>\n'


def picture(timeline: Timeline, anchor: Anchor | None = "e{}".format, own: int = 0) -> str:
    """The picture. `anchor` returns the id on the page that an event's mark links to; None: there are no links. The mark of
    event `own` is highlighted."""
    reads, events, first = timeline.recording.reads, timeline.events, timeline.first_content
    seconds = timeline.recording.duration or 1.0
    rows: dict[str, Sequence[Any]] = {"reads": reads}
    rows |= {lane: found for lane in LANES if (found := [event for event in events if event.lane == lane])}
    bottom = _TOP + _LANE * len(rows)
    height = f"{bottom + 26:g}"

    def x_of(t: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * min(t / seconds, 1.0), 1)

    began = f"the first content at {first.t:.3f} s" if first else "no content"
    title = f"Timeline: {len(events)} events in {seconds:.3f} s, {began}, {len(timeline.gaps)} gaps."
    parts = [
        f'<svg viewBox="0 0 1000 {height}" width="1000" height="{height}" role="img" aria-labelledby="picture-title">',
        f'<title id="picture-title">{title}</title>',
        *_axis(seconds, x_of, bottom),
    ]
    if reads and reads[0].t > 0:
        parts += _shade(Gap(0.0, reads[0].t), "waiting", "waiting for the first read", x_of, bottom)
    for gap in timeline.gaps.values():
        parts += _shade(gap, "gap", "nothing came", x_of, bottom)
    for number, (name, items) in enumerate(rows.items()):
        parts += _lane(name, items, _TOP + _LANE * number, x_of, partial(_event_mark, anchor=anchor, own=own))
    if first is not None:
        x = x_of(first.t)
        place, end = (x + 4, "start") if x < 700 else (x - 4, "end")
        parts.append(f'<line class="first" x1="{x}" x2="{x}" y1="22" y2="{bottom}"/>')
        parts.append(_text(place, 28, f"first content {first.t:.3f} s", "first-label", end))
    return "".join([*parts, "</svg>"])


def _axis(seconds: float, x_of: Scale, bottom: float) -> Iterator[str]:
    """Lines at round numbers of seconds: at most nine."""
    steps = (digit * 10.0**exponent for exponent in count(-6) for digit in (1, 2, 5))
    step = next(step for step in steps if seconds / step <= 9)
    decimals = len(f"{step:.6f}".rstrip("0").partition(".")[2])
    for number in range(int(seconds / step + 1e-9) + 1):
        x = x_of(number * step)
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{bottom}"/>'
        anchor = "end" if x > _RIGHT - 20 else "middle"
        yield _text(x, bottom + 16, f"{number * step:.{decimals}f} s", "axis", anchor)


def _shade(gap: Gap, kind: str, words: str, x_of: Scale, bottom: float) -> Iterator[str]:
    """A wait, shaded from top to bottom, with a label if there is room."""
    left, right = x_of(gap.t), x_of(gap.t + gap.seconds)
    width, height = max(right - left, 1.0), bottom - _TOP + 6
    title = f"<title>{words} for {gap.seconds:.3f} s, from {gap.t:.3f} s on</title>"
    yield f'<rect class="{kind}" x="{left}" y="{_TOP - 6}" width="{width:.1f}" height="{height:g}">{title}</rect>'
    label = f"{words} {gap.seconds:.3f} s"
    if len(label) * _CHAR + 8 <= width:
        yield _text((left + right) / 2, _TOP + 8, label, "label", "middle")


def _lane(name: str, items: Sequence[Any], top: float, x_of: Scale, mark: Callable[..., str]) -> Iterator[str]:
    """A row of marks for reads or events. Those that would overlap share one."""
    yield _text(_LEFT - 10, top + 15, name, f"lane k-{name}", "end")
    yield f'<line class="base" x1="{_LEFT}" x2="{_RIGHT}" y1="{top + 11}" y2="{top + 11}"/>'
    shared: dict[float, list[Any]] = {}
    for item in items:
        shared.setdefault(round((x_of(item.t) - _LEFT) / MARK_UNITS) * MARK_UNITS + _LEFT, []).append(item)
    for x, found in shared.items():
        yield (_read_mark if name == "reads" else mark)(x, top, found)


def _read_mark(x: float, top: float, reads: Sequence[Read]) -> str:
    name = "1 read" if len(reads) == 1 else f"{len(reads)} reads"
    what = f"{name}, {sum(len(read.data) for read in reads):,} bytes, at {reads[0].t:.3f} s"
    return f'<rect class="read" x="{x - 1:g}" y="{top + 3:g}" width="2" height="16"><title>{what}</title></rect>'


def _event_mark(x: float, top: float, events: Sequence[Group], anchor: Anchor | None, own: int) -> str:
    first, last = events[0], events[-1]
    name = f"event {first.event}" if first is last else f"{len(events)} events, {first.event} to {last.event}"
    kinds = ", ".join(dict.fromkeys(event.detail or event.kind for event in events))
    title = html.escape(f"{name} at {first.t:.3f} s: {kinds[:100]}")
    lit = " lit" if any(event.event == own for event in events) else ""
    link = f' href="#{anchor(first.event)}" tabindex="-1" data-e="{first.event}"' if anchor else ""
    shape = f'<rect x="{x - 1.5:g}" y="{top + 3:g}" width="3" height="16" rx="1"/>'
    tag = "a" if anchor else "g"
    return f'<{tag} class="mark k-{first.lane}{lit}"{link}><title>{title}</title>{shape}</{tag}>'


def _text(x: float, y: float, words: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{html.escape(words)}</text>'
