"""An address of this machine that is kept for a server which starts later: until then it refuses whoever comes.

This file knows sockets. It refuses to know what is served.

    with KeptAddress() as address:
        client = make_client(address.base_url)      # may be made before there is a server
        server = Server(app, port=address.lend())
        ...
        address.take_back()                         # nobody else gets the port, and clients are refused again
"""

from __future__ import annotations

import os
import socket
from types import TracebackType
from typing import Self

_HOST = "127.0.0.1"


class KeptAddress:
    """A free port, bound to a socket that does not listen: a connection to it is refused at once. `with` gives it back."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.take_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lend()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://{_HOST}:{self._port}"

    def lend(self) -> int:
        """The port, which is now free for a server."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        return self._port

    def take_back(self) -> None:
        """The server is gone."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":  # else connections that ended just now keep it for minutes, as they should a stranger
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((_HOST, self._port))
        except OSError:
            holder.close()
            raise
        self._port = holder.getsockname()[1]
        self._socket = holder
