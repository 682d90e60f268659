"""rawsse.relay.app, the drain before a shutdown: no new runs, and those that run come to their end, within a time."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import pytest
from support.clock import run, ticks
from support.streams import STOP, block_start, block_stop, end, start, text_delta

from rawsse import AsyncClient, ConfigurationError
from rawsse.relay import Relay

from .outlets import TEXT_BLOCK
from .stage import CHAT, WHOLE, Api, relay
from .test_app_nodes import ID, NAMED, relays

BEGINNING = 1000.0
"""Of virtual time."""

HELLO = ['{"text":"Hel"}', '{"text":"lo"}', "[DONE]"]
MESSAGES = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def say(api: Api) -> None:
    api.send(start(), block_start(0, TEXT_BLOCK), text_delta(0, "Hel"))


def end_of(api: Api) -> None:
    api.send(text_delta(0, "lo"), block_stop(0), end(), STOP)


def now() -> float:
    """Seconds since the beginning of the story."""
    return asyncio.get_running_loop().time() - BEGINNING


def test_a_running_answer_ends_and_is_read_on_while_no_other_begins() -> None:
    async def story() -> None:
        async with relay(shutdown_seconds=60) as stage:
            browser = stage.ask("POST", "/stream", CHAT)
            say(api := await stage.call())
            await browser.head()
            assert (await stage.ask("GET", "/readyz").done()).status == 200
            draining = asyncio.create_task(stage.relay.drain())
            await asyncio.sleep(20)
            for method, path, body in (
                ("GET", "/readyz", None),
                ("POST", "/stream", CHAT),
                ("POST", "/v1/messages", MESSAGES),
            ):
                refused = await stage.ask(method, path, body).done()
                assert (refused.status, int(refused.headers["retry-after"]) > 0) == (503, True)
            resumed = stage.ask("GET", f"/runs/{browser.headers['x-run-id']}")
            await resumed.head()
            assert not draining.done()
            end_of(api)
            for each in (browser, resumed):
                assert (await each.done()).data == HELLO
            await draining
            assert now() < 21
            assert len(stage.calls) == 1

    run(story())


def test_what_has_not_ended_in_time_is_told_of_the_shutdown() -> None:
    async def story() -> None:
        async with relay(shutdown_seconds=60) as stage:
            browser = stage.ask("POST", "/stream", CHAT)
            say(await stage.call())
            await browser.head()
            await stage.relay.drain()
            assert now() == pytest.approx(60, abs=1)
            assert not browser.is_ended
            await stage.relay.aclose()
            assert '"shutdown"' in (await browser.done()).body.decode()

    run(story())


def test_the_log_says_how_many_runs_are_waited_for_and_how_many_have_not_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "rawsse.relay")

    async def story() -> None:
        async with relay(shutdown_seconds=60) as stage:
            browsers = [stage.ask("POST", "/stream", CHAT) for _ in range(2)]
            say(api := await stage.call())
            say(await stage.call())
            draining = asyncio.create_task(stage.relay.drain())
            await ticks(20)
            said = "no more runs begin; those that are open have 60 s to end: 2"
            assert [each.getMessage() for each in caplog.records] == [said]
            end_of(api)
            await draining
            assert caplog.records[-1].getMessage() == "the wait for the open runs is over; those that have not ended: 1"
            await stage.relay.aclose()
            for each in browsers:
                await each.done()

    run(story())


def test_without_a_time_and_without_runs_nothing_waits() -> None:
    async def story() -> None:
        async with relay() as stage:
            browser = stage.ask("POST", "/stream", CHAT)
            say(await stage.call())
            await browser.head()
            await stage.relay.drain()
            await stage.relay.aclose()
            assert '"shutdown"' in (await browser.done()).body.decode()
        async with relay(WHOLE, shutdown_seconds=60) as stage:
            await stage.ask("POST", "/stream", CHAT).done()
            await stage.relay.drain()
        assert now() < 1

    run(story())


def test_an_answer_that_only_another_node_s_reader_reads_comes_to_its_end() -> None:
    async def story() -> None:
        async with relays(shutdown_seconds=60) as (a, b):
            first = a.ask("POST", "/stream", CHAT, headers=NAMED)
            say(api := await a.call())
            await first.head()
            reader = b.ask("GET", f"/runs/{ID}")
            await reader.head()
            first.leave()
            draining = asyncio.create_task(a.relay.drain())
            await asyncio.sleep(30)  # longer than a run without any reader would go on
            end_of(api)
            assert (await reader.done()).data == HELLO
            await draining
            await a.relay.aclose()
            assert (await b.ask("GET", f"/runs/{ID}").done()).data == HELLO

    run(story())


def test_a_request_that_the_store_has_admitted_is_answered_though_the_drain_has_begun() -> None:
    async def story() -> None:
        async with relays(WHOLE, shutdown_seconds=60) as (a, b):
            gate: Any = a.relay.home._store  # type: ignore[attr-defined]
            await a.relay.home.start()
            first = a.ask("POST", "/stream", CHAT)
            while not a.relay.home.runs.beginning:
                gate.opened.clear()
                await ticks(1)
            draining = asyncio.create_task(a.relay.drain())
            await ticks(20)
            assert not draining.done()
            gate.opened.set()
            assert ((await first.done()).status, first.data[-1]) == (200, "[DONE]")
            await draining
            assert b.calls == []

    run(story())


@pytest.mark.parametrize(("is_second", "seconds"), [(False, 60), (True, 10)])
def test_in_an_application_the_first_signal_drains_and_the_second_ends_it(is_second: bool, seconds: int) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))

    async def story() -> None:
        async with relay(shutdown_seconds=60) as stage, stage.relay.lifespan():
            browser = stage.ask("POST", "/stream", CHAT)
            say(await stage.call())
            await browser.head()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)
            assert (len(heard), browser.is_ended) == (1, False)  # the host may wait, too
            assert (await stage.ask("GET", "/readyz").done()).status == 503
            if is_second:
                os.kill(os.getpid(), signal.SIGTERM)
            assert '"shutdown"' in (await browser.done()).body.decode()
            assert now() == pytest.approx(seconds, abs=1)

    try:
        run(story())
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_time_below_0_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=r"^shutdown_seconds must be 0 or more, not "):
        Relay(AsyncClient(api_key="any"), shutdown_seconds=seconds)
