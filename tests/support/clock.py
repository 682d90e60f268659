"""Running a coroutine in virtual time, and finding all that it left behind: replay's `virtual_clock.py`, always strict.

Knows only how strict our own tests are; how time passes and what a leftover is stands there. asyncio's debug mode, which takes
half of the time of such a test for tracebacks that are rarely read, is on only with `python -X dev`, as in CI. What it refuses,
calls from another thread, is refused without it, too.

    from support.clock import run

    def test_something_that_waits_for_an_hour() -> None:
        async def story() -> None:
            await asyncio.sleep(3600)               # takes no time at all
        run(story())
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rawsse.replay import virtual_clock
from rawsse.replay.virtual_clock import Leftovers, VirtualClockLoop, ticks

__all__ = ["Leftovers", "VirtualClockLoop", "run", "ticks"]

T = TypeVar("T")


def refuse_other_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop's `call_soon` and `call_at` raise RuntimeError in a thread that is not this one. `call_later` is on them."""
    thread = threading.get_ident()

    def only_here(schedule: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **options: Any) -> Any:
            if threading.get_ident() != thread:
                raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one")
            return schedule(*args, **options)

        return checked

    for name in ("call_soon", "call_at"):
        setattr(loop, name, only_here(getattr(loop, name)))


def run(main: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises `Leftovers` if it left something behind; what it raises itself comes first."""

    async def story() -> T:
        if not sys.flags.dev_mode:
            loop = asyncio.get_running_loop()
            loop.set_debug(False)
            refuse_other_threads(loop)
        return await main

    return virtual_clock.run(story(), strict=True)
