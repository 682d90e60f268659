"""rawsse.types: the official SDK's names, in code as people write it. mypy reads this file too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import rawsse.messages
import rawsse.types
import rawsse.types.beta
from rawsse import AsyncClient
from rawsse.types import (
    ContentBlock,
    ImageBlockParam,
    Message,
    MessageParam,
    RawMessageStreamEvent,
    TextBlock,
    ToolParam,
    ToolResultBlockParam,
    ToolUnionParam,
    ToolUseBlock,
)
from rawsse.types.beta import BetaMessageParam, BetaTextBlock, BetaToolUnionParam


async def ask(client: AsyncClient, history: list[MessageParam], tools: list[ToolParam]) -> Message:
    return await client.messages.create(model="m", max_tokens=1, messages=history, tools=tools)


async def ask_beta(client: AsyncClient, history: list[BetaMessageParam], tools: list[BetaToolUnionParam]) -> None:
    async with client.messages.stream(model="m", max_tokens=1, messages=history, tools=tools) as stream:
        async for text in stream.text_stream:
            print(text)


def text_of(block: ContentBlock) -> str:
    return block.text if isinstance(block, TextBlock) else ""


def is_text(event: RawMessageStreamEvent) -> bool:
    return event.type == "content_block_delta"


def result_of(call: ToolUseBlock, said: str) -> MessageParam:
    result: ToolResultBlockParam = {"type": "tool_result", "tool_use_id": call.id, "content": said, "is_error": False}
    return {"role": "user", "content": [result]}


def test_a_history_of_typed_turns_is_plain_json() -> None:
    image: ImageBlockParam = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
    call = ToolUseBlock({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}})
    history: list[MessageParam] = [
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
        {"role": "assistant", "content": [call]},
        result_of(call, "sunny"),
    ]
    assert [type(turn) for turn in history] == [dict] * 4
    assert history[3] == {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny", "is_error": False}],
    }


def test_a_tool_of_yours_and_one_of_anthropic_s_go_into_one_list() -> None:
    mine: ToolParam = {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}
    tools: list[ToolUnionParam] = [mine, {"type": "web_search_20250305", "name": "web_search"}]
    assert [tool["name"] for tool in tools] == ["f", "web_search"]


def test_a_param_can_be_called_as_the_typed_dict_of_the_sdk() -> None:
    unions = ("ContentBlockParam", "ModelParam", "ToolUnionParam")
    for name in {name for name in rawsse.types.__all__ if name.endswith("Param")}.difference(unions):
        assert getattr(rawsse.types, name)(type="x") == {"type": "x"}, name


def test_a_block_is_narrowed_by_its_class_under_either_name() -> None:
    block: Any = TextBlock({"type": "text", "text": "hi"})
    assert text_of(block) == "hi"
    assert BetaTextBlock is TextBlock


ANSWERS = [name for name in rawsse.types.__all__ if not name.endswith("Param")]
BETA = re.findall(r"^(Beta\w+) = ", Path(rawsse.types.__file__).with_name("beta.pyi").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_name_of_an_answer_stands_for_something_that_we_have(name: str) -> None:
    thing = getattr(rawsse.types, name)
    ours = {id(each) for each in vars(rawsse.messages).values()}
    assert id(thing) in ours or name in ("MessageTokensCount", "Model", "ModelInfo", "StopReason")


def test_what_is_called_beta_is_the_same_thing() -> None:
    different = {
        name
        for name in BETA
        if name.removeprefix("Beta") not in rawsse.types.__all__
        or getattr(rawsse.types, name.removeprefix("Beta")) is not getattr(rawsse.types.beta, name)
    }
    only_beta = {
        "CompactionBlock",
        "FallbackBlock",
        "MCPToolResultBlock",
        "MCPToolUseBlock",
        "RequestDocumentBlockParam",
    }
    assert different == {f"Beta{name}" for name in only_beta}
    assert len(BETA) > len(different)


def test_a_name_that_neither_has_is_missing() -> None:
    for name in ("BetaNothing", "Nothing", "Betasys"):
        with pytest.raises(AttributeError, match=f"module 'rawsse.types' has no attribute '{name}'"):
            getattr(rawsse.types.beta, name)
