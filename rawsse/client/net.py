"""A byte stream to a peer: TCP, TLS, and waiting with a deadline.

This file knows sockets, certificates and clocks. It refuses to know HTTP, and what the bytes mean.

    stream = await connect(Origin("https", "api.anthropic.com", 443), tls)
    await stream.write(b"...")
    data = await stream.read(65536)          # b"" when the peer has closed
    stream.abort()                           # at once, from any task, any number of times

`FakeStream` is the same thing made of byte chunks, for tests of whatever reads a `Stream`.

Waiting. Every wait for the network goes through one `Waiter`, which ends it by a deadline or by `interrupt`, called from any
task. So a stream that is closed while somebody waits for it wakes that somebody up, at any phase, even while connecting.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from rawsse.errors import APIConnectionError, ConfigurationError, quote

if TYPE_CHECKING:  # `ssl` and the certificates are loaded only when an https origin is connected to
    import ssl

__all__ = ["READ_BYTES", "FakeStream", "Interrupted", "Origin", "Stream", "TLSContext", "Timeouts", "Waiter", "connect"]

READ_BYTES = 64 * 1024
"""How much one read takes at most, and what the reader buffers before it lets TCP slow the peer down."""

HAPPY_EYEBALLS_SECONDS = 0.25
"""How long an address may take before the next is tried beside it (RFC 8305, 5: "recommended value … 250 milliseconds")."""

T = TypeVar("T")


class Origin(NamedTuple):
    """Where a connection leads: scheme ("http" or "https"), host (no brackets) and port."""

    scheme: str
    host: str
    port: int

    @property
    def host_field(self) -> str:
        """The value of the `Host` field: with the port, unless it is the scheme's own (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        own = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == own else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_field}"


class Stream(Protocol):
    """A connection as whoever reads and writes bytes sees it. Only one task reads, only one writes."""

    async def read(self, max_bytes: int) -> bytes:
        """The next bytes, at least one; `b""` when the peer has closed its side. Raises `OSError`."""
        ...

    async def write(self, data: bytes) -> None:
        """Send `data`; wait while the peer is slow. Raises `OSError`."""
        ...

    def abort(self) -> None:
        """Drop the connection at once: nothing is flushed. May be called at any time, any number of times."""
        ...


class TCPStream:
    """A `Stream` over TCP or TLS. Whoever has it must `abort` it."""

    __slots__ = ("_reader", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int) -> bytes:
        return await self._reader.read(max_bytes)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        self._writer.transport.abort()


class FakeStream:
    """A `Stream` made of byte chunks: each `read` gives the next one, whole. `written` holds what was written.

    After the chunks comes `end`: `b""` (the peer closed), an exception (raised), or None (the peer is silent: `read` waits
    until it is cancelled, or the stream is aborted).
    """

    def __init__(self, chunks: Iterable[bytes] = (), *, end: bytes | BaseException | None = b"") -> None:
        self._chunks = iter(chunks)
        self._end = end
        self._aborted = asyncio.Event()
        self.written = bytearray()
        self.is_aborted = False

    async def read(self, max_bytes: int) -> bytes:
        del max_bytes  # chunks come as the test cut them
        if self.is_aborted:
            raise ConnectionAbortedError("the stream was aborted")
        for chunk in self._chunks:
            return chunk
        if isinstance(self._end, BaseException):
            raise self._end
        if self._end is None:
            await self._aborted.wait()
            raise ConnectionAbortedError("the stream was aborted")
        return self._end

    async def write(self, data: bytes) -> None:
        if self.is_aborted:
            raise ConnectionAbortedError("the stream was aborted")
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True
        self._aborted.set()


class TLSContext:
    """The `ssl.SSLContext` of one client, made when first asked for: loading the certificates costs 15 ms and more.

    `context` is the caller's own; else certificates come from the file in `SSL_CERT_FILE`, or from certifi.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context

    def get(self) -> ssl.SSLContext:
        """The context. Raises `ConfigurationError` if the certificates cannot be read."""
        if self._context is None:
            import ssl

            import certifi

            cafile = os.environ.get("SSL_CERT_FILE") or certifi.where()
            try:
                self._context = ssl.create_default_context(cafile=cafile)
            except OSError as exc:
                raise ConfigurationError(f"cannot read the certificates in {quote(cafile)}: {exc}") from exc
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context


async def connect(origin: Origin, tls: TLSContext) -> Stream:
    """Connect to `origin`, with TLS if its scheme is https. The caller sets the deadline and must `abort` the stream.

    Several addresses are tried side by side ("happy eyeballs"), so that a dead IPv6 route costs a quarter of a second.
    Raises `APIConnectionError` naming the origin, with the operating system's error as its cause.
    """
    context = tls.get() if origin.scheme == "https" else None
    try:
        reader, writer = await asyncio.open_connection(
            origin.host,
            origin.port,
            ssl=context,
            limit=READ_BYTES,
            happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS,
        )
    except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that IDNA cannot encode
        raise APIConnectionError(f"cannot connect to {origin}: {exc}") from exc
    return TCPStream(reader, writer)


# --- Waiting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The five clocks, in seconds; None turns one off.

    `connect`: DNS, TCP and TLS together. `head`: from the request sent to the response's head. `silence`: no byte at all
    (a ping is a byte). `content`: no event but pings; generous, because thinking takes long. `total`: the whole call.

    Two clocks watch the body because one cannot: a single idle timer either hangs on dead connections or kills answers
    that are thought over. The API pings about every 30 s, so 90 s of silence are three lost pings.
    """

    connect: float | None = 10.0
    head: float | None = 120.0
    silence: float | None = 90.0
    content: float | None = 600.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(
                    f"timeouts: {name} must be a number of seconds above 0, or None, not {value!r}"
                )


class Interrupted(Exception):  # noqa: N818 - a signal between this file and its caller, not a failure
    """`Waiter.interrupt` ended the wait."""


class Waiter:
    """Lets one task wait at a time, until a deadline or until somebody interrupts."""

    def __init__(self) -> None:
        self._scope: asyncio.Timeout | None = None
        self._is_interrupted = False

    async def wait(self, operation: Callable[[], Awaitable[T]], deadline: float) -> T:
        """The result of `operation()`.

        `deadline` is in the loop's time; `math.inf` for none. Raises `TimeoutError` at the deadline, `Interrupted` after
        `interrupt` (before or during the wait), and what `operation` raises.
        """
        if self._is_interrupted:
            raise Interrupted
        when = None if deadline == math.inf else deadline
        try:
            async with asyncio.timeout_at(when) as self._scope:
                result = await operation()
        except OSError as exc:
            if self._is_interrupted:  # what the operation says of an aborted stream is of no interest
                raise Interrupted from None
            if isinstance(exc, TimeoutError) and self._scope is not None and not self._scope.expired():
                # Not our deadline: the operating system gave up (ETIMEDOUT is a TimeoutError too).
                raise ConnectionError(str(exc) or "the connection timed out") from exc
            raise
        finally:
            self._scope = None
        if self._is_interrupted:
            raise Interrupted
        return result

    def interrupt(self) -> None:
        """End the wait that is under way, and every later one. From any task, any number of times."""
        self._is_interrupted = True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(-math.inf)
