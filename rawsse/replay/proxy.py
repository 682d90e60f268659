"""A recording proxy: an ASGI application that any client can be pointed at by its base URL.


    async with Recorder("recordings") as recorder:
        async with RecordingProxy(recorder, "https://api.anthropic.com") as proxy:
            await serve(proxy, "127.0.0.1", 8002)           # for a client with ANTHROPIC_BASE_URL=http://127.0.0.1:8002

Requests go on as they came, credentials and all; it needs no key of its own. Only what concerns one connection stays here (RFC
9110, 7.6.1), and upstream is asked for an answer that is not compressed. Status, header fields and body come back as they are,
each read as soon as it has come, and no faster than the client takes them. Nothing is tried again, and no clock runs but that
of connecting: the client has its own.

A client that leaves ends the exchange with the upstream. Where the upstream breaks off, the client's connection is cut, too. An
upstream that gives no answer at all is a 502, in the API's form.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote as percent_encoded

from rawsse.client.call import Call
from rawsse.client.client import DEFAULT_BASE_URL
from rawsse.client.exchange import CallSettings, Exchange, Observer
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.certificates import TLSContext
from rawsse.client.network.pool import Pool, Pools
from rawsse.client.network.route import Proxies
from rawsse.client.request import Endpoint, RequestData
from rawsse.client.retry import RetryPolicy
from rawsse.client.timeouts import Timeouts
from rawsse.errors import APIError, UsageError
from rawsse.http1 import MAX_BODY_BYTES
from rawsse.server import Receive, Scope, Send

NO_CLOCKS = Timeouts(head=None, silence=None, content=None)
"""The client has clocks, and leaves when they run out. Ours would only make other endings of its."""

# RFC 9110, 7.6.1: "Intermediaries … MUST … remove fields … that are known to require removal before forwarding".
_OF_A_CONNECTION = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Written anew: `Host` and the length by our client, the coding by us. 100-continue has been answered by the server.
_WRITTEN_ANEW = frozenset({"accept-encoding", "content-length", "expect", "host"})

Fields = list[tuple[str, str]]


class BodyAnswer(Exchange):
    """A response whose body is given out as it comes; the caller takes what is there before it looks at `error`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pieces: list[bytes] = []

    def take(self) -> list[bytes]:
        """The pieces of the body that have come since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)


class RawAnswer(BodyAnswer):
    """A response that is passed on: every status is an answer, and content codings are not undone."""

    _is_raw = True


class RecordingProxy:
    """Passes requests on to `base_url`, with `recorder` as the witness.

    `base_url` is ANTHROPIC_BASE_URL, or Anthropic's, by default. `proxies` and `tls` are how the upstream is reached: as the
    environment says (HTTPS_PROXY, SSL_CERT_FILE …), unless they are given. Call `aclose` when the server has stopped,
    or leave `async with`; the recorder is its owner's to close. Raises `ConfigurationError` if the URL is none.
    """

    def __init__(
        self,
        recorder: Observer,
        base_url: str | None = None,
        *,
        proxies: Proxies | None = None,
        tls: TLSContext | None = None,
        timeouts: Timeouts = NO_CLOCKS,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or DEFAULT_BASE_URL
        self._endpoint = Endpoint.of(base_url, None, {})
        self._recorder = recorder
        self._proxies = Proxies.from_environment(os.environ) if proxies is None else proxies
        self._pools = Pools(lambda network: Pool(network, tls or TLSContext()), AsyncioNetwork)
        self._timeouts = timeouts
        self._max_body_bytes = max_body_bytes
        self._calls: set[Call[RawAnswer]] = set()

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._endpoint.base_url

    async def __aenter__(self) -> RecordingProxy:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is under way, and drop the connections to the upstream."""
        for call in list(self._calls):
            call.close()
        self._pools.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            raise NotImplementedError(f"the recording proxy passes HTTP on, not {scope['type']}")
        body = await self._read_body(receive)
        if body is None:
            return  # the client left while it was asking
        if len(body) > self._max_body_bytes:
            text = f"the request's body is larger than max_body_bytes ({self._max_body_bytes})"
            await _refuse(send, 413, "request_too_large", text)
            return
        await _Passage(self, scope, receive, send, body).go()

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The request's body, or a little more of it than is allowed."""
        body, has_more = bytearray(), True
        while has_more and len(body) <= self._max_body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        return bytes(body)

    def call(self, scope: Scope, body: bytes) -> Call[RawAnswer]:
        """The call of the upstream for a request. Raises `ConfigurationError`."""
        route = self._proxies.route_to(self._endpoint.origin)
        request = RequestData(
            method=scope["method"],
            target=route.target(self._endpoint.prefix + _target(scope)),
            host_field=self._endpoint.origin.host_field,
            headers=(*_passed_on(_decoded(scope["headers"])), ("accept-encoding", "identity"), *route.proxy_fields()),
            body=body,
        )

        policy = RetryPolicy(max_retries=0)  # the client has a policy
        settings = CallSettings(request, route, self._timeouts, policy, observer=self._recorder)
        return Call(self._pools.here, settings, RawAnswer)


class _Passage:
    """One request on its way, and its answer on the way back."""

    def __init__(self, proxy: RecordingProxy, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        self._proxy = proxy
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body = body
        self._call: Call[RawAnswer] | None = None
        self._has_left = False

    async def go(self) -> None:
        """Pass the request on, and the answer back; stop when the client leaves."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._pass_on()
        finally:
            self._drop()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        self._drop()

    def _drop(self) -> None:
        if self._call is not None:
            self._call.close()
            self._proxy._calls.discard(self._call)

    async def _pass_on(self) -> None:
        try:
            self._call = self._proxy.call(self._scope, self._body)
            self._proxy._calls.add(self._call)
            answer = await self._call.open()
        except UsageError as exc:
            await _refuse(self._send, 400, "invalid_request_error", f"the request cannot be passed on: {exc}")
        except APIError as exc:
            if not self._has_left:
                text = f"no answer from {self._proxy._endpoint.origin}: {exc.message}"
                await _refuse(self._send, 502, "api_error", text)
        else:
            await self._pass_back(self._call, answer)

    async def _pass_back(self, call: Call[RawAnswer], answer: RawAnswer) -> None:
        assert answer.response is not None  # noqa: S101 - it is open
        fields = _returned(answer.response.headers.raw)
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]
        await self._send({"type": "http.response.start", "status": answer.response.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})  # the head does not wait
        while True:
            for piece in answer.take():
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            if answer.is_over:
                break
            await call.more()
        call.release()
        if answer.error is None:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif not self._has_left:
            await self._cut()

    async def _cut(self) -> None:
        """Let the client see that this is not the end of the body: after all that came of it."""
        connection = (self._scope.get("extensions") or {}).get("rawsse.wire")
        if connection is None:
            # All that ASGI has for this: the server finds the response unfinished and closes the connection.
            raise ConnectionAbortedError("the upstream broke off here, and so does the proxy")
        connection.end()


def _target(scope: Scope) -> str:
    """The path and query as they came, less the path that the proxy may be mounted at."""
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else percent_encoded(scope["path"], safe="/:@!$&'()*+,;=~")
    path = path.removeprefix(scope.get("root_path", "").rstrip("/"))
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]


def _passed_on(fields: Fields) -> Iterator[tuple[str, str]]:
    """What of a request's header goes to the upstream."""
    return (field for field in _returned(fields) if field[0] not in _WRITTEN_ANEW)


def _returned(fields: Fields) -> Iterator[tuple[str, str]]:
    """What of a header concerns more than one connection."""
    # "Intermediaries MUST parse a received Connection header field before a message is forwarded and, for each
    # connection-option in this field, remove any header … field(s) from the message with the same name".
    options = {option.strip().lower() for name, value in fields if name == "connection" for option in value.split(",")}
    return (field for field in fields if field[0] not in _OF_A_CONNECTION | options)


async def _refuse(send: Send, status: int, kind: str, message: str) -> None:
    """Answer with an error of our own, in the API's form."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
