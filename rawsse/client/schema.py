"""JSON Schema from functions and types, and Python values from JSON values. Pure.

    signature = Signature(get_weather)
    signature.name, signature.description, signature.input_schema()
    get_weather(**signature.arguments({"city": "Oslo"}))

    form_of(list[int], "x").schema                      # {"type": "array", "items": {"type": "integer"}}
    form_of(int, "x").read("three", "input.days")       # MismatchError: input.days: expected an integer, got 'three'

Plain types are read here: `str`, `int`, `float`, `bool`, `None`, `Any`, `list`, `dict`, `Literal`, `Enum`, `Union`, `Optional`,
and `Annotated` with a string (the description) or a dict (schema keywords, which are sent to the model but not checked:
`Annotated[int, {"minimum": 1}]`). Every other type (dataclasses, `TypedDict`s, models, dates, tuples …) needs pydantic, the
extra `schema`: pydantic makes the schema and checks the values.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from rawsse.errors import ConfigurationError, quote

MAX_REASONS = 5
"""How many of pydantic's reasons an error shows: a list of invalid objects may have one for each object."""

_SCALARS: Mapping[type, str] = {bool: "boolean", str: "string", int: "integer", float: "number", type(None): "null"}
_TYPES: Mapping[type, str] = {**_SCALARS, dict: "object", list: "array"}
"""Python's types of JSON values, and their names in JSON Schema. A `bool` is an `int`, so it is first."""


class MismatchError(ValueError):
    """A JSON value does not fit the type. The message begins with the path of that value: `input.days[2]`."""


class Form(NamedTuple):
    """A type as JSON: its schema, and a function from a JSON value and its path to the Python value.

    `adapter` is pydantic's `TypeAdapter` if the type is pydantic's.
    """

    schema: dict[str, Any]
    read: Callable[[Any, str], Any]
    adapter: Any = None


_ANYTHING = Form({}, lambda value, path: value)


def form_of(hint: Any, where: str) -> Form:
    """The type as JSON. `where` is its name in errors. Raises `ConfigurationError` if it has no JSON Schema."""
    return _plain_form(hint) or _pydantic_form(hint, where)


# --- Plain types ---------------------------------------------------------------------------------------------------


def _plain_form(hint: Any) -> Form | None:
    hint = type(None) if hint is None else hint
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin is Annotated:
        return _annotated(arguments)
    if origin is Literal:
        return _options([(item.value if isinstance(item, Enum) else item, item) for item in arguments])
    if origin is Union or origin is types.UnionType:
        return _union(arguments)
    if origin is Any or origin is object:
        return _ANYTHING
    if origin is list or origin is dict:
        return _container(origin, arguments)
    if isinstance(origin, type) and issubclass(origin, Enum):
        return _options([(member.value, member) for member in origin])
    if isinstance(origin, type) and (name := _SCALARS.get(origin)):
        return Form({"type": name}, partial(_read_scalar, name))
    return None


def _annotated(arguments: tuple[Any, ...]) -> Form | None:
    form = _plain_form(arguments[0])
    if form is None or not all(isinstance(item, str | Mapping) for item in arguments[1:]):
        return None
    schema = dict(form.schema)
    for item in arguments[1:]:
        schema |= {"description": inspect.cleandoc(item)} if isinstance(item, str) else item
    return form._replace(schema=schema)


def _options(options: list[tuple[Any, Any]]) -> Form | None:
    """One of these values, as (JSON, Python) pairs."""
    if not all(isinstance(wire, str | int | float | None) for wire, _ in options):
        return None
    kinds = {_json_type(wire) for wire, _ in options}

    def read(value: Any, path: str) -> Any:
        for wire, option in options:
            if wire == value and _json_type(wire) == _json_type(value):  # 1 is not true
                return option
        shown = ", ".join(repr(wire) for wire, _ in options)
        raise MismatchError(f"{path}: expected one of {shown}, got {_shown(value)}")

    return Form({"enum": [wire for wire, _ in options], **({"type": kinds.pop()} if len(kinds) == 1 else {})}, read)


def _union(hints: tuple[Any, ...]) -> Form | None:
    forms = [(hint, form) for hint in hints if (form := _plain_form(hint)) is not None]
    if len(forms) < len(hints):
        return None

    def read(value: Any, path: str) -> Any:
        """The first type that fits; the value's own type is tried first, so that 1 stays 1 for `float | int`."""
        reasons: list[str] = []
        for _, form in sorted(forms, key=lambda pair: pair[0] is not type(value)):
            try:
                return form.read(value, path)
            except MismatchError as exc:
                reasons.append(str(exc))
        raise MismatchError("; or ".join(dict.fromkeys(reasons)))

    return Form({"anyOf": [form.schema for _, form in forms]}, read)


def _container(origin: type[Any], arguments: tuple[Any, ...]) -> Form | None:
    items = _plain_form(arguments[-1]) if arguments else _ANYTHING
    if items is None or (origin is dict and arguments and arguments[0] is not str):
        return None
    name, keyword = _TYPES[origin], "items" if origin is list else "additionalProperties"

    def read(value: Any, path: str) -> Any:
        if not isinstance(value, origin):
            raise _mismatch(name, value, path)
        if isinstance(value, list):
            return [items.read(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return {key: items.read(item, f"{path}.{key}") for key, item in value.items()}

    return Form({"type": name, **({keyword: items.schema} if arguments else {})}, read)


def _read_scalar(name: str, value: Any, path: str) -> Any:
    kind = _json_type(value)
    if kind == name:
        return value
    if name == "number" and kind == "integer":
        try:
            return float(value)
        except OverflowError as exc:
            raise MismatchError(f"{path}: {exc}") from None
    # JSON Schema, 6.1.1: "integer" matches any number with a zero fractional part.
    if name == "integer" and kind == "number" and value.is_integer():
        return int(value)
    raise _mismatch(name, value, path)


def _json_type(value: Any) -> str:
    return next(name for kind, name in _TYPES.items() if isinstance(value, kind))


def _mismatch(name: str, value: Any, path: str) -> MismatchError:
    return MismatchError(f"{path}: expected {_with_article(name)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    kind = _json_type(value)
    return _with_article(kind) if kind in ("object", "array", "null") else quote(repr(value)).strip("'\"")


def _with_article(name: str) -> str:
    return name if name == "null" else f"an {name}" if name[0] in "aio" else f"a {name}"


# --- Other types ---------------------------------------------------------------------------------------------------


def _pydantic_form(hint: Any, where: str) -> Form:
    name = quote(hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint))
    try:
        pydantic = importlib.import_module("pydantic")
    except ImportError:
        problem = f"the type {name} needs pydantic, which is not installed: pip install 'rawsse[schema]'"
        raise ConfigurationError(f"{where}: {problem}") from None
    try:
        adapter = pydantic.TypeAdapter(_with_fields(hint, pydantic.Field))
        schema = adapter.json_schema()
    except Exception as exc:  # pydantic has an error for each kind of type
        reason = str(exc).partition("\n")[0]
        raise ConfigurationError(f"{where}: there is no JSON Schema for {name}: {reason}") from None

    def read(value: Any, path: str) -> Any:
        try:
            return adapter.validate_json(json.dumps(value))  # strict models accept date strings only in JSON text
        except pydantic.ValidationError as exc:
            raise MismatchError(_reasons(exc.errors(), path)) from exc
        except Exception as exc:  # from the type's own code
            raise MismatchError(f"{path}: {exc}") from exc

    return Form(schema, read, adapter)


def _with_fields(hint: Any, field: Callable[..., Any]) -> Any:
    """The type, with the strings and dicts of `Annotated` converted to pydantic's `Field`s."""

    def as_field(item: Any) -> Any:
        if isinstance(item, str):
            return field(description=inspect.cleandoc(item))
        return field(json_schema_extra=dict(item)) if isinstance(item, Mapping) else item

    return Annotated[(hint.__origin__, *map(as_field, hint.__metadata__))] if get_origin(hint) is Annotated else hint


def _reasons(faults: list[Any], path: str) -> str:
    """pydantic's reasons why a value does not fit, in one line."""
    reasons = [".".join(map(str, (path, *fault["loc"]))) + f": {fault['msg']}" for fault in faults[:MAX_REASONS]]
    return "; ".join(reasons) + (f"; and {len(faults) - MAX_REASONS} more" if len(faults) > MAX_REASONS else "")


# --- Functions -----------------------------------------------------------------------------------------------------


class Signature:
    """The name, description and parameters of a function that is called with a JSON object.

    A parameter is described by its `Annotated` type, or else by the docstring. A parameter without an annotation accepts
    anything, and `**kwargs` accept the rest. Raises `ConfigurationError` for `*args` and positional-only parameters,
    which cannot be given by name, for types without a JSON Schema, and for a signature that cannot be read.

    With `is_open` the parameters are not inspected, and the function gets any object unchanged.
    """

    def __init__(self, function: Callable[..., Any], *, is_open: bool = False) -> None:
        inner = function.func if isinstance(function, partial) else function
        self.name = str(getattr(inner, "__name__", None) or type(inner).__name__)
        self.description, self._descriptions = read_docstring(getattr(function, "__doc__", None))
        self._forms: dict[str, Form] = {}
        self._rest = _ANYTHING if is_open else None  # of `**kwargs`
        self._parameters, hints = ({}, {}) if is_open else _parameters_of(function, self.name)
        for name, parameter in self._parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                problem = "cannot be given by name, as a tool's input is"
                raise ConfigurationError(f"{self.name}: {str(parameter)!r} {problem}")
            form = form_of(hints.get(name, Any), f"{self.name}, parameter {name!r}")
            if parameter.kind is parameter.VAR_KEYWORD:
                self._rest = form
            else:
                self._forms[name] = form
        self._required = [name for name in self._forms if self._parameters[name].default is inspect.Parameter.empty]

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the input."""
        forms = {**self._forms, "**": self._rest or _ANYTHING}
        schemas = {name: form.schema for name, form in forms.items()}
        definitions: dict[str, Any] = {}
        if adapters := [(name, "validation", form.adapter) for name, form in forms.items() if form.adapter]:
            # All at once: pydantic collects their classes in one `$defs`, each under a unique name.
            made, definitions = adapters[0][2].json_schemas(adapters)
            schemas |= {name: schema for (name, _), schema in made.items()}
        rest = schemas.pop("**") or True
        return {
            "type": "object",
            "properties": {name: self._property(name, schema) for name, schema in schemas.items()},
            **({"required": self._required} if self._required else {}),
            "additionalProperties": self._rest is not None and rest,
            **definitions,
        }

    def _property(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with the description and the default of the parameter."""
        if said := self._descriptions.get(name):
            schema = {"description": said, **schema}
        default = self._parameters[name].default
        default = default.value if isinstance(default, Enum) else default
        try:
            json.dumps(default, allow_nan=False)
        except (TypeError, ValueError, RecursionError):  # no default, or one that JSON cannot represent
            return schema
        return {**schema, "default": default}

    def arguments(self, value: Any) -> dict[str, Any]:
        """The keyword arguments in an input. Raises `MismatchError`."""
        if not isinstance(value, dict):
            raise _mismatch("object", value, "input")
        if missing := [name for name in self._required if name not in value]:
            raise MismatchError(f"input: missing {', '.join(map(repr, missing))}")
        if self._rest is None and (unknown := [name for name in value if name not in self._forms]):
            known = ", ".join(self._forms) or "nothing"
            raise MismatchError(f"input: unknown {', '.join(map(quote, unknown))}; known: {known}")
        rest = self._rest or _ANYTHING
        return {name: self._forms.get(name, rest).read(item, f"input.{name}") for name, item in value.items()}


def _parameters_of(function: Callable[..., Any], name: str) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """The parameters, and their types. The return type is not resolved: it may exist only for type checkers."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{name} has no signature that can be read: {exc}") from None
    inner: Any = function.func if isinstance(function, partial) else function
    if not inspect.isroutine(inner):
        inner = inner.__init__ if inspect.isclass(inner) else type(inner).__call__
    inner = inspect.unwrap(inner)
    annotations = {key: hint for key, hint in getattr(inner, "__annotations__", {}).items() if key != "return"}
    holder: Any = types.SimpleNamespace(__annotations__=annotations)
    try:
        names = getattr(inner, "__globals__", {})
        return parameters, typing.get_type_hints(holder, globalns=names, include_extras=True)
    except NameError as exc:
        at = next((key for key, hint in annotations.items() if str(exc.name) in str(hint)), "?")
        problem = f"the type {quote(str(annotations.get(at)))} cannot be resolved: {exc}"
        advice = "(types in string annotations must be defined at the top of a module)"
        raise ConfigurationError(f"{name}, parameter {at!r}: {problem} {advice}") from None


# --- Docstrings ----------------------------------------------------------------------------------------------------

_PARAMETERS = "args|arguments|params|parameters|keyword args|keyword arguments|other parameters"
_OTHERS = "returns?|yields?|raises?|examples?|notes?|see also|warnings?|warns|todo|references|attributes"
# Compiled on first use: most programs that load this file make no tools.
# A section: Google's title has a colon, NumPy's a line of dashes below it.
_TITLE = rf"(?im)^({_PARAMETERS}|{_OTHERS})(?::[ \t]*$|:?[ \t]*\n(---+)[ \t]*$)"
# Google: "    name (type): description", where "(type)" may be missing; "*names" are names.
_GOOGLE_ENTRY = r"\*{0,2}(\w+)[ \t]*(?:\([^)\n]*\))?[ \t]*:"
# NumPy: "name : type", "name", and "a, b : type" at the margin; the description is indented below.
_NUMPY_NAMES = r"((?:\*{0,2}\w+)(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?"
# Sphinx: ":param name: description", ":param type name: description", but not ":class:`Name` in a text". Epydoc: "@" for ":".
_FIELD = r"(?m)^[:@](\w+)(?:[ \t]+([^:\n]*))?:(?!`)(.*(?:\n(?:[ \t].*)?)*)"
_FIELD_PARAMETERS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword", "kwarg", "kwparam"})


def read_docstring(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The description (the part before the first section), and the descriptions of the parameters by name.

    Four styles are read: Google's ("Args:"), NumPy's ("Parameters" and a line below it), Sphinx's (":param name:") and
    epydoc's ("@param name:").
    """
    text = inspect.cleandoc(docstring or "")
    descriptions: dict[str, str] = {}
    for name, words, said in re.findall(_FIELD, text):
        if name in _FIELD_PARAMETERS and words:
            descriptions[words.split()[-1].lstrip("*")] = " ".join(said.split())
    description, *sections = re.split(_TITLE, re.sub(_FIELD, "", text))
    for title, rule, body in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        if re.fullmatch(_PARAMETERS, title.lower()):
            descriptions = {**(_numpy_entries(body) if rule else _google_entries(body)), **descriptions}
    return description.strip(), descriptions


def _google_entries(body: str) -> dict[str, str]:
    indented = re.split(r"(?m)^(?=\S)", body, maxsplit=1)[0]  # until a paragraph at the margin
    parts = re.split(rf"(?m)^{_GOOGLE_ENTRY}", textwrap.dedent(indented))
    return {name: " ".join(said.split()) for name, said in zip(parts[1::2], parts[2::2], strict=True)}


def _numpy_entries(body: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", body):
        names, _, said = entry.partition("\n")
        if (found := re.fullmatch(_NUMPY_NAMES, names.strip())) and said.strip():
            entries |= dict.fromkeys(re.findall(r"\w+", found[1]), " ".join(said.split()))
    return entries
