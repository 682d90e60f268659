"""`rawsse.http1.connection`: both roles without a socket, at every cut of the wire; what attackers and broken gateways send."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import h11
import pytest
from support.sampling import one_in

from rawsse.errors import APIError, BodyTooLargeError, HeadTooLargeError, HTTPProtocolError, HTTPUsageError
from rawsse.http1 import (
    MAX_BODY_BYTES,
    MAX_CHUNK_HEAD_BYTES,
    MAX_HEAD_BYTES,
    MAX_PIPELINED_BYTES,
    ClientConnection,
    ConnectionClosed,
    Data,
    EndOfMessage,
    Request,
    Response,
    ServerConnection,
    host_name,
)

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n"
GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
UPLOAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"

Connection = ClientConnection | ServerConnection


class Message(NamedTuple):
    """What came: the head, the body so far, whether that is all of it, and whether the connection was found closed."""

    head: Request | Response | None
    body: bytes
    is_whole: bool
    is_closed: bool


def every_cut(wire: bytes) -> Iterator[list[bytes]]:
    yield [wire]
    for at in range(1, len(wire)):
        yield [wire[:at], wire[at:]]
    yield [wire[at : at + 1] for at in range(len(wire))]


def events_of(connection: Connection, reads: Iterable[bytes]) -> list[Any]:
    events: list[Any] = []
    for read in reads:
        connection.receive_data(read)
        while (event := connection.next_event()) is not None:
            events.append(event)
            if isinstance(event, ConnectionClosed):
                break
    return events


def message_of(connection: Connection, reads: Iterable[bytes]) -> Message:
    events = events_of(connection, reads)
    heads = [event for event in events if isinstance(event, (Request, Response))]
    assert heads == events[: len(heads)]
    assert len(heads) <= 1
    body = b"".join(event.data for event in events if isinstance(event, Data))
    closed = [event for event in events if isinstance(event, ConnectionClosed)]
    return Message(heads[0] if heads else None, body, EndOfMessage() in events, bool(closed))


def client(method: str = "GET", **limits: int) -> ClientConnection:
    """A client that has sent its request."""
    connection = ClientConnection("x", **limits)
    connection.send_request(method, "/", [])
    return connection


def answer(wire: bytes, *, method: str = "GET", eof: bool = False) -> tuple[Response, bytes, bool, bool]:
    """Status and head, body, whether it is whole, whether the connection may be used again; the same at every cut."""
    found = []
    for reads in every_cut(wire):
        connection = client(method)
        message = message_of(connection, [*reads, b""] if eof else reads)
        assert isinstance(message.head, Response), reads
        found.append((message.head, message.body, message.is_whole, connection.is_reusable))
    assert all(each == found[0] for each in found)
    return found[0]


def request(wire: bytes, **limits: int) -> tuple[Request, bytes, bool]:
    """The request's head, its body, and whether it is whole; the same at every cut."""
    found = []
    for reads in every_cut(wire):
        message = message_of(ServerConnection(**limits), reads)
        assert isinstance(message.head, Request), reads
        found.append((message.head, message.body, message.is_whole))
    assert all(each == found[0] for each in found)
    return found[0]


def failure(make: Callable[[], Connection], reads: Iterable[bytes]) -> APIError:
    try:
        events_of(make(), reads)
    except APIError as exc:  # not `pytest.raises`: it takes longer than the rest
        return exc
    raise AssertionError("no error")


def refusal(wire: bytes, **limits: int) -> APIError:
    """What a server says to the request; the same words however it is cut: at one place in three, and after every byte."""
    whole, *cuts, singly = every_cut(wire)
    ways = [whole, *cuts[:: one_in(3)], singly]
    errors = [failure(lambda: ServerConnection(**limits), reads) for reads in ways]
    assert {(type(error), str(error)) for error in errors} == {(type(errors[0]), str(errors[0]))}
    return errors[0]


# --- Client: the request -------------------------------------------------------------------------------------------


def test_a_request_is_written_with_host_and_length() -> None:
    wire = ClientConnection("x:1").send_request("POST", "/v1?a=b", [("X-Key", "k")], b"{}")
    assert wire == b"POST /v1?a=b HTTP/1.1\r\nhost: x:1\r\nX-Key: k\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "CONNECT"])
def test_a_request_that_has_no_body_by_nature_has_no_length(method: str) -> None:
    assert ClientConnection("x").send_request(method, "/", []) == f"{method} / HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def test_an_empty_body_of_a_post_has_the_length_0() -> None:
    assert ClientConnection("x").send_request("POST", "/", []).endswith(b"\r\ncontent-length: 0\r\n\r\n")


def test_a_body_of_a_get_is_sent_all_the_same() -> None:
    assert ClientConnection("x").send_request("GET", "/", [], b"{}").endswith(b"\r\ncontent-length: 2\r\n\r\n{}")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("sk-ant-secret\n", r"'\n' at position 13"),
        ("sk-ant\r\nx: y", r"'\r' at position 6"),
        ("sk\0ant", r"'\x00' at position 2"),
        ("sk-ant-€", r"'€' at position 7"),
        ("sk\x7fant", r"'\x7f' at position 2"),
    ],
)
def test_a_header_value_that_http_does_not_allow_is_refused_without_being_shown(value: str, shown: str) -> None:
    with pytest.raises(HTTPUsageError) as caught:
        ClientConnection("x").send_request("GET", "/", [("x-api-key", value)])
    assert str(caught.value) == f"the value of x-api-key may not have {shown}"


@pytest.mark.parametrize("value", [" sk-ant", "sk-ant\t", " "])
def test_a_header_value_with_a_blank_at_an_end_is_refused(value: str) -> None:
    with pytest.raises(HTTPUsageError, match=r"^the value of x-api-key may not begin or end with a blank$"):
        ClientConnection("x").send_request("GET", "/", [("x-api-key", value)])


def test_a_header_value_may_be_empty_hold_blanks_or_be_latin_1() -> None:
    wire = ClientConnection("x").send_request("GET", "/", [("a", ""), ("b", "c \t d"), ("e", "é")])
    assert b"\r\na: \r\nb: c \t d\r\ne: \xe9\r\n" in wire


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "é", "a\n", "a\0", "a\0b\nc"])
def test_a_header_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(HTTPUsageError, match=r"^invalid name of a header field: '"):
        ClientConnection("x").send_request("GET", "/", [(name, "v")])


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", ""),
        ("GET", "/a b"),
        ("GET", "/a\r\nHost: y"),
        ("GET", "/é"),
        ("GET", "/\x7f"),
        ("", "/"),
        ("G T", "/"),
        ("É", "/"),
    ],
)
def test_what_would_break_the_request_line_is_refused(method: str, target: str) -> None:
    connection = ClientConnection("x")
    with pytest.raises(HTTPUsageError, match=r"^invalid method or target of a request$"):
        connection.send_request(method, target, [])
    assert connection.send_request("GET", "/", []).startswith(b"GET / HTTP/1.1\r\n")


def test_a_host_that_would_break_the_head_is_refused() -> None:
    with pytest.raises(HTTPUsageError, match="the value of host may not have"):
        ClientConnection("x\r\ny: z").send_request("GET", "/", [])


@pytest.mark.parametrize("name", ["Transfer-Encoding", "Content-Length", "Host"])
def test_a_field_that_decides_where_a_request_goes_or_ends_is_refused(name: str) -> None:
    with pytest.raises(HTTPUsageError, match=f"^{name.lower()} cannot be given: the connection writes it$"):
        ClientConnection("x").send_request("POST", "/", [(name, "2")], b"{}")


def test_a_second_request_before_the_answer_to_the_first_is_refused() -> None:
    connection = client()
    with pytest.raises(HTTPUsageError, match=r"^a request cannot be sent before the end of the current exchange$"):
        connection.send_request("GET", "/", [])


# --- Client: the answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_an_answer_is_read_at_every_cut(wire: bytes) -> None:
    head, body, is_whole, is_reusable = answer(wire)
    assert (head.status, head.reason, head.http_version) == (200, "OK", "1.1")
    assert (body, is_whole, is_reusable) == (b"hello", True, True)


def test_all_chunks_of_one_read_are_one_piece() -> None:
    assert events_of(client(), [CHUNKED])[1:] == [Data(b"hello"), EndOfMessage()]
    assert events_of(client(), [CHUNKED[:-8], CHUNKED[-8:]])[1:] == [Data(b"hello"), EndOfMessage()]


def test_what_several_reads_bring_before_an_event_is_taken_is_one_piece() -> None:
    connection = client()
    for read in (CHUNKED[:47], CHUNKED[47:60], CHUNKED[60:63], CHUNKED[63:]):
        connection.receive_data(read)
    assert [connection.next_event() for _ in range(4)][1:] == [Data(b"hello"), EndOfMessage(), None]


def test_data_in_front_of_a_broken_chunk_are_returned_before_the_error() -> None:
    connection = client()
    connection.receive_data(CHUNKED[:-11] + b"x\r\n")
    assert [connection.next_event() for _ in range(2)][1] == Data(b"hello")
    with pytest.raises(HTTPProtocolError, match=r"^not a chunk's head: b'x"):
        connection.next_event()


def test_a_read_that_is_one_chunk_takes_six_calls() -> None:
    connection, calls = client(), 0
    events_of(connection, [CHUNKED[:47]])

    def count(_frame: Any, event: str, _called: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    data = connection.take_chunk(b"5\r\nhello\r\n")
    sys.setprofile(None)
    assert data == b"hello"
    assert calls - 1 <= 6  # and that of `setprofile`


def test_a_chunk_that_is_taken_is_read_as_any_other() -> None:
    connection = client()
    assert connection.take_chunk(CHUNKED) is None  # the head has not come
    head = CHUNKED[: CHUNKED.index(b"\r\n\r\n") + 4]
    assert len(events_of(connection, [head])) == 1
    assert connection.take_chunk(b"2\r\nhe\r\n") == b"he"
    assert events_of(connection, [b"1\r\nl\r\n", b"2\r\nl"]) == [Data(b"l"), Data(b"l")]
    assert connection.take_chunk(b"2\r\nhe\r\n") is None  # inside a chunk
    assert events_of(connection, [b"o\r\n0\r\n\r\n"]) == [Data(b"o"), EndOfMessage()]
    assert connection.take_chunk(b"2\r\nhe\r\n") is None  # after the end of the body
    assert connection.is_reusable


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0\r\n\r\n",
        b"-2\r\n",
        b"-1\r\nx",
        b"05\r\nhello\r\n",
        b"5;x=1\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"5\r\nhell",
        b"5\r\nhello",
        b"5\r\nhello\r",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\r\n0",
        b"x\r\n",
    ],
)
def test_what_is_not_one_whole_chunk_is_not_taken_and_changes_nothing(data: bytes) -> None:
    connection = client()
    events_of(connection, [CHUNKED[: CHUNKED.index(b"\r\n\r\n") + 4]])
    assert connection.take_chunk(data) is None
    assert events_of(connection, [b"5\r\nhello\r\n0\r\n\r\n"]) == [Data(b"hello"), EndOfMessage()]


def test_data_are_handed_on_as_soon_as_they_are_there() -> None:
    assert events_of(client(), [CHUNKED[: CHUNKED.index(b"el")]])[1:] == [Data(b"h")]
    assert events_of(client(), [SIZED[:-4]])[1:] == [Data(b"h")]


def outcome(make: Callable[[], Connection], wire: bytes) -> Any:
    connection = make()
    connection.receive_data(wire)
    try:
        return connection.next_event(), connection.next_event(), connection.is_reusable
    except APIError as exc:
        return type(exc), str(exc), getattr(exc, "status_hint", None)


ODD_FIELDS = [
    *("Content-Length: 5", "content-length: 5", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5, 5"),
    *("Content-Length: 5\r\nContent-Length: 6", "Content-Length: " + "0" * 20 + "5", "Content-Length: " + "1" * 5000),
    *("Content-Length: +5", "Content-Length: \xb2", "Content-Length: 5 ", "Content-Length:", "Content-Length: "),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: Chunked", "Transfer-Encoding: gzip", "Transfer-Encoding:"),
    *("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"),
    *("Transfer-Encoding: chunked\r\nContent-Length: 5", "Host: x", "Host:", "Host: a b", "HOST: y\r\nhost: z"),
    *(
        "X: a\r\nX: b",
        "X:a",
        "X:  a",
        "X: a ",
        "X: a\tb",
        "X : a",
        "X: a: b",
        "X: \xe9",
        "X: \x85",
        "X: a\x00",
        "X: a\x7f",
    ),
    *(
        "X_y: 1",
        "X!y: 1",
        "\xe9: 1",
        ": 1",
        "X",
        "X: a\r\n b",
        "X: a\n",
        "X: a\rY: b",
        "Connection: close",
        "",
        "\r\nX: a",
    ),
    *("Connection: keep-alive, Close", "Expect: 100-continue", "Upgrade: websocket\r\nConnection: upgrade"),
]


@pytest.mark.parametrize(
    "start", ["GET / HTTP/1.1", "get / HTTP/1.1", "GET / HTTP/1.0", "GET / HTTP/1.2", "GET  / HTTP/1.1"]
)
def test_a_plain_request_head_is_read_as_h11_reads_it(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [f"{start}\r\n{host}{fields}\r\n\r\n" for fields in ODD_FIELDS for host in ("Host: x\r\n", "")]
    as_they_are = {head: outcome(ServerConnection, head.encode("latin-1")) for head in heads}
    monkeypatch.setattr(ServerConnection, "_plain_head", re.compile("(?!)"))
    assert as_they_are == {head: outcome(ServerConnection, head.encode("latin-1")) for head in heads}


@pytest.mark.parametrize(
    "start",
    [
        *("HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1 200 \xe9"),
        *("HTTP/1.0 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 100 Continue", "HTTP/1.1 99 No", "HTTP/1.1  200 OK"),
        *("HTTP/1.1 999 ", "http/1.1 200 OK"),
    ],
)
def test_a_plain_response_head_is_read_as_h11_reads_it(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [f"{start}\r\n{fields}\r\n\r\n" for fields in ODD_FIELDS]
    as_they_are = {head: outcome(client, head.encode("latin-1")) for head in heads}
    monkeypatch.setattr(ClientConnection, "_plain_head", re.compile("(?!)"))
    assert as_they_are == {head: outcome(client, head.encode("latin-1")) for head in heads}


def test_a_plain_head_is_read_without_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(h11, "Connection")
    assert request(b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: b: c\r\n\r\n")[0].headers.raw == [
        ("host", "x"),
        ("x-a", "b: c"),
    ]
    assert answer(SIZED)[:2] == (Response(200, "OK", answer(SIZED)[0].headers, "1.1"), b"hello")


def test_header_values_are_latin_1_and_names_lower_case() -> None:
    head = answer(b"HTTP/1.1 200 Tr\xe8s bien\r\nX-Caf\x65: \xe9\r\nContent-Length: 0\r\n\r\n")[0]
    assert (head.reason, head.headers.raw[0]) == ("Très bien", ("x-cafe", "é"))


def test_a_reason_may_be_missing() -> None:
    assert answer(b"HTTP/1.1 529\r\nContent-Length: 0\r\n\r\n")[0].status == 529


def test_interim_answers_are_skipped() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    head, body, is_whole, is_reusable = answer(early + CHUNKED)
    assert (head.status, body, is_whole, is_reusable) == (200, b"hello", True, True)


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_an_answer_without_a_body_is_over_with_its_head(method: str, head: bytes) -> None:
    assert answer(head, method=method)[1:] == (b"", True, True)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_without_any_length_the_body_ends_with_the_connection(version: bytes) -> None:
    wire = b"HTTP/%b 200 OK\r\n\r\nhello" % version
    assert answer(wire)[1:] == (b"hello", False, False)
    head, *rest = answer(wire, eof=True)
    assert head.http_version == version.decode()
    assert rest == [b"hello", True, False]


@pytest.mark.parametrize("field", [b"", b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_what_follows_a_connect_that_succeeded_is_no_body_but_the_tunnel_s(version: bytes, field: bytes) -> None:
    wire = b"HTTP/%b 200 Connection established\r\n%b\r\nSSH-2" % (version, field)
    for reads in every_cut(wire):
        connection = client("CONNECT")
        events = events_of(connection, reads)
        assert [type(event) for event in events if not isinstance(event, EndOfMessage)] == [Response]
        assert connection.trailing_data == b"SSH-2"
        assert not connection.is_reusable


def test_a_connect_that_is_refused_has_an_answer_like_any_other() -> None:
    wire = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 5\r\n\r\nhello"
    head, body, is_whole, _ = answer(wire, method="CONNECT")
    assert (head.status, body, is_whole) == (407, b"hello", True)


def test_an_answer_of_http_1_0_ends_the_connection() -> None:
    assert answer(SIZED.replace(b"1.1", b"1.0"))[1:] == (b"hello", True, False)


def test_connection_close_ends_the_connection() -> None:
    assert answer(SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))[1:] == (b"hello", True, False)


def test_lines_may_end_with_a_bare_lf_and_be_folded() -> None:
    head = answer(b"HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 0\n\n")[0]
    assert head.headers["a"] == "b c"


def test_a_length_given_twice_alike_counts_once() -> None:
    assert answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello")[1:] == (
        b"hello",
        True,
        True,
    )


# --- Client: one exchange after another ----------------------------------------------------------------------------


def test_a_connection_carries_one_exchange_after_another() -> None:
    connection = client()
    for wire in (SIZED, CHUNKED, SIZED):
        assert message_of(connection, [wire]).body == b"hello"
        connection.start_next_cycle()
        connection.send_request("GET", "/", [])


def test_a_new_connection_is_not_reusable_and_reads_nothing_before_its_request() -> None:
    connection = ClientConnection("x")
    assert not connection.is_reusable
    assert events_of(connection, [SIZED]) == []


def test_reuse_before_the_end_is_refused() -> None:
    connection = client()
    events_of(connection, [SIZED[:-1]])
    with pytest.raises(
        HTTPUsageError, match=r"^the current exchange is not complete, or the connection must be closed$"
    ):
        connection.start_next_cycle()


def test_a_server_that_closed_ends_reuse() -> None:
    connection = client()
    assert message_of(connection, [SIZED, b""]).is_whole
    assert not connection.is_reusable


@pytest.mark.parametrize("wire", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_bytes_that_nobody_asked_for_end_reuse_and_are_never_an_answer(wire: bytes) -> None:
    for reads in ([wire + SIZED], [wire, SIZED]):
        connection = client()
        assert message_of(connection, reads).body == b"hello"
        assert not connection.is_reusable


def nearly(wire: bytes, *, method: str = "GET") -> list[bool]:
    """Whether the connection is nearly reusable: before the request, before the answer, and after each of its bytes."""
    connection = ClientConnection("x")
    found = [connection.is_nearly_reusable]
    connection.send_request(method, "/", [])
    for byte in [b"", *(wire[at : at + 1] for at in range(len(wire)))]:
        if byte:
            connection.receive_data(byte)
        while connection.next_event() is not None:
            pass
        found.append(connection.is_nearly_reusable)
    assert connection.is_reusable is found[-1]
    return found


@pytest.mark.parametrize(
    "wire",
    [SIZED, CHUNKED, SIZED.replace(b"\n\r\n", b"\nConnection: keep-alive\r\n\r\n")],
    ids=["sized", "chunked", "keep-alive"],
)
def test_a_connection_is_nearly_reusable_from_the_head_of_the_answer_to_its_end(wire: bytes) -> None:
    size_of_head = wire.index(b"\r\n\r\n") + 4
    assert nearly(wire) == [False] * (1 + size_of_head) + [True] * (1 + len(wire) - size_of_head)


@pytest.mark.parametrize(
    ("method", "wire"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\n\r\nhello"),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nhello"),
        ("GET", SIZED.replace(b"1.1", b"1.0")),
        ("GET", SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
        ("GET", CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)),
        ("GET", CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1)),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("CONNECT", b"HTTP/1.1 200 Connection established\r\n\r\n"),
    ],
    ids=[
        "until the end",
        "1.0 until the end",
        "1.0",
        "close",
        "chunked, close",
        "two framings",
        "100",
        "CONNECT",
    ],
)
def test_a_connection_that_ends_with_the_answer_is_never_nearly_reusable(method: str, wire: bytes) -> None:
    assert not any(nearly(wire, method=method))


@pytest.mark.parametrize(
    ("method", "wire", "is_reusable"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", True),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    ],
)
def test_without_a_body_a_missing_length_does_not_end_reuse(method: str, wire: bytes, is_reusable: bool) -> None:
    assert nearly(wire, method=method)[-1] is is_reusable


@pytest.mark.parametrize("wire", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_a_server_that_closed_in_the_body_leaves_nothing_to_reuse(wire: bytes) -> None:
    connection = client()
    events_of(connection, [wire[:-1]])
    connection.receive_data(b"")
    assert not connection.is_nearly_reusable


def test_a_broken_body_leaves_nothing_to_reuse() -> None:
    connection = client()
    with pytest.raises(HTTPProtocolError):
        events_of(connection, [CHUNKED[: CHUNKED.index(b"2\r\n")], b"nonsense\r\n"])
    assert not connection.is_nearly_reusable


LATE = CHUNKED.index(b"0\r\nX")


def rested() -> ClientConnection:
    """A connection whose last answer lacks nothing but its last chunk."""
    connection = client()
    assert events_of(connection, [CHUNKED[:LATE]])[-1] == Data(b"hello")
    assert (connection.is_reusable, connection.is_nearly_reusable) == (False, True)
    return connection


@pytest.mark.parametrize("late", [b"0\r\n\r\n", CHUNKED[LATE:], b"1\r\n\n\r\n0\r\n\r\n"])
def test_a_last_chunk_that_comes_late_makes_the_connection_reusable_at_every_cut(late: bytes) -> None:
    for reads in every_cut(late):
        connection = rested()
        for read in reads:
            assert not connection.is_reusable
            events_of(connection, [read])
        assert (connection.is_reusable, connection.is_nearly_reusable) == (True, True)
        connection.start_next_cycle()
        connection.send_request("GET", "/", [])
        assert message_of(connection, [SIZED]).body == b"hello"


@pytest.mark.parametrize("late", [b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n\r\n", b"0\r\n\r\n\0"])
def test_what_follows_a_late_last_chunk_ends_reuse_at_every_cut(late: bytes) -> None:
    for reads in every_cut(late):
        connection = rested()
        events_of(connection, reads)
        assert (connection.is_reusable, connection.is_nearly_reusable) == (False, False)


@pytest.mark.parametrize("late", [b"x\r\n", b"0\n\r\n", b"0\r\nA : b\r\n\r\n", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_a_broken_last_chunk_ends_reuse_at_every_cut(late: bytes) -> None:
    for reads in every_cut(late):
        connection = rested()
        with pytest.raises(HTTPProtocolError):
            events_of(connection, reads)
        assert (connection.is_reusable, connection.is_nearly_reusable) == (False, False)


@pytest.mark.parametrize("late", [b"", b"0", b"0\r\n", b"0\r\n\r\n"])
def test_a_close_before_or_after_a_late_last_chunk_ends_reuse(late: bytes) -> None:
    connection = rested()
    connection.receive_data(late)
    connection.receive_data(b"")
    assert not connection.is_nearly_reusable
    events, closed = [], False
    try:
        while (event := connection.next_event()) is not None:
            events.append(event)
    except HTTPProtocolError as exc:
        closed = exc.by_close
    assert (events, closed) == (([EndOfMessage()], False) if late.endswith(b"\r\n\r\n") else ([], True))
    assert (connection.is_reusable, connection.is_nearly_reusable) == (False, False)


def test_a_client_that_asked_to_close_does_not_reuse_the_connection() -> None:
    connection = ClientConnection("x")
    connection.send_request("GET", "/", [("Connection", "Close")])
    assert message_of(connection, [SIZED]).is_whole
    assert not connection.is_reusable


def test_bytes_after_the_answer_end_what_was_nearly_reusable() -> None:
    connection = client()
    events_of(connection, [SIZED])
    assert connection.is_nearly_reusable
    connection.receive_data(b"x")
    assert not connection.is_nearly_reusable


def test_bytes_after_a_last_answer_are_no_error() -> None:
    wire = SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert message_of(client(), [wire + b"garbage", b"more", b""]).is_whole


def test_an_answer_with_two_framings_is_read_as_chunked_and_ends_reuse() -> None:
    both = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1)
    assert answer(both)[1:] == (b"hello", True, False)


def test_bytes_after_the_close_are_not_taken() -> None:
    connection = client()
    events_of(connection, [SIZED[:-1]])
    connection.receive_data(b"")
    connection.receive_data(b"o")
    with pytest.raises(HTTPProtocolError, match="the connection was closed before the end of the message"):
        connection.next_event()


# --- Client: closed too early --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_a_close_at_any_byte_before_the_last_is_told_from_broken_bytes(wire: bytes) -> None:
    for end in range(len(wire)):
        error = failure(client, [wire[:end], b""])
        assert isinstance(error, HTTPProtocolError)
        assert error.by_close, end
        assert str(error) == "the connection was closed before the end of the message"


def test_what_came_before_the_close_is_handed_on_first() -> None:
    connection = client()
    connection.receive_data(CHUNKED[: CHUNKED.index(b"lo")])
    connection.receive_data(b"")
    events = [connection.next_event() for _ in range(2)]
    assert isinstance(events[0], Response)
    assert events[1] == Data(b"hel")
    with pytest.raises(HTTPProtocolError):
        connection.next_event()


@pytest.mark.parametrize("wire", [b"HTTP/1.1 abc\r\n\r\n", SIZED[:17] + b"A : b\r\n\r\n", CHUNKED[:47] + b"x\r\n"])
def test_broken_bytes_are_told_from_a_close_that_follows_them(wire: bytes) -> None:
    connection = client()
    connection.receive_data(wire)
    connection.receive_data(b"")
    with pytest.raises(HTTPProtocolError) as caught:
        [connection.next_event() for _ in range(2)]
    assert not caught.value.by_close


# --- Client: broken answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (b"HTTP/1.1 abc\r\n\r\n", "not HTTP/1.1: illegal status line"),
        (b"<html>502</html>\r\n\r\n", "not HTTP/1.1: illegal status line"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP/1.1: illegal status line"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "unsupported HTTP version: 2.0"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not HTTP/1.1: "),
        (b"\x15\x03\x03\x00\x02\x02\x46", "not HTTP/1.1: invalid first byte of a head"),  # a TLS alert
        (b"HTTP/1.1 200 OK\r\nA: sk\0secret\r\n\r\n", "not HTTP/1.1: a control character in the head"),
        (b"HTTP/1.1 200 OK\r\nA : secret\r\n\r\n", "not HTTP/1.1: illegal header line"),
        (b"HTTP/1.1 200 OK\r\nsecret\r\n\r\n", "not HTTP/1.1: illegal header line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\n", "not HTTP/1.1: bad Content-Length"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "not HTTP/1.1: conflicting Content-Length headers",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "not HTTP/1.1: Only Transfer-Encoding: chunked is supported",
        ),
        (CHUNKED[:47] + b"5 5\r\n", "not a chunk's head: b'5 5\\r\\n'"),
        (CHUNKED[:47] + b"1\r\nxy", "not a chunk's head: b'y'"),
    ],
)
def test_an_answer_that_is_not_http_is_refused_in_words_that_hold_no_value(wire: bytes, words: str) -> None:
    for reads in every_cut(wire):
        error = failure(client, reads)
        assert isinstance(error, HTTPProtocolError)
        assert str(error).startswith(words)
        assert "secret" not in str(error)


@pytest.mark.parametrize(
    "wire", [b"HTTP/1.1 abc\r\n\r\n", b"\0", CHUNKED[:47] + b"x\r\n", SIZED[:5] + b"x" * MAX_HEAD_BYTES]
)
def test_after_a_broken_answer_nothing_more_is_read(wire: bytes) -> None:
    connection = client()
    with pytest.raises(APIError):
        events_of(connection, [wire])
    with pytest.raises(HTTPProtocolError, match=r"^the connection failed earlier$"):
        events_of(connection, [SIZED])
    assert not connection.is_reusable


def test_the_head_of_an_answer_is_bounded_at_every_cut() -> None:
    head = SIZED[:-5]
    for reads in every_cut(SIZED):
        assert message_of(client(max_head_bytes=len(head)), reads).body == b"hello"
        error = failure(lambda: client(max_head_bytes=len(head) - 1), reads)
        assert isinstance(error, HeadTooLargeError)
        assert (str(error), error.limit) == ("the head is larger than max_head_bytes (37)", 37)


def test_the_bound_of_a_head_is_for_each_head_and_not_for_the_body() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    assert message_of(client(max_head_bytes=40), [interim * 5 + SIZED[:38] + b"hello"]).is_whole
    assert message_of(client(max_head_bytes=50), [CHUNKED[:47], b"64\r\n" + b"x" * 100]).body == b"x" * 100


def test_the_head_of_a_chunk_is_bounded() -> None:
    error = failure(client, [CHUNKED[:47] + b"1;" + b"a" * MAX_CHUNK_HEAD_BYTES])
    assert isinstance(error, HeadTooLargeError)
    assert error.limit == MAX_CHUNK_HEAD_BYTES


# --- Server: the request -------------------------------------------------------------------------------------------


def test_a_request_is_read_at_every_cut() -> None:
    head, body, is_whole = request(GET)
    assert (head.method, head.target, head.http_version, head.headers.raw) == ("GET", "/a?b", "1.1", [("host", "x")])
    assert (body, is_whole) == (b"", True)


@pytest.mark.parametrize("wire", [POST, UPLOAD], ids=["sized", "chunked"])
def test_a_body_is_read_at_every_cut(wire: bytes) -> None:
    assert request(wire)[1:] == (b"hello", True)


def test_empty_lines_before_a_request_are_forgiven() -> None:
    assert request(b"\r\n\r\n" + GET)[0].target == "/a?b"
    assert ServerConnection().is_idle


def test_a_request_of_http_1_0_needs_no_host() -> None:
    assert request(b"GET / HTTP/1.0\r\n\r\n")[0].http_version == "1.0"


def test_a_close_between_requests_is_an_event() -> None:
    assert events_of(ServerConnection(), [b""]) == [ConnectionClosed()]
    connection = ServerConnection()
    events_of(connection, [GET])
    exchange(connection)
    assert events_of(connection, [b""]) == [ConnectionClosed()]


def test_a_close_during_the_answer_is_no_event_yet() -> None:
    connection = ServerConnection()
    assert EndOfMessage() in events_of(connection, [GET])
    assert events_of(connection, [b""]) == []


@pytest.mark.parametrize("wire", [POST, UPLOAD], ids=["sized", "chunked"])
def test_a_close_at_any_byte_of_a_request_is_an_error(wire: bytes) -> None:
    for end in range(1, len(wire)):
        error = failure(ServerConnection, [wire[:end], b""])
        assert isinstance(error, HTTPProtocolError)
        assert error.by_close, end


@pytest.mark.parametrize("name", ["Expect", "expect"])
def test_a_client_that_waits_for_100_continue_gets_it_once(name: str) -> None:
    connection = ServerConnection()
    events_of(connection, [POST.replace(b"\r\n\r\nhello", f"\r\n{name}: 100-Continue\r\n\r\n".encode())])
    assert connection.send_continue() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connection.send_continue() == b""
    assert message_of(connection, [b"hello"]).is_whole


@pytest.mark.parametrize("wire", [POST, UPLOAD], ids=["sized", "chunked"])
def test_a_client_that_sends_its_body_waits_no_longer(wire: bytes) -> None:
    connection = ServerConnection()
    head, body = wire.split(b"\r\n\r\n", 1)
    events_of(connection, [head + b"\r\nExpect: 100-continue\r\n\r\n"])
    assert Data(b"h") in events_of(connection, [body[: body.index(b"el")]])
    assert connection.send_continue() == b""
    assert message_of(connection, [body[body.index(b"el") :]]).is_whole


def test_a_client_that_was_answered_waits_no_longer() -> None:
    connection = ServerConnection()
    events_of(connection, [POST.replace(b"\r\n\r\nhello", b"\r\nExpect: 100-continue\r\n\r\n")])
    connection.send_response(413, [])
    assert connection.send_continue() == b""


def test_a_client_of_http_1_0_gets_no_100_continue() -> None:
    # RFC 9110, 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that expectation."
    connection = ServerConnection()
    head = POST.replace(b"\r\n\r\nhello", b"\r\nExpect: 100-continue\r\n\r\n").replace(b"1.1", b"1.0")
    events_of(connection, [head])
    assert connection.send_continue() == b""


def test_all_chunks_of_one_read_of_a_request_are_one_piece() -> None:
    assert events_of(ServerConnection(), [UPLOAD])[1:] == [Data(b"hello"), EndOfMessage()]


# --- Server: hostile requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "status", "words"),
    [
        (b"GET /\r\n\r\n", 400, "not HTTP/1.1: illegal request line"),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not HTTP/1.1: illegal request line"),
        (b"GET / secret HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not HTTP/1.1: illegal request line"),
        (b"G\xe9T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not HTTP/1.1: illegal request line"),
        (b" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not HTTP/1.1: invalid first byte of a head"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "not HTTP/1.1: invalid first byte of a head"),  # TLS on a plain port
        (b"GET / HTTP/1.1\r\n\r\n", 400, "not HTTP/1.1: Missing mandatory Host: header"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "not HTTP/1.1: Found multiple Host: headers"),
        (b"GET / HTTP/1.1\r\nX-Api-Key : secret\r\n\r\n", 400, "not HTTP/1.1: illegal header line"),
        (b"GET / HTTP/1.1\r\n: secret\r\n\r\n", 400, "not HTTP/1.1: illegal header line"),
        (b"GET / HTTP/1.1\r\n folded: secret\r\n\r\n", 400, "not HTTP/1.1: a header line that begins with a blank"),
        (b"GET / HTTP/1.1\r\nA: b\rB: c\r\n\r\n", 400, "not HTTP/1.1: a control character in the head"),
        (b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n", 400, "not HTTP/1.1: a control character in the head"),
        (b"GET / HTTP/1.1\r\nA:" + b" " * 99 + b"\v\r\n\r\n", 400, "not HTTP/1.1: a control character in the head"),
        (b"PRI * HTTP/2.0\r\n\r\n", 505, "unsupported HTTP version: 2.0"),
        (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505, "unsupported HTTP version: 0.9"),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 501, "CONNECT is for proxies"),
    ],
)
def test_a_request_that_is_not_http_is_refused_in_words_that_hold_no_value(
    wire: bytes, status: int, words: str
) -> None:
    error = refusal(wire)
    assert isinstance(error, HTTPProtocolError)
    assert (str(error), error.status_hint) == (words, status)


TWO_LENGTHS = "not HTTP/1.1: ambiguous length of the body"


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400, TWO_LENGTHS),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400, TWO_LENGTHS),
        (b"Content-Length: 5\r\nContent-Length: 6", 400, "not HTTP/1.1: conflicting Content-Length headers"),
        (b"Content-Length: 5, 6", 400, "not HTTP/1.1: conflicting Content-Length headers"),
        (b"Content-Length: +5", 400, "not HTTP/1.1: bad Content-Length"),
        (b"Content-Length: -5", 400, "not HTTP/1.1: bad Content-Length"),
        (b"Content-Length: 0x5", 400, "not HTTP/1.1: bad Content-Length"),
        (b"Content-Length: 5 5", 400, "not HTTP/1.1: bad Content-Length"),
        (b"Content-Length:", 400, "not HTTP/1.1: bad Content-Length"),
        (b"Content-Length: " + b"1" * 21, 400, "not HTTP/1.1: bad Content-Length"),
        (b"Content-Length : 5", 400, "not HTTP/1.1: illegal header line"),
        (b"Transfer-Encoding : chunked", 400, "not HTTP/1.1: illegal header line"),
        (b"Transfer-Encoding: xchunked", 501, "not HTTP/1.1: Only Transfer-Encoding: chunked is supported"),
        (b"Transfer-Encoding: chunked, identity", 501, "not HTTP/1.1: Only Transfer-Encoding: chunked is supported"),
        (
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            501,
            "not HTTP/1.1: multiple Transfer-Encoding headers",
        ),
        (b"Transfer-Encoding:\v chunked", 400, "not HTTP/1.1: a control character in the head"),
        (b"A: b\r\rTransfer-Encoding: chunked", 400, "not HTTP/1.1: a control character in the head"),
    ],
)
def test_a_request_whose_length_two_readers_could_see_differently_is_refused(
    fields: bytes, status: int, words: str
) -> None:
    error = refusal(b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n")
    assert isinstance(error, HTTPProtocolError)
    assert (str(error), error.status_hint) == (words, status)


def test_chunks_in_http_1_0_are_refused() -> None:
    assert str(refusal(UPLOAD.replace(b"1.1", b"1.0"))) == TWO_LENGTHS


@pytest.mark.parametrize("fold", [b"\r\n ", b"\r\n\t", b"\n ", b"\r\n \t "])
def test_a_folded_header_line_is_refused(fold: bytes) -> None:
    error = refusal(b"GET / HTTP/1.1\r\nHost: x\r\nA: b" + fold + b"Transfer-Encoding: chunked\r\n\r\n")
    assert isinstance(error, HTTPProtocolError)
    assert (str(error), error.status_hint) == ("not HTTP/1.1: a header line that begins with a blank", 400)


@pytest.mark.parametrize("character", [*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
@pytest.mark.parametrize(
    "wire", [b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b%bc\r\n\r\n"]
)
def test_a_control_character_in_a_request_is_refused(wire: bytes, character: int) -> None:
    error = refusal(wire % bytes([character]))
    assert isinstance(error, HTTPProtocolError)
    assert (str(error), error.status_hint) == ("not HTTP/1.1: a control character in the head", 400)


def test_a_tab_and_other_alphabets_in_a_field_of_a_request_are_taken() -> None:
    head = request(b"GET / HTTP/1.1\r\nHost: x\r\nA: \tb\tc\xe9\xff\t\r\n\r\n")[0]
    assert head.headers["a"] == "b\tc\xe9\xff"


def test_a_control_character_in_a_field_of_a_response_is_kept() -> None:
    wire = b"HTTP/1.1 204 No Content\r\nset-cookie: a=\x01\r\nb: c\r\n d\r\n\r\n"
    connection = ClientConnection("x")
    connection.send_request("GET", "/", [])
    assert events_of(connection, [wire])[0].headers.raw == [("set-cookie", "a=\x01"), ("b", "c d")]


# --- Server: where a request goes (RFC 9112, 3.2 and 3.3; RFC 3986, 3.2.2; RFC 9110, 4.2) ------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [
        *[
            ("", ""),
            ("x", "x"),
            ("X.Example", "x.example"),
            ("x:80", "x"),
            ("x:", "x"),
            ("127.0.0.1:8000", "127.0.0.1"),
        ],
        *[("[::1]", "::1"), ("[::1]:80", "::1"), ("[FE80::0:1]", "fe80::1"), ("[::ffff:1.2.3.4]", "::ffff:1.2.3.4")],
        *[("a_b~c!$&'()*+,;=d", "a_b~c!$&'()*+,;=d"), ("%61", "%61")],
    ],
)
def test_a_host_has_a_name(host: str, name: str) -> None:
    found = host_name(host)
    assert found is not None
    assert found == name or ipaddress.ip_address(found) == ipaddress.ip_address(name)
    assert request(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())[0].headers.get("host") == host


@pytest.mark.parametrize(
    "host",
    [
        *[
            "a b",
            "a, b",
            "a\tb",
            "x, x",
            "u@h",
            "u:p@h",
            "@",
            "a/b",
            "/",
            "a?b",
            "a#b",
            "a\\b",
            "http://a",
            '"a"',
            "<a>",
        ],
        *[
            "a:b",
            "a:80:80",
            "a:80b",
            "a:-1",
            "a: 80",
            "::1",
            "[::1",
            "::1]",
            "[::g]",
            "[]",
            "[1.2.3.4]",
            "[::1]a",
            "[::1%eth0]",
        ],
        *["a%", "a%2", "a%zz", "a^b", "a`b", "a{b}", "a|b", "\xe9", "\xff"],
    ],
)
def test_an_invalid_host_is_refused(host: str) -> None:
    assert host_name(host) is None
    for target in ("/", "http://y/"):
        error = refusal(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
        assert isinstance(error, HTTPProtocolError)
        assert (str(error), error.status_hint) == ("not HTTP/1.1: invalid Host", 400)


@pytest.mark.parametrize(
    ("line", "target", "host"),
    [
        ("GET /", "/", "x"),
        ("GET /a/b?c=d?e/", "/a/b?c=d?e/", "x"),
        ("GET //a//b", "//a//b", "x"),
        ("GET /?", "/?", "x"),
        ("GET /a?u=http://b/", "/a?u=http://b/", "x"),
        ("GET /a|[b]%?{c}^`\\'", "/a|[b]%?{c}^`\\'", "x"),  # as browsers send them
        ("OPTIONS *", "*", "x"),
        ("OPTIONS /a", "/a", "x"),
        ("GET http://y/a?b=c", "/a?b=c", "y"),
        ("GET HTTP://Y:80/a", "/a", "Y:80"),
        ("GET https://[::1]:8/", "/", "[::1]:8"),
        ("GET http://y", "/", "y"),
        ("GET http://y?b=c/d", "/?b=c/d", "y"),
        ("OPTIONS http://y", "*", "y"),  # RFC 9112, 3.2.4
        ("OPTIONS http://y/", "/", "y"),
        ("OPTIONS http://y?a", "/?a", "y"),
    ],
)
@pytest.mark.parametrize("fields", ["HTTP/1.1\r\nA: 1\r\nHost: x", "HTTP/1.0\r\nHost: x\r\nA: 1", "HTTP/1.0\r\nA: 1"])
def test_every_form_of_a_target_becomes_its_origin_form_and_its_host(
    line: str, target: str, host: str, fields: str
) -> None:
    head = request(f"{line} {fields}\r\n\r\n".encode())[0]
    assert head.target == target
    assert head.headers.get("host", "x") == host
    assert sorted(name for name, _ in head.headers.raw) in (["a", "host"], ["a"])


@pytest.mark.parametrize(
    "line",
    [
        *["GET foo", "GET *", "POST *", "HEAD *", "OPTIONS *a", "OPTIONS foo", "GET ?a", "GET #", "GET \\a", "GET a/b"],
        *["GET /a#b", "GET /#", "GET /a?b#c", "GET /a#b?c", 'GET /"', "GET /<a>", "GET /?a=<b>"],
        *["GET x:80", "GET x.example:443", "GET [::1]:80", "OPTIONS x:80"],
        *[
            "GET http:/y",
            "GET http:y",
            "GET http://",
            "GET http:///a",
            "GET http://?a",
            "GET http://:80/",
            "OPTIONS http://",
        ],
        *[
            "GET http://u@y/",
            "GET http://u:p@y/",
            "GET http://y:z/",
            "GET http://[::1/",
            "GET http://y,%/",
            "GET http://y#a",
        ],
        *[
            "GET http://y/a#b",
            "GET http://y?a#b",
            "GET http://y\\a",
            "GET ftp://y/",
            "GET ws://y/",
            "GET file:///a",
            "GET ://y/",
        ],
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_invalid_target_is_refused(line: str, version: str) -> None:
    error = refusal(f"{line} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
    assert isinstance(error, HTTPProtocolError)
    assert str(error) in ("not HTTP/1.1: invalid request-target", "not HTTP/1.1: invalid host in the request-target")
    assert error.status_hint == 400


@pytest.mark.parametrize("chunk", [b"5\nhello", b"g\r\n", b"2\r\nhello", b"1;a\nb\r\nx"])
def test_a_broken_chunk_is_refused(chunk: bytes) -> None:
    for reads in every_cut(UPLOAD[: UPLOAD.index(b"3\r\n")] + chunk + b"\r\n"):
        error = failure(ServerConnection, reads)
        assert isinstance(error, HTTPProtocolError)
        assert error.status_hint == 400


# --- Server: limits ------------------------------------------------------------------------------------------------


def test_the_head_of_a_request_is_bounded_at_every_cut() -> None:
    assert request(GET, max_head_bytes=len(GET))[0].target == "/a?b"
    error = refusal(GET, max_head_bytes=len(GET) - 1)
    assert isinstance(error, HeadTooLargeError)
    assert (str(error), error.limit) == (f"the head is larger than max_head_bytes ({len(GET) - 1})", len(GET) - 1)


@pytest.mark.parametrize("wire", [b"GET /" + b"a" * 100, b"G" * 101, b"GET / HTTP/1.1\r\nA: " + b" " * 100])
def test_a_head_without_an_end_is_refused_at_the_limit(wire: bytes) -> None:
    assert isinstance(refusal(wire, max_head_bytes=100), HeadTooLargeError)


def test_the_default_limits_are_the_documented_ones() -> None:
    assert (MAX_HEAD_BYTES, MAX_BODY_BYTES, MAX_PIPELINED_BYTES) == (32 << 10, 32 << 20, 64 << 10)


@pytest.mark.parametrize("wire", [POST, UPLOAD], ids=["sized", "chunked"])
def test_a_body_is_bounded_at_every_cut(wire: bytes) -> None:
    assert request(wire, max_body_bytes=5)[1] == b"hello"
    error = refusal(wire, max_body_bytes=4)
    assert isinstance(error, BodyTooLargeError)
    assert (str(error), error.limit) == ("the request's body is larger than max_body_bytes (4)", 4)


def test_a_body_announced_too_large_is_refused_before_it_comes() -> None:
    assert isinstance(failure(lambda: ServerConnection(max_body_bytes=4), [POST[:-5]]), BodyTooLargeError)


def test_the_body_of_each_request_is_counted_for_itself() -> None:
    connection = ServerConnection(max_body_bytes=5)
    for wire in (POST, UPLOAD, POST):
        assert message_of(connection, [wire]).body == b"hello"
        exchange(connection)


def test_the_head_of_a_chunk_in_a_request_is_bounded() -> None:
    before, head = UPLOAD[: UPLOAD.index(b"3\r\n")], b"3;" + b"a" * MAX_CHUNK_HEAD_BYTES
    wire = before + head
    # Every cut before it, in its first and in its last bytes; between them, all cuts leave the same to be counted.
    cuts = [*range(1, len(before) + 20), *range(len(wire) - 20, len(wire))]
    size = one_in(7)
    pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
    ways = [[wire], pieces, *([wire[:at], wire[at:]] for at in cuts)]
    errors = [failure(ServerConnection, reads) for reads in ways]
    assert {(type(error), str(error)) for error in errors} == {(HeadTooLargeError, str(errors[0]))}


def test_after_a_refusal_the_answer_closes_the_connection_and_nothing_more_is_read() -> None:
    connection = ServerConnection()
    with pytest.raises(HTTPProtocolError):
        events_of(connection, [b"GET /\r\n\r\n"])
    assert connection.can_respond
    wire = (
        connection.send_response(400, [("Connection", "keep-alive"), ("content-length", "0")]) + connection.send_end()
    )
    assert wire == b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert not connection.is_reusable
    with pytest.raises(HTTPProtocolError, match="the connection failed earlier"):
        events_of(connection, [GET])


def test_a_refusal_in_the_middle_of_the_answer_ends_reuse() -> None:
    connection = ServerConnection(max_body_bytes=4)
    events_of(connection, [UPLOAD[: UPLOAD.index(b"2\r\n")]])
    connection.send_response(200, [("content-length", "0")])
    connection.send_end()
    with pytest.raises(BodyTooLargeError):
        events_of(connection, [b"2\r\nlo\r\n0\r\n\r\n"])
    assert not connection.is_reusable


def test_a_head_request_that_is_refused_gets_an_answer_without_a_body() -> None:
    connection = ServerConnection(max_body_bytes=5)
    with pytest.raises(BodyTooLargeError):
        events_of(connection, [POST.replace(b"POST", b"HEAD").replace(b"5", b"9")])
    connection.send_response(413, [("content-length", "4")])
    assert connection.send_data(b"long") + connection.send_end() == b""


def test_a_request_whose_head_was_not_read_gets_an_answer_with_its_body() -> None:
    connection = ServerConnection(max_head_bytes=20)
    with pytest.raises(HeadTooLargeError):
        events_of(connection, [GET.replace(b"GET", b"HEAD")])
    connection.send_response(431, [("content-length", "4")])
    assert connection.send_data(b"long") + connection.send_end() == b"long"


# --- Server: the answer --------------------------------------------------------------------------------------------


def asked(wire: bytes = GET) -> ServerConnection:
    """A server that has read the request."""
    connection = ServerConnection()
    events_of(connection, [wire])
    return connection


def exchange(connection: ServerConnection) -> None:
    connection.send_response(200, [("content-length", "0")])
    connection.send_end()
    connection.start_next_cycle()


def test_an_answer_without_a_length_is_chunked() -> None:
    connection = asked()
    assert connection.send_response(200, []) == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert connection.send_data(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert connection.send_data(b"") == b""  # an empty chunk would end the body
    was_reusable = connection.is_reusable
    assert connection.send_end() == b"0\r\n\r\n"
    assert (was_reusable, connection.is_reusable) == (False, True)


def test_an_answer_with_a_length_is_sent_as_it_is() -> None:
    connection = asked()
    assert connection.send_response(200, [("Content-Length", "5")]) == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert connection.send_data(b"hel") + connection.send_data(b"lo") + connection.send_end() == b"hello"


def test_to_http_1_0_the_body_ends_with_the_connection() -> None:
    connection = asked(b"GET / HTTP/1.0\r\n\r\n")
    assert connection.send_response(200, []) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    assert connection.send_data(b"hello") + connection.send_end() == b"hello"
    assert not connection.is_reusable


@pytest.mark.parametrize(
    ("wire", "status"), [(GET.replace(b"GET", b"HEAD"), 200), (GET, 204), (GET, 304)], ids=["HEAD", "204", "304"]
)
def test_an_answer_without_a_body_drops_what_it_is_given(wire: bytes, status: int) -> None:
    connection = asked(wire)
    connection.send_response(status, [])
    assert connection.send_data(b"hello") + connection.send_end() == b""
    assert connection.is_reusable


def test_an_answer_to_head_has_the_fields_of_one_to_get() -> None:
    assert b"\r\nContent-Length: 5\r\n" in asked(GET.replace(b"GET", b"HEAD")).send_response(
        200, [("Content-Length", "5")]
    )


def test_after_close_the_connection_carries_nothing_more() -> None:
    connection = asked()
    assert b"\r\nconnection: close\r\n" in connection.send_response(200, [("content-length", "0")], close=True)
    connection.send_end()
    assert not connection.is_reusable
    with pytest.raises(HTTPUsageError, match="the connection must be closed"):
        connection.start_next_cycle()


def test_a_client_that_asks_to_close_is_obeyed() -> None:
    connection = asked(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert b"\r\nconnection: close\r\n" in connection.send_response(200, [("content-length", "0")])
    connection.send_end()
    assert not connection.is_reusable


@pytest.mark.parametrize(("status", "line"), [(200, b"200 OK"), (529, b"529 Overloaded"), (599, b"599 ")])
def test_a_status_has_its_reason_as_far_as_one_is_known(status: int, line: bytes) -> None:
    assert asked().send_response(status, []).startswith(b"HTTP/1.1 " + line + b"\r\n")


@pytest.mark.parametrize("status", [100, 199, 1000])
def test_a_status_that_is_no_final_answer_is_refused(status: int) -> None:
    with pytest.raises(HTTPUsageError, match=f"^invalid status of a response: {status}$"):
        asked().send_response(status, [])


def test_a_value_that_would_split_the_answer_is_refused_and_another_answer_may_be_sent() -> None:
    connection = asked()
    with pytest.raises(HTTPUsageError, match=r"^the value of location may not have '\\r' at position 1$"):
        connection.send_response(302, [("location", "/\r\nset-cookie: a=b")])
    could_respond = connection.can_respond
    assert connection.send_response(500, []).startswith(b"HTTP/1.1 500 ")
    assert (could_respond, connection.can_respond) == (True, False)


def test_more_or_less_than_the_length_announced_is_refused() -> None:
    connection = asked()
    connection.send_response(200, [("content-length", "5")])
    with pytest.raises(HTTPUsageError, match="Too much data for declared Content-Length"):
        connection.send_data(b"hello!")
    connection = asked()
    connection.send_response(200, [("content-length", "5")])
    with pytest.raises(HTTPUsageError, match="Too little data for declared Content-Length"):
        connection.send_end()


def test_an_answer_before_any_request_ends_with_the_connection() -> None:
    connection = ServerConnection()  # as to a client whose head did not come in time
    assert connection.send_response(408, []) == b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n"
    assert connection.send_data(b"late") + connection.send_end() == b"late"
    assert not connection.is_reusable


@pytest.mark.parametrize("wire", [GET, GET.replace(b"1.1", b"1.0")], ids=["chunked", "until the close"])
def test_data_and_the_end_are_refused_before_the_head_and_after_the_end(wire: bytes) -> None:
    connection = asked(wire)
    sends: list[Callable[[], bytes]] = [lambda: connection.send_data(b"x"), connection.send_end]
    for send in sends:
        with pytest.raises(HTTPUsageError, match=r"cannot be sent before the head of the response or "):
            send()
    connection.send_response(200, [])
    connection.send_end()
    for send in sends:
        with pytest.raises(HTTPUsageError, match=r"cannot be sent before the head of the response or "):
            send()


def test_a_second_head_is_refused() -> None:
    connection = asked()
    connection.send_response(200, [])
    with pytest.raises(HTTPUsageError, match=r"^a response head has already been sent$"):
        connection.send_response(200, [])


def test_data_that_were_refused_do_not_count() -> None:
    connection = asked()
    connection.send_response(200, [("content-length", "5")])
    with pytest.raises(HTTPUsageError):
        connection.send_data(b"hello!")
    assert connection.send_data(b"hello") + connection.send_end() == b"hello"


@pytest.mark.parametrize("fields", [[("content-length", "5")], []], ids=["and a length", "alone"])
def test_an_app_that_says_itself_that_its_answer_is_chunked_may(fields: list[tuple[str, str]]) -> None:
    connection = asked()
    wire = connection.send_response(200, [("transfer-encoding", "Chunked"), *fields, ("a", "b")])
    assert wire == b"HTTP/1.1 200 OK\r\na: b\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert connection.send_data(b"x") == b"1\r\nx\r\n"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("transfer-encoding", "gzip, chunked")], "unsupported Transfer-Encoding: only chunked can be sent"),
        ([("content-length", "-5")], "invalid Content-Length: '-5'"),
        ([("content-length", "")], "invalid Content-Length: ''"),
        ([("content-length", "²")], "invalid Content-Length: '²'"),
        ([("content-length", "5"), ("Content-Length", "5")], "invalid Content-Length: '5, 5'"),
        ([("a b", "c")], "invalid name of a header field: 'a b'"),
    ],
)
def test_an_answer_that_cannot_be_framed_is_refused_and_another_may_be_sent(
    fields: list[tuple[str, str]], words: str
) -> None:
    connection = asked()
    with pytest.raises(HTTPUsageError) as caught:
        connection.send_response(200, fields)
    assert str(caught.value) == words
    assert connection.send_response(500, []).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_never_has_a_body_is_not_chunked(status: int) -> None:
    assert b"chunked" not in asked().send_response(status, [("transfer-encoding", "chunked")])


def test_an_answer_to_head_says_that_one_to_get_would_be_chunked() -> None:
    connection = asked(GET.replace(b"GET", b"HEAD"))
    assert connection.send_response(200, []).endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("fields", [[], [("content-length", "5")]], ids=["no length", "a length"])
@pytest.mark.parametrize("status", [200, 204, 304, 404])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_h11_reads_every_answer_as_it_was_meant(
    method: str, version: str, status: int, fields: list[tuple[str, str]]
) -> None:
    connection = asked(f"{method} / HTTP/{version}\r\nhost: x\r\n\r\n".encode())
    wire = (
        connection.send_response(status, [*fields, ("a", "b")]) + connection.send_data(b"hello") + connection.send_end()
    )
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(wire)
    peer.receive_data(b"")
    head, body = peer.next_event(), b""
    assert isinstance(head, h11.Response)
    assert (head.status_code, head.headers[len(fields)]) == (status, (b"a", b"b"))
    while isinstance(event := peer.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == (b"" if method == "HEAD" or status in (204, 304) else b"hello")
    assert (peer.their_state is h11.DONE) == connection.is_reusable == (version == "1.1")


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_h11_reads_a_request_as_it_was_meant(body: bytes) -> None:
    peer, fields = h11.Connection(h11.SERVER), [("x-a", "b \t c"), ("X-Key", "é"), ("x-a", "")]
    peer.receive_data(ClientConnection("x:1").send_request("POST", "/v1?a=b", fields, body))
    head = peer.next_event()
    assert isinstance(head, h11.Request)
    assert (head.method, head.target) == (b"POST", b"/v1?a=b")
    sent = [("host", "x:1"), *fields, ("content-length", str(len(body)))]
    assert head.headers.raw_items() == [(name.encode(), value.encode("latin-1")) for name, value in sent]
    events = [peer.next_event() for _ in range(2 if body else 1)]
    assert [bytes(event.data) for event in events if isinstance(event, h11.Data)] == ([body] if body else [])
    assert isinstance(events[-1], h11.EndOfMessage)


@pytest.mark.parametrize("value", ["close", "Close", "x, close", "close,x"])
def test_an_app_that_asks_to_close_is_obeyed(value: str) -> None:
    connection = asked()
    wire = connection.send_response(200, [("Connection", value), ("content-length", "0")])
    assert wire == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    connection.send_end()
    assert not connection.is_reusable


def test_an_offer_to_upgrade_is_ignored() -> None:
    connection = asked(GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"))
    assert events_of(connection, [GET]) == []
    exchange(connection)
    assert message_of(connection, [b"\r\n"]).is_whole


# --- Server: one request after another -----------------------------------------------------------------------------


@pytest.mark.parametrize("between", [b"", b"\r\n"])
@pytest.mark.parametrize("first", [GET, POST, UPLOAD], ids=["no body", "sized", "chunked"])
def test_requests_that_come_at_once_are_read_one_after_another_at_every_cut(first: bytes, between: bytes) -> None:
    for reads in every_cut(first + between + POST):
        connection, came = ServerConnection(), b""
        for read in [*reads, b""]:
            connection.receive_data(read)
            while (event := connection.next_event()) not in (None, ConnectionClosed()):
                came += event.data if isinstance(event, Data) else b""
                came += event.method.encode() if isinstance(event, Request) else b""
                if event == EndOfMessage():
                    exchange(connection)
        assert came == (b"GET" if first is GET else b"POSThello") + b"POSThello", reads


def test_the_next_request_waits_until_this_one_is_answered() -> None:
    connection = ServerConnection()
    assert len(events_of(connection, [GET + POST])) == 2
    exchange(connection)
    connection.receive_data(b"\r\n")
    head = connection.next_event()
    assert isinstance(head, Request)
    assert head.method == "POST"


@pytest.mark.parametrize("first", [GET, POST, UPLOAD], ids=["no body", "sized", "chunked"])
def test_a_client_far_ahead_of_its_answers_fills_the_connection(first: bytes) -> None:
    connection = ServerConnection(max_pipelined_bytes=len(POST))
    fullness = []
    for read in (first + POST, b"P"):
        events_of(connection, [read])
        fullness.append(connection.is_full)
    exchange(connection)
    assert [*fullness, connection.is_full] == [False, True, False]


def test_a_body_under_way_never_counts_as_ahead() -> None:
    connection = ServerConnection(max_pipelined_bytes=1)
    events_of(connection, [POST[:-1]])
    assert not connection.is_full


def test_a_connection_is_idle_until_the_first_byte_of_a_request() -> None:
    connection = ServerConnection()
    idleness = [connection.is_idle]
    for read in (b"\r\n", b"G", GET[1:]):
        events_of(connection, [read])
        idleness.append(connection.is_idle)
    exchange(connection)
    assert [*idleness, connection.is_idle] == [True, True, False, False, True]
