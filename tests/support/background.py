"""Servers in a thread, for tests whose peer blocks: a command, a process, a synchronous SDK, a browser.

Knows threads and asyncio, and of rawsse only how a player waits. For everything that can live in one event loop,
`support.clock.run` is the better choice: there time is virtual.

    with Background() as background:
        gate = background.gate(free=2)
        upstream = background.enter(Server(Player(recording, sleep=gate.sleep), port=0))
        ...                                  # ask upstream.base_url; two reads of the recording have come
        gate.let(1)                          # and now the third
        assert gate.left.wait(5)             # the client has gone in the middle of the answer

Leaving fails if anything was reported to the loop's exception handler, or if a task is left.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

import pytest

__all__ = ["PATIENCE", "Background", "Gate", "background"]

T = TypeVar("T")

PATIENCE = 10.0
"""Real seconds after which something that a test waits for is taken to never come."""


class Gate:
    """How a player waits when the test, and not the clock, says how the answer goes on. `asked`: a client has
    come; `left`: it has gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop, free: int) -> None:
        self.asked = threading.Event()
        self.left = threading.Event()
        self._loop = loop
        self._permits = asyncio.Semaphore(free)

    async def sleep(self, _: float) -> None:
        """The player's `sleep`: every wait needs a permit."""
        self.asked.set()
        if task := asyncio.current_task():  # the player's: it may be cancelled between two waits as well
            task.remove_done_callback(self._ended)
            task.add_done_callback(self._ended)
        await self._permits.acquire()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.left.set()

    def let(self, count: int) -> None:
        """Let the player pass that many waits; from any thread."""
        for _ in range(count):
            self._loop.call_soon_threadsafe(self._permits.release)


class Background:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background")
        self._entered = AsyncExitStack()
        self._reports: list[str] = []
        self._loop.set_exception_handler(lambda _, context: self._reports.append(f"{context}"))

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run(self._entered.aclose())
            left = self.run(self._settle())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()
        assert not left, f"tasks are left: {left}"
        assert not self._reports, f"the loop's exception handler was told: {self._reports}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine, run in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter an async context manager; it is left when the test is over, the last one first."""
        return self.run(self._entered.enter_async_context(manager))

    def gate(self, free: int = 0) -> Gate:
        """A gate that lets the first `free` waits pass."""
        return Gate(self._loop, free)

    async def _settle(self) -> set[asyncio.Task[Any]]:
        for _ in range(10):  # cleaning up may take a few rounds
            await asyncio.sleep(0)
        return asyncio.all_tasks() - {task for task in [asyncio.current_task()] if task}


@pytest.fixture
def background() -> Iterator[Background]:
    """An event loop in a thread, for one test."""
    with Background() as background:
        yield background
