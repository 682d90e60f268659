"""Streams to try the relay with: the project's own fixtures, and real recordings where there are some.

`RAWSSE_RECORDINGS` names a folder of recordings of real streams (`*.sse`); by default it is looked for beside the checkout.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.sampling import one_in

from rawsse.replay import Recording, shipped_fixtures

__all__ = ["FIXTURES", "REAL", "bodies"]

FIXTURES = shipped_fixtures()
FOLDER = Path(os.environ.get("RAWSSE_RECORDINGS") or Path(__file__).parents[3] / "shared" / "recordings")
REAL = sorted(FOLDER.glob("*.sse"))


@cache
def bodies() -> Any:
    """Every body, by name, as parameters of a test; of real streams the plain suite takes one in eight."""
    real = [pytest.param(Recording.load(path).body, id=path.stem) for path in REAL[:: one_in(8)]]
    if not real:
        skip = pytest.mark.skip(reason=f"there are no recordings of real streams in {FOLDER}")
        real = [pytest.param(b"", id="real", marks=skip)]
    return [pytest.param(recording.body, id=name) for name, recording in FIXTURES.items()] + real
