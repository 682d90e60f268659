"""The README's command for the demo, as a newcomer types it: in a fresh copy and a new virtual environment. And the licence."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def fresh_copy(tmp_path: Path) -> Path:
    """The files that git knows, and nothing else."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_package_has_the_text_of_its_licence_and_its_metadata_name_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["license"], project["license-files"]) == ("MIT", ["rawsse/LICENSE"])  # PEP 639
    # https://opensource.org/license/mit: what it grants, on which condition, and what it does not promise.
    text = " ".join((ROOT / "rawsse/LICENSE").read_text(encoding="utf-8").split())
    assert text.startswith("MIT License Copyright (c) ")
    assert "to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software" in text
    assert "this permission notice shall be included in all copies or substantial portions of the Software." in text
    assert 'THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND' in text


@pytest.mark.real
@pytest.mark.skipif(
    "RAWSSE_NODE_MODULES" not in os.environ, reason="installs packages from an index: runs with the real peers"
)
def test_the_demo_command_installs_starts_and_answers(fresh_copy: Path) -> None:
    found = re.search(
        r"^python3 -m venv .*rawsse demo$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found is not None
    install, _, demo = found[0].rpartition(" && ")
    subprocess.run(["bash", "-c", install], cwd=fresh_copy, check=True, timeout=300)
    # The wheel has it twice: in the package, and where tools that collect licences look.
    texts = [
        path.read_text(encoding="utf-8") for path in fresh_copy.glob(".venv/lib/*/site-packages/rawsse*/**/LICENSE")
    ]
    assert texts == 2 * [(ROOT / "rawsse/LICENSE").read_text(encoding="utf-8")]
    process = subprocess.Popen(
        [*shlex.split(demo), "--port", "0", "--speed", "0"], cwd=fresh_copy, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        base_url = process.stdout.readline().removeprefix("listening on ").strip()
        with urllib.request.urlopen(f"{base_url}/", timeout=10) as page:
            assert "<title>rawsse</title>" in page.read().decode()
        request = urllib.request.Request(
            f"{base_url}/chat/stream", b'{"message": "Hello"}', {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            frames = answer.read().decode()
        assert 'data: {"text":"A server-sent event"}\n' in frames
        assert frames.endswith("data: [DONE]\n\n")
    finally:
        process.terminate()
        assert process.wait(10) == 0
        if process.stdout is not None:
            process.stdout.close()
