"""Python functions as tools: what the model is told of them, and how a call of one becomes its result.

This file knows tool definitions (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use) and tool results. It refuses to
know messages, and when a tool is run.

    @tool
    async def get_weather(city: str, unit: Literal["c", "f"] = "c") -> str:
        \"\"\"The weather at a place, now.

        Args:
            city: City and country.
        \"\"\"

    get_weather.to_dict()                        # {"name": "get_weather", "description": …, "input_schema": {…}}
    await get_weather("Oslo")                    # still the function
    await get_weather.run({"city": "Oslo"})      # as the model calls it: the content of a tool_result

A function that is not async runs in a thread of its own, with the context variables of the caller: it blocks nothing, and all
calls of an answer run at once, however many they are. Nobody can stop a thread, so one whose call is cancelled runs on, its
result is dropped, and it does not keep the program from ending: what it does then is cut off, wherever it is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

from rawsse.client.aside import Aside
from rawsse.client.schema.signature import Signature
from rawsse.client.schema.types import MismatchError, schema_of
from rawsse.errors import ConfigurationError, quote
from rawsse.messages.lens import Lens

__all__ = [
    "RESULT_BLOCK_TYPES",
    "Content",
    "Tool",
    "ToolError",
    "Toolbox",
    "beta_async_tool",
    "beta_tool",
    "content_of",
    "run_tool",
    "tool",
]

P = ParamSpec("P")
R = TypeVar("R")

Content: TypeAlias = str | list[dict[str, Any]]
"""The content of a tool result: a text, or content blocks."""

RESULT_BLOCK_TYPES = frozenset({"browser_state", "document", "image", "search_result", "text", "tool_reference"})
"""The types of the content blocks that a tool result may hold. A list of anything else is written as JSON."""


class ToolError(Exception):
    """Raise it in a tool to answer with `is_error` and this content: a text, or content blocks (an image, say)."""

    def __init__(self, content: str | Iterable[Mapping[str, Any]]) -> None:
        self.content: Any = content if isinstance(content, str) else [dict(block) for block in content]
        texts = [
            str(block.get("text") or f"[{block.get('type')}]") for block in self.content if isinstance(block, dict)
        ]
        super().__init__(content if isinstance(content, str) else " ".join(texts))


# --- Tools ---------------------------------------------------------------------------------------------------------


class Tool(Generic[P, R]):
    """A function with what the model is told of it. Called, it is the function.

    `name`, `description` and `input_schema` (a JSON Schema, or a type that has one) replace what signature and docstring
    say; `fields` are any others of the tool definition (`strict`, `cache_control`, `defer_loading` …). With a `type` other
    than "custom" it is a tool that Anthropic has defined (`bash_20250124` …): its definition is its type, its name and
    `fields`. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        input_schema: Mapping[str, Any] | type | None = None,
        **fields: Any,
    ) -> None:
        self.function = function
        self.fields = {field: value for field, value in fields.items() if value is not None}
        self._is_custom = self.fields.get("type", "custom") == "custom"
        self._signature = _signature_of(function, is_needed=self._is_custom and input_schema is None)
        self.name = _name_of(function, name, self._signature)
        told = self._signature.description if self._signature else inspect.getdoc(function) or ""
        self.description: str = told if description is None else description
        self.input_schema: dict[str, Any] = self._schema(input_schema) if self._is_custom else {}

    def _schema(self, given: Mapping[str, Any] | type | None) -> dict[str, Any]:
        if isinstance(given, Mapping):
            return dict(given)
        if given is not None:
            return schema_of(given, where=f"{self.name}, input_schema")
        return self._signature.input_schema() if self._signature else {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def to_dict(self) -> dict[str, Any]:
        """The tool definition, as it stands in a request."""
        if not self._is_custom:
            return {"name": self.name, **self.fields}
        told = {"description": self.description} if self.description else {}
        return {"name": self.name, **told, "input_schema": self.input_schema, **self.fields}

    async def run(self, input: Any) -> Content:  # noqa: A002 - the API's word for it
        """Call the function with an input of the model's, and give what is to be sent back.

        Raises `MismatchError` if the input does not fit the function, and whatever the function raises.
        """
        arguments = self._arguments(input)
        function: Callable[..., Any] = self.function
        if inspect.iscoroutinefunction(function):
            result = await function(**arguments)
        else:
            loop = asyncio.get_running_loop()
            result, error = await loop.run_in_executor(Aside("rawsse-tool"), _outcome, function, arguments)
            if error is not None:
                raise error
            if inspect.isawaitable(result):
                result = await result
        return content_of(result)

    def _arguments(self, value: Any) -> dict[str, Any]:
        if self._signature is not None:
            return self._signature.arguments(value)
        if not isinstance(value, dict):
            raise MismatchError("input: expected an object")
        return value


def _signature_of(function: Callable[..., Any], *, is_needed: bool) -> Signature | None:
    """The signature, if it can be read. A function with a schema of its own may have one that cannot."""
    if not callable(function):
        raise ConfigurationError(f"a tool is made of a function, not of {quote(repr(function))}")
    try:
        return Signature(function)
    except ConfigurationError:
        if is_needed:
            raise
        return None


def _name_of(function: Callable[..., Any], given: str | None, signature: Signature | None) -> str:
    name = given or (signature.name if signature else getattr(function, "__name__", ""))
    if not name or name == "<lambda>":
        raise ConfigurationError("a tool needs a name: give name, or a function that has one")
    return str(name)


def _outcome(function: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[Any, Exception | None]:
    # Not raised from the thread: asyncio's futures refuse a StopIteration, and whoever waits for one would wait for ever.
    try:
        return function(**arguments), None
    except Exception as exc:
        return None, exc


@overload
def tool(
    function: Callable[P, R],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    input_schema: Mapping[str, Any] | type | None = None,
    **fields: Any,
) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    input_schema: Mapping[str, Any] | type | None = None,
    **fields: Any,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a `Tool`; bare (`@tool`) or with any of the arguments of `Tool` (`@tool(strict=True)`)."""
    made: Any = Tool
    return partial(made, **options) if function is None else made(function, **options)


beta_tool = tool
"""The official SDK's name for it."""

beta_async_tool = tool
"""The official SDK's name for it."""


class Toolbox:
    """The tools of a request: `Tool`s, plain functions, and definitions without a function (dicts), in any mixture.

    `given` are the tools as they were given, `definitions` what the request says of them, `functions` those that can be run
    here, by name. Raises `ConfigurationError`.
    """

    def __init__(self, tools: Iterable[Any] = ()) -> None:
        self.definitions: list[dict[str, Any]] = []
        self.functions: dict[str, Tool[..., Any]] = {}
        self.names: list[str] = []
        self.given = list(tools)
        for given in self.given:
            self._add(given)

    def _add(self, given: Any) -> None:
        if isinstance(given, Mapping | Lens):
            self.definitions.append(given.raw if isinstance(given, Lens) else dict(given))
            name = given.get("name")
        else:
            made = given if isinstance(given, Tool) else Tool(given)
            self.definitions.append(made.to_dict())
            name = made.name
            self.functions.setdefault(made.name, made)
        if isinstance(name, str):  # toolsets have none
            if name in self.names:
                raise ConfigurationError(f"two tools have the name {quote(name)}")
            self.names.append(name)


# --- Results -------------------------------------------------------------------------------------------------------


async def run_tool(given: Tool[..., Any], call_id: str, input: Any) -> dict[str, Any]:  # noqa: A002 - as in `Tool.run`
    """The `tool_result` of one call. What the tool raises becomes one with `is_error`; only what ends programs and tasks
    (`KeyboardInterrupt`, `CancelledError` …) passes."""
    try:
        return {"type": "tool_result", "tool_use_id": call_id, "content": await given.run(input)}
    except ToolError as exc:
        content = _well_formed(exc.content)
    except MismatchError as exc:
        content = _well_formed(str(exc))
    except Exception as exc:
        content = _well_formed(f"{type(exc).__name__}: {exc}")
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, "is_error": True}


def content_of(result: Any) -> Content:
    """What a tool returned, as the content of its result: a text as it is, nothing for None, content blocks as they are, and
    every other value as JSON. Raises `TypeError` for what JSON has not."""
    if result is None:
        return ""
    if isinstance(result, str):
        return str(_well_formed(result))
    if isinstance(result, Sequence) and result and all(_is_block(block) for block in result):
        blocks: list[dict[str, Any]] = _well_formed(
            [block.raw if isinstance(block, Lens) else block for block in result]
        )
        return blocks
    return str(_well_formed(json.dumps(result, ensure_ascii=False, default=_plain)))


def _is_block(value: Any) -> bool:
    return isinstance(value, Mapping | Lens) and value.get("type") in RESULT_BLOCK_TYPES


def _plain(value: Any) -> Any:
    """A value that JSON has not, as one that it has."""
    for is_one, plain in _PLAIN:
        if is_one(value):
            return plain(value)
    has_text = type(value).__str__ is not cast(Any, object.__str__)
    if has_text and not isinstance(value, bytes | bytearray):  # a path, a UUID, a decimal number
        return str(value)
    raise TypeError(f"a tool's result cannot be written as JSON: it has a value of type {type(value).__name__}")


_PLAIN: Sequence[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = (
    (lambda value: isinstance(value, Lens), lambda value: value.raw),
    (lambda value: isinstance(value, enum.Enum), lambda value: value.value),
    (
        lambda value: dataclasses.is_dataclass(value) and not isinstance(value, type),
        lambda value: {field.name: getattr(value, field.name) for field in dataclasses.fields(value)},
    ),
    (lambda value: hasattr(value, "model_dump"), lambda value: value.model_dump(mode="json")),  # pydantic's models
    (lambda value: hasattr(value, "isoformat"), lambda value: value.isoformat()),  # dates and times
    (lambda value: isinstance(value, Mapping), dict),
    (lambda value: isinstance(value, Iterable) and not isinstance(value, bytes | bytearray), list),
)


def _well_formed(value: Any) -> Any:
    """The value without lone surrogates, which no request can carry; names of files have some."""
    if isinstance(value, str):
        return value if _is_well_formed(value) else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _well_formed(item) for name, item in value.items()}
    return value


def _is_well_formed(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
