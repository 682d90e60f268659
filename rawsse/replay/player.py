"""An address of this machine that is kept for a server which starts later: until then it refuses whoever comes.


    with KeptAddress() as address:
        client = make_client(address.base_url)      # may be made before there is a server
        server = Server(app, port=address.lend())
        ...
        address.take_back()                         # nobody else gets the port, and clients are refused again


A server in a thread of its own, for tests whose client blocks, or runs in another loop or process.


    with BackgroundServer(Player(recordings, speed=0)) as server:
        urllib.request.urlopen(server.base_url + "/v1/models")

When the block is left, the connections are cut off, and the thread has ended.


A Messages API made of recordings: an ASGI application (`Player`), and a server that runs it (`ReplayServer`).


    async with ReplayServer(["fixtures/plain.sse.jsonl"]) as server:       # speed=0: no waiting; 1: as it was recorded
        client = AsyncAnthropic(base_url=server.base_url, api_key="any")   # or any other client
        ...
    server.requests[0].body                                                # what the client asked

`POST …/v1/messages` with `stream` plays the recording, read by read; without it, the same answer comes as one JSON message.
Several recordings take turns, unless `match` says otherwise (`match.py`); a request that no recording answers is told the
nearest one, and `misses` has it. A recorded HTTP error is answered as it was, and a recording that was cut ends in a cut
connection. `…/count_tokens` and `…/v1/models` are answered plausibly. No key is asked for, and none is remembered.

`faults` are what goes wrong: `[Fault.status(529).times(2), "reset@event=3 x1 after=2"]`. They are counted in the requests to
`…/v1/messages`, and `requests` say which they had. A request that a fault left without a whole answer gets the same recording
when it comes again, word for word. A fault that has no place in any recording is refused at once; one that has none in an
answer is answered with an HTTP 500 that says so.

Two ways to cut are to be told apart. `split` cuts the answer's body: each piece is one HTTP chunk. `segments` cuts the bytes
on the wire, head and chunk framing and all: each piece is one TCP write. A client in the same event loop reads each piece by
itself, also at speed 0; one in another thread or process may find several at once, as in any network, unless there is a
silence between them: `segment_seconds`, of which some milliseconds will do.


The upstream of `rawsse demo`: a player that picks the recording by a word in the prompt.


"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from rawsse.errors import BodyTooLargeError, ConfigurationError
from rawsse.http1 import MAX_BODY_BYTES
from rawsse.replay.answers import Answer, Repertoire, error_answer
from rawsse.replay.faults import Fault
from rawsse.replay.match import Match, Miss
from rawsse.replay.recording import RecordedRequest, Recording, find_recordings, shipped_fixtures
from rawsse.replay.rewrites import Pace, Rewrite, pace_by, rewrite_by
from rawsse.replay.scrub import ScrubPolicy, scrub
from rawsse.replay.secrets import CREDENTIAL_HEADERS
from rawsse.replay.splits import Split, split_by
from rawsse.replay.wire import (
    Act,
    Faults,
    Schedule,
    Script,
    Stall,
    Wire,
    coded,
    edited,
    is_cutting,
    needs_wire,
    recut,
    replacement,
    script,
)
from rawsse.server import ASGIApp, Receive, Scope, Send, Server
from rawsse.server.asgi import unless_gone

# --- testing/address


_HOST = "127.0.0.1"


class KeptAddress:
    """A free port, bound to a socket that does not listen: a connection to it is refused at once. `with` gives it back."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.take_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lend()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://{_HOST}:{self._port}"

    def lend(self) -> int:
        """The port, which is now free for a server."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        return self._port

    def take_back(self) -> None:
        """The server is gone."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":  # else connections that ended just now keep it for minutes, as they should a stranger
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((_HOST, self._port))
        except OSError:
            holder.close()
            raise
        self._port = holder.getsockname()[1]
        self._socket = holder


# --- testing/background


PATIENCE = 10.0
"""Real seconds that the thread may take to start and to end: it needs a thousandth of that."""


async def _nothing() -> None:
    pass


class BackgroundServer:
    """Serves the ASGI application `app` on a free port of this machine. `with` starts and stops it.

    `on_stop` is awaited in its loop after the last connection has ended; what it raises comes out of the `with` block.
    """

    def __init__(self, app: ASGIApp, *, on_stop: Callable[[], Awaitable[None]] = _nothing) -> None:
        self.base_url = ""
        self._app = app
        self._on_stop = on_stop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave = asyncio.Event()
        self._started: Future[str] = Future()
        self._stopped: Future[None] = Future()
        # A daemon: should it ever hang, it keeps no test run from ending.
        self._thread = threading.Thread(target=self._run, name="rawsse replay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.base_url = self._started.result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and not self._stopped.done():
            self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(PATIENCE)
        self._stopped.result(PATIENCE)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # it belongs to the thread that waits for this one
            ours = self._stopped if self._started.done() else self._started
            ours.set_exception(exc)
        else:
            self._stopped.set_result(None)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = Server(self._app, port=0)
        await server.start()
        self._started.set_result(server.base_url)
        try:
            await self._leave.wait()
        finally:
            await server.shutdown(0)  # a test is over: nobody waits for the rest of an answer
            await self._on_stop()


# --- playing/player


MAX_KEPT_REQUESTS = 1000
"""How many of the last requests a `Player` remembers: more than a test looks at, and a server left alone does not grow."""

Source: TypeAlias = Recording | str | Path
Sources: TypeAlias = Source | Iterable[Source]
"""Recordings, files and folders, or one of them."""

Sleep = Callable[[float], Coroutine[Any, Any, None]]

log = logging.getLogger("rawsse.replay")

# All header fields are of use to a test, but for those that carry secrets; what looks like one elsewhere is starred.
_EVERY_HEADER = ScrubPolicy(allowed_request_headers=("*",))
# A web page elsewhere may ask, too: there is nothing here to be stolen or spent.
_CORS: Mapping[str, str] = {"access-control-allow-origin": "*", "access-control-expose-headers": "request-id"}


@dataclass(frozen=True, slots=True)
class PlayedRequest(RecordedRequest):
    """A request that came, without its credentials, and the faults that its answer had."""

    faults: tuple[Fault, ...] = ()


class Player:
    """The ASGI application. `requests` are the last requests that came, without their credentials.

    `speed`: 1 plays at the recorded pace, 2 twice as fast, 0 does not wait; None is 0, and 1 if there is a `pace`. `split` cuts
    bodies, `segments` the bytes on the wire, with `segment_seconds` of silence between two of them at any `speed`; `faults` are
    what goes wrong; see the top of this file, and `Split` for what the cuts may be. Segments, and the faults of framing and
    network, need `rawsse.server`. `sleep` is how it waits. `match`: turns, sequence, request, name, or a function of the
    request's body (`match.py`). `pace` gives the recordings other times (`pace.py`), `rewrite` the form that gateways give to
    streams (`rewrites.py`).
    Raises `ConfigurationError` and `RecordingError`.
    """

    def __init__(
        self,
        recordings: Sources,
        *,
        speed: float | None = 1.0,
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
            speed = 0.0 if pace is None else 1.0
        if not 0 <= speed < float("inf"):
            raise ConfigurationError(f"speed must be 0 (no waiting) or more, not {speed}")
        if not 0 <= segment_seconds < float("inf"):
            raise ConfigurationError(f"segment_seconds must be 0 (no waiting) or more, not {segment_seconds}")
        if segment_seconds and segments is None:
            raise ConfigurationError("a silence between segments needs segments: say how to cut them")
        self.requests: list[PlayedRequest] = []
        played = _changed(_load(recordings), rewrite, pace)
        self.repertoire = Repertoire(played, match=match, on_miss=_log)
        self._speed = speed
        self._split = None if split is None else split_by(split)
        self._segments = None if segments is None else split_by(segments)
        self._segment_seconds = segment_seconds
        self._schedule = Schedule(faults, played)
        self._sleep = sleep
        self._max_body_bytes = max_body_bytes
        self._max_kept_requests = max_kept_requests
        self._count = 0
        self._owed: dict[tuple[str, bytes], Answer] = {}  # to requests that got only a part, should they come again

    @property
    def misses(self) -> list[Miss]:
        """The last requests that no recording answered."""
        return self.repertoire.misses

    @property
    def unplayed(self) -> list[Recording]:
        """The recordings that have not been played yet."""
        return self.repertoire.unplayed

    @property
    def repeats(self) -> list[Recording]:
        """The recordings that have been played more often than they were given."""
        return self.repertoire.repeats

    @property
    def unused_faults(self) -> list[Fault]:
        """The faults that no answer has had so far."""
        return self._schedule.unused

    @property
    def misplaced(self) -> list[str]:
        """What the last answers said that were an HTTP 500, since a fault had no place in them."""
        return self._schedule.misplaced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            raise NotImplementedError(f"a Player answers HTTP, not {scope['type']}")
        faults: tuple[Fault, ...] = ()
        try:
            body = await _read_body(receive, self._max_body_bytes)
        except BodyTooLargeError as exc:
            answer = error_answer(413, "request_too_large", exc.message)
        else:
            if body is None:
                return  # the client left while it was asking
            request = self._remember(scope, body)
            faults = request.faults
            answer = self._answer(request, body)
        await unless_gone(self._play(answer, faults, scope, send), receive)

    def _remember(self, scope: Scope, body: bytes) -> PlayedRequest:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope.get("query_string", b"").decode("latin-1")
        path = f"{scope['path']}?{query}" if query else scope["path"]
        path, headers = _without_secrets(path, headers)
        request = PlayedRequest(scope["method"], path, headers, _parsed(body), self._due(scope))
        self.requests.append(request)
        del self.requests[: -self._max_kept_requests]
        return request

    def _due(self, scope: Scope) -> tuple[Fault, ...]:
        """The faults of this request."""
        if scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/v1/messages"):
            return ()
        return self._schedule.next()

    def _answer(self, request: PlayedRequest, body: bytes) -> Answer:
        """What the recordings have for the request; or the same again, if a fault kept it from getting that."""
        if (other := replacement(request.faults)) is not None:
            return other
        question = (request.path, body)
        answer = self._owed.pop(question, None) or self.repertoire.answer(request)
        if any(is_cutting(fault) for fault in request.faults):
            self._owed[question] = answer
            if len(self._owed) > self._max_kept_requests:
                del self._owed[next(iter(self._owed))]
        return answer

    def _finished(self, answer: Answer, faults: Iterable[Fault]) -> Answer:
        """The answer with what every answer has and with the faults of its events, its body cut as asked for."""
        self._count += 1
        headers = {"request-id": f"req_replay_{self._count:06}"} | dict(answer.headers) | dict(_CORS)
        answer = edited(replace(answer, headers=headers), faults)
        return replace(answer, reads=answer.reads if self._split is None else recut(answer.reads, self._split))

    # --- Sending -----------------------------------------------------------------------------------------------------

    async def _play(self, answer: Answer, faults: tuple[Fault, ...], scope: Scope, send: Send) -> None:
        connection: Any = (scope.get("extensions") or {}).get("rawsse.wire")
        wanting = ["segments need"] if self._segments is not None else []
        wanting += [f"the fault {fault} needs" for fault in faults if needs_wire(fault)]
        if wanting and connection is None:
            raise ConfigurationError(f"{wanting[0]} rawsse.server: this ASGI server has no say over TCP writes")
        try:
            answer = self._finished(answer, faults)
            needs_script = wanting or (answer.is_cut and connection is not None)
            steps = self._script(answer, faults, scope) if needs_script else None
            self._schedule.applied(faults)
        except ConfigurationError as exc:  # a fault without a place
            self._schedule.misplace(str(exc))
            answer, steps = error_answer(500, "api_error", str(exc)), None
        if steps is None:
            await self._play_chunks(coded(answer, faults), send)
        else:
            await self._perform(steps, Wire(connection))

    def _script(self, answer: Answer, faults: tuple[Fault, ...], scope: Scope) -> Script:
        method, version = scope["method"], scope.get("http_version", "1.1")
        cut, speed = self._segments, self._speed
        return script(answer, faults, method=method, http_version=version, segments=cut, speed=speed)

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
            elif step is Act.RESET:
                await wire.reset()
            else:
                if step is Act.HALF_CLOSE:
                    wire.half_close()
                await asyncio.get_running_loop().create_future()  # until the client leaves
            is_after_data = isinstance(step, bytes)
        wire.end()

    async def _play_chunks(self, answer: Answer, send: Send) -> None:
        clock, before = _Clock(self._sleep), answer.reads[0].t if answer.reads else 0.0
        await self._wait(clock, before)  # the head goes out with the first bytes, as the API's does
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        for read in answer.reads:
            await self._wait(clock, read.t - before)
            before = read.t
            await send({"type": "http.response.body", "body": read.data, "more_body": True})
            await _let_read()
        await self._wait(clock, answer.duration - before)
        if answer.is_cut:
            # All that ASGI has for this: the server finds the response unfinished and closes the connection.
            raise ConnectionAbortedError("the recording was cut here, and so is the connection")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait(self, clock: _Clock, seconds: float) -> None:
        if self._speed and seconds > 0:
            await clock.wait(seconds / self._speed)


class _Clock:
    """Waits until points in time, counted from now: what one sleep and one write take too long, the next wait makes up for."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self._now = asyncio.get_running_loop().time
        self._due = self._now()

    async def wait(self, seconds: float, *, is_whole: bool = False) -> None:
        self._due += seconds
        # Not longer than `seconds`: the `sleep` of a test may take no time.
        left = max(0.0, min(seconds, self._due - self._now()))
        await self._sleep(seconds if is_whole else left)


class ReplayServer:
    """A `Player` behind a server of its own, on a free port of this machine. `async with` starts and stops it.

    The arguments are those of `Player`; only `speed` is 0 by default, since a test does not want to wait, and 1 if there is a
    `pace`.
    """

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
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.player = Player(
            recordings,
            speed=speed,
            split=split,
            segments=segments,
            segment_seconds=segment_seconds,
            faults=faults,
            match=match,
            pace=pace,
            rewrite=rewrite,
            sleep=sleep,
        )
        self._server = Server(self.player, host, port)

    @property
    def base_url(self) -> str:
        """`http://HOST:PORT`, for the client under test."""
        return self._server.base_url

    @property
    def requests(self) -> list[PlayedRequest]:
        """The last requests that came, without their credentials, and the faults that their answers had."""
        return self.player.requests

    @property
    def misses(self) -> list[Miss]:
        """The last requests that no recording answered."""
        return self.player.misses

    @property
    def unplayed(self) -> list[Recording]:
        """The recordings that have not been played yet."""
        return self.player.unplayed

    @property
    def repeats(self) -> list[Recording]:
        """The recordings that have been played more often than they were given."""
        return self.player.repeats

    @property
    def unused_faults(self) -> list[Fault]:
        """The faults that no answer has had so far."""
        return self.player.unused_faults

    @property
    def misplaced(self) -> list[str]:
        """What the last answers said that were an HTTP 500, since a fault had no place in them."""
        return self.player.misplaced

    async def __aenter__(self) -> ReplayServer:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.shutdown(0)  # a test is over: nobody waits for the rest of an answer


def _log(miss: Miss) -> None:
    log.warning("%s", miss.message)  # the client may keep the error's words to itself


def _load(sources: Sources) -> list[Recording]:
    given = [sources] if isinstance(sources, Recording | str | Path) else sources
    recordings: list[Recording] = []
    for source in given:
        recordings += [source] if isinstance(source, Recording) else map(Recording.load, find_recordings(source))
    if not recordings:
        raise ConfigurationError("there is no recording to play")
    return recordings


def _changed(recordings: list[Recording], rewrite: Rewrite | None, pace: Pace | None) -> list[Recording]:
    rewritten = recordings if rewrite is None else list(map(rewrite_by(rewrite), recordings))
    return rewritten if pace is None else list(map(pace_by(pace), rewritten))


def _without_secrets(path: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Path and header fields as they may be remembered, and be shown when a test fails."""
    harmless = {name: value for name, value in headers.items() if name.lower() not in CREDENTIAL_HEADERS}
    request = RecordedRequest("POST", path, harmless, None)
    kept = scrub(Recording(request=request), _EVERY_HEADER).request or request
    return kept.path, dict(kept.headers)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


async def _let_read() -> None:
    """Let a client in the same event loop read what was just written before more is written behind it."""
    await asyncio.sleep(0)  # the loop finds the client's socket readable
    await asyncio.sleep(0)  # the client reads


async def _read_body(receive: Receive, max_bytes: int) -> bytes | None:
    """The request's body; None if the client left before its end. Raises `BodyTooLargeError`."""
    pieces, size, has_more = [b""], 0, True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > max_bytes:
            raise BodyTooLargeError(f"the request's body is larger than max_body_bytes ({max_bytes})", limit=max_bytes)
        has_more = message.get("more_body", False)
    return b"".join(pieces)


# --- playing/demo


DEMO_WORDS: Mapping[str, str] = {
    "unicode": "unicode",
    "think": "thinking",
    "parallel": "parallel-tools",
    "tool": "tools",
    "search": "server-tools",
    "cite": "citations",
    "limit": "max-tokens",
    "refuse": "refusal",
    "overload": "error-before-content",
    "error": "error-after-content",
    "cut": "cut",
}
"""Word in the prompt -> name of the recording; the first that is found counts, and without any it is `plain`."""


class DemoPlayer(Player):
    """A `Player` of the shipped recordings."""

    def __init__(self, *, speed: float = 1.0) -> None:
        recordings = shipped_fixtures()
        super().__init__(list(recordings.values()), speed=speed)
        self.repertoire = _DemoRepertoire(recordings)


class _DemoRepertoire(Repertoire):
    def __init__(self, recordings: Mapping[str, Recording]) -> None:
        super().__init__(list(recordings.values()))
        self._by_name = recordings

    def choose(self, request: RecordedRequest) -> Recording:
        prompt = _last_text(request.body).lower()
        name = next((name for word, name in DEMO_WORDS.items() if word in prompt), "plain")
        return self._by_name[name]


def _last_text(body: Any) -> str:
    """The text of the last message of a request; empty if it has none."""
    last = body["messages"][-1] if body["messages"] else None
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return " ".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))
