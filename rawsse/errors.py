"""Every failure of rawsse as one tree, sorted by the responsible party, and how a stream ended (`Ending`).

Pure data: this file imports nothing else of rawsse, so that every other file can use it.

    RawsseError                          the base; alias AnthropicError
    ├── APIError                         the exchange with the server failed
    │   ├── APIStatusError               the API refused: an HTTP status, or an `error` event in the stream
    │   │   ├── BadRequestError                  400 invalid_request_error
    │   │   ├── AuthenticationError              401 authentication_error
    │   │   ├── PaymentRequiredError             402 billing_error
    │   │   ├── PermissionDeniedError            403 permission_error
    │   │   ├── NotFoundError                    404 not_found_error
    │   │   ├── RequestTimeoutError              408
    │   │   ├── ConflictError                    409 conflict_error
    │   │   ├── PreconditionFailedError          412
    │   │   ├── ContentTooLargeError             413 request_too_large
    │   │   ├── UnprocessableEntityError         422
    │   │   ├── RateLimitError                   429 rate_limit_error
    │   │   ├── RequestHeaderFieldsTooLargeError 431
    │   │   ├── ClientClosedRequestError         499
    │   │   └── InternalServerError              500 api_error, and every other 5xx
    │   │       ├── HTTPNotImplementedError      501
    │   │       ├── ServiceUnavailableError      503
    │   │       ├── GatewayTimeoutError          504 timeout_error
    │   │       └── OverloadedError              529 overloaded_error
    │   ├── APIConnectionError           the network failed
    │   │   ├── StreamTruncatedError     the stream ended before `message_stop`
    │   │   ├── StreamCancelledError     the caller's `close()` ended it
    │   │   ├── CertificateError         the server's certificate cannot be verified
    │   │   ├── ProxyError               the proxy refused or failed
    │   │   └── APITimeoutError          one of the five timeouts expired
    │   │       ├── ConnectTimeoutError  no connection
    │   │       ├── HeadTimeoutError     no response head
    │   │       ├── SilenceTimeoutError  no byte at all, not even a ping
    │   │       ├── ContentTimeoutError  pings, but no content
    │   │       └── TotalTimeoutError    the whole call took too long
    │   ├── ProtocolError                the server violated a protocol; alias APIResponseValidationError
    │   │   ├── HTTPProtocolError        RFC 9112
    │   │   ├── EventDataError           the data of an event is invalid
    │   │   ├── EventOrderError          the order of the events is invalid
    │   │   └── OutputFormatError        the answer is complete, but its text does not fit `output_format`
    │   └── LimitExceededError           the server sent more than a configured limit allows
    │       ├── HeadTooLargeError
    │       ├── BodyTooLargeError
    │       ├── EventTooLargeError
    │       ├── MessageTooLargeError
    │       └── TurnLimitError           a tool loop reached its limit
    └── UsageError                       the caller misused the library (also a ValueError)
        ├── InvalidFieldError            an SSE field that would break the frame
        ├── HTTPUsageError               an HTTP message that cannot be sent now, or not in this form
        ├── PartialJSONError             not a prefix of a JSON text
        ├── ConfigurationError           an invalid argument, option or environment variable
        ├── RecordingError               not a valid recording
        └── SecretRemainsError           a recording that still has what looks like a secret

Every `APIError` that a stream raises carries what the caller needs next: `partial` (the message so far), `phase`,
`bytes_received`, `request_id`, `safe_to_retry` and `ending`. Every other exception out of rawsse is a bug in rawsse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

MAX_QUOTED_CHARS = 80
"""How much of an invalid value a message quotes: enough to find it, too little to flood a log."""

MAX_SAID_CHARS = 1000
"""How much of a server's message an error's message has; `body` has all of it."""

HEALING_STATUSES = frozenset((408, 409, 429, *range(500, 1000)))
"""The HTTP statuses, of the API and of proxies, with which a request may be tried again: those of the official SDKs."""

Phase = Literal["connect", "send", "head", "open", "content", "tail", "done"]
"""How far an exchange got: see `APIError`."""

EndingKind: TypeAlias = Literal["complete", "truncated", "error", "timeout", "cancelled", "limit"]


class Ending(NamedTuple):
    """How a stream ended: the same object in the client, in the relay's log, and (as `to_dict`) in the browser.

    `tail_missing`: the ending is `complete`, but `message_stop` never arrived; the stop reason had.
    """

    kind: EndingKind
    text: str
    phase: Phase
    stop_reason: str | None = None
    error_type: str | None = None
    request_id: str | None = None
    bytes_received: int = 0
    tail_missing: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return self._asdict()


class PartialMessage(Protocol):
    """The attributes of `APIError.partial` for type checkers. The object is a `rawsse.Message`."""

    request_id: str | None
    usage: Any
    """The token counts so far, a `rawsse.messages.Usage`."""

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped; None if that had not arrived."""

    @property
    def content(self) -> Sequence[Any]:
        """The content blocks so far; `block.complete` tells whether the block was closed."""

    @property
    def text(self) -> str:
        """The text of all text blocks, one after the other."""

    def replayable(self) -> dict[str, Any] | None:
        """The message as a turn that may be sent back to the API; None if nothing is left that may."""

    def to_dict(self) -> dict[str, Any]:
        """A deep copy of the message's JSON."""


def quote(value: str | bytes, limit: int = MAX_QUOTED_CHARS) -> str:
    """The `repr` of `value`, cut after `limit` characters, for use in error messages."""
    text = repr(value if len(value) <= limit else value[:limit])
    return text if len(value) <= limit else f"{text}… ({len(value)} in all)"


class Hidden(str):
    """A text that its `repr` does not show: tracebacks may show the variables of each frame."""

    __slots__ = ()

    @classmethod
    def of(cls, value: Any) -> Any:
        """`value`, hidden if it is a text."""
        return cls(value) if isinstance(value, str) else value

    def __repr__(self) -> str:
        return f"<{len(self)} characters>"


class RawsseError(Exception):
    """The base of everything that rawsse raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is copied and pickled by calling its class with `args`, which hold the message alone. Process pools
        # bring errors home that way, and break on one that cannot be made again.
        return type(self).__new__, (type(self), *self.args), self.__dict__


AnthropicError = RawsseError


# --- The exchange with the other side ------------------------------------------------------------------------------


class APIError(RawsseError):
    """The exchange with the server failed. `message` says how, in words; `phase` says how far it had got:

        connect     there was no connection
        send        the request had not been sent, or not all of it
        head        the request had been sent; the response's head had not arrived
        open        the head had arrived, that of a refusal as well, and no content
        content     some content had reached the caller
        tail        the stop reason had arrived, and `message_stop` had not
        done        the answer was complete

    The stream that raises the error fills in the other attributes; before a stream exists they keep the values below:

        `repeat_may_help`  to repeat the whole call, and drop `partial`, may help: `should_retry`, and if it is None `may_heal`
        `safe_to_retry`    that, and no content had reached the caller: a repeat duplicates nothing
        `should_retry`     whether the server asks for a retry (`x-should-retry`); None if it does not say
        `may_heal`         the failure can go away by itself
        `retry_after`      the seconds that the server asked to wait; None if it did not
        `retries_taken`    how often the client had repeated the request
        `partial`          the message so far; `partial.replayable()` may be sent back to the API. None before `message_start`
        `ending`           how the stream ended, an `Ending`; its kind is the `ending_kind` of the class
        `request_id`       what Anthropic's support asks for; None if there was no response
        `response`         the response's head, with `status_code` and `headers`; None if there was none
        `bytes_received`   the bytes of the response's body, before any content decoding
    """

    partial: PartialMessage | None = None
    """The message so far, or None if `message_start` had not arrived. `partial.replayable()` may be sent back to the API."""
    phase: Phase | None = None
    """How far the exchange had got: one of the words above."""
    bytes_received: int = 0
    """Bytes of the response body, before any content decoding."""
    request_id: str | None = None
    """The `request-id` response header: what Anthropic's support asks for."""
    should_retry: bool | None = None
    """Whether the server asks for a retry (`x-should-retry`); None if it does not say."""
    safe_to_retry: bool = False
    """No content had reached the caller, and `repeat_may_help`: a repeat duplicates nothing."""
    response: Any | None = None
    """The response's head, if one arrived: a `rawsse.http1.Response`, with `status_code` and `headers`."""
    ending: Ending | None = None
    """The stream's one ending, as the relay logs it and the browser gets it."""
    retries_taken: int = 0
    """How often the request was tried again before this error."""
    retry_after: float | None = None
    """How long the server asked to wait, in seconds; None if it did not."""

    may_heal: bool = False
    """The failure can go away by itself: its class says so, or for a status `HEALING_STATUSES`."""
    ending_kind: ClassVar[EndingKind] = "truncated"
    """The kind of the ending of a stream that failed with an error of this class."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def repeat_may_help(self) -> bool:
        """Whether it makes sense to repeat the whole call, and drop `partial`: as the server says, or else as the failure's
        kind says (`may_heal`). The client does so by itself up to `max_retries` times, if `safe_to_retry`, but not after a
        `ContentTimeoutError` or a `TotalTimeoutError`."""
        return self.may_heal if self.should_retry is None else self.should_retry


class APIStatusError(APIError):
    """The API refused. `in_stream` tells an `error` event (after HTTP 200) from an HTTP status.

    For an `error` event `status_code` is the status that its type has elsewhere (529 for `overloaded_error`): code that
    looks at the status, or at the class, works the same for both.
    """

    ending_kind = "error"

    _class_by_status: ClassVar[dict[int, type[APIStatusError]]] = {}
    _status_by_type: ClassVar[dict[str, int]] = {}

    rate_limits: Any | None = None
    """The rate limits of the response's header, a `rawsse.RateLimits`; None before a stream filled it in."""

    def __init_subclass__(cls, *, status: int = 0, type: str = "") -> None:
        """A subclass says which status leads to it, and the `error.type`s that belong to that status."""
        super().__init_subclass__()
        if status:
            cls._class_by_status[status] = cls
        if type:
            cls._status_by_type.update(dict.fromkeys(type.split(), status))

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        in_stream: bool = False,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.may_heal = status_code in HEALING_STATUSES
        self.body = body
        self.headers: Mapping[str, str] = headers or {}
        self.in_stream = in_stream
        self.type = _at(str, body, "error", "type")
        self.request_id = self.headers.get("request-id") or _at(str, body, "request_id")
        self.workspace_id = self.headers.get("anthropic-workspace-id")
        """The `anthropic-workspace-id` response header."""
        self.api_message = None if isinstance(body, str) else words_of(body)
        """`error.message` of the body, or the field that a gateway has in its place; None if the body is not JSON."""
        self.details: Mapping[str, Any] = _at(dict, body, "error", "details") or {}
        """`error.details` of the body; empty if there are none."""
        self.error_code = _at(str, self.details, "error_code")
        """`error.details.error_code` of the body."""
        wish = {name.lower(): value.strip().lower() for name, value in self.headers.items()}.get("x-should-retry")
        # The header was written before the stream failed, so its `true` does not mean that failure.
        if wish == "false" or (wish == "true" and not in_stream):
            self.should_retry = wish == "true"


class BadRequestError(APIStatusError, status=400, type="invalid_request_error"):
    """400: the request is wrong; sending it again will not help."""


class AuthenticationError(APIStatusError, status=401, type="authentication_error"):
    """401: no key, or a wrong one."""


class PaymentRequiredError(APIStatusError, status=402, type="billing_error"):
    """402: billing."""


class PermissionDeniedError(APIStatusError, status=403, type="permission_error"):
    """403: the key may not do this."""


class NotFoundError(APIStatusError, status=404, type="not_found_error"):
    """404: no such model or path."""


class RequestTimeoutError(APIStatusError, status=408):
    """408: the server waited too long for the request."""


_CONFLICTS = "conflict_error memory_path_conflict_error memory_precondition_failed_error"


class ConflictError(APIStatusError, status=409, type=_CONFLICTS):
    """409."""


class PreconditionFailedError(APIStatusError, status=412):
    """412."""


class ContentTooLargeError(APIStatusError, status=413, type="request_too_large"):
    """413: the request body is too large (32 MB at the API)."""


class UnprocessableEntityError(APIStatusError, status=422):
    """422."""


class RateLimitError(APIStatusError, status=429, type="rate_limit_error"):
    """429: `headers` may say when to retry (`retry-after`, `anthropic-ratelimit-*`)."""


class RequestHeaderFieldsTooLargeError(APIStatusError, status=431):
    """431."""


class ClientClosedRequestError(APIStatusError, status=499):
    """499."""


class InternalServerError(APIStatusError, status=500, type="api_error"):
    """500, and every other 5xx without a subclass."""


class HTTPNotImplementedError(InternalServerError, status=501):
    """501."""


class ServiceUnavailableError(InternalServerError, status=503):
    """503."""


class GatewayTimeoutError(InternalServerError, status=504, type="timeout_error"):
    """504."""


class OverloadedError(InternalServerError, status=529, type="overloaded_error"):
    """529: the API is overloaded."""


# --- The network ---------------------------------------------------------------------------------------------------


class APIConnectionError(APIError):
    """The network failed: refused, unreachable, reset. `__cause__` is the operating system's own error."""

    may_heal = True


class StreamTruncatedError(APIConnectionError):
    """The stream ended before `message_stop`: what arrived is not the whole answer."""


class StreamCancelledError(APIConnectionError):
    """`close()` was called while the stream was still being read."""

    ending_kind = "cancelled"
    may_heal = False


class CertificateError(APIConnectionError):
    """The server's certificate cannot be verified: an unknown issuer, out of date, or for another name."""

    may_heal = False


class ProxyError(APIConnectionError):
    """The proxy refused or failed. The message names it, and never its user or password.

    `status_code` is the proxy's, None if it did not answer. `may_heal` is for that case; for a status it is
    `HEALING_STATUSES`. A proxy that refuses will refuse again, one that could not reach the server may reach it next time.
    """

    def __init__(self, message: str, *, status_code: int | None = None, may_heal: bool = True) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.may_heal = may_heal if status_code is None else status_code in HEALING_STATUSES


class APITimeoutError(APIConnectionError):
    """A timeout expired. `seconds` is its setting."""

    ending_kind = "timeout"

    def __init__(self, message: str, *, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class ConnectTimeoutError(APITimeoutError):
    """No connection within `connect` seconds (DNS, TCP and TLS together)."""


class HeadTimeoutError(APITimeoutError):
    """The request was sent, and no response head arrived within `head` seconds."""


class SilenceTimeoutError(APITimeoutError):
    """Not a single byte arrived for `silence` seconds, not even a ping: the connection is dead."""


class ContentTimeoutError(APITimeoutError):
    """Bytes (pings) arrived, but no content for `content` seconds: the connection lives, the answer does not."""


class TotalTimeoutError(APITimeoutError):
    """The whole call took longer than `total` seconds, or a tool loop longer than `max_seconds`."""


# --- Rules and limits ----------------------------------------------------------------------------------------------


class ProtocolError(APIError):
    """The server violated a protocol: HTTP, the Messages API, or the `output_format` that was requested."""

    ending_kind = "error"


APIResponseValidationError = ProtocolError


class HTTPProtocolError(ProtocolError):
    """The peer violated HTTP/1.1 (RFC 9112). `status_hint` is the status that a server should answer with.

    `by_close`: no byte was invalid; the connection was closed before the message was complete.
    """

    def __init__(self, message: str, *, status_hint: int = 400, by_close: bool = False) -> None:
        super().__init__(message)
        self.status_hint = status_hint
        self.by_close = by_close


class EventDataError(ProtocolError):
    """The data of an event is not a JSON object, or lacks a field that the Messages API requires. It was not applied."""


class EventOrderError(ProtocolError):
    """An event arrived where the Messages API does not allow it. `rule` names the rule that it broke."""

    def __init__(self, message: str, *, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


class OutputFormatError(ProtocolError):
    """The text of the answer does not fit the `output_format` of the request. `text` is that text, `partial` the message.

    `ending` is that of the stream, once it has ended: its `stop_reason` tells a cut ("max_tokens") from bad JSON ("end_turn").

    `__cause__` is the error that the type raised, if it did.
    """

    text: str = ""


class LimitExceededError(APIError):
    """The peer sent more than a configured limit allows. `limit` is that limit, in bytes."""

    ending_kind = "limit"

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class HeadTooLargeError(LimitExceededError):
    """A request or response head (start line and header fields) is larger than `max_head_bytes`."""


class BodyTooLargeError(LimitExceededError):
    """A body is larger than `max_body_bytes`."""


class EventTooLargeError(LimitExceededError):
    """One server-sent event is larger than `max_event_bytes`. `events` are those that were whole before it."""

    def __init__(self, message: str, *, limit: int, events: Sequence[Any] = ()) -> None:
        super().__init__(message, limit=limit)
        self.events = events


class MessageTooLargeError(LimitExceededError):
    """The message that the events add up to is larger than `max_message_bytes`."""


class TurnLimitError(LimitExceededError):
    """A tool loop has requested `limit` answers, and the model is not done. `messages` is the history: whole turns."""

    def __init__(self, message: str, *, limit: int, messages: Sequence[Any] = ()) -> None:
        super().__init__(message, limit=limit)
        self.messages = messages


# --- Misuse --------------------------------------------------------------------------------------------------------


class UsageError(RawsseError, ValueError):
    """The caller misused the library: the call cannot work as it was written."""


class InvalidFieldError(UsageError):
    """A value that cannot be a field of a server-sent event: written out, it would end the field or the event early."""


class HTTPUsageError(UsageError):
    """An HTTP message that may not be sent in this form, or not now."""


class PartialJSONError(UsageError):
    """The text is not a prefix of a JSON text. The message has the position, in characters from 0."""


class ConfigurationError(UsageError):
    """An argument, command line option or environment variable that cannot work."""


class RecordingError(UsageError):
    """The file is not a valid recording. The message names the file and line."""


class SecretRemainsError(UsageError):
    """A recording was not written: something in it looks like a secret. The message says what and where, not the secret."""


# --- From the wire to the class ------------------------------------------------------------------------------------


def status_error(status: int, body: object, headers: Mapping[str, str]) -> APIStatusError:
    """The error for an HTTP response without success.

    `body` is the parsed JSON, or the text of a body that was not JSON; `headers` have lower-case names.
    The class goes by the status: https://docs.anthropic.com/en/api/errors
    """
    kind = _at(str, body, "error", "type")
    message = _words_of_text(body.strip()) if isinstance(body, str) else words_of(body)
    if message is None and 300 <= status < 400 and (location := headers.get("location")):
        place = quote(location.partition("?")[0])
        message = f"it redirects to {place}; the key is not sent there by itself, base_url must say so"
    said = f"{status} {kind}" if kind else f"status {status}"
    message = message or _quoted(body) or "no message in the body"
    return _error(f"{said}: {message}", status, body, headers, in_stream=False)


def error_type(status: int) -> str:
    """The `error.type` that the API sends with an HTTP status of an error."""
    other = "api_error" if status >= 500 else "invalid_request_error"
    return next((kind for kind, code in APIStatusError._status_by_type.items() if code == status), other)


def stream_error(body: Mapping[str, Any], headers: Mapping[str, str]) -> APIStatusError:
    """The error for an `error` event in a stream that had begun with 200, or an error as the body of a 200, in the API's form
    (`as_error`). The class goes by `error.type`."""
    body = dict(body)
    kind = _at(str, body, "error", "type")
    others = {**body, **(_at(dict, body, "error") or {})}
    others = {name: value for name, value in others.items() if value and name not in ("type", "error", "request_id")}
    said = f"error event, {kind or 'of no type'}: {words_of(body) or _quoted(others) or 'no message'}"
    return _error(said, APIStatusError._status_by_type.get(kind or "", 500), body, headers, in_stream=True)


def _error(message: str, status: int, body: object, headers: Mapping[str, str], *, in_stream: bool) -> APIStatusError:
    other = InternalServerError if status >= 500 else APIStatusError
    kind = APIStatusError._class_by_status.get(status, other)
    return kind(message, status_code=status, body=body, headers=headers, in_stream=in_stream)


def is_error(raw: Mapping[str, Any]) -> bool:
    """Whether a JSON object is an error, in the API's form or another: its type says so, or it has no type and the fields that
    gateways give to their errors."""
    if (kind := raw.get("type")) is not None:
        return kind == "error" or _is_error_type(kind)
    if raw.get("success") is False or raw.get("ok") is False or raw.get("status") in ("error", "fail", "failed"):
        return True
    has_words = isinstance(raw.get("message"), str) or ("code" in raw and isinstance(raw.get("msg"), str))
    return has_words or any(raw.get(name) for name in ("error", "errors", "detail"))


def as_error(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The error in the API's form: gateways leave out the outer type, or put the message in another field."""
    given = raw.get("error")
    error = given if isinstance(given, dict) else {"message": words_of(raw)}
    while isinstance(inner := error.get("error"), dict) and words_of(inner):  # from a gateway behind a gateway
        error = {"type": error.get("type"), **inner}
    kinds = (raw.get("type"), given, error.get("message"))
    kind = error.get("type") if error.get("type") not in (None, "error") else next(filter(_is_error_type, kinds), None)
    return {**raw, "type": "error", "error": {**error, "type": kind}}


def _is_error_type(value: object) -> bool:
    return isinstance(value, str) and value in APIStatusError._status_by_type


# Where the words of an error are: at the API, at FastAPI, in OAuth (RFC 6749, 5.2) and in problem details (RFC 9457).
_SAID_IN = ("message", "detail", "error_description", "description", "msg", "reason", "title", "error", "errors")
_MAX_DEPTH, _MAX_ITEMS = 5, 5


def words_of(body: object, depth: int = _MAX_DEPTH) -> str | None:
    """The message in the JSON of an error, whatever its form, up to `MAX_SAID_CHARS`; None if there is none."""
    if isinstance(body, str):
        return _bounded(body.strip()) or None
    if isinstance(body, list) and depth:
        words = [said for item in body[:_MAX_ITEMS] if (said := words_of(item, depth - 1))]
        return _bounded("; ".join(words)) or None
    if isinstance(body, dict) and depth:
        # The API's `error` is an object, and is read first. A text there is often only the name of the status.
        names = _SAID_IN if isinstance(body.get("error"), str) else ("error", *_SAID_IN)
        return next((said for name in names if (said := words_of(body.get(name), depth - 1))), None)
    return None


def _words_of_text(text: str) -> str | None:
    """The message in a body that is not JSON: the title of a page, or the beginning of a text."""
    # Without elements and comments that may contain another title.
    page = re.sub(r"(?is)<(script|style|svg)\b.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)", "", text)
    if title := re.search(r"(?i)<title[^>]{0,200}>([^<]{1,1000})</title", page):
        from html import unescape  # 2,000 names, which few programs need

        return " ".join(unescape(title[1]).split()) or None
    limit = MAX_QUOTED_CHARS if text.startswith("<") else MAX_SAID_CHARS
    return f"the body is not JSON: {quote(text, limit)}" if text else None


def _quoted(body: object) -> str | None:
    """A JSON body without a message in a known field: it may have one in another."""
    if not body or isinstance(body, str):
        return None
    try:
        return f"the body is {quote(json.dumps(body, ensure_ascii=False), MAX_SAID_CHARS)}"
    except RecursionError:
        return None


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_SAID_CHARS else f"{text[:MAX_SAID_CHARS]}… ({len(text)} in all)"


def _at(kind: type[T], value: object, *path: str) -> T | None:
    """The JSON value at this path of names; None if there is none of this type."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, kind) else None
