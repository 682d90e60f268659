"""rawsse.relay.ledger: what is in the file, what a failing disk costs, what a killed relay leaves, and what rows add up to."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import queue
import signal
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from support.background import PATIENCE
from support.command import STRICT, Command

import rawsse.relay
from rawsse.errors import ConfigurationError
from rawsse.relay import ledger as module
from rawsse.relay.ledger import APPLICATION_ID, COUNTS, KILLED, MAX_COUNT, SCHEMA_VERSION, Ledger, usage
from rawsse.relay.record import Observer, RunRecord, RunStart

NOON = 1_764_504_000.0
"""2025-11-30 12:00 UTC, by `date -u -d @1764504000`."""

DAY = 86_400

PLAIN = {
    "time": NOON,
    "run": "run-0",
    "user": "ada",
    "dialect": "text",
    "model": "claude-x",
    "ending": "complete",
    "stop_reason": "end_turn",
    "error": None,
    "seconds": 2.5,
    "first_token_seconds": 0.5,
    "input_tokens": 3,
    "output_tokens": 5,
    "cache_creation_input_tokens": 7,
    "cache_read_input_tokens": 11,
    "exact": True,
    "on_disconnect": None,
    "request_id": "req_1",
    "words": "",
}


def record(number: float = 0, **changes: Any) -> RunRecord:
    return RunRecord(**{**PLAIN, "time": NOON + number, "run": f"run-{number}", **changes})


def counts(*numbers: int) -> dict[str, int]:
    return dict(zip(COUNTS, numbers, strict=True))


def start(record: RunRecord) -> RunStart:
    return RunStart(record.time, record.run, record.user, record.dialect, record.model)


def written(path: Path, *rows: RunStart, **options: Any) -> Path:
    """The path of a ledger that has these rows and is closed."""
    with closing(Ledger(path, **options)) as ledger:
        for row in rows:
            ledger.ended(row) if isinstance(row, RunRecord) else ledger.begun(row)
    return path


def rows(path: Path, columns: str = "*") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT {columns} FROM runs ORDER BY time, run")]


def endings(path: Path) -> list[tuple[str | None, str | None]]:
    return [(row["ending"], row["error"]) for row in rows(path)]


class Statements:
    """What all connections of this process execute, and how many connections there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        self.opened = threading.Semaphore(0)
        connect = sqlite3.connect

        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            db: sqlite3.Connection = connect(*arguments, **options)
            db.set_trace_callback(self.texts.append)
            self.opened.release()
            return db

        monkeypatch.setattr(sqlite3, "connect", traced)

    def wait_for_connections(self, count: int) -> None:
        for _ in range(count):
            assert self.opened.acquire(timeout=PATIENCE)


class Lines(logging.Handler):
    """The lines of the log, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.queue.put(record.getMessage())

    def next(self) -> str:
        return self.queue.get(timeout=PATIENCE)


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logging.getLogger("rawsse.relay").addHandler(handler)
    yield handler
    logging.getLogger("rawsse.relay").removeHandler(handler)


MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # without a disk to wait for


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder, "a ledger?.db")  # a name with characters that URIs do not have


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While another program writes to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


# --- Rows ------------------------------------------------------------------------------------------------------------


def test_a_run_is_one_row_with_all_that_its_record_says_but_the_words(path: Path) -> None:
    made = record(
        cache_read_input_tokens=0, exact=False, on_disconnect="drain", words="of 10.0.0.1", estimated_tokens=9
    )
    (row,) = rows(written(path, start(made), made))
    expected = made.to_dict()
    del expected["words"], row["owner"]
    assert row == expected


def test_an_answer_that_was_cut_counts_its_estimate_for_the_day_and_in_the_usage(path: Path) -> None:
    cut = record(0, **counts(5, 40, 0, 0), exact=False, ending="truncated", estimated_tokens=39)
    whole = record(1, **counts(5, 20, 0, 0))
    written(path, cut, whole)
    assert Ledger(path).tokens_since(NOON) == {cut.user: (5 + 40) + (5 + 20)}
    (row,) = usage([path], by=("user",))
    assert (row["input_tokens"], row["output_tokens"], row["exact"], row["input_exact"]) == (10, 60, False, True)


def test_a_prompt_that_was_estimated_is_not_exact_in_the_usage(path: Path) -> None:
    (row,) = usage([written(path, record(**counts(40, 0, 0, 0), exact=False, ending="cancelled", estimated_tokens=40))])
    assert (row["input_tokens"], row["output_tokens"], row["exact"], row["input_exact"]) == (40, 0, False, False)


def test_a_ledger_of_version_1_is_read_as_it_is_and_goes_on(path: Path) -> None:
    written(path, record(0))
    with closing(sqlite3.connect(path)) as db:  # as version 1 left it: without the column
        db.executescript("ALTER TABLE runs DROP COLUMN estimated_tokens; PRAGMA user_version = 1")
    (before,) = usage([path], by=("user",))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)  # who only reads changes nothing
    written(path, record(1, exact=False, output_tokens=7, estimated_tokens=7))
    (after,) = usage([path], by=("user",))
    assert (before["runs"], after["runs"]) == (1, 2)
    assert (before["output_tokens"], before["input_exact"], after["output_tokens"]) == (5, True, 5 + 7)
    assert [row["estimated_tokens"] for row in rows(path)] == [None, 7]


def test_a_run_that_has_not_ended_is_a_row_without_an_ending(path: Path) -> None:
    (row,) = rows(written(path, start(record(model="asked-for"))))
    assert row["model"] == "asked-for"
    assert (row["ending"], row["seconds"], row["exact"]) == (None, None, 0)
    assert [row[count] for count in COUNTS] == [0, 0, 0, 0]


def test_a_run_whose_begin_and_end_are_in_two_batches_is_one_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = Statements(monkeypatch)
    with closing(Ledger(path, batch_seconds=0)) as ledger:
        statements.wait_for_connections(2)
        ledger.begun(start(record()))
        statements.wait_for_connections(2)
        ledger.ended(record())
    assert endings(path) == [("complete", None)]


def test_an_id_that_is_used_again_is_another_run(path: Path) -> None:
    """Or a client that always chooses the same one would have used next to nothing."""
    written(path, record(0, run="same"), record(1, run="same"))
    assert [(row["run"], row["time"]) for row in rows(path)] == [("same", NOON), ("same", NOON + 1)]


def test_what_sqlite_cannot_store_is_made_to_fit(path: Path) -> None:
    odd: dict[str, Any] = {
        "user": UUID(int=1),
        "model": "m" * 5000,
        "stop_reason": "\ud800",
        "error": "a\0b",
        "ending": "Ω",
    }
    written(path, record(**odd, input_tokens=2**80, output_tokens=-5), record(1))
    row, other = rows(path)
    assert row["user"] == "00000000-0000-0000-0000-000000000001"
    assert row["model"] == "m" * module.MAX_TEXT_CHARS
    assert (row["stop_reason"], row["error"], row["ending"]) == ("?", "a\0b", "Ω")
    assert (row["input_tokens"], row["output_tokens"]) == (module.MAX_COUNT, 0)
    assert other["run"] == "run-1"


def test_the_file_is_for_its_owner_only(path: Path) -> None:
    written(path, record())
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_ledger_is_an_observer_that_the_room_exports() -> None:
    observer: type[Observer] = rawsse.relay.Ledger
    assert observer is Ledger


# --- When they are written -------------------------------------------------------------------------------------------


def test_all_that_wait_are_written_at_the_end_in_one_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(path, batch_seconds=3600)
    statements = Statements(monkeypatch)
    for number in range(1000):
        ledger.begun(start(record(number)))
        ledger.ended(record(number))
    ledger.close()
    assert statements.texts.count("COMMIT") == 1
    assert statements.opened.acquire(timeout=0)
    assert [row["run"] for row in rows(path)] == [f"run-{number}" for number in range(1000)]
    assert ledger.dropped == 0


def test_a_row_is_written_while_the_relay_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Ledger(path, batch_seconds=0)) as ledger:
        statements = Statements(monkeypatch)
        ledger.ended(record())
        statements.wait_for_connections(2)
        ledger.ended(record(1))
        statements.wait_for_connections(2)  # the first batch is over, or there were no second one
        monkeypatch.undo()
        assert rows(path)[0]["run"] == "run-0"


def test_a_run_does_not_wait_for_the_file(path: Path) -> None:
    ledger = Ledger(path, batch_seconds=0)
    with locked(path):  # a caller that waited for this would wait for itself
        for number in range(100):
            ledger.begun(start(record(number)))
            ledger.ended(record(number))
        assert rows(path) == []
    ledger.close()
    assert len(rows(path)) == 100


def test_the_thread_starts_with_the_first_run_and_ends_with_the_ledger(path: Path) -> None:
    """Not before: servers that fork their workers make the application first."""
    before = threading.active_count()
    ledger = Ledger(path)
    assert threading.active_count() == before
    ledger.begun(start(record()))
    assert threading.active_count() == before + 1
    ledger.close()
    assert threading.active_count() == before


def test_no_file_is_left_beside_a_ledger_that_is_closed(path: Path) -> None:
    assert os.listdir(written(path, record()).parent) == [path.name]


def test_a_ledger_may_be_closed_twice_or_without_a_run(path: Path) -> None:
    ledger = Ledger(path)
    ledger.close()
    ledger.ended(record())
    ledger.close()
    ledger.close()
    assert len(rows(path)) == 1


def test_rows_are_written_at_the_exit_of_a_program_that_does_not_close_its_ledger(path: Path) -> None:
    code = "ledger = Ledger(sys.argv[1], batch_seconds=3600); ledger.ended(record(0))"
    with program(code, path, flags=STRICT) as process:
        assert (process.wait(), process.complaint()) == (0, "")
    assert len(rows(path)) == 1


# --- A disk that fails -----------------------------------------------------------------------------------------------


def test_rows_that_could_not_be_written_are_written_later(
    path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.001)
    with closing(Ledger(path, batch_seconds=0.001)) as ledger, locked(path):
        ledger.ended(record(0))
        assert lines.next() == f"cannot use the ledger {path}: database is locked (0 rows dropped so far)"
        ledger.ended(record(1))
    assert [row["run"] for row in rows(path)] == ["run-0", "run-1"]


@pytest.mark.parametrize("place", ["stat", "open", "flock"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"),
        (OSError("no number"), "no number"),
        (RuntimeError("a surprise"), "RuntimeError('a surprise')"),
    ],
)
def test_whatever_goes_wrong_is_logged_and_tried_again(
    error: Exception, words: str, place: str, path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    ledger = Ledger(path, batch_seconds=0.001)
    owner, name = {"stat": (Path, "stat"), "open": (os, "open"), "flock": (fcntl, "flock")}[place]
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, fail)
        ledger.ended(record(0))
        assert lines.next() == f"cannot use the ledger {path}: {words} (0 rows dropped so far)"
    ledger.close()
    assert (len(rows(path)), ledger.dropped) == (1, 0)
    assert os.listdir(path.parent) == [path.name]


def test_rows_that_cannot_be_written_at_the_end_are_counted_as_dropped(
    path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    ledger = Ledger(path, batch_seconds=3600)
    monkeypatch.setattr(Path, "stat", fail)
    ledger.ended(record(0))
    ledger.close()
    assert ledger.dropped == 1
    assert lines.next().endswith("Permission denied (1 rows dropped so far)")


def test_a_ledger_that_cannot_be_written_is_logged_once_in_a_while(
    path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.001)
    now = [0.0]
    with closing(Ledger(path, batch_seconds=0.001, clock=lambda: now[0])) as ledger:
        statements = Statements(monkeypatch)
        with locked(path):
            for number in range(50):
                ledger.begun(start(record(number)))
                ledger.ended(record(number))
            statements.wait_for_connections(20)  # two for each batch that fails
            lines.next()
            assert lines.queue.empty()
            now[0] = module.LOG_SECONDS
            lines.next()
            statements.wait_for_connections(20)
            assert lines.queue.empty()
    assert endings(path) == [("complete", None)] * 50  # in the order in which they came


def test_more_than_may_wait_are_dropped_and_counted(path: Path, lines: Lines) -> None:
    ledger = Ledger(path, batch_seconds=3600, max_waiting=10)
    for number in range(13):
        ledger.ended(record(number))
    assert ledger.dropped == 3
    assert lines.next() == f"the ledger {path} has too many rows waiting (1 rows dropped so far)"
    assert lines.queue.empty()
    ledger.close()
    assert [row["run"] for row in rows(path)] == [f"run-{number}" for number in range(10)]


def test_rows_that_wait_behind_a_failed_batch_are_bounded_too(
    path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.001)
    ledger = Ledger(path, batch_seconds=0.001, max_waiting=10)
    with locked(path):
        ledger.ended(record(0))
        lines.next()  # the first batch has failed
        for number in range(1, 1000):
            ledger.ended(record(number))
    ledger.close()
    kept = [row["run"] for row in rows(path)]
    assert kept[0] == "run-0"
    assert 10 <= len(kept) <= 30  # those of the batch that is being tried do not count
    assert len(kept) + ledger.dropped == 1000


def test_a_run_after_the_end_is_dropped_and_logged(path: Path, lines: Lines) -> None:
    ledger = Ledger(path)
    ledger.ended(record(0))
    ledger.close()
    ledger.ended(record(1))
    assert lines.next() == f"the ledger {path} is closed (1 rows dropped so far)"
    assert len(rows(path)) == 1


def test_closing_gives_up_on_a_file_that_stays_locked_and_always_says_so(
    path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.001)
    ledger = Ledger(path, batch_seconds=0.001, clock=lambda: 0.0)
    with locked(path):
        ledger.ended(record(0))
        assert lines.next().endswith("database is locked (0 rows dropped so far)")
        ledger.close()
    assert ledger.dropped == 1
    assert lines.next().endswith("database is locked (1 rows dropped so far)")
    assert rows(path) == []


def test_closing_does_not_touch_the_file_where_nothing_waits(
    path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path, batch_seconds=0)
    ledger.ended(record(0))
    while not rows(path):
        pass
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.001)
    with locked(path):
        ledger.close()
    assert lines.queue.empty()


def test_closing_waits_no_longer_than_it_is_told(path: Path, lines: Lines) -> None:
    ledger = Ledger(path, batch_seconds=3600)
    ledger.ended(record(0))
    with locked(path):
        ledger.close(seconds=0.01)  # SQLite would wait for BUSY_SECONDS
        assert lines.next() == f"the ledger {path} was not completely written within 0.01 s"
    ledger.close()
    assert len(rows(path)) == 1


def test_a_disk_that_is_full_costs_a_line_and_not_a_run(path: Path) -> None:
    """The system refuses to make the files of a process larger than RLIMIT_FSIZE."""
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(sys.argv[1], batch_seconds=0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
for number in range(1000):
    ledger.begun(record(number))
    ledger.ended(record(number))
print("all have ended", flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.close()
"""
    with program(code, path) as process:
        assert process.line() == "all have ended\n"
        line = process.log_line()
        assert line.startswith("cannot use the ledger ")
        assert line.endswith(" (0 rows dropped so far)\n")
        assert "full" in line or "disk I/O error" in line
        process.write("\n")
        assert (process.complaint(), process.wait()) == ("", 0)
    assert len(rows(path)) == 1000


def test_a_file_that_becomes_something_else_is_logged_and_left_alone(path: Path, lines: Lines) -> None:
    ledger = Ledger(path, batch_seconds=0.001)
    path.write_bytes(b"not a database " * 100)
    ledger.ended(record(0))
    assert "file is not a database" in lines.next()
    ledger.close()
    assert path.read_bytes() == b"not a database " * 100


def test_a_file_that_is_moved_away_is_followed_by_a_new_one(path: Path) -> None:
    ledger = Ledger(path, batch_seconds=0.001)
    path.rename(path.with_suffix(".old"))
    ledger.ended(record(0))
    ledger.close()
    assert len(rows(path)) == 1
    assert path.stat().st_mode & 0o777 == 0o600


# --- Opening it ------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "ledger.db"
    with pytest.raises(ConfigurationError, match=f"^cannot use the ledger {missing}: No such file or directory$"):
        Ledger(missing)
    with pytest.raises(ConfigurationError, match=f"^cannot use the ledger {tmp_path}: it is a folder$"):
        Ledger(tmp_path)


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("my diary, which is longer than the head of a database" * 10)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="file is not a database"):
        Ledger(path)
    with pytest.raises(ConfigurationError, match="file is not a database"):
        usage([path])
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.executescript("PRAGMA journal_mode = WAL; CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)")
        copy = path.with_name("copy.db")
        for suffix in ("", "-wal"):  # as the program would leave it if it were killed now
            Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    before = copy.read_bytes()
    for refused in (Ledger, lambda path: usage([path])):
        with pytest.raises(ConfigurationError, match=r"copy\.db is not a ledger of rawsse$"):
            refused(copy)
    assert copy.read_bytes() == before


def test_a_ledger_of_a_newer_version_is_refused(path: Path) -> None:
    written(path, record())
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for refused in (Ledger, lambda path: usage([path])):
        with pytest.raises(ConfigurationError, match=r"a newer rawsse wrote it, schema 3; this one knows 2$"):
            refused(path)


def test_the_file_says_what_it_is(path: Path) -> None:
    head = written(path, record()).read_bytes()[:72]
    assert int.from_bytes(head[68:72], "big") == APPLICATION_ID  # https://www.sqlite.org/fileformat.html, 1.3
    assert int.from_bytes(head[60:64], "big") == SCHEMA_VERSION
    assert head[18:20] == b"\2\2"  # WAL: a reader does not block the writer


def test_a_ledger_that_another_process_makes_at_the_same_moment_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, record(0))
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as it was a moment ago
    written(path, record(1))
    assert len(rows(path)) == 2
    assert os.listdir(path.parent) == [path.name]


def test_an_empty_file_is_left_alone(path: Path) -> None:
    path.touch()
    for refused in (Ledger, lambda path: usage([path])):
        with pytest.raises(ConfigurationError, match=r"\.db is not a ledger of rawsse$"):
            refused(path)
    assert path.read_bytes() == b""


# --- Relays that are killed, and several at a time ---------------------------------------------------------------------

PROGRAM = """
import logging, os, sys
from rawsse.relay import Ledger
from rawsse.relay.record import RunRecord, RunStart
logging.basicConfig(format="%(message)s")

def start(number):
    return RunStart(number, f"{os.getpid()}-{number}", "ada", "text", "m")

def record(number):
    begin = start(number)
    end = ("complete", None, None, 1.0, None, 1, 1, 0, 0, True, None, None, "")
    return RunRecord(begin.time, begin.run, begin.user, begin.dialect, begin.model, *end)
"""


def program(code: str, *arguments: Path, flags: tuple[str, ...] = ()) -> Command:
    """A Python program that begins with `PROGRAM`; killed after the block if it still runs."""
    return Command(*arguments, program=("-c", PROGRAM + code), flags=flags, stdin=subprocess.PIPE)


# A hundred runs for each line that it reads, of which the last ten stay open.
LOAD = """
ledger = Ledger(sys.argv[1], batch_seconds=0.001)
print("ready", flush=True)
for turn, line in enumerate(sys.stdin):
    for number in range(100 * turn, 100 * turn + 100):
        ledger.begun(start(number))
        if number >= 10:
            ledger.ended(record(number - 10))
    print(turn, flush=True)
ledger.close()
"""


def turn(process: Command) -> None:
    process.write("\n")
    assert process.line().strip().isdecimal()


def ready(process: Command) -> None:
    assert process.line() == "ready\n"


def test_a_relay_that_is_killed_leaves_all_but_the_last_batch_and_its_open_runs_are_marked(path: Path) -> None:
    with program(LOAD, path) as process:
        ready(process)
        seen = 0
        while seen < 500:  # reads while the other process writes
            turn(process)
            now = usage([path], by=("user",))
            assert not now or now[0]["output_tokens"] >= seen
            seen = now[0]["output_tokens"] if now else 0
        turn(process)
        os.kill(process.pid, signal.SIGKILL)
    before = rows(path)
    ended = [int(row["time"]) for row in before if row["ending"] is not None]
    assert ended == list(range(len(ended)))  # none is missing in between
    assert len(ended) >= seen
    still_open = [row["run"] for row in before if row["ending"] is None]
    assert 1 <= len(still_open) <= 10

    Ledger(path)
    after = {row["run"]: row for row in rows(path)}
    assert len(after) == len(before)
    for run in still_open:
        assert (after[run]["ending"], after[run]["error"], after[run]["exact"]) == ("truncated", KILLED, 0)
        assert after[run]["seconds"] is None
    assert [row["ending"] for row in after.values()].count("complete") == len(ended)
    assert not [name for name in os.listdir(path.parent) if "-owner-" in name]


def test_none_is_lost_when_the_relay_ends_by_itself(path: Path) -> None:
    with program(LOAD, path) as process:
        ready(process)
        for _ in range(5):
            turn(process)
        process.close_input()
        assert (process.output(), process.complaint()) == ("", "")
    assert [row["ending"] for row in rows(path)] == ["complete"] * 490 + [None] * 10


def test_the_open_runs_of_a_relay_that_lives_are_not_marked(path: Path, tmp_path: Path) -> None:
    with program(LOAD, path) as process:
        ready(process)
        while len(rows(path)) < 10:
            turn(process)
        Ledger(path)
        assert {ending for ending, _ in endings(path)} <= {None, "complete"}
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        Ledger(path)
        assert {ending for ending, _ in endings(path)} <= {"truncated", "complete"}


def test_two_ledgers_of_one_process_do_not_mark_each_others_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = Statements(monkeypatch)
    with closing(Ledger(path, batch_seconds=0)) as ledger:
        ledger.begun(start(record(0)))
        statements.wait_for_connections(4)
        ledger.begun(start(record(1)))
        statements.wait_for_connections(2)  # the first batch is over
        Ledger(path).close()
        assert endings(path)[0] == (None, None)
    Ledger(path)
    assert endings(path) == [("truncated", KILLED)] * 2


def test_a_run_that_was_marked_too_early_has_its_true_ending_later(path: Path) -> None:
    with closing(Ledger(path, batch_seconds=3600)) as ledger:
        written(path, start(record()))
        Ledger(path)
        assert endings(path) == [("truncated", KILLED)]
        ledger.ended(record())
    assert endings(path) == [("complete", None)]


def test_several_processes_make_one_ledger_and_write_to_it_at_once(path: Path) -> None:
    code = """
sys.stdin.readline()
ledger = Ledger(sys.argv[1], batch_seconds=0.001)
for number in range(200):
    ledger.begun(start(number))
    ledger.ended(record(number))
ledger.close()
"""
    with program(code, path) as one, program(code, path) as two, program(code, path) as three:
        for process in (one, two, three):
            process.write("\n")
        for process in (one, two, three):
            assert (process.output(), process.complaint()) == ("", "")
    assert [ending for ending, _ in endings(path)] == ["complete"] * 600
    assert usage([path], by=("user",))[0]["output_tokens"] == 600


def test_a_process_that_forks_and_its_child_each_write_their_own_rows(path: Path) -> None:
    code = """
ledger = Ledger(sys.argv[1], batch_seconds=0.001)
ledger.begun(start(0))
mine = record(0)
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    ledger.ended(mine)
    ledger.close()
else:
    ledger.begun(start(1))
    ledger.ended(record(1))
    ledger.close()
    os._exit(0)
"""
    with program(code, path) as process:
        assert (process.wait(), process.output()) == (0, ""), process.complaint()
    assert endings(path) == [("complete", None)] * 2
    assert len({row["owner"] for row in rows(path)}) == 2


def test_a_child_does_not_keep_the_runs_of_its_killed_parent_open(path: Path) -> None:
    code = """
write = Ledger._write
def told(ledger, batch):
    write(ledger, batch)
    os.write(1, b"written\\n")  # at once: there are two processes

Ledger._write = told
ledger = Ledger(sys.argv[1], batch_seconds=0)
ledger.begun(start(0))
sys.stdin.readline()
number = 0 if os.fork() else 1
ledger.begun(start(number))
sys.stdin.read()
os._exit(0)
"""
    with program(code, path) as process:
        assert process.line() == "written\n"
        process.write("\n")
        while len(rows(path)) < 2:  # one process writes its row again, and the other one a new one
            assert process.line() == "written\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        Ledger(path)
        assert endings(path) == [("truncated", KILLED), (None, None)]
    Ledger(path)


# --- What rows add up to -----------------------------------------------------------------------------------------------


def test_the_tokens_of_a_user_since_a_time_are_those_of_all_kinds(path: Path) -> None:
    written(
        path,
        record(0, **counts(1, 10, 100, 1000)),
        record(1, **counts(2, 20, 200, 2000)),
        record(2, **counts(4, 40, 400, 4000)),
        record(3, user="bob", **counts(5, 0, 0, 0)),
        start(record(4, user="eve")),
    )
    assert Ledger(path).tokens_since(NOON + 1) == {"ada": 2222 + 4444, "bob": 5, "eve": 0}
    assert Ledger(path).tokens_since(NOON + 5) == {}


EXACT = {"exact": True, "input_exact": True}
BOUND = {"exact": False, "input_exact": False}


def test_usage_is_by_user_model_and_day(path: Path) -> None:
    written(
        path,
        record(0, **counts(1, 2, 3, 4)),
        record(1, **counts(10, 20, 30, 40)),
        record(2, model="claude-y", **counts(5, 5, 5, 5), exact=False),
        record(DAY, **counts(100, 200, 300, 400)),
        record(3, user="bob", **counts(7, 7, 7, 7)),
    )
    assert usage([path]) == [
        {"user": "ada", "model": "claude-x", "day": "2025-11-30", "runs": 2, **counts(11, 22, 33, 44), **EXACT},
        {
            "user": "ada",
            "model": "claude-x",
            "day": "2025-12-01",
            "runs": 1,
            **counts(100, 200, 300, 400),
            **EXACT,
        },
        {"user": "ada", "model": "claude-y", "day": "2025-11-30", "runs": 1, **counts(5, 5, 5, 5), **BOUND},
        {"user": "bob", "model": "claude-x", "day": "2025-11-30", "runs": 1, **counts(7, 7, 7, 7), **EXACT},
    ]
    assert usage([path], by=("user",)) == [
        {"user": "ada", "runs": 4, **counts(116, 227, 338, 449), **BOUND},
        {"user": "bob", "runs": 1, **counts(7, 7, 7, 7), **EXACT},
    ]
    assert list(usage([path], by=("day", "model"))[0].items())[:2] == [("day", "2025-11-30"), ("model", "claude-x")]


def test_a_day_ends_at_midnight_utc_and_not_half_a_millisecond_before(path: Path) -> None:
    written(path, record(DAY / 2 - 0.0001), record(DAY / 2))
    assert [row["day"] for row in usage([path], by=("day",))] == ["2025-11-30", "2025-12-01"]


def test_the_first_and_the_last_day_are_included(path: Path) -> None:
    written(path, *(record(number * DAY) for number in range(4)))
    days = usage([path], by=("day",), since=date(2025, 12, 1), until=date(2025, 12, 2))
    assert [row["day"] for row in days] == ["2025-12-01", "2025-12-02"]


def test_an_open_run_counts_as_a_lower_bound(path: Path) -> None:
    written(path, record(0), start(record(1)))
    (row,) = usage([path], by=("user",))
    assert (row["runs"], row["input_tokens"], row["exact"]) == (2, 3, False)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_a_run_that_several_ledgers_have_counts_once_as_the_one_says_that_knows_more(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    whole = record(model="answered")
    paths = [
        written(tmp_path / "open.db", start(record())),
        written(tmp_path / "cut.db", record(output_tokens=2, exact=False)),
        written(tmp_path / "estimated.db", record(output_tokens=MAX_COUNT, exact=False, estimated_tokens=MAX_COUNT)),
        written(tmp_path / "whole.db", whole, record(1, user="bob")),
    ]
    assert usage([paths[number] for number in order], by=("user", "model")) == [
        {"user": "ada", "model": "answered", "runs": 1, **counts(3, 5, 7, 11), **EXACT},
        {"user": "bob", "model": "claude-x", "runs": 1, **counts(3, 5, 7, 11), **EXACT},
    ]


def test_the_same_id_at_another_time_counts_again(path: Path) -> None:
    written(path, record(0, run="same"), record(1, run="same"))
    assert usage([path], by=("user",))[0]["runs"] == 2


@pytest.mark.parametrize("by", [(), ("user", "dialect"), ("1; DROP TABLE runs",)])
def test_usage_by_anything_else_is_refused(path: Path, by: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"must be by some of user, model, day$"):
        usage([written(path, record())], by=by)


def test_reading_a_ledger_that_does_not_exist_names_it_and_does_not_make_it(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a ledger\?\.db: there is no such file$"):
        usage([path])
    assert not path.exists()


def test_reading_does_not_write(path: Path) -> None:
    before = written(path, record()).read_bytes()
    usage([path])
    assert path.read_bytes() == before


def test_the_largest_counts_still_add_up(path: Path) -> None:
    huge = counts(2**63, 2**63, 2**63, 2**63)
    written(path, *(record(number, **huge) for number in range(100)))
    assert usage([path], by=("user",))[0]["output_tokens"] == 100 * module.MAX_COUNT
    assert Ledger(path).tokens_since(0) == {"ada": 400 * module.MAX_COUNT}
