"""A Messages API made of recordings: an ASGI application (`Player`), and a server that runs it (`ReplayServer`).

This file knows pieces, whose turn a fault is, and what is remembered of a request. It refuses to know what is answered
(`answers.py`), what a fault does (`edits.py`, `script.py`) and how HTTP is framed (`http1.py`).

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
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from rawsse.errors import BodyTooLargeError, ConfigurationError
from rawsse.http1 import MAX_BODY_BYTES
from rawsse.replay.breaking.edits import edited, replacement
from rawsse.replay.breaking.faults import Fault
from rawsse.replay.breaking.schedule import Faults, Schedule
from rawsse.replay.breaking.script import Act, Script, Stall, coded, is_cutting, needs_wire, recut, script
from rawsse.replay.breaking.wire import Wire
from rawsse.replay.matching.answers import Answer, Repertoire, error_answer
from rawsse.replay.matching.match import Match, Miss
from rawsse.replay.recording import RecordedRequest, Recording, find_recordings
from rawsse.replay.scrubbing.names import CREDENTIAL_HEADERS
from rawsse.replay.scrubbing.scrub import ScrubPolicy, scrub
from rawsse.replay.shaping.pace import Pace, pace_by
from rawsse.replay.shaping.rewrites import Rewrite, rewrite_by
from rawsse.replay.shaping.splits import Split, split_by
from rawsse.server import Receive, Scope, Send, Server
from rawsse.server.asgi import unless_gone

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
    `threads`: keep message threads instead of refusing them (`threads.py`).
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
        threads: bool = False,
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
        self.repertoire = Repertoire(played, match=match, threads=threads, on_miss=_log)
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
        threads: bool = False,
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
            threads=threads,
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
