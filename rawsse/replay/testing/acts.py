"""What a test's Messages API does: plays recordings, makes new ones, or has nothing to play. And what the test must be told.

This file knows when what happened is not what the test meant. It refuses to know test runners, threads, and where recordings
lie.

    act = Playing(Player(recordings, match="sequence"))
    await act(scope, receive, send)                     # each is an ASGI application
    act.problems(is_over=True)                          # ["not played, 1 of 2 recordings: tools.sse.jsonl"]
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rawsse.errors import RecordingError
from rawsse.replay.matching.answers import error_answer
from rawsse.replay.playing.player import PlayedRequest, Player
from rawsse.replay.recording import Recording
from rawsse.replay.scrubbing.scrub import ALLOWED_REQUEST_HEADERS, ScrubPolicy
from rawsse.replay.taping.proxy import RecordingProxy
from rawsse.replay.taping.recorder import Recorder, is_messages
from rawsse.server import Message, Receive, Scope, Send


class Act(Protocol):
    """One thing that the API does. A test has one after the other."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""

    @property
    def requests(self) -> Sequence[PlayedRequest]:
        """What was asked, without credentials."""

    @property
    def wanted(self) -> str:
        """What somebody should ask for; "" if nobody needs to."""

    def problems(self, *, is_over: bool) -> list[str]:
        """What the test must be told. `is_over`: it did not stop in the middle."""

    async def finish(self, *, is_failed: bool) -> None:
        """The last connection has ended. `is_failed`: the test did not pass."""


class Playing:
    """Plays. `is_strict`: that some recording was not played once is a problem. `is_lenient`: not even a miss is one."""

    def __init__(self, player: Player, *, is_strict: bool = False, is_lenient: bool = False) -> None:
        self._player = player
        self._is_strict = is_strict
        self._is_lenient = is_lenient

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the player answer."""
        await self._player(scope, receive, send)

    @property
    def requests(self) -> list[PlayedRequest]:
        """What was asked, without credentials."""
        return list(self._player.requests)

    @property
    def wanted(self) -> str:
        """The recordings. A lenient test may leave all of them."""
        return "" if self._is_lenient else ", ".join(each.name for each in self._player.repertoire.recordings)

    def problems(self, *, is_over: bool) -> list[str]:
        """Requests that no recording answered; faults that no answer had; and what `is_strict` adds."""
        found = list(dict.fromkeys(self._player.misplaced))  # an answer that says this is nobody's wish
        if self._is_lenient:
            return found
        found += [miss.message for miss in self._player.misses]
        if is_over and not found:  # else they may have waited for what went wrong
            never = "never happened: the test asked too little"
            found += [f"the fault {fault} {never}" for fault in self._player.unused_faults]
        return found + (self._uneven() if self._is_strict and is_over else [])

    def _uneven(self) -> list[str]:
        count = len(self._player.repertoire.recordings)
        left = ", ".join(recording.name for recording in self._player.unplayed)
        again = ", ".join(dict.fromkeys(recording.name for recording in self._player.repeats))
        found = [f"not played, {len(self._player.unplayed)} of {count} recordings: {left}"] if left else []
        return [*found, f"played more than once: {again}"] if again else found

    async def finish(self, *, is_failed: bool) -> None:
        """Nothing is left to be done."""


class Idle:
    """Nothing to play, yet: every request is a mistake."""

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy
        self._asked = list[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say so, as an error that nobody tries again."""
        if scope["type"] != "http":
            raise NotImplementedError(f"HTTP is answered here, not {scope['type']}")
        self._asked.append(f"{scope['method']} {scope['path']}")
        answer = error_answer(404, "not_found_error", self.message)
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.reads[0].data})

    @property
    def message(self) -> str:
        """What is wrong, and what to do about it."""
        return f"there was nothing to play for {', '.join(self._asked)}: {self._remedy}"

    @property
    def requests(self) -> list[PlayedRequest]:
        """What was asked cannot be of interest."""
        return []

    @property
    def wanted(self) -> str:
        """Nothing."""
        return ""

    def problems(self, *, is_over: bool) -> list[str]:
        """That there were requests."""
        return [self.message] if self._asked else []

    async def finish(self, *, is_failed: bool) -> None:
        """Nothing is left to be done."""


class Taking:
    """Records: the first exchange into the first of `paths`, and so on. `base_url` is that of the real API.

    `policy` says what is scrubbed. An HTTP error is not put in the place of a good answer, unless `errors` says so.
    """

    def __init__(
        self, paths: Sequence[Path], base_url: str, *, policy: ScrubPolicy | None = None, errors: bool = False
    ) -> None:
        self._paths = paths
        self._base_url = base_url
        self._policy = policy
        self._errors = errors
        self._asked = list[PlayedRequest]()
        self._folder: str | None = None
        self._recorder: Recorder | None = None
        self._proxy: RecordingProxy | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to the API, and the answer back."""
        if scope["type"] != "http":
            raise NotImplementedError(f"HTTP is passed on here, not {scope['type']}")
        if self._proxy is None or self._recorder is None:
            self._folder = tempfile.mkdtemp(prefix="rawsse-")
            self._recorder = Recorder(self._folder, policy=self._policy)
            self._proxy = RecordingProxy(self._recorder, self._base_url)
        await self._proxy(scope, self._noted(scope, receive), send)

    @property
    def requests(self) -> list[PlayedRequest]:
        """What was asked, without credentials."""
        return list(self._asked)

    @property
    def wanted(self) -> str:
        """Nothing: that too little was asked, `finish` says."""
        return ""

    def problems(self, *, is_over: bool) -> list[str]:
        """None before the end: what is wrong with a new recording, `finish` says."""
        return []

    async def finish(self, *, is_failed: bool) -> None:
        """Put the new recordings where they belong; of a test that failed, none.

        Raises `RecordingError` if there are too few or too many, or an error would replace a good answer.
        """
        if self._proxy is None or self._recorder is None or self._folder is None:
            if is_failed:
                return
            raise RecordingError(f"nothing was recorded for {_names(self._paths)}: the test asked nothing")
        await self._proxy.aclose()
        await self._recorder.aclose()
        try:
            if not is_failed:
                self._put()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _put(self) -> None:
        taken = sorted(Path(self._folder or "").iterdir())  # in the order in which they began
        if len(taken) != len(self._paths):
            lost = self._recorder.lost if self._recorder else 0
            raise RecordingError(
                f"exchanges with the API: {len(taken) + lost}{f' ({lost} lost, see the log)' if lost else ''}, names for their "
                f"recordings: {len(self._paths)} ({_names(self._paths)}); nothing is written"
            )
        made = [(Recording.load(file), path) for file, path in zip(taken, self._paths, strict=True)]
        if not self._errors:
            for recording, path in made:
                _require_no_loss(recording, path)
        for recording, path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            recording.save(path)

    def _noted(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, but what comes is remembered, too."""
        body = bytearray()

        async def noting() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
                if not message.get("more_body", False) and is_messages(scope["method"], scope["path"]):
                    self._asked.append(_asked(scope, bytes(body)))
            return message

        return noting


def _asked(scope: Scope, body: bytes) -> PlayedRequest:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    kept = {name: value for name, value in headers.items() if name in ALLOWED_REQUEST_HEADERS}  # as in the recording
    try:
        return PlayedRequest(scope["method"], scope["path"], kept, json.loads(body))
    except (ValueError, RecursionError):
        return PlayedRequest(scope["method"], scope["path"], kept, body.decode("utf-8", "replace"))


def _require_no_loss(recording: Recording, path: Path) -> None:
    if recording.status >= 400 and path.exists() and Recording.load(path).status < 400:
        raise RecordingError(
            f"the API answered {recording.status}, and {path.name} is a good answer: it stays, and nothing is written. To have "
            "the error instead: record_errors=True"
        )


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
