"""A conversation: questions and answers in turn, a history that can be sent at any time, and what it all cost.

This file knows what becomes of the history when an answer is cut, cancelled or refused. It refuses to know how an answer comes,
and how its tools run (`runner.py`).

    conversation = Conversation(client, model=…, max_tokens=…, system="Be brief.", tools=[get_weather])
    async with conversation.stream("Is it cold in Oslo?") as reply:
        async for text in reply.text_stream: ...
    message = await conversation.ask("And in Rome?")
    conversation.messages, conversation.turns[0].usage, conversation.usage

What stays of a turn that failed:

    the answer was cut      the question and what had come, as far as it may be sent back; the next question begins with a
                            note that says so (`CUT_NOTE`)
    nothing had come        the question; the next one joins it in one user's turn
    it was refused          nothing: the API did not take the question (an error such as 400 that no repeat heals), or the
                            model refused to answer (stop reason "refusal"), and would refuse whatever follows it

In any of these cases `retry()` asks the last question again, in place of what came of it. Whole turns of the tool loop (a call
and its result) stay; a call without its result never does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from rawsse.client.stream import MessageStream
from rawsse.client.tools.calls import closed_turn, step_of
from rawsse.client.tools.history import (
    CUT_NOTE,
    ConversationTurn,
    TurnState,
    history_of,
    loaded_turn,
    loaded_usage,
    saved_turn,
    saved_usage,
)
from rawsse.client.tools.runner import HasStream, ToolRunner
from rawsse.client.tools.tally import TotalUsage, add_up
from rawsse.errors import APIStatusError, ConfigurationError
from rawsse.messages.content import Message
from rawsse.messages.events import MessageStreamEvent
from rawsse.messages.lens import Lens, parse_json

__all__ = ["Conversation", "Question", "Reply"]

Question: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A text, or content blocks."""

_VERSION = 1
# Of the arguments of a call, those that say how it is made, and not what is asked. Header fields may hold keys.
_NOT_SAVED = frozenset({"extra_headers", "max_retries", "output_format", "timeout", "timeouts"})


class HasMessages(Protocol):
    """What a conversation needs of a client."""

    @property
    def messages(self) -> HasStream:
        """The calls of the Messages API."""
        ...


# --- The conversation ----------------------------------------------------------------------------------------------


class Conversation:
    """Questions and answers in turn, one at a time.

    `tools` and `max_turns` (of the tool loop, per question) are those of `ToolRunner`; `messages` is a history to begin with;
    `fields` are any other arguments of `client.messages.stream`. `cut_note` replaces `CUT_NOTE`; empty, there is none.
    """

    def __init__(
        self,
        client: HasMessages,
        *,
        model: str,
        max_tokens: int,
        system: str | Sequence[Mapping[str, Any]] | None = None,
        tools: Iterable[Any] | None = None,
        messages: Iterable[Mapping[str, Any]] | None = None,
        max_turns: int | None = None,
        cut_note: str = CUT_NOTE,
        **fields: Any,
    ) -> None:
        told = {} if system is None else {"system": system}
        _check_kind(client)
        self._client = client
        self._fields: dict[str, Any] = {"model": model, "max_tokens": max_tokens, **told, **fields}
        self._tools = list(tools or ())
        self._max_turns = max_turns
        self._before = [dict(message) for message in messages or ()]
        self._cut_note = cut_note
        self._turns: list[ConversationTurn] = []
        self._replaced: list[TotalUsage] = []  # what answers cost that `retry` has put others in the place of
        self._reply: Reply | None = None  # the one that comes

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history, as JSON values: whole, and valid as the beginning of a request."""
        return self._history(self._turns)

    @property
    def turns(self) -> list[ConversationTurn]:
        """All questions, and what came of each."""
        return list(self._turns)

    @property
    def usage(self) -> TotalUsage:
        """What it has cost; answers that `retry` has replaced are counted too. `exact` is False if one of them was cut."""
        return add_up([*self._replaced, *(turn.usage for turn in self._turns)])

    def stream(self, question: Question) -> Reply:
        """Ask, and get the answer as it comes: `async with conversation.stream(…) as reply`. The request is sent by
        `async with`, which raises `APIError` if it is refused.

        To leave the block before the answer's end cuts it.
        """
        return Reply(self, _own(question))

    async def ask(self, question: Question) -> Message:
        """Ask, and get the whole answer; with tools, the last one. Raises `APIError`."""
        async with self.stream(question) as reply:
            return await reply.get_final_message()

    def retry(self) -> Reply:
        """Ask the last question again. What comes takes the place of the turn, unless nothing comes and an answer was there.

        Raises `RuntimeError` if nothing has been asked.
        """
        if not self._turns:
            raise RuntimeError("nothing has been asked that could be asked again")
        return Reply(self, self._turns[-1].question, self._turns[-1])

    # For the reply -------------------------------------------------------------------------------------------------

    def _history(self, turns: Iterable[ConversationTurn]) -> list[dict[str, Any]]:
        return history_of(turns, before=self._before, cut_note=self._cut_note)

    def _begin(self, reply: Reply, question: Any, replaced: ConversationTurn | None) -> ToolRunner[MessageStream]:
        if self._reply is not None:
            raise RuntimeError("the conversation still waits for an answer")
        turns = self._turns
        if replaced is not None:
            if turns[-1] is not replaced:
                raise RuntimeError("the conversation has gone on: retry() again")
            turns = turns[:-1]
        asked = ConversationTurn(question, [], "answered", "", add_up([]))
        runner: ToolRunner[MessageStream] = ToolRunner(
            self._client.messages,
            messages=self._history([*turns, asked]),
            tools=self._tools,
            max_turns=self._max_turns,
            stream=True,
            **self._fields,
        )
        self._reply = reply
        return runner

    def _settle(self, turn: ConversationTurn | None, replaced: ConversationTurn | None) -> None:
        """The reply is over. `turn` is None if nothing was asked."""
        self._reply = None
        if turn is None:
            return
        if replaced is None:
            self._turns.append(turn)
        elif turn.messages or not replaced.messages:
            self._replaced.append(replaced.usage)
            self._turns[-1] = turn
        else:  # nothing came, and something is there
            self._replaced.append(turn.usage)

    # Saving --------------------------------------------------------------------------------------------------------

    def to_json(self, *, indent: int | None = None) -> str:
        """The conversation as a JSON text; not its client, its tools, and how its calls are made (header fields, timeouts).

        Raises `ConfigurationError` if a field is no JSON value.
        """
        saved = {
            "rawsse_conversation": _VERSION,
            "fields": {name: value for name, value in self._fields.items() if name not in _NOT_SAVED},
            "max_turns": self._max_turns,
            "cut_note": self._cut_note,
            "messages": self._before,
            "turns": [saved_turn(turn) for turn in self._turns],
            "replaced": [saved_usage(usage) for usage in self._replaced],
        }
        try:
            return json.dumps(saved, ensure_ascii=False, indent=indent, allow_nan=False, default=_plain)
        except (TypeError, ValueError) as exc:
            raise ConfigurationError(f"the conversation cannot be written as JSON: {exc}") from None

    @classmethod
    def from_json(cls, client: HasMessages, text: str | bytes, *, tools: Iterable[Any] = (), **fields: Any) -> Self:
        """The conversation that `to_json` wrote, with these tools; `fields` replace or add to its own.

        Raises `ConfigurationError` if the text is none.
        """
        _check_kind(client)
        try:
            saved = parse_json(text)
            if saved["rawsse_conversation"] != _VERSION:
                raise ValueError(f"it has version {saved['rawsse_conversation']!r}, not {_VERSION}")
            options = {name: saved[name] for name in ("max_turns", "cut_note", "messages")}
            made = cls(client, tools=tools, **{**options, **saved["fields"], **fields})
            made._turns = [loaded_turn(turn) for turn in saved["turns"]]
            made._replaced = [loaded_usage(usage) for usage in saved["replaced"]]
            made._history(made._turns)
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise ConfigurationError(f"this is no saved conversation: {type(exc).__name__}: {exc}") from None
        return made


def _check_kind(client: object) -> None:
    """Raises `ConfigurationError` for a client whose calls block, and for what is no client."""
    kind = type(client)
    if hasattr(kind, "__enter__") and not hasattr(kind, "__aenter__"):
        advice = "for one without async use client.conversation(…)"
        raise ConfigurationError(f"a Conversation needs an AsyncClient, not a {kind.__name__}; {advice}")
    if not hasattr(getattr(client, "messages", None), "stream"):
        raise ConfigurationError(f"a Conversation needs an AsyncClient, not a {kind.__name__}")


def _own(question: Question) -> Any:
    """The question as the history keeps it. Raises `ConfigurationError` for one that the API would refuse."""
    if isinstance(question, str):
        if not question.strip():
            raise ConfigurationError("the question is empty")
        return question
    given: Iterable[Any] = question
    blocks = [block.raw if isinstance(block, Lens) else dict(block) for block in given]
    if not blocks:
        raise ConfigurationError("the question has no content blocks")
    return blocks


def _plain(value: object) -> object:
    if isinstance(value, Lens):
        return value.raw
    raise TypeError(f"a value of type {type(value).__name__} is no JSON value")


# --- One reply -----------------------------------------------------------------------------------------------------


class Reply:
    """The answer to one question, as it comes. With tools it goes through several answers, and the tools run in between.

    There is one iterator: events, `text_stream` and the final message all take from it. When the block is left, the
    conversation keeps what came.
    """

    def __init__(self, conversation: Conversation, question: Any, replaced: ConversationTurn | None = None) -> None:
        self._conversation = conversation
        self._question = question
        self._replaced = replaced
        self._runner: ToolRunner[MessageStream] | None = None
        self._sent = 0  # messages of the first request

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("a reply comes once: ask again, or retry()")
        self._runner = self._conversation._begin(self, self._question, self._replaced)
        self._sent = len(self._runner.messages)
        try:
            await anext(self._runner)
        except BaseException as exc:
            await self._settle(exc)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._settle(error)

    async def close(self) -> None:
        """End the reply; what has come stays in the history when the block is left."""
        await self._runs.close()

    @property
    def stream(self) -> MessageStream:
        """The stream of the answer that comes now, or came last: `request_id`, `timing`, `ending` …"""
        stream = self._runs.current_stream
        assert stream is not None  # noqa: S101 - entering the block has opened it
        return stream

    @property
    def current_message_snapshot(self) -> Message:
        """The message so far; with tools, that of the answer that comes now. Raises `RuntimeError` before it begins."""
        return self.stream.current_message_snapshot

    @property
    def usage(self) -> TotalUsage:
        """What the answers that are whole have cost."""
        return self._runs.usage

    @property
    def _runs(self) -> ToolRunner[MessageStream]:
        if self._runner is None:
            raise RuntimeError("the reply is not open: use `async with` first")
        return self._runner

    # Reading -------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[MessageStreamEvent]:
        return self

    async def __anext__(self) -> MessageStreamEvent:
        """The next event, of all answers. Raises `APIError` for every ending but a complete one."""
        while (event := await anext(self.stream, None)) is None:
            await anext(self._runs)  # raises StopAsyncIteration when the model is done
        return event

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The text of all answers, piece by piece."""
        return self._runs.text_stream

    async def until_done(self) -> None:
        """Read it to its end. Raises `APIError` for every ending but a complete one."""
        await self._runs.until_done()

    async def get_final_message(self) -> Message:
        """Read it to its end; the last answer. Raises `APIError` for every ending but a complete one."""
        return await self._runs.until_done()

    async def get_final_text(self) -> str:
        """Read it to its end; the text of the last answer."""
        return (await self.get_final_message()).text

    # Its end -------------------------------------------------------------------------------------------------------

    async def _settle(self, error: BaseException | None) -> None:
        """End what runs, and let the conversation keep what came."""
        runner = self._runs
        turn: ConversationTurn | None = None
        try:
            await _finish(runner)
        finally:
            if self._conversation._reply is self:
                turn = _outcome(self._question, runner, self._sent, error)
                self._conversation._settle(turn, self._replaced)


async def _finish(runner: ToolRunner[MessageStream]) -> None:
    """An answer that has come whole, and is the last one, may be left before it was read to the very end."""
    message = runner.last_message
    if runner.stopped_by is None and runner.is_turn_whole and message and step_of(message.stop_reason) == "stop":
        await runner.until_done()
    await runner.close()


def _outcome(
    question: Any, runner: ToolRunner[MessageStream], sent: int, error: BaseException | None
) -> ConversationTurn | None:
    """What the conversation keeps of a reply that is over; None if it could not even be asked."""
    is_cut = runner.stopped_by == "closed"
    rest = runner.partial if is_cut else None
    if runner.stopped_by == "tool without function":
        rest = runner.last_message
    messages = _tidy(runner.messages[sent:], closed_turn(rest))
    if not is_cut:
        state: TurnState = "refused" if runner.stopped_by == "refusal" else "answered"
        return ConversationTurn(question, messages, state, str(runner.stopped_by), runner.usage)
    if isinstance(error, ConfigurationError) and not messages:
        return None
    is_refused = isinstance(error, APIStatusError) and not error.may_heal and not messages
    said = f"{type(error).__name__}: {error}" if error is not None else "closed"
    return ConversationTurn(question, messages, "refused" if is_refused else "cut", said, runner.usage)


def _tidy(messages: list[dict[str, Any]], rest: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The messages with the rest of the answer. Where a paused answer was gone on with, the parts become one: a server's tool
    call in the first is answered in the second, or must go."""
    parts = [rest] if rest is not None else []
    while messages and messages[-1]["role"] == "assistant":
        parts.insert(0, messages.pop())
    whole = Message({"content": [block for part in parts for block in part["content"]]}).replayable()
    return [*messages, whole] if whole is not None else messages
