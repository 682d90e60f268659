"""A server that blocks, played by the test itself: it answers when the test says so, what the test says.

with Upstream(tls=True) as upstream:
    ...                                     # a client in another thread or process asks upstream.base_url
    peer = upstream.accept()                # its request has come
    peer.sendall(SSE_HEAD + piece(*HELLO))
    assert is_closed(peer)                  # it has gone
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Self

import pytest

from support.answers import chunked
from support.background import PATIENCE
from support.pools import counts
from support.sockets import LOCALHOST
from support.streams import Raw, block_start, start, text_delta, to_bytes

__all__ = [
    "HELLO",
    "Upstream",
    "core",
    "interrupt_when_waiting",
    "is_closed",
    "is_waiting",
    "needs_signals",
    "piece",
    "places",
    "until",
]

HELLO: list[Raw] = [start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hel"), text_delta(0, "lo")]
"""The beginning of an answer."""


def piece(*raws: Raw) -> bytes:
    """One HTTP chunk with these events, and nothing after it."""
    return chunked(to_bytes(raws)).removesuffix(b"0\r\n\r\n")


class Upstream:
    """`base_url` is where it listens. Its connections are closed when the block is left."""

    def __init__(self, *, tls: bool = False) -> None:
        self._entered = ExitStack()
        self._listener = self._entered.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listener.settimeout(PATIENCE)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self._context is not None:
            self._context.load_cert_chain(LOCALHOST)
        self.base_url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    def connected(self) -> socket.socket:
        """The next connection, of which nothing has been read yet."""
        peer, _ = self._listener.accept()
        peer.settimeout(PATIENCE)
        return self._entered.enter_context(peer)

    def accept(self) -> socket.socket:
        """The next connection, its first request read."""
        peer = self.connected()
        if self._context is not None:
            peer = self._entered.enter_context(self._context.wrap_socket(peer, server_side=True))
        return self.read_request(peer)

    def read_request(self, peer: socket.socket) -> socket.socket:
        """Read a request with a body that is a JSON object."""
        received = b""
        while not received.endswith(b"}"):
            data = peer.recv(65536)
            assert data, "the client closed the connection before its request was whole"
            received += data
        return peer

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Within the block no connection is made: the system drops what asks for one."""
        with ExitStack() as taken:
            self._listener.listen(0)
            with contextlib.suppress(TimeoutError):
                while True:
                    sock = taken.enter_context(socket.socket())
                    sock.settimeout(0.05)
                    sock.connect(self._listener.getsockname())
                    taken.callback(self.connected)
            yield
            self._listener.listen()


def core(blocking: Any) -> Any:
    """The async object in a blocking one."""
    return blocking._inner


def places(client: Any) -> tuple[int, int]:
    """Of a blocking client: connections in use, and calls that wait for one."""
    opened, idle, waiting = counts(core(client)._pools)
    return opened - idle, waiting


def is_closed(peer: socket.socket) -> bool:
    """The client has closed its side; waits until it has, or sends something."""
    try:
        return peer.recv(1) == b""
    except (ConnectionResetError, ssl.SSLEOFError):
        return True


def is_waiting(thread: threading.Thread | None = None) -> bool:
    """The thread (None: the main one) waits in the client: for a socket, or for a signal of another thread."""
    ident = (thread or threading.main_thread()).ident
    frame: Any = sys._current_frames().get(ident or 0)
    return frame is not None and (frame.f_code.co_name, frame.f_globals["__name__"].rpartition(".")[2]) in _WAITS


_WAITS = {("ready", "connect"), ("wait", "network")}


needs_signals = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")


def interrupt_when_waiting() -> threading.Thread:
    """Interrupt the main thread, as Ctrl-C does, as soon as it waits in the client. The caller joins the thread."""

    def interrupt() -> None:
        until(is_waiting)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    """Wait until another thread has made it true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.001)
