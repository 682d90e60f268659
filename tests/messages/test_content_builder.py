"""rawsse.messages.content, the block under construction: how fragments become a block's JSON, at linear cost."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rawsse.errors import EventDataError
from rawsse.messages import content as content_module
from rawsse.messages.content import BlockBuilder

Raw = dict[str, Any]


def tool(*fragments: str, **fields: Any) -> BlockBuilder:
    builder = BlockBuilder({"type": "tool_use", "input": {}, **fields})
    for fragment in fragments:
        builder.grow(fragment)
    return builder


def closed(*fragments: str, **fields: Any) -> BlockBuilder:
    builder = tool(*fragments, **fields)
    builder.close()
    return builder


# --- What grows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"type": "text", "text": ""}, "text"),
        ({"type": "thinking", "thinking": ""}, "thinking"),
        ({"type": "tool_use", "input": {}}, "input"),
        ({"type": "server_tool_use", "input": {}}, "input"),
        ({"type": "mcp_tool_use", "input": {}}, "input"),
        ({"type": "redacted_thinking", "data": "x"}, None),
        ({"type": "web_search_tool_result", "content": []}, None),
        ({"type": "new_tool_use", "input": {}}, "input"),
        ({"type": "new_text", "text": ""}, "text"),
        ({"type": "new_thinking", "thinking": ""}, "thinking"),
        ({"type": "new", "text": 7}, None),
        ({"text": ""}, "text"),
        ({"type": ["text"]}, None),
    ],
)
def test_the_type_says_which_field_grows_and_of_a_new_type_the_fields(raw: Raw, field: str | None) -> None:
    assert BlockBuilder(raw).field == field


@pytest.mark.parametrize("raw", [{"type": "text"}, {"type": "text", "text": None}])
def test_a_text_that_is_left_out_is_empty(raw: Raw) -> None:
    builder = BlockBuilder(raw)
    builder.grow("hi")
    builder.settle()
    assert builder == {"type": "text", "text": "hi"}


@pytest.mark.parametrize(
    "raw", [{"type": "tool_use"}, {"type": "tool_use", "input": None}, {"type": "tool_use", "input": ""}]
)
def test_an_input_that_is_left_out_is_empty(raw: Raw) -> None:
    builder = BlockBuilder(raw)
    builder.close()
    assert (builder["input"], builder.complete) == ({}, True)


@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_a_text_that_is_not_a_string_cannot_grow(kind: str) -> None:
    with pytest.raises(EventDataError, match=f"a block of type {kind} has a '{kind}' that is not a string: '7'"):
        BlockBuilder({"type": kind, kind: 7})


@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_fragments_are_put_behind_the_text_that_was_there(kind: str) -> None:
    builder = BlockBuilder({"type": kind, kind: "Once "})
    for fragment in ("upon", "", " a time"):
        builder.grow(fragment)
    builder.settle()
    assert builder[kind] == "Once upon a time"
    assert builder.length == len("Once upon a time")


def test_settling_twice_adds_nothing() -> None:
    builder = BlockBuilder({"type": "text", "text": ""})
    builder.grow("a")
    builder.settle()
    builder.settle()
    builder.grow("b")
    builder.settle()
    assert builder["text"] == "ab"


def test_a_text_can_be_seen_as_it_was() -> None:
    builder = BlockBuilder({"type": "text", "text": "a"})
    builder.grow("b")
    length = builder.length
    builder.grow("c")
    assert (builder.settle()["text"][:length], builder.settle()["text"][: builder.length]) == ("ab", "abc")


def test_a_block_that_does_not_grow_is_complete_when_it_is_closed() -> None:
    builder = BlockBuilder({"type": "redacted_thinking", "data": "x"})
    builder.settle()
    assert (builder.complete, builder.input_text, builder.field) == (False, "", None)
    builder.close()
    assert builder.complete


def test_a_text_has_no_input_text() -> None:
    builder = BlockBuilder({"type": "text", "text": ""})
    builder.grow("a")
    assert builder.input_text == ""


# --- The input of a tool -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fragments", "value"),
    [
        ([], {}),
        (["", ""], {}),
        (["{}"], {}),
        (['{"city": ', '"Oslo"}'], {"city": "Oslo"}),
        ([*'{"city": "Oslo"}'], {"city": "Oslo"}),
        ([' {"a": [1, 2.5, null]} \n'], {"a": [1, 2.5, None]}),
        (['{"a": 1, "a": 2}'], {"a": 2}),
        (['{"big": ' + "9" * 4300 + "}"], {"big": int("9" * 4300)}),
        ([r'{"a": "\ud83d\ude00"}'], {"a": "😀"}),
    ],
)
def test_a_whole_object_is_complete(fragments: list[str], value: Raw) -> None:
    builder = closed(*fragments)
    assert (builder["input"], builder.complete) == (value, True)


@pytest.mark.parametrize(
    ("text", "best"),
    [
        ('{"city": "Os', {}),
        ('{"city": "Oslo", "da', {"city": "Oslo"}),
        ('{"city": "Oslo", "days": 1', {"city": "Oslo", "days": 1}),
        (r'{"a": 1, "b": "\x"}', {"a": 1}),
        ('{"a": 1} {"b": 2}', {"a": 1}),
        ('{"big": ' + "9" * 5000 + "}", {}),
        ("no JSON", {}),
        ("  ", {}),
        ("[" * 100_000, None),
    ],
)
def test_unfinished_json_is_never_complete_and_is_read_as_far_as_possible(text: str, best: Any) -> None:
    builder = closed(text)
    assert not builder.complete
    assert builder.input_text == text
    assert best is None or builder.settle()["input"] == best


@pytest.mark.parametrize("text", ["[1]", '"Oslo"', "12", "null"])
def test_json_that_is_not_an_object_is_shown_but_never_complete(text: str) -> None:
    builder = closed(text)
    assert not builder.complete
    assert builder["input"] in ([1], "Oslo", 12, None)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_shown_but_never_complete(constant: str) -> None:
    builder = closed('{"a": 1, "b": ' + constant + "}")
    assert not builder.complete
    assert builder.settle()["input"]["a"] == 1
    assert not math.isfinite(builder["input"]["b"])


def test_an_input_that_came_whole_with_the_start_is_complete() -> None:
    builder = closed(input={"city": "Oslo"})
    assert (builder["input"], builder.complete, builder.input_text) == ({"city": "Oslo"}, True, "")


def test_an_input_that_came_as_text_with_the_start_is_not() -> None:
    assert not closed(input='{"city": "Oslo"}').complete


def test_the_best_reading_grows_with_the_fragments() -> None:
    builder = tool('{"city": "Os')
    assert builder.settle()["input"] == {}
    builder.grow('lo", "days": 1')
    assert builder.settle()["input"] == {"city": "Oslo", "days": 1}
    builder.grow("4}")
    assert builder.settle()["input"] == {"city": "Oslo", "days": 14}


def test_before_any_character_the_best_reading_is_what_the_start_said() -> None:
    assert tool("", input={"a": 1}).settle()["input"] == {"a": 1}


def test_after_an_invalid_character_the_best_reading_stays() -> None:
    builder = tool('{"a": 1, "b": x')
    assert builder.settle()["input"] == {"a": 1}
    builder.grow(', "c": 2}')
    assert builder.settle()["input"] == {"a": 1}


def test_the_best_reading_of_a_complete_input_is_the_input() -> None:
    builder = closed('{"a": 1}')
    assert builder.settle()["input"] is builder["input"]


def test_settling_an_open_tool_call_reads_ahead() -> None:
    builder = tool('{"a": 1,')
    builder.settle()
    assert builder["input"] == {"a": 1}


def test_more_input_after_the_end_undoes_it() -> None:
    builder = closed('{"a": 1}')
    builder.grow("x")
    assert not builder.complete


@pytest.mark.parametrize(
    ("fragments", "complete"), [(['{"a": 1}'], True), (['{"a": 1'], False), ([], False), ([""], False)]
)
def test_a_missing_end_is_seen_in_the_json(fragments: list[str], complete: bool) -> None:
    builder = tool(*fragments)
    builder.close(is_stopped=False)
    assert builder.complete is complete


def test_a_text_without_an_end_stays_open() -> None:
    builder = BlockBuilder({"type": "text", "text": ""})
    builder.grow("a")
    builder.close(is_stopped=False)
    assert not builder.complete


# --- Cost ----------------------------------------------------------------------------------------------------------


class Counted:
    """Stands in for the reader and counts what it is given."""

    made = 0
    characters = 0
    value = None

    def __init__(self) -> None:
        Counted.made += 1

    def feed(self, fragment: str) -> None:
        Counted.characters += len(fragment)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    monkeypatch.setattr(Counted, "made", 0)
    monkeypatch.setattr(Counted, "characters", 0)
    monkeypatch.setattr(content_module, "PartialJSON", Counted)
    return Counted


def test_nothing_is_read_ahead_unless_it_is_wanted(counted: type[Counted]) -> None:
    builder = closed(*'{"city": "Oslo"}')
    builder.settle()
    assert builder.settle()["input"] == {"city": "Oslo"}
    assert counted.made == 0


def test_every_character_is_read_ahead_once_however_often_it_is_wanted(counted: type[Counted]) -> None:
    builder = tool()
    for _ in range(500):
        builder.grow("ab")
        builder.settle()["input"]
        builder.settle()["input"]
    assert (counted.made, counted.characters) == (1, 1000)


def test_a_finished_input_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    loads = json.loads

    def counting(text: str, **options: Any) -> Any:
        parsed.append(text)
        return loads(text, **options)

    monkeypatch.setattr(json, "loads", counting)
    builder = closed(*'{"city": "Oslo"}')
    builder.settle()
    builder.settle()["input"]
    assert parsed == ['{"city": "Oslo"}']


def test_a_megabyte_in_one_byte_fragments_is_put_together_and_parsed_at_once() -> None:
    text = '{"text": "' + "x" * 1_000_000 + '"}'
    builder = closed(*text)
    assert builder.complete
    assert builder["input"]["text"] == "x" * 1_000_000
