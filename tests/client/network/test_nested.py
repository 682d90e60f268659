"""rawsse.client.network.nested: TLS over a stream made of bytes in memory. Real proxies are in `test_net_proxies.py`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from support.clock import run, ticks
from support.sockets import LOCALHOST, trusting

from rawsse.client.network.nested import NestedStream, start_tls
from rawsse.client.network.net import FakeStream, Stream


class Peer:
    """A `Stream` to a TLS server in memory that sends back what it gets, in capitals; read in pieces of `step` bytes."""

    def __init__(self, step: int = 65536, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(LOCALHOST)
        context.maximum_version = version
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._step = step
        self.is_ready = False
        self._is_closed = False
        self.is_aborted = False

    async def write(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self.is_ready:
                self._tls.do_handshake()
                self.is_ready = True
            while True:
                self._tls.write(self._tls.read(65536).upper())
        except ssl.SSLWantReadError:
            pass

    def read_nowait(self) -> bytes | None:
        return self._outgoing.read(self._step) or (b"" if self._is_closed else None)

    async def read(self, max_bytes: int) -> bytes:
        del max_bytes
        data = self.read_nowait()
        assert data is not None, "nothing would ever come"
        return data

    def abort(self) -> None:
        self.is_aborted = True

    def close(self, *, politely: bool) -> None:
        if politely:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
        self._is_closed = True


async def opened(peer: Peer) -> NestedStream:
    return await start_tls(peer, trusting().get(), "localhost")


versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@versions
@pytest.mark.parametrize("step", [1, 2, 5, 100, 65536])
def test_bytes_go_out_and_come_back_however_they_are_cut(step: int, version: ssl.TLSVersion) -> None:
    async def story() -> bytes:
        stream: Stream = await opened(Peer(step, version))
        await stream.write(b"hello")
        return await stream.read(3) + await stream.read(65536)

    assert run(story()) == b"HELLO"


@versions
def test_the_handshake_is_whole_for_both_sides_before_anything_else_is_said(version: ssl.TLSVersion) -> None:
    async def story() -> bool:
        peer = Peer(version=version)
        await opened(peer)
        return peer.is_ready

    assert run(story())


def test_much_goes_out_and_comes_back() -> None:
    async def story() -> bytes:
        stream, answer = await opened(Peer()), bytearray()
        await stream.write(b"x" * 1_000_000)
        while len(answer) < 1_000_000:
            answer += await stream.read(65536)
        return bytes(answer)

    assert run(story()) == b"X" * 1_000_000


def test_a_stream_can_be_looked_at_without_waiting() -> None:
    async def story() -> list[bytes | None]:
        stream = await opened(Peer(step=7))
        looks = [stream.read_nowait()]
        await stream.write(b"hello")
        return [*looks, stream.read_nowait(), stream.read_nowait()]

    assert run(story()) == [None, b"HELLO", None]


@versions
@pytest.mark.parametrize("politely", [False, True])
def test_a_peer_that_closes_is_an_empty_read_with_and_without_goodbye(politely: bool, version: ssl.TLSVersion) -> None:
    async def story() -> list[bytes | None]:
        peer = Peer(version=version)
        stream = await opened(peer)
        await stream.write(b"bye")
        peer.close(politely=politely)
        return [await stream.read(10), await stream.read(10), await stream.read(10), stream.read_nowait()]

    assert run(story()) == [b"BYE", b"", b"", b""]


def test_a_peer_that_closes_is_seen_without_waiting() -> None:
    async def story() -> bytes | None:
        peer = Peer()
        stream = await opened(peer)
        peer.close(politely=False)
        return stream.read_nowait()

    assert run(story()) == b""


def test_abort_ends_the_stream_below() -> None:
    async def story() -> bool:
        peer = Peer()
        (await opened(peer)).abort()
        return peer.is_aborted

    assert run(story())


@pytest.mark.parametrize("chunks", [[], [b"HTTP/1.1 400 No\r\n\r\n"], [b"\x15\x03\x01\0\x02\x02\x28"]])
def test_a_handshake_that_fails_aborts_the_stream_below(chunks: list[bytes]) -> None:
    below = FakeStream(chunks)
    with pytest.raises(ssl.SSLError):
        run(start_tls(below, trusting().get(), "localhost"))
    assert below.is_aborted


def test_another_name_is_refused() -> None:
    peer = Peer()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        run(start_tls(peer, trusting().get(), "api.example"))
    assert peer.is_aborted


@pytest.mark.parametrize("host", ["", ".example"])
def test_a_host_that_can_be_none_aborts_the_stream_below(host: str) -> None:
    below = FakeStream()
    with pytest.raises(ValueError, match=r"server_hostname|label empty"):
        run(start_tls(below, trusting().get(), host))
    assert below.is_aborted


def test_a_handshake_that_is_cancelled_aborts_the_stream_below() -> None:
    async def story() -> bool:
        below = FakeStream(end=None)
        task = asyncio.create_task(start_tls(below, trusting().get(), "localhost"))
        await ticks(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return below.is_aborted

    assert run(story())


def test_bytes_that_were_changed_on_the_way_are_an_os_error() -> None:
    async def story() -> None:
        peer = Peer()
        stream = await opened(peer)
        stream.take(b"\x17\x03\x03\0\x20" + b"x" * 32)
        await stream.read(10)

    with pytest.raises(OSError, match=r"(?i)bad.record.mac"):
        run(story())
