"""An answer together with the response that it came in.

raw = await client.messages.with_raw_response.create(model=…, max_tokens=…, messages=[…])
raw.status_code, raw.headers["x-…"], raw.request_id, raw.retries_taken, raw.rate_limits.requests.remaining
message = await raw.parse()
"""

from __future__ import annotations

from inspect import isawaitable
from types import SimpleNamespace
from typing import Any, Generic, NamedTuple, TypeVar

from rawsse.client.call import Call
from rawsse.client.exchange import Timing
from rawsse.client.ratelimits import RateLimits
from rawsse.http1 import Headers, Response

T = TypeVar("T")


class RawResponse(NamedTuple, Generic[T]):
    """A response and what it brought. With `stream=True` that is an `EventStream`, which the caller must read to its end or
    close."""

    response: Response
    parsed: T
    retries_taken: int
    timing: Timing

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
        """The rate limits in the header."""
        return RateLimits.from_headers(self.headers)

    async def parse(self) -> T:
        """What the response brought."""
        return self.parsed

    def __repr__(self) -> str:
        return f"<RawResponse {self.status_code}, request {self.request_id}>"


class WithRawResponse:
    """The calls of a resource (`client.messages`, `client.models`), each of which gives a `RawResponse`."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __getattr__(self, name: str) -> Any:
        kind, client = type(self._resource), self._resource._client
        method = getattr(kind, name)

        async def call(*arguments: Any, **options: Any) -> RawResponse[Any]:
            calls: list[Call[Any]] = []

            def remember(*arguments: Any, **options: Any) -> Call[Any]:
                calls.append(client.call(*arguments, **options))
                return calls[-1]

            given = method(kind(SimpleNamespace(call=remember)), *arguments, **options)
            parsed = await given if isawaitable(given) else given
            last = calls[-1]
            return RawResponse(last.exchange.response, parsed, last.retries_taken, last.timing)

        return call
