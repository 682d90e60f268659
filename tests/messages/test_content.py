"""rawsse.messages.content: blocks, citations, usage, the message, and the form of it that may be sent back."""

from __future__ import annotations

import copy
import pickle
from typing import Any, assert_type

import pytest

from rawsse.errors import OutputFormatError
from rawsse.messages.content import (
    KNOWN_BLOCK_TYPES,
    Block,
    BlockBuilder,
    CacheCreation,
    Citation,
    CompactionBlock,
    ContainerUploadBlock,
    FallbackBlock,
    MCPToolListingBlock,
    MCPToolUseBlock,
    Message,
    OutputTokensDetails,
    ParsedMessage,
    ParsedTextBlock,
    RedactedThinkingBlock,
    RefusalStopDetails,
    ServerToolUsage,
    ServerToolUseBlock,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnknownBlock,
    Usage,
    look_at_block,
)

Raw = dict[str, Any]

# Every type of block in an answer, with fields as the API documents them.
BLOCKS: list[tuple[type[Block], Raw]] = [
    (TextBlock, {"type": "text", "text": "hi", "citations": None}),
    (ThinkingBlock, {"type": "thinking", "thinking": "hm", "signature": "c2ln"}),
    (RedactedThinkingBlock, {"type": "redacted_thinking", "data": "ZGF0YQ=="}),
    (ToolUseBlock, {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}}),
    (
        ServerToolUseBlock,
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    ),
    (
        MCPToolUseBlock,
        {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "f", "server_name": "s", "input": {}},
    ),
    (ToolResultBlock, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}),
    (ToolResultBlock, {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": {"type": "x"}}),
    (ToolResultBlock, {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {"type": "x"}}),
    (ToolResultBlock, {"type": "bash_code_execution_tool_result", "tool_use_id": "s", "content": {"type": "x"}}),
    (ToolResultBlock, {"type": "text_editor_code_execution_tool_result", "tool_use_id": "s", "content": {}}),
    (ToolResultBlock, {"type": "tool_search_tool_result", "tool_use_id": "s", "content": {"type": "x"}}),
    (ToolResultBlock, {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": "ok"}),
    (ToolResultBlock, {"type": "advisor_tool_result", "tool_use_id": "s", "content": {"type": "advisor_result"}}),
    (MCPToolListingBlock, {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []}),
    (ContainerUploadBlock, {"type": "container_upload", "file_id": "file_1"}),
    (CompactionBlock, {"type": "compaction", "content": "so far", "encrypted_content": None}),
    (FallbackBlock, {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}),
]


def message(*content: Raw, **fields: Any) -> Message:
    return Message({"type": "message", "role": "assistant", "content": list(content), **fields})


# --- Blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "raw"), BLOCKS, ids=[raw["type"] for _, raw in BLOCKS])
def test_a_block_is_of_the_class_that_its_type_names_and_keeps_every_field(kind: type[Block], raw: Raw) -> None:
    block = look_at_block(raw)
    assert type(block) is kind
    assert {name: block[name] for name in block} == raw


def test_every_type_of_block_is_tried_above() -> None:
    assert {raw["type"] for _, raw in BLOCKS} == KNOWN_BLOCK_TYPES


@pytest.mark.parametrize("raw", [{"type": "hologram", "depth": 3}, {"depth": 3}, {"type": ["text"], "depth": 3}])
def test_a_block_of_another_type_is_unknown_and_readable(raw: Raw) -> None:
    block: Any = look_at_block(raw)
    assert (type(block), block.depth) == (UnknownBlock, 3)


def test_a_block_that_was_not_streamed_is_complete() -> None:
    for block in (look_at_block({"type": "tool_use", "input": {}}), ToolUseBlock({"input": {}})):
        assert (block.complete, block.input_text) == (True, "")


def test_the_input_of_a_tool_is_the_plain_json() -> None:
    block: Any = look_at_block({"type": "tool_use", "input": {"where": {"city": "Oslo"}, "list": [{"a": 1}]}})
    assert type(block.input) is dict
    assert type(block.input["list"][0]) is dict


def test_citations_are_looked_at_as_citations() -> None:
    block: Any = look_at_block(
        {"type": "text", "text": "t", "citations": [{"type": "char_location", "cited_text": "c"}]}
    )
    assert block.citations == [Citation({"type": "char_location", "cited_text": "c"})]


def test_optional_fields_of_blocks_are_none_where_they_are_absent() -> None:
    look: Any = look_at_block
    assert look({"type": "text", "text": ""}).citations is None
    assert look({"type": "thinking", "thinking": ""}).signature is None
    assert look({"type": "tool_use"}).caller is None
    assert look({"type": "compaction"}).content is None


def test_mypy_knows_the_fields() -> None:
    text = TextBlock({"type": "text", "text": "t"})
    assert_type(text.text, str)
    assert_type(text.citations, list[Citation] | None)
    assert_type(text.complete, bool)
    tool = ToolUseBlock({"type": "tool_use", "id": "i", "name": "n", "input": {}})
    assert_type(tool.name, str)
    assert_type(tool.caller, Any | None)
    assert_type(MCPToolUseBlock({"server_name": "s"}).server_name, str)
    assert_type(ThinkingBlock({"thinking": "t"}).signature, str | None)
    assert_type(RedactedThinkingBlock({"data": "d"}).data, str)
    assert_type(ToolResultBlock({"tool_use_id": "t"}).tool_use_id, str)
    assert_type(ContainerUploadBlock({"file_id": "f"}).file_id, str)
    assert_type(CompactionBlock({}).encrypted_content, str | None)
    assert_type(Citation({"cited_text": "c"}).cited_text, str)
    assert_type(Usage({"output_tokens": 1}).output_tokens, int)
    assert_type(Usage({}).server_tool_use, ServerToolUsage | None)
    assert_type(Usage({}).cache_creation, CacheCreation | None)
    assert_type(Usage({}).output_tokens_details, OutputTokensDetails | None)
    whole = message(usage={})
    assert_type(whole.usage, Usage)
    assert_type(whole.stop_reason, StopReason | None)
    assert_type(whole.stop_details, RefusalStopDetails | None)
    assert_type(whole.replayable(), dict[str, Any] | None)


# --- Usage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "total"),
    [
        ({"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100}, 123),
        ({"input_tokens": 3, "cache_creation_input_tokens": None}, 3),
        ({"input_tokens": None}, 0),
        ({}, 0),
    ],
)
def test_total_input_tokens_are_fresh_and_cached_ones_together(raw: Raw, total: int) -> None:
    assert Usage(raw).total_input_tokens == total


def test_parts_of_the_usage_are_of_classes_of_their_own() -> None:
    usage = Usage(
        {
            "server_tool_use": {"web_search_requests": 2},
            "cache_creation": {"ephemeral_5m_input_tokens": 3},
            "output_tokens_details": {"thinking_tokens": 4},
        }
    )
    assert usage.server_tool_use == ServerToolUsage({"web_search_requests": 2})
    assert usage.cache_creation == CacheCreation({"ephemeral_5m_input_tokens": 3})
    assert usage.output_tokens_details == OutputTokensDetails({"thinking_tokens": 4})


# --- As the official SDK's models write it ---------------------------------------------------------------------------


def test_the_repr_of_a_message_is_that_of_the_sdk() -> None:
    answer = message(
        {"type": "text", "text": "hi"}, id="msg_1", model="m", usage={"output_tokens": 1, "input_tokens": 2}
    )
    assert repr(answer) == (
        "Message(id='msg_1', container=None, content=[TextBlock(citations=None, text='hi', type='text')], diagnostics=None, "
        "model='m', role='assistant', stop_details=None, stop_reason=None, stop_sequence=None, type='message', "
        "usage=Usage(cache_creation=None, cache_creation_input_tokens=None, cache_read_input_tokens=None, "
        "inference_geo=None, input_tokens=2, output_tokens=1, output_tokens_details=None, server_tool_use=None, "
        "service_tier=None, speed=None))"
    )


@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use", "text", "thinking", "a_new_kind"])
def test_the_repr_of_a_block_that_was_cut_says_that_it_is_not_complete(kind: str) -> None:
    block = look_at_block({"type": kind, "id": "x", "name": "f", "input": {"a": 1}})
    assert "complete" not in repr(block)
    block.complete = False
    assert repr(block).endswith(", complete=False)")


def test_the_fields_of_a_tool_call_stand_in_the_order_of_the_sdk() -> None:
    raw = {"type": "tool_use", "name": "f", "input": {"a": None}, "id": "toolu_1"}
    given = '{"id":"toolu_1","caller":null,"input":{"a":null},"name":"f","type":"tool_use","toolset_name":null}'
    assert look_at_block(raw).model_dump_json() == given


def test_a_dump_of_a_streamed_message_has_its_blocks_brought_up_to_date() -> None:
    facts = Facts({"type": "text", "text": ""})
    Message({"content": [facts]}).model_dump()
    assert facts.settled == 1


# --- The message ---------------------------------------------------------------------------------------------------


def test_the_text_of_a_message_is_that_of_its_text_blocks() -> None:
    texts = [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "x"}, {"type": "text", "text": "b"}]
    assert message(*texts).text == "ab"


def test_the_content_is_given_as_blocks_and_the_usage_as_usage() -> None:
    answer = message({"type": "text", "text": "a"}, usage={"output_tokens": 1})
    assert [type(block) for block in answer.content] == [TextBlock]
    assert type(answer.usage) is Usage


def test_a_refusal_says_why() -> None:
    details = message(stop_reason="refusal", stop_details={"type": "refusal", "category": "cyber"}).stop_details
    assert details == RefusalStopDetails({"type": "refusal", "category": "cyber"})
    assert (details.category, details.explanation) == ("cyber", None)


def test_content_that_is_no_list_reads_as_it_is() -> None:
    content: Any = Message({"content": "all at once"}).content
    assert content == "all at once"


def test_a_message_has_its_request_id_under_the_sdk_s_name_too() -> None:
    assert Message({}, request_id="req_1")._request_id == "req_1"


def test_optional_fields_of_a_message_are_none_where_they_are_absent() -> None:
    answer = Message({})
    assert (answer.stop_reason, answer.stop_details, answer.container, answer.request_id) == (None, None, None, None)


class Facts(BlockBuilder):
    """A block that is not complete, as a rule a tool call; counts how often it is brought up to date."""

    def __init__(self, raw: Raw | None = None) -> None:
        super().__init__(raw or {"type": "tool_use", "input": {}})
        self.grow('{"a')
        self.settled = 0

    def settle(self) -> Raw:
        self.settled += 1
        return self


def test_blocks_of_a_streamed_message_have_the_facts_of_the_fold() -> None:
    facts = Facts()
    answer = Message({"content": [facts, {"type": "text", "text": ""}]})
    tool, text = answer.content
    assert (tool.complete, tool.input_text) == (False, '{"a')
    assert (text.complete, text.input_text) == (True, "")
    assert facts.settled == 1


def test_json_that_is_read_again_still_knows_which_call_is_not_complete() -> None:
    answer = Message({"content": [Facts(CALL)]})
    assert [Message(answer.raw).content[0].complete, look_at_block(answer.content[0].raw).complete] == [False, False]
    assert Message(answer.to_dict()).content[0].complete


def test_a_message_can_be_copied_with_its_facts() -> None:
    answer = Message({"content": [Facts()]}, request_id="req_1")
    again = copy.deepcopy(answer)
    assert (again, again.request_id, again.content[0].complete) == (answer, "req_1", False)


# --- Parsed ----------------------------------------------------------------------------------------------------------

FAULT = OutputFormatError("it does not fit")
SAID, MORE, THOUGHT = (
    {"type": "text", "text": "1"},
    {"type": "text", "text": "2"},
    {"type": "thinking", "thinking": "?"},
)


def test_a_parsed_block_is_the_block_and_its_value() -> None:
    block = ParsedTextBlock(TextBlock(BlockBuilder(SAID)), 5)
    assert (block.text, block.complete, block.input_text, block.parsed_output) == ("1", False, "", 5)
    assert repr(block) == "ParsedTextBlock(citations=None, text='1', type='text', complete=False, parsed_output=5)"


def test_a_parsed_output_is_no_part_of_the_json() -> None:
    assert ParsedTextBlock(TextBlock(SAID), 5).model_dump() == {"type": "text", "text": "1", "citations": None}


def test_a_parsed_block_that_does_not_fit_says_so_when_it_is_asked_and_no_sooner() -> None:
    block: ParsedTextBlock[int] = ParsedTextBlock(TextBlock(SAID), FAULT)
    with pytest.raises(OutputFormatError, match="it does not fit"):
        _ = block.parsed_output
    assert repr(block).endswith("parsed_output=OutputFormatError('it does not fit'))")


def test_a_parsed_block_or_message_is_equal_to_the_plain_one_and_to_nothing_else() -> None:
    block, whole = TextBlock(SAID), message(SAID)
    assert ParsedTextBlock(block, 5) == block == ParsedTextBlock(block)
    assert ParsedMessage(whole, {}) == whole == ParsedMessage(whole, {0: 1})
    assert ParsedTextBlock(block) != TextBlock(MORE)
    assert ParsedMessage(whole, {}) != message(MORE)
    assert ParsedMessage(whole, {}) != whole.raw


def test_the_text_blocks_of_a_parsed_message_are_parsed_ones() -> None:
    content: list[Any] = list(ParsedMessage(message(THOUGHT, SAID, MORE), {1: 5}).content)
    thought, said, more = content
    assert (type(thought), said.parsed_output, more.parsed_output) == (ThinkingBlock, 5, None)


@pytest.mark.parametrize(
    ("parsed", "value"), [({}, None), ({1: 5, 0: 4}, 4), ({0: FAULT, 1: 0}, 0), ({0: 0, 1: FAULT}, 0)]
)
def test_the_parsed_output_of_a_message_is_the_first_that_fits(parsed: Any, value: Any) -> None:
    assert ParsedMessage(message(SAID, MORE), parsed).parsed_output == value


@pytest.mark.parametrize("content", ["all at once", None])
def test_content_of_a_parsed_message_that_is_no_list_reads_as_it_is(content: Any) -> None:
    assert ParsedMessage(Message({"content": content}), {}).content == content


def test_a_message_of_which_no_text_fits_says_so_when_it_is_asked() -> None:
    whole: ParsedMessage[int] = ParsedMessage(message(SAID), {0: FAULT})
    with pytest.raises(OutputFormatError, match="it does not fit"):
        _ = whole.parsed_output
    assert whole.text == "1"


def test_a_parsed_message_can_be_copied_and_pickled() -> None:
    whole = ParsedMessage(message(SAID, id="msg_1"), {0: 5})
    for again in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert (type(again), again, again.parsed_output) == (ParsedMessage, whole, 5)


# --- The form that may be sent back --------------------------------------------------------------------------------

TEXT = {"type": "text", "text": "hi"}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
MCP = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "f", "server_name": "s", "input": {}}
MCP_SAID = {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": False, "content": "ok"}
REDACTED = {"type": "redacted_thinking", "data": "ZA=="}
NEW = {"type": "hologram", "depth": 3}


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ([TEXT], [TEXT]),
        ([{"type": "text", "text": ""}, TEXT], [TEXT]),
        ([{"type": "text", "text": " \n"}, TEXT], [TEXT]),
        ([SIGNED, TEXT], [SIGNED, TEXT]),
        ([{"type": "thinking", "thinking": "hm", "signature": ""}, TEXT], [TEXT]),
        ([{"type": "thinking", "thinking": "hm"}, TEXT], [TEXT]),
        ([{"type": "thinking", "thinking": "", "signature": "c2ln"}, TEXT], "all"),
        ([REDACTED, TEXT], "all"),
        ([TEXT, CALL], "all"),
        ([TEXT, SEARCH, FOUND, TEXT], "all"),
        ([TEXT, SEARCH], [TEXT]),
        ([TEXT, MCP, MCP_SAID], "all"),
        ([TEXT, MCP], [TEXT]),
        ([TEXT, NEW], "all"),
    ],
)
def test_what_may_be_sent_back(content: list[Raw], kept: Any) -> None:
    expected = content if kept == "all" else kept
    assert message(*content).replayable() == {"role": "assistant", "content": expected}


@pytest.mark.parametrize("content", [[], [{"type": "text", "text": ""}], [SEARCH]])
def test_nothing_is_sent_back_as_none(content: list[Raw]) -> None:
    assert message(*content).replayable() is None


def test_a_paused_turn_keeps_the_call_that_the_api_goes_on_with() -> None:
    paused = message(TEXT, SEARCH, stop_reason="pause_turn")
    assert paused.replayable() == {"role": "assistant", "content": [TEXT, SEARCH]}


@pytest.mark.parametrize("raw", [CALL, SEARCH, REDACTED, NEW])
def test_a_block_that_is_not_complete_is_left_out(raw: Raw) -> None:
    answer = Message({"content": [Facts(raw)], "stop_reason": "pause_turn"})
    assert answer.replayable() is None


def test_a_result_that_is_not_complete_takes_its_call_with_it() -> None:
    whole = Facts(SEARCH)
    whole.complete = True
    assert Message({"content": [whole, Facts(FOUND)]}).replayable() is None


def test_what_is_sent_back_is_a_copy() -> None:
    answer = message(copy.deepcopy(CALL))
    turn = answer.replayable()
    assert turn is not None
    turn["content"][0]["input"]["a"] = 1
    assert answer.raw["content"][0]["input"] == {}


@pytest.mark.parametrize("odd", [{}, ["x"]])
def test_a_call_and_a_result_whose_ids_are_no_strings_can_be_replayed(odd: object) -> None:
    call = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": odd, "content": []}
    assert Message({"content": [call, result]}).replayable() == {"role": "assistant", "content": [result]}
    assert Message({"content": [{**call, "id": odd}]}).replayable() is None


def test_token_counts_that_are_no_numbers_are_not_counted() -> None:
    odd = {"input_tokens": "x", "cache_creation_input_tokens": [], "cache_read_input_tokens": 7}
    assert Usage(odd).total_input_tokens == 7
