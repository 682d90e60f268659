"""`rawsse serve` leaves: a process with many open streams gets SIGTERM. Everything here is real: process, sockets, time.

Nothing is waited for by the clock. A test goes on when every stream has begun, when the API has sent more than is read, or
when the process has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.background import PATIENCE
from support.command import Command
from support.streams import STOP, block_start, block_stop, end, start, text_delta, to_bytes

from rawsse.server import Receive, Scope, Send, Server

KEY = "sk-ant-the-owner's-key"
BEGINNING = to_bytes([start(), block_start(0, {"type": "text", "text": ""}), text_delta(0, "Hello")])
ENDING = to_bytes([block_stop(0), end(), STOP])
PIECE = to_bytes([text_delta(0, "x" * 1000)]) * 64
FULL = 4 * 1024 * 1024
"""What a run keeps of its frames: a reader that has read nothing is far behind. The buffers on the way hold little more."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be handled")


UVICORN = """
import socket, sys, uvicorn
from rawsse import AsyncClient
from rawsse.relay import Relay

relay = Relay(AsyncClient(base_url=sys.argv[1]), shutdown_seconds=float(sys.argv[2]))

async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        return await relay(scope, receive, send)
    await receive()
    async with relay.lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[listener])
"""


class Api:
    """The API. The prompt says how it answers: `idle` after the beginning (until `may_end`), `busy`, or in a `flood`."""

    def __init__(self) -> None:
        self.open = 0
        self.full = asyncio.Semaphore(0)
        self.may_end = asyncio.Event()
        self.all_closed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        prompt = json.loads((await receive())["body"])["messages"][0]["content"]
        self.open += 1
        self.all_closed.clear()
        answering = asyncio.create_task(self._answer(prompt, send))
        while (await receive())["type"] != "http.disconnect":
            pass
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        self.open -= 1
        if not self.open:
            self.all_closed.set()

    async def _answer(self, prompt: str, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BEGINNING, "more_body": True})
        sent = 0
        while prompt != "idle":
            await send(
                {"type": "http.response.body", "body": PIECE if prompt == "flood" else PIECE[:1100], "more_body": True}
            )
            sent += len(PIECE)
            if prompt == "flood" and sent - len(PIECE) <= FULL < sent:
                self.full.release()
            await asyncio.sleep(0 if prompt == "flood" else 0.02)  # what busy means
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": ENDING, "more_body": False})


class Stream:
    """One browser's connection to the relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def begin(self) -> None:
        """Wait until the answer has begun."""
        await asyncio.wait_for(self.reader.readuntil(b"Hello"), PATIENCE)

    async def rest(self) -> bytes:
        """All that comes until the connection ends."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), PATIENCE)
        return b""


class House:
    """An API, a relay in front of it that is a process, and browsers."""

    def __init__(self, api: Api, command: Command) -> None:
        self.api, self.command = api, command
        self.streams: list[Stream] = []

    async def ask(self, prompt: str, *, expect: str = "") -> Stream:
        """Send a request."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.setblocking(False)
        host, port = self.command.base_url.removeprefix("http://").split(":")
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        stream = Stream(*await asyncio.open_connection(sock=sock, limit=2**20 if prompt != "flood" else 2**14))
        self.streams.append(stream)
        body = json.dumps({"prompt": prompt}).encode()
        head = f"POST /api/chat HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n{expect}"
        stream.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + (b"" if expect else body))
        return stream

    async def ask_half(self) -> None:
        """Send the head of a request, whose body never comes; the relay waits for it."""
        stream = await self.ask("idle", expect="expect: 100-continue\r\n")
        await asyncio.wait_for(stream.reader.readuntil(b"100 Continue"), PATIENCE)

    async def open(self, **counts: int) -> dict[str, list[Stream]]:
        """So many streams of each kind; all have begun, and those that flood are full."""
        streams = {prompt: [await self.ask(prompt) for _ in range(count)] for prompt, count in counts.items()}
        for prompt, asked in streams.items():
            for stream in asked:
                await (asyncio.wait_for(self.api.full.acquire(), PATIENCE) if prompt == "flood" else stream.begin())
        return streams

    def signal(self) -> None:
        self.command._process.send_signal(signal.SIGTERM)

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.command.wait)


@asynccontextmanager
async def house(grace: float, drain: float, program: str = "") -> AsyncIterator[House]:
    api = Api()
    async with Server(api, port=0, grace_seconds=0) as upstream:
        serve = ("serve", "--port", "0", "--base-url", upstream.base_url, "--grace", f"{grace}", "--drain", f"{drain}")
        arguments = (upstream.base_url, f"{drain}") if program else serve
        options: dict[str, Any] = {"program": ("-c", program)} if program else {}
        with Command(*arguments, env={"ANTHROPIC_API_KEY": KEY}, **options) as command:
            opened = House(api, command)
            try:
                yield opened
            finally:
                for stream in opened.streams:
                    stream.writer.transport.abort()


def play(
    story: Callable[[House], Coroutine[Any, Any, None]], *, grace: float, drain: float = 0, program: str = ""
) -> None:
    async def inner() -> None:
        async with house(grace, drain, program) as opened:
            await story(opened)

    asyncio.run(inner())


def is_farewell(rest: bytes) -> bool:
    """The connection ended as it should: with a last frame that says why and when to come back, and a whole body."""
    return b'"type":"shutdown"' in rest and b"retry: 2000\n" in rest and rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_every_stream_is_told_and_the_process_does_not_wait_for_its_grace_time() -> None:
    async def story(opened: House) -> None:
        streams = await opened.open(busy=25, idle=25)
        opened.signal()
        rests = await asyncio.gather(*(stream.rest() for stream in streams["busy"] + streams["idle"]))
        assert [is_farewell(rest) for rest in rests] == [True] * 50
        assert await opened.exit_code() == 0
        await asyncio.wait_for(opened.api.all_closed.wait(), PATIENCE)

    play(story, grace=60)


def test_clients_that_do_not_read_or_do_not_send_hold_it_up_for_its_grace_time_and_no_longer() -> None:
    async def story(opened: House) -> None:
        streams = await opened.open(busy=20, idle=25, flood=4)
        await opened.ask_half()
        before = time.monotonic()
        opened.signal()
        rests = await asyncio.gather(*(stream.rest() for stream in streams["busy"] + streams["idle"]))
        assert [is_farewell(rest) for rest in rests] == [True] * 45
        assert await opened.exit_code() == 0
        assert 0.3 <= time.monotonic() - before < 5
        await asyncio.wait_for(opened.api.all_closed.wait(), PATIENCE)

    play(story, grace=0.3)


def test_a_second_signal_ends_it_at_once() -> None:
    async def story(opened: House) -> None:
        streams = await opened.open(idle=1)
        await opened.ask_half()
        opened.signal()
        assert is_farewell(await streams["idle"][0].rest())  # it is leaving, and waits for the other
        opened.signal()
        assert await opened.exit_code() == 0
        await asyncio.wait_for(opened.api.all_closed.wait(), PATIENCE)

    play(story, grace=60)


def get(opened: House, path: str) -> tuple[int, bytes]:
    """One request, on a connection of its own."""
    host = opened.command.base_url.removeprefix("http://")
    asked = http.client.HTTPConnection(host, timeout=PATIENCE)
    try:
        asked.request("GET", path)
        answer = asked.getresponse()
        return answer.status, answer.read()
    finally:
        asked.close()


async def drained(opened: House) -> None:
    """Wait until the relay says that it takes no more requests."""
    async with asyncio.timeout(PATIENCE):
        while (await asyncio.to_thread(get, opened, "/readyz"))[0] != 503:
            pass


def test_with_drain_running_answers_come_to_their_end_and_new_requests_are_refused() -> None:
    async def story(opened: House) -> None:
        streams = await opened.open(idle=5)
        opened.signal()
        await drained(opened)
        refused = await opened.ask("idle")
        assert (await refused.reader.readline()).startswith(b"HTTP/1.1 503")
        opened.api.may_end.set()
        for stream in streams["idle"]:
            rest = await stream.rest()
            assert b"event: message_stop" in rest
            assert rest.endswith(b"\r\n0\r\n\r\n")
        refused.writer.close()
        assert await opened.exit_code() == 0

    play(story, grace=60, drain=600)


def test_a_second_signal_ends_the_drain_with_a_last_frame_and_the_third_one_ends_at_once() -> None:
    async def story(opened: House) -> None:
        streams = await opened.open(idle=5)
        await opened.ask_half()
        opened.signal()
        await drained(opened)
        opened.signal()
        assert [is_farewell(await stream.rest()) for stream in streams["idle"]] == [True] * 5
        opened.signal()
        assert await opened.exit_code() == 0

    play(story, grace=60, drain=600)


@pytest.mark.real
@pytest.mark.parametrize("signals", [1, 2])
def test_in_an_application_under_uvicorn_the_answers_end_too_or_at_the_second_signal_with_a_last_frame(
    signals: int,
) -> None:
    pytest.importorskip("uvicorn", reason="a server that is not ours: the interop extra")

    async def story(opened: House) -> None:
        streams = await opened.open(idle=5)
        opened.signal()
        with contextlib.suppress(OSError):  # uvicorn accepts no more connections
            await drained(opened)
        if signals == 2:
            opened.signal()
        else:
            opened.api.may_end.set()
        for stream in streams["idle"]:
            rest = await stream.rest()
            assert (b"event: message_stop" in rest, is_farewell(rest)) == (signals == 1, signals == 2)
        assert await opened.exit_code() == -signal.SIGTERM  # uvicorn raises it again

    play(story, grace=60, drain=600, program=UVICORN)


def test_its_log_says_how_each_run_ended_and_no_secret() -> None:
    async def story(opened: House) -> None:
        await opened.open(idle=3)
        opened.signal()
        assert await opened.exit_code() == 0
        said = opened.command.complaint()
        assert said.count("(events) ended: cancelled, the server is shutting down") == 3
        assert KEY not in said
        assert "idle" not in said
        assert "Traceback" not in said

    play(story, grace=60)
