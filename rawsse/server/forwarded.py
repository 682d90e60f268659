"""Behind a reverse proxy: the client and the scheme that the proxy saw, in place of its own.

    app = Forwarded(app, ["127.0.0.1", "10.0.0.0/8"])       # the proxies that may say so

Read are `X-Forwarded-For` with `X-Forwarded-Proto`, or `Forwarded` (RFC 7239), each from right to left: a proxy appends what it
saw, and what stands to the left of the last proxy's word comes from the client, who may write anything there. `Host` is not
touched, since it decides who may use the relay: let the proxy pass it on (nginx: `proxy_set_header Host $http_host`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from rawsse.errors import ConfigurationError
from rawsse.http1 import Headers, host_name
from rawsse.server.asgi import ASGIApp, Receive, Scope, Send

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 7239, 4: forwarded-pair = token "=" value. Proxies also write addresses and ports without quotes.
_PAIR = re.compile(r'\s*([^\s",;=]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;=]+))\s*(?:([,;])|$)')


class Forwarded:
    """ASGI middleware that believes the header fields of `proxies`: IP addresses, or networks as `10.0.0.0/8`. Those of other
    peers are ignored. The client's port becomes 0: it is not known. Raises `ConfigurationError` for what is no address."""

    def __init__(self, app: ASGIApp, proxies: Iterable[str]) -> None:
        self._app = app
        self._proxies = [_network(proxy) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. `send` is passed on as it is: apps that write through `rawsse.push` look at it."""
        peer = scope["client"] if scope["type"] == "http" else None
        if peer is not None and self._is_trusted(_address(peer[0])):
            scope = {**scope, **self._seen(scope["headers"])}
        await self._app(scope, receive, send)

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._proxies)

    def _seen(self, fields: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
        """What the request's scope has differently."""
        hops = _hops(Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields))
        client, scheme = None, hops[-1][1] if hops else ""
        for text, proto in reversed(hops):
            address = _address(text)
            if address is None:  # "unknown", a name, or nonsense: then the last proxy is all that is known
                break
            client, scheme = (str(address), 0), proto
            if not self._is_trusted(address):
                break
        found = {"client": client, "scheme": scheme.lower() if scheme.lower() in ("http", "https") else None}
        return {key: value for key, value in found.items() if value is not None}


def _hops(headers: Headers) -> list[tuple[str, str]]:
    """The client's address and the scheme, as each proxy saw them, the nearest proxy last."""
    forwarded = headers.get("forwarded")
    addresses, proto = headers.get("x-forwarded-for"), headers.get("x-forwarded-proto", "")
    if forwarded is None:
        scheme = proto.rpartition(",")[2].strip()
        return [(address, scheme) for address in (addresses or "").split(",")]
    if addresses is not None or proto:
        return []  # a proxy writes one kind, and passes the other on as the client sent it: it cannot be told which
    found: list[dict[str, str]] = [{}]
    position = 0
    while position < len(forwarded):
        pair = _PAIR.match(forwarded, position)
        if pair is None:  # a quote that the client left open has swallowed what the proxy appended
            return []
        found[-1][pair[1].lower()] = pair[2] or pair[3] or ""
        found += [{}] if pair[4] == "," else []
        position = pair.end()
    return [(hop.get("for", ""), hop.get("proto", "")) for hop in found]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as exc:
        raise ConfigurationError(f"a proxy must be an IP address, or a network as 10.0.0.0/8: {exc}") from None


def _address(text: str) -> Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None: there is not one.

    An IPv4 address that is mapped to IPv6 (`::ffff:192.0.2.1`), as a socket for both has it, is given as IPv4.
    """
    text = text.strip()
    try:
        address = ipaddress.ip_address((host_name(text) or text).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
