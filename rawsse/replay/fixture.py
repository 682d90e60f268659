"""The API of one test: it plays what the test says, tells what it was asked, and what went otherwise than the test meant.

`pytest_plugin.py` has fixtures made of it; any other test runner can do the same.

    with Replay() as replay:                        # in a thread: for any client, with or without async, or a command
        replay.play("weather")                      # recordings/weather.sse.jsonl
        subprocess.run(["weather-bot"], env=os.environ | replay.environment)
    replay.requests[0].body
    replay.verify()                                 # AssertionError if nothing was asked, or something that nothing answers

    async with Replay() as replay: ...              # in the event loop that runs: for virtual time

With `record`, what is named and is not there is recorded: the API passes requests on to the real one.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypedDict, Unpack

from rawsse.client.client import DEFAULT_BASE_URL
from rawsse.client.stream import Call
from rawsse.errors import ConfigurationError, RecordingError, quote
from rawsse.messages import Message
from rawsse.replay.answers import error_answer
from rawsse.replay.compose import recording_of
from rawsse.replay.faults import Faults
from rawsse.replay.match import Match
from rawsse.replay.player import LocalServer, PlayedRequest, Player, send_answer
from rawsse.replay.proxy import RawAnswer, RecordingProxy
from rawsse.replay.recorder import Recorder
from rawsse.replay.recording import Recording, find_recordings, is_messages, shipped_fixtures
from rawsse.replay.rewrites import Pace, Rewrite
from rawsse.replay.scrub import ALLOWED_REQUEST_HEADERS, ScrubPolicy
from rawsse.replay.splits import Split
from rawsse.server import Receive, Scope, Send

API_KEY = "replay-needs-no-key"
"""What `Replay.environment` says for ANTHROPIC_API_KEY. A client that goes astray spends nothing with it."""

FOLDER = "recordings"
"""The folder beside a test file in which its recordings are looked for, and into which they are written."""

SUFFIXES = ("", ".sse.jsonl", ".sse")

Source: TypeAlias = str | Path | Recording | Message | Mapping[str, Any]
"""A name, a path, a recording, or a message (as `answer` makes it, or as JSON)."""

_HOW_TO_PLAY = "say what is to be played: replay.play(NAME), or @pytest.mark.replay(NAME)"
_WHY_NOTHING = (
    "The client did not come: was it made before the test began (when its module was imported, or by a fixture of a wider "
    "scope), and so read ANTHROPIC_BASE_URL too early? Is its address written in the code? Or does it ask outside of what "
    "virtual_clock runs? If nothing needs to be asked: strict=False"
)


@dataclass(frozen=True, slots=True)
class RecordMode:
    """`once`: what is not there is recorded; `all`: also what is there. `base_url` is that of the API that is asked."""

    which: Literal["once", "all"]
    base_url: str = DEFAULT_BASE_URL


class PlayOptions(TypedDict, total=False):
    """What `Replay.play` takes beside the sources and its own options: arguments of `Player`; `speed` is 0, and 1 if there is a
    `pace`."""

    match: Match
    faults: Faults
    split: Split | None
    segments: Split | None
    segment_seconds: float
    speed: float | None
    pace: Pace | None
    rewrite: Rewrite | None


class Replay(LocalServer):
    """The API of one test. `with` serves it in a thread, `async with` in the event loop that runs.

    `folder` is where recordings are looked for (see `find`), `split` is how answers are cut that are not cut otherwise.
    `policy` says what is scrubbed from new recordings. `remedy` is what to do about a missing recording, for the error's
    message; `on_start` is called when `environment` is known.
    """

    def __init__(
        self,
        folder: str | Path = ".",
        *,
        split: Split | None = None,
        record: RecordMode | None = None,
        policy: ScrubPolicy | None = None,
        remedy: str = "",
        on_start: Callable[[Replay], object] = lambda _: None,
    ) -> None:
        self.is_recording = False
        """Something is being recorded; what is given to `play` but names is then of no effect."""
        self._folder = Path(folder)
        self._split = split
        self._record = record
        self._policy = policy
        self._remedy = remedy
        self._on_start = on_start
        self._address: str | None = None
        self._holder: socket.socket | None = None
        self._is_kept = self._is_failed = False
        self._count = 0
        self._unplayable: list[str] = []  # requests before there was something to play
        self._acts: list[_Play | _Taking] = []

    def play(
        self,
        *sources: Source,
        strict: bool | None = None,
        record_errors: bool = False,
        **options: Unpack[PlayOptions],
    ) -> None:
        """Play these from now on; for the options see `PlayOptions`.

        `strict`: each recording is to be played once, else it is an error at the end. That is so by default if they are played
        in sequence; in turns it is not, since most tests mean one answer, however often it is asked for. False: nor is it an
        error that no recording answers a request, that nothing is asked, or that a fault never happens.

        `record_errors`: an HTTP error may be recorded in the place of a good answer. Raises `RecordingError` and
        `ConfigurationError`.
        """
        if not sources:
            raise ConfigurationError("there is nothing to play: name a recording, or make an answer up")
        names = [source for source in sources if isinstance(source, str | Path)]
        if self._record is not None and any(self._is_wanted(name, self._record) for name in names):
            if len(names) != len(sources):
                raise ConfigurationError("some of these answers are made up, and cannot be recorded with the others")
            paths = [own_path(name, self._folder) or written_path(name, self._folder) for name in names]
            self._acts.append(_Taking(paths, self._record.base_url, self._policy, errors=record_errors))
            self.is_recording = True
            if self._address is not None:
                self._on_start(self)  # the environment has changed: the user's own key is needed
            return
        recordings = [recording for source in sources for recording in self._found(source)]
        if options.get("split") is None:
            options["split"] = self._split
        if options.get("pace") is None:
            options.setdefault("speed", 0)
        is_strict = options.get("match") == "sequence" if strict is None else strict
        self._acts.append(_Play(Player(recordings, **options), is_strict, is_lenient=strict is False))

    # --- What the client needs, and what it did

    @property
    def is_served(self) -> bool:
        """It answers. With `kept` there is an address before."""
        return self._server is not None

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables with which most clients come here. While something is recorded, the user's own key is needed."""
        key = {} if self.is_recording else {"ANTHROPIC_API_KEY": API_KEY}
        return {"ANTHROPIC_BASE_URL": self._address or self.base_url, **key}

    @property
    def requests(self) -> list[PlayedRequest]:
        """The requests that came, oldest first, without their credentials."""
        return [request for act in self._acts for request in act.requests]

    def problems(self, *, is_over: bool = True) -> list[str]:
        """What went otherwise than the test meant: see `play`. `is_over`: the test came to its end."""
        plays = [act for act in self._acts if isinstance(act, _Play)]
        wanted = "; ".join(play.names for play in plays if not play.is_lenient)
        if is_over and wanted and not self._count:
            return [f"nothing was asked here, where {wanted} should be played. {_WHY_NOTHING}"]
        found = [self._nothing_to_play] if self._unplayable else []
        return found + [problem for play in plays for problem in play.problems(is_over=is_over)]

    @property
    def _nothing_to_play(self) -> str:
        return f"there was nothing to play for {', '.join(self._unplayable)}: {_HOW_TO_PLAY}"

    def verify(self) -> None:
        """Raise an AssertionError if there are problems."""
        __tracebackhide__ = True
        if problems := self.problems():
            raise AssertionError("\n".join(problems))

    def fail(self) -> None:
        """The test did not pass: what it recorded is not written."""
        self._is_failed = True

    # --- Serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it, to what is played now."""
        if scope["type"] != "http":
            raise NotImplementedError(f"HTTP is answered here, not {scope['type']}")
        self._count += 1
        if self._acts:
            await self._acts[-1](scope, receive, send)
            return
        self._unplayable.append(f"{scope['method']} {scope['path']}")
        await send_answer(send, error_answer(404, "not_found_error", self._nothing_to_play))

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Say already now at which address it will be served: clients may be made before. Till then they are refused there."""
        self._is_kept = True
        self._take_port()
        self._lead_to(f"http://127.0.0.1:{self._port}")
        try:
            yield self
        finally:
            self._address, self._is_kept = None, False
            self._give_port()

    async def __aenter__(self) -> Self:
        if self._is_kept and self.is_recording:
            raise ConfigurationError("the real API cannot be recorded in virtual time: run it without that clock")
        self._give_port()
        await super().__aenter__()
        self._lead_to(self.base_url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        if self._is_kept:
            self._take_port()
        else:
            self._address = None
            for act in self._acts:
                await act.finish(is_failed=self._is_failed)

    def __exit__(self, *exc: object) -> None:
        self._is_failed = self._is_failed or any(exc)
        super().__exit__(*exc)

    def _lead_to(self, base_url: str) -> None:
        if base_url != self._address:
            self._address = base_url
            self._on_start(self)

    def _take_port(self) -> None:
        """Bind a socket that does not listen: a connection to it is refused at once."""
        self._holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":  # else connections that ended just now keep it for minutes, as they should a stranger
            self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", self._port))
        self._port = self._holder.getsockname()[1]

    def _give_port(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    # --- Playing or recording

    def _found(self, source: Source) -> Sequence[Recording]:
        try:
            return find(source, self._folder)
        except RecordingError as exc:
            if isinstance(source, str | Path) and own_path(source, self._folder) is None:
                raise RecordingError(f"{exc}{self._remedy}") from None
            raise

    def _is_wanted(self, name: str | Path, record: RecordMode) -> bool:
        if own_path(name, self._folder) is not None:
            return record.which == "all"
        # A recording that comes with rawsse would be mistaken for another one of that name.
        return str(name) not in shipped_fixtures()


@dataclass(slots=True)
class _Play:
    """Plays. `is_strict`: that some recording was not played once is a problem. `is_lenient`: not even a miss is one."""

    player: Player
    is_strict: bool
    is_lenient: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.player(scope, receive, send)

    @property
    def requests(self) -> list[PlayedRequest]:
        return self.player.requests

    @property
    def names(self) -> str:
        return ", ".join(recording.name for recording in self.player.api.recordings)

    def problems(self, *, is_over: bool) -> list[str]:
        """Requests that no recording answered; faults that no answer had; and what `is_strict` adds."""
        player, found = self.player, list(dict.fromkeys(self.player.misplaced))  # no test can mean such an answer
        if self.is_lenient:
            return found
        found += [miss.message for miss in player.misses]
        if is_over and not found:  # else they may have waited for what went wrong
            never = "never happened: the test asked too little"
            found += [f"the fault {fault} {never}" for fault in player.unused_faults]
        if is_over and self.is_strict:
            count, left = len(player.api.recordings), [recording.name for recording in player.unplayed]
            again = ", ".join(dict.fromkeys(recording.name for recording in player.repeats))
            found += [f"not played, {len(left)} of {count} recordings: {', '.join(left)}"] if left else []
            found += [f"played more than once: {again}"] if again else []
        return found

    async def finish(self, *, is_failed: bool) -> None:
        """Nothing is left to be done."""


class _Taking(RecordingProxy):
    """Records: the first exchange into the first of `paths`, and so on. An HTTP error is not put in the place of a good answer,
    unless `errors` says so."""

    def __init__(self, paths: Sequence[Path], base_url: str, policy: ScrubPolicy | None, *, errors: bool) -> None:
        self._temporary = Path(tempfile.mkdtemp(prefix="rawsse-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        self._taker = Recorder(self._temporary, policy=policy)
        super().__init__(self._taker, base_url)
        self._paths = paths
        self._errors = errors
        self.requests: list[PlayedRequest] = []

    def call(self, scope: Scope, body: bytes) -> Call[RawAnswer]:
        if is_messages(scope["method"], scope["path"]):
            request = PlayedRequest.of(scope, body)
            headers = {name: value for name, value in request.headers.items() if name in ALLOWED_REQUEST_HEADERS}
            self.requests.append(
                PlayedRequest(request.method, request.path, headers, request.body)
            )  # as it is recorded
        return super().call(scope, body)

    async def finish(self, *, is_failed: bool) -> None:
        """Put the new recordings where they belong; of a test that failed, none.

        Raises `RecordingError` if there are too few or too many, or an error would replace a good answer.
        """
        await self.aclose()
        await self._taker.aclose()
        try:
            if not is_failed:
                self._put()
        finally:
            self._remove()

    def _put(self) -> None:
        taken = sorted(self._temporary.iterdir())  # in the order in which they began
        names, lost = ", ".join(path.name for path in self._paths), self._taker.lost
        if not taken and not lost:
            raise RecordingError(f"nothing was recorded for {names}: the test asked nothing")
        if len(taken) != len(self._paths):
            exchanges = f"{len(taken) + lost}{f' ({lost} lost, see the log)' if lost else ''}"
            wanted = f"names for their recordings: {len(self._paths)} ({names})"
            raise RecordingError(f"exchanges with the API: {exchanges}, {wanted}; nothing is written")
        made = [(Recording.load(file), path) for file, path in zip(taken, self._paths, strict=True)]
        for recording, path in made:
            is_loss = recording.status >= 400 and path.exists() and Recording.load(path).status < 400
            if is_loss and not self._errors:
                raise RecordingError(
                    f"the API answered {recording.status}, and {path.name} is a good answer: it stays, and nothing is "
                    "written. To have the error instead: record_errors=True"
                )
        for recording, path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            recording.save(path)


# --- What a test names -----------------------------------------------------------------------------------------------


def find(source: Source, folder: Path) -> list[Recording]:
    """The recordings that are meant: by a name, beside the test (`folder`), in `recordings/` there, or among those that come
    with rawsse; by a path; by a folder whose name ends in a slash; or a message, as the stream that the API would have sent.

    Raises `RecordingError`, which says where they were looked for.
    """
    if isinstance(source, Recording):
        return [source]
    if isinstance(source, Message | Mapping):
        return [recording_of(source)]
    if (path := own_path(source, folder)) is not None:
        return [Recording.load(file) for file in find_recordings(path)]
    shipped = shipped_fixtures()
    if str(source) in shipped:
        return [shipped[str(source)]]
    raise RecordingError(
        f"there is no recording {quote(str(source))}, neither in {folder} nor in {folder / FOLDER}, and none of that name "
        f"comes with rawsse ({', '.join(shipped)})"
    )


def find_one(source: Source, folder: Path) -> Recording:
    """The same, if it must be one. Raises `RecordingError`."""
    found = find(source, folder)
    if len(found) != 1:
        raise RecordingError(f"{quote(str(source))} are {len(found)} recordings, and one is needed here")
    return found[0]


def own_path(source: str | Path, folder: Path) -> Path | None:
    """The file beside the test, or the folder (whose name must end in a slash: a name could be that of a folder of code)."""
    bases = (folder, folder / FOLDER)
    if isinstance(source, Path) or source.endswith("/"):
        return next((base / source for base in bases if (base / source).exists()), None)
    files = (base / f"{source}{suffix}" for base in bases for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def written_path(source: str | Path, folder: Path) -> Path:
    """Where a new recording of that name goes: into `recordings/`, unless the name says another folder."""
    name = str(source)
    if not name.endswith(".sse.jsonl"):
        name = name.removesuffix(".sse") + ".sse.jsonl"
    return folder / name if "/" in name or isinstance(source, Path) else folder / FOLDER / name
