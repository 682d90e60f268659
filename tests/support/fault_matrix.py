"""What clients make of faults, as a table for people: its place in a document. `rawsse.replay.conform` writes it.

put(document, as_columns({"curl": rows}))
"""

from __future__ import annotations

import difflib

__all__ = ["BEGIN", "END", "MADE_WITH", "difference", "put", "taken"]

BEGIN = (
    "<!-- Tables of rawsse.replay.conform, written by tests/interop/test_fault_matrix.py with RAWSSE_WRITE_TABLE=1. -->"
)
END = "<!-- Here the written tables end. -->"

MADE_WITH = "Made with "
"""How the line begins that names versions. Others than those may be installed, as long as they do the same."""


def taken(document: str) -> str:
    """What stands between the marks."""
    before, begin, rest = document.partition(BEGIN)
    inside, end, _ = rest.partition(END)
    assert begin, f"there is no mark in {before[:50]!r} …: {BEGIN}"
    assert end, f"there is no mark: {END}"
    return inside


def put(document: str, written: str) -> str:
    """The document with this between its marks."""
    return document.replace(f"{BEGIN}{taken(document)}{END}", f"{BEGIN}{written}{END}")


def difference(kept: str, made: str) -> str:
    """Where two versions of the tables differ; empty if they say the same of what clients do."""
    if _without_versions(kept) == _without_versions(made):
        return ""
    lines = difflib.unified_diff(kept.splitlines(), made.splitlines(), "as written", "as it is", n=0, lineterm="")
    return "\n".join(lines)


def _without_versions(written: str) -> list[str]:
    return [line for line in written.splitlines() if not line.startswith(MADE_WITH)]
