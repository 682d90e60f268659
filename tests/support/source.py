"""What the tests of the package's shape know of a Python file. A syntax tree has thousands of objects, through which each
collection of the tests that follow would go: a file is parsed once, and its tree is not kept."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import rawsse

__all__ = ["PACKAGE", "Source", "read_source", "source_of"]

PACKAGE = Path(rawsse.__file__).parent


class Source(NamedTuple):
    """A Python file. A code line is a physical line with a token that is neither a comment nor part of a docstring."""

    docstring: str
    imports: frozenset[str]
    """What it imports, inside functions and for types only (`if TYPE_CHECKING`) too."""
    code: frozenset[int]
    """The numbers of its code lines."""
    bodies: Mapping[int, int]
    """Of each function, by its line: the code lines after the signature and the docstring."""
    has_global: bool
    """A function declares a name of the module as `global`."""
    mutable: tuple[list[str], ...]
    """The names of each list, dict or set that the module assigns without an annotation."""


def read_source(text: str) -> Source:
    tree = ast.parse(text)
    nodes: defaultdict[type[ast.AST], list[Any]] = defaultdict(list)
    for node in ast.walk(tree):
        nodes[type(node)].append(node)
    code = code_lines(text, nodes)
    imports = {name.name for node in nodes[ast.Import] for name in node.names}
    imports |= {node.module for node in nodes[ast.ImportFrom] if node.module is not None}
    functions = nodes[ast.FunctionDef] + nodes[ast.AsyncFunctionDef]
    bodies = {f.lineno: len(code & {line for part in f.body for line in lines_of(part)}) for f in functions}
    mutable = tuple(
        [target.id for target in node.targets if isinstance(target, ast.Name)]
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Dict | ast.Set)
    )
    has_global = bool(nodes[ast.Global])
    return Source(ast.get_docstring(tree) or "", frozenset(imports), code, bodies, has_global, mutable)


def code_lines(text: str, nodes: Mapping[type[ast.AST], list[Any]]) -> frozenset[int]:
    lines = enumerate((line.strip() for line in text.split("\n")), 1)
    code = {number for number, line in lines if line and not line.startswith("#")}
    for node in [*nodes[ast.Constant], *nodes[ast.JoinedStr]]:
        if node.end_lineno != node.lineno:  # a string of many lines may have blank ones, and some with a #
            code |= lines_of(node)
    for node in nodes[ast.Expr]:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= lines_of(node)  # a docstring; below a constant or an attribute, that one's
    return frozenset(code)


def lines_of(node: ast.stmt | ast.expr) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


@cache
def source_of(path: Path) -> Source:
    return read_source(path.read_text(encoding="utf-8"))
