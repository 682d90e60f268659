"""What the client of the UI message stream (version 1) demands, as a table and a few rules, written from its protocol.

check(["…data of a frame…", …, "[DONE]"])      # AssertionError naming the chunk and the rule
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["check"]

Chunk = dict[str, Any]

ANY = object
Fields = dict[str, type]

_TOOL: Fields = {
    "providerExecuted": bool,
    "dynamic": bool,
    "title": str,
    "providerMetadata": dict,
    "toolMetadata": dict,
}
_PART: Fields = {"providerMetadata": dict}

# type: (what it must have, what else it may have)
TABLE: dict[str, tuple[Fields, Fields]] = {
    "start": ({}, {"messageId": str, "messageMetadata": ANY}),
    "start-step": ({}, {}),
    "finish-step": ({}, {}),
    "text-start": ({"id": str}, _PART),
    "text-delta": ({"id": str, "delta": str}, _PART),
    "text-end": ({"id": str}, _PART),
    "reasoning-start": ({"id": str}, _PART),
    "reasoning-delta": ({"id": str, "delta": str}, _PART),
    "reasoning-end": ({"id": str}, _PART),
    "source-url": ({"sourceId": str, "url": str}, {"title": str, **_PART}),
    "source-document": ({"sourceId": str, "mediaType": str, "title": str}, {"filename": str, **_PART}),
    "tool-input-start": ({"toolCallId": str, "toolName": str}, _TOOL),
    "tool-input-delta": ({"toolCallId": str, "inputTextDelta": str}, {}),
    "tool-input-available": ({"toolCallId": str, "toolName": str, "input": ANY}, _TOOL),
    "tool-input-error": ({"toolCallId": str, "toolName": str, "input": ANY, "errorText": str}, _TOOL),
    "tool-output-available": ({"toolCallId": str, "output": ANY}, {**_TOOL, "preliminary": bool}),
    "tool-output-error": ({"toolCallId": str, "errorText": str}, _TOOL),
    "message-metadata": ({"messageMetadata": ANY}, {}),
    "finish": ({}, {"finishReason": str, "messageMetadata": ANY}),
    "abort": ({}, {"reason": str}),
    "error": ({"errorText": str}, {}),
}
REASONS = ("stop", "length", "content-filter", "tool-calls", "error", "interrupted", "other")
LAST = ("finish", "error", "abort")


def check(data: Sequence[str]) -> list[Chunk]:
    """The chunks, if they are a whole stream that the client accepts."""
    assert data[-1] == "[DONE]", "the last frame is the end mark"
    chunks = [json.loads(text, parse_constant=_refuse) for text in data[:-1]]
    for chunk in chunks:
        _check_fields(chunk)
    _check_order(chunks)
    return chunks


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _check_fields(chunk: Chunk) -> None:
    if chunk["type"].startswith("data-"):  # the application's own, of any kind
        assert "data" in chunk
        return
    assert chunk["type"] in TABLE, f"an unknown type is fatal: {chunk}"
    required, optional = TABLE[chunk["type"]]
    assert required.keys() <= chunk.keys(), f"a field is missing: {chunk}"
    for name, value in chunk.items():
        wanted = {"type": str, **required, **optional}.get(name)
        assert wanted is not None, f"a field that the table does not have: {name} in {chunk}"
        assert isinstance(value, wanted), f"{name} is no {wanted.__name__}: {chunk}"
    if "finishReason" in chunk:
        assert chunk["finishReason"] in REASONS


def _check_order(chunks: list[Chunk]) -> None:
    opened: dict[str, set[str]] = {"text": set(), "reasoning": set()}
    begun: set[str] = set()
    known: set[str] = set()
    for chunk in chunks:
        part, _, step = chunk["type"].rpartition("-")
        call = chunk.get("toolCallId")
        if part in opened and step == "start":
            opened[part].add(chunk["id"])
        elif part in opened:
            assert chunk["id"] in opened[part], f"without its start it is fatal: {chunk}"
            opened[part] -= {chunk["id"]} if step == "end" else set()
        elif chunk["type"] == "tool-input-start":
            begun.add(chunk["toolCallId"])
        elif chunk["type"] == "tool-input-delta":
            assert call in begun, f"a delta needs its start: {chunk}"
        elif part == "tool-input":
            known.add(chunk["toolCallId"])
        elif part == "tool-output":
            assert call in known, f"an output needs a call that is known: {chunk}"
    ends = [chunk["type"] for chunk in chunks if chunk["type"] in LAST]
    assert len(ends) == 1, f"just one chunk says how it ended: {ends}"
    assert chunks[-1]["type"] == ends[0], "and it is the last"
    if ends[0] == "finish":
        assert opened == {"text": set(), "reasoning": set()}, "what began has ended"
        assert begun == known, "every tool call has its input"
        assert [chunk["type"] for chunk in chunks[:2]] == ["start", "start-step"]
        assert chunks[-2]["type"] == "finish-step"
