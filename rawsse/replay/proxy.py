"""A recording proxy: an ASGI application for any client that takes a base URL.

    async with Recorder("recordings") as recorder:
        async with RecordingProxy(recorder, "https://api.anthropic.com") as proxy:
            await serve(proxy, "127.0.0.1", 8002)           # for a client with ANTHROPIC_BASE_URL=http://127.0.0.1:8002

Requests are forwarded unchanged, credentials included; the proxy needs no key. Only hop-by-hop fields are removed (RFC 9110,
7.6.1), and the upstream is asked not to compress. Status, header fields and body are returned unchanged, each read as soon as
it arrives, but no faster than the client reads. Nothing is retried, and the only timeout is for connecting: the client has its
own.

When the client disconnects, the upstream exchange ends. When the upstream connection breaks, the client's connection is cut. An
upstream that does not answer is a 502, in the API's form. The exchange is driven by `rawsse.client.stream` and observed by the
recorder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote as percent_encoded

from rawsse.client.client import DEFAULT_BASE_URL
from rawsse.client.exchange import CallSettings, Exchange, Observer
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.pool import Pool, Pools
from rawsse.client.network.route import Proxies
from rawsse.client.network.tls import TLSContext
from rawsse.client.request import Endpoint, RequestData
from rawsse.client.retry import RetryPolicy, Timeouts
from rawsse.client.stream import Call
from rawsse.errors import APIError, UsageError
from rawsse.http1 import MAX_BODY_BYTES, Response
from rawsse.replay.answers import HOP_BY_HOP, error_answer
from rawsse.replay.player import read_body, send_answer, send_head
from rawsse.server import Receive, Scope, Send
from rawsse.server.asgi import unless_gone

NO_CLOCKS = Timeouts(head=None, silence=None, content=None)
"""The client disconnects when its own timeouts expire. Timeouts here would only change how its streams end."""

# Rewritten by our client (`Host`, length) or by `call` (coding); the server has handled 100-continue.
_REPLACED = frozenset({"accept-encoding", "content-length", "expect", "host"})


class BodyAnswer(Exchange):
    """A response whose body can be taken as it arrives. Take the available pieces before checking `error`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pieces: list[bytes] = []

    def take(self) -> list[bytes]:
        """The pieces of the body that have arrived since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)


class RawAnswer(BodyAnswer):
    """A response to forward: every status is an answer, and content codings are kept."""

    _is_raw = True


class RecordingProxy:
    """Forwards requests to `base_url` (by default ANTHROPIC_BASE_URL, or Anthropic's), observed by `recorder`.

    Environment variables (HTTPS_PROXY, SSL_CERT_FILE …) apply to the upstream connection. Call `aclose` when the server
    has stopped, or leave `async with`; the caller closes the recorder. Raises `ConfigurationError` if the URL is invalid.
    """

    def __init__(
        self, recorder: Observer, base_url: str | None = None, *, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or DEFAULT_BASE_URL
        self._endpoint = Endpoint(base_url, None, {})
        self._recorder = recorder
        self._proxies = Proxies.from_environment(os.environ)
        self._pools = Pools(lambda network: Pool(network, TLSContext()), AsyncioNetwork)
        self._max_body_bytes = max_body_bytes

    @property
    def base_url(self) -> str:
        """The URL that requests are forwarded to."""
        return self._endpoint.base_url

    async def __aenter__(self) -> RecordingProxy:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the open exchanges, and drop the connections to the upstream."""
        self._pools.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI 3 defines it."""
        if scope["type"] != "http":
            raise NotImplementedError(f"the recording proxy passes HTTP on, not {scope['type']}")
        body = await read_body(receive, send, self._max_body_bytes)
        if body is not None:
            await unless_gone(self._pass_on(scope, body, send), receive)

    def call(self, scope: Scope, body: bytes) -> Call[RawAnswer]:
        """The upstream call for a request. Raises `ConfigurationError`."""
        route = self._proxies.route_to(self._endpoint.origin)
        fields = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
        passed_on = (field for field in _without_hop(fields) if field[0] not in _REPLACED)
        request = RequestData(
            method=scope["method"],
            target=route.target(self._endpoint.prefix + _target(scope)),
            host_field=self._endpoint.origin.host_field,
            headers=(*passed_on, ("accept-encoding", "identity"), *route.proxy_fields()),
            body=body,
        )
        policy = RetryPolicy(max_retries=0)  # the client has its own policy
        settings = CallSettings(request, route, NO_CLOCKS, policy, observer=self._recorder)
        return Call(self._pools.here, settings, RawAnswer)

    async def _pass_on(self, scope: Scope, body: bytes, send: Send) -> None:
        try:
            with contextlib.closing(self.call(scope, body)) as call:
                await self._pass_back(await call.open(), call, scope, send)
        except UsageError as exc:
            await _refuse(send, 400, "invalid_request_error", f"the request cannot be passed on: {exc}")
        except APIError as exc:
            await _refuse(send, 502, "api_error", f"no answer from {self._endpoint.origin}: {exc.message}")

    async def _pass_back(self, answer: RawAnswer, call: Call[RawAnswer], scope: Scope, send: Send) -> None:
        response: Response = answer.response  # type: ignore[assignment]  # it is open
        await send_head(send, response.status, _without_hop(response.headers.raw))
        await send({"type": "http.response.body", "body": b"", "more_body": True})  # sends the head at once
        while True:
            for piece in answer.take():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if answer.is_over:
                break
            await call.more()
        call.release()
        if answer.error is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif (connection := (scope.get("extensions") or {}).get("rawsse.wire")) is not None:
            connection.end()  # the client gets all received bytes, but not the end of the body
        else:
            # The only way in ASGI: the server finds the response unfinished, and closes the connection.
            raise ConnectionAbortedError("the upstream broke off here, and so does the proxy")


def _target(scope: Scope) -> str:
    """The path and query as received, without the path at which the proxy is mounted."""
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else percent_encoded(scope["path"], safe="/:@!$&'()*+,;=~")
    path = path.removeprefix(scope.get("root_path", "").rstrip("/"))
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _without_hop(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fields without the hop-by-hop ones."""
    # RFC 9110, 7.6.1: "Intermediaries … MUST … remove fields … that are known to require removal before forwarding".
    # "Intermediaries MUST parse a received Connection header field before a message is forwarded and, for each
    # connection-option in this field, remove any header … field(s) from the message with the same name".
    given = list(fields)
    options = {option.strip().lower() for name, value in given if name == "connection" for option in value.split(",")}
    return [field for field in given if field[0] not in HOP_BY_HOP | options]


async def _refuse(send: Send, status: int, kind: str, message: str) -> None:
    await send_answer(send, error_answer(status, kind, message, may_retry=True))
