"""One HTTP/1.1 connection, in either role: bytes in and events out, messages in and bytes out.

This file knows RFC 9112 and how h11 is to be used; no other file imports it. It refuses to know sockets and time, and leaves
the wrappings of a body to `codings.py`. How to use it stands at the head of the room.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import h11

from rawsse.errors import APIError, BodyTooLargeError, HeadTooLargeError, HTTPProtocolError, HTTPUsageError, quote
from rawsse.http1.codings import MAX_CHUNK_HEAD_BYTES, ChunkedReader
from rawsse.http1.message import ConnectionClosed, Data, EndOfMessage, Headers, Request, Response

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_HEAD_BYTES",
    "MAX_PIPELINED_BYTES",
    "ClientConnection",
    "RawHeaders",
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
T = TypeVar("T")

_END_OF_HEAD = re.compile(rb"\n\r?\n")
# RFC 9112, 2.2: "A recipient of such a bare CR MUST consider that element to be invalid". h11 would find these too, but in
# quadratic time: over a head that is 32 KiB of blanks and then a NUL it sits for two seconds.
_NOT_IN_A_HEAD = re.compile(rb"[\0\v\f]|\r(?!\n)")
# RFC 9110, 5.6.2: token. 5.5: "field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]".
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_NOT_IN_A_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]|^[ \t]|[ \t]\Z")

_BEFORE_A_HEAD = (h11.IDLE, h11.SEND_RESPONSE)


class _Connection:
    """What the two roles have in common: how the bytes that came get into h11. One `h11.Connection` lives for one exchange.

    h11 gets a head when it is whole, and was measured and looked through. Of a body it gets all that there is; but a chunked
    one is read by `ChunkedReader`, and h11 is told that it was empty. It hears of the peer's close when it has all the bytes
    before it, so that what it objects to then is the close and nothing else.
    """

    def __init__(self, role: Any, max_head_bytes: int, max_chunk_head_bytes: int) -> None:
        self._role = role
        self._max_head_bytes = max_head_bytes
        self._max_chunk_head_bytes = max_chunk_head_bytes
        self._unread = bytearray()  # what h11 did not get yet
        self._searched = 0  # so far `_unread` holds no end of a head
        self._saw_eof = False
        self._is_broken = False
        self._must_close = False
        self._start()

    def _start(self) -> None:
        self._h11 = h11.Connection(self._role, max_incomplete_event_size=self._max_head_bytes)
        self._chunks: ChunkedReader | None = None  # while a chunked body is being read

    @property
    def is_reusable(self) -> bool:
        """Both messages are whole and the connection may carry another exchange: call `start_next_cycle`."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE and not self._must_close

    def start_next_cycle(self) -> None:
        """Make ready for the next exchange. Raises `HTTPUsageError` if not `is_reusable`."""
        if not self.is_reusable:
            raise HTTPUsageError("the exchange at hand is not over, or the connection must be closed")
        self._unread[:0] = self._h11.trailing_data[0]
        self._start()

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; `b""` says that it closed its side. What follows a broken message is dropped."""
        if not data:
            self._saw_eof = True
        elif not self._saw_eof and not self._is_broken:
            self._unread += data

    def _unless_broken(self, next_event: Callable[[], T]) -> T:
        """Call `next_event`. Once it raised, nothing more is read, and the connection carries no other exchange."""
        if self._is_broken:
            raise HTTPProtocolError("nothing is read after a broken message")
        try:
            return next_event()
        except h11.RemoteProtocolError as exc:
            self._break()
            raise self._their_error(exc) from None
        except APIError:
            self._break()
            raise

    def _break(self) -> None:
        self._is_broken = self._must_close = True
        self._unread.clear()

    def _their_error(self, exc: h11.RemoteProtocolError) -> HTTPProtocolError:
        if self._h11.trailing_data[1]:
            return _closed_early()
        # h11 quotes the whole line that it refuses, which may hold a key: `illegal header line: bytearray(b'...')`.
        return HTTPProtocolError(f"not HTTP/1.1: {str(exc).partition(': b')[0]}", status_hint=exc.error_status_hint)

    @property
    def _is_reading(self) -> bool:
        """The peer's message is not over."""
        return self._h11.their_state in (*_BEFORE_A_HEAD, h11.SEND_BODY)

    def _pull(self) -> h11.Event | None:
        """h11's next event, or None: more bytes are needed, or the exchange at hand must be finished first."""
        while self._is_reading:
            event = self._h11.next_event()
            if isinstance(event, h11.Event):
                return event
            if not self._feed():
                break
        return None

    def _feed(self) -> bool:
        """Give h11 the next bytes of the message at hand, or the news that the peer closed; False if there is neither."""
        size = self._size_of_head() if self._h11.their_state in _BEFORE_A_HEAD else len(self._unread)
        if size:
            self._h11.receive_data(bytes(self._unread[:size]))
            del self._unread[:size]
            self._searched = 0
            return True
        if self._unread and self._saw_eof:
            raise _closed_early()
        if self._saw_eof:
            self._h11.receive_data(b"")
        return self._saw_eof

    def _size_of_head(self) -> int:
        """How many bytes at the beginning of `_unread` are a whole head; 0 while its end has not come."""
        end = _END_OF_HEAD.search(self._unread, self._searched)
        size = end.end() if end else len(self._unread)
        if size > self._max_head_bytes:
            limit = self._max_head_bytes
            raise HeadTooLargeError(f"the head is larger than max_head_bytes ({limit})", limit=limit)
        if self._unread and self._unread[0] <= 0x20:  # seen at the first byte: the head of a TLS peer would never end
            raise HTTPProtocolError("not HTTP/1.1: no head begins like this")
        if end is None:
            self._searched = max(size - 2, 0)
            return 0
        if _NOT_IN_A_HEAD.search(self._unread, 0, size):
            raise HTTPProtocolError("not HTTP/1.1: a control character in the head")
        return size

    def _read_head(self, event: h11.Request | h11.Response, *, has_body: bool = True) -> tuple[Headers, str]:
        """The header fields and the HTTP version; if they say so, the body is chunked from here on."""
        headers = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers)
        version = event.http_version.decode("ascii")
        if version not in ("1.0", "1.1"):
            raise HTTPProtocolError(f"HTTP/{version} is not spoken here", status_hint=505)
        if "transfer-encoding" in headers and has_body:
            self._chunks = ChunkedReader(max_chunk_head_bytes=self._max_chunk_head_bytes)
        return headers, version

    def _read_chunks(self, chunks: ChunkedReader) -> Data | EndOfMessage | None:
        data = chunks.read(self._unread)
        if data is None and self._saw_eof:
            raise _closed_early()
        if data is None:
            return None
        if data:
            return Data(data)
        self._chunks = None
        self._h11.receive_data(b"0\r\n\r\n")  # all that h11 sees of the body
        self._h11.next_event()
        return EndOfMessage()

    def _send(self, kind: Callable[..., h11.Event], **fields: Any) -> bytes:
        try:
            return self._h11.send(kind(**fields)) or b""
        except (h11.LocalProtocolError, UnicodeEncodeError) as exc:
            raise HTTPUsageError(str(exc)) from None


class ClientConnection(_Connection):
    """One connection to a server: one exchange after another, while `is_reusable`.

    `host` is the value of the `Host` field (with the port, unless it is the scheme's own). `max_head_bytes` bounds a
    response's head. A response's body has no bound here: it is handed on in pieces and never gathered.
    """

    def __init__(
        self,
        host: str,
        *,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_chunk_head_bytes: int = MAX_CHUNK_HEAD_BYTES,
    ) -> None:
        super().__init__(h11.CLIENT, max_head_bytes, max_chunk_head_bytes)
        self._host = host
        self._method = ""

    @property
    def is_reusable(self) -> bool:
        """Both messages are whole, neither side asked to close or did so, and no byte came that nobody had asked for."""
        return super().is_reusable and not (self._saw_eof or self._unread or self._h11.trailing_data[0])

    @property
    def is_nearly_reusable(self) -> bool:
        """Nothing is missing for `is_reusable`, or only the rest of a response's body that does not end with the connection."""
        if self._h11.their_state is not h11.SEND_BODY:
            return self.is_reusable
        return self._h11.our_state is h11.DONE and not (self._saw_eof or self._must_close)

    @property
    def trailing_data(self) -> bytes:
        """What came after the head of a 2xx answer to CONNECT: it belongs to the tunnel, and is no HTTP of the proxy's."""
        return bytes(self._unread)

    def send_request(self, method: str, target: str, headers: RawHeaders, body: bytes = b"") -> bytes:
        """The bytes of a whole request. `Host` and, where there is a body, `Content-Length` are added.

        Raises `HTTPUsageError` if a field is not allowed in a request, or the exchange before is not over.
        """
        if any(name.lower() == "transfer-encoding" for name, _ in headers):
            raise HTTPUsageError("transfer-encoding may not be given: a request is sent with its length")
        self._method = method
        fields = [("host", self._host), *headers]
        if body or method not in ("GET", "HEAD", "DELETE", "CONNECT"):
            fields.append(("content-length", str(len(body))))
        wire = self._send(h11.Request, method=method, target=target, headers=_to_wire(fields))
        return wire + (self._send(h11.Data, data=body) if body else b"") + self._send(h11.EndOfMessage)

    def next_event(self) -> Response | Data | EndOfMessage | None:
        """The next event, or None: more bytes are needed, or the exchange is over, or it has not begun.

        Raises `HTTPProtocolError` when the server breaks HTTP or closes in the middle of its answer (then `by_close` is
        set), and `HeadTooLargeError`.
        """
        return self._unless_broken(self._next_event)

    def _next_event(self) -> Response | Data | EndOfMessage | None:
        if self._h11.our_state is h11.IDLE:
            return None
        if self._chunks is not None:
            return self._read_chunks(self._chunks)
        event = self._pull()
        while isinstance(event, h11.InformationalResponse):
            event = self._pull()
        if isinstance(event, h11.Response):
            return self._response(event)
        if isinstance(event, h11.Data):
            return Data(bytes(event.data))
        return EndOfMessage() if isinstance(event, h11.EndOfMessage) else None

    def _response(self, event: h11.Response) -> Response:
        headers, version = self._read_head(event, has_body=_may_have_body(self._method, event.status_code))
        # RFC 9112, 6.3: "the Transfer-Encoding overrides the Content-Length. Such a message might indicate an attempt to
        # perform request smuggling". What follows it may not be what it seems.
        framings = sum(name in headers for name in ("transfer-encoding", "content-length"))
        # The same section, where there is neither: "the message body length is determined by the number of octets received
        # prior to the server closing the connection".
        if framings == 2 or (framings == 0 and _may_have_body(self._method, event.status_code)):
            self._must_close = True
        return Response(event.status_code, event.reason.decode("latin-1"), headers, version)


class ServerConnection(_Connection):
    """One connection from a client: one exchange after another, while `is_reusable`.

    `max_head_bytes` bounds a request's head, `max_chunk_head_bytes` that of one chunk, `max_body_bytes` its body;
    `max_pipelined_bytes` is where `is_full` turns true, so that the caller stops reading. After any error the next response
    says `Connection: close` by itself.
    """

    def __init__(
        self,
        *,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_pipelined_bytes: int = MAX_PIPELINED_BYTES,
        max_chunk_head_bytes: int = MAX_CHUNK_HEAD_BYTES,
    ) -> None:
        super().__init__(h11.SERVER, max_head_bytes, max_chunk_head_bytes)
        self._max_body_bytes = max_body_bytes
        self._max_pipelined_bytes = max_pipelined_bytes

    def _start(self) -> None:
        super()._start()
        self._body_bytes = 0
        self._method = ""
        self._has_no_body = False  # of the response at hand
        self._is_chunked = False  # likewise, while its body is being sent

    @property
    def is_waiting_for_100_continue(self) -> bool:
        """The client sent `Expect: 100-continue` and holds its body back until it is asked for (RFC 9110, 10.1.1)."""
        return self._h11.they_are_waiting_for_100_continue

    @property
    def is_full(self) -> bool:
        """More than `max_pipelined_bytes` came ahead of their turn: stop reading until the next cycle."""
        return not self._is_reading and len(self._unread) + len(self._h11.trailing_data[0]) > self._max_pipelined_bytes

    @property
    def is_idle(self) -> bool:
        """Between two exchanges: not a byte of the next request's head is here."""
        return self._h11.their_state is h11.IDLE and not self._unread

    @property
    def can_respond(self) -> bool:
        """No response head has been sent for the request at hand, and one may still be."""
        return self._h11.our_state in _BEFORE_A_HEAD

    def next_event(self) -> Request | Data | EndOfMessage | ConnectionClosed | None:
        """The next event, or None: more bytes are needed, or the answer at hand must be finished first.

        Raises `HTTPProtocolError` (answer its `status_hint`), `HeadTooLargeError` (answer 431) and `BodyTooLargeError`
        (answer 413; raised at once when `Content-Length` announces too much).
        """
        return self._unless_broken(self._next_event)

    def _next_event(self) -> Request | Data | EndOfMessage | ConnectionClosed | None:
        if self._chunks is not None:
            event = self._read_chunks(self._chunks)
            if isinstance(event, Data):
                self._count(len(event.data))
            return event
        came = self._pull()
        if isinstance(came, h11.Request):
            return self._request(came)
        if isinstance(came, h11.Data):
            return Data(bytes(came.data))
        if isinstance(came, h11.EndOfMessage):
            return EndOfMessage()
        return ConnectionClosed() if isinstance(came, h11.ConnectionClosed) else None

    def _request(self, event: h11.Request) -> Request:
        method = self._method = event.method.decode("ascii")
        headers, version = self._read_head(event)
        if method == "CONNECT":
            raise HTTPProtocolError("CONNECT is for proxies", status_hint=501)
        # RFC 9112, 6.3: "A server MAY reject a request that contains both Content-Length and Transfer-Encoding"; 6.1: with
        # HTTP/1.0, Transfer-Encoding makes the framing "faulty". Two servers in a row could see different requests.
        if "transfer-encoding" in headers and ("content-length" in headers or version == "1.0"):
            raise HTTPProtocolError("not HTTP/1.1: two readers could disagree about the length of the body")
        self._count(int(headers.get("content-length", "0")))
        return Request(method, event.target.decode("latin-1"), headers, version)

    def _count(self, body_bytes: int) -> None:
        self._body_bytes += body_bytes
        if self._body_bytes > self._max_body_bytes:
            limit = self._max_body_bytes
            raise BodyTooLargeError(f"the request's body is larger than max_body_bytes ({limit})", limit=limit)

    def send_continue(self) -> bytes:
        """The bytes of `100 Continue`, if the client waits for it; else nothing."""
        if not self.is_waiting_for_100_continue:
            return b""
        return self._send(h11.InformationalResponse, status_code=100, headers=[], reason=b"Continue")

    def send_response(self, status: int, headers: RawHeaders, *, close: bool = False) -> bytes:
        """The bytes of a response's head. `close` ends the connection after this response.

        Without `Content-Length` the body is chunked, or ends with the connection for an HTTP/1.0 client. Raises
        `HTTPUsageError`.
        """
        fields = list(headers)
        if close or self._must_close:
            fields = [(name, value) for name, value in fields if name.lower() != "connection"]
            fields.append(("connection", "close"))
        self._has_no_body = not _may_have_body(self._method, status)
        wire = self._send(h11.Response, status_code=status, headers=_to_wire(fields), reason=_reason(status))
        self._is_chunked = b"\r\ntransfer-encoding: chunked\r\n" in wire.lower()  # h11 chooses, and says so in the head
        return wire

    def send_data(self, data: bytes) -> bytes:
        """The bytes of a piece of the response's body; nothing for `HEAD`, 204 and 304. Raises `HTTPUsageError`."""
        if not data or self._has_no_body:
            return b""  # an empty chunk would end a chunked body (RFC 9112, 7.1)
        if self._is_chunked:
            # As h11 would, in a twentieth of its time: this is done once per event.
            return b"%x\r\n%b\r\n" % (len(data), data)
        return self._send(h11.Data, data=data)

    def send_end(self) -> bytes:
        """The bytes that end the response's body. Raises `HTTPUsageError` if less than `Content-Length` was sent."""
        self._is_chunked = False
        return self._send(h11.EndOfMessage)

    def _size_of_head(self) -> int:
        # RFC 9112, 2.2: "a server … SHOULD ignore at least one empty line (CRLF) received prior to the request-line."
        del self._unread[: len(self._unread) - len(self._unread.lstrip(b"\r\n"))]
        return super()._size_of_head()


def _may_have_body(method: str, status: int) -> bool:
    # RFC 9110, 6.4.1: "Responses to the HEAD request method never include content … All 204 (No Content) and 304 (Not
    # Modified) responses do not include content." 9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding header
    # fields received in a successful response to CONNECT."
    return method != "HEAD" and status not in (204, 304) and not (method == "CONNECT" and 200 <= status < 300)


def _closed_early() -> HTTPProtocolError:
    return HTTPProtocolError("the connection was closed before the message was whole", by_close=True)


def _to_wire(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise HTTPUsageError(f"not the name of a header field: {quote(name)}")
        if wrong := _NOT_IN_A_VALUE.search(value):
            # Only the character: the value may be a key, read from a file together with the end of its line.
            raise HTTPUsageError(f"the value of {name} may not have {wrong[0]!r} at position {wrong.start()}")
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Overloaded" if status == 529 else b""
