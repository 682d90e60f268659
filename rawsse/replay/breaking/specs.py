"""How a fault is written as a text: for command lines, for messages, and for `Fault.parse` and `str(fault)`.

This file knows the grammar, and what each fault takes. It refuses to know what a fault is and does: `faults.py` has a function
for each name, with the arguments that are read here.

    spec  = NAME [ "=" VALUE ] *( "," NAME "=" VALUE ) [ "@" PLACE ] [ " x" N ] [ " after=" N ]
    PLACE = "head" / "head=" N / "byte=" N / "event=" N

    reset@event=3 x2                          # after three events; in two requests
    status=529,retry-after=2 x1 after=1       # only the second request
    error=api_error,message="Oh, no"@event=-1

A place is counted from 0, or from the end if negative. `xN` says in how many requests, `after=N` how many before them are well.
A value with a blank, a comma, a quote or an @ is written as a JSON string. `FAULTS` has a line for each name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rawsse.errors import ConfigurationError, quote

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
