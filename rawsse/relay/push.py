"""The events of an answer, pushed: from the connection's bytes to the caller's function in one call, without a task.

    push = EventPush(partial(client.messages.events, body, kind=UnfoldedAnswer), receive, ended)
    await push.open()                    # sends the request; returns once content has arrived and events are pushed
    push.pause(), push.resume()          # backpressure: TCP slows the server down
    push.close()                         # drop the connection; no callback after this

Reading a stream instead would cost a task, a future and an event-loop step for each read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Callable
from typing import Any, cast

from rawsse.client.answer import Answer
from rawsse.client.exchange import CallSettings, Timing
from rawsse.client.network.link import READ_BYTES
from rawsse.client.stream import EventStream
from rawsse.errors import Ending
from rawsse.messages.events import ContentBlockDelta, Ping, StreamEvent
from rawsse.messages.message import EventWatcher, State
from rawsse.sse import Event

_BLOCK = State.BLOCK  # bound once, because looking up an enum member is slow

_BEFORE_DATA = b"%x\r\nevent: content_block_delta"
_AROUND_DATA = len(b"event: content_block_delta\ndata: \n\n")
"""A chunk with one event, as the API writes it: the lines before the data, and the bytes beside them."""

_scan_json: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # undocumented
_new_tuple = tuple.__new__  # `Event(...)` calls a constructor written in Python

Receive = Callable[[list[Any], float], None]
Ended = Callable[[Ending | None, Exception | None], None]


class EventPush:
    """Pushes the events of the stream that `open_stream` makes: a `Source` of a run.

    `receive` is called with the events of each read, at least one, and the loop's time. `ended` is called once after the last
    of them, unless `close` is called first. It gets the ending, and None if the answer is complete, else the `APIError` or
    the exception that `receive` raised. Neither may block. The stream's answer must be an `UnfoldedAnswer`.

    One timer serves all clocks. It is not reset for each read: reads only move the deadline later, and the timer checks
    it when it fires.
    """

    def __init__(self, open_stream: Callable[[], EventStream], receive: Receive, ended: Ended) -> None:
        self.stream = open_stream()
        self._receive = receive
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._link: Any = None
        self._is_over = False
        self._is_paused = False
        self._cancel_timer: Callable[[], object] = int

    async def open(self) -> None:
        """Send the request, with retries as the policy allows, until an attempt has content or is the last one. Then start
        to push.

        Until then `receive` gets only pings. Raises `APIError` if no attempt gets a usable response; then `ended` is not
        called.
        """
        stream, call = self.stream, self.stream._call
        await stream._open()
        events: list[StreamEvent] = []
        while not call.exchange.is_committed:
            if (event := stream._take_event()) is None:
                await stream._more()
            elif type(event) is Ping:  # all other events are held back until there is content
                self._receive([event], self._now())
            else:
                events.append(event)
        self._answer = cast(UnfoldedAnswer, call.exchange)
        self._give(events + self._answer.take_events(), self._now())
        if not self._is_over:
            self._link = call._link
            if self._is_paused:
                self._link.pause()
            self._link.push_to(self._received, self._lost)  # at once for received bytes: they may include the end
            if not (self._is_paused or self._is_over):
                self._wait(self._now())

    def pause(self) -> None:
        """Stop reading, and stop the clocks: the delay is not the server's."""
        if not self._is_paused and not self._is_over:
            self._is_paused = True
            self._cancel_timer()
            if self._link is not None:
                self._link.pause()

    def resume(self) -> None:
        """Resume reading."""
        if self._is_paused and not self._is_over:
            self._is_paused = False
            if self._link is not None:
                self._wait(self._now())
                self._link.resume()

    def close(self) -> Ending | None:
        """End the stream, drop its connection, and return how it ended."""
        self._is_over = True
        self._cancel_timer()
        self.stream._close()
        return self.stream.ending

    # Called by the network -----------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        now = self._now()
        if (events := self._answer.take_deltas(data, now)) is None:
            self._answer.receive(data, now)
            self._give(self._answer.take_events(), now)
        else:
            self._receive(events, now)

    def _lost(self, exc: Exception | None) -> None:
        """The connection is lost, or `_received` raised."""
        if self._is_over:
            return
        if exc is None:
            self._answer.cancel()
        elif isinstance(exc, OSError):
            self._answer.lose(exc)
        else:
            self._ended(self.close(), exc)
            return
        self._finish()

    def _give(self, events: list[StreamEvent], now: float) -> None:
        """Pass the events on, and the end."""
        if events and not self._is_over:
            self._receive(events, now)
        if self._answer.is_over and not self._is_over:
            self._finish()

    def _finish(self) -> None:
        self._is_over = True
        self._cancel_timer()
        error = self._answer.error
        if error is not None:
            self.stream._call.fail(error)
        else:
            with contextlib.suppress(StopAsyncIteration):  # the stream records here that it is complete
                self.stream._take_event()
        if self._link is not None:
            self._link.pull()
        self._ended(self.stream.ending, error)

    def _wait(self, since: float) -> None:
        """A wait for bytes began at `since`."""
        now = self._now()
        deadline, clock = self._answer.deadline(since)
        if deadline <= now:
            self._answer.expire(clock, now)
            self._finish()
        elif deadline < math.inf:
            self._cancel_timer = self._loop.call_at(deadline, lambda: self._wait(self._answer.waiting_since)).cancel


class UnfoldedAnswer(Answer):
    """An answer whose events are forwarded: their order is checked, but no message is built."""

    __slots__ = (  # see `Feed`
        *("_content_at", "_decoder", "_is_steady", "_received_at", "_waited"),
        *("builder", "bytes_received", "timing", "waiting_since"),
    )

    def __init__(self, settings: CallSettings, timing: Timing, *, holds: bool = False) -> None:
        super().__init__(settings, timing, holds=holds)
        self.builder = EventWatcher(strict=settings.strict)
        self._is_steady = False  # more deltas may be next, and nothing is pending

    def take_deltas(self, data: bytes, now: float) -> list[StreamEvent] | None:
        """The events, if `data` consists of complete chunks with one text, thinking or input delta each. None: nothing has
        changed; pass `data` to `receive`.

        Nearly all reads are one or a few such chunks. They do not change the state of HTTP or of the decoder.
        """
        chunks = data.split(b"\n\n\r\n")
        if not self._is_steady or chunks.pop() or not chunks:
            return None
        events: list[StreamEvent] = []
        body_bytes = content_bytes = 0
        try:
            for chunk in chunks:
                before, _, line = chunk.partition(b"\ndata: ")
                size = len(line) + _AROUND_DATA
                raw, end = _scan_json(text := line.decode(), 0)
                delta = raw["delta"]
                has_content = delta.get("text") or delta.get("thinking") or delta.get("partial_json")
                # As in `read_event`.
                if raw["type"] != "content_block_delta" or type(raw["index"]) is not int or not has_content:
                    return None
                if before != _BEFORE_DATA % size or end != len(text) or "\n" in text or "\r" in text:
                    return None
                sse = _new_tuple(Event, ("content_block_delta", text, self._decoder.last_event_id))
                events.append(ContentBlockDelta(raw, sse))
                body_bytes += size
                content_bytes += len(has_content) + len(line) - len(text)  # in UTF-8, unless escaped
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError, StopIteration):
            return None  # `read_event` will raise the error
        gap = now - self.waiting_since  # as in `_note_wait`
        if gap > self.timing.longest_gap:
            self.timing.longest_gap = gap
        self._waited += gap
        self.waiting_since = self._received_at = now
        self._restart_content()
        self.bytes_received += body_bytes
        self.builder.content_bytes += content_bytes
        return events

    def take_events(self) -> list[StreamEvent]:
        """All events that have arrived."""
        events: list[StreamEvent] = []
        while (event := self.next_event()) is not None:
            events.append(event)
        self._is_steady = (
            self._coding is None
            and self._watch is None
            and self._room == self._max_filler
            and self.settings.max_event_bytes >= 2 * READ_BYTES  # more than a read has
            and self.builder.state is _BLOCK
            and self.timing.first_content is not None
            and self.http.is_between_chunks
            and self._decoder.is_between_events
        )
        return events
