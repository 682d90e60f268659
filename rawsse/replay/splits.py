"""Cut bytes into chunks at every place where a network may cut them, and find the cut that breaks a parser.

    for chunks in every_split(body):                 # (body[:1], body[1:]) … (body[:-1], body[-1:])
        assert my_parse(chunks) == expected

    cut = smallest_failing_cut(body, my_parse)       # None: no cut breaks it; my_parse may be async, or a generator
    print(cut)                                       # where, the bytes around it, and what went wrong
    assert_every_split(body, my_parse)               # the same as an AssertionError

    my_parse(split_by("random:7")(body))             # one chunking, by name
    my_parse(as_recorded(recording))                 # as the network cut it

The chunks of a chunking, joined, give the data. A network may cut anywhere, and a parser breaks at single places: between CR
and LF, inside a character, before the second line feed of a blank line. Random cuts rarely hit those, so the functions here try
every place. They work with any parser.

Chunks are not empty unless you pass `empty=True`: a network never delivers b"", which is how a read reports the end. What
stands between a network and a parser may: decompression, decoding, a gateway's buffer.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, combinations
from typing import Any, Final, TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import Recording

Chunks: TypeAlias = tuple[bytes, ...]
Split: TypeAlias = str | int | Iterable[int] | Callable[[bytes], Chunks]
"""How to cut: `"whole"`, `"event"`, `"line-ends"`, `"bytes"`, `"random:SEED"`, a chunk size in bytes, a list of sizes, or a
function. A size, or sizes with commas between them, may be a string, too, as on a command line."""

CONTEXT_BYTES = 24
"""How much a `FailingCut` shows on each side of a cut: about one line."""

MAX_RANDOM_BYTES = 64
"""The largest chunk of `random_chunks` by default: about half an event, so that most events are cut."""

_SIZES = re.compile("[0-9]{1,9}(,[0-9]{1,9})*")
_RANDOM = re.compile("random:([0-9]{1,9})")


AS_UNCUT: Final = object()
"""In place of an expected value, which may be None: the parser's result for the uncut data."""


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
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    ends, end = [], chance.randint(1, max_size)
    while end < len(data):
        ends.append(end)
        end += chance.randint(1, max_size)
    return _cut(data, *ends) if data else ()


def as_recorded(recording: Recording) -> Chunks:
    """The reads of the recording: the chunks that the network delivered."""
    return tuple(read.data for read in recording.reads)


def by_event(data: bytes) -> Chunks:
    """Every server-sent event in its own chunk: cut after each blank line."""
    return tuple(re.findall(rb"(?s).+?(?:(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)|\Z)", data))


def at_line_ends(data: bytes) -> Chunks:
    """Cut before and after each line end, and inside CR LF: the places where most parsers break."""
    return _cut(data, *(at for at in range(1, len(data)) if data[at] in b"\r\n" or data[at - 1] in b"\r\n"))


_BY_NAME: Mapping[str, Callable[[bytes], Chunks]] = {
    "whole": whole,
    "event": by_event,
    "line-ends": at_line_ends,
    "bytes": byte_by_byte,
}


def split_by(split: Split) -> Callable[[bytes], Chunks]:
    """The function that a name, a size, a list of sizes or a function stands for. Raises `ConfigurationError`."""
    if callable(split):
        return split
    if isinstance(split, str):
        if split in _BY_NAME:
            return _BY_NAME[split]
        if found := _RANDOM.fullmatch(split):
            return partial(random_chunks, seed=int(found[1]))
        if not _SIZES.fullmatch(split):
            names = ", ".join((*_BY_NAME, "random:SEED"))
            raise ConfigurationError(f"split must be a size, a function, or one of {names}, not {quote(split)}")
        split = [int(size) for size in split.split(",")] if "," in split else int(split)
    sizes = (split,) if isinstance(split, int) else tuple(split)
    _require_sizes(*sizes)  # an invalid size is refused now, and not at the first answer
    return partial(fixed, size=split) if isinstance(split, int) else partial(sized, sizes=sizes)


def _require_sizes(*sizes: int) -> None:
    for size in sizes:
        if size < 1:
            raise ConfigurationError(f"the size of a chunk must be at least 1, not {size}")


# --- Many chunkings --------------------------------------------------------------------------------------------------


def every_split(data: bytes, *, empty: bool = False) -> Iterator[Chunks]:
    """Two chunks, cut at every place: `len(data) - 1` times. With `empty`, also at both ends, where one of them is b""."""
    return (_cut(data, at) for at in _places(data, empty=empty))


def every_pair_split(data: bytes) -> Iterator[Chunks]:
    """Three chunks, cut at every two places. About `len(data)**2 / 2` in all: for short data, or for a single event."""
    return (_cut(data, *pair) for pair in combinations(_places(data), 2))


def random_splits(data: bytes, seed: int, *, count: int = 100, max_cuts: int = 10) -> Iterator[Chunks]:
    """`count` chunkings with 1 to `max_cuts` cuts each (if there are so many places); the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    places = _places(data)
    for _ in range(count):
        chosen = chance.sample(places, min(chance.randint(1, max_cuts), len(places)))
        yield _cut(data, *sorted(chosen)) if chosen else whole(data)


def _places(data: bytes, *, empty: bool = False) -> range:
    """Where data can be cut."""
    return range(len(data) + 1) if empty else range(1, len(data))


def _cut(data: bytes, *cuts: int) -> Chunks:
    """The data, cut at these places. Without a place it is one chunk; no data are no chunks."""
    if not cuts:
        return whole(data)
    return tuple(data[start:end] for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True))


# --- The cut that breaks a parser ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FailingCut:
    """Cutting `data` at `cuts` gave `got` (an exception counts as a result) instead of `expected`."""

    data: bytes
    cuts: tuple[int, ...]
    expected: Any
    got: Any

    @property
    def chunks(self) -> Chunks:
        """The chunks that broke the parser, to feed them again."""
        return _cut(self.data, *self.cuts)

    def __repr__(self) -> str:
        places = "; ".join(f"cut at byte {at}: {self._around(at)}" for at in self.cuts)
        return f"{places or 'uncut'}; expected {quote(repr(self.expected))}, got {quote(repr(self.got))}"

    def _around(self, at: int) -> str:
        before, after = self.data[max(0, at - CONTEXT_BYTES) : at], self.data[at : at + CONTEXT_BYTES]
        return f"{before!r} | {after!r}"


def smallest_failing_cut(
    data: bytes, parse: Callable[[Chunks], Any], expected: Any = AS_UNCUT, *, empty: bool = False
) -> FailingCut | None:
    """The smallest cutting of `data` for which `parse` does not give `expected`; None if none was found.

    `parse` takes the chunks and returns its result. An iterator (a generator, an async generator) is compared as a list; a
    coroutine is run. An exception counts as a failure.

    `expected` defaults to the result for the uncut data. Give it to find faults that have nothing to do with cuts: a parser
    that waits for a last line end (`rest = lines.pop()`) loses the end of data that lack one, cut or not.

    The uncut data come first (that finds results that do not equal themselves), then each single cut from the left, then all
    cuts at once, from which cuts are left out until it fails with each of them and with none left out. `empty` cuts at both
    ends, too. Raises `ConfigurationError` if `parse` fails on the uncut data and there is no `expected`, or if it is async and
    an event loop runs here.
    """
    is_async = inspect.iscoroutinefunction(parse) or inspect.isasyncgenfunction(parse)
    if is_async and asyncio._get_running_loop() is not None:
        said = "the parser is async, and an event loop runs already"
        raise ConfigurationError(f"{said}: call this from code that is not async")
    with closing(asyncio.Runner()) as runner:  # it costs nothing before it runs something

        def result(cuts: tuple[int, ...]) -> Any:
            try:
                made = parse(_cut(data, *cuts))
                if inspect.isasyncgen(made) or inspect.isawaitable(made):
                    made = runner.run(_awaited(made))
                return list(made) if isinstance(made, Iterator) else made
            except Exception as exc:
                return exc

        def failing(cuts: tuple[int, ...]) -> FailingCut | None:
            return None if (got := result(cuts)) == wanted else FailingCut(data, cuts, wanted, got)

        wanted = result(()) if expected is AS_UNCUT else list(expected) if isinstance(expected, Iterator) else expected
        if expected is AS_UNCUT and isinstance(wanted, Exception):
            said = f"the parser fails on the uncut data, with {quote(repr(wanted))}: there is nothing to compare with"
            raise ConfigurationError(f"{said}; say what is expected") from wanted
        one_cut = ((at,) for at in _places(data, empty=empty))
        found = next(filter(None, map(failing, [(), *one_cut])), None) or failing(tuple(_places(data)))
        return found and _reduced(found, failing)


async def _awaited(made: Any) -> Any:
    return [each async for each in made] if inspect.isasyncgen(made) else await made


def _reduced(found: FailingCut, failing: Callable[[tuple[int, ...]], FailingCut | None]) -> FailingCut:
    """Leave out cuts, first in large groups and then one by one, until it fails with each but no longer without."""
    size = len(found.cuts)
    while size:
        before, start = found.cuts, 0
        while start < len(found.cuts):
            fewer = found.cuts[:start] + found.cuts[start + size :]
            still = failing(fewer) if fewer else None
            found, start = (still, start) if still else (found, start + size)
        size = size // 2 or int(found.cuts != before)
    return found


def assert_every_split(
    data: bytes, parse: Callable[[Chunks], Any], expected: Any = AS_UNCUT, *, name: str = ""
) -> None:
    """Fail if some cutting of `data` changes the result of `parse`; the message shows the smallest one that does.

    The arguments are those of `smallest_failing_cut`; `name` says in the message which stream it is.
    """
    __tracebackhide__ = True  # pytest shows the line that called this one
    failing = smallest_failing_cut(data, parse, expected)
    if failing is None:
        return
    cause = failing.got if isinstance(failing.got, Exception) else None
    raise AssertionError(f"{name or 'the stream'}, {failing!r}") from cause
