"""rawsse.client.client: what the calls of one client share, how they end with it, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.answers import ASK, KEY, Connections, Sent, answer, client_of, plain
from support.background import PATIENCE
from support.clock import run, ticks
from support.faults import RESET, WHOLE, Network, Peer
from support.pools import counts
from support.sampling import one_in
from support.streams import ANSWER

from rawsse.client.client import AsyncClient
from rawsse.client.network.route import Origin
from rawsse.client.retry import NOT_GIVEN, RetryPolicy, Timeouts
from rawsse.errors import (
    APIConnectionError,
    ConfigurationError,
    EventOrderError,
    HeadTimeoutError,
    OverloadedError,
    StreamCancelledError,
)
from rawsse.messages import Message
from rawsse.replay.fakes import FakeStream

Use = Callable[[AsyncClient, Network, int], Awaitable[None]]

LATER = plain(b"{}", "529 Later", connection="close")
OUT_OF_ORDER = answer([ANSWER[0], *ANSWER])  # two beginnings


def asked(client: AsyncClient, connection: FakeStream, **arguments: Any) -> Sent:
    """What the client asks over this connection."""
    run(client.messages.create(**ASK, **arguments))
    return Sent(connection.written)


# --- Other options -------------------------------------------------------------------------------------------------


def test_fields_are_added_to_those_of_the_client_and_win() -> None:
    connection = FakeStream([WHOLE])
    client = client_of(connection, default_headers={"X-A": "1", "X-B": "1"})
    request = asked(client.with_options(default_headers={"x-b": "2", "X-C": "2"}), connection)
    assert (request["x-a"], request["x-b"], request["x-c"]) == ("1", "2", "2")


def test_the_client_itself_keeps_its_options() -> None:
    connection = FakeStream([WHOLE])
    client = client_of(connection)
    client.with_options(default_headers={"x-a": "1"}, api_key="other", base_url="http://other.example")
    request = asked(client, connection)
    assert "x-a" not in request
    assert (request["x-api-key"], request["host"]) == (KEY, "api.example")


@pytest.mark.parametrize("name", ["messages", "models", "beta"])
def test_the_calls_of_another_client_are_its_own_even_if_those_of_the_first_were_used(name: str) -> None:
    client = client_of()
    first = getattr(client, name)
    assert getattr(client.with_options(max_retries=1), name) is not first


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"api_key": "other"}, "x-api-key", "other"),
        ({"auth_token": "t"}, "authorization", "Bearer t"),
        ({}, "x-api-key", KEY),
    ],
)
def test_one_credential_takes_the_place_of_another(options: dict[str, Any], field: str, value: str) -> None:
    connection = FakeStream([WHOLE])
    request = asked(client_of(connection).with_options(**options), connection)
    assert request[field] == value
    assert len({"x-api-key", "authorization"} & {name for name, _ in request.fields}) == 1


def test_another_base_url_is_another_origin() -> None:
    network = Connections(FakeStream([WHOLE]))
    client = client_of(connect=network).with_options(base_url="http://other.example/x")
    run(client.messages.create(**ASK))
    assert (network.origins, client.base_url) == ([Origin("http", "other.example", 80)], "http://other.example/x")


@pytest.mark.parametrize("options", [{"timeouts": Timeouts(head=2)}, {"timeout": 2}])
def test_other_clocks(options: dict[str, Any]) -> None:
    client = client_of(FakeStream(end=None), timeouts=Timeouts(head=7)).with_options(**options)
    with pytest.raises(HeadTimeoutError, match="within 2 s"):
        run(client.messages.create(**ASK))


def test_clocks_that_are_not_given_stay() -> None:
    client = client_of(FakeStream(end=None), timeouts=Timeouts(head=7)).with_options(max_retries=0)
    with pytest.raises(HeadTimeoutError, match="within 7 s"):
        run(client.messages.create(**ASK))


@pytest.mark.parametrize("options", [{"max_retries": 1}, {"retry_policy": RetryPolicy(max_retries=1)}])
def test_another_number_of_retries(options: dict[str, Any]) -> None:
    client = client_of(LATER, LATER, WHOLE, max_retries=5).with_options(**options)
    with pytest.raises(OverloadedError) as caught:
        run(client.messages.create(**ASK))
    assert caught.value.retries_taken == 1


def test_waits_between_attempts_stay_where_only_their_number_changes() -> None:
    async def story() -> float:
        client = client_of(LATER, WHOLE, retry_policy=RetryPolicy(first_delay=3), max_retries=0, chance=lambda: 0.0)
        before = asyncio.get_running_loop().time()
        await client.with_options(max_retries=1).messages.create(**ASK)
        return asyncio.get_running_loop().time() - before

    assert run(story()) == 3


def test_lenient_and_strict() -> None:
    lenient = client_of(OUT_OF_ORDER, OUT_OF_ORDER, strict=False)
    assert run(lenient.with_options().messages.create(**ASK)).text == "Hello ☺"
    with pytest.raises(EventOrderError):
        run(lenient.with_options(strict=True).messages.create(**ASK))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"api_key": "k", "auth_token": "t"}, "give api_key or auth_token, not both"),
        ({"timeout": 1, "timeouts": Timeouts()}, "give timeouts or timeout, not both"),
        ({"base_url": "x"}, "the base URL must begin with http"),
        ({"default_headers": {"host": "x"}}, "the header field 'host' is written by rawsse itself"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        client_of().with_options(**options)


def test_connections_are_shared() -> None:
    async def story() -> int:
        network = Network(Peer(None, WHOLE, None, WHOLE, None, WHOLE, end=None))
        client = client_of(connect=network)
        for each in (client, client.with_options(timeout=5), client.with_options(api_key="other")):
            await each.messages.create(**ASK)
        return network.attempts

    assert run(story()) == 1


@pytest.mark.parametrize("closed", [0, 1])
def test_closing_one_closes_the_other_with_its_calls(closed: int) -> None:
    async def story() -> None:
        client = client_of(FakeStream(end=None), FakeStream(end=None))
        both = (client, client.with_options(timeout=50))
        tasks = [asyncio.ensure_future(each.messages.create(**ASK)) for each in both]
        await ticks(3)
        await both[closed].aclose()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StreamCancelledError] * 2
        assert (client.is_closed(), both[1].is_closed()) == (True, True)

    run(story())


# --- The environment -----------------------------------------------------------------------------------------------


def test_fields_of_the_environment_go_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-A: env\nX-B: env\nanthropic-version: 2026-10-21")
    connection = FakeStream([WHOLE])
    request = asked(client_of(connection, default_headers={"x-b": "client"}), connection)
    assert (request["x-a"], request["x-b"], request["anthropic-version"]) == ("env", "client", "2026-10-21")


def test_fields_of_the_environment_that_are_none_are_told_without_their_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "canary")
    with pytest.raises(ConfigurationError, match="ANTHROPIC_CUSTOM_HEADERS must have lines") as caught:
        AsyncClient(api_key="k")
    assert "canary" not in str(caught.value)


# --- One number for the clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "connect"), [(2, 2), (10, 10), (30.5, 10.0)])
def test_one_number_is_for_the_silences(seconds: float, connect: float) -> None:
    assert Timeouts.of(seconds) == Timeouts(connect=connect, head=seconds, silence=seconds, content=600.0, total=None)


def test_what_has_connect_and_read_may_stand_for_a_number() -> None:
    class Timeout:  # as `httpx.Timeout`
        connect = 3
        read = None

    assert Timeouts.of(Timeout()) == Timeouts(connect=3, head=None, silence=None)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, "5", []])
def test_what_is_no_number_of_seconds_is_refused(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds above 0, not "):
        Timeouts.of(seconds)


def test_none_is_no_clock_at_all_and_what_is_not_given_is_the_client_s() -> None:
    assert Timeouts.of(None) == Timeouts(connect=None, head=None, silence=None, content=None)
    client = client_of(timeout=7)
    assert client._settings.timeouts == Timeouts(connect=7, head=7, silence=7)
    assert client.with_options(timeout=NOT_GIVEN)._settings.timeouts.silence == 7
    assert client.with_options(timeout=None)._settings.timeouts.silence is None


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [("timeouts", 5, "Timeouts"), ("limits", 10, "PoolLimits"), ("retry_policy", 3, "RetryPolicy")],
)
def test_an_option_of_another_type_is_named(option: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{option} must be a {wanted}, not int$"):
        client_of(**{option: value})


def test_a_clock_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigurationError, match="silence must be a number of seconds above 0, or None, not '5'"):
        client_of(timeouts=Timeouts(silence="5"))  # type: ignore[arg-type]


# --- Several event loops -------------------------------------------------------------------------------------------


def test_two_loops_at_once_have_connections_of_their_own() -> None:
    first_is_open, second_is_over = threading.Event(), threading.Event()
    stream = FakeStream([answer(ANSWER)[:-200], None, b""], end=None)
    client = client_of(stream, answer(ANSWER))

    async def first() -> str:
        async with client.messages.stream(**ASK):
            first_is_open.set()
            await asyncio.get_running_loop().run_in_executor(None, second_is_over.wait)
            assert not stream.is_aborted
        return "left alone"

    async def second() -> str:
        message: Message = await client.messages.create(**ASK)
        return message.text

    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(asyncio.run, first())
        first_is_open.wait()
        assert asyncio.run(second()) == "Hello ☺"
        second_is_over.set()
        assert waiting.result() == "left alone"


def test_closing_the_client_ends_what_runs_in_another_loop() -> None:
    is_open = threading.Event()
    stream = FakeStream([answer(ANSWER)[:-200]], end=None)
    client = client_of(stream)

    async def read() -> None:
        async with client.messages.stream(**ASK) as opened:
            is_open.set()
            await opened.until_done()

    with ThreadPoolExecutor() as threads:
        reading = threads.submit(asyncio.run, read())
        is_open.wait()
        asyncio.run(client.aclose())
        with pytest.raises(StreamCancelledError):
            reading.result()
    assert stream.is_aborted


@pytest.mark.parametrize("where", ["the same thread", "another thread"])
def test_a_stream_is_read_in_its_own_event_loop_or_refuses_at_once(where: str) -> None:
    connection = FakeStream([answer(ANSWER)[:-200], None, answer(ANSWER)[-200:]], end=None)
    client, loop = client_of(connection), asyncio.new_event_loop()
    events = loop.run_until_complete(client.messages.create(**ASK, stream=True))
    first = loop.run_until_complete(anext(events))

    async def elsewhere() -> None:
        async with asyncio.timeout(PATIENCE):
            assert (await anext(events)).type == "content_block_start"  # it has come
            with pytest.raises(RuntimeError, match="the stream belongs to another event loop"):
                _ = [event async for event in events]

    if where == "the same thread":
        asyncio.run(elsewhere())
    else:
        with ThreadPoolExecutor() as threads:
            threads.submit(asyncio.run, elsewhere()).result()
    assert (first.type, connection.is_aborted, events.ending) == ("message_start", False, None)
    loop.run_until_complete(client.aclose())
    loop.close()
    assert connection.is_aborted


# --- Closing the client --------------------------------------------------------------------------------------------


def test_calls_that_other_threads_begin_do_not_disturb_the_close() -> None:
    async def story() -> int:
        client = client_of()
        kept = [client.messages.stream(**ASK)]

        class Interrupted(set[Any]):
            def __iter__(self) -> Iterator[Any]:
                for item in super().__iter__():
                    with contextlib.suppress(RuntimeError):  # it is closed
                        kept.append(client.messages.stream(**ASK))
                    yield item

        client._calls = Interrupted(client._calls)
        await client.aclose()
        return sum(stream._call.is_closed for stream in kept)

    assert run(story()) >= 1


def test_no_call_begins_while_the_client_is_being_closed() -> None:
    async def story() -> int:
        client = client_of(FakeStream([answer(ANSWER)[:-200]], end=None))
        refused: list[str] = []
        async with client.messages.stream(**ASK) as stream:
            end = stream._call.end

            def begin_another() -> None:
                with pytest.raises(RuntimeError, match=r"^the client is closed$"):
                    client.messages.stream(**ASK)
                refused.append("yes")
                end()

            stream._call.end = begin_another  # type: ignore[method-assign]
            await client.aclose()
        return len(refused)

    assert run(story()) == 1


def test_closing_the_client_ends_a_wait_between_two_attempts() -> None:
    async def story() -> StreamCancelledError:
        client = client_of(LATER, WHOLE, max_retries=1)
        task = asyncio.ensure_future(client.messages.create(**ASK))
        await asyncio.sleep(0.1)
        before = asyncio.get_running_loop().time()
        await client.aclose()
        with pytest.raises(StreamCancelledError) as caught:
            await task
        assert asyncio.get_running_loop().time() == before
        return caught.value

    error = run(story())
    assert str(error) == "the stream was closed while it waited for its next attempt"
    assert error.ending is not None
    assert error.ending.kind == "cancelled"


def test_closing_the_client_ends_a_stream_whose_reader_is_busy() -> None:
    async def story() -> str | None:
        client = client_of(FakeStream([answer(ANSWER)[:-200]], end=None))
        async with client.messages.stream(**ASK) as stream:
            await anext(stream)
            await client.aclose()
            with pytest.raises(StreamCancelledError, match="the stream was closed before its end"):
                await stream.until_done()
        return stream.ending.kind if stream.ending else None

    assert run(story()) == "cancelled"


def test_a_client_may_be_closed_twice_by_both_names() -> None:
    async def story() -> bool:
        async with client_of() as client:
            await client.close()
            await client.aclose()
        return client.is_closed()

    assert run(story())


def test_a_stream_that_was_made_before_the_client_was_closed_cannot_be_opened() -> None:
    async def story() -> None:
        client = client_of(WHOLE)
        stream = client.messages.stream(**ASK)
        await client.aclose()
        with pytest.raises(StreamCancelledError):
            await stream.__aenter__()

    run(story())


# --- Streams that are dropped --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_stream_that_is_dropped_warns_and_its_connection_is_free_at_once() -> None:
    async def story() -> None:
        connection = FakeStream([answer(ANSWER)], end=None)
        client = client_of(connection)
        events = await client.messages.create(**ASK, stream=True)
        await anext(events)
        with pytest.warns(ResourceWarning, match="<EventStream open, request req_1> was dropped, neither read"):
            del events
        assert (counts(client._pools)[0], connection.is_aborted) == (0, True)

    run(story())


@pytest.mark.parametrize("wire", [WHOLE, WHOLE[:-300], LATER])
def test_a_stream_that_has_ended_may_be_dropped(wire: bytes) -> None:
    async def story() -> None:
        stream = client_of(wire).messages.stream(**ASK)
        try:
            async with stream:
                await stream.until_done()
        except (APIConnectionError, OverloadedError):
            pass
        del stream

    run(story())  # warnings are errors


def test_a_stream_that_was_never_opened_may_be_dropped() -> None:
    client_of().messages.stream(**ASK)
    gc.collect()


# --- Memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls_api", ["stream", "create"])
def test_a_stream_that_is_over_is_freed_without_the_garbage_collector(calls_api: str) -> None:
    async def story() -> bool:
        client = client_of(WHOLE)
        stream: Any
        if calls_api == "stream":
            async with client.messages.stream(**ASK) as stream:
                await stream.until_done()
        else:
            stream = await client.messages.create(**ASK, stream=True)
            async for _ in stream:
                pass
        gone = [weakref.ref(stream), weakref.ref(stream._call)]
        gc.disable()
        try:
            del stream
            return [ref() for ref in gone] == [None, None] and not client._calls
        finally:
            gc.enable()

    assert run(story())


async def read_many(client: AsyncClient, network: Network, count: int) -> None:
    for _ in range(count):
        async with client.messages.stream(**ASK) as stream:
            await stream.until_done()
        network.streams.clear()  # the test's own
        await ticks()  # the loop forgets timers that were cancelled when it goes round


async def fail_many(client: AsyncClient, network: Network, count: int) -> None:
    for _ in range(count):
        with pytest.raises(APIConnectionError):
            await client.messages.create(**ASK)
        network.streams.clear()
        await ticks()


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def blocks() -> int:
    """How many blocks Python has allocated; to count them costs nothing, unlike `tracemalloc`."""
    gc.collect()
    return sys.getallocatedblocks()


def growth(peer: Peer, use: Use, count: int, measure: Callable[[], int]) -> int:
    """By how much `measure` grows with so many calls of one client."""

    async def story() -> int:
        asyncio.get_running_loop().set_debug(False)
        network = Network(peer)
        client = client_of(connect=network)
        await use(client, network, 200)  # caches fill
        before = measure()
        await use(client, network, count)
        return measure() - before

    return run(story())


@pytest.fixture
def _tracing() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


ENDS = [
    pytest.param(Peer(WHOLE), read_many, id="whole"),
    pytest.param(Peer(WHOLE[:-300], end=RESET), fail_many, id="cut"),
]


@pytest.mark.parametrize(("peer", "use"), ENDS)
def test_nothing_stays_of_many_streams(peer: Peer, use: Use) -> None:
    # A leak grows each time; the interpreter's own caches do so once.
    count = 1000 // one_in(4)  # so one block for each fifth of them is found, and for each twentieth of a thousand
    assert any(growth(peer, use, count, blocks) < 50 for _ in range(3))


# To trace memory takes three times as long as to count blocks: the plain suite does it with whole answers only.
@pytest.mark.usefixtures("_tracing")
@pytest.mark.parametrize(("peer", "use"), ENDS[:: one_in(2)])
def test_memory_is_flat_over_streams(peer: Peer, use: Use) -> None:
    # What grows does so each time. Once in a while a table of Python's own is made larger.
    assert any(growth(peer, use, 100, memory) < 2_000 for _ in range(3))  # 20 bytes for each


def test_a_conversation_is_the_client_s() -> None:
    client = client_of(answer(ANSWER))
    message = run(client.conversation(model="m", max_tokens=9).ask("hi"))
    assert message.text == "Hello ☺"
