"""One call: a request, tried until an answer begins.

This file knows when another attempt is made, and what it costs the caller: nothing but time. It refuses to know what a failure
is worth (`retry.py` decides) and what the answer means.

    call = Call(acquire, request, timeouts, policy)
    response = await call.open()              # retried as the policy says
    data = await call.exchange.read()         # the attempt under way
    await call.again(error)                   # it failed: wait for the next attempt; raises `error` if there is none
    call.close()                              # at any phase, from any task: an attempt, or the wait between two

There is one retry that costs nothing and is not counted: when a connection that had been used before turns out to be dead, and
not a byte of an answer had come, the request goes out once more on a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from rawsse.client.exchange import MAX_JSON_BYTES, Exchange
from rawsse.client.moments import RequestData, Timing
from rawsse.client.network.clocks import Interrupted, Timeouts, Waiter
from rawsse.client.network.pool import Connection
from rawsse.client.observe import Observer
from rawsse.client.retry import RetryPolicy, decide
from rawsse.errors import APIError, StreamCancelledError
from rawsse.http1 import Response

__all__ = ["Call"]

logger = logging.getLogger("rawsse.client")


class Call:
    """A request, and its attempts. `exchange` is the attempt under way, or the last one."""

    def __init__(
        self,
        acquire: Callable[[bool, Callable[[bool], None]], Awaitable[Connection]],
        request: RequestData,
        timeouts: Timeouts,
        policy: RetryPolicy,
        *,
        now: Callable[[], float],
        chance: Callable[[], float],
        why_waiting: Callable[[], str] = str,
        max_json_bytes: int = MAX_JSON_BYTES,
        observer: Observer | None = None,
    ) -> None:
        """`acquire(fresh, note_line)` gives a connection, a new one if `fresh`; see `Pool.acquire`. `now` is POSIX time,
        `chance` a number in [0, 1)."""
        self.timing = Timing()
        self.retries_taken = 0
        self._acquire = acquire
        self._request = request
        self._timeouts = timeouts
        self._policy = policy
        self._now = now
        self._chance = chance
        self._why_waiting = why_waiting
        self._max_json_bytes = max_json_bytes
        self._observer = observer
        self._waiter = Waiter()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.exchange = self._new_exchange()

    @property
    def has_retries(self) -> bool:
        """Another attempt may be made."""
        return self.retries_taken < self._policy.max_retries

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the last response."""
        return self.exchange.request_id

    async def open(self) -> Response:
        """The head of a response that is a success. Raises `APIError` when no attempt is left."""
        while True:
            try:
                return await self._attempt()
            except APIError as exc:
                await self.again(exc)

    async def read_object(self) -> dict[str, Any]:
        """The answer to a request that asks for one JSON object. Raises `APIError` when no attempt is left."""
        while True:
            try:
                await self._attempt()
                return await self.exchange.read_object()
            except APIError as exc:
                await self.again(exc)

    async def again(self, error: APIError) -> None:
        """The attempt failed: wait as long as the policy says, and make ready for the next one.

        Raises `error`, with what is known of the attempts, when there is none; `StreamCancelledError` when the call is closed
        meanwhile.
        """
        error.retries_taken = self.retries_taken
        error.request_id = error.request_id or self.request_id
        decision = decide(error, self.retries_taken, self._policy, now=self._now(), chance=self._chance())
        error.retry_after = decision.retry_after
        delay = None if self._is_closed else decision.delay
        if delay is None or self.timing.elapsed() + delay >= (self._timeouts.total or math.inf):
            raise _with_the_wait(error, self._policy.max_retry_after) from error.__cause__
        self.exchange.close(error)
        logger.info("%s; request %s", decision.reason, error.request_id)
        try:
            await self._waiter.wait(lambda: asyncio.sleep(delay), math.inf)
        except Interrupted:
            closed = StreamCancelledError("the stream was closed while it waited for its next attempt")
            closed.retries_taken = self.retries_taken
            raise closed from error
        self.retries_taken += 1
        self._renew()

    def close(self, error: APIError | None = None) -> None:
        """End the call and drop its connection, at any phase, from any task, any number of times. `error` is why, if it is
        known."""
        self._is_closed = True
        self._waiter.interrupt()
        self.exchange.close(error)

    def end(self) -> None:
        """`close`, from any event loop."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """`close`, from any thread: the garbage collector's may be another than the event loop's."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and everything with it
                self._loop.call_soon_threadsafe(self.close)

    async def _attempt(self) -> Response:
        self._loop = asyncio.get_running_loop()
        try:
            return await self.exchange.open()
        except APIError:
            if not self.exchange.died_unheard or self._is_closed:
                raise
        logger.info("a connection that was kept turned out to be dead; the request goes out once more on a new one")
        self._renew(fresh=True)
        return await self.exchange.open()

    def _renew(self, *, fresh: bool = False) -> None:
        self.timing.forget_attempt()
        self.exchange = self._new_exchange(fresh=fresh)

    def _new_exchange(self, *, fresh: bool = False) -> Exchange:
        return Exchange(
            functools.partial(self._acquire, fresh),  # not of the call: a ring would keep both until a collection
            self._request,
            self._timeouts,
            timing=self.timing,
            why_waiting=self._why_waiting,
            max_json_bytes=self._max_json_bytes,
            observer=self._observer,
        )


def _with_the_wait(error: APIError, longest: float) -> APIError:
    """A wait that the server asked for, and that is too long to be slept through, belongs in the message."""
    if error.retry_after is not None and error.retry_after > longest:
        error.message = (
            f"{error.message} (the server asks to wait {error.retry_after:g} s; max_retry_after is {longest:g} s)"
        )
        error.args = (error.message,)
    return error
