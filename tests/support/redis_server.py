"""A Redis that lives for one test module."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def need_redis() -> None:
    """Skip the test module where Redis, or its client, is not installed."""
    pytest.importorskip("redis", reason="the store in Redis needs the extra redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed", allow_module_level=True)


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis that listens at a socket, not at a port."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(place), "--dir", folder, "--save", "", "--daemonize", "no"]
        with subprocess.Popen(["redis-server", *options], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert any("ready to accept connections" in line for line in server.stdout)
                yield f"unix://{place}"
            finally:
                server.terminate()
