"""rawsse.replay: every public name is there, and what only tests need is loaded when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rawsse.replay
from rawsse.replay import fixture, virtual_clock


@pytest.mark.parametrize("name", rawsse.replay.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rawsse.replay, name) is not None


def test_names_that_are_loaded_later_are_the_things_themselves() -> None:
    assert rawsse.replay.Replay is fixture.Replay
    assert rawsse.replay.VirtualClock is virtual_clock.VirtualClock


def test_importing_it_loads_nothing_that_only_tests_need() -> None:
    late = ("rawsse.replay.fixture", "rawsse.replay.virtual_clock", "pytest")
    code = f"import sys, rawsse.replay; print(*set({late}) & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_a_name_that_is_not_there_is_refused_as_usual() -> None:
    with pytest.raises(AttributeError, match=r"^module 'rawsse\.replay' has no attribute 'Replays'$"):
        rawsse.replay.Replays  # noqa: B018
