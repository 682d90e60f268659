"""Settings for all tests. Kept tiny: what a test needs stands in the test, or in `tests/support`."""

from __future__ import annotations

import faulthandler
import functools
import gc
import os
import sys
import time

import pytest
from support.halves import Halves

from rawsse.replay import recording

collect_ignore = ["replay/made_up_project", "examples/pytest_project"]  # projects that tests run as their users would

PROXY_VARIABLES = frozenset({"all_proxy", "http_proxy", "https_proxy", "no_proxy"})


HANG_SECONDS = 600.0  # the report can end a process that still runs: it does not wait for the interpreter


class HangReport:
    """A run that hangs says where, on standard error. pytest's `faulthandler_timeout` does it with a thread for each test, for
    which every test waits; this one is set anew every few seconds."""

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # pytest captures the other one during a test
        self._due = 0.0

    def pytest_runtest_logstart(self) -> None:
        if time.monotonic() >= self._due:
            faulthandler.dump_traceback_later(HANG_SECONDS, file=self._stderr)
            self._due = time.monotonic() + HANG_SECONDS / 12

    def pytest_unconfigure(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._stderr)


def pytest_collection_finish() -> None:
    """The modules and thousands of tests that are loaded by now stay to the end: no collection has to go through them. And
    a run in virtual time ends with a collection, so that few are needed in between."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


def pytest_configure(config: pytest.Config) -> None:
    """The proxies of whoever runs the tests are none of the tests' business, and the shipped recordings, for which hundreds of
    tests ask, are read once."""
    config.pluginmanager.register(HangReport())
    config.pluginmanager.register(Halves())
    for name in [name for name in os.environ if name.lower() in PROXY_VARIABLES]:
        del os.environ[name]
    original = recording.shipped_fixtures
    read = functools.cache(original)
    loaded = [vars(module) for name, module in sys.modules.items() if name.startswith("rawsse.")]
    for names in [names for names in loaded if names.get("shipped_fixtures") is original]:
        names["shipped_fixtures"] = functools.wraps(original)(lambda: dict(read()))
