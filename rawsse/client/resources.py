"""The calls of the API: `client.messages`, `client.models`, `client.beta`.

Every call takes the fields of the request body as arguments, including those that `MessageFields` does not list. None
omits a field. Further arguments:

    extra_headers   header fields
    extra_query     parameters of the URL
    extra_body      body fields that share the name of an argument here, or must be null
    betas           the values of `anthropic-beta`
    workspace_id    the value of `anthropic-workspace-id`; likewise `user_profile_id`
    timeouts        the five clocks (`timeout`: one number for all of them, as in the official SDK)
    max_retries     how many times a transient failure is retried before any content has arrived
    strict          raise an error if the order of events violates the API's rules; None: as set on the client
    output_format   the type that the text of the answer is parsed as (`output.py`)

`stream`, `tool_runner` and `events` are not awaited: `async with`, or the first step of a loop, sends the request. The other
calls are awaited.

To get the response together with the answer:

    raw = await client.messages.with_raw_response.create(model=…, max_tokens=…, messages=[…])
    raw.status_code, raw.headers["x-…"], raw.request_id, raw.retries_taken, raw.rate_limits.requests.remaining
    message = await raw.parse()

    async with client.messages.with_streaming_response.create(stream=True, …) as raw:     # closes the stream
        async for event in await raw.parse(): ...

The models, from the first page to the last:

    models = client.models.list(limit=100)           # `Pages`; the request is not sent yet
    async for model in models: ...                   # all models; a page is fetched when it is needed
    page = await models                              # the first page
    page.data, page.has_next_page(), await page.get_next_page()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack, overload

from rawsse.client.answer import Answer
from rawsse.client.exchange import Exchange, JSONAnswer
from rawsse.client.output import OutputFormat, Outputs, with_output_format
from rawsse.client.request import Query, encoded, listed, typed
from rawsse.client.retry import NOT_GIVEN, NotGiven, Timeouts
from rawsse.client.stream import Call, CallInfo, EventStream, MessageStream
from rawsse.errors import ConfigurationError, EventDataError, quote
from rawsse.messages.content import Message, ParsedMessage
from rawsse.messages.lens import Lens

if TYPE_CHECKING:
    from rawsse.client.tools.runner import ToolRunner

T = TypeVar("T")

_EXTRA = ("extra_headers", "extra_query", "extra_body")
_OF_THE_CALL = ("timeouts", "timeout", "max_retries", "strict")  # passed to `client.call` unchanged

Turns: TypeAlias = Iterable[Mapping[str, Any] | Message]
"""The messages of a request."""


class TokenCount(Lens):
    """How many input tokens a request would have."""

    input_tokens: int
    context_management: Any


class CallOptions(TypedDict, total=False):
    """Arguments of every call, in addition to the fields of its body."""

    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    betas: Sequence[str] | None
    workspace_id: str | None
    timeouts: Timeouts | None
    timeout: float | Timeouts | NotGiven | None
    max_retries: int | None
    strict: bool | None


class CountFields(CallOptions, total=False):
    """The fields of a request and of a token count, except `model` and `messages`."""

    system: str | Iterable[Mapping[str, Any]] | None
    tools: Iterable[Any] | None
    tool_choice: Mapping[str, Any] | None
    thinking: Mapping[str, Any] | None
    output_config: Mapping[str, Any] | None
    cache_control: Mapping[str, Any] | None
    speed: str | None
    billing_policy: Mapping[str, Any] | None
    compaction: Mapping[str, Any] | None
    context_management: Mapping[str, Any] | None
    mcp_servers: Iterable[Mapping[str, Any]] | None
    user_profile_id: str | None


class MessageFields(CountFields, total=False):
    """The known fields of a request for an answer, except `model`, `max_tokens` and `messages`. Others are sent, too; for
    type checkers put them in `extra_body`."""

    stop_sequences: Sequence[str] | None
    metadata: Mapping[str, Any] | None
    service_tier: str | None
    inference_geo: str | None
    container: str | Mapping[str, Any] | None
    diagnostics: Mapping[str, Any] | None
    fallbacks: Iterable[Mapping[str, Any]] | Literal["default"] | None
    fallback_credit_token: str | Mapping[str, Any] | None
    thread: Mapping[str, Any] | None
    temperature: float | None
    top_p: float | None
    top_k: int | None


class AskFields(MessageFields):
    """All fields of a request for an answer."""

    model: str
    max_tokens: int
    messages: Turns


# --- Lists that come in pages --------------------------------------------------------------------------------------

Fetch: TypeAlias = Callable[[Query], Awaitable[dict[str, Any]]]
"""Sends a query and returns the JSON object of the answer. Raises `APIError`."""


class ModelInfo(Lens):
    """A model. Times are RFC 3339 texts, as on the wire: `datetime.fromisoformat` reads them.

    `lifecycle` is "active", "deprecated" or "retired". `capabilities` has an object for each, with `supported`.
    """

    type: str
    id: str
    display_name: str
    created_at: str
    lifecycle: str | None
    line: str | None
    max_input_tokens: int | None
    max_tokens: int | None
    deprecated_at: str | None
    retires_at: str | None
    capabilities: Any | None
    allowed_fallback_models: Any


class AsyncPage(Lens):
    """One page of a list. `async for model in page` continues through all pages after it; `data` is only this page."""

    __slots__ = ("_rest",)
    data: list[ModelInfo]
    first_id: str | None
    last_id: str | None
    has_more: bool | None

    FIELDS: ClassVar[Mapping[str, Any]] = {"data": ModelInfo}

    def __init__(self, raw: dict[str, Any], rest: Pages | None) -> None:
        super().__init__(raw)
        self._rest = rest

    def has_next_page(self) -> bool:
        """Whether there is a page after this one."""
        return self._rest is not None

    async def get_next_page(self) -> AsyncPage:
        """The page after this one. Raises `APIError`; `RuntimeError` if there is none; `EventDataError` if that page leads back
        to an earlier one, so that the list would never end."""
        if self._rest is None:
            raise RuntimeError("no next page: call has_next_page() first")
        return await self._rest

    def __aiter__(self) -> AsyncIterator[ModelInfo]:
        return _Models(self._rest, self.data)


class Pages:
    """A list, from a page that has not been fetched yet: `await` it for that page, or iterate over all its models.

    It pages forwards, or backwards if the query has `before_id`. `asked` are the cursors that have been used.
    """

    def __init__(self, fetch: Fetch, query: Query, asked: frozenset[str] = frozenset()) -> None:
        self._fetch = fetch
        self._query = query
        self._asked = asked

    async def _page(self) -> AsyncPage:
        raw = await self._fetch(self._query)
        data = raw.get("data")
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise EventDataError(f"the page has no 'data' that is a list of objects: {quote(repr(raw))}")
        name, end = ("before_id", "first_id") if self._query.get("before_id") else ("after_id", "last_id")
        cursor = raw.get(end)
        # Without `has_more` there may be a next page, as for the official SDKs.
        if raw.get("has_more") is False or not data or not isinstance(cursor, str) or not cursor:
            return AsyncPage(raw, None)
        if cursor in self._asked:
            raise EventDataError(f"the list goes in a circle: it was asked for {name} {quote(cursor)} before")
        return AsyncPage(raw, Pages(self._fetch, {**self._query, name: cursor}, self._asked | {cursor}))

    def __await__(self) -> Generator[Any, None, AsyncPage]:
        return self._page().__await__()

    def __aiter__(self) -> AsyncIterator[ModelInfo]:
        return _Models(self, ())


class _Models(AsyncIterator[ModelInfo]):
    """Iterates over models, then over those of the following pages. If fetching a page fails, the next step tries again.

    Not a generator: the event loop closes an abandoned generator only later.
    """

    def __init__(self, rest: Pages | None, models: Iterable[ModelInfo]) -> None:
        self._rest = rest
        self._models = iter(models)

    async def __anext__(self) -> ModelInfo:
        while (model := next(self._models, None)) is None:
            if self._rest is None:
                raise StopAsyncIteration
            page = await self._rest
            self._rest, self._models = page._rest, iter(page.data)
        return model


# --- Answers together with their responses -------------------------------------------------------------------------


class RawResponse(CallInfo, Generic[T]):
    """A response and its answer. With `stream=True` the answer is an `EventStream`, which the caller must read to its end or
    close; leaving the `with` block of the response closes it."""

    parsed: T

    def __init__(self, client: Any, ask: Callable[[RawResponse[T]], Awaitable[T] | T]) -> None:
        """`ask` makes the call with this object in place of the client, and returns its result."""
        self._client = client
        self._given = ask(self)

    def call(self, *arguments: Any, **options: Any) -> Call[Any]:
        """Make the client's call, and remember it."""
        self._call = self._client.call(*arguments, **options)
        return self._call

    async def _open(self) -> Self:
        self.parsed = await self._given if isawaitable(self._given) else self._given
        return self

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._open().__await__()

    @property
    def status_code(self) -> int:
        """The status."""
        return self.response.status

    async def parse(self) -> T:
        """The answer: a message, events, a count of tokens, a page."""
        return self.parsed

    async def __aenter__(self) -> Self:
        return self if hasattr(self, "parsed") else await self

    async def __aexit__(self, *exc: object) -> None:
        self._close()

    def __repr__(self) -> str:
        return f"<RawResponse {self.status_code}, request {self.request_id}>"


class WithRawResponse:
    """The calls of a resource (`client.messages`, `client.models`), each returning a `RawResponse`."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # `copy` looks up special methods before the resource is set
            raise AttributeError(name)
        kind, client = type(self._resource), self._resource._client
        method = getattr(kind, name)

        def call(*arguments: Any, **options: Any) -> RawResponse[Any]:
            # Called here and not when awaited, so that the traceback of a wrong argument shows the caller's line.
            return RawResponse(client, lambda raw: method(kind(raw), *arguments, **options))

        return call


# --- The calls -----------------------------------------------------------------------------------------------------


class _Resource:
    def __init__(self, client: Any) -> None:
        self._client = client

    def _call(self, method: str, path: str, kind: type[Exchange] = JSONAnswer, **given: Any) -> Call[Any]:
        """The call. `given` are `CallOptions`, a `query`, an `output_format`, and the fields of the body."""
        options = {name: given.pop(name) for name in _OF_THE_CALL if name in given}
        extra = {name: dict(typed(name, given.pop(name, None), Mapping) or {}) for name in _EXTRA}
        headers = {
            "anthropic-beta": ",".join(map(str, listed("betas", given.pop("betas", None) or ()))),
            "anthropic-workspace-id": given.pop("workspace_id", None),
            "anthropic-user-profile-id": given.pop("user_profile_id", None),
        }
        options["headers"] = {name: value for name, value in headers.items() if value} | extra["extra_headers"]
        options["query"] = extra["extra_query"] | given.pop("query", {})
        if (wanted := given.pop("output_format", None)) is not None:
            given = with_output_format(given, wanted if isinstance(wanted, OutputFormat) else OutputFormat(wanted))
        if method == "POST":
            fields = {name: field for name, field in given.items() if field is not None and field is not NOT_GIVEN}
            streamed = {"stream": True} if issubclass(kind, Answer) else {}
            options["body"] = fields | extra["extra_body"] | streamed
        call: Call[Any] = self._client.call(method, path, kind=kind, **options)
        return call

    @property
    def with_raw_response(self) -> WithRawResponse:
        """The same calls, each returning a `RawResponse`: the response together with its answer."""
        return WithRawResponse(self)

    with_streaming_response = with_raw_response


class AsyncMessages(_Resource):
    """`client.messages`: the calls of the Messages API."""

    def stream(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        output_format: type[Any] | None = None,
        **fields: Unpack[MessageFields],
    ) -> MessageStream:
        """A stream of the answer. The request is sent by `async with`, which raises `APIError` if it is refused.

        With `output_format`, text blocks and the message have a `parsed_output`. The caller must leave the `async with` block,
        or `close()` the stream.
        """
        wanted = None if output_format is None else OutputFormat(output_format)
        call = self._ask(model=model, max_tokens=max_tokens, messages=messages, output_format=wanted, **fields)
        return MessageStream(call, Outputs(wanted))

    @overload
    async def create(self, *, stream: Literal[False] = False, **fields: Unpack[AskFields]) -> Message: ...

    @overload
    async def create(self, *, stream: Literal[True], **fields: Unpack[AskFields]) -> EventStream: ...

    @overload
    async def create(self, *, stream: bool, **fields: Unpack[AskFields]) -> Message | EventStream: ...

    async def create(
        self, *, model: str, max_tokens: int, messages: Turns, stream: bool = False, **fields: Unpack[MessageFields]
    ) -> Message | EventStream:
        """The whole answer; with `stream=True`, its events. Arguments and errors as for `stream`.

        A whole answer is also streamed, and folded into a message: a long one needs no long timeout, and a truncated one is
        not lost. With `stream=True` the caller must read the events to their end, or close the stream.
        """
        events = EventStream(self._ask(model=model, max_tokens=max_tokens, messages=messages, **fields))
        if not stream:
            return await events._read_whole()
        await events._open()
        return events

    async def parse(
        self, *, model: str, max_tokens: int, messages: Turns, output_format: type[T], **fields: Unpack[MessageFields]
    ) -> ParsedMessage[T]:
        """The whole answer, whose `parsed_output` is a value of the type `output_format`. Arguments and errors as for `stream`.

        Raises `OutputFormatError` if the text does not fit. Its `partial` is the whole message, and its `ending.stop_reason`
        tells why: "max_tokens" cut the text, "refusal" stopped it, after "end_turn" the model wrote something else.
        """
        asked: AskFields = {"model": model, "max_tokens": max_tokens, "messages": messages, **fields}
        async with self.stream(output_format=output_format, **asked) as stream:
            message = await stream.get_final_message()
        _ = message.parsed_output
        return message

    @overload
    def tool_runner(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        output_format: type[T],
        stream: Literal[False] = False,
        **arguments: Any,
    ) -> ToolRunner[ParsedMessage[T]]: ...

    @overload
    def tool_runner(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Turns,
        output_format: None = None,
        stream: Literal[False] = False,
        **arguments: Any,
    ) -> ToolRunner[Message]: ...

    @overload
    def tool_runner(
        self, *, model: str, max_tokens: int, messages: Turns, stream: Literal[True], **arguments: Any
    ) -> ToolRunner[MessageStream]: ...

    def tool_runner(self, *, model: str, max_tokens: int, messages: Turns, **arguments: Any) -> ToolRunner[Any]:
        """Ask, run the tools that the answer calls, send their results, and so on. Arguments as for `ToolRunner`."""
        from rawsse.client.tools.runner import ToolRunner  # loaded only by programs with tools

        return ToolRunner[Any](self, model=model, max_tokens=max_tokens, messages=messages, **arguments)

    def events(
        self,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        kind: type[Answer] = Answer,
        **options: Unpack[CallOptions],
    ) -> EventStream:
        """The events of the answer to a request whose whole `body` is given: for programs that forward requests. As with
        `stream`, `async with` sends the request. `kind` may be a class that keeps less than
        `rawsse.client.answer.Answer`."""
        return EventStream(self._ask(kind, extra_body=body, extra_headers=headers, **options))

    async def count_tokens(
        self, *, model: str, messages: Turns, output_format: type[Any] | None = None, **fields: Unpack[CountFields]
    ) -> TokenCount:
        """How many input tokens a request would have: an object with `input_tokens`. Raises `APIError`."""
        asked: dict[str, Any] = {"model": model, "messages": messages, "output_format": output_format, **fields}
        return TokenCount((await self._call("POST", "/v1/messages/count_tokens", **asked).open()).value)

    def _ask(self, kind: type[Answer] = Answer, **arguments: Any) -> Call[Answer]:
        return self._call("POST", "/v1/messages", kind, **arguments)

    # For the tool loop ---------------------------------------------------------------------------------------------

    @property
    def _run(self) -> Any:
        return self._client._network().run

    @property
    def _runs_coroutines(self) -> bool:
        return bool(self._client._network.runs_coroutines)


class AsyncModels(_Resource):
    """`client.models`: the available models."""

    def list(
        self,
        *,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        lifecycle: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> Pages:
        """The models: `async for model in client.models.list()` gives all of them, page by page; `await client.models.list()`
        gives the first page.

        `limit` is the size of a page (1 to 1000). Raises `APIError`.
        """
        stages = [lifecycle] if isinstance(lifecycle, str) else lifecycle
        first = {"limit": limit, "after_id": after_id, "before_id": before_id, "lifecycle": stages}
        return Pages(lambda query: self._get("/v1/models", query=query, **options), first)

    async def retrieve(self, model_id: str, **options: Unpack[CallOptions]) -> ModelInfo:
        """One model. Raises `NotFoundError` for an unknown one, and other `APIError`s; `ConfigurationError` for an id that
        would change the path."""
        if model_id in ("", ".", ".."):  # the list; and the segments that RFC 3986, 5.2.4, removes from a path
            raise ConfigurationError(f"model_id is not a model ID: {quote(model_id)}")
        return ModelInfo(await self._get(f"/v1/models/{encoded('model_id', model_id)}", **options))

    async def _get(self, path: str, **options: Any) -> Any:
        return (await self._call("GET", path, **options).open()).value


class AsyncBeta:
    """`client.beta`: the same calls, for code written for the official SDK. `betas` turns beta features on."""

    def __init__(self, messages: AsyncMessages, models: AsyncModels) -> None:
        self.messages = messages
        self.models = models
