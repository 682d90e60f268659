"""Reads an unfinished JSON text (RFC 8259) as far as possible, in linear time: here a tool's input, which the Messages API
streams as fragments cut anywhere (`input_json_delta`).

    reading = PartialJSON()
    reading.feed('{"city": "Os')
    reading.value                           # {}: half a string is no city
    reading.feed('lo", "days": 1')
    reading.value                           # {"city": "Oslo", "days": 1}: a number may still grow
    reading.feed("4}")
    reading.close()                         # {"city": "Oslo", "days": 14}, or PartialJSONError if the text is unfinished

What counts. Containers count from their first character, members once key and value are there. Of a value that is cut, a
number counts if it is one as it stands (`1`, not `1.`), a literal once it is whole (`true`, not `tru`). A cut string is
dropped, unless `keep_strings` is set; a cut key always is. jiter, the parser of the official SDK, reads alike.

How it works. The state is the method that reads the next characters: `_in_string`, `_after_value` … Each takes what it
understands from the fragment and says where the next one goes on. Nothing is read twice and nothing is joined before it is
whole, so that a text fed character by character costs linear time: parsing the whole text again at each fragment, the
obvious way, takes seconds for an input of 100 kB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from rawsse.errors import PartialJSONError, quote

MAX_DEPTH = 200
"""Arrays and objects within each other. jiter's limit; what reads the value (`json.dumps`, `repr`, a `deepcopy`) recurses, and
Python stops at 1000 frames."""

MAX_NUMBER_CHARS = 4300
"""Characters of one number: what `int` itself takes by default, since its time grows with the square of the digits."""

_BLANKS: Final = (
    " \t\n\r"  # RFC 8259, 2: "Space", "Horizontal tab", "Line feed or New line", "Carriage return"; no others
)
_END_OF_PLAIN = re.compile(r'["\\\x00-\x1f]')  # what may not stand for itself in a string (RFC 8259, 7)
_SHORT_ESCAPES: Mapping[str, str] = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_UNICODE_ESCAPE: Final = r"\uhhhh\uhhhh"  # h: a hexadecimal digit. The second half only after a high surrogate.
_HEX = frozenset("0123456789abcdefABCDEF")
# The three last are no JSON, but Python writes and reads them, and jiter reads them.
_LITERALS: Mapping[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
_DIGITS: Final = "0123456789"
# RFC 8259, 6: number = [ minus ] int [ frac ] [ exp ]. A state is named after what was read last.
_NUMBER: Mapping[str, Mapping[str, str]] = {
    "minus": {"0": "zero", "123456789": "int"},
    "zero": {".": "point", "eE": "exp"},  # "Leading zeros are not allowed."
    "int": {_DIGITS: "int", ".": "point", "eE": "exp"},
    "point": {_DIGITS: "frac"},
    "frac": {_DIGITS: "frac", "eE": "exp"},
    "exp": {"+-": "sign", _DIGITS: "exp digits"},
    "sign": {_DIGITS: "exp digits"},
    "exp digits": {_DIGITS: "exp digits"},
}
_WHOLE_NUMBER = ("zero", "int", "frac", "exp digits")
_NOTHING: Final = object()


def read_partial(text: str, *, keep_strings: bool = False, max_depth: int = MAX_DEPTH) -> Any:
    """The best reading of `text` in one call. Raises `PartialJSONError` if it is no beginning of a JSON text."""
    reading = PartialJSON(keep_strings=keep_strings, max_depth=max_depth)
    reading.feed(text)
    return reading.value


class PartialJSON:
    """One JSON text that comes in fragments.

    `keep_strings` lets a string value count before its end has come. `max_depth` bounds arrays and objects within each other.
    """

    def __init__(self, *, keep_strings: bool = False, max_depth: int = MAX_DEPTH) -> None:
        self._keep_strings = keep_strings
        self._max_depth = max_depth
        self._fragments: list[str] = []
        self._fed = 0  # characters in the fragments before the one at hand
        self._read: Callable[[str, int], int] = self._before_value
        self._root: Any = None
        self._open: list[list[Any] | dict[str, Any]] = []  # the containers around the next character
        self._is_empty = False  # nothing has come since the innermost container opened: it may close at once
        self._key = ""  # where the next value goes, if it goes into an object
        self._token: list[str] = []  # the pieces of the string, number or literal at hand
        self._escape = ""
        self._number = ""  # a state of _NUMBER
        self._is_key = False  # the string at hand
        self._is_lent = False  # `value` has put what is there of the token into its container
        self._shadowed: Any = _NOTHING  # the member of the same name that it hides there
        self._error: PartialJSONError | None = None

    @property
    def text(self) -> str:
        """Everything that was fed. Joined when looked at."""
        if len(self._fragments) > 1:
            self._fragments = ["".join(self._fragments)]
        return self._fragments[0] if self._fragments else ""

    @property
    def value(self) -> Any:
        """The best reading so far; None before anything. It is live: `feed` goes on filling it. Do not change it.

        Looking costs nothing but the cut string or number at the end, if there is one.
        """
        self._lend()
        return self._root

    @property
    def is_complete(self) -> bool:
        """The text is a whole JSON text as it stands."""
        return self._error is None and not self._open and (self._read == self._at_end or self._is_whole_number())

    def feed(self, fragment: str) -> None:
        """Take the next characters, cut anywhere.

        Raises `PartialJSONError` at the first character that no JSON text could have there; then the reading ends before
        it, and every further call raises the same error.
        """
        if self._error is not None:
            raise self._error
        self._take_back()
        self._fragments.append(fragment)
        at, end = 0, len(fragment)
        while at < end:
            at = self._read(fragment, at)
        self._fed += end

    def close(self) -> Any:
        """The text is over: return its value, the same as `json.loads(text)`.

        Raises `PartialJSONError` if the text is unfinished.
        """
        if self._error is not None:
            raise self._error
        if not self.is_complete:
            raise PartialJSONError(f"the JSON text is unfinished after {self._fed} characters", position=self._fed)
        return self.value

    # --- Between tokens: each reads one character ---

    def _before_value(self, text: str, at: int) -> int:
        char = text[at]
        if char in "[{":
            self._begin_container(text, at)
        elif char == '"':
            self._begin_string(is_key=False)
        elif char in "-" + _DIGITS:
            self._begin_token(char, self._in_number)
            self._number = "minus" if char == "-" else "zero" if char == "0" else "int"
        elif char in "tfnNI":
            self._begin_token(char, self._in_literal)
        elif char == "]" and self._is_empty:
            self._end_container()
        elif char not in _BLANKS:
            self._fail(at, char, "a value")
        return at + 1

    def _before_key(self, text: str, at: int) -> int:
        char = text[at]
        if char == '"':
            self._begin_string(is_key=True)
        elif char == "}" and self._is_empty:
            self._end_container()
        elif char not in _BLANKS:
            self._fail(at, char, "a key in quotation marks")
        return at + 1

    def _after_key(self, text: str, at: int) -> int:
        char = text[at]
        if char == ":":
            self._read = self._before_value
        elif char not in _BLANKS:
            self._fail(at, char, "a colon")
        return at + 1

    def _after_value(self, text: str, at: int) -> int:
        char = text[at]
        in_array = isinstance(self._open[-1], list)
        if char == ",":
            self._read = self._before_value if in_array else self._before_key
        elif char == ("]" if in_array else "}"):
            self._end_container()
        elif char not in _BLANKS:
            self._fail(at, char, "a comma or the end of the array" if in_array else "a comma or the end of the object")
        return at + 1

    def _at_end(self, text: str, at: int) -> int:
        if text[at] not in _BLANKS:
            self._fail(at, text[at], "nothing after the value")
        return at + 1

    # --- Within tokens ---

    def _in_string(self, text: str, at: int) -> int:
        found = _END_OF_PLAIN.search(text, at)
        end = found.start() if found else len(text)
        if end > at:
            self._token.append(text[at:end])
            return end
        if text[at] == '"':
            self._end_string()
        elif text[at] == "\\":
            self._escape = "\\"
            self._read = self._in_escape
        else:
            self._fail(at, text[at], "control characters in a string to be escaped")
        return at + 1

    def _in_escape(self, text: str, at: int) -> int:
        char = text[at]
        if self._escape == "\\" and char in _SHORT_ESCAPES:
            self._end_escape(_SHORT_ESCAPES[char])
            return at + 1
        wanted = _UNICODE_ESCAPE[len(self._escape)]
        if char not in _HEX if wanted == "h" else char != wanted:
            self._fail(at, char, "an escape")
        self._escape += char
        if len(self._escape) in (6, 12):
            self._end_unicode_escape(at)
        return at + 1

    def _in_number(self, text: str, at: int) -> int:
        char = text[at]
        for characters, state in _NUMBER[self._number].items():
            if char in characters:
                self._number = state
                self._token.append(char)
                if len(self._token) > MAX_NUMBER_CHARS:
                    self._token.pop()
                    self._fail(at, char, f"no number longer than {MAX_NUMBER_CHARS} characters")
                return at + 1
        if self._number == "minus" and char == "I":
            self._read = self._in_literal
            return at
        if self._number not in _WHOLE_NUMBER or char in _DIGITS:
            self._fail(at, char, "a number")
        self._end_value(self._to_number())
        return at  # the character belongs to what comes after

    def _in_literal(self, text: str, at: int) -> int:
        self._token.append(text[at])
        word = "".join(self._token)
        if word in _LITERALS:
            self._end_value(_LITERALS[word])
        elif not any(literal.startswith(word) for literal in _LITERALS):
            self._token.pop()
            self._fail(at, text[at], "true, false or null")
        return at + 1

    # --- Where tokens and containers begin and end ---

    def _begin_container(self, text: str, at: int) -> None:
        if len(self._open) >= self._max_depth:
            self._fail(at, text[at], f"no more than max_depth ({self._max_depth}) levels")
        container: list[Any] | dict[str, Any] = [] if text[at] == "[" else {}
        self._place(container)
        self._open.append(container)
        self._is_empty = True
        self._read = self._before_value if isinstance(container, list) else self._before_key

    def _end_container(self) -> None:
        self._open.pop()
        self._is_empty = False
        self._read = self._after_value if self._open else self._at_end

    def _begin_string(self, *, is_key: bool) -> None:
        self._is_key = is_key
        self._begin_token("", self._in_string)

    def _begin_token(self, first: str, read: Callable[[str, int], int]) -> None:
        self._token = [first]
        self._is_empty = False
        self._read = read

    def _end_string(self) -> None:
        string = "".join(self._token)
        if self._is_key:
            self._key = string
            self._read = self._after_key
        else:
            self._end_value(string)

    def _end_escape(self, char: str) -> None:
        self._token.append(char)
        self._escape = ""
        self._read = self._in_string

    def _end_unicode_escape(self, at: int) -> None:
        # RFC 8259, 7: "To escape an extended character that is not in the Basic Multilingual Plane, the character is
        # represented as a 12-character sequence, encoding the UTF-16 surrogate pair." One half alone is no character: it
        # could not be sent on as UTF-8, and jiter refuses it, too.
        first = int(self._escape[2:6], 16)
        if len(self._escape) == 12:
            second = int(self._escape[8:], 16)
            if not 0xDC00 <= second <= 0xDFFF:
                self._fail(at, self._escape, "the second half of a surrogate pair")
            self._end_escape(chr(0x10000 + (first - 0xD800 << 10) + (second - 0xDC00)))
        elif 0xDC00 <= first <= 0xDFFF:
            self._fail(at, self._escape, "the first half of a surrogate pair before the second")
        elif not 0xD800 <= first <= 0xDBFF:
            self._end_escape(chr(first))

    def _end_value(self, value: Any) -> None:
        self._place(value)
        self._read = self._after_value if self._open else self._at_end

    def _place(self, value: Any) -> None:
        if not self._open:
            self._root = value
        elif isinstance(top := self._open[-1], list):
            top.append(value)
        else:
            top[self._key] = value

    def _fail(self, at: int, found: str, expected: str) -> NoReturn:
        position = self._fed + at
        self._error = PartialJSONError(
            f"no JSON at character {position}: expected {expected}, found {quote(found)}", position=position
        )
        raise self._error

    # --- The token at hand, as far as it counts: lent to its container while somebody looks ---

    def _lend(self) -> None:
        if self._is_lent or (value := self._value_so_far()) is _NOTHING:
            return
        top = self._open[-1] if self._open else None
        self._shadowed = top.get(self._key, _NOTHING) if isinstance(top, dict) else _NOTHING
        self._is_lent = True
        self._place(value)

    def _take_back(self) -> None:
        if not self._is_lent:
            return
        self._is_lent = False
        top = self._open[-1] if self._open else None
        if top is None:
            self._root = None
        elif isinstance(top, list):
            top.pop()
        elif self._shadowed is _NOTHING:
            del top[self._key]
        else:
            top[self._key] = self._shadowed

    def _value_so_far(self) -> Any:
        if self._is_whole_number():
            return self._to_number()
        if not self._keep_strings or self._is_key or self._read not in (self._in_string, self._in_escape):
            return _NOTHING
        self._token = ["".join(self._token)]  # joined once, however often somebody looks
        return self._token[0]

    def _is_whole_number(self) -> bool:
        return self._read == self._in_number and self._number in _WHOLE_NUMBER

    def _to_number(self) -> int | float:
        digits = "".join(self._token)
        return int(digits) if self._number in ("zero", "int") else float(digits)
