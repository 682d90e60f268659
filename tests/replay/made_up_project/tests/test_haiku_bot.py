"""The bot against answers of the API, good ones and bad ones."""

from __future__ import annotations

import pytest
from haiku_bot.bot import HaikuError, haiku, line_to_count

from rawsse.replay import Fault, answer, tool_use
from rawsse.replay.fixture import Replay

SPRING = "An old silent pond\nA frog jumps into the pond\nSplash! Silence again."


@pytest.mark.replay("spring")
def test_a_haiku_has_three_lines(replay: Replay) -> None:
    assert haiku("spring") == SPRING
    assert replay.requests[0].body["messages"] == [{"role": "user", "content": "Write a haiku about spring."}]


@pytest.mark.replay(answer("Let me count.", tool_use("count_syllables", {"line": "An old silent pond"})))
def test_the_model_may_ask_for_a_line_to_be_counted() -> None:
    assert line_to_count(SPRING) == "An old silent pond"


@pytest.mark.replay("spring", faults=[Fault.parse("status=529,retry-after=3 x2")])
def test_a_busy_poet_is_asked_again_when_it_said(replay: Replay) -> None:
    waits: list[float] = []
    assert haiku("spring", sleep=waits.append) == SPRING
    assert waits == [3, 3]
    assert len(replay.requests) == 3


@pytest.mark.replay("spring", faults=["status=529"])
def test_a_poet_that_stays_busy_is_left_alone() -> None:
    with pytest.raises(HaikuError, match=r"the poet does not answer \(529\)"):
        haiku("spring", sleep=lambda _: None)


@pytest.mark.parametrize("fault", ["reset@event=-4", "close@event=-4", "error=overloaded_error@event=-4"])
def test_half_a_haiku_is_not_taken_for_one(replay: Replay, fault: str) -> None:
    replay.play("spring", faults=[fault])
    with pytest.raises(HaikuError) as caught:
        haiku("spring")
    assert SPRING.startswith(caught.value.begun)


@pytest.mark.replay("spring", "autumn", match="sequence")
def test_each_season_has_its_own() -> None:
    assert haiku("spring") != haiku("autumn")


@pytest.mark.parametrize("split", ["whole", "event", "line-ends", "bytes", "random:1"])
def test_however_the_network_cuts_it_is_the_same_haiku(replay: Replay, split: str) -> None:
    replay.play("autumn", split=split)
    assert haiku("autumn").splitlines()[0] == "Café chairs stacked up."
