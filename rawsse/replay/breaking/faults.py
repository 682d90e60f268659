"""Faults: what a server, a proxy or the network may do wrong to an answer, as values that can be written, read and compared.

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

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from rawsse.errors import ConfigurationError, quote
from rawsse.replay.breaking.specs import read_spec, to_text, write_value

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
