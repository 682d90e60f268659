"""rawsse.replay.player with faults: what plain readers see through real sockets, and whose turn a fault is."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import pytest
from support.clock import run, ticks

from rawsse.errors import ConfigurationError
from rawsse.replay import FakeNetwork, Fault, Player, Read, Recording, ReplayServer, shipped_fixtures

FIXTURES = shipped_fixtures()
QUESTION = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
BODY = json.dumps({**QUESTION, "stream": True}).encode()
A, B = b"data: a\n\n", b"data: bb\n\n"
TWO = Recording(reads=(Read(0.0, A), Read(0.0, B)))
LONG = Recording(reads=(Read(0.0, A * 12),))
OTHER = Recording(reads=(Read(0.0, b"data: other\n\n"),))
CHUNK_A, CHUNK_B, LAST = b"9\r\ndata: a\n\n\r\n", b"a\r\ndata: bb\n\n\r\n", b"0\r\n\r\n"

T = TypeVar("T")


# --- What a plain reader sees, in virtual time ---


class Client:
    """One connection of asyncio's own streams. `times` are those of the reads, in seconds since the request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.times: list[float] = []
        self._before = 0.0

    def ask(self) -> None:
        self._before = asyncio.get_running_loop().time()
        head = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.writer.write(head % len(BODY) + BODY)

    async def read(self) -> bytes:
        data = await self.reader.read(65536)
        self.times.append(round(asyncio.get_running_loop().time() - self._before, 6))
        return data

    async def read_all(self) -> bytes:
        data = b""
        while more := await self.read():
            data += more
        return data


@contextlib.asynccontextmanager
async def connected_to(server: ReplayServer) -> AsyncIterator[Client]:
    host, port = server.base_url.removeprefix("http://").split(":")
    client = Client(*await asyncio.open_connection(host, int(port)))
    client.ask()
    yield client
    client.writer.close()
    await asyncio.gather(client.writer.wait_closed(), return_exceptions=True)


def talk(story: Callable[[Client], Awaitable[T]], *faults: Fault | str) -> T:
    async def main() -> T:
        async with ReplayServer(TWO, faults=faults) as server, connected_to(server) as client:
            return await story(client)

    return run(main())


async def until_reset(client: Client) -> bytes:
    data = b""
    try:
        while more := await client.read():
            data += more
    except ConnectionResetError:
        return data
    raise AssertionError("the connection was closed, not reset")


async def all_of_it(client: Client) -> bytes:
    return (await client.read_all()).partition(b"\r\n\r\n")[2]


def test_a_reset_is_an_rst_after_all_that_was_sent() -> None:
    assert talk(until_reset, Fault.parse("reset@event=1")).endswith(b"\r\n\r\n" + CHUNK_A)


def test_a_reset_before_the_head_gives_no_byte() -> None:
    assert talk(until_reset, Fault.parse("reset@head")) == b""


def test_a_reset_may_come_in_the_head() -> None:
    assert talk(until_reset, Fault.parse("reset@head=12")) == b"HTTP/1.1 200"


async def keep_sending(client: Client) -> bytes:
    """What came before the end; fails if sending is refused after it."""
    data = await all_of_it(client)
    for _ in range(3):
        client.writer.write(b"x")
        await ticks(10)
        await client.writer.drain()
    return data


def test_after_a_half_close_the_client_can_still_send() -> None:
    assert talk(keep_sending, Fault.parse("half-close@event=1")) == CHUNK_A


def test_after_a_close_it_cannot() -> None:
    with pytest.raises(ConnectionError):
        talk(keep_sending, Fault.parse("close@event=1"))


def test_after_a_close_the_client_reads_an_end() -> None:
    assert talk(all_of_it, Fault.parse("close@event=1")) == CHUNK_A


def test_a_stall_is_a_silence_of_so_many_seconds_even_where_nothing_else_is_waited_for() -> None:
    async def story(client: Client) -> list[float]:
        await client.read_all()
        return client.times

    before, *after = talk(story, Fault.parse("stall=30@event=1"))
    assert before == pytest.approx(0, abs=0.1)
    assert after == pytest.approx([30] * len(after), abs=0.1)


def test_a_stall_without_an_end_lasts_until_the_client_leaves() -> None:
    async def story(client: Client) -> bytes:
        data = await client.read()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(40):
                await client.read()
        return data

    assert talk(story, Fault.parse("stall@event=1")).endswith(CHUNK_A)


def test_a_slow_head_is_waited_for_byte_by_byte() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def main() -> bytes:
        server = ReplayServer(TWO, faults=[Fault.parse("slow-head=10")], sleep=sleep)
        async with server, connected_to(server) as client:
            head = await client.reader.readuntil(b"\r\n\r\n")
            await client.read_all()
            return head

    head = run(main())
    assert waits == [0.1] * len(head)


def test_a_drip_comes_byte_by_byte() -> None:
    async def story(client: Client) -> tuple[bytes, list[float]]:
        data = await all_of_it(client)
        return data, client.times

    data, times = talk(story, Fault.parse("drip=1@event=1"))
    assert data == CHUNK_A + CHUNK_B + LAST
    rest = len(CHUNK_B + LAST)
    assert times[1 : rest + 1] == pytest.approx(range(1, rest + 1), abs=0.5)


@pytest.mark.parametrize(
    ("fault", "wire"),
    [
        ("bad-chunk-size@event=1", CHUNK_A + b"zz\r\ndata: bb\n\n\r\n" + LAST),
        ("no-last-chunk", CHUNK_A + CHUNK_B),
        ("wrong-content-length=-3", A + B),
        ("drop@event=0", CHUNK_B + LAST),
        ("duplicate@event=1", CHUNK_A + CHUNK_B + CHUNK_B + LAST),
    ],
)
def test_the_wire_is_that_of_the_fault_byte_for_byte(fault: str, wire: bytes) -> None:
    assert talk(all_of_it, fault) == wire


# --- What `http.client` says to it, and whose turn it is ---


def serve(talk: Callable[[ReplayServer], T], *recordings: Recording, faults: Iterable[Fault | str]) -> T:
    """What `talk`, which blocks, makes of a running server."""

    async def main() -> T:
        async with ReplayServer(recordings or TWO, faults=faults) as server:
            return await asyncio.to_thread(talk, server)

    return asyncio.run(main())


@contextmanager
def connected(server: ReplayServer) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=10)) as connection:
        yield connection


def post(server: ReplayServer, body: bytes = BODY, path: str = "/v1/messages") -> http.client.HTTPResponse:
    with connected(server) as connection:
        connection.request("POST", path, body)
        with connection.getresponse() as response:
            response.body = response.read()  # type: ignore[attr-defined]
            return response


def said(server: ReplayServer, body: bytes = BODY, path: str = "/v1/messages") -> tuple[int, bytes]:
    response = post(server, body, path)
    return response.status, response.body  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset@head", ConnectionResetError),
        ("reset@event=1", ConnectionResetError),
        ("close@head", http.client.RemoteDisconnected),
        ("close@event=1", http.client.IncompleteRead),
        ("half-close@event=1", http.client.IncompleteRead),
        ("bad-chunk-size", http.client.IncompleteRead),
        ("no-last-chunk", http.client.IncompleteRead),
        ("wrong-content-length=+1", http.client.IncompleteRead),
    ],
)
def test_http_client_notices(fault: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        serve(post, faults=[fault])


@pytest.mark.skipif(sys.platform != "linux", reason="no other system says what it has not sent yet")
def test_a_reset_overtakes_nothing_of_a_long_answer() -> None:
    long = Recording(reads=tuple(Read(0.0, b"data: %05d\n\n" % number) for number in range(5000)))

    def talk(server: ReplayServer) -> int:
        with connected(server) as connection:
            connection.request("POST", "/v1/messages", BODY)
            size = 0
            with connection.getresponse() as response, contextlib.suppress(ConnectionResetError):
                while data := response.read1(1 << 16):
                    size += len(data)
            return size

    assert serve(talk, long, faults=[Fault.parse("reset@event=4000")]) == 4000 * 13


def test_a_wrong_length_that_is_too_small_hides_the_rest() -> None:
    assert serve(said, faults=["wrong-content-length=-10"]) == (200, A)


def test_a_compressed_answer_can_be_read_by_others() -> None:
    def talk(server: ReplayServer) -> tuple[str | None, bytes]:
        response = post(server)
        return response.getheader("content-encoding"), gzip.decompress(response.body)  # type: ignore[attr-defined]

    assert serve(talk, faults=["gzip"]) == ("gzip", A + B)


def test_a_refusal_has_its_headers_and_keeps_the_connection() -> None:
    def talk(server: ReplayServer) -> tuple[list[int], str | None]:
        with connected(server) as connection:
            connection.request("POST", "/v1/messages", BODY)
            first = connection.getresponse()
            first.read()
            connection.request("POST", "/v1/messages", BODY)
            assert connection.sock is not None
            return [first.status, connection.getresponse().status], first.getheader("retry-after")

    assert serve(talk, faults=["status=429,retry-after=3 x1"]) == ([429, 200], "3")


def test_a_fault_happens_so_many_times_and_then_all_is_well() -> None:
    def talk(server: ReplayServer) -> list[int]:
        return [post(server).status for _ in range(5)]

    faults = [Fault.parse("status=529 x2"), Fault.parse("html=503 x1 after=3")]
    assert serve(talk, faults=faults) == [529, 529, 200, 503, 200]


def test_faults_are_counted_in_messages_only() -> None:
    def talk(server: ReplayServer) -> list[int]:
        with connected(server) as connection:
            connection.request("OPTIONS", "/v1/messages")
            preflight = connection.getresponse().status
        others = [said(server, path="/v1/messages/count_tokens")[0], preflight]
        return [*others, post(server).status, post(server).status]

    assert serve(talk, faults=[Fault.parse("status=529 x1")]) == [200, 204, 529, 200]


def test_the_requests_say_which_faults_they_had() -> None:
    first, second = Fault.parse("status=529 x1"), Fault.parse("drop@event=0 after=1")

    def talk(server: ReplayServer) -> list[tuple[Fault, ...]]:
        post(server), post(server)
        return [request.faults for request in server.requests]

    assert serve(talk, faults=[first, str(second)]) == [(first,), (second,)]


def test_a_refused_request_takes_no_turn() -> None:
    def talk(server: ReplayServer) -> list[bytes]:
        return [said(server)[1] for _ in range(3)][1:]

    assert serve(talk, TWO, OTHER, faults=["status=529 x1"]) == [A + B, OTHER.body]


def test_a_request_that_got_only_a_part_gets_the_same_again_and_others_do_not() -> None:
    other = json.dumps({**QUESTION, "stream": True, "max_tokens": 11}).encode()

    def talk(server: ReplayServer) -> list[bytes]:
        with pytest.raises(http.client.IncompleteRead):
            said(server)
        return [said(server, other)[1], said(server)[1], said(server)[1]]

    assert serve(talk, TWO, OTHER, faults=["close@event=1 x1"]) == [OTHER.body, A + B, A + B]


def test_a_fault_that_delays_takes_its_turn() -> None:
    def talk(server: ReplayServer) -> list[bytes]:
        return [said(server)[1], said(server)[1]]

    assert serve(talk, TWO, OTHER, faults=["drip=1000000", "slow-head=1000000"]) == [A + B, OTHER.body]


def test_a_fault_without_a_place_is_an_error_that_says_so() -> None:
    words = (
        "reset@event=9 has no place in this answer, which has 2 events, counted from 0 (by explain and check from 1)"
    )
    body = {"type": "error", "error": {"type": "api_error", "message": words}}
    status, said_ = serve(said, TWO, LONG, faults=["reset@event=9"])
    assert (status, json.loads(said_)) == (500, body)


def test_a_recording_that_comes_again_to_who_got_only_a_part_is_no_repeat() -> None:
    def talk(server: ReplayServer) -> list[int]:
        with pytest.raises(http.client.IncompleteRead):
            said(server)
        counts = []
        for _ in range(2):
            said(server)
            counts.append(len(server.repeats))
        return counts

    assert serve(talk, faults="close@event=1 x1") == [0, 1]


def test_faults_that_were_never_done_or_had_no_place_are_told() -> None:
    def talk(server: ReplayServer) -> tuple[list[str], list[str]]:
        said(server), said(server)
        return list(map(str, server.unused_faults)), server.misplaced

    faults = ["reset@event=9 x1", "drop@event=0", "gzip after=2"]
    words = (
        "reset@event=9 x1 has no place in this answer, which has 1 events, counted from 0 (by explain and check from 1)"
    )
    assert serve(talk, TWO, LONG, faults=faults) == (["reset@event=9 x1", "gzip after=2"], [words])


def test_an_error_event_in_a_json_answer_is_its_status() -> None:
    def talk(server: ReplayServer) -> int:
        return post(server, json.dumps(QUESTION).encode()).status

    assert serve(talk, FIXTURES["plain"], faults=["error=overloaded_error"]) == 529


NOWHERE = [
    ["reset@event=300"],
    ["close@event=-3"],
    ["drop@event=2"],
    ["swap@event=1"],
    ["garble@event=9"],
    ["error=api_error@event=3"],
    ["stall@byte=9999"],
    ["bad-utf8@byte=9999"],
    ["half-close@head=999"],
    ["wrong-content-length=-9999"],
    ["status=529 x1", "reset@event=300"],
    ["duplicate@event=1", "drip=9@event=4"],
]


@pytest.mark.parametrize("faults", NOWHERE, ids=" ".join)
@pytest.mark.parametrize("kind", [ReplayServer, lambda recordings, faults: FakeNetwork(*recordings, faults=faults)])
def test_a_fault_that_can_never_happen_is_refused_before_anything_is_asked(kind: Any, faults: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r" has no place in this answer, .*: it can never happen"):
        kind([TWO, OTHER], faults=faults)


@pytest.mark.parametrize(
    "faults",
    [
        ["reset@event=11"],
        ["duplicate@event=1", "reset@event=3"],
        [f"status=529,x-long={'x' * 200} x1", "reset@head=200"],
        ["wrong-content-length=-400"],
    ],
    ids=["in one of them", "of an event that another brings", "in a head instead", "in what is not streamed"],
)
def test_a_fault_may_happen_that_one_answer_has_a_place_for(faults: list[str]) -> None:
    recordings = {"reset@event=11": [TWO, LONG], "wrong-content-length=-400": [FIXTURES["plain"]]}
    ReplayServer(recordings.get(faults[0], [TWO]), faults=faults)


def test_a_wrong_spec_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigurationError, match="unknown fault 'rst'"):
        ReplayServer(TWO, faults=["rst@event=1"])


# --- Under another ASGI server ---


def call(*faults: Fault | str) -> list[dict[str, Any]]:
    """What a `Player` sends under a server without the wire extension."""
    return run(played(Player(TWO, speed=0, faults=faults)))


async def played(player: Player, question: bytes = BODY) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    incoming = [{"type": "http.request", "body": question}]

    async def receive() -> dict[str, Any]:
        if not incoming:
            await asyncio.get_running_loop().create_future()
        return incoming.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": [], "http_version": "1.1"}
    await player(scope, receive, send)
    return sent


@pytest.mark.parametrize("fault", ["reset@event=1", "slow-head=1", "no-last-chunk", "gzip"])
def test_a_fault_of_the_wire_needs_our_server(fault: str) -> None:
    words = f"^the fault {fault} needs rawsse.server: other ASGI servers do not let an app write to TCP"
    with pytest.raises(ConfigurationError, match=words):
        call(fault)


def test_other_faults_need_nothing() -> None:
    assert [message["body"] for message in call("drop@event=0")[1:]] == [B, b""]
    assert call("status=529")[0]["status"] == 529


def test_only_so_many_cut_answers_are_kept_for_those_who_ask_again() -> None:
    third = Recording(reads=(Read(0.0, b"data: third\n\n"),))

    async def main() -> list[bytes]:
        player = Player([TWO, OTHER, third], speed=0, faults=["error@event=0 x2"], max_kept_requests=1)
        one, two = BODY, BODY.replace(b"Hi", b"Ho")
        answers = [await played(player, question) for question in (one, two, one, two)]
        return [answer[1]["body"] for answer in answers[2:]]

    assert run(main()) == [third.body, OTHER.body]
