"""rawsse.replay.testing.entry: where pytest finds the plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.command import ROOT, environment

from rawsse.replay.testing import entry
from rawsse.replay.testing.entry import NAME, load


def test_it_is_the_plugin_itself_that_is_loaded_and_under_its_own_name() -> None:
    module = load()
    assert module.__name__ == NAME
    assert module.__file__ == str(ROOT / "rawsse/replay/testing/pytest_plugin.py")
    assert module.DEFAULT_SPLITS == ("whole", "event", "line-ends", "bytes", "random:1")


def test_a_copy_stands_for_the_plugin_and_imports_nothing_of_rawsse(tmp_path: Path) -> None:
    (tmp_path / "_rawsse_pytest.py").write_bytes(Path(str(entry.__file__)).read_bytes())
    code = """
import sys, _rawsse_pytest
print(_rawsse_pytest.replay.__name__, [name for name in sys.modules if name.startswith("rawsse")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment({"PYTHONPATH": f"{ROOT}"}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "replay []\n"


def test_without_rawsse_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="rawsse's pytest plugin is installed, and rawsse is not"):
        load()
