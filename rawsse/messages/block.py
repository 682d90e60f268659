"""One content block under construction: joins its fragments into its JSON.

    block = BlockBuilder({"type": "tool_use", "id": …, "name": …, "input": {}})
    block.grow('{"city": "Os')
    block.best_input()                       # {}: a string counts when it is whole
    block.grow('lo"}')
    block.close()                            # block.raw["input"] == {"city": "Oslo"}, block.complete is True

The field that grows (text, thinking, a tool's input) is a list of fragments, joined when it is read, so that n deltas take
linear time. A tool's input is parsed once, strictly, when its block ends, and before that only if it is read.
"""

from __future__ import annotations

from typing import Any

from rawsse.errors import EventDataError, PartialJSONError, quote
from rawsse.messages.lens import parse_json
from rawsse.messages.partial_json import PartialJSON

_TOOL_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


class BlockBuilder:
    """A content block under construction. `raw` is its JSON; the field that grows is in `fragments` until it is read.

    `field` is the field of `raw` that grows: "text", "thinking" or "input"; None if there is none. `raw` is modified: the
    caller must not share it. Raises `EventDataError` if that field has a value that cannot grow.
    """

    __slots__ = ("_reader", "_unread", "complete", "field", "fragments", "length", "raw")

    def __init__(self, raw: dict[str, Any], *, complete: bool = False) -> None:
        self.raw = raw
        self.complete = complete
        self.field = _growing_field(raw)
        self.fragments: list[str] = []
        start = raw[self.field] if self.field else None
        self.length = len(start) if isinstance(start, str) else 0
        self._reader: PartialJSON | None = None
        self._unread = 0  # index of the first fragment of input that the reader has not seen

    def grow(self, text: str) -> None:
        """Add the next fragment of the field that grows."""
        self.complete = False  # the block may have been closed before, in an order that only a lenient builder accepts
        self.fragments.append(text)
        self.length += len(text)

    @property
    def input_text(self) -> str:
        """The JSON text of the tool's input as received; joined when it is read."""
        return "".join(self.fragments) if self.field == "input" else ""

    def text_up_to(self, length: int) -> str:
        """The first `length` characters of the text or thinking."""
        self.settle()
        grown: str = self.raw[self.field or "text"]
        return grown[:length]

    def best_input(self) -> Any:
        """The input as far as it can be read: of a finished call the input, of an unfinished one its best reading."""
        if not self.complete and any(self.fragments):
            self._read_ahead()
        return self.raw["input"]

    def settle(self) -> None:
        """Bring `raw` up to date."""
        if self.field == "input":
            self.best_input()
        elif self.fragments and self.field:
            self.raw[self.field] += "".join(self.fragments)
            self.fragments.clear()

    def close(self) -> None:
        """The block is over: its input is parsed, strictly and once. It is complete if that input is a JSON object."""
        if self.field != "input":
            self.complete = True
            return
        if any(self.fragments):  # a tool without arguments may stream nothing, or only empty strings
            try:
                self.raw["input"] = parse_json(self.input_text)
            except (ValueError, RecursionError):
                self._read_ahead()
                return
        self.complete = isinstance(self.raw["input"], dict)

    def close_if_whole(self) -> None:
        """The block ends without a `content_block_stop`. A tool's input that parses as an object is complete all the same: a
        part of an object never parses. Without a single character nothing is known."""
        if self.field == "input" and any(self.fragments):
            self.close()

    def _read_ahead(self) -> None:
        # Made when an unfinished input is read for the first time; it then reads each fragment once.
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


def _growing_field(raw: dict[str, Any]) -> str | None:
    """The field that grows, made ready for it: gateways leave it out, or send null, or (for an input) an empty string."""
    kind = str(raw.get("type"))
    if kind in _TOOL_CALLS:
        raw["input"] = raw.get("input") or {}
        return "input"
    if kind in ("text", "thinking"):
        value = raw[kind] = "" if raw.get(kind) is None else raw[kind]
        if not isinstance(value, str):
            raise EventDataError(f"a block of type {kind} has a {kind!r} that is not a string: {quote(repr(value))}")
        return kind
    # A type that this version does not know: a field that looks as if it could grow may do so.
    fields = (("input", dict), ("text", str), ("thinking", str))
    return next((name for name, wanted in fields if isinstance(raw.get(name), wanted)), None)
