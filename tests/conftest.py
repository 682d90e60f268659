"""Settings for all tests. Kept tiny: what a test needs stands in the test, or in `tests/support`."""

from __future__ import annotations

import functools
import gc
import os
import sys

from rawsse.replay import recording

collect_ignore = ["replay/made_up_project", "examples/pytest_project"]  # projects that tests run as their users would

PROXY_VARIABLES = frozenset({"all_proxy", "http_proxy", "https_proxy", "no_proxy"})


def pytest_collection_finish() -> None:
    """The modules and thousands of tests that are loaded by now stay to the end: no collection has to go through them. And
    a run in virtual time ends with a collection, so that few are needed in between."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


def pytest_configure() -> None:
    """The proxies of whoever runs the tests are none of the tests' business, and the shipped recordings, for which hundreds of
    tests ask, are read once."""
    for name in [name for name in os.environ if name.lower() in PROXY_VARIABLES]:
        del os.environ[name]
    original = recording.shipped_fixtures
    read = functools.cache(original)
    loaded = [vars(module) for name, module in sys.modules.items() if name.startswith("rawsse.")]
    for names in [names for names in loaded if names.get("shipped_fixtures") is original]:
        names["shipped_fixtures"] = functools.wraps(original)(lambda: dict(read()))
