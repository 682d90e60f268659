"""The reply in a recording: the message that it adds up to, and the same recording with another id for it.

This file knows where a reply stands in the body of a response, as events or as one JSON object. It refuses to know what a
reply is wanted for.

    reply = reply_in(Recording.load("fixtures/plain.sse.jsonl"))        # what the API would have answered without `stream`
    reply["id"], reply["content"]
    again = with_reply_id(recording, "msg_2")                           # times and boundaries stay
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate
from typing import Any

from rawsse.errors import APIError
from rawsse.messages import MessageBuilder
from rawsse.messages.lens import parse_json
from rawsse.replay.recording import Read, Recording
from rawsse.sse import Decoder


def is_event_stream(recording: Recording) -> bool:
    """Whether the response says that it is server-sent events."""
    headers = {name.lower(): value for name, value in recording.headers.items()}
    return headers.get("content-type", "").startswith("text/event-stream")


def reply_in(recording: Recording) -> dict[str, Any] | None:
    """The whole message that was answered, as JSON; None if there was none: an error, a cut stream, something else."""
    if recording.status != 200:
        return None
    return _folded(recording.body) if is_event_stream(recording) else _parsed(recording.body)


def _folded(body: bytes) -> dict[str, Any] | None:
    builder = MessageBuilder(strict=False)
    try:
        for event in Decoder().feed(body):
            builder.feed(event)
    except APIError:
        return None
    return builder.message.raw if builder.message is not None and builder.is_complete else None


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("type") == "message" else None


def with_reply_id(recording: Recording, new: str) -> Recording:
    """The recording with another id for its reply. The id stands in one place: the first text that is that id.

    A boundary between two reads that was inside the id stays inside it, as far as the new one reaches.
    """
    reply = reply_in(recording)
    old = _in_json(reply.get("id")) if reply is not None else b""
    body = recording.body
    start = body.find(old) if old else -1
    if start < 0:
        return recording
    written, end = _in_json(new), start + len(old)
    body = body[:start] + written + body[end:]
    reads, before = [], 0
    for read, at in zip(recording.reads, accumulate(len(read.data) for read in recording.reads), strict=True):
        after = at if at <= start else min(at, start + len(written)) if at < end else at + len(written) - len(old)
        reads.append(Read(read.t, body[before:after]))
        before = after
    return replace(recording, reads=tuple(reads))


def _in_json(text: Any) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "replace") if isinstance(text, str) else b""
