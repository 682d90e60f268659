"""A relay between an API and browsers that do just what the test says; no socket anywhere.

Everything runs in one loop in virtual time (`support.clock`), which also fails a test that leaves a task or a timer's victim.

    async def story() -> None:
        async with relay() as stage:
            browser = stage.ask("POST", "/stream", {"prompt": "Hi"})
            api = await stage.call()                  # the relay's call to the API has come
            api.send(start(), text_delta(0, "Hello"))
            assert await browser.read() == b'...'
            browser.leave()
    run(story())
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from support.clock import run
from support.streams import ANSWER, Raw, to_bytes

from rawsse.client.client import AsyncClient
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from rawsse.relay import Relay
from rawsse.replay.fakes import FakeStream, fake_links
from rawsse.sse import Decoder, Event

__all__ = [
    "CHAT",
    "HEAD",
    "KEY",
    "WHOLE",
    "Api",
    "Browser",
    "Stage",
    "ask",
    "error_json",
    "error_of",
    "frames",
    "relay",
]

KEY = "sk-ant-the-owner's-key"
CHAT = {"message": "Why is the sky blue?"}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_1\r\n\r\n"
"""A response that ends when the connection does."""
WHOLE = HEAD + to_bytes(ANSWER)


class Api:
    """One connection of the relay to the API. `sent` is the relay's request; `closed`: the relay has dropped it."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.reads = 0
        self.flood = b""
        """What it says over and over, without ever waiting, once all else is said."""
        self.stream = _Stream(self)
        self._has_begun = False

    @property
    def sent(self) -> bytearray:
        return self.stream.written

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()

    @property
    def json(self) -> Any:
        return json.loads(self.sent.partition(b"\r\n\r\n")[2])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.sent.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines)

    def send(self, *raws: Raw, end: bool = False) -> None:
        """Send events; before the first ones the head. With `end` the connection ends after them."""
        self.write((b"" if self._has_begun else HEAD) + to_bytes(raws))
        self._has_begun = True
        if end:
            self.close()

    def write(self, data: bytes) -> None:
        self.stream.say(data)

    def close(self, error: BaseException | None = None) -> None:
        self.stream.say(end=error or b"")


class _Stream(FakeStream):
    """`Api` as the relay's client has it."""

    def __init__(self, api: Api) -> None:
        super().__init__(end=None)
        self._api = api

    def say(self, *chunks: bytes, end: bytes | BaseException | None = None) -> None:
        self._chunks.extend(chunks)
        self._last = end
        self._change()

    async def read(self, deadline: float) -> bytes:
        await asyncio.sleep(0)  # so that others have their turn, also in a flood
        return await super().read(deadline)

    def read_ready(self) -> bytes | None:
        data = super().read_ready()
        data = (self._api.flood or None) if data is None else data
        self._api.reads += data is not None
        return data

    def abort(self) -> None:
        super().abort()
        self._api.closed.set()


class Browser:
    """One request to the relay, as an ASGI server hands it over. `sent` has what was sent and when."""

    def __init__(self, app: Relay, scope: dict[str, Any], body: bytes) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.sent: list[tuple[float, bytes]] = []
        self.is_ended = False
        self.is_told = True
        """What is sent after the client has left raises; some servers just drop it."""
        self.calls: list[Api] = []
        """The relay's calls to the API; `ask` fills it in."""
        self.started = self._now()
        self._incoming = [{"type": "http.request", "body": body, "more_body": False}]
        self._gone = asyncio.Event()
        self._takes = asyncio.Event()
        self._takes.set()
        self._changed = asyncio.Event()
        self._read = 0
        self.task = asyncio.get_running_loop().create_task(app(scope, self._receive, self._send))

    # What the test does.

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()
        self._takes.set()

    def stall(self) -> None:
        """Read no further: what is sent from now on waits."""
        self._takes.clear()

    def go_on(self) -> None:
        self._takes.set()

    async def head(self) -> int:
        """The status, once the head has come."""
        while not self.status:
            await self._change()
        return self.status

    async def read(self) -> bytes:
        """What came since the last `read`, at least one byte; `b""` at the end."""
        while self._read == len(self.sent) and not self.task.done():
            await self._change()
        new = self.sent[self._read :]
        self._read = len(self.sent)
        return b"".join(data for _, data in new)

    async def done(self) -> Browser:
        """Wait for the answer's end."""
        await self.task
        return self

    # What came.

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.sent)

    @property
    def frames(self) -> list[Event]:
        return frames(self.body)

    @property
    def data(self) -> list[str]:
        return [frame.data for frame in self.frames]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def times(self) -> list[float]:
        """Seconds since the request at which something came."""
        return [time - self.started for time, _ in self.sent]

    # What an ASGI server does.

    async def _receive(self) -> dict[str, Any]:
        if self._incoming:
            return self._incoming.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self._gone.is_set() and self.is_told:
            raise ConnectionResetError("the client is gone")
        assert not self.is_ended, "something was sent after the end"
        if message["type"] == "http.response.start":
            assert not self.status, "two heads were sent"
            self.status = message["status"]
            self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            assert self.status, "a body came before its head"
            if message["body"]:
                self.sent.append((self._now(), message["body"]))
            self.is_ended = not message.get("more_body", False)
        self._changed.set()
        await self._takes.wait()

    async def _change(self) -> None:
        self._changed.clear()
        change = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait({change, self.task}, return_when=asyncio.FIRST_COMPLETED)
        change.cancel()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class Stage:
    """The relay, and the two sides of it. `script` is what the API says to the first calls, whole, one after the other."""

    def __init__(self, *script: bytes, key: str | None = KEY, max_retries: int = 0, **options: Any) -> None:
        self.calls: list[Api] = []
        self._script = list(script)
        self._came: asyncio.Queue[Api] = asyncio.Queue()
        self.client = AsyncClient(
            api_key=key,
            base_url="http://api.test",
            connect=fake_links(self._connect),
            max_retries=max_retries,
            trust_env=False,
        )
        self.relay = Relay(self.client, **options)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "",
        root_path: str = "",
        kind: type[Browser] = Browser,
    ) -> Browser:
        """Begin a request. `body` is JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        fields = (
            {"host": "localhost:8000"} | ({"content-type": "application/json"} if data else {}) | dict(headers or {})
        )
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root_path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
        }
        return kind(self.relay, scope, data)

    async def call(self) -> Api:
        """The relay's next call to the API."""
        return await self._came.get()

    async def _connect(self, route: Route, tls: TLSContext) -> _Stream:
        del route, tls
        api = Api()
        if self._script:
            api.write(self._script.pop(0))
            api.close()
        self.calls.append(api)
        self._came.put_nowait(api)
        return api.stream


@asynccontextmanager
async def relay(*script: bytes, **options: Any) -> AsyncIterator[Stage]:
    """A stage, whose relay is closed at the end."""
    stage = Stage(*script, **options)
    try:
        yield stage
    finally:
        await stage.relay.aclose()


def ask(method: str, path: str, body: Any = None, *, api: bytes = WHOLE, **options: Any) -> Browser:
    """One request to a relay of its own, whole."""
    request = {name: options.pop(name) for name in ("headers", "query", "root_path") if name in options}

    async def story() -> Browser:
        async with relay(api, **options) as stage:
            browser = await stage.ask(method, path, body, **request).done()
            browser.calls = stage.calls
            return browser

    return run(story())


def frames(data: bytes) -> list[Event]:
    """The server-sent events in a body, which must end after one."""
    decoder = Decoder()
    events = decoder.feed(data)
    assert decoder.close() == b"", "the body ends inside an event"
    return events


def error_json(browser: Browser) -> tuple[int, str, str | None]:
    """(status, type, field) of an error in JSON."""
    assert browser.headers["content-type"] == "application/json"
    error = browser.json["error"]
    return browser.status, error["type"], error.get("field")


def error_of(browser: Browser) -> tuple[int, str, str | None]:
    """(status, type, field) of an error in the form of its route. The text for `useChat` has no type, and begins with the
    field."""
    kind = browser.headers["content-type"]
    if kind == "application/json":
        return error_json(browser)
    if kind == "text/plain; charset=utf-8":
        return browser.status, "", browser.body.decode().partition(": ")[0]
    assert kind == "text/event-stream; charset=utf-8"
    said, done = browser.frames
    assert done.data == "[DONE]"
    error = json.loads(said.data)
    error = error if said.event == "message" else error["error"]
    return browser.status, error["type"], error.get("field")
