"""The route to an origin: direct, or through a proxy.

Pure: no socket, and the environment is an argument.

    proxies = Proxies.from_environment(os.environ)          # or Proxies(Proxy.from_url("http://user:password@proxy:3128"))
    route = proxies.route_to(Origin("https", "api.anthropic.com", 443))
    route.target("/v1/messages"), route.proxy_fields()      # how the proxy changes a request

No standard defines the variables. They are read as curl, Go and the official SDKs agree; where these differ:

- The lower-case name takes precedence, and an empty value counts as unset (curl, Go). A URL without a scheme is an HTTP proxy.
- This machine (localhost, 127.0.0.0/8, ::1) is never reached through a proxy from the environment (Go): HTTPS_PROXY is meant
for the Internet, not for local test servers. - In NO_PROXY, `example.com` is that host and all below it, `.example.com` and
`*.example.com` only those below it (Go, httpx). - In CGI programs HTTP_PROXY in capitals is ignored, because any client could
set it with a header field `Proxy`:
  https://httpoxy.org

No message and no repr shows a proxy's user or password.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

from rawsse.errors import ConfigurationError, Hidden, ProxyError, quote
from rawsse.http1 import Headers

PORTS: Mapping[str, int] = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """The server of a connection: scheme ("http" or "https"), host (no brackets) and port."""

    scheme: str
    host: str
    port: int

    @property
    def host_field(self) -> str:
        """The value of the `Host` field: with the port, unless it is the scheme's default (RFC 9110, 7.2)."""
        return self.authority.rpartition(":")[0] if self.port == PORTS[self.scheme] else self.authority

    @property
    def authority(self) -> str:
        """Host and port, in the form for CONNECT (RFC 9112, 3.2.3)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_field}"


# --- Proxies -------------------------------------------------------------------------------------------------------

# Not `urllib.parse`, which ends a password at its first "#" or "/", and then quotes part of it in its error. Patterns are
# compiled on first use: most programs have no proxy, and start a millisecond sooner.
_PROXY_URL = (
    r"(?is)(?:(?P<scheme>https?)://|(?![^@]*/[^@]*@))"  # `http:/user@host` has no user "http"
    r"(?:(?P<user>.*)@)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[^\s\x00-\x20:/?#@\[\]%]+)"
    r"(?::(?P<port>[0-9]{0,5}))?/?"
)


class Proxy(NamedTuple):
    """A proxy: its address, the header fields for it in a request that it reads, which `str` and `repr` hide, and the argument
    or variable that named it."""

    origin: Origin
    fields: tuple[tuple[str, Hidden], ...] = ()
    source: str = "proxy"

    @classmethod
    def from_url(cls, url: str, *, source: str = "proxy") -> Proxy:
        """The proxy at `http://user:password@host:port` (or https://): user and password %-encoded where necessary.

        `source` names the URL in errors: an argument or a variable. Raises `ConfigurationError`.
        """
        if match := re.fullmatch(_PROXY_URL, url.strip()):
            scheme = (match["scheme"] or "http").lower()
            host, port = _host(match["host"]), int(match["port"] or PORTS[scheme])
            if host and 0 < port < 65536:
                fields = (("proxy-authorization", _basic(match["user"], source)),) if match["user"] else ()
                return cls(Origin(scheme, host, port), fields, source)
        # The URL is not quoted: it may contain a password.
        url, match = Hidden(url), None
        rule = "like http://host:port or http://user:password@host:port (port 1 to 65535); https:// works too, SOCKS does not"
        raise ConfigurationError(f"{source} must be {rule}; NO_PROXY or trust_env=False go without one")

    def asked(self, origin: Origin) -> str:
        """The beginning of a tunnel's error messages."""
        return f"the proxy {self}, asked to connect to {origin.authority},"

    def __str__(self) -> str:
        return f"{self.origin}" if self.source == "proxy" else f"{self.origin} (from {self.source})"


def _host(text: str) -> str:
    """The host in the form for a lookup; "" if it is invalid."""
    import ipaddress  # takes a millisecond, and few programs have a proxy

    try:
        host = str(ipaddress.IPv6Address(text[1:-1])) if text[0] == "[" else text.encode("idna").decode().lower()
    except ValueError:  # includes UnicodeError
        return ""
    return host if re.fullmatch(r"[a-z0-9:._~-]+", host) else ""


def _basic(user: str, source: str) -> Hidden:
    """The credentials of RFC 7617, in UTF-8."""
    from urllib.parse import unquote_to_bytes  # loads ipaddress too

    name, _, password = map(unquote_to_bytes, user.partition(":"))
    # "a user-id containing a colon character is invalid, as the first colon in a user-pass string separates user-id and
    # password"; "The user-id and password MUST NOT contain any control characters".
    if b":" in name or re.search(rb"[\x00-\x1f\x7f]", name + password):
        raise ConfigurationError(f"{source}: a user name may have no colon, and like a password no control character")
    return Hidden(f"Basic {base64.b64encode(name + b':' + password).decode()}")


class Route(NamedTuple):
    """The route to an origin. Connections with the same route are interchangeable."""

    origin: Origin
    proxy: Proxy | None = None

    @property
    def is_forwarded(self) -> bool:
        """Whether the proxy reads and forwards the request. For https it does not: it only opens a tunnel."""
        return self.proxy is not None and self.origin.scheme == "http"

    @property
    def through(self) -> str:
        """ " through the proxy …", for messages; empty for a direct route."""
        return f" through the proxy {self.proxy}" if self.proxy else ""

    def target(self, path: str) -> str:
        """The request's target: `path`, a query included.

        RFC 9112, 3.2.2: "When making a request to a proxy … a client MUST send the target URI in absolute-form".
        """
        return f"{self.origin}{path}" if self.is_forwarded else path

    def proxy_fields(self) -> tuple[tuple[str, str], ...]:
        """The header fields that a request needs in addition to its own. Those for a tunnel were sent with its CONNECT."""
        return self.proxy.fields if self.proxy and self.is_forwarded else ()


def refusal(proxy: Proxy, origin: Origin, status: int, headers: Headers) -> ProxyError:
    """The error for a proxy that answered with a `status` other than 2xx."""
    wanted = ", ".join(headers.get_all("proxy-authenticate"))
    match status:
        case 401 | 407 if wanted and "basic" not in wanted.lower():  # tinyproxy answers wrong credentials with 401
            remedy = f"it wants credentials that rawsse cannot give (only Basic is supported): {quote(wanted)}"
        case 401 | 407 if not proxy.fields:
            remedy = "it wants a user name and a password (Basic), as in http://user:password@host:port"
        case 401 | 407:
            remedy = "it does not accept the user name and the password that were given for it"
        case 403:
            remedy = "it does not allow that; its operator can, or NO_PROXY takes this host past it"
        case 502 | 503 | 504:
            remedy = "it did not reach that host"
        case _:
            remedy = "no tunnel was opened"
    return ProxyError(f"{proxy.asked(origin)} answered {status}: {remedy}", status_code=status)


# --- Which proxy ---------------------------------------------------------------------------------------------------

_THIS_MACHINE = "localhost,127.0.0.0/8,::1"
"""RFC 6761, 6.3: names within "localhost." are loopback addresses too."""


class Proxies(NamedTuple):
    """The proxy for each origin, if any.

    `proxy` serves every origin. Without it the URLs are in `variables`, which are validated only when they are used.
    `variables` maps lower-case names to the original name and the value.
    """

    proxy: Proxy | None = None
    variables: Mapping[str, tuple[str, str]] = MappingProxyType({})

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Proxies:
        """The proxies in HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, in upper or lower case."""
        forged = "HTTP_PROXY" if "REQUEST_METHOD" in environ else None  # in a CGI program
        found: dict[str, tuple[str, str]] = {}
        for name, value in sorted(environ.items()):  # lower case sorts last, and takes precedence
            if name.lower().endswith("_proxy") and name != forged and value.strip():
                found[name.lower()] = name, Hidden(value.strip())
        return cls(variables=found)

    def route_to(self, origin: Origin) -> Route:
        """The route to `origin`. Raises `ConfigurationError` for a variable with an unusable proxy."""
        if self.proxy is not None:
            return Route(origin, self.proxy)
        source, url = self.variables.get(f"{origin.scheme}_proxy") or self.variables.get("all_proxy") or ("", "")
        _, exclusions = self.variables.get("no_proxy", ("", ""))
        if not url or is_excluded(origin, f"{exclusions},{_THIS_MACHINE}"):
            return Route(origin)
        return Route(origin, Proxy.from_url(url, source=source))


# --- NO_PROXY ------------------------------------------------------------------------------------------------------


def is_excluded(origin: Origin, no_proxy: str) -> bool:
    """Whether NO_PROXY matches the origin: its host, a parent domain, its address, or a block of addresses (CIDR), each with or
    without a port. Entries are separated by commas or blanks; `*` matches everything. Names are not resolved."""
    host = origin.host.rstrip(".").lower()
    address = _network(host)
    domains = [host[at + 1 :] for at, char in enumerate(host) if char == "." and address is None]
    names = {"*", host, *domains, *(f".{domain}" for domain in domains), *(f"*.{domain}" for domain in domains)}
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        may_have_port = entry.count(":") == 1 or "]:" in entry  # not an IPv6 address without brackets
        name = entry.removesuffix(f":{origin.port}") if may_have_port else entry
        block = _network(name.strip("[]")) if address else None
        if name.rstrip(".") in names or (block and address.version == block.version and address.subnet_of(block)):
            return True
    return False


def _network(text: str) -> Any:
    """The `ipaddress` network of a block or an address, including IPv4-mapped IPv6 ones; None for a name."""
    import ipaddress  # takes a millisecond, and few programs have a proxy

    with suppress(ValueError):
        block = ipaddress.ip_network(text, strict=False)
        mapped = getattr(block.network_address, "ipv4_mapped", None) if block.num_addresses == 1 else None
        return ipaddress.ip_network(mapped) if mapped else block
    return None
