"""Every cutting of a stream as a case of a test, with a name that says where it cuts; and one test of all of them.

This file knows what is before and behind a cut. It refuses to know test runners, and whose parser is tested.

    for case in cases(body, "plain"):
        case.name                                   # "plain-cut-at-0812-inside-data-line"
        my_parse(case.chunks)

    assert_every_split(body, my_parse)              # all of them at once: AssertionError tells the smallest that breaks it

Names depend on the bytes alone, so that they are the same in every run. They are made when they are asked for: a stream of some
kilobytes has thousands of cuttings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rawsse.errors import ConfigurationError
from rawsse.replay.shaping.splits import AS_UNCUT, Chunks, fixed, sized, smallest_failing_cut

MAX_CASES = 20_000
"""Of one stream: what a test runner gets through in half a minute. Pairs of cuts in more than 200 bytes are too many."""

_CR, _LF = 0x0D, 0x0A
_LINE_ENDS = (_CR, _LF)
_FIELD = re.compile(rb"(?:\xef\xbb\xbf)?([^:\r\n]{0,8})")
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})


@dataclass(frozen=True, slots=True)
class Case:
    """`data`, cut at `cuts`; or, if `size` is not 0, every so many bytes."""

    name: str
    data: bytes
    cuts: tuple[int, ...] = ()
    size: int = 0

    @property
    def chunks(self) -> Chunks:
        """The chunks, which joined give the data. Of a cut at the beginning or the end, one is empty."""
        if self.size:
            return fixed(self.data, self.size)
        ends = (*self.cuts, len(self.data))
        return tuple(self.data[start:end] for start, end in zip((0, *self.cuts), ends, strict=True))


def cases(
    data: bytes, name: str, *, edges: bool = False, pairs: bool = False, sizes: Sequence[int] = ()
) -> Iterator[Case]:
    """One cut, at every place; `edges`: only at those where parsers break (`is_edge`); `pairs`: every two cuts, too.

    `sizes` are added: the whole in chunks of that size. Raises `ConfigurationError` if that makes more than `MAX_CASES`.
    """
    places = [at for at in range(len(data) + 1) if not edges or is_edge(data, at)]
    count = len(places) * (len(places) + 1) // 2 if pairs else len(places)
    if count + len(sizes) > MAX_CASES:
        raise ConfigurationError(f"{name}: {count} cuttings are more than {MAX_CASES}; assert_every_split is one test")
    width = len(str(len(data)))
    for at in places:
        yield Case(f"{name}-cut-at-{at:0{width}}-{place_of(data, at)}", data, (at,))
    if pairs:
        for index, first in enumerate(places):
            for second in places[index + 1 :]:
                yield Case(f"{name}-cut-at-{first:0{width}}-and-{second:0{width}}", data, (first, second))
    for size in sizes:
        yield Case(f"{name}-in-chunks-of-{size}", data, size=size)


# --- Where a cut is --------------------------------------------------------------------------------------------------


def place_of(data: bytes, at: int) -> str:
    """Where in an event stream a cut before byte `at` is: `inside-data-line`, `between-cr-and-lf`, `inside-a-character` …"""
    if at in (0, len(data)):
        return "before-all" if at == 0 else "after-all"
    if data[at - 1] == _CR and data[at] == _LF:
        return "between-cr-and-lf"
    if data[at] & 0xC0 == 0x80:  # RFC 3629, 3: every byte of a character but its first is 10xxxxxx
        return "inside-a-character"
    start = _line_start(data, at)
    if at > start:
        return f"{'at-end-of' if data[at] in _LINE_ENDS else 'inside'}-{_kind_of_line(data, start)}-line"
    if data[at] in _LINE_ENDS:
        return "before-blank-line"
    return "between-events" if _is_after_blank_line(data, at) else f"before-{_kind_of_line(data, start)}-line"


def is_edge(data: bytes, at: int) -> bool:
    """A parser may take a cut there for something else than a cut: it is at a line's end or beginning, or in a character."""
    place = place_of(data, at)
    return not (place.startswith("inside-") and place.endswith("-line"))


def at_line_ends(data: bytes) -> Chunks:
    """Cut before and behind each line end, and inside CR LF: the places where most parsers that break do."""
    edges = [at for at in range(1, len(data)) if data[at] in _LINE_ENDS or data[at - 1] in _LINE_ENDS]
    return sized(data, (end - start for start, end in zip([0, *edges], edges, strict=False)))


def _line_start(data: bytes, at: int) -> int:
    return max(data.rfind(b"\n", 0, at), data.rfind(b"\r", 0, at)) + 1


def _kind_of_line(data: bytes, start: int) -> str:
    field = _FIELD.match(data, start)
    name = b"" if field is None else field[1]
    return "comment" if not name else name.decode() if name in _FIELDS else "unknown"


def _is_after_blank_line(data: bytes, start: int) -> bool:
    end = start - (2 if data[start - 2 : start] == b"\r\n" else 1)  # of the line before
    return end == 0 or data[end - 1] in _LINE_ENDS


# --- All of them in one test -----------------------------------------------------------------------------------------


def assert_every_split(
    data: bytes, parse: Callable[[Chunks], Any], expected: Any = AS_UNCUT, *, name: str = ""
) -> None:
    """Fail if some cutting of `data` makes a difference to `parse`; the message shows the smallest one that does.

    `parse` takes the chunks and returns what it made of them; it may be async, or a generator. `expected` defaults to what it
    makes of the uncut data. See `smallest_failing_cut`.
    """
    __tracebackhide__ = True  # pytest shows the line that called this one
    failing = smallest_failing_cut(data, parse, expected)
    if failing is None:
        return
    places = " and ".join(place_of(data, at).replace("-", " ") for at in failing.cuts) or "not cut at all"
    cause = failing.got if isinstance(failing.got, Exception) else None
    raise AssertionError(f"{name or 'the stream'}, {places}: {failing!r}") from cause
