"""Cutting bytes into chunks, at every place where a network may cut them; and finding the cut that breaks a parser.

This file knows how bytes are cut. It refuses to know what they mean (but for `by_event`), and whose parser reads them: these
are plain functions that work on anybody's.

    for chunks in every_split(body):                 # (b"", body), (body[:1], body[1:]) … (body, b"")
        assert my_parse(chunks) == expected

    cut = smallest_failing_cut(body, my_parse)       # None: no cut breaks it
    print(cut)                                       # where, the bytes around it, and what went wrong

    my_parse(split_by("random:7")(body))             # one chunking, by name
    my_parse(as_recorded(recording))                 # as the network cut it

A chunking is a tuple of chunks which joined give the data. Networks deliver whatever chunks they like, and the faults that
parsers have hide at single places: between CR and LF, inside a character, before a blank line's second line feed. Random
cuts rarely hit those, so the functions here go through all of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import Recording

__all__ = [
    "MAX_RANDOM_BYTES",
    "Chunks",
    "FailingCut",
    "Split",
    "as_recorded",
    "by_event",
    "byte_by_byte",
    "every_pair_split",
    "every_split",
    "fixed",
    "random_chunks",
    "random_splits",
    "sized",
    "smallest_failing_cut",
    "split_by",
    "whole",
]

Chunks: TypeAlias = tuple[bytes, ...]
Split: TypeAlias = str | int | Sequence[int] | Callable[[bytes], Chunks]
"""How to cut: `"whole"`, `"event"`, `"bytes"`, `"random:SEED"`, a chunk size, a list of sizes, or a function of your own.
A size, or sizes with commas between them, may be a string, too, as on a command line."""

CONTEXT_BYTES = 24
"""How much a `FailingCut` shows on each side of a cut: about one line."""

MAX_RANDOM_BYTES = 64
"""The largest chunk of `random_chunks` by default: about half an event, so that most events are cut."""


# --- One chunking ----------------------------------------------------------------------------------------------------


def whole(data: bytes) -> Chunks:
    """All in one chunk."""
    return (data,) if data else ()


def byte_by_byte(data: bytes) -> Chunks:
    """Every byte a chunk of its own."""
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
    """Every server-sent event a chunk of its own: cut after each blank line."""
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


def every_split(data: bytes) -> Iterator[Chunks]:
    """Two chunks, cut at every place; the first and the last time, one of them is empty. `len(data) + 1` in all."""
    return (_cut(data, at) for at in range(len(data) + 1))


def every_pair_split(data: bytes) -> Iterator[Chunks]:
    """Three chunks, cut at every two places. About `len(data)**2 / 2` in all: for short data, or one event of interest."""
    size = len(data)
    return (_cut(data, first, second) for first in range(size + 1) for second in range(first, size + 1))


def random_splits(data: bytes, seed: int, *, count: int = 100, max_cuts: int = 10) -> Iterator[Chunks]:
    """`count` chunkings with 1 to `max_cuts` cuts each; the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    for _ in range(count):
        cuts = [chance.randint(0, len(data)) for _ in range(chance.randint(1, max_cuts))]
        yield _cut(data, *sorted(cuts))


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


def smallest_failing_cut(data: bytes, parse: Callable[[Chunks], Any], expected: Any = None) -> FailingCut | None:
    """The smallest cutting of `data` for which `parse` does not give `expected`; None if there is none.

    `parse` takes the chunks and returns what it made of them. `expected` defaults to what it makes of the uncut data. The
    uncut data come first (only if `expected` is given), then each single cut from the left, then all cuts at once,
    reduced until no cut can be left out. Every exception that `parse` raises counts as a failure.
    """
    if expected is None:
        expected = parse(whole(data))
    elif failing := _try(data, (), parse, expected):
        return failing
    for at in range(len(data) + 1):
        if failing := _try(data, (at,), parse, expected):
            return failing
    failing = _try(data, tuple(range(1, len(data))), parse, expected)
    return failing and _reduced(failing, parse)


def _try(data: bytes, cuts: tuple[int, ...], parse: Callable[[Chunks], Any], expected: Any) -> FailingCut | None:
    try:
        got = parse(_cut(data, *cuts) if cuts else whole(data))
    except Exception as exc:  # whatever it is, it is the parser's failure that we look for
        return FailingCut(data, cuts, expected, exc)
    return None if got == expected else FailingCut(data, cuts, expected, got)


def _reduced(failing: FailingCut, parse: Callable[[Chunks], Any]) -> FailingCut:
    """Leave out cuts, first in large groups and then one by one, until it fails with each but no longer without."""
    size = len(failing.cuts)
    while True:
        before, start = failing.cuts, 0
        while start < len(failing.cuts):
            fewer = failing.cuts[:start] + failing.cuts[start + size :]
            still = _try(failing.data, fewer, parse, failing.expected) if fewer else None
            failing, start = (still, start) if still else (failing, start + size)
        if size == 1 and failing.cuts == before:
            return failing
        size = max(1, size // 2)
