"""Many readers of paced answers in one cheap process: is each stream whole, when did it begin, how late did each event come?

    python -m tests.benchmarks.readers URL text|messages STREAMS EVENTS INTERVAL_MS RAMP_SECONDS

`relay.py` runs it. URL is http://HOST:PORT, or http://TOKEN@HOST:PORT; "text" asks the relay for `/chat/stream`, "messages"
asks for `/v1/messages`.
"""

from __future__ import annotations

import array
import asyncio
import json
import re
import sys
import time
from typing import Any, cast

from .upstream import END, STAMP, ask, new_loop_factory, prompt, request

STAMPED = re.compile(rb'"(\d{%d})"' % len(STAMP))


class Reader(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self, request: bytes, delays: array.array[float]) -> None:
        self.request, self.delays = request, delays
        self.reads, self.events, self.rest = 0, 0, b""
        self.first_byte = self.first_text = float("inf")
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.events:
            self.first_byte = min(self.first_byte, now)
        self.reads += 1
        data, at, before = self.rest + data, 0, self.events
        for found in STAMPED.finditer(data):
            self.events, at = self.events + 1, found.end()
            self.delays.append((now - int(found[1])) / 1e6)
        if self.events and not before:
            self.first_text = now
        self.rest = data[at:][-len(STAMP) - 2 :]
        if data.endswith(END):
            self.transport.close()
            self._end(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(False)

    def _end(self, is_whole: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(is_whole)


async def read(url: str, dialect: str, streams: int, events: int, interval_ms: int, ramp: float) -> dict[str, Any]:
    loop, delays = asyncio.get_running_loop(), array.array("d")
    token, _, address = url.removeprefix("http://").rpartition("@")
    host, port = address.split(":")
    if dialect == "text":
        asked = request("/chat/stream", {"message": prompt(events, interval_ms)})
    else:
        asked = request("/v1/messages", {**ask(events, interval_ms), "stream": True})
    if token:
        asked = asked.replace(b"\r\n", f"\r\nauthorization: Bearer {token}\r\n".encode(), 1)

    async def one(number: int) -> tuple[bool, float, float, int]:
        # Spread over the ramp, and over the interval too: the streams' events do not arrive together.
        await asyncio.sleep(number * 0.618034 % 1 * ramp)
        started = time.monotonic_ns()
        try:
            _, reader = await loop.create_connection(lambda: Reader(asked, delays), host, int(port))
        except OSError:
            return False, float("inf"), float("inf"), 0
        is_whole = await reader.ended and reader.events == events
        return is_whole, (reader.first_byte - started) / 1e6, (reader.first_text - started) / 1e6, reader.reads

    whole, bytes_, texts, reads = zip(*await asyncio.gather(*map(one, range(streams))), strict=True)
    late, byte, text = sorted(delays), sorted(bytes_), sorted(texts)
    return {
        "(read)": len(delays) / max(sum(reads), 1),
        "latency p50 ms": late[len(late) // 2] if late else 0,
        "latency p99 ms": late[len(late) * 99 // 100] if late else 0,
        "first byte p50 ms": byte[len(byte) // 2],
        "first byte p99 ms": byte[len(byte) * 99 // 100],
        "first byte worst ms": byte[-1],
        "first text worst ms": text[-1] - interval_ms,  # the upstream waits so long before it
        "whole streams": sum(whole),
    }


if __name__ == "__main__":
    url, dialect, *numbers, ramp = sys.argv[1:]
    streams, events, interval_ms = map(int, numbers)
    with asyncio.Runner(loop_factory=new_loop_factory()) as runner:
        print(json.dumps(runner.run(read(url, dialect, streams, events, interval_ms, float(ramp)))))
