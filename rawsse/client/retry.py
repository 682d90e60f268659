"""Which failure may be tried again, and when.

Pure: the time and the chance are arguments, and nothing here waits.

    decision = decide(error, retries_taken, RetryPolicy(), now=time.time(), chance=random.random())
    if decision.delay is None:
        raise error                                  # `decision.reason` says why
    await asyncio.sleep(decision.delay)

Whether content has reached the caller is looked at here as far as the error says so (`phase`), but an error that comes straight
from an exchange cannot know it: who reads the stream asks that question first. Nothing is tried again after content.

The waits are those of the official SDKs, with a ceiling: theirs sleep through a `retry-after` of an hour, and the caller sees
nothing but a call that hangs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rawsse.errors import (
    APIError,
    APIStatusError,
    ConfigurationError,
    ContentTimeoutError,
    StreamCancelledError,
    TotalTimeoutError,
)

JITTER = 0.25
"""The share of a wait of our own that is left to chance: clients that failed together shall not come back together."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try again, and how long to wait. All but `max_retries` are seconds.

    `first_delay` is the wait before the first retry; it doubles up to `max_delay`. A server that asks for more than
    `max_retry_after` is not waited for: the call fails at once. `math.inf` takes that ceiling away.
    """

    max_retries: int = 2
    first_delay: float = 0.5
    max_delay: float = 8.0
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        retries: object = self.max_retries
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            raise ConfigurationError(f"retries: max_retries must be a whole number of 0 or more, not {retries!r}")
        for name in ("first_delay", "max_delay", "max_retry_after"):
            value: object = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            # A wait of our own has an end; how long to wait for a server that says when to come back is the caller's choice.
            if not is_number or (value == math.inf and name != "max_retry_after"):
                raise ConfigurationError(f"retries: {name} must be a number of seconds of 0 or more, not {value!r}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a failure. `delay`: seconds to wait before the next try, None for no further try. `reason`: why, in
    words. `retry_after`: what the server asked to wait, also where it is not waited for."""

    delay: float | None
    reason: str
    retry_after: float | None = None


def decide(error: APIError, retries_taken: int, policy: RetryPolicy, *, now: float, chance: float) -> Decision:
    """Whether to try again after `error`, and when.

    `retries_taken` counts the retries of this call so far, `now` is POSIX time (`retry-after` may be a date), `chance` is a
    random number from 0 up to, but not including, 1.
    """
    asked = _asked_to_wait(error, now)
    if refusal := _why_not(error) or _why_no_more(retries_taken, policy) or _why_too_long(asked, policy):
        return Decision(None, refusal, asked)
    count = f"{type(error).__name__}: retry {retries_taken + 1} of {policy.max_retries}"
    if asked is not None:
        return Decision(asked, f"{count}, in {_seconds(asked)} as the server asks", asked)
    delay = _backoff(retries_taken, policy, chance)
    return Decision(delay, f"{count}, in {_seconds(round(delay, 3))}")


def _why_not(error: APIError) -> str | None:
    """Why an error of this kind is not tried again; None if it may be."""
    name = type(error).__name__
    if isinstance(error, StreamCancelledError):
        return "the stream was closed by its own side"
    if isinstance(error, TotalTimeoutError):
        return "the time of the whole call is over"
    if isinstance(error, ContentTimeoutError):
        return "a model that was silent for so long would be so again"
    if error.phase in ("content", "tail", "done"):
        return "content had reached the caller"
    wish = error.should_retry
    if wish is False:
        return f"{name} is not retried: the server says so (x-should-retry)"
    return None if wish or error.may_heal else f"{name} is not retried"


def _why_no_more(retries_taken: int, policy: RetryPolicy) -> str | None:
    if retries_taken < policy.max_retries:
        return None
    if retries_taken == 0:
        return "max_retries is 0"
    return "1 retry was taken" if retries_taken == 1 else f"{retries_taken} retries were taken"


def _why_too_long(asked: float | None, policy: RetryPolicy) -> str | None:
    if asked is None or asked <= policy.max_retry_after:
        return None
    return f"the server asks to wait {_seconds(asked)}, more than max_retry_after ({_seconds(policy.max_retry_after)})"


def _backoff(retries_taken: int, policy: RetryPolicy, chance: float) -> float:
    # The exponent stops where a float does; one that is multiplied beyond that is infinite, and so the largest delay.
    delay = min(policy.first_delay * 2.0 ** min(retries_taken, 1023), policy.max_delay)
    return delay * (1 - JITTER * chance)


def _seconds(value: float) -> str:
    return f"{value:.10g} s"


# --- What the server wishes ----------------------------------------------------------------------------------------


def _asked_to_wait(error: APIError, now: float) -> float | None:
    # RFC 9110, 10.2.3, gives `Retry-After` a meaning on refusals and redirects. On the 200 of a stream it was written before
    # there was an error, and says nothing about it.
    if not isinstance(error, APIStatusError) or error.in_stream:
        return None
    return parse_retry_after(error.headers, now)


def parse_retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """How many seconds the server asks to wait; None if it does not say, or says what is no time to come.

    The first of these that can be used: `retry-after-ms` (milliseconds), `retry-after` in seconds, `retry-after` as a date. A
    date needs `now`, in POSIX time. Fractions are taken too, as the official SDKs do.
    """
    fields = _lower_names(headers)
    text = fields.get("retry-after", "").strip()
    milliseconds = _number(fields.get("retry-after-ms", "").strip())
    waits = [milliseconds and milliseconds / 1000, _number(text)]
    if now is not None and (date := _posix_time(text)) is not None:
        waits.append(date - now)
    return next((wait for wait in waits if wait is not None and 0 < wait < math.inf), None)


def _lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): headers[name] for name in headers}


# Not all that `float` takes: "nan", "1_0" and digits of other scripts are no numbers here.
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _posix_time(date: str) -> float | None:
    """The POSIX time of an HTTP date, in any of the three formats of RFC 9110, 5.6.7; None if it is not one."""
    from datetime import UTC  # these take milliseconds to load, and dates are rare
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
