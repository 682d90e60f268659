"""One request and the app's answer: what ASGI's `receive` and `send` mean for it.

This file knows the order in which an app may send, and when it is told what. It refuses to know sockets and deadlines:
those are its connection's, which calls `run` once and `feed` with what the client sends.
"""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING

from rawsse.errors import HTTPUsageError, quote
from rawsse.http1 import Data, EndOfMessage
from rawsse.server.asgi import ASGIApp, ClientDisconnectedError, Message, Scope

if TYPE_CHECKING:  # a connection makes calls; a call only has to know what it may ask of its connection
    from rawsse.server.connection import Connection

__all__ = ["Call", "Stage"]

logger = logging.getLogger("rawsse.server")


class Stage(enum.Enum):
    """How far the response is."""

    NONE = enum.auto()
    HELD = enum.auto()
    """Its head was given; it is sent with the first piece of the body."""
    BODY = enum.auto()
    COMPLETE = enum.auto()
    WIRE = enum.auto()
    """The app writes its own bytes: the `rawsse.wire` extension."""


class Call:
    """One call of the app.

    When the response is complete the connection goes on to its next request, also while the app still runs: what it does
    then (a background task) concerns no client.
    """

    __slots__ = ("_body", "_connection", "_is_told", "_scope", "_start", "is_whole", "stage")

    def __init__(self, connection: Connection, scope: Scope) -> None:
        self.stage = Stage.NONE
        self.is_whole = False  # the request's body has come
        self._is_told = False  # and the app was told so
        self._body = bytearray()
        self._start: Message = {}
        self._connection = connection
        self._scope = scope

    async def run(self, app: ASGIApp) -> None:
        """Call the app. Its failure is logged and ends the connection; that the client has left is no failure."""
        name = f"{self._scope['method']} {self._scope['raw_path'].decode()}"
        try:
            await app(self._scope, self.receive, self.send)
            if self.stage not in (Stage.COMPLETE, Stage.WIRE) and not self._connection.is_gone:
                logger.error("%s: the app returned without a complete response", name)
        except ClientDisconnectedError:
            pass
        except Exception as exc:
            # Frameworks wrap what `send` raises in an error of their own.
            is_wrapped = isinstance(exc.__cause__ or exc.__context__, ClientDisconnectedError)
            logger.log(logging.DEBUG if is_wrapped else logging.ERROR, "%s: the app failed", name, exc_info=exc)
        finally:
            self._connection.app_returned(self)

    # --- The request

    @property
    def is_full(self) -> bool:
        """The app has left more of the body than is to be held."""
        return len(self._body) > self._connection.limits.max_buffered_bytes

    def feed(self, event: Data | EndOfMessage) -> None:
        """The next piece of the request's body, or its end."""
        if isinstance(event, Data):
            self._body += event.data
        else:
            self.is_whole = True
        self._connection.wake()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        connection = self._connection
        while self.stage is not Stage.COMPLETE and not connection.is_gone:
            if self._body or (self.is_whole and not self._is_told):
                return self._take_body()
            await (connection.wait() if self.is_whole else connection.wait_for_body())
        return {"type": "http.disconnect"}

    def _take_body(self) -> Message:
        body = bytes(self._body)
        self._body.clear()
        self._is_told = self.is_whole
        self._connection.regulate_reading()
        return {"type": "http.request", "body": body, "more_body": not self.is_whole}

    # --- The response

    async def send(self, message: Message) -> None:
        """ASGI's `send`. Waits while the client takes less than is sent."""
        connection = self._connection
        if self.stage is Stage.COMPLETE:
            raise HTTPUsageError(f"{quote(message['type'])} came after the response was complete")
        if message["type"] == "rawsse.wire.reset":
            await connection.all_sent()
        if connection.is_gone:
            raise ClientDisconnectedError("the client is gone")
        if message["type"] == "http.response.body":
            self._send_body(message)
        elif message["type"] == "http.response.start" and self.stage is Stage.NONE:
            # "The protocol server must not start sending the response to the client until it has received at least one
            # Response Body event." So an app that fails in between gets its 500, and both travel in one packet.
            self.stage, self._start = Stage.HELD, message
        else:
            self._send_wire(message)
        if connection.is_write_paused:
            await connection.drain()
        if self.stage is Stage.COMPLETE:
            connection.end_call()

    def _send_body(self, message: Message) -> None:
        if self.stage is not Stage.BODY and self.stage is not Stage.HELD:
            raise HTTPUsageError("http.response.body came before http.response.start")
        wire = self._head() if self.stage is Stage.HELD else b""
        wire += self._connection.http.send_data(message.get("body", b""))
        if not message.get("more_body", False):
            wire += self._connection.http.send_end()
            self.stage = Stage.COMPLETE
        self._connection.write(wire)

    def _head(self) -> bytes:
        start, self._start = self._start, {}
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]
        wire = self._connection.head(start["status"], fields)
        self.stage = Stage.BODY
        return wire

    def _send_wire(self, message: Message) -> None:
        match message["type"]:
            case "rawsse.wire.send" if self.stage in (Stage.NONE, Stage.WIRE):
                self._connection.write_through()
                self._connection.write(message["data"])
            case "rawsse.wire.half_close":
                self._connection.half_close()
            case "rawsse.wire.reset":
                self._connection.reset()
            case unexpected:
                raise HTTPUsageError(f"{quote(unexpected)} may not be sent now")
        self.stage = Stage.WIRE
