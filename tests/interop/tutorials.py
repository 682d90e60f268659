"""Code out of tutorials, as it stands there.

Knows where in the published text the code is, and what publishing took from it: some pages lost the indentation, which only
Python minds. What is given back is white space, and nothing else; a test keeps it so.
"""

from __future__ import annotations

import re

__all__ = ["between", "indented", "up_to", "without_types"]


def between(text: str, first: str, after: str) -> str:
    """From `first` on, up to `after`, which is left out."""
    start = text.index(first)
    return text[start : text.index(after, start)]


def up_to(text: str, first: str, last: str) -> str:
    """From `first` on, up to `last`, which is the end."""
    start = text.index(first)
    return text[start : text.index(last, start) + len(last)]


def indented(code: str, depths: str) -> str:
    """The lines of `code`, each as deep as its digit in `depths` says."""
    lines = code.strip().split("\n")
    assert len(lines) == len(depths), f"{len(lines)} lines and {len(depths)} depths"
    return "\n".join("    " * int(depth) + line for line, depth in zip(lines, depths, strict=True)) + "\n"


# The annotations of the tutorials' TypeScript. A compiler takes out the same, and Node only from version 22 on.
_TYPES = (
    (": (text: string) => void", ""),
    (": string", ""),
    ("body!", "body"),
    ("<AbortController | null>", ""),
)


def without_types(code: str) -> str:
    """TypeScript as JavaScript."""
    for annotation, nothing in _TYPES:
        code = re.sub(re.escape(annotation), nothing, code)
    return code
