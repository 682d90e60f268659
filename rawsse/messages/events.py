"""Reads one server-sent event as one typed event of the Messages API
(https://docs.anthropic.com/en/docs/build-with-claude/streaming). The order of events is checked in `message.py`.

    event = read_event(sse_event)                 # one parse and one thin object
    match event:
        case ContentBlockDelta(delta=TextDelta(text=text)): print(text, end="")
        case Ping(): ...

`event.raw` is the JSON as received and `event.sse` the server-sent event that contained it. Events and deltas of unknown
types are `UnknownEvent` and `UnknownDelta`: the API may add new ones at any time. Type checkers narrow on `event.type ==
"ping"` as they do on `case Ping()`.

The second half defines the derived events, such as `TextEvent`, which carry a snapshot of the message so far.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from rawsse.errors import EventDataError, as_error, is_error, quote
from rawsse.messages.content import Block, BlockBuilder, Citation, Message, MessageDeltaFields, Usage, look_at_block
from rawsse.messages.lens import Lens, OpenLens, by_type, read_json
from rawsse.messages.partial_json import read_partial
from rawsse.sse import Event

# --- Deltas --------------------------------------------------------------------------------------------------------


class TextDelta(Lens):
    """More text of a `text` block."""

    text: str
    type: Literal["text_delta"]


class CitationsDelta(Lens):
    """One more citation of a `text` block."""

    citation: Citation
    type: Literal["citations_delta"]


class InputJSONDelta(Lens):
    """More of the JSON text of a tool's input: a fragment, which cannot be parsed without the others."""

    partial_json: str
    type: Literal["input_json_delta"]


class ThinkingDelta(Lens):
    """More of a `thinking` block."""

    thinking: str
    type: Literal["thinking_delta"]
    estimated_tokens: int | None


class SignatureDelta(Lens):
    """The signature of a `thinking` block: the whole value, in one event."""

    signature: str
    type: Literal["signature_delta"]


class CompactionDelta(Lens):
    """The content of a `compaction` block: the whole value, in one event."""

    content: str | None
    encrypted_content: str | None
    type: Literal["compaction_delta"]


class UnknownDelta(OpenLens):
    """A delta of an unknown type."""

    type: Literal[""]  # for a type checker: none of those above


_ValueDelta: TypeAlias = CitationsDelta | SignatureDelta | CompactionDelta | UnknownDelta
Delta: TypeAlias = TextDelta | InputJSONDelta | ThinkingDelta | _ValueDelta
"""A change to one content block."""

_DELTAS: Mapping[str, type[Delta]] = by_type(Delta)
KNOWN_DELTA_TYPES = frozenset(_DELTAS)


def _look_at_delta(raw: dict[str, Any]) -> Delta:
    return _DELTAS.get(str(raw.get("type")), UnknownDelta)(raw)


# --- Events --------------------------------------------------------------------------------------------------------


_NO_EVENT = Event()


class BaseEvent(Lens):
    """The base of events on the wire. `sse` is the server-sent event that contained it."""

    __slots__ = ("sse",)

    def __init__(self, raw: dict[str, Any], sse: Event = _NO_EVENT) -> None:
        self.raw = raw
        self.sse = sse


class MessageStart(BaseEvent):
    """The first event: the message with its id, model and first usage, and (normally) no content."""

    message: Message
    type: Literal["message_start"]


# A surrogate pair may be split between two events. The fold then sets `content_block` or `delta`, so that the second event has
# the whole character and the first none of it. `raw` has both as received.


class ContentBlockStart(BaseEvent):
    """A block begins. The results of tools arrive complete in this event and get no deltas."""

    content_block: Block
    index: int
    type: Literal["content_block_start"]
    FIELDS: ClassVar[Mapping[str, Any]] = {"content_block": look_at_block}


class ContentBlockDelta(BaseEvent):
    """A change to an open block."""

    __slots__ = ("delta",)  # the most frequent object: without a `__dict__`
    delta: Delta
    index: int
    type: Literal["content_block_delta"]
    FIELDS: ClassVar[Mapping[str, Any]] = {"delta": _look_at_delta}


class ContentBlockStop(BaseEvent):
    """A block ends. `content_block` is the whole block if the event comes from a `MessageStream`, else None."""

    index: int
    type: Literal["content_block_stop"]
    content_block: Block = None  # type: ignore[assignment]  # only outside of a `MessageStream`, where the SDK has no such field


class MessageDelta(BaseEvent):
    """The stop reason and the usage so far. There may be more than one."""

    delta: MessageDeltaFields
    type: Literal["message_delta"]
    usage: Usage
    context_management: Any
    input_transformations: Any


class MessageStop(BaseEvent):
    """The answer is complete. `message` is the message if the event comes from a `MessageStream`, else None."""

    type: Literal["message_stop"]
    message: Message = None  # type: ignore[assignment]  # likewise


class Ping(BaseEvent):
    """A sign of life while there is no content to send."""

    type: Literal["ping"]


class ErrorEvent(BaseEvent):
    """An error of the API after the status 200. It is the last event."""

    error: Any
    type: Literal["error"]
    request_id: str | None


class UnknownEvent(BaseEvent, OpenLens):
    """An event of an unknown type."""

    type: Literal[""]  # for a type checker: none of those above


_BlockEvent: TypeAlias = ContentBlockStart | ContentBlockDelta | ContentBlockStop
StreamEvent: TypeAlias = MessageStart | _BlockEvent | MessageDelta | MessageStop | Ping | ErrorEvent | UnknownEvent
"""An event of the stream."""

_EVENTS: Mapping[str, type[StreamEvent]] = by_type(StreamEvent)

# Required fields: (name, type, the type in an error message).
_REQUIRED: Mapping[str, tuple[tuple[str, type, str], ...]] = {
    "message_start": (("message", dict, "an object"),),
    "content_block_start": (("index", int, "a number"), ("content_block", dict, "an object")),
    "content_block_delta": (("index", int, "a number"), ("delta", dict, "an object")),
    "content_block_stop": (("index", int, "a number"),),
}

_ERROR_NAMES = ("error", "exception")  # in any case; the second is used by some gateways

# No data, an empty JSON value, or a word: `data: : keep-alive`, `data: "ping"`.
_KEEP_ALIVE = r"""(?ix) [\s:.*-]* (?: \{\s*\} | \[\s*\] | "" | ["'\[<(]?
    (?: ping | pong | keep[\s_-]?alive | heart[\s_-]?beat | alive | ok | no-?op | null | none | undefined | false | 0)
    ["'\])>.!]* [\s\d:.+TZ-]* )?"""  # with the time, as sse-starlette writes it

DONE = "[DONE]"
"""The end mark of other vendors' streams, which some gateways add to the Messages API's. It has no content."""


def read_event(sse: Event) -> StreamEvent | None:
    """The typed event in `sse`; None for the end mark `[DONE]` and for a keep-alive: an event without a name whose data are
    empty or a word like "ping".

    Its class depends on the `type` in the JSON or, if that is missing, on the event's name: some gateways omit the `event:`
    line, others the `type`. An error may have any form. Raises `EventDataError` if the data are not a JSON object or lack a
    required field.
    """
    try:
        raw = read_json(sse.data)
    except (ValueError, RecursionError) as exc:
        return _without_object(sse, f"are not JSON ({exc})")
    if type(raw) is not dict:
        return _without_object(sse, "are not a JSON object")
    kind = raw.get("type")
    # The most frequent event, checked as below but without a loop: 0.4 us less.
    if kind == "content_block_delta" and type(raw.get("index")) is int and type(raw.get("delta")) is dict:
        return ContentBlockDelta(raw, sse)
    if not raw and sse.event == "message":
        return None
    if _is_error(raw, sse.event):
        return ErrorEvent(as_error(raw), sse)
    kind = kind or sse.event
    if not isinstance(kind, str) or not kind.isprintable():
        raise EventDataError(f"the type of event {quote(sse.event)} is not a name: {quote(repr(kind))}")
    for name, wanted, words in _REQUIRED.get(kind, ()):
        if type(raw.get(name)) is not wanted:
            raise EventDataError(f"event {kind} has no {name!r} that is {words}: {quote(sse.data)}")
    if not raw.get("type"):
        raw["type"] = kind
    return _EVENTS.get(kind, UnknownEvent)(raw, sse)


def brings_content(event: StreamEvent) -> bool:
    """Whether the event has content of the answer: text, thinking, a tool's input or its result. A block begins empty, except
    the results of server tools, and text from some gateways."""
    if not isinstance(event, ContentBlockDelta | ContentBlockStart):
        return False
    part = event.raw["delta" if type(event) is ContentBlockDelta else "content_block"]
    return any(part.get(name) for name in ("text", "thinking", "partial_json", "input", "content"))


def _is_error(raw: dict[str, Any], name: str) -> bool:
    """By its type; if that is unknown, by its name; without both, by its fields: some gateways send only a message."""
    kind = raw.get("type")
    if name == "message":
        return is_error(raw)
    return kind == "error" or (name.lower() in _ERROR_NAMES and str(kind) not in _EVENTS)


def _without_object(sse: Event, problem: str) -> StreamEvent | None:
    """The event whose data are not a JSON object; None for the end mark and a keep-alive. A ping needs no data, and an
    unknown event may have any."""
    if sse.data.strip() == DONE or (sse.event == "message" and re.fullmatch(_KEEP_ALIVE, sse.data)):
        return None
    if sse.event == "ping":
        return Ping({"type": "ping"}, sse)
    if sse.event.lower() in _ERROR_NAMES:  # plain text from a gateway: still reported as an error
        return ErrorEvent(as_error({"error": {"message": sse.data}}), sse)
    if sse.event not in _EVENTS and sse.event != "message" and sse.event.isprintable():
        return UnknownEvent({"type": sse.event}, sse)
    raise EventDataError(f"the data of event {quote(sse.event)} {problem}: {quote(sse.data)}")


def whole_events(message: dict[str, Any]) -> list[Event]:
    """The events of a stream that would fold to `message`; none if it is another JSON object."""
    blocks = message.get("content")
    if message.get("type") != "message" or not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
        return []
    end = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    raws: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}]
    for index, block in enumerate(blocks):
        raws.append({"type": "content_block_start", "index": index, "content_block": block})
        if block.get("type") == "text" and block.get("text"):  # readers expect the text in deltas
            raws[-1]["content_block"] = {**block, "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
            raws.append({"type": "content_block_delta", "index": index, "delta": delta})
        raws.append({"type": "content_block_stop", "index": index})
    raws += [{"type": "message_delta", "delta": end, "usage": message.get("usage")}, {"type": "message_stop"}]
    return [Event(raw["type"], json.dumps(raw)) for raw in raws]


# --- Derived events ------------------------------------------------------------------------------------------------


Snapshot = TypeVar("Snapshot")


def _read_only(slot: str, doc: str) -> Any:
    return property(attrgetter(slot), doc=doc)


class _Derived(Generic[Snapshot]):
    """An addition to a block: an immutable value, compared and hashed by its fields.

    The snapshot is not one of them.
    """

    # Not a frozen dataclass, which sets each field by `object.__setattr__` and takes four times as long.
    __slots__ = ("_added", "_index", "_parsed", "_snapshot")
    __match_args__: ClassVar[tuple[str, ...]]
    index: int = _read_only("_index", "The index of the content block.")

    def __init__(
        self, index: int, added: Any, _snapshot: Callable[[], Snapshot], _parsed: Callable[[], Any] | None = None
    ) -> None:
        self._index = index
        self._added = added
        self._snapshot = _snapshot
        self._parsed = _parsed  # for text: parses it as JSON

    @property
    def snapshot(self) -> Snapshot:
        """The block's field up to and including this event; built on access."""
        return self._snapshot()

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Derived) and self._fields() == other._fields()  # the type is one of them

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        shown = zip(self.__match_args__, self._fields(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown)})"


class TextEvent(_Derived[str]):
    """More text. `snapshot` is the block's text so far."""

    __slots__ = ()
    __match_args__ = ("index", "text", "type")
    type: Literal["text"] = "text"
    text: str = _read_only("_added", "The text that this event adds.")

    def parsed_snapshot(self) -> Any:
        """The text so far parsed as incomplete JSON; strings are included before they are complete.

        A stream with an `output_format` continues from the previous event; otherwise each call parses the whole
        snapshot. Raises `PartialJSONError` if the text is not a prefix of a JSON text.
        """
        return self._parsed() if self._parsed else read_partial(self.snapshot, keep_strings=True)


class ThinkingEvent(_Derived[str]):
    """More thinking. `snapshot` is the block's thinking so far."""

    __slots__ = ()
    __match_args__ = ("index", "thinking", "type")
    type: Literal["thinking"] = "thinking"
    thinking: str = _read_only("_added", "The thinking that this event adds.")


class InputJSONEvent(_Derived[Any]):
    """More of a tool's input. `snapshot` is the input so far, parsed as incomplete JSON at the time of access. It must not be
    changed, and the tool must not be run with it."""

    __slots__ = ()
    __match_args__ = ("index", "partial_json", "type")
    type: Literal["input_json"] = "input_json"
    partial_json: str = _read_only("_added", "The JSON text that this event adds: a fragment.")


class CitationEvent(_Derived[list[Citation]]):
    """One more citation. `snapshot` has the block's citations so far."""

    __slots__ = ()
    __match_args__ = ("index", "citation", "type")
    type: Literal["citation"] = "citation"
    citation: Citation = _read_only("_added", "The citation that this event adds.")


class SignatureEvent(_Derived[str]):
    """The signature of the thinking block."""

    __slots__ = ()
    __match_args__ = ("index", "signature", "type")
    type: Literal["signature"] = "signature"
    signature: str = _read_only("_added", "The whole signature.")


class CompactionEvent(_Derived[CompactionDelta]):
    """The content of the compaction block."""

    __slots__ = ()
    __match_args__ = ("index", "content", "encrypted_content", "type")
    type: Literal["compaction"] = "compaction"
    content: str | None = _read_only("_added.content", "The summary.")
    encrypted_content: str | None = _read_only("_added.encrypted_content", "The summary as only the API can read it.")


DerivedEvent: TypeAlias = TextEvent | ThinkingEvent | InputJSONEvent | CitationEvent | SignatureEvent | CompactionEvent

MessageStreamEvent: TypeAlias = StreamEvent | DerivedEvent
"""An event of a `MessageStream`: as received, or the derived event that follows it."""


def derive(block: BlockBuilder, delta: dict[str, Any], added: str | None) -> DerivedEvent | None:
    """The derived event for an addition to the block (`added`), or for another delta that was applied to it."""
    index, length, kind = block.index, block.length, block.get("type")
    if added is not None:
        if kind == "text":
            return TextEvent(index, added, lambda: block.settle()["text"][:length])
        if kind == "thinking":
            return ThinkingEvent(index, added, lambda: block.settle()["thinking"][:length])
        return InputJSONEvent(index, added, lambda: block.settle()["input"]) if block.field == "input" else None
    match delta.get("type"):
        case "citations_delta":
            citations: list[dict[str, Any]] = block["citations"]
            count = len(citations)
            return CitationEvent(index, Citation(delta["citation"]), lambda: [Citation(c) for c in citations[:count]])
        case "signature_delta":
            return SignatureEvent(index, delta["signature"], lambda: delta["signature"])
        case "compaction_delta":
            return CompactionEvent(index, CompactionDelta(delta), lambda: CompactionDelta(delta))
    return None
