"""One HTTP request and its response, as a pure object: bytes in, bytes out, time as an argument. No socket, no loop, no clock.

    exchange = JSONAnswer(CallSettings(request, route), Timing())
    exchange.begin()
    exchange.connected(now, is_reused=False)
    for piece in exchange.send(): write(piece)
    exchange.sent(now)
    while not exchange.is_over:
        at, clock = exchange.deadline(now)          # a wait begins
        exchange.receive(data, now)                 # or: expire(clock, now), lose(oserror), cancel()
    exchange.error or exchange.value

Nothing raises for what the peer did: an exchange that fails is over and has an `error`, an `APIError` with `phase`,
`bytes_received`, `request_id` and `response`. `Answer` (answer.py) is the exchange that gives events.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from rawsse.client.network.route import Route
from rawsse.client.network.tunnel import refusal
from rawsse.client.ratelimits import RateLimits
from rawsse.client.request import RequestData
from rawsse.client.retry import RetryPolicy
from rawsse.client.timeouts import Timeouts
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
    Phase,
    SilenceTimeoutError,
    StreamCancelledError,
    StreamTruncatedError,
    TotalTimeoutError,
    quote,
    status_error,
)
from rawsse.http1 import MAX_HEAD_BYTES, ClientConnection, ContentDecoder, Data, Response
from rawsse.messages.message import MAX_MESSAGE_BYTES
from rawsse.sse import MAX_EVENT_BYTES

MAX_JSON_BYTES = 8 * 1024 * 1024
"""How much of a body is read that is not a stream: an error, a count of tokens. Both have a few hundred bytes."""

WRITE_BYTES = 256 * 1024
"""How much of a request is written at a time, each piece with the `head` clock restarted: 32 MB of documents may take minutes
on a slow line, and that is no reason to give up while they flow."""

REFUSAL_SECONDS = 5.0
"""How long the body of an error response is waited for: one that trickles must not hide its status."""

Clock = type[APITimeoutError]
"""One of the five clocks, by the error that is raised when it runs out."""

# Each clock: its name in `Timeouts`, and the message of its error.
_CLOCKS: Mapping[Clock, tuple[str, str]] = {
    ConnectTimeoutError: ("connect", "no connection to {host} within {seconds}{why}"),
    HeadTimeoutError: ("head", "no response head within {seconds} of the request{through}"),
    SilenceTimeoutError: ("silence", "not a single byte came for {seconds}, not even a ping"),
    ContentTimeoutError: ("content", "the connection lives, but no content came for {seconds}"),
    TotalTimeoutError: ("total", "the whole call took longer than {seconds}"),
}


class Timing:
    """When things happened, in seconds since the call began; None for what has not. After a retry: those of the last attempt.

    `longest_gap` is the longest wait for bytes of the answer. `is_reused`: the connection had carried an answer before.
    """

    connected: float | None = None
    head: float | None = None
    first_event: float | None = None
    first_content: float | None = None
    last_ping: float | None = None
    longest_gap = 0.0
    ended: float | None = None
    is_reused = False

    def __init__(self, clock: Callable[[], float] = float, started: float = 0.0) -> None:
        self.clock = clock  # the network's time; 0 before the call begins
        self.started = started

    @property
    def has_started(self) -> bool:
        """The call has begun."""
        return self.clock is not float

    def start(self, clock: Callable[[], float]) -> None:
        """The call begins now. `clock` gives the time in seconds."""
        self.clock = clock
        self.started = clock()

    def forget_attempt(self) -> None:
        """Another attempt begins: the times of the last one no longer apply."""
        clock, started = self.clock, self.started
        vars(self).clear()
        self.clock, self.started = clock, started

    def elapsed(self) -> float:
        """Seconds since the call began; 0 before."""
        return self.clock() - self.started

    @property
    def last_ping_age(self) -> float | None:
        """Seconds since the last ping, or from it to the end; None if there was none. Pings tell thinking from dead."""
        if self.last_ping is None:
            return None
        return (self.elapsed() if self.ended is None else self.ended) - self.last_ping

    def __repr__(self) -> str:
        times = {name: value for name, value in vars(self).items() if name not in ("clock", "started")}
        return f"Timing({', '.join(f'{name}={value!r}' for name, value in times.items())})"


# --- Observers -----------------------------------------------------------------------------------------------------


class ExchangeObserver(Protocol):
    """Watches one exchange: an attempt of a call. Called between two reads: it must be quick, and neither wait nor raise."""

    def sent(self) -> None:
        """The request was sent, as far as the peer takes it."""

    def head(self, response: Response) -> None:
        """The response's head has come."""

    def read(self, data: bytes) -> None:
        """Bytes of the body have come: what one read of the network brought. Content codings are not undone."""

    def end(self, error: APIError | None) -> None:
        """It is over. None: the body is whole, or what the caller wanted of it has come. Called once, at any phase."""


class Observer(Protocol):
    """Watches all exchanges of a client: a recorder, for example. What `AsyncClient(recorder=…)` takes."""

    def begin(self, request: RequestData, clock: Callable[[], float]) -> ExchangeObserver | None:
        """An exchange begins: nothing is sent yet, and there may be no connection. `clock` is the network's time in seconds.
        None: it is not watched."""
        ...

    def flush(self) -> None:
        """The client is being closed: finish what there is to do about the exchanges that are over. It may block."""


# --- The exchange --------------------------------------------------------------------------------------------------


class CallSettings(NamedTuple):
    """What all attempts of a call share. `now` gives POSIX time, `chance` a number in [0, 1)."""

    request: RequestData
    route: Route
    timeouts: Timeouts = Timeouts()
    policy: RetryPolicy = RetryPolicy()
    strict: bool = True
    observer: Observer | None = None
    max_head_bytes: int = MAX_HEAD_BYTES
    max_event_bytes: int = MAX_EVENT_BYTES
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_json_bytes: int = MAX_JSON_BYTES
    now: Callable[[], float] = float
    chance: Callable[[], float] = float


class Exchange:
    """One request and its response, over one connection. Subclasses say what becomes of the body."""

    _is_raw = False

    def __init__(self, settings: CallSettings, timing: Timing, *, holds: bool = False) -> None:
        """`settings.timeouts.total` counts from the beginning of `timing`. `holds` is for `Answer`."""
        del holds
        self.settings = settings
        self.request = settings.request
        self.timing = timing
        self.http = ClientConnection(self.request.host_field, max_head_bytes=settings.max_head_bytes)
        self.response: Response | None = None
        self.phase: Phase = "connect"
        self.bytes_received = 0
        """Of the body, before any content decoding."""
        self.error: APIError | None = None
        self.is_over = False
        self.is_refusal_whole = False
        """The status is no success, and the body that says why has come to its end: the connection is as good as before."""
        self.is_queued = False
        """The call waits for a connection to be free."""
        self._watch: ExchangeObserver | None = None
        self._is_sent = False  # the whole request
        self._is_heard = False
        self._is_refused = False  # the status is no success: the body says why
        self._gathered = bytearray()
        self._coding: ContentDecoder | None = None
        self._sent_at = math.inf
        self._waiting_since = 0.0
        self._received_at = 0.0
        self._waited_for_content = 0.0  # seconds; what the caller does between two reads does not count
        self._give_up_at = math.inf  # on the body of a refusal

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response."""
        return self.response.headers.get("request-id") if self.response else None

    @property
    def is_open(self) -> bool:
        """The response's head has come, and the status is a success."""
        return self.response is not None and not self._is_refused

    @property
    def is_reusable(self) -> bool:
        """The connection may carry another exchange, as far as this one knows; `http` knows whether the body has ended."""
        return self._is_sent and (self.error is None or self.is_refusal_whole)

    @property
    def died_unheard(self) -> bool:
        """A connection that had been used before was lost, and not a byte of a response had come: the peer may have dropped it
        while it was idle, and the request may never have been read."""
        is_loss = isinstance(self.error, APIConnectionError) and not isinstance(
            self.error, APITimeoutError | StreamCancelledError
        )
        return is_loss and self.timing.is_reused and not self._is_heard

    # What the driver does ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The attempt begins."""
        if self.settings.observer is not None:
            self._watch = self.settings.observer.begin(self.request, self.timing.clock)

    def connected(self, now: float, *, is_reused: bool) -> None:
        """There is a connection. `is_reused`: it has carried another exchange."""
        self.timing.connected = now - self.timing.started
        self.timing.is_reused = is_reused

    def send(self) -> list[bytes]:
        """The request, in pieces of at most `WRITE_BYTES`. Raises `HTTPUsageError` for one that HTTP does not allow."""
        request = self.request
        wire = self.http.send_request(request.method, request.target, request.headers, request.body)
        self.phase = "send"
        return [wire[at : at + WRITE_BYTES] for at in range(0, len(wire), WRITE_BYTES)]

    def sent(self, now: float, *, is_whole: bool = True) -> None:
        """The request is sent, or (not `is_whole`) the peer takes no more of it: it may have answered (413)."""
        if self.is_over or self._sent_at < math.inf:
            return
        if self.phase == "send" and is_whole:
            self.phase = "head"
        self._sent_at, self._is_sent = now, is_whole
        if self._watch is not None:
            self._watch.sent()

    def deadline(self, now: float) -> tuple[float, Clock]:
        """When the wait that begins `now` must end, and the clock that ends it. Plain arithmetic: it is done for every read."""
        clocks = self.settings.timeouts
        self._waiting_since = now
        clock: Clock
        if self.response is not None:
            at, clock = now + (clocks.silence or math.inf), SilenceTimeoutError
            if self._give_up_at < at:
                at = self._give_up_at
            if clocks.content is not None and (content := now + clocks.content - self._waited_for_content) < at:
                at, clock = content, ContentTimeoutError
        elif self.phase == "connect":
            # A call in the queue does not connect yet: it may wait as long as for an answer.
            seconds = clocks.head if self.is_queued else clocks.connect
            at, clock = now + (seconds or math.inf), ConnectTimeoutError
        else:
            at, clock = min(now, self._sent_at) + (clocks.head or math.inf), HeadTimeoutError
        if clocks.total is not None and (total := self.timing.started + clocks.total) <= at:
            at, clock = total, TotalTimeoutError
        return at, clock

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the peer; `b""` says that it closed its side."""
        if self.is_over:
            return
        self._received_at = now
        if data:
            self._is_heard = True
        if self.response is not None:
            self._note_wait(now)
        http = self.http
        try:
            http.receive_data(data)
            while (event := http.next_event()) is not None:
                if type(event) is Data:
                    self._receive_body(event.data)
                elif type(event) is Response:
                    self._receive_head(event, now)
                else:
                    self._end_body()
        except HTTPProtocolError as exc:
            self._fail(self._closed_early() if exc.by_close else exc)
        except APIError as exc:
            self._fail(exc)

    def expire(self, clock: Clock, now: float, why: str = "") -> None:
        """The clock has run out. `why` explains, if the driver can, why a connection did not come."""
        if self.response is not None:
            self._note_wait(now)
        is_queued = self.is_queued and clock is ConnectTimeoutError
        name, text = _CLOCKS[clock]
        seconds: float | None = getattr(self.settings.timeouts, "head" if is_queued else name)
        if self._is_refused:  # every clock may be off, but the body of a refusal is not waited for longer
            seconds = REFUSAL_SECONDS
        text = "no connection was free within {seconds}{why}" if is_queued else text
        words = {"host": self._peer, "why": f" ({why})" if why else "", "through": self.settings.route.through}
        self._fail(clock(text.format(seconds=f"{seconds:g} s", **words), seconds=seconds))

    def lose(self, exc: OSError) -> None:
        """The connection is lost."""
        words = exc.strerror or str(exc) or type(exc).__name__
        error: APIConnectionError
        if self.response is None:
            error = APIConnectionError(f"the connection to {self._peer} was lost before an answer: {words}")
        else:
            error = StreamTruncatedError(f"the connection was lost in the middle of the answer: {words}")
        # Without the frames through which it came: they hold this exchange, and the ring would live until it is collected.
        error.__cause__ = exc.with_traceback(None)
        self._fail(error)

    def fail(self, error: APIError) -> None:
        """There will be no connection."""
        self._fail(error.with_traceback(None))

    def cancel(self) -> None:
        """This side closed the connection."""
        self._stop(StreamCancelledError("the stream was closed before its end"))

    def finish(self) -> None:
        """All that the caller wants has come. `http` tells whether the connection may carry another exchange."""
        self._stop(None)

    # What becomes of the body --------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Take a piece of the body, content coding undone."""
        raise NotImplementedError

    def _end_body(self) -> None:
        if self._is_refused:
            self.is_refusal_whole = True
            self._stop(None, refusal=self._refusal())
        else:
            self._take_end()

    def _take_end(self) -> None:
        """The body has come to its end, and the response is a success."""
        raise NotImplementedError

    # Inside --------------------------------------------------------------------------------------------------------

    def _receive_head(self, response: Response, now: float) -> None:
        self.sent(now, is_whole=False)  # unless it was: the answer came while the request was being sent
        self.response = response
        self.phase = "open"
        self.timing.head = now - self.timing.started
        if self._watch is not None:
            self._watch.head(response)
        if self._is_raw:
            return
        self._is_refused = not 200 <= response.status < 300
        if self._is_refused:
            self._give_up_at = now + REFUSAL_SECONDS
        if coding := response.headers.get("content-encoding"):
            self._coding = ContentDecoder(coding)

    def _receive_body(self, data: bytes) -> None:
        if self.is_over:
            return
        self.bytes_received += len(data)
        if self._watch is not None:
            self._watch.read(data)
        if self._coding is not None:
            data = self._coding.decode(data)
        if self._is_refused:
            self._gather(data)
        else:
            self._take(data)

    def _gather(self, data: bytes) -> None:
        self._gathered += data
        if len(self._gathered) > self.settings.max_json_bytes:
            limit = self.settings.max_json_bytes
            self._fail(BodyTooLargeError(f"the answer is larger than max_json_bytes ({limit})", limit=limit))

    def _note_wait(self, now: float) -> None:
        gap = now - self._waiting_since
        self._waiting_since = now
        self._waited_for_content += gap
        if gap > self.timing.longest_gap:
            self.timing.longest_gap = gap

    def _fail(self, error: APIError) -> None:
        """The exchange failed. The body of a refusal that is cut, endless or not readable does not hide the status."""
        self._stop(error, refusal=self._refusal() if self._is_refused else None)

    def _stop(self, error: APIError | None, *, refusal: APIError | None = None) -> None:
        """It is over. `refusal` comes in place of `error`, which only the observer gets then."""
        if self.is_over:
            return
        self.is_over = True
        self.error = refusal or error
        if self.timing.has_started:
            self.timing.ended = self.timing.elapsed()
        if self.error is not None:
            self._describe(self.error)
        if self._watch is not None:
            self._watch.end(error)

    def _describe(self, error: APIError) -> None:
        """Give the error what its reader needs."""
        error.phase = self.phase
        error.bytes_received = self.bytes_received
        error.request_id = error.request_id or self.request_id
        error.response = self.response
        error.safe_to_retry = error.may_heal if error.should_retry is None else error.should_retry

    def _refusal(self) -> APIError:
        response, route = self.response, self.settings.route
        assert response is not None  # noqa: S101 - it is its status that refuses
        if response.status == 407 and route.proxy is not None:  # of a proxy that was to forward the request
            return refusal(route.proxy, route.origin, response.status, response.headers)
        error = status_error(response.status, _json_or_text(bytes(self._gathered)), response.headers)
        error.rate_limits = RateLimits.from_headers(response.headers)
        if route.is_forwarded:  # the server may have said so, or the proxy
            error.message += f" (asked{route.through})"
            error.args = (error.message,)
        return error

    def _closed_early(self) -> APIConnectionError:
        if self.response is None:
            return APIConnectionError(f"{self._peer} closed the connection without an answer")
        return StreamTruncatedError("the connection was closed in the middle of the answer")

    @property
    def _peer(self) -> str:
        """The server, and the proxy before it: either may be to blame."""
        return self.request.host_field + self.settings.route.through


class JSONAnswer(Exchange):
    """A response that is one JSON object. `value` is that object."""

    value: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """It is whole."""
        return self.is_over and self.error is None

    def _take(self, data: bytes) -> None:
        self._gather(data)

    def _take_end(self) -> None:
        body = bytes(self._gathered)
        value = _json_or_text(body)
        if isinstance(value, dict):
            self.value = value
            self.finish()
        else:
            self._fail(EventDataError(f"the answer is not a JSON object: {quote(body)}"))


def _json_or_text(body: bytes) -> object:
    """The body of an error response: the API's is JSON; that of a proxy in between is often HTML or nothing."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
