"""The ledger: one row per run in a SQLite file, written by a thread so that no stream waits for the disk.

    ledger = Ledger("ledger.db")        # an observer of the relay
    ledger.tokens_since(midnight)       # {"ada": 12_345, …}: where the daily quotas start
    ledger.close()                      # writes the rows that are queued
    usage(["ledger.db"], by=("user",))  # the sums per user, also while a relay writes

A run gets its row when it begins; `ending` is NULL until it ends. A relay that is killed leaves such rows behind; the next
relay marks them `truncated`, with the error `relay_killed`. Their tokens are not known, and count for no quota. Several relays
may share a file. Each holds a lock (flock(2)) on another file beside it, `ledger.db-owner-…`, which the system releases when
the process ends.

Unless `exact`, `estimated_tokens` of the tokens in a row are estimated: see `RunRecord`.

Each batch of rows is one transaction on its own connection. So no connection is open across a fork, which SQLite forbids
(https://www.sqlite.org/howtocorrupt.html, 2.6), and each batch opens the file afresh: it may have been moved or replaced, or
the disk may have room again. The file is in WAL mode: readers do not block the writer, and a `kill -9` loses no committed rows.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import secrets
import sqlite3
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import IO, Any

from rawsse.errors import ConfigurationError
from rawsse.relay.record import Observer, RunRecord, RunStart, log

with suppress(ImportError):
    import fcntl  # not on Windows, where `rawsse.relay` must still load

BATCH_SECONDS = 0.5
"""How long a row waits to be batched with others. A `kill -9` loses the rows of this interval."""

MAX_WAITING = 20_000
"""How many rows are queued while the file cannot be written; each takes about 500 bytes."""

CLOSE_SECONDS = 10.0
"""How long `close` waits for the last rows."""

BUSY_SECONDS = 5.0
"""How long a connection waits for another process's transaction."""

LOG_SECONDS = 60.0
"""The shortest time between two log lines about rows that cannot be written."""

MAX_COUNT = 10**12
"""The largest number in a row. SQLite's integers have 64 bits, and the sum over all rows must fit."""

MAX_TEXT_CHARS = 1000
"""The longest text in a row: a client may send a model name as long as a request may be."""

APPLICATION_ID = 0x72737365
"""Distinguishes a ledger from other SQLite files (PRAGMA application_id): "rsse"."""

SCHEMA_VERSION = 2

KILLED = "relay_killed"
"""The `error` of a run that was open when its relay was killed."""

GROUPS = ("user", "model", "day")
COUNTS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

_COLUMNS = (
    *("time", "run", "user", "dialect", "model", "ending", "stop_reason", "error", "seconds", "first_token_seconds"),
    *(*COUNTS, "exact", "on_disconnect", "request_id", "owner", "estimated_tokens"),  # version 1 lacks the last
)
# `ending` is NULL while the run is open. The key includes the time: clients choose run ids, and may reuse them.
_SCHEMA = f"""
    PRAGMA journal_mode = WAL;
    CREATE TABLE runs ({", ".join(_COLUMNS)}, PRIMARY KEY (time, run)) WITHOUT ROWID;
    CREATE INDEX open_runs ON runs (owner) WHERE ending IS NULL;
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
"""
_INSERT = f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_MARK = """UPDATE runs SET ending = 'truncated', error = ?
    WHERE ending IS NULL AND owner NOT IN (SELECT value FROM json_each(?))"""
_TOTAL = " + ".join(COUNTS)
_TOKENS_SINCE = f"SELECT user, SUM({_TOTAL}) FROM runs WHERE time >= ? GROUP BY user"  # noqa: S608
_SUMS = ", ".join(f"SUM({count}) AS {count}" for count in COUNTS)
_HAS_INPUT = f"{_TOTAL} > MAX(output_tokens, COALESCE(estimated_tokens, 0))"  # that the API has counted
_EXACT = f"MIN(exact) AS exact, MIN(exact OR (ending IS NOT 'complete' AND {_HAS_INPUT})) AS input_exact"
_DAY = "date(CAST(time AS INTEGER), 'unixepoch')"
_DAYS = f"SELECT * FROM runs WHERE {_DAY} BETWEEN ? AND ?"  # noqa: S608
# Of the copies of a run SQLite takes the one that has the MAX (https://www.sqlite.org/lang_select.html, 2.5): an exact one, or
# else the one with the most tokens.
_ONCE = f"SELECT *, {_DAY} AS day, MAX(exact * {10 * MAX_COUNT} + {_TOTAL}) FROM runs GROUP BY time, run"  # noqa: S608


class Ledger(Observer):
    """Writes a row for each run to the SQLite file `path`, which is created (mode 0600) if it does not exist.

    At the start it marks the runs that killed relays left open. Rows are written every `batch_seconds`. A failed write is
    logged and retried with the next batch. At most `max_waiting` rows wait; further ones are dropped and counted. `clock`
    (seconds) limits how often failures are logged. `begun` and `ended` must be called from one thread, and never wait. The
    caller closes the ledger after the last run; otherwise it is closed when Python exits.

    Raises `ConfigurationError` if the file cannot be opened, is not a ledger, or was written by a newer version.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        batch_seconds: float = BATCH_SECONDS,
        max_waiting: int = MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self.dropped = 0
        """How many rows were lost: the queue was full, or the ledger was closed."""
        self._batch_seconds, self._max_waiting = batch_seconds, max_waiting
        self._clock, self._silent_until = clock, clock()
        self._pid = 0  # of the process whose thread writes
        self._lock: IO[bytes] | None = None  # on the file that shows that this owner is alive
        with _transaction(self.path) as db:
            _mark_killed(db, self.path)

    def begun(self, start: RunStart) -> None:
        """Queue a row without an ending. The run's record, which has the same `time` and `run`, replaces it. The id alone does
        not identify a run: clients choose it, and may reuse it."""
        if self._pid != os.getpid():
            self._begin()
        if not self._closing.is_set() and len(self._rows) < self._max_waiting:
            self._rows.append(start)
            self._wake.set()
        else:
            self.dropped += 1
            why = "is closed" if self._closing.is_set() else "has too many rows waiting"
            self._say(f"the ledger {self.path} {why}")

    def ended(self, record: RunRecord) -> None:
        """The run has ended: queue its record."""
        self.begun(record)

    def tokens_since(self, since: float) -> dict[str, int]:
        """The tokens per user that count for the quotas, over the runs that began at `since` (Unix seconds) or later.

        Reads the file, so call it before the relay starts to serve. Raises `ConfigurationError`.
        """
        with _connected(self.path) as db:
            return dict(db.execute(_TOKENS_SINCE, (since,)))

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write the queued rows. Blocks for at most `seconds`; may be called twice. Later rows are dropped."""
        if self._pid != os.getpid():
            return  # there are no rows, or they belong to the parent process
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.error("the ledger %s was not completely written within %g s", self.path, seconds)
        atexit.unregister(self.close)

    def _begin(self) -> None:
        """Start this process's thread, at the first row and not earlier: servers fork their workers before that."""
        if self._lock is not None:
            self._lock.close()  # a copy of the parent's, which stays locked
            self._lock = None
        self._pid = os.getpid()
        self._owner = secrets.token_hex(8)
        self._rows: deque[RunStart] = deque()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="rawsse-ledger", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _work(self) -> None:
        """Write batches, in the thread, until `close`."""
        is_last = False
        while not is_last:
            self._wake.wait()
            self._closing.wait(self._batch_seconds)
            is_last = self._closing.is_set()
            self._wake.clear()
            batch = list(self._rows)
            try:
                if batch:
                    self._write(batch)
            except Exception as exc:  # any: without this thread the rows would wait for ever
                self._wake.set()
                self.dropped += len(batch) if is_last else 0
                is_clear = isinstance(exc, ConfigurationError)
                self._say(str(exc) if is_clear else f"cannot use the ledger {self.path}: {exc!r}", at_once=is_last)
        if self._lock is not None:
            with suppress(OSError):  # otherwise the next relay removes it
                _owner_file(self.path, self._owner).unlink()
            self._lock.close()
            self._lock = None

    def _write(self, batch: list[RunStart]) -> None:
        with _transaction(self.path) as db:
            if self._lock is None:  # acquired in a transaction, because other relays check for it in one
                _owner_file(self.path, self._owner).touch(0o600)
                self._lock = _owner_file(self.path, self._owner).open("rb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            db.executemany(_INSERT, (tuple(_values(row, self._owner)) for row in batch))
        for _ in batch:
            self._rows.popleft()

    def _say(self, problem: str, *, at_once: bool = False) -> None:
        if self._clock() >= self._silent_until or at_once:
            self._silent_until = self._clock() + LOG_SECONDS
            log.error("%s (%d rows dropped so far)", problem, self.dropped)


def usage(
    paths: Sequence[str | Path], by: Sequence[str] = GROUPS, *, since: date = date.min, until: date = date.max
) -> list[dict[str, Any]]:
    """The sums of each group of runs, sorted: `{"user": …, "model": …, "day": "2026-11-30", "runs": 3, "input_tokens": …,
    "output_tokens": …, "cache_creation_input_tokens": …, "cache_read_input_tokens": …, "exact": True, "input_exact": True}`.

    `by` lists some of `GROUPS`. `day` is the UTC day on which a run began; `since` and `until` are inclusive. A run counts
    once, even if it is in several ledgers. `exact` is false if the sums have estimates, or a run that is open, which counts
    nothing. `input_exact`: those of input tokens have none, since the API counts them when an answer begins (but what server
    tools find, when it ends). The files are only read, and a relay may be writing them. Raises `ConfigurationError`.
    """
    if not by or set(by) - set(GROUPS):
        raise ConfigurationError(f"usage by {', '.join(by) or 'nothing'}: must be by some of {', '.join(GROUPS)}")
    groups = ", ".join(by)
    query = f"SELECT {groups}, COUNT(*) AS runs, {_SUMS}, {_EXACT} FROM ({_ONCE})"  # noqa: S608
    with closing(sqlite3.connect("")) as db:  # a temporary file, which SQLite removes
        db.row_factory = sqlite3.Row
        db.execute(f"CREATE TABLE runs ({', '.join(_COLUMNS)})")
        for path in map(Path, paths):
            with _connected(path) as ledger:
                found = ledger.execute(_DAYS, (str(since), str(until)))
                db.executemany(_INSERT, ((*row, 0)[: len(_COLUMNS)] for row in found))  # version 1 lacks the last
        rows = db.execute(f"{query} GROUP BY {groups} ORDER BY {groups}")
        return [{**dict(row), **{name: bool(row[name]) for name in ("exact", "input_exact")}} for row in rows]


# --- The file ------------------------------------------------------------------------------------------------------


@contextmanager
def _connected(path: Path, mode: str = "ro", *, makes: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection to a ledger, closed after the block. With `makes`, a missing ledger is created.

    Raises `ConfigurationError`, naming the file, for an error of SQLite or the system (in the block, too), for another
    program's database, and for a newer ledger.
    """
    try:
        if makes and not path.exists():
            _make(path)
        if not path.is_file():  # SQLite would only say "unable to open database file"
            raise FileNotFoundError(errno.ENOENT, "it is a folder" if path.is_dir() else "there is no such file")
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(uri, timeout=BUSY_SECONDS, uri=True, isolation_level=None)) as db:
            application, version = db.execute("SELECT * FROM pragma_application_id, pragma_user_version").fetchone()
            if application != APPLICATION_ID:
                raise ConfigurationError(f"{path} is not a ledger of rawsse")
            if version > SCHEMA_VERSION:
                known = f"schema {version}; this one knows {SCHEMA_VERSION}"
                raise ConfigurationError(f"{path}: a newer rawsse wrote it, {known}")
            yield db
    except (sqlite3.Error, OSError) as exc:
        raise ConfigurationError(f"cannot use the ledger {path}: {getattr(exc, 'strerror', None) or exc}") from exc


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A write transaction on the ledger, which is created if it is missing. Committed unless the block raises."""
    with _connected(path, makes=True):
        pass  # is it a ledger? Closing a connection that may write would already move the WAL of any database into it
    with _connected(path, "rw") as db, db:
        db.executescript("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
            db.execute("ALTER TABLE runs ADD COLUMN estimated_tokens")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        yield db


def _make(path: Path) -> None:
    """Create an empty ledger. It is renamed into place when it is complete, unless another process was faster."""
    with tempfile.TemporaryDirectory(prefix=f"{path.name}-", dir=path.parent) as folder:
        new = Path(folder, "new")
        new.touch(0o600)
        with closing(sqlite3.connect(new)) as db:
            db.executescript(_SCHEMA)
        with suppress(FileExistsError):
            path.hardlink_to(new)


def _values(row: RunStart, owner: str) -> Iterator[str | float | None]:
    """The columns of a row, in a form that SQLite accepts: a rejected row would block all batches."""
    absent = {"owner": owner, "exact": False, "estimated_tokens": 0, **dict.fromkeys(COUNTS, 0)}
    for name in _COLUMNS:
        value = getattr(row, name, absent.get(name))
        if isinstance(value, int):
            value = max(0, min(value, MAX_COUNT))
        elif value is not None and not isinstance(value, float):
            value = str(value)[:MAX_TEXT_CHARS].encode(errors="replace").decode()
        yield value


def _owner_file(path: Path, owner: str) -> Path:
    return path.with_name(f"{path.name}-owner-{owner}")


def _mark_killed(db: sqlite3.Connection, path: Path) -> None:
    """Mark the open runs of relays that no longer hold their locks, and remove their lock files.

    Call it in a transaction. Locks are acquired in one, so every file found here has been locked.
    """
    living = []
    prefix = _owner_file(path, "").name
    for file in [file for file in path.absolute().parent.iterdir() if file.name.startswith(prefix)]:
        with suppress(FileNotFoundError), file.open("rb") as lock:  # missing: its relay has just closed
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()
            except BlockingIOError:
                living.append(file.name.removeprefix(prefix))
    db.execute(_MARK, (KILLED, json.dumps(living)))
