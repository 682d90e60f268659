"""An exchange while it is being recorded: what came, and when.

This file knows how the moments of an exchange become a recording. It refuses to know clocks (`now` is an argument), files, and
what the bytes mean.

    tape = Tape(now)
    tape.sent(now)                          # times count from here
    tape.head(200, {"content-type": "text/event-stream"})
    tape.read(b"event: ping\\n…", now)
    tape.end("clean", now)
    tape.recording(request)                 # None if no answer had begun

One `read` is one read of the recording, and is played as one HTTP chunk in one write. It is what one read of the network
brought of the body, without TLS and without the framing: HTTP chunks that came together are one read, and a chunk that came in
two pieces is two. Times are in whole microseconds.

Above `max_bytes` nothing more is kept. What came until then is kept as `cut` there: no part is ever played as the whole.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping

from rawsse.replay.recording import End, Read, RecordedRequest, Recording

MAX_RECORDING_BYTES = 16 * 1024 * 1024
"""What is kept of one answer. The longest answers of today have about a hundredth of that."""

_DIGITS = 6


class Tape:
    """Records one exchange. `max_bytes` is how much of its body."""

    def __init__(self, now: float, *, max_bytes: int = MAX_RECORDING_BYTES) -> None:
        self.is_full = False
        """There was more than could be kept."""
        self._max_bytes = max_bytes
        self._started = now
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        # Not a list of reads: 500 short ones take a third more memory, and who records failures throws most streams away.
        self._body = bytearray()
        self._times = array("d")
        self._ends = array("Q")
        self._end: End | None = None
        self._duration = 0.0

    @property
    def size(self) -> int:
        """Bytes of the body that are kept."""
        return len(self._body)

    @property
    def is_over(self) -> bool:
        """Nothing more is kept."""
        return self._end is not None

    def sent(self, now: float) -> None:
        """The request was sent."""
        self._started = now

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response's head has come."""
        self._status, self._headers = status, dict(headers)

    def read(self, data: bytes, now: float) -> None:
        """Bytes of the body have come."""
        if self.is_over or not data:
            return
        if self.size + len(data) > self._max_bytes:
            self.overflow(now)
            return
        self._body += data
        self._times.append(self._since(now))
        self._ends.append(len(self._body))

    def overflow(self, now: float) -> None:
        """More has come than can be kept: what there is, is cut here."""
        self.is_full = True
        self.end("cut", now)

    def end(self, how: End, now: float) -> None:
        """The exchange is over; what is said after that is not heard."""
        if not self.is_over:
            self._end, self._duration = how, self._since(now)

    def recording(self, request: RecordedRequest | None = None, *, name: str = "recording") -> Recording | None:
        """What was recorded; None if there was no response, not even its head. An exchange that is not over is cut."""
        if self._status is None:
            return None
        end = self._end or "cut"
        return Recording(request, self._status, self._headers, tuple(self._reads()), end, self._duration, name)

    def _reads(self) -> Iterator[Read]:
        start = 0
        for t, end in zip(self._times, self._ends, strict=True):
            yield Read(t, bytes(self._body[start:end]))
            start = end

    def _since(self, now: float) -> float:
        return max(0.0, round(now - self._started, _DIGITS))
