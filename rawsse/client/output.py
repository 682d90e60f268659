"""Structured outputs: a JSON Schema for the request, and the answer's text as a Python value
(https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs).

    order = OutputFormat(Order)                  # any type that `schema.py` reads; a dataclass or a model needs pydantic
    order.param()                                # {"type": "json_schema", "schema": {…}}
    order.read('{"name": "tea", "count": 2}')    # Order(name='tea', count=2), or OutputFormatError

`Outputs` does this for one stream: it adds the parsed values to the events and the message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from rawsse.errors import ConfigurationError, Ending, OutputFormatError, quote
from rawsse.messages.content import Message, ParsedMessage, ParsedTextBlock, TextBlock
from rawsse.messages.events import ContentBlockStop, MessageStop, MessageStreamEvent, TextEvent
from rawsse.messages.lens import parse_json
from rawsse.messages.partial_json import PartialJSON, read_partial

T = TypeVar("T")


class OutputFormat(Generic[T]):
    """A Python type as the format of an answer. Raises `ConfigurationError` if there is no JSON Schema for it."""

    def __init__(self, type: type[T]) -> None:
        from rawsse.client.schema import form_of  # loaded only by programs that use it

        if isinstance(type, Mapping):
            raise ConfigurationError("output_format must be a type; a schema goes into output_config={'format': …}")
        self.name = getattr(type, "__name__", str(type))
        self._form = form_of(type, "output_format")
        self._schema = strict_schema(self._form.schema)

    def param(self) -> dict[str, Any]:
        """The `format` of the request's `output_config`."""
        return {"type": "json_schema", "schema": self._schema}

    def read(self, text: str) -> T:
        """The text as a value. Raises `OutputFormatError`, which holds the `text`."""
        try:
            value: T = self._form.read(parse_json(text), "output")
        except (ValueError, RecursionError) as exc:
            error = OutputFormatError(f"the text of the answer does not fit {self.name}: {exc}")
            error.text = text
            raise error from exc
        return value


def with_output_format(fields: Mapping[str, Any], wanted: OutputFormat[Any]) -> dict[str, Any]:
    """The fields of a request's body, with the format in `output_config`. Raises `ConfigurationError` if it already has one."""
    config = fields.get("output_config") or {}
    if config.get("format") is not None:
        raise ConfigurationError("give output_format or output_config['format'], not both")
    return {**fields, "output_config": {**config, "format": wanted.param()}}


# --- The subset of JSON Schema that the API accepts ------------------------------------------------------------------

_PRIMITIVE = str | int | float | None
_STRING_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema in the subset of JSON Schema that the API accepts, as the official SDK writes it.

    Objects allow no additional properties. A keyword that the API does not accept is appended to the description, for the
    model to read: `{minimum: 1, maximum: 10}`. Raises `ConfigurationError` for a schema that allows every type.
    """
    rest = dict(schema)
    definitions = rest.pop("$defs", None)
    strict: dict[str, Any] = {} if definitions is None else {"$defs": _each_strict(definitions)}
    if "$ref" in rest:
        return {**strict, "$ref": rest["$ref"]}
    kind = rest.pop("type", None)
    choice = _literals(rest) or _alternatives(rest)
    if kind is None and not choice:
        allowed = quote(json.dumps(schema, default=str))
        raise ConfigurationError(f"output_format: the API accepts no schema that leaves the type open: {allowed}")
    strict |= choice or {"type": kind}
    strict |= {name: rest.pop(name) for name in ("description", "title") if rest.get(name) is not None}
    if "enum" not in strict and "const" not in strict:
        strict |= _beside_type(kind, rest)
    if said := ", ".join(f"{name}: {value}" for name, value in rest.items() if name not in ("description", "title")):
        strict["description"] = "\n\n".join(filter(None, [strict.get("description"), f"{{{said}}}"]))
    return strict


def _each_strict(schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {name: strict_schema(schema) for name, schema in schemas.items()}


def _literals(rest: dict[str, Any]) -> dict[str, Any]:
    """`enum` and `const`, removed from `rest`. They need no type."""
    found = {"enum": rest.get("enum"), "const": [rest["const"]] if "const" in rest else None}
    lists = {name: values for name, values in found.items() if isinstance(values, list) and values}
    names = [name for name, values in lists.items() if all(isinstance(each, _PRIMITIVE) for each in values)]
    return {name: rest.pop(name) for name in names}


def _alternatives(rest: dict[str, Any]) -> dict[str, Any]:
    """`anyOf`, `oneOf` (as `anyOf`) or `allOf`, removed from `rest`."""
    found = {name: rest.pop(name) for name in ("anyOf", "oneOf", "allOf") if name in rest}
    for name, variants in found.items():
        if isinstance(variants, list):
            return {name.replace("oneOf", "anyOf"): [strict_schema(variant) for variant in variants]}
    return {}


def _beside_type(kind: Any, rest: dict[str, Any]) -> dict[str, Any]:
    """The keywords that the API accepts with this type, removed from `rest`."""
    if kind == "object":
        properties = _each_strict(rest.pop("properties", {}))
        rest.pop("additionalProperties", None)
        required = {"required": rest.pop("required")} if rest.get("required") is not None else {}
        return {"properties": properties, "additionalProperties": False, **required}
    if kind == "array":
        items = {"items": strict_schema(rest.pop("items"))} if rest.get("items") is not None else {}
        return items | ({"minItems": rest.pop("minItems")} if rest.get("minItems") in (0, 1) else {})
    return {"format": rest.pop("format")} if kind == "string" and rest.get("format") in _STRING_FORMATS else {}


# --- The answer ------------------------------------------------------------------------------------------------------


class Outputs(Generic[T]):
    """The values of one stream's text blocks. Each block is parsed once, when it is complete.

    A text that does not fit the format does not fail the stream: reading `parsed_output` raises.
    """

    def __init__(self, wanted: OutputFormat[T] | None = None) -> None:
        self._wanted = wanted
        self.has_format = wanted is not None
        """Whether there is a format to parse text as."""
        self._parsed: dict[int, T | OutputFormatError] = {}  # by the block's index in the content
        self._readers: dict[int, _Reader] = {}  # by the block's index on the wire

    def message(self, message: Message, ending: Ending | None = None) -> ParsedMessage[T]:
        """The message with the parsed values so far; it grows with the stream. `ending` is how the stream ended, if it has:
        the error of a text that does not fit gets it."""
        parsed = ParsedMessage(message, self._parsed)
        if (wanted := self._wanted) is not None:
            for index, block in enumerate(parsed.content):
                if isinstance(block, TextBlock) and (block.complete or message.stop_reason is not None):
                    self._parse(wanted, index, block.text, parsed, ending)
        return parsed

    def event(self, event: MessageStreamEvent, message: Callable[[], Message | None]) -> MessageStreamEvent:
        """The event as a `MessageStream` yields it; `message` returns the message so far."""
        if isinstance(event, TextEvent):
            return event if self._wanted is None else self._readers.setdefault(event.index, _Reader()).with_value(event)
        if isinstance(event, ContentBlockStop) and isinstance(event.content_block, TextBlock):
            event.content_block = self._block(event.content_block, message())
        elif isinstance(event, MessageStop) and event.message is not None:
            event.message = self.message(event.message)
        return event

    def _block(self, block: TextBlock, message: Message | None) -> ParsedTextBlock[T]:
        blocks = self.message(message).content if self._wanted is not None and message is not None else []
        found = (each for each in blocks if isinstance(each, ParsedTextBlock) and each.raw is block.raw)
        return next(found, ParsedTextBlock(block))

    def _parse(
        self, wanted: OutputFormat[T], index: int, text: str, message: ParsedMessage[T], ending: Ending | None
    ) -> None:
        if index not in self._parsed:
            try:
                self._parsed[index] = wanted.read(text)
            except OutputFormatError as exc:
                exc.partial, exc.request_id, exc.phase = message, message.request_id, "done"
                self._parsed[index] = exc
        if not isinstance(error := self._parsed[index], OutputFormatError):
            return
        error.ending = ending or error.ending
        # Most texts that do not fit are truncated. The stop reason arrives after the text.
        cause = f" (stop_reason: {message.stop_reason})"
        if message.stop_reason is not None and cause not in error.message:
            error.message += cause
            error.args = (error.message,)


class _Reader:
    """Parses one text block as JSON while it grows, each character once."""

    def __init__(self) -> None:
        self._reading = PartialJSON(keep_strings=True)
        self._read = 0

    def with_value(self, event: TextEvent) -> TextEvent:
        return TextEvent(event.index, event.text, event._snapshot, _parsed=lambda: self._value(event.snapshot))

    def _value(self, snapshot: str) -> Any:
        if len(snapshot) < self._read:  # an earlier event, read after a later one
            return read_partial(snapshot, keep_strings=True)
        unread, self._read = snapshot[self._read :], len(snapshot)
        self._reading.feed(unread)
        return json.loads(json.dumps(self._reading.value))  # a copy: the reader keeps changing the original
