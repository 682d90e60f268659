"""Programs in Python that are forked and not started: an interpreter that has loaded `rawsse` forks each of them, which takes
milliseconds, and a start takes a third of a second of CPU time.

    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = Forked(["-m", "rawsse", "ask", "Hi"], env={…}, cwd=ROOT, **streams)
    process.stdout.read(), process.wait(5.0)

`Forked` is as `subprocess.Popen`, as far as `Command` and `Terminal` need it. The interpreter has no thread, and gets a new
environment, folder and streams for each program, which then begins, and ends, as it does where it is started. There is one
interpreter for each set of Python's own options.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import IO, Any

__all__ = ["Forked"]

ROOT = Path(__file__).parents[2]

LOADED = (
    "rawsse.cli",
    "rawsse.client.blocking",
    "rawsse.client.tools.conversation",
    "rawsse.client.tools.runner",
    "rawsse.relay.doctor",
    "rawsse.relay.ledger",
    "rawsse.replay.explain",
    "rawsse.server",
    "uvloop",
)
"""What the interpreter loads for its programs."""


# --- Where a test is -----------------------------------------------------------------------------------------------


@cache
def _interpreter(flags: tuple[str, ...]) -> socket.socket:
    """The connection to the interpreter of this process that has these options. It ends with this process."""
    ours, its = socket.socketpair()
    command = [sys.executable, *flags, "-P", __file__, str(its.fileno())]
    process = subprocess.Popen(command, pass_fds=[its.fileno()], env={**os.environ, "PYTHONPATH": str(ROOT)})
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class Forked:
    """A program that runs. `arguments` are `-m rawsse`, `-c CODE` or the path of a file, and the program's own; `flags` are
    Python's. Streams are `subprocess.PIPE`, `DEVNULL`, a file, or a descriptor; `has_terminal`: its standard input is the
    terminal that it belongs to; `open_files`: its soft and hard limit of open files (None: as here)."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path,
        flags: Sequence[str] = (),
        has_terminal: bool = False,
        open_files: tuple[int, int] | None = None,
        **streams: int | IO[Any],
    ) -> None:
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self._code: int | None = None
        self._channel, its = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(its)
            given = [self._open(stack, name, streams[name]) for name in ("stdin", "stdout", "stderr")]
            socket.send_fds(_interpreter(tuple(flags)), [b"x"], [its.fileno(), *given])
        request: dict[str, Any] = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}
        request |= {"has_terminal": has_terminal, "open_files": open_files}
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        # Without a buffer, which would take the exit code of a short program, too.
        self._told = self._channel.makefile("rb", buffering=0)
        self.pid = int(self._told.readline())

    def _open(self, stack: contextlib.ExitStack, name: str, given: int | IO[Any]) -> int:
        """The descriptor for a stream of the program."""
        if given == subprocess.DEVNULL:
            return stack.enter_context(open(os.devnull, "r+b", buffering=0)).fileno()
        if given == subprocess.PIPE:
            read_end, write_end = os.pipe()
            ours, its = (write_end, read_end) if name == "stdin" else (read_end, write_end)
            setattr(self, name, open(ours, "wb" if name == "stdin" else "rb"))  # noqa: SIM115 - closed by `communicate`
            stack.callback(os.close, its)
            return its
        return given if isinstance(given, int) else given.fileno()

    def send_signal(self, number: int) -> None:
        """Send a signal, if the program has not ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended a moment ago
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the program at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """The exit code; negative for a signal. Raises `subprocess.TimeoutExpired`."""
        if self._code is None:
            self._channel.settimeout(timeout)
            try:
                self._code = int(self._channel.recv(16))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("a forked program", timeout) from None
        return self._code

    def communicate(self, timeout: float) -> None:
        """Wait for its end, and close its streams."""
        self.wait(timeout)
        for each in (self.stdin, self.stdout, self.stderr, self._told, self._channel):
            if each is not None:
                each.close()


# --- The interpreter -----------------------------------------------------------------------------------------------


def serve(control: socket.socket) -> Mapping[str, Any] | None:
    """Fork programs until the test's process has gone. In such a program, returns when it is to begin, with what was asked."""
    for name in LOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    gc.collect()
    gc.freeze()  # no collection in a program goes through what is loaded by now
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers are not waited for
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not data:
            return None
        if os.fork() == 0:
            control.close()
            return keep(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def keep(channel: int, *streams: int) -> Mapping[str, Any]:
    """Fork the program, and tell its process id and its exit code. Returns in the program alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        return prepare(channel, streams)
    for stream in streams:
        os.close(stream)
    os.write(channel, b"%d\n" % pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(channel, b"%d" % code)
    os._exit(0)


def prepare(channel: int, streams: Sequence[int]) -> Mapping[str, Any]:
    """Give the program its streams, its folder and its environment."""
    with socket.socket(fileno=channel) as told, told.makefile("rb") as lines:
        request: Mapping[str, Any] = json.loads(lines.readline())
    encodings = [(stream.encoding, stream.errors) for stream in (sys.stdin, sys.stdout, sys.stderr)]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    if request["open_files"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, request["open_files"])
    if request["has_terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            os.fdopen(number, mode, closefd=False), encoding, errors, line_buffering=os.isatty(number) or number == 2
        )
        for number, mode, (encoding, errors) in zip((0, 1, 2), ("rb", "wb", "wb"), encodings, strict=True)
    )
    return request


def begin(arguments: Sequence[str]) -> None:
    """Be the program that Python runs with these arguments."""
    kind, *rest = arguments
    if kind == "-c":
        code, name, folder = rest.pop(0), "-c", ""
    else:
        name, folder = (str(ROOT / rest.pop(0) / "__main__.py"), "") if kind == "-m" else (kind, str(Path(kind).parent))
        code = Path(name).read_text(encoding="utf-8")
    sys.argv = [name, *rest]
    sys.path.insert(0, folder)
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = name
    exec(compile(code, name, "exec", dont_inherit=True), vars(main))


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as control:
        asked = serve(control)
    if asked is not None:
        begin(asked["arguments"])
