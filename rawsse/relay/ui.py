"""The ui dialect: the UI message stream of the Vercel AI SDK, version 1, for its `useChat`.

This file knows that protocol's chunks, and how the Messages API's events and messages map to and from it. It refuses to know
runs, HTTP and the network. The protocol: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

What its client enforces shapes the code: a delta or an end without its start is fatal, so is a chunk of an unknown type, and
so is the output of a tool call that it has not seen. The end of the stream without `finish` counts as success there, so a
failure must be said with an `error` chunk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rawsse.messages.ending import Ending
from rawsse.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageStart,
    StreamEvent,
)
from rawsse.relay.dialects import COMMENT_HEARTBEAT, DONE, Failure, Frame, InvalidRequest

__all__ = ["UIDialect", "is_ui_request", "read_ui"]

Chunk = dict[str, Any]

_FINISH_REASONS: Mapping[str | None, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool-calls",
    "refusal": "content-filter",
}

_TOOL_TYPES = ("tool_use", "server_tool_use", "mcp_tool_use")


class UIDialect:
    """Chunks of the UI message stream. One object serves one run: it remembers which parts are open."""

    name = "ui"
    heartbeat = COMMENT_HEARTBEAT
    is_resumable = True
    headers: tuple[tuple[str, str], ...] = (("x-vercel-ai-ui-message-stream", "v1"),)

    def __init__(self) -> None:
        self._open: dict[int, Chunk] = {}  # by index: the JSON of the content block
        self._inputs: dict[int, list[str]] = {}  # by index: the fragments of a tool's input
        self._tool_names: dict[str, str] = {}  # by tool call id
        self._sources = 0
        self._stop_reason: str | None = None
        self._usage: Chunk = {}

    def event(self, event: StreamEvent) -> list[Frame]:
        return _frames(self._chunks(event))

    def fail(self, failure: Failure) -> list[Frame]:
        return [*_frames([{"type": "error", "errorText": failure.message}]), DONE]

    def end(self, ending: Ending) -> list[Frame]:
        chunks = [chunk for index in list(self._open) for chunk in self._stop(index)]
        reason = _FINISH_REASONS.get(ending.stop_reason, "other")
        chunks += [
            {"type": "finish-step"},
            {"type": "finish", "finishReason": reason, "messageMetadata": {"usage": self._usage}},
        ]
        return [*_frames(chunks), DONE]

    # Events --------------------------------------------------------------------------------------------------------

    def _chunks(self, event: StreamEvent) -> Iterable[Chunk]:
        match event:
            case ContentBlockDelta(raw={"index": index, "delta": delta}):
                return self._delta(index, delta)
            case ContentBlockStart(raw={"index": index, "content_block": block}):
                return self._start(index, block)
            case ContentBlockStop(raw={"index": index}):
                return self._stop(index)
            case MessageStart(raw={"message": message}):
                return self._message_start(message)
            case MessageDelta():
                self._usage.update(event.raw.get("usage") or {})
        return []

    def _message_start(self, message: Chunk) -> list[Chunk]:
        self._usage.update(message.get("usage") or {})
        chunks: list[Chunk] = [{"type": "start", "messageId": message.get("id", "")}, {"type": "start-step"}]
        for index, block in enumerate(message.get("content") or []):
            chunks += [*self._start(index, block), *self._stop(index)]
        return chunks

    def _start(self, index: int, block: Chunk) -> list[Chunk]:
        self._open[index] = block
        match block.get("type"):
            case "text":
                chunks: list[Chunk] = [{"type": "text-start", "id": str(index)}]
                return chunks + self._delta(index, {"type": "text_delta", "text": block.get("text")})
            case "thinking":
                return [{"type": "reasoning-start", "id": str(index)}]
            case "redacted_thinking":
                metadata = {"anthropic": {"redactedData": block.get("data")}}
                return [{"type": "reasoning-start", "id": str(index), "providerMetadata": metadata}]
            case kind if kind in _TOOL_TYPES:
                return self._tool_start(index, block)
            case str(kind) if kind.endswith("_tool_result") and block.get("tool_use_id") in self._tool_names:
                return self._tool_output(block)
        return [_custom(block)]

    def _tool_start(self, index: int, block: Chunk) -> list[Chunk]:
        self._inputs[index] = []
        self._tool_names[str(block.get("id"))] = str(block.get("name"))
        return [{"type": "tool-input-start", **_tool_call(block)}]

    def _tool_output(self, block: Chunk) -> list[Chunk]:
        output = block.get("content")
        call = {"toolCallId": block["tool_use_id"], "providerExecuted": True}
        if isinstance(output, dict) and str(output.get("type")).endswith("_error"):
            return [{"type": "tool-output-error", "errorText": str(output.get("error_code", "failed")), **call}]
        if block.get("is_error"):
            return [{"type": "tool-output-error", "errorText": _compact(output), **call}]
        chunks: list[Chunk] = [{"type": "tool-output-available", "output": output, **call}]
        results = output if isinstance(output, list) else []
        return chunks + [chunk for result in results for chunk in self._source(result)]

    def _delta(self, index: int, delta: Chunk) -> list[Chunk]:
        block = self._open.get(index)
        if block is None:
            return []
        part = {"id": str(index)}
        match delta.get("type"), block.get("type"):
            case "text_delta", "text" if delta.get("text"):
                return [{"type": "text-delta", **part, "delta": delta["text"]}]
            case "thinking_delta", "thinking" if delta.get("thinking"):
                return [{"type": "reasoning-delta", **part, "delta": delta["thinking"]}]
            case "signature_delta", "thinking":
                metadata = {"anthropic": {"signature": delta.get("signature")}}
                return [{"type": "reasoning-delta", **part, "delta": "", "providerMetadata": metadata}]
            case "input_json_delta", _ if index in self._inputs and delta.get("partial_json"):
                self._inputs[index].append(delta["partial_json"])
                call = {"toolCallId": block.get("id")}
                return [{"type": "tool-input-delta", **call, "inputTextDelta": delta["partial_json"]}]
            case "citations_delta", "text":
                return self._source(delta.get("citation") or {})
        return []

    def _stop(self, index: int) -> list[Chunk]:
        block = self._open.pop(index, {})
        match block.get("type"):
            case "text":
                return [{"type": "text-end", "id": str(index)}]
            case "thinking" | "redacted_thinking":
                return [{"type": "reasoning-end", "id": str(index)}]
            case kind if kind in _TOOL_TYPES:
                return [self._tool_input(block, "".join(self._inputs.pop(index, [])))]
        return []

    def _tool_input(self, block: Chunk, text: str) -> Chunk:
        try:
            given = json.loads(text) if text else block.get("input", {})
        except (ValueError, RecursionError):
            reason = "the input was cut, or is no JSON"
            return {"type": "tool-input-error", **_tool_call(block), "input": text, "errorText": reason}
        return {"type": "tool-input-available", **_tool_call(block), "input": given}

    def _source(self, source: Mapping[str, Any]) -> list[Chunk]:
        """A citation or a search result, as a source: one with an address, or one in a document."""
        self._sources += 1
        identity = {"sourceId": f"source-{self._sources}"}
        if isinstance(source.get("url"), str):
            title = {"title": source["title"]} if isinstance(source.get("title"), str) else {}
            return [{"type": "source-url", **identity, "url": source["url"], **title}]
        if isinstance(source.get("document_title"), str):
            title = {"title": source["document_title"]}
            return [{"type": "source-document", **identity, "mediaType": "text/plain", **title}]
        return []


def _tool_call(block: Chunk) -> Chunk:
    call: Chunk = {"toolCallId": block.get("id"), "toolName": block.get("name")}
    if block.get("type") != "tool_use":
        call["providerExecuted"] = True
    if block.get("type") == "mcp_tool_use":
        call["dynamic"] = True
    return call


def _custom(block: Chunk) -> Chunk:
    return {"type": "custom", "kind": f"anthropic.{block.get('type')}", "providerMetadata": {"anthropic": block}}


def _frames(chunks: Iterable[Chunk]) -> list[Frame]:
    return [Frame(_compact(chunk)) for chunk in chunks]


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


# --- Requests ------------------------------------------------------------------------------------------------------


def is_ui_request(body: Mapping[str, Any]) -> bool:
    """A request of `useChat`: its messages have parts, or it names its trigger."""
    messages = body.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else body.get("message")
    return "trigger" in body or (isinstance(first, dict) and "parts" in first)


def read_ui(body: Mapping[str, Any], *, max_prompt_chars: int) -> tuple[str, dict[str, Any]]:
    """(chat id, request of the Messages API) of a request of `useChat`. Raises `InvalidRequest`.

    Parts that the API cannot take back are left out: sources, custom parts, reasoning without its signature, tool calls
    without an output, and tool calls that ran at the provider.
    """
    chat = body.get("id")
    if not isinstance(chat, str) or not chat:
        raise InvalidRequest("id", "must be the chat's id, a string")
    messages = body.get("messages", [body["message"]] if "message" in body else None)
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages", "must be a list of messages, and not empty")
    turns: list[Chunk] = []
    system: list[str] = []
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict) or not isinstance(message.get("parts"), list):
            raise InvalidRequest(where, "must be an object with role and parts")
        _read_turn(where, message, turns, system, max_prompt_chars)
    if not turns or turns[-1]["role"] != "user":
        raise InvalidRequest("messages", "must end with a text, a file or a tool's output for the model to answer")
    request: Chunk = {"messages": turns}
    if system:
        request["system"] = "\n\n".join(system)
    request.update({name: body[name] for name in ("model", "max_tokens", "tools") if body.get(name) is not None})
    return chat, request


def _read_turn(where: str, message: Chunk, turns: list[Chunk], system: list[str], max_prompt_chars: int) -> None:
    role = message.get("role")
    for number, part in enumerate(message["parts"]):
        if isinstance(part, dict) and part.get("type") == "text" and len(str(part.get("text"))) > max_prompt_chars:
            name = f"{where}.parts.{number}.text"
            raise InvalidRequest(name, f"is longer than {max_prompt_chars} characters", 413)
    if role == "system":
        texts = [part for part in message["parts"] if isinstance(part, dict) and part.get("type") == "text"]
        system.extend(str(part.get("text", "")) for part in texts)
    elif role == "user":
        content = [
            block for n, part in enumerate(message["parts"]) if (block := _user_block(f"{where}.parts.{n}", part))
        ]
        _add(turns, "user", content)
    elif role == "assistant":
        _add_assistant(turns, message["parts"])
    else:
        raise InvalidRequest(f"{where}.role", "must be one of user, assistant, system")


def _add(turns: list[Chunk], role: str, content: list[Chunk]) -> None:
    if content and turns and turns[-1]["role"] == role:
        turns[-1]["content"].extend(content)
    elif content:
        turns.append({"role": role, "content": content})


def _user_block(where: str, part: object) -> Chunk | None:
    if not isinstance(part, dict):
        raise InvalidRequest(where, "must be an object with a type")
    if part.get("type") == "text":
        return {"type": "text", "text": str(part.get("text", ""))} if str(part.get("text", "")).strip() else None
    return _file_block(where, part) if part.get("type") == "file" else None


def _file_block(where: str, part: Chunk) -> Chunk:
    media, url = str(part.get("mediaType", "")), str(part.get("url", ""))
    kind = "image" if media.startswith("image/") else "document"
    if kind == "document" and media != "application/pdf":
        raise InvalidRequest(f"{where}.mediaType", "must be image/… or application/pdf")
    if url.startswith(("https://", "http://")):
        return {"type": kind, "source": {"type": "url", "url": url}}
    head, comma, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise InvalidRequest(f"{where}.url", "must be an http(s) or a base64 data URL")
    return {"type": kind, "source": {"type": "base64", "media_type": media, "data": data}}


def _add_assistant(turns: list[Chunk], parts: list[Any]) -> None:
    """The assistant's parts, with the outputs of its tool calls as the user turns that they are at the API."""
    for part in parts:
        if not isinstance(part, dict):
            continue
        block = _assistant_block(part)
        if block is None:
            continue
        _add(turns, "assistant", [block])
        if block["type"] == "tool_use":
            _add_result(turns, part)


def _add_result(turns: list[Chunk], part: Chunk) -> None:
    failed = part.get("state") == "output-error"
    output = part.get("errorText") if failed else part.get("output")
    result: Chunk = {
        "type": "tool_result",
        "tool_use_id": part["toolCallId"],
        "content": output if isinstance(output, str) else _compact(output),
    }
    _add(turns, "user", [{**result, "is_error": True} if failed else result])


def _assistant_block(part: Chunk) -> Chunk | None:
    kind = str(part.get("type"))
    metadata = part.get("providerMetadata")
    ours = metadata.get("anthropic") if isinstance(metadata, dict) else None
    ours = ours if isinstance(ours, dict) else {}
    if kind == "text":
        return {"type": "text", "text": part["text"]} if part.get("text") else None
    if kind == "reasoning" and ours.get("redactedData"):
        return {"type": "redacted_thinking", "data": ours["redactedData"]}
    if kind == "reasoning" and ours.get("signature"):
        return {"type": "thinking", "thinking": part.get("text", ""), "signature": ours["signature"]}
    is_call = kind.startswith("tool-") or kind == "dynamic-tool"
    has_output = part.get("state") in ("output-available", "output-error") and not part.get("providerExecuted")
    if is_call and has_output and part.get("toolCallId"):
        name = part.get("toolName") or kind.removeprefix("tool-")
        return {"type": "tool_use", "id": part["toolCallId"], "name": name, "input": part.get("input") or {}}
    return None
