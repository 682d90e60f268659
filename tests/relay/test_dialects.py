"""rawsse.relay.dialects: what each event becomes, what a failure says, and which requests are refused."""

from __future__ import annotations

import importlib
import json
import pkgutil
from itertools import chain
from typing import Any

import pytest
from support.streams import PING, STOP, Raw, block_start, delta, end, input_delta, start, text_delta, to_sse

import rawsse.relay
from rawsse.errors import (
    APIConnectionError,
    ConfigurationError,
    ConnectTimeoutError,
    ContentTimeoutError,
    EventOrderError,
    HTTPProtocolError,
    InvalidFieldError,
    RawsseError,
    StreamCancelledError,
    StreamTruncatedError,
    status_error,
    stream_error,
)
from rawsse.messages import Ending, read_event
from rawsse.messages.events import ErrorEvent, StreamEvent
from rawsse.relay.dialects import (
    COMMENT_HEARTBEAT,
    DONE,
    MAX_LOGGED_CHARS,
    PING_HEARTBEAT,
    Dialect,
    EventsDialect,
    Failure,
    Frame,
    InvalidRequest,
    MessagesDialect,
    TextDialect,
    WholeDialect,
    failure_of,
    one_line,
    read_chat,
    read_messages,
)
from rawsse.relay.event_source import ItemsDialect
from rawsse.relay.paths import DIALECTS, RESUMABLE
from rawsse.sse import Decoder, Event

END_MARK = Event("message", "[DONE]")
WHOLE = Ending("complete", "the answer is whole", "done", "end_turn")
CUT = Ending("truncated", "the body ended", "content", request_id="req_1", bytes_received=7)
OVERLOADED: Raw = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
    "request_id": "req_9",
}
FAILED = Failure(502, "api_error", "it broke", ending=CUT)


def look(raw: Raw) -> StreamEvent:
    return event_of(to_sse(raw))


def event_of(sse: Event) -> StreamEvent:
    event = read_event(sse)
    assert event is not None
    return event


def test_every_dialect_of_the_package_has_a_row_and_a_name_of_its_own() -> None:
    for module in pkgutil.iter_modules(rawsse.relay.__path__, "rawsse.relay."):
        importlib.import_module(module.name)
    found, kinds = [Dialect], set[type[Dialect]]()
    while found:
        found = [kind for each in found for kind in each.__subclasses__() if kind.__module__.startswith("rawsse.")]
        kinds |= {*found}
    others = {MessagesDialect, WholeDialect, ItemsDialect}  # of /v1/messages, and of other applications
    rows = {*chain(*DIALECTS.values())}
    assert rows == kinds - others
    assert {kind.name for kind in rows} == {*RESUMABLE}
    assert len({kind.name for kind in rows}) == len(rows)


def texts(*raws: Raw) -> list[str]:
    dialect = TextDialect()
    return [json.loads(event.data)["text"] for raw in raws for event in sse(dialect.event(look(raw)))]


def sse(frames: list[Frame]) -> list[Event]:
    """The events that a browser reads from the frames."""
    return Decoder().feed("".join(frames).encode())


# --- The text dialect ----------------------------------------------------------------------------------------------


def test_a_text_delta_is_one_frame_of_text() -> None:
    assert sse(TextDialect().event(look(text_delta(0, "Hi")))) == [Event("message", '{"text":"Hi"}')]


def test_text_keeps_every_character() -> None:
    text = 'ü ☺ 🚀 "quoted" \\ \u2028 \x00 \n'
    assert texts(text_delta(0, text)) == [text]


def test_half_a_surrogate_pair_is_escaped_and_does_no_harm() -> None:
    assert texts(text_delta(0, "\ud83d")) == ["\ud83d"]


def test_a_text_that_a_block_begins_with_is_text_too() -> None:
    assert texts(block_start(0, {"type": "text", "text": "He"}), text_delta(0, "llo")) == ["He", "llo"]


@pytest.mark.parametrize(
    "raw",
    [
        start(),
        PING,
        STOP,
        end(),
        block_start(0, {"type": "text", "text": ""}),
        block_start(0, {"type": "thinking", "thinking": "Hm"}),
        block_start(0, {"type": "new_block", "text": "no text of ours"}),
        delta(0, "thinking_delta", thinking="Hm"),
        delta(0, "signature_delta", signature="s"),
        input_delta(0, "{"),
        delta(0, "text_delta"),
        delta(0, "text_delta", text=7),
        {"type": "new_event", "delta": {"type": "text_delta", "text": "not mine"}},
    ],
    ids=lambda raw: str(raw.get("delta", raw.get("content_block", raw)).get("type", raw["type"])),
)
def test_what_is_no_text_makes_no_frame(raw: Raw) -> None:
    assert TextDialect().event(look(raw)) == []


def test_the_text_dialect_says_a_failure_and_then_its_end_mark() -> None:
    assert sse(TextDialect().fail(FAILED)) == [Event("message", '{"error":"it broke","type":"api_error"}'), END_MARK]


def test_the_text_dialect_ends_with_its_mark() -> None:
    assert sse(TextDialect().end(WHOLE)) == [END_MARK]


# --- The API's own events ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [MessagesDialect(), EventsDialect()], ids=lambda dialect: dialect.name)
def test_an_event_keeps_its_own_bytes(dialect: Dialect) -> None:
    data = '{"type": "content_block_delta", "index":0,"delta":{"type":"text_delta","text":"\\u00fc"}, "new": 1e2}      '
    assert sse(dialect.event(event_of(Event("content_block_delta", data)))) == [Event("content_block_delta", data)]


def test_an_event_without_a_name_gets_that_of_its_type() -> None:
    assert sse(MessagesDialect().event(event_of(Event("message", '{"type":"ping"}')))) == [
        Event("ping", '{"type":"ping"}')
    ]


def test_an_event_of_a_type_that_nobody_knows_is_passed_on() -> None:
    assert sse(MessagesDialect().event(event_of(Event("news", "no JSON")))) == [Event("news", "no JSON")]


def test_an_error_event_of_the_api_is_passed_on_as_it_came() -> None:
    event = look(OVERLOADED)
    assert isinstance(event, ErrorEvent)
    failure = failure_of(stream_error(OVERLOADED, {}), event)
    assert sse(MessagesDialect().fail(failure)) == [Event("error", event.sse.data)]


def test_another_failure_is_said_as_the_api_would_with_the_ending_beside_it() -> None:
    (event,) = sse(MessagesDialect().fail(FAILED))
    assert event.event == "error"
    assert json.loads(event.data) == {
        "type": "error",
        "error": {"type": "api_error", "message": "it broke"},
        "request_id": "req_1",
        "ending": CUT.to_dict(),
    }


def test_a_failure_before_there_was_a_stream_has_no_ending_to_tell() -> None:
    assert Failure(503, "shutdown", "bye").to_json() == '{"type":"error","error":{"type":"shutdown","message":"bye"}}'


def test_a_whole_answer_needs_no_further_frame() -> None:
    assert MessagesDialect().end(WHOLE) == []


def test_a_lost_tail_is_replaced() -> None:
    ending = Ending("complete", "message_stop never came", "tail", "end_turn", tail_missing=True)
    assert sse(MessagesDialect().end(ending)) == [Event("message_stop", '{"type":"message_stop"}')]
    assert sse(EventsDialect().end(ending)) == [Event("message_stop", '{"type":"message_stop"}'), END_MARK]


def test_the_events_dialect_ends_with_the_mark_of_other_vendors() -> None:
    assert sse(EventsDialect().end(WHOLE)) == [END_MARK]
    assert EventsDialect().fail(FAILED)[1:] == [DONE]


def test_browsers_get_comments_as_heartbeats_and_clients_of_the_api_pings() -> None:
    assert TextDialect().heartbeat == EventsDialect().heartbeat == COMMENT_HEARTBEAT == b": keep-alive\n\n"
    assert MessagesDialect().heartbeat == PING_HEARTBEAT == b'event: ping\ndata: {"type": "ping"}\n\n'


# --- Failures ------------------------------------------------------------------------------------------------------


def test_a_refusal_of_the_api_keeps_its_status_its_words_and_its_body() -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}}
    failure = failure_of(status_error(429, body, {"retry-after": "7"}))
    assert (failure.status, failure.type, failure.message) == (429, "rate_limit_error", "Slow down")
    assert (failure.body, failure.headers) == (body, {"retry-after": "7"})


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", None, {"error": {"message": 7}}])
def test_a_refusal_of_a_proxy_in_between_is_put_into_words(body: object) -> None:
    failure = failure_of(status_error(502, body, {}))
    assert (failure.status, failure.type) == (502, "api_error")
    assert failure.message.startswith("status 502: ")


@pytest.mark.parametrize("body", [{"error": "odd"}, {"detail": "odd"}, {"message": "odd"}, ["odd"]])
def test_the_words_of_a_gateway_are_told_as_they_are(body: object) -> None:
    assert failure_of(status_error(502, body, {})).message == "odd"


@pytest.mark.parametrize("status", [301, 304, 399, 600, 999])
def test_a_status_that_is_no_error_to_http_becomes_502(status: int) -> None:
    assert failure_of(status_error(status, None, {})).status == 502


@pytest.mark.parametrize(
    ("error", "status", "kind", "words"),
    [
        (
            ContentTimeoutError("no content came for 600 s", seconds=600),
            504,
            "timeout_error",
            "no content came for 600 s",
        ),
        (StreamCancelledError("the stream was closed"), 200, "cancelled", "stopped"),
        (StreamTruncatedError("the body ended"), 502, "api_error", "the body ended"),
        (EventOrderError("out of order", rule="r"), 502, "api_error", "out of order"),
        (HTTPProtocolError("no HTTP"), 502, "api_error", "no HTTP"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_went_wrong_on_the_way_is_said_in_the_words_of_the_error(
    error: RawsseError, status: int, kind: str, words: str
) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.type, failure.message) == (status, kind, words)


def test_what_is_wrong_with_the_relays_own_setup_is_not_told() -> None:
    failure = failure_of(ConfigurationError("cannot read /etc/secret.pem"))
    assert (failure.status, failure.message) == (500, "the relay is not set up: see its log")


@pytest.mark.parametrize("phase", ["connect", "send", "head"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (APIConnectionError("cannot connect to http://10.0.0.7"), "the API could not be reached"),
        (ConnectTimeoutError("no connection to 10.0.0.7 within 10 s"), "the API did not answer in time"),
    ],
)
def test_the_address_of_the_api_is_not_told(error: APIConnectionError, words: str, phase: Any) -> None:
    error.phase, error.ending = phase, Ending("truncated", error.message, phase)
    failure = failure_of(error)
    assert failure.message == words
    assert "10.0.0.7" not in failure.to_json()


def test_an_answer_that_is_no_http_is_told_as_such() -> None:
    error = HTTPProtocolError("not HTTP/1.1")
    error.phase = "head"
    assert failure_of(error).message == "not HTTP/1.1"


def test_a_frame_that_cannot_be_written_is_a_failure_too() -> None:
    failure = failure_of(InvalidFieldError("event may not contain a line end"))
    assert (failure.status, failure.message) == (502, "event may not contain a line end")


def test_an_error_that_no_stream_has_looked_at_has_no_ending() -> None:
    error = APIConnectionError("lost")
    error.phase = "head"
    assert failure_of(error).ending is None


def test_words_of_others_fill_no_more_than_one_line_of_a_log() -> None:
    assert one_line("a\r\nb\x1b[2J\u2028ü") == "a  b [2J ü"
    assert len(one_line("x" * 1000)) == MAX_LOGGED_CHARS


# --- Requests of browsers ------------------------------------------------------------------------------------------


def chat(body: Raw, limit: int = 10) -> Any:
    return read_chat(body, max_prompt_chars=limit)


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize("name", ["message", "prompt"])
def test_a_text_is_one_message_of_the_user(name: str) -> None:
    assert chat({name: "Hi"}) == {"messages": [USER]}


def test_a_conversation_is_taken_as_it_is() -> None:
    messages = [
        {"role": "system", "content": "Be kind"},
        USER,
        {"role": "assistant", "content": [{"type": "text"}]},
        USER,
    ]
    assert chat({"messages": messages}) == {"messages": messages}


def test_a_browser_may_choose_system_prompt_model_and_length() -> None:
    options = {"system": "Be kind", "model": "m", "max_tokens": 1}
    assert chat({"message": "Hi", **options}) == {"messages": [USER], **options}


def test_an_option_that_is_null_is_left_out() -> None:
    body = {"message": None, "prompt": "Hi", "system": None, "model": None, "max_tokens": None}
    assert chat(body) == {"messages": [USER]}


def test_everything_else_of_the_body_is_dropped() -> None:
    assert chat({"message": "Hi", "thinking": {}, "stream": False, "metadata": {"user_id": "me"}}) == {
        "messages": [USER]
    }


def test_a_text_of_just_the_limit_is_taken() -> None:
    assert chat({"message": "x" * 10})["messages"][0]["content"] == "x" * 10


def conversation(*messages: object) -> Raw:
    return {"messages": list(messages)}


WRONG_CHATS: list[tuple[Raw, str, int]] = [
    ({}, "message: is missing (a text; or messages, a list)", 400),
    ({"prompt": None}, "message: is missing (a text; or messages, a list)", 400),
    ({"message": ""}, "message: is empty", 400),
    ({"prompt": " \n\t\u00a0"}, "prompt: is empty", 400),
    ({"message": 7}, "message: must be a string", 400),
    ({"message": ["Hi"]}, "message: must be a string", 400),
    ({"prompt": "x" * 11}, "prompt: is longer than 10 characters", 413),
    ({"messages": "Hi"}, "messages: must be a list", 400),
    ({"messages": []}, "messages: is empty", 400),
    (conversation("Hi"), "messages.0: must be an object with role and content", 400),
    (
        conversation(USER, {"role": "tool", "content": "x"}),
        "messages.1.role: must be one of user, assistant, system",
        400,
    ),
    (conversation({"content": "x"}), "messages.0.role: must be one of user, assistant, system", 400),
    (conversation({"role": ["user"], "content": "x"}), "messages.0.role: must be one of user, assistant, system", 400),
    (conversation({"role": "user"}), "messages.0.content: is missing", 400),
    (conversation({"role": "user", "content": " "}), "messages.0.content: is empty", 400),
    (conversation({"role": "user", "content": []}), "messages.0.content: must be a string", 400),
    (conversation({"role": "user", "content": ["x"]}), "messages.0.content: must be a string", 400),
    (conversation({"role": "user", "content": "x" * 11}), "messages.0.content: is longer than 10 characters", 413),
    (
        conversation({"role": "user", "content": [{"type": "text", "text": "x" * 11}]}),
        "messages.0.content: is longer than 10 characters",
        413,
    ),
    ({"message": "Hi", "system": 7}, "system: must be a string", 400),
    ({"message": "Hi", "system": "x" * 11}, "system: is longer than 10 characters", 413),
    ({"message": "Hi", "model": ""}, "model: is empty", 400),
    ({"message": "Hi", "max_tokens": 0}, "max_tokens: must be a whole number, at least 1", 400),
    ({"message": "Hi", "max_tokens": -5}, "max_tokens: must be a whole number, at least 1", 400),
    ({"message": "Hi", "max_tokens": 1.5}, "max_tokens: must be a whole number, at least 1", 400),
    ({"message": "Hi", "max_tokens": "9"}, "max_tokens: must be a whole number, at least 1", 400),
    ({"message": "Hi", "max_tokens": True}, "max_tokens: must be a whole number, at least 1", 400),
]


@pytest.mark.parametrize(("body", "words", "status"), WRONG_CHATS, ids=lambda value: str(value)[:60])
def test_a_wrong_request_is_refused_by_the_name_of_its_field(body: Raw, words: str, status: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(body)
    assert (str(caught.value), caught.value.status) == (words, status)
    assert json.loads(caught.value.body)["error"]["field"] == words.partition(":")[0]


# --- Requests of clients of the API --------------------------------------------------------------------------------


def test_a_request_of_the_api_is_passed_on_with_all_that_nobody_knows() -> None:
    body = {**conversation({"role": "user", "content": [{"type": "new"}], "x": 1}), "stream": True, "new": {}}
    assert read_messages(body, max_prompt_chars=10) == body


def test_nothing_of_a_prompt_cache_warmer_is_refused() -> None:
    body = {**conversation(USER), "model": "m", "max_tokens": 0}
    assert read_messages(body, max_prompt_chars=10) == body


def test_a_thread_goes_on_without_messages() -> None:
    body: Raw = {"messages": [], "thread": {"type": "continue"}}
    assert read_messages(body, max_prompt_chars=10) == body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "messages: must be a list"),
        ({"messages": {}}, "messages: must be a list"),
        ({"messages": []}, "messages: is empty"),
        (conversation(None), "messages.0: must be an object with role and content"),
        (conversation({"role": "robot"}), "messages.0.role: must be one of user, assistant, system"),
        (conversation({"role": "user", "content": "x" * 11}), "messages.0.content: is longer than 10 characters"),
        ({**conversation(USER), "model": None}, "model: is missing"),
        ({**conversation(USER), "model": 4}, "model: must be a string"),
        ({**conversation(USER), "max_tokens": -1}, "max_tokens: must be a whole number, at least 0"),
        ({**conversation(USER), "max_tokens": None}, "max_tokens: must be a whole number, at least 0"),
        ({**conversation(USER), "stream": "yes"}, "stream: must be true or false"),
    ],
)
def test_of_a_request_of_the_api_only_what_every_request_has_is_looked_at(body: Raw, words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{words}$"):
        read_messages(body, max_prompt_chars=10)
