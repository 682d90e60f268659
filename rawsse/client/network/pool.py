"""Which connection may carry the next request. Idle ones are reused, and there are never more than `max_connections`.

    pool = Pool(network, TLSContext(), PoolLimits(max_connections=10))
    lease = pool.acquire(route)                    # a slot in the pool, or in its queue
    if await lease.granted.wait(deadline):
        link = await lease.connect(deadline)       # ready for one exchange
    lease.give_back(http)                          # the exchange is over: keep the connection if it can carry another
    lease.drop()                                   # or: abort it; at any time, any number of times
    pool.close()

A dead connection can cost a request its answer, since a POST cannot always be repeated. So an idle connection is checked
before reuse, and is not reused when the peer is likely to close it soon.

The end of a chunked body may arrive a few milliseconds after the event that ended the answer, in a separate packet. So an
idle connection keeps its `ClientConnection`, which reads the late bytes; the next request waits for them briefly
(`late_end_seconds`) before it opens a new connection.

A slot is held by its `Lease`, not by a counter: if an interrupted caller loses the lease, the slot is free again. The pool
never waits while it holds the lock, and any thread may call a pool whose network allows it.

A connection belongs to the event loop that made it. So a client has `Pools`: one pool per event loop or, in blocking
code, per process. The limits apply to each pool.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from rawsse.client.network.connect import Connector, Network
from rawsse.client.network.link import Aborted, Expired, Link
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from rawsse.client.retry import check_number, check_seconds
from rawsse.errors import APIError, StreamCancelledError
from rawsse.http1 import ClientConnection

MAX_LEFTOVER_BYTES = 64 * 1024
"""The most bytes of an answer that may arrive after its reader has stopped: the end of a chunked body, normally 5 bytes."""

Connect = Callable[[Network], Connector]
"""Makes a link that is not connected yet, in place of the network."""

DEAD = (OSError, APIError, Aborted)
"""The errors that end the use of a connection: from the network, from HTTP, from this side."""


class PoolLimits(NamedTuple):
    """How many connections the pool may open, and how long it keeps them. None turns `idle_seconds` or `max_age_seconds` off.

    `max_connections`: connections open or being opened; further requests queue. The default is the SDK's, below the usual limit
    of 1024 descriptors per process. `max_idle`: idle connections to keep; 0 keeps none. `idle_seconds`: a connection that has
    been idle for this long is not reused, and is closed when the next call begins or ends; half of the 60 s after which common
    load balancers drop one, some without notice. `max_age_seconds`: nor is an older connection, so that DNS changes are
    followed. `late_end_seconds`: how long a request waits for a connection whose last answer lacks only the end of its body; a
    new one costs several round trips. 0 does not wait.
    """

    max_connections: int = 1000
    max_idle: int = 100
    idle_seconds: float | None = 30.0
    max_age_seconds: float | None = 600.0
    late_end_seconds: float = 0.01

    def check(self) -> None:
        """Raises `ConfigurationError` for a value that is not a number, or too small."""
        check_number(self.max_idle, "pool limits: max_idle must be a whole number, 0 or more", kind=int)
        rule = "pool limits: max_connections must be a whole number, 1 or more"
        check_number(self.max_connections, rule, least=1, kind=int)
        check_seconds("pool limits", idle_seconds=self.idle_seconds, max_age_seconds=self.max_age_seconds)
        check_number(self.late_end_seconds, "pool limits: late_end_seconds must be a number of seconds of 0 or more")


class Connection:
    """A connection, in use or idle. While it is idle, `http` reads the end of its last exchange and detects violations."""

    def __init__(self, route: Route, link: Any, opened_at: float) -> None:
        self.route = route
        self.link = link  # a `Connector` until it is connected
        self.opened_at = opened_at

    def rest(self, http: ClientConnection, expires_at: float) -> None:
        """The connection becomes idle. `http` has read its last exchange, which may lack only its end."""
        self.http, self.expires_at, self._room = http, expires_at, MAX_LEFTOVER_BYTES

    def take(self, data: bytes) -> None:
        """Take bytes that arrived while the connection was idle. Raises one of `DEAD` if it cannot be reused.

        The reason may be that the peer closed it (RFC 9112, 9.5: "A client, server, or proxy MAY close the transport connection
        at any time"), or sent unsolicited bytes, which would be taken for the answer to the next request, or too many.
        """
        self.http.receive_data(data)
        while self.http.next_event() is not None:
            pass
        self._room -= len(data)
        if self._room < 0 or not self.http.is_nearly_reusable:
            raise ConnectionError

    def settle(self) -> None:
        """Take all bytes that have arrived, without waiting."""
        while (data := self.link.read_ready()) is not None:
            self.take(data)


class Lease:
    """A slot in the pool for one exchange; before `granted`, a place in the queue. The holder must `give_back` or `drop` it.

    `is_reused`: its connection has carried another exchange.
    """

    def __init__(self, pool: Pool, route: Route, *, fresh: bool) -> None:
        self.route = route
        self.fresh = fresh
        self.granted = pool.network.signal()
        self.is_granted = False
        self.is_reused = False
        self._pool = pool
        self.connection: Connection | None = None
        self._is_dropped = False

    async def connect(self, deadline: float) -> Link:
        """The connection, ready for an exchange. Raises the errors of `Connector.connect`, and `StreamCancelledError` if the
        pool was closed while the lease was queued."""
        if not self.is_granted:
            raise StreamCancelledError("the client was closed while a call waited for a connection")
        pool, connection = self._pool, self.connection
        if connection is None or not await self._is_ready(connection, deadline):
            self.is_reused = False
            self.connection = connection = Connection(self.route, pool.new_link(), pool.network.now())
            if self._is_dropped:  # perhaps by another thread just now
                connection.link.abort()
                raise Aborted
            connection.link = await connection.link.connect(self.route, pool.tls, deadline)
        link: Link = connection.link
        return link

    async def _is_ready(self, idle: Connection, deadline: float) -> bool:
        """Check the connection once more, and wait for the end of the last answer if only that is missing."""
        until = min(deadline, self._pool.network.now() + self._pool.limits.late_end_seconds)
        try:
            idle.settle()
            while not idle.http.is_reusable:
                idle.take(await idle.link.read(until))
        except (Expired, *DEAD):
            idle.link.abort()
            return False
        return True

    def give_back(self, http: ClientConnection | None) -> None:
        """End the exchange, whose answer may lack only its end, and keep the connection if it can carry another.

        None: it cannot.
        """
        connection, limits = self.connection, self._pool.limits
        if connection is None or http is None or not http.is_nearly_reusable:
            self.drop()
            return
        idle_until = self._pool.network.now() + (limits.idle_seconds or math.inf)
        old_at = connection.opened_at + (limits.max_age_seconds or math.inf)
        connection.rest(http, min(idle_until, old_at))
        self._pool.remove(weakref.ref(self), self, keeps=True)

    def drop(self) -> None:
        """Abort the connection and free the slot at once. From any task; from any thread if the network allows it."""
        self._is_dropped = True
        self._pool.remove(weakref.ref(self), self)
        self.granted.set()

    def abort(self) -> None:
        """Abort the connection, if it has not been given back."""
        if self.connection is not None:
            self.connection.link.abort()

    def __del__(
        self,
    ) -> None:  # an interrupted caller lost it: the event loop holds the connection, and would keep it open
        connection = getattr(self, "connection", None)  # None if `__init__` failed
        if connection is not None and not self._is_dropped and self._pool._pid == os.getpid():
            self._pool.network.post(connection.link.abort)


class Pool:
    """The connections of one client on one network. `connect` makes links in place of the network."""

    def __init__(
        self, network: Network, tls: TLSContext, limits: PoolLimits | None = None, connect: Connect | None = None
    ) -> None:
        self.network = network
        self.tls = tls
        self.limits = limits or PoolLimits()
        self.new_link = network.link if connect is None else partial(connect, network)
        self.is_closed = False
        # Reentrant: the garbage collector may drop a lease in the middle of a call, in the same thread.
        self._lock = threading.RLock()
        self._owner = network.owner()
        self._pid = os.getpid()
        self.idle: dict[Connection, None] = {}
        """Idle connections, longest idle first."""
        # Weak references: a lease that an interrupted caller lost is removed.
        self._leases: set[weakref.ref[Lease]] = set()
        self.queue: dict[weakref.ref[Lease], None] = {}
        """Calls that wait for a free connection, in order."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it belongs to an event loop other than the running one."""
        return self.network.runs_coroutines and self._owner is not self.network.owner()

    @property
    def open_connections(self) -> int:
        """The number of connections that are idle, in use, or being opened."""
        return len(self.idle) + len(self._leases)

    def acquire(self, route: Route, *, fresh: bool = False) -> Lease:
        """A slot for an exchange over `route`: granted at once, or queued. `fresh` demands a new connection. Raises
        `RuntimeError` after `close`."""
        with self._lock:
            if self.is_closed:
                raise RuntimeError("the client is closed")
            lease = Lease(self, route, fresh=fresh)
            self.queue[weakref.ref(lease, self.remove)] = None
            self._serve()
            return lease

    def close(self) -> None:
        """Abort all connections, including those in use, and wake the queued calls."""
        with self._lock:
            self.is_closed = True
            leases = [*self.queue, *self._leases]
            self.queue.clear()
            self._serve()
            for reference in leases:
                if (lease := reference()) is not None:
                    lease.drop()

    def remove(self, reference: weakref.ref[Lease], lease: Lease | None = None, *, keeps: bool = False) -> None:
        """End a lease; `lease` is None if an interrupted caller lost it. Its connection is aborted or, with `keeps`, stays idle
        if there is room."""
        if self._pid != os.getpid():  # in a forked child the lock may be held forever by a thread of the parent
            if lease is not None:
                lease.abort()
            return
        with self._lock:
            self.queue.pop(reference, None)
            if lease is not None and not keeps:
                lease.abort()
            if reference in self._leases:
                self._leases.discard(reference)
                if lease is not None and keeps and lease.connection is not None:
                    self.idle[lease.connection] = None
                    lease.connection = None  # a later `drop` must not abort it: it may belong to another lease
                self._serve()

    # Decisions, made under the lock --------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Drop the idle connections that have expired or are too many; serve the queue while connections are free.

        A signal handler may close the pool at any step, so each loop runs over a copy.
        """
        now = self.network.now()
        for idle in [each for each in list(self.idle) if each.expires_at <= now]:
            self._abort(idle)
        most = 0 if self.is_closed else self.limits.max_idle
        for idle in list(self.idle)[: max(0, len(self.idle) - most)]:
            self._abort(idle)
        for reference in list(self.queue):
            lease = reference()
            if lease is not None and not self._grant(lease, reference):
                break
            self.queue.pop(reference, None)

    def _grant(self, lease: Lease, reference: weakref.ref[Lease]) -> bool:
        """Grant the lease an idle connection or the place for a new one. False if it must wait.

        The newest idle connection is used: it is the least likely to be closed, and the others may expire. If none is ready,
        one that lacks the end of its last answer is used. To make room for a new connection, the oldest idle one is dropped.
        """
        idle = None if lease.fresh else self._best(lease.route)
        if idle is not None:
            self.idle.pop(idle, None)
        elif self.open_connections >= self.limits.max_connections:
            if not (rested := list(self.idle)):
                return False
            self._abort(rested[0])
        self._leases.add(reference)
        lease.connection, lease.is_granted, lease.is_reused = idle, True, idle is not None
        lease.granted.set()
        return True

    def _best(self, route: Route) -> Connection | None:
        nearly: Connection | None = None
        for idle in reversed(list(self.idle)):
            if idle.route != route:
                continue
            try:
                idle.settle()
            except DEAD:
                self._abort(idle)
                continue
            if idle.http.is_reusable:
                return idle
            nearly = nearly or idle
        return nearly if self.limits.late_end_seconds else None

    def _abort(self, idle: Connection) -> None:
        self.idle.pop(idle, None)
        idle.link.abort()


class Pools:
    """The pools of one client, keyed by the owner of their network: the running event loop, or the process.

    After a fork the child makes its own pool and connections; inherited ones belong to the parent.
    """

    def __init__(self, new_pool: Callable[[Network], Pool], new_network: type[Network]) -> None:
        self.is_closed = False
        self._new_pool = new_pool
        self._new_network = new_network
        self._pools: dict[Any, Pool] = {}

    def here(self) -> Pool:
        """The pool of the current event loop or process. Raises `RuntimeError` after `close`."""
        owner = self._new_network.owner()
        if (pool := self._pools.get(owner)) is None:
            for loop in [each for each in self._pools.copy() if not isinstance(each, int) and each.is_closed()]:
                if (closed := self._pools.pop(loop, None)) is not None:
                    closed.close()
            pool = self._pools.setdefault(owner, self._new_pool(self._new_network()))  # another thread may be first
        if self.is_closed:  # checked last: another thread that closes may miss a pool that is being made
            pool.close()
            raise RuntimeError("the client is closed")
        return pool

    def close(self) -> None:
        """Drop all connections, including those in use; after a fork only those of this process."""
        self.is_closed = True
        for key, pool in self._pools.copy().items():  # other threads may add some
            if key == os.getpid() or not isinstance(key, int):
                pool.network.post(pool.close)
