"""A feed: the log of a run's frames, which grows, and its readers.

    outlet.sink = reader = Reader(feed, after, outlet, start)
    feed.join(reader)                                       # from now on the feed writes to `outlet`
    reader.close()

There is no task, future or queue per event: a frame is added to the log, and written for each reader that is up to date. A
reader with a slow client continues from the log when the client has caught up.
"""

from __future__ import annotations

import asyncio
import secrets
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from rawsse.relay.dialects import Answer, Dialect, Failure, Frame, join_deltas
from rawsse.relay.record import RunStart, log
from rawsse.server.asgi import Body

PIECE_BYTES = 8 * 1024
"""How much a reader writes at once. Small, for scripts that do not join a frame split between two reads: browsers read up to
64 KiB, which small pieces that end with a frame seldom fill."""

PIECES_AT_ONCE = 16
"""How many pieces are written in one step of the event loop for readers that take turns."""


class Gone(Answer):
    """The requested frames are no longer kept."""


class Feed:
    """The frames of one run, numbered from 1, and the readers that they are written for.

    The id of a frame is `<tag>-<number>`. The tag is random, and not the run's id: clients' ids may have common
    prefixes, and may be reused when their run is forgotten. A reader of one run must never get the rest of another.
    """

    # Slots for the attributes that each event needs: instances share the keys of at most 30 others, which saves
    # 1 KiB per run.
    __slots__ = ("__dict__", "__weakref__", "_ends", "_forgotten_bytes", "_log", "_spoke_at", "last", "live")

    def __init__(self, start: RunStart, dialect: Dialect, turns: Turns, heartbeat_seconds: float) -> None:
        self.start = start
        self.id = start.run
        self.tag = secrets.token_hex(4)
        self.turns = turns
        self.dialect = dialect
        self.fingerprint = ""  # of the request, if the client chose the run's id
        self.last = 0
        """The number of the newest frame; 0 if there is none."""
        self.has_begun = False
        """The first event or the end has arrived, or one heartbeat interval has passed: heads are no longer held back."""
        self.is_finished = False
        self.early_failure: Failure | None = None
        """The failure of a run without any other frame: it may keep its HTTP status."""
        self.headers: Mapping[str, str] = {}
        """The header fields of the upstream's response, once there is one."""
        self.live: set[Reader] = set()
        """Readers that are up to date: new frames are pushed to them."""
        self.is_resumable = dialect.is_resumable
        """Clients can reconnect to it."""
        self._log = bytearray()
        self._ends = array("Q")  # of each frame that is kept, counted in bytes from the first frame of all
        self._forgotten_bytes = 0
        self._loop = asyncio.get_running_loop()  # cached: getting it is a system call on Python 3.11
        self._readers: set[Reader] = set()
        self._heartbeat: asyncio.TimerHandle | None = None
        self._heartbeat_seconds = heartbeat_seconds
        self._spoke_at = self._loop.time()  # the last time that anything was sent to the readers

    # The log -------------------------------------------------------------------------------------------------------

    @property
    def log_bytes(self) -> int:
        """The size of the frames that are kept."""
        return len(self._log)

    @property
    def first(self) -> int:
        """The number of the oldest frame that is kept."""
        return self.last - len(self._ends) + 1

    def number_of(self, frame_id: str) -> int | None:
        """The number in a frame id, or a bare number; None if it is not an id of this run."""
        tag, dash, number = frame_id.strip().rpartition("-")
        if (dash and tag != self.tag) or not (number.isascii() and number.isdigit() and len(number) < 16):
            return None
        return int(number)

    def take(self, position: int) -> tuple[bytes, int]:
        """The frames after `position`, at least one, as one piece of at most `PIECE_BYTES`, and the position after them.

        If more than a piece is left, text frames are joined if the dialect allows it.
        """
        ends, skip = self._ends, self._forgotten_bytes
        at = position + 1 - self.first
        start = ends[at - 1] if at else skip
        end = max(bisect_right(ends, start + PIECE_BYTES, at), at + 1)
        piece = bytes(self._log[start - skip : ends[end - 1] - skip])
        if self.dialect.delta is not None and ends[-1] - start > PIECE_BYTES:
            piece = join_deltas(piece, self.dialect.delta)
        return piece, position + end - at

    def kept(self) -> tuple[bytes, int]:
        """All frames, and the position after them. Raises `Gone` if the first is no longer kept."""
        self.check_kept(0)
        return bytes(self._log), self.last

    def keeps(self, position: int) -> bool:
        """Whether the frames after that position are kept."""
        return position + 1 >= self.first

    def check_kept(self, position: int) -> None:
        """Raises `Gone` unless the frames after that position are kept."""
        if not self.keeps(position):
            raise Gone(410, "not_found_error", f"frames before {self.first} are no longer kept")

    # Readers -------------------------------------------------------------------------------------------------------

    @property
    def readers(self) -> int:
        """How many clients read the feed."""
        return len(self._readers)

    def join(self, reader: Reader, *, holds: bool = False) -> None:
        """Add a reader. With `holds` its head waits until the run has begun. Raises `Gone`. The caller must `close` the
        reader."""
        self.check_kept(reader.position)
        reader.position = min(reader.position, self.last)
        self._readers.add(reader)
        if self.has_begun or not holds:
            reader.begin()
        self.has_read()  # it may have nothing to read: then nothing else resumes a full log

    def has_read(self) -> None:
        """A reader has joined, advanced, or left."""
        raise NotImplementedError

    def leave(self, reader: Reader) -> None:
        """Remove the reader."""
        self._readers.discard(reader)
        self.live.discard(reader)

    def publish(self, frames: Sequence[Frame], now: float) -> None:
        """Add the frames to the log, and push them to the readers that are up to date."""
        if not frames:
            return
        before = number = self.last
        end = self._forgotten_bytes + len(self._log)
        pieces: list[bytes] = []
        for frame in frames:
            number += 1
            piece = (f"id: {self.tag}-{number}\n{frame}" if self.is_resumable else frame).encode()
            self._ends.append(end := end + len(piece))
            pieces.append(piece)
        wire = b"".join(pieces)
        self._log += wire
        self.last = number
        self._spoke_at = now
        for reader in [*self.live]:  # a write may end this reader or another, stop the run, or let one join
            if reader.position == before and len(wire) <= PIECE_BYTES:
                reader.push(wire, number)
            else:
                self.live.discard(reader)
                self.turns.add(reader)

    def _publish_last(self, frames: Sequence[Frame]) -> None:
        """Publish the last frames, and end the answers of all readers."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        self.is_finished = True
        now = self._loop.time()
        self.publish(frames, now)
        self._begin_readers(now)
        for reader in list(self.live):
            reader.catch_up()

    def _begin_readers(self, now: float) -> None:
        """The first event or the end has arrived, or a heartbeat is due."""
        if not self.has_begun and (self.dialect.heartbeat or self.is_finished):
            self.has_begun, self._spoke_at = True, now
            for reader in list(self._readers):
                reader.begin()

    def _beat(self) -> None:
        """Send a heartbeat if nothing else was sent during the interval."""
        now = self._loop.time()
        if now >= (due := self._spoke_at + self._heartbeat_seconds):
            due = now + self._heartbeat_seconds
            if self.has_begun:
                for reader in list(self.live):
                    reader.push(self.dialect.heartbeat, reader.position)
            else:
                self._begin_readers(now)
        if not self.is_finished:  # a write may have stopped the run
            self._heartbeat = self._loop.call_at(due, self._beat)

    def _forget_read(self, unread: int, limit: int) -> None:
        """Forget the oldest frames until the log is within `limit` bytes, but keep frames that a connected reader has
        not read or, without readers, those after the position `unread`."""
        if len(self._log) <= limit:
            return
        ends, read = self._ends, min((reader.position for reader in self._readers), default=unread)
        count = min(bisect_left(ends, ends[-1] - limit) + 1, read - self.last + len(ends))
        if count > 0:
            del self._log[: ends[count - 1] - self._forgotten_bytes]
            self._forgotten_bytes = ends[count - 1]
            del ends[:count]


class Reader:
    """Reads one run's log from a position. A reader that falls behind continues from the log when its client has caught up.

    `start` sends the head when the run has begun, or a whole answer and closes the reader. The outlet's sink calls `on_drain`
    and `on_closed`.
    """

    __slots__ = ("_can_write", "_is_closed", "_outlet", "_run", "_start", "position")

    def __init__(self, run: Feed, position: int, outlet: Body, start: Callable[[], object]) -> None:
        self.position = position
        self._run = run
        self._outlet = outlet
        self._start: Callable[[], object] | None = start  # until the head is sent
        self._can_write = False  # the head is sent, and the client keeps up
        self._is_closed = False

    def begin(self) -> None:
        """Send the head and the first piece, or a heartbeat if there is nothing to read."""
        start, self._start = self._start, None
        if start is None:
            return
        self._can_write = True
        start()
        if self.position == self._run.last and not self._run.is_finished:
            self.push(self._run.dialect.heartbeat, self.position)
        if self.catch_up():
            self._run.turns.add(self)

    def push(self, wire: bytes, position: int) -> None:
        """Write the next frames of the run, up to `position`; at the end of the run also end the answer."""
        if not self._can_write:
            return
        run, self.position = self._run, position
        try:
            if run.is_finished and position == run.last:
                self._outlet.end(wire)
                self.close()
            elif not self._outlet.write(wire):
                self._can_write = False
                run.live.discard(self)
        except Exception:  # it must not affect the run's other readers
            log.exception("a reader of a run failed")
            self.close()

    def catch_up(self) -> bool:
        """Write the next piece, or the end. True if there is more, and the client keeps up."""
        run = self._run
        if self._can_write and self.position < run.last:
            self.push(*run.take(self.position))
            run.has_read()
        elif run.is_finished:
            self.push(b"", self.position)
        is_behind = self.position < run.last
        if self._can_write and not is_behind:
            run.live.add(self)
        return self._can_write and is_behind

    def on_drain(self) -> None:
        """The client has caught up."""
        if self._start is None and not self._is_closed:
            self._can_write = True
            self._run.turns.add(self)

    def cut(self) -> None:
        """Cut the answer: the client reconnects for the rest."""
        self.begin()
        if not self._is_closed:
            self._outlet.cut()
            self.close()

    def close(self) -> None:
        """Stop reading. May be called any number of times."""
        if not self._is_closed:
            self._is_closed, self._can_write, self._start = True, False, None
            self._run.leave(self)
            del self._outlet  # breaks a reference cycle, which would need the garbage collector

    on_closed = close  # the client has disconnected


class Turns:
    """Readers with more than a piece to read. They take turns of one piece each, with `PIECES_AT_ONCE` pieces per step of the
    event loop, so that other connections do not wait long."""

    def __init__(self) -> None:
        self._readers: deque[Reader] = deque()

    def add(self, reader: Reader) -> None:
        """Let the reader catch up, in a later step."""
        if not self._readers:
            asyncio.get_running_loop().call_soon(self._take)
        self._readers.append(reader)

    def _take(self) -> None:
        for _ in range(min(PIECES_AT_ONCE, len(self._readers))):
            reader = self._readers[0]  # it stays there, so that `add` does not schedule another step
            if reader.catch_up():
                self._readers.append(reader)
            self._readers.popleft()
        if self._readers:
            asyncio.get_running_loop().call_soon(self._take)
