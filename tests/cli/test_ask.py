"""rawsse ask: what is printed where, and that every failure is one line that says what to do."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.answers import plain
from support.background import Background
from support.command import ROOT, Command
from support.fault_server import FaultServer
from support.quoting import FORMS
from support.sampling import one_in
from support.sockets import serving, shout

from rawsse.cli import main
from rawsse.cli.options import new_client
from rawsse.client.retry import RetryPolicy
from rawsse.replay import Player, Read, Recording, shipped_fixtures
from rawsse.server import Server

from .conftest import KEY, Play

PLAIN = json.loads((ROOT / "fixtures/plain.json").read_text())["message"]
TEXT = PLAIN["content"][0]["text"]


def recorded(name: str) -> Recording:
    return shipped_fixtures()[name]


def refused(status: int, kind: str, message: str, **headers: str) -> Recording:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()
    fields = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Recording(status=status, headers=fields, reads=(Read(0.0, body),))


def test_the_answer_goes_to_stdout_and_its_usage_to_stderr(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(recorded("plain"))
    assert main(["ask", "Hello"]) == 0
    assert capsys.readouterr() == (TEXT + "\n", "[claude-sonnet-5, 28 tokens in, 217 out, end_turn]\n")


def test_options_and_words_become_the_request(play: Play) -> None:
    server = play(recorded("plain"))
    main(["ask", "--system", "Be brief.", "--model", "m", "--max-tokens", "7", "What", "is", "SSE?"])
    assert server.requests[0].body == {
        "model": "m",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": "What is SSE?"}],
        "system": "Be brief.",
        "stream": True,
    }


@pytest.mark.parametrize(
    ("words", "piped", "prompt"),
    [
        (["summarise", "this"], "a log\nof two lines\n", "summarise this\n\na log\nof two lines\n"),
        (["summarise this"], "", "summarise this"),
        (["summarise this"], " \n", "summarise this"),
        ([""], "a log", "a log"),
        (["Sum", "-", "up"], "a log", "Sum a log up"),
        ([], "a log", "a log"),
    ],
)
def test_words_and_standard_input_go_together(play: Play, words: list[str], piped: str, prompt: str) -> None:
    upstream = play(recorded("plain"))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    read_end, write_end = os.pipe()
    with open(read_end), Command("ask", *words, env=env, stdin=read_end) as command:
        with open(write_end, "w") as pipe:
            pipe.write(piped)
        assert command.wait() == 0
    assert [request.body["messages"][0]["content"] for request in upstream.requests] == [prompt]


def test_a_file_is_standard_input_too_and_what_is_no_text_of_it_is_refused(play: Play, folder: Path) -> None:
    upstream = play(recorded("plain"))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    for content, code in [("a log é".encode(), 0), (b"\xff", 2)]:
        (folder / "log").write_bytes(content)
        with open(folder / "log") as log, Command("ask", "Hi", env=env, stdin=log) as command:
            assert command.wait() == code
    assert upstream.requests[0].body["messages"][0]["content"] == "Hi\n\na log é"


def test_standard_input_that_cannot_be_read_is_none(play: Play, folder: Path) -> None:
    upstream = play(recorded("plain"))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    with open(os.devnull, "w") as unreadable, Command("ask", "Hi", env=env, stdin=unreadable) as command:
        assert command.wait() == 0
    closing = (
        "-c",
        "import os, sys; os.close(0); os.execv(sys.executable, [sys.executable, '-m', 'rawsse', 'ask', 'Hi'])",
    )
    with Command(program=closing, env=env) as command:
        assert command.wait() == 0
    assert [request.body["messages"][0]["content"] for request in upstream.requests] == ["Hi", "Hi"]


def test_model_and_system_prompt_have_short_options(play: Play) -> None:
    upstream = play(recorded("plain"))
    assert main(["ask", "-m", "claude-test", "-s", "Be brief.", "Hi"]) == 0
    assert main(["check", "-m", "claude-test", upstream.base_url]) == 0
    assert [request.body["model"] for request in upstream.requests] == ["claude-test", "claude-test"]
    assert upstream.requests[0].body["system"] == "Be brief."


def test_the_system_prompt_may_come_from_a_file(play: Play, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upstream = play(recorded("plain"))
    (folder / "brief.txt").write_text("Be brief. é", encoding="utf-8")
    assert main(["ask", "-s", "@brief.txt", "Hi"]) == 0
    assert upstream.requests[0].body["system"] == "Be brief. é"
    capsys.readouterr()
    assert main(["ask", "-s", "@gone.txt", "Hi"]) == 1
    assert capsys.readouterr().err == "rawsse: gone.txt: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "prompt"), [([], "from a pipe"), (["-"], "from a pipe"), (["Sum up:", "-"], "Sum up: from a pipe")]
)
def test_the_prompt_may_come_from_stdin(
    words: list[str], prompt: str, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = play(recorded("plain"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe"))
    assert main(["ask", *words]) == 0
    assert server.requests[0].body["messages"][0]["content"] == prompt


def test_json_prints_the_whole_message(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(recorded("plain"))
    assert main(["ask", "--json", "Hello"]) == 0
    assert json.loads(capsys.readouterr().out) == PLAIN


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_is_wrong_usage(prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", prompt]) == 2
    assert capsys.readouterr().err == "rawsse: the prompt is empty\n"


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_prompt_that_is_no_text_is_refused_in_words(
    errors: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), "utf-8", errors))
    assert main(["ask"]) == 2
    assert capsys.readouterr().err == "rawsse: the prompt is not UTF-8 text\n"


@pytest.mark.parametrize("command", ["ask", "chat", "serve"])
def test_without_a_key_it_says_where_to_put_one(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert main([command]) == 2
    assert capsys.readouterr().err == (
        "rawsse: no key: set ANTHROPIC_API_KEY in the environment, or in a file named .env in this folder "
        "(`rawsse demo` needs no key)\n"
    )


KEY_REFUSED = "the API does not accept the key: set ANTHROPIC_API_KEY to one that it does"
NO_MODEL = "there is no model 'nope': name another with --model"


@pytest.mark.parametrize(
    ("status", "kind", "message", "words"),
    [
        (401, "authentication_error", "invalid x-api-key", KEY_REFUSED),
        (404, "not_found_error", "model: nope", NO_MODEL),
    ],
)
def test_a_refusal_is_one_line_with_what_to_do_and_the_apis_words(
    status: int, kind: str, message: str, words: str, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    play(refused(status, kind, message))
    assert main(["ask", "--model", "nope", "Hello"]) == 1
    said = f"[{status} {kind}: {message}, request req_replay_000001]"
    assert capsys.readouterr() == ("", f"rawsse: {words} {said}\n")


def test_a_refusal_of_several_lines_is_one_line(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(refused(400, "invalid_request_error", "too\nmany"))
    assert main(["ask", "Hello"]) == 1
    assert capsys.readouterr().err == "rawsse: 400 invalid_request_error: too many [request req_replay_000001]\n"


def test_a_key_that_the_other_side_repeats_is_not_shown(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(refused(401, "authentication_error", f"not valid: {KEY}"))
    assert main(["ask", "Hello"]) == 1
    assert "not valid: [x-api-key]" in capsys.readouterr().err


# Each form in one of the two kinds, or in both.
@pytest.mark.parametrize(
    ("form", "kind"),
    [
        pytest.param(form, kind, id=f"{kind}-{name}")
        for number, (name, form) in enumerate(FORMS.items())
        for kind in ["application/json", "text/html"][number % one_in(2) :: one_in(2)]
    ],
)
def test_nor_is_it_in_any_other_form(
    form: Callable[[str], str], kind: str, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"not valid: {form(KEY)}"
    body = json.dumps({"error": {"message": said}}) if kind == "application/json" else f"<title>{said}</title>"
    play(Recording(status=401, headers={"content-type": kind}, reads=(Read(0.0, body.encode()),)))
    assert main(["ask", "Hello"]) == 1
    told = "".join(capsys.readouterr())
    assert "[x-api-key]" in told
    assert KEY not in told
    assert form(KEY) not in told


def test_overload_says_how_often_it_was_tried(background: Background, capsys: pytest.CaptureFixture[str]) -> None:
    server = background.enter(FaultServer())
    body = json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).encode()
    server.play([plain(body, "529 Overloaded", retry_after_ms="1")])
    assert main(["ask", "--json", "--base-url", server.base_url, "Hello"]) == 1
    words = "529 overloaded_error: Overloaded (3 attempts): try again later"
    assert capsys.readouterr() == ("", f"rawsse: {words}\n")
    assert len(server.requests) == 3


def test_a_rate_limit_says_when_to_come_back(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(refused(429, "rate_limit_error", "Slow down", retry_after="90"))
    assert main(["ask", "Hello"]) == 1
    assert capsys.readouterr().err.endswith(": try again in 90 s [request req_replay_000001]\n")


def test_a_proxy_that_refuses_is_named_without_its_password(
    background: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    proxy = background.enter(serving(refuse))
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret-word@{proxy.authority}")
    assert main(["ask", "--base-url", "https://api.example", "Hello"]) == 1
    complaint = capsys.readouterr().err
    who = f"the proxy {proxy} (from HTTPS_PROXY)"
    assert complaint.startswith(f"rawsse: {who}, asked to connect to api.example:443, answered 403: ")
    assert (complaint.count("\n"), "secret-word" in complaint) == (1, False)


def test_a_certificate_that_is_not_trusted_says_how_it_could_be(
    background: Background, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = background.enter(serving(shout, tls=True))
    assert main(["ask", "--base-url", str(origin), "Hello"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"rawsse: cannot connect to {origin}: its certificate is not trusted: self-signed")
    assert (complaint.count("\n"), "SSL_CERT_FILE" in complaint) == (1, True)


def test_no_network_is_told_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawsse.cli.ask.new_client", partial(new_client, retry_policy=RetryPolicy(first_delay=0)))
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"
        assert main(["ask", "--base-url", url, "Hello"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"rawsse: cannot connect to {url}")
    assert complaint.count("\n") == 1


def test_a_base_url_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "--base-url", "api.example.org", "Hello"]) == 2
    assert "the base URL must begin with http:// or https://" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cut", "error-after-content"])
def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(
    name: str, play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    play(recorded(name))
    assert main(["ask", "Hello"]) == 1
    out, err = capsys.readouterr()
    assert out == json.loads((ROOT / f"fixtures/{name}.json").read_text())["message"]["content"][0]["text"] + "\n"
    assert err.startswith("rawsse: the answer is incomplete: ")


def test_an_answer_without_text_prints_nothing(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(recorded("empty-tool-input"))
    assert main(["ask", "Hello"]) == 0
    assert capsys.readouterr().out == ""


def test_an_answer_that_ends_its_line_gets_no_empty_one(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(Recording.from_sse(recorded("plain").body.replace(b"they came.", b"they came.\\n")))
    assert main(["ask", "Hello"]) == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_a_broken_answer_gives_no_json(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(recorded("cut"))
    assert main(["ask", "--json", "Hello"]) == 1
    assert capsys.readouterr().out == ""


def test_characters_that_the_terminal_has_not_are_replaced(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play(recorded("unicode"))
    screen = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["ask", "Hello"]) == 0
    screen.seek(0)
    assert "?" in screen.read()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


ESCAPE = Recording.from_sse(recorded("plain").body.replace(b"A server-sent", b"A \\u001b[2Jserver\\u009b-sent"))


@pytest.mark.parametrize(("screen", "shown"), [(Terminal(), "A \ufffd[2Jserver\ufffd-"), (io.StringIO(), "A \x1b[2J")])
def test_an_answer_cannot_command_the_terminal(
    screen: io.StringIO, shown: str, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(ESCAPE)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["ask", "Hello"]) == 0
    assert screen.getvalue().startswith(shown)


def test_a_refusal_cannot_command_the_terminal(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(refused(400, "invalid_request_error", "\x1b[2J"))
    assert main(["ask", "Hello"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_ctrl_c_stops_the_answer_upstream_too(background: Background) -> None:
    gate = background.gate(free=1)
    upstream = background.enter(Server(Player(recorded("plain"), sleep=gate.sleep), port=0))
    with Command("ask", "--base-url", upstream.base_url, "Hello", env={"ANTHROPIC_API_KEY": KEY}) as command:
        assert command.read(100).startswith("A server-sent event")
        assert command.stop(signal.SIGINT) == 130
        assert gate.left.wait(5)
        assert (command.line(), command.complaint()) == ("\n", "")


def test_when_its_reader_leaves_it_stops_without_a_word(background: Background) -> None:
    gate = background.gate(free=1)
    upstream = background.enter(Server(Player(recorded("plain"), sleep=gate.sleep), port=0))
    with Command("ask", "--base-url", upstream.base_url, "Hello", env={"ANTHROPIC_API_KEY": KEY}) as command:
        command.read(100)
        command.close_output()
        gate.let(1)
        assert (command.wait(), gate.left.wait(5), command.complaint()) == (1, True, "")


@pytest.mark.parametrize("number", ["0", "-5", "many"])
def test_an_answer_has_room_for_a_token_at_least(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["ask", "hi", "--max-tokens", number])
    assert left.value.code == 2
    assert "--max-tokens" in capsys.readouterr().err
