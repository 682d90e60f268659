"""Talking to the API.

Read in this order:

    clocks.py    the five clocks; waiting with a deadline
    route.py     origins, proxies, and the way to an origin
    net.py       TCP and TLS: a Stream; and FakeStream, made of byte chunks
    exchange.py  one request and its response, with its clocks
    stream.py    the answer as it comes: events, text, the message so far, the one ending
    client.py    from arguments to a request
"""

from rawsse.client.client import ANTHROPIC_VERSION, AsyncClient
from rawsse.client.clocks import Timeouts
from rawsse.client.exchange import Timing
from rawsse.client.net import FakeStream, Stream, TLSContext
from rawsse.client.route import Origin, Proxy, Route
from rawsse.client.stream import EventStream, MessageStream

__all__ = [
    "ANTHROPIC_VERSION",
    "AsyncClient",
    "EventStream",
    "FakeStream",
    "MessageStream",
    "Origin",
    "Proxy",
    "Route",
    "Stream",
    "TLSContext",
    "Timeouts",
    "Timing",
]
