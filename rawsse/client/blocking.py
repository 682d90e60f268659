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

import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from rawsse.client.blocking_stream import BlockingEventStream, BlockingMessageStream, without_waiting
from rawsse.client.client import AsyncClient
from rawsse.client.exchange import Timing
from rawsse.client.page import AsyncPage, ModelInfo
from rawsse.client.portal import Portal
from rawsse.client.ratelimits import RateLimits
from rawsse.client.raw import RawResponse
from rawsse.client.resources import AsyncModels, CallOptions
from rawsse.client.stream import EventStream, MessageStream
from rawsse.http1 import Headers, Response
from rawsse.messages.content import Message, ParsedMessage
from rawsse.messages.lens import Lens

__all__ = ["BlockingRawResponse", "Client", "Page"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _like(
    asynchronous: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Give a method the arguments of the async one that it stands for, for type checkers and for `help`."""
    theirs = inspect.signature(asynchronous)

    def adapt(method: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        returned = inspect.signature(method).return_annotation
        method.__signature__ = theirs.replace(return_annotation=returned)  # type: ignore[attr-defined]  # `inspect` reads it
        return method

    return adapt


# --- Between the two clients ---------------------------------------------------------------------------------------


class _Engine:
    """The async client and its portal, both made anew in a forked child. A client shares it with those of `with_options`."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._client = make()  # here, so that wrong arguments are told where they stand
        self._portal: Portal | None = None
        self._pid = os.getpid()
        self._inherited: list[object] = []  # not even to be freed in a child: that would touch what the parent uses
        self.is_closed = False
        # Held while a call is made ready, which changes what the client knows of its calls.
        self.lock = threading.RLock()

    @property
    def client(self) -> AsyncClient:
        """The async client of this process."""
        if self._pid != os.getpid():
            self._inherited += [self._client, self._portal]
            self.lock = threading.RLock()  # another thread, which is not here, may have held the parent's
            self._portal, self._pid, self._client = None, os.getpid(), self._make()
        return self._client

    def portal(self) -> Portal:
        """The portal of this process; the thread begins when it is first asked for. Raises `RuntimeError` if it is closed."""
        client = self.client
        with self.lock:
            if self._portal is None:
                self.check()
                self._portal = Portal(client.aclose)
            return self._portal

    def check(self) -> None:
        """Raises `RuntimeError` if the client is closed."""
        if self.is_closed:
            raise RuntimeError("the client is closed")

    def close(self) -> None:
        """End all calls, and the thread."""
        client = self.client
        with self.lock:
            self.is_closed = True
            portal = self._portal
        if portal is None:
            without_waiting(client.aclose())
        else:
            portal.close()


class _Access:
    """What the calls of one client need: its async client, and a way to run what that makes."""

    def __init__(self, engine: _Engine, change: Callable[[AsyncClient], AsyncClient] = lambda client: client) -> None:
        self.engine = engine
        self._change = change
        self._base = engine.client
        self._client = change(self._base)

    def client(self) -> AsyncClient:
        """The async client with the options of this one, in this process."""
        base = self.engine.client
        if base is not self._base:
            self._base, self._client = base, self._change(base)
        return self._client

    def with_options(self, change: Callable[[AsyncClient], AsyncClient]) -> _Access:
        """The same with other options."""
        return _Access(self.engine, lambda client: change(self._change(client)))

    def prepare(self, make: Callable[[AsyncClient], T]) -> T:
        """What `make` makes of the async client without waiting: a stream, a list. Here, so that its errors are raised here."""
        client = self.client()
        with self.engine.lock:
            self.engine.check()
            return make(client)

    def run(self, make: Callable[[], Awaitable[T]]) -> T:
        """The result of what `make` makes, in the loop."""
        self.engine.check()
        return self.engine.portal().call(make)

    def message_stream(self, make: Callable[[AsyncClient], MessageStream]) -> BlockingMessageStream:
        """The blocking form of a stream."""
        return BlockingMessageStream(self.engine.portal, self.prepare(make))

    def event_stream(self, make: Callable[[AsyncClient], EventStream]) -> BlockingEventStream:
        """The blocking form of a stream of events."""
        return BlockingEventStream(self.engine.portal, self.prepare(make))


# --- The client ----------------------------------------------------------------------------------------------------


class Client:
    """`AsyncClient` without async: see there for the arguments.

    Use it as `with Client() as client`, or call `close()`. One that is simply dropped ends its thread and connections too. One
    client is enough for a program, whatever the number of threads.

    Where asyncio runs the main thread (`asyncio.run`), it takes the first Ctrl-C for itself; the second one comes through.
    """

    @_like(AsyncClient.__init__)
    def __init__(self, **options: Any) -> None:
        self._become(_Access(_Engine(lambda: AsyncClient(**options))))

    def _become(self, access: _Access) -> None:
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

    @_like(AsyncClient.with_options)
    def with_options(self, **options: Any) -> Client:
        """The same client with other options; both share connections and thread: closing one closes the other."""
        other = type(self).__new__(type(self))
        other._become(self._access.with_options(lambda client: client.with_options(**options)))
        return other


class Messages:
    """`client.messages`: the calls of the Messages API. Arguments and errors are those of `AsyncMessages`."""

    def __init__(self, access: _Access) -> None:
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
        """The whole answer, whose `parsed_output` is a value of the type `output_format`; see `AsyncMessages.parse`."""
        arguments.update(model=model, max_tokens=max_tokens, messages=messages, output_format=output_format)
        return self._access.run(lambda: self._access.client().messages.parse(**arguments))

    def events(self, body: Mapping[str, Any], **options: Any) -> BlockingEventStream:
        """The events of the answer to a request whose `body` is given whole; see `AsyncMessages.events`."""
        return self._access.event_stream(lambda client: client.messages.events(body, **options))

    def count_tokens(self, *, model: str, messages: Iterable[Mapping[str, Any]], **arguments: Any) -> Lens:
        """How many input tokens a request would have: an object with `input_tokens`. Raises `APIError`."""
        arguments.update(model=model, messages=messages)
        call = self._access.prepare(lambda client: client.messages._count_call(**arguments))
        return Lens(self._access.run(call.read_object))


class MessagesWithRawResponse:
    """`client.messages.with_raw_response`."""

    def __init__(self, access: _Access, messages: Messages) -> None:
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

    def count_tokens(self, **arguments: Any) -> BlockingRawResponse[Lens]:
        """As `messages.count_tokens`."""
        count = self._access.client().messages.with_raw_response.count_tokens
        return BlockingRawResponse(self._access.run(lambda: count(**arguments)))


class Models:
    """`client.models`: which models there are."""

    def __init__(self, access: _Access) -> None:
        self._access = access

    @_like(AsyncModels.list)
    def list(self, **arguments: Any) -> Page:
        """The models: `for model in client.models.list()` gives all of them; the first page is asked for at once."""
        pages = self._access.client().models.list(**arguments)
        return Page(self._access, self._access.run(pages._first))

    def retrieve(self, model_id: str, **options: Unpack[CallOptions]) -> ModelInfo:
        """What is known of one model. Raises `NotFoundError` for one that there is not, and other `APIError`s."""
        models = self._access.client().models
        return self._access.run(lambda: models.retrieve(model_id, **options))


class Beta:
    """`client.beta`: the same calls, for code that was written for the official SDK."""

    def __init__(self, messages: Messages, models: Models) -> None:
        self.messages = messages
        self.models = models


async def _read_whole(stream: MessageStream) -> Message:
    async with stream:
        return await stream._read_whole()


# --- What calls give -----------------------------------------------------------------------------------------------


class Page:
    """One page of a list of models. `for model in page` goes on through all pages after it; `data` is this page alone."""

    def __init__(self, access: _Access, page: AsyncPage) -> None:
        self._access = access
        self._page = page

    @property
    def data(self) -> list[ModelInfo]:
        """What is on this page."""
        return self._page.data

    @property
    def first_id(self) -> str | None:
        """The id of the first model on it."""
        return self._page.first_id

    @property
    def last_id(self) -> str | None:
        """The id of the last model on it."""
        return self._page.last_id

    @property
    def has_more(self) -> bool | None:
        """What the API says of pages after it."""
        return self._page.has_more

    def has_next_page(self) -> bool:
        """There is a page after this one."""
        return self._page.has_next_page()

    def get_next_page(self) -> Page:
        """The page after this one; see `AsyncPage`."""
        return Page(self._access, self._access.run(self._page.get_next_page))

    def iter_pages(self) -> Iterator[Page]:
        """This page and all after it, each fetched when it is asked for."""
        page = self
        yield page
        while page.has_next_page():
            page = page.get_next_page()
            yield page

    def __iter__(self) -> Iterator[ModelInfo]:
        for page in self.iter_pages():
            yield from page.data


class BlockingRawResponse(Generic[T]):
    """A response and what it brought: a message, or with `stream=True` a stream, which the caller must read or close."""

    def __init__(self, raw: RawResponse[T]) -> None:
        self._raw = raw

    @property
    def response(self) -> Response:
        """The response's head."""
        return self._raw.response

    @property
    def status_code(self) -> int:
        """The status."""
        return self._raw.status_code

    @property
    def headers(self) -> Headers:
        """The header fields; names are case-insensitive."""
        return self._raw.headers

    @property
    def request_id(self) -> str | None:
        """The `request-id`: what Anthropic's support asks for."""
        return self._raw.request_id

    @property
    def rate_limits(self) -> RateLimits:
        """What the header says of the rate limits."""
        return self._raw.rate_limits

    @property
    def retries_taken(self) -> int:
        """How often the request was tried again."""
        return self._raw.retries_taken

    @property
    def timing(self) -> Timing:
        """When things happened."""
        return self._raw.timing

    def parse(self) -> T:
        """What the response brought."""
        return self._raw.parsed
