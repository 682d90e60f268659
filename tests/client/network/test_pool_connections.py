"""rawsse.client.network.pool: a connection at rest: it expires, its peer closes it, its answer ends at last, or unasked bytes
come."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
from support.clock import run, ticks
from support.pools import A, B, Network, serve
from support.sockets import serving, shout, trusting

from rawsse.client.network.net import connect
from rawsse.client.network.pool import MAX_LEFTOVER_BYTES, Connection, Pool, PoolLimits
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext

LAST_CHUNK = b"0\r\n\r\n"


async def rested(pool: Pool, *, end: bytes = LAST_CHUNK) -> Connection:
    """A connection that was used and given back; `end` is what had come of the end of its answer."""
    connection = await pool.acquire(A)
    serve(connection, end=end)
    connection.release()
    return connection


async def again(pool: Pool) -> bool:
    """Whether the next call gets a connection that was used before."""
    return (await pool.acquire(A)).is_reused


# --- Expiry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "is_reused"), [(0, True), (29.999, True), (30, False), (30.001, False)])
def test_a_connection_rests_for_idle_seconds_at_most(seconds: float, is_reused: bool) -> None:
    async def story() -> bool:
        pool = Network().pool()
        await rested(pool)
        await asyncio.sleep(seconds)
        return await again(pool)

    assert run(story()) is is_reused


def test_it_expires_also_if_nobody_asks() -> None:
    async def story() -> list[bool]:
        pool = (network := Network()).pool()
        await rested(pool)
        await asyncio.sleep(29.999)
        found = [network.streams[0].is_aborted]
        await asyncio.sleep(0.002)
        assert (pool.open_connections, pool.idle_connections) == (0, 0)
        return [*found, network.streams[0].is_aborted]

    assert run(story()) == [False, True]


def test_an_expired_connection_is_not_used_even_if_the_loop_was_too_busy_to_drop_it() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool)
        loop: Any = asyncio.get_running_loop()
        loop._clock.now += 30  # no tick has passed: no timer has run
        assert not network.streams[0].is_aborted
        assert not await again(pool)
        assert network.streams[0].is_aborted

    run(story())


def test_each_rest_counts_by_itself() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool)
        for _ in range(10):
            await asyncio.sleep(29)
            await rested(pool)
        assert len(network.streams) == 1

    run(story())


def test_connections_expire_one_by_one() -> None:
    async def story() -> list[int]:
        pool = (network := Network()).pool()
        held = [await pool.acquire(A) for _ in range(3)]
        for connection in held:
            serve(connection)
            connection.release()
            await asyncio.sleep(5)
        found = []
        for seconds in (14.9, 5, 5, 0.2):
            await asyncio.sleep(seconds)
            found.append(network.alive())
        return found

    # Given back at 0, 5 and 10 s; looked at after 29.9, 34.9, 39.9 and 40.1 s.
    assert run(story()) == [3, 2, 1, 0]


def test_at_max_age_a_connection_is_used_no_more() -> None:
    async def story() -> list[bool]:
        pool = Network().pool(PoolLimits(idle_seconds=None, max_age_seconds=600))
        await rested(pool)
        await asyncio.sleep(599)
        connection = await pool.acquire(A)
        serve(connection)
        connection.release()
        await asyncio.sleep(1)
        assert pool.open_connections == 0
        return [connection.is_reused, await again(pool)]

    assert run(story()) == [True, False]


def test_a_connection_that_grew_too_old_in_use_is_dropped_when_it_is_given_back() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        connection = await pool.acquire(A)
        await asyncio.sleep(600)
        assert not network.streams[0].is_aborted
        serve(connection)
        connection.release()
        assert network.streams[0].is_aborted

    run(story())


def test_without_limits_of_time_a_connection_is_kept_and_no_timer_is_set(timers: list[asyncio.TimerHandle]) -> None:
    async def story() -> bool:
        pool = Network().pool(PoolLimits(idle_seconds=None, max_age_seconds=None))
        await rested(pool)
        assert timers == []
        await asyncio.sleep(1e6)
        return await again(pool)

    assert run(story())


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """The timers that the pool has set. Those of the test itself, and of waiting, are not among them."""
    made: list[asyncio.TimerHandle] = []
    call_at = asyncio.SelectorEventLoop.call_at

    def spy(loop: Any, when: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
        handle = call_at(loop, when, callback, *args, **options)
        if isinstance(getattr(callback, "__self__", None), Pool):
            made.append(handle)
        return handle

    monkeypatch.setattr(asyncio.SelectorEventLoop, "call_at", spy)
    return made


def live(timers: list[asyncio.TimerHandle]) -> int:
    now = asyncio.get_running_loop().time()
    return sum(not timer.cancelled() and timer.when() > now for timer in timers)


def test_there_is_one_timer_for_all_and_none_where_nothing_rests(timers: list[asyncio.TimerHandle]) -> None:
    async def story() -> None:
        pool = Network().pool()
        held = [await pool.acquire(A) for _ in range(50)]
        assert timers == []
        for connection in held:
            serve(connection)
            connection.release()
            assert live(timers) == 1
            await asyncio.sleep(0.1)
        assert len(timers) == 1
        for _ in held:
            await pool.acquire(A)
        assert live(timers) == 0
        await rested(pool)
        assert live(timers) == 1
        pool.close()
        assert live(timers) == 0

    run(story())


def test_the_timer_goes_by_the_first_to_expire(timers: list[asyncio.TimerHandle]) -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(idle_seconds=30, max_age_seconds=40))
        old = await pool.acquire(A)
        await asyncio.sleep(20)
        young = await pool.acquire(A)
        for connection in (young, old):
            serve(connection)
            connection.release()
        assert live(timers) == 1
        await asyncio.sleep(20.001)
        assert [stream.is_aborted for stream in network.streams] == [True, False]
        await asyncio.sleep(10)
        assert network.alive() == 0

    run(story())


# --- The peer closes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_connection_that_the_peer_closed_is_not_used_again(how: str) -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool)
        getattr(network.streams[0], how)()
        assert not await again(pool)
        assert network.streams[0].is_aborted
        assert pool.open_connections == 1

    run(story())


def test_of_several_the_dead_are_dropped_and_a_living_one_is_used() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        held = [await pool.acquire(A) for _ in range(4)]
        for connection in held:
            serve(connection)
            connection.release()
        for index in (2, 3):
            network.streams[index].close()
        connection = await pool.acquire(A)
        assert connection.stream is network.streams[1]
        assert (pool.open_connections, pool.idle_connections) == (2, 1)
        assert [stream.is_aborted for stream in network.streams] == [False, False, True, True]

    run(story())


def test_a_dead_connection_makes_room_before_a_living_one_does() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_connections=2))
        await rested(pool)
        connection = await pool.acquire(B)
        serve(connection)
        connection.release()
        network.streams[1].close()
        await pool.acquire(B)
        assert [stream.is_aborted for stream in network.streams] == [False, True, False]

    run(story())


# --- What still comes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(LAST_CHUNK) + 1))
def test_the_end_of_the_answer_may_come_while_the_connection_rests(cut: int) -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        first = await rested(pool, end=LAST_CHUNK[:cut])
        if LAST_CHUNK[cut:]:
            network.streams[0].send(LAST_CHUNK[cut:])
        second = await pool.acquire(A)
        assert second.is_reused
        assert second.stream is first.stream
        serve(second)

    run(story())


def test_it_may_come_byte_by_byte_and_have_trailers() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool, end=b"")
        for byte in b"0\r\nX-Time: 3\r\n\r\n":
            network.streams[0].send(bytes([byte]))
        assert await again(pool)

    run(story())


def test_so_may_the_last_of_an_answer_whose_length_is_told() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        connection = await pool.acquire(A)
        connection.http.send_request("GET", "/", [])
        connection.http.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        while connection.http.next_event() is not None:
            pass
        connection.release()
        network.streams[0].send(b"more")
        assert await again(pool)

    run(story())


def test_an_end_that_was_read_but_not_looked_at_counts() -> None:
    async def story() -> None:
        pool = Network().pool()
        connection = await pool.acquire(A)
        connection.http.send_request("GET", "/", [])
        connection.http.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        connection.http.next_event()
        connection.release()
        assert await again(pool)

    run(story())


def test_a_connection_whose_end_is_still_to_come_is_passed_over_and_used_later() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool, end=b"")
        second = await pool.acquire(A)
        assert not second.is_reused
        assert (pool.open_connections, pool.idle_connections) == (2, 1)
        network.streams[0].send(LAST_CHUNK)
        third = await pool.acquire(A)
        assert third.stream is network.streams[0]

    run(story())


def test_one_whose_end_never_comes_expires() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool, end=b"")
        await asyncio.sleep(30.001)
        assert network.streams[0].is_aborted

    run(story())


def test_one_whose_end_is_still_to_come_makes_room_for_who_waits() -> None:
    async def story() -> None:
        pool = (network := Network()).pool(PoolLimits(max_connections=1))
        holder = await pool.acquire(A)
        waiting = asyncio.create_task(pool.acquire(A))
        await ticks()
        serve(holder, end=b"")
        holder.release()
        assert network.streams[0].is_aborted
        assert not (await waiting).is_reused

    run(story())


@pytest.mark.parametrize(
    "unasked",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        b"\r\n",
        b"\0",
    ],
    ids=["a response", "408", "an empty line", "NUL"],
)
@pytest.mark.parametrize("end", [LAST_CHUNK, b""], ids=["after the end", "with the end"])
def test_what_nobody_asked_for_is_never_the_answer_to_the_next_request(unasked: bytes, end: bytes) -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool, end=end)
        network.streams[0].send(LAST_CHUNK.removeprefix(end) + unasked)
        assert not await again(pool)
        assert network.streams[0].is_aborted

    run(story())


def test_a_connection_with_bytes_that_nobody_asked_for_is_dropped_when_it_is_given_back() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool, end=LAST_CHUNK + b"HTTP/1.1 200 OK\r\n")
        assert network.streams[0].is_aborted

    run(story())


def test_an_end_that_breaks_http_ends_the_connection() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool, end=b"")
        network.streams[0].send(b"nonsense\r\n")
        assert not await again(pool)
        assert network.streams[0].is_aborted

    run(story())


def test_a_close_right_after_the_end_ends_the_connection() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        await rested(pool, end=b"")
        network.streams[0].send(LAST_CHUNK)
        network.streams[0].close()
        assert not await again(pool)
        assert network.streams[0].is_aborted

    run(story())


def chunk(size: int) -> bytes:
    """A chunk of so many bytes, of which 9 are around its data: the five digits of its length, and two line ends."""
    return b"%05x\r\n%b\r\n" % (size - 9, b"x" * (size - 9))


@pytest.mark.parametrize(("excess", "is_reused"), [(0, True), (1, False)])
def test_what_still_comes_is_read_up_to_a_bound(excess: int, is_reused: bool) -> None:
    async def story() -> bool:
        pool = (network := Network()).pool(max_leftover_bytes=1000)
        await rested(pool, end=b"")
        for piece in (chunk(500), chunk(495 + excess), LAST_CHUNK):
            network.streams[0].send(piece)
        return await again(pool)

    assert run(story()) is is_reused


def test_the_bound_is_64_kib_and_counts_afresh_for_each_exchange() -> None:
    async def story() -> None:
        pool = (network := Network()).pool()
        for _ in range(3):
            await rested(pool, end=b"")
            network.streams[0].send(chunk(MAX_LEFTOVER_BYTES - 5) + LAST_CHUNK)
        assert await again(pool)
        assert len(network.streams) == 1

    assert MAX_LEFTOVER_BYTES == 65536
    run(story())


# --- With real sockets ---------------------------------------------------------------------------------------------

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def fetch(connection: Connection) -> None:
    """A whole exchange, over the network."""
    await connection.stream.write(connection.http.send_request("GET", "/", []))
    while not connection.http.is_reusable:
        connection.http.receive_data(await connection.stream.read(100))
        while connection.http.next_event() is not None:
            pass


def end(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "RST":
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_real_server_that_closes_is_noticed_before_the_next_request(how: str, tls: bool) -> None:
    async def story() -> None:
        is_released = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await is_released.wait()
            end(writer, how)

        async with serving(answer, tls=tls) as origin:
            pool = Pool(connect, trusting() if tls else TLSContext())
            first = await pool.acquire(Route(origin))
            await fetch(first)
            first.release()
            is_released.set()
            await asyncio.sleep(2)
            second = await pool.acquire(Route(origin))
            assert not second.is_reused
            assert pool.open_connections == 1
            pool.close()

    run(story())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_real_connection_carries_one_exchange_after_another(tls: bool) -> None:
    async def story() -> None:
        accepted = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(writer)
            for _ in range(5):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER)

        async with serving(answer, tls=tls) as origin:
            pool = Pool(connect, trusting() if tls else TLSContext())
            for number in range(5):
                connection = await pool.acquire(Route(origin))
                assert connection.is_reused is (number > 0)
                await fetch(connection)
                connection.release()
            pool.close()
            assert len(accepted) == 1

    run(story())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_call_that_is_cancelled_while_it_really_connects_leaves_no_socket(tls: bool) -> None:
    async def story() -> None:
        async with serving(shout, tls=tls) as origin:
            pool = Pool(connect, trusting() if tls else TLSContext())
            for count in range(15):
                call = asyncio.create_task(pool.acquire(Route(origin)))
                await ticks(count)
                call.cancel()
                await asyncio.wait([call])
                if not call.cancelled():
                    call.result().drop()
                assert pool.open_connections == 0

    run(story())  # which finds what is left
