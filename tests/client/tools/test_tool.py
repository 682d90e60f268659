"""rawsse.client.tools.tool: definitions from functions, calls of them, and what their results become."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import enum
import functools
import inspect
import pathlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, assert_type

import pytest
from support.clock import run

from rawsse.client.schema import MismatchError
from rawsse.client.tools.tool import (
    Tool,
    Toolbox,
    ToolError,
    beta_async_tool,
    beta_tool,
    content_of,
    run_tool,
    tool,
)
from rawsse.errors import ConfigurationError
from rawsse.messages.lens import Lens


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@tool
async def weather(city: str, unit: Unit = Unit.CELSIUS) -> str:
    """The weather at a place.

    Args:
        city: Where.
    """
    return f"{city}: 4 {unit.name}"


def failing(error: BaseException) -> Tool[..., Any]:
    @tool
    async def fails() -> None:
        raise error

    return fails


@tool
def failing_plainly() -> None:
    raise ValueError


def result_of(given: Tool[..., Any], value: Any) -> Any:
    """The result of a call; an async function is awaited."""
    result = run_tool(given, "call_1", value, can_await=True)
    return run(result) if inspect.iscoroutine(result) else result


async def content_from(given: Tool[..., Any], value: Any) -> Any:
    """The content of the result of a call."""
    result = given.call(value)
    return content_of(await result if inspect.isawaitable(result) else result)


# --- Definitions ---------------------------------------------------------------------------------------------------


def test_a_function_becomes_a_tool_definition() -> None:
    assert weather.to_dict() == {
        "name": "weather",
        "description": "The weather at a place.",
        "input_schema": {
            "type": "object",
            "properties": {
                "city": {"description": "Where.", "type": "string"},
                "unit": {"enum": ["c", "f"], "type": "string", "default": "c"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    }


def test_a_tool_is_still_its_function() -> None:
    @tool
    def double(number: int) -> int:
        return 2 * number

    assert double(4) == 8
    assert run(weather("Oslo")) == "Oslo: 4 CELSIUS"
    assert repr(double) == "<Tool double>"


def test_arguments_of_the_decorator_replace_what_the_function_says() -> None:
    schema = {"type": "object", "properties": {"any": {}}}

    @tool(name="other", description="Does it.", input_schema=schema, strict=True, cache_control=None)
    def function(**anything: Any) -> None:
        """Not this."""

    assert function.to_dict() == {"name": "other", "description": "Does it.", "input_schema": schema, "strict": True}


def test_a_type_may_stand_for_its_schema() -> None:
    pytest.importorskip("pydantic", reason="makes the schemas of classes: the extra `schema`")

    @dataclass
    class Input:
        city: str

    made = Tool(lambda **given: None, name="x", input_schema=Input)
    assert made.input_schema["properties"]["city"]["type"] == "string"


def test_without_a_description_none_is_sent() -> None:
    @tool
    def silent() -> None: ...

    assert silent.to_dict() == {
        "name": "silent",
        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
    }


def test_a_tool_that_anthropic_has_defined_is_its_type_and_name() -> None:
    @tool(type="bash_20250124", name="bash")
    def run_command(command: str = "", restart: bool = False) -> str:
        return f"ran {command}"

    assert run_command.to_dict() == {"name": "bash", "type": "bash_20250124"}
    assert run(content_from(run_command, {"command": "ls"})) == "ran ls"


def test_the_official_sdk_s_names_are_there() -> None:
    assert beta_tool is tool
    assert beta_async_tool is tool


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (5, "a tool is made of a function, not of '5'"),
        (lambda city: city, "a tool needs a name: give name, or a function that has one"),
    ],
    ids=["a number", "a lambda"],
)
def test_what_cannot_be_a_tool_is_refused(function: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        tool(function)
    assert str(caught.value) == text


def generate() -> Iterator[str]:
    """Not a context manager yet."""
    yield "x"


async def generate_async() -> AsyncIterator[str]:
    yield "x"


hold = contextlib.contextmanager(generate)


class Holder:
    def all(self) -> AsyncIterator[str]:
        return generate_async()


@pytest.mark.parametrize("function", [generate_async, functools.partial(generate_async)])
def test_an_async_generator_is_refused_when_it_is_decorated(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is an async generator, which has no result: return a list$"):
        tool(function, name="all")


@pytest.mark.parametrize(
    "function",
    [hold, contextlib.asynccontextmanager(generate_async), functools.lru_cache(hold), Holder().all],
    ids=["a context manager", "an async one", "one that is wrapped", "an async iterator"],
)
def test_a_function_whose_result_json_cannot_hold_answers_each_call_with_that_error(function: Any) -> None:
    result = result_of(tool(function, name="all"), {})
    assert result["is_error"]
    assert result["content"].startswith("TypeError: a tool's result cannot be written as JSON: it has a value of type ")


def test_generators_and_functions_that_a_context_manager_decorates_are_tools() -> None:
    @contextlib.contextmanager
    def logged() -> Iterator[None]:
        yield

    @logged()
    def decorated() -> str:
        return "y"

    assert run(content_from(tool(generate), {})) == '["x"]'
    assert run(content_from(tool(decorated), {})) == "y"


def test_a_coroutine_function_may_wrap_what_is_no_result_and_give_one() -> None:
    @functools.wraps(generate_async)
    async def collected() -> list[str]:
        return [each async for each in generate_async()]

    @functools.wraps(hold)
    async def held() -> str:
        with hold() as given:
            return given

    assert run(content_from(tool(collected), {})) == '["x"]'
    assert run(content_from(tool(held), {})) == "x"


def test_a_wrapper_of_itself_is_refused() -> None:
    def wrapper() -> None: ...

    wrapper.__wrapped__ = wrapper  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="wrapper has no signature that can be read: wrapper loop"):
        tool(wrapper)


def test_a_signature_that_json_cannot_call_needs_a_schema_of_its_own() -> None:
    def spread(*cities: str) -> None: ...

    with pytest.raises(ConfigurationError, match="cannot be given by name"):
        tool(spread)
    assert tool(spread, input_schema={"type": "object"}).name == "spread"


# --- Calls ---------------------------------------------------------------------------------------------------------


def test_an_input_calls_the_function_with_python_values() -> None:
    assert run(content_from(weather, {"city": "Oslo", "unit": "f"})) == "Oslo: 4 FAHRENHEIT"


def test_an_input_that_does_not_fit_does_not_call_it() -> None:
    with pytest.raises(MismatchError, match=r"^input\.unit: expected one of 'c', 'f', got 'k'$"):
        run(content_from(weather, {"city": "Oslo", "unit": "k"}))


def test_a_function_with_a_schema_of_its_own_gets_the_input_as_it_is() -> None:
    def spread(*nothing: str, **given: Any) -> str:
        return f"{given}"

    made = tool(spread, input_schema={"type": "object"})
    assert run(content_from(made, {"a": 1})) == "{'a': 1}"
    with pytest.raises(MismatchError, match=r"^input: expected an object, got an array$"):
        run(content_from(made, []))


def test_a_plain_function_is_called_in_the_caller_s_thread_and_may_return_an_awaitable() -> None:
    @tool
    def later() -> Any:
        return asyncio.sleep(3600, asyncio.get_running_loop().time())

    assert run(content_from(later, {})) == "1000.0"


def test_a_coroutine_function_is_async_also_behind_a_partial() -> None:
    assert weather.is_async
    assert tool(functools.partial(weather.function, "Oslo"), name="x").is_async
    assert not failing_plainly.is_async


# --- Results -------------------------------------------------------------------------------------------------------


@dataclass
class Reading:
    value: float
    unit: Unit | str


BLOCK = {"type": "image", "source": {"type": "url", "url": "http://x.example/y.png"}}


class Model:
    def model_dump(self, *, mode: str) -> dict[str, Any]:
        return {"mode": mode}


def numbers() -> Iterator[int]:
    yield from (1, 2)


@pytest.mark.parametrize(
    ("result", "content"),
    [
        (None, ""),
        ("text ☺", "text ☺"),
        ("", ""),
        (5, "5"),
        (True, "true"),
        ({"a": [1, "é"]}, '{"a": [1, "é"]}'),
        ([], "[]"),
        ([1, 2], "[1, 2]"),
        ([{"type": "car"}], '[{"type": "car"}]'),
        ([BLOCK], [BLOCK]),
        ((BLOCK,), [BLOCK]),
        ([Lens(BLOCK)], [BLOCK]),
        (Reading(1.5, "m"), '{"value": 1.5, "unit": "m"}'),
        ({"in": Unit.CELSIUS}, '{"in": "c"}'),
        (Model(), '{"mode": "json"}'),
        (Lens({"x": 1}), '{"x": 1}'),
        (numbers(), "[1, 2]"),
        (MappingProxyType({"a": 1}), '{"a": 1}'),
        (
            [{"type": "text", "text": "x", "citations": None, "n": 1}],
            [{"type": "text", "text": "x", "citations": None, "n": 1}],
        ),
        (datetime.date(2024, 2, 29), '"2024-02-29"'),
        (pathlib.PurePosixPath("a/b"), '"a/b"'),
        (decimal.Decimal("1.10"), '"1.10"'),
        ("\ud83d\ude00 and \udc80", "😀 and \ufffd"),
        ([{"type": "text", "text": "\udc80"}], [{"type": "text", "text": "\ufffd"}]),
        ([{"type": ["text"]}], '[{"type": ["text"]}]'),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_what_a_tool_returns_becomes_content(result: Any, content: Any) -> None:
    assert content_of(result) == content


@pytest.mark.parametrize("value", [object(), b"x"], ids=["object", "bytes"])
def test_a_value_that_json_cannot_express_is_no_result_and_no_error_content(value: Any) -> None:
    text = f"^a tool's result cannot be written as JSON: it has a value of type {type(value).__name__}$"
    with pytest.raises(TypeError, match=text):
        content_of({"x": value})
    with pytest.raises(TypeError, match=text):
        ToolError([{"type": "text", "text": value}])


def test_a_result_answers_its_call() -> None:
    assert result_of(weather, {"city": "Oslo"}) == {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": "Oslo: 4 CELSIUS",
    }


@pytest.mark.parametrize(
    ("error", "content"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (KeyError("x"), "KeyError: 'x'"),
        (TimeoutError(), "TimeoutError: "),
        (ToolError("closed today"), "closed today"),
        (ToolError([{"type": "text", "text": "see:"}, BLOCK]), [{"type": "text", "text": "see:"}, BLOCK]),
        (OSError("caf\udce9"), "OSError: caf\ufffd"),
    ],
    ids=repr,
)
def test_what_a_tool_raises_reaches_the_model(error: Exception, content: Any) -> None:
    assert result_of(failing(error), {}) == {
        "type": "tool_result",
        "tool_use_id": "call_1",
        "content": content,
        "is_error": True,
    }


def test_an_input_that_does_not_fit_reaches_the_model() -> None:
    found = result_of(weather, {"town": "Oslo"})
    assert (found["content"], found["is_error"]) == ("input: missing 'city'", True)


def test_a_plain_function_s_error_reaches_the_model() -> None:
    @tool
    def divide(by: int) -> float:
        return 1 / by

    assert result_of(divide, {"by": 0})["content"] == "ZeroDivisionError: division by zero"


def test_cancellation_is_no_result() -> None:
    with pytest.raises(asyncio.CancelledError):
        result_of(failing(asyncio.CancelledError()), {})


def test_a_call_that_is_dropped_half_way_ends_its_function() -> None:
    ended: list[bool] = []

    @tool
    async def waits() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            ended.append(True)

    async def story() -> None:
        call = run_tool(waits, "call_1", {}, can_await=True)
        call.send(None)
        call.close()

    run(story())
    assert ended == [True]


def test_a_tool_error_reads_as_its_texts() -> None:
    assert str(ToolError("closed")) == "closed"
    assert str(ToolError([{"type": "text", "text": "see:"}, BLOCK])) == "see: [image]"


# --- Toolboxes -----------------------------------------------------------------------------------------------------


def test_a_toolbox_takes_tools_functions_and_definitions() -> None:
    def roll() -> int:
        return 4

    search = {"type": "web_search_20250305", "name": "web_search"}
    toolset = {"type": "browser_toolset_20260801"}
    box = Toolbox([weather, roll, search, Lens(toolset)])
    assert box.definitions == [weather.to_dict(), tool(roll).to_dict(), search, toolset]
    assert list(box.functions) == ["weather", "roll"]
    assert box.names == ["weather", "roll", "web_search"]
    assert box.given == [weather, roll, search, Lens(toolset)]


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^two tools have the name 'weather'$"):
        Toolbox([weather, {"name": "weather"}])


# --- Called by hand, under the official SDK's name -----------------------------------------------------------------------


def test_a_tool_is_called_with_the_model_s_input() -> None:
    @tool
    def add(one: int, other: float = 1) -> float:
        """Add."""
        return one + other

    assert_type(add.call({"one": 2}), float)
    assert add.call({"one": 2, "other": 3}) == 5
    with pytest.raises(MismatchError, match="missing 'one'"):
        add.call({})
    with pytest.raises(MismatchError, match="expected an object"):
        add.call([2])
    with pytest.raises(MismatchError, match=r"input\.other: int too large"):
        add.call({"one": 2, "other": 10**400})


def test_an_async_tool_is_awaited() -> None:
    @tool
    async def add(one: int) -> int:
        """Add."""
        return one + 1

    assert run(add.call({"one": 2})) == 3
