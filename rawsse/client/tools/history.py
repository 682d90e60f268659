"""The history of a conversation in the form that the API accepts.

    as_turn(message)                              # a message as the history keeps it: plain JSON
    as_history(messages)                          # the messages of the next request
    as_history(messages, is_over=True)            # the same before a new question

The API refuses some blocks that it has sent itself (thinking at the end, calls without results …); `sendable` in
`messages/content.py` says which. Here are the rules that concern several turns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, TypeGuard

from rawsse.errors import ConfigurationError
from rawsse.messages.content import (
    Message,
    ToolUseBlock,
    caller_of,
    id_of,
    is_sendable,
    look_at_block,
    result_of,
    sendable,
)
from rawsse.messages.lens import Lens, as_sent, sendable_json


def as_turn(message: Mapping[str, Any] | Message) -> dict[str, Any]:
    """A message as the history keeps it: plain JSON."""
    if isinstance(message, Message):
        return message.replayable() or {"role": "assistant", "content": []}
    turn = dict(message)
    if isinstance(content := turn.get("content"), Iterable) and not isinstance(content, str | Mapping):
        turn["content"] = [block.raw if isinstance(block, Lens) else block for block in content]
    if "role" not in turn:
        raise ConfigurationError("a message has no role")
    return turn


def as_history(messages: Sequence[dict[str, Any]], *, is_over: bool = False) -> list[dict[str, Any]]:
    """The messages as the API takes them: without the blocks that it refuses (`sendable`), and with neighbours of one role as
    one turn, as the API itself reads them.

    A server's call without result stays while the API makes up for it: if nothing follows but the results of the caller's
    tools. `is_over`: a question follows, or is the last turn; then a call stays only with a result in the turn after it.
    """
    turns: list[dict[str, Any]] = []  # from the last to the first
    answered = {""}  # the calls whose results are in later answers, and "" for no call
    is_open = not is_over
    for turn in reversed(_matched(messages) if is_over else messages):
        content = turn.get("content")
        if not all(isinstance(block, dict) for block in blocks_of(content)):
            turns.append(turn)  # the API says what is wrong
            continue
        blocks = [look_at_block(block) for block in blocks_of(content)]
        if turn["role"] == "assistant":
            answered.update(map(result_of, blocks))
            if is_open:
                answered.update(map(caller_of, blocks))  # code that runs, or waits for the results
            kept = [block for block in blocks if not is_call(block) or caller_of(block) in answered]
            kept = sendable(kept, "pause_turn" if is_open else None, answered)
            raws = [sendable_json(block.raw) for block in kept]
            _drop_results({id_of(block) for block in blocks if is_call(block)} - set(map(id_of, kept)), turns)
        else:
            kept = [block for block in blocks if is_sendable(block)]
            raws = [_without_blanks(block.raw) for block in kept]
            is_open = is_open and not turns and all(block.get("type") == "tool_result" for block in kept)
        if kept:
            turns.append({**turn, "content": raws if isinstance(content, list) else content})
    return _joined(reversed(turns))


def _joined(turns: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    history = list[dict[str, Any]]()
    for turn in turns:
        if history and history[-1]["role"] == turn["role"] != "system":
            blocks = [*blocks_of(history[-1]["content"]), *blocks_of(turn["content"])]
            history[-1] = {**turn, "content": _results_first(blocks)}
        else:
            history.append(turn)
    return history


def _matched(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages without the calls that have no result in the user's turns after the answer, and without the results that
    have no call in the answer before them: the API refuses both."""
    runs = [[*run] for _, run in groupby(messages, key=_is_answer)]
    calls = [{_call_of(block) for turn in run for block in blocks_of(turn.get("content"))} for run in runs]
    matched = [
        {""},
        *({*one & other, ""} for one, other in pairwise(calls)),
        {""},
    ]  # before, between and after the runs
    history = []
    for number, run in enumerate(runs):
        for turn in run:
            known, content = matched[number + _is_answer(turn)], turn.get("content")
            if isinstance(content, list):
                content = _results_first(block for block in content if _call_of(block) in known)
            history.append({**turn, "content": content})
    return history


def _is_answer(turn: Mapping[str, Any]) -> bool:
    return bool(turn["role"] == "assistant")


def _call_of(block: Any) -> str:
    """The id of the client's call that it is, or whose result it is; empty for other blocks."""
    name = _CALL_IDS.get(str(block.get("type"))) if isinstance(block, dict) else None
    return str(block.get(name)) if name else ""


_CALL_IDS: Mapping[str, str] = {"tool_use": "id", "tool_result": "tool_use_id"}


def _results_first(blocks: Iterable[Any]) -> list[Any]:
    """The API: "the tool_result blocks must come first in the content array. Any text must come after all tool results"
    (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use)."""
    return sorted(blocks, key=lambda block: not isinstance(block, dict) or block.get("type") != "tool_result")


def _without_blanks(block: dict[str, Any]) -> dict[str, Any]:
    """A block of a user's turn; a tool's result is without blank texts, as the runner makes it (`content_of`)."""
    content = block.get("content")
    if block.get("type") != "tool_result" or not isinstance(content, list):
        return block
    kept = [each for each in content if not isinstance(each, dict) or is_sendable(look_at_block(each))]
    return {**block, "content": kept}


def _drop_results(calls: Collection[str], turns: list[dict[str, Any]]) -> None:
    """Remove the results of these calls from the turn that stands last."""
    if calls and turns:
        turn = turns.pop()
        if kept := [block for block in blocks_of(turn["content"]) if block.get("tool_use_id") not in calls]:
            turns.append({**turn, "content": kept})


def blocks_of(content: Any) -> list[Any]:
    """The content of a turn as blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else [] if content is None else [content]


def closed_turn(message: Message | None) -> dict[str, Any] | None:
    """An answer as a turn without its tool calls, which would need results. None if nothing else is in it."""
    blocks = [block for block in message.content if not is_call(block)] if message is not None else []
    content = [as_sent(block.raw) for block in sendable(blocks, None)]
    return {"role": "assistant", "content": content} if content else None


def is_call(block: object) -> TypeGuard[ToolUseBlock]:
    """The block calls a tool of the caller, not one that runs at Anthropic or at an MCP server."""
    return isinstance(block, ToolUseBlock) and block.get("type") == "tool_use"
