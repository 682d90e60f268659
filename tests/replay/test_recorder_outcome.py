"""rawsse.replay.recorder: what a recording, and the error that its reader met, say about success."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rawsse import errors
from rawsse.errors import APIError, EndingKind
from rawsse.replay import Read, Recording, shipped_fixtures
from rawsse.replay.recorder import FAILED, end_of, outcome
from rawsse.replay.recording import End

FIXTURES = shipped_fixtures()
PLAIN = FIXTURES["plain"]
REFUSED = Recording(status=529, headers={"content-type": "application/json"}, reads=(Read(0.1, b"{}"),))
WHOLE_JSON = Recording(headers={"content-type": "application/json"}, reads=(Read(0.1, b'{"type":"message"}'),))

ENDINGS: dict[str, EndingKind] = {
    "cut": "truncated",
    "error-after-content": "error",
    "error-before-content": "error",
}


def first(recording: Recording, count: int, end: End) -> Recording:
    return replace(recording, reads=recording.reads[:count], end=end)


def ending_of(recording: Recording, error: APIError | None = None) -> EndingKind:
    return outcome(recording, error)[1]


def settled(recording: Recording) -> Recording:
    return outcome(recording)[0]


# --- How an exchange ended -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, "clean"),
        (errors.StreamTruncatedError("gone"), "cut"),
        (errors.APIConnectionError("gone"), "cut"),
        (errors.HTTPProtocolError("no chunk"), "cut"),
        (errors.StreamCancelledError("closed"), "client_closed"),
        (errors.SilenceTimeoutError("silent"), "client_closed"),
        (errors.EventOrderError("wrong", rule="one"), "client_closed"),
        (errors.MessageTooLargeError("large", limit=1), "client_closed"),
    ],
)
def test_who_ended_the_exchange_goes_by_the_error(error: APIError | None, end: End) -> None:
    assert end_of(error) == end


# --- How the stream ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FIXTURES))
def test_every_fixture_has_its_ending(name: str) -> None:
    assert ending_of(FIXTURES[name]) == ENDINGS.get(name, "complete")


@pytest.mark.parametrize("count", range(len(PLAIN.reads)))
def test_a_part_of_an_answer_is_never_complete(count: int) -> None:
    has_stop_reason = b'"message_delta"' in first(PLAIN, count, "clean").body
    expected = "complete" if has_stop_reason else "truncated"
    assert ending_of(first(PLAIN, count, "clean")) == expected
    assert ending_of(first(PLAIN, count, "cut")) == expected


def test_who_leaves_in_the_middle_has_cancelled() -> None:
    assert ending_of(first(PLAIN, 10, "client_closed")) == "cancelled"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.SilenceTimeoutError("silent"), "timeout"),
        (errors.EventOrderError("wrong", rule="one"), "error"),
        (errors.MessageTooLargeError("large", limit=1), "limit"),
        (errors.StreamCancelledError("closed"), "cancelled"),
        (errors.StreamTruncatedError("gone"), "truncated"),
    ],
)
def test_an_error_of_the_reader_says_more_than_the_bytes(error: APIError, kind: EndingKind) -> None:
    assert ending_of(first(PLAIN, 10, "client_closed"), error) == kind


@pytest.mark.parametrize("error", [errors.StreamTruncatedError("gone"), errors.SilenceTimeoutError("silent")])
def test_a_connection_that_breaks_behind_the_answer_does_no_harm(error: APIError) -> None:
    assert ending_of(replace(PLAIN, end="cut"), error) == "complete"


def test_an_answer_that_breaks_the_rules_is_no_success_although_it_is_whole() -> None:
    assert ending_of(PLAIN, errors.EventOrderError("wrong", rule="one")) == "error"


def test_an_event_that_cannot_be_read_is_an_error() -> None:
    assert ending_of(Recording(reads=(Read(0.0, b"event: message_start\ndata: {\n\n"),))) == "error"


def test_a_refusal_is_an_error_whatever_its_end() -> None:
    assert ending_of(REFUSED) == "error"
    assert ending_of(replace(REFUSED, end="client_closed"), errors.StreamCancelledError("closed")) == "error"


def test_json_is_complete_when_it_came_to_its_end() -> None:
    assert ending_of(WHOLE_JSON) == "complete"
    assert ending_of(replace(WHOLE_JSON, end="cut")) == "truncated"
    assert ending_of(replace(WHOLE_JSON, end="client_closed")) == "cancelled"


def test_text_that_speaks_of_message_stop_is_no_message_stop() -> None:
    data = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"\\nevent: message_stop\\n"}}\n\n'
    assert ending_of(Recording(reads=(Read(0.0, data),))) != "complete"


def test_leaving_on_purpose_is_no_failure_and_all_the_rest_is() -> None:
    assert {"truncated", "error", "timeout", "limit"} == FAILED


# --- Leaving at the end ----------------------------------------------------------------------------------------------


def test_who_leaves_after_message_stop_has_left_nothing_out() -> None:
    assert settled(replace(PLAIN, end="client_closed")) == PLAIN


@pytest.mark.parametrize("count", range(len(PLAIN.reads)))
def test_who_leaves_before_it_has_a_recording_that_says_so(count: int) -> None:
    assert settled(first(PLAIN, count, "client_closed")).end == "client_closed"


def test_a_cut_stays_a_cut() -> None:
    assert settled(replace(PLAIN, end="cut")).end == "cut"


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_message_stop_is_found_in_every_form_of_lines_and_cuts(line_end: bytes) -> None:
    body = PLAIN.body.replace(b"\n", line_end)
    for size in (1, 7, len(body)):
        reads = tuple(Read(0.0, body[at : at + size]) for at in range(0, len(body), size))
        assert settled(replace(PLAIN, reads=reads, end="client_closed")).end == "clean"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_message_stop_is_found_where_events_have_no_names(size: int) -> None:
    body = re.sub(rb"event:.*\n", b"", PLAIN.body)
    reads = tuple(Read(0.0, body[at : at + size]) for at in range(0, len(body), size))
    assert settled(replace(PLAIN, reads=reads, end="client_closed")).end == "clean"


def test_before_message_stop_nothing_is_settled_where_events_have_no_names() -> None:
    body = re.sub(rb"event:.*\n", b"", PLAIN.body)
    before = body[: body.rindex(b"data:")]
    assert settled(replace(PLAIN, reads=(Read(0.0, before),), end="client_closed")).end == "client_closed"
