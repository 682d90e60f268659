"""rawsse.client.network.net: the fake stream, and waiting that a deadline or another task ends."""

from __future__ import annotations

import asyncio
import math

import pytest
from support.clock import run, ticks

from rawsse.client.network.clocks import Interrupted, Timeouts, Waiter
from rawsse.client.network.net import FakeStream, Stream
from rawsse.errors import APIConnectionError, ConfigurationError

# --- The fake stream -----------------------------------------------------------------------------------------------


def test_a_fake_stream_gives_its_chunks_as_they_were_cut_and_remembers_what_was_written() -> None:
    async def story() -> list[bytes]:
        stream: Stream = FakeStream([b"one", b"two"])
        await stream.write(b"a")
        await stream.write(b"b")
        assert isinstance(stream, FakeStream)
        assert stream.written == b"ab"
        return [await stream.read(1) for _ in range(4)]

    assert run(story()) == [b"one", b"two", b"", b""]


def test_a_fake_stream_may_end_with_an_exception() -> None:
    with pytest.raises(ConnectionResetError, match="gone"):
        run(FakeStream(end=ConnectionResetError("gone")).read(1))


def test_a_fake_stream_may_be_silent_for_a_while() -> None:
    async def story() -> tuple[bytes, float]:
        before = asyncio.get_running_loop().time()
        data = await FakeStream([2.5, 1, b"late"]).read(1)
        return data, asyncio.get_running_loop().time() - before

    assert run(story()) == (b"late", 3.5)


def test_a_fake_stream_may_wait_for_each_request() -> None:
    async def story() -> list[bytes]:
        stream = FakeStream([None, b"one", b"more", None, b"two"])
        await stream.write(b"a")
        heard = [await stream.read(1), await stream.read(1)]
        await stream.write(b"b")
        return [*heard, await stream.read(1)]

    assert run(story()) == [b"one", b"more", b"two"]


def test_a_fake_stream_that_waits_for_a_request_is_silent_until_it_is_written() -> None:
    async def story() -> bytes:
        stream = FakeStream([b"one", None, b"two"])
        assert await stream.read(1) == b"one"
        reader = asyncio.create_task(stream.read(1))
        await ticks(3)
        assert not reader.done()
        await stream.write(b"x")
        return await reader

    assert run(story()) == b"two"


def test_each_request_gets_one_answer_of_a_fake_stream_that_waits() -> None:
    async def story() -> tuple[bytes, bytes | None, bytes]:
        stream = FakeStream([None, b"one", None, b"two"])
        await stream.write(b"a")
        first, early = await stream.read(1), stream.read_nowait()
        reader = asyncio.create_task(stream.read(1))
        await ticks(3)
        await stream.write(b"b")
        return first, early, await reader

    assert run(story()) == (b"one", None, b"two")


def test_a_fake_stream_can_be_looked_at_without_waiting() -> None:
    async def story() -> list[bytes | None]:
        stream = FakeStream([b"one", None, b"two", 1.0, b"three"])
        looks = [stream.read_nowait(), stream.read_nowait()]
        await stream.write(b"x")
        looks += [stream.read_nowait(), stream.read_nowait()]
        return [*looks, await stream.read(1), stream.read_nowait()]

    assert run(story()) == [b"one", None, b"two", None, b"three", b""]
    assert FakeStream(end=None).read_nowait() is None
    with pytest.raises(ConnectionResetError):
        FakeStream(end=ConnectionResetError()).read_nowait()


@pytest.mark.parametrize("chunks", [[], [60.0, b"never"], [None, b"never"]])
def test_a_fake_stream_that_is_aborted_wakes_its_reader(chunks: list[bytes | float | None]) -> None:
    async def story() -> None:
        stream = FakeStream(chunks, end=None)
        reader = asyncio.create_task(stream.read(1))
        await ticks()
        stream.abort()
        with pytest.raises(ConnectionAbortedError, match="the stream was aborted"):
            await reader
        assert stream.is_aborted

    run(story())


def test_a_fake_stream_that_was_aborted_takes_and_gives_nothing() -> None:
    async def story() -> None:
        stream = FakeStream([b"one"])
        stream.abort()
        stream.abort()
        with pytest.raises(ConnectionAbortedError):
            await stream.read(1)
        with pytest.raises(ConnectionAbortedError):
            stream.read_nowait()
        with pytest.raises(ConnectionAbortedError):
            await stream.write(b"x")

    run(story())


# --- Timeouts ------------------------------------------------------------------------------------------------------


def test_four_clocks_are_on_by_default() -> None:
    assert Timeouts() == Timeouts(connect=10, head=120, silence=90, content=600, total=None)


@pytest.mark.parametrize("name", ["connect", "head", "silence", "content", "total"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_clock_must_be_positive_or_none(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"timeouts: {name} must be a number of seconds above 0, or None, not"):
        Timeouts(**{name: value})
    assert getattr(Timeouts(**{name: None}), name) is None


# --- Waiting -------------------------------------------------------------------------------------------------------


async def forever() -> None:
    await asyncio.Event().wait()


def test_a_wait_gives_what_it_waited_for() -> None:
    async def answer() -> int:
        return 42

    assert run(Waiter().wait(answer, math.inf)) == 42


def test_a_wait_ends_at_its_deadline() -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(TimeoutError):
            await Waiter().wait(forever, before + 5)
        return loop.time() - before

    assert run(story()) == 5


def test_a_wait_is_interrupted_from_another_task_in_the_next_step() -> None:
    async def story() -> None:
        waiter = Waiter()
        waiting = asyncio.create_task(waiter.wait(forever, math.inf))
        await ticks(2)
        waiter.interrupt()
        waiter.interrupt()
        await ticks(2)
        assert waiting.done()
        with pytest.raises(Interrupted):
            await waiting

    run(story())


def test_what_was_interrupted_stays_so() -> None:
    async def story() -> None:
        waiter = Waiter()
        waiter.interrupt()
        for _ in range(2):
            with pytest.raises(Interrupted):
                await waiter.wait(forever, math.inf)

    run(story())


@pytest.mark.parametrize("error", [ConnectionAbortedError("aborted"), APIConnectionError("refused")])
def test_what_an_interrupted_operation_says_is_of_no_interest(error: Exception) -> None:
    async def story() -> None:
        waiter = Waiter()

        async def fail() -> None:
            waiter.interrupt()
            raise error

        with pytest.raises(Interrupted):
            await waiter.wait(fail, math.inf)

    run(story())


def test_a_result_that_comes_with_the_interruption_is_of_no_interest() -> None:
    async def story() -> None:
        waiter = Waiter()

        async def answer() -> int:
            waiter.interrupt()
            return 42

        with pytest.raises(Interrupted):
            await waiter.wait(answer, math.inf)

    run(story())


def test_the_system_s_own_timeout_is_not_taken_for_the_deadline() -> None:
    async def give_up() -> None:
        raise TimeoutError(110, "Connection timed out")

    async def give_up_silently() -> None:
        raise TimeoutError

    with pytest.raises(ConnectionError, match="Connection timed out"):
        run(Waiter().wait(give_up, math.inf))
    with pytest.raises(ConnectionError, match="the connection timed out"):
        run(Waiter().wait(give_up_silently, math.inf))


def test_other_errors_pass() -> None:
    async def fail() -> None:
        raise ConnectionResetError("reset")

    with pytest.raises(ConnectionResetError, match="reset"):
        run(Waiter().wait(fail, math.inf))


def test_a_task_that_is_cancelled_while_it_waits_is_cancelled() -> None:
    async def story() -> None:
        waiting = asyncio.create_task(Waiter().wait(forever, math.inf))
        await ticks(2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(story())


def test_a_task_that_is_cancelled_and_interrupted_at_once_is_cancelled() -> None:
    async def story() -> None:
        waiter = Waiter()
        waiting = asyncio.create_task(waiter.wait(forever, math.inf))
        await ticks(2)
        waiter.interrupt()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(story())


# --- One timer for many waits --------------------------------------------------------------------------------------


async def for_seconds(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_a_timer_that_an_earlier_wait_left_behind_ends_no_later_one() -> None:
    async def story() -> float:
        loop, waiter = asyncio.get_running_loop(), Waiter()
        before = loop.time()
        await waiter.wait(lambda: for_seconds(3), before + 5)
        with pytest.raises(TimeoutError):
            await waiter.wait(forever, before + 12)
        return loop.time() - before

    assert run(story()) == 12


def test_a_later_wait_may_have_an_earlier_deadline() -> None:
    async def story() -> float:
        loop, waiter = asyncio.get_running_loop(), Waiter()
        before = loop.time()
        await waiter.wait(lambda: for_seconds(1), before + 50)
        with pytest.raises(TimeoutError):
            await waiter.wait(forever, before + 4)
        return loop.time() - before

    assert run(story()) == 4


def test_a_timer_that_fires_between_two_waits_does_nothing() -> None:
    async def story() -> None:
        loop, waiter = asyncio.get_running_loop(), Waiter()
        await waiter.wait(lambda: for_seconds(1), loop.time() + 2)
        await asyncio.sleep(10)
        await waiter.wait(lambda: for_seconds(1), math.inf)

    run(story())


def test_many_waits_that_end_in_time_take_one_timer() -> None:
    async def story() -> int:
        loop, waiter = asyncio.get_running_loop(), Waiter()
        timers: list[float] = []
        call_at = loop.call_at
        loop.call_at = lambda when, *rest, **more: (timers.append(when), call_at(when, *rest, **more))[1]  # type: ignore
        for _ in range(100):
            await waiter.wait(ticks, loop.time() + 90)
        return len(timers)

    assert run(story()) == 1


def test_an_interruption_leaves_no_timer_behind() -> None:
    async def story() -> float:
        loop, waiter = asyncio.get_running_loop(), Waiter()
        await waiter.wait(ticks, loop.time() + 90)
        waiter.interrupt()
        assert waiter._timer is None
        return loop.time()

    run(story())


def test_an_operation_that_makes_an_error_of_its_own_of_the_deadline_is_heard_and_the_task_goes_on() -> None:
    async def story() -> None:
        async def fail() -> None:
            try:
                await forever()
            except asyncio.CancelledError:
                raise ConnectionResetError("mine") from None

        with pytest.raises(ConnectionResetError, match="mine"):
            await Waiter().wait(fail, asyncio.get_running_loop().time() + 1)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(1)

    run(story())


def test_two_waits_within_each_other_that_end_at_once_end_the_outer_one() -> None:
    async def story() -> None:
        outer, inner = Waiter(), Waiter()
        at = asyncio.get_running_loop().time() + 1

        async def within() -> None:
            await inner.wait(forever, at)

        with pytest.raises(TimeoutError):
            await outer.wait(within, at)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(1)

    run(story())
