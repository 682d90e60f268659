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
    ("end@event=1", Fault("end", place=Place("event", 1))),
    ("end@byte=9", Fault("end", place=Place("byte", 9))),
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
    assert str(Fault.parse(spec)) == spec


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
        ("reset@event=3  x2  after=0", "reset@event=3 x2"),
        ("reset@event=6 after=1 x2", "reset@event=6 x2 after=1"),
        (r'error=api_error,message="Oh, \"no\" @ x"@event=1', r'error=api_error,message="Oh, \"no\" @ x"@event=1'),
    ],
)
def test_most_of_it_may_be_left_out(short: str, whole: str) -> None:
    assert Fault.parse(short) == Fault.parse(whole)


def test_every_kind_is_tried_here() -> None:
    assert {fault.kind for _, fault in READ} == FAULTS.keys()


def test_a_row_is_written_as_its_form_says() -> None:
    assert list(FAULTS) == [re.split(r"[@=\[]", form)[0] for form in HELP][3:]


def test_the_help_begins_with_the_parts_of_a_fault_and_names_those_that_can_be_in_the_head() -> None:
    assert list(HELP)[:3] == ["@PLACE", "xN", "after=N"]
    named = HELP["@PLACE"].partition("; ")[2].partition(" take head and head=N too")[0]
    assert re.split(", | and ", named) == [name for name, kind in FAULTS.items() if "head" in kind.units]


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
        ("reset@event=3 x2 after=1 x2", "invalid fault 'reset@event=3 x2 after=1 x2': write NAME"),
        ("reset@event=3 after=1 x2 after=1", "invalid fault 'reset@event=3 after=1 x2 after=1': write NAME"),
        ("gzip x0", "invalid fault 'gzip x0': write NAME"),
        ("gzip x2 x3", "invalid fault 'gzip x2 x3': write NAME"),
        ("gzip=9", "invalid fault 'gzip=9': write gzip"),
        ("gzip@event=1", "invalid fault 'gzip@event=1': write gzip"),
        ("reset@line=1", "invalid fault 'reset@line=1': write reset@PLACE; PLACE is head, head=N, byte=N or event=N"),
        (
            "drip=9@head",
            "invalid fault 'drip=9@head': write drip=BYTES_PER_SECOND[@PLACE]; its value is a number above 0; PLACE is",
        ),
        (
            "oversized-line=99@byte=1",
            "invalid fault 'oversized-line=99@byte=1': write oversized-line=BYTES[@event=N]; ",
        ),
        ("reset@event", "invalid fault 'reset@event': write reset@PLACE; "),
        ("drip", "invalid fault 'drip': write drip=BYTES_PER_SECOND[@PLACE]; its value is a number above 0"),
        ("drip=fast", "invalid fault 'drip=fast': write drip=BYTES_PER_SECOND[@PLACE]; its value is a number above 0"),
        ("drip=inf", "invalid fault 'drip=inf': write drip"),
        ("stall=0@head", "invalid fault 'stall=0@head': write stall[=SECONDS]@PLACE; its value is a number above 0"),
        ("stall=nan@head", "invalid fault 'stall=nan@head': write stall"),
        (
            "slow-head=-1",
            "invalid fault 'slow-head=-1': write slow-head=BYTES_PER_SECOND; its value is a number above 0",
        ),
        (
            "oversized-line=36",
            "invalid fault 'oversized-line=36': write oversized-line=BYTES[@event=N]; its value is a whole number from 37 on",
        ),
        (
            r'bad-chunk-size="\r\n"',
            r"""invalid fault 'bad-chunk-size="\\r\\n"': write bad-chunk-size[=TEXT][@PLACE]; its value is printable ASCII""",
        ),
        (
            "wrong-content-length=0",
            "invalid fault 'wrong-content-length=0': write wrong-content-length=N; its value is a whole number that is not 0",
        ),
        (
            "status=200",
            "invalid fault 'status=200': write status=CODE[,type=TYPE][,message=TEXT][,HEADER=VALUE …]; its value is",
        ),
        ("html=199", "invalid fault 'html=199': write html[=CODE]; its value is a whole number from 200 to 599"),
        (
            "redirect=200",
            "invalid fault 'redirect=200': write redirect[=CODE][,location=URL]; its value is a whole number from 300 to 399",
        ),
        ("drop", "invalid fault 'drop': write drop@event=N"),
        ("reset", "invalid fault 'reset': write reset@PLACE; PLACE is head, head=N, byte=N or event=N"),
        ("stall=5 x2", "invalid fault 'stall=5 x2': write stall[=SECONDS]@PLACE"),
        ("html,title=x", "invalid fault 'html,title=x': write html[=CODE]; "),
        ("error,type=x", "invalid fault 'error,type=x': write error[=TYPE]"),
        (
            r'status=429,retry-after="1\r\nx: y"',
            r"""invalid fault 'status=429,retry-after="1\\r\\nx: y"': write status=CODE""",
        ),
        ('redirect,location=""', """invalid fault 'redirect,location=""': write redirect[=CODE][,location=URL]"""),
        (r'error="\x"', r"""invalid fault 'error="\\x"': write error[=TYPE]"""),
    ],
)
def test_what_is_wrong_is_named_and_what_would_be_right(spec: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + re.escape(words)):
        Fault.parse(spec)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_where_a_place_is_missing_or_wrong_the_error_says_it_once(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Fault.parse(f"{name}@line=1")
    words = str(caught.value).partition(": write ")[2]
    assert words.count("event") == ("event" in FAULTS[name].units)
