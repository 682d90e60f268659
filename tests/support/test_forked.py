"""support.forked: a forked program is as one that is started."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .background import PATIENCE
from .command import STRICT, Command


@pytest.mark.parametrize("is_forked", [True, False], ids=["forked", "started"])
def test_it_has_its_folder_its_streams_and_its_environment(is_forked: bool, tmp_path: Path) -> None:
    (tmp_path / "é.sse").write_text("data: x\n\n")
    read_end, write_end = os.pipe()
    options: dict[str, Any] = {
        "is_forked": is_forked,
        "cwd": tmp_path,
        "env": {"ANTHROPIC_BASE_URL": "ftp://example.org"},
    }
    with os.fdopen(read_end) as stdin, Command("check", "-", "é.sse", stdin=stdin, **options) as command:
        os.close(write_end)
        assert command.wait() == 1
        lines = [command.line() for _ in range(5)]
        assert [line for line in lines if "broken" in line] == ["-: 1 broken rule\n", "é.sse: 2 broken rules\n"]
    with Command("ask", "Hi", **options) as command:
        assert (command.wait(), command.complaint()[:24]) == (2, "rawsse: the base URL mus")


@pytest.mark.parametrize("is_forked", [True, False], ids=["forked", "started"])
def test_a_signal_ends_it(is_forked: bool) -> None:
    with Command("demo", "--port", "0", is_forked=is_forked) as command:
        assert command.base_url
        assert command.stop(signal.SIGKILL) == -signal.SIGKILL
        command.send_signal(signal.SIGTERM)  # of no process any more


PROGRAM = """
import json, sys
facts = [__name__, sys.argv, sys.path[0], sys.flags.dev_mode, sys.stdin.read(), sys.stdout.encoding]
print(json.dumps(facts))
sys.exit(3)
"""


@pytest.mark.parametrize("is_forked", [True, False], ids=["forked", "started"])
def test_a_program_is_what_python_makes_of_its_arguments(is_forked: bool, tmp_path: Path) -> None:
    (file := tmp_path / "é.py").write_text(PROGRAM)
    for program, folder in ((("-c", PROGRAM), ""), ((str(file),), str(tmp_path))):
        options: dict[str, Any] = {"flags": STRICT, "stdin": subprocess.PIPE, "is_forked": is_forked}
        with Command("a", "ü", program=program, **options) as command:
            command.write("☺")
            command.close_input()
            facts = json.loads(command.output())
            assert facts == ["__main__", [program[0], "a", "ü"], folder, True, "☺", "utf-8"]
            assert (command.wait(), command.complaint()) == (3, "")


@pytest.mark.parametrize("is_forked", [True, False], ids=["forked", "started"])
def test_what_a_program_does_not_catch_ends_it_and_is_told_and_so_is_what_it_left_open(is_forked: bool) -> None:
    code = "import socket, warnings; left = socket.socket(); warnings.warn('odd')"
    with Command(program=("-c", code), flags=STRICT, is_forked=is_forked) as command:
        assert command.wait() == 1
        complaint = command.complaint()
    assert complaint.startswith("Traceback (most recent call last):\n")
    assert "\nUserWarning: odd\n" in complaint
    assert "ResourceWarning: unclosed <socket.socket fd=3" in complaint


def test_a_program_may_have_ended_before_its_id_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sendall = socket.socket.sendall

    def send_and_wait(channel: socket.socket, data: bytes) -> None:
        sendall(channel, data)
        (end := select.poll()).register(channel, 0)  # a hang-up is always told
        end.poll(PATIENCE * 1000)

    monkeypatch.setattr(socket.socket, "sendall", send_and_wait)
    with Command(program=("-c", "raise SystemExit(7)")) as command:
        assert command.wait() == 7


def test_nothing_of_one_command_is_left_to_the_next(tmp_path: Path) -> None:
    with Command("ask", "Hi", env={"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "ftp://x"}, cwd=tmp_path) as command:
        assert "base URL" in command.complaint()
    with Command("ask", "Hi", cwd=tmp_path) as command:
        assert command.complaint().startswith("rawsse: no key: ")
