"""Reads an unfinished JSON text (RFC 8259) as far as possible, in linear time: here a tool's input, which the Messages API
streams as fragments cut anywhere (`input_json_delta`).

    reading = PartialJSON()
    reading.feed('{"city": "Os')
    reading.value                           # {}: half a string does not count
    reading.feed('lo", "days": 1')
    reading.value                           # {"city": "Oslo", "days": 1}: a number may still grow
    reading.feed("4}")
    reading.value                           # {"city": "Oslo", "days": 14}

Which parts count. Containers count from their first character, members once key and value are there. Of a value that is cut, a
number counts if it is one as it stands (`1`, not `1.`), a literal once it is whole (`true`, not `tru`). A cut string is
dropped, unless `keep_strings` is set; a cut key always is. jiter, the parser of the official SDK, reads alike.

How it works. The reader takes one token after another and builds the containers as it goes. A token at the end of a fragment
may go on in the next one: a number or literal is kept and read again with it (their length is limited), a string is a list
of pieces. So a text that arrives character by character costs linear time. Parsing the whole text again at each fragment takes
seconds for an input of 100 kB.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from rawsse.errors import PartialJSONError, quote

MAX_DEPTH = 200
"""Arrays and objects within each other. jiter's limit; what reads the value (`json.dumps`, `repr`, a `deepcopy`) recurses, and
Python stops at 1000 frames."""

MAX_NUMBER_CHARS = 4300
"""Characters of one number: what `int` itself takes by default, since its time grows with the square of the digits."""

# The tokens that may be next, in the words of an error.
_VALUE: Final = "a value"
_KEY: Final = "a key in quotation marks"
_COLON: Final = "a colon"
_COMMA: Final = "a comma or the end of the array or object"
_END: Final = "nothing after the value"

_BLANKS: Final = " \t\n\r"  # RFC 8259, 2; no others
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
# The three last are not JSON, but Python writes and reads them, and jiter reads them.
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# RFC 8259, 7: "To escape an extended character that is not in the Basic Multilingual Plane, the character is represented as a
# 12-character sequence, encoding the UTF-16 surrogate pair." One half alone is not a character: UTF-8 cannot carry it,
# and jiter refuses it, too.
_ESCAPE = (
    r'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})'
)
_IN_STRING = re.compile(rf'(?:[^"\\\x00-\x1f]+|{_ESCAPE})*')


def read_partial(text: str, *, keep_strings: bool = False, max_depth: int = MAX_DEPTH) -> Any:
    """The best reading of `text` in one call. Raises `PartialJSONError` if it is not the beginning of a JSON text."""
    reading = PartialJSON(keep_strings=keep_strings, max_depth=max_depth)
    reading.feed(text)
    return reading.value


class PartialJSON:
    """One JSON text that arrives in fragments.

    `keep_strings` lets a string value count before it is complete. `max_depth` bounds arrays and objects within each other.
    """

    def __init__(self, *, keep_strings: bool = False, max_depth: int = MAX_DEPTH) -> None:
        self._keep_strings = keep_strings
        self._max_depth = max_depth
        self._fed = 0  # characters
        self._cut = ""  # the last of them: a number, literal or escape that may go on in the next fragment
        self._string: list[str] | None = None  # the pieces of the string that is being read
        self._wanted = _VALUE
        self._root: list[Any] = []  # the value, once there is one
        self._open: list[list[Any] | dict[str, Any]] = [self._root]  # the containers around the next character
        self._key = ""  # where the next value goes, if it goes into an object
        self._is_lent = False  # `value` has put what is there of a cut value into its container
        self._hidden: dict[str, Any] = {}  # the member of the same name that it hides there
        self._error: PartialJSONError | None = None

    @property
    def value(self) -> Any:
        """The best reading so far; None before anything. It is live: `feed` goes on filling it. Do not change it.

        Reading it costs nothing but the cut string or number at the end, if there is one.
        """
        if not self._is_lent and (cut := self._cut_value()):
            top = self._open[-1]
            self._hidden = {self._key: top[self._key]} if isinstance(top, dict) and self._key in top else {}
            self._place(cut[0])
            self._is_lent = True
        return self._root[0] if self._root else None

    def feed(self, fragment: str) -> None:
        """Take the next characters, cut anywhere.

        Raises `PartialJSONError` as soon as no JSON text could go on like this. The reading then ends before the token that
        is wrong, and every further call raises the same error.
        """
        if self._error is not None:
            raise self._error
        if self._is_lent:
            self._take_back()
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

    # --- Each of these reads one token, and returns where the next one begins ---

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
            container: list[Any] | dict[str, Any] = [] if char == "[" else {}
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
        token = _SCALAR.match(text, at)[0]  # type: ignore[index]  # it matches everywhere
        if len(token) > MAX_NUMBER_CHARS:
            self._fail(text, at, f"no number longer than {MAX_NUMBER_CHARS} characters")
        if at + len(token) == len(text) and _may_go_on(token):
            self._cut = token
        elif _is_scalar(token):
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
        """The character ends the innermost container: after a member, or at once."""
        top = self._open[-1]
        end, first = ("]", _VALUE) if isinstance(top, list) else ("}", _KEY)
        is_before_first = self._wanted is first and not top and len(self._open) > 1
        return char == end and (self._wanted is _COMMA or is_before_first)

    def _place(self, value: Any) -> None:
        top = self._open[-1]
        if isinstance(top, list):
            top.append(value)
        else:
            top[self._key] = value
        self._wanted = _COMMA if len(self._open) > 1 else _END

    def _cut_value(self) -> list[Any]:
        """The cut value at the end, if it counts."""
        if self._string is None:
            return [json.loads(self._cut)] if self._cut and _is_scalar(self._cut) else []
        if not self._keep_strings or self._wanted is _KEY:
            return []
        self._string = ["".join(self._string)]  # joined once, however often it is read
        return self._string

    def _take_back(self) -> None:
        top = self._open[-1]
        if isinstance(top, list):
            top.pop()
        elif self._hidden:
            top.update(self._hidden)
        else:
            del top[self._key]
        self._wanted = _VALUE
        self._is_lent = False

    def _fail(self, text: str, at: int, expected: str) -> NoReturn:
        self._string, self._cut = None, ""
        position = self._fed - len(text) + at
        message = f"no JSON at character {position}: expected {expected}, found {quote(text[at : at + 12])}"
        self._error = PartialJSONError(message)
        raise self._error


def _is_scalar(token: str) -> bool:
    try:
        json.loads(token)
    except ValueError:
        return False
    return True


def _may_go_on(token: str) -> bool:
    """It is a number or a literal, or more characters can make it one."""
    return _is_scalar(token) or _is_scalar(token + "0") or any(literal.startswith(token) for literal in _LITERALS)


def _is_cut_escape(text: str) -> bool:
    """The text is the beginning of an escape: one of these ends makes it whole."""
    return any(re.fullmatch(_ESCAPE, text + whole[len(text) :]) for whole in (r"\u0000", r"\ud800\udc00"))
