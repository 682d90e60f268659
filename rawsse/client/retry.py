"""When to try again: the policy, the server's `retry-after`, and the rate limits that its header tells.

Pure: the time and the chance are arguments, and nothing here waits.

    decision = decide(error, retries_taken, RetryPolicy(), now=time.time(), chance=random.random())
    if decision.delay is None:
        raise error
    await asyncio.sleep(decision.delay)

Nothing is tried again after content has reached the caller. `decide` knows that only from the error's `phase`, and an exchange
does not set it that far: the stream checks it before it asks.

The waits are those of the official SDKs, with a ceiling: theirs sleep through a `retry-after` of an hour, and the caller sees
nothing but a call that hangs.

Rate limits (https://docs.anthropic.com/en/api/rate-limits) are only read: no request is held back because of them.

    limits = RateLimits.from_headers(stream.headers)
    if limits.output_tokens and limits.output_tokens.remaining == 0:
        print("nothing more before", limits.output_tokens.reset)

Every response of the API has some of these fields, not only a refusal; those of gateways often do not, and then `limits` is
false. A field that cannot be read is None; its value is in `raw`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Self

from rawsse.client.timeouts import check_number
from rawsse.errors import APIError, APIStatusError, ContentTimeoutError, TotalTimeoutError

JITTER = 0.25
"""The share of the client's own wait that is random: clients that failed together should not come back together."""


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
        check_number(self.max_retries, "retries: max_retries must be a whole number of 0 or more", kind=int)
        for name in ("first_delay", "max_delay", "max_retry_after"):
            # A wait of the client's own has an end; how long to wait for a server that names a time is the caller's choice.
            most = math.inf if name == "max_retry_after" else math.nextafter(math.inf, 0)
            check_number(getattr(self, name), f"retries: {name} must be a number of seconds of 0 or more", most=most)


class Decision(NamedTuple):
    """What follows from a failure.

    `delay`: seconds to wait before the next attempt; None for no other attempt. `retry_after`: the wait that the server asked
    for, also where there is no other attempt. `reason`: the next attempt in words, for the log.
    """

    delay: float | None
    retry_after: float | None = None
    reason: str = ""


def decide(error: APIError, retries_taken: int, policy: RetryPolicy, *, now: float, chance: float) -> Decision:
    """Whether to try again after `error`, and when.

    `retries_taken` counts the retries of this call so far, `now` is POSIX time (`retry-after` may be a date), `chance` is a
    random number from 0 up to, but not including, 1.
    """
    asked = None
    # RFC 9110, 10.2.3, gives `Retry-After` a meaning on refusals and redirects. On the 200 of a stream it was written before
    # there was an error, and says nothing about it.
    if isinstance(error, APIStatusError) and not error.in_stream:
        asked = parse_retry_after(error.headers, now)
    if retries_taken >= policy.max_retries or not _may_help(error) or (asked or 0) > policy.max_retry_after:
        return Decision(None, asked)
    # The exponent stops where a float does; one that is multiplied beyond that is infinite, and so the largest delay.
    own = min(policy.first_delay * 2.0 ** min(retries_taken, 1023), policy.max_delay) * (1 - JITTER * chance)
    delay, source = (own, "") if asked is None else (asked, " as the server asks")
    reason = f"{type(error).__name__}: retry {retries_taken + 1} of {policy.max_retries}, in {delay:g} s{source}"
    return Decision(delay, asked, reason)


def _may_help(error: APIError) -> bool:
    """Another attempt may end better than the one that ended with `error`."""
    # A model that was silent for so long would be so again. The time of the whole call is over for the next attempt too.
    if isinstance(error, ContentTimeoutError | TotalTimeoutError) or error.phase in ("content", "tail", "done"):
        return False
    return error.may_heal if error.should_retry is None else error.should_retry


def parse_retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """How many seconds the server asks to wait; None if it does not say, or names a time that has passed.

    The first of these that can be used: `retry-after-ms` (milliseconds), `retry-after` in seconds, `retry-after` as a date. A
    date needs `now`, in POSIX time. Fractions are taken too, as the official SDKs do.
    """
    fields = {name.lower(): headers[name].strip() for name in headers}
    waits = _seconds(fields.get("retry-after-ms", ""), None) / 1000, _seconds(fields.get("retry-after", ""), now)
    return next((wait for wait in waits if 0 < wait < math.inf), None)


def _seconds(text: str, now: float | None) -> float:
    """A number, or the seconds from `now` to an HTTP date in any of the three formats of RFC 9110, 5.6.7; else 0."""
    # Not all that `float` takes: "nan", "1_0" and digits of other scripts are not numbers here.
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    if now is None or not text:
        return 0.0
    from email.utils import parsedate_to_datetime  # it takes milliseconds to load, and dates are rare

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now


# --- Rate limits ---------------------------------------------------------------------------------------------------

# All that is about limits, of families that are not known yet as well.
_ABOUT_LIMITS = re.compile(r"anthropic-ratelimit-.+|anthropic-.+-(?:limit|remaining|reset)|retry-after(?:-ms)?")

# Longer ones are not counts, and Python refuses to read very long ones.
_COUNT = re.compile("[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit: how much in all, how much is left, and when it is whole again; each None where the API does not say."""

    limit: int | None = None
    remaining: int | None = None
    reset: datetime | None = None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits that an answer tells; None for those it does not. False if it tells none at all."""

    requests: RateLimit | None = None
    tokens: RateLimit | None = None
    """The tightest of the token limits in force; what remains is rounded to thousands."""
    input_tokens: RateLimit | None = None
    output_tokens: RateLimit | None = None
    priority_input_tokens: RateLimit | None = None
    """As its neighbour for output: for those who have bought a Priority Tier."""
    priority_output_tokens: RateLimit | None = None
    fast_input_tokens: RateLimit | None = None
    """As its neighbour for output: for fast mode."""
    fast_output_tokens: RateLimit | None = None
    retry_after: float | None = None
    """What the server asks to wait, in seconds."""
    raw: Mapping[str, str] = field(default_factory=dict)
    """Every field about limits as it came, under its whole name in lower case: those of subscriptions too, which the API does
    not document (`anthropic-ratelimit-unified-*`)."""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], *, now: float | None = None) -> Self:
        """The limits that these header fields tell; their names may be in any case. Nothing in them makes it fail.

        `now` is POSIX time: without it a `retry-after` that is a date is not read.
        """
        raw = {name.lower(): headers[name] for name in headers if _ABOUT_LIMITS.fullmatch(name.lower())}
        return cls(**{name: _limit(raw, name) for name in _FAMILIES}, retry_after=parse_retry_after(raw, now), raw=raw)

    def __bool__(self) -> bool:
        return bool(self.raw)


_FAMILIES = tuple(field for field in RateLimits.__dataclass_fields__ if field.endswith(("requests", "tokens")))


def _limit(raw: Mapping[str, str], family: str) -> RateLimit | None:
    is_bare = family.startswith(("priority_", "fast_"))
    prefix = f"anthropic-{'' if is_bare else 'ratelimit-'}{family.replace('_', '-')}"
    limit, remaining, reset = (raw.get(f"{prefix}-{part}") for part in ("limit", "remaining", "reset"))
    if limit is None and remaining is None and reset is None:
        return None
    return RateLimit(_count(limit or ""), _count(remaining or ""), _moment(reset or ""))


def _count(text: str) -> int | None:
    return int(text) if _COUNT.fullmatch(text.strip()) else None


def _moment(text: str) -> datetime | None:
    """RFC 3339, 5.6: a date, "T", a time and an offset, the letters in any case."""
    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None
    return moment if moment.tzinfo else None  # without an offset it could not be compared with any other time
