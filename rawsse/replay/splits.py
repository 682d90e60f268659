"""Cutting bytes into chunks, at every place where a network may cut them; and finding the cut that breaks a parser.

    for chunks in every_split(body):                 # (body[:1], body[1:]) … (body[:-1], body[-1:])
        assert my_parse(chunks) == expected

    cut = smallest_failing_cut(body, my_parse)       # None: no cut breaks it; my_parse may be async, or give a generator
    print(cut)                                       # where, the bytes around it, and what went wrong
    assert_every_split(body, my_parse)               # the same as an AssertionError

    my_parse(split_by("random:7")(body))             # one chunking, by name
    my_parse(as_recorded(recording))                 # as the network cut it

    for case in cases(body, "plain"):                # for a test runner: a name for each cutting, the same in every run
        my_parse(case.chunks)                        # "plain-cut-at-0812-inside-data-line"

A chunking is a tuple of chunks which joined give the data. Networks deliver whatever chunks they like, and the faults that
parsers have hide at single places: between CR and LF, inside a character, before a blank line's second line feed. Random
cuts rarely hit those, so the functions here go through all of them. They work on any parser.

No chunk is empty unless you say `empty=True`: a network never delivers b"", for that is its word for the end. What stands
between a network and a parser may: decompression, decoding, a gateway's buffer.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, combinations, combinations_with_replacement, islice
from typing import Any, Final, TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import Recording

Chunks: TypeAlias = tuple[bytes, ...]
Split: TypeAlias = str | int | Sequence[int] | Callable[[bytes], Chunks]
"""How to cut: `"whole"`, `"event"`, `"bytes"`, `"random:SEED"`, a chunk size, a list of sizes, or a function of your own.
A size, or sizes with commas between them, may be a string, too, as on a command line."""

CONTEXT_BYTES = 24
"""How much a `FailingCut` shows on each side of a cut: about one line."""

MAX_RANDOM_BYTES = 64
"""The largest chunk of `random_chunks` by default: about half an event, so that most events are cut."""

MAX_PAIRS = 50_000
"""How many pairs of cuts `smallest_failing_cut` tries by default: all that there are in 317 bytes, in seconds."""


class _Expected(Enum):
    AS_UNCUT = "what the parser makes of the uncut data"


AS_UNCUT: Final = _Expected.AS_UNCUT
"""In place of an expected value, which may be None: whatever the parser makes of the uncut data."""


# --- One chunking ----------------------------------------------------------------------------------------------------


def whole(data: bytes) -> Chunks:
    """All in one chunk."""
    return (data,) if data else ()


def byte_by_byte(data: bytes) -> Chunks:
    """Every byte in its own chunk."""
    return fixed(data, 1)


def fixed(data: bytes, size: int) -> Chunks:
    """Chunks of `size` bytes, and the rest."""
    _require_sizes(size)
    return tuple(data[at : at + size] for at in range(0, len(data), size))


def sized(data: bytes, sizes: Iterable[int]) -> Chunks:
    """Chunks of these sizes, one after the other; then the rest, if there is any, in one."""
    given = list(sizes)
    _require_sizes(*given)
    ends = [end for end in accumulate(given) if end < len(data)]
    return _cut(data, *ends) if data else ()


def random_chunks(data: bytes, seed: int, *, max_size: int = MAX_RANDOM_BYTES) -> Chunks:
    """Chunks of 1 to `max_size` bytes; the same ones for the same seed."""
    _require_sizes(max_size)
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    ends, end = [], chance.randint(1, max_size)
    while end < len(data):
        ends.append(end)
        end += chance.randint(1, max_size)
    return _cut(data, *ends) if data else ()


def as_recorded(recording: Recording) -> Chunks:
    """What the reads of the recording gave: the chunks that the network made."""
    return tuple(read.data for read in recording.reads)


def by_event(data: bytes) -> Chunks:
    """Every server-sent event in its own chunk: cut after each blank line."""
    return tuple(re.findall(rb"(?s).+?(?:(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)|\Z)", data))


def split_by(split: Split) -> Callable[[bytes], Chunks]:
    """The function that a name, a size, a list of sizes or a function stands for. Raises `ConfigurationError`."""
    if isinstance(split, str):
        return _split_by_name(split)
    if callable(split):
        return split
    # A size that cannot be is refused now, and not at the first answer.
    if isinstance(split, int):
        size = split
        _require_sizes(size)
        return lambda data: fixed(data, size)
    sizes = tuple(split)
    _require_sizes(*sizes)
    return lambda data: sized(data, sizes)


_BY_NAME: Mapping[str, Callable[[bytes], Chunks]] = {"whole": whole, "event": by_event, "bytes": byte_by_byte}
_SIZES = re.compile("[0-9]{1,9}(,[0-9]{1,9})*")
_RANDOM = re.compile("random:([0-9]{1,9})")


def _split_by_name(name: str) -> Callable[[bytes], Chunks]:
    if name in _BY_NAME:
        return _BY_NAME[name]
    if found := _RANDOM.fullmatch(name):
        seed = int(found[1])
        return lambda data: random_chunks(data, seed)
    if _SIZES.fullmatch(name):
        first, *others = map(int, name.split(","))
        return split_by((first, *others) if others else first)
    names = ", ".join((*_BY_NAME, "random:SEED"))
    raise ConfigurationError(f"split must be a size, a function, or one of {names}, not {quote(name)}")


def _require_sizes(*sizes: int) -> None:
    for size in sizes:
        if size < 1:
            raise ConfigurationError(f"the size of a chunk must be at least 1, not {size}")


# --- Many chunkings --------------------------------------------------------------------------------------------------


def every_split(data: bytes, *, empty: bool = False) -> Iterator[Chunks]:
    """Two chunks, cut at every place: `len(data) - 1` times. With `empty`, also at both ends, where one of them is b""."""
    return (_cut(data, at) for at in _places(data, empty=empty))


def every_pair_split(data: bytes, *, empty: bool = False) -> Iterator[Chunks]:
    """Three chunks, cut at every two places. About `len(data)**2 / 2` in all: for short data, or one event of interest.

    With `empty`, also at both ends, and twice at the same place.
    """
    pairs = combinations_with_replacement if empty else combinations
    return (_cut(data, *pair) for pair in pairs(_places(data, empty=empty), 2))


def random_splits(
    data: bytes, seed: int, *, count: int = 100, max_cuts: int = 10, empty: bool = False
) -> Iterator[Chunks]:
    """`count` chunkings with 1 to `max_cuts` cuts each (if there are so many places); the same ones for the same seed.

    With `empty`, also at both ends, and more than once at the same place.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    places = _places(data, empty=empty)
    for _ in range(count):
        cuts = chance.randint(1, max_cuts)
        chosen = chance.choices(places, k=cuts) if empty else chance.sample(places, min(cuts, len(places)))
        yield _cut(data, *sorted(chosen)) if chosen else whole(data)


def _places(data: bytes, *, empty: bool) -> range:
    """Where data can be cut."""
    return range(len(data) + 1) if empty else range(1, len(data))


def _cut(data: bytes, *cuts: int) -> Chunks:
    return tuple(data[start:end] for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True))


# --- The cut that breaks a parser ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FailingCut:
    """Cutting `data` at `cuts` gave `got` (an exception counts as a result) where `expected` was due."""

    data: bytes
    cuts: tuple[int, ...]
    expected: Any
    got: Any

    @property
    def chunks(self) -> Chunks:
        """The chunks that broke it, to feed them again."""
        return _cut(self.data, *self.cuts)

    def __repr__(self) -> str:
        places = "; ".join(f"cut at byte {at}: {self._around(at)}" for at in self.cuts)
        return f"{places or 'uncut'}; expected {quote(repr(self.expected))}, got {quote(repr(self.got))}"

    def _around(self, at: int) -> str:
        before, after = self.data[max(0, at - CONTEXT_BYTES) : at], self.data[at : at + CONTEXT_BYTES]
        return f"{before!r} | {after!r}"


def smallest_failing_cut(
    data: bytes,
    parse: Callable[[Chunks], Any],
    expected: Any = AS_UNCUT,
    *,
    pairs: bool = False,
    max_pairs: int = MAX_PAIRS,
    empty: bool = False,
) -> FailingCut | None:
    """The smallest cutting of `data` for which `parse` does not give `expected`; None if none was found.

    `parse` takes the chunks and returns what it made of them. What it gives one by one (a generator, another iterator, an
    async generator) is compared as a list; what must be awaited is run. Every exception that it raises counts as a failure.

    `expected` defaults to what it makes of the uncut data. So a fault that has nothing to do with cuts is not seen without
    it: a parser that waits for a last line end (`rest = lines.pop()`) loses the end of data that lack one, cut or not.

    The uncut data come first (there it is seen if a result does not even equal itself the second time), then each single
    cut from the left, then all cuts at once, reduced until no cut can be left out. `pairs` looks for two cuts where fewer do
    not break it: at all places from the left or, if that is more than `max_pairs`, half of them the closest and half by
    chance, the same ones each time. `empty` cuts at both ends, too.

    Raises `ConfigurationError` if `parse` fails on the uncut data without `expected`, or is async where an event loop runs.
    """
    if max_pairs < 1:
        raise ConfigurationError(f"max_pairs must be at least 1, not {max_pairs}")
    with closing(asyncio.Runner()) as runner:  # it costs nothing before it runs something
        trial = _Trial(data, parse, runner)
        if expected is AS_UNCUT:
            expected = trial.made_of_uncut()
        trial.expected = list(expected) if isinstance(expected, Iterator) else expected
        places = _places(data, empty=empty)
        if failing := trial.first([(), *((at,) for at in places)]):
            return failing
        failing = trial.failing(tuple(range(1, len(data))))
        reduced = failing and _reduced(failing, trial)
        if pairs and (reduced is None or len(reduced.cuts) > 2):
            return trial.first(_pairs(places, max_pairs)) or reduced
        return reduced


def _pairs(places: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    """Every two places from the left; if those are too many, the closest (they cut something small out), then by chance."""
    count = len(places)
    if count * (count - 1) // 2 <= limit:
        yield from combinations(places, 2)
        return
    closest = ((places[at], places[at + gap]) for gap in range(1, count) for at in range(count - gap))
    yield from islice(closest, limit - limit // 2)
    chance = random.Random(limit)  # noqa: S311 - to be repeated, not to be secret
    for _ in range(limit // 2):
        yield tuple(sorted(chance.sample(places, k=2)))


def _reduced(failing: FailingCut, trial: _Trial) -> FailingCut:
    """Leave out cuts, first in large groups and then one by one, until it fails with each but no longer without."""
    size = len(failing.cuts)
    while True:
        before, start = failing.cuts, 0
        while start < len(failing.cuts):
            fewer = failing.cuts[:start] + failing.cuts[start + size :]
            still = trial.failing(fewer) if fewer else None
            failing, start = (still, start) if still else (failing, start + size)
        if size == 1 and failing.cuts == before:
            return failing
        size = max(1, size // 2)


class _LoopRunsError(ConfigurationError):
    """Not the parser's fault, as all other exceptions are."""


@dataclass(slots=True)
class _Trial:
    """What a parser is to make of the data, however they are cut, and in whichever way it gives that."""

    data: bytes
    parse: Callable[[Chunks], Any]
    runner: asyncio.Runner
    expected: Any = None

    def made_of_uncut(self) -> Any:
        try:
            return self._made(())
        except _LoopRunsError:
            raise
        except Exception as exc:
            said = f"the parser fails on the uncut data, with {quote(repr(exc))}: there is nothing to compare with"
            raise ConfigurationError(f"{said}; say what is expected") from exc

    def failing(self, cuts: tuple[int, ...]) -> FailingCut | None:
        try:
            got = self._made(cuts)
        except _LoopRunsError:
            raise
        except Exception as exc:  # whatever it is, it is the parser's failure that we look for
            return FailingCut(self.data, cuts, self.expected, exc)
        return None if got == self.expected else FailingCut(self.data, cuts, self.expected, got)

    def first(self, cuttings: Iterable[tuple[int, ...]]) -> FailingCut | None:
        return next(filter(None, map(self.failing, cuttings)), None)

    def _made(self, cuts: tuple[int, ...]) -> Any:
        made = self.parse(_cut(self.data, *cuts) if cuts else whole(self.data))
        if inspect.isasyncgen(made) or inspect.isawaitable(made):
            if asyncio._get_running_loop() is not None:
                if inspect.iscoroutine(made):
                    made.close()  # or Python would warn that it was never awaited
                said = "the parser is async, and an event loop runs already"
                raise _LoopRunsError(f"{said}: call this from code that is not async")
            made = self.runner.run(_awaited(made))
        return list(made) if isinstance(made, Iterator) else made


async def _awaited(made: Any) -> Any:
    return [each async for each in made] if inspect.isasyncgen(made) else await made


# --- Each cutting as a case ------------------------------------------------------------------------------------------

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
