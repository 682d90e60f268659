"""Talking to the API.

Read in this order:

    clocks.py    the five clocks; waiting with a deadline
    route.py     origins, proxies, and the way to an origin
    tls.py       which certificates are trusted, and what is wrong with one that is not
    tunnel.py    what is said to a proxy that is to lead to an https origin
    nested.py    TLS within TLS, for an https proxy
    net.py       TCP and TLS: a Stream; and FakeStream, made of byte chunks
    pool.py      which connection may carry the next request
    exchange.py  one request and its response, with its clocks
    retry.py     which failure may be tried again, and when
    call.py      a request, tried until an answer begins
    ratelimits.py  how much may still be asked, as the header fields say
    docstring.py what a docstring says of a function and its parameters
    hints.py     what a type annotation stands for
    schema.py    Python types -> JSON Schema, JSON values -> Python values
    parse.py     a type as the format of an answer; its text as a value of that type
    stream.py    the answer as it comes: events, text, the message so far, the one ending
    raw.py       an answer with the response that it came in
    page.py      lists that come in pages
    signature.py a function's signature -> the JSON Schema of its input
    tools.py     Python functions as tools, and their results
    calls.py     which tool calls of an answer may be run
    tally.py     what several answers cost together
    turn.py      one answer with its tool calls, and their tasks
    runner.py    the tool loop
    conversation.py  questions and answers in turn: the history, whatever becomes of an answer
    request.py   from arguments to a request
    resources.py the calls: `client.messages`, `client.models`
    client.py    keys, options, connections: AsyncClient
    portal.py    an event loop in a thread, and calls into it that Ctrl-C ends
    blocking_stream.py  the answer as it comes, for code without async
    access.py    from a blocking client to its async one
    blocking_results.py  pages and raw responses, for code without async
    blocking_runner.py  the tool loop, for code without async
    blocking.py  Client: the same calls for code without async
"""

from rawsse.client.blocking import Client
from rawsse.client.blocking_results import BlockingRawResponse, Page
from rawsse.client.blocking_runner import BlockingToolRunner
from rawsse.client.blocking_stream import BlockingEventStream, BlockingMessageStream
from rawsse.client.client import AsyncClient
from rawsse.client.clocks import Timeouts
from rawsse.client.conversation import CUT_NOTE, Conversation, ConversationTurn, Reply
from rawsse.client.exchange import Timing
from rawsse.client.net import FakeStream, Stream
from rawsse.client.page import AsyncPage, ModelInfo, Pages
from rawsse.client.pool import PoolLimits
from rawsse.client.ratelimits import RateLimit, RateLimits
from rawsse.client.raw import RawResponse
from rawsse.client.request import ANTHROPIC_VERSION
from rawsse.client.retry import RetryPolicy
from rawsse.client.route import Origin, Proxies, Proxy, Route
from rawsse.client.runner import ToolRunner
from rawsse.client.stream import EventStream, MessageStream
from rawsse.client.tally import TotalUsage
from rawsse.client.tls import TLSContext
from rawsse.client.tools import Tool, ToolError, beta_async_tool, beta_tool, tool

__all__ = [
    "ANTHROPIC_VERSION",
    "CUT_NOTE",
    "AsyncClient",
    "AsyncPage",
    "BlockingEventStream",
    "BlockingMessageStream",
    "BlockingRawResponse",
    "BlockingToolRunner",
    "Client",
    "Conversation",
    "ConversationTurn",
    "EventStream",
    "FakeStream",
    "MessageStream",
    "ModelInfo",
    "Origin",
    "Page",
    "Pages",
    "PoolLimits",
    "Proxies",
    "Proxy",
    "RateLimit",
    "RateLimits",
    "RawResponse",
    "Reply",
    "RetryPolicy",
    "Route",
    "Stream",
    "TLSContext",
    "Timeouts",
    "Timing",
    "Tool",
    "ToolError",
    "ToolRunner",
    "TotalUsage",
    "beta_async_tool",
    "beta_tool",
    "tool",
]
