"""The tool loop: ask, run the tools that the answer calls, send their results back, until the model is done.

This file knows the history of the loop and when it stops. It refuses to know how a request is made (it is given something that
has `stream`), and how tools run (`turn.py`).

    runner = client.messages.tool_runner(model=…, max_tokens=…, messages=[…], tools=[get_weather], max_turns=10)
    async for message in runner: ...                 # each answer, whole, before its tools run
    async for text in runner.text_stream: ...        # or: the text of all answers, as it comes
    message = await runner.until_done()              # or: the last answer

With `stream=True` each turn is an open `MessageStream`; what the loop's body leaves unread, the runner reads. When the body is
done with an answer, its tools run, all of them beside each other.

A turn is whole, or it did not happen: if one fails, `messages` holds those before it, and iterating again asks again. Leave
a loop early only inside `async with runner`, or `close()` it, so that nothing goes on in the background.

There are no threads held at the server: each request carries the whole history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from rawsse.client.stream import MessageStream
from rawsse.client.tools.calls import assistant_turn, closed_turn, step_of
from rawsse.client.tools.tally import TotalUsage, add_up, usage_of
from rawsse.client.tools.tool import Toolbox
from rawsse.client.tools.turn import Turn
from rawsse.errors import APIStatusError, ConfigurationError
from rawsse.messages.content import Block, Message, ToolUseBlock
from rawsse.messages.lens import Lens

__all__ = ["HasStream", "ToolRunner"]

Item = TypeVar("Item", Message, MessageStream)


class HasStream(Protocol):
    """What a runner needs of `client.messages`."""

    @property
    def stream(self) -> Callable[..., MessageStream]:
        """Makes a stream of an answer, to be opened with `async with`, of the arguments of `messages.stream`."""
        ...


class ToolRunner(Generic[Item]):
    """Asks, runs tools, and asks again. An asynchronous iterator over the answers: `Message`s, or with `stream` open
    `MessageStream`s.

    `tools` are `Tool`s, functions, and definitions without a function. `max_turns` (or `max_iterations`) bounds how many
    answers are asked for. With `run_tools_eagerly` a tool starts while the rest of its answer still comes. `fields` are any
    other arguments of `client.messages.stream`. `thread` is the official SDK's; only False is possible.

    `stopped_by` says why the loop is over: the answer's stop reason ("end_turn", "max_tokens", "refusal" …), "max_turns",
    "tool without function", or "closed". Tools run only after the stop reason "tool_use".
    """

    def __init__(
        self,
        api: HasStream,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any] | Message],
        tools: Iterable[Any] = (),
        max_turns: int | None = None,
        max_iterations: int | None = None,
        stream: bool = False,
        run_tools_eagerly: bool = False,
        thread: bool = False,
        **fields: Any,
    ) -> None:
        if thread:
            raise ConfigurationError("threads that the server holds are not supported: each request has all messages")
        limit = max_iterations if max_turns is None else max_turns
        if limit is not None and limit < 1:
            raise ConfigurationError(f"max_turns must be 1 or more, not {limit}")
        self.stopped_by: str | None = None
        self._api = api
        self._history = [_as_turn(message) for message in messages]
        self._fields = {"model": model, "max_tokens": max_tokens, **fields}
        self._toolbox = Toolbox(tools)
        self._max_turns = limit
        self._turns_taken = 0  # since the loop began, or was begun again by `append_messages`
        self._is_streaming = stream
        self._is_eager = run_tools_eagerly
        self._usages: list[TotalUsage] = []
        self._turn: Turn | None = None  # under way: its answer comes, or the loop's body has it
        self._last: Turn | None = None  # the same, or the one before
        self._partial: Message | None = None
        self._appended: list[dict[str, Any]] = []  # by the loop's body

    # What is known -------------------------------------------------------------------------------------------------

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history: whole turns only, so that it may be sent with a new question at any time.

        If the loop was stopped by a "tool without function", the last answer is not in it: append the answer, and a user's
        turn with all results, and iterate again.
        """
        return list(self._history)

    @property
    def last_message(self) -> Message | None:
        """The last answer, or as much of it as has come; None before the first."""
        return self._last.snapshot if self._last is not None else None

    @property
    def current_stream(self) -> MessageStream | None:
        """The stream of the answer under way, or of the last one; None before the first."""
        return self._last.stream if self._last is not None else None

    @property
    def is_turn_whole(self) -> bool:
        """There is a turn under way, and its answer has come to its end."""
        return self._turn is not None and self._turn.is_whole

    @property
    def partial(self) -> Message | None:
        """As much as had come of the answer whose turn failed; None if none did, or it never began."""
        return self._partial

    @property
    def usage(self) -> TotalUsage:
        """What all turns cost together; `usage.turns` is what each cost. The turn under way is not in it."""
        return add_up(self._usages)

    @property
    def unanswered(self) -> list[ToolUseBlock]:
        """The calls of the last answer for which there is no function here."""
        calls = self._last.calls() if self._last is not None else []
        return [call.block for call in calls if not call.is_answered_here]

    # The loop ------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        """The next answer. Raises `APIError` if the turn failed; the history is then as it was before it."""
        turn = await self._advance()
        if turn is None:
            raise StopAsyncIteration
        item: Any = turn.stream if self._is_streaming else await self._guarded(turn.message)
        return cast(Item, item)

    async def until_done(self) -> Message:
        """Go on to the end of the loop; the last answer."""
        while await self._advance() is not None:
            pass
        message = self.last_message
        if message is None:
            raise RuntimeError("the runner was closed before its first answer")
        return message

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The text of all answers, piece by piece. It takes from the same iterator as the runner itself."""
        return _Text(self)

    async def _next_text(self) -> str | None:
        if self._turn is None:
            await self._advance()
        while self._turn is not None:
            text: str | None = await self._guarded(self._text_of_turn)
            if text is not None:
                return text
            await self._advance()
        return None

    async def _text_of_turn(self) -> str | None:
        return await anext(self._turn.stream.text_stream, None) if self._turn is not None else None

    async def _advance(self) -> Turn | None:
        """Finish the turn under way, and begin the next; None if there is none."""
        if self._turn is not None:
            await self._guarded(self._finish)
        if self.stopped_by is None and self._max_turns is not None and self._turns_taken >= self._max_turns:
            self.stopped_by = "max_turns"
        if self.stopped_by is not None:
            return None
        self._partial = None
        tools = {"tools": self._toolbox.definitions} if self._toolbox.definitions else {}
        stream = self._api.stream(messages=list(self._history), **{**self._fields, **tools})
        try:
            await stream.__aenter__()
        except BaseException as exc:
            if not isinstance(exc, APIStatusError) and getattr(exc, "phase", None) != "connect":
                self._usages.append(usage_of(None, exact=False))  # the request may have been read, and be paid for
            raise
        self._turn = self._last = Turn(stream, self._toolbox, eagerly=self._is_eager)
        return self._turn

    async def _guarded(self, work: Callable[[], Any]) -> Any:
        """Do what belongs to the turn; if it fails, there was no turn."""
        try:
            return await work()
        except BaseException:
            await self._abandon()
            raise

    async def _finish(self) -> None:
        turn = self._turn
        assert turn is not None  # noqa: S101 - whoever finishes a turn has looked
        message = await turn.message()
        is_owned = any(appended["role"] == "assistant" for appended in self._appended)
        added = await self._go_on(turn, message, is_owned=is_owned)
        await turn.close()
        self._turn = None
        self._turns_taken += 1
        self._usages.append(usage_of(message, exact=True))
        self._history += [message for message in added if message is not None] + self._appended
        self._appended = []

    async def _go_on(self, turn: Turn, message: Message, *, is_owned: bool) -> list[dict[str, Any] | None]:
        """Do what follows the answer, and give what the history gets of it: nothing, if the loop's body has seen to that."""
        calls = turn.calls()
        step = step_of(message.stop_reason) if calls or message.stop_reason != "tool_use" else "stop"
        if step == "stop":
            self.stopped_by = str(message.stop_reason or "no stop reason")
        if is_owned:
            return []
        if step == "run" and self.unanswered:
            self.stopped_by = "tool without function"
            return []
        if step == "run":
            return [assistant_turn(message, calls), {"role": "user", "content": await turn.results()}]
        return [message.replayable() if step == "resume" else closed_turn(message)]

    async def _abandon(self) -> None:
        turn, self._turn = self._turn, None
        self._appended = []
        if turn is not None:
            self._partial = turn.snapshot
            self._usages.append(usage_of(self._partial, exact=turn.is_whole))
            await turn.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the loop: the answer under way is dropped, and tools that run are cancelled."""
        self.stopped_by = self.stopped_by or "closed"
        await self._abandon()

    # Changing its course -------------------------------------------------------------------------------------------

    def append_messages(self, *messages: Mapping[str, Any] | Message) -> None:
        """Add messages to the history. In the loop's body: after the answer and the results of its tools; but if an
        assistant's turn is among them, the turn is yours, and the runner adds nothing and runs no tools.

        After the loop: it can be iterated again, and goes on with these messages.
        """
        turns = [_as_turn(message) for message in messages]
        if self._turn is not None:
            self._appended += turns
        else:
            self._history += turns
            self.stopped_by = None
            self._turns_taken = 0

    def set_messages_params(self, params: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the arguments of the requests that follow (`model`, `messages`, `tools` …), or change them by a function
        that gets them and returns new ones. A field that is left out is no longer sent; `messages` and `tools` then stay."""
        current = {**self._fields, "messages": self.messages, "tools": list(self._toolbox.given)}
        new = dict(params(current) if callable(params) else params)
        if missing := [name for name in ("model", "max_tokens") if name not in new]:
            raise ConfigurationError(f"the params lack {' and '.join(missing)}")
        self._toolbox = Toolbox(new.pop("tools", self._toolbox.given))
        self._history = [_as_turn(message) for message in new.pop("messages", self._history)]
        self._fields = new

    async def generate_tool_call_response(self) -> dict[str, Any] | None:
        """Run the tools of the last answer now, those that have not run yet: the user's turn with their results.

        None if the answer did not stop for tools, or calls none that has a function here. No call runs twice.
        """
        turn = self._last
        if turn is None:
            return None
        message = await self._guarded(turn.message)
        results = await self._guarded(turn.results) if step_of(message.stop_reason) == "run" else []
        return {"role": "user", "content": results} if results else None

    def defer_tool_call(self, call: Block | str) -> None:
        """With `run_tools_eagerly`: do not start this call (its block, or its id) before the loop's body is done with the
        answer. Leave the loop instead, and it never runs. For a call that has started this does nothing."""
        if self._turn is not None:
            self._turn.hold(call if isinstance(call, str) else str(call.get("id")))

    @property
    def deferred_tool_calls(self) -> list[ToolUseBlock]:
        """The calls of the current answer that `defer_tool_call` holds back, as far as they have come."""
        return self._turn.held if self._turn is not None else []


class _Text(AsyncIterator[str]):
    def __init__(self, runner: ToolRunner[Any]) -> None:
        self._runner = runner

    async def __anext__(self) -> str:
        text = await self._runner._next_text()
        if text is None:
            raise StopAsyncIteration
        return text


def _as_turn(message: Mapping[str, Any] | Message) -> dict[str, Any]:
    """A message as the history keeps it: plain JSON."""
    if isinstance(message, Message):
        return message.replayable() or {"role": "assistant", "content": []}
    turn = dict(message)
    if isinstance(content := turn.get("content"), Sequence) and not isinstance(content, str):
        turn["content"] = [block.raw if isinstance(block, Lens) else block for block in content]
    if "role" not in turn:
        raise ConfigurationError("a message has no role")
    return turn
