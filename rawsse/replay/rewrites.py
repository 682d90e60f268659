"""The same events in other bytes, as gateways, proxies and other libraries send them, and at other times.

    rewrite_by("crlf,comments,bom")(recording)              # by name, one after the other
    pace_by("ttft=0.5,tps=20,jitter=0.3,seed=1")(recording)
    slow = profile(time_to_first_token=0.5, tokens_per_second=20, jitter=0.3, seed=1)(recording)       # the same
    twice_as_long = slower(2)(recording)

A rewrite varies only what WHATWG HTML, 9.2, leaves open: a correct reader gets the same events. Times stay the same. A read
that ended with an event still does; one that ended inside an event ends at the same fraction of it. An event that the end of
the stream cut off, and an answer that is not an event stream, are left unchanged. Three rewrites change what a reader sees, on
purpose: without `event:` lines (`no-event-lines`) every event is called `message`, and the type in the data tells them apart;
`ids` adds ids; `done` adds an event with the data `[DONE]`.

A pace changes `t` and `duration` only. A profile takes each `content_block_delta` for a token, as the API sends them: anything
before the first delta (and an answer without deltas) comes with it, and every other event with the delta before it. A read
comes when the last token that it completes does. The player's `speed` divides these times: `slower=2` and `speed=0.5` take as
long.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import Read, Recording
from rawsse.replay.splits import by_event
from rawsse.sse import Decoder

MAX_PADDING = 15
"""The most spaces that `padding` puts before the last brace of an event: the most that the API sends."""

RETRY_MILLISECONDS = 3000
"""The reconnection time that `retry` sets: the default of most browsers."""

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
"""By name: the number of an event, from 0 on, and its bytes -> its other bytes."""


def _rewritten(name: str, recording: Recording) -> Recording:
    if recording.status != 200 or not recording.is_stream:
        return recording
    frames, changed, number = by_event(recording.body), list[bytes](), 0
    for frame in frames:
        mark = _BOM if not changed and frame.startswith(_BOM) else b""
        rest = frame.removeprefix(mark)
        is_event = _DATA.search(rest) is not None  # else comments only
        if _WHOLE.match(rest) and (is_event or name in ("crlf", "cr")):
            rest = _OF_EVENTS[name](number, rest)
            number += is_event
        changed.append((_BOM if name == "bom" and not changed else mark) + rest)
    if name == "done" and changed and _WHOLE.match(changed[-1]):
        changed[-1] += b"data: [DONE]" + 2 * _line_end(changed[-1])
    # The end of a frame becomes the end of its other bytes, a place inside it the same fraction of them.
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
"""Every rewrite, by its name on a command line."""


def rewrite_by(rewrite: Rewrite) -> Change:
    """The function that the names stand for, one rewrite after the other. Raises `ConfigurationError`."""
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
    seed: float = 0,
) -> Change:
    """The times of a model that takes `time_to_first_token` seconds, and then writes `tokens_per_second`.

    `jitter` varies each gap between two tokens at random: with 0.2 it is 80 % to 120 % of its length. The same `seed` gives the
    same times. Raises `ConfigurationError`.
    """
    if not 0 <= time_to_first_token < math.inf:
        raise ConfigurationError(f"time_to_first_token must be a number from 0 on, not {time_to_first_token}")
    if not 0 < tokens_per_second < math.inf:
        raise ConfigurationError(f"tokens_per_second must be a number above 0, not {tokens_per_second}")
    if not 0 <= jitter <= 1:
        raise ConfigurationError(f"jitter must be between 0 and 1, not {jitter}")

    def pace(recording: Recording) -> Recording:
        chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
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
_ARGUMENTS: Mapping[str, str] = {
    "slower": "factor",
    "ttft": "time_to_first_token",
    "tps": "tokens_per_second",
    "jitter": "jitter",
    "seed": "seed",
}
"""How a text writes the arguments of `slower` and `profile`."""


def pace_by(pace: Pace) -> Change:
    """The function that a name, a text such as `ttft=0.5,tps=40`, or a function stands for. Raises `ConfigurationError`."""
    if not isinstance(pace, str):
        return pace
    if pace in _BY_NAME:
        return _BY_NAME[pace]
    given: dict[str, float] = {}
    for part in pace.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _ARGUMENTS:
            names = ", ".join((*_BY_NAME, *(f"{name}=…" for name in _ARGUMENTS)))
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
