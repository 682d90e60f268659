"""The relay: an ASGI 3 application that answers browsers with the Messages API's events.

This file has the routes. `runs.py` has a run's lifecycle, `follow.py` sends it, `dialects.py` and `ui.py` define the frames,
`guard.py` and `users.py` decide who may use the relay.

    async with AsyncClient() as client:
        await serve(Relay(client, model="claude-sonnet-5"), "127.0.0.1", 8000)

or mounted in an application: `app = FastAPI(lifespan=relay.lifespan)`, `app.mount("/claude", relay)`. At shutdown every open
stream gets its last frame. uvicorn and hypercorn notify an application of the shutdown only when no stream is open, or after
a timeout (`timeout_graceful_shutdown`, `graceful_timeout`), so `lifespan` handles the signals itself. Where it cannot
(hypercorn's workers get none), call `await relay.aclose()`. Unlike `rawsse serve`, they close their ports at the signal: while
answers continue (`shutdown_seconds`), new requests, resumes and `/readyz` find no server, and a proxy answers 502.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from inspect import iscoroutinefunction
from itertools import chain
from pathlib import Path
from typing import Any

from rawsse.client.client import AsyncClient
from rawsse.errors import ConfigurationError, RawsseError
from rawsse.http1 import MAX_BODY_BYTES
from rawsse.relay.dialects import (
    Answer,
    Asked,
    Dialect,
    Failure,
    InvalidRequest,
    MessagesDialect,
    WholeDialect,
    failure_of,
    one_line,
    read_messages,
    snapshot,
)
from rawsse.relay.doctor import HEARTBEAT_FIELD, send_beats
from rawsse.relay.exchange import TEXT, THREAD_BYTES, WRITE_SECONDS, Exchange
from rawsse.relay.feed import Feed, Gone
from rawsse.relay.follow import SSE_HEADERS, follow, follow_all, refused, send_refusal
from rawsse.relay.guard import Guard
from rawsse.relay.ledger import Ledger
from rawsse.relay.metrics import CONTENT_TYPE, Metrics
from rawsse.relay.node import Node
from rawsse.relay.page import Page
from rawsse.relay.paths import DIALECTS
from rawsse.relay.push import EventPush, UnfoldedAnswer
from rawsse.relay.quotas import Quotas
from rawsse.relay.record import RUN_ID, Observer, RunLog, RunRecord
from rawsse.relay.runs import HEARTBEAT_SECONDS, Home, Run, RunLimits, Runs, checked
from rawsse.relay.store import Store
from rawsse.relay.ui import UIDialect
from rawsse.relay.users import Authenticate, Tokens, User, UserLimits, changed_request, choose, identify, models_of
from rawsse.server import Receive, Scope, Send
from rawsse.server.asgi import unless_gone
from rawsse.server.server import signals_call

MAX_CHAT_BYTES = 8 * 1024 * 1024
"""The largest body of a browser's request. It contains images as base64; the API accepts 5 MB for each. `/v1/messages` accepts
as much as the API."""

DEFAULT_MAX_TOKENS = 4096
"""The longest answer to a browser's request, and to a request without `max_tokens`."""

DAY_SECONDS = 86_400

REFUSALS = (401, 403, 421, 429, 503)
"""Statuses of requests that were refused, as the metrics count them."""

MAX_PROMPT_CHARS = 400_000
"""The longest text in a request: about 100,000 tokens."""

SHUTDOWN_RETRY_MS = 2000
"""How long a browser waits before it reconnects to a relay that is being restarted."""

# Header fields of a request that are forwarded. Never credentials: the relay has its own key.
_FOR_THE_API = ("anthropic-version", "anthropic-beta", "anthropic-workspace-id", "anthropic-user-profile-id")

MAX_RUNS_READ = 32
"""How many runs one request may read or stop."""

_CHAT_PATH = re.compile("/api/chat/.+/stream", re.DOTALL)

OnRequest = Callable[[dict[str, Any], User | None], Awaitable[dict[str, Any] | None]]
"""The embedder's function: returns another request, or None to keep the request, or raises `Answer`."""

log = logging.getLogger("rawsse.relay")


class Relay(Observer):
    """The Messages API, re-emitted to browsers. An ASGI application.

    `client` makes the upstream calls; the caller closes it. A client with a flight recorder (`AsyncClient(recorder=…)`) keeps
    recordings of upstream failures.

    `model` and `max_tokens` are the defaults of a request, and `models` are the only models it may name. A browser's request
    gets `system` and cannot set it, cannot name another model if there are no `models`, and cannot exceed `max_tokens` (4,096
    by default). A program's request, on `/v1/messages`, may set the system prompt, may name any model if there are no
    `models`, and may request any number of tokens unless `max_tokens` is given.

    `guard` decides which hosts and origins are answered, and has the tokens. `authenticate`, an `async def`, gets the scope of
    a request and returns its user: an id, or `User(id, UserLimits(…))`, or None for an unknown user, who gets a 401. Tokens
    are then ignored. It may close a route: `if "/v1/" in scope["path"]: raise Answer(404, "not_found_error", "…")` leaves
    users only the routes of browsers. Without it, a login of the host (`scope["user"]`) or a token identifies the user.
    `user_limits` apply to each user without limits, `all_limits` to all users together, and where there are no users.

    `async def on_request(request, user)` is awaited before each request is sent. `request` is its JSON, a dict; `user` is a
    `User`, or None if there are no users. It returns another complete request, or None to keep this one, or raises `Answer`,
    whose message the client gets: `Answer(403, "permission_error", "The word … is not allowed here.")`. The user is known by
    then, and the limits are checked later: a request that it refuses counts for none of them, and one that it has seen may
    still be refused. To count requests use `observers`, which are notified of each run that begins.

    `ledger` gets a row for each run, so that quotas survive a restart; `lifespan` closes it, or the caller does.
    `on_end` is called with the record of each run that has ended, and `observers` are notified of all runs; these
    functions must not block. `metrics_token` admits callers of `/metrics` that are not operators.

    The logger `rawsse.relay` writes one line for each run that has ended: at INFO, or at WARNING if it failed. The application
    configures logging, for example with `logging.basicConfig(level=logging.INFO)`: uvicorn and other servers configure only
    their own.

    `store` is shared with other nodes: each of them can then read and stop all runs, and quotas are shared. The caller closes
    it after the relay.

    The built-in page needs no login, but its requests do. It shows `notice` below its greeting, and offers `examples` as
    prompts. `static` is a folder that replaces it; an empty one leaves only the browser modules, such as `/rawsse.js`.

    `limits` are those of runs; `max_body_bytes` bounds the body of `/v1/messages`, `max_chat_bytes` that of the browsers'
    routes. `write_seconds` is how long a client may read nothing, under servers other than `rawsse.server`. `clock`
    returns Unix seconds. Raises `ConfigurationError`.

    `shutdown_seconds` is how long running answers may continue at a shutdown. Meanwhile no run begins, and `/readyz` returns
    503. The host's own limit, such as uvicorn's `timeout_graceful_shutdown`, must be longer: at a shorter one uvicorn cancels
    the open requests, and logs a traceback for each.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        model: str = "claude-sonnet-5",
        models: Sequence[str] = (),
        max_tokens: int | None = None,
        system: str | None = None,
        guard: Guard | None = None,
        authenticate: Authenticate | None = None,
        user_limits: UserLimits | None = None,
        all_limits: UserLimits | None = None,
        on_request: OnRequest | None = None,
        ledger: Ledger | None = None,
        store: Store | None = None,
        on_end: Callable[[RunRecord], None] | None = None,
        observers: Sequence[Observer] = (),
        metrics_token: str | None = None,
        static: Path | None = None,
        notice: str = "",
        examples: Iterable[str] = (),
        limits: RunLimits | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        shutdown_seconds: float = 0.0,
        write_seconds: float = WRITE_SECONDS,
        max_chat_bytes: int = MAX_CHAT_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_prompt_chars: int = MAX_PROMPT_CHARS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not heartbeat_seconds > 0:
            raise ConfigurationError(f"heartbeat_seconds must be above 0, not {heartbeat_seconds}")
        if not shutdown_seconds >= 0:
            raise ConfigurationError(f"shutdown_seconds must be 0 or more, not {shutdown_seconds}")
        for function in (on_end, *chain.from_iterable((observer.begun, observer.ended) for observer in observers)):
            if _is_async(function):
                raise ConfigurationError(f"{function!r} must be a plain function: it is called and not awaited")
        self.client = client
        self._defaults = {"model": model, "max_tokens": DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens}
        self._defaults |= {"system": system} if system is not None else {}
        self._models = tuple(dict.fromkeys((model, *models)))
        self._own_limits = UserLimits(models=self._models if models else None, max_tokens=max_tokens)
        self._guard = guard or Guard()
        self._authenticate = authenticate
        self._on_request = on_request
        self._on_end = on_end
        self._clock = clock
        self.ledger = ledger
        self.quotas = Quotas(all_limits, user_limits)
        read: dict[str, Callable[[], float]] = {
            "rawsse_readers": lambda: sum(self.home.count_readers().values()),
            "rawsse_ready": lambda: int(not (self._runs.is_draining or self.home.is_cut_off)),
        }
        if ledger is not None:
            now = clock()
            self.quotas.settle(ledger.tokens_since(now - now % DAY_SECONDS), now)
            read["rawsse_ledger_rows_dropped_total"] = lambda: ledger.dropped
            observers = [*observers, ledger]
        self.metrics = Metrics(read, self._models)
        self._metrics_tokens = Tokens([metrics_token] if metrics_token is not None else ())
        observers = [RunLog(), self.quotas, self.metrics, *observers, self]
        self._runs = Runs(limits or RunLimits(), heartbeat_seconds, observers=observers, clock=clock)
        self.home = Home(self._runs, self.quotas) if store is None else Node(self._runs, self.quotas, store)
        self._is_cutting = False  # `_cut_all` is about to be called
        self._shutdown_seconds = shutdown_seconds
        self._page = Page(static, notice=notice, examples=examples)
        self._write_seconds = write_seconds
        self._max_chat_bytes = max_chat_bytes
        self._max_body_bytes = max_body_bytes
        self._max_prompt_chars = max_prompt_chars

    def open_runs(self, user: str | None = None) -> list[Run]:
        """The runs that have not ended, of one user or of all. `run.stop(Failure(…))` stops one."""
        return self._runs.open(user)

    def ended(self, record: RunRecord) -> None:
        """A run has ended. If it used up the day's tokens, and the limits require it, stop the other runs; call `on_end`."""
        if not self._is_cutting and self.quotas.must_end(record.user, self._clock()):
            self._is_cutting = True
            asyncio.get_running_loop().call_soon(self._cut_all)  # later: each stopped run calls this again
        if self._on_end is not None:
            self._on_end(record)

    def _cut_all(self) -> None:
        self._is_cutting = False
        self.home.stop_used_up()

    async def drain(self) -> None:
        """Begin no more runs, and wait until those that have begun have ended: for `shutdown_seconds` at most, or until
        `aclose` is called. Call it while clients can still connect, and then `aclose`."""
        await self._runs.drain(self._shutdown_seconds)

    async def aclose(self) -> None:
        """End every run with a last frame that reports the shutdown, and wait until all have ended."""
        text = "the server is shutting down"
        await self.home.aclose(Failure(503, "shutdown", text, {"retry-after": "2"}, retry=SHUTDOWN_RETRY_MS))

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The lifespan of an application that mounts the relay, as in `FastAPI(lifespan=relay.lifespan)`: the streams end
        within `shutdown_seconds` of the first SIGTERM or SIGINT, or at the second one, and then the ledger is closed."""
        del app
        stop, end = asyncio.Event(), asyncio.Event()

        async def drain() -> None:
            await stop.wait()
            await self.drain()
            end.set()

        async def close() -> None:
            await end.wait()
            await self.aclose()

        def on_signal() -> None:
            (end if stop.is_set() else stop).set()

        await self.home.start()
        tasks = [asyncio.create_task(each) for each in (drain(), close())]
        try:
            with signals_call(on_signal, passes_on=True):
                yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)
        if self.ledger is not None:
            await asyncio.to_thread(self.ledger.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3: the scopes `http` and `lifespan`."""
        if scope["type"] == "http":
            with contextlib.suppress(OSError):  # the client has disconnected
                await _Call(self, scope, receive, send).answer()
        elif scope["type"] == "lifespan":
            await receive()
            await self.home.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.drain()
            await self.aclose()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            raise ValueError(f"the relay does not support the ASGI scope {scope['type']!r}")


class _Call(Exchange):
    """One request to the relay."""

    def __init__(self, relay: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send, relay._guard, write_seconds=relay._write_seconds)
        self._relay = relay
        self._user: User | None = None
        self._user_id = ""
        self._dialect = self._expected_dialect()

    def _expected_dialect(self) -> Dialect:
        """The dialect of a request whose body has not been read; that of `/v1/messages` wherever errors are JSON."""
        kinds = DIALECTS.get(self.path, (UIDialect,) if _CHAT_PATH.fullmatch(self.path) else (MessagesDialect,))
        accepts_events = "text/event-stream" in self.headers.get("accept", "")
        return kinds[-1 if accepts_events else 0]()

    async def answer(self) -> None:
        """Find the route and run it. Errors have the form of the route's dialect."""
        try:
            await self._route()
        except Answer as answer:
            if answer.status in REFUSALS:
                self._relay.metrics.count_refusal(answer.type)
            await send_refusal(self, self._dialect, answer)
        except RawsseError as exc:
            level = logging.ERROR if isinstance(exc, ConfigurationError) else logging.WARNING
            log.log(level, "%s failed: %s", one_line(self.path), one_line(str(exc)))
            await send_refusal(self, self._dialect, refused(failure_of(exc)))

    async def _route(self) -> None:
        handlers = next(each for pattern, each in _ROUTES.items() if pattern.fullmatch(self.path))
        if handlers is not _HEALTH:
            await self._check_sender(is_call=handlers is not _FILES and self.method != "OPTIONS")
        if self.method in handlers:
            await handlers[self.method](self)
        elif self.method == "OPTIONS":
            await self.send_preflight(", ".join(handlers))
        else:
            if handlers is _FILES:  # 404 takes precedence over 405
                await asyncio.to_thread(self._relay._page.find, self.path)
            text, allowed = f"{self.path} does not take {self.method}", {"allow": ", ".join(handlers)}
            raise Answer(405, "invalid_request_error", text, headers=allowed)

    async def _check_sender(self, *, is_call: bool) -> None:
        """Raises `Answer` unless the host, the origin and the user are allowed. `is_call`: the request is not for the page."""
        relay = self._relay
        if (refusal := relay._guard.refuse(self.headers, is_call=is_call)) is not None:
            raise refusal
        if is_call and not (self.path == "/metrics" and relay._metrics_tokens.find_token(self.headers)):
            try:
                self._user = await identify(self.scope, self.headers, relay._guard.tokens, relay._authenticate)
            except ConfigurationError as exc:
                raise ConfigurationError(f"the user that the host application gave cannot be used: {exc}") from exc
            self._user_id = self._user.id if self._user is not None else ""

    # Routes that begin a run -----------------------------------------------------------------------------------------

    async def _messages(self) -> None:
        request = await self._read_messages()
        whole = WholeDialect(self._relay.client._settings.max_message_bytes)
        await self._generate(Asked(MessagesDialect() if request.get("stream") else whole, request))

    async def _read_messages(self) -> dict[str, Any]:
        # Only the size of the body is limited here: the API limits the texts in it.
        limit = self._relay._max_body_bytes
        return await self.read_json(partial(read_messages, max_prompt_chars=limit), limit)

    async def _chat(self) -> None:
        """A browser's request."""
        is_named, max_chars = "x-run-id" in self.headers, self._relay._max_prompt_chars

        def read(body: dict[str, Any]) -> Asked:
            kind = next(kind for kind in DIALECTS[self.path] if kind.can_read(body))
            self._dialect = kind()
            asked = kind.read(body, max_chars)
            return asked._replace(id=self._run_id, fingerprint=_fingerprint(asked, body)) if is_named else asked

        await self._generate(await self.read_json(read, self._relay._max_chat_bytes))

    async def _generate(self, asked: Asked) -> None:
        # A client that chose the run's id may repeat its request.
        known = await self._relay.home.find(self._user_id, asked.id) if asked.id else None
        run = await self._new_run(asked) if known is None else checked(known, asked.fingerprint)
        # RFC 7240, 4.1: a page may start an answer with one request and read it with another.
        if asked.dialect.is_resumable and "respond-async" in self.headers.get("prefer", "").lower():
            if isinstance(run, Run):
                run.wait_for_readers()
            await self.send_json({"run": run.id}, 202, [("x-run-id", run.id), ("preference-applied", "respond-async")])
            return
        await follow(self, run, keeps_status=True)

    @property
    def _seen(self) -> list[str]:
        """The ids of the last frames that the client has seen."""
        return [each for each in (*self.query.get("after", ()), self.headers.get("last-event-id", "")) if each]

    async def _new_run(self, asked: Asked) -> Feed:
        relay, is_browser = self._relay, asked.dialect.is_resumable
        request = await self._completed(asked.request, is_browser=is_browser)
        # A client of `/v1/messages` retries by itself, as the official SDKs do, and retries at two layers multiply.
        options: dict[str, Any] = {"headers": self._api_headers(), "max_retries": None if is_browser else 0}
        events = partial(relay.client.messages.events, request, kind=UnfoldedAnswer, strict=False, **options)
        asked = asked._replace(request=request)
        run, fields = await relay.home.begin(asked, partial(EventPush, events), self._user)
        self.more_fields += fields.items()
        return run

    @property
    def _run_id(self) -> str:
        """The id that the client has chosen."""
        wanted = self.headers["x-run-id"]
        if not RUN_ID.fullmatch(wanted):
            raise InvalidRequest("x-run-id", "must be 16 to 64 of A-Z a-z 0-9 _ -")
        return wanted

    async def _completed(self, request: dict[str, Any], *, is_browser: bool) -> dict[str, Any]:
        """The request to send: completed with the relay's choices, and changed by the embedder.

        Raises `Answer`, `ConfigurationError`, and `ConnectionError` if the client disconnected during the embedder's call.
        """
        relay = self._relay
        request = choose(request, relay._defaults, self._limits, is_browser=is_browser)
        if relay._on_request is not None:
            changed: object = await relay._on_request(request, self._user)
            request = request if changed is None else changed_request(changed)
        if (relay._on_request or relay._authenticate) is not None:
            await self.check_client()
        return request

    @property
    def _limits(self) -> tuple[UserLimits, ...]:
        """All limits that apply to this request."""
        quotas = self._relay.quotas
        return (self._relay._own_limits, quotas.everyone, quotas.limits_of(self._user))

    def _api_headers(self) -> dict[str, str]:
        found = {name: self.headers[name] for name in _FOR_THE_API if name in self.headers}
        for name, value in found.items():
            if not (value.isascii() and value.isprintable()):
                raise InvalidRequest(name, "must be printable ASCII")
        return found

    # Routes that read or stop one ------------------------------------------------------------------------------------

    async def _find_run(self, user: str) -> Feed:
        run = await self._relay.home.find(user, self.path.removeprefix("/runs/"), self._seen)
        if run is None:
            is_operator = self._user is not None and self._user.is_operator
            is_helped = is_operator and self.method == "DELETE" and user == self._user_id
            hint = "; ?user=ID names another user's" if is_helped else ""
            raise Answer(404, "not_found_error", f"there is no such run; it may have been forgotten{hint}")
        return run

    async def _stop_run(self) -> None:
        if (user := self._asked_user()) is None:
            raise InvalidRequest("user", "must name the user of the run")
        await self._relay.home.stop(await self._find_run(user))
        await self.send_whole(204)

    async def _read_run(self) -> None:
        count = self._relay.metrics.count_resume
        try:
            run = await self._find_run(self._user_id)
            after, first = await self._place(run)
            count("nothing_left" if run.is_finished and after >= run.last and not first else "resumed")
            await follow(self, run, after, first=first)
        except Answer as answer:
            count({404: "not_found", 410: "gone"}.get(answer.status, "invalid"))
            raise

    async def _place(self, run: Feed) -> tuple[int, bytes]:
        """The position from which the client continues, and the bytes that replace the frames before it."""
        if self.read_flag("snapshot"):
            log, last = run.kept()
            is_small = len(log) <= THREAD_BYTES
            return last, snapshot(log, run.dialect) if is_small else await asyncio.to_thread(snapshot, log, run.dialect)
        after = run.number_of(self._seen[-1]) if self._seen else 0
        if after is None:
            raise InvalidRequest("Last-Event-ID", "is not an id of this run")
        run.check_kept(after)
        return after, b""

    async def _read_runs(self) -> None:
        """Several runs in one connection; without an `id`, the list of open runs. Each `after` is the id of a frame, which
        includes that of its run."""
        found = await self._named_runs(self._user_id)
        if not found:
            await self._list_runs()
            return
        runs = [run for run in found.values() if run is not None]
        wanted = [(run, max((run.number_of(each) or 0 for each in self._seen), default=0)) for run in runs]
        await follow_all(self, wanted, missing=[id for id, run in found.items() if run is None])

    async def _named_runs(self, user: str) -> dict[str, Feed | None]:
        """The runs that are named, `?id=…&id=…`; None for each that is not there."""
        ids = list(dict.fromkeys(filter(None, self.query.get("id", ()))))
        if len(ids) > MAX_RUNS_READ:
            raise InvalidRequest("id", f"may be given {MAX_RUNS_READ} times")
        return {id: await self._relay.home.find(user, id, self._seen) for id in ids}

    async def _resume_chat(self) -> None:
        chat = self.path.removeprefix("/api/chat/").removesuffix("/stream")
        run = await self._relay.home.find_chat(self._user_id, chat)
        with contextlib.suppress(Gone):  # `useChat` needs the beginning, which is no longer kept
            if run is not None and not run.is_finished:
                await follow(self, run)
                return
        await self.send_whole(204)

    # Routes about runs -----------------------------------------------------------------------------------------------

    def _asked_user(self) -> str | None:
        """The user whose runs are requested, `?user=`; None: all users', `?user=*`. Raises `Answer`: 403."""
        asked = self.query.get("user", [""])[0]
        if not asked:
            return self._user_id
        if not (self._user is None or self._user.is_operator or asked == self._user_id != "*"):
            raise Answer(403, "permission_error", "user: only an operator may ask for the runs of others", field="user")
        return None if asked == "*" else asked

    async def _list_runs(self) -> None:
        """`readers_here` are the clients that read the run at this node."""
        now, runs = self._relay._clock(), await self._relay.home.open_runs(self._asked_user())
        told = [{**asdict(run), "seconds": now - run.time, "readers_here": readers} for run, readers in runs.items()]
        await self.send_json(told)

    async def _stop_runs(self) -> None:
        """Those that are named, or all."""
        home, user = self._relay.home, self._asked_user()
        if "id" not in self.query:
            await self.send_json({"stopped": await home.stop_all(user)})
            return
        if user is None:
            raise InvalidRequest("user", "must name the user of the runs")
        runs = [run for run in (await self._named_runs(user)).values() if run is not None and not run.is_finished]
        for run in runs:
            await home.stop(run)
        await self.send_json({"stopped": len(runs)})

    async def _me(self) -> None:
        await self.send_json(await self._relay.home.me(self._user))

    async def _doctor(self) -> None:
        await self._relay.home.me(self._user)  # raises `Answer`, 503, if the store cannot be reached
        self._relay._runs.check_room()
        heartbeat = (HEARTBEAT_FIELD, f"{self._relay._runs.heartbeat_seconds:g}")
        await send_beats(self, (*SSE_HEADERS, heartbeat))

    async def _metrics(self) -> None:
        if self._user is None:  # even without users, the token for the metrics is required
            await identify(self.scope, self.headers, self._relay._metrics_tokens)
        elif not self._user.is_operator:
            raise Answer(403, "permission_error", "only an operator may read the metrics, which cover all users")
        await self.send_whole(200, [("content-type", CONTENT_TYPE)], self._relay.metrics.render().encode())

    # Routes without a run --------------------------------------------------------------------------------------------

    async def _count_tokens(self) -> None:
        relay = self._relay
        defaults = {"model": relay._defaults["model"]}
        request = choose(await self._read_messages(), defaults, self._limits, is_browser=False)
        headers = self._api_headers()
        if relay._authenticate is not None:
            await self.check_client()
        fields = await relay.home.admit(self._user)
        self.more_fields += fields.items()
        call = relay.client.call("POST", self.path, body=request, headers=headers, max_retries=0)
        if (answer := await unless_gone(call.open(), self.receive)) is not None:
            await self.send_json(answer.value)

    async def _list_models(self) -> None:
        """The models that the relay allows, in one page, or one of them, in the API's form."""
        listed = models_of(self._limits)
        models = self._relay._models if listed is None else listed
        name = self.path.removeprefix("/v1/models").removeprefix("/")
        if name and name not in models:
            raise Answer(404, "not_found_error", f"model: {name}")
        # "may be set to an epoch value if the release date is unknown"
        about = {"type": "model", "created_at": "1970-01-01T00:00:00Z", "lifecycle": "active"}
        data = [{"id": each, "display_name": each, **about} for each in ([name] if name else models)]
        ends = {"first_id": models[0] if models else None, "last_id": models[-1] if models else None}
        await self.send_json(data[0] if name else {"data": data, "has_more": False, **ends})

    async def _file(self) -> None:
        headers, body = await asyncio.to_thread(self._relay._page.find, self.path)
        known = self.headers.get("if-none-match", "").split(",")
        # RFC 9110, 13.1.2: compared weakly.
        is_known = not {tag.strip().removeprefix("W/") for tag in known}.isdisjoint(("*", dict(headers)["etag"]))
        await self.send_whole(304 if is_known else 200, headers, b"" if is_known else body)

    async def _health(self) -> None:
        is_well = self.path == "/healthz" or await self._relay.home.is_ready()
        retry = [] if is_well else [("retry-after", "2")]
        await self.send_whole(200 if is_well else 503, [TEXT, *retry], b"ok\n" if is_well else b"not ready\n")


_Handlers = Mapping[str, Callable[[_Call], Awaitable[None]]]

_HEALTH: _Handlers = {"GET": _Call._health, "HEAD": _Call._health}
"""Open to everyone: load balancers send an IP address as `Host`, and the answer reveals nothing."""

_FILES: _Handlers = {"GET": _Call._file, "HEAD": _Call._file}

_ROUTES: Mapping[re.Pattern[str], _Handlers] = {
    re.compile("|".join(map(re.escape, DIALECTS))): {"POST": _Call._chat},
    re.compile("/v1/messages"): {"POST": _Call._messages},
    re.compile("/v1/messages/count_tokens"): {"POST": _Call._count_tokens},
    re.compile("/v1/models(/.*)?", re.DOTALL): {"GET": _Call._list_models},
    re.compile("/runs"): {"GET": _Call._read_runs, "DELETE": _Call._stop_runs},
    re.compile("/runs/.*", re.DOTALL): {"GET": _Call._read_run, "DELETE": _Call._stop_run},
    _CHAT_PATH: {"GET": _Call._resume_chat},
    re.compile("/me"): {"GET": _Call._me},
    re.compile("/metrics"): {"GET": _Call._metrics},
    re.compile("/doctor"): {"GET": _Call._doctor},
    re.compile("/healthz|/readyz"): _HEALTH,
    re.compile(".*", re.DOTALL): _FILES,
}
"""Paths, and the handlers of each by method. The first match is used; all other paths are files of the page."""


def _is_async(function: object) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _fingerprint(asked: Asked, body: Mapping[str, Any]) -> str:
    """Equal for two requests only if the requests are equal."""
    what = [asked.dialect.name, asked.request, bool(body.get("usage"))]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
