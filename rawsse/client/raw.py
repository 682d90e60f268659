"""A call and its response, as its caller sees them; an answer together with its response.

raw = await client.messages.with_raw_response.create(model=…, max_tokens=…, messages=[…])
raw.status_code, raw.headers["x-…"], raw.request_id, raw.retries_taken, raw.rate_limits.requests.remaining
message = await raw.parse()
"""

from __future__ import annotations

from inspect import isawaitable
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from rawsse.client.call import Call
from rawsse.client.exchange import Exchange, Timing
from rawsse.client.ratelimits import RateLimits
from rawsse.http1 import Headers, Response

T = TypeVar("T")


class CallInfo:
    """A call and its response, as its caller sees them."""

    def __init__(self, call: Call[Exchange]) -> None:
        self._call = call
        self.timing: Timing = call.timing
        """When the connection, the head, the first event, the first content and the last ping came; the longest wait."""

    @property
    def response(self) -> Response:
        """The response's head. Raises `RuntimeError` before there is one."""
        if self._call.response is None:
            raise RuntimeError("the stream is not open: enter its `with` block first")
        return self._call.response

    @property
    def headers(self) -> Headers:
        """The response's header fields; names are case-insensitive."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response: what Anthropic's support asks for."""
        return self._call.exchange.request_id

    @property
    def workspace_id(self) -> str | None:
        """The `anthropic-workspace-id` of the response."""
        return self.headers.get("anthropic-workspace-id")

    @property
    def rate_limits(self) -> RateLimits:
        """The rate limits in the response's header."""
        return RateLimits.from_headers(self.headers)

    @property
    def retries_taken(self) -> int:
        """How often the request was retried."""
        return self._call.retries_taken


class RawResponse(CallInfo, Generic[T]):
    """A response and what it brought. With `stream=True` that is an `EventStream`, which the caller must read to its end or
    close."""

    def __init__(self, call: Call[Exchange], parsed: T) -> None:
        super().__init__(call)
        self.parsed = parsed

    @property
    def status_code(self) -> int:
        """The status."""
        return self.response.status

    async def parse(self) -> T:
        """The answer: a message, events, a count of tokens, a page."""
        return self.parsed

    def __repr__(self) -> str:
        return f"<RawResponse {self.status_code}, request {self.request_id}>"


class WithRawResponse:
    """The calls of a resource (`client.messages`, `client.models`), each of which gives a `RawResponse`."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by `copy`, before there is a resource
            raise AttributeError(name)
        kind, client = type(self._resource), self._resource._client
        method = getattr(kind, name)

        async def call(*arguments: Any, **options: Any) -> RawResponse[Any]:
            calls: list[Call[Any]] = []

            def remember(*arguments: Any, **options: Any) -> Call[Any]:
                calls.append(client.call(*arguments, **options))
                return calls[-1]

            given = method(kind(SimpleNamespace(call=remember)), *arguments, **options)
            parsed = await given if isawaitable(given) else given
            return RawResponse(calls[-1], parsed)

        return call
