"""Attribute access to a JSON object without copying it (a lens), and functions that read JSON text (RFC 8259).

The JSON is kept as `json.loads` returned it: unknown fields, unknown types and the order of keys are preserved. A lens is one
thin object over one dict, so an event costs one parse and one small object, whatever its size.

    class Delta(Lens):
        text: str                  # only an annotation, for readers and mypy
        note: str | None           # allows None, as Any does: None if the JSON lacks the field

    delta = Delta({"type": "text_delta", "text": "hi", "new": 1})
    delta.text, delta.note, delta.raw["new"], delta.new     # 'hi', None, 1, 1

Nested objects are lenses too: of the annotated class, or plain `Lens`. Type checkers see only the annotated fields, so
they find misspelled names; use `delta["new"]` for unknown fields. An unpaired surrogate, which no file or terminal
accepts, is replaced with U+FFFD; `raw` has it as received.

`to_dict` returns the JSON as received. `to_json`, `model_dump`, `model_dump_json` and `repr` match the official SDK's
models: the fields in the order of the annotations, unknown fields last. All but `to_json` include the missing fields whose
annotation names None.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args

from rawsse.errors import ConfigurationError, quote

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # undocumented


def read_json(text: str) -> Any:
    """The JSON value of `text`: the values of `json.loads`, including NaN and Infinity, and its errors, `ValueError` and
    `RecursionError`."""
    # For a text delta `json.loads` takes 1.5 us, the C scanner in it 0.6. The scanner alone ignores text after the value, and
    # accepts neither blanks nor a byte order mark before it; such texts are left to `json.loads`.
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass  # no value at the first character
    return json.loads(text)


def parse_json(text: str | bytes) -> Any:
    """The JSON value of `text`, without NaN and infinite numbers (`1e999`), and with U+FFFD for unpaired surrogates. Raises
    `ValueError` or `RecursionError`.

    RFC 8259, 6: "Numeric values that cannot be represented in the grammar below (such as Infinity and NaN) are not
    permitted." Python's parser accepts them; the API would reject them in a request.
    """
    value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    return as_sent(value) if isinstance(text, str) and re.search(_HALF, text) else value


_HALF = r"\\u[dD][89a-fA-F]|[\ud800-\udfff]"  # or a whole pair


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{quote(text)} is not a JSON value: numbers are finite")
    return number


def object_at(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON object in a field; an empty one if the field is missing or has another type."""
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def is_json_object(value: object) -> bool:
    """Whether it is an object that JSON can represent: without NaN and infinite numbers."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return isinstance(value, dict)


def copied(raw: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of a JSON object, made by serializing and parsing it: `copy.deepcopy` fails at 300 levels. It is a few
    times slower, which does not matter where it is used."""
    return cast(dict[str, Any], json.loads(json.dumps(raw)))


def well_formed(text: str) -> str:
    """Valid Unicode: a surrogate pair becomes its character, an unpaired surrogate becomes U+FFFD. No request can contain
    one; answers and file names can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_sent(value: Any) -> Any:
    """A deep copy of a JSON value that can be sent: strings are well formed, and null replaces numbers that are not finite."""
    return json.loads(well_formed(json.dumps(value, ensure_ascii=False)), parse_constant=lambda _: None)


def sendable_json(raw: dict[str, Any]) -> dict[str, Any]:
    """A part of an answer, with null for numbers that are not finite. The object itself if it has none, or if a caller has
    added values that only the encoder of requests supports."""
    with suppress(TypeError, ValueError, RecursionError):
        return raw if is_json_object(raw) else cast(dict[str, Any], as_sent(raw))
    return raw


class Lens:
    """Attribute access to the JSON object `raw`. Equal if class and JSON are equal. `raw` is the dict itself, not a copy.

    A subclass may be equal to the class that it extends: `class ParsedMessage(Message, plain=Message)`.
    """

    __slots__ = ("raw",)
    raw: dict[str, Any]

    FIELDS: ClassVar[Mapping[str, Callable[[dict[str, Any]], Any]]] = {}
    """Field -> the class or function that makes the lens of an object in it, or in its list. A field whose annotation
    begins with a lens class of the same module (`Tail`, `list[Tail] | None`) need not be listed."""

    OPAQUE: ClassVar[frozenset[str]] = frozenset()
    """Fields whose objects are the caller's own JSON (a tool's input): they are returned unchanged."""

    _declared: ClassVar[Mapping[str, str]] = {}  # the fields in their order, with their annotations
    _kind: ClassVar[type[Lens]]  # the class to compare as

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def __init_subclass__(cls, *, plain: type[Lens] | None = None) -> None:
        super().__init_subclass__()
        cls._kind = plain or cls
        own = {name: hint for name, hint in inspect.get_annotations(cls).items() if "ClassVar" not in hint}
        named = vars(sys.modules[cls.__module__])
        kinds = {name: named.get(hint.removeprefix("list[").split(" ")[0].rstrip("]")) for name, hint in own.items()}
        lenses = {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Lens)}
        cls.FIELDS = {**lenses, **cls.FIELDS}
        # A field that is annotated again moves to its new position.
        cls._declared = {**{name: hint for name, hint in cls._declared.items() if name not in own}, **own}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") or name == "raw":  # `raw` is missing while `copy` or `pickle` build the object
                raise AttributeError(name)
            if name in self.raw:
                return self._look(name, self.raw[name])
            hint = self._declared.get(name, "")
            if "None" in hint or hint == "Any":  # `Any`: a field of a beta, which a dump does not add
                return None
            has = ", ".join(self.raw)
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; the JSON has: {has}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name, _ in self._fields())]

    def _look(self, name: str, value: Any) -> Any:
        if isinstance(value, dict) and name not in self.OPAQUE:
            return self.FIELDS.get(name, Lens)(value)
        if isinstance(value, list) and name not in self.OPAQUE:
            return [self._look(name, item) for item in value]
        return well_formed(value) if isinstance(value, str) and not value.isascii() else value

    def __getitem__(self, name: str) -> Any:
        """The raw JSON value. Raises `KeyError`."""
        return self.raw[name]

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def get(self, name: str, default: Any = None) -> Any:
        """The raw JSON value, or `default`."""
        return self.raw.get(name, default)

    def keys(self) -> list[str]:
        """The names of the fields in the JSON; `dict(lens)` needs this and `__getitem__`."""
        return list(self.raw)

    def to_dict(self) -> dict[str, Any]:
        """A deep copy of the JSON, with nothing added or left out."""
        return copied(self.raw)

    def to_json(self, *, indent: int | None = 2, exclude_none: bool = False) -> str:
        """The JSON as text, with nothing added: indented by `indent` spaces, or compact; escaped only where necessary."""
        return self.model_dump_json(indent=indent, exclude_unset=True, exclude_none=exclude_none)

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        exclude_unset: bool = False,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """A deep copy of the JSON in the order of the class, with the missing fields that allow None.

        `include` and `exclude` name fields of this object; nested ones raise `ConfigurationError`. `exclude_unset` and
        `exclude_none` also apply to nested objects of known classes. `mode` has no effect: every value is JSON.
        """
        given = _arranged(self, is_full=not exclude_unset, has_none=not exclude_none)
        kept, left_out = given if include is None else _names_in(include), _names_in(exclude or ())
        return copied({name: value for name, value in given.items() if name in kept and name not in left_out})

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """The result of `model_dump` as text: compact, or indented by `indent` spaces. Numbers that are not finite become
        null (RFC 8259, 6)."""
        separators = (",", ":") if indent is None else None
        dumped = as_sent(self.model_dump(**options))
        return json.dumps(dumped, ensure_ascii=False, indent=indent, separators=separators)

    def _fields(self, *, is_full: bool = True, has_none: bool = True) -> Iterator[tuple[str, Any]]:
        """The fields in the order of the class, unknown fields last. `is_full` adds the missing fields that allow None.

        Values are lenses where the class names one, the JSON itself elsewhere.
        """
        known = [name for name, hint in self._declared.items() if name in self.raw or (is_full and "None" in hint)]
        for name in [*known, *(name for name in self.raw if name not in self._declared)]:
            value = getattr(self, name) if name in self.FIELDS else self.raw.get(name)
            if has_none or value is not None:
                yield name, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lens) and self._kind is other._kind and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]  # mutable, like a dict: it may change while the stream runs

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        """The fields that `repr` shows: the protocol of the package `rich`."""
        return self._fields()

    def __repr__(self) -> str:
        try:
            shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        except RecursionError:
            shown = "…"
        return f"{type(self).__name__}({shown})"


Lens._kind = Lens


class OpenLens(Lens):
    """A lens whose fields vary: for a type checker it has every name."""

    __slots__ = ()
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def by_type(union: Any) -> dict[str, Any]:
    """The classes of a union, by the values that the annotation of their `type` lists."""
    # The annotation is text: `Literal['text']`.
    return {name: each for each in get_args(union) for name in re.findall(r"\w+", each.__annotations__["type"])[1:]}


def _names_in(given: Iterable[str]) -> Collection[str]:
    """The names in `include` or `exclude`. pydantic's nested forms are rejected rather than taken as whole fields."""
    is_flat = not isinstance(given, Mapping) or all(value in (True, ...) for value in given.values())
    names = [*given]
    if isinstance(given, str) or not is_flat or not all(isinstance(name, str) and name != "__all__" for name in names):
        raise ConfigurationError(f"include and exclude take names of the object's own fields, not {quote(repr(given))}")
    return names


def _arranged(value: Any, **which: bool) -> Any:
    """The value with its lenses as dicts; `which` are the options of `Lens._fields`."""
    if isinstance(value, list):
        return [_arranged(item, **which) for item in value]
    if not isinstance(value, Lens):
        return value
    try:
        return {name: _arranged(item, **which) for name, item in value._fields(**which)}
    except RecursionError:  # nested deeper than any real answer: as received
        return value.raw
