"""rawsse.client.tools.tally: token counts, added up."""

from __future__ import annotations

from typing import Any

from rawsse.client.tools.tally import TotalUsage, add_up, usage_of
from rawsse.messages import Message


def message(**usage: Any) -> Message:
    return Message({"type": "message", "content": [], "usage": usage})


def test_counts_add_up_whatever_their_name() -> None:
    first = usage_of(message(input_tokens=3, output_tokens=5, cache_read_input_tokens=7, new_tokens=1), exact=True)
    second = usage_of(message(input_tokens=4, output_tokens=6, cache_creation_input_tokens=2), exact=True)
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


def test_counts_inside_objects_add_up_and_what_is_no_number_is_left_out() -> None:
    one = usage_of(message(server_tool_use={"web_search_requests": 1}, service_tier="standard", x=True), exact=True)
    assert add_up([one, one]).raw == {
        "input_tokens": 0,
        "output_tokens": 0,
        "server_tool_use": {"web_search_requests": 2},
    }


def test_fields_that_are_a_number_here_and_an_object_there_break_nothing() -> None:
    total = add_up([TotalUsage({"a": 1, "b": {"c": 1}}), TotalUsage({"a": {"c": 1}, "b": 1})])
    assert (total["a"], total["b"]) == (1, {"c": 1})


def test_a_sum_is_exact_if_all_its_parts_are() -> None:
    cut = usage_of(message(input_tokens=3), exact=False)
    assert add_up([cut, cut]).exact is False
    assert add_up([]).exact is True


def test_of_an_answer_that_never_began_nothing_is_known() -> None:
    unknown = usage_of(None, exact=False)
    assert (unknown.input_tokens, unknown.output_tokens, unknown.exact) == (0, 0, False)


def test_the_counts_are_a_copy() -> None:
    given = message(output_tokens=1)
    usage = usage_of(given, exact=True)
    given.raw["usage"]["output_tokens"] = 9
    assert usage.output_tokens == 1
