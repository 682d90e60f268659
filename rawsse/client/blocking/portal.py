"""An event loop in a thread of its own, and calls into it that wait, and that Ctrl-C ends.

This file knows threads, signals and forks. It refuses to know what is called.

    portal = Portal(client.aclose)                    # the thread runs
    message = portal.call(lambda: client.messages.create(…))
    portal.close()                                    # what still waits is ended, and then the thread

The thread is a daemon: it does not keep a process alive, and while the interpreter shuts down it is simply no more. Before
that, in `atexit` too, it works. A portal that nobody refers to any longer closes itself.

Ctrl-C. Python raises `KeyboardInterrupt` in the main thread, wherever that is. If it waits here, the call is cancelled first,
in the loop, and its sockets are closed; then the exception goes on its way. A second Ctrl-C does not wait for that.

Fork. Threads do not survive it, while file descriptors do: the child shares the parent's `epoll`, and whatever it did there
would happen to the parent. So in a child a portal refuses to do anything at all (`is_foreign`), closing included.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from rawsse.errors import StreamCancelledError

__all__ = ["LOOK_SECONDS", "Portal", "PortalClosedError"]

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""How often the main thread, while it waits, looks whether a signal has come. Python runs handlers in that thread alone. On
Windows no signal ends the wait for a lock; elsewhere it does, but not if it comes in the instant before the wait begins."""

_SETTLING_TICKS = 10
"""Rounds of the loop after which an aborted transport has closed its socket, and whoever waited for it has been told why."""


class PortalClosedError(RuntimeError):
    """The portal was closed before it was asked."""


class Portal:
    """An event loop in a daemon thread. `finish` is awaited there at the end, before what is left is cancelled.

    Any thread may call anything, any number of times.
    """

    def __init__(self, finish: Callable[[], Awaitable[object]]) -> None:
        self._pid = os.getpid()
        # Whoever posts holds it, so that nothing is posted after the stop. A signal's handler may post in the middle of a post.
        self._posting = threading.RLock()
        self._is_closed = False
        # The thread knows the room and not the portal: else the portal would never be garbage.
        self._room = _Room(finish)
        self._thread = threading.Thread(target=self._room.run, name="rawsse client", daemon=True)
        self._thread.start()
        self._loop = self._room.get_loop()

    @property
    def is_foreign(self) -> bool:
        """The process has forked since, and this is the child: there is no thread here."""
        return self._pid != os.getpid()

    def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """The result of the awaitable that `make` gives, both in the loop, in a copy of the caller's context.

        Raises what it raises; `StreamCancelledError` if the portal is closed meanwhile, `PortalClosedError` if it was closed
        before; `RuntimeError` in a forked child, and in the loop's own thread, which would wait for itself.
        """
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError("a blocking call from its own event loop would wait for itself: use AsyncClient there")
        job = _Job(self._loop, make)
        try:
            self._post(job.start)
            job.wait()
        except BaseException:  # Ctrl-C, or what a signal's handler raised: nothing goes on behind the caller's back
            self._end(job)
            raise
        return job.result()

    def close(self) -> None:
        """End every call and the thread, and wait for that (unless it is the thread itself that closes)."""
        self._stop()
        if not self.is_foreign and threading.get_ident() != self._thread.ident:
            while self._thread.is_alive():
                self._thread.join(LOOK_SECONDS)

    def __del__(self) -> None:
        if hasattr(self, "_thread"):
            self._stop()

    def _post(self, callback: Callable[[], object]) -> None:
        if self.is_foreign:
            raise RuntimeError("the process has forked: what was opened in the parent cannot be used in the child")
        with self._posting:
            if self._is_closed:
                raise PortalClosedError("the client is closed")
            self._loop.call_soon_threadsafe(callback)

    def _end(self, job: _Job[T]) -> None:
        with contextlib.suppress(RuntimeError):  # it could not even be posted, or is being ended already
            self._post(job.cancel)
            job.wait()
            self.call(_settle)

    def _stop(self) -> None:
        if self.is_foreign:
            return
        with self._posting:
            self._is_closed = True
            self._room.leave()


class _Job(Generic[T]):
    """One call: started and cancelled in the loop, waited for in another thread.

    `asyncio.run_coroutine_threadsafe` does nearly the same, at 31 us of CPU a call instead of 23. But whoever stops waiting for
    its future does not know when the task is over.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[T]]) -> None:
        self._loop = loop
        self._make = make
        self._task: asyncio.Task[None] | None = None
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._is_over = False
        self._gate = threading.Lock()  # locked until it is over
        self._gate.acquire()

    def start(self) -> None:
        """Begin; in the loop."""
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            self._values.append(await self._make())
        except BaseException as exc:  # whatever it is, it is raised where the result is waited for
            self._error = exc
        self._finish()

    def _finish(self) -> None:
        self._is_over = True
        self._gate.release()

    def cancel(self) -> None:
        """End what was begun; in the loop. Not before its first step: a task that never began cannot say that it is over."""
        self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self._is_over:  # a signal came just before it was posted
            self._finish()

    def wait(self) -> None:
        """Wait until it is over; in the caller's thread. May be interrupted, and called again."""
        is_main = threading.get_ident() == threading.main_thread().ident
        while not self._is_over:
            self._gate.acquire(timeout=LOOK_SECONDS if is_main else -1)

    def result(self) -> T:
        """The result. An error is raised with the caller's frames in its traceback, and those of the loop below them."""
        error, self._error = self._error, None  # once: an error must not be kept by a frame of its own traceback
        if error is None:
            return self._values[0]
        try:
            if isinstance(error, asyncio.CancelledError):
                raise StreamCancelledError("the client was closed while it was waited for") from None
            raise error
        finally:
            del error


# --- In the thread -------------------------------------------------------------------------------------------------


class _Room:
    """The loop, which is made, run and closed in the thread: what a signal interrupts in the main thread could be left half."""

    def __init__(self, finish: Callable[[], Awaitable[object]]) -> None:
        self._finish = finish
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fault: OSError | None = None
        self._is_ready = False
        self._gate = threading.Lock()  # locked until it is ready; an `Event` does not bear interrupts
        self._gate.acquire()
        self._is_over = False
        self._is_winding_up = False

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop, when it is there. Raises `OSError` if it cannot be made."""
        while not self._is_ready:
            self._gate.acquire(timeout=LOOK_SECONDS)
        if self._loop is None:
            raise self._fault or OSError("there is no event loop")
        return self._loop

    def leave(self) -> None:
        """End the loop, even before it has begun; from any thread, any number of times."""
        self._is_over = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._loop is not None and not self._is_winding_up:
            self._loop.stop()

    def run(self) -> None:
        """All that the thread does."""
        try:
            self._loop = loop = asyncio.new_event_loop()
        except OSError as exc:
            self._fault = exc
            return
        finally:
            self._is_ready = True
            self._gate.release()
        try:
            while not self._is_over:
                with contextlib.suppress(
                    SystemExit, KeyboardInterrupt
                ):  # of a task; whoever waits for that task is told
                    loop.run_forever()
            self._is_winding_up = True
            loop.run_until_complete(_wind_up(self._finish))
        finally:
            loop.close()


async def _wind_up(finish: Callable[[], Awaitable[object]]) -> None:
    await finish()
    await _settle()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await _settle()


async def _settle() -> None:
    """Go round until what was aborted is closed."""
    for _ in range(_SETTLING_TICKS):
        await asyncio.sleep(0)
