"""Recording what a client asks and is answered; or, as a flight recorder, only what failed.

    recorder = Recorder("recordings")
    async with AsyncClient(recorder=recorder) as client: ...        # all is written when the client is closed
    # recordings/0001-claude-sonnet-5-complete.sse.jsonl, …

    recorder = Recorder("failures", only_failed=True)               # a flight recorder, for a client that works for long

Every attempt is one recording, also those that were tried again. Only requests to `…/v1/messages` are recorded, unless
`is_wanted` says otherwise; without a response's head there is nothing to record. One `read` is what one read of the network
brought of the body, without TLS and without the framing. Times are in whole microseconds.

Everything is scrubbed before it is written, also of what the request itself had in its header (`Secrets`). Scrubbing and
writing are done in a thread, so that no stream waits for them. What cannot be written is only logged: no stream fails because
its recording did.

A failure is every ending but `complete` and `cancelled`: a caller that closes a stream does not want it, and nothing went
wrong. A flight recorder keeps the newest `max_files` on the disk. A stream is held in memory until it is over: `max_bytes` of
it at most, and `max_held_bytes` of all together; what comes above is cut there, and recorded as `cut`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import tempfile
import threading
from array import array
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from rawsse.client.exchange import ExchangeObserver
from rawsse.client.request import RequestData, Secrets
from rawsse.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    ConfigurationError,
    EndingKind,
    HTTPProtocolError,
    RawsseError,
    StreamCancelledError,
)
from rawsse.http1 import ContentDecoder, Response
from rawsse.replay.recording import End, Read, RecordedRequest, Recording, is_messages, parse_body
from rawsse.replay.scrub import ScrubPolicy, checked, scrub

MAX_RECORDING_BYTES = 16 * 1024 * 1024
"""What is kept of one answer. The longest answers of today have about a hundredth of that."""

MAX_FAILED_FILES = 100
"""How many recordings a flight recorder leaves in its folder, unless it is told otherwise."""

MAX_HELD_BYTES = 256 * 1024 * 1024
"""What a recorder holds of all exchanges together, requests included: those that are open, and those that wait to be written.
That is a thousand long answers at a time. What goes above it is cut there, or is not recorded at all, which the log says."""

MAX_SLUG_CHARS = 60

FAILED: frozenset[EndingKind] = frozenset({"truncated", "error", "timeout", "limit"})
"""The endings that are failures."""

log = logging.getLogger("rawsse.replay")

_DIGITS = 6
_SUFFIX = ".sse.jsonl"
_NUMBERED = re.compile(rf"(\d{{4,}})-(.*){re.escape(_SUFFIX)}")
_LAST_BYTES = 300  # message_stop has about 60
# Within an event's data this cannot stand: no line of JSON begins like this.
_STOP = re.compile(rb"(?:^|[\r\n])event: ?message_stop[\r\n]")
_BY_END: Mapping[End, EndingKind] = {"clean": "truncated", "cut": "truncated", "client_closed": "cancelled"}


class Recorder:
    """Writes recordings into `folder`, which is made if need be. What `AsyncClient(recorder=…)` takes.

    `policy` says what is scrubbed. `only_failed` makes it a flight recorder. `name` stands in the names of its files, behind
    the number; `failed` for a flight recorder. `max_files`: when there are more of that name, the oldest go, those of earlier
    runs included; by default only a flight recorder has such a limit. `is_wanted(method, path)` chooses requests.

    `written` and `lost` count recordings. Any number of clients may share one, also in several threads. `close` it, or leave
    `async with`, when no client uses it any more. Raises `ConfigurationError` if the folder cannot be used.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        policy: ScrubPolicy | None = None,
        only_failed: bool = False,
        name: str | None = None,
        max_files: int | None = None,
        max_bytes: int = MAX_RECORDING_BYTES,
        max_held_bytes: int = MAX_HELD_BYTES,
        is_wanted: Callable[[str, str], bool] = is_messages,
    ) -> None:
        if only_failed and name is None:
            name = "failed"
        if only_failed and max_files is None:
            max_files = MAX_FAILED_FILES
        self.written = 0
        self.lost = 0
        self.only_failed = only_failed
        self._folder = RecordingFolder(folder, word=name or "", max_files=max_files)
        self._policy = policy or ScrubPolicy()
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._is_wanted = is_wanted
        self._lock = threading.Lock()
        self._is_closed = False
        self._writer = _new_writer()
        self._pid = os.getpid()

    def begin(self, request: RequestData, clock: Callable[[], float]) -> ExchangeObserver | None:
        """Record an exchange that begins now. `clock` gives the time in seconds. None if it is not recorded."""
        # The target names the origin, too, if a proxy is to forward the request.
        target = request.target
        path = target if target.startswith("/") else "/" + target.partition("://")[2].partition("/")[2]
        if not self._is_wanted(request.method, path):
            return None
        if not self.hold(len(request.body)):
            self._lose(f"max_held_bytes ({self._max_held_bytes}) are held of others")
            return None
        # By the beginning, so that answers which come at the same time have the order of their questions.
        number = None if self.only_failed else self._folder.next_number()
        return ExchangeLog(self, request, path, clock, number, self._max_bytes, len(request.body), clock())

    def flush(self) -> None:
        """Wait until everything is written of the exchanges that are over."""
        if not self._is_closed:
            self._follow_fork()
            # One thread writes, in the order in which exchanges ended: behind them comes this.
            self._writer.submit(int).result()

    def close(self) -> None:
        """Write what there is to write, and end the thread. Waits for that. Nothing more is recorded."""
        self._is_closed = True
        self._follow_fork()
        self._writer.shutdown()

    async def aclose(self) -> None:
        """The same in an event loop, which goes on meanwhile."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Recorder:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # What an `ExchangeLog` needs -------------------------------------------------------------------------------------

    def hold(self, size: int) -> bool:
        """Make room for so many bytes more; False if there is none."""
        with self._lock:
            has_room = self._held_bytes + size <= self._max_held_bytes
            self._held_bytes += size if has_room else 0
        return has_room

    def keep(self, exchange: ExchangeLog, error: APIError | None) -> None:
        """The exchange is over: have it written."""
        self._follow_fork()
        if self._is_closed:
            self._lose("the recorder is closed")
        else:
            self._writer.submit(self._finish, exchange, error)

    def _follow_fork(self) -> None:
        """The child of a fork has the thread's name and not the thread: what is given to it would wait for ever."""
        if self._pid != os.getpid():
            self._pid, self._lock, self._writer = os.getpid(), threading.Lock(), _new_writer()
            self._held_bytes = 0

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
        except Exception:  # a fault of ours must not be one of the stream's
            log.exception("an answer is not recorded: a bug in the recorder")
            self._lose("see above")
        finally:
            with self._lock:
                self._held_bytes -= exchange.held_bytes

    def _write(self, exchange: ExchangeLog, error: APIError | None) -> None:
        recording = exchange.recording()
        if recording is None:
            return
        recording = settled(recording)
        kind = ending_of(recording, error)
        if self.only_failed and (kind not in FAILED or (exchange.is_full and error is None)):
            return
        policy = replace(self._policy, secrets=(*self._policy.secrets, *Secrets(exchange.request.headers).values))
        number = self._folder.next_number() if exchange.number is None else exchange.number
        recording = checked(scrub(replace(recording, name=f"answer {number}"), policy), policy)
        # The name says the model and the ending, and not what was asked: that is private.
        body = recording.request.body if recording.request else None
        model = body.get("model") if isinstance(body, dict) else None
        words = [model if isinstance(model, str) else "answer", kind]
        words += [str(recording.status)] if recording.status != 200 else []
        path = self._folder.put(number, " ".join(words), recording.dump())
        self.written += 1
        full = ", cut here: there was no room for more (max_bytes, max_held_bytes)" if exchange.is_full else ""
        facts = (path.name, recording.status, kind, recording.end, len(recording.reads), recording.duration, full)
        log.info("%s: status %d, %s (%s), %d reads, %.3f s%s", *facts)


def _new_writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="rawsse recorder")


@dataclass(slots=True, eq=False)
class ExchangeLog:
    """One exchange while it is recorded, as its observer. `number` is None if it gets one only when it is written."""

    recorder: Recorder
    request: RequestData
    path: str
    clock: Callable[[], float]
    number: int | None
    max_bytes: int
    held_bytes: int
    started: float
    is_full: bool = False
    """There was more than could be kept."""
    _response: tuple[int, dict[str, str]] | None = None
    _decoder: ContentDecoder | None = None
    # Not a list of reads: 500 short ones take a third more memory, and a flight recorder throws most streams away.
    _body: bytearray = field(default_factory=bytearray)
    _times: array[float] = field(default_factory=lambda: array("d"))
    _ends: array[int] = field(default_factory=lambda: array("Q"))
    _end: End | None = None
    _duration: float = 0.0

    def sent(self) -> None:
        """Times count from here."""
        self.started = self.clock()

    def head(self, response: Response) -> None:
        """The response's head has come."""
        headers = dict(response.headers)
        try:
            # What is compressed can be neither searched nor read: the recording has it as if it had never been.
            self._decoder = ContentDecoder(headers.get("content-encoding", ""))
        except APIError:
            pass  # in a coding that we do not know: scrubbing will refuse it
        else:
            headers.pop("content-encoding", None)
        self._response = response.status, headers

    def read(self, data: bytes) -> None:
        """Bytes of the body have come."""
        try:
            data = data if self._decoder is None else self._decoder.decode(data)
        except APIError:  # what follows cannot be read, and what came until here is not all
            self._stop("cut")
            return
        if self._end is not None or not data:
            return
        if len(self._body) + len(data) > self.max_bytes or not self.recorder.hold(len(data)):
            self.is_full = True
            self._stop("cut")
            return
        self.held_bytes += len(data)
        self._body += data
        self._times.append(self._elapsed())
        self._ends.append(len(self._body))

    def end(self, error: APIError | None) -> None:
        """It is over."""
        self._stop(end_of(error))
        self.recorder.keep(self, error)

    def recording(self) -> Recording | None:
        """What was recorded; None if there was no response, not even its head."""
        if self._response is None:
            return None
        request = self.request
        asked = RecordedRequest(request.method, self.path, dict(request.headers), parse_body(request.body))
        starts = (0, *self._ends)
        reads = tuple(
            Read(t, bytes(self._body[start:end]))
            for t, start, end in zip(self._times, starts, self._ends, strict=False)
        )
        return Recording(asked, *self._response, reads, self._end or "cut", self._duration)

    def _stop(self, end: End) -> None:
        if self._end is None:
            self._end, self._duration = end, self._elapsed()

    def _elapsed(self) -> float:
        return max(0.0, round(self.clock() - self.started, _DIGITS))


# --- How it ended ----------------------------------------------------------------------------------------------------


def end_of(error: APIError | None) -> End:
    """How an exchange ended at which its reader met this error: None if there was none."""
    if error is None:
        return "clean"
    is_lost = isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError | StreamCancelledError)
    return "cut" if is_lost or isinstance(error, HTTPProtocolError) else "client_closed"


def settled(recording: Recording) -> Recording:
    """The recording; if the client left, and all of the answer had come, the end is a clean one.

    Both official SDKs and ours may leave at message_stop, before the end of the body: there is nothing more to come.
    """
    if recording.end != "client_closed" or not recording.is_stream:
        return recording
    if not _says_stop(recording):
        # The `event:` lines may be missing: gateways leave them out, and our reader goes by the data's type.
        builder, error = recording.fold()
        if error is not None or not builder.is_done:
            return recording
    return replace(recording, end="clean")


def ending_of(recording: Recording, error: APIError | None = None) -> EndingKind:
    """How the stream ended. `error` is what its reader met, if that is known: a recording does not tell who lost patience.

    An answer that is whole is `complete` even if the connection broke behind it, and so is one whose `stop_reason` had come:
    the same as in the client.
    """
    if not 200 <= recording.status < 300:
        return "error"
    is_of_network = error is None or isinstance(error, APIConnectionError)
    if recording.is_stream and not _says_stop(recording):  # nearly all do, and the others are worth a longer look
        builder, broken = recording.fold()
        is_complete = broken is None and builder.error is None and builder.is_complete
        failure = broken.ending_kind if broken is not None else "error" if builder.error is not None else None
    else:
        is_complete, failure = recording.is_stream or recording.end == "clean", None
    if is_of_network and is_complete:
        return "complete"
    return error.ending_kind if error is not None else failure or _BY_END[recording.end]


def _says_stop(recording: Recording) -> bool:
    last = b""
    for read in reversed(recording.reads):
        last = read.data + last
        if len(last) >= _LAST_BYTES:
            break
    return _STOP.search(last[-_LAST_BYTES:]) is not None


# --- The folder ------------------------------------------------------------------------------------------------------


def slug(*words: str) -> str:
    """The words as a part of a file's name, on any system: `Claude Sonnet/5` is `claude-sonnet-5`."""
    plain = re.sub(r"[^a-z0-9.]+", "-", "-".join(filter(None, words)).lower())
    return plain[:MAX_SLUG_CHARS].strip("-.")


class RecordingFolder:
    """A folder of recordings that grows: names, numbers, and files that are there whole or not at all.

    Names tell no time, so the same exchanges in the same order have the same names. Numbers go on where those in the folder
    end; no file is ever written over, also if others write there. Files can be read by their owner only: they hold what people
    asked. `word` stands in every name behind the number. `max_files`: when there are more with that word, the oldest go, those
    of earlier runs included. Any thread may use it. Raises `ConfigurationError` if the folder cannot be used.
    """

    def __init__(self, folder: str | Path, *, word: str = "", max_files: int | None = None) -> None:
        if max_files is not None and (max_files < 1 or not word):
            # Without the word, the oldest could be files that a person made with care.
            raise ConfigurationError("max_files must be 1 or more, and needs a name for the files that it counts")
        self.folder = Path(folder)
        self._word = slug(word)
        self._max_files = max_files
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._numbers = itertools.count(1 + max((number for number, _, _ in self._files()), default=0))
        except OSError as exc:
            raise ConfigurationError(f"{self.folder} cannot hold recordings: {exc.strerror or exc}") from exc

    def next_number(self) -> int:
        """A number that no file has."""
        return next(self._numbers)

    def put(self, number: int, what: str, text: str) -> Path:
        """Write a file, with another number if this one has been taken. Raises `OSError`."""
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self.folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode())
            while True:
                path = self.folder / f"{number:04}-{slug(self._word, what) or 'answer'}{_SUFFIX}"
                try:
                    _rename(temporary, path)
                    break
                except FileExistsError:
                    number = self.next_number()
        finally:
            Path(temporary).unlink(missing_ok=True)
        if self._max_files is not None:
            own = [path for _, rest, path in self._files() if rest.startswith(f"{self._word}-")]
            for oldest in own[: -self._max_files]:
                oldest.unlink(missing_ok=True)
        return path

    def _files(self) -> list[tuple[int, str, Path]]:
        """The numbered files, oldest first."""
        found = [(match, path) for path in self.folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))]
        return sorted((int(match[1]), match[2], path) for match, path in found)


def _rename(temporary: str, path: Path) -> None:
    """Raises `FileExistsError` if there is one; POSIX's `rename` would write over it, and `link` does not."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system that has no links
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(temporary, path)
