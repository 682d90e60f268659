"""rawsse.replay.faults: the grammar, and what is said to those who get it wrong."""

from __future__ import annotations

import re

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay import Fault
from rawsse.replay.faults import _FORMS, FAULTS, Spec, read_spec, to_text, write_value


def test_a_spec_is_a_name_with_a_place_and_the_requests_it_is_for() -> None:
    assert read_spec("reset@event=3 x2 after=1") == Spec("reset", {"at_event": 3}, 2, 1)


def test_most_of_it_may_be_left_out() -> None:
    assert read_spec(" gzip ") == Spec("gzip", {}, None, 0)


@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        ("reset@head", {"at_head_byte": 0}),
        ("reset@head=9", {"at_head_byte": 9}),
        ("reset@byte=-1", {"at_byte": -1}),
        ("stall@event=0", {"at_event": 0}),
        ("stall=1.5@event=0", {"seconds": 1.5, "at_event": 0}),
        ("drip=20", {"bytes_per_second": 20.0}),
        ("drop@event=-2", {"event": -2}),
        ("bad-utf8@event=1", {"event": 1}),
        ("bad-utf8@byte=1", {"at_byte": 1}),
        ("wrong-content-length=+5", {"by": 5}),
        ("wrong-content-length=-5", {"by": -5}),
        ('bad-chunk-size=""', {"size": ""}),
        ('error=api_error,message="Oh, \\"no\\" @ x"@event=1', {"type": "api_error", "message": 'Oh, "no" @ x'}),
        ("status=429,Retry-After=2,type=t", {"code": 429, "type": "t", "headers": {"retry-after": "2"}}),
        ("redirect=302,location=http://a/b?c=d", {"code": 302, "location": "http://a/b?c=d"}),
    ],
)
def test_values_fields_and_places_are_arguments(spec: str, arguments: dict[str, object]) -> None:
    assert read_spec(spec).arguments.items() >= arguments.items()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "",
            "no fault: ''; write NAME[=VALUE][,NAME=VALUE …][@PLACE] [xN] [after=N], as in reset@event=3 x2",
        ),
        ("reset at 3", "no fault: 'reset at 3'; write NAME"),
        ("reset@event=3x2", "no fault: 'reset@event=3x2'; write NAME"),
        ("rest@event=3", "no fault has the name 'rest'; there are reset, close, half-close, stall,"),
        ("gzip=9", "gzip takes no value"),
        ("gzip@event=1", "gzip cannot be at 'event', only at no place"),
        ("reset@line=1", "reset cannot be at 'line', only at head or byte or event"),
        ("drip=9@head", "drip cannot be at 'head', only at byte or event"),
        ("reset@event", "reset@event needs a number: event=N"),
        ("drip", "drip needs a value: drip=BYTES_PER_SECOND[@PLACE]"),
        ("drip=fast", "drip cannot have the value 'fast': drip=BYTES_PER_SECOND[@PLACE]"),
        ("drop", "drop needs a place: @event=N, as in drop@event=3"),
        ("reset", "reset needs a place: @head, @head=N, @byte=N or @event=N, as in reset@event=3"),
        ("stall=5 x2", "stall needs a place: @head, @head=N, @byte=N or @event=N, as in stall@event=3"),
        ("bad-utf8", "bad-utf8 needs a place: @event=N or @byte=N, as in bad-utf8@event=3"),
        ("gzip x2 x3", "a fault takes one xN, not x2 and x3"),
        ("gzip after=1 x1 after=1", "a fault takes one after=N, not after=1 and after=1"),
        ("html,title=x", "html takes no 'title': html[=CODE]"),
        (r'error="\x"', r"""no JSON string: '"\\x"'"""),
    ],
)
def test_what_is_wrong_is_named_and_what_would_be_right(spec: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + re.escape(words)):
        read_spec(spec)


def test_every_fault_that_can_be_read_is_listed_and_can_be_made() -> None:
    names = [re.split(r"[@=\[]", spec)[0] for spec in FAULTS]
    assert names == list(_FORMS)
    assert all(callable(getattr(Fault, name.replace("-", "_"))) for name in names)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("a b", '"a b"'),
        ("a,b", '"a,b"'),
        ('"', '"\\""'),
        ("", '""'),
        ("a@b", '"a@b"'),
        (5.0, "5"),
        (0.25, "0.25"),
    ],
)
def test_values_are_quoted_where_they_must_be(value: float | str, text: str) -> None:
    assert write_value(value) == text


def test_a_value_may_be_written_with_its_sign() -> None:
    assert [write_value(by, is_signed=True) for by in (5, -5)] == ["+5", "-5"]


def test_numbers_are_written_as_people_do() -> None:
    assert [to_text(number) for number in (2, 2.0, 2.5, "2.0")] == ["2", "2", "2.5", "2.0"]
