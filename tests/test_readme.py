"""The README is true: its code runs and prints what it says, its lists are whole, its diagram is the code's table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rawsse
from rawsse.cli import _parser
from rawsse.messages.message import TRANSITIONS

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
ALL_BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", TEXT, re.DOTALL)
BLOCKS = [(code, output) for code, output in ALL_BLOCKS if "import pytest" not in code]
TESTS = [code for code, _ in ALL_BLOCKS if "import pytest" in code]

# Somebody's own code, as `my_bot`: it believes in no answer that has no end.
BOT = """
import json, os, urllib.request

def ask(question):
    body = {"model": "m", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": question}]}
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
        lines = [json.loads(line[6:]) for line in answer if line.startswith(b"data: ")]
    assert lines[-1]["type"] == "message_stop"
    return "".join(event["delta"].get("text", "") for event in lines if event["type"] == "content_block_delta")
"""


def diagram() -> str:
    """The table of permitted orders as a Mermaid diagram."""
    lines = ["stateDiagram-v2", "    [*] --> START"]
    for state, leads in TRANSITIONS.items():
        for target in dict.fromkeys(leads.values()):
            events = [event for event, leads_to in leads.items() if leads_to is target]
            lines.append(f"    {state.name} --> {target.name}: {', '.join(events)}")
    return "\n".join([*lines, "    DONE --> [*]", "    FAILED --> [*]"])


@pytest.mark.parametrize(("code", "output"), BLOCKS, ids=[f"block{n}" for n in range(len(BLOCKS))])
def test_a_code_block_runs_and_prints_what_the_readme_says(code: str, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    if output:
        assert done.stdout == output


def test_the_tests_in_the_readme_are_green(tmp_path: Path) -> None:
    (tmp_path / "my_bot.py").write_text(BOT)
    for number, code in enumerate(TESTS):
        (tmp_path / f"test_{number}.py").write_text(code)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "rawsse.replay.testing.pytest_plugin",
        "-p",
        "no:cacheprovider",
        ".",
    ]
    path = os.pathsep.join([str(README.parent), str(tmp_path)])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout


def test_the_first_code_stands_before_line_30() -> None:
    assert TEXT[: TEXT.index("asyncio.run")].count("\n") < 30


def test_the_diagram_is_the_table_of_permitted_orders() -> None:
    found = re.search(r"```mermaid\n(.*?)\n```", TEXT, re.DOTALL)
    assert found is not None
    assert found[1] == diagram()


def test_every_exported_name_is_in_the_readme() -> None:
    assert [name for name in rawsse.__all__ if f"`{name}`" not in TEXT] == []


def test_every_command_is_in_the_readme() -> None:
    names = re.findall(r"^    (\w+)  ", _parser().format_help(), re.MULTILINE)
    assert "demo" in names
    assert [name for name in names if f"`rawsse {name}" not in TEXT] == []


def test_the_readme_has_the_length_of_a_readme() -> None:
    assert 100 <= TEXT.count("\n") <= 250
