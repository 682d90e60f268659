"""rawsse.replay.proxy: between a client and an upstream on real sockets, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.answers import ASK, KEY, chunked, head, plain
from support.clock import run, ticks
from support.reading import read_body
from support.sockets import Handler, serving

from rawsse.client.client import AsyncClient
from rawsse.errors import ConfigurationError, StreamTruncatedError
from rawsse.replay import Read, Recorder, Recording, RecordingProxy, ReplayServer, shipped_fixtures
from rawsse.server import Server

FIXTURES = shipped_fixtures()
TOOLS = FIXTURES["tools"]
BODY = b'{ "model":"m" , "stream": true }'
POST = b"POST /v1/messages HTTP/1.1\r\nhost: proxy.example\r\ncontent-length: 32\r\n\r\n" + BODY
EVENTS = head(content_type="text/event-stream", transfer_encoding="chunked")

Message = dict[str, Any]


class Upstream:
    """A handler that answers every request on a connection with the same bytes, and keeps the requests."""

    def __init__(self, answer: bytes, *, closes: bool = False) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._closes = closes

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            length = request.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            self.requests.append(request + await reader.readexactly(int(length or 0)))
            writer.write(self._answer)
            await writer.drain()
            if self._closes:
                return


@contextlib.asynccontextmanager
async def proxied(handler: Handler, folder: Path, prefix: str = "", **limits: Any) -> AsyncIterator[Server]:
    """A proxy before the handler, that records into the folder."""
    async with (
        serving(handler) as origin,
        Recorder(folder) as recorder,
        RecordingProxy(recorder, f"{origin}{prefix}") as proxy,
        Server(proxy, port=0, **limits) as server,
    ):
        yield server


async def said_to(server: Server, wire: bytes = POST) -> bytes:
    """All that a client gets that sends this, says that it has no more to ask, and reads until the connection ends."""
    wire = wire.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(wire)
    try:
        return await reader.read()
    finally:
        writer.transport.abort()


def exchanged(upstream: Handler, folder: Path, wire: bytes = POST, prefix: str = "") -> bytes:
    """What a client gets from `upstream` through the proxy."""

    async def story() -> bytes:
        async with proxied(upstream, folder, prefix) as server:
            return await said_to(server, wire)

    return run(story())


def recordings_in(folder: Path) -> list[Recording]:
    return [Recording.load(path) for path in sorted(folder.iterdir())]


# --- record(replay(x)) == x ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cut", "tools", "error-after-content"])
def test_a_recording_of_a_replay_is_what_was_replayed(name: str, tmp_path: Path) -> None:
    fixture = FIXTURES[name]
    assert fixture.request is not None
    body = fixture.request.body

    async def story() -> bytes:
        async with (
            ReplayServer(fixture, speed=1) as upstream,
            Recorder(tmp_path) as recorder,
            RecordingProxy(recorder, upstream.base_url) as proxy,
            Server(proxy, port=0) as server,
            AsyncClient(api_key=KEY, base_url=server.base_url, max_retries=0) as client,
        ):
            return await read_body(client, body)

    assert run(story()) == fixture.body
    (found,) = recordings_in(tmp_path)
    assert replace(found, request=None, headers={}) == replace(fixture, request=None, headers={})
    assert found.headers.items() >= fixture.headers.items()
    assert found.request is not None
    assert (found.request.path, found.request.body) == ("/v1/messages", body)


# --- What is passed on -----------------------------------------------------------------------------------------------


def asked(upstream: Upstream) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The request line, fields and body that the upstream got."""
    (request,) = upstream.requests
    top, _, body = request.partition(b"\r\n\r\n")
    line, *fields = top.split(b"\r\n")
    return line, dict(field.split(b": ", 1) for field in fields), body


def test_the_request_goes_on_as_it_came_credentials_and_all(tmp_path: Path) -> None:
    upstream = Upstream(plain(b"{}"))
    fields = b"x-api-key: k\r\nauthorization: Bearer t\r\nanthropic-beta: a,b\r\nx-mine: 1\r\ncookie: c=d\r\n"
    exchanged(upstream, tmp_path, POST.replace(b"content-length", fields + b"content-length"))
    _, got, body = asked(upstream)
    assert body == BODY
    sent = dict(field.split(b": ") for field in fields.split(b"\r\n")[:-1])
    assert got.items() >= sent.items()


def test_requests_one_after_the_other_share_a_connection_to_the_upstream(tmp_path: Path) -> None:
    connections: list[int] = []  # how many requests each had

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        while await reader.readuntil(BODY):
            connections[-1] += 1
            for piece in (plain(b"{}")[:-1], b"}"):
                writer.write(piece)
                await asyncio.sleep(1)

    async def story() -> None:
        async with proxied(slow, tmp_path) as server:
            for _ in range(2):
                assert (await said_to(server)).endswith(b"{}")

    run(story())
    assert connections == [2]


def test_what_concerns_one_connection_stays_there(tmp_path: Path) -> None:
    upstream = Upstream(plain(b"{}"))
    fields = b"te: trailers\r\nkeep-alive: timeout=5\r\nconnection: x-hop\r\nx-hop: 1\r\nexpect: 100-continue\r\nx-mine: 1\r\n"
    exchanged(upstream, tmp_path, POST.replace(b"content-length", fields + b"content-length"))
    _, got, _ = asked(upstream)
    assert set(got) == {b"host", b"content-length", b"x-mine", b"accept-encoding"}
    assert got[b"host"].startswith(b"127.0.0.1:")


def test_the_upstream_is_asked_not_to_compress(tmp_path: Path) -> None:
    upstream = Upstream(plain(b"{}"))
    exchanged(upstream, tmp_path, POST.replace(b"content-length", b"accept-encoding: gzip, br\r\ncontent-length"))
    assert asked(upstream)[1][b"accept-encoding"] == b"identity"


@pytest.mark.parametrize(
    ("target", "prefix", "line"),
    [
        (b"/v1/messages?beta=true", "", b"POST /v1/messages?beta=true HTTP/1.1"),
        (b"/v1/messages", "/gateway/anthropic", b"POST /gateway/anthropic/v1/messages HTTP/1.1"),
        (b"/v1/files/a%2Fb%20c", "", b"POST /v1/files/a%2Fb%20c HTTP/1.1"),
    ],
)
def test_path_and_query_stay_as_they_are_behind_the_path_of_the_base_url(
    target: bytes, prefix: str, line: bytes, tmp_path: Path
) -> None:
    upstream = Upstream(plain(b"{}"))
    exchanged(upstream, tmp_path, POST.replace(b"/v1/messages", target), prefix)
    assert asked(upstream)[0] == line


def test_a_request_without_a_body_goes_on_without_one(tmp_path: Path) -> None:
    upstream = Upstream(plain(b'{"data":[]}'))
    got = exchanged(upstream, tmp_path, b"GET /v1/models?limit=1 HTTP/1.1\r\nhost: h\r\n\r\n")
    assert asked(upstream)[0] == b"GET /v1/models?limit=1 HTTP/1.1"
    assert got.endswith(b'\r\n\r\n{"data":[]}')


def test_only_requests_for_a_message_are_recorded(tmp_path: Path) -> None:
    exchanged(Upstream(plain(b"{}")), tmp_path, POST.replace(b"/v1/messages", b"/v1/messages/count_tokens"))
    assert recordings_in(tmp_path) == []


# --- What comes back -------------------------------------------------------------------------------------------------


def test_status_and_fields_come_back_as_they_are_but_those_of_the_connection(tmp_path: Path) -> None:
    wire = head("529 Overloaded", x_mine="1", retry_after="7", keep_alive="timeout=5", content_length="2", date="today")
    got = exchanged(
        Upstream(wire.replace(b"x-mine", b"set-cookie: a=1\r\nset-cookie: b=2\r\nx-mine") + b"{}"), tmp_path
    )
    top, _, body = got.partition(b"\r\n\r\n")
    line, *fields = top.split(b"\r\n")
    assert line == b"HTTP/1.1 529 Overloaded"
    assert sorted(fields) == sorted(
        [
            b"set-cookie: a=1",
            b"set-cookie: b=2",
            b"x-mine: 1",
            b"retry-after: 7",
            b"date: today",
            b"content-length: 2",
            b"connection: close",
        ]
    )
    assert body == b"{}"
    assert [(found.status, found.body) for found in recordings_in(tmp_path)] == [(529, b"{}")]


def test_what_was_compressed_all_the_same_goes_through_and_is_recorded_as_text(tmp_path: Path) -> None:
    body = gzip.compress(TOOLS.body)
    fields = {"content_type": "text/event-stream", "content_encoding": "gzip", "content_length": str(len(body))}
    got = exchanged(Upstream(head(**fields) + body), tmp_path)
    assert b"\r\ncontent-encoding: gzip\r\n" in got
    assert got.endswith(b"\r\n\r\n" + body)
    assert [found.body for found in recordings_in(tmp_path)] == [TOOLS.body]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", head(content_length="5")),
        (b"POST", head("204 No Content")),
        (b"GET", head("304 Not Modified", etag='"a"')),
    ],
)
def test_an_answer_without_a_body_has_none(method: bytes, answer: bytes, tmp_path: Path) -> None:
    got = exchanged(Upstream(answer), tmp_path, method + b" / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n")
    assert got.startswith(answer.partition(b"\r\n")[0])
    assert got.endswith(b"\r\n\r\n")
    assert got.count(b"\r\n\r\n") == 1


def test_the_head_comes_before_the_body_does(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(EVENTS)
        await reader.read()

    async def story() -> bytes:
        async with proxied(silent, tmp_path) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(POST)
            got = await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            return got

    assert run(story()).startswith(b"HTTP/1.1 200 OK\r\n")


def test_each_read_comes_when_it_has_come(tmp_path: Path) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(EVENTS)
        for piece in (b"5\r\nhello\r\n", b"5\r\nworld\r\n", b"0\r\n\r\n"):
            await asyncio.sleep(7)
            writer.write(piece)

    async def story() -> list[tuple[float, bytes]]:
        async with proxied(slow, tmp_path) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(POST)
            start, got = asyncio.get_running_loop().time(), []
            await reader.readuntil(b"\r\n\r\n")
            for end in (b"hello\r\n", b"world\r\n"):
                piece = await reader.readuntil(end)
                got.append((round(asyncio.get_running_loop().time() - start, 3), piece))
            await reader.readuntil(b"0\r\n\r\n")
            writer.transport.abort()
            return got

    assert run(story()) == [(7.0, b"5\r\nhello\r\n"), (14.0, b"5\r\nworld\r\n")]
    assert recordings_in(tmp_path)[0].reads == (Read(7.0, b"hello"), Read(14.0, b"world"))


def test_a_client_that_takes_nothing_slows_the_upstream_down(tmp_path: Path) -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(BODY)
        writer.write(head(content_type="text/event-stream"))
        while True:
            writer.write(b": so much\n" * 10_000)
            await writer.drain()
            written += 100_000

    async def story() -> int:
        async with (
            serving(flood) as origin,
            Recorder(tmp_path, max_bytes=1000) as recorder,
            RecordingProxy(recorder, f"{origin}") as proxy,
            Server(proxy, port=0) as server,
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1000)
            writer.write(POST)
            await asyncio.sleep(30)
            before = written
            await asyncio.sleep(20)
            assert written == before
            writer.transport.abort()
            await ticks(20)
            return before

    assert 0 < run(story()) < 40_000_000  # what the system's own buffers hold of two connections


# --- Leaving and breaking --------------------------------------------------------------------------------------------


def test_a_client_that_leaves_ends_the_exchange_with_the_upstream(tmp_path: Path) -> None:
    left: list[float] = []

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(EVENTS + b"5\r\nhello\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.append(asyncio.get_running_loop().time())

    async def story() -> float:
        async with proxied(endless, tmp_path) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(POST)
            await reader.readuntil(b"hello\r\n")
            await asyncio.sleep(3)
            now = asyncio.get_running_loop().time()
            writer.close()
            await asyncio.sleep(1)
            return now

    now = run(story())
    assert left == [pytest.approx(now, abs=0.001)]
    assert [(found.end, found.body, found.duration) for found in recordings_in(tmp_path)] == [
        ("client_closed", b"hello", 3.0)
    ]


def test_a_client_that_leaves_before_the_head_leaves_nothing(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async def story() -> None:
        async with proxied(silent, tmp_path) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(POST)
            await asyncio.sleep(1)
            writer.close()
            await asyncio.sleep(1)

    run(story())
    assert recordings_in(tmp_path) == []


def test_who_leaves_at_message_stop_has_a_clean_recording(tmp_path: Path) -> None:
    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(EVENTS + chunked(TOOLS.body).removesuffix(b"0\r\n\r\n"))
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async def story() -> None:
        async with proxied(held, tmp_path) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(POST)
            await reader.readuntil(b'"message_stop"')
            writer.close()
            await asyncio.sleep(1)

    run(story())
    assert [(found.end, found.body) for found in recordings_in(tmp_path)] == [("clean", TOOLS.body)]


@pytest.mark.parametrize(
    "answer",
    [
        EVENTS + b"5\r\nhello\r\n",
        EVENTS + b"5\r\nhello\r\nno chunk\r\n",
        head(content_type="text/event-stream", content_length="9") + b"hello",
    ],
    ids=["chunked", "broken", "length"],
)
def test_what_the_upstream_breaks_off_is_broken_off_and_recorded_as_cut(
    answer: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    got = exchanged(Upstream(answer, closes=True), tmp_path)
    assert got.partition(b"\r\n\r\n")[2] in (b"5\r\nhello\r\n", b"hello")
    assert [(found.end, found.body) for found in recordings_in(tmp_path)] == [("cut", b"hello")]
    assert caplog.messages == []


def test_the_client_s_own_library_sees_the_cut(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            ReplayServer(FIXTURES["cut"]) as upstream,
            Recorder(tmp_path) as recorder,
            RecordingProxy(recorder, upstream.base_url) as proxy,
            Server(proxy, port=0) as server,
            AsyncClient(api_key=KEY, base_url=server.base_url, max_retries=0) as client,
        ):
            await client.messages.create(**ASK)

    with pytest.raises(StreamTruncatedError):
        run(story())


def test_an_upstream_that_gives_no_answer_is_a_502_that_names_it(tmp_path: Path) -> None:
    async def story() -> tuple[str, bytes]:
        async with (
            serving(Upstream(b"", closes=True)) as origin,
            Recorder(tmp_path) as recorder,
            RecordingProxy(recorder, f"{origin}") as proxy,
            Server(proxy, port=0) as server,
        ):
            return f"{origin}", await said_to(server)

    origin, got = run(story())
    top, _, body = got.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"content-type: application/json" in top
    error = json.loads(body)["error"]
    host = origin.removeprefix("http://")
    words = f"no answer from {origin}: {host} closed the connection without an answer"
    assert error == {"type": "api_error", "message": words}
    assert recordings_in(tmp_path) == []


def test_a_connection_that_died_while_it_rested_costs_no_request(tmp_path: Path) -> None:
    accepted = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.readuntil(BODY)
        writer.write(plain(b"{}"))
        await reader.read(1)  # until the next request begins, which gets no answer, or the proxy has gone
        writer.transport.abort()

    async def story() -> list[bytes]:
        async with proxied(once, tmp_path) as server:
            return [(await said_to(server))[:15] for _ in range(2)]

    assert run(story()) == [b"HTTP/1.1 200 OK"] * 2
    assert accepted == 2
    assert [found.body for found in recordings_in(tmp_path)] == [b"{}", b"{}"]


def test_what_cannot_be_passed_on_is_told(tmp_path: Path) -> None:
    async def story() -> list[Message]:
        async with Recorder(tmp_path) as recorder, RecordingProxy(recorder, "http://127.0.0.1:9") as proxy:
            proxy._proxies = FailingProxies()  # type: ignore[assignment]
            return (await Call(proxy).made()).sent

    start, body = run(story())
    assert start["status"] == 400
    assert json.loads(body["body"])["error"]["message"] == "the request cannot be passed on: HTTP_PROXY is wrong"


class FailingProxies:
    def route_to(self, _: object) -> None:
        raise ConfigurationError("HTTP_PROXY is wrong")


# --- As an ASGI application ------------------------------------------------------------------------------------------


class Call:
    """One call of the application under a server that is not ours."""

    def __init__(self, app: RecordingProxy, *incoming: Message, **scope: Any) -> None:
        self.sent: list[Message] = []
        self._app = app
        self._incoming = list(incoming or [{"type": "http.request", "body": BODY}])
        headers = [(b"content-type", b"application/json")]
        self._scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": headers, **scope}

    async def receive(self) -> Message:
        if self._incoming:
            return self._incoming.pop(0)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nothing comes any more")

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def made(self) -> Call:
        await self._app(self._scope, self.receive, self.send)
        return self


def called(upstream: Handler, folder: Path, *incoming: Message, **options: Any) -> list[Message]:
    scope = options.pop("scope", {})

    async def story() -> list[Message]:
        async with (
            serving(upstream) as origin,
            Recorder(folder) as recorder,
            RecordingProxy(recorder, f"{origin}", **options) as proxy,
        ):
            return (await Call(proxy, *incoming, **scope).made()).sent

    return run(story())


def test_under_another_server_a_cut_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(ConnectionAbortedError, match="the upstream broke off here, and so does the proxy"):
        called(Upstream(EVENTS + b"5\r\nhello\r\n", closes=True), tmp_path)


def test_a_path_without_its_raw_form_is_encoded_again(tmp_path: Path) -> None:
    upstream = Upstream(plain(b"{}"))
    called(upstream, tmp_path, scope={"path": "/app/v1/files/a b", "root_path": "/app", "query_string": b"x=%20"})
    assert asked(upstream)[0] == b"POST /v1/files/a%20b?x=%20 HTTP/1.1"


def test_a_request_may_come_in_pieces(tmp_path: Path) -> None:
    upstream = Upstream(plain(b"{}"))
    pieces: list[Message] = [
        {"type": "http.request", "body": b"12", "more_body": True},
        {"type": "http.request", "body": b"34"},
    ]
    called(upstream, tmp_path, *pieces, max_body_bytes=4)
    assert asked(upstream)[2] == b"1234"


def test_what_a_server_tells_beside_that_the_client_has_left_is_not_listened_to(tmp_path: Path) -> None:
    more: list[Message] = [{"type": "http.request", "body": BODY}, {"type": "http.request", "body": b""}]
    sent = called(Upstream(plain(b"{}")), tmp_path, *more)
    assert [message.get("body") for message in sent] == [None, b"", b"{}", b""]


def test_a_body_that_is_too_large_is_not_passed_on(tmp_path: Path) -> None:
    upstream = Upstream(plain(b"{}"))
    start, body = called(upstream, tmp_path, {"type": "http.request", "body": b"12345"}, max_body_bytes=4)
    assert (start["status"], upstream.requests) == (413, [])
    assert json.loads(body["body"])["error"] == {
        "type": "request_too_large",
        "message": "the request's body is larger than max_body_bytes (4)",
    }


def test_a_client_that_left_while_it_asked_is_not_asked_for(tmp_path: Path) -> None:
    upstream = Upstream(plain(b"{}"))
    half: Message = {"type": "http.request", "body": b"12", "more_body": True}
    assert called(upstream, tmp_path, half, {"type": "http.disconnect"}) == []
    assert upstream.requests == []


def test_it_speaks_http_only(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="passes HTTP on, not websocket"):
        called(Upstream(b""), tmp_path, scope={"type": "websocket"})


def test_closing_it_ends_what_is_under_way(tmp_path: Path) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(EVENTS + b"5\r\nhello\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()

    async def story() -> list[Message]:
        async with serving(endless) as origin, Recorder(tmp_path) as recorder:
            proxy = RecordingProxy(recorder, f"{origin}")
            call = Call(proxy)
            task = asyncio.create_task(call.made())
            await asyncio.sleep(1)
            await proxy.aclose()
            with contextlib.suppress(ConnectionAbortedError):
                await task
            return call.sent

    assert [message.get("body") for message in run(story())] == [None, b"", b"hello"]
    assert [found.end for found in recordings_in(tmp_path)] == ["client_closed"]


def test_it_goes_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Recorder(tmp_path)) as recorder:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://gateway.example/a/")
        assert RecordingProxy(recorder).base_url == "http://gateway.example/a/"
        monkeypatch.delenv("ANTHROPIC_BASE_URL")
        assert RecordingProxy(recorder).base_url == "https://api.anthropic.com"
        assert RecordingProxy(recorder, "http://other.example").base_url == "http://other.example"
        with pytest.raises(ConfigurationError, match="must begin with http"):
            RecordingProxy(recorder, "ftp://example.org")
