"""An answer as what happens on the wire: bytes, silences, and how it ends; with the faults of framing and of the network.

This file knows the framing of HTTP/1.1 (RFC 9112, 6 and 7.1) as far as it is to be broken, the pace, and in which order faults
are done. It refuses to know sockets and clocks: a script is data, and `player.py` and `fakes.py` perform it.

    script(answer, [Fault.reset(at_event=1)])
    # (b"HTTP/1.1 200 OK\\r\\n…\\r\\n\\r\\n1f\\r\\nevent: …\\n\\n\\r\\n", Act.RESET)

A script is a tuple of steps: bytes are one write, a number is so many seconds of silence, an `Act` is the last thing that
happens. Behind the last step the connection is closed. The seconds of a fault are waited for at any `speed`; those of a
recording are divided by it, and 0 leaves them out.

The head says `connection: close` if the answer comes whole. Nothing announces that a fault or the recording breaks it off.
"""

from __future__ import annotations

import enum
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from typing import TypeAlias

from rawsse.errors import ConfigurationError
from rawsse.http1 import ServerConnection
from rawsse.replay.breaking.edits import offset_of
from rawsse.replay.breaking.faults import Fault
from rawsse.replay.matching.answers import Answer
from rawsse.replay.recording import Read
from rawsse.replay.shaping.splits import Chunks


class Act(enum.Enum):
    """How a script may end, other than with a closed connection."""

    RESET = "the connection is reset"
    HALF_CLOSE = "the server says no more, and listens until the client leaves"
    HOLD = "nothing happens until the client leaves"


class Stall(float):
    """The silence of a fault, in seconds: whole, also where the answer is behind its times."""


Step: TypeAlias = bytes | float | Act
Script: TypeAlias = tuple[Step, ...]

_Item: TypeAlias = Read | float | Fault
"""What scripts are made of: bytes and their time, a silence, and a fault that stands at its place."""

_ENDS = frozenset({"reset", "close", "half-close", "stall"})
_PLACED = _ENDS | {"drip", "bad-chunk-size"}
_ON_THE_WIRE = _PLACED | {"slow-head", "no-last-chunk", "wrong-content-length"}
_CHUNK_FAULTS = frozenset({"bad-chunk-size", "no-last-chunk"})


def needs_wire(fault: Fault) -> bool:
    """The fault is one of framing or of the network: no ASGI server can do it, but for the extension of `rawsse.server`."""
    return fault.kind in _ON_THE_WIRE


def is_cutting(fault: Fault) -> bool:
    """A client that meets this fault has no whole answer, and may ask for it again."""
    return (needs_wire(fault) or fault.kind == "error") and not _is_mere_delay(fault)


def _is_mere_delay(fault: Fault) -> bool:
    return fault.kind in ("drip", "slow-head") or (fault.kind == "stall" and fault.value is not None)


def script(
    answer: Answer,
    faults: Sequence[Fault] = (),
    *,
    method: str = "POST",
    http_version: str = "1.1",
    segments: Callable[[bytes], Chunks] | None = None,
    speed: float = 0.0,
) -> Script:
    """What happens on the wire for this answer. `segments` cuts the bytes between two faults; each piece is one write.

    Events and bytes of the body have been edited before. Raises `ConfigurationError` for a fault that has no place.
    """
    body = _coded_body(answer, faults)
    # A peer that fails does not say so before. Node's fetch takes a cut body for a whole one where the head announced a close.
    is_announced = not answer.is_cut and all(_is_mere_delay(fault) or not needs_wire(fault) for fault in faults)
    headed = replace(answer, headers=_headers(answer, faults, body))
    wire_head = _head(headed, method, http_version, close=is_announced)
    if method == "HEAD" or answer.status in (204, 304):
        body = [item for item in body if not isinstance(item, Read)]
    started = answer.reads[0].t if answer.reads else 0.0
    before_body = _with_head_faults(Read(started, wire_head), faults)
    body = _dripped(_framed(body, wire_head, answer, faults))
    items = before_body + body if _has(faults, "slow-head") else _joined(before_body, body)
    return tuple(_steps(items if segments is None else _resegmented(items, segments), speed, answer.duration))


def coded(answer: Answer, faults: Iterable[Fault]) -> Answer:
    """The answer compressed, if a fault says so."""
    if not _has(faults, "gzip"):
        return answer
    body = _coded_body(answer, [fault for fault in faults if fault.kind == "gzip"])
    reads = tuple(item for item in body if isinstance(item, Read))
    return replace(answer, headers=_headers(answer, faults, body), reads=reads)


def recut(reads: Sequence[Read], cut: Callable[[bytes], Chunks]) -> tuple[Read, ...]:
    """The same bytes in other pieces. Each goes out when its last byte did."""
    ends = list(accumulate(len(read.data) for read in reads))
    pieces = [piece for piece in cut(b"".join(read.data for read in reads)) if piece]
    last_bytes = accumulate(len(piece) for piece in pieces)
    return tuple(Read(reads[bisect_left(ends, end)].t, piece) for end, piece in zip(last_bytes, pieces, strict=True))


def _has(faults: Iterable[Fault], kind: str) -> bool:
    return any(fault.kind == kind for fault in faults)


# --- The body ----------------------------------------------------------------------------------------------------------


def _coded_body(answer: Answer, faults: Iterable[Fault]) -> list[_Item]:
    """The body, compressed if a fault says so, with the faults of the wire in their places."""
    body = _placed(answer.reads, [fault for fault in faults if _is_in_the_body(fault)])
    return _gzipped(body, is_cut=answer.is_cut) if _has(faults, "gzip") else body


def _is_in_the_body(fault: Fault) -> bool:
    return fault.kind in _PLACED and fault.place is not None and fault.place.unit != "head"


def _placed(reads: Sequence[Read], faults: Iterable[Fault]) -> list[_Item]:
    """The reads with the faults between them, cut where a fault stands within one."""
    body = b"".join(read.data for read in reads)
    marks = deque(sorted(((offset_of(fault, body), fault) for fault in faults), key=lambda mark: mark[0]))
    items: list[_Item] = []
    at = 0
    for read in reads:
        data = read.data
        while marks and marks[0][0] < at + len(data):
            offset, fault = marks.popleft()
            items += [Read(read.t, data[: offset - at]), fault]
            data, at = data[offset - at :], offset
        items.append(Read(read.t, data))
        at += len(data)
    items += [fault for _, fault in marks]
    return [item for item in items if not isinstance(item, Read) or item.data]


def _gzipped(items: Iterable[_Item], *, is_cut: bool) -> list[_Item]:
    """RFC 1952, each read flushed so that all of it can be decompressed as soon as it came."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    coded: list[_Item] = []
    last = 0.0
    for item in items:
        if isinstance(item, Read):
            last = item.t
            coded.append(Read(last, compressor.compress(item.data) + compressor.flush(zlib.Z_SYNC_FLUSH)))
        else:
            coded.append(item)
    return coded if is_cut else [*coded, Read(last, compressor.flush())]


# --- Framing -----------------------------------------------------------------------------------------------------------


def _headers(answer: Answer, faults: Iterable[Fault], body: Iterable[_Item]) -> dict[str, str]:
    """The header fields that tell the body's length and coding, true or false as the faults want it."""
    headers = dict(answer.headers)
    size = sum(len(item.data) for item in body if isinstance(item, Read))
    for fault in faults:
        if fault.kind == "gzip":
            headers["content-encoding"] = "gzip"
        elif fault.kind in _CHUNK_FAULTS:
            headers.pop("content-length", None)
    if "content-length" in headers:
        headers["content-length"] = str(size)
    for fault in faults:
        if fault.kind == "wrong-content-length":
            announced = size + int(fault.value or 0)
            if announced < 0:
                raise ConfigurationError(f"{fault} has no place in this answer, whose body has {size} bytes")
            headers["content-length"] = str(announced)
    return headers


def _head(answer: Answer, method: str, http_version: str, *, close: bool) -> bytes:
    http = ServerConnection()
    # Whether a body may be chunked goes by the request.
    http.receive_data(f"{method} / HTTP/{http_version}\r\nhost: replay\r\n\r\n".encode())
    http.next_event()
    return http.send_response(answer.status, list(answer.headers.items()), close=close)


def _framed(body: list[_Item], wire_head: bytes, answer: Answer, faults: Sequence[Fault]) -> list[_Item]:
    """The body in chunks, if the head says so."""
    if b"\r\ntransfer-encoding: chunked\r\n" in wire_head.lower():
        return _chunked(body, answer.duration, has_last=not (answer.is_cut or _has(faults, "no-last-chunk")))
    if any(fault.kind in _CHUNK_FAULTS for fault in faults):
        raise ConfigurationError("a chunk cannot be wrong in this answer, which has none")
    return body


def _chunked(items: Iterable[_Item], duration: float, *, has_last: bool) -> list[_Item]:
    """RFC 9112, 7.1: "chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF"; the last one has the size 0 and no data."""
    framed: list[_Item] = []
    wrong_size, last = None, 0.0
    for item in items:
        if isinstance(item, Read):
            size = f"{len(item.data):x}" if wrong_size is None else wrong_size
            wrong_size, last = None, item.t
            framed.append(Read(last, b"%b\r\n%b\r\n" % (size.encode(), item.data)))
        elif isinstance(item, Fault) and item.kind == "bad-chunk-size":
            wrong_size = str(item.value)
        else:
            framed.append(item)
    if has_last:
        size = "0" if wrong_size is None else wrong_size
        framed.append(Read(max(last, duration), b"%b\r\n\r\n" % size.encode()))
    return framed


# --- The wire ------------------------------------------------------------------------------------------------------------


def _with_head_faults(head: Read, faults: Sequence[Fault]) -> list[_Item]:
    """The head with the faults before it and in it."""
    in_head = [fault for fault in faults if fault.place is not None and fault.place.unit == "head"]
    rate = next((float(fault.value or 0) for fault in faults if fault.kind == "slow-head"), None)
    return list(_spread(_placed([head], in_head), rate))


def _dripped(items: Iterable[_Item]) -> list[_Item]:
    dripped: list[_Item] = []
    rate: float | None = None
    for item in items:
        if isinstance(item, Fault) and item.kind == "drip":
            rate = float(item.value or 0)
        else:
            dripped += _spread([item], rate)
    return dripped


def _spread(items: Iterable[_Item], bytes_per_second: float | None) -> Iterator[_Item]:
    """Byte by byte, if there is a rate, with a silence before each."""
    for item in items:
        if isinstance(item, Read) and bytes_per_second:
            for byte in item.data:
                yield 1 / bytes_per_second
                yield Read(item.t, bytes([byte]))
        else:
            yield item


def _joined(head: list[_Item], body: list[_Item]) -> list[_Item]:
    """The head goes out with the first bytes of the body, as the API's does, unless a fault keeps them apart."""
    last, first = head[-1], body[0] if body else None
    if isinstance(last, Read) and isinstance(first, Read):
        return [*head[:-1], Read(first.t, last.data + first.data), *body[1:]]
    return head + body


def _resegmented(items: Iterable[_Item], cut: Callable[[bytes], Chunks]) -> list[_Item]:
    found: list[_Item] = []
    for is_data, group in groupby(items, lambda item: isinstance(item, Read)):
        run = list(group)
        found += recut([item for item in run if isinstance(item, Read)], cut) if is_data else run
    return found


def _steps(items: Iterable[_Item], speed: float, duration: float) -> Iterator[Step]:
    before = 0.0
    for item in items:
        if isinstance(item, Read):
            if speed and item.t > before:
                yield (item.t - before) / speed
            before = item.t
            yield item.data
        elif isinstance(item, float):
            yield item
        elif item.kind == "stall" and item.value is not None:
            yield Stall(item.value)
        else:
            if act := _ACTS.get(item.kind):
                yield act
            return
    if speed and duration > before:
        yield (duration - before) / speed


_ACTS: Mapping[str, Act] = {"reset": Act.RESET, "half-close": Act.HALF_CLOSE, "stall": Act.HOLD}
