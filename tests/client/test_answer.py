"""rawsse.client.answer: one attempt at an answer, by function calls: its events, what is held back, and how it ends.

Cuts of the fixtures are in `tests/test_cuts.py`, attempts over a network in `test_fault_table.py`.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import random
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from support.answers import SSE_HEAD, answer, chunked, head, plain
from support.faults import BEGIN, BLOCK, BLOCK_STOP, END, HEL, LO, RESET, chunk, says
from support.reading import ALL_ON, Attempt, case, types
from support.sampling import one_in
from support.streams import ANSWER, PING, STOP, TOOL_CALL, Raw, start, text_delta, to_bytes

from rawsse.client.answer import MAX_HELD_EVENTS, Answer
from rawsse.client.exchange import JSONAnswer
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    BodyTooLargeError,
    ConnectTimeoutError,
    ContentTimeoutError,
    Ending,
    EndingKind,
    EventDataError,
    EventOrderError,
    EventTooLargeError,
    GatewayTimeoutError,
    HeadTimeoutError,
    HTTPProtocolError,
    HTTPUsageError,
    InternalServerError,
    MessageTooLargeError,
    OverloadedError,
    SilenceTimeoutError,
    StreamCancelledError,
    StreamTruncatedError,
    TotalTimeoutError,
)

HELLO = (BEGIN, BLOCK, HEL, LO, BLOCK_STOP, END, STOP)
OVERLOADED: Raw = {"type": "error", "error": {"type": "overloaded_error", "message": "No."}}
UNKNOWN: Raw = {"type": "brand_new"}


def answered(*chunks: bytes | float | OSError | None, **options: Any) -> Attempt[Answer]:
    """The request is sent, and this is the answer."""
    return Attempt(Answer, **options).send().play(*chunks)


def received(*chunks: bytes, **options: Any) -> Attempt[Answer]:
    """The same, and no event has been taken."""
    attempt = Attempt(Answer, **options).send()
    for each in chunks:
        attempt.exchange.receive(each, attempt.now)
    return attempt


def failure(answer: Answer) -> APIError:
    """Its error, when no attempt follows."""
    assert answer.error is not None
    answer.fail(answer.error)
    return answer.error


def text_of(attempt: Attempt[Answer]) -> str | None:
    message = attempt.exchange.builder.message
    return None if message is None else message.text


def test_an_event_makes_room_for_more_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawsse.client.answer.MAX_FILLER_BYTES", 1000)
    filler, room = b"%x\r\n%b\r\n" % (1000, b": c\n" * 250), chunk(PING)
    assert answered(SSE_HEAD, filler, filler, max_event_bytes=100).exchange.is_over
    assert not answered(SSE_HEAD, filler, room, filler, room, filler, max_event_bytes=100).exchange.is_over


# --- One event at a time ---------------------------------------------------------------------------------------------


def test_the_events_are_those_of_the_wire() -> None:
    assert [event.raw for event in answered(answer(TOOL_CALL)).events] == TOOL_CALL


def test_the_message_so_far_never_runs_ahead_of_what_was_given_out() -> None:
    attempt = received(says(*HELLO))
    seen: list[tuple[str, str | None]] = [("", text_of(attempt))]
    while (event := attempt.exchange.next_event()) is not None:
        seen.append((event.type, text_of(attempt)))
    delta = "content_block_delta"
    assert seen == [
        ("", None),
        *(("message_start", ""), ("content_block_start", ""), (delta, "Hel"), (delta, "Hello")),
        *(("content_block_stop", "Hello"), ("message_delta", "Hello"), ("message_stop", "Hello")),
    ]


def test_it_is_over_with_message_stop_and_the_end_of_the_body_is_not_waited_for() -> None:
    attempt = received(says(*HELLO))
    for _ in HELLO[:-1]:
        attempt.exchange.next_event()
    assert not attempt.exchange.is_over
    assert types([attempt.exchange.next_event()]) == ["message_stop"]
    assert (attempt.exchange.is_over, attempt.exchange.error, attempt.exchange.next_event()) == (True, None, None)


@pytest.mark.parametrize("more", [says(BEGIN)[len(SSE_HEAD) :], b"0\r\n\r\n", b"zz\r\n", b""])
def test_what_comes_after_message_stop_changes_nothing(more: bytes) -> None:
    together, apart = answered(says(*HELLO) + more), answered(says(*HELLO), more)
    for attempt in (together, apart):
        assert (types(attempt.events)[-1], attempt.exchange.error) == ("message_stop", None)
        assert attempt.exchange.ending().kind == "complete"


FAILURES: dict[str, tuple[bytes, Callable[[Attempt[Answer]], None], type[APIError]]] = {
    "the body is garbage": (b"zz\r\n", lambda _: None, HTTPProtocolError),
    "the body ends": (b"0\r\n\r\n", lambda _: None, StreamTruncatedError),
    "the peer closes": (b"", lambda attempt: attempt.exchange.receive(b"", attempt.now), StreamTruncatedError),
    "the connection is lost": (b"", lambda attempt: attempt.exchange.lose(RESET), StreamTruncatedError),
    "a clock runs out": (
        b"",
        lambda attempt: attempt.exchange.expire(TotalTimeoutError, attempt.now),
        TotalTimeoutError,
    ),
    "an event is no JSON": (chunked(b"data: {\n\n"), lambda _: None, EventDataError),
    "an event is out of order": (chunk(BEGIN), lambda _: None, EventOrderError),
    "an error event": (chunk(OVERLOADED), lambda _: None, OverloadedError),
    "an event is too large": (chunked(b"data: " + b"x" * 2000), lambda _: None, EventTooLargeError),
}


@pytest.mark.parametrize(("more", "fail", "cls"), FAILURES.values(), ids=FAILURES)
def test_events_that_came_before_a_failure_are_given_out_before_it(
    more: bytes, fail: Callable[[Attempt[Answer]], None], cls: type[APIError]
) -> None:
    attempt = received(says(BEGIN, BLOCK, HEL) + more, timeouts=ALL_ON, max_event_bytes=1000)
    fail(attempt)
    assert not attempt.exchange.is_over
    attempt.take()
    assert types(attempt.events) == ["message_start", "content_block_start", "content_block_delta"]
    assert type(attempt.error) is cls
    assert failure(attempt.exchange).partial is not None
    assert text_of(attempt) == "Hel"


def test_of_two_failures_the_first_counts() -> None:
    attempt = received(says(BEGIN, BLOCK, HEL) + b"zz\r\n", b"more", timeouts=ALL_ON)
    attempt.exchange.expire(TotalTimeoutError, attempt.now)
    attempt.exchange.lose(RESET)
    attempt.take()
    assert type(attempt.error) is HTTPProtocolError


def test_closing_does_not_wait_until_events_are_taken() -> None:
    attempt = received(says(*HELLO))
    attempt.exchange.cancel()
    attempt.take()
    assert (attempt.events, type(attempt.error)) == ([], StreamCancelledError)


def test_a_message_that_is_too_large_ends_with_what_fitted() -> None:
    attempt = answered(says(BEGIN, BLOCK, HEL, text_delta(0, "x" * 400)), max_message_bytes=600)
    assert (type(attempt.error), text_of(attempt), attempt.exchange.ending().kind) == (
        MessageTooLargeError,
        "Hel",
        "limit",
    )


def test_a_lenient_builder_reads_what_a_strict_one_refuses() -> None:
    wire = says(BEGIN, BLOCK, HEL, STOP)
    assert type(answered(wire).error) is EventOrderError
    assert answered(wire, strict=False).exchange.error is None


# --- Held back while another attempt may follow ----------------------------------------------------------------------


def test_the_beginning_is_held_back_until_content_comes() -> None:
    attempt = answered(says(BEGIN), holds=True)
    assert (attempt.events, text_of(attempt), attempt.exchange.is_committed) == ([], None, False)
    attempt.play(chunk(UNKNOWN))
    assert attempt.events == []
    attempt.play(chunk(BLOCK))
    assert types(attempt.events) == ["message_start", "brand_new", "content_block_start"]
    assert attempt.exchange.is_committed


def test_it_is_not_where_no_attempt_may_follow() -> None:
    assert types(answered(says(BEGIN)).events) == ["message_start"]


def test_pings_are_not_held() -> None:
    attempt = answered(says(PING, BEGIN, PING, BLOCK), holds=True)
    assert types(attempt.events) == ["ping", "ping", "message_start", "content_block_start"]


@pytest.mark.parametrize("raw", [BLOCK, HEL, END, STOP], ids=lambda raw: raw["type"])
def test_every_event_of_the_answer_but_the_first_commits(raw: Raw) -> None:
    attempt = received(says(BEGIN, raw), holds=True)
    event = attempt.exchange.next_event()
    assert event is not None
    assert (event.type, attempt.exchange.is_committed) == ("message_start", True)


def test_an_error_event_does_not_commit() -> None:
    attempt = answered(says(BEGIN, OVERLOADED), holds=True)
    assert (attempt.events, type(attempt.error), attempt.exchange.is_committed) == ([], OverloadedError, False)


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n", b"zz\r\n", RESET, None])
def test_what_is_held_is_given_out_when_no_attempt_follows_after_all(end: Any) -> None:
    attempt = answered(says(BEGIN, UNKNOWN), end, holds=True, timeouts=ALL_ON)
    error = attempt.error
    assert (attempt.events, failure(attempt.exchange).partial) == ([], None)
    attempt.exchange.is_committed = True
    attempt.take()
    assert types(attempt.events) == ["message_start", "brand_new"]
    assert failure(attempt.exchange) is error
    assert error.partial is not None
    assert error.partial.text == ""


def test_an_error_event_that_was_held_is_given_to_the_builder_in_the_end() -> None:
    attempt = answered(says(BEGIN, OVERLOADED), holds=True)
    error = attempt.error
    attempt.exchange.is_committed = True
    attempt.take()
    assert types(attempt.events) == ["message_start"]
    assert attempt.error is error
    assert attempt.exchange.builder.error is not None
    assert attempt.exchange.builder.error.raw == OVERLOADED


def test_a_held_event_that_is_out_of_order_is_not_given_out_and_the_first_failure_stays() -> None:
    attempt = answered(says(BEGIN, BEGIN), b"", holds=True)
    error = attempt.error
    assert isinstance(error, StreamTruncatedError)
    attempt.exchange.is_committed = True
    attempt.take()
    assert types(attempt.events) == ["message_start"]
    assert failure(attempt.exchange) is error


@pytest.mark.parametrize(("count", "is_committed"), [(MAX_HELD_EVENTS - 2, False), (MAX_HELD_EVENTS - 1, True)])
def test_no_more_is_held_than_the_limit(count: int, is_committed: bool) -> None:
    attempt = answered(says(BEGIN, *[UNKNOWN] * count), holds=True)
    assert attempt.exchange.is_committed is is_committed
    assert len(attempt.events) == (MAX_HELD_EVENTS if is_committed else 0)


# --- Every phase, and what may happen there --------------------------------------------------------------------------


class Phase(NamedTuple):
    """Where an attempt is: what was done of the request, what came, and what an error says of it."""

    name: str
    done: int  # 0: nothing, 1: connected and being sent, 2: sent
    wire: bytes
    phase: str
    text: str | None


def sent(name: str, wire: bytes, phase: str, text: str | None = None) -> Phase:
    return Phase(name, 2, wire, phase, text)


PHASES = (
    Phase("connecting", 0, b"", "connect", None),
    Phase("sending", 1, b"", "send", None),
    sent("no head", b"", "head"),
    sent("half a head", SSE_HEAD[:40], "head"),
    sent("a head", SSE_HEAD, "open"),
    sent("half a chunk's head", SSE_HEAD + b"6", "open"),
    sent("a ping", says(PING), "open"),
    sent("half an event", says(BEGIN)[:-30], "open"),
    sent("a beginning", says(BEGIN), "open", ""),
    sent("a beginning, an unknown event", says(BEGIN, UNKNOWN), "open", ""),
    sent("a block", says(BEGIN, BLOCK), "content", ""),
    sent("half a delta", says(BEGIN, BLOCK, HEL)[:-10], "content", ""),
    sent("a delta", says(BEGIN, BLOCK, HEL), "content", "Hel"),
    sent("a whole block", says(*HELLO[:5]), "content", "Hello"),
    sent("half a message_delta", says(*HELLO[:6])[:-10], "content", "Hello"),
    sent("a stop reason", says(*HELLO[:6]), "tail", "Hello"),
    sent("half a message_stop", says(*HELLO)[:-10], "tail", "Hello"),
    sent("a message_stop", says(*HELLO), "done", "Hello"),
)


class Happening(NamedTuple):
    """What may happen, and what comes of it before the answer's tail."""

    name: str
    do: Callable[[Attempt[Answer]], None]
    error: type[APIError]
    kind: EndingKind
    is_healed_by_the_tail: bool = True
    needs: int = 0  # what must have been done


def expiring(clock: type[APITimeoutError]) -> Happening:
    return Happening(clock.__name__, lambda attempt: attempt.exchange.expire(clock, attempt.now), clock, "timeout")


HAPPENINGS = (
    *map(
        expiring,
        (ConnectTimeoutError, HeadTimeoutError, SilenceTimeoutError, ContentTimeoutError, TotalTimeoutError),
    ),
    Happening("lost", lambda attempt: attempt.exchange.lose(RESET), StreamTruncatedError, "truncated"),
    Happening(
        "closed",
        lambda attempt: attempt.exchange.receive(b"", attempt.now),
        StreamTruncatedError,
        "truncated",
        needs=1,
    ),
    Happening("cancelled", lambda attempt: attempt.exchange.cancel(), StreamCancelledError, "cancelled", False),
    Happening(
        "wrong bytes",
        lambda attempt: attempt.exchange.receive(
            b"\0\r\n\r\n" if attempt.exchange.response is None else b"\0\r\n" * 200, attempt.now
        ),
        HTTPProtocolError,
        "error",
        False,
        needs=1,
    ),
)


def reach(at: Phase, *, holds: bool, now: float = 1000.0) -> Attempt[Answer]:
    attempt = Attempt(Answer, ALL_ON, holds=holds, now=now)
    if at.done:
        attempt.exchange.connected(attempt.now, is_reused=False)
        attempt.exchange.send()
    if at.done == 2:
        attempt.exchange.sent(attempt.now)
    if at.wire:
        attempt.play(at.wire)
    return attempt


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("at", PHASES, ids=[at.name for at in PHASES])
def test_whatever_happens_at_whatever_phase_there_is_one_ending(at: Phase, holds: bool) -> None:
    for what in HAPPENINGS:
        if at.done >= what.needs:
            with case(what.name):
                check_there_is_one_ending(at, what, holds)


def check_there_is_one_ending(at: Phase, what: Happening, holds: bool) -> None:
    attempt = reach(at, holds=holds)
    what.do(attempt)
    attempt.exchange.is_committed = True
    attempt.take()
    is_complete = at.phase == "done" or (at.phase == "tail" and what.is_healed_by_the_tail)
    check_it_is_over(attempt)
    ending = attempt.exchange.ending()
    assert ending.kind == ("complete" if is_complete else what.kind)
    assert ending.tail_missing is (is_complete and at.phase == "tail")
    assert (ending.phase, text_of(attempt)) == (at.phase, at.text)
    if not is_complete:
        is_before = at.phase in ("connect", "send", "head") and what.error is StreamTruncatedError
        assert type(attempt.error) is (APIConnectionError if is_before else what.error)
        assert attempt.error.safe_to_retry is (what.error.may_heal and at.phase not in ("content", "tail"))
    assert attempt.exchange.is_reusable is (at.phase == "done")


@pytest.mark.parametrize("at", PHASES[-8:], ids=[at.name for at in PHASES[-8:]])
def test_an_ending_is_the_last_word(at: Phase) -> None:
    for first in HAPPENINGS:
        attempt = reach(at, holds=False)
        first.do(attempt)
        ending, error = attempt.exchange.ending(), attempt.exchange.error
        for then in HAPPENINGS:
            then.do(attempt)
            attempt.exchange.receive(chunk(LO), attempt.now)
            attempt.take()
        assert (attempt.exchange.ending(), attempt.exchange.error) == (ending, error), first.name


def check_it_is_over(attempt: Attempt[Answer]) -> None:
    """Exactly one ending, the same for all who ask."""
    answer = attempt.exchange
    assert answer.is_over
    assert answer.next_event() is None
    ending = answer.ending()
    assert (ending.request_id, ending.bytes_received) == (answer.request_id, answer.bytes_received)
    if answer.error is None:
        assert ending.kind == "complete"
        assert ending.stop_reason is not None or answer.builder.is_done
        return
    error = failure(answer)
    assert error is answer.error
    assert error.ending == answer.ending()
    assert error.ending is not None
    told = (error.message, error.phase, error.request_id, error.bytes_received, type(error).ending_kind)
    kept = error.ending
    assert told == (kept.text, kept.phase, kept.request_id, kept.bytes_received, kept.kind)
    assert (error.partial is None) == (answer.builder.message is None)
    assert error.partial is None or error.partial.request_id == error.request_id
    assert not (error.safe_to_retry and answer.builder.has_content)


@pytest.mark.parametrize(("end", "how"), [(b"", "closed"), (RESET, "lost")])
@pytest.mark.parametrize(
    ("sent", "where"),
    [
        (SSE_HEAD, "before the first content of the answer"),
        (says(BEGIN), "before the first content of the answer"),
        (says(*HELLO[:2]), "in the middle of the answer"),
        (head(content_type="application/json", content_length="99") + b'{"type": "mess', "in the middle of the answer"),
    ],
)
def test_a_connection_that_ends_says_whether_some_of_the_answer_had_come(
    sent: bytes, end: Any, where: str, how: str
) -> None:
    error = failure(answered(sent, end).exchange)
    assert error.message.startswith(f"the connection was {how} {where}")


# --- The tail ----------------------------------------------------------------------------------------------------------

BUT_THE_STOP = says(*HELLO[:-1])


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (b"0\r\n\r\n", "message_stop never came: the body ended"),
        (b"", "message_stop never came: the connection was closed in the middle of the answer"),
        (
            RESET,
            "message_stop never came: the connection was lost in the middle of the answer: Connection reset by peer",
        ),
        (None, "message_stop never came: not a single byte came for 90 s, not even a ping"),
        (chunked(b"event: message_stop\n"), "message_stop never came: the body ended"),
    ],
)
def test_where_only_the_tail_is_missing_the_answer_is_complete_and_says_so(end: Any, text: str) -> None:
    attempt = answered(BUT_THE_STOP, end, timeouts=ALL_ON)
    ending = attempt.exchange.ending()
    assert (ending.kind, ending.tail_missing, ending.phase, ending.stop_reason) == (
        "complete",
        True,
        "tail",
        "end_turn",
    )
    assert ending.text == text


@pytest.mark.parametrize("end", [b"", RESET, None])
def test_a_connection_that_was_lost_in_the_tail_carries_no_other_exchange(end: Any) -> None:
    attempt = answered(BUT_THE_STOP, end, timeouts=ALL_ON)
    assert (attempt.exchange.error, attempt.exchange.is_reusable) == (None, False)


@pytest.mark.parametrize("end", [b"zz\r\n", chunk(BEGIN), chunk(OVERLOADED), chunked(b"data: {\n\n")])
def test_what_is_wrong_in_the_tail_is_an_error_all_the_same(end: bytes) -> None:
    attempt = answered(BUT_THE_STOP + end)
    assert failure(attempt.exchange).ending is not None
    assert (attempt.exchange.ending().kind, text_of(attempt)) == ("error", "Hello")


def test_without_a_stop_reason_the_tail_is_not_reached() -> None:
    no_reason = {**END, "delta": {"stop_reason": None}}
    assert type(answered(says(*HELLO[:5], no_reason), b"").error) is StreamTruncatedError


@pytest.mark.parametrize(
    ("wire", "inside"),
    [(b"", ""), (b'event: ping\ndata: {"ty', """, inside an event (b'event: ping\\ndata: {"ty')""")],
)
def test_a_body_that_ends_inside_an_event_says_so(wire: bytes, inside: str) -> None:
    attempt = answered(SSE_HEAD + chunked(to_bytes(ANSWER[:2]) + wire))
    assert attempt.error.message == f"the body ended before message_stop{inside}"


# --- What is no event stream -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/html", "TEXT/HTML"])
@pytest.mark.parametrize("body", [b'{"id": "msg_1"}', b" \n[1]", b'"x"', b"<html>", b" \n", b""])
def test_a_body_that_is_called_json_or_html_and_begins_like_it_is_not_read_as_events(kind: str, body: bytes) -> None:
    attempt = answered(plain(body, content_type=kind, request_id="req_1"))
    error = failure(attempt.exchange)
    assert type(error) is HTTPProtocolError
    assert error.message == f"asked for an event stream, got {kind.lower().partition(';')[0]}: {body!r}"
    assert (error.phase, error.request_id, error.partial, error.safe_to_retry) == ("open", "req_1", None, False)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_stream_that_is_called_json_may_begin_with_blank_lines_in_reads_of_their_own(cut: int) -> None:
    wire = plain(b"\n\n\n" + to_bytes(ANSWER), content_type="application/json")
    begins = wire.index(b"\r\n\r\n") + 4 + cut
    assert [event.raw for event in answered(wire[:begins], wire[begins:]).events] == ANSWER


@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/plain", "application/octet-stream", ""])
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_an_event_stream_may_be_called_something_else(kind: str, cut: int) -> None:
    wire = plain(to_bytes(ANSWER), **({"content_type": kind} if kind else {}))
    begins = wire.index(b"\r\n\r\n") + 4 + cut
    attempt = answered(wire[:begins], wire[begins:])
    assert [event.raw for event in attempt.events] == ANSWER


def test_it_is_open_only_when_its_body_has_begun_like_an_event_stream() -> None:
    attempt = answered(head(content_type="application/json"))
    assert not attempt.exchange.is_open
    assert attempt.play(b"event: ping\n").exchange.is_open
    assert answered(SSE_HEAD).exchange.is_open
    assert not answered(head("500 No")).exchange.is_open


@pytest.mark.parametrize("what", HAPPENINGS, ids=[what.name for what in HAPPENINGS])
def test_whatever_happens_before_its_body_began_it_was_no_event_stream(what: Happening) -> None:
    attempt = answered(head(content_type="text/html", transfer_encoding="chunked"), timeouts=ALL_ON)
    what.do(attempt)
    check_it_is_over(attempt)
    assert type(attempt.error) is (StreamCancelledError if what.name == "cancelled" else HTTPProtocolError)
    if what.name != "cancelled":
        assert attempt.error.message == "asked for an event stream, got text/html: b''"


@pytest.mark.parametrize("what", HAPPENINGS, ids=[what.name for what in HAPPENINGS])
@pytest.mark.parametrize("wire", [b"", b'5\r\n{"err\r\n'], ids=["no body", "half a body"])
def test_whatever_happens_to_the_body_of_a_refusal_the_status_is_told(wire: bytes, what: Happening) -> None:
    attempt = answered(head("529 No", transfer_encoding="chunked", request_id="r") + wire, timeouts=ALL_ON)
    what.do(attempt)
    check_it_is_over(attempt)
    assert type(attempt.error) is (StreamCancelledError if what.name == "cancelled" else OverloadedError)
    assert (attempt.error.phase, attempt.error.request_id) == ("open", "r")


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_a_compressed_stream_is_read_too_and_its_bytes_are_counted_as_they_came(coding: str) -> None:
    body = to_bytes(ANSWER)
    body = gzip.compress(body, mtime=0) if coding == "gzip" else body
    wire = plain(body, content_encoding=coding)
    whole, slow = answered(wire), answered(*(bytes([byte]) for byte in wire))
    assert [event.raw for event in whole.events] == [event.raw for event in slow.events] == ANSWER
    assert whole.exchange.bytes_received == len(body)


def test_a_stream_that_is_called_json_is_known_by_its_first_byte_and_not_by_that_of_its_coding() -> None:
    body = gzip.compress(to_bytes(ANSWER), mtime=0)
    wire = plain(body, content_type="application/json", content_encoding="gzip")
    assert [event.raw for event in answered(*(bytes([byte]) for byte in wire)).events] == ANSWER


@pytest.mark.parametrize("coding", ["br", "gzip"])
def test_a_coding_that_cannot_be_undone_is_an_error(coding: str) -> None:
    attempt = answered(plain(to_bytes(ANSWER), content_encoding=coding))
    assert (type(attempt.error), attempt.events) == (HTTPProtocolError, [])


ERROR_BODIES = [
    b'{"type":"error","error":{"type":"overloaded_error","message":"No."}}',
    b'{"error":{"type":"overloaded_error","message":"No."}}',
    b'{"type":"overloaded_error","message":"No."}',
]


@pytest.mark.parametrize("kind", ["application/json", "application/problem+json", "text/html", "text/plain"])
@pytest.mark.parametrize("body", ERROR_BODIES)
def test_an_error_as_the_body_of_a_200_is_that_error(kind: str, body: bytes) -> None:
    for cls in (Answer, JSONAnswer):
        attempt = Attempt(cls).send().play(plain(body, content_type=kind))
        assert (type(attempt.error), attempt.exchange.is_over) == (OverloadedError, True)
        assert attempt.error.message == "error event, overloaded_error: No."


@pytest.mark.parametrize("body", [*ERROR_BODIES, json.dumps(json.loads(ERROR_BODIES[0]), indent=2).encode()])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n"])
@pytest.mark.parametrize("kind", ["text/event-stream", ""])
def test_an_error_as_the_body_of_what_is_called_an_event_stream_is_that_error(
    kind: str, body: bytes, end: bytes
) -> None:
    wire = plain(body + end, **({"content_type": kind} if kind else {}))
    begins = wire.index(b"\r\n\r\n") + 4
    for attempt in (
        answered(wire),
        answered(wire[:begins], *(bytes([byte]) for byte in wire[begins:])),
        answered(head(content_type="text/event-stream") + body + end, b""),
    ):
        assert (type(attempt.error), attempt.exchange.is_over) == (OverloadedError, True)
        assert attempt.error.message == "error event, overloaded_error: No."
        assert failure(attempt.exchange).safe_to_retry


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "msg_1"}',
        ERROR_BODIES[0][:-1],
        ERROR_BODIES[0] + b"\ndata: [DONE]\n\n",
        b"data: " + ERROR_BODIES[0],
        b"data:\n\n" + ERROR_BODIES[0],
        b": ping\n" + ERROR_BODIES[0],
    ],
)
def test_a_line_of_an_event_stream_is_not_an_error_of_its_own(body: bytes) -> None:
    wire = plain(body, content_type="text/event-stream")
    for attempt in (answered(wire), answered(*(bytes([byte]) for byte in wire))):
        assert type(attempt.error) is StreamTruncatedError


def test_an_event_stream_may_begin_with_a_line_that_looks_like_json() -> None:
    wire = plain(ERROR_BODIES[0] + b"\n" + to_bytes(ANSWER), content_type="text/event-stream")
    for attempt in (answered(wire), answered(*(bytes([byte]) for byte in wire))):
        assert ([event.raw for event in attempt.events], attempt.exchange.error) == (ANSWER, None)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"type":"overloaded_error","message":"No."}}\n\n',
        b'event: error\ndata: {"type":"overloaded_error","message":"No."}\n\n',
        b"event: error\ndata: overloaded_error\n\n",
    ],
)
@pytest.mark.parametrize("holds", [True, False])
def test_an_error_event_of_another_form_is_that_error(event: bytes, *, holds: bool) -> None:
    for before in (b"", to_bytes([BEGIN, BLOCK, HEL])):
        attempt = answered(SSE_HEAD + chunked(before + event), holds=holds)
        assert type(attempt.error) is OverloadedError
        assert attempt.exchange.ending().error_type == "overloaded_error"


NO = [
    '{"success":false,"message":"No."}',
    '{"success":false,"errors":[{"code":1000,"message":"No."}],"messages":[],"result":null}',
    '{"success":false,"why":"No."}',
    '{"ok":false,"description":"No."}',
    '{"status":"error","data":"No."}',
    '{"error":{"message":"No."}}',
    '{"error":"No."}',
    '{"error":true,"message":"No."}',
    '{"error":{"code":5,"explanation":{"why":"No."}}}',
    '{"error":{"error":{"error":"No."}}}',
    '{"error":{"message":"No.","error":{"code":5}}}',
    '{"errors":["No."]}',
    '{"type":"error","detail":"No."}',
    '{"type":"error","explanation":"No."}',
    '{"code":401,"msg":"No."}',
    '{"detail":[{"loc":["body"],"msg":"No."}]}',
    '{"message":"No."}',
    '{"error":{"code":5,"note":"No."}}',
]
NESTED = [
    '{"error":{"error":{"type":"overloaded_error","message":"No."}}}',
    '{"type":"error","error":{"type":"error","error":{"type":"overloaded_error","message":"No."}}}',
    '{"error":{"type":"overloaded_error","error":{"message":"No."}}}',
    '{"type":"error","error":{"type":"overloaded_error","why":"No."}}',
]


@pytest.mark.parametrize(
    ("body", "error"), [*((body, InternalServerError) for body in NO), *((body, OverloadedError) for body in NESTED)]
)
def test_an_error_in_disguise_says_its_words(body: str, error: type[APIError]) -> None:
    data = body.encode()
    for attempt in (
        answered(plain(data, content_type="application/json")),
        answered(plain(data, content_type="text/event-stream")),
        Attempt(JSONAnswer).send().play(plain(data, content_type="application/json")),
        answered(SSE_HEAD + chunked(b"data: " + data + b"\n\n")),
        answered(SSE_HEAD + chunked(b"event: error\ndata: " + data + b"\n\n")),
        answered(SSE_HEAD + chunked(to_bytes([BEGIN, BLOCK, HEL]) + b"data: " + data + b"\n\n")),
    ):
        assert type(attempt.error) is error
        assert "No." in str(attempt.error)


def test_a_list_of_errors_is_the_first_of_them() -> None:
    wire = plain(b'[{"error":{"code":503,"message":"No.","status":"UNAVAILABLE"}}]', content_type="application/json")
    for attempt in (answered(wire), Attempt(JSONAnswer).send().play(wire)):
        assert type(attempt.error) is InternalServerError
        assert str(attempt.error) == "error event, of no type: No."


@pytest.mark.parametrize(
    "body", [b'{"input_tokens": 5}', b'{"success":true,"error":null,"errors":[],"input_tokens":5}']
)
def test_an_object_that_is_no_error_is_a_value(body: bytes) -> None:
    attempt = Attempt(JSONAnswer).send().play(plain(body, content_type="application/json"))
    assert attempt.exchange.value["input_tokens"] == 5


def test_half_a_surrogate_pair_in_an_error_does_not_stop_who_prints_it() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"No \\ud83d"}}'
    for wire in (plain(body, "529 No"), SSE_HEAD + chunked(b"event: error\ndata: " + body + b"\n\n")):
        error = answered(wire).error
        assert (error.message[-4:], str(error).encode()[-3:]) == ("No \ufffd", b"\xef\xbf\xbd")


@pytest.mark.parametrize("at", range(len(HELLO) + 1))
@pytest.mark.parametrize(
    "keep_alive",
    [b"data:\n\n", b"data: \n\n", b"event:\ndata:\n\n", b"data: null\n\n", b"data: {}\n\n", b"data: ping\n\n"],
)
def test_an_event_without_name_and_data_is_passed_over(keep_alive: bytes, at: int) -> None:
    attempt = answered(SSE_HEAD + chunked(to_bytes(HELLO[:at]) + keep_alive + to_bytes(HELLO[at:])))
    assert ([event.raw for event in attempt.events], attempt.exchange.error) == ([*HELLO], None)


# --- A whole message -------------------------------------------------------------------------------------------------

WHOLE: Raw = {
    "type": "message",
    "id": "m",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hello"}, {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 2},
    "new": [1],
}
WHOLE_BODY = json.dumps(WHOLE, indent=1).encode()
KINDS = ["application/json", "application/problem+json; charset=utf-8", "text/html", "text/plain"]
KINDS += ["text/event-stream", "application/octet-stream", ""]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("holds", [True, False])
def test_a_whole_message_is_an_answer_whatever_it_is_called(kind: str, holds: bool) -> None:
    bodies = [
        *itertools.product(
            (b"", b"\n \r\n", b"\xef\xbb\xbf", b" " * 100), (WHOLE_BODY, json.dumps(WHOLE).encode() + b"\n\n")
        )
    ]
    step = one_in(3)  # each kind with some, and each of them with some kinds
    for before, body in bodies[(KINDS.index(kind) + holds) % step :: step]:
        with case(f"{before!r}, {body!r}"):
            check_it_is_an_answer(kind, before, body, holds)


def check_it_is_an_answer(kind: str, before: bytes, body: bytes, holds: bool) -> None:
    body, fields = before + body, {"content_type": kind} if kind else {}
    wire = plain(body, **fields)
    for attempt in (
        answered(wire, holds=holds),
        answered(*(bytes([byte]) for byte in wire), holds=holds),
        answered(head(**fields) + body, b"", holds=holds),
        answered(head(**fields, transfer_encoding="chunked"), 60.0, chunked(body), holds=holds),
    ):
        message = attempt.exchange.builder.message
        assert message is not None
        assert (message.raw, attempt.exchange.error) == (WHOLE, None)
        assert attempt.exchange.ending()._replace(bytes_received=0) == Ending(
            "complete", "the answer is whole", "done", stop_reason="tool_use"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_is_too_large_names_the_limit(kind: str) -> None:
    wire = plain(WHOLE_BODY, **({"content_type": kind} if kind else {}))
    attempt = answered(wire, max_json_bytes=len(WHOLE_BODY) - 1)
    assert type(attempt.error) is BodyTooLargeError
    assert str(attempt.error) == f"the answer is larger than max_json_bytes ({len(WHOLE_BODY) - 1})"
    assert answered(wire, max_json_bytes=len(WHOLE_BODY)).exchange.error is None


@pytest.mark.parametrize("end", [b"", RESET])
def test_an_error_that_has_come_whole_is_that_error_though_the_connection_is_lost(end: Any) -> None:
    wire = head(content_type="application/json", content_length="999") + ERROR_BODIES[0]
    assert type(answered(wire, end).error) is OverloadedError


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_as_the_body_of_another_status_is_no_answer(kind: str) -> None:
    attempt = answered(plain(WHOLE_BODY, "502 Bad Gateway", **({"content_type": kind} if kind else {})))
    assert (type(attempt.error), attempt.events) == (InternalServerError, [])


@pytest.mark.parametrize("end", [b"", RESET])
def test_plain_text_that_was_cut_before_its_first_byte_may_have_been_an_event_stream(end: Any) -> None:
    attempt = answered(head(content_type="text/plain", content_length="9"), end)
    assert type(attempt.error) is StreamTruncatedError
    assert failure(attempt.exchange).safe_to_retry


@pytest.mark.parametrize("body", [b'{"type": "message"}', b'{"id": "msg_1"}', b"[1]", b"", b"<html>"])
def test_what_is_no_message_is_no_answer(body: bytes) -> None:
    assert type(answered(plain(body, content_type="application/json")).error) is HTTPProtocolError


@pytest.mark.parametrize("end", [b"", RESET])
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_that_is_cut_is_a_cut_answer(kind: str, end: Any) -> None:
    attempt = answered(plain(WHOLE_BODY, **({"content_type": kind} if kind else {}))[:-9], end)
    assert type(attempt.error) is StreamTruncatedError
    assert failure(attempt.exchange).safe_to_retry


# --- Error events ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("before", [(), (PING,), (BEGIN,), HELLO[:3], HELLO[:6]])
def test_an_error_event_is_raised_with_what_came_before_it(before: tuple[Raw, ...], holds: bool) -> None:
    attempt = answered(says(*before, OVERLOADED), holds=holds)
    attempt.exchange.is_committed = True
    attempt.take()
    check_it_is_over(attempt)
    error = failure(attempt.exchange)
    assert isinstance(error, OverloadedError)
    assert (error.in_stream, error.status_code, error.body) == (True, 529, OVERLOADED)
    assert [event.raw for event in attempt.events] == [*before]
    assert error.safe_to_retry is (before in ((), (PING,), (BEGIN,)))
    assert attempt.exchange.ending().error_type == "overloaded_error"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", OverloadedError),
        ("api_error", InternalServerError),
        ("timeout_error", GatewayTimeoutError),
        ("brand_new_error", APIStatusError),
    ],
)
@pytest.mark.parametrize("after", [(), (STOP,)])
def test_an_error_event_after_the_stop_reason_ends_the_stream_and_not_the_missing_tail(
    kind: str, error: type[APIError], after: tuple[Raw, ...]
) -> None:
    raw: Raw = {"type": "error", "error": {"type": kind, "message": "No."}}
    attempt = answered(says(*HELLO[:-1], raw, *after), b"")
    raised = failure(attempt.exchange)
    assert isinstance(raised, error)
    assert (raised.in_stream, raised.safe_to_retry) == (True, False)  # type: ignore[attr-defined]
    assert [event.raw for event in attempt.events] == [*HELLO[:-1]]
    ending = attempt.exchange.ending()
    assert (ending.kind, ending.error_type, ending.stop_reason) == ("error", kind, "end_turn")
    assert (ending.tail_missing, text_of(attempt)) == (False, "Hello")


def test_an_error_event_brings_the_limits_and_the_fields_of_its_response() -> None:
    wire = plain(to_bytes([OVERLOADED]), anthropic_ratelimit_tokens_limit="7", request_id="req_5")
    error = failure(answered(wire).exchange)
    assert isinstance(error, OverloadedError)
    assert error.rate_limits is not None
    assert error.rate_limits.tokens is not None
    assert (error.rate_limits.tokens.limit, error.request_id, error.headers["request-id"]) == (7, "req_5", "req_5")


# --- Times -------------------------------------------------------------------------------------------------------------


def test_the_timing_says_when_the_first_event_the_first_content_and_the_last_ping_came() -> None:
    parts = (PING, BEGIN, UNKNOWN, BLOCK, HEL, PING, LO, BLOCK_STOP, END, STOP)
    attempt = answered(SSE_HEAD, *(item for raw in parts for item in (1.0, chunk(raw))))
    timing = attempt.timing
    assert (timing.connected, timing.head, timing.first_event, timing.first_content) == (0, 0, 1, 5)
    assert (timing.last_ping, timing.ended, timing.longest_gap) == (6, 10, 1)


def test_times_are_those_of_the_read_and_not_of_the_reader() -> None:
    attempt = received(says(BEGIN, BLOCK, HEL, PING))
    attempt.now += 60
    attempt.take()
    timing = attempt.timing
    assert (timing.first_event, timing.first_content, timing.last_ping) == (0, 0, 0)


# --- Anything, in any order --------------------------------------------------------------------------------------------

PIECES = (
    *(SSE_HEAD, SSE_HEAD[:30], SSE_HEAD[30:], head("500 No"), head(content_type="application/json"), head()),
    *(head(content_encoding="gzip"), head("100 Continue"), plain(b"{}", "429 No"), answer(ANSWER)),
    *(chunk(raw) for raw in (*HELLO, PING, UNKNOWN, OVERLOADED)),
    *(chunked(b"data: x\n\n"), chunked(b"data: [DONE]\n\n"), b"0\r\n\r\n", b"zz\r\n", b"x", b"\r\n", b"\0", b""),
    to_bytes([start()]),
)


def anything(choose: random.Random) -> Iterable[tuple[str, Callable[[Attempt[Answer]], object]]]:
    """Calls, in an order that no driver would choose."""
    clocks = [what for what in HAPPENINGS if what.kind == "timeout"]
    while True:
        piece = choose.choice(PIECES)
        piece = piece[: choose.randrange(len(piece) + 1)] if choose.random() < 0.2 else piece
        yield choose.choices(
            (
                (f"receive {piece!r}", lambda attempt, piece=piece: attempt.exchange.receive(piece, attempt.now)),
                ("next_event", lambda attempt: attempt.exchange.next_event()),
                ("take", lambda attempt: attempt.take()),
                ("commit", lambda attempt: setattr(attempt.exchange, "is_committed", True)),
                ("connected", lambda attempt: attempt.exchange.connected(attempt.now, is_reused=False)),
                ("send", send),
                ("sent", lambda attempt: attempt.exchange.sent(attempt.now, is_whole=choose.random() < 0.7)),
                ("deadline", lambda attempt: attempt.exchange.deadline(attempt.now)),
                ("expire", lambda attempt: choose.choice(clocks).do(attempt)),
                ("lose", lambda attempt: attempt.exchange.lose(RESET)),
                ("cancel", lambda attempt: attempt.exchange.cancel()),
                ("fail", lambda attempt: attempt.exchange.end(APIConnectionError("no connection"))),
                ("time", lambda attempt: setattr(attempt, "now", attempt.now + choose.random() * 50)),
            ),
            (60, 10, 15, 2, 2, 4, 3, 6, 2, 2, 1, 1, 6),
        )[0]


def send(attempt: Attempt[Answer]) -> None:
    with contextlib.suppress(HTTPUsageError):  # twice
        attempt.exchange.send()


class Ends:
    """An observer that counts the endings."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, *_: object) -> Ends:
        self.told.append("begin")
        return self

    def sent(self) -> None:
        self.told.append("sent")

    def head(self, _: object) -> None:
        self.told.append("head")

    def read(self, _: object) -> None:
        self.told.append("read")

    def end(self, _: object) -> None:
        self.told.append("end")

    def flush(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    "seeds", [range(at, at + 50) for at in range(0, 400, 50)], ids=lambda seeds: f"from {seeds[0]}"
)
def test_whatever_is_done_in_whatever_order_there_is_one_ending_and_nothing_raises(seeds: range) -> None:
    for seed in seeds:
        check_anything(seed)


def check_anything(seed: int) -> None:
    choose, ends = random.Random(seed), Ends()
    attempt = Attempt(Answer, ALL_ON, observer=ends, holds=choose.random() < 0.5)
    if choose.random() < 0.8:
        attempt.send()
    done = [f"seed {seed}"]
    texts: list[str | None] = []
    for name, do in itertools.islice(anything(choose), 40):
        done.append(name)
        do(attempt)
        texts.append(text_of(attempt))
    attempt.exchange.cancel()  # the caller leaves
    attempt.exchange.is_committed = True
    attempt.take()
    check_it_is_over(attempt)
    assert ends.told[0] == "begin", done
    assert ends.told.count("end") == 1, done
    assert ends.told[-1] == "end", done
    assert ends.told.count("head") <= ends.told.count("sent") <= 1, done
    # What was seen once is never taken back.
    seen = [text for text in texts if text is not None]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen)), done
