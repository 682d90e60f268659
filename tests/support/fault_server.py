"""A server on a loopback socket that answers with scripts: bytes as they stand here, and what can go wrong between them.

Knows HTTP just enough to read a request. It writes nothing of its own: heads, framing and mistakes are the script's.

    async with FaultServer() as server:
        server.play([SSE_HEAD, RESET], [whole])     # the first request is cut, every later one is answered
        await client.messages.create(**ASK)         # base_url=server.base_url
        [request.json for request in server.requests]

A script that comes to its end leaves the connection open for the next request, as HTTP/1.1 does. A `Pause` takes no real time
under `support.clock.run`.
"""

from __future__ import annotations

import asyncio
import enum
import json
import socket
import struct
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from support.clock import ticks
from support.sockets import serving

__all__ = ["CLOSE", "HOLD", "RESET", "AskedOf", "Fault", "FaultServer", "Pause", "Script", "Step"]


class Fault(enum.Enum):
    """What a server may do instead of going on."""

    CLOSE = "ends the connection"
    RESET = "ends it with a TCP reset"
    HOLD = "says nothing more, until the client leaves"


CLOSE, RESET, HOLD = Fault.CLOSE, Fault.RESET, Fault.HOLD


@dataclass(frozen=True, slots=True)
class Pause:
    """Say nothing for so many seconds."""

    seconds: float


Step: TypeAlias = bytes | Fault | Pause
Script: TypeAlias = Sequence[Step]

_FLUSHING_TICKS = 5
"""Loop iterations after which a client in the same loop has read what was written: a reset must not overtake it."""

_NO_LINGER = struct.pack("ii", 1, 0)  # socket(7): a close with this is a reset


@dataclass(frozen=True, slots=True)
class AskedOf:
    """A request as it came. Names of header fields are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)


class FaultServer:
    """`base_url`, the `requests` since the last `play`, and whether it keeps a client waiting right now (`is_holding`)."""

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[AskedOf] = []
        self.is_holding = False
        self._scripts: tuple[Script, ...] = ()
        self._entered = AsyncExitStack()

    def play(self, *scripts: Script) -> None:
        """Answer the requests from now on with these scripts; the last one again and again."""
        self._scripts = scripts
        self.requests = []

    async def __aenter__(self) -> Self:
        origin = await self._entered.enter_async_context(serving(self._serve))
        self.base_url = f"http://127.0.0.1:{origin.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._entered.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read_request(reader)) is not None:
            script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
            self.requests.append(request)
            for step in script:
                if not await self._take(step, reader, writer):
                    return

    async def _take(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One step. False if it was the connection's last."""
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            return True
        if isinstance(step, Pause) or step is HOLD:
            await self._hold(asyncio.sleep(step.seconds) if isinstance(step, Pause) else reader.read())
            return isinstance(step, Pause)
        await ticks(_FLUSHING_TICKS)
        if step is RESET:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        return False

    async def _hold(self, waiting: Any) -> None:
        self.is_holding = True
        try:
            await waiting
        finally:
            self.is_holding = False


async def _read_request(reader: asyncio.StreamReader) -> AskedOf | None:
    """The next request; None if the client has left."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = line.split(" ")
    return AskedOf(method, target, headers, body)
