"""What somebody who watches exchanges is told, and when: a recorder, for example.

This file knows the moments of an exchange. It refuses to know who watches, and what for.

    class Counter:                                      # an `Observer`, for `AsyncClient(recorder=…)`
        def begin(self, request): return Watch()        # an `ExchangeObserver`: one for each attempt
        async def flush(self): ...

An observer is called in the event loop, between two reads: it must be quick, it may not wait, and it must not raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rawsse.errors import APIError
from rawsse.http1 import Response

if TYPE_CHECKING:
    from rawsse.client.moments import RequestData

__all__ = ["ExchangeObserver", "Observer", "Unobserved"]


class ExchangeObserver(Protocol):
    """Watches one exchange: an attempt of a call."""

    def sent(self) -> None:
        """The request is on its way, as far as the peer takes it."""

    def head(self, response: Response) -> None:
        """The response's head has come."""

    def read(self, data: bytes) -> None:
        """Bytes of the body have come, of one HTTP chunk at most; content codings are not undone."""

    def end(self, error: APIError | None) -> None:
        """It is over. None: the body is whole, or what the caller wanted of it has come. Called once, at any phase."""


class Observer(Protocol):
    """Watches all exchanges of a client."""

    def begin(self, request: RequestData) -> ExchangeObserver:
        """An exchange begins: nothing is sent yet, and there may be no connection."""
        ...

    async def flush(self) -> None:
        """The client is being closed: finish what there is to do about the exchanges that are over."""


class Unobserved:
    """Nobody watches."""

    def sent(self) -> None:
        """Nobody is told."""

    def head(self, response: Response) -> None:
        """Nobody is told."""

    def read(self, data: bytes) -> None:
        """Nobody is told."""

    def end(self, error: APIError | None) -> None:
        """Nobody is told."""
