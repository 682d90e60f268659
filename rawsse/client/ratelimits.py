"""The rate limits in the header of a response (https://docs.anthropic.com/en/api/rate-limits).

They are only read: no request is held back because of them.

    limits = RateLimits.from_headers(stream.headers)
    if limits.output_tokens and limits.output_tokens.remaining == 0:
        print("nothing more before", limits.output_tokens.reset)

Every response of the API has some of these fields, not only a refusal; those of gateways often do not, and then `limits` is
false. A field that cannot be read is None; its value is in `raw`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from rawsse.client.retry import parse_retry_after

_UNIFIED = "anthropic-ratelimit-unified-"

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
    unified: Mapping[str, str] = field(default_factory=dict)
    """Limits of subscriptions, which the API does not document: the values of `anthropic-ratelimit-unified-*` as they came,
    under what stands for the star."""
    raw: Mapping[str, str] = field(default_factory=dict)
    """Every field about limits as it came, known or not, under its whole name in lower case."""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], *, now: float | None = None) -> Self:
        """The limits that these header fields tell; their names may be in any case. Nothing in them makes it fail.

        `now` is POSIX time: without it a `retry-after` that is a date is not read.
        """
        raw = {name.lower(): headers[name] for name in headers if _ABOUT_LIMITS.fullmatch(name.lower())}
        return cls(
            **{name: _limit(raw, name) for name in _FAMILIES},
            retry_after=parse_retry_after(raw, now),
            unified={name.removeprefix(_UNIFIED): raw[name] for name in raw if name.startswith(_UNIFIED)},
            raw=raw,
        )

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
