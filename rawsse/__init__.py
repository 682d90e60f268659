"""Stream Claude's answers over raw HTTP and server-sent events: to programs, to browsers, and into tests.

Read in this order; a module imports only what stands before it (a test keeps it so):

    errors.py       every failure, drawn as a tree, sorted by who is to blame
    sse.py          bytes <-> server-sent events
    http1/          HTTP/1.1 over h11, both roles, bytes in and bytes out. Pure.
    messages/       what the Messages API says: events, the message they add up to, the ending. Pure.
    client/         talking to the API: connections, clocks, the stream, the calls
    types/          the official SDK's names for what is sent and what comes back
    server/         a small asyncio HTTP server that hosts any ASGI 3 application
    relay/          the Messages API, re-emitted to browsers
    replay/         recordings of streams: keeping, playing, cutting and checking them
    web/            the page: no build step, no CDN
    envfile.py      variables from a `.env` file
    cli.py          the command line

The names below are for programs that call the API. The other doors are rooms of their own: `rawsse.sse`, `rawsse.messages`,
`rawsse.server`, `rawsse.relay` and `rawsse.replay`.
"""

from rawsse.client import AsyncClient, EventStream, MessageStream, Timeouts
from rawsse.errors import (
    AnthropicError,
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    LimitExceededError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RawsseError,
    StreamCancelledError,
    StreamTruncatedError,
    UnprocessableEntityError,
)
from rawsse.messages import Ending, Message

AsyncAnthropic = AsyncClient

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AnthropicError",
    "AsyncAnthropic",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "Ending",
    "EventStream",
    "InternalServerError",
    "LimitExceededError",
    "Message",
    "MessageStream",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "RawsseError",
    "StreamCancelledError",
    "StreamTruncatedError",
    "Timeouts",
    "UnprocessableEntityError",
]
