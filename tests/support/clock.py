"""Running a coroutine in virtual time, and finding all that it left behind: replay's `virtual_clock.py`, always strict.

Knows only how strict our own tests are; how time passes and what a leftover is stands there.

    from support.clock import run

    def test_something_that_waits_for_an_hour() -> None:
        async def story() -> None:
            await asyncio.sleep(3600)               # takes no time at all
        run(story())
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from rawsse.replay import virtual_clock
from rawsse.replay.virtual_clock import Leftovers, VirtualClockLoop, ticks

__all__ = ["Leftovers", "VirtualClockLoop", "run", "ticks"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises `Leftovers` if it left something behind; what it raises itself comes first."""
    return virtual_clock.run(main, strict=True)
