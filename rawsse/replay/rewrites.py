"""A stream as gateways, proxies and other libraries send it: the same events in other bytes.

What is broken is for `breaking/`.

    crlf(body), crlf(recording)                            # bytes -> bytes, recording -> recording
    with_comments(recording, every=3, text="keep-alive")
    rewrite_by("crlf,comments,bom")(recording)             # by name, one after the other

Of a recording the times stay what they were. A read that ended with an event still does; one that ended inside an event ends
inside it, as far in as before. An event that the stream's end cut off, and an answer that is no event stream, stay as they are.

What is not the same afterwards, because it is the point: without `event:` lines every event is called `message` (the type in
the data says what it is), `with_ids` gives ids, and `with_done` adds an event whose data are `[DONE]`.


When the reads of a recording come: as recorded, faster or slower, all at once, or as a model of a given speed writes.


    slow = profile(time_to_first_token=0.5, tokens_per_second=20, jitter=0.3, seed=1)(recording)
    slow = pace_by("ttft=0.5,tps=20,jitter=0.3,seed=1")(recording)          # the same, as on a command line
    twice_as_long = slower(2)(recording)

The bytes and the boundaries of the reads stay what they were; only `t` and `duration` change. A profile takes each
`content_block_delta` for a token, as the API sends them: what comes before the first delta (and an answer without any) comes
with it, and every other event with the delta before it. A read comes when the last token that it completes does.

A pace changes the times that are played, and `speed` of whoever plays how fast: `slower=2` and `speed=0.5` take as long.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import TypeAlias, TypeVar

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import Read, Recording
from rawsse.replay.splits import by_event
from rawsse.sse import Decoder

# --- shaping/rewrites


MAX_PADDING = 15
"""Spaces before the last brace of an event: as many as the API itself sends at most."""

RETRY_MILLISECONDS = 3000
"""What `with_retry` asks readers to wait: the default of most browsers."""

Stream = TypeVar("Stream", bytes, Recording)
"""A body, or a recording of one. What comes back is of the same kind."""

Rewrite: TypeAlias = str | Callable[[Recording], Recording]
"""The names of rewrites, with commas between them, or a function."""

_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")
_WHOLE = re.compile(rb"(?s).*(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)\Z")  # the event has its blank line
_DATA = re.compile(rb"(?:\A|[\r\n])data:")
_STRING_OR_COMMA = re.compile(rb'"(?:[^"\\]|\\.)*"|,')


# --- Line ends -------------------------------------------------------------------------------------------------------


def crlf(stream: Stream) -> Stream:
    """Every line ends with CR LF."""
    return _each_frame(stream, lambda number, frame: _LINE.sub(rb"\1\r\n", frame))


def cr(stream: Stream) -> Stream:
    """Every line ends with CR alone."""
    return _each_frame(stream, lambda number, frame: _LINE.sub(rb"\1\r", frame))


def with_blank_lines(stream: Stream) -> Stream:
    """One blank line more after each event."""
    return _each_event(stream, lambda number, event: event + _line_end(event))


# --- What readers skip -----------------------------------------------------------------------------------------------


def with_bom(stream: Stream) -> Stream:
    """The stream begins with a byte order mark."""
    return _each_frame(stream, lambda number, frame: frame, first=_BOM)


def with_comments(stream: Stream, *, every: int = 1, text: str = "keep-alive") -> Stream:
    """A comment, and a blank line, before every so many events, the first one included."""
    comment = _comment(text, every)
    return _each_event(stream, lambda number, event: event if number % every else _before(event, comment, b""))


def with_comments_inside(stream: Stream, *, text: str = "keep-alive") -> Stream:
    """A comment after the first line of each event: between `event:` and `data:`, without a blank line."""
    comment = _comment(text, 1)
    return _each_event(
        stream, lambda number, event: _LINE.sub(lambda line: line[0] + comment + line[2], event, count=1)
    )


def with_ids(stream: Stream) -> Stream:
    """Each event has an `id:`, its number from 0 on."""
    return _each_event(stream, lambda number, event: _before(event, b"id: %d" % number))


def with_retry(stream: Stream, *, milliseconds: int = RETRY_MILLISECONDS) -> Stream:
    """Each event has a `retry:`."""
    return _each_event(stream, lambda number, event: _before(event, b"retry: %d" % milliseconds))


def with_done(stream: Stream) -> Stream:
    """After the last event `data: [DONE]`, as streams end in another API."""
    return _each_frame(stream, lambda number, frame: frame, last=b"data: [DONE]")


# --- Fields ----------------------------------------------------------------------------------------------------------


def without_event_lines(stream: Stream) -> Stream:
    """No `event:` lines."""
    return _each_line(stream, lambda line: None if line.startswith(b"event:") else line)


def without_spaces(stream: Stream) -> Stream:
    """No space after a field's colon: `data:{…}`."""
    # "If value starts with a U+0020 SPACE character, remove it from value": the first one only, so a second is content.
    return _each_line(stream, lambda line: re.sub(rb"\A(\w+): (?! )", rb"\1:", line))


def with_padding(stream: Stream, *, seed: int = 0, most: int = MAX_PADDING) -> Stream:
    """0 to `most` spaces before the last brace of the data."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret

    def pad(line: bytes) -> bytes:
        is_object = line.startswith(b"data:") and line.endswith(b"}")
        return line[:-1] + b" " * chance.randint(0, most) + b"}" if is_object else line

    return _each_line(stream, pad)


def with_lines_of_data(stream: Stream) -> Stream:
    """The JSON over two `data:` lines, cut after its first comma: a line feed there is nothing to JSON."""
    return _each_event(stream, lambda number, event: _LINE.sub(_in_two, event) if _is_one_line(event) else event)


def _is_one_line(event: bytes) -> bool:
    return len(_DATA.findall(event)) == 1


def _in_two(found: re.Match[bytes]) -> bytes:
    line, end = found[1], found[2]
    if not re.match(rb"data: ?\{", line):
        return found[0]
    commas = (token.end() for token in _STRING_OR_COMMA.finditer(line) if token[0] == b",")
    at = next(commas, 0)
    return line[:at] + end + b"data: " + line[at:] + end if at else found[0]


# --- By name ---------------------------------------------------------------------------------------------------------

REWRITES: Mapping[str, Callable[[Recording], Recording]] = {
    "crlf": crlf,
    "cr": cr,
    "blank-lines": with_blank_lines,
    "bom": with_bom,
    "comments": with_comments,
    "comments-inside": with_comments_inside,
    "ids": with_ids,
    "retry": with_retry,
    "done": with_done,
    "no-event-lines": without_event_lines,
    "no-spaces": without_spaces,
    "padding": with_padding,
    "lines-of-data": with_lines_of_data,
}
"""By the names that a command line has for them."""


def rewrite_by(rewrite: Rewrite) -> Callable[[Recording], Recording]:
    """The function that stands for the names, one rewrite after the other. Raises `ConfigurationError`."""
    if not isinstance(rewrite, str):
        return rewrite
    names = [name.strip() for name in rewrite.split(",")]
    for name in names:
        if name not in REWRITES:
            raise ConfigurationError(f"rewrite must be a function or some of {', '.join(REWRITES)}, not {quote(name)}")

    def rewritten(recording: Recording) -> Recording:
        for name in names:
            recording = REWRITES[name](recording)
        return recording

    return rewritten


# --- How -------------------------------------------------------------------------------------------------------------


def _each_line(stream: Stream, change: Callable[[bytes], bytes | None]) -> Stream:
    """Every line that is not blank as `change` makes it; it is dropped where that gives None."""

    def changed(found: re.Match[bytes]) -> bytes:
        line = change(found[1]) if found[1] else b""
        return b"" if line is None else line + found[2]

    return _each_frame(stream, lambda number, frame: _LINE.sub(changed, frame))


def _each_event(stream: Stream, change: Callable[[int, bytes], bytes]) -> Stream:
    """Every event as `change` makes it, which takes its number, from 0 on, and its bytes."""
    return _each_frame(stream, lambda number, frame: frame if number is None else change(number, frame))


Change: TypeAlias = Callable[[int | None, bytes], bytes]


def _each_frame(stream: Stream, change: Change, *, first: bytes = b"", last: bytes = b"") -> Stream:
    """The stream with `first`, then every frame as `change` makes it, then the line `last`.

    A frame is what a blank line ends: an event, which has a number, or comments by themselves, without one.
    """
    if not isinstance(stream, Recording):
        return b"".join(_changed(by_event(stream), change, first, last))
    return _recording(stream, change, first, last) if _is_stream(stream) else stream


def _changed(frames: Iterable[bytes], change: Change, first: bytes, last: bytes) -> list[bytes]:
    changed: list[bytes] = []
    number = 0
    for frame in frames:
        mark = _BOM if not changed and frame.startswith(_BOM) else b""
        rest = frame.removeprefix(mark)
        is_event = _DATA.search(rest) is not None
        if _WHOLE.match(rest):
            rest = change(number if is_event else None, rest)
            number += is_event
        changed.append(((first or mark) if not changed else b"") + rest)
    if last and changed and _WHOLE.match(changed[-1]):
        changed[-1] += last + 2 * _line_end(changed[-1])
    return changed


def _recording(recording: Recording, change: Change, first: bytes, last: bytes) -> Recording:
    """The reads with what has become of their bytes."""
    frames = by_event(recording.body)
    changed = _changed(frames, change, first, last)
    moved = _places(frames, changed)
    ends = [moved(end) for end in accumulate(len(read.data) for read in recording.reads)]
    body = b"".join(changed)
    pieces = (body[start:end] for start, end in zip([0, *ends], ends, strict=False))
    reads = tuple(Read(read.t, piece) for read, piece in zip(recording.reads, pieces, strict=True) if piece)
    return replace(recording, reads=reads)


def _places(frames: Iterable[bytes], changed: Iterable[bytes]) -> Callable[[int], int]:
    """Where a place in the body has gone to: from a frame's end to its end, from inside it to as far inside."""
    before, after = ([0, *accumulate(map(len, pieces))] for pieces in (frames, changed))

    def moved(at: int) -> int:
        frame = bisect_left(before, at)
        if before[frame] == at:
            return after[frame]
        into, size = at - before[frame - 1], before[frame] - before[frame - 1]
        return after[frame - 1] + into * (after[frame] - after[frame - 1]) // size

    return moved


def _is_stream(recording: Recording) -> bool:
    headers = {name.lower(): value for name, value in recording.headers.items()}
    return recording.status == 200 and headers.get("content-type", "").startswith("text/event-stream")


def _before(event: bytes, *lines: bytes) -> bytes:
    """The event with these lines before it, which end as its own do."""
    end = _line_end(event)
    return b"".join(line + end for line in lines) + event


def _line_end(event: bytes) -> bytes:
    """How the lines of an event end: as the first one does."""
    found = _LINE.match(event)
    return found[2] if found else b"\n"


def _comment(text: str, every: int) -> bytes:
    if every < 1:
        raise ConfigurationError(f"a comment can come before every event, or every second one …, not every {every}")
    if re.search("[\r\n]", text):
        raise ConfigurationError(f"a comment is one line, not {quote(text)}")
    return b": " + text.encode() if text else b":"


# --- shaping/pace


Pace: TypeAlias = str | Callable[[Recording], Recording]
"""`"recorded"`, `"none"`, `"slower=FACTOR"`, any of `"ttft=SECONDS,tps=NUMBER,jitter=SHARE,seed=NUMBER"`, or a function."""

TIME_TO_FIRST_TOKEN = 0.5
"""Seconds, by default: about what a small model takes for a short prompt."""

TOKENS_PER_SECOND = 50.0
"""By default: about what a middle-sized model writes."""

_DIGITS = 6  # microseconds: what a recording's times are worth
_DELTA = re.compile(r'"type"\s*:\s*"content_block_delta"')  # in a text, the quotes would be escaped


# --- The paces -------------------------------------------------------------------------------------------------------


def recorded(recording: Recording) -> Recording:
    """As it was recorded."""
    return recording


def immediate(recording: Recording) -> Recording:
    """All at time 0."""
    return replace(recording, reads=tuple(Read(0.0, read.data) for read in recording.reads), duration=0.0)


def slower(factor: float) -> Callable[[Recording], Recording]:
    """Every time multiplied: 2 takes twice as long, 0.5 half as long. Raises `ConfigurationError`."""
    _require_finite("slower", factor, at_least=0)

    def pace(recording: Recording) -> Recording:
        reads = tuple(Read(_rounded(read.t * factor), read.data) for read in recording.reads)
        return replace(recording, reads=reads, duration=_rounded(recording.duration * factor))

    return pace


def profile(
    *,
    time_to_first_token: float = TIME_TO_FIRST_TOKEN,
    tokens_per_second: float = TOKENS_PER_SECOND,
    jitter: float = 0.0,
    seed: int = 0,
) -> Callable[[Recording], Recording]:
    """As a model writes that takes so many seconds for the first token, and then so many tokens in a second.

    `jitter` is the share by which each gap between two tokens is longer or shorter, by chance: with 0.2 it is 80 % to 120 %
    of what it would be. The same `seed` gives the same times. Raises `ConfigurationError`.
    """
    _require_finite("time_to_first_token", time_to_first_token, at_least=0)
    _require_finite("tokens_per_second", tokens_per_second, at_least=0)
    if tokens_per_second == 0:
        raise ConfigurationError("tokens_per_second must be more than 0")
    if not 0 <= jitter <= 1:
        raise ConfigurationError(f"jitter must be between 0 and 1, not {jitter}")

    def pace(recording: Recording) -> Recording:
        chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        t, is_first, reads = time_to_first_token, True, []
        for read, tokens in zip(recording.reads, _tokens_in_reads(recording), strict=True):
            for _ in range(tokens):
                t += 0.0 if is_first else (1 + jitter * chance.uniform(-1, 1)) / tokens_per_second
                is_first = False
            reads.append(Read(_rounded(t), read.data))
        return replace(recording, reads=tuple(reads), duration=_rounded(t))

    return pace


def _tokens_in_reads(recording: Recording) -> Iterator[int]:
    """How many tokens each read completes."""
    decoder = Decoder(max_event_bytes=len(recording.body) + 1)  # whatever is recorded can be paced
    for read in recording.reads:
        yield sum(1 for event in decoder.feed(read.data) if _DELTA.search(event.data))


def _rounded(seconds: float) -> float:
    return round(seconds, _DIGITS)


def _require_finite(name: str, value: float, *, at_least: float) -> None:
    if not at_least <= value < math.inf:
        raise ConfigurationError(f"{name} must be a number from {at_least} on, not {value}")


# --- By name ---------------------------------------------------------------------------------------------------------

_BY_NAME: Mapping[str, Callable[[Recording], Recording]] = {"recorded": recorded, "none": immediate}
_PROFILE_NAMES: Mapping[str, str] = {"ttft": "time_to_first_token", "tps": "tokens_per_second", "jitter": "jitter"}


def pace_by(pace: Pace) -> Callable[[Recording], Recording]:
    """The function that a name, a text such as `ttft=0.5,tps=40`, or a function stands for. Raises `ConfigurationError`."""
    if not isinstance(pace, str):
        return pace
    if pace in _BY_NAME:
        return _BY_NAME[pace]
    given = dict(_numbers(pace))
    if given.keys() == {"slower"}:
        return slower(given["slower"])
    if "slower" in given:
        raise ConfigurationError(f"slower changes recorded times, and a profile makes new ones: {quote(pace)}")
    seed = given.pop("seed", 0.0)
    if not seed.is_integer():
        raise ConfigurationError(f"seed must be a whole number, not {seed}")
    return profile(seed=int(seed), **{_PROFILE_NAMES[name]: value for name, value in given.items()})


def _numbers(text: str) -> Iterator[tuple[str, float]]:
    known = ("slower", *_PROFILE_NAMES, "seed")
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in known:
            names = ", ".join((*_BY_NAME, *(f"{name}=…" for name in known)))
            raise ConfigurationError(f"pace must be a function or one of {names}, not {quote(part)}")
        try:
            yield name, float(value)
        except ValueError:
            raise ConfigurationError(f"{name} must be a number, not {quote(value)}") from None
