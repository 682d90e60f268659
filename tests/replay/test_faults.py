"""rawsse.replay.faults: what a fault may be, in which requests it is, and that its text says all of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import Fault
from rawsse.replay.faults import Place

EVERY_KIND = [
    (Fault.reset(before_head=True), "reset@head"),
    (Fault.reset(at_head_byte=9), "reset@head=9"),
    (Fault.reset(at_event=-1), "reset@event=-1"),
    (Fault.close(at_byte=7), "close@byte=7"),
    (Fault.half_close(at_event=3), "half-close@event=3"),
    (Fault.stall(at_event=0), "stall@event=0"),
    (Fault.stall(2, at_event=0), "stall=2@event=0"),
    (Fault.stall(0.5, before_head=True), "stall=0.5@head"),
    (Fault.drip(20), "drip=20@byte=0"),
    (Fault.drip(0.1, at_event=2), "drip=0.1@event=2"),
    (Fault.slow_head(8), "slow-head=8"),
    (Fault.drop(event=1), "drop@event=1"),
    (Fault.duplicate(event=1), "duplicate@event=1"),
    (Fault.swap(event=-2), "swap@event=-2"),
    (Fault.garble(event=1), "garble@event=1"),
    (Fault.bad_utf8(event=1), "bad-utf8@event=1"),
    (Fault.bad_utf8(at_byte=1), "bad-utf8@byte=1"),
    (Fault.oversized_line(100), "oversized-line=100@event=1"),
    (Fault.oversized_line(100, at_event=-1), "oversized-line=100@event=-1"),
    (Fault.error(), "error=overloaded_error@event=0"),
    (Fault.error("api_error", at_event=2, message="Oh, no"), 'error=api_error,message="Oh, no"@event=2'),
    (Fault.bad_chunk_size(), "bad-chunk-size=zz@byte=0"),
    (Fault.bad_chunk_size("-1", at_event=1), "bad-chunk-size=-1@event=1"),
    (Fault.no_last_chunk(), "no-last-chunk"),
    (Fault.wrong_content_length(3), "wrong-content-length=+3"),
    (Fault.wrong_content_length(-3), "wrong-content-length=-3"),
    (Fault.gzip(), "gzip"),
    (Fault.status(529), "status=529,type=overloaded_error"),
    (Fault.status(429, retry_after=2.0), "status=429,type=rate_limit_error,retry-after=2"),
    (
        Fault.status(400, type="t", message="No.", headers={"X-Should-Retry": "true"}),
        "status=400,type=t,message=No.,x-should-retry=true",
    ),
    (Fault.html(), "html=502"),
    (Fault.redirect(), "redirect=307,location=/elsewhere"),
]


@pytest.mark.parametrize(("fault", "spec"), EVERY_KIND, ids=[spec for _, spec in EVERY_KIND])
def test_the_text_of_a_fault_is_its_spec_and_says_all_of_it(fault: Fault, spec: str) -> None:
    assert str(fault) == spec
    assert Fault.parse(spec) == fault


def test_the_text_has_the_requests_too() -> None:
    fault = Fault.reset(at_event=3).times(2).after(1)
    assert str(fault) == "reset@event=3 x2 after=1"
    assert Fault.parse("reset@event=3  after=1 x2") == fault


def test_faults_are_values() -> None:
    assert len({Fault.reset(at_event=1), Fault.parse("reset@event=1"), Fault.reset(at_byte=1)}) == 2


def test_a_place_says_from_where_it_counts() -> None:
    assert [str(Place("head", 0)), str(Place("head", 1)), str(Place("byte", 0))] == ["head", "head=1", "byte=0"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "conflict_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_status_has_the_type_that_the_api_gives_it(status: int, kind: str) -> None:
    assert dict(Fault.status(status).fields) == {"type": kind}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Fault.reset(), "reset needs a place: at_byte, at_event, at_head_byte or before_head"),
        (lambda: Fault.reset(at_byte=1, at_event=2), "reset has two places: byte=1 and event=2"),
        (lambda: Fault.stall(at_head_byte=1, before_head=True), "stall has two places: at_head_byte and before_head"),
        (lambda: Fault.bad_utf8(), "bad-utf8 needs a place: event or at_byte"),
        (lambda: Fault.stall(0, at_event=1), "the seconds of a stall must be more than 0, not 0"),
        (lambda: Fault.stall(float("nan"), at_event=1), "the seconds of a stall must be more than 0, not nan"),
        (lambda: Fault.drip(float("inf")), "the bytes per second of a drip must be more than 0, not inf"),
        (lambda: Fault.slow_head(-1), "the bytes per second of a slow head must be more than 0, not -1"),
        (lambda: Fault.oversized_line(36), "the bytes of the line must be 37 or more, not 36"),
        (lambda: Fault.bad_chunk_size("\r\n"), r"the size of a chunk must be printable ASCII, not '\r\n'"),
        (lambda: Fault.wrong_content_length(0), "wrong-content-length must differ from the true length"),
        (lambda: Fault.status(200), "the status must be from 400 to 599, not 200"),
        (lambda: Fault.redirect(200), "the status must be from 300 to 399, not 200"),
        (lambda: Fault.status(429, headers={"a b": "c"}), "a header may not have the name 'a b' here"),
        (lambda: Fault.status(429, headers={"type": "c"}), "a header may not have the name 'type' here"),
        (
            lambda: Fault.status(429, retry_after="1\r\nx: y"),
            r"the header retry-after may not have the value '1\r\nx: y'",
        ),
        (lambda: Fault.redirect(location=""), "the header location may not have the value ''"),
        (lambda: Fault.gzip().times(0), "the number of requests must be 1 or more, not 0"),
        (lambda: Fault.gzip().after(-1), "the number of requests before a fault must be 0 or more, not -1"),
        (lambda: Fault.parse("gzip x0"), "the number of requests must be 1 or more, not 0"),
        (lambda: Fault.parse("stall=0@head"), "the seconds of a stall must be more than 0, not 0.0"),
    ],
)
def test_what_cannot_be_is_refused_when_the_fault_is_made(make: Callable[[], Fault], words: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + re.escape(words)):
        make()
