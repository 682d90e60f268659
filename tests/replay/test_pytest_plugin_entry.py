"""_rawsse_pytest: where pytest finds the plugin."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from support.command import ROOT

SOURCE = ROOT / "rawsse/replay/entry.py"


def entry() -> Any:
    """The file as a module of another name: under its own it is the plugin."""
    spec = importlib.util.spec_from_file_location("entry", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_the_plugin_itself_that_is_loaded_and_under_its_own_name() -> None:
    module = entry().load()
    assert module.__name__ == "_rawsse_pytest"
    assert module.__file__ == str(ROOT / "rawsse/replay/pytest_plugin.py")
    assert module.is_this_machine("localhost")


def test_without_rawsse_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    module = entry()
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match="the pytest plugin of rawsse is installed, but rawsse cannot be found"):
        module.load()
