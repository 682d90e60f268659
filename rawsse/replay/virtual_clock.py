"""An event loop whose clock jumps: code that waits for minutes is tested in milliseconds, and runs the same way every time.

    from rawsse.replay.virtual_clock import run

    def test_something_that_waits_for_an_hour() -> None:
        async def story() -> None:
            await asyncio.sleep(3600)               # takes no real time
        run(story())

Time. When no callback is ready and a timer is set, the clock jumps to it. `loop.time()` is virtual, and so is every wait of
asyncio; `time.time()` and `time.monotonic()` are not.

Sockets work if both ends are in the same process and loop: the bytes that one end sends, the other can read at once. While a
socket is open, the clock waits `PATIENCE` real seconds for it before it jumps. While a thread of the executor works, it does
not jump; for a thread of the client (which runs a tool, or resolves a name) it waits `THREAD_PATIENCE` real seconds. A peer in
another thread or process needs real time: use `asyncio.run` for that.

Leftovers. With `strict`, `run` fails if the coroutine leaves a task, an open transport or a listening socket, or if an error
was reported to the loop's exception handler ("exception was never retrieved"), by the garbage collector, too; asyncio's debug
mode is on. `VirtualClock` also measures the virtual time.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import sys
import threading
import types
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar, TypeVarTuple, Unpack

PATIENCE = 0.02
"""Real seconds that the clock waits for an open socket before it jumps. Loopback takes microseconds; a busy machine, more."""

THREAD_PATIENCE = 1.0
"""The same for a thread of the client. One that hangs has a deadline in virtual time, which must be reached."""

DEADLOCK = 5.0
"""Real seconds without a timer and without data on any socket, after which a test counts as hanging."""

THREAD_DEADLOCK = 60.0
"""The same while a thread works, which takes longer on a busy machine."""

_CALL_THREAD = "rawsse call"  # the name of the threads that the client's network waits for

SETTLING_TICKS = 10
"""Loop iterations that cleaning up may take: an aborted transport closes its socket one or two iterations later."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Leftovers(AssertionError):  # noqa: N818 - it is what a failing test says
    """The coroutine has returned, and something that it started is still running."""


class _JumpingSelector(selectors.DefaultSelector):
    """Polls the sockets, and moves the clock instead of waiting."""

    now = 1000.0  # not 0, to find code that confuses a time with a duration
    is_busy: Callable[[], bool]  # a thread of the executor works: its result comes in real time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        is_calling = any(thread.name == _CALL_THREAD for thread in threading.enumerate())
        if timeout is None or self.is_busy():
            ready = super().select(THREAD_DEADLOCK if is_calling or self.is_busy() else DEADLOCK)
            if not ready:
                raise RuntimeError("the test hangs: there is no timer, and no data on any socket")
            return ready
        has_sockets = len(self.get_map()) > 1  # one is the loop's, to wake itself up
        patience = THREAD_PATIENCE if is_calling else PATIENCE if has_sockets else 0.0
        ready = super().select(patience)
        if not ready:
            self.now += timeout
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps. `reports` are the errors reported to its exception handler."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        self._clock.is_busy = lambda: self._jobs > 0
        self._jobs = 0
        self._is_over = False
        self.reports: list[str] = []
        super().__init__(self._clock)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *_: Any) -> None:
        """Wait for the executor's threads, which need real time: Python 3.13 gives them 300 seconds of the loop's clock."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jobs -= 1

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exception = context.get("exception")
        text = f"{context['message']} {exception!r}" if exception else str(context["message"])
        if self._is_over:  # too late for this test; pytest fails the one that runs now
            hint = types.SimpleNamespace(
                exc_type=Leftovers, exc_value=Leftovers(text), exc_traceback=None, err_msg=text, object=None
            )
            sys.unraisablehook(hint)
        self.reports.append(text)

    def open_transports(self) -> list[str]:
        """The transports that were neither closed nor aborted, or the listening sockets."""
        transports: Any = self._transports  # type: ignore[attr-defined]  # private: asyncio has no other list of them
        found = [repr(transport) for transport in list(transports.values()) if not transport.is_closing()]
        own: Any = self._ssock  # type: ignore[attr-defined]
        descriptors = [key.fd for key in self._clock.get_map().values() if key.fd != own.fileno()]
        return found or [f"a socket with descriptor {fd}" for fd in descriptors]

    def close(self) -> None:
        super().close()
        self._is_over = True


async def ticks(count: int = 1) -> None:
    """Let the loop run `count` iterations; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T], *, strict: bool = False) -> T:
    """The coroutine's result, in virtual time. Its exceptions come first; `strict` raises `Leftovers` if it left something."""
    return VirtualClock(strict=strict).run(main)


class VirtualClock:
    """Runs coroutines in virtual time, and measures how much of it they took. `around` is entered around each of them, in its
    loop."""

    def __init__(
        self, around: Callable[[], AbstractAsyncContextManager[object]] = nullcontext, *, strict: bool = False
    ) -> None:
        self._around = around
        self._strict = strict
        self._loop: VirtualClockLoop | None = None
        self._began = 0.0
        self._ended: float | None = None

    @property
    def elapsed(self) -> float:
        """The virtual seconds of the current `run` so far, or of the last one."""
        if self._loop is None:
            return 0.0
        # A sum of floats: 0.1 + 0.2 should compare equal to 0.3. Recordings have times in microseconds.
        return round((self._loop.time() if self._ended is None else self._ended) - self._began, 6)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result."""
        loop = self._loop = VirtualClockLoop()
        with asyncio.Runner(debug=self._strict, loop_factory=lambda: loop) as runner:
            result = runner.run(self._timed(main, loop))
        if self._strict:
            gc.collect(1)  # the young generations hold the objects of this test
            if loop.reports:
                raise Leftovers("reported to the loop's exception handler: " + "; ".join(loop.reports))
        return result

    async def _timed(self, main: Coroutine[Any, Any, T], loop: VirtualClockLoop) -> T:
        async with self._around():
            self._began, self._ended = loop.time(), None
            try:
                result = await main
            finally:
                self._ended = loop.time()
        if self._strict:
            await ticks(SETTLING_TICKS)
            if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                raise Leftovers(f"tasks are left: {tasks}")
            if transports := loop.open_transports():
                raise Leftovers(f"connections are left open: {transports}")
        return result
