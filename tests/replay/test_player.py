"""rawsse.replay.player: pace and pieces with a fake sleep; the server against `http.client`, sockets and the official
SDK."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.clock import run as virtual

from rawsse.errors import ConfigurationError, RecordingError
from rawsse.replay import PlayedRequest, Player, Read, Recording, ReplayServer, answer, recording_of, shipped_fixtures
from rawsse.replay.player import Sources

FIXTURES = shipped_fixtures()
FOLDER = Path(__file__).parents[2] / "fixtures"
PLAIN = FIXTURES["plain"]
QUESTION = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
BODY = json.dumps({**QUESTION, "stream": True}).encode()
THREE = Recording(reads=(Read(0.5, b"data: a\n"), Read(0.75, b"\ndata"), Read(1.75, b": b\n\n")), duration=2.0)

T = TypeVar("T")
Message = dict[str, Any]


class Exchange:
    """One call of an ASGI application, and what it sent. `waits` are the sleeps that it asked for.

    `on_wire`: it may take over the connection, which then is this object too. `written` is what it wrote.
    """

    def __init__(self, body: bytes = BODY, *, on_wire: bool = False, **scope: Any) -> None:
        self.scope: Message = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "headers": [],
            "http_version": "1.1",
        }
        self.scope |= {"extensions": {"rawsse.wire": self} if on_wire else None, **scope}
        self.written: list[bytes] = []
        self.sent: list[Message] = []
        self.waits: list[float] = []
        self.incoming: list[Message] = [{"type": "http.request", "body": body}]
        self.has_left = asyncio.Event()

    async def receive(self) -> Message:
        if self.incoming:
            return self.incoming.pop(0)
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    @property
    def is_gone(self) -> bool:
        return self.has_left.is_set()

    def take_over(self) -> Exchange:
        return self

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self) -> None:
        """The client takes everything at once."""

    def end(self) -> None:
        self.has_left.set()

    async def play(self, recordings: Sources, **options: Any) -> Exchange:
        await Player(recordings, sleep=self.sleep, **options)(self.scope, self.receive, self.send)
        return self

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent if message["type"] == "http.response.body"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


def play(recordings: Sources = THREE, body: bytes = BODY, *, scope: Message | None = None, **options: Any) -> Exchange:
    async def run() -> Exchange:
        return await Exchange(body, **(scope or {})).play(recordings, **options)

    return virtual(run())


# --- Pace and pieces ---


def test_every_read_is_sent_by_itself() -> None:
    exchange = play()
    assert exchange.bodies == [b"data: a\n", b"\ndata", b": b\n\n", b""]
    assert [message.get("more_body") for message in exchange.sent[1:]] == [True, True, True, False]


def test_at_speed_1_it_waits_as_long_as_the_recording_did() -> None:
    assert play(speed=1).waits == [0.5, 0.25, 1.0, 0.25]


def test_another_pace_takes_the_place_of_the_recorded_one() -> None:
    assert play(pace="slower=2").waits == [1.0, 0.5, 2.0, 0.5]
    assert play(pace="none").waits == []


@pytest.mark.parametrize(
    ("options", "seconds"), [({}, 0), ({"pace": "slower=2"}, 4), ({"pace": "slower=2", "speed": 0}, 0)]
)
def test_a_server_of_a_test_waits_only_for_a_pace_that_it_is_given(options: dict[str, Any], seconds: float) -> None:
    async def run() -> float:
        start = asyncio.get_running_loop().time()
        exchange = Exchange()
        await ReplayServer(THREE, **options)(exchange.scope, exchange.receive, exchange.send)
        return asyncio.get_running_loop().time() - start

    assert virtual(run()) == seconds


def test_a_rewrite_changes_the_bytes_and_not_the_reads() -> None:
    exchange = play(rewrite="crlf")
    assert b"".join(exchange.bodies) == b"data: a\r\n\r\ndata: b\r\n\r\n"


@pytest.mark.parametrize(("option", "words"), [("pace", "pace must be"), ("rewrite", "rewrite")])
def test_a_pace_or_a_rewrite_that_is_none_is_refused_at_once(option: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Player(THREE, **{option: "gallop"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("pace", 25, "pace must be a function or one of recorded, none, slower=…, ttft=…, tps=…, not '25'"),
        (
            "rewrite",
            ["crlf", "bom"],
            "rewrite must be a function or a text such as 'crlf,comments', not ['crlf', 'bom']",
        ),
        ("split", 2.5, "the size of a chunk must be a whole number from 1 on, not 2.5"),
        ("segments", ["3"], "the size of a chunk must be a whole number from 1 on, not '3'"),
    ],
)
def test_a_value_of_another_type_is_refused_at_once(option: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Player(THREE, **{option: value})
    assert str(caught.value) == words


def test_the_pace_is_that_of_the_loop_clock() -> None:
    async def run() -> float:
        start = asyncio.get_running_loop().time()
        exchange = Exchange()
        await Player(THREE, speed=0.5)(exchange.scope, exchange.receive, exchange.send)
        return asyncio.get_running_loop().time() - start

    assert virtual(run()) == pytest.approx(4.0, abs=0.01)


async def oversleep(seconds: float) -> None:
    """As a busy machine does: each sleep takes 1.6 ms too long."""
    await asyncio.sleep(seconds and seconds + 0.0016)


MANY = Recording(reads=tuple(Read(0.004 * number, b"data: a\n\n") for number in range(1, 101)), duration=0.4)


@pytest.mark.parametrize(
    ("recording", "options", "seconds"),
    [
        (MANY, {}, 0.4),
        (MANY, {"segments": 7}, 0.4),
        (MANY, {"pace": "slower=2"}, 0.8),
        (MANY, {"speed": 0, "faults": "drip=1000@byte=891"}, 0.019),
        (MANY, {"faults": "stall=60@byte=450"}, 60.4),
    ],
)
def test_what_each_sleep_takes_too_long_does_not_add_up(
    recording: Recording, options: dict[str, Any], seconds: float
) -> None:
    async def run() -> float:
        start = asyncio.get_running_loop().time()
        exchange = Exchange(on_wire=True)
        await Player(recording, sleep=oversleep, **options)(exchange.scope, exchange.receive, exchange.send)
        return asyncio.get_running_loop().time() - start

    assert virtual(run()) == pytest.approx(seconds, abs=0.005)


def test_what_writing_takes_is_part_of_the_pace_but_a_stall_is_whole() -> None:
    async def run() -> list[float]:
        loop, times = asyncio.get_running_loop(), list[float]()

        class Slow(Exchange):
            async def drain(self) -> None:
                await asyncio.sleep(0.5)  # the client is slow to take it
                times.append(round(loop.time() - 1000, 3))

        exchange = Slow(on_wire=True)
        await Player(THREE, faults=["stall=8@byte=8"])(exchange.scope, exchange.receive, exchange.send)
        return times

    # The first read is due at 0.5 s and taken at 1.0; the stall takes 8 s from there, and moves what is due by as much.
    assert virtual(run()) == [1.0, 9.5, 10.25, 10.75]


def test_at_speed_2_it_waits_half_as_long() -> None:
    assert play(speed=2).waits == [0.25, 0.125, 0.5, 0.125]


def test_at_speed_0_it_does_not_wait() -> None:
    assert play(speed=0).waits == []


def test_the_recorded_pace_is_the_default() -> None:
    assert play().waits == [0.5, 0.25, 1.0, 0.25]


def test_the_head_goes_out_with_the_first_read() -> None:
    async def run() -> list[int]:
        exchange, sent_before_each_wait = Exchange(), list[int]()

        async def sleep(seconds: float) -> None:
            sent_before_each_wait.append(len(exchange.sent))

        await Player(THREE, sleep=sleep)(exchange.scope, exchange.receive, exchange.send)
        return sent_before_each_wait

    assert virtual(run()) == [0, 2, 3, 4]


def test_what_was_cut_is_cut_when_it_was() -> None:
    cut = Recording(reads=(Read(0.5, b"data: a\n"),), end="cut", duration=30.5)
    assert play(cut, scope={"on_wire": True}).waits == [0.5, 30.0]


def test_times_that_go_back_are_not_waited_for() -> None:
    assert play(Recording(reads=(Read(2.0, b"a"), Read(1.0, b"b")))).waits == [2.0]


def test_a_split_cuts_the_body_and_each_piece_goes_out_with_its_last_byte() -> None:
    exchange = play(split="event")
    assert exchange.bodies == [b"data: a\n\n", b"data: b\n\n", b""]
    assert exchange.waits == [0.75, 1.0, 0.25]


def test_a_split_may_be_a_function_and_may_leave_out_bytes() -> None:
    assert play(split=lambda data: (data[:9], b"", data[9:12])).bodies == [b"data: a\n\n", b"dat", b""]


def test_segments_cut_head_and_chunk_framing_too() -> None:
    exchange = play(segments=11, scope={"on_wire": True})
    assert exchange.sent == []
    pieces = exchange.written
    assert {len(piece) for piece in pieces[:-1]} == {11}
    assert b"".join(pieces).startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"".join(pieces).endswith(b"\r\n\r\n8\r\ndata: a\n\r\n5\r\n\ndata\r\n5\r\n: b\n\n\r\n0\r\n\r\n")
    assert b"connection: close\r\n" in b"".join(pieces).lower()


def test_segments_keep_the_pace() -> None:
    assert play(segments="whole", scope={"on_wire": True}).waits == [2.0]
    assert play(segments=1, scope={"on_wire": True}).waits == [0.5, 0.25, 1.0, 0.25]


def test_there_may_be_a_silence_between_two_segments_at_any_speed() -> None:
    exchange = play(segments=100, segment_seconds=0.25, speed=0, scope={"on_wire": True})
    assert len(exchange.written) > 1
    assert exchange.waits == [0.25] * (len(exchange.written) - 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segment_seconds": 0.1}, "a silence between segments needs segments: say how to cut them"),
        ({"segment_seconds": -1, "segments": 1}, "segment_seconds must be 0 (no waiting) or more, not -1"),
    ],
)
def test_a_silence_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Player(THREE, **options)
    assert str(caught.value) == words


def test_segments_are_independent_of_the_split() -> None:
    exchange = play(segments="whole", split="bytes", scope={"on_wire": True})
    assert b"\r\n1\r\nd\r\n1\r\na\r\n1\r\nt\r\n" in exchange.written[0]


def test_segments_need_our_own_server() -> None:
    with pytest.raises(ConfigurationError, match=r"segments need rawsse\.server"):
        play(segments=1)


def test_an_http_1_0_client_gets_no_chunks_in_segments() -> None:
    exchange = play(segments="whole", scope={"on_wire": True, "http_version": "1.0"})
    assert exchange.written[0].endswith(b"\r\n\r\ndata: a\n\ndata: b\n\n")


def test_what_was_cut_is_cut_on_the_wire_before_the_last_chunk() -> None:
    exchange = play(FIXTURES["cut"], scope={"on_wire": True})
    wire = b"".join(exchange.written)
    assert wire.endswith(FIXTURES["cut"].reads[-1].data + b"\r\n")
    assert len(exchange.written) == len(FIXTURES["cut"].reads)


def test_under_another_server_what_was_cut_ends_in_an_exception() -> None:
    with pytest.raises(ConnectionAbortedError, match="the recording was cut here, and so is the connection"):
        play(FIXTURES["cut"])


def test_the_rest_is_not_played_to_a_client_that_left() -> None:
    async def run() -> list[Message]:
        exchange = Exchange()

        async def sleep(seconds: float) -> None:
            if seconds == 1.0:
                exchange.has_left.set()
                await asyncio.Event().wait()

        await Player(THREE, sleep=sleep)(exchange.scope, exchange.receive, exchange.send)
        return exchange.sent

    assert [message.get("body") for message in virtual(run())[1:]] == [b"data: a\n", b"\ndata"]


def test_only_leaving_ends_an_answer_early() -> None:
    async def run() -> list[bytes]:
        exchange = Exchange()
        exchange.incoming.append({"type": "http.request", "body": b""})
        return (await exchange.play(THREE)).bodies

    assert virtual(run()) == [b"data: a\n", b"\ndata", b": b\n\n", b""]


def test_a_client_that_left_while_it_asked_gets_nothing_and_is_not_remembered() -> None:
    async def run() -> tuple[list[Message], list[PlayedRequest]]:
        exchange, player = Exchange(), Player(THREE)
        exchange.incoming = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
        await player(exchange.scope, exchange.receive, exchange.send)
        return exchange.sent, player.requests

    assert virtual(run()) == ([], [])


# --- What every answer has ---


def test_every_answer_has_a_request_id_of_its_own_unless_one_was_recorded() -> None:
    async def run() -> list[str]:
        player, ids = Player([THREE, PLAIN], speed=0), []
        for path in ("/v1/messages", "/", "/v1/messages"):
            exchange = Exchange(path=path)
            await player(exchange.scope, exchange.receive, exchange.send)
            ids.append(exchange.headers["request-id"])
        return ids

    assert virtual(run()) == ["req_replay_000001", "req_replay_000002", PLAIN.headers["request-id"]]


@pytest.mark.parametrize("path", ["/v1/messages", "/nothing"])
def test_a_web_page_may_read_every_answer_and_its_request_id(path: str) -> None:
    headers = play(scope={"path": path}).headers
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-expose-headers"] == "request-id"


# --- What is remembered ---


def requests_after(*exchanges: Exchange, **options: Any) -> list[PlayedRequest]:
    async def run() -> list[PlayedRequest]:
        player = Player(THREE, speed=0, **options)
        for exchange in exchanges:
            await player(exchange.scope, exchange.receive, exchange.send)
        return player.requests

    return virtual(run())


def test_requests_are_remembered_without_their_credentials() -> None:
    headers = [
        (b"x-api-key", b"k1"),
        (b"authorization", b"k2"),
        (b"cookie", b"k3"),
        (b"anthropic-version", b"2023-06-01"),
    ]
    (request,) = requests_after(Exchange(headers=headers, query_string=b"beta=true"))
    assert request == PlayedRequest(
        "POST", "/v1/messages?beta=true", {"anthropic-version": "2023-06-01"}, {**QUESTION, "stream": True}
    )


@pytest.mark.parametrize(
    "name", ["api-key", "x-auth-token", "x-goog-api-key", "proxy-authorization", "x-amz-security-token", "Cookie"]
)
def test_no_header_that_carries_credentials_is_remembered(name: str) -> None:
    (request,) = requests_after(Exchange(headers=[(name.encode(), b"k"), (b"user-agent", b"ua/1")]))
    assert request.headers == {"user-agent": "ua/1"}


def test_secrets_in_a_query_or_in_another_header_are_starred() -> None:
    header = (b"x-forwarded-by", b"sk-ant-api03-abcdefghij")
    (request,) = requests_after(Exchange(headers=[header], query_string=b"api_key=hunter2hunter2&beta=true"))
    assert request.path == "/v1/messages?api_key=**************&beta=true"
    assert request.headers == {"x-forwarded-by": "sk-ant-api03-**********"}


def test_a_body_that_is_no_json_is_remembered_as_text() -> None:
    assert [request.body for request in requests_after(Exchange(b"{x\xff"), Exchange(b""))] == ["{x\ufffd", None]


def test_only_the_last_requests_are_remembered() -> None:
    exchanges = [Exchange(path=f"/{number}") for number in range(4)]
    assert [request.path for request in requests_after(*exchanges, max_kept_requests=2)] == ["/2", "/3"]


def test_a_body_that_is_too_large_is_refused() -> None:
    exchange = play(body=b"x" * 11, max_body_bytes=10)
    assert exchange.sent[0]["status"] == 413
    assert (
        b'"request_too_large","message":"the request\'s body is larger than max_body_bytes (10)"' in exchange.bodies[0]
    )


def test_a_body_may_come_in_pieces() -> None:
    exchange = Exchange()
    exchange.incoming = [
        {"type": "http.request", "body": BODY[:9], "more_body": True},
        {"type": "http.request", "body": BODY[9:]},
    ]
    assert requests_after(exchange)[0].body == {**QUESTION, "stream": True}


# --- What cannot be played ---


@pytest.mark.parametrize("speed", [-1, float("inf"), float("nan")])
def test_a_speed_is_a_number_from_0_on(speed: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"speed must be 0 \(no waiting\) or more, not {speed}"):
        Player(THREE, speed=speed)


def test_there_must_be_something_to_play() -> None:
    with pytest.raises(ConfigurationError, match="there is no recording to play"):
        Player([])


def test_files_and_folders_are_loaded(tmp_path: Path) -> None:
    THREE.save(tmp_path / "b.sse.jsonl")
    (tmp_path / "a.sse").write_bytes(b"data: a\n\n")
    recordings = Player([tmp_path, str(tmp_path / "b.sse.jsonl"), PLAIN]).api.recordings
    assert recordings == (Recording.from_sse(b"data: a\n\n"), THREE, THREE, PLAIN)


def test_a_message_is_played_as_a_stream() -> None:
    message = answer("x")
    several: list[Sources] = [message, [message], message.raw, [message.raw, recording_of(message)]]
    for given in several:
        assert set(map(Recording.dump, Player(given).api.recordings)) == {recording_of(message).dump()}


def test_a_shipped_recording_is_called_by_the_name_that_it_was_found_by() -> None:
    assert [recording.name for recording in Player(["plain", "tools"]).api.recordings] == ["plain", "tools"]


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sse.jsonl").write_text("{}\n")
    with pytest.raises(RecordingError, match=r"a\.sse\.jsonl, line 1: the first line must have"):
        Player(tmp_path / "a.sse.jsonl")


def test_only_http_is_answered() -> None:
    with pytest.raises(NotImplementedError, match="a Player answers HTTP, not lifespan"):
        play(scope={"type": "lifespan"})


# --- As a server ---


def serve(talk: Callable[[ReplayServer], T], recordings: Sources, **options: Any) -> T:
    """What `talk`, which may block, makes of a running server."""

    async def run() -> T:
        async with ReplayServer(recordings, **options) as server:
            return await asyncio.to_thread(talk, server)

    return asyncio.run(run())


@contextmanager
def post(server: ReplayServer, body: bytes = BODY, path: str = "/v1/messages") -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", path, body, {"content-type": "application/json", "x-api-key": "k"})
        yield connection.getresponse()


@pytest.mark.parametrize(
    "options", [{}, {"split": "bytes"}, {"split": "event"}, {"segments": 5}, {"segments": "whole"}], ids=str
)
def test_the_whole_recording_comes_through_however_it_is_cut(options: dict[str, Any]) -> None:
    def talk(server: ReplayServer) -> tuple[str | None, bytes]:
        with post(server) as response:
            return response.getheader("content-type"), response.read()

    expected = ("text/event-stream; charset=utf-8", FIXTURES["unicode"].body)
    assert serve(talk, FOLDER / "unicode.sse.jsonl", **options) == expected


def test_without_stream_a_json_message_comes() -> None:
    def talk(server: ReplayServer) -> Any:
        with post(server, json.dumps(QUESTION).encode()) as response:
            return json.load(response)

    expected = json.loads((FOLDER / "plain.json").read_text("utf-8"))["message"]
    assert serve(talk, PLAIN) == expected


@pytest.mark.parametrize("options", [{}, {"segments": 3}], ids=str)
def test_a_cut_recording_breaks_off_before_the_end_of_the_body(options: dict[str, Any]) -> None:
    def talk(server: ReplayServer) -> bytes:
        with post(server) as response, pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        return caught.value.partial

    assert serve(talk, FIXTURES["cut"], **options) == FIXTURES["cut"].body


def test_a_cut_recording_without_stream_is_no_answer_at_all() -> None:
    def talk(server: ReplayServer) -> bytes:
        with (
            post(server, json.dumps(QUESTION).encode()) as response,
            pytest.raises(http.client.IncompleteRead) as caught,
        ):
            response.read()
        return caught.value.partial

    assert serve(talk, FIXTURES["cut"]) == b""


def test_the_server_remembers_what_was_asked() -> None:
    def talk(server: ReplayServer) -> list[PlayedRequest]:
        with post(server, path="/prefix/v1/messages?beta=true"):
            return server.requests

    (request,) = serve(talk, PLAIN)
    assert (request.path, request.body["messages"]) == ("/prefix/v1/messages?beta=true", QUESTION["messages"])
    assert "x-api-key" not in request.headers


def test_one_connection_can_ask_again_and_again() -> None:
    def talk(server: ReplayServer) -> list[int]:
        with closing(http.client.HTTPConnection(server.base_url.removeprefix("http://"), timeout=10)) as connection:
            sizes = []
            for _ in range(3):
                connection.request("POST", "/v1/messages", BODY)
                sizes.append(len(connection.getresponse().read()))
            return sizes

    assert serve(talk, PLAIN) == [len(PLAIN.body)] * 3


def test_every_read_is_a_chunk_and_every_segment_a_write() -> None:
    def talk(server: ReplayServer) -> bytes:
        host, port = server.base_url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(
                b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(BODY)
            )
            sock.sendall(BODY)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    chunks = serve(talk, THREE).partition(b"\r\n\r\n")[2]
    assert chunks == b"8\r\ndata: a\n\r\n5\r\n\ndata\r\n5\r\n: b\n\n\r\n0\r\n\r\n"


class Reader(asyncio.Protocol):
    """Keeps every read of a socket by itself."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.is_lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.reads.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost.set()


def reads_of(**options: Any) -> list[bytes]:
    async def run() -> list[bytes]:
        async with ReplayServer(THREE, **options) as server:
            host, port = server.base_url.removeprefix("http://").split(":")
            transport, reader = await asyncio.get_running_loop().create_connection(Reader, host, int(port))
            head = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            transport.write(head % len(BODY) + BODY)
            await reader.is_lost.wait()
            return reader.reads

    return virtual(run())


def test_a_client_in_the_same_loop_reads_every_segment_by_itself() -> None:
    reads = reads_of(segments=7)
    assert {len(read) for read in reads[:-1]} == {7}
    assert b"".join(reads).endswith(b"0\r\n\r\n")


def test_a_client_in_the_same_loop_reads_every_recorded_read_by_itself() -> None:
    first, second, third, end = reads_of()
    assert first.endswith(b"\r\n\r\n8\r\ndata: a\n\r\n")
    assert (second, third, end) == (b"5\r\n\ndata\r\n", b"5\r\n: b\n\n\r\n", b"0\r\n\r\n")


def test_leaving_the_server_ends_an_answer_that_is_still_played() -> None:
    async def run() -> bool:
        has_begun, never = asyncio.Event(), asyncio.Event()

        async def sleep(seconds: float) -> None:
            has_begun.set()
            await never.wait()

        async with ReplayServer(THREE, speed=1, sleep=sleep) as server:
            host, port = server.base_url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY))
            await has_begun.wait()
        rest = await reader.read()
        writer.close()
        return rest == b""

    assert virtual(run())


# --- Under another server ---


@pytest.mark.real
def test_under_uvicorn_whole_and_cut_recordings_come_as_under_our_own() -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

    def talk(port: int) -> tuple[bytes, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("POST", "/v1/messages", BODY)
            whole = connection.getresponse().read()
            connection.request("POST", "/v1/messages", BODY)
            with pytest.raises(http.client.IncompleteRead) as caught:
                connection.getresponse().read()
            return whole, caught.value.partial

    async def run() -> tuple[bytes, bytes]:
        player = Player([FIXTURES["unicode"], FIXTURES["cut"]], speed=0)
        config = uvicorn.Config(player, host="127.0.0.1", port=0, log_level="critical", ws="none")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            return await asyncio.to_thread(talk, server.servers[0].sockets[0].getsockname()[1])
        finally:
            await server.shutdown()

    assert asyncio.run(run()) == (FIXTURES["unicode"].body, FIXTURES["cut"].body)


# --- The official SDK as the client ---


def with_sdk(ask: Callable[[Any], Awaitable[T]], *recordings: Recording, **options: Any) -> T:
    anthropic = pytest.importorskip("anthropic", reason="the official SDK is not installed")

    async def run() -> T:
        async with ReplayServer(recordings, **options) as server:
            async with anthropic.AsyncAnthropic(base_url=server.base_url, api_key="k", max_retries=2) as client:
                result = await ask(client)
            assert [request.headers.get("x-stainless-retry-count", "0") for request in server.requests].count(
                "0"
            ) == len(server.requests), "the SDK repeated a request"
            return result

    return asyncio.run(run())


COMPLETE = [name for name in FIXTURES if name not in ("cut", "error-before-content", "error-after-content")]


def same(theirs: Any, name: str) -> bool:
    expected = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["message"]
    got: dict[str, Any] = theirs.model_dump(mode="json", exclude_unset=True)
    return all(got[key] == expected[key] for key in ("id", "model", "stop_reason", "stop_details", "content"))


@pytest.mark.real
@pytest.mark.parametrize("options", [{}, {"split": 61}, {"segments": 47}], ids=str)
@pytest.mark.parametrize("name", COMPLETE)
def test_the_sdk_streams_the_same_message(name: str, options: dict[str, Any]) -> None:
    async def ask(client: Any) -> Any:
        async with client.messages.stream(**QUESTION) as stream:
            return await stream.get_final_message()

    assert same(with_sdk(ask, FIXTURES[name], **options), name)


@pytest.mark.real
@pytest.mark.parametrize("name", COMPLETE)
def test_the_sdk_creates_the_same_message(name: str) -> None:
    async def ask(client: Any) -> Any:
        return await client.messages.create(**QUESTION)

    assert same(with_sdk(ask, FIXTURES[name]), name)


@pytest.mark.real
def test_the_sdk_sees_the_request_id() -> None:
    async def ask(client: Any) -> Any:
        async with client.messages.stream(**QUESTION) as stream:
            return stream.request_id

    assert with_sdk(ask, PLAIN) == PLAIN.headers["request-id"]


@pytest.mark.real
def test_the_sdk_counts_tokens_and_lists_models() -> None:
    async def ask(client: Any) -> Any:
        count = await client.messages.count_tokens(model="m", messages=QUESTION["messages"])
        listed = [model.id async for model in client.models.list()]
        return count.input_tokens, listed, (await client.models.retrieve(listed[0])).id

    assert with_sdk(ask, PLAIN, FIXTURES["tools"]) == (44 // 4, ["claude-sonnet-5"], "claude-sonnet-5")


@pytest.mark.real
@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (401, "authentication_error", "AuthenticationError"),
        (429, "rate_limit_error", "RateLimitError"),
        (500, "api_error", "InternalServerError"),
        (529, "overloaded_error", "OverloadedError"),
    ],
)
def test_the_sdk_raises_for_a_recorded_status_and_does_not_repeat(status: int, kind: str, error: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "No."}}).encode()
    recording = Recording(None, status, {"content-type": "application/json"}, (Read(0.0, body),))

    async def ask(client: Any) -> str:
        with pytest.raises(Exception, match=r"No\.") as caught:
            await client.messages.create(**QUESTION)
        return type(caught.value).__name__

    assert with_sdk(ask, recording) == error


@pytest.mark.real
@pytest.mark.parametrize("name", ["error-before-content", "error-after-content"])
def test_the_sdk_raises_for_a_recorded_error_event(name: str) -> None:
    expected = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["error_type"]

    async def ask(client: Any) -> Any:
        with pytest.raises(Exception, match=r"Overloaded|Internal server error") as caught:
            async with client.messages.stream(**QUESTION) as stream:
                await stream.get_final_message()
        return getattr(caught.value, "type", None)

    assert with_sdk(ask, FIXTURES[name]) == expected


@pytest.mark.real
def test_the_sdk_notices_a_cut_connection() -> None:
    async def ask(client: Any) -> str:
        with pytest.raises(Exception, match="incomplete chunked read") as caught:
            async with client.messages.stream(**QUESTION) as stream:
                await stream.get_final_message()
        return type(caught.value).__name__

    assert with_sdk(ask, FIXTURES["cut"]) == "RemoteProtocolError"


@pytest.mark.real
def test_the_tool_runner_of_the_sdk_goes_through_both_turns() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the official SDK is not installed")

    @anthropic.beta_async_tool  # type: ignore[untyped-decorator]
    async def get_weather(place: str, unit: str = "celsius") -> str:
        """The weather at a place."""
        return f"dry in {place}"

    async def run() -> tuple[list[str], list[PlayedRequest]]:
        async with ReplayServer([FIXTURES["tools"], PLAIN]) as server:
            async with anthropic.AsyncAnthropic(base_url=server.base_url, api_key="k") as client:
                runner = client.beta.messages.tool_runner(**QUESTION, tools=[get_weather])
                reasons = [message.stop_reason async for message in runner]
            return reasons, server.requests

    reasons, requests = asyncio.run(run())
    assert reasons == ["tool_use", "end_turn"]
    assert requests[-1].body["messages"][-1]["content"][0]["content"] == "dry in Bergen, Norway"
