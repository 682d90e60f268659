"""Runs: one upstream generation each, with a log of its frames, read by any number of browsers.

A run is not a connection. `POST` begins a run, and browsers read its log; one that lost its connection comes back and reads
on from the last id that it has seen. When no browser reads an unfinished run, it has a grace time for one to come back; then
the upstream call is cancelled. A finished run stays readable for a while. Clients of some dialects cannot come back: their
runs end when they leave.

    run = runs.begin(dialect, open_source)                  # runs.aclose() ends it
    reader = Reader(run, outlet, after, start)
    run.join(reader)                                        # from now on the run writes to `outlet`
    reader.close()

Once an answer has content, one call leads from the upstream's bytes to the browsers' sockets: events, frames, log, and a write
for each reader that has read all before. There is no task, no future and no queue per event.

Memory. The log keeps what a reader may still ask for, up to `max_log_bytes`; then the oldest frames are dropped, but none that
a connected reader has not read: for that one the run waits, and the upstream is not read, so that TCP holds it back.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

from rawsse.client.stream import EventStream
from rawsse.errors import Ending, RawsseError
from rawsse.messages.events import Ping
from rawsse.relay.dialects import Answer, Dialect, Failure, Frame, failure_of, join_deltas
from rawsse.relay.push import Ended, Receive
from rawsse.relay.record import Observer, RunRecord, RunStart, log, record_of
from rawsse.server.connection import NotNegative

PIECE_BYTES = 8 * 1024
"""How much a reader takes at once. Small, for browsers whose scripts do not join a frame that two reads cut in two: a read of
theirs takes up to 64 KiB, and small pieces that end with a frame seldom fill it."""

JOINING_SAVES_BYTES = len('id: 01234567-1\ndata: {"text":""}\n\n')
"""How much shorter two frames get, at least, when their pieces of text are joined."""

PIECES_AT_ONCE = 16
"""How many pieces are written in one step of the event loop for readers that take turns."""

HEARTBEAT_SECONDS = 15.0
"""How long a stream may be silent. Proxies and load balancers cut idle connections after 29 s and more."""

MAX_RUNS = 10_000
"""Runs that are kept at once, including finished ones; above it, finished ones are forgotten early, then new ones refused."""


@dataclass(frozen=True)
class RunLimits(NotNegative):
    """How long runs live (seconds) and how much they keep (bytes). Raises `ConfigurationError` for a limit below 0."""

    grace_seconds: float = 10.0
    """How long an unfinished run goes on without any reader."""
    drain_seconds: float = 0.0
    """How long it may then go on to its end: the tokens are paid for, and its usage is then known. 0: it is cancelled."""
    keep_seconds: float = 300.0
    """How long a finished one stays."""
    max_log_bytes: int = 4 * 1024 * 1024
    """Frames that one run keeps: about 20,000 pieces of text, more than the longest answers of today have."""
    max_unread_bytes: int = 256 * 1024
    """Frames that a run whose client cannot come back holds for a slow reader."""
    max_kept_bytes: int = 256 * 1024 * 1024
    """Frames that all finished runs keep together; above it, the oldest are forgotten early. Unfinished runs are never
    forgotten early: each has a limit for itself."""
    max_runs: int = MAX_RUNS


class Source(Protocol):
    """Brings a run its events: `EventPush`, or another with the same contract."""

    @property
    def stream(self) -> EventStream | None:
        """The stream of the API that it reads; None if it reads none."""

    async def open(self) -> None:
        """Begin; return when events are pushed without this task, or when all have come."""

    def pause(self) -> None:
        """Bring no more events until `resume`."""

    def resume(self) -> None:
        """Go on."""

    def close(self) -> Ending | None:
        """End at once. Nothing comes after it."""


OpenSource = Callable[[Receive, Ended], Source]
"""Makes a source of the functions that it calls: with the events of one moment, and at the end."""


class Gone(Answer):
    """The frames asked for are no longer kept."""


class FrameLog:
    """The frames of one run, numbered from 1; the id of a frame is `<tag>-<number>`.

    The tag is random, and not the run's id: ids that clients choose share their beginnings, and may be used again when their
    run is forgotten. A reader of one run must never get the rest of another. `delta` is that of the `Dialect`.
    """

    def __init__(self, delta: re.Pattern[bytes] | None) -> None:
        self.tag = secrets.token_hex(4)
        self.last = 0
        """The number of the newest frame; 0 if there is none."""
        self._delta = delta
        self._log = bytearray()
        self._ends = array("Q")  # of each frame that is kept, counted in bytes from the first frame of all
        self._forgotten_bytes = 0

    @property
    def log_bytes(self) -> int:
        """The size of the frames that are kept."""
        return len(self._log)

    @property
    def first(self) -> int:
        """The number of the oldest frame that is kept."""
        return self.last - len(self._ends) + 1

    def number_of(self, frame_id: str) -> int | None:
        """The number in a frame's id, or a bare number; None if it is not an id of this run."""
        tag, dash, number = frame_id.strip().rpartition("-")
        if (dash and tag != self.tag) or not (number.isascii() and number.isdigit() and len(number) < 16):
            return None
        return int(number)

    def take(self, position: int) -> tuple[bytes, int]:
        """The frames after `position`, at least one, as one piece of at most `PIECE_BYTES`, and the position after them.

        If more than a piece is left, pieces of text are joined, where the dialect allows it.
        """
        log, ends, skip, delta = self._log, self._ends, self._forgotten_bytes, self._delta
        at = position + 1 - self.first
        start = ends[at - 1] if at else skip
        if delta is None or ends[-1] - start <= PIECE_BYTES:
            end = max(bisect_right(ends, start + PIECE_BYTES, at), at + 1)
            return bytes(log[start - skip : ends[end - 1] - skip]), position + end - at

        def joined_end(index: int) -> int:
            return ends[index] - JOINING_SAVES_BYTES * (index - at)

        end = max(bisect_right(range(len(ends)), start + PIECE_BYTES, at, key=joined_end), at + 1)
        bounds = pairwise((start, *ends[at:end]))
        return join_deltas((bytes(log[a - skip : b - skip]) for a, b in bounds), delta), position + end - at

    def kept(self) -> tuple[bytes, int]:
        """All frames, and the position after them. Raises `Gone` if the first is no longer kept."""
        self.check_kept(0)
        return bytes(self._log), self.last

    def keeps(self, position: int) -> bool:
        """The frames after that position are kept."""
        return position + 1 >= self.first

    def check_kept(self, position: int) -> None:
        """Raises `Gone` unless the frames after that position are kept."""
        if not self.keeps(position):
            raise Gone(410, "not_found_error", f"frames before {self.first} are no longer kept")

    def forget(self, read: int, limit: int) -> None:
        """Forget the oldest frames until the log is within `limit` bytes, but none after the position `read`."""
        ends = self._ends
        count = min(bisect_left(ends, ends[-1] - limit) + 1, read - self.last + len(ends))
        if count > 0:
            del self._log[: ends[count - 1] - self._forgotten_bytes]
            self._forgotten_bytes = ends[count - 1]
            del ends[:count]


class Feed(FrameLog):
    """A log that grows, and its readers."""

    def __init__(self, start: RunStart, dialect: Dialect, runs: Runs) -> None:
        super().__init__(dialect.delta)
        self.start = start
        self.id = start.run
        self.runs = runs
        self.dialect = dialect
        self.has_begun = False
        """The first event has come, or the end, or one heartbeat interval has passed: heads are not held back any more."""
        self.is_finished = False
        self.early_failure: Failure | None = None
        """The failure of a run without any other frame: it may keep its HTTP status."""
        self.headers: Mapping[str, str] = {}
        """The header fields of the upstream's response, once there is one."""
        self.live: set[Reader] = set()
        """Readers that have read everything: new frames are pushed to them."""
        self.is_resumable = dialect.is_resumable
        """Clients can come back to it."""
        self._loop = asyncio.get_running_loop()  # held: asking for it is a system call on Python 3.11
        self._readers: set[Reader] = set()
        self._heartbeat: asyncio.TimerHandle | None = None
        self._spoke_at = self._loop.time()  # when the readers were last sent something

    @property
    def readers(self) -> int:
        """How many clients read it."""
        return len(self._readers)

    def join(self, reader: Reader, *, holds: bool = False) -> None:
        """Let `reader` read. With `holds` its head waits until the run has begun. Raises `Gone`. The caller must `close` it."""
        self.check_kept(reader.position)
        reader.position = min(reader.position, self.last)
        self._readers.add(reader)
        if self.has_begun or not holds:
            reader.begin()
        self.has_read()  # it may have nothing to read: then nothing else makes a full log go on

    def has_read(self) -> None:
        """A reader has joined, moved on, or left."""
        raise NotImplementedError

    def leave(self, reader: Reader) -> None:
        """The reader reads no more."""
        self._readers.discard(reader)
        self.live.discard(reader)

    def publish(self, frames: Sequence[Frame], now: float) -> None:
        """Add the frames to the log, and push them to the readers that have read everything."""
        if not frames:
            return
        log, number = self._log, self.last
        start, before = len(log), number
        for frame in frames:
            number += 1
            log += (f"id: {self.tag}-{number}\n{frame}" if self.is_resumable else frame).encode()
            self._ends.append(self._forgotten_bytes + len(log))
        wire = bytes(log[start:])
        self.last = number
        self._spoke_at = now
        for reader in [*self.live]:  # a write may end this reader or another, stop the run, or let one join
            if reader.position == before and len(wire) <= PIECE_BYTES:
                reader.push(wire, number)
            else:
                self.live.discard(reader)
                self.runs.turns.add(reader)

    def _publish_last(self, frames: Sequence[Frame]) -> None:
        """Publish the last frames, and end the answers of all readers."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        self.is_finished = True
        now = self._loop.time()
        self.publish(frames, now)
        if not self.has_begun:
            self._begin_readers(now)
        for reader in list(self.live):
            reader.catch_up()

    def _begin_readers(self, now: float) -> None:
        if not (self.dialect.heartbeat or self.is_finished):
            return
        self.has_begun, self._spoke_at = True, now
        for reader in list(self._readers):
            reader.begin()

    def _beat(self) -> None:
        """Send a heartbeat if nothing else was sent for so long."""
        now = self._loop.time()
        if now >= (due := self._spoke_at + self.runs.heartbeat_seconds):
            due = now + self.runs.heartbeat_seconds
            self._spoke_at = now
            if self.has_begun:
                for reader in list(self.live):
                    reader.push(self.dialect.heartbeat, reader.position)
            else:
                self._begin_readers(now)
        if not self.is_finished:  # a write may have stopped the run
            self._heartbeat = self._loop.call_at(due, self._beat)

    def _forget_read(self, unread: int, limit: int) -> None:
        """Forget the oldest frames above the limit, but none that a connected reader has not read; without readers none after
        the position `unread`."""
        if len(self._log) > limit:
            self.forget(min((reader.position for reader in self._readers), default=unread), limit)


class Run(Feed):
    """One generation: frames of what a source brings."""

    def __init__(self, start: RunStart, dialect: Dialect, runs: Runs) -> None:
        super().__init__(start, dialect, runs)
        self.alias: str | None = None
        self.fingerprint: bytes | None = None  # of the request, if the client named the run
        self.ending: Ending | None = None
        self.failure: Failure | None = None
        self.on_disconnect: str | None = None
        """For a run without readers: "cancel" or "drain"."""
        limits = runs.limits
        self._max_bytes = limits.max_log_bytes if self.is_resumable else limits.max_unread_bytes
        self._max_read_bytes = limits.max_log_bytes if self.is_resumable else 0
        self._source: Source | None = None
        self._opening: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._began_at = self._spoke_at
        self._is_over = False  # no more events are taken

    # Reading -------------------------------------------------------------------------------------------------------

    def join(self, reader: Reader, *, holds: bool = False) -> None:
        """See `Feed.join`."""
        self.check_kept(reader.position)
        if self._grace is not None:
            self._grace.cancel()
        self.on_disconnect = None
        super().join(reader, holds=holds)

    def has_read(self) -> None:
        """See `Feed.has_read`."""
        if self._source is not None and self._can_grow():
            self._source.resume()

    def leave(self, reader: Reader) -> None:
        """See `Feed.leave`."""
        super().leave(reader)
        self.wait_for_readers()  # first: a run that is drained may forget what this one has not read
        self.has_read()

    def wait_for_readers(self) -> None:
        """If the run has no readers, it goes on for as long as the limits say, counted from now, unless a reader joins."""
        if self._readers or self._is_over:
            return
        if self._grace is not None:
            self._grace.cancel()
        limits = self.runs.limits
        self.on_disconnect = "drain" if limits.drain_seconds else "cancel"
        seconds = max(limits.drain_seconds, limits.grace_seconds if self.is_resumable else 0)
        if seconds:
            text = f"no client read the answer for {seconds:g} s"
            self._grace = self._loop.call_later(seconds, self.stop, Failure(200, "cancelled", text))
        else:
            self.stop(Failure(200, "cancelled", "the client closed the connection"))

    # Growing -------------------------------------------------------------------------------------------------------

    def begin(self, open_source: OpenSource) -> asyncio.Task[None]:
        """Begin to generate. The task ends when the answer has content, or there is none; the caller owns and awaits it."""
        self._heartbeat = self._loop.call_later(self.runs.heartbeat_seconds, self._beat)
        self._opening = self._loop.create_task(self._open(open_source), name=f"rawsse run {self.tag}")
        self._opening.add_done_callback(self._opened)
        return self._opening

    async def _open(self, open_source: OpenSource) -> None:
        try:
            self._source = open_source(self._receive, self._ended)
            await self._source.open()
        except Exception as exc:
            self._ended(None, exc)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        self._opening = None
        self.runs.tasks.discard(opening)
        if opening.cancelled():  # by `stop`, or by the end of the event loop
            self.stop(Failure(200, "cancelled", "the relay was stopped"))

    def stop(self, failure: Failure) -> None:
        """End the run now, with this in its last frame. A run that is over stays as it is."""
        if not self._is_over:
            self._fail(replace(failure, ending=self._close_source()))
            if self._opening is not None:
                self._opening.cancel()

    def _close_source(self) -> Ending | None:
        return self._source.close() if self._source is not None else None

    def _receive(self, events: list[Any], now: float) -> None:
        try:
            frames: list[Frame] = []
            for event in events:
                frames += self.dialect.event(event)
            if self.has_begun:
                self._append(frames, now)
            elif frames or any(type(event) is not Ping for event in events):  # a ping alone is not a beginning
                self.headers = self._stream.headers if self._stream is not None else {}
                self._append(frames, now)
                self._begin_readers(now)
        except Exception as exc:
            self._ended(self._close_source(), exc)
        if len(self._log) > self._max_read_bytes and not self._can_grow() and self._source is not None:
            self._source.pause()

    def _ended(self, ending: Ending | None, error: Exception | None) -> None:
        try:
            if error is None and ending is not None:
                self._finish(self.dialect.end(ending), ending, ending.text)
                return
        except Exception as exc:
            error = exc
        if isinstance(error, Answer):
            self._fail(Failure(error.status, error.type, str(error), dict(error.headers)))
        elif isinstance(error, RawsseError):
            self._fail(failure_of(error, self._stream.error_event if self._stream else None), words=str(error))
        else:
            log.error("run %s failed: an unexpected exception", self.tag, exc_info=error)
            self._fail(Failure(500, "api_error", "the run failed: see the log of the server"))

    _append = Feed.publish  # another method where frames are kept elsewhere, too

    def _fail(self, failure: Failure, words: str | None = None) -> None:
        """`words` are for the log, and may say more than browsers see."""
        if self._is_over:
            return
        self.failure = failure
        self.early_failure = failure if self._is_silent else None
        frames = self.dialect.fail(failure)
        if failure.retry is not None:
            frames = [f"retry: {failure.retry}\n{frame}" for frame in frames]
        self._finish(frames, failure.ending, words or failure.message)

    def _finish(self, frames: Sequence[Frame], ending: Ending | None, words: str) -> None:
        if self._grace is not None:
            self._grace.cancel()
        self.ending, self._is_over = ending, True
        more = {"seconds": self._loop.time() - self._began_at, "on_disconnect": self.on_disconnect, "words": words}
        record = record_of(self.start, self._stream, ending, self.failure, **more)
        # A finished run is kept for a while, but not its request and its connection.
        self._source = self._grace = None
        self._end(frames, record)

    def _end(self, frames: Sequence[Frame], record: RunRecord) -> None:
        """The last frames."""
        self._publish_last(frames)
        self.runs.ended(self, record)

    @property
    def _stream(self) -> EventStream | None:
        return self._source.stream if self._source is not None else None

    @property
    def _is_silent(self) -> bool:
        return self.last == 0

    def _can_grow(self) -> bool:
        """Forget what is above the limit and was read. Is there room?"""
        self._forget_read(self.last if self.on_disconnect == "drain" else self.first - 1, self._max_read_bytes)
        return len(self._log) <= self._max_bytes


class Writer(Protocol):
    """The part of an `Outlet` that a reader needs."""

    sink: Any

    def write(self, data: bytes) -> bool:
        """See `Outlet.write`."""
        ...

    def end(self, data: bytes = b"") -> None:
        """See `Outlet.end`."""


class Reader:
    """Reads one run's log from a position on, and writes it to `outlet`.

    `start` sends the head when the run has begun, and returns False if it has sent the whole answer. `first` is written before
    the frames after the position. A reader that falls behind reads on from the log when its client takes more.
    """

    __slots__ = ("_first", "_has_begun", "_is_behind", "_is_closed", "_outlet", "_run", "_start", "position")

    def __init__(self, run: Feed, outlet: Writer, position: int, start: Callable[[], bool], first: bytes = b"") -> None:
        self.position = position
        self._first = first
        self._run = run
        self._outlet = outlet
        self._start = start
        self._has_begun = False
        self._is_behind = False
        self._is_closed = False
        outlet.sink = self

    def begin(self) -> None:
        """Send the head, and what there is to read; a heartbeat if that is nothing."""
        if self._has_begun or self._is_closed:
            return
        self._has_begun = True
        if not self._start():
            self.close()
            return
        if self._first or (self.position == self._run.last and not self._run.is_finished):
            self.push(self._first or self._run.dialect.heartbeat, self.position)
            self._first = b""
        if self.catch_up():
            self._run.runs.turns.add(self)

    def push(self, wire: bytes, position: int) -> None:
        """Write what comes next in the run, up to `position`; with the end of the run, that of the answer."""
        if self._is_closed:
            return
        run, self.position = self._run, position
        try:
            if run.is_finished and position == run.last:
                self._outlet.end(wire)
                self.close()
            elif not self._outlet.write(wire):
                self._is_behind = True
                run.live.discard(self)
        except Exception:  # it must not cost the other readers of the run their answer
            log.exception("a reader of a run failed")
            self.close()

    def on_drain(self) -> None:
        """The client takes more."""
        self._is_behind = False
        self._run.runs.turns.add(self)

    def close(self) -> None:
        """Read no more. Any number of times."""
        if not self._is_closed:
            self._is_closed = True
            self._run.leave(self)
            del (
                self._outlet,
                self._start,
            )  # each holds this reader, and the garbage collector would have to find the ring

    on_closed = close  # the client has gone

    def cut(self) -> None:
        """End the answer without its last frame: the client comes back for the rest."""
        self.begin()
        if not self._is_closed:
            self._outlet.end()
            self.close()

    def catch_up(self) -> bool:
        """Write a piece of what has not been read yet, or the end. True: there is more, and the client takes it."""
        run = self._run
        if self._can_write and self.position < run.last:
            self.push(*run.take(self.position))
            run.has_read()
        elif self._can_write and run.is_finished:
            self.push(b"", self.position)
        if self._can_write and self.position == run.last:
            run.live.add(self)
        return self._can_write and self.position < run.last

    @property
    def _can_write(self) -> bool:
        return self._has_begun and not (self._is_closed or self._is_behind)


class Turns:
    """Readers that have more than a piece to read. They take turns of one piece each, and `PIECES_AT_ONCE` pieces are written
    in one step of the event loop, so that other connections do not wait for long."""

    def __init__(self) -> None:
        self._readers: deque[Reader] = deque()

    def add(self, reader: Reader) -> None:
        """Let the reader catch up, soon."""
        if not self._readers:
            asyncio.get_running_loop().call_soon(self._take)
        self._readers.append(reader)

    def _take(self) -> None:
        for _ in range(min(PIECES_AT_ONCE, len(self._readers))):
            reader = self._readers[0]  # it stays there, so that no other step is called for
            if reader.catch_up():
                self._readers.append(reader)
            self._readers.popleft()
        if self._readers:
            asyncio.get_running_loop().call_soon(self._take)


def new_run_id() -> str:
    """An id that cannot be guessed."""
    return secrets.token_urlsafe(18)


class Runs:
    """All runs of one relay, by user and id. It owns them and their tasks: `aclose` ends them."""

    def __init__(
        self,
        limits: RunLimits,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        *,
        observers: Sequence[Observer] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.heartbeat_seconds = heartbeat_seconds
        self.turns = Turns()
        self._observers = observers
        self._clock = clock
        # The key is a user and an id that only this user may know, or may have chosen.
        self._runs: dict[tuple[str, str], Run] = {}
        self._aliases: dict[tuple[str, str], Run] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Run, asyncio.TimerHandle] = {}  # of finished runs, oldest first: when they are forgotten
        self._kept_bytes = 0  # of their frames
        self.is_closed = False
        """`aclose` was called."""

    @property
    def readers(self) -> int:
        """How many clients read a run."""
        return sum(run.readers for run in self._runs.values())

    def open(self) -> list[Run]:
        """The runs that have not ended."""
        return [run for run in self._runs.values() if not run.is_finished]

    def get(self, user: str, id: str) -> Run | None:
        """The run of that user with that id, or None."""
        return self._runs.get((user, id))

    def by_alias(self, user: str, alias: str) -> Run | None:
        """The newest run of that user with that alias, or None."""
        return self._aliases.get((user, alias))

    def check_room(self) -> None:
        """Raises `Answer`, 503: there are `max_runs` unfinished runs, or `aclose` was called."""
        self._forget_early(room_for=1)
        if self.is_closed or len(self._runs) >= self.limits.max_runs:
            why = "the relay is shutting down" if self.is_closed else f"{self.limits.max_runs} runs are not finished"
            raise Answer(503, "overloaded_error", why, headers={"retry-after": "5"})

    def begin(
        self,
        dialect: Dialect,
        open_source: OpenSource,
        *,
        user: str = "",
        model: str = "",
        id: str | None = None,
        alias: str | None = None,
        time: float | None = None,
        kind: Callable[[RunStart, Dialect, Runs], Run] | None = None,
    ) -> Run:
        """A new run of the events of a source, as `check_room` allows it. `time` is the Unix time at which it began, and `kind`
        makes it, if it is not a plain `Run`."""
        self.check_room()
        start = RunStart(time or self._clock(), id or new_run_id(), user, dialect.name, model)
        self.tell_begun(start)
        run = (kind or Run)(start, dialect, self)
        run.alias = alias
        self._runs[user, run.id] = run
        if alias is not None:
            self._aliases[user, alias] = run
        self.tasks.add(run.begin(open_source))
        return run

    def tell_begun(self, start: RunStart) -> None:
        """Tell the observers."""
        self._tell([observer.begun for observer in self._observers], start)

    def tell_ended(self, record: RunRecord) -> None:
        """Tell the observers."""
        self._tell([observer.ended for observer in self._observers], record)

    def ended(self, run: Run, record: RunRecord) -> None:
        """A run has ended: its frames are kept for a while."""
        self.tell_ended(record)
        # A run to which no client can come back is forgotten at once; its reader still has it.
        seconds = self.limits.keep_seconds if run.is_resumable else 0
        self._timers[run] = asyncio.get_running_loop().call_later(seconds, self._forget, run)
        self._kept_bytes += run.log_bytes
        self._forget_early()

    def _tell(self, functions: list[Callable[[Any], None]], about: object) -> None:
        """An exception of one observer costs neither the run nor the other observers."""
        for function in functions:
            try:
                function(about)
            except Exception:
                log.exception("an observer of runs failed")

    async def aclose(self, failure: Failure, flush: Callable[[], Awaitable[None]] | None = None) -> None:
        """End every run with this in its last frame, and wait until all are over. No run begins after it. `flush` waits until
        runs whose last frames are on their way have ended."""
        self.is_closed = True
        for run in list(self._runs.values()):  # one that ends may make others forgotten early
            run.stop(failure)
        if self.tasks:
            await asyncio.wait(self.tasks)
        if flush is not None:
            await flush()
        for run in list(self._timers):
            self._forget(run)

    def _forget(self, run: Run) -> None:
        user = run.start.user
        self._timers.pop(run).cancel()
        del self._runs[user, run.id]
        if run.alias is not None and self._aliases.get((user, run.alias)) is run:
            del self._aliases[user, run.alias]
        self._kept_bytes -= run.log_bytes

    def _forget_early(self, room_for: int = 0) -> None:
        """Forget finished runs, oldest first, while there are too many, or they keep too much."""
        max_runs, max_bytes = self.limits.max_runs - room_for, self.limits.max_kept_bytes
        while self._timers and (len(self._runs) > max_runs or self._kept_bytes > max_bytes):
            self._forget(next(iter(self._timers)))
