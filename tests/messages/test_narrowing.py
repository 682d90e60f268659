"""rawsse.messages as type checkers see it: a comparison of `type` narrows, and a misspelled field is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.type_checkers import find_wrong, marked

PROGRAM = """
from typing import Any, assert_never, assert_type

from rawsse import AsyncClient, Client, Message, ParsedMessage
from rawsse.messages import (
    Block,
    ContentBlockDelta,
    InputJSONEvent,
    MCPToolUseBlock,
    MessageStop,
    ParsedTextBlock,
    Ping,
    RedactedThinkingBlock,
    ServerToolUseBlock,
    StreamEvent,
    TextBlock,
    TextDelta,
    TextEvent,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
    UnknownEvent,
)


def blocks(message: Message) -> None:
    for block in message.content:
        block.text  # wrong
        block.type.upper()
        if block.type == "text":
            assert_type(block, TextBlock)
            assert_type(block.text, str)
            block.txt  # wrong
            block.input  # wrong
        elif block.type == "tool_use":
            assert_type(block, ToolUseBlock)
            block.name.upper()
            block.thinking  # wrong
        elif block.type == "server_tool_use":
            assert_type(block, ServerToolUseBlock)
        elif block.type == "mcp_tool_use":
            assert_type(block, MCPToolUseBlock)
            block.server_name.upper()
        elif block.type == "thinking" or block.type == "redacted_thinking":
            assert_type(block, ThinkingBlock | RedactedThinkingBlock)
        elif block.type == "web_search_tool_result" or block.type == "mcp_tool_result":
            assert_type(block, ToolResultBlock)
            block.tool_use_id.upper()
        else:
            block.name  # wrong


def classes(block: Block) -> str:
    match block:
        case TextBlock(text=text):
            return text
        case ToolUseBlock():
            print(block.nmae)  # wrong
        case UnknownBlock():
            assert_type(block.anything, Any)
            return str(block["anything"])
        case _:
            pass
    return block.type


def messages(message: Message) -> None:
    message.contents  # wrong
    message.usage.ouput_tokens  # wrong
    print(message.usage.output_tokens + 1)
    message.usage.iterations
    message.context_management
    if message.container is not None:
        message.container.id
    if message.stop_reason == "compaction" or message.stop_reason == "pause_turn":
        return
    if message.stop_reason == "end_trun":  # wrong
        return


def parsed(message: ParsedMessage[int]) -> None:
    for block in message.content:
        if block.type == "text":
            assert_type(block, ParsedTextBlock[int])
            assert_type(block.parsed_output, int | None)
        elif block.type == "tool_use":
            assert_type(block, ToolUseBlock)


async def wire(client: AsyncClient) -> None:
    events = await client.messages.create(stream=True, model="m", max_tokens=1, messages=[])
    async for event in events:
        assert_type(event, StreamEvent)
        event.delta  # wrong
        if event.type == "content_block_delta":
            assert_type(event, ContentBlockDelta)
            event.dleta  # wrong
            event.delta.text  # wrong
            if event.delta.type == "text_delta":
                assert_type(event.delta, TextDelta)
                assert_type(event.delta.text, str)
                event.delta.txt  # wrong
            elif event.delta.type == "input_json_delta":
                event.delta.partial_json.upper()
        elif event.type == "content_block_start":
            if event.content_block.type == "tool_use":
                event.content_block.name.upper()
        elif event.type == "message_start":
            event.message.id.upper()
            event.mesage  # wrong
        elif event.type == "message_delta":
            event.delta.stop_reasn  # wrong
            print(event.usage.output_tokens + 1)
        elif event.type == "ping":
            assert_type(event, Ping)
        elif event.type == "content_block_stop" or event.type == "message_stop" or event.type == "error":
            pass
        else:
            assert_type(event, UnknownEvent)
            event.whatever


def derived(client: Client) -> None:
    with client.messages.stream(model="m", max_tokens=1, messages=[]) as stream:
        for event in stream:
            event.text  # wrong
            if event.type == "text":
                assert_type(event, TextEvent)
                event.text.upper()
                event.txt  # wrong
            elif event.type == "input_json":
                assert_type(event, InputJSONEvent)
            elif event.type == "content_block_stop":
                if event.content_block.type == "text":
                    event.content_block.text.upper()
            elif event.type == "message_stop":
                assert_type(event, MessageStop)
                assert_type(event.message, Message)


def sent(client: Client) -> None:
    fallbacks = [{"model": "other"}]
    client.beta.messages.create(
        model="m",
        max_tokens=1,
        messages=[],
        fallbacks=fallbacks,
        thread={"type": "create"},
        compaction={"type": "summarize"},
        billing_policy={"type": "billing_policy"},
        fallback_credit_token="t",
    )
    client.messages.create(model="m", max_tokens=1, messages=[], fallbacks="default", workspace_id="w")
    client.messages.create(model="m", max_tokens=1, messages=[], fallbacks=5)  # wrong
    client.messages.create(model="m", max_tokens=1, messages=[], thread="t")  # wrong
    client.messages.count_tokens(model="m", messages=[], compaction=True)  # wrong
    client.messages.count_tokens(model="m", messages=[], thread={"type": "create"})  # wrong


def all_of(block: TextBlock | ToolUseBlock) -> str:
    if block.type == "text":
        return block.text
    if block.type == "tool_use":
        return block.name
    assert_never(block)
""".lstrip()


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_type_checker_finds_what_is_wrong_and_nothing_else(checker: str, tmp_path: Path) -> None:
    assert find_wrong(checker, PROGRAM, tmp_path) == marked(PROGRAM)
