"""rawsse.client.stream, `Call`: a request and its attempts, over links that a test plays and without an event loop: waiting
between attempts, connections that turn out dead, requests that are answered too early, being closed in each wait."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import pytest
from support.answers import ASK, KEY, answer, client_of, head, plain
from support.clock import run, ticks
from support.faults import (
    BEGIN,
    BLACK_HOLE,
    NOW,
    REFUSED,
    RESET,
    WAYS,
    WHOLE,
    Network,
    Outcome,
    Peer,
    Timeless,
    says,
    see,
)
from support.reading import REQUEST, ROUTE
from support.sockets import serving
from support.streams import ANSWER

from rawsse.client.answer import Answer
from rawsse.client.client import AsyncClient
from rawsse.client.exchange import WRITE_BYTES, CallSettings, Exchange, JSONAnswer
from rawsse.client.network.link import Aborted, Expired, Signal, drive
from rawsse.client.network.pool import Pool, PoolLimits
from rawsse.client.network.tls import TLSContext
from rawsse.client.request import RequestData
from rawsse.client.retry import RetryPolicy, Timeouts
from rawsse.client.stream import Call
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ConnectTimeoutError,
    ContentTooLargeError,
    HeadTimeoutError,
    HTTPUsageError,
    OverloadedError,
    RateLimitError,
    StreamCancelledError,
    TotalTimeoutError,
)
from rawsse.replay.fakes import FakeStream
from rawsse.replay.proxy import RawAnswer

LATER = plain(b"{}", "529 Later", connection="close")
OBJECT = plain(b'{"a": 1}')
LARGE = RequestData("POST", "/", "api.example", (), b"x" * 3 * WRITE_BYTES)
COMPLETE = Outcome(None, "Hello", 0, 0, safe_to_retry=False, ending="complete")

E = TypeVar("E", bound=Exchange)


class Setting:
    """Calls to these peers, and the pool that their connections come from."""

    def __init__(
        self,
        *peers: Peer,
        timeouts: Timeouts | None = None,
        request: RequestData = REQUEST,
        chance: float = 0.0,
        limits: PoolLimits | None = None,
        **policy: Any,
    ) -> None:
        self.peers = Network(*peers)
        self.network = Timeless(self.peers)
        self.pool = Pool(self.network, TLSContext(), limits or PoolLimits())
        self._timeouts = timeouts or Timeouts()
        self._request = request
        self._chance = chance
        self._policy = RetryPolicy(**policy)
        self.call = self.new_call(JSONAnswer)

    def new_call(self, kind: type[E]) -> Call[E]:
        settings = CallSettings(self._request, ROUTE, self._timeouts, self._policy)
        settings = settings._replace(now=lambda: NOW, chance=lambda: self._chance)
        return Call(lambda: self.pool, settings, kind)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self.network.time - 1000.0

    def open(self) -> dict[str, Any]:
        """The object that the call brings."""
        return drive(self.call.open()).value

    def fail(self) -> APIError:
        """The error that the call raises."""
        with pytest.raises(APIError) as caught:
            self.open()
        return caught.value

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call it when so many seconds have passed."""
        self.network.call_at(self.network.time + seconds, callback)

    def hold_connections(self, count: int = 1) -> list[Call[RawAnswer]]:
        """Calls that have so many connections, until they are closed or read to their end."""
        self.holders = [self.new_call(RawAnswer) for _ in range(count)]
        for call in self.holders:
            drive(call.open())
        return self.holders


def read_through(call: Call[RawAnswer]) -> None:
    while not call.exchange.is_over:
        drive(call.more())
    call.release()


def in_another_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# --- Attempts ------------------------------------------------------------------------------------------------------


def test_a_call_that_goes_well_is_made_once() -> None:
    setting = Setting(Peer(OBJECT))
    assert setting.open() == {"a": 1}
    assert (setting.peers.attempts, setting.call.retries_taken, setting.seconds) == (1, 0, 0)


@pytest.mark.parametrize("kind", [JSONAnswer, Answer, RawAnswer])
def test_a_failure_that_may_heal_is_tried_again(kind: type[Exchange]) -> None:
    setting = Setting(REFUSED, Peer(LATER), Peer(OBJECT))
    call: Call[Exchange] = setting.new_call(kind)
    drive(call.open())
    is_raw = kind is RawAnswer  # for which every status is an answer
    assert setting.seconds == (0.5 if is_raw else 1.5)
    assert (setting.peers.attempts, call.retries_taken) == ((2, 1) if is_raw else (3, 2))


def test_an_object_that_is_cut_is_asked_for_again() -> None:
    setting = Setting(Peer(OBJECT[:-3]), Peer(OBJECT))
    assert setting.open() == {"a": 1}
    assert setting.call.retries_taken == 1


def test_every_attempt_sends_the_same() -> None:
    setting = Setting(Peer(LATER), Peer(OBJECT))
    setting.open()
    first, second = (bytes(stream.written) for stream in setting.peers.streams)
    assert first == second
    assert first.endswith(b'{"a":1}')


def test_the_last_failure_is_raised_and_says_how_often_it_was_tried() -> None:
    setting = Setting(Peer(LATER), max_retries=2)
    error = setting.fail()
    assert isinstance(error, OverloadedError)
    assert (error.retries_taken, setting.peers.attempts, setting.call.retries_taken) == (2, 3, 2)
    assert setting.pool.open_connections == 0


def test_whether_another_attempt_may_follow_is_known_to_each() -> None:
    setting = Setting(Peer(says(BEGIN)), max_retries=1)
    call = setting.new_call(Answer)
    first = drive(call.open())
    drive(call.more())
    assert first.next_event() is None
    assert first.error is not None
    assert (first.is_committed, drive(call.open(first.error)).is_committed) == (False, True)


def test_a_failure_to_connect_keeps_its_cause() -> None:
    assert isinstance(Setting(REFUSED, max_retries=1).fail().__cause__, ConnectionRefusedError)


def test_chance_makes_the_waits_shorter() -> None:
    setting = Setting(REFUSED, REFUSED, Peer(OBJECT), chance=1.0)
    setting.open()
    assert setting.seconds == 0.375 + 0.75  # a quarter less than 0.5 and 1


def test_the_timing_is_that_of_the_last_attempt_counted_from_the_beginning_of_the_call() -> None:
    setting = Setting(Peer(2.0, LATER), Peer(0.25, OBJECT))
    setting.open()
    timing = setting.call.timing
    assert (timing.connected, timing.head, timing.ended) == (2.5, 2.75, 2.75)
    assert timing.longest_gap == 0  # the head was waited for, and then the body was there


def test_a_wait_that_another_attempt_ended_is_no_gap_in_its_answer() -> None:
    setting = Setting(Peer(says(BEGIN)[:-20], 50.0), Peer(OBJECT))
    setting.open()
    assert setting.call.timing.longest_gap == 0


def test_the_request_id_is_that_of_the_last_response() -> None:
    first = Peer(plain(b"{}", "500 No", request_id="req_1", connection="close"))
    assert Setting(first, max_retries=0).fail().request_id == "req_1"
    assert Setting(first, REFUSED, max_retries=1).fail().request_id is None  # the second attempt had no response


def test_a_redirect_is_not_followed_with_the_key() -> None:
    setting = Setting(Peer(plain(b"", "308 Permanent Redirect", location="https://elsewhere.example/v1/messages")))
    error = setting.fail()
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.headers["location"]) == (308, "https://elsewhere.example/v1/messages")
    assert [bytes(stream.written).count(b"POST") for stream in setting.peers.streams] == [1]


def test_a_request_that_http_does_not_allow_is_refused_before_it_is_connected() -> None:
    setting = Setting(Peer(end=None), request=RequestData("POST", "/", "h", (("bad name", "secret"),)))
    with pytest.raises(HTTPUsageError, match="bad name"):
        setting.open()
    assert (setting.peers.attempts, setting.pool.open_connections, len(setting.pool.queue)) == (0, 0, 0)


def test_a_failure_that_is_no_api_error_passes_and_drops_the_connection() -> None:
    setting = Setting(Peer(end=KeyError("a bug")))
    with pytest.raises(KeyError, match="a bug"):
        setting.open()
    assert (setting.pool.open_connections, setting.peers.streams[0].is_aborted) == (0, True)


# --- Whether there is another attempt ------------------------------------------------------------------------------


def test_a_wait_that_would_outlast_the_call_is_not_begun() -> None:
    setting = Setting(Peer(LATER), timeouts=Timeouts(total=0.5))
    assert isinstance(setting.fail(), OverloadedError)
    assert (setting.seconds, setting.peers.attempts) == (0, 1)


def test_a_wait_that_ends_just_before_the_call_has_to_is_begun() -> None:
    setting = Setting(Peer(LATER), timeouts=Timeouts(total=0.501), max_retries=1)
    assert isinstance(setting.fail(), OverloadedError)
    assert setting.peers.attempts == 2


def test_a_server_that_asks_for_too_long_a_wait_is_quoted_once() -> None:
    error = Setting(Peer(plain(b"{}", "429 No", retry_after="90")), max_retry_after=80).fail()
    assert isinstance(error, RateLimitError)
    assert str(error).endswith("no message in the body (the server asks to wait 90 s; max_retry_after is 80 s)")
    assert (error.args, error.retry_after) == ((error.message,), 90)


@pytest.mark.parametrize(
    ("fields", "seconds", "why"),
    [
        ({"retry_after": "5"}, 2, "the server asks to wait 5 s; the total of 2 s ends before that"),
        ({"retry_after": "90"}, 2, "the server asks to wait 90 s; max_retry_after is 60 s"),
        ({}, 0.5, "the next attempt would be in 0.5 s; the total of 0.5 s ends before that"),
    ],
)
def test_a_failure_that_could_be_retried_says_why_it_is_not(fields: dict[str, str], seconds: float, why: str) -> None:
    error = Setting(Peer(plain(b"{}", "429 No", **fields)), timeouts=Timeouts(total=seconds)).fail()
    assert str(error) == f"status 429: no message in the body ({why})"
    assert error.args == (error.message,)


def test_a_failure_that_would_not_be_retried_in_any_case_says_nothing_of_the_time() -> None:
    peer = Peer(plain(b"{}", "429 No", retry_after="5"))
    error = Setting(peer, timeouts=Timeouts(total=2), max_retries=0).fail()
    assert str(error) == "status 429: no message in the body"


# --- Queued ------------------------------------------------------------------------------------------------------------

ONE = PoolLimits(max_connections=1)
HOLDING = Peer(head(content_length="1"), end=None)


def test_a_call_in_the_queue_gets_the_connection_that_becomes_free() -> None:
    setting = Setting(Peer(head(content_length="1"), b"x", None, OBJECT), limits=ONE)
    (holder,) = setting.hold_connections()
    setting.after(5, lambda: read_through(holder))
    assert setting.open() == {"a": 1}
    assert (setting.seconds, setting.peers.attempts, setting.call.timing.is_reused) == (5, 1, True)


def test_the_clock_of_connecting_begins_when_the_queue_has_been_passed() -> None:
    setting = Setting(HOLDING, BLACK_HOLE, limits=ONE, timeouts=Timeouts(connect=5, head=60), max_retries=0)
    (holder,) = setting.hold_connections()
    setting.after(50, holder.close)
    error = setting.fail()
    assert isinstance(error, ConnectTimeoutError)
    assert error.message.startswith("no connection to api.example within 5 s")
    assert setting.seconds == 55


@pytest.mark.parametrize(
    ("timeouts", "cls", "seconds"),
    [
        (Timeouts(connect=5, head=20), ConnectTimeoutError, 20),
        (Timeouts(connect=5, head=60, total=30), TotalTimeoutError, 30),
    ],
)
def test_the_queue_has_a_clock_and_is_left_when_it_has_run_out(
    timeouts: Timeouts, cls: type[APITimeoutError], seconds: float
) -> None:
    setting = Setting(HOLDING, limits=ONE, timeouts=timeouts, max_retries=0)
    setting.hold_connections()
    error = setting.fail()
    assert (type(error), setting.seconds, len(setting.pool.queue)) == (cls, seconds, 0)
    if cls is ConnectTimeoutError:
        assert error.message == "no connection was free within 20 s: all that max_connections allows are in use"


def test_closing_the_pool_ends_a_call_in_its_queue() -> None:
    setting = Setting(HOLDING, limits=ONE)
    setting.hold_connections()
    setting.after(3, setting.pool.close)
    error = setting.fail()
    assert (type(error), setting.seconds) == (StreamCancelledError, 3)
    assert error.message == "the client was closed while a call waited for a connection"


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
    seen = see(*row.peers, way=way, calls_before=1, max_retries=row.max_retries)
    assert seen.outcome == row.outcome
    assert (seen.retries_taken if seen.error is None else seen.error.retries_taken) == row.retries
    assert len(seen.requests) == row.requests


def test_a_new_connection_that_dies_is_a_retry_like_any_other() -> None:
    seen = see(Peer(b""), Peer(WHOLE))
    assert seen.outcome == COMPLETE._replace(attempts=2, seconds=0.5)
    assert seen.retries_taken == 1


def test_what_goes_out_once_more_goes_over_a_new_connection_even_where_another_rests() -> None:
    dying = Peer(None, OBJECT[:-1], OBJECT[-1:], None)
    setting = Setting(dying, dying, Peer(OBJECT))
    for call in setting.hold_connections(2):
        read_through(call)
    assert len(setting.pool.idle) == 2
    assert setting.open() == {"a": 1}
    assert (setting.peers.attempts, setting.call.retries_taken, setting.seconds) == (3, 0, 0)
    assert not setting.call.timing.is_reused


@pytest.mark.parametrize("wire", [OBJECT, plain(b"{}", "400 No")], ids=["answer", "refusal"])
def test_a_connection_is_kept_after_a_whole_response(wire: bytes) -> None:
    setting = Setting(Peer(None, wire, None, OBJECT, end=None), max_retries=0)
    if wire is OBJECT:
        setting.open()
    else:
        setting.fail()
    assert (len(setting.pool.idle), setting.pool.open_connections) == (1, 1)
    assert drive(setting.new_call(JSONAnswer).open()).value == {"a": 1}
    assert setting.peers.attempts == 1


@pytest.mark.parametrize(
    "peer",
    [
        Peer(plain(b'{"a": 1}', connection="close"), end=None),
        Peer(plain(b"{}", "500 No")[:-1]),
        Peer(plain(b"{}", "500 No")[:-1], end=RESET),
        Peer(b"\0", end=None),
        Peer(OBJECT + b"HTTP/1.1 200 OK\r\n", end=None),
    ],
    ids=["connection: close", "a cut refusal", "a reset refusal", "garbage", "more than was asked for"],
)
def test_it_is_dropped_after_anything_else(peer: Peer) -> None:
    setting = Setting(peer, max_retries=0)
    with contextlib.suppress(APIError):
        setting.open()
    assert (setting.pool.open_connections, setting.peers.streams[0].is_aborted) == (0, True)


def test_while_the_next_attempt_is_waited_for_the_connection_of_the_last_is_free() -> None:
    setting = Setting(Peer(plain(b"{}", "529 Later"), None, OBJECT, end=None), limits=ONE)
    others: list[int] = []
    setting.after(0.25, lambda: others.append(len(setting.pool.idle)))
    assert setting.open() == {"a": 1}
    assert (others, setting.peers.attempts) == ([1], 1)


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


# --- A request that is answered too early ------------------------------------------------------------------------------

TOO_LARGE = plain(b"{}", "413 Content Too Large")


class Deaf(FakeStream):
    """A peer that takes so much and no more; it may have said why."""

    takes = 0

    async def write(self, data: bytes, deadline: float) -> None:
        if len(self.written) >= self.takes:
            raise RESET
        await super().write(data, deadline)


class HalfDeaf(Deaf):
    takes = 1


class Full(FakeStream):
    """A peer that takes nothing, and the write does not end when it says why."""

    async def write(self, data: bytes, deadline: float) -> None:
        assert self._network is not None
        await self._network.signal().wait(deadline)
        raise Expired


@pytest.mark.parametrize("wire", [TOO_LARGE, OBJECT], ids=["413", "200"])
@pytest.mark.parametrize("large", [True, False])
def test_an_answer_that_is_there_when_the_clock_of_a_write_runs_out_is_read(wire: bytes, *, large: bool) -> None:
    setting = Setting(Peer(wire, end=None, stream=Full), request=LARGE if large else REQUEST, max_retries=0)
    if wire is TOO_LARGE:
        assert type(setting.fail()) is ContentTooLargeError
    else:
        assert setting.open() == {"a": 1}
    assert (setting.pool.open_connections, setting.peers.streams[0].is_aborted) == (0, True)


@pytest.mark.parametrize(
    "peer",
    [
        Peer(None, TOO_LARGE, end=None),
        Peer(None, TOO_LARGE[:-1], 1.0, TOO_LARGE[-1:], end=None),
        Peer(TOO_LARGE, end=RESET, stream=Deaf),
        Peer(None, 0.0, TOO_LARGE, end=RESET, stream=HalfDeaf),
    ],
    ids=["while it is sent", "in two reads", "and the peer takes nothing", "and the peer takes no more"],
)
def test_an_answer_that_came_before_the_request_was_sent_is_read(peer: Peer) -> None:
    setting = Setting(peer, request=LARGE, max_retries=0)
    assert type(setting.fail()) is ContentTooLargeError
    assert len(setting.peers.streams[0].written) <= WRITE_BYTES
    # The rest of the request is missing: what is sent next on this connection would be taken for it.
    assert (setting.pool.open_connections, setting.peers.streams[0].is_aborted) == (0, True)


def test_an_interim_response_is_not_an_answer() -> None:
    peer = Peer(None, head("100 Continue"), 1.0, OBJECT, end=None)
    setting = Setting(peer, request=LARGE)
    assert setting.open() == {"a": 1}
    assert len(setting.peers.streams[0].written) > 3 * WRITE_BYTES
    assert len(setting.pool.idle) == 1


@pytest.mark.parametrize(
    ("peer", "phase", "message"),
    [
        (Peer(None, end=RESET), "send", "the connection to api.example was lost before an answer: Connection reset"),
        (Peer(None), "send", "api.example closed the connection without an answer"),
        (Peer(end=RESET, stream=Deaf), "send", "the connection to api.example was lost before an answer: Connection"),
        (Peer(stream=Deaf), "send", "api.example closed the connection without an answer"),
    ],
    ids=["reset", "closed", "reset at once", "closed at once"],
)
def test_a_connection_that_is_lost_while_the_request_is_sent_is_told(peer: Peer, phase: str, message: str) -> None:
    setting = Setting(peer, request=LARGE, max_retries=0)
    error = setting.fail()
    assert (type(error), error.phase, error.message[: len(message)]) == (APIConnectionError, phase, message)
    assert len(setting.peers.streams[0].written) <= WRITE_BYTES
    assert setting.pool.open_connections == 0


class Slow(FakeStream):
    """A peer that takes three seconds for each piece."""

    async def write(self, data: bytes, deadline: float) -> None:
        assert self._network is not None
        await self._network.signal().wait(self._network.now() + 3)
        await super().write(data, deadline)


def test_a_large_request_may_take_its_time_as_long_as_it_flows() -> None:
    setting = Setting(Peer(None, 12.0, OBJECT, stream=Slow), request=LARGE, timeouts=Timeouts(head=4))
    assert setting.open() == {"a": 1}
    assert setting.seconds == 15


# --- Ended in each wait ------------------------------------------------------------------------------------------------


class Stuck(FakeStream):
    """A peer that takes nothing for ever."""

    async def write(self, data: bytes, deadline: float) -> None:
        assert self._network is not None
        self._changed = self._network.signal()
        if not await self._changed.wait(deadline):
            raise Expired
        raise Aborted


WAITS: dict[str, tuple[Callable[[], Setting], str]] = {
    "connecting": (lambda: Setting(BLACK_HOLE), "connect"),
    "sending": (lambda: Setting(Peer(stream=Stuck)), "send"),
    "the head": (lambda: Setting(Peer(end=None)), "head"),
    "half a head": (lambda: Setting(Peer(OBJECT[:9], end=None)), "head"),
    "the body": (lambda: Setting(Peer(OBJECT[:-1], end=None)), "open"),
    "the body of a refusal": (lambda: Setting(Peer(LATER[:-1], end=None)), "open"),
    "the next attempt": (lambda: Setting(Peer(plain(b"{}", "429 Later", retry_after="9"), end=None)), "open"),
    "the second attempt": (lambda: Setting(Peer(LATER), Peer(end=None)), "head"),
    "a connection that is used again": (lambda: used(Setting(Peer(None, OBJECT, None, 9.0))), "head"),
    "the queue": (lambda: queued(Setting(HOLDING, limits=ONE)), "connect"),
}

each_wait = pytest.mark.parametrize(("make", "phase"), WAITS.values(), ids=WAITS)


def used(setting: Setting) -> Setting:
    setting.open()
    setting.call = setting.new_call(JSONAnswer)
    return setting


def queued(setting: Setting) -> Setting:
    (holder,) = setting.hold_connections()
    setting.after(4, holder.close)
    return setting


def check_nothing_is_left(setting: Setting) -> None:
    """But for a connection that rests, or one that another call holds."""
    pool = setting.pool
    assert len(pool.queue) == 0
    assert sum(not stream.is_aborted for stream in setting.peers.streams) == pool.open_connections <= 1
    assert setting.call.exchange.is_over


@each_wait
@pytest.mark.parametrize("from_another_thread", [False, True], ids=["", "from another thread"])
def test_closing_ends_each_wait_at_once(make: Callable[[], Setting], phase: str, from_another_thread: bool) -> None:
    setting = make()
    close = partial(in_another_thread, setting.call.close) if from_another_thread else setting.call.close
    setting.after(3, close)
    before = setting.seconds
    error = setting.fail()
    assert (type(error), setting.seconds) == (StreamCancelledError, before + 3)
    assert error.phase == (None if isinstance(error.__cause__, APIError) else phase)
    check_nothing_is_left(setting)


def interrupt() -> None:
    raise KeyboardInterrupt


@each_wait
def test_an_interrupt_passes_at_once_and_leaves_nothing(make: Callable[[], Setting], phase: str) -> None:
    del phase
    setting = make()
    setting.after(3, interrupt)
    before = setting.seconds
    with pytest.raises(KeyboardInterrupt):
        setting.open()
    assert (setting.seconds, setting.call.is_closed) == (before + 3, True)
    check_nothing_is_left(setting)


# A refusal is told as what it is, and a wait for another attempt that would outlast the call is not begun.
@pytest.mark.parametrize("name", [name for name in WAITS if name not in ("the body of a refusal", "the next attempt")])
def test_the_clock_of_the_whole_call_ends_each_wait(name: str) -> None:
    make, phase = WAITS[name]
    setting = make()
    setting._timeouts = Timeouts(total=3)
    setting.call = setting.new_call(JSONAnswer)
    error = setting.fail()
    assert (type(error), error.phase) == (TotalTimeoutError, phase)
    check_nothing_is_left(setting)


def test_closing_ends_the_wait_between_two_attempts_with_the_failure_as_its_cause() -> None:
    setting = Setting(Peer(LATER))
    setting.after(0.2, setting.call.close)
    error = setting.fail()
    assert str(error) == "the stream was closed while it waited for its next attempt"
    assert (type(error), error.retries_taken, setting.peers.attempts) == (StreamCancelledError, 0, 1)
    assert isinstance(error.__cause__, OverloadedError)


def test_closing_ends_an_attempt_and_there_is_no_other() -> None:
    setting = Setting(Peer(end=None))
    setting.after(30, setting.call.close)
    assert str(setting.fail()) == "the stream was closed before its end"
    assert setting.peers.attempts == 1


def test_a_connection_that_dies_while_the_call_is_closed_is_not_replaced() -> None:
    setting = used(Setting(Peer(None, OBJECT, None, 1.0), Peer(OBJECT)))

    def close_as_it_dies() -> None:
        setting.peers.streams[0].abort()
        setting.call.close()

    setting.after(1, close_as_it_dies)
    assert type(setting.fail()) is StreamCancelledError
    assert setting.peers.attempts == 1


def test_a_call_that_was_closed_first_is_not_begun() -> None:
    setting = Setting(Peer(LATER))
    setting.call.close()
    setting.call.close()
    assert type(setting.fail()) is StreamCancelledError
    with pytest.raises(OverloadedError):
        drive(setting.call.open(OverloadedError("No.", status_code=529)))
    assert (setting.peers.attempts, setting.call.timing.ended) == (0, 0)


def test_closing_a_call_that_is_complete_changes_nothing() -> None:
    setting = Setting(Peer(OBJECT, end=None))
    assert setting.open() == {"a": 1}
    setting.call.close()
    assert (setting.call.exchange.error, setting.call.exchange.value) == (None, {"a": 1})
    assert (len(setting.pool.idle), setting.peers.streams[0].is_aborted) == (1, False)


def test_the_first_failure_of_a_stream_is_the_one_that_its_readers_get() -> None:
    call = Setting(Peer(LATER)).new_call(Answer)
    first, second = StreamCancelledError("first"), StreamCancelledError("second")
    assert call.fail(first) is first
    assert call.fail(second) is first
    assert (first.ending, second.ending) == (call.exchange.ending(), None)


def test_a_call_that_was_closed_is_not_read_on() -> None:
    setting = Setting(Peer(head(content_length="1"), b"x"))
    (call,) = setting.hold_connections()
    call.close()
    drive(call.more())
    assert (type(call.exchange.error), call.exchange.take()) == (StreamCancelledError, [])
    call.release()
    drive(call.more())
    assert call.exchange.take() == []


# --- Ended by another thread, at the worst moment ----------------------------------------------------------------------


class Meddling(Pool):
    """A pool that has the call closed, by another thread, as it gives it a place."""

    meddle: Callable[[], object] = staticmethod(lambda: None)

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        lease = super().acquire(*arguments, **options)
        in_another_thread(self.meddle)
        return lease


def meddled(*peers: Peer, **options: Any) -> tuple[Setting, Meddling]:
    setting = Setting(*peers, **options)
    setting.pool = pool = Meddling(setting.network, TLSContext(), options.get("limits", PoolLimits()))
    return setting, pool


def test_closing_as_the_call_is_queued_ends_its_wait() -> None:
    setting, pool = meddled(HOLDING, limits=ONE)
    setting.hold_connections()
    setting.call = setting.new_call(JSONAnswer)
    pool.meddle = setting.call.close
    assert (type(setting.fail()), setting.seconds, len(pool.queue)) == (StreamCancelledError, 0, 0)


def test_closing_as_the_call_gets_a_place_frees_it_and_does_not_connect() -> None:
    setting, pool = meddled(BLACK_HOLE)
    setting.call = setting.new_call(JSONAnswer)
    pool.meddle = setting.call.close
    assert type(setting.fail()) is StreamCancelledError
    assert (setting.seconds, pool.open_connections, setting.peers.attempts) == (0, 0, 0)


def test_closing_as_the_connection_comes_up_drops_it() -> None:
    setting = Setting(Peer(OBJECT))
    connect = setting.peers.connect

    def connect_and_close(peer: Peer) -> FakeStream:
        in_another_thread(setting.call.close)
        return connect(peer)

    setting.peers.connect = connect_and_close  # type: ignore[method-assign]
    assert type(setting.fail()) is StreamCancelledError
    (stream,) = setting.peers.streams
    assert (stream.is_aborted, bytes(stream.written), setting.pool.open_connections) == (True, b"", 0)


def test_closing_as_the_next_attempt_is_about_to_be_waited_for_ends_the_wait() -> None:
    setting = Setting(Peer(LATER))
    new_signal = setting.network.signal

    def signal() -> Signal:
        made = new_signal()
        if setting.call.exchange.error is not None:
            in_another_thread(setting.call.close)
        return made

    setting.network.signal = signal  # type: ignore[method-assign, assignment]
    error = setting.fail()
    assert (type(error), setting.seconds, setting.peers.attempts) == (StreamCancelledError, 0, 1)


def test_a_clock_runs_out_also_when_there_is_no_pool_any_more() -> None:
    setting = Setting(BLACK_HOLE, max_retries=0)

    def once() -> Pool:
        setting.call._get_pool = closed
        return setting.pool

    def closed() -> Pool:
        raise RuntimeError("the client is closed")

    setting.call._get_pool = once
    assert type(setting.fail()) is ConnectTimeoutError


def test_an_exchange_that_is_not_driven_now_is_ended_by_the_thread_that_closes_the_call() -> None:
    setting = Setting(Peer(head(content_length="1"), end=None))
    (call,) = setting.hold_connections()
    in_another_thread(call.close)
    assert (type(call.exchange.error), setting.pool.open_connections) == (StreamCancelledError, 0)


def test_the_exchange_is_left_to_the_thread_that_drives_it() -> None:
    setting = Setting(Peer(head(content_length="1"), end=None))
    (call,) = setting.hold_connections()
    seen: list[bool] = []

    def read_ready() -> bytes:
        in_another_thread(call.close)
        seen.append(call.exchange.is_over)
        raise Aborted

    setting.peers.streams[0].read_ready = read_ready  # type: ignore[method-assign]
    drive(call.more())
    assert seen == [False]
    assert type(call.exchange.error) is StreamCancelledError


# --- Dropped -----------------------------------------------------------------------------------------------------------


def test_a_call_is_ended_where_its_network_is() -> None:
    setting = Setting(Peer(head(content_length="1"), end=None))
    posted: list[Callable[[], object]] = []
    (call,) = setting.hold_connections()
    setting.network.post = posted.append  # type: ignore[method-assign, assignment]
    call.end()
    assert (call.is_closed, setting.pool.open_connections) == (False, 1)
    posted[0]()
    assert (call.is_closed, setting.pool.open_connections) == (True, 0)


def test_a_call_may_be_ended_before_it_began_and_after_its_loop_is_closed() -> None:
    fresh = Setting(Peer(OBJECT)).call
    fresh.end()
    assert fresh.is_closed

    async def story() -> Call[Any]:
        client = client_of(OBJECT)
        call = client.call("GET", "/v1/models")
        await call.open()
        return call

    run(story()).end()


@pytest.mark.parametrize("first", [Peer(OBJECT), REFUSED])
def test_a_call_is_freed_without_the_garbage_collector(first: Peer) -> None:
    setting = Setting(first, Peer(OBJECT))
    setting.open()
    gone = weakref.ref(setting.call)
    gc.disable()
    try:
        del setting.call
        assert gone() is None
    finally:
        gc.enable()


def test_a_place_is_freed_when_a_call_is_dropped_in_the_middle() -> None:
    setting = Setting(HOLDING)
    setting.hold_connections()
    assert setting.pool.open_connections == 1
    setting.holders.clear()
    assert setting.pool.open_connections == 0


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
