"""No connection leaves this machine: a client that missed the test's API shall not find the real one, with the real key.

This file knows sockets, and which addresses are this machine. It refuses to know what is tested, and by which runner.

    with Guard() as guard:
        my_bot.ask("Oslo?")                         # PermissionError, if it asks somebody out there
    guard.refused                                   # ["api.anthropic.com port 443"]

What asyncio, `http.client`, httpx, requests and most others open is a `socket.socket`, whose `connect` is changed here, for the
whole process; and so is `socket.getaddrinfo`, so that the message has a name and not a number. What brings sockets of its own
is not seen: uvloop and grpc, for example; other processes; and proxies on this machine.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch


def _never() -> bool:
    return False


class Guard:
    """Refuses connections to other machines within `with`. `is_off` is asked each time: True lets it pass. `hint` ends the
    error's message. `on_connect` is called with each socket that is to be connected to a port of this machine, and the port."""

    def __init__(
        self,
        *,
        is_off: Callable[[], bool] = _never,
        hint: str = "",
        on_connect: Callable[[socket.socket, int], object] = lambda *_: None,
    ) -> None:
        self.refused: list[str] = []
        """Where somebody wanted to go, each once."""
        self._is_off = is_off
        self._hint = hint
        self._on_connect = on_connect
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

        def guarded_connect(sock: socket.socket, address: Any, /) -> None:
            self._check_address(sock, address)
            connect(sock, address)

        def guarded_connect_ex(sock: socket.socket, address: Any, /) -> int:
            self._check_address(sock, address)
            return connect_ex(sock, address)

        def guarded_getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            self._check(host, port)
            return getaddrinfo(host, port, *args, **kwargs)

        self._patches.enter_context(patch.object(socket.socket, "connect", guarded_connect))
        self._patches.enter_context(patch.object(socket.socket, "connect_ex", guarded_connect_ex))
        self._patches.enter_context(patch.object(socket, "getaddrinfo", guarded_getaddrinfo))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patches.close()

    def _check_address(self, sock: socket.socket, address: Any) -> None:
        if sock.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple) and len(address) > 1:
            self._check(address[0], address[1])
            self._on_connect(sock, address[1])

    def _check(self, host: Any, port: Any) -> None:
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
        if name is None or is_this_machine(str(name)) or self._is_off():
            return
        place = f"{name} port {port}"
        if place not in self.refused:
            self.refused.append(place)
        # What a firewall would say: the code under test treats it as any other network that does not work.
        raise PermissionError(f"a connection to {place} was refused: this test asks nobody out there{self._hint}")


def is_this_machine(host: str) -> bool:
    """The name or number means no other machine."""
    name = host.lower().rstrip(".")
    # RFC 6761, 6.3: "localhost." and names below it are loopback.
    if name in ("", "localhost", socket.gethostname().lower()) or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address  # Python < 3.13 takes ::ffff:127.0.0.1 for a stranger
    return bool(mapped.is_loopback or mapped.is_unspecified)
