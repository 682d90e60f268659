"""The tests of a large run in two processes: this one, and a fork of it once they are collected. A run of all tests takes half
of the time on the clock; it waits, or another processor is idle, for much of it.

Each process takes the next file of tests when it has finished one. The fork writes its reports to a file without a name, and
this one shows them at its end. A fork that dies, or a test without a report, fails the run.
"""

from __future__ import annotations

import faulthandler
import io
import itertools
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

__all__ = ["MANY", "Halves"]

MANY = 5000
"""So many tests are worth a second process."""


def is_wanted(config: pytest.Config, count: int) -> bool:
    """Not for few tests, or one processor; nor where an option wants one process, or its own processes."""
    options = config.option
    asked = options.usepdb or options.trace or options.maxfail or options.capture == "no" or options.collectonly
    has_others = (
        config.pluginmanager.hasplugin("dsession") or hasattr(config, "workerinput") or "coverage" in sys.modules
    )
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return not (asked or has_others) and processors > 1 and count >= MANY


class Queue:
    """The files of tests, which two processes take one by one. Their numbers are in a pipe: a read of one is atomic."""

    def __init__(self, items: Sequence[pytest.Item]) -> None:
        grouped = itertools.groupby(items, lambda item: item.nodeid.partition("::")[0])
        self._files = [list(group) for _, group in grouped]
        self._next, write = os.pipe()
        for number in range(len(self._files)):  # 64 KiB are room for 16,000 of them
            os.write(write, number.to_bytes(4, "big"))
        os.close(write)

    def __iter__(self) -> Iterator[pytest.Item]:
        while number := os.read(self._next, 4):
            yield from self._files[int.from_bytes(number, "big")]
        os.close(self._next)


class Halves:
    """The plugin."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run the tests in two processes; None: pytest runs them in one."""
        if session.testsfailed or not is_wanted(session.config, len(session.items)):
            return None
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # private: one folder for both
        queue = Queue(session.items)
        sys.stdout.flush()
        sys.stderr.flush()
        faulthandler.cancel_dump_traceback_later()  # a fork has not its thread, and would wait for it
        with tempfile.TemporaryFile(buffering=0) as reports:  # a fork of the fork has nothing to flush
            if (pid := os.fork()) == 0:
                os._exit(_run_in_fork(session, queue, reports))
            done = {item.nodeid for item in _run(session, queue)}
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            reports.seek(0)
            done |= _show(session, reports)
        if code or len(done) != len(session.items):
            raise RuntimeError(f"the fork ended with {code}; {len(session.items) - len(done)} tests have no report")
        return True


def _run(session: pytest.Session, items: Iterator[pytest.Item] | Queue) -> Iterator[pytest.Item]:
    """Run them, as pytest's own loop does, and give each that has run."""
    following, ahead = itertools.tee(items)
    next(ahead, None)
    for item, nextitem in itertools.zip_longest(following, ahead):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        yield item
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)


class _Reporter:
    """In the fork: what pytest would show goes to a file."""

    def __init__(self, reports: io.FileIO) -> None:
        self._reports = reports

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.write(pickle.dumps(report))


def _run_in_fork(session: pytest.Session, queue: Queue, reports: io.FileIO) -> int:
    plugins = session.config.pluginmanager
    try:
        plugins.unregister(name="terminalreporter")
        plugins.register(_Reporter(reports))
        capture: Any = plugins.getplugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()  # to files that are not those of the other process
        for _ in _run(session, queue):
            pass
        session.config._ensure_unconfigure()  # private: what is found at the end of a run is an error in a fork, too
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _show(session: pytest.Session, reports: io.FileIO) -> set[str]:
    """Let pytest show, and count, the reports. Their tests."""
    done, hook = set(), session.config.hook
    with io.BufferedReader(reports) as buffered:
        while buffered.peek(1):
            report: pytest.TestReport = pickle.load(buffered)
            if report.when == "setup":
                hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
            elif report.when == "teardown":
                done.add(report.nodeid)
            hook.pytest_runtest_logreport(report=report)
    return done
