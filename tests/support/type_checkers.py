"""What mypy and pyright say of a small program: the numbers of the lines that they find wrong.

PROGRAM = '''
message.txt  # wrong
'''
assert find_wrong("mypy", PROGRAM, tmp_path) == marked(PROGRAM)
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import ROOT

__all__ = ["find_wrong", "marked"]


def marked(program: str) -> dict[int, str]:
    """The lines that end in `# wrong`, by number."""
    return {number: line for number, line in enumerate(program.splitlines(), 1) if line.endswith("# wrong")}


def find_wrong(checker: str, program: str, folder: Path) -> dict[int, str]:
    """The lines that the type checker, in its strict mode, finds wrong, by number. Skips the test if it is not installed."""
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    numbers = {"mypy": _ask_mypy, "pyright": _ask_pyright}[checker](path)
    return {number: program.splitlines()[number - 1] for number in sorted(numbers)}


def _ask_mypy(program: Path) -> set[int]:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed: the extra `dev`")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--follow-imports", "silent"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    said = _run([*command, "--cache-dir", str(program.parent / "cache"), str(program)], program.parent, environment)
    print(said)
    return {int(number) for number in re.findall(r"^program\.py:(\d+): error", said, re.MULTILINE)}


def _ask_pyright(program: Path) -> set[int]:
    pyright = Path(sys.executable).with_name("pyright")
    if not pyright.exists() or shutil.which("node") is None:
        pytest.skip("pyright is not installed: the extra `dev`, and Node")
    settings = {"include": [str(program)], "extraPaths": [str(ROOT)], "typeCheckingMode": "strict"}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [str(pyright), "--outputjson", "--pythonpath", sys.executable, "--project", str(program.parent)]
    told = json.loads(_run(command, program.parent, dict(os.environ)))["generalDiagnostics"]
    print(json.dumps(told, indent=1))
    return {each["range"]["start"]["line"] + 1 for each in told if each["severity"] == "error"}


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout
