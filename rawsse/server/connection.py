"""One TCP connection of a client, and the application calls for its requests.

`Call` implements ASGI's `receive` and `send` (https://asgi.readthedocs.io, HTTP 2.4), and the `Outlet` of an app that writes
without waiting. `Connection` handles the bytes, the deadlines, the backpressure and the ending. It is an `asyncio.Protocol`,
which costs less per event than streams do.

The lifecycle of a connection: idle, a head arrives, the app is called, its response is complete; then idle again, or the end.
There is one `Call` at a time. Requests that arrive meanwhile wait in `ServerConnection`, and above `max_pipelined_bytes` at
the client. Every wait has a deadline: no client can hold a connection forever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Any, cast

from rawsse.errors import BodyTooLargeError, ConfigurationError, HeadTooLargeError, HTTPProtocolError, HTTPUsageError
from rawsse.http1 import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_PIPELINED_BYTES,
    Data,
    EndOfMessage,
    Request,
    ServerConnection,
)
from rawsse.server.asgi import ASGIApp, ClientDisconnectedError, Message, Scope, http_scope

logger = logging.getLogger("rawsse.server")

MAX_REFUSED = 32
"""How many connections may linger after a 503 (see `Connection.end`). Each costs a descriptor."""

WARN_SECONDS = 60.0
"""Seconds between two log lines about too many connections."""


@lru_cache(maxsize=1)
def _date(now: int) -> str:
    return formatdate(now, usegmt=True)


class NotNegative:
    """The base of dataclasses of limits. Raises `ConfigurationError` for a limit below 0."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:  # NaN is not
                raise ConfigurationError(f"{name} must be 0 or more, not {value}")


@dataclass(frozen=True, kw_only=True)
class Limits(NotNegative):
    """The limits of a server. Each is an argument of `Server` and `serve`; `Limits()` has the defaults.

    Raises `ConfigurationError` for a limit below 0. 0 seconds means at once, not "no limit".
    """

    max_head_bytes: int = MAX_HEAD_BYTES
    max_body_bytes: int = MAX_BODY_BYTES
    max_pipelined_bytes: int = MAX_PIPELINED_BYTES
    max_buffered_bytes: int = 64 * 1024
    """How much of one body is buffered, in either direction, for the slower side: asyncio's own high-water mark."""
    send_buffer_bytes: int = 128 * 1024
    """The system's buffer for a client that reads slowly. Linux reserves twice as much, and would grow it to 4 MB by
    default."""
    max_connections: int = 10_000
    """Further connections are answered with 503. Twice the 5,000 open streams that one process is designed for; less if the
    process may not open as many (`room_for_connections`)."""
    head_seconds: float = 20.0
    """From the first byte of a request's head to its last, else 408. Apache: 20 to 40; nginx: 60."""
    body_seconds: float = 60.0
    """Between two pieces of a body that the app waits for, else 408. nginx: 60."""
    keep_alive_seconds: float = 75.0
    """After this an idle connection is closed without a response. Load balancers keep theirs for 60, and must close first."""
    write_seconds: float = 60.0
    """A client that accepts no byte for this long while data is buffered for it is disconnected. nginx: 60."""
    linger_seconds: float = 2.0
    """For a client that may still be sending, to read its last response: see `Connection.end`. nginx: 5."""
    grace_seconds: float = 5.0
    """For open responses to end at shutdown. `docker stop` kills after 10."""
    cleanup_seconds: float = 1.0
    """After the grace period: for cancelled application calls to end, and then for the lifespan."""
    backlog: int = 2048
    """How many connections the kernel queues before they are accepted: after an outage all clients reconnect at once."""


class ServerState:
    """Shared by the connections of one server: the app, its limits, the open connections and running calls."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.max_connections = limits.max_connections
        self._warn_at = -math.inf
        self.lifespan_state: dict[str, Any] = {}
        """Filled by the app's lifespan, for the scopes of its requests."""
        self.is_stopping = False
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_empty = asyncio.Event()
        """Set while no connection is open and no call of the app is running."""
        self.is_empty.set()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; False if there are too many."""
        self.connections.add(connection)
        self.is_empty.clear()
        if len(self.connections) <= self.max_connections:
            return True
        self.warn(f"more than {self.max_connections} connections: answering 503")
        return False

    def warn(self, text: str) -> None:
        """Log a warning that any client can cause, at most once in `WARN_SECONDS`."""
        now = asyncio.get_running_loop().time()
        if now >= self._warn_at:
            self._warn_at = now + WARN_SECONDS
            logger.warning(text)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Accept a connection, or call the app, in a new task.

        It starts in the next step of the event loop, even with an eager task factory: an eager task might answer at once,
        and end the exchange whose events are being read.
        """
        task = asyncio.Task(work)
        self.tasks.add(task)
        self.is_empty.clear()
        task.add_done_callback(self.forget)

    def forget(self, ended: Any) -> None:
        """A connection or an application call has ended."""
        self.connections.discard(ended)
        self.tasks.discard(ended)
        if not self.connections and not self.tasks:
            self.is_empty.set()


class Call:
    """One call of the app.

    When the response is complete, the connection continues with its next request even if the app is still running,
    perhaps with a background task.
    """

    __slots__ = ("_connection", "_is_read", "_start", "is_complete", "is_whole", "sink", "unread")

    def __init__(self, connection: Connection) -> None:
        self.is_complete = False  # the response
        self.sink: Any = None  # of an app that uses `Outlet`
        self.is_whole = False  # the request's body has arrived
        self._is_read = False  # and the app has received its end
        self.unread = bytearray()  # of the body
        self._start: Message = {}  # the response's head, until it is sent with the first piece of the body
        self._connection = connection

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call the app. A failure is logged and ends the connection; a disconnected client is not a failure."""
        name = f"{scope['method']} {scope['raw_path'].decode()}"
        try:
            await app(scope, self.receive, self.send)
            if not self.is_complete and not self._connection.is_gone:
                logger.error("%s: the app returned without a complete response", name)
        except ClientDisconnectedError:
            pass
        except Exception as exc:
            # Frameworks wrap the errors of `send` in their own.
            is_wrapped = isinstance(exc.__cause__ or exc.__context__, ClientDisconnectedError)
            logger.log(logging.DEBUG if is_wrapped else logging.ERROR, "%s: the app failed", name, exc_info=exc)
        finally:
            if not self.is_complete:  # and never will be
                self._connection.refuse(500, "the server failed")

    # --- The request

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        connection = self._connection
        while not self.is_complete and not connection.is_gone:
            if self.unread or (self.is_whole and not self._is_read):
                body, self.unread = bytes(self.unread), bytearray()
                self._is_read = self.is_whole
                connection.regulate_reading()
                return {"type": "http.request", "body": body, "more_body": not self.is_whole}
            await (connection.wait() if self.is_whole else connection.wait_for_body())
        return {"type": "http.disconnect"}

    # --- The response

    async def send(self, message: Message) -> None:
        """ASGI's `send`. Waits until the client has caught up."""
        connection, kind = self._connection, message["type"]
        if self.is_complete:
            raise HTTPUsageError(f"{kind!r} came after the response was complete")
        if connection.is_gone:
            raise ClientDisconnectedError("the client has disconnected")
        is_before_start = connection.http.can_respond and not self._start
        expected = "http.response.start" if is_before_start else "http.response.body"
        if kind != expected:
            raise HTTPUsageError(f"{kind!r} may not be sent now: expected {expected!r}")
        if is_before_start:
            # "The protocol server must not start sending the response to the client until it has received at least one
            # Response Body event." So an app that fails in between gets a 500, and head and body travel in one packet.
            self._start = message
        elif message.get("more_body", False):
            self.write(message.get("body", b""))
        else:
            self.end(message.get("body", b""))
        await connection.drain()

    def _head(self) -> bytes:
        """The head, which has not been sent."""
        start, self._start = self._start, {}
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]
        return self._connection.head(start["status"], fields)

    # --- The response, as an `Outlet`

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """See `Outlet.start`."""
        self._start = {"status": status, "headers": headers}

    def write(self, data: bytes) -> bool:
        """See `Outlet.write`."""
        connection = self._connection
        if connection.is_gone:
            return False
        if self._start:
            connection.transport.write(self._head() + connection.http.send_data(data))
        else:
            connection.transport.write(connection.http.send_data(data))
        return not connection.is_write_paused

    def end(self, data: bytes = b"") -> None:
        """See `Outlet.end`."""
        connection = self._connection
        if not connection.is_gone:
            http = connection.http
            head = self._head() if self._start else b""
            wire = head + http.send_data(data) + http.send_end()
            self.is_complete = True
            connection.transport.write(wire)
            connection.change.set()
            connection.end_call()

    def cut(self) -> None:
        """See `Outlet.cut`."""
        if not self._connection.is_gone:
            self._connection.end()

    async def closed(self) -> None:
        """See `Outlet.closed`."""
        while not self.is_complete and not self._connection.is_gone:
            await self._connection.wait()


class Connection(asyncio.Protocol):
    """One connection, from `connection_made` to `connection_lost`."""

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()  # cached: getting it is a system call on Python 3.11
        self.limits = server.limits
        self.http = ServerConnection(
            max_head_bytes=self.limits.max_head_bytes,
            max_body_bytes=self.limits.max_body_bytes,
            max_pipelined_bytes=self.limits.max_pipelined_bytes,
        )
        self.is_gone = False  # for the app the client has disconnected, though bytes may still be sent
        self.is_write_paused = False
        self._call: Call | None = None
        self.change = asyncio.Event()
        """Something has changed: see `wait`."""
        self._cancel_timer: Callable[[], object] = int  # one timer at a time: idle, head, write, linger

    # --- Callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected. asyncio and uvloop set TCP_NODELAY on every TCP connection."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self.limits.max_buffered_bytes)
        if not self._server.admit(self):
            self.refuse(503, "too many connections")
        elif self._server.is_stopping:  # it was accepted just before
            self._close()
        else:
            self._read_events()

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self.is_gone:
            return
        is_first = self.http.is_idle
        self.http.receive_data(data)
        self._read_events(is_first=is_first)

    def eof_received(self) -> None:
        """The client has closed its sending side. It may still read, but common servers do not wait to find out."""
        self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by either side."""
        self._hang_up()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than the app sends."""
        self.is_write_paused = True
        self._watch_writes()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.is_write_paused = False
        if not self.is_gone:  # else the timer is the one for the end
            self._cancel_timer()
        self.change.set()
        # Later: a transport that is closed inside its callback calls `connection_lost` twice (CPython 3.11, 3.12).
        self._loop.call_soon(self._drained)

    def _drained(self) -> None:
        call = self._call
        if call is not None and call.is_complete:
            self.end_call()
        elif call is not None and call.sink is not None and not self.is_gone and not self.is_write_paused:
            call.sink.on_drain()

    # --- Reading

    def _read_events(self, *, is_first: bool = True) -> None:
        """Handle what has arrived. `is_first`: no byte of the next request had, so its deadline begins now."""
        try:
            while not self.is_gone and (event := self.http.next_event()) is not None:
                if isinstance(event, Request):
                    self._begin(event)
                elif (call := self._call) is not None:
                    if isinstance(event, Data):
                        call.unread += event.data
                    call.is_whole = isinstance(event, EndOfMessage)
                    self.change.set()
        except HTTPProtocolError as exc:
            self.refuse(exc.status_hint, exc.message)
        except (HeadTooLargeError, BodyTooLargeError) as exc:
            self.refuse(431 if isinstance(exc, HeadTooLargeError) else 413, exc.message)
        self.regulate_reading()
        if is_first and self._call is None and not self.is_gone:
            if self.http.is_idle:
                self._arm(self.limits.keep_alive_seconds, self._close)
            else:
                self._arm(self.limits.head_seconds, self.refuse, 408, "the request's head did not arrive in time")

    def _begin(self, request: Request) -> None:
        self._cancel_timer()
        if "websocket" in request.headers.get("upgrade", "").lower():
            self.refuse(400, "this server does not support WebSocket")
            return
        client, server = ((self.transport.get_extra_info(name) or ("", 0))[:2] for name in ("peername", "sockname"))
        self._call = Call(self)
        scope = http_scope(request, client, server, self._server.lifespan_state)
        scope["extensions"] = {"rawsse.push": self._call, "rawsse.wire": self}
        self._server.run(self._call.run(self._server.app, scope))

    def regulate_reading(self) -> None:
        """Pause reading while the app has not read the body, or while requests are queued."""
        if self.is_gone:
            return
        if self.http.is_full or (self._call is not None and len(self._call.unread) > self.limits.max_buffered_bytes):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # --- Writing

    def head(self, status: int, headers: list[tuple[str, str]], *, close: bool = False) -> bytes:
        """The bytes of a response's head. Raises `HTTPUsageError`."""
        # RFC 9110, 6.6.1: "An origin server with a clock MUST generate a Date header field in all 2xx (Successful), 3xx
        # (Redirection), and 4xx (Client Error) responses".
        if "date" not in {name.lower() for name, _ in headers}:
            headers.append(("date", _date(int(time.time()))))
        # RFC 9112, 9.6: a server that answers before reading the whole request cannot read the next one.
        is_early = self._call is not None and not self._call.is_whole
        return self.http.send_response(status, headers, close=close or is_early or self._server.is_stopping)

    def take_over(self) -> asyncio.Transport:
        """From now on the app writes to the transport (see `rawsse.wire`), and calls `end` or `abort`."""
        if self.http.can_respond:
            # As if a head had been sent, so that nothing else is: neither a 100 Continue nor an error response.
            self.http.send_response(200, [], close=True)
        return self.transport

    async def drain(self) -> None:
        """Wait until the client has caught up. Raises `ClientDisconnectedError`."""
        while self.is_write_paused:
            if self.is_gone:
                raise ClientDisconnectedError("the client disconnected, or was too slow to read")
            await self.wait()

    def _watch_writes(self, left_before: float = math.inf) -> None:
        """While bytes are buffered, check every `write_seconds` that the client has read some. Nothing is added meanwhile."""
        left = self.transport.get_write_buffer_size()
        if left >= left_before:
            self.abort()
        elif left:
            self._arm(self.limits.write_seconds, self._watch_writes, left)

    # --- Waiting

    async def wait(self) -> None:
        """Wait for a change: body has arrived, the client has caught up, or it has disconnected."""
        self.change.clear()
        await self.change.wait()

    async def wait_for_body(self) -> None:
        """The same, while body is missing: send 100 Continue if the client waits for it, and set a deadline."""
        self.transport.write(self.http.send_continue())
        text = "the request's body did not arrive in time"
        timer = self._loop.call_later(self.limits.body_seconds, self.refuse, 408, text)
        try:
            await self.wait()
        finally:
            timer.cancel()

    def _arm(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        self._cancel_timer()
        self._cancel_timer = self._loop.call_later(seconds, action, *args).cancel

    # --- Ending

    def end_call(self) -> None:
        """Continue with the next request, if the response is complete and the client has caught up."""
        if self._call is None or not self._call.is_complete or self.is_gone or self.is_write_paused:
            return
        if self.http.is_reusable and not self._server.is_stopping:
            self.http.start_next_cycle()
            self._call = None
            self._read_events()
        else:
            self.end()

    def refuse(self, status: int, text: str) -> None:
        """Send an error response, unless the app has begun to respond: then its response is cut. The connection ends."""
        if self.is_gone:
            return
        if self.http.can_respond:
            body = f"{text}\n".encode()
            headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
            head = self.head(status, headers, close=True)
            self.transport.write(head + self.http.send_data(body) + self.http.send_end())
        self.end()

    def end(self) -> None:
        """Close; if the client may still be sending, first close only the sending side, so that it can read the response.

        RFC 9112, 9.6: "If the server receives additional data from the client on a fully closed connection […] the server's
        TCP stack will send a reset packet to the client, which might erase the client's unacknowledged input buffers".
        """
        is_crowded = len(self._server.connections) > self._server.max_connections + MAX_REFUSED
        if is_crowded or (self._call is not None and self._call.is_whole):
            self._close()
            return
        self._hang_up()
        self.transport.write_eof()
        self.transport.resume_reading()
        self._arm(self.limits.linger_seconds, self._close)

    def finish(self) -> None:
        """The server is stopping: close, unless a request is being answered."""
        if self._call is None or self.is_gone:
            self._close()

    def abort(self) -> None:
        """Close at once; the buffer is lost."""
        self._hang_up()
        self.transport.abort()

    def _close(self) -> None:
        """Close once all written data has been sent."""
        self._hang_up()
        self.transport.close()
        self._watch_writes()

    def _hang_up(self) -> None:
        self.is_gone = True
        self._cancel_timer()
        self.change.set()
        if self._call is not None and self._call.sink is not None:
            self._call.sink.on_closed()
