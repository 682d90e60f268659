"""rawsse.client: the fault table. What goes wrong, where, and what the caller is told, after how many attempts and when.

Every row is read in three ways: as a stream, as its events, and as a whole message; without an event loop, and once in one. The
cuts are made on real sockets too, for both clients. The clocks are virtual: 10 s to connect, 120 s for a head, 90 s of silence,
600 s without content; the waits between attempts are 0.5 s and 1 s.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from support.answers import ASK, SSE_HEAD, chunked, head, plain
from support.background import Background
from support.clock import run
from support.faults import (
    BEGIN,
    BLACK_HOLE,
    BLOCK,
    BLOCK_STOP,
    END,
    HEL,
    LO,
    REFUSED,
    RESET,
    WAYS,
    WHOLE,
    Outcome,
    Peer,
    Seen,
    chunk,
    says,
    see,
    watch,
)
from support.loops import Loop, each_loop
from support.pools import counts
from support.sockets import serving
from support.streams import PING, STOP, Raw, block_start, block_stop, delta, text_delta, to_bytes

from rawsse.client.answer import MAX_HELD_EVENTS
from rawsse.client.blocking import Client
from rawsse.client.client import AsyncClient
from rawsse.client.retry import RetryPolicy, Timeouts
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ConnectTimeoutError,
    ContentTimeoutError,
    ContentTooLargeError,
    EventDataError,
    EventOrderError,
    GatewayTimeoutError,
    HeadTimeoutError,
    HTTPProtocolError,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    Phase,
    RateLimitError,
    RequestTimeoutError,
    ServiceUnavailableError,
    SilenceTimeoutError,
    StreamTruncatedError,
    TotalTimeoutError,
)
from rawsse.messages import Message

ANSWER = (BEGIN, BLOCK, HEL, LO, BLOCK_STOP, END, STOP)

COMPLETE = Outcome(None, "Hello", 1, 0, safe_to_retry=False, ending="complete")


HEALS_AFTER_CONTENT = (
    *(StreamTruncatedError, SilenceTimeoutError),
    *(OverloadedError, InternalServerError, GatewayTimeoutError, RateLimitError),
)


class Row(NamedTuple):
    """A fault, and what the caller is told. `peers` are the connections, the last one over and over."""

    fault: str
    peers: Peer | tuple[Peer, ...]
    outcome: Outcome
    timeouts: Timeouts = Timeouts()

    def check(self, way: str, look: Callable[..., Seen] = see) -> None:
        peers = self.peers if isinstance(self.peers, tuple) else (self.peers,)
        outcome = self.outcome_of_create if way == "create" else self.outcome
        seen = look(*peers, way=way, timeouts=self.timeouts)
        assert seen.outcome == outcome
        retries = seen.error.retries_taken if seen.error else seen.retries_taken
        assert retries == outcome.attempts - 1

    @property
    def outcome_of_create(self) -> Outcome:
        """`create` gives its caller nothing before the end: a failure that may heal is tried again also after content."""
        outcome = self.outcome
        if outcome.attempts > 1 or outcome.text is None or outcome.error not in HEALS_AFTER_CONTENT:
            return outcome
        return outcome._replace(attempts=3, seconds=3 * outcome.seconds + 1.5)


def rows(*table: Row) -> list[Any]:
    """A test for each row."""
    return [pytest.param(row, id=row.fault) for row in table]


each_way = pytest.mark.parametrize("way", WAYS)


# --- Nothing comes, or nothing but pings -----------------------------------------------------------------------------

PINGS: list[bytes | float] = [item for _ in range(40) for item in (30.0, chunk(PING))]
THINKING = block_start(0, {"type": "thinking", "thinking": "", "signature": ""})
SLOW_HEAD: list[bytes | float] = [item for byte in SSE_HEAD for item in (80.0, bytes([byte]))]
THOUGHT = chunk(delta(0, "thinking_delta", thinking="Hm"), block_stop(0))
TEXT = chunk(*({**raw, "index": 1} for raw in (BLOCK, HEL, LO, BLOCK_STOP)), END, STOP)
# Three times 85 s of silence, 5 s below the clock, that a ping ends.
LONG_THOUGHT: list[bytes | float] = [says(BEGIN, THINKING), 85.0, chunk(PING), 85.0, chunk(PING), 85.0, THOUGHT, TEXT]

# Each piece of content gives the next its full time.
SLOW_PIECES: list[bytes | float] = [
    *(says(BEGIN, BLOCK), *PINGS[:34], chunk(HEL), *PINGS[:34]),
    chunk(LO, BLOCK_STOP, END, STOP),
]

SILENCES = (
    # what comes, from which peer; error, text so far, attempts, seconds, safe to retry, ending
    Row("nothing: it refuses", REFUSED, Outcome(APIConnectionError, None, 3, 1.5, True, "truncated")),
    Row("nothing: a black hole", BLACK_HOLE, Outcome(ConnectTimeoutError, None, 3, 31.5, True, "timeout")),
    Row("no head", Peer(end=None), Outcome(HeadTimeoutError, None, 3, 361.5, True, "timeout")),
    Row("half a head", Peer(SSE_HEAD[:40], end=None), Outcome(HeadTimeoutError, None, 3, 361.5, True, "timeout")),
    Row("a head", Peer(SSE_HEAD, end=None), Outcome(SilenceTimeoutError, None, 3, 271.5, True, "timeout")),
    Row("a beginning", Peer(says(BEGIN), end=None), Outcome(SilenceTimeoutError, "", 3, 271.5, True, "timeout")),
    Row(
        "a beginning of a block",
        Peer(says(BEGIN, BLOCK), end=None),
        Outcome(SilenceTimeoutError, "", 1, 90, False, "timeout"),
    ),
    Row(
        "some text",
        Peer(says(BEGIN, BLOCK, HEL), end=None),
        Outcome(SilenceTimeoutError, "Hel", 1, 90, False, "timeout"),
    ),
    Row("pings", Peer(SSE_HEAD, *PINGS, end=None), Outcome(ContentTimeoutError, None, 1, 600, True, "timeout")),
    Row(
        "a beginning, pings",
        Peer(says(BEGIN), *PINGS, end=None),
        Outcome(ContentTimeoutError, "", 1, 600, True, "timeout"),
    ),
    Row(
        "some text, then pings",
        Peer(says(BEGIN, BLOCK, HEL), *PINGS, end=None),
        Outcome(ContentTimeoutError, "Hel", 1, 600, False, "timeout"),
    ),
    Row("a long thought with pings", Peer(*LONG_THOUGHT, end=None), Outcome(None, "Hello", 1, 255, False, "complete")),
    Row(
        "a piece each 510 s, with pings",
        Peer(*SLOW_PIECES, end=None),
        Outcome(None, "Hello", 1, 1020, False, "complete"),
    ),
    Row(
        "a long thought, and 90 s without a ping",
        Peer(says(BEGIN, THINKING), 85.0, chunk(PING), 90.0, WHOLE),
        Outcome(SilenceTimeoutError, "", 1, 175, False, "timeout"),
    ),
    Row(
        "a byte each 80 s",
        Peer(*SLOW_HEAD, end=None),
        Outcome(HeadTimeoutError, None, 3, 361.5, True, "timeout"),
    ),
    Row("all but the last word", Peer(says(*ANSWER[:-1]), end=None), Outcome(None, "Hello", 1, 90, False, "complete")),
    Row("all, and no end of the body", Peer(says(*ANSWER), end=None), COMPLETE),
    # The clock of the whole call runs through attempts and the waits between them.
    Row(
        "no head, for 250 s at most",
        Peer(end=None),
        Outcome(TotalTimeoutError, None, 3, 250, True, "timeout"),
        Timeouts(total=250),
    ),
    Row(
        "no head, and no time for another wait",
        Peer(end=None),
        Outcome(HeadTimeoutError, None, 2, 240.5, True, "timeout"),
        Timeouts(total=241),
    ),
    Row(
        "pings, for 100 s at most",
        Peer(says(BEGIN), *PINGS),
        Outcome(TotalTimeoutError, "", 1, 100, True, "timeout"),
        Timeouts(total=100),
    ),
)


@each_way
@pytest.mark.parametrize("row", rows(*SILENCES))
def test_a_peer_that_says_nothing(row: Row, way: str) -> None:
    row.check(way)


# --- The connection ends too early -----------------------------------------------------------------------------------


class Cut(NamedTuple):
    """A place at which an answer may be cut, and what the caller is told then."""

    where: str
    wire: bytes
    error: type[APIError] | None
    text: str | None
    attempts: int
    safe_to_retry: bool
    phase: Phase


LOST, TORN = APIConnectionError, StreamTruncatedError
IN_HEL = chunk(HEL)[: chunk(HEL).index(b"Hel") + 2]
CUTS = (
    Cut("before the head", b"", LOST, None, 3, True, "head"),
    Cut("in the status line", b"HTTP/1.1 2", LOST, None, 3, True, "head"),
    Cut("in a header field", SSE_HEAD[:-10], LOST, None, 3, True, "head"),
    Cut("after the head", SSE_HEAD, TORN, None, 3, True, "open"),
    Cut("in the size of the first chunk", SSE_HEAD + b"f", TORN, None, 3, True, "open"),
    Cut("in message_start", says(BEGIN)[:-30], TORN, None, 3, True, "open"),
    Cut("after message_start", says(BEGIN), TORN, "", 3, True, "open"),
    Cut("after message_start and a ping", says(BEGIN, PING), TORN, "", 3, True, "open"),
    Cut("in the size of the second chunk", says(BEGIN) + b"6", TORN, "", 3, True, "open"),
    Cut("after content_block_start", says(BEGIN, BLOCK), TORN, "", 1, False, "content"),
    Cut("in the first text", says(BEGIN, BLOCK) + IN_HEL, TORN, "", 1, False, "content"),
    Cut("after the first text", says(BEGIN, BLOCK, HEL), TORN, "Hel", 1, False, "content"),
    Cut("in the size of a later chunk", says(BEGIN, BLOCK, HEL) + b"6a\r", TORN, "Hel", 1, False, "content"),
    Cut("after the text", says(*ANSWER[:4]), TORN, "Hello", 1, False, "content"),
    Cut("after content_block_stop", says(*ANSWER[:5]), TORN, "Hello", 1, False, "content"),
    Cut("in message_delta", says(*ANSWER[:6])[:-20], TORN, "Hello", 1, False, "content"),
    Cut("after message_delta", says(*ANSWER[:6]), None, "Hello", 1, False, "tail"),
    Cut("in message_stop", says(*ANSWER)[:-9], None, "Hello", 1, False, "tail"),
    Cut("after message_stop", says(*ANSWER), None, "Hello", 1, False, "done"),
    Cut("in the last chunk", says(*ANSWER) + b"0\r\n", None, "Hello", 1, False, "done"),
)


def cut_row(cut: Cut, how: str, end: bytes | BaseException) -> Row:
    seconds = 1.5 if cut.attempts == 3 else 0
    ending = "truncated" if cut.error else "complete"
    peer = Peer(cut.wire, end=end) if cut.wire else Peer(end=end)
    return Row(
        f"{how} {cut.where}", peer, Outcome(cut.error, cut.text, cut.attempts, seconds, cut.safe_to_retry, ending)
    )


@each_way
@pytest.mark.parametrize(
    "row", rows(*(cut_row(cut, "closed", b"") for cut in CUTS), *(cut_row(cut, "reset", RESET) for cut in CUTS))
)
def test_a_connection_that_ends_too_early(row: Row, way: str) -> None:
    row.check(way)


class _Cutter:
    """A server that cuts its answer there."""

    def __init__(self, cut: Cut, *, is_reset: bool) -> None:
        self._cut = cut
        self._is_reset = is_reset

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":true}')
        writer.write(self._cut.wire)
        if self._is_reset:  # SO_LINGER with no time to linger: closing sends RST
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


def _what_became(error: APIError | None, message: Message | None) -> tuple[type[APIError] | None, str | None, bool]:
    if error is None:
        assert message is not None
        return None, message.text, False
    return type(error), None if error.partial is None else error.partial.text, error.safe_to_retry


async def _real_outcome(cut: Cut, *, is_reset: bool) -> tuple[type[APIError] | None, str | None, bool]:
    """What a real socket that is cut there comes to, in one attempt."""
    cutter = _Cutter(cut, is_reset=is_reset)
    async with serving(cutter) as origin, AsyncClient(api_key="x", base_url=f"{origin}", max_retries=0) as client:
        try:
            return _what_became(None, await client.messages.create(**ASK))
        except APIError as exc:
            assert counts(client._pools)[0] == 0
            return _what_became(exc, None)


@each_loop
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_a_real_socket_comes_to_the_same_at_every_cut(is_reset: bool, on: Loop) -> None:
    async def story() -> None:
        for cut in CUTS:
            outcome = await _real_outcome(cut, is_reset=is_reset)
            assert outcome == (cut.error, cut.text, cut.safe_to_retry), cut.where

    on(story())


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_without_an_event_loop_a_real_socket_comes_to_the_same_at_every_cut(is_reset: bool) -> None:
    def outcome(client: Client) -> tuple[type[APIError] | None, str | None, bool]:
        try:
            return _what_became(None, client.messages.create(**ASK))
        except APIError as exc:
            return _what_became(exc, None)

    with Background() as background:
        for cut in CUTS:
            origin = background.enter(serving(_Cutter(cut, is_reset=is_reset)))
            with Client(api_key="x", base_url=f"{origin}", max_retries=0) as client:
                assert outcome(client) == (cut.error, cut.text, cut.safe_to_retry), cut.where


@pytest.mark.parametrize("end", [b"", RESET], ids=["closed", "reset"])
@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut.error], ids=lambda cut: cut.where)
def test_a_cut_tells_how_far_the_answer_had_come(cut: Cut, end: bytes | BaseException) -> None:
    error = see(Peer(cut.wire, end=end) if cut.wire else Peer(end=end)).error
    assert error is not None
    assert error.phase == cut.phase


def test_how_far_it_had_come_is_told_of_the_last_attempt() -> None:
    error = see(Peer(says(BEGIN)), REFUSED).error
    assert error is not None
    assert (error.phase, error.partial, error.bytes_received) == ("connect", None, 0)


EOF_AFTER = (
    # the number of events; error, text so far, attempts, seconds, safe to retry, ending
    (0, StreamTruncatedError, None, 3, 1.5, True, "truncated"),  # nothing at all: an empty answer
    (1, StreamTruncatedError, "", 3, 1.5, True, "truncated"),
    (2, StreamTruncatedError, "", 1, 0, False, "truncated"),
    (3, StreamTruncatedError, "Hel", 1, 0, False, "truncated"),
    (4, StreamTruncatedError, "Hello", 1, 0, False, "truncated"),
    (5, StreamTruncatedError, "Hello", 1, 0, False, "truncated"),
    (6, None, "Hello", 1, 0, False, "complete"),  # the stop reason is known: only the last word is missing
    (7, None, "Hello", 1, 0, False, "complete"),
)


@each_way
@pytest.mark.parametrize(
    "row",
    rows(*(Row(f"after {n} events", Peer(says(*ANSWER[:n]) + b"0\r\n\r\n"), Outcome(*told)) for n, *told in EOF_AFTER)),
)
def test_a_body_that_ends_as_http_has_it_before_the_last_event(row: Row, way: str) -> None:
    row.check(way)


# --- Error events ----------------------------------------------------------------------------------------------------

# What comes before the error event; the text; and whether the call is made again if the error may heal.
BEFORE_AN_ERROR: tuple[tuple[str, tuple[Raw, ...], str | None, bool], ...] = (
    ("first", (), None, True),
    ("after a ping", (PING,), None, True),
    ("after message_start", (BEGIN,), "", True),
    ("after message_start and a ping", (BEGIN, PING), "", True),
    ("after content_block_start", (BEGIN, BLOCK), "", False),
    ("after one delta", (BEGIN, BLOCK, HEL), "Hel", False),
    ("after two deltas", (BEGIN, BLOCK, HEL, LO), "Hello", False),
    ("after message_delta", ANSWER[:6], "Hello", False),
)
ERROR_TYPES: tuple[tuple[str, type[APIError], bool], ...] = (
    ("overloaded_error", OverloadedError, True),
    ("api_error", InternalServerError, True),
    ("timeout_error", GatewayTimeoutError, True),
    ("rate_limit_error", RateLimitError, True),
    ("invalid_request_error", BadRequestError, False),
    ("brand_new_error", InternalServerError, True),
)


def error_event(kind: str) -> Raw:
    return {"type": "error", "error": {"type": kind, "message": "No."}}


def error_rows() -> list[Row]:
    table = []
    for (where, before, text, is_early), (kind, error, heals) in itertools.product(BEFORE_AN_ERROR, ERROR_TYPES):
        is_repeated = is_early and heals
        peer = Peer(says(*before, error_event(kind)) + b"0\r\n\r\n", end=None)
        attempts, seconds = (3, 1.5) if is_repeated else (1, 0)
        table.append(Row(f"{kind} {where}", peer, Outcome(error, text, attempts, seconds, is_repeated, "error")))
    return table


@each_way
@pytest.mark.parametrize("row", rows(*error_rows()))
def test_an_error_event(row: Row, way: str) -> None:
    row.check(way)


@each_way
@pytest.mark.parametrize("before", [(), (PING,), (BEGIN,), (BEGIN, PING)])
def test_an_error_event_before_any_content_and_then_a_whole_answer(before: tuple[Raw, ...], way: str) -> None:
    failing = Peer(says(*before, error_event("overloaded_error")))
    seen = see(failing, failing, Peer(WHOLE), way=way)
    assert seen.outcome == COMPLETE._replace(attempts=3, seconds=1.5)
    if way != "create":
        wire = [event.type for event in seen.events if event.type != "text"]  # less what derives from a delta
        pings = [raw["type"] for raw in before if raw is PING and way == "events"]
        assert wire == [*pings * 2, *(raw["type"] for raw in ANSWER)]


@each_way
def test_what_comes_after_an_error_event_is_not_read(way: str) -> None:
    told = Outcome(OverloadedError, None, 3, 1.5, True, "error")
    seen = see(Peer(SSE_HEAD + chunk(error_event("overloaded_error"), BEGIN, BLOCK, HEL)), way=way)
    assert seen.outcome == told
    assert seen.events == []


def test_a_ping_is_seen_when_it_comes_and_message_start_with_what_follows_it() -> None:
    peer = Peer(says(BEGIN), 10.0, chunk(PING), 10.0, chunk({"type": "brand_new"}), 10.0, chunk(*ANSWER[1:]))
    seen = see(peer, way="events")
    assert seen.outcome == COMPLETE._replace(seconds=30)
    types = [event.type for event in seen.events if event.type != "text"]
    assert types[:4] == ["ping", "message_start", "brand_new", "content_block_start"]


@each_way
def test_an_event_of_an_unknown_type_is_no_content(way: str) -> None:
    failing = Peer(says(BEGIN, {"type": "brand_new"}, error_event("overloaded_error")))
    seen = see(failing, Peer(WHOLE), way=way)
    assert seen.outcome == COMPLETE._replace(attempts=2, seconds=0.5)


@pytest.mark.parametrize(("events", "attempts"), [(MAX_HELD_EVENTS - 2, 3), (MAX_HELD_EVENTS - 1, 1)])
@pytest.mark.parametrize("way", ["stream", "events"])
def test_a_flood_of_unknown_events_is_held_back_up_to_a_limit_and_then_there_is_no_other_attempt(
    events: int, attempts: int, way: str
) -> None:
    flood = says(BEGIN, *[{"type": "brand_new"}] * events)
    seen = see(Peer(flood), way=way)
    seconds = 1.5 if attempts == 3 else 0
    assert seen.outcome == Outcome(StreamTruncatedError, "", attempts, seconds, True, "truncated")
    assert len(seen.events) == 1 + events


@each_way
def test_a_flood_of_pings_is_handed_on_and_changes_nothing(way: str) -> None:
    seen = see(Peer(says(BEGIN, *[PING] * 500)), way=way)
    assert seen.outcome == Outcome(StreamTruncatedError, "", 3, 1.5, True, "truncated")
    if way == "events":
        assert [event.type for event in seen.events] == [*["ping"] * 1000, "message_start", *["ping"] * 500]


def test_empty_deltas_are_no_content_for_the_clock() -> None:
    empty = [item for _ in range(50) for item in (2.0, chunk(text_delta(0, "")))]
    seen = see(Peer(says(BEGIN, BLOCK, HEL), *empty, end=None), way="stream", timeouts=Timeouts(content=15))
    assert seen.outcome == Outcome(ContentTimeoutError, "Hel", 1, 15, False, "timeout")


# --- Refusals --------------------------------------------------------------------------------------------------------

STATUSES: tuple[tuple[int, type[APIStatusError], bool], ...] = (
    (400, BadRequestError, False),
    (401, AuthenticationError, False),
    (403, PermissionDeniedError, False),
    (404, NotFoundError, False),
    (408, RequestTimeoutError, True),
    (409, ConflictError, True),
    (413, ContentTooLargeError, False),
    (429, RateLimitError, True),
    (500, InternalServerError, True),
    (503, ServiceUnavailableError, True),
    (504, GatewayTimeoutError, True),
    (529, OverloadedError, True),
    (302, APIStatusError, False),  # a redirect is not followed: the key would go with it
)


def refusal(status: int, **fields: str) -> bytes:
    body = json.dumps({"type": "error", "error": {"type": "x_error", "message": "No."}}).encode()
    return plain(body, f"{status} Refused", content_type="application/json", **fields)


def refusal_rows() -> list[Any]:
    """Status and wish of the server, the error, whether it may heal, and the attempts."""
    table = []
    for (status, error, heals), wish in itertools.product(STATUSES, ("", "true", "false")):
        attempts = 3 if wish == "true" or (heals and wish != "false") else 1
        name = f"{status}{wish and ', x-should-retry: ' + wish}"
        table.append(pytest.param(status, wish, error, attempts, id=name))
    return table


@each_way
@pytest.mark.parametrize(("status", "wish", "error", "attempts"), refusal_rows())
def test_a_refusal(status: int, wish: str, error: type[APIStatusError], attempts: int, way: str) -> None:
    wire = refusal(status, **({"x_should_retry": wish} if wish else {}))
    seen = see(Peer(None, wire, None, wire, None, wire, end=None), way=way)
    # One connection carries all attempts: a refusal that was read to its end does not cost it.
    assert seen.outcome == Outcome(error, None, 1, 1.5 if attempts == 3 else 0, attempts == 3, "error")
    assert len(seen.requests) == attempts
    assert seen.error is not None
    assert seen.error.retries_taken == attempts - 1


# --- Waits that the server asks for ----------------------------------------------------------------------------------

# The fields, the attempts, the seconds that they take together, and what the error says of the wait.
WAITS: tuple[tuple[dict[str, str], int, float, float | None], ...] = (
    ({"retry_after": "7"}, 3, 14, 7),
    ({"retry_after": "0.25"}, 3, 0.5, 0.25),
    ({"retry_after": "60"}, 3, 120, 60),
    ({"retry_after_ms": "1500"}, 3, 3, 1.5),
    ({"retry_after_ms": "1500", "retry_after": "7"}, 3, 3, 1.5),
    ({"retry_after": "Sun, 06 Nov 1994 08:49:57 GMT"}, 3, 40, 20),  # 20 s after `NOW`
    ({"retry_after": "Sun, 06 Nov 1994 08:49:17 GMT"}, 3, 1.5, None),  # 20 s before it
    ({"retry_after": "62291"}, 1, 0, 62291),
    ({"retry_after": "Mon, 07 Nov 1994 08:49:37 GMT"}, 1, 0, 86400),
    ({"retry_after": "60.5"}, 1, 0, 60.5),
    ({"retry_after": "soon"}, 3, 1.5, None),
    ({"retry_after": "-3"}, 3, 1.5, None),
    ({"retry_after": "0"}, 3, 1.5, None),
    ({}, 3, 1.5, None),
)


@pytest.mark.parametrize("status", [429, 503, 529])
@pytest.mark.parametrize(("fields", "attempts", "seconds", "asked"), WAITS, ids=[str(wait[0]) for wait in WAITS])
def test_a_wait_that_the_server_asks_for(
    status: int, fields: dict[str, str], attempts: int, seconds: float, asked: float | None
) -> None:
    seen = see(Peer(plain(b"{}", f"{status} Later", connection="close", **fields)))
    error = {status: error for status, error, _ in STATUSES}[status]
    assert seen.outcome == Outcome(error, None, attempts, seconds, safe_to_retry=True, ending="error")
    assert seen.error is not None
    assert seen.error.retry_after == asked


def test_a_wait_that_is_too_long_is_told_in_the_message() -> None:
    seen = see(Peer(refusal(429, retry_after="62291")))
    text = "429 x_error: No. (the server asks to wait 62291 s; max_retry_after is 60 s)"
    assert seen.error is not None
    assert (str(seen.error), seen.error.ending and seen.error.ending.text) == (text, text)


def test_a_wait_that_would_outlast_the_call_is_not_begun() -> None:
    seen = see(Peer(refusal(429, retry_after="30")), timeouts=Timeouts(total=30))
    assert seen.outcome == Outcome(RateLimitError, None, 1, 0, safe_to_retry=True, ending="error")


@each_way
def test_429_twice_and_then_a_whole_answer(way: str) -> None:
    later = Peer(plain(b"{}", "429 Later", retry_after="1", connection="close"))
    seen = see(later, later, Peer(WHOLE), way=way)
    assert seen.outcome == COMPLETE._replace(attempts=3, seconds=2)
    assert (seen.retries_taken, len(seen.requests)) == (2, 3)


def test_failures_of_all_kinds_share_one_count_of_retries() -> None:
    peers = (Peer(refusal(500, connection="close")), Peer(says(BEGIN)), REFUSED, Peer(end=None))
    seen = see(*peers, retry_policy=RetryPolicy(max_retries=3))
    assert seen.outcome == Outcome(HeadTimeoutError, None, 4, 123.5, safe_to_retry=True, ending="timeout")


# --- What is no event stream -----------------------------------------------------------------------------------------

MESSAGE = json.dumps(BEGIN["message"]).encode()
GATEWAY_PAGE = b"<html><h1>502 Bad Gateway</h1></html>"
NOT_SSE = (
    # what comes, from which peer; error, text so far, attempts, seconds, safe to retry, ending
    Row(
        "a whole message",
        Peer(plain(MESSAGE, content_type="application/json")),
        COMPLETE._replace(text=""),
    ),
    Row(
        "a page with status 200",
        Peer(plain(GATEWAY_PAGE, content_type="text/html")),
        Outcome(HTTPProtocolError, None, 1, 0, False, "error"),
    ),
    Row(
        "JSON that never ends",
        Peer(head(content_type="application/json", content_length="9"), end=None),
        Outcome(HTTPProtocolError, None, 1, 90, False, "error"),
    ),
    Row(
        "a page with status 502",
        Peer(plain(GATEWAY_PAGE, "502 Bad Gateway", content_type="text/html")),
        Outcome(InternalServerError, None, 3, 1.5, True, "error"),
    ),
    Row(
        "an empty body",
        Peer(plain(b"", content_type="text/event-stream")),
        Outcome(StreamTruncatedError, None, 3, 1.5, True, "truncated"),
    ),
    Row(
        "a body that is shorter than its length",
        Peer(head(content_length="9") + b"event"),
        Outcome(StreamTruncatedError, None, 3, 1.5, True, "truncated"),
    ),
    Row(
        "a length that is too large",
        Peer(head(content_length="9999") + to_bytes([BEGIN, BLOCK, HEL])),
        Outcome(StreamTruncatedError, "Hel", 1, 0, False, "truncated"),
    ),
    Row(
        "a length that is too small",
        Peer(head(content_length="400") + to_bytes(ANSWER)),
        Outcome(StreamTruncatedError, "", 1, 0, False, "truncated"),
    ),
    Row(
        "a chunk size that is none",
        Peer(SSE_HEAD + b"zz\r\n" + to_bytes([BEGIN])),
        Outcome(HTTPProtocolError, None, 1, 0, False, "error"),
    ),
    Row(
        "a chunk size that is none, after text",
        Peer(says(BEGIN, BLOCK, HEL) + b"zz\r\n"),
        Outcome(HTTPProtocolError, "Hel", 1, 0, False, "error"),
    ),
    Row("garbage", Peer(b"\x16\x03\x01\x02\x00\x01\x00"), Outcome(HTTPProtocolError, None, 1, 0, False, "error")),
    Row("SMTP", Peer(b"220 mail.example ESMTP\r\n\r\n"), Outcome(HTTPProtocolError, None, 1, 0, False, "error")),
    Row(
        "a redirect",
        Peer(plain(b"", "307 There", location="http://evil.example/")),
        Outcome(APIStatusError, None, 1, 0, False, "error"),
    ),
    Row("gzip", Peer(head(content_encoding="gzip") + gzip.compress(to_bytes(ANSWER))), COMPLETE),
    Row(
        "gzip that is cut",
        Peer(head(content_encoding="gzip") + gzip.compress(to_bytes(ANSWER))[:20]),
        Outcome(StreamTruncatedError, None, 3, 1.5, True, "truncated"),
    ),
    Row(
        "gzip that is none",
        Peer(head(content_encoding="gzip") + to_bytes(ANSWER)),
        Outcome(HTTPProtocolError, None, 1, 0, False, "error"),
    ),
    Row(
        "an event that is no JSON",
        Peer(SSE_HEAD + chunked(b"data: x\n\n")),
        Outcome(EventDataError, None, 1, 0, False, "error"),
    ),
    Row(
        "an event that is no JSON, and then a whole answer",
        Peer(SSE_HEAD + chunked(b"data: x\n\n" + to_bytes(ANSWER))),
        Outcome(EventDataError, None, 1, 0, False, "error"),
    ),
    Row("a text before its block", Peer(says(BEGIN, HEL)), Outcome(EventOrderError, "", 1, 0, False, "error")),
    Row(
        "a second beginning",
        Peer(says(BEGIN, BLOCK, HEL, BEGIN)),
        Outcome(EventOrderError, "Hel", 1, 0, False, "error"),
    ),
)


@each_way
@pytest.mark.parametrize("row", rows(*NOT_SSE))
def test_an_answer_that_is_no_event_stream(row: Row, way: str) -> None:
    row.check(way)


# --- In an event loop ------------------------------------------------------------------------------------------------

ALL_ROWS = (
    *SILENCES,
    *(cut_row(cut, how, end) for cut in CUTS for how, end in (("closed", b""), ("reset", RESET))),
    *error_rows(),
    *NOT_SSE,
)


def watch_it(*peers: Peer, **options: Any) -> Seen:
    return run(watch(*peers, **options))


@pytest.mark.parametrize("row", rows(*ALL_ROWS))
def test_in_an_event_loop_it_comes_to_the_same(row: Row) -> None:
    row.check(list(WAYS)[ALL_ROWS.index(row) % len(WAYS)], watch_it)
