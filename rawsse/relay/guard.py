"""Which requests may reach the relay: its host names, the origins of pages, and whether a token is required.

The relay spends its owner's key, so others must not reach it. Two attacks are easily forgotten: a page of another site whose
script sends requests to `http://localhost:8000` from the owner's own browser (`Origin` reveals it), and a page whose domain
was pointed at 127.0.0.1 after it was loaded ("DNS rebinding": `Host` reveals it).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping

from rawsse.errors import ConfigurationError
from rawsse.http1 import host_name
from rawsse.relay.dialects import Answer, one_line
from rawsse.relay.users import Tokens

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

MAX_LOGGED = 100
"""How many rejected hosts and origins one guard logs, each once: attackers may send any number."""

log = logging.getLogger("rawsse.relay")


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

    `hosts` are the relay's names, besides those of the loopback address and of `bind_host`. Pages from `origins`
    (`https://example.org`) may use it. With `tokens` (or a `UserFile`), every call must have one of them, as `Authorization:
    Bearer …` or `x-api-key`. Raises `ConfigurationError` for a token that a header field cannot carry.

    The client gets a short error. The log names the rejected value, and the option that allows it.
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
        self._logged: set[tuple[str, str]] = set()
        self.tokens = tokens if isinstance(tokens, Tokens) else Tokens(tokens)

    def refuse(self, headers: Mapping[str, str], *, is_call: bool = True) -> Answer | None:
        """The error for a request with these fields (lower-case names), or None. `is_call`: it is not for the page."""
        host = headers.get("host", "")
        if host_name(host) not in self._hosts:  # not every server validates its syntax
            self._log("host", host)
            text = "the relay does not have the name in Host: Guard(hosts=…) allows it, or serve --allow-host"
            return Answer(421, "invalid_request_error", text)
        origin = headers.get("origin")
        # The relay's own page has the same host and port; its scheme may be a reverse proxy's.
        own = (f"http://{host}".lower(), f"https://{host}".lower())
        if origin is not None and origin.lower() not in (*self._origins, *own):
            self._log("origin", origin)
            return Answer(403, "permission_error", "pages of this origin may not use the relay")
        # A GET for an image or a frame has no `Origin`, but may have login cookies.
        if origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site") and is_call:
            return Answer(403, "permission_error", "pages of other sites may not use the relay")
        return None

    def _log(self, kind: str, value: str) -> None:
        refused = (kind, one_line(value))
        if refused not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(refused)
            log.warning("refused the %s %r: Guard(%ss=…) allows it, or serve --allow-%s", *refused, kind, kind)

    def allow_origin(self, headers: Mapping[str, str]) -> str | None:
        """The value of `Access-Control-Allow-Origin`, for a page of another origin that may use the relay; None for others."""
        origin = headers.get("origin")
        return origin if origin is not None and origin.lower() in self._origins else None


def _host_name(host: str) -> str:
    """The name in an argument, without port and brackets; an IPv6 address may lack the brackets."""
    host = host.strip()
    return host_name(host) or host_name(f"[{host}]") or ""
