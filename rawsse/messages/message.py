"""Folds typed events into the message so far, checks their order (`TRANSITIONS`), and tells when the answer is complete.

    builder = MessageBuilder()
    for sse_event in decoder.feed(chunk):
        event = builder.feed(sse_event)
    builder.message                    # a Message: the whole answer, or the part that has arrived
    builder.is_complete                # message_stop has arrived, or only message_stop is missing

The message is plain JSON: what the API would have returned without `stream`. Text, thinking and tool input are lists of
fragments, which are joined when they are read, so that an answer of n deltas takes linear time; a tool's input is parsed
once, when its block ends. An event that the table does not allow raises `EventOrderError` (strict), or is handled as `REPAIRS`
says and recorded in `deviations` (lenient).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from rawsse.errors import EventDataError, EventOrderError, MessageTooLargeError, Phase
from rawsse.messages.content import KNOWN_BLOCK_TYPES, BlockBuilder, Message, look_at_block
from rawsse.messages.events import (
    KNOWN_DELTA_TYPES,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    DerivedEvent,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageStreamEvent,
    Ping,
    StreamEvent,
    UnknownEvent,
    derive,
    read_event,
)
from rawsse.messages.lens import object_at, well_formed
from rawsse.sse import Event

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message of a `MessageBuilder` by default. The longest answers today (hundreds of thousands of tokens) have a few
MB; a peer that never stops sending deltas must not fill the memory."""

Value = TypeVar("Value")

FRAGMENT_BYTES = 8
"""The memory that a fragment takes in addition to its text: its place in a list."""


# --- The order of events -------------------------------------------------------------------------------------------


class State(enum.Enum):
    """The state of a stream. The value is its description in error messages."""

    START = "before message_start"
    BETWEEN = "between content blocks"
    BLOCK = "in a content block"
    ENDING = "after message_delta"
    DONE = "after message_stop"
    FAILED = "after an error event"


TRANSITIONS: Mapping[State, Mapping[str, State]] = {
    State.START: {"message_start": State.BETWEEN, "error": State.FAILED},
    State.BETWEEN: {"content_block_start": State.BLOCK, "message_delta": State.ENDING, "error": State.FAILED},
    State.BLOCK: {
        "content_block_delta": State.BLOCK,
        "content_block_stop": State.BETWEEN,
        "message_delta": State.ENDING,  # observed when `max_tokens` cuts a tool's input: the block is never closed
        "error": State.FAILED,
    },
    State.ENDING: {"message_delta": State.ENDING, "message_stop": State.DONE, "error": State.FAILED},
    State.DONE: {},
    State.FAILED: {},
}
"""The events that each state allows, and the next state. `ping` and events of unknown type are allowed in every state, and
do not change it."""

REPAIRS: Mapping[State, Mapping[str, State]] = {
    State.BETWEEN: {
        "content_block_delta": State.BETWEEN,
        "content_block_stop": State.BETWEEN,
        "message_stop": State.DONE,
    },
    State.BLOCK: {"content_block_start": State.BLOCK, "message_stop": State.DONE},
    State.ENDING: {
        "content_block_start": State.BLOCK,
        "content_block_delta": State.ENDING,
        "content_block_stop": State.ENDING,
    },
}
"""The other events that a lenient builder applies, and the next state. It ignores the rest."""


class Deviation(NamedTuple):
    """A rule that the stream broke, and how a lenient builder handled it. `event_number` counts from 1."""

    rule: str
    text: str
    event_number: int


# --- The fold ---------------------------------------------------------------------------------------------------------


# For each delta with a fragment: the field of the block that grows, and the field of the delta.
_GROWS: Mapping[str, tuple[str, str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("input", "partial_json"),
}


class MessageBuilder:
    """Folds the events of one stream into its message, checks their order, and knows how far the answer is.

    `strict`: an event that is not allowed raises `EventOrderError`; otherwise it is repaired and recorded. After an error the
    builder keeps what it had: `message` can always be read.
    """

    def __init__(self, *, strict: bool = True, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.strict = strict
        self.state = State.START
        self.deviations: list[Deviation] = []
        self.has_content = False
        self.error: ErrorEvent | None = None
        self.model: object = None
        self.usage: dict[str, Any] = {}
        """The usage so far. "The token counts shown in the `usage` field of the `message_delta` event are cumulative"."""
        self._max_message_bytes = max_message_bytes
        self._event_number = 0
        self._stop_reason: object = None
        self._changed: BlockBuilder | None = None  # by the event that was applied last
        self._message_bytes = 0
        self._raw: dict[str, Any] | None = None
        self._blocks: list[BlockBuilder] = []
        self._positions: dict[int, int] = {}  # the index of a block in its events -> its place in the content
        self._open: int | None = None  # the index of the open block in its events

    @property
    def message(self) -> Message | None:
        """The message so far; None before `message_start`. It is live: later events change its JSON."""
        if self._raw is None:
            return None
        for block in self._blocks:
            block.settle()
        return Message(self._raw, facts=self._blocks)

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped; None until it has. A value that is not a string is ignored."""
        return self._stop_reason if isinstance(self._stop_reason, str) else None

    @property
    def is_done(self) -> bool:
        """`message_stop` has arrived."""
        return self.state is State.DONE

    @property
    def is_complete(self) -> bool:
        """`message_stop` has arrived, or the stop reason has and only the rest of the stream is missing."""
        return self.is_done or (self.state is State.ENDING and self.stop_reason is not None)

    @property
    def phase(self) -> Phase:
        """The progress of the stream, in the terms of errors and endings."""
        if self.is_done:
            return "done"
        if self.is_complete:
            return "tail"
        return "content" if self.has_content else "open"

    def feed(self, sse: Event) -> StreamEvent | None:
        """Read one server-sent event and apply it. Returns None for the end mark `[DONE]`.

        Raises `EventDataError`, `EventOrderError` (strict) or `MessageTooLargeError`; the event has then not been applied.
        """
        event = read_event(sse)
        if event is not None:
            self.apply(event)
        return event

    def apply(self, event: StreamEvent) -> None:
        """Apply one typed event. Raises as `feed`."""
        self._event_number += 1
        self._changed = None
        if type(event) is ContentBlockDelta and self.state is State.BLOCK and self._append(event):
            return
        if isinstance(event, Ping | UnknownEvent):
            return
        self._count(event)
        kind: str = event.raw["type"]
        following = TRANSITIONS[self.state].get(kind)
        if following is None:
            following = REPAIRS.get(self.state, {}).get(kind)
            repair = "it was ignored" if following is None else "it was applied all the same"
            self._deviate(f"{kind} may not come {self.state.value}", repair)
            if following is None:
                return
        self._fold(event)
        self._note(event)
        self.state = following

    def _note(self, event: StreamEvent) -> None:
        if isinstance(event, ContentBlockStart):
            self.has_content = True
        elif isinstance(event, MessageStart):
            message = event.raw["message"]
            self._stop_reason, self.model = message.get("stop_reason"), message.get("model")
            self._note_usage(message)
        elif isinstance(event, MessageDelta):
            self._note_usage(event.raw)
            self._stop_reason = object_at(event.raw, "delta").get("stop_reason", self._stop_reason)
        elif isinstance(event, ErrorEvent):
            self.error = event

    def _note_usage(self, raw: dict[str, Any]) -> None:
        self.usage.update({name: value for name, value in object_at(raw, "usage").items() if value is not None})

    def _deviate(self, rule: str, repair: str) -> None:
        if self.strict:
            allowed = ", ".join(TRANSITIONS[self.state]) or "nothing"
            raise EventOrderError(f"{rule} (allowed {self.state.value}: {allowed}, ping)", rule=rule)
        self.deviations.append(Deviation(rule, repair, self._event_number))

    def _append(self, event: ContentBlockDelta) -> bool:
        """The fast path of the most frequent event: a delta with the next fragment of the open block, within the limit.

        For every other event it returns False and has changed nothing. The plain path does the same to such a fragment, in
        twice the time.
        """
        index, delta = event.raw["index"], event.raw["delta"]
        if index != self._open:
            return False
        block = self._blocks[self._positions[index]]
        field, name = _GROWS.get(str(delta.get("type")), (None, ""))
        text = delta.get(name)
        if field is None or field != block.field or type(text) is not str:
            return False
        size = self._message_bytes + _bytes(text) + FRAGMENT_BYTES
        if size > self._max_message_bytes:
            return False
        self._message_bytes = size
        block.grow(text)
        if block.grown is not text:
            event.delta = type(event.delta)({**delta, name: block.grown})
        self._changed = block
        return True

    def expand(self, event: StreamEvent) -> list[MessageStreamEvent]:
        """The events that a `MessageStream` yields for the event that was just applied: itself and its derived event, if any.

        The order is that of the official SDK. `content_block_stop` and `message_stop` carry the finished block or message.
        """
        block = self._changed
        if isinstance(event, ContentBlockDelta):
            derived = None if block is None else derive(event.raw["index"], event.raw["delta"], block)
            return [event] if derived is None else [event, derived]
        half = self._last_half()
        if isinstance(event, ContentBlockStop) and block is not None:
            block.settle()
            whole = look_at_block(block.raw, complete=block.complete, input_text=block.input_text)
            return [*half, ContentBlockStop(event.raw, event.sse, whole)]
        return [*half, MessageStop(event.raw, event.sse, self.message) if isinstance(event, MessageStop) else event]

    def _last_half(self) -> list[DerivedEvent]:
        """The derived event of half a surrogate pair that was left when the last event ended its block; none, as a rule."""
        block = self._changed
        if block is None or not block.grown:
            return []
        kind = next(kind for kind, (field, _) in _GROWS.items() if field == block.field)
        index = next(index for index, position in self._positions.items() if self._blocks[position] is block)
        derived = derive(index, {"type": kind}, block)
        return [] if derived is None else [derived]

    def text_of(self, event: StreamEvent) -> str | None:
        """The text that the event just applied has added, as in the `TextEvent` from `expand`; None if there is none."""
        block = self._changed
        if block is None or block.field != "text":
            return None
        if not isinstance(event, ContentBlockDelta):
            return well_formed(block.grown) or None
        return well_formed(block.grown) if event.raw["delta"].get("type") == "text_delta" else None

    def _count(self, event: StreamEvent) -> None:
        """Add the memory that the event takes in the message: a fragment its own size, other events that of their JSON."""
        size = _bytes(event.sse.data)
        if isinstance(event, ContentBlockDelta) and (grows := _GROWS.get(str(event.raw["delta"].get("type")))):
            fragment = event.raw["delta"].get(grows[1])
            size = _bytes(fragment) + FRAGMENT_BYTES if isinstance(fragment, str) else size
        self._message_bytes += size
        if self._message_bytes > self._max_message_bytes:
            limit = self._max_message_bytes
            raise MessageTooLargeError(f"the message is larger than max_message_bytes ({limit})", limit=limit)

    # One method per event ------------------------------------------------------------------------------------------

    def _fold(self, event: StreamEvent) -> None:
        if isinstance(event, ContentBlockDelta):
            self._apply_delta(event)
        elif isinstance(event, ContentBlockStart):
            self._apply_block_start(event)
        elif isinstance(event, ContentBlockStop):
            self._apply_block_stop(event)
        elif isinstance(event, MessageStart):
            self._apply_start(event)
        elif isinstance(event, MessageDelta):
            self._apply_message_delta(event)
        elif isinstance(event, MessageStop):
            self._leave_block()

    def _apply_start(self, event: MessageStart) -> None:
        raw = dict(event.raw["message"])
        content = [] if raw.get("content") is None else raw["content"]
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise EventDataError("message_start has a message whose content is not a list of objects")
        # Normally there are none; an answer that continues after a programmatic tool call begins with some.
        self._blocks += [BlockBuilder(_own(block), complete=True) for block in content]
        self._positions = {position: position for position in range(len(content))}
        raw["content"] = [block.raw for block in self._blocks]
        raw["usage"] = dict(object_at(raw, "usage"))
        raw.setdefault("stop_reason", None)
        raw.setdefault("stop_sequence", None)
        self._raw = raw

    def _apply_block_start(self, event: ContentBlockStart) -> None:
        index: int = event.raw["index"]
        if index != len(self._blocks):
            rule = f"block indices count from 0 without gaps: {index} came for {len(self._blocks)}"
            self._deviate(rule, "the block was put last")
        given = event.raw["content_block"]
        block = BlockBuilder(_own(given))
        if block.half and block.field:
            event.content_block = look_at_block({**given, block.field: block.raw[block.field]})
        self._leave_block()
        self._open = index
        self._positions[index] = len(self._blocks)
        self._blocks.append(block)
        message = self._so_far
        message["content"].append(block.raw)
        if block.raw.get("type") == "fallback" and (model := object_at(block.raw, "to").get("model")):
            message["model"] = model

    def _apply_delta(self, event: ContentBlockDelta) -> None:
        block = self._block_of(event)
        if block is None:
            return
        delta: dict[str, Any] = event.raw["delta"]
        if _change(block, event):
            self._changed = block
            self.has_content = True
        elif str(block.raw.get("type")) in KNOWN_BLOCK_TYPES:  # an unknown type may accept any delta
            rule = f"{delta.get('type')} does not fit a block of type {block.raw.get('type')}"
            self._deviate(rule, "the delta was ignored")

    def _apply_block_stop(self, event: ContentBlockStop) -> None:
        block = self._block_of(event)
        if block is not None:
            block.close()
            self._changed = block
            self._open = None

    def _apply_message_delta(self, event: MessageDelta) -> None:
        self._leave_block()
        message = self._so_far
        delta = object_at(event.raw, "delta").items()
        message.update({k: v for k, v in delta if k not in _FOLDED and (v is not None or k.startswith("stop_"))})
        # "The token counts shown in the usage field of the message_delta event are cumulative": replaced, never added.
        message["usage"].update({k: v for k, v in object_at(event.raw, "usage").items() if v is not None})
        # Other fields of the message (`context_management` …) are next to `delta`.
        message.update({k: v for k, v in event.raw.items() if k not in _FOLDED and k != "delta" and v is not None})

    @property
    def _so_far(self) -> dict[str, Any]:
        assert self._raw is not None  # noqa: S101 - every other event is allowed, or repaired, only after message_start
        return self._raw

    def _leave_block(self) -> None:
        """Another event ends the open block, if there is one, without a `content_block_stop`."""
        if self._open is not None:
            self._changed = self._blocks[self._positions[self._open]]
            self._changed.close_if_whole()
            self._open = None

    def _block_of(self, event: ContentBlockDelta | ContentBlockStop) -> BlockBuilder | None:
        index: int = event.raw["index"]
        if index != self._open and self._open is not None:
            known = index in self._positions
            repair = f"it was applied to {'the block that it names' if known else 'the open block'}"
            self._deviate(f"{event.raw['type']} names block {index}, but block {self._open} is open", repair)
            index = index if known else self._open
        position = self._positions.get(index)
        return None if position is None else self._blocks[position]


class EventWatcher(MessageBuilder):
    """Checks the order of the events of one stream, and knows how far the answer is; it keeps no content."""

    def _append(self, event: ContentBlockDelta) -> bool:
        return True

    def _count(self, event: StreamEvent) -> None:
        """Nothing is kept."""

    def _fold(self, event: StreamEvent) -> None:
        """Nothing is kept."""


_FOLDED = ("type", "content", "usage")
"""Fields of the message that `message_delta` does not replace."""


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _change(block: BlockBuilder, event: ContentBlockDelta) -> bool:
    """Apply a delta, with a fragment or a whole value; False if it does not fit the block. Unknown deltas fit every block."""
    raw, delta = block.raw, event.raw["delta"]
    field, name = _GROWS.get(str(delta.get("type")), (None, ""))
    if field is not None and field == block.field:
        text = _required(delta, name, str, "a string")
        block.grow(text)
        if block.grown is not text:
            event.delta = type(event.delta)({**delta, name: block.grown})
        return True
    match delta.get("type"), raw.get("type"):
        case "citations_delta", "text":
            citation = _required(delta, "citation", dict, "an object")
            if raw.get("citations") is None:
                raw["citations"] = []
            _required(raw, "citations", list, "a list").append(citation)
        case "signature_delta", "thinking":
            raw["signature"] = _required(delta, "signature", str, "a string")
        case "compaction_delta", "compaction":
            raw.update({name: delta[name] for name in ("content", "encrypted_content") if name in delta})
        case _:
            return str(delta.get("type")) not in KNOWN_DELTA_TYPES
    return True


def _own(block: dict[str, Any]) -> dict[str, Any]:
    """A copy of everything that the fold changes: the event stays as received."""
    raw = dict(block)
    if isinstance(raw.get("citations"), list):
        raw["citations"] = list(raw["citations"])
    return raw


def _required(raw: dict[str, Any], name: str, kind: type[Value], words: str) -> Value:
    """The field of a delta or a block."""
    value = raw.get(name)
    if not isinstance(value, kind):
        raise EventDataError(f"a {raw.get('type')} has no {name!r} that is {words}")
    return value
