"""An empty folder and a bare environment for each test of the command line, and recordings where the API would be."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.background import Background
from support.background import background as background  # a fixture

from rawsse import cli
from rawsse.replay import Recording, ReplayServer, shipped_fixtures

KEY = "sk-ant-secret"

Play = Callable[..., ReplayServer]

VARIABLES = (
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "RAWSSE_TOKEN",
    "RAWSSE_METRICS_TOKEN",
    "RAWSSE_HOST",
    "PORT",
)


@pytest.fixture(scope="package", autouse=True)
def _one_parser() -> Iterator[None]:
    """The parser of the command line is made once: it keeps nothing of what it has read, and takes most of a small command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_parser", functools.cache(cli._parser))
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an environment with nothing but a key."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back to what it was, whatever the command does
        monkeypatch.delenv(name)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    return tmp_path


@pytest.fixture
def play(background: Background, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Begin to play recordings, or shipped ones by name, where the API would be."""

    def play(*given: str | Recording, **options: Any) -> ReplayServer:
        shipped = shipped_fixtures()
        recordings = [shipped[each] if isinstance(each, str) else each for each in given]
        server = background.enter(ReplayServer(recordings, **options))
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        return server

    return play
