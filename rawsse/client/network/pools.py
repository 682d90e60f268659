"""The pools of one client: one for each event loop that uses it, or for each process without async.

    pools = Pools(lambda network: Pool(network, TLSContext()), AsyncioNetwork)
    lease = pools.here().acquire(route)
    pools.close()                                # of all loops, from any thread

A connection belongs to the loop that made it. After a fork the child has a pool and connections of its own: what it inherits
is the parent's. Limits are those of each pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from rawsse.client.network.link import Network
from rawsse.client.network.pool import Pool


class Pools:
    """Pools by the owner of their network: the running event loop, or the process."""

    def __init__(self, new_pool: Callable[[Network], Pool], new_network: type[Network]) -> None:
        self.is_closed = False
        self._new_pool = new_pool
        self._new_network = new_network
        self._pools: dict[Any, Pool] = {}

    def here(self) -> Pool:
        """The pool of the loop, or of the process, that this is called in. Raises `RuntimeError` after `close`."""
        if self.is_closed:
            raise RuntimeError("the client is closed")
        if (pool := self._pools.get(self._new_network.owner())) is not None:
            return pool
        for loop in list(self._pools):
            if not isinstance(loop, int) and loop.is_closed() and (closed := self._pools.pop(loop, None)) is not None:
                closed.close()
        return self._pools.setdefault(
            self._new_network.owner(), self._new_pool(self._new_network())
        )  # another thread may come first

    def network(self) -> Network:
        """The network of the loop, or of the process, that this is called in; after `close`, too."""
        pool = self._pools.get(self._new_network.owner())
        return self._new_network() if pool is None else pool.network

    def close(self) -> None:
        """Drop all connections, those in use too; after a fork only those of this process."""
        self.is_closed = True
        for key, pool in list(self._pools.items()):
            if key == os.getpid() or not isinstance(key, int):
                pool.network.post(pool.close)
