"""The way to an origin: directly, or through a proxy.

This file knows origins, proxies and the environment variables that name them. It refuses to know sockets, and reads no
environment by itself. Pure.

    proxies = Proxies.from_environment(os.environ)          # or Proxies.always("http://user:password@proxy:3128")
    route = proxies.route_to(Origin("https", "api.anthropic.com", 443))
    route.target("/v1/messages"), route.proxy_fields()      # what the proxy makes different in a request

The variables have no standard. What is read is what curl, Go and the official SDKs agree on; where they differ:

- The lower-case name wins, and an empty value is none (curl, Go). A URL without a scheme is that of an HTTP proxy.
- This machine (localhost, 127.0.0.0/8, ::1) is never reached through a proxy that the environment names (Go): nobody who sets
  HTTPS_PROXY for the world outside means the test server next door.
- In NO_PROXY, `example.com` is that host and all below it, `.example.com` and `*.example.com` only those below it (Go, httpx).
- HTTP_PROXY in capitals is not read by CGI programs, where whoever sends a request could set it (`Proxy: …` is HTTP_PROXY
  there): https://httpoxy.org

Nothing here shows a proxy's user or password, in no message and no repr.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from rawsse.errors import ConfigurationError


class Origin(NamedTuple):
    """Where a connection leads: scheme ("http" or "https"), host (no brackets) and port."""

    scheme: str
    host: str
    port: int

    @property
    def host_field(self) -> str:
        """The value of the `Host` field: with the port, unless it is the scheme's own (RFC 9110, 7.2)."""
        own = {"http": 80, "https": 443}[self.scheme]
        return self.authority.rpartition(":")[0] if self.port == own else self.authority

    @property
    def authority(self) -> str:
        """Host and port, as CONNECT wants them (RFC 9112, 3.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_field}"


# --- Proxies -------------------------------------------------------------------------------------------------------

# Read by hand: `urllib.parse` ends a password at its first "#" or "/", and then quotes a piece of it in its error. Patterns are
# compiled when they are needed: most programs have no proxy, and start a millisecond sooner.
_PROXY_URL = (
    r"(?is)(?:(?P<scheme>[a-z][a-z0-9+.-]*)://|(?![^@]*/[^@]*@))"  # `http:/user@host` has no user "http"
    r"(?:(?P<user>.*)@)?"
    r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<host>[^\s\x00-\x20:/?#@\[\]%]+))"
    r"(?::(?P<port>[0-9]{0,5}))?/?"
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy: where it is, and the value of `Proxy-Authorization` if it wants one. `str` and `repr` do not show that."""

    origin: Origin
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str, *, source: str = "proxy") -> Proxy:
        """The proxy at `http://user:password@host:port` (or https://): user and password %-encoded where they must be.

        `source` is what errors call the URL: an argument or a variable. Raises `ConfigurationError`.
        """
        match = re.fullmatch(_PROXY_URL, url.strip())
        scheme = (match["scheme"] or "http").lower() if match else ""
        if match and scheme not in ("http", "https"):
            raise ConfigurationError(f"{source}: {scheme}:// proxies cannot be used, only http:// and https:// ones")
        host = _host(match["address"], match["host"]) if match else None
        port = int(match["port"] or {"http": 80, "https": 443}[scheme]) if match else 0
        if match is None or host is None or not 0 < port < 65536:
            # It is not quoted: what stands there may be a password.
            raise ConfigurationError(f"{source} must be like http://host:port or http://user:password@host:port")
        return cls(Origin(scheme, host, port), _basic(match["user"], source) if match["user"] else None)

    def __str__(self) -> str:
        return str(self.origin)


def _host(address: str | None, name: str | None) -> str | None:
    """The host as it is looked up; None if it is none."""
    try:
        if address is not None:
            return str(ipaddress.IPv6Address(address))
        host = (name or "").encode("idna").decode() if not (name or "").isascii() else name or ""
    except ValueError:  # UnicodeError is one too
        return None
    return host.lower() if re.fullmatch(r"[A-Za-z0-9._~-]+", host) else None


def _basic(user: str, source: str) -> str:
    """The credentials of RFC 7617, in UTF-8."""
    name, _, password = user.partition(":")
    pair = (unquote_to_bytes(name), unquote_to_bytes(password))
    # "a user-id containing a colon character is invalid, as the first colon in a user-pass string separates user-id and
    # password"; "The user-id and password MUST NOT contain any control characters".
    if b":" in pair[0] or any(byte < 0x20 or byte == 0x7F for byte in b"".join(pair)):
        raise ConfigurationError(
            f"{source}: the user name may not have a colon, and neither it nor the password a control character"
        )
    return f"Basic {base64.b64encode(b':'.join(pair)).decode()}"


class Route(NamedTuple):
    """The way to an origin. Connections that took the same route are interchangeable."""

    origin: Origin
    proxy: Proxy | None = None

    @property
    def is_forwarded(self) -> bool:
        """The proxy reads the request and passes it on. For https it does not: it opens a tunnel, and sees nothing."""
        return self.proxy is not None and self.origin.scheme == "http"

    @property
    def through(self) -> str:
        """ " through the proxy …", for messages; nothing on the direct way."""
        return f" through the proxy {self.proxy}" if self.proxy else ""

    def target(self, path: str) -> str:
        """The request's target: `path`, a query included.

        RFC 9112, 3.2.2: "When making a request to a proxy … a client MUST send the target URI in absolute-form".
        """
        return f"{self.origin}{path}" if self.is_forwarded else path

    def proxy_fields(self) -> tuple[tuple[str, str], ...]:
        """What a request needs beside its own header fields. Those for a tunnel went with the CONNECT that opened it."""
        if self.proxy is None or self.proxy.authorization is None or not self.is_forwarded:
            return ()
        return (("proxy-authorization", self.proxy.authorization),)


# --- Which proxy ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which origin is reached through which proxy. `Proxies()` is none at all.

    `proxy` is one for every origin. Else `variables` hold the URLs, and are looked at when they are needed: one that nobody
    needs may be broken.
    """

    proxy: Proxy | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def always(cls, proxy: str | Proxy) -> Proxies:
        """This proxy, whatever the origin and the environment. Raises `ConfigurationError`."""
        return cls(proxy if isinstance(proxy, Proxy) else Proxy.from_url(proxy))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Proxies:
        """What HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say, in either case."""
        known = {"https_proxy", "http_proxy", "all_proxy", "no_proxy"}
        is_cgi = "REQUEST_METHOD" in environ
        found = {name: value.strip() for name, value in dict(environ).items() if name.lower() in known}
        return cls(variables={n: v for n, v in found.items() if v and not (is_cgi and n == "HTTP_PROXY")})

    def route_to(self, origin: Origin) -> Route:
        """The way to `origin`. Raises `ConfigurationError` for a variable that names no proxy we can use."""
        if self.proxy is not None:
            return Route(origin, self.proxy)
        source = self._variable(f"{origin.scheme}_proxy") or self._variable("all_proxy")
        if source is None or _is_this_machine(origin.host) or is_excluded(origin, self._exclusions):
            return Route(origin)
        return Route(origin, Proxy.from_url(self.variables[source], source=source))

    def _variable(self, name: str) -> str | None:
        """The name under which the variable is set, if it is."""
        names = [candidate for candidate in self.variables if candidate.lower() == name]
        return max(names, default=None)  # lower case sorts last, and wins

    @property
    def _exclusions(self) -> str:
        source = self._variable("no_proxy")
        return self.variables[source] if source else ""


# --- NO_PROXY ------------------------------------------------------------------------------------------------------

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ENTRY = r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:]*))(?::(?P<port>[0-9]+))?"


def is_excluded(origin: Origin, no_proxy: str) -> bool:
    """NO_PROXY names the origin: its host, a domain above it, its address, or a block of addresses (CIDR), each but the last
    with a port if need be. Entries stand between commas or blanks, `*` is everything. Names are not looked up."""
    host = origin.host.rstrip(".").lower()
    address = _address(host)
    entries = re.split(r"[\s,]+", no_proxy.lower())
    if address is not None:
        return any(_has_address(entry, address, origin.port) for entry in entries)
    return any(_has_name(entry, host, origin.port) for entry in entries)


def _has_address(entry: str, address: _Address, port: int) -> bool:
    if "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    alone = _address(entry)  # an IPv6 address may stand there without brackets
    name, at = (entry, None) if alone else _split(entry)
    return entry == "*" or (_address(name) == address and at in (None, port))


def _has_name(entry: str, host: str, port: int) -> bool:
    name, at = _split(entry)
    if at not in (None, port):
        return False
    name = name.rstrip(".")
    if name.startswith(("*.", ".")):
        return host.endswith(name.removeprefix("*"))
    return name == "*" or (name != "" and f".{host}".endswith(f".{name}"))


def _split(entry: str) -> tuple[str, int | None]:
    match = re.fullmatch(_ENTRY, entry)
    if match is None:
        return entry, None
    return match["address"] or match["name"] or "", int(match["port"]) if match["port"] else None


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_this_machine(host: str) -> bool:
    # RFC 6761, 6.3: "localhost." and names within it "always resolve to the respective IP loopback address".
    address = _address(host)
    return f".{host.rstrip('.').lower()}".endswith(".localhost") if address is None else address.is_loopback
