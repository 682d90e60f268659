"""rawsse.client.retry, `Timeouts`: the five clocks, as numbers. What they mean is tried in `test_exchange_clocks.py`."""

from __future__ import annotations

import math

import pytest

from rawsse.client.retry import Timeouts
from rawsse.errors import ConfigurationError


def test_four_clocks_are_on_by_default() -> None:
    assert Timeouts() == Timeouts(connect=10, head=120, silence=90, content=600, total=None)


@pytest.mark.parametrize("name", ["connect", "head", "silence", "content", "total"])
@pytest.mark.parametrize("value", [0, -1, math.nan, True, "10"])
def test_a_clock_must_be_positive_or_none(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"timeouts: {name} must be a number of seconds above 0, or None, not"):
        Timeouts(**{name: value}).check()
    assert getattr(Timeouts(**{name: None}), name) is None
