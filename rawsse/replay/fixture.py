"""The API of one test: it plays the recordings that the test names, and collects the requests and the problems.

The fixtures of `pytest_plugin.py` are built on it; other test runners can use it, too.

    with Replay() as replay:                        # in a thread: for any client, with or without async, or a command
        replay.play("weather")                      # recordings/weather.sse.jsonl
        subprocess.run(["weather-bot"], env=os.environ | replay.environment)
    replay.requests[0].body
    replay.verify()                                 # AssertionError if no request arrived, or no recording answered one

    async with Replay() as replay: ...              # in the running event loop: for virtual time

With `record`, recordings that do not exist yet are made: requests are forwarded to the real API.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self, TypedDict, Unpack

from rawsse.client.client import DEFAULT_BASE_URL
from rawsse.client.stream import Call
from rawsse.errors import ConfigurationError, RecordingError, quote
from rawsse.replay.answers import Match, as_recording, error_answer
from rawsse.replay.faults import Faults
from rawsse.replay.player import LocalServer, PlayedRequest, Player, Source, send_answer
from rawsse.replay.proxy import RawAnswer, RecordingProxy
from rawsse.replay.recorder import Recorder
from rawsse.replay.recording import Recording, is_messages, load_recordings, shipped_fixtures
from rawsse.replay.scrub import ALLOWED_REQUEST_HEADERS, ScrubPolicy
from rawsse.replay.variants import Pace, Rewrite, Split
from rawsse.server import Receive, Scope, Send

API_KEY = "replay-needs-no-key"
"""The ANTHROPIC_API_KEY of `Replay.environment`. It is worthless at any real API."""

FOLDER = "recordings"
"""The folder next to a test file with its recordings; new ones are written there."""

SUFFIXES = ("", ".sse.jsonl", ".sse")

_WHY_NOTHING = (
    "Was the client made before the test began (when its module was imported, or by a fixture of a wider scope), and so read "
    "ANTHROPIC_BASE_URL too early? Is its address written in the code? Or does it run outside of virtual_clock? If no "
    "request is needed: strict=False"
)


class PlayOptions(TypedDict, total=False):
    """The arguments of `Player` that `Replay.play` takes, too. `speed` defaults to 0, and to 1 if there is a `pace`."""

    match: Match
    faults: Faults
    split: Split | None
    segments: Split | None
    segment_seconds: float
    speed: float | None
    pace: Pace | None
    rewrite: Rewrite | None


class Replay(LocalServer):
    """The API of one test. `with` serves it in a thread, `async with` in the running event loop.

    `folder` has the recordings (see `find`). `record` records the API at `record_url` (default: the real one): `once` only
    missing recordings, `all` every one; `policy` sets what is scrubbed. `on_start` is called when `environment` is known.
    """

    def __init__(
        self,
        folder: str | Path = ".",
        *,
        record: Literal["once", "all"] | None = None,
        record_url: str | None = None,
        policy: ScrubPolicy | None = None,
        on_start: Callable[[Replay], object] = lambda _: None,
    ) -> None:
        self.is_recording = False
        """Whether the real API is being recorded; the options of `play` then have no effect."""
        self.is_failed = False
        """Whether the test failed: then its new recordings are not written."""
        self._folder = Path(folder)
        self._record = record
        self._record_url = record_url or DEFAULT_BASE_URL
        self._policy = policy
        self._on_start = on_start
        self._held_port = ExitStack()
        self._is_kept = False
        self._unplayable = Counter[str]()  # requests before the first `play`
        self._plays: list[_Play | _Recorded] = []

    def play(self, *sources: Source, strict: bool | None = None, **options: Unpack[PlayOptions]) -> None:
        """Play these from now on; for the options see `PlayOptions`.

        `strict`: each recording must be played exactly once, else the test fails at the end. That is the default for a
        sequence but not for turns, where one answer may be requested any number of times. False: not even a missing answer,
        a missing request or an unused fault is an error. Raises `RecordingError` and `ConfigurationError`.
        """
        if not sources:
            raise ConfigurationError("there is nothing to play: name a recording, or give an answer(…)")
        names = [source for source in sources if isinstance(source, str | Path)]
        if self._record is not None and any(self._is_wanted(name) for name in names):
            if len(names) != len(sources):
                raise ConfigurationError("some of these answers are made up, and cannot be recorded with the others")
            paths = [own_path(name, self._folder) or written_path(name, self._folder) for name in names]
            self._plays.append(_Recorded(paths, self._record_url, self._policy))
            self.is_recording = True
            if self._is_kept or self.is_served:
                self._on_start(self)  # the environment has changed: the user's own key is needed
            return
        recordings = [recording for source in sources for recording in find(source, self._folder)]
        self._plays.append(_Play(recordings, options, strict=strict))

    # --- For the test

    @property
    def is_served(self) -> bool:
        """Whether it is being served. With `kept` it already has an address."""
        return self._server is not None

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that point most clients at this API. While recording, the user's own key is needed."""
        key = {} if self.is_recording else {"ANTHROPIC_API_KEY": API_KEY}
        return {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self._port}" if self._is_kept else self.base_url, **key}

    @property
    def requests(self) -> list[PlayedRequest]:
        """The requests, oldest first, without their credentials."""
        return [request for play in self._plays for request in play.requests]

    @property
    def hidden(self) -> int:
        """How many secrets were hidden in the new recordings, which therefore play a different text from the one received."""
        return sum(play.recorder.hidden for play in self._plays if isinstance(play, _Recorded) and not self.is_failed)

    def problems(self, *, is_over: bool = True) -> list[str]:
        """The problems that the test did not expect: see `play`. `is_over`: the test has ended."""
        plays = [play for play in self._plays if isinstance(play, _Play)]
        wanted = "; ".join(play.names for play in plays if not play.is_lenient)
        if is_over and wanted and not (self.requests or self._unplayable):
            return [f"no request came for {wanted}. {_WHY_NOTHING}"]
        found = [self._nothing_to_play] if self._unplayable else []
        return found + [problem for play in plays for problem in play.problems(is_over=is_over)]

    @property
    def _nothing_to_play(self) -> str:
        how = "name a recording with replay.play(NAME), or @pytest.mark.replay(NAME)"
        counted = (what if n == 1 else f"{what} ({n} times)" for what, n in self._unplayable.items())
        return f"there was nothing to play for {', '.join(counted)}: {how}"

    def verify(self) -> None:
        """Raise an AssertionError if there are problems."""
        __tracebackhide__ = True
        if problems := self.problems():
            raise AssertionError("\n".join(problems))

    # --- Serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3) with the last `play`."""
        if self._plays:
            await self._plays[-1](scope, receive, send)
        elif scope["type"] == "http":
            self._unplayable[f"{scope['method']} {scope['path']}"] += 1
            await send_answer(send, error_answer(404, "not_found_error", self._nothing_to_play))
        else:
            raise NotImplementedError(f"a Replay answers HTTP, not {scope['type']}")

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Reserve the address before it is served, so that clients can be made. Until then it refuses connections."""
        self._is_kept = True
        self._take_port()
        self._on_start(self)
        try:
            yield self
        finally:
            self._is_kept = False
            self._held_port.close()

    async def __aenter__(self) -> Self:
        if self._is_kept and self.is_recording:
            raise ConfigurationError("the real API cannot be recorded in virtual time: run it without that clock")
        self._held_port.close()
        await super().__aenter__()
        if not self._is_kept:
            self._on_start(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        if self._is_kept:
            self._take_port()
            return
        for play in self._plays:
            if isinstance(play, _Recorded):
                await play.finish(is_failed=self.is_failed)

    def __exit__(self, *exc: object) -> None:
        self.is_failed = self.is_failed or any(exc)
        super().__exit__(*exc)

    def _take_port(self) -> None:
        """Bind a socket that does not listen: connections to it are refused at once."""
        holder = self._held_port.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        if os.name == "posix":  # else recently closed connections keep the port for minutes
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", self._port))
        self._port = holder.getsockname()[1]

    def _is_wanted(self, name: str | Path) -> bool:
        if own_path(name, self._folder) is not None:
            return self._record == "all"
        # The name of a recording shipped with rawsse always means that one.
        return str(name) not in shipped_fixtures()


class _Play(Player):
    """A player with the expectations of its test: see `strict` of `Replay.play`."""

    _default_speed = 0.0

    def __init__(self, recordings: Sequence[Recording], options: PlayOptions, *, strict: bool | None) -> None:
        super().__init__(recordings, **options)
        self.is_lenient = strict is False
        self._is_strict = options.get("match") == "sequence" if strict is None else strict

    @property
    def names(self) -> str:
        return ", ".join(recording.name for recording in self.api.recordings)

    def problems(self, *, is_over: bool) -> list[str]:
        """Errors of `match` and `faults`, requests that no recording answered, faults that no client met, and recordings not
        played once."""
        found = list(dict.fromkeys(self.misplaced))  # no test expects such an answer
        if self.is_lenient:
            return found
        found += dict.fromkeys(miss.message for miss in self.misses)
        if is_over and not found:  # else they may be a consequence
            hidden, few = self._schedule.hidden, "the test sent too few requests"
            found += [f"the fault {fault} never happened: {hidden.get(fault, few)}" for fault in self.unused_faults]
            begun = self._schedule.begun.items()
            found += [f"the fault {fault} happened in {of} requests: {hidden.get(fault, few)}" for fault, of in begun]
        if is_over and self._is_strict:
            count, left = len(self.api.recordings), [recording.name for recording in self.unplayed]
            again = ", ".join(dict.fromkeys(recording.name for recording in self.repeats))
            found += [f"not played, {len(left)} of {count} recordings: {', '.join(left)}"] if left else []
            found += [f"played more than once: {again}"] if again else []
        return found


class _Recorded(RecordingProxy):
    """Records the real API: the first exchange into the first of `paths`, and so on. An HTTP error never replaces a good
    answer."""

    def __init__(self, paths: Sequence[Path], base_url: str, policy: ScrubPolicy | None) -> None:
        self._temporary = Path(tempfile.mkdtemp(prefix="rawsse-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        self.recorder = Recorder(self._temporary, policy=policy)
        super().__init__(self.recorder, base_url)
        self._paths = paths
        self.requests: list[PlayedRequest] = []

    def call(self, scope: Scope, body: bytes) -> Call[RawAnswer]:
        if is_messages(scope["method"], scope["path"]):
            request = PlayedRequest.of(scope, body)
            recorded = {name: value for name, value in request.headers.items() if name in ALLOWED_REQUEST_HEADERS}
            self.requests.append(replace(request, headers=recorded))
        return super().call(scope, body)

    async def finish(self, *, is_failed: bool) -> None:
        """Move the new recordings to their paths, unless the test failed.

        Raises `RecordingError` if there are too few or too many, or an error would replace a good answer.
        """
        await self.aclose()
        await self.recorder.aclose()
        try:
            if not is_failed:
                self._put()
        finally:
            self._remove()

    def _put(self) -> None:
        taken = sorted(self._temporary.iterdir())  # in the order of their beginnings
        names, lost = ", ".join(path.name for path in self._paths), self.recorder.lost
        if not taken and not lost:
            raise RecordingError(f"nothing was recorded for {names}: the test sent no request")
        if len(taken) != len(self._paths):
            exchanges = f"{len(taken) + lost}{f' ({lost} lost, see the log)' if lost else ''}"
            wanted = f"names for their recordings: {len(self._paths)} ({names})"
            raise RecordingError(f"exchanges with the API: {exchanges}, {wanted}; nothing is written")
        made = [(Recording.load(file), path) for file, path in zip(taken, self._paths, strict=True)]
        for recording, path in made:
            if recording.status >= 400 and path.exists() and Recording.load(path).status < 400:
                said = f"the API answered {recording.status}, and {path.name} is a good answer: nothing is written"
                raise RecordingError(f"{said}. To have the error instead, delete that file first")
        for recording, path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            recording.save(path)


# --- The names of recordings -----------------------------------------------------------------------------------------


def find(source: Source, folder: Path) -> list[Recording]:
    """The recordings of a source: a name next to the test (`folder`), in `recordings/` there, or among those shipped with
    rawsse; a path; a folder whose name ends in a slash; or a message, as a stream.

    Raises `RecordingError`, which names the places that were searched.
    """
    if not isinstance(source, str | Path):
        return [as_recording(source)]
    if (path := own_path(source, folder)) is not None:
        return load_recordings(path)
    shipped = shipped_fixtures()
    if str(source) in shipped:
        return [shipped[str(source)]]
    known = f"and none of that name comes with rawsse ({', '.join(shipped)})"
    places = f"there is no recording {quote(str(source))}, neither in {folder} nor in {folder / FOLDER}, {known}"
    todo = "To record it: ANTHROPIC_API_KEY=… pytest --rawsse-record=once"
    if source and any((base / source).is_dir() for base in (folder, folder / FOLDER)):
        todo = f"To play all of that folder: '{source}/'"
    raise RecordingError(f"{places}. {todo}")


def own_path(source: str | Path, folder: Path) -> Path | None:
    """The file next to the test, or the folder (whose name must end in a slash, to distinguish it from a package)."""
    bases = (folder, folder / FOLDER)
    if isinstance(source, Path) or source.endswith("/"):
        return next((base / source for base in bases if (base / source).exists()), None)
    files = (base / f"{source}{suffix}" for base in bases for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def written_path(source: str | Path, folder: Path) -> Path:
    """The path of a new recording of that name: in `recordings/`, unless the name has a folder."""
    name = str(source)
    if not name.endswith(".sse.jsonl"):
        name = name.removesuffix(".sse") + ".sse.jsonl"
    return folder / name if "/" in name or isinstance(source, Path) else folder / FOLDER / name
