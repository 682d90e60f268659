"""A real Chromium for the tests of the page, one per file, and a fresh page with a server of its own per test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.background import background as background  # fixtures
from support.browser import chromium as chromium

from .chat_page import Chat
from .scripted_server import ScriptedServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def settings() -> dict[str, Any]:
    """What kind of browser the test wants; tests override it by parametrization."""
    return {}


@pytest.fixture
def chat(chromium: Browser, settings: dict[str, Any]) -> Iterator[Chat]:
    with ScriptedServer() as server, chromium.new_context(**settings) as context:
        context.set_default_timeout(10_000)
        yield Chat(context.new_page(), server)
