"""rawsse chat: which line is what, what is kept, and Ctrl-C in a real terminal."""

from __future__ import annotations

import io
import json
import os
import readline
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.background import Background
from support.command import ROOT, Command
from support.terminal import CTRL_C, CTRL_D, UP, Terminal

from rawsse.cli import main
from rawsse.cli.ask import HELP
from rawsse.client.tools.conversation import CUT_NOTE
from rawsse.replay import Player, Read, Recording, ReplayServer, answer, recording_of, shipped_fixtures, text
from rawsse.server import Server

from .conftest import KEY, Play

TEXT = json.loads((ROOT / "fixtures/plain.json").read_text())["message"]["content"][0]["text"]

Chat = Callable[..., int]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Chat through a pipe with these lines; the exit code."""

    def chat(*lines: str, arguments: tuple[str, ...] = ()) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return main(["chat", *arguments])

    return chat


def recorded(name: str) -> Recording:
    return shipped_fixtures()[name]


def refused(status: int, kind: str, message: str) -> Recording:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return Recording(status=status, headers=headers, reads=(Read(0.0, body),))


def questions(server: ReplayServer) -> list[list[str]]:
    """The user's turns of each request, as texts."""
    return [
        [turn["content"] for turn in request.body["messages"] if turn["role"] == "user"] for request in server.requests
    ]


class Upstream:
    """Where the API would be: it plays recordings, and says no more than the gate lets it."""

    def __init__(self, background: Background, *names: str, free: int) -> None:
        self.gate = background.gate(free)
        self.was_asked = threading.Event()
        self.player = Player([recorded(name) for name in names], sleep=self._sleep)
        base_url = background.enter(Server(self.player, port=0)).base_url
        self.env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": base_url}

    async def _sleep(self, seconds: float) -> None:
        self.was_asked.set()
        await self.gate.sleep(seconds)

    def histories(self) -> list[Any]:
        return [request.body["messages"] for request in self.player.requests]


# --- Lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "question"),
    [
        ("Hello there", "Hello there"),
        ("  spaces around  ", "spaces around"),
        ("//etc/hosts: what is it?", "/etc/hosts: what is it?"),
        ("1/2 of it", "1/2 of it"),
    ],
)
def test_a_line_is_a_question(line: str, question: str, chat: Chat, play: Play) -> None:
    server = play("plain")
    assert chat(line) == 0
    assert questions(server) == [[question]]


def test_spaces_around_a_command_and_its_argument_do_not_count(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("  /model   my model  ", "/system  Be brief. ", "/usage  ", " /quit ", "/nothing") == 0
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["[model: my model]", "[system: Be brief.]", "[0 questions, 0 tokens in, 0 out]"]


@pytest.mark.parametrize("line", ["/exit", "/", "/etc/hosts is what?", "/retry now"])
def test_a_command_that_cannot_be_meant_is_named(line: str, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(line) == 1
    known = "/help lists the commands; a question that begins with / is written with //"
    assert capsys.readouterr().err == f"rawsse: there is no command {line!r}: {known}\n"


def test_help_names_every_command(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("/help") == 0
    assert capsys.readouterr().err == f"{HELP}\n"
    names = [line.split()[0] for line in HELP.splitlines()]
    assert chat(*names) == 1  # there is nothing to ask again
    assert "there is no command" not in capsys.readouterr().err


# --- Through a pipe ---------------------------------------------------------------------------------------------------


def test_each_line_is_a_question_and_the_answers_go_to_stdout(
    chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    server = play("plain")
    assert chat("One?", "", "Two?") == 0
    out, err = capsys.readouterr()
    assert out == f"{TEXT}\n{TEXT}\n"
    line = "[claude-sonnet-5, 28 tokens in, 217 out, end_turn]\n"
    assert err == f"{line}{line}[2 questions, 56 tokens in, 434 out]\n"
    assert questions(server) == [["One?"], ["One?", "Two?"]]


def test_the_last_line_needs_no_end(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    server = play("plain")
    monkeypatch.setattr(sys, "stdin", io.StringIO("One?"))
    assert main(["chat"]) == 0
    assert questions(server) == [["One?"]]


def test_options_become_the_request(chat: Chat, play: Play) -> None:
    server = play("plain")
    assert chat("Hi", arguments=("--model", "m", "--max-tokens", "7", "--system", "Be brief.")) == 0
    body = server.requests[0].body
    assert (body["model"], body["max_tokens"], body["system"]) == ("m", 7, "Be brief.")


def test_without_options_there_are_those_of_ask(chat: Chat, play: Play) -> None:
    server = play("plain")
    assert chat("Hi") == 0
    body = server.requests[0].body
    assert (body["model"], body["max_tokens"], "system" in body) == ("claude-sonnet-5", 4096, False)


def test_a_failed_answer_is_one_line_and_the_chat_goes_on(
    chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    server = play(refused(529, "overloaded_error", "Overloaded"), "plain")
    assert chat("One?", "/retry") == 1
    out, err = capsys.readouterr()
    assert out == TEXT + "\n"
    assert err.splitlines()[0] == (
        "rawsse: 529 overloaded_error: Overloaded: try again later [request req_replay_000001]"
    )
    assert questions(server) == [["One?"], ["One?"]]


def test_an_unknown_model_is_named_with_the_command_that_changes_it(
    chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    server = play(refused(404, "not_found_error", "model: m1"), "plain")
    assert chat("Hi", "/model m2", "Hi", arguments=("--model", "m1")) == 1
    assert capsys.readouterr().err.startswith("rawsse: there is no model 'm1': name another with /model [404 ")
    assert [request.body["model"] for request in server.requests] == ["m1", "m2"]


def test_a_cut_answer_is_told_and_kept(chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    server = play("cut", "plain")
    assert chat("Count!", "Go on!") == 1
    out, err = capsys.readouterr()
    assert out.startswith("One, two, three, four, five, six, seven, eight, nine,\nA server-sent")
    assert err.startswith("rawsse: the answer is incomplete: ")
    assert "[2 questions, at least " in err
    answer = server.requests[1].body["messages"][1]["content"][0]["text"]
    assert answer == "One, two, three, four, five, six, seven, eight, nine,"


def test_an_answer_that_always_pauses_is_not_asked_for_for_ever(
    chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    paused = recording_of(answer(text("So."), stop_reason="pause_turn"))
    server = play(*[paused] * 20, "plain")
    assert chat("Search!", "And?") == 1
    out, err = capsys.readouterr()
    assert out == "So." * 20 + "\n" + TEXT + "\n"
    assert err.startswith("rawsse: the model is not done after 20 answers: max_turns allows more\n")
    assert len(server.requests) == 21


def test_a_refusal_of_the_model_is_said_and_not_kept(
    chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    server = play("refusal", "plain")
    assert chat("Bad?", "Good?") == 0
    assert "[the model refuses to answer: the question is not kept]\n" in capsys.readouterr().err
    assert questions(server)[1] == ["Good?"]


def test_with_nothing_asked_there_is_nothing_to_retry(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("/retry") == 1
    assert capsys.readouterr().err == "rawsse: there is no question to ask again\n"


def test_model_and_system_are_shown_and_set(chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    server = play("plain")
    assert chat("/model", "/model m2", "/system", "/system Be brief.", "Hi", "/system -", "Hi again") == 0
    shown = [line for line in capsys.readouterr().err.splitlines() if ": " in line]
    assert shown == [
        "[model: claude-sonnet-5]",
        "[model: m2]",
        "[system: none]",
        "[system: Be brief.]",
        "[system: none]",
    ]
    assert [request.body.get("system") for request in server.requests] == ["Be brief.", None]
    assert questions(server)[-1] == ["Hi", "Hi again"]


def test_usage_is_told_so_far(chat: Chat, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play("plain")
    assert chat("/usage", "Hi", "/usage") == 0
    counts = [line for line in capsys.readouterr().err.splitlines() if "question" in line]
    assert counts == ["[0 questions, 0 tokens in, 0 out]", *["[1 question, 28 tokens in, 217 out]"] * 2]


def test_quit_leaves_the_lines_behind_it(chat: Chat, play: Play) -> None:
    server = play("plain")
    assert chat("/quit", "Hi") == 0
    assert server.requests == []


def test_what_is_no_text_is_told(
    play: Play, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xffb\n"), "utf-8", "strict"))
    assert main(["chat"]) == 2
    assert capsys.readouterr().err == "rawsse: the line is not UTF-8 text\n"


def test_ctrl_c_ends_a_chat_that_nobody_types(background: Background) -> None:
    upstream = Upstream(background, "plain", free=1)
    read_end, write_end = os.pipe()
    os.write(write_end, b"One?\nTwo?\n")
    with os.fdopen(read_end), os.fdopen(write_end), Command("chat", env=upstream.env, stdin=read_end) as command:
        assert command.read(100).startswith("A server-sent event")
        assert command.stop(signal.SIGINT) == 130
        assert upstream.gate.left.wait(5)
        assert command.complaint() == "[1 question, at least 28 tokens in, 3 out]\n"


def test_when_its_reader_leaves_it_stops_without_a_word(background: Background) -> None:
    upstream = Upstream(background, "plain", free=1)
    read_end, write_end = os.pipe()
    os.write(write_end, b"One?\nTwo?\n")
    with os.fdopen(read_end), os.fdopen(write_end), Command("chat", env=upstream.env, stdin=read_end) as command:
        command.read(100)
        command.close_output()
        upstream.gate.let(1)
        assert (command.wait(), upstream.gate.left.wait(5)) == (1, True)
        assert command.complaint() == "[1 question, at least 28 tokens in, 3 out]\n"


# --- In a terminal ----------------------------------------------------------------------------------------------------

FIRST_LINE = "chat with claude-sonnet-5: Ctrl-C stops an answer, Ctrl-D leaves, /help has the rest\n"
PROMPT = "you> "


def test_the_first_line_says_how_to_leave_and_ctrl_d_does() -> None:
    with Terminal("chat", env={"ANTHROPIC_API_KEY": KEY}) as terminal:
        assert terminal.wait_for(PROMPT) == FIRST_LINE + PROMPT
        terminal.type(CTRL_D)
        assert (terminal.wait(), terminal.rest().strip()) == (0, "")


def test_ctrl_c_with_nothing_typed_says_how_to_leave() -> None:
    with Terminal("chat", env={"ANTHROPIC_API_KEY": KEY}) as terminal:
        terminal.wait_for(PROMPT)
        for _ in range(2):
            terminal.interrupt()
            assert terminal.wait_for(PROMPT).endswith(f"\n(Ctrl-D leaves)\n{PROMPT}")
        terminal.type(CTRL_D)
        assert (terminal.wait(), terminal.rest().strip()) == (0, "")


def test_ctrl_c_drops_what_was_typed() -> None:
    with Terminal("chat", env={"ANTHROPIC_API_KEY": KEY}) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/mod")
        terminal.wait_for("/mod")
        terminal.interrupt()
        terminal.wait_for(PROMPT)
        terminal.type("/model\n")
        assert "[model: claude-sonnet-5]" in terminal.wait_for(PROMPT)
        terminal.type("/quit\n")
        assert terminal.wait() == 0


def test_an_answer_and_what_it_cost_stand_between_two_prompts(background: Background) -> None:
    upstream = Upstream(background, "plain", free=1000)
    with Terminal("chat", env=upstream.env) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("What is SSE?\n")
        shown = f"What is SSE?\n{TEXT}\n[claude-sonnet-5, 28 tokens in, 217 out, end_turn]\n\n{PROMPT}"
        assert terminal.wait_for(PROMPT) == shown
        terminal.type(CTRL_D)
        assert terminal.rest().strip() == "[1 question, 28 tokens in, 217 out]"


def test_ctrl_c_stops_the_answer_alone_upstream_too_and_the_history_keeps_what_came(background: Background) -> None:
    upstream = Upstream(background, "plain", free=1)
    with Terminal("chat", env=upstream.env) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("One?\n")
        terminal.wait_for("A server-sent event")
        terminal.type(CTRL_C)
        assert upstream.gate.left.wait(5)
        assert terminal.wait_for(PROMPT).endswith(f"\r[stopped]\n\n{PROMPT}")
        upstream.gate.let(1000)
        terminal.type("Two?\n")
        terminal.wait_for("end_turn]")
        terminal.wait_for(PROMPT)
        terminal.type("/quit\n")
        assert "[2 questions, at least " in terminal.rest()
    assert upstream.histories()[1] == [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": [{"type": "text", "text": "A server-sent event"}]},
        {"role": "user", "content": [{"type": "text", "text": CUT_NOTE}, {"type": "text", "text": "Two?"}]},
    ]


def test_ctrl_c_before_anything_came_stops_as_well(background: Background) -> None:
    upstream = Upstream(background, "plain", free=0)
    with Terminal("chat", env=upstream.env) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("One?\n")
        assert upstream.was_asked.wait(5)
        terminal.type(CTRL_C)
        assert terminal.wait_for(PROMPT).endswith(f"\r[stopped]\n\n{PROMPT}")
        assert upstream.gate.left.wait(5)


def test_ctrl_c_many_times_at_once_does_not_hang(background: Background) -> None:
    upstream = Upstream(background, "plain", free=1)
    with Terminal("chat", env=upstream.env) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("One?\n")
        terminal.wait_for("A server-sent event")
        terminal.type(CTRL_C * 5)
        shown = terminal.wait_for(PROMPT, or_end=True)  # the end, if one came while the answer was being stopped
        assert upstream.gate.left.wait(5)
        assert "Traceback" not in shown


def test_up_brings_the_last_line() -> None:
    with Terminal("chat", env={"ANTHROPIC_API_KEY": KEY}) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("/model m2\n")
        terminal.wait_for(PROMPT)
        terminal.type(UP)
        terminal.wait_for("/model m2")
        terminal.type("3\n")
        assert "[model: m23]" in terminal.wait_for(PROMPT)


@pytest.mark.skipif("libedit" in (readline.__doc__ or ""), reason="libedit takes what is pasted line by line")
def test_what_is_pasted_is_one_question(background: Background) -> None:
    upstream = Upstream(background, "plain", free=1000)
    with Terminal("chat", env=upstream.env) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("\x1b[200~One\nTwo\nThree\x1b[201~")
        terminal.wait_for("Three")
        terminal.type("\n")
        terminal.wait_for("end_turn]")
    assert upstream.histories() == [[{"role": "user", "content": "One\nTwo\nThree"}]]


def test_a_failed_answer_is_one_line_and_the_prompt_comes_again(background: Background) -> None:
    server = background.enter(ReplayServer([refused(401, "authentication_error", f"invalid x-api-key {KEY}")]))
    with Terminal("chat", "--base-url", server.base_url, env={"ANTHROPIC_API_KEY": KEY}) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("One?\n")
        shown = terminal.wait_for(PROMPT).splitlines()
        assert shown[1].startswith(
            "rawsse: the API does not accept the key: set ANTHROPIC_API_KEY to one that it does ["
        )
        assert (len(shown), KEY in shown[1]) == (4, False)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0


def test_a_failure_that_may_heal_says_how_to_ask_again(background: Background) -> None:
    server = background.enter(ReplayServer([refused(529, "overloaded_error", "Overloaded"), recorded("plain")]))
    with Terminal("chat", "--base-url", server.base_url, env={"ANTHROPIC_API_KEY": KEY}) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("One?\n")
        shown = terminal.wait_for(PROMPT)
        assert shown.endswith(f"\n[/retry asks again]\n\n{PROMPT}")
        terminal.type("/retry\n")
        terminal.wait_for("end_turn]")


def test_an_answer_cannot_command_the_terminal(background: Background) -> None:
    escape = Recording.from_sse(recorded("plain").body.replace(b"A server-sent", b"A \\u001b[2Jserver\\u009b-sent"))
    server = background.enter(ReplayServer([escape]))
    with Terminal("chat", "--base-url", server.base_url, env={"ANTHROPIC_API_KEY": KEY}) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("One?\n")
        assert "A \ufffd[2Jserver\ufffd-sent" in terminal.wait_for("end_turn]")


def test_the_prompt_is_not_among_the_answers_when_they_go_into_a_file(background: Background, folder: Path) -> None:
    upstream = Upstream(background, "plain", free=1000)
    with open(folder / "answers", "wb") as answers, Terminal("chat", env=upstream.env, stdout=answers) as terminal:
        terminal.wait_for(PROMPT)
        terminal.type("One?\n")
        terminal.wait_for("end_turn]")
        terminal.wait_for(PROMPT)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert (folder / "answers").read_text() == TEXT + "\n"
