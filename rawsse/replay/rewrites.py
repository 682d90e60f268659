"""A stream in other bytes, as gateways, proxies and other libraries send it, and at other times; the events say the same.

    rewrite_by("crlf,comments,bom")(recording)              # by name, one after the other
    pace_by("ttft=0.5,tps=20,jitter=0.3,seed=1")(recording)
    slow = profile(time_to_first_token=0.5, tokens_per_second=20, jitter=0.3, seed=1)(recording)       # the same
    twice_as_long = slower(2)(recording)

A rewrite uses what WHATWG 9.2 leaves free, and a correct reader makes the same of all of it. Times stay what they were. A read
that ended with an event still does; one that ended inside an event ends inside it, as far in as before. An event that the
stream's end cut off, and an answer that is not an event stream, stay as they are. What differs afterwards on purpose: without
`event:` lines every event is called `message` (the type in the data says what it is), `ids` gives ids, and `done` adds an event
whose data are `[DONE]`.

A pace changes `t` and `duration` only. A profile takes each `content_block_delta` for a token, as the API sends them: what
comes before the first delta (and an answer without any) comes with it, and every other event with the delta before it. A read
comes when the last token that it completes does. The player's `speed` divides these times: `slower=2` and `speed=0.5` take as
long.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import Read, Recording
from rawsse.replay.splits import by_event
from rawsse.sse import Decoder

MAX_PADDING = 15
"""Spaces before the last brace of an event: as many as the API itself sends at most."""

RETRY_MILLISECONDS = 3000
"""What `retry` asks readers to wait: the default of most browsers."""

TIME_TO_FIRST_TOKEN = 0.5
"""Seconds, by default: about what a small model takes for a short prompt."""

TOKENS_PER_SECOND = 50.0
"""By default: about what a middle-sized model writes."""

Change: TypeAlias = Callable[[Recording], Recording]

Rewrite: TypeAlias = str | Change
"""The names of rewrites, with commas between them, or a function."""

Pace: TypeAlias = str | Change
"""`"recorded"`, `"none"`, `"slower=FACTOR"`, any of `"ttft=SECONDS,tps=NUMBER,jitter=SHARE,seed=NUMBER"`, or a function."""

_BOM = b"\xef\xbb\xbf"
_COMMENT = b": keep-alive"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\r|\n)")
_WHOLE = re.compile(rb"(?s).*(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)\Z")  # the event has its blank line
_DATA = re.compile(rb"(?:\A|[\r\n])data:")
_STRING_OR_COMMA = re.compile(rb'"(?:[^"\\]|\\.)*"|,')
_DELTA = re.compile(r'"type"\s*:\s*"content_block_delta"')  # in a text, the quotes would be escaped
_DIGITS = 6  # microseconds: what a recording's times are worth


# --- Rewrites --------------------------------------------------------------------------------------------------------


def _before(event: bytes, *lines: bytes) -> bytes:
    """The event with these lines before it, which end as its first line does."""
    end = _line_end(event)
    return b"".join(line + end for line in lines) + event


def _line_end(event: bytes) -> bytes:
    found = _LINE.match(event)
    return found[2] if found else b"\n"


def _each_line(event: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return _LINE.sub(lambda found: change(found[1]) + found[2], event)


def _without_space(line: bytes) -> bytes:
    # "If value starts with a U+0020 SPACE character, remove it from value": the first one only, so a second is content.
    return re.sub(rb"\A(\w+): (?! )", rb"\1:", line)


def _padded(number: int, event: bytes) -> bytes:
    spaces = b" " * random.Random(number).randint(0, MAX_PADDING)  # noqa: S311 - to be repeated, not to be secret
    return re.sub(rb"(?<![^\r\n])(data:[^\r\n]*)\}(?=[\r\n])", rb"\1" + spaces + b"}", event)


def _in_two_lines(event: bytes) -> bytes:
    """The JSON over two `data:` lines, cut after its first comma: a line feed there is nothing to JSON."""

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
    "no-spaces": lambda _, event: _each_line(event, _without_space),
    "padding": _padded,
    "lines-of-data": lambda _, event: _in_two_lines(event),
}
"""Each by its name: an event, and its number from 0 on, -> its other bytes."""


def _rewritten(name: str, recording: Recording) -> Recording:
    if recording.status != 200 or not recording.is_stream:
        return recording
    frames, changed, number = by_event(recording.body), list[bytes](), 0
    for frame in frames:
        mark = _BOM if not changed and frame.startswith(_BOM) else b""
        rest = frame.removeprefix(mark)
        is_event = _DATA.search(rest) is not None  # else comments by themselves
        if _WHOLE.match(rest) and (is_event or name in ("crlf", "cr")):
            rest = _OF_EVENTS[name](number, rest)
            number += is_event
        changed.append((_BOM if name == "bom" and not changed else mark) + rest)
    if name == "done" and changed and _WHOLE.match(changed[-1]):
        changed[-1] += b"data: [DONE]" + 2 * _line_end(changed[-1])
    # A place in the body goes from a frame's end to its end, from inside it to as far inside.
    before, after = ([0, *accumulate(map(len, pieces))] for pieces in (frames, changed))

    def moved(at: int) -> int:
        frame = bisect_left(before, at)
        if before[frame] == at:
            return after[frame]
        into, size = at - before[frame - 1], before[frame] - before[frame - 1]
        return after[frame - 1] + into * (after[frame] - after[frame - 1]) // size

    ends = [moved(end) for end in accumulate(len(read.data) for read in recording.reads)]
    body = b"".join(changed)
    pieces = (body[start:end] for start, end in zip([0, *ends], ends, strict=False))
    reads = tuple(Read(read.t, piece) for read, piece in zip(recording.reads, pieces, strict=True) if piece)
    return replace(recording, reads=reads)


REWRITES: Mapping[str, Change] = {name: partial(_rewritten, name) for name in _OF_EVENTS}
"""By the names that a command line has for them."""


def rewrite_by(rewrite: Rewrite) -> Change:
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

    def pace(recording: Recording) -> Recording:
        reads = tuple(Read(round(read.t * factor, _DIGITS), read.data) for read in recording.reads)
        return replace(recording, reads=reads, duration=round(recording.duration * factor, _DIGITS))

    return pace


def profile(
    *,
    time_to_first_token: float = TIME_TO_FIRST_TOKEN,
    tokens_per_second: float = TOKENS_PER_SECOND,
    jitter: float = 0.0,
    seed: int = 0,
) -> Change:
    """As a model writes that takes so many seconds for the first token, and then so many tokens in a second.

    `jitter` is the share by which each gap between two tokens is longer or shorter, by chance: with 0.2 it is 80 % to 120 %
    of what it would be. The same `seed` gives the same times. Raises `ConfigurationError`.
    """
    if not 0 <= time_to_first_token < math.inf:
        raise ConfigurationError(f"time_to_first_token must be a number from 0 on, not {time_to_first_token}")
    if not 0 < tokens_per_second < math.inf:
        raise ConfigurationError(f"tokens_per_second must be a number above 0, not {tokens_per_second}")
    if not 0 <= jitter <= 1:
        raise ConfigurationError(f"jitter must be between 0 and 1, not {jitter}")

    def pace(recording: Recording) -> Recording:
        chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        decoder = Decoder(max_event_bytes=len(recording.body) + 1)  # every recording can be paced
        t, is_first, reads = time_to_first_token, True, []
        for read in recording.reads:
            for event in decoder.feed(read.data):
                if _DELTA.search(event.data):
                    t += 0.0 if is_first else (1 + jitter * chance.uniform(-1, 1)) / tokens_per_second
                    is_first = False
            reads.append(Read(round(t, _DIGITS), read.data))
        return replace(recording, reads=tuple(reads), duration=round(t, _DIGITS))

    return pace


_BY_NAME: Mapping[str, Change] = {"recorded": recorded, "none": immediate}
_PROFILE_NAMES: Mapping[str, str] = {"ttft": "time_to_first_token", "tps": "tokens_per_second", "jitter": "jitter"}


def pace_by(pace: Pace) -> Change:
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
