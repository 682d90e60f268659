"""One answer, cut in every place: by the network into segments, and by HTTP into chunks, which need not agree.

A boundary may fall inside a chunk's size, a header field, a UTF-8 character, an event's name, or between CR and LF; the
reader must not notice. Fake streams try one place in three, or every place with RAWSSE_EVERY_CUT=1, as HTTP's own parser and
the answer do without a client (`http1/test_connection.py`, `test_cuts.py`); real sockets try a handful, each segment sent
after the last was read.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.answers import ASK, SSE_HEAD, chunked, client_of, head
from support.background import Background
from support.clock import run
from support.sampling import one_in
from support.sockets import serving

from rawsse.client.blocking import Client
from rawsse.client.blocking.network import SocketLink
from rawsse.client.client import AsyncClient
from rawsse.client.network.asyncio_network import AsyncioLink
from rawsse.client.network.route import Origin
from rawsse.client.retry import Timeouts
from rawsse.replay.fakes import FakeStream

# As short as an answer can be, since it is read a thousand times, and with CRLF: one more place to cut.
BODY = """event: message_start
data: {"type":"message_start","message":{}}

data: {"type":"content_block_start","index":0,"content_block":{"type":"text"}}

data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"é☺"}}

: ping

data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\u2028😀"}}

data: {"type":"content_block_stop","index":0}

data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}

event: message_stop
data: {}

""".replace("\n", "\r\n").encode()
READING = (["é☺", "\u2028😀"], "complete", False)
NO_CLOCKS = Timeouts(connect=None, head=None, silence=None, content=None)  # timers would be half of the time
SHORT_HEAD = head(transfer_encoding="chunked")


Reading = tuple[list[str], str, bool]


async def read(segments: Iterable[bytes]) -> Reading:
    """What a client makes of an answer in these segments."""
    async with client_of(FakeStream(segments, end=None), timeouts=NO_CLOCKS).messages.stream(**ASK) as stream:
        pieces = [text async for text in stream.text_stream]
        assert stream.ending is not None
        return pieces, stream.ending.kind, stream.ending.tail_missing


def readings(ways: Iterable[Iterable[bytes]]) -> list[Reading]:
    """What clients make of an answer in these ways of cutting it, each reading once: one, if boundaries do not matter."""

    async def story() -> list[Reading]:
        found: list[Reading] = []
        for segments in ways:
            if (reading := await read(segments)) not in found:
                found.append(reading)
        return found

    return run(story())


def in_segments(wire: bytes, size: int) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


def in_chunks(size: int) -> bytes:
    return SHORT_HEAD + chunked(*in_segments(BODY, size))


def test_every_cut_of_the_wire_into_two_segments() -> None:
    wire = in_chunks(100)
    assert readings([wire[:at], wire[at:]] for at in range(1, len(wire), one_in(3))) == [READING]


def test_every_cut_of_the_body_into_two_chunks() -> None:
    assert readings([SHORT_HEAD + chunked(BODY[:at], BODY[at:])] for at in range(1, len(BODY), one_in(3))) == [READING]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, len(BODY)])
def test_segments_and_chunks_of_different_sizes(chunk: int) -> None:
    wire = in_chunks(chunk)
    assert readings(in_segments(wire, size) for size in (1, 3, 11, 101, len(wire))) == [READING]


def test_every_pair_of_cuts_of_a_short_answer() -> None:
    wire = SHORT_HEAD + chunked(b'{"id":"\xe2\x98', b'\xba"}')
    cuts = list(itertools.combinations(range(1, len(wire)), 2))[:: one_in(4)]

    async def story() -> set[str]:
        streams = [FakeStream([wire[:a], wire[a:b], wire[b:]]) for a, b in cuts]
        client = client_of(*streams, timeouts=NO_CLOCKS)
        return {(await client.models.retrieve("m")).id for _ in cuts}

    assert asyncio.run(story()) == {"☺"}


# --- Over real sockets ---------------------------------------------------------------------------------------------


class Pacer:
    """A handler that sends a segment when the client has read the one before. `ends`: after how many bytes its reads ended."""

    def __init__(self, segments: list[bytes]) -> None:
        self.ends: list[int] = []
        self._segments = segments

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sent = 0
        for segment in self._segments:
            writer.write(segment)
            sent += len(segment)
            while self.ends[-1:] != [sent]:  # noqa: ASYNC110 - the client may be in another thread
                await asyncio.sleep(0)
        await reader.read()

    def note(self, count: int) -> None:
        """The client has read so many bytes."""
        self.ends.append(count + (self.ends[-1] if self.ends else 0))


def read_async(pacer: Pacer, patch: pytest.MonkeyPatch) -> str:
    """The text that a client reads in an event loop."""
    original = AsyncioLink.data_received

    def data_received(link: AsyncioLink, data: bytes) -> None:
        original(link, data)
        pacer.note(len(data))

    async def story() -> str:
        async with serving(pacer) as origin, AsyncClient(api_key="x", base_url=str(origin)) as client:
            text: str = (await client.messages.create(**ASK)).text
            return text

    patch.setattr(AsyncioLink, "data_received", data_received)
    return run(story())


def read_blocking(pacer: Pacer, patch: pytest.MonkeyPatch) -> str:
    """The text that a client without async reads."""
    original = SocketLink._receive

    def receive(link: SocketLink, sock: Any) -> bytes | None:
        if data := original(link, sock):
            pacer.note(len(data))
        return data

    patch.setattr(SocketLink, "_receive", receive)
    with Background() as background:
        origin: Origin = background.enter(serving(pacer))
        with Client(api_key="x", base_url=str(origin)) as client:
            text: str = client.messages.create(**ASK).text
            return text


clients = pytest.mark.parametrize("read_from", [read_async, read_blocking])
ReadFrom = Callable[[Pacer, pytest.MonkeyPatch], str]

SMILE = BODY.index("☺".encode())

CUTS = {
    "inside the head": 20,
    "between CR and LF of the head's end": len(SSE_HEAD) - 1,
    "inside a chunk's size": len(SSE_HEAD) + 1,
    "between CR and LF of a chunk's size": len(SSE_HEAD) + 4,
    "inside a character": len(SSE_HEAD) + 5 + SMILE + 1,
    "between CR and LF of an event's end": len(SSE_HEAD) + 5 + BODY.index(b"\r\n\r\n") + 3,
    "inside the last chunk": len(SSE_HEAD) + 5 + len(BODY) + 4,
}


@clients
@pytest.mark.parametrize("place", CUTS)
def test_segments_of_a_real_socket(place: str, read_from: ReadFrom, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = SSE_HEAD + chunked(BODY)
    assert len(f"{len(BODY):x}") == 3  # so that the places above are what they say
    pacer = Pacer([wire[: CUTS[place]], wire[CUTS[place] :]])
    assert read_from(pacer, monkeypatch) == "é☺\u2028😀"
    assert pacer.ends[0] == CUTS[place]


@clients
def test_many_small_segments_of_a_real_socket(read_from: ReadFrom, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = in_segments(SSE_HEAD + chunked(*in_segments(BODY, 30)), 50)
    pacer = Pacer(segments)
    assert read_from(pacer, monkeypatch) == "é☺\u2028😀"
    assert pacer.ends == [len(sent) for sent in itertools.accumulate(segments)][: len(pacer.ends)]
    assert len(pacer.ends) >= len(segments) - 1  # at the last one the answer is whole before it is
