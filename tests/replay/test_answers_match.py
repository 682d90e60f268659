"""rawsse.replay.answers: which recording answers, and what is said if none does."""

from __future__ import annotations

import re
import traceback
from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import Match, Miss, Read, RecordedRequest, Recording, shipped_fixtures
from rawsse.replay.answers import MAX_SHOWN_DIFFERENCES, asked_key, finder

FIXTURES = shipped_fixtures()
KEY = "sk-ant-api03-" + "abcDEF0123456789" * 5


def asking(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": text}], **fields}


def recording(name: str, body: Any = None, status: int = 200, kind: str = "text/event-stream") -> Recording:
    request = RecordedRequest("POST", "/v1/messages", {}, asking() if body is None else body)
    return Recording(request, status, {"content-type": kind}, (Read(0.0, name.encode()),), name=name)


class Found:
    """The names of what is found for one request after the other; a miss by its words."""

    def __init__(self, match: Match, *recordings: Recording) -> None:
        self._find = finder(recordings, match)

    def __call__(self, body: Any = None, path: str = "/v1/messages") -> str:
        found = self.find(body, path)
        return found.message if isinstance(found, Miss) else found.name

    def find(self, body: Any = None, path: str = "/v1/messages") -> Recording | Miss:
        return self._find(RecordedRequest("POST", path, {}, asking() if body is None else body))


# --- Turns and sequences ---


def test_they_take_turns_for_ever_whatever_is_asked() -> None:
    found = Found("turns", recording("a"), recording("b"))
    assert [found(asking(text)) for text in ("x", "x", "y", "z")] == ["a", "b", "a", "b"]


def test_in_a_sequence_each_is_played_once() -> None:
    found = Found("sequence", recording("a"), recording("b"))
    assert [found(), found()] == ["a", "b"]
    assert found() == "this is request 3 of a sequence of 2 recordings: all have been played"
    assert found() == "this is request 4 of a sequence of 2 recordings: all have been played"


# --- By request ---


def test_what_is_asked_finds_its_recording_in_any_order() -> None:
    found = Found("request", recording("a", asking("a")), recording("b", asking("b")))
    assert [found(asking(text)) for text in "bab"] == ["b", "a", "b"]


def test_the_way_a_client_writes_it_does_not_matter() -> None:
    found = Found("request", recording("a", asking("a", stream=True, metadata={"user_id": "1"})))
    blocks = [{"text": "a", "type": "text", "citations": None}]
    assert found({"messages": [{"content": blocks, "role": "user"}], "max_tokens": 9.0, "model": "m"}) == "a"


def test_equal_ones_are_played_in_order_and_the_last_from_then_on() -> None:
    found = Found("request", recording("refused", status=529, kind="application/json"), recording("answered"))
    assert [found(asking(stream=True)) for _ in range(3)] == ["refused", "answered", "answered"]


def test_a_stream_goes_to_who_asks_for_one() -> None:
    found = Found("request", recording("whole", kind="application/json"), recording("stream"))
    assert [found(asking(stream=stream)) for stream in (True, False, True)] == ["stream", "whole", "stream"]


def test_what_was_recorded_in_the_other_form_is_better_than_nothing() -> None:
    assert Found("request", recording("whole", kind="application/json"))(asking(stream=True)) == "whole"


def test_a_secret_that_the_recording_hides_may_be_asked_as_it_is() -> None:
    hidden = "sk-ant-api03-" + "*" * 80
    assert Found("request", recording("a", asking(hidden)))(asking(KEY)) == "a"


def test_every_shipped_recording_is_found_by_its_request() -> None:
    found = Found("request", *FIXTURES.values())
    for shipped in FIXTURES.values():
        assert shipped.request is not None
        assert found(shipped.request.body) == shipped.name


def test_a_miss_names_the_nearest_and_where_it_differs() -> None:
    found = Found("request", recording("b.sse", asking("Build a bridge.")), recording("w.sse", asking("What is SSE?")))
    assert found(asking("What was SSE?", tools=[{"name": "a"}])) == (
        "no recording matches this request. Nearest of 2: w.sse. It differs at "
        'messages[0].content[0].text: recorded "What is SSE?", asked "What was SSE?"; tools: not recorded, '
        'asked [{"name": "a"}]'
    )


def test_a_miss_knows_request_recording_and_differences() -> None:
    nearest = recording("a", asking("a"))
    miss = Found("request", nearest).find(asking("b"))
    assert isinstance(miss, Miss)
    assert (miss.nearest, miss.request.body) == (nearest, asking("b"))
    assert [difference.path for difference in miss.differences] == ["messages[0].content[0].text"]


def test_the_turn_of_a_conversation_that_is_asked_is_the_nearest() -> None:
    def turn(answer: str) -> dict[str, Any]:
        said = [{"role": "assistant", "content": "And?"}, {"role": "user", "content": answer}]
        return asking() | {"messages": [*asking()["messages"], *said]}

    words = Found("request", recording("first"), recording("second", turn("rain")))(turn("sun"))
    assert "Nearest of 2: second. It differs at messages[2].content[0].text:" in words


def test_a_miss_is_said_shortly_however_much_differs() -> None:
    fields = {f"field_{number}": "x" * 1000 for number in range(100)}
    words = Found("request", recording("a"))(asking(**fields))
    assert words.endswith(f"; and {100 - MAX_SHOWN_DIFFERENCES} more")
    assert len(words) < 1000


def test_a_miss_shows_no_secret() -> None:
    servers = [{"type": "url", "name": "n", "url": "https://h", "authorization_token": "token-of-the-caller"}]
    words = Found("request", recording("a"))(asking(f"{KEY} is my key", mcp_servers=servers))
    assert "abcDEF" not in words
    assert "token-of-the-caller" not in words


def test_a_recording_that_does_not_say_what_was_asked_cannot_be_matched_by_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Found("request", recording("a"), Recording.from_sse(b"data: x\n\n", name="bare.sse"))
    assert str(caught.value) == "bare.sse: this answer has no request: give it one with turns(request, answer)"


@pytest.mark.parametrize("match", ["turns", "request"])
def test_where_there_is_nothing_nothing_is_found(match: Match) -> None:
    assert Found(match)() == "there is no recording of an answer to this kind of request"


# --- By a function of your own ---


def test_a_function_says_what_counts() -> None:
    def last(body: Any) -> Any:
        return body["messages"][-1]["content"]

    found = Found(last, recording("a", asking("a", system="Monday")), recording("b", asking("b")))
    assert [found(asking("b")), found(asking("a", system="Tuesday"))] == ["b", "a"]
    assert found(asking("c")).endswith('It differs at the whole: recorded "a", asked "c"')


def test_what_a_function_gives_need_not_be_json() -> None:
    found = Found(lambda body: {"a", *()} if body["model"] == "m" else body["model"], recording("a"))
    assert found() == "a"


def test_a_function_that_fails_for_a_recording_names_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Found(lambda body: body["system"], recording("a", asking(system="s")), recording("b"))
    said = (
        r"the match function failed for the request of b: KeyError\('system'\) \(line \d+ of test_answers_match\.py\)"
    )
    assert re.fullmatch(said, str(caught.value))


def test_a_function_that_fails_does_not_show_a_key_of_the_request() -> None:
    key = "sk-ant-api03-AbCdEf0123456789_xYzQQ"

    def quoting(body: Any) -> Any:
        raise ValueError(f"odd: {body['system']}")

    with pytest.raises(ConfigurationError, match=r"ValueError\('odd: sk-ant-api03-\*+'\)") as caught:
        Found(quoting, recording("a", asking(system=key)))
    assert key not in "".join(traceback.format_exception(caught.value))


# --- By name ---

NAMED = (recording("fixtures/a.sse.jsonl"), recording("fixtures/b.sse"), recording("other/deep/b.sse.jsonl"))


@pytest.mark.parametrize("path", ["/a/v1/messages", "/any/prefix/a/v1/messages?beta=/v1/"])
def test_a_base_url_names_the_recording_at_its_end(path: str) -> None:
    assert Found("name", *NAMED)(path=path) == "fixtures/a.sse.jsonl"


def test_those_of_one_name_are_played_in_order() -> None:
    found = Found("name", *NAMED)
    assert [found(path="/b/v1/messages") for _ in range(3)] == ["fixtures/b.sse", *["other/deep/b.sse.jsonl"] * 2]


def test_a_name_that_none_has_is_told_those_that_there_are() -> None:
    assert Found("name", *NAMED)(path="/c/v1/messages") == "no recording has the name 'c'. There are: a, b"


def test_no_name_at_all_is_told_how_to_give_one() -> None:
    assert Found("name", *NAMED)() == ("the base URL names no recording at its end. There are: a, b")


def test_the_list_of_names_is_bounded() -> None:
    words = Found("name", *(recording(f"{number:04}.sse") for number in range(100)))()
    assert words.endswith("There are: 0000, " + ", ".join(f"{number:04}" for number in range(1, 20)) + ", …")


# --- Around ---


def test_another_way_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        finder([], "first")  # type: ignore[arg-type]
    assert str(caught.value) == "match must be a function, or one of turns, sequence, request, name"


def test_bodies_that_ask_the_same_have_the_same_key() -> None:
    assert asked_key(asking(stream=True)) == asked_key(asking())
    assert asked_key(asking("a")) != asked_key(asking("b"))
