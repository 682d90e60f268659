"""A client of the crash suite: one run, read to its end mark through any number of connections, and checked as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

import h11

SILENCE = 5.0
"""Seconds after which a client gives a silent connection up."""

LONGEST_WAIT = 1.0
"""Seconds between two connections of a client that is refused."""

_ID = re.compile(r"\w+-(\d+)")


class Plan(NamedTuple):
    """An answer of the upstream. The prompt is this as JSON, so the text is known from it."""

    id: str
    pieces: int
    seconds: float
    """Between two pieces."""
    size: int = 0
    """Of each piece, about, in characters."""

    @property
    def prompt(self) -> str:
        return json.dumps(self)

    def piece(self, number: int) -> str:
        return f"{self.id}/{number} ".ljust(self.size, ".")

    def text(self, pieces: int) -> str:
        return "".join(map(self.piece, range(1, pieces + 1)))


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def ask(
    port: int, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"", room: int = 0
) -> AsyncIterator[Reply]:
    """One HTTP exchange. Raises `OSError` if it is lost, also in the pieces. `room`: of the socket, in bytes."""
    place = socket.socket()
    try:
        place.setblocking(False)
        if room:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        await asyncio.get_running_loop().sock_connect(place, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=place, limit=room or 65536)
    except BaseException:
        place.close()
        raise
    connection = h11.Connection(h11.CLIENT)
    fields = {"host": "localhost", "connection": "close", **(headers or {}), "content-length": str(len(body))}
    events = [h11.Request(method=method, target=target, headers=[*fields.items()]), h11.Data(data=body)]
    try:
        writer.write(b"".join(connection.send(event) or b"" for event in [*events, h11.EndOfMessage()]))

        async def next_event() -> Any:
            while True:
                try:
                    event = connection.next_event()
                except h11.RemoteProtocolError as exc:
                    raise ConnectionError(str(exc)) from exc
                if event is not h11.NEED_DATA:
                    return event
                connection.receive_data(await reader.read(4096))

        async def pieces() -> AsyncIterator[bytes]:
            while isinstance(event := await next_event(), h11.Data):
                yield bytes(event.data)

        head = await next_event()
        while isinstance(head, h11.InformationalResponse):
            head = await next_event()
        if not isinstance(head, h11.Response):
            raise ConnectionError("no answer")
        found = {name.decode(): value.decode() for name, value in head.headers}
        yield Reply(head.status_code, found, pieces())
    finally:
        writer.transport.abort()


class Around(Protocol):
    """The part of the world that a client needs."""

    port: int
    known: set[str]
    """Runs that some client was answered of."""

    @property
    def clock(self) -> Callable[[], float]: ...

    def complain(self, what: str) -> None: ...


class Reading:
    """One client of one run: it comes back with the last id it has seen until it has seen the end mark."""

    def __init__(self, world: Around, plan: Plan, *, posts: bool = False, is_slow: bool = False) -> None:
        self._world, self.plan, self._posts, self.is_slow = world, plan, posts, is_slow
        self.last = 0
        self._last_id = ""
        self.text = ""
        self.tail: list[tuple[int, str]] = []  # the frames after the text: 0 if they have no number
        self.ended_at: float | None = None
        self.connections = 0
        self._refusals = 0

    async def follow(self) -> None:
        chance = random.Random(f"{self.plan.id} {self._posts}")
        while self.ended_at is None:
            with contextlib.suppress(OSError):  # TimeoutError is one
                await self._connect()
            if self.ended_at is None:
                self.tail = [each for each in self.tail if each[0]]
                await asyncio.sleep(chance.uniform(0.2, 1) * min(0.1 * 2**self._refusals, LONGEST_WAIT))

    async def _connect(self) -> None:
        self.connections += 1
        was_known = self.plan.id in self._world.known
        headers = (
            {"x-run-id": self.plan.id} if self._posts else {"last-event-id": self._last_id} if self._last_id else {}
        )
        target = ("POST", "/stream") if self._posts else ("GET", f"/runs/{self.plan.id}")
        body = json.dumps({"message": self.plan.prompt}).encode() if self._posts else b""
        if self._posts:
            headers["content-type"] = "application/json"
        async with asyncio.timeout(SILENCE) as limit:
            async with ask(self._world.port, *target, headers, body, 4096 if self.is_slow else 0) as reply:
                if (
                    reply.status != 200
                ):  # of a POST also a run that was lost before its first frame: sent again, it is known
                    body = b"".join([piece async for piece in reply.pieces])
                    await self._refused(reply.status, body, was_known=was_known)
                    return
                self._posts, self._refusals = False, 0
                self._world.known.add(self.plan.id)
                rest = b""
                async for piece in reply.pieces:
                    limit.reschedule(asyncio.get_running_loop().time() + SILENCE)
                    *frames, rest = (rest + piece).split(b"\n\n")
                    for frame in frames:
                        self._take(frame.decode())
                    if self.ended_at is not None:
                        return
                    if self.is_slow:
                        await asyncio.sleep(0.05)

    async def _refused(self, status: int, body: bytes, *, was_known: bool) -> None:
        self._refusals += 1
        if status not in (502, 503, 504) and (was_known or status != 404):  # 404: the run has not begun yet
            self._say(f"was answered {status}: {body[:200]!r}")
            await asyncio.sleep(1)

    def _take(self, frame: str) -> None:
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":") and line)
        if "data" not in fields:
            return
        data, found = fields["data"], _ID.fullmatch(fields.get("id", ""))
        number = int(found[1]) if found else 0
        text = json.loads(data).get("text") if data.startswith("{") else None
        if (
            self.ended_at is not None
            or (number and number <= self.last)
            or (self.tail and not self.tail[-1][0] and number)
        ):
            self._say(f"got the frame {frame!r} after {self.last}, {self.tail}")
        if text is not None:
            self.text += text
            if not number or self.tail or self.text != self.plan.text(number):
                self._say(f"got the frame {frame[:200]!r} after {self.last}: the text is not {number} pieces long")
        elif number and number != self.last + 1:
            self._say(f"got the frame {frame!r} after {self.last}")
        if number:
            self.last, self._last_id = number, fields["id"]
        if text is None:
            self.tail.append((number, data))
            if data == "[DONE]":
                self.ended_at = self._world.clock()

    def _say(self, what: str) -> None:
        self._world.complain(f"a reader of {self.plan.id} {what}")

    def compare(self, whole: Reading) -> None:
        """With what a later reader has seen."""
        numbered = [each for each in self.tail if each[0]]
        if not whole.text.startswith(self.text) or whole.last < self.last or whole.tail[: len(numbered)] != numbered:
            self._say(f"saw {self.last}, {self.tail}; a later reader {whole.last}, {whole.tail}")
        if self.tail and self.tail[-1][0] and self.text != whole.text:
            self._say(f"saw the end {self.tail} after {len(self.text)} characters, a later reader {len(whole.text)}")

    @property
    def was_told_alone(self) -> bool:
        """The last frame had no id: it came from a node that has lost the run."""
        return bool(self.tail and not self.tail[-1][0])
