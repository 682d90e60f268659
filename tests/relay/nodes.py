"""Nodes of one cluster in one event loop, in virtual time. Each reaches the store through a gate that a test can shut."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from relay.outlets import REQUEST, House, join
from relay.stage import Api

from rawsse.client.stream import EventStream
from rawsse.relay.dialects import Dialect, Failure, TextDialect
from rawsse.relay.node import Node, OwnedRun
from rawsse.relay.push import UnfoldedAnswer, pushed
from rawsse.relay.record import Observer, RunRecord
from rawsse.relay.runs import Run
from rawsse.relay.store import Limits, MemoryStore, Store, StoredRun, StoreUnavailableError

__all__ = ["Gate", "Host", "cluster", "join"]

LEASE = 3.0
BLOCK = 5.0


class Gate:
    """A store as one node reaches it. Shut, its calls wait (a process that was stopped, a connection that hangs); `is_down`:
    they fail. `answers_are_lost`: what was asked is done, and then the call fails."""

    def __init__(self, store: Store) -> None:
        self._store = store
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
        self.node = Node(self.gate, lease_seconds=LEASE, block_seconds=BLOCK)
        self.kept = Kept()
        self.runs._observers = [*self.runs._observers, self.kept]

    async def own(self, id: str = "run-1", dialect: Dialect | None = None, alias: str = "") -> Run:
        """Begin a run of this node."""
        dialect = dialect or TextDialect()
        now = asyncio.get_running_loop().time()
        stored = StoredRun("ada", id, secrets.token_hex(4), dialect.name, "claude-x", now, alias, owner=self.node.id)
        acquired = await self.node.acquire(stored, [Limits("")])
        assert acquired.known is None

        def open_stream() -> EventStream:
            return self.client.messages.events(REQUEST, kind=UnfoldedAnswer)

        kind = partial(OwnedRun, node=self.node, stored=stored)
        names: dict[str, Any] = {"user": "ada", "model": "claude-x", "id": id, "time": now, "kind": kind}
        return self.runs.begin(dialect, pushed(open_stream), **names)

    async def speaking(self, id: str = "run-1") -> tuple[Run, Api]:
        """A run whose call to the API has come."""
        run = await self.own(id)
        return run, await self.call()

    async def kill(self) -> None:
        """As `kill -9`: nothing is said to the store or to anyone."""
        self.gate.is_down = True
        self.gate.opened.set()
        tasks, self.node._tasks = self.node._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for run in list(self.node._owned):
            run._is_lost = True
            self.node.forget(run)
        await self.runs.aclose(Failure(503, "shutdown", "killed"))


@asynccontextmanager
async def cluster(count: int = 2, *script: bytes, **limits: Any) -> AsyncIterator[list[Host]]:
    store = MemoryStore(asyncio.get_running_loop().time)
    hosts = [Host(store, *script, **limits) for _ in range(count)]
    for host in hosts:
        await host.node.start(host.runs)
    try:
        yield hosts
    finally:
        for host in hosts:
            host.gate.opened.set()
            host.gate.is_down = host.gate.answers_are_lost = False
            await host.runs.aclose(Failure(503, "shutdown", "bye", retry=2000), host.node.aclose)
