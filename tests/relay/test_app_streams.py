"""rawsse.relay.app: what a stream does in time. Heartbeats, failures, readers that leave or do not read, the relay's end."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from support.clock import run, ticks
from support.sampling import one_in
from support.streams import ANSWER, STOP, Raw, block_start, delta, end, start, text_delta, to_bytes

from rawsse.relay import RunLimits
from rawsse.relay.dialects import COMMENT_HEARTBEAT, PING_HEARTBEAT

from .stage import CHAT, HEAD, WHOLE, Api, Browser, Stage, frames, relay
from .test_record import Rows

MESSAGES: Raw = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
UI: Raw = {"id": "chat-1", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
DIALECTS = [
    pytest.param("/stream", CHAT, id="text"),
    pytest.param("/api/chat", CHAT, id="events"),
    pytest.param("/api/chat", UI, id="ui"),
    pytest.param("/v1/messages", MESSAGES, id="messages"),
]
RESUMABLE = DIALECTS[:3]
TEXT_BLOCK = {"type": "text", "text": ""}
BEGUN = [start(), block_start(0, TEXT_BLOCK)]


def play(story: Callable[[Stage], Any], *script: bytes, **options: Any) -> None:
    async def inner() -> None:
        async with relay(*script, **options) as stage:
            await story(stage)

    run(inner())


async def begun(stage: Stage, path: str = "/stream", body: Raw = CHAT) -> tuple[Browser, Api]:
    """A browser whose answer has begun with a text."""
    browser = stage.ask("POST", path, body)
    api = await stage.call()
    api.send(*BEGUN, text_delta(0, "Hi"))
    await browser.read()
    return browser, api


async def at_once(browser: Browser) -> None:
    """Let the client leave; the relay sees it without any time going by."""
    before = asyncio.get_running_loop().time()
    browser.leave()
    await browser.done()
    assert asyncio.get_running_loop().time() == before


def ends(browser: Browser) -> list[str]:
    """What in the answer says that it is over, whatever its dialect."""
    found = []
    for frame in browser.frames:
        said = {} if frame.data == "[DONE]" else json.loads(frame.data)
        kind = "error" if "error" in said else said.get("type", frame.data)
        if kind in ("error", "abort", "finish", "message_stop", "[DONE]"):
            found.append(kind)
    return found


def last_words(path: str, body: Raw, *, is_whole: bool) -> list[str]:
    """What `ends` must find."""
    if path == "/stream":
        return ["[DONE]"] if is_whole else ["error", "[DONE]"]
    if path == "/v1/messages":
        return ["message_stop" if is_whole else "error"]
    whole = "finish" if body is UI else "message_stop"
    return [whole if is_whole else "error", "[DONE]"]


# --- Heartbeats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_before_the_api_answers_the_first_heartbeat_brings_the_head(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, body)
        await asyncio.sleep(14.9)
        assert browser.status == 0
        await asyncio.sleep(45.2)
        assert browser.status == 200
        assert browser.times == [15, 30, 45, 60]
        heartbeat = PING_HEARTBEAT if path == "/v1/messages" else COMMENT_HEARTBEAT
        assert browser.body == heartbeat * 4
        browser.leave()

    play(story, limits=RunLimits(grace_seconds=0))


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_no_silence_is_longer_than_a_heartbeat(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, body)
        api = await stage.call()
        for seconds, raw in zip((3, 20, 1, 47, 15, 16, 0, 2), ANSWER, strict=True):
            await asyncio.sleep(seconds)
            api.send(raw)
        await browser.done()
        assert max(later - earlier for earlier, later in pairwise([0, *browser.times])) <= 15.001
        assert browser.status == 200

    play(story)


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_busy_stream_has_no_heartbeats(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, body)
        api = await stage.call()
        api.send(*BEGUN)
        for number in range(20):
            await asyncio.sleep(14)
            api.send(text_delta(0, str(number)))
        api.send(end(), STOP)
        await browser.done()
        heartbeat = PING_HEARTBEAT if path == "/v1/messages" else COMMENT_HEARTBEAT
        assert browser.body.count(heartbeat) == (1 if path == "/stream" else 0)  # with the head, before the first text

    play(story)


def test_thinking_that_the_text_dialect_does_not_show_is_a_silence_with_heartbeats() -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/stream", CHAT)
        api = await stage.call()
        api.send(start(), block_start(0, {"type": "thinking", "thinking": ""}))
        for _ in range(60):
            api.send(delta(0, "thinking_delta", thinking="Hm"))
            await asyncio.sleep(1)
        assert browser.times == [0, 15, 30, 45, 60]
        browser.leave()

    play(story, limits=RunLimits(grace_seconds=0))


def test_heartbeats_stand_between_frames_and_have_no_id() -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/api/chat", CHAT)
        api = await stage.call()
        for raw in ANSWER:
            wire = to_bytes([raw])
            api.write((HEAD if raw is ANSWER[0] else b"") + wire[:20])  # the API stops in the middle of an event
            await asyncio.sleep(40)
            api.write(wire[20:])
        await browser.done()
        assert browser.body.count(COMMENT_HEARTBEAT) == 2 * len(ANSWER)
        rest = browser.body.replace(COMMENT_HEARTBEAT, b"")
        assert [json.loads(frame.data) for frame in frames(rest)[:-1]] == ANSWER
        assert rest.count(b"id: ") == len(ANSWER) + 1

    play(story)


def test_a_heartbeat_of_ones_own_choice() -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/stream", CHAT)
        await asyncio.sleep(1.1)
        assert browser.times == [0.25, 0.5, 0.75, 1.0]
        browser.leave()

    play(story, heartbeat_seconds=0.25, limits=RunLimits(grace_seconds=0))


def test_whoever_comes_back_is_answered_at_once() -> None:
    async def story(stage: Stage) -> None:
        browser, _ = await begun(stage)
        run_path, last = f"/runs/{browser.headers['x-run-id']}", browser.frames[-1].id
        again = stage.ask("GET", run_path, headers={"last-event-id": last})
        assert await again.read() == COMMENT_HEARTBEAT
        assert again.times == [0]
        again.leave()
        browser.leave()

    play(story, limits=RunLimits(grace_seconds=0))


# --- The head waits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_the_head_comes_with_the_first_event(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, body)
        api = await stage.call()
        await asyncio.sleep(5)
        assert browser.status == 0
        api.send(start())
        await ticks(10)
        assert browser.status == 200
        assert browser.body
        browser.leave()

    play(story, limits=RunLimits(grace_seconds=0))


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_failure_after_a_heartbeat_can_only_be_a_frame(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, body)
        api = await stage.call()
        await asyncio.sleep(16)
        api.write(b"HTTP/1.1 529 Overloaded\r\ncontent-length: 0\r\n\r\n")
        await browser.done()
        assert browser.status == 200
        assert ends(browser) == last_words(path, body, is_whole=False)

    play(story)


# --- Failures ------------------------------------------------------------------------------------------------------


# In the plain suite in each dialect and each way at some of the events.
BREAKS = list(itertools.product(DIALECTS, ["closes", "resets", "fails", "breaks"], range(1, len(ANSWER) + 1)))


@pytest.mark.parametrize(("dialect", "how", "count"), BREAKS[:: one_in(3)])
def test_wherever_the_api_breaks_off_the_answer_has_just_one_end(dialect: Any, how: str, count: int) -> None:
    path, body = dialect.values

    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, body)
        api = await stage.call()
        for raw in ANSWER[:count]:
            api.send(raw)
            await ticks(3)
        if how == "fails":
            api.send({"type": "error", "error": {"type": "api_error", "message": "Sorry"}})
        elif how == "breaks":
            api.write(b"event: message_start\ndata: no JSON\n\n")
        api.close(ConnectionResetError("reset") if how == "resets" else None)
        await browser.done()
        is_whole = count == len(ANSWER) or (count == len(ANSWER) - 1 and how in ("closes", "resets"))
        assert ends(browser) == last_words(path, body, is_whole=is_whole)
        assert (browser.status, browser.is_ended, api.is_closed) == (200, True, True)

    play(story)


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_a_silent_api_is_given_up(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage, path, body)
        await browser.done()
        assert browser.times[-1] == pytest.approx(90)
        assert api.is_closed
        assert b"not a single byte came for 90 s" in browser.body

    play(story)


def test_an_answer_whose_tail_is_lost_is_whole_to_clients_of_the_api() -> None:
    async def story(stage: Stage) -> None:
        browser = await stage.ask("POST", "/v1/messages", MESSAGES).done()
        assert browser.body == to_bytes(ANSWER[:-1]) + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    play(story, HEAD + to_bytes(ANSWER[:-1]))


# --- Readers that leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), RESUMABLE)
def test_closing_the_browser_ends_the_call_within_the_grace_time_and_not_before(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage, path, body)
        await at_once(browser)
        await asyncio.sleep(9.9)
        assert not api.is_closed
        await asyncio.sleep(0.2)
        assert api.is_closed  # mypy: the clock has moved

    play(story)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_of_the_api_that_leaves_ends_the_call_at_once(*, has_begun: bool) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/v1/messages", MESSAGES)
        api = await stage.call()
        if has_begun:
            api.send(*BEGUN)
            await browser.read()
        browser.leave()
        await browser.done()
        await ticks(3)
        assert api.is_closed

    play(story)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_client_that_leaves_a_call_without_stream_ends_it_at_once(path: str) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, {**MESSAGES, "stream": False})
        api = await stage.call()
        await at_once(browser)
        assert api.is_closed
        assert browser.status == 0

    play(story)


def test_a_client_that_leaves_in_the_middle_of_its_request_costs_nothing() -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/stream", CHAT)
        browser._incoming.clear()
        browser.leave()
        await browser.done()
        assert (browser.status, stage.calls) == (0, [])

    play(story)


def test_a_browser_that_leaves_before_the_head_can_come_back() -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/stream", CHAT, headers={"x-run-id": "named-by-the-page"})
        api = await stage.call()
        browser.leave()
        await browser.done()
        assert browser.status == 0
        await asyncio.sleep(9)
        again = stage.ask("GET", "/runs/named-by-the-page")
        await asyncio.sleep(9)
        assert (again.status, api.is_closed) == (200, False)
        api.send(*ANSWER)
        await again.done()
        assert again.data[-1] == "[DONE]"

    play(story)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_has_left_is_sent_neither_a_head_nor_an_end(*, has_begun: bool) -> None:
    async def story(stage: Stage) -> None:
        browser = (await begun(stage))[0] if has_begun else stage.ask("POST", "/stream", CHAT)
        await ticks(3)
        browser.is_told = False
        await at_once(browser)
        assert (browser.status, browser.is_ended) == (200 if has_begun else 0, False)

    play(story, limits=RunLimits(grace_seconds=0))


def test_a_slow_browser_that_leaves_is_gone() -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage)
        browser.stall()
        api.send(text_delta(0, "more"))
        await ticks(5)
        browser.leave()
        await browser.done()
        await asyncio.sleep(10.1)
        assert api.is_closed

    play(story)


def test_a_lost_connection_is_resumed_without_a_gap() -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage)
        browser.leave()
        await browser.done()
        api.send(text_delta(0, " there"))
        await ticks(5)
        headers = {"last-event-id": browser.frames[-1].id}
        again = stage.ask("GET", f"/runs/{browser.headers['x-run-id']}", headers=headers)
        await again.read()
        api.send(text_delta(0, "!"), end(), STOP)
        await again.done()
        assert browser.data + again.data == ['{"text":"Hi"}', '{"text":" there"}', '{"text":"!"}', "[DONE]"]

    play(story)


# --- Readers that do not read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), [DIALECTS[1], DIALECTS[3]])
def test_a_browser_that_reads_nothing_stops_the_api_and_one_that_reads_starts_it_again(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage, path, body)
        browser.stall()
        api.flood = to_bytes([text_delta(0, "x" * 1000)])
        api.send(text_delta(0, "more"))
        await asyncio.sleep(10)
        reads, got = api.reads, len(browser.body)
        await asyncio.sleep(10)
        assert (api.reads, len(browser.body)) == (reads, got)
        assert reads < 160  # 100,000 bytes in the log, and a piece of 64 KiB that the server has not taken
        browser.go_on()
        while len(browser.body) < 300_000:
            await browser.read()
        assert api.reads > reads
        browser.leave()

    play(story, limits=RunLimits(max_log_bytes=100_000, max_unread_bytes=100_000, grace_seconds=0))


# --- The end of the relay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), DIALECTS)
def test_at_the_end_every_stream_gets_a_last_frame_that_says_when_to_come_back(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage, path, body)
        await stage.relay.aclose()
        await browser.done()
        assert api.is_closed
        assert browser.is_ended
        assert ends(browser) == last_words(path, body, is_whole=False)
        assert b"the server is shutting down" in browser.body
        assert b"retry: 2000\n" in browser.body

    play(story)


@pytest.mark.parametrize(("path", "body"), [case for case in DIALECTS if case.id != "ui"])
def test_a_stream_that_has_not_begun_is_asked_to_come_back(path: str, body: Raw) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", path, body)
        await stage.call()
        await stage.relay.aclose()
        await browser.done()
        assert (browser.status, browser.headers["retry-after"]) == (503, "2")
        assert b"the server is shutting down" in browser.body

    play(story)


def test_a_browser_that_does_not_read_does_not_hold_the_end_up() -> None:
    async def story(stage: Stage) -> None:
        browser, _ = await begun(stage)
        browser.stall()
        before = asyncio.get_running_loop().time()
        await stage.relay.aclose()
        assert asyncio.get_running_loop().time() == before
        browser.go_on()
        await browser.done()
        assert browser.data[-1] == "[DONE]"

    play(story)


def test_after_the_end_no_timer_is_left() -> None:
    async def story(stage: Stage) -> None:
        reading, _ = await begun(stage)
        deserted, _ = await begun(stage)
        deserted.leave()
        await deserted.done()
        over, api = await begun(stage)
        api.send(end(), STOP)
        await over.done()
        await stage.relay.aclose()
        await reading.done()
        timers: Any = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # asyncio tells it in no other way
        assert [timer for timer in timers if not timer.cancelled()] == []

    play(story)


def test_the_end_may_come_twice() -> None:
    async def story(stage: Stage) -> None:
        await stage.relay.aclose()
        await stage.relay.aclose()

    play(story)


def test_under_asgis_lifespan_the_end_comes_by_itself() -> None:
    async def story(stage: Stage) -> None:
        browser, _ = await begun(stage)
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        incoming.put_nowait({"type": "lifespan.startup"})
        incoming.put_nowait({"type": "lifespan.shutdown"})
        await stage.relay({"type": "lifespan"}, incoming.get, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        await browser.done()
        assert b"the server is shutting down" in browser.body

    play(story)


def test_a_server_that_cancels_its_call_leaves_nothing_behind() -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage)
        browser.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await browser.task
        await asyncio.sleep(10.1)
        assert api.is_closed

    play(story)


def test_many_browsers_read_one_run() -> None:
    async def story(stage: Stage) -> None:
        browser, api = await begun(stage)
        path = f"/runs/{browser.headers['x-run-id']}"
        others = [stage.ask("GET", path) for _ in range(20)]
        await asyncio.sleep(1)
        others[0].leave()
        api.send(end(), STOP)
        for other in (browser, *others[1:]):
            assert (await other.done()).data == ['{"text":"Hi"}', "[DONE]"]

    play(story)


def test_a_stream_without_any_event_to_show_ends_with_its_mark() -> None:
    async def story(stage: Stage) -> None:
        browser = await stage.ask("POST", "/stream", CHAT).done()
        assert (browser.status, browser.data) == (200, ["[DONE]"])

    play(story, HEAD + to_bytes([start(), end(), STOP]))


def test_a_whole_answer_leaves_no_connection_open() -> None:
    async def story(stage: Stage) -> None:
        await stage.ask("POST", "/stream", CHAT).done()
        assert [api.is_closed for api in stage.calls] == [True]

    play(story, WHOLE)


# --- A whole message -------------------------------------------------------------------------------------------------

WHOLE_MESSAGE: Raw = {**MESSAGES, "stream": False}


def test_a_call_without_stream_is_listed_and_ended_by_its_user() -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/v1/messages", WHOLE_MESSAGE)
        api = await stage.call()
        api.send(*BEGUN)
        (told,) = (await stage.ask("GET", "/runs").done()).json
        assert (told["dialect"], told["readers_here"]) == ("messages", 1)
        assert [each.id for each in stage.relay.open_runs()] == [told["run"]]
        assert (await stage.ask("DELETE", "/runs").done()).json == {"stopped": 1}
        await browser.done()
        assert (browser.status, browser.json["error"]["type"], api.is_closed) == (499, "cancelled", True)

    play(story)


def test_a_message_that_is_too_large_for_the_client_is_an_error_with_the_api_s_request_id() -> None:
    rows = Rows()

    async def story(stage: Stage) -> None:
        stage.relay.client._settings = stage.relay.client._settings._replace(max_message_bytes=300)
        browser = stage.ask("POST", "/v1/messages", WHOLE_MESSAGE)
        api = await stage.call()
        api.send(*BEGUN, *[text_delta(0, "x" * 100)] * 4)
        await browser.done()
        assert (browser.status, browser.headers["request-id"], api.is_closed) == (502, "req_1", True)
        assert browser.json["error"]["message"] == "the message is larger than max_message_bytes (300)"

    play(story, observers=[rows])
    assert [row.ending for row in rows.records] == ["limit"]


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_call_without_stream_is_told_of_the_relay_s_end(*, has_begun: bool) -> None:
    rows = Rows()

    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/v1/messages", WHOLE_MESSAGE)
        api = await stage.call()
        api.send(*(BEGUN if has_begun else []))
        await ticks(3)
        await stage.relay.aclose()
        await browser.done()
        assert (browser.status, browser.json["error"]["type"]) == (503, "shutdown")
        assert (browser.headers["content-type"], browser.headers["retry-after"]) == ("application/json", "2")

    play(story, observers=[rows])
    assert [(row.ending, row.words, row.on_disconnect) for row in rows.records] == [
        ("cancelled", "the server is shutting down", None)
    ]


def test_a_call_without_stream_may_go_on_to_its_end_when_its_client_has_left() -> None:
    rows = Rows()

    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/v1/messages", WHOLE_MESSAGE)
        api = await stage.call()
        await at_once(browser)
        api.send(*ANSWER, end=True)
        await ticks(9)

    play(story, observers=[rows], limits=RunLimits(drain_seconds=60))
    assert [(row.ending, row.on_disconnect) for row in rows.records] == [("complete", "drain")]


@pytest.mark.parametrize("text", ["Hello", "x" * 1_000_000])  # the second is more than a run holds for a slow client
def test_a_whole_message_is_json_and_nothing_is_sent_before_it(text: str) -> None:
    async def story(stage: Stage) -> None:
        browser = stage.ask("POST", "/v1/messages", WHOLE_MESSAGE)
        api = await stage.call()
        api.send(*BEGUN, text_delta(0, text))
        await asyncio.sleep(50)  # several heartbeats
        assert browser.status == 0
        api.send(*ANSWER[-3:], end=True)
        await browser.done()
        assert (browser.status, browser.headers["content-type"]) == (200, "application/json")
        assert (browser.headers["content-length"], browser.headers["request-id"]) == (str(len(browser.body)), "req_1")
        assert browser.headers.keys().isdisjoint(("x-accel-buffering", "x-run-id"))
        assert browser.json["content"] == [{"type": "text", "text": text}]

    play(story)


def test_a_whole_message_is_not_followed_by_what_a_stream_s_end_may_lack() -> None:
    async def story(stage: Stage) -> None:
        browser = await stage.ask("POST", "/v1/messages", WHOLE_MESSAGE).done()
        assert (browser.status, browser.json["stop_reason"]) == (200, "end_turn")

    play(story, HEAD + to_bytes(ANSWER[:-1]))
