"""The texts in a body, however they are written, and the bytes that each of their characters is written in.

A text stands in bytes as UTF-8, with JSON's escapes, and in pieces: as deltas.

    data = b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "sk\\u002dant"}}\\n\\n'
    for name, joined in joined_texts(Characters(data)):
        for text in layers(joined, JSON_ESCAPES):
            at = text.text.find("sk-ant")           # as its reader sees it, over any number of deltas
            text.bytes_of(at + 2)                   # the six bytes of the escape

Each view of a text stands on another one: decoded bytes at the bottom, parts of them joined, escapes read. Writing over the
bytes of a character moves nothing else, so every event, every cut between two deltas and every boundary between two reads
stays where it was.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple, TypeAlias

MAX_LAYERS = 5
"""How often escapes are read in the result of reading escapes. A private key in JSON in a tool's input is at 3."""

MAX_PATH = 8
"""Strings that lie deeper in an event's JSON are not joined with others. The deepest known delta lies at 3."""

# Not those that stand for single bytes that are not UTF-8.
_WIDE = re.compile("[^\x00-\x7f\udc80-\udcff]")


# --- Two views -----------------------------------------------------------------------------------------------------


class Characters:
    """Bytes as UTF-8. A byte that is not UTF-8 counts as one character."""

    def __init__(self, data: bytes) -> None:
        self.text: str = data.decode("utf-8", "surrogateescape")
        # Where the characters of more than one byte stand, and by how much the bytes are ahead before each of them.
        self._at = [] if len(self.text) == len(data) else [found.start() for found in _WIDE.finditer(self.text)]
        self._ahead = list(accumulate((len(self.text[at].encode()) - 1 for at in self._at), initial=0))

    def byte(self, at: int) -> int:
        """Where the character `at` begins."""
        return at + self._ahead[bisect_left(self._at, at)]

    def bytes_of(self, at: int) -> Iterable[int]:
        """The bytes of the character `at`."""
        return range(self.byte(at), self.byte(at + 1))


Text: TypeAlias = "Characters | Joined"
"""A view: `text` are its characters, and `bytes_of` says which bytes one of them is written in."""


class Part(NamedTuple):
    """The characters of a text from `start` to `end`; all of them are one escape if `stands_for` is its character."""

    text: Text
    start: int
    end: int
    stands_for: str | None = None


class Joined:
    """Parts of texts, one after the other, as one text."""

    def __init__(self, parts: Sequence[Part]) -> None:
        pieces = [part.stands_for or part.text.text[part.start : part.end] for part in parts]
        self.text: str = "".join(pieces)
        self._parts = parts
        self._ends = list(accumulate(map(len, pieces)))

    def bytes_of(self, at: int) -> Iterable[int]:
        """The bytes of the character `at`, or of all its escape, in the part where it stands."""
        number = bisect_right(self._ends, at)
        part = self._parts[number]
        if part.stands_for is None:
            return part.text.bytes_of(part.end - (self._ends[number] - at))
        return chain.from_iterable(part.text.bytes_of(below) for below in range(part.start, part.end))


class Escapes(NamedTuple):
    """A way to write characters in ASCII: the pattern of an escape, and the character that it stands for."""

    pattern: re.Pattern[str]
    read: Callable[[str], str]


# RFC 8259, 7. Two of the escapes may be the halves of one character.
JSON_ESCAPES = Escapes(
    re.compile(
        r"\\(?:u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9a-fA-F]{4})|[\"\\/bfnrt])", re.ASCII
    ),
    lambda escape: str(json.loads(f'"{escape}"')),
)
PERCENT_ESCAPES = Escapes(re.compile(r"%[0-9a-fA-F]{2}"), lambda escape: chr(int(escape[1:], 16)))


def unescaped(text: Text, escapes: Escapes, start: int = 0, end: int | None = None) -> list[Part]:
    """A text, from `start` to `end`, with its escapes read: the parts of it."""
    parts, end = list[Part](), len(text.text) if end is None else end
    for found in escapes.pattern.finditer(text.text, start, end):
        parts += (Part(text, start, found.start()), Part(text, *found.span(), escapes.read(found[0])))
        start = found.end()
    return [*parts, Part(text, start, end)]


def layers(text: Text, escapes: Escapes) -> Iterator[Text]:
    """The text, the text with its escapes read, the same again while there are any: `MAX_LAYERS` at most."""
    for _ in range(MAX_LAYERS):
        yield text
        text, before = Joined(unescaped(text, escapes)), text.text
        if text.text == before:
            return


# --- JSON, as far as it has come -------------------------------------------------------------------------------------

_TOKEN = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)\\?"?|[{}\[\],]|-?\d[\d.eE+-]*+', re.DOTALL)


class Literal(NamedTuple):
    """A string or number in a JSON text, from `start` to `end`, a string without its quotes. `path` leads to it."""

    path: tuple[str | int | None, ...]
    start: int
    end: int


def literals(text: str) -> Iterator[Literal]:
    """The strings and numbers in a JSON text, without keys, and without those below `MAX_PATH`.

    Never raises: a text that is cut off, or is not JSON, is read as far as possible.
    """
    # For each open object its current key (None before it), for each open array a count.
    path: list[str | int | None] = []
    for found in _TOKEN.finditer(text):
        first = found[0][0]
        if first in "{}[],":
            _move(path, first)
        elif first == '"' and path[-1:] == [None]:
            path[-1] = JSON_ESCAPES.pattern.sub(lambda escape: JSON_ESCAPES.read(escape[0]), found[1])
        elif len(path) <= MAX_PATH:
            start, end = found.span(1) if first == '"' else found.span()
            yield Literal(tuple(path), start, end)


def _move(path: list[str | int | None], sign: str) -> None:
    if sign in "{[":
        path.append(None if sign == "{" else 0)
    elif sign in "}]":
        del path[-1:]
    elif path:
        path[-1] = path[-1] + 1 if isinstance(path[-1], int) else None


# --- Deltas, joined --------------------------------------------------------------------------------------------------

# WHATWG HTML, 9.2.6; the same lines as the decoder's.
_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_DATA = re.compile(r"data: ?")

# The fields of deltas and blocks that a model writes.
_CONTENT = ("thinking", "text", "partial_json")


def joined_texts(body: Text) -> Iterator[tuple[str, Joined]]:
    """The texts that the events of a stream add up to, and their names: every string in their JSON, joined with those in the
    same place of other events. So the deltas of each block are joined, those of unknown types included. Then come the text of
    all blocks of a message and all its content: a thought may end in the middle of a key, and the text go on with it.

    A delta continues what its block began with: `content_block.text` and `delta.text` are one. Strings called `type` are
    left out.
    """
    found: dict[tuple[object, ...], tuple[str, list[Part]]] = {}
    over_blocks: dict[tuple[int, str], list[tuple[str, list[Part]]]] = {}
    message = 0
    for _, data in _events(body):
        event = list(literals(data.text))
        values = {item.path: data.text[item.start : item.end] for item in event if len(item.path) == 1}
        message += values.get(("type",)) == "message_start"
        block = values.get(("index",), "")
        for item in event:
            if data.text[item.start - 1 : item.start] != '"' or item.path[-1:] == ("type",):
                continue
            parts = unescaped(data, JSON_ESCAPES, item.start, item.end)
            is_of_block = item.path[:1] in (("delta",), ("content_block",))
            path = item.path[1:] if is_of_block else item.path
            name = ".".join(map(str, path))
            label = f"{'input' if name == 'partial_json' else name} of block {block or '?'}" if is_of_block else name
            found.setdefault((message, block, is_of_block, path), (label or "data", []))[1].extend(parts)
            if is_of_block and name in _CONTENT:
                for kind in ("content", "text") if name == "text" else ("content",):
                    over_blocks.setdefault((message, kind), []).append((block, parts))
    yield from ((label, Joined(parts)) for label, parts in found.values())
    for (number, kind), pieces in over_blocks.items():
        is_shown_as_text = kind == "content" and pieces == over_blocks.get((number, "text"))
        if len({block for block, _ in pieces}) > 1 and not is_shown_as_text:
            yield f"{kind} of the message", Joined([part for _, parts in pieces for part in parts])


def event_starts(body: Characters) -> list[int]:
    """The byte at which each event of a stream begins."""
    return [body.byte(start) for start, _ in _events(body)]


def _events(body: Text) -> Iterator[tuple[int, Text]]:
    """The data of each event, and where the event begins. Also of the last one, if its end has not come."""
    start, parts = -1, list[Part]()
    position = int(body.text.startswith("\ufeff"))
    for line in _LINE.finditer(body.text, position):
        if start < 0 and line[1]:
            start = line.start()
        if found := _DATA.match(line[1]):
            # Two lines of data have a line feed between them: the last character of the first one's end.
            parts += [Part(body, parts[-1].end, parts[-1].end + 1)] if parts else []
            parts.append(Part(body, line.start() + found.end(), line.end(1)))
        if not line[1] or not line[2]:
            if parts:
                yield start, Joined(parts)
            start, parts = -1, []
