"""Its tests: no key, no network, no waiting. `pip install rawsse pytest && pytest`; the plugin loads itself.

The marker starts a Messages API on this machine that plays the answer, and points ANTHROPIC_BASE_URL at it. A test that asks
nothing, whose fault never happens, or that would reach another host fails.
"""

from __future__ import annotations

import pytest
from headline import NoHeadlineError, headline

from rawsse.replay import answer
from rawsse.replay.fixture import Replay

ARTICLE = "On Tuesday, an umbrella was found."
HEADLINE = answer("  Umbrella Found\n")  # or the name of a file: `rawsse record --out recordings` keeps real ones


@pytest.mark.replay(HEADLINE)
def test_the_headline_is_one_line(replay: Replay) -> None:
    assert headline(ARTICLE) == "Umbrella Found"
    assert ARTICLE in replay.requests[0].body["messages"][0]["content"]


@pytest.mark.replay(HEADLINE, faults=["close@event=-4"])
def test_half_an_answer_is_no_headline() -> None:
    with pytest.raises(NoHeadlineError):
        headline(ARTICLE)


@pytest.mark.replay(HEADLINE, faults=["status=529,retry-after=0 x2"])
def test_a_busy_api_is_asked_again(replay: Replay) -> None:
    assert headline(ARTICLE) == "Umbrella Found"
    assert len(replay.requests) == 3


@pytest.mark.replay(answer("Umbrella", stop_reason="max_tokens"))
def test_an_answer_that_was_too_long_is_no_headline() -> None:
    with pytest.raises(NoHeadlineError, match="max_tokens"):
        headline(ARTICLE)
