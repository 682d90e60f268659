"""The answer as it comes: its events, its text, the message so far, over as many attempts as it takes.

    async with client.messages.stream(...) as stream:      # the request is sent here
        async for event in stream: ...                     # or: async for text in stream.text_stream
        message = await stream.get_final_message()

    events = await client.messages.create(stream=True, ...)
    async for event in events: ...                          # the events of the wire, typed, and nothing else

A stream has exactly one ending (`stream.ending`). It is complete only with `message_stop`, or when the stop reason had come and
only the tail is missing (then `ending.tail_missing` is set); anything else raises, and the error carries the message so far. A
failure before any content is retried first, as the policy says; nothing that the caller saw is ever taken back.

`close()` may be called by any task, at any phase, any number of times; leaving the `async with` block calls it. Iterators here
are classes, not generators: a generator that is dropped half-read is closed later, by the event loop.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Self

from rawsse.client.answer import Answer
from rawsse.client.call import Call
from rawsse.client.exchange import Exchange, Timing
from rawsse.client.output import Outputs
from rawsse.client.retry import RateLimits
from rawsse.errors import APIError, Ending, StreamCancelledError
from rawsse.http1 import Headers, Response
from rawsse.messages.content import Message, ParsedMessage
from rawsse.messages.events import ContentBlockDelta, ErrorEvent, MessageStreamEvent, Ping, StreamEvent, TextEvent


class OpenResponse(Response):
    """The head of a response that may have more to come: `close()` is that of the stream."""

    close: Callable[[], None]

    async def aclose(self) -> None:
        """The same: the name that `httpx` has for it."""
        self.close()


class CallInfo:
    """A call and its response, as its caller sees them."""

    def __init__(self, call: Call[Exchange]) -> None:
        self._call = call
        self.timing: Timing = call.timing
        """When the connection, the head, the first event, the first content and the last ping came; the longest wait."""

    @property
    def response(self) -> OpenResponse:
        """The response's head. Raises `RuntimeError` before there is one."""
        if self._call.response is None:
            raise RuntimeError("the stream is not open: enter its `with` block first")
        response = OpenResponse(*self._call.response)
        response.close = self._close
        return response

    @property
    def headers(self) -> Headers:
        """The response's header fields; names are case-insensitive."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response: what Anthropic's support asks for."""
        return self._call.exchange.request_id

    @property
    def workspace_id(self) -> str | None:
        """The `anthropic-workspace-id` of the response."""
        return self.headers.get("anthropic-workspace-id")

    @property
    def rate_limits(self) -> RateLimits:
        """The rate limits in the response's header."""
        return RateLimits.from_headers(self.headers)

    @property
    def retries_taken(self) -> int:
        """How often the request was retried."""
        return self._call.retries_taken

    def _close(self) -> None:
        """Drop what has not been read."""


class BaseStream(CallInfo):
    """The base of both kinds of stream: opening, reading event by event, trying again, ending."""

    _call: Call[Answer]

    def __init__(self, call: Call[Answer]) -> None:
        super().__init__(call)
        self._is_unseen = False  # no event is given out, so any failure may be retried
        self.ending: Ending | None = None
        """How the stream ended; None while it has not."""
        self._error: APIError | None = None  # raised again by every later read: a cut answer never looks whole

    @property
    def error_event(self) -> ErrorEvent | None:
        """The `error` event that ended the stream, as it came."""
        return self._call.exchange.builder.error

    @property
    def current_message_snapshot(self) -> Message:
        """The message so far; live while the stream runs. Raises `RuntimeError` before `message_start`."""
        message = self._call.exchange.builder.message
        if message is None:
            raise RuntimeError("message_start has not come yet")
        return message

    # Open and close ------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        while self._call.response is None:
            await self._more()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._close()

    def __aiter__(self) -> Self:
        return self

    async def close(self) -> None:
        """End the stream and drop the connection. A task that waits for the stream gets `StreamCancelledError`."""
        self._close()

    aclose = close  # for `contextlib.aclosing`

    def _close(self) -> None:
        if self.ending is not None:
            return
        self._call.close()
        if self._call.is_mine:  # else the thread that reads ends the stream when it wakes
            self._failed(StreamCancelledError("the stream was closed before its end"))

    def __del__(self) -> None:
        if getattr(self, "ending", self) is None and self._call.response is not None and not self._call.is_closed:
            self._call.end()  # first: where warnings are errors, nothing comes after one
            warnings.warn(f"{self!r} was dropped, neither read to its end nor closed", ResourceWarning, stacklevel=1)

    def __repr__(self) -> str:
        state = self.ending.kind if self.ending else "open" if self._call.response else "not open"
        return f"<{type(self).__name__} {state}, request {self.request_id}>"

    # Reading -------------------------------------------------------------------------------------------------------

    def _take_event(self) -> StreamEvent | None:
        """The next event of the wire, applied, without waiting. None: wait (`_more`), and ask again.

        Raises `StopAsyncIteration` when the answer is whole, and `APIError` for every other ending.
        """
        call = self._call
        if self.ending is None and call.response is not None:
            answer = call.exchange
            event = answer.next_event()
            if answer.is_over and answer.error is None:
                call.release()
                ending = answer.ending()
                self.ending = self.ending or ending
            if event is not None or self.ending is None:
                return event
        # Asked last: another thread, or a signal handler, may close the stream at any moment.
        if self._error is not None:
            raise self._error
        _ = self.response  # raises, if the stream is not open
        raise StopAsyncIteration

    async def _more(self) -> None:
        """Wait for what comes next: the response, bytes, or another attempt. Raises `APIError` if there is none."""
        call, answer = self._call, self._call.exchange
        if call._pool is not None and call._pool.is_elsewhere:
            raise RuntimeError("the stream belongs to another event loop: read it in the one in which it was opened")
        error = answer.error
        try:
            if error is None and answer.response is not None:
                await call.more()
            elif error is not None and answer.is_committed and not self._is_unseen:
                raise error
            else:
                await call.open(error)
        except APIError as exc:
            if exc is not error or answer.is_committed:
                raise self._failed(exc) from exc.__cause__
            answer.is_committed = True  # what was held back is given out, and then the error is raised
        except BaseException:  # cancelled, or Ctrl-C
            self._close()
            raise

    def _failed(self, error: APIError) -> APIError:
        """The stream ends with this error, unless it has ended."""
        call, answer = self._call, self._call.exchange
        if self.ending is not None and self._error is not None:
            return self._error
        if answer.error is not error:  # raised between two attempts: the stream was closed, or has no time left
            answer.error = error
            answer._describe(error)
        answer.is_over = True
        call.release()
        error.retries_taken = call.retries_taken
        self._error = answer.failure()
        self.ending = error.ending
        return error


class EventStream(BaseStream):
    """The events of the wire, typed, and nothing else: what `messages.create(stream=True)` gives."""

    async def __anext__(self) -> StreamEvent:
        """The next event. Raises `APIError` for every ending but a complete one."""
        while (event := self._take_event()) is None:
            await self._more()
        return event

    async def _read_whole(self) -> Message:
        """The whole message, for a caller who sees no event of it: any failure may be retried."""
        self._is_unseen = True
        async with self:
            async for _ in self:
                pass
        return self.current_message_snapshot

    _take = BaseStream._take_event


class MessageStream(BaseStream):
    """The events of the wire but pings (`timing` has them), the derived ones, the text, and the message they add up to.

    There is one iterator: breaking out of a loop and iterating again goes on where it stopped. `outputs` parses the text.
    """

    def __init__(self, call: Call[Answer], outputs: Outputs[Any] | None = None) -> None:
        super().__init__(call)
        self._outputs: Outputs[Any] = outputs or Outputs()
        self._expanded: deque[MessageStreamEvent] = deque()

    @property
    def current_message_snapshot(self) -> ParsedMessage[Any]:
        """The message so far; live while the stream runs. Raises `RuntimeError` before `message_start`."""
        return self._outputs.message(super().current_message_snapshot)

    @property
    def text_stream(self) -> TextStream:
        """The text of all text blocks, piece by piece. It takes from the same iterator as the stream itself."""
        return TextStream(self)

    async def __anext__(self) -> MessageStreamEvent:
        """The next event. Raises `APIError` for every ending but a complete one."""
        while (event := self._take()) is None:
            await self._more()
        return event

    def _take(self) -> MessageStreamEvent | None:
        while not self._expanded:
            if (event := self._take_event()) is None:
                return None
            if type(event) is not Ping:
                self._expanded.extend(self._expand(event))
        return self._expanded.popleft()

    def _take_text(self) -> str | None:
        while True:
            if self._expanded:  # the caller took the event of the wire and left the derived one
                derived = self._expanded.popleft()
                text = derived.text if isinstance(derived, TextEvent) else None
            elif self._take_event() is None:
                return None
            else:
                text = self._call.exchange.builder.added_text
            if text is not None:
                return text

    def _expand(self, event: StreamEvent) -> list[MessageStreamEvent]:
        """The event as the caller gets it, and the derived one, if there is one."""
        builder = self._call.exchange.builder
        expanded = builder.expand(event)
        if isinstance(event, ContentBlockDelta) and not self._outputs.has_format:
            return expanded  # nearly all events: nothing to parse
        return [self._outputs.event(each, lambda: builder.message) for each in expanded]

    async def until_done(self) -> None:
        """Read the stream to its end. Raises `APIError` for every ending but a complete one."""
        self._expanded.clear()
        with suppress(StopAsyncIteration):
            while True:
                if self._take_event() is None:
                    await self._more()

    async def get_final_message(self) -> ParsedMessage[Any]:
        """Read the stream to its end; the whole message. Raises `APIError` for every ending but a complete one."""
        await self.until_done()
        return self.current_message_snapshot

    async def get_final_text(self) -> str:
        """Read the stream to its end; the text of all text blocks. Raises `RuntimeError` if there is none."""
        message = await self.get_final_message()
        if not any(block.type == "text" for block in message.content):
            kinds = ", ".join(block.type for block in message.content) or "nothing"
            raise RuntimeError(f"the answer has no text; it has: {kinds}")
        return message.text


class TextStream(AsyncIterator[str]):
    """The text in a stream."""

    def __init__(self, stream: MessageStream) -> None:
        self._take, self._more, self._close = stream._take_text, stream._more, stream._close

    async def __anext__(self) -> str:
        """The next piece of text. Raises `APIError` for every ending but a complete one."""
        while (text := self._take()) is None:
            await self._more()
        return text
