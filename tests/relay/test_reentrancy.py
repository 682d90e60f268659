"""rawsse.relay.runs: what a call made inside another one must not break. A run pushes to its readers from inside a read of the
network, and each write may end a reader, end the run, or let another reader join."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.clock import run, ticks
from support.loops import Loop, each_loop
from support.streams import ANSWER, PING, STOP, end, text_delta

from rawsse.errors import ConfigurationError, Ending
from rawsse.messages.events import StreamEvent
from rawsse.relay.dialects import EventsDialect, Frame, MessagesDialect, TextDialect
from rawsse.relay.runs import Run

from .outlets import LAST_WORD, STOPPED, FakeOutlet, data, house, join, texts
from .stage import Api, frames

BROKEN = ['{"error":"the run failed: see the log of the server","type":"api_error"}', "[DONE]"]


class Once:
    """A function that is called with the first write after `arm`, and with no other."""

    def __init__(self) -> None:
        self._action: Callable[[], object] | None = None

    def arm(self, action: Callable[[], object]) -> None:
        self._action = action

    def __call__(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


async def say(api: Api, *raws: Any) -> None:
    api.send(*raws)
    await ticks(5)


def numbers(begun: Run, outlet: FakeOutlet) -> list[int | None]:
    return [begun.number_of(frame.id) for frame in frames(outlet.body)]


# --- A reader leaves inside a push ---------------------------------------------------------------------------------


@pytest.mark.parametrize("leaving", range(4))
def test_a_client_that_goes_during_a_write_ends_its_own_reader_alone(leaving: int) -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            during = Once()
            outlets = [join(begun, outlet=FakeOutlet(during)) for _ in range(4)]
            during.arm(outlets[leaving].leave)  # in the write of any of them
            await say(api, *texts(1))
            await say(api, *texts(1))
            gone = outlets.pop(leaving)
            assert [numbers(begun, outlet) for outlet in outlets] == [[1, 2]] * 3
            assert numbers(begun, gone) in ([], [1])

    run(story())


@pytest.mark.parametrize("dialect", [EventsDialect, MessagesDialect])
def test_all_clients_may_go_during_one_write(dialect: Any) -> None:
    async def story() -> None:
        async with house(grace_seconds=10) as home:
            begun, during = home.begin(dialect()), Once()
            outlets = [join(begun, outlet=FakeOutlet(during)) for _ in range(3)]
            during.arm(lambda: list(map(FakeOutlet.leave, outlets)))
            api = await home.call()
            await say(api, *ANSWER[:4])
            assert begun.is_finished is not begun.dialect.is_resumable
            assert sorted(len(outlet.body) > 0 for outlet in outlets) == [False, False, True]
            await asyncio.sleep(10.1)
            assert (begun.is_finished, api.is_closed) == (True, True)

    run(story())


def test_the_last_client_may_go_during_the_write_of_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started(MessagesDialect())
            during = Once()
            outlet = join(begun, outlet=FakeOutlet(during))
            await say(api, end())
            during.arm(outlet.leave)
            await say(api, STOP)
            assert (begun.is_finished, outlet.is_ended) == (True, False)

    caplog.set_level("INFO")
    run(story())
    assert len(caplog.messages) == 1


def test_a_reader_whose_write_raises_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug of the server")

    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            during = Once()
            broken = join(begun, outlet=FakeOutlet(during))
            others = [join(begun) for _ in range(3)]
            during.arm(fail)
            await say(api, *texts(1))
            await say(api, end(), STOP)
            assert [data(other.body) for other in others] == [['{"text":"0"}', "[DONE]"]] * 3
            assert not broken.is_ended

    run(story())
    assert caplog.messages[0] == "a reader of a run failed"
    assert caplog.records[0].exc_info


# --- A run stops inside a push -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", range(3))
def test_a_stop_during_a_write_loses_no_frame_and_gives_everyone_the_last_word_once(stopping: int) -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            during = [Once() for _ in range(3)]
            outlets = [join(begun, outlet=FakeOutlet(each)) for each in during]
            during[stopping].arm(lambda: begun.stop(STOPPED))
            await say(api, *texts(3))
            for outlet in outlets:
                assert data(await outlet.done()) == ['{"text":"0"}', '{"text":"1"}', '{"text":"2"}', *LAST_WORD]
                assert numbers(begun, outlet) == [1, 2, 3, 4, 5]
            assert api.is_closed

    run(story())


@pytest.mark.parametrize("is_begun", [True, False], ids=["a later one", "the first one"])
def test_a_stop_during_a_heartbeat_gives_everyone_the_last_word_once(*, is_begun: bool) -> None:
    async def story() -> None:
        async with house() as home:
            begun = (await home.started())[0] if is_begun else home.begin()
            during = Once()
            outlets = [join(begun, outlet=FakeOutlet(during)) for _ in range(3)]
            during.arm(lambda: begun.stop(STOPPED))
            await asyncio.sleep(16)
            assert [data(outlet.body) for outlet in outlets] == [LAST_WORD] * 3
            assert begun._heartbeat is None, "the heart of a run that is over beats on"

    run(story())


def test_a_stop_during_the_first_write_of_all_gives_everyone_the_last_word_once() -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin()
            during = Once()
            outlets = [join(begun, outlet=FakeOutlet(during)) for _ in range(3)]
            during.arm(lambda: begun.stop(STOPPED))
            api = await home.call()
            api.send(*ANSWER[:1])
            for outlet in outlets:
                assert data(await outlet.done()) == LAST_WORD
            assert api.is_closed

    run(story())


def test_a_stop_during_the_write_of_the_last_word_changes_nothing() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            during = Once()
            outlets = [join(begun, outlet=FakeOutlet(during)) for _ in range(3)]
            during.arm(lambda: begun.stop(STOPPED))
            await say(api, end(), STOP)
            assert [data(outlet.body) for outlet in outlets] == [["[DONE]"]] * 3
            assert begun.failure is None

    run(story())


# --- A reader joins, or goes on, inside a push ---------------------------------------------------------------------


@pytest.mark.parametrize("joining", range(3))
def test_a_reader_that_joins_during_a_write_gets_every_frame_once(joining: int) -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            await say(api, *texts(2))
            during = [Once() for _ in range(3)]
            outlets = [join(begun, outlet=FakeOutlet(each)) for each in during]
            during[joining].arm(lambda: outlets.append(join(begun)))
            await say(api, *texts(3))
            await say(api, end(), STOP)
            assert len(outlets) == 4
            assert [numbers(begun, outlet) for outlet in outlets] == [[1, 2, 3, 4, 5, 6]] * 4

    run(story())


def test_a_reader_that_joins_during_the_last_write_gets_the_end() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            during = Once()
            outlets = [join(begun, outlet=FakeOutlet(during))]
            during.arm(lambda: outlets.append(join(begun)))
            await say(api, end(), STOP)
            assert [(data(outlet.body), outlet.is_ended) for outlet in outlets] == [(["[DONE]"], True)] * 2

    run(story())


def test_a_reader_that_has_fallen_behind_and_goes_on_during_a_write_gets_every_frame_once() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started()
            during = Once()
            outlets = [join(begun, outlet=FakeOutlet(during)) for _ in range(3)]
            slow = join(begun, outlet=FakeOutlet(is_stalled=True))
            await say(api, *texts(2))
            during.arm(slow.go_on)
            await say(api, *texts(3))
            await say(api, end(), STOP)
            assert [numbers(begun, outlet) for outlet in (*outlets, slow)] == [[1, 2, 3, 4, 5, 6]] * 4

    run(story())


def test_a_run_that_waits_for_room_goes_on_when_the_room_comes_inside_the_push() -> None:
    async def story() -> None:
        async with house(max_log_bytes=100) as home:
            begun, api = await home.started()
            during = Once()
            outlet, slow = join(begun, outlet=FakeOutlet(during)), join(begun, outlet=FakeOutlet(is_stalled=True))
            during.arm(slow.leave)
            for raw in texts(50):
                api.send(raw)
            await ticks(200)
            assert numbers(begun, outlet) == list(range(1, 51))

    run(story())


# --- A bug in a dialect --------------------------------------------------------------------------------------------


class BrokenEvent(TextDialect):
    """Fails at the text "boom"."""

    def event(self, event: StreamEvent) -> list[Frame]:
        if "boom" in str(event.raw):
            raise ZeroDivisionError("boom")
        return super().event(event)


class BrokenEnd(TextDialect):
    def end(self, ending: Ending) -> list[Frame]:
        raise ZeroDivisionError(f"at {ending.kind}")


@pytest.mark.parametrize("dialect", [BrokenEvent, BrokenEnd])
def test_a_bug_in_a_dialect_ends_its_run_with_one_last_word(dialect: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with house() as home:
            (begun, api), (_, other) = await home.started(dialect()), await home.started()
            outlets = [join(begun) for _ in range(3)]
            await say(api, *texts(1))
            await say(api, text_delta(0, "boom") if dialect is BrokenEvent else text_delta(0, "1"))
            await say(api, end(), STOP)
            said = ['{"text":"0"}'] if dialect is BrokenEvent else ['{"text":"0"}', '{"text":"1"}']
            assert [data(await outlet.done()) for outlet in outlets] == [said + BROKEN] * 3
            assert not other.is_closed

    run(story())
    bugs = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage().partition(" failed")[2] for record in bugs] == [": an unexpected exception"]
    trace = bugs[0].exc_info
    assert trace is not None
    assert trace[0] is ZeroDivisionError


def test_a_bug_in_a_dialect_before_all_content_makes_one_last_word_too(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenPing(TextDialect):
        def event(self, event: StreamEvent) -> list[Frame]:
            raise ZeroDivisionError(event.type)

    async def story() -> None:
        async with house(max_retries=2) as home:
            outlet, api = join(home.begin(BrokenPing())), await home.call()
            await say(api, PING)
            assert data(await outlet.done()) == BROKEN
            assert api.is_closed

    caplog.set_level("INFO")
    run(story())
    assert [message.partition(" ended: ")[2] for message in caplog.messages if "ended" in message] == [
        "error, the run failed: see the log of the server, model claude-x, about 14 tokens in, 0 out, 0.0 s, request req_1"
    ]


def test_a_bug_in_a_dialect_drops_the_call_to_the_api() -> None:
    async def story() -> None:
        async with house() as home:
            begun, api = await home.started(BrokenEvent())
            await say(api, text_delta(0, "boom"))
            assert (begun.is_finished, api.is_closed) == (True, True)

    run(story())


# --- In the tick of the hand-over ----------------------------------------------------------------------------------


def test_a_run_stops_between_the_end_of_its_task_and_the_callbacks_of_that() -> None:
    async def story() -> None:
        async with house() as home:
            begun, during, was_done = home.begin(), Once(), []
            outlet, api = join(begun, outlet=FakeOutlet(during)), await home.call()

            def stop() -> None:
                was_done.append(begun._opening is not None and begun._opening.done())
                begun.stop(STOPPED)

            # The write is in the last step of the task: what it asks for comes before what the end of the task does.
            during.arm(lambda: asyncio.get_running_loop().call_soon(stop))
            api.send(*ANSWER[:2])
            assert data(await outlet.done()) == LAST_WORD
            assert was_done == [True]
            assert begun.ending is not None
            assert api.is_closed

    run(story())


@pytest.mark.parametrize("pause", range(16))
def test_a_stop_at_any_tick_makes_one_end(pause: int) -> None:
    async def story() -> None:
        async with house() as home:
            begun = home.begin(EventsDialect())
            outlet = join(begun)
            if pause > 4:
                (await home.call()).send(*ANSWER[:4])
            await ticks(pause)
            begun.stop(STOPPED)
            assert data(await outlet.done()).count("[DONE]") == 1
            assert [frame.event for frame in frames(outlet.body)].count("error") == 1
            await ticks(3)
            assert all(api.is_closed for api in home.calls)

    run(story())


def test_a_run_stops_during_the_write_of_a_ping_that_comes_before_all_content() -> None:
    async def story() -> None:
        async with house(max_retries=2) as home:
            begun, during = home.begin(EventsDialect()), Once()
            outlet, api = join(begun, outlet=FakeOutlet(during)), await home.call()
            during.arm(lambda: begun.stop(STOPPED))
            api.send(*ANSWER[:1], PING)
            got = frames(await outlet.done())
            assert [frame.event for frame in got] == ["ping", "error", "message"]
            assert api.is_closed

    run(story())


@each_loop
def test_a_run_may_be_over_before_its_task_is_known(on: Loop) -> None:
    def fail() -> Any:
        raise ConfigurationError("no key")

    async def story() -> None:
        async with house() as home:
            begun = home.begin(open_stream=fail)  # an eager task has ended here
            assert data(await join(begun).done())[-1] == "[DONE]"
            await ticks(2)
            assert home.runs.tasks == set()

    on(story())
