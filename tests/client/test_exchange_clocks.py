"""rawsse.client.exchange: the five clocks, and being closed from another task, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.answers import acquiring, head, plain
from support.clock import run, ticks

from rawsse.client.exchange import REFUSAL_SECONDS, Exchange
from rawsse.client.moments import RequestData
from rawsse.client.network import Origin, Pool, PoolLimits, Route, TLSContext
from rawsse.client.network.clocks import Timeouts
from rawsse.client.network.net import FakeStream, Stream
from rawsse.errors import (
    APIError,
    APITimeoutError,
    ConnectTimeoutError,
    ContentTimeoutError,
    HeadTimeoutError,
    OverloadedError,
    SilenceTimeoutError,
    StreamCancelledError,
    TotalTimeoutError,
)

REQUEST = RequestData("POST", "/v1/messages", "api.example", (("x-api-key", "secret"),), b'{"a":1}')
OFF = Timeouts(connect=None, head=None, silence=None, content=None)


def exchange_over(stream: Stream, timeouts: Timeouts = OFF) -> Exchange:
    async def connect() -> Stream:
        return stream

    return Exchange(acquiring(connect), REQUEST, timeouts)


async def read_through(exchange: Exchange) -> None:
    await exchange.open()
    while await exchange.read():
        pass


# --- The five clocks -----------------------------------------------------------------------------------------------


async def silent_connect() -> Stream:
    await asyncio.Event().wait()
    raise AssertionError


class StuckWrite(FakeStream):
    async def write(self, data: bytes) -> None:
        await asyncio.Event().wait()


async def time_of_failure(exchange: Exchange) -> tuple[APITimeoutError, float]:
    before = asyncio.get_running_loop().time()
    with pytest.raises(APITimeoutError) as caught:
        await read_through(exchange)
    return caught.value, asyncio.get_running_loop().time() - before


SECOND: list[bytes | float] = [1.0, b"x"]
DRIP = [head(), *SECOND * 30]
NO_HEAD = "no response head within 4 s of the request"
SILENT = "not a single byte came for 5 s, not even a ping"
NO_CONTENT = "the connection lives, but no content came for 7 s"


def connecting(timeouts: Timeouts) -> Exchange:
    return Exchange(acquiring(silent_connect), REQUEST, timeouts)


def reading(timeouts: Timeouts, *chunks: bytes | float) -> Exchange:
    return exchange_over(FakeStream(chunks, end=None), timeouts)


CLOCKS: list[tuple[Callable[[], Exchange], str, type[APITimeoutError], float, str]] = [
    (
        lambda: connecting(Timeouts(connect=3)),
        "connect",
        ConnectTimeoutError,
        3,
        "no connection to api.example within 3 s",
    ),
    (lambda: exchange_over(StuckWrite(), Timeouts(head=4)), "send", HeadTimeoutError, 4, NO_HEAD),
    (lambda: reading(Timeouts(head=4)), "head", HeadTimeoutError, 4, NO_HEAD),
    (lambda: reading(Timeouts(head=4), 3, b"HTTP/1.1 "), "head", HeadTimeoutError, 4, NO_HEAD),
    (lambda: reading(Timeouts(silence=5), head()), "open", SilenceTimeoutError, 5, SILENT),
    (lambda: reading(Timeouts(silence=5), head(), 4, b"x"), "open", SilenceTimeoutError, 9, SILENT),
    (lambda: reading(Timeouts(silence=5, content=7), *DRIP), "open", ContentTimeoutError, 7, NO_CONTENT),
    (
        lambda: reading(Timeouts(total=8.5), *DRIP),
        "open",
        TotalTimeoutError,
        8.5,
        "the whole call took longer than 8.5 s",
    ),
    (lambda: connecting(Timeouts(total=2)), "connect", TotalTimeoutError, 2, "the whole call took longer than 2 s"),
]


@pytest.mark.parametrize("start", [0.0, 1000.0, 100_000.3])
@pytest.mark.parametrize(("make", "phase", "cls", "seconds", "message"), CLOCKS)
def test_each_clock_raises_its_own_error_at_its_time(
    make: Callable[[], Exchange], phase: str, cls: type[APITimeoutError], seconds: float, message: str, start: float
) -> None:
    error, passed = run(time_of_failure(make()), start=start)
    assert (type(error), error.message, error.phase) == (cls, message, phase)
    assert passed == pytest.approx(seconds, abs=1e-6)
    assert error.safe_to_retry


@pytest.mark.parametrize("start", [1000.0, 100_000.3])
def test_a_total_of_a_tenth_of_a_second_is_told_as_the_total(start: float) -> None:
    error, _ = run(time_of_failure(exchange_over(FakeStream(DRIP), Timeouts(total=0.1))), start=start)
    assert (type(error), error.seconds) == (TotalTimeoutError, 0.1)


TICK = 1 / 1024


@pytest.mark.parametrize(
    ("timeouts", "before"),
    [
        (Timeouts(head=4), []),
        (Timeouts(silence=4), [head()]),
        (Timeouts(content=4), [head()]),
        (Timeouts(total=4), [head()]),
    ],
    ids=["head", "silence", "content", "total"],
)
def test_what_comes_a_tick_before_the_time_is_in_time_and_a_tick_after_it_is_late(
    timeouts: Timeouts, before: Any
) -> None:
    last = b"x" if before else head()
    run(read_through(exchange_over(FakeStream([*before, 4 - TICK, last]), timeouts)))
    with pytest.raises(APITimeoutError):
        run(read_through(exchange_over(FakeStream([*before, 4 + TICK, last]), timeouts)))


def test_content_starts_its_clock_afresh() -> None:
    async def story() -> float:
        exchange = exchange_over(FakeStream(DRIP), Timeouts(content=5))
        await exchange.open()
        for count in range(30):
            await exchange.read()
            if count % 4 == 3:
                exchange.note_content()
        return exchange.timing.elapsed()

    assert run(story()) == 30


def test_a_slow_consumer_is_not_punished() -> None:
    async def story() -> int:
        exchange = exchange_over(FakeStream([head(), b"a", 1, b"b", 1, b"c"]), Timeouts(silence=3, content=5))
        await exchange.open()
        count = 0
        while await exchange.read():
            count += 1
            await asyncio.sleep(100)
        return count

    assert run(story()) == 3


def test_a_large_request_may_take_its_time_as_long_as_it_flows() -> None:
    class Slow(FakeStream):
        async def write(self, data: bytes) -> None:
            await asyncio.sleep(3)
            await super().write(data)

    async def story() -> tuple[int, float]:
        stream = Slow([head()])

        async def connect() -> Stream:
            return stream

        request = RequestData("POST", "/", "api.example", (), b"x" * 1_000_000)
        exchange = Exchange(acquiring(connect), request, Timeouts(head=4))
        await exchange.open()
        return stream.written.count(b"x"), exchange.timing.elapsed()

    assert run(story()) == (1_000_001, 12)  # four pieces; the one x more is in "example"


def test_with_every_clock_off_nothing_ends_the_wait() -> None:
    async def story() -> bytes:
        exchange = exchange_over(FakeStream([86_400, head(), 86_400, b"x"]), OFF)
        await exchange.open()
        return await exchange.read()

    assert run(story()) == b"x"


# --- Closed from another task --------------------------------------------------------------------------------------


async def close_while(doing: Awaitable[Any], exchange: Exchange) -> APIError:
    """Close the exchange while another task is `doing` something with it; what that task gets, in the very next steps."""
    task = asyncio.ensure_future(doing)
    await ticks(5)
    before = asyncio.get_running_loop().time()
    exchange.close()
    exchange.close()
    with pytest.raises(APIError) as caught:
        await task
    assert asyncio.get_running_loop().time() == before
    return caught.value


@pytest.mark.parametrize(
    ("make", "phase"),
    [
        (lambda: Exchange(acquiring(silent_connect), REQUEST, Timeouts()), "connect"),
        (lambda: exchange_over(StuckWrite()), "send"),
        (lambda: exchange_over(FakeStream(end=None)), "head"),
        (lambda: exchange_over(FakeStream([head("500 No")], end=None)), "open"),
        (lambda: exchange_over(FakeStream([head() + b"x"], end=None)), "open"),
    ],
    ids=["connect", "send", "head", "refusal", "body"],
)
def test_closing_wakes_whoever_waits_at_every_phase(make: Callable[[], Exchange], phase: str) -> None:
    async def story() -> APIError:
        exchange = make()
        return await close_while(read_through(exchange), exchange)

    error = run(story())
    assert type(error) is StreamCancelledError
    assert (error.message, error.phase, error.safe_to_retry) == (
        "the stream was closed while it was waited for",
        phase,
        False,
    )


def test_a_connection_that_comes_up_as_the_exchange_is_closed_is_dropped() -> None:
    stream = FakeStream(end=None)
    exchange: Exchange

    async def connect() -> Stream:
        exchange.close()
        return stream

    exchange = Exchange(acquiring(connect), REQUEST, OFF)
    with pytest.raises(StreamCancelledError):
        run(exchange.open())
    assert stream.is_aborted


def test_an_exchange_that_never_began_never_ended() -> None:
    exchange = exchange_over(FakeStream())
    exchange.close()
    assert exchange.timing.ended is None


def test_an_exchange_that_was_closed_first_does_not_connect() -> None:
    async def connect() -> Stream:
        raise AssertionError("it connected")

    async def story() -> None:
        exchange = Exchange(acquiring(connect), REQUEST, OFF)
        exchange.close()
        await exchange.open()

    with pytest.raises(StreamCancelledError):
        run(story())


def test_a_task_that_is_cancelled_drops_the_connection_in_the_same_step() -> None:
    async def story() -> bool:
        stream = FakeStream([head()], end=None)
        task = asyncio.create_task(read_through(exchange_over(stream)))
        await ticks(5)
        task.cancel()
        await ticks()
        return stream.is_aborted and task.cancelled()

    assert run(story())


# --- Standing in line ------------------------------------------------------------------------------------------------


async def with_one_connection(timeouts: Timeouts, held_seconds: float) -> Exchange:
    """An exchange that must wait so long for the only connection there may be; then connecting takes three seconds."""

    async def connect(*_: object) -> Stream:
        await asyncio.sleep(3)
        return FakeStream([plain(b"x")])

    pool = Pool(connect, TLSContext(), PoolLimits(max_connections=1))
    route = Route(Origin("http", "api.example", 80))
    held = await pool.acquire(route)
    asyncio.get_running_loop().call_later(held_seconds, held.drop)
    shortage = pool.shortage or ""
    return Exchange(
        lambda note_line: pool.acquire(route, note_line=note_line), REQUEST, timeouts, why_waiting=lambda: shortage
    )


def test_who_stands_in_line_does_not_connect_yet() -> None:
    async def story() -> float:
        exchange = await with_one_connection(Timeouts(connect=5, head=60), held_seconds=50)
        await exchange.open()
        return exchange.timing.connected or 0

    assert run(story()) == 53


@pytest.mark.parametrize(
    ("timeouts", "seconds", "text"),
    [
        (
            Timeouts(connect=5, head=20),
            20,
            r"^no connection was free within 20 s \(all 1 connections .* are in use\)$",
        ),
        (Timeouts(connect=2, head=60), 52, "^no connection to api.example within 2 s"),
    ],
)
def test_the_line_has_a_clock_and_connecting_has_another(timeouts: Timeouts, seconds: float, text: str) -> None:
    async def story() -> None:
        exchange = await with_one_connection(timeouts, held_seconds=50)
        with pytest.raises(ConnectTimeoutError, match=text):
            await exchange.open()
        assert exchange.timing.elapsed() == seconds
        await asyncio.sleep(60)

    run(story())


def test_the_clock_of_the_whole_call_runs_in_the_line_too() -> None:
    async def story() -> None:
        exchange = await with_one_connection(Timeouts(connect=5, head=60, total=30), held_seconds=50)
        with pytest.raises(TotalTimeoutError):
            await exchange.open()
        assert exchange.timing.elapsed() == 30
        await asyncio.sleep(60)

    run(story())


# --- The body of a refusal -------------------------------------------------------------------------------------------


def test_a_refusal_whose_body_drips_is_told_after_a_few_seconds() -> None:
    async def story() -> float:
        drip: list[bytes | float] = [item for _ in range(90) for item in (1.0, b"x")]
        exchange = exchange_over(FakeStream([head("529 Overloaded", content_length="99"), *drip]), Timeouts())
        with pytest.raises(OverloadedError):
            await exchange.open()
        return exchange.timing.elapsed()

    assert run(story()) == REFUSAL_SECONDS
