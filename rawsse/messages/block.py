"""One content block under construction.

This file knows how the fragments of a block become its JSON. It refuses to know which event may come when.

What grows (text, thinking, a tool's input) is kept as a list of fragments and joined when somebody looks, so that n deltas
cost linear time. A tool's input is parsed once, strictly, when its block ends; before that it is read only if somebody asks.
"""

from __future__ import annotations

import json
from typing import Any

from rawsse.errors import PartialJSONError
from rawsse.messages.partial_json import PartialJSON

__all__ = ["BlockBuilder"]


class BlockBuilder:
    """A content block under construction. `raw` is its JSON; what grows is in `fragments` until somebody looks."""

    __slots__ = ("_reader", "_unread", "complete", "fragments", "length", "raw")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.complete = False
        self.fragments: list[str] = []
        field = "thinking" if raw.get("type") == "thinking" else "text"
        start = raw.get(field)
        self.length = len(start) if isinstance(start, str) else 0
        self._reader: PartialJSON | None = None
        self._unread = 0  # index of the first fragment of input that the reader has not seen

    def grow(self, text: str) -> None:
        self.fragments.append(text)
        self.length += len(text)

    @property
    def takes_input(self) -> bool:
        return "input" in self.raw

    @property
    def input_text(self) -> str:
        return "".join(self.fragments) if self.takes_input else ""

    def text_up_to(self, length: int) -> str:
        self.settle()
        grown: str = self.raw["thinking" if self.raw.get("type") == "thinking" else "text"]
        return grown[:length]

    def best_input(self) -> Any:
        """The input as far as it can be read: of a finished call the input, of an unfinished one its best reading."""
        if not self.complete and any(self.fragments):
            self._read_ahead()
        return self.raw["input"]

    def settle(self) -> None:
        """Bring `raw` up to date."""
        if self.takes_input:
            self.best_input()
        elif self.fragments:
            field = "thinking" if self.raw.get("type") == "thinking" else "text"
            self.raw[field] = (self.raw.get(field) or "") + "".join(self.fragments)
            self.fragments.clear()

    def close(self) -> None:
        """The block is over: its input is parsed, strictly and once."""
        self.complete = True
        if self.takes_input and any(self.fragments):
            try:
                self.raw["input"] = json.loads(self.input_text)
            except (ValueError, RecursionError):
                self.complete = False
                self._read_ahead()

    def _read_ahead(self) -> None:
        # The reader is made only when somebody looks at an unfinished input; then it reads each fragment once.
        if self._reader is None:
            self._reader = PartialJSON()
        try:
            while self._unread < len(self.fragments):
                self._unread += 1
                self._reader.feed(self.fragments[self._unread - 1])
        except PartialJSONError:
            self._unread = len(self.fragments)  # not JSON from here on: the best reading stays what it was
        if self._reader.value is not None:
            self.raw["input"] = self._reader.value
