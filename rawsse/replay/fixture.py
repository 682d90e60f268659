"""What a test plays: recordings by path or by name, or messages that it has made up.


    find("weather", folder)         # folder/weather, folder/recordings/weather, each also with .sse.jsonl or .sse behind it;
                                    # else the recording of that name that comes with rawsse
    find("talks/", folder)          # all recordings in a folder, sorted by name
    find(answer("Hello."), folder)  # the stream that the API would have sent for a message


What a test's Messages API does: plays recordings, makes new ones, or has nothing to play. And what the test must be told.


    act = Playing(Player(recordings, match="sequence"))
    await act(scope, receive, send)                     # each is an ASGI application
    act.problems(is_over=True)                          # ["not played, 1 of 2 recordings: tools.sse.jsonl"]


What a test holds in its hand: a Messages API on this machine that plays what the test says, and tells what it was asked.

This file knows what is played when, where it is served, and what the environment must say so that clients come here. It refuses
to know test runners: `pytest_plugin.py` has the fixtures, and every other runner can do the same.

    with Replay() as replay:                        # in a thread: for any client, with or without async, or a command
        replay.play("weather")                      # recordings/weather.sse.jsonl
        subprocess.run(["weather-bot"], env=os.environ | replay.environment)
    replay.requests[0].body
    replay.verify()                                 # AssertionError if nothing was asked, or something that nothing answers

    async with Replay().here() as replay: ...       # in the event loop that runs: for virtual time

With `record`, what is named and is not there is recorded: the API passes requests on to the real one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

from rawsse.client.client import DEFAULT_BASE_URL
from rawsse.errors import ConfigurationError, RecordingError, quote
from rawsse.messages import Message
from rawsse.replay.answers import error_answer
from rawsse.replay.compose import recording_of
from rawsse.replay.match import Match
from rawsse.replay.player import BackgroundServer, KeptAddress, PlayedRequest, Player
from rawsse.replay.proxy import RecordingProxy
from rawsse.replay.recorder import Recorder, is_messages
from rawsse.replay.recording import Recording, find_recordings, shipped_fixtures
from rawsse.replay.rewrites import Pace, Rewrite
from rawsse.replay.scrub import ALLOWED_REQUEST_HEADERS, ScrubPolicy
from rawsse.replay.splits import Split
from rawsse.replay.wire import Faults
from rawsse.server import Receive, Scope, Send, Server
from rawsse.server.asgi import Message as ASGIMessage

# --- testing/sources


FOLDER = "recordings"
"""The folder beside a test file in which its recordings are looked for, and into which they are written."""

SUFFIXES = ("", ".sse.jsonl", ".sse")

Source: TypeAlias = str | Path | Recording | Message | Mapping[str, Any]
"""A name, a path, a recording, or a message (as `answer` makes it, or as JSON)."""


def find(source: Source, folder: Path) -> list[Recording]:
    """The recordings that are meant. Raises `RecordingError`, which says where they were looked for."""
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
    """The file beside the test, or the folder (whose name must end in a slash, lest a name mean a folder of code)."""
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


# --- testing/acts


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

        async def noting() -> ASGIMessage:
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


# --- testing/hand


API_KEY = "replay-needs-no-key"
"""What `Replay.environment` says for ANTHROPIC_API_KEY. A client that goes astray spends nothing with it."""

_WHY_NOTHING = (
    "The client did not come: was it made before the test began (when its module was imported, or by a fixture of a wider "
    "scope), and so read ANTHROPIC_BASE_URL too early? Is its address written in the code? Or does it ask outside of what "
    "virtual_clock runs? If nothing needs to be asked: strict=False"
)

Sources: TypeAlias = Iterable[Source]


@dataclass(frozen=True, slots=True)
class RecordMode:
    """`once`: what is not there is recorded; `all`: also what is there. `base_url` is that of the API that is asked."""

    which: Literal["once", "all"]
    base_url: str = DEFAULT_BASE_URL


class Replay:
    """The API of one test. `with` serves it in a thread, `here` in the event loop that runs.

    `folder` is where recordings are looked for (see `sources.py`), `split` is how answers are cut that are not cut otherwise.
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
        self.is_served = False
        """It answers. With `kept` there is an address before."""
        self._folder = Path(folder)
        self._split = split
        self._record = record
        self._policy = policy
        self._remedy = remedy
        self._on_start = on_start
        self._address: str | None = None
        self._kept: KeptAddress | None = None
        self._is_failed = False
        self._count = 0
        self._background: BackgroundServer | None = None
        self._acts: list[Act] = [Idle("say what is to be played: replay.play(NAME), or @pytest.mark.replay(NAME)")]

    def play(
        self,
        *sources: Source,
        match: Match = "turns",
        strict: bool | None = None,
        faults: Faults = (),
        split: Split | None = None,
        segments: Split | None = None,
        segment_seconds: float = 0.0,
        speed: float | None = None,
        pace: Pace | None = None,
        rewrite: Rewrite | None = None,
        record_errors: bool = False,
    ) -> None:
        """Play these from now on. The other arguments are those of `Player`; `speed` is 0, and 1 if there is a `pace`.

        `strict`: each recording is to be played once, else it is an error at the end. That is so by default if they are played
        in sequence; in turns it is not, since most tests mean one answer, however often it is asked for. False: nor is a
        request an error that no recording answers, or that nothing is asked, or that a fault never happens.

        `record_errors`: an HTTP error may be recorded in the place of a good answer. Raises `RecordingError` and
        `ConfigurationError`.
        """
        if not sources:
            raise ConfigurationError("there is nothing to play: name a recording, or make an answer up")
        names = [source for source in sources if isinstance(source, str | Path)]
        if (taking := self._taking(names, record_errors)) is not None:
            if len(names) != len(sources):
                raise ConfigurationError("some of these answers are made up, and cannot be recorded with the others")
            self._acts.append(taking)
            self.is_recording = True
            if self._address is not None:
                self._on_start(self)  # the environment has changed: the user's own key is needed
            return
        recordings = [recording for source in sources for recording in self._found(source)]
        player = Player(
            recordings,
            match=match,
            faults=faults,
            split=self._split if split is None else split,
            segments=segments,
            segment_seconds=segment_seconds,
            speed=speed,
            pace=pace,
            rewrite=rewrite,
        )
        is_strict = match == "sequence" if strict is None else strict
        self._acts.append(Playing(player, is_strict=is_strict, is_lenient=strict is False))

    # --- What the client needs, and what it did

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT`. Raises `ConfigurationError` while nothing is served."""
        if not self.is_served or self._address is None:
            raise ConfigurationError(
                "the API is not served yet: with the fixture virtual_clock, it is while the clock runs a coroutine"
            )
        return self._address

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
        wanted = [act.wanted for act in self._acts if act.wanted]
        if is_over and wanted and not self._count:
            return [f"nothing was asked here, where {'; '.join(wanted)} should be played. {_WHY_NOTHING}"]
        return [problem for act in self._acts for problem in act.problems(is_over=is_over)]

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
        self._count += scope["type"] == "http"  # the server itself comes first, for the lifespan
        await self._acts[-1](scope, receive, send)

    def __enter__(self) -> Self:
        self._background = BackgroundServer(self, on_stop=self._finish)
        self._started(self._background.__enter__().base_url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_served, self._address = False, None
        self._is_failed = self._is_failed or error is not None
        if self._background is not None:
            self._background.__exit__(kind, error, trace)

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Say already now at which address `here` will serve: clients may be made before. Till then they are refused there."""
        with KeptAddress() as self._kept:
            self._lead_to(self._kept.base_url)
            try:
                yield self
            finally:
                self._address = None
        self._kept = None

    @asynccontextmanager
    async def here(self) -> AsyncIterator[Self]:
        """Serve it in this event loop. So a client in the same loop gets each piece by itself, on whatever clock it has."""
        if self.is_recording:
            raise ConfigurationError("the real API cannot be recorded in virtual time: run it without that clock")
        kept = self._kept
        server = Server(self, port=0 if kept is None else kept.lend())
        try:
            await server.start()
            self._started(server.base_url)
            yield self
        finally:
            self.is_served = False
            await server.shutdown(0)
            if kept is None:
                self._address = None
            else:
                kept.take_back()

    def _started(self, base_url: str) -> None:
        self.is_served = True
        self._lead_to(base_url)

    def _lead_to(self, base_url: str) -> None:
        if base_url != self._address:
            self._address = base_url
            self._on_start(self)

    async def _finish(self) -> None:
        for act in self._acts:
            await act.finish(is_failed=self._is_failed)

    # --- Playing or recording

    def _found(self, source: Source) -> Sequence[Recording]:
        try:
            return find(source, self._folder)
        except RecordingError as exc:
            if isinstance(source, str | Path) and own_path(source, self._folder) is None:
                raise RecordingError(f"{exc}{self._remedy}") from None
            raise

    def _taking(self, names: Sequence[str | Path], errors: bool) -> Taking | None:
        """What records these; None if nothing of them is to be recorded."""
        record = self._record
        if record is None or not any(self._is_wanted(name, record) for name in names):
            return None
        paths = [own_path(name, self._folder) or written_path(name, self._folder) for name in names]
        return Taking(paths, record.base_url, policy=self._policy, errors=errors)

    def _is_wanted(self, name: str | Path, record: RecordMode) -> bool:
        if own_path(name, self._folder) is not None:
            return record.which == "all"
        try:
            find(name, self._folder)
        except RecordingError:
            return True
        return False  # it comes with rawsse: another one of that name would only be mistaken for it
