"""The map in `rawsse/__init__.py` is true: reading order, purity, public names, documentation."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from support.source import PACKAGE, source_of

import rawsse
from rawsse.replay import shipped_fixtures

PURE = ("errors", "sse", "http1", "messages", "client.exchange", "client.answer", "client.retry")
IMPURE_MODULES = {"asyncio", "socket", "ssl", "time", "random", "secrets", "os", "threading", "selectors"}


def entries(docstring: str) -> list[str]:
    """The names that a map lists: `    errors.py  …` and `    messages/  …`."""
    return [found.rstrip("/") for found in re.findall(r"^ {4}([a-z0-9_]+(?:\.py|/))\s", docstring, re.MULTILINE)]


@cache
def reading_order() -> list[str]:
    """All modules in the order in which they are to be read, as dotted names below `rawsse`."""
    return list(_reading_order(PACKAGE, ""))


def _reading_order(room: Path, prefix: str) -> Iterator[str]:
    for entry in entries(source_of(room / "__init__.py").docstring):
        if entry.endswith(".py"):
            yield prefix + entry.removesuffix(".py")
        elif (room / entry / "__init__.py").exists():
            yield from _reading_order(room / entry, f"{prefix}{entry}.")
            yield prefix + entry


def modules() -> list[str]:
    """All modules there are, as dotted names below `rawsse`, without the package itself and `__main__`."""
    paths = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return sorted(name for name in names if name not in ("__init__", "__main__"))


def path_of(module: str) -> Path:
    base = PACKAGE.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def imports(module: str) -> frozenset[str]:
    return source_of(path_of(module)).imports


def test_every_module_stands_on_the_map_once() -> None:
    assert sorted(reading_order()) == modules()


def test_the_evening_path_has_six_stops_that_exist_and_a_question_for_each() -> None:
    assert rawsse.__doc__ is not None
    stops = re.findall(r"^    (\d)\. (\S.*?)  +(\S.*\?)$", rawsse.__doc__, re.MULTILINE)
    assert [number for number, _, _ in stops] == ["1", "2", "3", "4", "5", "6"]
    for _, stop, question in stops:
        last = stop.split()[-1]  # of a command, its last argument
        assert (PACKAGE.parent / last).exists() or last in shipped_fixtures(), stop
        for name in re.findall(r"`(\w+)`", question):
            assert hasattr(importlib.import_module(stop.removesuffix(".py").replace("/", ".")), name)


def test_the_names_below_a_stop_are_in_its_file_or_in_the_one_before_them() -> None:
    found = re.findall(r"^    \d\. rawsse/(\S+) .*\n {7}(\S.*)$", rawsse.__doc__ or "", re.MULTILINE)
    assert [stop for stop, _ in found] == ["http1/codings.py", "client/answer.py"]
    for stop, words in found:
        own, other, names = re.split(r"([a-z_/0-9]+\.py): ", words)
        for file, text in ((stop, own), (other, names)):
            defined = set(
                re.findall(r"^ *(?:def|class) (\w+)", (PACKAGE / file).read_text(encoding="utf-8"), re.MULTILINE)
            )
            assert set(re.findall(r"\w+", " ".join(re.findall(r"`([\w.]+)`", text)))) <= defined, file


def test_the_places_for_a_change_exist_with_their_names() -> None:
    places = re.findall(r"([a-z/_0-9]+\.py): ([^;\n]+)", (rawsse.__doc__ or "").partition("Where a change goes")[2])
    assert len(places) == 16
    for file, words in places:
        names = re.findall(r"`(\w+)`", words)
        text = (PACKAGE / file).read_text(encoding="utf-8")
        assert [name for name in names if not re.search(rf"^ *(def |class )?{name}\b", text, re.MULTILINE)] == [], file


def test_a_module_imports_only_what_stands_before_it() -> None:
    before: set[str] = set()
    for module in reading_order():
        ours = {name for name in imports(module) if name.split(".")[0] == "rawsse"}
        assert ours - before == set(), module
        before.add(f"rawsse.{module}")


def test_a_pure_module_imports_no_clock_no_socket_and_no_chance() -> None:
    pure = [name for name in modules() if f"{name}.".startswith(tuple(f"{pure}." for pure in PURE))]
    assert len(pure) >= len(PURE)
    for module in pure:
        assert {name.split(".")[0] for name in imports(module)} & IMPURE_MODULES == set(), module


def test_only_one_file_imports_h11() -> None:
    assert [module for module in modules() if "h11" in imports(module)] == ["http1.connection"]


def test_the_decoder_can_be_copied_with_nothing_but_the_errors_beside_it() -> None:
    assert {name for name in imports("sse") if name.startswith("rawsse")} == {"rawsse.errors"}


def test_a_module_begins_with_a_sentence_that_says_what_it_is_for() -> None:
    names = modules()
    for module in names:
        text = source_of(path_of(module)).docstring
        assert re.match(r"[A-Z`].*?[^.][.:](\s|$)", text, re.DOTALL), module
        is_room = path_of(module).name == "__init__.py" and any(name.startswith(f"{module}.") for name in names)
        assert not is_room or "Read in this order" in text, module


def test_the_public_names_of_a_module_are_documented() -> None:
    for module in modules():
        loaded = importlib.import_module(f"rawsse.{module}")
        for name, thing in vars(loaded).items():
            is_its_own = getattr(thing, "__module__", None) == loaded.__name__
            if is_its_own and name[0] != "_" and (inspect.isclass(thing) or inspect.isfunction(thing)):
                assert thing.__doc__, f"rawsse.{module}.{name} has no docstring"


def test_only_what_programs_import_from_lists_its_names() -> None:
    """Elsewhere the underscore says it: a name without one may be used by the files that stand behind this one."""
    for module in modules():
        lists = "__all__ = " in path_of(module).read_text(encoding="utf-8")
        is_door = path_of(module).name == "__init__.py" or module in ("errors", "sse")
        assert lists <= is_door, module


def test_no_module_keeps_state() -> None:
    for module in modules():
        source = source_of(path_of(module))
        assert not source.has_global, module
        for names in source.mutable:
            assert names in (["__all__"],), (
                f"rawsse.{module}: {names} can be changed; annotate it as Mapping or Sequence"
            )


STATEMENTS = {
    "import rawsse": set[str](),
    "import rawsse.sse": {"errors", "sse"},
    "from rawsse import AsyncClient": {"client", "errors", "http1", "messages", "sse"},
}
"""Each loads these rooms, and those that the ones before it have loaded."""


def test_importing_rawsse_loads_what_is_used_and_no_server_and_no_certificates() -> None:
    show = "print(*(m for m in sys.modules if m.startswith(('rawsse', 'certifi', 'argparse'))))"
    code = "import sys\n" + "".join(f"{statement}; {show}\n" for statement in STATEMENTS)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for (statement, rooms), loaded in zip(STATEMENTS.items(), map(str.split, shown.splitlines()), strict=True):
        assert {name.split(".")[1] for name in loaded if "." in name} == rooms, statement
        assert {name for name in loaded if not name.startswith("rawsse")} == set(), statement
