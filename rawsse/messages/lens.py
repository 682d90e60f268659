"""A lens: attribute access to a JSON object, without copying it.

This file knows how a JSON object is looked at through a class. It refuses to know any of the API's types.

The wire's JSON is the truth, and it is kept as `json.loads` gave it: unknown fields, unknown types and the order of keys all
survive. A lens is one thin object over one dict, so that an event costs one parse and one small object however large it is.

    class Delta(Lens):
        text: str                  # for the reader and for mypy: a bare annotation, no code
        note: str | None           # admits None: reads as None where the wire left it out

    delta = Delta({"type": "text_delta", "text": "hi", "new": 1})
    delta.text, delta.note, delta.raw["new"], delta.new     # 'hi', None, 1, 1

Objects inside are looked at through lenses as well, of the class that `FIELDS` of the outer class names, or plain `Lens`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn

__all__ = ["Lens", "copied", "object_at", "parse_json"]


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

    _nullable: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = {name for name, hint in cls.__annotations__.items() if "None" in str(hint)}
        cls._nullable = cls._nullable | own

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

    def to_json(self, *, indent: int | None = None) -> str:
        """The JSON as text: compact, or indented by so many spaces; not escaped beyond what JSON needs."""
        separators = (",", ":") if indent is None else None
        return json.dumps(self.raw, ensure_ascii=False, indent=indent, separators=separators)

    model_dump = to_dict
    model_dump_json = to_json

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Lens) and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]  # as a dict: it may change while the stream runs

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.raw!r})"
