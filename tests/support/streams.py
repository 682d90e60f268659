"""Events of the Messages API as JSON objects, written by hand, and the ways they travel: one server-sent event, or bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rawsse.messages import MessageBuilder, MessageStreamEvent
from rawsse.sse import Event

__all__ = [
    "ANSWER",
    "PING",
    "STOP",
    "TOOL_CALL",
    "Raw",
    "block",
    "block_start",
    "block_stop",
    "delta",
    "end",
    "expanded",
    "fold",
    "input_delta",
    "start",
    "text_delta",
    "to_bytes",
    "to_sse",
    "tool_block",
]

Raw = dict[str, Any]

PING: Raw = {"type": "ping"}
STOP: Raw = {"type": "message_stop"}


def start(**fields: Any) -> Raw:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5", "content": []}
    rest = {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
    return {"type": "message_start", "message": {**message, **rest, **fields}}


def block_start(index: int, raw: Raw) -> Raw:
    return {"type": "content_block_start", "index": index, "content_block": raw}


def tool_block(**fields: Any) -> Raw:
    return {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}, **fields}


def delta(index: int, kind: str, **fields: Any) -> Raw:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def text_delta(index: int, text: str) -> Raw:
    return delta(index, "text_delta", text=text)


def input_delta(index: int, text: str) -> Raw:
    return delta(index, "input_json_delta", partial_json=text)


def block_stop(index: int) -> Raw:
    return {"type": "content_block_stop", "index": index}


def block(index: int, raw: Raw, *deltas: Raw) -> list[Raw]:
    """All events of one block."""
    return [block_start(index, raw), *deltas, block_stop(index)]


def end(reason: str | None = "end_turn", **usage: Any) -> Raw:
    fields = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": fields, "usage": {"output_tokens": 7, **usage}}


ANSWER: list[Raw] = [
    start(),
    *block(0, {"type": "text", "text": ""}, PING, text_delta(0, "Hel"), text_delta(0, "lo ☺")),
    end(),
    STOP,
]
"""A whole answer that says "Hello ☺"."""

TOOL_CALL: list[Raw] = [
    start(),
    *block(0, {"type": "text", "text": ""}, text_delta(0, "Let me see.")),
    *block(1, tool_block(), input_delta(1, ""), input_delta(1, '{"city": "Os'), input_delta(1, 'lo", "days": 3}')),
    end("tool_use"),
    STOP,
]
"""A whole answer that calls the tool "weather" with {"city": "Oslo", "days": 3}."""


def to_sse(raw: Raw) -> Event:
    return Event(raw["type"], json.dumps(raw))


def to_bytes(raws: Iterable[Raw]) -> bytes:
    """The events as the API writes them: UTF-8 that is not escaped."""
    frames = (f"event: {raw['type']}\ndata: {json.dumps(raw, ensure_ascii=False)}\n\n" for raw in raws)
    return "".join(frames).encode()


def fold(raws: Iterable[Raw], **options: Any) -> MessageBuilder:
    builder = MessageBuilder(**options)
    for raw in raws:
        builder.feed(to_sse(raw))
    return builder


def expanded(raws: Iterable[Raw], **options: Any) -> list[MessageStreamEvent]:
    """The events as a `MessageStream` hands them on."""
    builder = MessageBuilder(**options)
    events: list[MessageStreamEvent] = []
    for raw in raws:
        event = builder.feed(to_sse(raw))
        if event is not None:
            events += builder.expand(event)
    return events
