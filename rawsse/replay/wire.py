"""Faults of an answer itself: another answer in its place, and events or bytes that are missing, twice, or spoilt.


    replacement(faults)          # the answer that comes instead; None if none does
    edited(answer, faults)       # the answer as these faults leave it
    offset_of(fault, body)       # after how many bytes of the body its place is

What is put in goes out with the bytes that it stands before; all others keep their reads and times.


An answer as what happens on the wire: bytes, silences, and how it ends; with the faults of framing and of the network.


    script(answer, [Fault.reset(at_event=1)])
    # (b"HTTP/1.1 200 OK\r\n…\r\n\r\n1f\r\nevent: …\n\n\r\n", Act.RESET)

A script is a tuple of steps: bytes are one write, a number is so many seconds of silence, an `Act` is the last thing that
happens. Behind the last step the connection is closed. The seconds of a fault are waited for at any `speed`; those of a
recording are divided by it, and 0 leaves them out.

The head says `connection: close` if the answer comes whole. Nothing announces that a fault or the recording breaks it off.


Whose turn a fault is: which faults the next request has, and which have had none so far.


    schedule = Schedule(["status=529 x1", "reset@event=3 x1"], recordings)
    schedule.next()                      # (status=529,type=overloaded_error x1,)
    schedule.next()                      # (reset@event=3 x1,)
    schedule.applied(faults)             # they had a place; else schedule.misplace(words)
    schedule.unused                      # those that were never applied

`after=N` counts requests, `xN` those that have the fault. Only one answer can come instead of the recorded one, and where one
does, there is none of the events and bytes that other faults are about: such a fault waits for the next request.


A response as bytes on its connection, which may end in ways that HTTP does not allow.

wire = Wire(scope["extensions"]["rawsse.wire"])         # from `rawsse.server`
await wire.send(b"HTTP/1.1 200 OK\r\n")                # one write
await wire.reset()                                      # or half_close(), or end()
"""

from __future__ import annotations

import asyncio
import enum
import json
import re
import socket
import struct
import sys
import zlib
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from itertools import accumulate, groupby, product
from typing import TypeAlias

from rawsse.errors import ConfigurationError, stream_error
from rawsse.http1 import ServerConnection
from rawsse.replay.answers import Answer, Repertoire, error_answer
from rawsse.replay.faults import Fault, Place
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.replay.splits import Chunks, by_event
from rawsse.server.connection import Connection

# --- breaking/edits


_MESSAGES: Mapping[str, str] = {
    "api_error": "Internal server error",
    "overloaded_error": "Overloaded",
    "timeout_error": "Request timed out",
    "rate_limit_error": "This request would exceed the rate limit for your organization",
}

_DATA = re.compile(rb"(?:\A|(?<=[\r\n]))data: ?")

Splice: TypeAlias = tuple[int, int, bytes]
"""These bytes, from the one number to the other, become those."""


# --- Another answer ----------------------------------------------------------------------------------------------------


def replacement(faults: Iterable[Fault]) -> Answer | None:
    """What the first fault that is an answer of its own says; None if there is none."""
    return next((_REPLACEMENTS[fault.kind](fault) for fault in faults if fault.kind in _REPLACEMENTS), None)


def is_replacement(fault: Fault) -> bool:
    """It is an answer of its own."""
    return fault.kind in _REPLACEMENTS


def _status(fault: Fault) -> Answer:
    fields = dict(fault.fields)
    kind = fields.pop("type")
    answer = error_answer(_code(fault), kind, fields.pop("message", _message(kind)))
    # A client shall try again as it would in life, unless the fault says otherwise.
    headers = {name: value for name, value in answer.headers.items() if name != "x-should-retry"}
    return replace(answer, headers=headers | fields)


def _html(fault: Fault) -> Answer:
    code = _code(fault)
    phrase = next((status.phrase for status in HTTPStatus if status.value == code), "")
    title = f"{code} {phrase}".strip()
    lines = ("<html>", f"<head><title>{title}</title></head>", "<body>", f"<center><h1>{title}</h1></center>")
    page = "\r\n".join([*lines, "<hr><center>nginx</center>", "</body>", "</html>", ""]).encode()
    headers = {"server": "nginx", "content-type": "text/html", "content-length": str(len(page))}
    return Answer(code, headers, (Read(0.0, page),))


def _redirect(fault: Fault) -> Answer:
    return Answer(_code(fault), {**dict(fault.fields), "content-length": "0"})


def _code(fault: Fault) -> int:
    return int(fault.value or 0)


def _message(kind: str) -> str:
    return _MESSAGES.get(kind, "This is a fault, made for a test")


_REPLACEMENTS: Mapping[str, Callable[[Fault], Answer]] = {"status": _status, "html": _html, "redirect": _redirect}


# --- Events and bytes --------------------------------------------------------------------------------------------------


def edited(answer: Answer, faults: Iterable[Fault]) -> Answer:
    """The answer with its events and bytes as these faults leave them, one after the other.

    Raises `ConfigurationError` for a fault that has no place in it.
    """
    for fault in faults:
        if fault.kind == "error" and not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer = _error_status(fault)
        elif fault.kind in _EDITS:
            body = b"".join(read.data for read in answer.reads)
            answer = _spliced(answer, _EDITS[fault.kind](fault, body))
            if fault.kind == "error":  # the body then ends, also if the recording was cut, or went on
                answer = replace(answer, is_cut=False, duration=0.0)
    return answer


def offset_of(fault: Fault, body: bytes) -> int:
    """After how many of these bytes, a body or a head, the place of a fault is. One behind the last is a place, too: after all.

    Raises `ConfigurationError` if there is no such place.
    """
    place = fault.place or Place("byte", 0)
    ends: Sequence[int] = range(len(body) + 1)
    if place.unit == "event":
        ends = [0, *accumulate(len(event) for event in by_event(body))]
    count = len(ends) - 1
    index = place.index + count if place.index < 0 else place.index
    if not 0 <= index <= count:
        has = {"event": "events", "byte": "bytes of body", "head": "bytes of head"}[place.unit]
        raise ConfigurationError(f"{fault} has no place in this answer, which has {count} {has}")
    return ends[index]


def _span(fault: Fault, body: bytes) -> tuple[int, int]:
    """Where the event of a fault begins and ends."""
    start = offset_of(fault, body)
    event = next(iter(by_event(body[start:])), None)
    if event is None:
        raise ConfigurationError(f"{fault} has no place in this answer, which has no such event")
    return start, start + len(event)


def _drop(fault: Fault, body: bytes) -> Splice:
    return *_span(fault, body), b""


def _duplicate(fault: Fault, body: bytes) -> Splice:
    start, end = _span(fault, body)
    return end, end, body[start:end]


def _swap(fault: Fault, body: bytes) -> Splice:
    start, middle = _span(fault, body)
    after = next(iter(by_event(body[middle:])), None)
    if after is None:
        raise ConfigurationError(f"{fault} has no place in this answer, in which no event comes after that one")
    return start, middle + len(after), after + body[start:middle]


def _garble(fault: Fault, body: bytes) -> Splice:
    start, end = _span(fault, body)
    found = _DATA.search(body, start, end)
    at = found.end() if found else start
    return at, at + 1, b"#"


def _bad_utf8(fault: Fault, body: bytes) -> Splice:
    at = offset_of(fault, body)
    if fault.place is not None and fault.place.unit == "event":
        start, end = _span(fault, body)
        at = max(start, body.rfind(b'"', start, end))
    return at, at, b"\xff"


def _oversized_line(fault: Fault, body: bytes) -> Splice:
    at = offset_of(fault, body)
    before, after = b'data: {"type": "ping", "padding": "', b'"}'
    padding = b"x" * (int(fault.value or 0) - len(before) - len(after))
    return at, at, b"event: ping\n" + before + padding + after + b"\n\n"


def _error(fault: Fault, body: bytes) -> Splice:
    data = json.dumps(_error_body(fault), ensure_ascii=False, separators=(",", ":"))
    return offset_of(fault, body), len(body), f"event: error\ndata: {data}\n\n".encode()


def _error_body(fault: Fault) -> dict[str, object]:
    kind = str(fault.value)
    message = dict(fault.fields).get("message", _message(kind))
    return {"type": "error", "error": {"details": None, "type": kind, "message": message}}


def _error_status(fault: Fault) -> Answer:
    """What the API says to a request without `stream`, where a stream would have had an `error` event."""
    code = stream_error(_error_body(fault), {}).status_code
    message = dict(fault.fields).get("message")
    return _status(Fault.status(code, type=str(fault.value), message=message))


_EDITS: Mapping[str, Callable[[Fault, bytes], Splice]] = {
    "drop": _drop,
    "duplicate": _duplicate,
    "swap": _swap,
    "garble": _garble,
    "bad-utf8": _bad_utf8,
    "oversized-line": _oversized_line,
    "error": _error,
}


def _spliced(answer: Answer, splice: Splice) -> Answer:
    """The answer with some bytes of its body replaced. What is new goes out with what stood there."""
    start, end, new = splice
    reads: list[Read] = []
    at, is_due = 0, bool(new)
    for read in answer.reads:
        kept = read.data[: max(0, start - at)]
        if is_due and start < at + len(read.data):
            kept, is_due = kept + new, False
        reads.append(Read(read.t, kept + read.data[max(0, end - at) :]))
        at += len(read.data)
    if is_due:
        reads.append(Read(reads[-1].t if reads else 0.0, new))
    size = sum(len(read.data) for read in reads)
    headers = {**answer.headers, "content-length": str(size)} if "content-length" in answer.headers else answer.headers
    return replace(answer, headers=headers, reads=tuple(read for read in reads if read.data))


# --- breaking/script


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


# --- breaking/schedule


MAX_KEPT_MISPLACED = 100
"""How many of the last faults without a place a `Schedule` remembers: the first one tells most."""

Faults: TypeAlias = Fault | str | Iterable[Fault | str]
"""Faults, or how they are written; or one of them."""


def read_faults(faults: Faults) -> tuple[Fault, ...]:
    """All of them as values. Raises `ConfigurationError`."""
    given = [faults] if isinstance(faults, Fault | str) else faults
    return tuple(Fault.parse(fault) if isinstance(fault, str) else fault for fault in given)


class Schedule:
    """The faults of a server, request by request.

    Raises `ConfigurationError` for one that cannot be read, or has no place in the answer of any of the recordings.
    """

    def __init__(
        self,
        faults: Faults = (),
        recordings: Sequence[Recording] = (),
        *,
        max_kept_misplaced: int = MAX_KEPT_MISPLACED,
    ) -> None:
        self._faults = read_faults(faults)
        if self._faults:
            _require_places(self._faults, recordings)
        self._requests = 0
        self._had = [0] * len(self._faults)  # how many requests had each
        self._applied: set[Fault] = set()
        self._misplaced: list[str] = []
        self._max_kept_misplaced = max_kept_misplaced

    def next(self) -> tuple[Fault, ...]:
        """The faults of the next request."""
        due = [index for index, fault in enumerate(self._faults) if self._is_due(index, fault)]
        chosen = next((index for index in due if is_replacement(self._faults[index])), None)
        if chosen is not None:
            due = [index for index in due if index == chosen or _is_for_any_answer(self._faults[index])]
        self._requests += 1
        for index in due:
            self._had[index] += 1
        return tuple(self._faults[index] for index in due)

    def _is_due(self, index: int, fault: Fault) -> bool:
        is_left = fault.requests is None or self._had[index] < fault.requests
        return is_left and fault.skipped <= self._requests

    # --- What became of them

    def applied(self, faults: Iterable[Fault]) -> None:
        """These were done to an answer."""
        self._applied.update(faults)

    def misplace(self, words: str) -> None:
        """One had no place in an answer, and `words` say so."""
        self._misplaced.append(words)
        del self._misplaced[: -self._max_kept_misplaced]

    @property
    def unused(self) -> list[Fault]:
        """Those that have not been done to any answer so far."""
        return [fault for fault in self._faults if fault not in self._applied]

    @property
    def misplaced(self) -> list[str]:
        """What was said of the last ones that had no place in an answer."""
        return list(self._misplaced)


def _require_places(faults: Sequence[Fault], recordings: Sequence[Recording]) -> None:
    streams, others = ([_answer(recording, is_stream=each) for recording in recordings] for each in (True, False))
    others += filter(None, [replacement(faults)])  # a fault of the head has a place there, too
    for fault in faults:
        of_events = fault.place is not None and fault.place.unit == "event"
        # Alone, or behind the others: those may bring the event that it is about.
        tried = product(streams if of_events else [*streams, *others], ([fault], faults))
        found = [_misplaced(given, answer) for answer, given in tried]
        if recordings and all(found):
            raise ConfigurationError(f"{found[0]}: it can never happen")


def _answer(recording: Recording, *, is_stream: bool) -> Answer:
    body = {"model": "any", "max_tokens": 1, "messages": [], "stream": is_stream}
    return Repertoire([recording]).answer(RecordedRequest("POST", "/v1/messages", {}, body))


def _misplaced(faults: Sequence[Fault], answer: Answer) -> str:
    """The error of these faults in that answer; "" if they have a place."""
    try:
        script(edited(answer, faults), faults)
    except ConfigurationError as exc:
        return str(exc)
    return ""


def _is_for_any_answer(fault: Fault) -> bool:
    """It is not about the events, bytes or chunks of what was recorded."""
    if is_replacement(fault) or fault.kind == "no-last-chunk":
        return False
    return fault.place is None or fault.place.unit == "head"


# --- breaking/wire


_SIOCOUTQNSD = 0x894B  # linux/sockios.h: "output queue size (not sent only)"
_UNSENT_SECONDS = 0.001
"""When it is asked for the first time; then half as often each time. Nothing tells when it has changed."""


class Wire:
    """The connection of one request, taken over from the server. The caller must `end` or `reset` it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport = connection.take_over()
        # The client counts as behind until the system has taken every byte: no reset can overtake one in our own buffer.
        self._transport.set_write_buffer_limits(high=0)

    async def send(self, data: bytes) -> None:
        """Send `data` in one write; wait until the system has taken all of it. Raises `ClientDisconnectedError`."""
        self._transport.write(data)
        await self._connection.drain()

    def half_close(self) -> None:
        """FIN, after all that was sent. The client may still send."""
        self._transport.write_eof()

    def end(self) -> None:
        """Close the connection, after all that was sent; nothing if it is closed."""
        if not self._connection.is_gone:
            self._connection.end()

    async def reset(self) -> None:
        """RST. It throws away what the system took and has not sent: that is waited for, for `linger_seconds` at most."""
        seconds, deadline = _UNSENT_SECONDS, self._now() + self._connection.limits.linger_seconds
        while not self._connection.is_gone and self._unsent_bytes() and (left := deadline - self._now()) > 0:
            await asyncio.sleep(min(seconds, left))
            seconds *= 2
        if not self._connection.is_gone:
            # l_onoff 1, l_linger 0: close() then resets the connection (socket(7)).
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._connection.abort()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _unsent_bytes(self) -> int:
        """Bytes that the system holds back: the client's window is full, or it gathers small pieces. Known on Linux only."""
        if sys.platform != "linux":
            return 0
        import fcntl

        told = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), _SIOCOUTQNSD, bytes(4))
        return int.from_bytes(told, sys.byteorder)
