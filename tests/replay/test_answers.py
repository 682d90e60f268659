"""rawsse.replay.answers: what is answered to which request, without any I/O."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rawsse.replay import Match, Read, RecordedRequest, Recording, shipped_fixtures
from rawsse.replay.answers import RecordedAPI

FIXTURES = shipped_fixtures()
EXPECTED = Path(__file__).parents[2] / "fixtures"
BODY: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}


def ask(*recordings: Recording, path: str = "/v1/messages", method: str = "POST", body: Any = BODY) -> Recording:
    return RecordedAPI(recordings or [FIXTURES["plain"]]).answer(RecordedRequest(method, path, {}, body))


def json_of(answer: Recording) -> Any:
    body = b"".join(read.data for read in answer.reads)
    assert answer.headers["content-length"] == str(len(body))
    assert answer.headers["content-type"] == "application/json"
    return json.loads(body)


def error_of(answer: Recording) -> tuple[int, str, str]:
    body = json_of(answer)
    assert (body["type"], answer.headers["x-should-retry"]) == ("error", "false")
    return answer.status, body["error"]["type"], body["error"]["message"]


# --- Streams ---


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_with_stream_the_recording_is_the_answer(name: str) -> None:
    answer = ask(FIXTURES[name], body={**BODY, "stream": True})
    assert (answer.status, answer.reads, answer.end) == (200, FIXTURES[name].reads, FIXTURES[name].end)
    assert answer.headers == FIXTURES[name].headers


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true", "/any/prefix/v1/messages", "/v1/messages/"])
def test_the_path_may_have_any_prefix_and_a_query(path: str) -> None:
    assert ask(path=path, body={**BODY, "stream": True}).reads == FIXTURES["plain"].reads


def test_several_recordings_take_turns() -> None:
    api = RecordedAPI([FIXTURES["plain"], FIXTURES["tools"]])
    request = RecordedRequest("POST", "/v1/messages", {}, {**BODY, "stream": True})
    names = [api.answer(request).reads for _ in range(3)]
    assert names == [FIXTURES["plain"].reads, FIXTURES["tools"].reads, FIXTURES["plain"].reads]


def test_a_wrong_request_takes_no_turn() -> None:
    api = RecordedAPI([FIXTURES["plain"], FIXTURES["tools"]])
    api.answer(RecordedRequest("POST", "/v1/messages", {}, {}))
    good = RecordedRequest("POST", "/v1/messages", {}, {**BODY, "stream": True})
    assert api.answer(good).reads == FIXTURES["plain"].reads


def test_a_recording_of_an_unknown_path_takes_turns_too() -> None:
    recording = Recording(RecordedRequest("POST", "/gateway/chat"), reads=(Read(0.0, b"data: x\n\n"),))
    assert ask(recording, body={**BODY, "stream": True}).reads == recording.reads


def test_what_has_not_been_played_is_known() -> None:
    api = RecordedAPI([FIXTURES["plain"], FIXTURES["tools"], FIXTURES["cut"]])
    for _ in range(2):
        api.answer(RecordedRequest("POST", "/v1/messages", {}, BODY))
    assert api.unplayed == [FIXTURES["cut"]]


def test_what_has_been_played_again_is_known() -> None:
    api = RecordedAPI([FIXTURES["plain"], FIXTURES["tools"]])
    repeats = []
    for _ in range(5):
        api.answer(RecordedRequest("POST", "/v1/messages", {}, BODY))
        repeats.append([recording.name for recording in api.repeats])
    both = ["plain", "tools"]
    assert repeats == [[], [], ["plain"], both, both]  # each once, however long the server runs


def test_a_recording_that_is_given_twice_may_be_played_twice() -> None:
    api = RecordedAPI([FIXTURES["plain"], FIXTURES["plain"]])
    counts = []
    for _ in range(3):
        api.answer(RecordedRequest("POST", "/v1/messages", {}, BODY))
        counts.append((len(api.unplayed), len(api.repeats)))
    assert counts == [(1, 0), (0, 0), (0, 1)]


def test_headers_of_the_recorded_connection_are_not_played() -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip", "Set-Cookie": "a=b", "Retry-After": "3"}
    answer = ask(Recording(headers=headers), body={**BODY, "stream": True})
    assert answer.headers == {"retry-after": "3"}


def test_what_a_client_left_is_played_as_cut() -> None:
    assert ask(Recording(end="client_closed"), body={**BODY, "stream": True}).end != "clean"


@pytest.mark.parametrize("stream", [True, False])
def test_a_recorded_http_error_is_answered_as_it_was_and_not_to_be_retried(stream: bool) -> None:
    recording = Recording(
        None, 529, {"content-type": "application/json", "retry-after": "1"}, (Read(0.5, b'{"type":"error"}'),)
    )
    answer = ask(recording, body={**BODY, "stream": stream})
    assert (answer.status, answer.reads) == (529, recording.reads)
    assert answer.headers == {"content-type": "application/json", "retry-after": "1", "x-should-retry": "false"}


# --- The same without stream ---


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_without_stream_the_answer_is_what_was_written_down_for_the_recording(name: str) -> None:
    expected = json.loads((EXPECTED / f"{name}.json").read_text("utf-8"))
    answer = ask(FIXTURES[name])
    if expected["ending"] == "complete":
        assert (answer.status, json_of(answer)) == (200, expected["message"])
    elif expected["ending"] == "error":
        assert error_of(answer)[1] == expected["error_type"]
    else:
        assert (answer.end, answer.reads) == ("cut", ())


@pytest.mark.parametrize(("name", "status"), [("error-before-content", 529), ("error-after-content", 500)])
def test_without_stream_an_error_event_is_an_http_error_of_its_type(name: str, status: int) -> None:
    assert error_of(ask(FIXTURES[name]))[0] == status


def test_the_whole_message_comes_when_the_recording_ended() -> None:
    assert ask(FIXTURES["plain"]).reads[0].t == FIXTURES["plain"].duration


def test_a_recorded_json_answer_stays_what_it_is() -> None:
    recording = Recording(headers={"content-type": "application/json"}, reads=(Read(0.0, b"{}"),))
    assert ask(recording).reads == ask(recording, body={**BODY, "stream": True}).reads == recording.reads


def test_a_message_that_was_recorded_without_stream_can_be_streamed() -> None:
    message = json.loads((EXPECTED / "tools.json").read_text("utf-8"))["message"]
    headers = {"content-type": "application/json", "content-length": "5", "request-id": "req_1"}
    recording = Recording(headers=headers, reads=(Read(1.0, json.dumps(message).encode()),), duration=2.0)
    answer = ask(recording, body={**BODY, "stream": True})
    assert answer.headers == {"content-type": "text/event-stream; charset=utf-8", "request-id": "req_1"}
    assert {read.t for read in answer.reads} == {2.0}
    assert Recording(reads=answer.reads).message() == message


def test_a_stream_of_something_else_cannot_be_folded() -> None:
    recording = Recording.from_sse(b"event: message_stop\ndata: {\n\n", name="x.sse")
    status, kind, message = error_of(ask(recording))
    assert (status, kind) == (500, "api_error")
    assert message.startswith(
        "x.sse is not a stream of the Messages API: the data of event 'message_stop' are not JSON"
    )


# --- Wrong requests ---


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "the request's body must be a JSON object"),
        ("{", "the request's body must be a JSON object"),
        ([], "the request's body must be a JSON object"),
        ({}, "model: Field required"),
        ({"model": "m"}, "messages: Field required"),
        ({"model": "m", "messages": []}, "max_tokens: Field required"),
        ({"model": 5, "messages": []}, "model: must be a string"),
        ({"model": "m", "messages": "Hi"}, "messages: must be an array"),
        ({"model": "m", "messages": [], "max_tokens": True}, "max_tokens: must be an integer"),
    ],
)
def test_what_a_request_lacks_is_said_as_the_api_says_it(body: Any, message: str) -> None:
    assert error_of(ask(body=body)) == (400, "invalid_request_error", message)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/complete", "/v1/messages/batches", "/v1/modelsx"])
def test_other_paths_are_not_found(path: str) -> None:
    status, kind, message = error_of(ask(path=path))
    assert (status, kind) == (404, "not_found_error")
    assert message == "there is nothing here: the paths are …/v1/messages, …/v1/messages/count_tokens and …/v1/models"


@pytest.mark.parametrize("path", ["/messages", "/plain/messages?beta=true", "/messages/count_tokens", "/models"])
def test_a_client_that_leaves_out_the_version_is_told_so(path: str) -> None:
    status, kind, message = error_of(ask(path=path))
    assert (status, kind) == (404, "not_found_error")
    assert message.endswith("…/v1/models. This client needs a base URL that ends in /v1")


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/v1/messages", "GET is not allowed here; POST is"),
        ("GET", "/v1/messages/count_tokens", "GET is not allowed here; POST is"),
        ("DELETE", "/v1/models/m", "DELETE is not allowed here; GET is"),
    ],
)
def test_other_methods_are_not_allowed(method: str, path: str, message: str) -> None:
    assert error_of(ask(path=path, method=method)) == (405, "invalid_request_error", message)


def test_threads_are_refused_so_that_the_sdk_goes_on_without() -> None:
    answer = ask(body={**BODY, "thread": {"type": "create"}})
    assert error_of(answer) == (400, "invalid_request_error", "message threads are not supported here")
    assert json_of(answer)["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": []}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_body_nested_too_deeply_is_refused(path: str) -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    api = RecordedAPI([of(asking("a"))], match="request")
    answer = api.answer(RecordedRequest("POST", path, {}, {**BODY, "messages": deep}))
    assert error_of(answer) == (400, "invalid_request_error", "the request's body is nested too deeply")


# --- Misses ---


def asking(text: str, **fields: Any) -> dict[str, Any]:
    return {**BODY, "messages": [{"role": "user", "content": text}], **fields}


def of(body: Any, path: str = "/v1/messages", answer: Any = None, method: str = "POST", name: str = "r") -> Recording:
    """A recording whose answer is this JSON."""
    reads = (Read(0.0, json.dumps(answer or {"answer": name}).encode()),)
    request = RecordedRequest(method, path, {}, body)
    return Recording(request, headers={"content-type": "application/json"}, reads=reads, name=name)


def matching(match: Match, *recordings: Recording, **options: Any) -> RecordedAPI:
    return RecordedAPI(recordings, match=match, **options)


def test_a_request_that_no_recording_answers_is_not_found_and_not_to_be_retried() -> None:
    api = matching("request", of(asking("What is it?"), name="it.sse.jsonl"))
    answer = api.answer(RecordedRequest("POST", "/v1/messages", {}, asking("What was it?")))
    words = (
        "no recording matches this request. Nearest of 1: it.sse.jsonl. It differs at "
        'messages[0].content[0].text: recorded "What is it?", asked "What was it?"'
    )
    assert error_of(answer) == (404, "not_found_error", words)
    assert json_of(answer)["error"]["details"] == {"error_code": "no_recording_matches"}


def test_misses_are_remembered_and_logged_and_play_nothing(caplog: pytest.LogCaptureFixture) -> None:
    api = matching("request", of(asking("a")), max_kept_misses=2)
    for text in "bcad":
        api.answer(RecordedRequest("POST", "/v1/messages", {}, asking(text)))
    assert [miss.request.body for miss in api.misses] == [asking(text) for text in "cd"]
    assert len(caplog.messages) == 3
    assert caplog.messages[1:] == [miss.message for miss in api.misses]
    assert api.unplayed == []


def test_an_unmatched_request_leaves_its_recording_unplayed() -> None:
    api = matching("request", of(asking("a")))
    api.answer(RecordedRequest("POST", "/v1/messages", {}, asking("b")))
    assert api.unplayed == [of(asking("a"))]


def test_a_base_url_can_name_the_recording() -> None:
    api = matching("name", FIXTURES["plain"], FIXTURES["tools"])
    request = RecordedRequest("POST", "/tools/v1/messages", {}, {**BODY, "stream": True})
    assert api.answer(request).reads == FIXTURES["tools"].reads


# --- The other paths ---


COUNT = "/v1/messages/count_tokens"


def test_a_recorded_count_is_played_for_its_question() -> None:
    body = {"model": "m", "messages": asking("a")["messages"]}
    api = matching("turns", of(body, COUNT, {"input_tokens": 77}), FIXTURES["plain"])
    answers = [api.answer(RecordedRequest("POST", COUNT, {}, {**body, "system": s})) for s in (None, "s")]
    assert b"".join(read.data for read in answers[0].reads) == b'{"input_tokens": 77}'
    assert json_of(answers[1])["input_tokens"] < 77


def test_else_a_question_counts_what_its_answer_was_charged() -> None:
    def count(api: RecordedAPI, body: Any) -> int:
        tokens: int = json_of(api.answer(RecordedRequest("POST", COUNT, {}, body)))["input_tokens"]
        return tokens

    reply = FIXTURES["tools"].message()
    request = FIXTURES["tools"].request
    assert reply is not None
    assert request is not None
    asked = {name: request.body[name] for name in ("model", "tools", "messages")}
    assert reply["usage"]["input_tokens"] == 412
    api = matching("turns", *FIXTURES.values())
    assert [count(api, asked), count(api, asked | {"max_tokens": 1})] == [412, 412]
    assert count(api, asked | {"system": "Be brief."}) != 412


def test_a_recorded_count_takes_no_turn_and_answers_no_message() -> None:
    api = matching("turns", of(BODY, COUNT))
    status, _, message = error_of(api.answer(RecordedRequest("POST", "/v1/messages", {}, BODY)))
    assert (status, message) == (404, "there is no recording of an answer to this kind of request")
    assert api.unplayed == []


def test_a_recorded_list_of_models_is_played_for_its_query() -> None:
    listing = of(None, "/v1/models?limit=5&after_id=x", {"data": []}, method="GET", name="models")
    api = matching("turns", listing, FIXTURES["plain"])
    path = "/prefix/v1/models?after_id=x&limit=5"
    assert api.answer(RecordedRequest("GET", path)).reads == listing.reads
    assert len(json_of(api.answer(RecordedRequest("GET", "/v1/models")))["data"]) == 1


def test_a_recorded_model_is_played() -> None:
    model = of(None, "/v1/models/claude-x", {"id": "claude-x"}, method="GET")
    api = matching("turns", model, FIXTURES["plain"])
    assert api.answer(RecordedRequest("GET", "/v1/models/claude-x")).reads == model.reads


def test_tokens_are_counted_by_the_length_of_what_is_sent() -> None:
    short = json_of(ask(path="/v1/messages/count_tokens", body={"model": "m", "messages": []}))
    long = json_of(ask(path="/v1/messages/count_tokens", body={"model": "m", "messages": [], "system": "x" * 400}))
    assert long["input_tokens"] - short["input_tokens"] == pytest.approx(100, abs=1)
    assert short["input_tokens"] >= 1


def test_counting_needs_no_max_tokens_but_messages() -> None:
    answer = ask(path="/v1/messages/count_tokens", body={"model": "m"})
    assert error_of(answer) == (400, "invalid_request_error", "messages: Field required")


def test_the_models_are_those_that_answered_each_once() -> None:
    recordings = [FIXTURES[name] for name in ("plain", "tools", "thinking", "error-before-content")]
    listed = json_of(ask(*recordings, path="/v1/models", method="GET"))
    assert [model["id"] for model in listed["data"]] == ["claude-sonnet-5", "claude-opus-4-8"]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("claude-sonnet-5", "claude-opus-4-8", False)
    assert set(listed["data"][0]) == {"type", "id", "display_name", "created_at"}


def test_without_a_model_in_any_recording_the_list_is_empty() -> None:
    listed = json_of(ask(Recording.from_sse(b"data: x\n\n"), path="/v1/models", method="GET"))
    assert listed == {"data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_message_that_was_recorded_without_stream_names_its_model_too() -> None:
    message = json.loads((EXPECTED / "tools.json").read_text("utf-8"))["message"]
    listed = json_of(ask(of(BODY, answer=message), path="/v1/models", method="GET"))
    assert [model["id"] for model in listed["data"]] == [message["model"]]


def test_one_model_can_be_asked_for() -> None:
    assert json_of(ask(path="/v1/models/claude-sonnet-5", method="GET"))["display_name"] == "claude-sonnet-5"


def test_a_model_that_never_answered_is_not_found() -> None:
    answer = ask(path="/v1/models/claude-x", method="GET")
    assert error_of(answer) == (404, "not_found_error", "no recording has the model 'claude-x'")


def test_a_browser_that_asks_first_is_told_that_it_may() -> None:
    request = RecordedRequest(
        "OPTIONS", "/v1/messages", {"access-control-request-headers": "x-api-key,anthropic-version"}
    )
    answer = RecordedAPI([FIXTURES["plain"]]).answer(request)
    assert (answer.status, answer.reads) == (204, ())
    assert answer.headers["access-control-allow-headers"] == "x-api-key,anthropic-version"
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
