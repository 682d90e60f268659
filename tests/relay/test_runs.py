"""rawsse.relay.runs: how a run grows, is read, stops, ends and is forgotten; in virtual time, with an API of the test's own."""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from support.clock import run, ticks
from support.streams import ANSWER, PING, STOP, block_start, end, start, text_delta, to_bytes

from rawsse.client.stream import EventStream
from rawsse.errors import ConfigurationError
from rawsse.messages.events import StreamEvent
from rawsse.relay import RunLimits
from rawsse.relay.dialects import (
    COMMENT_HEARTBEAT,
    PING_HEARTBEAT,
    Answer,
    Asked,
    EventsDialect,
    Failure,
    Frame,
    MessagesDialect,
    TextDialect,
)
from rawsse.relay.feed import PIECE_BYTES, PIECES_AT_ONCE, Gone
from rawsse.relay.push import EventPush, UnfoldedAnswer
from rawsse.relay.runs import HEARTBEAT_SECONDS, Run, Runs

from .outlets import LAST_WORD, REQUEST, STOPPED, TEXT_BLOCK, FakeOutlet, data, house, join, texts
from .stage import HEAD, WHOLE, frames


def lonely() -> Run:
    """A run that is in no house."""
    return Run(Asked(TextDialect(), {}, id="some-id"), "", Runs(RunLimits()))


def now() -> float:
    return asyncio.get_running_loop().time()


def told(wire: bytes) -> str:
    """The text in the frames of the text dialect."""
    return "".join(json.loads(each).get("text", "") for each in data(wire) if each != "[DONE]")


# --- Frames and their ids ------------------------------------------------------------------------------------------


def test_frames_are_numbered_from_1() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = home.begin()
            ids = [frame.id for frame in frames(await join(begun).done())]
            assert [begun.number_of(id) for id in ids] == [1, 2, 3]

    run(story())


def test_a_run_of_the_api_itself_has_no_ids() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            assert await join(home.begin(MessagesDialect())).done() == to_bytes(ANSWER)

    run(story())


def test_frames_of_two_runs_are_told_apart_even_if_the_runs_have_the_same_id() -> None:
    async def story() -> None:
        async with house(WHOLE, WHOLE, keep_seconds=1) as home:
            first = await home.finished(id="the-chosen-id-of-a-client")
            (frame, *_) = frames(await join(first).done())
            await asyncio.sleep(2)
            again = await home.finished(id="the-chosen-id-of-a-client")
            assert first.number_of(frame.id) == 1
            assert again.number_of(frame.id) is None

    run(story())


@pytest.mark.parametrize("wrong", ["", "x", "-5", "1.5", "0x1", "³", "1" * 16, "other-1", "1 2", "-"])
def test_what_is_no_id_of_a_frame_has_no_number(wrong: str) -> None:
    async def story() -> None:
        assert lonely().number_of(wrong) is None

    run(story())


@pytest.mark.parametrize("number", ["0", "7", " 7 ", "007"])
def test_a_bare_number_is_taken_too(number: str) -> None:
    async def story() -> None:
        assert lonely().number_of(number) == int(number)

    run(story())


# --- Memory --------------------------------------------------------------------------------------------------------


def test_a_finished_run_keeps_its_frames_but_not_its_request_nor_its_connection() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            streams: list[weakref.ref[EventStream]] = []

            def open_stream() -> EventStream:
                stream = home.client.messages.events(REQUEST, kind=UnfoldedAnswer)
                streams.append(weakref.ref(stream))
                return stream

            begun = home.begin(open_stream=open_stream)
            await join(begun).done()
            await ticks()
            assert begun.last > 0
            assert [stream() for stream in streams] == [None]  # without the garbage collector

    run(story())


# --- Reading -------------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_from_every_frame_on() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = await home.finished(EventsDialect())
            whole = await join(begun).done()
            pieces = [piece + b"\n\n" for piece in whole.split(b"\n\n")[:-1]]
            for after in range(len(pieces) + 1):
                assert await join(begun, after).done() == b"".join(pieces[after:])

    run(story())


def test_every_reader_gets_everything() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = home.begin(EventsDialect())
            got = await asyncio.gather(*(join(begun).done() for _ in range(20)))
            assert len(set(got)) == 1
            assert data(got[0])[-1] == "[DONE]"

    run(story())


def test_many_readers_of_much_text_have_their_turn_a_few_at_a_time() -> None:
    readers = 3 * PIECES_AT_ONCE

    async def story() -> None:
        async with house() as home:
            begun, api = await home.started(EventsDialect())
            outlets = [join(begun) for _ in range(readers)]
            written: list[int] = []  # how many have the text when another connection has its turn

            def look() -> None:
                written.append(sum(len(outlet.body) > 2000 for outlet in outlets))
                if written[-1] < readers - 1:
                    asyncio.get_running_loop().call_soon(look)

            size = 2 * PIECE_BYTES
            api.send(*[text_delta(0, "x" * 1000)] * (size // 1000))
            look()
            outlets[5].leave()  # while it waits for its turn
            await ticks(20)
            assert written[-1] == readers - 1
            assert max(after - before for before, after in pairwise(written)) <= PIECES_AT_ONCE
            api.send(text_delta(0, "the last"), STOP, end=True)
            rest = [outlet for number, outlet in enumerate(outlets) if number != 5]
            bodies = {await outlet.done() for outlet in rest}
            assert len(bodies) == 1
            (body,) = bodies
            assert [frame.id and begun.number_of(frame.id) for frame in frames(body)] == list(range(1, begun.last + 1))

    run(story())


def test_clients_of_many_runs_that_take_more_in_the_same_moment_have_their_turn_a_few_at_a_time() -> None:
    async def story() -> None:
        async with house() as home:
            outlets = []
            for _ in range(3 * PIECES_AT_ONCE):
                begun, api = await home.started()
                outlets.append(join(begun, outlet=FakeOutlet(is_stalled=True)))
                await ticks()
                api.send(*[text_delta(0, "x" * 1000)] * (4 * PIECE_BYTES // 1000))
            await ticks(5)
            before = sum(len(outlet.sent) for outlet in outlets)
            written = [0]
            for outlet in outlets:
                outlet.go_on()
            while written[-1] < len(outlets) * 4 and len(written) < 100:
                await ticks(1)
                written.append(sum(len(outlet.sent) for outlet in outlets) - before)
            assert written[-1] >= len(outlets) * 4
            assert max(after - before for before, after in pairwise(written)) <= PIECES_AT_ONCE

    run(story())


def test_a_reader_that_is_ahead_of_the_run_begins_at_its_tip() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            outlet = join(begun, after=1000)
            api.send(text_delta(0, "Hi"))
            await ticks(5)
            assert data(outlet.body) == ['{"text":"Hi"}']

    run(story())


def test_a_reader_that_has_left_is_sent_no_more() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            outlet, other = join(begun), join(begun)
            await ticks()
            outlet.leave()
            outlet.leave()
            api.send(text_delta(0, "Hi"))
            await asyncio.sleep(20)
            assert len(outlet.sent) == 1
            assert data(other.body) == ['{"text":"Hi"}']

    run(story())


def test_a_reader_takes_whole_frames_in_pieces_of_bounded_size() -> None:
    async def story() -> None:
        body = [start(), block_start(0, TEXT_BLOCK), *texts(400, size=1000), end(), STOP]
        async with house(HEAD + to_bytes(body)) as home:
            outlet = join(await home.finished())
            assert told(await outlet.done()) == "".join(f"{number:01000}" for number in range(400))
            assert max(len(piece) for _, piece in outlet.sent) <= PIECE_BYTES
            assert all(piece.endswith(b"\n\n") for _, piece in outlet.sent)

    run(story())


def test_a_frame_that_is_larger_than_a_piece_is_a_piece() -> None:
    async def story() -> None:
        body = [start(), block_start(0, TEXT_BLOCK), *texts(3, size=3 * PIECE_BYTES), end(), STOP]
        async with house(HEAD + to_bytes(body)) as home:
            outlet = join(await home.finished())
            assert data(await outlet.done())[-1] == "[DONE]"
            assert [len(frames(piece)) for _, piece in outlet.sent] == [1, 1, 1, 1]

    run(story())


def test_what_the_api_sends_at_once_comes_in_such_pieces_too() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            outlet = join(begun)
            api.send(*texts(40, size=1000))
            await ticks(10)
            assert told(outlet.body) == "".join(f"{number:01000}" for number in range(40))
            assert PIECE_BYTES / 2 < max(len(piece) for _, piece in outlet.sent) <= PIECE_BYTES

    run(story())


def test_what_comes_is_sent_in_the_same_moment() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            outlet, before = join(begun), now()
            for word in ("one", "two", "three"):
                await asyncio.sleep(1)
                api.send(text_delta(0, word))
            await ticks(5)
            assert [time - before for time in outlet.times] == [0, 1, 2, 3]

    run(story())


def test_a_reader_that_takes_no_more_is_sent_no_more_until_it_does() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            outlet = join(begun)
            await ticks()
            outlet.stall()
            for raw in texts(5):
                api.send(raw)
            await asyncio.sleep(20)
            assert data(outlet.body) == ['{"text":"0"}']
            outlet.go_on()
            await ticks()
            assert data(outlet.body) == [f'{{"text":"{n}"}}' for n in range(5)]
            api.send(text_delta(0, "5"))
            await ticks(5)
            assert len(data(outlet.body)) == 6

    run(story())


# --- Heads and heartbeats ------------------------------------------------------------------------------------------


def test_a_head_waits_for_the_first_event() -> None:
    async def story() -> None:
        async with house() as home:
            begun, before = home.begin(), now()
            outlet, api = join(begun), await home.call()
            await asyncio.sleep(1)
            assert (outlet.heads, begun.has_begun) == ([], False)
            api.send(start())
            assert await outlet.read() == COMMENT_HEARTBEAT  # that event has no frame
            assert (outlet.heads, begun.has_begun) == ([before + 1], True)
            assert await outlet.read() == COMMENT_HEARTBEAT
            assert now() == before + 1 + HEARTBEAT_SECONDS

    run(story())


def test_a_head_waits_for_no_longer_than_a_heartbeat() -> None:
    async def story() -> None:
        async with house() as home:
            begun, before = home.begin(), now()
            outlet = join(begun)
            assert await outlet.read() == COMMENT_HEARTBEAT
            assert outlet.heads == [before + HEARTBEAT_SECONDS]
            assert begun.has_begun

    run(story())


def test_a_reader_that_does_not_hold_its_head_gets_it_and_a_heartbeat_at_once() -> None:
    async def story() -> None:
        async with house() as home:
            begun, before = home.begin(), now()
            outlet = join(begun, holds=False)
            assert (outlet.heads, outlet.sent) == ([before], [(before, COMMENT_HEARTBEAT)])
            (await home.call()).send(start())
            await ticks(5)
            assert len(outlet.sent) == 1

    run(story())


def test_a_reader_that_has_something_to_read_gets_that_and_no_heartbeat() -> None:
    async def story() -> None:
        async with house() as home:
            begun, _ = await home.started(EventsDialect())
            outlet = join(begun)
            assert b"keep-alive" not in await outlet.read()
            assert len(outlet.sent) == 1

    run(story())


def test_a_heartbeat_comes_when_nothing_else_was_sent_for_so_long() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            outlet, before = join(begun), now()
            await asyncio.sleep(10)
            api.send(text_delta(0, "Hi"))
            await asyncio.sleep(45)
            assert [time - before for time in outlet.times] == [0, 10, 25, 40, 55]
            assert {piece for _, piece in outlet.sent[2:]} == {COMMENT_HEARTBEAT}

    run(story())


def test_an_event_without_a_frame_is_not_sent_and_puts_no_heartbeat_off() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            outlet, before = join(begun), now()
            await asyncio.sleep(10)
            api.send(PING)
            await asyncio.sleep(6)
            assert [time - before for time in outlet.times] == [0, 15]

    run(story())


def test_heartbeats_go_to_those_alone_who_have_read_everything() -> None:
    async def story() -> None:
        async with house() as home:
            begun, _ = await home.started(EventsDialect())
            outlet, slow = join(begun), join(begun, outlet=FakeOutlet(is_stalled=True))
            await asyncio.sleep(46)
            assert (len(outlet.sent), len(slow.sent)) == (4, 1)
            slow.take()
            await asyncio.sleep(15)
            assert (len(outlet.sent), len(slow.sent)) == (5, 2)

    run(story())


def test_the_clients_of_the_api_get_its_own_pings() -> None:
    async def story() -> None:
        async with house() as home:
            outlet = join(home.begin(MessagesDialect()))
            assert await outlet.read() == PING_HEARTBEAT

    run(story())


def test_nothing_is_sent_after_the_end() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            outlet = join(home.begin())
            whole = await outlet.done()
            await asyncio.sleep(100)
            assert outlet.body == whole

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
            got = await join(home.begin(EventsDialect())).done()
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
            assert data(await join(home.begin(Broken())).done()) == [
                '{"error":"the run failed: see the log of the server","type":"api_error"}',
                "[DONE]",
            ]

    run(story())
    bug, ending = caplog.records
    assert bug.getMessage().endswith("failed: an unexpected exception")
    assert bug.exc_info
    assert "ended: error, the run failed: see the log of the server, model claude-sonnet-5," in ending.getMessage()


# --- Stopping ------------------------------------------------------------------------------------------------------


def test_a_run_stops_between_two_events() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            api.send(text_delta(0, "Hi"))
            outlet = join(begun)
            await ticks(5)
            assert data(outlet.body) == ['{"text":"Hi"}']
            begun.stop(STOPPED)
            assert data(outlet.body)[1:] == LAST_WORD
            assert api.is_closed

    run(story())


def test_a_run_stops_before_the_api_has_answered() -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin()
            outlet, api = join(begun), await home.call()
            begun.stop(STOPPED)
            assert data(await outlet.done()) == LAST_WORD
            await ticks(3)
            assert api.is_closed

    run(story())


def test_a_stop_sends_the_last_word_at_once_also_while_the_api_is_called() -> None:
    async def story() -> None:
        async with house() as home:
            outlet = join(home.begin())
            await home.call()
            home.runs.open()[0].stop(STOPPED)
            assert (data(outlet.body), outlet.is_ended) == (LAST_WORD, True)

    run(story())


def test_a_run_stops_before_its_first_step_and_the_api_is_not_called() -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin()
            begun.stop(STOPPED)
            assert data(await join(begun).done()) == LAST_WORD
            assert home.calls == []

    run(story())


@pytest.mark.parametrize("is_started", [False, True])
def test_the_first_word_of_a_stop_counts(*, is_started: bool) -> None:
    async def story() -> None:
        async with house() as home:
            begun = (await home.started())[0] if is_started else home.begin()
            begun.stop(STOPPED)
            begun.stop(Failure(200, "cancelled", "again"))
            assert data(await join(begun).done()) == LAST_WORD

    run(story())


def test_a_run_that_is_over_cannot_be_stopped() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = await home.finished()
            begun.stop(STOPPED)
            await ticks(3)
            assert begun.failure is None
            assert data(await join(begun).done())[-1] == "[DONE]"

    run(story())


@pytest.mark.parametrize("pause", range(12))
def test_stop_and_the_end_in_the_same_moment_make_one_end(pause: int) -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started(EventsDialect())
            api.send(end(), STOP)
            await ticks(pause)
            begun.stop(STOPPED)
            got = frames(await join(begun).done())
            ends = [frame for frame in got if frame.event in ("message_stop", "error")]
            assert len(ends) == 1
            assert [frame.data for frame in got].count("[DONE]") == 1

    run(story())


def test_a_run_stops_while_it_waits_for_a_slow_reader() -> None:
    async def story() -> None:
        async with house(max_log_bytes=500) as home:
            begun, api = await home.started()
            outlet = join(begun, outlet=FakeOutlet(is_stalled=True))
            api.send(*texts(100))
            await ticks(5)
            begun.stop(STOPPED)
            assert api.is_closed
            outlet.go_on()
            assert data(await outlet.done())[-2:] == LAST_WORD

    run(story())


def test_a_run_whose_task_is_cancelled_by_somebody_else_says_so_and_stays_cancelled() -> None:
    async def story() -> None:
        async with house() as home:
            begun = lonely()
            task = begun.begin(partial(EventPush, lambda: home.client.messages.events(REQUEST, kind=UnfoldedAnswer)))
            await home.call()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert data(await join(begun).done())[0] == '{"error":"the server was stopped","type":"cancelled"}'

    run(story())


# --- Grace ---------------------------------------------------------------------------------------------------------


def test_a_run_that_nobody_reads_goes_on_for_its_grace_time_and_no_longer() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, api = await home.started()
            join(begun).leave()
            await asyncio.sleep(9.9)
            assert (begun.is_finished, api.is_closed) == (False, False)
            await asyncio.sleep(0.2)
            assert (begun.is_finished, api.is_closed) == (True, True)
            assert (
                data(await join(begun).done())[0] == '{"error":"no client read the answer for 10 s","type":"cancelled"}'
            )

    run(story())


def test_a_reader_that_comes_back_stops_the_clock() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, _ = await home.started()
            join(begun).leave()
            await asyncio.sleep(9.9)
            outlet = join(begun)
            await asyncio.sleep(60)
            assert not begun.is_finished
            outlet.leave()
            await asyncio.sleep(9.9)
            assert not begun.is_finished

    run(story())


def test_the_clock_runs_only_when_the_last_reader_has_left() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, _ = await home.started()
            first, second = join(begun), join(begun)
            first.leave()
            await asyncio.sleep(60)
            assert not begun.is_finished
            second.leave()
            await asyncio.sleep(10.1)
            assert begun.is_finished

    run(story())


def test_a_reader_that_is_closed_twice_has_left_once() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, _ = await home.started()
            outlet = join(begun)
            outlet.leave()
            outlet.sink.close()
            await asyncio.sleep(5)
            join(begun)
            await asyncio.sleep(30)
            assert not begun.is_finished

    run(story())


def test_a_run_that_ends_within_its_grace_time_is_whole() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, api = await home.started()
            join(begun).leave()
            api.send(end(), STOP)
            await asyncio.sleep(100)
            assert begun.ending is not None
            assert begun.ending.kind == "complete"

    run(story())


def test_a_run_whose_client_cannot_come_back_has_no_grace() -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, api = await home.started(MessagesDialect())
            join(begun).leave()
            await ticks(3)
            assert begun.is_finished
            assert api.is_closed

    run(story())


# --- Memory --------------------------------------------------------------------------------------------------------

FLOOD = to_bytes([text_delta(0, "x" * 100)])
FRAME = len(FLOOD) + len("id: 01234567-1000\n")


@pytest.mark.parametrize(
    ("dialect", "limits"),
    [(EventsDialect(), {"max_log_bytes": 50_000}), (MessagesDialect(), {"max_unread_bytes": 50_000})],
    ids=["resumable", "not resumable"],
)
def test_a_reader_that_does_not_read_stops_the_api(dialect: Any, limits: dict[str, int]) -> None:
    async def story() -> None:
        async with house(**limits) as home:
            begun, api = await home.started(dialect)
            join(begun, outlet=FakeOutlet(is_stalled=True))
            api.flood = FLOOD
            api.send(PING)
            await asyncio.sleep(10)
            assert 50_000 < begun.log_bytes <= 50_000 + FRAME
            reads = api.reads
            await asyncio.sleep(10)
            assert api.reads == reads

    run(story())


@pytest.mark.parametrize("dialect", [EventsDialect(), MessagesDialect()], ids=lambda dialect: dialect.name)
def test_it_goes_on_when_the_reader_reads_and_keeps_no_more_than_it_may(dialect: Any) -> None:
    async def story() -> None:
        async with house(max_log_bytes=5_000, max_unread_bytes=5_000) as home:
            begun, api = await home.started(dialect)
            outlet = join(begun, outlet=FakeOutlet(is_stalled=True))
            api.flood = FLOOD
            api.send(PING)
            while len(outlet.body) < 50_000:
                outlet.take()
                await ticks()
                assert begun.log_bytes <= 5_000 + FRAME

    run(story())


def test_what_the_client_of_the_api_has_read_is_not_kept_for_long() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started(MessagesDialect())
            assert begun.log_bytes > 0
            outlet = join(begun)
            assert begun.log_bytes == 0
            for count in range(3, 100):
                api.send(text_delta(0, "Hi" * 50))
                await ticks(3)
                assert len(frames(outlet.body)) == count
                assert begun.log_bytes <= PIECE_BYTES

    run(story())


def test_no_frame_is_lost_or_doubled_however_narrow_the_log() -> None:
    async def story() -> None:
        body = [start(), block_start(0, TEXT_BLOCK), *texts(100), end(), STOP]
        async with house(HEAD + to_bytes(body), max_log_bytes=1) as home:
            begun = home.begin()
            fast, slow = join(begun), join(begun, outlet=FakeOutlet(is_stalled=True))
            while not slow.is_ended:
                await asyncio.sleep(1)
                slow.take()
            assert data(fast.body) == data(slow.body) == [f'{{"text":"{n}"}}' for n in range(100)] + ["[DONE]"]

    run(story())


def test_what_every_reader_has_read_is_forgotten_first() -> None:
    async def story() -> None:
        body = [start(), block_start(0, TEXT_BLOCK), *texts(100), end(), STOP]
        async with house(HEAD + to_bytes(body), max_log_bytes=1000) as home:
            begun = await home.finished()
            with pytest.raises(Gone, match=r"^frames before \d\d are no longer kept$"):
                join(begun)
            assert data(await join(begun, begun.last - 2).done()) == ['{"text":"99"}', "[DONE]"]

    run(story())


def test_while_nobody_reads_nothing_is_forgotten() -> None:
    async def story() -> None:
        async with house(max_log_bytes=1000) as home:
            begun, api = await home.started()
            join(begun).leave()
            api.flood = FLOOD
            api.send(PING)
            await asyncio.sleep(1)
            assert begun.first == 1
            assert data(await join(begun).read())[0] == '{"text":"' + "x" * 100 + '"}'

    run(story())


def test_a_slow_reader_that_leaves_makes_room_for_the_others() -> None:
    async def story() -> None:
        async with house(max_log_bytes=1000) as home:
            begun, api = await home.started()
            outlet, slow = join(begun), join(begun, outlet=FakeOutlet(is_stalled=True))
            for raw in texts(100):
                api.send(raw)
            await asyncio.sleep(60)
            assert 0 < len(data(outlet.body)) < 100
            slow.leave()
            await ticks(200)
            assert len(data(outlet.body)) == 100

    run(story())


# --- All runs ------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_its_id_until_it_is_forgotten() -> None:
    async def story() -> None:
        async with house(WHOLE, keep_seconds=300) as home:
            begun = await home.finished()
            await asyncio.sleep(299)
            assert home.runs.get("", begun.id) is begun
            await asyncio.sleep(2)
            assert home.runs.get("", begun.id) is None
            assert home.runs._runs == {}

    run(story())


def test_a_run_that_goes_on_is_not_forgotten() -> None:
    async def story() -> None:
        async with house(keep_seconds=1, grace_seconds=1) as home:
            begun, _ = await home.started()
            join(begun)
            await asyncio.sleep(60)
            assert home.runs.get("", begun.id) is begun

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
            assert home.runs.by_alias("", "chat") is first
            await asyncio.sleep(5)
            second = await home.finished(alias="chat")
            await asyncio.sleep(6)  # the first is forgotten, and takes no name of the second with it
            assert home.runs.by_alias("", "chat") is second
            await asyncio.sleep(6)
            assert home.runs.by_alias("", "chat") is None

    run(story())


def test_above_max_runs_a_new_one_is_refused() -> None:
    async def story() -> None:
        async with house(max_runs=2) as home:
            home.begin()
            home.begin()
            with pytest.raises(Answer, match=r"^2 runs are not finished$") as caught:
                home.begin()
            assert (caught.value.status, caught.value.headers) == (503, (("retry-after", "5"),))

    run(story())


def test_the_oldest_finished_run_makes_room_for_a_new_one() -> None:
    async def story() -> None:
        async with house(WHOLE, WHOLE, WHOLE, max_runs=2) as home:
            first, second = await home.finished(), await home.finished()
            third = home.begin()
            kept = [home.runs.get("", begun.id) for begun in (first, second, third)]
            assert kept == [None, second, third]
            await join(third).done()

    run(story())


def test_runs_that_are_stopped_together_may_be_more_than_is_kept() -> None:
    async def story() -> None:
        async with house(max_kept_bytes=10) as home:
            outlets = [join((await home.started())[0]) for _ in range(3)]
            await home.runs.aclose(STOPPED)
            assert [data(outlet.body)[-2:] for outlet in outlets] == [LAST_WORD] * 3

    run(story())


def test_finished_runs_together_keep_no_more_than_they_may() -> None:
    async def story() -> None:
        async with house(WHOLE, WHOLE, WHOLE, max_kept_bytes=250) as home:
            runs = [await home.finished() for _ in range(3)]
            assert all(100 < begun.log_bytes < 125 for begun in runs)
            assert [home.runs.get("", begun.id) for begun in runs] == [None, *runs[1:]]

    run(story())


def test_what_a_reader_takes_of_a_run_in_the_moment_of_its_end_is_not_counted() -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin(MessagesDialect())
            outlet = join(begun, outlet=FakeOutlet(is_stalled=True))
            (await home.call()).send(start(), block_start(0, TEXT_BLOCK), *texts(300))
            await asyncio.sleep(1)
            begun.stop(STOPPED)
            outlet.go_on()  # before the run is forgotten
            await asyncio.sleep(1)
            assert (home.runs.get("", begun.id), home.runs._kept_bytes) == (None, 0)

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
            outlets = [join(busy), join(unstarted)]
            await home.runs.aclose(Failure(503, "shutdown", "bye", retry=2000))
            assert (home.runs._runs, api.is_closed) == ({}, True)
            for outlet in outlets:
                last = await outlet.done()
                assert data(last) == ['{"error":"bye","type":"shutdown"}', "[DONE]"]
                assert b"retry: 2000\n" in last

    run(story())


def test_nothing_begins_after_aclose() -> None:
    async def story() -> None:
        async with house() as home:
            await home.runs.aclose(STOPPED)
            with pytest.raises(Answer, match=r"^the server is shutting down$"):
                home.begin()

    run(story())


def test_nothing_begins_while_the_last_ones_end() -> None:
    async def story() -> None:
        async with house() as home:
            home.begin()
            await home.call()
            closing = asyncio.ensure_future(home.runs.aclose(STOPPED))
            await ticks()
            with pytest.raises(Answer, match=r"^the server is shutting down$"):
                home.begin()
            await closing

    run(story())


# --- The log -------------------------------------------------------------------------------------------------------


NOTHING = "model claude-x, 0 tokens in, 0 out, 0.0 s"
BEGUN = "model claude-sonnet-5, 10 tokens in, 1 out, 0.0 s"


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """Levels and texts of what was logged, without the run's tag."""
    return [(record.levelno, record.getMessage().partition(" ")[2].partition(" ")[2]) for record in caplog.records]


@pytest.mark.parametrize(
    ("script", "level", "words"),
    [
        (
            WHOLE,
            logging.INFO,
            "(text) ended: complete, the answer is whole, model claude-sonnet-5, 10 tokens in, 7 out, 0.0 s, request req_1",
        ),
        (
            HEAD,
            logging.WARNING,
            (
                "(text) ended: truncated, the body ended before message_stop, model claude-x, about 14 tokens in, 0 out, "
                "0.0 s, request req_1"
            ),
        ),
        (
            b"HTTP/1.1 401 Unauthorized\r\nrequest-id: req_2\r\ncontent-length: 0\r\n\r\n",
            logging.WARNING,
            f"(text) ended: error, status 401: no message in the body, {NOTHING}, request req_2",
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
            await join(begun).done()

    caplog.set_level(logging.INFO)
    run(story())
    assert lines(caplog) == [
        (logging.INFO, f"(text) ended: cancelled, stopped, {BEGUN}, request req_1")
        if is_started
        else (logging.INFO, f"(text) ended: cancelled, stopped, {NOTHING}, request None")
    ]


def test_what_is_wrong_with_the_setup_is_said_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Any:
        raise ConfigurationError("no key: set the environment variable ANTHROPIC_API_KEY")

    async def story() -> None:
        async with house() as home:
            begun = home.begin(open_stream=fail)
            got = await join(begun).done()
            assert data(got)[0] == '{"error":"the relay is not set up: see its log","type":"api_error"}'

    run(story())
    words = f"(text) ended: error, no key: set the environment variable ANTHROPIC_API_KEY, {NOTHING}, request None"
    assert lines(caplog) == [(logging.WARNING, words)]
