"""Lists that come in pages: the models, from the first page to the last.

models = client.models.list(limit=100)           # `Pages`; nothing is sent yet
async for model in models: ...                   # all of them, page after page, each fetched when it is needed
page = await models                              # the first page
page.data, page.has_next_page(), await page.get_next_page()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

from rawsse.client.request import Query, encoded
from rawsse.errors import ConfigurationError, EventDataError, quote
from rawsse.messages.lens import Lens

Fetch: TypeAlias = Callable[[Query], Awaitable[dict[str, Any]]]
"""Sends a query and gives the JSON object of the answer. Its errors are those of the call that needed the page."""


class ModelInfo(Lens):
    """A model that can be asked. Times are RFC 3339 texts, as on the wire: `datetime.fromisoformat` reads them.

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
    capabilities: Lens | None


class AsyncPage(Lens):
    """One page of a list. `async for model in page` goes on through all pages after it, and `data` is this page alone.

    It pages forwards, or backwards if the query has `before_id`. Raises `EventDataError` if `raw` is no page.
    """

    __slots__ = ("_asked", "_fetch", "_next")
    data: list[ModelInfo]
    first_id: str | None
    last_id: str | None
    has_more: bool | None

    FIELDS: ClassVar[Mapping[str, Any]] = {"data": ModelInfo}

    def __init__(self, raw: dict[str, Any], fetch: Fetch, query: Query, *, asked: frozenset[str] = frozenset()) -> None:
        data = raw.get("data")
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise EventDataError(f"the page has no 'data' that is a list of objects: {quote(repr(raw))}")
        super().__init__(raw)
        name, end = ("before_id", "first_id") if query.get("before_id") else ("after_id", "last_id")
        cursor = raw.get(end)
        # A server that says nothing of `has_more` is asked for the next page, as the official SDKs do.
        if raw.get("has_more") is False or not data or not isinstance(cursor, str):
            cursor = ""
        if cursor in asked:
            raise EventDataError(f"the list goes in a circle: it was asked for {name} {quote(cursor)} before")
        self._fetch = fetch
        self._next: Query | None = {**query, name: cursor} if cursor else None
        self._asked = asked | {cursor}  # on the way to the next page

    def has_next_page(self) -> bool:
        """There is a page after this one."""
        return self._next is not None

    async def get_next_page(self) -> AsyncPage:
        """The page after this one. Raises what fetching raises; `RuntimeError` if there is none; `EventDataError` if that page
        leads back to one that was asked for before: the list would never end."""
        if self._next is None:
            raise RuntimeError("there is no next page: ask has_next_page() first")
        return AsyncPage(await self._fetch(self._next), self._fetch, self._next, asked=self._asked)

    async def _itself(self) -> AsyncPage:
        return self

    def iter_pages(self) -> AsyncIterator[AsyncPage]:
        """This page and all after it, each fetched when it is needed."""
        return _Pages(self._itself)

    def __aiter__(self) -> AsyncIterator[ModelInfo]:
        return _Items(_Pages(self._itself))


class Pages:
    """A list that has not been fetched yet: `await` it for its first page, or iterate over all that it holds."""

    def __init__(self, fetch: Fetch, query: Query) -> None:
        self._fetch = fetch
        self._query = query

    async def _first(self) -> AsyncPage:
        return AsyncPage(await self._fetch(self._query), self._fetch, self._query)

    def __await__(self) -> Generator[Any, None, AsyncPage]:
        return self._first().__await__()

    def __aiter__(self) -> AsyncIterator[ModelInfo]:
        return _Items(_Pages(self._first))


class _Pages(AsyncIterator[AsyncPage]):
    """Pages; a fetch that failed is repeated by the next step. Not a generator: one that is dropped half-read would be closed
    later, by the event loop."""

    def __init__(self, fetch: Callable[[], Awaitable[AsyncPage]]) -> None:
        self._fetch: Callable[[], Awaitable[AsyncPage]] | None = fetch  # the next page

    async def __anext__(self) -> AsyncPage:
        if self._fetch is None:
            raise StopAsyncIteration
        page = await self._fetch()
        self._fetch = page.get_next_page if page.has_next_page() else None
        return page


class _Items(AsyncIterator[ModelInfo]):
    """The models on the pages."""

    def __init__(self, pages: _Pages) -> None:
        self._pages = pages
        self._items: Iterator[ModelInfo] = iter(())

    async def __anext__(self) -> ModelInfo:
        while (item := next(self._items, None)) is None:
            self._items = iter((await anext(self._pages)).data)
        return item


def model_path(model_id: str) -> str:
    """The path of one model. Raises `ConfigurationError` for an id that would lead elsewhere."""
    if model_id in ("", ".", ".."):  # the list; and what RFC 3986, 5.2.4, takes out of a path
        raise ConfigurationError(f"model_id is not a model ID: {quote(model_id)}")
    return f"/v1/models/{encoded('model_id', model_id)}"
