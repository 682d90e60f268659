"""TLS over any link, by `ssl.MemoryBIO`: over TCP, and over TLS to an https proxy. One implementation for every network.

    secure = await start_tls(link, context, "api.example", deadline)
    data = await secure.read(deadline)

asyncio's TLS holds 256 KiB per connection and takes more CPU, and blocking sockets have a different one. This one reads
plaintext in the same way on both, and a deadline covers the whole handshake, however slowly its bytes arrive.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from rawsse.client.network.link import READ_BYTES, Aborted, PushSource


async def start_tls(link: Any, context: ssl.SSLContext, host: str, deadline: float) -> TLSLink:
    """TLS to `host` over a connected link. The caller aborts the link if this fails.

    Raises `OSError` (`ssl.SSLError` is one), `ValueError` for a host name that cannot be one, `Expired`, `Aborted`.
    """
    secure = TLSLink(link, context, host)
    while True:
        try:
            secure.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await secure.flush(deadline)
            secure.take(await link.read(deadline))
        except OSError:
            # RFC 8446, 6.2: the alert that says what was wrong with the peer's handshake. It helps the peer's log, not us.
            with contextlib.suppress(OSError):
                await secure.flush(deadline)
            raise
    await secure.flush(deadline)
    return secure


class TLSLink(PushSource):
    """A `Link` in TLS over `link`. `tls` is the `ssl.SSLObject`."""

    def __init__(self, link: Any, context: ssl.SSLContext, host: str) -> None:
        self._link = link
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # b"", or what broke TLS. Plaintext that came with it is read first.
        self._plain_end: bytes | OSError | None = None
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def read(self, deadline: float) -> bytes:
        """The next bytes of plaintext; `b""` when the peer has closed its side, with or without `close_notify`: it is for the
        caller to decide whether the answer is complete."""
        while (data := self._decrypt()) is None:
            self.take(await self._link.read(deadline))
        return data

    def read_ready(self) -> bytes | None:
        """The plaintext that has arrived, without waiting; None if there is none."""
        if self._is_aborted:
            raise Aborted
        while (data := self._decrypt()) is None:
            if (came := self._link.read_ready()) is None:
                return None
            self.take(came)
        return data

    async def write(self, data: bytes, deadline: float) -> None:
        """Send `data`, as `Link.write`."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        await self.flush(deadline)

    def abort(self) -> None:
        """Drop the connection at once, without `close_notify`."""
        self._is_aborted = True
        self._link.abort()

    def watch(self, callback: Callable[[], None], *, soon: bool = False) -> None:
        """See `PushSource.watch`."""
        self._link.watch(callback, soon=soon)

    def take(self, data: bytes) -> None:
        """Take bytes from the link below."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def flush(self, deadline: float) -> None:
        """Send what TLS has to send. Only handshakes and writes do: what TLS answers to what was read (RFC 8446, 4.6.3: a
        KeyUpdate) must be sent "prior to sending its next Application Data record", and may wait for that."""
        if data := self._outgoing.read():
            await self._link.write(data, deadline)

    def _decrypt(self) -> bytes | None:
        """All plaintext that has come; `b""` at the end, None if more is needed."""
        pieces: list[bytes] = []
        # Asking when there is nothing would only raise SSLWantReadError, at the price of a read.
        while self._plain_end is None and (self._incoming.pending or self._incoming.eof or self.tls.pending()):
            try:
                piece = self.tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLEOFError:
                piece = b""
            except OSError as exc:
                self._plain_end = exc
                break
            if not piece:
                self._plain_end = piece
            pieces.append(piece)
        if pieces:
            return b"".join(pieces)
        if isinstance(self._plain_end, OSError):
            raise self._plain_end
        return self._plain_end
