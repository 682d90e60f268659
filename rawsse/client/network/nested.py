"""TLS within TLS: an https origin behind an https proxy.

This file knows how TLS is spoken over any `Stream`. It refuses to know sockets, certificates and proxies.

    stream = await start_tls(stream_to_the_proxy, context, "api.example")

asyncio can do it too, by `start_tls` on a transport that is in TLS already. But where such a handshake fails (a certificate
that is not trusted, say), the asyncio of Python 3.11 and of early 3.12 trips over its own feet: a TypeError goes to the loop's
exception handler, and what was wrong is lost. So this is `ssl.SSLObject` between two buffers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from rawsse.client.network.net import Stream

__all__ = ["NESTED_READ_BYTES", "NestedStream", "start_tls"]

NESTED_READ_BYTES = 64 * 1024
"""How much is read of the stream below at a time."""


async def start_tls(stream: Stream, context: ssl.SSLContext, host: str) -> NestedStream:
    """The stream within TLS; what was there before is aborted if that fails or is cancelled. Raises `OSError`, `ValueError`."""
    import ssl

    try:
        nested = NestedStream(stream, context, host)
        while True:
            try:
                nested.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await nested.flush()
                nested.take(await stream.read(NESTED_READ_BYTES))
        await nested.flush()
    except BaseException:
        stream.abort()
        raise
    return nested


class NestedStream:
    """A `Stream` in TLS over another one. `tls` is the `ssl.SSLObject`."""

    def __init__(self, stream: Stream, context: ssl.SSLContext, host: str) -> None:
        import ssl

        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._needs_more = ssl.SSLWantReadError
        self._has_ended = ssl.SSLEOFError
        self._is_over = False
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def read(self, max_bytes: int) -> bytes:
        while (data := self._decrypt(max_bytes)) is None:
            self.take(await self._stream.read(NESTED_READ_BYTES))
        return data

    def read_nowait(self) -> bytes | None:
        while (data := self._decrypt(NESTED_READ_BYTES)) is None:
            came = self._stream.read_nowait()
            if came is None:
                return None
            self.take(came)
        return data

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        await self.flush()

    def abort(self) -> None:
        self._stream.abort()

    def take(self, data: bytes) -> None:
        """Take bytes from the stream below."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def flush(self) -> None:
        """Send what TLS has to say. Only the writer does: what TLS answers to what was read (RFC 8446, 4.6.3: a KeyUpdate)
        must be sent "prior to sending its next Application Data record", and may wait for that."""
        if data := self._outgoing.read():
            await self._stream.write(data)

    def _decrypt(self, max_bytes: int) -> bytes | None:
        """The next bytes; `b""` at the end, None if more is needed. A peer that does not say goodbye has closed all the same,
        as in asyncio: whether the answer was whole is for whoever reads it."""
        if self._is_over:
            return b""
        try:
            data: bytes = self.tls.read(max_bytes)
        except self._needs_more:
            return None
        except self._has_ended:
            data = b""
        self._is_over = not data
        return data
