"""Faults of an answer itself: another answer in its place, and events or bytes that are missing, twice, or spoilt.

This file knows what servers and proxies say instead of an answer, and where in a body its events are. It refuses to know how
the body is framed, and when it is sent; `script.py` does that.

    replacement(faults)          # the answer that comes instead; None if none does
    edited(answer, faults)       # the answer as these faults leave it
    offset_of(fault, body)       # after how many bytes of the body its place is

What is put in goes out with the bytes that it stands before; all others keep their reads and times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from itertools import accumulate
from typing import TypeAlias

from rawsse.errors import ConfigurationError, stream_error
from rawsse.replay.breaking.faults import Fault, Place
from rawsse.replay.matching.answers import Answer, error_answer
from rawsse.replay.recording import Read
from rawsse.replay.shaping.splits import by_event

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
