"""ASGI without connections: the types, the scope of a request, the lifespan, and the fields that reverse proxies set.

    scope = http_scope(request, client=("127.0.0.1", 50000), server=("127.0.0.1", 8000), state={})
    lifespan = Lifespan(app, state)
    await lifespan.startup()          # ConfigurationError if the app reports a failure
    await lifespan.shutdown(seconds)
    app = Forwarded(app, ["127.0.0.1", "10.0.0.0/8"])       # the addresses of trusted proxies

The specification is at https://asgi.readthedocs.io.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from rawsse.errors import ConfigurationError
from rawsse.http1 import Headers, Request, host_name

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

T = TypeVar("T")

logger = logging.getLogger("rawsse.server")


class Body(Protocol):
    """The body of a response, written without waiting."""

    def write(self, data: bytes) -> bool:
        """Send a piece of the body. It is always accepted. False: wait for `on_drain` before writing again."""
        ...

    def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""

    def cut(self) -> None:
        """Close the connection without the end of the body, once all written data has been sent.

        RFC 9112, 8: a chunked body "is incomplete if the zero-sized chunk that terminates the encoding has not been received".
        A body for an HTTP/1.0 client has no such mark: it ends with the connection.
        """


class Outlet(Body, Protocol):
    """The response to one request, written without waiting: the type of `extensions["rawsse.push"]`.

    An app may use it only if `send` is the `send` that the app was called with. Middleware that replaces `send` expects to see
    every message.
    """

    @property
    def send(self) -> Send:
        """ASGI's `send` of the request."""
        ...

    sink: Any
    """The app's object. Its `on_drain()` is called when the client has caught up after a `write` that returned False, and
    `on_closed()` when the client has disconnected or the response was cut. Neither may wait, or call `write` while a `write`
    is running."""

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Set the head. It is sent with the first piece of the body."""

    async def closed(self) -> None:
        """Wait until the response has been sent or cut, or the client has disconnected. The app should then return."""


class ClientDisconnectedError(ConnectionError):
    """`send` was called after the client disconnected. ASGI asks for "a server-specific subclass of OSError"."""


def http_scope(request: Request, client: tuple[str, int], server: tuple[str, int], state: dict[str, Any]) -> Scope:
    """The scope of one request, without extensions. `state` is the lifespan's; the app gets a shallow copy, as ASGI
    requires."""
    path, _, query = request.target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version,
        "method": request.method.upper(),
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.encode("ascii"), value.encode("latin-1")) for name, value in request.headers.raw],
        "client": client,
        "server": server,
        "state": state.copy(),
    }


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """The result of `work`; None if the client disconnects first, which cancels `work`. Raises the errors of both.

    Anything that the client sends meanwhile is dropped.
    """

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.create_task(work), asyncio.create_task(disconnect())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        return watch.result() if watch.done() else task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class Lifespan:
    """The app's startup and shutdown, around those of the server: one task, in which the app waits between the two."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._has_answered = asyncio.Event()
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the app. Raises `ConfigurationError` if the app reports a failure. An app may have no lifespan."""
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._run())
        await self._has_answered.wait()
        if self._failure is not None:
            raise ConfigurationError(f"the app failed to start: {self._failure}")

    async def shutdown(self, seconds: float) -> None:
        """Shut the app down. After `seconds` it is cancelled."""
        if self._task is None:
            return
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        if not done:
            logger.error("the app's lifespan did not end within %g s", seconds)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=seconds)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except Exception as exc:
            # "If an exception is raised when calling the application callable with a lifespan.startup message or a scope
            # of type lifespan, the server must continue but not send any lifespan events." An app that did not even
            # receive the message has no lifespan; one that did has failed, and the exception is logged.
            if self._failure is None:
                level = logging.WARNING if self._inbox.empty() else logging.DEBUG
                logger.log(level, "the app's lifespan ended with an exception", exc_info=exc)
        finally:
            self._has_answered.set()

    async def _send(self, message: Message) -> None:
        if message["type"] in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._failure = str(message.get("message", ""))
            logger.error("%s: %s", message["type"], self._failure)
        self._has_answered.set()


# --- Behind a reverse proxy ----------------------------------------------------------------------------------------

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Forwarded:
    """ASGI middleware: the client and the scheme that a reverse proxy saw, in `scope["client"]` and `scope["scheme"]`.

    It reads `X-Forwarded-For` and `X-Forwarded-Proto` if the peer is one of `proxies`: IP addresses, and networks such as
    `10.0.0.0/8`. Addresses are read from right to left: each proxy appends its peer's, and the client can forge those
    before them. The client's port is 0, as few proxies send it.

    `Forwarded` (RFC 7239) is not read. A request that has it is left unchanged: its proxy may have set that field and passed
    the client's own `X-Forwarded-For` through. `X-Forwarded-Host` is ignored. Apps decide by `Host` which requests they accept,
    so the proxy must forward it (nginx: `proxy_set_header Host $http_host`). Raises `ConfigurationError` for an invalid
    address.
    """

    def __init__(self, app: ASGIApp, proxies: Iterable[str]) -> None:
        self._app = app
        self._proxies = [_network(proxy) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. `send` is not wrapped: an app may use `rawsse.push` only with the server's own."""
        peer = scope.get("client") if scope["type"] == "http" else None
        if peer is not None and self._is_trusted(_address(peer[0])):
            scope = {**scope, **self._seen(scope["headers"])}
        await self._app(scope, receive, send)

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._proxies)

    def _seen(self, fields: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
        """The entries of the scope that change."""
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
        if headers.get("forwarded"):
            return {}
        seen: dict[str, Any] = {}
        for text in reversed(headers.get("x-forwarded-for", "").split(",")):
            address = _address(text)
            if address is None:  # "unknown", an obfuscated name, or garbage: the last proxy is the best answer
                break
            seen["client"] = (str(address), 0)
            if not self._is_trusted(address):
                break
        scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        return {**seen, "scheme": scheme} if scheme in ("http", "https") else seen


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as exc:
        raise ConfigurationError(f"a proxy must be an IP address, or a network such as 10.0.0.0/8: {exc}") from None


def _address(text: str) -> Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None if there is none.

    An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`), which a dual-stack socket reports, is returned as IPv4.
    """
    text = text.strip()
    try:
        address = ipaddress.ip_address((host_name(text) or text).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
