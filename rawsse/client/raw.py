"""An answer together with the response that it came in.

This file knows what a caller may want of a response beside its content. It refuses to know how it was obtained.

    raw = await client.messages.with_raw_response.create(model=…, max_tokens=…, messages=[…])
    raw.status_code, raw.headers["x-…"], raw.request_id, raw.retries_taken, raw.rate_limits.requests.remaining
    message = await raw.parse()
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rawsse.client.moments import Timing
from rawsse.client.ratelimits import RateLimits
from rawsse.http1 import Headers, Response

__all__ = ["RawResponse"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RawResponse(Generic[T]):
    """A response and what it brought. With `stream=True` that is an `EventStream`, which the caller must read to its end or
    close."""

    response: Response
    parsed: T = field(repr=False)
    retries_taken: int
    timing: Timing = field(repr=False)

    @property
    def status_code(self) -> int:
        """The status."""
        return self.response.status

    @property
    def headers(self) -> Headers:
        """The header fields; names are case-insensitive."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """The `request-id`: what Anthropic's support asks for."""
        return self.headers.get("request-id")

    @property
    def rate_limits(self) -> RateLimits:
        """What the header says of the rate limits."""
        return RateLimits.from_headers(self.headers)

    async def parse(self) -> T:
        """What the response brought."""
        return self.parsed
