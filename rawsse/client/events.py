"""The events of an answer, one after the other, over as many attempts as it takes; and how they end.

This file knows how the bytes of a call become events, when another attempt may still be made, and how a stream ends. It
refuses to know sockets, how a request is made, and what is derived from the events (`stream.py`).

    events = await client.messages.create(stream=True, ...)
    async for event in events: ...                          # the events of the wire, typed, and nothing else

A stream ends in exactly one way (`stream.ending`). It is complete only with `message_stop`, or when the stop reason had come
and only the tail is missing (then `ending.tail_missing` is set); anything else raises, and the error carries the message so
far. A failure before any content is tried again first, as the policy says; nothing that the caller saw is ever taken back.
`close()` may be called by any task, at any phase, any number of times; leaving the `async with` block calls it.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from rawsse.client.call import Call
from rawsse.client.moments import Timing
from rawsse.client.ratelimits import RateLimits
from rawsse.errors import (
    APIError,
    APIStatusError,
    APITimeoutError,
    Ending,
    EventTooLargeError,
    HTTPProtocolError,
    StreamCancelledError,
    StreamTruncatedError,
    quote,
    stream_error,
)
from rawsse.http1 import Headers, Response
from rawsse.messages.content import Message
from rawsse.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    Ping,
    StreamEvent,
    UnknownEvent,
    read_event,
)
from rawsse.messages.message import MessageBuilder
from rawsse.sse import MAX_EVENT_BYTES, Decoder, Event

__all__ = ["MAX_HELD_EVENTS", "BaseStream", "EventStream"]

MAX_HELD_EVENTS = 100
"""How many events are held back while another attempt may follow: `message_start`, as a rule, and events of unknown types.
Whoever sends more must not fill the memory; then there is no other attempt."""

_INNER_EVENTS = frozenset({ContentBlockStart, ContentBlockDelta, ContentBlockStop, MessageDelta})


class BaseStream:
    """What both kinds of stream share: opening, reading event by event, trying again, ending."""

    def __init__(
        self, call: Call, new_builder: Callable[[], MessageBuilder], *, max_event_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self._call = call
        self._new_builder = new_builder
        self._max_event_bytes = max_event_bytes
        self._is_unseen = False  # nobody sees the events: a failure may be tried again whenever it comes
        self._response: Response | None = None
        self._ending: Ending | None = None
        self._error: APIError | None = None  # raised again by whoever goes on reading: a cut answer never looks whole
        self._begin()

    def _begin(self) -> None:
        """Make ready for the answer to an attempt."""
        self._builder = self._new_builder()
        self._decoder = Decoder(max_event_bytes=self._max_event_bytes)
        # Decoded, but not yet applied: an event is applied when it is handed out, so that the message so far never runs
        # ahead of the events that the caller has seen.
        self._pending: deque[Event] = deque()
        # Read as well, and held back: while another attempt may follow, `message_start` (and events of unknown types) wait for
        # what comes next, so that nobody sees two beginnings.
        self._held: deque[StreamEvent] = deque()
        self._is_committed = False  # an event has been handed out: there will be no other attempt
        self._failure: APIError | None = None  # found while events are held that come before it

    # What is known -------------------------------------------------------------------------------------------------

    @property
    def response(self) -> Response:
        """The response's head. Raises `RuntimeError` before the stream is open."""
        if self._response is None:
            raise RuntimeError("the stream is not open: use `async with` (or await `create`) first")
        return self._response

    @property
    def headers(self) -> Headers:
        """The response's header fields."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response: what Anthropic's support asks for."""
        return self._call.request_id

    @property
    def workspace_id(self) -> str | None:
        """The `anthropic-workspace-id` of the response."""
        return self.headers.get("anthropic-workspace-id")

    @property
    def rate_limits(self) -> RateLimits:
        """What the response's header says of the rate limits."""
        return RateLimits.from_headers(self.headers)

    @property
    def retries_taken(self) -> int:
        """How often the request was tried again."""
        return self._call.retries_taken

    @property
    def ending(self) -> Ending | None:
        """How the stream ended; None while it has not."""
        return self._ending

    @property
    def timing(self) -> Timing:
        """When the connection, the head, the first event, the first content and the last ping came; the longest wait."""
        return self._call.timing

    @property
    def error_event(self) -> ErrorEvent | None:
        """The `error` event that ended the stream, as it came."""
        return self._builder.error

    @property
    def current_message_snapshot(self) -> Message:
        """The message so far; live while the stream runs. Raises `RuntimeError` before `message_start`."""
        message = self._builder.message
        if message is None:
            raise RuntimeError("message_start has not come yet")
        message.request_id = self.request_id
        return message

    # Open and close ------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        if self._response is not None:
            return
        try:
            await self._open_response()
        except APIError as exc:
            raise self._failed(exc) from exc.__cause__
        except asyncio.CancelledError:
            self._end_cancelled()
            raise

    async def _open_response(self) -> None:
        response = await self._call.open()
        # Looked at leniently: gateways call an event stream `text/plain`, or nothing. One that is called JSON or HTML is that,
        # unless it begins as neither does.
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in ("application/json", "text/html"):
            beginning = await self._read_beginning()
            if beginning.lstrip()[:1] in (b"", b"{", b"[", b'"', b"<"):
                raise HTTPProtocolError(f"asked for an event stream, got {kind}: {quote(beginning)}")
            self._decode(beginning)
        self._response = response

    async def _read_beginning(self) -> bytes:
        """What comes first of a body that is wrong anyway. That nothing comes is not what is wrong with it."""
        try:
            return await self._call.exchange.read()
        except StreamCancelledError:
            raise
        except APIError:
            return b""

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the stream and drop the connection. A task that waits for the stream gets `StreamCancelledError`."""
        self._end_cancelled()

    async def aclose(self) -> None:
        """The same as `close`, for `contextlib.aclosing`."""
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_response", None) is not None and self._ending is None:
            self._call.abandon()  # first: where warnings are errors, nothing comes after one
            warnings.warn(f"{self!r} was dropped, neither read to its end nor closed", ResourceWarning, stacklevel=1)

    def __repr__(self) -> str:
        state = self._ending.kind if self._ending else "open" if self._response else "not open"
        return f"<{type(self).__name__} {state}, request {self.request_id}>"

    # Reading -------------------------------------------------------------------------------------------------------

    async def _next(self) -> StreamEvent | None:
        """The next event of the wire, applied; None when the answer is whole. Raises `APIError`."""
        if self._error is not None:
            raise self._error
        if self._response is None:
            raise RuntimeError("the stream is not open: use `async with` first")
        try:
            while self._ending is None:
                if not self._is_committed:
                    if (ping := await self._look_ahead()) is not None:
                        return ping
                    continue
                event = self._held.popleft() if self._held else self._read()
                if event is not None:
                    self._apply(event)
                    return event
                await self._receive()
        except APIError as exc:
            if self._is_unseen:
                return await self._next_of_another_attempt(exc)
            raise self._failed(exc) from exc.__cause__
        except asyncio.CancelledError:
            self._end_cancelled()
            raise
        if self._error is not None:  # somebody closed the stream meanwhile
            raise self._error
        return None

    def _next_ready(self) -> StreamEvent | None:
        """The next event of the wire, applied, if it has come, and neither begins nor ends an answer: nothing is to be done for
        it with connections and attempts. None: `_next` must be asked.

        It never raises and needs no event loop: the blocking stream, which owns this one, calls it in the caller's thread.
        """
        if not self._pending or not self._builder.has_content or self._held or self._ending is not None:
            return None
        try:
            event = read_event(self._pending[0])
            if event is None or type(event) not in _INNER_EVENTS:
                return None
            self._builder.apply(event)
        except APIError:
            return None  # it has not been applied: `_next` finds the same, and ends the stream
        self._pending.popleft()
        self._note(event)
        return event

    async def _look_ahead(self) -> Ping | None:
        """Read on until it is clear that there will be no other attempt, making them where this one fails.

        A ping on the way is handed out at once, before what is held: it says that the connection lives, and nothing else.
        """
        while not self._is_committed and self._ending is None:
            event = None
            try:
                if (event := self._read()) is None:
                    await self._receive()
                    continue
                if isinstance(event, ErrorEvent):
                    raise stream_error(event.raw, self.headers)
            except APIError as exc:
                if await self._is_tried_again(exc):
                    continue
                self._failure = exc
                self._pending.clear()
                self._is_committed = True
            if isinstance(event, Ping):
                return event
            if event is not None:
                self._held.append(event)
            is_content = not isinstance(event, MessageStart | UnknownEvent)
            if is_content or not self._call.has_retries or len(self._held) >= MAX_HELD_EVENTS:
                self._is_committed = True
        return None

    async def _next_of_another_attempt(self, error: APIError) -> StreamEvent | None:
        try:
            is_tried_again = self._ending is None and await self._is_tried_again(error)
        except APIError as exc:
            raise self._failed(exc) from exc.__cause__
        if not is_tried_again:
            raise self._failed(error) from error.__cause__
        return await self._next()

    async def _is_tried_again(self, error: APIError) -> bool:
        try:
            await self._call.again(error)
        except APIError as exc:
            if exc is error:
                return False
            raise
        self._begin()
        await self._open_response()
        return True

    def _read(self) -> StreamEvent | None:
        """The next event among those that have come, not yet applied; None if more bytes are needed."""
        while self._pending:
            event = read_event(self._pending.popleft())
            if event is not None:
                self._note(event)
                return event
        if self._failure is not None:
            raise self._failure
        return None

    async def _receive(self) -> None:
        """Wait for more bytes and decode them. At the body's end: the stream is over, or cut."""
        try:
            data = await self._call.exchange.read()
        except (APITimeoutError, StreamTruncatedError) as exc:
            if not self._builder.is_complete:
                raise
            self._end(tail_missing=True, text=f"message_stop never came: {exc}")
            return
        if data:
            self._decode(data)
            return
        cut_off = self._decoder.close()
        if self._builder.is_complete:
            self._end(tail_missing=True, text="message_stop never came: the body ended")
            return
        inside = f", inside an event ({quote(cut_off)})" if cut_off else ""
        raise StreamTruncatedError(f"the body ended before message_stop{inside}")

    def _decode(self, data: bytes) -> None:
        try:
            self._pending.extend(self._decoder.feed(data))
        except EventTooLargeError as exc:
            self._pending.extend(exc.events)
            self._failure = exc

    def _note(self, event: StreamEvent) -> None:
        """What the clocks learn from an event: liveness from a ping, content from most others."""
        timing = self._call.timing
        if timing.first_event is None:
            timing.first_event = timing.elapsed()
        if isinstance(event, Ping):
            timing.last_ping = timing.elapsed()
        elif not isinstance(event, UnknownEvent) and not _is_empty(event):
            self._call.exchange.note_content()

    def _apply(self, event: StreamEvent) -> None:
        had_content = self._builder.has_content
        self._builder.apply(event)
        if isinstance(event, ErrorEvent):
            raise self._failure or stream_error(event.raw, self.headers)
        if not had_content and self._builder.has_content:
            self._call.timing.first_content = self._call.timing.elapsed()
        if self._builder.is_done:
            # The body's own end is not waited for: a server that holds the connection would delay a whole answer.
            self._end(text="the answer is whole")

    # Endings -------------------------------------------------------------------------------------------------------

    def _end(self, *, text: str, tail_missing: bool = False) -> None:
        self._call.exchange.finish()
        self._ending = Ending(
            kind="complete",
            text=text,
            phase=self._builder.phase,
            stop_reason=self._builder.stop_reason,
            request_id=self.request_id,
            bytes_received=self._call.exchange.bytes_received,
            tail_missing=tail_missing,
        )

    def _end_cancelled(self) -> None:
        if self._ending is None:
            self._failed(StreamCancelledError("the stream was closed before its end"))

    def _failed(self, error: APIError) -> APIError:
        """Give the error what its reader needs, and the stream its ending."""
        exchange = self._call.exchange
        self._call.close(error)
        # Of the last attempt: one that was refused after another had begun to answer came no further than `connect`.
        error.phase = self._builder.phase if exchange.phase == "open" else exchange.phase
        error.bytes_received = exchange.bytes_received
        error.retries_taken = self.retries_taken
        error.request_id = error.request_id or self.request_id
        error.response = error.response or self._response
        if isinstance(error, APIStatusError) and error.rate_limits is None:  # of an error event: those of the response
            error.rate_limits = RateLimits.from_headers(error.headers)
        error.partial = self._builder.message
        if error.partial is not None:
            error.partial.request_id = error.request_id
        is_repeatable = error.may_heal if error.should_retry is None else error.should_retry
        error.safe_to_retry = is_repeatable and not self._builder.has_content
        if self._ending is None:
            self._ending = Ending(
                kind=error.ending_kind,
                text=error.message,
                phase=error.phase,
                stop_reason=self._builder.stop_reason,
                error_type=getattr(error, "type", None),
                request_id=error.request_id,
                bytes_received=error.bytes_received,
            )
        error.ending = self._ending
        self._error = self._error or error
        return error


def _is_empty(event: StreamEvent) -> bool:
    """A delta that brings nothing, as some gateways send them to keep a connection alive."""
    if not isinstance(event, ContentBlockDelta):
        return False
    delta = event.raw["delta"]
    return bool(delta.get("text", delta.get("partial_json", delta.get("thinking"))) == "")


class EventStream(BaseStream):
    """The events of the wire, typed, and nothing else: what `messages.create(stream=True)` gives."""

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        """The next event. Raises `APIError` for every ending but a complete one."""
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event
