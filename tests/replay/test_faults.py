"""rawsse.replay.faults: the text of a fault says all of it, what cannot be is refused, and every row of the table is tried."""

from __future__ import annotations

import re

import pytest

from rawsse.errors import ConfigurationError, error_type
from rawsse.replay import Fault
from rawsse.replay.faults import FAULTS, HELP, Place, read_faults, replacement

HEAD, FIRST = Place("head", 0), Place("byte", 0)

READ = [
    ("reset@head", Fault("reset", place=HEAD)),
    ("reset@head=9", Fault("reset", place=Place("head", 9))),
    ("reset@event=-1", Fault("reset", place=Place("event", -1))),
    ("close@byte=7", Fault("close", place=Place("byte", 7))),
    ("half-close@event=3", Fault("half-close", place=Place("event", 3))),
    ("stall@event=0", Fault("stall", place=Place("event", 0))),
    ("stall=2@event=0", Fault("stall", 2.0, place=Place("event", 0))),
    ("stall=0.5@head", Fault("stall", 0.5, place=HEAD)),
    ("drip=20@byte=0", Fault("drip", 20.0, place=FIRST)),
    ("drip=0.1@event=2", Fault("drip", 0.1, place=Place("event", 2))),
    ("slow-head=8", Fault("slow-head", 8.0)),
    ("drop@event=1", Fault("drop", place=Place("event", 1))),
    ("duplicate@event=1", Fault("duplicate", place=Place("event", 1))),
    ("swap@event=-2", Fault("swap", place=Place("event", -2))),
    ("garble@event=1", Fault("garble", place=Place("event", 1))),
    ("bad-utf8@event=1", Fault("bad-utf8", place=Place("event", 1))),
    ("bad-utf8@byte=1", Fault("bad-utf8", place=Place("byte", 1))),
    ("oversized-line=100@event=-1", Fault("oversized-line", 100, place=Place("event", -1))),
    (
        'error=api_error,message="Oh, no"@event=2',
        Fault("error", "api_error", (("message", "Oh, no"),), Place("event", 2)),
    ),
    ("bad-chunk-size=-1@event=1", Fault("bad-chunk-size", "-1", place=Place("event", 1))),
    ('bad-chunk-size=""@byte=0', Fault("bad-chunk-size", "", place=FIRST)),
    ("no-last-chunk", Fault("no-last-chunk")),
    ("wrong-content-length=+3", Fault("wrong-content-length", 3)),
    ("wrong-content-length=-3", Fault("wrong-content-length", -3)),
    ("gzip", Fault("gzip")),
    ("status=529", Fault("status", 529)),
    (
        "status=400,type=t,message=No.,x-should-retry=true",
        Fault("status", 400, (("type", "t"), ("message", "No."), ("x-should-retry", "true"))),
    ),
    ("html=502", Fault("html", 502)),
    ("redirect=302,location=http://a/b?c=d", Fault("redirect", 302, (("location", "http://a/b?c=d"),))),
    ("reset@event=3 x2 after=1", Fault("reset", None, (), Place("event", 3), 2, 1)),
]


@pytest.mark.parametrize(("spec", "fault"), READ, ids=[spec for spec, _ in READ])
def test_the_text_of_a_fault_says_all_of_it(spec: str, fault: Fault) -> None:
    assert Fault.parse(spec) == fault
    assert str(fault) == spec


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        (" gzip ", "gzip"),
        ("drip=20", "drip=20@byte=0"),
        ("oversized-line=99", "oversized-line=99@event=1"),
        ("error", "error=overloaded_error@event=0"),
        ("bad-chunk-size", "bad-chunk-size=zz@byte=0"),
        ("html", "html=502"),
        ("redirect", "redirect=307"),
        ("status=429,Retry-After=2", "status=429,retry-after=2"),
        ("reset@event=3  after=1 x2", "reset@event=3 x2 after=1"),
        (r'error=api_error,message="Oh, \"no\" @ x"@event=1', r'error=api_error,message="Oh, \"no\" @ x"@event=1'),
    ],
)
def test_most_of_it_may_be_left_out(short: str, whole: str) -> None:
    assert str(Fault.parse(short)) == whole


def test_every_kind_is_tried_here() -> None:
    assert {fault.kind for _, fault in READ} == FAULTS.keys()


def test_a_row_is_written_as_its_form_says() -> None:
    assert list(FAULTS) == [re.split(r"[@=\[]", form)[0] for form in HELP]


def test_times_and_after_say_in_which_requests() -> None:
    assert Fault.parse("gzip").times(2).after(1) == Fault.parse("gzip x2 after=1")


def test_faults_are_values() -> None:
    assert len({Fault.parse("reset@event=1"), Fault.parse("reset@event=1"), Fault.parse("reset@byte=1")}) == 2


def test_faults_may_be_written_or_made_one_or_many() -> None:
    reset = Fault.parse("reset@event=3")
    assert read_faults("reset@event=3") == read_faults(reset) == read_faults(["reset@event=3"]) == (reset,)
    assert read_faults(()) == ()


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
    assert error_type(status) == kind
    answer = replacement([Fault.parse(f"status={status}")])
    assert answer is not None
    assert f'"error":{{"type":"{kind}",'.encode() in answer.reads[0].data


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "invalid fault '': write NAME[=VALUE][,NAME=VALUE …][@PLACE] [xN] [after=N], as in reset@event=3 x2"),
        ("reset at 3", "invalid fault 'reset at 3': write NAME"),
        ("reset@event=3x2", "invalid fault 'reset@event=3x2': write NAME"),
        ("rest@event=3", "unknown fault 'rest'; there are reset, close, half-close, stall,"),
        ("gzip=9", "gzip takes no value: gzip"),
        ("gzip@event=1", "gzip cannot be at 'event', only at no place"),
        ("reset@line=1", "reset cannot be at 'line', only at head or byte or event"),
        ("drip=9@head", "drip cannot be at 'head', only at byte or event"),
        ("oversized-line=99@byte=1", "oversized-line cannot be at 'byte', only at event"),
        ("reset@event", "reset@event needs a number: event=N"),
        ("drip", "drip needs a value: drip=BYTES_PER_SECOND[@PLACE]"),
        ("drip=fast", "drip cannot have the value 'fast', only a number above 0: drip=BYTES_PER_SECOND[@PLACE]"),
        ("drip=inf", "drip cannot have the value 'inf', only a number above 0"),
        ("stall=0@head", "stall cannot have the value '0', only a number above 0: stall[=SECONDS]@PLACE"),
        ("stall=nan@head", "stall cannot have the value 'nan', only a number above 0"),
        ("slow-head=-1", "slow-head cannot have the value '-1', only a number above 0"),
        ("oversized-line=36", "oversized-line cannot have the value '36', only a whole number from 37 on"),
        (r'bad-chunk-size="\r\n"', "bad-chunk-size cannot have the value "),
        ("wrong-content-length=0", "wrong-content-length cannot have the value '0', only a whole number that is not 0"),
        ("status=200", "status cannot have the value '200', only a whole number from 400 to 599: status=CODE"),
        ("html=199", "html cannot have the value '199', only a whole number from 200 to 599"),
        ("redirect=200", "redirect cannot have the value '200', only a whole number from 300 to 399"),
        ("drop", "drop needs a place (event), as in drop@event=3"),
        ("reset", "reset needs a place (head or byte or event), as in reset@event=3"),
        ("stall=5 x2", "stall needs a place"),
        ("gzip x0", "the number of requests must be 1 or more, not 0"),
        ("gzip x2 x3", "a fault takes one xN, not x2 and x3"),
        ("gzip after=1 x1 after=1", "a fault takes one after=N, not after=1 and x1 and after=1"),
        ("html,title=x", "html takes no 'title': html[=CODE]"),
        ("error,type=x", "error takes no 'type': error[=TYPE]"),
        (r'status=429,retry-after="1\r\nx: y"', r"the header retry-after cannot have the value '1\r\nx: y'"),
        ('redirect,location=""', "the header location cannot have the value ''"),
        (r'error="\x"', r"""invalid JSON string: '"\\x"'"""),
    ],
)
def test_what_is_wrong_is_named_and_what_would_be_right(spec: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + re.escape(words)):
        Fault.parse(spec)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^the number of requests must be 1 or more, not 0"):
        Fault.parse("gzip").times(0)
    with pytest.raises(ConfigurationError, match=r"^the number of requests before a fault must be 0 or more, not -1"):
        Fault.parse("gzip").after(-1)
