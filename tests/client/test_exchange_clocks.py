"""rawsse.client.exchange: the five clocks, and being closed, by function calls: time is a number."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
from support.answers import head, plain
from support.faults import chunk
from support.reading import ALL_ON, OFF, ROUTE, Attempt
from support.streams import ANSWER, PING, Raw, text_delta, to_bytes

from rawsse import errors
from rawsse.client.answer import Answer
from rawsse.client.exchange import _CLOCKS, REFUSAL_SECONDS, WRITE_BYTES, Exchange, JSONAnswer
from rawsse.client.network.route import Origin, Proxy, Route
from rawsse.client.request import RequestData
from rawsse.client.retry import Timeouts
from rawsse.errors import (
    APITimeoutError,
    ConnectTimeoutError,
    ContentTimeoutError,
    HeadTimeoutError,
    HTTPProtocolError,
    OverloadedError,
    RateLimitError,
    SilenceTimeoutError,
    StreamCancelledError,
    TotalTimeoutError,
)
from rawsse.relay.push import UnfoldedAnswer
from rawsse.replay.proxy import RawAnswer

# --- The five clocks -----------------------------------------------------------------------------------------------

DRIP: list[bytes | float] = [head(), *(item for _ in range(30) for item in (1.0, b"x"))]
SILENT = "not a single byte came for 5 s, not even a ping"
NO_HEAD = "no response head within 4 s of the request"


def unsent(timeouts: Timeouts, now: float) -> Attempt[RawAnswer]:
    return Attempt(RawAnswer, timeouts, now=now)


def sending(timeouts: Timeouts, now: float) -> Attempt[RawAnswer]:
    attempt = unsent(timeouts, now)
    attempt.exchange.connected(now, is_reused=False)
    attempt.exchange.send()
    return attempt


def sent(timeouts: Timeouts, now: float) -> Attempt[RawAnswer]:
    return unsent(timeouts, now).send()


Start = Callable[[Timeouts, float], Attempt[RawAnswer]]

CLOCKS: list[tuple[Start, Timeouts, list[bytes | float], str, type[APITimeoutError], float, str]] = [
    (unsent, Timeouts(connect=3), [], "connect", ConnectTimeoutError, 3, "no connection to api.example within 3 s"),
    (sending, Timeouts(head=4), [], "send", HeadTimeoutError, 4, NO_HEAD),
    (sent, Timeouts(head=4), [], "head", HeadTimeoutError, 4, NO_HEAD),
    (sent, Timeouts(head=4), [3.0, b"HTTP/1.1 "], "head", HeadTimeoutError, 4, NO_HEAD),
    (sent, Timeouts(silence=5), [head()], "open", SilenceTimeoutError, 5, SILENT),
    (sent, Timeouts(silence=5), [head(), 4.0, b"x"], "open", SilenceTimeoutError, 9, SILENT),
    (
        sent,
        Timeouts(silence=5, content=7),
        DRIP,
        "open",
        ContentTimeoutError,
        7,
        "the connection lives, but no content came for 7 s",
    ),
    (sent, Timeouts(total=8.5), DRIP, "open", TotalTimeoutError, 8.5, "the whole call took longer than 8.5 s"),
    (unsent, Timeouts(total=2), [], "connect", TotalTimeoutError, 2, "the whole call took longer than 2 s"),
    (sending, Timeouts(total=2), [], "send", TotalTimeoutError, 2, "the whole call took longer than 2 s"),
    (sent, Timeouts(total=2), [], "head", TotalTimeoutError, 2, "the whole call took longer than 2 s"),
]


@pytest.mark.parametrize("now", [0.0, 1000.0, 100_000.3])
@pytest.mark.parametrize(("start", "timeouts", "chunks", "phase", "cls", "seconds", "message"), CLOCKS)
def test_each_clock_raises_its_own_error_at_its_time(
    start: Start,
    timeouts: Timeouts,
    chunks: list[bytes | float],
    phase: str,
    cls: type[APITimeoutError],
    seconds: float,
    message: str,
    now: float,
) -> None:
    attempt = start(timeouts, now).play(*chunks, None)
    error = attempt.error
    assert (type(error), error.message, error.phase) == (cls, message, phase)
    assert attempt.seconds == pytest.approx(seconds, abs=1e-6)
    assert error.safe_to_retry


@pytest.mark.parametrize("name", Timeouts._fields)
def test_every_clock_has_its_error_and_runs(name: str) -> None:
    rows = {row: error for error, (row, _) in _CLOCKS.items()}
    error = getattr(errors, f"{name.title().replace('_', '')}TimeoutError", None)
    assert error is not None, f"errors.py has no error for the clock {name}"
    assert rows.get(name) is error, f"_CLOCKS has no row for the clock {name}"
    alone = OFF._replace(**{name: 1.0})
    waits = [unsent(alone, 0.0), sending(alone, 0.0), sent(alone, 0.0), sent(alone, 0.0).play(head())]
    ended = {type(attempt.play(None).exchange.error) for attempt in waits}
    assert ended - {type(None)} == {error}, f"Exchange.deadline does not know the clock {name}"
    plain, at_once = (outcome_of_a_flow(alone, takes_at_once=each) for each in (False, True))
    assert at_once == plain, f"what restarts the clock {name} in Answer._note does not in UnfoldedAnswer.take_deltas"
    assert (plain[0] < 9) == (name == "total"), f"text does not restart the clock {name}: see Answer._restart_content"


def outcome_of_a_flow(timeouts: Timeouts, *, takes_at_once: bool) -> tuple[int, str]:
    """How many texts come, one every six tenths of a second, until a clock runs out, and its error."""
    text = chunk(text_delta(0, "a"))
    attempt = Attempt(UnfoldedAnswer, timeouts).send().play(BEGINNING, text)
    exchange, count = attempt.exchange, 0
    exchange.take_events()
    while not exchange.is_over and count < 9:
        at, clock = exchange.deadline(attempt.now)
        attempt.now += 0.6
        if at < attempt.now:
            exchange.expire(clock, at)
        elif takes_at_once:
            count += len(exchange.take_deltas(text, attempt.now) or ())
        else:
            exchange.receive(text, attempt.now)
            count += len(exchange.take_events())
    return count, repr(exchange.error)


def test_every_error_of_a_clock_has_a_clock() -> None:
    clocks = {cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, APITimeoutError)}
    assert clocks - {APITimeoutError} == {*_CLOCKS}
    assert {row for row, _ in _CLOCKS.values()} == {*Timeouts._fields}


@pytest.mark.parametrize("now", [1000.0, 100_000.3])
def test_a_total_of_a_tenth_of_a_second_is_told_as_the_total(now: float) -> None:
    error = sent(Timeouts(total=0.1), now).play(*DRIP).error
    assert isinstance(error, TotalTimeoutError)
    assert error.seconds == 0.1


TICK = 1 / 1024


@pytest.mark.parametrize(
    ("timeouts", "before"),
    [
        (Timeouts(head=4), []),
        (Timeouts(silence=4), [head()]),
        (Timeouts(content=4), [head()]),
        (Timeouts(total=4), [head()]),
    ],
    ids=["head", "silence", "content", "total"],
)
def test_what_comes_a_tick_before_the_time_is_in_time_and_a_tick_after_it_is_late(
    timeouts: Timeouts, before: list[bytes | float]
) -> None:
    last = b"x" if before else head()
    assert not sent(timeouts, 1000.0).play(*before, 4 - TICK, last).exchange.is_over
    assert isinstance(sent(timeouts, 1000.0).play(*before, 4 + TICK, last).error, APITimeoutError)


def test_the_clock_of_the_head_runs_on_while_pieces_of_it_come() -> None:
    attempt = sent(Timeouts(head=4), 1000.0).play(1.0, b"H", 1.0, b"T", 1.0, b"T", 1.0, b"P")
    assert (type(attempt.error), attempt.seconds) == (HeadTimeoutError, 4)


def test_a_large_request_may_take_its_time_as_long_as_it_flows() -> None:
    request = RequestData("POST", "/", "api.example", (), b"x" * 4 * WRITE_BYTES)
    attempt = Attempt(RawAnswer, Timeouts(head=4), request=request)
    attempt.exchange.connected(attempt.now, is_reused=False)
    for _ in attempt.exchange.send():
        assert attempt.exchange.deadline(attempt.now) == (attempt.now + 4, HeadTimeoutError)
        attempt.now += 3
    attempt.exchange.sent(attempt.now)
    assert attempt.exchange.deadline(attempt.now + 1) == (attempt.now + 4, HeadTimeoutError)


@pytest.mark.parametrize("start", [unsent, sending, sent])
@pytest.mark.parametrize("chunks", [[], [head()], [head() + b"x"]])
def test_with_every_clock_off_nothing_ends_the_wait(start: Start, chunks: list[bytes | float]) -> None:
    attempt = start(OFF, 1000.0)
    attempt.play(*(chunks if start is sent else []), 86_400.0)
    at, _ = attempt.exchange.deadline(attempt.now)
    assert (at, attempt.exchange.is_over) == (math.inf, False)


# --- Content -----------------------------------------------------------------------------------------------------------


def new_delta(fields: Raw) -> Raw:
    """A delta of a type that is not known yet."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", **fields}}


PINGS: list[bytes | float] = [2.0, chunk(PING)]
SLOW_PINGS: list[bytes | float] = [30.0, chunk(PING)]
BEGINNING = head(transfer_encoding="chunked", content_type="text/event-stream") + chunk(*ANSWER[:2])


def answering(timeouts: Timeouts, *chunks: bytes | float | None) -> Attempt[Answer]:
    return Attempt(Answer, timeouts).send().play(BEGINNING, *chunks)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (to_bytes([text_delta(0, "x")]), 30),
        (to_bytes([text_delta(0, "")]), 20),
        (to_bytes([PING]), 20),
        (to_bytes([{"type": "brand_new"}]), 20),
        (to_bytes([new_delta({"value": 1})]), 30),
        (to_bytes([new_delta({})]), 20),
        (to_bytes([new_delta({"value": "", "other": None})]), 20),
        (to_bytes([{"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}}]), 20),
        (to_bytes([{"type": "message_delta", "delta": {"stop_reason": None}}]), 20),
        (b"data: [DONE]\n\n", 20),
        (b": a comment\n\n", 20),
        (b"x", 20),
    ],
    ids=[
        "text",
        "empty text",
        "ping",
        "unknown event",
        "new delta",
        "bare delta",
        "empty delta",
        "usage alone",
        "no stop reason",
        "[DONE]",
        "comment",
        "half a line",
    ],
)
def test_content_restarts_its_clock_and_nothing_else_does(data: bytes, seconds: float) -> None:
    framed = b"%x\r\n%b\r\n" % (len(data), data)
    attempt = answering(Timeouts(content=20), 10.0, framed, *PINGS * 20)
    assert (type(attempt.error), attempt.seconds) == (ContentTimeoutError, seconds)


def test_pings_keep_the_connection_alive_but_are_no_content() -> None:
    attempt = answering(Timeouts(), *SLOW_PINGS * 50)
    assert (type(attempt.error), attempt.seconds) == (ContentTimeoutError, 600)


def test_a_slow_consumer_is_not_punished() -> None:
    attempt = answering(Timeouts(silence=3, content=5))
    for text in "abcdefg":
        attempt.now += 1000
        attempt.play(1.0, chunk(text_delta(0, text)))
    attempt.now += 1000
    for _ in range(4):
        attempt.now += 1000
        attempt.play(1.0, chunk(PING))
    assert not attempt.exchange.is_over
    assert isinstance(attempt.play(2.0, chunk(PING)).error, ContentTimeoutError)


@pytest.mark.parametrize(
    "data", [b": c\n\n", b"\n\n\n", b"id: 7\n\n", b"retry: 1\n\n", b"data: [DONE]\n\n", to_bytes([PING])]
)
def test_a_flood_that_leaves_nothing_to_wait_for_does_not_stop_the_clock_of_content(data: bytes) -> None:
    attempt = answering(Timeouts(content=20))
    exchange, begun = attempt.exchange, attempt.now
    while exchange.deadline(attempt.now)[0] > attempt.now:
        exchange.receive(b"%x\r\n%b\r\n" % (len(data), data), attempt.now)  # it had come before it was waited for
        while exchange.next_event() is not None:
            pass
        attempt.now += 1 / 16  # this is how long it takes to read what came
        assert attempt.now < begun + 30
    assert exchange.deadline(attempt.now) == (attempt.now, ContentTimeoutError)
    assert attempt.now - begun == pytest.approx(20, abs=1 / 8)


def test_the_longest_gap_is_the_longest_wait_for_bytes_of_the_answer() -> None:
    attempt = answering(OFF, 3.0, chunk(PING))
    attempt.now += 1000
    attempt.play(8.0, chunk(PING), 5.0, chunk(PING))
    assert attempt.timing.longest_gap == 8


def test_a_wait_in_vain_is_a_gap_too() -> None:
    assert answering(Timeouts(silence=9), None).timing.longest_gap == 9


def test_the_proxy_that_a_connection_was_to_go_through_is_named_once() -> None:
    route = Route(ROUTE.origin, Proxy(Origin("http", "proxy.example", 3128)))
    error = Attempt(JSONAnswer, Timeouts(connect=5), route=route).play(None).error
    assert error.message == "no connection to api.example through the proxy http://proxy.example:3128 within 5 s"


# --- Queued ------------------------------------------------------------------------------------------------------------


def test_a_call_in_the_queue_does_not_connect_yet() -> None:
    exchange = Attempt(JSONAnswer, Timeouts(connect=5, head=60)).exchange
    exchange.is_queued = True
    assert exchange.deadline(1000.0) == (1060.0, ConnectTimeoutError)
    exchange.is_queued = False
    assert exchange.deadline(1050.0) == (1055.0, ConnectTimeoutError)


@pytest.mark.parametrize(
    ("is_queued", "text"),
    [
        (True, "no connection was free within 60 s: all that max_connections allows are in use"),
        (False, "no connection to api.example within 5 s"),
    ],
)
def test_the_queue_has_a_clock_and_connecting_has_another(is_queued: bool, text: str) -> None:
    attempt = Attempt(JSONAnswer, Timeouts(connect=5, head=60))
    attempt.exchange.is_queued = is_queued
    attempt.play(None)
    assert (type(attempt.error), attempt.error.message) == (ConnectTimeoutError, text)


def test_the_clock_of_the_whole_call_runs_in_the_queue_too() -> None:
    attempt = Attempt(JSONAnswer, Timeouts(connect=5, head=60, total=30))
    attempt.exchange.is_queued = True
    attempt.play(None)
    assert (type(attempt.error), attempt.seconds) == (TotalTimeoutError, 30)


# --- The body of a refusal -------------------------------------------------------------------------------------------

REFUSAL = head("529 Overloaded", content_length="99")


@pytest.mark.parametrize("timeouts", [Timeouts(), OFF], ids=["clocks", "no clocks"])
@pytest.mark.parametrize(
    "chunks", [[None], [item for _ in range(90) for item in (1.0, b"x")]], ids=["nothing", "a byte each second"]
)
def test_a_refusal_whose_body_is_slow_is_told_after_a_few_seconds(timeouts: Timeouts, chunks: list[Any]) -> None:
    attempt = Attempt(JSONAnswer, timeouts).send().play(REFUSAL, *chunks)
    assert (type(attempt.error), attempt.seconds) == (OverloadedError, REFUSAL_SECONDS)
    assert not attempt.exchange.is_reusable


@pytest.mark.parametrize("timeouts", [Timeouts(silence=3), Timeouts(content=3), Timeouts(total=3)])
def test_or_earlier_if_a_clock_says_so(timeouts: Timeouts) -> None:
    refusal = head("429 Slow", content_length="10", retry_after="7")
    attempt = Attempt(JSONAnswer, timeouts).send().play(refusal, None)
    assert (type(attempt.error), attempt.seconds) == (RateLimitError, 3)
    assert isinstance(attempt.error, RateLimitError)
    assert attempt.error.headers["retry-after"] == "7"


@pytest.mark.parametrize("begins", [b"[", b"<"])
def test_a_body_that_cannot_be_a_message_is_not_waited_for_longer_than_a_refusal(begins: bytes) -> None:
    attempt = Attempt(Answer).send().play(head(content_type="application/json"), 30.0, begins, 1.0, b'"', 60.0)
    assert (type(attempt.error), attempt.seconds) == (HTTPProtocolError, 30 + REFUSAL_SECONDS)


def test_a_body_that_may_be_a_message_is_waited_for_as_any_answer() -> None:
    begins = head(content_type="application/json")
    attempt = Attempt(Answer, Timeouts()).send().play(begins, 30.0, b"{", 80.0, b'"', 100.0)
    assert (type(attempt.error), attempt.seconds) == (SilenceTimeoutError, 30 + 80 + 90)


def test_a_stream_that_is_called_json_may_begin_late() -> None:
    wire = chunk(*ANSWER)
    attempt = (
        Attempt(Answer).send().play(head(content_type="application/json", transfer_encoding="chunked"), 60.0, wire)
    )
    assert (attempt.exchange.is_over, attempt.exchange.error) == (True, None)


# --- Closed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [JSONAnswer, RawAnswer, Answer])
@pytest.mark.parametrize(
    ("start", "chunks", "phase"),
    [
        (unsent, [], "connect"),
        (sending, [], "send"),
        (sent, [], "head"),
        (sent, [head("500 No")], "open"),
        (sent, [head() + b"x"], "open"),
    ],
    ids=["connect", "send", "head", "refusal", "body"],
)
def test_closing_ends_it_at_every_phase(
    kind: type[Exchange], start: Start, chunks: list[bytes | float], phase: str
) -> None:
    attempt: Attempt[Exchange] = Attempt(kind, ALL_ON)
    if start is not unsent:
        attempt.exchange.connected(attempt.now, is_reused=False)
        attempt.exchange.send()
    if start is sent:
        attempt.exchange.sent(attempt.now)
    attempt.play(*chunks)
    attempt.exchange.cancel()
    error = attempt.error
    assert (type(error), error.message) == (StreamCancelledError, "the stream was closed before its end")
    assert (error.phase, error.safe_to_retry, attempt.exchange.is_reusable) == (phase, False, False)
    assert attempt.timing.ended == 0
    assert not attempt.exchange.failed_before_response


def test_closing_after_the_end_changes_nothing() -> None:
    attempt = Attempt(JSONAnswer).send().play(plain(b"{}"))
    attempt.exchange.cancel()
    assert (attempt.exchange.error, attempt.exchange.value) == (None, {})
