"""Stream Claude's answers over raw HTTP and server-sent events: to programs, to browsers, and into tests.

Read in this order; a module imports only what stands before it (a test keeps it so):

    errors.py       every failure as one tree, and how a stream ended
    sse.py          bytes <-> server-sent events
    http1/          HTTP/1.1 over h11, both roles, bytes in and bytes out. Pure.
    messages/       what the Messages API says: events, and the message they add up to. Pure.
    client/         talking to the API: connections, clocks, the stream, the calls
    types/          the official SDK's names for what is sent and what comes back
    server/         a small asyncio HTTP server that hosts any ASGI 3 application
    relay/          the Messages API, re-emitted to browsers
    replay/         recordings of streams: keeping, playing, cutting and checking them
    web/            rawsse.js, chat.js and react.js for any page, and a page that uses them: no build step, no CDN
    deploy/         the relay as a service: systemd, nginx, a container
    cli/            the command line

How it works, in an evening: six stops, and the question that each answers.

    1. rawsse explain --event 4 fixtures/plain.sse.jsonl    How does one piece of text get from the read to the message?
    2. tests/examples/socket_stream.py      How is an answer streamed with a socket and nothing else, in a hundred lines?
    3. rawsse/sse.py                        Which bytes are an event, wherever the reads cut them?
    4. rawsse/http1/                        Where does an answer begin and end in a connection that is used again?
    5. rawsse/messages/message.py           Which event may follow which (`TRANSITIONS`), and what do they add up to?
    6. rawsse/client/answer.py              How does an answer end, if the peer, the network or a clock ends it?

The names below are for programs that call the API. The other doors are rooms of their own: `rawsse.sse`, `rawsse.messages`,
`rawsse.server`, `rawsse.relay` and `rawsse.replay`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rawsse.errors import (
    AnthropicError,
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BodyTooLargeError,
    CertificateError,
    ClientClosedRequestError,
    ConfigurationError,
    ConflictError,
    ConnectTimeoutError,
    ContentTimeoutError,
    ContentTooLargeError,
    Ending,
    EventDataError,
    EventOrderError,
    EventTooLargeError,
    GatewayTimeoutError,
    HeadTimeoutError,
    HTTPNotImplementedError,
    HTTPProtocolError,
    InternalServerError,
    LimitExceededError,
    MessageTooLargeError,
    NotFoundError,
    OutputFormatError,
    OverloadedError,
    PaymentRequiredError,
    PermissionDeniedError,
    PreconditionFailedError,
    ProtocolError,
    ProxyError,
    RateLimitError,
    RawsseError,
    RequestHeaderFieldsTooLargeError,
    RequestTimeoutError,
    ServiceUnavailableError,
    SilenceTimeoutError,
    StreamCancelledError,
    StreamTruncatedError,
    TotalTimeoutError,
    TurnLimitError,
    UnprocessableEntityError,
    UsageError,
)

if TYPE_CHECKING:
    from rawsse import types
    from rawsse.client.blocking import Client
    from rawsse.client.client import AsyncClient
    from rawsse.client.network.pool import PoolLimits
    from rawsse.client.retry import NOT_GIVEN, RateLimits, RetryPolicy, Timeouts
    from rawsse.client.stream import EventStream, MessageStream
    from rawsse.client.tools.conversation import Conversation
    from rawsse.client.tools.runner import ToolRunner
    from rawsse.client.tools.tool import Tool, ToolError, beta_async_tool, beta_tool, tool
    from rawsse.messages.content import Message, ParsedMessage

    Anthropic = Client
    AsyncAnthropic = AsyncClient

_ROOMS = ("http1", "messages", "relay", "replay", "server", "sse", "types")
_ALIASES: Mapping[str, str] = {"Anthropic": "Client", "AsyncAnthropic": "AsyncClient"}
_MODULES: Mapping[str, str] = {
    "Client": "rawsse.client.blocking",
    "AsyncClient": "rawsse.client.client",
    "PoolLimits": "rawsse.client.network.pool",
    **dict.fromkeys(("NOT_GIVEN", "RateLimits", "RetryPolicy", "Timeouts"), "rawsse.client.retry"),
    **dict.fromkeys(("EventStream", "MessageStream"), "rawsse.client.stream"),
    "Conversation": "rawsse.client.tools.conversation",
    "ToolRunner": "rawsse.client.tools.runner",
    **dict.fromkeys(("Tool", "ToolError", "beta_async_tool", "beta_tool", "tool"), "rawsse.client.tools.tool"),
    **dict.fromkeys(("Message", "ParsedMessage"), "rawsse.messages.content"),
}
"""The modules of names that are loaded when they are first used (PEP 562): a program pays only for the rooms that it uses.
`rawsse.sse` alone takes a sixth of the time of `AsyncClient`, which needs asyncio and ssl."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"rawsse.{name}")
    name = _ALIASES.get(name, name)
    if name not in _MODULES:
        raise AttributeError(f"module 'rawsse' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "NOT_GIVEN",
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "Anthropic",
    "AnthropicError",
    "AsyncAnthropic",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "BodyTooLargeError",
    "CertificateError",
    "Client",
    "ClientClosedRequestError",
    "ConfigurationError",
    "ConflictError",
    "ConnectTimeoutError",
    "ContentTimeoutError",
    "ContentTooLargeError",
    "Conversation",
    "Ending",
    "EventDataError",
    "EventOrderError",
    "EventStream",
    "EventTooLargeError",
    "GatewayTimeoutError",
    "HTTPNotImplementedError",
    "HTTPProtocolError",
    "HeadTimeoutError",
    "InternalServerError",
    "LimitExceededError",
    "Message",
    "MessageStream",
    "MessageTooLargeError",
    "NotFoundError",
    "OutputFormatError",
    "OverloadedError",
    "ParsedMessage",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "PoolLimits",
    "PreconditionFailedError",
    "ProtocolError",
    "ProxyError",
    "RateLimitError",
    "RateLimits",
    "RawsseError",
    "RequestHeaderFieldsTooLargeError",
    "RequestTimeoutError",
    "RetryPolicy",
    "ServiceUnavailableError",
    "SilenceTimeoutError",
    "StreamCancelledError",
    "StreamTruncatedError",
    "Timeouts",
    "Tool",
    "ToolError",
    "ToolRunner",
    "TotalTimeoutError",
    "TurnLimitError",
    "UnprocessableEntityError",
    "UsageError",
    "beta_async_tool",
    "beta_tool",
    "tool",
    "types",
]
