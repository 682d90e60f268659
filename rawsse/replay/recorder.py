"""How a recorded stream ended, for whoever asked: in the words of every stream's ending (`rawsse.messages.Ending`).


    ending_of(recording)                            # "complete", "truncated", "error" …
    ending_of(recording, SilenceTimeoutError(…))    # "timeout": a recording does not tell who lost patience
    settled(recording)                              # a client that left after message_stop has left nothing out

An answer that is whole is `complete` even if the connection broke behind it, and so is one whose `stop_reason` had come: the
same as in the client.


A folder of recordings that grows: names, numbers, and files that are there whole or not at all.


    shelf = Shelf("recordings")
    number = shelf.next_number()
    shelf.put(number, "claude-sonnet-5-complete", text)         # recordings/0001-claude-sonnet-5-complete.sse.jsonl

Names tell no time, so the same exchanges in the same order have the same names. Numbers go on where those in the folder end;
no file is ever written over, whoever else writes there. Files can be read by their owner only: they hold what people asked.


An exchange while it is being recorded: what came, and when.


    tape = Tape(now)
    tape.sent(now)                          # times count from here
    tape.head(200, {"content-type": "text/event-stream"})
    tape.read(b"event: ping\n…", now)
    tape.end("clean", now)
    tape.recording(request)                 # None if no answer had begun

One `read` is one read of the recording, and is played as one HTTP chunk in one write. It is what one read of the network
brought of the body, without TLS and without the framing: HTTP chunks that came together are one read, and a chunk that came in
two pieces is two. Times are in whole microseconds.

Above `max_bytes` nothing more is kept. What came until then is kept as `cut` there: no part is ever played as the whole.


Recording what a client asks and is answered; or, as a flight recorder, only what failed.


    recorder = Recorder("recordings")
    async with AsyncClient(recorder=recorder) as client: ...        # all is written when the client is closed
    # recordings/0001-claude-sonnet-5-complete.sse.jsonl, …

    recorder = Recorder("failures", only_failed=True)               # a flight recorder, for a client that works for long

Every attempt is a recording of its own, also those that were tried again. Only requests to `…/v1/messages` are recorded, unless
`is_wanted` says otherwise; without a response's head there is nothing to record.

Everything is scrubbed before it is written, also of what the request itself had in its header (`Secrets`). Scrubbing and
writing are done in a thread, so that no stream waits for them. What cannot be written is told to the log, and to nobody else:
no stream fails because its recording did.

A failure is every ending but `complete` and `cancelled` (`outcome.py`): who closes a stream does not want it, and nothing went
wrong. A flight recorder keeps the newest `max_files` on the disk. A stream is held in memory until it is over: `max_bytes` of
it at most, and `max_held_bytes` of all together.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import re
import tempfile
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from rawsse.messages import MessageBuilder
from rawsse.replay.recording import End, Read, RecordedRequest, Recording, is_event_stream
from rawsse.replay.scrub import ScrubPolicy, checked, scrub
from rawsse.sse import Decoder

# --- taping/outcome


FAILED: frozenset[EndingKind] = frozenset({"truncated", "error", "timeout", "limit"})
"""The endings that are failures. Leaving on purpose is none."""

_LAST_BYTES = 300  # message_stop has about 60

# Within an event's data this cannot stand: no line of JSON begins like this.
_STOP = re.compile(rb"(?:^|[\r\n])event: ?message_stop[\r\n]")

_BY_END: Mapping[End, EndingKind] = {"clean": "truncated", "cut": "truncated", "client_closed": "cancelled"}


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
    has_left = recording.end == "client_closed"
    return replace(recording, end="clean") if has_left and _has_stopped(recording) else recording


def ending_of(recording: Recording, error: APIError | None = None) -> EndingKind:
    """How the stream ended. `error` is what its reader met, if that is known."""
    if not 200 <= recording.status < 300:
        return "error"
    is_of_network = error is None or isinstance(error, APIConnectionError)
    if is_of_network and _is_complete(recording):
        return "complete"
    if error is not None:
        return error.ending_kind
    return _failure_in(recording) or _BY_END[recording.end]


def _has_stopped(recording: Recording) -> bool:
    if not is_event_stream(recording):
        return False
    if _says_stop(recording):
        return True
    # The `event:` lines may be missing: gateways leave them out, and our reader goes by the data's type.
    builder, error = _folded(recording)
    return error is None and builder.is_done


def _says_stop(recording: Recording) -> bool:
    return _STOP.search(_last_bytes(recording)) is not None


def _last_bytes(recording: Recording) -> bytes:
    last = b""
    for read in reversed(recording.reads):
        last = read.data + last
        if len(last) >= _LAST_BYTES:
            break
    return last[-_LAST_BYTES:]


def _is_complete(recording: Recording) -> bool:
    if not is_event_stream(recording):
        return recording.end == "clean"
    if _says_stop(recording):  # nearly all, and the others are worth a longer look
        return True
    builder, error = _folded(recording)
    return error is None and builder.error is None and builder.is_complete


def _failure_in(recording: Recording) -> EndingKind | None:
    if not is_event_stream(recording):
        return None
    builder, error = _folded(recording)
    if error is not None:
        return error.ending_kind
    return "error" if builder.error is not None else None


def _folded(recording: Recording) -> tuple[MessageBuilder, APIError | None]:
    """What the events add up to, and what is wrong with them."""
    builder = MessageBuilder(strict=False)
    try:
        for event in Decoder().feed(recording.body):
            builder.feed(event)
    except APIError as exc:
        return builder, exc
    return builder, None


# --- taping/shelf


SUFFIX = ".sse.jsonl"
MAX_SLUG_CHARS = 60

_NUMBERED = re.compile(rf"(\d{{4,}})-(.*){re.escape(SUFFIX)}")


def slug(*words: str) -> str:
    """The words as a part of a file's name, on any system: `Claude Sonnet/5` is `claude-sonnet-5`."""
    plain = re.sub(r"[^a-z0-9.]+", "-", "-".join(filter(None, words)).lower())
    return plain[:MAX_SLUG_CHARS].strip("-.")


class Shelf:
    """The folder, which is made if need be. `word` stands in every name behind the number.

    `max_files`: when there are more with that word, the oldest go, those of earlier runs included. Any thread may use it.
    Raises `ConfigurationError` if the folder cannot be used.
    """

    def __init__(self, folder: str | Path, *, word: str = "", max_files: int | None = None) -> None:
        if max_files is not None and (max_files < 1 or not word):
            # Without the word, the oldest could be files that somebody made with care.
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

    def name(self, number: int, what: str) -> str:
        """The name of the file with that number."""
        return f"{number:04}-{slug(self._word, what) or 'answer'}{SUFFIX}"

    def put(self, number: int, what: str, text: str) -> Path:
        """Write a file, with another number if somebody else has taken this one. Raises `OSError`."""
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self.folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(text.encode())
            path = self._publish(temporary, number, what)
        finally:
            Path(temporary).unlink(missing_ok=True)
        self._drop_oldest()
        return path

    def _publish(self, temporary: str, number: int, what: str) -> Path:
        while True:
            path = self.folder / self.name(number, what)
            try:
                _rename(temporary, path)
            except FileExistsError:
                number = self.next_number()
            else:
                return path

    def _files(self) -> list[tuple[int, str, Path]]:
        """The numbered files, oldest first."""
        found = [(match, path) for path in self.folder.iterdir() if (match := _NUMBERED.fullmatch(path.name))]
        return sorted((int(match[1]), match[2], path) for match, path in found)

    def _drop_oldest(self) -> None:
        if self._max_files is not None:
            own = [path for _, rest, path in self._files() if rest.startswith(f"{self._word}-")]
            for path in own[: -self._max_files]:
                path.unlink(missing_ok=True)


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


# --- taping/tape


MAX_RECORDING_BYTES = 16 * 1024 * 1024
"""What is kept of one answer. The longest answers of today have about a hundredth of that."""

_DIGITS = 6


class Tape:
    """Records one exchange. `max_bytes` is how much of its body."""

    def __init__(self, now: float, *, max_bytes: int = MAX_RECORDING_BYTES) -> None:
        self.is_full = False
        """There was more than could be kept."""
        self._max_bytes = max_bytes
        self._started = now
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        # Not a list of reads: 500 short ones take a third more memory, and who records failures throws most streams away.
        self._body = bytearray()
        self._times = array("d")
        self._ends = array("Q")
        self._end: End | None = None
        self._duration = 0.0

    @property
    def size(self) -> int:
        """Bytes of the body that are kept."""
        return len(self._body)

    @property
    def is_over(self) -> bool:
        """Nothing more is kept."""
        return self._end is not None

    def sent(self, now: float) -> None:
        """The request was sent."""
        self._started = now

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """The response's head has come."""
        self._status, self._headers = status, dict(headers)

    def read(self, data: bytes, now: float) -> None:
        """Bytes of the body have come."""
        if self.is_over or not data:
            return
        if self.size + len(data) > self._max_bytes:
            self.overflow(now)
            return
        self._body += data
        self._times.append(self._since(now))
        self._ends.append(len(self._body))

    def overflow(self, now: float) -> None:
        """More has come than can be kept: what there is, is cut here."""
        self.is_full = True
        self.end("cut", now)

    def end(self, how: End, now: float) -> None:
        """The exchange is over; what is said after that is not heard."""
        if not self.is_over:
            self._end, self._duration = how, self._since(now)

    def recording(self, request: RecordedRequest | None = None, *, name: str = "recording") -> Recording | None:
        """What was recorded; None if there was no response, not even its head. An exchange that is not over is cut."""
        if self._status is None:
            return None
        end = self._end or "cut"
        return Recording(request, self._status, self._headers, tuple(self._reads()), end, self._duration, name)

    def _reads(self) -> Iterator[Read]:
        start = 0
        for t, end in zip(self._times, self._ends, strict=True):
            yield Read(t, bytes(self._body[start:end]))
            start = end

    def _since(self, now: float) -> float:
        return max(0.0, round(now - self._started, _DIGITS))


# --- taping/recorder


MAX_FAILED_FILES = 100
"""How many recordings a flight recorder leaves in its folder, unless it is told otherwise."""

MAX_HELD_BYTES = 256 * 1024 * 1024
"""What a recorder holds of all exchanges together, requests included: those under way, and those that wait to be written. That
is a thousand long answers at a time. What goes above it is cut there, or is not recorded at all, which the log says."""

log = logging.getLogger("rawsse.replay")


def is_messages(method: str, path: str) -> bool:
    """The request is one for a message."""
    return method == "POST" and path.partition("?")[0].rstrip("/").endswith("/v1/messages")


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
        self._shelf = Shelf(folder, word=name or "", max_files=max_files)
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
        path = _path(request.target)
        if not self._is_wanted(request.method, path):
            return None
        if not self.hold(len(request.body)):
            self._lose(f"max_held_bytes ({self._max_held_bytes}) are held of others")
            return None
        # By the beginning, so that answers which come at the same time have the order of their questions.
        number = None if self.only_failed else self._shelf.next_number()
        tape = Tape(clock(), max_bytes=self._max_bytes)
        return _Take(self, request, path, tape, clock, number, held_bytes=len(request.body))

    def flush(self) -> None:
        """Wait until everything is written of the exchanges that are over."""
        if not self._is_closed:
            self._follow_fork()
            # One thread writes, in the order in which exchanges ended: behind them comes this.
            self._writer.submit(_nothing).result()

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

    # What takes need -------------------------------------------------------------------------------------------------

    def hold(self, size: int) -> bool:
        """Make room for so many bytes more; False if there is none."""
        with self._lock:
            has_room = self._held_bytes + size <= self._max_held_bytes
            self._held_bytes += size if has_room else 0
        return has_room

    def keep(self, take: _Take, error: APIError | None) -> None:
        """The exchange is over: have it written."""
        self._follow_fork()
        if self._is_closed:
            self._lose("the recorder is closed")
        else:
            self._writer.submit(self._finish, take, error)

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

    def _finish(self, take: _Take, error: APIError | None) -> None:
        try:
            self._write(take, error)
        except (RawsseError, OSError) as exc:
            self._lose(str(exc))
        except Exception:  # a fault of ours must not be one of the stream's
            log.exception("an answer is not recorded: a bug in the recorder")
            self._lose("see above")
        finally:
            with self._lock:
                self._held_bytes -= take.held_bytes

    def _write(self, take: _Take, error: APIError | None) -> None:
        recording = take.tape.recording(_request(take.request, take.path))
        if recording is None:
            return
        recording = settled(recording)
        kind = ending_of(recording, error)
        if self.only_failed and (kind not in FAILED or (take.tape.is_full and error is None)):
            return
        secrets = (*self._policy.secrets, *Secrets(take.request.headers).values)
        number = self._shelf.next_number() if take.number is None else take.number
        scrubbed = _scrubbed(replace(recording, name=f"answer {number}"), replace(self._policy, secrets=secrets))
        path = self._shelf.put(number, " ".join(_words(scrubbed, kind)), scrubbed.dump())
        self.written += 1
        _say(path, scrubbed, kind, is_full=take.tape.is_full)


@dataclass(slots=True, eq=False)
class _Take:
    """The observer of one exchange that is recorded. `number` is None if it gets one only when it is written."""

    recorder: Recorder
    request: RequestData
    path: str
    tape: Tape
    clock: Callable[[], float]
    number: int | None
    held_bytes: int
    _decoder: ContentDecoder | None = None

    def sent(self) -> None:
        """Times count from here."""
        self.tape.sent(self.clock())

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
        self.tape.head(response.status, headers)

    def read(self, data: bytes) -> None:
        """Bytes of the body have come."""
        try:
            decoded = data if self._decoder is None else self._decoder.decode(data)
        except APIError:  # what follows cannot be read, and what came until here is not all
            self.tape.end("cut", self.clock())
        else:
            self._keep(decoded)

    def _keep(self, data: bytes) -> None:
        if self.tape.is_over:
            return
        if not self.recorder.hold(len(data)):
            self.tape.overflow(self.clock())
            return
        self.held_bytes += len(data)
        self.tape.read(data, self.clock())

    def end(self, error: APIError | None) -> None:
        """It is over."""
        self.tape.end(end_of(error), self.clock())
        self.recorder.keep(self, error)


def _new_writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="rawsse recorder")


def _nothing() -> None:
    pass


def _path(target: str) -> str:
    """The path and query of a request's target, which names the origin too if a proxy was to pass it on."""
    return target if target.startswith("/") else "/" + target.partition("://")[2].partition("/")[2]


def _request(request: RequestData, path: str) -> RecordedRequest:
    return RecordedRequest(request.method, path, dict(request.headers), _parsed(request.body))


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _scrubbed(recording: Recording, policy: ScrubPolicy) -> Recording:
    return checked(scrub(recording, policy), policy)


def _words(recording: Recording, kind: EndingKind) -> Iterator[str]:
    """What a file's name says: the model and the ending. Not what was asked, which is nobody else's business."""
    body = recording.request.body if recording.request else None
    model = body.get("model") if isinstance(body, dict) else None
    yield model if isinstance(model, str) else "answer"
    yield kind
    if recording.status != 200:
        yield str(recording.status)


def _say(path: Path, recording: Recording, kind: EndingKind, *, is_full: bool) -> None:
    full = ", cut here: there was no room for more (max_bytes, max_held_bytes)" if is_full else ""
    facts = (path.name, recording.status, kind, recording.end, len(recording.reads), recording.duration, full)
    log.info("%s: status %d, %s (%s), %d reads, %.3f s%s", *facts)
