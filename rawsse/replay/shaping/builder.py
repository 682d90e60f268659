"""A message -> the stream that the Messages API would have sent for it, as a recording.

This file knows which events a message is made of, and how its text comes in fragments. It refuses to know how a test writes a
message down (`parts.py`), and what gateways make of a stream (`rewrites.py`).

    recording = recording_of(answer(text("Hello there."), tool_use("get_weather", {"place": "Bergen"})))
    recording = recording_of(message, fragments=1, pings=(), pace="ttft=0.5,tps=40")     # any message, as JSON or as `Message`
    recording = recording_of(message, fragments=["Hel", "lo"], ending=cut(after=4, at_byte=10))
    recording = recording_of(message, ending=error("overloaded_error"))                  # instead of the first event
    recording = error_recording(429, headers={"retry-after": "3"})

What the events add up to is the message again. A `Message` that was streamed keeps the JSON text of its tools' inputs, and a
last block that was cut stays open. A message without a stop reason did not end: its stream breaks off after its content.

Each event is one read. `pace` says when they come; by default, at once. A tool's input comes as the API sends it, an empty
fragment first.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.messages import Block, Message
from rawsse.messages.lens import object_at
from rawsse.replay.recording import Read, RecordedRequest, Recording
from rawsse.replay.shaping.pace import Pace, pace_by
from rawsse.replay.shaping.parts import made_id, to_json
from rawsse.sse import encode

MAX_RANDOM_CHARACTERS = 20
"""The longest fragment of `random:SEED`: about what the API sends."""

Fragments: TypeAlias = str | int | Sequence[str] | Callable[[str], Iterable[str]]
"""How text, thinking and tool inputs come: `"words"`, `"characters"`, `"whole"`, `"random:SEED"`, so many characters each, the
fragments themselves (they must add up to what the block has), or a function of your own."""

Raw = dict[str, Any]

_JSON: Mapping[str, str] = {"content-type": "application/json"}
_SSE: Mapping[str, str] = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
_SAID: Mapping[str, str] = {
    "invalid_request_error": "messages: Field required",
    "authentication_error": "invalid x-api-key",
    "billing_error": "Your credit balance is too low to access the API",
    "permission_error": "Your API key does not have permission to use the specified resource",
    "not_found_error": "model: not found",
    "conflict_error": "Conflict",
    "request_too_large": "Request exceeds the maximum size",
    "rate_limit_error": "This request would exceed your rate limit",
    "api_error": "Internal server error",
    "timeout_error": "Request timed out",
    "overloaded_error": "Overloaded",
}
"""What an error says that is given no message, by its type."""

# https://docs.anthropic.com/en/api/errors
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


# --- Where a stream breaks off ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Break:
    """A stream does not come to its end: after `after` events (pings count; below 0: from the end) comes `error`, an event,
    or, without one, `at_byte` bytes of the next event and the connection's end."""

    after: int
    at_byte: int = 0
    error: Mapping[str, Any] | None = None


def cut(after: int, at_byte: int = 0) -> Break:
    """The connection breaks after so many events, and so many bytes of the next one."""
    return Break(after, at_byte)


def error(type: str, message: str | None = None, *, after: int = 0, details: Mapping[str, Any] | None = None) -> Break:
    """An `error` event comes after so many events: instead of the first one by default. The stream ends with it."""
    return Break(after, error=_error(type, message, details))


# --- A stream --------------------------------------------------------------------------------------------------------


def recording_of(
    message: Message | Mapping[str, Any],
    *,
    fragments: Fragments | Mapping[int, Fragments] = "words",
    pings: Collection[int] | None = None,
    pace: Pace = "none",
    ending: Break | None = None,
    request: RecordedRequest | None = None,
    headers: Mapping[str, str] | None = None,
    name: str = "built",
) -> Recording:
    """The stream of a message: a `Message`, or the JSON that the API returns without `stream`.

    `fragments` is one way for all blocks, or one for each index (`"words"` for the others). `pings` come after so many other
    events: by default after the first `content_block_start`. `headers` are added to those of the answer.
    Raises `ConfigurationError` for what cannot be streamed.
    """
    whole = _message(message)
    events = list(_events(whole, fragments))
    frames = [encode(to_json(raw, separators=(",", ":")), event=raw["type"]) for raw in events]
    frames = _with_pings(frames, (2,) if pings is None and len(frames) > 1 else pings or ())
    if ending is not None:
        frames = _broken(frames, ending)
    is_cut = ending.error is None if ending else whole.raw.get("stop_reason") is None
    recording = Recording(
        request=request,
        headers={**_SSE, "request-id": made_id("req", to_json(events)), **(headers or {})},
        reads=tuple(Read(0.0, frame) for frame in frames),
        end="cut" if is_cut else "clean",
        name=name,
    )
    return pace_by(pace)(recording)


def _message(given: object) -> Message:
    if not isinstance(given, Message | Mapping):
        raise ConfigurationError(f"a message is made by answer(…), or is JSON as a mapping, not {quote(repr(given))}")
    message = given if isinstance(given, Message) else Message(dict(given))
    content = message.raw.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise ConfigurationError(f"a message has a list of blocks as its content, not {quote(repr(content))}")
    return message


def error_recording(
    status: int,
    type: str | None = None,
    message: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
    request: RecordedRequest | None = None,
    name: str = "built",
) -> Recording:
    """An HTTP error in the API's form. The type goes by the status unless you give one."""
    if not 400 <= status <= 599:
        raise ConfigurationError(f"the status of an error is between 400 and 599, not {status}")
    kind = type or _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    request_id = made_id("req", f"{status} {kind} {message}")
    body = to_json({**_error(kind, message, details), "request_id": request_id}, separators=(",", ":"))
    reads = (Read(0.0, body.encode()),)
    sent = {**_JSON, "request-id": request_id, **(headers or {})}
    return Recording(request=request, status=status, headers=sent, reads=reads, name=name)


def _error(type: str, message: str | None, details: Mapping[str, Any] | None) -> Raw:
    said = _SAID.get(type, "Error") if message is None else message
    return {
        "type": "error",
        "error": {"type": type, "message": said, **({"details": dict(details)} if details else {})},
    }


def _with_pings(frames: list[bytes], pings: Collection[int]) -> list[bytes]:
    ping = encode('{"type": "ping"}', event="ping")
    if bad := [place for place in pings if not 0 <= place <= len(frames)]:
        raise ConfigurationError(f"there are {len(frames)} events: no ping can come after {bad[0]}")
    for place in sorted(pings, reverse=True):
        frames.insert(place, ping)
    return frames


def _broken(frames: list[bytes], ending: Break) -> list[bytes]:
    if not -len(frames) <= ending.after <= len(frames):
        raise ConfigurationError(f"there are {len(frames)} events: the stream cannot break after {ending.after}")
    after = ending.after % len(frames) if ending.after < 0 else ending.after
    kept, following = frames[:after], b"".join(frames[after : after + 1])
    if ending.error is not None:
        return [*kept, encode(to_json(dict(ending.error), separators=(",", ":")), event="error")]
    if not 0 <= ending.at_byte <= len(following):
        raise ConfigurationError(f"the next event has {len(following)} bytes: it cannot be cut at {ending.at_byte}")
    return [*kept, following[: ending.at_byte]] if ending.at_byte else kept


# --- The events of a message -----------------------------------------------------------------------------------------

_LATE = ("context_management", "input_transformations")
"""Fields of the message that come at its end, beside `delta`."""

# Which counts come with `message_delta`, too; and which of them only there. All others are known at the start.
_TOTALS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens", "server_tool_use")
_ONLY_AT_THE_END = ("output_tokens_details", "iterations", "fallback_credit")


def _events(message: Message, fragments: Fragments | Mapping[int, Fragments]) -> Iterator[Raw]:
    blocks: list[Block] = message.content
    if isinstance(fragments, Mapping) and (bad := fragments.keys() - set(range(len(blocks)))):
        raise ConfigurationError(f"there are fragments for block {min(bad)}, and the message has {len(blocks)}")
    is_finished = message.raw.get("stop_reason") is not None
    yield {"type": "message_start", "message": _at_the_start(message.raw) if is_finished else _empty(message.raw)}
    for index, block in enumerate(blocks):
        how = fragments.get(index, "words") if isinstance(fragments, Mapping) else fragments
        yield {"type": "content_block_start", "index": index, "content_block": _begun(block.raw)}
        for delta in _deltas(block, how, index):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        if block.complete or index < len(blocks) - 1:
            yield {"type": "content_block_stop", "index": index}
    if is_finished:
        yield _at_the_end(message.raw)
        yield {"type": "message_stop"}


def _empty(raw: Raw) -> Raw:
    return {**raw, "content": []}


def _at_the_start(raw: Raw) -> Raw:
    """The message as `message_start` has it: without content, without an ending, with the first counts."""
    start = {name: value for name, value in _empty(raw).items() if value is None or name not in _LATE}
    start |= {name: None for name in ("stop_reason", "stop_sequence", "stop_details", "container") if name in raw}
    usage = {n: v for n, v in object_at(raw, "usage").items() if v is None or n not in _ONLY_AT_THE_END}
    if isinstance(count := usage.get("output_tokens"), int):
        usage["output_tokens"] = min(1, count)
    if isinstance(used := usage.get("server_tool_use"), dict):
        usage["server_tool_use"] = dict.fromkeys(used, 0)
    return {**start, "usage": usage}


def _at_the_end(raw: Raw) -> Raw:
    delta = {"stop_reason": raw["stop_reason"], "stop_sequence": raw.get("stop_sequence")}
    delta |= {name: raw[name] for name in ("stop_details",) if name in raw}
    delta |= {name: raw[name] for name in ("container",) if raw.get(name) is not None}
    late = (*_TOTALS, *_ONLY_AT_THE_END)
    usage = {n: v for n, v in object_at(raw, "usage").items() if v is not None and n in late}
    beside = {name: raw[name] for name in _LATE if raw.get(name) is not None}
    return {"type": "message_delta", "delta": delta, "usage": usage, **beside}


def _begun(raw: Raw) -> Raw:
    """The block as `content_block_start` has it. What no delta brings is whole here: results, redacted thinking."""
    match raw.get("type"):
        case "text":
            return {**raw, "text": "", **({"citations": []} if raw.get("citations") else {})}
        case "thinking":
            return {**raw, "thinking": "", **({"signature": ""} if raw.get("signature") else {})}
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            return {**raw, "input": {}}
        case "compaction":
            return raw | {name: None for name in ("content", "encrypted_content") if name in raw}
    return raw


def _deltas(block: Block, how: Fragments, index: int) -> Iterator[Raw]:
    match block.raw.get("type"):
        case "text":
            yield from _text_deltas(block.raw, how, index)
        case "thinking":
            yield from _thinking_deltas(block.raw, how, index)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            yield from _input_deltas(block, how, index)
        case "compaction":
            final: Raw = {name: block.raw[name] for name in ("content", "encrypted_content") if name in block.raw}
            yield {"type": "compaction_delta", **final}


def _text_deltas(raw: Raw, how: Fragments, index: int) -> Iterator[Raw]:
    for citation in raw.get("citations") or ():
        yield {"type": "citations_delta", "citation": citation}
    for piece in _fragments(raw.get("text") or "", how, index):
        yield {"type": "text_delta", "text": piece}


def _thinking_deltas(raw: Raw, how: Fragments, index: int) -> Iterator[Raw]:
    for piece in _fragments(raw.get("thinking") or "", how, index):
        yield {"type": "thinking_delta", "thinking": piece}
    if signature := raw.get("signature"):
        yield {"type": "signature_delta", "signature": signature}


def _input_deltas(block: Block, how: Fragments, index: int) -> Iterator[Raw]:
    pieces = _fragments(_input_text(block), how, index)
    for piece in pieces if _is_exact(how) else ("", *pieces):
        yield {"type": "input_json_delta", "partial_json": piece}


def _input_text(block: Block) -> str:
    """The JSON text of a tool's input. For a tool without arguments the API sends none."""
    given = block.raw.get("input")
    return block.input_text or (to_json(given) if given else "")


# --- Fragments -------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"\W{0,8}\w{1,16}|\W{1,8}")
_RANDOM = re.compile("random:([0-9]{1,9})")


def _is_exact(how: Fragments) -> bool:
    return not isinstance(how, str | int) and not callable(how)


def _fragments(text: str, how: Fragments, index: int) -> Sequence[str]:
    """The text in pieces, none of them empty unless you said so. Code points stay whole, whatever they mean together."""
    if isinstance(how, str):
        return _named_fragments(text, how, index)
    if isinstance(how, int):
        return _of_length(text, how)
    pieces = tuple(how(text) if callable(how) else how)
    if "".join(pieces) != text:
        raise ConfigurationError(
            f"the fragments of block {index} add up to {quote(''.join(pieces))}, and not to {quote(text)}"
        )
    return pieces


def _named_fragments(text: str, name: str, index: int) -> Sequence[str]:
    if name == "words":
        return _WORD.findall(text)
    if name == "characters":
        return _of_length(text, 1)
    if name == "whole":
        return (text,) if text else ()
    found = _RANDOM.fullmatch(name)
    if found is None:
        names = "words, characters, whole, random:SEED"
        raise ConfigurationError(f"fragments must be a length, texts, a function, or one of {names}, not {quote(name)}")
    return _random_fragments(text, f"{found[1]} {index}")


def _random_fragments(text: str, seed: str) -> Sequence[str]:
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    pieces, at = [], 0
    while at < len(text):
        length = chance.randint(1, MAX_RANDOM_CHARACTERS)
        pieces.append(text[at : at + length])
        at += length
    return pieces


def _of_length(text: str, length: int) -> Sequence[str]:
    if length < 1:
        raise ConfigurationError(f"a fragment has at least 1 character, not {length}")
    return [text[at : at + length] for at in range(0, len(text), length)]
