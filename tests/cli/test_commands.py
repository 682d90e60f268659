"""The command line: what is printed where, the exit codes, and that every failure is one line in words."""

from __future__ import annotations

import asyncio
import errno
import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from support.background import Background
from support.command import ROOT, STRICT, WITHOUT_UVLOOP, Command

from rawsse.cli import main, servers
from rawsse.cli.options import new_client
from rawsse.client.retry import RetryPolicy
from rawsse.replay import Player, Read, Recording, shipped_fixtures
from rawsse.replay.check import RULES
from rawsse.replay.variants import REWRITES
from rawsse.server import Server

from .conftest import KEY, Play

COMMANDS = ["demo", "serve", "usage", "ask", "chat", "record", "replay", "check", "explain", "doctor", "conform"]
PLAIN = json.loads((ROOT / "fixtures/plain.json").read_text())["message"]
TEXT = PLAIN["content"][0]["text"]


@pytest.fixture
def taken_port() -> Iterator[str]:
    """A port on which no command can listen: one that should have been refused ends all the same."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield str(other.getsockname()[1])


def recorded(name: str) -> Recording:
    return shipped_fixtures()[name]


# --- Help and usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: rawsse {command}")


def test_the_help_names_every_command_and_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    words = capsys.readouterr().out
    assert (left.value.code, "To begin: `rawsse demo`" in words) == (0, True)
    assert [line.split()[0] for line in words.splitlines() if line.startswith("    ")] == COMMANDS


def test_without_a_command_there_is_help_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: rawsse")


@pytest.mark.parametrize("arguments", [["sing"], ["ask", "--colour"], ["check"], ["demo", "--port", "x"]])
def test_what_nobody_can_mean_is_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "--colour", "Hi"], "unrecognized arguments: --colour"),
        (["check", "a.sse", "--html"], "unrecognized arguments: --html"),
        (["replay"], "the following arguments are required: PATH"),
        (["serve", "--port", "x"], "argument --port: invalid int value: 'x'"),
        (["ask", "--max-tokens", "x"], "argument --max-tokens: must be a whole number, 1 or more, not 'x'"),
        (["chat", "--max-tokens", "0"], "argument --max-tokens: must be a whole number, 1 or more, not '0'"),
        (["serve", "--grace", "-1"], "argument --grace: must be a number of seconds, 0 or more, not '-1'"),
        (
            ["serve", "--resume-grace", "nan"],
            "argument --resume-grace: must be a number of seconds, 0 or more, not 'nan'",
        ),
        (["serve", "--resume-grace", "x"], "argument --resume-grace: must be a number of seconds, 0 or more, not 'x'"),
        (["demo", "more"], "unrecognized arguments: more"),
    ],
)
def test_a_wrong_usage_shows_the_usage_of_its_command(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"usage: rawsse {arguments[0]} ")
    assert complaint.endswith(f"\nrawsse {arguments[0]}: error: {words}\n")


def test_the_version_is_that_of_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2.3 of {name}")
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, "rawsse 1.2.3 of rawsse\n")


# --- Standard output that takes nothing ---------------------------------------------------------------------------------

FIXTURE = str(ROOT / "fixtures/plain.sse.jsonl")
SPEAKING = [["ask", "Hi"], ["chat"], ["check", FIXTURE], ["explain", FIXTURE], ["check", "--rules"], ["--version"]]
CLOSED = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}


def redirected(redirection: str, *arguments: str) -> Command:
    """A command as a shell starts it."""
    start = ("-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "rawsse")
    return Command(*arguments, program=start, executable=shutil.which("sh"), env=CLOSED)


@pytest.mark.parametrize("arguments", [["ask", "Hi"], *SPEAKING[2:]], ids=lambda arguments: arguments[0])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_is_full_is_told_in_words(arguments: list[str], play: Play) -> None:
    env = {**CLOSED, "ANTHROPIC_BASE_URL": play("plain").base_url}
    with open("/dev/full", "wb") as full, Command(*arguments, stdout=full, env=env) as command:
        assert (command.wait(), command.complaint()) == (1, "rawsse: No space left on device\n")


def test_output_that_the_shell_has_closed_is_told_in_words() -> None:
    with redirected(">&-", "ask", "Hi") as command:
        assert (command.wait(), command.complaint()) == (1, "rawsse: standard output is closed\n")


@pytest.mark.parametrize("arguments", SPEAKING, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")], ids=len)
def test_every_command_fails_where_python_has_no_output(
    arguments: list[str], streams: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stream in streams:
        monkeypatch.setattr(sys, stream, None)  # as Python has it where the shell has closed it
    assert main(arguments) == 1
    assert capsys.readouterr() == ("", "" if "stderr" in streams else "rawsse: standard output is closed\n")


def test_standard_input_that_is_closed_is_told_in_words() -> None:
    with redirected("<&-", "check", "-") as command:
        assert (command.wait(), command.complaint()) == (1, "rawsse: standard input is closed\n")


def test_a_server_needs_no_output(
    taken_port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with redirected(">&- 2>&-", "replay", FIXTURE, "--port", taken_port) as command:
        assert (command.wait(), command.complaint()) == (1, "")
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["replay", FIXTURE, "--port", taken_port]) == 1
    assert "address already in use" in capsys.readouterr().err.lower()


# --- Bugs of ours -----------------------------------------------------------------------------------------------------


BUG = "import sys, rawsse.cli as cli; cli.load_env_file = lambda _: 1 / 0; sys.exit(cli.main(['ask', 'Hello']))"


def test_a_bug_of_ours_is_one_line_that_says_so() -> None:
    with Command(program=("-c", BUG), env={"PYTHONDEVMODE": ""}) as command:
        assert command.wait() == 1
        assert command.complaint() == (
            "rawsse: ZeroDivisionError: division by zero. This is a bug in rawsse; `python -X dev -m rawsse …` shows where\n"
        )


def test_in_development_mode_a_bug_of_ours_shows_where() -> None:
    with Command(program=("-c", BUG), flags=STRICT) as command:
        assert command.complaint().startswith("Traceback")


# --- serve -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--static", "nowhere"], "--static: nowhere is not a folder"),
        (["--host", "0.0.0.0"], "refusing to listen on 0.0.0.0 without a token"),
        (["--host", "0.0.0.0", "--token", ""], "a token must be printable ASCII without spaces, and not empty"),
        (["--token", ""], "a token must be printable ASCII without spaces, and not empty"),
        (["--token", "two words"], "a token must be printable ASCII without spaces, and not empty"),
        (["--port", "65536"], "cannot listen on host 127.0.0.1, port 65536: port must be 0-65535"),
        (["--base-url", "ftp://example.org"], "the base URL must begin with http:// or https://"),
    ],
)
def test_serve_refuses_what_cannot_work(
    arguments: list[str], words: str, taken_port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", taken_port, *arguments]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"rawsse: {words}")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize("arguments", [["serve"], ["demo"], ["replay", str(ROOT / "fixtures")]])
def test_a_port_that_is_taken_is_told_in_one_line(
    arguments: list[str], taken_port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--port", taken_port]) == 1
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.lower() == f"rawsse: cannot listen on host 127.0.0.1, port {taken_port}: address already in use"


def test_serve_takes_key_and_address_from_dot_env_and_serves_your_own_page(folder: Path, play: Play) -> None:
    upstream = play(recorded("plain"))
    (folder / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\nANTHROPIC_BASE_URL={upstream.base_url}\n")
    (folder / "index.html").write_text("mine")
    with Command("serve", "--port", "0", "--static", ".", cwd=folder) as command:
        assert ask_relay(command.base_url) == TEXT
        assert urlopen(command.base_url).read() == b"mine"
        assert command.stop(signal.SIGTERM) == 0
        assert KEY not in command.complaint()


OPTIONS = ["--model", "m", "--max-tokens", "7", "--token", "t", "--allow-host", "relay.example"]
HEADERS = {"host": "relay.example", "origin": "https://page.example", "authorization": "Bearer t"}


def test_serve_gives_its_options_to_the_relay(play: Play) -> None:
    upstream = play(recorded("plain"))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    with Command("serve", "--port", "0", *OPTIONS, "--allow-origin", "https://page.example", env=env) as command:
        assert ask_relay(command.base_url, **HEADERS) == TEXT
        others = [
            ("host", "other.example", 421),
            ("origin", "http://other.example", 403),
            ("authorization", "other", 401),
        ]
        for header, value, status in others:
            with pytest.raises(HTTPError) as caught:
                ask_relay(command.base_url, **{**HEADERS, header: value})
            assert caught.value.code == status
            caught.value.close()
    assert (upstream.requests[0].body["model"], upstream.requests[0].body["max_tokens"]) == ("m", 7)


def test_serve_takes_the_models_that_it_allows(play: Play) -> None:
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": play(recorded("plain")).base_url}
    options = ["--model", "m", "--allow-model", "n", "--allow-model", "o"]
    with Command("serve", "--port", "0", *options, env=env) as command:
        with urlopen(f"{command.base_url}/v1/models") as response:
            assert [model["id"] for model in json.load(response)["data"]] == ["m", "n", "o"]
        body = json.dumps({"message": "Hello", "model": "p"}).encode()
        other = Request(f"{command.base_url}/chat/stream", body, {"content-type": "application/json"})
        with pytest.raises(HTTPError, match="400") as caught, urlopen(other):
            pass
        caught.value.close()


def test_the_log_says_when_which_model_how_many_tokens_and_how_long(play: Play) -> None:
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": play(recorded("plain")).base_url}
    usage = PLAIN["usage"]
    with Command("serve", "--port", "0", env=env) as command:
        assert ask_relay(command.base_url) == TEXT
        body = json.dumps({"max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}).encode()
        with urlopen(
            Request(f"{command.base_url}/v1/messages", body, {"content-type": "application/json"})
        ) as response:
            assert json.load(response)["content"][0]["text"] == TEXT
        command.stop()
        lines = command.complaint().splitlines()
    numbers = rf"{usage['input_tokens']} tokens in, {usage['output_tokens']} out, \d+\.\d s"
    for line, name in zip(lines, [r"run \S+ \(text\)", r"run \S+ \(messages\)"], strict=True):
        words = rf"{name} ended: complete, the answer is whole, model {PLAIN['model']}, {numbers}, request \S+"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d " + words, line)


def test_the_token_may_come_from_the_environment() -> None:
    env = {"ANTHROPIC_API_KEY": KEY, "RAWSSE_TOKEN": "t"}
    with Command("serve", "--port", "0", env=env) as command:
        with pytest.raises(HTTPError, match="401") as caught:
            ask_relay(command.base_url)
        caught.value.close()


def test_a_body_that_is_too_large_is_refused_naming_it() -> None:
    with Command("serve", "--port", "0", env={"ANTHROPIC_API_KEY": KEY}) as command:
        large = Request(f"{command.base_url}/stream", b" " * (33 * 1024 * 1024), {"content-type": "application/json"})
        with pytest.raises(HTTPError) as caught, urlopen(large, timeout=20):
            pass
        with caught.value as refusal:
            assert (refusal.code, b'"field":"body"' in refusal.read()) == (413, True)


def test_at_sigterm_an_open_stream_gets_its_last_word(background: Background) -> None:
    gate = background.gate(free=1)
    upstream = background.enter(Server(Player(recorded("plain"), sleep=gate.sleep), port=0))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    with Command("serve", "--port", "0", env=env) as command, urlopen(request(command.base_url)) as response:
        response.readline()
        assert command.stop(signal.SIGTERM) == 0
        assert b'"the server is shutting down"' in response.read()
    assert gate.left.wait(5)


def ask_relay(base_url: str, message: str = "Hello", **headers: str) -> str:
    """The text of an answer by way of the text dialect."""
    with urlopen(request(base_url, message, **headers)) as response:
        lines = response.read().decode().splitlines()
    frames = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "data: [DONE]" in lines
    return "".join(frame["text"] for frame in frames)


def request(base_url: str, message: str = "Hello", **headers: str) -> Request:
    body = json.dumps({"message": message}).encode()
    return Request(f"{base_url}/chat/stream", body, {"content-type": "application/json", **headers})


# --- demo and replay -------------------------------------------------------------------------------------------------


def test_demo_needs_no_key_and_a_word_picks_the_recording() -> None:
    with Command("demo", "--port", "0", "--speed", "0") as command:
        assert ask_relay(command.base_url) == TEXT
        assert ask_relay(command.base_url, "Show me unicode") != TEXT
        assert b"<title>rawsse</title>" in urlopen(command.base_url).read()
        assert command.stop(signal.SIGINT) == 0
        assert command.complaint().startswith("Recorded answers, no model. A word in your message picks one: unicode,")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere this machine has only one address of its own")
def test_demo_goes_by_the_address_that_it_listens_on() -> None:
    with Command("demo", "--host", "127.0.0.2", "--port", "0", "--speed", "0") as command:
        assert ask_relay(command.base_url) == TEXT


def test_replay_is_a_messages_api_made_of_recordings(capsys: pytest.CaptureFixture[str]) -> None:
    with Command("replay", ROOT / "fixtures/plain.sse.jsonl", "--port", "0", "--speed", "0", "--split", "7") as command:
        assert main(["ask", "--base-url", command.base_url, "Hello"]) == 0
        assert command.stop(signal.SIGTERM) == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_replay_finds_the_recording_that_was_asked_for_and_says_what_it_has_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Command("replay", ROOT / "fixtures", "--port", "0", "--speed", "0", "--match", "request") as command:
        asked = ["ask", "--base-url", command.base_url, "--model", "claude-sonnet-5", "--max-tokens", "1024"]
        assert main([*asked, "Good night!"]) == 1
        assert command.stop(signal.SIGTERM) == 0
        logged = command.complaint()
    words = 'recorded "Good morning!", asked "Good night!"'
    assert words in capsys.readouterr().err
    assert words in logged


def test_replay_plays_a_shipped_recording_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with Command("replay", "plain", "--port", "0", "--speed", "0") as command:
        assert main(["ask", "--base-url", command.base_url, "Hello"]) == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_the_help_of_replay_gives_the_time_to_the_first_token_of_a_pace_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["replay", "--help"])
    assert "ttft is 0.5 if not given" in " ".join(capsys.readouterr().out.split())


def test_the_help_of_replay_names_every_rewrite(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["replay", "--help"])
    said = "".join(capsys.readouterr().out.split())  # a line may end inside a name
    assert f"(comma-separated):{','.join(REWRITES)}--fault" in said


def test_replay_plays_what_the_base_url_names(capsys: pytest.CaptureFixture[str]) -> None:
    with Command("replay", ROOT / "fixtures", "--port", "0", "--match", "name", "--speed", "0") as command:
        assert main(["ask", "--base-url", f"{command.base_url}/plain", "Hello"]) == 0
    assert capsys.readouterr().out == TEXT + "\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["replay", "gone.sse"], 1, "gone.sse: No such file or directory"),
        (
            ["replay", "plian"],
            1,
            "plian: No such file or directory, and none of that name comes with rawsse (citations, ",
        ),
        (["replay", "."], 1, ".: no recording in this folder (looked for *.sse.jsonl, *.sse)"),
        (["demo", "--speed", "-1"], 2, "speed must be 0 (no waiting) or more, not -1.0"),
        (["replay", str(ROOT / "fixtures"), "--speed", "-1"], 2, "speed must be 0 (no waiting) or more, not -1.0"),
        (
            ["replay", str(ROOT / "fixtures"), "--match", "first"],
            2,
            "match must be a function, or one of turns, sequence, request, name",
        ),
        (
            ["replay", str(ROOT / "fixtures"), "--split", "half"],
            2,
            "split must be a size, a function, or one of whole, event, bytes",
        ),
        (
            ["replay", str(ROOT / "fixtures"), "--segment-pause", "5"],
            2,
            "a silence between segments needs segments: say how to cut them",
        ),
        (
            ["replay", str(ROOT / "fixtures"), "--fault", "rest@event=1"],
            2,
            "unknown fault 'rest'; there are reset,",
        ),
        (
            ["replay", str(ROOT / "fixtures"), "--speed", "0", "--pace", "tps=5"],
            2,
            "--pace has no effect with --speed 0",
        ),
    ],
)
def test_demo_and_replay_refuse_what_cannot_work(
    arguments: list[str], code: int, words: str, taken_port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--port", taken_port]) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"rawsse: {words}")


def test_replay_does_faults_that_a_client_gets_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rawsse.cli.ask.new_client", partial(new_client, retry_policy=RetryPolicy(first_delay=0)))
    faults = ["--fault", "status=529,retry-after=0.001 x1", "--fault", "reset@event=0 x1 after=1"]
    with Command("replay", ROOT / "fixtures/plain.sse.jsonl", "--port", "0", "--speed", "0", *faults) as command:
        assert main(["ask", "--base-url", command.base_url, "Hello"]) == 0
    assert capsys.readouterr().out == TEXT + "\n"


def test_replay_cuts_what_it_sends_and_a_client_in_another_process_reads_each_piece() -> None:
    file = ROOT / "fixtures/plain.sse.jsonl"
    cut = ["--segments", "whole", "--split", "event"], ["--segments", "2000", "--segment-pause", "60000"]
    heads = []
    for options in cut:
        with Command("replay", file, "--port", "0", "--speed", "0", *options) as command:
            body = json.dumps({"model": "m", "max_tokens": 1, "messages": [], "stream": True}).encode()
            host, port = command.base_url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(
                    b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
                )
                heads.append(len(connection.recv(100_000)))
    assert heads[0] > 2000
    assert heads[1] == 2000


def test_replay_lists_its_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["replay", "--list-faults"])
    out = capsys.readouterr().out
    assert out.startswith("@PLACE\n    byte=N, or event=N: before event N, or that event; ")
    assert "stall[=SECONDS]@PLACE\n    silence, at any speed; without SECONDS, forever\n" in out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "explain",
            "follow event N, counted from 1 as by `rawsse check`: read, HTTP chunk (rebuilt, one for each read",
        ),
        ("replay", "PLACE is head, head=N, byte=N or event=N, from 0, or from the end if negative"),
    ],
)
def test_help_says_where_events_are_counted_from(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert words in " ".join(capsys.readouterr().out.split())


# --- record ----------------------------------------------------------------------------------------------------------


def test_servers_run_on_uvloop_where_it_is_installed() -> None:
    uvloop = pytest.importorskip("uvloop", reason="another event loop: the extra `speed`")
    assert loop_of_a_server() is uvloop.Loop


def test_without_uvloop_servers_run_on_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_of_a_server() is asyncio.SelectorEventLoop


def loop_of_a_server() -> type[asyncio.AbstractEventLoop]:
    found: list[type[asyncio.AbstractEventLoop]] = []

    async def server() -> None:
        found.append(type(asyncio.get_running_loop()))

    servers._run(server())
    return found[0]


def test_serve_replay_and_record_do_the_same_without_uvloop(folder: Path) -> None:
    recorded("plain").save(folder / "plain.sse.jsonl")
    env = {"ANTHROPIC_API_KEY": KEY}
    with (
        Command("replay", "plain.sse.jsonl", "--speed", "0", "--port", "0", cwd=folder, program=WITHOUT_UVLOOP) as api,
        Command("record", "--port", "0", "--base-url", api.base_url, "--out", folder, program=WITHOUT_UVLOOP) as proxy,
        Command("serve", "--port", "0", "--base-url", proxy.base_url, env=env, program=WITHOUT_UVLOOP) as relay,
    ):
        assert ask_relay(relay.base_url) == TEXT
        assert [command.stop() for command in (relay, proxy, api)] == [0, 0, 0]
        assert "status 200, complete (clean)" in proxy.complaint()


def test_what_was_recorded_can_be_replayed(play: Play, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upstream = play(recorded("plain"))
    with Command("record", "--out", folder / "kept", "--port", "0", "--base-url", upstream.base_url) as command:
        assert main(["ask", "--base-url", command.base_url, "Hello"]) == 0
        assert command.stop(signal.SIGTERM) == 0
        logged = command.complaint()
    (file,) = (folder / "kept").iterdir()
    assert file.name == "0001-claude-sonnet-5-complete.sse.jsonl"
    assert re.search(rf"{file.name}: status 200, complete \(clean\), \d+ reads, ", logged)
    assert Recording.load(file).body == recorded("plain").body
    with Command("replay", file, "--port", "0", "--speed", "0") as command:
        assert main(["ask", "--base-url", command.base_url, "Hello"]) == 0
    assert capsys.readouterr().out == f"{TEXT}\n{TEXT}\n"


def test_record_hides_what_a_pattern_of_the_caller_s_finds(play: Play, folder: Path) -> None:
    upstream = play(Recording.from_sse(recorded("plain").body.replace(b'"model":"claude', b'"model":"EMP-1234 claude')))
    options = ("--out", folder / "kept", "--port", "0", "--base-url", upstream.base_url, "--scrub", r"EMP-(\d+)")
    with Command("record", *options) as command:
        assert main(["ask", "--base-url", command.base_url, "Hello"]) == 0
        assert command.stop(signal.SIGTERM) == 0
    kept = "".join(path.read_text() for path in (folder / "kept").iterdir())
    assert ("EMP-****" in kept, "1234" in kept) == (True, False)


def test_record_may_keep_only_what_failed(play: Play, folder: Path) -> None:
    upstream = play(recorded("plain"), recorded("cut"))
    arguments: list[str | Path] = [
        "--out",
        folder / "kept",
        "--only-failed",
        "--port",
        "0",
        "--base-url",
        upstream.base_url,
    ]
    with Command("record", *arguments) as command:
        assert [main(["ask", "--base-url", command.base_url, "Hello"]) for _ in range(2)] == [0, 1]
        assert command.stop(signal.SIGTERM) == 0
    assert [file.name for file in (folder / "kept").iterdir()] == ["0001-failed-claude-sonnet-5-truncated.sse.jsonl"]


def test_record_says_and_its_exit_code_that_something_is_missing(play: Play, folder: Path) -> None:
    upstream = play(recorded("plain"))
    with Command("record", "--out", folder / "kept", "--port", "0", "--base-url", upstream.base_url) as command:
        assert command.base_url
        (folder / "kept").rmdir()
        assert main(["ask", "--base-url", command.base_url, "Hello"]) == 0
        assert command.stop(signal.SIGTERM) == 1
        assert "an answer is not recorded: " in command.complaint()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--out", "file"], 1, "file cannot hold recordings: File exists"),
        (["--out", "kept", "--base-url", "ftp://api"], 2, "the base URL must begin with http:// or https://"),
        (["--out", "kept"], 1, "cannot listen on host 127.0.0.1, port"),
    ],
)
def test_record_refuses_what_cannot_work(
    arguments: list[str], code: int, words: str, taken_port: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    assert main(["record", *arguments, "--port", taken_port]) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"rawsse: {words}")


def test_record_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["record"])
    assert "the following arguments are required: --out" in capsys.readouterr().err


def test_serve_keeps_what_failed_upstream(play: Play, folder: Path) -> None:
    upstream = play(recorded("plain"), recorded("cut"))
    given: list[str | Path] = ["--port", "0", "--base-url", upstream.base_url, "--flight-recorder", folder / "kept"]
    with Command("serve", *given, env={"ANTHROPIC_API_KEY": KEY}, cwd=folder) as command:
        for _ in range(2):
            body = json.dumps({"message": "Hello"}).encode()
            urlopen(Request(f"{command.base_url}/stream", body, {"content-type": "application/json"})).read()
        assert command.stop(signal.SIGTERM) == 0
    (file,) = (folder / "kept").iterdir()
    assert file.name == "0001-failed-claude-sonnet-5-truncated.sse.jsonl"
    assert Recording.load(file).body == recorded("cut").body


# --- check and explain -----------------------------------------------------------------------------------------------


def test_check_says_ok_to_a_correct_stream(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ROOT / "fixtures/plain.sse.jsonl")
    assert main(["check", path]) == 0
    assert capsys.readouterr().out == f"{path}: ok\n"


def test_check_names_each_broken_rule_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(ROOT / "fixtures/cut.sse.jsonl")]) == 1
    *findings, last = capsys.readouterr().out.splitlines()
    assert last.endswith("cut.sse.jsonl: 2 broken rules")
    assert sum("cut.sse.jsonl: error at byte " in finding for finding in findings) == 2


@pytest.mark.parametrize("command", ["check", "explain", "replay"])
def test_of_a_file_that_is_no_recording_no_key_is_shown(
    command: str, folder: Path, taken_port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"
    (folder / ".env").write_text(f"# keys\nANTHROPIC_API_KEY={key}\ndata: x\n")
    (folder / "a.sse.jsonl").write_text(
        f'{{"rawsse": 1, "request": null, "status": 200, "headers": {{}}}}\nKEY={key}\n'
    )
    port = ["--port", taken_port] if command == "replay" else []
    assert main([command, ".env", "a.sse.jsonl", *port]) == 1
    out, err = capsys.readouterr()
    assert ("sk-ant" in out + err, err.splitlines()[0]) == (
        False,
        "rawsse: .env: neither a recording nor an event stream",
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_key_that_a_stream_quotes_is_not_shown(
    options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sk-ant-api03-abcdefghijklmnopqrstuvwxyz"
    data = f'{{"type":"error","error":{{"type":"authentication_error","message":"bad {key}"}}}}'
    (folder / "a.sse").write_text(f"event: error\ndata: {data}\n\n")
    main(["check", "a.sse", *options])
    out, err = capsys.readouterr()
    assert "authentication_error" in out
    assert "abcdefghij" not in out + err


def test_one_broken_rule_is_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.sse").write_bytes(b": nothing came\n\n")
    assert main(["check", "a.sse"]) == 1
    finding, last = capsys.readouterr().out.splitlines()
    assert finding.startswith("a.sse: error at byte 16, event 0: stream-end: ")
    assert last == "a.sse: 1 broken rule"


def test_check_in_json_is_a_line_for_each_finding_and_each_stream(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.sse").write_bytes(b": nothing came\n\n")
    assert main(["check", "--json", "a.sse"]) == 1
    finding, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert finding == {
        "stream": "a.sse",
        "severity": "error",
        "rule": "stream-end",
        "byte": 16,
        "event": 0,
        "text": "the stream ends before message_start: message_stop is missing",
    }
    assert whole == {"stream": "a.sse", "errors": 1, "warnings": 0, "notes": 0}


def test_check_shows_what_is_wrong_with_standard_input_before_its_end() -> None:
    read_end, write_end = os.pipe()
    with Command("check", "-", stdin=read_end) as command:
        os.close(read_end)
        os.write(write_end, b"evnt: x\n")
        assert command.line() == "-: warning at byte 0, event 1: sse-field: there is no field 'evnt'\n"
        os.close(write_end)
        assert command.line().startswith("-: error at byte 8, event 1: stream-end: ")
        assert (command.line(), command.wait()) == ("-: 1 broken rule\n", 1)


def test_check_asks_an_api_by_its_url(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    server = play(recorded("plain"), recorded("cut"))
    assert main(["check", server.base_url + "/v1/messages", "--prompt", "Hello"]) == 0
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "Hello"}]
    assert main(["check", server.base_url]) == 1
    good, *findings, bad = capsys.readouterr().out.splitlines()
    assert (good, bad) == (f"{server.base_url}/v1/messages: ok", f"{server.base_url}: 2 broken rules")
    assert sum("http-end: the exchange ended with 'cut'" in finding for finding in findings) == 1


def test_check_of_an_api_that_refuses_says_why(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    body = b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
    server = play(Recording(status=529, headers={"content-type": "application/json"}, reads=(Read(0.0, body),)))
    assert main(["check", server.base_url]) == 1
    assert "Overloaded" in capsys.readouterr().err


def test_check_takes_json_for_what_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    headers = {"content-type": "application/json"}
    Recording(headers=headers, reads=(Read(0.0, b'{"input_tokens": 5}'),)).save(folder / "count.sse.jsonl")
    assert main(["check", "count.sse.jsonl"]) == 0
    note = "note at byte 0, event 0: http-type: the content type is 'application/json': this is not a stream, and not checked"
    assert capsys.readouterr().out == f"count.sse.jsonl: {note}\ncount.sse.jsonl: ok\n"


def test_check_reports_what_a_pattern_of_the_caller_s_finds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded("plain").save(folder / "plain.sse.jsonl")
    assert main(["check", "plain.sse.jsonl", "--scrub", "nobody says this", "--scrub", "message_(start)"]) == 1
    assert "error at byte 15, event 1: secret: match of your pattern 2 in the response body" in capsys.readouterr().out
    assert main(["check", "plain.sse.jsonl", "--scrub", "("]) == 2
    assert "'(' is not a regular expression" in capsys.readouterr().err


def test_check_lists_its_rules(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["check", "--rules"])
    assert left.value.code == 0
    assert capsys.readouterr().out.splitlines()[::2] == list(RULES)


@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_file_that_is_no_recording_is_named_with_its_line_and_the_others_are_looked_at(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.sse.jsonl").write_text('{"rawsse": 1, "status": 200, "headers": {}}\n{"t": 0, "dat')
    shutil.copy(ROOT / "fixtures/plain.sse.jsonl", folder / "b.sse.jsonl")
    assert main([command, "gone.sse", "."]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("rawsse: gone.sse: No such file or directory\nrawsse: a.sse.jsonl, line 2: invalid JSON")
    assert "b.sse.jsonl" in out


@pytest.mark.parametrize("command", ["check", "explain"])
def test_the_name_of_a_shipped_recording_stands_for_it(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del folder  # it is empty
    assert main([command, "plain", "plian"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith({"check": "plain: ok\n", "explain": "== plain\n"}[command])
    assert str(ROOT) not in out
    assert re.fullmatch(r"rawsse: plian: No such file or directory, and none of that name comes .*, plain, .*\n", err)


def test_a_recording_is_called_what_its_user_called_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "fixtures/plain.sse.jsonl", folder / "mine.sse.jsonl")
    assert main(["check", "--json", "plain", "mine.sse.jsonl", "."]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["stream"] for line in lines] == ["plain", "mine.sse.jsonl", "mine.sse.jsonl"]
    assert main(["explain", "--html", "page.html", "plain"]) == 0
    assert "<h1>plain</h1>" in (folder / "page.html").read_text("utf-8")


def test_explain_reads_a_recording_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explained(text: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return main(["explain", "-"])

    assert explained(recorded("plain").dump()) == 0
    assert capsys.readouterr().out.startswith("== standard input\n")
    assert explained("no recording") == 1
    assert "rawsse: standard input: neither a recording nor an event stream" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(shipped_fixtures()))
def test_explain_shows_every_fixture_to_its_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(ROOT / f"fixtures/{name}.sse.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert f"\nreads              {len(recorded(name).reads)}, " in shown
    assert "\nmessage  " in shown


@pytest.mark.parametrize(
    ("options", "no_color", "is_coloured"),
    [
        ([], "", False),
        (["--color", "always"], "", True),
        (["--color=always"], "1", True),
        (["--color=never"], "", False),
    ],
)
def test_explain_is_coloured_when_that_is_asked_for(
    options: list[str],
    no_color: str,
    is_coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    main(["explain", *options, str(ROOT / "fixtures/plain.sse.jsonl")])
    assert ("\x1b[" in capsys.readouterr().out) is is_coloured


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_explain_is_coloured_on_a_terminal_unless_its_user_wants_none(
    no_color: str, is_coloured: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", no_color)
    main(["explain", str(ROOT / "fixtures/plain.sse.jsonl")])
    assert ("\x1b[" in capsys.readouterr().out) is is_coloured


def test_explain_writes_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--html", "plain.html", str(ROOT / "fixtures/plain.sse.jsonl")]) == 0
    assert capsys.readouterr().out == "plain.html\n"
    assert (folder / "plain.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_explain_leaves_the_old_page_where_it_cannot_write_all_of_the_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_half(path: Path, text: str, *_: Any, **__: Any) -> None:
        path.write_bytes(text.encode()[:99])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    (folder / "plain.html").write_text("old")
    monkeypatch.setattr(Path, "write_text", write_half)
    assert main(["explain", "--html", "plain.html", str(ROOT / "fixtures/plain.sse.jsonl")]) == 1
    assert capsys.readouterr().err == "rawsse: plain.html: No space left on device\n"
    assert [file.read_bytes() for file in folder.iterdir()] == [b"old"]


def test_explain_writes_a_page_for_each_of_several_recordings(folder: Path) -> None:
    assert main(["explain", str(ROOT / "fixtures"), "--html", "pages"]) == 0
    assert {page.stem for page in (folder / "pages").iterdir()} == set(shipped_fixtures())


@pytest.mark.parametrize("paths", [["."], ["a/X.sse.jsonl", "b/x-2.sse", "b/x.sse", "c/x.sse.jsonl"]])
def test_explain_writes_a_page_for_each_of_several_recordings_of_the_same_name(paths: list[str], folder: Path) -> None:
    for path, name in (("a/X.sse.jsonl", "plain"), ("c/x.sse.jsonl", "cut")):
        (folder / path).parent.mkdir()
        shutil.copy(ROOT / f"fixtures/{name}.sse.jsonl", folder / path)
    (folder / "b").mkdir()
    for path in ("b/x-2.sse", "b/x.sse"):
        (folder / path).write_bytes(recorded("plain").body)
    for _ in range(2):  # the pages of an earlier run are replaced
        assert main(["explain", *paths, "--html", "pages"]) == 0
        pages = {page.name: page.read_text("utf-8") for page in (folder / "pages").iterdir()}
        assert sorted(pages) == ["X.html", "x-2.html", "x-3.html", "x-4.html"]
        assert "truncated" in pages["x-4.html"]


def test_explain_does_not_write_several_pages_into_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.html").write_text("mine")
    assert main(["explain", str(ROOT / "fixtures"), "--html", "a.html"]) == 1
    assert capsys.readouterr().err == "rawsse: a.html: File exists\n"
    assert (folder / "a.html").read_text() == "mine"


def test_explain_stops_without_a_word_when_its_reader_leaves() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with Command("explain", ROOT / "fixtures/plain.sse.jsonl", stdout=write_end) as command:
        os.close(write_end)
        assert (command.wait(), command.complaint()) == (1, "")
