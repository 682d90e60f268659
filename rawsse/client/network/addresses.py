"""From a name to a connected socket.

This file knows names, addresses and what a socket is told. It refuses to know what goes over it.

    sock = await open_socket(Origin("https", "api.anthropic.com", 443))      # non-blocking; the caller must close it
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import socket
from collections.abc import Mapping
from typing import Any

from rawsse.client.aside import Aside
from rawsse.client.network.route import Origin

__all__ = [
    "HAPPY_EYEBALLS_SECONDS",
    "KEEPALIVE_COUNT",
    "KEEPALIVE_IDLE_SECONDS",
    "KEEPALIVE_INTERVAL_SECONDS",
    "look_up",
    "open_socket",
]

HAPPY_EYEBALLS_SECONDS = 0.25
"""How long an address may take before the next is tried beside it (RFC 8305, 5: "recommended value … 250 milliseconds")."""

KEEPALIVE_IDLE_SECONDS = 60
"""After how long a silence the system asks whether the peer is still there. Those who forget silent connections without a word
(NAT, load balancers) wait for several minutes; the clocks above notice a dead one in any case."""

KEEPALIVE_INTERVAL_SECONDS = 60
"""How long it waits for the peer before it asks again."""

KEEPALIVE_COUNT = 5
"""How often it asks before the connection is taken for lost."""

_Address = tuple[socket.AddressFamily, Any]


async def open_socket(origin: Origin) -> socket.socket:
    """A connected socket. Several addresses are tried side by side ("happy eyeballs", RFC 8305), so that a dead IPv6 route
    costs a quarter of a second.

    asyncio has this too (`happy_eyeballs_delay`), but loses a socket that connects while the call is being cancelled.
    """
    addresses = await look_up(origin)
    attempts: list[asyncio.Task[socket.socket]] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None:
            if addresses:
                attempts.append(asyncio.create_task(_connect_socket(*addresses.pop(0))))
            elif all(attempt.done() for attempt in attempts):
                raise _together([attempt.exception() for attempt in attempts])
            pending = [attempt for attempt in attempts if not attempt.done()]
            patience = HAPPY_EYEBALLS_SECONDS if addresses else None
            done, _ = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            winner = next((attempt for attempt in done if attempt.exception() is None), None)
    finally:
        for attempt in attempts:
            if attempt is not winner:
                attempt.cancel()
                attempt.add_done_callback(_discard)
    return winner.result()


async def look_up(origin: Origin) -> list[_Address]:
    """The addresses of the host, families in turn (RFC 8305, 4: "interleave address families")."""
    where = (origin.host, origin.port)
    try:
        found = socket.getaddrinfo(*where, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # no address but a name: a thread asks for it, and if it hangs, nobody waits for that
        ask = functools.partial(socket.getaddrinfo, *where, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(Aside("rawsse-lookup"), ask)
        except RuntimeError:  # the interpreter ends (`atexit`): no thread can be started any more
            found = ask()
    first = [(family, address) for family, _, _, _, address in found if family == found[0][0]]
    others = [(family, address) for family, _, _, _, address in found if family != found[0][0]]
    pairs = itertools.zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


async def _connect_socket(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _set_options(sock)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


# By name, as each system has those it has: Linux and Windows know the first, macOS the second.
_KEEPALIVE_OPTIONS: Mapping[str, int] = {
    "TCP_KEEPIDLE": KEEPALIVE_IDLE_SECONDS,
    "TCP_KEEPALIVE": KEEPALIVE_IDLE_SECONDS,
    "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
    "TCP_KEEPCNT": KEEPALIVE_COUNT,
}


def _set_options(sock: socket.socket) -> None:
    """Send what is written at once, and let the system find out that a peer is gone: without a word from either side, a
    connection that was cut in between lives for ever."""
    options = [(socket.IPPROTO_TCP, getattr(socket, name, None), value) for name, value in _KEEPALIVE_OPTIONS.items()]
    options += [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for level, option, value in options:
        if option is not None:
            with contextlib.suppress(OSError):  # a system that does not know it is no reason to fail
                sock.setsockopt(level, option, value)


def _together(errors: list[BaseException | None]) -> BaseException:
    """One error for those of all attempts."""
    only = errors[0] if len(errors) == 1 else None
    return only or OSError("; ".join(str(error) for error in errors))


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    """What an attempt that lost came to is of no interest; a socket that it got all the same is closed."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
