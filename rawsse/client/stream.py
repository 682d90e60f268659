"""Streams of the Messages API: a request is sent until an answer begins, and the answer is read as events, text or a message.

    async with client.messages.stream(...) as stream:      # the request is sent here
        async for event in stream: ...                     # or: async for text in stream.text_stream
        message = await stream.get_final_message()

    events = await client.messages.create(stream=True, ...)
    async for event in events: ...                          # only the events that the API sent, typed

A stream has exactly one ending (`stream.ending`). It is complete after `message_stop`, or if the stop reason has arrived and
only the tail is missing (`ending.tail_missing`). Every other ending raises an error, which carries the message so far. A
failure before any content is retried as the policy allows. An event that the caller has seen is never repeated.

`close()` may be called from any task, at any time, any number of times. Leaving the `async with` block calls it. The
iterators here are classes because the event loop closes an abandoned generator only later.

A stream reads from a `Call`, which drives an exchange over the network and awaits nothing else:

    call = Call(pools.here, CallSettings(request, route), Answer)
    await call.open()                 # make attempts, as the policy allows, until one gets a response
    await call.more()                 # read once for `call.exchange`
    await call.open(error)            # the exchange failed: make the next attempt, or raise `error`
    call.release()                    # the exchange is over: keep or drop its connection
    call.fail(error)                  # no attempt follows: complete `error` for the caller
    call.close()                      # at any time, from any task; from any thread if the network allows it

One kind of failure is retried without being counted: a reused connection that was dead before the first response byte.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Self, TypeVar

from rawsse.client.answer import Answer
from rawsse.client.exchange import CallSettings, Exchange, Timing
from rawsse.client.network.link import Aborted, Expired, Link
from rawsse.client.network.pool import Lease, Pool
from rawsse.client.output import Outputs
from rawsse.client.retry import RateLimits, decide
from rawsse.errors import APIError, Ending, StreamCancelledError
from rawsse.http1 import Headers, Response
from rawsse.messages.content import Message, ParsedMessage
from rawsse.messages.events import ContentBlockDelta, ErrorEvent, MessageStreamEvent, Ping, StreamEvent, TextEvent

logger = logging.getLogger("rawsse.client")

T = TypeVar("T")
E_co = TypeVar("E_co", bound=Exchange, covariant=True)


class Call(Generic[E_co]):
    """A request and its attempts. `exchange` is the current attempt, or the last one."""

    def __init__(self, pool: Callable[[], Pool], settings: CallSettings, kind: type[E_co]) -> None:
        """`pool` returns the pool of the current event loop or process; `kind` is the class of the exchange."""
        self.timing = Timing()
        self.retries_taken = 0
        self.is_closed = False
        self.response: Response | None = None
        """The response of the last exchange that was open."""
        self.settings = settings
        self._get_pool = pool
        self._kind = kind
        self._pool: Pool | None = None
        self._lease: Lease | None = None
        self._link: Link | None = None
        self._abort: Callable[[], object] = int  # ends the current wait, and drops the connection
        self._thread: int | None = None  # the thread that drives the exchange now
        self._waits = False  # that thread waits for the network
        self._may_have_cost = False  # an earlier attempt
        self._renew()

    @property
    def cost_nothing(self) -> bool:
        """The API bills no attempt: each was refused, or not sent."""
        last = self.exchange
        return not self._may_have_cost and (last.phase == "connect" or (last.response is not None and not last.is_open))

    def limit_loop(self, seconds: float, since: float | None) -> float:
        """End the call `seconds` after the tool loop began at `since`, in the network's time (None: now), if its `total`
        clock does not end it earlier. Returns when the loop began. Call it before the call begins."""
        now, timeouts = self._get_pool().network.now(), self.settings.timeouts
        since = now if since is None else since
        if since + seconds < (math.inf if timeouts.total is None else now + timeouts.total):
            self.settings = self.settings._replace(timeouts=timeouts._replace(total=seconds), loop_since=since)
            self._renew()
        return since

    async def open(self, error: APIError | None = None) -> E_co:
        """Make attempts until one has a response, and return its exchange. `error` is the failure of the previous attempt:
        the policy decides whether another one follows.

        Raises the `APIError` of the last attempt, or `StreamCancelledError` if the call is closed.
        """
        before, self._thread = self._thread, threading.get_ident()
        try:
            if error is not None:
                await self._await_next(error)
            fresh = False
            while (error := await self._attempt(fresh=fresh)) is not None:
                # Perhaps only that connection had died while it was idle: this retry is not counted.
                fresh = self.exchange.failed_before_response and not self.is_closed
                if not fresh:
                    await self._await_next(error)
                    continue
                logger.info("an idle connection turned out to be dead; the request is sent once more on a new one")
                self.release()
                self._renew()
            self.response = self.exchange.response
            if self.exchange.is_over:
                self.release()
            return self.exchange
        finally:
            self._thread = before

    async def more(self) -> None:
        """Read once. The exchange receives the bytes, the timeout or the loss of the connection."""
        link = self._link  # None if another thread has just closed the call
        before, self._thread = self._thread, threading.get_ident()
        try:
            if link is not None and (data := await self._wait(link.read)) is not None:
                self.exchange.receive(data, self.timing.clock())
        finally:
            self._thread = before

    def release(self) -> None:
        """The exchange is over: keep its connection, or drop it if it cannot be reused."""
        lease, self._lease, self._link = self._lease, None, None
        if lease is not None:
            lease.give_back(self.exchange.http if self.exchange.is_reusable else None)

    def close(self) -> None:
        """End the call, unless it is complete: drop its connection, and wake the task or thread that is waiting for it."""
        self.is_closed = True
        self._abort()
        # If another thread drives the exchange, that thread ends it when it wakes. A signal handler may do so in a wait.
        if self._thread is None or (self._waits and self._thread == threading.get_ident()):
            when = "before its end" if self.exchange.error is None else "while it waited for its next attempt"
            self.fail(StreamCancelledError(f"the stream was closed {when}"))

    def fail(self, error: APIError) -> APIError:
        """No attempt follows. Returns the error for the caller: `error`, or that with which the call had failed before."""
        self.exchange.fail(error)
        self.release()
        error = self.exchange.error or error
        error.retries_taken = self.retries_taken
        return error

    def end(self) -> None:
        """`close`, from any thread and any event loop."""
        if self._pool is None:
            self.close()
        else:
            self._pool.network.post(self.close)

    # One attempt ---------------------------------------------------------------------------------------------------

    async def _await_next(self, error: APIError) -> None:
        """Wait as long as the policy says, and prepare the next attempt. Raises `error` if the policy allows none."""
        settings, total = self.settings, self.settings.timeouts.total
        error.retries_taken = self.retries_taken
        decision = decide(error, self.retries_taken, settings.policy, now=settings.now(), chance=settings.chance())
        error.retry_after = decision.retry_after
        delay = None if self.is_closed else decision.delay
        self.release()
        left = math.inf if total is None else self.exchange.total_since + total - self.timing.clock()
        is_late = delay is not None and delay >= left
        if delay is None or is_late:
            asked, longest = error.retry_after, settings.policy.max_retry_after
            if asked is not None and asked > longest:
                error.message += f" (the server asks to wait {asked:g} s; max_retry_after is {longest:g} s)"
            elif is_late:
                wait = "the next attempt would be in" if asked is None else "the server asks to wait"
                limit = "total" if settings.loop_since == math.inf else "max_seconds"
                error.message += f" ({wait} {delay:g} s; the {limit} of {total:g} s ends before that)"
            error.args = (error.message,)
            raise error from error.__cause__
        logger.info("%s; request %s", decision.reason, error.request_id)
        signal = self._get_pool().network.signal()
        self._abort = signal.set
        await self._wait(signal.wait, self.timing.clock() + delay)
        if self.is_closed:
            closed = StreamCancelledError("the stream was closed while it waited for its next attempt")
            closed.retries_taken = self.retries_taken
            raise closed from error
        self._may_have_cost = not self.cost_nothing
        self.retries_taken += 1
        self._renew()

    def _renew(self) -> None:
        self.timing.forget_attempt()
        has_retries = self.retries_taken < self.settings.policy.max_retries
        self.exchange = self._kind(self.settings, self.timing, holds=has_retries)

    async def _attempt(self, *, fresh: bool) -> APIError | None:
        """Make one attempt, with `fresh` on a new connection. Returns its error if it failed before the exchange was open."""
        exchange = self.exchange
        if self.is_closed:
            exchange.cancel()
            return exchange.error
        pool = self._get_pool()
        if self._pool is None:
            self.timing.clock, self.timing.started = pool.network.now, pool.network.now()
        self._pool = pool
        now = self.timing.clock
        exchange.begin()
        self._lease = lease = pool.acquire(self.settings.route, fresh=fresh)
        self._abort = lease.drop
        exchange.is_queued = not lease.is_granted
        if exchange.is_queued and not await self._wait(lease.granted.wait):
            return exchange.error
        exchange.is_queued = False
        self._link = link = await self._wait(lease.connect)
        if link is None:
            return exchange.error
        exchange.connected(now(), is_reused=lease.is_reused)
        is_whole = await self._send(link, exchange.send())
        exchange.sent(now(), is_whole=is_whole)
        while not exchange.is_open and not exchange.is_over:
            await self.more()
        return None if exchange.is_open else exchange.error

    async def _send(self, link: Link, pieces: list[bytes]) -> bool:
        """Write the request. False if the peer stopped reading it: it may have answered early, with a 413 for example."""
        exchange = self.exchange
        for piece in pieces:
            early = await self._wait(partial(_write, link, piece, is_last=piece is pieces[-1]))
            if early is None:
                return False  # the connection may be lost: the next read reports why
            if early:
                exchange.receive(early, self.timing.clock())
            if exchange.response is not None or exchange.is_over:
                return False
        return True

    async def _wait(self, wait: Callable[[float], Coroutine[Any, Any, T]], until: float | None = None) -> T | None:
        """The result of `wait(deadline)`; None if the wait ended the exchange. By default the exchange sets the deadline."""
        exchange, now = self.exchange, self.timing.clock
        deadline, clock = exchange.deadline(now()) if until is None else (until, None)
        result: T | None = None
        self._waits = True
        try:
            if deadline <= now():  # a link that always has bytes to read ignores it
                raise Expired
            if not self.is_closed:  # checked last: another thread may close the call at any moment
                result = await wait(deadline)
                if result is False:  # a signal was not set in time
                    raise Expired
        except Expired:
            if clock is not None:
                exchange.expire(clock, now())
        except Aborted:
            exchange.cancel()
        except OSError as exc:
            exchange.lose(exc)
        except APIError as exc:
            exchange.end(exc.with_traceback(None))
        except BaseException:
            self.close()
            raise
        finally:
            self._waits = False
        if self.is_closed:  # perhaps just as the wait ended
            self.close()
            exchange.cancel()
            return None
        return result


async def _write(link: Link, piece: bytes, deadline: float, *, is_last: bool) -> bytes | None:
    """Write a piece of a request. Returns the bytes of an early answer, which can arrive before the last piece is written; None
    if the connection is lost or closed. Raises `Expired` if the peer neither reads nor answers."""
    try:
        try:
            await link.write(piece, deadline)
            early = None if is_last else link.read_ready()
        except Expired:
            if not (early := link.read_ready()):
                raise
    except OSError:
        return None
    return b"" if early is None else early or None


# --- The answer ----------------------------------------------------------------------------------------------------


class OpenResponse(Response):
    """The head of a response whose body may not have been read: `close()` closes the stream."""

    close: Callable[[], None]

    async def aclose(self) -> None:
        """The same, by httpx's name."""
        self.close()


class CallInfo:
    """The public facts about a call and its response."""

    _call: Call[Exchange]

    @property
    def timing(self) -> Timing:
        """When the connection, the head, the first event, the first content and the last ping arrived, and the longest wait."""
        return self._call.timing

    @property
    def response(self) -> OpenResponse:
        """The response's head. Raises `RuntimeError` before it has arrived."""
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
        """The `request-id` of the response, for Anthropic's support."""
        return self._call.exchange.request_id

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
        self._call.close()


class BaseStream(CallInfo):
    """The base of both kinds of stream: opening, reading event by event, retrying, ending."""

    _call: Call[Answer]

    def __init__(self, call: Call[Answer]) -> None:
        self._call = call
        self._is_unseen = False  # no event reaches the caller, so any failure may be retried

    @property
    def ending(self) -> Ending | None:
        """How the stream ended; None while it is open."""
        answer = self._call.exchange
        if answer.error is not None:
            return answer.error.ending
        return answer.ending() if answer.is_over else None

    @property
    def error_event(self) -> ErrorEvent | None:
        """The `error` event that ended the stream, as received."""
        return self._call.exchange.builder.error

    @property
    def current_message_snapshot(self) -> Message:
        """The message so far; it grows while the stream runs. Raises `RuntimeError` before `message_start`."""
        message = self._call.exchange.builder.message
        if message is None:
            raise RuntimeError("message_start has not arrived yet")
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

    def __del__(self) -> None:
        call = getattr(self, "_call", None)  # None if `__init__` failed
        if call is not None and call.response is not None and not call.is_closed and self.ending is None:
            text = f"{self!r} was dropped, neither read to its end nor closed"
            call.end()  # first: where warnings are errors, the next line raises
            warnings.warn(text, ResourceWarning, stacklevel=1)

    def __repr__(self) -> str:
        state = self.ending.kind if self.ending else "open" if self._call.response else "not open"
        return f"<{type(self).__name__} {state}, request {self.request_id}>"

    # Reading -------------------------------------------------------------------------------------------------------

    def _take_event(self) -> StreamEvent | None:
        """The next event that the API sent, applied to the message. None: await `_more()` and call again.

        Raises `StopAsyncIteration` after a complete answer, and `APIError` for every other ending.
        """
        call, answer = self._call, self._call.exchange
        if answer.error is not None and answer.error.ending is not None:
            raise answer.error  # at every read, so that a cut answer never looks complete
        if call.response is None:
            _ = self.response  # raises: the stream is not open
        event = answer.next_event()
        if answer.is_over and answer.error is None:
            call.release()
            if event is None:
                raise StopAsyncIteration
        return event

    async def _more(self) -> None:
        """Wait for the response, for more bytes, or for another attempt. Raises `APIError` if the stream has failed."""
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
                raise call.fail(exc) from exc.__cause__
            answer.is_committed = True  # the events that were held back come first, then the error


class EventStream(BaseStream):
    """The events that the API sent, typed, and no others: the result of `messages.create(stream=True)`."""

    async def __anext__(self) -> StreamEvent:
        """The next event. Raises `APIError` if the stream does not complete."""
        while (event := self._take_event()) is None:
            await self._more()
        return event

    async def _read_whole(self) -> Message:
        """The whole message. Its events do not reach the caller, so any failure may be retried."""
        self._is_unseen = True
        async with self:
            async for _ in self:
                pass
        return self.current_message_snapshot

    _take = BaseStream._take_event


class MessageStream(BaseStream):
    """The events that the API sent, except pings (see `timing`), plus the events derived from them, the text, and the message.

    A stream has one iterator: a second loop continues where the first one stopped. `outputs` parses the text.
    """

    def __init__(self, call: Call[Answer], outputs: Outputs[Any] | None = None) -> None:
        super().__init__(call)
        self._outputs: Outputs[Any] = outputs or Outputs()
        self._expanded: Iterator[MessageStreamEvent] = iter(())

    @property
    def current_message_snapshot(self) -> ParsedMessage[Any]:
        """The message so far; it grows while the stream runs. Raises `RuntimeError` before `message_start`."""
        return self._outputs.message(super().current_message_snapshot, self.ending)

    @property
    def text_stream(self) -> TextStream:
        """The text of all text blocks, piece by piece. It shares the iterator of the stream."""
        return TextStream(self)

    async def __anext__(self) -> MessageStreamEvent:
        """The next event. Raises `APIError` if the stream does not complete."""
        while (event := self._take()) is None:
            await self._more()
        return event

    def _take(self) -> MessageStreamEvent | None:
        while (event := next(self._expanded, None)) is None:
            if (sent := self._take_event()) is None:
                return None
            if type(sent) is not Ping:
                self._expanded = iter(self._expand(sent))
        return event

    def _take_text(self) -> str | None:
        for derived in self._expanded:  # the caller has read an event, but not the one derived from it
            if isinstance(derived, TextEvent):
                return derived.text
        while self._take_event() is not None:
            if (text := self._call.exchange.builder.added_text) is not None:
                return text
        return None

    def _expand(self, event: StreamEvent) -> list[MessageStreamEvent]:
        """The event for the caller, and the one derived from it, if any."""
        builder = self._call.exchange.builder
        expanded = builder.expand(event)
        if isinstance(event, ContentBlockDelta) and not self._outputs.has_format:
            return expanded  # nearly always: there is nothing to parse
        return [self._outputs.event(each, lambda: builder.message) for each in expanded]

    async def until_done(self) -> None:
        """Read the stream to its end. Raises `APIError` if it does not complete."""
        self._expanded = iter(())
        with suppress(StopAsyncIteration):
            while True:
                if self._take_event() is None:
                    await self._more()

    async def get_final_message(self) -> ParsedMessage[Any]:
        """Read the stream to its end and return the whole message. Raises `APIError` if it does not complete."""
        await self.until_done()
        return self.current_message_snapshot

    async def get_final_text(self) -> str:
        """Read the stream to its end and return the text of all text blocks. Raises `RuntimeError` if there is none."""
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
        """The next piece of text. Raises `APIError` if the stream does not complete."""
        while (text := self._take()) is None:
            await self._more()
        return text
