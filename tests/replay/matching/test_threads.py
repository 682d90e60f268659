"""rawsse.replay.matching.threads: what is kept of a conversation, who may go on with it, and how often."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rawsse.replay import Read, RecordedRequest, Recording
from rawsse.replay.matching.threads import Refusal, Threads, whole_requests

ASK = {"role": "user", "content": "Ask"}
MORE = {"role": "user", "content": "More"}
REPLY = {"role": "assistant", "content": "Reply"}


def creating(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [ASK], "thread": {"type": "create"}, **fields}


def going_on(previous: Any = "msg_1", *messages: Any, **fields: Any) -> dict[str, Any]:
    thread = {"type": "continue", "previous_message_id": previous}
    return {"model": "m", "messages": list(messages or [MORE]), "thread": thread, **fields}


def started(**fields: Any) -> Threads:
    """Threads with one reply that may be continued."""
    threads = Threads()
    threads.keep("msg_1", opened(threads, creating(**fields)), "Reply")
    return threads


def opened(threads: Threads, body: Any) -> dict[str, Any]:
    whole = threads.opened(body)
    assert not isinstance(whole, Refusal), whole
    return whole


def refusal(threads: Threads, body: Any) -> tuple[int, str | None, str]:
    found = threads.opened(body)
    assert isinstance(found, Refusal)
    return found.status, found.error_code, found.message


def recorded(body: Any, id: str | None = None) -> Recording:
    reply = json.dumps({"type": "message", "id": id, "content": "Reply"}).encode()
    request = RecordedRequest("POST", "/v1/messages", {}, body)
    return Recording(request, headers={"content-type": "application/json"}, reads=(Read(0.0, reply),))


def test_a_request_that_creates_a_thread_is_whole_already() -> None:
    assert opened(Threads(), creating(system="s")) == {"model": "m", "messages": [ASK], "system": "s"}


def test_one_that_continues_gets_the_history_and_what_the_thread_holds() -> None:
    whole = opened(started(system="s", tools=[]), going_on(max_tokens=5))
    assert whole == {"model": "m", "max_tokens": 5, "messages": [ASK, REPLY, MORE], "system": "s", "tools": []}


def test_it_goes_on_for_any_number_of_turns() -> None:
    threads = started(system="s")
    threads.keep("msg_2", opened(threads, going_on()), "Reply", continued="msg_1")
    whole = opened(threads, going_on("msg_2", ASK))
    assert (whole["messages"], whole["system"]) == ([ASK, REPLY, MORE, REPLY, ASK], "s")


def test_an_unfinished_turn_is_continued_with_no_messages() -> None:
    assert opened(started(), going_on() | {"messages": []})["messages"] == [ASK, REPLY]


def test_what_nobody_has_replied_cannot_be_continued() -> None:
    words = "thread.previous_message_id: no thread is known for 'msg_9'"
    assert refusal(started(), going_on("msg_9")) == (404, "thread_not_found", words)


def test_a_reply_is_continued_once() -> None:
    threads = started()
    threads.keep("msg_2", opened(threads, going_on()), "Reply", continued="msg_1")
    words = "thread.previous_message_id: 'msg_1' has already been continued"
    assert refusal(threads, going_on("msg_1")) == (400, "thread_already_continued", words)


def test_a_continuation_that_got_no_reply_may_be_tried_again() -> None:
    threads = started()
    assert opened(threads, going_on()) == opened(threads, going_on())


@pytest.mark.parametrize("name", ["system", "tools"])
def test_what_the_thread_holds_must_not_be_given_again(name: str) -> None:
    words = f"{name}: must not be given with thread.type 'continue': the thread holds it"
    assert refusal(started(), going_on(**{name: []})) == (400, None, words)
    assert opened(started(), going_on(**{name: None}))["messages"] == [ASK, REPLY, MORE]


@pytest.mark.parametrize(
    ("thread", "words"),
    [
        ("create", "thread.type: must be 'create' or 'continue'"),
        ({}, "thread.type: must be 'create' or 'continue'"),
        ({"type": ["create"]}, "thread.type: must be 'create' or 'continue'"),
        ({"type": "continue"}, "thread.previous_message_id: must be a string"),
        ({"type": "continue", "previous_message_id": ["msg_1"]}, "thread.previous_message_id: must be a string"),
    ],
)
def test_a_wrong_thread_is_named(thread: Any, words: str) -> None:
    assert refusal(started(), creating() | {"thread": thread}) == (400, None, words)


def test_only_so_many_replies_are_kept() -> None:
    threads = Threads(max_kept_replies=2)
    for number in range(3):
        threads.keep(f"msg_{number}", {"messages": []}, "Reply")
    assert refusal(threads, going_on("msg_0"))[1] == "thread_not_found"
    assert opened(threads, going_on("msg_1"))["messages"] == [REPLY | {"content": "Reply"}, MORE]


def test_each_play_of_a_reply_has_an_id_of_its_own() -> None:
    threads = Threads()
    ids = [threads.fresh_id(id) for id in ("msg_1", "msg_1", "msg_2", "msg_1")]
    assert ids == ["msg_1", "msg_1_2", "msg_2", "msg_1_3"]


def test_a_recording_is_kept_under_the_id_that_it_is_played_with() -> None:
    threads, recording = Threads(), recorded(None, "msg_1")
    bodies = [threads.kept(recording, creating(), opened(threads, creating())).body for _ in range(2)]
    assert [json.loads(body)["id"] for body in bodies] == ["msg_1", "msg_1_2"]
    assert opened(threads, going_on("msg_1_2"))["messages"] == [ASK, REPLY, MORE]


def test_what_is_no_reply_continues_nothing() -> None:
    threads, recording = started(), Recording(status=529)
    assert threads.kept(recording, going_on(), opened(threads, going_on())) is recording
    assert opened(threads, going_on())["messages"] == [ASK, REPLY, MORE]


def test_a_reply_without_an_id_can_be_played_and_not_continued() -> None:
    threads, recording = Threads(), recorded(None)
    assert threads.kept(recording, creating(), opened(threads, creating())) is recording


# --- Recorded threads ---


def test_the_recorded_turns_of_a_thread_get_their_whole_history() -> None:
    turns = [
        recorded(creating(system="s"), "msg_1"),
        recorded(going_on(), "msg_2"),
        recorded(going_on("msg_2"), "msg_3"),
    ]
    bodies = whole_requests(turns)
    assert [len(body["messages"]) for body in bodies] == [1, 3, 5]
    assert [body["system"] for body in bodies] == ["s", "s", "s"]


def test_a_turn_recorded_twice_is_whole_both_times() -> None:
    turns = [recorded(creating(), "msg_1"), recorded(going_on(), "msg_2"), recorded(going_on(), "msg_3")]
    assert [len(body["messages"]) for body in whole_requests(turns)] == [1, 3, 3]


@pytest.mark.parametrize(
    "body", [None, "x", {}, {"thread": {"type": "create"}}, going_on("msg_9"), {"messages": [ASK]}]
)
def test_other_bodies_stay_as_they_are(body: Any) -> None:
    assert whole_requests([recorded(body, "msg_1")]) == [body]


def test_a_recording_without_a_request_has_no_body() -> None:
    assert whole_requests([Recording()]) == [None]
