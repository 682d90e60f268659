"""A pool over streams whose peer the test plays, and exchanges on its connections without a byte of network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rawsse.client.network.net import FakeStream, TLSContext
from rawsse.client.network.pool import Connection, Pool, PoolLimits
from rawsse.client.network.route import Origin, Route

__all__ = ["A", "B", "Network", "Peer", "serve"]

A = Route(Origin("http", "a.example", 80))
B = Route(Origin("http", "b.example", 80))


class Peer(FakeStream):
    """A stream whose peer says nothing until the test makes it."""

    def __init__(self) -> None:
        super().__init__(end=None)

    def read_nowait(self) -> bytes | None:
        return None if self.is_aborted else super().read_nowait()  # a real one says no more in the tick of the abort

    def send(self, data: bytes) -> None:
        self._chunks.append(data)

    def close(self) -> None:
        self._end = b""

    def reset(self) -> None:
        self._end = ConnectionResetError("reset by peer")


class Network:
    """Makes `Peer`s, `delay` ticks after it was asked."""

    def __init__(self, *, delay: int = 0, stream: Callable[[], Peer] = Peer) -> None:
        self.delay = delay
        self.streams: list[Peer] = []
        self.routes: list[Route] = []
        self._stream = stream

    async def __call__(self, route: Route, tls: TLSContext) -> Peer:
        del tls
        for _ in range(self.delay):
            await asyncio.sleep(0)
        self.routes.append(route)
        self.streams.append(self._stream())
        return self.streams[-1]

    def pool(self, limits: PoolLimits | None = None, **options: Any) -> Pool:
        return Pool(self, TLSContext(), limits or PoolLimits(), **options)

    def alive(self) -> int:
        """How many of the streams nobody has aborted."""
        return sum(not stream.is_aborted for stream in self.streams)


def serve(connection: Connection, *, end: bytes = b"0\r\n\r\n") -> None:
    """A whole exchange on the connection; `end` is what has come of the end of its chunked body."""
    connection.http.send_request("POST", "/", [], b"{}")
    connection.http.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + end)
    while connection.http.next_event() is not None:
        pass
