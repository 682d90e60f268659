"""A byte stream to a peer: TCP and TLS, through a proxy if need be.

This file knows sockets and handshakes. It refuses to know certificates, what is said to a proxy, and what the bytes mean.

    stream = await connect(Route(Origin("https", "api.anthropic.com", 443)), TLSContext())
    await stream.write(b"...")
    data = await stream.read(65536)          # b"" when the peer has closed
    stream.abort()                           # at once, from any task, any number of times

`FakeStream` is the same thing made of byte chunks, for tests of whatever reads a `Stream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from rawsse.client.network.addresses import open_socket
from rawsse.client.network.nested import NestedStream, start_tls
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import ALPN_PROTOCOL, TLSContext, explain, is_untrusted
from rawsse.client.network.tunnel import Tunnel
from rawsse.errors import APIConnectionError, CertificateError, ConfigurationError, ProxyError, quote
from rawsse.http1 import MAX_HEAD_BYTES

if TYPE_CHECKING:
    import ssl

__all__ = [
    "READ_BYTES",
    "Connect",
    "FakeStream",
    "Stream",
    "TLSContext",
    "connect",
]

READ_BYTES = 64 * 1024
"""How much one read takes at most, and what the reader buffers before it lets TCP slow the peer down."""

T = TypeVar("T", bound="TCPStream | NestedStream")


class Stream(Protocol):
    """A connection as whoever reads and writes bytes sees it. Only one task reads, only one writes."""

    async def read(self, max_bytes: int) -> bytes:
        """The next bytes, at least one; `b""` when the peer has closed its side. Raises `OSError`."""
        ...

    def read_nowait(self) -> bytes | None:
        """What has come already; `b""` when the peer has closed its side, None if there is nothing. Raises `OSError`."""
        ...

    async def write(self, data: bytes) -> None:
        """Send `data`; wait while the peer is slow. Raises `OSError`."""
        ...

    def abort(self) -> None:
        """Drop the connection at once: nothing is flushed. May be called at any time, any number of times."""
        ...


class TCPStream(asyncio.Protocol):
    """A `Stream` over TCP or TLS. Whoever has it must `abort` it.

    A protocol of its own, not asyncio's reader and writer: what has come can be looked at without waiting (`read_nowait`),
    and a read costs half as much.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._is_over = False  # the peer closed, or the connection was lost
        self._is_gone = False  # nothing can be written any more
        self._lost: Exception | None = None  # why, if it is not that one side closed
        self._is_full = False  # of what we wrote: the peer is slow
        self._waiting: asyncio.Future[None] | None = None  # whoever reads
        self._draining: asyncio.Future[None] | None = None  # whoever writes

    async def read(self, max_bytes: int) -> bytes:
        while (data := self.read_nowait(max_bytes)) is None:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return data

    def read_nowait(self, max_bytes: int = READ_BYTES) -> bytes | None:
        if self._buffer:
            data = bytes(self._buffer[:max_bytes])
            del self._buffer[:max_bytes]
            if len(self._buffer) < READ_BYTES and not self._is_over and self._transport is not None:
                self._transport.resume_reading()
            return data
        if self._lost is not None:
            raise self._lost
        return b"" if self._is_over else None

    async def write(self, data: bytes) -> None:
        if self._is_gone:
            raise self._gone()
        assert self._transport is not None  # noqa: S101 - `connect` gives the stream out when it is connected
        self._transport.write(data)
        if self._is_full:
            self._draining = asyncio.get_running_loop().create_future()
            try:
                await self._draining
            finally:
                self._draining = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> TCPStream:
        """The stream within TLS, on the same connection; this one is over. Aborted if it fails or is cancelled.

        Raises `OSError`, and `ValueError` for a host that cannot be one.
        """
        stream = TCPStream()
        try:
            if (ahead := self.read_nowait()) is not None:
                words = f"sent something before TLS began: {quote(ahead)}" if ahead else "closed the connection"
                raise ConnectionResetError(f"the peer {words}")
            # The deadline is the caller's, asyncio's must not be earlier. We never say goodbye, we abort; asyncio does in
            # some cases, and shall not take long.
            transport = await asyncio.get_running_loop().start_tls(
                cast(asyncio.WriteTransport, self._transport),
                stream,
                context,
                server_hostname=host,
                ssl_handshake_timeout=86400.0,
                ssl_shutdown_timeout=0.1,
            )
            if transport is None:  # aborted while the handshake went on
                raise self._gone()
        except BaseException:
            self.abort()
            raise
        stream.connection_made(transport)
        return stream

    @property
    def tls(self) -> Any:
        """The `ssl.SSLObject`, or what the loop has in its place; None without TLS."""
        return self._transport.get_extra_info("ssl_object") if self._transport is not None else None

    def _gone(self) -> Exception:
        return self._lost or ConnectionResetError("the connection was closed")

    # What asyncio calls --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by class

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= READ_BYTES and self._transport is not None:
            self._transport.pause_reading()
        _wake(self._waiting)

    def eof_received(self) -> None:
        self._is_over = True
        _wake(self._waiting)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = self._is_gone = True
        self._transport = None  # one that has flushed what it had when the peer closed may not be aborted any more
        self._lost = exc if isinstance(exc, OSError) else ConnectionAbortedError(str(exc)) if exc else None
        _wake(self._waiting)
        if self._draining is not None and not self._draining.done():
            self._draining.set_exception(self._gone())

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        _wake(self._draining)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


class FakeStream:
    """A `Stream` made of byte chunks: each `read` gives the next one, whole. `written` holds what was written.

    Among the chunks, a number is so many seconds of silence, and None is a peer that waits for the next request: what
    follows comes when something has been written since the chunk before. After the chunks comes `end`: `b""` (the peer
    closed), an exception (raised), or None (the peer is silent: `read` waits until it is cancelled, or the stream is
    aborted).
    """

    def __init__(self, chunks: Iterable[bytes | float | None] = (), *, end: bytes | BaseException | None = b"") -> None:
        self._chunks = deque(chunks)
        self._end = end
        self._aborted = asyncio.Event()
        self._changed = asyncio.Event()  # something was written, or the stream was aborted
        self._answered = 0  # bytes that had been written when the last chunk was given
        self.written = bytearray()
        self.is_aborted = False

    async def read(self, max_bytes: int) -> bytes:
        del max_bytes  # chunks come as the test cut them
        while (data := self.read_nowait()) is None:
            if self._chunks and self._chunks[0] is None:
                self._changed.clear()
                await self._changed.wait()
            else:
                seconds = self._chunks.popleft() if self._chunks else None
                assert not isinstance(seconds, bytes)  # noqa: S101 - it would have been read
                await self._be_silent(seconds)
        return data

    def read_nowait(self) -> bytes | None:
        self._check()
        while self._chunks and self._chunks[0] is None and len(self.written) > self._answered:
            self._chunks.popleft()
            self._answered = len(self.written)
        if self._chunks:
            chunk = self._chunks[0]
            if not isinstance(chunk, bytes):
                return None
            self._chunks.popleft()
            self._answered = len(self.written)
            return chunk
        if isinstance(self._end, BaseException):
            raise self._end
        return self._end

    async def write(self, data: bytes) -> None:
        self._check()
        self.written += data
        self._changed.set()

    def abort(self) -> None:
        self.is_aborted = True
        self._aborted.set()
        self._changed.set()

    def _check(self) -> None:
        if self.is_aborted:
            raise ConnectionAbortedError("the stream was aborted")

    async def _be_silent(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._aborted.wait()
        self._check()


Connect = Callable[[Route, TLSContext], Awaitable[Stream]]
"""What makes a connection: `connect`, or a test's own that gives `FakeStream`s."""


async def connect(route: Route, tls: TLSContext, *, max_head_bytes: int = MAX_HEAD_BYTES) -> Stream:
    """Take the route to its origin, with TLS if its scheme is https. The caller sets the deadline and must `abort` the stream.

    `max_head_bytes` bounds the answer of a proxy. Raises `APIConnectionError` naming the origin, with the operating system's
    error as its cause; it is a `ProxyError` if the proxy is to blame, `CertificateError` if a certificate is.
    """
    proxy = route.proxy
    if "https" in (route.origin.scheme, proxy and proxy.origin.scheme):
        tls.get()  # if that fails, it fails before anything is sent
    if proxy is None:
        return await _reach(route.origin, tls, f"{route.origin}", APIConnectionError)
    stream = await _reach(proxy.origin, tls, f"the proxy {proxy}", ProxyError)
    if route.is_forwarded:
        return stream
    await _open_tunnel(stream, Tunnel(proxy, route.origin, max_head_bytes=max_head_bytes))
    start: Callable[[ssl.SSLContext, str], Awaitable[TCPStream | NestedStream]]
    start = stream.start_tls if proxy.origin.scheme == "http" else functools.partial(start_tls, stream)
    return await _secure(start, route.origin, tls, f"{route.origin}{route.through}", APIConnectionError)


async def _reach(origin: Origin, tls: TLSContext, name: str, error: type[APIConnectionError]) -> TCPStream:
    """A stream to the first peer on the route, which errors call `name`."""
    try:
        sock = await open_socket(origin)
        _, stream = await asyncio.get_running_loop().create_connection(TCPStream, sock=sock)
    except (OSError, ValueError) as exc:  # ValueError: a host name that IDNA cannot encode
        raise _failure(name, exc, error) from exc
    return stream if origin.scheme == "http" else await _secure(stream.start_tls, origin, tls, name, error)


async def _secure(
    start: Callable[[ssl.SSLContext, str], Awaitable[T]],
    origin: Origin,
    tls: TLSContext,
    name: str,
    error: type[APIConnectionError],
) -> T:
    """What `start` gives: a stream in TLS, to `origin`."""
    try:
        # RFC 6066, 3: "The hostname is represented … without a trailing dot."
        stream = await start(tls.get(), origin.host.rstrip("."))
    except (OSError, ValueError) as exc:
        raise _failure(name, exc, error) from exc
    chosen = stream.tls.selected_alpn_protocol()
    if chosen not in (None, ALPN_PROTOCOL):
        stream.abort()
        words = f"the ssl_context offers {quote(chosen)}, which is not spoken here, and {name} took it"
        raise ConfigurationError(f'{words}: set_alpn_protocols(["{ALPN_PROTOCOL}"])')
    return stream


async def _open_tunnel(stream: TCPStream, tunnel: Tunnel) -> None:
    """Have the proxy at the other end of `stream` lead it to the origin. Raises `ProxyError`."""
    try:
        await stream.write(tunnel.request())
        while not tunnel.receive_data(await stream.read(READ_BYTES)):
            pass
    except BaseException as exc:
        stream.abort()
        if isinstance(exc, OSError):
            raise tunnel.lost(exc) from exc
        raise


def _failure(name: str, exc: OSError | ValueError, error: type[APIConnectionError]) -> APIConnectionError:
    words = explain(exc) or _words(exc)
    return (CertificateError if is_untrusted(exc) else error)(f"cannot connect to {name}: {words}")


def _words(exc: OSError | ValueError) -> str:
    """What is wrong, for a person: the system's word for it, and not "[Errno 111] Connect call failed ('127.0.0.1', 9)"."""
    number = exc.errno if isinstance(exc, OSError) else None
    if number is not None and number > 0 and type(exc).__module__ == "builtins":
        return os.strerror(number)
    return str(exc)
