"""`AsyncClient`: from arguments to a request of the Messages API.

This file knows how a call becomes a request: URL, header fields, JSON, keys, environment variables. It refuses to know
sockets and events.

    async with AsyncClient() as client:              # the key from ANTHROPIC_API_KEY
        async with client.messages.stream(model=…, max_tokens=…, messages=[…]) as stream:
            async for text in stream.text_stream: ...

The key goes into one header field of a request and nowhere else: no log, no repr, no error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload
from urllib.parse import urlsplit

from rawsse.client.clocks import Timeouts
from rawsse.client.exchange import Exchange, RequestData
from rawsse.client.net import Connect, TLSContext, connect
from rawsse.client.route import Origin, Route
from rawsse.client.stream import EventStream, MessageStream
from rawsse.errors import ConfigurationError, quote
from rawsse.http1 import MAX_HEAD_BYTES
from rawsse.messages.content import Message
from rawsse.messages.lens import Lens
from rawsse.messages.message import MAX_MESSAGE_BYTES, MessageBuilder
from rawsse.sse import MAX_EVENT_BYTES

if TYPE_CHECKING:
    import ssl

__all__ = ["ANTHROPIC_VERSION", "AsyncClient", "AsyncMessages"]

ANTHROPIC_VERSION = "2023-06-01"
"""The API version that is asked for by default: every gateway takes it."""

DEFAULT_BASE_URL = "https://api.anthropic.com"

# RFC 3986, 2: what may stand in a URL, less the delimiters that a base URL has no use for.
_URL_CHARS = re.compile(r"[A-Za-z0-9._~:@/\[\]!$&'()*+,;=%-]*")


class AsyncClient:
    """Talks to the Messages API, or to anything that speaks it at `base_url` (a path in it is kept).

    Arguments left out come from the environment: `ANTHROPIC_API_KEY`, else `ANTHROPIC_AUTH_TOKEN`, and `ANTHROPIC_BASE_URL`.
    `timeouts` are the five clocks; `default_headers` go with every request. `strict=False` reads streams whose events come
    in an order that the API does not allow, as some gateways send them. `ssl_context` replaces certifi's certificates;
    `connect` replaces the network (tests give `FakeStream`s). The three limits are in bytes.

    Use it as `async with AsyncClient() as client`, or call `aclose()`.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        default_headers: Mapping[str, str] | None = None,
        strict: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        connect: Connect = connect,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        if api_key is None and auth_token is None:
            api_key = os.environ.get("ANTHROPIC_API_KEY") or None
            auth_token = None if api_key else os.environ.get("ANTHROPIC_AUTH_TOKEN") or None
        self._credential = _credential(api_key, auth_token)
        self._base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or DEFAULT_BASE_URL
        self._origin, self._prefix = _split_base_url(self._base_url)
        self._timeouts = timeouts or Timeouts()
        self._headers = {name.lower(): value for name, value in (default_headers or {}).items()}
        self._strict = strict
        self._tls = TLSContext(ssl_context)
        self._connect = connect
        self._max_head_bytes = max_head_bytes
        self._max_event_bytes = max_event_bytes
        self._max_message_bytes = max_message_bytes
        self._is_closed = False
        self.messages = AsyncMessages(self)

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._base_url

    @property
    def has_credential(self) -> bool:
        """There is a key or a token."""
        return self._credential is not None

    def __repr__(self) -> str:
        key = "with a key" if self.has_credential else "without a key"
        return f"<AsyncClient for {self._origin}{self._prefix}, {key}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """No further calls. Streams that are open stay open until they end or are closed."""
        self._is_closed = True

    # Requests ------------------------------------------------------------------------------------------------------

    def _exchange(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None, timeouts: Timeouts | None
    ) -> Exchange:
        if self._is_closed:
            raise RuntimeError("the client is closed")
        request = RequestData(
            method="POST",
            target=self._prefix + path,
            host_field=self._origin.host_field,
            headers=self._header_fields(headers or {}),
            body=_encode(body),
        )
        return Exchange(
            lambda: self._connect(Route(self._origin), self._tls),
            request,
            timeouts or self._timeouts,
            max_head_bytes=self._max_head_bytes,
        )

    def _header_fields(self, extra: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        fields = {
            "content-type": "application/json",
            "accept": "application/json",  # as the official SDKs send it, on streaming requests too
            "accept-encoding": "identity",  # a compressed event stream comes late
            "user-agent": "rawsse",
            "anthropic-version": ANTHROPIC_VERSION,
            **self._headers,
            **{name.lower(): value for name, value in extra.items()},
        }
        if "x-api-key" not in fields and "authorization" not in fields:
            if self._credential is None:
                raise ConfigurationError(
                    "no key: set the environment variable ANTHROPIC_API_KEY, or give api_key (or auth_token)"
                )
            fields.update([self._credential])
        for name, value in fields.items():
            _check_field(name, value)
        return tuple(fields.items())

    def _builder(self, strict: bool | None = None) -> MessageBuilder:
        return MessageBuilder(
            strict=self._strict if strict is None else strict, max_message_bytes=self._max_message_bytes
        )


class AsyncMessages:
    """`client.messages`: the calls of the Messages API.

    Every call takes the fields of the request's body as arguments, known or not; None leaves a field out. Beside them:
    `extra_headers`, `extra_body` (fields that are named like an argument of ours), `betas` and `timeouts`.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def stream(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        betas: Sequence[str] | None = None,
        timeouts: Timeouts | None = None,
        **fields: Any,
    ) -> MessageStream:
        """A stream of the answer. The request is sent by `async with`, which raises `APIError` if it is refused.

        The caller must leave the `async with` block, or `close()` the stream.
        """
        body = {"model": model, "max_tokens": max_tokens, "messages": list(messages), **fields, **(extra_body or {})}
        headers = _with_betas(extra_headers, betas)
        exchange = self._client._exchange("/v1/messages", {**body, "stream": True}, headers, timeouts)
        return MessageStream(exchange, self._client._builder(), max_event_bytes=self._client._max_event_bytes)

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[False] = False,
        **arguments: Any,
    ) -> Message: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[True],
        **arguments: Any,
    ) -> EventStream: ...

    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: bool = False,
        **arguments: Any,
    ) -> Message | EventStream:
        """The whole answer; with `stream=True`, its events. Arguments and errors as for `stream`.

        The whole answer is streamed too and folded here: a long one needs no long timeout, and a cut one is not lost.
        Events must be read to their end, or the stream be closed.
        """
        opened = self.stream(model=model, max_tokens=max_tokens, messages=messages, **arguments)
        if not stream:
            async with opened:
                return await opened.get_final_message()
        events = EventStream(opened._exchange, opened._builder, max_event_bytes=self._client._max_event_bytes)
        await events._open()
        return events

    def events(
        self,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        strict: bool | None = None,
    ) -> EventStream:
        """The events of the answer to a request whose `body` is given whole, known fields or not: for whoever passes it on.

        As with `stream`, the request is sent by `async with`. `strict` is that of the client if None.
        """
        exchange = self._client._exchange("/v1/messages", {**body, "stream": True}, headers, timeouts)
        return EventStream(exchange, self._client._builder(strict), max_event_bytes=self._client._max_event_bytes)

    async def count_tokens(
        self,
        *,
        model: str,
        messages: Iterable[Mapping[str, Any]],
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        betas: Sequence[str] | None = None,
        timeouts: Timeouts | None = None,
        **fields: Any,
    ) -> Lens:
        """How many input tokens a request would have: an object with `input_tokens`. Raises `APIError`."""
        body = {"model": model, "messages": list(messages), **fields, **(extra_body or {})}
        headers = _with_betas(extra_headers, betas)
        exchange = self._client._exchange("/v1/messages/count_tokens", body, headers, timeouts)
        await exchange.open()
        return Lens(await exchange.read_object())


# --- From arguments to bytes ---------------------------------------------------------------------------------------


def _credential(api_key: str | None, auth_token: str | None) -> tuple[str, str] | None:
    if api_key is not None and auth_token is not None:
        raise ConfigurationError("give api_key or auth_token, not both")
    # A key that was read from a file often has the end of its line with it. One that is blank is none.
    key, token = (api_key or "").strip(), (auth_token or "").strip()
    if key:
        return ("x-api-key", key)
    return ("authorization", f"Bearer {token}") if token else None


def _split_base_url(url: str) -> tuple[Origin, str]:
    """The origin and the path prefix, without a slash at its end."""
    if "@" in url.partition("//")[2].partition("/")[0] or "?" in url or "#" in url:
        # Looked at first, and not quoted: what stands there may be a password.
        raise ConfigurationError("the base URL may not have a user name (@), a query (?) or a fragment (#)")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as exc:
        raise ConfigurationError(f"the base URL is no URL ({exc}): {quote(url)}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"the base URL must begin with http:// or https:// and a host: {quote(url)}")
    if not _URL_CHARS.fullmatch(host + parts.path):
        raise ConfigurationError(f"the base URL has a character that must be %-encoded: {quote(url)}")
    own_port = {"http": 80, "https": 443}[parts.scheme]
    return Origin(parts.scheme, host, own_port if port is None else port), parts.path.rstrip("/")


def _encode(body: Mapping[str, Any]) -> bytes:
    """The JSON of a request as the official SDK writes it: compact, UTF-8, without NaN; arguments that are None left out."""
    fields = {name: value for name, value in body.items() if value is not None}
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigurationError(f"the request cannot be written as JSON: {exc}") from None


def _plain(value: object) -> object:
    if isinstance(value, Lens):  # an answer's content may be sent back as it is
        return value.raw
    raise TypeError(f"{quote(repr(value))} is no JSON value")


def _with_betas(headers: Mapping[str, str] | None, betas: Sequence[str] | None) -> dict[str, str]:
    """`betas` as their header field; a field of the caller's own wins."""
    fields = {"anthropic-beta": ",".join(betas)} if betas else {}
    return {**fields, **{name.lower(): value for name, value in (headers or {}).items()}}


def _check_field(name: str, value: object) -> None:
    # The value is never quoted: it may be the key.
    if not isinstance(value, str):
        raise ConfigurationError(f"the header field {quote(name)} must be a string, not {type(value).__name__}")
    if not value.isascii() or not value.isprintable():
        raise ConfigurationError(f"the header field {quote(name)} has a character that HTTP does not allow")
