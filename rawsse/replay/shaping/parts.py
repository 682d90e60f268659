"""A message of the Messages API, written down in a test as a person would say it.

This file knows what the parts of an answer look like as JSON, and fills in what a test does not care about: ids, usage, stop
reason. It refuses to know how an answer is streamed; `builder.py` does that.

    answer(text("Let me see."), tool_use("get_weather", {"place": "Bergen"}))
    answer(thinking("Hm."), text("Yes.", citations=[citation("Yes, it is.")]), usage={"output_tokens": 7})
    answer(server_tool_use("web_search", {"query": "x"}), server_tool_result("web_search_tool_result", []))

Every part is a content block as plain JSON, and every other dict that is a block may stand beside them. Ids are made of the
content and of `seed`: the same answer has the same ids, in every run. A client that must tell apart two answers which say the
same needs two seeds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rawsse.errors import ConfigurationError, quote
from rawsse.messages import Message
from rawsse.messages.content import BlockBuilder

MODEL = "claude-sonnet-5"
"""The model of an answer that names none."""

Block = dict[str, Any]

_CHARACTERS_PER_TOKEN = 4  # for the usage of an answer that names none: a rule of thumb
_INPUT_TOKENS = 25
_ID_CHARACTERS = 22
_OPAQUE_BYTES = 64
_HALF = re.compile("[\ud800-\udfff]")


# --- Blocks ----------------------------------------------------------------------------------------------------------


def text(text: str, *, citations: Iterable[Mapping[str, Any]] | None = None, **fields: Any) -> Block:
    """Text. `citations` are those of `citation`; the API tells them one by one, before the text."""
    cited = {} if citations is None else {"citations": [dict(each) for each in citations]}
    return {**cited, "type": "text", "text": text, **fields}


def citation(cited_text: str, *, type: str = "char_location", **fields: Any) -> Block:
    """Where a piece of text comes from. What a location of this type must have and `fields` do not say is filled in."""
    if type not in _LOCATIONS:
        raise ConfigurationError(f"a citation's type is one of {', '.join(_LOCATIONS)}, not {quote(type)}")
    end = {"end_char_index": fields.get("start_char_index", 0) + len(cited_text)} if type == "char_location" else {}
    return {"type": type, "cited_text": cited_text, **_LOCATIONS[type], **end, **fields}


def thinking(thinking: str, *, signature: str | None = None, **fields: Any) -> Block:
    """Thinking, with a signature that is made up unless you give one. An empty one is that of thinking that was cut."""
    return {
        "type": "thinking",
        "thinking": thinking,
        "signature": _opaque(thinking) if signature is None else signature,
        **fields,
    }


def redacted_thinking(data: str | None = None, **fields: Any) -> Block:
    """Thinking that only the API can read."""
    return {"type": "redacted_thinking", "data": _opaque("redacted") if data is None else data, **fields}


def tool_use(
    name: str, tool_input: Mapping[str, Any] | str, *, cut: bool = False, id: str | None = None, **fields: Any
) -> Block:
    """A call of one of the client's tools.

    `tool_input` as a string is the JSON text as the model wrote it. With `cut` it is no whole JSON object, and must not be one:
    the call is not `complete`, and as the last part of an answer it is never closed, as when `max_tokens` cuts it.
    """
    return _call("tool_use", name, tool_input, cut, id, fields)


def server_tool_use(
    name: str, tool_input: Mapping[str, Any] | str, *, cut: bool = False, id: str | None = None, **fields: Any
) -> Block:
    """A call of a tool that runs at the API: `web_search`, `code_execution` … For `cut` see `tool_use`."""
    return _call("server_tool_use", name, tool_input, cut, id, fields)


def mcp_tool_use(
    server_name: str,
    name: str,
    tool_input: Mapping[str, Any] | str,
    *,
    cut: bool = False,
    id: str | None = None,
    **fields: Any,
) -> Block:
    """A call of a tool at an MCP server that the API talks to. For `cut` see `tool_use`."""
    return _call("mcp_tool_use", name, tool_input, cut, id, {"server_name": server_name, **fields})


def server_tool_result(type: str, content: Any, *, tool_use_id: str | None = None, **fields: Any) -> Block:
    """What a tool at the API gave: `type` is `web_search_tool_result`, `mcp_tool_result` … It belongs to the call that
    `tool_use_id` names, or else to the last such call before it."""
    named = {} if tool_use_id is None else {"tool_use_id": tool_use_id}
    return {"type": type, **named, "content": content, **fields}


def web_search_result(title: str, url: str, *, page_age: str | None = None, **fields: Any) -> Block:
    """One page that a search found, for the content of a `web_search_tool_result`."""
    found = {"type": "web_search_result", "title": title, "url": url, "encrypted_content": _opaque(url)}
    return {**found, "page_age": page_age, **fields}


def _call(
    type: str, name: str, tool_input: Mapping[str, Any] | str, cut: bool, id: str | None, fields: Mapping[str, Any]
) -> Block:
    named = {} if id is None else {"id": id}
    call = {"type": type, **named, "name": name, "input": _input(name, tool_input), **fields}
    is_whole = _built(call).complete
    if cut and is_whole:
        raise ConfigurationError(f"the input of {quote(name)} is a whole JSON object: it was not cut")
    if not cut and not is_whole:
        said = f"the input of {quote(name)} is no whole JSON object: {quote(call['input'])}"
        raise ConfigurationError(f"{said}; cut=True says that it is meant to be none")
    return call


def _input(name: str, tool_input: object) -> str | Block:
    if isinstance(tool_input, str):
        return tool_input
    if isinstance(tool_input, Mapping):
        return dict(tool_input)
    raise ConfigurationError(f"the input of {quote(name)} is a mapping or JSON text, not {quote(repr(tool_input))}")


_DOCUMENT: Mapping[str, Any] = {"document_index": 0, "document_title": None, "file_id": None}
_LOCATIONS: Mapping[str, Mapping[str, Any]] = {
    "char_location": {**_DOCUMENT, "start_char_index": 0},
    "page_location": {**_DOCUMENT, "start_page_number": 1, "end_page_number": 2},
    "content_block_location": {**_DOCUMENT, "start_block_index": 0, "end_block_index": 1},
    "web_search_result_location": {"url": "https://example.com/", "title": None, "encrypted_index": "RXhhbXBsZQ=="},
    "search_result_location": {
        "source": "https://example.com/",
        "title": None,
        "search_result_index": 0,
        "start_block_index": 0,
        "end_block_index": 1,
    },
}


# --- The message -----------------------------------------------------------------------------------------------------


def answer(
    *parts: Mapping[str, Any] | str,
    stop_reason: str | None = None,
    usage: Mapping[str, Any] | None = None,
    model: str = MODEL,
    id: str | None = None,
    seed: int = 0,
    **fields: Any,
) -> Message:
    """The parts as a message, as the API returns it without `stream`. A string is `text` of it.

    `stop_reason` is `tool_use` if a tool of the client's is called, else `end_turn`; `usage` is added to made-up counts;
    `fields` are further fields of the message (`stop_sequence`, `stop_details`, `container` …).
    """
    given = [_block(part) for part in parts]
    identity = to_json([seed, model, given])
    blocks = [_built(block) for block in _with_ids(given, identity)]
    content = [block.raw for block in blocks]
    calls = any(block.get("type") == "tool_use" for block in content)
    raw = {
        "model": model,
        "id": made_id("msg", identity) if id is None else id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop_reason or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        **fields,
        "usage": {**_made_up_usage(identity), **(usage or {})},
    }
    return Message(raw, facts=blocks)


def made_id(prefix: str, identity: str) -> str:
    """An id in the API's form, made of `identity`: the same for the same."""
    digest = hashlib.sha256(f"{prefix} {identity}".encode()).hexdigest()
    return f"{prefix}_01{digest[:_ID_CHARACTERS]}"


def to_json(value: Any, **options: Any) -> str:
    """JSON text as the API writes it: characters as they are, but for half a surrogate pair, which UTF-8 cannot hold.

    Raises `ConfigurationError` for what JSON cannot hold.
    """
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigurationError(f"the answer cannot be written as JSON: {exc}") from None
    return _HALF.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


_ID_PREFIXES: Mapping[str, str] = {"tool_use": "toolu", "server_tool_use": "srvtoolu", "mcp_tool_use": "mcptoolu"}


def _block(part: object) -> Block:
    if isinstance(part, str):
        return text(part)
    if isinstance(part, Mapping):
        return dict(part)
    raise ConfigurationError(f"a part of an answer is a block or a string, not {quote(repr(part))}")


def _with_ids(blocks: list[Block], identity: str) -> list[Block]:
    """The blocks, each call with an id, and each result with that of its call."""
    named: list[Block] = []
    last_call: str | None = None
    for place, block in enumerate(blocks):
        kind = str(block.get("type"))
        made: Block = {}
        if kind in _ID_PREFIXES:
            made = {"id": made_id(_ID_PREFIXES[kind], f"{place} {identity}")}
        elif kind.endswith("_tool_result") and "tool_use_id" not in block:
            if last_call is None:
                raise ConfigurationError(f"a {kind} stands before any call that it could be the result of")
            made = {"tool_use_id": last_call}
        named.append({"type": kind, **made, **block} if made else block)  # an id that was given counts
        if kind in ("server_tool_use", "mcp_tool_use"):
            last_call = named[-1]["id"]
    return named


def _built(block: Block) -> BlockBuilder:
    """The block as the fold would have it: an input that is given as text is read as the stream's would be."""
    if block.get("type") not in _ID_PREFIXES or not isinstance(block.get("input"), str):
        return BlockBuilder(block, complete=True)
    built = BlockBuilder({**block, "input": {}})
    built.grow(block["input"])
    built.close()
    built.settle()
    return built


def _made_up_usage(identity: str) -> dict[str, Any]:
    return {
        "input_tokens": _INPUT_TOKENS,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": max(1, len(identity) // _CHARACTERS_PER_TOKEN),
        "service_tier": "standard",
    }


def _opaque(of: str) -> str:
    """What only the API can read, in its form: base64, made of what it stands for."""
    digest = hashlib.shake_256(of.encode("utf-8", "surrogatepass")).digest(_OPAQUE_BYTES)
    return base64.b64encode(digest).decode()
