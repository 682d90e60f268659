"""rawsse.client.network.link: what a link does on every network, over TCP and over TLS; functions in threads; `drive`."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import socket
import struct
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from support.background import PATIENCE
from support.clock import run, ticks
from support.networks import SOON, Drive, connected, every_network, every_network_in_real_time, later, passed
from support.sockets import ConnectProxy, Handler, serving, shout, silent_listener, trusting

from rawsse.client.blocking.network import SocketNetwork
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.connect import Connector, Network
from rawsse.client.network.link import READ_BYTES, Aborted, Expired, Link, drive, in_threads
from rawsse.client.network.route import Origin, Proxy, Route

both = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])


def soon(network: Network) -> float:
    """A deadline that is never reached."""
    return network.now() + PATIENCE


async def read_all(network: Network, link: Link, count: int) -> bytes:
    """So many bytes, or those before the peer's end."""
    pieces = bytearray()
    while len(pieces) < count and (data := await link.read(soon(network))):
        pieces += data
    return bytes(pieces)


async def pour(link: Link, deadline: float) -> None:
    """Write more than the system takes from a peer that reads nothing."""
    for _ in range(20):
        await link.write(b"x" * 1_000_000, deadline)
        link.read_ready()  # TLS 1.3 begins with session tickets


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the connection with a TCP reset when something has come."""
    await reader.read(1)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # socket(7)
    writer.transport.abort()


async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read everything, and say nothing."""
    while await reader.read(READ_BYTES):
        pass


async def ignore(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read nothing, and say nothing."""
    await asyncio.Event().wait()


# --- Bytes ---------------------------------------------------------------------------------------------------------


@every_network
@both
def test_bytes_go_out_and_come_back(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> bytes:
        async with connected(network, Route(origin)) as link:
            await link.write(b"hel", soon(network))
            await link.write(b"lo", soon(network))
            return await read_all(network, link, 5)

    assert on(story, serving(shout, tls=tls)) == b"HELLO"


@every_network
@both
def test_what_has_come_is_there_without_waiting(on: Drive, *, tls: bool) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"a")
        await reader.read(1)
        writer.write(b"hello")
        await reader.read(1)

    async def story(network: Network, origin: Origin) -> list[bytes | None]:
        async with connected(network, Route(origin)) as link:
            looks = [link.read_ready()]
            await link.write(b"x", soon(network))
            looks += [await link.read(soon(network)), link.read_ready()]
            for _ in range(2):
                await link.write(b"x", soon(network))
                await network.signal().wait(network.now() + SOON)
                looks.append(link.read_ready())
            return [*looks, link.read_ready()]

    assert on(story, serving(greet, tls=tls)) == [None, b"a", None, b"hello", b"", b""]


@every_network
@both
def test_a_peer_that_closes_is_an_empty_read_after_all_that_it_sent(on: Drive, *, tls: bool) -> None:
    async def bye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 300_000)
        await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def story(network: Network, origin: Origin) -> tuple[int, list[bytes | None]]:
        async with connected(network, Route(origin)) as link:
            count = len(await read_all(network, link, 300_001))
            return count, [await link.read(soon(network)), link.read_ready(), await link.read(soon(network))]

    assert on(story, serving(bye, tls=tls)) == (300_000, [b"", b"", b""])


@every_network
@both
def test_a_peer_that_resets_is_an_os_error(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> None:
        async with connected(network, Route(origin)) as link:
            await link.write(b"x", soon(network))
            with pytest.raises(OSError, match=r"(?i)reset"):
                await link.read(soon(network))

    on(story, serving(reset, tls=tls))


@every_network
def test_what_came_before_a_reset_can_still_be_read(on: Drive) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"too much")
        await asyncio.sleep(SOON)
        await reset(reader, writer)

    async def story(network: Network, origin: Origin) -> list[bytes]:
        async with connected(network, Route(origin)) as link:
            await link.write(b"xx", soon(network))
            await network.signal().wait(network.now() + 2 * SOON)
            heard = [await link.read(soon(network))]
            with contextlib.suppress(ConnectionError):
                heard.append(await link.read(soon(network)))
            return heard

    assert on(story, serving(refuse)) == [b"too much"]


@every_network
def test_a_link_is_not_written_to_after_its_connection_is_lost(on: Drive) -> None:
    async def story(network: Network, origin: Origin) -> None:
        async with connected(network, Route(origin)) as link:
            await link.write(b"x", soon(network))
            with pytest.raises(ConnectionError):
                await link.read(soon(network))
            with pytest.raises(ConnectionError):
                await link.write(b"more", soon(network))

    on(story, serving(reset))


@every_network
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_link_that_is_not_connected_can_be_aborted(on: Drive, host: str) -> None:
    async def story(network: Network, listening: Origin) -> None:
        link, origin = network.link(), listening._replace(host=host)
        link.abort()
        link.abort()
        with pytest.raises(Aborted):
            await link.connect(Route(origin), trusting(), soon(network))

    on(story, serving(listen))


# --- Back-pressure, both ways --------------------------------------------------------------------------------------


@every_network
@both
def test_a_peer_that_sends_much_is_slowed_down_until_it_is_read(on: Drive, *, tls: bool) -> None:
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < 12_000_000:
            writer.write(b"x" * 50_000)
            await writer.drain()
            sent += 50_000
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def story(network: Network, origin: Origin) -> tuple[int, int]:
        async with connected(network, Route(origin)) as link:
            await network.signal().wait(network.now() + 4 * SOON)
            before = sent
            return before, len(await read_all(network, link, 12_000_001))

    before, received = on(story, serving(pour, tls=tls))
    assert before < received == 12_000_000


@every_network
@both
def test_megabytes_go_both_ways_at_once_and_not_a_byte_is_lost(on: Drive, *, tls: bool) -> None:
    # The peer takes no more while it is not read itself, so that each write ends early.
    pieces = [bytes([number]) * 250_000 for number in range(24)]

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()

    async def story(network: Network, origin: Origin) -> bytes:
        received = bytearray()
        async with connected(network, Route(origin)) as link:
            for piece in pieces:
                await link.write(piece, soon(network))
                received += link.read_ready() or b""
            return bytes(received) + await read_all(network, link, 6_000_000 - len(received))

    assert on(story, serving(echo, tls=tls)) == b"".join(pieces)


@every_network
@both
def test_a_peer_that_says_something_early_still_gets_the_whole_request(on: Drive, *, tls: bool) -> None:
    # As with `100 Continue`; and with TLS 1.3, whose session tickets come first.
    size = 8_000_000

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"early")
        await asyncio.sleep(SOON)
        await reader.readexactly(size)
        writer.write(b"whole")
        await writer.drain()
        await reader.read()

    async def story(network: Network, origin: Origin) -> bytes:
        async with connected(network, Route(origin)) as link:
            await link.write(b"x" * size, soon(network))
            return await read_all(network, link, 10)

    assert on(story, serving(count, tls=tls)) == b"earlywhole"


@every_network
@both
def test_a_write_ends_early_when_the_peer_takes_no_more_and_answers(on: Drive, *, tls: bool) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"413")
        await writer.drain()
        await asyncio.Event().wait()

    async def story(network: Network, origin: Origin) -> bytes:
        async with connected(network, Route(origin)) as link:
            for _ in range(20):
                await link.write(b"x" * 1_000_000, network.now() + PATIENCE)
                if (data := link.read_ready()) is not None:
                    return data
            raise AssertionError("20 MB were taken")

    assert on(story, serving(refuse, tls=tls)) == b"413"


# --- Deadlines -----------------------------------------------------------------------------------------------------


@every_network
@both
def test_a_read_ends_at_its_deadline_and_the_next_one_goes_on(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> bytes:
        async with connected(network, Route(origin)) as link:
            for _ in range(2):
                before = network.now()
                with pytest.raises(Expired):
                    await link.read(before + SOON)
                assert passed(network, before, SOON)
            await link.write(b"x", soon(network))
            return await link.read(soon(network))

    assert on(story, serving(shout, tls=tls)) == b"X"


@every_network
@both
def test_a_write_to_a_peer_that_reads_nothing_ends_at_its_deadline(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> bool:
        async with connected(network, Route(origin)) as link:
            link.read_ready()
            before = network.now()
            with pytest.raises(Expired):
                await pour(link, before + 4 * SOON)
            return passed(network, before, 4 * SOON)

    assert on(story, serving(ignore, tls=tls))


@every_network
def test_a_connection_that_nothing_answers_ends_at_its_deadline(on: Drive) -> None:
    async def story(network: Network, origin: Origin) -> bool:
        before = network.now()
        with pytest.raises(Expired):
            async with connected(network, Route(origin), deadline=before + 4 * SOON):
                pass
        return passed(network, before, 4 * SOON)

    assert on(story, silent_listener())


@every_network
def test_a_handshake_without_an_answer_ends_at_its_deadline(on: Drive) -> None:
    async def story(network: Network, origin: Origin) -> bool:
        before = network.now()
        with pytest.raises(Expired):
            async with connected(network, Route(origin._replace(scheme="https")), deadline=before + SOON):
                pass
        return passed(network, before, SOON)

    assert on(story, serving(listen))


@every_network
def test_the_deadline_is_that_of_the_whole_handshake_however_it_trickles(on: Drive) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB: a byte every 50 ms takes a quarter of an hour
        while True:
            writer.write(b"\x02")
            await asyncio.sleep(SOON)

    async def story(network: Network, origin: Origin) -> bool:
        before = network.now()
        with pytest.raises(Expired):
            async with connected(network, Route(origin._replace(scheme="https")), deadline=before + 5 * SOON):
                pass
        return passed(network, before, 5 * SOON)

    assert on(story, serving(trickle))


@every_network
def test_no_deadline_is_too_far_away(on: Drive) -> None:
    async def story(network: Network, origin: Origin) -> bytes:
        async with connected(network, Route(origin), deadline=network.now() + 1e9) as link:
            await link.write(b"x", network.now() + 1e9)
            return await link.read(network.now() + 1e9)

    assert on(story, serving(shout)) == b"X"


# --- Abort ---------------------------------------------------------------------------------------------------------


@every_network
@both
def test_abort_ends_the_connection_at_once(on: Drive, *, tls: bool) -> None:
    heard = threading.Event()

    async def note(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        heard.set()

    async def story(network: Network, origin: Origin) -> None:
        async with connected(network, Route(origin)) as link:
            link.abort()
            link.abort()
            with pytest.raises(Aborted):
                await link.read(soon(network))
            with pytest.raises(Aborted):
                await link.write(b"x", soon(network))
            with pytest.raises(Aborted):
                link.read_ready()
            while not heard.is_set():
                await network.signal().wait(network.now() + SOON)

    on(story, serving(note, tls=tls))


async def aborted(network: Network, link: Connector | Link, work: Callable[[], Awaitable[object]]) -> bool:
    """Whether some work with the link ends when another task or thread aborts it."""
    before = network.now()
    later(network, link.abort)
    with pytest.raises(Aborted):
        await work()
    return passed(network, before, SOON)


@every_network
@both
def test_abort_wakes_a_read(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> bool:
        async with connected(network, Route(origin)) as link:
            return await aborted(network, link, lambda: link.read(soon(network)))

    assert on(story, serving(listen, tls=tls))


@every_network
@both
def test_abort_wakes_a_write(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> bool:
        async with connected(network, Route(origin)) as link:
            return await aborted(network, link, lambda: pour(link, soon(network)))

    assert on(story, serving(ignore, tls=tls))


async def aborted_connect(network: Network, route: Route) -> bool:
    link = network.link()
    return await aborted(network, link, lambda: link.connect(route, trusting(), soon(network)))


@every_network_in_real_time
def test_abort_ends_the_look_up_of_a_name(on: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    is_number = socket.AI_NUMERICHOST

    def hang(*_: object, flags: int = 0, **__: object) -> list[object]:
        if flags & is_number:
            raise socket.gaierror
        never.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    peer = contextlib.nullcontext(Origin("http", "slow.example", 80))
    try:
        assert on(lambda network, origin: aborted_connect(network, Route(origin)), peer)
    finally:
        never.set()


@every_network
def test_abort_ends_a_connection_that_nothing_answers(on: Drive) -> None:
    assert on(lambda network, origin: aborted_connect(network, Route(origin)), silent_listener())


@every_network
def test_abort_ends_a_handshake(on: Drive) -> None:
    peer = serving(listen)
    assert on(lambda network, o: aborted_connect(network, Route(o._replace(scheme="https"))), peer)


@every_network
@both
def test_abort_ends_the_wait_for_a_proxy_s_answer(on: Drive, *, tls: bool) -> None:
    api = Origin("https", "api.example", 443)
    peer = serving(listen, tls=tls)
    assert on(lambda network, proxy: aborted_connect(network, Route(api, Proxy(proxy))), peer)


@contextlib.asynccontextmanager
async def tunnelled(origin: Handler) -> AsyncIterator[Route]:
    """The route through an https proxy to an origin without TLS that is taken for one with it."""
    async with serving(origin) as there, serving(ConnectProxy(), tls=True) as proxy:
        yield Route(there._replace(scheme="https"), Proxy(proxy))


@every_network
def test_abort_ends_a_handshake_within_a_tunnel(on: Drive) -> None:
    assert on(aborted_connect, tunnelled(listen))


# --- Signals -------------------------------------------------------------------------------------------------------

nowhere = contextlib.nullcontext()


@every_network
def test_a_signal_is_waited_for_until_it_is_set(on: Drive) -> None:
    async def story(network: Network, _: object) -> list[bool]:
        signal, before = network.signal(), network.now()
        later(network, signal.set)
        waits = [await signal.wait(before + PATIENCE), passed(network, before, SOON), await signal.wait(before)]
        signal.set()
        return [*waits, await signal.wait(math.inf)]

    assert on(story, nowhere) == [True, True, True, True]


@every_network
def test_a_signal_that_is_not_set_is_waited_for_until_the_deadline(on: Drive) -> None:
    async def story(network: Network, _: object) -> list[bool]:
        signal, before = network.signal(), network.now()
        return [await signal.wait(before + SOON), await signal.wait(before - 1), passed(network, before, SOON)]

    assert on(story, nowhere) == [False, False, True]


@every_network_in_real_time
def test_a_signal_may_be_set_by_another_thread(on: Drive) -> None:
    async def story(network: Network, _: object) -> bool:
        signal = network.signal()
        threading.Thread(target=signal.set).start()
        return await signal.wait(math.inf)

    assert on(story, nowhere)


# --- Functions in threads ------------------------------------------------------------------------------------------


async def in_thread(network: Network, call: Callable[[], object]) -> object:
    (found,) = await in_threads(network.signal(), [call])
    return found


@every_network_in_real_time
def test_a_function_runs_in_a_daemon_thread_with_a_copy_of_the_caller_s_context(on: Drive) -> None:
    user = contextvars.ContextVar("user", default="unset")

    def look() -> tuple[str, bool, bool]:
        found, thread = user.get(), threading.current_thread()
        user.set("changed")
        return found, thread.daemon, thread is main

    async def story(network: Network, _: object) -> tuple[object, str]:
        user.set("mine")
        return await in_thread(network, look), user.get()

    main = threading.current_thread()
    assert on(story, nowhere) == (("mine", True, False), "mine")


@every_network_in_real_time
def test_results_come_in_the_order_of_the_calls(on: Drive) -> None:
    is_second = threading.Event()

    def first() -> int:
        return 1 if is_second.wait(PATIENCE) else 0

    assert on(lambda network, _: in_threads(network.signal(), [first, is_second.set]), nowhere) == [1, None]
    assert on(lambda network, _: in_threads(network.signal(), []), nowhere) == []


@every_network_in_real_time
def test_the_first_error_in_the_order_of_the_calls_is_raised_when_all_are_over(on: Drive) -> None:
    has_failed, over = threading.Event(), threading.Event()

    def fail_late() -> None:
        assert has_failed.wait(PATIENCE)
        raise KeyError("the first")

    def fail() -> None:
        has_failed.set()
        raise ValueError("the second")

    def work() -> None:
        assert has_failed.wait(PATIENCE)
        threading.Event().wait(SOON)
        over.set()

    with pytest.raises(KeyError, match="the first"):
        on(lambda network, _: in_threads(network.signal(), [fail_late, fail, work]), nowhere)
    assert over.is_set()


@every_network_in_real_time
def test_more_functions_run_at_once_than_asyncio_has_threads(on: Drive) -> None:
    barrier = threading.Barrier(64, timeout=PATIENCE)

    places = on(lambda network, _: in_threads(network.signal(), [barrier.wait] * 64), nowhere)
    assert sorted(places) == list(range(64))


@every_network_in_real_time
def test_functions_are_waited_for_until_a_deadline_and_what_comes_later_is_dropped(on: Drive) -> None:
    may_end, threads = threading.Event(), []

    def hang() -> None:
        threads.append(threading.current_thread())
        may_end.wait(PATIENCE)

    async def story(network: Network, _: object) -> None:
        with pytest.raises(Expired):
            await in_threads(network.signal(), [hang], network.now() + SOON)

    on(story, nowhere)
    assert threads[0].is_alive()
    may_end.set()
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()


def test_a_task_that_is_cancelled_while_a_function_runs_is_free_at_once() -> None:
    may_end = threading.Event()

    async def story() -> None:
        network = AsyncioNetwork()
        task = asyncio.create_task(in_threads(network.signal(), [partial(may_end.wait, PATIENCE)]))
        await ticks(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_end.set()

    run(story())


@every_network_in_real_time
def test_where_the_system_gives_no_thread_a_function_runs_in_the_caller_s(
    on: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        if thread.name == "rawsse call":
            raise RuntimeError("can't start new thread")
        start(thread)

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    caller = threading.current_thread()
    assert on(lambda network, _: in_thread(network, threading.current_thread), nowhere) is caller


def test_an_error_is_not_kept_by_its_own_traceback() -> None:
    class FailedError(Exception):
        pass

    def fail() -> None:
        raise FailedError

    try:
        drive(in_thread(SocketNetwork(), fail))
    except FailedError as error:
        kept = weakref.ref(error)
    for thread in threading.enumerate():
        if thread.name == "rawsse call":
            thread.join(PATIENCE)
    gc.disable()
    try:
        assert kept() is None
    finally:
        gc.enable()


# --- drive ---------------------------------------------------------------------------------------------------------


def test_drive_gives_the_result_of_a_coroutine_that_does_not_suspend() -> None:
    async def answer() -> int:
        return 42

    assert drive(answer()) == 42


def test_drive_raises_what_the_coroutine_raises() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        drive(fail())


def test_drive_names_the_way_out_for_a_coroutine_that_suspends_and_closes_it() -> None:
    closed = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match="a blocking client has no event loop; use AsyncClient"):
        drive(wait())
    assert closed == [True]
