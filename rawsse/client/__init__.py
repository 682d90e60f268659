"""Talking to the API.

Read in this order:

    aside.py     functions that block, in threads that nobody waits for
    moments.py   a request that is ready to go; when things happened
    network/     connections: the five clocks, routes and proxies, TCP and TLS, the pool
    observe.py   what somebody who watches exchanges is told
    retry.py     which failure may be tried again, and when
    ratelimits.py  how much may still be asked, as the header fields say
    exchange.py  one request and its response, with its clocks
    call.py      a request, tried until an answer begins
    schema/      Python types and functions as JSON Schema
    events.py    the events of an answer, over as many attempts as it takes; the one ending
    parse.py     a type as the format of an answer; its text as a value of that type
    stream.py    the answer as it comes: events, text, the message so far
    raw.py       an answer with the response that it came in
    page.py      lists that come in pages
    tools/       answers that call functions; conversations
    request.py   from arguments to a request
    resources.py the calls: `client.messages`, `client.models`
    client.py    keys, options, connections: AsyncClient
    blocking/    Client: the same calls for code without async

`schema/`, `tools/` and `blocking/` are not loaded before they are asked for: a program that only streams does not pay for them.
"""

from rawsse.client.client import AsyncClient
from rawsse.client.events import EventStream
from rawsse.client.moments import Timing
from rawsse.client.network import (
    NOT_GIVEN,
    FakeStream,
    Origin,
    PoolLimits,
    Proxies,
    Proxy,
    Route,
    Stream,
    Timeouts,
    TLSContext,
)
from rawsse.client.page import AsyncPage, ModelInfo, Pages
from rawsse.client.ratelimits import RateLimit, RateLimits
from rawsse.client.raw import RawResponse
from rawsse.client.request import ANTHROPIC_VERSION
from rawsse.client.retry import RetryPolicy
from rawsse.client.stream import MessageStream

__all__ = [
    "ANTHROPIC_VERSION",
    "NOT_GIVEN",
    "AsyncClient",
    "AsyncPage",
    "EventStream",
    "FakeStream",
    "MessageStream",
    "ModelInfo",
    "Origin",
    "Pages",
    "PoolLimits",
    "Proxies",
    "Proxy",
    "RateLimit",
    "RateLimits",
    "RawResponse",
    "RetryPolicy",
    "Route",
    "Stream",
    "TLSContext",
    "Timeouts",
    "Timing",
]
