"""rawsse.client.network.net: through proxies on real sockets: forwarding, tunnels, and tunnels within TLS."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
from support.clock import run, ticks
from support.sockets import ConnectProxy, Handler, failure, serving, shout, trusting

from rawsse.client.network import net
from rawsse.client.network.net import READ_BYTES, connect
from rawsse.client.network.route import Origin, Proxy, Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import APIConnectionError, CertificateError, ConfigurationError, ProxyError

API = Origin("https", "api.example", 443)

both = pytest.mark.parametrize("tls", [False, True], ids=["http proxy", "https proxy"])


@contextlib.asynccontextmanager
async def tunnelled(proxy: Handler, *, tls: bool = False, origin: Handler = shout) -> AsyncIterator[Route]:
    """The route to an https origin through this proxy."""
    async with serving(origin, tls=True) as there, serving(proxy, tls=tls) as here:
        yield Route(there, Proxy(here, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="))


async def talk(route: Route, *, tls: TLSContext | None = None) -> bytes:
    stream = await connect(route, tls or trusting())
    await stream.write(b"hello")
    data = await stream.read(READ_BYTES)
    stream.abort()
    return data


# --- There and back ------------------------------------------------------------------------------------------------


@both
def test_an_https_origin_is_reached_through_a_tunnel(*, tls: bool) -> None:
    proxy = ConnectProxy()

    async def story() -> tuple[Route, bytes]:
        async with tunnelled(proxy, tls=tls) as route:
            return route, await talk(route)

    route, data = run(story())
    assert data == b"HELLO"
    fields = "user-agent: rawsse\r\nproxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    at = f"127.0.0.1:{route.origin.port}"
    assert proxy.requests == [f"CONNECT {at} HTTP/1.1\r\nhost: {at}\r\n{fields}\r\n\r\n".encode()]


@both
def test_a_request_to_an_http_origin_is_the_proxy_s_to_read(*, tls: bool) -> None:
    async def story() -> bytes:
        async with serving(shout, tls=tls) as proxy:
            return await talk(Route(Origin("http", "api.example", 80), Proxy(proxy)))

    assert run(story()) == b"HELLO"


@both
def test_much_goes_through_a_tunnel_both_ways(*, tls: bool) -> None:
    async def story() -> int:
        async with tunnelled(ConnectProxy(), tls=tls) as route:
            stream = await connect(route, trusting())
            writing = asyncio.create_task(stream.write(b"x" * 3_000_000))
            count = 0
            while count < 3_000_000:
                data = await stream.read(READ_BYTES)
                assert data == b"X" * len(data) != b""
                count += len(data)
            await writing
            stream.abort()
            return count

    assert run(story()) == 3_000_000


def test_an_origin_that_closes_is_an_empty_read_through_a_tunnel_too() -> None:
    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"bye")
        writer.close()
        await writer.wait_closed()

    async def story() -> list[bytes]:
        async with tunnelled(ConnectProxy(), origin=bye) as route:
            stream = await connect(route, trusting())
            await stream.write(b"x")
            reads = [await stream.read(READ_BYTES), await stream.read(READ_BYTES)]
            stream.abort()
            return reads

    assert run(story()) == [b"bye", b""]


def test_the_origin_in_a_tunnel_is_asked_for_http_1_1() -> None:
    chosen: list[str | None] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await shout(reader, writer)

    async def story() -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        async with tunnelled(ConnectProxy(), origin=note) as route:
            return await talk(route, tls=TLSContext(context))

    assert (run(story()), chosen) == (b"HELLO", ["http/1.1"])


def test_the_system_looks_after_a_silent_tunnel_as_after_any_connection() -> None:
    async def story() -> list[int]:
        async with tunnelled(ConnectProxy()) as route:
            stream = await connect(route, trusting())
            assert isinstance(stream, net.TCPStream)
            assert stream._transport is not None
            sock = stream._transport.get_extra_info("socket")
            switches = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY)]
            values = [
                sock.getsockopt(socket.IPPROTO_TCP, option) for option in (socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
            stream.abort()
            return values + [int(sock.getsockopt(*switch) != 0) for switch in switches]

    assert run(story()) == [60, 5, 1, 1]


# --- What a proxy does wrong ---------------------------------------------------------------------------------------


def says(*pieces: bytes) -> Handler:
    """A proxy that says this, a piece a second, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(1)

    return answer


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100_000):
        writer.write(b"A: b\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("handler", "words", "status"),
    [
        (says(b"HTTP/1.1 407 No\r\n\r\n"), "answered 407: it does not accept the user name and the password", 407),
        (says(b"HTTP/1.1 403 No\r\n\r\n"), "answered 403: it does not allow that", 403),
        (says(b"HTTP/1.1 5", b"02 No\r\n", b"\r\n"), "answered 502: it did not reach that host", 502),
        (says(), "closed the connection without an answer", None),
        (says(b"HTTP/1.1 200 O"), "closed the connection without an answer", None),
        (says(b"220 mail.example ESMTP\r\n\r\n"), "does not answer as an HTTP proxy does", None),
        (says(b"HTTP/1.1 200 OK\r\n\r\nhello"), "sent something into the tunnel before TLS began: b'hello'", None),
        (reset, "did not answer: Connection reset by peer", None),
        (endless, "does not come to the end of its answer: the head is larger than max_head_bytes", None),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_named(handler: Handler, words: str, status: int | None) -> None:
    async def story() -> Origin:
        async with serving(handler) as proxy:
            with pytest.raises(
                ProxyError, match=f"^the proxy {proxy}, asked to connect to api.example:443, {words}"
            ) as e:
                await connect(Route(API, Proxy(proxy, "Basic c2VjcmV0")), trusting())
            assert e.value.status_code == status
            assert "c2VjcmV0" not in str(e.value)
            return proxy

    run(story())


def test_a_proxy_that_refuses_is_left_at_once() -> None:
    async def story() -> bool:
        heard = asyncio.get_running_loop().create_future()

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 No\r\n\r\n")
            with contextlib.suppress(ConnectionError):  # there may have been something that the client had not read
                await reader.read()
            heard.set_result(True)

        async with serving(refuse) as proxy:
            with pytest.raises(ProxyError):
                await connect(Route(API, Proxy(proxy)), trusting())
            is_over: bool = await heard
            return is_over

    assert run(story())


def test_the_bound_of_its_answer_can_be_set() -> None:
    async def story() -> None:
        async with serving(says(b"HTTP/1.1 200 " + b"a" * 100)) as proxy:
            await connect(Route(API, Proxy(proxy)), trusting(), max_head_bytes=99)

    with pytest.raises(ProxyError, match=r"max_head_bytes \(99\)"):
        raise failure(story())


@both
@pytest.mark.parametrize(
    "pieces", [[b"HTTP/1.1 200 OK\r\n\r\n"], [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 400 No\r\n\r\n"]]
)
def test_a_tunnel_that_leads_nowhere_names_origin_and_proxy(pieces: list[bytes], *, tls: bool) -> None:
    async def story() -> None:
        async with serving(says(*pieces), tls=tls) as proxy:
            with pytest.raises(
                APIConnectionError, match=f"^cannot connect to https://api.example through the proxy {proxy}: "
            ):
                await connect(Route(API, Proxy(proxy)), trusting())

    run(story())


def test_a_proxy_that_is_not_there_is_named_with_the_system_s_error_as_its_cause() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        proxy = Origin("http", "127.0.0.1", sock.getsockname()[1])

    with pytest.raises(ProxyError, match=f"^cannot connect to the proxy {proxy}: Connection refused$") as caught:
        raise failure(connect(Route(API, Proxy(proxy, "Basic c2VjcmV0")), trusting()))
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.may_heal


def test_a_proxy_that_does_not_speak_tls_is_named() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async def story() -> None:
        async with serving(refuse) as proxy:
            await connect(Route(API, Proxy(proxy._replace(scheme="https"))), trusting())

    with pytest.raises(ProxyError, match=r"^cannot connect to the proxy https://127.*: it does not speak TLS there"):
        raise failure(story())


# --- Certificates --------------------------------------------------------------------------------------------------


def test_an_origin_that_is_not_trusted_is_told_from_the_proxy() -> None:
    async def story() -> None:
        async with tunnelled(ConnectProxy()) as route:
            words = (
                f"^cannot connect to {route.origin} through the proxy {route.proxy}: its certificate is not trusted: "
            )
            with pytest.raises(CertificateError, match=words):
                await connect(route, TLSContext(trust_env=False))

    run(story())


def test_a_proxy_that_is_not_trusted_is_told_from_the_origin() -> None:
    proxy = ConnectProxy()

    async def story() -> None:
        async with tunnelled(proxy, tls=True) as route:
            with pytest.raises(
                CertificateError, match=f"^cannot connect to the proxy {route.proxy}: its certificate is not "
            ):
                await connect(route, TLSContext(trust_env=False))

    run(story())
    assert proxy.requests == []


def test_certificates_that_cannot_be_read_are_told_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")

    async def story() -> None:
        async with tunnelled(ConnectProxy()) as route:
            await connect(route, TLSContext())

    with pytest.raises(ConfigurationError, match="cannot read the certificates"):
        raise failure(story())


# --- Cancelled -----------------------------------------------------------------------------------------------------


async def cancel_after(steps: int, route: Route) -> bool:
    """Cancel a connect after so many steps of the loop; whether it was through by then. `run` sees what it leaves."""
    task = asyncio.create_task(connect(route, trusting()))
    await ticks(steps)
    finished = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await task).abort()
    return finished


@both
def test_a_tunnel_that_is_cancelled_at_any_step_leaves_nothing(*, tls: bool) -> None:
    async def story(steps: int) -> bool:
        async with tunnelled(ConnectProxy(), tls=tls) as route:
            return await cancel_after(steps, route)

    steps = next(steps for steps in itertools.count() if run(story(steps)))
    assert steps > 10


def silent_after(count: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], asyncio.Future[None]]:
    """A proxy that opens the tunnel and passes so many bytes on, and then nothing, for ever."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n"[:count])
        await asyncio.Event().wait()

    return stall  # type: ignore[return-value]


@pytest.mark.parametrize("count", [0, 10, 19])
def test_a_proxy_that_falls_silent_is_waited_for_until_the_caller_s_deadline_and_no_longer(count: int) -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        async with serving(silent_after(count)) as proxy:
            before = loop.time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10):
                    await connect(Route(API, Proxy(proxy)), trusting())
            return loop.time() - before

    assert run(story()) == 10


def test_a_stream_that_is_aborted_in_its_handshake_is_gone() -> None:
    async def story() -> None:
        async with serving(says()) as origin:
            stream = await connect(Route(origin), trusting())
            assert isinstance(stream, net.TCPStream)
            handshake = asyncio.create_task(stream.start_tls(trusting().get(), "127.0.0.1"))
            await ticks(5)
            stream.abort()
            with pytest.raises(ConnectionError):
                await handshake

    run(story())


# --- Another loop --------------------------------------------------------------------------------------------------


@pytest.mark.real
@both
def test_uvloop_goes_through_tunnels_as_well(*, tls: bool) -> None:
    uvloop = pytest.importorskip("uvloop", reason="another event loop: the extra `speed`")

    async def story() -> bytes:
        async with tunnelled(ConnectProxy(), tls=tls) as route:
            return await talk(route)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(story()) == b"HELLO"
