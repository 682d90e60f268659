"""rawsse.replay.compose: a message as a person would write it down, and what is filled in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.messages import Message
from rawsse.replay.compose import (
    answer,
    citation,
    mcp_tool_use,
    redacted_thinking,
    server_tool_result,
    server_tool_use,
    text,
    thinking,
    to_json,
    tool_use,
    web_search_result,
)


def blocks(message: Message) -> list[Any]:
    """The content, as its author knows it."""
    return list(message.content)


def test_an_answer_is_the_message_that_the_api_would_have_returned() -> None:
    message = answer("Hi", model="m", id="msg_1", usage={"input_tokens": 3, "output_tokens": 2})
    assert message.raw == {
        "model": "m",
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
            "service_tier": "standard",
        },
    }
    assert isinstance(message, Message)


def test_further_fields_of_the_message_can_be_given() -> None:
    message = answer("Hi", stop_reason="stop_sequence", stop_sequence="END", container={"id": "c"})
    assert (message.stop_reason, message.stop_sequence, message.raw["container"]) == (
        "stop_sequence",
        "END",
        {"id": "c"},
    )


# --- Blocks ---


def test_text_has_citations_only_if_you_gave_some() -> None:
    assert text("a") == {"type": "text", "text": "a"}
    assert text("a", citations=[citation("b", document_title="T")])["citations"] == [
        {
            "type": "char_location",
            "cited_text": "b",
            "document_index": 0,
            "document_title": "T",
            "file_id": None,
            "start_char_index": 0,
            "end_char_index": 1,
        }
    ]


def test_a_citation_ends_where_its_text_does() -> None:
    assert citation("four", start_char_index=10)["end_char_index"] == 14
    assert citation("four", end_char_index=99)["end_char_index"] == 99


def test_a_citation_of_another_type_has_the_fields_that_are_given() -> None:
    found = {"type": "page_location", "cited_text": "b", "start_page_number": 1}
    assert citation("b", type="page_location", start_page_number=1) == found


def test_thinking_has_a_signature_that_goes_by_what_was_thought() -> None:
    first, again, other = thinking("a"), thinking("a"), thinking("b")
    assert first == again
    assert first["signature"] != other["signature"]
    assert thinking("a", signature="s") == {"type": "thinking", "thinking": "a", "signature": "s"}
    assert thinking("a", signature="")["signature"] == ""


def test_redacted_thinking_has_data() -> None:
    assert redacted_thinking("abc") == {"type": "redacted_thinking", "data": "abc"}
    assert redacted_thinking()["data"]


def test_any_other_block_may_stand_beside_them() -> None:
    block = {"type": "container_upload", "file_id": "file_1"}
    assert answer(block).content[0].raw == block


# --- Calls and their results ---


def test_a_call_of_the_clients_tool_stops_the_answer() -> None:
    assert answer(tool_use("f", {})).stop_reason == "tool_use"
    assert answer(server_tool_use("web_search", {})).stop_reason == "end_turn"
    assert answer(tool_use("f", {}), stop_reason="max_tokens").stop_reason == "max_tokens"


def test_calls_have_ids_of_their_own_also_if_they_are_the_same() -> None:
    first, second = blocks(answer(tool_use("f", {}), tool_use("f", {})))
    assert first.id != second.id
    assert first.raw == {"type": "tool_use", "id": first.id, "name": "f", "input": {}}


def test_ids_look_as_the_apis() -> None:
    message = answer(tool_use("f", {}), server_tool_use("web_search", {}), mcp_tool_use("s", "g", {}))
    assert [block.id.rpartition("_")[0] for block in blocks(message)] == ["toolu", "srvtoolu", "mcptoolu"]
    assert message.id.startswith("msg_01")
    assert len(message.id) == len("msg_01FQR9Dn369GtZESi2WYWRYd")


def test_the_same_answer_has_the_same_ids_and_another_one_others() -> None:
    first, again, other = (answer(said, tool_use("f", {})) for said in "aab")
    assert first == again
    assert first.id != other.id
    assert blocks(first)[1].id != blocks(other)[1].id


def test_an_id_that_was_given_counts() -> None:
    assert blocks(answer(tool_use("f", {}, id="toolu_1")))[0].id == "toolu_1"


def test_a_result_belongs_to_the_last_call_of_a_server_tool_before_it() -> None:
    found = [web_search_result("T", "https://t.example")]
    message = answer(
        server_tool_use("web_search", {"query": "q"}),
        tool_use("f", {}),
        server_tool_result("web_search_tool_result", found),
        mcp_tool_use("s", "g", {}, id="mcptoolu_1"),
        server_tool_result("mcp_tool_result", "x", is_error=False),
        server_tool_result("mcp_tool_result", "y", tool_use_id="z"),
    )
    search, _, result, _, answered, named = blocks(message)
    assert result.raw == {"type": "web_search_tool_result", "tool_use_id": search.id, "content": found}
    assert answered.raw == {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "content": "x", "is_error": False}
    assert named.tool_use_id == "z"


def test_a_result_without_a_call_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="a mcp_tool_result stands before any call that it could be the result of"
    ):
        answer(tool_use("f", {}), server_tool_result("mcp_tool_result", "x"))


def test_an_input_may_be_the_text_that_the_model_wrote() -> None:
    (block,) = blocks(answer(tool_use("f", '{"a":  1}')))
    assert (block.input, block.input_text, block.complete) == ({"a": 1}, '{"a":  1}', True)


def test_an_input_that_is_no_whole_object_is_read_as_far_as_it_came() -> None:
    (block,) = blocks(answer(tool_use("f", '{"a": 1, "b": "tw', cut=True), stop_reason="max_tokens"))
    assert (block.input, block.input_text, block.complete) == ({"a": 1}, '{"a": 1, "b": "tw', False)


@pytest.mark.parametrize("given", ["notadict", "[1]", '{"a": 1', '{"a": 1} x'])
@pytest.mark.parametrize("call", [tool_use, server_tool_use, functools.partial(mcp_tool_use, "maps")])
def test_text_that_is_no_whole_object_is_refused_unless_it_is_meant_to_be_none(
    call: Callable[..., dict[str, Any]], given: str
) -> None:
    assert call("f", given, cut=True)["input"] == given
    with pytest.raises(ConfigurationError) as caught:
        call("f", given)
    said = f"the input of 'f' is not a whole JSON object: '{given}'"
    assert str(caught.value) == f"{said}; cut=True says that it was cut"


@pytest.mark.parametrize("given", ['{"a": 1}', {"a": 1}, {}])
def test_a_whole_input_was_not_cut(given: str | dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="the input of 'f' is a whole JSON object: it was not cut"):
        tool_use("f", given, cut=True)


def test_an_input_is_a_mapping_or_text() -> None:
    given: Any = [1]
    with pytest.raises(ConfigurationError, match=r"the input of 'f' is a mapping or JSON text, not '\[1\]'"):
        tool_use("f", given)


def test_a_part_is_a_block_or_a_string() -> None:
    parts: Any = ["a", "b"]
    with pytest.raises(ConfigurationError, match="a part of an answer is a block or a string, not \"\\['a', 'b'\\]\""):
        answer(parts)


# --- JSON ---


def test_json_is_written_as_the_api_writes_it() -> None:
    assert to_json({"a": "é😀\u2028", "b": [1, None]}) == '{"a": "é😀\u2028", "b": [1, null]}'


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert to_json("a\ud83d") == '"a\\ud83d"'
    assert answer("\ud83d").id.startswith("msg_01")


@pytest.mark.parametrize("value", [float("nan"), object(), {1j: 2}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="the answer cannot be written as JSON: "):
        to_json({"a": value})
