"""The timeline of a recording as a picture: SVG, to stand inside an HTML page.

This file knows where on a sheet of 1000 units each moment stands, and what is drawn there. It refuses to know colours and
fonts (the page's style sheet has a rule for every class here), and what belongs to what; see `timeline.py` for that.

    svg = picture(Timeline.of(recording))

Events that would fall on each other are drawn as one mark, so the size is bounded, whatever the recording.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence

from rawsse.replay.looking.timeline import LANES, Gap, Group, Timeline

MARK_UNITS = 2.5
"""Marks are at least so far apart: a sheet has room for about 350 in a row."""

_LEFT, _RIGHT = 92.0, 984.0  # where time 0 and the end are
_TOP, _CURVE, _READS, _LANE = 44.0, 84.0, 34.0, 24.0  # heights of the rows
_CHAR = 6.4  # about how wide a character is at 11 units
_STEPS = (1, 2, 5)


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
