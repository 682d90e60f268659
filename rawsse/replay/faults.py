"""What can go wrong with an answer: every fault is a row of the table `FAULTS`, written as a text.

    Fault.parse("reset@event=3")                # RST after three events, in every request
    Fault.parse("status=529,retry-after=2 x2")  # the first two requests are refused, and then all is well
    Fault.parse("error=api_error@event=1 x1 after=2")   # only the third request
    str(fault)                                  # the same text again

    spec  = NAME [ "=" VALUE ] *( "," NAME "=" VALUE ) [ "@" PLACE ] [ " x" N ] [ " after=" N ]
    PLACE = "head" / "head=" N / "byte=" N / "event=" N

A value with a blank, a comma, a quote or an @ is written as a JSON string. `xN` says in how many requests the fault happens
(default: in all), `after=N` how many requests go well before.

Places are counted from 0, or from the end if negative. `event=N` is before event N: an event is what `split="event"` cuts off,
up to and with the next blank line, comments too. `byte=N` is after N bytes of the body, before HTTP cuts them into chunks and
before they are compressed. `head=N` is after N bytes of the response's head. An answer that has no such place is an
error.

Several faults in one request are done in this order, whatever order they are given in: those that are another answer (`status`,
`html`, `redirect`; only the first), those of events and bytes (one after the other, each on what the one before left), then
compression, then framing, then those of the wire by their place; the first end is the end. See `wire.py` for the last three.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import accumulate
from typing import Literal, NamedTuple, TypeAlias

from rawsse.errors import ConfigurationError, error_type, quote, stream_error
from rawsse.replay.answers import Answer, error_answer
from rawsse.replay.compose import error_body
from rawsse.replay.recording import Read
from rawsse.replay.splits import by_event

Unit: TypeAlias = Literal["head", "byte", "event"]
Splice: TypeAlias = tuple[int, int, bytes]
"""The bytes from the one offset to the other become these."""

_VALUE = r'(?:"(?:[^"\\]|\\.)*"|[^\s,@"]+)'
_SPEC = re.compile(
    rf"(?P<kind>[a-z0-9-]+)(?:=(?P<value>{_VALUE}))?(?P<fields>(?:,[A-Za-z0-9-]+={_VALUE})*)"
    r"(?:@(?P<unit>[a-z]+)(?:=(?P<index>-?[0-9]+))?)?(?P<when>(?:\s+(?:x[0-9]+|after=[0-9]+))*)"
)
_FIELD = re.compile(rf",([A-Za-z0-9-]+)=({_VALUE})")
_BARE = re.compile(r'[^\s,@"\\]+')
_DATA = re.compile(rb"(?:\A|(?<=[\r\n]))data: ?")
# RFC 9110, 5.5: "field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]"
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_PING, _PING_END = b'data: {"type": "ping", "padding": "', b'"}'


class End(enum.Enum):
    """How the bytes of an answer may end."""

    CLOSE = "the connection is closed"
    RESET = "the connection is reset"
    HALF_CLOSE = "the server closes its side, and listens until the client leaves"
    HOLD = "nothing happens until the client leaves"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an answer: before this byte or event, or the event itself. Negative ones count from the end."""

    unit: Unit
    index: int

    def __str__(self) -> str:
        return "head" if self == Place("head", 0) else f"{self.unit}={self.index}"


class Value(NamedTuple):
    """What may stand behind a fault's name: `read` makes it of the text, and raises ValueError for what is not `expected`."""

    expected: str
    read: Callable[[str], float | str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A row: `form` is how the fault is written (brackets: may be left out), `doc` what it does. The rest is how it is done.

    `place` is the place by default. One of these is the fault: `answer` comes instead of the
    recorded one, `edit` changes its body, `end` ends the bytes on the wire. `on_wire` faults of framing and pace are done by
    `wire.script`. `cuts`: a client that meets it has no whole answer, and may ask again.
    """

    form: str
    doc: str
    value: Value | None = None
    default: float | str | None = None
    place: Place | None = None
    answer: Callable[[Fault], Answer] | None = None
    edit: Callable[[Fault, bytes], Splice] | None = None
    end: End | None = None
    on_wire: bool = False
    cuts: bool = False

    @property
    def units(self) -> tuple[Unit, ...]:
        """What its place may be counted in: only an end can also be in the head."""
        if "@event" in self.form:
            return ("event",)
        return () if "@" not in self.form else ("byte", "event") if self.end is None else ("head", "byte", "event")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `parse` makes it. It happens in `requests` requests (None: in all) after the `skipped` first ones."""

    kind: str
    value: float | str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    place: Place | None = None
    requests: int | None = None
    skipped: int = 0

    @classmethod
    def parse(cls, spec: str) -> Fault:
        """The fault that a text describes. Raises `ConfigurationError`, which says what is wrong and what would be right."""
        found = _SPEC.fullmatch(spec.strip())
        if found is None:
            form = "NAME[=VALUE][,NAME=VALUE …][@PLACE] [xN] [after=N]"
            raise ConfigurationError(f"invalid fault {quote(spec)}: write {form}, as in reset@event=3 x2")
        name = found["kind"]
        if name not in FAULTS:
            raise ConfigurationError(f"unknown fault {quote(name)}; there are {', '.join(FAULTS)}")
        kind = FAULTS[name]
        fault = cls(name, _value(kind, found), _fields(kind, found), _place(kind, found))
        return _counted(fault, found["when"].split())

    def times(self, requests: int) -> Fault:
        """The same in so many requests, and then all is well."""
        if requests < 1:
            raise ConfigurationError(f"the number of requests must be 1 or more, not {requests}")
        return replace(self, requests=requests)

    def after(self, requests: int) -> Fault:
        """The same, but so many requests go well before it."""
        if requests < 0:
            raise ConfigurationError(f"the number of requests before a fault must be 0 or more, not {requests}")
        return replace(self, skipped=requests)

    @property
    def row(self) -> Kind:
        """Its row in the table."""
        return FAULTS[self.kind]

    @property
    def needs_wire(self) -> bool:
        """It is one of framing or of the network: no ASGI server can do it, but for the extension of `rawsse.server`."""
        return self.row.on_wire or self.row.end is not None

    @property
    def cuts(self) -> bool:
        """A client that meets this fault has no whole answer, and may ask for it again."""
        is_delay = self.row.end is End.HOLD and self.value is not None
        return (self.row.cuts or self.row.end is not None) and not is_delay

    @property
    def number(self) -> float:
        """The value of a fault that has a number."""
        return float(self.value or 0)

    def __str__(self) -> str:
        value = "" if self.value is None else "=" + _written(self.value, "+" if self.kind == _LENGTH else "")
        named = "".join(f",{name}={_written(text)}" for name, text in self.fields)
        place = "" if self.place is None else f"@{self.place}"
        times = "" if self.requests is None else f" x{self.requests}"
        return f"{self.kind}{value}{named}{place}{times}" + (f" after={self.skipped}" if self.skipped else "")


Faults: TypeAlias = Fault | str | Iterable[Fault | str]
"""Faults, or how they are written; or one of them."""


def read_faults(faults: Faults) -> tuple[Fault, ...]:
    """All of them as values. Raises `ConfigurationError`."""
    given = [faults] if isinstance(faults, Fault | str) else faults
    return tuple(Fault.parse(fault) if isinstance(fault, str) else fault for fault in given)


# --- Reading and writing ---------------------------------------------------------------------------------------------


def _value(kind: Kind, found: re.Match[str]) -> float | str | None:
    name, text = found["kind"], found["value"]
    if text is None:
        if kind.form.startswith(f"{name}="):
            raise ConfigurationError(f"{name} needs a value: {kind.form}")
        return kind.default
    if kind.value is None:
        raise ConfigurationError(f"{name} takes no value: {kind.form}")
    given = _unquoted(text)
    try:
        return kind.value.read(given)
    except ValueError:
        wrong = f"{name} cannot have the value {quote(text)}, only {kind.value.expected}"
        raise ConfigurationError(f"{wrong}: {kind.form}") from None


def _fields(kind: Kind, found: re.Match[str]) -> tuple[tuple[str, str], ...]:
    known = re.findall(r",([a-z]+)=", kind.form)
    given = {name.lower(): _unquoted(text) for name, text in _FIELD.findall(found["fields"])}
    for name, text in given.items():
        if name not in known and "HEADER" not in kind.form:
            raise ConfigurationError(f"{found['kind']} takes no {quote(name)}: {kind.form}")
        if name not in ("type", "message") and not _HEADER_VALUE.fullmatch(text):
            raise ConfigurationError(f"the header {name} cannot have the value {quote(text)}")
    return tuple(given.items())


def _place(kind: Kind, found: re.Match[str]) -> Place | None:
    name, unit, index = found["kind"], found["unit"], found["index"]
    if unit is None:
        if kind.units and kind.place is None:
            raise ConfigurationError(f"{name} needs a place ({' or '.join(kind.units)}), as in {name}@event=3")
        return kind.place
    for known in kind.units:
        if known == unit:
            if index is None and unit != "head":
                raise ConfigurationError(f"{name}@{unit} needs a number: {unit}=N")
            return Place(known, int(index or 0))
    raise ConfigurationError(f"{name} cannot be at {quote(unit)}, only at {' or '.join(kind.units) or 'no place'}")


def _counted(fault: Fault, words: list[str]) -> Fault:
    given: dict[str, int] = {}
    for word in words:
        name, number = ("xN", word[1:]) if word.startswith("x") else ("after=N", word.removeprefix("after="))
        if name in given:
            raise ConfigurationError(f"a fault takes one {name}, not {' and '.join(words)}")
        given[name] = int(number)
    fault = fault.times(given["xN"]) if "xN" in given else fault
    return fault.after(given.get("after=N", 0))


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        raise ConfigurationError(f"invalid JSON string: {quote(text)}") from None


def _written(value: float | str, sign: str = "") -> str:
    """Numbers as people write them: 5, not 5.0. Texts are quoted where they must be."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else f"{value:{sign}}"
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError
    return number


def _whole(least: int, most: float = math.inf) -> Value:
    def read(text: str) -> int:
        if not least <= (number := int(text)) <= most:
            raise ValueError
        return number

    return Value(f"a whole number from {least}" + (" on" if most == math.inf else f" to {most}"), read)


def _difference(text: str) -> int:
    if (number := int(text)) == 0:
        raise ValueError
    return number


def _chunk_size(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise ValueError
    return text


# --- Another answer --------------------------------------------------------------------------------------------------


def replacement(faults: Iterable[Fault]) -> Answer | None:
    """What the first fault that is another answer says; None if there is none."""
    return next((fault.row.answer(fault) for fault in faults if fault.row.answer is not None), None)


def _status(fault: Fault) -> Answer:
    code, fields = int(fault.number), dict(fault.fields)
    error = error_body(fields.pop("type", error_type(code)), fields.pop("message", None))["error"]
    answer = error_answer(code, error["type"], error["message"], may_retry=True)
    return replace(answer, headers={**answer.headers, **fields})


def _html(fault: Fault) -> Answer:
    code = int(fault.number)
    phrase = next((status.phrase for status in HTTPStatus if status.value == code), "")
    title = f"{code} {phrase}".strip()
    lines = ("<html>", f"<head><title>{title}</title></head>", "<body>", f"<center><h1>{title}</h1></center>")
    page = "\r\n".join([*lines, "<hr><center>nginx</center>", "</body>", "</html>", ""]).encode()
    headers = {"server": "nginx", "content-type": "text/html", "content-length": str(len(page))}
    return Answer(code, headers, (Read(0.0, page),))


def _redirect(fault: Fault) -> Answer:
    return Answer(int(fault.number), {"location": "/elsewhere", **dict(fault.fields), "content-length": "0"})


# --- Events and bytes ------------------------------------------------------------------------------------------------


def edited(answer: Answer, faults: Iterable[Fault]) -> Answer:
    """The answer with its events and bytes as these faults leave them, one after the other. What is put in goes out with the
    bytes that it stands before; all others keep their reads and times.

    Raises `ConfigurationError` for a fault that has no place in it.
    """
    for fault in faults:
        if fault.kind == "error" and not answer.headers.get("content-type", "").startswith("text/event-stream"):
            # What the API says to a request without `stream`, where a stream would have had an `error` event.
            status = stream_error(_error_body(fault), {}).status_code
            answer = _status(replace(fault, value=status, fields=(("type", str(fault.value)), *fault.fields)))
        elif fault.row.edit is not None:
            body = b"".join(read.data for read in answer.reads)
            answer = _spliced(answer, fault.row.edit(fault, body))
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
    if not 0 <= (at := place.index + (count if place.index < 0 else 0)) <= count:
        has = {"event": "events", "byte": "bytes of body", "head": "bytes of head"}[place.unit]
        raise ConfigurationError(f"{fault} has no place in this answer, which has {count} {has}")
    return ends[at]


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
    padding = b"x" * (int(fault.number) - len(_PING + _PING_END))
    return at, at, b"event: ping\n" + _PING + padding + _PING_END + b"\n\n"


def _error(fault: Fault, body: bytes) -> Splice:
    data = json.dumps(_error_body(fault), ensure_ascii=False, separators=(",", ":"))
    return offset_of(fault, body), len(body), f"event: error\ndata: {data}\n\n".encode()


def _error_body(fault: Fault) -> dict[str, object]:
    error = error_body(str(fault.value), dict(fault.fields).get("message"))["error"]
    return {"type": "error", "error": {"details": None, **error}}


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


# --- The table -------------------------------------------------------------------------------------------------------

_SECONDS = Value("a number above 0", _positive)
_TEXT = Value("a text", str)
_LENGTH = "wrong-content-length"

_ROWS = (
    Kind("reset@PLACE", "the connection is reset (TCP RST)", end=End.RESET),
    Kind("close@PLACE", "the connection is closed (FIN)", end=End.CLOSE),
    Kind("half-close@PLACE", "the server closes its side only, and goes on listening", end=End.HALF_CLOSE),
    Kind("stall[=SECONDS]@PLACE", "silence, at any speed; without SECONDS for ever", _SECONDS, end=End.HOLD),
    Kind(
        "drip=BYTES_PER_SECOND[@PLACE]", "byte by byte, from there on", _SECONDS, place=Place("byte", 0), on_wire=True
    ),
    Kind("slow-head=BYTES_PER_SECOND", "the head byte by byte", _SECONDS, on_wire=True),
    Kind("drop@event=N", "the event is missing", edit=_drop),
    Kind("duplicate@event=N", "the event comes twice", edit=_duplicate),
    Kind("swap@event=N", "the event comes after the next one", edit=_swap),
    Kind("garble@event=N", "the first byte of its data becomes #, so that the data are invalid JSON", edit=_garble),
    Kind(
        "bad-utf8@PLACE",
        "a byte FF: there, or in an event before the last quote, which is inside a string",
        edit=_bad_utf8,
    ),
    Kind(
        "oversized-line=BYTES[@event=N]",
        "a ping whose data line has so many bytes (default: before event 1)",
        _whole(len(_PING + _PING_END)),
        place=Place("event", 1),
        edit=_oversized_line,
    ),
    Kind(
        "error[=TYPE][,message=TEXT][@event=N]",
        "an error event (default: overloaded_error, before event 0) and no more",
        _TEXT,
        "overloaded_error",
        place=Place("event", 0),
        edit=_error,
        cuts=True,
    ),
    Kind(
        "bad-chunk-size[=TEXT][@PLACE]",
        "the next chunk's size is TEXT (default: zz)",
        Value("printable ASCII", _chunk_size),
        "zz",
        place=Place("byte", 0),
        on_wire=True,
        cuts=True,
    ),
    Kind("no-last-chunk", "the connection is closed without the chunk that ends the body", on_wire=True, cuts=True),
    Kind(
        f"{_LENGTH}=N",
        "the body's length is announced as N more (+N) or less (-N) than it is",
        Value("a whole number that is not 0", _difference),
        on_wire=True,
        cuts=True,
    ),
    Kind("gzip", "the body is compressed, whether the client asked for it or not"),
    Kind(
        "status=CODE[,type=TYPE][,message=TEXT][,HEADER=VALUE …]",
        "an error in the API's form instead of the answer",
        _whole(400, 599),
        answer=_status,
    ),
    Kind(
        "html[=CODE]", "a proxy's error page instead of the answer (default: 502)", _whole(200, 599), 502, answer=_html
    ),
    Kind(
        "redirect[=CODE][,location=URL]",
        "a redirection instead of the answer (default: 307)",
        _whole(300, 399),
        307,
        answer=_redirect,
    ),
)

FAULTS: Mapping[str, Kind] = {re.split(r"[@=\[]", kind.form)[0]: kind for kind in _ROWS}
"""Every fault, by its name."""

HELP: Mapping[str, str] = {kind.form: kind.doc for kind in _ROWS}
"""How each is written -> what it does."""
