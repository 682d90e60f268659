"""How long to wait for a server, and when to retry: the five timeouts, the retry policy, the rate limits in a response.

Pure: time and randomness are arguments, and nothing here waits. The clocks run in `exchange.py`.

    Timeouts(connect=5.0, silence=30.0, total=None)
    Timeouts.of(20)                             # one number, like the official SDK's `timeout`

    decision = decide(error, retries_taken, RetryPolicy(), now=time.time(), chance=random.random())
    if decision.delay is None:
        raise error
    await asyncio.sleep(decision.delay)

`errors.py` defines which failures may be retried: `HEALING_STATUSES` for statuses, the `may_heal` of the class for others.
This module decides how often and when, and reads what the server asks for.

Nothing is retried after content has reached the caller: `BaseStream._more` raises the error of an exchange that `is_committed`,
and does not ask `decide`. For other callers `decide` goes by the error's `phase`.

The waits are those of the official SDKs, but bounded: the SDKs sleep through a `retry-after` of an hour, and the call appears
to hang.

Rate limits (https://docs.anthropic.com/en/api/rate-limits) are only read: no request is held back because of them.

    limits = RateLimits.from_headers(stream.headers)
    if limits.output_tokens and limits.output_tokens.remaining == 0:
        print("nothing more before", limits.output_tokens.reset)

Every response of the API has some of these fields, not only refusals. Gateways often omit them, and then `limits` is false.
A malformed field is None; its value is in `raw`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rawsse.errors import APIError, APIStatusError, ConfigurationError, ContentTimeoutError, TotalTimeoutError

if TYPE_CHECKING:
    from datetime import datetime

ABOVE_ZERO = math.ulp(0.0)
"""The smallest number above 0, as a bound for `check_number`."""


def check_number(value: Any, rule: str, *, least: float = 0, most: float = math.inf, kind: type[float] = float) -> None:
    """Raises `ConfigurationError` with the text of `rule`, unless `value` is a number of this kind within the bounds."""
    if not isinstance(value, int | kind) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigurationError(f"{rule}, not {value!r}")


def check_seconds(what: str, **seconds: Any) -> None:
    """Raises `ConfigurationError` unless each is a number above 0, or None."""
    for name, value in seconds.items():
        if value is not None:
            check_number(value, f"{what}: {name} must be a number of seconds above 0, or None", least=ABOVE_ZERO)


class Timeouts(NamedTuple):
    """The five clocks, in seconds; None turns one off. The client validates them.

    `connect`: DNS, TCP and TLS together. `head`: from the end of the request to the response's head; also to send each 256 KiB
    of the request, and to wait for a free connection in a full pool. `silence`: no byte at all, not even a ping. `content`: no
    event but pings; generous, because thinking takes long. `total`: one call, with its retries and the waits between them;
    `max_seconds` bounds a whole tool loop.

    Two clocks watch the body because one cannot: a single idle timer either hangs on dead connections or kills answers
    that need long thinking. The API pings about every 30 s, so 90 s of silence are three lost pings.

    To add the clock `name`: here its field; in `errors.py` its `NameTimeoutError`, exported by `rawsse`; in `exchange.py` its
    row in `_CLOCKS`, and its end in `Exchange.deadline`. If content restarts it, `Answer._restart_content` keeps the `_waited`
    of that moment. If no retry can help after it, `_is_retried` below names it. A test names what is missing.
    """

    connect: float | None = 10.0
    head: float | None = 120.0
    silence: float | None = 90.0
    content: float | None = 600.0
    total: float | None = None

    @classmethod
    def of(cls, seconds: Any) -> Self:
        """The clocks from one number: the longest silence of the server. As with the official SDK's `timeout`, an
        answer may take any time while its bytes keep arriving; `content` and `total` keep their defaults.

        As in that SDK, `seconds` may also be an object with `connect` and `read`, such as `httpx.Timeout`, or None, which
        turns all clocks off.
        """
        if seconds is None:
            return cls._make([None] * len(cls._fields))
        if hasattr(seconds, "connect") and hasattr(seconds, "read"):
            return cls(connect=seconds.connect, head=seconds.read, silence=seconds.read)
        check_number(seconds, "timeout must be a number of seconds above 0", least=ABOVE_ZERO)
        return cls(connect=min(seconds, cls().connect or seconds), head=seconds, silence=seconds)

    def check(self) -> None:
        """Raises `ConfigurationError` for an invalid clock."""
        check_seconds("timeouts", **self._asdict())


class NotGiven:
    """The official SDK's default for arguments; there, and here for `timeout`, None means something else."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN = NotGiven()


# --- Retries -------------------------------------------------------------------------------------------------------

JITTER = 0.25
"""The share of the client's own wait that is random: clients that failed together should not retry together."""


class RetryPolicy(NamedTuple):
    """How often to retry, and how long to wait. All but `max_retries` are seconds. The client validates them.

    `first_delay` is the wait before the first retry; it doubles up to `max_delay`. If the server asks for more than
    `max_retry_after`, the call fails at once; `math.inf` removes that limit.
    """

    max_retries: int = 2
    first_delay: float = 0.5
    max_delay: float = 8.0
    max_retry_after: float = 60.0

    def check(self) -> None:
        """Raises `ConfigurationError` for a value that is not a number, or too small."""
        check_number(self.max_retries, "retries: max_retries must be a whole number of 0 or more", kind=int)
        for name in ("first_delay", "max_delay", "max_retry_after"):
            # The client's own waits must be finite; the limit on a server's `retry-after` is the caller's choice.
            most = math.inf if name == "max_retry_after" else math.nextafter(math.inf, 0)
            check_number(getattr(self, name), f"retries: {name} must be a number of seconds of 0 or more", most=most)


class Decision(NamedTuple):
    """Whether and when to retry after a failure.

    `delay`: seconds to wait before the next attempt; None if there is none. `retry_after`: the wait that the server asked
    for, even if there is no next attempt. `reason`: a description of the next attempt, for the log.
    """

    delay: float | None
    retry_after: float | None = None
    reason: str = ""


def decide(error: APIError, retries_taken: int, policy: RetryPolicy, *, now: float, chance: float) -> Decision:
    """Whether and when to retry after `error`.

    `retries_taken` counts the retries of this call so far, `now` is POSIX time (`retry-after` may be a date), `chance` is a
    random number from 0 up to, but not including, 1.
    """
    asked = None
    # RFC 9110, 10.2.3, defines `Retry-After` for refusals and redirects. On the 200 of a stream it was sent before the error
    # happened, and does not refer to it.
    if isinstance(error, APIStatusError) and not error.in_stream:
        asked = parse_retry_after(error.headers, now)
    if retries_taken >= policy.max_retries or not _is_retried(error) or (asked or 0) > policy.max_retry_after:
        return Decision(None, asked)
    # The exponent is bounded by that of a float; a product beyond it is infinite, and so becomes `max_delay`.
    own = min(policy.first_delay * 2.0 ** min(retries_taken, 1023), policy.max_delay) * (1 - JITTER * chance)
    delay, source = (own, "") if asked is None else (asked, " as the server asks")
    reason = f"{type(error).__name__}: retry {retries_taken + 1} of {policy.max_retries}, in {delay:g} s{source}"
    return Decision(delay, asked, reason)


def _is_retried(error: APIError) -> bool:
    """Whether the client may make another attempt after this failure."""
    # A model that was silent for so long would be silent again, and no attempt can follow once `total` has run out.
    if isinstance(error, ContentTimeoutError | TotalTimeoutError) or error.phase in ("content", "tail", "done"):
        return False
    return error.repeat_may_help


def parse_retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """How many seconds the server asks to wait; None if it does not ask, or the time has passed.

    The first valid one of `retry-after-ms` (milliseconds), `retry-after` in seconds, and `retry-after` as a date. A date
    needs `now`, in POSIX time. Fractions are accepted, as by the official SDKs.
    """
    fields = {name.lower(): headers[name].strip() for name in headers}
    waits = _seconds(fields.get("retry-after-ms", ""), None) / 1000, _seconds(fields.get("retry-after", ""), now)
    return next((wait for wait in waits if 0 < wait < math.inf), None)


def _seconds(text: str, now: float | None) -> float:
    """A number, or the seconds from `now` to an HTTP date in any of the three formats of RFC 9110, 5.6.7; else 0."""
    # Stricter than `float`, which accepts "nan", "1_0" and digits of other scripts.
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    if now is None or not text:
        return 0.0
    from datetime import UTC  # loaded only here: this takes a millisecond, the next import several, and dates are rare
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now


# --- Rate limits ---------------------------------------------------------------------------------------------------

# The fields about limits, including those of unknown families. Compiled on first use.
_ABOUT_LIMITS = r"anthropic-ratelimit-.+|anthropic-.+-(?:limit|remaining|reset)|retry-after(?:-ms)?"


class RateLimit(NamedTuple):
    """One limit: the total, what remains, and when it is reset; each None if the API does not send it."""

    limit: int | None = None
    remaining: int | None = None
    reset: datetime | None = None


class RateLimits(NamedTuple):
    """The limits in a response's headers; a missing one is None. False if there are none at all."""

    requests: RateLimit | None = None
    tokens: RateLimit | None = None
    """The most restrictive token limit in effect; `remaining` is rounded to thousands."""
    input_tokens: RateLimit | None = None
    output_tokens: RateLimit | None = None
    priority_input_tokens: RateLimit | None = None
    """Like the one for output: for customers with a Priority Tier."""
    priority_output_tokens: RateLimit | None = None
    fast_input_tokens: RateLimit | None = None
    """Like the one for output: for fast mode."""
    fast_output_tokens: RateLimit | None = None
    retry_after: float | None = None
    """How long the server asks to wait, in seconds."""
    raw: Mapping[str, str] = MappingProxyType({})
    """Every field about limits as received, by its full name in lower case, including the undocumented ones of subscriptions
    (`anthropic-ratelimit-unified-*`)."""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], *, now: float | None = None) -> Self:
        """The limits in these header fields; names may be in any case. A malformed field raises nothing.

        `now` is POSIX time: without it a `retry-after` date is ignored.
        """
        raw = {name.lower(): headers[name] for name in headers if re.fullmatch(_ABOUT_LIMITS, name.lower())}
        families = {name: _limit(raw, name) for name in cls._fields if name.endswith(("requests", "tokens"))}
        return cls(**families, retry_after=parse_retry_after(raw, now), raw=raw)

    def __bool__(self) -> bool:
        return bool(self.raw)


def _limit(raw: Mapping[str, str], family: str) -> RateLimit | None:
    is_bare = family.startswith(("priority_", "fast_"))
    prefix = f"anthropic-{'' if is_bare else 'ratelimit-'}{family.replace('_', '-')}"
    limit, remaining, reset = (raw.get(f"{prefix}-{part}") for part in ("limit", "remaining", "reset"))
    if limit is None and remaining is None and reset is None:
        return None
    return RateLimit(_count(limit or ""), _count(remaining or ""), _moment(reset or ""))


def _count(text: str) -> int | None:
    # Longer ones are not counts, and `int` rejects very long ones.
    return int(text) if re.fullmatch("[0-9]{1,18}", text.strip()) else None


def _moment(text: str) -> datetime | None:
    """RFC 3339, 5.6: a date, "T", a time and an offset; letters may be in any case."""
    from datetime import datetime  # as above

    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None
    return moment if moment.tzinfo else None  # without an offset it cannot be compared with other times
