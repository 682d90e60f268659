"""One answer with its tool calls: which wait, which run, and what came of them.

This file knows tasks: tools run beside each other, each once, and none outlives its turn. It refuses to know what comes before
and after the answer.

    turn = Turn(stream, toolbox, eagerly=True)
    async for event in turn.stream: ...          # tools start while the rest of the answer still comes
    results = await turn.results()               # the others run now: one tool_result per call, in the order of the calls
    await turn.close()                           # at any time: nothing runs any more
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from rawsse.client.stream import MessageStream
from rawsse.client.tools.calls import ToolCall, is_call, plan_calls
from rawsse.client.tools.tool import Toolbox, run_tool
from rawsse.messages.content import Message, ToolUseBlock
from rawsse.messages.events import (
    ContentBlockStart,
    ContentBlockStop,
    MessageDelta,
    MessageStreamEvent,
)
from rawsse.messages.lens import object_at

__all__ = ["Turn"]


class Turn:
    """An answer that comes, and the tasks of its tools.

    With `eagerly` it watches the stream: a call starts as soon as the model has moved on from it (the next block begins, or the
    answer stops for its tools) and the reader asks for the next event. Its own end does not suffice: an answer that is cut or
    refused may end its last call, too.
    """

    def __init__(self, stream: MessageStream, toolbox: Toolbox, *, eagerly: bool = False) -> None:
        self.stream = stream
        self._toolbox = toolbox
        self._is_eager = eagerly
        self._tasks: dict[str, asyncio.Task[dict[str, Any]]] = {}  # by the id of the call
        self._held: set[str] = set()
        self._finished: list[ToolUseBlock] = []
        self._last: ToolUseBlock | None = None  # finished, and the model has not moved on from it
        self._ready: ToolUseBlock | None = None  # the model has moved on; it starts when the reader asks for more
        self._may_start = eagerly
        if eagerly:
            stream._watch(self)

    # The answer ----------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Message | None:
        """The message so far; None if it has not begun."""
        try:
            return self.stream.current_message_snapshot
        except RuntimeError:
            return None

    @property
    def is_whole(self) -> bool:
        """The answer has come to its end."""
        return self.stream.ending is not None and self.stream.ending.kind == "complete"

    async def message(self) -> Message:
        """The whole message; the rest of it is read. Raises `APIError` if there is none."""
        return await self.stream.get_final_message()

    def asked(self) -> None:
        """The reader asks for the next event: what is ready starts."""
        block, self._ready = self._ready, None
        if block is None or not self._may_start:
            return
        for call in self.calls():
            if call.block.raw is block.raw and call.tool is not None and call.id not in self._held:
                self._start(call)

    def note(self, event: MessageStreamEvent) -> None:
        """The reader gets this event."""
        match event:
            case ContentBlockStop(content_block=ToolUseBlock() as block) if is_call(block):
                self._finished.append(block)
                self._last = block
            case ContentBlockStart():
                if event.content_block.get("type") == "fallback":
                    # Another model goes on, because this one refused: what it had asked for waits for the end.
                    self._may_start = False
                self._ready, self._last = self._last, None
            case MessageDelta() if object_at(event.raw, "delta").get("stop_reason") == "tool_use":
                self._ready, self._last = self._last, None

    # Calls ---------------------------------------------------------------------------------------------------------

    def hold(self, call_id: str) -> None:
        """Let this call wait for `results`."""
        if self._is_eager and call_id not in self._tasks:
            self._held.add(call_id)

    @property
    def held(self) -> list[ToolUseBlock]:
        """The calls that wait because of `hold` and have come whole, in the model's order."""
        held = list(self._held - self._tasks.keys())
        return [block for block in self._finished if block.get("id") in held]

    def calls(self) -> list[ToolCall]:
        """All calls of the answer, as far as it has come."""
        message = self.snapshot
        return plan_calls(message, self._toolbox) if message is not None else []

    async def results(self) -> list[dict[str, Any]]:
        """A `tool_result` for each call that is answered here, in the order of the calls; what has not run runs now.

        Cancelled, it cancels the tools, and waits until they are over.
        """
        calls = [call for call in self.calls() if call.is_answered_here]
        for call in calls:
            if call.tool is not None and call.id not in self._tasks:
                self._start(call)
        try:
            if self._tasks:
                await asyncio.wait(self._tasks.values())
        except BaseException:
            await _end(self._tasks.values())
            raise
        return [call.refusal() if call.tool is None else self._tasks[call.id].result() for call in calls]

    def _start(self, call: ToolCall) -> None:
        assert call.tool is not None  # noqa: S101 - whoever starts a call has looked
        # The task knows the tool and the input, and not the turn.
        self._tasks[call.id] = asyncio.create_task(run_tool(call.tool, call.id, call.input))

    async def close(self) -> None:
        """End the stream, and cancel the tools that run."""
        await self.stream.close()
        await self.stop()

    async def stop(self) -> None:
        """Cancel the tools that run."""
        await _end(self._tasks.values())


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what runs, and wait until it is over: a tool may have something to put away."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    if running := [task for task in tasks if not task.done()]:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that nobody reports it as lost
