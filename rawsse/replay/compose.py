"""Compose answers without recording them: a hand-written message becomes a stream of the Messages API.

    recording_of(answer(text("Let me see."), tool_use("get_weather", {"place": "Bergen"})))
    recording_of(message, fragments=1, pings=())                                # any message, as JSON or as `Message`
    recording_of(message, fragments=["Hel", "lo"], ending=cut(after=4, at_byte=10))
    recording_of(message, ending=error("overloaded_error"))                     # instead of the first event
    error_recording(429, headers={"retry-after": "3"})

    answer(thinking("Hm."), text("Yes.", citations=[citation("Yes, it is.")]), usage={"output_tokens": 7})
    answer(server_tool_use("web_search", {"query": "x"}), server_tool_result("web_search_tool_result", []))

Each part of an answer is a content block as plain JSON; other blocks may be given as dicts. Missing fields are filled
in: ids, usage, stop reason. Ids are derived from the content, so the same answer has the same ids in every run. To
distinguish two answers with the same content, give one of them an `id`.

The events fold to the same message. A streamed `Message` keeps the JSON text of its tools' inputs, and an incomplete last block
stays open. A message without a stop reason did not end: its stream is cut after its content. Each event is one read, and all
arrive at once, unless `pace_by` sets other times.

    ReplayServer(
        turns(
            {"model": …, "max_tokens": …, "tools": […], "messages": [{"role": "user", "content": "Do I need an umbrella?"}]},
            shipped_fixtures()["tools"],        # the model calls `get_weather`
            ToolResults("Rain, 11 degrees."),   # the program sends its result
            shipped_fixtures()["plain"],        # the model's answer to it
        ),
        match="request",                        # each recording has its request
    )
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from rawsse.errors import ConfigurationError, error_type, quote
from rawsse.messages import Block, Message
from rawsse.messages.content import BlockBuilder
from rawsse.messages.lens import object_at
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.replay.variants import tokens_of
from rawsse.sse import encode

MODEL = "claude-sonnet-5"
"""The default model of an answer."""

Fragments: TypeAlias = str | int | Sequence[str] | Callable[[str], Iterable[str]]
"""How text, thinking and tool inputs are split: `"words"`, `"whole"`, a number of characters, the fragments themselves
(which must join to the block's text), or a function."""

Raw = dict[str, Any]

_ID_CHARACTERS = 22
_OPAQUE_BYTES = 64
_HALF = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"\W{0,8}\w{1,16}|\W{1,8}")
_SSE: Mapping[str, str] = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
_ID_PREFIXES: Mapping[str, str] = {"tool_use": "toolu", "server_tool_use": "srvtoolu", "mcp_tool_use": "mcptoolu"}
_MESSAGES: Mapping[str, str] = {"api_error": "Internal server error", "overloaded_error": "Overloaded"}

_LATE = ("context_management", "input_transformations")
"""Fields of the message that arrive at its end, besides `delta`."""

# The counts that `message_delta` repeats, and those that only it has. All others are in `message_start`.
_TOTALS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens", "server_tool_use")
_ONLY_AT_THE_END = ("output_tokens_details", "iterations", "fallback_credit")


# --- Blocks ----------------------------------------------------------------------------------------------------------


def text(text: str, **fields: Any) -> Raw:
    """Text. Its `citations` are made by `citation`; the API sends them one by one, before the text."""
    return {"type": "text", "text": text, **fields}


def citation(cited_text: str, *, type: str = "char_location", **fields: Any) -> Raw:
    """The source of a piece of text: by default a document, whose fields are filled in. Other types need all their `fields`."""
    place: Raw = {}
    if type == "char_location":
        start = fields.get("start_char_index", 0)
        place = {"document_index": 0, "document_title": None, "file_id": None, "start_char_index": start}
        place["end_char_index"] = start + len(cited_text)
    return {"type": type, "cited_text": cited_text, **place, **fields}


def thinking(thinking: str, *, signature: str | None = None, **fields: Any) -> Raw:
    """Thinking, with a made-up signature by default. Truncated thinking has an empty one."""
    signed = _opaque(thinking) if signature is None else signature
    return {"type": "thinking", "thinking": thinking, "signature": signed, **fields}


def redacted_thinking(data: str | None = None, **fields: Any) -> Raw:
    """Thinking that only the API can read."""
    return {"type": "redacted_thinking", "data": _opaque("redacted") if data is None else data, **fields}


def tool_use(name: str, tool_input: Mapping[str, Any] | str, *, cut: bool = False, **fields: Any) -> Raw:
    """A call of one of the client's tools. `fields` may have its `id`.

    `tool_input` as a string is the JSON text as the model wrote it. With `cut` it must be a part of a JSON object: the call is
    not `complete`, and as the last part of an answer it is never closed, as when `max_tokens` cuts it.
    """
    return _call("tool_use", name, tool_input, cut, fields)


def server_tool_use(name: str, tool_input: Mapping[str, Any] | str, *, cut: bool = False, **fields: Any) -> Raw:
    """A call of a server tool: `web_search`, `code_execution` … For `cut` see `tool_use`."""
    return _call("server_tool_use", name, tool_input, cut, fields)


def mcp_tool_use(
    server_name: str, name: str, tool_input: Mapping[str, Any] | str, *, cut: bool = False, **fields: Any
) -> Raw:
    """A call of a tool of an MCP server that the API connects to. For `cut` see `tool_use`."""
    return _call("mcp_tool_use", name, tool_input, cut, {"server_name": server_name, **fields})


def server_tool_result(type: str, content: Any, **fields: Any) -> Raw:
    """The result of a server tool: `type` is `web_search_tool_result`, `mcp_tool_result` … It belongs to the call that
    `tool_use_id` names, or else to the last such call before it."""
    return {"type": type, "content": content, **fields}


def web_search_result(title: str, url: str, **fields: Any) -> Raw:
    """One search result, for the content of a `web_search_tool_result`."""
    found = {"type": "web_search_result", "title": title, "url": url, "encrypted_content": _opaque(url)}
    return {**found, "page_age": None, **fields}


def _call(type: str, name: str, tool_input: object, cut: bool, fields: Mapping[str, Any]) -> Raw:
    if not isinstance(tool_input, str | Mapping):
        raise ConfigurationError(f"the input of {quote(name)} is a mapping or JSON text, not {quote(repr(tool_input))}")
    call = {"type": type, "name": name, "input": tool_input if isinstance(tool_input, str) else dict(tool_input)}
    is_whole = _built(call).complete
    if cut and is_whole:
        raise ConfigurationError(f"the input of {quote(name)} is a whole JSON object: it was not cut")
    if not cut and not is_whole:
        said = f"the input of {quote(name)} is not a whole JSON object: {quote(str(tool_input))}"
        raise ConfigurationError(f"{said}; cut=True says that it was cut")
    return {**call, **fields}


# --- The message -----------------------------------------------------------------------------------------------------


def answer(*parts: Mapping[str, Any] | str, usage: Mapping[str, Any] | None = None, **fields: Any) -> Message:
    """The parts as a message, as the API returns it without `stream`. A string stands for `text`.

    `usage` is added to made-up counts. `fields` are the other fields of the message: `stop_reason` (`tool_use` if a tool of the
    client is called, else `end_turn`), `stop_sequence`, `stop_details`, `model`, `id`, `container` …
    """
    given = [_block(part) for part in parts]
    model = fields.pop("model", MODEL)
    identity = to_json([model, given])
    content = [_built(block) for block in _with_ids(given, identity)]
    made = Message({"content": content})
    tokens = sum(tokens_of(delta) for block in made.content for delta in _streamed(block, "whole", 0)[1])
    calls = any(block.get("type") == "tool_use" for block in content)
    counts = {
        "input_tokens": 25,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": max(1, math.ceil(tokens)),  # as a pace estimates them
        "service_tier": "standard",
    }
    raw = {
        "model": model,
        "id": _made_id("msg", identity),
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        **fields,
        "usage": {**counts, **(usage or {})},
    }
    return Message(raw)


def _made_id(prefix: str, identity: str) -> str:
    """An id in the API's form, derived from `identity`."""
    digest = hashlib.sha256(f"{prefix} {identity}".encode()).hexdigest()
    return f"{prefix}_01{digest[:_ID_CHARACTERS]}"


def to_json(value: Any, **options: Any) -> str:
    """JSON as the API writes it: characters are unescaped, except unpaired surrogates, which UTF-8 cannot encode.

    Raises `ConfigurationError` for a value that is not JSON.
    """
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigurationError(f"the answer cannot be written as JSON: {exc}") from None
    return _HALF.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def _compact(value: Raw) -> str:
    return to_json(value, separators=(",", ":"))


def _block(part: object) -> Raw:
    if isinstance(part, str):
        return text(part)
    if isinstance(part, Mapping):
        return dict(part)
    raise ConfigurationError(f"a part of an answer is a block or a string, not {quote(repr(part))}")


def _with_ids(blocks: list[Raw], identity: str) -> list[Raw]:
    """The blocks, with an id for each call, and the call's id for each result."""
    named: list[Raw] = []
    last_call: str | None = None
    for place, given in enumerate(blocks):
        kind, block = str(given.get("type")), given
        if kind in _ID_PREFIXES:  # a given id takes precedence
            block = {"type": kind, "id": _made_id(_ID_PREFIXES[kind], f"{place} {identity}"), **given}
        elif kind.endswith("_tool_result") and "tool_use_id" not in given:
            if last_call is None:
                raise ConfigurationError(f"a {kind} stands before any call that it could be the result of")
            block = {"type": kind, "tool_use_id": last_call, **given}
        if kind in ("server_tool_use", "mcp_tool_use"):
            last_call = block["id"]
        named.append(block)
    return named


def _built(block: Raw) -> BlockBuilder:
    """The block as a stream builds it: an input given as text is parsed like a streamed one."""
    if block.get("type") not in _ID_PREFIXES or not isinstance(block.get("input"), str):
        return BlockBuilder(block, complete=True)
    built = BlockBuilder({**block, "input": {}})
    built.grow(block["input"])
    built.close()
    built.settle()
    return built


def _opaque(of: str) -> str:
    """A made-up opaque value: base64, and equal for equal `of`."""
    digest = hashlib.shake_256(of.encode("utf-8", "surrogatepass")).digest(_OPAQUE_BYTES)
    return base64.b64encode(digest).decode()


# --- Errors, and streams that break off ------------------------------------------------------------------------------


class Break(NamedTuple):
    """The early end of a stream. After `after` events (including pings; below 0: from the end) follows the event `error` or,
    without one, `at_byte` bytes of the next event and the end of the connection."""

    after: int
    at_byte: int = 0
    error: Mapping[str, Any] | None = None


def cut(after: int, at_byte: int = 0) -> Break:
    """The connection breaks after `after` events and `at_byte` bytes of the next one."""
    return Break(after, at_byte)


def error(type: str, message: str | None = None, *, after: int = 0, details: Mapping[str, Any] | None = None) -> Break:
    """An `error` event after `after` events, by default in place of the first one. It ends the stream."""
    return Break(after, error=error_body(type, message, details))


def error_body(type: str, message: str | None = None, details: Mapping[str, Any] | None = None) -> Raw:
    """An error in the API's form. The message defaults to the API's, or to the type in words."""
    said = _MESSAGES.get(type, type.replace("_", " ").capitalize()) if message is None else message
    error = {"type": type, "message": said, **({"details": dict(details)} if details else {})}
    return {"type": "error", "error": error}


def error_recording(
    status: int,
    type: str | None = None,
    message: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Recording:
    """An HTTP error in the API's form. The type defaults to that of the status.

    A client does not try again: it is played with `x-should-retry: false`, unless `headers` have another value. For a failure
    that a retry gets over play the answer with a fault: `faults=["status=429,retry-after=1 x1"]`.
    """
    if not 400 <= status <= 599:
        raise ConfigurationError(f"the status of an error is between 400 and 599, not {status}")
    kind = type or error_type(status)
    request_id = _made_id("req", f"{status} {kind} {message}")
    body = _compact({**error_body(kind, message, details), "request_id": request_id}).encode()
    sent = {"content-type": "application/json", "request-id": request_id, **(headers or {})}
    return Recording(status=status, headers=sent, reads=(Read(0.0, body),), name="built")


# --- The stream of a message -----------------------------------------------------------------------------------------


def recording_of(
    message: Message | Mapping[str, Any],
    *,
    fragments: Fragments = "words",
    pings: Collection[int] | None = None,
    ending: Break | None = None,
    headers: Mapping[str, str] | None = None,
) -> Recording:
    """The stream of a message: a `Message`, or the JSON that the API returns without `stream`.

    `pings` lists after how many other events each ping is sent: by default after the first `content_block_start`. `headers`
    are added to those of the answer. Raises `ConfigurationError` for a message that cannot be streamed.
    """
    whole = _message(message)
    events = list(_events(whole, fragments))
    frames = [encode(_compact(raw), event=raw["type"]) for raw in events]
    pings = (2,) if pings is None and len(frames) > 1 else pings or ()
    if bad := [place for place in pings if not 0 <= place <= len(frames)]:
        raise ConfigurationError(f"there are {len(frames)} events: no ping can come after {bad[0]}")
    for place in sorted(pings, reverse=True):
        frames.insert(place, encode('{"type": "ping"}', event="ping"))
    if ending is not None:
        frames = _broken(frames, ending)
    is_cut = ending.error is None if ending else whole.raw.get("stop_reason") is None
    return Recording(
        headers={**_SSE, "request-id": _made_id("req", to_json(events)), **(headers or {})},
        reads=tuple(Read(0.0, frame) for frame in frames),
        end="cut" if is_cut else "clean",
        name="built",
    )


def _message(given: object) -> Message:
    if not isinstance(given, Message | Mapping):
        raise ConfigurationError(f"a message is made by answer(…), or is JSON as a mapping, not {quote(repr(given))}")
    message = given if isinstance(given, Message) else Message(dict(given))
    content = message.raw.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise ConfigurationError(f"a message has a list of blocks as its content, not {quote(repr(content))}")
    return message


def _broken(frames: list[bytes], ending: Break) -> list[bytes]:
    if not -len(frames) <= ending.after <= len(frames):
        raise ConfigurationError(f"there are {len(frames)} events: the stream cannot break after {ending.after}")
    after = ending.after % len(frames) if ending.after < 0 else ending.after
    kept, following = frames[:after], b"".join(frames[after : after + 1])
    if ending.error is not None:
        return [*kept, encode(_compact(dict(ending.error)), event="error")]
    if not 0 <= ending.at_byte <= len(following):
        raise ConfigurationError(f"the next event has {len(following)} bytes: it cannot be cut at {ending.at_byte}")
    return [*kept, following[: ending.at_byte]] if ending.at_byte else kept


def _events(message: Message, fragments: Fragments) -> Iterator[Raw]:
    blocks = message.content
    is_finished = message.raw.get("stop_reason") is not None
    empty = {**message.raw, "content": []}
    yield {"type": "message_start", "message": _at_the_start(empty) if is_finished else empty}
    for index, block in enumerate(blocks):
        begun, deltas = _streamed(block, fragments, index)
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        if block.complete or index < len(blocks) - 1:
            yield {"type": "content_block_stop", "index": index}
    if is_finished:
        yield _at_the_end(message.raw)
        yield {"type": "message_stop"}


def _at_the_start(empty: Raw) -> Raw:
    """The message of `message_start`: without content and ending, with the first counts."""
    start = {name: value for name, value in empty.items() if value is None or name not in _LATE}
    start |= {name: None for name in ("stop_reason", "stop_sequence", "stop_details", "container") if name in empty}
    usage = {n: v for n, v in object_at(empty, "usage").items() if v is None or n not in _ONLY_AT_THE_END}
    if isinstance(count := usage.get("output_tokens"), int):
        usage["output_tokens"] = min(1, count)
    if isinstance(used := usage.get("server_tool_use"), dict):
        usage["server_tool_use"] = dict.fromkeys(used, 0)
    return {**start, "usage": usage}


def _at_the_end(raw: Raw) -> Raw:
    delta = {"stop_reason": raw["stop_reason"], "stop_sequence": raw.get("stop_sequence")}
    delta |= {name: raw[name] for name in ("stop_details", "container") if raw.get(name) is not None}
    late = (*_TOTALS, *_ONLY_AT_THE_END)
    usage = {n: v for n, v in object_at(raw, "usage").items() if v is not None and n in late}
    beside = {name: raw[name] for name in _LATE if raw.get(name) is not None}
    return {"type": "message_delta", "delta": delta, "usage": usage, **beside}


def _streamed(block: Block, how: Fragments, index: int) -> tuple[Raw, list[Raw]]:
    """The block of `content_block_start`, and its deltas. Blocks without deltas (results …) are complete at the start."""
    raw = block.raw
    match raw.get("type"):
        case "text":
            cited = [{"type": "citations_delta", "citation": each} for each in raw.get("citations") or ()]
            texts = [{"type": "text_delta", "text": each} for each in _fragments(raw.get("text"), how, index)]
            return {**raw, "text": "", **({"citations": []} if cited else {})}, [*cited, *texts]
        case "thinking":
            signed = [{"type": "signature_delta", "signature": raw["signature"]}] if raw.get("signature") else []
            pieces = _fragments(raw.get("thinking"), how, index)
            thoughts = [{"type": "thinking_delta", "thinking": each} for each in pieces]
            return {**raw, "thinking": "", **({"signature": ""} if signed else {})}, [*thoughts, *signed]
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            # The JSON text as the model wrote it, an empty fragment first. For a tool without arguments the API sends no other.
            given = raw.get("input")
            pieces = _fragments(block.input_text or (to_json(given) if given else ""), how, index)
            is_exact = not isinstance(how, str | int) and not callable(how)
            pieces = pieces if is_exact else ["", *pieces]
            return {**raw, "input": {}}, [{"type": "input_json_delta", "partial_json": each} for each in pieces]
        case "compaction":
            given = {name: raw[name] for name in ("content", "encrypted_content") if name in raw}
            return raw | dict.fromkeys(given), [{"type": "compaction_delta", **given}]
    return raw, []


def _fragments(text: str | None, how: Fragments, index: int) -> list[str]:
    """The text in pieces, none empty unless `how` lists it. Code points are never split."""
    text = text or ""
    if how == "words":
        return _WORD.findall(text)
    if how == "whole":
        return [text] if text else []
    if isinstance(how, str):
        raise ConfigurationError(f"fragments must be words, whole, a length, texts, or a function, not {quote(how)}")
    if isinstance(how, int):
        if how < 1:
            raise ConfigurationError(f"a fragment has at least 1 character, not {how}")
        return [text[at : at + how] for at in range(0, len(text), how)]
    pieces = list(how(text) if callable(how) else how)
    if (joined := "".join(pieces)) != text:
        raise ConfigurationError(f"the fragments of block {index} add up to {quote(joined)}, and not to {quote(text)}")
    return pieces


# --- The turns of a conversation -------------------------------------------------------------------------------------


class ToolResults:
    """The results of the tools that the last answer called, in the order of the calls: texts, or lists of content blocks."""

    def __init__(self, *contents: Any) -> None:
        self.contents = contents


Turn: TypeAlias = Recording | Message | Mapping[str, Any] | ToolResults | str | Sequence[Mapping[str, Any]]
"""An answer (a recording, a `Message`, or a message as JSON), or the user's next turn: tool results, a text, or content
blocks."""


def turns(request: Mapping[str, Any], *conversation: Turn) -> list[Recording]:
    """The answers in `conversation`, each with its request. `request` is the first request's body.

    Raises `ConfigurationError` if an answer before the last is incomplete, if results do not match calls in number, or if
    the request has no messages. A message becomes a recording named by its number among the answers.
    """
    if not isinstance(request, Mapping):
        raise ConfigurationError(f"the first argument is the body of the first request, not {quote(repr(request))}")
    asked = request.get("messages")
    if not isinstance(asked, Sequence) or isinstance(asked, str) or not asked:
        raise ConfigurationError("the request has no messages: a list with the first question, as the API takes it")
    messages, recordings = list(asked), list[Recording]()
    for turn in conversation:
        if isinstance(turn, Recording | Message | Mapping):
            body = {**request, "messages": list(messages)}
            name = f"answer {len(recordings) + 1}"
            answer = turn if isinstance(turn, Recording) else replace(recording_of(turn), name=name)
            recordings.append(replace(answer, request=RecordedRequest("POST", "/v1/messages", {}, body)))
            continue
        if not recordings:
            raise ConfigurationError("the conversation must begin with an answer: the first question is in the request")
        message = recordings[-1].message()
        if message is None:
            raise ConfigurationError(f"{recordings[-1].name} has no whole message: nothing can come after it")
        content = message["content"]
        said = _results(content, turn) if isinstance(turn, ToolResults) else turn
        messages += [{"role": "assistant", "content": content}, {"role": "user", "content": said}]
    return recordings


def _results(content: list[Raw], results: ToolResults) -> list[Any]:
    calls = [block["id"] for block in content if block.get("type") == "tool_use"]
    if len(calls) != len(results.contents):
        raise ConfigurationError(f"the answer calls {len(calls)} tools, and there are {len(results.contents)} results")
    pairs = zip(calls, results.contents, strict=True)
    return [{"type": "tool_result", "tool_use_id": call, "content": given} for call, given in pairs]
