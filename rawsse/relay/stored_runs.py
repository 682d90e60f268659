"""Runs whose log is in a store: a node's own, and those of other nodes, as they are read here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from rawsse.errors import Ending
from rawsse.relay.dialects import Asked, Failure, Frame
from rawsse.relay.feed import Feed, Reader
from rawsse.relay.paths import RESUMABLE
from rawsse.relay.record import NODE_LOST, RunRecord, RunStart
from rawsse.relay.runs import Run, Runs
from rawsse.relay.store import Entry, StoredRun, Write

MAX_UNWRITTEN_BYTES = 256 * 1024
"""Frames of one run that wait for the store; above it the upstream is not read."""

CONTENT_BYTES = "content_bytes"
"""Beside the usage of a run, with `seconds` and `first_token_seconds`: how many bytes of content have come. If its node dies,
its record has these."""

UNCOUNTED_BYTES = 64
"""The usage is written again when so many bytes of content have come since, and a quarter of those before."""

_FRAME = re.compile(r".*?\n\n", re.DOTALL)
"""One frame: a blank line ends it, and no frame has another."""


class Host(Protocol):
    """The node of these runs."""

    id: str
    runs: Runs

    def write_soon(self, run: OwnedRun) -> None:
        """The run has frames that are not written."""

    def forget(self, run: OwnedRun) -> None:
        """The run has ended."""

    def abandon(self, run: OwnedRun, seconds: float) -> None:
        """Stop a run that had no readers here for so long, unless it had some at another node."""

    def watch(self, run: RemoteRun) -> None:
        """From now on the run gets what is added to its log: see `is_read` and `is_paused`."""


class OwnedRun(Run):
    """A run of this node, whose frames are written to the store before they are published."""

    def __init__(self, asked: Asked, user: str, node: Host) -> None:
        super().__init__(asked, user, node.runs)
        start = self.start
        self.stored = StoredRun(
            user, self.id, self.tag, start.dialect, start.model, start.time, self.alias, self.fingerprint, node.id
        )
        self.record: RunRecord | None = None
        """Of a run that is over: the last frames are about to be written."""
        self._node = node
        self._written = 0  # the number of the last frame that the store has
        self._next: list[Frame] = []
        self._next_bytes = 0
        self._sent: list[Frame] = []  # at the store
        self._is_lost = False
        self._due_bytes = 0  # the content with which the usage is written again

    def _append(self, frames: Sequence[Frame], now: float) -> None:
        if self._is_lost or not self.is_resumable:  # what cannot be read on from elsewhere is not kept
            self.publish(frames, now)
            if not self._is_lost and self._usage():
                self._node.write_soon(self)
        elif frames or self._usage():  # its readers see no thinking, which costs as much
            self._next += frames
            self._next_bytes += sum(map(len, frames))
            if self._next_bytes > MAX_UNWRITTEN_BYTES and self._source is not None:
                self._source.pause()
            self._node.write_soon(self)

    def _begin_readers(self, now: float) -> None:
        if self.is_finished or not (self._sent or self._next):  # else their first frame is about to come
            super()._begin_readers(now)

    def _end(self, frames: Sequence[Frame], record: RunRecord) -> None:
        if self._is_lost:  # how it ended is not known yet; it was not the API that cut it
            self.record = self.record or replace(record, error=NODE_LOST)
            self._publish_last(frames)
            self.runs.ended(self, None)
            return
        self.record = record
        self._next += frames
        self._node.write_soon(self)

    def _abandon(self, seconds: float) -> None:
        self._node.abandon(self, seconds)

    def _close_source(self) -> Ending | None:
        ending = super()._close_source()
        # A lost run is cut: its caller has not cancelled it.
        return ending._replace(kind="truncated") if self._is_lost and ending is not None else ending

    @property
    def last_sent(self) -> int:
        """The number of the last frame that a reader may have."""
        return self._written + len(self._sent)

    @property
    def _is_silent(self) -> bool:
        return super()._is_silent and not (self._sent or self._next)

    def _can_grow(self) -> bool:
        return super()._can_grow() and self._next_bytes <= MAX_UNWRITTEN_BYTES

    def _usage(self) -> dict[str, Any]:
        """The usage, as it is to be written: empty if the store has nearly all of it."""
        stream = self._stream
        if stream is None or (builder := stream._call.exchange.builder).content_bytes < self._due_bytes:
            return {}
        if not builder.usage:
            return {}
        times = {"seconds": self._loop.time() - self._began_at, "first_token_seconds": stream.timing.first_content}
        return {**builder.usage, "model": builder.model, CONTENT_BYTES: builder.content_bytes, **times}

    def next_write(self) -> Write:
        """The frames that wait. They are published when the store has them: see `written`."""
        self._sent, self._next, self._next_bytes = self._next, [], 0
        usage = ""
        if found := self._usage():
            # After a usage without content the next one has `first_token_seconds`.
            self._due_bytes = found[CONTENT_BYTES] * 5 // 4 + UNCOUNTED_BYTES if found[CONTENT_BYTES] else 1
            usage = json.dumps(found)
            self.stored = replace(self.stored, usage=usage)
        wire = "".join(self._sent).encode() if self.is_resumable else b""
        # Of a run that can be resumed, a write of the usage alone adds nothing to the log: its number stays.
        size = len(self._sent) or int(self.record is not None or not self.is_resumable)
        write = Write(self.stored, self._written, self._written + size, wire, usage)
        if self.record is None:
            return write
        keep_seconds = self.runs.limits.keep_seconds if self.is_resumable else 0.0
        return write._replace(tokens=self.record.total_tokens, keep_seconds=keep_seconds)

    def written(self, write: Write) -> None:
        """The store has the frames of this write, the last one."""
        frames, self._sent = self._sent, []
        self._written = write.number
        if write.tokens is not None and self.record is not None:
            self._node.forget(self)
            super()._end(frames, self.record)
            return
        now = self._loop.time()
        self.publish(frames, now)
        if not self.has_begun:
            super()._begin_readers(now)
        if self._next or self.record is not None:
            self._node.write_soon(self)
        self.has_read()

    def lose(self, failure: Failure, *, is_refused: bool = False) -> RunRecord | None:
        """End the run now, without the store: another node has ended it, or will. Its readers get a last frame without an id,
        since the log may have others. `is_refused`: the store has refused its frames, which readers elsewhere may have, if it
        had them before. Returns its record, of which the observers have not been notified."""
        self._is_lost = True
        self.is_resumable = False
        self._written, self._sent, self._next = self.last_sent if is_refused else self._written, [], []
        if self.record is None:
            self.stop(failure)
        else:
            self._end(self.dialect.fail(failure), self.record)
        return self.record


class RemoteRun(Feed):
    """A run of another node, as it can be read here."""

    def __init__(self, stored: StoredRun, node: Host) -> None:
        runs = node.runs
        super().__init__(start_of(stored), RESUMABLE[stored.dialect](), runs.turns, runs.heartbeat_seconds)
        self._max_bytes = runs.limits.max_log_bytes
        self.tag, self.fingerprint = stored.tag, stored.fingerprint
        self.stored = stored
        self.after = (0, 0)
        """The id of the last entry that has come."""
        self.is_paused = False
        """Its slowest reader has much to read."""
        self.is_broken = False
        """The store has lost frames that are in the log here."""
        self._node = node

    @property
    def is_read(self) -> bool:
        """It has readers who wait for more."""
        return bool(self._readers) and not self.is_finished

    def join(self, reader: Reader, *, holds: bool = False) -> None:
        """See `Feed.join`."""
        was_read = self.is_read
        super().join(reader, holds=holds)
        if self.is_broken:
            self.cut()
        elif self.is_read and not was_read:
            self._node.watch(self)
            self._beat()

    def leave(self, reader: Reader) -> None:
        """See `Feed.leave`."""
        super().leave(reader)
        if not self._readers and self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    def has_read(self) -> None:
        """See `Feed.has_read`."""
        self._forget_read(self.first - 1, self._max_bytes)
        was_paused, self.is_paused = self.is_paused, self.log_bytes > self._max_bytes
        if was_paused and not self.is_paused:
            self._node.watch(self)

    def receive(self, entries: Sequence[Entry]) -> None:
        """Publish what has been added to the log."""
        for entry in entries:
            if entry.id <= self.after or self.is_finished:
                continue
            self.after = entry.id
            frames = _FRAME.findall(entry.wire.decode())
            if entry.number and entry.number != self.last + len(frames):
                self.is_broken = True
                self.cut()
                return
            if entry.is_last:
                self._publish_last(frames)
            elif frames:
                self.publish(frames, self._loop.time())
                if not self.has_begun:
                    self._begin_readers(self._loop.time())
        self.has_read()

    def cut(self) -> None:
        """Drop the connections of the readers, whose clients come back."""
        for reader in list(self._readers):
            reader.cut()


def start_of(run: StoredRun) -> RunStart:
    """How the run began, as observers are notified."""
    return RunStart(run.time, run.id, run.user, run.dialect, run.model)
