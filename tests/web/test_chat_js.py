"""chat.js under Node: conversations, why their answers ended, and how they go on after a reload."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from rawsse.relay.runs import STOPPED

from .node_harness import Node
from .test_rawsse_js import BARE, DONE, HI, YOU, api_answer, cancelled, events, methods, play
from .test_rawsse_js import node as node  # a fixture
from .test_rawsse_js import pytestmark as pytestmark  # where there is a node


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 9, texts, strict=False)]


def said(told: Any) -> list[dict[str, str]]:
    """The messages as the API takes them."""
    return [{"role": turn["role"], "content": turn["content"]} for turn in told["messages"] if turn["content"]]


def bodies(told: Any) -> list[Any]:
    return [request["body"]["messages"] for request in told["requests"] if request["method"] == "POST"]


def test_a_conversation_sends_all_that_was_said_and_nothing_else(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE), play(YOU + DONE)], rounds=[["One"], ["Two"]])
    assert told["requests"][1]["body"] == {"messages": turns("One", "Hi", "Two"), "usage": True}
    assert said(told) == turns("One", "Hi", "Two", " you")


def test_a_conversation_tells_each_state(node: Node) -> None:
    states = node("converse", responses=[play(HI + DONE)], rounds=[["One"]])["states"]
    told = [(state["output"], state["isStreaming"], state["ending"], state["error"]) for state in states]
    assert (told[0], told[-1]) == (("", True, None, None), ("Hi", False, "complete", None))


def test_of_two_questions_in_one_go_only_the_last_is_sent(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE)], rounds=[["One", "Two"]])
    assert [request["method"] for request in told["requests"]] == ["POST"]
    assert said(told) == turns("Two", "Hi")


def test_an_id_among_the_options_of_a_conversation_names_none_of_its_answers(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE), play(YOU + DONE)], rounds=[["One"], ["Two"]], id="i" * 16)
    first, second = (request["headers"]["x-run-id"] for request in told["requests"])
    assert len({first, second, "i" * 16}) == 3


def test_a_question_that_got_no_answer_is_replaced_by_the_next(node: Node) -> None:
    told = node("converse", responses=[play(status=400), play(HI + DONE)], rounds=[["Bad"], ["Good"]])
    assert told["requests"][1]["body"]["messages"] == turns("Good")
    assert told["error"] is None


BUSY = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


def ended(text: str, reason: str) -> dict[str, Any]:
    """An answer in the text dialect, with its stop reason."""
    end = json.dumps({"usage": {"output_tokens": 1}, "stop_reason": reason})
    return play(f"data: {json.dumps({'text': text})}\n\ndata: {end}\n\n{DONE}")


@pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "refusal", "model_context_window_exceeded", "pause_turn"])
@pytest.mark.parametrize("text", ["Let me see what I can", "", " \n"])
def test_a_conversation_says_why_the_model_ended_its_answer(node: Node, reason: str, text: str) -> None:
    told = node("converse", responses=[ended(text, reason)], rounds=[["One"]])
    assert (told["stopReason"], told["ending"], told["error"]) == (reason, "complete", None)
    # "text content blocks must contain non-whitespace text" (the API's 400)
    answer = {
        "role": "assistant",
        "content": text.strip() and text,
        "stopReason": reason,
        "ending": "complete",
        "usage": {"output_tokens": 1},
        "error": None,
    }
    assert told["messages"][1:] == [answer] == kept_by(told)["messages"][1:]


def test_each_answer_of_a_conversation_keeps_why_it_ended(node: Node) -> None:
    told = node("converse", responses=[ended("Cut", "max_tokens"), ended("Whole", "end_turn")], rounds=[["1"], ["2"]])
    assert [turn.get("stopReason") for turn in told["messages"]] == [None, "max_tokens", None, "end_turn"]
    assert bodies(told)[1] == turns("1", "Cut", "2")


# "You can remove or rephrase the turn that triggered the refusal […]. Attempting to continue without resetting will result in
# continued refusals." (platform.claude.com, Handle streaming refusals)
@pytest.mark.parametrize("text", ["Let me see what I can", ""])
def test_a_question_that_the_model_refused_is_replaced_by_the_next_with_its_answer(node: Node, text: str) -> None:
    answers = [ended("Hi", "end_turn"), ended(text, "refusal"), ended("Yes", "end_turn")]
    told = node("converse", responses=answers, rounds=[["One"], ["Bad"], ["Good"]])
    assert bodies(told)[2] == turns("One", "Hi", "Good")
    assert said(told) == turns("One", "Hi", "Good", "Yes")


def in_words(headline: str, advice: str, **facts: Any) -> dict[str, Any]:
    """The error of an answer in `messages`."""
    return {
        "headline": headline,
        "advice": advice,
        "detail": None,
        "type": None,
        "ending": None,
        "retryAt": None,
        **facts,
    }


def test_an_answer_that_was_cut_says_so_and_keeps_how_the_stream_ended(node: Node) -> None:
    body = {"error": {"type": "api_error", "message": "closed"}, "ending": {"kind": "truncated", "phase": "content"}}
    failed = play(HI + f"event: error\ndata: {json.dumps(body)}\n\n" + DONE)
    told = node("converse", responses=[failed], rounds=[["One"]])
    headline = "The answer was cut off. The API or the server failed."
    facts = {"detail": "closed", "type": "api_error", "ending": "truncated"}
    assert kept_by(told)["messages"][1]["error"] == in_words(headline, "Try again.", **facts)


def test_an_answer_keeps_the_time_of_the_next_try_and_not_how_long_it_was_away(node: Node) -> None:
    head = {"content-type": "application/json", "retry-after": "4440"}
    before = int(time.time() * 1000)  # as `Date.now`
    told = node("converse", responses=[play("{}", status=429, headers=head)], rounds=[["One"]])
    error = kept_by(told)["messages"][1]["error"]
    assert before <= error["retryAt"] - 4_440_000 <= time.time() * 1000
    assert error["advice"].startswith("Try again after ")
    assert "minutes" not in error["advice"]
    assert told["error"]["advice"] == "Try again in 74 minutes."


def test_each_answer_of_a_conversation_keeps_its_tokens(node: Node) -> None:
    answers = [ended("Hi", "end_turn"), play(HI + DONE)]
    told = node("converse", responses=answers, rounds=[["One"], ["Two"]])
    kept = kept_by(told)["messages"]
    assert [turn.get("usage") for turn in kept if turn["role"] == "assistant"] == [{"output_tokens": 1}, None]
    assert bodies(told)[1] == turns("One", "Hi", "Two")


def test_of_a_message_its_role_and_content_are_sent_and_nothing_else(node: Node) -> None:
    before = [{**turn, "id": 7} for turn in turns("One", "Yes")]
    told = node("converse", responses=[play(HI + DONE)], messages=before, rounds=[["Two"]])
    assert bodies(told) == [turns("One", "Yes", "Two")]


def test_an_error_is_a_state_and_keeps_what_came(node: Node) -> None:
    told = node("converse", responses=[play(HI, headers=BARE)], rounds=[["One"]])
    assert (told["error"]["type"], said(told)) == ("truncated", turns("One", "Hi"))
    assert (told["output"], told["isStreaming"], told["ending"]) == ("Hi", False, "failed")
    assert told["messages"][1]["ending"] == "failed"
    headline = "The connection was lost before the answer was complete."
    assert kept_by(told)["messages"][1]["error"] == in_words(headline, "Try again.", type="truncated")


def test_an_answer_without_a_word_says_why_also_after_a_reload_and_is_not_sent(node: Node) -> None:
    told = node("converse", responses=[play(BUSY, status=529)], rounds=[["One"]])
    words = ("The API is overloaded.", "Wait a moment, then try again.")
    error = in_words(*words, detail="Overloaded", type="overloaded_error")
    answer = {"role": "assistant", "content": "", "stopReason": None, "ending": "failed", "usage": None}
    assert told["messages"] == [*turns("One"), {**answer, "error": error}]
    again = node("converse", responses=[play(HI + DONE)], resumes=[None], kept=told["kept"], rounds=[["Two"]])
    assert again["states"][0]["messages"] == told["messages"]
    assert bodies(again) == [turns("Two")]


def test_an_answer_that_was_stopped_before_its_first_word_says_so(node: Node) -> None:
    told = node("converse", responses=[play(end="hang")], rounds=[["One"]], stopAfter="")
    assert [(turn["content"], turn.get("ending")) for turn in told["messages"]] == [("One", None), ("", "stopped")]


def test_an_answer_that_another_tab_stopped_says_so(node: Node) -> None:
    told = node("converse", responses=[play(HI + cancelled(STOPPED.message, "text"))], rounds=[["One"]])
    assert (told["messages"][1]["ending"], told["error"], said(told)) == ("stopped", None, turns("One", "Hi"))


def test_an_answer_without_a_word_in_the_midst_of_a_conversation_is_not_sent(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE)], messages=turns("One", "", "Two", "Yes"), rounds=[["Three"]])
    assert [turn["content"] for turn in bodies(told)[0]] == ["One", "Two", "Yes", "Three"]


def test_a_fault_of_the_caller_is_an_error_and_not_a_stop(node: Node) -> None:
    told = node("converse", responses=[], rounds=[["One"]], headers={"not a name": "x"})
    assert (told["error"]["name"], told["ending"], told["messages"][1]["ending"]) == ("TypeError", "failed", "failed")
    assert told["messages"][1]["error"] == in_words(told["error"]["message"], "")


def do(name: str) -> dict[str, str]:
    """Something to do with a conversation, in place of a question."""
    return {"do": name}


@pytest.mark.parametrize(
    "failed", [play("{}", status=529), play(HI, headers=BARE), ended("Let me", "refusal"), ended("Cut", "max_tokens")]
)
def test_the_last_question_is_asked_again_and_its_answer_replaced(node: Node, failed: Any) -> None:
    answers = [ended("Hi", "end_turn"), failed, ended("Yes", "end_turn")]
    told = node("converse", responses=answers, rounds=[["One"], ["Two"], [do("retry")]])
    assert bodies(told)[1] == bodies(told)[2] == turns("One", "Hi", "Two")
    assert (said(told), told["error"]) == (turns("One", "Hi", "Two", "Yes"), None)
    assert len({request["headers"]["x-run-id"] for request in told["requests"]}) == 3  # another answer, not the same


def test_the_last_question_is_asked_again_after_a_reload(node: Node) -> None:
    kept = node("converse", responses=[play("{}", status=529)], rounds=[["One"]])["kept"]
    told = node("converse", responses=[play(HI + DONE)], resumes=[None], kept=kept, rounds=[[do("retry")]])
    assert (bodies(told), said(told)) == ([turns("One")], turns("One", "Hi"))


def test_a_running_answer_whose_question_is_asked_again_is_stopped(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE)], rounds=[["One", do("retry")]])
    assert (methods(told), said(told)) == (["POST"], turns("One", "Hi"))


def test_where_nothing_was_asked_nothing_is_asked_again(node: Node) -> None:
    told = node("converse", responses=[], messages=[{"role": "assistant", "content": "Hello!"}], rounds=[[do("retry")]])
    assert told["requests"] == []


def test_a_new_conversation_begins_with_nothing_in_the_storage_too(node: Node) -> None:
    answers = [play("{}", status=529), play(HI + DONE)]
    told = node("converse", responses=answers, rounds=[["One"], [do("clear")], ["Two"]])
    cleared = next(state for state in told["states"][1:] if not state["messages"])
    assert (cleared["error"], cleared["ending"], cleared["output"]) == (None, None, "")
    assert kept_by(cleared) == {"messages": [], "id": None}
    assert (bodies(told)[1], said(told)) == (turns("Two"), turns("Two", "Hi"))


def test_a_new_conversation_stops_the_running_answer(node: Node) -> None:
    told = node("converse", responses=[play(HI, end="hang")], rounds=[["One"]], stopAfter="Hi", by="clear")
    assert (methods(told), told["messages"], told["isStreaming"]) == (["POST", "DELETE"], [], False)
    assert kept_by(told) == {"messages": [], "id": None}


@pytest.mark.parametrize("by", ["stop", "signal"])
def test_stopping_a_conversation_is_no_error_and_keeps_what_came(node: Node, by: str) -> None:
    told = node("converse", responses=[play(HI, end="hang")], rounds=[["One"]], stopAfter="Hi", by=by)
    assert (told["error"], said(told)) == (None, turns("One", "Hi"))
    assert told["messages"][1]["ending"] == "stopped"
    assert [request["method"] for request in told["requests"]] == ["POST", "DELETE"]


def test_the_usage_of_an_answer_is_in_the_state(node: Node) -> None:
    told = node("converse", responses=[play(events(*api_answer("Hi")))], rounds=[["One"]])
    assert told["usage"]["output_tokens"] == 7


def test_from_a_lost_connection_to_the_head_of_the_next_response_a_conversation_is_reconnecting(node: Node) -> None:
    answers = [play(HI), play("{}", status=503), play(YOU + DONE)]
    states = node("converse", responses=answers, rounds=[["One"]])["states"]
    told = [state["isReconnecting"] for state in states if state["isStreaming"]]
    assert [now for was, now in itertools.pairwise([None, *told]) if now is not was] == [False, True, False]
    assert states[-1]["isReconnecting"] is False


def test_a_conversation_that_is_stopped_while_it_reconnects_is_not_reconnecting(node: Node) -> None:
    told = node("converse", responses=[play(HI)], rounds=[["One"]], waits=[60_000], stopAfter="Hi")
    assert (told["isReconnecting"], told["isStreaming"]) == (False, False)


# --- Over a reload ---------------------------------------------------------------------------------------------------


def test_the_id_of_a_running_answer_is_in_the_state_until_its_end(node: Node) -> None:
    told = node("converse", responses=[play(HI, end="hang")], rounds=[["One"]], stopAfter="Hi")
    ids = [state["id"] for state in told["states"] if state["isStreaming"]]
    assert (ids[0], ids[-1], told["id"]) == (told["requests"][0]["headers"]["x-run-id"], "r/1", None)


@pytest.mark.parametrize("before", [turns("One"), turns("One", "H")])
def test_an_answer_goes_on_by_its_id_and_nothing_is_sent(node: Node, before: Any) -> None:
    told = node("converse", responses=[play(HI + YOU + DONE)], resumes=["r/1"], messages=before)
    assert [(request["method"], request["url"]) for request in told["requests"]] == [
        ("GET", "http://relay.test/runs/r%2F1")
    ]
    assert (said(told), told["ending"]) == (turns("One", "Hi you"), "complete")


def test_an_answer_that_goes_on_twice_in_one_go_is_read_once_and_not_stopped(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE)], resumes=["r/1", "r/1"], messages=turns("One"))
    assert methods(told) == ["GET"]


def test_an_answer_that_went_on_is_stopped_on_the_server(node: Node) -> None:
    told = node("converse", responses=[play(HI, end="hang")], resumes=["r/1"], messages=turns("One"), stopAfter="Hi")
    assert (methods(told), told["messages"][1]["ending"]) == (["GET", "DELETE"], "stopped")


def kept_by(told: Any) -> Any:
    return json.loads(told["kept"]["rawsse.chat"])


def test_a_storage_keeps_the_conversation_and_the_id_of_the_running_answer(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE)], rounds=[["One"]])
    first = next(state for state in told["states"] if state["id"])
    assert kept_by(first) == {"messages": turns("One"), "id": first["id"]}
    assert kept_by(told) == {"messages": told["messages"], "id": None}


def test_a_conversation_goes_on_from_its_storage_with_the_running_answer(node: Node) -> None:
    kept = {"mine": json.dumps({"messages": turns("One", "Hi", "Two"), "id": "r/1"})}
    told = node(
        "converse", responses=[play(HI + DONE)], resumes=[None, None], kept=kept, key="mine", rounds=[["Three"]]
    )
    assert methods(told)[:2] == ["GET", "POST"]
    assert bodies(told) == [turns("One", "Hi", "Two", "Hi", "Three")]


def test_a_conversation_whose_last_answer_had_ended_goes_on_without_a_request(node: Node) -> None:
    kept = {"rawsse.chat": json.dumps({"messages": turns("One", "Hi"), "id": None})}
    told = node("converse", responses=[], resumes=[None], kept=kept)
    assert (told["requests"], said(told), told["isStreaming"]) == ([], turns("One", "Hi"), False)


def test_an_answer_that_the_relay_no_longer_has_is_an_error_and_its_question_stays(node: Node) -> None:
    kept = {"rawsse.chat": json.dumps({"messages": turns("One"), "id": "r/1"})}
    told = node("converse", responses=[], resumes=[None], kept=kept)
    assert (told["error"]["type"], said(told), told["id"]) == ("forgotten", turns("One"), None)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"messages": 3, "id": "r/1"}'])
def test_what_another_program_wrote_into_the_storage_is_not_taken(node: Node, text: str) -> None:
    told = node("converse", responses=[play(HI + DONE)], resumes=[None], kept={"rawsse.chat": text}, rounds=[["One"]])
    assert (methods(told), said(told)) == (["POST"], turns("One", "Hi"))


def test_a_storage_without_room_keeps_nothing_and_the_conversation_goes_on(node: Node) -> None:
    told = node("converse", responses=[play(HI + DONE)], rounds=[["One"]], room=10, kept={"rawsse.chat": "old"})
    assert (told["kept"], said(told)) == ({}, turns("One", "Hi"))


# --- Thinking ----------------------------------------------------------------------------------------------------------


def thoughts(*texts: str) -> list[dict[str, Any]]:
    """The events of a block of thinking."""
    begun = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    deltas = [{"type": "thinking_delta", "thinking": text} for text in texts]
    return [begun, *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas)]


def thoughtful(*said: str) -> dict[str, Any]:
    """An answer that thought, and said this."""
    return play(events(*thoughts("H", "m"), *thoughts("Yes"), *api_answer(*said)))


def test_each_answer_keeps_its_thinking_and_none_is_sent(node: Node) -> None:
    told = node("converse", responses=[thoughtful("1st"), play(events(*api_answer("2nd")))], rounds=[["One"], ["Two"]])
    assert [turn.get("thinking") for turn in told["messages"]] == [None, "Hm\n\nYes", None, None]
    assert kept_by(told)["messages"] == told["messages"]
    assert bodies(told)[1] == turns("One", "1st", "Two")
    again = node("converse", responses=[thoughtful("3rd")], resumes=[None], kept=told["kept"], rounds=[["Three"]])
    assert [turn.get("thinking") for turn in again["messages"]][1::2] == ["Hm\n\nYes", None, "Hm\n\nYes"]
    assert bodies(again) == [turns("One", "1st", "Two", "2nd", "Three")]


def test_an_answer_that_only_thought_shows_it_and_is_not_sent(node: Node) -> None:
    cut = play(events(*thoughts("Hm"), {"type": "error", "error": {"type": "api_error", "message": "no"}}))
    told = node("converse", responses=[cut], rounds=[["One"]], paintMs=30)
    answer = told["messages"][1]
    assert (answer["content"], answer["thinking"], answer["error"]["detail"]) == ("", "Hm", "no")
    assert (told["error"]["detail"], told["isStreaming"]) == ("no", False)
    again = node("converse", responses=[play(HI + DONE)], resumes=[None], kept=told["kept"], rounds=[["Two"]])
    assert bodies(again) == [turns("Two")]


def test_a_conversation_that_was_cleared_has_no_thinking(node: Node) -> None:
    told = node("converse", responses=[thoughtful("Hi")], rounds=[["One"], [do("clear")]])
    assert told["messages"] == []


def test_a_storage_without_room_for_the_thinking_keeps_the_rest(node: Node) -> None:
    answers = [play(events(*thoughts("m" * 500), *api_answer("Hi")))]
    told = node("converse", responses=answers, rounds=[["One"]], room=500)
    assert told["messages"][1]["thinking"] == "m" * 500
    kept = kept_by(told)["messages"]
    assert (said({"messages": kept}), "thinking" in kept[1]) == (turns("One", "Hi"), False)
