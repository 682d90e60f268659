"""rawsse.messages.content: the counts that are billed. Values by the API's documentation of `usage` and of compaction."""

from __future__ import annotations

from typing import Any

import pytest

from rawsse.messages.content import MAX_TOKENS_COUNTED, add_counts, billed, token_counts

# https://docs.anthropic.com/en/docs/build-with-claude/compaction: the counts at the top are those of the message alone.
TOP = {"input_tokens": 45_000, "output_tokens": 1234}
COMPACTION = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500}
MESSAGE = {"type": "message", "input_tokens": 23_000, "output_tokens": 1000}


@pytest.mark.parametrize("iterations", [None, []])
def test_usage_without_iterations_is_what_is_billed(iterations: Any) -> None:
    usage = {**TOP, "iterations": iterations}
    assert billed(usage) is usage


def test_iterations_are_billed_one_by_one() -> None:
    usage = {**MESSAGE, "iterations": [COMPACTION, {**MESSAGE, "cache_read_input_tokens": 5, "cache_creation": None}]}
    assert billed(usage) == {**usage, "input_tokens": 203_000, "output_tokens": 4500, "cache_read_input_tokens": 5}


@pytest.mark.parametrize("kind", ["compaction", "advisor_message"])
def test_iterations_that_leave_out_the_message_are_billed_beside_it(kind: str) -> None:
    usage = {**TOP, "iterations": [{**COMPACTION, "type": kind}]}
    assert billed(usage) == {**usage, "input_tokens": 225_000, "output_tokens": 4734}


def test_a_model_that_was_replaced_is_billed_too() -> None:
    usage = {**TOP, "iterations": [MESSAGE, {**TOP, "type": "fallback_message"}]}
    assert billed(usage) == {**usage, "input_tokens": 68_000, "output_tokens": 2234}


@pytest.mark.parametrize(
    "iterations",
    [
        {"type": "compaction"},
        ["compaction"],
        [{"type": "of next year", **TOP}],
        [COMPACTION, {"type": "message"}],
        [{**COMPACTION, "output_tokens": True}],
    ],
    ids=repr,
)
def test_with_iterations_that_are_not_understood_the_counts_at_the_top_are_a_lower_bound(iterations: Any) -> None:
    usage = {**TOP, "iterations": iterations}
    assert billed(usage) is None
    counts = {"input_tokens": 45_000, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    assert token_counts(usage) == ({**counts, "output_tokens": 1234}, False)


def test_the_counts_have_all_four_kinds_of_tokens() -> None:
    usage = {**TOP, "cache_creation_input_tokens": 7, "cache_read_input_tokens": None, "server_tool_use": {"x": 1}}
    counts = {"input_tokens": 45_000, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 0}
    assert token_counts(usage) == ({**counts, "output_tokens": 1234}, True)


@pytest.mark.parametrize("value", [None, -1, 1.5, True, "7", MAX_TOKENS_COUNTED + 1])
def test_a_count_that_cannot_be_one_is_not_counted(value: Any) -> None:
    counts, is_whole = token_counts({"input_tokens": 3, "output_tokens": value})
    assert (counts["input_tokens"], counts["output_tokens"], is_whole) == (3, 0, False)
    assert token_counts({"input_tokens": 3, "output_tokens": MAX_TOKENS_COUNTED})[1]


def test_counts_are_added_name_by_name_also_those_in_objects() -> None:
    total: dict[str, Any] = {"input_tokens": 1, "service_tier": 0}
    add_counts({"input_tokens": 2, "server_tool_use": {"web_search_requests": 3}, "new_tokens": 4}, total)
    add_counts({"server_tool_use": {"web_search_requests": 5}, "service_tier": "standard", "exact": True}, total)
    searches = {"web_search_requests": 8}
    assert total == {"input_tokens": 3, "service_tier": 0, "server_tool_use": searches, "new_tokens": 4}


@pytest.mark.parametrize(("first", "then"), [({"a": 1}, {"a": {"b": 2}}), ({"a": {"b": 2}}, {"a": 1})])
def test_a_name_that_is_a_count_once_and_an_object_then_keeps_the_first(first: Any, then: Any) -> None:
    total: dict[str, Any] = {}
    add_counts(first, total)
    add_counts(then, total)
    assert total == first
