"""A server in a thread of its own, for tests whose client blocks, or runs in another loop or process.

This file knows threads. It refuses to know what is served.

    with BackgroundServer(Player(recordings, speed=0)) as server:
        urllib.request.urlopen(server.base_url + "/v1/models")

When the block is left, the connections are cut off, and the thread has ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from rawsse.server import ASGIApp, Server

PATIENCE = 10.0
"""Real seconds that the thread may take to start and to end: it needs a thousandth of that."""


async def _nothing() -> None:
    pass


class BackgroundServer:
    """Serves the ASGI application `app` on a free port of this machine. `with` starts and stops it.

    `on_stop` is awaited in its loop after the last connection has ended; what it raises comes out of the `with` block.
    """

    def __init__(self, app: ASGIApp, *, on_stop: Callable[[], Awaitable[None]] = _nothing) -> None:
        self.base_url = ""
        self._app = app
        self._on_stop = on_stop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()
        self._started: Future[str] = Future()
        self._stopped: Future[None] = Future()
        # A daemon: should it ever hang, it keeps no test run from ending.
        self._thread = threading.Thread(target=self._run, name="rawsse replay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.base_url = self._started.result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and not self._stopped.done():
            self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(PATIENCE)
        self._stopped.result(PATIENCE)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # it belongs to the thread that waits for this one
            ours = self._stopped if self._started.done() else self._started
            ours.set_exception(exc)
        else:
            self._stopped.set_result(None)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = Server(self._app, port=0)
        await server.start()
        self._started.set_result(server.base_url)
        try:
            await self._leave.wait()
        finally:
            await server.shutdown(0)  # a test is over: nobody waits for the rest of an answer
            await self._on_stop()
