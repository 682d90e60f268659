"""The tool loop: send a request, run the tools that the answer calls, send their results, until the model is done
(https://docs.anthropic.com/en/docs/build-with-claude/handling-stop-reasons).

    runner = client.messages.tool_runner(model=…, max_tokens=…, messages=[…], tools=[get_weather], max_seconds=60)
    async for message in runner: ...                 # each complete answer, before its tools run
    async for text in runner.text_stream: ...        # or: the text of all answers, as it arrives
    message = await runner.until_done()              # or: the last answer

With `stream=True` the runner yields open `MessageStream`s and reads the rest if the loop's body does not. The tools of
an answer run concurrently once the body has finished.

A turn is an answer with the results of its tools. It is added to `messages` as a whole or not at all: after a failure,
`messages` holds the turns before it, and iterating again repeats the request. Requests have the messages in the form
that the API accepts (`as_history`). A call with a truncated input never runs. To leave a loop early, use `async with
runner` or `close()` it, so that nothing keeps running.

Server-side threads are not used: each request carries the whole history.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Any, Generic, NamedTuple, Self, TypeGuard, TypeVar, cast, overload

from rawsse.client.exchange import LOOP_TIMEOUT
from rawsse.client.network.connect import Stop
from rawsse.client.network.link import Aborted, Expired
from rawsse.client.request import listed, typed
from rawsse.client.retry import check_number, check_seconds
from rawsse.client.stream import MessageStream
from rawsse.client.tools.tool import Tool, Toolbox, failed, run_tool, run_tool_on_loop, tool_result
from rawsse.errors import APIError, ConfigurationError, StreamCancelledError, TotalTimeoutError, TurnLimitError, quote
from rawsse.messages.content import (
    NOTHING,
    Message,
    ParsedMessage,
    ToolUseBlock,
    Usage,
    add_counts,
    billed,
    caller_of,
    id_of,
    is_sendable,
    look_at_block,
    result_of,
    sendable,
    without_replaced,
)
from rawsse.messages.lens import Lens, as_sent, object_at, sendable_json

Item = TypeVar("Item")
T = TypeVar("T")


# --- The history -------------------------------------------------------------------------------------------------


def as_turns(messages: Iterable[Mapping[str, Any] | Message]) -> list[dict[str, Any]]:
    """The messages as plain JSON, for the history. Raises `ConfigurationError`, as `as_turn` does."""
    return [as_turn(message, f"messages[{number}]") for number, message in enumerate(listed("messages", messages))]


def as_turn(message: Mapping[str, Any] | Message, where: str) -> dict[str, Any]:
    """A message as plain JSON, for the history. Raises `ConfigurationError` if it has no known role, or if its content is
    neither text nor blocks."""
    if isinstance(message, Message):
        return message.replayable() or {"role": "assistant", "content": []}
    turn = dict(message) if isinstance(message, Mapping | Lens) else {}
    if turn.get("role") not in ("user", "assistant", "system"):
        raise ConfigurationError(f"{where} needs the role user, assistant or system: {quote(repr(message))}")
    if not isinstance(content := turn.get("content"), str):
        given = listed(f"{where}: the content", content, "a text or a list of blocks")
        turn["content"] = blocks = [block.raw if isinstance(block, Lens) else block for block in given]
        if wrong := [repr(block) for block in blocks if not isinstance(block, dict) or "type" not in block]:
            raise ConfigurationError(f"{where}: a content block must be an object with a type, not {quote(wrong[0])}")
    return turn


def as_history(messages: Sequence[dict[str, Any]], *, is_over: bool = False) -> list[dict[str, Any]]:
    """The messages in the form that the API accepts: without the blocks that it rejects (`sendable`), and with consecutive
    messages of one role merged, as the API merges them.

    A server tool call without a result is kept where the API accepts it: if only the results of the caller's tools
    follow. `is_over`: a question follows, or is the last turn; then a call is kept only with a result in the next turn.
    """
    turns: list[dict[str, Any]] = []  # from the last to the first
    answered = {""}  # calls whose results are in later answers, and "" for no call
    is_open = not is_over
    for turn in reversed(_matched(messages) if is_over else messages):
        content = turn.get("content")
        blocks = [look_at_block(block) for block in blocks_of(content)]
        if turn["role"] == "assistant":
            answered.update(map(result_of, blocks))
            if is_open:
                answered.update(map(caller_of, blocks))  # code that is running or waits for the results
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
    """Remove calls without a result in the user's turns after the answer, and results without a call in the answer before
    them: the API rejects both."""
    runs = [(is_answer, [*run]) for is_answer, run in groupby(messages, key=lambda turn: turn["role"] == "assistant")]
    calls = [{_call_of(block) for turn in run for block in blocks_of(turn.get("content"))} for _, run in runs]
    # Before, between and after the runs.
    matched = [{""}, *({*one & other, ""} for one, other in pairwise(calls)), {""}]
    history = []
    for number, (is_answer, run) in enumerate(runs):
        known = matched[number + is_answer]
        for turn in run:
            if isinstance(content := turn.get("content"), list):
                content = _results_first(block for block in content if _call_of(block) in known)
            history.append({**turn, "content": content})
    return history


def _call_of(block: Mapping[str, Any]) -> str:
    """The id of a call of the client, or of the call that a result answers; empty for other blocks."""
    name = _CALL_IDS.get(str(block.get("type")))
    return str(block.get(name)) if name else ""


_CALL_IDS: Mapping[str, str] = {"tool_use": "id", "tool_result": "tool_use_id"}


def _results_first(blocks: Iterable[Any]) -> list[Any]:
    """The API: "the tool_result blocks must come first in the content array. Any text must come after all tool results"
    (https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use)."""
    return sorted(blocks, key=lambda block: block.get("type") != "tool_result")


def _without_blanks(block: dict[str, Any]) -> dict[str, Any]:
    """A block of a user's turn. A tool's result loses its blank texts, as it does in `content_of`."""
    content = block.get("content")
    if block.get("type") != "tool_result" or not isinstance(content, list):
        return block
    kept = [each for each in content if not isinstance(each, dict) or is_sendable(look_at_block(each))]
    return {**block, "content": kept}


def _drop_results(calls: Collection[str], turns: list[dict[str, Any]]) -> None:
    """Remove the results of these calls from the last turn."""
    if calls and turns:
        turn = turns.pop()
        if kept := [block for block in blocks_of(turn["content"]) if block.get("tool_use_id") not in calls]:
            turns.append({**turn, "content": kept})


def blocks_of(content: Any) -> list[Any]:
    """The content of a turn as a list of blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else [] if content is None else [content]


def closed_turn(message: Message | None) -> dict[str, Any] | None:
    """An answer as a turn without its tool calls, which would need results. None if nothing is left."""
    blocks = [block for block in message.content if not is_call(block)] if message is not None else []
    content = [as_sent(block.raw) for block in sendable(blocks, None)]
    return {"role": "assistant", "content": content} if content else None


def is_call(block: object) -> TypeGuard[ToolUseBlock]:
    """Whether the block calls one of the caller's tools, not one that Anthropic or an MCP server runs."""
    return isinstance(block, ToolUseBlock) and block.get("type") == "tool_use"


# --- Usage ---------------------------------------------------------------------------------------------------------


class TotalUsage(Usage):
    """Token counts of one or several answers. `turns` are the counts of each answer that began.

    `exact` is False if an answer was truncated, or a request got none: the counts are then a lower bound.
    """

    __slots__ = ("exact", "turns")

    def __init__(self, raw: dict[str, Any], *, exact: bool = True, turns: Sequence[TotalUsage] = ()) -> None:
        super().__init__(raw)
        self.exact = exact
        self.turns = tuple(turns)


def usage_of(message: Message | None, *, exact: bool) -> TotalUsage:
    """The billed counts of one answer; empty for an answer that never began.

    Not exact for a truncated answer, or if the usage has unknown `iterations`.
    """
    if message is None:
        return TotalUsage({}, exact=exact)
    usage = message.get("usage")
    counts = {**NOTHING, **(as_sent(usage) if isinstance(usage, dict) else {})}
    all_counts = billed(counts)
    return TotalUsage(counts if all_counts is None else all_counts, exact=exact and all_counts is not None)


def add_up(turns: Sequence[TotalUsage]) -> TotalUsage:
    """The sum of every count, known or not, including those in objects (`server_tool_use`). Other values are ignored;
    `turns` omits answers that never began."""
    total: dict[str, Any] = {**NOTHING}
    for turn in turns:
        add_counts(turn.raw, total)
    return TotalUsage(total, exact=all(turn.exact for turn in turns), turns=[turn for turn in turns if turn.raw])


# --- The calls of an answer ----------------------------------------------------------------------------------------


def step_of(stop_reason: str | None) -> str:
    """The next step after an answer: "run" its tools, "resume" (send it back so that the model continues), or "stop". Unknown
    stop reasons stop."""
    return {"tool_use": "run", "pause_turn": "resume", "compaction": "resume"}.get(str(stop_reason), "stop")


class ToolCall(NamedTuple):
    """One tool call of an answer. `id` is unique within the answer; a missing or duplicate id is replaced.

    `refusal` is the result of a call that must not run: it explains why, so that the model can call again. `tool` runs
    the call. If both are None, the caller must provide the result.
    """

    block: ToolUseBlock
    id: str
    tool: Tool[..., Any] | None = None
    refusal: dict[str, Any] | None = None

    @property
    def is_answered_here(self) -> bool:
        """Whether the runner provides the result of the call."""
        return self.tool is not None or self.refusal is not None


def plan_calls(message: Message | None, toolbox: Toolbox, history: Iterable[Mapping[str, Any]] = ()) -> list[ToolCall]:
    """The tool calls of an answer, in order. `history` may have withdrawn tools."""
    calls: dict[str, ToolCall] = {}
    offered = _offered(toolbox.names, history)
    for block in filter(is_call, without_replaced(message.content) if message is not None else ()):
        given, name = block.get("id"), block.get("name")
        call_id = given if isinstance(given, str) and given else "toolu_without_id"
        if call_id != given:
            problem = "no id"
        elif call_id in calls:
            problem = f"the id {quote(call_id)} has been used for another call of this answer"
        elif not is_sendable(block):
            problem = f"its input is not a whole JSON object: {quote(_input_text(block))}"
        elif isinstance(name, str) and name in offered:
            calls[call_id] = ToolCall(block, call_id, toolbox.functions.get(name))
            continue
        else:
            problem = f"the tool {quote(str(name))} was not found (the tools are: {', '.join(offered) or 'none'})"
        while call_id in calls:
            call_id += "_2"
        refusal = tool_result(call_id, f"This call was not run: {problem}. Make a new call.", is_error=True)
        calls[call_id] = ToolCall(block, call_id, refusal=refusal)
    return list(calls.values())


def _offered(names: Iterable[str], history: Iterable[Mapping[str, Any]]) -> list[str]:
    """The tools that the model may call after these messages: a system's turn, or the compaction of one, may have withdrawn
    some and added others (https://docs.anthropic.com/en/docs/build-with-claude/mid-conversation-system-messages)."""
    offered = dict.fromkeys(names)
    for turn in history:
        blocks = blocks_of(turn.get("content"))
        inner = [each for block in blocks for each in blocks_of(block.get("tool_changes")) if isinstance(each, dict)]
        for change in blocks if turn["role"] == "system" else inner:
            tool = object_at(change, "tool")
            known = {"tool_reference": tool, "tool_definition": object_at(tool, "definition")}  # not an MCP server's
            name = str(known.get(str(tool.get("type")), {}).get("name", ""))
            if change.get("type") == "tool_removal":
                offered.pop(name, None)
            elif change.get("type") == "tool_addition" and name:
                offered[name] = None
    return list(offered)


def _input_text(block: ToolUseBlock) -> str:
    return block.input_text or json.dumps(block.get("input"))


def assistant_turn(message: Message, calls: Iterable[ToolCall]) -> dict[str, Any]:
    """An answer with all its calls as a turn, in a form that the API accepts before their results.

    An input that is not a JSON object is sent back as text, in an object with one field, as the documentation of
    fine-grained tool streaming recommends.
    """
    ids, blocks = iter([call.id for call in calls]), without_replaced(message.content)
    blocks = [_repaired(block, next(ids)) if is_call(block) else block for block in blocks]
    return {"role": "assistant", "content": [as_sent(block.raw) for block in sendable(blocks, "tool_use")]}


def _repaired(call: ToolUseBlock, call_id: str) -> ToolUseBlock:
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", str(call.get("name") or "unnamed"))[:128]
    given = call["input"] if is_sendable(call) else {"INVALID_JSON": _input_text(call)}
    return ToolUseBlock({**call.raw, "id": call_id, "name": name, "input": given})


# --- One turn -------------------------------------------------------------------------------------------------------

_CLOSED = "the runner was closed while its tools ran"


class _Turn:
    """An answer, and the results of its tool calls."""

    def __init__(self, stream: MessageStream, toolbox: Toolbox, since: float, max_seconds: float) -> None:
        self.stream = stream
        self._since, self._max_seconds = since, max_seconds
        self.toolbox = toolbox  # of this request: the loop's body may replace the runner's
        self._results: list[Any] | None = None
        self._has_started = False
        self._stop: Stop | None = None  # stops the running tools

    @property
    def message(self) -> Message | None:
        """The message so far; None before `message_start`."""
        try:
            return self.stream.current_message_snapshot
        except RuntimeError:
            return None

    @property
    def is_whole(self) -> bool:
        """Whether the answer is complete."""
        return self.stream.ending is not None and self.stream.ending.kind == "complete"

    @property
    def usage(self) -> TotalUsage:
        """The counts received so far."""
        return usage_of(self.message, exact=self.is_whole or self.stream._call.cost_nothing)

    async def results(self, api: Any, calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
        """A `tool_result` for each call that is answered here, in order. No call runs twice: raises `RuntimeError` if
        the tools were started before and have no results. Raises `TotalTimeoutError`."""
        if self._results is None:
            if self._has_started:
                raise RuntimeError("the tools of this answer are running already, or were cancelled")
            self._has_started = True
            calls = [call for call in calls if call.is_answered_here]
            run: Callable[..., Any] = partial(run_tool_on_loop, api._run) if api._runs_coroutines else run_tool
            jobs = [partial(run, call.tool, call.id, as_sent(call.block.raw["input"])) for call in calls if call.tool]
            until, problem = self._since + self._max_seconds, LOOP_TIMEOUT.format(seconds=self._max_seconds)
            try:
                if self.stream.timing.clock() >= until:
                    raise Expired
                names = dict.fromkeys(call.tool.name for call in calls if call.tool)
                problem += f" while its tools ran: {', '.join(names)}"
                ran = iter(await api._run(jobs, partial(setattr, self, "_stop"), until) if jobs else ())
            except Expired:
                raise self.with_ending(TotalTimeoutError(problem, seconds=self._max_seconds)) from None
            except Aborted:
                raise self.with_ending(StreamCancelledError(_CLOSED)) from None
            results = [(call.block.get("name"), call.id, call.refusal or next(ran)) for call in calls]
            self._results = [failed(name, id, ran) if isinstance(ran, Exception) else ran for name, id, ran in results]
        return list(self._results)

    def with_ending(self, error: APIError) -> APIError:
        """An error of the loop after this answer, with its ending: the answer's own is complete."""
        if (ending := self.stream.ending) is not None:
            error.ending, error.phase = ending._replace(kind=error.ending_kind, text=error.message), ending.phase
        return error

    async def stop(self) -> None:
        """Stop the running tools: async ones are cancelled and awaited."""
        if self._stop is not None:
            await self._stop()


# --- The loop ------------------------------------------------------------------------------------------------------

MAX_TURNS = 20
"""The default limit of answers in a tool loop: a model may call tools, or pause, endlessly."""


class ToolRunner(Generic[Item]):
    """The tool loop: an async iterator over the answers, as `Message`s or, with `stream`, as open `MessageStream`s.

    `api` is `client.messages`. `tools` are `Tool`s, functions, and definitions without a function. After `max_turns` (or
    `max_iterations`) answers the loop stops; without it, more than `rawsse.client.tools.runner.MAX_TURNS` raise
    `TurnLimitError`. `fields` are other arguments of `client.messages.stream`; the `container` of an answer is used for the
    next request. `thread` and `run_tools_eagerly` are arguments of the official SDK; only False is supported.

    `stopped_by` says why the loop ended: the answer's stop reason ("end_turn", "max_tokens", "refusal" …), "max_turns",
    "tool without function", or "closed"; None while it runs, and after an error, whose `ending` says what happened. The table
    in `Conversation` compares all ends. Tools run only after the stop reason "tool_use".

    `max_seconds` bounds the whole loop, from its first request on: waits, answers that stream, running tools. The step that
    takes too long raises `TotalTimeoutError`, whose `seconds` are `max_seconds`; `messages` has the turns before it. A retry
    that would come later is not waited for: its cause is raised at once. Coroutine tools are cancelled and awaited; other
    functions keep running in their threads, and their results are dropped. So with `max_seconds` a function always runs in
    another thread, in the blocking client too. The loop's body is not interrupted. The five clocks (`timeouts`) run for each
    answer. Iterating again after `append_messages`, once the loop is over, starts `max_seconds` again.
    """

    def __init__(
        self,
        api: Any,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any] | Message],
        tools: Iterable[Any] = (),
        max_turns: int | None = None,
        max_iterations: int | None = None,
        max_seconds: float | None = None,
        stream: bool = False,
        thread: bool = False,
        run_tools_eagerly: bool = False,
        **fields: Any,
    ) -> None:
        if thread:
            raise ConfigurationError("threads that the server holds are not supported: each request has all messages")
        if run_tools_eagerly:
            raise ConfigurationError("run_tools_eagerly is not supported: tools run when their answer is complete")
        self._max_turns = max_iterations if max_turns is None else max_turns
        if self._max_turns is not None:
            check_number(self._max_turns, "max_turns must be a whole number of 1 or more", least=1, kind=int)
        check_seconds("the tool loop", max_seconds=max_seconds)
        self._max_seconds = math.inf if max_seconds is None else max_seconds
        self._since: float | None = None  # when the loop began, in the network's time
        self.stopped_by: str | None = None
        self._partial: Message | None = None
        self._api = api
        self._history = as_turns(messages)
        self._fields = {"model": model, "max_tokens": max_tokens, **fields}
        self._toolbox = Toolbox(tools, can_await=api._runs_coroutines)
        self._turns_taken = 0  # since the loop began, or `append_messages` restarted it
        self._is_streaming = stream
        self._usages: list[TotalUsage] = []
        self._turn: _Turn | None = None  # current: its answer is arriving, or the loop's body has it
        self._last: _Turn | None = None  # the last one whose answer was opened
        self._appended: list[dict[str, Any]] = []  # by the loop's body

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history. It has only complete turns, so it can be sent with a new question at any time.

        If a "tool without function" stopped the loop, the last answer is not in it: append the answer and a user's turn
        with all results, and iterate again.
        """
        return list(self._history)

    @property
    def last_message(self) -> Message | None:
        """The last answer, as far as it has arrived; None before the first."""
        return self._last.message if self._last is not None else None

    @property
    def current_stream(self) -> MessageStream | None:
        """The stream of the current answer, or of the last one; None before the first."""
        return self._last.stream if self._last is not None else None

    @property
    def usage(self) -> TotalUsage:
        """The cost of all answers together; `usage.turns` has the cost of each.

        An answer is included once its stream has ended, complete or not, so an `except` block around a failed stream
        sees its cost. A request that the API rejected costs nothing.
        """
        turn = self._turn
        return add_up([*self._usages, *([turn.usage] if turn is not None and turn.stream.ending else [])])

    @property
    def partial(self) -> Message | None:
        """The received part of an answer whose turn failed, once its stream has ended; None if the answer never began, and
        once the next turn begins."""
        turn = self._turn
        return turn.message if turn is not None and turn.stream.ending and not turn.is_whole else self._partial

    @property
    def unanswered(self) -> list[ToolUseBlock]:
        """The calls of the last answer without a function here."""
        return [call.block for call in self._calls() if not call.is_answered_here]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """The next answer. Raises `APIError` if the turn failed; the history is then as it was before it."""
        if (turn := await self._advance()) is None:
            raise StopAsyncIteration
        stream = turn.stream
        return cast(Item, stream if self._is_streaming else await self._guarded(stream.get_final_message()))

    @overload
    async def until_done(self: ToolRunner[ParsedMessage[T]]) -> ParsedMessage[T]: ...

    @overload
    async def until_done(self) -> Message: ...

    async def until_done(self) -> Message:
        """Run the loop to its end and return the last answer; with `output_format`, it has a `parsed_output`."""
        while await self._advance() is not None:
            pass
        if (message := self.last_message) is None:
            raise RuntimeError("the runner was closed before its first answer")
        return message

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The text of all answers, piece by piece. It shares the iterator of the runner."""
        return _Text(self)

    async def _next(self, read: Callable[[MessageStream], AsyncIterator[T]]) -> T:
        """The next item of all answers; `read` returns an iterator over the items of one."""
        turn = self._turn or await self._advance()
        while turn is not None:
            item: T | None = await self._guarded(anext(read(turn.stream), None))
            if item is not None:
                return item
            turn = await self._advance()
        raise StopAsyncIteration

    async def _advance(self) -> _Turn | None:
        """Finish the current turn and begin the next; None at the end."""
        if self._turn is not None:
            await self._guarded(self._finish(self._turn))
        if self.stopped_by is None and self._turns_taken >= (self._max_turns or MAX_TURNS):
            if self._max_turns is None:
                problem = f"the model is not done after {MAX_TURNS} answers: max_turns allows more"
                error = TurnLimitError(problem, limit=MAX_TURNS, messages=self.messages)
                raise self._last.with_ending(error) if self._last is not None else error
            self.stopped_by = "max_turns"
        if self.stopped_by is not None:
            return None
        self._partial = None
        tools = {"tools": self._toolbox.definitions} if self._toolbox.definitions else {}
        stream = self._api.stream(messages=as_history(self._history), **{**self._fields, **tools})
        self._since = stream._call.limit_loop(self._max_seconds, self._since)
        self._turn = turn = _Turn(stream, self._toolbox, self._since, self._max_seconds)
        await self._guarded(stream.__aenter__())
        self._last = turn
        return turn

    def _calls(self) -> list[ToolCall]:
        """The calls of the last answer."""
        if (turn := self._last) is None:
            return []
        return plan_calls(turn.message, turn.toolbox, [*self._history, *self._appended])

    async def _guarded(self, work: Awaitable[Any]) -> Any:
        """Do a part of the current turn. If it fails, the turn is dropped."""
        try:
            return await work
        except BaseException:
            await self._abandon()
            raise

    async def _finish(self, turn: _Turn) -> None:
        """Read the rest of the answer, run its tools, and add the turn to the history."""
        message = await turn.stream.get_final_message()
        step = step_of(message.stop_reason)
        calls = self._calls()
        if step == "stop" or (step == "run" and not calls):
            self.stopped_by = str(message.stop_reason or "no stop reason")
        added: list[dict[str, Any] | None] = []
        if any(appended["role"] == "assistant" for appended in self._appended):
            pass  # the loop's body has taken over the turn
        elif self.stopped_by is not None:
            added = [closed_turn(message)]
        elif step == "resume":
            added = [message.replayable()]
        elif self.unanswered:
            self.stopped_by = "tool without function"
        else:
            results = await turn.results(self._api, calls)
            added = [assistant_turn(message, calls), {"role": "user", "content": results}]
        if self._turn is not turn:
            raise turn.with_ending(StreamCancelledError(_CLOSED))
        await turn.stream.close()
        self._turn = None
        self._turns_taken += 1
        self._note(turn)
        self._history += [message for message in added if message is not None] + self._appended
        self._appended = []

    async def _abandon(self) -> None:
        turn, self._turn = self._turn, None
        self._appended = []
        if turn is not None:
            self._partial = turn.message
            self._note(turn)
            await turn.stream.close()

    def _note(self, turn: _Turn) -> None:
        """Record the answer's usage, and the container in which its code ran, which the next request must name."""
        self._usages.append(turn.usage)
        message = turn.message
        container = object_at(message.raw, "container").get("id") if message is not None else None
        if isinstance(container, str) and container:
            given = self._fields.get("container")
            self._fields["container"] = {**given, "id": container} if isinstance(given, Mapping) else container

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the loop, drop the current answer, and stop the running tools."""
        self.stopped_by = self.stopped_by or "closed"
        await self._abandon()
        if self._last is not None:
            await self._last.stop()

    # Changing the loop ---------------------------------------------------------------------------------------------

    def append_messages(self, *messages: Mapping[str, Any] | Message) -> None:
        """Add messages to the history. In the loop's body they follow the answer and the results of its tools. But if one
        of them is an assistant's turn, the caller takes over the turn: the runner adds nothing to it and runs no tools.

        After the loop, iterating again continues with these messages.
        """
        turns = as_turns(messages)
        if self._turn is not None:
            self._appended += turns
        else:
            self._history += turns
            self.stopped_by = self._since = None
            self._turns_taken = 0

    def set_messages_params(self, params: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the arguments of the following requests (`model`, `messages`, `tools` …), or change them with a
        function that takes them and returns new ones. A missing field is no longer sent, except that missing
        `messages`, `tools` and `container` are kept."""
        current = {**self._fields, "messages": self.messages, "tools": list(self._toolbox.given)}
        new = dict(typed("params", params(current) if callable(params) else params, Mapping) or {})
        if missing := [name for name in ("model", "max_tokens") if name not in new]:
            raise ConfigurationError(f"the params lack {' and '.join(missing)}")
        self._toolbox = Toolbox(new.pop("tools", self._toolbox.given), can_await=self._api._runs_coroutines)
        self._history = as_turns(new.pop("messages", self._history))
        self._fields = {name: field for name, field in self._fields.items() if name == "container"} | new

    async def generate_tool_call_response(self) -> dict[str, Any] | None:
        """Run the tools of the last answer now, unless they have run, and return the user's turn with their results.

        None if the answer did not stop for tools, or no call in it has a function here. No call runs twice.
        """
        if (turn := self._last) is None:
            return None
        message = await self._guarded(turn.stream.get_final_message())
        if step_of(message.stop_reason) != "run":
            return None
        results = await self._guarded(turn.results(self._api, self._calls()))
        return {"role": "user", "content": results} if results else None


class _Text(AsyncIterator[str]):
    """The text of all answers. Not a generator: the event loop closes an abandoned generator only later."""

    def __init__(self, runner: ToolRunner[Any]) -> None:
        self._runner = runner

    async def __anext__(self) -> str:
        return await self._runner._next(lambda stream: stream.text_stream)
