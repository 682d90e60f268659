"""One call: a request, tried until an answer begins. It drives an exchange over a network, and waits for nothing else.

    call = Call(pools.here, CallSettings(request, route), Answer)
    await call.open()                 # an attempt, repeated as the policy says, until its exchange is open
    await call.more()                 # one read for `call.exchange`
    await call.again(error)           # the attempt failed: wait for the next one; raises `error` if there is none
    call.release()                    # the exchange is over: its connection is kept, or dropped
    call.close()                      # at any phase, from any task; from any thread where the network allows it

One retry costs nothing and is not counted: when a connection that had been used before turns out to be dead, and not a byte of
a response had come, the request is sent once more on a new one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from rawsse.client.exchange import CallSettings, Clock, Exchange, Timing
from rawsse.client.network.link import Aborted, Expired, Link, Signal
from rawsse.client.network.pool import Lease, Pool
from rawsse.client.retry import decide
from rawsse.errors import APIError, StreamCancelledError

logger = logging.getLogger("rawsse.client")

T = TypeVar("T")
E = TypeVar("E", bound=Exchange)


class Call(Generic[E]):
    """A request, and its attempts. `exchange` is the attempt that goes on, or the last one."""

    def __init__(self, pool: Callable[[], Pool], settings: CallSettings, kind: type[E]) -> None:
        """`pool` gives the pool of the loop, or process, that runs the call; `kind` is the class of the exchange."""
        self.timing = Timing()
        self.retries_taken = 0
        self.is_closed = False
        self.settings = settings
        self._get_pool = pool
        self._kind = kind
        self._pool: Pool | None = None
        self._lease: Lease | None = None
        self._link: Link | None = None
        self._signal: Signal | None = None  # of the wait, if it is not one for the link
        self._thread: int | None = None  # the one that drives the exchange now
        self._waits = False  # it waits for the network
        self.exchange = kind(settings, self.timing, holds=self.has_retries)

    @property
    def has_retries(self) -> bool:
        """Another attempt may be made."""
        return self.retries_taken < self.settings.policy.max_retries

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the last response."""
        return self.exchange.request_id

    @property
    def is_mine(self) -> bool:
        """No other thread drives the exchange now, and this one is not in the midst of it: a signal handler may ask."""
        return self._thread is None or (self._waits and self._thread == threading.get_ident())

    async def open(self) -> E:
        """The exchange of an attempt that succeeded so far: it is open. Raises `APIError` when no attempt is left."""
        before, self._thread = self._thread, threading.get_ident()
        try:
            while (error := await self._attempt()) is not None:
                await self.again(error)
            if self.exchange.is_over:
                self.release()
            return self.exchange
        finally:
            self._thread = before

    async def more(self) -> None:
        """Read once, and give what came to the exchange; or its clock, its loss."""
        exchange, pool, link = self.exchange, self._pool, self._link
        if pool is None or link is None or self.is_closed:
            exchange.cancel()
            return
        now = pool.network.now
        before, self._thread = self._thread, threading.get_ident()
        try:
            at, clock = exchange.deadline(now())
            data = await self._wait(link.read(at), clock)
            if data is not None:
                exchange.receive(data, now())
        finally:
            self._thread = before

    async def again(self, error: APIError) -> None:
        """The attempt failed: wait as long as the policy says, and make ready for the next one.

        Raises `error`, with what is known of the attempts, if there is none; `StreamCancelledError` if the call is closed
        meanwhile.
        """
        settings, total = self.settings, self.settings.timeouts.total
        error.retries_taken = self.retries_taken
        error.request_id = error.request_id or self.request_id
        decision = decide(error, self.retries_taken, settings.policy, now=settings.now(), chance=settings.chance())
        error.retry_after = decision.retry_after
        delay = None if self.is_closed else decision.delay
        self.release()
        if delay is None or (total is not None and self.timing.elapsed() + delay >= total):
            raise _with_the_wait(error, settings.policy.max_retry_after) from error.__cause__
        logger.info("%s; request %s", decision.reason, error.request_id)
        pool = self._here()
        self._signal = pool.network.signal()
        before, self._thread = self._thread, threading.get_ident()
        try:
            self._waits = True
            if not self.is_closed:  # asked after the signal is set up: another thread may close the call at any moment
                await self._signal.wait(pool.network.now() + delay)
        except BaseException:
            self.close()
            raise
        finally:
            self._thread, self._waits = before, False
        if self.is_closed:
            closed = StreamCancelledError("the stream was closed while it waited for its next attempt")
            closed.retries_taken = self.retries_taken
            raise closed from error
        self.retries_taken += 1
        self._renew()

    def release(self) -> None:
        """The exchange is over: keep its connection, or drop it."""
        lease, self._lease, self._link = self._lease, None, None
        if lease is None:
            return
        if self.exchange.is_reusable:
            lease.give_back(self.exchange.http)
        else:
            lease.drop()

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

    def _here(self) -> Pool:
        self._pool = self._get_pool()
        return self._pool

    async def _attempt(self) -> APIError | None:
        """An attempt until its exchange is open, or the error with which it ended before that."""
        await self._try()
        if self.exchange.died_unheard and not self.is_closed:
            logger.info("an idle connection turned out to be dead; the request is sent once more on a new one")
            self.release()
            self._renew()
            await self._try(fresh=True)
        return None if self.exchange.is_open else self.exchange.error

    def _renew(self) -> None:
        self.timing.forget_attempt()
        self.exchange = self._kind(self.settings, self.timing, holds=self.has_retries)

    async def _try(self, *, fresh: bool = False) -> None:
        exchange = self.exchange
        if self.is_closed:
            exchange.cancel()
            return
        pool = self._here()
        now = pool.network.now
        if not self.timing.has_started:
            self.timing.start(now)
        exchange.begin()
        self._lease = lease = pool.acquire(self.settings.route, fresh=fresh)
        if self.is_closed:  # by another thread, before there was a lease
            lease.drop()  # type: ignore[unreachable]  # mypy does not reckon with other threads
            exchange.cancel()
            return
        if not lease.is_granted:
            exchange.is_queued = True
            at, clock = exchange.deadline(now())
            if not await self._wait(lease.granted.wait(at)):
                exchange.expire(clock, now(), pool.shortage or "")
                return
            exchange.is_queued = False
        at, clock = exchange.deadline(now())
        self._link = await self._wait(lease.connect(at), clock)
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
        exchange, now = self.exchange, self.timing.clock
        for number, piece in enumerate(pieces, 1):
            at, clock = exchange.deadline(now())
            early = await self._wait(_write(link, piece, at, is_last=number == len(pieces)), clock)
            if early is None:
                return False  # if the connection is lost, the next read says how
            if early:
                exchange.receive(early, now())
            if exchange.response is not None or exchange.is_over:
                return False
        return True

    async def _wait(self, wait: Coroutine[Any, Any, T], clock: Clock | None = None) -> T | None:
        """The result of a wait; None if the exchange is over because of it."""
        exchange = self.exchange
        result: T | None = None
        self._waits = True
        try:
            result = await wait
        except Expired:
            if clock is not None:
                exchange.expire(clock, self.timing.clock())
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
    """Write a piece of a request. What has come before its last piece: an early answer, or nothing; None if the connection is
    lost or closed."""
    try:
        await link.write(piece, deadline)
        early = None if is_last else link.read_ready()
    except OSError:
        return None
    return b"" if early is None else early or None


def _with_the_wait(error: APIError, longest: float) -> APIError:
    """A wait that the server asked for, and that is too long to be slept through, belongs in the message."""
    if error.retry_after is not None and error.retry_after > longest:
        error.message = (
            f"{error.message} (the server asks to wait {error.retry_after:g} s; max_retry_after is {longest:g} s)"
        )
        error.args = (error.message,)
    return error
