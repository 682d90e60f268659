"""`AsyncClient`: keys, options and connections.

async with AsyncClient() as client:              # the key from ANTHROPIC_API_KEY
    async with client.messages.stream(model=…, max_tokens=…, messages=[…]) as stream:
        async for text in stream.text_stream: ...
"""

from __future__ import annotations

import copy
import os
import time
import weakref
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rawsse.client.exchange import MAX_JSON_BYTES, CallSettings, Exchange, JSONAnswer, Observer
from rawsse.client.network.asyncio_network import AsyncioNetwork
from rawsse.client.network.connect import Connector, Network
from rawsse.client.network.pool import Pool, PoolLimits, Pools
from rawsse.client.network.route import Proxies, Proxy, Route
from rawsse.client.network.tls import TLSContext
from rawsse.client.request import Endpoint, Query, RequestData, credential, read_custom_headers, typed
from rawsse.client.resources import AsyncBeta, AsyncMessages, AsyncModels
from rawsse.client.retry import NOT_GIVEN, NotGiven, RetryPolicy, Timeouts
from rawsse.client.stream import Call
from rawsse.errors import ConfigurationError, Hidden
from rawsse.http1 import MAX_HEAD_BYTES
from rawsse.messages.message import MAX_MESSAGE_BYTES
from rawsse.sse import MAX_EVENT_BYTES

if TYPE_CHECKING:
    import ssl

    from rawsse.client.tools.conversation import Conversation

DEFAULT_BASE_URL = "https://api.anthropic.com"


def _random() -> float:
    """A number from 0 up to, but not including, 1."""
    import random  # takes a millisecond to load, and retries are rare

    return random.random()  # noqa: S311 - it spreads retries


class AsyncClient:
    """A client of the Messages API, or of a compatible server at `base_url` (whose path is kept).

    Arguments left out are read from the environment: `ANTHROPIC_API_KEY`, else `ANTHROPIC_AUTH_TOKEN`; `ANTHROPIC_BASE_URL`;
    `ANTHROPIC_CUSTOM_HEADERS` (lines `Name: value`; `default_headers` take precedence).

    Time: `timeouts` are the five clocks. `timeout`, as in the official SDK, is one number of seconds (`Timeouts.of`), or
    None for no timeout. `max_retries` is how often a transient failure is retried before content has arrived;
    `retry_policy` also sets the waits.

    The network: `limits` are the pool's. `proxy` is a URL; the default is taken from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`
    and `NO_PROXY`. `ssl_context` replaces the certificates in `SSL_CERT_FILE` and `SSL_CERT_DIR`, or else certifi's.
    `trust_env=False` ignores these variables. `connect` replaces the network and the proxies of the environment (in tests:
    `rawsse.replay.FakeNetwork`).

    `recorder` records the exchanges, or only the failed ones: see `rawsse.replay.Recorder`. Its files are complete when the
    client is closed.

    `strict=False` accepts streams with events in an invalid order, as some gateways send them. The `max_…_bytes` limit what
    a server may send. `now` (POSIX time) and `chance` (0 to 1) are for tests.

    Use it as `async with AsyncClient() as client`, or call `aclose()`. One client is enough for a program: its connections are
    pooled.
    """

    _network: ClassVar[type[Network]] = AsyncioNetwork  # the blocking client has another

    def __init__(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        timeout: float | Timeouts | NotGiven | None = NOT_GIVEN,
        max_retries: int | None = None,
        retry_policy: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        strict: bool = True,
        proxy: str | Proxy | None = None,
        trust_env: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        limits: PoolLimits | None = None,
        connect: Callable[[Network], Connector] | None = None,
        recorder: Observer | None = None,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_json_bytes: int = MAX_JSON_BYTES,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = _random,
    ) -> None:
        if api_key is None and auth_token is None:
            api_key = os.environ.get("ANTHROPIC_API_KEY") or None
            auth_token = None if api_key else os.environ.get("ANTHROPIC_AUTH_TOKEN") or None
        api_key, auth_token, proxy = map(Hidden.of, (api_key, auth_token, proxy))
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or DEFAULT_BASE_URL
        default_headers = typed("default_headers", default_headers, Mapping)
        headers = {**read_custom_headers(os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "")), **(default_headers or {})}
        self._endpoint = Endpoint(base_url, credential(api_key, auth_token), headers)
        settings = CallSettings(
            request=RequestData("GET", "", "", ()),  # replaced for each call, as is the route
            route=Route(self._endpoint.origin),
            observer=recorder,
            max_head_bytes=max_head_bytes,
            max_event_bytes=max_event_bytes,
            max_message_bytes=max_message_bytes,
            max_json_bytes=max_json_bytes,
            now=now,
            chance=chance,
        )
        self._settings = _changed(settings, timeouts, timeout, max_retries, strict, retry_policy)
        proxy = typed("proxy", Proxy.from_url(proxy) if isinstance(proxy, str) else proxy, Proxy)
        environ = os.environ if trust_env and connect is None else {}
        self._proxies = Proxies(proxy) if proxy else Proxies.from_environment(environ)
        limits = typed("limits", limits, PoolLimits) or PoolLimits()
        limits.check()
        tls = TLSContext(ssl_context, trust_env=trust_env)
        self._pools = Pools(partial(Pool, tls=tls, limits=limits, connect=connect), self._network)
        self._calls: set[weakref.ref[Call[Any]]] = set()

    @cached_property
    def messages(self) -> AsyncMessages:
        """The calls of the Messages API: `create`, `stream`, `parse`, `tool_runner`, `count_tokens` and `events`.
        `with_raw_response` and `with_streaming_response` have the same calls together with their responses.

        `help(client.messages)` lists the arguments of each, `python -m pydoc rawsse.client.resources` the common ones.
        """
        return AsyncMessages(self)

    @cached_property
    def models(self) -> AsyncModels:
        """The available models: `list` and `retrieve`, also in `with_raw_response` and `with_streaming_response`.
        `help(client.models)` lists their arguments."""
        return AsyncModels(self)

    @cached_property
    def beta(self) -> AsyncBeta:
        """`beta.messages` and `beta.models` are `messages` and `models`, for code written for the official SDK."""
        return AsyncBeta(self.messages, self.models)

    @property
    def base_url(self) -> str:
        """The base URL of requests."""
        return self._endpoint.base_url

    @property
    def has_credential(self) -> bool:
        """Whether the client has a key or a token."""
        return self._endpoint.credential is not None

    def is_closed(self) -> bool:
        """Whether `close()` was called."""
        return self._pools.is_closed

    def __repr__(self) -> str:
        if not hasattr(self, "_endpoint"):  # in a traceback, if `__init__` failed
            return object.__repr__(self)
        key = "with a key" if self.has_credential else "without a key"
        return f"<{type(self).__name__} for {self._endpoint.origin}{self._endpoint.prefix}, {key}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every open stream, and drop every connection. A later call raises `RuntimeError`."""
        self._pools.is_closed = True  # first: a call that another thread begins now is rejected, or is in `_calls`
        for reference in self._calls.copy():
            if (call := reference()) is not None:
                call.end()
        self._pools.close()
        if self._settings.observer is not None:
            await self._network().run([self._settings.observer.flush])

    aclose = close  # for `contextlib.aclosing`

    def with_options(
        self,
        *,
        api_key: str | None = None,
        auth_token: str | None = None,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        timeout: float | Timeouts | NotGiven | None = NOT_GIVEN,
        max_retries: int | None = None,
        retry_policy: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
        strict: bool | None = None,
    ) -> Self:
        """A copy of the client with some options changed; `default_headers` are added.

        It shares this client's connections: closing one closes the other.
        """
        endpoint, other = self._endpoint, copy.copy(self)
        default_headers = typed("default_headers", default_headers, Mapping)
        api_key, auth_token = map(Hidden.of, (api_key, auth_token))
        other._endpoint = Endpoint(
            base_url or endpoint.base_url,
            credential(api_key, auth_token) or endpoint.credential,
            {**endpoint.headers, **(default_headers or {})},
        )
        other._settings = _changed(self._settings, timeouts, timeout, max_retries, strict, retry_policy)
        for name in ("messages", "models", "beta"):  # those of this client
            vars(other).pop(name, None)
        return other

    copy = with_options

    def conversation(self, *, model: str, max_tokens: int, **options: Any) -> Conversation:
        """A conversation whose history is always valid to send. Arguments as for `Conversation`."""
        from rawsse.client.tools.conversation import Conversation  # loaded only by programs with conversations

        return Conversation(self, model=model, max_tokens=max_tokens, **options)

    # For the calls --------------------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        *,
        kind: type[Exchange] = JSONAnswer,
        body: Mapping[str, Any] | None = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Call[Any]:
        """A call of any path of the API: `answer = await call.open()`, then `answer.value`.

        `path` begins with `/v1/`. `kind` is `rawsse.client.answer.Answer` for a stream of events, or
        `rawsse.replay.proxy.BodyAnswer` for the body as it arrives; the caller must read both to their end, or `close()` the
        call. `options` are `timeouts`, `timeout`, `max_retries` and `strict`, in place of the client's.
        """
        if self.is_closed():
            raise RuntimeError("the client is closed")
        route = self._proxies.route_to(self._endpoint.origin)
        request = self._endpoint.request(method, path, route=route, body=body, headers=headers, query=query)
        settings = _changed(self._settings._replace(request=request, route=route), **options)
        call: Call[Any] = Call(self._pools.here, settings, kind)
        self._calls.add(weakref.ref(call, self._calls.discard))
        return call


def _changed(
    old: CallSettings,
    timeouts: Timeouts | None = None,
    timeout: float | Timeouts | NotGiven | None = NOT_GIVEN,
    max_retries: int | None = None,
    strict: bool | None = None,
    policy: RetryPolicy | None = None,
) -> CallSettings:
    """The settings with the given changes. None keeps a setting, except for `timeout`, where it means no timeout."""
    if not isinstance(timeout, NotGiven):
        if timeouts is not None:
            raise ConfigurationError("give timeouts or timeout, not both")
        timeouts = timeout if isinstance(timeout, Timeouts) else Timeouts.of(timeout)
    timeouts = typed("timeouts", timeouts, Timeouts) or old.timeouts
    policy = typed("retry_policy", policy, RetryPolicy) or old.policy
    if max_retries is not None:
        policy = policy._replace(max_retries=max_retries)
    timeouts.check()
    policy.check()
    return old._replace(timeouts=timeouts, policy=policy, strict=old.strict if strict is None else strict)
