"""Recording what a client asks and is answered; or, as a flight recorder, only what failed.

This file knows which exchanges are kept, and when they are written. It refuses to know what a recording looks like on the disk
(`recording.py`), what is a secret (`scrubbing/`), and how the bytes got here.

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
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rawsse.client.exchange import ExchangeObserver
from rawsse.client.request import RequestData, Secrets
from rawsse.errors import APIError, EndingKind, RawsseError
from rawsse.http1 import ContentDecoder, Response
from rawsse.replay.recording import RecordedRequest, Recording
from rawsse.replay.scrubbing.scrub import ScrubPolicy, checked, scrub
from rawsse.replay.taping.outcome import FAILED, end_of, ending_of, settled
from rawsse.replay.taping.shelf import Shelf
from rawsse.replay.taping.tape import MAX_RECORDING_BYTES, Tape

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
