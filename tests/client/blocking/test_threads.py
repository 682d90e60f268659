"""rawsse.client.blocking over real sockets: many threads on one client, and `close` in one thread while another waits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.answers import ASK, KEY, SSE_HEAD, answer, async_of, plain
from support.background import PATIENCE
from support.sockets import LOCALHOST
from support.streams import ANSWER
from support.upstream import HELLO, Upstream, is_closed, is_waiting, piece, places, until

from rawsse.client.blocking import BlockingMessageStream, Client
from rawsse.client.blocking.network import _piece
from rawsse.client.network.pool import PoolLimits
from rawsse.client.retry import Timeouts
from rawsse.client.stream import MessageStream
from rawsse.errors import APIStatusError, StreamCancelledError

AT_ONCE = 1.0
"""Seconds: longer than it takes on a machine with much else to do, and shorter than all clocks and waits of these tests."""

NEVER = Timeouts(connect=60, head=60, silence=60)

BUSY = plain(
    b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', "529 Busy", retry_after="50"
)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


def client_of(upstream: Upstream, **options: Any) -> Client:
    trusting = ssl.create_default_context(cafile=LOCALHOST)
    given: dict[str, Any] = {
        "base_url": upstream.base_url,
        "timeouts": NEVER,
        "max_retries": 0,
        "ssl_context": trusting,
    }
    return Client(api_key=KEY, **{**given, **options})


class Caller(threading.Thread):
    """A thread that does one thing. `error` is what that raises."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.result: Any = None
        self.error: BaseException | None = None
        self._work = work
        self.start()

    def run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as exc:
            self.error = exc

    def end(self, seconds: float = PATIENCE) -> Any:
        """Its result. Raises its error."""
        self.join(seconds)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


# --- Closing -------------------------------------------------------------------------------------------------------


def read_on(stream: BlockingMessageStream) -> None:
    with stream:
        stream.until_done()


def begin_to_read(upstream: Upstream, client: Client) -> tuple[BlockingMessageStream, Caller, socket.socket]:
    stream = client.messages.stream(**ASK)
    caller = Caller(lambda: read_on(stream))
    peer = upstream.accept()
    peer.sendall(SSE_HEAD + piece(*HELLO))
    until(lambda: stream.ending is not None or (snapshot(stream) == "Hello" and is_waiting(caller)))
    return stream, caller, peer


def snapshot(stream: BlockingMessageStream) -> str:
    try:
        return stream.current_message_snapshot.text
    except RuntimeError:
        return ""


@pytest.mark.parametrize("closer", ["stream", "client"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_closing_wakes_a_thread_that_reads_and_it_has_what_came(tls: bool, closer: str) -> None:
    with Upstream(tls=tls) as upstream, client_of(upstream) as client:
        stream, caller, peer = begin_to_read(upstream, client)
        (stream if closer == "stream" else client).close()
        with pytest.raises(StreamCancelledError) as caught:
            caller.end(AT_ONCE)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Hello"
        assert stream.ending is not None
        assert stream.ending.kind == "cancelled"
        assert is_closed(peer)
        assert places(client) == (0, 0)


Phase = Callable[[Upstream, Client, pytest.MonkeyPatch], contextlib.AbstractContextManager[object]]


@contextlib.contextmanager
def head(upstream: Upstream, *_: object) -> Iterator[None]:
    """No answer comes."""
    yield
    assert is_closed(upstream.accept())


@contextlib.contextmanager
def connecting(upstream: Upstream, *_: object) -> Iterator[None]:
    """The server takes no connection."""
    with upstream.full():
        yield


@contextlib.contextmanager
def handshake(upstream: Upstream, *_: object) -> Iterator[None]:
    """The server says nothing in the handshake of TLS."""
    yield
    peer = upstream.connected()
    while peer.recv(65536):
        pass


@contextlib.contextmanager
def look_up(_: Upstream, __: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The resolver says nothing."""
    never, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(*where: Any, **options: Any) -> Any:
        if not options.get("flags"):
            never.wait(PATIENCE)
        return real("127.0.0.1" if not options.get("flags") else where[0], *where[1:], **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    never.set()


@contextlib.contextmanager
def queue(upstream: Upstream, client: Client, _: object) -> Iterator[None]:
    """The only connection is in use."""
    holding = Caller(client.messages.stream(**ASK).__enter__)
    upstream.accept().sendall(SSE_HEAD + piece(*HELLO))
    held = holding.end()
    yield
    held.close()


@contextlib.contextmanager
def retry(upstream: Upstream, *_: object) -> Iterator[None]:
    """The server asked to wait."""
    answered = Caller(lambda: upstream.accept().sendall(BUSY))
    yield
    answered.end()


PHASES: list[Phase] = [head, connecting, handshake, look_up, queue, retry]


@pytest.mark.parametrize("closer", ["stream", "client"])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_closing_wakes_a_thread_that_waits(phase: Phase, closer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Upstream(tls=phase is handshake) as upstream:
        name = "name.example" if phase is look_up else "127.0.0.1"
        options: dict[str, Any] = {"base_url": upstream.base_url.replace("127.0.0.1", name), "max_retries": 1}
        client = client_of(upstream, limits=PoolLimits(max_connections=1)).with_options(**options)
        with phase(upstream, client, monkeypatch):
            stream = client.messages.stream(**ASK)
            call = async_of(stream, MessageStream)._call
            caller = Caller(lambda: read_on(stream))
            until(lambda: is_waiting(caller) and (phase is not retry or call.exchange.error is not None))
            before = time.monotonic()
            (stream if closer == "stream" else client).close()
            with pytest.raises(StreamCancelledError):
                caller.end(AT_ONCE)
            assert time.monotonic() - before < AT_ONCE
        assert stream.ending is not None
        assert stream.ending.kind == "cancelled"
        assert places(client) == (0, 0)
        client.close()


def test_closing_the_client_wakes_a_call_that_gives_no_stream(upstream: Upstream) -> None:
    client = client_of(upstream)
    callers = [Caller(lambda: client.messages.create(**ASK)), Caller(client.models.list)]
    peers = [upstream.connected() for _ in callers]
    until(lambda: all(map(is_waiting, callers)))
    client.close()
    for caller in callers:
        with pytest.raises(StreamCancelledError):
            caller.end(AT_ONCE)
    for peer in peers:
        while peer.recv(65536):
            pass
    assert places(client) == (0, 0)


def test_a_stream_that_is_closed_before_it_is_opened_sends_nothing(upstream: Upstream) -> None:
    with client_of(upstream) as client:
        stream = client.messages.stream(**ASK)
        Caller(stream.close).end()
        with pytest.raises(StreamCancelledError), stream:
            pytest.fail("it is open")
        assert places(client) == (0, 0)


def test_the_client_is_good_after_a_stream_was_closed(upstream: Upstream) -> None:
    with client_of(upstream) as client:
        stream, caller, _ = begin_to_read(upstream, client)
        stream.close()
        with pytest.raises(StreamCancelledError):
            caller.end()
        asking = Caller(lambda: client.messages.create(**ASK).text)
        upstream.accept().sendall(answer(ANSWER))
        assert asking.end() == "Hello ☺"


def test_a_second_reader_is_refused_and_the_first_reads_on(upstream: Upstream) -> None:
    with client_of(upstream) as client:
        stream, caller, peer = begin_to_read(upstream, client)
        for reading in (stream.__next__, stream.text_stream.__next__, stream.until_done, stream.get_final_text):
            with pytest.raises(RuntimeError, match="another thread is reading the stream"):
                reading()
        peer.sendall(piece(*ANSWER[-3:]))
        caller.end()
        assert stream.get_final_text() == "Hello"


def test_in_the_main_thread_no_wait_is_long_because_a_signal_may_come_just_before_it() -> None:
    waits: list[float] = []
    for thread in (Caller(lambda: waits.append(_piece(50))), None):
        thread.end() if thread else waits.append(_piece(50))
    assert (waits[0], waits[1] <= 0.5, _piece(0.01)) == (50, True, 0.01)


# --- Many threads --------------------------------------------------------------------------------------------------


class Answering:
    """Answers each request of each connection, whole."""

    def __init__(self, upstream: Upstream) -> None:
        self.connections = 0
        self._upstream = upstream
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the test is over
            while True:
                peer = self._upstream.connected()
                self.connections += 1
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError, AssertionError):  # the client has gone
            while True:
                self._upstream.read_request(peer).sendall(answer(ANSWER))


def test_many_threads_share_few_connections(upstream: Upstream) -> None:
    server = Answering(upstream)
    with client_of(upstream, limits=PoolLimits(max_connections=3, late_end_seconds=PATIENCE)) as client:

        def ask() -> list[str]:
            texts = [client.messages.create(**ASK).text for _ in range(5)]
            with client.messages.stream(**ASK) as stream:
                return [*texts, "".join(stream.text_stream)]

        callers = [Caller(ask) for _ in range(8)]
        assert [caller.end() for caller in callers] == [["Hello ☺"] * 6] * 8
        assert places(client) == (0, 0)
    assert server.connections <= 3


def test_threads_that_close_streams_at_any_moment_lose_no_place(upstream: Upstream) -> None:
    Answering(upstream)
    chance = random.Random(8)
    with client_of(upstream, limits=PoolLimits(max_connections=3)) as client:

        def ask(moments: list[float]) -> list[str]:
            seen: list[str] = []
            for moment in moments:
                stream = client.messages.stream(**ASK)
                closer = threading.Timer(moment, stream.close)
                closer.start()
                try:
                    with stream:
                        stream.until_done()
                except StreamCancelledError:
                    pass
                closer.cancel()
                closer.join(PATIENCE)
                seen.append(stream.ending.kind if stream.ending else "none")
            return seen

        callers = [Caller(lambda: ask([chance.uniform(0, 0.008) for _ in range(20)] + [PATIENCE])) for _ in range(6)]
        endings = [kind for caller in callers for kind in caller.end()]
        # On a busy machine every one that is closed soon is closed before its end.
        assert {"complete"} <= set(endings) <= {"complete", "cancelled"}
        assert places(client) == (0, 0)
        assert client.messages.create(**ASK).text == "Hello ☺"


def test_a_client_may_be_closed_while_threads_begin_calls(upstream: Upstream) -> None:
    Answering(upstream)
    for _ in range(10):
        client = client_of(upstream)
        ready = threading.Barrier(5, timeout=PATIENCE)

        def ask(client: Client = client, ready: threading.Barrier = ready) -> str:
            ready.wait()
            while True:
                try:
                    assert client.messages.create(**ASK).text == "Hello ☺"
                except (StreamCancelledError, RuntimeError) as exc:
                    return str(exc)

        callers = [Caller(ask) for _ in range(4)]
        ready.wait()
        client.close()
        told = {caller.end(AT_ONCE) for caller in callers}
        assert all("closed" in words for words in told), told
        assert places(client) == (0, 0)


# --- Where it runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_it_works_in_the_thread_of_a_running_event_loop(tls: bool) -> None:
    async def notebook() -> str:
        text: str = client.messages.create(**ASK).text
        return text

    with Upstream(tls=tls) as upstream, client_of(upstream) as client:
        serving = Caller(lambda: upstream.accept().sendall(answer(ANSWER)))
        assert asyncio.run(notebook()) == "Hello ☺"
        serving.end()


def test_a_name_is_looked_up_in_a_thread_that_ends(upstream: Upstream) -> None:
    before = set(threading.enumerate())
    with client_of(upstream, base_url=upstream.base_url.replace("127.0.0.1", "localhost")) as client:
        asking = Caller(lambda: client.messages.create(**ASK).text)
        upstream.accept().sendall(answer(ANSWER))
        assert asking.end() == "Hello ☺"
        until(lambda: set(threading.enumerate()) - {asking} <= before)


def test_an_error_of_the_server_is_raised_in_the_thread_that_asked(upstream: Upstream) -> None:
    with client_of(upstream) as client:
        asking = Caller(lambda: client.messages.create(**ASK))
        upstream.accept().sendall(BUSY)
        with pytest.raises(APIStatusError, match="busy"):
            asking.end()
        assert places(client) == (0, 0)
