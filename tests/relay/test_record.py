"""rawsse.relay.record: one row per run, with the tokens that are billed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from support.clock import run
from support.streams import ANSWER, to_bytes

from rawsse.relay.dialects import Failure
from rawsse.relay.record import LEASE_LOST, Observer, RunLog, RunRecord, RunStart, record_of
from rawsse.relay.runs import RunLimits, Runs

from .outlets import LAST_WORD, REQUEST, STOPPED, data, house, join
from .stage import HEAD


class Rows(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.starts: list[RunStart] = []
        self.records: list[RunRecord] = []

    def begun(self, start: RunStart) -> None:
        self.starts.append(start)

    def ended(self, record: RunRecord) -> None:
        self.records.append(record)


def record_of_one(*script: bytes, **names: str) -> RunRecord:
    """The record of one run whose upstream says `script`."""
    rows = Rows()

    async def story() -> None:
        async with house(*script) as home:
            home.runs = Runs(RunLimits(), observers=[rows], clock=lambda: 1_000.0)
            await join(home.begin(**names)).done()

    run(story())
    (start,), (record,) = rows.starts, rows.records
    assert (record.time, record.run, record.user, record.dialect) == (start.time, start.run, start.user, start.dialect)
    return record


def usage(**counts: Any) -> bytes:
    """An answer whose last `message_delta` has this usage."""
    return HEAD + to_bytes([*ANSWER[:-2], {**ANSWER[-2], "usage": counts}, ANSWER[-1]])


ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
SAYS_NO = b"HTTP/1.1 529 Overloaded\r\ncontent-length: %d\r\n\r\n%b" % (len(OVERLOADED), OVERLOADED)
COMPACTION = {"type": "compaction", "input_tokens": 500, "output_tokens": 60}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (usage(input_tokens=3, output_tokens=7), (3, 7, 0, 0, True)),
        (usage(output_tokens=7, cache_creation_input_tokens=20, cache_read_input_tokens=300), (10, 7, 20, 300, True)),
        # history-rules 13: what compaction costs is not in the numbers at the top.
        (usage(input_tokens=3, output_tokens=7, iterations=[COMPACTION]), (503, 67, 0, 0, True)),
        (usage(input_tokens=3, output_tokens=7, iterations=[{"type": "new"}]), (3, 7, 0, 0, False)),
        (usage(input_tokens=2**70, output_tokens=-1), (0, 0, 0, 0, False)),
        (HEAD + to_bytes(ANSWER[:-2]), (10, 1, 0, 0, False)),  # besides what is estimated
        (HEAD + to_bytes(ANSWER[:-1]), (10, 7, 0, 0, True)),  # only `message_stop` is missing
        (SAYS_NO, (0, 0, 0, 0, True)),
        (HEAD, (0, 0, 0, 0, False)),  # the request was accepted, and nothing was told of its cost
        (b"", (0, 0, 0, 0, False)),
    ],
    ids=["whole", "cache", "compaction", "unknown", "absurd", "cut", "tail", "refused", "no event", "no answer"],
)
def test_the_tokens_are_those_that_are_billed(script: bytes, expected: tuple[int, int, int, int, bool]) -> None:
    record = record_of_one(script)
    guess, cache = record.estimated_tokens, (record.cache_creation_input_tokens, record.cache_read_input_tokens)
    guesses = (0, guess) if record.has_answered or record.output_tokens else (guess, 0)
    counts = (record.input_tokens - guesses[0], record.output_tokens - guesses[1], *cache)
    assert (*counts, record.exact) == expected
    assert record.total_tokens == sum(expected[:4]) + guess


@pytest.mark.parametrize(
    ("script", "estimated", "total"),
    [
        (HEAD + to_bytes(ANSWER), 0, 17),  # the API has counted them
        (HEAD + to_bytes(ANSWER[:-1]), 0, 17),
        (HEAD + to_bytes(ANSWER[:-2]), 2, 13),  # "Hello ☺" has 9 bytes in UTF-8; the API has told of one token
        (HEAD + to_bytes([*ANSWER[:-2], ERROR]), 2, 13),
        (HEAD + to_bytes(ANSWER[:2]), 0, 11),  # at least what the API has told
        (usage(input_tokens=3, output_tokens=7, iterations=[{"type": "new"}]), 0, 10),
        (SAYS_NO, 0, 0),
    ],
    ids=["whole", "tail", "cut", "error", "no content", "unknown", "refused"],
)
def test_the_output_of_an_answer_that_was_cut_is_estimated_from_its_content(
    script: bytes, estimated: int, total: int
) -> None:
    record = record_of_one(script)
    assert (record.estimated_tokens, record.total_tokens) == (estimated, total)


@pytest.mark.parametrize(
    "script", [b"", HEAD, HEAD + to_bytes([{"type": "ping"}])], ids=["nothing", "a head", "a ping"]
)
def test_before_the_api_has_counted_the_prompt_it_is_estimated_from_the_request_without_its_images(
    script: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo+/" * 1000}}
    text = {"type": "text", "text": "What is this? " * 100}
    records = []
    for content in ([text], [text, image]):
        monkeypatch.setitem(REQUEST, "messages", [{"role": "user", "content": content}])
        records.append(record_of_one(script))
    few, many = (record.input_tokens for record in records)
    assert 350 < few < 450  # 1400 characters, and the fields around them
    assert 0 < many - few < 50
    assert [(record.estimated_tokens, record.output_tokens) for record in records] == [(few, 0), (many, 0)]
    assert not any(record.has_answered for record in records)


def test_a_record_says_who_what_and_how() -> None:
    record = record_of_one(HEAD + to_bytes(ANSWER), user="ada", id="a-chosen-id-00000", model="claude-asked")
    assert record.to_dict() == {
        "time": 1_000.0,
        "run": "a-chosen-id-00000",
        "user": "ada",
        "dialect": "text",
        "model": "claude-sonnet-5",
        "ending": "complete",
        "stop_reason": "end_turn",
        "error": None,
        "seconds": record.seconds,
        "first_token_seconds": record.first_token_seconds,
        "input_tokens": 10,
        "output_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "exact": True,
        "on_disconnect": None,
        "request_id": "req_1",
        "words": "the answer is whole",
        "estimated_tokens": 0,
    }


def test_a_failure_has_the_type_of_its_error() -> None:
    record = record_of_one(SAYS_NO)
    assert (record.ending, record.error, record.stop_reason) == ("error", "overloaded_error", None)


def test_a_run_that_is_stopped_has_a_record_before_and_after_its_beginning() -> None:
    async def story(*, is_started: bool) -> tuple[Any, ...]:
        rows = Rows()
        async with house() as home:
            home.runs = Runs(RunLimits(), observers=[rows])
            begun = (await home.started())[0] if is_started else home.begin()
            begun.stop(STOPPED)
            assert data(await join(begun).done()) == LAST_WORD
        (record,) = rows.records
        return record.ending, record.error, record.input_tokens, record.exact

    assert run(story(is_started=True)) == ("cancelled", None, 10, False)
    assert run(story(is_started=False)) == ("cancelled", None, 0, True)


@pytest.mark.parametrize(
    ("kind", "ending", "error"),
    [("cancelled", "cancelled", None), ("shutdown", "cancelled", None), ("api_error", "error", "api_error")],
)
def test_a_run_that_the_relay_ends_is_cancelled_and_has_not_failed(kind: str, ending: str, error: str | None) -> None:
    begun = RunStart(1.0, "run", "ada", "text", "m")
    record = record_of(begun, None, None, Failure(503, kind, "bye"), seconds=1.0, on_disconnect=None, words="")
    assert (record.ending, record.error) == (ending, error)


def test_an_observer_that_fails_costs_neither_the_run_nor_the_other_observers(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Observer):
        def begun(self, start: RunStart) -> None:
            raise ZeroDivisionError

        def ended(self, record: RunRecord) -> None:
            raise ZeroDivisionError

    rows = Rows()

    async def story() -> bytes:
        async with house(HEAD + to_bytes(ANSWER)) as home:
            home.runs = Runs(RunLimits(), observers=[Fails(), rows])
            return bytes(await join(home.begin()).done())

    assert b"[DONE]" in run(story())
    assert (len(rows.starts), len(rows.records)) == (1, 1)
    assert len(caplog.records) == 2


def test_runs_of_two_users_may_have_the_same_id_and_are_not_mixed_up() -> None:
    async def story() -> None:
        async with house(HEAD + to_bytes(ANSWER), HEAD + to_bytes(ANSWER)) as home:
            mine = home.begin(user="ada", id="a-chosen-id-00000", alias="chat")
            yours = home.begin(user="bob", id="a-chosen-id-00000", alias="chat")
            await asyncio.gather(join(mine).done(), join(yours).done())
            for user, own in (("ada", mine), ("bob", yours)):
                assert home.runs.get(user, "a-chosen-id-00000") is own
                assert home.runs.by_alias(user, "chat") is own
            assert home.runs.get("", "a-chosen-id-00000") is None

    run(story())


def test_the_end_of_a_run_that_another_node_tells_is_in_the_log_of_that_node_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = record_of_one(SAYS_NO)
    with caplog.at_level(logging.INFO, "rawsse.relay"):
        caplog.clear()
        RunLog().ended(replace(record, error=LEASE_LOST))
        assert caplog.messages == []
        RunLog().ended(record)
    assert [text.split()[1] for text in caplog.messages] == [record.run]
