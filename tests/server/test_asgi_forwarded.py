"""rawsse.server.asgi, `Forwarded`: the client and scheme behind proxies, and behind peers that only claim to be one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.server import Forwarded, Receive, Scope, Send

from .peer import ask, http_only

PROXY, SECOND, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.7"
FORGED = "198.51.100.66"
HTTPS = (b"x-forwarded-proto", b"https")  # where `wss` would be the scheme


def seen(*fields: tuple[str, str], peer: str | None = PROXY, proxies: tuple[str, ...] = ("10.0.0.0/24",)) -> Any:
    """(address of the client, scheme) as an app behind `Forwarded` sees them."""
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    headers = [(name.encode(), value.encode()) for name, value in fields]
    client = None if peer is None else (peer, 50000)
    scope = {"type": "http", "client": client, "scheme": "http", "headers": headers}
    asyncio.run(Forwarded(app, proxies)(scope, None, None))  # type: ignore[arg-type]
    assert scope == {"type": "http", "client": client, "scheme": "http", "headers": headers}, "the caller's scope"
    return found[0]["client"] and found[0]["client"][0], found[0]["scheme"]


def for_(value: str) -> tuple[str, str]:
    return ("x-forwarded-for", value)


def proto(value: str) -> tuple[str, str]:
    return ("x-forwarded-proto", value)


def test_the_client_and_the_scheme_are_those_that_the_proxy_saw() -> None:
    assert seen(for_(CLIENT), proto("https")) == (CLIENT, "https")


def test_without_fields_they_are_those_of_the_connection() -> None:
    assert seen() == (PROXY, "http")


@pytest.mark.parametrize("peer", [CLIENT, "10.0.1.1", "::1", "testclient", None])
def test_a_peer_that_is_not_named_is_not_believed(peer: str | None) -> None:
    assert seen(for_(FORGED), proto("https"), peer=peer) == (peer, "http")


@pytest.mark.parametrize(
    "fields",
    [
        [for_(f"{FORGED}, {CLIENT}")],
        [for_(f"{FORGED}, {PROXY}, {CLIENT}")],
        [for_(f"{FORGED}, {CLIENT}, {SECOND}")],
        [for_(FORGED), for_(CLIENT)],
        [for_(f"{FORGED}, {CLIENT}"), for_(SECOND)],
    ],
)
def test_what_the_client_wrote_itself_stands_to_the_left_and_is_not_read(fields: list[tuple[str, str]]) -> None:
    assert seen(*fields)[0] == CLIENT


def test_a_client_on_a_proxy_is_the_one_farthest_away() -> None:
    assert seen(for_(f"{SECOND}, {PROXY}"))[0] == SECOND


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.7:4711", CLIENT),
        ("2001:db8:cafe::17", "2001:db8:cafe::17"),
        ("[2001:db8:cafe::17]", "2001:db8:cafe::17"),
        ("[2001:DB8:CAFE:0::17]:4711", "2001:db8:cafe::17"),
        ("::ffff:203.0.113.7", CLIENT),
        (f"{CLIENT}, 10.0.0.2:81", CLIENT),
        (f"{CLIENT}, ::ffff:10.0.0.2", CLIENT),
        ("fe80::1%<script>", "fe80::1"),
    ],
)
def test_addresses_come_in_many_forms(value: str, client: str) -> None:
    assert seen(for_(value))[0] == client


@pytest.mark.parametrize("value", [f"for={FORGED};proto=https", f"for={CLIENT}", "for=_gazonk", '"'])
def test_beside_rfc_7239_s_field_the_others_may_be_the_client_s_own_and_are_not_read(value: str) -> None:
    assert seen(for_(FORGED), proto("https"), ("forwarded", value)) == (PROXY, "http")


@pytest.mark.parametrize(
    "value", ["", " ", "unknown", "_hidden", "evil.example", "203.0.113", "1.2.3.4.5", "[::1", ","]
)
def test_what_is_no_address_leaves_the_last_proxy_as_the_client(value: str) -> None:
    assert seen(for_(value))[0] == PROXY
    assert seen(for_(f"{FORGED}, {value}, {SECOND}"))[0] == SECOND


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("HTTPS", "https"), ("http, https", "https"), ("https,http", "http"), ("ws", "http"), ("javascript:", "http")],
)
def test_a_scheme_is_http_or_https_and_the_last_word_counts(value: str, scheme: str) -> None:
    assert seen(for_(CLIENT), proto(value)) == (CLIENT, scheme)


def test_a_proxy_may_say_the_scheme_alone() -> None:
    assert seen(proto("https")) == (PROXY, "https")


@pytest.mark.parametrize(
    ("proxy", "peer"),
    [("::1", "::1"), ("fe80::/10", "fe80::1%eth0"), ("10.0.0.1", "::ffff:10.0.0.1"), (" 10.0.0.1 ", PROXY)],
)
def test_a_proxy_may_have_any_kind_of_address(proxy: str, peer: str) -> None:
    assert seen(for_(CLIENT), peer=peer, proxies=("192.0.2.1", proxy))[0] == CLIENT


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("*", "'*' does not appear to be an IPv4 or IPv6 network"),
        ("", "'' does not appear to be an IPv4 or IPv6 network"),
        ("localhost", "'localhost' does not appear to be"),
        ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
    ],
)
def test_what_is_no_address_of_a_proxy_is_refused(proxy: str, words: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    with pytest.raises(ConfigurationError) as caught:
        Forwarded(app, ["127.0.0.1", proxy])
    assert str(caught.value).startswith(f"a proxy must be an IP address, or a network such as 10.0.0.0/8: {words}")


def test_the_host_is_that_of_the_request_whatever_a_proxy_says_of_it() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (b"host", b"real.example") in scope["headers"]
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    request = (
        b"GET / HTTP/1.1\r\nhost: real.example\r\nx-forwarded-host: evil.example\r\nforwarded: host=evil.example\r\n"
    )
    assert ask(Forwarded(app, ["127.0.0.1"]), request + b"connection: close\r\n\r\n").startswith(b"HTTP/1.1 204")


def test_an_app_behind_it_can_still_write_to_the_connection_itself() -> None:
    @http_only
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        outlet = scope["extensions"]["rawsse.push"]
        assert outlet.send == send, "something wraps `send`: streams would cost a task each"
        outlet.start(200, [])
        outlet.end(scope["client"][0].encode())
        await outlet.closed()

    request = f"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-forwarded-for: {CLIENT}\r\n\r\n".encode()
    assert ask(Forwarded(app, ["127.0.0.1"]), request).endswith(f"{CLIENT}\r\n0\r\n\r\n".encode())


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "lifespan"},
        {"type": "http", "headers": [HTTPS]},
        {"type": "websocket", "client": (PROXY, 1), "headers": [HTTPS]},
    ],
)
def test_other_scopes_pass_through(scope: Scope) -> None:
    called: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope)

    asyncio.run(Forwarded(app, [PROXY])(scope, None, None))  # type: ignore[arg-type]
    assert called == [scope]


@pytest.mark.parametrize("piece", ["1.2.3.4,", "10.0.0.1,", ",", " ", "a"])
def test_a_long_field_takes_time_in_proportion(piece: str) -> None:
    begin = time.process_time()
    seen(for_(piece * 20_000))
    assert time.process_time() - begin < 1.0
