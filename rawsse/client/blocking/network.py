"""The network of code without async: blocking waits in the caller's thread. No event loop, no thread, no callback.

    network = SocketNetwork()
    link = network.link()
    drive(link.connect(route, TLSContext(), network.now() + 10))
    data = drive(link.read(network.now() + 90))
    link.abort()                                  # from any thread; a caller that waits gets `Aborted`

Its coroutines never suspend. So Ctrl-C, signal handlers and tracebacks behave as in any blocking code: `KeyboardInterrupt` is
raised where the caller waits. Sockets do not block; each wait is a `poll`, which a signal interrupts.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rawsse.client.network.addresses import HAPPY_EYEBALLS_SECONDS, Address, joined, look_up, new_socket
from rawsse.client.network.certificates import TLSContext
from rawsse.client.network.connect import take_route
from rawsse.client.network.link import READ_BYTES, Aborted, Expired, Link, OnStart, in_threads
from rawsse.client.network.route import Origin, Route

SLICE_SECONDS = 0.1
"""The longest wait in one piece, where nothing can be relied on to end it: for a connection, which `abort` cannot wake on every
system; on Windows, where this is true of all waits; and in the main thread, where a signal that comes in the moment before
Python waits is handled only after the wait."""

LONGEST_SECONDS = 24 * 3600.0
"""The longest wait in one piece elsewhere: `poll` takes milliseconds, and no more than fit into an `int` of C."""

_WINDOWS = sys.platform == "win32"

_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY)
"""What a connection says that is being made. Every other number is an error."""


class SocketNetwork:
    """Links, signals and the time of blocking code. A `Network`."""

    runs_coroutines = False
    now = staticmethod(time.monotonic)

    @staticmethod
    def owner() -> int:
        """The process."""
        return os.getpid()

    def link(self) -> SocketLink:
        """A link that is not connected yet."""
        return SocketLink()

    def signal(self) -> SocketSignal:
        """A signal that is not set yet."""
        return SocketSignal()

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback`: links may be used from any thread."""
        callback()

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Nothing: between two calls nothing runs here."""
        del when
        return lambda: callback

    async def run(self, calls: Sequence[Callable[[], Any]], on_start: OnStart | None = None) -> list[Any]:
        """The results of functions that run at once: a single one in the caller's thread, several in a thread each.

        Stopped, it leaves the threads behind; a single function is waited for.
        """
        if len(calls) == 1:
            return [calls[0]()]
        done = self.signal()

        async def stop() -> None:
            done.set()

        if on_start is not None:
            on_start(stop)
        results = []
        for result, error in await in_threads(lambda: done, calls):
            if error is not None:
                raise error
            results.append(result)
        return results


class SocketSignal:
    """An event that happens once. A lock, and not `threading.Event`: a signal handler may set it in the thread that waits."""

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let it happen."""
        self._is_set = True
        with contextlib.suppress(RuntimeError):  # it was set before
            self._lock.release()

    async def wait(self, deadline: float) -> bool:
        """Wait for it until `deadline`. False: the deadline has passed."""
        while not self._is_set:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._lock.acquire(timeout=_piece(left))
        return True


class SocketLink:
    """A `Link` over TCP without an event loop."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._signal: SocketSignal | None = None
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a signal handler may abort the link in the thread that holds it
        self._unsent = memoryview(b"")  # of what was written, while the peer takes no more
        self._is_busy = False  # a thread reads or writes
        self._is_aborted = False

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Take the route: see `Connector.connect`."""
        return await take_route(self, route, tls, deadline)

    async def open(self, origin: Origin, deadline: float) -> None:
        """Connect to a host and port by TCP. Raises `OSError`, and `ValueError` for a host name that cannot be one."""
        sock = self._race(await look_up(self._new_signal, origin, deadline), deadline)
        with self._lock:
            self._sock = sock
            if self._is_aborted:
                sock.close()
                raise Aborted

    def _new_signal(self) -> SocketSignal:
        """For the look-up of a name: `abort` sets it."""
        self._signal = SocketSignal()
        if self._is_aborted:
            raise Aborted
        return self._signal

    async def read(self, deadline: float) -> bytes:
        """The next bytes; `b""` when the peer has closed its side."""
        try:
            sock = self._enter()
            while True:
                self._wait(sock, deadline, to_write=bool(self._unsent))
                if (data := self._receive(sock)) is not None:
                    return data
                with contextlib.suppress(OSError):  # the next `recv` says what is wrong
                    self._send(sock)
        finally:
            self._leave()

    def read_ready(self) -> bytes | None:
        """What has come, without waiting; None if nothing has."""
        try:
            return self._receive(self._enter())
        finally:
            self._leave()

    async def write(self, data: bytes, deadline: float) -> None:
        """Send `data`. Returns early if the peer sends while it takes no more; later reads and writes send the rest."""
        self._unsent = memoryview(bytes(self._unsent) + data if self._unsent else data)
        try:
            sock = self._enter()
            while not self._send(sock) and not self._wait(sock, deadline, to_write=True):
                pass
        finally:
            self._leave()

    def abort(self) -> None:
        """Drop the connection at once, from any thread. A caller that waits gets `Aborted`.

        A socket that another thread uses is not closed here: that wakes no thread, and the system may give its number to
        another socket. It is shut down, and closed by the thread that uses it.
        """
        self._is_in_its_process()
        with self._lock:
            self._is_aborted = True
            if self._signal is not None:
                self._signal.set()
            if self._sock is not None and self._is_busy:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
            elif self._sock is not None:
                self._sock.close()

    def _is_in_its_process(self) -> bool:
        """False in a forked child. There `shutdown` would end the connection of the parent, and a thread that is not here may
        have held the lock."""
        is_here = self._pid == os.getpid()
        if not is_here:
            self._lock, self._is_busy = threading.RLock(), False
        return is_here

    def _enter(self) -> socket.socket:
        if not self._is_in_its_process():
            raise RuntimeError("the process has forked: what was opened in the parent cannot be used in the child")
        with self._lock:
            if self._is_aborted:
                raise Aborted
            if self._sock is None:
                raise ConnectionResetError("not connected")
            self._is_busy = True
            return self._sock

    def _leave(self) -> None:
        with self._lock:
            self._is_busy = False
            if self._is_aborted and self._sock is not None:
                self._sock.close()

    def _send(self, sock: socket.socket) -> bool:
        """Send as much as the system takes now. True: nothing is left."""
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
        if self._is_aborted:  # what `shutdown` makes of a socket is no end of the peer's
            raise Aborted
        return data

    def _wait(self, sock: socket.socket, deadline: float, *, to_write: bool) -> bool:
        """Wait until the socket can be read, or written too. True: it can only be read. Raises `Expired`, `Aborted`."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Expired
            readable, writable = _poll([sock], _piece(left), to_write=to_write)
            if self._is_aborted:
                raise Aborted
            if readable or writable:
                return not writable

    def _race(self, addresses: list[Address], deadline: float) -> socket.socket:
        """A socket connected to one of the addresses, which are tried side by side ("happy eyeballs", RFC 8305)."""
        attempts: dict[socket.socket, Any] = {}  # their addresses
        errors: list[BaseException] = []
        next_at = -math.inf  # when the next address is tried beside those that have not answered
        try:
            while addresses or attempts:
                now = time.monotonic()
                if self._is_aborted:
                    raise Aborted
                if now >= deadline:
                    raise Expired
                if addresses and now >= next_at:
                    try:
                        family, address = addresses.pop(0)
                        attempts[_begin_connect(family, address)] = address
                        next_at = now + HAPPY_EYEBALLS_SECONDS
                    except OSError as exc:
                        errors.append(exc)
                    continue
                until = min(deadline, next_at if addresses else math.inf, now + SLICE_SECONDS)
                for sock in _poll(attempts, until - now, to_write=True)[1]:
                    address = attempts.pop(sock)
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if number == 0:
                        return sock
                    sock.close()
                    errors.append(_failed(number, address))
                    next_at = now
            raise joined(errors)
        finally:
            for sock in attempts:
                sock.close()


class _Socket(socket.socket):
    """A socket that is closed without a warning when its client is dropped or never closed, or its call interrupted.

    A `__del__` of the link would not do: the garbage collector may finalize the socket before it.
    """

    def __del__(self) -> None:
        if self.fileno() >= 0:  # else it could not even be made
            self.close()


def _begin_connect(family: socket.AddressFamily, address: Any) -> socket.socket:
    """A socket that connects. Raises `OSError`: the address refuses at once, or the system has no such family."""
    sock = new_socket(family, _Socket)
    number = sock.connect_ex(address)
    if number not in _IN_PROGRESS:
        sock.close()
        raise _failed(number, address)
    return sock


def _failed(number: int, address: Any) -> OSError:
    return OSError(number, f"Connect call failed {address}")  # as asyncio says it


def _piece(seconds: float) -> float:
    """How much of a wait to do in one piece."""
    is_main = threading.get_ident() == threading.main_thread().ident
    return min(seconds, SLICE_SECONDS if is_main or _WINDOWS else LONGEST_SECONDS)


def _poll(
    socks: Iterable[socket.socket], seconds: float, *, to_write: bool
) -> tuple[list[socket.socket], list[socket.socket]]:
    """Those of the sockets that can be read, and that can be written (if that is wanted), within so many seconds."""
    socks = list(socks)
    if not hasattr(select, "poll"):  # Windows, where a connection that failed is in the third list
        readable, writable, failed = select.select(socks, socks if to_write else [], socks, seconds)
        return readable, [*writable, *(sock for sock in failed if sock not in writable)]
    poll = select.poll()
    by_number = {sock.fileno(): sock for sock in socks}
    for number in by_number:
        poll.register(number, select.POLLIN | (select.POLLOUT if to_write else 0))
    events = poll.poll(math.ceil(seconds * 1000))
    ended = select.POLLHUP | select.POLLERR
    readable = [by_number[number] for number, event in events if event & (select.POLLIN | ended)]
    writable = [by_number[number] for number, event in events if to_write and event & (select.POLLOUT | ended)]
    return readable, writable
