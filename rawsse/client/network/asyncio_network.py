"""The network of an event loop.

    network = AsyncioNetwork()                          # of the loop that runs here
    link = network.link()
    await link.connect(route, TLSContext(), network.now() + 10)
    await link.write(b"...", network.now() + 120)
    data = await link.read(network.now() + 90)          # or, once it is connected: link.push_to(receive, closed)
    link.abort()

Reads go through `asyncio.BufferedProtocol`. A plain `Protocol` makes asyncio read into 256 KiB that it allocates each time, and
for so large a block the allocator maps, shrinks and unmaps memory: three system calls for each event of a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

from rawsse.client.network.addresses import HAPPY_EYEBALLS_SECONDS, Address, joined, look_up, new_socket
from rawsse.client.network.certificates import TLSContext
from rawsse.client.network.connect import take_route
from rawsse.client.network.link import READ_BYTES, Aborted, Expired, Link, OnStart, in_threads
from rawsse.client.network.route import Origin, Route

# --- The network ---------------------------------------------------------------------------------------------------


class AsyncioNetwork:
    """Links, signals and the time of the running event loop. A `Network`."""

    runs_coroutines = True

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()  # held: asking for it is a system call on Python 3.11
        self.now = self.loop.time
        self._thread = threading.get_ident()
        # A selector loop, and uvloop, read and deliver in one step: all links of the loop read into one buffer. On Windows the
        # proactor holds a link's buffer while it waits.
        proactor = getattr(asyncio, "ProactorEventLoop", None)
        self._buffer = None if proactor and isinstance(self.loop, proactor) else memoryview(bytearray(READ_BYTES))

    @staticmethod
    def owner() -> asyncio.AbstractEventLoop:
        """The running event loop."""
        return asyncio.get_running_loop()

    def link(self) -> AsyncioLink:
        """A link that is not connected yet."""
        return AsyncioLink(self)

    def signal(self) -> AsyncioSignal:
        """A signal that is not set yet."""
        return AsyncioSignal(self)

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the loop: now, if this is its thread or the loop is closed."""
        if threading.get_ident() == self._thread or self.loop.is_closed():
            callback()
        else:
            with contextlib.suppress(RuntimeError):  # it was closed in this moment
                self.loop.call_soon_threadsafe(callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` at `when`; gives what cancels that."""
        return self.loop.call_at(when, callback).cancel

    async def run(self, calls: Sequence[Callable[[], Any]], on_start: OnStart | None = None) -> list[Any]:
        """The results of functions, each in a thread, and of coroutine functions, each in a task, at once.

        What one of them raises is raised when all are over. Cancelled or stopped, it cancels the tasks and waits for them.
        """
        tasks = [self.loop.create_task(self._run(call)) for call in calls]
        is_stopped = False

        async def stop() -> None:
            nonlocal is_stopped
            is_stopped = True
            others = [
                task for task in tasks if task is not asyncio.current_task()
            ]  # it may be one of them that stops all
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        if on_start is not None:
            on_start(stop)
        try:
            if tasks:
                await asyncio.wait(tasks)
        except BaseException:
            await stop()
            raise
        if is_stopped:
            raise Aborted
        failed = [task for task in tasks if task.cancelled() or task.exception() is not None]  # each is retrieved
        return [task.result() for task in failed or tasks]

    async def _run(self, call: Callable[[], Any]) -> Any:
        if inspect.iscoroutinefunction(call):
            return await call()
        ((result, error),) = await in_threads(self.signal, [call])
        if error is not None:
            raise error
        return result

    def lend_buffer(self) -> memoryview:
        """What a link reads into, until its `buffer_updated` returns."""
        return memoryview(bytearray(READ_BYTES)) if self._buffer is None else self._buffer


class AsyncioSignal:
    """An event that happens once."""

    def __init__(self, network: AsyncioNetwork) -> None:
        self._network = network
        self._is_set = False
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let it happen; seen at once in the loop's own thread."""
        self._network.post(self._set)

    def _set(self) -> None:
        self._is_set = True
        _wake(self._waiting)

    async def wait(self, deadline: float) -> bool:
        """Wait for it until `deadline`. False: the deadline has passed."""
        if self._is_set:
            return True
        loop = self._network.loop
        self._waiting = loop.create_future()
        timer = loop.call_at(deadline, _wake, self._waiting) if deadline < math.inf else None
        try:
            await self._waiting
        finally:
            if timer is not None:
                timer.cancel()
        return self._is_set


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


# --- A link --------------------------------------------------------------------------------------------------------


class AsyncioLink(asyncio.BufferedProtocol):
    """A `Link` over TCP in an event loop."""

    def __init__(self, network: AsyncioNetwork) -> None:
        self._network = network
        self._transport: asyncio.Transport | None = None
        self._buffer: memoryview | None = None
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._is_over = False  # the peer closed its side, or the connection is lost
        self._error: Exception | None = None  # why it is lost, if neither side closed it
        self._is_aborted = False
        self._is_paused = False  # reading
        self._is_full = False  # writing: the peer is slow
        self._opening: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._deadline = math.inf  # of the wait
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf  # `_deadline`, or earlier. `_timer.when()` is rounded in uvloop, or missing
        self._receive: Callable[[bytes], None] | None = None
        self._closed: Callable[[Exception | None], None] | None = None

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Take the route: see `Connector.connect`."""
        return await take_route(self, route, tls, deadline)

    async def open(self, origin: Origin, deadline: float) -> None:
        """Connect to a host and port by TCP. Raises `OSError`, and `ValueError` for a host name that cannot be one."""
        self._opening = self._network.loop.create_task(self._open(origin))
        self._opening.add_done_callback(self._opened)
        try:
            while not self._opening.done():
                await self._wait(deadline)
        except BaseException:
            self._opening.cancel()
            raise
        self._opening.result()
        if self._is_aborted:
            raise Aborted

    def _opened(self, opening: asyncio.Task[None]) -> None:
        if not opening.cancelled():
            opening.exception()  # retrieved, also if `open` has given up
        _wake(self._waiting)

    async def _open(self, origin: Origin) -> None:
        sock = await _race(self._network.loop, await look_up(self._network.signal, origin))
        try:
            await self._network.loop.create_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def read(self, deadline: float) -> bytes:
        """The next bytes; `b""` when the peer has closed its side."""
        while (data := self.read_ready()) is None:
            await self._wait(deadline)
        return data

    def read_ready(self) -> bytes | None:
        """What has come, without waiting; None if nothing has."""
        if self._is_aborted:
            raise Aborted
        if self._unread:
            data = b"".join(self._unread)
            self._unread.clear()
            self._unread_bytes = 0
            if self._is_paused:
                self.resume()
            return data
        if self._error is not None:
            raise self._error
        return b"" if self._is_over else None

    async def write(self, data: bytes, deadline: float) -> None:
        """Send `data`. Returns early if the peer sends while it takes no more."""
        if self._is_aborted:
            raise Aborted
        if self._transport is None or self._transport.is_closing():
            raise self._error or ConnectionResetError("the connection was closed")
        self._transport.write(data)
        while self._is_full and not self._unread and not self._is_over:
            await self._wait(deadline)

    def abort(self) -> None:
        """Drop the connection at once, at any phase. A caller that waits gets `Aborted`."""
        self._is_aborted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the connection with it
            if self._opening is not None:
                self._opening.cancel()
            if self._transport is not None:
                self._transport.abort()
            _wake(self._waiting)

    # Pushing -------------------------------------------------------------------------------------------------------

    def push_to(self, receive: Callable[[bytes], None], closed: Callable[[Exception | None], None]) -> None:
        """From now on call `receive` with what comes, in the loop, as soon as it comes; `read` may be called after `pull`.

        `receive(b"")` says that the peer has closed its side. `closed` is called once, when nothing more will come: with None
        after that or after `abort`, with the `OSError` that lost the connection, or with what `receive` itself raised. The
        link is aborted then: without this guard asyncio would close the connection, and a bug would read as a cut.
        """
        self._receive, self._closed = receive, closed
        data = b"".join(self._unread)
        self._unread.clear()
        self.resume()  # before `receive` may pause
        if data and not self._is_aborted:
            self._push(data)
        if self._is_over and self._closed is not None:
            self._push_end()

    def pull(self) -> None:
        """Push no more: what comes from now on waits for `read`. A pause ends."""
        self._receive = self._closed = None
        self.resume()

    def pause(self) -> None:
        """Let TCP slow the peer down."""
        if not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused:
            self._is_paused = False
            if self._transport is not None and not self._is_aborted:
                self._transport.resume_reading()

    def _push(self, data: bytes) -> None:
        assert self._receive is not None  # noqa: S101 - `push_to` sets it
        try:
            self._receive(data)
        except Exception as exc:
            self._error = exc
            self.abort()
            self._push_closed()

    def _push_end(self) -> None:
        if self._error is None and not self._is_aborted:
            self._push(b"")
        self._push_closed()

    def _push_closed(self) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self._error)

    # What asyncio calls --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not instances of it
        if self._is_aborted:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        self._buffer = self._network.lend_buffer()
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert self._buffer is not None  # noqa: S101 - `get_buffer` was called before
        data = bytes(self._buffer[:nbytes])  # copied: the buffer is every link's
        if self._receive is not None:
            self._push(data)
            return
        self._unread.append(data)
        self._unread_bytes += nbytes
        if self._unread_bytes >= READ_BYTES:
            self.pause()
        _wake(self._waiting)

    def eof_received(self) -> None:
        self._is_over = True
        _wake(self._waiting)
        if self._closed is not None:
            self._push_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._transport = None
        if not self._is_aborted:
            self._error = exc if isinstance(exc, OSError) else ConnectionAbortedError(str(exc)) if exc else None
        _wake(self._waiting)
        if self._closed is not None:
            self._push_end()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        _wake(self._waiting)

    # Waiting -------------------------------------------------------------------------------------------------------

    async def _wait(self, deadline: float) -> None:
        """Wait until something happens. Raises `Expired`, `Aborted`.

        One timer serves all waits of the link: a later deadline only moves `_deadline`, and the timer looks at that when it
        fires. So a wait that ends in time, as nearly all do, makes no timer.
        """
        if self._is_aborted:
            raise Aborted
        self._deadline = deadline
        if deadline < math.inf and (self._timer is None or self._timer_at > deadline):
            self._set_timer()
        self._waiting = self._network.loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting, self._deadline = None, math.inf
        if self._is_aborted:
            raise Aborted

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._network.loop.call_at(self._deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._waiting is None or self._deadline == math.inf:
            return
        if self._timer_at < self._deadline:
            self._set_timer()
        elif not self._waiting.done():
            self._waiting.set_exception(Expired())


# --- Sockets -------------------------------------------------------------------------------------------------------


async def _race(loop: asyncio.AbstractEventLoop, addresses: list[Address]) -> socket.socket:
    """A socket connected to one of the addresses. They are tried side by side ("happy eyeballs", RFC 8305), so that a dead IPv6
    route costs a quarter of a second. The caller must close the socket.

    asyncio has this too (`happy_eyeballs_delay`), but loses a socket that connects while the call is being cancelled, and fails
    where tasks start eagerly.
    """
    attempts: list[asyncio.Task[socket.socket]] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while True:
            if addresses:
                attempts.append(loop.create_task(_connect_socket(loop, *addresses.pop(0))))
            pending = [attempt for attempt in attempts if not attempt.done()]
            if pending and not any(map(_has_won, attempts)):
                patience = HAPPY_EYEBALLS_SECONDS if addresses else None
                await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            winner = next(filter(_has_won, attempts), None)
            if winner is not None:
                return winner.result()
            if not addresses and all(attempt.done() for attempt in attempts):
                raise joined([attempt.exception() for attempt in attempts])
    finally:
        for attempt in attempts:
            if attempt is not winner:
                attempt.cancel()
                attempt.add_done_callback(_discard)


def _has_won(attempt: asyncio.Task[socket.socket]) -> bool:
    return attempt.done() and not attempt.cancelled() and attempt.exception() is None


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what an attempt that lost connected after all."""
    if _has_won(attempt):
        attempt.result().close()


async def _connect_socket(loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = new_socket(family)
    try:
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
