"""A conversation: questions and answers in turn, a history that the API accepts at any time, and the total cost.

    conversation = Conversation(client, model=…, max_tokens=…, system="Be brief.", tools=[get_weather])
    async with conversation.stream("Is it cold in Oslo?") as reply:
        async for text in reply.text_stream: ...
    message = await conversation.ask("And in Rome?")
    conversation.messages, conversation.turns[0].usage, conversation.usage

The history keeps complete turns of the tool loop, never a call without its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self, TypeAlias, cast

from rawsse.client.stream import MessageStream
from rawsse.client.tools.runner import (
    ToolRunner,
    TotalUsage,
    add_up,
    as_history,
    as_turn,
    as_turns,
    closed_turn,
    step_of,
)
from rawsse.client.tools.tool import Toolbox, is_cancellation
from rawsse.errors import APIStatusError, ConfigurationError
from rawsse.messages.content import Message
from rawsse.messages.events import MessageStreamEvent

CUT_NOTE = "[Your answer above was cut off before its end.]"
"""Follows a truncated answer in the history, so that the model does not take that answer for complete."""

Question: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A text, or content blocks."""

TurnState: TypeAlias = Literal["answered", "stopped", "cut", "refused"]
"""Stopped: each answer that came is whole, but the tool loop did not come to its end (tools timed out, the next request failed
…). Cut: the last answer was truncated, or there was none."""


class ConversationTurn(NamedTuple):
    """A question and its result: `messages` is the answer; with tools, all answers and the results between them.

    `stopped_by` is the stop reason, "max_turns", "closed", "cancelled" (the task, as by `asyncio.timeout`), or the error.
    `usage.exact` is False if an answer was truncated.
    """

    question: str | list[dict[str, Any]]
    messages: list[dict[str, Any]]
    state: TurnState
    stopped_by: str
    usage: TotalUsage


# --- The conversation ----------------------------------------------------------------------------------------------


class Conversation:
    """Questions and answers in turn, one at a time.

    `client` is an `AsyncClient`. `tools`, `max_turns` and `max_seconds` (of the tool loop, for each question) are those of
    `ToolRunner`, `messages` is a history to begin with, `fields` are other arguments of `client.messages.stream`. `cut_note`
    replaces `rawsse.client.tools.conversation.CUT_NOTE`; if it is empty, no note is added.

    `fields` are the arguments of the next request, and may be changed. `turns` are all questions and their results: each has
    `question`, `messages`, `state`, `stopped_by` and `usage`. How a turn ended, what the reader of the reply gets, and the
    turn's `stopped_by` and `state`:

        the model was done              the message          its stop reason           answered
        the model refused               the message          "refusal"                 refused
        max_turns, if given             the message          "max_turns"               answered
        a tool without function         the message          "tool without function"   answered
        20 answers without max_turns    TurnLimitError       the error                 stopped
        max_seconds, while tools ran    TotalTimeoutError    the error                 stopped
        a later request failed          an APIError          the error                 stopped
        an answer failed                an APIError          the error                 cut
        the first request failed        an APIError          the error                 cut
        … and a retry cannot help       an APIStatusError    the error                 refused
        the block was left early        nothing              "closed"                  cut, or stopped between answers
        the task was cancelled          CancelledError       "cancelled"               cut, or stopped while tools ran

    Each `APIError` of a turn has an `ending`. After a turn that failed, `messages` keeps:

        cut         the question, the received part of the answer if the API accepts it, and then `cut_note`. If nothing
                    arrived, only the question. The next question is added to this last user's turn
        stopped     the question, the complete turns of the tool loop, and a last answer without its calls
        refused     nothing: the same request would be rejected again, and the model would refuse later questions too

    `retry()` asks the last question again and replaces its result. Ctrl-C in a blocking client ends a turn as a cancelled task
    does, with `KeyboardInterrupt`.

    To save a conversation, write `json.dumps(conversation.messages)`; to continue it, give the loaded list as `messages`. If
    a user's turn is the last, its question has no whole answer: the next question is added to it. `retry()` knows only the
    questions that were asked since.
    """

    def __init__(
        self,
        client: Any,
        *,
        model: str,
        max_tokens: int,
        tools: Iterable[Any] | None = None,
        messages: Iterable[Mapping[str, Any] | Message] | None = None,
        max_turns: int | None = None,
        max_seconds: float | None = None,
        cut_note: str = CUT_NOTE,
        **fields: Any,
    ) -> None:
        if not hasattr(getattr(client, "messages", None), "_runs_coroutines"):
            advice = "for one without async use client.conversation(…)"
            raise ConfigurationError(f"a Conversation needs an AsyncClient, not a {type(client).__name__}; {advice}")
        self._client = client
        self.fields: dict[str, Any] = {"model": model, "max_tokens": max_tokens, **fields}
        tools = Toolbox(tools or (), can_await=client.messages._runs_coroutines).given
        self._loop: dict[str, Any] = {"tools": tools, "max_turns": max_turns, "max_seconds": max_seconds}
        self._before = as_turns(() if messages is None else messages)
        self._cut_note = str(cut_note or "")
        self.turns: list[ConversationTurn] = []
        self._replaced: list[TotalUsage] = []  # the cost of answers that `retry` has replaced
        self._reply: Reply | None = None  # the current one

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history as JSON values, ready for `json.dumps`: valid as the beginning of a request. After a truncated answer its
        last message is a user's, with the note that tells the model."""
        return self._history(self.turns)

    def _history(self, turns: Iterable[ConversationTurn]) -> list[dict[str, Any]]:
        """The messages of a request after these turns, without refused turns."""
        history = list(self._before)
        for turn in turns:
            if turn.state != "refused":
                history += [{"role": "user", "content": turn.question}, *turn.messages]
            if turn.state == "cut" and self._cut_note and history[-1]["role"] == "assistant":
                history.append({"role": "user", "content": self._cut_note})  # the next question is added to it
        return as_history(history, is_over=True)

    @property
    def usage(self) -> TotalUsage:
        """The total cost, including answers that `retry` has replaced. `exact` is False if an answer was truncated."""
        return add_up([*self._replaced, *(turn.usage for turn in self.turns)])

    def stream(self, question: Question) -> Reply:
        """Ask, and stream the answer: `async with conversation.stream(…) as reply`. Entering it sends
        the request, and raises `APIError` if that fails (401, 529 …): `reply` is then unbound, and `conversation.usage` has
        the cost.

        Leaving the block before the end of the answer truncates it. Raises `ConfigurationError` for an empty question.
        """
        turn = as_turn({"role": "user", "content": question}, "the question")
        if not as_history([turn]):
            raise ConfigurationError("the question is empty")
        return Reply(self, turn["content"])

    async def ask(self, question: Question) -> Message:
        """Ask, and get the whole answer; with tools, the last one. Raises `APIError`."""
        async with self.stream(question) as reply:
            return await reply.get_final_message()

    def retry(self) -> Reply:
        """Ask the last question again. The new result replaces the turn, unless it is empty and the old one is not. Its
        `max_seconds` begin again, as for each question: a retry can succeed after a `TotalTimeoutError`.

        Raises `RuntimeError` if nothing has been asked, even if `messages` had a question without an answer.
        """
        if not self.turns:
            raise RuntimeError("there is no question to ask again")
        return Reply(self, self.turns[-1].question, self.turns[-1])

    def _begin(self, reply: Reply, question: Any, replaced: ConversationTurn | None) -> list[dict[str, Any]]:
        """The messages of the reply's first request."""
        if self._reply is not None:
            raise RuntimeError("the conversation is still waiting for an answer")
        turns = self.turns
        if replaced is not None:
            if not turns or turns[-1] is not replaced:
                raise RuntimeError("the conversation has continued: call retry() again")
            turns = turns[:-1]
        history = self._history([*turns, ConversationTurn(question, [], "answered", "", add_up([]))])
        if not history or history[-1]["role"] == "assistant":
            raise ConfigurationError("the question has only results of calls that are not in the answer before it")
        self._reply = reply
        return history

    def _settle(self, turn: ConversationTurn | None, replaced: ConversationTurn | None) -> None:
        """The reply is over. `turn` is None if the question was not sent."""
        self._reply = None
        if turn is not None and replaced is not None:
            has_better = bool(turn.messages or not replaced.messages)  # else nothing arrived, and an answer is there
            self.turns[-1] = turn if has_better else replaced
            self._replaced.append((replaced if has_better else turn).usage)
        elif turn is not None:
            self.turns.append(turn)


# --- One reply -----------------------------------------------------------------------------------------------------


class Reply(ToolRunner[MessageStreamEvent]):
    """The streamed answer to one question: a tool loop that yields the events of all its answers.

    Events, `text_stream` and the final message share one iterator. Leaving the block adds the received part to the
    conversation. `stopped_by` says why the reply ended, as for `ToolRunner`; None while it runs, and "closed" if it was left
    before its end, or failed.
    """

    def __init__(self, conversation: Conversation, question: Any, replaced: ConversationTurn | None = None) -> None:
        super().__init__(conversation._client.messages, messages=(), **{**conversation._loop, **conversation.fields})
        self._conversation = conversation
        self._question = question
        self._replaced = replaced
        self._sent: int | None = None  # messages of the first request; None before it

    async def __aenter__(self) -> Self:
        if self._sent is not None:
            raise RuntimeError("a reply can be read once: ask again, or retry()")
        self._history = self._conversation._begin(self, self._question, self._replaced)
        self._fields = {**self._conversation.fields}
        self._sent = len(self._history)
        try:
            await self._advance()
        except BaseException as exc:
            await self._settle(exc)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._settle(error)

    @property
    def stream(self) -> MessageStream:
        """The stream of the current answer, or of the last one: `request_id`, `timing`, `ending` …"""
        return cast(MessageStream, self.current_stream)  # entering the block has opened it

    async def __anext__(self) -> MessageStreamEvent:
        """The next event of all answers. Raises `APIError` if an answer does not complete."""
        return await self._next(aiter)

    async def _advance(self) -> Any:
        if self._sent is None:
            raise RuntimeError("the reply is not open: enter its `with` block first")
        return await super()._advance()

    async def get_final_message(self) -> Message:
        """Read the reply to its end and return the last answer. Raises `APIError` if an answer does not complete."""
        return await self.until_done()

    async def get_final_text(self) -> str:
        """Read the reply to its end and return the text of the last answer."""
        return (await self.until_done()).text

    async def _settle(self, error: BaseException | None) -> None:
        """End the loop, and add the received part to the conversation."""
        message = self._turn.message if self._turn is not None and self._turn.is_whole else None
        try:
            if message is not None and step_of(message.stop_reason) == "stop":
                await self.until_done()  # the last answer is complete; the caller stopped just before the end
            await self.close()
        finally:
            if "container" in self._fields:
                self._conversation.fields["container"] = self._fields["container"]
            if self._conversation._reply is self:
                self._conversation._settle(self._outcome(error), self._replaced)

    def _outcome(self, error: BaseException | None) -> ConversationTurn | None:
        """The turn that the conversation keeps; None if the question could not be sent."""
        rest = {"closed": self.partial, "tool without function": self.last_message}.get(str(self.stopped_by))
        closed = closed_turn(rest)
        messages = as_history([*self._history[self._sent :], *([closed] if closed else [])], is_over=True)
        state: TurnState = "refused" if self.stopped_by == "refusal" else "answered"
        if self.stopped_by != "closed":
            return ConversationTurn(self._question, messages, state, str(self.stopped_by), self.usage)
        if isinstance(error, ConfigurationError) and not messages:
            return None
        is_refused = isinstance(error, APIStatusError) and not error.may_heal and not messages
        state = "refused" if is_refused else "stopped" if self._last is not None and self._last.is_whole else "cut"
        reason = "cancelled" if is_cancellation(error) else f"{type(error).__name__}: {error}".removesuffix(": ")
        return ConversationTurn(self._question, messages, state, "closed" if error is None else reason, self.usage)
