"""Peers that fail as a test says, and what a caller sees of it, in virtual time.

    seen = run(watch(Peer(b"HTTP/1.1 2", end=RESET), times=3))        # three connections, each reset in its first line
    seen.outcome                                                      # class, text so far, attempts, seconds …
    seen.events, seen.requests

`Peer` says what one connection does. `watch` makes one call, however it is read (`WAYS`), and fails if the call left anything
behind, showed anything twice, or if the error contradicts itself.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rawsse.client.client import AsyncClient
from rawsse.client.network.net import FakeStream, Stream
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import APIError, PartialMessage
from rawsse.messages import Message
from support.answers import ASK, KEY, SSE_HEAD, Sent
from support.streams import STOP, Raw, block_start, block_stop, end, start, text_delta, to_bytes

__all__ = [
    "BEGIN",
    "BLACK_HOLE",
    "BLOCK",
    "BLOCK_STOP",
    "END",
    "HEL",
    "LO",
    "NOW",
    "REFUSED",
    "RESET",
    "WAYS",
    "WHOLE",
    "Network",
    "Outcome",
    "Peer",
    "Seen",
    "chunk",
    "says",
    "watch",
]

NOW = 784111777.0
"""The time at which all of this happens, in POSIX time: "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, 5.6.7)."""

BEGIN = start()
BLOCK = block_start(0, {"type": "text", "text": ""})
HEL = text_delta(0, "Hel")
LO = text_delta(0, "lo")
BLOCK_STOP = block_stop(0)
END = end()

RESET = ConnectionResetError(104, "Connection reset by peer")


def chunk(*raws: Raw) -> bytes:
    """These events as one chunk of a chunked body."""
    data = to_bytes(raws)
    return b"%x\r\n%b\r\n" % (len(data), data)


def says(*raws: Raw) -> bytes:
    """The head of a stream and these events, one chunk each. The body has not ended."""
    return SSE_HEAD + b"".join(chunk(raw) for raw in raws)


WHOLE = says(BEGIN, BLOCK, HEL, LO, BLOCK_STOP, END, STOP) + b"0\r\n\r\n"
"""A whole answer that says "Hello"."""


class Peer:
    """What one connection does: it cannot be made (`refuses`), or says `chunks` (a number is so many seconds of silence, None
    waits for the next request), and then `end` as a `FakeStream` does."""

    def __init__(
        self,
        *chunks: bytes | float | None,
        end: bytes | BaseException | None = b"",
        refuses: BaseException | None = None,
        is_black_hole: bool = False,
        stream: type[FakeStream] = FakeStream,
    ) -> None:
        self._stream = stream
        self._chunks = chunks
        self._end = end
        self._refusal = refuses
        self._is_black_hole = is_black_hole

    async def connect(self) -> FakeStream:
        if self._is_black_hole:
            await asyncio.Event().wait()
        if self._refusal is not None:
            raise copy.copy(self._refusal)
        return self._stream(self._chunks, end=copy.copy(self._end))


REFUSED = Peer(refuses=ConnectionRefusedError(111, "Connection refused"))
BLACK_HOLE = Peer(is_black_hole=True)


class Network:
    """What a client connects to: one peer after the other, and the last one over and over. `streams` are its connections."""

    def __init__(self, *peers: Peer) -> None:
        self._peers = peers
        self.attempts = 0
        self.streams: list[FakeStream] = []

    async def __call__(self, route: Route, tls: TLSContext) -> Stream:
        del route, tls
        peer = self._peers[min(self.attempts, len(self._peers) - 1)]
        self.attempts += 1
        self.streams.append(await peer.connect())
        return self.streams[-1]

    @property
    def requests(self) -> list[Sent]:
        """The requests as they were written, on one connection after the other."""
        written = [bytes(stream.written) for stream in self.streams]
        return [Sent(b"POST " + each) for wire in written for each in wire.split(b"POST ")[1:]]


class Outcome(NamedTuple):
    """What a caller is told: the error (None: there was none), the text that had come (None: not even `message_start`), how
    many connections were tried, the seconds that passed, whether it may repeat the call, and the kind of the ending."""

    error: type[APIError] | None
    text: str | None
    attempts: int
    seconds: float
    safe_to_retry: bool
    ending: str


@dataclass
class Seen:
    """A call that is over."""

    outcome: Outcome
    error: APIError | None
    events: list[Any]
    network: Network
    retries_taken: int | None = None
    message: Message | None = field(default=None, repr=False)

    @property
    def requests(self) -> list[Sent]:
        """The requests as they were written, on one connection after the other."""
        return self.network.requests


class _Call:
    """One call, and what its reader has got so far."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.events: list[Any] = []
        self.message: Message | None = None
        self.retries_taken: int | None = None


async def _stream(call: _Call) -> None:
    async with call.client.messages.stream(**ASK) as stream:
        async for event in stream:
            call.events.append(event)
        call.message = await stream.get_final_message()
        assert stream.ending is not None
        assert stream.ending.kind == "complete"
        call.retries_taken = stream.retries_taken


async def _events(call: _Call) -> None:
    events = await call.client.messages.create(**ASK, stream=True)
    async for event in events:
        call.events.append(event)
    assert events.ending is not None
    assert events.ending.kind == "complete"
    call.message = events.current_message_snapshot
    call.retries_taken = events.retries_taken


async def _create(call: _Call) -> None:
    raw = await call.client.messages.with_raw_response.create(**ASK)
    call.message = raw.parsed
    call.retries_taken = raw.retries_taken


WAYS: Mapping[str, Callable[[_Call], Awaitable[None]]] = {"stream": _stream, "events": _events, "create": _create}
"""The three ways to read an answer."""


async def watch(*peers: Peer, way: str = "stream", calls_before: int = 0, **options: Any) -> Seen:
    """Make a call to these peers and see it to its end; before it, so many that are whole. `options` are the client's."""
    network = Network(*peers)
    given = {"api_key": KEY, "base_url": "http://api.example", "trust_env": False, **options}
    client = AsyncClient(connect=network, now=lambda: NOW, chance=lambda: 0.0, **given)
    call = _Call(client)
    error: APIError | None = None
    for _ in range(calls_before):
        await client.messages.create(**ASK)
    attempts_before = network.attempts
    before = asyncio.get_running_loop().time()
    try:
        await WAYS[way](call)
    except APIError as exc:
        error = exc
    seconds = round(asyncio.get_running_loop().time() - before, 6)
    _check_nothing_is_left(client, network)
    _check_nothing_came_twice(call.events, call.message if error is None else error.partial)
    if error is not None:
        _check_the_error(error, network)
    await client.aclose()
    outcome = _outcome(error, call.message, network.attempts - attempts_before, seconds)
    return Seen(outcome, error, call.events, network, call.retries_taken, call.message)


def _outcome(error: APIError | None, message: Message | None, attempts: int, seconds: float) -> Outcome:
    if error is None:
        assert message is not None
        return Outcome(None, message.text, attempts, seconds, safe_to_retry=False, ending="complete")
    assert error.ending is not None
    text = None if error.partial is None else error.partial.text
    return Outcome(type(error), text, attempts, seconds, error.safe_to_retry, error.ending.kind)


def _check_nothing_is_left(client: AsyncClient, network: Network) -> None:
    pool = client._pools
    assert (pool.open_connections, pool.waiting) == (pool.idle_connections, 0)
    alive = [stream for stream in network.streams if not stream.is_aborted]
    assert len(alive) == pool.idle_connections


def _check_nothing_came_twice(events: list[Any], message: PartialMessage | None) -> None:
    """What the reader saw is one beginning, and piece by piece the text of the message."""
    assert [event.type for event in events].count("message_start") <= 1
    pieces = [e.delta.text for e in events if e.type == "content_block_delta" and e.delta.type == "text_delta"]
    if events:
        assert message is not None or not pieces
        assert "".join(pieces) == ("" if message is None else message.text)


def _check_the_error(error: APIError, network: Network) -> None:
    """Whatever the fault: the error and its ending say the same, and no error tells the key."""
    ending = error.ending
    assert ending is not None
    told = (ending.text, ending.phase, ending.request_id, ending.bytes_received)
    assert told == (error.message, error.phase, error.request_id, error.bytes_received)
    assert (error.partial is None) or error.partial.request_id == error.request_id
    assert KEY not in f"{error!r}{vars(error)}"
    assert len({request.body for request in network.requests}) <= 1  # every attempt sends the same
