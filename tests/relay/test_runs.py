"""rawsse.relay.runs: how a run grows, is read, stops, ends and is forgotten; in virtual time, with an API of the test's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.clock import run, ticks
from support.streams import ANSWER, PING, STOP, block_start, end, start, text_delta, to_bytes

from rawsse.errors import ConfigurationError
from rawsse.messages.events import StreamEvent
from rawsse.relay import RunLimits
from rawsse.relay.dialects import EventsDialect, Failure, Frame, MessagesDialect, TextDialect
from rawsse.relay.runs import PIECE_BYTES, Closed, Gone, Reader, Run, Runs, TooManyRuns

from .stage import HEAD, WHOLE, Api, Stage, frames

STOPPED = Failure(200, "cancelled", "stopped")
REQUEST = {"model": "m", "max_tokens": 1, "messages": []}
TEXT_BLOCK = {"type": "text", "text": ""}


class House(Stage):
    """Runs without HTTP: `begin` one, and `call` for what it says to the API."""

    def __init__(self, *script: bytes, **limits: Any) -> None:
        super().__init__(*script)
        self.runs = Runs(RunLimits(**limits))

    def begin(self, dialect: Any = None, **names: str) -> Run:
        return self.runs.begin(dialect or TextDialect(), lambda: self.client.messages.events(REQUEST), **names)

    async def started(self, dialect: Any = None) -> tuple[Run, Api]:
        """A run whose call to the API has come, and whose message has begun."""
        begun = self.begin(dialect)
        api = await self.call()
        api.send(start(), block_start(0, TEXT_BLOCK))
        await ticks(5)
        return begun, api

    async def finished(self, dialect: Any = None, **names: str) -> Run:
        begun = self.begin(dialect, **names)
        await all_of(begun.reader())
        await ticks(2)
        return begun


@asynccontextmanager
async def house(*script: bytes, **limits: Any) -> AsyncIterator[House]:
    opened = House(*script, **limits)
    try:
        yield opened
    finally:
        await opened.runs.aclose(Failure(503, "shutdown", "bye", retry=2000))


async def all_of(reader: Reader) -> bytes:
    """Everything up to the run's end."""
    pieces: list[bytes] = []
    while (piece := await reader.read(1)) is not None:
        pieces.append(piece)
    reader.close()
    return b"".join(pieces)


def data(wire: bytes) -> list[str]:
    return [frame.data for frame in frames(wire)]


def texts(count: int, size: int = 1) -> list[Any]:
    return [text_delta(0, f"{number:0{size}}") for number in range(count)]


LAST_WORD = ['{"error":"stopped","type":"cancelled"}', "[DONE]"]

# --- Frames and their ids ------------------------------------------------------------------------------------------


def test_frames_are_numbered_from_1() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = home.begin()
            ids = [frame.id for frame in frames(await all_of(begun.reader()))]
            assert [begun.number_of(id) for id in ids] == [1, 2, 3]

    run(story())


def test_a_run_of_the_api_itself_has_no_ids() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            assert await all_of(home.begin(MessagesDialect()).reader()) == to_bytes(ANSWER)

    run(story())


def test_frames_of_two_runs_are_told_apart_even_if_the_runs_have_the_same_id() -> None:
    async def story() -> None:
        async with house(WHOLE, WHOLE, keep_seconds=1) as home:
            first = await home.finished(id="the-chosen-id-of-a-client")
            (frame, *_) = frames(await all_of(first.reader()))
            await asyncio.sleep(2)
            again = await home.finished(id="the-chosen-id-of-a-client")
            assert first.number_of(frame.id) == 1
            assert again.number_of(frame.id) is None

    run(story())


@pytest.mark.parametrize("wrong", ["", "x", "-5", "1.5", "0x1", "³", "1" * 16, "other-1", "1 2", "-"])
def test_what_is_no_id_of_a_frame_has_no_number(wrong: str) -> None:
    assert Run("some-id", TextDialect(), limits=RunLimits()).number_of(wrong) is None


@pytest.mark.parametrize("number", ["0", "7", " 7 ", "007"])
def test_a_bare_number_is_taken_too(number: str) -> None:
    assert Run("some-id", TextDialect(), limits=RunLimits()).number_of(number) == int(number)


# --- Reading -------------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_from_every_frame_on() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = await home.finished(EventsDialect())
            whole = await all_of(begun.reader())
            pieces = [piece + b"\n\n" for piece in whole.split(b"\n\n")[:-1]]
            for after in range(len(pieces) + 1):
                assert await all_of(begun.reader(after)) == b"".join(pieces[after:])

    run(story())


def test_every_reader_gets_everything() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = home.begin(EventsDialect())
            got = await asyncio.gather(*(all_of(begun.reader()) for _ in range(20)))
            assert len(set(got)) == 1
            assert data(got[0])[-1] == "[DONE]"

    run(story())


def test_a_reader_that_is_ahead_of_the_run_begins_at_its_tip() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            reader = begun.reader(after=1000)
            api.send(text_delta(0, "Hi"))
            assert data(await reader.read(1) or b"") == ['{"text":"Hi"}']
            reader.close()

    run(story())


def test_a_read_without_anything_to_read_takes_its_time() -> None:
    async def story() -> None:
        async with house() as home:
            begun, _ = await home.started()
            reader, before = begun.reader(), asyncio.get_running_loop().time()
            assert await reader.read(15) == b""
            assert asyncio.get_running_loop().time() - before == pytest.approx(15)
            reader.close()

    run(story())


def test_an_event_without_a_frame_wakes_no_reader_but_the_first_one_does() -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin()
            reader, api = begun.reader(), await home.call()
            now = asyncio.get_running_loop().time
            waiting, before = asyncio.ensure_future(reader.read(15)), now()
            await asyncio.sleep(1)
            api.send(start())
            assert await waiting == b""
            assert now() - before == pytest.approx(1)
            assert begun.has_begun
            api.send(PING, block_start(0, TEXT_BLOCK))
            assert await reader.read(15) == b""
            assert now() - before == pytest.approx(16)
            reader.close()

    run(story())


def test_a_short_wait_after_a_long_one_is_short() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            reader, now = begun.reader(), asyncio.get_running_loop().time
            waiting = asyncio.ensure_future(reader.read(60))
            await ticks()
            api.send(text_delta(0, "Hi"))
            assert await waiting
            before = now()
            assert await reader.read(1) == b""
            assert await reader.read(15) == b""
            assert now() - before == pytest.approx(16)
            reader.close()

    run(story())


def test_a_read_under_way_ends_when_the_reader_is_closed() -> None:
    async def story() -> None:
        async with house() as home:
            begun, _ = await home.started()
            reader = begun.reader()
            waiting = asyncio.ensure_future(reader.read(1000))
            await ticks()
            reader.close()
            reader.close()
            assert await waiting is None
            assert await reader.read(1000) is None

    run(story())


def test_a_reader_takes_whole_frames_in_pieces_of_bounded_size() -> None:
    async def story() -> None:
        body = [start(), block_start(0, TEXT_BLOCK), *texts(400, size=1000), end(), STOP]
        async with house(HEAD + to_bytes(body)) as home:
            reader = (await home.finished()).reader()
            pieces = []
            while (piece := await reader.read(1)) is not None:
                pieces.append(piece)
            reader.close()
            assert max(map(len, pieces)) < PIECE_BYTES + 2000
            assert all(piece.endswith(b"\n\n") for piece in pieces)
            assert len(data(b"".join(pieces))) == 401

    run(story())


# --- Endings -------------------------------------------------------------------------------------------------------


def test_a_run_that_fails_before_its_first_frame_is_an_early_failure() -> None:
    async def story() -> None:
        refusal = b"HTTP/1.1 529 Overloaded\r\ncontent-length: 2\r\n\r\n{}"
        async with house(refusal) as home:
            begun = await home.finished()
            assert begun.early_failure is not None
            assert (begun.early_failure, begun.early_failure.status) == (begun.failure, 529)

    run(story())


def test_a_run_that_fails_later_is_none() -> None:
    async def story() -> None:
        async with house(HEAD + to_bytes([start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hi")])) as home:
            begun = await home.finished()
            assert begun.failure is not None
            assert begun.early_failure is None
            assert begun.ending is not None
            assert begun.ending.kind == "truncated"

    run(story())


@pytest.mark.parametrize("count", range(len(ANSWER) + 1))
def test_wherever_the_api_breaks_off_the_run_has_just_one_end(count: int) -> None:
    async def story() -> None:
        async with house(HEAD + to_bytes(ANSWER[:count])) as home:
            got = await all_of(home.begin(EventsDialect()).reader())
            kinds = [frame.event for frame in frames(got)]
            is_whole = count >= len(ANSWER) - 1  # only the tail was missing
            assert (kinds.count("error"), kinds.count("message_stop")) == ((0, 1) if is_whole else (1, 0))
            assert (data(got).count("[DONE]"), data(got)[-1]) == (1, "[DONE]")

    run(story())


def test_a_bug_in_a_dialect_is_logged_with_its_trace_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(TextDialect):
        def event(self, event: StreamEvent) -> list[Frame]:
            raise ZeroDivisionError(f"about {event.type}")

    async def story() -> None:
        async with house(WHOLE) as home:
            assert data(await all_of(home.begin(Broken()).reader())) == [
                '{"error":"the relay failed: see its log","type":"api_error"}',
                "[DONE]",
            ]

    run(story())
    bug, ending = caplog.records
    assert bug.getMessage().endswith("failed: a bug in the relay")
    assert bug.exc_info
    assert "ended: error, the relay failed: see its log, request None" in ending.getMessage()


# --- Stopping ------------------------------------------------------------------------------------------------------


def test_a_run_stops_between_two_events() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            api.send(text_delta(0, "Hi"))
            reader = begun.reader()
            assert await reader.read(1)
            begun.stop(STOPPED)
            assert data(await all_of(reader)) == LAST_WORD
            assert api.is_closed

    run(story())


def test_a_run_stops_before_the_api_has_answered() -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin()
            reader, api = begun.reader(), await home.call()
            begun.stop(STOPPED)
            assert data(await all_of(reader)) == LAST_WORD
            assert api.is_closed

    run(story())


def test_a_run_stops_before_its_first_step_and_the_api_is_not_called() -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin()
            begun.stop(STOPPED)
            assert data(await all_of(begun.reader())) == LAST_WORD
            assert home.calls == []

    run(story())


def test_the_first_word_of_a_stop_counts() -> None:
    async def story() -> None:
        async with house() as home:
            begun, _ = await home.started()
            begun.stop(STOPPED)
            begun.stop(Failure(200, "cancelled", "again"))
            assert data(await all_of(begun.reader())) == LAST_WORD

    run(story())


def test_a_run_that_is_over_cannot_be_stopped() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = await home.finished()
            begun.stop(STOPPED)
            await ticks(3)
            assert begun.failure is None
            assert data(await all_of(begun.reader()))[-1] == "[DONE]"

    run(story())


@pytest.mark.parametrize("pause", range(12))
def test_stop_and_the_end_in_the_same_moment_make_one_end(pause: int) -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started(EventsDialect())
            api.send(end(), STOP)
            await ticks(pause)
            begun.stop(STOPPED)
            got = frames(await all_of(begun.reader()))
            ends = [frame for frame in got if frame.event in ("message_stop", "error")]
            assert len(ends) == 1
            assert [frame.data for frame in got].count("[DONE]") == 1

    run(story())


def test_a_run_stops_while_it_waits_for_a_slow_reader() -> None:
    async def story() -> None:
        async with house(max_log_bytes=500) as home:
            begun, api = await home.started()
            reader = begun.reader()
            api.send(*texts(100))
            await ticks(5)
            begun.stop(STOPPED)
            assert data(await all_of(reader))[-2:] == LAST_WORD
            assert api.is_closed

    run(story())


def test_a_run_whose_task_is_cancelled_by_somebody_else_says_so_and_stays_cancelled() -> None:
    async def story() -> None:
        async with house() as home:
            begun = Run("some-id", TextDialect(), limits=RunLimits())
            task = begun.begin(lambda: home.client.messages.events(REQUEST))
            await home.call()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert data(await all_of(begun.reader()))[0] == '{"error":"the relay was stopped","type":"cancelled"}'

    run(story())


# --- Grace ---------------------------------------------------------------------------------------------------------


def test_a_run_that_nobody_reads_goes_on_for_its_grace_time_and_no_longer() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, api = await home.started()
            begun.reader().close()
            await asyncio.sleep(9.9)
            assert (begun.is_finished, api.is_closed) == (False, False)
            await asyncio.sleep(0.2)
            assert (begun.is_finished, api.is_closed) == (True, True)
            assert (
                data(await all_of(begun.reader()))[0]
                == '{"error":"nobody read the answer for 10 s","type":"cancelled"}'
            )

    run(story())


def test_a_reader_that_comes_back_stops_the_clock() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, _ = await home.started()
            begun.reader().close()
            await asyncio.sleep(9.9)
            reader = begun.reader()
            await asyncio.sleep(60)
            assert not begun.is_finished
            reader.close()
            await asyncio.sleep(9.9)
            assert not begun.is_finished

    run(story())


def test_the_clock_runs_only_when_the_last_reader_has_left() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, _ = await home.started()
            first, second = begun.reader(), begun.reader()
            first.close()
            await asyncio.sleep(60)
            assert not begun.is_finished
            second.close()
            await asyncio.sleep(10.1)
            assert begun.is_finished

    run(story())


def test_a_run_that_ends_within_its_grace_time_is_whole() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, api = await home.started()
            begun.reader().close()
            api.send(end(), STOP)
            await asyncio.sleep(100)
            assert begun.ending is not None
            assert begun.ending.kind == "complete"

    run(story())


def test_a_run_whose_client_cannot_come_back_has_no_grace() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, api = await home.started(MessagesDialect())
            begun.reader().close()
            await ticks(3)
            assert begun.is_finished
            assert api.is_closed

    run(story())


# --- Memory --------------------------------------------------------------------------------------------------------

FLOOD = to_bytes([text_delta(0, "x" * 100)])
FRAME = 200  # more than one frame of the flood


@pytest.mark.parametrize(
    ("dialect", "limits"),
    [(EventsDialect(), {"max_log_bytes": 50_000}), (MessagesDialect(), {"max_unread_bytes": 50_000})],
    ids=["resumable", "not resumable"],
)
def test_a_reader_that_does_not_read_stops_the_api(dialect: Any, limits: dict[str, int]) -> None:
    async def story() -> None:
        async with house(**limits) as home:
            begun, api = await home.started(dialect)
            reader = begun.reader()
            api.flood = FLOOD
            api.send(PING)
            await asyncio.sleep(10)
            assert 50_000 < begun.log_bytes <= 50_000 + FRAME
            reads = api.reads
            await asyncio.sleep(10)
            assert api.reads == reads
            reader.close()

    run(story())


@pytest.mark.parametrize("dialect", [EventsDialect(), MessagesDialect()], ids=lambda dialect: dialect.name)
def test_it_goes_on_when_the_reader_reads_and_keeps_no_more_than_it_may(dialect: Any) -> None:
    async def story() -> None:
        async with house(max_log_bytes=5_000, max_unread_bytes=5_000) as home:
            begun, api = await home.started(dialect)
            reader = begun.reader()
            api.flood = FLOOD
            api.send(PING)
            got = 0
            while got < 50_000:
                got += len(await reader.read(1) or b"")
                assert begun.log_bytes <= 5_000 + FRAME
            reader.close()

    run(story())


def test_what_the_client_of_the_api_has_read_is_not_kept() -> None:
    async def story() -> None:
        async with house() as home:
            begun, _ = await home.started(MessagesDialect())
            reader = begun.reader()
            assert begun.log_bytes > 0
            await reader.read(1)
            assert begun.log_bytes == 0
            reader.close()

    run(story())


def test_no_frame_is_lost_or_doubled_however_narrow_the_log() -> None:
    async def story() -> None:
        body = [start(), block_start(0, TEXT_BLOCK), *texts(100), end(), STOP]
        async with house(HEAD + to_bytes(body), max_log_bytes=1) as home:
            begun = home.begin()
            fast, slow = begun.reader(), begun.reader()

            async def dawdle() -> bytes:
                pieces = []
                while (piece := await slow.read(60)) is not None:
                    pieces.append(piece)
                    await asyncio.sleep(1)
                slow.close()
                return b"".join(pieces)

            got = await asyncio.gather(all_of(fast), dawdle())
            assert data(got[0]) == data(got[1]) == [f'{{"text":"{n}"}}' for n in range(100)] + ["[DONE]"]

    run(story())


def test_what_every_reader_has_read_is_forgotten_first() -> None:
    async def story() -> None:
        body = [start(), block_start(0, TEXT_BLOCK), *texts(100), end(), STOP]
        async with house(HEAD + to_bytes(body), max_log_bytes=1000) as home:
            begun = await home.finished()
            with pytest.raises(Gone, match=r"^frames before \d\d are no longer kept$"):
                begun.reader(0)
            reader = begun.reader(begun.last - 2)
            assert data(await all_of(reader)) == ['{"text":"99"}', "[DONE]"]

    run(story())


def test_while_nobody_reads_nothing_is_forgotten() -> None:
    async def story() -> None:
        async with house(max_log_bytes=1000) as home:
            begun, api = await home.started()
            begun.reader().close()
            api.flood = FLOOD
            api.send(PING)
            await asyncio.sleep(1)
            reader = begun.reader()
            assert data(await reader.read(1) or b"")[0] == '{"text":"' + "x" * 100 + '"}'
            reader.close()

    run(story())


def test_a_slow_reader_that_leaves_makes_room_for_the_others() -> None:
    async def story() -> None:
        async with house(max_log_bytes=1000) as home:
            begun, api = await home.started()
            reader, slow = begun.reader(), begun.reader()
            api.send(*texts(100))
            while await reader.read(1):
                pass
            stuck = begun.last
            slow.close()
            await reader.read(1)
            assert begun.last > stuck
            reader.close()

    run(story())


# --- All runs ------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_its_id_until_it_is_forgotten() -> None:
    async def story() -> None:
        async with house(WHOLE, keep_seconds=300) as home:
            begun = await home.finished()
            await asyncio.sleep(299)
            assert home.runs.get(begun.id) is begun
            await asyncio.sleep(2)
            assert home.runs.get(begun.id) is None
            assert home.runs._runs == {}

    run(story())


def test_a_run_that_goes_on_is_not_forgotten() -> None:
    async def story() -> None:
        async with house(keep_seconds=1, grace_seconds=1) as home:
            begun, _ = await home.started()
            reader = begun.reader()
            await asyncio.sleep(60)
            assert home.runs.get(begun.id) is begun
            reader.close()

    run(story())


def test_a_run_that_nobody_can_come_back_to_is_not_kept() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            await home.finished(MessagesDialect())
            assert home.runs._runs == {}

    run(story())


def test_a_run_goes_by_the_name_of_its_chat_until_the_next_one_does() -> None:
    async def story() -> None:
        async with house(WHOLE, WHOLE, keep_seconds=10) as home:
            first = await home.finished(alias="chat")
            assert home.runs.by_alias("chat") is first
            await asyncio.sleep(5)
            second = await home.finished(alias="chat")
            await asyncio.sleep(6)  # the first is forgotten, and takes no name of the second with it
            assert home.runs.by_alias("chat") is second
            await asyncio.sleep(6)
            assert home.runs.by_alias("chat") is None

    run(story())


def test_above_max_runs_a_new_one_is_refused() -> None:
    async def story() -> None:
        async with house(max_runs=2) as home:
            home.begin()
            home.begin()
            with pytest.raises(TooManyRuns, match=r"^2 runs are under way$"):
                home.begin()

    run(story())


def test_the_oldest_finished_run_makes_room_for_a_new_one() -> None:
    async def story() -> None:
        async with house(WHOLE, WHOLE, WHOLE, max_runs=2) as home:
            first, second = await home.finished(), await home.finished()
            third = home.begin()
            kept = [home.runs.get(begun.id) for begun in (first, second, third)]
            assert kept == [None, second, third]
            await all_of(third.reader())

    run(story())


def test_finished_runs_together_keep_no_more_than_they_may() -> None:
    async def story() -> None:
        async with house(WHOLE, WHOLE, WHOLE, max_kept_bytes=250) as home:
            runs = [await home.finished() for _ in range(3)]
            assert all(100 < begun.log_bytes < 125 for begun in runs)
            assert [home.runs.get(begun.id) for begun in runs] == [None, *runs[1:]]

    run(story())


@pytest.mark.parametrize("limit", ["grace_seconds", "keep_seconds", "max_log_bytes", "max_runs"])
def test_a_limit_may_not_be_negative(limit: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{limit} must be 0 or more, not -1$"):
        RunLimits(**{limit: -1})


# --- The end of all ------------------------------------------------------------------------------------------------


def test_aclose_gives_every_run_its_last_word_and_leaves_nothing() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            await home.finished()
            (busy, api), unstarted = await home.started(), home.begin()
            readers = [busy.reader(), unstarted.reader()]
            await home.runs.aclose(Failure(503, "shutdown", "bye", retry=2000))
            assert (home.runs._runs, api.is_closed) == ({}, True)
            for reader in readers:
                last = await all_of(reader)
                assert data(last) == ['{"error":"bye","type":"shutdown"}', "[DONE]"]
                assert b"retry: 2000\n" in last

    run(story())


def test_nothing_begins_after_aclose() -> None:
    async def story() -> None:
        async with house() as home:
            await home.runs.aclose(STOPPED)
            with pytest.raises(Closed, match=r"^the relay is shutting down$"):
                home.begin()

    run(story())


def test_nothing_begins_while_the_last_ones_end() -> None:
    async def story() -> None:
        async with house() as home:
            await home.started()
            closing = asyncio.ensure_future(home.runs.aclose(STOPPED))
            await ticks()
            with pytest.raises(Closed):
                home.begin()
            await closing

    run(story())


# --- The log -------------------------------------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Levels and texts of what was logged, without the run's tag."""
    return [(record.levelno, record.getMessage().partition(" ")[2].partition(" ")[2]) for record in caplog.records]


@pytest.mark.parametrize(
    ("script", "level", "words"),
    [
        (WHOLE, logging.INFO, "(text) ended: complete, the answer is whole, request req_1"),
        (HEAD, logging.WARNING, "(text) ended: truncated, the body ended before message_stop, request req_1"),
        (
            b"HTTP/1.1 401 Unauthorized\r\nrequest-id: req_2\r\ncontent-length: 0\r\n\r\n",
            logging.WARNING,
            "(text) ended: error, status 401: no message in the body, request req_2",
        ),
    ],
)
def test_a_run_makes_one_line(script: bytes, level: int, words: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with house(script) as home:
            await home.finished()

    caplog.set_level(logging.INFO)
    run(story())
    assert lines(caplog) == [(level, words)]


@pytest.mark.parametrize("is_started", [False, True])
def test_a_run_that_was_stopped_makes_one_line_too(*, is_started: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with house() as home:
            begun = (await home.started())[0] if is_started else home.begin()
            begun.stop(STOPPED)
            await all_of(begun.reader())

    caplog.set_level(logging.INFO)
    run(story())
    assert lines(caplog) == [
        (logging.INFO, f"(text) ended: cancelled, stopped, request {'req_1' if is_started else 'None'}")
    ]


def test_what_is_wrong_with_the_setup_is_said_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Any:
        raise ConfigurationError("no key: set the environment variable ANTHROPIC_API_KEY")

    async def story() -> None:
        async with house() as home:
            begun = home.runs.begin(TextDialect(), fail)
            got = await all_of(begun.reader())
            assert data(got)[0] == '{"error":"the relay is not set up: see its log","type":"api_error"}'

    run(story())
    words = "(text) ended: error, no key: set the environment variable ANTHROPIC_API_KEY, request None"
    assert lines(caplog) == [(logging.WARNING, words)]
