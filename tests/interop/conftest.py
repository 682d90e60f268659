"""The peers, and what they talk to: a relay in front of recordings.

Every test here drives software that is not ours, and skips with a reason where it is not installed:

    Python packages   the extra `interop`
    Node packages     `npm install --prefix tests/interop/node`, or RAWSSE_NODE_MODULES names the folder `node_modules`
    Chromium          /usr/bin/chromium, or RAWSSE_CHROMIUM names it
    SDK's examples    RAWSSE_SDK_EXAMPLES names the folder `examples` of the SDK's source distribution
    proxies           tinyproxy, and the extra `interop`; openssl
    tutorials         the folder `shared/seeds` beside the checkout, or RAWSSE_SEEDS names it
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.background import Background
from support.background import background as background  # a fixture
from support.browser import chromium as chromium  # a fixture
from support.command import ROOT, environment

from .stack import Stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

Start = Callable[..., Stack]
Node = Callable[..., str]

NODE_MODULES = Path(os.environ.get("RAWSSE_NODE_MODULES", ROOT / "tests/interop/node/node_modules"))
SEEDS = Path(os.environ.get("RAWSSE_SEEDS", ROOT.parent / "shared/seeds"))


@pytest.fixture
def start(background: Background) -> Start:
    """Start a relay in front of recordings: see `Stack`."""

    def start(*recordings: Any, **options: Any) -> Stack:
        return Stack(background, recordings, **options)

    return start


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Run an ECMAScript module in Node; what it printed. Its faults fail the test."""
    executable = shutil.which("node")
    if executable is None:
        pytest.skip("no Node on PATH")

    def run(script: str, **env: str) -> str:
        file = tmp_path / "script.mjs"
        file.write_text(script)
        if NODE_MODULES.is_dir() and not (tmp_path / "node_modules").exists():
            (tmp_path / "node_modules").symlink_to(NODE_MODULES)
        command, variables = [executable, str(file)], environment(env)
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, timeout=15, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    return run


@pytest.fixture
def packages() -> Callable[..., None]:
    """Skip unless these npm packages are installed."""

    def need(*names: str) -> None:
        for name in names:
            if not (NODE_MODULES / name).is_dir():
                pytest.skip(f"no npm package {name} in {NODE_MODULES} (RAWSSE_NODE_MODULES names another folder)")

    return need


@pytest.fixture
def document() -> Callable[[str], str]:
    """A tutorial, as it was published."""

    def read(number: str) -> str:
        found = sorted(SEEDS.glob(f"{number}_*.txt"))
        if not found:
            pytest.skip(f"the tutorial {number} is not in {SEEDS} (RAWSSE_SEEDS names another folder)")
        return found[0].read_text(encoding="utf-8")

    return read


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    with chromium.new_context() as context:
        context.set_default_timeout(10_000)
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A fresh page; a fault that its scripts do not catch fails the test."""
    page = context.new_page()

    def fail(fault: object) -> None:
        raise AssertionError(f"the page's script failed: {fault}")

    page.on("pageerror", fail)
    return page
