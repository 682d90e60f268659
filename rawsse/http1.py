"""HTTP/1.1 as bytes in and bytes out, both roles, over h11.

This file knows RFC 9110 and 9112 as far as h11 leaves them to its user: limits, framing of what we send, keep-alive, content
decoding. It is the only file that imports h11. It refuses to know sockets, time, TLS, and what a body means.

    client = ClientConnection(host="api.anthropic.com")
    wire = client.send_request("POST", "/v1/messages", [("content-type", "application/json")], body)
    client.receive_data(bytes_from_the_peer)      # b"" says that the peer closed
    while (event := client.next_event()) is not None:
        ...                                       # Response, Data, EndOfMessage; None: more bytes are needed

    server = ServerConnection()
    server.receive_data(bytes_from_the_peer)
    server.next_event()                           # Request, Data, EndOfMessage, ConnectionClosed; None
    wire = server.send_response(200, [("content-type", "text/plain")])
    wire += server.send_data(b"hello") + server.send_end()

Events come one at a time, so that the connection's state always belongs to the event at hand. Header names are lower-case
`str`, header values `str` (latin-1, as RFC 9110 5.5 has it); bodies are `bytes`. What the peer does wrong raises
`HTTPProtocolError` or a `LimitExceededError`; what you do wrong raises `HTTPUsageError`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import h11

from rawsse.errors import BodyTooLargeError, HeadTooLargeError, HTTPProtocolError, HTTPUsageError, quote

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_HEAD_BYTES",
    "MAX_PIPELINED_BYTES",
    "ClientConnection",
    "ConnectionClosed",
    "ContentDecoder",
    "Data",
    "EndOfMessage",
    "Headers",
    "Request",
    "Response",
    "ServerConnection",
]

MAX_HEAD_BYTES = 32 * 1024
"""Start line and header fields together. Precedents: node 16 KiB, tomcat and nginx 8 KiB a line, h11 16 KiB. Twice that, for
answers that come through gateways which add their own (CSP, cookies, traces)."""

MAX_BODY_BYTES = 32 * 1024 * 1024
"""A request's body. The Messages API itself takes 32 MB."""

MAX_PIPELINED_BYTES = 64 * 1024
"""What a server holds of requests that came before the answer to the one at hand was sent. The reader stops above it."""

RawHeaders = Sequence[tuple[str, str]]


class Headers(Mapping[str, str]):
    """The header fields of one message: a mapping without regard to case, in the order received.

    A name that came more than once reads as one value joined with `, ` (RFC 9110, 5.2); `get_all` keeps them apart, and
    `raw` is the list of (lower-case name, value) pairs.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Iterable[tuple[str, str]] = ()) -> None:
        self.raw = [(name.lower(), value) for name, value in raw]

    def get_all(self, name: str) -> list[str]:
        """Every value that came under `name`, in order."""
        wanted = name.lower()
        return [value for key, value in self.raw if key == wanted]

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        # Names only: values hold keys and cookies, and a repr ends up in logs.
        return f"Headers({', '.join(self)})"


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `target` is as it came, `http_version` is "1.0" or "1.1"."""

    method: str
    target: str
    headers: Headers
    http_version: str


@dataclass(frozen=True, slots=True)
class Response:
    """A response's head. Interim responses (1xx) are skipped before it."""

    status: int
    reason: str
    headers: Headers
    http_version: str


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of the body, cut wherever the network cut it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfMessage:
    """The body is whole."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The peer closed the connection between two messages."""


class ClientConnection:
    """One connection to a server: one exchange after another, while `is_reusable`.

    `host` is the value of the `Host` field (with the port, unless it is the scheme's own). `max_head_bytes` bounds a
    response's head. A response's body has no bound here: it is handed on in pieces and never gathered.
    """

    def __init__(self, host: str, *, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._host = host
        self._max_head_bytes = max_head_bytes
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head_bytes)
        self._saw_eof = False

    @property
    def is_reusable(self) -> bool:
        """Both messages are whole and neither side asked to close: call `start_next_cycle` and send the next request."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE and not self._saw_eof

    def start_next_cycle(self) -> None:
        """Make ready for the next exchange. Raises `HTTPUsageError` if not `is_reusable`."""
        if not self.is_reusable:
            raise HTTPUsageError("the exchange at hand is not over, or the connection must be closed")
        self._h11.start_next_cycle()

    def send_request(self, method: str, target: str, headers: RawHeaders, body: bytes = b"") -> bytes:
        """The bytes of a whole request. `Host` and, where there is a body, `Content-Length` are added.

        Raises `HTTPUsageError` if a field is not allowed in a request, or the exchange before is not over.
        """
        fields = [("host", self._host), *headers]
        if body or method not in ("GET", "HEAD", "DELETE"):
            fields.append(("content-length", str(len(body))))
        try:
            request = h11.Request(method=method, target=target, headers=_to_wire(fields))
            wire = self._h11.send(request) or b""
            if body:
                wire += self._h11.send(h11.Data(data=body)) or b""
            return wire + (self._h11.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError as exc:
            raise HTTPUsageError(str(exc)) from None

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server; `b""` says that it closed its side."""
        if not self._saw_eof:
            self._saw_eof = not data
            self._h11.receive_data(data)

    def next_event(self) -> Response | Data | EndOfMessage | None:
        """The next event, or None if more bytes are needed (or the exchange is over).

        Raises `HTTPProtocolError` when the server breaks HTTP or closes in the middle of its answer (then `by_close` is
        set), and `HeadTooLargeError`.
        """
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as exc:
                raise _their_error(exc, self._max_head_bytes, by_close=self._saw_eof) from None
            if isinstance(event, h11.InformationalResponse):
                continue
            if isinstance(event, h11.Response):
                headers = _from_wire(event.headers, self._max_head_bytes)
                return Response(event.status_code, event.reason.decode("latin-1"), headers, _version(event))
            if isinstance(event, h11.Data):
                return Data(bytes(event.data))
            return EndOfMessage() if isinstance(event, h11.EndOfMessage) else None


class ServerConnection:
    """One connection from a client: one exchange after another, while `is_reusable`.

    `max_head_bytes` bounds a request's head, `max_body_bytes` its body; `max_pipelined_bytes` is where `is_full` turns
    true, so that the caller stops reading. After any error the next response says `Connection: close` by itself.
    """

    def __init__(
        self,
        *,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_pipelined_bytes: int = MAX_PIPELINED_BYTES,
    ) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._max_pipelined_bytes = max_pipelined_bytes
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes)
        self._start()

    def _start(self) -> None:
        self._body_bytes = 0
        self._is_ahead = False  # the client's next request has begun to come
        self._must_close = False
        self._has_no_body = False  # of the response at hand
        self._is_chunked = False  # likewise, while its body is being sent

    @property
    def is_reusable(self) -> bool:
        """Both messages are whole and the connection may carry another exchange."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    @property
    def is_waiting_for_100_continue(self) -> bool:
        """The client sent `Expect: 100-continue` and holds its body back until it is asked for (RFC 9110, 10.1.1)."""
        return self._h11.they_are_waiting_for_100_continue

    @property
    def is_full(self) -> bool:
        """More than `max_pipelined_bytes` came ahead of their turn: stop reading until the next cycle."""
        return self._is_ahead and len(self._h11.trailing_data[0]) > self._max_pipelined_bytes

    @property
    def is_idle(self) -> bool:
        """Between two exchanges: not a byte of the next request's head is here."""
        return self._h11.their_state is h11.IDLE and not self._h11.trailing_data[0]

    @property
    def can_respond(self) -> bool:
        """No response head has been sent for the request at hand, and one may still be."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def start_next_cycle(self) -> None:
        """Make ready for the next request. Raises `HTTPUsageError` if not `is_reusable`."""
        if not self.is_reusable:
            raise HTTPUsageError("the exchange at hand is not over, or the connection must be closed")
        self._h11.start_next_cycle()
        self._start()

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client; `b""` says that it closed its side. What follows a broken request is dropped."""
        if data and self.is_idle:
            # RFC 9112, 2.2: "a server … SHOULD ignore at least one empty line (CRLF) received prior to the request-line."
            data = data.lstrip(b"\r\n")
            if not data:
                return
        if self._h11.their_state is not h11.ERROR and not self._h11.trailing_data[1]:
            self._h11.receive_data(data)

    def next_event(self) -> Request | Data | EndOfMessage | ConnectionClosed | None:
        """The next event, or None: more bytes are needed, or the answer at hand must be finished first.

        Raises `HTTPProtocolError` (answer its `status_hint`), `HeadTooLargeError` (answer 431) and `BodyTooLargeError`
        (answer 413; raised at once when `Content-Length` announces too much).
        """
        try:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                return self._request(event)
        except h11.RemoteProtocolError as exc:
            self._must_close = True
            raise _their_error(exc, self._max_head_bytes) from None
        except HeadTooLargeError:
            self._must_close = True
            raise
        if isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
            self._check_body(self._body_bytes)
            return Data(bytes(event.data))
        if isinstance(event, h11.EndOfMessage):
            return EndOfMessage()
        self._is_ahead = event is h11.PAUSED
        return ConnectionClosed() if isinstance(event, h11.ConnectionClosed) else None

    def send_continue(self) -> bytes:
        """The bytes of `100 Continue`, if the client waits for it; else nothing."""
        if not self.is_waiting_for_100_continue:
            return b""
        return self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b""

    def send_response(self, status: int, headers: RawHeaders, *, close: bool = False) -> bytes:
        """The bytes of a response's head. `close` ends the connection after this response.

        Without `Content-Length` the body is chunked, or ends with the connection for an HTTP/1.0 client. Raises
        `HTTPUsageError`.
        """
        fields = list(headers)
        if close or self._must_close:
            fields = [(name, value) for name, value in fields if name.lower() != "connection"]
            fields.append(("connection", "close"))
        # RFC 9110, 6.4.1: "Responses to the HEAD request method never include content … All 204 (No Content) and 304 (Not
        # Modified) responses do not include content."
        self._has_no_body = self._has_no_body or status in (204, 304)
        try:
            head = h11.Response(status_code=status, headers=_to_wire(fields), reason=_reason(status))
            wire = self._h11.send(head) or b""
        except h11.LocalProtocolError as exc:
            raise HTTPUsageError(str(exc)) from None
        self._is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in wire.lower()  # h11 chooses, and says so in the head
        return wire

    def send_data(self, data: bytes) -> bytes:
        """The bytes of a piece of the response's body; nothing for `HEAD`, 204 and 304. Raises `HTTPUsageError`."""
        if not data or self._has_no_body:
            return b""  # an empty chunk would end a chunked body (RFC 9112, 7.1)
        if self._is_chunked:
            # As h11 would, in a twentieth of its time: this is done once per event.
            return b"%x\r\n%b\r\n" % (len(data), data)
        try:
            return self._h11.send(h11.Data(data=data)) or b""
        except h11.LocalProtocolError as exc:
            raise HTTPUsageError(str(exc)) from None

    def send_end(self) -> bytes:
        """The bytes that end the response's body. Raises `HTTPUsageError` if less than `Content-Length` was sent."""
        self._is_chunked = False
        try:
            return self._h11.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError as exc:
            raise HTTPUsageError(str(exc)) from None

    def _request(self, event: h11.Request) -> Request:
        headers = _from_wire(event.headers, self._max_head_bytes)
        method = event.method.decode("ascii")
        self._has_no_body = method == "HEAD"
        self._check_body(int(headers.get("content-length", "0")))
        return Request(method, event.target.decode("latin-1"), headers, _version(event))

    def _check_body(self, size: int) -> None:
        if size > self._max_body_bytes:
            self._must_close = True
            limit = self._max_body_bytes
            raise BodyTooLargeError(f"the request's body is larger than max_body_bytes ({limit})", limit=limit)


class ContentDecoder:
    """Undoes `Content-Encoding: gzip` or `deflate`, piece by piece.

    We ask for `identity`; this is for servers that compress all the same. Other encodings raise `HTTPProtocolError`.
    """

    def __init__(self, encoding: str) -> None:
        self._name = encoding.strip().lower()
        self._inflate: zlib._Decompress | None = None
        if self._name in ("gzip", "x-gzip"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        elif self._name not in ("", "identity", "deflate"):
            raise HTTPProtocolError(f"the body has a content-encoding that was not asked for: {quote(encoding)}")

    def decode(self, data: bytes) -> bytes:
        """The decoded bytes that `data` completes. Raises `HTTPProtocolError` if `data` are not in the encoding."""
        if not data or self._name in ("", "identity"):
            return data
        if self._inflate is None:
            # RFC 9110, 8.4.1.2: "deflate" is the zlib format; "some non-conformant implementations send the "deflate"
            # compressed data without the zlib wrapper." The first byte tells: 8 in the low four bits is zlib's.
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        try:
            return self._inflate.decompress(data)
        except zlib.error as exc:
            raise HTTPProtocolError(f"the body is not {self._name} as its content-encoding says: {exc}") from None


# --- Between h11's terms and ours ----------------------------------------------------------------------------------


def _their_error(
    exc: h11.RemoteProtocolError, max_head_bytes: int, *, by_close: bool = False
) -> HTTPProtocolError | HeadTooLargeError:
    if exc.error_status_hint == 431:
        return _head_too_large(max_head_bytes)
    if by_close:
        return HTTPProtocolError("the connection was closed before the answer was whole", by_close=True)
    return HTTPProtocolError(f"not HTTP/1.1: {exc}", status_hint=exc.error_status_hint)


def _head_too_large(limit: int) -> HeadTooLargeError:
    return HeadTooLargeError(f"the head is larger than max_head_bytes ({limit})", limit=limit)


def _from_wire(headers: Iterable[tuple[bytes, bytes]], max_head_bytes: int) -> Headers:
    pairs = [(name.decode("ascii"), value.decode("latin-1")) for name, value in headers]
    # h11 looks at the size of a head only while it is incomplete; one that comes in a single read is measured here.
    if sum(len(name) + len(value) + 4 for name, value in pairs) > max_head_bytes:
        raise _head_too_large(max_head_bytes)
    return Headers(pairs)


def _to_wire(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    try:
        return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError as exc:
        raise HTTPUsageError(f"a header field has a character that HTTP does not allow: {quote(exc.object)}") from None


def _version(event: h11.Request | h11.Response) -> str:
    return event.http_version.decode("ascii")


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Overloaded" if status == 529 else b""
