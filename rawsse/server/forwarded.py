"""Behind a reverse proxy: the client and the scheme that the proxy saw, instead of those of its connection.

    app = Forwarded(app, ["127.0.0.1", "10.0.0.0/8"])       # the addresses of trusted proxies

The middleware reads `X-Forwarded-For` and `X-Forwarded-Proto`, or `Forwarded` (RFC 7239), from right to left: each proxy
appends the address of its peer, and the client itself may have sent anything before that. It ignores `X-Forwarded-Host`: apps
decide by `Host` who may use them, so the proxy must pass that on (nginx: `proxy_set_header Host $http_host`).
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
    """ASGI middleware that sets `scope["client"]` and `scope["scheme"]` if the peer is one of `proxies`.

    `proxies` are IP addresses, and networks such as `10.0.0.0/8`. The client's port is set to 0, as few proxies send it. Raises
    `ConfigurationError` for an invalid address.
    """

    def __init__(self, app: ASGIApp, proxies: Iterable[str]) -> None:
        self._app = app
        self._proxies = [_network(proxy) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. `send` is not wrapped: an app may use `rawsse.push` only with the server's own."""
        peer = scope.get("client") if scope["type"] == "http" else None
        if peer is not None and self._is_trusted(_address(peer[0])):
            scope = {**scope, **self._seen(scope["headers"])}
        await self._app(scope, receive, send)

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._proxies)

    def _seen(self, fields: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
        """The entries of the scope that change."""
        hops = _hops(Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields))
        client, scheme = None, hops[-1][1] if hops else ""
        for text, proto in reversed(hops):
            address = _address(text)
            if address is None:  # "unknown", an obfuscated name, or garbage: the last proxy is as far as we know
                break
            client, scheme = (str(address), 0), proto
            if not self._is_trusted(address):
                break
        found = {"client": client, "scheme": scheme.lower() if scheme.lower() in ("http", "https") else None}
        return {key: value for key, value in found.items() if value is not None}


def _hops(headers: Headers) -> list[tuple[str, str]]:
    """(address of its peer, scheme) as each proxy reported them, the nearest proxy last."""
    forwarded = headers.get("forwarded")
    addresses, proto = headers.get("x-forwarded-for"), headers.get("x-forwarded-proto", "")
    if forwarded is None:
        scheme = proto.rpartition(",")[2].strip()
        return [(address, scheme) for address in (addresses or "").split(",")]
    if addresses is not None or proto:
        return []  # a proxy sets one kind and passes on the client's own fields of the other; we cannot tell which
    found: list[dict[str, str]] = [{}]
    position = 0
    while position < len(forwarded):
        pair = _PAIR.match(forwarded, position)
        if pair is None:  # such as a quote that the client left open, to hide what the proxy appended
            return []
        found[-1][pair[1].lower()] = pair[2] or pair[3] or ""
        found += [{}] if pair[4] == "," else []
        position = pair.end()
    return [(hop.get("for", ""), hop.get("proto", "")) for hop in found]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as exc:
        raise ConfigurationError(f"a proxy must be an IP address, or a network such as 10.0.0.0/8: {exc}") from None


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
