"""Recordings of the turns of one conversation, made of answers that were recorded or written one by one.

This file knows how a history grows: question, answer, the next question. It refuses to know what is in an answer.

    recordings = turns(
        {"model": …, "max_tokens": …, "tools": […], "messages": [{"role": "user", "content": "Do I need an umbrella?"}]},
        shipped_fixtures()["tools"],        # the model calls `get_weather`
        ToolResults("Rain, 11 degrees."),   # what the program sends back
        shipped_fixtures()["plain"],        # and what the model makes of it
    )
    ReplayServer(recordings, match="request")

Each recording gets the request that it answers, so that a client that goes through the conversation finds the next answer by
what it has sent so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from rawsse.errors import ConfigurationError, quote
from rawsse.messages.content import Message
from rawsse.replay.matching.reply import reply_in
from rawsse.replay.recording import RecordedRequest, Recording
from rawsse.replay.shaping.builder import recording_of


@dataclass(frozen=True, slots=True, init=False)
class ToolResults:
    """What the tools gave that the answer before called, in the order of the calls: texts, or lists of content blocks."""

    contents: tuple[Any, ...]

    def __init__(self, *contents: Any) -> None:
        object.__setattr__(self, "contents", contents)


Turn: TypeAlias = Recording | Message | Mapping[str, Any] | ToolResults | str | Sequence[Mapping[str, Any]]
"""An answer (a recording, or a message, as `answer` makes it or as JSON), or what the user says next: results of tools, a text,
or content blocks."""


def turns(request: Mapping[str, Any], *conversation: Turn) -> list[Recording]:
    """The answers among `conversation`, each with its request. `request` is the body of the first one.

    Raises `ConfigurationError` if an answer in the middle is not whole, or if there are not as many results as calls, or no
    messages in the request. A message becomes a recording named by its number among the answers.
    """
    messages, recordings = _question(request), list[Recording]()
    for turn in conversation:
        if isinstance(turn, Recording | Message | Mapping):
            body = {**request, "messages": list(messages)}
            answer = turn if isinstance(turn, Recording) else recording_of(turn, name=f"answer {len(recordings) + 1}")
            recordings.append(replace(answer, request=RecordedRequest("POST", "/v1/messages", {}, body)))
            continue
        content = _answer_before(recordings)
        said = _results(content, turn) if isinstance(turn, ToolResults) else turn
        messages += [{"role": "assistant", "content": content}, {"role": "user", "content": said}]
    return recordings


def _question(request: Mapping[str, Any]) -> list[Any]:
    if not isinstance(request, Mapping):
        raise ConfigurationError(f"the first argument is the body of the first request, not {quote(repr(request))}")
    messages = request.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ConfigurationError("the request has no messages: a list with the first question, as the API takes it")
    return list(messages)


def _answer_before(recordings: Sequence[Recording]) -> Any:
    """The content of the last answer, as the next request sends it back."""
    if not recordings:
        raise ConfigurationError("the conversation must begin with an answer: the first question is in the request")
    reply = reply_in(recordings[-1])
    if reply is None:
        raise ConfigurationError(f"{recordings[-1].name} has no whole message: nothing can come after it")
    return reply.get("content")


def _results(content: Any, results: ToolResults) -> list[Any]:
    blocks = content if isinstance(content, list) else []
    calls = [block["id"] for block in blocks if block.get("type") == "tool_use"]
    if len(calls) != len(results.contents):
        raise ConfigurationError(f"the answer calls {len(calls)} tools, and there are {len(results.contents)} results")
    return [
        {"type": "tool_result", "tool_use_id": call, "content": given}
        for call, given in zip(calls, results.contents, strict=True)
    ]
