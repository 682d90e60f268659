"""One attempt at an answer, from the request's bytes to the ending: a pure object that yields typed events.

    answer = Answer(CallSettings(request, route), Timing())
    ...                                             # driven like any `Exchange`
    answer.receive(data, now)
    while (event := answer.next_event()) is not None:
        ...
    answer.is_over, answer.error, answer.ending()

Events are decoded, applied to the message and returned one at a time. So the message so far always matches the events that
the caller has seen, and a failure is reported after the events before it.

While another attempt may follow (`holds`), `message_start` is held back until content arrives, so that no caller sees two
of them. Pings are not held.
"""

from __future__ import annotations

from typing import cast

from rawsse.client.exchange import REFUSAL_SECONDS, CallSettings, Exchange, Timing, json_or_itself
from rawsse.errors import (
    APIConnectionError,
    APIError,
    BodyTooLargeError,
    Ending,
    EventTooLargeError,
    HTTPProtocolError,
    LimitExceededError,
    StreamCancelledError,
    StreamTruncatedError,
    quote,
    stream_error,
)
from rawsse.http1 import Response
from rawsse.messages.events import (
    ContentBlockDelta,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    Ping,
    StreamEvent,
    UnknownEvent,
    brings_content,
    read_event,
    whole_events,
)
from rawsse.messages.lens import object_at
from rawsse.messages.message import MessageBuilder
from rawsse.sse import Decoder, Event

MAX_FILLER_BYTES = 4 * 1024 * 1024
"""How many bytes may arrive without an event (comments, blank lines, ids), beyond the largest event. More ends the stream."""

MAX_HELD_EVENTS = 100
"""How many events are held back while another attempt may follow: `message_start`, as a rule, and events of unknown types.
More than these are returned at once, and then no other attempt follows: memory stays bounded."""

_BLANKS = b" \t\r\n\xef\xbb\xbf"  # with the byte order mark of UTF-8


class Answer(Exchange):
    """An event stream of the Messages API. `builder` folds its events. `holds`: another attempt may follow."""

    def __init__(self, settings: CallSettings, timing: Timing, *, holds: bool = False) -> None:
        super().__init__(settings, timing, holds=holds)
        self.builder = MessageBuilder(strict=settings.strict, max_message_bytes=settings.max_message_bytes)
        self._decoder = Decoder(max_event_bytes=settings.max_event_bytes)
        self._pending: list[Event] = []  # decoded, not yet applied; the next one last
        self._room = self._max_filler = settings.max_event_bytes + MAX_FILLER_BYTES  # until there is an event
        self._held: list[StreamEvent] = []
        self._has_ended = False  # the body: earlier events may not have been returned yet
        self._begins = b""  # the first byte of the body after whitespace. After "{" it may be a message or an error
        self._other_kind = ""  # the content type of a response that claims not to be an event stream

    def next_event(self) -> StreamEvent | None:
        """The next event, applied. None: more bytes are needed, or, if `is_over`, there is no other."""
        pending = self._pending
        try:
            while (held := self.is_committed and self._held) or (pending and not self.is_over):
                event = held.pop(0) if held else read_event(pending.pop())
                if event is None:  # the end mark `[DONE]`
                    continue
                self._note(event)
                if self.is_committed or type(event) is Ping:
                    self._apply(event)
                    return event
                self._hold(event)
        except APIError as exc:
            self._stop(exc)
        if self._has_ended:
            self._stop(self._cause)
        return None

    def fail(self, error: APIError) -> None:
        """No attempt follows: complete `error` for the caller, with the message so far. Only the first failure counts."""
        if self.error is None or self.error is error or self.error.ending is None:
            super().fail(error)
        if self.error is error:
            error.ending = ending = self.ending()
            error.phase, error.partial = ending.phase, self.builder.message
            error.safe_to_retry = error.safe_to_retry and not self.builder.has_content

    def ending(self) -> Ending:
        """How the answer ended, if no attempt follows."""
        error, builder = self.error, self.builder
        text = "the answer is whole" if error is None else error.message
        if tail_missing := error is None and not builder.is_done:
            text = f"message_stop never came: {self._cause.message if self._cause else 'the body ended'}"
        return Ending(
            kind="complete" if error is None else error.ending_kind,
            text=text,
            phase=builder.phase if self.phase == "open" else self.phase,
            stop_reason=builder.stop_reason,
            error_type=getattr(error, "type", None),
            request_id=self.request_id if error is None else error.request_id,
            bytes_received=self.bytes_received,
            tail_missing=tail_missing,
        )

    # Events --------------------------------------------------------------------------------------------------------

    def _hold(self, event: StreamEvent) -> None:
        if isinstance(event, ErrorEvent):
            raise self._error_in(event)
        self._held.append(event)
        self.is_committed = not isinstance(event, MessageStart | UnknownEvent) or len(self._held) >= MAX_HELD_EVENTS

    def _apply(self, event: StreamEvent) -> None:
        builder, timing = self.builder, self.timing
        builder.apply(event)
        if type(event) is ContentBlockDelta and timing.first_content is not None:
            return  # nearly all events
        if isinstance(event, ErrorEvent):
            raise self._error_in(event)
        if timing.first_content is None and brings_content(event):
            timing.first_content = self._received_at - timing.started
        if builder.is_done:
            # Do not wait for the end of the body: a server that keeps the connection open would delay a complete answer.
            self._stop(None)

    def _note(self, event: StreamEvent) -> None:
        """Restart the clocks: a ping shows that the connection is alive; most other events are content."""
        timing = self.timing
        if timing.first_event is None:
            timing.first_event = self._received_at - timing.started
        if type(event) is ContentBlockDelta:
            # An empty delta counts as a ping: some gateways send these to keep a connection alive.
            delta = event.raw["delta"]
            if delta.get("text") or any(value for name, value in delta.items() if name != "type"):
                self._restart_content()
        elif isinstance(event, Ping):
            timing.last_ping = self._received_at - timing.started
        elif not isinstance(event, UnknownEvent | MessageDelta) or any(object_at(event.raw, "delta").values()):
            self._restart_content()

    def _restart_content(self) -> None:
        """Content came: restart the clocks that wait for it. `UnfoldedAnswer.take_deltas` calls it, too."""
        self._content_at = self._waited

    def _error_in(self, event: ErrorEvent) -> APIError:
        clean = event.sse._replace(data=self._secrets.removed(event.sse.data))
        self.builder.error = event = cast(ErrorEvent, read_event(clean))
        return stream_error(event.raw, self.response.headers if self.response else {})

    # The body ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """The response's head has arrived, and its body is or may be an event stream."""
        return super().is_open and not self._other_kind

    def _receive_head(self, response: Response, now: float) -> None:
        super()._receive_head(response, now)
        self.builder.request_id = self.request_id
        # Read leniently: gateways call an event stream `text/plain`, or nothing.
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in ("text/html", "text/plain") or kind.endswith("json"):
            self._other_kind = kind

    @property
    def _has_content(self) -> bool:
        return self.builder.has_content or bool(self._pending or self._gathered)

    def _take(self, data: bytes) -> None:
        self._begins = self._begins or data.lstrip(_BLANKS)[:1]
        if self._other_kind and self._begins not in (b"", b"{", b"[", b'"', b"<"):
            self._other_kind = ""  # the content type is wrong: neither JSON nor HTML begins like that
        if self._other_kind or self._begins == b"{":
            self._gather(data)
        if self._other_kind:
            if self._begins not in (b"", b"{"):  # a whole message may take as long as a stream
                self._give_up_at = min(self._give_up_at, self._received_at + REFUSAL_SECONDS)
            return
        try:
            events = self._decoder.feed(data)
        except EventTooLargeError as exc:
            self._pending[:0] = exc.events[::-1]
            raise
        self._pending[:0] = events[::-1]
        self._room = self._max_filler if events else self._room - len(data)
        if self._room < 0:
            limit = self._max_filler
            raise BodyTooLargeError(f"more than {limit} bytes came without an event", limit=limit)

    # The end -------------------------------------------------------------------------------------------------------

    def end(self, cause: APIError | None = None) -> None:
        """The body has ended, or `cause` ended it. The answer is over once the earlier events have been returned."""
        if self._has_ended or self.is_over:
            return
        self._has_ended, self._cause = True, cause
        if cause is None and self._begins == b"{":
            # The body may be a whole message: mocks and some gateways do not stream. It is turned into the events of a stream.
            body = json_or_itself(self._gathered)
            if events := whole_events(body) if isinstance(body, dict) else []:
                self._other_kind = ""
                self._pending[:0] = events[::-1]
        if not self._pending:
            self._stop(cause)

    def _verdict(self, cause: APIError | None) -> APIError | None:
        if self._other_kind == "text/plain" and not self._gathered:
            self._other_kind = ""  # as good as an event stream, until its first byte
        error = super()._verdict(cause)
        if self._other_kind and not self._is_refusal and not isinstance(cause, StreamCancelledError):
            said = f"asked for an event stream, got {self._other_kind}: {quote(bytes(self._gathered))}"
            is_cut = self._begins == b"{" and isinstance(cause, APIConnectionError | LimitExceededError)
            return self._error_with_200() or (cause if is_cut else HTTPProtocolError(said))
        if self.builder.is_complete:  # then only the tail is missing
            return None if error is None or error.ending_kind in ("timeout", "truncated") else error
        if error is None and (error := self._error_with_200()) is None:
            inside = f", inside an event ({quote(cut_off)})" if (cut_off := self._decoder.close()) else ""
            error = StreamTruncatedError(f"the body ended before message_stop{inside}")
        return error
