"""rawsse.replay.compose: a conversation becomes recordings, each with the request that it answers."""

from __future__ import annotations

from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import (
    RecordedRequest,
    Recording,
    ToolResults,
    answer,
    recording_of,
    shipped_fixtures,
    tool_use,
    turns,
)

FIXTURES = shipped_fixtures()
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Umbrella?"}]}


def messages(recording: Recording) -> Any:
    assert recording.request is not None
    return recording.request.body["messages"]


def content(name: str) -> Any:
    reply = FIXTURES[name].message()
    assert reply is not None
    return reply["content"]


def test_the_first_answer_gets_the_request() -> None:
    (recording,) = turns(ASK, FIXTURES["plain"])
    assert recording.request == RecordedRequest("POST", "/v1/messages", {}, ASK)
    assert (recording.reads, recording.name) == (FIXTURES["plain"].reads, FIXTURES["plain"].name)


def test_each_further_answer_gets_all_that_was_said_before() -> None:
    first, second, third = turns(ASK, FIXTURES["plain"], "Really?", FIXTURES["unicode"], "Sure?", FIXTURES["plain"])
    said = [
        {"role": "user", "content": "Umbrella?"},
        {"role": "assistant", "content": content("plain")},
        {"role": "user", "content": "Really?"},
        {"role": "assistant", "content": content("unicode")},
        {"role": "user", "content": "Sure?"},
    ]
    assert [messages(recording) for recording in (first, second, third)] == [said[:1], said[:3], said]


def test_results_of_tools_answer_the_calls_in_their_order() -> None:
    calls = [block["id"] for block in content("parallel-tools") if block["type"] == "tool_use"]
    results = ToolResults(*(f"result {number}" for number in range(len(calls))))
    _, second = turns(ASK, FIXTURES["parallel-tools"], results, FIXTURES["plain"])
    sent = messages(second)[-1]["content"]
    assert len(calls) == 4
    assert [block["tool_use_id"] for block in sent] == calls
    assert [block["content"] for block in sent] == ["result 0", "result 1", "result 2", "result 3"]
    assert sent[0] == {"type": "tool_result", "tool_use_id": calls[0], "content": "result 0"}


def test_a_refusal_before_an_answer_has_the_same_request() -> None:
    refused = Recording(status=529)
    recordings = turns(ASK, refused, FIXTURES["plain"])
    assert [messages(recording) for recording in recordings] == [ASK["messages"]] * 2


def test_an_answer_may_be_a_message() -> None:
    called, said = answer(tool_use("get_weather", {"city": "Oslo"})), answer("Rain.")
    first, second, third = turns(ASK, called, ToolResults("Rain"), said.raw, "Really?", FIXTURES["plain"])
    assert (first.reads, second.reads) == (recording_of(called).reads, recording_of(said).reads)
    assert [first.name, second.name, third.name] == ["answer 1", "answer 2", "plain"]
    assert messages(second)[1] == {"role": "assistant", "content": called.raw["content"]}
    assert messages(third)[3] == {"role": "assistant", "content": [{"type": "text", "text": "Rain."}]}


@pytest.mark.parametrize("request_body", [{}, {"model": "m"}, {"messages": []}, {"messages": "Hi"}])
def test_a_request_without_messages_is_refused(request_body: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        turns(request_body, FIXTURES["plain"])
    assert str(caught.value) == "the request has no messages: a list with the first question, as the API takes it"


def test_a_conversation_begins_with_a_request() -> None:
    with pytest.raises(ConfigurationError) as caught:
        turns("Umbrella?")  # type: ignore[arg-type]
    assert str(caught.value) == "the first argument is the body of the first request, not \"'Umbrella?'\""


def test_the_given_request_stays_as_it_is() -> None:
    turns(ASK, FIXTURES["plain"], "Really?", FIXTURES["plain"])
    assert ASK["messages"] == [{"role": "user", "content": "Umbrella?"}]


@pytest.mark.parametrize(
    ("conversation", "words"),
    [
        (["Hi"], "the conversation must begin with an answer: the first question is in the request"),
        ([FIXTURES["cut"], "Go on"], "cut has no whole message: nothing can come after it"),
        ([FIXTURES["tools"], ToolResults()], "the answer calls 1 tools, and there are 0 results"),
    ],
)
def test_a_conversation_that_cannot_be_is_refused(conversation: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        turns(ASK, *conversation)
    assert str(caught.value) == words
