"""Networks, and how their links connect: DNS, addresses, socket, TLS and proxies.

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
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Protocol

from rawsse.client.network.link import Calls, Expired, Link, Signal, in_threads
from rawsse.client.network.route import Origin, Proxy, Route, refusal
from rawsse.client.network.tls import ALPN_PROTOCOL, TLSContext, TLSLink, explain, start_tls
from rawsse.errors import APIConnectionError, APIError, CertificateError, ConfigurationError, ProxyError, quote
from rawsse.http1 import ClientConnection, Response

HAPPY_EYEBALLS_SECONDS = 0.25
"""How long an address may take before the next is tried in parallel (RFC 8305, 5: "recommended value … 250 milliseconds")."""

Address = tuple[socket.AddressFamily, Any]

Wait = Callable[[Collection[socket.socket], float], Awaitable[None]]
"""`wait(socks, until)` returns when one of the sockets is writable, or at the time `until`, or earlier."""

Stop = Callable[[], Awaitable[None]]
"""Stops concurrent functions, and waits for those that can be stopped."""

OnStart = Callable[[Stop], object]
"""Called with a `Stop` once the functions have been started."""


# --- The interface of a network --------------------------------------------------------------------------------------


class Connector(Protocol):
    """A link that is not connected yet. The caller must `abort` it when it no longer needs it."""

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Connect over the route. Returns the link to read and write: this one, or TLS over it; aborting either ends both.

        Raises `APIConnectionError` (`ProxyError`, `CertificateError`), `Expired`, `Aborted`.
        """

    def abort(self) -> None:
        """Drop the connection at once, without flushing, in any phase, any number of times. A waiting caller gets
        `Aborted`. After a fork the child's `abort` does not affect the parent's connection."""


class Network(Protocol):
    """Makes links and signals, and provides the time."""

    now: Callable[[], float]
    """The time in seconds, on a monotonic clock."""

    runs_coroutines: bool
    """Whether `run` accepts coroutine functions."""

    @staticmethod
    def owner() -> Any:
        """The owner of a network made here and of its links: the running event loop, or the process ID."""

    def link(self) -> Connector:
        """A link that is not connected yet."""

    def signal(self) -> Signal:
        """A signal that is not set yet."""

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the thread of the network's links: at once if that is the current one, else soon. From any
        thread."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Call `callback` at `when`, if the network has an event loop. Returns a function that cancels it."""

    async def run(self, calls: Calls, on_start: OnStart | None = None, deadline: float = math.inf) -> list[Any]:
        """The results of functions that run concurrently, each in a thread with a copy of the caller's context.

        An error is raised once all have finished. If it is cancelled, the daemon threads keep running. `on_start` gets
        a function with which another task or thread can stop it, so that it raises `Aborted`. Raises `Expired`, too.
        """


# --- The route -------------------------------------------------------------------------------------------------------


class TCPLink(Link, Protocol):
    """A network's link over TCP. Each network has its own way to wait for sockets and to use a connected one."""

    _now: Callable[[], float]
    _signal: Signal
    """Ends the name lookup. `abort` sets it."""

    async def wait_for(self, socks: Collection[socket.socket], until: float) -> None:
        """Wait until one of the sockets is writable, but not longer than `until`. Raises `Aborted`."""

    async def use(self, sock: socket.socket) -> None:
        """Read and write a connected socket, and close it eventually, even if this fails. Raises `OSError`, `Aborted`."""

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        """Connect to the route's origin. The caller must abort the link, even if this fails.

        Raises `APIConnectionError` naming the origin, with the operating system's error as its cause; a `ProxyError` if the
        proxy caused it, a `CertificateError` if a certificate did. Raises `Expired` and `Aborted`.
        """
        proxy, origin = route.proxy, route.origin
        if "https" in (origin.scheme, proxy and proxy.origin.scheme):
            tls.get()  # may fail: do it before anything is sent
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
        except ConfigurationError:  # a subclass of ValueError
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
    """Make the proxy at the other end of `link` open a tunnel to the origin (RFC 9110, 9.3.6).

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
        # In TLS the client sends first: these bytes are not the origin's.
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
    if not found:  # a name, not an address: resolvers can hang, and ignore deadlines and Ctrl-C
        (found,) = await in_threads(signal, [partial(socket.getaddrinfo, *where, type=socket.SOCK_STREAM)], deadline)
    addresses: list[Address] = [(family, address) for family, _, _, _, address in found]
    first = [one for one in addresses if one[0] == addresses[0][0]]
    others = [one for one in addresses if one[0] != addresses[0][0]]
    return [one for pair in itertools.zip_longest(first, others) for one in pair if one is not None]


async def race(addresses: list[Address], wait: Wait, now: Callable[[], float], deadline: float) -> socket.socket:
    """A socket connected to one of the addresses. They are tried in parallel ("happy eyeballs", RFC 8305), so that a dead IPv6
    route costs only a quarter of a second. Raises `OSError`, `Expired`, and the errors of `wait`.
    """
    made: list[socket.socket] = []
    pending: dict[socket.socket, Any] = {}  # connecting sockets -> their addresses
    errors: list[OSError] = []
    next_at = -math.inf  # when to try the next address in parallel
    try:
        while addresses or pending:
            if now() >= deadline:
                raise Expired
            try:
                if addresses and now() >= next_at:
                    next_at = now() + HAPPY_EYEBALLS_SECONDS
                    family, address = addresses.pop(0)
                    made.append(sock := new_socket(family))
                    with contextlib.suppress(BlockingIOError):  # in progress
                        sock.connect(address)  # not `connect_ex`: network guards in tests patch `connect`
                    pending[sock] = address
                for sock, _ in ready(pending, 0, to_write=True):  # local connections complete at once
                    address = pending.pop(sock)
                    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(number, os.strerror(number))
                    made.remove(sock)
                    return sock
                await wait(pending, min(deadline, next_at if addresses else math.inf))
            except OSError as exc:
                exc.filename = address  # distinguishes several errors
                errors.append(exc)
                next_at = -math.inf
        raise errors[0] if len(errors) == 1 else OSError("; ".join(map(str, errors)))
    finally:
        for sock in made:
            sock.close()
        errors.clear()  # an error's traceback holds this frame: break the cycle


# --- Sockets -------------------------------------------------------------------------------------------------------


def ready(socks: Collection[socket.socket], seconds: float, *, to_write: bool) -> list[tuple[socket.socket, bool]]:
    """The sockets that become readable (with `to_write`, writable) within `seconds`, each with whether it is writable. An
    error counts as both."""
    if not hasattr(select, "poll"):  # Windows, where a failed connection is in the third list
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
    """A socket that is closed without a warning if its client is dropped without being closed, or its call is interrupted.

    A `__del__` of the link is not enough: the garbage collector may finalize the socket first.
    """

    def __del__(self) -> None:
        if self.fileno() >= 0:  # else its creation failed
            self.close()


# NAT gateways and load balancers drop silent connections without notice, after several minutes. So the system probes a peer
# after a minute of silence, then every minute, and gives up after five probes; the five clocks detect a dead peer in any
# case. Linux and Windows have TCP_KEEPIDLE, macOS has TCP_KEEPALIVE.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))


def new_socket(family: socket.AddressFamily) -> socket.socket:
    """A non-blocking TCP socket without Nagle's algorithm and with keep-alive: without traffic, neither end would notice a
    broken connection."""
    sock = Socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in _KEEPALIVE:
        with contextlib.suppress(AttributeError, OSError):  # options are optional
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock
