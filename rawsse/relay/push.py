"""The events of an answer, pushed: from the connection's bytes to the caller's function in one call, without a task.

    push = EventPush(client.messages.events(body, kind=UnfoldedAnswer), receive, ended)
    await push.open()                    # sends the request; returns when the answer has content, and events are pushed
    push.pause(), push.resume()          # let TCP slow the server down
    push.close()                         # drop the connection; nothing is called after it

A stream that is read costs a task, a future and a turn of the event loop for each of its reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from rawsse.client.answer import Answer
from rawsse.client.exchange import CallSettings, Timing
from rawsse.client.network.link import READ_BYTES
from rawsse.client.stream import EventStream
from rawsse.errors import APIError, Ending
from rawsse.messages.events import ContentBlockDelta, Ping, StreamEvent, read_event
from rawsse.messages.lens import read_json
from rawsse.messages.message import EventWatcher, State
from rawsse.sse import Event

_BLOCK = State.BLOCK  # here, because an enum's member is slow to find

# One whole chunk with one event, as the API writes those that bring text: the chunk's size, and the event's data.
_DELTA_CHUNK = re.compile(r"([0-9a-f]{1,16})\r\nevent: content_block_delta\ndata: (.*)\n\n\r\n")


Receive = Callable[[list[Any], float], None]
Ended = Callable[[Exception | None], None]


class EventPush:
    """Pushes the events of `stream`.

    `receive` is called with the events of each read, at least one, and the loop's time. `ended` is called once after the last
    of them, unless `close` comes first: with None if the answer is whole, else with the `APIError`, or with another exception
    that `receive` itself raised. Neither may wait. The stream's answer must be an `UnfoldedAnswer`.

    One timer serves all clocks. It is set when a wait begins that is not a read's, and looks at the deadline when it fires:
    a read can only have moved that to later.
    """

    def __init__(self, stream: EventStream, receive: Receive, ended: Ended) -> None:
        self.stream = stream
        self._receive = receive
        self._ended = ended
        self._link: Any = None
        self._is_over = False
        self._is_paused = False
        self._cancel_timer: Callable[[], object] = int

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the response."""
        return self.stream.headers

    @property
    def ending(self) -> Ending | None:
        """How the stream ended; None while it has not."""
        return self.stream.ending

    async def open(self) -> None:
        """Send the request, as often as the policy says, until an attempt has content or is the last one; from then on push.

        Until then `receive` gets the pings. Raises `APIError` if no response can be used, and then `ended` is not called.
        """
        stream, call = self.stream, self.stream._call
        self._loop = asyncio.get_running_loop()
        await stream._open()
        events: list[StreamEvent] = []
        while not call.exchange.is_committed:
            event = stream._take_event()
            events = [] if event is None else [event]
            if event is None:
                await stream._more()
            elif type(event) is Ping:  # all else is held back until there is content
                self._receive(events, self._loop.time())
        self._answer = cast(UnfoldedAnswer, call.exchange)
        while (event := self._answer.next_event()) is not None:
            events.append(event)
        self._give(events, self._loop.time())
        if not self._is_over:
            self._link = call._link
            self._link.push_to(self._received, self._lost)
            if self._is_paused:
                self._link.pause()
            else:
                self._wait(self._loop.time())

    def pause(self) -> None:
        """Read no further. The clocks stop: the server is not to blame."""
        if not self._is_paused and not self._is_over:
            self._is_paused = True
            self._cancel_timer()
            if self._link is not None:
                self._link.pause()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and not self._is_over:
            self._is_paused = False
            if self._link is not None:
                self._wait(self._loop.time())
                self._link.resume()

    def close(self) -> Ending | None:
        """End the stream and drop its connection; how it ended."""
        self._is_over = True
        self._cancel_timer()
        self.stream._close()
        return self.stream.ending

    # What the network calls ----------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        now = self._loop.time()
        if (event := self._answer.take_text(data, now)) is not None:
            self._receive([event], now)
            return
        self._answer.receive(data, now)
        self._give(self._answer.take_events(), now)

    def _lost(self, exc: Exception | None) -> None:
        """The connection is lost, or a bug came to light while it was read."""
        if self._is_over:
            return
        if exc is None:
            self._answer.cancel()
        elif isinstance(exc, OSError):
            self._answer.lose(exc)
        else:
            self.close()
            self._ended(exc)
            return
        self._finish()

    def _give(self, events: list[StreamEvent], now: float) -> None:
        """Give out what has come, and the end."""
        if events and not self._is_over:
            self._receive(events, now)
        if self._answer.is_over and not self._is_over:
            self._finish()

    def _finish(self) -> None:
        self._is_over = True
        self._cancel_timer()
        error = self._answer.error
        if error is not None:
            self.stream._failed(error)
        else:
            with contextlib.suppress(StopAsyncIteration):  # this is how a stream learns that it is whole
                self.stream._take_event()
        if self._link is not None:
            self._link.pull()
        self._ended(error)

    def _wait(self, since: float) -> None:
        """A wait for bytes began at `since`."""
        now = self._loop.time()
        deadline, clock = self._answer.deadline(since)
        if deadline <= now:
            self._answer.expire(clock, now)
            self._finish()
        elif deadline < math.inf:
            self._cancel_timer = self._loop.call_at(deadline, self._look_at_deadline).cancel

    def _look_at_deadline(self) -> None:
        self._wait(self._answer.waiting_since)


class MessagePush(EventPush):
    """Pushes one thing, the whole message, when it has come. The stream's answer must be one that folds: an `Answer`."""

    async def open(self) -> None:
        """Send the request and read the answer. Raises `APIError`, and then `ended` is not called."""
        message = await self.stream._read_whole()
        self._receive([message], asyncio.get_running_loop().time())
        if not self._is_over:
            self._ended(None)


def pushed(
    open_stream: Callable[[], EventStream], kind: type[EventPush] = EventPush
) -> Callable[[Receive, Ended], EventPush]:
    """Makes a push of that kind of the stream that `open_stream` gives."""
    return lambda receive, ended: kind(open_stream(), receive, ended)


class UnfoldedAnswer(Answer):
    """An answer whose events are passed on: their order is checked, and no message is kept."""

    def __init__(self, settings: CallSettings, timing: Timing, *, holds: bool = False) -> None:
        super().__init__(settings, timing, holds=holds)
        self.builder = EventWatcher(strict=settings.strict)
        self._is_steady = False  # more text may be next, and nothing is pending

    def take_text(self, data: bytes, now: float) -> StreamEvent | None:
        """The event, if `data` is one whole chunk with one event that brings text, and nothing else. None: nothing has changed.

        This is the shortest way of nearly all reads: such a chunk leaves HTTP, the decoder and the watcher as they were.
        """
        if not self._is_steady or (found := _DELTA_CHUNK.fullmatch(data.decode("utf-8", "replace"))) is None:
            return None
        size, text = found.groups()
        body_bytes = len(data) - len(size) - 4
        if int(size, 16) != body_bytes or "\r" in text:
            return None
        try:
            raw = read_json(text)
        except (ValueError, RecursionError):
            return None  # to be found again, and told
        # As in `read_event`.
        if type(raw) is not dict or raw.get("type") != "content_block_delta" or type(raw.get("index")) is not int:
            return None
        if type(delta := raw.get("delta")) is not dict or not delta.get("text"):
            return None
        gap = now - self.waiting_since  # as in `_note_wait`
        if gap > self.timing.longest_gap:
            self.timing.longest_gap = gap
        self.waiting_since = self._received_at = now
        self._waited_for_content = 0.0
        self.bytes_received += body_bytes
        return ContentBlockDelta(raw, tuple.__new__(Event, ("content_block_delta", text, self._decoder.last_event_id)))

    def take_events(self) -> list[StreamEvent]:
        """All events that have come, once `next_event` has given None."""
        events: list[StreamEvent] = []
        is_inside = self.builder.state is _BLOCK and self.timing.first_content is not None
        try:
            for sse in reversed(self._pending):
                event = read_event(sse)
                if is_inside and type(event) is ContentBlockDelta and event.raw["delta"].get("text"):
                    self._waited_for_content = 0.0  # nearly all events
                elif event is not None and not self.is_over:
                    self._apply(event)
                    is_inside = False
                else:
                    continue
                events.append(event)
        except APIError as exc:
            self._stop(exc)
        self._pending.clear()
        if self._has_ended:
            self._stop(self._cause)
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
