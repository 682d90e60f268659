"""rawsse.messages.message: what an answer of all kinds of blocks hands on, what its events may leave out, and what it costs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.sampling import one_in
from support.streams import (
    ANSWER,
    STOP,
    TOOL_CALL,
    block,
    block_start,
    block_stop,
    delta,
    end,
    expanded,
    fold,
    input_delta,
    start,
    text_delta,
    to_sse,
    tool_block,
)

from rawsse.errors import RawsseError
from rawsse.messages import (
    Citation,
    CitationEvent,
    CompactionEvent,
    ContentBlockStop,
    InputJSONEvent,
    MessageBuilder,
    MessageStop,
    SignatureEvent,
    TextBlock,
    TextEvent,
    ThinkingEvent,
    ToolUseBlock,
)
from rawsse.messages.content import BlockBuilder
from rawsse.sse import Event

Raw = dict[str, Any]

CITED = {"type": "char_location", "cited_text": "c"}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]}
THOUGHT = [delta(2, "thinking_delta", thinking="t", estimated_tokens=1), delta(2, "signature_delta", signature="s")]
SUMMARY = delta(6, "compaction_delta", content="c", encrypted_content="e")
STOPPED = {"stop_reason": "refusal", "stop_details": {"type": "refusal"}, "container": {"id": "c"}}

# One answer with all kinds of blocks and deltas, and with every kind of optional field.
FULL: list[Raw] = [
    start(content=[{"type": "text", "text": "t", "citations": [CITED]}], usage={"server_tool_use": {"a": 1}}),
    *block(
        1,
        {"type": "text", "text": "", "citations": []},
        text_delta(1, "a"),
        delta(1, "citations_delta", citation=CITED),
    ),
    *block(2, {"type": "thinking", "thinking": "", "signature": ""}, *THOUGHT),
    *block(3, tool_block(caller={"type": "direct"}), input_delta(3, '{"a": 1}')),
    *block(4, SEARCH),
    *block(5, FOUND),
    *block(6, {"type": "compaction", "content": None}, SUMMARY),
    *block(7, {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}),
    {"type": "message_delta", "delta": STOPPED, "usage": {"output_tokens": 1}, "context_management": {"a": 1}},
    STOP,
]


# --- Derived events ------------------------------------------------------------------------------------------------


def names(events: list[Any]) -> list[str]:
    return [event.type for event in events]


def test_the_derived_event_follows_its_delta() -> None:
    assert names(expanded(ANSWER)) == [
        "message_start",
        "content_block_start",
        "ping",
        *("content_block_delta", "text") * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_each_kind_of_delta_has_its_derived_event_with_its_index() -> None:
    derived = [event for event in expanded(FULL) if not hasattr(event, "raw")]
    assert [(type(event), event.index) for event in derived] == [
        (TextEvent, 1),
        (CitationEvent, 1),
        (ThinkingEvent, 2),
        (SignatureEvent, 2),
        (InputJSONEvent, 3),
        (CompactionEvent, 6),
    ]


def test_the_end_of_a_block_brings_the_block_and_the_end_of_the_message_the_message() -> None:
    events = expanded(TOOL_CALL)
    stops = [event for event in events if isinstance(event, ContentBlockStop)]
    assert [stop.content_block and stop.content_block.complete for stop in stops] == [True, True]
    assert stops[0].content_block == TextBlock({"type": "text", "text": "Let me see."})
    assert isinstance(events[-1], MessageStop)
    assert events[-1].message == fold(TOOL_CALL).message


def test_text_snapshots_are_of_their_own_moment_whenever_they_are_looked_at() -> None:
    texts = [event for event in expanded(ANSWER) if isinstance(event, TextEvent)]
    assert [event.snapshot for event in reversed(texts)] == ["Hello ☺", "Hel"]


def test_thinking_snapshots_are_of_their_own_moment() -> None:
    deltas = [delta(0, "thinking_delta", thinking=text) for text in "abc"]
    events = expanded([start(), *block(0, {"type": "thinking", "thinking": ""}, *deltas)])
    assert [event.snapshot for event in events if isinstance(event, ThinkingEvent)] == ["a", "ab", "abc"]


def test_citation_snapshots_are_of_their_own_moment() -> None:
    cited = [delta(0, "citations_delta", citation={"cited_text": text}) for text in "ab"]
    events = expanded([start(), *block(0, {"type": "text", "text": ""}, *cited)])
    first, second = (event for event in events if isinstance(event, CitationEvent))
    assert second.snapshot == [Citation({"cited_text": "a"}), Citation({"cited_text": "b"})]
    assert first.snapshot == [Citation({"cited_text": "a"})]


def test_input_snapshots_are_of_the_moment_of_looking() -> None:
    builder = MessageBuilder()
    seen: list[Any] = []
    for raw in TOOL_CALL:
        event = builder.feed(to_sse(raw))
        assert event is not None
        seen += [copy.deepcopy(d.snapshot) for d in builder.expand(event) if isinstance(d, InputJSONEvent)]
    assert seen == [{}, {}, {"city": "Oslo", "days": 3}]


def test_input_of_server_and_mcp_tools_has_derived_events_too() -> None:
    for kind in ("server_tool_use", "mcp_tool_use", "quantum_tool_use"):
        events = expanded([start(), *block(0, {"type": kind, "input": {}}, input_delta(0, "{}"))])
        assert "input_json" in names(events), kind


def test_a_delta_that_fits_no_known_block_has_no_derived_event() -> None:
    events = expanded([start(), *block(0, {"type": "hologram", "text": ""}, text_delta(0, "hi"), delta(0, "new"))])
    assert names(events)[2:4] == ["content_block_delta", "content_block_delta"]


def test_a_delta_that_was_not_applied_has_no_derived_event() -> None:
    late = [delta(0, "text_delta"), text_delta(5, "x"), block_stop(0)]
    events = expanded([*ANSWER, *late], strict=False)
    assert names(events)[-3:] == ["content_block_delta", "content_block_delta", "content_block_stop"]
    assert events[-1].content_block is None  # type: ignore[union-attr]


# --- Optional fields -----------------------------------------------------------------------------------------------


def without_each_key(value: Any) -> Iterator[Any]:
    """The JSON value without each of its keys in turn, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield {**value, key: None}
            yield from ({**value, key: less} for less in without_each_key(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from ([*value[:index], less, *value[index + 1 :]] for less in without_each_key(inner))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("index", range(len(FULL)))
def test_whatever_an_event_leaves_out_nothing_but_a_named_error_comes_of_it(index: int, strict: bool) -> None:
    step = one_in(2)  # each strict or lenient
    for less in list(without_each_key(FULL[index]))[strict % step :: step]:
        builder = MessageBuilder(strict=strict)
        events = [Event(raw["type"], json.dumps(raw)) for raw in FULL]
        events[index] = events[index]._replace(data=json.dumps(less))
        try:
            for sse in events:
                event = builder.feed(sse)
                assert event is not None
                for derived in builder.expand(event):
                    repr(derived)
                    getattr(derived, "snapshot", None)
        except RawsseError:
            pass
        if builder.message is not None:
            json.dumps([builder.message.to_dict(), builder.message.replayable()])
            assert isinstance(builder.message.text, str)


# --- Cost ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each time that the fragments of a block are put together."""
    counted: list[str] = []

    def count(name: str, original: Any) -> Any:
        def counting(block: BlockBuilder, *args: Any) -> Any:
            counted.append(name)
            return original(block, *args)

        return counting

    input_text: Any = vars(BlockBuilder)["input_text"]
    monkeypatch.setattr(BlockBuilder, "settle", count("settle", BlockBuilder.settle))
    monkeypatch.setattr(BlockBuilder, "input_text", property(count("input_text", input_text.fget)))
    return counted


@pytest.mark.parametrize(
    ("raw", "piece"), [({"type": "text", "text": ""}, text_delta(0, "a")), (tool_block(), input_delta(0, " "))]
)
def test_fragments_are_put_together_as_often_for_many_deltas_as_for_few(looks: list[str], raw: Raw, piece: Raw) -> None:
    counts: list[int] = []
    for n in (10, 20, 40):
        looks.clear()
        expanded([start(), block_start(0, raw), *[piece] * n, input_delta(0, "{}") if "input" in raw else piece])
        counts.append(len(looks))
    assert counts == [0, 0, 0]


def test_the_end_of_a_block_puts_it_together_a_fixed_number_of_times(looks: list[str]) -> None:
    counts: list[int] = []
    for n in (10, 20, 40):
        looks.clear()
        expanded(
            [start(), *block(0, tool_block(), *[input_delta(0, " ")] * n, input_delta(0, "{}")), STOP], strict=False
        )
        counts.append(len(looks))
    assert counts[0] == counts[1] == counts[2] > 0


def test_the_text_of_an_event_is_that_of_its_derived_event() -> None:
    builder = MessageBuilder()
    for raw in FULL:
        event = builder.feed(to_sse(raw))
        assert event is not None
        texts = [derived.text for derived in builder.expand(event) if isinstance(derived, TextEvent)]
        assert builder.added_text == (texts[0] if texts else None)


def test_the_derived_events_have_whole_characters_where_deltas_cut_them_in_two() -> None:
    raws = [
        start(),
        *block(0, {"type": "text", "text": ""}, *(text_delta(0, piece) for piece in ("a\ud83d", "\ude00", "\ud83d"))),
    ]
    builder, derived, texts = MessageBuilder(), list[TextEvent](), list[str | None]()
    for raw in raws:
        event = builder.feed(to_sse(raw))
        assert event is not None
        derived += [each for each in builder.expand(event) if isinstance(each, TextEvent)]
        texts.append(builder.added_text)
    assert [(each.text, each.snapshot) for each in derived] == [
        ("a", "a"),
        ("\U0001f600", "a\U0001f600"),
        ("", "a\U0001f600"),
        ("\ufffd", "a\U0001f600\ufffd"),
    ]
    assert texts == [None, None, "a", "\U0001f600", "", "\ufffd"]


# What a block begins with, the deltas of the wire, how these read, and what is left when the block ends.
HALVES = [
    ("", ["a\ud83d", "\ude00b"], ["", "a", "\U0001f600b"], ""),
    ("", ["\ud83d", "", "\ude00"], ["", "", "", "\U0001f600"], ""),
    ("a\ud83d", ["\ude00", "b"], ["a", "\U0001f600", "b"], ""),
    ("\ud83d", ["\ud83d", "\ude00", "\ud83d"], ["", "\ufffd", "\U0001f600", ""], "\ufffd"),
    ("\ude00", ["\ude00"], ["\ufffd", "\ufffd"], ""),
    ("", ["a", "\ud83d", "é\ud83d"], ["", "a", "", "\ufffdé"], "\ufffd"),
]
ENDS: dict[str, list[Raw]] = {
    "stopped": [block_stop(0), end(), STOP],
    "ended": [end(), STOP],
    "followed by a block": [block_start(1, {"type": "text", "text": ""}), block_stop(1), end(), STOP],
    "ended by the message": [STOP],
}


@pytest.mark.parametrize(("begins", "pieces", "reads", "left"), HALVES)
@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_no_character_is_lost_where_two_parts_of_a_block_have_half_of_it_each(
    kind: str, ends: list[Raw], begins: str, pieces: list[str], reads: list[str], left: str
) -> None:
    deltas = [delta(0, f"{kind}_delta", **{kind: piece}) for piece in pieces]
    raws = [start(), block_start(0, {"type": kind, kind: begins}), *deltas, *ends]
    builder, events, derived, texts = MessageBuilder(strict=False), list[Any](), list[str](), list[str]()
    for raw in raws:
        event = builder.feed(to_sse(raw))
        assert event is not None
        derived += [getattr(each, kind) for each in builder.expand(event) if each.type == kind]
        texts.append(builder.added_text or "")
        events.append(event)
    assert [event.raw for event in events] == [event.to_dict() for event in events] == raws
    parts = [events[1].content_block, *(event.delta for event in events[2 : 2 + len(pieces)])]
    assert [getattr(part, kind) for part in parts] == reads
    saved = [json.loads(event.model_dump_json()) for event in events]
    assert [each.get("delta", each.get("content_block"))[kind] for each in saved[1 : 2 + len(pieces)]] == reads
    assert "".join(derived) == "".join(reads[1:]) + left
    assert builder.message is not None
    assert getattr(builder.message.content[0], kind) == "".join(reads) + left
    assert "".join(texts) == ("".join(derived) if kind == "text" else "")


def test_a_half_that_is_left_of_a_text_comes_before_the_event_that_ends_it() -> None:
    for ending in (block_stop(0), end(), block_start(1, {"type": "text", "text": ""})):
        raws = [start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "a\ud83d"), ending]
        events, builder = list[Any](), MessageBuilder(strict=False)
        for raw in raws:
            event = builder.feed(to_sse(raw))
            assert event is not None
            events += builder.expand(event)
        half, last = events[-2:]
        assert (half.text, half.index, half.snapshot, last.type) == ("\ufffd", 0, "a\ufffd", ending["type"])


def test_the_json_of_a_tool_s_input_can_be_printed_too() -> None:
    pieces = ['{"a": "\ud83d', "\ude00 \ude00", '"}']
    raws = [start(), *block(0, tool_block(), *(input_delta(0, piece) for piece in pieces))]
    builder, derived = MessageBuilder(), list[InputJSONEvent]()
    for raw in raws:
        event = builder.feed(to_sse(raw))
        assert event is not None
        derived += [each for each in builder.expand(event) if isinstance(each, InputJSONEvent)]
    assert [each.partial_json for each in derived] == ['{"a": "', "\U0001f600 \ufffd", '"}']
    assert builder.message is not None
    call = builder.message.content[0]
    assert isinstance(call, ToolUseBlock)
    assert call.input_text == '{"a": "\U0001f600 \ufffd"}'


def test_a_citation_is_no_text() -> None:
    builder = MessageBuilder()
    raws = [start(), block_start(0, {"type": "text", "text": ""}), delta(0, "citations_delta", citation=CITED)]
    events = [builder.feed(to_sse(raw)) for raw in raws]
    assert events[-1] is not None
    assert builder.added_text is None
