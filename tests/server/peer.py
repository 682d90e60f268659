"""A client made of bytes, the server that it talks to, and small apps: what the tests of this folder share.

Everything runs in one loop in virtual time (`support.clock`), which also fails a test that leaves a task or a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from support.clock import run

from rawsse.server import ASGIApp, Message, Receive, Scope, Send, Server

T = TypeVar("T")

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


class Peer:
    """One TCP connection to `server`, with a small receive buffer so that a slow reader is soon felt."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def __aenter__(self) -> Peer:
        sock = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )  # asyncio sets TCP_NODELAY if told TCP
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (self.server.host, self.server.port))
        self.reader, self.writer = await asyncio.open_connection(sock=sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        return await self.reader.read()

    def leave(self, how: str = "FIN") -> None:
        """Go: by FIN, by RST, or by closing only the sending side."""
        if how == "half-close":
            self.writer.write_eof()
        elif how == "FIN":
            self.writer.close()
        else:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class _Bytes(io.BytesIO):
    def makefile(self, _: str) -> _Bytes:
        return self

    def close(self) -> None:
        """`http.client` closes its file after each response; the next one is in here too."""


def read_answers(wire: bytes, methods: Iterable[str] = ("GET",)) -> list[Answer]:
    """What Python's own `http.client` reads from the bytes, which must be just one response per method."""
    source: Any = _Bytes(wire)
    answers = []
    for method in methods:
        response = http.client.HTTPResponse(source, method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        answers.append(Answer(response.status, headers, response.read()))
    assert source.read() == b""
    return answers


def talk(app: ASGIApp, story: Callable[[Peer], Awaitable[T]], **options: Any) -> T:
    """The result of the story of one client of a server that hosts `app`."""

    async def main() -> T:
        async with Server(app, port=0, **options) as server, Peer(server) as peer:
            return await story(peer)

    return run(main())


def ask(app: ASGIApp, request: bytes, **options: Any) -> bytes:
    """All bytes that a client gets who sends `request` and listens until the server closes."""

    async def story(peer: Peer) -> bytes:
        await peer.send(request)
        return await peer.rest()

    return talk(app, story, **options)


def http_only(app: ASGIApp) -> ASGIApp:
    """`app`, without the lifespan call."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    return called


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def answering(*messages: Message) -> ASGIApp:
    """An app that sends these messages whatever it is asked."""

    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


async def read_body(receive: Receive) -> bytes:
    data = bytearray()
    while (message := await receive())["type"] == "http.request":
        data += message["body"]
        if not message["more_body"]:
            return bytes(data)
    raise AssertionError("the client left before its body was whole")


@http_only
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the request's path and body."""
    data = await read_body(receive)
    await send(start())
    await send(body(scope["path"].encode() + b" " + data))
