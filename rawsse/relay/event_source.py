"""Heartbeats, resume, stop and back-pressure for any stream of events, in any ASGI application.

    runs = EventRuns()
    app.mount("/runs", runs)                       # GET /runs/{id} resumes, DELETE /runs/{id} stops

    @app.post("/countdown")
    async def countdown():
        return event_source(count_down(10), runs)  # an async generator of events

The generator runs independently: a browser that lost its connection reconnects with `Last-Event-ID`, and gets the events it
missed. When no browser reads, there is a grace period to reconnect; then the generator is closed. Call `await runs.aclose()`
when the application ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any

from rawsse.client.stream import EventStream
from rawsse.errors import ConfigurationError, Ending, quote
from rawsse.relay.dialects import Answer, Asked, Dialect, Failure, Frame, compact, frame
from rawsse.relay.exchange import Exchange
from rawsse.relay.feed import Gone
from rawsse.relay.follow import follow
from rawsse.relay.guard import Guard
from rawsse.relay.push import Ended, Receive
from rawsse.relay.record import RUN_ID
from rawsse.relay.runs import HEARTBEAT_SECONDS, Run, RunLimits, Runs
from rawsse.relay.users import Authenticate, Tokens, identify, user_of_scope
from rawsse.server import Receive as ASGIReceive
from rawsse.server import Scope, Send
from rawsse.sse import Event, encode


class ItemsDialect(Dialect):
    """Frames for the items of a generator: an `Event` unchanged, a string as data, anything else as JSON."""

    name = "items"

    def event(self, event: Any) -> list[Frame]:
        if isinstance(event, Event):
            return [encode(event.data, event=event.event if event.event != "message" else None).decode()]
        return [frame(event if isinstance(event, str) else compact(event))]

    def fail(self, failure: Failure) -> list[Frame]:
        return [frame(failure.to_json(), "error")]

    def end(self, ending: Ending) -> list[Frame]:
        return []


class ItemSource:
    """A `Source` that reads an async generator, one item at a time, and closes it when the run ends."""

    stream: EventStream | None = None

    def __init__(self, items: AsyncIterable[Any], receive: Receive, ended: Ended) -> None:
        self._items = items
        self._receive = receive
        self._ended = ended
        self._is_closed = False
        self._may_read = asyncio.Event()
        self._may_read.set()

    async def open(self) -> None:
        """Read all items until the end or `close`. Raises the generator's exceptions."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - the run's own
        try:
            async for item in self._items:
                if not task.cancelling():  # else the generator has caught the cancellation, and continues
                    self._receive([item], loop.time())
                if task.cancelling() or self._is_closed:
                    break
                await self._may_read.wait()
        except Exception as exc:
            if isinstance(status := getattr(exc, "status_code", None), int):  # such as Starlette's `HTTPException`
                raise Answer(status, "api_error", str(getattr(exc, "detail", exc))) from exc
            raise
        finally:
            await _close(self._items)
        if task.cancelling():
            raise asyncio.CancelledError
        if not self._is_closed:
            self._ended(Ending("complete", "the generator has ended", "done"), None)

    def pause(self) -> None:
        """Stop requesting items."""
        self._may_read.clear()

    def resume(self) -> None:
        """Continue."""
        self._may_read.set()

    def close(self) -> Ending:
        """Stop reading. The reading task closes the generator: it is cancelled, or has just received an item."""
        self._is_closed = True
        return Ending("cancelled", "the run was stopped", "content")


async def _close(items: AsyncIterable[Any]) -> None:
    if (aclose := getattr(items, "aclose", None)) is not None:
        await aclose()


class EventRuns:
    """Runs of generators, and the ASGI application that resumes and stops them: `GET /{id}`, `DELETE /{id}`.

    A run belongs to the user who started it; others cannot find it. `authenticate` returns the user of a request, here and in
    `event_source`; None is answered with 401. The default is the user in `scope["user"]`, which Starlette's
    `AuthenticationMiddleware` sets. A login by FastAPI's `Depends` does not: in that case pass `authenticate`, or do not let
    clients choose run ids, since anyone who knows an id may read and stop the run. `limits` and `heartbeat_seconds` are as in
    the relay. The caller must `aclose` it.
    """

    def __init__(
        self,
        limits: RunLimits | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        *,
        authenticate: Authenticate | None = None,
    ) -> None:
        self.authenticate = authenticate
        self.runs = Runs(limits or RunLimits(), heartbeat_seconds)
        self.guard = Guard()  # adds no header fields; the application controls access
        self.response: Any = EventSource
        with contextlib.suppress(ImportError):  # FastAPI passes a route's result through only if it is Starlette's
            starlette = importlib.import_module("starlette.responses")
            self.response = type("EventSourceResponse", (EventSource, starlette.Response), {})

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: Send) -> None:
        """ASGI 3."""
        await self.answer(Exchange(scope, receive, send, self.guard), self._route)

    async def answer(self, exchange: Exchange, route: Callable[[Exchange, str], Awaitable[None]]) -> None:
        """Call `route` with the exchange and its user's id, which is empty if there are no users; or send an error."""
        with contextlib.suppress(OSError):  # the client has disconnected
            try:
                user = user_of_scope(exchange.scope)
                if self.authenticate is not None:
                    user = await identify(exchange.scope, exchange.headers, Tokens(), self.authenticate)
                await route(exchange, user.id if user is not None else "")
            except Answer as answer:
                await exchange.send_answer(answer)

    async def _route(self, exchange: Exchange, user: str) -> None:
        run = self.runs.get(user, exchange.path.removeprefix("/"))
        if run is None:
            raise Answer(404, "not_found_error", "there is no such run; it may have been forgotten")
        if exchange.method == "DELETE":
            run.stop(Failure(200, "cancelled", "stopped"))
            await exchange.send_whole(204)
        elif exchange.method == "GET":
            await self.send(run, exchange)
        else:
            raise Answer(405, "invalid_request_error", "GET or DELETE", headers={"allow": "GET, DELETE"})

    async def send(self, run: Run, exchange: Exchange) -> None:
        """Send the run after the last frame that the client has seen. Raises `Answer`: 400, 410."""
        wanted = exchange.headers.get("last-event-id", "")
        after = run.number_of(wanted) if wanted else 0
        if after is None:
            raise Answer(400, "invalid_request_error", "Last-Event-ID: not an id of this run", field="Last-Event-ID")
        await follow(exchange, run, after, keeps_status=not wanted)

    async def aclose(self) -> None:
        """End every run with a last frame that reports the shutdown, and close the generators."""
        await self.runs.aclose(Failure(503, "shutdown", "the server is shutting down", retry=2000))


class EventSource:
    """The result of a route: see `event_source`. `headers` and `background` are as in Starlette's `Response`."""

    def __init__(self, items: AsyncIterable[Any], owner: EventRuns, run_id: str) -> None:
        super().__init__()  # of `Response`, if it is the base
        self._items, self._owner, self._run_id = items, owner, run_id

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: Send) -> None:
        """ASGI 3."""
        exchange = Exchange(scope, receive, send, self._owner.guard)
        given = self.headers.items() if hasattr(self, "headers") else ()
        exchange.more_fields += [(name, value) for name, value in given if name != "content-length"]
        await self._owner.answer(exchange, self._route)
        if (background := getattr(self, "background", None)) is not None:
            await background()

    async def _route(self, exchange: Exchange, user: str) -> None:
        runs = self._owner.runs
        run = runs.get(user, self._run_id)
        is_back = "last-event-id" in exchange.headers
        if run is not None or is_back:
            await _close(self._items)
        if run is None and is_back:
            raise Gone(410, "not_found_error", "the run no longer exists; ask without Last-Event-ID")
        if run is None:
            new = Run(Asked(ItemsDialect(), {}, id=self._run_id), user, runs)
            run = runs.begin(new, partial(ItemSource, self._items))
        await self._owner.send(run, exchange)


def event_source(items: AsyncIterable[Any], runs: EventRuns, run_id: str | None = None) -> Any:
    """An ASGI application that sends the items of an async generator as server-sent events. It is a `Response` if Starlette
    is installed.

    An item is a `rawsse.sse.Event`, a text, or a value that becomes JSON. Each event gets an id, and `x-run-id` names the run.
    With `run_id`, a request for a run in progress, or one that has just ended, reads that run, so an `EventSource` may
    reconnect to the same address. An exception before the first item is answered with its `status_code`, or 500; a later one
    becomes an `error` event.

    Raises `ConfigurationError` for a `run_id` that is not 16 to 64 of A-Z a-z 0-9 _ -: it is sent in a header field, and may be
    the only protection of the run.
    """
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise ConfigurationError(f"run_id must be 16 to 64 of A-Z a-z 0-9 _ -, not {quote(run_id)}")
    return runs.response(items, runs, run_id or "")
