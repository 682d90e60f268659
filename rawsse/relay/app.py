"""The relay: an ASGI 3 application that answers browsers with the Messages API's events.

Here are the routes. How a run lives is told in `runs.py`, how it is sent in `follow.py`, the form of a frame in `dialects.py`
and `ui.py`, and who may use the relay in `guard.py`.

    async with AsyncClient() as client:
        await serve(Relay(client, model="claude-sonnet-4-5"), "127.0.0.1", 8000)

or mounted in an application: `app = FastAPI(lifespan=relay.lifespan)`, `app.mount("/claude", relay)`. At the end every open
stream gets its last frame. uvicorn and hypercorn tell an application of the end only when no stream is open any more, or their
patience is over (`timeout_graceful_shutdown`, `graceful_timeout`), so `lifespan` listens to the signals itself; where it cannot
(hypercorn's workers get none), call `await relay.aclose()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from inspect import iscoroutinefunction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rawsse.client.client import AsyncClient
from rawsse.errors import ConfigurationError, RawsseError
from rawsse.http1 import MAX_BODY_BYTES
from rawsse.relay.choices import changed_request, choose, models_of
from rawsse.relay.dialects import (
    Answer,
    Dialect,
    EventsDialect,
    Failure,
    InvalidRequest,
    MessagesDialect,
    TextDialect,
    WholeDialect,
    compact,
    failure_of,
    list_models,
    model_info,
    one_line,
    read_chat,
    read_flag,
    read_messages,
    snapshot,
)
from rawsse.relay.doctor import send_beats
from rawsse.relay.exchange import JSON, THREAD_BYTES, WRITE_SECONDS, Exchange
from rawsse.relay.follow import SSE_HEADERS, follow, follow_all, refused, send_refusal
from rawsse.relay.guard import Guard
from rawsse.relay.ledger import Ledger
from rawsse.relay.lifespan import closing_at_signals
from rawsse.relay.metrics import CONTENT_TYPE, Metrics
from rawsse.relay.page import Page
from rawsse.relay.push import EventPush, MessagePush, UnfoldedAnswer, pushed
from rawsse.relay.quotas import Quotas
from rawsse.relay.record import RUN_ID, Observer, OnEnd, RunLog, RunRecord
from rawsse.relay.runs import HEARTBEAT_SECONDS, Gone, Run, RunLimits, Runs
from rawsse.relay.ui import UIDialect, is_ui_request, read_ui
from rawsse.relay.users import Authenticate, Tokens, User, UserLimits, identify
from rawsse.server import Receive, Scope, Send
from rawsse.server.asgi import unless_gone

MAX_CHAT_BYTES = 8 * 1024 * 1024
"""The body of a browser's request. Pictures come in it as base64: the API takes 5 MB of each. `/v1/messages` takes what the
API itself does."""

DEFAULT_MAX_TOKENS = 4096
"""How long an answer may be, for a browser's request and one that does not say."""

DAY_SECONDS = 86_400

REFUSALS = (401, 403, 421, 429, 503)
"""Statuses of requests that the relay turns away, as its metrics count them."""

MAX_PROMPT_CHARS = 400_000
"""One text in a request: about 100,000 tokens."""

SHUTDOWN_RETRY_MS = 2000
"""What a browser is told to wait before it comes back to a relay that is being restarted."""

# Header fields of a request that the API gets. Never credentials: the key is the relay's own.
_FOR_THE_API = ("anthropic-version", "anthropic-beta", "anthropic-workspace-id", "anthropic-user-profile-id")

MAX_RUNS_READ = 32
"""Runs that one connection reads."""

_TEXT_PATHS = ("/chat/stream", "/api/chat/stream", "/stream")

Handler = Callable[[], Awaitable[None]]

OnRequest = Callable[[dict[str, Any], User | None], Awaitable[dict[str, Any] | None]]
"""The embedder's function: gives another request, None for the same one, or raises `Answer`."""

log = logging.getLogger("rawsse.relay")


class Relay:
    """The Messages API, re-emitted to browsers. An ASGI application.

    `client` makes the upstream calls; the caller closes it. One with a flight recorder (`AsyncClient(recorder=…)`) keeps what
    failed upstream.

    The operator decides. `model` and `max_tokens` are for requests that name none; `models` are the only others that a request
    may name. A browser may not set the system prompt, which is `system`, may name no other model without `models`, and may not
    ask for more than `max_tokens` (4,096 by default). On `/v1/messages` a program may set it, may name any model without
    `models`, and may ask for any number unless `max_tokens` is given.

    `guard` decides which hosts and origins are answered, and has the tokens. `authenticate` gives the user of a request;
    without it, a login of the host (`scope["user"]`) or a token does. `user_limits` hold for each user that has none itself,
    `all_limits` for all together, and where there are no users. `on_request` is awaited with a request that is about to be
    sent, and its user: it may give another one, whole, in its place, or raise `Answer` to refuse it.

    `ledger` gets a row for each run, and knows what was used before a restart; the caller closes it, or `lifespan` does.
    `on_end` is called with the record of each run that has ended, and `observers` are told of all runs; these functions may
    not wait. `metrics_token` is what callers of `/metrics` must bring if they are not users.

    `static` is a folder that replaces the built-in page; `notice` is a text that the built-in page shows below its greeting,
    and `examples` are prompts that it offers. `limits` are those of runs; `max_body_bytes` bounds the body of `/v1/messages`,
    `max_chat_bytes` that of the browsers' routes. `write_seconds` is how long a client of another server than ours may take
    nothing. `clock` gives Unix seconds. Raises `ConfigurationError`.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        model: str = "claude-sonnet-4-5",
        models: Sequence[str] = (),
        max_tokens: int | None = None,
        system: str | None = None,
        guard: Guard | None = None,
        authenticate: Authenticate | None = None,
        user_limits: UserLimits | None = None,
        all_limits: UserLimits | None = None,
        on_request: OnRequest | None = None,
        ledger: Ledger | None = None,
        on_end: Callable[[RunRecord], None] | None = None,
        observers: Sequence[Observer] = (),
        metrics_token: str | None = None,
        static: Path | None = None,
        notice: str = "",
        examples: Iterable[str] = (),
        limits: RunLimits | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        write_seconds: float = WRITE_SECONDS,
        max_chat_bytes: int = MAX_CHAT_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_prompt_chars: int = MAX_PROMPT_CHARS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not heartbeat_seconds > 0:
            raise ConfigurationError(f"heartbeat_seconds must be above 0, not {heartbeat_seconds}")
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
        self._clock = clock
        self.ledger = ledger
        self.quotas = Quotas(all_limits, user_limits)
        read: dict[str, Callable[[], float]] = {"rawsse_readers": lambda: self._runs.readers}
        if ledger is not None:
            now = clock()
            self.quotas.settle(ledger.tokens_since(now - now % DAY_SECONDS), now)
            read["rawsse_ledger_rows_dropped_total"] = lambda: ledger.dropped
        self.metrics = Metrics(read, self._models)
        self._metrics_tokens = Tokens([metrics_token] if metrics_token is not None else ())
        kept: list[Observer] = [RunLog(), self.quotas, self.metrics, *observers]
        kept += [ledger] if ledger is not None else []
        kept += [OnEnd(on_end)] if on_end is not None else []
        self._runs = Runs(limits or RunLimits(), heartbeat_seconds, observers=[*kept, OnEnd(self._cut)], clock=clock)
        self._is_cutting = False  # `_cut_all` is about to be called
        self._page = Page(static, notice=notice, examples=examples)
        self._write_seconds = write_seconds
        self._max_chat_bytes = max_chat_bytes
        self._max_body_bytes = max_body_bytes
        self._max_prompt_chars = max_prompt_chars

    def open_runs(self, user: str | None = None) -> list[Run]:
        """The runs that have not ended, of one user or of all. `run.stop(Failure(…))` ends one."""
        return [run for run in self._runs.open() if user is None or run.start.user == user]

    def _cut(self, record: RunRecord) -> None:
        """A run has ended: if its user, or all together, have used up the day's tokens, and the limits say so, end the others.

        Soon, and all in one step: each that ends comes here again.
        """
        if not self._is_cutting and self.quotas.must_end(record.user, self._clock()):
            self._is_cutting = True
            asyncio.get_running_loop().call_soon(self._cut_all)

    def _cut_all(self) -> None:
        self._is_cutting = False
        now = self._clock()
        for run in self._runs.open():
            if self.quotas.must_end(run.start.user, now):
                run.stop(Failure(429, "rate_limit_error", "the tokens of the day are used up"))

    async def aclose(self) -> None:
        """End every run with a last frame that says so, and wait until all are over."""
        text = "the relay is shutting down"
        await self._runs.aclose(Failure(503, "shutdown", text, {"retry-after": "2"}, retry=SHUTDOWN_RETRY_MS))

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The lifespan of an application that mounts the relay, as `FastAPI(lifespan=relay.lifespan)`: the streams end when the
        process is told to end, and the ledger is closed after them."""
        del app
        async with closing_at_signals(self.aclose):
            yield
        if self.ledger is not None:
            await asyncio.to_thread(self.ledger.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3: the scopes `http` and `lifespan`."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            exchange = Exchange(scope, receive, send, self._guard, write_seconds=self._write_seconds)
            with contextlib.suppress(OSError):  # the client has gone, and cannot be told
                await _Call(self, exchange).answer()
        else:
            raise ValueError(f"the relay has no answer to ASGI scope {scope['type']!r}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


class _Asked(NamedTuple):
    """A request that was read from a body."""

    dialect: Dialect
    request: dict[str, Any]
    alias: str | None = None
    fingerprint: bytes | None = None


class _Call:
    """One request to the relay: its route, followed to the end."""

    def __init__(self, relay: Relay, exchange: Exchange) -> None:
        self._relay = relay
        self._runs = relay._runs
        self._exchange = exchange
        self._limit = relay._max_prompt_chars
        self._user: User | None = None
        self._dialect = _dialect_of(exchange)

    async def answer(self) -> None:
        """Find the route and follow it. A refusal is in the form of the route's dialect, any other error in JSON."""
        exchange = self._exchange
        try:
            await self._route()
        except Answer as answer:
            if answer.status in REFUSALS:
                self._relay.metrics.count_refusal(answer.type)
                await send_refusal(exchange, self._dialect, answer)
            else:
                await exchange.send_answer(answer)
        except RawsseError as exc:
            level = logging.ERROR if isinstance(exc, ConfigurationError) else logging.WARNING
            log.log(level, "%s failed: %s", one_line(exchange.path), one_line(str(exc)))
            await exchange.send_answer(refused(failure_of(exc)))

    def _handlers(self) -> Mapping[str, Handler]:
        """What the path takes, by method."""
        found = next(methods for pattern, methods in _ROUTES if pattern.fullmatch(self._exchange.path))
        return {method: partial(handler, self) for method, handler in found.items()}

    async def _route(self) -> None:
        exchange = self._exchange
        if exchange.path in ("/healthz", "/readyz"):  # for anybody: balancers ask by address, and learn nothing
            if exchange.method not in ("GET", "HEAD"):
                raise self._wrong_method("GET, HEAD")
            is_ready = exchange.path == "/healthz" or not self._runs.is_closed
            words = b"ok\n" if is_ready else b"shutting down\n"
            await exchange.send_whole(200 if is_ready else 503, [("content-type", "text/plain; charset=utf-8")], words)
            return
        handlers = self._handlers()
        is_page = "HEAD" in handlers
        is_call = not is_page and exchange.method != "OPTIONS"
        if (refusal := self._relay._guard.refuse(exchange.headers, is_call=is_call)) is not None:
            raise Answer(refusal.status, refusal.type, refusal.message, headers=refusal.headers)
        if is_call and not (exchange.path == "/metrics" and self._relay._metrics_tokens.find_token(exchange.headers)):
            tokens, authenticate = self._relay._guard.tokens, self._relay._authenticate
            try:
                self._user = await identify(exchange.scope, exchange.headers, tokens, authenticate)
            except ConfigurationError as exc:
                raise ConfigurationError(f"the user that the host application gave cannot be used: {exc}") from exc
        if exchange.method == "OPTIONS":
            await exchange.send_preflight(", ".join(handlers))
        elif (handler := handlers.get(exchange.method)) is not None:
            await handler()
        else:
            if is_page:  # what is not there is not there for any method
                await asyncio.to_thread(self._relay._page.find, exchange.path)
            raise self._wrong_method(", ".join(handlers))

    def _wrong_method(self, allowed: str) -> Answer:
        text = f"{self._exchange.path} does not take {self._exchange.method}"
        return Answer(405, "invalid_request_error", text, headers={"allow": allowed})

    # Routes that begin a run -----------------------------------------------------------------------------------------

    async def _messages(self) -> None:
        request = await self._read_messages()
        await self._generate(_Asked(MessagesDialect() if request.get("stream") else WholeDialect(), request))

    async def _read_messages(self) -> dict[str, Any]:
        # Only the body as a whole has a limit here: the API has its own for the texts in it.
        limit = self._relay._max_body_bytes
        return await self._exchange.read_json(partial(read_messages, max_prompt_chars=limit), limit)

    async def _text(self) -> None:
        await self._generate(await self._read_chat(TextDialect))

    async def _chat(self) -> None:
        await self._generate(await self._read_chat(EventsDialect))

    async def _read_chat(self, kind: type[TextDialect | EventsDialect]) -> _Asked:
        """The request of a browser's body, which may be one of `useChat` where `kind` is that of the events."""
        is_named = "x-run-id" in self._exchange.headers

        def read(body: dict[str, Any]) -> _Asked:
            if kind is EventsDialect and is_ui_request(body):
                chat, request = read_ui(body, max_prompt_chars=self._limit)
                asked = _Asked(UIDialect(), request, chat)
            else:
                dialect = TextDialect(has_usage=read_flag(body, "usage")) if kind is TextDialect else EventsDialect()
                asked = _Asked(dialect, read_chat(body, max_prompt_chars=self._limit))
            return asked._replace(fingerprint=_fingerprint(asked, body.get("usage"))) if is_named else asked

        return await self._exchange.read_json(read, self._relay._max_chat_bytes)

    async def _generate(self, asked: _Asked) -> None:
        exchange, self._dialect = self._exchange, asked.dialect
        run = self._known_run(asked) or await self._new_run(asked)
        # RFC 7240, 4.1: a page may begin an answer in one place, and read it in another.
        if asked.dialect.is_resumable and "respond-async" in exchange.headers.get("prefer", "").lower():
            run.wait_for_readers()
            fields = (JSON, ("x-run-id", run.id), ("preference-applied", "respond-async"))
            await exchange.send_whole(202, fields, compact({"run": run.id}).encode())
            return
        await follow(exchange, run, keeps_status=True)

    def _known_run(self, asked: _Asked) -> Run | None:
        """The run that this request began before: a client that names its run may repeat its request."""
        if asked.fingerprint is None or (run := self._runs.get(self._user_id, self._run_id)) is None:
            return None
        if run.fingerprint != asked.fingerprint:
            raise Answer(409, "conflict_error", "x-run-id: is that of another request", field="x-run-id")
        return run

    async def _new_run(self, asked: _Asked) -> Run:
        dialect = asked.dialect
        request = await self._completed(asked.request, is_browser=dialect.is_resumable)
        if (run := self._known_run(asked)) is not None:  # begun while this one was looked at
            return run
        # A client of `/v1/messages` tries again by itself, as the official SDKs do: two that try again multiply.
        options: dict[str, Any] = {"headers": self._api_headers(), "max_retries": None if dialect.is_resumable else 0}
        is_whole = isinstance(dialect, WholeDialect)
        options |= {} if is_whole else {"kind": UnfoldedAnswer}
        events = partial(self._relay.client.messages.events, request, strict=False, **options)
        who = {"user": self._user_id, "model": request["model"]}
        id = self._run_id if asked.fingerprint is not None else None
        with self._admitted(is_messages=not dialect.is_resumable):
            run = self._runs.begin(
                dialect, pushed(events, MessagePush if is_whole else EventPush), **who, id=id, alias=asked.alias
            )
        run.fingerprint = asked.fingerprint
        return run

    @property
    def _user_id(self) -> str:
        return self._user.id if self._user is not None else ""

    @property
    def _run_id(self) -> str:
        """The id that the client has chosen."""
        wanted = self._exchange.headers["x-run-id"]
        if not RUN_ID.fullmatch(wanted):
            raise InvalidRequest("x-run-id", "must be 16 to 64 of A-Z a-z 0-9 _ -")
        return wanted

    async def _completed(self, request: dict[str, Any], *, is_browser: bool) -> dict[str, Any]:
        """The request that is sent: with what it leaves to the relay, and with the embedder's changes.

        Raises `Answer`, `ConfigurationError`, and `ConnectionError` if the client went while the embedder was asked.
        """
        relay = self._relay
        request = choose(request, relay._defaults, self._limits, is_browser=is_browser)
        if relay._on_request is not None:
            changed: object = await relay._on_request(request, self._user)
            request = request if changed is None else changed_request(changed)
        if (relay._on_request or relay._authenticate) is not None:
            await self._exchange.check_client()
        return request

    @property
    def _limits(self) -> tuple[UserLimits, ...]:
        """All that hold for this request."""
        quotas = self._relay.quotas
        return (self._relay._own_limits, quotas.everyone, quotas.limits_of(self._user))

    @contextlib.contextmanager
    def _admitted(self, *, is_messages: bool) -> Iterator[None]:
        """A run may begin inside, or an exception of it is raised. Raises `Answer`: 429."""
        relay = self._relay
        fields = relay.quotas.admit(self._user, relay._clock(), is_messages=is_messages)
        try:
            yield
        except BaseException:
            relay.quotas.release(self._user)
            raise
        self._exchange.more_fields += fields.items()

    def _api_headers(self) -> dict[str, str]:
        headers = self._exchange.headers
        found = {name: headers[name] for name in _FOR_THE_API if name in headers}
        for name, value in found.items():
            if not (value.isascii() and value.isprintable()):
                raise InvalidRequest(name, "must be printable ASCII")
        return found

    # Routes that read one --------------------------------------------------------------------------------------------

    def _find_run(self) -> Run:
        run = self._runs.get(self._user_id, self._exchange.path.removeprefix("/runs/"))
        if run is None or not run.dialect.is_resumable:
            raise Answer(404, "not_found_error", "there is no such run; it may have been forgotten")
        return run

    async def _stop_run(self) -> None:
        self._find_run().stop(Failure(200, "cancelled", "stopped"))
        await self._exchange.send_whole(204)

    async def _read_run(self) -> None:
        count = self._relay.metrics.count_resume
        try:
            run = self._find_run()
            after, first = await self._place(run)
            count("nothing_left" if run.is_finished and after >= run.last and not first else "resumed")
            await follow(self._exchange, run, after, first=first)
        except Answer as answer:
            count({404: "not_found", 410: "gone"}.get(answer.status, "invalid"))
            raise

    async def _place(self, run: Run) -> tuple[int, bytes]:
        """The position after which the client reads on, and what stands for the frames before it."""
        if self._exchange.read_flag("snapshot"):
            log, last = run.kept()
            is_small = len(log) <= THREAD_BYTES
            return last, snapshot(log, run.dialect) if is_small else await asyncio.to_thread(snapshot, log, run.dialect)
        wanted = self._exchange.headers.get("last-event-id") or self._exchange.query.get("after", [""])[0]
        after = run.number_of(wanted) if wanted else 0
        if after is None:
            raise InvalidRequest("Last-Event-ID", "is no id of this run")
        run.check_kept(after)
        return after, b""

    async def _read_runs(self) -> None:
        """Several runs in one connection; without an `id` the list of those that are open. Each `after` is the id of a frame,
        which says of which run it is."""
        ids = list(dict.fromkeys(self._exchange.query.get("id", ())))
        if not ids:
            await self._list_runs()
            return
        if len(ids) > MAX_RUNS_READ:
            raise InvalidRequest("id", f"may be given {MAX_RUNS_READ} times")
        found = {id: self._runs.get(self._user_id, id) for id in ids}
        seen = [*self._exchange.query.get("after", ()), self._exchange.headers.get("last-event-id", "")]
        runs = [run for run in found.values() if run is not None and run.dialect.is_resumable]
        wanted = [(run, max(run.number_of(each) or 0 for each in seen)) for run in runs]
        missing = [id for id in ids if found[id] not in runs]
        await follow_all(self._exchange, wanted, missing)

    async def _resume_chat(self) -> None:
        chat = self._exchange.path.removeprefix("/api/chat/").removesuffix("/stream")
        run = self._runs.by_alias(self._user_id, chat)
        with contextlib.suppress(Gone):  # its beginning is no longer kept, and `useChat` can use nothing else
            if run is not None and not run.is_finished:
                await follow(self._exchange, run)
                return
        await self._exchange.send_whole(204)

    # Routes about runs -----------------------------------------------------------------------------------------------

    def _asked_user(self) -> str | None:
        """The user whose open runs are asked for; None: those of all. Raises `Answer`: 403."""
        given = self._exchange.query.get("user")
        asked = given[0] if given else self._user_id
        is_own = asked == self._user_id and asked != "*"
        if given and self._user is not None and not (is_own or self._user.is_operator):
            raise Answer(403, "permission_error", "user: only an operator may ask for the runs of others", field="user")
        return None if given and asked == "*" else asked

    async def _list_runs(self) -> None:
        now = self._relay._clock()
        told = [
            {**asdict(run.start), "seconds": now - run.start.time, "readers": run.readers}
            for run in self._relay.open_runs(self._asked_user())
        ]
        await self._exchange.send_whole(200, (JSON,), compact(told).encode())

    async def _stop_runs(self) -> None:
        runs = self._relay.open_runs(self._asked_user())
        for run in runs:
            run.stop(Failure(200, "cancelled", "stopped"))
        await self._exchange.send_whole(200, (JSON,), compact({"stopped": len(runs)}).encode())

    async def _me(self) -> None:
        relay = self._relay
        await self._exchange.send_whole(200, (JSON,), compact(relay.quotas.me(self._user, relay._clock())).encode())

    async def _doctor(self) -> None:
        await send_beats(self._exchange, SSE_HEADERS)

    async def _metrics(self) -> None:
        if self._user is None:  # where there are no users, the token for the metrics is asked for all the same
            await identify(self._exchange.scope, self._exchange.headers, self._relay._metrics_tokens)
        await self._exchange.send_whole(200, [("content-type", CONTENT_TYPE)], self._relay.metrics.render().encode())

    # Routes without a run --------------------------------------------------------------------------------------------

    async def _count_tokens(self) -> None:
        defaults = {"model": self._relay._defaults["model"]}
        request = choose(await self._read_messages(), defaults, self._limits, is_browser=False)
        headers = self._api_headers()
        if self._relay._authenticate is not None:
            await self._exchange.check_client()
        fields = self._relay.quotas.admit(self._user, self._relay._clock(), is_messages=True, is_run=False)
        self._exchange.more_fields += fields.items()
        call = self._relay.client.call("POST", self._exchange.path, body=request, headers=headers, max_retries=0)
        answer = await unless_gone(call.open(), self._exchange.receive)
        if answer is not None:
            await self._exchange.send_whole(200, (JSON,), compact(answer.value).encode())

    async def _list_models(self) -> None:
        """A page of the models that the relay allows, or one of them, in the API's form."""
        listed = models_of(self._limits)
        models = self._relay._models if listed is None else listed
        name = self._exchange.path.removeprefix("/v1/models").removeprefix("/")
        if name and name not in models:
            raise Answer(404, "not_found_error", f"model: {name}")
        found = model_info(name) if name else list_models(models, self._exchange.query)
        await self._exchange.send_whole(200, (JSON,), compact(found).encode())

    async def _file(self) -> None:
        headers, body = await asyncio.to_thread(self._relay._page.find, self._exchange.path)
        known = self._exchange.headers.get("if-none-match", "").split(",")
        # RFC 9110, 13.1.2: compared weakly.
        is_known = not {tag.strip().removeprefix("W/") for tag in known}.isdisjoint(("*", dict(headers)["etag"]))
        await self._exchange.send_whole(304 if is_known else 200, headers, b"" if is_known else body)


def _dialect_of(exchange: Exchange) -> Dialect:
    """The dialect of a request whose body has not been read, that of `/v1/messages` for all whose errors are JSON."""
    if exchange.method == "POST" and exchange.path in _TEXT_PATHS:
        return TextDialect()
    if exchange.method == "POST" and exchange.path == "/api/chat":  # `useChat` asks for `*/*`
        return EventsDialect() if "text/event-stream" in exchange.headers.get("accept", "") else UIDialect()
    return MessagesDialect()


def _is_async(function: object) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


_ROUTES: tuple[tuple[re.Pattern[str], Mapping[str, Callable[[_Call], Awaitable[None]]]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), methods)
    for pattern, methods in (
        ("|".join(_TEXT_PATHS), {"POST": _Call._text}),
        ("/api/chat", {"POST": _Call._chat}),
        ("/v1/messages", {"POST": _Call._messages}),
        ("/v1/messages/count_tokens", {"POST": _Call._count_tokens}),
        ("/v1/models(/.*)?", {"GET": _Call._list_models}),
        ("/runs", {"GET": _Call._read_runs, "DELETE": _Call._stop_runs}),
        ("/runs/.*", {"GET": _Call._read_run, "DELETE": _Call._stop_run}),
        ("/api/chat/.+/stream", {"GET": _Call._resume_chat}),
        ("/me", {"GET": _Call._me}),
        ("/metrics", {"GET": _Call._metrics}),
        ("/doctor", {"GET": _Call._doctor}),
        (".*", {"GET": _Call._file, "HEAD": _Call._file}),
    )
)
"""Paths, and what each takes, by method. The first that fits counts; the last are the files of the page."""


def _fingerprint(asked: _Asked, usage: object) -> bytes:
    """What two requests have in common only if they are the same."""
    what = [asked.dialect.name, asked.request, bool(usage)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).digest()
