"""rawsse/client/blocking/__init__.pyi: it is what `stub.py` makes, and says of each class what the class has."""

from __future__ import annotations

import ast
import inspect
from functools import cached_property

import pytest

from rawsse.client import blocking

from . import stub

WRITTEN = ast.parse(stub.PATH.read_text(encoding="utf-8"))

CLASSES = [node for node in WRITTEN.body if isinstance(node, ast.ClassDef)]


def shape(text: str) -> str:
    """The code, whatever its layout. Imports are in any order."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = inspect.cleandoc(node.value)
    imports = (ast.Import, ast.ImportFrom)
    imported = {
        f"{getattr(node, 'module', None)}.{alias.name}"
        for node in tree.body
        if isinstance(node, imports)
        for alias in node.names
    }
    return "\n".join([*sorted(imported), *(ast.dump(node) for node in tree.body if not isinstance(node, imports))])


def test_the_stub_is_up_to_date() -> None:
    assert shape(stub.make_stub()) == shape(stub.PATH.read_text(encoding="utf-8")), (
        "the async classes have changed: run `python -m tests.client.blocking.stub`"
    )


def test_the_stub_exports_what_the_package_exports() -> None:
    [exported] = [node for node in WRITTEN.body if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node)]
    assert ast.literal_eval(exported.value) == blocking.__all__
    assert set(blocking.__all__) <= {node.name for node in CLASSES}


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_a_class_has_what_the_stub_says(node: ast.ClassDef) -> None:
    members = {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}
    assert members
    for name, member in members.items():
        found = inspect.getattr_static(getattr(blocking, node.name), name)
        is_property = not {"property", "cached_property"}.isdisjoint(map(ast.unparse, member.decorator_list))
        assert isinstance(found, property | cached_property) == is_property, name
        if not is_property and not name.startswith("__"):
            has = inspect.signature(getattr(getattr(blocking, node.name), name)).parameters
            named = [argument.arg for argument in (*member.args.args, *member.args.kwonlyargs) if argument.arg != "cls"]
            if "overload" not in map(ast.unparse, member.decorator_list):
                assert [each for each in has if has[each].kind not in (2, 4)] == named, name
