"""Taking a route: to a host by TCP, TLS to a proxy, a tunnel through it, TLS to the origin.

link = await tcp_link.connect(Route(Origin("https", "api.anthropic.com", 443)), TLSContext(), deadline)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from typing import Protocol

from rawsse.client.network.addresses import look_up, race
from rawsse.client.network.certificates import ALPN_PROTOCOL, TLSContext, explain, is_untrusted
from rawsse.client.network.link import Link, Signal
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import TLSLink, start_tls
from rawsse.client.network.tunnel import Tunnel
from rawsse.errors import APIConnectionError, CertificateError, ConfigurationError, ProxyError, quote


class TCPLink(Link, Protocol):
    """A network's own link. What depends on the network is how it waits for sockets, and what it does with a connected one."""

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
        proxy = route.proxy
        if "https" in (route.origin.scheme, proxy and proxy.origin.scheme):
            tls.get()  # if that fails, it fails before anything is sent
        if proxy is None:
            return await self._reach(route.origin, tls, deadline, f"{route.origin}", APIConnectionError)
        reached = await self._reach(proxy.origin, tls, deadline, f"the proxy {proxy}", ProxyError)
        if route.is_forwarded:
            return reached
        await _open_tunnel(reached, Tunnel(proxy, route.origin), deadline)
        return await _secure(reached, route.origin, tls, deadline, f"{route.origin}{route.through}", APIConnectionError)

    async def _reach(
        self, origin: Origin, tls: TLSContext, deadline: float, name: str, error: type[APIConnectionError]
    ) -> Link:
        """A link to the first peer on the route, which errors call `name`."""
        try:
            addresses = await look_up(self._signal, origin, deadline)
            await self.use(await race(addresses, self.wait_for, self._now, deadline))
        except (OSError, ValueError) as exc:  # ValueError: a host name that IDNA cannot encode
            raise _failure(name, exc, error) from exc
        return self if origin.scheme == "http" else await _secure(self, origin, tls, deadline, name, error)


async def _secure(
    link: Link, origin: Origin, tls: TLSContext, deadline: float, name: str, error: type[APIConnectionError]
) -> TLSLink:
    try:
        # RFC 6066, 3: "The hostname is represented … without a trailing dot."
        secure = await start_tls(link, tls.get(), origin.host.rstrip("."), deadline)
    except (OSError, ValueError) as exc:
        raise _failure(name, exc, error) from exc
    chosen = secure.tls.selected_alpn_protocol()
    if chosen not in (None, ALPN_PROTOCOL):
        words = f"the ssl_context offers {quote(chosen)}, which rawsse does not support, and {name} chose it"
        raise ConfigurationError(f'{words}: set_alpn_protocols(["{ALPN_PROTOCOL}"])')
    return secure


async def _open_tunnel(link: Link, tunnel: Tunnel, deadline: float) -> None:
    """Have the proxy at the other end of `link` open a tunnel to the origin. Raises `ProxyError`."""
    try:
        await link.write(tunnel.request(), deadline)
        while not tunnel.receive_data(await link.read(deadline)):
            pass
    except OSError as exc:
        raise tunnel.lost(exc) from exc


def _failure(name: str, exc: OSError | ValueError, error: type[APIConnectionError]) -> APIConnectionError:
    words = explain(exc) or getattr(exc, "strerror", None) or str(exc)
    return (CertificateError if is_untrusted(exc) else error)(f"cannot connect to {name}: {words}")
