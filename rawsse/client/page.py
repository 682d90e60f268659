"""Lists that come in pages: the models, from the first page to the last.

This file knows how a list is asked for page by page, and when it is over. It refuses to know how a request is made: it gets a
function from a query to the JSON object of the answer.

    models = client.models.list(limit=100)           # `Pages`; nothing is sent yet
    async for model in models: ...                   # all of them, page after page, each fetched when it is needed
    page = await models                              # the first page
    page.data, page.has_next_page(), await page.get_next_page()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias
from urllib.parse import quote as percent_encoded

from rawsse.errors import ConfigurationError, EventDataError, quote
from rawsse.messages.lens import Lens

__all__ = [
    "AsyncPage",
    "Fetch",
    "ModelInfo",
    "Pages",
    "Query",
    "model_path",
    "models_query",
    "query_string",
    "read_query",
]

Query: TypeAlias = dict[str, str | list[str]]
"""The parameters of a query; a list is a parameter that comes several times."""

Fetch: TypeAlias = Callable[[Query], Awaitable[dict[str, Any]]]
"""Sends a query and gives the JSON object of the answer. What it raises comes out of whatever needed the page."""


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

    __slots__ = ("_asked", "_fetch", "_query")
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
        self._fetch = fetch
        self._query = query
        self._asked = asked  # the ids from which pages were asked for on the way here

    def _cursor(self) -> tuple[str, str] | None:
        """The parameter that asks for the next page, and its value; None if there is no such page."""
        backwards = bool(self._query.get("before_id"))
        name, value = ("before_id", self.get("first_id")) if backwards else ("after_id", self.get("last_id"))
        # A server that says nothing of `has_more` is asked for the next page, as the official SDKs do.
        is_last = self.get("has_more") is False or not self.data
        return None if is_last or not isinstance(value, str) or not value else (name, value)

    def has_next_page(self) -> bool:
        """There is a page after this one."""
        return self._cursor() is not None

    async def get_next_page(self) -> AsyncPage:
        """The page after this one. Raises what fetching raises; `RuntimeError` if there is none; `EventDataError` if that page
        leads back to one that was asked for before: the list would never end."""
        cursor = self._cursor()
        if cursor is None:
            raise RuntimeError("there is no next page: ask has_next_page() first")
        name, value = cursor
        query: Query = {**self._query, name: value}
        page = AsyncPage(await self._fetch(query), self._fetch, query, asked=self._asked | {value})
        following = page._cursor()
        if following is not None and following[1] in page._asked:
            raise EventDataError(f"the list goes in a circle: it was asked for {name} {quote(following[1])} before")
        return page

    def iter_pages(self) -> AsyncIterator[AsyncPage]:
        """This page and all after it, each fetched when it is asked for."""
        return _PageIterator(lambda: _ready(self))

    def __aiter__(self) -> AsyncIterator[ModelInfo]:
        return _ItemIterator(self.iter_pages())


class Pages:
    """A list that is not asked for yet: `await` it for its first page, or iterate over all that it holds."""

    def __init__(self, fetch: Fetch, query: Query) -> None:
        self._fetch = fetch
        self._query = query

    async def _first(self) -> AsyncPage:
        return AsyncPage(await self._fetch(self._query), self._fetch, self._query)

    def __await__(self) -> Generator[Any, None, AsyncPage]:
        return self._first().__await__()

    def __aiter__(self) -> AsyncIterator[ModelInfo]:
        return _ItemIterator(_PageIterator(self._first))


# No generators: one that is dropped half-read would be closed later, by the event loop.


async def _ready(page: AsyncPage) -> AsyncPage:
    return page


class _PageIterator(AsyncIterator[AsyncPage]):
    """Pages. A fetch that failed is tried again by whoever goes on."""

    def __init__(self, first: Callable[[], Awaitable[AsyncPage]]) -> None:
        self._fetch_next: Callable[[], Awaitable[AsyncPage]] | None = first

    async def __anext__(self) -> AsyncPage:
        if self._fetch_next is None:
            raise StopAsyncIteration
        page = await self._fetch_next()
        self._fetch_next = page.get_next_page if page.has_next_page() else None
        return page


class _ItemIterator(AsyncIterator[ModelInfo]):
    """What is on the pages."""

    def __init__(self, pages: AsyncIterator[AsyncPage]) -> None:
        self._pages = pages
        self._items: Iterator[ModelInfo] = iter(())

    async def __anext__(self) -> ModelInfo:
        while True:
            for item in self._items:
                return item
            self._items = iter((await anext(self._pages)).data)


# --- From arguments to a request target ----------------------------------------------------------------------------


def models_query(
    *,
    limit: int | None = None,
    after_id: str | None = None,
    before_id: str | None = None,
    lifecycle: Sequence[str] | None = None,
) -> Query:
    """The query of a list of models; arguments that are None are left out."""
    stages = [lifecycle] if isinstance(lifecycle, str) else lifecycle
    values: Mapping[str, str | list[str] | None] = {
        "limit": None if limit is None else str(limit),
        "after_id": after_id,
        "before_id": before_id,
        "lifecycle": None if stages is None else list(stages),
    }
    return {name: value for name, value in values.items() if value is not None}


def read_query(values: Mapping[str, Any]) -> Query:
    """Parameters of any type as those of a query; None is left out. Raises `ConfigurationError` for what is no value."""
    return {name: _parameter(name, value) for name, value in values.items() if value is not None}


def _parameter(name: str, value: object) -> str | list[str]:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list() | tuple():
            return [str(_parameter(name, item)) for item in value]
    raise ConfigurationError(f"the query parameter {quote(name)} may not be {quote(repr(value))}")


def query_string(params: Mapping[str, str | list[str]]) -> str:
    """The query of a URL, without its question mark: `limit=5&lifecycle%5B%5D=active&lifecycle%5B%5D=retired`."""
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        pairs += [(name, value)] if isinstance(value, str) else [(f"{name}[]", item) for item in value]
    return "&".join(f"{_encoded(name, name)}={_encoded(name, value)}" for name, value in pairs)


def model_path(model_id: str) -> str:
    """The path of one model. Raises `ConfigurationError` for an id that would lead elsewhere."""
    if model_id in ("", ".", ".."):  # the list; and what RFC 3986, 5.2.4, takes out of a path
        raise ConfigurationError(f"model_id is no id of a model: {quote(model_id)}")
    return f"/v1/models/{_encoded('model_id', model_id)}"


def _encoded(name: str, value: str) -> str:
    # RFC 3986, 2.3: what is unreserved stands as it is, everything else is %-encoded UTF-8.
    try:
        return percent_encoded(value, safe="")
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name} is not Unicode text: {quote(value)}") from None
