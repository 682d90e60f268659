"""Record the exchanges of a client or, as a flight recorder, only those that failed.

    recorder = Recorder("recordings")
    async with AsyncClient(recorder=recorder) as client: ...        # written when the client is closed
    # recordings/0001-claude-sonnet-5-complete.sse.jsonl, …

    recorder = Recorder("failures", only_failed=True)               # a flight recorder, for a long-running client

Each attempt is one recording, including those that were retried. Only requests to `…/v1/messages` are recorded, and only
if a response head arrived. One `read` holds the body bytes of one read from the network, without TLS and framing. Times
are in whole microseconds.

Everything is scrubbed before it is written, including the values of the request's own header fields (`Secrets`). A thread
scrubs and writes, so that no stream waits for it. If a recording cannot be written, the error is logged, and the stream
continues.

Every ending but `complete` and `cancelled` (closed by the caller) is a failure. A flight recorder keeps the newest `max_files`
on disk. A stream is held in memory until it ends: at most `max_bytes` of it, and `max_held_bytes` of all streams together. A
stream that exceeds them is recorded up to there, as `cut`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import threading
from array import array
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from rawsse.client.exchange import ExchangeObserver
from rawsse.client.request import RequestData, Secrets
from rawsse.errors import APIConnectionError, APIError, ConfigurationError, EndingKind, HTTPProtocolError, RawsseError
from rawsse.http1 import ContentDecoder, Response
from rawsse.replay.recording import End, Read, RecordedRequest, Recording, is_messages, parse_body, write_whole
from rawsse.replay.scrub import ScrubPolicy, checked, count_hidden, scrub

MAX_RECORDING_BYTES = 16 * 1024 * 1024
"""How much of one answer is kept. The longest answers today are about a hundredth of that."""

MAX_FAILED_FILES = 100
"""How many recordings a flight recorder leaves in its folder by default."""

MAX_HELD_BYTES = 256 * 1024 * 1024
"""How much a recorder holds of all exchanges, open or waiting to be written, including their requests. That is a thousand
long answers at a time. Beyond it, answers are cut, or are logged but not recorded."""

MAX_SLUG_CHARS = 60

FAILED: frozenset[EndingKind] = frozenset({"truncated", "error", "timeout", "limit"})
"""The endings that are failures."""

log = logging.getLogger("rawsse.replay")

_DIGITS = 6
_SUFFIX = ".sse.jsonl"
_NUMBERED = re.compile(rf"(\d{{4,}})-(.*){re.escape(_SUFFIX)}")
_LAST_BYTES = 300  # message_stop has about 60
# An event's data cannot contain this: no line of JSON begins this way.
_STOP = re.compile(rb"(?:^|[\r\n])event: ?message_stop[\r\n]")
_BY_END: Mapping[End, EndingKind] = {"clean": "truncated", "cut": "truncated", "client_closed": "cancelled"}


class Recorder:
    """Writes recordings into `folder`, which is created if it is missing. `AsyncClient(recorder=…)` takes one.

    `policy` sets which secrets are scrubbed. `only_failed` makes it a flight recorder: its file names have `failed` after
    the number, and beyond `max_files` of them the oldest are deleted, including those of earlier runs.

    `written` and `lost` count recordings, `hidden` the secrets that were hidden in the bodies of answers. Any number of clients
    may share a recorder, even in several threads. Call `close`, or leave `async with`, after closing all of them. Raises
    `ConfigurationError` if the folder cannot be used.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        policy: ScrubPolicy | None = None,
        only_failed: bool = False,
        max_files: int = MAX_FAILED_FILES,
        max_bytes: int = MAX_RECORDING_BYTES,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.written = 0
        self.lost = 0
        self.hidden = 0
        self._only_failed = only_failed
        self._folder = RecordingFolder(folder, max_failed=max_files if only_failed else None)
        self._policy = policy or ScrubPolicy()
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._is_closed = False
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held_bytes = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="rawsse recorder")

    @property
    def _writer(self) -> ThreadPoolExecutor:
        """One thread, which writes in the order in which exchanges end. A forked child does not inherit it."""
        if self._pid != os.getpid():
            self._start()
        return self._executor

    def begin(self, request: RequestData, clock: Callable[[], float]) -> ExchangeObserver | None:
        """Record an exchange that begins now. `clock` returns the time in seconds. None if it is not recorded."""
        # The target includes the origin if a proxy forwards the request.
        target = request.target
        path = target if target.startswith("/") else "/" + target.partition("://")[2].partition("/")[2]
        if not is_messages(request.method, path):
            return None
        if not self.hold(len(request.body)):
            self._lose(f"max_held_bytes ({self._max_held_bytes}) are held of others")
            return None
        # Numbered at the beginning, so that concurrent answers are in the order of their requests.
        number = None if self._only_failed else self._folder.next_number()
        return ExchangeLog(self, request, path, clock, number, self._max_bytes, clock())

    def flush(self) -> None:
        """Wait until all finished exchanges have been written."""
        if not self._is_closed:
            self._writer.submit(int).result()  # runs after all earlier tasks

    def close(self) -> None:
        """Write the queued recordings, end the thread, and wait for both. Nothing more is recorded."""
        self._is_closed = True
        self._writer.shutdown()

    async def aclose(self) -> None:
        """`close`, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Recorder:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # For an `ExchangeLog` --------------------------------------------------------------------------------------------

    def hold(self, size: int) -> bool:
        """Reserve `size` more bytes; False if there is no room."""
        with self._lock:
            has_room = self._held_bytes + size <= self._max_held_bytes
            self._held_bytes += size if has_room else 0
        return has_room

    def keep(self, exchange: ExchangeLog, error: APIError | None) -> None:
        """The exchange is over: queue it for the thread."""
        if self._is_closed:
            self._lose("the recorder is closed")
        else:
            self._writer.submit(self._finish, exchange, error)

    def _lose(self, why: str) -> None:
        with self._lock:
            self.lost += 1
        log.warning("an answer is not recorded: %s", why)

    # In the thread ---------------------------------------------------------------------------------------------------

    def _finish(self, exchange: ExchangeLog, error: APIError | None) -> None:
        try:
            self._write(exchange, error)
        except (RawsseError, OSError) as exc:
            self._lose(str(exc))
        except Exception:  # a bug in the recorder must not break the stream
            log.exception("an answer is not recorded: a bug in the recorder")
            self._lose("see above")
        finally:
            with self._lock:
                self._held_bytes -= exchange.held_bytes

    def _write(self, exchange: ExchangeLog, error: APIError | None) -> None:
        recording = exchange.recording()
        if recording is None:
            return
        recording, kind = outcome(recording, error)
        if self._only_failed and (kind not in FAILED or (exchange.is_full and error is None)):
            return
        policy = replace(self._policy, secrets=(*self._policy.secrets, *Secrets(exchange.request.headers).values))
        number = self._folder.next_number() if exchange.number is None else exchange.number
        before = replace(recording, name=f"answer {number}")
        recording = checked(scrub(before, policy), policy)
        hidden = count_hidden(before, recording, policy)
        # The name has the model and the ending, but not the prompt, which is private.
        body = recording.request.body if recording.request else None
        model = body.get("model") if isinstance(body, dict) else None
        status = "" if recording.status == 200 else str(recording.status)
        name = f"{model if isinstance(model, str) else 'answer'} {kind} {status}"
        path = self._folder.put(number, name, recording.dump())
        self.written += 1
        self.hidden += hidden["response body"]
        more = "".join(f", secrets hidden in the {place}: {count}" for place, count in hidden.items())
        more += ", cut here: there was no room for more (max_bytes, max_held_bytes)" if exchange.is_full else ""
        facts = (path.name, recording.status, kind, recording.end, len(recording.reads), recording.duration, more)
        # A warning is shown without any logging setup: this recording differs from the client's answer.
        level = logging.WARNING if hidden["response body"] else logging.INFO
        log.log(level, "%s: status %d, %s (%s), %d reads, %.3f s%s", *facts)


@dataclass(slots=True, eq=False)
class ExchangeLog:
    """The observer of one exchange, which records it. `number` is None if it is assigned when the file is written."""

    recorder: Recorder
    request: RequestData
    path: str
    clock: Callable[[], float]
    number: int | None
    max_bytes: int
    started: float
    is_full: bool = False
    """Whether data was dropped for lack of room."""
    _response: tuple[int, dict[str, str]] | None = None
    _decoder: ContentDecoder | None = None
    # Not a list of reads: 500 short ones take a third more memory, and a flight recorder discards most streams.
    _body: bytearray = field(default_factory=bytearray)
    _times: array[float] = field(default_factory=lambda: array("d"))
    _ends: array[int] = field(default_factory=lambda: array("Q"))
    _end: End | None = None
    _duration: float = 0.0

    @property
    def held_bytes(self) -> int:
        """How much of `max_held_bytes` it uses."""
        return len(self.request.body) + len(self._body)

    def sent(self) -> None:
        """The request has been sent: times count from now."""
        self.started = self.clock()

    def head(self, response: Response) -> None:
        """The head of the response has arrived."""
        headers = dict(response.headers)
        try:
            # A compressed body can be neither scrubbed nor read: it is recorded uncompressed.
            self._decoder = ContentDecoder(headers.get("content-encoding", ""))
        except APIError:
            pass  # an unknown coding: scrubbing will reject it
        else:
            headers.pop("content-encoding", None)
        self._response = response.status, headers

    def read(self, data: bytes) -> None:
        """Bytes of the body have arrived."""
        try:
            data = data if self._decoder is None else self._decoder.decode(data)
        except APIError:
            self._stop("cut")
            return
        if self._end is not None or not data:
            return
        if len(self._body) + len(data) > self.max_bytes or not self.recorder.hold(len(data)):
            self.is_full = True
            self._stop("cut")
            return
        self._body += data
        self._times.append(self._elapsed())
        self._ends.append(len(self._body))

    def end(self, error: APIError | None) -> None:
        """The exchange has ended."""
        self._stop(end_of(error))
        self.recorder.keep(self, error)

    def recording(self) -> Recording | None:
        """The exchange so far; None before the head of the response."""
        if self._response is None:
            return None
        request = self.request
        asked = RecordedRequest(request.method, self.path, dict(request.headers), parse_body(request.body))
        spans = zip(self._times, (0, *self._ends), self._ends, strict=False)
        reads = tuple(Read(t, bytes(self._body[start:end])) for t, start, end in spans)
        return Recording(asked, *self._response, reads, self._end or "cut", self._duration)

    def _stop(self, end: End) -> None:
        if self._end is None:
            self._end, self._duration = end, self._elapsed()

    def _elapsed(self) -> float:
        return max(0.0, round(self.clock() - self.started, _DIGITS))


# --- How it ended ----------------------------------------------------------------------------------------------------


def end_of(error: APIError | None) -> End:
    """How an exchange ended, given its reader's error, if any."""
    if error is None:
        return "clean"
    is_broken = error.ending_kind == "truncated" or isinstance(error, HTTPProtocolError)
    return "cut" if is_broken else "client_closed"


def outcome(recording: Recording, error: APIError | None = None) -> tuple[Recording, EndingKind]:
    """The recording with the right `end`, and how its stream ended. `error` is the reader's.

    If the client disconnected after message_stop, the end is `clean`: both official SDKs and rawsse may disconnect there,
    before the end of the body, and nothing more would have arrived. As in the client, an answer is `complete` even if the
    connection broke after its last event or its `stop_reason`.
    """
    if not 200 <= recording.status < 300:
        return recording, "error"
    failure: EndingKind | None = None
    is_done = is_complete = recording.is_stream or recording.end == "clean"
    if recording.is_stream and not _STOP.search(recording.body[-_LAST_BYTES:]):
        # The `event:` lines may be missing: gateways omit them, and `read_event` uses the data's type.
        builder, broken = recording.fold()
        failure = broken.ending_kind if broken is not None else "error" if builder.error is not None else None
        is_done, is_complete = failure is None and builder.is_done, failure is None and builder.is_complete
    if recording.end == "client_closed" and is_done:
        recording = replace(recording, end="clean")
    if is_complete and (error is None or isinstance(error, APIConnectionError)):
        return recording, "complete"
    return recording, error.ending_kind if error is not None else failure or _BY_END[recording.end]


# --- The folder ------------------------------------------------------------------------------------------------------


def slug(*words: str) -> str:
    """The words as a part of a file name that is valid on any system: `Claude Sonnet/5` is `claude-sonnet-5`."""
    plain = re.sub(r"[^a-z0-9.]+", "-", "-".join(filter(None, words)).lower())
    return plain[:MAX_SLUG_CHARS].strip("-.")


class RecordingFolder:
    """A folder of recordings that grows: numbered names, and files that are written whole or not at all.

    Names contain no time, so the same exchanges in the same order have the same names. Numbers continue after the highest one
    in the folder; no file is ever overwritten, even if other programs write there. Any thread may use it.

    `max_failed` makes it a flight recorder's folder: names have `failed` after the number, and beyond `max_failed` of them
    the oldest are deleted, including those of earlier runs. Only the owner can read these files: they hold prompts of users.
    Recordings made on purpose are for a repository: like all its files, and those of pytest, they have the umask's mode.

    Raises `ConfigurationError` if the folder cannot be used.
    """

    def __init__(self, folder: str | Path, *, max_failed: int | None = None) -> None:
        if max_failed is not None and max_failed < 1:
            raise ConfigurationError(f"max_files must be 1 or more, not {max_failed}")
        self._folder = Path(folder)
        self._max_failed = max_failed
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._numbers = itertools.count(1 + max((number for number, _, _ in self._files()), default=0))
        except OSError as exc:
            raise ConfigurationError(f"{folder} cannot hold recordings: {exc.strerror or exc}") from exc

    def next_number(self) -> int:
        """The next unused number."""
        return next(self._numbers)

    def put(self, number: int, name: str, text: str) -> Path:
        """Write a file, with another number if this one is taken. Raises `OSError`."""
        name = slug("" if self._max_failed is None else "failed", name) or "answer"
        while True:
            path = self._folder / f"{number:04}-{name}{_SUFFIX}"
            try:
                write_whole(path, text, is_new=True, mode=0o666 if self._max_failed is None else 0o600)
                break
            except FileExistsError:
                number = self.next_number()
        if self._max_failed is not None:
            failed = [path for _, rest, path in self._files() if rest.startswith("failed-")]
            for oldest in failed[: -self._max_failed]:
                oldest.unlink(missing_ok=True)
        return path

    def _files(self) -> list[tuple[int, str, Path]]:
        """The numbered files, oldest first."""
        found = [(match, path) for path in self._folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))]
        return sorted((int(match[1]), match[2], path) for match, path in found)
