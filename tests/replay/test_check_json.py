"""rawsse.replay.check and explain: answers that are not streams are said to be none, and are not looked into."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rawsse.replay import Read, RecordedRequest, Recording, check
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


def said(value: Any, status: int = 200, kind: str = "application/json; charset=utf-8", **fields: Any) -> Recording:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Recording(status=status, headers={"Content-Type": kind}, reads=(Read(0.5, body),), duration=0.5, **fields)


def found(recording: Recording) -> list[str]:
    return [f"{finding.severity} {finding.rule}: {finding.text}" for finding in check(recording)]


@pytest.mark.parametrize("kind", ["application/json", "Application/Problem+JSON; a=b", "application/json ;a=b"])
def test_json_is_noted_and_breaks_no_rule(kind: str) -> None:
    assert found(said(MESSAGE, kind=kind)) == [
        f"note http-type: the content type is {kind!r}: this is not a stream, and not checked"
    ]


@pytest.mark.parametrize("kind", ["text/html", "application/jsonl", ""])
def test_other_types_are_read_as_a_stream(kind: str) -> None:
    assert "error stream-end: the stream ends before message_start: message_stop is missing" in found(
        said(b"", kind=kind)
    )


def test_a_caller_that_asked_for_a_stream_and_got_json_is_told() -> None:
    request = RecordedRequest("POST", "/v1/messages", {}, {"stream": True})
    assert [line.partition(":")[0] for line in found(said(MESSAGE, request=request))] == ["error http-type"]


def test_a_refusal_in_the_api_s_form_is_only_noted() -> None:
    assert found(said(ERROR, 529)) == ["note http-status: the status is 529"]
    assert "answer: HTTP status 529, overloaded_error: Overloaded; connection: clean" in explain(said(ERROR, 529))


def test_a_refusal_in_another_form_is_warned_of() -> None:
    assert "warning http-status: the body is not an error of the API: '<html>'" in found(said(b"<html>", 502))


def test_a_key_in_an_answer_is_found() -> None:
    key = "sk-" + "ant-api03-" + "Qm7xT2vLp9Rk4WzN8sBd"
    recording = said({**MESSAGE, "content": [{"type": "text", "text": key}]})
    assert "error secret: Anthropic key in the response body" in found(recording)


def test_the_message_is_explained_all_the_same() -> None:
    timeline = Timeline.of(said(MESSAGE))
    assert timeline.events == ()
    assert timeline.message is not None
    assert timeline.message.id == "msg_1"
    text = explain(said(MESSAGE))
    assert "\nusage              input_tokens 3, output_tokens 2\n" in text
    assert "\nending             answer: no stream: application/json; charset=utf-8; connection: clean\n" in text
    assert "\nmessage            msg_1, claude-sonnet-5, stop reason end_turn\n" in text
    assert "Hi &lt;b&gt;" in explain_html(said(MESSAGE))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 5000,
        b'{"type": "error"}',
        b'{"type": 5, "data": 3}',
        b'{"type": "message", "content": 5, "usage": 5}',
        b'{"type": "message", "content": [5]}',
        b'{"error": {"type": 5, "message": []}}',
    ],
)
def test_nothing_makes_it_fail(body: bytes) -> None:
    for status in (200, 500):
        assert found(said(body, status)) != []
        assert explain(said(body, status)).startswith("answer ")
        assert "<html" in explain_html(said(body, status))
