"""rawsse.client.call: a request and its attempts: waiting between them, connections that turn out dead, being closed."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from support.answers import ASK, KEY, answer, client_of, plain
from support.clock import run, ticks
from support.faults import (
    BEGIN,
    NOW,
    REFUSED,
    RESET,
    WAYS,
    WHOLE,
    Network,
    Outcome,
    Peer,
    says,
    watch,
)
from support.sockets import serving
from support.streams import ANSWER

from rawsse.client.call import Call
from rawsse.client.client import AsyncClient
from rawsse.client.moments import RequestData
from rawsse.client.network.clocks import Timeouts
from rawsse.client.network.pool import Connection, Pool, PoolLimits
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import TLSContext
from rawsse.client.retry import RetryPolicy
from rawsse.errors import (
    APIConnectionError,
    APIError,
    HeadTimeoutError,
    OverloadedError,
    RateLimitError,
    StreamCancelledError,
)

REQUEST = RequestData("POST", "/v1/messages", "api.example", (("x-api-key", "secret"),), b'{"a":1}')
ROUTE = Route(Origin("http", "api.example", 80))
LATER = plain(b"{}", "529 Later", connection="close")
OBJECT = plain(b'{"a": 1}')
COMPLETE = Outcome(None, "Hello", 0, 0, safe_to_retry=False, ending="complete")


class Setting:
    """A call of these peers, and the pool that its connections come from."""

    def __init__(self, *peers: Peer, timeouts: Timeouts | None = None, chance: float = 0.0, **policy: Any) -> None:
        self.network = Network(*peers)
        self.pool = Pool(self.network, TLSContext(), PoolLimits())
        self.asked: list[bool] = []  # for a fresh connection?
        self.call = Call(
            self._acquire,
            REQUEST,
            timeouts or Timeouts(),
            RetryPolicy(**policy),
            now=lambda: NOW,
            chance=lambda: chance,
        )

    async def _acquire(self, fresh: bool, note_line: Callable[[bool], None]) -> Connection:
        self.asked.append(fresh)
        return await self.pool.acquire(ROUTE, fresh=fresh, note_line=note_line)

    async def warm_up(self, connections: int = 1) -> None:
        """Use so many connections once, at the same time, so that the call gets one that was used before."""
        before = [
            Call(self._acquire, REQUEST, Timeouts(), RetryPolicy(), now=lambda: NOW, chance=lambda: 0.0)
            for _ in range(connections)
        ]
        await asyncio.gather(*(call.read_object() for call in before))
        self.asked.clear()


async def seconds(work: Awaitable[Any]) -> float:
    before = asyncio.get_running_loop().time()
    await work
    return asyncio.get_running_loop().time() - before


# --- Attempts ------------------------------------------------------------------------------------------------------


def test_a_call_that_goes_well_is_made_once() -> None:
    async def story() -> None:
        setting = Setting(Peer(OBJECT))
        assert await setting.call.read_object() == {"a": 1}
        assert (setting.network.attempts, setting.call.retries_taken, setting.asked) == (1, 0, [False])

    run(story())


@pytest.mark.parametrize("read", [Call.open, Call.read_object])
def test_a_failure_that_may_heal_is_tried_again(read: Callable[[Call], Awaitable[Any]]) -> None:
    async def story() -> None:
        setting = Setting(REFUSED, Peer(LATER), Peer(OBJECT))
        assert await seconds(read(setting.call)) == 1.5
        assert (setting.network.attempts, setting.call.retries_taken) == (3, 2)
        setting.call.close()

    run(story())


def test_an_object_that_is_cut_is_asked_for_again() -> None:
    async def story() -> None:
        setting = Setting(Peer(OBJECT[:-3]), Peer(OBJECT))
        assert await setting.call.read_object() == {"a": 1}
        assert setting.call.retries_taken == 1

    run(story())


def test_the_last_failure_is_raised_and_says_how_often_it_was_tried() -> None:
    async def story() -> OverloadedError:
        setting = Setting(Peer(LATER), max_retries=2)
        with pytest.raises(OverloadedError) as caught:
            await setting.call.open()
        assert setting.pool.open_connections == 0
        assert not setting.call.has_retries
        return caught.value

    assert run(story()).retries_taken == 2


def test_a_failure_to_connect_keeps_its_cause() -> None:
    async def story() -> APIConnectionError:
        with pytest.raises(APIConnectionError) as caught:
            await Setting(REFUSED, max_retries=1).call.open()
        return caught.value

    assert isinstance(run(story()).__cause__, ConnectionRefusedError)


def test_chance_makes_the_waits_shorter() -> None:
    async def story() -> float:
        return await seconds(Setting(REFUSED, REFUSED, Peer(OBJECT), chance=1.0).call.read_object())

    assert run(story()) == 0.375 + 0.75  # a quarter less than 0.5 and 1


def test_the_timing_is_that_of_the_last_attempt_counted_from_the_beginning_of_the_call() -> None:
    async def story() -> None:
        call = Setting(Peer(2.0, LATER), Peer(0.25, OBJECT)).call
        await call.read_object()
        timing = call.timing
        assert (timing.connected, timing.head, timing.ended) == (2.5, 2.75, 2.75)
        assert timing.longest_gap == 0  # the head was waited for, and then the body was there

    run(story())


def test_a_wait_that_another_attempt_ended_is_no_gap_in_its_answer() -> None:
    async def story() -> float:
        call = Setting(Peer(says(BEGIN)[:-20], 50.0), Peer(OBJECT)).call
        await call.read_object()
        return call.timing.longest_gap

    assert run(story()) == 0


def test_the_request_id_is_that_of_the_last_response() -> None:
    async def story() -> str | None:
        first = Peer(plain(b"{}", "500 No", request_id="req_1", connection="close"))
        with pytest.raises(APIError) as caught:
            await Setting(first, REFUSED, max_retries=1).call.open()
        return caught.value.request_id

    assert run(story()) is None  # the second attempt had no response


# --- Whether there is another attempt ------------------------------------------------------------------------------


def test_a_wait_that_would_outlast_the_call_is_not_begun() -> None:
    async def story() -> None:
        setting = Setting(Peer(LATER), timeouts=Timeouts(total=0.5))
        before = asyncio.get_running_loop().time()
        with pytest.raises(OverloadedError):
            await setting.call.open()
        assert asyncio.get_running_loop().time() == before
        assert setting.network.attempts == 1

    run(story())


def test_a_wait_that_ends_just_before_the_call_has_to_is_begun() -> None:
    async def story() -> None:
        setting = Setting(Peer(LATER), timeouts=Timeouts(total=0.501), max_retries=1)
        with pytest.raises(OverloadedError):
            await setting.call.open()
        assert setting.network.attempts == 2

    run(story())


def test_a_server_that_asks_for_too_long_a_wait_is_quoted_once() -> None:
    async def story() -> RateLimitError:
        setting = Setting(Peer(plain(b"{}", "429 No", retry_after="90")), max_retry_after=80)
        with pytest.raises(RateLimitError) as caught:
            await setting.call.open()
        return caught.value

    error = run(story())
    assert str(error).endswith("no message in the body (the server asks to wait 90 s; max_retry_after is 80 s)")
    assert (error.args, error.retry_after) == ((error.message,), 90)


# --- Connections that had been used before -------------------------------------------------------------------------


class Reuse(NamedTuple):
    """What becomes of a connection that has carried an answer, what the next ones do, and what the caller is told."""

    what: str
    peers: tuple[Peer, ...]
    outcome: Outcome  # its attempts are the connections that were made for this call
    retries: int
    requests: int
    max_retries: int = 2


ANSWERED = (None, WHOLE, None)  # a whole answer, and then another request
REUSED = (
    # Noticed before the request goes out: nothing is written to it.
    Reuse("closed while it rested", (Peer(WHOLE), Peer(WHOLE)), COMPLETE._replace(attempts=1), 0, 2),
    Reuse("reset while it rested", (Peer(WHOLE, end=RESET), Peer(WHOLE)), COMPLETE._replace(attempts=1), 0, 2),
    Reuse("closed while it rested", (Peer(WHOLE), Peer(WHOLE)), COMPLETE._replace(attempts=1), 0, 2, max_retries=0),
    # Noticed after: the request goes out once more, at no cost.
    Reuse("closed on the request", (Peer(*ANSWERED), Peer(WHOLE)), COMPLETE._replace(attempts=1), 0, 3),
    Reuse("reset on the request", (Peer(*ANSWERED, end=RESET), Peer(WHOLE)), COMPLETE._replace(attempts=1), 0, 3),
    Reuse("closed on the request", (Peer(*ANSWERED), Peer(WHOLE)), COMPLETE._replace(attempts=1), 0, 3, max_retries=0),
    Reuse(
        "closed on the request, and so is the new one",
        (Peer(*ANSWERED), Peer(b""), Peer(WHOLE)),
        COMPLETE._replace(attempts=2, seconds=0.5),
        retries=1,
        requests=4,
    ),
    Reuse(
        "closed on the request, and so is the new one",
        (Peer(*ANSWERED), Peer(b"")),
        Outcome(APIConnectionError, None, 1, 0, safe_to_retry=True, ending="truncated"),
        retries=0,
        requests=3,
        max_retries=0,
    ),
    Reuse(
        "closed on the request, and then it refuses",
        (Peer(*ANSWERED), REFUSED, Peer(WHOLE)),
        COMPLETE._replace(attempts=2, seconds=0.5),
        retries=1,
        requests=3,
    ),
    Reuse(
        "closed on the request of a retry",
        (Peer(*ANSWERED, plain(b"{}", "529 Later"), None), Peer(WHOLE)),
        COMPLETE._replace(attempts=1, seconds=0.5),
        retries=1,
        requests=4,
    ),
    # Something came: whoever sent it had the request.
    Reuse(
        "closed after one byte",
        (Peer(*ANSWERED, b"H"), Peer(WHOLE)),
        COMPLETE._replace(attempts=1, seconds=0.5),
        retries=1,
        requests=3,
    ),
    Reuse(
        "reset after one byte",
        (Peer(*ANSWERED, b"H", end=RESET),),
        Outcome(APIConnectionError, None, 0, 0, safe_to_retry=True, ending="truncated"),
        retries=0,
        requests=2,
        max_retries=0,
    ),
    # Nothing was lost: it may have the request still.
    Reuse(
        "silent",
        (Peer(*ANSWERED, end=None),),
        Outcome(HeadTimeoutError, None, 0, 120, safe_to_retry=True, ending="timeout"),
        retries=0,
        requests=2,
        max_retries=0,
    ),
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.what} ({row.max_retries})") for row in REUSED])
def test_a_connection_that_had_been_used_before_turns_out_dead(row: Reuse, way: str) -> None:
    seen = run(watch(*row.peers, way=way, calls_before=1, max_retries=row.max_retries))
    assert seen.outcome == row.outcome
    assert (seen.retries_taken if seen.error is None else seen.error.retries_taken) == row.retries
    assert len(seen.requests) == row.requests


def test_a_new_connection_that_dies_is_a_retry_like_any_other() -> None:
    seen = run(watch(Peer(b""), Peer(WHOLE)))
    assert seen.outcome == COMPLETE._replace(attempts=2, seconds=0.5)
    assert seen.retries_taken == 1


def test_what_goes_out_once_more_goes_over_a_new_connection_even_where_another_rests() -> None:
    async def story() -> None:
        dying = Peer(None, OBJECT, None)
        setting = Setting(dying, dying, Peer(OBJECT))
        await setting.warm_up(connections=2)
        assert await setting.call.read_object() == {"a": 1}
        assert (setting.asked, setting.network.attempts) == ([False, True], 3)

    run(story())


@pytest.mark.parametrize("pause", [0, 1, 5])
def test_a_server_that_closes_after_each_answer_is_asked_once_for_each(pause: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":true}')
        asked.append(1)
        writer.write(WHOLE)
        writer.close()

    async def story() -> None:
        async with serving(serve) as origin, AsyncClient(api_key="x", base_url=f"{origin}", max_retries=0) as client:
            for _ in range(3):
                assert (await client.messages.create(**ASK)).text == "Hello"
                await ticks(pause)

    asked: list[int] = []
    run(story())
    assert len(asked) == 3


# --- Closing -------------------------------------------------------------------------------------------------------


async def struck(setting: Setting, after: float, strike: Callable[[asyncio.Task[Any]], Any]) -> BaseException:
    """What a call raises that is struck after so many seconds; it must be over at once."""
    loop = asyncio.get_running_loop()
    task: asyncio.Task[Any] = asyncio.ensure_future(setting.call.read_object())
    await asyncio.sleep(after)
    before = loop.time()
    strike(task)
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the caller looks at it
        await task
    assert loop.time() == before
    assert setting.pool.open_connections == 0
    return caught.value


def test_closing_ends_the_wait_between_two_attempts() -> None:
    async def story() -> tuple[BaseException, int]:
        setting = Setting(Peer(LATER))
        return await struck(setting, 0.2, lambda _: setting.call.close()), setting.network.attempts

    error, attempts = run(story())
    assert isinstance(error, StreamCancelledError)
    assert str(error) == "the stream was closed while it waited for its next attempt"
    assert (error.retries_taken, attempts) == (0, 1)
    assert isinstance(error.__cause__, OverloadedError)


def test_being_cancelled_ends_the_wait_between_two_attempts() -> None:
    async def story() -> tuple[BaseException, int]:
        setting = Setting(Peer(LATER))
        return await struck(setting, 0.2, lambda task: task.cancel()), setting.network.attempts

    error, attempts = run(story())
    assert isinstance(error, asyncio.CancelledError)
    assert attempts == 1


def test_closing_ends_an_attempt_and_there_is_no_other() -> None:
    async def story() -> BaseException:
        setting = Setting(Peer(end=None))
        return await struck(setting, 30, lambda _: setting.call.close())

    error = run(story())
    assert isinstance(error, StreamCancelledError)
    assert str(error) == "the stream was closed while it was waited for"


def test_a_connection_that_dies_while_the_call_is_closed_is_not_replaced() -> None:
    async def story() -> None:
        setting = Setting(Peer(None, OBJECT, None, 5.0), Peer(OBJECT))
        await setting.warm_up()

        def close_as_it_dies(_: Any) -> None:
            setting.network.streams[0].abort()
            setting.call.close()

        error = await struck(setting, 1, close_as_it_dies)
        assert isinstance(error, StreamCancelledError)
        assert setting.asked == [False]

    run(story())


def test_a_call_that_was_closed_is_not_tried_again() -> None:
    async def story() -> None:
        setting = Setting(Peer(LATER))
        setting.call.close()
        with pytest.raises(StreamCancelledError):
            await setting.call.open()
        with pytest.raises(OverloadedError):
            await setting.call.again(OverloadedError("No.", status_code=529))
        assert setting.network.attempts == 0

    run(story())


def test_a_call_that_is_abandoned_is_closed_in_the_next_tick() -> None:
    async def story() -> None:
        setting = Setting(Peer(OBJECT[:-1], end=None))
        await setting.call.open()
        setting.call.abandon()
        assert setting.pool.open_connections == 1
        await ticks()
        assert (setting.pool.open_connections, setting.network.streams[0].is_aborted) == (0, True)

    run(story())


def test_a_call_may_be_abandoned_before_it_began_and_after_its_loop_is_closed() -> None:
    async def story() -> Setting:
        setting = Setting(Peer(OBJECT))
        setting.call.abandon()
        await setting.call.read_object()
        return setting

    setting = run(story())
    setting.call.abandon()
    assert setting.call.retries_taken == 0


@pytest.mark.parametrize("first", [Peer(OBJECT), REFUSED])
def test_a_call_is_freed_without_the_garbage_collector(first: Peer) -> None:
    async def story() -> bool:
        pool = Pool(Network(first, Peer(OBJECT)), TLSContext())

        async def acquire(fresh: bool, note_line: Callable[[bool], None]) -> Connection:
            return await pool.acquire(ROUTE, fresh=fresh, note_line=note_line)

        call = Call(acquire, REQUEST, Timeouts(), RetryPolicy(), now=lambda: NOW, chance=lambda: 0.0)
        await call.read_object()
        gone = weakref.ref(call)
        gc.disable()
        try:
            del call
            return gone() is None
        finally:
            gc.enable()

    assert run(story())


# --- What is told of attempts ----------------------------------------------------------------------------------------


def test_a_refusal_brings_its_response_and_the_rate_limits() -> None:
    fields = {"anthropic-ratelimit-requests-remaining": "0", "request-id": "req_9"}
    refusal = plain(b"{}", "429 No", **fields)
    with pytest.raises(RateLimitError) as caught:
        run(client_of(refusal).messages.create(**ASK))
    error = caught.value
    assert error.response is not None
    assert (error.response.status_code, error.response.headers["request-id"]) == (429, "req_9")
    assert error.rate_limits is not None
    assert error.rate_limits.requests is not None
    assert error.rate_limits.requests.remaining == 0


def test_an_error_event_brings_the_limits_of_its_response() -> None:
    event = b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "No."}}\n\n'
    fields = {"content-type": "text/event-stream", "anthropic-ratelimit-tokens-limit": "7"}
    with pytest.raises(OverloadedError) as caught:
        run(client_of(plain(event, **fields)).messages.create(**ASK))
    limits = caught.value.rate_limits
    assert limits is not None
    assert limits.tokens is not None
    assert limits.tokens.limit == 7


def test_another_attempt_is_logged_with_its_reason_and_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawsse.client")
    client = client_of(plain(b"{}", "529 No", request_id="req_1"), answer(ANSWER), max_retries=1, chance=lambda: 0.0)
    assert run(client.messages.create(**ASK)).text == "Hello ☺"
    assert caplog.messages == ["OverloadedError: retry 1 of 1, in 0.5 s; request req_1"]
    assert KEY not in caplog.text
