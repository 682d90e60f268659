"""The same stream, delivered differently: split into other chunks, with other bytes, and at other times.

    assert_every_split(body, my_parse)               # for a test; my_parse may be async, or a generator
    cut = smallest_failing_cut(body, my_parse)       # the same as a value; None: no cut breaks it
    print(cut)                                       # the place, the bytes around it, and the difference

    for chunks in every_split(body):                 # (body[:1], body[1:]) … (body[:-1], body[-1:])
        assert my_parse(chunks) == expected

    my_parse(split_by("random:7")(body))             # one chunking, by name
    my_parse(as_recorded(recording))                 # as the network cut it
    rewrite_by("crlf,comments,bom")(recording)       # as gateways rewrite streams; one after the other
    pace_by("tps=20")(recording)                     # at the pace of another model (ttft is 0.5 if not given); the same:
    profile(time_to_first_token=0.5, tokens_per_second=20)(recording)

Chunks. The chunks of a chunking join to the data. A network may split anywhere, and a parser may break at a single place:
between CR and LF, inside a character, before the second line feed of a blank line. Random cuts rarely hit these, so the
functions here try every place. They work with any parser. Chunks are never empty unless you pass `empty=True`: a network does
not deliver b"", which means the end. Layers between network and parser may: decompression, decoding, a gateway's buffer.

Rewrites. A rewrite varies only what WHATWG HTML, 9.2, leaves open: a correct reader gets the same events. Each event is one
read, at the time of its last byte, since a gateway reads an event before it rewrites it. An incomplete last event, and an
answer that is not an event stream, are left unchanged. Three rewrites deliberately change what a reader sees: without
`event:` lines (`no-event-lines`) every event is named `message`, and only the type in the data tells them apart; `ids` adds
ids; `done` adds an event with the data `[DONE]`.

Paces. A pace changes only `t` and `duration`. A profile counts tokens as the recording's usage does: at `tps=30`, an answer of
139 `output_tokens` takes 139/30 s from its first delta to its last, as `rawsse explain` measures. They are spread over the
bytes of text, thinking and tool inputs, however deltas cut them. If the recording was cut, before the final count,
`BYTES_PER_TOKEN` bytes are a token. The first delta arrives at `ttft`, any other with its last byte. Anything before the first
delta (and an answer without deltas) arrives with it, and every other event with the delta before it; a read, with its last
event. The player's `speed` divides these times: `slower=2` and `speed=0.5` take equally long.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import random
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain, combinations, takewhile
from typing import Any, Final, NamedTuple, TypeAlias

from rawsse.errors import MAX_QUOTED_CHARS, ConfigurationError, quote
from rawsse.messages.lens import object_at
from rawsse.replay.recording import Read, Recording
from rawsse.sse import Decoder

Chunks: TypeAlias = tuple[bytes, ...]
Split: TypeAlias = str | int | Iterable[int] | Callable[[bytes], Chunks]
"""How to cut: `"whole"`, `"event"`, `"bytes"`, `"line-ends"`, `"random:SEED"`, a chunk size in bytes, a list of sizes, or a
function. Sizes may also be a string, separated by commas, as on a command line."""

CONTEXT_BYTES = 24
"""How much a `FailingCut` shows on each side of a cut (about one line), and before two long results differ."""

MAX_RANDOM_BYTES = 64
"""The largest chunk of `random_chunks` by default: about half an event, so that most events are cut."""

_SIZES = re.compile("[0-9]{1,9}(,[0-9]{1,9})*")
_RANDOM = re.compile("random:([0-9]{1,9})")


AS_UNCUT: Final = object()
"""The default for the expected value (None is a valid one): the parser's result for the uncut data."""

MAX_PADDING = 15
"""The most spaces that `padding` puts before the last brace of an event: the most that the API sends."""

RETRY_MILLISECONDS = 3000
"""The reconnection time that `retry` sets: the default of most browsers."""

TIME_TO_FIRST_TOKEN = 0.5
"""The default, in seconds: roughly that of a small model with a short prompt."""

TOKENS_PER_SECOND = 50.0
"""The default: roughly that of a medium-sized model."""

BYTES_PER_TOKEN = 4
"""A rule of thumb for English text and JSON in UTF-8, where the API's count is missing."""

Change: TypeAlias = Callable[[Recording], Recording]

Rewrite: TypeAlias = str | Change
"""The names of rewrites, with commas between them, or a function."""

Pace: TypeAlias = str | Change
"""`"recorded"`, `"none"`, `"slower=FACTOR"`, any of `"ttft=SECONDS,tps=TOKENS"` (a second; see `profile`), or a function.
ttft is 0.5 if not given, and tps is 50."""

_BOM = b"\xef\xbb\xbf"
_COMMENT = b": keep-alive"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")
_WHOLE = re.compile(rb"(?s).*(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)\Z")  # the event has its blank line
_DATA = re.compile(rb"(?:\A|[\r\n])data:")
_STRING_OR_COMMA = re.compile(rb'"(?:[^"\\]|\\.)*"|,')
_DIGITS = 6  # microseconds: the precision of a recording's times


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
    return cut_at(data, *(end for end in accumulate(given) if end < len(data)))


def random_chunks(data: bytes, seed: int, *, max_size: int = MAX_RANDOM_BYTES) -> Chunks:
    """Chunks of 1 to `max_size` bytes; the same ones for the same seed."""
    _require_sizes(max_size)
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    ends = accumulate(chance.randint(1, max_size) for _ in data)
    return cut_at(data, *takewhile(lambda end: end < len(data), ends))


def as_recorded(recording: Recording) -> Chunks:
    """The reads of the recording: the chunks that the network delivered."""
    return tuple(read.data for read in recording.reads)


def by_event(data: bytes) -> Chunks:
    """Every server-sent event in its own chunk: cut after each blank line."""
    return tuple(re.findall(rb"(?s).+?(?:(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)|\Z)", data))


def at_line_ends(data: bytes) -> Chunks:
    """Cut before and after each line end, and inside CR LF: the places where most parsers break."""
    return tuple(re.findall(rb"[\r\n]|[^\r\n]+", data))


_CHUNKINGS: Mapping[str, Callable[[bytes], Chunks]] = {
    "whole": whole,
    "event": by_event,
    "bytes": byte_by_byte,
    "line-ends": at_line_ends,
}


def split_by(split: Split) -> Callable[[bytes], Chunks]:
    """The function that a name, a size, a list of sizes or a function stands for. Raises `ConfigurationError`."""
    if callable(split):
        return split
    if isinstance(split, str):
        if split in _CHUNKINGS:
            return _CHUNKINGS[split]
        if found := _RANDOM.fullmatch(split):
            return partial(random_chunks, seed=int(found[1]))
        if not _SIZES.fullmatch(split):
            names = ", ".join((*_CHUNKINGS, "random:SEED"))
            raise ConfigurationError(f"split must be a size, a function, or one of {names}, not {quote(split)}")
        split = [int(size) for size in split.split(",")] if "," in split else int(split)
    sizes = tuple(split) if isinstance(split, Iterable) else (split,)
    _require_sizes(*sizes)  # reject an invalid size now, not at the first answer
    return partial(fixed, size=split) if isinstance(split, int) else partial(sized, sizes=sizes)


def _require_sizes(*sizes: int) -> None:
    for size in sizes:
        if not isinstance(size, int) or size < 1:
            raise ConfigurationError(f"the size of a chunk must be a whole number from 1 on, not {size!r}")


def recut(reads: Sequence[Read], cut: Callable[[bytes], Chunks]) -> tuple[Read, ...]:
    """The same bytes in other pieces. Each is sent at the time of its last byte."""
    ends = list(accumulate(len(read.data) for read in reads))
    pieces = [piece for piece in cut(b"".join(read.data for read in reads)) if piece]
    last_bytes = accumulate(len(piece) for piece in pieces)
    return tuple(Read(reads[bisect_left(ends, end)].t, piece) for end, piece in zip(last_bytes, pieces, strict=True))


# --- Many chunkings --------------------------------------------------------------------------------------------------


def every_split(data: bytes, *, empty: bool = False) -> Iterator[Chunks]:
    """All splits into two chunks: `len(data) - 1`. With `empty`, also at both ends, where one of them is b"".

    A client over httpx becomes a function of chunks if its transport delivers them. The official SDK takes such a client as
    `http_client`; newer ones are made with httpx2, which has the same names.

        def parse(chunks):
            def respond(request):
                return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(chunks))

            with httpx.Client(transport=httpx.MockTransport(respond)) as client:
                return ask(client)      # the code under test

        assert_every_split(body, parse)
    """
    return (cut_at(data, at) for at in _places(data, empty=empty))


def every_pair_split(data: bytes) -> Iterator[Chunks]:
    """All splits into three chunks, about `len(data)**2 / 2`: for short data, or for a single event."""
    return (cut_at(data, *pair) for pair in combinations(_places(data), 2))


def random_splits(data: bytes, seed: int, *, count: int = 100, max_cuts: int = 10) -> Iterator[Chunks]:
    """`count` chunkings with 1 to `max_cuts` cuts each (if there are so many places); the same ones for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    places = _places(data)
    for _ in range(count):
        yield cut_at(data, *sorted(chance.sample(places, min(chance.randint(1, max_cuts), len(places)))))


def _places(data: bytes, *, empty: bool = False) -> range:
    """Where data can be cut."""
    return range(len(data) + 1) if empty else range(1, len(data))


def cut_at(data: bytes, *cuts: int) -> Chunks:
    """The data, cut at these places. Without cuts there is one chunk; without data, none."""
    if not cuts:
        return whole(data)
    return tuple(data[start:end] for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True))


# --- The cut that breaks a parser ------------------------------------------------------------------------------------


def cut_text(text: str, start: int, limit: int, form: Callable[[str], str] = str) -> str:
    """At most `limit` characters from `start` on, in that form; an ellipsis stands for those left out on either side."""
    end = start + limit
    return f"{'…' if start else ''}{form(text[start:end])}{'…' if end < len(text) else ''}"


class FailingCut(NamedTuple):
    """Cutting `data` at `cuts` gave `got` (an exception counts as a result) instead of `expected`."""

    data: bytes
    cuts: tuple[int, ...]
    expected: Any
    got: Any

    @property
    def chunks(self) -> Chunks:
        """The chunks that broke the parser, to feed them again."""
        return cut_at(self.data, *self.cuts)

    def __repr__(self) -> str:
        places = "; ".join(f"cut at byte {at}: {self._around(at)}" for at in self.cuts)
        one, other = repr(self.expected), repr(self.got)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        # Of long results, from shortly before the first character that differs.
        start = max(0, same - CONTEXT_BYTES) if max(len(one), len(other)) > MAX_QUOTED_CHARS else 0
        expected, got = (cut_text(text, start, MAX_QUOTED_CHARS, repr) for text in (one, other))
        return f"{places or 'uncut'}; expected {expected}, got {got}"

    def _around(self, at: int) -> str:
        before, after = self.data[max(0, at - CONTEXT_BYTES) : at], self.data[at : at + CONTEXT_BYTES]
        return f"{before!r} | {after!r}"


def smallest_failing_cut(
    data: bytes, parse: Callable[[Chunks], Any], expected: Any = AS_UNCUT, *, empty: bool = False
) -> FailingCut | None:
    """The smallest cutting of `data` for which `parse` does not return `expected`; None if none was found.

    `parse` takes the chunks and returns its result. An iterator (a generator, an async generator) is compared as a list; a
    coroutine is run. An exception counts as a failure.

    `expected` defaults to the result for the uncut data. Pass it to find faults that do not depend on cuts: a parser that
    waits for a last line end (`rest = lines.pop()`) loses the end of data without one, cut or not.

    It tries the uncut data first (to find results that do not equal themselves), then each single cut from the left, then all
    cuts at once, which it reduces to a minimal failing set. `parse` is called about once per byte, with all the data: n bytes
    take n² time. `empty` also cuts at both ends. Raises `ConfigurationError` if `parse` fails on the uncut data and there is
    no `expected`, or if it is async and an event loop is running.
    """
    with closing(asyncio.Runner()) as runner:  # it costs nothing before it runs something

        def result(cuts: tuple[int, ...]) -> Any:
            try:
                made = parse(cut_at(data, *cuts))
                if inspect.isasyncgen(made) or inspect.isawaitable(made):
                    made = _run(runner, made)
                return list(made) if isinstance(made, Iterator) else made
            except _LoopRunsError:
                raise
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


class _LoopRunsError(ConfigurationError):
    """Not the parser's fault, unlike other exceptions."""


def _run(runner: asyncio.Runner, made: Any) -> Any:
    if asyncio._get_running_loop() is None:
        return runner.run(_awaited(made))
    if inspect.iscoroutine(made):
        made.close()  # or Python would warn that it was never awaited
    said = "the parser is async, and an event loop runs already"
    raise _LoopRunsError(f"{said}: call this from code that is not async")


async def _awaited(made: Any) -> Any:
    return [each async for each in made] if inspect.isasyncgen(made) else await made


def _reduced(found: FailingCut, failing: Callable[[tuple[int, ...]], FailingCut | None]) -> FailingCut:
    """Remove cuts, first in large groups and then one by one, until every remaining cut is needed for the failure."""
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

    The arguments are those of `smallest_failing_cut`; `name` names the stream in the message. `parse` is called about once
    per byte: 11,000 times for the recording `plain`. Quick ones are `cut` (1,300 bytes) and `tools-answer` (1,500).
    """
    __tracebackhide__ = True  # pytest shows the line that called this one
    if (failing := smallest_failing_cut(data, parse, expected)) is not None:
        cause = failing.got if isinstance(failing.got, Exception) else None
        raise AssertionError(f"{name or 'the stream'}, {failing!r}") from cause


# --- Rewrites --------------------------------------------------------------------------------------------------------


def _before(event: bytes, *lines: bytes) -> bytes:
    """The event with these lines before it, with the line end of its first line."""
    end = _line_end(event)
    return b"".join(line + end for line in lines) + event


def _line_end(event: bytes) -> bytes:
    found = _LINE.match(event)
    return found[2] if found else b"\n"


def _padded(number: int, event: bytes) -> bytes:
    spaces = b" " * random.Random(number).randint(0, MAX_PADDING)  # noqa: S311 - repeatable, not secret
    return re.sub(rb"(?<![^\r\n])(data:[^\r\n]*)\}(?=[\r\n])", rb"\1" + spaces + b"}", event)


def _in_two_lines(event: bytes) -> bytes:
    """The JSON over two `data:` lines, cut after its first comma, where JSON allows a line feed."""

    def cut(found: re.Match[bytes]) -> bytes:
        line, end = found[1], found[2]
        commas = (token.end() for token in _STRING_OR_COMMA.finditer(line) if token[0] == b",")
        at = next(commas, 0) if re.match(rb"data: ?\{", line) else 0
        return line[:at] + end + b"data: " + line[at:] + end if at else found[0]

    return _LINE.sub(cut, event) if len(_DATA.findall(event)) == 1 else event


_OF_EVENTS: Mapping[str, Callable[[int, bytes], bytes]] = {
    "crlf": lambda _, event: _LINE.sub(rb"\1\r\n", event),
    "cr": lambda _, event: _LINE.sub(rb"\1\r", event),
    "blank-lines": lambda _, event: event + _line_end(event),
    "bom": lambda _, event: event,
    "comments": lambda _, event: _before(event, _COMMENT, b""),
    "comments-inside": lambda _, event: _LINE.sub(lambda line: line[0] + _COMMENT + line[2], event, count=1),
    "ids": lambda number, event: _before(event, b"id: %d" % number),
    "retry": lambda _, event: _before(event, b"retry: %d" % RETRY_MILLISECONDS),
    "done": lambda _, event: event,
    "no-event-lines": lambda _, event: re.sub(rb"(?<![^\r\n])event:[^\r\n]*(\r\n|\r|\n)", b"", event),
    # "If value starts with a U+0020 SPACE character, remove it from value": the first one only, so a second is content.
    "no-spaces": lambda _, event: re.sub(rb"(?<![^\r\n])(\w+): (?! )", rb"\1:", event),
    "padding": _padded,
    "lines-of-data": lambda _, event: _in_two_lines(event),
}
"""Name -> a function from the number (from 0) and the bytes of an event to its new bytes."""


def _rewritten(name: str, recording: Recording) -> Recording:
    if recording.status != 200 or not recording.is_stream:
        return recording
    reads, number = list[Read](), 0
    for read in recut(recording.reads, by_event):
        mark = _BOM if not reads and read.data.startswith(_BOM) else b""
        event = read.data.removeprefix(mark)
        has_data = _DATA.search(event) is not None  # else comments only
        if _WHOLE.match(event) and (has_data or name in ("crlf", "cr")):
            event = _OF_EVENTS[name](number, event)
            number += has_data
        reads.append(Read(read.t, (_BOM if name == "bom" and not reads else mark) + event))
    if name == "done" and reads and _WHOLE.match(reads[-1].data):
        reads.append(Read(reads[-1].t, b"data: [DONE]" + 2 * _line_end(reads[-1].data)))
    return replace(recording, reads=tuple(reads))


REWRITES: Mapping[str, Change] = {name: partial(_rewritten, name) for name in _OF_EVENTS}
"""Every rewrite, by its name on a command line."""


def rewrite_by(rewrite: Rewrite) -> Change:
    """The function that the names stand for, one rewrite after the other. Raises `ConfigurationError`."""
    if callable(rewrite):
        return rewrite
    if not isinstance(rewrite, str):
        raise ConfigurationError(f"rewrite must be a function or a text such as 'crlf,comments', not {rewrite!r}")
    names = [name.strip() for name in rewrite.split(",")]
    for name in names:
        if name not in REWRITES:
            raise ConfigurationError(f"rewrite must be a function or some of {', '.join(REWRITES)}, not {quote(name)}")

    def rewritten(recording: Recording) -> Recording:
        for name in names:
            recording = REWRITES[name](recording)
        return recording

    return rewritten


# --- Paces -----------------------------------------------------------------------------------------------------------


def recorded(recording: Recording) -> Recording:
    """As it was recorded."""
    return recording


def immediate(recording: Recording) -> Recording:
    """All at time 0."""
    return slower(0)(recording)


def slower(factor: float) -> Change:
    """Every time multiplied: 2 takes twice as long, 0.5 half as long. Raises `ConfigurationError`."""
    if not 0 <= factor < math.inf:
        raise ConfigurationError(f"slower must be a number from 0 on, not {factor}")
    return lambda recording: _retimed(
        recording, [read.t * factor for read in recording.reads], recording.duration * factor
    )


def profile(
    *, time_to_first_token: float = TIME_TO_FIRST_TOKEN, tokens_per_second: float = TOKENS_PER_SECOND
) -> Change:
    """The times of a model that takes `time_to_first_token` seconds, and then writes `tokens_per_second`: as many as the
    recording's usage counts, or 4 bytes each (`BYTES_PER_TOKEN`) if it was cut. Raises `ConfigurationError`."""
    if not 0 <= time_to_first_token < math.inf:
        raise ConfigurationError(f"time_to_first_token must be a number from 0 on, not {time_to_first_token}")
    if not 0 < tokens_per_second < math.inf:
        raise ConfigurationError(f"tokens_per_second must be a number above 0, not {tokens_per_second}")

    def pace(recording: Recording) -> Recording:
        decoder = Decoder(max_event_bytes=len(recording.body) + 1)  # every recording can be paced
        deltas = [[_tokens(event.data) for event in decoder.feed(read.data)] for read in recording.reads]
        first = next(filter(None, chain(*deltas)), 0)
        estimated = sum(chain(*deltas)) - first
        counted = object_at(recording.message() or {}, "usage").get("output_tokens")
        count = counted if type(counted) is int and counted > 0 else estimated
        seconds = count / tokens_per_second / (estimated or 1)  # of an estimated token
        times = [time_to_first_token + max(0, tokens - first) * seconds for tokens in accumulate(map(sum, deltas))]
        return _retimed(recording, times, time_to_first_token)

    return pace


def _retimed(recording: Recording, times: Iterable[float], duration: float) -> Recording:
    reads = tuple(Read(round(t, _DIGITS), read.data) for t, read in zip(times, recording.reads, strict=True))
    return replace(recording, reads=reads, duration=round(duration, _DIGITS))


def _tokens(data: str) -> float:
    """The estimated tokens of an event: 0 if it is not a delta of content."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return 0
    is_delta = isinstance(event, dict) and event.get("type") == "content_block_delta"
    return tokens_of(object_at(event, "delta")) if is_delta else 0


def tokens_of(delta: Mapping[str, Any]) -> float:
    """The estimated tokens of a delta."""
    texts = (delta.get(name) for name in ("text", "thinking", "partial_json"))
    return sum(len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str)) / BYTES_PER_TOKEN


_PACES: Mapping[str, Change] = {"recorded": recorded, "none": immediate}
_ARGUMENTS: Mapping[str, str] = {"slower": "factor", "ttft": "time_to_first_token", "tps": "tokens_per_second"}
"""How a text writes the arguments of `slower` and `profile`."""


def pace_by(pace: Pace) -> Change:
    """The function that a name, a text such as `ttft=0.5,tps=40`, or a function stands for. Raises `ConfigurationError`."""
    if callable(pace):
        return pace
    if (pace := str(pace)) in _PACES:
        return _PACES[pace]
    given: dict[str, float] = {}
    for part in pace.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _ARGUMENTS:
            names = ", ".join((*_PACES, *(f"{name}=…" for name in _ARGUMENTS)))
            raise ConfigurationError(f"pace must be a function or one of {names}, not {quote(part)}")
        try:
            given[_ARGUMENTS[name]] = float(value)
        except ValueError:
            raise ConfigurationError(f"{name} must be a number, not {quote(value)}") from None
    if given.keys() == {"factor"}:
        return slower(**given)
    if "factor" in given:
        raise ConfigurationError(f"slower changes recorded times, and a profile makes new ones: {quote(pace)}")
    return profile(**given)
