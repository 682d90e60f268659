"""Answers of an HTTP server as bytes, written by hand after RFC 9112, a client that gets them, and the request that it
wrote."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from rawsse.client.blocking.facade import Facade
from rawsse.client.client import AsyncClient
from rawsse.client.network.connect import Network
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import TLSContext
from rawsse.replay.fakes import FakeLink, FakeStream, fake_links
from support.streams import Raw, to_bytes

__all__ = [
    "ASK",
    "KEY",
    "SSE_HEAD",
    "Connections",
    "Sent",
    "answer",
    "async_of",
    "chunked",
    "client_of",
    "head",
    "plain",
]

T = TypeVar("T")

KEY = "sk-ant-api03-canary-2f8e51"
"""The key that the tests' clients have. It may be found in one header field of what was written, and nowhere else."""

ASK: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}


def head(status: str = "200 OK", **fields: str) -> bytes:
    """The head of a response; underscores in names stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunked(*pieces: bytes) -> bytes:
    """A chunked body of these pieces, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


def plain(body: bytes, status: str = "200 OK", **fields: str) -> bytes:
    """A whole response whose length is told."""
    return head(status, content_length=str(len(body)), **fields) + body


SSE_HEAD = head(content_type="text/event-stream; charset=utf-8", request_id="req_1", transfer_encoding="chunked")


def answer(raws: Iterable[Raw]) -> bytes:
    """A whole response that streams these events, one chunk each."""
    return SSE_HEAD + chunked(*(to_bytes([raw]) for raw in raws))


class Connections:
    """What a client connects to (`connect=`): the given streams, one after the other, and then nothing more."""

    def __init__(self, *streams: FakeStream) -> None:
        self.streams = list(streams)
        self.origins: list[Origin] = []

    def __call__(self, network: Network) -> FakeLink:
        return FakeLink(network, self._connect)

    async def _connect(self, route: Route, tls: TLSContext) -> FakeStream:
        del tls
        self.origins.append(route.origin)
        return self.streams[len(self.origins) - 1]


def client_of(*streams: FakeStream | bytes, **options: Any) -> AsyncClient:
    """A client whose connections are these streams; bytes are one that sends them in one piece and closes. It does not try
    again, unless `max_retries` says so."""
    made = [FakeStream([stream]) if isinstance(stream, bytes) else stream for stream in streams]
    given = {
        "api_key": KEY,
        "base_url": "http://api.example",
        "connect": Connections(*made),
        "max_retries": 0,
        **options,
    }
    connect = given["connect"]
    if inspect.iscoroutinefunction(connect) or inspect.iscoroutinefunction(type(connect).__call__):
        given["connect"] = fake_links(given["connect"])
    return AsyncClient(**given)


def async_of(blocking: object, kind: type[T]) -> T:
    """The async object that a blocking one drives; `kind` is its class. The stub, which type checkers read, hides it."""
    assert isinstance(blocking, Facade)
    assert isinstance(blocking._inner, kind)
    return blocking._inner


class Sent:
    """A request as it was written."""

    def __init__(self, wire: bytes | bytearray) -> None:
        head, _, self.body = bytes(wire).partition(b"\r\n\r\n")
        self.line, *fields = head.decode("latin-1").split("\r\n")
        self.fields = [tuple(field.split(": ", 1)) for field in fields]

    def __getitem__(self, name: str) -> str:
        (value,) = [value for key, value in self.fields if key == name]
        return value

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.fields)

    @property
    def json(self) -> Any:
        return json.loads(self.body)
