"""rawsse.client.observe: what an observer of exchanges is told, in which order, and how an exchange is passed on as it is."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from typing import Any

import pytest
from support.answers import ASK, SSE_HEAD, acquiring, answer, chunked, client_of, head, plain
from support.asking import saying
from support.clock import run
from support.pools import Peer

from rawsse.client.exchange import Exchange
from rawsse.client.moments import RequestData
from rawsse.client.network import FakeStream, Stream, Timeouts
from rawsse.client.observe import ExchangeObserver, Observer, Unobserved
from rawsse.errors import APIError, EventOrderError, HTTPUsageError
from rawsse.http1 import Response

OFF = Timeouts(connect=None, head=None, silence=None, content=None)
REQUEST = RequestData("POST", "/v1/messages", "api.example", (), b"{}")


class Watch:
    """Writes down what it is told; of an error, its class."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, request: RequestData) -> ExchangeObserver:
        self.told.append((request.method, request.target))
        return self

    def sent(self) -> None:
        self.told.append("sent")

    def head(self, response: Response) -> None:
        self.told.append(response.status)

    def read(self, data: bytes) -> None:
        self.told.append(data)

    def end(self, error: APIError | None) -> None:
        self.told.append(type(error).__name__)

    async def flush(self) -> None:
        self.told.append("flush")


BEGUN = ("POST", "/v1/messages")


def exchange_over(stream: Stream, watch: Observer | None, request: RequestData = REQUEST, **options: Any) -> Exchange:
    async def connect() -> Stream:
        return stream

    return Exchange(acquiring(connect), request, OFF, observer=watch, **options)


def told_of(stream: Stream | bytes, **options: Any) -> list[Any]:
    """What is told of an exchange that is read as far as it goes."""
    watch = Watch()

    async def story() -> None:
        exchange = exchange_over(FakeStream([stream]) if isinstance(stream, bytes) else stream, watch, **options)
        with contextlib.suppress(APIError, HTTPUsageError):
            await exchange.open()
            while await exchange.read():
                pass
        exchange.close()

    run(story())
    return watch.told


# --- What is told ----------------------------------------------------------------------------------------------------


def test_an_exchange_is_told_from_beginning_to_end() -> None:
    assert told_of(SSE_HEAD + chunked(b"a", b"b")) == [BEGUN, "sent", 200, b"a", b"b", "NoneType"]


def test_a_refusal_is_told_with_its_body() -> None:
    told = told_of(plain(b"no", "429 Too Many Requests"))
    assert told == [BEGUN, "sent", 429, b"no", "NoneType"]


def test_a_cut_is_told_with_its_error() -> None:
    assert told_of(SSE_HEAD + b"1\r\na\r\n") == [BEGUN, "sent", 200, b"a", "StreamTruncatedError"]


def test_a_connection_that_gives_no_answer_is_told_as_that() -> None:
    assert told_of(b"") == [BEGUN, "sent", "APIConnectionError"]


def test_bytes_are_told_as_they_came_compressed_or_not() -> None:
    data = gzip.compress(b"abc")
    assert told_of(plain(data, content_encoding="gzip")) == [BEGUN, "sent", 200, data, "NoneType"]


def test_a_request_that_may_not_be_sent_ends_without_having_been() -> None:
    watch = Watch()
    request = RequestData("POST", "/", "h", (("bad name", "x"),))
    with pytest.raises(HTTPUsageError):
        run(exchange_over(FakeStream([]), watch, request).open())
    assert watch.told == [("POST", "/"), "StreamCancelledError"]


def test_a_cancelled_exchange_has_been_closed() -> None:
    watch = Watch()

    async def story() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await exchange_over(Peer(), watch).open()

    run(story())
    assert watch.told == [BEGUN, "sent", "StreamCancelledError"]


def test_the_end_is_told_once_whoever_closes_again() -> None:
    watch = Watch()

    async def story() -> None:
        exchange = exchange_over(FakeStream([SSE_HEAD + b"1\r\na\r\n"]), watch)
        await exchange.open()
        exchange.close(EventOrderError("wrong", rule="one"))
        exchange.close()
        exchange.finish()

    run(story())
    assert watch.told == [BEGUN, "sent", 200, "EventOrderError"]


def test_an_exchange_that_was_closed_before_it_began_is_not_told() -> None:
    watch = Watch()

    async def story() -> None:
        exchange = exchange_over(Peer(), watch)
        exchange.close()
        with contextlib.suppress(APIError):
            await exchange.open()

    run(story())
    assert watch.told == []


def test_what_the_caller_wanted_has_come_before_the_body_s_end() -> None:
    watch = Watch()

    async def story() -> None:
        exchange = exchange_over(FakeStream([SSE_HEAD + b"1\r\na\r\n"]), watch)
        await exchange.open()
        await exchange.read()
        exchange.finish()

    run(story())
    assert watch.told == [BEGUN, "sent", 200, b"a", "NoneType"]


def test_a_client_tells_of_every_attempt_and_when_it_is_closed() -> None:
    watch = Watch()
    refused = FakeStream([plain(b"", "529 Overloaded")])

    async def story() -> None:
        second = FakeStream([answer(saying("Hi"))])
        async with client_of(refused, second, recorder=watch, max_retries=1) as client:
            await client.messages.create(**ASK)

    run(story())
    words = [word for word in watch.told if not isinstance(word, bytes)]
    assert words == [BEGUN, "sent", 529, "NoneType", BEGUN, "sent", 200, "NoneType", "flush"]


def test_a_stream_whose_events_are_wrong_is_told_with_what_is_wrong() -> None:
    watch = Watch()

    async def story() -> None:
        wrong = [*saying("Hi")[:2], {"type": "message_stop"}, *saying("Hi")[2:]]
        async with client_of(answer(wrong).removesuffix(b"0\r\n\r\n"), recorder=watch) as client:
            with contextlib.suppress(EventOrderError):
                await client.messages.create(**ASK)

    run(story())
    assert watch.told[-2:] == ["EventOrderError", "flush"]


def test_nobody_need_watch() -> None:
    nobody = Unobserved()
    nobody.sent()
    nobody.head(Response(200, "OK", {}, "1.1"))  # type: ignore[arg-type]
    nobody.read(b"")
    nobody.end(None)
    assert [name for name in vars(Unobserved) if not name.startswith("_")] == ["sent", "head", "read", "end"]


# --- As it is --------------------------------------------------------------------------------------------------------


def raw(stream: bytes) -> tuple[int, bytes]:
    """Status and body of an exchange that is to be passed on."""

    async def story() -> tuple[int, bytes]:
        exchange, body = exchange_over(FakeStream([stream]), None, is_raw=True), b""
        response = await exchange.open()
        while data := await exchange.read():
            body += data
        return response.status, body

    return run(story())


@pytest.mark.parametrize("status", ["200 OK", "302 Found", "429 Too Many Requests", "529 Overloaded"])
def test_every_status_is_an_answer_to_who_passes_it_on(status: str) -> None:
    assert raw(plain(b"body", status)) == (int(status[:3]), b"body")


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_no_coding_is_undone_for_who_passes_it_on(coding: str) -> None:
    assert raw(head(content_encoding=coding, content_length="3") + b"\x00\xff.") == (200, b"\x00\xff.")
