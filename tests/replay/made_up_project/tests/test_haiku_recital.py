"""The recital, second by second, in no time."""

from __future__ import annotations

import pytest
from haiku_bot.recital import recital

from rawsse.replay import Fault
from rawsse.replay.virtual_clock import VirtualClock


@pytest.mark.replay("spring", speed=1)
async def test_words_are_recited_as_they_come(virtual_clock: VirtualClock) -> None:
    heard = [(virtual_clock.elapsed, text) async for text in recital("spring")]
    assert heard[0] == (0.8, "An")
    assert heard[-1] == (1.9, " again.")


@pytest.mark.replay("spring", faults=[Fault.parse("stall=7@event=3")])
async def test_the_bot_hums_while_the_poet_thinks(virtual_clock: VirtualClock) -> None:
    heard = [text async for text in recital("spring")]
    assert heard[:4] == ["hm…", "hm…", "hm…", "An"]
    assert virtual_clock.elapsed == 7
