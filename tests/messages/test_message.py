"""rawsse.messages.message: what each event does to the message. Their order is tried in
`test_message_order.py`, what is derived from them in `test_message_derived.py`."""

from __future__ import annotations

import json
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

from rawsse.errors import EventDataError, MessageTooLargeError
from rawsse.messages import Message, MessageBuilder, TextBlock, ToolUseBlock, read_event
from rawsse.sse import Event

Raw = dict[str, Any]


def message_of(*raws: Raw) -> Message:
    message = fold(raws).message
    assert message is not None
    return message


def block_of(*raws: Raw) -> Any:
    """The one block that these events make."""
    (only,) = message_of(start(), *raws).content
    return only


# --- Whole answers -------------------------------------------------------------------------------------------------


def test_a_text_answer_is_what_the_api_returns_without_streaming() -> None:
    assert message_of(*ANSWER).to_dict() == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [{"type": "text", "text": "Hello ☺"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 7},
    }


def test_a_tool_call_has_its_input_parsed_and_its_text_kept() -> None:
    text, tool = message_of(*TOOL_CALL).content
    assert isinstance(tool, ToolUseBlock)
    assert text == TextBlock({"type": "text", "text": "Let me see."})
    assert (tool.input, tool.complete) == ({"city": "Oslo", "days": 3}, True)
    assert tool.input_text == '{"city": "Oslo", "days": 3}'


def test_before_message_start_there_is_no_message() -> None:
    builder = fold([PING])
    assert (builder.message, builder.stop_reason, builder.has_content) == (None, None, False)


def test_the_end_mark_of_other_vendors_changes_nothing() -> None:
    builder = fold(ANSWER)
    assert builder.feed(Event("message", "[DONE]")) is None
    assert builder.is_done


@pytest.mark.parametrize("given", [{}, {"content": None}, {"usage": None}, {"usage": 3, "content": []}])
def test_what_message_start_leaves_out_is_there_all_the_same(given: Raw) -> None:
    message = message_of({"type": "message_start", "message": given})
    assert message.to_dict() == {"content": [], "usage": {}, "stop_reason": None, "stop_sequence": None}


@pytest.mark.parametrize("content", ["text", [1], {"a": 1}])
def test_content_that_is_no_list_of_blocks_is_refused(content: Any) -> None:
    with pytest.raises(EventDataError, match="message_start has a message whose content is not a list of objects"):
        fold([start(content=content)])


def test_content_that_is_there_from_the_start_is_kept_and_counted() -> None:
    call = tool_block(input={"a": 1})
    message = message_of(start(content=[call]), *block(1, {"type": "text", "text": ""}, text_delta(1, "hi")))
    first, second = message.content
    assert isinstance(first, ToolUseBlock)
    assert isinstance(second, TextBlock)
    assert (first.input, first.complete, second.text) == ({"a": 1}, True, "hi")


# --- Deltas --------------------------------------------------------------------------------------------------------


def test_text_is_put_together() -> None:
    only = block_of(*block(0, {"type": "text", "text": "A"}, text_delta(0, "b"), text_delta(0, ""), text_delta(0, "c")))
    assert (only.text, only.complete, only.input_text) == ("Abc", True, "")


def test_thinking_is_put_together_and_signed() -> None:
    deltas = [
        delta(0, "thinking_delta", thinking="h", estimated_tokens=2),
        delta(0, "thinking_delta", thinking="m"),
        delta(0, "signature_delta", signature="c2ln"),
    ]
    only = block_of(*block(0, {"type": "thinking", "thinking": "", "signature": ""}, *deltas))
    assert only.raw == {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


def test_thinking_may_be_nothing_but_a_signature() -> None:
    signed = delta(0, "signature_delta", signature="c2ln")
    only = block_of(*block(0, {"type": "thinking", "thinking": ""}, signed))
    assert only.raw == {"type": "thinking", "thinking": "", "signature": "c2ln"}


@pytest.mark.parametrize("first", [{}, {"citations": None}, {"citations": []}])
def test_citations_are_gathered_in_their_order(first: Raw) -> None:
    cited = [delta(0, "citations_delta", citation={"type": "char_location", "cited_text": text}) for text in "ab"]
    only = block_of(*block(0, {"type": "text", "text": "", **first}, cited[0], text_delta(0, "t"), cited[1]))
    assert [citation.cited_text for citation in only.citations] == ["a", "b"]
    assert only.text == "t"


def test_a_compaction_is_set_not_put_together() -> None:
    given = [delta(0, "compaction_delta", content=text, encrypted_content="e") for text in ("old", "new")]
    only = block_of(*block(0, {"type": "compaction", "content": "x", "signature": "s"}, *given))
    assert only.raw == {"type": "compaction", "content": "new", "encrypted_content": "e", "signature": "s"}


def test_a_compaction_that_leaves_out_a_field_leaves_it_as_it_was() -> None:
    given = delta(0, "compaction_delta", content=None)
    only = block_of(*block(0, {"type": "compaction", "content": "x", "encrypted_content": "e"}, given))
    assert only.raw == {"type": "compaction", "content": None, "encrypted_content": "e"}


def test_a_result_comes_whole_with_its_start() -> None:
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]}
    assert block_of(*block(0, result)).raw == result


def test_a_fallback_changes_the_model() -> None:
    switch = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}
    assert message_of(start(model="a"), *block(0, switch)).model == "b"


@pytest.mark.parametrize("to", [{}, None, {"model": None}, "b"])
def test_a_fallback_to_nowhere_leaves_the_model(to: Any) -> None:
    assert message_of(start(model="a"), *block(0, {"type": "fallback", "to": to})).model == "a"


def test_an_unknown_block_keeps_all_and_grows_where_it_looks_as_if_it_could() -> None:
    only = block_of(*block(0, {"type": "hologram", "text": "", "depth": 3}, text_delta(0, "hi")))
    assert only.raw == {"type": "hologram", "text": "hi", "depth": 3}


def test_deltas_of_unknown_type_change_nothing() -> None:
    only = block_of(*block(0, {"type": "text", "text": "t"}, delta(0, "mood_delta", mood="sunny"), delta(0, "x")))
    assert only.raw == {"type": "text", "text": "t"}


@pytest.mark.parametrize("kind", ["text_delta", "input_json_delta", "signature_delta", "compaction_delta"])
def test_a_known_delta_on_a_block_of_unknown_type_is_no_fault(kind: str) -> None:
    fields = {"text": "t", "partial_json": "{", "signature": "s", "content": "c"}
    assert block_of(*block(0, {"type": "hologram"}, delta(0, kind, **fields))).raw == {"type": "hologram"}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (delta(0, "text_delta"), "a text_delta has no 'text' that is a string"),
        (delta(0, "text_delta", text=None), "a text_delta has no 'text' that is a string"),
        (delta(0, "citations_delta"), "a citations_delta has no 'citation' that is an object"),
        (delta(0, "citations_delta", citation="c"), "a citations_delta has no 'citation' that is an object"),
    ],
)
def test_a_delta_without_its_value_is_named_and_not_applied(raw: Raw, text: str) -> None:
    builder = fold([start(), block_start(0, {"type": "text", "text": "t"})])
    with pytest.raises(EventDataError, match=text):
        builder.feed(to_sse(raw))
    assert builder.message is not None
    assert builder.message.text == "t"


@pytest.mark.parametrize(
    ("kind", "field"),
    [("thinking_delta", "thinking"), ("signature_delta", "signature")],
)
def test_a_thinking_delta_without_its_value_is_named(kind: str, field: str) -> None:
    with pytest.raises(EventDataError, match=f"a {kind} has no '{field}' that is a string"):
        fold([start(), block_start(0, {"type": "thinking", "thinking": ""}), delta(0, kind)])


# --- A tool's input ------------------------------------------------------------------------------------------------


def test_a_tool_without_arguments_may_stream_nothing_or_empty_strings() -> None:
    for deltas in ([], [input_delta(0, "")], [input_delta(0, ""), input_delta(0, "")]):
        only = block_of(*block(0, tool_block(), *deltas))
        assert (only.input, only.complete, only.input_text) == ({}, True, "")


@pytest.mark.parametrize("closed", [True, False])
def test_an_input_that_max_tokens_cuts_is_never_complete(closed: bool) -> None:
    text = '{"path": "a.txt", "text": "Once'
    for cut in range(len(text) + 1 if not closed else len(text)):
        deltas = [input_delta(0, text[: cut + closed])]
        events = [block_start(0, tool_block()), *deltas, *([block_stop(0)] if closed else []), end("max_tokens"), STOP]
        assert not block_of(*events).complete, text[:cut]


def test_an_input_whose_end_was_not_told_is_complete_if_it_is_whole() -> None:
    events = [block_start(0, tool_block()), input_delta(0, '{"a": 1}'), end("max_tokens"), STOP]
    for told in (events, events[:-1]):
        assert (block_of(*told).input, block_of(*told).complete) == ({"a": 1}, True)
    assert not block_of(*events[:-2]).complete


def test_a_new_kind_of_tool_call_is_read_as_one() -> None:
    only = block_of(*block(0, {"type": "quantum_tool_use", "input": {}}, input_delta(0, '{"a": 1}')))
    assert (only.input, only.complete) == ({"a": 1}, True)


# --- Usage and stop reason -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "usage"),
    [
        ({"output_tokens": 1}, [{"output_tokens": 5}], {"output_tokens": 5}),
        ({"output_tokens": 1}, [{"output_tokens": 5}, {"output_tokens": 9}], {"output_tokens": 9}),
        ({"input_tokens": 10}, [{"input_tokens": None, "output_tokens": 5}], {"input_tokens": 10, "output_tokens": 5}),
        ({"input_tokens": 0}, [{"input_tokens": 12}], {"input_tokens": 12}),
        ({"cache_creation": {"x": 1}}, [{"output_tokens": 5}], {"cache_creation": {"x": 1}, "output_tokens": 5}),
        ({}, [{"brand_new": {"a": 1}}], {"brand_new": {"a": 1}}),
        ({"server_tool_use": None}, [{"server_tool_use": {"web": 1}}], {"server_tool_use": {"web": 1}}),
        ({"iterations": [1]}, [{"iterations": [1, 2]}], {"iterations": [1, 2]}),
        ({"input_tokens": 3}, [{}], {"input_tokens": 3}),
        ({"input_tokens": 3}, [None], {"input_tokens": 3}),
    ],
)
def test_the_last_count_that_is_not_null_stands(first: Raw, then: list[Raw | None], usage: Raw) -> None:
    ends = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": given} for given in then]
    assert message_of(start(usage=first), *ends).usage.raw == usage


def test_the_usage_of_a_stream_can_be_read_at_any_time_without_its_nulls() -> None:
    builder = MessageBuilder()
    assert builder.usage == {}
    builder.feed(to_sse(start(usage={"input_tokens": 3, "output_tokens": 1, "cache_creation": None})))
    assert builder.usage == {"input_tokens": 3, "output_tokens": 1}


def test_the_stop_reason_comes_with_all_that_explains_it() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": None}
    fields = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details, "container": {"id": "c"}}
    message = message_of(start(), {"type": "message_delta", "delta": fields, "usage": {}})
    assert {name: message[name] for name in fields} == fields


def test_a_null_container_does_not_undo_the_one_that_was_told() -> None:
    message = message_of(start(container={"id": "c"}), {"type": "message_delta", "delta": {"container": None}})
    assert message["container"] == {"id": "c"}


@pytest.mark.parametrize("second", [{"stop_reason": None}, {"stop_reason": "max_tokens"}])
def test_a_second_message_delta_may_change_the_stop_reason(second: Raw) -> None:
    message = message_of(start(), end("end_turn"), {"type": "message_delta", "delta": second, "usage": {}})
    assert message.stop_reason == second["stop_reason"]


@pytest.mark.parametrize("second", [{}, {"delta": {}}, {"delta": None}, {"usage": {"output_tokens": 9}}])
def test_a_second_message_delta_that_says_nothing_of_it_leaves_the_stop_reason(second: Raw) -> None:
    assert message_of(start(), end("end_turn"), {"type": "message_delta", **second}).stop_reason == "end_turn"


def test_what_message_delta_says_beside_its_delta_belongs_to_the_message() -> None:
    message = message_of(start(), {**end(), "context_management": {"applied_edits": []}, "nothing": None})
    assert message["context_management"] == {"applied_edits": []}
    assert "nothing" not in message


def test_no_message_delta_replaces_what_was_folded() -> None:
    harm = {"type": "x", "content": [], "usage": {"output_tokens": 0}, "stop_reason": "end_turn"}
    message = message_of(*ANSWER[:-2], {"type": "message_delta", "delta": harm, "content": None, "usage": {"a": 1}})
    assert (message.type, message.text) == ("message", "Hello ☺")
    assert message.usage.raw == {"input_tokens": 10, "output_tokens": 1, "a": 1}


# --- What is known so far ------------------------------------------------------------------------------------------


def test_phase_and_completeness_at_every_step() -> None:
    builder = MessageBuilder()
    seen: list[tuple[str, bool, bool]] = []
    for raw in [start(), *block(0, {"type": "text", "text": ""}, text_delta(0, "hi")), end(), STOP]:
        builder.feed(to_sse(raw))
        seen.append((builder.phase, builder.is_complete, builder.is_done))
    nothing, some = ("open", False, False), ("content", False, False)
    assert seen == [nothing, some, some, some, ("tail", True, False), ("done", True, True)]


def test_a_message_delta_without_a_stop_reason_is_not_the_tail() -> None:
    builder = fold([start(), end(None)])
    assert (builder.is_complete, builder.phase) == (False, "open")


def test_a_message_is_live() -> None:
    builder = fold(TOOL_CALL[:1])
    early: Any = builder.message
    assert early is not None
    for raw in TOOL_CALL[1:7]:
        builder.feed(to_sse(raw))
    text, tool = early.content
    assert (text.text, tool.input, tool.complete) == ("Let me see.", {}, False)
    builder.feed(to_sse(TOOL_CALL[7]))
    assert (early.content[1].input, early.content[1].complete) == ({"city": "Oslo", "days": 3}, False)
    builder.feed(to_sse(TOOL_CALL[8]))
    assert (early.content[1].input, early.content[1].complete) == ({"city": "Oslo", "days": 3}, True)


def test_an_open_call_in_a_message_may_not_be_sent_back() -> None:
    message = message_of(*TOOL_CALL[:8])  # all of its input has come, but not its end
    assert message.replayable() == {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}]}


def test_the_events_stay_as_they_came() -> None:
    switch = {"type": "fallback", "to": {"model": "b"}}
    cited = [delta(3, "citations_delta", citation={"cited_text": "c"}), text_delta(3, "t")]
    raws = [
        start(content=[tool_block(input={"a": 1}), {"type": "text", "text": "t", "citations": []}]),
        *block(2, switch),
        *block(3, {"type": "text", "text": "", "citations": [{"cited_text": "b"}]}, *cited),
        *block(4, tool_block(), input_delta(4, '{"a": 1}')),
        end("tool_use", input_tokens=4),
        STOP,
    ]
    builder = MessageBuilder()
    events = [builder.feed(to_sse(raw)) for raw in raws]
    assert builder.message is not None
    assert builder.message.model == "b"
    assert [event and event.raw for event in events] == raws


def test_folding_the_same_events_twice_gives_the_same() -> None:
    events = [read_event(to_sse(raw)) for raw in TOOL_CALL]
    builders = [MessageBuilder(), MessageBuilder()]
    for builder in builders:
        for event in events:
            assert event is not None
            builder.apply(event)
    assert builders[0].message == builders[1].message == message_of(*TOOL_CALL)


# --- Limits --------------------------------------------------------------------------------------------------------


def test_a_message_that_outgrows_the_limit_is_refused_and_what_fitted_is_kept() -> None:
    size = len(to_sse(ANSWER[0]).data) + len(to_sse(ANSWER[1]).data) + len("Hel") + 8  # a ping costs nothing
    builder = MessageBuilder(max_message_bytes=size)
    for raw in ANSWER[:4]:
        builder.feed(to_sse(raw))
    with pytest.raises(MessageTooLargeError, match=r"the message is larger than max_message_bytes \(\d+\)") as caught:
        builder.feed(to_sse(ANSWER[4]))
    assert builder.message is not None
    assert (builder.message.text, caught.value.limit) == ("Hel", size)


def test_the_limit_is_in_bytes_not_in_characters() -> None:
    opening = [to_sse(raw) for raw in (start(), block_start(0, {"type": "text", "text": ""}))]
    data = json.dumps(text_delta(0, "é" * 100), ensure_ascii=False)
    size = sum(len(sse.data) for sse in opening) + 200 + 8
    for limit, fits in [(size, True), (size - 1, False)]:
        builder = MessageBuilder(max_message_bytes=limit)
        for sse in opening:
            builder.feed(sse)
        if fits:
            builder.feed(Event("message", data))
        else:
            with pytest.raises(MessageTooLargeError):
                builder.feed(Event("message", data))


def test_a_citation_counts_with_all_its_json_whatever_else_the_delta_has() -> None:
    builder = fold([start(), block_start(0, {"type": "text", "text": ""})], max_message_bytes=1000)
    citation = {"type": "char_location", "cited_text": "x" * 1000}
    with pytest.raises(MessageTooLargeError):
        builder.feed(to_sse(delta(0, "citations_delta", citation=citation, **{"": "x"})))


def test_half_a_surrogate_pair_does_not_stop_the_count() -> None:
    sse = Event("message", '{"type": "message_start", "message": {"id": "\ud800"}}')
    builder = MessageBuilder()
    builder.feed(sse)
    assert builder.message is not None


@pytest.mark.parametrize(
    ("pieces", "read"),
    [
        (["\ud83d", "\ude00"], "\U0001f600"),
        (["a\ud83d", "\ude00b", "é"], "a\U0001f600bé"),
        (["\ud83d", "", "\ude00"], "\U0001f600"),
        (["\ud83d", "\ud83d\ude00"], "\ufffd\U0001f600"),
        (["\ud83d", "a"], "\ufffda"),
        (["\ude00", "\ud83d"], "\ufffd\ufffd"),
        (["a", "\ud83d"], "a\ufffd"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_two_halves_of_a_surrogate_pair_become_one_character_over_deltas(
    kind: str, pieces: list[str], read: str
) -> None:
    deltas = [delta(0, f"{kind}_delta", **{kind: piece}) for piece in pieces]
    builder = fold([start(), *block(0, {"type": kind, kind: ""}, *deltas), end(), STOP])
    assert builder.message is not None
    made = builder.message.content[0]
    assert made.raw[kind] == getattr(made, kind) == read
    assert builder.message.text == (read if kind == "text" else "")
    assert read.encode() in builder.message.to_json().encode()


def test_a_half_that_waits_for_the_other_is_not_shown_yet() -> None:
    builder = fold([start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "a\ud83d")])
    assert builder.message is not None
    assert builder.message.text == "a"


@pytest.mark.parametrize("half", ["\ud83d", "\\ud83d", "\\uDE00"])
def test_half_a_character_in_a_tool_s_input_is_a_replacement_character(half: str) -> None:
    pieces = ['{"a": ["', half, ' \\ud83d\\ude00"]}']
    builder = fold([start(), *block(0, tool_block(), *(input_delta(0, piece) for piece in pieces))])
    assert builder.message is not None
    assert builder.message.content[0].raw["input"] == {"a": ["\ufffd \U0001f600"]}


def test_halves_in_a_tool_s_input_are_joined_too() -> None:
    pieces = ['{"a": "\ud83d', '\ude00", "b": "\\ud83d', '\\ude00"}']
    builder = fold([start(), *block(0, tool_block(), *(input_delta(0, piece) for piece in pieces)), STOP], strict=False)
    assert builder.message is not None
    assert builder.message.content[0].raw["input"] == {"a": "\U0001f600", "b": "\U0001f600"}


@pytest.mark.parametrize("closes", [True, False])
def test_a_text_that_ends_with_half_a_pair_ends_with_it_however_the_block_ends(*, closes: bool) -> None:
    raws = block(0, {"type": "text", "text": ""}, text_delta(0, "a\ud83d"))
    builder = fold([start(), *(raws if closes else raws[:-1]), end(), STOP])
    assert builder.message is not None
    assert builder.message.text == "a\ufffd"


def test_a_half_in_a_text_that_came_whole_is_read_as_a_replacement_character() -> None:
    raws = [
        start(id="\ud83d"),
        *block(0, {"type": "text", "text": "\ud83d", "citations": [{"cited_text": "\ude00"}]}),
    ]
    builder = fold(raws)
    assert builder.message is not None
    made = builder.message.content[0]
    assert isinstance(made, TextBlock)
    assert made.citations
    assert (builder.message.id, made.text, made.citations[0].cited_text) == ("\ufffd",) * 3
    assert builder.message.raw["id"] == "\ud83d"


def test_a_citation_for_a_block_whose_citations_are_no_list_is_refused() -> None:
    builder = fold([start(), block_start(0, {"type": "text", "text": "", "citations": "x"})])
    with pytest.raises(EventDataError, match="a text has no 'citations' that is a list"):
        builder.feed(to_sse(delta(0, "citations_delta", citation={"type": "char_location"})))
    assert builder.message is not None
    assert builder.message.content[0].raw["citations"] == "x"


@pytest.mark.parametrize("odd", [5, [], {}, True])
def test_a_stop_reason_that_is_no_string_is_none(odd: object) -> None:
    builder = fold([start(), {"type": "message_delta", "delta": {"stop_reason": odd}, "usage": {}}])
    assert builder.stop_reason is None
    assert not builder.is_complete
