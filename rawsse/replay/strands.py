"""The texts in a body, whichever way they are written, and writing over single characters of them in place.

Text stands in bytes as UTF-8, with JSON's escapes, and in pieces, as deltas.

    data = b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "sk\\u002dant"}}\\n\\n'
    buffer = bytearray(data)
    for strand in joined_texts(Characters(data)):
        for text in layers(strand.text, JSON_ESCAPES):
            at = text.text.find("sk-ant")           # as its reader sees it, over any number of deltas
            text.write(at + 2, "*", buffer)         # … "sk\\u002aant" …

Each view of a text stands on another one: decoded bytes at the bottom, pieces of them joined, escapes read. A view knows
which character of the view below each of its characters is, and hands down what is written. What is written takes as many bytes
as the character that it replaces: nothing else moves, so every event, every cut between two deltas and every boundary between
two reads stays where it was.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple, TypeAlias

MAX_LAYERS = 5
"""How often escapes are read in the result of reading escapes. A private key in JSON in a tool's input is at 3."""

MAX_PATH = 8
"""Strings that lie deeper in an event's JSON are not pieces of a longer text. The deepest known lies at 3."""

# Not those that stand for single bytes that are not UTF-8.
_WIDE = re.compile("[^\x00-\x7f\udc80-\udcff]")


# --- Three views -----------------------------------------------------------------------------------------------------


class Characters:
    """Bytes as UTF-8. A byte that is not counts as one character."""

    def __init__(self, data: bytes) -> None:
        self.text: str = data.decode("utf-8", "surrogateescape")
        # Where the characters of more than one byte stand, and by how much the bytes are ahead before each of them.
        self._at = [] if len(self.text) == len(data) else [found.start() for found in _WIDE.finditer(self.text)]
        self._ahead = list(accumulate((len(self.text[at].encode()) - 1 for at in self._at), initial=0))

    def byte(self, at: int) -> int:
        """Where the character `at` begins."""
        return at + self._ahead[bisect_left(self._at, at)]

    def write(self, at: int, char: str, buffer: bytearray) -> None:
        """Write `char` over each byte of the character `at`."""
        start, end = self.byte(at), self.byte(at + 1)
        buffer[start:end] = char.encode() * (end - start)


Text: TypeAlias = "Characters | Joined | Unescaped"
"""A view: `text` are its characters, `byte` is where one begins, and `write` writes over it."""

Part: TypeAlias = tuple[Text, int, int]
"""The characters from … to (not included) of a text."""


class Joined:
    """Parts of texts, one after the other, as one text."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.text: str = "".join(text.text[start:end] for text, start, end in parts)
        self._parts = parts
        self._ends = list(accumulate(end - start for _, start, end in parts))

    def byte(self, at: int) -> int:
        """Where the character `at` begins."""
        text, below = self._below(at)
        return text.byte(below)

    def write(self, at: int, char: str, buffer: bytearray) -> None:
        """Write `char` over the character `at`, in the part where it stands."""
        text, below = self._below(at)
        text.write(below, char, buffer)

    def _below(self, at: int) -> tuple[Text, int]:
        number = bisect_right(self._ends, at)
        text, _, end = self._parts[number]
        return text, end - (self._ends[number] - at)


class Escapes(NamedTuple):
    """A way to write characters in ASCII: what an escape looks like, what it stands for, how to write another one over it.

    `written` gives, for an escape and a character, the digits to be written and where they begin in the escape.
    """

    pattern: re.Pattern[str]
    read: Callable[[str], str]
    written: Callable[[str, str], tuple[int, str]]


class Unescaped:
    """A text with its escapes read. Only escapes with digits can be written over; the others stand for signs, not letters."""

    def __init__(self, below: Text, escapes: Escapes) -> None:
        self._below = below
        self._escapes = escapes
        pieces: list[str] = []
        # Where the escapes stand in this text, and by how much the text below is ahead of it before each of them.
        self._at: list[int] = []
        self._ahead = [0]
        start = size = 0
        for found in escapes.pattern.finditer(below.text):
            pieces += (below.text[start : found.start()], escapes.read(found[0]))
            size += found.start() - start
            self._at.append(size)
            self._ahead.append(self._ahead[-1] + len(found[0]) - 1)
            size, start = size + 1, found.end()
        pieces.append(below.text[start:])
        self.text: str = "".join(pieces)

    def byte(self, at: int) -> int:
        """Where the character `at`, or its escape, begins."""
        return self._below.byte(at + self._ahead[bisect_left(self._at, at)])

    def write(self, at: int, char: str, buffer: bytearray) -> None:
        """Write `char` over the character `at`, as an escape where there is one."""
        number = bisect_left(self._at, at)
        start = at + self._ahead[number]
        if number == len(self._at) or self._at[number] != at:
            self._below.write(start, char, buffer)
            return
        escape = self._below.text[start : start + 1 + self._ahead[number + 1] - self._ahead[number]]
        offset, digits = self._escapes.written(escape, char)
        for number, digit in enumerate(digits, start + offset):
            # Over a digit that does not change nothing is written: it might be an escape itself.
            if self._below.text[number] != digit:
                self._below.write(number, digit, buffer)


# RFC 8259, 7. Two of the escapes may be the halves of one character. Which sign a short one stands for is of no account to
# what is looked for, but for line ends and tabs, which are white space.
_SHORT: Mapping[str, str] = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_PAIR_CHARS = 12


def _read_json(escape: str) -> str:
    if len(escape) == _PAIR_CHARS:
        high, low = int(escape[2:6], 16), int(escape[8:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    return _SHORT.get(escape[1], escape[1]) if len(escape) == 2 else chr(int(escape[2:], 16))


def _written_json(escape: str, char: str) -> tuple[int, str]:
    if len(escape) == _PAIR_CHARS:
        return 2, f"{ord(char):04x}\\u{ord(char):04x}"
    return 2, f"{ord(char):04x}" if len(escape) > 2 else ""


JSON_ESCAPES = Escapes(
    re.compile(
        r"\\(?:u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9a-fA-F]{4})|[\"\\/bfnrt])", re.ASCII
    ),
    _read_json,
    _written_json,
)
PERCENT_ESCAPES = Escapes(
    re.compile(r"%[0-9a-fA-F]{2}"),
    lambda escape: chr(int(escape[1:], 16)),
    lambda _escape, char: (1, f"{ord(char):02x}"),
)


def layers(text: Text, escapes: Escapes) -> Iterator[Text]:
    """The text, the text with its escapes read, the same again, as long as there are any, `MAX_LAYERS` at most."""
    for _ in range(MAX_LAYERS):
        yield text
        text, before = Unescaped(text, escapes), text.text
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

    Never raises: the text may be cut off, or not be JSON. What can be read of it is.
    """
    # For each open object its current key (None before it), for each open array a count.
    path: list[str | int | None] = []
    for found in _TOKEN.finditer(text):
        first = found[0][0]
        if first in "{}[],":
            _move(path, first)
        elif first == '"' and path[-1:] == [None]:
            path[-1] = JSON_ESCAPES.pattern.sub(lambda escape: _read_json(escape[0]), found[1])
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


# --- What deltas add up to -------------------------------------------------------------------------------------------

# WHATWG HTML, 9.2.6; the same lines as the decoder's.
_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_DATA = re.compile(r"data: ?")

# What is joined over the blocks of a message, and the fields that are all that it says, in the order in which they come.
_OVER_BLOCKS = ("text", "said")
_SAID = ("thinking", "text", "partial_json")


@dataclass(slots=True)
class JoinedText:
    """A text that comes in pieces, over several events. `events` are the numbers of their events, from 1."""

    name: str
    parts: list[Part] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    blocks: set[str] = field(default_factory=set)

    @property
    def text(self) -> Joined:
        """The pieces as one text."""
        return Joined(self.parts)


def joined_texts(body: Text) -> Iterator[JoinedText]:
    """The texts that the events of a stream add up to: every string in their JSON, joined with those in the same place of
    other events. So the deltas of each block, and also those of types that are not known yet. Then the text of all blocks
    of a message, and all that is said in it: a thought may break off in the middle of a key, and the text go on with it.

    A delta continues what its block began with: `content_block.text` and `delta.text` are one. Strings called `type` are
    left out.
    """
    found: dict[tuple[object, ...], JoinedText] = {}
    message = 0
    for number, (_, data) in enumerate(_events(body), 1):
        event = list(literals(data.text))
        values = {item.path: data.text[item.start : item.end] for item in event if len(item.path) == 1}
        message += values.get(("type",)) == "message_start"
        block = values.get(("index",), "")
        for item in event:
            if data.text[item.start - 1 : item.start] != '"' or item.path[-1:] == ("type",):
                continue
            for key, name in _places(item.path, block):
                strand = found.setdefault((message, *key), JoinedText(name))
                strand.parts.append(_decoded(data, item))
                strand.events.append(number)
                strand.blocks.add(block)
    over_blocks = {key: strand for key, strand in found.items() if key[1] in _OVER_BLOCKS}
    yield from (strand for key, strand in found.items() if key not in over_blocks)
    for (at, kind, *_), strand in over_blocks.items():
        is_only_text = kind == "said" and strand.parts == found.get((at, "text"), strand).parts
        if len(strand.blocks) > 1 and not is_only_text:
            yield strand


def event_starts(body: Text) -> list[int]:
    """The byte at which each event of a stream begins."""
    return [body.byte(start) for start, _ in _events(body)]


def _places(path: tuple[str | int | None, ...], block: str) -> Iterator[tuple[tuple[object, ...], str]]:
    """What a string belongs to: the key that it shares with its like, and its name for people."""
    if path[0:1] not in (("delta",), ("content_block",)):
        yield ("event", block, path), ".".join(map(str, path)) or "data"
        return
    field = ".".join(map(str, path[1:]))
    yield ("block", block, field), f"{'input' if field == 'partial_json' else field} of block {block or '?'}"
    if field in _SAID:
        yield ("said",), "content of the message"
    if field == "text":
        yield ("text",), "text of the message"


def _decoded(data: Text, item: Literal) -> Part:
    text = Joined([(data, item.start, item.end)])
    if "\\" not in text.text:
        return (data, item.start, item.end)
    unescaped = Unescaped(text, JSON_ESCAPES)
    return (unescaped, 0, len(unescaped.text))


def _events(body: Text) -> Iterator[tuple[int, Text]]:
    """The data of each event, and where the event begins. Also of the last one, if its end has not come."""
    start, parts = -1, list[Part]()
    position = int(body.text.startswith("\ufeff"))
    for line in _LINE.finditer(body.text, position):
        if start < 0 and line[1]:
            start = line.start()
        if found := _DATA.match(line[1]):
            # Two lines of data have a line feed between them: the last character of the first one's end.
            parts += [(body, parts[-1][2], parts[-1][2] + 1)] if parts else []
            parts.append((body, line.start() + found.end(), line.end(1)))
        if not line[1] or not line[2]:
            if parts:
                yield start, Joined(parts)
            start, parts = -1, []
