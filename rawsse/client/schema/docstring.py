"""What a docstring says of a function and of each parameter.

Four ways to write that down are read: Google's ("Args:"), NumPy's ("Parameters" and a line below it), Sphinx's
(":param name:") and epydoc's ("@param name:").

    read_docstring(function.__doc__)      # Docstring(description='The weather, now.', parameters={'city': 'Where.'})
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_PARAMETER_SECTIONS = frozenset(
    {"args", "arguments", "params", "parameters", "keyword args", "keyword arguments", "other parameters", "attributes"}
)
_OTHER_SECTIONS = frozenset(
    {"returns", "return", "yields", "yield", "raises", "raise", "example", "examples", "note", "notes", "see also"}
    | {"warning", "warnings", "warns", "todo", "references"}
)
# Compiled when they are needed: most programs that load this file make no tools.
# Google: "    name (type): what it is", where the type and its brackets may be missing; "*names" are names.
_GOOGLE_ENTRY = r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)"
# NumPy: "name : type", "name", and "a, b : type", at the margin; what they are stands below, indented.
_NUMPY_ENTRY = r"((?:\*{0,2}\w+)(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?"
# Sphinx: ":param name: what it is" and ":param type name: what it is", but not ":class:`Name` in a text". Epydoc: "@" for ":".
_FIELD = r"[:@](\w+)(?:\s+([^:]*))?:(?!`)\s*(.*)"
_FIELD_PARAMETERS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword", "kwarg", "kwparam"})


class Docstring(NamedTuple):
    """`description` is what stands before the first section; `parameters` maps names to what is said of each."""

    description: str
    parameters: Mapping[str, str]


class _Section(NamedTuple):
    """A part of a docstring: its title in lower case ("" for what comes first), and the lines below it."""

    title: str
    is_numpy: bool
    lines: list[str]


def read_docstring(text: str | None) -> Docstring:
    """The description and the parameters. Lines that follow none of the four ways are description."""
    plain, fields = _without_fields(inspect.cleandoc(text or "").splitlines())
    first, *sections = _sections(plain)
    parameters: dict[str, str] = {}
    for section in sections:
        if section.title in _PARAMETER_SECTIONS:
            parameters |= _numpy_entries(section.lines) if section.is_numpy else _google_entries(section.lines)
    return Docstring("\n".join(first.lines).strip(), parameters | fields)


def _without_fields(lines: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The lines that belong to no field, and the parameters that the fields tell of."""
    plain: list[str] = []
    fields: dict[str, str] = {}
    name: str | None = None  # of the parameter whose field goes on; "" in a field that tells of none
    for line in lines:
        if found := re.fullmatch(_FIELD, line.rstrip()):
            words = (found[2] or "").split()
            name = words[-1].lstrip("*") if words and found[1] in _FIELD_PARAMETERS else ""
            fields[name] = found[3]
        elif name is not None and (not line or line.startswith((" ", "\t"))):  # a blank line does not end a field
            fields[name] = f"{fields[name]} {line.strip()}".strip()
        else:
            name = None
            plain.append(line)
    fields.pop("", None)
    return plain, fields


def _sections(lines: Sequence[str]) -> list[_Section]:
    sections = [_Section("", False, [])]
    is_rule = False
    for index, line in enumerate(lines):
        title = line.strip().lower()
        is_known = title.rstrip(":") in _PARAMETER_SECTIONS | _OTHER_SECTIONS and not line.startswith((" ", "\t"))
        below = lines[index + 1].strip() if index + 1 < len(lines) else ""
        if is_rule:
            is_rule = False
        elif is_known and len(below) > 2 and set(below) == {"-"}:
            sections.append(_Section(title, True, []))
            is_rule = True  # the line below the title belongs to it
        elif is_known and title.endswith(":"):
            sections.append(_Section(title.rstrip(":"), False, []))
        else:
            sections[-1].lines.append(line)
    return sections


def _google_entries(lines: Sequence[str]) -> dict[str, str]:
    entries: dict[str, str] = {}
    margin: int | None = None
    name = ""
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        margin = indent if margin is None else margin
        if indent == 0:
            break  # back at the margin: a paragraph of the description that came late
        if indent <= margin and (found := re.fullmatch(_GOOGLE_ENTRY, line.strip())):
            name = found[1]
            entries[name] = found[2]
        elif name:
            entries[name] = f"{entries[name]} {line.strip()}".strip()
    return entries


def _numpy_entries(lines: Sequence[str]) -> dict[str, str]:
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line.startswith((" ", "\t")):
            entries |= {name: f"{entries[name]} {line.strip()}".strip() for name in names}
        elif found := re.fullmatch(_NUMPY_ENTRY, line.strip()):
            names = [name.strip().lstrip("*") for name in found[1].split(",")]
            entries |= dict.fromkeys(names, "")
    return {name: text for name, text in entries.items() if text}
