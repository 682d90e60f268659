"""An exchange while it is being recorded: what came, and when.

This file knows how the moments of an exchange become a recording. It refuses to know clocks (`now` is an argument), files, and
what the bytes mean.

    tape = Tape(now)
    tape.sent(now)                          # times count from here
    tape.head(200, {"content-type": "text/event-stream"})
    tape.read(b"event: ping\\n…", now)
    tape.end("clean", now)
    tape.recording(request)                 # None if no answer had begun

One `read` is one read of the recording, and is played as one HTTP chunk in one write. What is read at a time is what the
network gave of one HTTP chunk: two chunks that came together are two reads at the same time, and of a chunk that came in two
pieces each is one. Times are in whole microseconds.

Above `max_bytes` nothing more is kept. What came until then is kept as `cut` there: no part is ever played as the whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from rawsse.replay.recording import End, Read, RecordedRequest, Recording

__all__ = ["MAX_RECORDING_BYTES", "Tape"]

MAX_RECORDING_BYTES = 16 * 1024 * 1024
"""What is kept of one answer. The longest answers of today have about a hundredth of that."""

_DIGITS = 6


class Tape:
    """Records one exchange. `max_bytes` is how much of its body."""

    def __init__(self, now: float, *, max_bytes: int = MAX_RECORDING_BYTES) -> None:
        self.size = 0
        """Bytes of the body that are kept."""
        self.is_full = False
        """The body had more than `max_bytes`."""
        self._max_bytes = max_bytes
        self._started = now
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._reads: list[Read] = []
        self._end: End | None = None
        self._duration = 0.0

    def sent(self, now: float) -> None:
        """The request was sent."""
        self._started = now

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response's head has come."""
        self._status, self._headers = status, dict(headers)

    def read(self, data: bytes, now: float) -> None:
        """Bytes of the body have come."""
        if self._end is not None or not data:
            return
        if self.size + len(data) > self._max_bytes:
            self.is_full = True
            self.end("cut", now)
            return
        self.size += len(data)
        self._reads.append(Read(self._since(now), data))

    def end(self, how: End, now: float) -> None:
        """The exchange is over; what is said after that is not heard."""
        if self._end is None:
            self._end, self._duration = how, self._since(now)

    def recording(self, request: RecordedRequest | None = None, *, name: str = "recording") -> Recording | None:
        """What was recorded; None if there was no response, not even its head. An exchange that is not over is cut."""
        if self._status is None:
            return None
        reads, end = tuple(self._reads), self._end or "cut"
        return Recording(request, self._status, self._headers, reads, end, self._duration, name)

    def _since(self, now: float) -> float:
        return max(0.0, round(now - self._started, _DIGITS))
