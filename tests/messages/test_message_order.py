"""rawsse.messages.message: the order of events. Strict reading names the rule that is broken, lenient reading repairs.

The order, as https://docs.anthropic.com/en/docs/build-with-claude/streaming gives it: "1. `message_start` … 2. A series of
content blocks, each of which have a `content_block_start`, one or more `content_block_delta` events, and a
`content_block_stop` event. Each content block has an `index` … 3. One or more `message_delta` events … 4. A final
`message_stop` event." Pings come at any time, and so may new types of events.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from support.streams import (
    ANSWER,
    PING,
    STOP,
    TOOL_CALL,
    block,
    block_start,
    block_stop,
    delta,
    end,
    fold,
    input_delta,
    start,
    text_delta,
    to_sse,
    tool_block,
)

from rawsse.errors import EventOrderError
from rawsse.messages import Deviation, MessageBuilder
from rawsse.messages.events import _EVENTS, BaseEvent
from rawsse.messages.message import REPAIRS, TRANSITIONS, State

Raw = dict[str, Any]

ERROR: Raw = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
TEXT: Raw = {"type": "text", "text": ""}

# A way into each state. The open block is 1, so that a second block may begin as 1 in no state but BETWEEN.
WAYS: dict[State, list[Raw]] = {
    State.START: [],
    State.BETWEEN: [start(), *block(0, TEXT)],
    State.BLOCK: [start(), *block(0, TEXT), block_start(1, TEXT)],
    State.ENDING: [start(), *block(0, TEXT), end()],
    State.DONE: [start(), *block(0, TEXT), end(), STOP],
    State.FAILED: [start(), *block(0, TEXT), ERROR],
}

# One event of each type, as it would be right where it is allowed.
NEXT: dict[str, Raw] = {
    "message_start": start(id="msg_2"),
    "content_block_start": block_start(1, TEXT),
    "content_block_delta": text_delta(1, "x"),
    "content_block_stop": block_stop(1),
    "message_delta": end(),
    "message_stop": STOP,
    "error": ERROR,
}

# What the documentation allows; the table in the code is held against it, not the other way round.
ALLOWED: dict[State, set[str]] = {
    State.START: {"message_start", "error"},
    State.BETWEEN: {"content_block_start", "message_delta", "error"},
    State.BLOCK: {"content_block_delta", "content_block_stop", "message_delta", "error"},
    State.ENDING: {"message_delta", "message_stop", "error"},
    State.DONE: set(),
    State.FAILED: set(),
}

# What lenient reading applies all the same, and the state after it.
REPAIRED: dict[State, dict[str, State]] = {
    State.BETWEEN: {
        "content_block_delta": State.BETWEEN,
        "content_block_stop": State.BETWEEN,
        "message_stop": State.DONE,
    },
    State.BLOCK: {"content_block_start": State.BLOCK, "message_stop": State.DONE},
    State.ENDING: {
        "content_block_start": State.BLOCK,
        "content_block_delta": State.ENDING,
        "content_block_stop": State.ENDING,
    },
}

PAIRS = list(itertools.product(State, NEXT))
ALLOWED_PAIRS = [(state, kind) for state, kind in PAIRS if kind in ALLOWED[state]]
FORBIDDEN_PAIRS = [(state, kind) for state, kind in PAIRS if kind not in ALLOWED[state]]


def error_of(raws: list[Raw]) -> EventOrderError:
    with pytest.raises(EventOrderError) as caught:
        fold(raws)
    return caught.value


def lenient(*raws: Raw) -> MessageBuilder:
    return fold(raws, strict=False)


def content_of(builder: MessageBuilder) -> list[Raw]:
    assert builder.message is not None
    content: list[Raw] = builder.message.to_dict()["content"]
    return content


# --- The table -----------------------------------------------------------------------------------------------------


def test_the_table_is_what_the_documentation_allows() -> None:
    assert {state: set(row) for state, row in TRANSITIONS.items()} == ALLOWED


def test_every_type_of_event_but_the_ping_is_tried() -> None:
    assert set(NEXT) == set(_EVENTS) - {"ping"}, "`ping` may come anywhere; name any other event here that may"


def test_every_type_of_event_that_a_state_names_has_a_class_and_a_method() -> None:
    for kind in {*itertools.chain(*TRANSITIONS.values()), *REPAIRS}:
        assert kind in _EVENTS, f"events.py has no class for {kind}"
        assert hasattr(MessageBuilder, f"_on_{kind}"), f"MessageBuilder has no method for {kind}"


@pytest.mark.parametrize("state", State)
def test_an_event_that_no_state_names_is_allowed_in_every_state_and_changes_nothing(state: State) -> None:
    builder = fold(WAYS[state])
    before = builder.message.to_dict() if builder.message else None
    note: Any = BaseEvent({"type": "note"})
    builder.apply(note)
    assert (builder.state, builder.deviations) == (state, [])
    assert (builder.message.to_dict() if builder.message else None) == before


@pytest.mark.parametrize(("state", "kind"), ALLOWED_PAIRS, ids=str)
def test_an_event_that_is_allowed_leads_where_the_table_says(state: State, kind: str) -> None:
    builder = fold([*WAYS[state], NEXT[kind]])
    assert builder.state is TRANSITIONS[state][kind]


@pytest.mark.parametrize(("state", "kind"), FORBIDDEN_PAIRS, ids=str)
def test_strict_reading_names_the_rule_and_what_would_be_allowed(state: State, kind: str) -> None:
    builder = fold(WAYS[state])
    before = builder.message.to_dict() if builder.message else None
    with pytest.raises(EventOrderError) as caught:
        builder.feed(to_sse(NEXT[kind]))
    assert caught.value.rule == f"{kind} may not come {state.value}"
    allowed = ", ".join([*TRANSITIONS[state], "ping"] if TRANSITIONS[state] else ["nothing", "ping"])
    assert caught.value.message == f"{kind} may not come {state.value} (allowed {state.value}: {allowed})"
    assert builder.state is state
    assert (builder.message.to_dict() if builder.message else None) == before


@pytest.mark.parametrize(("state", "kind"), FORBIDDEN_PAIRS, ids=str)
def test_lenient_reading_repairs_or_ignores_and_notes_it(state: State, kind: str) -> None:
    begun = [raw for raw in WAYS[state] if raw["type"] == "content_block_start"]
    following = block_start(len(begun), TEXT) if kind == "content_block_start" else NEXT[kind]
    builder = fold([*WAYS[state], following], strict=False)
    applied = kind in REPAIRED.get(state, {})
    repair = "it was applied all the same" if applied else "it was ignored"
    number = len(WAYS[state]) + 1
    assert builder.deviations == [Deviation(f"{kind} may not come {state.value}", repair, number)]
    assert builder.state is (REPAIRED[state][kind] if applied else state)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("raw", [PING, {"type": "message_mood"}], ids=["ping", "unknown"])
def test_pings_and_unknown_events_may_come_at_any_time(state: State, raw: Raw) -> None:
    builder = fold([*WAYS[state], raw])
    assert (builder.state, builder.deviations) == (state, [])


def test_what_lenient_reading_ignores_changes_nothing() -> None:
    for state, kind in FORBIDDEN_PAIRS:
        if kind not in REPAIRED.get(state, {}):
            builder = fold([*WAYS[state], NEXT[kind]], strict=False)
            assert builder.message == fold(WAYS[state]).message, (state, kind)


def test_the_first_error_event_stays_the_error() -> None:
    builder = lenient(*WAYS[State.FAILED], {"type": "error", "error": {"type": "api_error"}})
    assert builder.error is not None
    assert builder.error.error.type == "overloaded_error"


def test_an_error_after_the_end_is_none_of_the_answer() -> None:
    assert lenient(*ANSWER, ERROR).error is None


# --- Blocks and their indices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raws", "rule"),
    [
        ([block_start(1, TEXT)], "block indices count from 0 without gaps: 1 came for 0"),
        ([block_start(-1, TEXT)], "block indices count from 0 without gaps: -1 came for 0"),
        ([*block(0, TEXT), block_start(0, TEXT)], "block indices count from 0 without gaps: 0 came for 1"),
        ([block_start(0, TEXT), text_delta(1, "x")], "content_block_delta names block 1, but block 0 is open"),
        (
            [*block(0, TEXT), block_start(1, TEXT), text_delta(0, "x")],
            "content_block_delta names block 0, but block 1 is open",
        ),
        ([block_start(0, TEXT), block_stop(1)], "content_block_stop names block 1, but block 0 is open"),
    ],
)
def test_strict_reading_names_what_is_wrong_with_a_block(raws: list[Raw], rule: str) -> None:
    assert error_of([start(), *raws]).rule == rule
    assert [deviation.rule for deviation in lenient(start(), *raws).deviations] == [rule]


CITATION = delta(0, "citations_delta", citation={})
THOUGHT = delta(0, "thinking_delta", thinking="x")


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (TEXT, THOUGHT),
        (TEXT, input_delta(0, "{")),
        (TEXT, delta(0, "signature_delta", signature="s")),
        (TEXT, delta(0, "compaction_delta", content="c")),
        (tool_block(), text_delta(0, "x")),
        (tool_block(), CITATION),
        ({"type": "redacted_thinking", "data": "x"}, THOUGHT),
    ],
)
def test_a_delta_must_fit_its_block(raw: Raw, wrong: Raw) -> None:
    rule = f"{wrong['delta']['type']} does not fit a block of type {raw['type']}"
    raws = [start(), block_start(0, raw), wrong]
    assert error_of(raws).rule == rule
    assert lenient(*raws).deviations == [Deviation(rule, "the delta was ignored", 3)]
    assert content_of(lenient(*raws)) == [raw]


def test_blocks_after_content_that_was_there_from_the_start_go_on_counting() -> None:
    begun = start(content=[{"type": "text", "text": "a"}])
    assert fold([begun, *block(1, TEXT)]).state is State.BETWEEN
    assert error_of([begun, *block(0, TEXT)]).rule == "block indices count from 0 without gaps: 0 came for 1"


def test_with_a_gap_in_the_indices_no_delta_is_lost() -> None:
    builder = lenient(start(), *block(2, TEXT, text_delta(2, "a")), *block(7, tool_block(), input_delta(7, '{"a": 1}')))
    text, tool = content_of(builder)
    assert (text["text"], tool["input"]) == ("a", {"a": 1})
    assert len(builder.deviations) == 2


def test_with_an_index_that_comes_again_each_block_gets_its_own_deltas() -> None:
    builder = lenient(start(), *block(0, TEXT, text_delta(0, "a")), *block(0, TEXT, text_delta(0, "b")))
    assert [raw["text"] for raw in content_of(builder)] == ["a", "b"]


def test_deltas_for_a_block_that_never_began_go_to_the_open_one() -> None:
    builder = lenient(start(), block_start(0, TEXT), text_delta(-1, "a"), text_delta(4, "b"))
    assert content_of(builder) == [{"type": "text", "text": "ab"}]
    assert builder.deviations[0].text == "it was applied to the open block"


def test_interleaved_blocks_are_put_together_by_their_index() -> None:
    raws = [block_start(0, TEXT), block_start(1, TEXT), text_delta(0, "a"), text_delta(1, "b"), text_delta(0, "c")]
    builder = lenient(start(), *raws, block_stop(0), block_stop(1), end(), STOP)
    assert [raw["text"] for raw in content_of(builder)] == ["ac", "b"]
    assert builder.is_done


def test_a_tool_call_that_is_closed_twice_is_closed() -> None:
    builder = lenient(
        start(), *block(0, tool_block(), input_delta(0, '{"a": 1}')), block_stop(0), end("tool_use"), STOP
    )
    assert builder.message is not None
    assert builder.message.content[0].complete
    assert builder.is_done


@pytest.mark.parametrize("following", [block_start(1, TEXT), STOP])
def test_a_tool_call_that_is_never_closed_is_complete_if_its_input_is(following: Raw) -> None:
    for text, complete in [('{"a": 1}', True), ('{"a": 1', False), ("", False)]:
        builder = lenient(start(), block_start(0, tool_block()), input_delta(0, text), following)
        assert builder.message is not None
        assert builder.message.content[0].complete is complete


def test_a_block_after_the_stop_reason_is_kept() -> None:
    builder = lenient(start(), end(), *block(0, TEXT, text_delta(0, "late")), STOP)
    assert content_of(builder) == [{"type": "text", "text": "late"}]


def test_a_delta_and_a_stop_after_the_stop_reason_are_applied() -> None:
    builder = lenient(start(), block_start(0, tool_block()), end(), input_delta(0, '{"a": 1}'), block_stop(0), STOP)
    assert content_of(builder)[0]["input"] == {"a": 1}
    assert builder.is_done


def test_a_delta_for_another_block_after_the_stop_reason_goes_to_none() -> None:
    builder = lenient(start(), block_start(0, TEXT), end(), text_delta(7, "x"))
    assert content_of(builder) == [TEXT]
    assert len(builder.deviations) == 1


def test_a_delta_for_content_that_was_there_from_the_start_goes_there() -> None:
    builder = lenient(start(content=[{"type": "text", "text": "a"}]), text_delta(0, "b"))
    assert content_of(builder) == [{"type": "text", "text": "ab"}]
    assert builder.has_content


def test_a_delta_for_no_block_at_all_is_nothing() -> None:
    assert content_of(lenient(start(), text_delta(0, "x"))) == []


# --- Good streams, with their events disturbed ---------------------------------------------------------------------

# Two blocks of text, a tool call, a second message_delta.
GOOD: list[Raw] = [
    start(),
    PING,
    *block(0, TEXT, text_delta(0, "a"), text_delta(0, "b")),
    *block(1, tool_block(), input_delta(1, '{"a":'), input_delta(1, " 1}")),
    end(),
    end("tool_use"),
    STOP,
]


def outcome(raws: list[Raw]) -> str:
    """What a reader is told: the rule that was broken, that the end is missing, or that all is well."""
    try:
        builder = fold(raws)
    except EventOrderError as exc:
        return exc.rule
    return "complete" if builder.is_done else "tail missing" if builder.is_complete else "truncated"


LETTERS = {
    "message_start": "start",
    "content_block_start": "begin",
    "content_block_delta": "delta",
    "content_block_stop": "stop",
    "message_delta": "change",
    "message_stop": "end",
}

# The documentation's order, for an answer of two blocks; the end of the last one may be missing where max_tokens cut it.
ORDER = re.compile(r"start begin0( delta0)* stop0 begin1( delta1)*( stop1)?( change)+ end")


def is_in_order(raws: list[Raw]) -> bool:
    words = [LETTERS[raw["type"]] + str(raw.get("index", "")) for raw in raws if raw != PING]
    return ORDER.fullmatch(" ".join(words)) is not None


DROPPED = [[*GOOD[:i], *GOOD[i + 1 :]] for i in range(len(GOOD))]
DOUBLED = [[*GOOD[:i], GOOD[i], *GOOD[i:]] for i in range(len(GOOD))]
PLACES = itertools.combinations(range(len(GOOD)), 2)
SWAPPED = [[*GOOD[:i], GOOD[j], *GOOD[i + 1 : j], GOOD[i], *GOOD[j + 1 :]] for i, j in PLACES]
DISTURBED = [raws for raws in DROPPED + DOUBLED + SWAPPED if raws != GOOD]


def test_the_good_stream_is_complete() -> None:
    assert outcome(GOOD) == "complete"
    assert is_in_order(GOOD)


def test_a_disturbed_stream_is_complete_only_if_it_is_still_in_order() -> None:
    for raws in DISTURBED:
        assert (outcome(raws) == "complete") is is_in_order(raws), (outcome(raws), [raw["type"] for raw in raws])


def test_every_prefix_of_a_good_stream_is_truncated_until_the_stop_reason() -> None:
    outcomes = [outcome(TOOL_CALL[:count]) for count in range(len(TOOL_CALL) + 1)]
    assert outcomes == [*["truncated"] * 10, "tail missing", "complete"]


def test_lenient_reading_reads_every_disturbed_stream_to_its_end_and_notes_each_fault() -> None:
    for raws in DISTURBED:
        builder = fold(raws, strict=False)
        strict = outcome(raws)
        assert bool(builder.deviations) is (strict not in ("complete", "tail missing", "truncated")), strict
        if builder.message is not None:
            builder.message.to_json()


def test_a_lenient_reader_of_a_good_stream_sees_what_a_strict_one_sees() -> None:
    for raws in (GOOD, ANSWER, TOOL_CALL):
        assert fold(raws, strict=False).message == fold(raws).message
