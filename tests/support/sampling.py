"""What the plain suite takes a sample of, and RAWSSE_EVERY_CUT=1, as in CI, takes whole."""

from __future__ import annotations

import os

__all__ = ["one_in"]


def one_in(count: int) -> int:
    """A step through cases: the plain suite takes one in so many, RAWSSE_EVERY_CUT=1 each."""
    return 1 if os.environ.get("RAWSSE_EVERY_CUT") else count
