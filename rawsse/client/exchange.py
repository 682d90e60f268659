"""One HTTP request and its response, as a pure object: bytes in, bytes out, time as an argument. No socket, no event loop.

    exchange = JSONAnswer(CallSettings(request, route), Timing())
    exchange.begin()
    exchange.connected(now, is_reused=False)
    for piece in exchange.send(): write(piece)
    exchange.sent(now)
    while not exchange.is_over:
        at, clock = exchange.deadline(now)          # a wait begins
        exchange.receive(data, now)                 # or: expire(clock, now), lose(oserror), end(error), cancel()
    exchange.error or exchange.value

Faults of the peer are not raised: an exchange that fails is over and has an `error`, an `APIError` with `phase`,
`bytes_received`, `request_id` and `response`. `Answer` (answer.py) is the exchange that yields events.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, Protocol

from rawsse.client.network.route import Route, refusal
from rawsse.client.request import RequestData, Secrets
from rawsse.client.retry import RateLimits, RetryPolicy, Timeouts
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
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
    as_error,
    is_error,
    quote,
    status_error,
    stream_error,
)
from rawsse.http1 import MAX_HEAD_BYTES, ClientConnection, ContentDecoder, Data, Headers, Response
from rawsse.messages.lens import well_formed
from rawsse.messages.message import MAX_MESSAGE_BYTES
from rawsse.sse import MAX_EVENT_BYTES

MAX_JSON_BYTES = 8 * 1024 * 1024
"""The largest body that is not a stream, such as an error or a token count. Both are normally a few hundred bytes."""

WRITE_BYTES = 256 * 1024
"""How much of a request is written at a time. The `head` clock restarts for each piece: 32 MB of documents may take minutes
on a slow line, and must not time out while they are being sent."""

REFUSAL_SECONDS = 5.0
"""How long to wait for the body of an error response: a slow body must not hide the status."""

BUSY_SECONDS = 0.1
"""How much of the time between two reads counts for the `content` clock. The caller's own work may take longer, and is not
the server's fault. But a server that floods the client with pings, so that no read waits, must not stop the clock."""

Clock = type[APITimeoutError]
"""One of the five clocks, by the error that is raised when it runs out."""

# Each clock: its name in `Timeouts`, and the message of its error.
_CLOCKS: Mapping[Clock, tuple[str, str]] = {
    ConnectTimeoutError: ("connect", "no connection to {host} within {seconds:g} s"),
    HeadTimeoutError: ("head", "no response head within {seconds:g} s of the request{through}"),
    SilenceTimeoutError: ("silence", "not a single byte came for {seconds:g} s, not even a ping"),
    ContentTimeoutError: ("content", "the connection lives, but no content came for {seconds:g} s"),
    TotalTimeoutError: ("total", "the whole call took longer than {seconds:g} s"),
}
_QUEUED = "head", "no connection was free within {seconds:g} s: all that max_connections allows are in use"
LOOP_TIMEOUT = "the tool loop took longer than max_seconds ({seconds:g} s)"
"""The message of a `TotalTimeoutError` of `ToolRunner`."""


class Timing:
    """When things happened, in seconds since the call began; None if they have not. After a retry, the times of the last
    attempt.

    `first_content`: the first event that `brings_content`, as `rawsse explain` has it. `longest_gap` is the longest wait for
    bytes of the answer. `is_reused`: the connection had carried an answer before.
    """

    connected: float | None = None
    head: float | None = None
    first_event: float | None = None
    first_content: float | None = None
    last_ping: float | None = None
    longest_gap: float = 0.0
    ended: float | None = None
    is_reused: bool = False

    def __init__(self, clock: Callable[[], float] = float, started: float = 0.0) -> None:
        """`clock` returns the network's time: 0 before the call begins."""
        self.clock = clock
        self.started = started

    def forget_attempt(self) -> None:
        """Another attempt begins: the times of the last one no longer apply."""
        self.__dict__ = {"clock": self.clock, "started": self.started}

    def __repr__(self) -> str:
        return f"Timing({', '.join(f'{name}={getattr(self, name)}' for name in Timing.__annotations__)})"

    def elapsed(self) -> float:
        """Seconds since the call began; 0 before."""
        return self.clock() - self.started

    @property
    def last_ping_age(self) -> float | None:
        """Seconds since the last ping, or from it to the end; None if there was none. Pings distinguish thinking from a
        dead connection."""
        return None if self.last_ping is None else (self.ended or self.elapsed()) - self.last_ping


# --- Observers -----------------------------------------------------------------------------------------------------


class ExchangeObserver(Protocol):
    """Watches one exchange: an attempt of a call. Its methods are called between two reads: they must be quick, and neither
    block nor raise."""

    def sent(self) -> None:
        """The request was sent, or as much of it as the peer accepted."""

    def head(self, response: Response) -> None:
        """The response's head has arrived."""

    def read(self, data: bytes) -> None:
        """Bytes of the body have arrived, in one read of the network. Content codings are not undone."""

    def end(self, error: APIError | None) -> None:
        """The exchange is over. None: the body is complete, or the caller needs no more of it. Called once, in any phase."""


class Observer(Protocol):
    """Watches all exchanges of a client, as a recorder does. The type of `AsyncClient(recorder=…)`."""

    def begin(self, request: RequestData, clock: Callable[[], float]) -> ExchangeObserver | None:
        """An exchange begins: nothing is sent yet, and there may be no connection. `clock` is the network's time in seconds.
        Return None not to watch it."""

    def flush(self) -> None:
        """The client is being closed: finish the work for the exchanges that are over. It may block."""


# --- The exchange --------------------------------------------------------------------------------------------------


class CallSettings(NamedTuple):
    """The settings that all attempts of a call share. `now` returns POSIX time, `chance` a number in [0, 1).

    `loop_since`: when the tool loop began whose `max_seconds` are `timeouts.total`, in the network's time; infinity for others.
    """

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
    loop_since: float = math.inf


# The statuses for an unknown path: some servers and gateways send their page with 200.
_OF_WRONG_PATHS = (200, 400, 403, 404, 405, 410, 501)
_VERSIONED = ("/v1", "/v1/messages", "/v1/models", "/v1/complete", "/v1/chat/completions")


class Exchange:
    """One request and its response, over one connection. By default the body is gathered; subclasses read it."""

    _is_raw = False  # every status is an answer, and content codings are not undone

    def __init__(self, settings: CallSettings, timing: Timing, *, holds: bool = False) -> None:
        """`holds`: another attempt may follow."""
        self.settings = settings
        self.timing = timing
        self.http = ClientConnection(settings.request.host_field, max_head_bytes=settings.max_head_bytes)
        self.response: Response | None = None
        self.phase: Phase = "connect"
        self.bytes_received = 0
        """Of the body, before any content decoding."""
        self.error: APIError | None = None
        self.is_over = False
        self.is_queued = False
        """The call waits for a free connection."""
        self.is_committed = not holds
        """No other attempt follows, or one could not repeat the events that the caller has."""
        self._watch: ExchangeObserver | None = None
        self._unsent = b""  # the request
        self._is_sent = False  # the whole request
        self._is_refusal = False  # the response is not what was requested: its body says why
        self._cause: APIError | None = None  # the error that ended the body; None: it is whole
        self._gathered = bytearray()
        self._coding: ContentDecoder | None = None
        self._sent_at = math.inf
        self._received_at = -math.inf  # the last bytes
        self.waiting_since = 0.0
        """When the last wait for the peer began, or ended with a read."""
        self._waited = 0.0  # seconds, for bytes of the body; the caller's work between two reads does not count
        self._content_at = 0.0  # of these, when the last content came
        self._give_up_at = math.inf  # on the body of a refusal

    @property
    def request_id(self) -> str | None:
        """The `request-id` of the response."""
        return self.response.headers.get("request-id") if self.response else None

    @property
    def is_open(self) -> bool:
        """The response's head has arrived, and the response is what was requested."""
        return self.response is not None and not self._is_refusal

    @property
    def is_reusable(self) -> bool:
        """Whether the connection may carry another exchange, provided that the body has ended (see `http`)."""
        return self._is_sent and self._cause is None and (self.error is None or not self.is_open)

    @property
    def failed_before_response(self) -> bool:
        """A reused connection was lost before the first byte of a response: the peer may have dropped it while it was idle, and
        the request may never have been read."""
        return type(self.error) is APIConnectionError and self.timing.is_reused and self._received_at == -math.inf

    @property
    def total_since(self) -> float:
        """When `settings.timeouts.total` began."""
        return min(self.timing.started, self.settings.loop_since)

    # Called by the driver ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The attempt begins. Raises `HTTPUsageError` for a request that HTTP does not allow."""
        request = self.settings.request
        self._unsent = self.http.send_request(request.method, request.target, request.headers, request.body)
        if self.settings.observer is not None:
            self._watch = self.settings.observer.begin(request, self.timing.clock)

    def connected(self, now: float, *, is_reused: bool) -> None:
        """A connection is available. `is_reused`: it has carried another exchange."""
        self.timing.connected = now - self.timing.started
        self.timing.is_reused = is_reused

    def send(self) -> list[bytes]:
        """The request, in pieces of at most `WRITE_BYTES`."""
        self.phase = "send"
        wire, self._unsent = self._unsent, b""
        return [wire[at : at + WRITE_BYTES] for at in range(0, len(wire), WRITE_BYTES)]

    def sent(self, now: float, *, is_whole: bool = True) -> None:
        """The request is sent, or (not `is_whole`) the peer accepts no more of it: it may have answered early (413)."""
        if self.is_over or self._sent_at < math.inf:
            return
        self.phase = "head" if is_whole else "send"
        self._sent_at, self._is_sent = now, is_whole
        if self._watch is not None:
            self._watch.sent()

    def deadline(self, now: float) -> tuple[float, Clock]:
        """When the wait that begins `now` must end, and the clock that ends it. Plain arithmetic: it is done for every read."""
        clocks = self.settings.timeouts
        clock: Clock
        if self.response is not None:
            self._waited += min(now - self.waiting_since, BUSY_SECONDS)
            at, clock = min(now + (clocks.silence or math.inf), self._give_up_at), SilenceTimeoutError
            if clocks.content is not None and (content := now + clocks.content + self._content_at - self._waited) < at:
                at, clock = content, ContentTimeoutError
        elif self.phase == "connect":
            # A queued call is not connecting yet: it may wait as long as for a response head.
            seconds = clocks.head if self.is_queued else clocks.connect
            at, clock = now + (seconds or math.inf), ConnectTimeoutError
        else:
            at, clock = min(now, self._sent_at) + (clocks.head or math.inf), HeadTimeoutError
        if clocks.total is not None and (total := self.total_since + clocks.total) <= at:
            at, clock = total, TotalTimeoutError
        self.waiting_since = now
        return at, clock

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the peer; `b""`: it closed its side."""
        if self.is_over:
            return
        if data:
            self._received_at = now
        self._note_wait(now)
        try:
            if (body := self.http.take_chunk(data)) is not None:  # nearly all reads of a paced stream
                self._receive_body(body)
                return
            self.http.receive_data(data)
            while (event := self.http.next_event()) is not None:
                if type(event) is Data:
                    self._receive_body(event.data)
                elif type(event) is Response:
                    self._receive_head(event, now)
                else:
                    self.end()
        except APIError as exc:  # without data: the peer closed in the middle of its message
            self.end(exc if data else self._loss("closed", f"{self._peer} closed the connection without an answer"))

    def expire(self, clock: Clock, now: float) -> None:
        """The clock has run out."""
        self._note_wait(now)
        name, text = _QUEUED if self.is_queued and clock is ConnectTimeoutError else _CLOCKS[clock]
        text = LOOP_TIMEOUT if clock is TotalTimeoutError and self.settings.loop_since < math.inf else text
        # Bounded even if every clock is off: this is the body of a refusal.
        seconds = REFUSAL_SECONDS if self._give_up_at < math.inf else getattr(self.settings.timeouts, name)
        text = text.format(seconds=seconds, host=self._peer, through=self.settings.route.through)
        self.end(clock(text, seconds=seconds))

    def lose(self, exc: OSError) -> None:
        """The connection is lost."""
        words = exc.strerror or str(exc) or type(exc).__name__
        error = self._loss("lost", f"the connection to {self._peer} was lost before an answer", f": {words}")
        # Without the frames that raised it: they hold this exchange, and the cycle would need the garbage collector.
        error.__cause__ = exc.with_traceback(None)
        self.end(error)

    def cancel(self) -> None:
        """This side closed the connection."""
        self._stop(StreamCancelledError("the stream was closed before its end"))

    def end(self, cause: APIError | None = None) -> None:
        """The body has ended, or the caller needs no more of it; or `cause` ended the exchange."""
        self._stop(cause)

    def fail(self, error: APIError) -> None:
        """No attempt follows: the caller gets `error`, unless the exchange is complete."""
        self._stop(error)
        if self.error is not None and self.error is not error:  # the failure of an attempt, and then of the call
            self.error = error
            self._describe(error)

    # For subclasses ------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Process a piece of the decoded body."""
        self._gather(data)

    def _verdict(self, cause: APIError | None) -> APIError | None:
        """The error for the caller when `cause`, or the end of the body, ended the exchange. Nothing that happens to the body
        of a refusal hides its status."""
        return self._refusal() if self._is_refusal and not isinstance(cause, StreamCancelledError) else cause

    # The response --------------------------------------------------------------------------------------------------

    def _receive_head(self, response: Response, now: float) -> None:
        self.sent(now, is_whole=False)  # unless it was: the answer arrived while the request was being sent
        response = self.response = response if self._is_raw else self._without_secrets(response)
        self.waiting_since = now
        self.phase = "open"
        self.timing.head = now - self.timing.started
        if self._watch is not None:
            self._watch.head(response)
        if self._is_raw:
            return
        if not 200 <= response.status < 300:
            self._is_refusal, self._give_up_at = True, now + REFUSAL_SECONDS
        if coding := response.headers.get("content-encoding"):
            self._coding = ContentDecoder(coding)

    def _receive_body(self, data: bytes) -> None:
        self.bytes_received += len(data)
        if self._watch is not None:
            self._watch.read(data)
        if self._coding is not None:
            data = self._coding.decode(data)
        if self._is_refusal:
            self._gather(data)
        else:
            self._take(data)

    def _gather(self, data: bytes) -> None:
        self._gathered += data
        if len(self._gathered) > (limit := self.settings.max_json_bytes):
            raise BodyTooLargeError(f"the answer is larger than max_json_bytes ({limit})", limit=limit)

    def _note_wait(self, now: float) -> None:
        if self.response is None:
            return
        gap = now - self.waiting_since
        self.waiting_since = now
        self._waited += gap
        if gap > self.timing.longest_gap:
            self.timing.longest_gap = gap

    # The end -------------------------------------------------------------------------------------------------------

    def _stop(self, cause: APIError | None) -> None:
        """The exchange is over. The observer gets the error that ended the body; the caller gets the error derived from it."""
        error = self._verdict(cause)
        if self.is_over:
            return
        # In one step: a signal handler may close the stream at any moment, and a cut answer must never look complete.
        self.is_over, self._cause, self.error = True, cause, error
        self.timing.ended = self.timing.elapsed()
        if error is not None and error is not cause and self._has_version_twice:
            error.message += " (base_url ends in /v1: leave that out, every path of the API begins with it)"
        for each in filter(None, {cause, error}):
            self._describe(each)
        if self._watch is not None:  # it has seen the status already, but not an error in the body of a 200
            is_in_body = isinstance(error, HTTPProtocolError | EventDataError) or getattr(error, "in_stream", False)
            self._watch.end(cause or (error if is_in_body else None))

    @property
    def _has_version_twice(self) -> bool:
        """The path has the version twice, and the response may be that of a path that does not exist."""
        is_wrong_path = self.response is not None and self.response.status in _OF_WRONG_PATHS
        prefix = self.settings.request.target.rpartition("/v1/")[0]
        return is_wrong_path and self.timing.first_event is None and prefix.lower().endswith(_VERSIONED)

    @cached_property
    def _secrets(self) -> Secrets:
        """The secrets of the request and of its proxy: server or proxy may quote them."""
        request, proxy = self.settings.request, self.settings.route.proxy
        return request.secrets or Secrets((*request.headers, *(proxy.fields if proxy else ())))

    def _without_secrets(self, response: Response) -> Response:
        # In one piece: this is done for every response.
        head = "\n".join((response.reason, *chain.from_iterable(response.headers.raw)))
        if (clean := self._secrets.removed(head)) == head:
            return response
        reason, *fields = clean.split("\n")
        return response._replace(reason=reason, headers=Headers(zip(fields[::2], fields[1::2], strict=True)))

    def _describe(self, error: APIError) -> None:
        """Complete the error for the caller, without secrets and unpaired surrogates."""
        for name, value in tuple(vars(error).items()):
            if isinstance(value, str):
                setattr(error, name, well_formed(self._secrets.removed_from_message(value)))
        error.args = (error.message,)
        error.__context__ = None  # an error of `json` holds the whole text
        error.phase, error.bytes_received, error.response = self.phase, self.bytes_received, self.response
        error.request_id = error.request_id or self.request_id
        error.safe_to_retry = error.repeat_may_help
        if isinstance(error, APIStatusError):
            error.rate_limits = RateLimits.from_headers(error.headers)

    def _refusal(self) -> APIError:
        response, route = self.response, self.settings.route
        assert response is not None  # noqa: S101 - it is its status that refuses
        if response.status == 407 and route.proxy is not None:  # from a proxy that should forward the request
            return refusal(route.proxy, route.origin, response.status, response.headers)
        error = status_error(response.status, self._body_of_error(), response.headers)
        if route.is_forwarded:  # the refusal may be the server's, or the proxy's
            error.message += f" (asked{route.through})"
        return error

    def _error_with_200(self) -> APIError | None:
        """The error in the body; None if the body is another JSON value, or text."""
        body = self._body_of_error()
        body = body[0] if isinstance(body, list) and body else body  # of some gateways
        headers = self.response.headers if self.response else {}
        return stream_error(as_error(body), headers) if isinstance(body, dict) and is_error(body) else None

    def _body_of_error(self) -> Any:
        """The body that arrived instead of an answer: JSON, or text, without the secrets of the request."""
        body = self._gathered.replace(b"\0", b"")  # turns ASCII in UTF-16 into ASCII
        return json_or_itself(self._secrets.removed(body.decode("utf-8-sig", "replace")))

    def _loss(self, how: str, before: str, words: str = "") -> APIConnectionError:
        if self.response is None:
            return APIConnectionError(before + words)
        where = "in the middle of the answer" if self._has_content else "before the first content of the answer"
        return StreamTruncatedError(f"the connection was {how} {where}{words}")

    @property
    def _has_content(self) -> bool:
        """Whether some of the answer itself has arrived."""
        return self.bytes_received > 0

    @property
    def _peer(self) -> str:
        """The server, and the proxy before it: either may be to blame."""
        return self.settings.request.host_field + self.settings.route.through


class JSONAnswer(Exchange):
    """A response that is one JSON object. `value` is that object."""

    value: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether the response is complete."""
        return self.is_over and self.error is None

    def _verdict(self, cause: APIError | None) -> APIError | None:
        if error := super()._verdict(cause):
            return error
        if isinstance(value := json_or_itself(self._gathered), dict) and not is_error(value):
            self.value = value
            return None
        said = quote(bytes(self._gathered))
        return self._error_with_200() or EventDataError(f"the answer is not a JSON object: {said}")


def json_or_itself(body: bytearray | str) -> Any:
    """The JSON value of a body, or its text. The body of an error need not be JSON: proxies send HTML, or nothing."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body
