"""Reading a canned answer: every event, or the error. Through a client; or through an exchange, by function calls.

events, stream = run(read(answer(ANSWER)))
attempt = Attempt(Answer).send().play(SSE_HEAD, 30.0, chunk)        # 30 seconds of silence between two reads
attempt.events, attempt.exchange.error, attempt.now
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Generic, Self, TypeVar

import pytest

from rawsse.client.answer import Answer
from rawsse.client.client import AsyncClient
from rawsse.client.exchange import CallSettings, Exchange, Timing
from rawsse.client.network.route import Origin, Route
from rawsse.client.request import RequestData
from rawsse.client.retry import Timeouts
from rawsse.client.stream import MessageStream
from rawsse.errors import APIError
from rawsse.replay.fakes import FakeStream
from rawsse.replay.proxy import BodyAnswer
from support.answers import ASK, answer, client_of
from support.streams import Raw

__all__ = ["ALL_ON", "OFF", "REQUEST", "ROUTE", "Attempt", "Raw", "body", "fail", "read", "types"]


def body(*raws: Raw) -> FakeStream:
    """A stream whose body ends after these events, as HTTP ends it."""
    return FakeStream([answer(raws)], end=None)


async def read(stream: FakeStream | bytes, **options: Any) -> tuple[list[Any], MessageStream]:
    """Every event of the stream, and the stream, closed."""
    async with client_of(stream, **options).messages.stream(**ASK) as opened:
        return [event async for event in opened], opened


async def fail(stream: FakeStream | bytes, **options: Any) -> tuple[APIError, MessageStream]:
    """The error that reading the stream raises, and the stream."""
    opened = client_of(stream, **options).messages.stream(**ASK)
    with pytest.raises(APIError) as caught:
        async with opened:
            await opened.until_done()
    return caught.value, opened


async def read_body(client: AsyncClient, body: Any, kind: type[BodyAnswer] = BodyAnswer) -> bytes:
    """The body of the answer to a request with this body, as far as it comes, whatever it says."""
    call, got = client.call("POST", "/v1/messages", kind=kind, body=body), b""
    with contextlib.suppress(APIError):
        answer = await call.open()
        while True:
            got += b"".join(answer.take())
            if answer.is_over:
                break
            await call.more()
    call.release()
    return got


def types(events: list[Any]) -> list[str]:
    return [event.type for event in events]


# --- Without a client ------------------------------------------------------------------------------------------------

REQUEST = RequestData("POST", "/v1/messages", "api.example", (("x-api-key", "secret"), ("accept", "a/b")), b'{"a":1}')
ROUTE = Route(Origin("http", "api.example", 80))
OFF = Timeouts(connect=None, head=None, silence=None, content=None)
ALL_ON = Timeouts(total=1800)

E = TypeVar("E", bound=Exchange)


@contextlib.contextmanager
def case(name: str) -> Iterator[None]:
    """One of many cases in a test: its name stands below the failure."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"case: {name}")
        raise


class Attempt(Generic[E]):
    """An exchange of this kind, driven as `Call` does. `now` is the time; `events` are what an `Answer` has given out."""

    def __init__(
        self,
        kind: type[E],
        timeouts: Timeouts = OFF,
        *,
        request: RequestData = REQUEST,
        route: Route = ROUTE,
        now: float = 1000.0,
        **options: Any,
    ) -> None:
        self.now = now
        self.events: list[Any] = []
        self.timing = Timing(lambda: self.now, self.now)
        holds = options.pop("holds", False)
        self.exchange = kind(CallSettings(request, route, timeouts, **options), self.timing, holds=holds)
        self.exchange.begin()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self.now - self.timing.started

    @property
    def error(self) -> APIError:
        """The error with which it is over."""
        assert self.exchange.is_over
        assert self.exchange.error is not None
        return self.exchange.error

    def send(self, *, is_reused: bool = False) -> Self:
        """It is connected at once, and the request is sent."""
        self.exchange.connected(self.now, is_reused=is_reused)
        self.exchange.send()
        self.exchange.sent(self.now)
        return self

    def play(self, *chunks: bytes | float | OSError | None) -> Self:
        """Wait, for one after the other: bytes, `b""` for the peer's close, the loss of the connection. A number is so many
        seconds of silence, None is silence for ever."""
        exchange = self.exchange
        at, clock = exchange.deadline(self.now)
        for chunk in chunks:
            if exchange.is_over:
                break
            if chunk is None or isinstance(chunk, float | int):
                then = math.inf if chunk is None else self.now + chunk
                self.now = min(then, at)
                if then < at or at == math.inf:
                    continue
                exchange.expire(clock, self.now)
            elif isinstance(chunk, OSError):
                exchange.lose(chunk)
            else:
                exchange.receive(chunk, self.now)
            self.take()
            at, clock = exchange.deadline(self.now)
        return self

    def take(self) -> None:
        """Take the events, or the pieces of the body, that have come, if it gives any."""
        if isinstance(self.exchange, BodyAnswer):
            self.events += self.exchange.take()
        while isinstance(self.exchange, Answer) and (event := self.exchange.next_event()) is not None:
            self.events.append(event)
