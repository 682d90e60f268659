"""Random schedules: whatever clients, the API and the operator do, each run is one call, one row, and whole for its readers.

A schedule is a relay, three users, and some dozens of random steps in virtual time. After it all is counted again: from what
the API said, from what each client was sent, and from the rows. A failure names its seed and its steps, and `play(SEED)` is the
same schedule again. The plain suite plays a share of them, RAWSSE_EVERY_CUT=1 all 5,000.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest
from support.clock import run
from support.sampling import one_in
from support.streams import Raw

from rawsse.relay import Ledger, RunRecord, User, UserLimits
from rawsse.relay.record import RunStart
from rawsse.relay.runs import Run
from rawsse.sse import Event

from .schedules import MODELS, NAMES, USAGE, Reader, Schedule
from .stage import frames
from .test_ledger import rows as rows_in

SEEDS = 5000 // one_in(100)
BLOCK = 25
PLENTY = UserLimits(tokens_per_day=10**9, open_runs=9)
ENDS = ("message_stop", "error")


class Checked(Schedule):
    """A schedule, and what it must come to."""

    ends: dict[RunStart, RunRecord]

    def check(self) -> None:
        assert not self.wrong
        assert all(not reader.is_open for reader in self.readers), "a client still waits"
        for browser, statuses in self.others:
            assert browser.status in (*statuses, 503) or not browser.task.done(), (browser.status, statuses)
        self.check_rows()
        self.check_quotas()
        for number, reader in enumerate(self.readers):
            try:
                self.check_reader(reader)
            except AssertionError as exc:
                exc.add_note(
                    f"client {number}: {reader.user} {reader.path} {reader.browser.status} {reader.browser.body!r}"
                )
                raise
        self.check_leftovers()

    def check_rows(self) -> None:
        """One row for each run, at most one call, and the tokens that this one said."""
        starts, records = self.rows.starts, {(each.time, each.user, each.run): each for each in self.rows.records}
        assert len(starts) == len(records) == len(self.rows.records)
        self.ends = {each: records[each.time, each.user, each.run] for each in starts}
        for model in MODELS:
            mine = [record for each, record in self.ends.items() if each.model == model]
            calls = self.calls_of(model)
            surely = [each for each in mine if each.ending != "cancelled"]
            assert len(surely) <= len(calls) <= len(mine), f"{model}: {len(calls)} calls for {mine}"
            told = [usage for usage in (usage_in(self.heard(api)) for api in calls) if usage[0]]
            rows = [each for each in mine if each.has_answered]
            counts = [(each.input_tokens, each.output_tokens - each.estimated_tokens, each.exact) for each in rows]
            assert counts == told, f"{model}: {mine}"
            refused = [reader.was_refused for reader in self.readers if reader.model == model]
            assert mine == [] or not all(refused), f"{model} was refused, and has run"

    def check_quotas(self) -> None:
        quotas = self.relay.quotas
        quotas.everyone = PLENTY
        for name in (*NAMES, ""):
            left = quotas.me(User(name, PLENTY) if name else None, self.now)["left"]
            assert left == {"tokens_per_day": 10**9 - self.rows.tokens(name), "open_runs": 9}, name
        assert not any(count.open for count in (quotas._all, *(count for _, count in quotas._kept.values())))

    def check_reader(self, reader: Reader) -> None:
        """It got each frame once and in order, to the one end."""
        browser = reader.browser
        assert browser.status != 410 or self.is_small
        if browser.headers.get("content-type", "").startswith("text/event-stream"):
            events = frames(browser.body)
            if reader.path == "/v1/messages":
                self.check_messages(reader, events)
            elif browser.status not in (400, 401, 409, 410, 429, 503) or any(each.id for each in events):
                self.check_frames(reader, events)
        elif reader.path == "/v1/messages" and browser.status == 200 and browser.is_ended:
            (api,) = self.calls_of(reader.model)
            assert tuple(browser.json["usage"][name] for name in USAGE) == usage_in(self.heard(api))[:2]
        elif (
            browser.status != 410
            and reader.after
            and any(self.runs[tag].start.user != reader.user for tag in reader.after)
        ):
            assert browser.status in (0, 404), "another user's run"

    def check_messages(self, reader: Reader, events: list[Event]) -> None:
        got = [json.loads(each.data) for each in events if each.event != "ping"]  # a heartbeat, or the API's
        (api,) = self.calls_of(reader.model)
        said = [raw for raw in self.heard(api) if raw["type"] not in (*ENDS, "ping")]
        body = [raw for raw in got if raw["type"] not in ENDS]
        assert body == said[: None if reader.has_stayed else len(body)]
        assert len(got) - len(body) == (1 if reader.has_stayed else min(1, len(got) - len(body)))

    def check_frames(self, reader: Reader, events: list[Event]) -> None:
        by_tag: defaultdict[str, list[Event]] = defaultdict(list)
        for each in events[reader.path == "/runs" :]:
            by_tag[each.id.partition("-")[0]].append(each)
        expected = set(by_tag)
        if reader.path == "/runs" and events:
            expected = set(json.loads(events[0].data)["runs"])
        assert expected >= set(by_tag)
        for tag in expected:
            found, after = self.runs[tag], reader.after.get(tag, 0)
            assert found.start.user == reader.user, "another user's run"
            if reader.has_stayed and reader.browser.started < self.end_of(found) - 0.01:
                assert not self.ends[found.start].on_disconnect, "it was ended for lack of readers"
            check_frames(found, by_tag[tag], after, has_stayed=reader.has_stayed)
        assert reader.path == "/runs" or len(expected) <= 1

    def end_of(self, found: Run) -> float:
        """When it ended, in the loop's time."""
        return found.start.time + self.ends[found.start].seconds - self.base

    def check_leftovers(self) -> None:
        runs = self.relay._runs
        assert (runs._runs, runs._aliases, runs._timers, runs._kept_bytes) == ({}, {}, {}, 0)
        assert (runs.tasks, list(runs.turns._readers), sum(self.relay.home.count_readers().values())) == (set(), [], 0)
        assert not any(each._readers or each.live for each in self.runs.values())
        assert all(api.is_closed for api in self.calls)
        assert "rawsse_open_streams 0\n" in self.relay.metrics.render()


def usage_in(raws: list[Raw]) -> tuple[int, int, bool]:
    """(tokens in, tokens out, whether they are final) of these events of the API."""
    tokens = {USAGE[0]: 0, USAGE[1]: 0}
    for raw in raws:
        tokens |= raw.get("usage", {}) | raw.get("message", {}).get("usage", {})
    return tokens[USAGE[0]], tokens[USAGE[1]], any(raw["type"] == "message_delta" for raw in raws)


def check_frames(found: Run, events: list[Event], after: int, *, has_stayed: bool) -> None:
    """What a client was sent of a run from a position on; -1: a snapshot."""
    numbers = [int(each.id.rpartition("-")[2]) for each in events]
    assert numbers == sorted(set(numbers)), "a frame came twice"
    done = [each.data for each in events].count("[DONE]")
    if has_stayed:
        assert (numbers or [after])[-1] == found.last, "the last frames are missing"
        assert done == (1 if numbers else 0), "the one end"
    assert done == 0 or events[-1].data == "[DONE]"
    if not numbers:
        return
    is_events = found.dialect.name == "events"
    if events[0].event == "snapshot":
        after, events, numbers = numbers[0], events[1:], numbers[1:]
    if is_events and after >= 0:
        assert numbers == list(range(after + 1, after + 1 + len(numbers))), "a frame is missing"
    if found.first == 1 and numbers:
        log = frames(bytes(found._log))
        assert flat(events) == flat(log[max(after, 0) : numbers[-1]]), "it differs from the log"


def flat(events: list[Event]) -> list[tuple[str, str]]:
    """The frames, as (what is in them beside their text, their text); texts that follow each other are one."""
    said: list[tuple[str, str]] = []
    for each in events:
        frame = json.loads(each.data) if each.data.startswith("{") else {"data": each.data}
        name = next((name for name in ("text", "delta") if isinstance(frame.get(name), str)), "data")
        text = str(frame.pop(name, ""))
        rest = f"{name} {frame}"
        if name != "data" and said and said[-1][0] == rest:
            text = said.pop()[1] + text
        said.append((rest, text))
    return said


class Complaints(logging.Handler):
    """What is logged as an error: a bug of ours, which the relay survives."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


def play(seed: int, path: Path | None = None) -> None:
    """One schedule, with a ledger if there is a path."""
    steps: list[str] = []
    complaints = Complaints()
    ledger = Ledger(path) if path is not None else None

    async def story() -> list[RunRecord]:
        asyncio.get_running_loop().set_debug(False)  # which takes half of the time for tracebacks of calls
        schedule = Checked(seed, ledger)
        schedule.steps = steps
        await schedule.play()
        schedule.check()
        return schedule.rows.records

    logging.getLogger("rawsse").addHandler(complaints)
    try:
        with closing(ledger) if ledger is not None else contextlib.nullcontext():
            records = run(story())
        assert complaints.said == []
        if path is not None:
            expected = sorted((each.time, each.run, each.ending, each.total_tokens, each.exact) for each in records)
            columns = "time, run, ending, input_tokens + output_tokens AS tokens, exact"
            assert [tuple(row.values()) for row in rows_in(path, columns)] == expected
    except BaseException as exc:
        exc.add_note("\n".join((f"play({seed}):", *steps)))
        raise
    finally:
        logging.getLogger("rawsse").removeHandler(complaints)


@pytest.mark.parametrize("block", range(0, SEEDS, BLOCK))
def test_each_run_is_one_call_and_one_row_and_whole_for_its_readers(block: int, tmp_path: Path) -> None:
    for seed in range(block, block + BLOCK):
        play(seed, tmp_path / "ledger.db" if seed == block else None)
