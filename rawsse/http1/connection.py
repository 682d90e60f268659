"""One HTTP/1.1 connection, in either role: bytes in and events out, messages in and bytes out (RFC 9112).

h11 parses the heads that are received: each gets its own h11 connection, after its size has been checked. A plain head
is parsed without h11, which takes a tenth of the time. The rest is done here: writing heads, framing bodies, and
deciding whether the connection can be reused. The package's docstring shows how to use both roles.

    headers = Headers([("Content-Type", "text/event-stream"), ("Vary", "Origin"), ("Vary", "Accept")])
    headers["content-type"], headers["vary"], headers.get_all("vary")      # "text/event-stream", "Origin, Accept", [...]
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from rawsse.errors import APIError, BodyTooLargeError, HeadTooLargeError, HTTPProtocolError, HTTPUsageError, quote
from rawsse.http1.codings import ChunkedReader, SizedReader

MAX_HEAD_BYTES = 32 * 1024
"""Start line and header fields together. Precedents: node 16 KiB, tomcat and nginx 8 KiB a line, h11 16 KiB. Twice that,
because gateways add fields to responses (CSP, cookies, traces)."""

MAX_BODY_BYTES = 32 * 1024 * 1024
"""A request's body. The Messages API accepts 32 MB."""

MAX_PIPELINED_BYTES = 64 * 1024
"""How much a server buffers of pipelined requests. Above that, the caller stops reading."""

RawHeaders = Sequence[tuple[str, str]]
Head = TypeVar("Head")

_END_OF_HEAD = re.compile(rb"\n\r?\n")
# RFC 9110, 5.6.2: token. 5.5: "field-content = field-vchar [ 1*( SP / HTAB / field-vchar ) field-vchar ]".
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
# The patterns below are compiled when they are first used, not when rawsse is imported.
# RFC 9112, 3.2: Host = uri-host [ ":" port ], as in RFC 3986, 3.2.2.
_HOST = r"(\[[0-9A-Fa-f:.]+\]|(?:[-A-Za-z0-9._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
# The origin-form: never a fragment. Browsers send more characters than RFC 3986 has (WHATWG URL, "query percent-encode set").
_ORIGIN_FORM = r"/[!$-;=?-~]*"
_ABSOLUTE_FORM = r"(?i)https?://([^/?]*)(.*)"

# A plain head, as nearly all are: HTTP/1.1, and each field value printable ASCII after one space.
_PLAIN_FIELDS = r"\r\n((?:[-0-9A-Za-z]+: (?! )[ -~]*(?<! )\r\n)+)\r\n"
_FIELD = r"([^:]+): (.*)\r\n"

# The next part of a message; "" after an error.
_HEAD, _BODY, _END, _NOTHING = "head", "body", "end", "nothing"


def host_name(host: str) -> str | None:
    """The name or address in the value of a `Host` field, in lower case, without port and brackets; None if it is invalid."""
    match = re.fullmatch(_HOST, host)
    name = match[1].lower() if match else None
    if name is None or not name.startswith("["):
        return name
    import ipaddress  # 1 ms, for few hosts

    try:
        return str(ipaddress.IPv6Address(name[1:-1]))
    except ValueError:
        return None


# --- Events ----------------------------------------------------------------------------------------------------------


class Headers(Mapping[str, str]):
    """The header fields of one message: a case-insensitive mapping, in the order received.

    The values of a repeated name are joined with `, ` (RFC 9110, 5.2); `get_all` returns them separately, and `raw` is
    the list of (lower-case name, value) pairs, which must not be changed.
    """

    __slots__ = ("_values", "raw")

    def __init__(self, raw: Iterable[tuple[str, str]] = ()) -> None:
        self.raw = [(name.lower(), value) for name, value in raw]
        self._values = dict(self.raw)
        if len(self._values) < len(self.raw):
            lists: dict[str, list[str]] = {name: [] for name in self._values}
            for name, value in self.raw:
                lists[name].append(value)
            self._values = {name: ", ".join(values) for name, values in lists.items()}

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`, in order."""
        return [value for each, value in self.raw if each == name.lower()]

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Names only: values hold keys and cookies, and a repr ends up in logs.
        return f"Headers({', '.join(self)})"


class Request(NamedTuple):
    """A request's head. `target` is in origin-form, or `*`; `http_version` is "1.0" or "1.1"."""

    method: str
    target: str
    headers: Headers
    http_version: str


class Response(NamedTuple):
    """A response's head. Interim responses (1xx) are skipped before it."""

    status: int
    reason: str
    headers: Headers
    http_version: str

    @property
    def status_code(self) -> int:
        """The same as `status`: the official SDK's name."""
        return self.status


class Data(NamedTuple):
    """A piece of the body: everything received since the last one. Its boundaries have no meaning."""

    data: bytes


class EndOfMessage(NamedTuple):
    """The body is complete."""

    kind: str = "end"  # an empty tuple would equal every other empty tuple


class ConnectionClosed(NamedTuple):
    """The peer closed the connection between two messages."""

    kind: str = "closed"


# --- Connections -----------------------------------------------------------------------------------------------------


class _Connection(Generic[Head]):
    """Common to both roles: receiving a message, and reuse. `Head` is the event that begins a message."""

    # RFC 9110, 5.5: "CR, LF, or NUL characters are invalid and dangerous", and of the others "recipients MAY retain such
    # characters for the sake of robustness": in a response they are retained. h11 also detects these, but in quadratic
    # time: 32 KiB of blanks and then a NUL take two seconds.
    _refused_bytes = b"\0\v\f"

    # The start line and the fields. An interim response is not plain.
    _plain_head = rf"HTTP/1\.1 ([2-9][0-9][0-9]) ([ -~]*){_PLAIN_FIELDS}"

    def __init__(self, max_head_bytes: int, max_body_bytes: int | None) -> None:
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._unread = b""  # received, but not yet returned in an event
        self._searched = 0  # how many bytes of `_unread` have been searched for the end of a head
        self._saw_eof = False
        self._must_close = False
        self._start()

    def _start(self) -> None:
        self._receiving = self._sending = _HEAD
        self._body: ChunkedReader | SizedReader = SizedReader(0)  # what is received
        self._body_bytes = 0  # of it
        self._method = ""

    @property
    def is_reusable(self) -> bool:
        """Whether both messages are complete and the connection may carry another exchange: call `start_next_cycle`."""
        return self._receiving is self._sending is _END and not self._must_close

    def start_next_cycle(self) -> None:
        """Prepare for the next exchange. Raises `HTTPUsageError` if not `is_reusable`."""
        if not self.is_reusable:
            raise HTTPUsageError("the current exchange is not complete, or the connection must be closed")
        self._start()

    def receive_data(self, data: bytes) -> None:
        """Receive bytes from the peer; `b""` means that it closed its side. Bytes after an error are dropped.

        Call `next_event` until it returns None before the next call: unread bytes are copied each time.
        """
        if not data:
            self._saw_eof = True
        elif not self._saw_eof and self._receiving is not _NOTHING:
            self._unread += data

    def next_event(self) -> Head | Data | EndOfMessage | None:
        """The next event of the peer's message, or None if more bytes are needed or this side has to send first.

        All received bytes of a body are one `Data`; `EndOfMessage` follows it. Raises `HTTPProtocolError` if the peer
        violates HTTP (`status_hint` is the status for a server's response) or closes before the end of its message
        (`by_close` is set), `HeadTooLargeError` (431), and in a server `BodyTooLargeError` (413; at once if
        `Content-Length` is too large). After an error nothing more is read.
        """
        head = None
        try:
            if self._receiving is _BODY:
                data, self._unread = self._body.read(self._unread)
                if data:
                    self._body_bytes += len(data)
                    self._check_size(self._body_bytes)
                    return tuple.__new__(Data, (data,))  # Data(data), without the Python function of a NamedTuple
                if data is not None or (self._saw_eof and self._body.left is None):
                    self._receiving = _END
                    return EndOfMessage()
            elif self._receiving is _HEAD:
                head = self._next_head()
            elif self._receiving is _NOTHING:
                raise HTTPProtocolError("the connection failed earlier")
            if head is None and self._saw_eof and self._receiving is not _END:
                raise HTTPProtocolError("the connection was closed before the end of the message", by_close=True)
            return head
        except APIError:
            self._receiving, self._must_close = _NOTHING, True
            raise

    @abstractmethod
    def _next_head(self) -> Head | None:
        """The head of the peer's next message."""

    def _take_head(self) -> bytes | None:
        """The next head with its empty line; None if it is incomplete."""
        unread = self._unread
        match = _END_OF_HEAD.search(unread, self._searched)
        size = match.end() if match else len(unread)
        if size > self._max_head_bytes:
            limit = self._max_head_bytes
            raise HeadTooLargeError(f"the head is larger than max_head_bytes ({limit})", limit=limit)
        if unread and unread[0] <= 0x20:  # rejected at the first byte: a peer that speaks TLS would never end its head
            raise HTTPProtocolError("not HTTP/1.1: invalid first byte of a head")
        if match is None:
            self._searched = max(size - 2, 0)
            return None
        head, self._unread, self._searched = unread[:size], unread[size:], 0
        # RFC 9112, 2.2: "A recipient of such a bare CR MUST consider that element to be invalid".
        if head.count(b"\r") != head.count(b"\r\n") or len(head.translate(None, self._refused_bytes)) != size:
            raise HTTPProtocolError("not HTTP/1.1: a control character in the head")
        return head

    def _parse(self, head: bytes, is_request: bool) -> tuple[str, str, Headers, str]:
        """The two parts of the start line (method and target, or status and reason), the fields, and the HTTP version."""
        if plain := re.fullmatch(self._plain_head, head.decode("latin-1")):
            first, second, fields = plain.groups()
            headers = Headers(re.findall(_FIELD, fields))
            length, coding = headers.get("content-length", "0"), headers.get("transfer-encoding", "chunked")
            is_framed = length.isdigit() and len(length) <= 20 and coding == "chunked"
            if is_framed and len(headers) == len(headers.raw) and ("host" in headers or not is_request):
                return first, second, headers, "1.1"
        import h11  # slow to import (a third of rawsse's own time), and plain heads do not need it

        parser = h11.Connection(h11.SERVER if is_request else h11.CLIENT)
        if not is_request:  # h11 accepts interim responses only after a request; any will do
            parser.send(h11.Request(method="GET", target="/", headers=[("host", "h11")]))
        try:
            parser.receive_data(head)
            event: Any = parser.next_event()
        except h11.RemoteProtocolError as exc:
            # h11 quotes the whole rejected line, which may contain a key: `illegal header line: bytearray(b'...')`.
            text = f"not HTTP/1.1: {str(exc).partition(': b')[0]}"
            raise HTTPProtocolError(text, status_hint=exc.error_status_hint) from None
        start = (event.method, event.target) if is_request else (b"%d" % event.status_code, event.reason)
        first, second, version = (part.decode("latin-1") for part in (*start, event.http_version))
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers])
        return first, second, headers, version

    def _note_version(self, version: str, headers: Headers) -> None:
        if version not in ("1.0", "1.1"):
            raise HTTPProtocolError(f"unsupported HTTP version: {version}", status_hint=505)
        # RFC 9112, 9.3: "If the "close" connection option is present (Section 9.6), the connection will not persist after the
        # current response". HTTP/1.0 could persist with "keep-alive", which is not supported here.
        if version == "1.0" or _has_option(headers, "connection", "close"):
            self._must_close = True

    def _expect_body(self, headers: Headers, default: int | None) -> None:
        """Determine the body's framing from the header fields; `default` is the length if they specify none."""
        self._receiving = _BODY
        if "transfer-encoding" in headers:  # chunked: h11 rejects all others
            self._body = ChunkedReader()
        else:
            length = headers.get("content-length")
            self._body = SizedReader(default if length is None else int(length))

    def _check_size(self, body_bytes: int) -> None:
        if (limit := self._max_body_bytes) is not None and body_bytes > limit:
            raise BodyTooLargeError(f"the request's body is larger than max_body_bytes ({limit})", limit=limit)


class ClientConnection(_Connection[Response]):
    """One connection to a server: one exchange after another, while `is_reusable`.

    `host` is the value of the `Host` field (with the port, unless it is the default of the scheme). `max_head_bytes` bounds a
    response's head. A response's body is not bounded here: it is returned in pieces and never accumulated. `next_event`
    returns `Response`, `Data`, `EndOfMessage`, or None.
    """

    def __init__(self, host: str, *, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        super().__init__(max_head_bytes, None)
        self._host = host

    @property
    def is_reusable(self) -> bool:
        """Whether both messages are complete, neither side has closed or asked to, and no byte follows the response."""
        return super().is_reusable and not (self._saw_eof or self._unread)

    @property
    def is_nearly_reusable(self) -> bool:
        """`is_reusable`, or only the end of the response's body is missing.

        True from the response's head on, unless the body ends with the connection or either side has closed or asked to. The
        caller must know that only the end is missing: after `message_stop`, that is the last chunk and the trailers. Pass
        late bytes to `receive_data`, and call `next_event` until it returns None. If the body has ended and nothing followed
        it, `is_reusable` is now true; if it was truncated, malformed or followed by anything, both are false.
        """
        if self._receiving is not _BODY:
            return self.is_reusable
        return not (self._saw_eof or self._must_close)

    def take_chunk(self, data: bytes) -> bytes | None:
        """A fast path for the most frequent read: the chunk's data, if `data` is one whole chunk of the response's body
        and nothing is pending. None: nothing has changed; pass `data` to `receive_data`."""
        size, _, rest = data.partition(b"\r\n")
        if size != b"%x" % (len(rest) - 2) or not rest.endswith(b"\r\n") or not self.is_between_chunks:
            return None
        return rest[:-2] or None  # without data it is the last chunk

    @property
    def is_between_chunks(self) -> bool:
        """Whether a chunk of the response's body, or its end, is next and no byte of it has arrived."""
        is_chunked = self._receiving is _BODY and type(self._body) is ChunkedReader
        return is_chunked and not (self._body.left or self._unread or self._saw_eof)

    @property
    def trailing_data(self) -> bytes:
        """The bytes after the head of a 2xx answer to CONNECT: they belong to the tunnel, not to the proxy's HTTP."""
        return self._unread

    def send_request(self, method: str, target: str, headers: RawHeaders, body: bytes = b"") -> bytes:
        """The bytes of a whole request. `Host` and, with a body, `Content-Length` are added.

        Raises `HTTPUsageError` for a field that is invalid or affects the framing, and before the end of the last exchange.
        """
        if self._sending is not _HEAD:
            raise HTTPUsageError("a request cannot be sent before the end of the current exchange")
        # RFC 9112, 3: request-line = method SP request-target SP HTTP-version
        if not _NAME.fullmatch(method) or not (target.isascii() and target.isprintable() and target) or " " in target:
            raise HTTPUsageError("invalid method or target of a request")  # not quoted: a query may hold a key
        given = Headers(headers)
        for name in ("host", "content-length", "transfer-encoding"):
            if name in given:
                raise HTTPUsageError(f"{name} cannot be given: the connection writes it")
        fields = [("host", self._host), *headers]
        if body or method not in ("GET", "HEAD", "DELETE", "CONNECT"):
            fields.append(("content-length", str(len(body))))
        head = _head(f"{method} {target} HTTP/1.1", fields)
        self._method = method
        self._sending = _END
        if _has_option(given, "connection", "close"):
            self._must_close = True
        return head + body

    def _next_head(self) -> Response | None:
        while self._sending is _END and (head := self._take_head()) is not None:
            status, reason, headers, version = self._parse(head, is_request=False)
            if int(status) >= 200:
                return self._response(int(status), reason, headers, version)
        return None

    def _response(self, status: int, reason: str, headers: Headers, version: str) -> Response:
        self._note_version(version, headers)
        if self._method == "CONNECT" and 200 <= status < 300:
            # RFC 9110, 9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding header fields received in a
            # successful response to CONNECT."
            self._receiving = _END
            self._must_close = True
        elif not _may_have_body(self._method, status):
            self._receiving = _BODY
        else:
            self._expect_body(headers, default=None)
        # RFC 9112, 6.3: "the Transfer-Encoding overrides the Content-Length. Such a message might indicate an attempt to
        # perform request smuggling". The bytes after it cannot be trusted. The same section, without either field: "the
        # message body length is determined by the number of octets received prior to the server closing the connection".
        if self._body.left is None or ("transfer-encoding" in headers and "content-length" in headers):
            self._must_close = True
        return Response(status, reason, headers, version)


class ServerConnection(_Connection[Request | ConnectionClosed]):
    """One connection from a client: one exchange after another, while `is_reusable`.

    `max_head_bytes` bounds a request's head, `max_body_bytes` its body; above `max_pipelined_bytes`, `is_full` is true and
    the caller stops reading. After any error the next response has `Connection: close`. `next_event` returns `Request`,
    `Data`, `EndOfMessage`, `ConnectionClosed`, or None.
    """

    _refused_bytes = bytes({*range(0x20), 0x7F} - {*b"\t\r\n"})
    _plain_head = rf"([A-Z]+) ([!-~]+) HTTP/1\.1{_PLAIN_FIELDS}"

    def __init__(
        self,
        *,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_pipelined_bytes: int = MAX_PIPELINED_BYTES,
    ) -> None:
        super().__init__(max_head_bytes, max_body_bytes)
        self._max_pipelined_bytes = max_pipelined_bytes

    def _start(self) -> None:
        super()._start()
        self._version = "1.0"  # of the request; until its head is received, the lowest that a client may support
        self._is_chunked = False  # the response, while its body is sent
        self._has_no_body = False  # the response
        self._unsent = math.inf  # remaining bytes of a response's body with a length
        self._expects_continue = False

    @property
    def is_full(self) -> bool:
        """Whether more than `max_pipelined_bytes` are buffered: stop reading until the next cycle."""
        return self._receiving is _END and len(self._unread) > self._max_pipelined_bytes

    @property
    def is_idle(self) -> bool:
        """Whether no byte of the next request has been received between two exchanges."""
        return self._receiving is _HEAD and not self._unread

    @property
    def can_respond(self) -> bool:
        """Whether no response head has been sent for the current request."""
        return self._sending is _HEAD

    def _next_head(self) -> Request | ConnectionClosed | None:
        # RFC 9112, 2.2: "a server … SHOULD ignore at least one empty line (CRLF) received prior to the request-line."
        self._unread = self._unread.lstrip(b"\r\n")
        if self._saw_eof and not self._unread:
            self._receiving = _END
            self._must_close = True
            return ConnectionClosed()
        head = self._take_head()
        if head is not None and (b"\n " in head or b"\n\t" in head):  # RFC 9112, 5.2: obs-fold
            raise HTTPProtocolError("not HTTP/1.1: a header line that begins with a blank")
        return None if head is None else self._request(*self._parse(head, is_request=True))

    def _request(self, method: str, target: str, headers: Headers, version: str) -> Request:
        self._method, self._version = method, version
        self._note_version(version, headers)
        if method == "CONNECT":
            raise HTTPProtocolError("CONNECT is for proxies", status_hint=501)
        target, headers = _located(method, target, headers)
        # RFC 9112, 6.3: "A server MAY reject a request that contains both Content-Length and Transfer-Encoding"; 6.1: with
        # HTTP/1.0, Transfer-Encoding makes the framing "faulty". Two servers in a row could see different requests.
        if "transfer-encoding" in headers and ("content-length" in headers or version == "1.0"):
            raise HTTPProtocolError("not HTTP/1.1: ambiguous length of the body")
        self._expect_body(headers, default=0)
        self._check_size(self._body.left or 0)
        self._expects_continue = version == "1.1" and _has_option(headers, "expect", "100-continue")
        return Request(method, target, headers, version)

    def send_continue(self) -> bytes:
        """The bytes of `100 Continue` if the client waits for it before its body (RFC 9110, 10.1.1), else nothing."""
        is_waiting = self._expects_continue and not self._body_bytes and self._receiving is _BODY and self.can_respond
        self._expects_continue = False
        return b"HTTP/1.1 100 Continue\r\n\r\n" if is_waiting else b""

    def send_response(self, status: int, headers: RawHeaders, *, close: bool = False) -> bytes:
        """The bytes of a response's head. `close` ends the connection after this response.

        Without `Content-Length` the body is chunked, or ends with the connection for an HTTP/1.0 client. Raises
        `HTTPUsageError`.
        """
        if self._sending is not _HEAD:
            raise HTTPUsageError("a response head has already been sent")
        if not 200 <= status < 1000:
            raise HTTPUsageError(f"invalid status of a response: {status}")
        given = Headers(headers)
        if given.get("transfer-encoding", "chunked").lower() != "chunked":
            raise HTTPUsageError("unsupported Transfer-Encoding: only chunked can be sent")
        length = None if "transfer-encoding" in given else given.get("content-length")
        if length is not None and not (length.isascii() and length.isdigit()):
            raise HTTPUsageError(f"invalid Content-Length: {quote(length)}")
        has_no_length = length is None and status not in (204, 304)
        is_chunked = has_no_length and self._version == "1.1"
        must_close = close or self._must_close or _has_option(given, "connection", "close")
        must_close = must_close or (has_no_length and not is_chunked)  # the body ends with the connection
        is_dropped = {"connection": must_close, "transfer-encoding": length is None, "content-length": length is None}
        fields = [(name, value) for name, value in headers if not is_dropped.get(name.lower())]
        fields += [("connection", "close")] if must_close else []
        fields += [("Transfer-Encoding", "chunked")] if is_chunked else []
        wire = _head(f"HTTP/1.1 {status} {_reason(status)}", fields)
        self._must_close = must_close
        self._sending = _BODY
        self._has_no_body = not _may_have_body(self._method, status)
        self._is_chunked = is_chunked and not self._has_no_body
        self._unsent = math.inf if length is None or self._has_no_body else int(length)
        return wire

    def send_data(self, data: bytes) -> bytes:
        """The bytes of a piece of the response's body; nothing for `HEAD`, 204 and 304. Raises `HTTPUsageError`."""
        if self._is_chunked and data:  # an empty chunk would end the body (RFC 9112, 7.1)
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._sending is not _BODY:
            raise HTTPUsageError("data cannot be sent before the head of the response or after its end")
        if self._has_no_body:
            return b""
        if len(data) > self._unsent:
            raise HTTPUsageError("Too much data for declared Content-Length")
        self._unsent -= len(data)
        return data

    def send_end(self) -> bytes:
        """The bytes that end the response's body. Raises `HTTPUsageError` if less than `Content-Length` was sent."""
        if self._sending is not _BODY:
            raise HTTPUsageError("the end cannot be sent before the head of the response or twice")
        if 0 < self._unsent < math.inf:
            raise HTTPUsageError("Too little data for declared Content-Length")
        is_chunked, self._is_chunked = self._is_chunked, False
        self._sending = _END
        return b"0\r\n\r\n" if is_chunked else b""


def _located(method: str, target: str, headers: Headers) -> tuple[str, Headers]:
    """The target in origin-form or `*`, and the fields with the request's host (RFC 9112, 3.2 and 3.3)."""
    if host_name(headers.get("host", "")) is None:
        raise HTTPProtocolError("not HTTP/1.1: invalid Host")
    if absolute := re.fullmatch(_ABSOLUTE_FORM, target):
        # "the origin server MUST ignore the received Host header field (if any) and instead use the host information of the
        # request-target". RFC 9110, 4.2: one that is empty, or has a user name, is an error.
        host, target = absolute.groups()
        if not host_name(host):
            raise HTTPProtocolError("not HTTP/1.1: invalid host in the request-target")
        headers = Headers([("host", host), *(field for field in headers.raw if field[0] != "host")])
        if not target.startswith("/"):
            target = "*" if method == "OPTIONS" and not target else f"/{target}"
    if not re.fullmatch(_ORIGIN_FORM, target) and (method, target) != ("OPTIONS", "*"):
        raise HTTPProtocolError("not HTTP/1.1: invalid request-target")
    return target, headers


def _may_have_body(method: str, status: int) -> bool:
    # RFC 9110, 6.4.1: "Responses to the HEAD request method never include content … All 204 (No Content) and 304 (Not
    # Modified) responses do not include content."
    return method != "HEAD" and status not in (204, 304)


def _has_option(headers: Headers, name: str, option: str) -> bool:
    """Whether a field that is a comma-separated list of case-insensitive options has this one."""
    options = headers.get(name)
    return options is not None and option in [item.strip() for item in options.lower().split(",")]


def _head(start_line: str, fields: RawHeaders) -> bytes:
    for name, value in fields:
        if not _NAME.fullmatch(name):
            raise HTTPUsageError(f"invalid name of a header field: {quote(name)}")
        if not _VALUE.fullmatch(value):
            # Only one character is quoted: the value may be a key that was read from a file with its line end.
            if wrong := re.search(r"[^\t -~\x80-\xff]", value):
                raise HTTPUsageError(f"the value of {name} may not have {wrong[0]!r} at position {wrong.start()}")
            raise HTTPUsageError(f"the value of {name} may not begin or end with a blank")
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    return f"{start_line}\r\n{''.join(lines)}\r\n".encode("latin-1")


def _reason(status: int) -> str:
    from http import HTTPStatus  # takes 0.6 ms, and only servers need it

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == 529 else ""
