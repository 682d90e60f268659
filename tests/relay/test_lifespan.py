"""rawsse.relay.lifespan: a host's signals are heard by the relay, and by the host."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from rawsse.relay.lifespan import closing_at_signals


class Closer:
    """Counts how often it is closed."""

    def __init__(self) -> None:
        self.count = 0
        self.done = asyncio.Event()

    async def aclose(self) -> None:
        self.count += 1
        self.done.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_the_first_signal_it_closes_and_the_host_hears_it_too(number: int) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda number, _: heard.append(number))

    async def story() -> None:
        closer = Closer()
        async with closing_at_signals(closer.aclose):
            os.kill(os.getpid(), number)
            await asyncio.wait_for(closer.done.wait(), 10)
            assert heard == [number]
        assert closer.count == 1

    try:
        asyncio.run(story())
        assert heard == [number]
    finally:
        signal.signal(number, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def story() -> None:
        async with closing_at_signals(Closer().aclose):
            pass

    asyncio.run(story())
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_without_a_signal_and_in_another_thread_it_closes_at_the_end() -> None:
    counts: list[int] = []

    async def story() -> None:
        closer = Closer()
        async with closing_at_signals(closer.aclose):
            assert closer.count == 0
        counts.append(closer.count)

    asyncio.run(story())
    thread = threading.Thread(target=lambda: asyncio.run(story()))
    thread.start()
    thread.join()
    assert counts == [1, 1]
