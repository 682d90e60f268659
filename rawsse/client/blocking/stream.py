"""The answer as it comes, for code without async: `for event in stream`.

This file knows which thread may do what with a stream. It refuses to know how an answer is read: the async stream does that.

    with client.messages.stream(...) as stream:              # the request is sent here
        for event in stream: ...                             # or: for text in stream.text_stream
        message = stream.get_final_message()

Two threads. The network is read in the loop's thread; that costs two switches of threads, some 50 us, each time the caller has
to wait. What came together is decoded together, and the caller's own thread applies it, event by event, as it asks for them.
So the message so far is exactly what the caller has seen, and an event that was there already costs what it costs in async
code. Everything that may end or begin an answer is left to the loop. Text is parsed (`output_format`) by the caller's thread.

The async stream thus has one owner at a time: the loop while a call is under way (`_is_away`), and else whoever holds `_lock`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from rawsse.client.blocking.portal import Portal, PortalClosedError
from rawsse.client.events import EventStream
from rawsse.client.moments import Timing
from rawsse.client.ratelimits import RateLimits
from rawsse.client.stream import MessageStream
from rawsse.errors import Ending
from rawsse.http1 import Headers, Response
from rawsse.messages.content import Message, ParsedMessage
from rawsse.messages.events import (
    ErrorEvent,
    MessageStreamEvent,
    StreamEvent,
    TextEvent,
)

__all__ = ["BlockingEventStream", "BlockingMessageStream", "without_waiting"]

E = TypeVar("E")
T = TypeVar("T")


class _BlockingStream(Generic[E]):
    """What both kinds of stream share. `portal` gives the loop when it is needed: not before the stream is opened."""

    _stream: EventStream | MessageStream

    def __init__(self, portal: Callable[[], Portal], stream: EventStream | MessageStream) -> None:
        self._stream = stream
        # Nothing in the loop follows what is read, as eager tools do: it may be read without the loop.
        self._is_plain = not (isinstance(stream, MessageStream) and stream._is_watched)
        self._get_portal = portal
        self._portal: Portal | None = None
        # A signal's handler that closes the stream may interrupt its own thread in here.
        self._lock = threading.RLock()
        self._is_away = False

    # What is known -------------------------------------------------------------------------------------------------

    @property
    def response(self) -> Response:
        """The response's head. Raises `RuntimeError` before the stream is open."""
        return self._stream.response

    @property
    def headers(self) -> Headers:
        """The response's header fields."""
        return self._stream.headers

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response: what Anthropic's support asks for."""
        return self._stream.request_id

    @property
    def workspace_id(self) -> str | None:
        """The `anthropic-workspace-id` of the response."""
        return self._stream.workspace_id

    @property
    def rate_limits(self) -> RateLimits:
        """What the response's header says of the rate limits."""
        return self._stream.rate_limits

    @property
    def retries_taken(self) -> int:
        """How often the request was tried again."""
        return self._stream.retries_taken

    @property
    def ending(self) -> Ending | None:
        """How the stream ended; None while it has not."""
        return self._stream.ending

    @property
    def timing(self) -> Timing:
        """When the connection, the head, the first event, the first content and the last ping came; the longest wait."""
        return self._stream.timing

    @property
    def error_event(self) -> ErrorEvent | None:
        """The `error` event that ended the stream, as it came."""
        return self._stream.error_event

    def _look(self, read: Callable[[], T]) -> T:
        """What `read` reads of the async stream, whoever has that now."""

        async def read_there() -> T:
            return read()

        with self._lock:
            return self._portal.call(read_there) if self._is_away and self._portal is not None else read()

    def __repr__(self) -> str:
        return repr(self._stream).replace(type(self._stream).__name__, type(self).__name__)

    # Open and close ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._portal = self._portal or self._get_portal()
        self._call(self._stream.__aenter__)

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the stream and drop the connection, from any thread. One that waits for the stream gets `StreamCancelledError`.

        In a forked child it does nothing: the connection is the parent's.
        """
        portal = self._portal
        if portal is None:  # nothing was sent
            without_waiting(self._stream.close())
        elif not portal.is_foreign and (self.ending is None or not self._is_plain):
            with self._lock:
                self._end(portal)

    def _end(self, portal: Portal) -> None:
        try:
            portal.call(self._stream.close)
        except PortalClosedError:
            portal.close()  # and when it has closed, with the client, nobody else touches the stream
            without_waiting(self._stream.close())

    # Reading -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[E]:
        return self

    def __next__(self) -> E:
        """The next event. Raises `APIError` for every ending but a complete one."""
        event = self._here(self._take)
        return self._wait_for_next() if event is None else event

    def _here(self, take: Callable[[], T | None]) -> T | None:
        """What can be taken without the loop; None if it must be asked."""
        try:
            with self._lock:
                return None if self._is_away else take()
        except Exception:
            raise
        except BaseException:  # Ctrl-C, in the middle of an event
            self.close()
            raise

    def _wait_for_next(self) -> E:
        try:
            return self._call(self._fetch)
        except StopAsyncIteration:
            raise StopIteration from None

    def _take(self) -> E | None:
        """The next event, applied, if it is here and the loop need not know of it."""
        raise NotImplementedError

    async def _fetch(self) -> E:
        """The next event; in the loop."""
        raise NotImplementedError

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Let the loop have the stream, and wait for what it does with it."""
        portal = self._portal
        if portal is None or (self._is_plain and self.ending is not None):
            return without_waiting(make())  # what was to come has come, or the stream says that it is not open
        with self._lock:
            if self._is_away:
                raise RuntimeError("another thread is reading the stream")
            self._is_away = True
        try:
            return portal.call(make)
        except PortalClosedError:
            self._end(portal)
            return without_waiting(make())
        except Exception:
            raise
        except BaseException:  # Ctrl-C: also if it came when the call was over already
            self._end(portal)
            raise
        finally:
            self._is_away = False


class BlockingEventStream(_BlockingStream[StreamEvent]):
    """The events of the wire, typed, and nothing else: what `messages.create(stream=True)` gives."""

    def __init__(self, portal: Callable[[], Portal], stream: EventStream) -> None:
        super().__init__(portal, stream)
        self._stream: EventStream = stream

    @property
    def current_message_snapshot(self) -> Message:
        """The message so far: what the events add up to that were handed out. Raises `RuntimeError` before `message_start`."""
        return self._look(lambda: self._stream.current_message_snapshot)

    def _take(self) -> StreamEvent | None:
        return self._stream._next_ready()

    async def _fetch(self) -> StreamEvent:
        return await self._stream.__anext__()


class BlockingMessageStream(_BlockingStream[MessageStreamEvent]):
    """The events of the wire with the derived ones, the text, and the message they add up to.

    There is one iterator: breaking out of a loop and iterating again goes on where it stopped.
    """

    def __init__(self, portal: Callable[[], Portal], stream: MessageStream) -> None:
        super().__init__(portal, stream)
        self._stream: MessageStream = stream

    @property
    def current_message_snapshot(self) -> ParsedMessage[Any]:
        """The message so far: what the events add up to that were handed out. Raises `RuntimeError` before `message_start`."""
        return self._look(lambda: self._stream.current_message_snapshot)

    @property
    def text_stream(self) -> Iterator[str]:
        """The text of all text blocks, piece by piece. It takes from the same iterator as the stream itself."""
        while True:
            text = self._here(self._stream._take_ready_text)
            if text is None:
                event = next(self, None)
                if event is None:
                    return
                if not isinstance(event, TextEvent):
                    continue
                text = event.text
            yield text

    def until_done(self) -> None:
        """Read the stream to its end. Raises `APIError` for every ending but a complete one."""
        self._call(self._stream.until_done)

    def get_final_message(self) -> ParsedMessage[Any]:
        """Read the stream to its end; the whole message. Raises `APIError` for every ending but a complete one."""
        self.until_done()
        return self.current_message_snapshot

    def get_final_text(self) -> str:
        """Read the stream to its end; the text of all text blocks. Raises `RuntimeError` if there is none."""
        return self._call(self._stream.get_final_text)

    def _take(self) -> MessageStreamEvent | None:
        return self._stream._take_ready()

    async def _fetch(self) -> MessageStreamEvent:
        return await self._stream.__anext__()


def without_waiting(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for, and so needs no loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("there was something to wait for")
