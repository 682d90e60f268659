"""The pools of one client: a connection belongs to the event loop that made it, and a client may be used in several.

This file knows event loops and threads. It refuses to know what a pool decides.

    pools = Pools(connect, TLSContext(), PoolLimits())
    connection = await pools.here().acquire(route)      # of the loop that runs here
    pools.close()                                       # those of all loops, from any thread

Limits are those of each pool. What a loop that was closed has left behind is forgotten when another loop asks for its own.
"""

from __future__ import annotations

import asyncio
import contextlib

from rawsse.client.network.net import Connect
from rawsse.client.network.pool import Pool, PoolLimits
from rawsse.client.network.tls import TLSContext
from rawsse.http1 import MAX_HEAD_BYTES

__all__ = ["Pools"]


class Pools:
    """A pool for each event loop that asks for one."""

    def __init__(
        self, connect: Connect, tls: TLSContext, limits: PoolLimits, *, max_head_bytes: int = MAX_HEAD_BYTES
    ) -> None:
        self.is_closed = False
        self._connect = connect
        self._tls = tls
        self._limits = limits
        self._max_head_bytes = max_head_bytes
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}

    @property
    def open_connections(self) -> int:
        """Of all loops: at rest, in use, and being made."""
        return sum(pool.open_connections for pool in list(self._pools.values()))

    @property
    def idle_connections(self) -> int:
        """Of all loops: at rest."""
        return sum(pool.idle_connections for pool in list(self._pools.values()))

    @property
    def waiting(self) -> int:
        """Of all loops: calls that wait for a connection to be free."""
        return sum(pool.waiting for pool in list(self._pools.values()))

    def here(self) -> Pool:
        """The pool of the loop that runs here. Raises `RuntimeError` after `close`."""
        if self.is_closed:
            raise RuntimeError("the client is closed")
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._forget_closed_loops()
            pool = Pool(self._connect, self._tls, self._limits, max_head_bytes=self._max_head_bytes)
            self._pools[loop] = pool
        return pool

    def close(self) -> None:
        """Drop all connections, those in use too."""
        self.is_closed = True
        pools, self._pools = self._pools, {}
        for loop, pool in pools.items():
            if loop.is_closed() or loop is _running_loop():
                pool.close()
            else:
                with contextlib.suppress(RuntimeError):  # it was closed in this very moment
                    loop.call_soon_threadsafe(pool.close)

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in list(self._pools) if loop.is_closed()]:
            if (pool := self._pools.pop(loop, None)) is not None:
                pool.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
