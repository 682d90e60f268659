"""The relay: an ASGI 3 application that answers browsers with the Messages API's events.

This file knows the routes, and how a run and an HTTP exchange meet. It refuses to know how a run lives (`runs.py`), what a
frame looks like (`dialects.py`, `ui.py`), and who may come in (`guard.py`).

    async with AsyncClient() as client:
        await serve(Relay(client, model="claude-sonnet-4-5"), "127.0.0.1", 8000)

or mounted in an application of yours: `app.mount("/claude", Relay(client, ...))`. When the host ends, call
`await relay.aclose()`: it gives every open stream its last frame. Under a host that speaks ASGI's lifespan it is called by
itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

from rawsse.client.client import AsyncClient
from rawsse.errors import RawsseError
from rawsse.relay.dialects import (
    Dialect,
    EventsDialect,
    Failure,
    InvalidRequest,
    MessagesDialect,
    TextDialect,
    failure_of,
    read_chat,
    read_messages,
)
from rawsse.relay.guard import Guard, Refusal
from rawsse.relay.page import NoSuchPage, Page
from rawsse.relay.runs import Gone, Reader, Run, RunLimits, Runs, TooManyRuns
from rawsse.relay.ui import UIDialect, is_ui_request, read_ui

__all__ = ["HEARTBEAT_SECONDS", "MAX_CHAT_BYTES", "MAX_PROMPT_CHARS", "Relay"]

HEARTBEAT_SECONDS = 15.0
"""How long a stream may say nothing. Proxies and load balancers cut idle connections after 29 s and more."""

MAX_CHAT_BYTES = 32 * 1024 * 1024
"""A request's body: what the Messages API itself takes."""

MAX_PROMPT_CHARS = 400_000
"""One text in a request: about 100,000 tokens."""

SHUTDOWN_RETRY_MS = 2000
"""What a browser is told to wait before it comes back to a relay that is being restarted."""

SSE_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),  # nginx would gather the whole answer
)

# What the API says about limits and for support; everything else of its head is between it and us.
_FORWARDED = re.compile(r"request-id|retry-after(-ms)?|x-should-retry|anthropic-(ratelimit|priority|fast)-.*")

_TEXT_PATHS = ("/chat/stream", "/api/chat/stream", "/stream")
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
_CHAT_STREAM = re.compile(r"/api/chat/(.+)/stream")

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("rawsse.relay")


class Relay:
    """The Messages API, re-emitted to browsers. An ASGI application.

    `client` makes the upstream calls; the caller closes it. `model` and `max_tokens` are for requests that name none.
    `guard` decides who may come in. `static` is a folder that replaces the built-in page. `limits` are those of runs.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        model: str = "claude-sonnet-4-5",
        max_tokens: int = 4096,
        guard: Guard | None = None,
        static: Path | None = None,
        limits: RunLimits | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        max_chat_bytes: int = MAX_CHAT_BYTES,
        max_prompt_chars: int = MAX_PROMPT_CHARS,
    ) -> None:
        self._client = client
        self._defaults = {"model": model, "max_tokens": max_tokens}
        self._guard = guard or Guard()
        self._page = Page(static)
        self._runs = Runs(limits or RunLimits())
        self._heartbeat_seconds = heartbeat_seconds
        self._max_chat_bytes = max_chat_bytes
        self._max_prompt_chars = max_prompt_chars

    async def aclose(self) -> None:
        """End every run with a last frame that says so, and wait until all are over."""
        text = "the relay is shutting down"
        await self._runs.aclose(Failure(503, "shutdown", text, {"retry-after": "2"}, retry=SHUTDOWN_RETRY_MS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3: the scopes `http` and `lifespan`."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await _Exchange(self, scope, receive, send).answer()
        else:
            raise ValueError(f"the relay has no answer to ASGI scope {scope['type']!r}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


class _Answer(Exception):  # noqa: N818 - a way out, not a failure
    """An answer to give instead of going on: an error in the Messages API's form."""

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        error = {"type": type, "message": message} | ({"field": field} if field else {})
        self.body = json.dumps({"type": "error", "error": error}).encode()
        self.headers = tuple((headers or {}).items())


class _Exchange:
    """One request to the relay, and its answer."""

    def __init__(self, relay: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        self._relay = relay
        self._runs = relay._runs
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        # ASGI: with `root_path` (a mounted application) the path may or may not begin with it.
        root, path = scope.get("root_path", ""), scope["path"]
        self.path: str = path.removeprefix(root) if root and path.startswith(root) else path
        self.query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

    async def answer(self) -> None:
        """Find the route and follow it; whatever goes wrong becomes an error in JSON."""
        try:
            self._check_guard()
            await self._route()
        except _Answer as answer:
            headers = (("content-type", "application/json"), *answer.headers)
            await self._send_whole(answer.status, headers, answer.body)
        except InvalidRequest as exc:
            kind = "request_too_large" if exc.status == 413 else "invalid_request_error"
            refused = _Answer(exc.status, kind, str(exc), field=exc.field)
            await self._send_whole(exc.status, (("content-type", "application/json"),), refused.body)
        except NoSuchPage:
            missing = _Answer(404, "not_found_error", f"there is no {self.path}")
            await self._send_whole(404, (("content-type", "application/json"),), missing.body)
        except OSError:
            pass  # the client has gone: there is nobody to tell

    def _check_guard(self) -> None:
        is_page = self.method in ("GET", "HEAD") and not self.path.startswith(("/runs/", "/api/", "/v1/"))
        needs_token = not is_page and self.method != "OPTIONS"
        refusal: Refusal | None = self._relay._guard.refuse(self.headers, needs_token=needs_token)
        if refusal is not None:
            raise _Answer(refusal.status, refusal.type, refusal.message)

    async def _route(self) -> None:
        match self.method, self.path:
            case "OPTIONS", _:
                await self._preflight()
            case "POST", "/v1/messages":
                await self._messages()
            case "POST", "/v1/messages/count_tokens":
                await self._count_tokens()
            case "POST", "/api/chat":
                await self._chat()
            case "POST", path if path in _TEXT_PATHS:
                body = await self._read_json()
                request = read_chat(body, max_prompt_chars=self._relay._max_prompt_chars)
                await self._follow(self._begin(TextDialect(), request))
            case "GET", path if found := _CHAT_STREAM.fullmatch(path):
                await self._resume_chat(unquote(found[1]))
            case "GET" | "DELETE", path if path.startswith("/runs/"):
                await self._run(path.removeprefix("/runs/"))
            case "GET" | "HEAD", "/healthz":
                await self._send_whole(200, (("content-type", "text/plain; charset=utf-8"),), b"ok\n")
            case "GET" | "HEAD", _:
                await self._file()
            case _:
                raise _Answer(404, "not_found_error", f"there is no {self.method} {self.path}")

    # Routes that begin a run -----------------------------------------------------------------------------------------

    async def _messages(self) -> None:
        body = await self._read_json()
        request = {**self._relay._defaults, **read_messages(body, max_prompt_chars=self._relay._max_prompt_chars)}
        if request.get("stream"):
            await self._follow(self._begin(MessagesDialect(), request))
            return
        await self._whole_message(request)

    async def _chat(self) -> None:
        body = await self._read_json()
        limit = self._relay._max_prompt_chars
        if not is_ui_request(body):
            await self._follow(self._begin(EventsDialect(), read_chat(body, max_prompt_chars=limit)))
            return
        chat, request = read_ui(body, max_prompt_chars=limit)
        await self._follow(self._begin(UIDialect(), request, alias=chat))

    def _begin(self, dialect: Dialect, request: dict[str, Any], alias: str | None = None) -> Run:
        """A new run, or the one that this request began before: a client that names its run may repeat its request."""
        wanted = self.headers.get("x-run-id")
        if wanted is not None:
            if not _RUN_ID.fullmatch(wanted):
                text = "x-run-id: must be 16 to 64 of A-Z a-z 0-9 _ -"
                raise _Answer(400, "invalid_request_error", text, field="x-run-id")
            if (run := self._runs.get(wanted)) is not None:
                return run
        body = {**self._relay._defaults, **request}
        headers = self._api_headers()
        events = self._relay._client.messages.events
        try:
            return self._runs.begin(
                dialect, lambda: events(body, headers=headers, strict=False), id=wanted, alias=alias
            )
        except TooManyRuns as exc:
            raise _Answer(503, "overloaded_error", str(exc), headers={"retry-after": "5"}) from None

    def _api_headers(self) -> dict[str, str]:
        """What of the client's header is the API's business. Never its credentials: the key is the relay's own."""
        wanted = ("anthropic-version", "anthropic-beta")
        return {name: self.headers[name] for name in wanted if name in self.headers}

    # Routes that read one --------------------------------------------------------------------------------------------

    async def _run(self, id: str) -> None:
        run = self._runs.get(id)
        if run is None or not run.dialect.is_resumable:
            raise _Answer(404, "not_found_error", "there is no such run; it may have been forgotten")
        if self.method == "DELETE":
            run.stop(Failure(200, "cancelled", "stopped"))
            await self._send_whole(204, (), b"")
            return
        wanted = self.headers.get("last-event-id") or self.query.get("after", [""])[0]
        after = run.number_of(wanted) if wanted else 0
        if after is None:
            raise _Answer(400, "invalid_request_error", "Last-Event-ID: is no id of this run", field="Last-Event-ID")
        await self._follow(run, after)

    async def _resume_chat(self, chat: str) -> None:
        run = self._runs.by_alias(chat)
        if run is None or run.is_finished:
            await self._send_whole(204, (), b"")
            return
        await self._follow(run)

    async def _follow(self, run: Run, after: int = 0) -> None:
        """Send a run's frames until its end, or until the client goes."""
        if run.is_finished and after >= run.last:
            await self._send_whole(204, (), b"")
            return
        try:
            reader = run.reader(after)
        except Gone as exc:
            raise _Answer(410, "not_found_error", str(exc)) from None
        watch = asyncio.get_running_loop().create_task(self._watch(reader), name="rawsse watch for disconnect")
        try:
            await self._pump(run, reader)
        finally:
            reader.close()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _pump(self, run: Run, reader: Reader) -> None:
        # The head is held until there is something to send, so that a failure before it keeps its HTTP status; but no
        # longer than until a heartbeat is due.
        seconds = self._relay._heartbeat_seconds
        piece = await reader.read(seconds)
        if piece is None and not run.is_finished:
            return  # the client has gone
        if run.early_failure is not None and not run.dialect.is_resumable:
            raise _refused(run.early_failure)  # `/v1/messages` refuses as the API does: in JSON
        await self._send_head(run)
        while piece is not None:
            await self._send({"type": "http.response.body", "body": piece or run.dialect.heartbeat, "more_body": True})
            piece = await reader.read(seconds)
        if run.is_finished:
            await self._send({"type": "http.response.body", "body": b""})

    async def _watch(self, reader: Reader) -> None:
        """Close the reader when the client goes: at any phase, also while nothing is sent."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        reader.close()

    async def _send_head(self, run: Run) -> None:
        failure = run.early_failure
        forwarded = _forwarded(failure.headers if failure else run.headers or {})
        run_id = (("x-run-id", run.id),) if run.dialect.is_resumable else ()
        headers = (*SSE_HEADERS, *run.dialect.headers, *run_id, *forwarded)
        await self._start(failure.status if failure else 200, headers)

    # Routes without a run --------------------------------------------------------------------------------------------

    async def _whole_message(self, request: dict[str, Any]) -> None:
        """`/v1/messages` without `stream`: streamed to us all the same, and answered as the message it adds up to."""
        stream = self._relay._client.messages.events(request, headers=self._api_headers(), strict=False)

        async def read() -> bytes:
            async with stream:
                async for _ in stream:
                    pass
                return stream.current_message_snapshot.to_json().encode()

        body = await self._unless_gone(read())
        await self._send_whole(200, (("content-type", "application/json"), *_forwarded(stream.headers)), body)

    async def _count_tokens(self) -> None:
        body = await self._read_json()
        request = {"model": self._relay._defaults["model"], **body}
        if not isinstance(request.get("messages"), list):
            raise InvalidRequest("messages", "must be a list")
        messages = self._relay._client.messages
        model, conversation = request.pop("model"), request.pop("messages")
        headers = self._api_headers()
        counting = messages.count_tokens(model=model, messages=conversation, extra_headers=headers, extra_body=request)
        count = await self._unless_gone(counting)
        await self._send_whole(200, (("content-type", "application/json"),), count.to_json().encode())

    async def _unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled if the client goes. Raises `_Answer` for what the API refuses."""
        task = asyncio.get_running_loop().create_task(work)
        watch = asyncio.get_running_loop().create_task(self._until_gone())
        try:
            await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConnectionResetError("the client has gone")
            return task.result()
        except RawsseError as exc:
            failure = failure_of(exc)
            log.warning("a call without stream failed: %s", failure.message)
            raise _refused(failure) from None
        finally:
            task.cancel()
            watch.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _file(self) -> None:
        headers, body = self._relay._page.find(unquote(self.path))
        await self._send_whole(200, headers, body)

    async def _preflight(self) -> None:
        asked = self.headers.get("access-control-request-headers", "")
        headers = (
            ("access-control-allow-methods", "GET, POST, DELETE"),
            ("access-control-allow-headers", asked if asked.isprintable() else ""),
            ("access-control-max-age", "600"),
        )
        await self._send_whole(204, headers, b"")

    # Reading and sending ---------------------------------------------------------------------------------------------

    async def _read_json(self) -> dict[str, Any]:
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise InvalidRequest("content-type", "must be application/json", 415)
        data = await self._read_body()
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest("body", f"is no JSON: {exc}") from None
        if not isinstance(body, dict):
            raise InvalidRequest("body", "must be a JSON object")
        return body

    async def _read_body(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client went in the middle of its request")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._relay._max_chat_bytes:
                raise InvalidRequest("body", f"is larger than {self._relay._max_chat_bytes} bytes", 413)
            if not message.get("more_body", False):
                return b"".join(pieces)

    async def _start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        fields = [*headers]
        allowed = self._relay._guard.allow_origin(self.headers)
        if allowed is not None:
            fields += [
                ("access-control-allow-origin", allowed),
                ("access-control-expose-headers", "x-run-id, request-id, retry-after"),
                ("vary", "origin"),
            ]
        wire = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await self._send({"type": "http.response.start", "status": status, "headers": wire})

    async def _send_whole(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        length = () if status == 204 else (("content-length", str(len(body))),)
        await self._start(status, (*headers, *length))
        await self._send({"type": "http.response.body", "body": body})


def _refused(failure: Failure) -> _Answer:
    answer = _Answer(failure.status, failure.type, failure.message, headers=dict(_forwarded(failure.headers)))
    if failure.body is not None:
        answer.body = json.dumps(failure.body).encode()  # with its details: the SDKs' classes go by them
    return answer


def _forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, headers[name]) for name in headers if _FORWARDED.fullmatch(name)]
