"""Conversations for code without async: `client.conversation(...)`.

This file knows how a conversation is driven from another thread. It refuses to know what becomes of the history: see
`tools/conversation.py`.

    conversation = client.conversation(model=…, max_tokens=…, system="Be brief.", tools=[get_weather])
    with conversation.stream("Is it cold in Oslo?") as reply:
        for text in reply.text_stream: ...
    message = conversation.ask("And in Rome?")
    conversation.messages, conversation.turns[0].usage, conversation.usage
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rawsse.client.blocking.access import Access
from rawsse.client.blocking.portal import Portal, PortalClosedError
from rawsse.client.blocking.runner import BlockingToolRunner
from rawsse.client.blocking.stream import BlockingMessageStream, without_waiting
from rawsse.client.resources import AsyncMessages
from rawsse.client.tools.conversation import Conversation, ConversationTurn, Question, Reply
from rawsse.client.tools.runner import TotalUsage
from rawsse.errors import ConfigurationError
from rawsse.messages.content import Message
from rawsse.messages.events import MessageStreamEvent

if TYPE_CHECKING:
    from rawsse.client.blocking.client import Client

__all__ = ["BlockingConversation", "BlockingReply"]


class BlockingConversation:
    """`Conversation` without async: questions and answers in turn, one at a time. `options` are those of `Conversation`.

    It is for one thread at a time. In a forked child it goes on by itself, with the history that it had.
    """

    def __init__(self, client: Client, *, model: str, max_tokens: int, **options: Any) -> None:
        self._access = _access_of(client)
        self._conversation = Conversation(_Calls(self._access), model=model, max_tokens=max_tokens, **options)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history, as JSON values: whole, and valid as the beginning of a request."""
        return self._conversation.messages

    @property
    def turns(self) -> list[ConversationTurn]:
        """All questions, and what came of each."""
        return self._conversation.turns

    @property
    def usage(self) -> TotalUsage:
        """What it has cost; answers that `retry` has replaced are counted too. `exact` is False if one of them was cut."""
        return self._conversation.usage

    def stream(self, question: Question) -> BlockingReply:
        """Ask, and get the answer as it comes: `with conversation.stream(…) as reply`. The request is sent by `with`, which
        raises `APIError` if it is refused.

        To leave the block before the answer's end cuts it.
        """
        return BlockingReply(self._access, self._conversation.stream(question))

    def ask(self, question: Question) -> Message:
        """Ask, and get the whole answer; with tools, the last one. Raises `APIError`."""
        return self._access.run(lambda: self._conversation.ask(question))

    def retry(self) -> BlockingReply:
        """Ask the last question again. What comes takes the place of the turn, unless nothing comes and an answer was there.

        Raises `RuntimeError` if nothing has been asked.
        """
        return BlockingReply(self._access, self._conversation.retry())

    def to_json(self, *, indent: int | None = None) -> str:
        """The conversation as a JSON text, which either kind of conversation can load; see `Conversation.to_json`."""
        return self._conversation.to_json(indent=indent)

    @classmethod
    def from_json(cls, client: Client, text: str | bytes, *, tools: Iterable[Any] = (), **fields: Any) -> Self:
        """The conversation that `to_json` wrote, with these tools; `fields` replace or add to its own.

        Raises `ConfigurationError` if the text is none.
        """
        made = cls.__new__(cls)
        made._access = _access_of(client)
        made._conversation = Conversation.from_json(_Calls(made._access), text, tools=tools, **fields)
        return made


class _Calls:
    """The async client of this process, as far as a conversation needs it: in a forked child it is another."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @property
    def messages(self) -> AsyncMessages:
        return self._access.client().messages


def _access_of(client: object) -> Access:
    """Raises `ConfigurationError` for what is no `Client`."""
    access = getattr(client, "_access", None)
    if not isinstance(access, Access):
        kind = type(client).__name__
        raise ConfigurationError(
            f"a BlockingConversation needs a Client, not one of type {kind}; with async it is a Conversation"
        )
    return access


# --- One reply -----------------------------------------------------------------------------------------------------


class BlockingReply:
    """The answer to one question, as it comes. With tools it goes through several answers, and the tools run in between.

    There is one iterator: events, `text_stream` and the final message all take from it. When the block is left, the
    conversation keeps what came. It is for one thread at a time, but any thread may close it.
    """

    def __init__(self, access: Access, reply: Reply) -> None:
        self._access = access
        self._reply = reply
        self._portal: Portal | None = None
        self._runner: BlockingToolRunner[BlockingMessageStream] | None = None

    def __enter__(self) -> Self:
        self._access.engine.check()
        self._portal = self._access.engine.portal()
        try:
            self._portal.call(self._reply.__aenter__)
            self._runner = BlockingToolRunner(self._access, self._reply._runs, self._portal)
        except BaseException as exc:  # Ctrl-C, also if it came when the call was over already
            self._settle(exc)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        """End what runs, and let the conversation keep what came. In a forked child nothing: it all is the parent's."""
        portal = self._portal
        if portal is None or portal.is_foreign or self._reply._runner is None:
            return
        try:
            portal.call(lambda: self._reply._settle(error))
        except PortalClosedError:
            portal.close()  # and when it has closed, with the client, nobody else touches the reply
            without_waiting(self._reply._settle(error))

    def close(self) -> None:
        """End the reply, from any thread; what has come stays in the history when the block is left."""
        self.stream.close()
        self._runs.close()

    @property
    def stream(self) -> BlockingMessageStream:
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
    def _runs(self) -> BlockingToolRunner[BlockingMessageStream]:
        if self._runner is None:
            raise RuntimeError("the reply is not open: use `with` first")
        return self._runner

    # Reading -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[MessageStreamEvent]:
        return self

    def __next__(self) -> MessageStreamEvent:
        """The next event, of all answers. Raises `APIError` for every ending but a complete one."""
        while (event := next(self.stream, None)) is None:
            next(self._runs)  # raises StopIteration when the model is done
        return event

    @property
    def text_stream(self) -> Iterator[str]:
        """The text of all answers, piece by piece."""
        yield from self.stream.text_stream
        for stream in self._runs:
            yield from stream.text_stream

    def until_done(self) -> None:
        """Read it to its end. Raises `APIError` for every ending but a complete one."""
        self._runs.until_done()

    def get_final_message(self) -> Message:
        """Read it to its end; the last answer. Raises `APIError` for every ending but a complete one."""
        return self._runs.until_done()

    def get_final_text(self) -> str:
        """Read it to its end; the text of the last answer."""
        return self.get_final_message().text
