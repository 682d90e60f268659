"""The ui dialect: the UI message stream of the Vercel AI SDK, version 1, for its `useChat`. Then the table of all dialects.

It maps the Messages API's events to the protocol's chunks, and `useChat`'s messages to the API's. The protocol:
https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

Its client is strict: a delta or an end without its start is fatal, and so are a chunk of an unknown type and the output of an
unknown tool call. It takes the end of the stream without `finish` for success, so a failure must be sent as an `error` chunk.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from rawsse.errors import Ending
from rawsse.messages.events import ContentBlockDelta, ContentBlockStart, ContentBlockStop, MessageDelta, MessageStart
from rawsse.messages.lens import object_at, parse_json
from rawsse.relay.dialects import (
    DONE,
    Asked,
    Dialect,
    Failure,
    Frame,
    InvalidRequest,
    compact,
    read_options,
    read_text,
)

MAX_CHAT_ID_CHARS = 256
"""The longest chat id. `useChat` makes ids of 16; they are used in a URL, and kept as long as their run."""

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
    """Chunks of the UI message stream. One object serves one run: it remembers which parts are open.

    `message_id` is the client's name for the answer. It is not the API's, which a played recording repeats: the client replaces
    a message with the same id. Without one the client keeps the id of the message that the answer goes on with.
    """

    name = "ui"
    keeps_status = False  # its client would show the whole body of an error response, frames included
    headers = (("x-vercel-ai-ui-message-stream", "v1"),)
    delta = re.compile(rb'data: \{"type":"(?:text|reasoning)-delta","id":"[^"]*","delta":"')

    def __init__(self, message_id: str = "") -> None:
        self._start_chunk: Chunk = {"type": "start", **({"messageId": message_id} if message_id else {})}
        self._open: dict[int, Chunk] = {}  # by index: the JSON of the content block
        self._inputs: dict[int, list[str]] = {}  # by index: the fragments of a tool's input
        self._calls: dict[str, Chunk] = {}  # by tool call id: the fields that its other chunks share
        self._sources = 0
        self._usage: Chunk = {}

    @classmethod
    def can_read(cls, body: Mapping[str, Any]) -> bool:
        """Whether it is a request of `useChat`: its messages have parts, or it has a trigger."""
        messages = body.get("messages")
        first = messages[0] if isinstance(messages, list) and messages else body.get("message")
        return "trigger" in body or (isinstance(first, dict) and "parts" in first)

    @classmethod
    def read(cls, body: Mapping[str, Any], max_prompt_chars: int) -> Asked:
        """See `Dialect.read`."""
        chat, request = read_ui(body, max_prompt_chars=max_prompt_chars)
        last = body["messages"][-1] if "messages" in body else body["message"]
        is_new = last["role"] != "assistant"  # else the outputs of its tools are sent, and the answer goes on
        return Asked(cls(secrets.token_urlsafe(12) if is_new else ""), request, alias=chat)

    def event(self, event: Any) -> list[Frame]:
        return _frames(self._chunks(event))

    def fail(self, failure: Failure) -> list[Frame]:
        if failure.type == "cancelled":  # a stopped answer is not an error: the client keeps the received part
            return [*_frames([{"type": "abort", "reason": failure.message}]), DONE]
        return [*_frames([{"type": "error", "errorText": failure.message}]), DONE]

    def end(self, ending: Ending) -> list[Frame]:
        chunks = [chunk for index in list(self._open) for chunk in self._stop(index)]
        reason = _FINISH_REASONS.get(ending.stop_reason, "other")
        metadata = {"usage": self._usage, "stopReason": ending.stop_reason}
        finish: Chunk = {"type": "finish", "finishReason": reason, "messageMetadata": metadata}
        return [*_frames([*chunks, {"type": "finish-step"}, finish]), DONE]

    # Events --------------------------------------------------------------------------------------------------------

    def _chunks(self, event: Any) -> Iterable[Chunk]:
        if type(event) is ContentBlockDelta:  # nearly all events
            return self._delta(self._find(event.raw["index"]), event.raw["delta"])
        match event:
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
        """The index of the block that an event belongs to. Some gateways send wrong ones; then it is the block that began
        last."""
        return index if index in self._open else next(reversed(self._open), index)

    def _stop_unstopped(self, index: int, block: Chunk) -> list[Chunk]:
        """End the blocks whose end was lost: one with the same index, and the call that a result answers."""
        call = block.get("tool_use_id")
        lost = [at for at, other in self._open.items() if at == index or (call and other.get("id") == call)]
        return [chunk for at in lost for chunk in self._stop(at)]

    def _message_start(self, message: Chunk) -> list[Chunk]:
        self._usage.update(object_at(message, "usage"))
        chunks: list[Chunk] = [self._start_chunk, {"type": "start-step"}]
        content = message.get("content")
        blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        for index, block in enumerate(blocks):
            chunks += [*self._start(index, block), *self._stop(index)]
        return chunks

    def _start(self, index: int, block: Chunk) -> list[Chunk]:
        self._open[index] = block
        id = str(index)
        match block.get("type"):
            case "text":
                return [{"type": "text-start", "id": id}, *self._delta(index, {**block, "type": "text_delta"})]
            case "thinking":
                kinds = ("thinking_delta", "signature_delta")
                thinking, signature = (self._delta(index, {**block, "type": kind}) for kind in kinds)
                return [{"type": "reasoning-start", "id": id}, *thinking, *signature]
            case "redacted_thinking":
                metadata = {"anthropic": {"redactedData": block.get("data")}}
                return [{"type": "reasoning-start", "id": id, "providerMetadata": metadata}]
            case kind if kind in _TOOL_TYPES:
                self._inputs[index] = []
                self._calls[str(block.get("id"))] = _traits(block)
                return [{"type": "tool-input-start", **_tool_call(block)}]
            case str(kind) if kind.endswith("_tool_result") and str(block.get("tool_use_id")) in self._calls:
                return self._tool_output(block)
        # The client accepts unknown types that begin with `data-`; any other ends the whole chat.
        return [{"type": f"data-anthropic-{block.get('type')}", "data": block}]

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
        block, part = self._open.get(index, {}), {"id": str(index)}
        match delta.get("type"), block.get("type"):
            case "text_delta", "text" if text := _string(delta, "text"):
                return [{"type": "text-delta", **part, "delta": text}]
            case "thinking_delta", "thinking" if thinking := _string(delta, "thinking"):
                return [{"type": "reasoning-delta", **part, "delta": thinking}]
            case "signature_delta", "thinking" if signature := _string(delta, "signature"):
                metadata = {"anthropic": {"signature": signature}}
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
            reason = "the input was cut, or is not JSON"
            return {"type": "tool-input-error", **_tool_call(block), "input": text, "errorText": reason}
        return {"type": "tool-input-available", **_tool_call(block), "input": given}

    def _source(self, source: Mapping[str, Any]) -> list[Chunk]:
        """A citation or a search result as a source chunk: a URL or a document. Other kinds have none."""
        address = source.get("url") or source.get("source")
        title = source.get("document_title") or source.get("title")
        named = {"title": title} if isinstance(title, str) else {}
        if isinstance(address, str) and address.startswith(("https://", "http://")):
            chunk: Chunk = {"type": "source-url", "url": address, **named}
        elif named or "document_index" in source:
            media = "application/pdf" if source.get("type") == "page_location" else "text/plain"
            untitled = {"title": f"document {source.get('document_index')}"}
            chunk = {"type": "source-document", "mediaType": media, **(named or untitled)}
        else:
            return []
        self._sources += 1
        return [{**chunk, "sourceId": f"source-{self._sources}"}]


def _tool_call(block: Chunk) -> Chunk:
    return {"toolCallId": str(block.get("id")), "toolName": str(block.get("name")), **_traits(block)}


def _traits(block: Chunk) -> Chunk:
    """The fields that all chunks of a tool call share: whether the provider runs it, and that the tool is dynamic."""
    traits = {"tool_use": {}, "mcp_tool_use": {"providerExecuted": True, "dynamic": True}}
    return traits.get(block["type"], {"providerExecuted": True})


def _string(raw: Mapping[str, Any], name: str) -> str:
    """The string in a field; "" for any other value, which would end the chat: the client checks each chunk's types."""
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _frames(chunks: Iterable[Chunk]) -> list[Frame]:
    return [f"data: {compact(chunk)}\n\n" for chunk in chunks]  # the same as `frame` for JSON on one line


# --- Requests ------------------------------------------------------------------------------------------------------


def read_ui(body: Mapping[str, Any], *, max_prompt_chars: int) -> tuple[str, dict[str, Any]]:
    """(chat id, request of the Messages API) of a request of `useChat`. Raises `InvalidRequest`.

    Parts that the API does not accept are left out: sources, custom parts, reasoning without its signature, tool calls
    without an output, and tool calls that ran at the provider.
    """
    chat = body.get("id")
    if not isinstance(chat, str) or not 0 < len(chat) <= MAX_CHAT_ID_CHARS:
        raise InvalidRequest("id", f"must be the chat's id, a string of 1 to {MAX_CHAT_ID_CHARS} characters")
    messages = body.get("messages", [body["message"]] if "message" in body else None)
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages", "must be a non-empty list of messages")
    named = [(f"messages.{index}", message) for index, message in enumerate(messages)]
    blocks = [pair for where, message in named for pair in _read_message(where, message, max_prompt_chars)]
    system = [block["text"] for role, block in blocks if role == "system"]
    by_role = groupby((pair for pair in blocks if pair[0] != "system"), lambda pair: pair[0])
    turns: list[Chunk] = [{"role": role, "content": [block for _, block in pairs]} for role, pairs in by_role]
    if not turns or turns[-1]["role"] != "user":
        raise InvalidRequest("messages", "must end with a text, a file or a tool's output for the model to answer")
    request: Chunk = {"messages": turns, **read_options(body, max_prompt_chars=max_prompt_chars)}
    if system:
        request["system"] = "\n\n".join([request["system"], *system] if "system" in request else system)
    if (tools := body.get("tools")) is not None:
        if not isinstance(tools, list):
            raise InvalidRequest("tools", "must be a list")
        request["tools"] = tools
    return chat, request


def _read_message(where: str, message: object, max_prompt_chars: int) -> Iterator[tuple[str, Chunk]]:
    """The content blocks of a UI message, each with the role of its turn at the API. Raises `InvalidRequest`.

    The output of a tool call is a block of the user. The calls of one answer stay together, followed by their outputs:
    the API requires the original order.
    """
    if not isinstance(message, dict) or not isinstance(message.get("parts"), list):
        raise InvalidRequest(where, "must be an object with role and parts")
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise InvalidRequest(f"{where}.role", "must be one of user, assistant, system")
    results: list[tuple[str, Chunk]] = []
    for number, part in enumerate(message["parts"]):
        if not isinstance(part, dict):
            raise InvalidRequest(f"{where}.parts.{number}", "must be an object with a type")
        block = _block(f"{where}.parts.{number}", part, role, max_prompt_chars)
        is_call = block is not None and block["type"] == "tool_use"
        if part.get("type") == "step-start" or (block is not None and not is_call):
            yield from results
            results = []
        if block is not None:
            yield role, block
        if is_call:
            results.append(("user", _tool_result(part)))
    yield from results


def _block(where: str, part: Chunk, role: str, max_prompt_chars: int) -> Chunk | None:
    """The content block of a part; None for one that is left out."""
    kind = str(part.get("type"))
    if kind == "text":  # blank ones are left out: a step may have no text, and the API rejects them
        is_blank = not str(part.get("text", "")).strip()
        return None if is_blank else {"type": kind, "text": read_text(f"{where}.text", part["text"], max_prompt_chars)}
    if role == "user":
        return _file_block(where, part) if kind == "file" else None
    if role == "system":
        return None
    if kind == "reasoning":
        return _thinking_block(part)
    is_call = kind.startswith("tool-") or kind == "dynamic-tool"
    has_output = part.get("state") in ("output-available", "output-error") and not part.get("providerExecuted")
    if is_call and has_output and part.get("toolCallId"):
        name = part.get("toolName") or kind.removeprefix("tool-")
        return {"type": "tool_use", "id": part["toolCallId"], "name": name, "input": part.get("input") or {}}
    return None


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


def _thinking_block(part: Chunk) -> Chunk | None:
    """Thinking is sent back only if the API can verify it: with its signature, or redacted."""
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
