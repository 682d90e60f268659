"""rawsse.relay.guard: which strangers are turned away, and with which words."""

from __future__ import annotations

import asyncio

import pytest

from rawsse.errors import ConfigurationError
from rawsse.relay import Guard, check_bind
from rawsse.relay.dialects import Answer
from rawsse.relay.guard import MAX_LOGGED, is_loopback
from rawsse.relay.users import User, identify

HOST = {"host": "localhost:8000"}


def status(guard: Guard, headers: dict[str, str], *, is_call: bool = True) -> int | None:
    refusal = guard.refuse(headers, is_call=is_call)
    return refusal.status if refusal else None


def told(refusal: Answer | None) -> tuple[int, str, str]:
    assert refusal is not None
    return refusal.status, refusal.type, str(refusal)


# --- Where it may listen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_on_the_loopback_address_no_token_is_needed(host: str) -> None:
    check_bind(host, ())
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.org", "localhost.example.org"])
@pytest.mark.parametrize("tokens", [(), ("",)])
def test_it_refuses_to_listen_elsewhere_without_a_token(host: str, tokens: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=f"^refusing to listen on {host} without a token: anyone who reaches"):
        check_bind(host, tokens)


def test_with_a_token_it_listens_anywhere() -> None:
    check_bind("0.0.0.0", ["t0ken"])


# --- The Host field: a domain that was pointed at this machine -------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LocalHost:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"]
)
def test_it_goes_by_the_names_of_this_machine(host: str) -> None:
    assert Guard().refuse({"host": host}) is None


OTHER_NAMES = [
    "evil.example",
    "localhost.evil.example",
    "localhost@evil.example",
    "127.0.0.1.evil.example",
    "192.168.1.5:8000",
    "[::2]:8000",
    "[",
    # No `Host` at all (RFC 9112, 3.2), although it begins as one that is welcome: not every server refuses these.
    "localhost evil.example",
    "localhost:80@evil.example",
    "localhost:evil",
    "localhost/evil",
    "127.0.0.1#",
    "[::1]evil",
    "[::1",
    "::1",
    "localhost\x01",
]


@pytest.mark.parametrize("host", [*OTHER_NAMES, "", "localhost, evil.example"])
def test_another_name_is_refused(host: str) -> None:
    refusal = Guard().refuse({"host": host})
    text = "the relay does not have the name in Host: Guard(hosts=…) allows it, or serve --allow-host"
    assert told(refusal) == (421, "invalid_request_error", text)


def test_a_request_without_a_host_is_refused() -> None:
    assert status(Guard(), {}) == 421


@pytest.mark.parametrize("bind", ["192.168.1.5", "fe80::5", "[fe80::5]"])
def test_it_goes_by_the_address_that_it_listens_on(bind: str) -> None:
    host = bind if "." in bind else f"[{bind.strip('[]')}]"
    assert Guard(bind_host=bind).refuse({"host": f"{host}:8000"}) is None


@pytest.mark.parametrize("name", ["Chat.Example.ORG", "chat.example.org:443"])
def test_it_goes_by_names_that_it_was_given(name: str) -> None:
    assert Guard(hosts=[name]).refuse({"host": "chat.example.org"}) is None


def test_listening_on_every_address_makes_no_name_of_the_empty_one() -> None:
    assert status(Guard(bind_host=""), {"host": ""}) == 421


# --- The Origin field: a page elsewhere, in the owner's own browser --------------------------------------------------


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://LOCALHOST:8000"])
def test_the_relays_own_page_is_welcome(origin: str) -> None:
    assert Guard().refuse({**HOST, "origin": origin}) is None


FOREIGN = [
    "https://evil.example",
    "http://localhost:3000",
    "http://localhost",
    "http://localhost:8000.evil.example",
    "null",
    "file://",
    "ftp://localhost:8000",
    "http://[::1",
    "http://localhost:8000/",
]


@pytest.mark.parametrize("origin", [*FOREIGN, "", "https://evil.example, http://localhost:8000"])
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    refusal = Guard(origins=["https://friend.example"]).refuse({**HOST, "origin": origin})
    assert told(refusal) == (403, "permission_error", "pages of this origin may not use the relay")


def test_how_to_allow_what_was_refused_is_told_to_the_operator_once(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    for _ in range(2):
        guard.refuse({"host": "chat.example.org\n"})
        guard.refuse({**HOST, "origin": "https://friend.example"})
    assert caplog.messages == [
        "refused the host 'chat.example.org ': Guard(hosts=…) allows it, or serve --allow-host",
        "refused the origin 'https://friend.example': Guard(origins=…) allows it, or serve --allow-origin",
    ]


def test_strangers_cannot_fill_the_log_with_names(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    for number in range(2 * MAX_LOGGED):
        assert status(guard, {"host": f"{number}.example" + "x" * 9000}) == 421
    assert len(caplog.messages) == MAX_LOGGED
    assert all(len(line) < 1000 for line in caplog.messages)


@pytest.mark.parametrize("given", ["https://friend.example", "https://Friend.example/"])
def test_a_page_of_an_origin_that_was_allowed_is_welcome(given: str) -> None:
    guard = Guard(origins=[given])
    headers = {**HOST, "origin": "https://friend.example"}
    assert guard.refuse(headers) is None
    assert guard.allow_origin(headers) == "https://friend.example"


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://evil.example", None])
def test_other_origins_are_not_named_to_browsers(origin: str | None) -> None:
    headers = HOST if origin is None else {**HOST, "origin": origin}
    assert Guard(origins=["https://friend.example"]).allow_origin(headers) is None


def test_a_page_elsewhere_that_sends_no_origin_is_told_by_its_browser() -> None:
    refusal = Guard().refuse({**HOST, "sec-fetch-site": "cross-site"})
    assert told(refusal) == (403, "permission_error", "pages of other sites may not use the relay")


def test_a_link_elsewhere_may_lead_to_the_page() -> None:
    assert Guard().refuse({**HOST, "sec-fetch-site": "cross-site"}, is_call=False) is None


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_browsers_own_word_for_our_page_is_welcome(site: str) -> None:
    assert Guard().refuse({**HOST, "sec-fetch-site": site}) is None


def test_an_allowed_origin_may_come_from_another_site() -> None:
    guard = Guard(origins=["https://friend.example"])
    headers = {**HOST, "origin": "https://friend.example", "sec-fetch-site": "cross-site"}
    assert guard.refuse(headers) is None


@pytest.mark.parametrize("host", ["LocalHost:8000", "localhost:8000"])
@pytest.mark.parametrize("origin", ["HTTP://localhost:8000", "http://LOCALHOST:8000"])
def test_names_are_the_same_in_capitals(host: str, origin: str) -> None:
    """RFC 9110, 4.2.3: "The scheme and host are case-insensitive"."""
    assert Guard().refuse({"host": host, "origin": origin}) is None
    guard = Guard(origins=["https://friend.example"])
    assert guard.allow_origin({**HOST, "origin": "https://Friend.example"}) == "https://Friend.example"


# --- Tokens --------------------------------------------------------------------------------------------------------

GUARDED = Guard(tokens=["first", "s3cret"])


def who(headers: dict[str, str]) -> User | None:
    return asyncio.run(identify({}, headers, GUARDED.tokens))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer s3cret"},
        {"authorization": "bearer  first "},
        {"x-api-key": "s3cret"},
        {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": "s3cret"},
        {"authorization": "Bearer of-somebody-else", "x-api-key": "s3cret"},
    ],
    ids=str,
)
def test_each_of_the_tokens_opens_the_door(headers: dict[str, str]) -> None:
    assert who({**HOST, **headers}) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "s3cret"},
        {"authorization": "Basic s3cret"},
        {"x-api-key": "s3cre"},
        {"x-api-key": "s3cret2"},
        {"x-api-key": ""},
        {"x-api-key": "s3cr\u00e9t"},
    ],
    ids=str,
)
def test_without_one_of_them_it_stays_shut(headers: dict[str, str]) -> None:
    with pytest.raises(Answer, match="Authorization: Bearer …, or x-api-key") as caught:
        who({**HOST, **headers})
    assert (caught.value.status, caught.value.headers) == (401, (("www-authenticate", "Bearer"),))


@pytest.mark.parametrize("token", ["", " ", "two words", "s3cr\u00e9t", "line\n", "tab\t"])
def test_a_token_that_no_field_can_bring_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^a token must be printable ASCII without spaces, and not empty$"):
        Guard(tokens=["fine", token])


def test_a_guard_shows_no_token() -> None:
    assert "s3cret" not in repr(GUARDED)
