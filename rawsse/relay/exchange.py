"""One HTTP exchange over ASGI (https://asgi.readthedocs.io): the client's request and the answer.

    exchange = Exchange(scope, receive, send, guard)
    request = await exchange.read_json(read, max_bytes)      # raises InvalidRequest
    await exchange.send_whole(200, [("content-type", "text/plain")], b"ok")
    raise Answer(404, "not_found_error", "there is nothing here")       # anywhere in a route; its caller sends it

Bodies are JSON, and errors have the Messages API's form. Pages from other origins get the CORS header fields.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import parse_qs

from rawsse.http1 import Headers
from rawsse.messages.lens import parse_json
from rawsse.relay.dialects import Answer, InvalidRequest, compact
from rawsse.relay.guard import Guard
from rawsse.server import Message, Outlet, Receive, Scope, Send
from rawsse.server.asgi import unless_gone

MAX_NESTING = 200
"""Nesting levels in a body. Requests have about ten, tool schemas some more. Above a thousand, Python may parse a body that
it cannot serialize."""

MAX_VALUES = 1_000_000
"""Values in a body, counted as its opening brackets and commas, including those inside texts. The API's largest requests
(100,000 messages, a million tokens) have fewer; 32 MB of `{},` would be eleven million objects and take a GiB."""

THREAD_BYTES = 1024 * 1024
"""A larger body is parsed in a thread, so that it does not block the event loop."""

WRITE_SECONDS = 60.0
"""How long another server's `send` may wait for a client that reads nothing, since the run waits with it. nginx: 60."""

_CONTAINERS = frozenset((dict, list))

T = TypeVar("T")

_EXPOSED = ("access-control-expose-headers", "x-run-id, request-id, retry-after, ratelimit, ratelimit-policy")
JSON = ("content-type", "application/json")
TEXT = ("content-type", "text/plain; charset=utf-8")


class Exchange:
    """One request and its answer."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, guard: Guard, *, write_seconds: float = WRITE_SECONDS
    ) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self._guard = guard
        self._write_seconds = write_seconds
        self.more_fields: list[tuple[str, str]] = []
        """Header fields of every answer."""
        self.method: str = scope["method"]
        self.path = _path_within(scope.get("root_path", ""), scope["path"])
        self.query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        self.headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])

    # The request ---------------------------------------------------------------------------------------------------

    async def read_json(self, read: Callable[[dict[str, Any]], T], max_bytes: int) -> T:
        """The result of `read` for the body, which must be a JSON object. `read` may be called in a thread.

        Raises `InvalidRequest`, as `read` may, and `ConnectionError` if the client disconnects.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Security: a page from another origin may send other types without a preflight (CORS, "simple requests").
            raise InvalidRequest("content-type", "must be application/json", 415)
        data = await self._read_body(max_bytes)
        return await asyncio.to_thread(_read, data, read) if len(data) > THREAD_BYTES else _read(data, read)

    async def _read_body(self, max_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = values = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client disconnected while sending its request")
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            values += piece.count(b"{") + piece.count(b"[") + piece.count(b",")
            if size > max_bytes:
                raise InvalidRequest("body", f"is larger than {max_bytes} bytes", 413)
            if values > MAX_VALUES:
                raise InvalidRequest("body", f"has more than {MAX_VALUES} values", 413)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def read_flag(self, name: str) -> bool:
        """A boolean query parameter; `1`, `true` and no value mean true. Raises `InvalidRequest`."""
        value = self.query.get(name, ["0"])[0]
        if value not in ("", "1", "true", "0", "false"):
            raise InvalidRequest(name, "must be 1 or true, 0 or false")
        return value in ("", "1", "true")

    async def check_client(self) -> None:
        """Raises `ConnectionError` if the client has disconnected. Call it after the body has been read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                while (await self.receive())["type"] != "http.disconnect":
                    pass
            raise ConnectionResetError("the client disconnected before its request was forwarded")

    # The answer ----------------------------------------------------------------------------------------------------

    def fields(self, headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
        """Header fields in ASGI's form, with `more_fields` and those of CORS."""
        if self.more_fields:  # rate limits: the user's own replace the operator's
            headers = [field for field in headers if not field[0].startswith("anthropic-ratelimit")]
        fields = [*headers, *self.more_fields]
        if (origin := self._guard.allow_origin(self.headers)) is not None:
            fields += [("access-control-allow-origin", origin), ("vary", "origin"), _EXPOSED]
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]

    def outlet(self) -> Outlet:
        """The outlet for a stream: the connection itself, if the server offers it and no middleware wraps `send`."""
        push: Outlet | None = (self.scope.get("extensions") or {}).get("rawsse.push")
        if push is not None and push.send == self._send:
            return push
        return Pump(self._send, self.receive, self._write_seconds)

    async def send_whole(self, status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Send head and body at once. Raises `OSError` if the client has disconnected."""
        length = () if status in (204, 304) else (("content-length", str(len(body))),)
        await self._send({"type": "http.response.start", "status": status, "headers": self.fields((*headers, *length))})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def send_json(self, value: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send a value as JSON."""
        await self.send_whole(status, (JSON, *headers), compact(value).encode())

    async def send_answer(self, answer: Answer) -> None:
        """Send an error."""
        await self.send_whole(answer.status, (JSON, *answer.headers), answer.body)

    async def send_preflight(self, methods: str) -> None:
        """Answer a CORS preflight."""
        asked = self.headers.get("access-control-request-headers", "")
        headers = (
            ("allow", methods),
            ("access-control-allow-methods", methods),
            ("access-control-allow-headers", asked if asked.isprintable() else ""),
            ("access-control-max-age", "600"),
        )
        await self.send_whole(204, headers)


class Pump:
    """An `Outlet` on top of ASGI's `send`, for other servers and where middleware wraps `send`."""

    def __init__(self, send: Send, receive: Receive, write_seconds: float = WRITE_SECONDS) -> None:
        self.sink: Any = None
        self.send = send
        self._receive = receive
        self._write_seconds = write_seconds
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()  # None: nothing more

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head."""
        self._messages.put_nowait({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, data: bytes) -> bool:
        """Send a piece of the body. False: `sink.on_drain()` is called when it is sent."""
        self._messages.put_nowait({"type": "http.response.body", "body": data, "more_body": True})
        return False

    def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        self._messages.put_nowait({"type": "http.response.body", "body": data, "more_body": False})
        self._messages.put_nowait(None)

    def cut(self) -> None:
        """Send nothing more: when the app returns, servers see that its response is incomplete, and close the connection."""
        self._messages.put_nowait(None)

    async def closed(self) -> None:
        """Send the written data until the end or until the client disconnects. Raises the errors of `send`, and `TimeoutError`
        when the client reads nothing for too long."""
        try:
            await unless_gone(self._pump(), self._receive)
        finally:
            self.sink.on_closed()

    async def _pump(self) -> None:
        while (message := await self._messages.get()) is not None:
            async with asyncio.timeout(self._write_seconds):
                await self.send(message)
            if self._messages.empty():
                self.sink.on_drain()


def _path_within(root: str, path: str) -> str:
    """The path below the mount: in a mounted application, `path` may or may not begin with `root_path`."""
    root = root.rstrip("/")
    return path.removeprefix(root) if path == root or path.startswith(root + "/") else path


def _read(data: bytes, read: Callable[[dict[str, Any]], T]) -> T:
    try:
        body = parse_json(data.decode())  # without unpaired surrogates, which could not be forwarded
        _check_nesting(body)
    except RecursionError:
        raise InvalidRequest("body", f"is nested deeper than {MAX_NESTING} levels") from None
    except ValueError as exc:
        raise InvalidRequest("body", f"is not valid JSON: {exc}") from None
    if not isinstance(body, dict):
        raise InvalidRequest("body", "must be a JSON object")
    return read(body)


def _check_nesting(body: object) -> None:
    """Raises `RecursionError` above `MAX_NESTING` levels, as the parser does at a much higher limit."""
    level: list[Any] = [[body]]
    for _ in range(MAX_NESTING + 1):
        children = chain.from_iterable(item.values() if type(item) is dict else item for item in level)
        level = [child for child in children if child and type(child) in _CONTAINERS]
        if not level:
            return
    raise RecursionError
