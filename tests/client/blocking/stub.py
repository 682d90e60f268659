"""Makes `rawsse/client/blocking/__init__.pyi`: the blocking classes as type checkers and editors see them, from the source of
the async classes. `async` goes, names become those of the blocking classes, bodies become their docstrings.

    python -m tests.client.blocking.stub            # writes it, in this checkout
"""

from __future__ import annotations

import ast
import builtins
import copy
import inspect
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from rawsse.client import blocking
from rawsse.client.blocking.facade import HIDDEN, Facade, in_blocking_words

__all__ = ["PATH", "make_stub"]

PATH = Path(__file__).parents[3] / "rawsse/client/blocking/__init__.pyi"

SPECIAL = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__"}
SPECIAL |= {name: name for name in ("__init__", "__getattr__")}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def make_stub() -> str:
    """The text of the stub, not formatted."""
    facades = {of: made for of, made in Facade._blocking.items() if made.__module__ == blocking.__name__}
    known = {made.__name__ for made in facades.values()} | set(dir(builtins))
    classes: list[ast.stmt] = []
    helpers: dict[str, ast.stmt] = {}  # imports and type variables, by name
    for of, made in facades.items():
        classes.append(_class(of, made.__name__))
        _find_names(classes[-1], [sys.modules[base.__module__] for base in _bases(of)], known, helpers)
    helpers["TypeVar"] = ast.ImportFrom("typing", [ast.alias("TypeVar")], 0)
    imports = [each for each in helpers.values() if not isinstance(each, ast.Assign)]
    variables = [each for each in helpers.values() if isinstance(each, ast.Assign)]
    exported = ast.parse(f"__all__ = {blocking.__all__!r}").body
    module = ast.Module([*imports, *exported, *variables, *classes], [])
    head = "# Generated from the async classes by tests/client/blocking/stub.py.\n\n"
    return head + ast.unparse(ast.fix_missing_locations(module)) + "\n"


def _bases(of: type) -> list[type]:
    return [base for base in of.__mro__ if base.__module__.startswith("rawsse.")]


def _node(of: type) -> ast.ClassDef:
    [node] = ast.parse(inspect.getsource(of)).body
    assert isinstance(node, ast.ClassDef)
    return node


# --- Classes -------------------------------------------------------------------------------------------------------


def _class(of: type, name: str) -> ast.ClassDef:
    members: dict[str, list[ast.stmt]] = {}
    for base in reversed(_bases(of)):
        own: dict[str, list[ast.stmt]] = {}
        for member, node in _members(_node(base)):
            own.setdefault(member, []).append(node)
        members |= own
    generic = [
        base for base in _node(of).bases if isinstance(base, ast.Subscript) and ast.unparse(base.value) == "Generic"
    ]
    nodes = [node for same in members.values() for node in _without_implementation(same, is_generic=bool(generic))]
    doc: list[ast.stmt] = [ast.Expr(ast.Constant(inspect.getdoc(Facade._blocking[of]) or ""))]
    made = ast.ClassDef(name, list[ast.expr](generic), [], doc + nodes, [])
    result = _Blocking().visit(made)
    assert isinstance(result, ast.ClassDef)
    return result


def _members(written: ast.ClassDef) -> Iterator[tuple[str, ast.stmt]]:
    """What instances of the class have: methods, annotated attributes, and those that a method sets."""
    for node in written.body:
        match node:
            case ast.AnnAssign(target=ast.Name(name)) if not name.startswith("_") and "ClassVar" not in ast.unparse(
                node
            ):
                yield name, ast.AnnAssign(ast.Name(name, ast.Store()), node.annotation, None, 1)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _attributes(node)
                if node.name in SPECIAL or _is_public(node.name):
                    yield node.name, node
            case ast.Assign([ast.Name(alias)], ast.Name(name)) if _is_public(alias):  # another name for a method
                for method in written.body:
                    if isinstance(method, Function) and method.name == name:
                        renamed = copy.deepcopy(method)
                        renamed.name = alias
                        yield alias, renamed


def _is_public(name: str) -> bool:
    return not (name.startswith("_") or name in HIDDEN)


def _attributes(method: Function) -> Iterator[tuple[str, ast.stmt]]:
    annotations = {argument.arg: argument.annotation for argument in method.args.args}
    for node in ast.walk(method):
        match node:
            case ast.AnnAssign(target=ast.Attribute(ast.Name("self"), name), annotation=annotation):
                pass
            case ast.Assign([ast.Attribute(ast.Name("self"), name)], ast.Call(ast.Name() as annotation)):
                pass
            case ast.Assign([ast.Attribute(ast.Name("self"), name)], ast.Name(argument)) if annotations.get(argument):
                annotation = annotations[argument]  # type: ignore[assignment]
            case _:
                continue
        if not name.startswith("_"):
            yield name, ast.AnnAssign(ast.Name(name, ast.Store()), annotation, None, 1)


def _without_implementation(same: list[ast.stmt], *, is_generic: bool) -> list[ast.stmt]:
    """The overloads of a method, if it has any, with the docstring of the function that follows them. One for a certain type
    of `self` is only for a generic class."""
    overloads = [
        node for node in same if isinstance(node, Function) and "overload" in map(ast.unparse, node.decorator_list)
    ]
    overloads = [node for node in overloads if is_generic or not (node.args.args and node.args.args[0].annotation)]
    for overload in overloads:
        assert isinstance(same[-1], Function)
        overload.body = same[-1].body[:1]
        if len(overloads) == 1:
            overload.decorator_list = []
    return list[ast.stmt](overloads) or same[:1]


def _default(value: ast.expr) -> ast.expr:
    return value if isinstance(value, ast.Constant) else ast.Constant(...)


class _Blocking(ast.NodeTransformer):
    """Code without `async`, and without bodies."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if isinstance(node.ctx, ast.Store):
            return node
        name = "Iterator[str]" if node.id == "TextStream" else in_blocking_words(node.id)
        return ast.parse(name, mode="eval").body

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant(in_blocking_words(node.value)) if isinstance(node.value, str) else node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit_FunctionDef(ast.FunctionDef(**dict(ast.iter_fields(node))))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        doc = ast.get_docstring(node)
        node.name = SPECIAL.get(node.name, node.name)
        node.body = [ast.Expr(ast.Constant(doc or ...))]
        node.args.defaults = [_default(each) for each in node.args.defaults]
        node.args.kw_defaults = [each and _default(each) for each in node.args.kw_defaults]
        return self.generic_visit(node)


def _short(default: ast.expr) -> ast.expr:
    return default if isinstance(default, ast.Constant) else ast.Constant(...)


# --- Names ---------------------------------------------------------------------------------------------------------


def _find_names(node: ast.AST, modules: list[ModuleType], known: set[str], found: dict[str, ast.stmt]) -> None:
    """Where the names in `node` come from, in one of the modules."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}
    for name in sorted(names - known - found.keys()):
        origins = (_origin(name, module) for module in modules)
        found[name] = next(filter(None, origins), ast.ImportFrom("collections.abc", [ast.alias(name)], 0))
        if isinstance(found[name], ast.Assign):
            _find_names(found[name], modules, known, found)


@cache
def _nodes(module: ModuleType) -> Sequence[ast.AST]:
    return [*ast.walk(ast.parse(inspect.getsource(module)))]


def _origin(name: str, module: ModuleType) -> ast.stmt | None:
    for node in _nodes(module):
        match node:
            case ast.ImportFrom(names=aliases) if any(name == (each.asname or each.name) for each in aliases):
                return ast.ImportFrom(node.module, [each for each in aliases if name == (each.asname or each.name)], 0)
            case ast.Import(names=[ast.alias(imported)]) if imported == name:
                return ast.Import([ast.alias(name)])
            case ast.Assign([ast.Name(assigned)], ast.Call(ast.Name("TypeVar"))) if assigned == name:
                variable = _Blocking().visit(copy.deepcopy(node))
                assert isinstance(variable, ast.Assign)
                return variable
            case ast.ClassDef(defined) if defined == name:
                return ast.ImportFrom(module.__name__, [ast.alias(name)], 0)
            case ast.Assign([ast.Name(assigned)]) | ast.AnnAssign(ast.Name(assigned)) if assigned == name:
                return ast.ImportFrom(module.__name__, [ast.alias(name)], 0)
    return None


if __name__ == "__main__":
    if Path(blocking.__file__).with_suffix(".pyi") != PATH:
        sys.exit(f"{blocking.__file__} is another rawsse than that of this checkout: run it as a module, from the root")
    PATH.write_text(make_stub(), encoding="utf-8")
    for command in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, str(PATH)], check=True)
