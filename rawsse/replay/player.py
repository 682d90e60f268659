"""Play recordings over HTTP: an ASGI application (`Player`), and one that serves itself on this machine (`ReplayServer`).

    async with ReplayServer(["fixtures/plain.sse.jsonl"]) as server:       # speed=0: no waiting; 1: recorded pace
        client = AsyncAnthropic(base_url=server.base_url, api_key="any")   # or any other client
        ...
    with ReplayServer(recording) as server: ...                            # in a thread, for a client that blocks
    server.requests[0].body                                                # what the client sent

`POST …/v1/messages` with `stream` plays the recording, read by read; without it, the same answer is sent as one JSON
message. Several recordings take turns, unless `match` is set (`answers.py`). A request that no recording answers gets an
error that names the nearest one, and is added to `misses`. A recorded HTTP error is replayed, and a recording that was cut
ends with a cut connection. `…/count_tokens` and `…/v1/models` are answered, too. No key is needed, and none is stored.

`faults` make answers fail (`faults.py`): `["status=529 x2", "reset@event=3 x1 after=2"]`. They count the requests to
`…/v1/messages`, and each of `requests` lists its faults. If a fault cuts an answer short and the identical request is
repeated, it gets the same recording. A fault that fits no recording is rejected at once; if it does not fit the answer
to a request, that is an HTTP 500 with the reason. One that another fault keeps from the client, as after a `close`, stays in
`unused_faults`, and the log says why.

An answer can be split in two ways. `split` splits the body: each piece is one HTTP chunk. `segments` splits the bytes on the
wire, including the head and the chunk framing: each piece is one TCP write. A client in the same event loop reads each piece
separately, even at speed 0. A client in another thread or process may read several at once, as in any network, unless
`segment_seconds` (a few milliseconds) separates them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

from rawsse.errors import ConfigurationError
from rawsse.http1 import MAX_BODY_BYTES
from rawsse.messages import Message
from rawsse.replay.answers import Answer, Match, RecordedAPI, as_recording, error_answer, log
from rawsse.replay.faults import End, Fault, Faults, edited, replacement
from rawsse.replay.recording import (
    Read,
    RecordedRequest,
    Recording,
    is_messages,
    load_recordings,
    parse_body,
    shipped_fixtures,
)
from rawsse.replay.scrub import ScrubPolicy, is_credential, scrub
from rawsse.replay.variants import Pace, Rewrite, Split, pace_by, rewrite_by, split_by
from rawsse.replay.wire import Schedule, Script, Stall, Wire, script, timed
from rawsse.server import Receive, Scope, Send, Server
from rawsse.server.asgi import unless_gone

MAX_KEPT_REQUESTS = 1000
"""How many of the last requests a `Player` keeps: more than tests read, but bounded for a long-running server."""

PATIENCE = 10.0
"""How long a server in a thread may take to start or stop, in real time. It needs a thousandth of that."""

DEMO_WORDS: Mapping[str, str] = {
    "unicode": "unicode",
    "think": "thinking",
    "parallel": "parallel-tools",
    "tool": "tools",
    "search": "server-tools",
    "cite": "citations",
    "limit": "max-tokens-text",
    "refuse": "refusal",
    "overload": "error-before-content",
    "error": "error-after-content",
    "cut": "cut",
}
"""Word in the prompt -> name of the shipped recording. The first match is used; without a match, `plain`."""

Source: TypeAlias = str | Path | Answer
"""A name, a path, a recording, or a message (made by `answer`, or as JSON)."""

Sources: TypeAlias = Source | Iterable[Source]
"""Several of them, or one. A path may be that of a folder."""

Sleep = Callable[[float], Coroutine[Any, Any, None]]

# A test may need any header field, except those that carry secrets. Secrets in other fields are hidden.
_EVERY_HEADER = ScrubPolicy(allowed_request_headers=("*",))
# Pages of any origin may use this server: it has no secrets and spends nothing.
_CORS: Mapping[str, str] = {"access-control-allow-origin": "*", "access-control-expose-headers": "request-id"}


@dataclass(frozen=True, slots=True)
class PlayedRequest(RecordedRequest):
    """A request as received, without its credentials, and the faults of its answer."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, scope: Scope, body: bytes, faults: tuple[Fault, ...] = ()) -> PlayedRequest:
        """The request without secrets, so that it can be kept and shown when a test fails."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        harmless = {name: value for name, value in headers.items() if not is_credential(name)}
        query = scope.get("query_string", b"").decode("latin-1")
        request = RecordedRequest(scope["method"], f"{scope['path']}?{query}" if query else scope["path"], harmless)
        kept = scrub(Recording(request), _EVERY_HEADER).request or request
        return cls(kept.method, kept.path, kept.headers, parse_body(body), faults)


class Player:
    """The ASGI application.

    `speed`: 1 plays at the recorded pace (default), 2 twice as fast, 0 does not wait. `split`, `segments` and `faults` are
    described at the top of this file, and the ways to split at `Split`. `segment_seconds` do not depend on `speed`. Segments,
    and faults of framing and network, need `rawsse.server`. `match`: turns, sequence, request, name, or a function of the
    request's body (`answers.py`). `pace` changes the recordings' times; `rewrite` changes their form as gateways do
    (`variants.py`). `sleep` replaces `asyncio.sleep`.

    `misses` are the last requests that no recording answered; `unplayed` the recordings that have not been played yet, and
    `repeats` those that have been played more often than they were given; `unused_faults` the faults that have not changed an
    answer yet, and `misplaced` the last errors of faults that did not fit an answer, and of a `match` function that
    raised an exception. Raises `ConfigurationError` and `RecordingError`.
    """

    _default_speed = 1.0

    def __init__(
        self,
        recordings: Sources,
        *,
        speed: float | None = None,
        split: Split | None = None,
        segments: Split | None = None,
        segment_seconds: float = 0.0,
        faults: Faults = (),
        match: Match = "turns",
        pace: Pace | None = None,
        rewrite: Rewrite | None = None,
        sleep: Sleep = asyncio.sleep,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_kept_requests: int = MAX_KEPT_REQUESTS,
    ) -> None:
        if speed is None:
            speed = 1.0 if pace is not None else self._default_speed
        for name, number in (("speed", speed), ("segment_seconds", segment_seconds)):
            if not 0 <= number < float("inf"):
                raise ConfigurationError(f"{name} must be 0 (no waiting) or more, not {number}")
        if segment_seconds and segments is None:
            raise ConfigurationError("a silence between segments needs segments: say how to cut them")
        self.requests: list[PlayedRequest] = []
        """The last requests, without their credentials, and the faults of their answers."""
        played = _loaded(recordings)
        played = played if rewrite is None else list(map(rewrite_by(rewrite), played))
        played = played if pace is None else list(map(pace_by(pace), played))
        self.api = RecordedAPI(played, match=match)
        self._speed = speed
        self._split = None if split is None else split_by(split)
        self._segments = None if segments is None else split_by(segments)
        self._segment_seconds = segment_seconds
        self._schedule = Schedule(faults, played)
        self.misses, self.unplayed, self.repeats = self.api.misses, self.api.unplayed, self.api.repeats
        self.unused_faults, self.misplaced = self._schedule.unused, self._schedule.misplaced
        self._sleep = sleep
        self._max_body_bytes = max_body_bytes
        self._max_kept_requests = max_kept_requests
        self._count = 0
        self._owed: dict[tuple[str, bytes], Recording] = {}  # by the request that got only part of it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        if scope["type"] != "http":
            raise NotImplementedError(f"a Player answers HTTP, not {scope['type']}")
        body = await read_body(receive, send, self._max_body_bytes)
        if body is None:
            return
        faults = self._schedule.next() if is_messages(scope["method"], scope["path"]) else ()
        request = PlayedRequest.of(scope, body, faults)
        self.requests.append(request)
        del self.requests[: -self._max_kept_requests]
        await unless_gone(self._play(self._answer(request, body), faults, scope, send), receive)

    def _answer(self, request: PlayedRequest, body: bytes) -> Recording:
        """The recording to play; the same one again if a fault cut it short."""
        if (other := replacement(request.faults)) is not None:
            return other
        question = (request.path, body)
        try:
            answer = self._owed.pop(question, None) or self.api.answer(request)
        except ConfigurationError as exc:  # the match function failed
            log.warning("%s", exc)
            self._schedule.failed(exc)
            return error_answer(500, "api_error", str(exc))
        if any(fault.cuts for fault in request.faults):
            self._owed[question] = answer
            if len(self._owed) > self._max_kept_requests:
                del self._owed[next(iter(self._owed))]
        return answer

    # --- Sending

    async def _play(self, answer: Recording, faults: tuple[Fault, ...], scope: Scope, send: Send) -> None:
        connection: Any = (scope.get("extensions") or {}).get("rawsse.wire")
        wanting = ["segments need"] if self._segments is not None else []
        wanting += [f"the fault {fault} needs" for fault in faults if fault.needs_wire]
        if wanting and connection is None:
            raise ConfigurationError(f"{wanting[0]} rawsse.server: other ASGI servers do not let an app write to TCP")
        self._count += 1
        headers = {"request-id": f"req_replay_{self._count:06}"} | dict(answer.headers) | dict(_CORS)
        answer, steps = replace(answer, headers=headers), None
        try:
            played = edited(answer, faults, self._split)
            if wanting or (played.end != "clean" and connection is not None):
                request = {"method": scope["method"], "http_version": scope.get("http_version", "1.1")}
                steps = script(played, faults, **request, segments=self._segments, speed=self._speed)
            self._schedule.applied(faults, answer)
        except ConfigurationError as exc:  # a fault without a place
            self._schedule.failed(exc)
            played, steps = error_answer(500, "api_error", str(exc)), None
        if steps is None:
            await self._play_chunks(played, send)
        else:
            await self._perform(steps, Wire(connection))

    async def _perform(self, steps: Script, wire: Wire) -> None:
        is_after_data, clock = False, _Clock(self._sleep)
        for step in steps:
            if isinstance(step, bytes):
                if self._segment_seconds and is_after_data:
                    await self._sleep(self._segment_seconds)
                await wire.send(step)
                await _let_read()
            elif isinstance(step, float):
                await clock.wait(step, is_whole=isinstance(step, Stall))
            elif step is End.RESET:
                await wire.reset()
            else:
                if step is End.HALF_CLOSE:
                    wire.half_close()
                await asyncio.get_running_loop().create_future()  # until the client disconnects
            is_after_data = isinstance(step, bytes)
        wire.end()

    async def _play_chunks(self, answer: Recording, send: Send) -> None:
        clock = _Clock(self._sleep)
        is_begun = False
        # The head is sent with the first bytes, as by the API.
        for step in timed(answer.reads or [Read(0.0, b"")], self._speed, answer.duration):
            if isinstance(step, bytes):
                if not is_begun:
                    await send_head(send, answer.status, answer.headers.items())
                is_begun = True
                await send({"type": "http.response.body", "body": step, "more_body": True})
                await _let_read()
            elif isinstance(step, float):
                await clock.wait(step)
        if answer.end != "clean":
            # The only way in ASGI: the server finds the response unfinished and closes the connection.
            raise ConnectionAbortedError("the recording was cut here, and so is the connection")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Clock:
    """Waits until given times after its creation: if a sleep or a write takes too long, the next wait is shorter."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self._now = asyncio.get_running_loop().time
        self._due = self._now()

    async def wait(self, seconds: float, *, is_whole: bool = False) -> None:
        self._due += seconds
        # Not longer than `seconds`: a test's `sleep` may return at once.
        left = max(0.0, min(seconds, self._due - self._now()))
        await self._sleep(seconds if is_whole else left)


# --- Serving it ------------------------------------------------------------------------------------------------------


class LocalServer:
    """An ASGI application that serves itself on a free port of this machine. Subclasses define `__call__`.

    `async with` serves it in the running event loop; `with` in a thread, for a client that blocks or runs in another loop or
    process. The end of the block closes connections and joins the thread.
    """

    _port = 0
    _server: Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        raise NotImplementedError

    @property
    def base_url(self) -> str:
        """`http://HOST:PORT`, for the client under test. Raises `ConfigurationError` while nothing is served."""
        if self._server is None:
            how = "use it within `with`, `async with`, or what virtual_clock runs"
            raise ConfigurationError(f"the API is not served: {how}")
        return self._server.base_url

    async def __aenter__(self) -> Self:
        server = Server(self, port=self._port)
        await server.start()
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown(0)  # without waiting for the rest of an answer

    def __enter__(self) -> Self:
        loop = asyncio.new_event_loop()
        # A daemon: a hanging thread must not prevent the test run from ending.
        thread = threading.Thread(target=loop.run_forever, name="rawsse replay", daemon=True)

        def run(work: Coroutine[Any, Any, object]) -> None:
            asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)

        with ExitStack() as stack:  # the last is called first
            stack.callback(loop.close)
            thread.start()
            stack.callback(thread.join, PATIENCE)
            stack.callback(loop.call_soon_threadsafe, loop.stop)
            run(self.__aenter__())
            stack.callback(lambda: run(self.__aexit__()))
            self._leave = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.close()


class ReplayServer(Player, LocalServer):
    """A `Player` that serves itself. The arguments are those of `Player`, but `speed` defaults to 0, since tests should not
    wait, or to 1 with a `pace`."""

    _default_speed = 0.0


def demo_player(*, speed: float = 1.0) -> Player:
    """The upstream of `rawsse demo`: a word in the prompt picks the shipped recording (`DEMO_WORDS`)."""
    recordings = shipped_fixtures()
    player = Player(list(recordings.values()), speed=speed)

    def find(request: RecordedRequest) -> Recording:
        prompt = str(request.body["messages"][-1:]).lower()
        return recordings[next((name for word, name in DEMO_WORDS.items() if word in prompt), "plain")]

    player.api.find = find
    return player


# --- ASGI ------------------------------------------------------------------------------------------------------------


async def read_body(receive: Receive, send: Send, max_bytes: int) -> bytes | None:
    """The request's body; None if the client disconnects first, or if the body is too large, which is answered here."""
    body, has_more = bytearray(), True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > max_bytes:
            text = f"the request's body is larger than max_body_bytes ({max_bytes})"
            await send_answer(send, error_answer(413, "request_too_large", text))
            return None
        has_more = message.get("more_body", False)
    return bytes(body)


async def send_head(send: Send, status: int, fields: Iterable[tuple[str, str]]) -> None:
    """Send the head of an answer."""
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_answer(send: Send, answer: Recording) -> None:
    """Send a whole answer at once."""
    await send_head(send, answer.status, answer.headers.items())
    await send({"type": "http.response.body", "body": answer.body})


async def _let_read() -> None:
    """Let a client in the same event loop read the last write before the next one."""
    await asyncio.sleep(0)  # the loop finds the client's socket readable
    await asyncio.sleep(0)  # the client reads


def _loaded(sources: Sources) -> list[Recording]:
    given = [sources] if isinstance(sources, str | Path | Recording | Message | Mapping) else sources
    recordings: list[Recording] = []
    for source in given:
        recordings += load_recordings(source) if isinstance(source, str | Path) else [as_recording(source)]
    if not recordings:
        raise ConfigurationError("there is no recording to play")
    return recordings
