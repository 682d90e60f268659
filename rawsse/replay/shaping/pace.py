"""When the reads of a recording come: as recorded, faster or slower, all at once, or as a model of a given speed writes.

This file knows times. It refuses to wait: a pace makes a recording of a recording, and who plays that may do so on any clock.

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.recording import Read, Recording
from rawsse.sse import Decoder

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
