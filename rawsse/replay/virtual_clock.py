"""An event loop whose clock jumps: code that waits for minutes is tested in milliseconds, deterministically.

    from rawsse.replay import VirtualClock

    def test_something_that_waits_for_an_hour() -> None:
        async def story() -> None:
            await asyncio.sleep(3600)               # takes no real time
        clock = VirtualClock()
        clock.run(story())
        assert clock.elapsed == 3600

When no callback is ready and a timer is set, the clock jumps to it. `loop.time()` is virtual, and so is every wait of asyncio;
`time.time()` and `time.monotonic()` are not.

Sockets work if both ends are in the same process and loop: bytes that one end sends can be read at once by the other. While
a socket is open, the clock waits `PATIENCE` real seconds for it before it jumps. It does not jump while a thread of the
executor works; for a thread of the client (which runs a tool or resolves a name) it waits `THREAD_PATIENCE` real seconds. A
peer in another thread or process needs real time: use `asyncio.run` for that.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar, TypeVarTuple, Unpack

PATIENCE = 0.005
"""Real seconds that the clock waits for an open socket before it jumps. Loopback takes microseconds; a busy machine, more.
In most runs it is needed nowhere, and each jump costs it."""

THREAD_PATIENCE = 1.0
"""The same for a thread of the client. A hanging one has a deadline in virtual time, which must be reached."""

DEADLOCK = 5.0
"""A test hangs if there is no timer and no data on any socket for this many real seconds."""

THREAD_DEADLOCK = 60.0
"""The same while a thread works, which is slower on a busy machine."""

_CALL_THREAD = "rawsse call"  # the name of the threads that the client's network waits for

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _JumpingSelector(selectors.DefaultSelector):
    """Polls the sockets, and advances the clock instead of waiting."""

    now = 1000.0  # not 0, to find code that confuses a time with a duration
    jobs: set[asyncio.Future[Any]]  # of executor threads: their results arrive in real time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        is_calling = any(thread.name == _CALL_THREAD for thread in threading.enumerate())
        if timeout is None or self.jobs:
            ready = super().select(THREAD_DEADLOCK if is_calling or self.jobs else DEADLOCK)
            if not ready:
                raise RuntimeError("the test hangs: there is no timer, and no data on any socket")
            return ready
        has_sockets = len(self.get_map()) > 1  # one is the loop's own, to wake itself up
        patience = THREAD_PATIENCE if is_calling else PATIENCE if has_sockets else 0.0
        ready = super().select(patience)
        if not ready:
            self.now += timeout
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        self._jobs = self._clock.jobs = set[asyncio.Future[Any]]()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    async def shutdown_default_executor(self, *_: Any) -> None:
        """Wait for the executor's threads in real time: Python 3.13 allows them 300 seconds of the loop's clock."""
        self._jobs.add(ending := self.create_future())
        try:
            await super().shutdown_default_executor()
        finally:
            self._jobs.remove(ending)


class VirtualClock:
    """Runs coroutines in virtual time, and measures it. `around` is a context entered around each of them, in its loop."""

    def __init__(self, around: Callable[[], AbstractAsyncContextManager[object]] = nullcontext) -> None:
        self._around = around
        self._loop: VirtualClockLoop | None = None
        self._began = 0.0
        self._ended: float | None = None

    @property
    def elapsed(self) -> float:
        """The virtual seconds of the current `run` so far, or of the last one."""
        if self._loop is None:
            return 0.0
        # Rounded, since 0.1 + 0.2 should equal 0.3. Recordings have times in microseconds.
        return round((self._loop.time() if self._ended is None else self._ended) - self._began, 6)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine and return its result."""
        loop = self._loop = VirtualClockLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(self._timed(main, loop))

    async def _timed(self, main: Coroutine[Any, Any, T], loop: VirtualClockLoop) -> T:
        async with self._around():
            self._began, self._ended = loop.time(), None
            try:
                return await main
            finally:
                self._ended = loop.time()
