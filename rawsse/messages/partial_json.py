"""An incremental parser of incomplete JSON (RFC 8259), in linear time. The Messages API streams a tool's input as such
fragments, split anywhere (`input_json_delta`).

    reading = PartialJSON()
    reading.feed('{"city": "Os')
    reading.value                           # {}: an incomplete string is left out
    reading.feed('lo", "days": 1')
    reading.value                           # {"city": "Oslo", "days": 1}: a number may still grow
    reading.feed("4}")
    reading.value                           # {"city": "Oslo", "days": 14}

Which parts are included: containers from their first character, and members once their value is included. At the end of the
text, a number is included if it is valid as it stands (`1`, not `1.`), and a literal once it is complete (`true`, not `tru`).
An incomplete string is left out unless `keep_strings` is set; an incomplete key always is. jiter, the official SDK's parser,
does the same.

How it works: the parser reads one token at a time and builds the containers as it goes. A token at the end of a fragment may
continue in the next one: a number or literal is kept and read again (their length is limited), and a string is a list of
pieces. So even text that arrives character by character takes linear time. Parsing the whole text again for each fragment
takes seconds for an input of 100 kB.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from rawsse.errors import PartialJSONError, quote

MAX_DEPTH = 200
"""The nesting limit of arrays and objects, as in jiter. Users of the value (`json.dumps`, `repr`, `deepcopy`) recurse, and
Python stops at 1000 frames."""

MAX_NUMBER_CHARS = 4300
"""The length limit of a number: the default of `int`, whose time grows with the square of the digits."""

# The tokens that may be next, as worded in errors.
_VALUE: Final = "a value"
_KEY: Final = "a key in quotation marks"
_COLON: Final = "a colon"
_COMMA: Final = "a comma or the end of the array or object"
_END: Final = "nothing after the value"

_BLANKS: Final = " \t\n\r"  # RFC 8259, 2; no others
_TOKEN = re.compile(r"[-+.0-9A-Za-z]*")
# The last three are not JSON, but Python writes and reads them, and jiter reads them.
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"  # RFC 8259, 6
_SCALAR = re.compile("|".join((_NUMBER, *_LITERALS)))
# RFC 8259, 7: "To escape an extended character that is not in the Basic Multilingual Plane, the character is represented as a
# 12-character sequence, encoding the UTF-16 surrogate pair." An unpaired surrogate is not a character: UTF-8 cannot encode
# it, and jiter also rejects it.
_ESCAPE = (
    r'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})'
)
_IN_STRING = re.compile(rf'(?:[^"\\\x00-\x1f]+|{_ESCAPE})*')


def read_partial(text: str, *, keep_strings: bool = False, max_depth: int = MAX_DEPTH) -> Any:
    """Parse `text` in one call. Raises `PartialJSONError` if it is not a prefix of a JSON text."""
    reading = PartialJSON(keep_strings=keep_strings, max_depth=max_depth)
    reading.feed(text)
    return reading.value


class PartialJSON:
    """One JSON text that arrives in fragments.

    `keep_strings` includes string values before they are complete. `max_depth` bounds the nesting of arrays and objects.
    """

    def __init__(self, *, keep_strings: bool = False, max_depth: int = MAX_DEPTH) -> None:
        self._keep_strings = keep_strings
        self._max_depth = max_depth
        self._fed = 0  # characters
        self._cut = ""  # a number, literal or escape at the end, which the next fragment may continue
        self._string: list[str] | None = None  # the pieces of the string that is being read
        self._wanted = _VALUE
        self._open: list[Any] = [{}]  # the containers around the next character; the first has the value, named ""
        self._key = ""  # of the next value, if it is in an object
        self._hidden: dict[str, Any] | None = None  # see `value`
        self._error: PartialJSONError | None = None

    @property
    def value(self) -> Any:
        """The value so far; None at first. It is live: `feed` continues to fill it. Do not change it.

        Reading it costs only the incomplete string or number at the end, if any.
        """
        if self._hidden is None and (cut := self._cut_value()):
            # It is in its container until the next characters come. It may hide a member of the same name.
            top = self._open[-1]
            self._hidden = {self._key: top[self._key]} if isinstance(top, dict) and self._key in top else {}
            self._place(cut[0])
        return self._open[0].get("")

    def feed(self, fragment: str) -> None:
        """Parse the next characters, which may be split anywhere.

        Raises `PartialJSONError` as soon as the text is not a prefix of a JSON text. The value then ends before the invalid
        token, and further calls raise the same error.
        """
        if self._error is not None:
            raise self._error
        if self._hidden is not None:
            self._take_back(self._hidden)
        text, at = self._cut + fragment, 0
        self._cut = ""
        self._fed += len(fragment)
        while at < len(text):
            if self._string is not None:
                at = self._read_string(self._string, text, at)
            elif text[at] in _BLANKS:
                at += 1
            else:
                at = self._read_token(text, at)

    # --- Each of these reads one token and returns the index of the next one ---

    def _read_token(self, text: str, at: int) -> int:
        char, wanted = text[at], self._wanted
        if self._may_end(char):
            self._open.pop()
            self._wanted = _COMMA if len(self._open) > 1 else _END
        elif char == '"' and wanted in (_VALUE, _KEY):
            self._string = []
        elif char in "[{" and wanted is _VALUE:
            if len(self._open) > self._max_depth:
                self._fail(text, at, f"no more than max_depth ({self._max_depth}) levels")
            container: Any = [] if char == "[" else {}
            self._place(container)
            self._open.append(container)
            self._wanted = _VALUE if char == "[" else _KEY
        elif wanted is _VALUE:
            return self._read_scalar(text, at)
        elif char == ":" and wanted is _COLON:
            self._wanted = _VALUE
        elif char == "," and wanted is _COMMA:
            self._wanted = _VALUE if isinstance(self._open[-1], list) else _KEY
        else:
            self._fail(text, at, wanted)
        return at + 1

    def _read_scalar(self, text: str, at: int) -> int:
        """Read a number or a literal."""
        token = _TOKEN.match(text, at)[0]  # type: ignore[index]  # it matches everywhere
        if len(token) > MAX_NUMBER_CHARS:
            self._fail(text, at, f"no number longer than {MAX_NUMBER_CHARS} characters")
        if at + len(token) == len(text) and _may_go_on(token):
            self._cut = token
        elif _SCALAR.fullmatch(token):
            self._place(json.loads(token))
        else:
            self._fail(text, at, _VALUE)
        return at + len(token)

    def _read_string(self, pieces: list[str], text: str, at: int) -> int:
        """Read the rest of a string, or as much of it as has arrived."""
        piece = _IN_STRING.match(text, at)[0]  # type: ignore[index]  # it matches everywhere
        pieces.append(json.loads(f'"{piece}"') if "\\" in piece else piece)
        end = at + len(piece)
        if text[end : end + 1] == '"':
            self._string = None
            if self._wanted is _KEY:
                self._key, self._wanted = "".join(pieces), _COLON
            else:
                self._place("".join(pieces))
            return end + 1
        self._cut = text[end:]
        if self._cut and not _is_cut_escape(self._cut):
            self._fail(text, end, "an escape" if text[end] == "\\" else "control characters in a string to be escaped")
        return len(text)

    # --- Shared by them ---

    def _may_end(self, char: str) -> bool:
        """Whether the character ends the innermost container: after a member, or if it is empty."""
        top = self._open[-1]
        end, first = ("]", _VALUE) if isinstance(top, list) else ("}", _KEY)
        return char == end and (self._wanted is _COMMA or (self._wanted is first and not top))

    def _place(self, value: Any) -> None:
        top = self._open[-1]
        if isinstance(top, list):
            top.append(value)
        else:
            top[self._key] = value
        self._wanted = _COMMA if len(self._open) > 1 else _END

    def _cut_value(self) -> list[Any]:
        """The incomplete value at the end, if it is included."""
        if self._string is None:
            return [json.loads(self._cut)] if _SCALAR.fullmatch(self._cut) else []
        if not self._keep_strings or self._wanted is _KEY:
            return []
        self._string = ["".join(self._string)]  # joined once, however often it is read
        return self._string

    def _take_back(self, hidden: dict[str, Any]) -> None:
        top = self._open[-1]
        if hidden:
            top.update(hidden)
        else:
            top.pop(-1 if isinstance(top, list) else self._key)
        self._wanted, self._hidden = _VALUE, None

    def _fail(self, text: str, at: int, expected: str) -> NoReturn:
        self._string, self._cut = None, ""
        position = self._fed - len(text) + at
        message = f"no JSON at character {position}: expected {expected}, found {quote(text[at : at + 12])}"
        self._error = PartialJSONError(message)
        raise self._error


def _may_go_on(token: str) -> bool:
    """Whether it is a number or a literal, or a prefix of one."""
    is_number = _SCALAR.fullmatch(token) or _SCALAR.fullmatch(token + "0")
    return is_number is not None or any(literal.startswith(token) for literal in _LITERALS)


def _is_cut_escape(text: str) -> bool:
    """Whether the text is an incomplete escape, which one of these endings completes."""
    return any(re.fullmatch(_ESCAPE, text + whole[len(text) :]) for whole in (r"\u0000", r"\ud800\udc00"))
