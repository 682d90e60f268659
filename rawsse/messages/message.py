"""Events -> the message so far; whether the stream has ended, and how.

This file knows the order in which events may come (`TRANSITIONS`), what each does to the message, and when an answer is
whole. It refuses to know where events come from, time, and what to do about a failure.

    builder = MessageBuilder()
    for sse_event in decoder.feed(chunk):
        event = builder.feed(sse_event)
    builder.message                    # a Message: whole, or as far as it came
    builder.is_complete                # message_stop has come, or only it is missing

The message is kept as plain JSON: what the API would have returned without `stream`. Text, thinking and tool input are kept
as lists of fragments and joined when somebody looks, so that an answer of n deltas costs linear time; a tool's input is
parsed once, when its block ends. An order that the table does not allow raises `EventOrderError` (strict), or is repaired
and noted in `deviations` (lenient).
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rawsse.errors import EventDataError, EventOrderError, MessageTooLargeError, Phase
from rawsse.messages.block import BlockBuilder
from rawsse.messages.content import Block, Citation, Message, look_at_block
from rawsse.messages.events import (
    CitationEvent,
    CompactionEvent,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    DerivedEvent,
    ErrorEvent,
    InputJSONEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageStreamEvent,
    Ping,
    SignatureEvent,
    StreamEvent,
    TextEvent,
    ThinkingEvent,
    UnknownEvent,
    read_event,
)
from rawsse.sse import Event

__all__ = ["MAX_MESSAGE_BYTES", "TRANSITIONS", "Deviation", "MessageBuilder", "State"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""How much JSON a `MessageBuilder` gathers by default. The longest answers of today (hundreds of thousands of tokens) are a
few MB; a peer that sends deltas for ever must not fill the memory."""


# --- The order of events -------------------------------------------------------------------------------------------


class State(enum.Enum):
    """Where a stream is. The value is what an error message calls it."""

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
        "message_delta": State.ENDING,  # seen where `max_tokens` cuts a tool's input: its block is never closed
        "error": State.FAILED,
    },
    State.ENDING: {"message_delta": State.ENDING, "message_stop": State.DONE, "error": State.FAILED},
    State.DONE: {},
    State.FAILED: {},
}
"""Which event may come when, and where it leads. `ping` and events of unknown type may come at any time and lead nowhere."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A rule that the stream broke, and what lenient reading made of it. `event_number` counts from 1."""

    rule: str
    text: str
    event_number: int


# --- The fold ---------------------------------------------------------------------------------------------------------


# Which field of a block grows, and by which field of which delta.
_GROWS: Mapping[str, tuple[str, str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("input", "partial_json"),
}


class MessageBuilder:
    """Folds the events of one stream into its message.

    `strict`: an event that the order does not allow raises `EventOrderError`; else it is repaired and noted. After an
    error the builder keeps what it had: `message` is always readable.
    """

    def __init__(self, *, strict: bool = True, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.strict = strict
        self.state = State.START
        self.deviations: list[Deviation] = []
        self.has_content = False
        self.error: ErrorEvent | None = None
        self._max_message_bytes = max_message_bytes
        self._message_bytes = 0
        self._event_number = 0
        self._raw: dict[str, Any] | None = None
        self._blocks: list[BlockBuilder] = []
        self._current = -1  # index of the open block

    # What is known so far ------------------------------------------------------------------------------------------

    @property
    def message(self) -> Message | None:
        """The message so far; None before `message_start`. It is live: later events change its JSON."""
        if self._raw is None:
            return None
        for block in self._blocks:
            block.settle()
        facts = {index: (block.complete, block.input_text) for index, block in enumerate(self._blocks)}
        return Message(self._raw, facts=facts)

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped; None while it has not."""
        return self._raw.get("stop_reason") if self._raw else None

    @property
    def is_done(self) -> bool:
        """`message_stop` has come."""
        return self.state is State.DONE

    @property
    def is_complete(self) -> bool:
        """`message_stop` has come, or the stop reason has, and only the tail after it is missing."""
        return self.is_done or (self.state is State.ENDING and self.stop_reason is not None)

    @property
    def phase(self) -> Phase:
        """How far the stream has come, as errors and endings call it."""
        if self.is_done:
            return "done"
        if self.is_complete:
            return "tail"
        return "content" if self.has_content else "open"

    # Events in -----------------------------------------------------------------------------------------------------

    def feed(self, sse: Event) -> StreamEvent | None:
        """Read one server-sent event and apply it. None for the end mark `[DONE]`, which carries nothing.

        Raises `EventDataError`, `EventOrderError` (strict) or `MessageTooLargeError`; the event has then not been applied.
        """
        event = read_event(sse)
        if event is not None:
            self.apply(event)
        return event

    def apply(self, event: StreamEvent) -> None:
        """Apply one typed event. Raises as `feed`."""
        self._event_number += 1
        if isinstance(event, Ping | UnknownEvent):
            return
        kind = event.type
        following = TRANSITIONS[self.state].get(kind)
        if following is None:
            self._deviate(f"{kind} may not come {self.state.value}", "it was applied as far as it makes sense")
            following = self._repaired_state(kind)
        self._message_bytes += len(event.sse.data)
        if self._message_bytes > self._max_message_bytes:
            limit = self._max_message_bytes
            raise MessageTooLargeError(f"the message is larger than max_message_bytes ({limit})", limit=limit)
        self._apply(event)
        self.state = following

    def expand(self, event: StreamEvent) -> list[MessageStreamEvent]:
        """The event, just applied, as a `MessageStream` hands it on: itself, and the derived event, if there is one.

        The order is that of the official SDK's helper. `content_block_stop` and `message_stop` carry what is finished.
        """
        match event:
            case ContentBlockDelta():
                derived = self._derive(event)
                return [event] if derived is None else [event, derived]
            case ContentBlockStop() if event.index < len(self._blocks):
                return [ContentBlockStop(event.raw, event.sse, self._look_at(event.index))]
            case MessageStop():
                return [MessageStop(event.raw, event.sse, self.message)]
        return [event]

    # The order -----------------------------------------------------------------------------------------------------

    def _deviate(self, rule: str, repair: str) -> None:
        if self.strict:
            allowed = ", ".join(TRANSITIONS[self.state]) or "nothing"
            raise EventOrderError(f"{rule} (allowed {self.state.value}: {allowed}, ping)", rule=rule)
        self.deviations.append(Deviation(rule, repair, self._event_number))

    def _repaired_state(self, kind: str) -> State:
        if self.state in (State.DONE, State.FAILED) or (self.state is State.START and kind != "message_start"):
            return self.state
        return {
            "content_block_start": State.BLOCK,
            "message_delta": State.ENDING,
            "message_stop": State.DONE,
            "error": State.FAILED,
        }.get(kind, self.state)

    # One method per event ------------------------------------------------------------------------------------------

    def _apply(self, event: StreamEvent) -> None:
        if isinstance(event, ContentBlockDelta):
            self._apply_delta(event)
        elif isinstance(event, ErrorEvent):
            self.error = event
        elif isinstance(event, MessageStart):
            if self._raw is None:
                self._apply_start(event)
        elif self._raw is None or self.is_done:
            return  # lenient: there is no message to apply it to, or it is closed
        elif isinstance(event, ContentBlockStart):
            self._apply_block_start(event)
        elif isinstance(event, ContentBlockStop):
            self._apply_block_stop(event)
        elif isinstance(event, MessageDelta):
            self._apply_message_delta(event, self._raw)

    def _apply_start(self, event: MessageStart) -> None:
        raw = copy.deepcopy(event.raw["message"])  # the event stays as it came
        content = raw.setdefault("content", [])
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise EventDataError("message_start has a message whose content is no list of objects")
        if not isinstance(raw.setdefault("usage", {}), dict):
            raw["usage"] = {}
        raw.setdefault("stop_reason", None)
        raw.setdefault("stop_sequence", None)
        self._raw = raw
        for block in content:  # normally none; programmatic tool calls begin with some
            self._blocks.append(BlockBuilder(block))
            self._blocks[-1].complete = True

    def _apply_block_start(self, event: ContentBlockStart) -> None:
        assert self._raw is not None  # noqa: S101 - the caller looked
        if event.raw["index"] != len(self._blocks):
            rule = f"block indices count from 0 without gaps: {event.raw['index']} came for {len(self._blocks)}"
            self._deviate(rule, "the block was put last")
        raw = dict(event.raw["content_block"])  # the event stays as it came
        if isinstance(raw.get("citations"), list):
            raw["citations"] = list(raw["citations"])
        self._current = len(self._blocks)
        self._blocks.append(BlockBuilder(raw))
        self._raw["content"].append(raw)
        self.has_content = True
        if raw.get("type") == "fallback" and isinstance(raw.get("to"), dict) and raw["to"].get("model"):
            self._raw["model"] = raw["to"]["model"]

    def _apply_delta(self, event: ContentBlockDelta) -> None:
        block = self._block_of(event)
        if block is None:
            return
        self.has_content = True
        delta: dict[str, Any] = event.raw["delta"]
        kind = str(delta.get("type"))
        if kind in _GROWS:
            ours, theirs = _GROWS[kind]
            fits = ours in block.raw
            if fits:
                block.grow(_string(delta, theirs))
        else:
            fits = _apply_whole(block, delta)
        if not fits:
            self._deviate(f"{kind} does not fit a block of type {block.raw.get('type')}", "the delta was ignored")

    def _apply_block_stop(self, event: ContentBlockStop) -> None:
        block = self._block_of(event)
        if block is not None:
            block.close()
            self._current = -1

    def _apply_message_delta(self, event: MessageDelta, raw: dict[str, Any]) -> None:
        delta = _object(event.raw, "delta")
        raw.update({k: v for k, v in delta.items() if v is not None or k.startswith("stop_")})
        # "The token counts shown in the usage field of the message_delta event are cumulative": replaced, never added.
        raw["usage"].update({k: v for k, v in _object(event.raw, "usage").items() if v is not None})
        others = {k: v for k, v in event.raw.items() if k not in ("type", "delta", "usage") and v is not None}
        raw.update(others)

    def _block_of(self, event: ContentBlockDelta | ContentBlockStop) -> BlockBuilder | None:
        index: int = event.raw["index"]
        if index != self._current and self.state not in (State.DONE, State.START):
            what = f"block {self._current} is open" if self._current >= 0 else "no block is open"
            self._deviate(f"{event.type} names block {index}, but {what}", "it was applied to the block that it names")
        if self.is_done or not 0 <= index < len(self._blocks):
            return None
        return self._blocks[index]

    # Derived events ------------------------------------------------------------------------------------------------

    def _look_at(self, index: int) -> Block:
        block = self._blocks[index]
        block.settle()
        return look_at_block(block.raw, complete=block.complete, input_text=block.input_text)

    def _derive(self, event: ContentBlockDelta) -> DerivedEvent | None:
        index: int = event.raw["index"]
        delta: dict[str, Any] = event.raw["delta"]
        if not 0 <= index < len(self._blocks):
            return None
        block = self._blocks[index]
        length = block.length
        match delta.get("type"), block.raw.get("type"):
            case "text_delta", "text":
                return TextEvent(index, delta["text"], lambda: block.text_up_to(length))
            case "thinking_delta", "thinking":
                return ThinkingEvent(index, delta["thinking"], lambda: block.text_up_to(length))
            case "input_json_delta", _ if block.takes_input:
                return InputJSONEvent(index, delta["partial_json"], block.best_input)
            case "citations_delta", "text":
                return CitationEvent(index, Citation(delta["citation"]), [Citation(c) for c in block.raw["citations"]])
            case "signature_delta", "thinking":
                return SignatureEvent(index, delta["signature"])
            case "compaction_delta", "compaction":
                return CompactionEvent(index, delta.get("content"), delta.get("encrypted_content"))
        return None


def _apply_whole(block: BlockBuilder, delta: dict[str, Any]) -> bool:
    """Apply a delta that brings a whole value; False if it does not fit the block. Unknown deltas fit anything."""
    raw = block.raw
    match delta.get("type"), raw.get("type"):
        case "citations_delta", "text":
            raw.setdefault("citations", [])
            raw["citations"] = raw["citations"] or []
            raw["citations"].append(_citation(delta))
        case "signature_delta", "thinking":
            raw["signature"] = _string(delta, "signature")
        case "compaction_delta", "compaction":
            raw.update({name: delta[name] for name in ("content", "encrypted_content") if name in delta})
        case (("citations_delta" | "signature_delta" | "compaction_delta"), _):
            return False
    return True


def _string(delta: dict[str, Any], name: str) -> str:
    value = delta.get(name)
    if not isinstance(value, str):
        raise EventDataError(f"a {delta.get('type')} has no {name!r} that is a string")
    return value


def _citation(delta: dict[str, Any]) -> dict[str, Any]:
    value = delta.get("citation")
    if not isinstance(value, dict):
        raise EventDataError("a citations_delta has no 'citation' that is an object")
    return value


def _object(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}
