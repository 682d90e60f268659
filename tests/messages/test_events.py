"""rawsse.messages.events: one server-sent event -> one typed event; and the derived ones."""

from __future__ import annotations

import copy
import json
from typing import Any, assert_type

import pytest
from support.streams import (
    PING,
    STOP,
    block_start,
    block_stop,
    delta,
    end,
    expanded,
    input_delta,
    start,
    text_delta,
    to_sse,
)

from rawsse import messages
from rawsse.errors import EventDataError, PartialJSONError
from rawsse.messages.content import Block, Citation, Message, MessageDeltaFields, StopReason, TextBlock, Usage
from rawsse.messages.events import (
    _DELTAS,
    _EVENTS,
    KNOWN_DELTA_TYPES,
    CitationEvent,
    CitationsDelta,
    CompactionDelta,
    CompactionEvent,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Delta,
    ErrorEvent,
    InputJSONDelta,
    InputJSONEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    SignatureEvent,
    StreamEvent,
    TextDelta,
    TextEvent,
    ThinkingDelta,
    ThinkingEvent,
    UnknownDelta,
    UnknownEvent,
    brings_content,
    read_event,
    whole_events,
)
from rawsse.messages.message import MessageBuilder
from rawsse.sse import Event

Raw = dict[str, Any]

CITATIONS: list[Raw] = [
    {"type": "char_location", "document_index": 0, "document_title": None, "start_char_index": 0, "end_char_index": 4},
    {"type": "page_location", "document_index": 0, "start_page_number": 1, "end_page_number": 2},
    {"type": "content_block_location", "document_index": 0, "start_block_index": 0, "end_block_index": 1},
    {"type": "web_search_result_location", "url": "https://example.com", "title": None, "encrypted_index": "e"},
    {"type": "search_result_location", "source": "s", "title": None, "search_result_index": 0},
]

# Every type of event, with fields as the API documents them.
EVENTS: list[tuple[type[StreamEvent], Raw]] = [
    (MessageStart, start()),
    (ContentBlockStart, block_start(0, {"type": "text", "text": ""})),
    (ContentBlockDelta, text_delta(0, "hi")),
    (ContentBlockStop, block_stop(0)),
    (MessageDelta, end()),
    (MessageStop, STOP),
    (Ping, PING),
    (ErrorEvent, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "r"}),
]

# Every type of delta.
DELTAS: list[tuple[type[Delta], Raw]] = [
    (TextDelta, {"type": "text_delta", "text": "hi"}),
    (InputJSONDelta, {"type": "input_json_delta", "partial_json": '{"a'}),
    (ThinkingDelta, {"type": "thinking_delta", "thinking": "hm", "estimated_tokens": 3}),
    (SignatureDelta, {"type": "signature_delta", "signature": "c2ln"}),
    (CompactionDelta, {"type": "compaction_delta", "content": "so far", "encrypted_content": None}),
    *((CitationsDelta, {"type": "citations_delta", "citation": {"cited_text": "c", **raw}}) for raw in CITATIONS),
]


def read(raw: Raw) -> Any:
    return read_event(to_sse(raw))


# --- Events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "raw"), EVENTS, ids=[raw["type"] for _, raw in EVENTS])
def test_an_event_is_of_the_class_that_its_type_names_and_keeps_every_field(kind: type[StreamEvent], raw: Raw) -> None:
    event = read({**raw, "new": {"field": [1]}})
    assert event.new.field == [1]
    assert type(event) is kind
    assert event.to_dict() == {**raw, "new": {"field": [1]}}


def test_every_type_of_event_and_delta_can_be_imported() -> None:
    assert {kind.__name__ for kind in (*_EVENTS.values(), *_DELTAS.values())} <= {*messages.__all__}


def test_every_type_of_event_and_delta_is_tried_here() -> None:
    assert {raw["type"] for _, raw in EVENTS} == set(_EVENTS)
    assert {raw["type"] for _, raw in DELTAS} == KNOWN_DELTA_TYPES


@pytest.mark.parametrize(("kind", "raw"), DELTAS, ids=[raw["type"] for _, raw in DELTAS])
def test_a_delta_is_of_the_class_that_its_type_names_and_keeps_every_field(kind: type[Delta], raw: Raw) -> None:
    event = read({"type": "content_block_delta", "index": 0, "delta": {**raw, "new": 1}})
    assert type(event.delta) is kind
    assert event.delta.raw == {**raw, "new": 1}


@pytest.mark.parametrize("raw", [{"type": "hologram_delta", "depth": 3}, {"depth": 3}, {"type": [], "depth": 3}])
def test_a_delta_of_another_type_is_unknown_and_readable(raw: Raw) -> None:
    event = read({"type": "content_block_delta", "index": 0, "delta": raw})
    assert (type(event.delta), event.delta.depth) == (UnknownDelta, 3)


def test_an_event_of_another_type_is_unknown_and_readable() -> None:
    event = read({"type": "message_mood", "mood": "sunny"})
    assert (type(event), event.type, event.mood) == (UnknownEvent, "message_mood", "sunny")


def test_the_server_sent_event_stays_with_the_typed_one() -> None:
    sse = Event("ping", '{"type": "ping"   }', "7")
    event = read_event(sse)
    assert event is not None
    assert event.sse is sse


def test_mypy_knows_the_fields() -> None:
    begun = MessageStart(start())
    assert_type(begun.message, Message)
    block = ContentBlockStart(block_start(3, {"type": "text", "text": ""}))
    assert_type(block.index, int)
    assert_type(block.content_block, Block)
    assert_type(ContentBlockDelta(text_delta(0, "t")).delta, Delta)
    assert_type(ContentBlockStop(block_stop(0)).content_block, Block)
    ended = MessageDelta(end())
    assert_type(ended.delta, MessageDeltaFields)
    assert_type(ended.delta.stop_reason, StopReason | None)
    assert_type(ended.usage, Usage)
    assert_type(MessageStop(STOP).message, Message)
    assert_type(ErrorEvent({"error": {}}).error, Any)
    assert_type(TextDelta({"text": "t"}).text, str)
    assert_type(CitationsDelta({"citation": {}}).citation, Citation)
    assert_type(InputJSONDelta({"partial_json": ""}).partial_json, str)
    assert_type(ThinkingDelta({"thinking": ""}).estimated_tokens, int | None)
    assert_type(SignatureDelta({"signature": "s"}).signature, str)
    assert_type(CompactionDelta({}).content, str | None)


def test_what_only_a_stream_can_know_is_none_in_an_event_alone() -> None:
    assert (read(block_stop(0)).content_block, read(STOP).message) == (None, None)


EMPTY_TEXT: Raw = {"type": "text", "text": "", "citations": None}
EMPTY_TOOL: Raw = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


@pytest.mark.parametrize(
    ("raw", "brings"),
    [
        (text_delta(0, "H"), True),
        (delta(0, "thinking_delta", thinking="H"), True),
        (input_delta(0, "{"), True),
        (text_delta(0, ""), False),
        (input_delta(0, ""), False),
        (delta(0, "signature_delta", signature="x"), False),
        (delta(0, "citations_delta", citation={"cited_text": "x"}), False),
        (block_start(0, EMPTY_TEXT), False),
        (block_start(0, EMPTY_TOOL), False),
        (block_start(0, {"type": "thinking", "thinking": "", "signature": ""}), False),
        (block_start(0, {"type": "redacted_thinking", "data": "x"}), False),
        (block_start(0, {**EMPTY_TEXT, "text": "H"}), True),
        (block_start(0, {**EMPTY_TOOL, "input": {"a": 1}}), True),
        (block_start(0, {"type": "web_search_tool_result", "content": [{"type": "web_search_result"}]}), True),
        (start(), False),
        (PING, False),
        (block_stop(0), False),
        (end(), False),
        ({"type": "new_event", "delta": {"text": "H"}}, False),
    ],
    ids=lambda value: json.dumps(value)[:80],
)
def test_content_is_what_a_reader_gets_and_not_that_a_block_begins(raw: Raw, brings: bool) -> None:
    event = read_event(to_sse(raw))
    assert event is not None
    assert brings_content(event) is brings


# --- What names an event -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["message", "ping", "nonsense"])
def test_the_type_in_the_json_decides_whatever_the_event_is_called(name: str) -> None:
    assert type(read_event(Event(name, '{"type": "message_stop"}'))) is MessageStop


@pytest.mark.parametrize("data", ["{}", '{"type": null}', '{"type": ""}'])
def test_where_the_json_has_no_type_the_event_s_name_decides(data: str) -> None:
    event = read_event(Event("message_stop", data))
    assert type(event) is MessageStop
    assert event.type == "message_stop"


def test_an_object_that_nothing_names_is_unknown() -> None:
    event = read_event(Event("message", '{"choices": []}'))
    assert type(event) is UnknownEvent


@pytest.mark.parametrize("data", ["[DONE]", " [DONE] "])
def test_the_end_mark_of_other_vendors_is_nothing(data: str) -> None:
    assert read_event(Event("message", data)) is None


@pytest.mark.parametrize("data", ["", "null", "{}", "12", "now", '{"type": "ping"}'])
def test_a_ping_is_a_ping_whatever_its_data(data: str) -> None:
    event = read_event(Event("ping", data))
    assert type(event) is Ping
    assert event.type == "ping"


@pytest.mark.parametrize("data", ["", "tick", "12", "[1]", '{"a": 1'])
def test_an_event_of_another_party_may_have_any_data(data: str) -> None:
    event = read_event(Event("heartbeat", data))
    assert type(event) is UnknownEvent
    assert (event.type, event.sse.data) == ("heartbeat", data)


@pytest.mark.parametrize("data", ["gone", "", "[1]", "7"])
@pytest.mark.parametrize("name", ["error", "Error", "exception"])
def test_an_error_that_is_not_json_is_reported_as_text(name: str, data: str) -> None:
    event = read_event(Event(name, data))
    assert isinstance(event, ErrorEvent)
    assert (event.error.type, event.error.message) == (None, data)


@pytest.mark.parametrize(
    "sse",
    [
        Event("message", '{"error": {"type": "overloaded_error", "message": "Busy"}}'),
        Event("message", '{"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}'),
        Event("message", '{"type": "overloaded_error", "message": "Busy"}'),
        Event("error", '{"error": {"type": "overloaded_error", "message": "Busy"}}'),
        Event("error", '{"type": "overloaded_error", "message": "Busy"}'),
        Event("error", '{"type": "overloaded_error", "error": "Busy"}'),
        Event("vendor", '{"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}'),
    ],
)
def test_an_error_is_one_in_whatever_form(sse: Event) -> None:
    event = read_event(sse)
    assert isinstance(event, ErrorEvent)
    assert (event.type, event.error.type, event.error.message) == ("error", "overloaded_error", "Busy")
    assert event.sse is sse


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('{"detail": "Invalid token"}', "Invalid token"),
        ('{"message": "Invalid token"}', "Invalid token"),
        ('{"type": "error", "error": "Invalid token"}', "Invalid token"),
        ('{"type": "error", "detail": [{"msg": "Invalid token"}]}', "Invalid token"),
        ('{"type": "error"}', None),
        ('{"type": "new_error", "message": "Invalid token"}', "Invalid token"),
        ("{}", None),
    ],
)
@pytest.mark.parametrize("name", ["error", "Error", "ERROR", "exception"])
def test_the_words_of_an_error_event_are_found(name: str, data: str, words: str | None) -> None:
    event = read_event(Event(name, data))
    assert isinstance(event, ErrorEvent)
    assert (event.error.type, event.error.message) == (None, words)


@pytest.mark.parametrize(
    "data", ['{"detail": "Forbidden"}', '{"message": "Forbidden"}', '{"detail": [{"msg": "Forbidden"}], "code": 7}']
)
def test_words_without_name_and_type_are_an_error(data: str) -> None:
    event = read_event(Event("message", data))
    assert isinstance(event, ErrorEvent)
    assert (event.error.type, event.error.message) == (None, "Forbidden")


@pytest.mark.parametrize(
    "sse",
    [
        Event("message", '{"message": {"role": "assistant"}}'),  # of another vendor
        Event("message", '{"type": "notice", "message": "Hello"}'),
        Event("notice", '{"message": "Hello"}'),
    ],
)
def test_an_event_that_has_a_message_is_not_for_that_an_error(sse: Event) -> None:
    assert isinstance(read_event(sse), UnknownEvent)


@pytest.mark.parametrize("name", ["Error", "exception"])
def test_a_known_type_counts_more_than_the_name_of_an_error(name: str) -> None:
    assert type(read_event(Event(name, '{"type": "ping"}'))) is Ping


def test_an_error_event_in_words_may_name_its_type() -> None:
    event = read_event(Event("error", "overloaded_error"))
    assert isinstance(event, ErrorEvent)
    assert event.error.type == "overloaded_error"


WORDS = [
    "ping",
    "PING",
    "pong",
    "keep-alive",
    "keepalive",
    "Keep Alive",
    "heartbeat",
    "heart-beat",
    "[PING]",
    ": ping",
    "ok",
]
WORDS += [
    '"ping"',
    "'keep-alive'",
    "ping\n",
    " <heartbeat> ",
    "None",
    "undefined",
    "NULL",
    ".",
    ":",
    "--",
    "noop",
    "alive!",
]


WORDS += [": ping - 2026-02-01 10:00:00.123456+00:00", "heartbeat 17"]


@pytest.mark.parametrize("data", ["", " ", "\n", "\n\n", "null", '""', "[]", "{}", "{ }", "[ ]", "false", "0", *WORDS])
def test_an_event_without_name_and_data_keeps_the_connection_alive_and_is_no_other(data: str) -> None:
    assert read_event(Event("message", data)) is None


BROKEN = [
    '{"type": "ping"',
    '"type": "ping"}',
    "{",
    "}",
    '"}',
    "{ping}",
    '{"type": "content_block_delta", "index": 0',
    "ping {}",
]
BROKEN += ["pinging", "ping ping", "keep", '["ping", 1]', "-" * 50 + "{"]


@pytest.mark.parametrize("data", ["tick", "1", "[1]", '"x"', *BROKEN])
def test_an_event_without_name_that_has_data_is_no_keep_alive(data: str) -> None:
    with pytest.raises(EventDataError):
        read_event(Event("message", data))


@pytest.mark.parametrize("name", ["message_start", "content_block_start", "content_block_delta", "content_block_stop"])
@pytest.mark.parametrize("data", ["ping", "{}", "null", ""])
def test_an_event_of_the_api_s_own_is_none_whatever_its_data(name: str, data: str) -> None:
    with pytest.raises(EventDataError):
        read_event(Event(name, data))


# --- A whole message -------------------------------------------------------------------------------------------------


def test_a_whole_message_has_the_events_that_a_stream_would_have_brought() -> None:
    blocks = [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}]
    usage = {"input_tokens": 1, "output_tokens": 2}
    message = {"type": "message", "id": "m", "content": blocks, "stop_reason": "tool_use", "usage": usage}
    builder = MessageBuilder()
    events = [builder.feed(sse) for sse in whole_events(message)]
    assert builder.message is not None
    assert builder.message.raw == {**message, "stop_sequence": None}
    assert [block.complete for block in builder.message.content] == [True, True]
    assert [event.raw["delta"]["text"] for event in events if isinstance(event, ContentBlockDelta)] == ["Hi"]
    assert builder.is_done


@pytest.mark.parametrize("raw", [{}, {"type": "message"}, {"type": "message", "content": "x"}, {"content": []}])
def test_what_is_no_whole_message_has_none(raw: Raw) -> None:
    assert whole_events(raw) == []


# --- Data without an event -----------------------------------------------------------------------------------------

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("event", "data", "text"),
    [
        ("message_stop", "", "the data of event 'message_stop' are not JSON (Expecting value"),
        ("message_stop", '{"type": "message_stop"', "the data of event 'message_stop' are not JSON (Expecting ',' "),
        ("message", "Bad Gateway", "the data of event 'message' are not JSON (Expecting value"),
        ("message_stop", "[1]", "the data of event 'message_stop' are not a JSON object: '[1]'"),
        ("message", "7", "the data of event 'message' are not a JSON object: '7'"),
        ("message", DEEP, "the data of event 'message' are not JSON (maximum recursion depth exceeded"),
        ("message", "1" * 5000, "the data of event 'message' are not JSON (Exceeds the limit"),
        ("message", '{"type": 7}', "the type of event 'message' is not a name: '7'"),
        ("message", '{"type": "a\\nb"}', "the type of event 'message' is not a name: "),
        ("a\0b", "{", "the data of event 'a\\x00b' are not JSON"),
    ],
)
def test_data_that_are_not_an_event_are_quoted(event: str, data: str, text: str) -> None:
    with pytest.raises(EventDataError) as caught:
        read_event(Event(event, data))
    assert text in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"type": "message_start"}, "event message_start has no 'message' that is an object"),
        ({"type": "message_start", "message": None}, "event message_start has no 'message' that is an object"),
        (
            {"type": "content_block_start", "index": 0},
            "event content_block_start has no 'content_block' that is an object",
        ),
        (
            {"type": "content_block_start", "content_block": {}},
            "event content_block_start has no 'index' that is a number",
        ),
        ({"type": "content_block_delta", "delta": {}}, "event content_block_delta has no 'index' that is a number"),
        ({"type": "content_block_delta", "index": 0}, "event content_block_delta has no 'delta' that is an object"),
        ({"type": "content_block_stop", "index": True}, "event content_block_stop has no 'index' that is a number"),
        ({"type": "content_block_stop", "index": 0.0}, "event content_block_stop has no 'index' that is a number"),
    ],
)
def test_what_an_event_cannot_do_without_is_named(raw: Raw, text: str) -> None:
    with pytest.raises(EventDataError, match=text):
        read(raw)


# --- Derived events ------------------------------------------------------------------------------------------------


SUMMARY = CompactionDelta({"content": "c"})


def test_a_derived_event_says_its_index_its_type_and_its_piece() -> None:
    kinds: list[Any] = [
        TextEvent(1, "t", lambda: "text"),
        ThinkingEvent(1, "t", lambda: "thinking"),
        InputJSONEvent(1, "{", dict),
        CitationEvent(1, Citation({}), list),
        SignatureEvent(1, "s", str),
        CompactionEvent(1, SUMMARY, lambda: SUMMARY),
    ]
    assert [event.type for event in kinds] == ["text", "thinking", "input_json", "citation", "signature", "compaction"]
    assert {event.index for event in kinds} == {1}


DERIVED: list[tuple[Any, Any]] = [
    (TextEvent(1, "t", lambda: "one"), TextEvent(1, "t", lambda: "two")),
    (ThinkingEvent(1, "t", lambda: "one"), ThinkingEvent(1, "t", lambda: "two")),
    (InputJSONEvent(1, "{", lambda: "one"), InputJSONEvent(1, "{", lambda: "two")),
    (CitationEvent(1, Citation({}), list), CitationEvent(1, Citation({}), lambda: [Citation({})])),
    (SignatureEvent(1, "s", lambda: "one"), SignatureEvent(1, "s", lambda: "two")),
    (CompactionEvent(1, SUMMARY, lambda: SUMMARY), CompactionEvent(1, SUMMARY, lambda: CompactionDelta({}))),
]


@pytest.mark.parametrize(("one", "two"), DERIVED)
def test_derived_events_are_values_and_their_snapshots_no_part_of_them(one: Any, two: Any) -> None:
    assert one == two
    assert repr(one) == repr(two)
    assert not hasattr(one, "__dict__")
    for name in one.__match_args__:
        with pytest.raises(AttributeError):
            setattr(one, name, 2)


def test_derived_events_that_differ_are_not_equal() -> None:
    events = [one for one, _ in DERIVED]
    assert all((a == b) is (a is b) for a in events for b in events)
    assert TextEvent(1, "t", str) != TextEvent(2, "t", str)
    assert TextEvent(1, "t", str) != TextEvent(1, "u", str)


def test_a_derived_event_shows_its_fields_and_can_be_hashed() -> None:
    assert repr(TextEvent(1, "t", str)) == "TextEvent(index=1, text='t', type='text')"
    assert len({TextEvent(1, "t", str), TextEvent(1, "t", lambda: "other"), TextEvent(1, "u", str)}) == 2


def test_a_stop_has_nothing_that_it_finished_unless_a_message_stream_says_so() -> None:
    for event in (ContentBlockStop(block_stop(0)).content_block, MessageStop(STOP).message):
        assert event is None


def test_a_snapshot_is_made_when_it_is_looked_at() -> None:
    looks = iter(["first look", "second look"])
    event = TextEvent(0, "t", lambda: next(looks))
    assert (event.snapshot, event.snapshot) == ("first look", "second look")


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ('{"city": "Os', {"city": "Os"}), ('{"city": "Oslo", "days": 1', {"city": "Oslo", "days": 1})],
)
def test_text_that_is_json_can_be_read_before_its_end(text: str, value: Any) -> None:
    assert TextEvent(0, "", lambda: text).parsed_snapshot() == value


def test_text_that_is_not_json_raises_when_it_is_read() -> None:
    with pytest.raises(PartialJSONError, match="expected a value, found 'Hi'"):
        TextEvent(0, "Hi", lambda: "Hi").parsed_snapshot()


def test_a_stream_may_lend_its_reader() -> None:
    assert TextEvent(0, "", str, _parsed=lambda: 5).parsed_snapshot() == 5


def test_snapshots_have_the_types_of_what_they_show() -> None:
    assert_type(TextEvent(0, "t", str).snapshot, str)
    assert_type(ThinkingEvent(0, "t", str).snapshot, str)
    assert_type(CitationEvent(0, Citation({}), list).snapshot, list[Citation])
    assert InputJSONEvent(0, "{", dict).snapshot == {}


def test_match_works_on_wire_and_derived_events_alike() -> None:
    heard: list[str] = []
    for event in expanded([start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "hi"), block_stop(0)]):
        match event:
            case ContentBlockDelta(delta=TextDelta(text=text)):
                heard.append(f"delta {text}")
            case TextEvent(text=text, index=0):
                heard.append(f"text {text}")
            case ContentBlockStop(content_block=TextBlock(text=text)):
                heard.append(f"block {text}")
    assert heard == ["delta hi", "text hi", "block hi"]


def test_reading_an_event_twice_gives_equal_events() -> None:
    raw = start()
    assert read(copy.deepcopy(raw)) == read(raw)
    assert json.loads(read(raw).to_json()) == raw
