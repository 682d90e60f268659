"""Nodes of one cluster in one event loop, in virtual time. Each reaches the store through a gate that a test can shut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from rawsse.client.stream import EventStream
from rawsse.relay.dialects import Asked, Dialect, Failure, TextDialect
from rawsse.relay.node import Node
from rawsse.relay.push import EventPush, UnfoldedAnswer
from rawsse.relay.quotas import Quotas
from rawsse.relay.record import Observer, RunRecord
from rawsse.relay.store import MemoryStore, Store, StoreUnavailableError
from rawsse.relay.stored_runs import OwnedRun
from rawsse.relay.users import User

from .outlets import REQUEST, House, join
from .stage import Api

__all__ = ["Gate", "Host", "cluster", "join", "until"]

LEASE = 3.0
BLOCK = 5.0


class Gate:
    """A store as one node reaches it. Shut, its calls wait (a process that was stopped, a connection that hangs); `is_down`:
    they fail. `answers_are_lost`: what was asked is done, and then the call fails."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lease_seconds, self.block_seconds = store.lease_seconds, store.block_seconds
        self.is_down = False
        self.answers_are_lost = False
        self.opened = asyncio.Event()
        self.opened.set()

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **named: Any) -> Any:
            await self.opened.wait()
            if self.is_down:
                raise StoreUnavailableError("down")
            answer = await getattr(self._store, name)(*args, **named)
            await self.opened.wait()
            if self.answers_are_lost or self.is_down:
                raise StoreUnavailableError("the answer was lost")
            return answer

        return call


class Kept(Observer):
    """Keeps the records."""

    def __init__(self) -> None:
        self.records: list[RunRecord] = []

    def ended(self, record: RunRecord) -> None:
        self.records.append(record)


class Host(House):
    """A node and its runs."""

    def __init__(self, store: Store, *script: bytes, **limits: Any) -> None:
        super().__init__(*script, **limits)
        self.gate = Gate(store)
        self.node = Node(self.runs, Quotas(), self.gate)
        self.kept = Kept()
        self.runs._observers = [*self.runs._observers, self.kept]
        self.runs.clock = asyncio.get_running_loop().time

    async def own(self, id: str = "run-1", dialect: Dialect | None = None) -> OwnedRun:
        """Begin a run of this node."""

        def open_stream() -> EventStream:
            return self.client.messages.events(REQUEST, kind=UnfoldedAnswer)

        source = partial(EventPush, open_stream)
        asked = Asked(dialect or TextDialect(), {"model": "x"}, id=id)
        run, _ = await self.node.begin(asked, source, User("ada"))
        assert isinstance(run, OwnedRun)
        return run

    async def speaking(self, id: str = "run-1") -> tuple[OwnedRun, Api]:
        """A run whose call to the API has come."""
        run = await self.own(id)
        return run, await self.call()

    async def kill(self) -> None:
        """As `kill -9`: nothing is said to the store or to anyone."""
        self.gate.is_down = True
        self.gate.opened.set()
        tasks, self.node._tasks = self.node._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for run in list(self.node._owned):
            run._is_lost = True
            self.node.forget(run)
        await self.runs.aclose(Failure(503, "shutdown", "killed"))


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Let virtual time pass until it is so."""
    while not await is_so():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.01)


@asynccontextmanager
async def cluster(count: int = 2, *script: bytes, **limits: Any) -> AsyncIterator[list[Host]]:
    store = MemoryStore(asyncio.get_running_loop().time, lease_seconds=LEASE, block_seconds=BLOCK)
    hosts = [Host(store, *script, **limits) for _ in range(count)]
    for host in hosts:
        await host.node.start()
    try:
        yield hosts
    finally:
        for host in hosts:
            host.gate.opened.set()
            host.gate.is_down = host.gate.answers_are_lost = False
            await host.node.aclose(Failure(503, "shutdown", "bye", retry=2000))
