"""rawsse.client.exchange: one request and its response, by function calls. The clocks are in `test_exchange_clocks.py`."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from support.answers import SSE_HEAD, chunked, head, plain
from support.reading import ALL_ON, OFF, REQUEST, ROUTE, Attempt

from rawsse import errors
from rawsse.client.answer import Answer
from rawsse.client.exchange import WRITE_BYTES, CallSettings, Exchange, ExchangeObserver, JSONAnswer, Timing
from rawsse.client.network.route import Origin, Proxy, Route
from rawsse.client.request import RequestData
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    ConnectTimeoutError,
    EventOrderError,
    HTTPProtocolError,
    HTTPUsageError,
    StreamCancelledError,
    StreamTruncatedError,
)
from rawsse.http1 import Response
from rawsse.replay.proxy import RawAnswer

OBJECT = b'{"a": "hello"}'


def asked(*chunks: bytes | float | OSError | None, **options: Any) -> Attempt[JSONAnswer]:
    """A request for an object, sent, and this answer; silence for ever after it is silence for ever."""
    return Attempt(JSONAnswer, **options).send().play(*chunks)


def failure_of(*chunks: bytes | float | OSError | None, **options: Any) -> APIError:
    return asked(*chunks, **options).error


# --- The request ---------------------------------------------------------------------------------------------------


def test_the_request_is_written_as_http_has_it() -> None:
    exchange = Attempt(JSONAnswer).exchange
    assert b"".join(exchange.send()) == (
        b"POST /v1/messages HTTP/1.1\r\nhost: api.example\r\nx-api-key: secret\r\naccept: a/b\r\n"
        b'content-length: 7\r\n\r\n{"a":1}'
    )
    assert exchange.phase == "send"


def test_a_large_request_is_written_in_pieces() -> None:
    request = RequestData("POST", "/", "h", (), b"x" * 1_000_000)
    pieces = Attempt(JSONAnswer, request=request).exchange.send()
    assert [len(piece) for piece in pieces[:-1]] == [WRITE_BYTES] * 3
    assert b"".join(pieces).count(b"x") == 1_000_000


def test_a_request_that_http_does_not_allow_is_refused_without_its_values() -> None:
    request = RequestData("POST", "/", "api.example", (("bad name", "secret"),))
    exchange = JSONAnswer(CallSettings(request, ROUTE), Timing())
    with pytest.raises(HTTPUsageError, match="bad name") as caught:
        exchange.begin()
    assert "secret" not in str(caught.value)
    assert exchange.phase == "connect"


def test_the_key_is_not_in_the_repr_of_a_request() -> None:
    assert "secret" not in repr(REQUEST)


# --- The response ----------------------------------------------------------------------------------------------------

FRAMINGS = {
    "length": plain(OBJECT),
    "chunked": head(transfer_encoding="chunked") + chunked(OBJECT[:3], OBJECT[3:]),
    "until the end": head() + OBJECT,
    "after 100": head("100 Continue") + plain(OBJECT),
    "gzip": plain(gzip.compress(OBJECT, mtime=0), content_encoding="gzip"),
    "deflate": plain(zlib.compress(OBJECT), content_encoding="deflate"),
}


@pytest.mark.parametrize("wire", FRAMINGS.values(), ids=FRAMINGS)
def test_the_body_is_read_however_it_is_framed_and_cut_in_two(wire: bytes) -> None:
    for at in range(len(wire)):
        attempt = asked(*filter(None, (wire[:at], wire[at:])), b"")
        assert (attempt.exchange.value, attempt.exchange.error) == ({"a": "hello"}, None)


@pytest.mark.parametrize("wire", FRAMINGS.values(), ids=FRAMINGS)
def test_the_body_is_read_byte_by_byte(wire: bytes) -> None:
    assert asked(*(bytes([byte]) for byte in wire), b"").exchange.value == {"a": "hello"}


@pytest.mark.parametrize("wire", FRAMINGS.values(), ids=FRAMINGS)
def test_a_body_that_is_cut_is_never_a_value(wire: bytes) -> None:
    is_ended_by_the_close = wire == FRAMINGS["until the end"]
    for size in range(len(wire)):
        error = failure_of(*filter(None, (wire[:size],)), b"")
        if not is_ended_by_the_close:
            assert type(error) in (APIConnectionError, StreamTruncatedError)


def test_the_response_s_head_is_known_and_its_request_id() -> None:
    exchange = asked(plain(b"{}", "201 Created", request_id="req_1")).exchange
    assert exchange.response is not None
    assert (exchange.response.status, exchange.request_id, exchange.phase) == (201, "req_1", "open")


def test_bytes_are_those_of_the_body_as_it_came() -> None:
    compressed = gzip.compress(OBJECT * 1, mtime=0)
    exchange = asked(
        head(transfer_encoding="chunked", content_encoding="gzip") + chunked(compressed[:9], compressed[9:])
    ).exchange
    assert (exchange.bytes_received, exchange.value) == (len(compressed), {"a": "hello"})


def test_what_comes_after_the_end_changes_nothing() -> None:
    attempt = asked(plain(OBJECT), timeouts=ALL_ON)
    attempt.exchange.receive(b"HTTP/1.1 500 No\r\n\r\n", attempt.now)
    attempt.exchange.expire(ConnectTimeoutError, attempt.now)
    attempt.exchange.lose(RESET)
    attempt.exchange.cancel()
    assert (attempt.exchange.value, attempt.exchange.error) == ({"a": "hello"}, None)


def test_the_timing_says_when_things_happened() -> None:
    attempt = Attempt(JSONAnswer)
    attempt.now += 1
    attempt.send().play(2.0, head(content_length="2"), 3.0, b"{", 0.5, b"}")
    timing = attempt.timing
    assert (timing.connected, timing.head, timing.ended, timing.longest_gap) == (1, 3, 6.5, 3)


def test_a_timing_shows_what_happened_and_forgets_it_for_another_attempt() -> None:
    timing = Attempt(JSONAnswer).send(is_reused=True).play(2.0, head(content_length="2"), b"{}").timing
    nothing = "first_event=None, first_content=None, last_ping=None, longest_gap=0.0"
    assert repr(timing) == f"Timing(connected=0.0, head=2.0, {nothing}, ended=2.0, is_reused=True)"
    started = timing.started
    timing.forget_attempt()
    assert repr(timing) == f"Timing(connected=None, head=None, {nothing}, ended=None, is_reused=False)"
    assert (timing.started, timing.elapsed()) == (started, 2.0)


def test_an_exchange_that_never_began_ended_at_zero() -> None:
    timing = Timing()
    exchange = JSONAnswer(CallSettings(REQUEST, ROUTE, OFF), timing)
    exchange.cancel()
    assert (exchange.is_over, timing.ended) == (True, 0)


@pytest.mark.parametrize("is_reused", [False, True])
def test_whether_the_connection_had_been_used_before_is_known(is_reused: bool) -> None:
    assert Attempt(JSONAnswer).send(is_reused=is_reused).timing.is_reused is is_reused


# --- One object ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"[1]", b"oops", b"", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_an_object_is_an_error(body: bytes) -> None:
    error = failure_of(plain(body))
    assert type(error) is errors.EventDataError
    assert error.message.startswith("the answer is not a JSON object: b'")


def test_an_object_may_be_as_large_as_the_limit() -> None:
    assert asked(plain(b'{"a":1}'), max_json_bytes=7).exchange.value == {"a": 1}


def test_an_object_that_is_too_large_is_refused_as_soon_as_it_is() -> None:
    attempt = asked(head() + b"x" * 50, max_json_bytes=100)
    assert not attempt.exchange.is_over
    error = attempt.play(b"y" * 51).error
    assert isinstance(error, errors.BodyTooLargeError)
    assert (error.limit, error.message) == (100, "the answer is larger than max_json_bytes (100)")


def test_it_is_open_when_it_is_whole() -> None:
    attempt = asked(plain(OBJECT)[:-1])
    assert (attempt.exchange.is_open, attempt.exchange.is_over) == (False, False)
    assert attempt.play(OBJECT[-1:]).exchange.is_open


# --- A response that is passed on ------------------------------------------------------------------------------------


def passed_on(*chunks: bytes) -> Attempt[RawAnswer]:
    return Attempt(RawAnswer).send().play(*chunks)


def test_the_body_comes_as_the_network_cut_it() -> None:
    attempt = passed_on(head() + b"a", b"bc", b"d", b"")
    assert (attempt.events, attempt.exchange.take(), attempt.exchange.error) == ([b"a", b"bc", b"d"], [], None)


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "429 Too Many Requests", "529 Overloaded"])
def test_every_status_is_an_answer_to_who_passes_it_on(status: str) -> None:
    attempt = passed_on(plain(b"body", status))
    answer = attempt.exchange
    assert answer.response is not None
    assert (answer.response.status, answer.is_open, attempt.events) == (int(status[:3]), True, [b"body"])


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_no_coding_is_undone_for_who_passes_it_on(coding: str) -> None:
    assert passed_on(head(content_encoding=coding, content_length="3") + b"\x00\xff.").events == [b"\x00\xff."]


def test_it_is_open_with_its_head_and_over_with_its_end() -> None:
    attempt = passed_on(head(content_length="4"))
    assert (attempt.exchange.is_open, attempt.exchange.is_over) == (True, False)
    assert attempt.play(b"body").exchange.is_over


def test_a_body_that_is_cut_is_passed_on_as_far_as_it_came() -> None:
    attempt = passed_on(head(content_length="9") + b"abc", b"")
    assert (type(attempt.error), attempt.events) == (StreamTruncatedError, [b"abc"])


# --- The API refuses -------------------------------------------------------------------------------------------------

STATUSES = [
    (300, None, errors.APIStatusError, False),
    (400, "invalid_request_error", errors.BadRequestError, False),
    (401, "authentication_error", errors.AuthenticationError, False),
    (402, "billing_error", errors.PaymentRequiredError, False),
    (403, "permission_error", errors.PermissionDeniedError, False),
    (404, "not_found_error", errors.NotFoundError, False),
    (408, None, errors.RequestTimeoutError, True),
    (409, "conflict_error", errors.ConflictError, True),
    (412, None, errors.PreconditionFailedError, False),
    (413, "request_too_large", errors.ContentTooLargeError, False),
    (418, None, errors.APIStatusError, False),
    (422, None, errors.UnprocessableEntityError, False),
    (429, "rate_limit_error", errors.RateLimitError, True),
    (431, None, errors.RequestHeaderFieldsTooLargeError, False),
    (499, None, errors.ClientClosedRequestError, False),
    (500, "api_error", errors.InternalServerError, True),
    (501, None, errors.HTTPNotImplementedError, True),
    (502, None, errors.InternalServerError, True),
    (503, None, errors.ServiceUnavailableError, True),
    (504, "timeout_error", errors.GatewayTimeoutError, True),
    (529, "overloaded_error", errors.OverloadedError, True),
    (599, None, errors.InternalServerError, True),
]


@pytest.mark.parametrize("kind_of_exchange", [JSONAnswer, Answer])
@pytest.mark.parametrize(("status", "kind", "cls", "heals"), STATUSES)
def test_each_status_has_its_error(
    status: int, kind: str | None, cls: type[APIStatusError], heals: bool, kind_of_exchange: type[Exchange]
) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "No."}}
    wire = plain(json.dumps(body).encode(), f"{status} Reason", request_id="req_9")
    attempt: Attempt[Exchange] = Attempt(kind_of_exchange).send().play(wire)
    error = attempt.error
    assert type(error) is cls
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.type, error.body, error.in_stream) == (status, kind, body, False)
    assert (error.request_id, error.phase, error.safe_to_retry) == ("req_9", "open", heals)
    assert (error.bytes_received, error.response) == (len(json.dumps(body)), attempt.exchange.response)
    assert (attempt.exchange.is_open, attempt.exchange.is_reusable) == (False, True)


SAYS_NO = b'{"error": {"type": "api_error", "message": "No."}}'
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
CUT_REFUSAL = head("500 No", content_length="1000") + b'{"err'
BOMB = gzip.compress(b"x" * 40_000_000, mtime=0)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (plain(b"", "503 Nope"), "status 503: no message in the body"),
        (plain(b" \n", "503 Nope"), "status 503: no message in the body"),
        (plain(HTML, "502 Bad Gateway"), "status 502: the body is not JSON: '<html><body><h1>502"),
        (plain(b"\xff\xfe", "502 Bad Gateway"), "status 502: the body is not JSON: '\ufffd\ufffd'"),
        (plain(b"[1]", "500 No"), "status 500: the body is '[1]'"),
        (plain(b"[" * 100_000, "500 No"), "status 500: the body is not JSON: '[[["),
        (plain(gzip.compress(SAYS_NO, mtime=0), "500 No", content_encoding="gzip"), "500 api_error: No."),
        (plain(HTML, "502 Bad", content_encoding="gzip"), "status 502: no message in the body"),
        (plain(HTML, "502 Bad", content_encoding="br"), "status 502: no message in the body"),
        (plain(BOMB, "502 Bad", content_encoding="gzip"), "status 502: no message in the body"),
        (CUT_REFUSAL, "status 500: the body is not JSON: '{\"err'"),
        (
            head("500 No", transfer_encoding="chunked") + b'5\r\n{"err\r\nZZ\r\n',
            "status 500: the body is not JSON: '{\"err'",
        ),
        (
            plain(b"", "307 Temporary Redirect", location="https://elsewhere"),
            "status 307: it redirects to 'https://elsewhere'; the key is not sent there",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_the_body_of_a_refusal_the_status_is_told(wire: bytes, message: str) -> None:
    error = failure_of(wire, b"")
    assert isinstance(error, APIStatusError)
    assert error.message.startswith(message)


@pytest.mark.parametrize("end", [b"", OSError(104, "Connection reset by peer")], ids=["closed", "reset"])
def test_a_refusal_that_is_cut_is_told_and_costs_the_connection(end: bytes | OSError) -> None:
    exchange = asked(CUT_REFUSAL, end).exchange
    assert type(exchange.error) is errors.InternalServerError
    assert not exchange.is_reusable


def test_an_endless_refusal_is_read_up_to_the_limit() -> None:
    attempt = asked(head("500 No") + b"x" * 60, max_json_bytes=100)
    assert not attempt.exchange.is_over
    assert type(attempt.play(b"x" * 60).error) is errors.InternalServerError
    assert not attempt.exchange.is_reusable


def test_a_refusal_brings_its_rate_limits() -> None:
    error = failure_of(plain(b"{}", "429 No", anthropic_ratelimit_requests_remaining="0"))
    assert isinstance(error, errors.RateLimitError)
    assert error.rate_limits is not None
    assert error.rate_limits.requests is not None
    assert error.rate_limits.requests.remaining == 0


@pytest.mark.parametrize(("wish", "is_safe"), [("true", True), ("false", False)])
def test_the_server_s_wish_decides_whether_a_refusal_may_be_repeated(wish: str, is_safe: bool) -> None:
    assert failure_of(plain(b"{}", "400 No", x_should_retry=wish)).safe_to_retry is is_safe
    assert failure_of(plain(b"{}", "500 No", x_should_retry=wish)).safe_to_retry is is_safe


FORWARDING = Route(ROUTE.origin, Proxy(Origin("http", "proxy.example", 3128)))


def test_a_proxy_that_should_forward_a_request_and_wants_a_password_is_named() -> None:
    error = failure_of(plain(b"", "407 No", proxy_authenticate='Basic realm="x"'), route=FORWARDING)
    assert type(error) is errors.ProxyError
    assert "proxy.example:3128" in error.message
    assert "answered 407: it wants a user name" in error.message


def test_a_407_without_a_proxy_is_a_status() -> None:
    error = failure_of(plain(b"", "407 No"))
    assert (type(error), error.message) == (APIStatusError, "status 407: no message in the body")


def test_a_refusal_through_a_forwarding_proxy_names_it_as_it_may_be_the_proxy_s() -> None:
    error = failure_of(plain(b"{}", "502 Bad"), route=FORWARDING)
    assert error.message.startswith("status 502: no message in the body (asked through ")
    assert "proxy.example:3128" in error.message
    assert error.args == (error.message,)


# --- The network fails ---------------------------------------------------------------------------------------------

RESET = ConnectionResetError(104, "Connection reset by peer")


CHUNKED = head(transfer_encoding="chunked")
NO_ANSWER = "api.example closed the connection without an answer"
LOST_BEFORE = "the connection to api.example was lost before an answer: "
LOST_WITHIN = "the connection was lost in the middle of the answer: Connection reset by peer"
CLOSED_WITHIN = "the connection was closed in the middle of the answer"
LOST_EARLY = "the connection was lost before the first content of the answer: Connection reset by peer"
CLOSED_EARLY = "the connection was closed before the first content of the answer"
NOT_GZIP = "the body is not gzip as its content-encoding says"
NOT_ASKED_FOR = "unsupported Content-Encoding: 'br'"

FAILURES: list[tuple[tuple[bytes | OSError, ...], str, type[APIError], str]] = [
    ((b"",), "head", APIConnectionError, NO_ANSWER),
    ((b"HTTP/1.1 20", b""), "head", APIConnectionError, NO_ANSWER),
    ((RESET,), "head", APIConnectionError, LOST_BEFORE + "Connection reset by peer"),
    ((OSError(),), "head", APIConnectionError, LOST_BEFORE + "OSError"),
    ((OSError("in words"),), "head", APIConnectionError, LOST_BEFORE + "in words"),
    ((head(content_length="9") + b"x", b""), "open", StreamTruncatedError, CLOSED_WITHIN),
    ((CHUNKED + b"1\r\nx\r\n", b""), "open", StreamTruncatedError, CLOSED_WITHIN),
    ((head(content_length="9") + b"x", RESET), "open", StreamTruncatedError, LOST_WITHIN),
    ((head(content_length="9"), b""), "open", StreamTruncatedError, CLOSED_EARLY),
    ((head(content_length="9"), RESET), "open", StreamTruncatedError, LOST_EARLY),
    ((b"SSH-2.0-OpenSSH_9.6\r\n\r\n",), "head", HTTPProtocolError, "not HTTP/1.1"),
    ((CHUNKED + b"xyz\r\n",), "open", HTTPProtocolError, "not a chunk's head: b'xyz"),
    ((head(content_encoding="br") + b"x",), "open", HTTPProtocolError, NOT_ASKED_FOR),
    ((head(content_encoding="gzip") + b"xx",), "open", HTTPProtocolError, NOT_GZIP),
    ((b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40_000,), "head", errors.HeadTooLargeError, "the head is larger"),
]


@pytest.mark.parametrize(("chunks", "phase", "cls", "message"), FAILURES)
def test_each_failure_of_the_network_is_named(
    chunks: tuple[bytes | OSError, ...], phase: str, cls: type[APIError], message: str
) -> None:
    attempt = asked(*chunks)
    error = attempt.error
    assert type(error) is cls
    assert error.message.startswith(message)
    assert (error.phase, error.safe_to_retry) == (phase, cls.may_heal)
    assert error.__cause__ is (chunks[-1] if isinstance(chunks[-1], OSError) else None)
    assert not attempt.exchange.is_reusable


def test_a_connection_that_is_lost_while_the_request_is_sent_is_told() -> None:
    attempt = Attempt(JSONAnswer)
    attempt.exchange.connected(attempt.now, is_reused=False)
    attempt.exchange.send()
    attempt.exchange.sent(attempt.now, is_whole=False)
    attempt.exchange.lose(RESET)
    assert (type(attempt.error), attempt.error.phase, attempt.error.__cause__) == (APIConnectionError, "send", RESET)


def test_a_connection_that_fails_is_told_as_it_was() -> None:
    attempt = Attempt(JSONAnswer)
    error = APIConnectionError("cannot connect to http://api.example: refused")
    attempt.exchange.end(error)
    assert (attempt.error is error, error.phase, error.safe_to_retry) == (True, "connect", True)


def test_through_a_proxy_the_proxy_is_named_too() -> None:
    error = failure_of(b"", route=FORWARDING)
    assert error.message.startswith("api.example through ")
    assert "proxy.example:3128" in error.message


def test_the_first_failure_stays() -> None:
    attempt = asked(RESET)
    first = attempt.error
    attempt.exchange.receive(plain(OBJECT), attempt.now)
    attempt.exchange.cancel()
    attempt.exchange.end(APIConnectionError("again"))
    assert attempt.error is first


# --- What becomes of the connection ----------------------------------------------------------------------------------


def reuse(attempt: Attempt[JSONAnswer]) -> tuple[bool, bool]:
    return attempt.exchange.is_reusable, attempt.exchange.http.is_nearly_reusable


def test_after_a_whole_answer_the_connection_may_carry_another_exchange() -> None:
    assert reuse(asked(plain(OBJECT))) == (True, True)


def test_after_a_whole_refusal_as_well() -> None:
    assert reuse(asked(plain(SAYS_NO, "400 No"))) == (True, True)


@pytest.mark.parametrize("wire", [plain(OBJECT, connection="close"), head() + OBJECT], ids=["close", "no length"])
def test_not_if_http_ends_it_with_the_answer(wire: bytes) -> None:
    assert not all(reuse(asked(wire, b"")))


@pytest.mark.parametrize("wire", [plain(SAYS_NO, "413 Content Too Large"), plain(OBJECT)], ids=["413", "200"])
def test_not_if_the_answer_came_before_the_whole_request_was_sent(wire: bytes) -> None:
    """The rest of the request's body would be missing, and the next request be taken for it."""
    attempt = Attempt(JSONAnswer)
    attempt.exchange.connected(attempt.now, is_reused=False)
    attempt.exchange.send()
    attempt.play(wire)
    attempt.exchange.sent(attempt.now, is_whole=False)
    assert attempt.exchange.is_over
    assert not attempt.exchange.is_reusable


@pytest.mark.parametrize("is_reused", [False, True])
@pytest.mark.parametrize(("end", "is_loss"), [(b"", True), (RESET, True), (b"\x16\x03", False), (b"220 x\r\n", False)])
def test_a_used_connection_that_is_lost_without_a_word_may_have_been_dead(
    end: bytes | OSError, is_loss: bool, is_reused: bool
) -> None:
    attempt = Attempt(JSONAnswer).send(is_reused=is_reused).play(end, b"")
    assert attempt.exchange.failed_before_response is (is_loss and is_reused)


@pytest.mark.parametrize("end", [b"", RESET])
def test_one_byte_shows_that_the_peer_had_the_request(end: bytes | OSError) -> None:
    assert not Attempt(JSONAnswer).send(is_reused=True).play(b"H", end).exchange.failed_before_response


def test_nor_is_a_connection_dead_that_is_silent_or_was_closed_here() -> None:
    silent, closed = (Attempt(JSONAnswer, ALL_ON).send(is_reused=True) for _ in range(2))
    silent.exchange.expire(errors.HeadTimeoutError, silent.now)
    closed.exchange.cancel()
    assert (silent.exchange.failed_before_response, closed.exchange.failed_before_response) == (False, False)


# --- Observers -------------------------------------------------------------------------------------------------------


class Watch:
    """Writes down what it is told; of an error, its class."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, request: RequestData, clock: Callable[[], float]) -> ExchangeObserver:
        self.told.append((request.method, clock()))
        return self

    def sent(self) -> None:
        self.told.append("sent")

    def head(self, response: Response) -> None:
        self.told.append(response.status)

    def read(self, data: bytes) -> None:
        self.told.append(data)

    def end(self, error: APIError | None) -> None:
        self.told.append(type(error).__name__)

    def flush(self) -> None:
        raise AssertionError


BEGUN = ("POST", 1000.0)


def told_of(*chunks: bytes | OSError, kind: type[Exchange] = RawAnswer) -> list[Any]:
    watch = Watch()
    Attempt(kind, observer=watch).send().play(*chunks)
    return watch.told


def test_an_exchange_is_told_from_beginning_to_end() -> None:
    assert told_of(SSE_HEAD, b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n") == [BEGUN, "sent", 200, b"a", b"b", "NoneType"]


def test_what_one_read_brought_is_told_in_one_piece() -> None:
    assert told_of(SSE_HEAD + chunked(b"a", b"b")) == [BEGUN, "sent", 200, b"ab", "NoneType"]


@pytest.mark.parametrize("kind", [JSONAnswer, RawAnswer, Answer])
def test_a_refusal_that_was_read_to_its_end_is_whole(kind: type[Exchange]) -> None:
    told = told_of(plain(b"no", "429 Too Many Requests"), kind=kind)
    assert told == [BEGUN, "sent", 429, b"no", "NoneType"]


@pytest.mark.parametrize("kind", [JSONAnswer, RawAnswer, Answer])
def test_a_refusal_that_is_cut_is_told_as_a_cut(kind: type[Exchange]) -> None:
    told = told_of(head("500 No", content_length="9") + b"no", b"", kind=kind)
    assert told == [BEGUN, "sent", 500, b"no", "StreamTruncatedError"]


def test_a_cut_is_told_with_its_error() -> None:
    assert told_of(SSE_HEAD + b"1\r\na\r\n", b"") == [BEGUN, "sent", 200, b"a", "StreamTruncatedError"]


def test_a_connection_that_gives_no_answer_is_told_as_that() -> None:
    assert told_of(b"") == [BEGUN, "sent", "APIConnectionError"]


@pytest.mark.parametrize("kind", [JSONAnswer, RawAnswer])
def test_bytes_are_told_as_they_came_compressed_or_not(kind: type[Exchange]) -> None:
    data = gzip.compress(OBJECT, mtime=0)
    assert told_of(plain(data, content_encoding="gzip"), kind=kind) == [BEGUN, "sent", 200, data, "NoneType"]


def test_a_body_that_is_not_what_was_asked_for_is_told_as_the_failure_that_it_is() -> None:
    assert told_of(plain(b"[1]"), kind=JSONAnswer) == [BEGUN, "sent", 200, b"[1]", "EventDataError"]
    page = plain(b"<p>busy", content_type="text/html")
    assert told_of(page, kind=Answer) == [BEGUN, "sent", 200, b"<p>busy", "HTTPProtocolError"]


def test_a_request_that_may_not_be_sent_is_not_told() -> None:
    watch, request = Watch(), RequestData("POST", "/", "h", (("bad name", "x"),))
    exchange = JSONAnswer(CallSettings(request, ROUTE, OFF, observer=watch), Timing())
    with pytest.raises(HTTPUsageError):
        exchange.begin()
    exchange.cancel()
    assert watch.told == []


@pytest.mark.parametrize("phase", ["connect", "send", "head", "open"])
def test_the_end_is_told_once_at_any_phase_and_nothing_after_it(phase: str) -> None:
    watch = Watch()
    attempt = Attempt(JSONAnswer, ALL_ON, observer=watch)
    exchange = attempt.exchange
    if phase != "connect":
        exchange.connected(attempt.now, is_reused=False)
        exchange.send()
    if phase in ("head", "open"):
        exchange.sent(attempt.now)
    if phase == "open":
        attempt.play(head(content_length="9"))
    assert exchange.phase == phase
    exchange.cancel()
    exchange.cancel()
    exchange.sent(attempt.now, is_whole=False)
    exchange.expire(ConnectTimeoutError, attempt.now)
    exchange.receive(plain(OBJECT), attempt.now)
    exchange.end()
    assert watch.told == [
        BEGUN,
        *["sent"][: phase in ("head", "open")],
        *[200][: phase == "open"],
        "StreamCancelledError",
    ]


def test_an_answer_that_came_too_early_is_told_in_order() -> None:
    watch = Watch()
    attempt = Attempt(JSONAnswer, observer=watch)
    attempt.exchange.send()
    attempt.play(plain(SAYS_NO, "413 Content Too Large"))
    attempt.exchange.sent(attempt.now, is_whole=False)
    assert watch.told == [BEGUN, "sent", 413, SAYS_NO, "NoneType"]


def test_an_exchange_that_was_closed_before_it_began_is_not_told() -> None:
    watch = Watch()
    JSONAnswer(CallSettings(REQUEST, ROUTE, OFF, observer=watch), Timing()).cancel()
    assert watch.told == []


def test_what_the_caller_wanted_has_come_before_the_body_s_end() -> None:
    watch = Watch()
    attempt = Attempt(RawAnswer, observer=watch).send().play(SSE_HEAD + b"1\r\na\r\n")
    attempt.exchange.end()
    assert watch.told == [BEGUN, "sent", 200, b"a", "NoneType"]


def test_events_that_are_wrong_are_told_with_what_is_wrong() -> None:
    stop = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    told = told_of(SSE_HEAD + chunked(stop), kind=Answer)
    assert told == [BEGUN, "sent", 200, stop, EventOrderError.__name__]


def test_an_observer_may_decline() -> None:
    class Declines(Watch):
        def begin(self, request: RequestData, clock: Callable[[], float]) -> Any:
            super().begin(request, clock)

    watch = Declines()
    assert Attempt(JSONAnswer, observer=watch).send().play(plain(OBJECT)).exchange.value == {"a": "hello"}
    assert watch.told == [BEGUN]


def test_closing_is_told_as_closing() -> None:
    attempt = asked(plain(OBJECT)[:-1])
    attempt.exchange.cancel()
    assert (type(attempt.error), attempt.error.safe_to_retry) == (StreamCancelledError, False)
