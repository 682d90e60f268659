"""rawsse.replay.fakes: connections made of chunks, and links that a function makes."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.clock import run, ticks
from support.networks import Drive, every_network
from support.pools import A, StillNetwork

from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.connect import Network
from rawsse.client.network.link import Aborted, Expired, drive
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import APIConnectionError
from rawsse.replay.fakes import FakeLink, FakeStream

# --- Streams -------------------------------------------------------------------------------------------------------


def entered(*chunks: bytes | float | None, end: bytes | BaseException | None = b"") -> FakeStream:
    """A stream on a network whose time passes only in waits; it began at 1000."""
    stream = FakeStream(chunks, end=end)
    stream.enter(StillNetwork())
    return stream


def network_of(stream: FakeStream) -> StillNetwork:
    network = stream._network
    assert isinstance(network, StillNetwork)
    return network


def read(stream: FakeStream, deadline: float = math.inf) -> bytes:
    return drive(stream.read(deadline))


def write(stream: FakeStream, data: bytes = b"x") -> None:
    drive(stream.write(data, math.inf))


def test_a_stream_gives_its_chunks_as_they_were_cut_and_remembers_what_was_written() -> None:
    stream = entered(b"one", b"two")
    write(stream, b"a")
    write(stream, b"b")
    assert [read(stream) for _ in range(4)] == [b"one", b"two", b"", b""]
    assert stream.written == b"ab"


def test_what_was_written_before_a_chunk_came_is_not_the_request_that_the_next_one_waits_for() -> None:
    stream = entered(b"one", None, b"two")
    write(stream)
    assert (read(stream), stream.read_ready()) == (b"one", None)
    write(stream)
    assert read(stream) == b"two"


def test_a_stream_may_end_with_an_exception() -> None:
    stream = entered(b"one", end=ConnectionResetError("gone"))
    assert read(stream) == b"one"
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="gone"):
            read(stream)
    with pytest.raises(ConnectionResetError, match="gone"):
        stream.read_ready()


def test_a_stream_may_be_silent_for_a_while() -> None:
    stream = entered(2.5, 1, b"late")
    assert read(stream) == b"late"
    assert network_of(stream).time == 1003.5


@pytest.mark.parametrize(("late", "times"), [(0.25, [1001, 1002, 1003, 1004]), (1.5, [1001, 1002.5, 1004, 1005.5])])
def test_a_read_that_is_late_makes_those_behind_it_no_later(late: float, times: list[float]) -> None:
    stream = entered(None, *(1.0, b"x") * 4, None, 1.0, b"y", 1.0, b"z")
    write(stream)
    for time in times:
        assert (read(stream), network_of(stream).time) == (b"x", time)
        network_of(stream).time += late
    network_of(stream).time += 10
    write(stream)
    begun = network_of(stream).time
    assert [(read(stream), network_of(stream).time - begun) for _ in range(2)] == [(b"y", 1), (b"z", 2)]


def test_a_read_ends_at_its_deadline_and_the_silence_goes_on() -> None:
    stream = entered(2.5, b"late")
    with pytest.raises(Expired):
        read(stream, 1001.0)
    assert network_of(stream).time == 1001.0
    assert read(stream, 1003.0) == b"late"
    assert network_of(stream).time == 1002.5


def test_a_stream_without_an_end_is_silent() -> None:
    stream = entered(end=None)
    assert stream.read_ready() is None
    with pytest.raises(Expired):
        read(stream, 2000.0)


def test_a_stream_may_end_in_silence_after_a_silence() -> None:
    stream = entered(1.0, end=None)
    with pytest.raises(Expired):
        read(stream, 2000.0)


def test_a_pushed_stream_keeps_its_times() -> None:
    async def story() -> tuple[list[tuple[float, bytes]], list[Exception | None]]:
        network, ended = AsyncioNetwork(), list[Exception | None]()
        stream, heard = FakeStream([b"one", 2.0, b"two", None, b"three"]), list[tuple[float, bytes]]()
        stream.enter(network)
        began = network.now()
        stream.push_to(lambda data: heard.append((network.now() - began, data)), ended.append)
        await asyncio.sleep(5)
        await stream.write(b"x", math.inf)
        await asyncio.sleep(1)
        return heard, ended

    assert run(story()) == ([(0, b"one"), (2, b"two"), (5, b"three"), (5, b"")], [None])


def test_a_stream_may_wait_for_each_request() -> None:
    stream = entered(None, b"one", b"more", None, b"two")
    write(stream)
    heard = [read(stream), read(stream), stream.read_ready()]
    write(stream)
    assert [*heard, read(stream)] == [b"one", b"more", None, b"two"]


def test_a_stream_that_waits_for_a_request_wakes_its_reader_when_it_is_written() -> None:
    stream = entered(b"one", None, b"two")
    assert read(stream) == b"one"
    network_of(stream).call_at(1005.0, lambda: write(stream))
    assert read(stream) == b"two"
    assert network_of(stream).time == 1005.0


def test_what_comes_without_waiting_can_be_looked_at() -> None:
    stream = entered(b"one", None, b"two", 1.0, b"three")
    looks = [stream.read_ready(), stream.read_ready()]
    write(stream)
    looks += [stream.read_ready(), stream.read_ready()]
    assert [*looks, read(stream), stream.read_ready()] == [b"one", None, b"two", None, b"three", b""]


@pytest.mark.parametrize("chunks", [[], [60.0, b"never"], [None, b"never"]])
def test_a_stream_that_is_aborted_wakes_its_reader(chunks: list[bytes | float | None]) -> None:
    stream = entered(*chunks, end=None)
    network_of(stream).call_at(1001.0, stream.abort)
    with pytest.raises(Aborted):
        read(stream)
    assert network_of(stream).time == 1001.0
    assert stream.is_aborted


def test_a_stream_that_was_aborted_takes_and_gives_nothing() -> None:
    stream = entered(b"one")
    stream.abort()
    stream.abort()
    waits: list[Callable[[], Any]] = [lambda: read(stream), stream.read_ready, lambda: write(stream)]
    for wait in waits:
        with pytest.raises(Aborted):
            wait()


@every_network
def test_a_stream_reads_alike_on_every_network(on: Drive) -> None:
    async def story(network: Network, _: object) -> list[bytes]:
        stream = FakeStream([None, b"one", 0.01, b"two"])
        link = await FakeLink(network, returning(stream)).connect(A, TLSContext(), math.inf)
        await link.write(b"x", math.inf)
        return [await link.read(math.inf) for _ in range(3)]

    assert on(story, contextlib.nullcontext()) == [b"one", b"two", b""]


# --- Links ---------------------------------------------------------------------------------------------------------


def returning(stream: FakeStream) -> Callable[[Route, TLSContext], Coroutine[Any, Any, FakeStream]]:
    async def connect(route: Route, tls: TLSContext) -> FakeStream:
        del route, tls
        return stream

    return connect


async def refuse(route: Route, tls: TLSContext) -> FakeStream:
    raise APIConnectionError(f"cannot connect to {route.origin}: no route to host")


async def hang(route: Route, tls: TLSContext) -> FakeStream:
    await asyncio.Event().wait()
    return FakeStream()


def test_the_function_gets_the_route_and_the_tls_context() -> None:
    tls, got = TLSContext(), []

    async def connect(route: Route, context: TLSContext) -> FakeStream:
        got.append((route, context))
        return FakeStream([b"one"])

    link = drive(FakeLink(SocketNetwork(), connect).connect(A, tls, math.inf))
    assert got == [(A, tls)]
    assert link.read_ready() == b"one"


def test_what_the_function_raises_is_raised() -> None:
    async def story() -> None:
        await FakeLink(AsyncioNetwork(), refuse).connect(A, TLSContext(), math.inf)

    for call in (lambda: run(story()), lambda: drive(FakeLink(SocketNetwork(), refuse).connect(A, TLSContext(), 0))):
        with pytest.raises(APIConnectionError, match="no route to host"):
            call()


def test_in_blocking_code_the_function_may_not_wait() -> None:
    async def wait(route: Route, tls: TLSContext) -> FakeStream:
        await asyncio.sleep(0)
        return FakeStream()

    with pytest.raises(RuntimeError, match="async code cannot wait here"):
        drive(FakeLink(SocketNetwork(), wait).connect(A, TLSContext(), math.inf))


def test_a_connect_ends_at_its_deadline() -> None:
    async def story() -> float:
        network = AsyncioNetwork()
        before = network.now()
        with pytest.raises(Expired):
            await FakeLink(network, hang).connect(A, TLSContext(), before + 5)
        return network.now() - before

    assert run(story()) == 5


def test_a_link_can_be_aborted_before_during_and_after_its_connect() -> None:
    async def story() -> None:
        link = FakeLink(AsyncioNetwork(), hang)
        connecting = asyncio.create_task(link.connect(A, TLSContext(), math.inf))
        await ticks(3)
        link.abort()
        with pytest.raises(Aborted):
            await connecting
        with pytest.raises(Aborted):
            await link.connect(A, TLSContext(), math.inf)
        stream = FakeStream()
        link = FakeLink(AsyncioNetwork(), returning(stream))
        await link.connect(A, TLSContext(), math.inf)
        link.abort()
        assert stream.is_aborted

    run(story())


def test_a_stream_that_comes_although_it_is_no_longer_wanted_is_aborted() -> None:
    stream = FakeStream()

    async def stubborn(route: Route, tls: TLSContext) -> FakeStream:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return stream
        raise AssertionError

    async def story() -> None:
        link = FakeLink(AsyncioNetwork(), stubborn)
        connecting = asyncio.create_task(link.connect(A, TLSContext(), math.inf))
        await ticks(3)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    run(story())
    assert stream.is_aborted
