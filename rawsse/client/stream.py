"""The answer as it comes: events, text, the message so far.

This file knows what a reader of an answer wants: the derived events, the text, the message. It refuses to know how the events
come and how they end (`events.py`).

    async with client.messages.stream(...) as stream:      # the request is sent here
        async for event in stream: ...                     # or: async for text in stream.text_stream
        message = await stream.get_final_message()
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from rawsse.client.call import Call
from rawsse.client.events import BaseStream
from rawsse.client.parse import Outputs
from rawsse.messages.content import Message, ParsedMessage
from rawsse.messages.events import ContentBlockDelta, MessageStop, MessageStreamEvent, StreamEvent, TextEvent
from rawsse.messages.message import MessageBuilder
from rawsse.sse import MAX_EVENT_BYTES

__all__ = ["MessageStream", "Watcher"]


class Watcher(Protocol):
    """Follows what the reader of a stream asks for and gets, whichever way it is read: so tools start early."""

    def asked(self) -> None:
        """The reader asks for an event of the wire. In the event loop, as all of this."""
        ...

    def note(self, event: MessageStreamEvent) -> None:
        """The reader gets it."""
        ...

    async def stop(self) -> None:
        """The stream ends before its answer is whole: so must whatever goes on because of it."""
        ...


class MessageStream(BaseStream):
    """The events of the wire with the derived ones, the text, and the message they add up to.

    There is one iterator: breaking out of a loop and iterating again goes on where it stopped. `outputs` parses the text.
    """

    def __init__(
        self,
        call: Call,
        new_builder: Callable[[], MessageBuilder],
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
        outputs: Outputs[Any] | None = None,
    ) -> None:
        super().__init__(call, new_builder, max_event_bytes=max_event_bytes)
        self._outputs: Outputs[Any] = outputs or Outputs()
        self._expanded: deque[MessageStreamEvent] = deque()
        self._watcher: Watcher | None = None

    @property
    def current_message_snapshot(self) -> ParsedMessage[Any]:
        """The message so far; live while the stream runs. Raises `RuntimeError` before `message_start`."""
        return self._outputs.message(super().current_message_snapshot)

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The text of all text blocks, piece by piece. It takes from the same iterator as the stream itself."""
        return _TextStream(self)

    def __aiter__(self) -> AsyncIterator[MessageStreamEvent]:
        return self

    async def __anext__(self) -> MessageStreamEvent:
        """The next event. Raises `APIError` for every ending but a complete one."""
        if not self._expanded:
            event = await self._next()
            if event is None:
                raise StopAsyncIteration
            self._expanded.extend(self._expand(event))
        return self._expanded.popleft()

    def _watch(self, watcher: Watcher) -> None:
        """Tell it what the reader asks for and gets from now on."""
        self._watcher = watcher

    @property
    def _is_watched(self) -> bool:
        """Somebody follows what is read, in the event loop."""
        return self._watcher is not None

    async def _next(self) -> StreamEvent | None:
        if self._watcher is None:
            return await super()._next()
        self._watcher.asked()
        try:
            event = await super()._next()
        except BaseException:
            await self._watcher.stop()
            raise
        if event is not None:
            self._watcher.note(self._builder.expand(event)[0])
        return event

    async def close(self) -> None:
        """End the stream and drop the connection. A task that waits for the stream gets `StreamCancelledError`."""
        await super().close()
        if self._watcher is not None and self._ending is not None and self._ending.kind != "complete":
            await self._watcher.stop()

    # For the blocking stream: what can be had without waiting, in whatever thread owns this one; None: ask the async ones.

    def _next_ready(self) -> StreamEvent | None:
        return super()._next_ready() if self._watcher is None else None

    def _take_ready(self) -> MessageStreamEvent | None:
        if not self._expanded:
            if (event := self._next_ready()) is None:
                return None
            self._expanded.extend(self._expand(event))
        return self._expanded.popleft()

    def _take_ready_text(self) -> str | None:
        while not self._expanded and (event := self._next_ready()) is not None:
            if (text := self._builder.text_of(event)) is not None:  # no derived event need be made for it
                return text
        return None

    def _expand(self, event: StreamEvent) -> list[MessageStreamEvent]:
        """The event as the caller gets it, and the derived one, if there is one."""
        expanded = self._builder.expand(event)
        if isinstance(event, ContentBlockDelta) and not self._outputs.has_format:
            return expanded  # nearly all events: nothing to parse
        if isinstance(last := expanded[-1], MessageStop) and last.message is not None:
            last.message.request_id = self.request_id
        return [self._outputs.event(each, lambda: self._builder.message) for each in expanded]

    async def until_done(self) -> None:
        """Read the stream to its end. Raises `APIError` for every ending but a complete one."""
        self._expanded.clear()
        while await self._next() is not None:
            pass

    async def get_final_message(self) -> ParsedMessage[Any]:
        """Read the stream to its end; the whole message. Raises `APIError` for every ending but a complete one."""
        await self.until_done()
        return self.current_message_snapshot

    async def _read_whole(self) -> Message:
        """The whole message of a call that gives no stream, and so nothing parsed."""
        self._is_unseen = True
        await self.until_done()
        return super().current_message_snapshot

    async def get_final_text(self) -> str:
        """Read the stream to its end; the text of all text blocks. Raises `RuntimeError` if there is none."""
        message = await self.get_final_message()
        if not any(block.type == "text" for block in message.content):
            kinds = ", ".join(block.type for block in message.content) or "nothing"
            raise RuntimeError(f"the answer has no text; it has: {kinds}")
        return message.text


class _TextStream(AsyncIterator[str]):
    """The text in a stream. No generator: one that is dropped half-read would be closed later, by the event loop."""

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream

    async def __anext__(self) -> str:
        stream = self._stream
        while True:
            if stream._expanded:  # somebody took the wire's event and left the derived one
                derived = stream._expanded.popleft()
                text = derived.text if isinstance(derived, TextEvent) else None
            elif (event := await stream._next()) is None:
                raise StopAsyncIteration
            else:
                text = stream._builder.text_of(event)
            if text is not None:
                return text
