"""rawsse.js under Node, and the page's words: the parser, answers and how they are resumed and stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sampling import one_in

from rawsse.relay import RunLimits
from rawsse.relay.runs import STOPPED, unread

from .node_harness import Node

NODE = shutil.which("node")
pytestmark = [pytest.mark.real, pytest.mark.skipif(NODE is None, reason="no node on the PATH to run JavaScript with")]

HI = 'id: e-1\nevent: content_block_delta\ndata: {"text": "Hi"}\n\n'
YOU = 'id: e-2\nevent: content_block_delta\ndata: {"text": " you"}\n\n'
DONE = "id: e-3\ndata: [DONE]\n\n"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    assert NODE is not None
    with Node(NODE) as running:
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
    assert parsed["error"].endswith("an event is larger than maxEventChars (15)")


def conformance_cases() -> list[Any]:
    named = os.environ.get("RAWSSE_CONFORMANCE")
    path = Path(named or Path(__file__).parents[3] / "shared" / "conformance" / "cases.json")
    if not named and not path.exists():
        pytest.skip("no conformance suite here: RAWSSE_CONFORMANCE names its cases.json")
    cases: list[Any] = json.loads(path.read_text())
    return cases


def test_a_stream_means_the_same_however_it_is_cut(node: Node) -> None:
    for case in conformance_cases():
        expected = case["expect"]
        (result,) = node("results", input=case["input_b64"], isSample=one_in(2) > 1)
        accepted = expected.get("retry_accept", [expected["retry_ms"]])
        assert result["events"] == expected["events"], case["id"]
        assert result["final_last_event_id"] == expected["final_last_event_id"], case["id"]
        assert accepted == "any" or result["retry_ms"] in accepted, case["id"]


def test_an_event_comes_out_at_the_byte_that_ends_it(node: Node) -> None:
    for case in conformance_cases():
        expected = case["expect"]["dispatch_at"]
        is_sample = one_in(2) > 1 and len(case["input_b64"]) > 30_000
        near = [0, *expected] if is_sample else None
        assert node("dispatchedAt", input=case["input_b64"], near=near) == expected, case["id"]


# --- An answer that goes well ----------------------------------------------------------------------------------------

ANSWER = 'data: {"text": "Hi"}\n\ndata: {"text": " you"}\n\n'
END = "data: [DONE]\n\n"
BARE = {"content-type": "text/event-stream"}
"""The head of a server that knows no runs."""


def test_the_events_of_a_run_come_parsed_up_to_done(node: Node) -> None:
    told = node("run", responses=[play(HI + YOU + DONE)])
    assert told["events"] == [{"text": "Hi"}, {"text": " you"}]
    assert (told["text"], told["ending"], told["error"], len(told["requests"])) == ("Hi you", "complete", None, 1)


def test_callbacks_get_each_piece_with_the_text_so_far_and_the_whole_once(node: Node) -> None:
    told = node("run", responses=[play(HI + YOU + DONE)], callbacks=True)
    assert told["texts"] == [["Hi", "Hi"], [" you", "Hi you"]]
    assert told["done"] == [{"text": "Hi you", "usage": None, "stopReason": None, "ending": "complete"}]
    assert told["errors"] == []


def test_an_option_that_is_undefined_is_not_given(node: Node) -> None:
    told = node("run", responses=[None, play(HI + DONE)], without=["onText", "onDone", "waits", "headMs", "headers"])
    assert (told["text"], told["texts"], told["ending"]) == ("Hi", [], "complete")


def test_an_answer_is_read_once(node: Node) -> None:
    assert "being read already" in node("twice")


def test_the_prompt_is_posted_as_json_with_the_callers_headers_and_token(node: Node) -> None:
    (request,) = node("run", responses=[play(DONE)], headers={"x-mine": "1"}, token="t")["requests"]
    assert (request["method"], request["url"]) == ("POST", "http://relay.test/api/chat")
    assert request["body"] == {"messages": []}
    run_id = request["headers"].pop("x-run-id")
    sent = {
        "accept": "text/event-stream",
        "content-type": "application/json",
        "authorization": "Bearer t",
        "x-mine": "1",
    }
    assert (request["headers"], len(run_id)) == (sent, 32)


def test_a_header_of_the_caller_that_is_the_requests_own_is_replaced_in_any_case(node: Node) -> None:
    given = {
        "Content-Type": "text/plain",
        "ACCEPT": "*/*",
        "Authorization": "mine",
        "X-Run-Id": "m" * 16,
        "x-mine": "1",
    }
    told = node("run", responses=[play(HI), play(YOU, end="hang")], headers=given, token="t", at={"stopAfter": 2})
    assert methods(told) == ["POST", "GET", "DELETE"]
    for request in told["requests"]:
        head = request["headers"]
        assert (head["accept"], head["authorization"], head["x-mine"]) == ("text/event-stream", "Bearer t", "1")
    post, *others = (request["headers"] for request in told["requests"])
    assert (post["x-run-id"], post["content-type"]) == (told["drawn"], "application/json")
    assert ["x-run-id" in head for head in others] == [False, False]


def test_no_two_runs_have_the_same_name(node: Node) -> None:
    first, second = (node("run", responses=[play(DONE)])["drawn"] for _ in range(2))
    assert first != second


def test_a_name_that_the_server_gave_counts_and_cannot_break_out_of_the_url(node: Node) -> None:
    told = node("run", responses=[play(HI), play(DONE)])
    assert (told["id"], told["requests"][1]["url"]) == ("r/1", "http://relay.test/runs/r%2F1")


@pytest.mark.parametrize("route", ["/api/chat", "/api/chat/stream", "/chat/stream", "/stream"])
@pytest.mark.parametrize("mount", ["", "/claude", "/a/b"])
def test_a_run_is_beside_the_relays_routes_wherever_it_is_mounted(node: Node, mount: str, route: str) -> None:
    told = node("run", url=f"http://relay.test{mount}{route}", responses=[play(HI), play(DONE)])
    assert told["requests"][1]["url"] == f"http://relay.test{mount}/runs/r%2F1"


def test_each_frame_is_told_as_it_stood_in_the_stream(node: Node) -> None:
    assert node("run", responses=[play(": warm\n\n" + HI, DONE)])["frames"] == [": warm\n\n", HI, DONE]


def test_a_run_can_be_read_again_from_its_start_by_its_id(node: Node) -> None:
    told = node("run", responses=[play(HI + DONE)], body=None, id="run-of-another-day")
    (request,) = told["requests"]
    assert (request["method"], request["url"]) == ("GET", "http://relay.test/runs/run-of-another-day")
    assert told["text"] == "Hi"


# --- Dialects --------------------------------------------------------------------------------------------------------


def events(*values: dict[str, Any]) -> str:
    """Frames of the Messages API itself: no ids."""
    return "".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n" for value in values)


def api_answer(*texts: str, stop_reason: str | None = "end_turn") -> list[dict[str, Any]]:
    start: dict[str, Any] = {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 12, "output_tokens": 1, "service_tier": None}},
    }
    deltas: list[dict[str, Any]] = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts
    ]
    end: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason},
        "usage": {"output_tokens": 7},
    }
    return [start, *deltas, *([end, {"type": "message_stop"}] if stop_reason else [])]


def test_the_text_dialect_of_a_server_without_runs_is_read(node: Node) -> None:
    told = node("run", responses=[play(ANSWER + END, headers=BARE)])
    assert (told["text"], told["ending"], len(told["requests"])) == ("Hi you", "complete", 1)


def test_the_text_dialect_may_end_its_lines_with_crlf(node: Node) -> None:
    told = node("run", responses=[play((ANSWER + END).replace("\n", "\r\n"), headers=BARE)])
    assert (told["text"], told["ending"]) == ("Hi you", "complete")


@pytest.mark.parametrize("done", [END, ""])
def test_the_apis_own_events_are_read_with_and_without_done(node: Node, done: str) -> None:
    told = node("run", responses=[play(events(*api_answer("Hi", " you")) + done, headers=BARE)])
    assert (told["text"], told["ending"], told["stopReason"]) == ("Hi you", "complete", "end_turn")
    assert told["usage"] == {"input_tokens": 12, "output_tokens": 7}


def test_a_message_whose_stop_reason_is_known_lacks_nothing(node: Node) -> None:
    told = node("run", responses=[play(events(*api_answer("Hi")[:-1]), headers=BARE)])
    assert (told["text"], told["ending"], told["stopReason"]) == ("Hi", "complete", "end_turn")


def test_thinking_and_tool_input_are_events_and_no_text(node: Node) -> None:
    deltas = [{"type": "thinking_delta", "thinking": "a"}, {"type": "input_json_delta", "partial_json": "{"}]
    values = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    assert [node("textOf", event=value) for value in values] == ["", ""]


def test_text_that_a_block_begins_with_is_text(node: Node) -> None:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}
    assert node("textOf", event=block) == "Hi"


def test_the_usage_frame_of_the_text_dialect_is_no_text(node: Node) -> None:
    usage = 'data: {"usage": {"input_tokens": 3, "output_tokens": 2}, "stop_reason": "max_tokens"}\n\n'
    told = node("run", responses=[play(ANSWER + usage + END)])
    assert (told["text"], told["stopReason"]) == ("Hi you", "max_tokens")
    assert told["usage"] == {"input_tokens": 3, "output_tokens": 2}


@pytest.mark.parametrize(
    "frame",
    [
        'data: {"error": "Overloaded", "type": "overloaded_error"}\n\n',
        'data: {"error": {"message": "Overloaded", "type": "overloaded_error"}}\n\n',
        'event: error\ndata: {"type": "error", "error": {"message": "Overloaded", "type": "overloaded_error"}}\n\n',
    ],
)
def test_each_dialects_error_ends_the_answer_with_its_type_and_words(node: Node, frame: str) -> None:
    told = node("run", responses=[play(ANSWER + frame + END, headers=BARE)])
    error = told["error"]
    assert (error["type"], error["detail"], error["text"]) == ("overloaded_error", "Overloaded", "Hi you")
    assert (told["errors"], told["done"]) == ([error], [])


def test_an_error_that_is_only_a_text_is_told_as_it_is(node: Node) -> None:
    error = node("run", responses=[play('data: {"error": "no credit"}\n\n', headers=BARE)])["error"]
    assert (error["type"], error["detail"]) == ("api_error", "no credit")


def test_an_answer_without_done_is_truncated_and_keeps_its_text(node: Node) -> None:
    error = node("run", responses=[play(ANSWER, headers=BARE)])["error"]
    assert (error["type"], error["text"]) == ("truncated", "Hi you")


def test_done_after_half_a_message_of_the_api_is_not_believed(node: Node) -> None:
    told = node("run", responses=[play(events(*api_answer("Hi", stop_reason=None)) + END, headers=BARE)])
    assert (told["error"]["type"], told["error"]["text"]) == ("truncated", "Hi")


def test_a_server_without_runs_is_told_nothing_but_the_end_of_the_connection(node: Node) -> None:
    told = node("run", responses=[play(ANSWER, headers=BARE, end="hang")], at={"stopAfter": 1})
    assert [request["method"] for request in told["requests"]] == ["POST"]
    assert told["ending"] == "stopped"


def test_without_resume_no_header_of_ours_is_sent_and_nothing_is_sent_twice(node: Node) -> None:
    told = node("run", responses=[None], resume=False)
    assert "x-run-id" not in told["requests"][0]["headers"]
    assert (told["error"]["type"], len(told["requests"])) == ("unreachable", 1)


# --- A connection that is lost ---------------------------------------------------------------------------------------


def methods(told: dict[str, Any]) -> list[str]:
    return [request["method"] for request in told["requests"]]


@pytest.mark.parametrize("end", ["close", "error"])
def test_a_lost_connection_is_resumed_after_the_last_event_that_was_read(node: Node, end: str) -> None:
    told = node("run", responses=[play(HI, end=end), play(YOU + DONE)])
    assert told["events"] == [{"text": "Hi"}, {"text": " you"}]
    assert methods(told) == ["POST", "GET"]
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


def test_an_event_without_an_id_does_not_make_the_run_forget_its_place(node: Node) -> None:
    told = node("run", responses=[play(HI), play(YOU.replace("id: e-2\n", "")), play(DONE)])
    assert told["requests"][2]["headers"]["last-event-id"] == "e-1"


def test_an_id_beyond_ascii_goes_back_as_its_utf8_bytes(node: Node) -> None:
    told = node("run", responses=[play(HI.replace("e-1", "é")), play(DONE)])
    assert told["requests"][1]["headers"]["last-event-id"].encode("latin-1") == "é".encode()


def test_a_run_that_has_begun_is_tried_for_as_long_as_it_takes_with_waits_that_grow(node: Node) -> None:
    told = node("run", responses=[play(HI), *[None] * 20, play(YOU + DONE)], waits=[1, 2, 4])
    assert (told["text"], methods(told).count("POST")) == ("Hi you", 1)
    waits = [lost["wait"] for lost in told["lost"]]
    bounds = [1, 2, *[4] * 19]
    assert len(waits) == 21
    assert all(0.75 * bound <= wait <= 1.25 * bound for wait, bound in zip(waits, bounds, strict=True))


def test_progress_makes_the_waits_short_again(node: Node) -> None:
    told = node("run", responses=[play(HI), None, play(YOU), play(DONE)])
    assert [lost["tries"] for lost in told["lost"]] == [1, 2, 1]


def test_the_streams_own_retry_lengthens_the_wait_up_to_a_limit(node: Node) -> None:
    slow = node("run", responses=[play("retry: 7\n" + HI), play(DONE)], waits=[1])
    slower = node("run", responses=[play("retry: 99999999999\n" + HI), play(DONE)], waits=[1], maxWaitMs=9)
    assert (slow["lost"][0]["wait"], slower["lost"][0]["wait"]) == (7, 9)


def test_a_silent_relay_is_given_up_and_resumed(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang"), play(YOU + DONE)], silenceMs=15)
    assert told["text"] == "Hi you"


def test_a_silent_server_that_has_no_heartbeat_is_waited_for(node: Node) -> None:
    told = node(
        "run", responses=[play(ANSWER, headers=BARE, end="hang")], silenceMs=1, callbacks=True, at={"silent": True}
    )
    assert (told["lost"], told["text"], told["unhandled"]) == ([], "Hi you", [])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(node: Node, status: int) -> None:
    told = node("run", responses=[play(HI), play(status=status), play(DONE)])
    assert told["opened"] == ["POST 200", f"GET {status}", "GET 200"]
    assert told["error"] is None


def test_the_login_page_of_a_network_is_no_answer_and_no_end(node: Node) -> None:
    portal = play("<h1>Log in", headers={"content-type": "text/html"})
    assert node("run", responses=[play(HI), portal, play(YOU + DONE)])["text"] == "Hi you"


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_run_that_the_server_has_forgotten_is_told_with_the_text_that_came(node: Node, status: int) -> None:
    told = node("run", responses=[play(HI), play('{"error": "there is no such run; ?user=ID …"}', status=status)])
    error = told["error"]
    assert (error["type"], error["status"], error["text"]) == ("forgotten", status, "Hi")
    # A visitor asked for an answer, and has never heard of a run.
    assert (error["message"], error["detail"]) == (f"{error['headline']} (status {status})", None)
    assert methods(told) == ["POST", "GET"]


def test_a_token_that_is_no_longer_good_is_told_as_that(node: Node) -> None:
    error = node("run", responses=[play(HI), play(status=401)])["error"]
    assert (error["type"], error["text"]) == ("authentication_error", "Hi")


def test_nothing_left_is_an_end(node: Node) -> None:
    told = node("run", responses=[play(HI), play(status=204)])
    assert (told["text"], told["ending"], told["error"]) == ("Hi", "complete", None)


def test_a_message_that_lacks_nothing_but_done_is_not_fetched_again(node: Node) -> None:
    told = node("run", responses=[play(events(*api_answer("Hi")), end="error")])
    assert (told["ending"], methods(told)) == ("complete", ["POST"])


# --- Before the first byte -------------------------------------------------------------------------------------------


def test_a_prompt_that_may_have_arrived_is_looked_for_before_it_is_sent_again(node: Node) -> None:
    told = node("run", responses=[None, play(HI + DONE)])
    assert methods(told) == ["POST", "GET"]
    assert told["requests"][1]["url"] == f"http://relay.test/runs/{told['drawn']}"
    assert told["text"] == "Hi"


def missing() -> dict[str, Any]:
    body = {"type": "error", "error": {"type": "not_found_error", "message": "there is no such run"}}
    return play(json.dumps(body), status=404)


def test_a_prompt_that_the_relay_has_never_seen_is_sent_again_under_the_same_name(node: Node) -> None:
    told = node("run", responses=[None, None, missing(), play(HI + DONE)])
    assert methods(told) == ["POST", "GET", "GET", "POST"]
    first, last = (told["requests"][i]["headers"]["x-run-id"] for i in (0, 3))
    assert (first, told["text"]) == (last, "Hi")


def test_a_server_that_has_no_runs_is_not_sent_the_prompt_twice(node: Node) -> None:
    told = node("run", responses=[None, play("Cannot GET /runs", status=404, headers={"content-type": "text/html"})])
    assert (told["error"]["type"], methods(told)) == ("unreachable", ["POST", "GET"])


def test_a_server_whose_every_path_is_a_page_has_no_runs_either(node: Node) -> None:
    page = play("<p>Home", headers={"content-type": "text/html"})
    told = node("run", responses=[None, *[page] * 9])
    assert (told["error"]["type"], methods(told).count("POST")) == ("unreachable", 1)


def test_a_server_that_cannot_be_reached_is_given_up_after_the_last_wait(node: Node) -> None:
    told = node("run", responses=[None] * 9, waits=[1, 2, 3])
    assert methods(told) == ["POST", "GET", "GET", "GET"]
    assert (told["error"]["type"], len(told["lost"])) == ("unreachable", 3)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_without_its_server_is_tried_again(node: Node, status: int) -> None:
    gateway = play("<h1>Bad Gateway</h1>", status=status, headers={"content-type": "text/html"})
    told = node("run", responses=[gateway, gateway, missing(), play(HI + DONE)])
    assert (methods(told), told["text"]) == (["POST", "GET", "GET", "POST"], "Hi")


def test_a_gateway_that_stays_without_its_server_is_told_by_its_status(node: Node) -> None:
    gateway = play("<h1>Bad Gateway</h1>", status=502, headers={"content-type": "text/html"})
    error = node("run", responses=[gateway] * 9)["error"]
    assert (error["type"], error["status"], error["detail"]) == ("api_error", 502, None)
    assert error["message"] == "The API or the server failed. (status 502)"


def test_a_server_that_wants_a_longer_wait_than_a_person_has_is_not_waited_for(node: Node) -> None:
    head = {"content-type": "application/json", "retry-after": "3600"}
    told = node("run", responses=[play("{}", status=503, headers=head)])
    assert (told["error"]["retryAfter"], methods(told)) == (3600, ["POST"])


def test_a_head_that_does_not_come_is_a_lost_connection(node: Node) -> None:
    told = node("run", responses=[play(end="never"), play(HI + DONE)], headMs=15)
    assert (methods(told), told["text"]) == (["POST", "GET"], "Hi")


def test_a_resume_that_nothing_answers_is_tried_again(node: Node) -> None:
    answers = [play(HI), play(end="never"), play(YOU + DONE)]
    told = node("run", responses=answers, resumeMs=15)
    assert (methods(told), told["text"]) == (["POST", "GET", "GET"], "Hi you")


def test_a_resume_is_tried_again_while_the_relay_still_waits_for_a_reader(node: Node) -> None:
    limits = node("limits")
    assert limits["waits"][0] + limits["resumeMs"] + limits["waits"][1] < RunLimits().grace_seconds * 1000
    assert limits["openMs"] * 2 < limits["resumeMs"]  # then a tab without a leader has time for another connection


def test_a_run_that_failed_while_nobody_looked_says_why(node: Node) -> None:
    body = 'event: error\ndata: {"error": {"type": "overloaded_error", "message": "busy"}}\n\n'
    failed = play(body, status=529, headers={"content-type": "text/event-stream"})
    told = node("run", responses=[None, failed])
    error = told["error"]
    assert (error["type"], error["status"], error["detail"]) == ("overloaded_error", 529, "busy")
    assert methods(told) == ["POST", "GET"]


# --- Errors ----------------------------------------------------------------------------------------------------------


WRONG = {"type": "invalid_request_error", "message": "messages: empty", "field": "messages"}
IN_TEXT = {"error": WRONG["message"], "type": WRONG["type"], "field": WRONG["field"]}
REFUSED = {
    "application/json": json.dumps({"type": "error", "error": WRONG}),
    "text/event-stream": f"data: {json.dumps(IN_TEXT)}\n\ndata: [DONE]\n\n",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_tells_status_type_field_and_words(node: Node, kind: str) -> None:
    refused = play(REFUSED[kind], status=400, headers={"content-type": kind})
    error = node("run", responses=[refused])["error"]
    assert (error["name"], error["status"], error["type"]) == ("ChatError", 400, "invalid_request_error")
    assert (error["field"], error["detail"]) == ("messages", "messages: empty")
    assert error["message"] == "The request was not accepted. The server said: messages: empty"
    assert error["advice"] == "Change the question, or begin a new conversation."


@pytest.mark.parametrize("said", ["you need a login", "you need a valid token: Authorization: Bearer …"])
def test_who_is_not_known_is_told_what_the_server_needs_and_not_that_a_token_was_refused(node: Node, said: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": "authentication_error", "message": said}})
    error = node("run", responses=[play(body, status=401)])["error"]
    assert error["message"] == f"A valid login, key or token is needed. The server said: {said}"
    assert error["advice"] == "Log in, or check the token."


def test_a_request_that_the_operator_forbids_has_the_operator_s_words_and_no_advice_of_ours(node: Node) -> None:
    said = {"type": "permission_error", "message": "The word coffee is not for here."}
    error = node("run", responses=[play(json.dumps({"type": "error", "error": said}), status=403)])["error"]
    assert error["message"] == f"This is not allowed. The server said: {said['message']}"
    assert (error["advice"], error["detail"]) == ("", said["message"])


@pytest.mark.parametrize(
    ("seconds", "advice"),
    [
        (1, "Wait a moment, then try again."),
        (41, "Try again in 41 seconds."),
        (601, "Try again in 11 minutes."),
        (26_236, "Try again in 8 hours."),
    ],
)
def test_a_wait_that_the_server_asks_for_is_said_as_a_person_would(node: Node, seconds: int, advice: str) -> None:
    error = node("run", responses=[play("{}", status=429, headers={"retry-after": str(seconds)})])["error"]
    assert error["advice"] == advice


@pytest.mark.parametrize(
    ("phase", "ending"),
    [("connect", None), ("send", None), ("head", None), ("open", "truncated"), ("content", "truncated")],
)
def test_a_stream_that_never_began_has_no_ending(node: Node, phase: str, ending: str | None) -> None:
    failed = {"type": "error", "error": {"message": "no"}, "ending": {"kind": "truncated", "phase": phase}}
    assert node("run", responses=[play(events(failed))])["error"]["ending"] == ending


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (401, "authentication_error"),
        (403, "permission_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_status_means_its_type_where_the_body_names_none(node: Node, status: int, type: str) -> None:
    assert node("run", responses=[play("{}", status=status)])["error"]["type"] == type


def test_a_limit_of_open_runs_is_not_called_a_rate(node: Node) -> None:
    reason = "you have reached the limit of open runs (1); try again in 5 s"
    body = json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": reason}})
    error = node("run", responses=[play(body, status=429)])["error"]
    assert error["message"] == f"A limit was reached. The server said: {reason}"


@pytest.mark.parametrize(
    "body",
    [
        'event: error\ndata: {"error": {"type": "rate_limit_error", "message": "slow down"}}\n\ndata: [DONE]\n\n',
        'data: {"error": "slow down", "type": "rate_limit_error"}\n\ndata: [DONE]\n\n',
    ],
)
def test_a_refusal_in_the_form_of_a_stream_tells_the_same(node: Node, body: str) -> None:
    head = {"content-type": "text/event-stream; charset=utf-8", "retry-after": "12"}
    told = node("run", responses=[play(body, status=429, headers=head)])
    assert (told["error"]["type"], told["error"]["detail"]) == ("rate_limit_error", "slow down")
    assert told["error"]["retryAfter"] == 12
    assert "".join(told["frames"]) == body


def test_an_error_event_fails_the_run_after_what_came_before_it(node: Node) -> None:
    body = {"error": {"type": "api_error", "message": "cut"}, "request_id": "q1", "ending": {"kind": "truncated"}}
    told = node("run", responses=[play(HI + f"event: error\ndata: {json.dumps(body)}\n\n" + DONE)])
    error = told["error"]
    assert told["events"] == [{"text": "Hi"}]
    assert (error["type"], error["detail"], error["requestId"], error["ending"]) == (
        "api_error",
        "cut",
        "q1",
        "truncated",
    )


def test_a_type_that_is_not_known_has_words_all_the_same(node: Node) -> None:
    error = node("run", responses=[play('data: {"error": "no", "type": "constructor"}\n\n')])["error"]
    assert (error["type"], error["message"]) == ("constructor", "The answer failed. The server said: no")


def test_an_answer_that_is_no_event_stream_is_malformed(node: Node) -> None:
    error = node("run", responses=[play("<p>", headers={"content-type": "text/html"})])["error"]
    assert (error["type"], error["detail"]) == ("malformed", "content type text/html, not text/event-stream")


@pytest.mark.parametrize("data", ["{", "1", "null"])
def test_data_that_are_no_json_object_are_malformed(node: Node, data: str) -> None:
    error = node("run", responses=[play(f"event: ping\ndata: {data}\n\n")])["error"]
    assert (error["type"], error["detail"]) == ("malformed", 'the data of "ping" is not a JSON object')


def test_an_error_that_nothing_handles_is_not_swallowed(node: Node) -> None:
    told = node("run", responses=[play(ANSWER, headers=BARE)], callbacks=True, at={"silent": True})
    assert told["unhandled"] == ["ChatError: The connection was lost before the answer was complete."]


def test_an_error_that_a_callback_or_done_tells_is_handled(node: Node) -> None:
    told = node("run", responses=[play(ANSWER, headers=BARE)], callbacks=True)
    assert (told["error"]["type"], len(told["errors"]), told["unhandled"]) == ("truncated", 1, [])


def test_a_fault_of_the_callers_callback_is_the_callers_and_stops_the_run(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang")], at={"throw": True})
    assert (told["error"]["name"], methods(told)) == ("RangeError", ["POST", "DELETE"])
    assert (told["errors"], told["done"]) == ([], [])


def test_a_token_with_a_line_end_is_refused_before_anything_is_sent(node: Node) -> None:
    told = node("run", responses=[], token="a\nb")
    assert (told["error"]["name"], told["requests"]) == ("TypeError", [])


# --- Stopping --------------------------------------------------------------------------------------------------------


def test_stop_ends_the_answer_here_and_on_the_server(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang")], at={"stopAfter": 1}, token="t")
    delete = told["requests"][1]
    assert (delete["method"], delete["url"], delete["keepalive"]) == ("DELETE", "http://relay.test/runs/r%2F1", True)
    assert delete["headers"]["authorization"] == "Bearer t"
    assert (told["ending"], told["stopped"], told["error"]) == ("stopped", True, None)
    assert told["done"] == [{"text": "Hi", "usage": None, "stopReason": None, "ending": "stopped"}]


def test_stop_before_the_first_byte_names_the_run_and_asks_again_if_it_came_too_early(node: Node) -> None:
    told = node("run", responses=[play(end="never")], deletes=[404, 204], at={"stop": "sent"})
    assert methods(told) == ["POST", "DELETE", "DELETE"]
    assert told["requests"][2]["url"] == f"http://relay.test/runs/{told['drawn']}"
    assert (told["ending"], told["stopped"]) == ("stopped", True)


def test_stop_before_anything_was_sent_sends_nothing(node: Node) -> None:
    told = node("run", responses=[], at={"stop": "now"})
    assert (told["requests"], told["ending"]) == ([], "stopped")


def test_stop_after_the_end_sends_nothing(node: Node) -> None:
    told = node("run", responses=[play(DONE)])
    assert (methods(told), told["stopped"]) == (["POST"], True)


def test_a_refusal_that_comes_when_the_answer_was_stopped_is_no_error(node: Node) -> None:
    told = node("run", responses=[play("{", status=400, end="hang")], at={"stop": "sent"})
    assert (told["ending"], told["error"], methods(told)) == ("stopped", None, ["POST", "DELETE"])


def test_stop_while_the_connection_is_away_ends_the_waiting(node: Node) -> None:
    told = node("run", responses=[play(HI)], waits=[60_000], at={"stop": "lost"})
    assert (methods(told), told["ending"]) == (["POST", "DELETE"], "stopped")


def test_a_run_that_is_over_by_itself_is_stopped(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang")], deletes=[404], at={"stopAfter": 1})
    assert (told["stopped"], methods(told)) == (True, ["POST", "DELETE"])


@pytest.mark.parametrize("failed", [500, None])
def test_a_stop_that_does_not_reach_the_server_is_tried_again_and_then_told(node: Node, failed: int | None) -> None:
    told = node("run", responses=[play(HI, end="hang")], deletes=[failed] * 3, at={"stopAfter": 1}, speed=50)
    assert (told["stopped"], methods(told)) == (False, ["POST", "DELETE", "DELETE", "DELETE"])


def test_a_stop_that_nothing_answers_is_tried_again(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang")], deletes=["never", 204], resumeMs=15, at={"stopAfter": 1})
    assert (told["stopped"], methods(told)) == (True, ["POST", "DELETE", "DELETE"])


def cancelled(words: str, dialect: str) -> str:
    error = {
        "text": {"error": words, "type": "cancelled"},
        "events": {"error": {"type": "cancelled", "message": words}},
    }
    return f"event: error\ndata: {json.dumps(error[dialect])}\n\n" + DONE


@pytest.mark.parametrize("dialect", ["text", "events"])
def test_an_answer_that_was_stopped_elsewhere_is_stopped_and_did_not_fail(node: Node, dialect: str) -> None:
    told = node("run", responses=[play(HI + cancelled(STOPPED.message, dialect))], callbacks=True)
    assert (told["ending"], told["error"], told["errors"]) == ("stopped", None, [])
    assert (told["text"], len(told["done"]), methods(told)) == ("Hi", 1, ["POST"])


@pytest.mark.parametrize("dialect", ["text", "events"])
def test_an_answer_that_the_relay_gave_up_has_failed(node: Node, dialect: str) -> None:
    told = node("run", responses=[play(HI + cancelled(unread(10).message, dialect))])
    assert (told["ending"], told["error"]["type"]) == ("failed", "cancelled")


def test_leaving_the_loop_stops_the_run(node: Node) -> None:
    told = node("run", responses=[play(HI + YOU, end="hang")], at={"breakAfter": 1})
    assert (methods(told), told["ending"]) == (["POST", "DELETE"], "stopped")


def test_an_aborted_signal_stops_the_run_and_throws_its_reason(node: Node) -> None:
    told = node("run", responses=[play(HI, end="hang"), play(YOU)], at={"abortAfter": 1})
    assert (told["error"]["name"], methods(told)) == ("AbortError", ["POST", "DELETE"])
    assert (told["errors"], told["done"][0]["ending"]) == ([], "stopped")


@pytest.mark.parametrize("when", ["in lost", "lost"])
def test_a_run_can_be_aborted_while_it_waits_to_resume(node: Node, when: str) -> None:
    told = node("run", responses=[play(HI)], waits=[60_000], at={"abort": when})
    assert (told["error"]["name"], methods(told)) == ("AbortError", ["POST", "DELETE"])


def test_a_signal_that_was_aborted_before_sends_nothing(node: Node) -> None:
    told = node("run", responses=[play(HI + DONE)], at={"abort": "before"})
    assert (told["error"]["name"], told["requests"]) == ("AbortError", [])


def test_a_signal_is_left_without_listeners_however_often_a_run_waited(node: Node) -> None:
    assert node("run", responses=[play(HI), play(), play(), play(DONE)])["listeners"] == 0
    assert node("run", responses=[play(HI)], waits=[60_000], at={"abort": "lost"})["listeners"] == 0


# --- Painting --------------------------------------------------------------------------------------------------------


def test_without_frames_text_is_painted_by_a_timer_and_none_is_lost_or_doubled(node: Node) -> None:
    assert node("painted", bursts=[["a", "b"], ["c"]]) == ["ab", "c", "last"]


def test_what_waits_to_be_painted_is_painted_before_the_end_is_told(node: Node) -> None:
    told = node("run", responses=[play(HI + YOU + DONE)], callbacks=True, smooth=True)
    assert (told["texts"], len(told["done"])) == ([["Hi you", "Hi you"]], 1)


# --- Words -----------------------------------------------------------------------------------------------------------


def describe(node: Node, **error: Any) -> Any:
    return node("call", name="describeError", args=[error])


def test_an_error_is_said_in_words_with_what_the_other_side_said(node: Node) -> None:
    said = describe(
        node, headline="Busy.", advice="Wait.", type="x", status=529, detail="Overloaded", requestId="req_1"
    )
    assert said == {"headline": "Busy. Wait.", "detail": "Overloaded (status 529, x, request req_1)"}


def test_how_the_relay_saw_the_stream_end_says_more_than_a_type_that_it_made_up(node: Node) -> None:
    said = describe(node, headline="Wrong.", advice="Try again.", ending="truncated")
    assert said["headline"] == "The API's answer broke off before it was complete."


def test_a_fault_of_the_page_is_not_blamed_on_the_server(node: Node) -> None:
    assert describe(node, message="m") == {"headline": "The page itself failed.", "detail": "m"}


def test_a_stop_reason_is_spoken_of_only_where_something_is_amiss(node: Node) -> None:
    said = {
        reason: node("call", name="describeStopReason", args=[reason]) for reason in ("end_turn", "tired", "refusal")
    }
    assert said == {"end_turn": None, "tired": None, "refusal": "The model declined to answer."}


@pytest.mark.parametrize(("ms", "said"), [(4, "0.00 s"), (417, "0.42 s"), (9_994, "9.99 s"), (9_995, "10.0 s")])
def test_times_have_as_many_digits_as_can_be_used(node: Node, ms: int, said: str) -> None:
    assert node("call", name="seconds", args=[ms]) == said


@pytest.mark.parametrize(("number", "said"), [(0, "0"), (999, "999"), (1000, "1 000"), (1234567, "1 234 567")])
def test_counts_are_set_in_groups_of_three(node: Node, number: int, said: str) -> None:
    assert node("call", name="count", args=[number]) == said.replace(" ", "\u202f")


def test_a_speed_is_tokens_over_time_and_none_where_the_time_is_too_short(node: Node) -> None:
    assert node("call", name="tokensPerSecond", args=[30, 500]) == 60
    assert node("call", name="tokensPerSecond", args=[30, 49]) is None


def test_an_answer_that_was_only_accepted_is_read_where_it_is_kept(node: Node) -> None:
    accepted = {"chunks": ['{"run": "r/1"}'], "status": 202, "headers": {"x-run-id": "r/1"}}
    told = node("run", responses=[accepted, play('id: e-1\ndata: {"text": "Hi"}\n\n', "id: e-2\ndata: [DONE]\n\n")])
    assert (told["text"], told["ending"], told["lost"]) == ("Hi", "complete", [])
    assert told["opened"] == ["POST 202", "GET 200"]
    assert told["requests"][1]["url"].endswith("/runs/r%2F1")


def test_an_answer_that_was_only_accepted_by_another_server_is_malformed(node: Node) -> None:
    told = node("run", responses=[{"chunks": ["{}"], "status": 202, "headers": {}}])
    assert (told["error"]["type"], told["error"]["status"]) == ("malformed", 202)
