"""Readers that are behind or come late, several runs in one connection, and runs that nothing reads."""

from __future__ import annotations

import asyncio
import json
import random
import re
from functools import partial
from typing import Any

import pytest
from support.clock import run, ticks
from support.streams import (
    ANSWER,
    STOP,
    Raw,
    block,
    block_start,
    delta,
    end,
    fold,
    input_delta,
    start,
    text_delta,
    to_bytes,
    tool_block,
)

from rawsse.messages import MessageBuilder
from rawsse.relay import RunLimits
from rawsse.relay.app import MAX_RUNS_READ
from rawsse.relay.dialects import EventsDialect, MessagesDialect, TextDialect, frame, join_deltas, json_string, snapshot
from rawsse.relay.feed import PIECE_BYTES
from rawsse.relay.follow import follow, follow_all
from rawsse.relay.ui import UIDialect
from rawsse.sse import Event

from .outlets import TEXT_BLOCK, FakeOutlet, house, join, texts
from .stage import CHAT, HEAD, WHOLE, error_json, error_of, frames, relay
from .test_record import Rows

MANY = [f"{number} \N{GRINNING FACE} " for number in range(1000)]
HALVES = ["\ud83d", "\ude00", '"', "\\"]
LONG = HEAD + to_bytes([start(), *block(0, TEXT_BLOCK, *map(partial(text_delta, 0), MANY)), end(), STOP])
ASYNC = {"prefer": "respond-async"}


def text_in(events: list[Event]) -> str:
    """The text in frames of the text and ui dialects."""
    chunks = [json.loads(each.data) for each in events if each.data != "[DONE]"]
    return "".join(chunk.get("text", chunk.get("delta", "")) for chunk in chunks)


# --- A reader that is behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [TextDialect, UIDialect])
def test_pieces_of_text_are_joined_for_a_reader_that_is_behind_and_none_is_lost(dialect: Any) -> None:
    async def story() -> tuple[list[Event], list[Event]]:
        raws = [start(), *block(0, TEXT_BLOCK, *map(partial(text_delta, 0), (*HALVES, *MANY))), end(), STOP]
        wire = "".join(frame(json.dumps(raw), raw["type"]) for raw in raws)
        async with house(HEAD + wire.encode()) as home:
            begun = await home.finished(dialect())
            return frames(await join(begun).done()), frames(begun.kept()[0])

    joined, log = run(story())
    assert text_in(joined) == text_in(log).encode("utf-16", "surrogatepass").decode("utf-16")
    # Two halves of a character that came apart are one again: JSON's escapes join.
    assert text_in(joined) == '\N{GRINNING FACE}"\\' + "".join(MANY)
    # Every piece but the last is one frame; that has all of its own, each longer than this.
    assert len(joined) < len(log) / 50 + PIECE_BYTES / len('id: 01234567-1\ndata: {"text":""}\n\n')
    ids = [int(each.id.rpartition("-")[2]) for each in joined]
    assert ids == sorted(set(ids))
    assert ids[-1] == len(log)


def test_a_client_that_comes_back_with_the_id_of_a_joined_frame_gets_the_rest() -> None:
    async def story() -> None:
        async with house(LONG) as home:
            begun = await home.finished()
            whole = frames(await join(begun).done())
            for at in range(1, len(whole)):
                after = begun.number_of(whole[at - 1].id)
                assert after is not None
                rest = frames(await join(begun, after).done())
                assert text_in(whole[:at]) + text_in(rest) == "".join(MANY)

    run(story())


def test_a_reader_that_is_behind_by_less_than_a_piece_gets_every_frame() -> None:
    async def story() -> None:
        async with house(WHOLE) as home:
            begun = await home.finished()
            assert await join(begun).done() == begun.kept()[0]
            assert len(begun.kept()[0]) < PIECE_BYTES

    run(story())


@pytest.mark.parametrize("dialect", [EventsDialect, MessagesDialect])
def test_the_events_of_the_api_are_never_joined(dialect: Any) -> None:
    body = [start(), *block(0, TEXT_BLOCK, *texts(1000)), end(), STOP]

    async def story() -> None:
        async with house() as home:
            outlet = join(home.begin(dialect()), outlet=FakeOutlet(is_stalled=True))
            (await home.call()).send(*body, end=True)
            while not outlet.is_ended:
                await ticks(3)
                outlet.take()
            sent = [json.loads(each.data) for each in frames(outlet.body) if each.data not in ("[DONE]", "")]
            assert [each for each in sent if each != {"type": "ping"}] == body

    run(story())


def numbered(*data: str) -> list[bytes]:
    return [f"id: t-{number}\n{each}".encode() for number, each in enumerate(data, 1)]


def piece(text: str) -> str:
    return f'data: {{"text":{json_string(text)}}}\n\n'


def part(id: str, text: str, kind: str = "text") -> str:
    return f'data: {{"type":"{kind}-delta","id":"{id}","delta":{json_string(text)}}}\n\n'


TEXT, UI = TextDialect.delta, UIDialect.delta


@pytest.mark.parametrize(
    ("given", "dialect", "expected"),
    [
        ([], TEXT, b""),
        (numbered(piece("a")), TEXT, b'id: t-1\ndata: {"text":"a"}\n\n'),
        (numbered(piece("a"), piece('"b\n')), TEXT, b'id: t-2\ndata: {"text":"a\\"b\\n"}\n\n'),
        (numbered(piece("a"), frame("[DONE]")), TEXT, b'id: t-1\ndata: {"text":"a"}\n\nid: t-2\ndata: [DONE]\n\n'),
        (numbered(piece("a"), 'data: {"error":"x"}\n\n', piece("b")), TEXT, None),
        (numbered(piece("a"), 'data: {"text":"x","more":1}\n\n', piece("b")), TEXT, None),
        (numbered(piece("a"), "retry: 5\n" + piece("b")), TEXT, None),
        (numbered(part("0", "a"), part("1", "b")), UI, None),
        (numbered(part("0", "a"), part("0", "b", "reasoning")), UI, None),
        (
            numbered(part("0", "a"), part("0", "b")),
            UI,
            b'id: t-2\ndata: {"type":"text-delta","id":"0","delta":"ab"}\n\n',
        ),
    ],
)
def test_only_pieces_of_the_same_text_that_follow_each_other_are_joined(
    given: list[bytes], dialect: re.Pattern[bytes], expected: bytes | None
) -> None:
    assert join_deltas(b"".join(given), dialect) == (b"".join(given) if expected is None else expected)


def test_joining_loses_nothing_of_any_sequence() -> None:
    chance = random.Random(7)
    for _ in range(500):
        words = chance.choices(
            ["a", '"', "\\", "\n\n", "\ud83d", "\ude00", 'x","y', "\u2028", ""], k=chance.randint(0, 12)
        )
        mixed = [piece(word) if chance.random() < 0.8 else frame(f"[{word!a}]") for word in words]
        joined = frames(join_deltas(b"".join(numbered(*mixed)), TEXT) if TEXT else b"")

        def flat(events: list[Event]) -> list[str]:
            said: list[str] = []
            for each in events:
                text = json.loads(each.data)["text"] if each.data.startswith("{") else None
                if text is not None and said and said[-1].startswith("text "):
                    said[-1] += text
                else:
                    said.append(f"text {text}" if text is not None else each.data)
            return [json.dumps(json.loads(json.dumps(each))) for each in said]

        assert flat(joined) == flat(frames(b"".join(numbered(*mixed))))


# --- A snapshot -------------------------------------------------------------------------------------------------------


def test_a_snapshot_has_the_text_so_far_in_one_frame_and_then_the_tail() -> None:
    async def story() -> None:
        async with relay() as stage:
            first = stage.ask("POST", "/stream", CHAT)
            api = await stage.call()
            api.send(start(), block_start(0, TEXT_BLOCK), *texts(50))
            await ticks(5)
            late = stage.ask("GET", f"/runs/{first.headers['x-run-id']}", query="snapshot=1")
            await ticks(5)
            assert late.data == [json.dumps({"text": "".join(map(str, range(50)))}, separators=(",", ":"))]
            assert late.frames[0].id == first.frames[-1].id
            api.send(text_delta(0, " more"), end(), STOP, end=True)
            await late.done()
            assert late.data[1:] == ['{"text":" more"}', "[DONE]"]
            again = await stage.ask("GET", f"/runs/{first.headers['x-run-id']}", query="snapshot=1").done()
            assert again.data == ['{"text":"' + "".join(map(str, range(50))) + ' more"}', "[DONE]"]

    run(story())


TOOL: list[Raw] = [start(), *block(0, TEXT_BLOCK, text_delta(0, "Hm. ")), block_start(1, tool_block())]
INPUT = [input_delta(1, '{"pla'), input_delta(1, 'ce": "Bergen"}')]


def test_a_snapshot_of_the_api_s_events_is_the_message_so_far_and_what_of_an_input_has_come() -> None:
    async def story() -> None:
        async with relay() as stage:
            first = stage.ask("POST", "/api/chat", {"messages": [{"role": "user", "content": "x"}]})
            api = await stage.call()
            api.send(*TOOL, INPUT[0])
            await ticks(5)
            late = stage.ask("GET", f"/runs/{first.headers['x-run-id']}", query="snapshot=1")
            await ticks(5)
            (state,) = late.frames
            assert state.event == "snapshot"
            message = fold([*TOOL, INPUT[0]]).message
            assert message is not None
            assert json.loads(state.data) == {
                "type": "snapshot",
                "message": message.to_dict(),
                "inputs": {"1": '{"pla'},
            }
            api.send(INPUT[1], {"type": "content_block_stop", "index": 1}, end("tool_use"), STOP, end=True)
            await late.done()
            assert [each.event for each in late.frames[1:]] == [each.event for each in first.frames[-5:]]

    run(story())


@pytest.mark.parametrize("dialect", [TextDialect(), UIDialect(), EventsDialect()])
def test_a_snapshot_and_its_tail_are_the_whole_answer_at_every_cut(dialect: Any) -> None:
    body = [start(), *block(0, TEXT_BLOCK, *texts(5)), *TOOL[-1:], *INPUT, {"type": "content_block_stop", "index": 1}]

    async def story() -> bytes:
        async with house(HEAD + to_bytes([*body, end("tool_use"), STOP])) as home:
            return (await home.finished(dialect)).kept()[0]

    log = [each + b"\n\n" for each in run(story()).split(b"\n\n")[:-1]]
    for cut in range(len(log) + 1):
        early, late = snapshot(b"".join(log[:cut]), dialect), b"".join(log[cut:])
        assert (cut == 0) is (early == b"")
        if cut:
            assert frames(early)[-1].id == frames(b"".join(log[:cut]))[-1].id
        if dialect.name != "events":
            assert text_in(frames(early + late)) == text_in(frames(b"".join(log)))
            continue
        builder = MessageBuilder()
        for each in frames(b"".join(log[: max(cut, 1)])):
            builder.feed(each)
        state = json.loads(frames(early)[0].data) if cut else None
        assert state is None or (builder.message is not None and state["message"] == builder.message.to_dict())


def test_a_snapshot_keeps_the_last_words_of_a_failure() -> None:
    async def story() -> None:
        async with relay(HEAD + to_bytes(ANSWER[:4])) as stage:
            first = await stage.ask("POST", "/api/chat", {"messages": [{"role": "user", "content": "x"}]}).done()
            late = await stage.ask("GET", f"/runs/{first.headers['x-run-id']}", query="snapshot=1").done()
            assert [each.event for each in late.frames] == ["snapshot", "error", "message"]
            assert late.frames[1:] == first.frames[-2:]

    run(story())


def test_a_snapshot_of_an_answer_that_cannot_be_folded_is_its_events() -> None:
    strange = delta(0, "text_delta", text=None)
    log = b"".join(
        numbered(*(frame(json.dumps(raw), raw["type"]) for raw in (start(), block_start(0, TEXT_BLOCK), strange)))
    )
    assert snapshot(log, EventsDialect()) == log


def test_there_is_no_snapshot_once_the_beginning_is_no_longer_kept() -> None:
    async def story() -> None:
        async with relay(LONG, limits=RunLimits(max_log_bytes=2000)) as stage:
            first = await stage.ask("POST", "/stream", CHAT).done()
            late = await stage.ask("GET", f"/runs/{first.headers['x-run-id']}", query="snapshot=1").done()
            assert error_json(late) == (410, "not_found_error", None)

    run(story())


@pytest.mark.parametrize(
    ("query", "is_one"),
    [
        *(("snapshot", True), ("snapshot=", True), ("snapshot=1", True), ("snapshot=true", True)),
        *(("snapshot=0", False), ("snapshot=false", False), ("", False)),
    ],
)
def test_a_snapshot_is_given_to_those_who_say_yes(query: str, is_one: bool) -> None:
    async def story() -> None:
        async with relay(WHOLE) as stage:
            first = await stage.ask("POST", "/api/chat", CHAT).done()
            again = await stage.ask("GET", f"/runs/{first.headers['x-run-id']}", query=query).done()
            assert any(frame.event == "snapshot" for frame in again.frames) is is_one

    run(story())


@pytest.mark.parametrize("query", ["snapshot=yes", "snapshot=2", "snapshot=False"])
def test_a_snapshot_that_is_neither_yes_nor_no_is_refused(query: str) -> None:
    async def story() -> None:
        async with relay(WHOLE) as stage:
            first = await stage.ask("POST", "/api/chat", CHAT).done()
            again = await stage.ask("GET", f"/runs/{first.headers['x-run-id']}", query=query).done()
            assert error_json(again) == (400, "invalid_request_error", "snapshot")

    run(story())


@pytest.mark.parametrize("query", ["snapshot=1", "after=last"])
def test_a_run_that_waited_for_room_goes_on_for_a_client_that_has_read_all_of_it(query: str) -> None:
    async def story() -> None:
        async with relay(limits=RunLimits(max_log_bytes=1000)) as stage:
            first = stage.ask("POST", "/stream", CHAT)
            api = await stage.call()
            api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "x"))
            await ticks(5)
            first.leave()
            await first.done()
            api.send(*texts(100))
            await ticks(5)
            (found,) = stage.relay.open_runs()
            assert found.first == 1  # nothing is forgotten as long as nothing reads
            last = query.replace("last", f"{found.tag}-{found.last}")
            late = stage.ask("GET", f"/runs/{found.id}", query=last)
            await ticks(5)
            api.send(text_delta(0, "more"), end(), STOP, end=True)
            await ticks(10)
            assert late.data[-2:] == ['{"text":"more"}', "[DONE]"]

    run(story())


# --- Several runs in one connection ---------------------------------------------------------------------------------


def test_one_connection_reads_several_runs_until_all_have_ended() -> None:
    async def story() -> None:
        async with relay() as stage:
            posted = [stage.ask("POST", "/stream", CHAT) for _ in range(3)]
            apis = [await stage.call() for _ in posted]
            for number, api in enumerate(apis):
                api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, f"run {number}"))
            await ticks(5)
            ids = [browser.headers["x-run-id"] for browser in posted]
            both = stage.ask("GET", "/runs", query="&".join(f"id={id}" for id in (*ids, "not-there-at-all-1")))
            await ticks(5)
            first, *rest = both.frames
            told = json.loads(first.data)
            assert (first.event, sorted(told["runs"].values()), told["missing"]) == (
                "runs",
                sorted(ids),
                ["not-there-at-all-1"],
            )
            by_run = {told["runs"][each.id.rpartition("-")[0]]: each.data for each in rest if each.data}
            assert by_run == {id: f'{{"text":"run {number}"}}' for number, id in enumerate(ids)}
            for api in apis:
                assert not both.is_ended
                api.send(end(), STOP, end=True)
                await ticks(5)
            await both.done()
            assert both.data.count("[DONE]") == 3
            for browser in posted:
                await browser.done()

    run(story())


def test_each_run_goes_on_after_the_frame_that_its_reader_names() -> None:
    async def story() -> None:
        async with relay(WHOLE, WHOLE) as stage:
            posted = [await stage.ask("POST", "/stream", CHAT).done() for _ in range(2)]
            ids = "&".join(f"id={browser.headers['x-run-id']}" for browser in posted)
            after = "&".join(f"after={browser.frames[0].id}" for browser in posted)
            rest = await stage.ask("GET", "/runs", query=f"{ids}&{after}").done()
            assert sorted(rest.data[1:]) == sorted([*posted[0].data[1:], *posted[1].data[1:]])
            last = "&".join(f"after={browser.frames[-1].id}" for browser in posted)
            assert (await stage.ask("GET", "/runs", query=f"{ids}&{last}").done()).status == 204
            part = "&".join((ids, f"after={posted[0].frames[-1].id}"))
            header = {"last-event-id": posted[1].frames[-1].id}
            assert (await stage.ask("GET", "/runs", headers=header, query=part).done()).status == 204

    run(story())


def test_a_client_of_several_runs_that_leaves_leaves_all_of_them() -> None:
    async def story() -> None:
        async with relay() as stage:
            posted = [stage.ask("POST", "/stream", CHAT) for _ in range(2)]
            apis = [await stage.call() for _ in posted]
            for api in apis:
                api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "x"))
            await ticks(5)
            both = stage.ask("GET", "/runs", query="&".join(f"id={each.headers['x-run-id']}" for each in posted))
            await ticks(5)
            for browser in (*posted, both):
                browser.leave()
                await browser.done()
            await asyncio.sleep(10)
            await ticks(5)
            assert all(api.is_closed for api in apis)

    run(story())


@pytest.mark.parametrize("reads", [follow, lambda exchange, run: follow_all(exchange, [(run, 0)], [])])
def test_a_host_that_cancels_a_request_has_left_the_run_at_once(reads: Any) -> None:
    class Silent:
        """The exchange of a host that does not say that the client has gone."""

        def fields(self, headers: Any) -> Any:
            return headers

        def outlet(self) -> FakeOutlet:
            return FakeOutlet()

    async def story() -> None:
        async with house() as home:
            begun, _ = await home.started()
            request = asyncio.create_task(reads(Silent(), begun))
            await ticks(2)
            assert begun.readers == 1
            request.cancel()
            await asyncio.wait({request})
            assert begun.readers == 0

    run(story())


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_request_names_a_bounded_number_of_runs(method: str) -> None:
    async def story() -> None:
        async with relay() as stage:
            query = "&".join(f"id=not-there-at-all-{number}" for number in range(MAX_RUNS_READ + 1))
            assert error_json(await stage.ask(method, "/runs", query=query).done()) == (
                400,
                "invalid_request_error",
                "id",
            )

    run(story())


def test_a_connection_whose_runs_are_all_missing_ends_with_their_names() -> None:
    async def story() -> None:
        async with relay() as stage:
            browser = await stage.ask("GET", "/runs", query="id=not-there-at-all-1").done()
            assert [json.loads(each) for each in browser.data] == [{"runs": {}, "missing": ["not-there-at-all-1"]}]

    run(story())


# --- A run that nothing reads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/stream", "/api/chat"])
def test_a_page_may_begin_an_answer_and_read_it_elsewhere(path: str) -> None:
    async def story() -> None:
        async with relay() as stage:
            body = {"messages": [{"role": "user", "content": "x"}]}
            begun = await stage.ask("POST", path, body, headers=ASYNC).done()
            assert (begun.status, begun.headers["preference-applied"]) == (202, "respond-async")
            assert begun.json == {"run": begun.headers["x-run-id"]}
            reader = stage.ask("GET", f"/runs/{begun.headers['x-run-id']}")
            (await stage.call()).send(*ANSWER, end=True)
            await reader.done()
            assert reader.data[-1] == "[DONE]"

    run(story())


def test_an_answer_that_nobody_comes_to_read_is_cancelled() -> None:
    async def story() -> None:
        async with relay() as stage:
            await stage.ask("POST", "/stream", CHAT, headers=ASYNC).done()
            api = await stage.call()
            await asyncio.sleep(9.9)
            assert not api.is_closed
            await asyncio.sleep(0.2)
            assert api.is_closed

    run(story())


@pytest.mark.parametrize("first", [ASYNC, {}])
def test_a_page_that_asks_again_to_read_elsewhere_does_not_end_the_answer_of_one_that_reads(first: Any) -> None:
    async def story() -> None:
        async with relay() as stage:
            named = {"x-run-id": "a-chosen-id-00000"}
            posted = stage.ask("POST", "/stream", CHAT, headers=named | first)
            (await stage.call()).send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "x"))
            await asyncio.sleep(1)
            assert (await stage.ask("POST", "/stream", CHAT, headers=named | ASYNC).done()).status == 202
            reader = stage.ask("GET", "/runs/a-chosen-id-00000") if first else posted
            await asyncio.sleep(30)
            assert not reader.is_ended
            for browser in (posted, reader):
                browser.leave()
                await browser.done()

    run(story())


def test_clients_of_the_api_are_answered_at_once_whatever_they_prefer() -> None:
    async def story() -> None:
        async with relay(WHOLE) as stage:
            body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
            assert (await stage.ask("POST", "/v1/messages", body, headers=ASYNC).done()).body == to_bytes(ANSWER)

    run(story())


@pytest.mark.parametrize("dialect", [TextDialect, MessagesDialect])
@pytest.mark.parametrize(("drain", "ending"), [(0.0, "cancelled"), (100.0, "complete")])
def test_a_run_that_its_readers_have_left_is_cancelled_or_drained(dialect: Any, drain: float, ending: str) -> None:
    async def story() -> None:
        rows = Rows()
        async with house(drain_seconds=drain) as home:
            home.runs._observers = [rows]
            begun, api = await home.started(dialect())
            outlet = join(begun)
            await ticks()
            outlet.leave()
            await asyncio.sleep(50)
            if ending == "complete":
                api.send(*block(0, TEXT_BLOCK)[1:], end(output_tokens=7), STOP, end=True)
                await ticks(5)
            assert begun.is_finished
        (record,) = rows.records
        assert (record.ending, record.on_disconnect) == (ending, "drain" if drain else "cancel")
        assert (record.output_tokens, record.exact) == ((7, True) if drain else (1, False))

    run(story())


def test_a_run_is_drained_for_so_long_and_keeps_only_the_newest_frames() -> None:
    async def story() -> None:
        async with house(drain_seconds=100, max_log_bytes=1000) as home:
            begun, api = await home.started()
            join(begun).leave()
            api.send(*texts(500))
            await ticks(10)
            assert begun.last >= 500
            assert begun.log_bytes <= 1000
            await asyncio.sleep(101)
            assert begun.is_finished
            assert api.is_closed

    run(story())


def test_a_run_that_waits_for_a_slow_reader_is_drained_when_this_one_leaves() -> None:
    rows = Rows()

    async def story() -> None:
        async with house(drain_seconds=100, max_log_bytes=1000) as home:
            home.runs._observers = [rows]
            begun, api = await home.started()
            outlet = join(begun, outlet=FakeOutlet(is_stalled=True))
            for number in range(100):
                api.send(text_delta(0, f"{number}"))
            await ticks(300)
            outlet.leave()
            api.send(*block(0, TEXT_BLOCK)[1:], end(output_tokens=7), STOP, end=True)
            await asyncio.sleep(1)
            assert begun.is_finished

    run(story())
    assert [(each.ending, each.output_tokens) for each in rows.records] == [("complete", 7)]


def test_a_reader_that_comes_back_in_time_is_not_said_to_have_left() -> None:
    async def story() -> None:
        rows = Rows()
        async with house() as home:
            home.runs._observers = [rows]
            begun, api = await home.started()
            join(begun).leave()
            await asyncio.sleep(5)
            outlet = join(begun)
            api.send(*block(0, TEXT_BLOCK)[1:], end(), STOP, end=True)
            await outlet.done()
        assert [record.on_disconnect for record in rows.records] == [None]

    run(story())


# --- Usage for the text dialect -------------------------------------------------------------------------------------


def test_the_text_dialect_tells_the_usage_if_it_is_asked_to() -> None:
    async def story() -> None:
        async with relay(WHOLE, WHOLE) as stage:
            told = await stage.ask("POST", "/stream", {**CHAT, "usage": True}).done()
            plain = await stage.ask("POST", "/stream", {**CHAT, "usage": False}).done()
            *text, usage, done = told.data
            assert [*text, done] == plain.data
            assert json.loads(usage) == {"usage": {"input_tokens": 10, "output_tokens": 7}, "stop_reason": "end_turn"}
            wrong = await stage.ask("POST", "/stream", {**CHAT, "usage": "yes"}).done()
            assert error_of(wrong) == (400, "invalid_request_error", "usage")

    run(story())


def test_the_same_run_id_with_another_wish_for_usage_is_another_request() -> None:
    async def story() -> None:
        async with relay(WHOLE) as stage:
            named = {"x-run-id": "a-chosen-id-00000"}
            await stage.ask("POST", "/stream", CHAT, headers=named).done()
            other = await stage.ask("POST", "/stream", {**CHAT, "usage": True}, headers=named).done()
            assert other.status == 409

    run(story())
