"""What the tests of the network share."""

from __future__ import annotations

import socket
from typing import Any

import pytest


@pytest.fixture
def listener() -> Any:
    """A socket that the operating system lets people connect to, and that nobody serves."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock
