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
    web/            rawsse.js, chat.js, react.js, ai.js for any page, and a page that uses them: no build step, no CDN
    deploy/         the relay as a service: systemd, nginx, a container
    cli/            the command line

This text alone: `python -c "import rawsse; print(rawsse.__doc__)"`. `pydoc rawsse` adds thousands of lines about the names.

How it works, in an evening: six stops in a clone, and the question that each answers.

    1. rawsse explain --event 5 unicode     How does text get to the message, if a read cuts a character?
    2. tests/examples/socket_stream.py      How is an answer streamed with a socket and nothing else, in a hundred lines?
    3. rawsse/sse.py                        Which bytes are an event, wherever the reads cut them?
    4. rawsse/http1/codings.py              Where does one answer end on a connection that is reused?
       `ChunkedReader.read` returns the bytes after the end; http1/connection.py: if there are any, `is_reusable` is false
    5. rawsse/messages/message.py           Which event may follow which (`TRANSITIONS`), and what do they add up to?
    6. rawsse/client/answer.py              Who decides that an answer is whole, cut or failed?
       `end`: the peer closed. client/exchange.py: `lose`: the network failed; `expire`: a clock ran out. `_verdict` decides

Where a change goes:

    a retry      errors.py: `HEALING_STATUSES`, `may_heal`; client/retry.py: `decide` (how often and when), `_is_retried`
    a clock      client/retry.py: `Timeouts` says where its other parts are
    a dialect    relay/dialects.py: a subclass of `Dialect`; relay/paths.py: its row in `DIALECTS`
    a route      relay/app.py: a method of `_Call`, and its row in `_ROUTES`
    a limit      relay/users.py: `UserLimits`, and for what a request may choose `choose`. If it counts:
                 relay/store.py: `Limits`, `Count`; relay/redis_store.py: `_FUNCTIONS`; relay/quotas.py: `_policies`
    an event     messages/events.py: a subclass of `BaseEvent`, in `StreamEvent`; messages/__init__.py: `__all__`. If it may
                 not come anywhere, or changes the message: messages/message.py: `TRANSITIONS`, and a method of `MessageBuilder`
    a fault      replay/faults.py: a function, and its row in `_ROWS`; replay/wire.py: `script`, if it is of framing or pace
                 replay/conform.py: `FAULTS` has it tried on clients; fixtures/README.md has what they do

The names below are for programs that call the API. The other doors are rooms of their own: `rawsse.sse`, `rawsse.messages`,
`rawsse.server`, `rawsse.relay` and `rawsse.replay`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rawsse import types
    from rawsse.client.blocking import Client
    from rawsse.client.client import AsyncClient
    from rawsse.client.network.pool import PoolLimits
    from rawsse.client.retry import NOT_GIVEN, RateLimits, RetryPolicy, Timeouts
    from rawsse.client.stream import EventStream, MessageStream
    from rawsse.client.tools.conversation import Conversation, Reply
    from rawsse.client.tools.runner import ToolRunner
    from rawsse.client.tools.tool import Tool, ToolError, beta_async_tool, beta_tool, tool
    from rawsse.errors import *
    from rawsse.messages.content import Message, ParsedMessage

    Anthropic = Client
    AsyncAnthropic = AsyncClient

_ROOMS = ("errors", "http1", "messages", "relay", "replay", "server", "sse", "types")
_ALIASES: Mapping[str, str] = {"Anthropic": "Client", "AsyncAnthropic": "AsyncClient"}
_MODULES: Mapping[str, str] = {
    "Client": "rawsse.client.blocking",
    "AsyncClient": "rawsse.client.client",
    "PoolLimits": "rawsse.client.network.pool",
    **dict.fromkeys(("NOT_GIVEN", "RateLimits", "RetryPolicy", "Timeouts"), "rawsse.client.retry"),
    **dict.fromkeys(("EventStream", "MessageStream"), "rawsse.client.stream"),
    **dict.fromkeys(("Conversation", "Reply"), "rawsse.client.tools.conversation"),
    "ToolRunner": "rawsse.client.tools.runner",
    **dict.fromkeys(("Tool", "ToolError", "beta_async_tool", "beta_tool", "tool"), "rawsse.client.tools.tool"),
    **dict.fromkeys(("Message", "ParsedMessage"), "rawsse.messages.content"),
}
"""The modules of the names that are not errors. A name is loaded when it is first used (PEP 562): a program pays only for the
rooms that it uses. `rawsse.sse` alone takes a sixth of the time of `AsyncClient`, which needs asyncio and ssl."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"rawsse.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'rawsse' has no attribute {name!r}")
    name = _ALIASES.get(name, name)
    return getattr(importlib.import_module(_MODULES.get(name, "rawsse.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# The client, and what is given to it.
__all__ = ["NOT_GIVEN", "Anthropic", "AsyncAnthropic", "AsyncClient", "Client", "PoolLimits", "RetryPolicy", "Timeouts"]
__all__ += ["Conversation", "Tool", "ToolError", "ToolRunner", "beta_async_tool", "beta_tool", "tool", "types"]
# The answer.
__all__ += ["Ending", "EventStream", "Message", "MessageStream", "ParsedMessage", "RateLimits", "Reply"]
# Errors.
__all__ += ["APIError", "AnthropicError", "ConfigurationError", "RawsseError", "UsageError"]
__all__ += ["APIStatusError", "AuthenticationError", "BadRequestError", "ClientClosedRequestError", "ConflictError"]
__all__ += ["ContentTooLargeError", "GatewayTimeoutError", "HTTPNotImplementedError", "InternalServerError"]
__all__ += ["NotFoundError", "OverloadedError", "PaymentRequiredError", "PermissionDeniedError"]
__all__ += ["PreconditionFailedError", "RateLimitError", "RequestHeaderFieldsTooLargeError", "RequestTimeoutError"]
__all__ += ["ServiceUnavailableError", "UnprocessableEntityError"]
__all__ += ["APIConnectionError", "CertificateError", "ProxyError", "StreamCancelledError", "StreamTruncatedError"]
__all__ += ["APITimeoutError", "ConnectTimeoutError", "ContentTimeoutError", "HeadTimeoutError", "SilenceTimeoutError"]
__all__ += ["TotalTimeoutError"]
__all__ += ["APIResponseValidationError", "EventDataError", "EventOrderError", "HTTPProtocolError"]
__all__ += ["OutputFormatError", "ProtocolError"]
__all__ += ["BodyTooLargeError", "EventTooLargeError", "LimitExceededError", "MessageTooLargeError", "TurnLimitError"]
__all__ += ["HeadTooLargeError"]
