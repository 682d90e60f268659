"""The official SDK's names: what its calls take, what its answers have, and what its client can do, is here as well."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, get_args

import pytest
from support.answers import ASK, answer, client_of
from support.clock import run
from support.streams import ANSWER, TOOL_CALL

import rawsse
from rawsse import Client, messages, tool
from rawsse.client.resources import AskFields, AsyncModels, CallOptions, CountFields, ModelInfo, TokenCount
from rawsse.client.tools.runner import ToolRunner
from rawsse.messages.lens import Lens

anthropic = pytest.importorskip("anthropic", reason="the official SDK: the extra `interop`")
types = pytest.importorskip("anthropic.types")
beta = pytest.importorskip("anthropic.types.beta")
beta_resources = pytest.importorskip("anthropic.resources.beta.messages.messages")

pytestmark = pytest.mark.real

# --- What is sent ----------------------------------------------------------------------------------------------------


def named(*calls: Any) -> set[str]:
    """The names of the arguments of the SDK's calls."""
    return {name for call in calls for name in inspect.signature(call).parameters} - {"self"}


CALLS: list[tuple[str, set[str]]] = [
    ("create", {"stream", *AskFields.__annotations__}),
    ("stream", {"output_format", *AskFields.__annotations__}),
    ("parse", {"output_format", *AskFields.__annotations__}),
    ("count_tokens", {"model", "messages", "output_format", *CountFields.__annotations__}),
    ("tool_runner", {"output_format", *AskFields.__annotations__, *inspect.signature(ToolRunner).parameters}),
]

NOT_HERE = {"create": {"output_format"}}
"""The SDK takes `output_format` in `create` only to say that it is not for there."""


@pytest.mark.parametrize(("name", "known"), CALLS, ids=[name for name, _ in CALLS])
def test_a_call_takes_what_the_sdks_takes(name: str, known: set[str]) -> None:
    found: list[Any] = [getattr(beta_resources.Messages, name)]
    if name != "tool_runner":
        found.append(getattr(anthropic.resources.messages.Messages, name))
    missing = named(*found) - known - NOT_HERE.get(name, set())
    assert missing <= {"max_iterations"} & named(ToolRunner)


@pytest.mark.parametrize("name", ["list", "retrieve"])
def test_a_call_for_models_takes_what_the_sdks_takes(name: str) -> None:
    theirs = named(getattr(anthropic.resources.Models, name), getattr(anthropic.resources.beta.Models, name))
    assert theirs <= {*named(getattr(AsyncModels, name)), *CallOptions.__annotations__}


# --- What comes back -------------------------------------------------------------------------------------------------


def fields(ours: type[Lens]) -> set[str]:
    """The fields that a class of ours has for type checkers."""
    return {name for kind in ours.__mro__ for name in inspect.get_annotations(kind)} - {"raw"}


def models(union: Any) -> dict[str, Any]:
    """The SDK's models of a union, by their `type`."""
    inner = get_args(union)[0] if hasattr(union, "__metadata__") else union
    return {name: model for model in get_args(inner) for name in get_args(model.model_fields["type"].annotation)}


def ours(union: Any) -> dict[str, type[Lens]]:
    return messages.lens.by_type(union)


PAIRS: list[tuple[Any, type[Lens]]] = [
    (types.Message, messages.Message),
    (beta.BetaMessage, messages.Message),
    (types.Usage, messages.Usage),
    (beta.BetaUsage, messages.Usage),
    (types.CacheCreation, messages.CacheCreation),
    (types.ServerToolUsage, messages.ServerToolUsage),
    (types.OutputTokensDetails, messages.OutputTokensDetails),
    (types.RefusalStopDetails, messages.RefusalStopDetails),
    (beta.BetaRefusalStopDetails, messages.RefusalStopDetails),
    (types.ModelInfo, ModelInfo),
    (beta.BetaModelInfo, ModelInfo),
    (types.MessageTokensCount, TokenCount),
    (beta.BetaMessageTokensCount, TokenCount),
    *(
        (model, found[name])
        for theirs, found in (
            (types.ContentBlock, ours(messages.Block)),
            (beta.BetaContentBlock, ours(messages.Block)),
            (types.RawContentBlockDelta, ours(messages.Delta)),
            (beta.BetaRawContentBlockDelta, ours(messages.Delta)),
            (types.RawMessageStreamEvent, ours(messages.StreamEvent)),
            (beta.BetaRawMessageStreamEvent, ours(messages.StreamEvent)),
        )
        for name, model in models(theirs).items()
    ),
]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=[f"{theirs.__name__}" for theirs, _ in PAIRS])
def test_an_object_has_the_fields_of_the_sdks(theirs: Any, ours: type[Lens]) -> None:
    wire = {field.alias or name for name, field in theirs.model_fields.items()}
    assert wire - {"from"} <= fields(ours)  # which no annotation can name: `block["from"]`


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=[f"{theirs.__name__}" for theirs, _ in PAIRS])
def test_a_field_that_may_be_missing_reads_as_none_as_in_the_sdk(theirs: Any, ours: type[Lens]) -> None:
    optional = [name for name, field in theirs.model_fields.items() if not field.is_required()]
    assert [getattr(ours({}), name) for name in optional] == [None] * len(optional)


def test_the_stop_reasons_are_the_sdks() -> None:
    theirs = {*get_args(types.StopReason), *get_args(beta.BetaStopReason)}
    found = {name for literal in get_args(rawsse.types.StopReason) for name in get_args(literal) or (literal,)}
    assert found == theirs


@pytest.mark.parametrize(
    ("module", "start"), [("tool_result_block_param", ""), ("beta.beta_tool_result_block_param", "Beta")]
)
def test_what_the_sdk_lets_a_program_write_in_a_tool_result_has_a_name_here(module: str, start: str) -> None:
    found = vars(importlib.import_module(f"anthropic.types.{module}"))
    theirs = {name for name in found if name.endswith("BlockParam")} - {
        f"{start}BrowserStateBlockParam"
    }  # `dict[str, Any]`
    assert theirs > {f"{start}TextBlockParam", f"{start}SearchResultBlockParam"}
    assert [name for name in theirs if not hasattr(rawsse.types.beta, name)] == []


# --- What the client can do ------------------------------------------------------------------------------------------


def test_a_client_is_copied_and_says_whether_it_is_closed_as_the_sdks() -> None:
    for made in (anthropic.Anthropic(api_key="k"), Client(api_key="k")):
        other = made.copy(max_retries=5, timeout=3)
        assert type(other) is type(made)
        assert not other.is_closed()
        made.close()
        assert made.is_closed()


@pytest.mark.parametrize("decorate", [anthropic.beta_tool, tool])
def test_a_tool_is_called_with_the_models_input_as_the_sdks(decorate: Any) -> None:
    @decorate  # type: ignore[untyped-decorator]
    def add(one: int, other: int = 1) -> str:
        """Add."""
        return f"{one + other}"

    assert add.call({"one": 2}) == "3"
    with pytest.raises(ValueError, match=r"add|one"):
        add.call({"other": 2})


@pytest.mark.parametrize("decorate", [anthropic.beta_async_tool, tool])
def test_an_async_tool_is_awaited_as_the_sdks(decorate: Any) -> None:
    @decorate  # type: ignore[untyped-decorator]
    async def add(one: int) -> str:
        """Add."""
        return f"{one + 1}"

    assert run(add.call({"one": 2})) == "3"


def test_a_stream_has_the_events_of_the_sdks_stream() -> None:
    async def story(wire: bytes) -> list[str]:
        async with client_of(wire).messages.stream(**ASK) as stream:
            return [event.type async for event in stream]

    for raws in (ANSWER, TOOL_CALL):
        assert "ping" not in run(story(answer(raws)))
