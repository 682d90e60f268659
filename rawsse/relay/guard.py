"""Which requests may reach the relay: its host names, the origins of pages, and whether a token is needed.

The relay spends its owner's key, so strangers must not reach it. Two kinds are easily forgotten: a page of another site, whose
script sends requests to `http://localhost:8000` from the owner's own browser (`Origin` gives it away), and a page whose domain
was pointed at 127.0.0.1 after it was loaded ("DNS rebinding": `Host` gives it away).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from rawsse.errors import ConfigurationError
from rawsse.http1 import host_name
from rawsse.relay.dialects import Answer
from rawsse.relay.users import Tokens

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_bind(host: str, tokens: Iterable[str] | Tokens) -> None:
    """Raises `ConfigurationError` for a relay that other machines could use without a token."""
    if not is_loopback(host) and not any(tokens):
        raise ConfigurationError(
            f"refusing to listen on {host} without a token: anyone who reaches this port could spend your API key. "
            "Give --token (or the environment variable RAWSSE_TOKEN), or listen on 127.0.0.1"
        )


class Guard:
    """Checks the header fields of requests.

    `hosts` are the names of the relay, beside those of the loopback address and of `bind_host`. Pages of `origins`
    (`https://example.org`) may use it from other sites. With `tokens` (or a `UserFile`), every call must have one of them, as
    `Authorization: Bearer …` or `x-api-key`. Raises `ConfigurationError` for a token that a header field cannot carry.
    """

    def __init__(
        self,
        *,
        bind_host: str = "127.0.0.1",
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        tokens: Iterable[str] | Tokens = (),
    ) -> None:
        self._hosts = {*LOOPBACK_NAMES, *(_host_name(host) for host in (bind_host, *hosts))} - {""}
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self.tokens = tokens if isinstance(tokens, Tokens) else Tokens(tokens)

    def refuse(self, headers: Mapping[str, str], *, is_call: bool = True) -> Answer | None:
        """The refusal of a request with these fields (lower-case names), or None. `is_call`: it is not for the page."""
        host = headers.get("host", "")
        if host_name(host) not in self._hosts:  # not every server checks its syntax
            text = "the relay does not have the name in the Host header; --allow-host adds one"
            return Answer(421, "invalid_request_error", text)
        origin = headers.get("origin")
        # The relay's own page has the same host and port. Its scheme may be that of a reverse proxy.
        own = (f"http://{host}".lower(), f"https://{host}".lower())
        if origin is not None and origin.lower() not in (*self._origins, *own):
            text = "pages of this origin may not use the relay; --allow-origin adds one"
            return Answer(403, "permission_error", text)
        # A GET of an image or a frame has no `Origin`, but may have the cookies of a login.
        if origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site") and is_call:
            return Answer(403, "permission_error", "pages of other sites may not use the relay")
        return None

    def allow_origin(self, headers: Mapping[str, str]) -> str | None:
        """The value of `Access-Control-Allow-Origin`, for a page of another origin that may use the relay; None for others."""
        origin = headers.get("origin")
        return origin if origin is not None and origin.lower() in self._origins else None


def _host_name(host: str) -> str:
    """The name in an argument, without port and brackets; an IPv6 address may also have no brackets."""
    host = host.strip()
    return host_name(host) or host_name(f"[{host}]") or ""
