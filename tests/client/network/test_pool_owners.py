"""rawsse.client.network.pool, `Pools`: by event loop and by process; that pools and clients really use connections again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import struct
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from support.answers import ASK, KEY, answer
from support.background import PATIENCE, Background
from support.clock import VirtualClockLoop, run, ticks
from support.networks import SOON, Drive, every_event_loop, every_network, later, passed
from support.pools import LAST_CHUNK, Peer, acquire, counts
from support.sockets import serving, shout, trusting
from support.streams import ANSWER, TOOL_CALL

from rawsse.client.blocking import Client
from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.client import AsyncClient
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.connect import Network
from rawsse.client.network.link import Aborted, Link, drive
from rawsse.client.network.pool import Lease, Pool, PoolLimits, Pools
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import StreamCancelledError
from rawsse.http1 import ClientConnection

both = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])

# --- Pools ---------------------------------------------------------------------------------------------------------


@every_event_loop
def test_the_peer_of_a_lease_that_was_lost_sees_the_end_of_its_connection(on: Drive) -> None:
    ended = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()

    async def story(network: Network, origin: Origin) -> None:
        lease = Pool(network, TLSContext()).acquire(Route(origin))
        await lease.connect(math.inf)
        await ticks(10)
        assert not ended.is_set()
        del lease
        await asyncio.wait_for(ended.wait(), PATIENCE)

    on(story, serving(listen))


class Made:
    """Pools whose links are fakes."""

    def __init__(self, *, is_blocking: bool = False) -> None:
        self.streams: list[Peer] = []
        self.pools = Pools(self.pool, SocketNetwork if is_blocking else AsyncioNetwork)

    def pool(self, network: Network) -> Pool:
        def link(_: Network) -> Peer:
            self.streams.append(Peer())
            self.streams[-1].enter(network)
            return self.streams[-1]

        return Pool(network, TLSContext(), connect=link)


def in_thread(work: Callable[[], Any]) -> Any:
    """What it returns in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(PATIENCE)
    return found[0]


def test_all_threads_of_blocking_code_share_a_pool() -> None:
    pools = Made(is_blocking=True).pools
    assert pools.here() is pools.here() is in_thread(pools.here)
    assert isinstance(pools.here().network, SocketNetwork)


def test_each_event_loop_has_a_pool_of_its_own() -> None:
    pools = Made().pools

    async def story() -> list[Pool]:
        assert isinstance(pools.here().network, AsyncioNetwork)
        return [pools.here(), pools.here()]

    first, second = run(story()), in_thread(lambda: run(story()))
    assert first[0] is first[1]
    assert second[0] is second[1]
    assert first[0] is not second[0]


def test_the_pool_of_a_loop_that_is_closed_is_forgotten() -> None:
    pools = Made().pools

    async def story() -> int:
        lease = acquire(pools.here())
        assert not lease.is_reused
        return counts(pools)[0]

    assert [run(story()) for _ in range(3)] == [1, 1, 1]
    assert len(pools._pools) == 1


def test_after_the_close_there_is_no_pool() -> None:
    made = Made(is_blocking=True)
    acquired = acquire(made.pools.here())
    made.pools.close()
    made.pools.close()
    assert made.streams[0].is_aborted
    with pytest.raises(RuntimeError, match=r"^the client is closed$"):
        made.pools.here()
    acquired.drop()


def test_the_close_reaches_calls_in_other_loops() -> None:
    made = Made()
    waits = threading.Event()

    async def read() -> None:
        lease = acquire(made.pools.here())
        assert lease.connection is not None
        waits.set()
        with pytest.raises(Aborted):
            await lease.connection.link.read(math.inf)

    thread = threading.Thread(target=lambda: asyncio.run(read()))
    thread.start()
    assert waits.wait(PATIENCE)
    made.pools.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert made.streams[0].is_aborted


def test_the_close_is_not_stopped_by_a_loop_that_is_closed() -> None:
    made = Made()

    async def use() -> Lease:
        return acquire(made.pools.here())

    kept = in_thread(lambda: asyncio.run(use()))

    async def story() -> None:
        lease = acquire(made.pool(AsyncioNetwork()))
        made.pools.close()
        lease.drop()

    asyncio.run(story())
    assert made.pools.is_closed
    assert [stream.is_aborted for stream in made.streams] == [True, True]
    kept.drop()


def test_a_pool_is_made_while_another_thread_forgets_those_of_closed_loops() -> None:
    made = Made()

    async def use() -> Lease:
        return acquire(made.pools.here())

    kept = in_thread(lambda: asyncio.run(use()))
    (loop,) = made.pools._pools

    class Watched(dict[Any, Any]):
        def pop(self, key: Any, *default: Any) -> Any:
            super().pop(key)  # the other thread comes first
            return super().pop(key, *default)

    made.pools._pools = Watched(made.pools._pools)
    assert in_thread(lambda: asyncio.run(use())) is not kept
    assert loop not in made.pools._pools


def test_a_pool_that_is_made_while_another_thread_closes_is_closed_too() -> None:
    made = Made()

    def new_pool(network: Network) -> Pool:
        pools.close()  # the other thread comes first
        return made.pool(network)

    pools = Pools(new_pool, SocketNetwork)
    with pytest.raises(RuntimeError, match=r"^the client is closed$"):
        acquire(pools.here())
    assert made.streams == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_has_a_pool_of_its_own_and_cannot_close_that_of_the_parent() -> None:
    made = Made(is_blocking=True)
    lease = acquire(made.pools.here())
    pool = made.pools.here()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # other tests may have left threads, which do not matter here
        child = os.fork()
    if child == 0:
        found = [made.pools.here() is not pool]
        made.pools.close()
        found.append(not made.streams[0].is_aborted)
        os._exit(0 if all(found) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert made.pools.here() is pool
    lease.drop()


# --- A pool over real sockets --------------------------------------------------------------------------------------

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def fetch(pool: Pool, route: Route) -> tuple[bool, Link]:
    """A whole exchange; whether its connection had carried another, and the connection."""
    now = pool.network.now
    lease = pool.acquire(route)
    if not lease.is_granted:
        assert await lease.granted.wait(now() + PATIENCE)
    link = await lease.connect(now() + PATIENCE)
    http = ClientConnection(route.origin.host_field)
    await link.write(http.send_request("GET", "/", []), now() + PATIENCE)
    body = b""
    while body != b"hello":
        http.receive_data(await link.read(now() + PATIENCE))
        while (event := http.next_event()) is not None:
            body += getattr(event, "data", b"")
    lease.give_back(http)
    return lease.is_reused, link


@every_network
@both
@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_server_that_closes_is_noticed_before_the_next_request(on: Drive, how: str, *, tls: bool) -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(RESPONSE)
        while not may_end.is_set():  # noqa: ASYNC110 - the story may run in another thread
            await asyncio.sleep(0.001)
        if how == "RST":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # socket(7)
            writer.transport.abort()
        writer.close()
        await ticks(5)
        has_ended.set()

    async def story(network: Network, origin: Origin) -> None:
        pool = Pool(network, trusting())
        assert not (await fetch(pool, Route(origin)))[0]
        may_end.set()
        while not has_ended.is_set():
            await network.signal().wait(network.now() + SOON)
        assert not (await fetch(pool, Route(origin)))[0]
        assert pool.open_connections == 1
        pool.close()

    on(story, serving(respond, tls=tls))


@every_network
def test_a_call_in_the_queue_is_woken_by_a_close_from_elsewhere(on: Drive) -> None:
    async def story(network: Network, origin: Origin) -> bool:
        pool = Pool(network, trusting(), PoolLimits(max_connections=1))
        lease, queued = pool.acquire(Route(origin)), pool.acquire(Route(origin))
        assert lease.is_granted
        assert not queued.is_granted
        before = network.now()
        later(network, pool.close)
        assert await queued.granted.wait(before + PATIENCE)
        with pytest.raises(StreamCancelledError):
            await queued.connect(before + PATIENCE)
        return passed(network, before, SOON)

    assert on(story, serving(shout))


class Keeping:
    """A handler that answers request after request; the last chunk comes a little later, in a packet of its own."""

    def __init__(self, *answers: bytes, late_seconds: float = 0.002) -> None:
        self.accepted = self.requests = self.now = self.most = 0
        self._answers = answers
        self._late_seconds = late_seconds

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0))
                wire = self._answers[min(self.requests, len(self._answers) - 1)]
                self.requests += 1
                writer.write(wire.removesuffix(LAST_CHUNK))
                if wire.endswith(LAST_CHUNK):
                    await asyncio.sleep(self._late_seconds)
                    writer.write(LAST_CHUNK)
        finally:
            self.now -= 1


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + LAST_CHUNK
REAL_TIME = PoolLimits(late_end_seconds=PATIENCE)
"""On a busy machine a server may need much longer for its last chunk than the two milliseconds that it waits."""


@every_network
@both
@pytest.mark.parametrize("wire", [RESPONSE, CHUNKED], ids=["whole", "late end"])
def test_a_connection_carries_one_exchange_after_another(on: Drive, wire: bytes, *, tls: bool) -> None:
    server = Keeping(wire)

    async def story(network: Network, origin: Origin) -> list[bool]:
        pool = Pool(network, trusting(), REAL_TIME)
        found = [await fetch(pool, Route(origin)) for _ in range(5)]
        assert len({id(link) for _, link in found}) == 1
        pool.close()
        return [is_reused for is_reused, _ in found]

    assert on(story, serving(server, tls=tls)) == [False, True, True, True, True]
    assert server.accepted == 1


@every_network
@both
def test_an_end_that_never_comes_costs_a_new_connection_and_no_place(on: Drive, *, tls: bool) -> None:
    server = Keeping(CHUNKED, late_seconds=3600)

    async def story(network: Network, origin: Origin) -> list[bool]:
        pool = Pool(network, trusting(), PoolLimits(max_connections=1))
        found = [(await fetch(pool, Route(origin)))[0] for _ in range(3)]
        assert pool.open_connections == 1
        pool.close()
        return found

    assert on(story, serving(server, tls=tls)) == [False, False, False]
    assert server.accepted == 3


@every_event_loop
@both
def test_calls_at_once_share_what_may_be_open(on: Drive, *, tls: bool) -> None:
    server = Keeping(CHUNKED)

    async def story(network: Network, origin: Origin) -> None:
        pool = Pool(network, trusting(), PoolLimits(max_connections=2, late_end_seconds=PATIENCE))
        await asyncio.gather(*(fetch(pool, Route(origin)) for _ in range(10)))
        assert (pool.open_connections, len(pool.queue)) == (2, 0)
        pool.close()

    on(story, serving(server, tls=tls))
    assert (server.accepted, server.requests) == (2, 10)


@both
def test_threads_at_once_share_what_may_be_open(*, tls: bool) -> None:
    server = Keeping(CHUNKED)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                drive(fetch(pool, Route(origin)))
        except BaseException as exc:
            failures.append(exc)

    with Background() as background:
        origin = background.enter(serving(server, tls=tls))
        pool = Pool(SocketNetwork(), trusting(), PoolLimits(max_connections=2, late_end_seconds=PATIENCE))
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == []
        assert (pool.open_connections, len(pool.queue)) == (2, 0)
        pool.close()
    assert (server.accepted, server.requests) == (2, 30)


@both
def test_a_call_that_is_cancelled_at_any_step_of_its_connect_leaves_no_socket(*, tls: bool) -> None:
    async def story() -> None:
        async with serving(shout, tls=tls) as origin:
            pool = Pool(AsyncioNetwork(), trusting())
            for count in range(15):
                lease = pool.acquire(Route(origin))
                assert lease.is_granted
                call = asyncio.create_task(lease.connect(math.inf))
                await ticks(count)
                call.cancel()
                await asyncio.wait([call])
                lease.drop()
                assert pool.open_connections == 0

    run(story())  # which finds what is left


# --- A client over real sockets ------------------------------------------------------------------------------------


def options(origin: Origin, network: Network | None = None) -> dict[str, Any]:
    """What a client needs; in virtual time its pool has the limits that are documented."""
    is_virtual = isinstance(network, AsyncioNetwork) and isinstance(network.loop, VirtualClockLoop)
    limits = PoolLimits() if is_virtual else REAL_TIME
    return {"api_key": KEY, "base_url": str(origin), "limits": limits, "ssl_context": trusting().get()}


TURNS = [answer(TOOL_CALL)] * 9 + [answer(ANSWER)]


@every_event_loop
@both
def test_four_calls_in_a_row_use_one_connection(on: Drive, *, tls: bool) -> None:
    server = Keeping(answer(ANSWER))

    async def story(network: Network, origin: Origin) -> list[str]:
        async with AsyncClient(**options(origin, network)) as client:
            texts = [(await client.messages.create(**ASK)).text]
            for _ in range(3):
                async with client.messages.stream(**ASK) as stream:
                    texts.append("".join([text async for text in stream.text_stream]))
            return texts

    assert on(story, serving(server, tls=tls)) == ["Hello ☺"] * 4
    assert server.accepted == 1


@both
def test_four_calls_in_a_row_use_one_connection_without_async(*, tls: bool) -> None:
    server = Keeping(answer(ANSWER))
    with Background() as background:
        origin = background.enter(serving(server, tls=tls))
        with Client(**options(origin)) as client:
            texts = [client.messages.create(**ASK).text]
            for _ in range(3):
                with client.messages.stream(**ASK) as stream:
                    texts.append("".join(stream.text_stream))
    assert texts == ["Hello ☺"] * 4
    assert server.accepted == 1


@every_event_loop
def test_a_tool_loop_of_ten_turns_uses_one_connection(on: Drive) -> None:
    server = Keeping(*TURNS)

    async def weather(city: str, days: int) -> str:
        return f"{days} days of rain in {city}"

    async def story(network: Network, origin: Origin) -> str:
        async with AsyncClient(**options(origin, network)) as client:
            message = await client.messages.tool_runner(**ASK, tools=[weather], max_turns=10).until_done()
            return message.text

    assert on(story, serving(server, tls=True)) == "Hello ☺"
    assert (server.accepted, server.requests) == (1, 10)


def test_a_tool_loop_of_ten_turns_uses_one_connection_without_async() -> None:
    server = Keeping(*TURNS)

    def weather(city: str, days: int) -> str:
        return f"{days} days of rain in {city}"

    with Background() as background:
        origin = background.enter(serving(server, tls=True))
        with Client(**options(origin)) as client:
            message = client.messages.tool_runner(**ASK, tools=[weather], max_turns=10).until_done()
    assert message.text == "Hello ☺"
    assert (server.accepted, server.requests) == (1, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@both
def test_a_forked_child_opens_its_own_connection_and_the_parent_keeps_its_own(*, tls: bool) -> None:
    server = Keeping(answer(ANSWER))
    with Background() as background:
        origin = background.enter(serving(server, tls=tls))
        with Client(**options(origin)) as client:
            assert client.messages.create(**ASK).text == "Hello ☺"
            stream = client.messages.stream(**ASK).__enter__()
            beginning = next(iter(stream.text_stream))
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # of the server's thread, which the child does not have
                child = os.fork()
            if child == 0:
                is_right = False
                try:
                    is_right = client.messages.create(**ASK).text == "Hello ☺"
                    stream.close()
                    client.close()
                finally:
                    os._exit(0 if is_right else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert beginning + "".join(stream.text_stream) == "Hello ☺"
            assert client.messages.create(**ASK).text == "Hello ☺"
    assert (server.accepted, server.requests) == (2, 4)
