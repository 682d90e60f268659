"""The dialects: the frames that a browser receives for each event of the API, and the requests that it may send.

    messages   `/v1/messages`: the API's own events, byte for byte. No ids: its clients cannot reconnect.
               Without `stream`: one JSON text, the message
    events     `POST /api/chat`: the same events, then `data: [DONE]`
    text       `POST /chat/stream` and its kin: `data: {"text": "…"}` per piece of text, `data: {"error": …}` on failure,
               then always `data: [DONE]`
    ui         `POST /api/chat` for the Vercel AI SDK, in `ui.py`

A dialect object serves one run. It turns an event, a failure or the end into frames; the run adds the ids.

To add a dialect for browsers: write a subclass of `Dialect`, and add a row with its path to `DIALECTS` (`paths.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    Ending,
    RawsseError,
    StreamCancelledError,
)
from rawsse.messages.events import ContentBlockDelta, ContentBlockStart, ErrorEvent, MessageDelta, MessageStart
from rawsse.messages.lens import as_sent, object_at
from rawsse.messages.message import MAX_MESSAGE_BYTES, MessageBuilder
from rawsse.sse import Decoder, encode, encode_comment

MAX_LOGGED_CHARS = 500
"""How many characters of an untrusted text are written to one log line."""


Frame = str
"""One server-sent event, encoded, without an id."""


def frame(data: str, event: str | None = None) -> Frame:
    """A frame with this data and event name. Raises `InvalidFieldError`."""
    if "\n" not in data and "\r" not in data and (event is None or event.isidentifier()):
        # Nearly all frames. `encode` gives the same result, but takes three times as long.
        return f"data: {data}\n\n" if event is None else f"event: {event}\ndata: {data}\n\n"
    return encode(data, event=event).decode()


DONE = frame("[DONE]")

# One shared encoder: `json.dumps` would make a new one for each call, which is half of its cost.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def compact(value: object) -> str:
    """The shortest JSON text of a value; null stands for numbers that JSON does not have (RFC 8259, 6)."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(as_sent(value))


json_string = encode_basestring_ascii
"""`compact` for a string, in a tenth of the time: nearly every frame is one string."""

COMMENT_HEARTBEAT = encode_comment("keep-alive")
PING_HEARTBEAT = encode('{"type": "ping"}', event="ping")


# --- Failures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run has no complete answer, in a form safe for browsers: without secrets.

    `status` is the HTTP status if the response's head has not been sent yet; `type` is an error type of the Messages API,
    or `cancelled` or `shutdown`. `event` and `body` are the API's own error, if it sent one. `retry` (milliseconds) tells
    browsers when to reconnect. `field` names the invalid part of a request.
    """

    status: int
    type: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: Ending | None = None
    event: ErrorEvent | None = None
    body: Mapping[str, Any] | None = None
    retry: int | None = None
    field: str = ""

    def to_json(self) -> str:
        """The data of an `error` event in the Messages API's form, plus the ending."""
        body: dict[str, Any] = {"type": "error", "error": {"type": self.type, "message": self.message, **self.place}}
        if self.ending is not None:
            body["request_id"] = self.ending.request_id
            body["ending"] = self.ending.to_dict()
        return compact(body)

    @property
    def place(self) -> dict[str, str]:
        """`field` as a part of a JSON object."""
        return {"field": self.field} if self.field else {}


def failure_of(error: RawsseError, event: ErrorEvent | None = None) -> Failure:
    """The failure that a browser sees for an error of the client. The error's own message is for the relay's log: it may
    name files and addresses.
    """
    ending = error.ending if isinstance(error, APIError) else None
    if isinstance(error, ConfigurationError):
        return Failure(500, "api_error", "the relay is not set up: see its log")
    if isinstance(error, APIStatusError):
        message = error.api_message or error.message
        body = error.body if isinstance(error.body, dict) else None
        # A status that is not an error in HTTP, such as a redirect, would not be one for the browser either.
        status = error.status_code if 400 <= error.status_code < 600 else 502
        return Failure(status, error.type or "api_error", message, error.headers, ending, event, body)
    if isinstance(error, StreamCancelledError):
        return Failure(200, "cancelled", "stopped", ending=ending)
    status, type, message = 502, "api_error", str(error)
    if isinstance(error, APITimeoutError):
        status, type = 504, "timeout_error"
    if isinstance(error, APIConnectionError) and error.phase in ("connect", "send", "head"):
        # Without the address of the API, which may be internal.
        message = "the API did not answer in time" if status == 504 else "the API could not be reached"
    return Failure(status, type, message, ending=ending and ending._replace(text=message))


def one_line(words: str) -> str:
    """An untrusted text, truncated and made printable for one log line."""
    words = words[:MAX_LOGGED_CHARS]
    return words if words.isprintable() else "".join(c if c.isprintable() else " " for c in words)


# --- Frames --------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A request parsed from a body: the request for the API, and how to send the answer. A run begins with it.

    `alias` is the chat that the answer belongs to. `id` is the run's, if the client chose it; then `fingerprint` identifies the
    request, in case that the client repeats it.
    """

    dialect: Dialect
    request: dict[str, Any]
    alias: str = ""
    id: str = ""
    fingerprint: str = ""


class Dialect:
    """The form in which one run is sent. The ledger and other nodes identify a subclass by its `name`."""

    name: str
    heartbeat = COMMENT_HEARTBEAT
    """Sent while the run is silent. Empty: nothing is sent before the end, not even the head. The answer is one JSON text."""
    headers: tuple[tuple[str, str], ...] = ()
    """Header fields of the response, in addition to those of every event stream."""
    is_resumable = True
    """Its clients can reconnect: frames have ids."""
    keeps_status = True
    """A failure before the first frame keeps its HTTP status."""
    delta: re.Pattern[bytes] | None = None
    """Matches a text frame up to its text: a reader that is behind gets consecutive pieces in one frame."""

    @classmethod
    def can_read(cls, body: Mapping[str, Any]) -> bool:
        """Whether a browser's body is for this dialect, rather than another one with the same path."""
        return True

    @classmethod
    def read(cls, body: Mapping[str, Any], max_prompt_chars: int) -> Asked:
        """The request in a browser's body. Raises `InvalidRequest`."""
        return Asked(cls(), read_chat(body, max_prompt_chars=max_prompt_chars))

    def event(self, event: Any) -> list[Frame]:
        """The frames for one event of the API."""
        raise NotImplementedError

    def fail(self, failure: Failure) -> list[Frame]:
        """The last frames of a run that failed."""
        raise NotImplementedError

    def end(self, ending: Ending) -> list[Frame]:
        """The last frames of a run that is complete."""
        raise NotImplementedError


class MessagesDialect(Dialect):
    """The API's own events. A heartbeat is a `ping` event, because clients of the API may ignore comments."""

    name = "messages"
    heartbeat = PING_HEARTBEAT
    is_resumable = False

    def event(self, event: Any) -> list[Frame]:
        # The event's data as received. A missing name is added: official clients drop events without one.
        return [frame(event.sse.data, event.raw["type"])]

    def fail(self, failure: Failure) -> list[Frame]:
        return [frame(failure.event.sse.data if failure.event else failure.to_json(), "error")]

    def end(self, ending: Ending) -> list[Frame]:
        # The stop reason has arrived and only the tail was lost: the answer is complete, but its reader waits for the
        # last event.
        return [frame('{"type":"message_stop"}', "message_stop")] if ending.tail_missing else []


class WholeDialect(MessagesDialect):
    """`/v1/messages` without `stream`: its only frame is the message, in JSON."""

    heartbeat = b""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._builder = MessageBuilder(strict=False, max_message_bytes=max_message_bytes)

    def event(self, event: Any) -> list[Frame]:
        self._builder.apply(event)
        return []

    def end(self, ending: Ending) -> list[Frame]:
        message = self._builder.message
        return [message.to_json(indent=None)] if message is not None else []


class EventsDialect(MessagesDialect):
    """The API's events, then the end mark. A heartbeat is a comment."""

    name = "events"
    heartbeat = COMMENT_HEARTBEAT
    is_resumable = True

    def fail(self, failure: Failure) -> list[Frame]:
        return [*super().fail(failure), DONE]

    def end(self, ending: Ending) -> list[Frame]:
        return [*super().end(ending), DONE]


class TextDialect(Dialect):
    """Only the text; with `has_usage` one more frame before the end mark: the token counts and the stop reason."""

    name = "text"
    delta = re.compile(rb'data: \{"text":"')

    def __init__(self, *, has_usage: bool = False) -> None:
        self._usage: dict[str, Any] | None = {} if has_usage else None

    @classmethod
    def read(cls, body: Mapping[str, Any], max_prompt_chars: int) -> Asked:
        """See `Dialect.read`."""
        return Asked(cls(has_usage=read_flag(body, "usage")), read_chat(body, max_prompt_chars=max_prompt_chars))

    def event(self, event: Any) -> list[Frame]:
        text = None
        if type(event) is ContentBlockDelta:  # nearly all events
            delta = event.raw["delta"]
            text = delta.get("text") if delta.get("type") == "text_delta" else None
        elif isinstance(event, ContentBlockStart) and event.raw["content_block"].get("type") == "text":
            text = event.raw["content_block"].get("text") or None  # empty at the API; some gateways begin here
        elif self._usage is not None and isinstance(event, MessageStart | MessageDelta):
            self._usage.update(object_at(event.raw.get("message", event.raw), "usage"))
        return [f'data: {{"text":{json_string(text)}}}\n\n'] if isinstance(text, str) else []

    def fail(self, failure: Failure) -> list[Frame]:
        return [frame(compact({"error": failure.message, "type": failure.type, **failure.place})), DONE]

    def end(self, ending: Ending) -> list[Frame]:
        if self._usage is None:
            return [DONE]
        return [frame(compact({"usage": self._usage, "stop_reason": ending.stop_reason})), DONE]


_TEXT_END = b'"}'


def join_deltas(wire: bytes, delta: re.Pattern[bytes]) -> bytes:
    """Join consecutive text frames into one, with the id of the last. Each frame begins with its id.

    The JSON strings are joined without being parsed, so two halves of a surrogate pair join, too.
    """

    def before_text(frame: bytes) -> bytes | None:
        found = delta.match(frame, frame.find(b"\n") + 1)
        return found.group() if found is not None and frame.endswith(_TEXT_END) else None

    joined: list[bytes] = []
    for before, frames in groupby(wire.split(b"\n\n"), before_text):
        if before is None:
            joined += frames
        else:
            parts = [frame.partition(before) for frame in frames]
            text = b"".join(text.removesuffix(_TEXT_END) for _, _, text in parts)
            joined.append(parts[-1][0] + before + text + _TEXT_END)
    return b"\n\n".join(joined)


def snapshot(log: bytes, dialect: Dialect) -> bytes:
    """The answer so far in as few frames as the dialect allows. `log` has the frames, with their ids.

    Text becomes one frame. The API's events become one frame, `event: snapshot`, with the `message` so far and, in `inputs`,
    the JSON text of each incomplete tool input by block index. The end and errors are unchanged.
    """
    if dialect.delta is not None:
        return join_deltas(log, dialect.delta)
    frames = [each + b"\n\n" for each in log.split(b"\n\n")[:-1]]
    builder, decoder, id, count = MessageBuilder(strict=False), Decoder(), "", 0
    try:
        for (event,) in map(decoder.feed, frames):
            if event.event in ("message_stop", "error") or event.data == "[DONE]":
                break
            builder.feed(event)
            id, count = event.id, count + 1
    except APIError:  # the answer cannot be folded: its reader gets the events
        return log
    if (message := builder.message) is None:
        return log
    inputs = {index: block.input_text for index, block in enumerate(message.content) if not block.complete}
    state = {"type": "snapshot", "message": message.to_dict(), "inputs": {k: v for k, v in inputs.items() if v}}
    return f"id: {id}\n{frame(compact(state), 'snapshot')}".encode() + b"".join(frames[count:])


# --- Answers in place of frames --------------------------------------------------------------------------------------


class Answer(Exception):  # noqa: N818 - control flow, not a failure
    """Raised to answer the request with an error in the Messages API's form. `field` names the invalid part of the request."""

    def __init__(
        self, status: int, type: str, message: str, *, field: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.type, self.field = status, type, field
        self.headers = tuple((headers or {}).items())
        self.body = Failure(status, type, message, field=field).to_json().encode()


class InvalidRequest(Answer):
    """The browser's request is invalid. `field` names the invalid part; `status` is 400, 413 or 415."""

    def __init__(self, field: str, message: str, status: int = 400) -> None:
        kind = "request_too_large" if status == 413 else "invalid_request_error"
        super().__init__(status, kind, f"{field}: {message}", field=field)


# --- Requests ------------------------------------------------------------------------------------------------------

ROLES = ("user", "assistant", "system")


def read_chat(body: Mapping[str, Any], *, max_prompt_chars: int) -> dict[str, Any]:
    """The Messages API request for a browser's request, in any dialect but ui; `model` and `max_tokens` may be missing. The
    body has `message` or `prompt`, a string, or `messages`, a conversation. Raises `InvalidRequest`.
    """
    name = next((name for name in ("message", "prompt", "messages") if body.get(name) is not None), None)
    if name is None:
        raise InvalidRequest("message", "is missing (a text; or messages, a list)")
    if name == "messages":
        _check_conversation(body["messages"], max_prompt_chars)
        messages = body["messages"]
    else:
        messages = [{"role": "user", "content": read_text(name, body[name], max_prompt_chars)}]
    return {"messages": messages, **read_options(body, max_prompt_chars=max_prompt_chars)}


def read_options(body: Mapping[str, Any], *, max_prompt_chars: int) -> dict[str, Any]:
    """The options that a browser may send beside its messages: `system`, `model`, `max_tokens`. Raises `InvalidRequest`."""
    options = {name: body[name] for name in ("system", "model", "max_tokens") if body.get(name) is not None}
    for name, value in options.items():
        if name == "max_tokens":
            _check_count(name, value, 1)
        else:
            read_text(name, value, max_prompt_chars)
    return options


def read_messages(body: Mapping[str, Any], *, max_prompt_chars: int) -> dict[str, Any]:
    """The request of `/v1/messages`. It is forwarded unchanged; only the fields that the relay reads are checked."""
    has_thread = "thread" in body  # the API keeps the conversation, and may continue it without a new message
    _check_conversation(body.get("messages"), max_prompt_chars, may_be_empty=has_thread, checks_blocks=False)
    if "model" in body:
        read_text("model", body["model"], max_prompt_chars)
    if "max_tokens" in body:
        _check_count("max_tokens", body["max_tokens"], 0)  # 0 warms the prompt cache
    read_flag(body, "stream")
    return dict(body)


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false; false if it is missing. Raises `InvalidRequest`."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(name, "must be true or false")
    return value


def read_text(name: str, value: object, max_chars: int) -> str:
    """`value`, if it is a string that is not blank. Raises `InvalidRequest`."""
    if value is None:
        raise InvalidRequest(name, "is missing")
    if not isinstance(value, str):
        raise InvalidRequest(name, "must be a string")
    if not value.strip():
        raise InvalidRequest(name, "is empty")
    _check_length(name, value, max_chars)
    return value


def _check_conversation(
    messages: object, max_prompt_chars: int, *, may_be_empty: bool = False, checks_blocks: bool = True
) -> None:
    """Check roles and text lengths; the API checks the rest. Without `checks_blocks` a content may be any list."""
    if not isinstance(messages, list):
        raise InvalidRequest("messages", "must be a list")
    if not messages and not may_be_empty:
        raise InvalidRequest("messages", "is empty")
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict):
            raise InvalidRequest(where, "must be an object with role and content")
        if message.get("role") not in ROLES:
            raise InvalidRequest(f"{where}.role", f"must be one of {', '.join(ROLES)}")
        content = message.get("content")
        blocks = content if isinstance(content, list) else []
        for block in blocks:
            if isinstance(block, dict) and isinstance(text := block.get("text"), str):
                _check_length(f"{where}.content", text, max_prompt_chars)
        is_whole = bool(blocks) and all(isinstance(block, dict) for block in blocks)
        if not is_whole and (checks_blocks or not isinstance(content, list)):
            read_text(f"{where}.content", content, max_prompt_chars)


def _check_length(name: str, text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise InvalidRequest(name, f"is longer than {max_chars} characters", 413)


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidRequest(name, f"must be a whole number, at least {least}")
