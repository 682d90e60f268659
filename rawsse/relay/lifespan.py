"""The end of a host application that mounts the relay.

Hosts such as uvicorn wait for open streams before they tell an application that it ends, and streams may be long. So the relay
listens to the signals itself, and the host's own handlers are called after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType

SIGNALS: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)


@contextlib.asynccontextmanager
async def closing_at_signals(aclose: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Calls `aclose` when the process gets its first SIGTERM or SIGINT, and at the end of the block. Outside of the main thread
    there are no signals, and only the end counts."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    async def close_when_told() -> None:
        await told.wait()
        await aclose()

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(told.set)
        if callable(host := before[number]):
            host(number, frame)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, hear) for number in SIGNALS} if is_main else {}
    closing = loop.create_task(close_when_told())
    try:
        yield
    finally:
        for number, host in before.items():
            if signal.getsignal(number) is hear:  # else the host has put its own back
                signal.signal(number, host)
        told.set()
        await closing
