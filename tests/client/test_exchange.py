"""rawsse.client.exchange: one request and its response over one stream, with five clocks, in virtual time."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from support.answers import acquiring, chunked, head, plain
from support.clock import run

from rawsse import errors
from rawsse.client.exchange import Exchange
from rawsse.client.moments import RequestData
from rawsse.client.network.clocks import Timeouts
from rawsse.client.network.net import FakeStream, Stream
from rawsse.client.network.pool import Pool
from rawsse.client.network.route import Origin, Proxy, Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    HTTPProtocolError,
    HTTPUsageError,
    StreamTruncatedError,
)

REQUEST = RequestData("POST", "/v1/messages", "api.example", (("x-api-key", "secret"), ("accept", "a/b")), b'{"a":1}')
ROUTE = Route(Origin("http", "api.example", 80))
OFF = Timeouts(connect=None, head=None, silence=None, content=None)


def exchange_over(stream: Stream | bytes, timeouts: Timeouts = OFF, **options: Any) -> Exchange:
    made = FakeStream([stream]) if isinstance(stream, bytes) else stream

    async def connect() -> Stream:
        return made

    return Exchange(acquiring(connect), REQUEST, timeouts, **options)


async def made(stream: Stream) -> Stream:
    return stream


async def read_through(exchange: Exchange) -> list[bytes]:
    await exchange.open()
    pieces: list[bytes] = []
    while data := await exchange.read():
        pieces.append(data)
    return pieces


def failure_of(exchange: Exchange) -> APIError:
    with pytest.raises(APIError) as caught:
        run(read_through(exchange))
    return caught.value


# --- A request and its response ------------------------------------------------------------------------------------


def test_the_request_is_written_as_http_has_it() -> None:
    stream = FakeStream([plain(b"")])
    run(read_through(exchange_over(stream)))
    assert stream.written == (
        b"POST /v1/messages HTTP/1.1\r\nhost: api.example\r\nx-api-key: secret\r\naccept: a/b\r\n"
        b'content-length: 7\r\n\r\n{"a":1}'
    )


@pytest.mark.parametrize(
    "answer",
    [
        plain(b"hello"),
        head(transfer_encoding="chunked") + chunked(b"he", b"llo"),
        head() + b"hello",
        head("100 Continue") + plain(b"hello"),
        plain(gzip.compress(b"hello"), content_encoding="gzip"),
        plain(zlib.compress(b"hello"), content_encoding="deflate"),
    ],
    ids=["length", "chunked", "until the end", "after 100", "gzip", "deflate"],
)
def test_the_body_is_read_however_it_is_framed_and_cut(answer: bytes) -> None:
    for cut in (len(answer), 7, 1):
        stream = FakeStream([answer[at : at + cut] for at in range(0, len(answer), cut)])
        assert b"".join(run(read_through(exchange_over(stream)))) == b"hello"


def test_the_body_comes_as_the_network_cut_it() -> None:
    assert run(read_through(exchange_over(FakeStream([head() + b"a", b"bc", b"d"])))) == [b"a", b"bc", b"d"]


def test_the_response_s_head_is_known_and_its_request_id() -> None:
    exchange = exchange_over(plain(b"", "201 Created", request_id="req_1"))
    response = run(exchange.open())
    assert (response.status, response is exchange.response) == (201, True)
    assert exchange.request_id == "req_1"


def test_bytes_are_those_of_the_body_as_it_came() -> None:
    compressed = gzip.compress(b"hello" * 100)
    exchange = exchange_over(head(transfer_encoding="chunked", content_encoding="gzip") + chunked(compressed))
    run(read_through(exchange))
    assert exchange.bytes_received == len(compressed)


def test_the_connection_is_given_back_when_the_body_is_whole() -> None:
    async def story() -> tuple[int, bool]:
        stream = FakeStream([plain(b"hello")], end=None)
        pool = Pool(lambda route, tls: made(stream), TLSContext())
        await read_through(Exchange(lambda note_line: pool.acquire(ROUTE, note_line=note_line), REQUEST, OFF))
        return pool.idle_connections, stream.is_aborted

    assert run(story()) == (1, False)


def test_a_connection_that_is_kept_by_nobody_is_dropped_when_the_body_is_whole() -> None:
    stream = FakeStream([plain(b"hello", connection="close")], end=None)
    run(read_through(exchange_over(stream)))
    assert stream.is_aborted


def test_after_the_end_there_is_nothing_to_read() -> None:
    async def story() -> bytes:
        exchange = exchange_over(plain(b"hello"))
        await read_through(exchange)
        return await exchange.read()

    assert run(story()) == b""


def test_the_timing_says_when_things_happened() -> None:
    async def connect() -> Stream:
        await asyncio.sleep(1)
        return FakeStream([2, head(), 3, b"x"])

    exchange = Exchange(acquiring(connect), REQUEST, OFF)
    run(read_through(exchange))
    timing = exchange.timing
    assert (timing.connected, timing.head, timing.ended) == (1, 3, 6)


def test_one_object_is_read_as_json() -> None:
    async def story(body: bytes) -> dict[str, Any]:
        exchange = exchange_over(plain(body))
        await exchange.open()
        return await exchange.read_object()

    assert run(story(b'{"input_tokens": 3}')) == {"input_tokens": 3}
    for body in (b"[1]", b"oops", b"", b"\xff"):
        with pytest.raises(errors.EventDataError, match="the answer is no JSON object: b'"):
            run(story(body))


def test_an_object_may_be_as_large_as_the_limit() -> None:
    async def story() -> dict[str, Any]:
        exchange = exchange_over(plain(b'{"a":1}'), max_json_bytes=7)
        await exchange.open()
        return await exchange.read_object()

    assert run(story()) == {"a": 1}


def test_an_object_that_is_too_large_is_refused_as_soon_as_it_is() -> None:
    async def story() -> None:
        exchange = exchange_over(FakeStream([head() + b"x" * 50, b"y" * 51], end=None), max_json_bytes=100)
        await exchange.open()
        await exchange.read_object()

    with pytest.raises(errors.BodyTooLargeError, match=r"the answer is larger than max_json_bytes \(100\)") as caught:
        run(story())
    assert caught.value.limit == 100


# --- The API says no -----------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("status", "kind", "cls", "heals"), STATUSES)
def test_each_status_has_its_error(status: int, kind: str | None, cls: type[APIStatusError], heals: bool) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "No."}}
    error = failure_of(exchange_over(plain(json.dumps(body).encode(), f"{status} Reason", request_id="req_9")))
    assert type(error) is cls
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.type, error.body, error.in_stream) == (status, kind, body, False)
    assert (error.request_id, error.phase, error.safe_to_retry) == ("req_9", "open", heals)
    assert error.bytes_received == len(json.dumps(body))


SAYS_NO = b'{"error": {"type": "api_error", "message": "No."}}'
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (plain(b"", "503 Nope"), "status 503: no message in the body"),
        (plain(b" \n", "503 Nope"), "status 503: no message in the body"),
        (plain(HTML, "502 Bad Gateway"), "status 502: the body is no JSON: '<html><body><h1>502"),
        (plain(b"\xff\xfe", "502 Bad Gateway"), "status 502: the body is no JSON: '\ufffd\ufffd'"),
        (plain(b"[1]", "500 No"), "status 500: no message in the body"),
        (plain(gzip.compress(SAYS_NO), "500 No", content_encoding="gzip"), "500 api_error: No."),
        (plain(HTML, "502 Bad", content_encoding="gzip"), "status 502: no message in the body"),
        (plain(HTML, "502 Bad", content_encoding="br"), "status 502: no message in the body"),
        (head("500 No", content_length="1000") + b'{"err', "status 500: the body is no JSON: '{\"err'"),
        (
            head("500 No", transfer_encoding="chunked") + b'5\r\n{"err\r\nZZ',
            "status 500: the body is no JSON: '{\"err'",
        ),
        (
            plain(b"", "307 Temporary Redirect", location="https://elsewhere"),
            "status 307: it redirects to 'https://elsewhere'; the key is not sent there",
        ),
    ],
)
def test_whatever_the_body_of_a_refusal_the_status_is_told(answer: bytes, message: str) -> None:
    error = failure_of(exchange_over(answer))
    assert isinstance(error, APIStatusError)
    assert error.message.startswith(message)


def test_an_endless_refusal_is_read_up_to_the_limit() -> None:
    async def story() -> FakeStream:
        stream = FakeStream([head("500 No"), *[b"x" * 60] * 3], end=None)
        with pytest.raises(errors.InternalServerError):
            await exchange_over(stream, max_json_bytes=100).open()
        return stream

    assert run(story()).is_aborted


def test_a_refusal_whose_body_never_comes_is_told_after_the_silence() -> None:
    stream = FakeStream([head("429 Slow", content_length="10", retry_after="7")], end=None)
    error = failure_of(exchange_over(stream, Timeouts(silence=5)))
    assert isinstance(error, errors.RateLimitError)
    assert error.headers["retry-after"] == "7"


def test_a_redirect_is_not_followed_with_the_key() -> None:
    stream = FakeStream([plain(b"", "308 Permanent Redirect", location="https://elsewhere.example/v1/messages")])
    error = failure_of(exchange_over(stream))
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.headers["location"]) == (308, "https://elsewhere.example/v1/messages")
    assert stream.written.count(b"POST") == 1


# --- The network fails ---------------------------------------------------------------------------------------------

RESET = ConnectionResetError(104, "Connection reset by peer")


CHUNKED = head(transfer_encoding="chunked")
NO_ANSWER = "api.example closed the connection without an answer"
LOST_BEFORE = "the connection to api.example was lost before an answer: "
LOST_WITHIN = "the connection was lost in the middle of the answer: Connection reset by peer"
CLOSED_WITHIN = "the connection was closed in the middle of the answer"
NOT_GZIP = "the body is not gzip as its content-encoding says"
NOT_ASKED_FOR = "the body has a content-encoding that was not asked for: 'br'"


@pytest.mark.parametrize(
    ("stream", "phase", "cls", "message"),
    [
        (FakeStream(end=b""), "head", APIConnectionError, NO_ANSWER),
        (FakeStream([b"HTTP/1.1 20"]), "head", APIConnectionError, NO_ANSWER),
        (FakeStream(end=RESET), "head", APIConnectionError, LOST_BEFORE + "Connection reset by peer"),
        (FakeStream(end=OSError()), "head", APIConnectionError, LOST_BEFORE + "OSError"),
        (FakeStream([head(content_length="9") + b"x"]), "open", StreamTruncatedError, CLOSED_WITHIN),
        (FakeStream([CHUNKED + b"1\r\nx\r\n"]), "open", StreamTruncatedError, CLOSED_WITHIN),
        (FakeStream([head(content_length="9") + b"x"], end=RESET), "open", StreamTruncatedError, LOST_WITHIN),
        (FakeStream([b"SSH-2.0-OpenSSH_9.6\r\n\r\n"]), "head", HTTPProtocolError, "not HTTP/1.1"),
        (FakeStream([CHUNKED + b"xyz\r\n"]), "open", HTTPProtocolError, "not a chunk's head: b'xyz"),
        (FakeStream([head(content_encoding="br") + b"x"]), "open", HTTPProtocolError, NOT_ASKED_FOR),
        (FakeStream([head(content_encoding="gzip") + b"xx"]), "open", HTTPProtocolError, NOT_GZIP),
        (
            FakeStream([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40_000]),
            "head",
            errors.HeadTooLargeError,
            "the head is larger",
        ),
    ],
)
def test_each_failure_of_the_network_is_named(
    stream: FakeStream, phase: str, cls: type[APIError], message: str
) -> None:
    error = failure_of(exchange_over(stream))
    assert type(error) is cls
    assert error.message.startswith(message)
    assert (error.phase, error.safe_to_retry) == (phase, cls.may_heal)
    assert stream.is_aborted


def test_a_connection_that_fails_is_told_as_it_was() -> None:
    async def connect() -> Stream:
        raise APIConnectionError("cannot connect to http://api.example: refused") from RESET

    error = failure_of(Exchange(acquiring(connect), REQUEST, OFF))
    assert (error.message, error.phase) == ("cannot connect to http://api.example: refused", "connect")
    assert error.__cause__ is RESET


class Deaf(FakeStream):
    """A peer that takes nothing; it may have said why."""

    async def write(self, data: bytes) -> None:
        raise RESET


def test_a_connection_that_is_lost_while_sending_is_told() -> None:
    error = failure_of(exchange_over(Deaf(end=RESET)))
    assert (type(error), error.phase, error.__cause__) == (APIConnectionError, "send", RESET)
    assert failure_of(exchange_over(Deaf())).message == NO_ANSWER


def test_an_answer_that_came_before_the_request_was_sent_is_read() -> None:
    error = failure_of(exchange_over(Deaf([plain(SAYS_NO, "413 Content Too Large")], end=RESET)))
    assert type(error) is errors.ContentTooLargeError


def test_a_request_that_http_does_not_allow_is_refused_and_nothing_is_written() -> None:
    stream = FakeStream(end=None)

    async def connect() -> Stream:
        return stream

    request = RequestData("POST", "/", "api.example", (("bad name", "secret"),))
    with pytest.raises(HTTPUsageError, match="bad name") as caught:
        run(Exchange(acquiring(connect), request, OFF).open())
    assert "secret" not in str(caught.value)
    assert stream.is_aborted
    assert not stream.written


def test_a_failure_that_is_no_api_error_passes_and_drops_the_connection() -> None:
    stream = FakeStream(end=KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        run(exchange_over(stream).open())
    assert stream.is_aborted


def test_the_key_is_not_in_the_repr_of_a_request() -> None:
    assert "secret" not in repr(REQUEST)


def test_a_proxy_that_should_pass_a_request_on_and_wants_a_password_is_named() -> None:
    proxy = Proxy(Origin("http", "proxy.example", 3128))
    stream = FakeStream([plain(b"", "407 No", proxy_authenticate='Basic realm="x"')])

    async def story() -> None:
        pool = Pool(lambda route, tls: made(stream), TLSContext())
        await Exchange(lambda _: pool.acquire(Route(ROUTE.origin, proxy)), REQUEST, OFF).open()

    with pytest.raises(errors.ProxyError, match=r"proxy.example:3128, .* answered 407: it wants a user name"):
        run(story())


def test_a_407_without_a_proxy_is_a_status() -> None:
    error = failure_of(exchange_over(plain(b"", "407 No")))
    assert (type(error), error.message) == (APIStatusError, "status 407: no message in the body")
