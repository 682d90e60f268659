"""A function's signature -> the JSON Schema of its input, and an input -> the arguments of a call.

This file knows how functions are annotated and documented. It refuses to know tools and the API.

    signature = Signature(get_weather)
    signature.name, signature.description, signature.input_schema()
    get_weather(**signature.arguments({"city": "Oslo"}))

A parameter's description is that of its `Annotated` type, or what the docstring says of it. One without an annotation takes
anything. `*args` and positional-only parameters cannot be given by name, and are refused; `**kwargs` take what is left.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rawsse.client.schema.docstring import read_docstring
from rawsse.client.schema.hints import MISSING, Field
from rawsse.client.schema.types import convert_fields, schema_of_fields
from rawsse.errors import ConfigurationError, quote


class FunctionSchema(NamedTuple):
    """What a tool definition says of a function."""

    name: str
    description: str
    input_schema: dict[str, Any]


def schema_of_function(function: Callable[..., Any]) -> FunctionSchema:
    """Name, description and input schema, from signature and docstring. Raises `ConfigurationError`."""
    signature = Signature(function)
    return FunctionSchema(signature.name, signature.description, signature.input_schema())


class Signature:
    """How a function is called with a JSON object. Raises `ConfigurationError` for what cannot be called so.

    `fields` are its parameters. `extra` is the type of what `**kwargs` take, None if there are none.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = _name_of(function)
        docstring = read_docstring(getattr(function, "__doc__", None))
        self.description = docstring.description
        self.fields: list[Field] = []
        self.extra: Any = None
        parameters = _parameters_of(function, self.name)
        hints = _hints_of(function, self.name)
        for parameter in parameters:
            self._add(parameter, hints.get(parameter.name, Any), docstring.parameters.get(parameter.name, ""))

    def _add(self, parameter: inspect.Parameter, hint: Any, description: str) -> None:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise ConfigurationError(f"{self.name}: {str(parameter)!r} cannot be given by name, as a tool's input is")
        if parameter.kind is parameter.VAR_KEYWORD:
            self.extra = hint
        else:
            is_required = parameter.default is MISSING
            self.fields.append(Field(parameter.name, hint, is_required, parameter.default, description))

    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the input. Raises `ConfigurationError`, which names the parameter and its type."""
        return schema_of_fields(
            self.fields, extra=self.extra, where=lambda field: f"{self.name}, parameter {field.name!r}"
        )

    def arguments(self, value: Any) -> dict[str, Any]:
        """The keyword arguments that an input stands for. Raises `MismatchError`, which names what does not fit."""
        return convert_fields(value, self.fields, "input", extra=self.extra)


def _name_of(function: Callable[..., Any]) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return str(getattr(inner, "__name__", None) or type(inner).__name__)


def _parameters_of(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{name} has no signature that can be read: {exc}") from None


def _hints_of(function: Callable[..., Any], name: str) -> Mapping[str, Any]:
    """The types of the parameters. That of the result is left out: it is nobody's business, and may be there for a type
    checker only."""
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__
    inner = inspect.unwrap(inner.__init__ if inspect.isclass(inner) else inner)
    annotations = {key: hint for key, hint in getattr(inner, "__annotations__", {}).items() if key != "return"}
    holder: Any = types.SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(holder, globalns=getattr(inner, "__globals__", {}), include_extras=True)
    except NameError as exc:
        at = next((key for key, hint in annotations.items() if str(exc.name) in str(hint)), "?")
        raise ConfigurationError(
            f"{name}, parameter {at!r}: the type {quote(str(annotations.get(at)))} cannot be resolved: {exc} "
            "(types in string annotations must be defined at the top of a module)"
        ) from None
