"""A network between a browser and a relay, which the test breaks: a TCP proxy.

    proxy = background.enter(Proxy(relay_port))
    proxy.cut_after = 10            # each connection breaks in the middle of its tenth frame
    proxy.cut()                     # all connections break now
    proxy.freeze()                  # all connections stay, and nothing comes through them any more
    proxy.target = None             # nothing can be reached
    proxy.is_silent = True          # new connections are accepted, and nothing comes through them
    proxy.wait_for(2)               # so many requests have come
    proxy.requests                  # "POST /api/chat", …: what the browser sent, without the files of the page

It aborts what is open when it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import Any, Self

from support.background import PATIENCE

REQUEST = re.compile(rb"^(GET|POST|DELETE) (/(?:api|chat|stream|runs)(?!\.js)\S*) HTTP/1.1\r\n", re.MULTILINE)


class Proxy:
    """`url` is where it listens; `target` is the port behind it."""

    def __init__(self, target: int | None) -> None:
        self.target = target
        self.cut_after: int | None = None
        self.is_silent = False
        self.requests: list[str] = []
        self._came = threading.Condition()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection; from any thread."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._open])

    def freeze(self) -> None:
        """Let nothing more through the connections that are open now; from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._frozen.update(self._open.values()))

    def wait_for(self, count: int) -> None:
        """Return when so many requests have come; from any thread but the proxy's."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.requests) >= count, PATIENCE), self.requests

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        up: asyncio.StreamWriter | None = None
        try:
            if self.is_silent:
                while await reader.read(65536):
                    pass
            elif self.target is not None:
                from_server, up = await asyncio.open_connection("127.0.0.1", self.target)
                pumps = [
                    asyncio.ensure_future(self._up(reader, up)),
                    asyncio.ensure_future(self._down(from_server, writer)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for side in (writer, up):
                if side is not None:
                    side.transport.abort()
            del self._open[task]

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            with self._came:
                self.requests += [b" ".join(found).decode() for found in REQUEST.findall(data)]
                self._came.notify_all()
            writer.write(data)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if writer in self._frozen:
                    continue
                starts = [found.start() for found in re.finditer(rb"\ndata: ", data)]
                if self.cut_after is not None and frames + len(starts) >= self.cut_after:
                    writer.write(data[: starts[self.cut_after - frames - 1] + 12])
                    await writer.drain()
                    writer.write_eof()  # not an abort, which would also take back what the browser has not read yet
                    return
                frames += len(starts)
                writer.write(data)
