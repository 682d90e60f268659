"""Python types -> JSON Schema, and JSON values -> the Python values that those types mean.

This file knows which JSON a type stands for, both ways. It refuses to know functions, tools and the API.

    schema_of(list[int])                                # {'type': 'array', 'items': {'type': 'integer'}}
    convert([1, 2, 2], set[int])                        # {1, 2}
    convert("x", int)                                   # MismatchError: value: expected an integer, got 'x'

It knows what JSON has (`str`, `int`, `float`, `bool`, `None`, lists, `dict`), `Any`, tuples and sets, `Literal`, `Enum`,
`Union` and `Optional`, `Annotated[T, "what it is"]`, `NewType`, `TypedDict`, dataclasses, dates, `UUID` and `Path`, and every
class that has pydantic's `model_json_schema` and `model_validate`; pydantic itself is never imported. A dict in `Annotated`
adds its keywords to the schema (`Annotated[int, {"minimum": 1}]`): they are told to the model, and not checked here.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, get_args

from rawsse.client.schema.docstring import read_docstring
from rawsse.client.schema.hints import ARRAYS, MISSING, SCALARS, TEXTS, Field, Kind, fields_of_class, look_at, resolved
from rawsse.errors import ConfigurationError, quote

_ARTICLES: Mapping[str, str] = {"integer": "an integer", "array": "an array", "object": "an object", "null": "null"}
_UNIQUE = (set, frozenset)


class MismatchError(ValueError):
    """A JSON value does not fit the type. The message begins with the path to what does not: `input.days[2]`."""


# --- Types -> JSON Schema ------------------------------------------------------------------------------------------


def schema_of(hint: Any, *, where: str = "the type") -> dict[str, Any]:
    """The JSON Schema of a type. `where` is what an error calls it. Raises `ConfigurationError` for what JSON has not."""
    writer = _Writer(where)
    return writer.finished(writer.schema(hint))


def schema_of_fields(
    fields: Iterable[Field], *, extra: Any = None, where: Callable[[Field], str] = lambda field: field.name
) -> dict[str, Any]:
    """The JSON Schema of an object with these properties. Others are refused, or (`extra`) have that type."""
    writer = _Writer("")
    return writer.finished(writer.object(fields, extra=extra, where=where))


class _Writer:
    """Writes one schema. Classes that contain themselves, and what pydantic defines, go to `$defs` at its top."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._definitions: dict[str, Any] = {}
        self._open: list[Any] = []  # the classes whose schema is being written
        self._names: dict[Any, str] = {}  # in `$defs`, of the classes that contain themselves

    def finished(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def schema(self, hint: Any) -> dict[str, Any]:
        kind, hint, origin, arguments = look_at(hint)
        match kind:
            case "any":
                return {}
            case "scalar":
                return {"type": SCALARS[origin]}
            case "text":
                return {"type": "string", "format": TEXTS[origin.__module__, origin.__name__][0]}
            case "annotated":
                return self._annotated(arguments[0], hint.__metadata__)
            case "literal":
                return self._options(hint, arguments)
            case "enum":
                return self._options(hint, list(origin))
            case "union":
                return _any_of([self.schema(argument) for argument in arguments])
            case "model":
                return self._model(origin)
            case "fields":
                return self._class(origin)
        return self._container(kind, hint, origin, arguments)

    def _container(self, kind: Kind, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        match kind:
            case "array":
                items = {"items": self.schema(arguments[0])} if arguments else {}
                return {"type": "array", **items, **({"uniqueItems": True} if ARRAYS[origin] in _UNIQUE else {})}
            case "mapping":
                if arguments and resolved(arguments[0]) not in (str, Any):
                    raise self._unknown(hint, "the keys of an object are strings")
                return {"type": "object", **({"additionalProperties": self.schema(arguments[1])} if arguments else {})}
            case "tuple":
                return {"type": "array", **self._members(arguments)}
        raise self._unknown(hint)

    def _members(self, hints: tuple[Any, ...]) -> dict[str, Any]:
        if not hints:
            return {}
        if hints[-1] is Ellipsis:
            return {"items": self.schema(hints[0])}
        return {
            "prefixItems": [self.schema(hint) for hint in hints],
            "minItems": len(hints),
            "maxItems": len(hints),
        }

    def _unknown(self, hint: Any, why: str = "JSON has no such type") -> ConfigurationError:
        name = hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        return ConfigurationError(f"{self._where}: there is no JSON Schema for {quote(name)}: {why}")

    def _annotated(self, hint: Any, metadata: Sequence[Any]) -> dict[str, Any]:
        schema = self.schema(hint)
        for item in metadata:
            said = item if isinstance(item, str) else getattr(item, "description", None)
            if isinstance(said, str):
                schema = {**schema, "description": inspect.cleandoc(said)}
            elif isinstance(item, Mapping):
                schema = {**schema, **item}
        return schema

    def _options(self, hint: Any, options: Iterable[Any]) -> dict[str, Any]:
        values = [_value_of(option) for option in options]
        if not all(isinstance(value, str | int | float | None) for value in values):
            raise self._unknown(hint, "its values must be strings, numbers, booleans or None")
        kinds = {_json_type(value) for value in values}
        return {"enum": values, **({"type": kinds.pop()} if len(kinds) == 1 else {})}

    def _class(self, cls: Any) -> dict[str, Any]:
        if cls in self._open or cls in self._names:
            name = self._names.setdefault(cls, self._free_name(cls.__name__))
            return {"$ref": f"#/$defs/{name}"}
        self._open.append(cls)
        outside = self._where
        schema = self.object(fields_of_class(cls), where=lambda field: f"{outside}, {cls.__name__}.{field.name}")
        self._open.pop()
        doc = cls.__dict__.get("__doc__")
        # A dataclass without a docstring gets one that is its signature.
        if doc and not doc.startswith(f"{cls.__name__}(") and (said := read_docstring(doc).description):
            schema = {"description": said, **schema}
        if cls not in self._names:
            return schema
        self._definitions[self._names[cls]] = schema
        return {"$ref": f"#/$defs/{self._names[cls]}"}

    def object(self, fields: Iterable[Field], *, extra: Any = None, where: Callable[[Field], str]) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        required: list[str] = []
        outside = self._where
        for field in fields:
            self._where = where(field)
            properties[field.name] = self._property(field)
            required += [field.name] if field.is_required else []
        self._where = outside
        others = False if extra is None else self.schema(extra) or True
        needs = {"required": required} if required else {}
        return {"type": "object", "properties": properties, **needs, "additionalProperties": others}

    def _property(self, field: Field) -> dict[str, Any]:
        schema = self.schema(field.hint)
        if field.description:
            schema = {"description": field.description, **schema}
        default = _value_of(field.default)
        return {**schema, "default": default} if _is_json(default) else schema

    def _model(self, model: Any) -> dict[str, Any]:
        """What pydantic says of its model, with its definitions moved to the top, where their references look for them."""
        schema: dict[str, Any] = model.model_json_schema()
        definitions = schema.pop("$defs", {})
        taken = {name for name, what in definitions.items() if self._definitions.get(name, what) != what}
        names = {name: self._free_name(name) for name in taken}
        self._definitions |= {names.get(name, name): _renamed(what, names) for name, what in definitions.items()}
        renamed: dict[str, Any] = _renamed(schema, names)
        return renamed

    def _free_name(self, name: str) -> str:
        taken = {*self._definitions, *self._names.values()}
        number = 2
        free = name
        while free in taken:
            free, number = f"{name}{number}", number + 1
        return free


def _any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    different = [schema for index, schema in enumerate(schemas) if schema not in schemas[:index]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """The schema with its references to `names` renamed."""
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    renamed = {key: _renamed(item, names) for key, item in schema.items()}
    if isinstance(reference := schema.get("$ref"), str):
        prefix, _, name = reference.rpartition("/")
        renamed["$ref"] = f"{prefix}/{names.get(name, name)}"
    return renamed


def _value_of(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.value if isinstance(value, Enum) else value


def _is_json(value: Any) -> bool:
    if value is MISSING:
        return False
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


# --- JSON values -> Python values ----------------------------------------------------------------------------------


def convert(value: Any, hint: Any, path: str = "value") -> Any:
    """The Python value of that type which a JSON value stands for. Raises `MismatchError`, which names the path.

    What the type leaves open stays as it is. A type without a JSON Schema takes anything.
    """
    kind, _, origin, arguments = look_at(hint)
    read = _READERS.get(kind)
    return value if read is None else read(value, origin, arguments, path)


def convert_fields(value: Any, fields: Iterable[Field], path: str, *, extra: Any = None) -> dict[str, Any]:
    """The properties of a JSON object, each converted; those left out stay out. Raises `MismatchError`."""
    given = _object(value, path)
    known = {field.name: field for field in fields}
    missing = [name for name, field in known.items() if field.is_required and name not in given]
    unknown = [name for name in given if name not in known]
    if missing:
        raise MismatchError(f"{path}: missing {', '.join(map(repr, missing))}")
    if unknown and extra is None:
        raise MismatchError(f"{path}: unknown {', '.join(map(quote, unknown))}; known: {', '.join(known) or 'nothing'}")
    hints = {**dict.fromkeys(unknown, extra), **{name: field.hint for name, field in known.items()}}
    return {name: convert(item, hints[name], f"{path}.{name}") for name, item in given.items()}


# One function per kind of type: from the value, the type's origin and arguments, and the path.


def _read_scalar(value: Any, origin: Any, arguments: Any, path: str) -> Any:
    del arguments
    name = SCALARS[origin]
    kind = _json_type(value)
    if kind == name:
        return value
    if name == "number" and kind == "integer":
        return _call(float, value, path)  # more than 308 digits do not fit
    # JSON Schema, 6.1.1: "integer" matches any number with a zero fractional part.
    if name == "integer" and kind == "number" and value.is_integer():
        return int(value)
    raise MismatchError(f"{path}: expected {_ARTICLES.get(name, f'a {name}')}, got {_shown(value)}")


def _read_array(value: Any, origin: Any, arguments: tuple[Any, ...], path: str) -> Any:
    return _call(ARRAYS[origin], _convert_items(value, arguments[0] if arguments else Any, path), path)


def _read_tuple(value: Any, origin: Any, hints: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    del origin
    if not hints or hints[-1] is Ellipsis:
        return tuple(_convert_items(value, hints[0] if hints else Any, path))
    items = _convert_items(value, Any, path)
    if len(items) != len(hints):
        raise MismatchError(f"{path}: expected {len(hints)} items, got {len(items)}")
    return tuple(convert(item, hint, f"{path}[{i}]") for i, (item, hint) in enumerate(zip(items, hints, strict=True)))


def _read_mapping(value: Any, origin: Any, arguments: tuple[Any, ...], path: str) -> dict[str, Any]:
    del origin
    hint = arguments[1] if arguments else Any
    return {name: convert(item, hint, f"{path}.{name}") for name, item in _object(value, path).items()}


def _read_option(value: Any, origin: Any, arguments: tuple[Any, ...], path: str) -> Any:
    """Of a `Literal` (its arguments) or an `Enum` (its members)."""
    options = arguments or tuple(origin)
    for option in options:
        wire = _value_of(option)
        if wire == value and _json_type(wire) == _json_type(value):  # 1 is not true
            return option
    shown = ", ".join(repr(_value_of(option)) for option in options)
    raise MismatchError(f"{path}: expected one of {shown}, got {_shown(value)}")


def _read_union(value: Any, origin: Any, hints: tuple[Any, ...], path: str) -> Any:
    """As the first of the types that fits; the value's own type goes first, so that 1 stays 1 for `float | int`."""
    del origin
    reasons: list[str] = []
    for hint in sorted(hints, key=lambda hint: hint is not type(value)):
        try:
            return convert(value, hint, path)
        except MismatchError as exc:
            reasons.append(str(exc))
    raise MismatchError("; or ".join(dict.fromkeys(reasons)))


def _read_fields(value: Any, origin: Any, arguments: Any, path: str) -> Any:
    del arguments
    found = convert_fields(value, fields_of_class(origin), path)
    return found if typing.is_typeddict(origin) else _call(lambda given: origin(**given), found, path)


def _read_text(value: Any, origin: Any, arguments: Any, path: str) -> Any:
    text = _read_scalar(value, str, arguments, path)
    method = TEXTS[origin.__module__, origin.__name__][1]
    return _call(getattr(origin, method) if method else origin, text, path)


_READERS: Mapping[Kind, Callable[[Any, Any, tuple[Any, ...], str], Any]] = {
    "annotated": lambda value, origin, arguments, path: convert(value, arguments[0], path),
    "array": _read_array,
    "enum": _read_option,
    "fields": _read_fields,
    "literal": _read_option,
    "mapping": _read_mapping,
    "model": lambda value, origin, arguments, path: _call(origin.model_validate, value, path),
    "scalar": _read_scalar,
    "text": _read_text,
    "tuple": _read_tuple,
    "union": _read_union,
}


def _convert_items(value: Any, hint: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise MismatchError(f"{path}: expected an array, got {_shown(value)}")
    return [convert(item, hint, f"{path}[{index}]") for index, item in enumerate(value)]


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MismatchError(f"{path}: expected an object, got {_shown(value)}")
    return value


def _call(make: Callable[[Any], Any], value: Any, path: str) -> Any:
    """What a class makes of the value. Its error says why that does not fit."""
    try:
        return make(value)
    except Exception as exc:
        raise MismatchError(f"{path}: {exc}") from exc


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names = ((str, "string"), (int, "integer"), (float, "number"), (dict, "object"), (list, "array"))
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    kind = _json_type(value)
    return _ARTICLES[kind] if kind in ("object", "array", "null") else quote(repr(value)).strip("'\"")
