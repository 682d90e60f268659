"""rawsse.client.blocking.network: what only blocking sockets have: other threads, Ctrl-C, fork, descriptors.

What a link does on every network is in `test_link.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import math
import os
import select
import signal
import socket
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.background import PATIENCE, Background
from support.networks import LONG, SOON
from support.sockets import serving, shout, trusting
from support.upstream import is_waiting

from rawsse.client.blocking import network as socket_network
from rawsse.client.blocking.network import SocketLink, SocketNetwork, SocketSignal
from rawsse.client.network import connect
from rawsse.client.network.link import Aborted, Expired, Link, drive
from rawsse.client.network.route import Origin, Route
from rawsse.errors import APIConnectionError

both = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])

now = SocketNetwork.now


@pytest.fixture
def accepted() -> Iterator[tuple[SocketLink, socket.socket]]:
    """A connected link, and the socket at its other end: no thread, no loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = SocketNetwork().link()
        drive(link.connect(Route(Origin("http", *listener.getsockname())), trusting(), now() + PATIENCE))
        peer = listener.accept()[0]
        peer.settimeout(PATIENCE)
        with peer:
            yield link, peer
        link.abort()


def socket_of(link: SocketLink) -> weakref.ref[socket.socket]:
    """The link's socket, as long as it exists: when it does no more, the system has closed it."""
    assert link._sock is not None
    return weakref.ref(link._sock)


def read(link: Link, seconds: float = PATIENCE) -> bytes:
    return drive(link.read(now() + seconds))


def write(link: Link, data: bytes) -> None:
    drive(link.write(data, now() + PATIENCE))


Accepted = tuple[SocketLink, socket.socket]

# --- Other threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [read, lambda link: write(link, b"x" * 30_000_000)], ids=["read", "write"])
def test_a_descriptor_is_not_closed_under_a_thread_that_waits_for_it(
    work: Callable[[SocketLink], object], accepted: Accepted, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, _peer = accepted
    waits, was_aborted = threading.Event(), threading.Event()
    seen: list[int] = []
    sock = socket_of(link)
    ready = connect.ready

    def watched(socks: list[socket.socket], *arguments: Any, **options: Any) -> Any:
        waits.set()
        assert was_aborted.wait(PATIENCE)
        seen.append(socks[0].fileno())  # after the abort: another socket would have this number, had it been closed
        return ready(socks, *arguments, **options)

    def abort() -> None:
        assert waits.wait(PATIENCE)
        link.abort()
        was_aborted.set()

    monkeypatch.setattr(socket_network, "ready", watched)
    aborter = threading.Thread(target=abort)
    aborter.start()
    with pytest.raises(Aborted):
        work(link)
    aborter.join(PATIENCE)
    assert len(seen) == 1
    assert seen != [-1]
    assert sock() is None  # it is closed when the thread that waited is through with it


def test_a_link_that_no_thread_uses_is_closed_by_the_abort(accepted: Accepted) -> None:
    link, peer = accepted
    sock = socket_of(link)
    link.abort()
    assert sock() is None
    assert peer.recv(1) == b""


@both
def test_a_thread_that_is_asleep_in_a_read_wakes_within_a_second(*, tls: bool) -> None:
    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    with Background() as background:
        origin = background.enter(serving(listen, tls=tls))
        link = SocketNetwork().link()
        secure = drive(link.connect(Route(origin), trusting(), now() + PATIENCE))
        sock = socket_of(link)
        (timer := threading.Timer(0.2, secure.abort)).start()
        before = time.monotonic()
        with pytest.raises(Aborted):
            drive(secure.read(math.inf))
        assert 0.1 < time.monotonic() - before < 0.2 + LONG
        timer.join(PATIENCE)
        assert sock() is None


def test_many_threads_may_abort_a_link_at_once(accepted: Accepted) -> None:
    link, _peer = accepted
    sock = socket_of(link)
    threads = [threading.Thread(target=link.abort) for _ in range(16)]
    for thread in threads:
        thread.start()
    with pytest.raises(Aborted):
        read(link)
    for thread in threads:
        thread.join(PATIENCE)
    assert sock() is None


def test_a_link_that_is_aborted_while_it_connects_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[socket.socket]] = []
    new_socket = connect.new_socket

    def begin(*arguments: Any) -> socket.socket:
        sock = new_socket(*arguments)
        made.append(weakref.ref(sock))
        link.abort()
        return sock

    monkeypatch.setattr(connect, "new_socket", begin)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = SocketNetwork().link()
        with pytest.raises(Aborted):
            drive(link.connect(Route(Origin("http", *listener.getsockname())), trusting(), now() + PATIENCE))
    assert [sock() for sock in made] == [None]  # the last reference closes it


def test_one_that_is_aborted_in_the_moment_in_which_it_is_connected_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[socket.socket]] = []
    race = connect.race

    async def win(*arguments: Any) -> socket.socket:
        sock = await race(*arguments)
        made.append(weakref.ref(sock))
        link.abort()
        return sock

    monkeypatch.setattr(connect, "race", win)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = SocketNetwork().link()
        with pytest.raises(Aborted):
            drive(link.connect(Route(Origin("http", *listener.getsockname())), trusting(), now() + PATIENCE))
    assert [sock() for sock in made] == [None]


def test_the_end_that_an_abort_makes_is_not_taken_for_the_peer_s(accepted: Accepted) -> None:
    link, _peer = accepted
    assert link._sock is not None

    class ShutDown(connect.Socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            link.abort()  # by another thread, in this moment
            return super().recv(size, flags)

    link._sock = ShutDown(fileno=link._sock.detach())
    sock = socket_of(link)
    with pytest.raises(Aborted):
        link.read_ready()
    assert sock() is None


def test_a_link_that_is_not_connected_can_be_neither_read_nor_written() -> None:
    link = SocketNetwork().link()
    for work in (read, lambda link: write(link, b"x"), SocketLink.read_ready):
        with pytest.raises(ConnectionError, match="not connected"):
            work(link)


# --- Signals -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def interrupted(handler: Callable[[int, Any], Any] = signal.default_int_handler) -> Iterator[None]:
    """Ctrl-C, soon."""
    before = signal.signal(signal.SIGINT, handler)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(SOON, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join(PATIENCE)
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_read_and_the_link_can_be_aborted_or_read_on(accepted: Accepted) -> None:
    link, peer = accepted
    before = time.monotonic()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        drive(link.read(math.inf))
    assert time.monotonic() - before < LONG
    peer.send(b"x")
    assert read(link) == b"x"
    sock = socket_of(link)
    link.abort()
    assert sock() is None


def test_ctrl_c_ends_the_wait_for_a_signal() -> None:
    before = time.monotonic()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        drive(SocketSignal().wait(math.inf))
    assert time.monotonic() - before < LONG


def test_ctrl_c_ends_the_wait_for_functions_in_threads() -> None:
    may_end = threading.Event()
    before = time.monotonic()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        drive(SocketNetwork().run([lambda: may_end.wait(PATIENCE)] * 2))
    may_end.set()
    assert time.monotonic() - before < LONG


def test_a_signal_handler_may_abort_the_link_that_its_own_thread_reads(accepted: Accepted) -> None:
    link, _peer = accepted
    sock = socket_of(link)
    with interrupted(lambda *_: link.abort()), pytest.raises(Aborted):
        drive(link.read(math.inf))
    assert sock() is None


def test_a_signal_handler_may_set_the_signal_that_its_own_thread_waits_for() -> None:
    waited = SocketSignal()
    with interrupted(lambda *_: waited.set()):
        assert drive(waited.wait(now() + PATIENCE))


def test_a_wait_that_a_signal_interrupts_keeps_its_deadline(accepted: Accepted) -> None:
    link, _peer = accepted
    before = time.monotonic()
    with interrupted(lambda *_: None), pytest.raises(Expired):
        drive(link.read(before + 3 * SOON))
    assert 2.9 * SOON < time.monotonic() - before < LONG


# --- Fork ----------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a child process that does this and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # other tests may have left threads, which do not matter here
        child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("is_busy", [False, True])
def test_an_abort_in_a_forked_child_leaves_the_connection_of_the_parent(is_busy: bool, accepted: Accepted) -> None:
    link, peer = accepted
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(read(link)))
    if is_busy:
        reader.start()
        while not is_waiting(reader):
            pass
    assert in_child(link.abort) == 0
    peer.send(b"still here")
    if is_busy:
        reader.join(PATIENCE)
    else:
        heard.append(read(link))
    write(link, b"so am I")
    assert (heard, peer.recv(100)) == ([b"still here"], b"so am I")


# --- The network ---------------------------------------------------------------------------------------------------


def test_a_callback_is_called_at_once() -> None:
    network, heard = SocketNetwork(), list[str]()
    network.post(lambda: heard.append("posted"))
    assert heard == ["posted"]


def test_a_single_function_runs_in_the_caller_s_thread_and_several_in_one_each() -> None:
    network, caller = SocketNetwork(), threading.current_thread()
    barrier = threading.Barrier(2, timeout=PATIENCE)

    def meet() -> threading.Thread:
        barrier.wait()
        return threading.current_thread()

    assert drive(network.run([])) == []
    assert drive(network.run([threading.current_thread])) == [caller]
    threads = drive(network.run([meet, meet]))
    assert len({caller, *threads}) == 3
    assert all(thread.daemon for thread in threads)


def test_each_has_a_copy_of_the_caller_s_context() -> None:
    user = contextvars.ContextVar("user", default="unset")

    def look() -> str:
        found = user.get()
        user.set("changed")
        return found

    def caller() -> list[str]:
        user.set("mine")
        return [*drive(SocketNetwork().run([look, look])), user.get()]

    assert contextvars.copy_context().run(caller) == ["mine"] * 3


def test_what_one_raises_is_raised_when_all_are_over() -> None:
    over = threading.Event()

    def fail() -> None:
        raise KeyError("no such")

    def work() -> None:
        threading.Event().wait(SOON)
        over.set()

    with pytest.raises(KeyError, match="no such"):
        drive(SocketNetwork().run([fail, work]))
    assert over.is_set()


def test_a_call_runs_in_the_thread_of_an_event_loop_that_is_running() -> None:
    async def story(origin: Origin) -> bytes:
        link = SocketNetwork().link()
        try:
            secure = drive(link.connect(Route(origin), trusting(), now() + PATIENCE))
            write(secure, b"hello")
            return read(secure)
        finally:
            link.abort()

    with Background() as background:
        origin = background.enter(serving(shout, tls=True))
        assert asyncio.run(story(origin)) == b"HELLO"


def test_a_link_that_is_forgotten_closes_its_socket(accepted: Accepted) -> None:
    _link, peer = accepted
    with socket.create_server(("127.0.0.1", 0)) as listener:
        forgotten = SocketNetwork().link()
        drive(forgotten.connect(Route(Origin("http", *listener.getsockname())), trusting(), now() + PATIENCE))
        peer = listener.accept()[0]
        with peer, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del forgotten
            gc.collect(0)
            peer.settimeout(PATIENCE)
            assert peer.recv(1) == b""


# --- Systems without `poll` ----------------------------------------------------------------------------------------


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`select` in place of `poll`, and waits in slices: as on Windows."""
    monkeypatch.delattr(select, "poll", raising=False)
    monkeypatch.setattr(socket_network, "_WINDOWS", True)
    monkeypatch.setattr(socket_network, "SLICE_SECONDS", 0.01)


@both
def test_without_poll_bytes_go_both_ways(windows: None, *, tls: bool) -> None:
    size = 3_000_000

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"early ")
        await asyncio.sleep(SOON)
        await reader.readexactly(size)
        writer.write(b"whole")
        await reader.read()

    with Background() as background:
        origin = background.enter(serving(count, tls=tls))
        link = SocketNetwork().link()
        secure = drive(link.connect(Route(origin), trusting(), now() + PATIENCE))
        write(secure, b"x" * size)
        data = read(secure)
        while len(data) < 11:
            data += read(secure)
        link.abort()
    assert data == b"early whole"


def test_without_poll_waits_end_at_their_deadline_and_by_an_abort(windows: None, accepted: Accepted) -> None:
    link, _peer = accepted
    with pytest.raises(Expired):
        read(link, SOON)
    assert not drive(SocketSignal().wait(now() + SOON))
    threading.Timer(SOON, link.abort).start()
    with pytest.raises(Aborted):
        read(link)


def test_without_poll_an_address_that_refuses_is_seen(windows: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        origin = Origin("http", *sock.getsockname())
    link = SocketNetwork().link()
    with pytest.raises(APIConnectionError) as caught:
        drive(link.connect(Route(origin), trusting(), now() + PATIENCE))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
