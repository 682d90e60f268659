"""Check a stream of the Messages API: which rules it breaks, and where.

    for finding in check(Recording.load("answer.sse.jsonl")):
        print(finding)          # error at byte 812, event 9: event-order: content_block_delta may not come after message_stop

    checker = Checker()         # the same for a stream that is still arriving
    while data := await reader.read(65536):
        print(*checker.feed(data), sep="\\n")
    print(*checker.close(), sep="\\n")

`RULES` lists the rules: those of server-sent events, those of the Messages API, and those that both official SDKs depend on.
An `error` breaks some reader or loses data. A `warning` never occurs in real streams. A `note` is for information: an
unknown type, for example, since the API may add types at any time. An answer with a JSON content type, or with a status
other than 200, is not a stream and not checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from rawsse.errors import MAX_QUOTED_CHARS, EventDataError, LimitExceededError, quote
from rawsse.messages import Block, ContentBlockDelta, ContentBlockStop, MessageBuilder, StreamEvent, UnknownEvent
from rawsse.messages.content import KNOWN_BLOCK_TYPES, StopReason
from rawsse.messages.events import DONE, KNOWN_DELTA_TYPES
from rawsse.replay.recording import End, Recording
from rawsse.replay.scrub import ScrubPolicy, find_secrets
from rawsse.replay.variants import cut_text
from rawsse.sse import MAX_EVENT_BYTES, Decoder, Event

Severity: TypeAlias = Literal["error", "warning", "note"]

RULES: Mapping[str, str] = {
    "http-status": "The status is 200. The body of any other status is an error in the API's form.",
    "http-type": "The content type is text/event-stream.",
    "http-end": "The connection ends after the last event, and the client waits for it.",
    "sse-mark": "No byte order mark: it is allowed, but makes the official Python SDK lose the first event.",
    "sse-utf8": "The stream is UTF-8; readers replace other bytes with U+FFFD.",
    "sse-field": "The fields are event and data. The Messages API sends no `id` and no `retry`; there are no others.",
    "sse-empty": "An event has data; without data, readers drop it.",
    "sse-cut": "The stream ends after a blank line; an event without one is dropped.",
    "event-name": "An event has an `event:` line with its type; the official SDKs drop events without one.",
    "event-data": "The data are one JSON object with the fields that the type requires.",
    "event-done": "The last event is message_stop. The end mark [DONE] is not the Messages API's.",
    "event-unknown": "Events, blocks, deltas and stop reasons are of known types.",
    "event-order": "The events are in an order that the Messages API allows; blocks count from 0 without gaps.",
    "event-error": "No error event.",
    "message-fields": "message_start has a message with id, type, role, model, content and usage.",
    "message-usage": "message_start and message_delta have a usage with output_tokens: both official SDKs need it.",
    "block-input": "A tool's input is a JSON object when its block ends.",
    "block-open": "Every block is closed before message_delta.",
    "block-signature": "A thinking block ends with exactly one signature: without it, the block cannot be sent back.",
    "block-result": "A server tool's result names an earlier call.",
    "stream-end": "The stream ends with message_stop, or with an error event.",
    "limit": "Nothing is larger than the limits of rawsse.",
    "secret": "No key, token or password is in the stream, the request or the headers; `scrub` hides what looks like one.",
}

MAX_SEARCHED_BYTES = 16 * 1024 * 1024
"""How much of a stream a `Checker` keeps for the final search for secrets, which may be spread over many deltas."""

MAX_ERROR_BYTES = 65536
"""How much of the body of an error is kept, to check its form."""

_STOP_REASONS = frozenset(reason for reasons in get_args(StopReason) for reason in get_args(reasons))
_MESSAGE_FIELDS: Mapping[str, type] = {
    **dict.fromkeys(("id", "type", "role", "model"), str),
    "content": list,
    "usage": dict,
}
_SSE_TYPE = "text/event-stream"
_RELAYED = "this looks like a relay's /stream (text dialect), not the Messages API"
_MARK = b"\xef\xbb\xbf"
# Only such lines are quoted: it may be the wrong file, and contain a key.
_NAME = re.compile(rb"[A-Za-z-]{1,20}")
_FIELD = re.compile(rb"(?:data|event|id|retry)?:")
_JSON_TYPE = re.compile(r"application/(?:[^;]+\+)?json\s*(?:;|\Z)")  # RFC 8259; RFC 6839, 3.1


class Place(NamedTuple):
    """Where in the body: `byte` counts from 0, `event` from 1 (0: before the first)."""

    byte: int
    event: int

    def __str__(self) -> str:
        return f"byte {self.byte}, event {self.event}"


class Finding(NamedTuple):
    """A violation of `rule`, one of `RULES`, at `where`; `text` describes it."""

    rule: str
    where: Place
    text: str
    severity: Severity

    def __str__(self) -> str:
        return f"{self.severity} at {self.where}: {self.rule}: {self.text}"


def quote_bytes(data: bytes, limit: int = MAX_QUOTED_CHARS) -> str:
    """Bytes of a stream as the text that they are, quoted, and cut after `limit` bytes; what is not printable is escaped."""
    decoded = data[:limit].decode("utf-8", "backslashreplace")
    text = "'" + "".join(each if each.isprintable() else repr(each)[1:-1] for each in decoded) + "'"
    return text if len(data) <= limit else f"{text}… ({len(data)} in all)"


def check(stream: bytes | Recording, policy: ScrubPolicy | None = None) -> list[Finding]:
    """All findings about a stream, or a recorded exchange, in the order of the stream.

    `policy` adds secrets to the known shapes.
    """
    recording = Recording.from_sse(stream) if isinstance(stream, bytes) else stream
    checker = Checker.of(recording)
    findings = checker.feed(recording.body) + checker.close(recording.end) + _secrets(recording, policy)
    return sorted(findings, key=lambda finding: finding.where.byte)


def _secrets(searched: Recording | bytes, policy: ScrubPolicy | None) -> list[Finding]:
    found = find_secrets(searched, policy)
    return [Finding("secret", Place(secret.byte, secret.event), str(secret), "error") for secret in found]


class Checker:
    """Checks one stream as it arrives: `feed` and `close` return the new findings, in the order of the stream.

    `status` and `content_type` are the response's, if they are known. `wants_stream`: the request asked for a stream. `close`
    searches the first `max_searched_bytes` of the body for secrets; `policy` adds to the known shapes. `is_over`: the
    stream exceeded a limit, and the rest is not checked.
    """

    def __init__(
        self,
        status: int = 200,
        content_type: str = _SSE_TYPE,
        *,
        wants_stream: bool = False,
        max_searched_bytes: int = MAX_SEARCHED_BYTES,
        policy: ScrubPolicy | None = None,
    ) -> None:
        self.builder = MessageBuilder(strict=False)
        """The message folded from the events."""
        self.groups: list[tuple[int, Event | None, StreamEvent | None]] = []
        """The groups of lines that the last `feed` completed: the offset after the blank line, the server-sent event, and the
        parsed event. None: the group has no event, or an invalid one."""
        self.is_over = False
        self._policy = policy
        self._status = status
        self._is_stream = status == 200 and not _JSON_TYPE.match(content_type.strip().lower())
        self._findings: list[Finding] = []
        self._max_searched_bytes = max_searched_bytes
        self._kept = bytearray()
        self._decoder = Decoder()
        self._line = bytearray()  # the unfinished line
        self._line_start = 0
        self._after_return = False
        self._byte = 0  # the offset of the current event
        self._event = 0  # its number
        self._fields: set[bytes] = set()  # its fields
        self._calls: set[str] = set()  # ids of the tool calls so far
        self._started: set[int] = set()  # indices of the blocks that have begun
        self._closed: set[int] = set()  # indices of those that have ended
        self._signed: set[int] = set()  # indices of the blocks that have a signature
        if status != 200:
            self._find("http-status", f"the status is {status}", "note")
        elif not self._is_stream:
            text = f"the content type is {quote(content_type)}: this is not a stream, and not checked"
            self._find("http-type", text, "error" if wants_stream else "note")
        elif content_type.partition(";")[0].strip().lower() != _SSE_TYPE:
            self._find("http-type", f"the content type is {quote(content_type)}", "warning")

    @classmethod
    def of(cls, recording: Recording) -> Checker:
        """A checker for the body of a recording. It does not search for secrets."""
        body = recording.request.body if recording.request else None
        wants_stream = isinstance(body, dict) and body.get("stream") is True
        return cls(recording.status, recording.content_type, wants_stream=wants_stream, max_searched_bytes=0)

    def feed(self, data: bytes) -> list[Finding]:
        """Take the next bytes of the body, split anywhere; return their findings."""
        room = self._max_searched_bytes if self._status == 200 else MAX_ERROR_BYTES
        self._kept += data[: max(0, room - len(self._kept))]
        self.groups = []
        if self._is_stream and not self.is_over:
            self._within_limits(lambda: self._check_lines(data))
        return self._taken()

    def close(self, end: End = "clean") -> list[Finding]:
        """The body has ended; return its last findings: missing events, and secrets."""
        body = bytes(self._kept)
        if self._is_stream and not self.is_over:
            self._within_limits(self._check_end)
        if self._status != 200 and not re.search(rb'"type"\s*:\s*"error"', body):
            self._find("http-status", f"the body is not an error of the API: {quote_bytes(body)}", "warning")
        if self._status == 200 and end != "clean":
            self._find("http-end", f"the exchange ended with {end!r}", "warning")
        self.is_over = True
        return self._taken() + (_secrets(body, self._policy) if self._max_searched_bytes else [])

    def _find(self, rule: str, text: str, severity: Severity = "error", byte: int | None = None) -> None:
        """Add a finding, at the current event or at `byte`."""
        assert rule in RULES  # noqa: S101
        place = Place(self._byte if byte is None else byte, self._event)
        self._findings.append(Finding(rule, place, text, severity))

    def _taken(self) -> list[Finding]:
        taken, self._findings = self._findings, []
        return taken

    def _within_limits(self, step: Callable[[], None]) -> None:
        try:
            step()
        except LimitExceededError as exc:
            self._find("limit", exc.message)
            self.is_over = True

    # --- Server-sent events ---

    def _check_lines(self, data: bytes) -> None:
        if self._after_return and data.startswith(b"\n"):  # a CR ends its line at once, as in the decoder
            data, self._after_return = data[1:], False
            self._line_start += 1
        for piece in data.splitlines(keepends=True):
            self._line += piece
            self._after_return = piece.endswith(b"\r")
            if self._after_return or piece.endswith(b"\n"):
                self._check_whole_line()
        if len(self._line) > MAX_EVENT_BYTES:
            self._decoder.feed(bytes(self._line))  # raises if the line is too long

    def _check_whole_line(self) -> None:
        line, start = bytes(self._line.rstrip(b"\r\n")), self._line_start
        self._line_start += len(self._line)
        self._line.clear()
        self._check_line(line, start)
        sse = next(iter(self._decoder.feed(line + b"\n")), None)  # only after a blank line
        event = None if sse is None else self._check_event(sse)
        if not line:
            self._end_event()
            self.groups.append((self._line_start, sse, event))

    def _check_line(self, line: bytes, at: int) -> None:
        if at == 0 and line.startswith(_MARK):
            self._find("sse-mark", "the stream begins with a byte order mark", "warning")
        if not line:
            return
        if not self._fields:
            self._byte, self._event = at, self._event + 1
        name = line.removeprefix(_MARK if at == 0 else b"").partition(b":")[0]
        self._fields.add(name)
        if name in (b"id", b"retry"):
            self._find("sse-field", f"the field {name.decode()} means nothing here", "note", at)
        elif name not in (b"event", b"data", b""):
            named = f"there is no field {quote_bytes(name)}" if _NAME.fullmatch(name) else "a line that is not a field"
            self._find("sse-field", named, "warning", at)
        try:
            line.decode()
        except UnicodeDecodeError as exc:
            self._find("sse-utf8", f"{quote_bytes(line[exc.start : exc.end])} is not UTF-8", "error", at + exc.start)

    def _end_event(self) -> None:
        if self._fields and b"data" not in self._fields:
            if self._fields & {b"event", b"id"}:
                self._find("sse-empty", "an event without data")
            self._event -= 1  # not counted
        self._fields = set()

    def _check_end(self) -> None:
        start, rest = self._line_start, bytes(self._line)
        self._check_line(rest, start)
        self._decoder.feed(rest)
        self._byte = start + len(rest)
        if pending := self._decoder.close():
            quoted = f": {quote_bytes(pending)}" if _FIELD.match(pending) else ""
            self._find("sse-cut", f"the stream ends inside an event{quoted}")
        if self.builder.is_done or self.builder.error is not None:
            return
        if self.builder.is_complete:
            self._find("stream-end", "message_stop is missing; the stop reason has arrived", "warning")
        else:
            self._find("stream-end", f"the stream ends {self.builder.state.value}: message_stop is missing")

    # --- The Messages API ---

    def _check_event(self, sse: Event) -> StreamEvent | None:
        known = len(self.builder.deviations)
        try:
            event = self.builder.feed(sse)
        except EventDataError as exc:
            self._find("event-data", exc.message)
            return None
        if event is None and sse.data.strip() == DONE:
            self._find("event-done", "the end mark [DONE] is not the Messages API's", "note")
        elif event is None:
            self._find("event-data", "an event without name and data: it only keeps the connection alive", "note")
        else:
            if b"event" not in self._fields:
                is_relayed = self._event == 1 and sse.data.startswith('{"text":')
                self._find("event-name", _RELAYED if is_relayed else f"{quote(event.type)} has no event line")
            elif sse.event != event.type:
                self._find("event-name", f"the event is called {quote(sse.event)}, its type is {quote(event.type)}")
            index = event.raw["index"] if isinstance(event, ContentBlockDelta | ContentBlockStop) else None
            lost = "" if index is None or index in self._started else f"block {index} was never started: "
            for deviation in self.builder.deviations[known:]:
                self._find("event-order", lost + deviation.rule)
            self._check_kind(event)
        return event

    def _check_kind(self, event: StreamEvent) -> None:
        match event.raw:
            case {"type": "message_start", "message": message}:
                self._check_message(message)
            case {"type": "content_block_start", "index": index, "content_block": block}:
                self._started.add(index)
                self._check_block(block)
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                self._check_delta(index, delta.get("type"))
            case {"type": "content_block_stop", "index": index}:
                self._check_whole_block(index)
            case {"type": "message_delta", "delta": dict(delta)}:
                self._check_message_delta(delta, event.raw.get("usage"))
            case {"type": "message_delta"}:
                self._find("event-data", "message_delta has no 'delta' that is an object")
            case {"type": "error", "error": error}:
                kind, message = error.get("type"), error.get("message")
                self._find("event-error", f"an error event, {quote(str(kind))}: {quote(str(message))}", "note")
                if not isinstance(kind, str) or not isinstance(message, str):
                    self._find("event-data", "an error without type or message")
        if isinstance(event, UnknownEvent):
            self._find("event-unknown", f"an event of type {quote(event.type)}", "note")

    def _check_message(self, message: dict[str, Any]) -> None:
        for name, wanted in _MESSAGE_FIELDS.items():
            if not isinstance(message.get(name), wanted):
                self._find("message-fields", f"message_start has a message without {name!r}")
        self._check_usage("message_start", message.get("usage"))
        # An answer that continues after a tool call begins with complete blocks.
        self._started = set(range(len(self._blocks())))
        self._closed |= self._started

    def _check_usage(self, kind: str, usage: Any) -> None:
        if not isinstance(usage, dict) or type(usage.get("output_tokens")) is not int:
            self._find("message-usage", f"{kind} has no usage with output_tokens")

    def _check_block(self, block: dict[str, Any]) -> None:
        self._check_known("a block of type", block.get("type"), KNOWN_BLOCK_TYPES)
        if isinstance(call := block.get("id"), str):
            self._calls.add(call)
        if "tool_use_id" in block and (named := str(block["tool_use_id"])) not in self._calls:
            self._find("block-result", f"a result for {quote(named)}, which was not called", "warning")

    def _check_delta(self, index: int, kind: Any) -> None:
        self._check_known("a delta of type", kind, KNOWN_DELTA_TYPES)
        if kind in ("signature_delta", "thinking_delta") and index in self._signed:
            self._find("block-signature", f"{kind} came after the signature of block {index}", "warning")
        if kind == "signature_delta":
            self._signed.add(index)

    def _check_known(self, name: str, value: Any, known: frozenset[str]) -> None:
        """Unknown names are notes, since the API may add some; a value that is not a string breaks readers."""
        if not isinstance(value, str):
            shown = cut_text(json.dumps(value), 0, MAX_QUOTED_CHARS)
            self._find("event-data", f"{name} {shown}, which is not a string")
        elif value not in known:
            self._find("event-unknown", f"{name} {quote(value)}", "note")

    def _check_whole_block(self, index: int) -> None:
        self._closed.add(index)
        blocks = self._blocks()
        if not 0 <= index < len(blocks):
            return  # already an event-order finding
        block = blocks[index]
        if not block.complete or ("input" in block and not isinstance(block["input"], dict)):
            self._find("block-input", f"the input of block {index} is not a JSON object: {quote(block.input_text)}")
        if block.get("type") == "thinking" and not block.get("signature"):
            self._find("block-signature", f"the thinking of block {index} has no signature", "warning")

    def _check_message_delta(self, delta: dict[str, Any], usage: Any) -> None:
        self._check_usage("message_delta", usage)
        if (reason := delta.get("stop_reason")) is not None:
            self._check_known("the stop reason", reason, _STOP_REASONS)
        for index in range(len(self._blocks())):
            if index not in self._closed:
                self._find("block-open", f"block {index} is still open", "note")

    def _blocks(self) -> list[Block]:
        return self.builder.message.content if self.builder.message else []
