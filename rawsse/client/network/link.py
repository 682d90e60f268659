"""The interface between the client and a network: the time, links to peers, signals, and functions run at once.

The client is written once, as coroutines that await nothing but a `Link` and a `Signal`. Three networks implement them:
`asyncio_network.py`, `blocking/network.py` (no thread, no event loop: its coroutines never suspend, so that `drive` runs a
call to its end in the caller's thread), and either of them with links of a test's own (`replay/fakes.py`).

A link exists before it is connected, so that it can be aborted in any phase: while the name is resolved, during the TCP or TLS
handshake, while a proxy opens a tunnel.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from rawsse.client.network.certificates import TLSContext
from rawsse.client.network.route import Route

READ_BYTES = 64 * 1024
"""The most that is read from a socket at a time, and that an asyncio link buffers before it lets TCP slow the peer down. One
`read` returns less than twice as much."""

T = TypeVar("T")

Stop = Callable[[], Awaitable[None]]
"""Stops functions that run concurrently, and waits for those that can be stopped."""

OnStart = Callable[[Stop], object]
"""Called with the function that stops them, once the functions have been started."""


class Expired(Exception):  # noqa: N818 - between a link and its caller, not a failure
    """The deadline of a wait has passed."""


class Aborted(Exception):  # noqa: N818 - likewise
    """This side aborted the link, before the wait or during it."""


class Signal(Protocol):
    """An event that happens once. One caller waits for it."""

    def set(self) -> None:
        """Set it: from any task and any thread, any number of times."""

    async def wait(self, deadline: float) -> bool:
        """Wait for it until `deadline`, in the network's time. False: the deadline has passed."""


class Connector(Protocol):
    """A link that is not connected yet. The caller must `abort` it when it no longer needs it."""

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Take the route. The result is what to read and write: this link, or TLS over it; aborting either ends both.

        Raises `APIConnectionError` (`ProxyError`, `CertificateError`), `Expired`, `Aborted`.
        """

    def abort(self) -> None:
        """Drop the connection at once: nothing is flushed. At any phase, any number of times. A caller that waits gets
        `Aborted`. After a fork the child's `abort` leaves the parent's connection as it is."""


class Link(Protocol):
    """A connection to a peer. One caller waits at a time; `abort` may be called by any other.

    Every wait takes a deadline in the network's time (`math.inf`: none) and raises `Expired`, `Aborted` or `OSError`. The
    caller must `abort` the link when it no longer needs it.
    """

    async def read(self, deadline: float) -> bytes:
        """The next bytes, at least one; `b""` when the peer has closed its side."""

    def read_ready(self) -> bytes | None:
        """The bytes that have arrived, without waiting; None if there are none. Raises `OSError`, `Aborted`."""

    async def write(self, data: bytes, deadline: float) -> None:
        """Send `data`. Returns early if the peer sends while it takes no more: it may have answered. What is unsent then is
        sent first by later writes, and while a read waits."""

    def abort(self) -> None:
        """See `Connector.abort`."""


class PushSource(Link, Protocol):
    """A link of an event loop, which can push what comes."""

    _is_aborted: bool = False
    _is_paused: bool = False
    _receive: Callable[[bytes], None]
    _closed: Callable[[Exception | None], None] | None = None

    def watch(self, callback: Callable[[], None], *, soon: bool = False) -> None:
        """Call `callback` in the loop as soon as there may be more for `read_ready`; with `soon`, in the next step too."""

    def push_to(self, receive: Callable[[bytes], None], closed: Callable[[Exception | None], None]) -> None:
        """From now on call `receive` with the bytes that arrive, in the loop, at once; `read` may be called after `pull`.

        `receive(b"")` says that the peer has closed its side. `closed` is called once, when nothing more will come: with None
        after that or after `abort`, with the `OSError` that lost the connection, or with what `receive` itself raised. The
        link is aborted then: without this guard asyncio would close the connection, and a bug would read as a cut.
        """
        self._receive, self._closed = receive, closed
        self.watch(self._push)
        self._push()

    def pull(self) -> None:
        """Push no more: bytes that arrive from now on wait for `read`, and `closed` is not called."""
        self._closed, self._is_paused = None, False
        del self._receive  # it may hold this link

    def pause(self) -> None:
        """Push no more until `resume`. The link keeps the bytes that arrive, and lets TCP slow the peer down."""
        self._is_paused = True

    def resume(self) -> None:
        """Push on, soon."""
        self._is_paused = False
        self.watch(self._push, soon=True)

    def _push(self) -> None:
        """Push what `read_ready` gives."""
        try:
            while self._closed and not self._is_paused and (came := self.read_ready()) is not None:
                self._receive(came)
                if not came:
                    self._end(None)
        except Exception as exc:
            self._fail(exc)
        if self._is_aborted:
            self._end(None)

    def _fail(self, exc: Exception) -> None:
        self.abort()
        if self._closed is None:  # pulled: nothing else would tell of it
            raise exc
        self._end(None if isinstance(exc, Aborted) else exc)

    def _end(self, error: Exception | None) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(error)


class Network(Protocol):
    """Where links come from."""

    now: Callable[[], float]
    """The time in seconds, on a monotonic clock."""

    runs_coroutines: bool
    """`run` takes coroutine functions too."""

    @staticmethod
    def owner() -> Any:
        """The owner of a network that is made here, and of its links: the running event loop, or the process (its id)."""

    def link(self) -> Connector:
        """A link that is not connected yet."""

    def signal(self) -> Signal:
        """A signal that is not set yet."""

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` where the network's links may be used: at once if that is here, else soon. From any thread."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` at `when`, where something runs that can; gives what cancels that."""

    async def run(self, calls: Sequence[Callable[[], Any]], on_start: OnStart | None = None) -> list[Any]:
        """The results of functions that run at once, each in a thread with a copy of the caller's context.

        An error of one of them is raised when all are over. Cancelled, it leaves the threads behind: they are daemons.
        `on_start` gets a function that stops it, with which another task or thread makes it raise `Aborted`.
        """


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends. Raises what it raises, and `RuntimeError` if it does suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("async code cannot wait here: a blocking client has no event loop; use AsyncClient")


async def in_threads(done: Signal, calls: Sequence[Callable[[], Any]], deadline: float = math.inf) -> list[Any]:
    """The results of the calls. Each runs in a daemon thread, in a copy of the caller's context.

    An error is raised when all are over: of several the first, in the order of the calls. `done` is set then. Raises `Expired`;
    `Aborted` if something else sets `done` before that.

    Not asyncio's executor: its threads are few, shared with the program, and waited for when it ends. A call that hangs in one
    would hold up other calls, `asyncio.run` and the interpreter's exit. Where the system gives no thread (too many, or the
    interpreter ends), the call runs in the caller's.
    """
    results: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    threads: list[threading.Thread] = []

    def work(index: int, call: Callable[[], Any]) -> None:
        try:
            results[index] = call()
        except BaseException as exc:
            errors[index] = exc
        if len(results) + len(errors) == len(calls):
            done.set()

    for index, call in enumerate(calls):
        run = contextvars.copy_context().run
        threads.append(threading.Thread(target=run, args=(work, index, call), name="rawsse call", daemon=True))
        try:
            threads[-1].start()
        except RuntimeError:
            threads[-1].run()
    try:
        if calls and not await done.wait(deadline):
            raise Expired
        if len(results) + len(errors) < len(calls):
            raise Aborted
        if errors:
            raise errors[min(errors)]
        return [results[index] for index in range(len(calls))]
    finally:
        for thread in threads:
            thread.name = "rawsse call, not waited for"  # a test's clock goes by that, too
        errors.clear()  # the traceback of an error holds this frame, which would hold the error
