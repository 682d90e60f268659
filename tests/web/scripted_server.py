"""A relay made of a script: each request waits until the test says, byte by byte, what is answered.

It knows the page's files and HTTP/1.1 as far as `http.server` does. It knows nothing of runs: the test plays them.

    with ScriptedServer() as server:
        ...                                        # a browser on server.url asks something
        post = server.next("POST", "/api/chat")
        post.head(200, {"content-type": "text/event-stream", "x-run-id": "r1"})
        post.send(b"id: e-1\\ndata: {}\\n\\n")
        post.end()                                 # or post.drop(): the connection breaks

A test never sleeps: `next` and `wait_for_hang_up` return when the browser has done its part.
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rawsse
from rawsse.relay.page import Page

WEB = Path(rawsse.__file__).parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PATIENCE = 10
"""Seconds until a request that does not come, or a browser that does not hang up, fails the test."""


class Exchange:
    """One request of the browser, and the answer that the test gives it."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.method, self.path = handler.command, handler.path
        self.headers = handler.headers
        self.body: Any = json.loads(handler.rfile.read(int(handler.headers.get("content-length", 0))) or b"null")
        self.over = threading.Event()
        self._handler = handler
        self._chunked = False

    def head(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._handler.send_response(status)
        for name, value in (headers or {}).items():
            self._handler.send_header(name, value)
        self._chunked = status != 204
        if self._chunked:
            self._handler.send_header("transfer-encoding", "chunked")
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes = b"") -> None:
        """The rest of the body, and its end."""
        if data:
            self.send(data)
        if self._chunked:
            self._handler.wfile.write(b"0\r\n\r\n")
        self.over.set()

    def drop(self) -> None:
        """Break the connection, whatever it was saying."""
        self._handler.close_connection = True
        self._handler.connection.shutdown(socket.SHUT_RDWR)
        self.over.set()

    def wait_for_hang_up(self) -> None:
        """Return when the browser has closed the connection."""
        self._handler.connection.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            assert self._handler.connection.recv(1) == b"", "the browser sent more instead of closing"
        self.drop_quietly()

    def drop_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self.drop()
        self.over.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        file = WEB / ("index.html" if self.path == "/" else self.path.lstrip("/"))
        if file.suffix in TYPES and file.is_file():
            self._serve(file)
        elif self.path in self.server.facts:
            self._tell(*self.server.facts[self.path])
        else:
            self._perform()

    def do_POST(self) -> None:
        self._perform()

    def do_DELETE(self) -> None:
        self._perform()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Be silent."""

    def _serve(self, file: Path) -> None:
        body = Page().find(f"/{file.name}")[1]  # as the relay serves it
        self.send_response(200)
        self.send_header("content-type", TYPES[file.suffix])
        self.send_header("content-length", str(len(body)))
        self.send_header("content-security-policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def _tell(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _perform(self) -> None:
        exchange = Exchange(self)
        self.server.exchanges.append(exchange)
        self.server.arrived.put(exchange)
        exchange.over.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.arrived: queue.SimpleQueue[Exchange] = queue.SimpleQueue()
        self.exchanges: list[Exchange] = []
        self.facts: dict[str, tuple[int, Any]] = {
            "/v1/models": (200, {"data": []}),
            "/me": (200, {"user": None, "limits": {}, "left": {}, "resets": {}}),
        }

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away is no error here."""


class ScriptedServer:
    """The server; `url` is where its page is, `exchanges` every request so far that is not for a file of the page.

    `facts` is what it answers at once: path -> status and JSON.
    """

    def __enter__(self) -> Self:
        self._server = _Server()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self.exchanges = self._server.exchanges
        self.facts = self._server.facts
        self._waiting: list[Exchange] = []
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for exchange in self.exchanges:
            if not exchange.over.is_set():
                exchange.drop_quietly()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next(self, method: str, path: str) -> Exchange:
        """The next request of this kind. Others may come before it: connections run side by side."""
        while True:
            for exchange in self._waiting:
                if (exchange.method, exchange.path) == (method, path):
                    self._waiting.remove(exchange)
                    return exchange
            try:
                self._waiting.append(self._server.arrived.get(timeout=PATIENCE))
            except queue.Empty:
                came = [f"{exchange.method} {exchange.path}" for exchange in self._waiting]
                raise AssertionError(f"no {method} {path} within {PATIENCE} s, but {came}") from None

    def expect_stop(self, run_id: str = "r1", status: int = 204) -> Exchange:
        """The next request stops this run."""
        # Answered, not dropped: a DELETE may be repeated without harm, so Chromium would do so.
        delete = self.next("DELETE", f"/runs/{run_id}")
        delete.head(status)
        delete.end()
        return delete

    def begin(self, run_id: str = "r1") -> Exchange:
        """The next request is a prompt: its run begins. Returns before any frame."""
        post = self.next("POST", "/api/chat")
        post.head(200, {"content-type": "text/event-stream; charset=utf-8", "x-run-id": run_id})
        return post


# --- Frames of the events dialect ------------------------------------------------------------------------------------


def frame(seq: int, event: Mapping[str, Any]) -> bytes:
    """One event of the Messages API as the relay sends it."""
    return f"id: e-{seq}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def done(seq: int) -> bytes:
    return f"id: e-{seq}\ndata: [DONE]\n\n".encode()


def script(*events: Mapping[str, Any], first: int = 1) -> list[bytes]:
    """The frames of these events, numbered, and `[DONE]`."""
    frames = [frame(first + i, event) for i, event in enumerate(events)]
    return [*frames, done(first + len(events))]


def start(**usage: int) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test-1", "content": []}
    counts = {"input_tokens": 12, "output_tokens": 1, **usage}
    return {"type": "message_start", "message": {**message, "stop_reason": None, "usage": counts}}


def open_block(index: int = 0, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block or {"type": "text", "text": ""}}


def delta(text: str, index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}


def close_block(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def finish(stop_reason: str = "end_turn", **usage: int) -> list[dict[str, Any]]:
    counts = {"output_tokens": 7, **usage}
    end = {"type": "message_delta", "delta": {"stop_reason": stop_reason, "stop_sequence": None}, "usage": counts}
    return [end, {"type": "message_stop"}]


def error(type: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": message}}


def answer(*texts: str) -> list[bytes]:
    """The frames of a whole answer of one text block."""
    return script(start(), open_block(), *map(delta, texts), close_block(), *finish())
