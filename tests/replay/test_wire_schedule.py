"""rawsse.replay.wire: whose turn a fault is, counted by hand."""

from __future__ import annotations

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay.faults import Fault
from rawsse.replay.wire import MAX_KEPT_MISPLACED, Schedule


def happens_in(spec: str) -> list[int]:
    schedule = Schedule(spec)
    return [number for number in range(5) if schedule.next()]


def kinds(*specs: str) -> list[str]:
    """The names of the faults in each of four requests."""
    schedule = Schedule(specs)
    return ["+".join(fault.kind for fault in schedule.next()) for _ in range(4)]


def test_a_fault_happens_in_every_request_unless_it_is_told_otherwise() -> None:
    assert happens_in("gzip") == [0, 1, 2, 3, 4]
    assert happens_in("gzip x2") == [0, 1]
    assert happens_in("gzip after=3") == [3, 4]
    assert happens_in("gzip x2 after=1") == [1, 2]


# Each line: two faults, and what the first four requests have of them.
PAIRS = [
    # Both at once, where both can be.
    ("drop@event=1 x1", "reset@event=3 x1", ["drop+reset", "", "", ""]),
    ("drop@event=1 x1", "reset@event=3", ["drop+reset", "reset", "reset", "reset"]),
    ("gzip x2", "drip=9 x1", ["gzip+drip", "gzip", "", ""]),
    # Any answer has a head, a length and a coding.
    ("status=529 x1", "reset@head x1", ["status+reset", "", "", ""]),
    ("status=529 x1", "close@head=9 x1", ["status+close", "", "", ""]),
    ("status=529 x1", "slow-head=9 x1", ["status+slow-head", "", "", ""]),
    ("html x1", "gzip x1", ["html+gzip", "", "", ""]),
    ("redirect x1", "wrong-content-length=+9 x1", ["redirect+wrong-content-length", "", "", ""]),
    # Events, bytes and chunks are those of the recording.
    ("status=529 x1", "reset@event=3", ["status", "reset", "reset", "reset"]),
    ("status=529 x1", "reset@event=3 x1", ["status", "reset", "", ""]),
    ("reset@event=3 x1", "status=529 x1", ["status", "reset", "", ""]),
    ("html x2", "close@byte=9 x1", ["html", "html", "close", ""]),
    ("redirect x1", "drop@event=1 x2", ["redirect", "drop", "drop", ""]),
    ("status=529 x1", "error@event=0 x1", ["status", "error", "", ""]),
    ("status=529 x1", "oversized-line=99 x1", ["status", "oversized-line", "", ""]),
    ("status=529 x1", "bad-chunk-size x1", ["status", "bad-chunk-size", "", ""]),
    ("status=529 x1", "no-last-chunk x1", ["status", "no-last-chunk", "", ""]),
    ("status=529 x1 after=1", "stall=1@event=1 x2", ["stall", "status", "stall", ""]),
    ("status=529", "reset@event=3 x1", ["status", "status", "status", "status"]),
    # `after` counts all requests.
    ("status=529 x1", "reset@event=3 x1 after=1", ["status", "reset", "", ""]),
    ("status=529 x1", "reset@event=3 x1 after=2", ["status", "", "reset", ""]),
    # There is only one answer.
    ("status=529 x1", "html x1", ["status", "html", "", ""]),
    ("status=529 x2", "redirect x1", ["status", "status", "redirect", ""]),
]


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS)
def test_two_faults_share_a_request_if_they_can(first: str, second: str, expected: list[str]) -> None:
    assert kinds(first, second) == expected


def test_what_was_not_applied_is_unused() -> None:
    schedule = Schedule(["gzip", "reset@event=3 after=1"])
    schedule.applied(schedule.next())
    assert schedule.unused == [Fault.parse("reset@event=3 after=1")]


def test_only_the_last_words_on_places_are_kept() -> None:
    schedule = Schedule()
    for number in range(MAX_KEPT_MISPLACED + 2):
        schedule.failed(ConfigurationError(str(number)))
    assert (len(schedule.misplaced), schedule.misplaced[0]) == (MAX_KEPT_MISPLACED, "2")
