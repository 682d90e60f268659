"""support.halves: a run of tests in two processes."""

from __future__ import annotations

import os
import re
import sys

import pytest

from support import halves
from support.halves import MANY, Halves, is_wanted

pytest_plugins = ["pytester"]

TEST = """
import os
def test_it():
    if os.getpid() != {pid}:
        {in_fork}
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # so the fork takes all but two of the files
"""


def run_ten(in_fork: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.RunResult:
    """A run of ten files of one test each."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(halves, "is_wanted", lambda *_: True)
    code = TEST.format(pid=os.getpid(), in_fork=in_fork)
    pytester.makepyfile(**{f"test_{number}": code for number in range(10)})
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[Halves()])


def test_the_failures_of_the_fork_are_told_and_counted(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_ten("print('said there'); raise ValueError('of the fork')", pytester, monkeypatch)
    outcomes = result.parseoutcomes()
    assert (result.ret, sum(outcomes.values()), outcomes["failed"] >= 8) == (1, 10, True)
    assert len(re.findall("\nE +ValueError: of the fork\n", result.stdout.str())) == outcomes["failed"]
    assert result.stdout.str().count("\nsaid there\n") == outcomes["failed"]


def test_a_fork_that_dies_fails_the_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_ten("os._exit(7)", pytester, monkeypatch)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    assert "the fork ended with 7" in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("options", [["-x"], ["--maxfail=2"], ["--pdb"], ["--trace"], ["-s"], ["--collect-only"]])
def test_an_option_that_wants_one_process_gets_one(
    options: list[str], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.delitem(sys.modules, "coverage", raising=False)
    config = pytester.parseconfig()
    assert (is_wanted(config, MANY), is_wanted(config, MANY - 1)) == (True, False)
    assert not is_wanted(pytester.parseconfig(*options), MANY)
