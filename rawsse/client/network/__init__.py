"""Connections to the API: made, waited for, kept.

Read in this order:

    clocks.py    the five clocks; waiting with a deadline
    route.py     origins, proxies, and the way to an origin
    addresses.py from a name to a connected socket
    tls.py       which certificates are trusted, and what is wrong with one that is not
    tunnel.py    what is said to a proxy that is to lead to an https origin
    nested.py    TLS within TLS, for an https proxy
    net.py       TCP and TLS: a Stream; and FakeStream, made of byte chunks
    pool.py      which connection may carry the next request
    pools.py     the pools of one client: one for each event loop
"""

from rawsse.client.network.clocks import NOT_GIVEN, Timeouts
from rawsse.client.network.net import Connect, FakeStream, Stream, connect
from rawsse.client.network.pool import Connection, Pool, PoolLimits
from rawsse.client.network.pools import Pools
from rawsse.client.network.route import Origin, Proxies, Proxy, Route
from rawsse.client.network.tls import TLSContext

__all__ = [
    "NOT_GIVEN",
    "Connect",
    "Connection",
    "FakeStream",
    "Origin",
    "Pool",
    "PoolLimits",
    "Pools",
    "Proxies",
    "Proxy",
    "Route",
    "Stream",
    "TLSContext",
    "Timeouts",
    "connect",
]
