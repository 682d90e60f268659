"""rawsse.relay.app under real servers and over real sockets: ours, and other people's where they are installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from support.streams import ANSWER, block_start, start, text_delta, to_bytes

from rawsse.http1 import ClientConnection, Data, EndOfMessage, Response
from rawsse.relay import RunLimits
from rawsse.server import Server

from .stage import CHAT, WHOLE, Api, Stage, frames

MESSAGES = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
PATIENCE = 10.0

App = Any


class Host:
    """Serves an app on `address`. `leave` ends it, gracefully."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.leave = asyncio.Event()


def listen() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def ours(app: App) -> AsyncIterator[Host]:
    async with Server(app, port=0, max_buffered_bytes=16 * 1024) as server:
        host = Host(("127.0.0.1", server.port))
        yield host


@asynccontextmanager
async def uvicorns(app: App) -> AsyncIterator[Host]:
    uvicorn = pytest.importorskip("uvicorn", reason="a server that is not ours: the interop extra")

    up = asyncio.Event()

    class Quiet(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            up.set()

        @contextlib.contextmanager
        def capture_signals(self) -> Any:  # the test's process keeps its own handlers
            yield

    config = uvicorn.Config(app, http="h11", ws="none", lifespan="on", log_config=None, timeout_graceful_shutdown=2)
    server, sock = Quiet(config), listen()
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await asyncio.wait_for(up.wait(), PATIENCE)
        yield Host(sock.getsockname())
    finally:
        server.should_exit = True
        await task
        sock.close()


@asynccontextmanager
async def hypercorns(app: App) -> AsyncIterator[Host]:
    reason = "a server that is not ours; nothing else of it is needed"
    serve = pytest.importorskip("hypercorn.asyncio", reason=reason).serve
    config, sock = pytest.importorskip("hypercorn.config", reason=reason).Config(), listen()
    config.bind, config.graceful_timeout = [f"fd://{sock.fileno()}"], 2
    host = Host(sock.getsockname())
    task = asyncio.create_task(serve(app, config, shutdown_trigger=host.leave.wait))
    try:
        yield host
    finally:
        host.leave.set()
        await task
        with contextlib.suppress(OSError):  # hypercorn has closed the descriptor, which was ours
            sock.close()


Open = Callable[[App], AbstractAsyncContextManager[Host]]
HOSTS = [
    pytest.param(ours, id="rawsse.server"),
    pytest.param(uvicorns, id="uvicorn", marks=pytest.mark.real),
    pytest.param(hypercorns, id="hypercorn", marks=pytest.mark.real),
]


class Client:
    """One connection. `ask` sends a request; `head`, `read` and `rest` read the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = ClientConnection("localhost")

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields += [("content-type", "application/json")] if data and "content_type" not in headers else []
        self._writer.write(self._http.send_request(method, path, fields, data))
        head = await self._event()
        assert isinstance(head, Response)
        return head

    async def read(self) -> bytes:
        """The next piece of the body; `b""` at its end."""
        event = await self._event()
        return event.data if isinstance(event, Data) else b""

    async def rest(self) -> bytes:
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    def again(self) -> None:
        """The next request on this connection."""
        self._http.start_next_cycle()

    def leave(self) -> None:
        self._writer.transport.abort()

    async def _event(self) -> Response | Data | EndOfMessage:
        while (event := self._http.next_event()) is None:
            self._http.receive_data(await asyncio.wait_for(self._reader.read(65536), PATIENCE))
        return event


@asynccontextmanager
async def connected(host: Host) -> AsyncIterator[Client]:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, host.address)
    reader, writer = await asyncio.open_connection(sock=sock, limit=16 * 1024)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        client.leave()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def nothing_more(count: Callable[[], int]) -> None:
    """Wait until the loop goes round for long and counts no further. Nobody tells of what does not happen."""
    quiet, before = 0, -1
    while quiet < 1000:
        quiet, before = (quiet + 1 if count() == before else 0), count()
        await asyncio.sleep(0)


def play(
    open_host: Open,
    story: Callable[[Stage, Host], Coroutine[Any, Any, None]],
    *script: bytes,
    wrap: Callable[[App], App] = lambda app: app,
    **options: Any,
) -> None:
    async def inner() -> None:
        stage = Stage(*script, **options)
        async with open_host(wrap(stage.relay)) as host:
            try:
                await story(stage, host)
            finally:
                await stage.relay.aclose()

    asyncio.run(inner())


async def begun(stage: Stage, client: Client, path: str = "/stream", body: Any = CHAT) -> tuple[Response, Api]:
    """An answer that has begun with a text."""
    asking = asyncio.create_task(client.ask("POST", path, body))
    api = await stage.call()
    api.send(start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hi"))
    head = await asking
    await client.read()
    return head, api


@pytest.fixture(autouse=True)
def nothing_is_complained_about(caplog: pytest.LogCaptureFixture) -> Any:
    """The servers say when an app breaks their rules."""
    yield
    complaints = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert complaints == []


# --- Answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_host", HOSTS)
def test_one_connection_carries_stream_after_stream(open_host: Open) -> None:
    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            for _ in range(2):
                head = await client.ask("POST", "/stream", CHAT)
                assert (head.status, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
                assert [frame.data for frame in frames(await client.rest())][-1] == "[DONE]"
                client.again()
            await client.ask("POST", "/v1/messages", MESSAGES)
            assert await client.rest() == to_bytes(ANSWER)
        assert len(stage.calls) == 3

    play(open_host, story, WHOLE, WHOLE, WHOLE)


@pytest.mark.parametrize("open_host", HOSTS)
def test_answers_without_a_body_leave_the_connection_as_it_was(open_host: Open) -> None:
    async def story(_: Stage, host: Host) -> None:
        async with connected(host) as client:
            for method, path, status in (
                ("HEAD", "/", 200),
                ("HEAD", "/nothing", 404),
                ("OPTIONS", "/stream", 204),
                ("GET", "/api/chat/unknown/stream", 204),
                ("PUT", "/stream", 405),
                ("GET", "/healthz", 200),
            ):
                head = await client.ask(method, path)
                body = await client.rest()
                assert (method, path, head.status) == (method, path, status)
                assert (body == b"") is (method == "HEAD" or status == 204)
                client.again()

    play(open_host, story)


@pytest.mark.parametrize("open_host", HOSTS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [({"content_type": "text/plain"}, 415), ({"origin": "https://evil.example"}, 403), ({"x_run_id": "short"}, 400)],
)
def test_a_request_is_refused_before_or_after_its_body_was_read(
    open_host: Open, headers: dict[str, str], status: int
) -> None:
    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            head = await client.ask("POST", "/stream", json.dumps(CHAT).encode(), **headers)
            assert (head.status, b'"error"' in await client.rest()) == (status, True)
        assert stage.calls == []

    play(open_host, story)


@pytest.mark.parametrize("open_host", HOSTS)
def test_a_body_that_is_too_large_is_refused(open_host: Open) -> None:
    async def story(_: Stage, host: Host) -> None:
        async with connected(host) as client:
            head = await client.ask("POST", "/stream", b" " * 200_000)
            assert (head.status, b'"field":"body"' in await client.rest()) == (413, True)

    play(open_host, story, max_chat_bytes=1000)


@pytest.mark.parametrize("open_host", HOSTS)
@pytest.mark.parametrize("written", ["a%2Fb%20%C3%A4", "50%2525", "%2541"])
def test_a_chat_is_found_by_its_encoded_id(open_host: Open, written: str) -> None:
    chat = {"a%2Fb%20%C3%A4": "a/b \u00e4", "50%2525": "50%25", "%2541": "%41"}[written]

    async def story(stage: Stage, host: Host) -> None:
        body = {"id": chat, "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
        async with connected(host) as client, connected(host) as other:
            await begun(stage, client, "/api/chat", body)
            assert (await other.ask("GET", f"/api/chat/{written}/stream")).status == 200

    play(open_host, story, limits=RunLimits(grace_seconds=0))


@pytest.mark.parametrize("open_host", HOSTS)
def test_nothing_outside_the_page_is_served_however_it_is_written(open_host: Open) -> None:
    async def story(_: Stage, host: Host) -> None:
        for path in ("/../cli.py", "/%2e%2e/cli.py", "/..%2fcli.py", "/%252e%252e/cli.py", "/..%5ccli.py", "/a%00b"):
            async with connected(host) as client:
                assert (await client.ask("GET", path)).status == 404, path

    play(open_host, story)


# --- Leaving, and not reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_host", HOSTS)
@pytest.mark.parametrize(("path", "body"), [("/stream", CHAT), ("/v1/messages", MESSAGES)])
@pytest.mark.parametrize("has_begun", [False, True])
def test_when_the_client_goes_the_call_to_the_api_ends(
    open_host: Open, path: str, body: Any, *, has_begun: bool
) -> None:
    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            if has_begun:
                _, api = await begun(stage, client, path, body)
            else:
                asking = asyncio.create_task(client.ask("POST", path, body))
                api = await stage.call()
                asking.cancel()
            client.leave()
            await asyncio.wait_for(api.closed.wait(), PATIENCE)

    play(open_host, story, limits=RunLimits(grace_seconds=0))


@pytest.mark.parametrize("open_host", HOSTS)
def test_a_client_that_does_not_read_stops_the_api_and_going_frees_all(open_host: Open) -> None:
    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            _, api = await begun(stage, client, "/v1/messages", MESSAGES)
            api.flood = to_bytes([text_delta(0, "x" * 1000)])
            api.send(text_delta(0, "more"))
            async with asyncio.timeout(PATIENCE):
                await nothing_more(lambda: api.reads)  # first the buffers of the system are filled
            assert api.reads > 90
            client.leave()
            await asyncio.wait_for(api.closed.wait(), PATIENCE)

    play(open_host, story, limits=RunLimits(max_unread_bytes=100_000))


# --- The end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_host", HOSTS)
def test_at_the_end_of_the_relay_its_streams_end_properly(open_host: Open) -> None:
    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            _, api = await begun(stage, client)
            await stage.relay.aclose()
            rest = await client.rest()  # raises if the body is not whole
            assert b"the server is shutting down" in rest
            assert b"retry: 2000" in rest
            assert api.is_closed

    play(open_host, story)


def test_our_server_tells_the_relay_at_its_end() -> None:
    async def inner() -> None:
        stage = Stage()
        server = Server(stage.relay, port=0, on_shutdown=stage.relay.aclose)
        async with server, connected(Host(("127.0.0.1", server.port))) as client:
            _, api = await begun(stage, client)
            await server.shutdown()
            assert b"the server is shutting down" in await client.rest()
            assert api.is_closed

    asyncio.run(inner())


# --- Mounted in somebody else's application ----------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("open_host", HOSTS)
def test_it_can_be_mounted(open_host: Open) -> None:
    applications = pytest.importorskip("starlette.applications", reason="an application that is not ours")
    routing = pytest.importorskip("starlette.routing", reason="an application that is not ours")

    def mounted(app: App) -> App:
        return applications.Starlette(routes=[routing.Mount("/claude", app=app)])

    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            head, api = await begun(stage, client, "/claude/stream")
            api.send(*ANSWER[-2:])
            assert b"[DONE]" in await client.rest()
            client.again()
            await client.ask("GET", f"/claude/runs/{head.headers['x-run-id']}")
            assert b"[DONE]" in await client.rest()
            client.again()
            assert (await client.ask("GET", "/claude/")).status == 200

    play(open_host, story, wrap=mounted)


@pytest.mark.real
@pytest.mark.parametrize("open_host", HOSTS)
def test_behind_a_middleware_that_takes_its_messages_apart_a_leaving_client_is_still_seen(open_host: Open) -> None:
    applications = pytest.importorskip("starlette.applications", reason="an application that is not ours")
    base = pytest.importorskip("starlette.middleware.base", reason="an application that is not ours")
    routing = pytest.importorskip("starlette.routing", reason="an application that is not ours")

    async def touch(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-touched"] = "yes"
        return response

    def wrapped(app: App) -> App:
        outer = applications.Starlette(routes=[routing.Mount("/", app=app)])
        outer.add_middleware(base.BaseHTTPMiddleware, dispatch=touch)
        return outer

    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            head, api = await begun(stage, client)
            assert head.headers["x-touched"] == "yes"
            client.leave()
            await asyncio.wait_for(api.closed.wait(), PATIENCE)

    play(open_host, story, wrap=wrapped, limits=RunLimits(grace_seconds=0))


@pytest.mark.parametrize("open_host", HOSTS)
@pytest.mark.parametrize("path", ["/stream", "/v1/messages"])
def test_a_client_that_left_while_the_embedder_was_asked_starts_no_call(open_host: Open, path: str) -> None:
    asked, answers, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def on_request(request: dict[str, Any], user: Any) -> None:
        asked.set()
        await answers.wait()

    def wrap(app: App) -> App:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:
                if scope["type"] == "http":
                    over.set()

        return outer

    async def story(stage: Stage, host: Host) -> None:
        async with connected(host) as client:
            body = json.dumps({**CHAT, **MESSAGES} if path == "/v1/messages" else CHAT).encode()
            asking = asyncio.create_task(client.ask("POST", path, body))
            await asyncio.wait_for(asked.wait(), PATIENCE)
            client.leave()
            await asyncio.gather(asking, return_exceptions=True)
        await nothing_more(lambda: len(stage.calls))
        answers.set()
        await asyncio.wait_for(over.wait(), PATIENCE)
        assert stage.calls == []

    play(open_host, story, wrap=wrap, on_request=on_request)
