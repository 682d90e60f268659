"""How two JSON values differ, for people: where, and what stands there. And which of many values is the nearest to one.

This file knows JSON values and how a difference is worded within bounds. It refuses to know what the values are about.

    for difference in differences({"model": "a", "n": [1]}, {"model": "b"}):
        print(difference)       # model: recorded "a", asked "b"
                                # n: recorded [1], not asked
    nearest([first, second], asked)     # the index of the one with the fewest unequal parts
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

MAX_SHOWN_CHARS = 80
"""How much of each of two values a `Difference` shows: a line of a terminal."""

MAX_PATH_CHARS = 120
"""How much of a path: names in somebody's schema may be of any length."""

MAX_COMPARED_WORDS = 200
"""Of each part, when two candidates have equally many parts that differ. Comparing words takes quadratic time."""

_BEFORE = 20  # how many characters are shown before the first that differs
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One place. `recorded` and `asked` are JSON, cut around the first character that differs; None if nothing stands there."""

    path: str
    recorded: str | None
    asked: str | None

    def __str__(self) -> str:
        place = self.path or "the whole"
        if self.asked is None:
            return f"{place}: recorded {self.recorded}, not asked"
        return (
            f"{place}: {'not recorded' if self.recorded is None else f'recorded {self.recorded}'}, asked {self.asked}"
        )


def differences(recorded: Any, asked: Any, path: str = "") -> Iterator[Difference]:
    """Every place at which two JSON values differ, the outermost where one side has nothing. In the order of `recorded`."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in {**recorded, **asked}:
            inner = f"{path}.{name}" if path else name
            yield from differences(recorded.get(name, _NOTHING), asked.get(name, _NOTHING), inner)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for index, (left, right) in enumerate(zip_longest(recorded, asked, fillvalue=_NOTHING)):
            yield from differences(left, right, f"{path}[{index}]")
    elif not same(recorded, asked):
        yield _difference(path, recorded, asked)


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal. To Python `True == 1`; to JSON it is not. Beside `_NOTHING` nothing is."""
    if left is _NOTHING or right is _NOTHING:
        return left is right
    return left == right and _to_json(left) == _to_json(right)


def nearest(candidates: Sequence[Any], asked: Any) -> int:
    """The index of the candidate with the fewest unequal parts; of several, the one whose words are most like those asked."""
    unequal = [-(total - equal) for equal, total in (equal_parts(candidate, asked) for candidate in candidates)]
    best = [index for index, score in enumerate(unequal) if score == max(unequal)]
    return best[0] if len(best) == 1 else max(best, key=lambda index: _likeness(candidates[index], asked))


def equal_parts(recorded: Any, asked: Any) -> tuple[int, int]:
    """How many parts are equal, and how many there are. A part is a field; of `messages` and `tools`, each item is one."""
    left, right = _parts(recorded), _parts(asked)
    names = {**left, **right}
    return sum(same(left.get(name, _NOTHING), right.get(name, _NOTHING)) for name in names), len(names)


def _parts(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        return {"": value}
    parts: dict[str, Any] = {}
    for name, item in value.items():
        if name in {"messages", "tools"} and isinstance(item, list):
            parts |= {f"{name}[{index}]": entry for index, entry in enumerate(item)}
        else:
            parts[name] = item
    return parts


def _likeness(candidate: Any, asked: Any) -> float:
    left, right = _parts(candidate), _parts(asked)
    unequal = [name for name in left if name in right and not same(left[name], right[name])]
    words = [re.findall(r"\w+", _to_json([parts[name] for name in unequal])) for parts in (left, right)]
    one, other = (found[:MAX_COMPARED_WORDS] for found in words)
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


# --- Wording -----------------------------------------------------------------------------------------------------------


def _difference(path: str, recorded: Any, asked: Any) -> Difference:
    left = None if recorded is _NOTHING else _to_json(recorded)
    right = None if asked is _NOTHING else _to_json(asked)
    start = max(0, _common(left or "", right or "") - _BEFORE)
    return Difference(_cut(path, 0, MAX_PATH_CHARS), _shown(left, start), _shown(right, start))


def _common(left: str, right: str) -> int:
    """How many characters both begin with."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


def _shown(text: str | None, start: int) -> str | None:
    return None if text is None else _cut(text, start if len(text) > MAX_SHOWN_CHARS else 0, MAX_SHOWN_CHARS)


def _cut(text: str, start: int, limit: int) -> str:
    end = start + limit
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
