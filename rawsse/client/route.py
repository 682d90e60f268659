"""The way to an origin: directly, or through a proxy.

This file knows origins, proxies and the environment variables that name them. It refuses to know sockets.

    route = Route(Origin("https", "api.anthropic.com", 443))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Origin", "Proxy", "Route"]


class Origin(NamedTuple):
    """Where a connection leads: scheme ("http" or "https"), host (no brackets) and port."""

    scheme: str
    host: str
    port: int

    @property
    def host_field(self) -> str:
        """The value of the `Host` field: with the port, unless it is the scheme's own (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        own = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == own else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_field}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy: where it is, and the value of `Proxy-Authorization` if it wants one."""

    origin: Origin
    authorization: str | None = field(default=None, repr=False)


class Route(NamedTuple):
    """The way to an origin. Connections that took the same route are interchangeable."""

    origin: Origin
    proxy: Proxy | None = None
