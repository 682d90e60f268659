"""Size, shape and wording of the package, held by figures that may only fall.

A code line is a physical line with a token that is neither a comment nor part of a docstring. Import cycles have no figure
here: the reading order that `test_map.py` checks, type-only imports included, leaves room for none.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from support.source import PACKAGE, Source, read_source, source_of

REPO = Path(__file__).parents[1]


class Budget(NamedTuple):
    """At most so many code lines in at most so many files, of those that `pattern` matches (`client/retry.py`)."""

    pattern: str
    code_lines: int
    files: int


# --- The figures ---------------------------------------------------------------------------------------------------

_RELAY = r"relay/(?!(ui|users|quotas|ledger|metrics|event_source|doctor|store|redis_store|node|stored_runs)\.).*"
_CLIENT = r"client/(?!tools/|blocking/|(schema|output)\.).*"

BUDGETS: Mapping[str, Budget] = {
    "the reading path": Budget(rf"errors\.py|sse\.py|(http1|messages|server)/.*|{_CLIENT}|{_RELAY}", 7297, 42),
    "the package": Budget(r".*", 17411, 93),
    "the client without tools, schema and blocking": Budget(_CLIENT, 2677, 15),
    "the blocking client": Budget(r"client/blocking/.*", 306, 3),
}

MAX_FILE_LINES = 450
MAX_BODY_LINES = 45
MAX_COMPLEXITY = 12

DOORS = ("rawsse", "rawsse.sse", "rawsse.http1", "rawsse.messages", "rawsse.server", "rawsse.relay", "rawsse.replay")
"""What programs import from: all that these export is documented."""

WORDS: Mapping[str, tuple[str, int]] = {
    "whoever, nobody, somebody": (r"\b(whoever|whomever|nobody|somebody)\b", 0),
    "lest, anew, shall": (r"\b(lest|anew|shall)\b", 0),
    "of its own, under way, at hand": (r"\b(of its own|under way|at hand)\b", 0),
    "a limit of yours, broke the rules": (r"\b(limits? of yours|br(oke|eaks?) (the|a) rules?)\b", 0),
    "is no X, is none": (r"(?<!here )\b(is|are|was|were) (no (?!longer\b|more\b)|none\b)", 0),
    "a what-clause at the head of a sentence": (r"\bWhat (?!is\b)[^?.]*[.,:]", 0),
    "the formula at the head of a file": (r"\b(This (file|room) knows|It refuses to)\b", 0),
}
"""Wording to avoid in the package and the README, and how often it is still found: a figure that only falls."""

# -------------------------------------------------------------------------------------------------------------------


@cache
def sources() -> Mapping[str, Source]:
    """The package's files, by their place below it."""
    return {path.relative_to(PACKAGE).as_posix(): source_of(path) for path in sorted(PACKAGE.rglob("*.py"))}


def without_docstring(room: ModuleType) -> Iterator[str]:
    """What a package exports and does not document: classes, their public methods and properties, functions."""
    for name in room.__all__:
        thing = getattr(room, name)
        members = vars(thing) if inspect.isclass(thing) else {}
        public = [key for key, value in members.items() if key[0] != "_" and callable(getattr(value, "fget", value))]
        if inspect.isclass(thing) or inspect.isfunction(thing):
            things = {name: thing, **{f"{name}.{key}": getattr(thing, key) for key in public}}
            yield from (key for key, value in things.items() if not inspect.getdoc(value))


@cache
def prose() -> Mapping[str, str]:
    """The text of the package's files and of the README, by place, with line breaks and comment signs as one space."""
    paths = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in (".py", ".js", ".html", ".css")]
    texts = {
        path.relative_to(REPO).as_posix(): path.read_text(encoding="utf-8") for path in [*paths, REPO / "README.md"]
    }
    return {place: re.sub(r"\s+((#|//|\*) )?", " ", text) for place, text in texts.items()}


def too_long(sizes: Mapping[str, int], limit: int) -> list[str]:
    return [f"{name}: {size}, at most {limit}" for name, size in sizes.items() if size > limit]


# --- How it is measured --------------------------------------------------------------------------------------------


def test_a_line_of_code_has_more_than_a_comment_or_a_docstring() -> None:
    text = (
        '"""A\nfile."""\n\nx = """a\n\n# b"""  # text\n\n# why\ndef f():\n    "Doc."\n    return (\n        1\n    )\n'
    )
    text += '\nA = 1\n"""One."""\n'
    source = read_source(text)
    assert source.code == {4, 5, 6, 9, 11, 12, 13, 15}
    assert source.bodies == {9: 3}


def test_a_public_method_without_a_docstring_is_found() -> None:
    class Thing:
        """A thing."""

        def _inner(self) -> None: ...

        def outer(self) -> None: ...

    room = ModuleType("room")
    room.__dict__.update(__all__=["Thing"], Thing=Thing)
    assert list(without_docstring(room)) == ["Thing.outer"]


# --- Size ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUDGETS)
def test_the_code_keeps_within_its_budget(name: str) -> None:
    budget = BUDGETS[name]
    held = [source for place, source in sources().items() if re.fullmatch(budget.pattern, place)]
    assert held
    assert sum(len(source.code) for source in held) <= budget.code_lines
    assert len(held) <= budget.files


def test_no_file_is_too_long() -> None:
    assert too_long({place: len(source.code) for place, source in sources().items()}, MAX_FILE_LINES) == []


# --- Shape ---------------------------------------------------------------------------------------------------------


def test_no_function_is_too_long() -> None:
    bodies = {f"{place}:{at}": size for place, source in sources().items() for at, size in source.bodies.items()}
    assert too_long(bodies, MAX_BODY_LINES) == []


def test_no_function_may_branch_too_much() -> None:
    lint = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "C90" in lint["select"]
    assert lint["mccabe"]["max-complexity"] <= MAX_COMPLEXITY
    assert "C901" not in "".join(prose().values()) + str(lint.get("per-file-ignores"))


@pytest.mark.parametrize("room", DOORS)
def test_all_public_names_are_documented(room: str) -> None:
    assert list(without_docstring(importlib.import_module(room))) == []


# --- Wording -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORDS)
def test_wording_to_avoid_is_found_less_and_less(name: str) -> None:
    pattern, limit = WORDS[name]
    found = Counter(place for place, text in prose().items() for _ in re.finditer(pattern, text))
    count = found.total()
    assert count <= limit, f"found {count} times; use plain words instead: {dict(found)}"
    assert count == limit, f"found only {count} times: lower the figure in WORDS"
