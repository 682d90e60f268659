"""The interface of a connection: links to peers, signals, and functions that run concurrently.

The client is written once, as coroutines that await nothing but links and signals. Networks make these: see `connect.py`.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

READ_BYTES = 64 * 1024
"""The most bytes to read from a socket at a time, and to buffer in an asyncio link before backpressure sets in. One `read`
returns less than twice as much."""

T = TypeVar("T")

Calls: TypeAlias = Sequence[Callable[[], Any]]
"""Functions to run concurrently."""


class Expired(Exception):  # noqa: N818 - a signal to the link's caller, not a failure
    """The deadline of a wait has passed."""


class Aborted(Exception):  # noqa: N818 - likewise
    """This side aborted the link, before the wait or during it."""


class Signal(Protocol):
    """An event that happens once. One caller waits for it."""

    def set(self) -> None:
        """Set it: from any task and any thread, any number of times."""

    async def wait(self, deadline: float) -> bool:
        """Wait for it until `deadline`, in the network's time. False: the deadline has passed."""


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
        """Send `data`. Returns early if the peer sends while it reads no more: it may have answered. Later writes, and
        reads while they wait, send the rest first."""

    def abort(self) -> None:
        """See `Connector.abort`."""


class PushSource(Link, Protocol):
    """A link in an event loop that can push the bytes that arrive."""

    _is_aborted: bool = False
    _is_paused: bool = False
    _receive: Callable[[bytes], None]
    _closed: Callable[[Exception | None], None] | None = None

    def watch(self, callback: Callable[[], None], *, soon: bool = False) -> None:
        """Call `callback` in the loop when `read_ready` may return more; with `soon`, also in the loop's next step."""

    def push_to(self, receive: Callable[[bytes], None], closed: Callable[[Exception | None], None]) -> None:
        """From now on call `receive` in the loop with bytes as they arrive. `read` may be called again after `pull`.

        `receive(b"")` means that the peer has closed its side. `closed` is called once, when nothing more will arrive: with
        None after that or after `abort`, with the `OSError` that lost the connection, or with the exception that `receive`
        raised. Such an exception aborts the link: otherwise asyncio would close the connection, and a bug would look like a
        truncated stream.
        """
        self._receive, self._closed = receive, closed
        self.watch(self._push)
        self._push()

    def pull(self) -> None:
        """Stop pushing: bytes that arrive from now on wait for `read`, and `closed` is not called."""
        self._closed, self._is_paused = None, False
        del self._receive  # it may hold this link

    def pause(self) -> None:
        """Stop pushing until `resume`. The link buffers the bytes that arrive, and TCP slows the peer down."""
        self._is_paused = True

    def resume(self) -> None:
        """Resume pushing, in a later step of the loop."""
        self._is_paused = False
        self.watch(self._push, soon=True)

    def _push(self) -> None:
        """Push what `read_ready` returns."""
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
        if self._closed is None:  # after `pull`: nothing else would report it
            raise exc
        self._end(None if isinstance(exc, Aborted) else exc)

    def _end(self, error: Exception | None) -> None:
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(error)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends. Raises what it raises, and `RuntimeError` if it does suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("async code cannot wait here: a blocking client has no event loop; use AsyncClient")


async def in_threads(done: Signal, calls: Calls, deadline: float = math.inf) -> list[Any]:
    """The results of the calls. Each runs in a daemon thread with a copy of the caller's context.

    An error is raised once all have finished and `done` is set; of several errors, the one of the earliest call. Raises
    `Expired`, or `Aborted` if something else sets `done` first.

    Not asyncio's executor: its threads are few, shared with the program, and joined at exit. A call that hangs would block
    other calls, `asyncio.run` and the interpreter's exit. If no thread can be started (too many, or the interpreter is
    exiting), the call runs in the caller's thread.
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
            thread.name = "rawsse call, not waited for"  # the clock of the tests checks that, too
        errors.clear()  # an error's traceback holds this frame: break the cycle
