"""TLS over any link, by `ssl.MemoryBIO`: over TCP, and over TLS to an https proxy. One implementation for every network.

    tls = TLSContext()                  # SSL_CERT_FILE, SSL_CERT_DIR, else certifi
    secure = await start_tls(link, tls.get(), "api.example", deadline)
    data = await secure.read(deadline)

asyncio's TLS holds 256 KiB per connection and uses more CPU, and blocking sockets have a different one. This one works
the same on both, and a deadline covers the whole handshake, however slowly its bytes arrive.

`certifi` is loaded when a context is requested: plain http does not need it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
from collections.abc import Callable
from typing import Any

from rawsse.client.network.link import READ_BYTES, Aborted, PushSource
from rawsse.errors import ConfigurationError, quote

ALPN_PROTOCOL = "http/1.1"
"""The protocol offered (RFC 7301): without it a server may choose HTTP/2."""

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class TLSContext:
    """The `ssl.SSLContext` of one client, created on first use: loading the certificates takes at least 15 ms.

    A `context` from the caller is used unchanged. Otherwise certificates come from the file in `SSL_CERT_FILE` and the
    directories in `SSL_CERT_DIR` (in OpenSSL's layout: names are hashes), or from certifi if neither is set or `trust_env` is
    False.
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, trust_env: bool = True) -> None:
        self._context = context
        self._trust_env = trust_env

    def get(self) -> ssl.SSLContext:
        """The context. Raises `ConfigurationError` if the certificates cannot be read."""
        if self._context is None:
            # Not the whole environment: a traceback might show it, including the key.
            self._context = _make(*(os.environ.get(name) or None if self._trust_env else None for name in _VARIABLES))
        return self._context


def _make(file: str | None, folders: str | None) -> ssl.SSLContext:
    if folders and not any(map(os.path.isdir, folders.split(os.pathsep))):
        # OpenSSL would accept this and trust no certificate.
        raise ConfigurationError(f"SSL_CERT_DIR names no directory: {quote(folders)}")
    source = "in SSL_CERT_FILE" if file else "of certifi"
    if not file and not folders:
        import certifi

        file = certifi.where()
    try:
        return _load(file, folders, os.stat(file).st_mtime_ns if file else 0)
    except OSError as exc:
        raise ConfigurationError(f"cannot read the certificates {source}, {quote(file or '')}: {exc}") from exc


# Loading takes longer than a whole request: cached for all clients with these certificates, which do not change the context.
@functools.lru_cache(maxsize=8)
def _load(file: str | None, folders: str | None, changed: int) -> ssl.SSLContext:
    """`changed` is the file's modification time: a changed file is read again."""
    context = ssl.create_default_context(cafile=file, capath=folders)
    context.set_alpn_protocols([ALPN_PROTOCOL])
    return context


def explain(error: BaseException) -> str | None:
    """The reason for a failed handshake, and the remedy; None for other errors."""
    if isinstance(error, ssl.SSLCertVerificationError):
        match error.verify_code:  # X509_V_ERR_…, https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
            case 9 | 10:  # not yet valid, expired
                remedy = "its owner must renew it, unless the clock of this machine is wrong"
            case 62 | 64:  # another host name, another address
                remedy = "use a name that it is for"
            case _:
                remedy = "if its authority is your own or a proxy's, name that in SSL_CERT_FILE"
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}; {remedy}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it does not speak TLS there: is it http:// and not https://, or another port?"
    return None


# --- The layer -------------------------------------------------------------------------------------------------------


async def start_tls(link: Any, context: ssl.SSLContext, host: str, deadline: float) -> TLSLink:
    """TLS to `host` over a connected link. The caller aborts the link if this fails.

    Raises `OSError` (including `ssl.SSLError`), `ValueError` for an invalid host name, `ConfigurationError` for a context
    that offers another protocol than HTTP/1.1, `Expired`, `Aborted`.
    """
    secure = TLSLink(link, context, host.rstrip("."))  # RFC 6066, 3: "without a trailing dot"
    while True:
        try:
            secure.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await secure.flush(deadline)
            secure.take(await link.read(deadline))
        except OSError:
            # RFC 8446, 6.2: the alert about the error in the peer's handshake. It is useful only for the peer's log.
            with contextlib.suppress(OSError):
                await secure.flush(deadline)
            raise
    await secure.flush(deadline)
    if (chosen := secure.tls.selected_alpn_protocol()) not in (None, ALPN_PROTOCOL):
        words = f"the ssl_context offers {quote(chosen)}, which rawsse does not support, and {host} chose it"
        raise ConfigurationError(f'{words}: set_alpn_protocols(["{ALPN_PROTOCOL}"])')
    return secure


class TLSLink(PushSource):
    """A `Link` in TLS over `link`. `tls` is the `ssl.SSLObject`."""

    def __init__(self, link: Any, context: ssl.SSLContext, host: str) -> None:
        self._link = link
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # b"", or the error that broke TLS. Plaintext that arrived with it is read first.
        self._plain_end: bytes | OSError | None = None
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def read(self, deadline: float) -> bytes:
        """The next bytes of plaintext; `b""` when the peer has closed its side, with or without `close_notify`: the caller
        decides whether the answer is complete."""
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
        """Send pending TLS records. Only handshakes and writes call it: a reply to received records (RFC 8446, 4.6.3: a
        KeyUpdate) must be sent "prior to sending its next Application Data record", and may wait for that."""
        if data := self._outgoing.read():
            await self._link.write(data, deadline)

    def _decrypt(self) -> bytes | None:
        """All plaintext that has arrived; `b""` at the end, None if more is needed."""
        pieces: list[bytes] = []
        # Without this check an empty read would raise SSLWantReadError, which costs as much as a read. OpenSSL buffers
        # nothing: a read returns more than a record holds (RFC 8446, 5.1: 2**14 bytes).
        while self._plain_end is None and (self._incoming.pending or self._incoming.eof):
            try:
                pieces.append(self.tls.read(READ_BYTES))
            except ssl.SSLWantReadError:
                break
            except OSError as exc:
                self._plain_end = b"" if isinstance(exc, ssl.SSLEOFError) else exc
            else:
                if not pieces[-1]:
                    self._plain_end = b""
        if data := b"".join(pieces):
            return data
        if isinstance(self._plain_end, OSError):
            raise self._plain_end
        return self._plain_end
