"""An answer that is no stream: one JSON object, as the API gives a message without `stream`, a count, a list, an error.

This file knows what such an answer is, and what it must have. It refuses to know streams (`check.py`), and how it is shown.

    answer = JSONAnswer.of(recording)       # None for a stream
    answer.kind, answer.value               # "message", {"id": "msg_1", …}
    for breach in breaches(answer): ...     # message-usage, "the message has no usage with output_tokens", "error"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rawsse.errors import quote
from rawsse.messages.content import KNOWN_BLOCK_TYPES
from rawsse.messages.lens import parse_json
from rawsse.replay.recording import Recording

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
MESSAGE_FIELDS: Mapping[str, type] = {
    "id": str,
    "type": str,
    "role": str,
    "model": str,
    "content": list,
    "usage": dict,
}


class Breach(NamedTuple):
    """A rule, by its name in `check.RULES`, that is not kept; `text` says how."""

    rule: str
    text: str
    severity: Literal["error", "warning", "note"] = "error"


def is_json(content_type: str) -> bool:
    """Whether the content type says JSON: RFC 8259, or one that is made of it (RFC 6839, 3.1)."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


@dataclass(frozen=True, slots=True)
class JSONAnswer:
    """The body of an answer whose content type is JSON. `value` is None if it is no JSON object."""

    status: int
    value: dict[str, Any] | None

    @classmethod
    def of(cls, recording: Recording) -> JSONAnswer | None:
        """The answer in a recording; None if it says that it is something else."""
        kind = next((value for name, value in recording.headers.items() if name.lower() == "content-type"), "")
        return cls.read(recording.status, recording.body) if is_json(kind) else None

    @classmethod
    def read(cls, status: int, body: bytes) -> JSONAnswer:
        """What a body holds. Never raises."""
        try:
            value = parse_json(body)
        except (ValueError, RecursionError):
            value = None
        return cls(status, value if isinstance(value, dict) else None)

    @property
    def kind(self) -> str:
        """What it is: `message`, `error`, `token count`, `list`, or the type that it names; `nothing` if it is no object."""
        value = self.value
        if value is None:
            return "nothing"
        if isinstance(value.get("type"), str):
            return str(value["type"])
        if "input_tokens" in value:
            return "token count"
        return "list" if isinstance(value.get("data"), list) else "object"

    @property
    def verdict(self) -> str:
        """What it is, in a few words."""
        value = self.value or {}
        match self.kind:
            case "nothing":
                return "truncated, or no JSON object"
            case "error":
                error = value.get("error")
                named = f"{error.get('type')}: {error.get('message')}" if isinstance(error, dict) else "without 'error'"
                return f"HTTP status {self.status}, {named}"
            case "token count":
                return f"a token count: {value['input_tokens']}"
            case "list":
                return f"a list of {len(value['data'])}"
            case "message":
                return "complete, a message that was not streamed"
        return f"a JSON object, {self.kind}"


def breaches(answer: JSONAnswer) -> Iterator[Breach]:
    """Everything that is wrong, or worth knowing, about an answer."""
    if answer.value is None:
        yield Breach("json-object", "the body is no JSON object")
    elif answer.kind == "error":
        yield from _of_error(answer)
    elif answer.status == 200 and answer.kind == "message":
        yield from _of_message(answer.value)
    elif answer.status == 200 and answer.kind == "token count" and type(answer.value["input_tokens"]) is not int:
        yield Breach("json-fields", "input_tokens is no whole number")
    elif answer.status == 200 and answer.kind == "object":
        yield Breach("json-fields", "this is no answer that the API is known to give", "note")


def _of_error(answer: JSONAnswer) -> Iterator[Breach]:
    error = answer.value.get("error") if answer.value else None
    if answer.status == 200:
        yield Breach("http-status", "an error, and the status is 200: it is read as an answer")
    if not isinstance(error, dict) or not all(isinstance(error.get(name), str) for name in ("type", "message")):
        yield Breach("json-fields", "an error without type or message", "warning")


def _of_message(message: dict[str, Any]) -> Iterator[Breach]:
    for name, wanted in MESSAGE_FIELDS.items():
        if not isinstance(message.get(name), wanted):
            yield Breach("message-fields", f"the message has no {name!r}")
    usage, reason = message.get("usage"), message.get("stop_reason")
    if not isinstance(usage, dict) or type(usage.get("output_tokens")) is not int:
        yield Breach("message-usage", "the message has no usage with output_tokens")
    if reason is None:
        yield Breach("message-fields", "the message has no stop reason: it is not whole", "warning")
    else:
        yield from _of_name("the stop reason", reason, STOP_REASONS)
    content = message.get("content")
    calls: set[str] = set()
    for index, block in enumerate(content if isinstance(content, list) else []):
        if isinstance(block, dict):
            yield from _of_block(index, block, calls)
        else:
            yield Breach("message-fields", f"block {index} is no object")


def _of_block(index: int, block: dict[str, Any], calls: set[str]) -> Iterator[Breach]:
    yield from _of_name("a block of type", block.get("type"), KNOWN_BLOCK_TYPES)
    calls.add(str(block.get("id")))
    if "tool_use_id" in block and (named := str(block["tool_use_id"])) not in calls:
        yield Breach("block-result", f"a result for {quote(named)}, which was not called", "warning")
    if "input" in block and not isinstance(block["input"], dict):
        yield Breach("block-input", f"the input of block {index} is no JSON object: {quote(repr(block['input']))}")
    if block.get("type") == "thinking" and not block.get("signature"):
        yield Breach("block-signature", f"the thinking of block {index} has no signature", "warning")


def _of_name(what: str, value: Any, known: frozenset[str]) -> Iterator[Breach]:
    """New names may come at any time; what is no name at all breaks readers."""
    if not isinstance(value, str):
        yield Breach("message-fields", f"{what} {quote(repr(value))}, which is no string")
    elif value not in known:
        yield Breach("event-unknown", f"{what} {quote(value)}", "note")
