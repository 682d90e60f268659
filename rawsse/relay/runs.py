"""Runs: one upstream generation each, with a log of its frames, read by any number of browsers; and the relay's home for them.

A run is not a connection. `POST` begins a run, and browsers read its log; one that lost its connection comes back and reads
on from the last id that it has seen. When no browser reads an unfinished run, it has a grace time for one to come back; then
the upstream call is cancelled. A finished run stays readable for a while. Clients of some dialects cannot come back: their
runs end when they leave.

    run = runs.begin(Run(Asked(dialect, request), user, runs), open_source)     # runs.aclose() ends it
    run.join(reader)                                                            # see `feed.py`

Once an answer has content, one call leads from the upstream's bytes to the browsers' sockets: events, frames, log, and a write
for each reader that has read all before. There is no task, no future and no queue per event.

Memory. The log keeps what a reader may still ask for, up to `max_log_bytes`; then the oldest frames are dropped, but none that
a connected reader has not read: for that one the run waits, and the upstream is not read, so that TCP holds it back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rawsse.client.stream import EventStream
from rawsse.errors import APIError, Ending, RawsseError
from rawsse.messages.events import Ping
from rawsse.relay.dialects import Answer, Asked, Failure, Frame, failure_of
from rawsse.relay.feed import PIECE_BYTES, Feed, Reader, Turns
from rawsse.relay.push import Ended, Receive
from rawsse.relay.quotas import Quotas
from rawsse.relay.record import Observer, RunRecord, RunStart, log, record_of
from rawsse.relay.users import User
from rawsse.server.connection import NotNegative

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


STOPPED = Failure(200, "cancelled", "stopped")
USED_UP = Failure(429, "rate_limit_error", "the tokens of the day are used up")

OpenSource = Callable[[Receive, Ended], Source]
"""Makes a source of the functions that it calls: with the events of one moment, and at the end."""


class Run(Feed):
    """One generation: frames of what a source brings."""

    def __init__(self, asked: Asked, user: str, runs: Runs) -> None:
        dialect, model = asked.dialect, asked.request.get("model", "")
        start = RunStart(runs.clock(), asked.id or secrets.token_urlsafe(18), user, dialect.name, model)
        super().__init__(start, dialect, runs.turns, runs.heartbeat_seconds)
        self.runs = runs
        self.alias, self.fingerprint = asked.alias, asked.fingerprint
        self.ending: Ending | None = None
        self.failure: Failure | None = None
        self.on_disconnect: str | None = None
        """For a run without readers: "cancel" or "drain"."""
        limits = runs.limits
        self._max_bytes = limits.max_log_bytes if self.is_resumable else limits.max_unread_bytes
        # Frames that were read are forgotten in pieces: one by one costs more.
        self._full_bytes = self._max_bytes if self.is_resumable else min(self._max_bytes, PIECE_BYTES)
        self._source: Source | None = None
        self._opening: asyncio.Task[None] | None = None
        self._cancel_grace: Callable[[], object] = int
        self._began_at = self._spoke_at
        self._is_over = False  # no more events are taken

    # Reading -------------------------------------------------------------------------------------------------------

    def join(self, reader: Reader, *, holds: bool = False) -> None:
        """See `Feed.join`."""
        self.check_kept(reader.position)
        self._cancel_grace()
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

    def wait_for_readers(self, unread: float = 0.0) -> None:
        """If the run has no readers, it goes on for as long as the limits say, unless a reader joins. `unread`: for so many
        seconds it has had none."""
        if self._readers or self._is_over:
            return
        self._cancel_grace()
        limits = self.runs.limits
        self.on_disconnect = "drain" if limits.drain_seconds else "cancel"
        seconds = max(limits.drain_seconds, limits.grace_seconds if self.is_resumable else 0)
        if seconds:
            self._cancel_grace = self._loop.call_later(seconds - unread, self._abandon, seconds).cancel
        else:
            self.stop(Failure(200, "cancelled", "the client closed the connection"))

    def _abandon(self, seconds: float) -> None:
        """It had no readers for so long."""
        self.stop(unread(seconds))

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
            self.stop(Failure(200, "cancelled", "the server was stopped"))

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
            ending = self._close_source()
            if isinstance(exc, APIError) and ending is not None:  # raised by the dialect
                exc.ending = ending._replace(kind=exc.ending_kind, text=exc.message)
            self._ended(ending, exc)
        if len(self._log) > self._full_bytes and not self._can_grow() and self._source is not None:
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
        self._cancel_grace()
        self.ending, self._is_over = ending, True
        more = {"seconds": self._loop.time() - self._began_at, "on_disconnect": self.on_disconnect, "words": words}
        record = record_of(self.start, self._stream, ending, self.failure, **more)
        # A finished run is kept for a while, but not its request and its connection.
        self._source = None
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
        unread = self.last if self.on_disconnect == "drain" else self.first - 1
        self._forget_read(unread, self._max_bytes if self.is_resumable else 0)
        return len(self._log) <= self._max_bytes


def unread(seconds: float) -> Failure:
    """The failure of a run that had no readers for so long."""
    return Failure(200, "cancelled", f"no client read the answer for {seconds:g} s")


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
        self.clock = clock
        # The key has the user, too: ids may be chosen by clients, and may be secrets of their users.
        self._runs: dict[tuple[str, str], Run] = {}
        self._aliases: dict[tuple[str, str], Run] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Run, asyncio.TimerHandle] = {}  # of finished runs, oldest first: when they are forgotten
        self._kept_bytes = 0  # of their frames
        self.beginning: set[str] = set()
        """Tags of runs that are about to begin."""
        self.is_closed = self.is_draining = False
        """`aclose` was called; `drain` was called, and no request may begin a run."""
        self.has_left = asyncio.Event()
        """A run has ended, or one that was about to begin has not: it is set for those who wait for the last one."""

    def open(self, user: str | None = None) -> list[Run]:
        """The runs of one user, or of all, that have not ended."""
        return [run for run in self._runs.values() if not run.is_finished and user in (None, run.start.user)]

    def get(self, user: str, id: str) -> Run | None:
        """The run of that user with that id, or None."""
        return self._runs.get((user, id))

    def by_alias(self, user: str, alias: str) -> Run | None:
        """The newest run of that user with that alias, or None."""
        return self._aliases.get((user, alias))

    def check_room(self, *, was_admitted: bool = False) -> None:
        """Raises `Answer`, 503: there are `max_runs` unfinished runs, or `drain` or `aclose` was called. A request that
        `was_admitted` before `drain` may still begin its run."""
        is_closed = self.is_closed if was_admitted else self.is_draining
        self._forget_early(room_for=1)
        if is_closed or len(self._runs) >= self.limits.max_runs:
            why = "the server is shutting down" if is_closed else f"{self.limits.max_runs} runs are not finished"
            raise Answer(503, "overloaded_error", why, headers={"retry-after": "5"})

    def begin(self, run: Run, open_source: OpenSource) -> Run:
        """Begin to generate, after `check_room`. Raises `Answer`, 503, as it does."""
        self.check_room(was_admitted=True)
        self.notify(run.start)
        self._runs[run.start.user, run.id] = run
        if run.alias:
            self._aliases[run.start.user, run.alias] = run
        self.tasks.add(run.begin(open_source))
        return run

    def notify(self, about: RunStart) -> None:
        """Notify the observers that a run has begun; of a `RunRecord`, that it has ended. An exception of one observer affects
        neither the run nor the other observers."""
        for observer in self._observers:
            try:
                if isinstance(about, RunRecord):
                    observer.ended(about)
                else:
                    observer.begun(about)
            except Exception:
                log.exception("an observer of runs failed")

    def ended(self, run: Run, record: RunRecord | None) -> None:
        """A run has ended: its frames are kept for a while. Without a record, the observers are told of its end later."""
        if record is not None:
            self.notify(record)
        # A run to which no client can come back is forgotten at once; its reader still has it.
        seconds = self.limits.keep_seconds if run.is_resumable else 0
        self._timers[run] = asyncio.get_running_loop().call_later(seconds, self._forget, run)
        self._kept_bytes += run.log_bytes
        self.has_left.set()
        self._forget_early()

    async def drain(self, seconds: float) -> None:
        """Let no request begin a run any more, and wait until all runs have ended, those that are `beginning` included: for
        `seconds` at most, and until `aclose` is called."""
        self.is_draining = True
        if has_open_runs := bool(seconds and self.open()):
            log.info("no more runs begin; those that are open have %g s to end: %d", seconds, len(self.open()))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (self.beginning or len(self._runs) > len(self._timers)) and not self.is_closed:
                    self.has_left.clear()
                    await self.has_left.wait()
        if has_open_runs:
            log.info("the wait for the open runs is over; those that have not ended: %d", len(self.open()))

    async def aclose(self, failure: Failure, flush: Callable[[], Awaitable[None]] | None = None) -> None:
        """End every run with this in its last frame, and wait until all are over. No run begins after it. `flush` waits until
        runs whose last frames are on their way have ended."""
        self.is_closed = self.is_draining = True
        self.has_left.set()
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
        if self._aliases.get((user, run.alias)) is run:
            del self._aliases[user, run.alias]
        self._kept_bytes -= run.log_bytes

    def _forget_early(self, room_for: int = 0) -> None:
        """Forget finished runs, oldest first, while there are too many, or they keep too much."""
        max_runs, max_bytes = self.limits.max_runs - room_for, self.limits.max_kept_bytes
        while self._timers and (len(self._runs) > max_runs or self._kept_bytes > max_bytes):
            self._forget(next(iter(self._timers)))


class Home:
    """Where a relay begins and finds its runs: the runs and quotas of this process, where nothing waits for anything. `Node`
    has the same functions for several relays that share a store."""

    is_cut_off = False
    """The store cannot be used, as far as this is known."""

    def __init__(self, runs: Runs, quotas: Quotas) -> None:
        self.runs = runs
        self.quotas = quotas

    async def start(self) -> None:
        """Be ready for requests."""

    async def is_ready(self) -> bool:
        """A run can begin."""
        return not self.runs.is_draining

    async def aclose(self, failure: Failure) -> None:
        """End every run with this in its last frame, and wait until all have ended."""
        await self.runs.aclose(failure)

    async def begin(self, asked: Asked, open_source: OpenSource, user: User | None) -> tuple[Feed, dict[str, str]]:
        """A new run, or the one that has its id; and header fields that say what is left of the limits. Raises `Answer`: 409,
        the id is that of another request; 429; 503."""
        user_id = id_of(user)
        if (known := self.runs.get(user_id, asked.id)) is not None:
            return checked(known, asked.fingerprint), {}
        self.runs.check_room()  # first: what is refused for lack of room does not count
        fields = self.quotas.admit(user, self.runs.clock(), is_messages=not asked.dialect.is_resumable)
        return self.runs.begin(Run(asked, user_id, self.runs), open_source), fields

    async def find(self, user: str, id: str, seen: Sequence[str] = ()) -> Feed | None:
        """The run of that user with that id, for a client that has seen frames with these ids. None if there is no such run, or
        its clients cannot come back to it."""
        run = self.runs.get(user, id)
        return run if run is not None and run.is_resumable else None

    async def find_chat(self, user: str, chat: str) -> Feed | None:
        """The newest run of that user in that chat."""
        return self.runs.by_alias(user, chat)

    async def open_runs(self, user: str | None) -> dict[RunStart, int]:
        """The runs of a user, or of all, that have not ended, each with the number of its readers here, at this node."""
        readers = self.count_readers()
        return {run.start: readers[run.tag] for run in self.runs.open(user)}

    def count_readers(self) -> Counter[str]:
        """How many clients read each run here, at this node, by the tags of the runs."""
        return Counter({run.tag: run.readers for run in self.runs._runs.values()})

    async def stop(self, run: Feed) -> None:
        """Stop a run, and return when its last frame is there."""
        if isinstance(run, Run):
            run.stop(STOPPED)

    async def stop_all(self, user: str | None) -> int:
        """Stop the open runs of a user, or of all. How many these are."""
        runs = self.runs.open(user)
        for run in runs:
            run.stop(STOPPED)
        return len(runs)

    def stop_used_up(self) -> None:
        """Stop the runs of users whose day's tokens are used up, if their limits say so."""
        now = self.runs.clock()
        for run in self.runs.open():
            if self.quotas.must_end(run.start.user, now):
                run.stop(USED_UP)

    async def admit(self, user: User | None) -> dict[str, str]:
        """Count a request without a run; header fields as those of `begin`. Raises `Answer`: 429."""
        return self.quotas.admit(user, self.runs.clock(), is_messages=True, is_run=False)

    async def me(self, user: User | None) -> dict[str, Any]:
        """See `Quotas.me`."""
        return self.quotas.me(user, self.runs.clock())


def id_of(user: User | None) -> str:
    """The id of a user; empty if the relay has no users."""
    return user.id if user is not None else ""


def checked(run: Feed | None, fingerprint: str) -> Feed:
    """The run that has the id of a request, if it is its run. Raises `Answer`: 409."""
    if run is None or run.fingerprint != fingerprint:
        raise Answer(409, "conflict_error", "x-run-id: belongs to another request", field="x-run-id")
    return run
