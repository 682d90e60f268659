"""rawsse.client.request: from arguments to a request, without a client. Keys, URLs and fields as a client takes them are in
`test_client.py`."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from rawsse.client.network.route import Origin, Proxies, Proxy, Route
from rawsse.client.request import (
    ANTHROPIC_VERSION,
    Endpoint,
    Query,
    credential,
    header_fields,
    query_string,
    read_custom_headers,
)
from rawsse.errors import ConfigurationError
from rawsse.messages import Message

KEY = ("x-api-key", "k")
ORIGIN = Origin("http", "h", 80)


def endpoint(base_url: str = "http://h/pre", **headers: str) -> Endpoint:
    return Endpoint(base_url, KEY, headers)


def written(body: dict[str, Any]) -> str:
    return endpoint().request("POST", "/v1/messages", route=Route(ORIGIN), body=body).body.decode()


# --- Requests ------------------------------------------------------------------------------------------------------


def test_a_request_with_a_body_says_of_what_kind_it_is() -> None:
    request = endpoint().request("POST", "/v1/messages", route=Route(ORIGIN), body={"a": 1})
    assert (request.method, request.target, request.host_field) == ("POST", "/pre/v1/messages", "h")
    assert dict(request.headers) == {
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "rawsse",
        "anthropic-version": ANTHROPIC_VERSION,
        "x-api-key": "k",
    }
    assert request.body == b'{"a":1}'


def test_a_request_without_a_body_has_no_kind_of_body() -> None:
    request = endpoint().request("GET", "/v1/models", route=Route(ORIGIN))
    assert "content-type" not in dict(request.headers)
    assert request.body == b""


def test_a_query_stands_behind_the_path() -> None:
    request = endpoint().request(
        "GET", "/v1/models", route=Route(ORIGIN), query={"limit": "5", "lifecycle": ["a", "b"]}
    )
    assert request.target == "/pre/v1/models?limit=5&lifecycle%5B%5D=a&lifecycle%5B%5D=b"


@pytest.mark.parametrize("query", [{}, {"limit": None}, {"lifecycle": []}])
def test_an_empty_query_is_none(query: Query) -> None:
    assert endpoint().request("GET", "/v1/models", route=Route(ORIGIN), query=query).target == "/pre/v1/models"


def test_a_proxy_that_forwards_gets_the_whole_url_and_its_own_password() -> None:
    route = Proxies(Proxy.from_url("http://user:pass@proxy:3128")).route_to(ORIGIN)
    request = endpoint().request("POST", "/v1/messages", route=route, body={})
    assert request.target == "http://h/pre/v1/messages"
    assert dict(request.headers)["proxy-authorization"] == "Basic dXNlcjpwYXNz"  # RFC 7617: base64 of user:pass


def test_the_version_is_the_one_that_every_gateway_takes() -> None:
    assert ANTHROPIC_VERSION == "2023-06-01"


def test_an_endpoint_does_not_tell_its_key_and_fields() -> None:
    text = repr(Endpoint("http://h", ("x-api-key", "canary"), {"x-secret": "canary"}))
    assert "canary" not in text


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, ""),
        ({"limit": "5", "after_id": "claude-x"}, "limit=5&after_id=claude-x"),
        ({"lifecycle": ["active", "retired"]}, "lifecycle%5B%5D=active&lifecycle%5B%5D=retired"),
        ({"lifecycle": []}, ""),
        ({"a": "1 +&=#/?%\r\n"}, "a=1%20%2B%26%3D%23%2F%3F%25%0D%0A"),
        ({"a": "é-_.~"}, "a=%C3%A9-_.~"),
    ],
)
def test_a_query_is_percent_encoded(params: Query, text: str) -> None:
    assert query_string(params) == text


def test_a_query_that_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"after_id is not Unicode text: '\\ud800'"):
        query_string({"after_id": "\ud800"})


def test_values_of_a_query_are_texts_and_none_is_left_out() -> None:
    values = {"text": "a", "none": None, "yes": True, "no": False, "number": 5, "half": 0.5, "list": ["a", 1], "t": ()}
    assert query_string(values) == "text=a&yes=true&no=false&number=5&half=0.5&list%5B%5D=a&list%5B%5D=1"


@pytest.mark.parametrize("value", [{}, object(), b"x", [{}]])
def test_what_is_no_value_of_a_query_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"the query parameter 'a(\[\])?' may not be"):
        query_string({"a": value})


# --- JSON ----------------------------------------------------------------------------------------------------------


def test_json_is_compact_and_not_escaped() -> None:
    assert written({"a": [1, 2.5, None, True], "ü": "☺\n"}) == '{"a":[1,2.5,null,true],"ü":"☺\\n"}'


def test_any_mapping_is_an_object() -> None:
    assert written({"a": MappingProxyType({"b": 1})}) == '{"a":{"b":1}}'


def test_a_message_may_be_sent_back() -> None:
    assert written({"m": Message({"role": "assistant", "content": []})}) == '{"m":{"role":"assistant","content":[]}}'


def test_a_number_of_an_answer_that_json_does_not_have_is_null_and_one_of_the_caller_is_refused() -> None:
    message = Message({"content": [{"type": "text", "text": "x", "score": float("inf")}]})
    assert written({"content": message.content}) == '{"content":[{"type":"text","text":"x","score":null}]}'
    assert written({"messages": [message]}) == '{"messages":[{"content":[{"type":"text","text":"x","score":null}]}]}'
    with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
        written({"temperature": float("inf")})


@pytest.mark.parametrize("once", [iter([1, 2]), (n for n in (1, 2)), {1: 0, 2: 0}.keys(), {"a": 1, "b": 2}.values()])
def test_what_can_be_gone_through_once_is_a_list(once: Any) -> None:
    assert json.loads(written({"a": once})) == {"a": [1, 2]}


def test_dates_are_their_iso_texts() -> None:
    body = {"day": date(2026, 1, 2), "time": datetime(2026, 1, 2, 3, 4, 5)}
    assert json.loads(written(body)) == {"day": "2026-01-02", "time": "2026-01-02T03:04:05"}


def test_a_file_is_its_content_in_base64(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00\xff")
    assert written({"data": tmp_path / "file"}) == '{"data":"AP8="}'


def test_what_cannot_be_json_is_quoted() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be written as JSON: '<object object at 0x[0-9a-f]+>' is no"):
        written({"a": object()})


# --- Fields --------------------------------------------------------------------------------------------------------


def test_names_are_lower_case_and_values_are_not() -> None:
    assert header_fields({"X-A": "Bc"}) == {"x-a": "Bc"}


def test_of_two_fields_with_one_name_the_last_one_wins() -> None:
    assert header_fields({"X-A": "b", "x-a": "c"}) == {"x-a": "c"}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("\n  \n", {}),
        ("X-A: b", {"x-a": "b"}),
        ("X-A:b\nX-C :  d e \n", {"x-a": "b", "x-c": "d e"}),
        ("X-A: b\r\nX-C: d\r\n", {"x-a": "b", "x-c": "d"}),
        ("X-Url: http://h:80/", {"x-url": "http://h:80/"}),
        ("X-A:", {"x-a": ""}),
        ("X-A: 1\nx-a: 2", {"x-a": "2"}),
    ],
)
def test_custom_headers_are_one_field_a_line(text: str, fields: dict[str, str]) -> None:
    assert read_custom_headers(text) == fields


@pytest.mark.parametrize("text", ["canary", ": canary", "X-A: b\ncanary\n", " : canary"])
def test_custom_headers_of_another_form_are_refused_without_being_told(text: str) -> None:
    words = "ANTHROPIC_CUSTOM_HEADERS must have lines of the form `Name: value`"
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_custom_headers(text)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "a b", "~!"])
def test_printable_ascii_may_be_a_value(value: str) -> None:
    assert header_fields({"x-a": value}) == {"x-a": value}


@pytest.mark.parametrize("value", ["a\tb", "a\rb", "a\0", "é", "\x7f"])
def test_anything_else_may_not(value: str) -> None:
    with pytest.raises(ConfigurationError, match="the header field 'x-a' has a character that HTTP does not allow"):
        header_fields({"x-a": value})


# --- Credentials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "token", "field"),
    [
        ("k", None, ("x-api-key", "k")),
        (" k\n", None, ("x-api-key", "k")),
        (None, "t", ("authorization", "Bearer t")),
        (None, None, None),
        ("", None, None),
        (None, " ", None),
    ],
)
def test_a_credential_is_one_field(key: str | None, token: str | None, field: tuple[str, str] | None) -> None:
    assert credential(key, token) == field


def test_a_request_without_a_credential_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no key: set the environment variable ANTHROPIC_API_KEY"):
        Endpoint("http://h", None, {}).request("GET", "/v1/models", route=Route(ORIGIN))


@pytest.mark.parametrize("name", ["x-api-key", "Authorization"])
def test_a_field_of_the_caller_s_own_is_a_credential(name: str) -> None:
    request = Endpoint("http://h", None, {name: "mine"}).request("GET", "/v1/models", route=Route(ORIGIN))
    assert dict(request.headers)[name.lower()] == "mine"


def test_a_key_and_a_token_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="give api_key or auth_token, not both"):
        credential("k", "t")


# --- Base URLs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "prefix"),
    [
        ("https://h", Origin("https", "h", 443), ""),
        ("http://h:81/", Origin("http", "h", 81), ""),
        ("http://h/a/b/", Origin("http", "h", 80), "/a/b"),
        ("http://bücher", Origin("http", "xn--bcher-kva", 80), ""),
    ],
)
def test_a_base_url_is_an_origin_and_a_prefix(url: str, origin: Origin, prefix: str) -> None:
    found = Endpoint(url, KEY, {})
    assert (found.base_url, found.origin, found.prefix) == (url, origin, prefix)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://u:canary@h", "the base URL may not have a user name"),
        ("http://h/?canary", "the base URL may not have a user name"),
        ("http://h:x", "the base URL is not valid"),
        ("h", "the base URL must begin with http:// or https:// and a host: 'h'"),
        ("http://h/a b", "the base URL has a character that must be %-encoded: 'http://h/a b'"),
    ],
)
def test_a_base_url_that_cannot_work_is_refused(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as caught:
        Endpoint(url, KEY, {})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"a b": "c"}, "not the name of a header field: 'a b'"),
        ({"Host": "c"}, "the header field 'host' is written by rawsse itself"),
        ({"x-a": 1}, "the header field 'x-a' must be a string, not int"),
    ],
)
def test_a_field_that_cannot_be_written_is_refused_with_the_endpoint(headers: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Endpoint("http://h", KEY, headers)
