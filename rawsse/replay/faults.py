"""How a fault is written as a text: for command lines, for messages, and for `Fault.parse` and `str(fault)`.


    spec  = NAME [ "=" VALUE ] *( "," NAME "=" VALUE ) [ "@" PLACE ] [ " x" N ] [ " after=" N ]
    PLACE = "head" / "head=" N / "byte=" N / "event=" N

    reset@event=3 x2                          # after three events; in two requests
    status=529,retry-after=2 x1 after=1       # only the second request
    error=api_error,message="Oh, no"@event=-1

A place is counted from 0, or from the end if negative. `xN` says in how many requests, `after=N` how many before them are well.
A value with a blank, a comma, a quote or an @ is written as a JSON string. `FAULTS` has a line for each name.


Faults: what a server, a proxy or the network may do wrong to an answer, as values that can be written, read and compared.

This file knows which faults there are, what each takes, and where in an answer and in which requests it may be. It refuses to
know how a fault is done; `edits.py` and `script.py` do that.

    Fault.reset(at_event=3)                             # RST after three events, in every request
    Fault.status(529, retry_after=2).times(2)           # the first two requests are refused, and then all is well
    Fault.error("overloaded_error", at_event=1).times(1).after(2)      # only the third
    Fault.parse("reset@event=3 x2")                     # the same as a text, for command lines; `str(fault)` writes it

Places. An event is what `split="event"` cuts off: all up to and with the next blank line, comments too. Events and bytes are
counted from 0, and from the end if negative: -1 is the last. `at_event=k` is before event k, so that k events were sent;
`at_byte=k` is after k bytes of the body, which are counted before HTTP cuts them into chunks and before they are compressed;
`at_head_byte=k` is after k bytes of the response's head, and `before_head` is before all of it. An answer that has no such
place is an error, and no whole answer.

Several faults in one request are done in this order, whatever order they are given in: those that are an answer of their own
(`status`, `html`, `redirect`; one only), those of events and bytes (one after the other, each as the one before left the
body), then compression, then framing, and then those of the wire (by their place; the first end is the end). Where another
answer comes, faults of the recorded one's events, bytes and chunks have nothing to be done to, and wait for the next request;
`schedule.py` counts.

How a fault is written as a text stands in `specs.py`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from rawsse.errors import ConfigurationError, quote

# --- breaking/specs


GRAMMAR = "NAME[=VALUE][,NAME=VALUE …][@PLACE] [xN] [after=N]"

FAULTS: Mapping[str, str] = {
    "reset@PLACE": "the connection is reset (TCP RST)",
    "close@PLACE": "the connection is closed (FIN)",
    "half-close@PLACE": "the server closes its side only, and goes on listening",
    "stall[=SECONDS]@PLACE": "silence; without SECONDS for ever",
    "drip=BYTES_PER_SECOND[@PLACE]": "byte by byte, from there on",
    "slow-head=BYTES_PER_SECOND": "the head byte by byte",
    "drop@event=N": "the event is missing",
    "duplicate@event=N": "it comes twice",
    "swap@event=N": "it comes after the next one",
    "garble@event=N": "the first byte of its data becomes #, so that the data are no JSON",
    "bad-utf8@PLACE": "a byte FF: there, or in an event before the last quote, which is inside a string",
    "oversized-line=BYTES[@event=N]": "a ping whose data line has so many bytes (default: before event 1)",
    "error=TYPE[,message=TEXT][@event=N]": "an error event (default: overloaded_error, before event 0) and no more",
    "bad-chunk-size[=TEXT][@PLACE]": "the next chunk's size is TEXT (default zz)",
    "no-last-chunk": "the connection is closed without the chunk that ends the body",
    "wrong-content-length=N": "the body's length is announced as N more (+N) or less (-N) than it is",
    "gzip": "the body is compressed, whether the client asked for it or not",
    "status=CODE[,type=TYPE][,message=TEXT][,HEADER=VALUE …]": "an error in the API's form instead of the answer",
    "html[=CODE]": "a proxy's error page instead of the answer (default 502)",
    "redirect[=CODE][,location=URL]": "a redirection instead of the answer (default 307)",
}
"""Every fault, as it is written -> what it does."""

_VALUE = r'(?:"(?:[^"\\]|\\.)*"|[^\s,@"]+)'
_SPEC = re.compile(
    rf"(?P<kind>[a-z0-9-]+)(?:=(?P<value>{_VALUE}))?(?P<fields>(?:,[A-Za-z0-9-]+={_VALUE})*)"
    r"(?:@(?P<unit>[a-z]+)(?:=(?P<index>-?[0-9]+))?)?(?P<when>(?:\s+(?:x[0-9]+|after=[0-9]+))*)"
)
_FIELD = re.compile(rf",([A-Za-z0-9-]+)=({_VALUE})")
_BARE = re.compile(r'[^\s,@"\\]+')

_ANYWHERE: Mapping[str, str] = {"head": "at_head_byte", "byte": "at_byte", "event": "at_event"}
_IN_THE_BODY: Mapping[str, str] = {"byte": "at_byte", "event": "at_event"}
_AN_EVENT: Mapping[str, str] = {"event": "event"}
_WRITTEN: Mapping[str, tuple[str, ...]] = {"head": ("@head", "@head=N"), "byte": ("@byte=N",), "event": ("@event=N",)}


@dataclass(frozen=True, slots=True)
class _Form:
    """How a fault is written: the argument after the name, if it must be there, the named ones, and for each unit of a place
    the argument that it is."""

    value: str = ""
    convert: Callable[[str], Any] = str
    needs_value: bool = False
    fields: tuple[str, ...] = ()
    takes_headers: bool = False
    places: Mapping[str, str] = field(default_factory=dict)
    needs_place: bool = False

    def arguments(self, found: re.Match[str]) -> dict[str, Any]:
        """The arguments of the function that makes the fault. Raises `ConfigurationError`."""
        return self._value_in(found) | self._fields_in(found) | self._place_in(found)

    def _value_in(self, found: re.Match[str]) -> dict[str, Any]:
        kind, text = found["kind"], found["value"]
        if text is None and not self.needs_value:
            return {}
        if text is None or not self.value:
            raise ConfigurationError(
                f"{kind} needs a value: {_line(kind)}" if text is None else f"{kind} takes no value"
            )
        unquoted = _unquoted(text)
        try:
            return {self.value: self.convert(unquoted)}
        except ValueError:
            raise ConfigurationError(f"{kind} cannot have the value {quote(text)}: {_line(kind)}") from None

    def _fields_in(self, found: re.Match[str]) -> dict[str, Any]:
        given = {name.lower(): _unquoted(text) for name, text in _FIELD.findall(found["fields"])}
        known = {name: given.pop(name) for name in self.fields if name in given}
        if given and not self.takes_headers:
            raise ConfigurationError(f"{found['kind']} takes no {quote(next(iter(given)))}: {_line(found['kind'])}")
        return known | ({"headers": given} if given else {})

    def _place_in(self, found: re.Match[str]) -> dict[str, Any]:
        kind, unit, index = found["kind"], found["unit"], found["index"]
        if unit is None and self.needs_place:
            written = [word for unit in self.places for word in _WRITTEN[unit]]
            raise ConfigurationError(f"{kind} needs a place: {_either(written)}, as in {kind}@event=3")
        if unit is None:
            return {}
        if unit not in self.places:
            raise ConfigurationError(
                f"{kind} cannot be at {quote(unit)}, only at {' or '.join(self.places) or 'no place'}"
            )
        if index is None and unit != "head":
            raise ConfigurationError(f"{kind}@{unit} needs a number: {unit}=N")
        return {self.places[unit]: int(index or 0)}


_FORMS: Mapping[str, _Form] = {
    "reset": _Form(places=_ANYWHERE, needs_place=True),
    "close": _Form(places=_ANYWHERE, needs_place=True),
    "half-close": _Form(places=_ANYWHERE, needs_place=True),
    "stall": _Form("seconds", float, places=_ANYWHERE, needs_place=True),
    "drip": _Form("bytes_per_second", float, needs_value=True, places=_IN_THE_BODY),
    "slow-head": _Form("bytes_per_second", float, needs_value=True),
    "drop": _Form(places=_AN_EVENT, needs_place=True),
    "duplicate": _Form(places=_AN_EVENT, needs_place=True),
    "swap": _Form(places=_AN_EVENT, needs_place=True),
    "garble": _Form(places=_AN_EVENT, needs_place=True),
    "bad-utf8": _Form(places={"event": "event", "byte": "at_byte"}, needs_place=True),
    "oversized-line": _Form("size", int, needs_value=True, places={"event": "at_event"}),
    "error": _Form("type", fields=("message",), places={"event": "at_event"}),
    "bad-chunk-size": _Form("size", places=_IN_THE_BODY),
    "no-last-chunk": _Form(),
    "wrong-content-length": _Form("by", int, needs_value=True),
    "gzip": _Form(),
    "status": _Form("code", int, needs_value=True, fields=("type", "message"), takes_headers=True),
    "html": _Form("code", int),
    "redirect": _Form("code", int, fields=("location",)),
}


class Spec(NamedTuple):
    """A fault as it was written: its name, the arguments of the function that makes it, in how many requests (None: in all)
    it is, and how many are well before."""

    kind: str
    arguments: dict[str, Any]
    requests: int | None
    skipped: int


def read_spec(text: str) -> Spec:
    """What a spec says. Raises `ConfigurationError`, which says what is wrong and what would be right."""
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(f"no fault: {quote(text)}; write {GRAMMAR}, as in reset@event=3 x2")
    form = _FORMS.get(found["kind"])
    if form is None:
        raise ConfigurationError(f"no fault has the name {quote(found['kind'])}; there are {', '.join(_FORMS)}")
    return Spec(found["kind"], form.arguments(found), *_requests_in(found["when"].split()))


def _requests_in(words: list[str]) -> tuple[int | None, int]:
    """In how many requests, and after how many."""
    given: dict[str, int] = {}
    for word in words:
        name, number = ("x", word[1:]) if word.startswith("x") else ("after", word.removeprefix("after="))
        if name in given:
            other = word.replace(number, str(given[name]))
            raise ConfigurationError(f"a fault takes one {'xN' if name == 'x' else 'after=N'}, not {other} and {word}")
        given[name] = int(number)
    return given.get("x"), given.get("after", 0)


def write_value(value: float | str, *, is_signed: bool = False) -> str:
    """A value as it stands in a spec."""
    text = f"{value:+}" if is_signed else to_text(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


def to_text(value: float | str) -> str:
    """Numbers as people write them: 5, not 5.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _either(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _line(kind: str) -> str:
    return next(line for line in FAULTS if re.match(r"[a-z0-9-]+", line)[0] == kind)  # type: ignore[index]


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        raise ConfigurationError(f"no JSON string: {quote(text)}") from None


# --- breaking/faults


Unit: TypeAlias = Literal["head", "byte", "event"]

_TYPE_BY_STATUS: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an answer: before this byte or event, or the event itself. Negative ones count from the end."""

    unit: Unit
    index: int

    def __str__(self) -> str:
        return "head" if self == Place("head", 0) else f"{self.unit}={self.index}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. It is made by the functions below, which raise `ConfigurationError`; its attributes are for those who do it.

    `value` and `fields` are what the fault takes, `requests` is in how many requests it happens (None: in all) after the
    `skipped` first ones.
    """

    kind: str
    value: float | str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    place: Place | None = None
    requests: int | None = None
    skipped: int = 0

    def times(self, requests: int) -> Fault:
        """The same in so many requests, and then all is well."""
        return replace(self, requests=_at_least(1, requests, "the number of requests"))

    def after(self, requests: int) -> Fault:
        """The same, but so many requests are well before it."""
        return replace(self, skipped=_at_least(0, requests, "the number of requests before a fault"))

    # --- The connection

    @classmethod
    def reset(
        cls,
        *,
        at_byte: int | None = None,
        at_event: int | None = None,
        at_head_byte: int | None = None,
        before_head: bool = False,
    ) -> Fault:
        """The connection is reset (TCP RST): the client's read fails. What its system has not taken by then is lost."""
        return cls("reset", place=_one_place("reset", at_byte, at_event, at_head_byte, before_head))

    @classmethod
    def close(
        cls,
        *,
        at_byte: int | None = None,
        at_event: int | None = None,
        at_head_byte: int | None = None,
        before_head: bool = False,
    ) -> Fault:
        """The connection is closed (TCP FIN): the client reads an end."""
        return cls("close", place=_one_place("close", at_byte, at_event, at_head_byte, before_head))

    @classmethod
    def half_close(
        cls,
        *,
        at_byte: int | None = None,
        at_event: int | None = None,
        at_head_byte: int | None = None,
        before_head: bool = False,
    ) -> Fault:
        """The server closes its side only: the client reads an end, and what it still sends is taken."""
        return cls("half-close", place=_one_place("half-close", at_byte, at_event, at_head_byte, before_head))

    @classmethod
    def stall(
        cls,
        seconds: float | None = None,
        *,
        at_byte: int | None = None,
        at_event: int | None = None,
        at_head_byte: int | None = None,
        before_head: bool = False,
    ) -> Fault:
        """Silence for so many seconds; without a number until the client leaves. It is waited for at any `speed`."""
        place = _one_place("stall", at_byte, at_event, at_head_byte, before_head)
        return cls("stall", None if seconds is None else _positive(seconds, "the seconds of a stall"), place=place)

    @classmethod
    def drip(cls, bytes_per_second: float, *, at_byte: int | None = None, at_event: int | None = None) -> Fault:
        """From there on (by default the whole body, chunk framing and all) byte by byte, each in a write of its own."""
        rate = _positive(bytes_per_second, "the bytes per second of a drip")
        return cls("drip", rate, place=_place("drip", byte=at_byte, event=at_event) or Place("byte", 0))

    @classmethod
    def slow_head(cls, bytes_per_second: float) -> Fault:
        """The response's head byte by byte, each in a write of its own."""
        return cls("slow-head", _positive(bytes_per_second, "the bytes per second of a slow head"))

    # --- Events and bytes

    @classmethod
    def drop(cls, *, event: int) -> Fault:
        """The event is missing."""
        return cls("drop", place=Place("event", event))

    @classmethod
    def duplicate(cls, *, event: int) -> Fault:
        """The event comes twice, byte for byte."""
        return cls("duplicate", place=Place("event", event))

    @classmethod
    def swap(cls, *, event: int) -> Fault:
        """The event comes after the next one."""
        return cls("swap", place=Place("event", event))

    @classmethod
    def garble(cls, *, event: int) -> Fault:
        """The first byte of the event's data becomes `#`, so that they are no JSON. Nothing changes its length."""
        return cls("garble", place=Place("event", event))

    @classmethod
    def bad_utf8(cls, *, event: int | None = None, at_byte: int | None = None) -> Fault:
        """A byte FF, which no UTF-8 has. In an event it stands before the last quote: inside the text of a delta."""
        place = _place("bad-utf8", byte=at_byte, event=event)
        return cls("bad-utf8", place=_needed(place, "bad-utf8", "event or at_byte"))

    @classmethod
    def oversized_line(cls, size: int, *, at_event: int = 1) -> Fault:
        """A `ping` whose data line has so many bytes, before that event. It is proper SSE: only a limit can refuse it."""
        least = len(b'data: {"type": "ping", "padding": ""}')
        return cls("oversized-line", _at_least(least, size, "the bytes of the line"), place=Place("event", at_event))

    @classmethod
    def error(cls, type: str = "overloaded_error", *, at_event: int = 0, message: str | None = None) -> Fault:
        """An `error` event of that type before event k, after which the body ends, as it does in the API.

        A JSON answer (of a request without `stream`) becomes the HTTP error of that type.
        """
        fields = () if message is None else (("message", message),)
        return cls("error", type, fields, Place("event", at_event))

    # --- Framing and compression

    @classmethod
    def bad_chunk_size(cls, size: str = "zz", *, at_byte: int | None = None, at_event: int | None = None) -> Fault:
        """The chunk that begins there has `size` where its size should be."""
        if not re.fullmatch(r"[\x20-\x7e]*", size):
            raise ConfigurationError(f"the size of a chunk must be printable ASCII, not {quote(size)}")
        return cls(
            "bad-chunk-size", size, place=_place("bad-chunk-size", byte=at_byte, event=at_event) or Place("byte", 0)
        )

    @classmethod
    def no_last_chunk(cls) -> Fault:
        """All of the body comes, but not the chunk that ends it; the connection is closed."""
        return cls("no-last-chunk")

    @classmethod
    def wrong_content_length(cls, by: int) -> Fault:
        """`content-length` says so many bytes more than there are; less, if negative. Then the connection is closed."""
        if by == 0:
            raise ConfigurationError("wrong-content-length must differ from the true length: by 0 it does not")
        return cls("wrong-content-length", by)

    @classmethod
    def gzip(cls) -> Fault:
        """The body is compressed, whether the client asked for it or not; each read can be decompressed as it comes."""
        return cls("gzip")

    # --- Another answer

    @classmethod
    def status(
        cls,
        code: int,
        *,
        type: str | None = None,
        message: str | None = None,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """An error in the API's form. `type` defaults to the one of that status. `retry_after`: seconds, or an HTTP date."""
        _status(400, code, 599)
        kind = type or _TYPE_BY_STATUS.get(code, "api_error" if code >= 500 else "invalid_request_error")
        given = {} if retry_after is None else {"retry-after": to_text(retry_after)}
        given |= {name.lower(): value for name, value in (headers or {}).items()}
        for name, value in given.items():
            _check_header(name, value)
        said = {} if message is None else {"message": message}
        return cls("status", code, tuple(({"type": kind} | said | given).items()))

    @classmethod
    def html(cls, code: int = 502) -> Fault:
        """A page in HTML, as proxies write it. With code 200, what a captive portal says."""
        return cls("html", _status(200, code, 599))

    @classmethod
    def redirect(cls, code: int = 307, location: str = "/elsewhere") -> Fault:
        """A redirection."""
        _check_header("location", location)
        return cls("redirect", _status(300, code, 399), (("location", location),))

    # --- As a text

    @classmethod
    def parse(cls, spec: str) -> Fault:
        """The fault that a spec describes. Raises `ConfigurationError`, which says what is wrong and what would be right."""
        read = read_spec(spec)
        fault: Fault = getattr(cls, read.kind.replace("-", "_"))(**read.arguments)
        fault = fault if read.requests is None else fault.times(read.requests)
        return fault.after(read.skipped)

    def __str__(self) -> str:
        value = (
            "" if self.value is None else "=" + write_value(self.value, is_signed=self.kind == "wrong-content-length")
        )
        named = "".join(f",{name}={write_value(text)}" for name, text in self.fields)
        place = "" if self.place is None else f"@{self.place}"
        times = "" if self.requests is None else f" x{self.requests}"
        return f"{self.kind}{value}{named}{place}{times}" + (f" after={self.skipped}" if self.skipped else "")


# --- What may be given -----------------------------------------------------------------------------------------------


def _one_place(kind: str, byte: int | None, event: int | None, head_byte: int | None, before_head: bool) -> Place:
    if before_head and head_byte is not None:
        raise ConfigurationError(f"{kind} has two places: at_head_byte and before_head")
    place = _place(kind, byte=byte, event=event, head=0 if before_head else head_byte)
    return _needed(place, kind, "at_byte, at_event, at_head_byte or before_head")


def _place(kind: str, **given: int | None) -> Place | None:
    places = [Place(unit, index) for unit in get_args(Unit) if (index := given.get(unit)) is not None]
    if len(places) > 1:
        raise ConfigurationError(f"{kind} has two places: {places[0]} and {places[1]}")
    return places[0] if places else None


def _needed(place: Place | None, kind: str, names: str) -> Place:
    if place is None:
        raise ConfigurationError(f"{kind} needs a place: {names}")
    return place


def _positive(number: float, what: str) -> float:
    if not 0 < number < math.inf:
        raise ConfigurationError(f"{what} must be more than 0, not {number}")
    return number


def _at_least(least: int, number: int, what: str) -> int:
    if number < least:
        raise ConfigurationError(f"{what} must be {least} or more, not {number}")
    return number


def _status(least: int, code: int, most: int) -> int:
    if not least <= code <= most:
        raise ConfigurationError(f"the status must be from {least} to {most}, not {code}")
    return code


def _check_header(name: str, value: str) -> None:
    if not re.fullmatch(r"[a-z0-9-]+", name) or name in ("type", "message"):
        raise ConfigurationError(f"a header may not have the name {quote(name)} here")
    # RFC 9110, 5.5: "field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]"
    if not re.fullmatch(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?", value):
        raise ConfigurationError(f"the header {name} may not have the value {quote(value)}")
