"""Turn an answer into a script for the wire: bytes, silences and an end, with the faults of framing and of the network.

    script(answer, [Fault.parse("reset@event=1")])
    # (b"HTTP/1.1 200 OK\\r\\n…\\r\\n\\r\\n1f\\r\\nevent: …\\n\\n\\r\\n", End.RESET)

A script is a tuple of steps: bytes are one write, a number is so many seconds of silence, an `End` is the last step. After the
last step the connection is closed. The seconds of a fault are waited for at any `speed`; those of a recording are divided by
it, and 0 leaves them out. Framing is that of HTTP/1.1 (RFC 9112, 6 and 7.1).

The head has `connection: close` if the answer comes whole. Nothing announces that a fault or the recording breaks it off.

`Wire` takes a connection over from `rawsse.server`, to end it in ways that HTTP does not allow:

    wire = Wire(scope["extensions"]["rawsse.wire"])
    await wire.send(b"HTTP/1.1 200 OK\\r\\n")                # one write
    await wire.reset()                                      # or half_close(), or end()
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, product
from typing import TypeAlias

from rawsse.errors import ConfigurationError
from rawsse.http1 import ServerConnection
from rawsse.replay.answers import answer_of
from rawsse.replay.faults import End, Fault, Faults, edited, offset_of, read_faults, replacement
from rawsse.replay.recording import Read, Recording
from rawsse.replay.variants import Chunks, recut
from rawsse.server.connection import Connection

MAX_KEPT_MISPLACED = 100
"""How many of the last faults without a place a `Schedule` remembers: the first one tells most."""

_SIOCOUTQNSD = 0x894B  # linux/sockios.h: "output queue size (not sent only)"
_UNSENT_SECONDS = 0.001
"""The first wait before the unsent bytes are looked up again; it doubles each time. The system reports no change."""


class Stall(float):
    """The silence of a fault, in seconds. It is not shortened where the answer is behind its times."""


Step: TypeAlias = bytes | float | End
Script: TypeAlias = tuple[Step, ...]

_Item: TypeAlias = Read | float | Fault
"""A piece of an unfinished script: bytes and their time, a silence, or a fault at its place."""


def script(
    answer: Recording,
    faults: Sequence[Fault] = (),
    *,
    method: str = "POST",
    http_version: str = "1.1",
    segments: Callable[[bytes], Chunks] | None = None,
    speed: float = 0.0,
) -> Script:
    """The steps of this answer on the wire. `segments` cuts the bytes between two faults; each piece is one write.

    Faults that edit the body or replace the answer have been applied before. Raises `ConfigurationError` for a fault whose
    place the answer does not have.
    """
    is_cut = answer.end != "clean"
    placed = [fault for fault in faults if fault.needs_wire and fault.place is not None]
    body = list(_placed(answer.reads, [fault for fault in placed if fault.place and fault.place.unit != "head"]))
    body = list(_gzipped(body, is_cut=is_cut)) if _has(faults, "gzip") else body
    # A peer that fails does not announce it. Node's fetch takes a cut body for a whole one if the head announced a close.
    is_announced = not is_cut and not any(fault.needs_wire and fault.cuts for fault in faults)
    head = _head(replace(answer, headers=_headers(answer, faults, body)), method, http_version, close=is_announced)
    if method == "HEAD" or answer.status in (204, 304):
        body = [item for item in body if not isinstance(item, Read)]
    if b"\r\ntransfer-encoding: chunked\r\n" in head.lower():
        body = list(_chunked(body, answer.duration, has_last=not (is_cut or _has(faults, "no-last-chunk"))))
    elif _has(faults, "bad-chunk-size", "no-last-chunk"):
        raise ConfigurationError("a chunk cannot be wrong in this answer, which has none")
    before = Read(answer.reads[0].t if answer.reads else 0.0, head)
    in_head = list(_placed([before], [fault for fault in placed if fault.place and fault.place.unit == "head"]))
    rate = next((fault.number for fault in faults if fault.kind == "slow-head"), None)
    dripped = list(_dripped(body))
    items = _joined(in_head, dripped) if rate is None else [*_dripped(in_head, rate), *dripped]
    return tuple(timed(items if segments is None else _resegmented(items, segments), speed, answer.duration))


def timed(items: Iterable[_Item], speed: float, duration: float) -> Iterator[Step]:
    """The steps of these items: the silences between the reads, at this speed, and the faults that are left."""
    before = 0.0
    for item in items:
        if isinstance(item, Read):
            if speed and item.t > before:
                yield (item.t - before) / speed
            before = item.t
            yield item.data
        elif isinstance(item, float):
            yield item
        elif not item.cuts:
            yield Stall(item.number)
        else:
            if (end := item.row.end) is not None and end is not End.CLOSE:
                yield end
            return
    if speed and duration > before:
        yield (duration - before) / speed


def _has(faults: Iterable[Fault], *kinds: str) -> bool:
    return any(fault.kind in kinds for fault in faults)


def _placed(reads: Sequence[Read], faults: Iterable[Fault]) -> Iterator[_Item]:
    """The reads with the faults between them, cut where a fault stands within one."""
    body = b"".join(read.data for read in reads)
    marks = deque(sorted(((offset_of(fault, body), fault) for fault in faults), key=lambda mark: mark[0]))
    at = 0
    for read in reads:
        data = read.data
        while marks and marks[0][0] < at + len(data):
            offset, fault = marks.popleft()
            if offset > at:
                yield Read(read.t, data[: offset - at])
            yield fault
            data, at = data[offset - at :], offset
        if data:
            yield Read(read.t, data)
        at += len(data)
    yield from (fault for _, fault in marks)


def _gzipped(items: Iterable[_Item], *, is_cut: bool) -> Iterator[_Item]:
    """RFC 1952, each read flushed so that all of it can be decompressed as soon as it has come."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    last = 0.0
    for item in items:
        if isinstance(item, Read):
            last = item.t
            yield Read(last, compressor.compress(item.data) + compressor.flush(zlib.Z_SYNC_FLUSH))
        else:
            yield item
    if not is_cut:
        yield Read(last, compressor.flush())


def _headers(answer: Recording, faults: Sequence[Fault], body: Iterable[_Item]) -> dict[str, str]:
    """The header fields with the length and the coding of the body, true or false as the faults say."""
    headers = dict(answer.headers)
    size = sum(len(item.data) for item in body if isinstance(item, Read))
    if _has(faults, "gzip"):
        headers["content-encoding"] = "gzip"
    if _has(faults, "bad-chunk-size", "no-last-chunk"):
        headers.pop("content-length", None)
    if "content-length" in headers:
        headers["content-length"] = str(size)
    for fault in faults:
        if fault.kind == "wrong-content-length":
            announced = size + int(fault.number)
            if announced < 0:
                raise ConfigurationError(f"{fault} has no place in this answer, whose body has {size} bytes")
            headers["content-length"] = str(announced)
    return headers


def _head(answer: Recording, method: str, http_version: str, *, close: bool) -> bytes:
    http = ServerConnection()
    # Whether a body may be chunked depends on the request.
    http.receive_data(f"{method} / HTTP/{http_version}\r\nhost: replay\r\n\r\n".encode())
    http.next_event()
    return http.send_response(answer.status, list(answer.headers.items()), close=close)


def _chunked(items: Iterable[_Item], duration: float, *, has_last: bool) -> Iterator[_Item]:
    """RFC 9112, 7.1: "chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF"; the last one has the size 0 and no data."""
    wrong_size, last = None, 0.0
    for item in items:
        if isinstance(item, Read):
            size = f"{len(item.data):x}" if wrong_size is None else wrong_size
            wrong_size, last = None, item.t
            yield Read(last, b"%b\r\n%b\r\n" % (size.encode(), item.data))
        elif isinstance(item, Fault) and item.kind == "bad-chunk-size":
            wrong_size = str(item.value)
        else:
            yield item
    if has_last:
        size = "0" if wrong_size is None else wrong_size
        yield Read(max(last, duration), b"%b\r\n\r\n" % size.encode())


def _dripped(items: Iterable[_Item], rate: float | None = None) -> Iterator[_Item]:
    """Byte by byte, with a silence before each, at `rate` bytes per second; None until a `drip` sets it."""
    for item in items:
        if isinstance(item, Fault) and item.kind == "drip":
            rate = item.number
        elif rate is None or not isinstance(item, Read):
            yield item
        else:
            for byte in item.data:
                yield from (1 / rate, Read(item.t, bytes([byte])))


def _joined(head: list[_Item], body: list[_Item]) -> list[_Item]:
    """The head goes out with the first bytes of the body, as the API's does, unless a fault keeps them apart."""
    last, first = head[-1], body[0] if body else None
    if isinstance(last, Read) and isinstance(first, Read):
        return [*head[:-1], Read(first.t, last.data + first.data), *body[1:]]
    return head + body


def _resegmented(items: Iterable[_Item], cut: Callable[[bytes], Chunks]) -> Iterator[_Item]:
    for is_data, group in groupby(items, lambda item: isinstance(item, Read)):
        run = list(group)
        yield from recut([item for item in run if isinstance(item, Read)], cut) if is_data else run


# --- Which faults a request has --------------------------------------------------------------------------------------


class Schedule:
    """The faults of a server, request by request.

    Raises `ConfigurationError` for a fault that is invalid, or has no place in the answer of any of the recordings.
    """

    def __init__(self, faults: Faults = (), recordings: Sequence[Recording] = ()) -> None:
        self._faults = read_faults(faults)
        if self._faults:
            _require_places(self._faults, recordings)
        self._requests = 0
        self._had = [0] * len(self._faults)  # how many requests had each
        self.unused = list(self._faults)
        """Those that have not been applied to any answer so far."""
        self.misplaced: list[str] = []
        """The error messages of the last ones that had no place in an answer."""

    def next(self) -> tuple[Fault, ...]:
        """The faults of the next request."""
        due = [
            index
            for index, fault in enumerate(self._faults)
            if fault.skipped <= self._requests and (fault.requests is None or self._had[index] < fault.requests)
        ]
        chosen = next((index for index in due if self._faults[index].row.answer is not None), None)
        if chosen is not None:
            due = [index for index in due if index == chosen or _is_for_any_answer(self._faults[index])]
        self._requests += 1
        for index in due:
            self._had[index] += 1
        return tuple(self._faults[index] for index in due)

    def applied(self, faults: Sequence[Fault]) -> None:
        """These were applied to an answer."""
        self.unused[:] = [fault for fault in self.unused if fault not in faults]

    def failed(self, error: ConfigurationError) -> None:
        """A fault had no place in an answer."""
        self.misplaced.append(str(error))
        del self.misplaced[:-MAX_KEPT_MISPLACED]


def _require_places(faults: Sequence[Fault], recordings: Sequence[Recording]) -> None:
    streams, others = ([answer_of(recording, is_stream=each) for recording in recordings] for each in (True, False))
    others += filter(None, [replacement(faults)])  # it has a head, where a fault may be
    for fault in faults:
        of_events = fault.place is not None and fault.place.unit == "event"
        # Alone, or after the others: they may insert the event that it is about.
        tried = product(streams if of_events else [*streams, *others], ([fault], faults))
        errors = (_misplaced(given, answer) for answer, given in tried)  # until the first answer that has the place
        if recordings and (error := next(errors, "")) and all(errors):
            raise ConfigurationError(f"{error}: it can never happen")


def _misplaced(faults: Sequence[Fault], answer: Recording) -> str:
    """The error of these faults in that answer; "" if they have a place."""
    try:
        script(edited(answer, faults), faults)
    except ConfigurationError as exc:
        return str(exc)
    return ""


def _is_for_any_answer(fault: Fault) -> bool:
    """It does not concern the events, bytes or chunks of the recording."""
    if fault.row.answer is not None or fault.kind == "no-last-chunk":
        return False
    return fault.place is None or fault.place.unit == "head"


# --- The connection --------------------------------------------------------------------------------------------------


class Wire:
    """The connection of one request, taken over from the server. The caller must `end` or `reset` it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport = connection.take_over()
        # The client counts as behind until the system has taken every byte: no reset can overtake one in our own buffer.
        self._transport.set_write_buffer_limits(high=0)

    async def send(self, data: bytes) -> None:
        """Send `data` in one write, and wait until the system has taken all of it. Raises `ClientDisconnectedError`."""
        self._transport.write(data)
        await self._connection.drain()

    def half_close(self) -> None:
        """Send FIN after all data. The client may still send."""
        self._transport.write_eof()

    def end(self) -> None:
        """Close the connection after all data, unless it is closed already."""
        if not self._connection.is_gone:
            self._connection.end()

    async def reset(self) -> None:
        """Send RST. It discards what the system has not sent yet, so that is waited for, for `linger_seconds` at most."""
        now = asyncio.get_running_loop().time
        seconds, deadline = _UNSENT_SECONDS, now() + self._connection.limits.linger_seconds
        while not self._connection.is_gone and self._unsent_bytes() and (left := deadline - now()) > 0:
            await asyncio.sleep(min(seconds, left))
            seconds *= 2
        if not self._connection.is_gone:
            # l_onoff 1, l_linger 0: close() then resets the connection (socket(7)).
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._connection.abort()

    def _unsent_bytes(self) -> int:
        """Bytes that the system has not sent: the client's window is full, or it gathers small pieces. Known on Linux only."""
        if sys.platform != "linux":
            return 0
        import fcntl

        unsent = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), _SIOCOUTQNSD, bytes(4))
        return int.from_bytes(unsent, sys.byteorder)
