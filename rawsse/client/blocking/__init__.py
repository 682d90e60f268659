"""`Client`: the calls of `AsyncClient` for code without async, with the same names, arguments and errors.

    with Client() as client:                                    # the key from ANTHROPIC_API_KEY
        with client.messages.stream(model=…, max_tokens=…, messages=[…]) as stream:
            for text in stream.text_stream: ...

There is no thread and no event loop: the async client runs on a network of blocking sockets, in the caller's thread
(`network.py`). So it works in threads, alongside a running event loop (in a notebook), in `atexit`, and in a forked child,
which opens new connections. Ctrl-C ends the interrupted call and its connection.

Any number of threads may use one client. A stream may be used by one thread at a time, but any thread may close it. The tools
of an answer run concurrently, each in a thread; a single one runs in the caller's thread, unless the loop has `max_seconds`.
Async functions cannot be tools.

Inside `asyncio.run`, asyncio handles the first Ctrl-C, and the second one interrupts the call.

Read in this order:

    network.py   the network: blocking sockets
    facade.py    makes a blocking class from an async one
"""

from rawsse.client.blocking.facade import Facade
from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.client import AsyncClient
from rawsse.client.resources import AsyncBeta, AsyncMessages, AsyncModels, AsyncPage, RawResponse, WithRawResponse
from rawsse.client.stream import EventStream, MessageStream
from rawsse.client.tools.conversation import Conversation, Reply
from rawsse.client.tools.runner import ToolRunner

__all__ = [
    "BlockingConversation",
    "BlockingEventStream",
    "BlockingMessageStream",
    "BlockingRawResponse",
    "BlockingReply",
    "BlockingToolRunner",
    "Client",
    "Page",
]


class BlockingEventStream(Facade, of=EventStream): ...


class BlockingMessageStream(Facade, of=MessageStream): ...


class BlockingToolRunner(Facade, of=ToolRunner): ...


class BlockingReply(Facade, of=Reply): ...


class BlockingConversation(Facade, of=Conversation): ...


class BlockingRawResponse(Facade, of=RawResponse): ...


class BlockingWithRawResponse(Facade, of=WithRawResponse): ...


class Page(Facade, of=AsyncPage): ...


class Messages(Facade, of=AsyncMessages): ...


class Models(Facade, of=AsyncModels): ...


class Beta(Facade, of=AsyncBeta): ...


class _Core(AsyncClient):
    """The async client on blocking sockets."""

    _network = SocketNetwork


class Client(Facade, of=AsyncClient, made_by=_Core):
    """Any number of threads may use it. After a fork, the child opens new connections."""
