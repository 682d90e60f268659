"""`python -m tests.benchmarks`: what it measures, and what it says of peers that are absent. Nothing is measured here."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from . import __main__ as benchmarks
from . import measure

README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")


def test_every_row_is_a_module_of_this_folder_and_is_on_the_page_of_results() -> None:
    for name, row in benchmarks.ROWS.items():
        module = row.command.split()[0]
        assert module == "pytest" or Path(__file__).with_name(f"{module.removeprefix('tests.benchmarks.')}.py").exists()
        assert f"| `{name}` |" in README
    assert set(re.findall(r"^\| `([\w-]+)` \|", README, re.MULTILINE)) == set(benchmarks.ROWS)


def test_peers_that_are_absent_are_named_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(measure, "NGINX", str(tmp_path / "nginx"))
    monkeypatch.setattr(measure, "NODE_MODULES", tmp_path)
    said = dict(measure.absent())
    assert said["httpx_sse"] == "pip install httpx-sse"
    assert said["nginx"] == "apt install nginx"
    assert "express @anthropic-ai/sdk" in said["express"]
    assert {"aiohttp", "anthropic", "uvloop"} < set(said)


def test_a_row_that_does_not_exist_is_answered_with_those_that_do() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "everything"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in benchmarks.ROWS)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the rows, as they are run; the decoder's fails, and the one of the blocking client does not end."""
    run: list[list[str]] = []

    def pretend(command: Sequence[str], *, timeout: float, **_: Any) -> subprocess.CompletedProcess[bytes]:
        run.append([*command[2:]])
        if "blocking-burst" in command:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, int("tests.benchmarks.decoder" in command))

    monkeypatch.setattr(subprocess, "run", pretend)
    return run


def all_rows(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    return benchmarks.main()


def test_a_row_that_fails_or_does_not_end_does_not_stop_the_others_and_is_in_the_exit_code(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all_rows(monkeypatch) == 1
    assert [command[0] for command in commands] == [
        shlex.split(row.command)[0] for name, row in benchmarks.ROWS.items() if name != "tests"
    ]
    out = capsys.readouterr().out
    assert out.endswith("\nfailed: blocking, decoder\n")
    assert "(failed: not done after " in out
    assert "(failed with exit code 1 after " in out


def test_if_all_rows_are_done_the_exit_code_is_0(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_rows(monkeypatch, "--only", "start", "--rounds", "2") == 0
    assert commands == [["tests.benchmarks.start", "--rounds", "2"]]


@pytest.mark.parametrize("name", [name for name in benchmarks.ROWS if name != "tests"])
def test_the_options_of_a_row_are_those_of_its_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the line about the machine, the first that a module prints: then it has understood its options."""

    class UnderstoodError(Exception):
        pass

    def stop() -> None:
        raise UnderstoodError

    row = benchmarks.ROWS[name]
    for more in ("", row.short):
        module, *arguments = shlex.split(f"{row.command} {more} --rounds 1")
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        monkeypatch.setattr(measure, "print_machine", stop)
        with pytest.raises(UnderstoodError):
            importlib.import_module(module.removeprefix("tests.benchmarks"), __package__).main()


def test_a_kind_that_fails_is_not_run_again_and_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    runs: list[str] = []

    def fail() -> measure.Sample:
        runs.append("nginx")
        raise OSError("it does not start")

    def succeed() -> measure.Sample:
        runs.append("rawsse")
        return {"us/event": 20.0}

    with pytest.raises(SystemExit, match="nginx failed: OSError: it does not start"):
        measure.compare("a title", {"nginx": fail, "rawsse": succeed}, 2, ("nginx",))
    assert runs == ["nginx", "rawsse", "rawsse"]
    assert capsys.readouterr().out.splitlines()[-1].split() == ["rawsse", "20.0", "20.0", "20.0"]


def test_the_table_has_the_median_and_its_ratio_to_each_peer() -> None:
    runs = {"rawsse": [{"us": 9.0}, {"us": 30.0}, {"us": 20.0}], "sdk": [{"us": 40.0}] * 3}
    lines = [line.split() for line in measure.table("title", runs, ["sdk"])]
    assert lines[-2:] == [
        ["rawsse", "20.0", "1/2.00", "9.00", "30.0", "20.0"],
        ["sdk", "40.0", "1.00x", "40.0", "40.0", "40.0"],
    ]
