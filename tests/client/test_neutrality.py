"""rawsse.client runs on any network: only the files that make one know asyncio, and there are no async generators, which an
event loop must close (a dropped one would run on later, in a loop that the caller did not choose)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import rawsse.client

FOLDER = Path(rawsse.client.__file__).parent
OF_ASYNCIO = {"network/asyncio_network.py"}
FILES = sorted(f"{path.relative_to(FOLDER).as_posix()}" for path in FOLDER.rglob("*.py"))

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


Nodes = Sequence[ast.AST]
"""Those of a whole source."""


def nodes_of(source: str) -> Nodes:
    return [*ast.walk(ast.parse(source))]


@cache
def read(name: str) -> Nodes:
    """Those of a file of the client."""
    return nodes_of((FOLDER / name).read_text("utf-8"))


def imported(nodes: Nodes) -> Iterator[str]:
    """The modules that are imported, wherever the import stands."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def own_nodes(function: FunctionNode) -> Iterator[ast.AST]:
    """The nodes of a function, less those of functions within it."""
    todo: list[ast.AST] = [*function.body]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, FunctionNode | ast.Lambda):
            todo += ast.iter_child_nodes(node)


def async_generators(nodes: Nodes) -> list[str]:
    functions = [node for node in nodes if isinstance(node, ast.AsyncFunctionDef)]
    found = [each.name for each in functions if any(isinstance(node, ast.Yield) for node in own_nodes(each))]
    expressions = [node for node in nodes if isinstance(node, ast.GeneratorExp)]
    return found + ["<expression>" for each in expressions if any(part.is_async for part in each.generators)]


@pytest.mark.parametrize("name", [name for name in FILES if name not in OF_ASYNCIO])
def test_no_file_but_those_of_the_network_imports_asyncio(name: str) -> None:
    modules = {module.partition(".")[0] for module in imported(read(name))}
    assert not modules & {"asyncio", "uvloop", "trio", "anyio"}


@pytest.mark.parametrize("name", FILES)
def test_there_are_no_async_generators(name: str) -> None:
    assert async_generators(read(name)) == []


def test_the_files_that_may_are_there_and_need_it() -> None:
    for name in OF_ASYNCIO:
        assert "asyncio" in imported(read(name))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("async def f():\n yield 1", ["f"]),
        ("async def f():\n if x:\n  for y in z:\n   a = yield", ["f"]),
        ("class A:\n async def f(self):\n  yield", ["f"]),
        ("async def f():\n def g():\n  yield\n async def h():\n  return 1", []),
        ("async def f():\n return (x async for x in y)", ["<expression>"]),
        ("async def f():\n return [x async for x in y]", []),
        ("def f():\n yield", []),
    ],
)
def test_they_are_found_where_they_are(source: str, found: list[str]) -> None:
    assert async_generators(nodes_of(source)) == found


def test_imports_are_found_where_they_are() -> None:
    source = "def f():\n import asyncio.streams\n from asyncio import sleep\nif T:\n from . import x"
    assert {*imported(nodes_of(source))} == {"asyncio.streams", "asyncio", ""}
