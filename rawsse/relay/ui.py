"""The ui dialect: the UI message stream of the Vercel AI SDK, version 1, for its `useChat`.

This file knows that protocol's chunks, and how the Messages API's events and messages map to and from it. It refuses to know
runs, HTTP and the network. The protocol: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

What its client enforces shapes the code: a delta or an end without its start is fatal, so is a chunk of an unknown type, and
so is the output of a tool call that it has not seen. The end of the stream without `finish` counts as success there, so a
failure must be said with an `error` chunk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rawsse.errors import Ending
from rawsse.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageStart,
    StreamEvent,
)
from rawsse.messages.lens import object_at, parse_json
from rawsse.relay.dialects import (
    DONE,
    Dialect,
    Failure,
    Frame,
    InvalidRequest,
    compact,
    frame,
    read_options,
    read_text,
)

MAX_CHAT_ID_CHARS = 256
"""A chat's id. Those that `useChat` makes have 16; they come back in a URL, and are kept as long as their run."""

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


class UIDialect(Dialect):
    """Chunks of the UI message stream. One object serves one run: it remembers which parts are open."""

    name = "ui"
    keeps_status = False  # its client would show the body of a refusal, frames and all, as the error
    headers = (("x-vercel-ai-ui-message-stream", "v1"),)
    delta = re.compile(rb'data: \{"type":"(?:text|reasoning)-delta","id":"[^"]*","delta":"')

    def __init__(self) -> None:
        self._open: dict[int, Chunk] = {}  # by index: the JSON of the content block
        self._inputs: dict[int, list[str]] = {}  # by index: the fragments of a tool's input
        self._calls: dict[str, Chunk] = {}  # by tool call id: the fields that its other chunks share
        self._sources = 0
        self._usage: Chunk = {}

    def event(self, event: StreamEvent) -> list[Frame]:
        return _frames(self._chunks(event))

    def fail(self, failure: Failure) -> list[Frame]:
        if failure.type == "cancelled":  # somebody stopped it, which is no error; what has come stays
            return [*_frames([{"type": "abort", "reason": failure.message}]), DONE]
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
                return self._delta(self._find(index), delta)
            case ContentBlockStart(raw={"index": index, "content_block": block}):
                return [*self._stop_unstopped(index, block), *self._start(index, block)]
            case ContentBlockStop(raw={"index": index}):
                return self._stop(self._find(index))
            case MessageStart(raw={"message": message}):
                return self._message_start(message)
            case MessageDelta():
                self._usage.update(object_at(event.raw, "usage"))
        return []

    def _find(self, index: int) -> int:
        """The index of the block that is meant. Some gateways count wrong; then it is the one that began last."""
        return index if index in self._open else next(reversed(self._open), index)

    def _stop_unstopped(self, index: int, block: Chunk) -> list[Chunk]:
        """The end of blocks whose own end was lost, and must have come: one of the same index; the call of a result."""
        call = block.get("tool_use_id")
        lost = [at for at, other in self._open.items() if at == index or other.get("id", self) == call]
        return [chunk for at in lost for chunk in self._stop(at)]

    def _message_start(self, message: Chunk) -> list[Chunk]:
        self._usage.update(object_at(message, "usage"))
        chunks: list[Chunk] = [{"type": "start", "messageId": _string(message, "id")}, {"type": "start-step"}]
        content = message.get("content")
        blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        for index, block in enumerate(blocks):
            chunks += [*self._start(index, block), *self._stop(index)]
        return chunks

    def _start(self, index: int, block: Chunk) -> list[Chunk]:
        self._open[index] = block
        match block.get("type"):
            case "text":
                return [{"type": "text-start", "id": str(index)}, *self._delta(index, {**block, "type": "text_delta"})]
            case "thinking":
                begun: list[Chunk] = [{"type": "reasoning-start", "id": str(index)}]
                begun += self._delta(index, {**block, "type": "thinking_delta"})
                return begun + (
                    self._delta(index, {**block, "type": "signature_delta"}) if block.get("signature") else []
                )
            case "redacted_thinking":
                metadata = {"anthropic": {"redactedData": block.get("data")}}
                return [{"type": "reasoning-start", "id": str(index), "providerMetadata": metadata}]
            case kind if kind in _TOOL_TYPES:
                return self._tool_start(index, block)
            case str(kind) if kind.endswith("_tool_result") and str(block.get("tool_use_id")) in self._calls:
                return self._tool_output(block)
        return [_data(block)]

    def _tool_start(self, index: int, block: Chunk) -> list[Chunk]:
        self._inputs[index] = []
        self._calls[str(block.get("id"))] = _traits(block)
        return [{"type": "tool-input-start", **_tool_call(block)}]

    def _tool_output(self, block: Chunk) -> list[Chunk]:
        output, id = block.get("content"), str(block["tool_use_id"])
        call = {"toolCallId": id, **self._calls[id]}
        if isinstance(output, dict) and str(output.get("type")).endswith("_error"):
            return [{"type": "tool-output-error", "errorText": str(output.get("error_code", "failed")), **call}]
        if block.get("is_error"):
            return [{"type": "tool-output-error", "errorText": compact(output), **call}]
        chunks: list[Chunk] = [{"type": "tool-output-available", "output": output, **call}]
        results = output if isinstance(output, list) else [output]
        return chunks + [chunk for result in results if isinstance(result, dict) for chunk in self._source(result)]

    def _delta(self, index: int, delta: Chunk) -> list[Chunk]:
        block = self._open.get(index)
        if block is None:
            return []
        part = {"id": str(index)}
        match delta.get("type"), block.get("type"):
            case "text_delta", "text" if text := _string(delta, "text"):
                return [{"type": "text-delta", **part, "delta": text}]
            case "thinking_delta", "thinking" if thinking := _string(delta, "thinking"):
                return [{"type": "reasoning-delta", **part, "delta": thinking}]
            case "signature_delta", "thinking":
                metadata = {"anthropic": {"signature": delta.get("signature")}}
                return [{"type": "reasoning-delta", **part, "delta": "", "providerMetadata": metadata}]
            case "input_json_delta", _ if index in self._inputs and (fragment := _string(delta, "partial_json")):
                self._inputs[index].append(fragment)
                call = {"toolCallId": str(block.get("id"))}
                return [{"type": "tool-input-delta", **call, "inputTextDelta": fragment}]
            case "citations_delta", "text":
                return self._source(object_at(delta, "citation"))
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
            given = parse_json(text) if text else block.get("input", {})
        except (ValueError, RecursionError):
            reason = "the input was cut, or is no JSON"
            return {"type": "tool-input-error", **_tool_call(block), "input": text, "errorText": reason}
        return {"type": "tool-input-available", **_tool_call(block), "input": given}

    def _source(self, source: Mapping[str, Any]) -> list[Chunk]:
        """A citation or a search result, as a source: one with an address, or one in a document. Others give none."""
        address = source.get("url") or source.get("source")
        title = source.get("document_title") or source.get("title")
        named = {"title": title} if isinstance(title, str) else {}
        if isinstance(address, str) and address.startswith(("https://", "http://")):
            return [{"type": "source-url", "sourceId": self._source_id(), "url": address, **named}]
        if named or "document_index" in source:
            media = "application/pdf" if source.get("type") == "page_location" else "text/plain"
            untitled = {"title": f"document {source.get('document_index')}"}
            return [
                {"type": "source-document", "sourceId": self._source_id(), "mediaType": media, **(named or untitled)}
            ]
        return []

    def _source_id(self) -> str:
        self._sources += 1
        return f"source-{self._sources}"


def _tool_call(block: Chunk) -> Chunk:
    return {"toolCallId": str(block.get("id")), "toolName": str(block.get("name")), **_traits(block)}


def _traits(block: Chunk) -> Chunk:
    """What all chunks of a tool call say of it: that it runs at the provider, and that nobody could know its tool."""
    match block.get("type"):
        case "tool_use":
            return {}
        case "mcp_tool_use":
            return {"providerExecuted": True, "dynamic": True}
    return {"providerExecuted": True}


def _string(raw: Mapping[str, Any], name: str) -> str:
    """The string in a field; "" for any other value, which would end the chat: the client checks each chunk's types."""
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _data(block: Chunk) -> Chunk:
    # Of types that it does not know, the client takes those that begin with `data-`; any other ends the whole chat.
    return {"type": f"data-anthropic-{block.get('type')}", "data": block}


def _frames(chunks: Iterable[Chunk]) -> list[Frame]:
    return [frame(compact(chunk)) for chunk in chunks]


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
    if not isinstance(chat, str) or not 0 < len(chat) <= MAX_CHAT_ID_CHARS:
        raise InvalidRequest("id", f"must be the chat's id, a string of 1 to {MAX_CHAT_ID_CHARS} characters")
    messages = body.get("messages", [body["message"]] if "message" in body else None)
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages", "must be a list of messages, and not empty")
    conversation = _Conversation(max_prompt_chars)
    for index, message in enumerate(messages):
        conversation.read(f"messages.{index}", message)
    turns, system = conversation.turns, conversation.system
    if not turns or turns[-1]["role"] != "user":
        raise InvalidRequest("messages", "must end with a text, a file or a tool's output for the model to answer")
    request: Chunk = {"messages": turns, **read_options(body, max_prompt_chars=max_prompt_chars)}
    if system:
        request["system"] = "\n\n".join([request["system"], *system] if "system" in request else system)
    if body.get("tools") is not None:
        request["tools"] = _read_list("tools", body["tools"])
    return chat, request


def _read_list(name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidRequest(name, "must be a list")
    return value


class _Conversation:
    """The turns of the Messages API that UI messages mean, and their system prompts."""

    def __init__(self, max_prompt_chars: int) -> None:
        self.turns: list[Chunk] = []
        self.system: list[str] = []
        self._max_prompt_chars = max_prompt_chars

    def read(self, where: str, message: object) -> None:
        """Add one message. Raises `InvalidRequest`."""
        if not isinstance(message, dict) or not isinstance(message.get("parts"), list):
            raise InvalidRequest(where, "must be an object with role and parts")
        parts = message["parts"]
        for number, part in enumerate(parts):
            self._check(f"{where}.parts.{number}", part)
        match message.get("role"):
            case "system":
                self.system += [part["text"] for part in parts if _has_text(part)]
            case "user":
                self._add_user(where, parts)
            case "assistant":
                self._add_assistant(parts)
            case _:
                raise InvalidRequest(f"{where}.role", "must be one of user, assistant, system")

    def _check(self, where: str, part: object) -> None:
        if not isinstance(part, dict):
            raise InvalidRequest(where, "must be an object with a type")
        if _has_text(part):
            read_text(f"{where}.text", part["text"], self._max_prompt_chars)

    def _add(self, role: str, content: list[Chunk]) -> None:
        if content and self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"].extend(content)
        elif content:
            self.turns.append({"role": role, "content": content})

    def _add_user(self, where: str, parts: list[Chunk]) -> None:
        blocks = [_user_block(f"{where}.parts.{number}", part) for number, part in enumerate(parts)]
        self._add("user", [block for block in blocks if block])

    def _add_assistant(self, parts: list[Chunk]) -> None:
        """The assistant's parts, with the outputs of its tool calls as the user turns that they are at the API.

        The calls of one answer stay together, and so do their outputs after them: the API wants an answer back as it was.
        """
        results: list[Chunk] = []
        for part in parts:
            block = _assistant_block(part)
            is_call = block is not None and block["type"] == "tool_use"
            if part.get("type") == "step-start" or (block is not None and not is_call):
                self._add("user", results)
                results = []
            if block is not None:
                self._add("assistant", [block])
            if is_call:
                results.append(_tool_result(part))
        self._add("user", results)


def _has_text(part: Chunk) -> bool:
    """Blank ones are left out: a step may have had nothing to say, and the API refuses them."""
    return part.get("type") == "text" and bool(str(part.get("text", "")).strip())


def _user_block(where: str, part: Chunk) -> Chunk | None:
    if _has_text(part):
        return {"type": "text", "text": part["text"]}
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


def _assistant_block(part: Chunk) -> Chunk | None:
    kind = str(part.get("type"))
    if _has_text(part):
        return {"type": "text", "text": part["text"]}
    if kind == "reasoning":
        return _thinking_block(part)
    is_call = kind.startswith("tool-") or kind == "dynamic-tool"
    has_output = part.get("state") in ("output-available", "output-error") and not part.get("providerExecuted")
    if is_call and has_output and part.get("toolCallId"):
        name = part.get("toolName") or kind.removeprefix("tool-")
        return {"type": "tool_use", "id": part["toolCallId"], "name": name, "input": part.get("input") or {}}
    return None


def _thinking_block(part: Chunk) -> Chunk | None:
    """Thinking goes back only as the API can verify it: with its signature, or redacted."""
    ours = object_at(object_at(part, "providerMetadata"), "anthropic")
    if ours.get("redactedData"):
        return {"type": "redacted_thinking", "data": ours["redactedData"]}
    if ours.get("signature"):
        return {"type": "thinking", "thinking": part.get("text", ""), "signature": ours["signature"]}
    return None


def _tool_result(part: Chunk) -> Chunk:
    failed = part.get("state") == "output-error"
    output = part.get("errorText") if failed else part.get("output")
    content = output if isinstance(output, str) else compact(output)
    result: Chunk = {"type": "tool_result", "tool_use_id": part["toolCallId"], "content": content}
    return {**result, "is_error": True} if failed else result
