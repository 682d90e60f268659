"""rawsse.client.network.net: TCP and TLS on real sockets. Finding an address is tried in `test_net_addresses.py`, the
fake stream and waiting in `test_net_waiting.py`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, cast

import pytest
from support.clock import run, ticks
from support.sockets import LOCALHOST, failure, serving, shout, trusting

from rawsse.client.network import net
from rawsse.client.network.net import READ_BYTES, connect
from rawsse.client.network.route import Origin, Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import APIConnectionError, CertificateError, ConfigurationError

# --- Real sockets --------------------------------------------------------------------------------------------------


def test_bytes_go_out_and_come_back() -> None:
    async def story() -> tuple[bytes, bytes]:
        async with serving(shout) as origin:
            stream = await connect(Route(origin), TLSContext())
            await stream.write(b"hello")
            first = await stream.read(3)
            rest = await stream.read(READ_BYTES)
            stream.abort()
            return first, rest

    assert run(story()) == (b"HEL", b"LO")


def test_a_peer_that_closes_is_an_empty_read() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    async def story() -> bytes:
        async with serving(hang_up) as origin:
            stream = await connect(Route(origin), TLSContext())
            data = await stream.read(READ_BYTES)
            stream.abort()
            return data

    assert run(story()) == b""


def test_a_peer_that_resets_is_an_os_error() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def story() -> None:
        async with serving(reset) as origin:
            stream = await connect(Route(origin), TLSContext())
            await stream.write(b"x")
            with pytest.raises(ConnectionResetError):
                await stream.read(READ_BYTES)
            stream.abort()

    run(story())


def test_abort_ends_the_connection_at_once_and_may_be_repeated() -> None:
    async def story() -> bytes:
        heard = asyncio.get_running_loop().create_future()

        async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            heard.set_result(await reader.read(10))

        async with serving(listen) as origin:
            stream = await connect(Route(origin), TLSContext())
            stream.abort()
            stream.abort()
            data: bytes = await heard
            return data

    assert run(story()) == b""


def test_nobody_there_is_named_with_the_system_s_error_as_its_cause() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]

    with pytest.raises(
        APIConnectionError, match=f"cannot connect to http://127.0.0.1:{port}: Connection refused"
    ) as caught:
        run(connect(Route(Origin("http", "127.0.0.1", port)), TLSContext()))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_a_name_that_is_nobody_s_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(APIConnectionError, match=r"cannot connect to http://nobody\.invalid: .*not known"):
        asyncio.run(
            connect(Route(Origin("http", "nobody.invalid", 80)), TLSContext())
        )  # a thread asks: no virtual clock


def test_a_name_that_no_name_server_could_take_is_named() -> None:
    with pytest.raises(APIConnectionError, match=r"cannot connect to http://a{80}: "):
        raise failure(connect(Route(Origin("http", "a" * 80, 80)), TLSContext()))


# --- Back-pressure, both ways --------------------------------------------------------------------------------------


def test_a_peer_that_sends_much_is_slowed_down_until_it_is_read() -> None:
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _round in range(400):
            writer.write(b"x" * 50_000)
            await writer.drain()
            sent += 50_000
        writer.close()
        await writer.wait_closed()

    async def story() -> tuple[int, int]:
        async with serving(pour) as origin:
            stream = await connect(Route(origin), TLSContext())
            await asyncio.sleep(1)
            before, received = sent, 0
            while data := await stream.read(READ_BYTES):
                received += len(data)
            stream.abort()
            return before, received

    before, received = run(story())
    assert before < received == 20_000_000


def test_a_peer_that_reads_slowly_makes_the_writer_wait() -> None:
    start = asyncio.Event()

    async def drink_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await start.wait()
        count = 0
        while count < 20_000_001:
            count += len(await reader.read(1_000_000))
        writer.write(b"%d" % count)
        await writer.drain()
        await reader.read()

    async def story() -> bytes:
        async with serving(drink_late) as origin:
            stream = await connect(Route(origin), TLSContext())
            writing = asyncio.create_task(stream.write(b"x" * 20_000_000))
            await asyncio.sleep(1)
            assert not writing.done()
            start.set()
            await writing
            await stream.write(b"x")
            data = await stream.read(READ_BYTES)
            stream.abort()
            return data

    assert run(story()) == b"20000001"


@pytest.mark.parametrize("reset", [False, True])
def test_a_writer_that_waits_hears_that_the_connection_is_gone(reset: bool) -> None:
    async def story() -> None:
        async def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(1)
            if reset:
                writer.transport.abort()

        async with serving(leave) as origin:
            stream = await connect(Route(origin), TLSContext())
            writing = asyncio.create_task(stream.write(b"x" * 20_000_000))
            if not reset:
                await asyncio.sleep(0.5)
                stream.abort()
            with pytest.raises(ConnectionError):
                await writing
            with pytest.raises(ConnectionError):
                await stream.write(b"more")
            stream.abort()

    run(story())


def test_what_came_before_a_reset_can_still_be_read() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"too much")
        await writer.drain()
        await asyncio.sleep(1)
        writer.transport.abort()  # with much of what was sent unread: a reset

    async def story() -> bytes:
        async with serving(refuse) as origin:
            stream = await connect(Route(origin), TLSContext())
            with pytest.raises(ConnectionError):
                await stream.write(b"x" * 20_000_000)
            data = await stream.read(READ_BYTES)
            with pytest.raises(ConnectionError):
                await stream.read(READ_BYTES)
            return data

    assert run(story()) == b"too much"


def test_a_stream_can_be_looked_at_without_waiting() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"hello")
        await writer.drain()
        await reader.read(1)

    async def story() -> list[bytes | None]:
        async with serving(greet) as origin:
            stream = await connect(Route(origin), TLSContext())
            looks = [stream.read_nowait()]
            await stream.write(b"x")
            await asyncio.sleep(1)
            looks += [stream.read_nowait(), stream.read_nowait()]
            await stream.write(b"x")
            await asyncio.sleep(1)
            looks.append(stream.read_nowait())
            stream.abort()
            return looks

    assert run(story()) == [None, b"hello", None, b""]


def test_a_connection_that_the_peer_ended_while_it_was_written_to_can_be_aborted() -> None:
    async def drink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write_eof()
        await asyncio.sleep(1)
        while len(await reader.read(1_000_000)):
            pass

    async def story() -> bytes:
        async with serving(drink) as origin:
            stream = await connect(Route(origin), TLSContext())
            writing = asyncio.create_task(stream.write(b"x" * 20_000_000))
            data = await stream.read(READ_BYTES)
            with contextlib.suppress(ConnectionError):
                await writing
            await asyncio.sleep(2)  # all of it was sent: asyncio has closed the transport by itself
            stream.abort()
            return data

    assert run(story()) == b""


def test_abort_wakes_whoever_reads() -> None:
    async def story() -> bytes:
        async with serving(shout) as origin:
            stream = await connect(Route(origin), TLSContext())
            reading = asyncio.create_task(stream.read(READ_BYTES))
            await ticks(3)
            stream.abort()
            return await reading

    assert run(story()) == b""


@pytest.mark.parametrize(
    ("lost", "cls"), [(ConnectionResetError("x"), ConnectionResetError), (ValueError("x"), ConnectionAbortedError)]
)
def test_whatever_a_transport_says_of_its_end_a_reader_gets_an_os_error(lost: Exception, cls: type[OSError]) -> None:
    stream = net.TCPStream()
    stream.connection_lost(lost)
    with pytest.raises(cls, match="x"):
        stream.read_nowait()


def test_a_stream_that_was_never_connected_can_be_aborted() -> None:
    net.TCPStream().abort()


# --- TLS -----------------------------------------------------------------------------------------------------------


def test_tls_speaks_http_1_1_only() -> None:
    async def story() -> tuple[bytes, str | None]:
        chosen: list[str | None] = []

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
            await shout(reader, writer)

        async with serving(note, tls=True) as origin:
            context = TLSContext()
            stream = await connect(Route(origin), context)
            await stream.write(b"hello")
            data = await stream.read(READ_BYTES)
            stream.abort()
            return data, chosen[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(LOCALHOST))
        assert run(story()) == (b"HELLO", "http/1.1")


def test_a_certificate_that_nobody_signed_is_refused() -> None:
    async def story() -> None:
        async with serving(shout, tls=True) as origin:
            await connect(Route(origin), TLSContext(trust_env=False))

    words = (
        r"cannot connect to https://127.*: its certificate is not trusted: self-signed certificate; if .*SSL_CERT_FILE"
    )
    with pytest.raises(CertificateError, match=words) as caught:
        raise failure(story())
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert not caught.value.may_heal


def test_a_peer_that_does_not_speak_tls_is_refused() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async def story() -> None:
        async with serving(refuse) as origin:
            await connect(Route(origin._replace(scheme="https")), trusting())

    words = "cannot connect to https://127.*: it does not speak TLS there: is it http:// and not https://"
    with pytest.raises(APIConnectionError, match=words):
        raise failure(story())


@pytest.mark.parametrize(
    ("greeting", "words"), [(b"SSH-2.0", "it does not speak TLS there"), (b"", "")], ids=["speaks first", "closes"]
)
def test_a_peer_that_does_not_wait_for_the_handshake_is_refused(greeting: bytes, words: str) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async def story() -> None:
        async with serving(greet) as origin:
            await connect(Route(origin._replace(scheme="https")), trusting())

    with pytest.raises(APIConnectionError, match=f"cannot connect to https://127.*: {words}"):
        raise failure(story())


@pytest.mark.parametrize(
    ("sent", "words"), [(b"SSH-2.0", "sent something before TLS began: b'SSH-2.0'"), (b"", "closed")]
)
def test_what_came_before_tls_begins_is_not_lost(sent: bytes, words: str) -> None:
    stream = net.TCPStream()
    stream.data_received(sent) if sent else stream.eof_received()
    with pytest.raises(ConnectionResetError, match=f"the peer {words}"):
        raise failure(stream.start_tls(trusting().get(), "localhost"))


def test_a_handshake_without_an_answer_lasts_as_long_as_the_caller_says() -> None:
    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    async def story() -> float:
        loop = asyncio.get_running_loop()
        async with serving(listen) as origin:
            before = loop.time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3600):
                    await connect(Route(origin._replace(scheme="https")), trusting())
            return loop.time() - before

    assert run(story()) == 3600


def test_a_context_that_offers_http_2_is_named_and_the_connection_dropped() -> None:
    async def story() -> bool:
        heard = asyncio.get_running_loop().create_future()

        async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):  # there may have been something that the client had not read
                await reader.read()
            heard.set_result(True)

        context = ssl.create_default_context(cafile=LOCALHOST)
        context.set_alpn_protocols(["h2"])
        async with serving(listen, tls=True) as origin:
            words = r"the ssl_context offers 'h2', which .*\(\[\"http/1\.1\"\]\)"
            with pytest.raises(ConfigurationError, match=words):
                await connect(Route(origin), TLSContext(context))
            is_over: bool = await heard
            return is_over

    assert run(story())


def test_certificates_that_cannot_be_read_are_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    with pytest.raises(ConfigurationError, match="cannot read the certificates in SSL_CERT_FILE"):
        raise failure(connect(Route(Origin("https", "127.0.0.1", 9)), TLSContext()))


@pytest.mark.parametrize("host", ["", ".example"])
def test_a_host_that_can_be_none_is_named(host: str) -> None:
    with pytest.raises(APIConnectionError, match="cannot connect to https://"):
        raise failure(connect(Route(Origin("https", host, 1)), trusting()))


# --- What the operating system is asked for ------------------------------------------------------------------------


def options_of(stream: object) -> list[int]:
    sock = cast(Any, stream)._transport.get_extra_info("socket")
    names = ["TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT"]
    timing = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
    switches = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY)]
    return timing + [int(sock.getsockopt(*switch) != 0) for switch in switches]


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_the_system_looks_after_a_silent_connection_and_sends_small_pieces_at_once(*, tls: bool) -> None:
    async def story() -> list[int]:
        async with serving(shout, tls=tls) as origin:
            stream = await connect(Route(origin), trusting())
            options = options_of(stream)
            stream.abort()
            return options

    assert run(story()) == [60, 60, 5, 1, 1]


def test_an_option_that_the_system_does_not_know_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_KEEPIDLE", raising=False)
    monkeypatch.setattr(socket, "TCP_KEEPCNT", 12345)

    async def story() -> bytes:
        async with serving(shout) as origin:
            stream = await connect(Route(origin), TLSContext())
            await stream.write(b"x")
            data = await stream.read(1)
            stream.abort()
            return data

    assert run(story()) == b"X"


@pytest.mark.real
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_uvloop_carries_a_stream_as_well(*, tls: bool) -> None:
    uvloop = pytest.importorskip("uvloop", reason="another event loop: the extra `speed`")

    async def story() -> bytes:
        async with serving(shout, tls=tls) as origin:
            stream = await connect(Route(origin), trusting())
            await stream.write(b"hello")
            data = await stream.read(READ_BYTES)
            stream.abort()
            return data

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()) == b"HELLO"
