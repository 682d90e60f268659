"""Faults: everything that can go wrong with an answer. Each is a row of the table `FAULTS`, and is written as text.

    Fault.parse("reset@event=3")                        # RST after three events, in every request
    Fault.parse("status=529,retry-after=2 x2")          # the first two requests are rejected
    Fault.parse("error=api_error@event=1 x1 after=2")   # only the third request
    str(fault)                                          # the text

    spec  = NAME [ "=" VALUE ] *( "," NAME "=" VALUE ) [ "@" PLACE ] [ " x" N ] [ " after=" N ]      ; these two in any order
    PLACE = "head" / "head=" N / "byte=" N / "event=" N

A value with a space, a comma, a quote or an @ is written as a JSON string. The fault affects N requests (`xN`, default:
all), after the first N (`after=N`), which succeed.

Places are counted from 0, or from the end if negative (`explain` and `check` count events from 1). `event=N` is before event
N, or that event: events are split as by `split="event"`, up to and including the next blank line; comments count as events.
`byte=N` is after N bytes of the body, before compression and chunking. `head=N` is after N bytes of the response's head. A
place that an answer lacks is an error.

Several faults of one request are applied in this order, regardless of their order in the list: those that replace the
answer (`status`, `html`, `redirect`; only the first), those that edit the body (one after the other), compression,
framing, then those of the network by place, up to the first end. See `wire.py` for the last three. A fault without which
the same bytes would be sent, such as one behind that end, counts as one that never happened.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import responses
from itertools import accumulate, pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

from rawsse.errors import ConfigurationError, error_type, quote, stream_error
from rawsse.replay.answers import error_answer
from rawsse.replay.compose import error_body
from rawsse.replay.recording import Read, Recording
from rawsse.replay.variants import Split, by_event, recut, split_by

Unit: TypeAlias = Literal["head", "byte", "event"]
Splice: TypeAlias = tuple[int, int, bytes]
"""Replace the bytes from the first offset to the second with these."""

_VALUE = r'(?:"(?:[^"\\]|\\.)*"|[^\s,@"]+)'
_SPEC = re.compile(
    rf"(?P<kind>[a-z0-9-]+)(?:=(?P<value>{_VALUE}))?(?P<fields>(?:,[A-Za-z0-9-]+={_VALUE})*)"
    r"(?:@(?P<unit>[a-z]+)(?:=(?P<index>-?[0-9]+))?)?"
    r"(?:\s+x(?P<requests>[1-9][0-9]*))?(?:\s+after=(?P<skipped>[0-9]+))?(?(requests)|(?:\s+x(?P<last>[1-9][0-9]*))?)"
)
_FIELD = re.compile(rf",([A-Za-z0-9-]+)=({_VALUE})")
_DATA = re.compile(rb"(?:\A|(?<=[\r\n]))data: ?")
# RFC 9110, 5.5: "field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]"
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_PING, _PING_END = b'data: {"type": "ping", "padding": "', b'"}'


class End(enum.Enum):
    """How the bytes of an answer end."""

    CLOSE = "the connection is closed"
    RESET = "the connection is reset"
    HALF_CLOSE = "the server closes its side, and listens until the client leaves"
    HOLD = "nothing happens until the client leaves"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an answer: before this byte or event, or the event itself. Negative numbers count from the end."""

    unit: Unit
    index: int


class Value(NamedTuple):
    """The valid values of a fault: `convert` (which may raise ValueError) and `is_valid` check them, `expected` describes
    them."""

    expected: str
    convert: Callable[[str], float | str]
    is_valid: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """A row: `form` is the fault's syntax (brackets: optional), `doc` describes its effect; `default` and `place` are used
    if its value or place is omitted.

    It has at most one of these: `answer` replaces the recorded answer, `edit` changes its body, `end` ends the bytes on the
    wire. Faults of framing and pace have none: `wire.script` implements them. `cuts`: the client gets no complete answer.
    """

    form: str
    doc: str
    value: Value | None = None
    default: float | str | None = None
    place: Place | None = None
    answer: Callable[[Fault], Recording] | None = None
    edit: Callable[[Fault, bytes], Splice] | None = None
    end: End | None = None
    cuts: bool = False

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units that its place may have; only an end can be in the head."""
        if "@event" in self.form:
            return ("event",)
        return () if "@" not in self.form else ("byte", "event") if self.end is None else ("head", "byte", "event")

    @property
    def rule(self) -> str:
        """Its syntax, for error messages."""
        value = f"; its value is {self.value.expected}" if self.value else ""
        places = "head, head=N, byte=N or event=N" if "head" in self.units else "byte=N or event=N"
        return f"write {self.form}{value}" + (f"; PLACE is {places}" if "@PLACE" in self.form else "")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, made by `parse`. It affects `requests` requests (None: all) after the first `skipped` ones.

    `spec` is its text, for messages; the same fault may be written in several ways.
    """

    kind: str
    value: float | str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    place: Place | None = None
    requests: int | None = None
    skipped: int = 0
    spec: str = field(default="", compare=False)

    @classmethod
    def parse(cls, spec: str) -> Fault:
        """Parse a fault. Raises `ConfigurationError`, which states the syntax."""
        found = _SPEC.fullmatch(spec.strip())
        if found is None:
            form = "NAME[=VALUE][,NAME=VALUE …][@PLACE] [xN] [after=N]"
            raise ConfigurationError(f"invalid fault {quote(spec)}: write {form}, as in reset@event=3 x2")
        if found["kind"] not in FAULTS:
            raise ConfigurationError(f"unknown fault {quote(found['kind'])}; there are {', '.join(FAULTS)}")
        kind, requests = FAULTS[found["kind"]], found["requests"] or found["last"]
        try:
            value, fields, place = _value(kind, found), _fields(kind, found), _place(kind, found)
        except ValueError:
            raise ConfigurationError(f"invalid fault {quote(spec)}: {kind.rule}") from None
        times = None if requests is None else int(requests)
        return cls(found["kind"], value, fields, place, times, int(found["skipped"] or 0), spec.strip())

    @property
    def row(self) -> Kind:
        """Its row in the table."""
        return FAULTS[self.kind]

    @property
    def needs_wire(self) -> bool:
        """Whether it concerns framing or the network, and needs the ASGI extension of `rawsse.server`."""
        return self.row.answer is None and self.row.edit is None

    @property
    def cuts(self) -> bool:
        """Whether the client gets no complete answer, and may repeat its request."""
        is_delay = self.row.end is End.HOLD and self.value is not None
        return (self.row.cuts or self.row.end is not None) and not is_delay

    @property
    def number(self) -> float:
        """The value of a fault with a number."""
        return float(self.value or 0)

    def __str__(self) -> str:
        return self.spec


Faults: TypeAlias = Fault | str | Iterable[Fault | str]
"""One or several faults, or their texts."""


def read_faults(faults: Faults) -> tuple[Fault, ...]:
    """All of them as `Fault`s. Raises `ConfigurationError`."""
    given = [faults] if isinstance(faults, Fault | str) else faults
    return tuple(Fault.parse(fault) if isinstance(fault, str) else fault for fault in given)


# --- Parsing ---------------------------------------------------------------------------------------------------------


def _value(kind: Kind, found: re.Match[str]) -> float | str | None:
    if found["value"] is None:
        if kind.form.startswith(f"{found['kind']}="):
            raise ValueError
        return kind.default
    if kind.value is None:
        raise ValueError
    value = kind.value.convert(_unquoted(found["value"]))
    if not kind.value.is_valid(value):
        raise ValueError
    return value


def _fields(kind: Kind, found: re.Match[str]) -> tuple[tuple[str, str], ...]:
    given = {name.lower(): _unquoted(text) for name, text in _FIELD.findall(found["fields"])}
    for name, text in given.items():
        is_known = f",{name}=" in kind.form or "HEADER" in kind.form
        if not is_known or (name not in ("type", "message") and not _HEADER_VALUE.fullmatch(text)):
            raise ValueError
    return tuple(given.items())


def _place(kind: Kind, found: re.Match[str]) -> Place | None:
    unit, index = found["unit"], found["index"]
    if unit is None and (kind.place is not None or not kind.units):
        return kind.place
    if unit not in kind.units or (index is None and unit != "head"):
        raise ValueError
    return Place(unit, int(index or 0))


def _unquoted(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


# --- Faults that replace the answer ----------------------------------------------------------------------------------


def replacement(faults: Iterable[Fault]) -> Recording | None:
    """The answer of the first fault that replaces it, or None."""
    return next((fault.row.answer(fault) for fault in faults if fault.row.answer is not None), None)


def _status(fault: Fault) -> Recording:
    code, fields = int(fault.number), dict(fault.fields)
    answer = error_answer(code, fields.pop("type", error_type(code)), fields.pop("message", None), may_retry=True)
    return replace(answer, headers={**answer.headers, **fields})


def _html(fault: Fault) -> Recording:
    code = int(fault.number)
    title = f"{code} {responses.get(code, '')}".strip()
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<h1>{title}</h1>\r\n</body>\r\n</html>\r\n".encode()
    headers = {"server": "nginx", "content-type": "text/html", "content-length": str(len(page))}
    return Recording(None, code, headers, (Read(0.0, page),))


def _redirect(fault: Fault) -> Recording:
    headers = {"location": "/elsewhere", **dict(fault.fields), "content-length": "0"}
    return Recording(status=int(fault.number), headers=headers)


# --- Faults that edit the body ---------------------------------------------------------------------------------------


def edited(answer: Recording, faults: Iterable[Fault], split: Split | None = None) -> Recording:
    """The answer with its body edited by these faults, one after the other, and then split. Inserted bytes are sent with the
    bytes after them; all others keep their times, and without a split their reads.

    Raises `ConfigurationError` for a fault at a place that the answer lacks.
    """
    for fault in faults:
        if fault.kind == "error" and not answer.is_stream:
            # Without `stream`, the API answers with a status where a stream would have an `error` event.
            status = stream_error(_error_body(fault), {}).status_code
            answer = _status(replace(fault, value=status, fields=(("type", str(fault.value)), *fault.fields)))
        elif fault.row.edit is not None:
            answer = _spliced(answer, fault.row.edit(fault, answer.body))
            if fault.cuts:  # the body then ends cleanly, however the recording ended
                answer = replace(answer, end="clean", duration=0.0)
    return answer if split is None else replace(answer, reads=recut(answer.reads, split_by(split)))


def offset_of(fault: Fault, body: bytes, *, has_end: bool = True) -> int:
    """The number of bytes (of a body or a head) before a fault's place. `has_end`: the end is also a place.

    Raises `ConfigurationError` if there is no such place.
    """
    place = fault.place or Place("byte", 0)
    ends: Sequence[int] = range(len(body) + 1)
    if place.unit == "event":
        ends = [0, *accumulate(len(event) for event in by_event(body))]
    count = len(ends) - 1
    if not 0 <= (at := place.index + (count if place.index < 0 else 0)) < count + has_end:
        events = "events, counted from 0 (by explain and check from 1)"
        has = {"event": events, "byte": "bytes of body", "head": "bytes of head"}[place.unit]
        raise ConfigurationError(f"{fault} has no place in this answer, which has {count} {has}")
    return ends[at]


def _span(fault: Fault, body: bytes) -> tuple[int, int]:
    """The start and end of the event at a fault's place."""
    start = offset_of(fault, body, has_end=False)
    return start, start + len(by_event(body[start:])[0])


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
    padding = b"x" * (int(fault.number) - len(_PING + _PING_END))
    return at, at, b"event: ping\n" + _PING + padding + _PING_END + b"\n\n"


def _error(fault: Fault, body: bytes) -> Splice:
    data = json.dumps(_error_body(fault), ensure_ascii=False, separators=(",", ":"))
    return offset_of(fault, body), len(body), f"event: error\ndata: {data}\n\n".encode()


def _error_body(fault: Fault) -> dict[str, object]:
    error = error_body(str(fault.value), dict(fault.fields).get("message"))["error"]
    return {"type": "error", "error": {"details": None, **error}}


def _end(fault: Fault, body: bytes) -> Splice:
    return offset_of(fault, body), len(body), b""


def _spliced(answer: Recording, splice: Splice) -> Recording:
    """The answer with some bytes of its body replaced. New bytes are sent at the time of the old ones."""
    start, end, new = splice
    body = answer.body[:start] + new + answer.body[end:]
    times = [read.t for read in answer.reads]
    times += times[-1:] or [0.0]  # for new bytes after all reads
    ends = accumulate(len(read.data) for read in answer.reads)
    moved = (at if at <= start else start + len(new) + max(0, at - end) for at in ends)
    pieces = (body[left:right] for left, right in pairwise((0, *moved, len(body))))
    reads = tuple(Read(t, piece) for t, piece in zip(times, pieces, strict=True) if piece)
    length = {"content-length": str(len(body))} if "content-length" in answer.headers else {}
    return replace(answer, headers={**answer.headers, **length}, reads=reads)


# --- The table -------------------------------------------------------------------------------------------------------


def _whole(least: int, most: float = math.inf) -> Value:
    words = f"a whole number from {least}" + (" on" if most == math.inf else f" to {most}")
    return Value(words, int, lambda number: least <= number <= most)


_ABOVE_0 = Value("a number above 0", float, lambda number: 0 < number < math.inf)
_NOT_0 = Value("a whole number that is not 0", int, bool)
_TEXT = Value("a text", str, lambda _: True)
_ASCII = Value("printable ASCII", str, lambda text: text.isascii() and text.isprintable())
_BODY = Place("byte", 0)

_ROWS = (
    Kind("reset@PLACE", "the connection is reset (TCP RST)", end=End.RESET),
    Kind("close@PLACE", "the connection is closed (FIN)", end=End.CLOSE),
    Kind("half-close@PLACE", "the server closes only its own side, and keeps reading", end=End.HALF_CLOSE),
    Kind("stall[=SECONDS]@PLACE", "silence, at any speed; without SECONDS, forever", _ABOVE_0, end=End.HOLD),
    Kind("drip=BYTES_PER_SECOND[@PLACE]", "byte by byte from there on", _ABOVE_0, place=_BODY),
    Kind("slow-head=BYTES_PER_SECOND", "the head byte by byte", _ABOVE_0),
    Kind("drop@event=N", "the event is missing", edit=_drop),
    Kind("duplicate@event=N", "the event is sent twice", edit=_duplicate),
    Kind("swap@event=N", "the event is sent after the next one", edit=_swap),
    Kind("garble@event=N", "the first byte of its data becomes #, so that the data are invalid JSON", edit=_garble),
    Kind("bad-utf8@PLACE", "a byte FF there; in an event, inside a string, before the last quote", edit=_bad_utf8),
    Kind(
        "oversized-line=BYTES[@event=N]",
        "a ping whose data line has this many bytes (default: before event 1)",
        _whole(len(_PING + _PING_END)),
        place=Place("event", 1),
        edit=_oversized_line,
    ),
    Kind(
        "error[=TYPE][,message=TEXT][@event=N]",
        "an error event (default: overloaded_error, before event 0), then the end",
        _TEXT,
        "overloaded_error",
        place=Place("event", 0),
        edit=_error,
        cuts=True,
    ),
    Kind("end@PLACE", "the answer ends there, with complete framing", edit=_end, cuts=True),
    Kind("bad-chunk-size[=TEXT][@PLACE]", "the next chunk's size is TEXT, or zz", _ASCII, "zz", _BODY, cuts=True),
    Kind("no-last-chunk", "the connection is closed without the chunk that ends the body", cuts=True),
    Kind("wrong-content-length=N", "Content-Length is N more (+N) or less (-N) than the body", _NOT_0, cuts=True),
    Kind("gzip", "the body is compressed, even if the client did not ask for it"),
    Kind(
        "status=CODE[,type=TYPE][,message=TEXT][,HEADER=VALUE …]",
        "an error in the API's form instead of the answer",
        _whole(400, 599),
        answer=_status,
    ),
    Kind("html[=CODE]", "a proxy's error page instead (default: 502)", _whole(200, 599), 502, answer=_html),
    Kind("redirect[=CODE][,location=URL]", "a redirect (default: 307)", _whole(300, 399), 307, answer=_redirect),
)

FAULTS: Mapping[str, Kind] = {re.split(r"[@=\[]", kind.form)[0]: kind for kind in _ROWS}
"""Every fault, by its name."""

HELP: Mapping[str, str] = {
    "@PLACE": "byte=N, or event=N: before event N, or that event; reset, close, half-close and stall take head and head=N too. "
    "N counts from 0, or from the end if negative; explain and check count events from 1",
    "xN": "in N requests (default: in all)",
    "after=N": "the first N requests succeed",
    **{kind.form: kind.doc for kind in _ROWS},
}
"""The parts of a fault, and the form of each fault -> its effect."""
