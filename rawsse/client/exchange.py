"""One HTTP exchange: a request out, a response in, with its clocks, and `close` at any time.

This file knows how a request and its response travel over one connection, and which clock runs when. It refuses to know
server-sent events, the Messages API, where connections come from, and what to do after a failure.

    exchange = Exchange(acquire, request, timeouts)
    response = await exchange.open()          # get a connection, send, wait for the head
    while (data := await exchange.read()):    # the body, as it comes
        ...
    exchange.close()

Every failure is an `APIError` with `phase`, `bytes_received` and `request_id` set. After it the connection is gone. A body that
was read to its end gives the connection back.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from rawsse.client.moments import RequestData, Timing
from rawsse.client.network.clocks import Interrupted, Timeouts, Waiter
from rawsse.client.network.net import READ_BYTES
from rawsse.client.network.pool import Connection
from rawsse.client.network.route import Route
from rawsse.client.network.tunnel import refusal
from rawsse.client.observe import ExchangeObserver, Observer, Unobserved
from rawsse.client.ratelimits import RateLimits
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    BodyTooLargeError,
    ConnectTimeoutError,
    ContentTimeoutError,
    EventDataError,
    HeadTimeoutError,
    HTTPProtocolError,
    HTTPUsageError,
    Phase,
    SilenceTimeoutError,
    StreamCancelledError,
    StreamTruncatedError,
    TotalTimeoutError,
    quote,
    status_error,
)
from rawsse.http1 import ContentDecoder, Data, EndOfMessage, Response

__all__ = ["MAX_JSON_BYTES", "REFUSAL_SECONDS", "WRITE_BYTES", "Acquire", "Exchange"]

MAX_JSON_BYTES = 8 * 1024 * 1024
"""How much of an answer that is no stream is read: an error, a count of tokens. Both have a few hundred bytes."""

WRITE_BYTES = 256 * 1024
"""How much of a request is written at a time, each piece with the `head` clock afresh: 32 MB of documents may take minutes on
a slow line, and that is no reason to give up while they flow."""

REFUSAL_SECONDS = 5.0
"""How long the body of an error answer is waited for: one that drips shall not hide its status. It has a few hundred bytes."""

Acquire = Callable[[Callable[[bool], None]], Awaitable[Connection]]
"""What gives a connection. It is given what to call when the call must stand in line, and when it is its turn."""

T = TypeVar("T")


class _Alarm(NamedTuple):
    """When a wait ends without its result, in the loop's time, and what is raised then."""

    at: float
    error: type[APITimeoutError]


# Each clock: its name in `Timeouts`, and what is said when it has run out.
_CLOCKS: Mapping[type[APITimeoutError], tuple[str, str]] = {
    ConnectTimeoutError: ("connect", "no connection to {host} within {seconds}{why}"),
    HeadTimeoutError: ("head", "no response head within {seconds} of the request{through}"),
    SilenceTimeoutError: ("silence", "not a single byte came for {seconds}, not even a ping"),
    ContentTimeoutError: ("content", "the connection lives, but no content came for {seconds}"),
    TotalTimeoutError: ("total", "the whole call took longer than {seconds}"),
}


class Exchange:
    """One request and its response. `phase` says how far it came."""

    def __init__(
        self,
        acquire: Acquire,
        request: RequestData,
        timeouts: Timeouts,
        *,
        timing: Timing | None = None,
        why_waiting: Callable[[], str] = str,
        max_json_bytes: int = MAX_JSON_BYTES,
        observer: Observer | None = None,
        is_raw: bool = False,
    ) -> None:
        """`acquire` is told what to call when the call must wait for a connection to be free, and when it need not: see
        `Pool.acquire`. `timing` has the beginning of the call, from which `timeouts.total` counts. `why_waiting` says in words,
        if it can, why a connection did not come. `is_raw` is for whoever passes the response on: every status is an answer,
        and content codings are not undone."""
        self.request = request
        self.response: Response | None = None
        self.phase: Phase = "connect"
        self.bytes_received = 0
        self.timing = timing or Timing()
        self.died_unheard = False
        """A connection that had been used before failed, and not a byte of an answer had come: the peer may have dropped it
        while it was idle, and the request may never have been read."""
        self._max_json_bytes = max_json_bytes
        self._observer = observer
        self._watch: ExchangeObserver = Unobserved()
        self._is_raw = is_raw
        self._acquire = acquire
        self._timeouts = timeouts
        self._why_waiting = why_waiting
        self._connection: Connection | None = None
        self._connecting = _Alarm(math.inf, ConnectTimeoutError)  # of the stage of connecting that is under way
        self._is_in_line = False
        self._through = ""  # the proxy, in words
        self._give_up_at = math.inf  # on a refusal's body
        self._is_unheard = True
        self._waiter = Waiter()
        self._decoder: ContentDecoder | None = None
        self._is_over = False
        self._is_cut = False  # it ended before its body did
        self._waited_for_content = 0.0  # seconds; only waiting counts, not what the caller does between two reads

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response."""
        return self.response.headers.get("request-id") if self.response else None

    async def open(self) -> Response:
        """Connect, send the request, and wait for the response's head.

        Raises `APIError`; where the status is no success (2xx), the `APIStatusError` for it, with the body read. Raises
        `HTTPUsageError`, before anything is sent, for a request that HTTP does not allow.
        """
        if not self.timing.has_started:
            self.timing.start()
        if self._observer is not None and not self._is_over:
            self._watch = self._observer.begin(self.request)

        # Connecting...
        self._connecting = self._alarm(ConnectTimeoutError)
        connection = await self._wait(self._acquire_unless_closed, self._connecting)
        self.timing.connected = self.timing.elapsed()
        self.timing.is_reused = connection.is_reused

        # Sending the request...
        self.phase = "send"
        if await self._send(self._write_request(connection)):
            self.phase = "head"
        self._watch.sent()

        # Waiting for the head...
        alarm = self._alarm(HeadTimeoutError)
        while (event := self._next_event()) is None:
            await self._receive(alarm)
        assert isinstance(event, Response)  # noqa: S101 - HTTP allows nothing else here
        self.response = event
        self.phase = "open"
        self.timing.head = self.timing.elapsed()
        self._watch.head(event)
        if self._is_raw:
            return event
        if not 200 <= event.status < 300:
            raise self._failed(await self._refusal(event, connection.route))
        self._decoder = self._guard(lambda: _decoder_for(event))
        return event

    async def read(self) -> bytes:
        """The next bytes of the body, content decoding undone; `b""` when it is whole. Raises `APIError`, and after `close`
        `StreamCancelledError`: a body that was given up never looks whole."""
        decoder = self._decoder
        while not self._is_over:
            match self._next_event():
                case Data(data=data):
                    self.bytes_received += len(data)
                    self._watch.read(data)
                    if decoder is None:
                        return data
                    if decoded := self._guard(functools.partial(decoder.decode, data)):
                        return decoded
                case EndOfMessage():
                    self.finish()
                case _:
                    await self._receive_body()
        if self._is_cut:
            raise self._failed(StreamCancelledError("the stream was closed before its end"))
        return b""

    async def read_object(self) -> dict[str, Any]:
        """The whole body of an answer that is one JSON object. Raises `APIError`; `BodyTooLargeError` above
        `max_json_bytes`, `EventDataError` if it is something else."""
        body = bytearray()
        while piece := await self.read():
            body += piece
            if len(body) > self._max_json_bytes:
                limit = self._max_json_bytes
                error = BodyTooLargeError(f"the answer is larger than max_json_bytes ({limit})", limit=limit)
                raise self._failed(error)
        value = _json_or_text(bytes(body))
        if not isinstance(value, dict):
            raise self._failed(EventDataError(f"the answer is no JSON object: {quote(bytes(body))}"))
        return value

    async def _refusal(self, response: Response, route: Route) -> APIError:
        body = await self._read_refusal(response)
        if response.status == 407 and route.proxy is not None:  # a proxy that was to pass the request on
            return refusal(route.proxy, route.origin, response.status, response.headers)
        error = status_error(response.status, body, response.headers)
        error.rate_limits = RateLimits.from_headers(response.headers)
        if route.is_forwarded:  # nobody can tell whether the server says so or the proxy
            error.message += f" (asked{route.through})"
            error.args = (error.message,)
        return error

    async def _read_refusal(self, response: Response) -> object:
        """The body of an error answer, as far as it comes: one that is cut, or endless, does not hide the status."""
        body = bytearray()
        self._give_up_at = asyncio.get_running_loop().time() + REFUSAL_SECONDS
        try:
            self._decoder = _decoder_for(response)
            while len(body) <= self._max_json_bytes and (piece := await self.read()):
                body += piece
        except StreamCancelledError:
            raise
        except APIError:
            pass
        return _json_or_text(bytes(body))

    def note_content(self) -> None:
        """Content has come: the content clock starts afresh."""
        self._waited_for_content = 0.0

    def finish(self) -> None:
        """What the caller wanted has come. The connection is given back; if more of the body is to come than its end, it is
        dropped."""
        if connection := self._end(None):
            connection.release()

    def close(self, error: APIError | None = None) -> None:
        """End the exchange and drop the connection, at any phase, from any task, any number of times.

        A task that waits in `open` or `read` wakes up with `StreamCancelledError`. `error` is why, if the caller did not just
        want it so.
        """
        self._is_cut = self._is_cut or not self._is_over
        if connection := self._end(error or StreamCancelledError("the stream was closed before its end")):
            connection.drop()

    def _end(self, error: APIError | None) -> Connection | None:
        if self.timing.ended is None and self.timing.has_started:
            self.timing.ended = self.timing.elapsed()
        if not self._is_over:
            self._is_over = True
            self._watch.end(error)
        self._waiter.interrupt()
        connection, self._connection = self._connection, None
        return connection

    # Waiting -------------------------------------------------------------------------------------------------------

    async def _receive_body(self) -> None:
        before = self.timing.elapsed()
        try:
            await self._receive(self._body_alarm(before))
        finally:  # a wait that was in vain is the one that matters
            gap = self.timing.elapsed() - before
            self._waited_for_content += gap
            if gap > self.timing.longest_gap:
                self.timing.longest_gap = gap

    def _body_alarm(self, elapsed: float) -> _Alarm:
        """Which clock is the first to run out. Plain arithmetic: this is done for every read."""
        clocks, now = self._timeouts, asyncio.get_running_loop().time()
        found = _Alarm(min(self._give_up_at, now + (clocks.silence or math.inf)), SilenceTimeoutError)
        if clocks.content is not None and (at := now + clocks.content - self._waited_for_content) < found.at:
            found = _Alarm(at, ContentTimeoutError)
        if clocks.total is not None and (at := now + clocks.total - elapsed) < found.at:
            found = _Alarm(at, TotalTimeoutError)
        return found

    def _alarm(self, error: type[APITimeoutError]) -> _Alarm:
        """When the clock that raises `error` runs out, or that of the whole call if it does so first."""
        now = asyncio.get_running_loop().time()
        alarm = _Alarm(now + (self._seconds(error) or math.inf), error)
        total = now + (self._timeouts.total or math.inf) - self.timing.elapsed()
        return alarm if alarm.at < total else _Alarm(total, TotalTimeoutError)

    def _seconds(self, error: type[APITimeoutError]) -> float | None:
        seconds: float | None = getattr(self._timeouts, _CLOCKS[error][0])
        return seconds

    async def _acquire_unless_closed(self) -> Connection:
        connection = await self._acquire(self._note_line)
        self._through = connection.route.through
        if self._is_over:  # closed in the very tick in which the connection came
            connection.drop()
        else:
            self._connection = connection
        return connection

    def _note_line(self, stands_in_line: bool) -> None:
        """A call that waits for another to end does not connect yet: it may wait as long as for an answer."""
        alarm = self._alarm(HeadTimeoutError if stands_in_line else ConnectTimeoutError)
        is_total = alarm.error is TotalTimeoutError
        self._connecting = alarm if is_total else alarm._replace(error=ConnectTimeoutError)
        self._is_in_line = stands_in_line
        self._waiter.move_deadline(alarm.at)

    def _write_request(self, connection: Connection) -> bytes:
        request = self.request
        try:
            return connection.http.send_request(request.method, request.target, request.headers, request.body)
        except HTTPUsageError:
            self.close()
            raise

    def _get_connection(self) -> Connection:
        assert self._connection is not None  # noqa: S101 - `open` has one, and what is over is not read
        return self._connection

    async def _receive(self, alarm: _Alarm) -> None:
        """Take the next bytes from the network."""
        connection = self._get_connection()
        data = await self._wait(lambda: connection.stream.read(READ_BYTES), alarm)
        if data:
            self._is_unheard = False
        self._guard(lambda: connection.http.receive_data(data))

    async def _send(self, wire: bytes) -> bool:
        """Send the request, piece by piece. False if the peer takes no more of it: it may have answered already (413)."""
        for at in range(0, len(wire), WRITE_BYTES):
            write = functools.partial(self._write, wire[at : at + WRITE_BYTES])
            if not await self._wait(write, self._alarm(HeadTimeoutError)):
                return False
        return True

    async def _write(self, piece: bytes) -> bool:
        try:
            await self._get_connection().stream.write(piece)
        except OSError:
            return False  # what there is to say of it, the next read says
        return True

    async def _wait(self, operation: Callable[[], Awaitable[T]], alarm: _Alarm) -> T:
        try:
            return await self._waiter.wait(operation, alarm.at)
        except Interrupted:
            raise self._failed(StreamCancelledError("the stream was closed while it was waited for")) from None
        except TimeoutError:
            at_hand = self._connecting if self.phase == "connect" else alarm
            raise self._failed(self._timed_out(at_hand.error)) from None
        except APIError as exc:
            raise self._failed(exc) from exc.__cause__
        except OSError as exc:
            raise self._failed(self._lost(exc)) from exc
        except BaseException:  # cancelled: the socket is freed in this very tick
            self.close()
            raise

    # Failures ------------------------------------------------------------------------------------------------------

    def _timed_out(self, error: type[APITimeoutError]) -> APITimeoutError:
        is_in_line = self._is_in_line and error is ConnectTimeoutError
        seconds = self._seconds(HeadTimeoutError if is_in_line else error)
        why = self._why_waiting()
        words = {
            "seconds": f"{seconds:g} s",
            "host": self._peer,
            "why": f" ({why})" if why else "",
            "through": self._through,
        }
        text = "no connection was free within {seconds}{why}" if is_in_line else _CLOCKS[error][1]
        return error(text.format(**words), seconds=seconds)

    @property
    def _peer(self) -> str:
        """Whose fault it may be: the server's, or the proxy's before it."""
        return self.request.host_field + self._through

    def _lost(self, exc: OSError) -> APIConnectionError:
        words = exc.strerror or str(exc) or type(exc).__name__
        if self.response is None:
            return APIConnectionError(f"the connection to {self._peer} was lost before an answer: {words}")
        return StreamTruncatedError(f"the connection was lost in the middle of the answer: {words}")

    def _next_event(self) -> Response | Data | EndOfMessage | None:
        try:
            return self._get_connection().http.next_event()
        except HTTPProtocolError as exc:
            if not exc.by_close:
                raise self._failed(exc) from None
        except APIError as exc:
            raise self._failed(exc) from None
        if self.response is None:
            text = f"{self._peer} closed the connection without an answer"
            raise self._failed(APIConnectionError(text))
        raise self._failed(StreamTruncatedError("the connection was closed in the middle of the answer"))

    def _guard(self, operation: Callable[[], T]) -> T:
        try:
            return operation()
        except APIError as exc:
            raise self._failed(exc) from None

    def _failed(self, error: APIError) -> APIError:
        self.died_unheard = self.timing.is_reused and self._is_unheard and _is_loss(error)
        self.close(error)
        error.phase = self.phase
        error.bytes_received = self.bytes_received
        error.request_id = error.request_id or self.request_id
        error.response = self.response
        error.safe_to_retry = error.may_heal if error.should_retry is None else error.should_retry
        return error


def _is_loss(error: APIError) -> bool:
    """The connection failed; nobody's clock ran out, and nobody closed it on this side."""
    return isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError | StreamCancelledError)


def _decoder_for(response: Response) -> ContentDecoder | None:
    """What undoes the content coding; None if there is none."""
    coding = response.headers.get("content-encoding", "")
    return ContentDecoder(coding) if coding else None


def _json_or_text(body: bytes) -> object:
    """The body of an error answer: the API's is JSON; that of a proxy in between is often HTML or nothing."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
