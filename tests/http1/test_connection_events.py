"""`rawsse.http1.connection`: header fields as a mapping, and the events as values."""

from __future__ import annotations

import pytest

from rawsse.http1 import ConnectionClosed, Data, EndOfMessage, Headers, Request, Response

HEADERS = Headers([("Content-Type", "text/plain"), ("Vary", "Origin"), ("vary", "Accept")])


def test_a_field_is_found_whatever_its_case() -> None:
    assert HEADERS["content-type"] == HEADERS["CONTENT-TYPE"] == HEADERS.get("Content-type") == "text/plain"


def test_a_field_that_came_twice_reads_as_one_joined_value() -> None:
    assert HEADERS["vary"] == "Origin, Accept"


def test_get_all_keeps_the_values_apart() -> None:
    assert HEADERS.get_all("Vary") == ["Origin", "Accept"]
    assert HEADERS.get_all("absent") == []


def test_a_missing_field_is_a_key_error_that_names_it() -> None:
    with pytest.raises(KeyError, match="'absent'"):
        HEADERS["absent"]
    assert HEADERS.get("absent", "else") == "else"


def test_in_knows_names_of_any_case_and_nothing_else() -> None:
    assert "VARY" in HEADERS
    assert "absent" not in HEADERS
    number: object = 5
    assert number not in HEADERS


def test_iteration_gives_each_name_once_in_lower_case_and_in_order() -> None:
    assert list(HEADERS) == ["content-type", "vary"]
    assert len(HEADERS) == 2
    assert dict(HEADERS) == {"content-type": "text/plain", "vary": "Origin, Accept"}


def test_raw_keeps_every_field_in_the_order_received() -> None:
    assert HEADERS.raw == [("content-type", "text/plain"), ("vary", "Origin"), ("vary", "Accept")]


def test_equal_fields_are_equal_mappings() -> None:
    assert Headers([("A", "1")]) == Headers([("a", "1")]) == {"a": "1"}
    assert Headers() == {}


def test_no_repr_shows_a_value() -> None:
    headers = Headers([("x-api-key", "sk-ant-secret"), ("cookie", "secret")])
    assert repr(headers) == "Headers(x-api-key, cookie)"
    assert "secret" not in repr(Request("GET", "/", headers, "1.1")) + str(Response(200, "OK", headers, "1.1"))


@pytest.mark.parametrize("name", ["data", "other"])
def test_events_are_values(name: str) -> None:
    assert Data(b"a") == Data(b"a") != Data(b"b")
    for event in (Data(b"a"), EndOfMessage(), Response(200, "OK", HEADERS, "1.1"), Request("GET", "/", HEADERS, "1.1")):
        with pytest.raises(AttributeError):
            setattr(event, name, b"b")


def test_two_events_without_fields_are_equal_only_to_their_like() -> None:
    assert EndOfMessage() == EndOfMessage()
    end: object = EndOfMessage()
    assert end not in (ConnectionClosed(), None, Data(b""), ())
    assert {EndOfMessage(), EndOfMessage(), ConnectionClosed(), ConnectionClosed()} == {
        EndOfMessage(),
        ConnectionClosed(),
    }
    assert repr([EndOfMessage(), ConnectionClosed()]) == "[EndOfMessage(kind='end'), ConnectionClosed(kind='closed')]"


def test_a_response_has_the_official_sdk_s_name_for_its_status_too() -> None:
    assert Response(201, "Created", Headers(), "1.1").status_code == 201
