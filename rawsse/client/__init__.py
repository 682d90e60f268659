"""Talking to the API.

Read in this order:

    net.py       TCP, TLS, waiting with a deadline: a Stream; and FakeStream, made of byte chunks
    exchange.py  one request and its response, with its clocks
    stream.py    the answer as it comes: events, text, the message so far, the one ending
    client.py    from arguments to a request
"""

from rawsse.client.client import ANTHROPIC_VERSION, AsyncClient
from rawsse.client.exchange import Timing
from rawsse.client.net import FakeStream, Origin, Stream, Timeouts, TLSContext
from rawsse.client.stream import EventStream, MessageStream

__all__ = [
    "ANTHROPIC_VERSION",
    "AsyncClient",
    "EventStream",
    "FakeStream",
    "MessageStream",
    "Origin",
    "Stream",
    "TLSContext",
    "Timeouts",
    "Timing",
]
