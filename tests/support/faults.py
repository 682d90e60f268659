"""Peers that fail as a test says, and what a caller sees of it. Time is virtual.

    seen = see(Peer(b"HTTP/1.1 2", end=RESET))          # each connection is reset in its first line
    seen.outcome                                        # class, text so far, attempts, seconds …
    seen.events, seen.requests

`Peer` defines what one connection does. `see` makes one call, however it is read (`WAYS`), and fails if the call left anything
behind, showed anything twice, or if the error contradicts itself. It needs no event loop: the client runs on a `Timeless`
network, where a wait only moves the time. `run(watch(...))` does the same in an event loop.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rawsse.client.client import AsyncClient
from rawsse.client.network.connect import OnStart
from rawsse.client.network.link import Calls, Link, drive
from rawsse.client.network.pool import Pool, PoolLimits
from rawsse.client.network.route import Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import APIError, PartialMessage
from rawsse.messages import Message
from rawsse.replay.fakes import FakeStream, fake_links
from support.answers import ASK, KEY, SSE_HEAD, Sent
from support.pools import counts
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
    "Timeless",
    "chunk",
    "client_without_loop",
    "says",
    "see",
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


# --- The network -----------------------------------------------------------------------------------------------------


class Peer:
    """What one connection does: it cannot be made (`refuses`), or it sends `chunks` (a number is so many seconds of silence,
    None waits for the next request), and then `end` as a `FakeStream` does."""

    def __init__(
        self,
        *chunks: bytes | float | None,
        end: bytes | BaseException | None = b"",
        refuses: BaseException | None = None,
        is_black_hole: bool = False,
        stream: type[FakeStream] = FakeStream,
    ) -> None:
        self.is_black_hole = is_black_hole
        self._stream = stream
        self._chunks = chunks
        self._end = end
        self._refusal = refuses

    def connect(self) -> FakeStream:
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

    def next_peer(self) -> Peer:
        peer = self._peers[min(self.attempts, len(self._peers) - 1)]
        self.attempts += 1
        return peer

    def connect(self, peer: Peer) -> FakeStream:
        self.streams.append(peer.connect())
        return self.streams[-1]

    async def __call__(self, route: Route, tls: TLSContext) -> FakeStream:
        """What `AsyncClient(connect=…)` calls, in an event loop."""
        del route, tls
        peer = self.next_peer()
        if peer.is_black_hole:
            await asyncio.Event().wait()
        return self.connect(peer)

    @property
    def requests(self) -> list[Sent]:
        """The requests as they were written, on one connection after the other."""
        written = [bytes(stream.written) for stream in self.streams]
        return [Sent(b"POST " + each) for wire in written for each in wire.split(b"POST ")[1:]]


class Timeless:
    """A network without an event loop. Nothing suspends: a wait moves the time to its end, and calls on the way what is due."""

    runs_coroutines = False

    @staticmethod
    def owner() -> str:
        return "here"

    def __init__(self, peers: Network, start: float = 1000.0) -> None:
        self.time = start
        self.now: Callable[[], float] = lambda: self.time
        self._peers = peers
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def link(self) -> _PeerLink:
        return _PeerLink(self._peers, self)

    def signal(self) -> _Signal:
        return _Signal(self)

    def post(self, callback: Callable[[], object]) -> None:
        callback()

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], object]:
        item = (when, next(self._numbers), callback)
        self._due.append(item)

        def cancel() -> None:
            if item in self._due:
                self._due.remove(item)

        return cancel

    async def run(self, calls: Calls, on_start: OnStart | None = None, deadline: float = math.inf) -> list[Any]:
        del on_start, deadline  # each runs in the caller's thread: nothing can stop it
        return [call() for call in calls]

    def pass_until(self, deadline: float) -> bool:
        """Let time pass until something is due; False if that is the deadline."""
        if self._due and min(self._due)[0] <= deadline:
            when, _, callback = item = min(self._due)
            self._due.remove(item)
            self.time = max(self.time, when)
            callback()
            return True
        assert deadline < math.inf, "it waits forever"
        self.time = max(self.time, deadline)
        return False


class _Signal:
    def __init__(self, network: Timeless) -> None:
        self._network = network
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    async def wait(self, deadline: float) -> bool:
        while not self._is_set and self._network.pass_until(deadline):
            pass
        return self._is_set


class _PeerLink(FakeStream):
    """A link to the next peer. Until it is connected it is silent."""

    def __init__(self, peers: Network, network: Timeless) -> None:
        super().__init__(end=None)
        self.enter(network)
        self._peers = peers
        self._stream: FakeStream | None = None

    async def connect(self, route: Route, tls: TLSContext, deadline: float) -> Link:
        del route, tls
        peer = self._peers.next_peer()
        if peer.is_black_hole:
            await self.read(deadline)
        self._stream = self._peers.connect(peer)
        assert self._network is not None
        self._stream.enter(self._network)
        return self._stream

    def abort(self) -> None:
        super().abort()
        if self._stream is not None:
            self._stream.abort()


# --- The caller ------------------------------------------------------------------------------------------------------


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


def _given(**options: Any) -> dict[str, Any]:
    given = {"api_key": KEY, "base_url": "http://api.example", "trust_env": False}
    return {**given, "now": lambda: NOW, "chance": lambda: 0.0, **options}


def client_without_loop(network: Network, limits: PoolLimits | None = None, **options: Any) -> AsyncClient:
    """A client whose coroutines never suspend: `drive` runs them."""
    client = AsyncClient(**_given(**options))
    client._pools._new_network = Timeless
    client._pools._pools[Timeless.owner()] = Pool(Timeless(network), TLSContext(), limits or PoolLimits())
    return client


def see(*peers: Peer, way: str = "stream", calls_before: int = 0, **options: Any) -> Seen:
    """Make a call to these peers and see it to its end; before it, so many that are whole. `options` are the client's."""
    network = Network(*peers)
    return drive(_seen(client_without_loop(network, **options), network, way, calls_before))


async def watch(*peers: Peer, way: str = "stream", calls_before: int = 0, **options: Any) -> Seen:
    """The same in an event loop."""
    network = Network(*peers)
    return await _seen(AsyncClient(**_given(connect=fake_links(network), **options)), network, way, calls_before)


async def _seen(client: AsyncClient, network: Network, way: str, calls_before: int) -> Seen:
    call = _Call(client)
    error: APIError | None = None
    for _ in range(calls_before):
        await client.messages.create(**ASK)
    attempts_before = network.attempts
    now = client._pools.here().network.now
    before = now()
    try:
        await WAYS[way](call)
    except APIError as exc:
        error = exc
    seconds = round(now() - before, 6)
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
    opened, idle, waiting = counts(client._pools)
    alive = [stream for stream in network.streams if not stream.is_aborted]
    assert (opened, waiting, len(alive)) == (idle, 0, idle)


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
