"""Which tool calls of an answer may be run, and what the next request says of the answer.

This file knows how an answer with tool calls goes on, after its stop reason
(https://docs.anthropic.com/en/docs/build-with-claude/handling-stop-reasons). It refuses to know how a tool is run, and when.

    for call in plan_calls(message, toolbox):
        call.problem        # why it must not be run: told to the model as an error, so that it may ask again
        call.tool           # what runs it; None: nothing here does

A call whose input was cut is never run: a cut input is no JSON object, and looks like a shorter one if it is read leniently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeGuard

from rawsse.client.tools.tool import Tool, Toolbox
from rawsse.errors import quote
from rawsse.messages.content import Message, ToolUseBlock
from rawsse.messages.lens import copied

__all__ = ["Step", "ToolCall", "assistant_turn", "closed_turn", "is_call", "plan_calls", "step_of"]

Step: TypeAlias = Literal["run", "resume", "stop"]
"""What follows an answer: its tools are run; it is sent back as it is, and the model goes on with it; nothing."""

_STEPS: Mapping[str, Step] = {"tool_use": "run", "pause_turn": "resume", "compaction": "resume"}


def step_of(stop_reason: str | None) -> Step:
    """What follows an answer that ended so. Every other reason, known or not, is an end."""
    return _STEPS.get(str(stop_reason), "stop")


class ToolCall(NamedTuple):
    """One tool call of an answer. `id` is unique in it; where the model's own was not, it is one that is."""

    block: ToolUseBlock
    id: str
    tool: Tool[..., Any] | None = None
    problem: str = ""

    @property
    def is_answered_here(self) -> bool:
        """There is a tool that runs it, or a problem to tell of."""
        return self.tool is not None or bool(self.problem)

    @property
    def input(self) -> Any:
        """A copy of the input: what a tool does to it is not done to the message."""
        return copied(self.block.raw["input"])

    def refusal(self) -> dict[str, Any]:
        """The `tool_result` that tells the model of the problem."""
        return {"type": "tool_result", "tool_use_id": self.id, "content": self.problem, "is_error": True}


def is_call(block: object) -> TypeGuard[ToolUseBlock]:
    """The block is a call of a tool that runs at the caller's, not at Anthropic or at an MCP server."""
    return isinstance(block, ToolUseBlock) and block.get("type") == "tool_use"


def plan_calls(message: Message, toolbox: Toolbox) -> list[ToolCall]:
    """The calls of an answer, in its order: what runs each, or why it may not be run."""
    calls: list[ToolCall] = []
    for block in message.content:
        if is_call(block):
            calls.append(_plan(block, {call.id for call in calls}, toolbox))
    return calls


def _plan(block: ToolUseBlock, taken: set[str], toolbox: Toolbox) -> ToolCall:
    given, name = block.get("id"), block.get("name")
    call_id = given if isinstance(given, str) and given else "toolu_without_id"
    if call_id in taken or call_id != given:
        said = f"the id {quote(call_id)} has been used for another call of this answer" if call_id == given else "no id"
        return ToolCall(block, _free(call_id, taken), problem=f"This call was not run: {said}. Make it again.")
    if not block.complete:
        said = f"its input is no whole JSON object: {quote(block.input_text)}"
        return ToolCall(block, call_id, problem=f"This call was not run: {said}. Make it again.")
    if isinstance(name, str) and name in toolbox.names:
        return ToolCall(block, call_id, toolbox.functions.get(name))
    known = ", ".join(toolbox.names) or "none"
    return ToolCall(block, call_id, problem=f"There is no tool {quote(str(name))}. The tools are: {known}.")


def _free(call_id: str, taken: set[str]) -> str:
    number = 2
    while f"{call_id}_{number}" in taken:
        number += 1
    return f"{call_id}_{number}"


# --- The answer in the next request --------------------------------------------------------------------------------


def assistant_turn(message: Message, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """An answer with its calls as the turn that goes before their results: each call in a form that the API takes.

    Of an input that is no JSON object the text is sent back, in an object of one field, as the documentation of fine-grained
    tool streaming has it.
    """
    waiting = list(calls)
    content: list[dict[str, Any]] = []
    for block in message.content:
        if is_call(block) and waiting:
            call = waiting.pop(0)
            input = block.raw["input"] if block.complete else {"INVALID_JSON": block.input_text}  # noqa: A001
            content.append({**block.raw, "id": call.id, "name": str(block.get("name") or "unnamed"), "input": input})
        else:
            content.append(block.raw)
    whole = Message({**message.raw, "content": content}).replayable()
    return whole or {"role": "assistant", "content": []}


def closed_turn(message: Message | None) -> dict[str, Any] | None:
    """An answer as a turn that nothing need follow: without its tool calls, which would need results. None if that is
    nothing."""
    turn = message.replayable() if message is not None else None
    content = [block for block in turn["content"] if block.get("type") != "tool_use"] if turn else []
    return {"role": "assistant", "content": content} if content else None
