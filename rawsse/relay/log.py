"""The frames of one run, from the oldest that is kept to the newest."""

from __future__ import annotations

import re
import secrets
from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise

from rawsse.relay.dialects import Answer, join_deltas

PIECE_BYTES = 8 * 1024
"""How much a reader takes at once. Small, for browsers whose scripts do not join what two reads cut in two: a read of theirs
takes up to 64 KiB, and what comes in pieces that end with a frame seldom fills it."""

JOINING_SAVES_BYTES = len('id: 01234567-1\ndata: {"text":""}\n\n')
"""How much shorter two frames get at least when their pieces of text are joined."""


class Gone(Answer):
    """The frames asked for are no longer kept."""


class FrameLog:
    """Frames, numbered from 1; the id of a frame is `<tag>-<number>`.

    The tag is by chance, not by the run's id: ids that clients choose have common beginnings, and may be used again when
    their run is forgotten. A reader of the one must never be given the rest of the other.

    `delta` is that of the `Dialect`.
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
        """What is kept."""
        return len(self._log)

    @property
    def first(self) -> int:
        """The number of the oldest frame that is kept."""
        return self.last - len(self._ends) + 1

    def number_of(self, frame_id: str) -> int | None:
        """The number in a frame's id, or a bare number; None if it is no id of this run."""
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
        """Forget the oldest frames until the log is within `limit` bytes, but none that comes after the position `read`."""
        enough = bisect_left(self._ends, self._forgotten_bytes + self.log_bytes - limit) + 1
        count = min(enough, read + 1 - self.first)
        if count > 0:
            del self._log[: self._ends[count - 1] - self._forgotten_bytes]
            self._forgotten_bytes = self._ends[count - 1]
            del self._ends[:count]
