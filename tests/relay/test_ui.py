"""rawsse.relay.ui: the chunks that events become, under the client's own rules (`ui_rules.py`), and what `useChat` may ask."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.streams import (
    ANSWER,
    PING,
    STOP,
    TOOL_CALL,
    Raw,
    block,
    block_start,
    block_stop,
    delta,
    end,
    input_delta,
    start,
    text_delta,
    to_sse,
    tool_block,
)

from rawsse.errors import APIError
from rawsse.messages import Ending, MessageBuilder, read_event
from rawsse.relay.dialects import Failure, Frame, InvalidRequest
from rawsse.relay.ui import UIDialect, read_ui
from rawsse.sse import Decoder, Event

from .recordings import bodies
from .ui_rules import Chunk, check

TEXT: Raw = {"type": "text", "text": ""}
THINKING: Raw = {"type": "thinking", "thinking": "", "signature": ""}


def data_of(frames: list[Frame]) -> list[str]:
    """The data that a browser reads from the frames."""
    return [event.data for event in Decoder().feed("".join(frames).encode())]


def stream(events: list[Event], *, failure: Failure | None = None) -> list[Chunk]:
    """All chunks of a run, checked. It ends as a run does: at `message_stop`, after the tail was lost, or with a failure."""
    dialect, builder = UIDialect("answer-1"), MessageBuilder(strict=False)
    data: list[str] = []
    try:
        for sse in events:
            event = builder.feed(sse)
            if builder.error is not None:
                failure = Failure(500, "api_error", "the API failed")
            if event is None or failure is not None or builder.is_done:
                break
            data += data_of(dialect.event(event))
    except APIError as exc:
        failure = Failure(502, "api_error", exc.message)
    if failure is None and not builder.is_complete:
        failure = Failure(502, "api_error", "the body ended")
    ending = Ending("complete", "whole", builder.phase, builder.stop_reason)
    frames = dialect.end(ending) if failure is None else dialect.fail(failure)
    return check(data + data_of(frames))


def chunks(*raws: Raw, reason: str | None = "end_turn") -> list[Chunk]:
    """The chunks between `start-step` and `finish-step` of an answer with these events in it."""
    return stream([to_sse(raw) for raw in [start(), *raws, end(reason), STOP]])[2:-2]


def of_kind(kind: str, *raws: Raw) -> list[Chunk]:
    return [chunk for chunk in chunks(*raws) if chunk["type"] == kind]


# --- A whole answer ------------------------------------------------------------------------------------------------


def message_id(*messages: Any) -> str | None:
    """The id that the answer to a request of `useChat` gets: of the API it is always `msg_1`."""
    dialect = UIDialect.read({"id": "c", "messages": list(messages)}, 100).dialect
    event = read_event(to_sse(start()))
    found: str | None = json.loads(data_of(dialect.event(event))[0]).get("messageId")
    return found


def test_each_answer_is_a_message_with_another_id() -> None:
    assert len({message_id(HI), message_id(HI), "msg_1", None}) == 4


# "When there are no original messages […], the assistant message id generation is handled by the client" (the SDK's
# `getResponseUIMessageId`); else an answer that goes on keeps the id of the last message.
def test_an_answer_that_goes_on_after_a_tool_stays_the_message_that_it_is() -> None:
    tool = {"type": "tool-weather", "toolCallId": "t", "state": "output-available", "input": {}, "output": "rain"}
    assert message_id(HI, {"id": "m", "role": "assistant", "parts": [tool]}) is None


def test_a_text_answer_is_a_message_with_one_step_and_one_text() -> None:
    assert stream([to_sse(raw) for raw in ANSWER]) == [
        {"type": "start", "messageId": "answer-1"},
        {"type": "start-step"},
        {"type": "text-start", "id": "0"},
        {"type": "text-delta", "id": "0", "delta": "Hel"},
        {"type": "text-delta", "id": "0", "delta": "lo ☺"},
        {"type": "text-end", "id": "0"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "stop",
            "messageMetadata": {"usage": {"input_tokens": 10, "output_tokens": 7}, "stopReason": "end_turn"},
        },
    ]


def said(*raws: Raw) -> list[Chunk]:
    """The chunks for events that no fold has seen before: they may hold anything."""
    dialect = UIDialect()
    events = [event for raw in raws if (event := read_event(to_sse(raw))) is not None]
    return [json.loads(data) for event in events for data in data_of(dialect.event(event))]


@pytest.mark.parametrize(
    ("raw", "kind", "field"),
    [
        (TEXT, "text_delta", "text"),
        (THINKING, "thinking_delta", "thinking"),
        (tool_block(), "input_json_delta", "partial_json"),
    ],
)
def test_a_fragment_that_is_no_string_is_left_out(raw: Raw, kind: str, field: str) -> None:
    begun = said(block_start(0, raw))
    assert said(block_start(0, raw), delta(0, kind, **{field: 5})) == begun
    assert len(said(block_start(0, raw), delta(0, kind, **{field: "5"}))) == len(begun) + 1


def test_a_message_that_begins_with_what_is_no_block_begins_without_it() -> None:
    begun: list[Chunk] = [{"type": "start"}, {"type": "start-step"}]
    assert said({"type": "message_start", "message": {"id": 5, "content": ["x"]}}) == begun
    assert said({"type": "message_start", "message": {"content": 5}}) == begun


@pytest.mark.parametrize("body", bodies())
def test_every_stream_becomes_chunks_that_the_client_accepts(body: bytes) -> None:
    events = Decoder().feed(body)
    texts = [chunk["delta"] for chunk in stream(events) if chunk["type"] == "text-delta"]
    builder = MessageBuilder(strict=False)
    for sse in events:
        if not builder.is_done and builder.error is None:
            builder.feed(sse)
    assert "".join(texts) == (builder.message.text if builder.message else "")


@pytest.mark.parametrize("count", range(len(TOOL_CALL)))
def test_an_answer_that_breaks_off_anywhere_ends_with_an_error(count: int) -> None:
    got = stream([to_sse(raw) for raw in TOOL_CALL[:count]], failure=None)
    wanted = "finish" if count == len(TOOL_CALL) - 1 else "error"  # only the tail was missing
    assert got[-1]["type"] == wanted


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool-calls"),
        ("refusal", "content-filter"),
        ("compaction", "other"),
        ("something_new", "other"),
    ],
)
def test_the_stop_reason_is_translated(stop_reason: str, finish_reason: str) -> None:
    got = stream([to_sse(raw) for raw in [start(), end(stop_reason), STOP]])
    assert got[-1]["finishReason"] == finish_reason


def test_the_last_usage_counts() -> None:
    got = stream(
        [to_sse(raw) for raw in [start(), end("end_turn", output_tokens=3), end("end_turn", output_tokens=9), STOP]]
    )
    assert got[-1]["messageMetadata"]["usage"]["output_tokens"] == 9


@pytest.mark.parametrize("usage", [None, [], 7])
def test_a_usage_that_is_none_is_no_failure(usage: object) -> None:
    got = stream([to_sse(raw) for raw in [start(usage=usage), {**end(), "usage": usage}, STOP]])
    assert got[-1]["messageMetadata"]["usage"] == {}


@pytest.mark.parametrize("raw", [PING, {"type": "news", "text": "x"}])
def test_pings_and_unknown_events_make_no_chunk(raw: Raw) -> None:
    assert chunks(raw) == []


def test_an_empty_delta_makes_no_chunk() -> None:
    assert of_kind("text-delta", *block(0, TEXT, text_delta(0, ""))) == []


def test_a_text_that_a_block_begins_with_is_a_delta() -> None:
    (only,) = of_kind("text-delta", *block(0, {"type": "text", "text": "He"}))
    assert only["delta"] == "He"


# --- Failures ------------------------------------------------------------------------------------------------------


def last(failure: Failure) -> list[str]:
    return data_of(UIDialect().fail(failure))


def test_a_failure_is_an_error_and_the_end_mark() -> None:
    assert last(Failure(502, "api_error", "it broke")) == ['{"type":"error","errorText":"it broke"}', "[DONE]"]


def test_a_run_that_was_stopped_is_aborted_and_no_error() -> None:
    assert last(Failure(200, "cancelled", "stopped")) == ['{"type":"abort","reason":"stopped"}', "[DONE]"]


# --- Thinking ------------------------------------------------------------------------------------------------------


def test_thinking_is_reasoning_and_its_signature_an_empty_delta() -> None:
    deltas = [delta(0, "thinking_delta", thinking="Hm"), delta(0, "signature_delta", signature="sig")]
    assert chunks(*block(0, THINKING, *deltas)) == [
        {"type": "reasoning-start", "id": "0"},
        {"type": "reasoning-delta", "id": "0", "delta": "Hm"},
        {"type": "reasoning-delta", "id": "0", "delta": "", "providerMetadata": {"anthropic": {"signature": "sig"}}},
        {"type": "reasoning-end", "id": "0"},
    ]


def test_thinking_that_comes_whole_is_reasoning_all_the_same() -> None:
    whole = {"type": "thinking", "thinking": "Hm", "signature": "sig"}
    got = of_kind("reasoning-delta", *block(0, whole))
    assert [chunk["delta"] for chunk in got] == ["Hm", ""]
    assert got[1]["providerMetadata"] == {"anthropic": {"signature": "sig"}}


def test_redacted_thinking_keeps_its_data_for_the_next_turn() -> None:
    assert chunks(*block(0, {"type": "redacted_thinking", "data": "opaque"})) == [
        {"type": "reasoning-start", "id": "0", "providerMetadata": {"anthropic": {"redactedData": "opaque"}}},
        {"type": "reasoning-end", "id": "0"},
    ]


# --- Tool calls ----------------------------------------------------------------------------------------------------


def test_a_tool_call_is_told_piece_by_piece_and_then_whole() -> None:
    call = {"toolCallId": "toolu_1", "toolName": "weather"}
    deltas = [input_delta(0, ""), input_delta(0, '{"city": '), input_delta(0, '"Oslo"}')]
    assert chunks(*block(0, tool_block(), *deltas)) == [
        {"type": "tool-input-start", **call},
        {"type": "tool-input-delta", "toolCallId": "toolu_1", "inputTextDelta": '{"city": '},
        {"type": "tool-input-delta", "toolCallId": "toolu_1", "inputTextDelta": '"Oslo"}'},
        {"type": "tool-input-available", **call, "input": {"city": "Oslo"}},
    ]


def test_a_tool_without_arguments_has_an_empty_input() -> None:
    (only,) = of_kind("tool-input-available", *block(0, tool_block(), input_delta(0, "")))
    assert only["input"] == {}


def test_an_input_that_came_whole_is_kept() -> None:
    (only,) = of_kind("tool-input-available", *block(0, tool_block(input={"city": "Oslo"})))
    assert only["input"] == {"city": "Oslo"}


@pytest.mark.parametrize("text", ['{"city": "Os', "{,}", '{"x": NaN}', "[" * 100_000])
def test_an_input_that_is_no_json_is_an_error_and_may_not_be_run(text: str) -> None:
    got = chunks(*block(0, tool_block(), input_delta(0, text)))
    assert got[-1]["type"] == "tool-input-error"
    assert (got[-1]["input"], got[-1]["errorText"]) == (text, "the input was cut, or is not JSON")


def test_a_tool_call_that_the_length_cuts_ends_before_the_message() -> None:
    got = chunks(block_start(0, tool_block()), input_delta(0, '{"ci'), reason="max_tokens")
    assert [chunk["type"] for chunk in got] == ["tool-input-start", "tool-input-delta", "tool-input-error"]


SEARCH: Raw = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND: Raw = {"type": "web_search_result", "url": "https://a.example/", "title": "A", "encrypted_content": "x"}


def search_result(content: object, **fields: Any) -> list[Raw]:
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": content, **fields}
    return [*block(0, SEARCH, input_delta(0, '{"query": "a"}')), *block(1, result)]


def test_a_tool_of_the_provider_brings_its_output_and_its_sources() -> None:
    got = chunks(*search_result([FOUND]))
    assert got[-2:] == [
        {"type": "tool-output-available", "output": [FOUND], "toolCallId": "srvtoolu_1", "providerExecuted": True},
        {"type": "source-url", "sourceId": "source-1", "url": "https://a.example/", "title": "A"},
    ]


def test_a_page_that_was_fetched_is_a_source() -> None:
    (only,) = of_kind(
        "source-url", *search_result({"type": "web_fetch_result", "url": "http://a.example/", "content": {}})
    )
    assert only == {"type": "source-url", "sourceId": "source-1", "url": "http://a.example/"}


@pytest.mark.parametrize(
    "content", ["plain text", None, [7, "x", None], {"type": "code_execution_result", "stdout": "1"}]
)
def test_an_output_without_sources_is_just_an_output(content: object) -> None:
    got = chunks(*search_result(content))
    assert (got[-1]["type"], got[-1]["output"]) == ("tool-output-available", content)


def test_a_tool_of_the_provider_that_fails_says_its_code() -> None:
    (only,) = of_kind(
        "tool-output-error",
        *search_result({"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}),
    )
    assert only["errorText"] == "max_uses_exceeded"


MCP: Raw = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "echo", "server_name": "s", "input": {}}


@pytest.mark.parametrize("fails", [False, True])
def test_a_tool_of_another_server_is_dynamic_in_all_its_chunks(*, fails: bool) -> None:
    result = {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": fails, "content": [{"type": "text"}]}
    first, available, output = chunks(*block(0, MCP), *block(1, result))
    assert all(chunk["dynamic"] and chunk["providerExecuted"] for chunk in (first, available, output))
    assert output["type"] == ("tool-output-error" if fails else "tool-output-available")
    assert output.get("errorText", '[{"type":"text"}]') == '[{"type":"text"}]'


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "web_search_tool_result", "tool_use_id": "never-called", "content": []},
        {"type": "web_search_tool_result", "tool_use_id": ["odd"], "content": []},
        {"type": "web_search_tool_result", "content": []},
        {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
        {"type": "compaction", "content": None},
        {"type": "container_upload", "file_id": "f"},
        {"type": "of_tomorrow", "new": [1]},
    ],
    ids=lambda raw: str(raw["type"]),
)
def test_a_block_without_a_place_in_the_protocol_is_data(raw: Raw) -> None:
    assert chunks(*block(0, raw)) == [{"type": f"data-anthropic-{raw['type']}", "data": raw}]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN"])
def test_a_number_that_json_does_not_have_is_null_in_a_chunk(number: str) -> None:
    event = read_event(
        Event("x", f'{{"type":"content_block_start","index":0,"content_block":{{"type":"x","n":{number}}}}}')
    )
    assert event is not None
    (data,) = [text for text in data_of(UIDialect().event(event)) if '"n"' in text]
    assert '"n":null' in data  # RFC 8259, 6


def test_blocks_that_the_message_begins_with_come_whole() -> None:
    content = [{"type": "text", "text": "Hi"}, tool_block(input={"a": 1})]
    got = stream([to_sse(raw) for raw in [start(content=content), *block(2, TEXT), end(), STOP]])[2:-2]
    kinds = [
        "text-start",
        "text-delta",
        "text-end",
        "tool-input-start",
        "tool-input-available",
        "text-start",
        "text-end",
    ]
    assert [chunk["type"] for chunk in got] == kinds


# --- Sources -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("citation", "chunk"),
    [
        (
            {"type": "web_search_result_location", "url": "https://a.example/", "title": "A", "cited_text": "x"},
            {"type": "source-url", "url": "https://a.example/", "title": "A"},
        ),
        (
            {"type": "web_search_result_location", "url": "https://a.example/", "title": None},
            {"type": "source-url", "url": "https://a.example/"},
        ),
        (
            {"type": "search_result_location", "source": "https://b.example/", "title": "B"},
            {"type": "source-url", "url": "https://b.example/", "title": "B"},
        ),
        (
            {"type": "search_result_location", "source": "shelf 7", "title": "B"},
            {"type": "source-document", "mediaType": "text/plain", "title": "B"},
        ),
        (
            {"type": "page_location", "document_index": 0, "document_title": "C"},
            {"type": "source-document", "mediaType": "application/pdf", "title": "C"},
        ),
        (
            {"type": "char_location", "document_index": 2, "document_title": None},
            {"type": "source-document", "mediaType": "text/plain", "title": "document 2"},
        ),
    ],
)
def test_a_citation_is_a_source(citation: Raw, chunk: Chunk) -> None:
    got = chunks(*block(0, TEXT, delta(0, "citations_delta", citation=citation)))
    assert got[1] == {**chunk, "sourceId": "source-1"}


def test_sources_are_counted() -> None:
    citation = {"type": "char_location", "document_index": 0, "document_title": "C"}
    cited = delta(0, "citations_delta", citation=citation)
    got = of_kind("source-document", *block(0, TEXT, cited, cited))
    assert [chunk["sourceId"] for chunk in got] == ["source-1", "source-2"]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//a.example", 7])
def test_an_address_that_is_none_of_the_web_is_no_source(url: object) -> None:
    citation = {"type": "web_search_result_location", "url": url}
    assert of_kind("source-url", *block(0, TEXT, delta(0, "citations_delta", citation=citation))) == []


# --- What gateways get wrong -----------------------------------------------------------------------------------------


def test_a_wrong_index_means_the_block_that_began_last() -> None:
    got = chunks(block_start(0, TEXT), text_delta(1, "a"), block_stop(1), *block(1, tool_block(), input_delta(2, "{}")))
    kinds = ["text-start", "text-delta", "text-end", "tool-input-start", "tool-input-delta", "tool-input-available"]
    assert [chunk["type"] for chunk in got] == kinds


def test_a_second_block_of_the_same_index_says_that_the_first_has_ended() -> None:
    got = chunks(block_start(0, TEXT), text_delta(0, "a"), *block(0, TEXT, text_delta(0, "b")))
    assert [chunk["type"] for chunk in got] == ["text-start", "text-delta", "text-end"] * 2


def test_the_result_of_a_call_says_that_the_call_has_ended() -> None:
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    got = chunks(block_start(0, SEARCH), *block(1, result))
    assert [chunk["type"] for chunk in got] == ["tool-input-start", "tool-input-available", "tool-output-available"]


@pytest.mark.parametrize(
    "raws",
    [
        [*block(0, TEXT, text_delta(0, "a")), block_stop(0)],
        [block_start(0, TEXT), text_delta(0, "a"), block_start(1, tool_block())],
        [text_delta(0, "a")],
        [text_delta(7, "a"), block_stop(7)],
        [block_start(0, TEXT), input_delta(0, "{")],
        [block_start(0, tool_block()), text_delta(0, "a")],
        [block_start(0, THINKING), text_delta(0, "a"), delta(0, "new_delta", x=1)],
        [start(), block_start(0, TEXT)],
        [block_start(0, TEXT), block_start(0, TEXT), text_delta(0, "a")],
        [block_stop(3)],
    ],
)
def test_events_out_of_order_never_make_a_chunk_that_is_fatal(raws: list[Raw]) -> None:
    assert stream([to_sse(raw) for raw in [start(), *raws, end(), STOP]])


# --- Requests ------------------------------------------------------------------------------------------------------


def part(text: str) -> Raw:
    return {"type": "text", "text": text}


def user(*parts: Raw) -> Raw:
    return {"id": "m1", "role": "user", "parts": list(parts)}


def assistant(*parts: Raw) -> Raw:
    return {"id": "m2", "role": "assistant", "parts": list(parts)}


HI = user(part("Hi"))


def turns(*messages: object, **fields: Any) -> Any:
    return request(*messages, **fields)["messages"]


def request(*messages: object, **fields: Any) -> Any:
    body = {"id": "chat", "messages": list(messages), "trigger": "submit-message", **fields}
    chat, got = read_ui(json.loads(json.dumps(body)), max_prompt_chars=10)
    assert chat == "chat"
    return got


@pytest.mark.parametrize(
    ("body", "is_ui"),
    [
        ({"messages": [HI]}, True),
        ({"id": "c", "message": HI}, True),
        ({"messages": [], "trigger": "regenerate-message"}, True),
        ({"messages": [{"role": "user", "content": "Hi"}]}, False),
        ({"message": "Hi"}, False),
        ({"messages": "Hi"}, False),
        ({}, False),
    ],
)
def test_a_request_of_use_chat_is_told_by_its_parts(body: Raw, *, is_ui: bool) -> None:
    assert UIDialect.can_read(body) is is_ui


def test_a_text_of_the_user_is_a_turn() -> None:
    assert request(HI) == {"messages": [{"role": "user", "content": [part("Hi")]}]}


def test_the_last_message_alone_is_a_conversation() -> None:
    assert read_ui({"id": "c", "message": HI}, max_prompt_chars=10)[1] == request(HI)


def test_system_messages_become_the_system_prompt() -> None:
    system = {"role": "system", "parts": [part("Be kind"), part(" "), {"type": "file"}]}
    assert request(system, HI, {"role": "system", "parts": [part("Be brief")]})["system"] == "Be kind\n\nBe brief"


def test_a_system_prompt_in_the_body_comes_first() -> None:
    assert request(HI, system="Be brave")["system"] == "Be brave"
    assert (
        request({"role": "system", "parts": [part("Be kind")]}, HI, system="Be brave")["system"]
        == "Be brave\n\nBe kind"
    )


def test_model_length_and_tools_may_be_chosen() -> None:
    got = request(HI, model="m", max_tokens=5, tools=[{"name": "t"}])
    assert (got["model"], got["max_tokens"], got["tools"]) == ("m", 5, [{"name": "t"}])


def test_turns_of_one_side_in_a_row_are_one() -> None:
    (only,) = turns(HI, user(part("there")))
    assert only["content"] == [part("Hi"), part("there")]


FILES = [
    (
        "image/png",
        "https://a.example/a.png",
        {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}},
    ),
    (
        "image/png",
        "data:image/png;base64,AAAA",
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    ),
    (
        "application/pdf",
        "data:application/pdf;base64,JVBE",
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
    ),
    (
        "application/pdf",
        "http://a.example/",
        {"type": "document", "source": {"type": "url", "url": "http://a.example/"}},
    ),
]


@pytest.mark.parametrize(("media", "url", "wanted"), FILES)
def test_images_and_pdf_files_are_sent_along(media: str, url: str, wanted: Raw) -> None:
    (only,) = turns(user({"type": "file", "mediaType": media, "url": url}))
    assert only["content"] == [wanted]


def test_the_assistants_texts_go_back_and_what_the_api_cannot_take_does_not() -> None:
    odd = [{"type": kind} for kind in ("step-start", "source-url", "custom", "data-x", "reasoning-file")]
    got = turns(HI, assistant(part("Hello"), *odd, part("\n\n"), {"type": "text"}), user(part("Go on")))
    assert got[1] == {"role": "assistant", "content": [part("Hello")]}


def reasoning(text: str = "Hm", **metadata: object) -> Raw:
    return {"type": "reasoning", "text": text, "providerMetadata": {"anthropic": metadata}}


def test_signed_and_redacted_thinking_goes_back() -> None:
    got = turns(HI, assistant(reasoning(signature="sig"), reasoning("", redactedData="opaque")), HI)
    assert got[1]["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "opaque"},
    ]


@pytest.mark.parametrize(
    "unsigned",
    [reasoning(), {"type": "reasoning", "text": "Hm"}, {"type": "reasoning", "providerMetadata": {"anthropic": 7}}],
)
def test_unsigned_thinking_stays_behind(unsigned: Raw) -> None:
    assert turns(HI, assistant(unsigned, part("Hello")), HI)[1]["content"] == [part("Hello")]


def called(id: str, *, output: object = "sunny", **fields: Any) -> Raw:
    call = {"type": "tool-weather", "toolCallId": id, "state": "output-available", "input": {"city": "Oslo"}}
    return {**call, "output": output, **fields}


def call_of(id: str, name: str = "weather", given: object = None) -> Raw:
    return {"type": "tool_use", "id": id, "name": name, "input": {"city": "Oslo"} if given is None else given}


def result_of(id: str, content: str = "sunny", **fields: Any) -> Raw:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **fields}


def test_a_tools_output_is_a_turn_of_the_user() -> None:
    assert turns(HI, assistant(called("a")))[1:] == [
        {"role": "assistant", "content": [call_of("a")]},
        {"role": "user", "content": [result_of("a")]},
    ]


def test_the_calls_of_one_answer_stay_together() -> None:
    assert turns(HI, assistant(reasoning(signature="s"), called("a"), called("b")))[1:] == [
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}, call_of("a"), call_of("b")],
        },
        {"role": "user", "content": [result_of("a"), result_of("b")]},
    ]


@pytest.mark.parametrize("between", [{"type": "step-start"}, part("And")])
def test_the_next_step_is_an_answer_of_its_own(between: Raw) -> None:
    got = turns(HI, assistant(called("a"), between, called("b")))
    assert [turn["role"] for turn in got] == ["user", "assistant", "user", "assistant", "user"]
    assert got[-1]["content"] == [result_of("b")]


def test_what_the_user_says_next_follows_the_outputs() -> None:
    got = turns(HI, assistant(called("a")), user(part("So?")))
    assert got[-1] == {"role": "user", "content": [result_of("a"), part("So?")]}


def test_an_output_that_is_no_text_goes_back_as_json() -> None:
    got = turns(HI, assistant(called("a", output={"t": 7}), called("b", output=None)))
    assert [result["content"] for result in got[-1]["content"]] == ['{"t":7}', "null"]


def test_a_tool_that_failed_says_so() -> None:
    failed = called("a", state="output-error", errorText="no such city", input=None)
    got = turns(HI, assistant(failed))
    assert got[1]["content"] == [call_of("a", given={})]
    assert got[2]["content"] == [result_of("a", "no such city", is_error=True)]


def test_a_dynamic_tool_goes_by_the_name_that_it_brings() -> None:
    got = turns(HI, assistant(called("a", type="dynamic-tool", toolName="echo")))
    assert got[1]["content"] == [call_of("a", "echo")]


@pytest.mark.parametrize(
    "unfinished",
    [
        called("a", state="input-available"),
        called("a", state="input-streaming"),
        called("a", state="output-denied"),
        called("a", providerExecuted=True),
        called(""),
    ],
)
def test_a_call_without_an_output_of_ours_stays_behind(unfinished: Raw) -> None:
    assert turns(HI, assistant(part("Hm"), unfinished), HI)[1]["content"] == [part("Hm")]


WRONG: list[tuple[Raw, str]] = [
    ({"id": None}, "id: must be the chat's id, a string of 1 to 256 characters"),
    ({"id": ""}, "id: must be the chat's id, a string of 1 to 256 characters"),
    ({"id": "x" * 257}, "id: must be the chat's id, a string of 1 to 256 characters"),
    ({"messages": None}, "messages: must be a non-empty list of messages"),
    ({"messages": []}, "messages: must be a non-empty list of messages"),
    ({"messages": "Hi"}, "messages: must be a non-empty list of messages"),
    ({"messages": [HI, "Hi"]}, "messages.1: must be an object with role and parts"),
    ({"messages": [{"role": "user", "content": "Hi"}]}, "messages.0: must be an object with role and parts"),
    ({"messages": [{"role": "tool", "parts": []}]}, "messages.0.role: must be one of user, assistant, system"),
    ({"messages": [{"parts": []}]}, "messages.0.role: must be one of user, assistant, system"),
    ({"messages": [{"role": "user", "parts": ["Hi"]}]}, "messages.0.parts.0: must be an object with a type"),
    ({"messages": [user(part("x" * 11))]}, "messages.0.parts.0.text: is longer than 10 characters"),
    ({"messages": [user({"type": "text", "text": 7})]}, "messages.0.parts.0.text: must be a string"),
    ({"messages": [assistant(part("x" * 11))]}, "messages.0.parts.0.text: is longer than 10 characters"),
    ({"messages": [user()]}, "messages: must end with a text, a file or a tool's output for the model to answer"),
    (
        {"messages": [user(part(" "))]},
        "messages: must end with a text, a file or a tool's output for the model to answer",
    ),
    (
        {"messages": [HI, assistant(part("Hello"))]},
        "messages: must end with a text, a file or a tool's output for the model to answer",
    ),
    (
        {"messages": [user({"type": "file", "mediaType": "text/plain", "url": "data:text/plain;base64,"})]},
        "messages.0.parts.0.mediaType: must be image/… or application/pdf",
    ),
    (
        {"messages": [user({"type": "file", "mediaType": "image/png", "url": "file:///etc/passwd"})]},
        "messages.0.parts.0.url: must be an http(s) or a base64 data URL",
    ),
    (
        {"messages": [user({"type": "file", "mediaType": "image/png"})]},
        "messages.0.parts.0.url: must be an http(s) or a base64 data URL",
    ),
    ({"max_tokens": "9"}, "max_tokens: must be a whole number, at least 1"),
    ({"model": 7}, "model: must be a string"),
    ({"tools": {}}, "tools: must be a list"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=lambda value: str(value)[:70])
def test_a_wrong_request_is_refused_by_the_name_of_its_field(change: Raw, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_ui({"id": "c", "messages": [HI], **change}, max_prompt_chars=10)
    assert str(caught.value) == words
    assert caught.value.status == (413 if "longer" in words else 400)


def test_a_request_without_any_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^messages: must be a non-empty list of messages$"):
        read_ui({"id": "c"}, max_prompt_chars=10)
