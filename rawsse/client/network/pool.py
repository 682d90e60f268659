"""Which connection may carry the next request: kept ones are used again, and there are never more than so many.

This file knows connections and routes: who has one, how old it is, what came on it while nobody listened, and who waits for
one. It refuses to know requests, retries, and what is said over a connection.

    pool = Pool(connect, TLSContext(), PoolLimits(max_connections=10))
    connection = await pool.acquire(route)
    ...                                   # connection.stream, connection.http: one exchange
    connection.release()                  # it is over: whoever comes next may have the connection
    connection.drop()                     # or: it is of no use any more
    pool.close()

A connection that a request wants and that turns out dead costs that request its answer: a POST cannot always be sent again.
So what rested is looked at in the very tick in which it is handed out, and is dropped before the peer is likely to do so.

All is decided at once, in plain functions (`choose`, `surplus`, …), and then done; only the wait for a turn, and for the
network, take time. Nothing is counted up and down: what there is, is in one of three sets, and no cancelled call loses a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from rawsse.client.network.clocks import Interrupted, Waiter
from rawsse.client.network.net import Connect, Stream, TLSContext
from rawsse.client.network.route import Route
from rawsse.errors import APIError, ConfigurationError, StreamCancelledError
from rawsse.http1 import MAX_HEAD_BYTES, ClientConnection

__all__ = [
    "MAX_LEFTOVER_BYTES",
    "Choice",
    "Connection",
    "Pool",
    "PoolLimits",
    "choose",
    "expires_at",
    "has_expired",
    "surplus",
]

MAX_LEFTOVER_BYTES = 64 * 1024
"""How much of an answer may still come after its reader had enough. It is the end of a chunked body: 5 bytes, as a rule."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections there may be, and how long one is kept. None turns `idle_seconds` or `max_age_seconds` off.

    `max_connections`: open at a time, those being made included; who comes then waits in line. As many as the SDK has: below
    the 1024 descriptors that a process commonly may have. `max_idle`: kept without being in use; 0 keeps none.
    `idle_seconds`: so long one is kept. Half of the 60 s after which common load balancers drop it, some without a word.
    `max_age_seconds`: so long after it was made a connection is used for the last time, so that a change in DNS is followed.
    """

    max_connections: int = 1000
    max_idle: int = 100
    idle_seconds: float | None = 30.0
    max_age_seconds: float | None = 600.0

    def __post_init__(self) -> None:
        for name, least in (("max_connections", 1), ("max_idle", 0)):
            count = getattr(self, name)
            if not isinstance(count, int) or count < least:
                raise ConfigurationError(f"pool limits: {name} must be a whole number from {least} up, not {count!r}")
        for name in ("idle_seconds", "max_age_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ConfigurationError(
                    f"pool limits: {name} must be a number of seconds above 0, or None, not {seconds!r}"
                )


@dataclass(slots=True, eq=False)
class Connection:
    """A stream with the state of its HTTP, for one exchange. `is_reused`: it has carried another before.

    Whoever gets one must `release` or `drop` it. After that it is not theirs: both do nothing then, even when the same
    stream serves somebody else, who has a `Connection` of their own.
    """

    stream: Stream
    http: ClientConnection
    route: Route
    opened_at: float
    pool: Pool = field(repr=False)
    is_reused: bool = False
    idle_since: float = math.inf
    _leftover_bytes: int = field(default=0, init=False, repr=False)

    def release(self) -> None:
        """The exchange is over, or all of its answer that matters has been read: keep the connection if that can be done.

        Nobody may be reading from the stream any more. From any task, any number of times.
        """
        self.pool._release(self)

    def drop(self) -> None:
        """Abort the stream and make room for another, at once; from any task, any number of times."""
        self.pool._drop(self)

    @property
    def is_ready(self) -> bool:
        """Not a byte of the exchange before is missing, and none came that nobody had asked for."""
        return self.http.is_reusable

    def settle(self) -> bool:
        """Take what came while the connection rested. False if it is of no use any more.

        That is: the peer closed it (RFC 9112, 9.5: "A client, server, or proxy MAY close the transport connection at any
        time"); or sent what nobody had asked for, which would be taken for the answer to the next request; or too much.
        """
        try:
            while True:
                while self.http.next_event() is not None:
                    pass
                data = self.stream.read_nowait()
                if data is None:
                    return self.http.is_nearly_reusable
                self._leftover_bytes += len(data)
                if not data or self._leftover_bytes > self.pool.max_leftover_bytes:
                    return False
                self.http.receive_data(data)
        except (OSError, APIError):
            return False


# --- Decisions -----------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """What is to be done for a request.

    "reuse": it gets `connection`. "open": a new one is made, after `connection` (if there is one) was dropped to make room.
    "wait": until one is free.
    """

    do: Literal["reuse", "open", "wait"]
    connection: Connection | None = None


def choose(
    route: Route, idle: Sequence[Connection], open_connections: int, limits: PoolLimits, *, fresh: bool = False
) -> Choice:
    """Where the next connection for `route` comes from. `idle` are in the order in which they came to rest.

    The newest is taken: it is the least likely to be closed, and the others may expire. `fresh` insists on a new one.
    """
    ready = [connection for connection in idle if connection.route == route and connection.is_ready]
    if ready and not fresh:
        return Choice("reuse", ready[-1])
    if open_connections < limits.max_connections:
        return Choice("open")
    return Choice("open", idle[0]) if idle else Choice("wait")


def expires_at(connection: Connection, limits: PoolLimits) -> float:
    """Until when the connection may rest, in the loop's time; `math.inf` for ever."""
    idle = math.inf if limits.idle_seconds is None else limits.idle_seconds
    age = math.inf if limits.max_age_seconds is None else limits.max_age_seconds
    return min(connection.idle_since + idle, connection.opened_at + age)


def has_expired(connection: Connection, now: float, limits: PoolLimits) -> bool:
    """The connection has rested for too long, or is too old. At the very end of its time it has."""
    return now >= expires_at(connection, limits)


def surplus(idle: Sequence[Connection], limits: PoolLimits) -> Sequence[Connection]:
    """Those of `idle`, in the order in which they came to rest, that are more than may be kept: the first."""
    return idle[: max(0, len(idle) - limits.max_idle)]


# --- The pool ------------------------------------------------------------------------------------------------------

# What a request gets: a connection that is there, or leave to make one. The latter is what its making can be ended with.
_Grant = Connection | Waiter


@dataclass(slots=True, eq=False)
class _Place:
    """A place in the line. Its future gets the grant, or None if there will be none."""

    route: Route
    fresh: bool
    grant: asyncio.Future[_Grant | None]


class Pool:
    """The connections of one client. It makes them with `connect`, as they are asked for.

    It belongs to the event loop that first asks it for a connection (`pools.py` gives each loop one of its own). When that
    loop no longer runs, the next one that asks has it, and the connections of the first are forgotten.
    """

    def __init__(
        self,
        connect: Connect,
        tls: TLSContext,
        limits: PoolLimits = PoolLimits(),
        *,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_leftover_bytes: int = MAX_LEFTOVER_BYTES,
    ) -> None:
        self.limits = limits
        self.max_leftover_bytes = max_leftover_bytes
        self._connect = connect
        self._tls = tls
        self._max_head_bytes = max_head_bytes
        self._idle: list[Connection] = []  # the longest at rest first
        self._in_use: set[Connection] = set()
        self._being_made: set[Waiter] = set()
        self._line: deque[_Place] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None  # for the next of `_idle` to expire
        self.is_closed = False
        """`close` was called."""

    @property
    def open_connections(self) -> int:
        """At rest, in use, and being made."""
        return len(self._idle) + len(self._in_use) + len(self._being_made)

    @property
    def idle_connections(self) -> int:
        """At rest."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection to be free."""
        return len(self._line)

    @property
    def shortage(self) -> str | None:
        """Why a call that wants a connection now would have to wait, in words; None if it would not."""
        limit = self.limits.max_connections
        if self._idle or self.open_connections < limit:
            return None
        unfinished = f" or being made ({len(self._being_made)})" if self._being_made else ""
        return f"all {limit} connections (max_connections) are in use{unfinished}"

    def __repr__(self) -> str:
        counts = f"{self.open_connections} open, {self.idle_connections} idle, {self.waiting} waiting"
        return f"<Pool: {'closed' if self.is_closed else counts}>"

    async def acquire(
        self, route: Route, *, fresh: bool = False, note_line: Callable[[bool], None] = lambda _: None
    ) -> Connection:
        """A connection that took `route`, for one exchange. `fresh` insists on a new one. `note_line` is called with True when
        the call must stand in line, and with False when it is its turn: then the connection is made, if there is none.

        The caller sets the deadline. Raises what `connect` raises; `StreamCancelledError` if the pool is closed meanwhile;
        `RuntimeError` if it was closed before.
        """
        if self.is_closed:
            raise RuntimeError("the client is closed")
        if self._loop is not (loop := asyncio.get_running_loop()):
            if self._loop is not None and self._loop.is_running():
                raise RuntimeError("the pool belongs to another event loop, which still runs")
            self._forget()
            self._loop = loop
        grant = self._grant(route, fresh=fresh)
        if grant is None:
            note_line(True)
            grant = await self._stand_in_line(route, fresh=fresh)
            note_line(False)
        if isinstance(grant, Connection):
            grant = self._begin(grant)
        return grant if isinstance(grant, Connection) else await self._open(route, grant)

    def close(self) -> None:
        """Drop all connections, those in use too. Who waits for one gets `StreamCancelledError`."""
        self.is_closed = True
        self._forget()

    # Granting ------------------------------------------------------------------------------------------------------

    def _grant(self, route: Route, *, fresh: bool) -> _Grant | None:
        """What a request for `route` can have now, taken for it; None: it must wait."""
        self._remove_expired()
        self._settle(route)
        do, connection = choose(route, self._idle, self.open_connections, self.limits, fresh=fresh)
        grant: _Grant | None = None
        if do == "reuse" and connection is not None:
            self._idle.remove(connection)
            grant = replace(connection, is_reused=True)
            self._in_use.add(grant)
        elif do == "open":
            self._remove([connection] if connection else [])
            grant = Waiter()
            self._being_made.add(grant)
        self._set_timer()
        return grant

    def _settle(self, route: Route) -> None:
        """Look at those that rest, the newest first, until one is ready; drop the dead."""
        for connection in [one for one in reversed(self._idle) if one.route == route]:
            if not connection.settle():
                self._remove([connection])
            elif connection.is_ready:
                break

    async def _stand_in_line(self, route: Route, *, fresh: bool) -> _Grant:
        place = _Place(route, fresh, asyncio.get_running_loop().create_future())
        self._line.append(place)
        try:
            grant = await place.grant
        except BaseException:
            # Cancelled. It may have been its turn in this very tick: then it is the turn of the next.
            unwanted = place.grant.result() if place.grant.done() and not place.grant.cancelled() else None
            if unwanted is not None:
                self._give_back(unwanted)
            with contextlib.suppress(ValueError):  # it was this one's turn, or nobody's any more
                self._line.remove(place)
            raise
        if grant is None:
            raise _closed()
        return grant

    def _give_back(self, grant: _Grant) -> None:
        if isinstance(grant, Connection):
            self._release(grant)
        else:
            self._being_made.discard(grant)
            self._changed()

    def _serve(self) -> None:
        """Something may be free: give it to who stands first in line, and so on. Each gets one."""
        while self._line:
            place = self._line[0]
            if not place.grant.done():
                grant = self._grant(place.route, fresh=place.fresh)
                if grant is None:
                    break
                place.grant.set_result(grant)
            self._line.popleft()

    def _begin(self, connection: Connection) -> _Grant:
        """The connection, ready for an exchange; or, if it died between its grant and now, leave to make one in its place."""
        if connection not in self._in_use:
            raise _closed()
        if connection.settle() and connection.is_ready:
            connection.http.start_next_cycle()
            return connection
        self._in_use.remove(connection)
        _abort(connection.stream)
        attempt = Waiter()
        self._being_made.add(attempt)
        return attempt

    # Connecting ----------------------------------------------------------------------------------------------------

    async def _open(self, route: Route, attempt: Waiter) -> Connection:
        try:
            stream = await attempt.wait(lambda: self._connect_unless_closed(route, attempt), math.inf)
        except BaseException as exc:
            self._give_back(attempt)
            if isinstance(exc, Interrupted):
                raise _closed() from None
            raise
        http = ClientConnection(route.origin.host_field, max_head_bytes=self._max_head_bytes)
        connection = Connection(stream, http, route, self._now(), self)
        self._being_made.remove(attempt)
        self._in_use.add(connection)
        return connection

    async def _connect_unless_closed(self, route: Route, attempt: Waiter) -> Stream:
        stream = await self._connect(route, self._tls)
        if attempt not in self._being_made:  # closed in the very tick in which the connection came up
            _abort(stream)
            raise Interrupted
        return stream

    # Giving back ---------------------------------------------------------------------------------------------------

    def _release(self, connection: Connection) -> None:
        if connection not in self._in_use:
            return
        now = connection.idle_since = self._now()
        self._in_use.remove(connection)
        self._idle.append(connection)
        if not connection.http.is_nearly_reusable or has_expired(connection, now, self.limits):
            self._remove([connection])
        self._remove(surplus(self._idle, self.limits))
        self._changed()

    def _drop(self, connection: Connection) -> None:
        if connection in self._in_use:
            self._in_use.remove(connection)
            _abort(connection.stream)
            self._changed()

    def _remove(self, idle: Iterable[Connection]) -> None:
        for connection in list(idle):
            self._idle.remove(connection)
            _abort(connection.stream)

    def _remove_expired(self) -> None:
        now = self._now()
        self._remove(one for one in self._idle if has_expired(one, now, self.limits))

    def _changed(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._serve()
            self._set_timer()

    # Time ----------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        assert self._loop is not None  # noqa: S101 - nothing rests, and nobody waits, before `acquire`
        return self._loop.time()

    def _set_timer(self) -> None:
        """See to it that the next connection to expire does so, also if nobody asks for one any more."""
        at = min((expires_at(one, self.limits) for one in self._idle), default=math.inf)
        if self._timer is not None and (at == math.inf or at < self._timer.when()):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and at < math.inf and self._loop is not None:
            self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._remove_expired()
        self._set_timer()

    # Ending --------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Drop everything, and turn away everybody."""
        streams = [connection.stream for connection in (*self._idle, *self._in_use)]
        attempts = [*self._being_made]
        places = [place for place in self._line if not place.grant.done()]
        for held in (self._idle, self._in_use, self._being_made, self._line):
            held.clear()
        self._set_timer()
        for stream in streams:
            _abort(stream)
        with contextlib.suppress(RuntimeError):  # the loop of those who wait is closed: they wait no more
            for attempt in attempts:
                attempt.interrupt()
            for place in places:
                place.grant.set_result(None)


def _abort(stream: Stream) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed, and so it is dead already
        stream.abort()


def _closed() -> StreamCancelledError:
    return StreamCancelledError("the client was closed while a call waited for a connection")
