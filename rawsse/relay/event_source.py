"""Heartbeats, resume, stop and back-pressure for any stream of events, in any ASGI application.

    runs = EventRuns()
    app.mount("/runs", runs)                       # GET /runs/{id} reads on, DELETE /runs/{id} stops

    @app.post("/countdown")
    async def countdown():
        return event_source(count_down(10), runs)  # an async generator of events

The generator runs by itself: a browser that lost its connection comes back with `Last-Event-ID`, and gets what it missed. When
no browser reads, it has a grace time for one to come back; then the generator is closed. Call `await runs.aclose()` when the
application ends.
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
from rawsse.relay.dialects import Answer, Dialect, Failure, Frame, compact, frame
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
    """Frames of the items of a generator: an `Event` as it is, a text as data, anything else as its JSON."""

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
    """Reads an async generator, one item at a time: a `Source`. It is closed when the run ends."""

    stream: EventStream | None = None

    def __init__(self, items: AsyncIterable[Any], receive: Receive, ended: Ended) -> None:
        self._items = items
        self._receive = receive
        self._ended = ended
        self._is_closed = False
        self._may_read = asyncio.Event()
        self._may_read.set()

    async def open(self) -> None:
        """Read all items, or those until `close`. Raises what the generator raises."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - the run's own
        try:
            async for item in self._items:
                if not task.cancelling():  # else the generator has caught the cancellation, and goes on
                    self._receive([item], loop.time())
                if task.cancelling() or self._is_closed:
                    break
                await self._may_read.wait()
        except Exception as exc:
            if isinstance(status := getattr(exc, "status_code", None), int):  # as Starlette's `HTTPException`
                raise Answer(status, "api_error", str(getattr(exc, "detail", exc))) from exc
            raise
        finally:
            await _close(self._items)
        if task.cancelling():
            raise asyncio.CancelledError
        if not self._is_closed:
            self._ended(Ending("complete", "the generator has ended", "done"), None)

    def pause(self) -> None:
        """Ask for no further item."""
        self._may_read.clear()

    def resume(self) -> None:
        """Go on."""
        self._may_read.set()

    def close(self) -> Ending:
        """Read no more. The task that reads the generator closes it: it is cancelled, or has just received an item."""
        self._is_closed = True
        return Ending("cancelled", "the run was stopped", "content")


async def _close(items: AsyncIterable[Any]) -> None:
    if (aclose := getattr(items, "aclose", None)) is not None:
        await aclose()


class EventRuns:
    """Runs of generators, and the ASGI application that resumes and stops them: `GET /{id}`, `DELETE /{id}`.

    A run belongs to the user who began it, and others do not find it. `authenticate` gives the user of a request, here and in
    `event_source`; None is answered with 401. Without it, it is the user in `scope["user"]`, which Starlette's
    `AuthenticationMiddleware` sets. A login by FastAPI's `Depends` does not: then give `authenticate`, or let no client choose
    the id of a run, as all who know it may read and stop it. `limits` and `heartbeat_seconds` are those of the relay. The
    caller must `aclose` it.
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
        self.guard = Guard()  # adds no header fields; the application decides who comes in
        self.response: Any = EventSource
        with contextlib.suppress(ImportError):  # FastAPI takes an answer of a route as it is only if it is Starlette's
            starlette = importlib.import_module("starlette.responses")
            self.response = type("EventSourceResponse", (EventSource, starlette.Response), {})

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: Send) -> None:
        """ASGI 3."""
        await self.answer(Exchange(scope, receive, send, self.guard), self._route)

    async def answer(self, exchange: Exchange, route: Callable[[Exchange, str], Awaitable[None]]) -> None:
        """Call `route` with the exchange and the id of its user, which is empty where there are no users; or send an error."""
        with contextlib.suppress(OSError):  # the client has gone
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
        """Send the run, after the frame that the client has seen last. Raises `Answer`: 400, 410."""
        wanted = exchange.headers.get("last-event-id", "")
        after = run.number_of(wanted) if wanted else 0
        if after is None:
            raise Answer(400, "invalid_request_error", "Last-Event-ID: not an id of this run", field="Last-Event-ID")
        await follow(exchange, run, after, keeps_status=not wanted)

    async def aclose(self) -> None:
        """End every run with a last frame that says so, and close their generators."""
        await self.runs.aclose(Failure(503, "shutdown", "the server is shutting down", retry=2000))


class EventSource:
    """The answer of a route: see `event_source`. `headers` and `background` are those of Starlette's `Response`."""

    def __init__(self, items: AsyncIterable[Any], owner: EventRuns, run_id: str | None) -> None:
        super().__init__()  # of the `Response`, if it is one
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
        run = runs.get(user, self._run_id) if self._run_id else None
        is_back = "last-event-id" in exchange.headers
        if run is not None or is_back:
            await _close(self._items)
        if run is None and is_back:
            raise Gone(410, "not_found_error", "there is no such run any more; ask without Last-Event-ID")
        run = run or runs.begin(ItemsDialect(), partial(ItemSource, self._items), user=user, id=self._run_id)
        await self._owner.send(run, exchange)


def event_source(items: AsyncIterable[Any], runs: EventRuns, run_id: str | None = None) -> Any:
    """An ASGI application that sends the items of an async generator as server-sent events, and a `Response` where Starlette
    or FastAPI is there.

    An item is a `rawsse.sse.Event`, a text, or a value that becomes JSON. Each event gets an id, and `x-run-id` names the run.
    With `run_id`, a request for the run that goes on, or has just ended, reads that one: so an `EventSource` may come back to
    the same address. An exception before the first item is answered with its `status_code`, or 500; after it, it is an `error`
    event.

    Raises `ConfigurationError` for a `run_id` that is not 16 to 64 of A-Z a-z 0-9 _ -: it is sent in a header field, and may be
    all that keeps a stranger from the run.
    """
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise ConfigurationError(f"run_id must be 16 to 64 of A-Z a-z 0-9 _ -, not {quote(run_id)}")
    return runs.response(items, runs, run_id)
