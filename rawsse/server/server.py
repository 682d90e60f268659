"""The listening socket, the app's lifespan around it, signals, and a shutdown with a time limit.

A server has ended once its last connection and its last application call have ended.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from rawsse.errors import ConfigurationError
from rawsse.server.asgi import ASGIApp, Lifespan
from rawsse.server.connection import Connection, Limits, ServerState

logger = logging.getLogger("rawsse.server")

ACCEPTS_AT_ONCE = 4
"""How many connections are accepted in one step of the event loop. After an outage all clients reconnect at once, and
connected ones must not wait for them."""

ACCEPT_PAUSE_SECONDS = 1.0
"""The pause after the process ran out of descriptors. asyncio's own `accept` doubles its attempts, and its logged
tracebacks, with each failure (CPython 3.11 to 3.13)."""

RESERVED_DESCRIPTORS = 64
"""Descriptors for everything but connections: listening sockets, files, and rejected connections."""

SIGNALS: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
"""The signals that end a server."""

_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def room_for_connections(wanted: int) -> int:
    """`wanted`, or the number of connections that the process may open (`ulimit -n`) if that is lower.

    Each counts twice, because an app may need an upstream connection to answer. Raises `ConfigurationError` if the limit is
    too low for even one.
    """
    if sys.platform == "win32":
        return wanted
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return wanted
    if limit < (least := RESERVED_DESCRIPTORS + 2):
        raise ConfigurationError(f"a server needs {least} or more open files and connections; ulimit -n allows {limit}")
    return min(wanted, (limit - RESERVED_DESCRIPTORS) // 2)


class Server:
    """Serves `app` on `host` and `port` (0: any free one) from `start` to `shutdown`, or in `async with`.

    At shutdown, `on_shutdown` is called first, so that an app can end its streams. `limits` are the fields of `Limits`. A
    server belongs to one event loop and can be started once; a process may have many servers.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        on_shutdown: Callable[[], Awaitable[None]] | None = None,
        **limits: Any,
    ) -> None:
        self.host = host
        self.port = port
        self.limits = Limits(**limits)
        self._on_shutdown = on_shutdown
        self._state = ServerState(app, self.limits)
        self._lifespan = Lifespan(app, self._state.lifespan_state)
        self._listener: asyncio.Server | None = None
        self._listening: list[socket.socket] = []

    @property
    def base_url(self) -> str:
        """`http://HOST:PORT` of the server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    async def start(self) -> None:
        """Start the app, then listen. Raises `ConfigurationError` if either fails."""
        if self._listener is not None:
            raise ConfigurationError("this server has already been started")
        try:
            await self._lifespan.startup()
            if not 0 <= self.port < 65536:  # uvloop would listen on another
                raise OverflowError("port must be 0-65535")
            await self._listen()
        except BaseException as exc:
            self._stop_accepting()
            await self._lifespan.shutdown(self.limits.cleanup_seconds)
            if isinstance(exc, (OSError, OverflowError)):
                # asyncio says "error while attempting to bind on address ('127.0.0.1', 80): [errno 13] permission denied".
                reason = str(getattr(exc, "strerror", None) or exc).rpartition("): ")[2].rpartition("] ")[2]
                raise ConfigurationError(f"cannot listen on host {self.host}, port {self.port}: {reason}") from exc
            raise

    async def shutdown(self, grace_seconds: float | None = None) -> None:
        """Stop accepting, wait for open responses during the grace period, abort the rest, and shut the app down.

        Cancelling it ends the grace period at once. A second call returns at once.
        """
        if self._listener is None or self._state.is_stopping:
            return
        self._state.is_stopping = True
        now = asyncio.get_running_loop().time
        grace = self.limits.grace_seconds if grace_seconds is None else grace_seconds
        end = now() + grace
        try:
            self._stop_accepting()
            async with asyncio.timeout(grace):
                await self._notify_app()
                await self._state.is_empty.wait()
        except TimeoutError:
            if grace and self._state.connections:  # 0: the caller did not want to wait for them
                logger.warning("%d connection(s) did not end within %g s", len(self._state.connections), grace)
        except asyncio.CancelledError:
            end = now()
            raise
        finally:
            await self._cut_off()
            await self._lifespan.shutdown(max(end - now(), self.limits.cleanup_seconds))

    async def _listen(self) -> None:
        self._state.max_connections = room_for_connections(self.limits.max_connections)
        loop = asyncio.get_running_loop()
        self._listener = listener = await loop.create_server(
            lambda: Connection(self._state), self.host, self.port, start_serving=False
        )
        self.port = listener.sockets[0].getsockname()[1]
        for bound in listener.sockets:
            sock = bound.dup()
            self._listening.append(sock)
            sock.setblocking(False)
            # Connections inherit it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.limits.send_buffer_bytes)
            sock.listen(self.limits.backlog)
            try:
                self._resume_accepting(sock)
            except NotImplementedError:  # Windows
                await listener.start_serving()

    def _resume_accepting(self, listening: socket.socket) -> None:
        if not self._state.is_stopping:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, _ = listening.accept()
            except OSError as exc:
                if exc.errno in _NO_DESCRIPTORS:
                    self._state.warn(f"cannot accept connections: {exc.strerror}")
                    loop.remove_reader(listening)
                    loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume_accepting, listening)
                return  # none is waiting, or the client has disconnected
            self._state.run(self._connect(sock))

    async def _connect(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(self._state), sock)
        except OSError:  # the client has disconnected
            sock.close()

    def _stop_accepting(self) -> None:
        for sock in self._listening:
            with suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._state.connections):
            connection.finish()

    async def _notify_app(self) -> None:
        try:
            if self._on_shutdown is not None:
                await self._on_shutdown()
        except Exception:
            logger.exception("on_shutdown failed")

    async def _cut_off(self) -> None:
        for connection in list(self._state.connections):
            connection.abort()
        for task in self._state.tasks:
            task.cancel()
        try:
            async with asyncio.timeout(self.limits.cleanup_seconds):
                await self._state.is_empty.wait()
        except TimeoutError:
            logger.error("%d call(s) of the app ignored their cancellation", len(self._state.tasks))


async def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    ready: Callable[[str], None] | None = None,
    drain: Callable[[], Awaitable[None]] | None = None,
    **limits: Any,
) -> None:
    """Serve `app` until SIGTERM or SIGINT, then shut down gracefully; a second signal ends at once.

    Outside of the main thread, where signal handlers cannot be set, it serves until it is cancelled. `ready` is called with
    the base URL once the server listens. `drain` is awaited at the first signal, while the server still accepts connections;
    a second signal then cancels it and shuts the server down, and a third one ends at once. `limits` are the other arguments
    of `Server`. Raises `ConfigurationError` if the server cannot start.
    """
    task, stop = asyncio.current_task(), asyncio.Event()
    is_urgent = False

    def on_signal() -> None:
        nonlocal is_urgent
        is_urgent = stop.is_set()
        stop.set()
        if is_urgent and task is not None:
            task.cancel()

    with signals_call(on_signal):
        try:
            async with Server(app, host, port, **limits) as server:
                if ready is not None:
                    ready(server.base_url)
                await stop.wait()
                if drain is not None:
                    await drain()
        except asyncio.CancelledError:
            if not is_urgent:
                raise


@contextmanager
def signals_call(function: Callable[[], None], *, passes_on: bool = False) -> Iterator[None]:
    """Within the block, SIGTERM and SIGINT call `function` in the event loop; with `passes_on`, also the previous handlers.

    Does nothing outside of the main thread, where signal handlers cannot be set.
    """
    loop = asyncio.get_running_loop()

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(function)
        if passes_on and callable(host := before[number]):
            host(number, frame)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in SIGNALS} if is_main else {}
    try:
        yield
    finally:
        for number, host in before.items():
            if signal.getsignal(number) is handle:  # else the host has restored its own
                signal.signal(number, host)
