"""What a browser is sent for each event of the API: the dialects, and what a browser may send.

This file knows the shapes of requests and of frames. It refuses to know runs, HTTP and the network. Three dialects are here;
the fourth, the Vercel AI SDK's, is in `ui.py`.

    messages   `/v1/messages`: the API's own events, byte for byte. No ids: its clients cannot come back.
               Without `stream` it is one JSON text, the message
    events     `POST /api/chat`: the same events, then `data: [DONE]`
    text       `POST /chat/stream` and its kin: `data: {"text": "…"}` per piece of text, `data: {"error": …}` on failure,
               then always `data: [DONE]`

A dialect serves one run. It turns an event, a failure or the end into frames; whoever sends them adds ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any, Protocol

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
from rawsse.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    StreamEvent,
)
from rawsse.messages.lens import as_sent, object_at
from rawsse.messages.message import MessageBuilder
from rawsse.sse import Decoder, encode, encode_comment

MAX_LOGGED_CHARS = 500
"""How much of the words of others a log's line has."""


Frame = str
"""One server-sent event, encoded, without an id."""


def frame(data: str, event: str | None = None) -> Frame:
    """A frame with these data and this name. Raises `InvalidFieldError`."""
    if "\n" not in data and "\r" not in data and (event is None or event.isidentifier()):
        # Nearly all frames. `encode` gives the same, in three times the time.
        return f"data: {data}\n\n" if event is None else f"event: {event}\ndata: {data}\n\n"
    return encode(data, event=event).decode()


DONE = frame("[DONE]")

# One encoder for all: `json.dumps` would make a new one each time, for half of the cost.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def compact(value: object) -> str:
    """The shortest JSON text of a value; null stands for numbers that JSON does not have (RFC 8259, 6)."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(as_sent(value))


json_string = encode_basestring_ascii
"""The JSON of a text, as `compact` gives it, in a tenth of the time: nearly every frame is one text."""

COMMENT_HEARTBEAT = encode_comment("keep-alive")
PING_HEARTBEAT = encode('{"type": "ping"}', event="ping")


# --- Failures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run has no whole answer, as a browser may know it: in words, and without anything secret.

    `status` is the HTTP status if the response's head has not been sent yet; `type` is an error type of the Messages API,
    or `cancelled` or `shutdown`. `event` and `body` are the API's own words, where it has said so itself.
    """

    status: int
    type: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: Ending | None = None
    event: ErrorEvent | None = None
    body: Mapping[str, Any] | None = None
    retry: int | None = None

    def to_json(self) -> str:
        """The data of an `error` event, as the Messages API has it, with the ending added."""
        body: dict[str, Any] = {"type": "error", "error": {"type": self.type, "message": self.message}}
        if self.ending is not None:
            body["request_id"] = self.ending.request_id
            body["ending"] = self.ending.to_dict()
        return compact(body)


def failure_of(error: RawsseError, event: ErrorEvent | None = None) -> Failure:
    """The failure that an error of the client means for the browser. The error's own words are for the relay's log: they
    may name files and addresses.
    """
    if isinstance(error, ConfigurationError):
        return Failure(500, "api_error", "the relay is not set up: see its log")
    if isinstance(error, APIStatusError):
        said = error.api_message or error.message
        body = error.body if isinstance(error.body, dict) else None
        # What is no error to HTTP (a redirect, say) would be none to the browser either.
        status = error.status_code if 400 <= error.status_code < 600 else 502
        return Failure(status, error.type or "api_error", said, error.headers, error.ending, event, body)
    ending = error.ending if isinstance(error, APIError) else None
    if isinstance(error, StreamCancelledError):
        return Failure(200, "cancelled", "stopped", ending=ending)
    words = _words(error)
    ending = ending._replace(text=words) if ending is not None else None
    if isinstance(error, APITimeoutError):
        return Failure(504, "timeout_error", words, ending=ending)
    return Failure(502, "api_error", words, ending=ending)


def _words(error: RawsseError) -> str:
    """What the error says; without the address of the API, which may be inside the owner's network."""
    if isinstance(error, APIConnectionError) and error.phase in ("connect", "send", "head"):
        is_slow = isinstance(error, APITimeoutError)
        return "the API did not answer in time" if is_slow else "the API could not be reached"
    return str(error)


def one_line(words: str) -> str:
    """Words from elsewhere, fit for one line of a log."""
    words = words[:MAX_LOGGED_CHARS]
    return words if words.isprintable() else "".join(c if c.isprintable() else " " for c in words)


# --- Frames --------------------------------------------------------------------------------------------------------


class Dialect(Protocol):
    """What a run speaks. `heartbeat` is sent when there is nothing to say; if it is empty, nothing is sent before the end, not
    even the head: the answer is one JSON text. `is_resumable`: its clients can come back;
    `keeps_status`: a failure before there is anything to say keeps its HTTP status. `delta` finds a frame with a piece of text,
    up to the text: pieces that follow each other are sent as one to a client that is behind."""

    name: str
    heartbeat: bytes
    headers: tuple[tuple[str, str], ...]
    is_resumable: bool
    keeps_status: bool
    delta: re.Pattern[bytes] | None

    def event(self, event: StreamEvent) -> list[Frame]:
        """The frames for one event of the API."""
        ...

    def fail(self, failure: Failure) -> list[Frame]:
        """The last frames of a run that failed."""
        ...

    def end(self, ending: Ending) -> list[Frame]:
        """The last frames of a run that is complete."""
        ...


class MessagesDialect:
    """The API's own events. A heartbeat is a `ping`, because clients of the API wait for events, not for comments."""

    name = "messages"
    heartbeat = PING_HEARTBEAT
    is_resumable = False
    keeps_status = True
    headers: tuple[tuple[str, str], ...] = ()
    delta: re.Pattern[bytes] | None = None  # its clients get the API's own events

    def event(self, event: StreamEvent) -> list[Frame]:
        # The event's own data, not our JSON of it. A missing name is added: official clients drop events without one.
        return [frame(event.sse.data, event.raw["type"])]

    def fail(self, failure: Failure) -> list[Frame]:
        data = failure.to_json() if failure.event is None else failure.event.sse.data
        return [frame(data, "error")]

    def end(self, ending: Ending) -> list[Frame]:
        # The stop reason has come, and the tail was lost: the answer is whole, and its reader waits for the last event.
        return [frame('{"type":"message_stop"}', "message_stop")] if ending.tail_missing else []


class WholeDialect(MessagesDialect):
    """`/v1/messages` without `stream`: its only frame is the message, in JSON."""

    heartbeat = b""

    def event(self, event: Any) -> list[Frame]:
        return [event.to_json(indent=None)]

    def end(self, ending: Ending) -> list[Frame]:
        return []


class EventsDialect(MessagesDialect):
    """The API's events, then the end mark. A heartbeat is a comment."""

    name = "events"
    heartbeat = COMMENT_HEARTBEAT
    is_resumable = True

    def fail(self, failure: Failure) -> list[Frame]:
        return [*super().fail(failure), DONE]

    def end(self, ending: Ending) -> list[Frame]:
        return [*super().end(ending), DONE]


class TextDialect:
    """Text and nothing else; with `has_usage` one more frame before the end mark: the token counts and the stop reason."""

    name = "text"
    heartbeat = COMMENT_HEARTBEAT
    keeps_status = True
    is_resumable = True
    headers: tuple[tuple[str, str], ...] = ()
    delta: re.Pattern[bytes] | None = re.compile(rb'data: \{"text":"')

    def __init__(self, *, has_usage: bool = False) -> None:
        self._usage: dict[str, Any] | None = {} if has_usage else None

    def event(self, event: StreamEvent) -> list[Frame]:
        text = None
        if type(event) is ContentBlockDelta:
            delta = event.raw["delta"]
            if delta.get("type") == "text_delta":
                text = delta.get("text")
        elif isinstance(event, ContentBlockStart) and event.raw["content_block"].get("type") == "text":
            text = event.raw["content_block"].get("text") or None  # empty at the API; some gateways begin here
        elif self._usage is not None and isinstance(event, MessageStart | MessageDelta):
            self._usage.update(object_at(event.raw.get("message", event.raw), "usage"))
        return [f'data: {{"text":{json_string(text)}}}\n\n'] if isinstance(text, str) else []

    def fail(self, failure: Failure) -> list[Frame]:
        return [frame(compact({"error": failure.message, "type": failure.type})), DONE]

    def end(self, ending: Ending) -> list[Frame]:
        if self._usage is None:
            return [DONE]
        return [frame(compact({"usage": self._usage, "stop_reason": ending.stop_reason})), DONE]


_TEXT_END = b'"}\n\n'


def join_deltas(frames: Iterable[bytes], delta: re.Pattern[bytes]) -> bytes:
    """The frames as one piece, in which pieces of text that follow each other are one frame, with the id of the last.

    Each frame begins with its id. The JSON of two texts is joined without being read, so halves of a character join, too.
    """
    joined = bytearray()
    before = b""  # what stands before the text in the frame that may go on
    texts: list[bytes] = []
    id = b""
    for each in frames:
        next_id, newline, data = each.partition(b"\n")
        found = delta.match(data)
        is_text = found is not None and data.endswith(_TEXT_END)
        if texts and not (is_text and found is not None and found.group() == before):
            joined += b"".join((id, before, *texts, _TEXT_END))
            texts = []
        if is_text and found is not None:
            id, before = next_id + newline, found.group()
            texts.append(data[found.end() : -len(_TEXT_END)])
        else:
            joined += each
    return bytes(joined + b"".join((id, before, *texts, _TEXT_END))) if texts else bytes(joined)


def snapshot(log: bytes, dialect: Dialect) -> bytes:
    """The frames of a log, which have ids, folded: the answer so far, in as few frames as the dialect allows.

    Text becomes one frame. The API's events become one, `event: snapshot`, with the `message` so far, and in `inputs` the JSON
    texts of tool inputs that are not whole, by the index of their block. The end, and an error, are as they were.
    """
    frames = [each + b"\n\n" for each in log.split(b"\n\n")[:-1]]
    if dialect.delta is not None:
        return join_deltas(frames, dialect.delta)
    builder, decoder, id, count = MessageBuilder(strict=False), Decoder(), "", 0
    try:
        for (event,) in map(decoder.feed, frames):
            if event.event in ("message_stop", "error") or event.data == "[DONE]":
                break
            builder.feed(event)
            id, count = event.id, count + 1
    except APIError:  # the answer cannot be folded; its reader gets what there is to fold
        return log
    if (message := builder.message) is None:
        return log
    inputs = {index: block.input_text for index, block in enumerate(message.content) if not block.complete}
    state = {"type": "snapshot", "message": message.to_dict(), "inputs": {k: v for k, v in inputs.items() if v}}
    return f"id: {id}\n{frame(compact(state), 'snapshot')}".encode() + b"".join(frames[count:])


# --- Answers in place of frames --------------------------------------------------------------------------------------


class Answer(Exception):  # noqa: N818 - a way out, not a failure
    """An answer to give instead of going on: an error in the Messages API's form. `field` names what was wrong with it."""

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.type = status, type
        error = {"type": type, "message": message} | ({"field": field} if field else {})
        self.body = json.dumps({"type": "error", "error": error}).encode()
        self.headers = tuple((headers or {}).items())


class InvalidRequest(Answer):
    """What the browser sent cannot be used. `field` names the part that is wrong, `status` is 400, 413 or 415."""

    def __init__(self, field: str, message: str, status: int = 400) -> None:
        kind = "request_too_large" if status == 413 else "invalid_request_error"
        super().__init__(status, kind, f"{field}: {message}", field=field)


# --- Models --------------------------------------------------------------------------------------------------------


def model_info(name: str) -> dict[str, Any]:
    """A model, as the API lists it. `created_at` "may be set to an epoch value if the release date is unknown"."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
    }


def list_models(models: Sequence[str], query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The page of the list that `limit`, `after_id` and `before_id` ask for. Raises `InvalidRequest`."""
    asked = {name: values[0] for name, values in query.items()}
    limit = asked.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= 1000):
        raise InvalidRequest("limit", "must be a whole number from 1 to 1000")
    for name in ("after_id", "before_id"):
        if name in asked and asked[name] not in models:
            raise InvalidRequest(name, "is not in the list")
    first = models.index(asked["after_id"]) + 1 if "after_id" in asked else 0
    last = models.index(asked["before_id"]) if "before_id" in asked else len(models)
    found = models[first:last]
    page = found[-int(limit) :] if "before_id" in asked else found[: int(limit)]
    ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
    return {"data": [model_info(name) for name in page], "has_more": len(found) > len(page), **ends}


# --- Requests ------------------------------------------------------------------------------------------------------

ROLES = ("user", "assistant", "system")


def read_chat(body: Mapping[str, Any], *, max_prompt_chars: int) -> dict[str, Any]:
    """The request of the text and events dialects, as a request of the Messages API without `model` and `max_tokens` filled
    in. `message` or `prompt` is a text, or `messages` a conversation. Raises `InvalidRequest`.
    """
    name = next((name for name in ("message", "prompt", "messages") if body.get(name) is not None), None)
    if name is None:
        raise InvalidRequest("message", "is missing (a text; or messages, a list)")
    if name == "messages":
        messages = _read_conversation(body["messages"], max_prompt_chars)
    else:
        messages = [{"role": "user", "content": read_text(name, body[name], max_prompt_chars)}]
    return {"messages": messages, **read_options(body, max_prompt_chars=max_prompt_chars)}


def read_options(body: Mapping[str, Any], *, max_prompt_chars: int) -> dict[str, Any]:
    """What a browser may choose beside its messages: `system`, `model`, `max_tokens`. Raises `InvalidRequest`."""
    options: dict[str, Any] = {}
    for name in ("system", "model"):
        if body.get(name) is not None:
            options[name] = read_text(name, body[name], max_prompt_chars)
    if body.get("max_tokens") is not None:
        options["max_tokens"] = _read_count("max_tokens", body["max_tokens"], 1)
    return options


def read_messages(body: Mapping[str, Any], *, max_prompt_chars: int) -> dict[str, Any]:
    """The request of `/v1/messages`: passed on as it is, once the parts that every request has are of the right type."""
    is_kept = "thread" in body  # a conversation that the API keeps may go on without a word
    _read_conversation(body.get("messages"), max_prompt_chars, may_be_empty=is_kept, is_judged=True)
    if "model" in body:
        read_text("model", body["model"], max_prompt_chars)
    if "max_tokens" in body:
        _read_count("max_tokens", body["max_tokens"], 0)  # 0 warms the prompt cache
    read_flag(body, "stream")
    return dict(body)


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false; false if it is missing. Raises `InvalidRequest`."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(name, "must be true or false")
    return value


def _read_conversation(
    messages: object, max_prompt_chars: int, *, may_be_empty: bool = False, is_judged: bool = False
) -> list[dict[str, Any]]:
    """The messages. `is_judged`: what the blocks in them are is left to the API."""
    if not isinstance(messages, list):
        raise InvalidRequest("messages", "must be a list")
    if not messages and not may_be_empty:
        raise InvalidRequest("messages", "is empty")
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        _check_message(where, message, max_prompt_chars)
        content = message.get("content")
        has_blocks = isinstance(content, list) and content and all(isinstance(block, dict) for block in content)
        if not (has_blocks or (is_judged and isinstance(content, list))):
            read_text(f"{where}.content", content, max_prompt_chars)
    return messages


def _check_message(where: str, message: object, max_prompt_chars: int) -> None:
    """Its role, and how long its texts are; the rest is the API's to judge."""
    if not isinstance(message, dict):
        raise InvalidRequest(where, "must be an object with role and content")
    if message.get("role") not in ROLES:
        raise InvalidRequest(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    content = message.get("content")
    for block in content if isinstance(content, list) else [{"text": content}]:
        text = block.get("text") if isinstance(block, dict) else None
        if isinstance(text, str) and len(text) > max_prompt_chars:
            raise _too_long(f"{where}.content", max_prompt_chars)


def read_text(name: str, value: object, max_chars: int) -> str:
    """`value`, if it is a text with something in it. Raises `InvalidRequest`."""
    if value is None:
        raise InvalidRequest(name, "is missing")
    if not isinstance(value, str):
        raise InvalidRequest(name, "must be a string")
    if not value.strip():
        raise InvalidRequest(name, "is empty")
    if len(value) > max_chars:
        raise _too_long(name, max_chars)
    return value


def _too_long(name: str, max_chars: int) -> InvalidRequest:
    return InvalidRequest(name, f"is longer than {max_chars} characters", 413)


def _read_count(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidRequest(name, f"must be a whole number, at least {least}")
    return value
