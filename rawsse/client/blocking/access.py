"""From a blocking client to its async one.

This file knows that there is one async client and one portal in each process, and how `with_options` shares them. It refuses to
know the calls.

    access = Access(Engine(lambda: AsyncClient(…)))
    stream = access.message_stream(lambda client: client.messages.stream(…))     # made ready in the caller's thread
    count = access.run(lambda: access.client().messages.count_tokens(…))         # run in the loop
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rawsse.client.blocking.portal import Portal
from rawsse.client.blocking.stream import BlockingEventStream, BlockingMessageStream, without_waiting
from rawsse.client.client import AsyncClient
from rawsse.client.events import EventStream
from rawsse.client.stream import MessageStream

__all__ = ["Access", "Engine"]

T = TypeVar("T")


class Engine:
    """The async client and its portal, both made anew in a forked child. A client shares it with those of `with_options`."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._client = make()  # here, so that wrong arguments are told where they stand
        self._portal: Portal | None = None
        self._pid = os.getpid()
        self._inherited: list[object] = []  # not even to be freed in a child: that would touch what the parent uses
        self.is_closed = False
        # Held while a call is made ready, which changes what the client knows of its calls.
        self.lock = threading.RLock()

    @property
    def client(self) -> AsyncClient:
        """The async client of this process."""
        if self._pid != os.getpid():
            self._inherited += [self._client, self._portal]
            self.lock = threading.RLock()  # another thread, which is not here, may have held the parent's
            self._portal, self._pid, self._client = None, os.getpid(), self._make()
        return self._client

    def portal(self) -> Portal:
        """The portal of this process; the thread begins when it is first asked for. Raises `RuntimeError` if it is closed."""
        client = self.client
        with self.lock:
            if self._portal is None:
                self.check()
                try:
                    self._portal = Portal(client.aclose)
                except BaseException:  # Ctrl-C: the thread that had begun ends by itself, and closes its async client
                    self._portal, self._client = None, self._make()
                    raise
            return self._portal

    def check(self) -> None:
        """Raises `RuntimeError` if the client is closed."""
        if self.is_closed:
            raise RuntimeError("the client is closed")

    def close(self) -> None:
        """End all calls, and the thread."""
        client = self.client
        with self.lock:
            self.is_closed = True
            portal = self._portal
        if portal is None:
            without_waiting(client.aclose())
        else:
            portal.close()


class Access:
    """What the calls of one client need: its async client, and a way to run what that makes."""

    def __init__(self, engine: Engine, change: Callable[[AsyncClient], AsyncClient] = lambda client: client) -> None:
        self.engine = engine
        self._change = change
        self._base = engine.client
        self._client = change(self._base)

    def client(self) -> AsyncClient:
        """The async client with the options of this one, in this process."""
        base = self.engine.client
        if base is not self._base:
            self._base, self._client = base, self._change(base)
        return self._client

    def with_options(self, change: Callable[[AsyncClient], AsyncClient]) -> Access:
        """The same with other options."""
        return Access(self.engine, lambda client: change(self._change(client)))

    def prepare(self, make: Callable[[AsyncClient], T]) -> T:
        """What `make` makes of the async client without waiting: a stream, a list. Here, so that its errors are raised here."""
        client = self.client()
        with self.engine.lock:
            self.engine.check()
            return make(client)

    def run(self, make: Callable[[], Awaitable[T]]) -> T:
        """The result of what `make` makes, in the loop."""
        self.engine.check()
        return self.engine.portal().call(make)

    def message_stream(self, make: Callable[[AsyncClient], MessageStream]) -> BlockingMessageStream:
        """The blocking form of a stream."""
        return BlockingMessageStream(self.engine.portal, self.prepare(make))

    def event_stream(self, make: Callable[[AsyncClient], EventStream]) -> BlockingEventStream:
        """The blocking form of a stream of events."""
        return BlockingEventStream(self.engine.portal, self.prepare(make))
