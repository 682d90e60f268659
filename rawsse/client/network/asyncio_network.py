"""The network of an event loop.

    network = AsyncioNetwork()                          # of the running loop
    link = network.link()
    await link.connect(route, TLSContext(), network.now() + 10)
    await link.write(b"...", network.now() + 120)
    data = await link.read(network.now() + 90)          # or, once it is connected: link.push_to(receive, closed)
    link.abort()

asyncio allocates a buffer for each read. Its default of 256 KiB would cost three system calls, because the allocator maps,
shrinks and unmaps such large blocks. uvloop reads as much, up to 32 times in one step, unless it gets a smaller buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import socket
import threading
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError
from typing import Any, cast

from rawsse.client.network.connect import OnStart, TCPLink
from rawsse.client.network.link import READ_BYTES, Aborted, Calls, Expired, PushSource, in_threads

PROACTOR_SECONDS = 0.01
"""How often links on the proactor poll for a connection: it does not notify them."""

# --- The network ---------------------------------------------------------------------------------------------------


class AsyncioNetwork:
    """Links, signals and the time of the running event loop. A `Network`."""

    runs_coroutines = True

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()  # cached: getting it is a system call on Python 3.11
        self.now = self.loop.time
        self._thread = threading.get_ident()
        self.is_proactor = isinstance(self.loop, getattr(asyncio, "ProactorEventLoop", ()))  # that of Windows
        self._kind = AsyncioLink if isinstance(self.loop, asyncio.BaseEventLoop) else BufferedLink
        self.buffer = memoryview(bytearray(READ_BYTES))  # shared by all links: uvloop reads and delivers in one step

    @staticmethod
    def owner() -> asyncio.AbstractEventLoop:
        """The running event loop."""
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("AsyncClient needs asyncio (it does not run on trio): no running event loop") from None

    def link(self) -> AsyncioLink:
        """A link that is not connected yet."""
        return self._kind(self)

    def signal(self) -> AsyncioSignal:
        """A signal that is not set yet."""
        return AsyncioSignal(self)

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the loop: now, if this is its thread or the loop is closed."""
        if threading.get_ident() != self._thread:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(callback)
                return
        callback()

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` at `when`. Returns a function that cancels it."""
        return self.loop.call_at(when, callback).cancel

    async def run(self, calls: Calls, on_start: OnStart | None = None, deadline: float = math.inf) -> list[Any]:
        """The results of functions, each in a thread, and of coroutine functions, each in a task, run concurrently.

        An error is raised once all have finished; but the result of a task that something else cancelled is a
        `concurrent.futures.CancelledError`. If it is cancelled or stopped, or at `deadline`, it cancels the tasks and waits for
        them.
        """
        tasks = [self.loop.create_task(self._run(call)) for call in calls]
        is_stopped = False

        async def stop() -> None:
            nonlocal is_stopped
            is_stopped = True
            others = [task for task in tasks if task is not asyncio.current_task()]  # the caller of `stop` may be one
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        if on_start is not None:
            on_start(stop)
        try:
            async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                await asyncio.gather(*tasks, return_exceptions=True)
        except TimeoutError:
            raise Expired from None
        if is_stopped:
            raise Aborted
        return [CancelledError("something else cancelled it") if task.cancelled() else task.result() for task in tasks]

    async def _run(self, call: Callable[[], Any]) -> Any:
        if inspect.iscoroutinefunction(call):
            return await call()
        (result,) = await in_threads(self.signal(), [call])
        return result


class AsyncioSignal:
    """An event that happens once."""

    __slots__ = ("_is_set", "_network", "_waiting")

    def __init__(self, network: AsyncioNetwork) -> None:
        self._network = network
        self._is_set = False
        self._waiting: asyncio.Future[None] | None = None  # an `asyncio.Event` takes ten times the memory

    def set(self) -> None:
        """Set it; in the loop's own thread this takes effect at once."""
        self._network.post(self._happen)

    def _happen(self) -> None:
        self._is_set = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, deadline: float) -> bool:
        """Wait for it until `deadline`. False: the deadline has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                if not self._is_set:
                    self._waiting = self._network.loop.create_future()
                    await self._waiting
        return self._is_set


# --- A link --------------------------------------------------------------------------------------------------------


class AsyncioLink(TCPLink, PushSource, asyncio.BaseProtocol):
    """A `Link` over TCP in an event loop."""

    def __init__(self, network: AsyncioNetwork) -> None:
        self._network = network
        self._now = network.now
        self._signal = network.signal()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._is_over = False  # the peer closed its side, or the connection is lost
        self._error: Exception | None = None  # why it is lost, if neither side closed it
        self._is_full = False  # writing: the peer is slow
        self._waiting: asyncio.Future[None] | None = None
        self._deadline = math.inf  # of the wait
        self._timer_at = math.inf  # `_deadline`, or earlier. A timer's `when()` is rounded in uvloop, or missing
        self._cancel_timer: Callable[[], object] = int
        self._watcher: Callable[[], None] | None = None

    async def use(self, sock: socket.socket) -> None:
        """Read and write a connected socket."""
        self._sock = sock
        await self._network.loop.create_connection(lambda: self, sock=sock)
        if self._is_aborted:
            raise Aborted

    async def wait_for(self, socks: Collection[socket.socket], until: float) -> None:
        """Wait until one of the sockets is writable, but not longer than `until`."""
        loop = self._network.loop
        if self._network.is_proactor:
            socks, until = (), min(until, loop.time() + PROACTOR_SECONDS)
        files = [sock.fileno() for sock in socks]  # the selector would look up a socket by its `repr`
        for file in files:
            loop.add_writer(file, self._wake)
        try:
            with contextlib.suppress(Expired):
                await self._wait(until)
        finally:
            for file in files:
                loop.remove_writer(file)

    async def read(self, deadline: float) -> bytes:
        """The next bytes; `b""` when the peer has closed its side."""
        while (data := self.read_ready()) is None:
            await self._wait(deadline)
        return data

    def read_ready(self) -> bytes | None:
        """The bytes that have arrived, without waiting; None if there are none."""
        if self._is_aborted:
            raise Aborted
        if self._unread:
            data = bytes(self._unread)
            self._unread.clear()
            if len(data) >= READ_BYTES:
                self._network.loop.call_soon(self._read_on)
            return data
        if self._error is not None:
            raise self._error
        return b"" if self._is_over else None

    async def write(self, data: bytes, deadline: float) -> None:
        """Send `data`. Returns early if the peer sends while it reads no more."""
        if self._is_aborted:
            raise Aborted
        if self._transport is None or self._transport.is_closing():
            raise self._error or ConnectionResetError("the connection was closed")
        self._transport.write(data)
        while self._is_full and not self._unread and not self._is_over:
            await self._wait(deadline)

    def abort(self) -> None:
        """Drop the connection at once, in any phase. A waiting caller gets `Aborted`."""
        self._is_aborted = True
        self._set_timer(math.inf)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the connection with it
            self._signal.set()
            if self._transport is not None:
                self._transport.abort()
            else:  # nothing else would notify the watcher
                self._network.loop.call_soon(self._tell)
            self._wake()

    def watch(self, callback: Callable[[], None], *, soon: bool = False) -> None:
        self._watcher = callback
        if soon:
            self._network.loop.call_soon(callback)

    # Called by asyncio ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not instances of it
        with contextlib.suppress(AttributeError):
            self._transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's name for it
        if self._is_aborted:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if self._closed is None or self._unread or self._is_paused:
            self._unread += data
            size = len(self._unread)
            self._tell()
        else:  # `_push`, inlined
            try:
                self._receive(data)
            except Exception as exc:
                self._fail(exc)
        if size >= READ_BYTES and self._transport is not None:
            self._transport.pause_reading()  # uvloop would keep reading, 32 times in one step
            self._network.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if len(self._unread) < READ_BYTES and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        self._is_over = True
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        is_asyncio_s = isinstance(self._transport, asyncio.Transport) and not self._network.is_proactor
        if isinstance(exc, OSError) and is_asyncio_s and not self._is_aborted:
            # A write failed, and the peer may have sent the reason before it closed (RFC 9112, 9.5). asyncio does not read it,
            # and closes the socket after this call; uvloop has already closed it.
            with contextlib.suppress(OSError):
                self._unread += self._sock.recv(READ_BYTES)
        self._is_over = True
        self._transport = None
        if not self._is_aborted:
            self._error = exc if isinstance(exc, OSError) else ConnectionAbortedError(str(exc)) if exc else None
        self._tell()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake()

    # Waiting -------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """`read_ready` may return something now."""
        self._wake()
        if self._watcher is not None:
            self._watcher()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _wait(self, deadline: float) -> None:
        """Wait until something happens. Raises `Expired`, `Aborted`.

        One timer serves all waits of the link: a later deadline only sets `_deadline`, which the timer checks when it fires. So
        a wait that ends in time, as nearly all do, creates no timer.
        """
        if self._is_aborted:
            raise Aborted
        self._deadline = deadline
        if deadline < self._timer_at:
            self._set_timer(deadline)
        self._waiting = self._network.loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None
        if self._is_aborted:
            raise Aborted

    def _set_timer(self, at: float) -> None:
        self._cancel_timer()
        self._timer_at = at
        if at < math.inf:
            self._cancel_timer = self._network.call_at(at, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        waiting, is_over = self._waiting, self._deadline <= self._timer_at
        self._set_timer(math.inf if waiting is None or is_over else self._deadline)
        if is_over and waiting is not None and not waiting.done():
            waiting.set_exception(Expired())


class BufferedLink(AsyncioLink, asyncio.BufferedProtocol):
    """The same for uvloop, which treats a protocol as buffered only if it is not an `asyncio.Protocol`."""

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._network.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._network.buffer[:nbytes]))
