"""Connections without a socket, for `AsyncClient(connect=…)` and `Client(connect=…)`: made from bytes or from a recording.

    network = FakeNetwork(recording, faults=["status=529 x2"])                  # faults are counted in connections
    client = AsyncClient(api_key="any", connect=network)                        # or Client
    head, _, body = network.streams[0].written.partition(b"\\r\\n\\r\\n")           # what the client sent, its key as well
    json.loads(body)["messages"]

    stream = stream_of(recording, faults=["stall=30@event=2"], split="event")   # one connection

    async def connect(route, tls):
        return FakeStream([b"HTTP/1.1 200 OK\\r\\n…", 30.0, b"…"])            # 30 seconds of silence between two reads
    AsyncClient(connect=fake_links(connect))

Pauses take no time on a virtual clock, and real time in a blocking client. A stream of a recording answers one request; the
server then closes it, as the answer's head announces. A reset raises `ConnectionResetError` in the read, a half-close is the
end of the data, and an endless stall waits until the client gives up.
"""

from __future__ import annotations

import asyncio
import errno
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from rawsse.client.network.connect import Network
from rawsse.client.network.link import Aborted, Expired, Link, PushSource, Signal
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import ConfigurationError
from rawsse.replay.answers import Answer, answer_of, as_recording
from rawsse.replay.faults import End, Faults, edited, replacement
from rawsse.replay.variants import Pace, Split, pace_by
from rawsse.replay.wire import Schedule, script


class FakeStream(PushSource):
    """A connected link made of byte chunks: each read returns the next chunk. `written` holds the bytes sent.

    Among the chunks, a number is a silence in seconds, and None waits for a request: the next chunk arrives once bytes have
    been written since the last one. After the chunks comes `end`: `b""` (the peer closed), an exception (raised), or None (the
    peer is silent).

    The peer does not wait for its reader: after the first silence or request each chunk has its time, and a late read does
    not delay later chunks.
    """

    def __init__(self, chunks: Iterable[bytes | float | None] = (), *, end: bytes | BaseException | None = b"") -> None:
        self._chunks = deque(chunks)
        self._last = end
        self._changed: Signal | None = None
        self._watcher: Callable[[], None] | None = None
        self._begun: float | None = None  # when the last silence ended or a request arrived, in the network's time
        self._until = math.inf  # the end of the silence
        self._answered = 0  # bytes that had been written when the last chunk was returned
        self.written = bytearray()

    @property
    def is_aborted(self) -> bool:
        """Whether this side has dropped the connection."""
        return self._is_aborted

    def enter(self, network: Network) -> None:
        """Use the time and the signals of `network`."""
        self._network = network

    async def read(self, deadline: float) -> bytes:
        """The next chunk."""
        while True:
            changed = self._changed = self._network.signal()
            if (data := self.read_ready()) is not None:
                return data
            if not await changed.wait(min(deadline, self._until)) and self._network.now() >= deadline:
                raise Expired

    def read_ready(self) -> bytes | None:
        """The next chunk if it has arrived, else None."""
        if self._is_aborted:
            raise Aborted
        self._until = math.inf
        while self._chunks:
            chunk = self._chunks[0]
            if not isinstance(chunk, bytes) and not self._is_over(chunk):
                return None
            self._chunks.popleft()
            if isinstance(chunk, bytes):
                self._answered = len(self.written)
                return chunk
        if isinstance(self._last, BaseException):
            raise self._last
        return self._last

    def _is_over(self, wait: float | None) -> bool:
        """Whether the silence is over, or a request has arrived."""
        now = self._network.now()
        if wait is None:
            has_come = len(self.written) > self._answered
            self._answered, self._begun = len(self.written), now
            return has_come
        self._until = wait + (now if self._begun is None else self._begun)
        if now < self._until:
            self._begun = self._until - wait
            if self._watcher is not None:
                asyncio.get_running_loop().call_at(self._until, self._watcher)
            return False
        self._begun, self._until = self._until, math.inf
        return True

    def watch(self, callback: Callable[[], None], *, soon: bool = False) -> None:
        """Call `callback` in the event loop when `read_ready` may return more, as `AsyncioLink.watch` does."""
        self._watcher = callback
        if soon:
            asyncio.get_running_loop().call_soon(callback)

    async def write(self, data: bytes, deadline: float) -> None:
        """Append `data` to `written`."""
        del deadline
        if self._is_aborted:
            raise Aborted
        self.written += data
        self._change()

    def abort(self) -> None:
        """Drop the connection."""
        self._is_aborted = True
        self._change()

    def _change(self) -> None:
        if self._changed is not None:
            self._changed.set()
        if self._watcher is not None:
            self.watch(self._watcher, soon=True)


Connect = Callable[[Route, TLSContext], Awaitable[FakeStream]]
"""Makes a connection."""


class FakeLink:
    """A link that `connect` makes. Until then it can only be aborted."""

    def __init__(self, network: Network, connect: Connect) -> None:
        self._network = network
        self._connect = connect
        self._stream: FakeStream | None = None
        self._made: Signal | None = None
        self._is_aborted = False

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Call the function, in a task if there is an event loop, since it may wait. Raises its exceptions."""
        if self._is_aborted:
            raise Aborted
        made = self._connect(route, tls)
        self._stream = await (self._waited_for(made, deadline) if self._network.runs_coroutines else made)
        self._stream.enter(self._network)
        return self._stream

    async def _waited_for(self, stream: Awaitable[FakeStream], deadline: float) -> FakeStream:
        self._made = made = self._network.signal()
        task = asyncio.ensure_future(stream)
        task.add_done_callback(lambda _: made.set())
        try:
            if not await made.wait(deadline):
                raise Expired
            if self._is_aborted:
                raise Aborted
            return task.result()
        except BaseException:
            task.cancel()
            task.add_done_callback(_discard)
            raise

    def abort(self) -> None:
        """Drop the connection, even during `connect`."""
        self._is_aborted = True
        if self._stream is not None:
            self._stream.abort()
        if self._made is not None:
            self._made.set()


def fake_links(connect: Connect) -> Callable[[Network], FakeLink]:
    """For `AsyncClient(connect=…)`: links that `connect` makes."""
    return lambda network: FakeLink(network, connect)


def _discard(task: asyncio.Future[FakeStream]) -> None:
    """Drop a connection that was made too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


def stream_of(recording: Answer, **options: Any) -> FakeStream:
    """A stream with the answer of a `ReplayServer` to its first request. The options are those of `FakeNetwork`: `faults`,
    `split`, `segments`, `pace` and `speed`. Raises `TypeError` for any other.

    Raises `ConfigurationError` if a fault has no place in the recording.
    """
    return FakeNetwork(recording, **options).next_stream()


class FakeNetwork:
    """For a client's `connect`: each connection answers one request with a recording and the faults that are due.

    `faults`, `split`, `segments`, `pace` and `speed` (0 unless there is a `pace`) are those of `Player`. It has no others: a
    connection does not look at the request, so there is no `match`, and `rewrite_by(…)(recording)` changes a recording's form.

    Recordings, or messages made by `answer`, take turns; one that a fault cut is played again on the next connection. `streams`
    are the connections, `unused_faults` the faults that have not changed an answer yet (the log says which others hide),
    `misplaced` the last errors of faults that did not fit an answer. Routes, the proxies of the environment and certificates
    are ignored.

    Raises `ConfigurationError`.
    """

    def __init__(
        self,
        *recordings: Answer,
        faults: Faults = (),
        split: Split | None = None,
        segments: Split | None = None,
        pace: Pace | None = None,
        speed: float | None = None,
    ) -> None:
        if not recordings:
            raise ConfigurationError("there is no recording to play")
        self.streams: list[FakeStream] = []
        change = pace_by("recorded" if pace is None else pace)
        self._recordings = [change(as_recording(each)) for each in recordings]
        self._schedule = Schedule(faults, self._recordings)
        self.unused_faults, self.misplaced = self._schedule.unused, self._schedule.misplaced
        self._split, self._segments = split, segments
        self._speed = float(pace is not None) if speed is None else speed
        self._turn = 0

    def __call__(self, network: Network) -> FakeLink:
        """A link, not connected yet."""
        return FakeLink(network, self.connect)

    async def connect(self, route: Route, tls: TLSContext) -> FakeStream:
        """The next connection. Raises `ConfigurationError` if a fault has no place in the recording."""
        del route, tls
        return self.next_stream()

    def next_stream(self) -> FakeStream:
        """The same, without waiting."""
        due = self._schedule.next()
        instead = replacement(due)
        answer = instead or answer_of(self._recordings[self._turn % len(self._recordings)])
        try:
            steps = script(edited(answer, due, self._split), due, segments=self._segments, speed=self._speed)
        except ConfigurationError as exc:
            self._schedule.failed(exc)
            raise
        self._schedule.applied(due, answer)
        self._turn += instead is None and not any(fault.cuts for fault in due)
        ends = {End.RESET: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), End.HOLD: None}
        end = next((ends.get(step, b"") for step in steps if isinstance(step, End)), b"")
        # None: a server sends nothing before the request.
        self.streams.append(FakeStream([None, *(step for step in steps if not isinstance(step, End))], end=end))
        return self.streams[-1]
