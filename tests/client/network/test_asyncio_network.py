"""rawsse.client.network.asyncio_network: what only an event loop has: timers, tasks, a shared buffer, links that push.

What a link does on every network is in `test_link.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from support.background import PATIENCE
from support.clock import run, ticks
from support.loops import Loop, each_loop
from support.networks import SOON, Drive, connected, every_event_loop
from support.sockets import serving, shout

from rawsse.client.network.asyncio_network import AsyncioLink, AsyncioNetwork, BufferedLink
from rawsse.client.network.connect import Network
from rawsse.client.network.link import READ_BYTES, Aborted, Expired, Link
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import TLSContext

both = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])

NOWHERE = contextlib.nullcontext()


async def speak_each_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say a byte a second, after each that comes."""
    while await reader.read(1):
        await asyncio.sleep(1)
        writer.write(b"x")


async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(READ_BYTES):
        pass


# --- Waits ---------------------------------------------------------------------------------------------------------


def test_a_timer_that_an_earlier_wait_left_behind_ends_no_later_one() -> None:
    async def story() -> float:
        network = AsyncioNetwork()
        before = network.now()
        async with serving(speak_each_second) as origin, connected(network, Route(origin)) as link:
            await link.write(b"x", math.inf)
            await link.read(before + 5)
            with pytest.raises(Expired):
                await link.read(before + 12)
        return network.now() - before

    assert run(story()) == 12


@pytest.mark.parametrize("deadline", [4, 49.5])
def test_a_later_wait_may_have_an_earlier_deadline(deadline: float) -> None:
    async def story() -> float:
        network = AsyncioNetwork()
        before = network.now()
        async with serving(speak_each_second) as origin, connected(network, Route(origin)) as link:
            await link.write(b"x", math.inf)
            await link.read(before + 50)
            with pytest.raises(Expired):
                await link.read(before + deadline)
        return network.now() - before

    assert run(story()) == deadline


def test_a_timer_that_fires_between_two_waits_does_nothing() -> None:
    async def story() -> bytes:
        network = AsyncioNetwork()
        async with serving(speak_each_second) as origin, connected(network, Route(origin)) as link:
            for deadline in (network.now() + 2, math.inf):
                await link.write(b"x", math.inf)
                data = await link.read(deadline)
                await asyncio.sleep(10)
        return data

    assert run(story()) == b"x"


def test_many_waits_that_end_in_time_take_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> int:
        network = AsyncioNetwork()
        timers: list[float] = []
        call_at = network.loop.call_at

        def note(when: float, callback: Any, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
            timers.append(when)
            return call_at(when, callback, *arguments, **options)

        async with serving(shout) as origin, connected(network, Route(origin)) as link:
            monkeypatch.setattr(network.loop, "call_at", note)
            for _ in range(50):
                await link.write(b"x", network.now() + 90)
                await link.read(network.now() + 90)
        return len(timers)

    assert run(story()) == 1


def test_an_abort_leaves_no_timer_behind() -> None:
    async def story() -> list[float]:
        network = AsyncioNetwork()
        async with serving(shout) as origin, connected(network, Route(origin)) as link:
            await link.write(b"x", math.inf)
            await link.read(network.now() + 90)
            link.abort()
            scheduled: Any = network.loop
            return [handle.when() for handle in scheduled._scheduled if not handle.cancelled()]

    assert run(story()) == []


@pytest.mark.parametrize("also_aborted", [False, True])
def test_a_task_that_is_cancelled_while_it_waits_is_cancelled(also_aborted: bool) -> None:
    async def story() -> None:
        network = AsyncioNetwork()
        async with serving(shout) as origin, connected(network, Route(origin)) as link:
            waiting = asyncio.create_task(link.read(network.now() + 90))
            await ticks(2)
            if also_aborted:
                link.abort()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            if not also_aborted:
                await link.write(b"x", math.inf)
                assert await link.read(math.inf) == b"X"

    run(story())


def test_an_abort_is_seen_in_the_next_step_of_the_loop() -> None:
    async def story() -> None:
        network = AsyncioNetwork()
        async with serving(shout) as origin, connected(network, Route(origin)) as link:
            waiting = asyncio.create_task(link.read(math.inf))
            await ticks(2)
            link.abort()
            await ticks(2)
            assert waiting.done()
            with pytest.raises(Aborted):
                await waiting

    run(story())


@pytest.mark.parametrize(
    ("lost", "cls"),
    [
        (ConnectionResetError("words"), ConnectionResetError),
        (TimeoutError(110, "words"), TimeoutError),  # the system's own: no deadline of the caller's
        (ValueError("words"), ConnectionAbortedError),
    ],
)
def test_whatever_a_transport_says_of_its_end_a_reader_gets_an_os_error(lost: Exception, cls: type[OSError]) -> None:
    async def story() -> None:
        link = AsyncioNetwork().link()
        reading = asyncio.create_task(link.read(math.inf))
        await ticks(2)
        link.connection_lost(lost)
        with pytest.raises(cls, match="words"):
            await reading
        with pytest.raises(cls, match="words"):
            link.read_ready()

    run(story())


def test_a_link_may_be_aborted_when_its_loop_is_closed() -> None:
    async def story() -> Link:
        network = AsyncioNetwork()
        async with serving(shout) as origin:
            link = network.link()
            await link.connect(Route(origin), cast(Any, None), math.inf)
            await link.write(b"x", math.inf)
            await link.read(network.now() + 90)
            loop.call_soon(link._transport.abort)  # type: ignore[union-attr]
            return link

    loop = asyncio.new_event_loop()
    link = loop.run_until_complete(story())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    link.abort()
    with pytest.raises(Aborted):
        link.read_ready()


# --- The network ---------------------------------------------------------------------------------------------------


def test_post_calls_at_once_in_the_loop_s_thread_and_soon_from_another() -> None:
    async def story() -> list[str]:
        network = AsyncioNetwork()
        heard: list[str] = []
        done = network.signal()

        def elsewhere() -> None:
            network.post(lambda: heard.append(threading.current_thread().name))
            network.post(done.set)

        network.post(lambda: heard.append("at once"))
        thread = threading.Thread(target=elsewhere)
        assert heard == ["at once"]
        thread.start()
        assert await done.wait(math.inf)
        thread.join(PATIENCE)
        return heard

    assert asyncio.run(story()) == ["at once", threading.current_thread().name]


def test_post_to_a_closed_loop_from_another_thread_calls_at_once() -> None:
    async def story() -> AsyncioNetwork:
        return AsyncioNetwork()

    network, heard = asyncio.run(story()), list[int]()
    thread = threading.Thread(target=lambda: network.post(lambda: heard.append(1)))
    thread.start()
    thread.join(PATIENCE)
    assert heard == [1]


def in_loop(calls: list[Callable[[], Any]]) -> list[Any]:
    async def story() -> list[Any]:
        return await AsyncioNetwork().run(calls)

    return asyncio.run(story())


def test_functions_run_in_threads_and_coroutine_functions_in_tasks() -> None:
    async def task() -> bool:
        return threading.current_thread() is threading.main_thread()

    def thread() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert in_loop([thread, task, thread, task]) == [False, True, False, True]
    assert in_loop([]) == []


def test_they_run_at_once_and_each_has_a_copy_of_the_caller_s_context() -> None:
    user = contextvars.ContextVar("user", default="unset")
    barrier = threading.Barrier(2, timeout=PATIENCE)
    met = asyncio.Event()

    def thread() -> str:
        barrier.wait()
        found = user.get()
        user.set("changed")
        return found

    async def first() -> str:
        await met.wait()
        return user.get()

    async def second() -> str:
        met.set()
        found = user.get()
        user.set("changed")
        return found

    async def story() -> list[str]:
        user.set("mine")
        return [*await AsyncioNetwork().run([thread, thread, first, second]), user.get()]

    assert asyncio.run(story()) == ["mine"] * 5


@pytest.mark.parametrize("is_async", [False, True])
def test_what_one_raises_is_raised_when_all_are_over(is_async: bool) -> None:
    over: list[str] = []

    async def fail_in_task() -> None:
        raise KeyError("no such")

    def fail() -> None:
        raise KeyError("no such")

    def thread() -> None:
        threading.Event().wait(SOON)
        over.append("thread")

    async def task() -> None:
        await asyncio.sleep(SOON)
        over.append("task")

    with pytest.raises(KeyError, match="no such"):
        in_loop([fail_in_task if is_async else fail, thread, task])
    assert sorted(over) == ["task", "thread"]


def test_cancelled_it_ends_the_tasks_and_leaves_the_threads() -> None:
    may_end = threading.Event()
    heard: list[str] = []

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            heard.append("ended")

    async def story() -> None:
        running = asyncio.create_task(AsyncioNetwork().run([task, lambda: may_end.wait(PATIENCE)]))
        await ticks(3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert heard == ["ended"]
        may_end.set()

    run(story())


# --- The buffer ----------------------------------------------------------------------------------------------------


def pattern(seed: int, size: int) -> bytes:
    return bytes([seed + number % 50 for number in range(1009)]) * (size // 1009)


def test_two_loops_in_two_threads_get_their_own_bytes() -> None:
    size = 1009 * 6000
    found: dict[int, bool] = {}

    async def story(seed: int) -> bool:
        async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = pattern(seed, size)
            for at in range(0, size, 40_000):
                writer.write(data[at : at + 40_000])
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        network, received = AsyncioNetwork(), bytearray()
        async with serving(pour) as origin, connected(network, Route(origin)) as link:
            while data := await link.read(network.now() + PATIENCE):
                received += data
        return received == pattern(seed, size)

    def work(seed: int) -> None:
        found[seed] = asyncio.run(story(seed))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE)
    assert found == {0: True, 100: True, 200: True}


def test_all_links_of_uvloop_read_into_one_buffer_and_each_keeps_a_copy() -> None:
    async def story() -> tuple[int, list[bytes]]:
        network = AsyncioNetwork()
        one, other = BufferedLink(network), BufferedLink(network)
        buffers = set()
        for link, word in ((one, b"one"), (other, b"two"), (one, b"!")):
            buffer = link.get_buffer(-1)
            buffers.add(id(buffer.obj))
            buffer[: len(word)] = word
            link.buffer_updated(len(word))
        return len(buffers), [await one.read(math.inf), await other.read(math.inf)]

    assert run(story()) == (1, [b"one!", b"two"])


@each_loop
def test_a_loop_of_asyncio_is_lent_no_buffer_as_the_proactor_would_hold_it_while_it_waits(on: Loop) -> None:
    async def story() -> tuple[bool, bool]:
        network = AsyncioNetwork()
        return isinstance(network.loop, asyncio.BaseEventLoop), isinstance(network.link(), asyncio.BufferedProtocol)

    is_asyncio_s, is_lent = on(story())
    assert is_asyncio_s != is_lent


def test_a_link_that_is_not_read_stops_its_peer_however_small_the_pieces_are() -> None:
    class Still(asyncio.Transport):
        is_paused = False

        def pause_reading(self) -> None:
            self.is_paused = True

    async def story() -> int:
        link, transport = AsyncioLink(AsyncioNetwork()), Still()
        link.connection_made(transport)
        for number in range(1, 1000):
            link.data_received(bytes(1000))
            if transport.is_paused:
                return number
        return 0

    assert run(story()) == READ_BYTES // 1000 + 1


MAPPING = "mmap,mremap,munmap"

PACED = """
import asyncio, socket, sys
from rawsse.client.network.asyncio_network import AsyncioNetwork

COUNT = 300

async def main():
    network, (ours, theirs) = AsyncioNetwork(), socket.socketpair()
    ours.setblocking(False)
    link = network.link()
    await network.loop.create_connection(lambda: link, sock=ours)
    for number in range(COUNT):
        theirs.send(b"x" * 200)
        assert await link.read(network.now() + 20) == b"x" * 200
        if number == 99:
            print("warm", file=sys.stderr, flush=True)
    link.abort()
    theirs.close()

asyncio.run(main())
"""


@pytest.mark.real
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts system calls")
def test_a_paced_read_maps_no_memory(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={MAPPING},write,recvfrom", sys.executable, "-c", PACED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "ptrace" in done.stderr:
        pytest.skip(f"strace is not allowed here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    before, _, after = log.read_text().partition('write(2, "warm')
    assert before.count("recvfrom(") >= 100
    assert after.count("recvfrom(") >= 200
    assert sum(after.count(f"{call}(") for call in MAPPING.split(",")) < 20  # those of the interpreter's end


# --- Pushing -------------------------------------------------------------------------------------------------------


class Sink:
    """Where a link pushes to."""

    def __init__(self, network: Network) -> None:
        self.heard: list[bytes] = []
        self.ended: list[Exception | None] = []
        self.is_over = network.signal()

    def receive(self, data: bytes) -> None:
        self.heard.append(data)

    def closed(self, error: Exception | None) -> None:
        self.ended.append(error)
        self.is_over.set()

    @property
    def data(self) -> bytes:
        return b"".join(self.heard)


async def until(network: Network, is_true: Callable[[], bool]) -> None:
    """Wait for something that the peer brings about."""
    for _ in range(1000):
        if is_true():
            return
        await network.signal().wait(network.now() + 0.01)
    raise AssertionError("it never comes true")


async def count_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say numbers after each byte that comes; close after a "."."""
    number = 0
    while (asked := await reader.read(1)) not in (b"", b"."):
        for _ in range(1000 if asked == b"+" else 1):
            writer.write(b"%d " % number)
            number += 1
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def numbers(count: int) -> bytes:
    return b"".join(b"%d " % number for number in range(count))


def fail(data: bytes) -> None:
    raise KeyError(data)


def pushing(link: Link) -> AsyncioLink:
    """The link as what it is: both kinds push."""
    return cast(AsyncioLink, link)


@every_event_loop
@both
def test_what_came_before_is_pushed_first_and_then_all_in_order_and_the_end(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> Sink:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:
            await link.write(b"xx", math.inf)
            await network.signal().wait(network.now() + SOON)
            pushing(link).push_to(sink.receive, sink.closed)
            assert sink.data == numbers(2)
            for _ in range(3):
                await link.write(b"x+", math.inf)
            await link.write(b".", math.inf)
            assert await sink.is_over.wait(network.now() + PATIENCE)
        return sink

    sink = on(story, serving(count_and_close, tls=tls))
    assert sink.data == numbers(3005)
    assert (sink.heard.count(b""), sink.heard[-1], sink.ended) == (1, b"", [None])


@every_event_loop
@both
def test_an_abort_is_told_also_when_the_peer_went_while_the_link_was_paused(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> list[Exception | None]:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:
            pushing(link).push_to(sink.receive, sink.closed)
            pushing(link).pause()
            await link.write(b".", math.inf)
            await network.signal().wait(network.now() + SOON)
            assert sink.ended == []
            link.abort()
            assert await sink.is_over.wait(network.now() + PATIENCE)
            return sink.ended

    assert on(story, serving(count_and_close, tls=tls)) == [None]


@every_event_loop
@both
def test_what_a_read_left_is_pushed_first(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> bytes:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:
            await link.write(b"x", math.inf)
            first = await link.read(math.inf)
            await link.write(b"xx.", math.inf)
            await network.signal().wait(network.now() + SOON)
            pushing(link).push_to(sink.receive, sink.closed)
            assert await sink.is_over.wait(network.now() + PATIENCE)
        return first + sink.data

    assert on(story, serving(count_and_close, tls=tls)) == numbers(3)


@every_event_loop
@both
def test_an_end_that_came_before_is_pushed_at_once(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> tuple[list[bytes], list[Exception | None]]:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:
            await link.write(b"x.", math.inf)
            await network.signal().wait(network.now() + SOON)
            pushing(link).push_to(sink.receive, sink.closed)
            assert await sink.is_over.wait(network.now() + PATIENCE)
            return sink.heard, sink.ended

    assert on(story, serving(count_and_close, tls=tls)) == ([b"0 ", b""], [None])


def test_what_a_peer_said_before_it_reset_the_connection_is_read_when_a_write_fails() -> None:
    # RFC 9112, 9.5: the answer to a request that is too large may come, and a reset behind it, while it is being sent.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        is_reset = threading.Event()

        def refuse() -> None:
            peer, _ = listener.accept()
            peer.recv(1)
            peer.sendall(b"413")
            peer.close()  # a reset: there is more to read
            is_reset.set()

        thread = threading.Thread(target=refuse)
        thread.start()

        async def story() -> bytes:
            network = AsyncioNetwork()
            link = network.link()
            await link.connect(Route(Origin("http", "127.0.0.1", listener.getsockname()[1])), TLSContext(), math.inf)
            await link.write(b"xx", math.inf)
            is_reset.wait()  # the event loop must not run before the next write
            await link.write(b"x", math.inf)
            try:
                return await link.read(network.now() + PATIENCE)
            finally:
                link.abort()

        said = asyncio.run(story())
        thread.join()
    assert said == b"413"


@every_event_loop
@both
@pytest.mark.parametrize("is_early", [False, True], ids=["later", "before"])
def test_a_connection_that_is_lost_gives_its_error_and_no_end(on: Drive, *, tls: bool, is_early: bool) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # socket(7): a close is a reset
        writer.transport.abort()

    async def story(network: Network, origin: Origin) -> Sink:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:
            if not is_early:
                pushing(link).push_to(sink.receive, sink.closed)
            await link.write(b"x", math.inf)
            if is_early:
                await network.signal().wait(network.now() + 2 * SOON)
                pushing(link).push_to(sink.receive, sink.closed)
            assert await sink.is_over.wait(network.now() + PATIENCE)
            return sink

    sink = on(story, serving(reset, tls=tls))
    assert [type(error) for error in sink.ended] == [ConnectionResetError]
    assert sink.heard == []


@every_event_loop
@both
@pytest.mark.parametrize("is_early", [False, True], ids=["later", "at once"])
def test_a_sink_that_fails_ends_the_connection_and_gets_what_it_raised(on: Drive, *, tls: bool, is_early: bool) -> None:
    left = threading.Event()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await count_and_close(reader, writer)
        left.set()

    async def story(network: Network, origin: Origin) -> list[str]:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:
            await link.write(b"x", math.inf)
            if is_early:
                await network.signal().wait(network.now() + SOON)
            pushing(link).push_to(fail, sink.closed)
            assert await sink.is_over.wait(network.now() + PATIENCE)
            await until(network, left.is_set)
            with pytest.raises(Aborted):
                await link.write(b"x", math.inf)
            return [repr(error) for error in sink.ended]

    assert on(story, serving(note, tls=tls)) == ["KeyError(b'0 ')"]


@every_event_loop
@both
def test_other_links_go_on_when_a_sink_fails(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> bytes:
        sink, failing = Sink(network), Sink(network)
        async with connected(network, Route(origin)) as link, connected(network, Route(origin)) as other:
            pushing(link).push_to(fail, failing.closed)
            pushing(other).push_to(sink.receive, sink.closed)
            await link.write(b"x", math.inf)
            await other.write(b"x", math.inf)
            assert await failing.is_over.wait(network.now() + PATIENCE)
            await other.write(b"x.", math.inf)
            assert await sink.is_over.wait(network.now() + PATIENCE)
            return sink.data

    assert on(story, serving(count_and_close, tls=tls)) == numbers(2)


@every_event_loop
@both
@pytest.mark.parametrize("where", ["outside", "in the sink", "before"])
def test_after_an_abort_nothing_is_pushed_but_the_news_that_it_is_over(on: Drive, where: str, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> Sink:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:

            def receive(data: bytes) -> None:
                sink.receive(data)
                if where == "in the sink":
                    link.abort()

            await link.write(b"x", math.inf)
            await network.signal().wait(network.now() + SOON)
            if where == "before":
                link.abort()
            pushing(link).push_to(receive, sink.closed)
            link.abort()
            pushing(link).pause()
            pushing(link).resume()
            assert await sink.is_over.wait(network.now() + PATIENCE)
            return sink

    sink = on(story, serving(count_and_close, tls=tls))
    assert sink.heard == ([] if where == "before" else [b"0 "])
    assert sink.ended == [None]


async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send 6 MB and close."""
    for _number in range(120):
        writer.write(b"x" * 50_000)
        await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@every_event_loop
@both
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "much has come"])
def test_a_sink_that_pauses_gets_no_more_until_it_resumes(on: Drive, *, tls: bool, is_late: bool) -> None:
    async def story(network: Network, origin: Origin) -> int:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:

            def receive(data: bytes) -> None:
                sink.receive(data)
                if len(sink.heard) <= 3:
                    pushing(link).pause()

            if is_late:
                await network.signal().wait(network.now() + SOON)
            pushing(link).push_to(receive, sink.closed)
            for count in (1, 2, 3):
                await until(network, lambda: bool(sink.heard))
                await network.signal().wait(network.now() + SOON)
                assert len(sink.heard) == count
                pushing(link).resume()
                pushing(link).resume()
            assert await sink.is_over.wait(network.now() + PATIENCE)
            return len(sink.data)

    assert on(story, serving(pour, tls=tls)) == 6_000_000


@every_event_loop
@both
def test_reading_that_was_slowed_down_goes_on_when_pushing_begins(on: Drive, *, tls: bool) -> None:
    async def story(network: Network, origin: Origin) -> int:
        sink = Sink(network)
        async with connected(network, Route(origin)) as link:
            await network.signal().wait(network.now() + 2 * SOON)
            pushing(link).push_to(sink.receive, sink.closed)
            assert await sink.is_over.wait(network.now() + PATIENCE)
            return len(sink.data)

    assert on(story, serving(pour, tls=tls)) == 6_000_000


@every_event_loop
@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
def test_a_peer_that_floods_the_link_is_read_once_in_a_step_of_the_loop(on: Drive, *, tls: bool) -> None:
    """uvloop reads up to 32 times, and a decoder takes 10 ms for 64 KiB of empty lines."""

    async def story(network: Network, origin: Origin) -> int:
        sink, loop, most = Sink(network), asyncio.get_running_loop(), 0
        pushed: list[int] = []

        def step_ends() -> None:
            nonlocal most
            most = max(most, sum(pushed))
            pushed.clear()

        def receive(data: bytes) -> None:
            if not pushed:
                loop.call_soon(step_ends)
            pushed.append(len(data))
            sink.receive(data)

        async with connected(network, Route(origin)) as link:
            await network.signal().wait(network.now() + SOON)
            pushing(link).push_to(receive, sink.closed)
            assert await sink.is_over.wait(network.now() + PATIENCE)
        assert len(sink.data) == 6_000_000
        return most

    assert on(story, serving(pour, tls=tls)) <= 3 * READ_BYTES
