"""Answers that are values: the JSON Schema that is asked for, and the text that is read back.

A Python type becomes an `output_config.format` of the Messages API, and the text of an answer a value of that type
(https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs).

    order = OutputFormat(Order)                  # a pydantic model, a dataclass, a TypedDict, or any type that schema.py knows
    order.param()                                # {"type": "json_schema", "schema": {…}}
    order.read('{"name": "tea", "count": 2}')    # Order(name='tea', count=2), or OutputFormatError

`Outputs` does that for one stream: it gives the stream's events and message what their text was parsed to.

pydantic is never imported for its models: what has `model_json_schema` and `model_validate_json` is one. Only for a type that
`schema.py` does not know, and if it is installed, pydantic's `TypeAdapter` is asked.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from rawsse.errors import ConfigurationError, OutputFormatError, quote
from rawsse.messages.content import Message, ParsedMessage, ParsedTextBlock, TextBlock
from rawsse.messages.events import ContentBlockStop, MessageStop, MessageStreamEvent, TextEvent
from rawsse.messages.lens import parse_json
from rawsse.messages.partial_json import PartialJSON, read_partial

MAX_REASONS = 5
"""How many faults of a text its error names. One wrong list of objects has as many as it has members."""

T = TypeVar("T")


# --- What is asked for -----------------------------------------------------------------------------------------------


class OutputFormat(Generic[T]):
    """A Python type as the format of an answer. Raises `ConfigurationError` if there is no JSON Schema for it."""

    def __init__(self, type: type[T]) -> None:
        self.name = getattr(type, "__name__", str(type))
        schema, self._read = _schema_and_reader(type)
        self._schema = strict_schema(schema)

    def param(self) -> dict[str, Any]:
        """The `format` of the request's `output_config`."""
        return {"type": "json_schema", "schema": self._schema}

    def read(self, text: str) -> T:
        """The value that the text stands for. Raises `OutputFormatError`, whose `text` it is."""
        try:
            value: T = self._read(text)
        except Exception as exc:  # of JSON, of pydantic, or of the type's own code
            error = OutputFormatError(f"the text of the answer does not fit {self.name}: {_reasons(exc)}")
            error.text = text
            raise error from exc
        return value


def with_output_format(fields: Mapping[str, Any], wanted: OutputFormat[Any] | None) -> dict[str, Any]:
    """The fields of a request's body, with the format in `output_config`. Raises `ConfigurationError` if one is there."""
    if wanted is None:
        return dict(fields)
    config = fields.get("output_config") or {}
    if config.get("format") is not None:
        raise ConfigurationError("give output_format or output_config['format'], not both")
    return {**fields, "output_config": {**config, "format": wanted.param()}}


def _schema_and_reader(type: Any) -> tuple[Mapping[str, Any], Callable[[str], Any]]:
    if isinstance(type, Mapping):
        raise ConfigurationError("output_format must be a type; a schema goes into output_config={'format': …}")
    if hasattr(type, "model_json_schema") and hasattr(type, "model_validate_json"):
        return type.model_json_schema(), type.model_validate_json
    from rawsse.client.schema.types import convert, schema_of  # here: who asks for text alone need not load it

    try:
        return schema_of(type, where="output_format"), lambda text: convert(parse_json(text), type, "output")
    except ConfigurationError as exc:
        return _ask_pydantic(type, exc)


def _ask_pydantic(type: Any, refusal: ConfigurationError) -> tuple[Mapping[str, Any], Callable[[str], Any]]:
    try:
        adapter = importlib.import_module("pydantic").TypeAdapter(type)
        return adapter.json_schema(), adapter.validate_json
    except Exception:  # it is not there, or has no schema either: it has an error of its own for each kind of type
        raise refusal from None


def _reasons(exc: Exception) -> str:
    """Why a text does not fit, in one line. pydantic lists its reasons in `errors()`."""
    if not callable(listed := getattr(exc, "errors", None)):
        return str(exc)
    faults = [".".join(map(str, ("output", *fault["loc"]))) + f": {fault['msg']}" for fault in listed()]
    more = f"; and {len(faults) - MAX_REASONS} more" if len(faults) > MAX_REASONS else ""
    return "; ".join(faults[:MAX_REASONS]) + more


# --- The part of JSON Schema that the API takes ----------------------------------------------------------------------


_STRING_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_ALTERNATIVES: Mapping[str, str] = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf"}


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema in the part of JSON Schema that the API takes, as the official SDK writes it.

    Objects take no properties but their own. A keyword that the API does not take goes into the description, where the model
    may read it: `{minimum: 1, maximum: 10}`. Raises `ConfigurationError` for a schema that says nothing of its values.
    """
    rest = dict(schema)
    definitions = rest.pop("$defs", None)
    strict: dict[str, Any] = {}
    if definitions is not None:
        strict["$defs"] = {name: strict_schema(definition) for name, definition in definitions.items()}
    if "$ref" in rest:
        return {**strict, "$ref": rest["$ref"]}
    kind = rest.pop("type", None)
    strict |= _literals(rest) or _alternatives(rest) or _only_type(kind, schema)
    strict |= {name: rest.pop(name) for name in ("description", "title") if rest.get(name) is not None}
    if "enum" not in strict and "const" not in strict:
        strict |= _of_type(kind, rest)
    rest = {name: value for name, value in rest.items() if name not in ("description", "title")}
    return _told(strict, rest) if rest else strict


def _literals(rest: dict[str, Any]) -> dict[str, Any]:
    """`enum` and `const`; beside them the type says nothing. Taken out of `rest`."""
    found: dict[str, Any] = {}
    if isinstance(options := rest.get("enum"), list) and options and all(map(_is_primitive, options)):
        found["enum"] = rest.pop("enum")
    if "const" in rest and _is_primitive(rest["const"]):
        found["const"] = rest.pop("const")
    return found


def _is_primitive(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _alternatives(rest: dict[str, Any]) -> dict[str, Any]:
    taken = {name: rest.pop(name) for name in _ALTERNATIVES if name in rest}
    for name, variants in taken.items():
        if isinstance(variants, list):
            return {_ALTERNATIVES[name]: [strict_schema(variant) for variant in variants]}
    return {}


def _only_type(kind: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    if kind is None:
        what = quote(json.dumps(schema, default=str))
        raise ConfigurationError(f"output_format: the API takes no schema that leaves the type open: {what}")
    return {"type": kind}


def _of_type(kind: Any, rest: dict[str, Any]) -> dict[str, Any]:
    """What the API takes beside this type. Taken out of `rest`."""
    strict: dict[str, Any] = {}
    if kind == "object":
        properties = rest.pop("properties", {})
        strict["properties"] = {name: strict_schema(schema) for name, schema in properties.items()}
        strict["additionalProperties"] = False
        rest.pop("additionalProperties", None)
        if (required := rest.pop("required", None)) is not None:
            strict["required"] = required
    elif kind == "array":
        if (items := rest.pop("items", None)) is not None:
            strict["items"] = strict_schema(items)
        if rest.get("minItems") in (0, 1):
            strict["minItems"] = rest.pop("minItems")
    elif kind == "string" and rest.get("format") in _STRING_FORMATS:
        strict["format"] = rest.pop("format")
    return strict


def _told(strict: dict[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, with what the API does not take in its description."""
    said = "{" + ", ".join(f"{name}: {value}" for name, value in rest.items()) + "}"
    before = strict.get("description")
    return {**strict, "description": said if before is None else f"{before}\n\n{said}"}


# --- What comes back -------------------------------------------------------------------------------------------------


class Outputs(Generic[T]):
    """What the text blocks of one stream were parsed to. Each is parsed once, when it is whole.

    A text that does not fit is no failure of the stream: `parsed_output` raises when somebody asks for it.
    """

    def __init__(self, wanted: OutputFormat[T] | None = None) -> None:
        self._wanted = wanted
        self._parsed: dict[int, T | OutputFormatError] = {}  # by the block's place in the content
        self._readers: dict[int, _Reader] = {}  # by the block's index on the wire

    @property
    def has_format(self) -> bool:
        """There is a format to read text as."""
        return self._wanted is not None

    def message(self, message: Message) -> ParsedMessage[T]:
        """The message, with what is known of its text. As live as the message is."""
        parsed = ParsedMessage(message, self._parsed)
        if self._wanted is not None:
            for index, block in enumerate(parsed.content):
                if isinstance(block, TextBlock) and (block.complete or message.stop_reason is not None):
                    self._parse(index, block.text, parsed)
        return parsed

    def event(self, event: MessageStreamEvent, message: Callable[[], Message | None]) -> MessageStreamEvent:
        """The event as a `MessageStream` gives it; `message` is the message so far."""
        if isinstance(event, TextEvent):
            return event if self._wanted is None else self._readers.setdefault(event.index, _Reader()).lent_to(event)
        if isinstance(event, ContentBlockStop) and isinstance(event.content_block, TextBlock):
            event.content_block = self._block(event.content_block, message())
        elif isinstance(event, MessageStop) and event.message is not None:
            event.message = self.message(event.message)
        return event

    def _block(self, block: TextBlock, message: Message | None) -> ParsedTextBlock[T]:
        if self._wanted is not None and message is not None:
            parsed = self.message(message)
            places = [index for index, raw in enumerate(message.raw["content"]) if raw is block.raw]
            return ParsedTextBlock(block, parsed._parsed.get(places[0]) if places else None)
        return ParsedTextBlock(block)

    def _parse(self, index: int, text: str, message: ParsedMessage[T]) -> None:
        assert self._wanted is not None  # noqa: S101 - looked at by the caller
        if index not in self._parsed:
            try:
                self._parsed[index] = self._wanted.read(text)
            except OutputFormatError as exc:
                exc.partial, exc.request_id, exc.phase = message, message.request_id, "done"
                self._parsed[index] = exc
        error = self._parsed[index]
        # A text that was cut is the commonest of those that do not fit; but that it was cut is told after it.
        cause = f" (stop_reason: {message.stop_reason})"
        if isinstance(error, OutputFormatError) and message.stop_reason is not None and cause not in error.message:
            error.message += cause
            error.args = (error.message,)


class _Reader:
    """Reads one text block as JSON while it grows; every character once."""

    def __init__(self) -> None:
        self._reading = PartialJSON(keep_strings=True)
        self._read = 0

    def lent_to(self, event: TextEvent) -> TextEvent:
        return TextEvent(event.index, event.text, event._snapshot, _parsed=lambda: self._value(event.snapshot))

    def _value(self, snapshot: str) -> Any:
        if len(snapshot) < self._read:  # an event that was kept, and is asked after a later one
            return read_partial(snapshot, keep_strings=True)
        unread, self._read = snapshot[self._read :], len(snapshot)
        self._reading.feed(unread)
        return json.loads(json.dumps(self._reading.value))  # a copy: the reader goes on with its own
