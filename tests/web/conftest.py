"""A real Chromium for the tests of the page, one per file, and a fresh page with a server of its own per test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .chat_page import Chat
from .scripted_server import ScriptedServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = Path(os.environ.get("RAWSSE_CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM} (RAWSSE_CHROMIUM names another)")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: the interop extra")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def settings() -> dict[str, Any]:
    """What kind of browser the test wants; tests override it by parametrization."""
    return {}


@pytest.fixture
def chat(chromium: Browser, settings: dict[str, Any]) -> Iterator[Chat]:
    with ScriptedServer() as server, chromium.new_context(**settings) as context:
        context.set_default_timeout(10_000)
        yield Chat(context.new_page(), server)
