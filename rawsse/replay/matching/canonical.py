"""Requests in a canonical form: two bodies that ask the same of the model are equal in it.

This file knows which ways of writing a request body mean the same, and which fields do not change what is asked. It refuses to
know what is compared with what, and why.

    canonical({"stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    # {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}

What is made equal:

    content, system     a text is one `text` block
    turns               consecutive ones of the same role are one, as the API merges them
    ids of tool calls   the model makes them up, and some clients make up their own: they are numbered as they appear
    null, defaults      what is null is not there; nor is `is_error: false`, a tool's `type: "custom"`, `caller: direct`, `[]`
                        of citations
    numbers             1.0 is 1
    secrets             what `scrub` hides in a recording is hidden in what is asked, too

What is left out: `stream`, and all that says who asks, who pays, where it is computed and what is cached (`IGNORED_FIELDS`,
`cache_control` wherever it stands, the id of a container). What is not touched: the order of `tools`, `messages` and blocks,
the model, and everything inside a tool's `input` and `input_schema`, whose nulls and names are the caller's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rawsse.replay.recording import RecordedRequest, Recording
from rawsse.replay.scrubbing.scrub import scrub

IGNORED_FIELDS = (
    "betas",
    "billing_policy",
    "cache_control",
    "diagnostics",
    "fallback_credit_token",
    "inference_geo",
    "metadata",
    "service_tier",
    "stream",
    "thread",
)
"""Fields of a request's body that say how an answer comes, and not to what. What a thread holds is to be filled in before."""

# Wherever these stand.
_NEVER_ASKED = frozenset({"authorization_token", "cache_control"})
# Their values belong to the caller: JSON of the caller's own, not of the API.
_OPAQUE = frozenset({"input", "input_schema", "input_examples", "schema"})
# Names for a call that the model has made up. A `tool_id` is the one of a `caller`.
_CALL_IDS = frozenset({"tool_use_id", "tool_id"})
_DEFAULTS: Mapping[str, Any] = {"caller": {"type": "direct"}, "citations": [], "is_error": False}


def canonical(body: Any) -> Any:
    """The body's canonical form; what is no JSON object is taken as it is. Raises `RecursionError` for JSON nested too deeply.

    Secrets are not looked for here; see `without_secrets`.
    """
    if not isinstance(body, dict):
        return _plain(body)
    asked = {name: value for name, value in body.items() if name not in IGNORED_FIELDS}
    return _Writer().request(asked)


def without_secrets(body: Any) -> Any:
    """The body with everything hidden that `scrub` hides in recordings. Raises `RecursionError`."""
    request = scrub(Recording(RecordedRequest("POST", "/", {}, body))).request
    return request and request.body


class _Writer:
    """Writes one body. It remembers which calls it has seen."""

    def __init__(self) -> None:
        self._calls: dict[str, str] = {}

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        # The id of a container comes with an answer, as those of calls do; a text is nothing but that id.
        container = body.get("container")
        if isinstance(container, str):
            body = body | {"container": None}
        elif isinstance(container, dict):
            body = body | {"container": container | {"id": None}}
        written = self._object(body)
        if isinstance(messages := written.get("messages"), list):
            written["messages"] = _merged(messages)
        return written

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._object(value)
        return [self._value(item) for item in value] if isinstance(value, list) else _plain(value)

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        is_call = str(value.get("type")).endswith("tool_use")
        written = {}
        for name, item in value.items():
            if item is None or name in _NEVER_ASKED or (name in _DEFAULTS and item == _DEFAULTS[name]):
                continue
            if name == "type" and item == "custom" and "input_schema" in value:
                continue
            written[name] = self._field(name, item, is_call)
        return written

    def _field(self, name: str, value: Any, is_call: bool) -> Any:
        if name in _OPAQUE:
            return _plain(value)
        if isinstance(value, str):
            if name in _CALL_IDS or (is_call and name == "id"):
                return self._calls.setdefault(value, f"call {len(self._calls) + 1}")
            if name in {"content", "system"}:
                # "content: a string is shorthand for one text block."
                return [{"type": "text", "text": value}]
        return self._value(value)


def _merged(messages: list[Any]) -> list[Any]:
    """Consecutive turns of the same role as one. Only whole turns of role and content: what else is said is about that turn."""
    merged: list[Any] = []
    for message in messages:
        if merged and _is_plain_turn(message) and _is_plain_turn(merged[-1]) and merged[-1]["role"] == message["role"]:
            merged[-1] = merged[-1] | {"content": merged[-1]["content"] + message["content"]}
        else:
            merged.append(message)
    return merged


def _is_plain_turn(message: Any) -> bool:
    return isinstance(message, dict) and message.keys() == {"role", "content"} and isinstance(message["content"], list)


def _plain(value: Any) -> Any:
    """The same JSON. Some clients write 1.0 where others write 1; JSON knows one kind of number."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
