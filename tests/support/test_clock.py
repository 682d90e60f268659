"""support.clock: time that jumps, and leftovers that are found."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.link import Expired, in_threads
from rawsse.replay.virtual_clock import THREAD_PATIENCE
from support.clock import Leftovers, VirtualClockLoop, run, ticks


def test_an_hour_passes_at_once_and_exactly() -> None:
    async def story() -> float:
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - before

    assert run(story()) == 3600


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def story() -> list[str]:
        heard: list[str] = []
        loop = asyncio.get_running_loop()
        for delay, word in [(30.0, "late"), (0.1, "early"), (10.0, "between")]:
            loop.call_later(delay, heard.append, word)
        await asyncio.sleep(31)
        return heard

    assert run(story()) == ["early", "between", "late"]


def test_a_tick_takes_no_time() -> None:
    async def story() -> float:
        await ticks(5)
        return asyncio.get_running_loop().time()

    assert run(story()) == 1000.0


def test_sockets_are_heard_before_the_clock_jumps() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()
        await writer.wait_closed()

    async def story() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            answer = await asyncio.wait_for(reader.read(100), 60)
            writer.close()
            await writer.wait_closed()
        return answer

    assert run(story()) == b"hello"


def test_names_are_looked_up_before_the_clock_jumps() -> None:
    async def story() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)

    run(story())


def test_a_task_that_is_left_is_found() -> None:
    async def story() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(1), name="forgotten"))

    kept: list[asyncio.Task[None]] = []
    with pytest.raises(Leftovers, match=r"tasks are left: .*forgotten"):
        run(story())


def test_a_connection_that_is_left_is_found() -> None:
    async def story() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        kept.append(server)

    kept: list[asyncio.Server] = []
    with pytest.raises(Leftovers, match="connections are left open"):
        run(story())
    for server in kept:
        server.close()


def test_an_exception_that_nobody_looks_at_is_found() -> None:
    async def story() -> None:
        asyncio.get_running_loop().create_future().set_exception(ValueError("unseen"))

    with pytest.raises(Leftovers, match=r"exception was never retrieved.*unseen"):
        run(story())


@pytest.mark.parametrize(("schedule", "args"), [("call_soon", (int,)), ("call_at", (1, int)), ("call_later", (1, int))])
def test_the_loop_takes_no_call_from_another_thread(schedule: str, args: tuple[Any, ...]) -> None:
    async def story() -> None:
        await asyncio.to_thread(getattr(asyncio.get_running_loop(), schedule), *args)

    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        run(story())


def test_what_the_coroutine_raises_comes_first() -> None:
    async def story() -> None:
        asyncio.get_running_loop().create_future().set_exception(ValueError("unseen"))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(story())


def test_a_thread_that_works_for_long_is_no_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawsse.replay.virtual_clock.DEADLOCK", 0.01)
    assert run(asyncio.to_thread(threading.Event().wait, 0.05)) is False


def calling(call: Callable[[], Any], deadline: float) -> Any:
    """What a function gives that the client runs in a thread until a deadline, in seconds, of a clock that could jump there."""

    async def story() -> Any:
        network = AsyncioNetwork()
        timer = asyncio.get_running_loop().call_later(5, int)
        (result,) = await in_threads(network.signal(), [call], network.now() + deadline)
        timer.cancel()
        return result

    return run(story())


def test_the_clock_does_not_jump_while_a_thread_of_the_client_s_works() -> None:
    assert calling(partial(threading.Event().wait, 0.1), 10) is False


def test_it_jumps_if_such_a_thread_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawsse.replay.virtual_clock.THREAD_PATIENCE", 0.01)
    may_end = threading.Event()
    with pytest.raises(Expired):
        calling(may_end.wait, 3600)
    may_end.set()


def test_it_jumps_at_once_where_such_a_thread_is_not_waited_for_any_more() -> None:
    may_end = threading.Event()

    async def story() -> float:
        task = asyncio.create_task(in_threads(AsyncioNetwork().signal(), [may_end.wait]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        began = time.monotonic()
        await asyncio.sleep(3600)
        return time.monotonic() - began

    assert run(story()) < THREAD_PATIENCE
    may_end.set()


def test_the_clock_does_not_jump_while_the_executor_s_threads_end() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(SlowToEnd())
        await asyncio.to_thread(int)

    run(story())  # with Python 3.13 this warned that the threads did not end within 300 seconds


class SlowToEnd(ThreadPoolExecutor):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        threading.Event().wait(0.1)
        super().shutdown(wait, cancel_futures=cancel_futures)


def test_a_wait_for_nothing_is_told_from_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawsse.replay.virtual_clock.DEADLOCK", 0.01)
    loop = VirtualClockLoop()
    task = loop.create_task(asyncio.Event().wait())
    with pytest.raises(RuntimeError, match="the test hangs"):
        loop.run_until_complete(task)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    gc.collect()
