"""rawsse.replay.fixture: what a test holds in its hand, without any test runner."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rawsse import AsyncClient
from rawsse.errors import ConfigurationError, RecordingError
from rawsse.replay import Recording, ScrubPolicy, answer, recording_of, turns
from rawsse.replay.fixture import Replay
from rawsse.replay.variants import pace_by
from rawsse.replay.virtual_clock import VirtualClock

QUESTION: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "Hi"}],
}


def ask(replay: Replay, *, path: str = "/v1/messages", key: str = "any", **fields: Any) -> str:
    """The text of the answer, or the message of the error."""
    headers = {"content-type": "application/json", "x-api-key": key}
    request = urllib.request.Request(replay.base_url + path, json.dumps({**QUESTION, **fields}).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return str(json.load(response)["content"][0]["text"])
    except urllib.error.HTTPError as exc:
        with exc:
            return str(json.load(exc)["error"]["message"])


def test_what_is_played_may_change_and_all_requests_are_kept() -> None:
    with Replay() as replay:
        replay.play(answer("one"))
        assert ask(replay) == "one"
        replay.play(answer("two"), faults=["status=529 x1"])
        assert [ask(replay), ask(replay)] == ["Overloaded", "two"]
    assert [request.path for request in replay.requests] == ["/v1/messages"] * 3
    assert replay.requests[0].body == QUESTION
    replay.verify()


def test_the_environment_leads_here() -> None:
    with Replay() as replay:
        assert replay.environment == {"ANTHROPIC_BASE_URL": replay.base_url, "ANTHROPIC_API_KEY": "replay-needs-no-key"}


def test_there_is_no_address_before_and_after() -> None:
    replay = Replay()
    with pytest.raises(ConfigurationError, match="the API is not served"):
        _ = replay.base_url
    with replay:
        assert replay.base_url.startswith("http://127.0.0.1:")
    with pytest.raises(ConfigurationError, match="the API is not served"):
        _ = replay.base_url


def test_a_request_before_anything_is_played_is_a_mistake() -> None:
    with Replay() as replay:
        message = "there was nothing to play for POST /v1/messages: name a recording with replay.play(NAME)"
        assert ask(replay).startswith(message)
        with pytest.raises(AssertionError, match="there was nothing to play"):
            replay.verify()
        assert "to play for POST /v1/messages (2 times): name a" in ask(replay)
        assert "to play for POST /v1/messages (2 times), POST /claude/v1/messages: name a" in ask(
            replay, path="/claude/v1/messages"
        )


@pytest.mark.parametrize(
    ("match", "strict", "problems"),
    [
        ("sequence", None, ["not played, 1 of 2 recordings: built"]),
        ("sequence", False, []),
        ("turns", None, []),
        ("turns", True, ["not played, 1 of 2 recordings: built"]),
    ],
)
def test_what_is_left_is_a_problem_in_a_sequence_or_if_it_is_said(match: Any, strict: Any, problems: list[str]) -> None:
    with Replay() as replay:
        replay.play(answer("one"), answer("two"), match=match, strict=strict)
        assert ask(replay) == "one"
    assert replay.problems() == problems
    assert replay.problems(is_over=False) == []


def test_what_is_played_again_is_a_problem_of_a_strict_test_only() -> None:
    with Replay() as replay:
        replay.play("plain")
        assert [len(ask(replay)) > 0 for _ in range(3)] == [True] * 3
        assert replay.problems() == []
    with Replay() as replay:
        replay.play("plain", "unicode", strict=True)
        for _ in range(3):
            ask(replay)
        assert replay.problems() == ["played more than once: plain"]
        assert replay.problems(is_over=False) == []


def test_what_a_fault_kept_from_the_client_does_not_count_twice() -> None:
    with Replay() as replay:
        replay.play("plain", strict=True, faults=["status=529 x1", "close@byte=10 x1 after=1"])
        assert ask(replay) == "Overloaded"
        with pytest.raises((OSError, http.client.HTTPException, ValueError)):
            ask(replay)
        ask(replay)
        assert replay.problems() == []


def test_what_no_recording_answers_is_a_problem_unless_it_is_lenient() -> None:
    with Replay() as replay:
        replay.play(answer("one"), match="sequence", strict=False)
        missed = "this is request 2 of a sequence of 1 recording: all have been played"
        assert [ask(replay), ask(replay)] == ["one", missed]
        assert replay.problems() == []
        replay.play(answer("one"), match="sequence")
        assert [ask(replay), ask(replay)] == ["one", missed]
        assert replay.problems() == [missed]


def test_a_request_that_no_recording_answers_is_one_problem_however_often_it_is_sent() -> None:
    with Replay() as replay:
        replay.play("plain", match="request")
        missed = ask(replay)
        assert missed.startswith("no recording matches this request. Nearest of 1: plain. It differs at")
        assert (ask(replay), replay.problems()) == (missed, [missed])


def endless(body: Any) -> Any:
    return endless(body) if "system" not in body else body


@pytest.mark.parametrize("strict", [None, False])
@pytest.mark.parametrize(
    ("match", "words"),
    [
        (lambda body: body["system"], "KeyError('system')"),
        (lambda body: {1: 1, "system": 2} if "system" not in body else 0, "TypeError("),  # keys that JSON cannot sort
        (endless, "RecursionError("),
    ],
)
def test_a_match_function_that_fails_is_a_problem(match: Any, words: str, strict: bool | None) -> None:
    with Replay() as replay:
        replay.play(*turns({**QUESTION, "system": "s"}, answer("one")), match=match, strict=strict)
        said = ask(replay)
        assert said.startswith(f"the match function failed for the request of the client: {words}")
        assert replay.problems() == [said]


def test_a_match_function_that_fails_shows_no_key_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    def match(body: Any) -> Any:
        if "sk-ant" in body["system"]:
            raise ValueError(f"odd: {body}")
        return body

    with Replay() as replay:
        replay.play(*turns({**QUESTION, "system": "s"}, answer("one")), match=match)
        said = ask(replay, system="sk-ant-api03-AbCdEf0123456789_xYzQQ")
        assert "ValueError" in said
        assert "AbCdEf" not in said + caplog.text
        assert replay.problems() == [said]


def test_that_nothing_is_asked_is_a_problem_unless_nothing_is_played_or_it_is_lenient() -> None:
    with Replay() as replay:
        assert replay.problems() == []
        replay.play(answer("one"), strict=False)
        assert replay.problems() == []
        replay.play("plain", "tools", match="sequence")
        assert replay.problems(is_over=False) == []
        [problem] = replay.problems()
        assert problem.startswith("no request came for plain, tools. Was the client made before")
        urllib.request.urlopen(replay.base_url + "/v1/models", timeout=10).close()
        assert replay.problems() == ["not played, 2 of 2 recordings: plain, tools"]


def test_a_fault_that_never_happened_is_a_problem_unless_it_is_lenient() -> None:
    with Replay() as replay:
        replay.play(answer("one"), faults=["status=529 x1 after=2"])
        assert ask(replay) == "one"
        [problem] = replay.problems()
        assert problem.startswith("the fault status=529 x1 after=2 never happened: the test sent too few requests")
        assert replay.problems(is_over=False) == []
    with Replay() as replay:
        replay.play(answer("one"), faults=["status=529 x1 after=2"], strict=False)
        assert (ask(replay), replay.problems()) == ("one", [])


def test_a_fault_that_happened_in_fewer_requests_than_it_says_is_a_problem() -> None:
    with Replay() as replay:
        replay.play(answer("one"), faults=["status=529 x2"])
        ask(replay, stream=True)
        [problem] = replay.problems()
        assert problem == "the fault status=529 x2 happened in 1 of 2 requests: the test sent too few requests"
        assert replay.problems(is_over=False) == []
        ask(replay, stream=True)
        assert replay.problems() == []


@pytest.mark.parametrize("fault", ["stall@event=6", "garble@event=9"])
def test_a_fault_behind_the_end_that_another_makes_is_a_problem(fault: str) -> None:
    with Replay() as replay:
        replay.play("plain", faults=["close@event=5", fault])
        with pytest.raises(http.client.IncompleteRead):
            ask(replay, stream=True)
        why = "it lies behind close@event=5, which ends the answer"
        assert replay.problems() == [f"the fault {fault} never happened: {why}"]


def test_a_fault_without_a_place_is_a_problem_also_of_a_lenient_test() -> None:
    with Replay() as replay:
        replay.play(answer("one"), answer("two", "three"), faults=["drop@event=8"], strict=False)
        said = ask(replay)
        assert "drop@event=8 has no place in this answer" in said
        assert replay.problems(is_over=False) == [said]


def test_the_address_may_be_known_before_it_is_served_and_stays() -> None:
    told = list[str]()
    replay = Replay(on_start=lambda replay: told.append(replay.environment["ANTHROPIC_BASE_URL"]))
    replay.play(answer("one"))

    async def story(base_url: str) -> str:
        assert replay.base_url == base_url
        async with AsyncClient(base_url=base_url, api_key="any") as client:
            return str((await client.messages.create(**QUESTION)).content[0].text)

    with replay.kept():
        [base_url] = told
        for _ in range(2):
            assert VirtualClock(lambda: replay).run(story(base_url)) == "one"
            with pytest.raises(ConfigurationError, match="the API is not served"):
                _ = replay.base_url
            with pytest.raises(urllib.error.URLError):
                urllib.request.urlopen(base_url, timeout=10)
    assert told == [base_url]


def test_a_missing_recording_comes_with_its_remedy(tmp_path: Path) -> None:
    replay = Replay(tmp_path)
    with pytest.raises(RecordingError, match=r"no recording 'spring'.*\. To record it: .* --rawsse-record=once$"):
        replay.play("spring")
    (tmp_path / "spring.sse.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(RecordingError, match=r"spring.sse.jsonl, line 1: invalid JSON \(.*\)$"):
        replay.play("spring")


def test_nothing_cannot_be_played() -> None:
    with pytest.raises(ConfigurationError, match="there is nothing to play"):
        Replay().play()


def test_in_the_loop_of_its_client_time_is_whatever_the_loop_says() -> None:
    recording = pace_by("ttft=60,tps=1")(recording_of(answer("Hello, world.")))

    async def story() -> str:
        async with AsyncClient(base_url=replay.base_url, api_key="any") as client:
            return str((await client.messages.create(**QUESTION)).content[0].text)

    replay = Replay()
    replay.play(recording, speed=1)
    clock = VirtualClock(lambda: replay)
    assert clock.run(story()) == "Hello, world."
    assert clock.elapsed == pytest.approx(recording.reads[-1].t)
    assert recording.reads[-1].t > 60


def test_a_pace_is_seen_without_a_speed_and_speed_0_does_not_wait() -> None:
    replay = Replay()
    clock = VirtualClock(lambda: replay)

    async def story() -> str:
        async with AsyncClient(base_url=replay.base_url, api_key="any") as client:
            return str((await client.messages.create(**QUESTION)).content[0].text)

    replay.play(answer("Hello"), pace="ttft=60,tps=1", rewrite="crlf")
    assert clock.run(story()) == "Hello"
    assert clock.elapsed >= 60
    replay.play(answer("Hello"), pace="ttft=60,tps=1", speed=0)
    assert clock.run(story()) == "Hello"
    assert clock.elapsed == 0


def test_a_rewrite_changes_the_bytes_of_the_answer() -> None:
    with Replay() as replay:
        replay.play(answer("Hello"), rewrite="crlf")
        headers = {"content-type": "application/json", "x-api-key": "any"}
        body = json.dumps(QUESTION | {"stream": True}).encode()
        request = urllib.request.Request(replay.base_url + "/v1/messages", body, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            received = response.read()
    assert received.count(b"\r\n") == received.count(b"\n") > 0


# --- Recording


def recorder(tmp_path: Path, api: Replay, which: Any = "once") -> Replay:
    return Replay(tmp_path, record=which, record_url=api.base_url)


def record_two(tmp_path: Path, api: Replay, questions: int) -> None:
    with recorder(tmp_path, api) as replay:
        replay.play("first", "second")
        for _ in range(questions):
            ask(replay)


def test_what_is_missing_is_recorded_under_the_names_in_the_order_of_the_questions(tmp_path: Path) -> None:
    with Replay() as api:
        api.play(answer("one"), answer("two"))
        with recorder(tmp_path, api) as replay:
            replay.play("first", "talks/second")
            assert replay.is_recording
            assert dict(replay.environment) == {"ANTHROPIC_BASE_URL": replay.base_url}
            assert [ask(replay, key="sk-ant-api03-" + "secret" * 5), ask(replay)] == ["one", "two"]
        assert [request.body for request in replay.requests] == [QUESTION, QUESTION]
        assert "x-api-key" not in replay.requests[0].headers
    first, second = (
        Recording.load(tmp_path / name) for name in ("recordings/first.sse.jsonl", "talks/second.sse.jsonl")
    )
    assert [(each.message() or {})["content"][0]["text"] for each in (first, second)] == ["one", "two"]
    assert "secret" not in first.dump()


def test_what_is_there_is_played_and_only_all_asks_again(tmp_path: Path) -> None:
    recording_of(answer("old")).save(tmp_path / "it.sse.jsonl")
    with Replay() as api:
        api.play(answer("new"))
        for which, said in (("once", "old"), ("all", "new"), ("once", "new")):
            with recorder(tmp_path, api, which) as replay:
                replay.play("it")
                assert ask(replay) == said
        assert len(api.requests) == 1


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        (
            1,
            "exchanges with the API: 1, names for their recordings: 2 (first.sse.jsonl, second.sse.jsonl)",
        ),
        (0, "nothing was recorded for first.sse.jsonl, second.sse.jsonl: the test sent no request"),
    ],
)
def test_an_exchange_too_few_is_told_and_leaves_nothing(tmp_path: Path, questions: int, words: str) -> None:
    with Replay() as api:
        api.play(answer("one"))
        with pytest.raises(RecordingError, match=re.escape(words)):
            record_two(tmp_path, api, questions)
    assert list(tmp_path.iterdir()) == []


def record_one(tmp_path: Path, api: Replay) -> None:
    with recorder(tmp_path, api, "all") as replay:
        replay.play("it")
        ask(replay)


def test_a_test_that_fails_writes_nothing(tmp_path: Path) -> None:
    recording_of(answer("old")).save(tmp_path / "it.sse.jsonl")
    before = (tmp_path / "it.sse.jsonl").read_bytes()
    with Replay() as api:
        api.play(answer("new"))
        with suppress(KeyError), recorder(tmp_path, api, "all") as replay:
            replay.play("it")
            raise KeyError(ask(replay))
        with recorder(tmp_path, api, "all") as replay:
            replay.play("it")
            assert ask(replay) == "new"
            replay.is_failed = True
    assert (tmp_path / "it.sse.jsonl").read_bytes() == before


def test_an_error_does_not_replace_a_good_answer(tmp_path: Path) -> None:
    path = tmp_path / "it.sse.jsonl"
    recording_of(answer("old")).save(path)
    with Replay() as api:
        api.play(answer("new"), faults=["status=529"])
        words = r"the API answered 529, and it.sse.jsonl is a good answer: nothing is written.* delete that file first"
        with pytest.raises(RecordingError, match=words):
            record_one(tmp_path, api)
        assert Recording.load(path).status == 200
        path.unlink()
        record_one(tmp_path, api)
    assert Recording.load(tmp_path / "recordings/it.sse.jsonl").status == 529


def test_what_is_scrubbed_is_for_the_test_to_say(tmp_path: Path) -> None:
    with Replay() as api:
        api.play(answer("The plan of acme-internal-7781 is good."))
        policy = ScrubPolicy(secrets=("acme-internal-7781",))
        with Replay(tmp_path, record="once", record_url=api.base_url, policy=policy) as replay:
            replay.play("it")
            assert "acme-internal-7781" in ask(replay)
    text = (tmp_path / "recordings/it.sse.jsonl").read_text(encoding="utf-8")
    assert "The plan of " in text
    assert "acme-internal-7781" not in text


def test_made_up_answers_are_not_recorded_together_with_others(tmp_path: Path) -> None:
    replay = Replay(tmp_path, record="once")
    replay.play(answer("made up"))
    assert not replay.is_recording
    with pytest.raises(ConfigurationError, match="some of these answers are made up"):
        replay.play("it", answer("made up"))


def test_the_real_api_has_no_virtual_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with replay:
            pass

    replay = Replay(tmp_path, record="once")
    replay.play("it")
    with replay.kept(), pytest.raises(ConfigurationError, match="the real API cannot be recorded in virtual time"):
        asyncio.run(story())
