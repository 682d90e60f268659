"""rawsse.replay: every public name is there."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import rawsse.replay
from rawsse.replay import check
from rawsse.replay.check import Place


def test_every_public_name_is_there() -> None:
    assert [name for name in rawsse.replay.__all__ if getattr(rawsse.replay, name, None) is None] == []


def test_the_map_of_tasks_names_every_function_and_class() -> None:
    tasks = re.findall(r"\w+", (rawsse.replay.__doc__ or "").partition("Read in this order")[0])
    given = {
        name
        for name in rawsse.replay.__all__
        if inspect.isroutine(it := getattr(rawsse.replay, name)) or inspect.isclass(it)
    }
    assert sorted(given.difference(tasks)) == []


def test_names_of_two_modules_are_the_documented_ones() -> None:
    assert rawsse.replay.Place is Place
    assert callable(check)


def test_importing_it_does_not_load_pytest() -> None:
    code = "import sys, rawsse.replay; print('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_name_that_is_not_there_is_refused_as_usual() -> None:
    with pytest.raises(AttributeError, match=r"^module 'rawsse\.replay' has no attribute 'Replays'$"):
        rawsse.replay.Replays  # type: ignore[attr-defined]  # noqa: B018
