"""What blocking calls give beside messages and streams: pages of a list, and raw responses.

This file knows how the async ones look without async. It refuses to know how either is asked for.

    for model in client.models.list(): ...
    client.messages.with_raw_response.create(…).parse()
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from rawsse.client.blocking.access import Access
from rawsse.client.moments import Timing
from rawsse.client.page import AsyncPage, ModelInfo
from rawsse.client.ratelimits import RateLimits
from rawsse.client.raw import RawResponse
from rawsse.http1 import Headers, Response

__all__ = ["BlockingRawResponse", "Page"]

T = TypeVar("T")


class Page:
    """One page of a list of models. `for model in page` goes on through all pages after it; `data` is this page alone."""

    def __init__(self, access: Access, page: AsyncPage) -> None:
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
