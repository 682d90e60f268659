"""A response as bytes on its connection, which may end in ways that HTTP does not allow.

wire = Wire(scope["extensions"]["rawsse.wire"])         # from `rawsse.server`
await wire.send(b"HTTP/1.1 200 OK\\r\\n")                # one write
await wire.reset()                                      # or half_close(), or end()
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

from rawsse.server.connection import Connection

_SIOCOUTQNSD = 0x894B  # linux/sockios.h: "output queue size (not sent only)"
_UNSENT_SECONDS = 0.001
"""When it is asked for the first time; then half as often each time. Nothing tells when it has changed."""


class Wire:
    """The connection of one request, taken over from the server. The caller must `end` or `reset` it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport = connection.take_over()
        # The client counts as behind until the system has taken every byte: no reset can overtake one in our own buffer.
        self._transport.set_write_buffer_limits(high=0)

    async def send(self, data: bytes) -> None:
        """Send `data` in one write; wait until the system has taken all of it. Raises `ClientDisconnectedError`."""
        self._transport.write(data)
        await self._connection.drain()

    def half_close(self) -> None:
        """FIN, after all that was sent. The client may still send."""
        self._transport.write_eof()

    def end(self) -> None:
        """Close the connection, after all that was sent; nothing if it is closed."""
        if not self._connection.is_gone:
            self._connection.end()

    async def reset(self) -> None:
        """RST. It throws away what the system took and has not sent: that is waited for, for `linger_seconds` at most."""
        seconds, deadline = _UNSENT_SECONDS, self._now() + self._connection.limits.linger_seconds
        while not self._connection.is_gone and self._unsent_bytes() and (left := deadline - self._now()) > 0:
            await asyncio.sleep(min(seconds, left))
            seconds *= 2
        if not self._connection.is_gone:
            # l_onoff 1, l_linger 0: close() then resets the connection (socket(7)).
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._connection.abort()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _unsent_bytes(self) -> int:
        """Bytes that the system holds back: the client's window is full, or it gathers small pieces. Known on Linux only."""
        if sys.platform != "linux":
            return 0
        import fcntl

        told = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), _SIOCOUTQNSD, bytes(4))
        return int.from_bytes(told, sys.byteorder)
