"""Python functions as tools of the Messages API: definitions, calls, and the `tool_result` of a call
(https://docs.anthropic.com/en/docs/agents-and-tools/tool-use).

    @tool
    async def get_weather(city: str, unit: Literal["c", "f"] = "c") -> str:
        \"\"\"The weather at a place, now.

        Args:
            city: City and country.
        \"\"\"

    get_weather.to_dict()                        # {"name": "get_weather", "description": …, "input_schema": {…}}
    await get_weather("Oslo")                    # the function itself
    await get_weather.call({"city": "Oslo"})     # the same call with the model's input

A non-async function runs in a daemon thread, with a copy of the caller's context variables; with the blocking client it runs in
the caller's thread, if there is one call at a time and no `max_seconds`. So a connection of SQLite is opened in the function. A
thread cannot be stopped: if the call is cancelled, the function keeps running, its result is dropped, and the program may
exit before the function returns. A result is sent as it is if it is a string or content blocks, and else as JSON.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

from rawsse.client.request import listed
from rawsse.client.schema import MismatchError, Signature, form_of
from rawsse.errors import ConfigurationError, quote
from rawsse.messages.content import is_sendable, look_at_block
from rawsse.messages.lens import Lens, well_formed

logger = logging.getLogger("rawsse.client")

P = ParamSpec("P")
R = TypeVar("R")

Content: TypeAlias = str | list[dict[str, Any]]
"""The content of a tool result: a text, or content blocks."""

_BLOCK_TYPES = ("browser_state", "document", "image", "search_result", "text", "tool_reference")
"""The types of content blocks that a tool result may contain. Any other list is sent as JSON."""


class ToolError(Exception):
    """Raised by a tool to answer the call with `is_error` and this content: a text, or content blocks such as an image."""

    def __init__(self, content: str | Iterable[Mapping[str, Any]]) -> None:
        self.content = content_of(content)
        blocks = [{"text": self.content}] if isinstance(self.content, str) else self.content
        super().__init__(" ".join(str(block.get("text") or f"[{block['type']}]") for block in blocks))


# --- Tools ---------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def check_name(name: str) -> None:
    """Raises `ConfigurationError` for a name that the API rejects."""
    if not _NAME.fullmatch(name):
        rule = "a tool's name has 1 to 128 of the letters a-z and A-Z, digits, _ and -"
        raise ConfigurationError(f"the API takes no tool with the name {quote(name)}: {rule}")


class Tool(Generic[P, R]):
    """A function with its tool definition. Calling the tool calls the function.

    `name`, `description` and `input_schema` (a JSON Schema, or a type to make one from) replace those of the signature
    and the docstring; `fields` are other fields of the definition (`strict`, `cache_control`, `defer_loading` …). With a
    `type` other than "custom" (`bash_20250124` …) Anthropic defines the tool: the definition is then type, name and
    `fields`. Parameter types are checked only if the schema is made from them. `is_async` is True for a coroutine
    function. Raises `ConfigurationError`.
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
        if not callable(function):
            raise ConfigurationError(f"a tool is made of a function, not of {quote(repr(function))}")
        if inspect.isasyncgenfunction(function):
            problem = "is an async generator, which has no result: return a list"
            raise ConfigurationError(f"{quote(repr(function))} {problem}")
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.fields = {field: value for field, value in fields.items() if value is not None}
        self._is_custom = self.fields.get("type", "custom") == "custom"
        self._signature = Signature(function, is_open=not self._is_custom or input_schema is not None)
        self.name = str(name or self._signature.name)
        if self.name in ("", "<lambda>"):
            raise ConfigurationError("a tool needs a name: give name, or a function that has one")
        check_name(self.name)
        self.description: str = self._signature.description if description is None else description
        if input_schema is None:
            self.input_schema = self._signature.input_schema()
        elif isinstance(input_schema, Mapping):
            self.input_schema = dict(input_schema)
        else:
            self.input_schema = form_of(input_schema, f"{self.name}, input_schema").schema

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"

    def to_dict(self) -> dict[str, Any]:
        """The tool definition for a request."""
        if not self._is_custom:
            return {"name": self.name, **self.fields}
        described = {"description": self.description} if self.description else {}
        return {"name": self.name, **described, "input_schema": self.input_schema, **self.fields}

    def call(self, input: Any) -> R:  # noqa: A002 - the API's word for it
        """Call the function with the model's input and return its result; an async function returns an awaitable.

        Raises `MismatchError` if the input does not fit the function, and any exception that the function raises.
        """
        function: Callable[..., R] = self.function
        return function(**self._signature.arguments(input))


@overload
def tool(function: Callable[P, R], /, **options: Any) -> Tool[P, R]: ...


@overload
def tool(**options: Any) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a `Tool` from a function: bare (`@tool`), or with arguments of `Tool` (`@tool(strict=True)`)."""
    made: Any = Tool
    return partial(made, **options) if function is None else made(function, **options)


beta_tool = tool
"""The official SDK's name for it."""

beta_async_tool = tool
"""The official SDK's name for it."""


class Toolbox:
    """The tools of a request, in any mixture: `Tool`s, functions, and definitions without a function (dicts).

    `given` are the caller's tools, `definitions` are for the request, `functions` maps names to the tools that can run
    here. Raises `ConfigurationError`, also for async functions unless `can_await`.
    """

    def __init__(self, tools: Iterable[Any] = (), *, can_await: bool = True) -> None:
        self.given = listed("tools", tools)
        entries = [entry if isinstance(entry, Tool | Mapping | Lens) else Tool(entry) for entry in self.given]
        self.definitions = [dict(entry) if isinstance(entry, Mapping) else entry.to_dict() for entry in entries]
        self.functions: dict[str, Tool[..., Any]] = {entry.name: entry for entry in entries if isinstance(entry, Tool)}
        self.names = [str(each["name"]) for each in self.definitions if isinstance(each.get("name"), str)]
        for name in self.names:
            check_name(name)
            if self.names.count(name) > 1:
                raise ConfigurationError(f"two tools have the name {quote(name)}")
            if name in self.functions and self.functions[name].is_async and not can_await:
                advice = "use a function that is not async, or AsyncClient"
                raise ConfigurationError(f"a blocking client cannot run the async tool {quote(name)}: {advice}")


# --- Results -------------------------------------------------------------------------------------------------------


def tool_result(call_id: str, content: Content, *, is_error: bool = False) -> dict[str, Any]:
    """The `tool_result` block that answers a call."""
    result = {"type": "tool_result", "tool_use_id": call_id, "content": content}
    return {**result, "is_error": True} if is_error else result


def run_tool(given: Tool[..., Any], call_id: str, value: Any, *, can_await: bool = False) -> Any:
    """The `tool_result` of one call with the input `value`. If the function returns an awaitable: with `can_await`, a
    coroutine that returns the result, otherwise an error result.

    An exception becomes a result with `is_error`, even `CancelledError` and `GeneratorExit`: they do not come from the
    caller, who waits for the result. `KeyboardInterrupt`, `SystemExit` and others outside `Exception` propagate.
    """
    try:
        result = given.call(value)
        if not inspect.isawaitable(result):
            return tool_result(call_id, content_of(result))
        if can_await:
            return _await_tool(given, call_id, result)
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that it was never awaited
        raise TypeError("the tool returned an awaitable, which a blocking client cannot await")
    except BaseException as exc:
        return failed(given.name, call_id, exc)


async def _await_tool(given: Tool[..., Any], call_id: str, awaitable: Awaitable[Any]) -> dict[str, Any]:
    try:
        return tool_result(call_id, content_of(await awaitable))
    except BaseException as exc:
        if is_cancellation(exc):  # the runner's task decides what was cancelled
            raise
        return failed(given.name, call_id, exc)


def _is_failure(error: BaseException) -> bool:
    """Whether the error concerns the tool rather than the program. In a group, all errors must."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_failure, error.exceptions))
    return isinstance(error, Exception | GeneratorExit) or is_cancellation(error)


def is_cancellation(error: BaseException | None) -> bool:
    """Whether it is the `CancelledError` of asyncio or another library, and no subclass of `Exception`."""
    # By name: a blocking program has not loaded asyncio.
    return not isinstance(error, Exception) and any(base.__name__ == "CancelledError" for base in type(error).__mro__)


async def run_tool_on_loop(run: Any, given: Tool[..., Any], call_id: str, value: Any) -> dict[str, Any]:
    """`run_tool` in a task. A non-async function runs in a thread, by `run` (`client.messages._run`)."""
    call = partial(run_tool, given, call_id, value, can_await=True)
    [result] = [call()] if given.is_async else await run([call])
    return cast(dict[str, Any], await result if inspect.isawaitable(result) else result)


def failed(name: str, call_id: str, error: BaseException) -> dict[str, Any]:
    """The `tool_result` of a call that raised `error`. Re-raises an error that concerns the program (`KeyboardInterrupt` …).

    A warning in the log names the tool and the error's type, unless the error is for the model: a `ToolError`, or an input
    that does not fit. At the level debug the places where it was raised follow.
    """
    if not _is_failure(error):
        raise error
    if isinstance(error, ToolError):
        return tool_result(call_id, error.content, is_error=True)
    if isinstance(error, MismatchError):
        return tool_result(call_id, content_of(str(error)), is_error=True)
    # Without its message, which may quote the input or a secret.
    logger.warning("the tool %s raised %s", name, type(error).__name__)
    logger.debug("it was raised here:\n%s", "".join(traceback.format_tb(error.__traceback__)))
    return tool_result(call_id, content_of(f"{type(error).__name__}: {error}"), is_error=True)


def content_of(result: Any) -> Content:
    """The return value of a tool as the content of its result: text and content blocks unchanged, None as an empty text,
    any other value as JSON. Lone surrogates, numbers that are not finite and blank text blocks are invalid in a request:
    they are replaced or left out. Raises `TypeError` or `ValueError` for a value that JSON cannot represent."""
    if result is None:
        return ""
    text = well_formed(json.dumps(result, ensure_ascii=False, default=_plain))
    content: Any = json.loads(text, parse_constant=lambda _: None)
    blocks = content if isinstance(content, list) else []
    if blocks and all(isinstance(block, dict) and block.get("type") in _BLOCK_TYPES for block in blocks):
        return [block for block in blocks if is_sendable(look_at_block(block))]
    return content if isinstance(result, str) else text


def _plain(value: Any) -> Any:
    """Convert a value that `json` cannot encode."""
    if isinstance(value, Lens):
        return value.raw
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    if hasattr(value, "isoformat"):  # a date or a time
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, bytes | bytearray):
        if isinstance(value, Iterable):
            return list(value)
        if type(value).__str__ is not cast(Any, object.__str__):  # a path, a UUID, a decimal number
            return str(value)
    raise TypeError(f"a tool's result cannot be written as JSON: it has a value of type {type(value).__name__}")
