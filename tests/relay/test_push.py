"""rawsse.relay.push: the events that reading gives, clocks, pauses, every way to end; on made-up and on real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from support.answers import ASK, KEY, SSE_HEAD, client_of, head, plain
from support.clock import run, ticks
from support.faults import BEGIN, BLOCK, BLOCK_STOP, END, HEL, LO, RESET, WHOLE, Network, Peer, chunk, says
from support.loops import Loop, each_loop
from support.pools import counts
from support.sampling import one_in
from support.sockets import serving, trusting
from support.streams import PING, STOP, block_start, text_delta

from rawsse.client.client import AsyncClient
from rawsse.client.exchange import BUSY_SECONDS, CallSettings, Timing
from rawsse.client.network.route import Origin, Route
from rawsse.client.request import RequestData
from rawsse.client.retry import Timeouts
from rawsse.errors import (
    APIError,
    APIStatusError,
    APITimeoutError,
    ContentTimeoutError,
    Ending,
    HTTPProtocolError,
    OverloadedError,
    SilenceTimeoutError,
    StreamCancelledError,
    StreamTruncatedError,
    TotalTimeoutError,
)
from rawsse.messages.events import StreamEvent
from rawsse.relay.push import EventPush, UnfoldedAnswer
from rawsse.replay import shipped_fixtures
from rawsse.replay.fakes import FakeStream

FIXTURES = shipped_fixtures()
LAST_CHUNK = b"0\r\n\r\n"
OPEN = says(BEGIN, BLOCK, HEL)
"""An answer that has content and goes on."""


class Heard:
    """A push, and what it called."""

    def __init__(self, client: AsyncClient, **options: Any) -> None:
        self.events: list[StreamEvent] = []
        self.calls: list[int] = []
        """How many events came with each call."""
        self.ends: list[Exception | None] = []
        self.ended_at = 0.0
        self.then: Callable[[], object] = int
        """What `receive` does, when it has the events."""
        self.at_end: Callable[[], object] = int
        events = partial(client.messages.events, ASK, kind=UnfoldedAnswer, **options)
        self.push = EventPush(events, self._receive, self._ended)
        self._over = asyncio.Event()

    def _receive(self, events: list[StreamEvent], at: float) -> None:
        assert not self.ends, "events came after the end"
        assert at <= now()
        self.events += events
        self.calls.append(len(events))
        self.then()

    def _ended(self, ending: Ending | None, error: Exception | None) -> None:
        assert ending == self.push.stream.ending
        self.ends.append(error)
        self.ended_at = now()
        self._over.set()
        self.at_end()

    async def end(self) -> Exception | None:
        """What the push ended with."""
        async with asyncio.timeout(10_000):
            await self._over.wait()
        await ticks(5)
        (error,) = self.ends
        assert min(self.calls, default=1) > 0
        return error

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def raws(self) -> list[Any]:
        return [event.raw for event in self.events]


def now() -> float:
    return asyncio.get_running_loop().time()


async def opened(*peers: Peer, **options: Any) -> tuple[Heard, Network]:
    """A push of what the peers say, that has content, and the network."""
    network = Network(*peers)
    heard = Heard(client_of(connect=network, chance=lambda: 0.0, **options))
    await heard.push.open()
    return heard, network


Told = tuple[list[Any], type[Exception] | None, Ending | None]
"""Events, error and ending."""


async def pushed(stream: FakeStream, client: AsyncClient | None = None) -> Told:
    heard = Heard(client or client_of(stream))
    error: Exception | None
    try:
        await heard.push.open()
    except APIError as exc:
        error = exc
        assert heard.ends == []
    else:
        error = await heard.end()
    return heard.raws, type(error) if error else None, heard.push.stream.ending


async def read(stream: FakeStream) -> Told:
    events, error = client_of(stream).messages.events(ASK), None
    raws: list[Any] = []
    try:
        async with events:
            async for event in events:
                raws.append(event.raw)  # noqa: PERF401 - those before an error count
    except APIError as exc:
        error = exc
    return raws, type(error) if error else None, events.ending


# --- The same as reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "tools", "thinking", "unicode", "pings", "cut", "error-after-content"])
@pytest.mark.parametrize("size", [50, 10_000_000])
def test_a_push_gives_the_events_and_the_ending_that_reading_gives(name: str, size: int) -> None:
    body = FIXTURES[name].body
    wire = SSE_HEAD + b"%x\r\n%b\r\n" % (len(body), body) + LAST_CHUNK
    chunks = [wire[at : at + size] for at in range(0, len(wire), size)]

    async def story() -> None:
        told = await pushed(FakeStream(chunks))
        assert told == await read(FakeStream(chunks))
        assert len(told[0]) > 4

    run(story())


SMALL = head(transfer_encoding="chunked") + b"".join(
    chunk(raw)
    for raw in (
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}},
        block_start(0, {"type": "text", "text": ""}),
        text_delta(0, "☺"),
        BLOCK_STOP,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
        STOP,
    )
)
SMALL += LAST_CHUNK


def unfolded() -> UnfoldedAnswer:
    """An answer whose request is sent."""
    route = Route(Origin("http", "x", 80))
    answer = UnfoldedAnswer(CallSettings(RequestData("POST", "/v1/messages", "x", ()), route), Timing())
    answer.begin()
    answer.send()
    answer.sent(0.0)
    return answer


def test_wherever_two_reads_cut_the_bytes_the_events_are_the_same() -> None:
    def taken(*reads: bytes) -> tuple[list[Any], Ending, bool]:
        answer, events = unfolded(), list[Any]()
        for data in reads:
            if (texts := answer.take_deltas(data, 0.0)) is not None:
                events += [event.raw for event in texts]
            else:
                answer.receive(data, 0.0)
                events += [event.raw for event in answer.take_events()]
        return events, answer.ending(), answer.is_over

    whole = taken(SMALL)
    assert (len(whole[0]), whole[1].kind, whole[2]) == (6, "complete", True)
    for at in range(1, len(SMALL)):
        assert taken(SMALL[:at], SMALL[at:]) == whole, at


def test_wherever_two_reads_cut_the_bytes_the_pushed_events_are_the_same() -> None:
    async def story() -> None:
        whole = await read(FakeStream([SMALL]))
        assert len(whole[0]) == 6
        cuts = range(1, len(SMALL), one_in(9))
        streams = [FakeStream([SMALL[:at], SMALL[at:]]) for at in cuts]
        client = client_of(*streams)
        for at, stream in zip(cuts, streams, strict=True):
            assert await pushed(stream, client) == whole, at

    run(story())


@pytest.mark.parametrize("end", [b"", RESET], ids=["closes", "resets"])
def test_wherever_the_peer_breaks_off_the_outcome_is_the_same(end: Any) -> None:
    async def story() -> None:
        for at in range(1, len(SMALL), 11):
            cut = SMALL[:at]
            assert await pushed(FakeStream([cut], end=end)) == await read(FakeStream([cut], end=end)), at

    run(story())


def test_the_events_of_one_read_come_in_one_call() -> None:
    async def story() -> None:
        heard, _ = await opened(Peer(says(BEGIN, BLOCK), 1.0, chunk(HEL, LO), 1.0, chunk(BLOCK_STOP, END, STOP)))
        assert await heard.end() is None
        assert heard.calls == [2, 2, 3]

    run(story())


# --- The shortest way ----------------------------------------------------------------------------------------------

DELTA = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}'


def frame(data: str = DELTA, name: str = "content_block_delta") -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def in_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ODD_FRAMES: dict[str, bytes] = {
    "escapes": frame(DELTA.replace('"x"', r'"\"\\\n\u00e9\ud83d\ude00"')),
    "characters of many bytes": frame(DELTA.replace('"x"', '"é☺😀\u2028"')),
    "half a pair": frame(DELTA.replace('"x"', r'"\ud83d"')),
    "blanks in the JSON": frame(DELTA.replace(",", " , ")),
    "a line feed in the JSON": frame(DELTA.replace(',"index"', ',\n"index"')),
    "a CR in the JSON": frame(DELTA.replace(',"index"', ',\r"index"')),
    "lines that end with CRLF": frame().replace(b"\n", b"\r\n"),
    "a second data line": frame(DELTA + "\ndata: "),
    "an id before": b"id: 7\n" + frame(),
    "an id after": frame().removesuffix(b"\n") + b"id: 7\n\n",
    "a retry after": frame().removesuffix(b"\n") + b"retry: 7\n\n",
    "a comment before": b": hello\n\n" + frame(),
    "a comment alone": b": hello\n\n",
    "two events": frame() * 2,
    "an event and a half": frame() + frame()[:60],
    "no name": f"data: {DELTA}\n\n".encode(),
    "another name": frame(name="ping"),
    "another type": frame('{"type":"ping"}'),
    "an error": frame('{"type":"error","error":{"type":"api_error","message":"no"}}'),
    "no type": frame(DELTA.replace('"type":"content_block_delta",', "")),
    "no text": frame(DELTA.replace('"x"', '""')),
    "text that is none": frame(DELTA.replace('"x"', "5")),
    "thinking": frame(DELTA.replace("text", "thinking")),
    "input": frame(DELTA.replace("text_delta", "input_json_delta").replace('"text"', '"partial_json"')),
    "thinking and nothing": frame(DELTA.replace("text", "thinking").replace('"x"', '""')),
    "another delta": frame(DELTA.replace("text_delta", "signature_delta").replace('"text"', '"signature"')),
    "a delta that is a list": frame(DELTA.replace('{"type":"text_delta","text":"x"}', '["text"]')),
    "a delta that is a text": frame(DELTA.replace('{"type":"text_delta","text":"x"}', '"text"')),
    "no delta": frame('{"type":"content_block_delta","index":0}'),
    "an index that is none": frame(DELTA.replace("0", '"0"')),
    "another block": frame(DELTA.replace("0", "3")),
    "broken JSON": frame(DELTA[:-1]),
    "JSON that is too deep": frame("[" * 20_000),
    "more after the JSON": frame(DELTA + "]"),
    "a list": frame(f"[{DELTA}]"),
    "the end mark": frame("[DONE]"),
    "bytes that are no text": frame().replace(b"x", b"\xff"),
    "a NUL": frame(DELTA.replace('"x"', '"\0"')),
    "the end of the block": frame('{"type":"content_block_stop","index":0}', "content_block_stop"),
}
ODD_CHUNKS: dict[str, bytes] = {
    "a size in capitals": b"BE\r\n%b\r\n" % frame(DELTA.replace('"x"', '"' + "x" * 75 + '"')),
    "a size with a zero": b"0" + in_chunk(frame()),
    "a size of 17 digits": b"0" * 15 + in_chunk(frame()),
    "an extension": in_chunk(frame()).replace(b"\r\n", b";a=b\r\n", 1),
    "a size too small": b"%x\r\n%b\r\n" % (len(frame()) - 1, frame()),
    "a size too large": b"%x\r\n%b\r\n" % (len(frame()) + 1, frame()),
    "no line end": in_chunk(frame()).removesuffix(b"\r\n"),
    "two chunks": in_chunk(frame()) * 2,
    "two chunks, and a byte between": in_chunk(frame()) + b"\n" + in_chunk(frame()),
    "a chunk and the half of one": in_chunk(frame()) + in_chunk(frame())[:40],
    "a chunk in a chunk": in_chunk(b": " + in_chunk(frame())),
    "an event in two chunks": in_chunk(frame()[:40]) + in_chunk(frame()[40:]),
    "the last chunk after it": in_chunk(frame()) + LAST_CHUNK,
    **{name: in_chunk(data) for name, data in ODD_FRAMES.items()},
}


def same(one: Told, other: Told) -> bool:
    """They differ at most in what had come beyond the byte at which the answer failed."""
    endings = [told[2] and told[2]._replace(bytes_received=0, text="") for told in (one, other)]
    return one[:2] == other[:2] and endings[0] == endings[1]


@pytest.mark.parametrize("name", ODD_CHUNKS)
def test_whatever_comes_between_two_texts_reads_of_their_own_give_what_one_read_of_all_gives(name: str) -> None:
    text = in_chunk(frame())
    parts = [OPEN, text, text, ODD_CHUNKS[name], text, chunk(BLOCK_STOP, END, STOP), LAST_CHUNK]

    async def story() -> None:
        told = await pushed(FakeStream(parts))
        assert same(told, await pushed(FakeStream([b"".join(parts)])))
        assert len(told[0]) >= 5

    run(story())


def test_the_shortest_way_keeps_the_numbers_that_the_plain_way_keeps() -> None:
    def numbers(*, is_short: bool) -> Iterator[dict[str, Any]]:
        answer = unfolded()
        text, taken = in_chunk(frame(DELTA.replace('"x"', '"é☺😀"'))), 0
        for number, data in enumerate((OPEN, text, text * 3, in_chunk(b": hello\n\n"), text, text), 1):
            if number % 2:
                answer.deadline(number**2 - 1.0)  # a wait begins
            if is_short and answer.take_deltas(data, number**2) is not None:
                taken += 1
            else:
                answer.receive(data, number**2)
                answer.take_events()
            more = {"longest_gap": answer.timing.longest_gap, "content_bytes": answer.builder.content_bytes}
            kept = {**vars(answer), **{name: getattr(answer, name) for name in UnfoldedAnswer.__slots__}, **more}
            yield {name: value for name, value in kept.items() if isinstance(value, int | float)}
        assert taken == 3 * is_short  # not the one after the comment, which begins the count of such bytes again

    short = list(numbers(is_short=True))
    assert short == list(numbers(is_short=False))
    assert short[-1]["content_bytes"] - short[0]["content_bytes"] == 6 * len("é☺😀".encode())


def test_a_chunk_of_any_size_takes_the_shortest_way() -> None:
    answer = unfolded()
    answer.receive(OPEN, 0.0)
    answer.take_events()
    assert all(answer.take_deltas(in_chunk(frame(DELTA.replace('"x"', f'"{"x" * n}"'))), 0.0) for n in range(1, 300))


def test_texts_with_nothing_in_them_do_not_put_off_the_clock_for_content() -> None:
    async def story() -> None:
        nothing = [part for _ in range(60) for part in (in_chunk(frame(DELTA.replace('"x"', '""'))), 1.0)]
        heard, _ = await opened(Peer(OPEN, in_chunk(frame()), 1.0, *nothing), timeout=Timeouts(content=30.0))
        begun = now()
        assert isinstance(await heard.end(), ContentTimeoutError)
        assert heard.ended_at - begun == 30

    run(story())


def test_events_of_the_shortest_way_have_the_id_that_came_before_them() -> None:
    async def story() -> None:
        heard, _ = await opened(Peer(OPEN, 1.0, in_chunk(b"id: 7\n" + frame()), 1.0, in_chunk(frame()), 1.0, end=RESET))
        await heard.end()
        assert [event.sse.id for event in heard.events[-2:]] == ["7", "7"]

    run(story())


@pytest.mark.parametrize("name", FIXTURES)
def test_an_answer_of_which_each_event_has_its_own_chunk_and_read_is_that_of_one_read(name: str) -> None:
    events = [part + b"\n\n" for part in FIXTURES[name].body.split(b"\n\n") if part]
    parts = [SSE_HEAD, *map(in_chunk, events), LAST_CHUNK]

    async def story() -> None:
        assert same(await pushed(FakeStream(parts)), await pushed(FakeStream([b"".join(parts)])))

    run(story())


@pytest.mark.parametrize("name", ["text", "thinking", "partial_json"])
def test_each_kind_of_delta_takes_the_shortest_way(name: str) -> None:
    answer = unfolded()
    answer.receive(OPEN, 0.0)
    answer.take_events()
    events = answer.take_deltas(in_chunk(frame(DELTA.replace('"text":', f'"{name}":'))), 0.0) or []
    assert [event.raw["delta"][name] for event in events] == ["x"]


@pytest.mark.parametrize(("options", "is_short"), [({}, True), ({"max_event_bytes": 100_000}, False)])
def test_a_text_in_its_own_chunk_takes_the_shortest_way_if_it_cannot_be_too_large(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, is_short: bool
) -> None:
    plain, reads = UnfoldedAnswer.receive, 0

    def receive(answer: UnfoldedAnswer, data: bytes, now: float) -> None:
        nonlocal reads
        reads += 1
        plain(answer, data, now)

    monkeypatch.setattr(UnfoldedAnswer, "receive", receive)

    async def story() -> None:
        texts = [part for _ in range(60) for part in (in_chunk(frame()), 0.01)]
        heard, _ = await opened(Peer(OPEN, 1.0, *texts, chunk(BLOCK_STOP, END, STOP)), **options)
        assert await heard.end() is None
        assert len(heard.events) == 66
        assert (reads < 10) == is_short

    run(story())


# --- Before there is content ---------------------------------------------------------------------------------------

BROKEN = Peer(says(BEGIN, PING), 1.0, end=RESET)
OVERLOADED = Peer(says(BEGIN, PING, {"type": "error", "error": {"type": "overloaded_error", "message": "later"}}))


@pytest.mark.parametrize("failing", [BROKEN, OVERLOADED], ids=["lost", "overloaded"])
def test_a_failure_before_content_is_retried_and_pings_come_through(failing: Peer) -> None:
    async def story() -> None:
        heard, network = await opened(failing, failing, Peer(WHOLE), max_retries=2)
        assert await heard.end() is None
        assert heard.raws == [PING, PING, BEGIN, BLOCK, HEL, LO, BLOCK_STOP, END, STOP]
        assert (network.attempts, heard.push.stream.retries_taken) == (3, 2)

    run(story())


def test_a_failure_after_content_is_not() -> None:
    async def story() -> None:
        heard, network = await opened(Peer(OPEN, 1.0, end=RESET), Peer(WHOLE), max_retries=2)
        assert isinstance(await heard.end(), StreamTruncatedError)
        assert (heard.raws, network.attempts) == ([BEGIN, BLOCK, HEL], 1)

    run(story())


def test_where_no_attempt_has_an_answer_open_raises_and_no_end_is_told() -> None:
    async def story() -> None:
        network = Network(Peer(plain(b"{}", "529 Overloaded")))
        heard = Heard(client_of(connect=network, chance=lambda: 0.0, max_retries=1))
        with pytest.raises(OverloadedError) as caught:
            await heard.push.open()
        await ticks(10)
        assert (heard.events, heard.ends, network.attempts) == ([], [], 2)
        assert caught.value.retries_taken == 1

    run(story())


@pytest.mark.parametrize(("kind", "attempts"), [("overloaded_error", 2), ("invalid_request_error", 1)])
def test_of_the_last_attempt_everything_is_given_out_and_then_the_end(kind: str, attempts: int) -> None:
    async def story() -> None:
        failing = Peer(says(BEGIN, {"type": "error", "error": {"type": kind, "message": "no"}}))
        heard, network = await opened(failing, max_retries=1)
        error = await heard.end()
        assert isinstance(error, APIStatusError)
        assert error.type == kind
        assert (heard.types, network.attempts) == (["message_start"], attempts)

    run(story())


def test_an_answer_that_came_in_one_piece_has_ended_when_it_is_open() -> None:
    async def story() -> None:
        heard, _ = await opened(Peer(WHOLE))
        assert heard.ends == [None]

    run(story())


# --- Clocks --------------------------------------------------------------------------------------------------------

STILL = Timeouts(silence=10, content=None)
PINGS = Timeouts(silence=None, content=10)
LONG = Timeouts(silence=None, content=None, total=10)

CLOCKS: list[Any] = [
    pytest.param(STILL, Peer(OPEN, end=None), SilenceTimeoutError, id="silence"),
    pytest.param(PINGS, Peer(OPEN, *(4.0, chunk(PING)) * 30, end=None), ContentTimeoutError, id="content"),
    pytest.param(LONG, Peer(OPEN, *(4.0, chunk(LO)) * 30, end=None), TotalTimeoutError, id="total"),
]


@pytest.mark.parametrize(("timeouts", "peer", "error"), CLOCKS)
def test_each_clock_fires_at_its_time(timeouts: Timeouts, peer: Peer, error: type[APITimeoutError]) -> None:
    async def story() -> None:
        before = now()
        heard, network = await opened(peer, timeouts=timeouts)
        ended = await heard.end()
        assert type(ended) is error
        assert heard.ended_at - before == pytest.approx(10)
        assert isinstance(ended, APIError)
        assert ended.ending == heard.push.stream.ending
        assert network.streams[0].is_aborted

    run(story())


@pytest.mark.parametrize(
    ("timeouts", "silence"), [(STILL, 9.0), (PINGS, 9.0)], ids=["of silence", "of content, by what is content"]
)
def test_what_comes_puts_the_clock_off(timeouts: Timeouts, silence: float) -> None:
    async def story() -> None:
        before = now()
        heard, _ = await opened(Peer(OPEN, *(silence, chunk(LO)) * 5, end=None), timeouts=timeouts)
        assert isinstance(await heard.end(), SilenceTimeoutError | ContentTimeoutError)
        assert heard.ended_at - before == pytest.approx(55)
        assert len(heard.events) == 8

    run(story())


@pytest.mark.parametrize(
    ("timeouts", "peer", "error", "seconds"),
    [
        pytest.param(STILL, Peer(OPEN, end=None), SilenceTimeoutError, 10, id="silence"),
        # 4 of its 10 seconds had passed when the last ping came.
        pytest.param(PINGS, Peer(OPEN, 4.0, chunk(PING), end=None), ContentTimeoutError, 6, id="content"),
        pytest.param(LONG, Peer(OPEN, end=None), TotalTimeoutError, 0, id="total"),
    ],
)
def test_no_clock_fires_in_a_pause_and_each_starts_again_after_it(
    timeouts: Timeouts, peer: Peer, error: type[APITimeoutError], seconds: float
) -> None:
    async def story() -> None:
        heard, _ = await opened(peer, timeouts=timeouts)
        await asyncio.sleep(6)
        heard.push.pause()
        await asyncio.sleep(1000)
        assert heard.ends == []
        before = now()
        heard.push.resume()
        assert type(await heard.end()) is error
        assert heard.ended_at - before == pytest.approx(seconds, abs=BUSY_SECONDS)

    run(story())


def test_a_clock_that_is_shorter_after_a_longer_one_is_short() -> None:
    async def story() -> None:
        before = now()
        # 90 s until the silence is too long; but the total of 30 s ends it.
        heard, _ = await opened(Peer(OPEN, end=None), timeouts=Timeouts(silence=90, content=None, total=30))
        assert isinstance(await heard.end(), TotalTimeoutError)
        assert heard.ended_at - before == pytest.approx(30)

    run(story())


def test_a_resume_without_a_pause_puts_no_clock_off() -> None:
    async def story() -> None:
        before = now()
        heard, _ = await opened(Peer(OPEN, end=None), timeouts=STILL)
        await asyncio.sleep(6)
        heard.push.resume()
        assert isinstance(await heard.end(), SilenceTimeoutError)
        assert heard.ended_at - before == pytest.approx(10)

    run(story())


@pytest.mark.parametrize("ends", [False, True], ids=["closed", "ended"])
def test_a_push_that_is_over_leaves_no_timer(*, ends: bool) -> None:
    async def story() -> list[str]:
        heard, _ = await opened(Peer(OPEN, 1.0, chunk(BLOCK_STOP, END, STOP), end=None))
        if ends:
            await heard.end()
        else:
            heard.push.close()
        timers: Any = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        return [repr(timer) for timer in timers if not timer.cancelled() and "EventPush" in repr(timer)]

    assert run(story()) == []


# --- Pauses --------------------------------------------------------------------------------------------------------


def test_nothing_comes_in_a_pause_and_everything_after_it() -> None:
    async def story() -> None:
        heard, _ = await opened(Peer(OPEN, 1.0, chunk(LO), 1.0, chunk(BLOCK_STOP, END, STOP)))
        heard.push.pause()
        heard.push.pause()
        await asyncio.sleep(50)
        assert heard.types[2:] == ["content_block_delta"]
        heard.push.resume()
        heard.push.resume()
        assert await heard.end() is None
        assert len(heard.events) == 7

    run(story())


@pytest.mark.parametrize("count", [1, 2])
def test_a_push_may_be_paused_inside_receive(count: int) -> None:
    """At the first call nothing is handed over yet."""

    async def story() -> None:
        heard = Heard(client_of(FakeStream([OPEN, chunk(LO), chunk(BLOCK_STOP, END, STOP)])))
        heard.then = lambda: heard.push.pause() if len(heard.calls) == count else None
        await heard.push.open()
        await asyncio.sleep(1000)
        assert (len(heard.calls), heard.ends) == (count, [])
        heard.push.resume()
        assert await heard.end() is None
        assert len(heard.events) == 7

    run(story())


# --- Closing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", range(12))
def test_after_close_nothing_is_called(pause: int) -> None:
    async def story() -> None:
        stream = FakeStream(
            [SSE_HEAD, chunk(BEGIN), chunk(BLOCK), chunk(HEL), chunk(LO), chunk(PING), chunk(PING)], end=None
        )
        heard = Heard(client_of(stream))
        opening = asyncio.ensure_future(heard.push.open())
        await ticks(pause)
        ending = heard.push.close()
        count = len(heard.calls)
        result = (await asyncio.gather(opening, return_exceptions=True))[0]
        await asyncio.sleep(1000)
        assert (len(heard.calls), heard.ends) == (count, [])
        assert ending == heard.push.stream.ending
        assert ending is not None
        assert ending.kind == "cancelled"
        assert result is None or isinstance(result, StreamCancelledError)
        assert stream.is_aborted or not stream.written

    run(story())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_push_may_be_closed_inside_receive(count: int) -> None:
    async def story() -> None:
        stream = FakeStream([OPEN, chunk(LO), chunk(BLOCK_STOP, END), chunk(STOP)])
        heard = Heard(client_of(stream))
        heard.then = lambda: len(heard.calls) == count and heard.push.close()
        await heard.push.open()
        await asyncio.sleep(1000)
        assert (len(heard.calls), heard.ends, stream.is_aborted) == (count, [], True)

    run(story())


def test_a_push_may_be_closed_with_a_ping_before_all_content() -> None:
    async def story() -> None:
        stream = FakeStream([says(BEGIN, PING), chunk(BLOCK, HEL)], end=None)
        heard = Heard(client_of(stream, max_retries=2))
        heard.then = heard.push.close
        with pytest.raises(StreamCancelledError):
            await heard.push.open()
        await asyncio.sleep(1000)
        assert (heard.types, heard.ends, stream.is_aborted) == (["ping"], [], True)

    run(story())


def test_close_inside_the_last_receive_comes_before_the_end() -> None:
    async def story() -> None:
        heard = Heard(client_of(FakeStream([OPEN, chunk(LO), chunk(BLOCK_STOP, END, STOP)])))
        heard.then = lambda: heard.types[-1] == "message_stop" and heard.push.close()
        await heard.push.open()
        await asyncio.sleep(1)
        assert (len(heard.events), heard.ends) == (7, [])

    run(story())


def test_close_after_the_end_changes_nothing() -> None:
    async def story() -> None:
        heard, network = await opened(Peer(OPEN, 1.0, chunk(BLOCK_STOP, END, STOP) + LAST_CHUNK, end=None))
        assert await heard.end() is None
        ending = heard.push.close()
        assert ending is not None
        assert ending.kind == "complete"
        assert not network.streams[0].is_aborted

    run(story())


def test_a_client_that_is_closed_ends_its_pushes() -> None:
    async def story() -> None:
        network = Network(Peer(OPEN, end=None))
        async with client_of(connect=network) as client:
            heard = Heard(client)
            await heard.push.open()
        assert isinstance(await heard.end(), StreamCancelledError)
        assert network.streams[0].is_aborted

    run(story())


def test_an_opening_that_is_cancelled_drops_the_connection() -> None:
    async def story() -> None:
        stream = FakeStream([SSE_HEAD], end=None)
        heard = Heard(client_of(stream, max_retries=2))
        opening = asyncio.ensure_future(heard.push.open())
        await ticks(10)
        opening.cancel()
        await asyncio.wait([opening])
        assert (opening.cancelled(), stream.is_aborted, heard.ends) == (True, True, [])

    run(story())


# --- Failures ------------------------------------------------------------------------------------------------------


def test_a_connection_that_is_reset_ends_the_push_with_the_error_and_its_ending() -> None:
    async def story() -> None:
        heard, _ = await opened(Peer(OPEN, 1.0, end=RESET))
        error = await heard.end()
        assert isinstance(error, StreamTruncatedError)
        assert isinstance(error.__cause__, ConnectionResetError)
        assert error.ending == heard.push.stream.ending
        assert error.ending is not None
        assert (error.ending.kind, error.ending.phase) == ("truncated", "content")

    run(story())


def test_bytes_that_are_no_http_end_the_push() -> None:
    async def story() -> None:
        heard, network = await opened(Peer(OPEN, 1.0, b"nonsense\r\n", end=None))
        assert isinstance(await heard.end(), HTTPProtocolError)
        assert network.streams[0].is_aborted

    run(story())


def test_what_receive_raises_comes_to_the_end_and_closes_the_connection() -> None:
    async def story() -> None:
        heard, network = await opened(Peer(OPEN, 1.0, chunk(LO), 1.0, chunk(LO), end=None))
        heard.then = lambda: 1 // 0
        error = await heard.end()
        assert isinstance(error, ZeroDivisionError)
        await asyncio.sleep(1000)
        assert (len(heard.calls), len(heard.ends), network.streams[0].is_aborted) == (2, 1, True)
        assert heard.push.stream.ending is not None

    run(story())


# --- The connection after the end ----------------------------------------------------------------------------------

LATE = WHOLE.removesuffix(LAST_CHUNK)


@pytest.mark.parametrize("pause", [0.0, 0.002, 1.0], ids=["at once", "when it has come", "later"])
@pytest.mark.parametrize("wire", [(WHOLE,), (LATE, 0.001, LAST_CHUNK)], ids=["whole", "its last chunk comes late"])
@pytest.mark.parametrize("cut", [len(SSE_HEAD), len(OPEN), len(OPEN) + 50])
def test_the_connection_is_used_again(pause: float, wire: tuple[Any, ...], cut: int) -> None:
    async def story() -> None:
        peer = Peer(wire[0][:cut], 0.5, wire[0][cut:], *wire[1:], None, WHOLE, end=None)
        network = Network(peer)
        client = client_of(connect=network)
        for _ in range(2):
            heard = Heard(client)
            await heard.push.open()
            assert await heard.end() is None
            assert counts(client._pools)[1] == 1
            await asyncio.sleep(pause)
        assert (network.attempts, len(network.requests)) == (1, 2)
        await client.aclose()

    run(story())


@each_loop
def test_the_next_push_may_be_opened_inside_the_end_of_the_last_one(on: Loop) -> None:
    async def story() -> None:
        cut = len(OPEN)
        network = Network(Peer(WHOLE[:cut], 0.01, WHOLE[cut:], None, WHOLE[:cut], WHOLE[cut:], end=None))
        client = client_of(connect=network)
        first, second = Heard(client), Heard(client)
        tasks: list[asyncio.Task[None]] = []
        first.at_end = lambda: tasks.append(asyncio.get_running_loop().create_task(second.push.open()))
        await first.push.open()
        assert await first.end() is None
        assert await second.end() is None
        assert (len(second.events), network.attempts) == (7, 1)
        await asyncio.gather(*tasks)
        await client.aclose()

    on(story())


def test_a_connection_whose_peer_closes_after_the_end_is_not() -> None:
    async def story() -> None:
        network = Network(Peer(OPEN, 0.5, WHOLE[len(OPEN) :], end=b""), Peer(WHOLE))
        client = client_of(connect=network)
        for _ in range(2):
            heard = Heard(client)
            await heard.push.open()
            assert await heard.end() is None
        assert network.attempts == 2

    run(story())


# --- Real connections ----------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])


@asynccontextmanager
async def saying(*chunks: bytes | float, tls: bool, closes: bool = False) -> AsyncIterator[AsyncClient]:
    """A client of a server that answers each request with these chunks, with so many seconds in between."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            for each in chunks:
                if isinstance(each, bytes):
                    writer.write(each)
                else:
                    await asyncio.sleep(each)
            if closes:
                writer.close()
                return

    async with (
        serving(handler, tls=tls) as origin,
        AsyncClient(api_key=KEY, base_url=f"{origin}", max_retries=0, ssl_context=trusting().get()) as client,
    ):
        yield client


@both
def test_over_a_socket_events_are_pushed_and_the_connection_is_used_again(*, tls: bool) -> None:
    async def story() -> None:
        parts = OPEN[:200], 0.1, OPEN[200:], 0.1, LATE[len(OPEN) :], 0.002, LAST_CHUNK
        async with saying(*parts, tls=tls) as client:
            for _ in range(3):
                heard = Heard(client)
                await heard.push.open()
                assert await heard.end() is None
                assert heard.raws == [BEGIN, BLOCK, HEL, LO, BLOCK_STOP, END, STOP]
                assert counts(client._pools)[:2] == (1, 1)
            assert heard.push.stream.timing.is_reused

    run(story())


@both
@pytest.mark.parametrize("closes", [False, True], ids=["stays", "closes"])
@pytest.mark.parametrize("end", [STOP, None], ids=["whole", "cut"])
def test_all_may_have_come_before_the_hand_over(end: Any, *, closes: bool, tls: bool) -> None:
    """The link has it all, and perhaps its transport is closed, when it is told to push."""

    async def story() -> None:
        rest = says(BEGIN, BLOCK, HEL, BLOCK_STOP, *([END, STOP] if end else []))[len(SSE_HEAD) :]
        async with saying(SSE_HEAD, 0.1, rest + LAST_CHUNK, tls=tls, closes=closes) as client:
            heard = Heard(client)
            await heard.push.stream._open()
            await asyncio.sleep(1)
            await heard.push.open()
            error = await heard.end()
            assert error is None if end else isinstance(error, StreamTruncatedError)
            assert heard.raws[:4] == [BEGIN, BLOCK, HEL, BLOCK_STOP]
            if not closes:  # and the connection is as good as before
                again = Heard(client)
                await again.push.open()
                await again.end()
                assert again.raws == heard.raws
                assert again.push.stream.timing.is_reused == (end is not None)

    run(story())


@both
def test_a_link_that_is_full_at_the_hand_over_reads_on(*, tls: bool) -> None:
    async def story() -> None:
        rest = says(BEGIN, BLOCK, *[text_delta(0, "x" * 1000)] * 300, BLOCK_STOP, END, STOP)[len(SSE_HEAD) :]
        async with saying(SSE_HEAD, 0.1, rest + LAST_CHUNK, tls=tls) as client:
            heard = Heard(client)
            await heard.push.stream._open()
            await asyncio.sleep(1)
            await heard.push.open()
            assert await heard.end() is None
            assert len(heard.events) == 305

    run(story())


@both
def test_a_server_that_is_made_to_wait_goes_on_when_the_push_does(*, tls: bool) -> None:
    async def story() -> None:
        many = chunk(text_delta(0, "x" * 1000)) * 1000
        async with saying(OPEN, 0.1, many, chunk(BLOCK_STOP, END, STOP) + LAST_CHUNK, tls=tls) as client:
            heard = Heard(client)
            await heard.push.open()
            heard.push.pause()
            await asyncio.sleep(1000)
            assert len(heard.events) == 3
            heard.push.resume()
            assert await heard.end() is None
            assert len(heard.events) == 1006

    run(story())


@both
@pytest.mark.parametrize("late", [0.0, 0.1])
def test_a_push_that_ends_in_a_pause_leaves_a_connection_that_can_be_read(late: float, *, tls: bool) -> None:
    def pause_at_the_end(heard: Heard) -> None:
        if heard.types[-1] == "message_stop":
            heard.push.pause()

    async def story() -> None:
        async with saying(OPEN, 0.1, chunk(BLOCK_STOP, END, STOP), late, LAST_CHUNK, tls=tls) as client:
            for _ in range(2):
                heard = Heard(client)
                heard.then = partial(pause_at_the_end, heard)
                await heard.push.open()
                assert await heard.end() is None
                await asyncio.sleep(1)
            assert heard.push.stream.timing.is_reused

    run(story())


@both
def test_a_push_that_is_closed_closes_its_socket(*, tls: bool) -> None:
    async def story() -> None:
        async with saying(OPEN, 0.1, chunk(LO), tls=tls) as client:
            heard = Heard(client)
            await heard.push.open()
            heard.push.close()
            await asyncio.sleep(10)
            assert (len(heard.events), heard.ends, counts(client._pools)[0]) == (3, [], 0)

    run(story())
