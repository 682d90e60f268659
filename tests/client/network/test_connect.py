"""rawsse.client.network.connect: TLS to an origin, forwarding proxies, tunnels, and tunnels within TLS, on every network."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator

import pytest
from support.background import PATIENCE
from support.clock import run, ticks
from support.networks import SOON, Drive, connected, every_network, every_network_in_real_time, passed
from support.sockets import LOCALHOST, ConnectProxy, Handler, serving, shout, trusting

from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.connect import Network
from rawsse.client.network.link import Aborted, Expired
from rawsse.client.network.route import Origin, Proxy, Route
from rawsse.client.network.tls import TLSContext
from rawsse.errors import APIConnectionError, CertificateError, ConfigurationError, Hidden, ProxyError

API = Origin("https", "api.example", 443)
NOWHERE = contextlib.nullcontext()

both = pytest.mark.parametrize("tls", [False, True], ids=["http proxy", "https proxy"])


async def talk(network: Network, route: Route, tls: TLSContext | None = None) -> bytes:
    """The first bytes of the answer to a greeting."""
    async with connected(network, route, tls, network.now() + PATIENCE) as link:
        await link.write(b"hello", network.now() + PATIENCE)
        return await link.read(network.now() + PATIENCE)


class Chosen:
    """A handler that notes the ALPN protocol of each connection."""

    def __init__(self) -> None:
        self.protocols: list[str | None] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await shout(reader, writer)


class Left:
    """A handler that notes when its client has gone, after it said something."""

    def __init__(self, says: bytes = b"", after: bytes = b"") -> None:
        self.event = threading.Event()
        self._says, self._after = says, after

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._after:
            await reader.readuntil(self._after)
        writer.write(self._says)
        with contextlib.suppress(ConnectionError):  # there may have been something that the client had not read
            await reader.read()
        self.event.set()

    async def wait(self, network: Network) -> bool:
        for _ in range(100):
            if self.event.is_set():
                return True
            await network.signal().wait(network.now() + SOON)
        return False


# --- TLS -----------------------------------------------------------------------------------------------------------


@every_network
def test_tls_offers_http_1_1_only(on: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST))
    chosen = Chosen()
    assert on(lambda network, o: talk(network, Route(o), TLSContext()), serving(chosen, tls=True)) == b"HELLO"
    assert chosen.protocols == ["http/1.1"]


@every_network
def test_the_dot_at_the_end_of_a_name_is_not_part_of_the_certificate_s(
    on: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(network: Network, origin: Origin) -> bytes:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (origin.host, origin.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        return await talk(network, Route(origin._replace(host="localhost.")))

    assert on(story, serving(shout, tls=True)) == b"HELLO"


@every_network
def test_a_certificate_that_is_not_trusted_is_refused_in_words(on: Drive) -> None:
    async def story(network: Network, origin: Origin) -> None:
        words = f"^cannot connect to {origin}: its certificate is not trusted: self-signed certificate; .*SSL_CERT_FILE"
        with pytest.raises(CertificateError, match=words) as caught:
            await talk(network, Route(origin), TLSContext(trust_env=False))
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert not caught.value.may_heal

    on(story, serving(shout, tls=True))


@every_network
@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH\r\n"])
def test_a_peer_that_does_not_speak_tls_is_refused(on: Drive, says: bytes) -> None:
    async def story(network: Network, origin: Origin) -> None:
        words = "cannot connect to https://127.*: it does not speak TLS there: is it http:// and not https://"
        with pytest.raises(APIConnectionError, match=words):
            await talk(network, Route(origin._replace(scheme="https")))

    on(story, serving(Left(says)))


@every_network
def test_a_peer_that_closes_in_the_handshake_is_named(on: Drive) -> None:
    async def leave(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def story(network: Network, origin: Origin) -> None:
        with pytest.raises(APIConnectionError, match=r"^cannot connect to https://127.*: .") as caught:
            await talk(network, Route(origin._replace(scheme="https")))
        assert isinstance(caught.value.__cause__, OSError)

    on(story, serving(leave))


@every_network
def test_a_context_that_offers_http_2_is_named_and_the_connection_is_dropped(on: Drive) -> None:
    context = ssl.create_default_context(cafile=LOCALHOST)
    context.set_alpn_protocols(["h2"])
    left = Left()

    async def story(network: Network, origin: Origin) -> bool:
        with pytest.raises(ConfigurationError, match=r"the ssl_context offers 'h2', which .*\(\[\"http/1\.1\"\]\)"):
            await talk(network, Route(origin), TLSContext(context))
        return await left.wait(network)

    assert on(story, serving(left, tls=True))


SECRET = (("proxy-authorization", Hidden("Basic c2VjcmV0")),)


@every_network
@pytest.mark.parametrize("proxy", [None, Proxy(API)])
def test_certificates_that_cannot_be_read_are_reported_before_anything_is_sent(
    on: Drive, proxy: Proxy | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    route = Route(Origin("http" if proxy else "https", "127.0.0.1", 9), proxy)
    with pytest.raises(ConfigurationError, match="cannot read the certificates in SSL_CERT_FILE"):
        on(lambda network, _: talk(network, route, TLSContext()), NOWHERE)


@every_network_in_real_time
@pytest.mark.parametrize("host", ["", ".example", "a" * 80])
def test_a_host_that_cannot_be_one_is_named(on: Drive, host: str) -> None:
    async def story(network: Network, _: object) -> None:
        async with connected(network, Route(Origin("https", host, 1))):
            pass

    with pytest.raises(APIConnectionError, match=f"^cannot connect to https://{host}:1: "):
        on(story, NOWHERE)


# --- Through a proxy -----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def tunnelled(proxy: Handler, *, tls: bool = False, origin: Handler = shout) -> AsyncIterator[Route]:
    """The route to an https origin through this proxy."""
    async with serving(origin, tls=True) as there, serving(proxy, tls=tls) as here:
        yield Route(there, Proxy(here, (("proxy-authorization", Hidden("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),)))


@every_network
@both
def test_an_https_origin_is_reached_through_a_tunnel(on: Drive, *, tls: bool) -> None:
    proxy, chosen = ConnectProxy(), Chosen()

    async def story(network: Network, route: Route) -> Route:
        assert await talk(network, route) == b"HELLO"
        return route

    route = on(story, tunnelled(proxy, tls=tls, origin=chosen))
    fields = "user-agent: rawsse\r\nproxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    at = f"127.0.0.1:{route.origin.port}"
    assert proxy.requests == [f"CONNECT {at} HTTP/1.1\r\nhost: {at}\r\n{fields}\r\n\r\n".encode()]
    assert len(chosen.protocols) == 1


@every_network
def test_the_origin_in_a_tunnel_is_offered_http_1_1(on: Drive) -> None:
    context = ssl.create_default_context(cafile=LOCALHOST)
    context.set_alpn_protocols(["http/1.1"])
    chosen = Chosen()
    peer = tunnelled(ConnectProxy(), origin=chosen)
    assert on(lambda network, route: talk(network, route, TLSContext(context)), peer) == b"HELLO"
    assert chosen.protocols == ["http/1.1"]


@every_network
@both
def test_a_request_to_an_http_origin_is_sent_to_the_proxy_itself(on: Drive, *, tls: bool) -> None:
    origin = Origin("http", "api.example", 80)
    peer = serving(shout, tls=tls)
    assert on(lambda network, proxy: talk(network, Route(origin, Proxy(proxy))), peer) == b"HELLO"


@every_network
@both
def test_much_goes_through_a_tunnel_both_ways(on: Drive, *, tls: bool) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    pieces = [bytes([number]) * 250_000 for number in range(12)]

    async def story(network: Network, route: Route) -> bytes:
        received = bytearray()
        async with connected(network, route) as link:
            for piece in pieces:
                await link.write(piece, network.now() + PATIENCE)
                received += link.read_ready() or b""
            while len(received) < 3_000_000 and (data := await link.read(network.now() + PATIENCE)):
                received += data
        return bytes(received)

    assert on(story, tunnelled(ConnectProxy(), tls=tls, origin=echo)) == b"".join(pieces)


@every_network
@both
def test_an_origin_that_closes_is_an_empty_read_through_a_tunnel_too(on: Drive, *, tls: bool) -> None:
    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"bye")
        writer.close()
        await writer.wait_closed()

    async def story(network: Network, route: Route) -> list[bytes | None]:
        async with connected(network, route) as link:
            await link.write(b"x", math.inf)
            return [await link.read(math.inf), await link.read(math.inf), link.read_ready()]

    assert on(story, tunnelled(ConnectProxy(), tls=tls, origin=bye)) == [b"bye", b"", b""]


# --- What a proxy does wrong ---------------------------------------------------------------------------------------


def says(*pieces: bytes) -> Handler:
    """A proxy that says this, a piece at a time, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(SOON)

    return answer


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # socket(7)
    writer.transport.abort()


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"A: b\r\n" * 1000)
        await writer.drain()


@every_network
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
        (endless, r"does not answer as an HTTP proxy does \(the head is larger than max_head_bytes", None),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_named(on: Drive, handler: Handler, words: str, status: int | None) -> None:
    async def story(network: Network, proxy: Origin) -> None:
        beginning = f"^the proxy {proxy}, asked to connect to api.example:443, "
        with pytest.raises(ProxyError, match=beginning + words) as caught:
            await talk(network, Route(API, Proxy(proxy, SECRET)))
        assert caught.value.status_code == status
        assert "c2VjcmV0" not in str(caught.value)

    on(story, serving(handler))


@every_network
def test_a_proxy_that_refuses_is_left_at_once(on: Drive) -> None:
    left = Left(b"HTTP/1.1 403 No\r\n\r\n", after=b"\r\n\r\n")

    async def story(network: Network, proxy: Origin) -> bool:
        with pytest.raises(ProxyError):
            await talk(network, Route(API, Proxy(proxy)))
        return await left.wait(network)

    assert on(story, serving(left))


@every_network
@both
@pytest.mark.parametrize(
    "pieces", [[b"HTTP/1.1 200 OK\r\n\r\n"], [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 400 No\r\n\r\n"]]
)
def test_a_tunnel_that_leads_nowhere_names_origin_and_proxy(on: Drive, pieces: list[bytes], *, tls: bool) -> None:
    async def story(network: Network, proxy: Origin) -> None:
        words = f"^cannot connect to https://api.example through the proxy {proxy}: "
        with pytest.raises(APIConnectionError, match=words):
            await talk(network, Route(API, Proxy(proxy)))

    on(story, serving(says(*pieces), tls=tls))


@every_network
def test_a_proxy_that_is_not_there_is_named_with_the_system_s_error_as_its_cause(on: Drive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        proxy = Origin("http", "127.0.0.1", sock.getsockname()[1])

    with pytest.raises(ProxyError, match=f"^cannot connect to the proxy {proxy}: Connection refused$") as caught:
        on(
            lambda network, _: talk(network, Route(API, Proxy(proxy, SECRET))),
            NOWHERE,
        )
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.may_heal


@every_network
def test_a_proxy_that_does_not_speak_tls_is_named(on: Drive) -> None:
    async def story(network: Network, proxy: Origin) -> None:
        words = r"^cannot connect to the proxy https://127.*: it does not speak TLS there"
        with pytest.raises(ProxyError, match=words):
            await talk(network, Route(API, Proxy(proxy._replace(scheme="https"))))

    on(story, serving(Left(b"HTTP/1.1 400 Bad Request\r\n\r\n")))


@every_network
def test_an_origin_that_is_not_trusted_is_told_from_the_proxy(on: Drive) -> None:
    async def story(network: Network, route: Route) -> None:
        words = f"^cannot connect to {route.origin} through the proxy {route.proxy}: its certificate is not trusted: "
        with pytest.raises(CertificateError, match=words):
            await talk(network, route, TLSContext(trust_env=False))

    on(story, tunnelled(ConnectProxy()))


@every_network
def test_a_proxy_that_is_not_trusted_is_told_from_the_origin(on: Drive) -> None:
    proxy = ConnectProxy()

    async def story(network: Network, route: Route) -> None:
        words = f"^cannot connect to the proxy {route.proxy}: its certificate is not trusted: "
        with pytest.raises(CertificateError, match=words):
            await talk(network, route, TLSContext(trust_env=False))

    on(story, tunnelled(proxy, tls=True))
    assert proxy.requests == []


# --- Deadlines and cancelling --------------------------------------------------------------------------------------


def silent_after(answer: bytes) -> Handler:
    """A proxy that says this, and then nothing."""

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await asyncio.Event().wait()

    return stall


@every_network
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_proxy_that_falls_silent_is_waited_for_until_the_deadline(on: Drive, answer: bytes) -> None:
    async def story(network: Network, proxy: Origin) -> bool:
        before = network.now()
        with pytest.raises(Expired):
            async with connected(network, Route(API, Proxy(proxy)), deadline=before + SOON):
                pass
        return passed(network, before, SOON)

    assert on(story, serving(silent_after(answer)))


async def stop_after(steps: int, route: Route, *, is_abort: bool) -> bool:
    """Cancel or abort a connect after so many steps of the loop; whether it was through by then. `run` sees what it leaves."""
    link = AsyncioNetwork().link()
    task = asyncio.create_task(link.connect(route, trusting(), math.inf))
    await ticks(steps)
    finished = task.done()
    link.abort() if is_abort else task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Aborted):
        await task
        assert finished
    link.abort()
    return finished


@pytest.mark.parametrize("kind", ["http", "https", "tunnel", "tunnel in TLS"])
@pytest.mark.parametrize("is_abort", [False, True], ids=["cancelled", "aborted"])
def test_a_connect_that_is_stopped_at_any_step_leaves_nothing(kind: str, is_abort: bool) -> None:
    async def story(steps: int) -> bool:
        if kind.startswith("tunnel"):
            async with tunnelled(ConnectProxy(), tls=kind == "tunnel in TLS") as route:
                return await stop_after(steps, route, is_abort=is_abort)
        async with serving(shout, tls=kind == "https") as origin:
            return await stop_after(steps, Route(origin), is_abort=is_abort)

    steps = next(steps for steps in itertools.count() if run(story(steps)))
    assert steps > {"http": 2, "https": 5}.get(kind, 10)
