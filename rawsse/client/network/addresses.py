"""From a name to addresses, and from an address to a socket, for every network.

for family, address in await look_up(network.signal, Origin("https", "api.anthropic.com", 443)):
    sock = new_socket(family)                 # non-blocking; the caller must close it
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rawsse.client.network.link import Signal, in_threads
from rawsse.client.network.route import Origin

HAPPY_EYEBALLS_SECONDS = 0.25
"""How long an address may take before the next is tried beside it (RFC 8305, 5: "recommended value … 250 milliseconds")."""

KEEPALIVE_IDLE_SECONDS = 60
"""How long a connection is silent before the system probes the peer. NAT gateways and load balancers that drop silent
connections without notice wait for several minutes; the five clocks notice a dead peer in any case."""

KEEPALIVE_INTERVAL_SECONDS = 60
"""The time between two probes."""

KEEPALIVE_COUNT = 5
"""How many unanswered probes end the connection."""

Address = tuple[socket.AddressFamily, Any]


async def look_up(new_signal: Callable[[], Signal], origin: Origin, deadline: float = math.inf) -> list[Address]:
    """The addresses of the host, families in turn (RFC 8305, 4: "interleave address families"). Raises `OSError`, and as
    `in_threads` does."""
    where = (origin.host, origin.port)
    try:
        found = socket.getaddrinfo(*where, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name, not an address: resolvers can hang, and heed neither deadlines nor Ctrl-C
        ((found, error),) = await in_threads(
            new_signal, [partial(socket.getaddrinfo, *where, type=socket.SOCK_STREAM)], deadline
        )
        if error is not None:
            raise error from None
    first: list[Address] = [(family, address) for family, _, _, _, address in found if family == found[0][0]]
    others: list[Address] = [(family, address) for family, _, _, _, address in found if family != found[0][0]]
    alternating = [one for pair in zip(first, others, strict=False) for one in pair]
    return alternating + first[len(others) :] + others[len(first) :]


# By name, as each system has those it has: Linux and Windows have the first, macOS the second.
_KEEPALIVE_OPTIONS: Mapping[str, int] = {
    "TCP_KEEPIDLE": KEEPALIVE_IDLE_SECONDS,
    "TCP_KEEPALIVE": KEEPALIVE_IDLE_SECONDS,
    "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
    "TCP_KEEPCNT": KEEPALIVE_COUNT,
}


def new_socket(family: socket.AddressFamily, kind: type[socket.socket] = socket.socket) -> socket.socket:
    """A non-blocking TCP socket that sends what is written at once, and that notices when its peer is gone: without a packet
    from either side, a connection that was cut in between lives for ever."""
    sock = kind(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    options = [(socket.IPPROTO_TCP, getattr(socket, name, None), value) for name, value in _KEEPALIVE_OPTIONS.items()]
    options += [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for level, option, value in options:
        if option is not None:
            with contextlib.suppress(OSError):  # an option that the system lacks is no reason to fail
                sock.setsockopt(level, option, value)
    return sock


def joined(errors: Sequence[BaseException | None]) -> BaseException:
    """One error for those of all attempts."""
    only = errors[0] if len(errors) == 1 else None
    return only or OSError("; ".join(str(error) for error in errors))
