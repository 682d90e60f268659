"""A real Chromium, driven by Playwright: /usr/bin/chromium, or RAWSSE_CHROMIUM names another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["chromium"]

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
    """One browser per file: while Playwright runs, its event loop lies on this thread, and `asyncio.run` cannot."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM} (RAWSSE_CHROMIUM names another)")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: the interop extra")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
