"""rawsse.cli.terminal: what a terminal would obey, or not show."""

from __future__ import annotations

import re
import signal
import sys

import pytest
from support.background import Background
from support.source import PACKAGE

from rawsse.cli import main
from rawsse.cli.terminal import run, say, show
from rawsse.replay import Read, Recording, ReplayServer

# Bidi_Control in Unicode's PropList.txt; and characters that have no width, or end a line (Default_Ignorable_Code_Point).
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
INVISIBLE = "\xad\u180e\u200b\u2028\u2029\u2060\u2064\u206f\ufeff\ufff9\U000e0041"
CONTROLS = "\x00\x07\x08\x0b\x1b\x7f\x85\x9b"


@pytest.mark.parametrize("char", BIDI + INVISIBLE + CONTROLS, ids=ascii)
def test_what_is_said_has_nothing_that_reorders_or_hides_it(char: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a{char}b")
    assert capsys.readouterr().err == "a\ufffdb\n"


@pytest.mark.parametrize(
    "text", ["\u05d0\u05d1 \u0627\u0644", "e\u0301 \U0001f469\u200d\U0001f467", "a\tb", "\u4e2d\u6587"]
)
def test_what_is_said_keeps_the_words_of_every_script(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    assert capsys.readouterr().err == f"{text}\n"


@pytest.mark.parametrize("is_typed", [True, False])
def test_an_answer_keeps_marks_of_direction(
    is_typed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_typed)
    show(BIDI)
    assert capsys.readouterr().out == f"{BIDI}\n"


@pytest.mark.parametrize("command", [["ask", "Hi"], ["ask", "--json", "Hi"], ["check"]])
def test_an_error_of_the_api_is_shown_without_them(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    body = '{"type": "error", "error": {"type": "x\u202ey", "message": "no\u202egnp\u2066\U000e0041"}}'
    refusal = Recording(status=400, headers={"content-type": "application/json"}, reads=(Read(0.0, body.encode()),))
    with Background() as background:
        base_url = background.enter(ReplayServer(refusal)).base_url
        assert main([*command, base_url] if command == ["check"] else [*command, "--base-url", base_url]) == 1
    out, err = capsys.readouterr()
    assert "gnp" in err
    assert not set(BIDI + INVISIBLE) & set(out + err)


@pytest.mark.skipif(sys.platform == "win32", reason="signals wake no event loop there")
def test_every_signal_wakes_the_event_loop_of_a_command() -> None:
    async def wakeup_fd() -> int:
        signal.set_wakeup_fd(fd := signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        return fd

    assert run(wakeup_fd()) != -1


def test_no_command_has_an_event_loop_that_signals_do_not_wake() -> None:
    """`asyncio.run` would leave a Ctrl-C that comes just before the loop waits."""
    made = re.compile(r"asyncio\.(run|Runner)\(")
    assert [path.name for path in (PACKAGE / "cli").glob("*.py") if made.search(path.read_text())] == ["terminal.py"]
