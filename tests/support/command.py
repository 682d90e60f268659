"""`rawsse` as a process, for what only a process has: signals, pipes, the line `listening on`. Where nothing but streams,
environment, folder and Python's options are asked for, the process is forked (`forked.py`).

    with Command("replay", "plain.sse.jsonl", "--port", "0") as command:
        urlopen(command.base_url)
        assert command.stop(signal.SIGTERM) == 0

The process has ended when the block has, whatever happened in it.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .background import PATIENCE
from .forked import Forked

__all__ = ["MODULE", "ROOT", "STRICT", "WITHOUT_UVLOOP", "Command", "environment"]

ROOT = Path(__file__).parents[2]
"""The checkout."""

MODULE = ("-m", "rawsse")

WITHOUT_UVLOOP = ("-c", "import sys; sys.modules['uvloop'] = None; from rawsse.cli import main; sys.exit(main())")

STRICT = ("-X", "dev", "-X", "utf8", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning")
"""Python's options for a program in which every warning is an error, but that of later Pythons of a fork in a process with
threads: development mode."""


class Command:
    """A program in Python that runs: a command of `rawsse`, or what `program` says. `flags` are Python's own options, `env` is
    added to the environment, from which everything of the API is taken away. The other options are those of `Popen`, and
    `open_files`: the soft and the hard limit of its open files."""

    def __init__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        program: tuple[str, ...] = MODULE,
        flags: tuple[str, ...] = (),
        is_forked: bool = True,
        **options: Any,
    ) -> None:
        given = [*program, *map(str, arguments)]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        options |= {"env": environment(env or {}), "cwd": cwd or ROOT}
        is_plain = options.keys() <= {"stdin", "stdout", "stderr", "env", "cwd", "open_files"}
        for_interpreter = any(name.startswith("PYTHON") for name in env or {})  # Python reads them when it starts
        self._process: Any
        if is_forked and is_plain and not for_interpreter:
            self._process = Forked(given, flags=flags, **options)
        else:
            if limits := options.pop("open_files", None):
                options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            self._process = subprocess.Popen([sys.executable, *flags, *given], **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return int(self._process.pid)

    @cached_property
    def base_url(self) -> str:
        """Where it listens, once it says so."""
        line = self.line()
        assert line.startswith("listening on http://"), line + self.complaint()
        return line.removeprefix("listening on ").strip()

    def line(self) -> str:
        """The next line of standard output."""
        assert self._process.stdout is not None
        return str(self._process.stdout.readline(), "utf-8")

    def read(self, count: int) -> str:
        """As much of standard output as came, at least one byte; `count` bytes at most."""
        assert self._process.stdout is not None
        return str(os.read(self._process.stdout.fileno(), count), "utf-8")

    def output(self) -> str:
        """All of standard output that is still to come, when it has ended by itself: less than a pipe holds."""
        assert self._process.stdout is not None
        self._process.wait(PATIENCE)
        return str(self._process.stdout.read(), "utf-8")

    def log_line(self) -> str:
        """The next line of standard error."""
        assert self._process.stderr is not None
        return str(self._process.stderr.readline(), "utf-8")

    def write(self, text: str) -> None:
        """Write to standard input, which is a pipe."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def close_input(self) -> None:
        """End standard input, which is a pipe."""
        stdin, self._process.stdin = self._process.stdin, None
        stdin.close()

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.send_signal(number)
        return int(self._process.wait(PATIENCE))

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code, when it has ended by itself. Raises `subprocess.TimeoutExpired`."""
        return int(self._process.wait(seconds))

    def close_output(self) -> None:
        """Read no further, as `head` does."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.stdout = None

    def complaint(self) -> str:
        """All that it wrote to standard error. The command has ended."""
        assert self._process.stderr is not None
        self._process.wait(PATIENCE)
        return str(self._process.stderr.read(), "utf-8")


def environment(added: Mapping[str, str]) -> dict[str, str]:
    """The environment for a peer: without keys and addresses of the API and without proxies, and with `added`."""
    unwanted = ("ANTHROPIC_", "RAWSSE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, **added}
