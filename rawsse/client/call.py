"""One call: a request, tried until an answer begins. It drives an exchange over a network, and waits for nothing else.

    call = Call(pools.here, CallSettings(request, route), Answer)
    await call.open()                 # an attempt, repeated as the policy says, until its exchange is open
    await call.more()                 # one read for `call.exchange`
    await call.open(error)            # the exchange failed: the next attempt; or raises `error`
    call.release()                    # the exchange is over: its connection is kept, or dropped
    call.close()                      # at any phase, from any task; from any thread where the network allows it

One retry costs nothing and is not counted: when a connection that had been used before turns out to be dead, and not a byte of
a response had come, the request is sent once more on a new one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from rawsse.client.exchange import CallSettings, Exchange, Timing
from rawsse.client.network.link import Aborted, Expired, Link, Signal
from rawsse.client.network.pool import Lease, Pool
from rawsse.client.retry import decide
from rawsse.errors import APIError, StreamCancelledError
from rawsse.http1 import Response

logger = logging.getLogger("rawsse.client")

T = TypeVar("T")
E_co = TypeVar("E_co", bound=Exchange, covariant=True)


class Call(Generic[E_co]):
    """A request, and its attempts. `exchange` is the attempt that goes on, or the last one."""

    def __init__(self, pool: Callable[[], Pool], settings: CallSettings, kind: type[E_co]) -> None:
        """`pool` gives the pool of the loop, or process, that runs the call; `kind` is the class of the exchange."""
        self.timing = Timing()
        self.retries_taken = 0
        self.is_closed = False
        self.response: Response | None = None
        """Of the last exchange that was open."""
        self.settings = settings
        self._get_pool = pool
        self._kind = kind
        self._pool: Pool | None = None
        self._lease: Lease | None = None
        self._link: Link | None = None
        self._signal: Signal | None = None  # of the wait for the next attempt
        self._thread: int | None = None  # the one that drives the exchange now
        self._waits = False  # it waits for the network
        self._renew()

    @property
    def is_mine(self) -> bool:
        """No other thread drives the exchange now, and this one is not in the midst of it: a signal handler may ask."""
        return self._thread is None or (self._waits and self._thread == threading.get_ident())

    async def open(self, error: APIError | None = None) -> E_co:
        """The open exchange of the first attempt that succeeds so far. `error`: the last attempt failed with it, and the policy
        says whether there is another.

        Raises `APIError`, with what is known of the attempts, when none is left; `StreamCancelledError` if the call is closed.
        """
        before, self._thread = self._thread, threading.get_ident()
        try:
            if error is not None:
                await self._await_next(error)
            while (error := await self._attempt()) is not None:
                await self._await_next(error)
            self.response = self.exchange.response
            if self.exchange.is_over:
                self.release()
            return self.exchange
        finally:
            self._thread = before

    async def more(self) -> None:
        """Read once, and give what came to the exchange; or its clock, its loss."""
        link = self._link  # None: another thread closed the call in this moment, and released it
        before, self._thread = self._thread, threading.get_ident()
        try:
            if link is not None and (data := await self._wait(link.read)) is not None:
                self.exchange.receive(data, self.timing.clock())
        finally:
            self._thread = before

    def release(self) -> None:
        """The exchange is over: keep its connection, or drop it."""
        lease, self._lease, self._link = self._lease, None, None
        if lease is not None:
            lease.give_back(self.exchange.http if self.exchange.is_reusable else None)

    def close(self) -> None:
        """End the call and drop its connection. A caller that waits for it wakes.

        The exchange is ended by the thread that drives it: here, or when that thread wakes.
        """
        self.is_closed = True
        if (signal := self._signal) is not None:
            signal.set()
        if (lease := self._lease) is not None:
            lease.drop()
        if self.is_mine:
            self.exchange.cancel()

    def end(self) -> None:
        """`close`, from any thread and any event loop."""
        if self._pool is None:
            self.close()
        else:
            self._pool.network.post(self.close)

    # One attempt ---------------------------------------------------------------------------------------------------

    async def _attempt(self) -> APIError | None:
        """An attempt until its exchange is open, or the error with which it ended before that."""
        await self._try()
        if self.exchange.died_unheard and not self.is_closed:
            logger.info("an idle connection turned out to be dead; the request is sent once more on a new one")
            self.release()
            self._renew()
            await self._try(fresh=True)
        return None if self.exchange.is_open else self.exchange.error

    async def _await_next(self, error: APIError) -> None:
        """The attempt failed: wait as long as the policy says, and make ready for the next one. Raises `error` if there is
        none."""
        settings, total = self.settings, self.settings.timeouts.total
        error.retries_taken = self.retries_taken
        decision = decide(error, self.retries_taken, settings.policy, now=settings.now(), chance=settings.chance())
        error.retry_after = decision.retry_after
        delay = None if self.is_closed else decision.delay
        self.release()
        if delay is None or (total is not None and self.timing.elapsed() + delay >= total):
            longest = settings.policy.max_retry_after
            if error.retry_after is not None and error.retry_after > longest:
                error.message += f" (the server asks to wait {error.retry_after:g} s; max_retry_after is {longest:g} s)"
                error.args = (error.message,)
            raise error from error.__cause__
        logger.info("%s; request %s", decision.reason, error.request_id)
        self._signal = self._get_pool().network.signal()
        await self._wait(self._signal.wait, self.timing.clock() + delay)
        if self.is_closed:
            closed = StreamCancelledError("the stream was closed while it waited for its next attempt")
            closed.retries_taken = self.retries_taken
            raise closed from error
        self.retries_taken += 1
        self._renew()

    def _renew(self) -> None:
        self.timing.forget_attempt()
        has_retries = self.retries_taken < self.settings.policy.max_retries
        self.exchange = self._kind(self.settings, self.timing, holds=has_retries)

    async def _try(self, *, fresh: bool = False) -> None:
        exchange = self.exchange
        if self.is_closed:
            exchange.cancel()
            return
        self._pool = pool = self._get_pool()
        if not self.timing.has_started:
            self.timing.start(pool.network.now)
        now = self.timing.clock
        exchange.begin()
        self._lease = lease = pool.acquire(self.settings.route, fresh=fresh)
        if not lease.is_granted:
            exchange.is_queued = True
            at, clock = exchange.deadline(now())
            if not await self._wait(lease.granted.wait, at):
                limit = pool.limits.max_connections
                exchange.expire(clock, now(), f"all {limit} connections (max_connections) are in use")
                return
            exchange.is_queued = False
        self._link = await self._wait(lease.connect)
        if self._link is None:
            return
        exchange.connected(now(), is_reused=lease.is_reused)
        try:
            pieces = exchange.send()
        except BaseException:  # a request that HTTP does not allow
            self.close()
            exchange.cancel()
            raise
        is_whole = await self._send(self._link, pieces)
        exchange.sent(now(), is_whole=is_whole)
        while not exchange.is_open and not exchange.is_over:
            await self.more()

    async def _send(self, link: Link, pieces: list[bytes]) -> bool:
        """Write the request. False if the peer takes no more of it: it may have answered already (413)."""
        exchange = self.exchange
        for number, piece in enumerate(pieces, 1):
            early = await self._wait(partial(_write, link, piece, is_last=number == len(pieces)))
            if early is None:
                return False  # if the connection is lost, the next read says how
            if early:
                exchange.receive(early, self.timing.clock())
            if exchange.response is not None or exchange.is_over:
                return False
        return True

    async def _wait(self, wait: Callable[[float], Coroutine[Any, Any, T]], at: float | None = None) -> T | None:
        """The result of `wait(deadline)`; None if the exchange is over because of it. The deadline is `at`, or the time when a
        clock of the exchange runs out."""
        exchange, now = self.exchange, self.timing.clock
        deadline, clock = exchange.deadline(now())
        result: T | None = None
        self._waits = True
        try:
            if at is None and deadline <= now():  # a link that always has something to read does not look at it
                raise Expired
            if not self.is_closed:  # asked here: another thread may close the call at any moment
                result = await wait(deadline if at is None else at)
        except Expired:
            exchange.expire(clock, now())
        except Aborted:
            exchange.cancel()
        except OSError as exc:
            exchange.lose(exc)
        except APIError as exc:
            exchange.end(exc.with_traceback(None))
        except BaseException:
            self.close()
            raise
        finally:
            self._waits = False
        if self.is_closed:  # perhaps in the moment in which the wait ended
            self.close()
            exchange.cancel()
            return None
        return result


async def _write(link: Link, piece: bytes, deadline: float, *, is_last: bool) -> bytes | None:
    """Write a piece of a request. Returns the bytes that came before the last piece: those of an early answer, as a rule none.
    None if the connection is lost or closed. Raises `Expired` if the peer takes no more, and has not said why."""
    try:
        try:
            await link.write(piece, deadline)
            early = None if is_last else link.read_ready()
        except Expired:
            if not (early := link.read_ready()):
                raise
    except OSError:
        return None
    return b"" if early is None else early or None
