"""A pool over links whose peers the test plays, on a network without loop, thread or socket: all is function calls.

    network = StillNetwork()
    pool = network.pool(PoolLimits(max_connections=1))
    lease = acquire(pool, A)
    lease.give_back(exchanged())
    network.links[0].close()            # its peer closes
    network.time += 30                  # no timer runs; with `network.wait_until(…)` those run that are due

Time passes when something is waited for: then it jumps from timer to timer (`network.call_at`), up to the deadline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rawsse.client.network.connect import OnStart
from rawsse.client.network.link import Calls, Link, drive
from rawsse.client.network.pool import Lease, Pool, PoolLimits, Pools
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import TLSContext
from rawsse.http1 import ClientConnection
from rawsse.replay.fakes import FakeStream

__all__ = ["LAST_CHUNK", "A", "B", "Peer", "StillNetwork", "acquire", "counts", "exchanged"]

A = Route(Origin("http", "a.example", 80))
B = Route(Origin("http", "b.example", 80))

LAST_CHUNK = b"0\r\n\r\n"


class Peer(FakeStream):
    """A connected link whose peer says nothing until the test makes it. `failure` is what connecting raises."""

    def __init__(self) -> None:
        super().__init__(end=None)
        self.took: tuple[Route, TLSContext] | None = None
        self.failure: Exception | None = None

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        del deadline
        self.took = route, tls
        self.read_ready()  # raises if the link is aborted
        if self.failure is not None:
            raise self.failure
        return self

    def send(self, data: bytes) -> None:
        self._chunks.append(data)
        self._change()

    def close(self) -> None:
        self._last = b""
        self._change()

    def reset(self) -> None:
        self._last = ConnectionResetError("reset by peer")
        self._change()


class StillNetwork:
    """A `Network` whose time stands still but for waits. `links` are those that it made."""

    runs_coroutines = False

    @staticmethod
    def owner() -> str:
        return "here"

    def __init__(self) -> None:
        self.time = 1000.0
        self.now: Callable[[], float] = lambda: self.time
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.links: list[Peer] = []

    def link(self) -> Peer:
        self.links.append(Peer())
        self.links[-1].enter(self)
        return self.links[-1]

    def signal(self) -> StillSignal:
        return StillSignal(self)

    def post(self, callback: Callable[[], object]) -> None:
        callback()

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        timer = (when, callback)
        self.timers.append(timer)
        return lambda: self.timers.remove(timer) if timer in self.timers else None

    async def run(self, calls: Calls, on_start: OnStart | None = None, deadline: float = math.inf) -> list[Any]:
        del on_start, deadline  # each runs in the caller's thread: nothing can stop it
        return [call() for call in calls]

    def wait_until(self, until: float, is_over: Callable[[], bool] = bool) -> None:
        """Let time pass, and the timers run that are due."""
        while not is_over():
            due = [timer for timer in self.timers if timer[0] <= until]
            if not due:
                assert until < math.inf, "nothing would ever come"
                self.time = max(self.time, until)
                return
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.time = max(self.time, timer[0])
            timer[1]()

    def pool(self, limits: PoolLimits | None = None, **options: Any) -> Pool:
        return Pool(self, TLSContext(), limits or PoolLimits(), **options)

    def alive(self) -> int:
        """How many of the links are not aborted."""
        return sum(not link.is_aborted for link in self.links)


class StillSignal:
    """A signal of a `StillNetwork`."""

    def __init__(self, network: StillNetwork) -> None:
        self._network = network
        self.is_set = False

    def set(self) -> None:
        self.is_set = True

    async def wait(self, deadline: float) -> bool:
        self._network.wait_until(deadline, lambda: self.is_set)
        return self.is_set


def acquire(pool: Pool, route: Route = A, *, fresh: bool = False) -> Lease:
    """A lease with its connection, at once."""
    lease = pool.acquire(route, fresh=fresh)
    assert lease.is_granted
    drive(lease.connect(math.inf))
    return lease


def counts(pools: Pools) -> tuple[int, int, int]:
    """Of all event loops: connections that are open, those of them at rest, and calls that wait for one."""
    found = [(one.open_connections, len(one.idle), len(one.queue)) for one in pools._pools.values()]
    opened, idle, waiting = (sum(column) for column in zip(*found, strict=True)) if found else (0, 0, 0)
    return opened, idle, waiting


def exchanged(end: bytes = LAST_CHUNK) -> ClientConnection:
    """A whole exchange; `end` is what has come of the end of its chunked body."""
    http = ClientConnection("a.example")
    http.send_request("POST", "/", [], b"{}")
    http.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + end)
    while http.next_event() is not None:
        pass
    return http
