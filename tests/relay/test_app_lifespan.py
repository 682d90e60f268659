"""rawsse.relay.app, the lifespan of a host: its signals reach the relay, and then the host."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from rawsse import AsyncClient
from rawsse.relay import Ledger, Relay


class Counted(Relay):
    """Counts how often it is closed."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        super().__init__(AsyncClient(api_key="any"), ledger=ledger)
        self.count = 0
        self.done = asyncio.Event()

    async def aclose(self) -> None:
        await super().aclose()
        self.count += 1
        self.done.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_the_first_signal_it_closes_and_the_host_hears_it_too(number: int) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda number, _: heard.append(number))

    async def story() -> None:
        relay = Counted()
        async with relay.lifespan():
            os.kill(os.getpid(), number)
            await asyncio.wait_for(relay.done.wait(), 10)
            assert heard == [number]
        assert relay.count == 1

    try:
        asyncio.run(story())
        assert heard == [number]
    finally:
        signal.signal(number, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    async def story() -> None:
        async with Counted().lifespan():
            pass

    asyncio.run(story())
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_without_a_signal_and_in_another_thread_it_closes_at_the_end(tmp_path: Path) -> None:
    counts: list[int] = []

    async def story() -> None:
        relay = Counted(Ledger(tmp_path / "ledger.db"))
        async with relay.lifespan():
            assert relay.count == 0
        counts.append(relay.count)

    asyncio.run(story())
    thread = threading.Thread(target=lambda: asyncio.run(story()))
    thread.start()
    thread.join()
    assert counts == [1, 1]
