"""Networks, and how their links are connected: name, addresses, socket, and through TLS and proxies to the origin.

    link = network.link()
    secure = await link.connect(Route(Origin("https", "api.anthropic.com", 443)), TLSContext(), network.now() + 10)

There are three networks: `asyncio_network.py`; `blocking/network.py` (no thread, no event loop: its coroutines never suspend,
so that `drive` runs a call to its end in the caller's thread); and either of them with a test's links (`replay/fakes.py`).

A link exists before it is connected, so that it can be aborted in any phase: while the name is resolved, during the TCP or TLS
handshake, while a proxy opens a tunnel.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Protocol

from rawsse.client.network.link import Expired, Link, Signal, in_threads
from rawsse.client.network.route import Origin, Proxy, Route, refusal
from rawsse.client.network.tls import ALPN_PROTOCOL, TLSContext, TLSLink, explain, start_tls
from rawsse.errors import APIConnectionError, APIError, CertificateError, ConfigurationError, ProxyError, quote
from rawsse.http1 import ClientConnection, Response

HAPPY_EYEBALLS_SECONDS = 0.25
"""How long an address may take before the next is tried beside it (RFC 8305, 5: "recommended value … 250 milliseconds")."""

Address = tuple[socket.AddressFamily, Any]

Wait = Callable[[Collection[socket.socket], float], Awaitable[None]]
"""`wait(socks, until)` returns when one of the sockets can be written, or at the time `until`, or earlier."""

Stop = Callable[[], Awaitable[None]]
"""Stops functions that run concurrently, and waits for those that can be stopped."""

OnStart = Callable[[Stop], object]
"""Called with the function that stops them, once the functions have been started."""


# --- The interface of a network --------------------------------------------------------------------------------------


class Connector(Protocol):
    """A link that is not connected yet. The caller must `abort` it when it no longer needs it."""

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Take the route. The result is what to read and write: this link, or TLS over it; aborting either ends both.

        Raises `APIConnectionError` (`ProxyError`, `CertificateError`), `Expired`, `Aborted`.
        """

    def abort(self) -> None:
        """Drop the connection at once: nothing is flushed. At any phase, any number of times. A caller that waits gets
        `Aborted`. After a fork the child's `abort` leaves the parent's connection as it is."""


class Network(Protocol):
    """Makes links and signals, and has the time."""

    now: Callable[[], float]
    """The time in seconds, on a monotonic clock."""

    runs_coroutines: bool
    """`run` takes coroutine functions too."""

    @staticmethod
    def owner() -> Any:
        """The owner of a network that is made here, and of its links: the running event loop, or the process (its id)."""

    def link(self) -> Connector:
        """A link that is not connected yet."""

    def signal(self) -> Signal:
        """A signal that is not set yet."""

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` where the network's links may be used: at once if that is here, else soon. From any thread."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` at `when`, if the network has an event loop. Returns a function that cancels it."""

    async def run(self, calls: Sequence[Callable[[], Any]], on_start: OnStart | None = None) -> list[Any]:
        """The results of functions that run at once, each in a thread with a copy of the caller's context.

        An error of one of them is raised when all are over. Cancelled, it leaves the threads behind: they are daemons.
        `on_start` gets a function that stops it, with which another task or thread makes it raise `Aborted`.
        """


# --- The route -------------------------------------------------------------------------------------------------------


class TCPLink(Link, Protocol):
    """A network's own link. Each network has its own way to wait for sockets, and to use a connected one."""

    _now: Callable[[], float]
    _signal: Signal
    """Ends the look-up of a name. `abort` sets it."""

    async def wait_for(self, socks: Collection[socket.socket], until: float) -> None:
        """Wait until one of the sockets can be written; not longer than `until`. Raises `Aborted`."""

    async def use(self, sock: socket.socket) -> None:
        """Read and write a connected socket, and close it in the end, also if this fails. Raises `OSError`, `Aborted`."""

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Take the route to its origin. The caller aborts the link, also if this fails.

        Raises `APIConnectionError` naming the origin, with the operating system's error as its cause; it is a `ProxyError` if
        the proxy is to blame, `CertificateError` if a certificate is. Raises `Expired` and `Aborted`.
        """
        proxy, origin = route.proxy, route.origin
        if "https" in (origin.scheme, proxy and proxy.origin.scheme):
            tls.get()  # if that fails, it fails before anything is sent
        first, name = (origin, f"{origin}") if proxy is None else (proxy.origin, f"the proxy {proxy}")
        error = APIConnectionError if proxy is None else ProxyError
        try:
            addresses = await look_up(self._signal, first, deadline)
            await self.use(await race(addresses, self.wait_for, self._now, deadline))
            link: Link = self if first.scheme == "http" else await _secure(self, first, tls, deadline, name)
            if proxy is not None and not route.is_forwarded:
                await open_tunnel(link, proxy, origin, deadline)
                name, error = f"{origin}{route.through}", APIConnectionError
                link = await _secure(link, origin, tls, deadline, name)
            return link
        except ConfigurationError:  # which is a ValueError too
            raise
        except (OSError, ValueError) as exc:  # ValueError: a host name that IDNA cannot encode
            words = explain(exc) or getattr(exc, "strerror", None) or str(exc)
            kind = CertificateError if isinstance(exc, ssl.SSLCertVerificationError) else error
            raise kind(f"cannot connect to {name}: {words}") from exc


async def _secure(link: Link, origin: Origin, tls: TLSContext, deadline: float, name: str) -> TLSLink:
    # RFC 6066, 3: "The hostname is represented … without a trailing dot."
    secure = await start_tls(link, tls.get(), origin.host.rstrip("."), deadline)
    chosen = secure.tls.selected_alpn_protocol()
    if chosen not in (None, ALPN_PROTOCOL):
        words = f"the ssl_context offers {quote(chosen)}, which rawsse does not support, and {name} chose it"
        raise ConfigurationError(f'{words}: set_alpn_protocols(["{ALPN_PROTOCOL}"])')
    return secure


async def open_tunnel(link: Link, proxy: Proxy, origin: Origin, deadline: float) -> None:
    """Have the proxy at the other end of `link` open a tunnel (RFC 9110, 9.3.6): from then on the bytes are the origin's.

    Raises `ProxyError`.
    """
    http = ClientConnection(origin.authority)
    asked = proxy.asked(origin)
    try:
        request = http.send_request("CONNECT", origin.authority, [("user-agent", "rawsse"), *proxy.fields])
        await link.write(request, deadline)
        while not isinstance(answer := http.next_event(), Response):
            http.receive_data(await link.read(deadline))
    except OSError as exc:
        raise ProxyError(f"{asked} did not answer: {exc.strerror or exc}") from exc
    except APIError as exc:
        if getattr(exc, "by_close", False):
            raise ProxyError(f"{asked} closed the connection without an answer") from None
        raise ProxyError(f"{asked} does not answer as an HTTP proxy does ({exc}): is it one?", may_heal=False) from None
    if not 200 <= answer.status < 300:
        raise refusal(proxy, origin, answer.status, answer.headers)
    if ahead := http.trailing_data:
        # With TLS it is the client that speaks first: these bytes are not the origin's.
        raise ProxyError(f"{asked} sent something into the tunnel before TLS began: {quote(ahead)}", may_heal=False)


# --- Names and addresses ---------------------------------------------------------------------------------------------


async def look_up(signal: Signal, origin: Origin, deadline: float = math.inf) -> list[Address]:
    """The addresses of the host, families in turn (RFC 8305, 4: "interleave address families"). Raises `OSError`, and as
    `in_threads` does."""
    where = (origin.host, origin.port)
    try:
        found = socket.getaddrinfo(*where, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = []
    if not found:  # a name, not an address: resolvers can hang, and heed neither deadlines nor Ctrl-C
        (found,) = await in_threads(signal, [partial(socket.getaddrinfo, *where, type=socket.SOCK_STREAM)], deadline)
    addresses: list[Address] = [(family, address) for family, _, _, _, address in found]
    first = [one for one in addresses if one[0] == addresses[0][0]]
    others = [one for one in addresses if one[0] != addresses[0][0]]
    return [one for pair in itertools.zip_longest(first, others) for one in pair if one is not None]


async def race(addresses: list[Address], wait: Wait, now: Callable[[], float], deadline: float) -> socket.socket:
    """A socket connected to one of the addresses. They are tried side by side ("happy eyeballs", RFC 8305), so that a dead IPv6
    route costs a quarter of a second. Raises `OSError`, `Expired`, and what `wait` raises.
    """
    made: list[socket.socket] = []
    pending: dict[socket.socket, Any] = {}  # those that connect, and their addresses
    errors: list[OSError] = []
    next_at = -math.inf  # when the next address is tried beside those that have not answered
    try:
        while addresses or pending:
            if now() >= deadline:
                raise Expired
            try:
                if addresses and now() >= next_at:
                    next_at = now() + HAPPY_EYEBALLS_SECONDS
                    family, address = addresses.pop(0)
                    made.append(sock := new_socket(family))
                    with contextlib.suppress(BlockingIOError):  # it takes time
                        sock.connect(address)  # not `connect_ex`: what forbids tests to connect replaces this one
                    pending[sock] = address
                for sock, _ in ready(pending, 0, to_write=True):  # on this machine a connection takes no time
                    address = pending.pop(sock)
                    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(number, os.strerror(number))
                    made.remove(sock)
                    return sock
                await wait(pending, min(deadline, next_at if addresses else math.inf))
            except OSError as exc:
                exc.filename = address  # several errors are told apart by it
                errors.append(exc)
                next_at = -math.inf
        raise errors[0] if len(errors) == 1 else OSError("; ".join(map(str, errors)))
    finally:
        for sock in made:
            sock.close()
        errors.clear()  # the traceback of an error holds this frame, which would hold the error


# --- Sockets -------------------------------------------------------------------------------------------------------


def ready(socks: Collection[socket.socket], seconds: float, *, to_write: bool) -> list[tuple[socket.socket, bool]]:
    """The sockets that become readable, or writable with `to_write`, within `seconds`; with each, whether it is writable.
    An error counts as both."""
    if not hasattr(select, "poll"):  # Windows, where a connection that failed is in the third list
        readable, *others = select.select(socks, socks if to_write else [], socks, seconds)
        writable = [sock for found in others for sock in found]
        return [(sock, to_write and sock in writable) for sock in socks if sock in (*readable, *writable)]
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN | select.POLLOUT if to_write else select.POLLIN)
    events = dict(poll.poll(math.ceil(seconds * 1000)))
    found = [(sock, events[sock.fileno()]) for sock in socks if sock.fileno() in events]
    return [(sock, to_write and event != select.POLLIN) for sock, event in found]


class Socket(socket.socket):
    """A socket that is closed without a warning when its client is dropped or never closed, or its call interrupted.

    A `__del__` of the link would not do: the garbage collector may finalize the socket before it.
    """

    def __del__(self) -> None:
        if self.fileno() >= 0:  # else it could not even be made
            self.close()


# NAT gateways and load balancers drop silent connections without notice, after several minutes. So the system probes a peer
# that was silent for a minute, each minute, and gives up after five probes; the five clocks notice a dead peer in any case.
# Linux and Windows have TCP_KEEPIDLE, macOS has TCP_KEEPALIVE.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))


def new_socket(family: socket.AddressFamily) -> socket.socket:
    """A non-blocking TCP socket that sends at once, and probes a silent peer: without traffic, neither end would notice that
    the connection was cut in between."""
    sock = Socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _KEEPALIVE:
        with contextlib.suppress(AttributeError, OSError):  # a system that lacks an option can do without it
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock
