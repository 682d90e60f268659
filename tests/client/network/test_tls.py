"""rawsse.client.network.tls: TLS over a link made of bytes in memory. Real connections are in `test_link.py` and
`test_connect.py`."""

from __future__ import annotations

import contextlib
import math
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from support.sockets import LOCALHOST, trusting

from rawsse.client.network.link import Aborted, Expired, drive
from rawsse.client.network.tls import TLSLink, start_tls


class Peer:
    """A link to a TLS server in memory that sends back what it gets, in capitals; read in pieces of `step` bytes."""

    def __init__(self, step: int = 65536, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(LOCALHOST)
        context.maximum_version = version
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self.outgoing, server_side=True)
        self.step = step
        self.is_ready = False
        self.is_aborted = False
        self.end: bytes | None = None
        self.alert = ""  # what the client said of the handshake
        self.error: Exception | None = None
        self.push: Callable[[], None] = lambda: None
        """Tell the client that there is something to read."""

    async def write(self, data: bytes, deadline: float) -> None:
        del deadline
        self._incoming.write(data)
        try:
            if not self.is_ready:
                self.tls.do_handshake()
                self.is_ready = True
            while True:
                self.tls.write(self.tls.read(65536).upper())
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            self.alert = str(exc)

    def read_ready(self) -> bytes | None:
        if self.is_aborted:
            raise Aborted
        if self.error is not None:
            raise self.error
        return self.outgoing.read(self.step) or self.end

    async def read(self, deadline: float) -> bytes:
        del deadline
        if (data := self.read_ready()) is None:
            raise Expired
        return data

    def abort(self) -> None:
        self.is_aborted = True

    def watch(self, callback: Callable[[], None], *, soon: bool = False) -> None:
        self.push = callback

    def close(self, *, politely: bool) -> None:
        if politely:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
        self.end = b""


def opened(peer: Any) -> TLSLink:
    return drive(start_tls(peer, trusting().get(), "localhost", math.inf))


def write(link: TLSLink, data: bytes) -> None:
    drive(link.write(data, math.inf))


def read(link: TLSLink) -> bytes:
    return drive(link.read(math.inf))


versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])

# --- Reading and writing -------------------------------------------------------------------------------------------


@versions
@pytest.mark.parametrize("step", [1, 2, 5, 100, 65536])
def test_bytes_go_out_and_come_back_however_they_are_cut(step: int, version: ssl.TLSVersion) -> None:
    link = opened(Peer(step, version))
    for word in (b"hello", b"again"):
        write(link, word)
        assert read(link) == word.upper()


@versions
def test_the_handshake_is_whole_for_both_sides_before_anything_else_is_said(version: ssl.TLSVersion) -> None:
    peer = Peer(version=version)
    opened(peer)
    assert peer.is_ready


def test_much_goes_out_and_comes_back() -> None:
    link, answer = opened(Peer()), bytearray()
    write(link, b"x" * 1_000_000)
    while len(answer) < 1_000_000:
        answer += read(link)
    assert answer == b"X" * 1_000_000


def test_all_records_of_one_read_are_one_piece() -> None:
    peer = Peer()
    link = opened(peer)
    for word in (b"one ", b"two ", b"three"):
        peer.tls.write(word)
    assert read(link) == b"one two three"


def test_what_has_come_is_there_without_waiting() -> None:
    link = opened(Peer(step=7))
    looks = [link.read_ready()]
    write(link, b"hello")
    assert [*looks, link.read_ready(), link.read_ready()] == [None, b"HELLO", None]


def test_a_read_that_is_out_of_time_loses_nothing() -> None:
    peer = Peer()
    link = opened(peer)
    peer.tls.write(b"hello")
    record = peer.outgoing.read()
    peer.outgoing.write(record[:9])
    with pytest.raises(Expired):
        read(link)
    peer.outgoing.write(record[9:])
    assert read(link) == b"hello"


@versions
@pytest.mark.parametrize("politely", [False, True])
def test_a_peer_that_closes_is_an_empty_read_with_and_without_close_notify(
    politely: bool, version: ssl.TLSVersion
) -> None:
    peer = Peer(version=version)
    link = opened(peer)
    write(link, b"bye")
    peer.close(politely=politely)
    assert [read(link), read(link), read(link), link.read_ready()] == [b"BYE", b"", b"", b""]


def test_close_notify_is_the_end_although_the_connection_stays_open() -> None:
    peer = Peer()
    link = opened(peer)
    peer.close(politely=True)
    peer.end = None
    assert [link.read_ready(), link.read_ready(), read(link)] == [b"", b"", b""]


@pytest.mark.parametrize("politely", [False, True])
def test_a_peer_that_closes_is_seen_without_waiting(politely: bool) -> None:
    peer = Peer()
    link = opened(peer)
    peer.close(politely=politely)
    assert link.read_ready() == b""


def test_abort_ends_the_link_below() -> None:
    peer = Peer()
    link = opened(peer)
    link.abort()
    assert peer.is_aborted
    with pytest.raises(Aborted):
        read(link)


# --- What goes wrong -----------------------------------------------------------------------------------------------


class Silent(Peer):
    """A peer whose answer to a handshake is these bytes."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.written = b""
        self.outgoing.write(answer)
        self.end = b""

    async def write(self, data: bytes, deadline: float) -> None:
        self.written += data


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 No\r\n\r\n", b"SSH-2.0", b"\x15\x03\x01\0\x02\x02\x28"], ids=repr
)
def test_a_handshake_that_fails_is_an_os_error(answer: bytes) -> None:
    with pytest.raises(ssl.SSLError) as caught:
        opened(Silent(answer))
    assert isinstance(caught.value, OSError)


def test_another_name_is_refused_and_the_peer_is_told() -> None:
    peer = Peer()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        drive(start_tls(peer, trusting().get(), "api.example", math.inf))
    assert "alert" in peer.alert


@pytest.mark.parametrize("host", ["", ".example"])
def test_a_host_that_cannot_be_one_is_a_value_error(host: str) -> None:
    with pytest.raises(ValueError, match=r"server_hostname|label empty"):
        drive(start_tls(Peer(), trusting().get(), host, math.inf))


BROKEN = b"\x17\x03\x03\0\x20" + b"x" * 32


def test_bytes_that_were_changed_on_the_way_are_an_os_error_now_and_later() -> None:
    peer = Peer()
    link = opened(peer)
    peer.outgoing.write(BROKEN)
    for _ in range(2):
        with pytest.raises(OSError, match=r"(?i)bad.record.mac"):
            read(link)


def test_what_came_before_them_is_read_first() -> None:
    peer = Peer()
    link = opened(peer)
    peer.tls.write(b"hello")
    peer.outgoing.write(BROKEN)
    assert read(link) == b"hello"
    with pytest.raises(OSError, match=r"(?i)bad.record.mac"):
        link.read_ready()


# --- Pushing -------------------------------------------------------------------------------------------------------


class Sink:
    """Where a link pushes to."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.ended: list[Exception | None] = []

    def receive(self, data: bytes) -> None:
        self.heard.append(data)


def pushed(peer: Peer, link: TLSLink) -> Sink:
    sink = Sink()
    link.push_to(sink.receive, sink.ended.append)
    return sink


@pytest.mark.parametrize("step", [1, 7, 65536])
def test_plaintext_is_pushed_in_order_and_what_came_before_first(step: int) -> None:
    peer = Peer()
    link = opened(peer)
    peer.tls.write(b"ahead ")
    peer.step = step
    sink = pushed(peer, link)
    for word in (b"one ", b"two"):
        peer.tls.write(word)
        peer.push()
    assert sink.heard == [b"ahead ", b"one ", b"two"]


def test_plaintext_that_came_with_the_last_read_is_pushed_first() -> None:
    peer = Peer()
    link = opened(peer)
    peer.tls.write(b"ahead")
    link.take(peer.outgoing.read())
    assert pushed(peer, link).heard == [b"ahead"]


@pytest.mark.parametrize("politely", [False, True])
@pytest.mark.parametrize("word", [b"", b"bye"])
def test_the_end_is_pushed_once(word: bytes, politely: bool) -> None:
    peer = Peer()
    link = opened(peer)
    sink = pushed(peer, link)
    if word:
        peer.tls.write(word)
    peer.close(politely=politely)
    peer.push()
    assert sink.heard == [piece for piece in (word,) if piece] + [b""]
    assert sink.ended == [None]


def test_an_end_that_came_before_is_pushed_too() -> None:
    peer = Peer()
    link = opened(peer)
    peer.close(politely=True)
    peer.end = None
    assert read(link) == b""
    sink = pushed(peer, link)
    assert (sink.heard, sink.ended) == ([b""], [None])


def test_after_the_end_the_link_below_has_nothing_to_say() -> None:
    peer = Peer()
    link = opened(peer)
    sink = pushed(peer, link)
    peer.close(politely=True)
    peer.push()
    peer.error = ConnectionResetError()
    peer.push()
    assert sink.ended == [None]


def test_the_link_below_reports_a_connection_that_is_lost() -> None:
    peer = Peer()
    sink = pushed(peer, opened(peer))
    peer.error = ConnectionResetError()
    peer.push()
    assert (sink.heard, sink.ended) == ([], [peer.error])


def test_bytes_that_were_changed_raise_after_what_came_before_them() -> None:
    peer = Peer()
    link = opened(peer)
    sink = pushed(peer, link)
    peer.tls.write(b"hello")
    peer.outgoing.write(BROKEN)
    peer.push()
    assert sink.heard == [b"hello"]
    assert [type(error) for error in sink.ended] == [ssl.SSLError]
    assert peer.is_aborted


def test_what_is_wrong_already_when_pushing_begins_is_given_to_the_sink() -> None:
    peer = Peer()
    link = opened(peer)
    peer.tls.write(b"hello")
    peer.outgoing.write(BROKEN)
    assert read(link) == b"hello"
    sink = pushed(peer, link)
    assert [type(error) for error in sink.ended] == [ssl.SSLError]
    assert (sink.heard, peer.is_aborted) == ([], True)


def test_a_sink_that_fails_at_what_came_before_aborts_the_link_and_is_told() -> None:
    peer = Peer()
    link = opened(peer)
    peer.tls.write(b"ahead")
    link.take(peer.outgoing.read())
    ended: list[Exception | None] = []
    link.push_to({}.__getitem__, ended.append)  # type: ignore[arg-type]
    assert [repr(error) for error in ended] == ["KeyError(b'ahead')"]
    assert peer.is_aborted


def test_nothing_is_pushed_after_an_abort() -> None:
    peer = Peer()
    link = opened(peer)
    heard: list[bytes] = []

    def leave(data: bytes) -> None:
        heard.append(data)
        link.abort()

    ended: list[Exception | None] = []
    link.push_to(leave, ended.append)
    peer.tls.write(b"hello")
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.push()
    assert (heard, ended) == ([b"hello"], [None])


def test_while_it_is_paused_nothing_is_pushed_but_the_news_of_an_abort() -> None:
    peer = Peer()
    link = opened(peer)
    sink = pushed(peer, link)
    link.pause()
    peer.tls.write(b"one ")
    peer.push()
    assert sink.heard == []
    link.resume()
    peer.push()
    assert sink.heard == [b"one "]
    link.pause()
    peer.tls.write(b"two")
    link.abort()
    peer.push()
    assert (sink.heard, sink.ended) == ([b"one "], [None])


def test_an_abort_of_the_link_below_is_one_of_the_link() -> None:
    peer = Peer()
    sink = pushed(peer, opened(peer))
    peer.abort()
    peer.push()
    assert (sink.heard, sink.ended) == ([], [None])
