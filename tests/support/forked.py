"""Processes of `rawsse` that are forked and not started: an interpreter that has loaded the package forks each of them, which
takes milliseconds, and a start takes a third of a second of CPU time.

    process = Forked(["ask", "Hi"], env={…}, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(), process.wait(5.0)

`Forked` is as `subprocess.Popen`, as far as `Command` and `Terminal` need it. The interpreter has no thread, and gets a new
environment, folder and streams for each command, which then begins as `python -m rawsse` does.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
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
from typing import IO, Any, NoReturn

__all__ = ["Forked"]

LOADED = (
    "rawsse.cli",
    "rawsse.client.tools.conversation",
    "rawsse.relay.doctor",
    "rawsse.replay.explain",
    "rawsse.server",
    "uvloop",
)
"""What the interpreter loads for its commands."""


# --- Where a test is -----------------------------------------------------------------------------------------------


@cache
def _interpreter() -> socket.socket:
    """The connection to the interpreter of this process, which ends with it."""
    ours, its = socket.socketpair()
    command = [sys.executable, "-P", __file__, str(its.fileno())]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, pass_fds=[its.fileno()], env={**os.environ, "PYTHONPATH": str(root)})
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class Forked:
    """A command that runs. Streams are `subprocess.PIPE`, `DEVNULL`, a file, or a descriptor; `has_terminal`: its standard
    input is the terminal that it belongs to; `open_files`: its soft and hard limit of open files (None: as here);
    `has_uvloop`: uvloop may be imported where it is installed."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | Path,
        has_terminal: bool = False,
        open_files: tuple[int, int] | None = None,
        has_uvloop: bool = True,
        **streams: int | IO[Any],
    ) -> None:
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        self._code: int | None = None
        self._channel, its = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(its)
            given = [self._open(stack, name, streams[name]) for name in ("stdin", "stdout", "stderr")]
            socket.send_fds(_interpreter(), [b"x"], [its.fileno(), *given])
        request: dict[str, Any] = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}
        request |= {"has_terminal": has_terminal, "open_files": open_files, "has_uvloop": has_uvloop}
        self._channel.sendall(json.dumps(request).encode() + b"\n")
        self._told = self._channel.makefile("rb")
        self.pid = int(self._told.readline())

    def _open(self, stack: contextlib.ExitStack, name: str, given: int | IO[Any]) -> int:
        """The descriptor for a stream of the command."""
        if given == subprocess.DEVNULL:
            return stack.enter_context(open(os.devnull, "r+b", buffering=0)).fileno()
        if given == subprocess.PIPE:
            read_end, write_end = os.pipe()
            setattr(self, name, open(read_end, "rb"))  # noqa: SIM115 - closed by `communicate`
            return stack.enter_context(open(write_end, "wb", buffering=0)).fileno()
        return given if isinstance(given, int) else given.fileno()

    def send_signal(self, number: int) -> None:
        """Send a signal, if the command has not ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        if self._code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the command at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """The exit code; negative for a signal. Raises `subprocess.TimeoutExpired`."""
        if self._code is None:
            self._channel.settimeout(timeout)
            try:
                self._code = int(self._channel.recv(16))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("rawsse", timeout) from None
        return self._code

    def communicate(self, timeout: float) -> None:
        """Wait for its end, and close its streams."""
        self.wait(timeout)
        for each in (self.stdout, self.stderr, self._told, self._channel):
            if each is not None:
                each.close()


# --- The interpreter -----------------------------------------------------------------------------------------------


def serve(control: socket.socket) -> None:
    """Fork commands until the test's process has gone."""
    for name in LOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers are not waited for
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            keep(*descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def keep(channel: int, *streams: int) -> None:
    """Fork the command, and tell its process id and its exit code. In the command, returns when that is to begin."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        run(channel, streams)
    for stream in streams:
        os.close(stream)
    os.write(channel, b"%d\n" % pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(channel, b"%d" % code)
    os._exit(0)


def run(channel: int, streams: Sequence[int]) -> NoReturn:
    """Be the command."""
    with socket.socket(fileno=channel) as told, told.makefile("rb") as lines:
        request = json.loads(lines.readline())
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
        io.TextIOWrapper(os.fdopen(number, mode), encoding, errors, line_buffering=os.isatty(number) or number == 2)
        for number, mode, (encoding, errors) in zip((0, 1, 2), ("rb", "wb", "wb"), encodings, strict=True)
    )
    if not request["has_uvloop"]:
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # as after a failed import
    sys.argv = ["rawsse", *request["arguments"]]
    from rawsse.cli import main

    sys.exit(main())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
