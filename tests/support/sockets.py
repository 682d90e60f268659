"""A server on a loopback socket for tests, with or without TLS, that leaves nothing behind whatever its clients do.

    async with serving(handler) as origin:          # handler(reader, writer) runs once per connection
        link = await network.link().connect(Route(origin), trusting(), deadline)

    proxy = ConnectProxy()
    async with serving(shout, tls=True) as origin, serving(proxy) as there:
        link = await network.link().connect(Route(origin, Proxy(there)), trusting(), deadline)
        proxy.requests                              # the heads that it got

asyncio's own server is not used: it reports a client that gives up in the handshake to the loop's exception handler, which
`support.clock.run` takes for a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from rawsse.client.network.route import Origin
from rawsse.client.network.tls import TLSContext

__all__ = ["LOCALHOST", "ConnectProxy", "Handler", "serving", "shout", "silent_listener", "trusting"]

LOCALHOST = Path(__file__).with_name("localhost.pem")
"""A certificate for localhost, 127.0.0.1 and ::1, and its key. Only these tests trust it."""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@functools.cache
def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(LOCALHOST)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, tls: bool = False) -> AsyncIterator[Origin]:
    """Where the server listens. A handler that still runs at the end is cancelled; what one raises is raised here."""
    context = _server_context() if tls else None
    loop = asyncio.get_running_loop()
    socks: list[socket.socket] = []
    tasks: list[asyncio.Task[None]] = []

    def accept() -> None:
        with contextlib.suppress(BlockingIOError):
            socks.append(listener.accept()[0])
            socks[-1].setblocking(False)
            # A small piece that waits for the acknowledgement of another (Nagle) is late, and virtual clocks jump meanwhile.
            socks[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tasks.append(loop.create_task(_serve(socks[-1], handler, context)))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield Origin("https" if tls else "http", "127.0.0.1", listener.getsockname()[1])
        finally:
            loop.remove_reader(listener)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for sock in socks:
                sock.close()
    for error in results:
        if isinstance(error, Exception):
            raise error


async def _serve(sock: socket.socket, handler: Handler, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
    except OSError:
        return  # the client has given up in the handshake
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        await handler(reader, writer)
    except (OSError, asyncio.IncompleteReadError):
        pass  # the client has gone, perhaps in the middle of what the handler reads
    finally:
        with contextlib.suppress(AttributeError):  # asyncio's own, of a transport that was flushed after `close`
            transport.abort()


@contextlib.asynccontextmanager
async def silent_listener() -> AsyncIterator[Origin]:
    """An address that answers no attempt to connect: the system's queue of those that were not accepted is full."""
    with contextlib.ExitStack() as entered:
        listener = entered.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            sock = entered.enter_context(socket.socket())
            sock.settimeout(0.02)  # on loopback it takes microseconds
            try:
                sock.connect(listener.getsockname())
            except TimeoutError:
                break
        yield Origin("http", "127.0.0.1", listener.getsockname()[1])


def trusting() -> TLSContext:
    """What a client needs to trust that server."""
    return TLSContext(_client_context())


@functools.cache
def _client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=LOCALHOST)


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handler that sends back what it gets, in capitals."""
    while data := await reader.read(100):
        writer.write(data.upper())
        await writer.drain()


class ConnectProxy:
    """A handler that opens tunnels, as RFC 9110, 9.3.6 has it. `answer` is its answer to each CONNECT."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.requests: list[bytes] = []
        self._answer = answer

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        origin_reader, origin_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(self._answer)
        pumps = [
            asyncio.create_task(_pump(reader, origin_writer)),
            asyncio.create_task(_pump(origin_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            origin_writer.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
