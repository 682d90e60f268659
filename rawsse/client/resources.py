"""The calls of the API: `client.messages`, `client.models`, `client.beta`.

This file knows which arguments a call takes and which path it goes to. It refuses to know connections, keys and options: those
are the `Caller`'s, which `client.py` is.

Every call takes the fields of the request's body as arguments, known (`MessageArguments`) or not; None leaves a field out.
Beside them:

    extra_headers   header fields
    extra_query     parameters of the URL
    extra_body      fields of the body that are named like an argument of ours, or are to be null
    betas           what goes into `anthropic-beta`
    workspace_id    what goes into `anthropic-workspace-id`; likewise `user_profile_id`
    timeouts        the five clocks (`timeout`: one number for them, as the official SDK has it)
    max_retries     how often a failure that may heal is tried again before any content came
    output_format   the type of which the text of the answer is to be a value: a pydantic model, a dataclass … (see `parse.py`)
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

from rawsse.client.aside import Aside
from rawsse.client.call import Call
from rawsse.client.events import EventStream
from rawsse.client.network.clocks import NOT_GIVEN, NotGiven, Timeouts
from rawsse.client.page import AsyncPage, ModelInfo, Pages, Query, model_path, models_query, read_query
from rawsse.client.parse import OutputFormat, Outputs, with_output_format
from rawsse.client.raw import RawResponse
from rawsse.client.request import with_betas
from rawsse.client.stream import MessageStream
from rawsse.http1 import Response
from rawsse.messages.content import Message, ParsedMessage
from rawsse.messages.lens import Lens
from rawsse.messages.message import MessageBuilder

if TYPE_CHECKING:
    from rawsse.client.tools.runner import ToolRunner

__all__ = ["AsyncBeta", "AsyncMessages", "AsyncModels", "CallOptions", "Caller", "TokenCount"]

T = TypeVar("T")


class TokenCount(Lens):
    """How many input tokens a request would have."""

    __slots__ = ()
    input_tokens: int


class CallOptions(TypedDict, total=False):
    """What every call takes beside the fields of its body."""

    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None
    betas: Sequence[str] | None
    timeouts: Timeouts | None
    timeout: float | Timeouts | NotGiven | None
    max_retries: int | None


class CountArguments(CallOptions, total=False):
    """What a request may have beside `model` and `messages`, and a count of its tokens too."""

    system: str | Iterable[Mapping[str, Any]] | None
    tools: Iterable[Any] | None
    tool_choice: Mapping[str, Any] | None
    thinking: Mapping[str, Any] | None
    output_config: Mapping[str, Any] | None
    cache_control: Mapping[str, Any] | None
    speed: str | None
    context_management: Mapping[str, Any] | None
    mcp_servers: Iterable[Mapping[str, Any]] | None
    workspace_id: str | None
    user_profile_id: str | None


class MessageArguments(CountArguments, total=False):
    """What a request for an answer may have beside `model`, `max_tokens` and `messages`: the API's fields that this version
    knows. Others are taken as well, and sent; for a type checker they go into `extra_body`."""

    stop_sequences: Sequence[str] | None
    metadata: Mapping[str, Any] | None
    service_tier: str | None
    inference_geo: str | None
    container: str | Mapping[str, Any] | None
    diagnostics: Mapping[str, Any] | None
    temperature: float | None
    top_p: float | None
    top_k: int | None


class Caller(Protocol):
    """What makes a call of a method, a path and a body."""

    max_event_bytes: int

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        timeout: float | Timeouts | NotGiven | None = NOT_GIVEN,
        max_retries: int | None = None,
    ) -> Call:
        """A call, ready to be opened."""
        ...

    def new_builder(self, strict: bool | None = None) -> MessageBuilder:
        """What folds the answer's events; `strict` is the client's own if None."""
        ...


class AsyncMessages:
    """`client.messages`: the calls of the Messages API."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def with_raw_response(self) -> AsyncMessagesWithRawResponse:
        """The same calls, which give the response beside what it brought."""
        return AsyncMessagesWithRawResponse(self)

    def stream(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        output_format: type[Any] | None = None,
        **arguments: Unpack[MessageArguments],
    ) -> MessageStream:
        """A stream of the answer. The request is sent by `async with`, which raises `APIError` if it is refused.

        With `output_format`, text blocks and the message have a `parsed_output`. The caller must leave the `async with` block,
        or `close()` the stream.
        """
        wanted = None if output_format is None else OutputFormat(output_format)
        call = self._call(model=model, max_tokens=max_tokens, messages=messages, output_format=wanted, **arguments)
        limit = self._caller.max_event_bytes
        return MessageStream(call, self._caller.new_builder, max_event_bytes=limit, outputs=Outputs(wanted))

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[False] = False,
        **arguments: Unpack[MessageArguments],
    ) -> Message: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[True],
        **arguments: Unpack[MessageArguments],
    ) -> EventStream: ...

    @overload
    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: bool,
        **arguments: Unpack[MessageArguments],
    ) -> Message | EventStream: ...

    async def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: bool = False,
        **arguments: Unpack[MessageArguments],
    ) -> Message | EventStream:
        """The whole answer; with `stream=True`, its events. Arguments and errors as for `stream`.

        The whole answer is streamed too and folded here: a long one needs no long timeout, and a cut one is not lost.
        Events must be read to their end, or the stream be closed.
        """
        if stream:
            events = self._events(self._call(model=model, max_tokens=max_tokens, messages=messages, **arguments))
            await events._open()
            return events
        async with self.stream(model=model, max_tokens=max_tokens, messages=messages, **arguments) as opened:
            return await opened._read_whole()

    async def parse(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        output_format: type[T],
        **arguments: Unpack[MessageArguments],
    ) -> ParsedMessage[T]:
        """The whole answer, whose `parsed_output` is a value of the type `output_format`. Arguments and errors as for `stream`.

        Raises `OutputFormatError` if the text does not fit; its `partial` is the whole message.
        """
        request: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": messages, **arguments}
        async with self.stream(output_format=output_format, **request) as opened:
            message = await opened.get_final_message()
        _ = message.parsed_output
        return message

    @overload
    def tool_runner(self, *, stream: Literal[False] = False, **arguments: Any) -> ToolRunner[Message]: ...

    @overload
    def tool_runner(self, *, stream: Literal[True], **arguments: Any) -> ToolRunner[MessageStream]: ...

    def tool_runner(self, **arguments: Any) -> ToolRunner[Any]:
        """Asks, runs the tools that the answer calls, and asks again. Arguments as for `ToolRunner`."""
        from rawsse.client.tools.runner import ToolRunner  # whoever has no tools does not pay for them

        return ToolRunner[Any](self, **arguments)

    def events(
        self,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        max_retries: int | None = None,
        strict: bool | None = None,
    ) -> EventStream:
        """The events of the answer to a request whose `body` is given whole, known fields or not: for whoever passes it on.

        As with `stream`, the request is sent by `async with`. `strict` is that of the client if None.
        """
        streamed = {**body, "stream": True}
        call = self._caller.call(
            "POST", "/v1/messages", body=streamed, headers=headers, timeouts=timeouts, max_retries=max_retries
        )
        return self._events(call, strict)

    async def count_tokens(
        self,
        *,
        model: str,
        messages: Iterable[Mapping[str, Any]],
        output_format: type[Any] | None = None,
        **arguments: Unpack[CountArguments],
    ) -> TokenCount:
        """How many input tokens a request would have: an object with `input_tokens`. Raises `APIError`."""
        return TokenCount(
            await self._count_call(
                model=model, messages=messages, output_format=output_format, **arguments
            ).read_object()
        )

    # For tools. These two members move to the network, which knows whether there is an event loop. ---------------------

    _runs_coroutines = True

    async def _run(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run these at the same time; their results, in order. Coroutine functions run in tasks, other functions in daemon
        threads, each with a copy of the context. An exception is raised when all are over. Cancelling cancels the tasks and
        waits for them, but not for threads."""
        loop = asyncio.get_running_loop()
        running: list[asyncio.Future[Any]] = [
            loop.create_task(call())
            if inspect.iscoroutinefunction(call)
            else loop.run_in_executor(Aside("rawsse-tool"), call)
            for call in calls
        ]
        try:
            await asyncio.wait(running)
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return [each.result() for each in running]

    # What the calls are made of ------------------------------------------------------------------------------------

    def _call(self, **arguments: Any) -> Call:
        fields, options = _sort(**arguments)
        return self._caller.call("POST", "/v1/messages", body={**fields, "stream": True}, **options)

    def _count_call(self, **arguments: Any) -> Call:
        fields, options = _sort(**arguments)
        return self._caller.call("POST", "/v1/messages/count_tokens", body=fields, **options)

    def _events(self, call: Call, strict: bool | None = None) -> EventStream:
        return EventStream(call, lambda: self._caller.new_builder(strict), max_event_bytes=self._caller.max_event_bytes)


class AsyncMessagesWithRawResponse:
    """`client.messages.with_raw_response`."""

    def __init__(self, messages: AsyncMessages) -> None:
        self._messages = messages

    @overload
    async def create(self, *, stream: Literal[False] = False, **arguments: Any) -> RawResponse[Message]: ...

    @overload
    async def create(self, *, stream: Literal[True], **arguments: Any) -> RawResponse[EventStream]: ...

    async def create(self, *, stream: bool = False, **arguments: Any) -> RawResponse[Any]:
        """As `messages.create`. Without `stream` the answer has been read to its end."""
        if stream:
            events = await self._messages.create(stream=True, **arguments)
            return RawResponse(events.response, events, events.retries_taken, events.timing)
        async with self._messages.stream(**arguments) as opened:
            message = await opened._read_whole()
        return RawResponse(opened.response, message, opened.retries_taken, opened.timing)

    async def count_tokens(self, **arguments: Any) -> RawResponse[TokenCount]:
        """As `messages.count_tokens`."""
        call = self._messages._count_call(**arguments)
        return _raw(call, TokenCount(await call.read_object()))


class AsyncModels:
    """`client.models`: which models there are."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(
        self,
        *,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        lifecycle: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> Pages:
        """The models: `async for model in client.models.list()` gives all of them, page by page; `await` the first page.

        `limit` is the size of a page (1 to 1000). Raises `APIError`.
        """
        first = models_query(limit=limit, after_id=after_id, before_id=before_id, lifecycle=lifecycle)
        return Pages(lambda query: self._list_call(query, **options).read_object(), first)

    async def retrieve(self, model_id: str, **options: Unpack[CallOptions]) -> ModelInfo:
        """What is known of one model. Raises `NotFoundError` for one that there is not, and other `APIError`s."""
        call = self._retrieve_call(model_id, **options)
        return ModelInfo(await call.read_object())

    @property
    def with_raw_response(self) -> AsyncModelsWithRawResponse:
        """The same calls, which give the response beside what it brought."""
        return AsyncModelsWithRawResponse(self)

    def _retrieve_call(self, model_id: str, **options: Unpack[CallOptions]) -> Call:
        _, sorted_options = _sort(**options)
        return self._caller.call("GET", model_path(model_id), **sorted_options)

    def _list_call(self, query: Query, **options: Unpack[CallOptions]) -> Call:
        _, sorted_options = _sort(**options)
        return self._caller.call("GET", "/v1/models", **{**sorted_options, "query": sorted_options["query"] | query})


class AsyncModelsWithRawResponse:
    """`client.models.with_raw_response`."""

    def __init__(self, models: AsyncModels) -> None:
        self._models = models

    async def list(
        self,
        *,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        lifecycle: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> RawResponse[AsyncPage]:
        """As `await models.list(...)`: the first page."""
        query = models_query(limit=limit, after_id=after_id, before_id=before_id, lifecycle=lifecycle)
        call = self._models._list_call(query, **options)
        found = await call.read_object()
        return _raw(
            call, AsyncPage(found, lambda query: self._models._list_call(query, **options).read_object(), query)
        )

    async def retrieve(self, model_id: str, **options: Unpack[CallOptions]) -> RawResponse[ModelInfo]:
        """As `models.retrieve`."""
        call = self._models._retrieve_call(model_id, **options)
        return _raw(call, ModelInfo(await call.read_object()))


class AsyncBeta:
    """`client.beta`: the same calls, for code that was written for the official SDK. Beta features are asked for by `betas`."""

    def __init__(self, messages: AsyncMessages, models: AsyncModels) -> None:
        self.messages = messages
        self.models = models


def _sort(
    *,
    extra_headers: Mapping[str, str] | None = None,
    extra_query: Mapping[str, Any] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    betas: Sequence[str] | None = None,
    workspace_id: str | None = None,
    user_profile_id: str | None = None,
    timeouts: Timeouts | None = None,
    timeout: float | Timeouts | NotGiven | None = NOT_GIVEN,
    max_retries: int | None = None,
    output_format: OutputFormat[Any] | type[Any] | None = None,
    **fields: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the body, and the options of the call."""
    ids = {"anthropic-workspace-id": workspace_id, "anthropic-user-profile-id": user_profile_id}
    options = {
        "headers": {name: value for name, value in ids.items() if value} | with_betas(extra_headers, betas),
        "query": read_query(extra_query or {}),
        "timeouts": timeouts,
        "timeout": timeout,
        "max_retries": max_retries,
    }
    if output_format is not None:
        wanted = output_format if isinstance(output_format, OutputFormat) else OutputFormat(output_format)
        fields = with_output_format(fields, wanted)
    given = {name: value for name, value in fields.items() if value is not None and not isinstance(value, NotGiven)}
    return {**given, **(extra_body or {})}, options


def _raw(call: Call, parsed: T) -> RawResponse[T]:
    response = call.exchange.response
    assert isinstance(response, Response)  # noqa: S101 - it has been read
    return RawResponse(response, parsed, call.retries_taken, call.timing)
