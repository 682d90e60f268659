"""rawsse.replay.check: answers that are no streams: what they are, what they must have, and how they are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rawsse.replay import Read, RecordedRequest, Recording, check
from rawsse.replay.check import JSONAnswer, is_json
from rawsse.replay.explain import Timeline, explain
from rawsse.replay.explain_page import explain_html

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5",
    "content": [{"type": "text", "text": "Hi <b>"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def said(value: Any, status: int = 200, **fields: Any) -> Recording:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return Recording(status=status, headers=headers, reads=(Read(0.5, body),), duration=0.5, **fields)


def found(recording: Recording) -> list[str]:
    return [f"{finding.severity} {finding.rule}: {finding.text}" for finding in check(recording)]


@pytest.mark.parametrize(
    ("value", "kind", "verdict"),
    [
        (MESSAGE, "message", "complete, a message that was not streamed"),
        ({"input_tokens": 12}, "token count", "a token count: 12"),
        ({"data": [{"type": "model", "id": "m"}], "has_more": False}, "list", "a list of 1"),
        ({"type": "model", "id": "m"}, "model", "a JSON object, model"),
    ],
)
def test_a_correct_answer_breaks_no_rule(value: Any, kind: str, verdict: str) -> None:
    recording = said(value)
    assert found(recording) == []
    answer = JSONAnswer.of(recording)
    assert answer is not None
    assert (answer.kind, answer.verdict) == (kind, verdict)
    assert f"\nending             clean: {verdict}\n" in explain(recording)


def test_a_refusal_in_the_api_s_form_is_only_noted() -> None:
    assert found(said(ERROR, 529)) == ["note http-status: the status is 529"]
    assert "clean: HTTP status 529, overloaded_error: Overloaded" in explain(said(ERROR, 529))


@pytest.mark.parametrize(
    ("value", "status", "finding"),
    [
        (b'{"type": "mess', 200, "error json-object: the body is no JSON object"),
        (b"[]", 200, "error json-object: the body is no JSON object"),
        (ERROR, 200, "error http-status: an error, and the status is 200: it is read as an answer"),
        ({"type": "error", "error": {}}, 400, "warning json-fields: an error without type or message"),
        ({"input_tokens": "12"}, 200, "error json-fields: input_tokens is no whole number"),
        ({"ok": True}, 200, "note json-fields: this is no answer that the API is known to give"),
        ({**MESSAGE, "id": 1}, 200, "error message-fields: the message has no 'id'"),
        ({**MESSAGE, "usage": {}}, 200, "error message-usage: the message has no usage with output_tokens"),
        (
            {**MESSAGE, "stop_reason": None},
            200,
            "warning message-fields: the message has no stop reason: it is not whole",
        ),
        ({**MESSAGE, "stop_reason": "bored"}, 200, "note event-unknown: the stop reason 'bored'"),
        ({**MESSAGE, "content": ["Hi"]}, 200, "error message-fields: block 0 is no object"),
        ({**MESSAGE, "content": [{"type": "smell"}]}, 200, "note event-unknown: a block of type 'smell'"),
        (
            {**MESSAGE, "content": [{"type": "tool_use", "id": "t", "name": "n", "input": "{}"}]},
            200,
            "error block-input: the input of block 0 is no JSON object: \"'{}'\"",
        ),
        (
            {**MESSAGE, "content": [{"type": "thinking", "thinking": "Hm", "signature": ""}]},
            200,
            "warning block-signature: the thinking of block 0 has no signature",
        ),
        (
            {**MESSAGE, "content": [{"type": "web_search_tool_result", "tool_use_id": "t", "content": []}]},
            200,
            "warning block-result: a result for 't', which was not called",
        ),
    ],
)
def test_each_fault_is_named(value: Any, status: int, finding: str) -> None:
    assert finding in found(said(value, status))
    assert len(found(said(value, status))) <= 2


def test_who_asked_for_a_stream_and_got_json_is_told() -> None:
    request = RecordedRequest("POST", "/v1/messages", {}, {"stream": True})
    assert found(said(MESSAGE, request=request)) == [
        "error http-type: a stream was asked for, and the content type is 'application/json; charset=utf-8'"
    ]


@pytest.mark.parametrize(
    ("content_type", "is_it"),
    [("application/json", True), ("Application/Problem+JSON; a=b", True), ("text/event-stream", False), ("", False)],
)
def test_json_is_what_says_so(content_type: str, is_it: bool) -> None:
    assert is_json(content_type) is is_it


def test_a_key_in_an_answer_is_found() -> None:
    key = "sk-" + "ant-api03-" + "Qm7xT2vLp9Rk4WzN8sBd"
    recording = said({**MESSAGE, "content": [{"type": "text", "text": key}]})
    assert found(recording) == ["error secret: Anthropic key in the response body"]


def test_the_json_is_laid_out_and_nothing_of_a_stream_is_missed() -> None:
    text = explain(said(MESSAGE))
    assert '\nbody               message\n  {\n    "id": "msg_1",\n' in text
    assert "\nusage              3 input_tokens, 2 output_tokens\n" in text
    for of_streams in ("first event", "first content", "pings", "tokens per second", "message_start"):
        assert of_streams not in text


def test_the_page_lays_the_json_out_too() -> None:
    page = explain_html(said(MESSAGE))
    assert '<h2 id="message">Answer</h2>' in page
    assert "Hi &lt;b&gt;" in page
    assert 'class="verdict good">complete, a message that was not streamed<' in page
    assert 'class="verdict bad"' in explain_html(said(ERROR, 529))


def test_the_timeline_has_the_message_and_no_events() -> None:
    timeline = Timeline.of(said(MESSAGE))
    assert timeline.events == ()
    assert timeline.message is not None
    assert timeline.message.id == "msg_1"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b'{"type": "error"}', b'{"type": 5, "data": 3}'])
def test_nothing_makes_it_fail(body: bytes) -> None:
    for status in (200, 500):
        assert found(said(body, status)) != [] or body.endswith(b"3}")
        assert explain(said(body, status)).startswith("answer ")
        assert "<html" in explain_html(said(body, status))
