"""rawsse.replay.virtual_clock: how long things took that took no time. The rest: tests/support/test_clock.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rawsse.replay.virtual_clock import VirtualClock


def test_a_clock_says_how_long_it_has_run_and_how_long_it_took() -> None:
    async def story() -> list[float]:
        await asyncio.sleep(0.1)
        first = clock.elapsed
        await asyncio.sleep(0.2)
        return [first, clock.elapsed]

    clock = VirtualClock()
    assert clock.elapsed == 0
    assert clock.run(story()) == [0.1, 0.3]
    assert clock.elapsed == 0.3


def test_each_run_begins_at_nought() -> None:
    async def story() -> float:
        await asyncio.sleep(1)
        return clock.elapsed

    clock = VirtualClock()
    clock.run(asyncio.sleep(10))
    assert clock.run(story()) == 1
    assert clock.elapsed == 1


def test_what_is_around_a_run_is_in_its_loop_and_not_in_its_time() -> None:
    heard: list[str] = []

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        await asyncio.sleep(5)
        heard.append("entered")
        yield
        heard.append("left")

    async def story() -> None:
        heard.append("running")

    clock = VirtualClock(around)
    clock.run(story())
    assert heard == ["entered", "running", "left"]
    assert clock.elapsed == 0


def test_a_run_that_fails_has_taken_its_time_too() -> None:
    async def story() -> None:
        await asyncio.sleep(2)
        raise KeyError("mine")

    clock = VirtualClock()
    with pytest.raises(KeyError, match="mine"):
        clock.run(story())
    assert clock.elapsed == 2


def test_the_clock_jumps_again_when_a_thread_has_done_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawsse.replay.virtual_clock.THREAD_DEADLOCK", 0.5)

    async def story() -> None:
        await asyncio.to_thread(int)
        await asyncio.sleep(3600)

    clock = VirtualClock()
    clock.run(story())
    assert clock.elapsed == 3600


async def forgetful() -> None:
    kept.append(asyncio.create_task(asyncio.sleep(1)))


kept: list[asyncio.Task[None]] = []


def test_what_is_left_is_no_failure_here() -> None:
    VirtualClock().run(forgetful())
    assert kept.pop().cancelled()
