"""A lens: attribute access to a JSON object, without copying it; and the reading of JSON text (RFC 8259).

The wire's JSON is the truth, and it is kept as `json.loads` gave it: unknown fields, unknown types and the order of keys all
survive. A lens is one thin object over one dict, so that an event costs one parse and one small object however large it is.

    class Delta(Lens):
        text: str                  # for the reader and for mypy: a bare annotation, no code
        note: str | None           # admits None: reads as None where the wire left it out

    delta = Delta({"type": "text_delta", "text": "hi", "new": 1})
    delta.text, delta.note, delta.raw["new"], delta.new     # 'hi', None, 1, 1

Objects inside are looked at through lenses as well, of the class that `FIELDS` of the outer class names, or plain `Lens`.

`to_dict` gives the JSON back as it came. `to_json`, `model_dump`, `model_dump_json` and `repr` write what the official SDK's
models write: the fields in the order of the annotations, unknown ones last. All but `to_json` show the fields that admit None
and did not come as None.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, NoReturn

__all__ = ["Lens", "copied", "object_at", "parse_json", "read_json"]

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # undocumented


def read_json(text: str) -> Any:
    """The JSON value that `text` is. The same values, NaN and Infinity among them, and the same errors as `json.loads`:
    `ValueError` or `RecursionError`."""
    # On a text delta `json.loads` takes 2.1 us, of which the C scanner takes 1.0. The scanner alone accepts text after the
    # value, and neither blanks nor a byte order mark before it; those are left to `json.loads`.
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass  # not a value at the first character
    return json.loads(text)


def parse_json(text: str | bytes) -> Any:
    """The JSON value that `text` is. Raises `ValueError` or `RecursionError`.

    RFC 8259, 6: "Numeric values that cannot be represented in the grammar below (such as Infinity and NaN) are not
    permitted." Python's parser takes them; the API would not take them back.
    """
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value")


def object_at(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON object in a field; an empty one if there is none, or something else."""
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def copied(raw: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of a JSON object. By way of its text: what `json` could read it can write, however deep it is nested, where
    `copy.deepcopy` gives up at 300 levels. That takes a few times as long; but nobody copies a message for each event."""
    copy: dict[str, Any] = json.loads(json.dumps(raw))
    return copy


class Lens:
    """Attribute access to the JSON object `raw`. Equal if class and JSON are equal. `raw` is the dict itself, not a copy."""

    __slots__ = ("raw",)
    raw: dict[str, Any]

    FIELDS: ClassVar[Mapping[str, Callable[[dict[str, Any]], Any]]] = {}
    """What makes the lens for the objects in a field (and in a list in that field)."""

    OPAQUE: ClassVar[frozenset[str]] = frozenset()
    """Fields whose objects are the caller's own JSON (a tool's input): they are given out as they are."""

    _declared: ClassVar[tuple[str, ...]] = ()  # the annotated fields, in their order
    _nullable: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        hints = {name: str(hint) for name, hint in inspect.get_annotations(cls).items()}
        slots = {name for base in cls.__mro__ for name in vars(base).get("__slots__", ())}
        own = [name for name, hint in hints.items() if name not in slots and "ClassVar" not in hint]
        # A field that is annotated again takes its place anew.
        cls._declared = (*(name for name in cls._declared if name not in own), *own)
        cls._nullable = cls._nullable | {name for name, hint in hints.items() if "None" in hint}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "raw":  # `raw` is missing while `copy` or `pickle` build the object
            raise AttributeError(name)
        try:
            value = self.raw[name]
        except KeyError:
            if name in self._nullable:
                return None
            has = ", ".join(self.raw)
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; the JSON has: {has}") from None
        return self._look(name, value)

    def _look(self, name: str, value: Any) -> Any:
        if isinstance(value, dict) and name not in self.OPAQUE:
            return self.FIELDS.get(name, Lens)(value)
        if isinstance(value, list) and name not in self.OPAQUE:
            return [self._look(name, item) for item in value]
        return value

    def __getitem__(self, name: str) -> Any:
        """The JSON value itself, as in the dict. Raises `KeyError`."""
        return self.raw[name]

    def __contains__(self, name: object) -> bool:
        return name in self.raw

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def get(self, name: str, default: Any = None) -> Any:
        """The JSON value itself, or `default`."""
        return self.raw.get(name, default)

    def keys(self) -> list[str]:
        """The names of the fields on the wire; with `__getitem__`, what `dict(lens)` needs."""
        return list(self.raw)

    def to_dict(self) -> dict[str, Any]:
        """A deep copy of the JSON, nothing added and nothing left out."""
        return copied(self.raw)

    def to_json(self, *, indent: int | None = 2, exclude_none: bool = False) -> str:
        """The JSON as text, nothing added: indented by so many spaces, or compact; not escaped beyond what JSON needs."""
        return self.model_dump_json(indent=indent, exclude_unset=True, exclude_none=exclude_none)

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Collection[str] | None = None,
        exclude: Collection[str] = (),
        exclude_unset: bool = False,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """A deep copy of the JSON in the order of the class, and with the fields that admit None and did not come.

        `include` and `exclude` name fields of this object; the other two leave fields out at every depth that the classes
        know. `mode` changes nothing: all there is is JSON.
        """
        given = self._arranged(is_full=not exclude_unset, has_none=not exclude_none)
        return copied({n: v for n, v in given.items() if n not in exclude and (include is None or n in include)})

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """What `model_dump` gives, as text: compact, or indented by so many spaces."""
        separators = (",", ":") if indent is None else None
        return json.dumps(self.model_dump(**options), ensure_ascii=False, indent=indent, separators=separators)

    def _names(self, *, is_full: bool) -> Iterator[str]:
        """The fields in the order of the class; all that admit None, or only those that came. The unknown ones last."""
        yield from (name for name in self._declared if name in self.raw or (is_full and name in self._nullable))
        yield from (name for name in self.raw if name not in self._declared)

    def _known(self, name: str) -> Any:
        """The value of a field: lenses where the class names one, the JSON itself elsewhere."""
        value = self.raw.get(name)
        return self._look(name, value) if name in self.FIELDS else value

    def _arranged(self, *, is_full: bool, has_none: bool) -> dict[str, Any]:
        try:
            return {
                name: _arranged(self._known(name), is_full=is_full, has_none=has_none)
                for name in self._names(is_full=is_full)
                if has_none or self.raw.get(name) is not None
            }
        except RecursionError:  # nested as deep as no answer is: as it came
            return self.raw

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Lens) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]  # as a dict: it may change while the stream runs

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:
        """What `repr` shows, one by one: the protocol of the package `rich`."""
        for name in self._names(is_full=True):
            yield name, self._known(name)

    def __repr__(self) -> str:
        try:
            shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        except RecursionError:
            shown = "…"
        return f"{type(self).__name__}({shown})"


def _arranged(value: Any, *, is_full: bool, has_none: bool) -> Any:
    if isinstance(value, Lens):
        return value._arranged(is_full=is_full, has_none=has_none)
    if isinstance(value, list):
        return [_arranged(item, is_full=is_full, has_none=has_none) for item in value]
    return value
