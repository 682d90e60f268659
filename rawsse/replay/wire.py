"""Turn an answer into a script for the wire: bytes, silences and an end, with faults of framing and of the network.

    script(answer, [Fault.parse("reset@event=1")])
    # (b"HTTP/1.1 200 OK\\r\\n…\\r\\n\\r\\n1f\\r\\nevent: …\\n\\n\\r\\n", End.RESET)

A script is a tuple of steps: bytes are one write, a number is a silence in seconds, an `End` is the last step. Then the
connection is closed. The silences of faults do not depend on `speed`; those of a recording are divided by it, and 0 omits
them. Framing is that of HTTP/1.1 (RFC 9112, 6 and 7.1).

The head has `connection: close` if the answer is complete. Nothing announces that a fault or the recording cuts it off.

`Wire` takes a connection over from `rawsse.server` to end it in ways that HTTP does not allow:

    wire = Wire(scope["extensions"]["rawsse.wire"])
    await wire.send(b"HTTP/1.1 200 OK\\r\\n")                # one write
    await wire.reset()                                      # or half_close(), or end()
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, groupby, product
from typing import TypeAlias

from rawsse.errors import ConfigurationError
from rawsse.http1 import ServerConnection
from rawsse.replay.answers import answer_of
from rawsse.replay.faults import End, Fault, Faults, edited, offset_of, read_faults, replacement
from rawsse.replay.recording import Read, Recording
from rawsse.replay.variants import Chunks, Split, cut_at, recut, split_by
from rawsse.server.connection import Connection

MAX_KEPT_MISPLACED = 100
"""How many of the last misplaced faults a `Schedule` keeps: the first is the most telling."""

log = logging.getLogger("rawsse.replay")

_SIOCOUTQNSD = 0x894B  # linux/sockios.h: "output queue size (not sent only)"
_UNSENT_SECONDS = 0.001
"""The first interval of polling for unsent bytes; it doubles each time. The system has no notification for this."""


class Stall(float):
    """The silence of a fault, in seconds. It is never shortened, even if the answer is late."""


Step: TypeAlias = bytes | float | End
Script: TypeAlias = tuple[Step, ...]

_Item: TypeAlias = Read | float | Fault
"""An item of an unfinished script: bytes and their time, a silence, or a fault."""


def script(
    answer: Recording,
    faults: Sequence[Fault] = (),
    *,
    method: str = "POST",
    http_version: str = "1.1",
    segments: Split | None = None,
    speed: float = 0.0,
) -> Script:
    """The steps of this answer on the wire. `segments` splits the bytes between two faults; each piece is one write.

    Faults that edit the body or replace the answer must already have been applied. Raises `ConfigurationError` for a fault
    at a place that the answer lacks.
    """
    is_cut = answer.end != "clean"
    body = _placed(answer.reads, faults, "byte", "event")
    body = list(_gzipped(body, None if is_cut else answer.duration)) if _has(faults, "gzip") else body
    # A failing peer does not announce it. Node's fetch takes a cut body for complete if the head announced a close.
    is_announced = not is_cut and not any(fault.needs_wire and fault.cuts for fault in faults)
    head = _head(replace(answer, headers=_headers(answer, faults, body)), method, http_version, close=is_announced)
    if method == "HEAD" or answer.status in (204, 304):
        body = [item for item in body if not isinstance(item, Read)]
    if b"\r\ntransfer-encoding: chunked\r\n" in head.lower():
        body = list(_chunked(body, None if is_cut or _has(faults, "no-last-chunk") else answer.duration))
    elif _has(faults, "bad-chunk-size", "no-last-chunk"):
        raise ConfigurationError("this answer has no chunk that could be wrong")
    before = _placed([Read(answer.reads[0].t if answer.reads else 0.0, head)], faults, "head")
    rate = next((fault.number for fault in faults if fault.kind == "slow-head"), None)
    items = [*_dripped(before, rate), *_dripped(body)] if rate else _joined(before, list(_dripped(body)))
    items = items if segments is None else list(_resegmented(items, split_by(segments)))
    return tuple(timed(items, speed, answer.duration))


def timed(items: Iterable[_Item], speed: float, duration: float) -> Iterator[Step]:
    """The steps of these items: the silences between reads, at this speed, and the remaining faults."""
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


def _placed(reads: Sequence[Read], faults: Iterable[Fault], *units: str) -> list[_Item]:
    """The reads, and between them the faults at places of these units; a read is split if a fault is inside it."""
    body = b"".join(read.data for read in reads)
    placed = [fault for fault in faults if fault.needs_wire and fault.place is not None and fault.place.unit in units]
    marks: list[tuple[int, _Item]] = [(offset_of(fault, body), fault) for fault in placed]
    ends = {at for at, _ in marks} | set(accumulate(len(read.data) for read in reads))
    position = 0
    for read in recut(reads, lambda data: cut_at(data, *sorted(ends))):
        marks.append((position, read))
        position += len(read.data)
    return [item for _, item in sorted(marks, key=lambda mark: mark[0])]  # faults come before the bytes after them


def _gzipped(items: Iterable[_Item], end: float | None) -> Iterator[_Item]:
    """RFC 1952, each read flushed, so that it can be decompressed as soon as it arrives. `end`: when the body ends; None: it is
    cut."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for item in items:
        if isinstance(item, Read):
            yield Read(item.t, compressor.compress(item.data) + compressor.flush(zlib.Z_SYNC_FLUSH))
        else:
            yield item
    if end is not None:
        yield Read(end, compressor.flush())


def _headers(answer: Recording, faults: Sequence[Fault], body: Iterable[_Item]) -> dict[str, str]:
    """The header fields with the body's length and coding, which faults may falsify."""
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


def _chunked(items: Iterable[_Item], end: float | None) -> Iterator[_Item]:
    """RFC 9112, 7.1: "chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF"; the last one has the size 0 and no data, and is
    sent at the time `end`, if at all."""
    wrong_size: str | None = None
    for item in (*items, *([] if end is None else [Read(end, b"")])):
        if isinstance(item, Read):
            size = f"{len(item.data):x}" if wrong_size is None else wrong_size
            wrong_size = None
            yield Read(item.t, b"%b\r\n%b\r\n" % (size.encode(), item.data))
        elif isinstance(item, Fault) and item.kind == "bad-chunk-size":
            wrong_size = str(item.value)
        else:
            yield item


def _dripped(items: Iterable[_Item], rate: float | None = None) -> Iterator[_Item]:
    """Byte by byte, with a silence before each, at `rate` bytes per second. `rate` is None until a `drip` sets it."""
    for item in items:
        if isinstance(item, Fault) and item.kind == "drip":
            rate = item.number
        elif rate is None or not isinstance(item, Read):
            yield item
        else:
            for byte in item.data:
                yield from (1 / rate, Read(item.t, bytes([byte])))


def _joined(head: list[_Item], body: list[_Item]) -> list[_Item]:
    """The head is sent with the first bytes of the body, as by the API, unless a fault is between them."""
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

    Raises `ConfigurationError` for a fault that is invalid, or that fits the answer of none of the recordings.
    """

    def __init__(self, faults: Faults = (), recordings: Sequence[Recording] = ()) -> None:
        self._faults = read_faults(faults)
        if self._faults:
            _require_places(self._faults, recordings)
        self._requests = 0
        self._left = [math.inf if fault.requests is None else fault.requests for fault in self._faults]
        self._happened, self._wanted = Counter[Fault](), Counter[Fault]()  # in how many answers
        for fault in self._faults:
            self._wanted[fault] = 1 if fault.requests is None else self._wanted[fault] + fault.requests
        self.unused = list(self._faults)
        """The faults that have not changed any answer yet."""
        self.hidden: dict[Fault, str] = {}
        """Why faults of an answer did not reach the client: most lie behind another one."""
        self.misplaced: list[str] = []
        """The error messages of the last faults that did not fit an answer."""

    def next(self) -> tuple[Fault, ...]:
        """The faults of the next request."""
        numbered = enumerate(self._faults)
        due = [index for index, fault in numbered if fault.skipped <= self._requests and self._left[index]]
        chosen = next((index for index in due if self._faults[index].row.answer is not None), None)
        if chosen is not None:
            waiting = [index for index in due if index != chosen and not _is_for_any_answer(self._faults[index])]
            due = [index for index in due if index not in waiting]
            for index in waiting if self._faults[chosen].requests is None else ():  # they wait forever
                self._hide(self._faults[index], f"it lies behind {self._faults[chosen]}, which replaces the answer")
        self._requests += 1
        for index in due:
            self._left[index] -= 1
        return tuple(self._faults[index] for index in due)

    def applied(self, faults: Sequence[Fault], answer: Recording) -> None:
        """These were applied to this answer, which none of them had edited yet."""
        if any(map(self._is_wanted, faults)):
            seen = _seen(faults, Recording() if replacement(faults) else answer)
            self._happened.update(seen)
            self.unused[:] = [fault for fault in self.unused if fault not in seen]
            end = next((fault for fault in seen if fault.cuts and fault.place), None)
            why = f"it lies behind {end}, which ends the answer" if end else "it changed nothing"
            for fault in filter(self._is_wanted, set(faults).difference(seen)):
                self._hide(fault, why)

    def _is_wanted(self, fault: Fault) -> bool:
        return self._happened[fault] < self._wanted[fault]

    def _hide(self, fault: Fault, why: str) -> None:
        if fault not in self.hidden:
            log.warning("the fault %s did not happen: %s", fault, why)
        self.hidden[fault] = why

    @property
    def begun(self) -> dict[Fault, str]:
        """The faults that changed some answers, but fewer than their `xN` says, and how many of them."""
        begun = ((fault, count) for fault, count in self._happened.items() if self._is_wanted(fault))
        return {fault: f"{count} of {self._wanted[fault]}" for fault, count in begun if count}

    def failed(self, error: ConfigurationError) -> None:
        """A fault did not fit an answer."""
        self.misplaced.append(str(error))
        del self.misplaced[:-MAX_KEPT_MISPLACED]


def _require_places(faults: Sequence[Fault], recordings: Sequence[Recording]) -> None:
    streams, others = ([answer_of(recording, is_stream=each) for recording in recordings] for each in (True, False))
    others += filter(None, [replacement(faults)])  # a fault may be in its head
    for fault in faults:
        of_events = fault.place is not None and fault.place.unit == "event"
        # Alone, or after the others: they may insert the event that it refers to.
        tried = product(streams if of_events else [*streams, *others], ([fault], faults))
        sent = (_sent(given, answer) for answer, given in tried)  # until the first answer that has the place
        if recordings and isinstance(error := next(sent, None), str) and all(isinstance(each, str) for each in sent):
            raise ConfigurationError(f"{error}: it can never happen")


def _sent(faults: Sequence[Fault], answer: Recording) -> Script | str:
    """The answer on the wire with these faults; an error message if they do not fit."""
    try:
        return script(edited(answer, faults), faults)
    except ConfigurationError as exc:
        return str(exc)


def _seen(faults: Sequence[Fault], answer: Recording) -> list[Fault]:
    """The faults without which other bytes would be sent; of several that do the same, the first."""

    def sent(faults: Sequence[Fault]) -> Script | str:
        return _sent(faults, replacement(faults) or answer)

    seen, with_all = list(faults), sent(faults)
    for fault in reversed(faults):
        others = [other for other in seen if other is not fault]
        if sent(others) == with_all:
            seen = others
    return seen


def _is_for_any_answer(fault: Fault) -> bool:
    """Whether it does not refer to events, bytes or chunks of the recording."""
    if fault.row.answer is not None or fault.kind == "no-last-chunk":
        return False
    return fault.place is None or fault.place.unit == "head"


# --- The connection --------------------------------------------------------------------------------------------------


class Wire:
    """The connection of one request, taken over from the server. The caller must `end` or `reset` it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport = connection.take_over()
        # Drain every byte to the system before continuing: a reset must not discard bytes in the transport's buffer.
        self._transport.set_write_buffer_limits(high=0)

    async def send(self, data: bytes) -> None:
        """Send `data` in one write, and wait until the system has accepted all of it. Raises `ClientDisconnectedError`."""
        self._transport.write(data)
        await self._connection.drain()

    def half_close(self) -> None:
        """Send FIN after all data. The client may still send."""
        self._transport.write_eof()

    def end(self) -> None:
        """Close the connection after all data, unless it is already closed."""
        if not self._connection.is_gone:
            self._connection.end()

    async def reset(self) -> None:
        """Send RST, which discards unsent data: wait for that first, for at most `linger_seconds`."""
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
        """Bytes that the system has not sent, because the client's window is full or small pieces are coalesced. Linux only."""
        if sys.platform != "linux":
            return 0
        import fcntl

        unsent = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), _SIOCOUTQNSD, bytes(4))
        return int.from_bytes(unsent, sys.byteorder)
