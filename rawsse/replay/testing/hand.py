"""What a test holds in its hand: a Messages API on this machine that plays what the test says, and tells what it was asked.

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

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from rawsse.client.client import DEFAULT_BASE_URL
from rawsse.errors import ConfigurationError, RecordingError
from rawsse.replay.breaking.schedule import Faults
from rawsse.replay.matching.match import Match
from rawsse.replay.playing.player import PlayedRequest, Player
from rawsse.replay.recording import Recording
from rawsse.replay.scrubbing.scrub import ScrubPolicy
from rawsse.replay.shaping.pace import Pace
from rawsse.replay.shaping.rewrites import Rewrite
from rawsse.replay.shaping.splits import Split
from rawsse.replay.testing.acts import Act, Idle, Playing, Taking
from rawsse.replay.testing.address import KeptAddress
from rawsse.replay.testing.background import BackgroundServer
from rawsse.replay.testing.sources import Source, find, own_path, written_path
from rawsse.server import Receive, Scope, Send, Server

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
        threads: bool = False,
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
            threads=threads,
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
