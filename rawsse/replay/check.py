"""Is this a correct stream of the Messages API? Every rule that it breaks, by name and place.

This file knows what a stream must have so that every reader understands it: the rules of server-sent events, of the Messages
API, and what both official SDKs need. It refuses to know how to repair it.

    for finding in check(Recording.load("answer.sse.jsonl")):
        print(finding)          # error at byte 812, event 9: event-order: content_block_delta may not come after message_stop

An `error` breaks some reader, or loses something. A `warning` is what real streams do not do. A `note` is only worth knowing:
types that this version does not know, for example, since the API may add new ones at any time. `RULES` says what each rule
asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rawsse.errors import EventDataError, LimitExceededError, quote
from rawsse.messages import (
    Block,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    ErrorEvent,
    MessageBuilder,
    MessageDelta,
    MessageStart,
    StreamEvent,
    UnknownDelta,
    UnknownEvent,
)
from rawsse.messages.content import KNOWN_BLOCK_TYPES
from rawsse.replay.recording import Recording
from rawsse.replay.scrub import find_secrets
from rawsse.sse import Decoder, Event

__all__ = ["RULES", "Finding", "Place", "Severity", "check"]

Severity: TypeAlias = Literal["error", "warning", "note"]

RULES: Mapping[str, str] = {
    "http-status": "A stream has the status 200; other answers are JSON, and an error has the API's form.",
    "http-type": "The content type is text/event-stream.",
    "http-end": "The connection ends after the last event, and the client waits for it.",
    "sse-mark": "No byte order mark: it is allowed, but the official Python SDK loses the first event to it.",
    "sse-utf8": "The stream is UTF-8; other bytes turn into U+FFFD.",
    "sse-field": "The fields are event and data. `id` and `retry` are no part of the Messages API, others of nothing.",
    "sse-empty": "An event has data; without them readers drop it.",
    "sse-cut": "The stream ends after a blank line; an event without one is dropped.",
    "event-name": "An event has an `event:` line with its type; the official SDKs drop events without.",
    "event-data": "The data are one JSON object with the fields that the type asks for.",
    "event-done": "The last event is message_stop. The end mark [DONE] is not the Messages API's.",
    "event-unknown": "Events, blocks, deltas and stop reasons are of known types.",
    "event-order": "The events come in the order that the Messages API allows; blocks count from 0 without gaps.",
    "event-error": "No error event.",
    "message-fields": "A message has id, type, role, model, content and usage.",
    "message-usage": "message_start and message_delta have a usage with output_tokens: both official SDKs fail without.",
    "block-input": "A tool's input is a JSON object when its block ends.",
    "block-open": "Every block is closed before message_delta.",
    "block-signature": "A block of thinking has a signature: without one it cannot be sent back.",
    "block-result": "A server tool's result names a call that came before it.",
    "stream-end": "The stream ends with message_stop, or with an error event.",
    "limit": "Nothing is larger than the limits of rawsse.",
    "secret": "No key, token or password is in the stream, the request or the headers; `scrub` hides what looks like one.",
}

STOP_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
        "compaction",
    }
)
_MESSAGE_FIELDS: Mapping[str, type] = {
    "id": str,
    "type": str,
    "role": str,
    "model": str,
    "content": list,
    "usage": dict,
}
_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\r|\n|\Z)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the body: `byte` counts from 0, `event` from 1 (0: before the first)."""

    byte: int
    event: int

    def __str__(self) -> str:
        return f"byte {self.byte}, event {self.event}"


@dataclass(frozen=True, slots=True)
class Finding:
    """`rule`, one of `RULES`, is not kept at `where`; `text` says how."""

    rule: str
    where: Place
    text: str
    severity: Severity

    def __str__(self) -> str:
        return f"{self.severity} at {self.where}: {self.rule}: {self.text}"


def check(stream: bytes | Recording) -> list[Finding]:
    """Everything that is wrong, or worth knowing, about a stream or a recorded exchange; in the order of the stream."""
    recording = Recording.from_sse(stream) if isinstance(stream, bytes) else stream
    checker = _Checker()
    if recording.status != 200:
        checker.check_refusal(recording)
    else:
        checker.check_head(recording)
        checker.check_body(recording.body)
        if recording.end != "clean":
            checker.find("http-end", f"the recording ends with {recording.end!r}", "warning")
    return sorted(checker.findings + _secrets(recording), key=lambda finding: finding.where.byte)


def _secrets(recording: Recording) -> list[Finding]:
    found = find_secrets(recording)
    return [Finding("secret", Place(secret.byte, secret.event), str(secret), "error") for secret in found]


class _Checker:
    """Reads a stream line by line, since every finding needs its place, and gathers the findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._builder = MessageBuilder(strict=False)
        self._decoder = Decoder()
        self._byte = 0  # where the event at hand began
        self._event = 0  # its number
        self._fields: set[bytes] = set()  # of the event at hand
        self._calls: set[str] = set()  # ids of the tool calls so far
        self._closed: set[int] = set()  # indices of the blocks that have ended

    def find(self, rule: str, text: str, severity: Severity = "error", byte: int | None = None) -> None:
        """Note a finding, at the event at hand or at `byte`."""
        assert rule in RULES  # noqa: S101
        place = Place(self._byte if byte is None else byte, self._event)
        self.findings.append(Finding(rule, place, text, severity))

    # --- HTTP ---

    def check_refusal(self, recording: Recording) -> None:
        self.find("http-status", f"the status is {recording.status}", "note")
        if not re.search(rb'"type"\s*:\s*"error"', recording.body):
            self.find("http-status", f"the body is no error of the API: {quote(recording.body)}", "warning")

    def check_head(self, recording: Recording) -> None:
        headers = {name.lower(): value for name, value in recording.headers.items()}
        kind = headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "text/event-stream":
            self.find("http-type", f"the content type is {quote(kind)}", "warning")

    # --- Server-sent events ---

    def check_body(self, data: bytes) -> None:
        if data.startswith(b"\xef\xbb\xbf"):
            self.find("sse-mark", "the stream begins with a byte order mark", "warning")
        try:
            for found in _LINE.finditer(data):
                self._check_line(found[1], found[0], found.start())
        except LimitExceededError as exc:
            self.find("limit", exc.message)
            return
        self._byte = len(data)
        if pending := self._decoder.close():
            self.find("sse-cut", f"the stream ends inside an event: {quote(pending)}")
        self._check_end()

    def _check_line(self, line: bytes, with_end: bytes, at: int) -> None:
        if line and not self._fields:
            self._byte, self._event = at, self._event + 1
        if line:
            self._check_field(line, at)
        for event in self._decoder.feed(with_end):
            self._check_event(event)
        if not line and self._fields:
            self._end_event()

    def _check_field(self, line: bytes, at: int) -> None:
        name = line.removeprefix(b"\xef\xbb\xbf" if at == 0 else b"").partition(b":")[0]
        self._fields.add(name)
        if name in (b"id", b"retry"):
            self.find("sse-field", f"the field {name.decode()} means nothing here", "note", at)
        elif name not in (b"event", b"data", b""):
            self.find("sse-field", f"there is no field {quote(name)}", "warning", at)
        try:
            line.decode()
        except UnicodeDecodeError as exc:
            self.find("sse-utf8", f"{quote(line[exc.start : exc.end])} is no UTF-8", "error", at + exc.start)

    def _end_event(self) -> None:
        if b"data" not in self._fields and self._fields & {b"event", b"id"}:
            self.find("sse-empty", "an event without data")
        if b"data" not in self._fields:
            self._event -= 1  # it was none
        self._fields = set()

    # --- The Messages API ---

    def _check_event(self, sse: Event) -> None:
        known = len(self._builder.deviations)
        try:
            event = self._builder.feed(sse)
        except EventDataError as exc:
            self.find("event-data", exc.message)
            return
        if event is None:
            self.find("event-done", "the end mark [DONE] is not the Messages API's", "note")
            return
        if b"event" not in self._fields:
            self.find("event-name", f"{quote(event.type)} has no event line")
        elif sse.event != event.type:
            self.find("event-name", f"the event is called {quote(sse.event)}, its type is {quote(event.type)}")
        for deviation in self._builder.deviations[known:]:
            self.find("event-order", deviation.rule)
        self._check_kind(event)

    def _check_kind(self, event: StreamEvent) -> None:
        match event:
            case MessageStart():
                self._check_message(event.raw["message"])
            case ContentBlockStart():
                self._check_block(event.raw["content_block"])
            case ContentBlockDelta(delta=UnknownDelta()):
                self.find("event-unknown", f"a delta of type {_type(event.raw['delta'])}", "note")
            case ContentBlockStop():
                self._check_whole_block(event.raw["index"])
            case MessageDelta():
                self._check_message_delta(event.raw)
            case ErrorEvent():
                self._check_error(event.raw["error"])
            case UnknownEvent():
                self.find("event-unknown", f"an event of type {quote(event.type)}", "note")

    def _check_message(self, message: dict[str, Any]) -> None:
        for name, wanted in _MESSAGE_FIELDS.items():
            if not isinstance(message.get(name), wanted):
                self.find("message-fields", f"message_start has a message without {name!r}")
        self._check_usage("message_start", message.get("usage"))

    def _check_usage(self, kind: str, usage: Any) -> None:
        if not isinstance(usage, dict) or type(usage.get("output_tokens")) is not int:
            self.find("message-usage", f"{kind} has no usage with output_tokens")

    def _check_block(self, block: dict[str, Any]) -> None:
        self._check_known("a block of type", block.get("type"), KNOWN_BLOCK_TYPES)
        if isinstance(call := block.get("id"), str):
            self._calls.add(call)
        if "tool_use_id" in block and (named := str(block["tool_use_id"])) not in self._calls:
            self.find("block-result", f"a result for {quote(named)}, which was not called", "warning")

    def _check_known(self, what: str, value: Any, known: frozenset[str]) -> None:
        """New names may come at any time; what is no name at all breaks readers."""
        if not isinstance(value, str):
            self.find("event-data", f"{what} {quote(repr(value))}, which is no string")
        elif value not in known:
            self.find("event-unknown", f"{what} {quote(value)}", "note")

    def _check_whole_block(self, index: int) -> None:
        self._closed.add(index)
        blocks = self._blocks()
        if not 0 <= index < len(blocks):
            return  # an event-order finding has said so
        block = blocks[index]
        if not block.complete or ("input" in block and not isinstance(block["input"], dict)):
            self.find("block-input", f"the input of block {index} is no JSON object: {quote(block.input_text)}")
        if block.get("type") == "thinking" and not block.get("signature"):
            self.find("block-signature", f"the thinking of block {index} has no signature", "warning")

    def _check_message_delta(self, event: dict[str, Any]) -> None:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            self.find("event-data", "message_delta has no 'delta' that is an object")
            return
        self._check_usage("message_delta", event.get("usage"))
        if (reason := delta.get("stop_reason")) is not None:
            self._check_known("the stop reason", reason, STOP_REASONS)
        for index, block in enumerate(self._blocks()):
            if not block.complete and index not in self._closed:
                self.find("block-open", f"block {index} is still open", "note")

    def _blocks(self) -> list[Block]:
        return self._builder.message.content if self._builder.message else []

    def _check_error(self, error: dict[str, Any]) -> None:
        self.find("event-error", f"an error event, {_type(error)}: {quote(str(error.get('message')))}", "note")
        if not isinstance(error.get("type"), str) or not isinstance(error.get("message"), str):
            self.find("event-data", "an error without type or message")

    def _check_end(self) -> None:
        if self._builder.is_done or self._builder.error is not None:
            return
        if self._builder.is_complete:
            self.find("stream-end", "message_stop is missing; the stop reason has come", "warning")
        else:
            self.find("stream-end", f"the stream ends {self._builder.state.value}, before message_stop")


def _type(value: dict[str, Any]) -> str:
    return quote(str(value.get("type")))
