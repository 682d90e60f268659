"""Runs without HTTP: a house that begins them, and outlets that keep what their readers are sent.

async with house() as home:
    begun, api = await home.started()             # the call to the API has come, and its message has begun
    outlet = join(begun)
    api.send(text_delta(0, "Hello"))
    assert data(await outlet.read()) == ['{"text":"Hello"}']
    outlet.leave()
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from support.clock import ticks
from support.streams import block_start, start, text_delta

from rawsse.client.stream import EventStream
from rawsse.relay import RunLimits
from rawsse.relay.dialects import Asked, Failure, TextDialect
from rawsse.relay.feed import Feed, Reader
from rawsse.relay.push import EventPush, UnfoldedAnswer
from rawsse.relay.record import RunLog
from rawsse.relay.runs import Run, Runs
from rawsse.server import Message

from .stage import Api, Stage, frames

__all__ = ["LAST_WORD", "REQUEST", "STOPPED", "TEXT_BLOCK", "FakeOutlet", "House", "data", "house", "join", "texts"]

STOPPED = Failure(200, "cancelled", "stopped")
LAST_WORD = ['{"error":"stopped","type":"cancelled"}', "[DONE]"]
REQUEST = {"model": "m", "max_tokens": 1, "messages": []}
TEXT_BLOCK = {"type": "text", "text": ""}


class FakeOutlet:
    """An `Outlet` whose client reads at once, unless it stalls. `sent` has what was written, and when."""

    def __init__(self, on_write: Callable[[], None] | None = None, *, is_stalled: bool = False) -> None:
        self.sink: Any = None
        self.heads: list[float] = []
        """When the head was sent."""
        self.sent: list[tuple[float, bytes]] = []
        self.is_ended = False
        self.is_cut = False
        self._on_write = on_write
        self._is_stalled = is_stalled
        self._is_owed = False  # a write said False: `on_drain` must follow
        self._is_gone = False
        self._seen = 0
        self._wrong = ""  # what the reader did that no server takes; raised to the test, for a run survives its readers
        self._changed = asyncio.Event()

    # What the test does.

    def stall(self) -> None:
        """Take no more after the next write."""
        self._is_stalled = True

    def go_on(self) -> None:
        """Take everything again."""
        self._is_stalled = False
        self.take()

    def take(self) -> None:
        """Take what was written. A client that stalls takes no more after the next write."""
        if self._is_owed:
            self._is_owed = False
            self.sink.on_drain()

    def leave(self) -> None:
        """Close the connection."""
        self._is_gone = True
        self._changed.set()
        self.sink.on_closed()

    async def read(self) -> bytes:
        """What came since the last `read`, at least one byte; `b""` at the end."""
        while self._seen == len(self.sent) and not self._is_over:
            await self._change()
        new = self.sent[self._seen :]
        self._seen = len(self.sent)
        return b"".join(piece for _, piece in new)

    async def done(self) -> bytes:
        """All that came until the end."""
        while not self._is_over:
            await self._change()
        return self.body

    async def _change(self) -> None:
        async with asyncio.timeout(10_000):
            self._changed.clear()
            await self._changed.wait()
        assert not self._wrong, self._wrong

    # What came.

    @property
    def body(self) -> bytes:
        assert not self._wrong, self._wrong
        return b"".join(piece for _, piece in self.sent)

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.sent]

    @property
    def _is_over(self) -> bool:
        return self.is_ended or self.is_cut or self._is_gone

    # What a reader does.

    async def send(self, message: Message) -> None:
        raise AssertionError(f"a reader sent {message}")

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._must(not self.heads, "two heads were sent")
        self._must(not self._is_over, "the head came after the end")
        self.heads.append(asyncio.get_running_loop().time())

    def write(self, data: bytes) -> bool:
        self._must(bool(self.heads), "a piece came before the head")
        self._must(not self._is_over, "a piece came after the end")
        self._must(not self._is_owed, "a piece came before the client had taken the last one")
        self.sent.append((asyncio.get_running_loop().time(), data))
        self._is_owed = self._is_stalled
        self._changed.set()
        if self._on_write is not None:
            self._on_write()
        return not self._is_owed

    def end(self, data: bytes = b"") -> None:
        self._must(bool(self.heads), "the end came before the head")
        self._must(not self._is_over, "the end came twice")
        if data:
            self.write(data)
        self.is_ended = True
        self._changed.set()

    def cut(self) -> None:
        self._must(bool(self.heads), "the cut came before the head")
        self._must(not self._is_over, "the cut came after the end")
        self.is_cut = True
        self._changed.set()
        self.sink.on_closed()

    def _must(self, condition: bool, otherwise: str) -> None:
        if not condition:
            self._wrong = self._wrong or otherwise
            self._changed.set()

    async def closed(self) -> None:
        await self.done()


def join(run: Feed, after: int = 0, *, outlet: FakeOutlet | None = None, holds: bool = True) -> FakeOutlet:
    """An outlet to which a new reader of the run writes. With `holds` the head waits until there is something to say."""
    joined = outlet or FakeOutlet()

    joined.sink = reader = Reader(run, after, joined, lambda: joined.start(200, []))
    run.join(reader, holds=holds)
    return joined


class House(Stage):
    """Runs without HTTP: `begin` one, and `call` for what it says to the API."""

    def __init__(self, *script: bytes, max_retries: int = 0, **limits: Any) -> None:
        super().__init__(*script, max_retries=max_retries)
        self.runs = Runs(RunLimits(**limits), observers=[RunLog()])

    def begin(
        self, dialect: Any = None, *, open_stream: Any = None, user: str = "", model: str = "claude-x", **names: Any
    ) -> Run:
        def call() -> EventStream:
            return self.client.messages.events(REQUEST, kind=UnfoldedAnswer)

        asked = Asked(dialect or TextDialect(), {"model": model}, **names)
        return self.runs.begin(Run(asked, user, self.runs), partial(EventPush, open_stream or call))

    async def started(self, dialect: Any = None) -> tuple[Run, Api]:
        """A run whose call to the API has come, and whose message has begun."""
        begun = self.begin(dialect)
        api = await self.call()
        api.send(start(), block_start(0, TEXT_BLOCK))
        await ticks(5)
        return begun, api

    async def finished(self, dialect: Any = None, **names: Any) -> Run:
        begun = self.begin(dialect, **names)
        await join(begun).done()
        await ticks(2)
        return begun


@asynccontextmanager
async def house(*script: bytes, **limits: Any) -> AsyncIterator[House]:
    opened = House(*script, **limits)
    try:
        yield opened
    finally:
        await opened.runs.aclose(Failure(503, "shutdown", "bye", retry=2000))


def data(wire: bytes) -> list[str]:
    return [frame.data for frame in frames(wire)]


def texts(count: int, size: int = 1) -> list[Any]:
    return [text_delta(0, f"{number:0{size}}") for number in range(count)]
