"""rawsse.client.network.route: origins, proxies, and which way leads where."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest

from rawsse.client.network.route import Origin, Proxies, Proxy, Route, is_excluded
from rawsse.errors import ConfigurationError

API = Origin("https", "api.example", 443)
PLAIN = Origin("http", "api.example", 8080)
PROXY = Proxy(Origin("http", "proxy.example", 3128))


def way(environ: Mapping[str, str], origin: Origin = API) -> str:
    """Where the proxy is that the environment names for the origin; nothing if there is none."""
    proxy = Proxies.from_environment(environ).route_to(origin).proxy
    return str(proxy.origin) if proxy else ""


# --- Origins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host_field", "authority", "text"),
    [
        (Origin("https", "api.example", 443), "api.example", "api.example:443", "https://api.example"),
        (Origin("https", "api.example", 8443), "api.example:8443", "api.example:8443", "https://api.example:8443"),
        (Origin("http", "api.example", 80), "api.example", "api.example:80", "http://api.example"),
        (Origin("http", "127.0.0.1", 443), "127.0.0.1:443", "127.0.0.1:443", "http://127.0.0.1:443"),
        (Origin("http", "::1", 8000), "[::1]:8000", "[::1]:8000", "http://[::1]:8000"),
        (Origin("https", "::1", 443), "[::1]", "[::1]:443", "https://[::1]"),
    ],
)
def test_the_host_field_has_the_port_unless_it_is_the_scheme_s_own(
    origin: Origin, host_field: str, authority: str, text: str
) -> None:
    assert (origin.host_field, origin.authority, str(origin)) == (host_field, authority, text)


# --- A proxy's URL -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://proxy.example:3128", Origin("http", "proxy.example", 3128)),
        ("http://proxy.example:3128/", Origin("http", "proxy.example", 3128)),
        (" http://proxy.example:3128\n", Origin("http", "proxy.example", 3128)),
        ("HTTP://Proxy.Example:3128", Origin("http", "proxy.example", 3128)),
        ("http://proxy.example", Origin("http", "proxy.example", 80)),
        ("http://proxy.example:", Origin("http", "proxy.example", 80)),
        ("https://proxy.example", Origin("https", "proxy.example", 443)),
        ("https://proxy.example:8443", Origin("https", "proxy.example", 8443)),
        ("proxy.example:3128", Origin("http", "proxy.example", 3128)),
        ("my_proxy", Origin("http", "my_proxy", 80)),
        ("user:secret@proxy.example:3128", Origin("http", "proxy.example", 3128)),
        ("http://127.0.0.1:3128", Origin("http", "127.0.0.1", 3128)),
        ("http://[::1]:3128", Origin("http", "::1", 3128)),
        ("http://[2001:DB8::0:1]", Origin("http", "2001:db8::1", 80)),
        ("http://bücher.example:1", Origin("http", "xn--bcher-kva.example", 1)),
        ("http://proxy.example:65535", Origin("http", "proxy.example", 65535)),
    ],
)
def test_a_proxy_is_where_its_url_says(url: str, origin: Origin) -> None:
    proxy = Proxy.from_url(url)
    assert (proxy.origin, str(proxy)) == (origin, str(origin))


# RFC 7617, 2: the first pair is its own example; 2.1: the second, in UTF-8.
@pytest.mark.parametrize(
    ("user", "value"),
    [
        ("Aladdin:open%20sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test:123%C2%A3", "Basic dGVzdDoxMjPCow=="),
        ("test:123£", "Basic dGVzdDoxMjPCow=="),
    ],
)
def test_user_and_password_are_sent_as_rfc_7617_has_it(user: str, value: str) -> None:
    assert Proxy.from_url(f"http://{user}@proxy.example").fields == (("proxy-authorization", value),)


@pytest.mark.parametrize(
    ("user", "pair"),
    [
        ("user", b"user:"),
        ("user:", b"user:"),
        (":secret", b":secret"),
        ("user:a:b", b"user:a:b"),
        ("user:p%40ss", b"user:p@ss"),
        ("user:p@ss", b"user:p@ss"),
        ("user:pa/ss#w?rd", b"user:pa/ss#w?rd"),
        ("domain%5Cuser:s", b"domain\\user:s"),
        ("user:100%", b"user:100%"),
    ],
)
def test_user_and_password_may_have_any_character_that_is_escaped_and_most_that_are_not(user: str, pair: bytes) -> None:
    ((_, value),) = Proxy.from_url(f"http://{user}@proxy.example:3128").fields
    assert base64.b64decode(value.removeprefix("Basic ")) == pair


@pytest.mark.parametrize("url", ["http://proxy.example", "http://@proxy.example"])
def test_without_a_user_nothing_is_sent(url: str) -> None:
    assert Proxy.from_url(url).fields == ()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks", "SOCKS5", "ftp"])
@pytest.mark.parametrize("user", ["", "user:secret@"])
def test_a_proxy_of_another_kind_is_refused_with_the_kinds_that_can_be_used(scheme: str, user: str) -> None:
    words = "^ALL_PROXY must be like http://host:port .*; https:// works too, SOCKS does not; NO_PROXY or trust_env="
    with pytest.raises(ConfigurationError, match=words) as caught:
        Proxy.from_url(f"{scheme}://{user}proxy.example:1080", source="ALL_PROXY")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http://:3128",
        "http://user:secret",
        "http://user:secret@",
        "http://user:secret@:3128",
        "http://user:secret@proxy.example:0",
        "http://user:secret@proxy.example:65536",
        "http://user:secret@proxy.example:port",
        "http://user:secret@proxy.example/proxy.pac",
        "http://user:secret@proxy.example?a=b",
        "http://user:secret@pro xy.example",
        "http://user:secret@pro%20xy.example",
        "http://user:secret@pro\0xy.example",
        "http://user:secret@[::1",
        "http://user:secret@[::g]",
        "http://user:secret@[1.2.3.4]",
        "http://user:secret@::1:3128",
        "http://user:secret@" + "ü" * 80,
        "http://user:secret@proxy.example!",
        "http://user:secret@proxy..example",
        "http://user:secret@proxy.example\uff0fsecret",  # IDNA makes a slash of it
        "http:/user:secret@proxy.example",
        "://user:secret@proxy.example:x",
    ],
)
def test_a_url_that_names_no_proxy_is_refused_without_being_shown(url: str) -> None:
    words = r"^HTTPS_PROXY must be like http://host:port or .* \(port 1 to 65535\); "
    with pytest.raises(ConfigurationError, match=words) as caught:
        Proxy.from_url(url, source="HTTPS_PROXY")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("user", ["us%3Aer:secret", "user:sec%0Aret", "user:sec%7Fret", "us\0er:secret"])
def test_credentials_that_basic_cannot_carry_are_refused_without_being_shown(user: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^proxy: a user name may have no colon, and") as caught:
        Proxy.from_url(f"http://{user}@proxy.example")
    assert "sec" not in str(caught.value)


def test_no_repr_and_no_text_shows_a_password() -> None:
    proxy = Proxy.from_url("http://user:secret@proxy.example:3128")
    proxies = Proxies.from_environment({"HTTPS_PROXY": "http://user:secret@proxy.example:3128"})
    shown = [repr(proxy), str(proxy), repr(Route(API, proxy)), str(Route(API, proxy)), repr(proxies)]
    shown += [repr(Proxies(proxy)), Route(API, proxy).through]
    ((_, value),) = proxy.fields
    secrets = ("secret", "user", value.removeprefix("Basic "))
    assert not any(secret in text for text in shown for secret in secrets)


# --- A route -------------------------------------------------------------------------------------------------------


def test_routes_are_alike_when_origin_proxy_and_credentials_are() -> None:
    first, second = (Proxy.from_url(f"http://{user}@proxy.example") for user in ("a:b", "a:c"))
    assert Route(API, first) == Route(API, Proxy.from_url("http://a:b@proxy.example/"))
    assert len({Route(API), Route(API, first), Route(API, second), Route(PLAIN, first)}) == 4


def test_the_direct_way_changes_nothing() -> None:
    route = Route(PLAIN)
    assert (route.is_forwarded, route.target("/v1?a=b"), route.proxy_fields()) == (False, "/v1?a=b", ())
    assert route.through == ""


def test_a_request_that_is_forwarded_has_the_whole_url_and_the_credentials() -> None:
    route = Route(PLAIN, Proxy.from_url("http://Aladdin:open%20sesame@proxy.example"))
    assert route.is_forwarded
    assert route.target("/v1?a=b") == "http://api.example:8080/v1?a=b"  # RFC 9112, 3.2.2: absolute-form
    assert route.proxy_fields() == (("proxy-authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),)


def test_a_proxy_without_a_user_gets_no_credentials() -> None:
    assert Route(PLAIN, PROXY).proxy_fields() == ()


def test_a_request_in_a_tunnel_shows_the_proxy_s_credentials_to_nobody() -> None:
    route = Route(API, Proxy.from_url("http://user:secret@proxy.example"))
    assert (route.is_forwarded, route.target("/v1"), route.proxy_fields()) == (False, "/v1", ())
    assert route.through == " through the proxy http://proxy.example"


# --- Which proxy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_messages_name_the_variable_that_a_proxy_came_from(name: str) -> None:
    proxy = Proxies.from_environment({name: "http://user:secret@proxy.example"}).route_to(API).proxy
    assert proxy is not None
    assert str(proxy) == f"http://proxy.example (from {name})"
    assert proxy.asked(API).startswith(f"the proxy http://proxy.example (from {name}), asked to connect to api.example")
    assert Route(API, proxy).through == f" through the proxy http://proxy.example (from {name})"


def test_by_default_there_is_none() -> None:
    assert Proxies().route_to(API) == Proxies.from_environment({}).route_to(API) == Route(API)


@pytest.mark.parametrize("origin", [API, PLAIN, Origin("https", "localhost", 443), Origin("http", "127.0.0.1", 1)])
def test_a_proxy_that_is_given_is_always_used(origin: Origin) -> None:
    assert Proxies(Proxy.from_url("http://proxy.example:3128")).route_to(origin) == Route(origin, PROXY)
    assert Proxies(PROXY).route_to(origin) == Route(origin, PROXY)


def test_a_proxy_that_is_given_is_looked_at_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"^proxy must be like http://host:port or .* SOCKS does not; "):
        Proxies(Proxy.from_url("socks5://proxy.example"))


@pytest.mark.parametrize(
    ("environ", "https", "http"),
    [
        ({"HTTPS_PROXY": "s:1"}, "http://s:1", ""),
        ({"HTTP_PROXY": "p:1"}, "", "http://p:1"),
        ({"ALL_PROXY": "a:1"}, "http://a:1", "http://a:1"),
        ({"ALL_PROXY": "a:1", "HTTPS_PROXY": "s:1"}, "http://s:1", "http://a:1"),
        ({"all_proxy": "a:1", "HTTP_PROXY": "p:1"}, "http://a:1", "http://p:1"),
        ({"https_proxy": "low:1", "HTTPS_PROXY": "UP:1"}, "http://low:1", ""),
        ({"https_proxy": "", "HTTPS_PROXY": "up:1"}, "http://up:1", ""),
        ({"https_proxy": " ", "ALL_PROXY": "a:1"}, "http://a:1", "http://a:1"),
        ({"Https_Proxy": "mixed:1"}, "http://mixed:1", ""),
        ({"FTP_PROXY": "f:1", "PROXY": "x:1", "MY_HTTPS_PROXY": "y:1"}, "", ""),
        # httpoxy: a CGI program finds the request's field `Proxy` in HTTP_PROXY.
        ({"HTTP_PROXY": "evil:1", "REQUEST_METHOD": "GET"}, "", ""),
        ({"http_proxy": "p:1", "HTTP_PROXY": "evil:1", "REQUEST_METHOD": "GET"}, "", "http://p:1"),
        ({"HTTPS_PROXY": "s:1", "REQUEST_METHOD": "GET"}, "http://s:1", ""),
    ],
)
def test_the_variable_of_the_scheme_counts_then_that_of_all(environ: dict[str, str], https: str, http: str) -> None:
    assert (way(environ), way(environ, PLAIN)) == (https, http)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost", "localhost.", "a.localhost", "127.0.0.1", "127.8.9.10", "::1"]
)
def test_this_machine_is_never_reached_through_a_proxy_of_the_environment(host: str) -> None:
    assert way({"ALL_PROXY": "a:1"}, Origin("https", host, 443)) == ""


@pytest.mark.parametrize("host", ["localhost.net", "notlocalhost", "::2", "128.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"])
def test_other_machines_are(host: str) -> None:
    assert way({"ALL_PROXY": "a:1"}, Origin("https", host, 443)) == "http://a:1"


def test_this_machine_in_ipv6_dress_is_this_machine() -> None:
    assert way({"ALL_PROXY": "a:1"}, Origin("http", "::ffff:127.0.0.1", 80)) == ""


def test_no_proxy_is_read_in_either_case_and_the_lower_one_wins() -> None:
    proxy = {"HTTPS_PROXY": "s:1"}
    assert way({**proxy, "NO_PROXY": "api.example"}) == ""
    assert way({**proxy, "no_proxy": "api.example"}) == ""
    assert way({**proxy, "no_proxy": "other.example", "NO_PROXY": "api.example"}) == "http://s:1"


def test_a_broken_variable_is_named_when_it_is_needed_and_only_then() -> None:
    proxies = Proxies.from_environment({"all_proxy": "socks5://user:secret@p", "HTTP_PROXY": "p:1", "NO_PROXY": "a.b"})
    assert proxies.route_to(PLAIN).proxy
    assert proxies.route_to(Origin("https", "localhost", 443)).proxy is None
    assert proxies.route_to(Origin("https", "a.b", 443)).proxy is None
    with pytest.raises(ConfigurationError, match=r"^all_proxy must be like http://host:port or "):
        proxies.route_to(API)


def test_the_environment_is_read_when_it_is_given_and_not_later() -> None:
    environ = {"HTTPS_PROXY": "s:1"}
    proxies = Proxies.from_environment(environ)
    environ.clear()
    assert proxies.route_to(API).through == " through the proxy http://s:1 (from HTTPS_PROXY)"


# --- NO_PROXY ------------------------------------------------------------------------------------------------------

# The answers are those of Go's golang.org/x/net/http/httpproxy, but where a comment says otherwise.
NO_PROXY = [
    ("", "a.example", 443, False),
    (",, ,", "a.example", 443, False),
    ("*", "a.example", 443, True),
    ("*", "10.0.0.1", 443, True),
    ("*", "2001:db8::1", 443, True),
    ("b.example,*", "a.example", 443, True),
    ("a.example", "a.example", 443, True),
    ("A.Example", "a.exaMPLE", 443, True),
    ("a.example.", "a.example", 443, True),
    ("a.example", "a.example.", 443, True),
    ("b.example, a.example", "a.example", 443, True),
    ("b.example a.example", "a.example", 443, True),  # blanks alone: curl
    ("b.example,\ta.example\n", "a.example", 443, True),
    ("example", "a.example", 443, True),
    ("a.example", "b.a.example", 443, True),
    ("ample", "a.example", 443, False),
    ("a.example", "ba.example", 443, False),
    ("b.a.example", "a.example", 443, False),
    ("a.example", "a.example.org", 443, False),
    (".a.example", "b.a.example", 443, True),
    (".a.example", "a.example", 443, False),
    ("*.a.example", "b.a.example", 443, True),
    ("*.a.example", "a.example", 443, False),
    ("a.example:443", "a.example", 443, True),
    ("a.example:443", "b.a.example", 443, True),
    ("a.example:443", "a.example", 8443, False),
    (".a.example:8443", "b.a.example", 8443, True),
    ("a.example:x", "a.example", 443, False),
    ("10.0.0.1", "10.0.0.1", 443, True),
    ("10.0.0.1", "10.0.0.10", 443, False),
    ("0.0.1", "10.0.0.1", 443, False),
    ("10.0.0.1:80", "10.0.0.1", 80, True),
    ("10.0.0.1:80", "10.0.0.1", 443, False),
    ("10.0.0.0/8", "10.1.2.3", 443, True),
    ("10.1.2.3/8", "10.9.9.9", 443, True),
    ("10.0.0.0/8", "11.0.0.1", 443, False),
    ("10.0.0.0/33", "10.0.0.1", 443, False),
    ("10.0.0.0/8", "10.example", 443, False),
    ("0.0.0.0/0", "1.2.3.4", 443, True),
    ("0.0.0.0/0", "2001:db8::1", 443, False),
    ("2001:db8::/32", "2001:db8:1::1", 443, True),
    ("2001:db8::/32", "2001:db9::1", 443, False),
    ("2001:db8::1", "2001:db8::1", 443, True),
    ("2001:DB8:0:0::1", "2001:db8::1", 443, True),
    ("[2001:db8::1]", "2001:db8::1", 443, True),
    ("[2001:db8::1]:443", "2001:db8::1", 443, True),
    ("[2001:db8::1]:80", "2001:db8::1", 443, False),
    ("2001:db8::2", "2001:db8::1", 443, False),
    ("10.0.0.0/8", "::ffff:10.0.0.1", 443, True),
    ("::ffff:10.0.0.1", "10.0.0.1", 443, True),
    ("[::ffff:10.0.0.1]:443", "10.0.0.1", 443, True),
    ("::/0", "10.0.0.1", 443, False),
    ("fd00::443", "fd00::443", 443, True),  # an address, and not a port
    ("fd00::443", "fd00::", 443, False),
    ("10.0.0.0/8:443", "10.0.0.1", 443, True),  # Go takes no port after a block
    ("10.0.0.0/8:443", "10.0.0.1", 80, False),
    ("*:443", "a.example", 443, True),  # nor after everything
    ("*:443", "10.0.0.1", 443, True),
    ("*:443", "10.0.0.1", 80, False),
    ("::1", "a.example", 443, False),
    (".", "a.example", 443, False),
    ("[", "a.example", 443, False),
    ("a.example:", "a.example", 443, False),  # a port is announced and missing; Go takes it for none
    (":443", "a.example", 443, False),
    (":443", "10.0.0.1", 443, False),
]


@pytest.mark.parametrize(("no_proxy", "host", "port", "expected"), NO_PROXY)
def test_no_proxy_is_read_as_go_reads_it(no_proxy: str, host: str, port: int, *, expected: bool) -> None:
    assert is_excluded(Origin("https", host, port), no_proxy) == expected


def test_a_long_no_proxy_is_read_in_no_time() -> None:
    entries = ",".join(["a" * 1000 + "*:[" * 1000] * 100)
    assert not is_excluded(API, entries)
