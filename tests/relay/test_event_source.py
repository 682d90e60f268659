"""rawsse.relay.event_source: other people's streams, resumed and stopped like ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.clock import run, ticks

from rawsse.errors import ConfigurationError
from rawsse.relay import EventRuns, RunLimits, event_source
from rawsse.relay.users import User
from rawsse.server import Scope, Server
from rawsse.sse import Event

from .stage import Browser, frames

RUN_ID = "a-chosen-id-00000"


class Countdown:
    """A generator that gives what the test lets it give. `is_closed`: its cleanup has run."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.given = 0
        self.is_closed = False

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            while (item := await self.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                self.given += 1
                yield item
        finally:
            self.is_closed = True

    def give(self, *items: Any) -> None:
        for item in items:
            self.items.put_nowait(item)


@contextlib.asynccontextmanager
async def house(**options: Any) -> AsyncIterator[EventRuns]:
    runs = EventRuns(**options)
    try:
        yield runs
    finally:
        await runs.aclose()


def ask(app: Any, method: str = "POST", path: str = "/", user: str = "", **headers: str) -> Browser:
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "query_string": b""}
    scope["headers"] = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Browser(app, scope | ({"user": User(user)} if user else {}), b"")


def test_items_become_events_with_ids() -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            source.give("a text", {"n": 1}, Event("tick", "two\nlines", "7"), [1.5, None], None)
            browser = await ask(event_source(source(), runs)).done()
            assert [(each.event, each.data) for each in browser.frames] == [
                ("message", "a text"),
                ("message", '{"n":1}'),
                ("tick", "two\nlines"),
                ("message", "[1.5,null]"),
            ]
            assert len({each.id for each in browser.frames}) == 4
            assert (browser.status, browser.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            assert source.is_closed

    run(story())


def test_a_client_that_comes_back_gets_what_it_missed_and_nothing_twice() -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            first = ask(event_source(source(), runs))
            source.give(1, 2)
            await ticks(5)
            first.leave()
            await first.done()
            source.give(3)
            await asyncio.sleep(5)
            path, seen = f"/{first.headers['x-run-id']}", first.frames[-1].id
            second = ask(runs, "GET", path, last_event_id=seen)
            source.give(4, None)
            await second.done()
            assert (first.data, second.data) == (["1", "2"], ["3", "4"])
            third = await ask(runs, "GET", path, last_event_id=second.frames[-1].id).done()
            assert third.status == 204  # nothing is left: an `EventSource` stops coming back

    run(story())


def test_an_event_source_may_come_back_to_the_same_address() -> None:
    async def story() -> None:
        async with house() as runs:
            source, again = Countdown(), Countdown()
            first = ask(event_source(source(), runs, RUN_ID), "GET")
            source.give(1)
            await ticks(5)
            first.leave()
            await first.done()
            second = ask(event_source(again(), runs, RUN_ID), "GET", last_event_id=first.frames[0].id)
            source.give(2, None)
            assert (await second.done()).data == ["2"]
            assert (source.given, again.given) == (2, 0)

    run(story())


def test_a_client_that_comes_back_to_a_run_that_is_forgotten_begins_no_other() -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            generator = source()
            back = await ask(event_source(generator, runs, RUN_ID), "GET", last_event_id="0123abcd-7").done()
            assert back.status == 410
            source.give(1)
            await ticks(5)
            assert source.given == 0
            with pytest.raises(StopAsyncIteration):
                await anext(generator)

    run(story())


def test_a_generator_that_nobody_reads_is_closed_after_the_grace_time() -> None:
    async def story() -> None:
        async with house(limits=RunLimits(grace_seconds=10)) as runs:
            source = Countdown()
            browser = ask(event_source(source(), runs))
            source.give(1)
            await ticks(5)
            browser.leave()
            await browser.done()
            await asyncio.sleep(9.9)
            assert not source.is_closed
            await asyncio.sleep(0.2)
            assert source.is_closed

    run(story())


def test_it_can_be_stopped_and_its_readers_are_told() -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            browser = ask(event_source(source(), runs))
            source.give(1)
            await ticks(5)
            assert (await ask(runs, "DELETE", f"/{browser.headers['x-run-id']}").done()).status == 204
            await browser.done()
            assert (browser.frames[-1].event, json.loads(browser.data[-1])["error"]["type"]) == ("error", "cancelled")
            assert source.is_closed

    run(story())


def test_heartbeats_are_sent_while_the_generator_says_nothing() -> None:
    async def story() -> None:
        async with house(heartbeat_seconds=15) as runs:
            source = Countdown()
            browser = ask(event_source(source(), runs))
            await asyncio.sleep(31)
            assert browser.body.count(b": keep-alive") == 2
            source.give(None)
            await browser.done()

    run(story())


def test_a_slow_client_holds_the_generator_back() -> None:
    async def story() -> None:
        async with house(limits=RunLimits(max_log_bytes=1000)) as runs:
            source = Countdown()
            browser = ask(event_source(source(), runs))
            source.give("x")
            await ticks(5)
            browser.stall()
            source.give(*["x" * 100] * 1000)
            await ticks(2000)
            assert source.given < 100
            browser.go_on()
            source.give(None)
            await browser.done()
            assert len(browser.data) == 1001

    run(story())


class RefusedError(Exception):
    """As Starlette's and FastAPI's `HTTPException`."""

    status_code, detail = 404, "no such chat"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [(RefusedError(), 404, "no such chat"), (ZeroDivisionError("secret"), 500, "see the log of the server")],
)
def test_an_exception_before_the_first_item_keeps_its_status(
    error: Exception, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with house() as runs:
            early, late = Countdown(), Countdown()
            early.give(error)
            browser = await ask(event_source(early(), runs)).done()
            assert browser.status == status
            assert words in json.loads(browser.data[-1])["error"]["message"]
            late.give(1, error)
            browser = await ask(event_source(late(), runs)).done()
            assert (browser.status, browser.frames[-1].event) == (200, "error")
            assert words in browser.data[-1]
            assert "secret" not in browser.body.decode()

    run(story())
    assert ("ZeroDivisionError" in caplog.text) is (status == 500)
    assert "a bug in the relay" not in caplog.text  # it is the application's


@pytest.mark.parametrize("is_first", [True, False])
def test_an_item_that_is_not_json_ends_the_run_and_closes_the_generator(*, is_first: bool) -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            source.give(*([] if is_first else ["a text"]), object(), "more")
            browser = await ask(event_source(source(), runs)).done()
            assert (browser.status, browser.frames[-1].event) == (500 if is_first else 200, "error")
            await ticks(5)
            assert (source.is_closed, source.items.qsize()) == (True, 1)  # "more" was not asked for

    run(story())


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_generator_that_catches_its_cancellation_is_not_asked_again(*, goes_on: bool) -> None:
    async def story() -> None:
        ends: list[str] = []

        async def stubborn() -> AsyncIterator[str]:
            try:
                yield "a text"
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    if not goes_on:
                        return
                yield "more"
                await asyncio.sleep(3600)
            finally:
                ends.append("closed")

        async with house() as runs:
            browser = ask(event_source(stubborn(), runs, RUN_ID))
            await ticks(5)
            assert (await ask(runs, "DELETE", f"/{RUN_ID}").done()).status == 204
            await browser.done()
            assert browser.data[0] == "a text"
            assert [json.loads(each)["error"]["type"] for each in browser.data[1:]] == ["cancelled"]
            assert ends == ["closed"]

    run(story())


@pytest.mark.parametrize(
    "id", ["", "short", "a" * 65, "\u263a" * 20, "a-chosen-id-0000\r\nset-cookie: a=b", "a/chosen/id/00000"]
)
def test_an_id_that_no_header_field_or_path_can_carry_is_refused_before_anything_begins(id: str) -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            source.give("a text", None)
            with pytest.raises(ConfigurationError, match=r"^run_id must be 16 to 64 of A-Z a-z 0-9 _ -, not "):
                event_source(source(), runs, id)
            assert source.items.qsize() == 2

    run(story())


async def by_field(scope: Scope) -> User | str | None:
    """A login that leaves nothing in the scope, as one by FastAPI's `Depends`."""
    return dict(scope["headers"]).get(b"x-user", b"").decode() or None


def test_the_application_may_say_who_sent_a_request() -> None:
    async def story() -> None:
        async with house(authenticate=by_field) as runs:
            source, other, stranger = Countdown(), Countdown(), Countdown()
            mine = ask(event_source(source(), runs, RUN_ID), x_user="ada")
            source.give("of ada")
            await ticks(5)
            for method in ("GET", "DELETE"):
                assert (await ask(runs, method, f"/{RUN_ID}", x_user="bob").done()).status == 404
                assert (await ask(runs, method, f"/{RUN_ID}").done()).status == 401
            assert (await ask(event_source(stranger(), runs, RUN_ID)).done()).status == 401
            yours = ask(event_source(other(), runs, RUN_ID), x_user="bob")
            other.give("of bob", None)
            assert (await yours.done()).data == ["of bob"]
            assert (await ask(runs, "DELETE", f"/{RUN_ID}", x_user="ada").done()).status == 204
            assert (await mine.done()).data[0] == "of ada"

    run(story())


def test_another_user_s_run_is_not_there() -> None:
    async def story() -> None:
        async with house() as runs:
            source, other = Countdown(), Countdown()
            mine = ask(event_source(source(), runs, RUN_ID), user="ada")
            source.give("of ada")
            await ticks(5)
            for method in ("GET", "DELETE"):
                for user in ("bob", ""):
                    assert (await ask(runs, method, f"/{RUN_ID}", user=user).done()).status == 404
            yours = ask(event_source(other(), runs, RUN_ID), user="bob")
            other.give("of bob", None)
            source.give(None)
            assert ((await mine.done()).data, (await yours.done()).data) == (["of ada"], ["of bob"])

    run(story())


def test_what_the_routes_of_the_runs_do_not_take_is_refused() -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            browser = ask(event_source(source(), runs, RUN_ID))
            source.give(1)
            await ticks(5)
            assert (await ask(runs, "POST", f"/{RUN_ID}").done()).headers["allow"] == "GET, DELETE"
            assert (await ask(runs, "GET", f"/{RUN_ID}", last_event_id="other-1").done()).status == 400
            assert (await ask(runs, "GET", "/nothing").done()).status == 404
            source.give(None)
            await browser.done()

    run(story())


def test_at_the_end_of_the_application_generators_are_closed_and_readers_told() -> None:
    async def story() -> None:
        async with house() as runs:
            source = Countdown()
            browser = ask(event_source(source(), runs))
            source.give(1)
            await ticks(5)
            await runs.aclose()
            await browser.done()
            assert source.is_closed
            assert json.loads(browser.data[-1])["error"]["type"] == "shutdown"
            late = await ask(event_source(Countdown()(), runs)).done()
            assert late.status == 503

    run(story())


@pytest.mark.real
def test_a_route_of_fastapi_may_return_it() -> None:
    fastapi = pytest.importorskip("fastapi", reason="an application that is not ours: the interop extra")
    httpx = pytest.importorskip("httpx", reason="a client that is not ours: the interop extra")
    tidied: list[int] = []
    runs, app = EventRuns(), fastapi.FastAPI()
    app.mount("/runs", runs)

    async def count_down(start: int) -> AsyncIterator[int]:
        for number in range(start, 0, -1):
            yield number

    async def countdown(start: int, tasks: Any) -> Any:
        tasks.add_task(tidied.append, start)
        response = event_source(count_down(start), runs)
        response.set_cookie("seen", "yes")
        return response

    countdown.__annotations__ |= {"start": int, "tasks": fastapi.BackgroundTasks}
    app.post("/countdown/{start}")(countdown)

    async def story() -> None:
        async with Server(app, port=0, on_shutdown=runs.aclose) as server, httpx.AsyncClient() as client:
            whole = await client.post(f"{server.base_url}/countdown/3")
            assert [each.data for each in frames(whole.content)] == ["3", "2", "1"]
            assert whole.headers["set-cookie"].startswith("seen=yes")
            path, seen = f"{server.base_url}/runs/{whole.headers['x-run-id']}", frames(whole.content)[0].id
            rest = await client.get(path, headers={"last-event-id": seen})
            assert [each.data for each in frames(rest.content)] == ["2", "1"]
            assert (await client.delete(path)).status_code == 204
        assert tidied == [3]

    asyncio.run(story())
