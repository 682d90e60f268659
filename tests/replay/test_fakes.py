"""rawsse.replay.fakes: our client and recordings with faults, without a socket, in virtual time."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from support.answers import ASK
from support.clock import run
from support.sampling import one_in

from rawsse import AsyncClient
from rawsse.client.blocking import Client
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.link import Expired
from rawsse.client.retry import RetryPolicy, Timeouts
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    BadRequestError,
    ConfigurationError,
    EventDataError,
    EventOrderError,
    EventTooLargeError,
    HTTPProtocolError,
    InternalServerError,
    OverloadedError,
    RateLimitError,
    SilenceTimeoutError,
    StreamTruncatedError,
)
from rawsse.replay import (
    FakeNetwork,
    Fault,
    Read,
    Recording,
    answer,
    by_event,
    error_recording,
    fixed,
    shipped_fixtures,
    stream_of,
)
from rawsse.replay.fakes import FakeStream

FIXTURES = shipped_fixtures()
PLAIN = FIXTURES["plain"]
THREE = Recording(reads=(Read(0.5, b"data: a\n"), Read(0.75, b"\ndata"), Read(1.75, b": b\n\n")), duration=2.0)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE_HEAD = HEAD.replace(b"Transfer-", b"connection: close\r\nTransfer-")  # only what comes whole tells of its end

T = TypeVar("T")


# --- One stream ---


def entered(stream: FakeStream) -> AsyncioNetwork:
    """The network of the loop, which the stream is in from now on."""
    network = AsyncioNetwork()
    stream.enter(network)
    return network


def reads_of(stream: FakeStream) -> list[bytes | type[BaseException] | float]:
    """What reading gives until the end, with the seconds that each read after the first took."""

    async def story() -> list[bytes | type[BaseException] | float]:
        network = entered(stream)
        await stream.write(b"x", math.inf)
        found: list[bytes | type[BaseException] | float] = []
        now = network.now
        while True:
            before = now()
            try:
                found.append(await stream.read(math.inf))
            except ConnectionResetError as exc:
                return [*found, type(exc)]
            if now() > before:
                found.append(round(now() - before, 6))
            if found[-1] == b"":
                return found

    return run(story())


def test_a_stream_says_what_was_recorded_in_chunks_and_ends() -> None:
    assert reads_of(stream_of(THREE)) == [
        WHOLE_HEAD + b"8\r\ndata: a\n\r\n",
        b"5\r\n\ndata\r\n",
        b"5\r\n: b\n\n\r\n",
        b"0\r\n\r\n",
        b"",
    ]


def test_a_stream_may_have_the_recorded_pace() -> None:
    waits = [item for item in reads_of(stream_of(THREE, speed=1)) if isinstance(item, float)]
    assert waits == [0.5, 0.25, 1.0, 0.25]


@pytest.mark.parametrize(("options", "factor"), [({}, 4), ({"speed": 8}, 0.5), ({"speed": 0}, 0)])
def test_a_stream_may_have_another_pace(options: dict[str, float], factor: float) -> None:
    waits = [item for item in reads_of(stream_of(THREE, pace="slower=4", **options)) if isinstance(item, float)]
    assert waits == [factor * wait for wait in (0.5, 0.25, 1.0, 0.25) if factor]


def test_split_cuts_the_body_and_segments_the_wire() -> None:
    assert reads_of(stream_of(THREE, split="whole"))[0] == WHOLE_HEAD + b"12\r\ndata: a\n\ndata: b\n\n\r\n"
    assert reads_of(stream_of(THREE, segments=len(WHOLE_HEAD) + 4))[:2] == [
        WHOLE_HEAD + b"8\r\nd",
        b"ata: a\n\r\n5\r\n\ndata\r\n5\r\n: b\n\n\r\n0\r\n\r\n",
    ]


def test_a_reset_is_raised_after_what_was_sent() -> None:
    assert reads_of(stream_of(THREE, faults=[Fault.parse("reset@byte=4")])) == [
        HEAD + b"4\r\ndata\r\n",
        ConnectionResetError,
    ]


@pytest.mark.parametrize("fault", ["close@byte=4", "half-close@byte=4"])
def test_a_closed_connection_is_the_end(fault: str) -> None:
    assert reads_of(stream_of(THREE, faults=[fault])) == [HEAD + b"4\r\ndata\r\n", b""]


def test_a_stall_without_an_end_has_none() -> None:
    async def story() -> bytes:
        stream = stream_of(THREE, faults=["stall@byte=4"])
        network = entered(stream)
        await stream.write(b"x", math.inf)
        data = await stream.read(math.inf)
        with pytest.raises(Expired):
            await stream.read(network.now() + 86400)
        return data

    assert run(story()) == HEAD + b"4\r\ndata\r\n"


def test_nothing_comes_before_it_was_asked_for() -> None:
    async def story() -> None:
        stream = stream_of(THREE, faults=[Fault.parse("reset@head")])
        with pytest.raises(Expired):
            await stream.read(entered(stream).now() + 60)

    run(story())


def test_a_fault_for_a_later_request_is_not_for_this_one() -> None:
    assert reads_of(stream_of(THREE, faults=[Fault.parse("reset@byte=0 after=1")]))[-1] == b""


def test_a_fault_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="drop@event=2 has no place in this answer, which has 2 events"):
        stream_of(THREE, faults=["drop@event=2"])


# --- Our client against every fault ---


def asking(network: FakeNetwork, ask: Callable[[AsyncClient], Awaitable[T]], **options: Any) -> T:
    async def story() -> T:
        given = {"api_key": "k", "base_url": "http://api.example", "trust_env": False, **options}
        async with AsyncClient(connect=network, chance=lambda: 0.0, **given) as client:
            return await ask(client)

    return run(story())


async def text(client: AsyncClient) -> str:
    async with client.messages.stream(**ASK) as stream:
        return await stream.get_final_text()


EXPECTED = asking(FakeNetwork(PLAIN), text)

# PLAIN: message_start, content_block_start, a ping, deltas, content_block_stop, message_delta, message_stop.
SMALLER_LIMIT = 200_000
OUTCOMES: dict[str, type[APIError] | None] = {
    "reset@head": APIConnectionError,
    "reset@head=20": APIConnectionError,
    "reset@event=5": StreamTruncatedError,
    "close@event=5": StreamTruncatedError,
    "half-close@event=5": StreamTruncatedError,
    "stall@event=5": SilenceTimeoutError,
    "stall=80@event=5": None,
    "drip=1@event=-2": None,
    "slow-head=10": None,
    "drop@event=-1": None,
    "drop@event=-2": EventOrderError,
    "garble@event=4": EventDataError,
    "bad-utf8@event=-4": None,
    "oversized-line=100000": None,
    "oversized-line=300000": EventTooLargeError,
    "error=overloaded_error@event=5": OverloadedError,
    "bad-chunk-size@event=5": HTTPProtocolError,
    "wrong-content-length=+9": None,
    "gzip": None,
    "status=429": RateLimitError,
    "status=400": BadRequestError,
    "html=502": InternalServerError,
    "redirect=307": APIStatusError,
}


@pytest.mark.parametrize(("fault", "error"), OUTCOMES.items(), ids=list(OUTCOMES))
def test_what_a_caller_of_our_client_is_told(fault: str, error: type[APIError] | None) -> None:
    async def ask(client: AsyncClient) -> str:
        if error is None:
            return await text(client)
        with pytest.raises(error):
            await text(client)
        return EXPECTED

    answer = asking(FakeNetwork(PLAIN, faults=[fault]), ask, max_retries=0, max_event_bytes=SMALLER_LIMIT)
    assert answer.replace("\N{REPLACEMENT CHARACTER}", "") == EXPECTED


@pytest.mark.parametrize("client", [AsyncClient, Client])
def test_a_client_has_a_limit_unless_it_is_told_another(client: type) -> None:
    assert SMALLER_LIMIT < inspect.signature(client).parameters["max_event_bytes"].default < 17_000_000


def test_a_stall_takes_no_time_and_runs_out_the_clock() -> None:
    async def ask(client: AsyncClient) -> float:
        before = asyncio.get_running_loop().time()
        with pytest.raises(SilenceTimeoutError):
            await text(client)
        return asyncio.get_running_loop().time() - before

    network = FakeNetwork(PLAIN, faults=["stall@event=5"])
    assert asking(network, ask, timeouts=Timeouts(silence=300)) == pytest.approx(300)


# --- The blocking client, in real time ---


def blocking_client(network: FakeNetwork, **options: Any) -> Client:
    given: dict[str, Any] = {"api_key": "k", "base_url": "http://api.example", "trust_env": False, **options}
    return Client(connect=network, **given)


def blocking_text(client: Client) -> str:
    with client, client.messages.stream(**ASK) as stream:
        return "".join(stream.text_stream)


SLOW = {"stall=80@event=5", "drip=1@event=-2", "slow-head=10"}


@pytest.mark.parametrize(("fault", "error"), [item for item in OUTCOMES.items() if item[0] not in SLOW])
def test_what_a_caller_of_the_blocking_client_is_told(fault: str, error: type[APIError] | None) -> None:
    # A silence is waited for in real time, and a busy machine is silent, too.
    timeouts = Timeouts(silence=0.02 if error is SilenceTimeoutError else 10)
    options: dict[str, Any] = {"max_retries": 0, "timeouts": timeouts, "max_event_bytes": SMALLER_LIMIT}
    client = blocking_client(FakeNetwork(PLAIN, faults=[fault]), **options)
    if error is None:
        assert blocking_text(client).replace("\N{REPLACEMENT CHARACTER}", "") == EXPECTED
    else:
        with pytest.raises(error):
            blocking_text(client)


def test_the_blocking_client_gets_over_what_it_may_try_again() -> None:
    network = FakeNetwork(PLAIN, faults=["status=529 x1", "reset@head x1 after=1"])
    assert blocking_text(blocking_client(network, retry_policy=RetryPolicy(first_delay=0))) == EXPECTED
    assert len(network.streams) == 3
    assert all(stream.written.startswith(b"POST /v1/messages ") for stream in network.streams)


def test_the_blocking_client_waits_as_long_as_the_recording_did() -> None:
    with blocking_client(FakeNetwork(THREE, speed=20)) as client:
        stream = client.messages.create(**ASK, stream=True)
        with pytest.raises(EventDataError):
            next(stream)
        assert stream.timing.elapsed() >= 0.037  # the first event is whole after 0.75 s of the recording


def test_a_reader_that_takes_its_time_has_the_last_read_when_it_was_recorded() -> None:
    body = PLAIN.body
    reads = tuple(Read(0.004 * (number + 1), data) for number, data in enumerate(fixed(body, 32)))
    assert len(reads) > 50

    async def story() -> float:
        loop = asyncio.get_running_loop()
        async with AsyncClient(api_key="any", connect=FakeNetwork(Recording(reads=reads), speed=1)) as client:
            begun = loop.time()
            async with client.messages.stream(**ASK) as stream:
                async for _ in stream:
                    await asyncio.sleep(0.001)
            return loop.time() - begun

    assert run(story()) == pytest.approx(reads[-1].t, abs=0.01)


# --- Times, and turns ---


def test_faults_are_counted_in_connections_and_then_all_is_well() -> None:
    network = FakeNetwork(PLAIN, faults=[Fault.parse("status=529 x1"), Fault.parse("reset@head x1 after=1")])
    assert asking(network, text, max_retries=2) == EXPECTED
    assert len(network.streams) == 3
    assert all(stream.written.startswith(b"POST /v1/messages ") for stream in network.streams)


def test_a_network_tells_which_faults_were_never_done() -> None:
    network = FakeNetwork(PLAIN, faults=["status=529 x1", "reset@head x1", "gzip after=9"])
    assert asking(network, text, max_retries=2) == EXPECTED
    # No byte of the 529 was sent.
    assert (list(map(str, network.unused_faults)), network.misplaced) == (["status=529 x1", "gzip after=9"], [])


def test_a_network_tells_which_fault_lies_behind_the_end_that_another_makes() -> None:
    network = FakeNetwork(PLAIN, faults=["close@event=5", "garble@event=9"])
    with pytest.raises(APIError):
        asking(network, text, max_retries=0)
    assert list(map(str, network.unused_faults)) == ["garble@event=9"]


def test_a_network_tells_which_faults_had_no_place() -> None:
    network = FakeNetwork(THREE, PLAIN, faults="swap@event=4")
    with pytest.raises(ConfigurationError, match="swap@event=4 has no place"):
        asking(network, text, max_retries=0)
    assert network.misplaced == [
        "swap@event=4 has no place in this answer, which has 2 events, counted from 0 (by explain and check from 1)"
    ]
    assert network.unused_faults == [Fault.parse("swap@event=4")]


def test_a_recording_that_was_cut_or_not_played_comes_again() -> None:
    async def ask(client: AsyncClient) -> list[str]:
        return [(await client.messages.create(**ASK)).id for _ in range(3)]

    network = FakeNetwork(PLAIN, FIXTURES["tools"], faults=["status=529 x1", "error@event=0 x1 after=1"])
    tools = "msg_" + FIXTURES["tools"].body.partition(b'"id":"msg_')[2].partition(b'"')[0].decode()
    first, second, third = asking(network, ask, max_retries=2)
    assert (first, second) == (third, tools)
    assert first != tools


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:9", "http://user:password@127.0.0.1:9"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_network_ignores_the_proxies_and_certificates_of_the_environment(
    url: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, url)
    with Client(api_key="any", base_url=f"{scheme}://api.example", connect=(network := FakeNetwork(PLAIN))) as client:
        client.messages.create(**ASK)
    assert bytes(network.streams[0].written).startswith(b"POST /v1/messages HTTP/1.1\r\n")


@pytest.mark.parametrize("option", ["fault", "match", "rewrite", "segment_seconds", "nonsense"])
@pytest.mark.parametrize("make", [FakeNetwork, stream_of])
def test_an_option_that_would_do_nothing_is_refused(make: Callable[..., object], option: str) -> None:
    with pytest.raises(TypeError, match=f"'{option}'"):
        make(PLAIN, **{option: ["reset@event=3"]})


def test_what_the_client_sent_is_a_head_an_empty_line_and_json() -> None:
    asking(network := FakeNetwork(PLAIN), text, max_retries=0)
    head, _, body = network.streams[0].written.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert json.loads(body)["messages"] == ASK["messages"]


def test_an_error_that_is_played_is_not_tried_again_and_one_of_a_fault_is() -> None:
    with pytest.raises(RateLimitError) as caught:
        asking(FakeNetwork(error_recording(429, headers={"retry-after": "1"}), PLAIN), text, max_retries=2)
    assert (caught.value.retries_taken, caught.value.repeat_may_help) == (0, False)
    assert asking(FakeNetwork(PLAIN, faults=["status=429,retry-after=1 x1"]), text, max_retries=2) == EXPECTED


def test_there_must_be_something_to_play() -> None:
    with pytest.raises(ConfigurationError, match="there is no recording to play"):
        FakeNetwork()


def test_a_message_is_played_as_a_stream() -> None:
    for message in (answer("x"), answer("x").raw):
        assert asking(FakeNetwork(message), text) == "x"


# --- Every recording, cut between two kinds of events. `test_cuts.py` cuts at every byte. ---

WHOLE = [name for name in FIXTURES if name not in ("cut", "error-before-content", "error-after-content")]


def places(body: bytes) -> list[int]:
    """The first event, each that differs in kind from the one before it, and the last before `message_stop`."""
    kinds = [event.partition(b"\n")[0] for event in by_event(body)]
    last = kinds.index(b"event: message_delta")
    return [at for at in range(last + 1) if at == 0 or kinds[at] != kinds[at - 1]]


@pytest.mark.parametrize("end", ["close", "reset", "half-close", "stall"])
@pytest.mark.parametrize("name", WHOLE)
def test_no_recording_that_is_cut_is_taken_for_a_whole_one(name: str, end: str) -> None:
    recording = FIXTURES[name]
    cuts = places(recording.body)
    assert len(cuts) > 4
    cuts = cuts[:: one_in(5)]

    async def ask(client: AsyncClient) -> set[str]:
        endings: set[str] = set()
        for _ in cuts:
            with pytest.raises(APIConnectionError) as caught:
                await text(client)
            assert caught.value.ending is not None
            endings.add(caught.value.ending.kind)
        return endings

    faults = [f"{end}@event={at} x1 after={number}" for number, at in enumerate(cuts)]
    network = FakeNetwork(recording, faults=faults)
    assert asking(network, ask, max_retries=0) == {"timeout" if end == "stall" else "truncated"}
    assert len(network.streams) == len(cuts)
