"""What a type annotation stands for: which kind it is of, and which fields it has.

This file knows the types of Python. It refuses to know JSON Schema and JSON values; see `schema.py` for both.

    kind, hint, origin, arguments = look_at(list[int])       # "array", list[int], list, (int,)
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

from rawsse.client.schema.docstring import read_docstring
from rawsse.errors import ConfigurationError

MISSING: Any = inspect.Parameter.empty
"""The default of a field that has none."""


class Field(NamedTuple):
    """One property of a JSON object: of a dataclass, of a `TypedDict`, or a function's parameter."""

    name: str
    hint: Any
    is_required: bool
    default: Any = MISSING
    description: str = ""


# What JSON calls it.
SCALARS: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    None: "null",
}

# What is an array in JSON, and what is made of it.
ARRAYS: Mapping[Any, Callable[[list[Any]], Any]] = {
    list: list,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    set: set,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
    frozenset: frozenset,
}
_MAPPINGS = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})

# What JSON writes as a string, by module and name, so that none of these modules need be imported: the schema's `format`,
# and the class's own method that reads it ("" is the class itself).
TEXTS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("datetime", "datetime"): ("date-time", "fromisoformat"),
    ("datetime", "date"): ("date", "fromisoformat"),
    ("datetime", "time"): ("time", "fromisoformat"),
    ("uuid", "UUID"): ("uuid", ""),
    ("pathlib", "Path"): ("path", ""),
    ("pathlib._local", "Path"): ("path", ""),
}

Kind: TypeAlias = Literal[
    "annotated",
    "any",
    "array",
    "enum",
    "fields",
    "literal",
    "mapping",
    "model",
    "scalar",
    "text",
    "tuple",
    "union",
    "unknown",
]
"""`text` is what JSON writes as a string; `model` a class like pydantic's; `fields` a dataclass or `TypedDict`."""


def resolved(hint: Any) -> Any:
    """The type behind a `NewType`, a type alias or a type variable (its bound)."""
    while True:
        if hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif isinstance(hint, typing.TypeVar):
            hint = hint.__bound__ or Any
        else:
            return hint


def _kind_of(hint: Any, origin: Any) -> Kind:
    if origin is Annotated:
        return "annotated"
    if origin is Any or origin is object:
        return "any"
    if origin is Literal:
        return "literal"
    if origin is Union or origin is types.UnionType:
        return "union"
    if hint is None or isinstance(origin, type):
        return _kind_of_class(origin)
    return "unknown"


def _kind_of_class(origin: Any) -> Kind:
    if origin in SCALARS:
        return "scalar"
    if origin in ARRAYS:
        return "array"
    if origin in _MAPPINGS:
        return "mapping"
    if (origin.__module__, origin.__name__) in TEXTS:
        return "text"
    if issubclass(origin, enum.Enum):
        return "enum"
    if hasattr(origin, "model_json_schema") and hasattr(origin, "model_validate"):
        return "model"
    if dataclasses.is_dataclass(origin) or typing.is_typeddict(origin):
        return "fields"
    return "tuple" if origin is tuple else "unknown"


def look_at(hint: Any) -> tuple[Kind, Any, Any, tuple[Any, ...]]:
    """Kind, the type itself, its origin (`list` of `list[int]`) and its arguments."""
    hint = resolved(hint)
    origin = Annotated if hasattr(hint, "__metadata__") else get_origin(hint) or hint
    return _kind_of(hint, origin), hint, origin, get_args(hint)


def fields_of_class(cls: Any) -> list[Field]:
    """The fields of a dataclass (those that its `__init__` takes) or of a `TypedDict`."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as exc:
        raise ConfigurationError(f"{cls.__name__} has an annotation that cannot be resolved: {exc}") from None
    told = read_docstring(cls.__dict__.get("__doc__")).parameters
    if dataclasses.is_dataclass(cls):
        return [_dataclass_field(field, hints, told) for field in dataclasses.fields(cls) if field.init]
    return [_key_of_typed_dict(cls, name, hint, told) for name, hint in hints.items()]


def _dataclass_field(field: dataclasses.Field[Any], hints: Mapping[str, Any], told: Mapping[str, str]) -> Field:
    default = MISSING if field.default is dataclasses.MISSING else field.default
    is_required = default is MISSING and field.default_factory is dataclasses.MISSING
    said = field.metadata.get("description") or told.get(field.name, "")
    return Field(field.name, hints[field.name], is_required, default, str(said))


def _key_of_typed_dict(cls: Any, name: str, hint: Any, told: Mapping[str, str]) -> Field:
    # With string annotations `__required_keys__` has not seen the wrappers, so these come first.
    is_required = name in cls.__required_keys__
    while (origin := get_origin(hint)) in (typing.Required, typing.NotRequired) or "ReadOnly" in str(origin):
        is_required = is_required if "ReadOnly" in str(origin) else origin is typing.Required
        (hint,) = get_args(hint)
    return Field(name, hint, is_required, MISSING, told.get(name, ""))
