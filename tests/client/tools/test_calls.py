"""rawsse.client.tools.calls: which calls may be run, and the turn that is sent back."""

from __future__ import annotations

from typing import Any

import pytest
from support.asking import calling, check_history
from support.streams import STOP, block, block_start, end, fold, input_delta, start, text_delta, tool_block

from rawsse.client.tools.calls import assistant_turn, closed_turn, plan_calls, step_of
from rawsse.client.tools.tool import Toolbox, tool
from rawsse.messages import Message


@tool
def weather(city: str) -> str:
    return city


BOX = Toolbox([weather, {"name": "map", "input_schema": {"type": "object"}}])


def message_of(events: list[Any]) -> Message:
    message = fold(events, strict=False).message
    assert message is not None
    return message


def answered(message: Message) -> list[Any]:
    """The history after the answer, as if every call had a result."""
    calls = plan_calls(message, BOX)
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "x"} for call in calls]
    return [{"role": "user", "content": "?"}, assistant_turn(message, calls), {"role": "user", "content": results}]


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("tool_use", "run"),
        ("pause_turn", "resume"),
        ("compaction", "resume"),
        *((reason, "stop") for reason in ("end_turn", "stop_sequence", "max_tokens", "refusal", "a new one", None)),
    ],
)
def test_the_stop_reason_says_what_follows(reason: str | None, step: str) -> None:
    assert step_of(reason) == step


def test_a_call_of_a_function_may_be_run() -> None:
    (call,) = plan_calls(message_of(calling(("weather", '{"city": "Oslo"}'))), BOX)
    assert (call.id, call.tool, call.problem) == ("call_0", weather, "")
    assert call.input == {"city": "Oslo"}


def test_what_a_tool_does_to_its_input_is_not_done_to_the_message() -> None:
    message = message_of(calling(("weather", '{"city": "Oslo"}')))
    plan_calls(message, BOX)[0].input.clear()
    assert message.content[0].input == {"city": "Oslo"}


def test_a_call_of_a_tool_without_function_is_left_to_the_caller() -> None:
    (call,) = plan_calls(message_of(calling(("map", "{}"))), BOX)
    assert (call.tool, call.is_answered_here) == (None, False)


def test_a_call_of_an_unknown_tool_is_told_which_there_are() -> None:
    (call,) = plan_calls(message_of(calling(("whether", "{}"))), BOX)
    assert call.refusal() == {
        "type": "tool_result",
        "tool_use_id": "call_0",
        "content": "There is no tool 'whether'. The tools are: weather, map.",
        "is_error": True,
    }


@pytest.mark.parametrize("text", ['{"city": "Os', "[1]", "null", '{"a": NaN}', '{"a": "\\x"}', "{} {}"])
def test_a_call_whose_input_is_no_object_is_refused_with_its_text(text: str) -> None:
    message = message_of(calling(("weather", text)))
    (call,) = plan_calls(message, BOX)
    assert call.tool is None
    assert call.problem == f"This call was not run: its input is no whole JSON object: {text!r}. Make it again."
    assert assistant_turn(message, [call])["content"][0]["input"] == {"INVALID_JSON": text}
    check_history(answered(message))


def test_a_call_that_was_never_closed_is_refused() -> None:
    events = [start(), block_start(0, tool_block()), input_delta(0, '{"city"'), end("tool_use"), STOP]
    message = message_of(events)
    assert "no whole JSON object" in plan_calls(message, BOX)[0].problem
    check_history(answered(message))


def test_of_two_calls_with_one_id_the_second_is_refused() -> None:
    raw = tool_block(id="same")
    events = [start(), *block(0, raw), *block(1, raw), *block(2, raw), end("tool_use"), STOP]
    message = message_of(events)
    calls = plan_calls(message, BOX)
    assert [call.id for call in calls] == ["same", "same_2", "same_3"]
    assert [call.tool for call in calls] == [weather, None, None]
    assert calls[1].problem == (
        "This call was not run: the id 'same' has been used for another call of this answer. Make it again."
    )
    check_history(answered(message))


@pytest.mark.parametrize("fields", [{"id": None}, {"id": 5}, {"id": ""}, {"name": None}], ids=str)
def test_a_call_without_id_or_name_is_refused(fields: dict[str, Any]) -> None:
    message = message_of([start(), *block(0, tool_block(**fields)), end("tool_use"), STOP])
    (call,) = plan_calls(message, BOX)
    assert call.problem
    check_history(answered(message))


def test_server_tools_are_no_calls() -> None:
    raw = tool_block(type="server_tool_use", name="web_search")
    message = message_of([start(), *block(0, raw), end("pause_turn"), STOP])
    assert plan_calls(message, BOX) == []


def test_the_turn_keeps_everything_else_as_it_was() -> None:
    thinking = {"type": "thinking", "thinking": "", "signature": "s"}
    unsigned = {"type": "thinking", "thinking": "x"}
    events = [start(), *block(0, thinking), *block(1, unsigned), *block(2, tool_block()), end("tool_use"), STOP]
    message = message_of(events)
    turn = assistant_turn(message, plan_calls(message, BOX))
    assert turn == {"role": "assistant", "content": [thinking, tool_block()]}


def test_a_closed_turn_has_no_calls() -> None:
    events = [
        start(),
        *block(0, {"type": "text", "text": ""}, text_delta(0, "hm")),
        *block(1, tool_block()),
        end("max_tokens"),
        STOP,
    ]
    assert closed_turn(message_of(events)) == {"role": "assistant", "content": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize("events", [[start()], calling(("weather", "{}"))], ids=["nothing", "calls only"])
def test_a_turn_of_nothing_is_none(events: list[Any]) -> None:
    assert closed_turn(message_of(events)) is None
    assert closed_turn(None) is None
