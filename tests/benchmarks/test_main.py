"""`python -m tests.benchmarks`: what it measures, and what it says of peers that are absent. Nothing is measured here."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import __main__ as benchmarks

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
    monkeypatch.setattr(benchmarks, "NGINX", str(tmp_path / "nginx"))
    monkeypatch.setattr(benchmarks, "NODE_MODULES", tmp_path)
    said = dict(benchmarks.absent())
    assert said["httpx_sse"] == "pip install httpx-sse"
    assert said["nginx"] == "apt install nginx"
    assert "express @anthropic-ai/sdk" in said["Express with the official SDK"]
    assert {"aiohttp", "anthropic", "uvloop"} < set(said)


def test_a_row_that_does_not_exist_is_answered_with_those_that_do() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "everything"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in benchmarks.ROWS)
