"""Runs: one upstream generation each, with its own log of frames, read by any number of browsers.

This file knows the life of a run: begin, grow, be read from any point, be stopped, be forgotten. It refuses to know HTTP and
what the frames say.

A run is not a connection. `POST` begins a run, and browsers read its log; one that lost its connection comes back and reads
on from the last id that it has seen. When nobody reads an unfinished run, it has a grace time for somebody to come back; then
the upstream call is cancelled. A finished run stays readable for a while. Clients of some dialects cannot come back: theirs
end when they leave.

    run = runs.begin(dialect, open_stream)            # its task is owned by `runs`
    reader = run.reader(after=0)
    while (frames := await reader.read(seconds)) is not None: ...      # b"" after so many seconds without any
    reader.close()

Memory. The log keeps what a reader may still ask for, up to `max_log_bytes`; then the oldest frames go, but none that a
connected reader has not read: for that one the run waits, and with it the upstream, by TCP's own back-pressure.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from rawsse.client.stream import EventStream
from rawsse.errors import ConfigurationError, Ending, RawsseError
from rawsse.http1 import Headers
from rawsse.relay.dialects import Dialect, Failure, Frame, failure_of, one_line
from rawsse.sse import encode

MAX_LOG_BYTES = 4 * 1024 * 1024
"""What one run keeps of its frames: about 20,000 pieces of text, more than the longest answers of today have."""

MAX_UNREAD_BYTES = 256 * 1024
"""What a run whose client cannot come back holds for a reader that is slow."""

PIECE_BYTES = 8 * 1024
"""How much a reader takes at once. Small, for browsers whose scripts do not join what two reads cut in two: a read of theirs
takes up to 64 KiB, and what comes in pieces that end with a frame seldom fills it."""

MAX_RUNS = 10_000
"""Runs that are kept at once, finished ones included; above it, finished ones are forgotten early, then new ones refused."""

MAX_KEPT_BYTES = 256 * 1024 * 1024
"""What finished runs together keep of their frames; above it, the oldest are forgotten early. Of an unfinished one nothing
may be forgotten before its time: those are bounded one by one."""

log = logging.getLogger("rawsse.relay")


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How long runs live (seconds) and how much they keep (bytes).

    `grace_seconds`: how long an unfinished run goes on without any reader. `keep_seconds`: how long a finished one stays.
    Raises `ConfigurationError` for a limit below 0.
    """

    grace_seconds: float = 10.0
    keep_seconds: float = 300.0
    max_log_bytes: int = MAX_LOG_BYTES
    max_unread_bytes: int = MAX_UNREAD_BYTES
    max_kept_bytes: int = MAX_KEPT_BYTES
    max_runs: int = MAX_RUNS

    def __post_init__(self) -> None:
        for field in fields(self):
            if not (value := getattr(self, field.name)) >= 0:  # NaN is not
                raise ConfigurationError(f"{field.name} must be 0 or more, not {value}")


class Gone(Exception):  # noqa: N818 - an answer to be given, not a failure of ours
    """The frames asked for are no longer kept."""


class TooManyRuns(Exception):  # noqa: N818 - an answer to be given, not a failure of ours
    """There are `max_runs` unfinished runs."""


class Closed(Exception):  # noqa: N818 - an answer to be given, not a failure of ours
    """`Runs.aclose` was called: nothing begins any more."""


class Run:
    """One generation and its log. Frames are numbered from 1; the id of a frame is `<tag>-<number>`.

    The tag is by chance, not by the run's id: ids that clients choose have common beginnings, and may be used again when
    their run is forgotten. A reader of the one must never be given the rest of the other.
    """

    def __init__(self, id: str, dialect: Dialect, *, limits: RunLimits, alias: str | None = None) -> None:
        self.id = id
        self.alias = alias
        self.dialect = dialect
        self.has_begun = False
        """The first event has come, or the end: there is no reason to wait with the response's head."""
        self.fingerprint: bytes | None = None  # of the request, if the client named the run
        self.is_finished = False
        self.ending: Ending | None = None
        self.failure: Failure | None = None
        self.headers: Headers | None = None
        self.log_bytes = 0
        self._limits = limits
        self._tag = secrets.token_hex(4)
        self._frames: list[bytes] = []
        self._first = 1  # number of the oldest frame that is kept
        self._readers: set[Reader] = set()
        self._has_only_failed = False
        self._room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._stop_with: Failure | None = None

    # What is known -------------------------------------------------------------------------------------------------

    @property
    def last(self) -> int:
        """The number of the newest frame; 0 if there is none."""
        return self._first + len(self._frames) - 1

    @property
    def early_failure(self) -> Failure | None:
        """The failure of a run that has nothing else to say: it may keep its HTTP status."""
        return self.failure if self._has_only_failed else None

    def number_of(self, frame_id: str) -> int | None:
        """The number in a frame's id, or a bare number; None if it is no id of this run."""
        tag, dash, number = frame_id.strip().rpartition("-")
        if (dash and tag != self._tag) or not (number.isascii() and number.isdigit() and len(number) < 16):
            return None
        return int(number)

    # Reading -------------------------------------------------------------------------------------------------------

    def reader(self, after: int = 0) -> Reader:
        """A reader of the frames after that number. Whoever has it must `close` it. Raises `Gone`."""
        if after + 1 < self._first:
            raise Gone(f"frames before {self._first} are no longer kept")
        self._stop_grace()
        reader = Reader(self, min(after, self.last))
        self._readers.add(reader)
        return reader

    def _take(self, position: int) -> tuple[bytes, int]:
        """The frames after `position`, as one piece of about `PIECE_BYTES` at most, and the position after them."""
        start = end = position + 1 - self._first
        size = 0
        while end < len(self._frames) and size < PIECE_BYTES:
            size += len(self._frames[end])
            end += 1
        return b"".join(self._frames[start:end]), position + end - start

    def _has_read(self) -> None:
        if not self.dialect.is_resumable:
            self._forget_oldest(0)
        if self._room is not None and not self._room.done() and self._can_grow():
            self._room.set_result(None)

    def _left(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self._has_read()
        if self._readers or self.is_finished:
            return
        if self.dialect.is_resumable:
            seconds = self._limits.grace_seconds
            nobody_came = Failure(200, "cancelled", f"nobody read the answer for {seconds:g} s")
            self._grace = asyncio.get_running_loop().call_later(seconds, self.stop, nobody_came)
        else:
            self.stop(Failure(200, "cancelled", "the client closed the connection"))

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    # Growing -------------------------------------------------------------------------------------------------------

    def begin(self, open_stream: Callable[[], EventStream]) -> asyncio.Task[None]:
        """Begin to generate, in a task that the caller owns and awaits."""
        self._task = asyncio.get_running_loop().create_task(self._generate(open_stream), name=f"rawsse run {self._tag}")
        return self._task

    def stop(self, failure: Failure) -> None:
        """End the run now, with this as its last word. A finished run stays as it is."""
        if self._task is not None and not self.is_finished and self._stop_with is None:
            self._stop_with = failure
            self._task.cancel()

    async def _generate(self, open_stream: Callable[[], EventStream]) -> None:
        stream: EventStream | None = None
        try:
            stream = open_stream()
            await self._copy(stream)
        except RawsseError as exc:
            self._fail(failure_of(exc, stream.error_event if stream else None), words=str(exc))
        except asyncio.CancelledError:
            failure = self._stop_with or _INTERRUPTED
            self._fail(replace(failure, ending=stream.ending if stream else None))
            if self._stop_with is None:  # not by us: whoever cancelled the task waits for it to be cancelled
                raise
        except Exception:
            log.exception("run %s failed: a bug in the relay", self._tag)
            self._fail(Failure(500, "api_error", "the relay failed: see its log"))

    def conclude(self) -> None:
        """The task is over. One that was stopped before its first step could not give the run its last word."""
        if not self.is_finished:
            self._fail(self._stop_with or _INTERRUPTED)

    async def _copy(self, stream: EventStream) -> None:
        async with stream:
            self.headers = stream.headers
            async for event in stream:
                self._append(self.dialect.event(event))
                if not self._can_grow():
                    await self._wait_for_room()
        ending = stream.ending
        assert ending is not None  # noqa: S101 - the iteration has ended
        self._finish(self.dialect.end(ending), ending, ending.text)

    def _append(self, frames: Sequence[Frame], retry: int | None = None) -> None:
        for number, frame in enumerate(frames, self.last + 1):
            frame_id = f"{self._tag}-{number}" if self.dialect.is_resumable else None
            wire = encode(frame.data, event=frame.event, id=frame_id, retry=retry)
            self._frames.append(wire)
            self.log_bytes += len(wire)
        if frames or not self.has_begun:  # not every event makes a frame, and a reader is not woken for nothing
            self.has_begun = True
            self._wake()

    def _fail(self, failure: Failure, words: str | None = None) -> None:
        """`words` are for the log; they may say more than a browser is told."""
        self.failure = failure
        self._has_only_failed = self.last == 0
        self._finish(self.dialect.fail(failure), failure.ending, words or failure.message, failure.retry)

    def _finish(self, frames: Sequence[Frame], ending: Ending | None, words: str, retry: int | None = None) -> None:
        self._stop_grace()
        self.ending = ending
        self.is_finished = True
        self._append(frames, retry)
        self._wake()
        self._log(words)

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()

    # Room ----------------------------------------------------------------------------------------------------------

    def _can_grow(self) -> bool:
        limit = self._limits.max_log_bytes if self.dialect.is_resumable else self._limits.max_unread_bytes
        if self.log_bytes > limit:
            self._forget_oldest(limit)
        return self.log_bytes <= limit

    def _forget_oldest(self, limit: int) -> None:
        """Forget the oldest frames until the log is within `limit`, but none that a connected reader has not read."""
        read = min((reader.position for reader in self._readers), default=self._first - 1)
        count = 0
        while self.log_bytes > limit and self._first + count <= read:
            self.log_bytes -= len(self._frames[count])
            count += 1
        del self._frames[:count]
        self._first += count

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None

    # The log of the relay --------------------------------------------------------------------------------------------

    def _log(self, words: str) -> None:
        ending, failure = self.ending, self.failure
        if ending is not None:
            kind, request_id = ending.kind, ending.request_id
        else:  # before there was a stream
            is_ours = failure is not None and failure.type in ("cancelled", "shutdown")
            kind, request_id = "cancelled" if is_ours else "error", None
        level = logging.INFO if kind in ("complete", "cancelled") else logging.WARNING
        name, words = self.dialect.name, one_line(words)
        log.log(level, "run %s (%s) ended: %s, %s, request %s", self._tag, name, kind, words, request_id)


class Reader:
    """Reads one run's log from a position on. One task reads."""

    __slots__ = ("_due", "_is_closed", "_run", "_timer", "_waiting", "position")

    def __init__(self, run: Run, position: int) -> None:
        self.position = position
        self._run = run
        self._waiting: asyncio.Future[None] | None = None
        self._due = 0.0  # when the wait at hand is over, in the loop's time
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def read(self, seconds: float) -> bytes | None:
        """The next frames, as one piece; `b""` if none came for so many seconds; None at the end of the run, and once
        `close` was called, from whichever task.
        """
        run = self._run
        if not self._is_closed and self.position == run.last and not run.is_finished:
            await self._wait(seconds)
        if self._is_closed:
            return None
        if self.position < run.last:
            piece, self.position = run._take(self.position)
            run._has_read()
            return piece
        return None if run.is_finished else b""

    def wake(self) -> None:
        """There is something to read."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        """Nobody reads here any more. From any task, any number of times; a `read` under way returns None."""
        if not self._is_closed:
            self._is_closed = True
            self._stop_timer()
            self.wake()
            self._run._left(self)

    async def _wait(self, seconds: float) -> None:
        # One timer serves many waits: a stream mostly has something to say, and a timer for each event would cost more
        # than the event. Each wait only says when it is due.
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        self._due = loop.time() + seconds
        if self._timer is None or self._timer.when() > self._due:
            self._stop_timer()
            self._timer = loop.call_at(self._due, self._look_at_time)
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _look_at_time(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        if self._waiting is None or loop.time() >= self._due:
            self.wake()
        else:
            self._timer = loop.call_at(self._due, self._look_at_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Runs:
    """All runs of one relay, by id. It owns their tasks: `aclose` ends them."""

    def __init__(self, limits: RunLimits) -> None:
        self._limits = limits
        self._runs: dict[str, Run] = {}
        self._aliases: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}  # of finished runs, oldest first: when they are forgotten
        self._kept_bytes = 0  # of finished runs
        self._is_closed = False

    def get(self, id: str) -> Run | None:
        """The run with that id, or None."""
        return self._runs.get(id)

    def by_alias(self, alias: str) -> Run | None:
        """The newest run with that alias, or None."""
        return self._aliases.get(alias)

    def begin(
        self,
        dialect: Dialect,
        open_stream: Callable[[], EventStream],
        *,
        id: str | None = None,
        alias: str | None = None,
    ) -> Run:
        """A new run that reads the stream which `open_stream` gives. Raises `TooManyRuns`, and `Closed`."""
        if self._is_closed:
            raise Closed("the relay is shutting down")
        self._forget_early(room_for=1)
        if len(self._runs) >= self._limits.max_runs:
            raise TooManyRuns(f"{self._limits.max_runs} runs are under way")
        run = Run(id or secrets.token_urlsafe(18), dialect, limits=self._limits, alias=alias)
        self._runs[run.id] = run
        if alias is not None:
            self._aliases[alias] = run
        task = run.begin(open_stream)
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(run, task))
        return run

    async def aclose(self, failure: Failure) -> None:
        """End every run with this as its last word, and wait until all are over. Nothing begins after it."""
        self._is_closed = True
        for run in self._runs.values():
            run.stop(failure)
        if self._tasks:
            await asyncio.wait(self._tasks)
        for id in list(self._timers):
            self._forget(self._runs[id])

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        run.conclude()
        self._kept_bytes += run.log_bytes
        # A run that nobody can come back to is forgotten at once; its reader still has it.
        seconds = self._limits.keep_seconds if run.dialect.is_resumable else 0
        self._timers[run.id] = asyncio.get_running_loop().call_later(seconds, self._forget, run)
        self._forget_early()

    def _forget(self, run: Run) -> None:
        self._timers.pop(run.id).cancel()
        del self._runs[run.id]
        if run.alias is not None and self._aliases.get(run.alias) is run:
            del self._aliases[run.alias]
        self._kept_bytes -= run.log_bytes

    def _forget_early(self, room_for: int = 0) -> None:
        """Forget finished runs, oldest first, while there are too many, or they keep too much."""
        max_runs, max_bytes = self._limits.max_runs - room_for, self._limits.max_kept_bytes
        while self._timers and (len(self._runs) > max_runs or self._kept_bytes > max_bytes):
            self._forget(self._runs[next(iter(self._timers))])


_INTERRUPTED = Failure(200, "cancelled", "the relay was stopped")
"""The last word of a run whose task was cancelled by somebody else: the end of the event loop."""
