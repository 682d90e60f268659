"""Talking to the API.

Read in this order:

    clocks.py    the five clocks; waiting with a deadline
    route.py     origins, proxies, and the way to an origin
    tls.py       which certificates are trusted, and what is wrong with one that is not
    tunnel.py    what is said to a proxy that is to lead to an https origin
    net.py       TCP and TLS: a Stream; and FakeStream, made of byte chunks
    exchange.py  one request and its response, with its clocks
    stream.py    the answer as it comes: events, text, the message so far, the one ending
    client.py    from arguments to a request
"""

from rawsse.client.client import ANTHROPIC_VERSION, AsyncClient
from rawsse.client.clocks import Timeouts
from rawsse.client.exchange import Timing
from rawsse.client.net import FakeStream, Stream
from rawsse.client.route import Origin, Proxies, Proxy, Route
from rawsse.client.stream import EventStream, MessageStream
from rawsse.client.tls import TLSContext

__all__ = [
    "ANTHROPIC_VERSION",
    "AsyncClient",
    "EventStream",
    "FakeStream",
    "MessageStream",
    "Origin",
    "Proxies",
    "Proxy",
    "Route",
    "Stream",
    "TLSContext",
    "Timeouts",
    "Timing",
]
