"""The tool loop for code without async: `for message in client.messages.tool_runner(...)`.

This file knows how the loop is driven from another thread. It refuses to know what the loop does: see `runner.py`.

    runner = client.messages.tool_runner(model=…, max_tokens=…, messages=[…], tools=[get_weather], max_turns=10)
    for message in runner: ...                       # each answer, whole, before its tools run
    for text in runner.text_stream: ...              # or: the text of all answers, as it comes
    message = runner.until_done()                    # or: the last answer

Tools that are plain functions run in threads of their own, beside each other, and may use the blocking client; coroutines run
in the client's loop, and may not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from rawsse.client.blocking.access import Access
from rawsse.client.blocking.portal import Portal
from rawsse.client.blocking.stream import BlockingMessageStream
from rawsse.client.stream import MessageStream
from rawsse.client.tools.runner import ToolRunner, TotalUsage
from rawsse.messages.content import Message, ToolUseBlock

__all__ = ["BlockingToolRunner"]

Item = TypeVar("Item", Message, BlockingMessageStream)
T = TypeVar("T")


class BlockingToolRunner(Generic[Item]):
    """`ToolRunner` without async: an iterator over the answers, `Message`s or with `stream` open `BlockingMessageStream`s.

    It is for one thread at a time. Ctrl-C ends the turn under way; the history is then as it was before it.
    """

    def __init__(self, access: Access, runner: ToolRunner[Any], portal: Portal | None = None) -> None:
        self._access = access
        self._runner = runner
        self._portal = portal  # that of the process in which it begins
        self._current: BlockingMessageStream | None = None

    # What is known -------------------------------------------------------------------------------------------------

    @property
    def stopped_by(self) -> str | None:
        """Why the loop is over; None while it is not."""
        return self._runner.stopped_by

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The history: whole turns only, so that it may be sent with a new question at any time."""
        return self._runner.messages

    @property
    def last_message(self) -> Message | None:
        """The last answer, or as much of it as has come; None before the first."""
        return self._runner.last_message

    @property
    def is_turn_whole(self) -> bool:
        """There is a turn under way, and its answer has come to its end."""
        return self._runner.is_turn_whole

    @property
    def partial(self) -> Message | None:
        """As much as had come of the answer whose turn failed; None if none did, or it never began."""
        return self._runner.partial

    @property
    def current_stream(self) -> BlockingMessageStream | None:
        """The stream of the answer under way, or of the last one; None before the first."""
        stream = self._runner.current_stream
        return None if stream is None else self._blocking(stream)

    @property
    def usage(self) -> TotalUsage:
        """What all turns cost together; `usage.turns` is what each cost. The turn under way is not in it."""
        return self._runner.usage

    @property
    def unanswered(self) -> list[ToolUseBlock]:
        """The calls of the last answer for which there is no function here."""
        return self._runner.unanswered

    # The loop ------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        """The next answer. Raises `APIError` if the turn failed; the history is then as it was before it."""
        try:
            item = self._run(self._runner.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return cast(Item, item if isinstance(item, Message) else self._blocking(item))

    def _blocking(self, stream: MessageStream) -> BlockingMessageStream:
        if self._current is None or self._current._stream is not stream:
            self._current = BlockingMessageStream(self._access.engine.portal, stream)
            self._current._open()
        return self._current

    def until_done(self) -> Message:
        """Go on to the end of the loop; the last answer."""
        return self._run(self._runner.until_done)

    @property
    def text_stream(self) -> Iterator[str]:
        """The text of all answers, piece by piece. It takes from the same iterator as the runner itself."""
        texts = self._runner.text_stream
        while (text := self._run(lambda: anext(texts, None))) is not None:
            yield text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the loop: the answer under way is dropped, and tools that run are cancelled.

        In a forked child it does nothing: the connection is the parent's.
        """
        is_foreign = self._portal is not None and self._portal.is_foreign
        if not is_foreign and not self._access.engine.is_closed:  # else it has ended with the client
            self._run(self._runner.close)

    def _run(self, make: Callable[[], Awaitable[T]]) -> T:
        self._access.engine.check()
        self._portal = self._portal or self._access.engine.portal()
        return self._portal.call(make)

    # Changing its course -------------------------------------------------------------------------------------------

    def append_messages(self, *messages: Mapping[str, Any] | Message) -> None:
        """Add messages to the history; see `ToolRunner.append_messages`."""
        self._runner.append_messages(*messages)

    def set_messages_params(self, params: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the arguments of the requests that follow, or change them; see `ToolRunner.set_messages_params`."""
        self._runner.set_messages_params(params)

    def generate_tool_call_response(self) -> dict[str, Any] | None:
        """Run the tools of the last answer now: the user's turn with their results; see
        `ToolRunner.generate_tool_call_response`."""
        return self._run(self._runner.generate_tool_call_response)
