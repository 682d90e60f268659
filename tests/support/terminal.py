"""`rawsse` in a terminal of its own, for what only a terminal has: prompts, Ctrl-C, lines that can be edited.

Knows pseudo-terminals (POSIX). Nothing sleeps: whoever waits for a text gets it, or the test fails after `PATIENCE`.

    with Terminal("chat", env={"ANTHROPIC_API_KEY": "any"}) as terminal:
        terminal.wait_for("you> ")
        terminal.type("Hello\\n")
        assert "end_turn" in terminal.wait_for("you> ")      # what was shown since the last time
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
"""

from __future__ import annotations

import os
import pty
import re
import select
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .background import PATIENCE
from .command import MODULE, ROOT, environment
from .forked import Forked

__all__ = ["CTRL_C", "CTRL_D", "UP", "Terminal"]

CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"

# What readline says to the terminal, and not to the person.
_MODES = re.compile(r"\x1b\[\?2004[hl]\r?")


class Terminal:
    """A command that runs in a terminal. `options` are those of `Popen`: one of its streams may be something else."""

    def __init__(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, **options: Any
    ) -> None:
        self._keyboard, screen = pty.openpty()
        self._shown = ""
        try:
            self._process = Forked(
                [*MODULE, *map(str, arguments)],
                env=environment({"TERM": "dumb", **(env or {})}),
                cwd=cwd or ROOT,
                has_terminal=True,
                **{"stdin": screen, "stdout": screen, "stderr": screen, **options},
            )
        finally:
            os.close(screen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(PATIENCE)
        os.close(self._keyboard)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._keyboard, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C at a prompt until something comes of it: readline does not see a signal that comes after the prompt is
        shown, and before it waits for keys. Nobody is so fast but a test."""
        for _ in range(20):
            self.type(CTRL_C)
            if self._read_until(time.monotonic() + PATIENCE / 20):
                break

    def wait_for(self, text: str, *, or_end: bool = False) -> str:
        """All that is shown up to and with `text`, since the last time; with `or_end` to the end, if it does not come."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._shown:
            if not self._read_until(deadline):
                assert or_end, f"{text!r} does not come, but {self._shown!r}"
                return self._shown
        before, _, self._shown = self._shown.partition(text)
        return before + text

    def wait(self) -> int:
        """The exit code, when it has ended by itself."""
        deadline = time.monotonic() + PATIENCE
        while self._read_until(deadline):
            pass
        return self._process.wait(PATIENCE)

    def rest(self) -> str:
        """All that was shown since the last time. The command has ended."""
        self.wait()
        rest, self._shown = self._shown, ""
        return rest

    def _read_until(self, deadline: float) -> bool:
        """Read what is shown next. False: nothing more comes."""
        ready, _, _ = select.select([self._keyboard], [], [], max(deadline - time.monotonic(), 0))
        try:
            data = os.read(self._keyboard, 4096) if ready else b""
        except OSError:  # Linux: nobody has the other end open any more
            data = b""
        shown = self._shown + data.decode().replace("\r\n", "\n")
        self._shown = _MODES.sub("", shown)
        return data != b""
