"""Folds typed events into the message so far, checks their order (`TRANSITIONS`), and tracks whether the answer is complete.

    builder = MessageBuilder()
    for sse_event in decoder.feed(chunk):
        event = builder.feed(sse_event)
    builder.message                    # a Message: the answer so far
    builder.is_complete                # message_stop has arrived, or only message_stop is missing

The message is plain JSON, as the API would have returned it without `stream`. Text, thinking and tool input are lists
of fragments, which are joined on access, so that an answer of n deltas takes linear time; a tool's input is parsed
once, when its block ends. If a surrogate pair is split between two fragments, the second one gets the character; an
unpaired surrogate becomes U+FFFD. An event that the table does not allow raises `EventOrderError` (strict), or is
handled by `REPAIRS` and recorded in `deviations` (lenient).
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from rawsse.errors import EventDataError, EventOrderError, MessageTooLargeError, Phase
from rawsse.messages.content import KNOWN_BLOCK_TYPES, BlockBuilder, Message, look_at_block, required
from rawsse.messages.events import (
    KNOWN_DELTA_TYPES,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageStreamEvent,
    StreamEvent,
    derive,
    read_event,
)
from rawsse.messages.lens import object_at
from rawsse.sse import Event

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The largest message of a `MessageBuilder` by default. The longest answers today (hundreds of thousands of tokens) are a few
MB; a peer that never stops sending deltas must not exhaust memory."""

FRAGMENT_BYTES = 8
"""The memory overhead of a fragment: its entry in a list."""


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
        "message_delta": State.ENDING,  # observed when `max_tokens` truncates a tool's input: the block is never closed
        "error": State.FAILED,
    },
    State.ENDING: {"message_delta": State.ENDING, "message_stop": State.DONE, "error": State.FAILED},
    State.DONE: {},
    State.FAILED: {},
}
"""The events that each state allows, and the next state; `MessageBuilder` has a method for each of them. Events that no state
names, such as `ping` and those of unknown type, are allowed in every state, and change nothing."""

_ORDERED = frozenset(kind for allowed in TRANSITIONS.values() for kind in allowed)

REPAIRS: Mapping[str, State | None] = {
    "content_block_start": State.BLOCK,
    "content_block_delta": None,
    "content_block_stop": None,
    "message_stop": State.DONE,
}
"""The events that a lenient builder applies in every state between `message_start` and the end, and the next state (None: the
same). It ignores the rest."""


class Deviation(NamedTuple):
    """A rule that the stream violated, and how a lenient builder handled it. `event_number` counts from 1."""

    rule: str
    text: str
    event_number: int


# --- The fold ---------------------------------------------------------------------------------------------------------


class MessageBuilder:
    """Folds the events of one stream into its message, checks their order, and tracks the progress of the answer.

    `strict`: an event that is not allowed raises `EventOrderError`; otherwise it is repaired and recorded. After an error the
    builder keeps its state: `message` can always be read.
    """

    def __init__(self, *, strict: bool = True, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.strict = strict
        self.state = State.START
        self.deviations: list[Deviation] = []
        self.has_content = False
        self.error: ErrorEvent | None = None
        self.model: object = None
        """The model named by `message_start`."""
        self.request_id: str | None = None
        """The `request-id` of the response, if the caller sets it; it is passed to the message."""
        self.added: str | None = None
        """The text, thinking or JSON text that the last event added to its block; None if it added none."""
        self.content_bytes = 0
        """How many bytes of text, thinking and JSON text have arrived, in UTF-8. Only an `EventWatcher` counts them."""
        self._changed: BlockBuilder | None = None  # by the last event
        self._max_message_bytes = max_message_bytes
        self._message_bytes = 0
        self._event_number = 0
        self._raw: dict[str, Any] = {}
        self._blocks: list[BlockBuilder] = []
        self._named: dict[int, BlockBuilder] = {}  # by the index in their events
        self._open: BlockBuilder | None = None

    @property
    def message(self) -> Message | None:
        """The message so far; None before `message_start`. It is live: later events change its JSON."""
        if not self._raw:
            return None
        for block in self._blocks:
            block.settle()
        return Message(self._raw, request_id=self.request_id)

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped; None until it has. A value that is not a string is ignored."""
        reason = self._raw.get("stop_reason")
        return reason if isinstance(reason, str) else None

    @property
    def usage(self) -> dict[str, Any]:
        """The usage so far."""
        return {name: value for name, value in object_at(self._raw, "usage").items() if value is not None}

    @property
    def is_done(self) -> bool:
        """Whether `message_stop` has arrived."""
        return self.state is State.DONE

    @property
    def is_complete(self) -> bool:
        """Whether `message_stop` has arrived, or the stop reason has and only the rest of the stream is missing."""
        return self.is_done or (self.state is State.ENDING and self.stop_reason is not None)

    @property
    def phase(self) -> Phase:
        """The progress of the stream, in the terms of errors and endings."""
        if self.is_complete:
            return "done" if self.is_done else "tail"
        return "content" if self.has_content else "open"

    @property
    def added_text(self) -> str | None:
        """The text that the last event added to a text block; None if it added none."""
        return self.added if self._changed is not None and self._changed.field == "text" else None

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
        self._changed = self.added = None
        if type(event) is ContentBlockDelta and self.state is State.BLOCK:
            self._on_content_block_delta(event)  # nearly all events: no table lookup
            return
        kind: str = event.raw["type"]
        if kind not in _ORDERED:
            return
        following = TRANSITIONS[self.state].get(kind)
        if following is None:
            is_applied = kind in REPAIRS and self.state in (State.BETWEEN, State.BLOCK, State.ENDING)
            repair = "it was applied all the same" if is_applied else "it was ignored"
            self._deviate(f"{kind} may not come {self.state.value}", repair)
            if not is_applied:
                return
            following = REPAIRS[kind] or self.state
        if not isinstance(event, ContentBlockDelta):
            self._count(event.sse.data)
        getattr(self, sys.intern(f"_on_{kind}"))(event)  # Python's cache of methods keeps a new string
        self.state = following

    def expand(self, event: StreamEvent) -> list[MessageStreamEvent]:
        """The events that a `MessageStream` yields for the event that was just applied: itself and its derived event, if any.

        The order is that of the official SDK. `content_block_stop` and `message_stop` get the finished block or message.
        """
        block, derived = self._changed, None
        is_delta = isinstance(event, ContentBlockDelta)
        if block is not None:
            derived = derive(block, event.raw["delta"] if is_delta else {}, self.added)
        if is_delta:
            return [event] if derived is None else [event, derived]
        if isinstance(event, ContentBlockStop) and block is not None:
            event.content_block = look_at_block(block)
        elif isinstance(event, MessageStop) and self.message is not None:
            event.message = self.message
        # An event that ends a block may add to it: U+FFFD for an unpaired surrogate.
        return [event] if derived is None else [derived, event]

    def _deviate(self, rule: str, repair: str) -> None:
        if self.strict:
            allowed = ", ".join(TRANSITIONS[self.state]) or "nothing"
            raise EventOrderError(f"{rule} (allowed {self.state.value}: {allowed}, ping)", rule=rule)
        self.deviations.append(Deviation(rule, repair, self._event_number))

    def _count(self, text: str, more: int = 0) -> None:
        """Count the memory that an event adds to the message: the size of the fragment, or of the event's JSON."""
        self._message_bytes += more + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))
        if self._message_bytes > self._max_message_bytes:
            limit = self._max_message_bytes
            raise MessageTooLargeError(f"the message is larger than max_message_bytes ({limit})", limit=limit)

    # One method per event ------------------------------------------------------------------------------------------

    def _on_message_start(self, event: MessageStart) -> None:
        given = event.raw["message"]
        content = [] if given.get("content") is None else given["content"]
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise EventDataError("message_start has a message whose content is not a list of objects")
        # Normally empty; an answer that continues after a programmatic tool call begins with some.
        self._blocks += [BlockBuilder(block, index, complete=True) for index, block in enumerate(content)]
        self._named = dict(enumerate(self._blocks))
        self.model = given.get("model")
        self._raw = {**given, "content": self._blocks, "usage": {**object_at(given, "usage")}}
        self._raw.setdefault("stop_reason", None)
        self._raw.setdefault("stop_sequence", None)

    def _on_content_block_start(self, event: ContentBlockStart) -> None:
        index: int = event.raw["index"]
        if index != len(self._blocks):
            rule = f"block indices count from 0 without gaps: {index} came for {len(self._blocks)}"
            self._deviate(rule, "the block was put last")
        block = BlockBuilder(event.raw["content_block"], index)
        if block.half:
            event.content_block = look_at_block({**block})
        self._end_block(self._open)
        self._open = self._named[index] = block
        self._blocks.append(block)
        self.has_content = True
        if block.get("type") == "fallback" and (model := object_at(block, "to").get("model")):
            self._raw["model"] = model

    def _on_content_block_delta(self, event: ContentBlockDelta) -> None:
        block = self._open
        if block is None or block.index != event.raw["index"]:
            block = self._block_of(event)
            if block is None:
                return
        delta: dict[str, Any] = event.raw["delta"]
        if block.field and delta.get("type") == block.delta_type:
            text = delta.get(block.delta_field)
            if not isinstance(text, str):
                text = required(delta, block.delta_field, str, "a string")  # raises
            self._count(text, FRAGMENT_BYTES)
            self.added = block.grow(text)
            if self.added is not text:
                event.delta = type(event.delta)({**delta, block.delta_field: self.added})
        else:
            self._count(event.sse.data)
            if not block.change(delta) and str(delta.get("type")) in KNOWN_DELTA_TYPES:
                if str(block.get("type")) in KNOWN_BLOCK_TYPES:  # an unknown type may accept any delta
                    rule = f"{delta.get('type')} does not fit a block of type {block.get('type')}"
                    self._deviate(rule, "the delta was ignored")
                return
        self._changed = block
        self.has_content = True

    def _on_content_block_stop(self, event: ContentBlockStop) -> None:
        self._end_block(self._block_of(event), is_stopped=True)

    def _on_message_delta(self, event: MessageDelta) -> None:
        self._end_block(self._open)
        delta = object_at(event.raw, "delta").items()
        self._raw.update({k: v for k, v in delta if k not in _FOLDED and (v is not None or k.startswith("stop_"))})
        # "The token counts shown in the usage field of the message_delta event are cumulative": replaced, never added.
        self._raw["usage"].update({k: v for k, v in object_at(event.raw, "usage").items() if v is not None})
        # Other fields of the message (`context_management` …) are next to `delta`.
        self._raw.update({k: v for k, v in event.raw.items() if k not in _FOLDED and k != "delta" and v is not None})

    def _on_message_stop(self, event: MessageStop) -> None:
        self._end_block(self._open)

    def _on_error(self, event: ErrorEvent) -> None:
        self.error = event

    def _end_block(self, block: BlockBuilder | None, *, is_stopped: bool = False) -> None:
        """End the block, if there is one, at a `content_block_stop` or because another event arrived."""
        if block is not None:
            self._changed, self._open, self.added = block, None, block.close(is_stopped=is_stopped)

    def _block_of(self, event: ContentBlockDelta | ContentBlockStop) -> BlockBuilder | None:
        index: int = event.raw["index"]
        named = self._named.get(index)
        if self._open is None or index == self._open.index:
            return named
        repair = f"it was applied to {'the open block' if named is None else 'the block that it names'}"
        self._deviate(f"{event.raw['type']} names block {index}, but block {self._open.index} is open", repair)
        return self._open if named is None else named


class EventWatcher(MessageBuilder):
    """Checks the order of the events of one stream, and tracks the progress of the answer, without keeping content."""

    message = None

    def _count(self, text: str, more: int = 0) -> None:
        """Nothing is kept."""

    def _on_content_block_start(self, event: ContentBlockStart) -> None:
        self.has_content = True
        self._weigh(event.raw["content_block"])

    def _on_content_block_delta(self, event: ContentBlockDelta) -> None:
        self._weigh(event.raw["delta"])

    def _weigh(self, part: dict[str, Any]) -> None:
        for name in ("text", "thinking", "partial_json", "content"):  # the last is that of a compaction
            if isinstance(content := part.get(name), str):
                self.content_bytes += len(content.encode("utf-8", "surrogatepass"))


_FOLDED = ("type", "content", "usage")
"""Fields of the message that `message_delta` does not replace."""
