"""rawsse.client.network.connect, tunnels: what is said to a proxy, and what its answers mean. Real connections are in
`test_connect.py`."""

from __future__ import annotations

import math

import pytest
from support.pools import StillNetwork

from rawsse.client.network.connect import open_tunnel
from rawsse.client.network.link import drive
from rawsse.client.network.route import Origin, Proxy, refusal
from rawsse.errors import ProxyError
from rawsse.http1 import Headers
from rawsse.replay.fakes import FakeStream

API = Origin("https", "api.example", 443)
PROXY = Proxy.from_url("http://proxy.example:3128")
WITH_USER = Proxy.from_url("http://Aladdin:open%20sesame@proxy.example:3128")

OPEN = b"HTTP/1.1 200 OK\r\n\r\n"

ASKED = "the proxy http://proxy.example:3128, asked to connect to api.example:443,"


def tunnel(
    *reads: bytes,
    end: bytes | OSError = b"",
    proxy: Proxy = PROXY,
    origin: Origin = API,
) -> FakeStream:
    """A link to a proxy that answers with `reads`, when the tunnel is open."""
    link = FakeStream(reads, end=end)
    link.enter(StillNetwork())
    drive(open_tunnel(link, proxy, origin, math.inf))
    return link


def failure(
    *reads: bytes,
    end: bytes | OSError = b"",
    proxy: Proxy = PROXY,
) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        tunnel(*reads, end=end, proxy=proxy)
    assert not any(secret in str(caught.value) for secret in ("Aladdin", "sesame", "QWxh"))
    return caught.value


# --- The request ---------------------------------------------------------------------------------------------------


# RFC 9110, 9.3.6: "There is no default port; a client MUST send the port number even if the CONNECT request is based on a URI
# reference that contains an authority component with an elided port".
@pytest.mark.parametrize(
    ("origin", "authority"), [(API, "api.example:443"), (Origin("https", "2001:db8::1", 8443), "[2001:db8::1]:8443")]
)
def test_the_request_names_host_and_port_and_has_no_body(origin: Origin, authority: str) -> None:
    wire = tunnel(OPEN, origin=origin).written.decode()
    assert wire == f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: rawsse\r\n\r\n"


def test_credentials_go_with_it() -> None:
    wire = tunnel(OPEN, proxy=WITH_USER).written
    assert b"\r\nproxy-authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n" in wire


# --- Open ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n",
        b"HTTP/1.1 299\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_any_2xx_opens_the_tunnel_at_the_end_of_its_head(head: bytes) -> None:
    link = tunnel(*(head[at : at + 1] for at in range(len(head))), b"of the origin")
    assert link.read_ready() == b"of the origin"


def test_what_a_proxy_sends_into_the_tunnel_is_told() -> None:
    error = failure(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    assert str(error) == f"{ASKED} sent something into the tunnel before TLS began: b'hello'"
    assert (error.status_code, error.may_heal) == (None, False)


# --- Refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "may_heal"),
    [
        (403, "it does not allow that; its operator can, or NO_PROXY takes this host past it", False),
        (404, "no tunnel was opened", False),
        (405, "no tunnel was opened", False),
        (302, "no tunnel was opened", False),
        (408, "no tunnel was opened", True),
        (429, "no tunnel was opened", True),
        (500, "no tunnel was opened", True),
        (502, "it did not reach that host", True),
        (503, "it did not reach that host", True),
        (504, "it did not reach that host", True),
        (407, "it wants a user name and a password (Basic), as in http://user:password@host:port", False),
    ],
)
def test_a_refusal_names_proxy_host_status_and_remedy(status: int, words: str, *, may_heal: bool) -> None:
    error = failure(b"HTTP/1.1 %d Whatever\r\nContent-Length: 5\r\n\r\n" % status)
    assert str(error) == f"{ASKED} answered {status}: {words}"
    assert (error.status_code, error.may_heal) == (status, may_heal)


def test_a_refusal_does_not_wait_for_its_body() -> None:
    assert failure(b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n").status_code == 502


@pytest.mark.parametrize("status", [401, 407])
def test_credentials_that_are_refused_are_not_asked_for(status: int) -> None:
    error = failure(b"HTTP/1.1 %d x\r\nProxy-Authenticate: Basic realm=a\r\n\r\n" % status, proxy=WITH_USER)
    assert str(error).endswith(
        f"answered {status}: it does not accept the user name and the password that were given for it"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (b"Proxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n", "'Negotiate, NTLM'"),
        (b'Proxy-Authenticate: Digest realm="a", nonce="b"\r\n', '\'Digest realm="a", nonce="b"\''),
    ],
)
@pytest.mark.parametrize("proxy", [PROXY, WITH_USER])
def test_a_proxy_that_wants_more_than_a_password_is_told(proxy: Proxy, fields: bytes, words: str) -> None:
    error = failure(b"HTTP/1.1 407 x\r\n" + fields + b"\r\n", proxy=proxy)
    assert str(error).endswith(f"it wants credentials that rawsse cannot give (only Basic is supported): {words}")


@pytest.mark.parametrize("value", ["Negotiate, Basic realm=a", "basic", "Basic,"])
def test_a_proxy_that_would_take_a_password_is_told_as_such(value: str) -> None:
    error = refusal(PROXY, API, 407, Headers([("proxy-authenticate", value)]))
    assert "it wants a user name and a password (Basic)" in str(error)


def test_a_proxy_that_does_not_say_what_it_wants_wants_a_password() -> None:
    assert "(Basic)" in str(refusal(PROXY, API, 407, Headers([("proxy-authenticate", "")])))


# --- No answer, or none of HTTP ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [[], [b"HTTP/1.1 20"], [b"HTTP/1.1 200 OK\r\nA: b\r\n"]])
def test_a_proxy_that_closes_is_named(reads: list[bytes]) -> None:
    error = failure(*reads)
    assert str(error) == f"{ASKED} closed the connection without an answer"
    assert (error.status_code, error.may_heal) == (None, True)


@pytest.mark.parametrize("wire", [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x15\x03\x01\0\2\2\x16", b"HTTP/2 200\r\n\r\n"])
def test_an_answer_that_is_no_http_is_told_as_such(wire: bytes) -> None:
    error = failure(wire)
    assert str(error).startswith(f"{ASKED} does not answer as an HTTP proxy does (")
    assert str(error).endswith("): is it one?")
    assert not error.may_heal


def test_an_answer_without_an_end_is_bounded() -> None:
    error = failure(b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n" * 1000] * 6)  # 36 kB
    assert str(error).startswith(
        f"{ASKED} does not answer as an HTTP proxy does (the head is larger than max_head_bytes"
    )
    assert not error.may_heal


@pytest.mark.parametrize(
    ("end", "words"),
    [(ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"), (OSError("x"), "x")],
)
def test_a_connection_that_breaks_names_the_proxy(end: OSError, words: str) -> None:
    error = failure(b"HTTP/1.1 2", end=end)
    assert (str(error), error.__cause__) == (f"{ASKED} did not answer: {words}", end)
