"""rawsse.replay.wire: whose turn a fault is, counted by hand."""

from __future__ import annotations

import pytest

from rawsse.errors import ConfigurationError
from rawsse.replay.faults import replacement
from rawsse.replay.recording import Read, Recording
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


EVENTS = Recording(reads=tuple(Read(0.0, b'data: {"n": %d}\n\n' % number) for number in range(12)))


def unused_after(requests: int, *specs: str) -> dict[str, str | None]:
    """The faults that are unused after so many requests, and why."""
    schedule = Schedule(specs, [EVENTS])
    for _ in range(requests):
        due = schedule.next()
        schedule.applied(due, replacement(due) or EVENTS)
    return {str(fault): schedule.hidden.get(fault) for fault in schedule.unused}


def test_what_was_not_applied_is_unused() -> None:
    assert unused_after(1, "gzip", "reset@event=3 after=1") == {"reset@event=3 after=1": None}


# Each line: one that ends the answer, and one that lies behind it.
BEHIND = [
    ("close@event=5", "stall@event=6"),
    ("close@event=5", "stall=30@event=6"),
    ("close@event=5", "reset@event=6"),
    ("close@event=5", "reset@event=5"),  # the first of them ends the answer
    ("close@event=5", "close@byte=90"),
    ("close@event=5", "drip=9@event=6"),
    ("close@event=5", "bad-chunk-size@event=6"),
    ("close@event=5", "no-last-chunk"),
    ("close@event=5", "end@event=6"),
    ("close@event=5", "error@event=6"),
    ("close@event=5", "drop@event=6"),
    ("close@event=5", "duplicate@event=9"),
    ("close@event=5", "swap@event=9"),
    ("close@event=5", "garble@event=9"),
    ("close@event=5", "bad-utf8@event=9"),
    ("close@event=5", "oversized-line=99@event=9"),
    ("reset@event=5", "garble@event=9"),
    ("half-close@event=5", "garble@event=9"),
    ("stall@event=5", "garble@event=9"),
    ("close@head", "gzip"),
    ("close@head", "slow-head=9"),
    ("close@head", "wrong-content-length=+9"),
    ("reset@head=9", "close@event=0"),
    ("reset@head", "status=529"),  # no byte of the 529 is sent
]


@pytest.mark.parametrize(("end", "fault"), BEHIND)
def test_a_fault_behind_the_end_that_another_makes_is_unused_and_says_so(end: str, fault: str) -> None:
    assert unused_after(1, end, fault) == {fault: f"it lies behind {end}, which ends the answer"}


@pytest.mark.parametrize("fault", ["garble@event=9", "bad-utf8@byte=100", "duplicate@event=5"])
@pytest.mark.parametrize("end", ["end@event=5", "error@event=5"])
def test_an_edit_of_what_a_later_edit_takes_away_is_unused(fault: str, end: str) -> None:
    assert unused_after(1, fault, end) == {fault: f"it lies behind {end}, which ends the answer"}


@pytest.mark.parametrize(
    "faults",
    [
        ["close@event=5", "garble@event=4"],
        ["stall=30@event=3", "close@event=5"],
        ["stall=30@event=5", "close@event=5"],
        ["close@event=5", "gzip"],
        ["close@event=5", "wrong-content-length=+9"],
        ["close@event=5", "slow-head=9"],
        ["drip=9@event=3", "reset@event=5"],
        ["status=529 x1", "close@head=12"],
        ["drop@event=0", "duplicate@event=0", "garble@event=4", "close@event=5"],
        ["garble@event=5", "drop@event=0", "close@event=5"],  # its event is the one before the close then
        ["close@event=5", "close@event=5"],
    ],
    ids=" ".join,
)
def test_a_fault_before_the_end_is_used(faults: list[str]) -> None:
    assert unused_after(1, *faults) == {}


def test_a_fault_that_lies_behind_another_once_is_used_in_a_later_request() -> None:
    faults = ("close@event=5 x1", "garble@event=9")
    assert list(unused_after(1, *faults)) == ["garble@event=9"]
    assert unused_after(2, *faults) == {}


def begun_after(requests: int, *specs: str) -> dict[str, str]:
    schedule = Schedule(specs, [EVENTS])
    for _ in range(requests):
        due = schedule.next()
        schedule.applied(due, replacement(due) or EVENTS)
    return {str(fault): count for fault, count in schedule.begun.items()}


def test_a_fault_that_happened_in_fewer_requests_than_it_says_is_only_begun() -> None:
    assert [begun_after(requests, "status=529 x2") for requests in range(4)] == [
        {},
        {"status=529 x2": "1 of 2"},
        {},
        {},
    ]
    assert begun_after(1, "status=529 x1", "status=529 x1") == {"status=529 x1": "1 of 2"}
    assert begun_after(3, "gzip") == begun_after(1, "close@event=5", "close@event=5") == {}


def test_a_fault_that_lies_behind_another_in_one_of_its_requests_is_only_begun() -> None:
    faults = ("garble@event=9 x2", "close@event=5 x1 after=1")
    assert begun_after(5, *faults) == {"garble@event=9 x2": "1 of 2"}


def test_a_fault_that_waits_for_its_turn_lies_behind_what_replaces_all_answers_and_not_behind_one_answer() -> None:
    why = "it lies behind status=529, which replaces the answer"
    assert unused_after(1, "status=529", "reset@event=3", "html") == {"reset@event=3": why, "html": why}
    assert unused_after(1, "status=529 x1", "reset@event=3") == {"reset@event=3": None}
    assert unused_after(2, "status=529 x1", "reset@event=3") == {}


@pytest.mark.parametrize("faults", [["garble@event=3", "drop@event=3"], ["end@event=12"]], ids=" ".join)
def test_a_fault_that_changes_nothing_is_unused(faults: list[str]) -> None:
    assert unused_after(1, *faults) == {faults[0]: "it changed nothing"}


def test_the_log_says_once_which_fault_did_not_happen(caplog: pytest.LogCaptureFixture) -> None:
    unused_after(3, "close@event=5", "garble@event=9")
    said = "the fault garble@event=9 did not happen: it lies behind close@event=5, which ends the answer"
    assert caplog.messages == [said]


def test_only_the_last_words_on_places_are_kept() -> None:
    schedule = Schedule()
    for number in range(MAX_KEPT_MISPLACED + 2):
        schedule.failed(ConfigurationError(str(number)))
    assert (len(schedule.misplaced), schedule.misplaced[0]) == (MAX_KEPT_MISPLACED, "2")
