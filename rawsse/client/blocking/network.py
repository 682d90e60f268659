"""The network of the blocking client: waits block the caller's thread. No event loop, no other thread, no callback.

    network = SocketNetwork()
    link = network.link()
    drive(link.connect(route, TLSContext(), network.now() + 10))
    data = drive(link.read(network.now() + 90))
    link.abort()                                  # from any thread; a waiting caller gets `Aborted`

Its coroutines never suspend. So Ctrl-C, signal handlers and tracebacks behave as in any blocking code: `KeyboardInterrupt` is
raised in the waiting call. Sockets do not block; each wait is a `poll`, which a signal interrupts.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from rawsse.client.network.connect import OnStart, TCPLink, ready
from rawsse.client.network.link import READ_BYTES, Aborted, Calls, Expired, in_threads

SLICE_SECONDS = 0.1
"""The longest single wait where it may not be woken: while connecting, which `abort` cannot interrupt on every system;
always on Windows; and in the main thread, where Python handles a signal that arrives just before a wait only after it."""

LONGEST_SECONDS = 24 * 3600.0
"""The longest single wait elsewhere: `poll` takes milliseconds as a C `int`."""

_WINDOWS = sys.platform == "win32"


class SocketNetwork:
    """Links, signals and the time of blocking code. A `Network`."""

    runs_coroutines = False
    now = staticmethod(time.monotonic)

    @staticmethod
    def owner() -> int:
        """The ID of the process."""
        return os.getpid()

    def link(self) -> SocketLink:
        """A link that is not connected yet."""
        return SocketLink()

    def signal(self) -> SocketSignal:
        """A signal that is not set yet."""
        return SocketSignal()

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` at once: links may be used from any thread."""
        callback()

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Does nothing: no code runs between two calls."""
        del when
        return lambda: callback

    async def run(self, calls: Calls, on_start: OnStart | None = None, deadline: float = math.inf) -> list[Any]:
        """The results of functions that run concurrently, in one thread each; a single one without a deadline in the caller's.

        If it is stopped, or at `deadline`, it does not wait for the threads; a function in the caller's runs to its end.
        """
        if len(calls) == 1 and deadline == math.inf:
            return [calls[0]()]
        done = self.signal()

        async def stop() -> None:
            done.set()

        if on_start is not None:
            on_start(stop)
        return await in_threads(done, calls, deadline)


class SocketSignal:
    """An event that happens once. A lock rather than a `threading.Event`: a signal handler may set it in the waiting thread."""

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Set it."""
        self._is_set = True
        with contextlib.suppress(RuntimeError):  # already set
            self._lock.release()

    async def wait(self, deadline: float) -> bool:
        """Wait for it until `deadline`. False: the deadline has passed."""
        while not self._is_set:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._lock.acquire(timeout=_piece(left))
        return True


class SocketLink(TCPLink):
    """A `Link` over TCP without an event loop.

    A caller that uses the socket holds a reference to it. `abort` shuts the socket down, which wakes that caller, and drops the
    link's reference; the socket is closed with the last reference. Closing it at once would wake no thread, and the system
    might reuse its number for another socket.
    """

    def __init__(self) -> None:
        self._now = time.monotonic
        self._signal = SocketSignal()
        self._sock: socket.socket | None = None
        self._pid = os.getpid()
        self._unsent = memoryview(b"")  # written, but not yet accepted by the peer
        self._is_aborted = False

    async def use(self, sock: socket.socket) -> None:
        """Read and write a connected socket."""
        self._sock = sock
        if self._is_aborted:  # perhaps by another thread just now
            self.abort()
            raise Aborted

    async def wait_for(self, socks: Collection[socket.socket], until: float) -> None:
        """Wait until one of the sockets is writable, but not longer than `until`. It waits in slices, because `abort`
        cannot end it."""
        if self._is_aborted:
            raise Aborted
        ready(socks, max(0.0, min(until - time.monotonic(), SLICE_SECONDS)), to_write=True)

    async def read(self, deadline: float) -> bytes:
        """The next bytes; `b""` when the peer has closed its side."""
        sock = self._open_socket()
        while True:
            self._wait(sock, deadline, to_write=bool(self._unsent))
            if (data := self._receive(sock)) is not None:
                return data
            with contextlib.suppress(OSError):  # the next `recv` raises the error
                self._send(sock)

    def read_ready(self) -> bytes | None:
        """The bytes that have arrived, without waiting; None if there are none."""
        return self._receive(self._open_socket())

    async def write(self, data: bytes, deadline: float) -> None:
        """Send `data`. Returns early if the peer sends while it reads no more; later reads and writes send the rest."""
        self._unsent = memoryview(bytes(self._unsent) + data if self._unsent else data)
        sock = self._open_socket()
        while not self._send(sock) and not self._wait(sock, deadline, to_write=True):
            pass

    def abort(self) -> None:
        """Drop the connection at once, from any thread. A waiting caller gets `Aborted`."""
        self._is_aborted = True
        self._signal.set()
        sock, self._sock = self._sock, None
        if sock is not None and self._pid == os.getpid():  # a forked child would end its parent's connection
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _open_socket(self) -> socket.socket:
        sock = self._sock
        if self._pid != os.getpid():
            raise RuntimeError("the process has forked: the child cannot use its parent's connections or streams")
        if self._is_aborted:
            raise Aborted
        if sock is None:
            raise ConnectionResetError("not connected")
        return sock

    def _send(self, sock: socket.socket) -> bool:
        """Send as much as the system accepts now. True: nothing is left."""
        try:
            while self._unsent:
                self._unsent = self._unsent[sock.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _receive(self, sock: socket.socket) -> bytes | None:
        try:
            data = sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        if self._is_aborted:  # EOF comes from `shutdown`, not from the peer
            raise Aborted
        return data

    def _wait(self, sock: socket.socket, deadline: float, *, to_write: bool) -> bool:
        """Wait until the socket is readable or, with `to_write`, writable. True: it is only readable. Raises `Expired`,
        `Aborted`."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Expired
            found = ready([sock], _piece(left), to_write=to_write)
            if self._is_aborted:
                raise Aborted
            if found:
                return not found[0][1]


def _piece(seconds: float) -> float:
    """The length of the next single wait."""
    is_main = threading.get_ident() == threading.main_thread().ident
    return min(seconds, SLICE_SECONDS if is_main or _WINDOWS else LONGEST_SECONDS)
