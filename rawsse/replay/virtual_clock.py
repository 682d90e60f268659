"""An event loop whose clock jumps: code that waits for minutes is tested in milliseconds, and takes the same course every time.

    from rawsse.replay.virtual_clock import run

    def test_something_that_waits_for_an_hour() -> None:
        async def story() -> None:
            await asyncio.sleep(3600)               # takes no time at all
        run(story())

Time. When nothing is ready and a timer is set, the clock jumps to it; `loop.time()` is virtual, and everything of asyncio that
waits goes by it (not `time.time()` and `time.monotonic()`: those are the system's).

Sockets work, as long as both ends are in the same process and loop: what one end sent, the other can read at once. While a
socket is open the clock waits `PATIENCE` real seconds for it before it jumps. While a thread of the executor works it does not
jump at all; for a thread of the client's (a tool runs, a name is looked up) it waits `THREAD_PATIENCE` real seconds. A peer in
another thread or process needs real time: use `asyncio.run` for that.

Leftovers. With `strict`, `run` fails if the coroutine leaves a task, an open transport or a listening socket, or if anything
was reported to the loop's exception handler ("exception was never retrieved"), also by what the garbage collector found; and
asyncio's debug mode is on. `VirtualClock` is the same for a test that wants to know how long things took.
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
"""Real seconds that the clock waits for an open socket before it jumps. Loopback needs microseconds; a busy machine more."""

THREAD_PATIENCE = 1.0
"""The same for a thread of the client's. One that hangs has a deadline in the clock's time, which must come."""

DEADLOCK = 5.0
"""Real seconds without any timer and without a word from any socket, after which a test is taken to hang."""

THREAD_DEADLOCK = 60.0
"""The same while a thread works, which may take long on a busy machine."""

_CALL_THREAD = "rawsse call"  # the name of each that the client's network has, and waits for

SETTLING_TICKS = 10
"""Loop iterations that cleaning up may take: an aborted transport closes its socket one or two iterations later."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Leftovers(AssertionError):  # noqa: N818 - it is what a failing test says
    """The coroutine has returned, and not everything that it started is over."""


class _JumpingSelector(selectors.DefaultSelector):
    """Asks the sockets, and where nothing is ready moves the clock instead of waiting."""

    now = 1000.0  # no round zero: to find code that confuses a time with a duration
    is_busy: Callable[[], bool]  # a thread of the executor works: its result comes in real time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        is_calling = any(thread.name == _CALL_THREAD for thread in threading.enumerate())
        if timeout is None or self.is_busy():
            ready = super().select(THREAD_DEADLOCK if is_calling or self.is_busy() else DEADLOCK)
            if not ready:
                raise RuntimeError("the test hangs: there is no timer, and nothing comes from any socket")
            return ready
        has_sockets = len(self.get_map()) > 1  # one is the loop's own, to wake itself up
        patience = THREAD_PATIENCE if is_calling else PATIENCE if has_sockets else 0.0
        ready = super().select(patience)
        if not ready:
            self.now += timeout
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps. `reports` is what its exception handler was told."""

    def __init__(self, *, start: float = 1000.0) -> None:
        self._clock = _JumpingSelector()
        self._clock.now = start
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
        """The transports that were neither closed nor aborted, and the sockets that listen."""
        transports: Any = self._transports  # type: ignore[attr-defined]  # private, and the only place that knows them all
        found = [repr(transport) for transport in list(transports.values()) if not transport.is_closing()]
        own: Any = self._ssock  # type: ignore[attr-defined]
        descriptors = [key.fd for key in self._clock.get_map().values() if key.fd != own.fileno()]
        return found or [f"a socket with descriptor {fd}" for fd in descriptors]

    def close(self) -> None:
        super().close()
        self._is_over = True


async def ticks(count: int = 1) -> None:
    """Let the loop go round `count` times; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T], *, start: float = 1000.0, strict: bool = False) -> T:
    """The coroutine's result, in virtual time. What it raises comes first; `strict` raises `Leftovers` if it left something."""
    return _run(main, VirtualClockLoop(start=start), strict=strict)


def _run(main: Coroutine[Any, Any, T], loop: VirtualClockLoop, *, strict: bool) -> T:
    with asyncio.Runner(debug=strict, loop_factory=lambda: loop) as runner:
        if not strict:
            return runner.run(main)
        result = runner.run(_watch(main, loop))
    gc.collect(1)  # the young generations hold what this test made
    if loop.reports:
        raise Leftovers("the loop's exception handler was told: " + "; ".join(loop.reports))
    return result


async def _watch(main: Coroutine[Any, Any, T], loop: VirtualClockLoop) -> T:
    result = await main
    await ticks(SETTLING_TICKS)
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        raise Leftovers(f"tasks are left: {tasks}")
    if transports := loop.open_transports():
        raise Leftovers(f"connections are left open: {transports}")
    return result


class VirtualClock:
    """Runs coroutines in virtual time, and says how much of it they took. `around` is entered around each of them, in its
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
        """Virtual seconds since `run` was called; when it is over, those that it took."""
        if self._loop is None:
            return 0.0
        # A sum of floats: 0.1 + 0.2 is to be 0.3 for who compares. Microseconds are what a recording's times are worth.
        return round((self._loop.time() if self._ended is None else self._ended) - self._began, 6)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result."""
        loop = self._loop = VirtualClockLoop()
        return _run(self._timed(main, loop), loop, strict=self._strict)

    async def _timed(self, main: Coroutine[Any, Any, T], loop: VirtualClockLoop) -> T:
        async with self._around():
            self._began, self._ended = loop.time(), None
            try:
                return await main
            finally:
                self._ended = loop.time()
