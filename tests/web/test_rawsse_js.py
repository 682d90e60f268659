"""The page's JavaScript that needs no page, run under Node: the event stream parser, runs and their resumption, words."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .node_harness import Node

NODE = shutil.which("node")
pytestmark = [pytest.mark.real, pytest.mark.skipif(NODE is None, reason="no node on the PATH to run JavaScript with")]

HI = 'id: e-1\nevent: content_block_delta\ndata: {"text": "Hi"}\n\n'
YOU = 'id: e-2\nevent: content_block_delta\ndata: {"text": " you"}\n\n'
DONE = "id: e-3\ndata: [DONE]\n\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    assert NODE is not None
    with Node(NODE, tmp_path_factory.mktemp("modules")) as running:
        yield running


def play(*chunks: str, **rest: Any) -> dict[str, Any]:
    """One response that the played server gives: its body in chunks, and how it ends."""
    return {"chunks": list(chunks), **rest}


# --- The parser, after the WHATWG standard ---------------------------------------------------------------------------


def test_an_event_has_its_type_data_and_id(node: Node) -> None:
    parsed = node.parse(b"event: add\nid: 7\ndata: 73857293\n\n")
    assert parsed["events"] == [{"event": "add", "data": "73857293", "id": "7"}]


def test_the_standards_example_of_three_data_lines_is_one_event(node: Node) -> None:
    assert node.parse(b"data: YHOO\ndata: +2\ndata: 10\n\n")["events"][0]["data"] == "YHOO\n+2\n10"


def test_a_crlf_that_is_cut_in_two_ends_one_line(node: Node) -> None:
    assert [event["data"] for event in node.parse(b"data: a\r", b"\ndata: b\r\n", b"\r", b"\n")["events"]] == ["a\nb"]


def test_a_character_that_is_cut_in_two_stays_whole(node: Node) -> None:
    whole = "data: 🦦\n\n".encode()
    assert node.parse(whole[:8], whole[8:])["events"][0]["data"] == "🦦"


def test_a_line_separator_is_content_and_ends_no_line(node: Node) -> None:
    assert node.parse("data: a\u2028b\u0085c\n\n".encode())["events"][0]["data"] == "a\u2028b\u0085c"


def test_one_byte_order_mark_is_dropped_even_in_pieces(node: Node) -> None:
    assert node.parse(b"\xef", b"\xbb", b"\xbfdata: a\n\n")["events"][0]["data"] == "a"


def test_without_data_there_is_no_event_but_the_id_moves(node: Node) -> None:
    parsed = node.parse(b"event: ping\nid: 9\n\n: comment\n\n")
    assert (parsed["events"], parsed["lastEventId"]) == ([], "9")


def test_an_id_with_nul_is_ignored(node: Node) -> None:
    assert node.parse(b"id: 1\nid: 2\0\ndata\n\n")["lastEventId"] == "1"


@pytest.mark.parametrize("value", ["-5", "1_000", "1.5", "1 ", "\u0661"])
def test_a_retry_that_is_not_all_ascii_digits_is_ignored(node: Node, value: str) -> None:
    assert node.parse(f"retry: 20\nretry: {value}\n".encode())["retry"] == 20


def test_frames_joined_are_the_stream_comments_and_all(node: Node) -> None:
    stream = ": warm\n\nid: e-1\r\ndata:  two spaces\r\n\r\ndata: ü\r\r"
    assert "".join(node.parse(*(bytes([byte]) for byte in stream.encode()))["frames"]) == stream


def test_an_event_above_the_limit_is_refused_by_name(node: Node) -> None:
    parsed = node.parse(b"data: 0123", b"456789", maxEventChars=15)
    assert parsed["error"] == "an event is larger than maxEventChars (15)"


def conformance_cases() -> list[Any]:
    named = os.environ.get("RAWSSE_CONFORMANCE")
    path = Path(named or Path(__file__).parents[3] / "shared" / "conformance" / "cases.json")
    if not named and not path.exists():
        skip = pytest.mark.skip("no conformance suite here: RAWSSE_CONFORMANCE names its cases.json")
        return [pytest.param({}, marks=skip)]
    return [pytest.param(case, id=case["id"]) for case in json.loads(path.read_text())]


@pytest.mark.parametrize("case", conformance_cases())
def test_a_stream_means_the_same_however_it_is_cut(node: Node, case: dict[str, Any]) -> None:
    expected, tags = case["expect"], case.get("tags", [])
    (result,) = node("results", input=case["input_b64"], isLarge="large" in tags)
    accepted = expected.get("retry_accept", [expected["retry_ms"]])
    assert result["events"] == expected["events"]
    assert result["final_last_event_id"] == expected["final_last_event_id"]
    assert accepted == "any" or result["retry_ms"] in accepted


@pytest.mark.parametrize("case", conformance_cases())
def test_an_event_comes_out_at_the_byte_that_ends_it(node: Node, case: dict[str, Any]) -> None:
    assert node("dispatchedAt", input=case["input_b64"]) == case["expect"]["dispatch_at"]


# --- A run that goes well --------------------------------------------------------------------------------------------


def test_the_events_of_a_run_come_parsed_up_to_done(node: Node) -> None:
    told = node("run", responses=[play(HI + YOU + DONE)])
    assert told["events"] == [{"text": "Hi"}, {"text": " you"}]
    assert (told["error"], len(told["requests"])) == (None, 1)


def test_the_prompt_is_posted_as_json_with_the_callers_headers(node: Node) -> None:
    (request,) = node("run", responses=[play(DONE)], headers={"authorization": "Bearer t"})["requests"]
    assert (request["method"], request["url"]) == ("POST", "http://relay.test/api/chat")
    assert request["body"] == {"messages": []}
    run_id = request["headers"].pop("x-run-id")
    accept = {"accept": "text/event-stream", "authorization": "Bearer t", "content-type": "application/json"}
    assert (request["headers"], len(run_id)) == (accept, 32)


def test_a_run_has_a_name_and_a_url_before_it_is_asked_for(node: Node) -> None:
    told = node("run", responses=[None], waits=[])
    run_id = told["requests"][0]["headers"]["x-run-id"]
    assert told["runs"] == [{"id": run_id, "url": f"http://relay.test/runs/{run_id}"}]


def test_no_two_runs_have_the_same_name(node: Node) -> None:
    first, second = (node("run", responses=[play(DONE)])["runs"][0]["id"] for _ in range(2))
    assert first != second


def test_a_name_that_the_server_gave_counts_and_cannot_break_out_of_the_url(node: Node) -> None:
    told = node("run", responses=[play(DONE)])
    assert told["runs"][1:] == [{"id": "r/1", "url": "http://relay.test/runs/r%2F1"}]


def test_each_frame_is_told_as_it_stood_in_the_stream(node: Node) -> None:
    assert node("run", responses=[play(": warm\n\n" + HI, DONE)])["frames"] == [": warm\n\n", HI, DONE]


# --- A run that is cut -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "error"])
def test_a_lost_connection_is_resumed_after_the_last_event_that_was_read(node: Node, end: str) -> None:
    told = node("run", responses=[play(HI, end=end), play(YOU + DONE)])
    assert told["events"] == [{"text": "Hi"}, {"text": " you"}]
    assert told["requests"][1]["method"] == "GET"
    assert told["requests"][1]["url"] == "http://relay.test/runs/r%2F1"
    assert told["requests"][1]["headers"]["last-event-id"] == "e-1"


@pytest.mark.parametrize("at", range(1, len(YOU)))
def test_an_event_that_was_cut_in_half_comes_whole_and_once(node: Node, at: int) -> None:
    told = node("run", responses=[play(HI + YOU[:at], end="error"), play(YOU + DONE)])
    assert told["events"] == [{"text": "Hi"}, {"text": " you"}]


def test_a_server_that_starts_from_the_beginning_doubles_nothing(node: Node) -> None:
    told = node("run", responses=[play(HI + YOU), play(HI), play(HI + YOU + DONE)])
    assert told["events"] == [{"text": "Hi"}, {"text": " you"}]
    assert told["requests"][2]["headers"]["last-event-id"] == "e-2"


def test_ids_of_another_form_or_epoch_are_never_taken_for_old(node: Node) -> None:
    other = [HI.replace("e-1", name) for name in ("f-1", "x")]
    told = node("run", responses=[play(YOU), play(*other, HI.replace("id: e-1\n", ""), DONE)])
    assert [event["text"] for event in told["events"]] == [" you", "Hi", "Hi", "Hi"]


def test_a_run_that_ends_before_its_first_event_is_resumed_without_an_id(node: Node) -> None:
    told = node("run", responses=[play(), play(HI + DONE)])
    assert "last-event-id" not in told["requests"][1]["headers"]
    assert told["events"] == [{"text": "Hi"}]


def test_an_event_without_an_id_does_not_make_the_run_forget_its_place(node: Node) -> None:
    told = node("run", responses=[play(HI), play(YOU.replace("id: e-2\n", "")), play(DONE)])
    assert told["requests"][2]["headers"]["last-event-id"] == "e-1"


def test_an_id_beyond_ascii_goes_back_as_its_utf8_bytes(node: Node) -> None:
    told = node("run", responses=[play(HI.replace("e-1", "é")), play(DONE)])
    assert told["requests"][1]["headers"]["last-event-id"].encode("latin-1") == "é".encode()


def test_waits_grow_and_then_the_run_is_truncated(node: Node) -> None:
    told = node("run", responses=[play(HI)], waits=[1, 2, 3])
    assert [lost["wait"] for lost in told["lost"]] == [1, 2, 3]
    assert [request["method"] for request in told["requests"]] == ["POST", "GET", "GET", "GET"]
    assert (told["error"]["reason"], told["error"]["message"]) == ("truncated", "3 tries to resume failed")


def test_progress_gives_all_tries_back(node: Node) -> None:
    told = node("run", responses=[play(HI), None, play(YOU), None, play(DONE)], waits=[1, 2])
    assert [lost["wait"] for lost in told["lost"]] == [1, 2, 1, 2]
    assert told["error"] is None


def test_the_streams_own_retry_lengthens_the_wait_up_to_a_limit(node: Node) -> None:
    slow = node("run", responses=[play("retry: 7\n" + HI), play(DONE)], waits=[1])
    slower = node("run", responses=[play("retry: 99999999999\n" + HI), play(DONE)], waits=[1], maxRetryMs=9)
    assert (slow["lost"][0]["wait"], slower["lost"][0]["wait"]) == (7, 9)


def test_a_silent_connection_is_given_up_and_resumed(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang"), play(YOU + DONE)], silenceMs=15)
    assert told["events"] == [{"text": "Hi"}, {"text": " you"}]


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_is_asked_again(node: Node, status: int) -> None:
    told = node("run", responses=[play(HI), play(status=status), play(DONE)])
    assert told["opened"] == ["POST 200", f"GET {status}", "GET 200"]
    assert told["error"] is None


def test_a_run_that_the_server_has_forgotten_is_truncated(node: Node) -> None:
    told = node("run", responses=[play(HI), play(status=404)])
    assert told["error"]["reason"] == "truncated"
    assert told["error"]["message"] == "the run cannot be fetched: the server answered 404"


def test_nothing_left_is_an_end(node: Node) -> None:
    told = node("run", responses=[play(HI), play(status=204)])
    assert (told["events"], told["error"]) == ([{"text": "Hi"}], None)


def test_without_a_run_id_there_is_nothing_to_come_back_to(node: Node) -> None:
    told = node("run", responses=[play(HI, headers={"content-type": "text/event-stream"})])
    assert told["error"]["message"] == "the stream ended early, and it has no run id to resume by"
    assert len(told["requests"]) == 1


def test_a_connection_that_is_lost_before_the_first_byte_is_resumed_too(node: Node) -> None:
    told = node("run", responses=[None, play(HI + DONE)])
    run_id = told["requests"][0]["headers"]["x-run-id"]
    assert told["requests"][1]["url"] == f"http://relay.test/runs/{run_id}"
    assert (told["events"], told["error"]) == ([{"text": "Hi"}], None)


def test_a_prompt_that_reached_nobody_is_not_sent_again(node: Node) -> None:
    told = node("run", responses=[None])
    assert [request["method"] for request in told["requests"]] == ["POST", "GET", "GET", "GET"]
    assert (told["error"]["reason"], told["error"]["message"]) == ("unreachable", "3 tries to resume failed")


def test_a_prompt_that_a_server_knows_nothing_of_reached_nobody(node: Node) -> None:
    told = node("run", responses=[None, play(status=404)])
    assert (told["error"]["reason"], len(told["requests"])) == ("unreachable", 2)


def test_a_run_that_failed_while_nobody_looked_says_why(node: Node) -> None:
    body = 'event: error\ndata: {"error": {"type": "overloaded_error", "message": "busy"}}\n\n'
    failed = play(body, status=529, headers={"content-type": "text/event-stream"})
    error = node("run", responses=[None, failed])["error"]
    assert (error["reason"], error["status"], error["type"]) == ("refused", 529, "overloaded_error")


# --- A run that fails, and one that is stopped ------------------------------------------------------------------------


def test_a_refusal_tells_status_type_field_and_words(node: Node) -> None:
    body = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "messages: empty", "field": "messages"},
    }
    refused = play(json.dumps(body), status=400, headers={"content-type": "application/json"})
    error = node("run", responses=[refused])["error"]
    assert (error["reason"], error["status"], error["type"]) == ("refused", 400, "invalid_request_error")
    assert (error["field"], error["message"]) == ("messages", "messages: empty")


def test_a_refusal_in_the_form_of_a_stream_tells_the_same(node: Node) -> None:
    body = 'event: error\ndata: {"error": {"type": "rate_limit_error", "message": "slow down"}}\n\ndata: [DONE]\n\n'
    head = {"content-type": "text/event-stream; charset=utf-8", "retry-after": "12"}
    told = node("run", responses=[play(body, status=429, headers=head)])
    assert (told["error"]["type"], told["error"]["message"]) == ("rate_limit_error", "slow down")
    assert told["error"]["retryAfter"] == 12
    assert "".join(told["frames"]) == body


def test_a_gateways_html_is_a_refusal_without_words(node: Node) -> None:
    page = play("<h1>Bad Gateway</h1>", status=502, headers={"content-type": "text/html"})
    error = node("run", responses=[page])["error"]
    assert (error["reason"], error["message"]) == ("refused", "the server answered 502")


def test_an_error_event_fails_the_run_after_what_came_before_it(node: Node) -> None:
    body = {"error": {"type": "api_error", "message": "cut"}, "request_id": "q1", "ending": {"kind": "truncated"}}
    told = node("run", responses=[play(HI + f"event: error\ndata: {json.dumps(body)}\n\n" + DONE)])
    error = told["error"]
    assert told["events"] == [{"text": "Hi"}]
    assert (error["reason"], error["type"], error["message"]) == ("failed", "api_error", "cut")
    assert (error["requestId"], error["ending"]) == ("q1", "truncated")


def test_an_error_event_without_done_is_no_lost_connection(node: Node) -> None:
    told = node("run", responses=[play('event: error\ndata: {"error": {"message": "no"}}\n\n')])
    assert (told["error"]["reason"], len(told["requests"])) == ("failed", 1)


def test_an_answer_that_is_no_event_stream_is_malformed(node: Node) -> None:
    error = node("run", responses=[play("<p>", headers={"content-type": "text/html"})])["error"]
    assert (error["reason"], error["message"]) == (
        "malformed",
        "the server answered with text/html, not text/event-stream",
    )


@pytest.mark.parametrize("data", ["{", "1", "null"])
def test_data_that_are_no_json_object_are_malformed(node: Node, data: str) -> None:
    error = node("run", responses=[play(f"event: ping\ndata: {data}\n\n")])["error"]
    assert (error["reason"], error["message"]) == ("malformed", 'the data of "ping" is no JSON object')


def test_an_aborted_run_ends_with_the_signals_reason_and_asks_nothing_more(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang"), play(YOU)], abortAt=1)
    assert (told["error"]["name"], len(told["requests"])) == ("AbortError", 1)


def test_a_run_that_was_aborted_before_it_waits_does_not_wait(node: Node) -> None:
    told = node("run", responses=[play(HI)], waits=[60_000], abortInLost=True)
    assert (told["error"]["name"], len(told["requests"])) == ("AbortError", 1)


def test_a_signal_is_left_without_listeners_however_often_a_run_waited(node: Node) -> None:
    assert node("run", responses=[play(HI), play(), play(), play(DONE)])["listeners"] == 0
    assert node("run", responses=[play(HI)], waits=[60_000], abortOnLost=True)["listeners"] == 0


def test_a_run_can_be_aborted_while_it_waits_to_resume(node: Node) -> None:
    told = node("run", responses=[play(HI)], waits=[60_000], abortOnLost=True)
    assert (told["error"]["name"], len(told["requests"])) == ("AbortError", 1)


def test_stopping_is_a_delete_with_the_callers_headers(node: Node) -> None:
    told = node("stop", responses=[play(status=204)])
    assert told["error"] is None
    assert told["requests"][0]["method"] == "DELETE"
    assert told["requests"][0]["headers"] == {"authorization": "Bearer t"}


def test_stopping_a_run_that_is_over_is_fine(node: Node) -> None:
    assert node("stop", responses=[play(status=404)])["error"] is None


def test_a_stop_that_the_server_refuses_is_told(node: Node) -> None:
    assert node("stop", responses=[play(status=500)])["error"] == "the server answered 500"


# --- Words -----------------------------------------------------------------------------------------------------------


def describe(node: Node, **error: Any) -> Any:
    return node("words", name="describeError", args=[{"message": "m", **error}])


def test_an_error_of_a_known_type_is_said_in_words_with_what_the_other_side_said(node: Node) -> None:
    said = describe(node, type="overloaded_error", status=529, message="Overloaded", requestId="req_1")
    assert said["headline"] == "The API is overloaded. Wait a moment, then try again."
    assert said["detail"] == "Overloaded (status 529, overloaded_error, request req_1)"


def test_an_error_of_an_unknown_type_is_said_by_what_happened(node: Node) -> None:
    said = describe(node, type="quota_error", reason="failed", retryAfter=9)
    assert said["headline"] == "The answer broke off with an error."
    assert said["detail"] == "m (quota_error, retry after 9 s)"


def test_how_the_relay_saw_the_stream_end_says_more_than_a_type_that_it_made_up(node: Node) -> None:
    said = describe(node, type="api_error", ending="truncated")
    assert said["headline"] == "The API's answer broke off before it was complete."


def test_an_error_of_the_api_itself_is_said_by_its_type(node: Node) -> None:
    said = describe(node, type="overloaded_error", ending="error")
    assert said["headline"] == "The API is overloaded. Wait a moment, then try again."


def test_an_error_type_that_javascript_itself_knows_is_unknown(node: Node) -> None:
    assert describe(node, type="constructor", reason="failed")["headline"] == "The answer broke off with an error."


def test_a_fault_of_the_page_is_not_blamed_on_the_server(node: Node) -> None:
    assert describe(node)["headline"] == "The page itself failed."


def test_a_stop_reason_is_spoken_of_only_where_something_is_amiss(node: Node) -> None:
    said = {
        reason: node("words", name="describeStopReason", args=[reason]) for reason in ("end_turn", "tired", "refusal")
    }
    assert said == {"end_turn": None, "tired": None, "refusal": "The model declined to answer."}


@pytest.mark.parametrize(("ms", "said"), [(4, "0.00 s"), (417, "0.42 s"), (9_994, "9.99 s"), (9_995, "10.0 s")])
def test_times_have_as_many_digits_as_can_be_used(node: Node, ms: int, said: str) -> None:
    assert node("words", name="seconds", args=[ms]) == said


@pytest.mark.parametrize(("number", "said"), [(0, "0"), (999, "999"), (1000, "1 000"), (1234567, "1 234 567")])
def test_counts_are_set_in_groups_of_three(node: Node, number: int, said: str) -> None:
    assert node("words", name="count", args=[number]) == said.replace(" ", "\u202f")


def test_a_speed_is_tokens_over_time_and_none_where_the_time_is_too_short(node: Node) -> None:
    assert node("words", name="tokensPerSecond", args=[30, 500]) == 60
    assert node("words", name="tokensPerSecond", args=[30, 49]) is None
