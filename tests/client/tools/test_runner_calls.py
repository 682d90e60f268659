"""rawsse.client.tools.runner: which calls may run, the turn that is sent back, and what answers cost together."""

from __future__ import annotations

from typing import Any

import pytest
from support.asking import calling, check_history
from support.streams import STOP, block, block_start, end, fold, input_delta, start, text_delta, tool_block

from rawsse.client.tools.runner import (
    TotalUsage,
    add_up,
    assistant_turn,
    closed_turn,
    plan_calls,
    step_of,
    usage_of,
)
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


def refusal(problem: str, call_id: str = "call_0") -> dict[str, Any]:
    text = f"This call was not run: {problem}. Make a new call."
    return {"type": "tool_result", "tool_use_id": call_id, "content": text, "is_error": True}


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


def test_a_stop_reason_that_is_not_a_text_stops() -> None:
    reason: Any = ["tool_use"]
    assert step_of(reason) == "stop"


def test_a_call_of_a_function_may_be_run() -> None:
    (call,) = plan_calls(message_of(calling(("weather", '{"city": "Oslo"}'))), BOX)
    assert (call.id, call.tool, call.refusal) == ("call_0", weather, None)


def test_a_call_of_a_tool_without_function_is_left_to_the_caller() -> None:
    (call,) = plan_calls(message_of(calling(("map", "{}"))), BOX)
    assert (call.tool, call.is_answered_here) == (None, False)


def test_a_call_of_an_unknown_tool_is_refused_with_the_names_of_all_tools() -> None:
    (call,) = plan_calls(message_of(calling(("whether", "{}"))), BOX)
    assert call.tool is None
    assert call.refusal == refusal("the tool 'whether' was not found (the tools are: weather, map)")


def test_without_tools_the_refusal_says_that_there_are_none() -> None:
    (call,) = plan_calls(message_of(calling(("weather", "{}"))), Toolbox())
    assert call.refusal == refusal("the tool 'weather' was not found (the tools are: none)")


@pytest.mark.parametrize("text", ['{"city": "Os', "[1]", "null", '{"a": NaN}', '{"a": "\\x"}', "{} {}"])
def test_a_call_whose_input_is_no_object_is_refused_with_its_text(text: str) -> None:
    message = message_of(calling(("weather", text)))
    (call,) = plan_calls(message, BOX)
    assert call.tool is None
    assert call.refusal == refusal(f"its input is not a whole JSON object: {text!r}")
    assert assistant_turn(message, [call])["content"][0]["input"] == {"INVALID_JSON": text}
    check_history(answered(message))


def test_a_call_that_was_never_closed_is_refused() -> None:
    events = [start(), block_start(0, tool_block()), input_delta(0, '{"city"'), end("tool_use"), STOP]
    message = message_of(events)
    (call,) = plan_calls(message, BOX)
    assert call.refusal == refusal("its input is not a whole JSON object: '{\"city\"'", "toolu_1")
    check_history(answered(message))


def test_of_two_calls_with_one_id_the_second_is_refused() -> None:
    raw = tool_block(id="same")
    events = [start(), *block(0, raw), *block(1, raw), *block(2, raw), end("tool_use"), STOP]
    message = message_of(events)
    calls = plan_calls(message, BOX)
    assert [call.id for call in calls] == ["same", "same_2", "same_2_2"]
    assert [call.tool for call in calls] == [weather, None, None]
    assert calls[1].refusal == refusal("the id 'same' has been used for another call of this answer", "same_2")
    check_history(answered(message))


@pytest.mark.parametrize("fields", [{"id": None}, {"id": 5}, {"id": ""}, {"id": ["x"]}, {"name": None}], ids=str)
def test_a_call_without_id_or_name_is_refused(fields: dict[str, Any]) -> None:
    message = message_of([start(), *block(0, tool_block(**fields)), end("tool_use"), STOP])
    (call,) = plan_calls(message, BOX)
    assert call.tool is None
    assert call.refusal is not None
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


def test_an_answer_that_has_not_begun_has_no_calls() -> None:
    assert plan_calls(None, BOX) == []


# --- Usage ---------------------------------------------------------------------------------------------------------


def usage_message(**usage: Any) -> Message:
    return Message({"type": "message", "content": [], "usage": usage})


def test_counts_add_up_whatever_their_name() -> None:
    first = usage_of(
        usage_message(input_tokens=3, output_tokens=5, cache_read_input_tokens=7, new_tokens=1), exact=True
    )
    second = usage_of(usage_message(input_tokens=4, output_tokens=6, cache_creation_input_tokens=2), exact=True)
    total = add_up([first, second])
    assert total.raw == {
        "input_tokens": 7,
        "output_tokens": 11,
        "cache_read_input_tokens": 7,
        "new_tokens": 1,
        "cache_creation_input_tokens": 2,
    }
    assert total.total_input_tokens == 16
    assert total.turns == (first, second)


def test_counts_inside_objects_add_up_and_other_values_are_left_out() -> None:
    one = usage_of(
        usage_message(server_tool_use={"web_search_requests": 1}, service_tier="standard", x=True), exact=True
    )
    assert add_up([one, one]).raw == {
        "input_tokens": 0,
        "output_tokens": 0,
        "server_tool_use": {"web_search_requests": 2},
    }


def test_fields_that_are_a_number_here_and_an_object_there_break_nothing() -> None:
    total = add_up([TotalUsage({"a": 1, "b": {"c": 1}}), TotalUsage({"a": {"c": 1}, "b": 1})])
    assert (total["a"], total["b"]) == (1, {"c": 1})


def test_a_sum_is_exact_if_all_its_parts_are() -> None:
    cut = usage_of(usage_message(input_tokens=3), exact=False)
    assert add_up([cut, cut]).exact is False
    assert add_up([]).exact is True


def test_an_answer_that_never_began_is_no_turn_but_may_have_cost_something() -> None:
    began = usage_of(usage_message(), exact=True)  # without counts, as some gateways send it
    total = add_up([usage_of(None, exact=False), began])
    assert (total.input_tokens, total.output_tokens, total.turns, total.exact) == (0, 0, (began,), False)


def test_the_counts_are_a_copy() -> None:
    given = usage_message(output_tokens=1)
    usage = usage_of(given, exact=True)
    given.raw["usage"]["output_tokens"] = 9
    assert usage.output_tokens == 1
