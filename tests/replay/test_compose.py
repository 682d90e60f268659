"""rawsse.replay.compose: a message becomes the stream that adds up to it again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.clock import run
from support.sampling import one_in

import rawsse
from rawsse import AsyncClient
from rawsse.errors import ConfigurationError, OverloadedError, RateLimitError
from rawsse.messages import Message, MessageBuilder
from rawsse.replay import Checker, ReplayServer, check, shipped_fixtures
from rawsse.replay.compose import (
    Break,
    Fragments,
    answer,
    citation,
    cut,
    error,
    error_recording,
    mcp_tool_use,
    recording_of,
    redacted_thinking,
    server_tool_result,
    server_tool_use,
    text,
    thinking,
    tool_use,
    web_search_result,
)
from rawsse.replay.recording import Recording
from rawsse.replay.variants import pace_by
from rawsse.sse import Decoder, Event

FOLDER = Path(os.environ.get("RAWSSE_RECORDINGS") or Path(rawsse.__file__).parents[2] / "shared" / "recordings")
FIXTURES = Path(rawsse.__file__).parents[1] / "fixtures"

EVERYTHING = answer(
    thinking("Where is it?"),
    redacted_thinking(),
    text("I look.", citations=[]),
    server_tool_use("web_search", {"query": "night ferry"}),
    server_tool_result("web_search_tool_result", [web_search_result("Ferries", "https://ferries.example")]),
    text(
        "At 23:40.",
        citations=[
            citation("departs 23:40"),
            citation("daily", type="search_result_location", source="https://a.example"),
        ],
    ),
    mcp_tool_use("maps", "find", {"place": "Brennholm"}),
    server_tool_result("mcp_tool_result", [{"type": "text", "text": "here"}], is_error=False),
    {"type": "compaction", "content": "so far", "encrypted_content": "c2VjcmV0"},
    {"type": "container_upload", "file_id": "file_1"},
    tool_use("get_weather", {"place": "Bergen", "days": [1, 2], "why": "wind é😀"}),
    tool_use("now", {}),
    {"type": "a_new_type", "text": "whole"},
    stop_details={"type": "refusal", "category": None, "explanation": None},
    container={"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"},
    context_management={"applied_edits": []},
    usage={
        "output_tokens": 70,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
        "output_tokens_details": {"thinking_tokens": 9},
        "iterations": None,
    },
)


def events(recording: Recording) -> list[Any]:
    return [json.loads(event.data) for event in Decoder().feed(recording.body)]


def names(recording: Recording) -> list[str]:
    return [event.event for event in Decoder().feed(recording.body)]


def deltas(recording: Recording, field: str) -> list[str]:
    """The fragments: the values of the field of the deltas that have it."""
    found = [event["delta"] for event in events(recording) if event["type"] == "content_block_delta"]
    return [delta[field] for delta in found if field in delta]


def fold(data: bytes, *, strict: bool = True) -> Message:
    """The first message in the bytes."""
    builder = MessageBuilder(strict=strict)
    for event in Decoder().feed(data):
        builder.feed(event)
        if builder.is_done:
            break
    assert builder.message is not None
    return builder.message


# --- By hand ---


def test_a_text_is_streamed_as_the_api_streams_it() -> None:
    message = answer("Hi there", model="m", id="msg_1", usage={"input_tokens": 3, "output_tokens": 2})
    start = (
        '{"type":"message_start","message":{"model":"m","id":"msg_1","type":"message","role":"assistant","content":[],'
        '"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":3,"cache_creation_input_tokens":0,'
        '"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"}}}'
    )
    end = (
        '{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":3,'
        '"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2}}'
    )
    block = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    first = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}'
    second = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" there"}}'
    assert [read.data.decode() for read in recording_of(message).reads] == [
        f"event: message_start\ndata: {start}\n\n",
        f"event: content_block_start\ndata: {block}\n\n",
        'event: ping\ndata: {"type": "ping"}\n\n',
        f"event: content_block_delta\ndata: {first}\n\n",
        f"event: content_block_delta\ndata: {second}\n\n",
        'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
        f"event: message_delta\ndata: {end}\n\n",
        'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]


@pytest.mark.parametrize(
    ("parts", "tokens"),
    [
        (("A frog jumps into the old pond, with a splash of water.",), 14),  # 55 bytes
        (
            (thinking("Which one?"), "It is the second.", tool_use("get_weather", {"place": "Bergen"})),
            12,
        ),  # 10 + 17 + 19
        (("é",), 1),
        ((), 1),
    ],
)
def test_the_made_up_output_tokens_have_four_bytes_as_for_a_pace(parts: Any, tokens: int) -> None:
    assert answer(*parts).raw["usage"]["output_tokens"] == tokens


def test_a_tools_input_begins_with_an_empty_fragment_and_ends_inside_words() -> None:
    recording = recording_of(answer(tool_use("f", {"place": "Bergen", "days": 3})), fragments=9)
    assert deltas(recording, "partial_json") == ["", '{"place":', ' "Bergen"', ', "days":', " 3}"]


def test_a_tool_without_arguments_has_only_the_empty_fragment() -> None:
    assert deltas(recording_of(answer(tool_use("f", {}))), "partial_json") == [""]


def test_a_signature_comes_whole_and_after_the_thinking() -> None:
    recording = recording_of(answer(thinking("ab", signature="s")), fragments=1)
    assert [event["delta"] for event in events(recording) if "delta" in event][:-1] == [
        {"type": "thinking_delta", "thinking": "a"},
        {"type": "thinking_delta", "thinking": "b"},
        {"type": "signature_delta", "signature": "s"},
    ]


def test_thinking_that_was_cut_has_no_signature() -> None:
    assert deltas(recording_of(answer(thinking("ab", signature=""))), "signature") == []


def test_citations_come_one_by_one_before_their_text() -> None:
    first, second = citation("x"), citation("y")
    recording = recording_of(answer(text("ab", citations=[first, second])))
    assert [event["delta"] for event in events(recording) if "delta" in event][:-1] == [
        {"type": "citations_delta", "citation": first},
        {"type": "citations_delta", "citation": second},
        {"type": "text_delta", "text": "ab"},
    ]


def test_a_result_is_whole_where_its_block_begins() -> None:
    call, result = server_tool_use("web_search", {}, id="s1"), server_tool_result("web_search_tool_result", [])
    begun = [event["content_block"] for event in events(recording_of(answer(call, result))) if "content_block" in event]
    assert begun[1] == {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}


def test_counts_that_are_known_only_at_the_end_come_there() -> None:
    first, *_, last, _ = events(recording_of(EVERYTHING))
    assert first["message"]["usage"] == {
        "input_tokens": 25,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
        "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        "iterations": None,
    }
    assert last["usage"] == {
        "input_tokens": 25,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 70,
        "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
        "output_tokens_details": {"thinking_tokens": 9},
    }
    assert (first["message"]["container"], last["delta"]["container"]["id"]) == (None, "container_1")
    assert ("context_management" in first["message"], last["context_management"]) == (False, {"applied_edits": []})


def test_an_input_that_was_cut_is_never_closed() -> None:
    recording = recording_of(answer(text("a"), tool_use("f", '{"a": "b', cut=True), stop_reason="max_tokens"))
    assert names(recording)[-3:] == ["content_block_delta", "message_delta", "message_stop"]
    assert deltas(recording, "partial_json")[0] == ""
    assert "".join(deltas(recording, "partial_json")) == '{"a": "b'


def test_an_input_that_was_cut_before_others_is_closed_since_blocks_are_not_interleaved() -> None:
    recording = recording_of(answer(tool_use("f", '{"a": "b', cut=True), text("c")))
    assert not fold(recording.body).content[0].complete


def test_the_recording_says_what_is_beside_the_stream() -> None:
    recording = recording_of(answer("Hi"), headers={"x-a": "b"})
    assert (recording.request, recording.status, recording.end, recording.name) == (None, 200, "clean", "built")
    assert recording.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert recording.headers["x-a"] == "b"
    assert recording.headers["request-id"] == recording_of(answer("Hi")).headers["request-id"]


def test_the_events_come_at_once_unless_a_pace_is_set() -> None:
    recording = recording_of(answer("one, two, hi"), fragments=["one,", " two", ", hi"], pings=())
    assert {read.t for read in recording.reads} == {0.0}
    paced = pace_by("ttft=1,tps=2")(recording)
    assert [read.t for read in paced.reads] == [1.0, 1.0, 1.0, 1.75, 2.5, 2.5, 2.5, 2.5]  # 3 tokens


# --- What it adds up to ---


@pytest.mark.parametrize("fragments", ["words", "whole", 1, 7, str.splitlines])
def test_the_events_add_up_to_the_message_however_they_are_fragmented(fragments: Any) -> None:
    recording = recording_of(EVERYTHING, fragments=fragments)
    assert fold(recording.body) == EVERYTHING
    assert [finding.text for finding in check(recording) if finding.severity != "note"] == []


@pytest.mark.parametrize("name", sorted(shipped_fixtures().keys() - {"error-before-content"}))
def test_the_message_of_a_fixture_can_be_built_again(name: str) -> None:
    known = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    recording = recording_of(known["message"])
    assert fold(recording.body).raw == known["message"]
    is_whole = known["ending"] == "complete"
    assert [finding.rule for finding in check(recording)] == ([] if is_whole else ["stream-end", "http-end"])


@pytest.mark.parametrize("name", ["max-tokens", "cut", "error-after-content"])
def test_of_a_streamed_message_what_was_cut_is_cut_again(name: str) -> None:
    streamed = fold(shipped_fixtures()[name].body)
    again = fold(recording_of(streamed).body)
    assert again == streamed
    assert [(block.complete, block.input_text) for block in again.content] == [
        (block.complete, block.input_text) for block in streamed.content
    ]


# Their messages themselves are not whole: the first broke off; the second goes on from a call in the answer before it.
UNSOUND = {
    "ruby-llm--chat-streaming-responses-claude-3-5-haiku-20241022-supports-streaming-error-events-b9adf25.sse",
    "vercel-ai--anthropic-issue-10819-web-fetch-error.2-93fc6a7.sse",
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no recordings in {FOLDER}")
def test_the_messages_of_real_streams_can_be_built_again() -> None:
    broken, count, step = set(), 0, one_in(3)
    for number, path in enumerate(sorted(FOLDER.glob("*.sse"))):
        if number % step and path.name not in UNSOUND:
            continue
        data = path.read_bytes()
        if b"message_start" not in data:
            continue
        streamed = fold(data, strict=False)
        made = [recording_of(message) for message in (streamed, streamed.to_dict())]
        for recording in {recording.body: recording for recording in made}.values():  # most are the same stream
            assert fold(recording.body) == streamed, path.name
            checker = Checker(max_searched_bytes=0)  # `test_check.py` looks for secrets in the streams themselves
            findings = checker.feed(recording.body) + checker.close(recording.end)
            broken |= {path.name for finding in findings if finding.severity != "note"}
        count += 1
    assert count > 150 // step
    assert broken <= UNSOUND


def test_a_client_receives_the_message() -> None:
    message = answer("Hello.", tool_use("get_weather", {"place": "Bergen"}))

    async def story() -> Message:
        async with (
            ReplayServer([recording_of(message)]) as server,
            AsyncClient(api_key="k", base_url=server.base_url) as client,
        ):
            return await client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}])

    assert run(story()) == message


# --- Fragments ---


@pytest.mark.parametrize(
    ("fragments", "pieces"),
    [
        ("words", ["Hello", ", big", " wide", " world", "!"]),
        ("whole", ["Hello, big wide world!"]),
        (8, ["Hello, b", "ig wide ", "world!"]),
        (["Hello, ", "", "big wide world!"], ["Hello, ", "", "big wide world!"]),
        (lambda said: said.partition(" big "), ["Hello,", " big ", "wide world!"]),
    ],
)
def test_text_comes_in_the_fragments_asked_for(fragments: Fragments, pieces: list[str]) -> None:
    assert deltas(recording_of(answer("Hello, big wide world!"), fragments=fragments), "text") == pieces


def test_characters_are_code_points_and_never_halves_of_one() -> None:
    assert deltas(recording_of(answer("é😀e\u0301"), fragments=1), "text") == ["é", "😀", "e", "\u0301"]


def test_words_of_a_script_without_spaces_are_not_endless() -> None:
    pieces = deltas(recording_of(answer("漢" * 40 + "。" * 10)), "text")
    assert [len(piece) for piece in pieces] == [16, 16, 8, 8, 2]


def test_exact_fragments_of_an_input_are_exact_also_at_the_beginning() -> None:
    recording = recording_of(answer(tool_use("f", {"a": 1})), fragments=['{"a"', ": 1}"])
    assert deltas(recording, "partial_json") == ['{"a"', ": 1}"]


@pytest.mark.parametrize(
    ("fragments", "message"),
    [
        (["Hel", "p"], "the fragments of block 0 add up to 'Help', and not to 'Hello'"),
        (lambda said: [], "the fragments of block 0 add up to '', and not to 'Hello'"),
        (0, "a fragment has at least 1 character, not 0"),
        (
            "lines",
            "fragments must be words, whole, a length, texts, or a function, not 'lines'",
        ),
    ],
)
def test_fragments_that_cannot_be_are_refused(fragments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        recording_of(answer("Hello"), fragments=fragments)
    assert str(caught.value) == message


# --- Pings ---


def test_pings_come_where_they_are_asked_for() -> None:
    found = names(recording_of(answer("a"), pings=(0, 1, 1, 6)))
    assert [place for place, name in enumerate(found) if name == "ping"] == [0, 2, 3, 9]


def test_a_ping_after_the_end_of_the_events_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there are 6 events: no ping can come after 7"):
        recording_of(answer("a"), pings=(7,))


# --- Endings ---


def test_an_error_comes_instead_of_the_first_event() -> None:
    recording = recording_of(answer("a"), ending=error("overloaded_error"))
    assert Decoder().feed(recording.body) == [
        Event("error", '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    ]
    assert recording.end == "clean"


def test_an_error_comes_after_so_many_events() -> None:
    recording = recording_of(answer("a"), pings=(), ending=error("api_error", "Oops", after=3, details={"a": 1}))
    assert names(recording) == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert events(recording)[-1]["error"] == {"type": "api_error", "message": "Oops", "details": {"a": 1}}


@pytest.mark.parametrize(
    ("ending", "whole_events", "rest"),
    [
        (cut(0), 0, b""),
        (cut(0, 9), 0, b"event: me"),
        (cut(3), 3, b""),
        (cut(-1), 5, b""),
        (cut(-1, 50), 5, b'event: message_stop\ndata: {"type":"message_stop"}\n'),
        (cut(6), 6, b""),
    ],
)
def test_a_cut_comes_after_so_many_events_and_bytes(ending: Break, whole_events: int, rest: bytes) -> None:
    uncut = recording_of(answer("a"), pings=())
    recording = recording_of(answer("a"), pings=(), ending=ending)
    assert recording.body == b"".join(read.data for read in uncut.reads[:whole_events]) + rest
    assert recording.end == "cut"


def test_a_cut_counts_pings() -> None:
    assert names(recording_of(answer("a"), pings=(0,), ending=cut(2))) == ["ping", "message_start"]


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (cut(7), "there are 6 events: the stream cannot break after 7"),
        (cut(-7), "there are 6 events: the stream cannot break after -7"),
        (cut(5, 1000), "the next event has 51 bytes: it cannot be cut at 1000"),
        (cut(6, 1), "the next event has 0 bytes: it cannot be cut at 1"),
    ],
)
def test_a_break_that_cannot_be_is_refused(ending: Break, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        recording_of(answer("a"), pings=(), ending=ending)
    assert str(caught.value) == message


def test_a_message_without_a_stop_reason_breaks_off_after_its_content() -> None:
    message = {**answer("a").raw, "stop_reason": None}
    recording = recording_of(message)
    assert (names(recording)[-1], recording.end) == ("content_block_stop", "cut")
    assert fold(recording.body).raw == message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "error"}, "a message has a list of blocks as its content, not 'None'"),
        ({"content": ["a"]}, """a message has a list of blocks as its content, not "['a']\""""),
        ("Hi", """a message is made by answer(…), or is JSON as a mapping, not "'Hi'\""""),
        (
            [text("a")],
            "a message is made by answer(…), or is JSON as a mapping, not \"[{'type': 'text', 'text': 'a'}]\"",
        ),
        (None, "a message is made by answer(…), or is JSON as a mapping, not 'None'"),
    ],
)
def test_what_is_no_message_is_refused(message: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        recording_of(message)
    assert str(caught.value) == said


# --- Refusals ---


@pytest.mark.parametrize(
    ("status", "type", "said"),
    [
        (400, "invalid_request_error", "Invalid request error"),
        (422, "invalid_request_error", "Invalid request error"),
        (429, "rate_limit_error", "Rate limit error"),
        (500, "api_error", "Internal server error"),
        (529, "overloaded_error", "Overloaded"),
    ],
)
def test_an_http_error_has_the_type_of_its_status(status: int, type: str, said: str) -> None:
    recording = error_recording(status)
    body = json.loads(recording.body)
    assert (recording.status, recording.headers["content-type"]) == (status, "application/json")
    assert body.pop("request_id") == recording.headers["request-id"]
    assert body == {"type": "error", "error": {"type": type, "message": said}}
    assert {finding.severity for finding in check(recording)} == {"note"}


def test_an_http_error_says_what_it_is_told_to() -> None:
    recording = error_recording(404, "odd_error", "Nowhere.", headers={"retry-after": "3"}, details={"a": 1})
    assert json.loads(recording.body)["error"] == {"type": "odd_error", "message": "Nowhere.", "details": {"a": 1}}
    assert recording.headers["retry-after"] == "3"


@pytest.mark.parametrize("status", [200, 399, 600])
def test_an_answer_that_is_no_error_is_refused(status: int) -> None:
    with pytest.raises(ConfigurationError, match=f"the status of an error is between 400 and 599, not {status}"):
        error_recording(status)


def test_a_client_is_told_the_errors() -> None:
    async def story() -> None:
        recordings = [
            error_recording(429, message="Slow down."),
            recording_of(answer("a"), ending=error("overloaded_error")),
        ]
        async with (
            ReplayServer(recordings) as server,
            AsyncClient(api_key="k", base_url=server.base_url, max_retries=0) as client,
        ):
            with pytest.raises(RateLimitError, match="Slow down"):
                await client.messages.create(model="m", max_tokens=9, messages=[])
            with pytest.raises(OverloadedError):
                await client.messages.create(model="m", max_tokens=9, messages=[])

    run(story())
