"""One attempt at an answer, from the bytes of the request to its ending: a pure object that gives typed events.

    answer = Answer(CallSettings(request, route), Timing())
    ...                                             # driven as any `Exchange`
    answer.receive(data, now)
    while (event := answer.next_event()) is not None:
        ...
    answer.is_over, answer.error, answer.ending()

Events are read, applied to the message and given out one at a time, so that the message so far is always what the caller has
seen, and a failure comes after the events that came before it.

While another attempt may follow (`holds`), `message_start` is held back until content comes, so that no caller sees two
beginnings. Pings are not held.
"""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

from rawsse.client.exchange import CallSettings, Exchange, Timing
from rawsse.client.ratelimits import RateLimits
from rawsse.errors import (
    APIError,
    APIStatusError,
    APITimeoutError,
    Ending,
    EventTooLargeError,
    HTTPProtocolError,
    StreamTruncatedError,
    quote,
    stream_error,
)
from rawsse.http1 import Response
from rawsse.messages.events import (
    ContentBlockDelta,
    ErrorEvent,
    MessageStart,
    Ping,
    StreamEvent,
    UnknownEvent,
    read_event,
)
from rawsse.messages.message import EventWatcher, MessageBuilder
from rawsse.sse import Decoder, Event

MAX_HELD_EVENTS = 100
"""How many events are held back while another attempt may follow: `message_start`, as a rule, and events of unknown types.
After that many there is no other attempt: they must not fill the memory."""


class Answer(Exchange):
    """An event stream of the Messages API. `builder` folds its events. `holds`: another attempt may follow."""

    _fold: ClassVar[Any] = MessageBuilder

    def __init__(self, settings: CallSettings, timing: Timing, *, holds: bool = False) -> None:
        super().__init__(settings, timing)
        self.builder: MessageBuilder = self._fold(strict=settings.strict, max_message_bytes=settings.max_message_bytes)
        self.is_committed = not holds
        """An event has been given out that no other attempt may repeat."""
        self._decoder = Decoder(max_event_bytes=settings.max_event_bytes)
        self._pending: deque[Event] = deque()  # decoded, not yet applied
        self._held: deque[StreamEvent] = deque()
        self._cause: APIError | None = None  # found behind events that are still to be given out
        self._has_body_ended = False
        self._other_kind = ""  # what the response says that it is, if it says that it is no event stream
        self._tail_missing = ""  # why `message_stop` did not come

    @property
    def is_open(self) -> bool:
        """The response is a success, and an event stream."""
        return super().is_open and not self._other_kind

    @property
    def is_reusable(self) -> bool:
        """Nothing was wrong with the connection."""
        return super().is_reusable and not self._tail_missing

    def commit(self) -> None:
        """There will be no other attempt: what is held is given out."""
        self.is_committed = True

    def next_event(self) -> StreamEvent | None:
        """The next event, applied. None: more bytes are needed, or, if `is_over`, there is no other."""
        try:
            while (event := self._read()) is not None:
                if self.is_committed:
                    self._apply(event)
                    return event
                if type(event) is Ping:
                    return event
                self._hold(event)
        except APIError as exc:
            self._conclude(exc)
        else:
            if not self.is_over and (self._cause is not None or self._has_body_ended):
                self._conclude(self._cause or self._truncated())
        return None

    def failure(self) -> APIError:
        """The error, with all that its reader needs. The message so far is what was given out."""
        error = self.error
        assert error is not None  # noqa: S101 - asked only of an answer that failed
        # An attempt that was refused after another had begun to answer came no further than `connect`.
        error.phase = self.builder.phase if self.phase == "open" else self.phase
        if isinstance(error, APIStatusError) and error.rate_limits is None:  # of an error event: those of the response
            error.rate_limits = RateLimits.from_headers(error.headers)
        error.partial = self.builder.message
        if error.partial is not None:
            error.partial.request_id = error.request_id
        error.safe_to_retry = error.safe_to_retry and not self.builder.has_content
        error.ending = self.ending()
        return error

    def ending(self) -> Ending:
        """How the answer ended, if no attempt follows."""
        error, builder = self.error, self.builder
        return Ending(
            kind="complete" if error is None else error.ending_kind,
            text=error.message if error is not None else self._tail_missing or "the answer is whole",
            phase=builder.phase if error is None else error.phase or self.phase,
            stop_reason=builder.stop_reason,
            error_type=getattr(error, "type", None),
            request_id=self.request_id if error is None else error.request_id,
            bytes_received=self.bytes_received,
            tail_missing=bool(self._tail_missing),
        )

    # Events --------------------------------------------------------------------------------------------------------

    def _read(self) -> StreamEvent | None:
        if self._held and self.is_committed:
            return self._held.popleft()
        while self._pending and not self.is_over:
            event = read_event(self._pending.popleft())
            if event is not None:
                self._note(event)
                return event
        return None

    def _hold(self, event: StreamEvent) -> None:
        self._held.append(event)
        if isinstance(event, ErrorEvent):
            raise stream_error(event.raw, self._headers)
        is_beginning = isinstance(event, MessageStart | UnknownEvent)
        self.is_committed = not is_beginning or len(self._held) >= MAX_HELD_EVENTS

    def _apply(self, event: StreamEvent) -> None:
        builder = self.builder
        had_content = builder.has_content
        builder.apply(event)
        if had_content and type(event) is ContentBlockDelta:
            return  # nearly all events
        if isinstance(event, ErrorEvent):
            raise self.error or stream_error(event.raw, self._headers)
        if builder.has_content and not had_content:
            self.timing.first_content = self._received_at - self.timing.started
        if builder.is_done:
            # The end of the body is not waited for: a server that holds the connection would delay a whole answer.
            self.finish()

    def _note(self, event: StreamEvent) -> None:
        """What the clocks learn from an event: a ping shows that the connection lives, most others are content."""
        timing = self.timing
        if timing.first_event is None:
            timing.first_event = self._received_at - timing.started
        if type(event) is ContentBlockDelta:
            # A delta that brings nothing, as some gateways send them to keep a connection alive, is no more than a ping.
            delta = event.raw["delta"]
            if delta.get("text", delta.get("partial_json", delta.get("thinking"))) != "":
                self._waited_for_content = 0.0
        elif isinstance(event, Ping):
            timing.last_ping = self._received_at - timing.started
        elif not isinstance(event, UnknownEvent):
            self._waited_for_content = 0.0

    @property
    def _headers(self) -> Any:
        return self.response.headers if self.response else {}

    # The body ------------------------------------------------------------------------------------------------------

    def _receive_head(self, response: Response, now: float) -> None:
        super()._receive_head(response, now)
        # Read leniently: gateways call an event stream `text/plain`, or nothing. One that is called JSON or HTML is that,
        # unless it begins as neither does.
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in ("application/json", "text/html") and not self._is_refused:
            self._other_kind = kind

    def _take(self, data: bytes) -> None:
        if self._other_kind:
            if data.lstrip()[:1] in (b"", b"{", b"[", b'"', b"<"):
                self._stop(self._no_event_stream(data))
                return
            self._other_kind = ""
        try:
            self._pending.extend(self._decoder.feed(data))
        except EventTooLargeError as exc:
            self._pending.extend(exc.events)
            raise

    def _take_end(self) -> None:
        if self._other_kind:
            self._stop(self._no_event_stream(b""))
        self._has_body_ended = True

    def _no_event_stream(self, beginning: bytes) -> HTTPProtocolError:
        return HTTPProtocolError(f"asked for an event stream, got {self._other_kind}: {quote(beginning)}")

    # The end -------------------------------------------------------------------------------------------------------

    def _fail(self, error: APIError) -> None:
        """The exchange failed: at once, or when the events that came before have been given out."""
        if self.is_over:
            return
        if self._other_kind:
            error = self._no_event_stream(b"")
        if self.response is None or self._is_refused or self._other_kind:
            super()._fail(error)
        elif self._cause is None:
            self._cause = error
            if not self._pending:
                self._conclude(error)

    def _conclude(self, error: APIError) -> None:
        is_cut = isinstance(error, APITimeoutError | StreamTruncatedError)
        if is_cut and not self.is_over and self._watch is not None:
            self._watch.end(self._cause)  # the observer is told of the body: a whole one may lack `message_stop`
            self._watch = None
        if is_cut and self.builder.is_complete:
            self._tail_missing = f"message_stop never came: {error.message}"
            self.finish()
        elif self.is_over:
            self.error = error  # a held event was given out after all, and is out of order
            self._describe(error)
        else:
            self._stop(error)

    def _truncated(self) -> StreamTruncatedError:
        cut_off = self._decoder.close()
        if self.builder.is_complete:
            return StreamTruncatedError("the body ended")
        inside = f", inside an event ({quote(cut_off)})" if cut_off else ""
        return StreamTruncatedError(f"the body ended before message_stop{inside}")


class UnfoldedAnswer(Answer):
    """An answer whose events are passed on: their order is checked, and no message is kept."""

    _fold = EventWatcher
