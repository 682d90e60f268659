"""`Client`: the calls of `AsyncClient` for code without async, with the same names, arguments and errors.

This file knows how a blocking call becomes one of the async client, which runs in an event loop of its own (`portal.py`). It
refuses to know how an answer is asked for and read: all of that the async client does.

    with Client() as client:                                    # the key from ANTHROPIC_API_KEY
        with client.messages.stream(model=…, max_tokens=…, messages=[…]) as stream:
            for text in stream.text_stream: ...

Any number of threads may use one client; a stream is for one at a time, but any thread may close it. It works where a loop
already runs (a notebook), which stands still meanwhile. Ctrl-C ends the call that it interrupts, connection and all, and the
client can be used further. In a forked child a client starts anew, with connections of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from rawsse.client.blocking.access import Access, Engine
from rawsse.client.blocking.results import BlockingRawResponse, Page
from rawsse.client.blocking.stream import BlockingEventStream, BlockingMessageStream
from rawsse.client.client import AsyncClient
from rawsse.client.page import ModelInfo
from rawsse.client.raw import RawResponse
from rawsse.client.resources import CallOptions, TokenCount
from rawsse.client.stream import MessageStream
from rawsse.messages.content import Message, ParsedMessage

if TYPE_CHECKING:
    from rawsse.client.blocking.conversation import BlockingConversation
    from rawsse.client.blocking.runner import BlockingToolRunner

__all__ = ["Client"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _like(
    asynchronous: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Give a method the arguments of the async one that it stands for, for type checkers and for `help`."""

    def adapt(method: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        method.__wrapped__ = asynchronous  # type: ignore[attr-defined]  # where `inspect.signature` looks
        return method

    return adapt


# --- The client ----------------------------------------------------------------------------------------------------


class Client:
    """`AsyncClient` without async: see there for the arguments.

    Use it as `with Client() as client`, or call `close()`. One that is simply dropped ends its thread and connections too. One
    client is enough for a program, whatever the number of threads.

    Where asyncio runs the main thread (`asyncio.run`), it takes the first Ctrl-C for itself; the second one comes through.
    """

    @_like(AsyncClient.__init__)
    def __init__(self, **options: Any) -> None:
        self._become(Access(Engine(lambda: AsyncClient(**options))))

    def _become(self, access: Access) -> None:
        self._access = access
        self.messages = Messages(access)
        self.models = Models(access)
        self.beta = Beta(self.messages, self.models)

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._access.client().base_url

    @property
    def has_credential(self) -> bool:
        """There is a key or a token."""
        return self._access.client().has_credential

    @property
    def is_closed(self) -> bool:
        """`close()` was called."""
        return self._access.engine.is_closed

    def __repr__(self) -> str:
        return repr(self._access.client()).replace("AsyncClient", type(self).__name__)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every stream that is open, drop every connection, and end the thread. No further calls."""
        self._access.engine.close()

    def conversation(self, *, model: str, max_tokens: int, **options: Any) -> BlockingConversation:
        """Questions and answers in turn; the history is kept. `options` are those of `Conversation`: `system`, `tools` …"""
        from rawsse.client.blocking.conversation import BlockingConversation  # whoever asks once does not pay for it

        return BlockingConversation(self, model=model, max_tokens=max_tokens, **options)

    @_like(AsyncClient.with_options)
    def with_options(self, **options: Any) -> Client:
        """The same client with other options; both share connections and thread: closing one closes the other."""
        other = type(self).__new__(type(self))
        other._become(self._access.with_options(lambda client: client.with_options(**options)))
        return other


class Messages:
    """`client.messages`: the calls of the Messages API. Arguments and errors are those of `AsyncMessages`."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @property
    def with_raw_response(self) -> MessagesWithRawResponse:
        """The same calls, which give the response beside what it brought."""
        return MessagesWithRawResponse(self._access, self)

    def stream(
        self, *, model: str, max_tokens: int, messages: Iterable[Mapping[str, Any]], **arguments: Any
    ) -> BlockingMessageStream:
        """A stream of the answer. The request is sent by `with`, which raises `APIError` if it is refused.

        The caller must leave the `with` block, or `close()` the stream.
        """
        arguments.update(model=model, max_tokens=max_tokens, messages=messages)
        return self._access.message_stream(lambda client: client.messages.stream(**arguments))

    @overload
    def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[False] = False,
        **arguments: Any,
    ) -> Message: ...

    @overload
    def create(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        stream: Literal[True],
        **arguments: Any,
    ) -> BlockingEventStream: ...

    def create(self, *, stream: bool = False, **arguments: Any) -> Message | BlockingEventStream:
        """The whole answer; with `stream=True`, its events. See `AsyncMessages.create`."""
        if stream:
            events = self._access.event_stream(
                lambda client: client.messages._events(client.messages._call(**arguments))
            )
            events._open()
            return events
        opened = self._access.prepare(lambda client: client.messages.stream(**arguments))
        return self._access.run(lambda: _read_whole(opened))

    def parse(
        self,
        *,
        model: str,
        max_tokens: int,
        messages: Iterable[Mapping[str, Any]],
        output_format: type[T],
        **arguments: Any,
    ) -> ParsedMessage[T]:
        """The whole answer, whose `parsed_output` is a value of the type `output_format`. Raises `OutputFormatError`."""
        arguments.update(model=model, max_tokens=max_tokens, messages=messages, output_format=output_format)
        with self.stream(**arguments) as opened:
            message = opened.get_final_message()
        _ = message.parsed_output
        return message

    @overload
    def tool_runner(self, *, stream: Literal[False] = False, **arguments: Any) -> BlockingToolRunner[Message]: ...

    @overload
    def tool_runner(self, *, stream: Literal[True], **arguments: Any) -> BlockingToolRunner[BlockingMessageStream]: ...

    def tool_runner(self, **arguments: Any) -> BlockingToolRunner[Any]:
        """Asks, runs the tools that the answer calls, and asks again. Arguments as for `ToolRunner`."""
        from rawsse.client.blocking.runner import BlockingToolRunner  # whoever has no tools does not pay for them

        runner = self._access.prepare(lambda client: client.messages.tool_runner(**arguments))
        return BlockingToolRunner(self._access, runner)

    def events(self, body: Mapping[str, Any], **options: Any) -> BlockingEventStream:
        """The events of the answer to a request whose `body` is given whole; see `AsyncMessages.events`."""
        return self._access.event_stream(lambda client: client.messages.events(body, **options))

    def count_tokens(self, *, model: str, messages: Iterable[Mapping[str, Any]], **arguments: Any) -> TokenCount:
        """How many input tokens a request would have: an object with `input_tokens`. Raises `APIError`."""
        arguments.update(model=model, messages=messages)
        call = self._access.prepare(lambda client: client.messages._count_call(**arguments))
        return TokenCount(self._access.run(call.read_object))


class MessagesWithRawResponse:
    """`client.messages.with_raw_response`."""

    def __init__(self, access: Access, messages: Messages) -> None:
        self._access = access
        self._messages = messages

    @overload
    def create(self, *, stream: Literal[False] = False, **arguments: Any) -> BlockingRawResponse[Message]: ...

    @overload
    def create(self, *, stream: Literal[True], **arguments: Any) -> BlockingRawResponse[BlockingEventStream]: ...

    def create(self, *, stream: bool = False, **arguments: Any) -> BlockingRawResponse[Any]:
        """As `messages.create`. Without `stream` the answer has been read to its end."""
        if not stream:
            create = self._access.client().messages.with_raw_response.create
            return BlockingRawResponse(self._access.run(lambda: create(**arguments)))
        events = self._messages.create(stream=True, **arguments)
        return BlockingRawResponse(RawResponse(events.response, events, events.retries_taken, events.timing))

    def count_tokens(self, **arguments: Any) -> BlockingRawResponse[TokenCount]:
        """As `messages.count_tokens`."""
        count = self._access.client().messages.with_raw_response.count_tokens
        return BlockingRawResponse(self._access.run(lambda: count(**arguments)))


class Models:
    """`client.models`: which models there are."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def list(
        self,
        *,
        limit: int | None = None,
        after_id: str | None = None,
        before_id: str | None = None,
        lifecycle: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> Page:
        """The models: `for model in client.models.list()` gives all of them; the first page is asked for at once."""
        models = self._access.client().models
        pages = models.list(limit=limit, after_id=after_id, before_id=before_id, lifecycle=lifecycle, **options)
        return Page(self._access, self._access.run(pages._first))

    def retrieve(self, model_id: str, **options: Unpack[CallOptions]) -> ModelInfo:
        """What is known of one model. Raises `NotFoundError` for one that there is not, and other `APIError`s."""
        models = self._access.client().models
        return self._access.run(lambda: models.retrieve(model_id, **options))

    @property
    def with_raw_response(self) -> ModelsWithRawResponse:
        """The same calls, which give the response beside what it brought."""
        return ModelsWithRawResponse(self._access)


class ModelsWithRawResponse:
    """`client.models.with_raw_response`."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def list(self, **options: Any) -> BlockingRawResponse[Page]:
        """As `models.list`: the first page."""
        models = self._access.client().models.with_raw_response
        raw = self._access.run(lambda: models.list(**options))
        page = Page(self._access, raw.parsed)
        return BlockingRawResponse(RawResponse(raw.response, page, raw.retries_taken, raw.timing))

    def retrieve(self, model_id: str, **options: Unpack[CallOptions]) -> BlockingRawResponse[ModelInfo]:
        """As `models.retrieve`."""
        models = self._access.client().models.with_raw_response
        return BlockingRawResponse(self._access.run(lambda: models.retrieve(model_id, **options)))


class Beta:
    """`client.beta`: the same calls, for code that was written for the official SDK."""

    def __init__(self, messages: Messages, models: Models) -> None:
        self.messages = messages
        self.models = models


async def _read_whole(stream: MessageStream) -> Message:
    async with stream:
        return await stream._read_whole()
