"""What clients make of faults, as a table for people: the words of its cells, and its place in a document.

Pure. Knows neither clients nor faults.

    cell(text="A serv", stop=None, whole="A server")            # "⚠ cut, no error"
    put(document, table(["fault", "curl"], [["`gzip`", "whole"]]))

A cell with a ⚠ is an answer that is not the one that was meant, and a client that said nothing of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

__all__ = ["BEGIN", "END", "MADE_WITH", "SILENT", "cell", "difference", "put", "table", "taken"]

BEGIN = "<!-- The tables from here on are written by tests/interop/test_fault_matrix.py with RAWSSE_WRITE_TABLE=1. -->"
END = "<!-- Here the written tables end. -->"

MADE_WITH = "Made with "
"""How the line begins that names versions. Others than those may be installed, as long as they do the same."""

SILENT = "⚠"

GOOD_STOPS = ("end_turn", "stop")
"""An answer ended as it should: in the API's words, and in the AI SDK's."""

LONG_SECONDS = 5
"""A wait that a cell mentions."""


def cell(
    *,
    text: str,
    stop: str | None,
    whole: str,
    error: str = "",
    status: int = 200,
    hangs: bool = False,
    requests: int = 1,
    seconds: float = 0.0,
) -> str:
    """What became of the answer whose text should be `whole`, in a few words."""
    words = _words(text, stop, whole, error, status, hangs)
    # A hundredth more: a sum of floats may be just below what it should be.
    waited = int(seconds + 0.01)
    after = f" after {waited} s" if waited >= LONG_SECONDS else ""
    return f"{words}{after}{'' if requests == 1 else f', {requests} requests'}"


def _words(text: str, stop: str | None, whole: str, error: str, status: int, hangs: bool) -> str:
    if hangs:
        return "hangs"
    if error:
        return error if error.startswith("exit ") else f"`{error}`"
    if status >= 300:
        return f"status {status}"
    if text == whole and stop in GOOD_STOPS:
        return "whole"
    return f"{SILENT} {_silent(text, stop, whole)}, no error"


def _silent(text: str, stop: str | None, whole: str) -> str:
    if text == whole:
        return "no end"
    if not text:
        return "nothing"
    return "altered" if stop in GOOD_STOPS or not whole.startswith(text) else "cut"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# --- In a document ---------------------------------------------------------------------------------------------------


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
