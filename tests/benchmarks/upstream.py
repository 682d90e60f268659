"""A Messages API on loopback that costs little: each event is an HTTP chunk of its own, all at once or paced.

    python -m tests.benchmarks.upstream [--tls]      # prints its port, serves until it is terminated

The prompt says what to answer (`prompt`), so that a client and a relay with a fixed base URL can ask for any shape. A paced
delta's text is the time at which it was sent (`time.monotonic_ns`, one clock for all processes of a machine).
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import json
import re
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

CERTIFICATE = Path(__file__).parents[1] / "support" / "localhost.pem"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_1\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
STAMP = "0" * 20
MODEL = "claude-benchmark"  # not a real one: the SDK warns of deprecated models

PROMPT = re.compile(rb"(\d+) events, one every (\d+) ms(, then silence)?")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def prompt(events: int, interval_ms: int, *, ends: bool = True) -> str:
    """Asks for so many text deltas; interval 0: the whole answer at once. Without `ends` the stream stays open after them."""
    return f"{events} events, one every {interval_ms} ms" + ("" if ends else ", then silence")


def ask(events: int, interval_ms: int) -> dict[str, Any]:
    """The parameters of `messages.stream` for such an answer."""
    message = {"role": "user", "content": prompt(events, interval_ms)}
    return {"model": MODEL, "max_tokens": 1024, "messages": [message]}


def request(path: str, fields: Mapping[str, Any]) -> bytes:
    """A POST of this JSON, for the kinds that write HTTP by hand."""
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def new_loop_factory(uvloop: bool = True) -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's event loop if it is wanted and installed, else asyncio's."""
    if uvloop and importlib.util.find_spec("uvloop"):
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
        return factory
    return asyncio.new_event_loop


def chunk(name: str, **fields: Any) -> bytes:
    """An event as an HTTP chunk."""
    data = f"event: {name}\ndata: {json.dumps({'type': name, **fields}, separators=(',', ':'))}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(text: str) -> bytes:
    return chunk("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


MESSAGE = {"id": "msg_014p7gG3wDgGV9EUtLvnow3U", "type": "message", "role": "assistant", "model": MODEL, "content": []}
USAGE = {"input_tokens": 25, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
OPENING = (
    HEAD
    + chunk("message_start", message={**MESSAGE, "stop_reason": None, "stop_sequence": None, "usage": USAGE})
    + chunk("content_block_start", index=0, content_block={"type": "text", "text": ""})
    + chunk("ping")
)
CLOSING = (
    chunk("content_block_stop", index=0)
    + chunk("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 15})
    + chunk("message_stop")
    + END
)
BEFORE_STAMP, AFTER_STAMP = delta(STAMP).split(STAMP.encode())


@functools.cache
def burst(events: int, closing: bytes = CLOSING) -> bytes:
    return OPENING + b"".join(delta(f" and this is word {at % 1000:3}") for at in range(events)) + closing


class Answering(asyncio.Protocol):
    """One connection: a request, its answer, and so on. Requests are not pipelined and have a `content-length`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.received = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not an instance of it

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        length, asked = LENGTH.search(head), PROMPT.search(body)
        if length is None or asked is None or len(body) < int(length[1]):
            return
        self.received = b""
        events, interval_ms = int(asked[1]), int(asked[2])
        self.closing = b"" if asked[3] else CLOSING
        if not interval_ms:
            self.transport.write(burst(events, self.closing))
            return
        self.transport.write(OPENING)
        self.left, self.seconds, self.due = events, interval_ms / 1000, self.loop.time()
        self.wait()

    def wait(self) -> None:
        self.due += self.seconds  # not "from now": a late timer does not slow the stream down
        self.timer = self.loop.call_at(self.due, self.send)

    def send(self) -> None:
        if not self.left:
            self.transport.write(self.closing)
            return
        self.left -= 1
        self.transport.write(b"%b%020d%b" % (BEFORE_STAMP, time.monotonic_ns(), AFTER_STAMP))
        self.wait()


async def serve(tls: bool) -> None:
    loop, context = asyncio.get_running_loop(), None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATE)
    server = await loop.create_server(lambda: Answering(loop), "127.0.0.1", 0, ssl=context, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop_factory()) as runner:
        runner.run(serve(tls="--tls" in sys.argv))
