"""Running a coroutine in virtual time, and finding all that it left behind: a task, an open transport, a listening socket, or
an error that was reported to the loop's exception handler ("exception was never retrieved"), by the garbage collector, too.

asyncio's debug mode, which takes half of the time of such a test for tracebacks that are rarely read, is on only with
`python -X dev`, as in CI. Calls from another thread, which it refuses, are refused without it, too.

    from support.clock import run

    def test_something_that_waits_for_an_hour() -> None:
        async def story() -> None:
            await asyncio.sleep(3600)               # takes no time at all
        run(story())
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rawsse.replay.virtual_clock import VirtualClockLoop

__all__ = ["Leftovers", "VirtualClockLoop", "run", "ticks"]

SETTLING_TICKS = 10
"""Loop iterations that cleaning up may take: an aborted transport closes its socket one or two iterations later."""

T = TypeVar("T")


class Leftovers(AssertionError):  # noqa: N818 - it is what a failing test says
    """The coroutine has returned, and something that it started is still running."""


class StrictLoop(VirtualClockLoop):
    """A loop that knows what was left. `reports` are the errors reported to its exception handler."""

    def __init__(self) -> None:
        self._is_over = False
        self.reports: list[str] = []
        super().__init__()
        self.set_exception_handler(self._note)

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


async def ticks(count: int = 1) -> None:
    """Let the loop run `count` iterations; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Raises `Leftovers` if it left something behind; what it raises itself comes first."""
    loop = StrictLoop()

    async def story() -> T:
        if not sys.flags.dev_mode:
            refuse_other_threads(loop)
        result = await main
        await ticks(SETTLING_TICKS)
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            raise Leftovers(f"tasks are left: {tasks}")
        if transports := loop.open_transports():
            raise Leftovers(f"connections are left open: {transports}")
        return result

    with asyncio.Runner(debug=sys.flags.dev_mode, loop_factory=lambda: loop) as runner:
        result = runner.run(story())
    gc.collect(1)  # the young generations hold the objects of this test
    if loop.reports:
        raise Leftovers("reported to the loop's exception handler: " + "; ".join(loop.reports))
    return result
