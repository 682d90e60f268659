"""ASGI without connections: the types, the scope of a request, work for a client, the lifespan (https://asgi.readthedocs.io).

scope = http_scope(request, client=("127.0.0.1", 50000), server=("127.0.0.1", 8000), state={})
lifespan = Lifespan(app, state)
await lifespan.startup()          # ConfigurationError if the app says that it failed
await lifespan.shutdown(seconds)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from rawsse.errors import ConfigurationError
from rawsse.http1 import Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

T = TypeVar("T")

logger = logging.getLogger("rawsse.server")


class Outlet(Protocol):
    """The response of one request, written without waiting: what `extensions["rawsse.push"]` is.

    An app uses it only if `send` is the `send` that it was called with: middleware may look at what is sent, and replaces that.
    """

    @property
    def send(self) -> Send:
        """ASGI's `send` of the request."""
        ...

    sink: Any
    """The app's object: `on_drain()` is called when the client takes more after a `write` that said False, `on_closed()` when
    the client has gone. Neither may wait, or write within a `write`."""

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head; it is sent with the first piece of the body."""

    def write(self, data: bytes) -> bool:
        """Send a piece of the body. It is always taken; False: wait for `on_drain` before the next one."""
        ...

    def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""

    async def closed(self) -> None:
        """Wait until the response has been sent, or the client has gone. The app returns after it."""


class ClientDisconnectedError(ConnectionError):
    """`send` was called for a client that is gone. ASGI asks for "a server-specific subclass of OSError"."""


def http_scope(request: Request, client: tuple[str, int], server: tuple[str, int], state: dict[str, Any]) -> Scope:
    """The scope of one request, without extensions. `state` is what the lifespan left; the app gets a shallow copy, as ASGI
    says."""
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
    """The result of `work`; None if the client goes first, and then `work` is cancelled. Raises what either raises.

    What the client still sends is of no interest. It is waited for here, and not in one more task.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    try:
        async with asyncio.timeout(None) as parked:
            task.add_done_callback(lambda _: _wake(parked, loop.time()))
            while (await receive())["type"] != "http.disconnect":
                pass
        return None
    except TimeoutError:
        if not parked.expired():  # it is what `receive` raised
            raise
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _wake(parked: asyncio.Timeout, now: float) -> None:
    with contextlib.suppress(RuntimeError):  # the client has gone in the same moment
        parked.reschedule(now)


class Lifespan:
    """The app's own start and end, around those of the server: one task, which the app spends between the two."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._is_answered = asyncio.Event()
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Let the app start. Raises `ConfigurationError` if it says that it cannot; it need not know about lifespans."""
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.create_task(self._run())
        await self._is_answered.wait()
        if self._failure is not None:
            raise ConfigurationError(f"the app failed to start: {self._failure}")

    async def shutdown(self, seconds: float) -> None:
        """Let the app end. After `seconds` it is cancelled."""
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
            # of type lifespan, the server must continue but not send any lifespan events." An app that did not even take
            # the message has no lifespan; one that did has failed, and the log must say why.
            if self._failure is None:
                level = logging.WARNING if self._inbox.empty() else logging.DEBUG
                logger.log(level, "the app's lifespan ended with an exception", exc_info=exc)
        finally:
            self._is_answered.set()

    async def _send(self, message: Message) -> None:
        if message["type"] in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._failure = str(message.get("message", ""))
            logger.error("%s: %s", message["type"], self._failure)
        self._is_answered.set()
