"""rawsse.cli.servers: the log as lines of JSON, and what `serve` and `demo` take from arguments and the environment."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from support.background import PATIENCE, Background
from support.clock import ticks
from support.command import Command

from rawsse.cli import main
from rawsse.cli.servers import JSONFormatter
from rawsse.relay import Relay, RunLimits, UserFile
from rawsse.relay.record import RunRecord, RunStart
from rawsse.relay.store import MemoryStore
from rawsse.replay import Player, shipped_fixtures
from rawsse.server import ASGIApp, Forwarded, Server

from .conftest import KEY

ODD = 'ada\n{"a": 1}\u2028\r\x1b[31m ☺ \ud800'

Served = dict[str, Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """How the command's server was called, instead of calling it."""
    found: Served = {}

    async def serve(app: ASGIApp, host: str, port: int, **options: Any) -> None:
        found.update(app=app, host=host, port=port, **options)

    monkeypatch.setattr("rawsse.server.serve", serve)
    monkeypatch.setattr("rawsse.cli.servers._prepare", lambda log_format: None)
    return found


# --- The log


def format_line(message: str, *args: object, **options: Any) -> Any:
    """The line that the log has of this, read as JSON."""
    record = logging.LogRecord("rawsse.relay", logging.WARNING, "f.py", 1, message, args, options.get("exc_info"))
    record.created = 1_764_500_000.25
    vars(record).update(options)
    line = JSONFormatter().format(record)
    assert line.isascii()
    assert line.isprintable(), "more than one line, or an order to a terminal"
    return json.loads(line)


def test_a_line_of_json_has_the_time_the_level_the_logger_and_the_message() -> None:
    assert format_line("%s failed: %d", ODD, 7) == {
        "time": 1_764_500_000.25,
        "level": "WARNING",
        "logger": "rawsse.relay",
        "message": f"{ODD} failed: 7",
    }


def test_a_line_of_a_run_is_its_record() -> None:
    counts = dict.fromkeys(
        ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"), 7
    )
    fields = {"time": 1.5, "run": "r", "user": ODD, "dialect": "text", "model": ODD, "ending": "error", "seconds": 2.0}
    nothing = dict.fromkeys(("stop_reason", "first_token_seconds", "on_disconnect", "request_id"))
    expected: dict[str, Any] = {**fields, **counts, **nothing, "error": "api_error", "exact": True, "words": ODD}
    expected["estimated_tokens"] = 9
    assert format_line("run %s ended", "r", run=RunRecord(**expected)) == expected


def test_an_exception_is_one_field_of_its_line() -> None:
    try:
        raise ValueError(ODD)
    except ValueError:
        line = format_line("a reader failed", exc_info=sys.exc_info())
    assert line["message"] == "a reader failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith(f"ValueError: {ODD}")


def test_serve_logs_nothing_but_lines_of_json_when_asked(background: Background) -> None:
    upstream = background.enter(Server(Player(shipped_fixtures()["plain"], speed=0), port=0))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    with Command("serve", "--port", "0", "--log-format", "json", env=env) as command:
        ask(command.base_url)
        command.stop()
        complaint = command.complaint()
    lines = [json.loads(line) for line in complaint.splitlines()]
    assert [(line["dialect"], line["ending"], line["exact"]) for line in lines] == [("text", "complete", True)]
    assert lines[0]["time"] > 1_700_000_000
    assert KEY not in complaint


def test_demo_logs_nothing_but_lines_of_json_when_asked() -> None:
    with Command("demo", "--port", "0", "--speed", "0", "--log-format", "json") as command:
        ask(command.base_url)
        command.stop()
        lines = [json.loads(line) for line in command.complaint().splitlines()]
    assert lines[0]["message"].startswith("Recorded answers, no model.")


def test_another_form_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--log-format", "xml"])
    assert "argument --log-format: invalid choice: 'xml'" in capsys.readouterr().err


def ask(base_url: str) -> None:
    """Read an answer to its end."""
    with urlopen(Request(f"{base_url}/stream", b'{"message": "Hi"}', {"content-type": "application/json"})) as answer:
        assert answer.read().endswith(b"data: [DONE]\n\n")


# --- The address


@pytest.mark.parametrize("command", ["serve", "demo"])
@pytest.mark.parametrize(
    ("arguments", "environment", "address"),
    [
        ([], {}, ("127.0.0.1", 8000)),
        ([], {"RAWSSE_HOST": "::1", "PORT": "8080"}, ("::1", 8080)),
        ([], {"RAWSSE_HOST": "", "PORT": ""}, ("127.0.0.1", 8000)),
        ([], {"PORT": "0"}, ("127.0.0.1", 0)),
        (["--port", "0", "--host", "localhost"], {"RAWSSE_HOST": "::1", "PORT": "x"}, ("localhost", 0)),
    ],
)
def test_it_comes_from_the_arguments_or_else_from_the_environment(
    command: str,
    arguments: list[str],
    environment: dict[str, str],
    address: tuple[str, int],
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([command, *arguments]) == 0
    assert (served["host"], served["port"]) == address


@pytest.mark.parametrize("command", ["serve", "demo"])
@pytest.mark.parametrize("port", ["x", "-1", "80.5", "tcp://10.0.0.1:80", "٣", "123456", " "])
def test_a_port_in_the_environment_that_is_no_number_is_told_in_one_line(
    command: str, port: str, served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", port)
    assert main([command]) == 2
    words = f"rawsse: PORT in the environment must be a number from 0 to 65535, not {port!r}\n"
    assert (capsys.readouterr().err, served) == (words, {})


def test_a_host_in_the_environment_needs_a_token_as_any_other(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAWSSE_HOST", "0.0.0.0")
    assert main(["serve"]) == 2
    assert capsys.readouterr().err.startswith("rawsse: refusing to listen on 0.0.0.0 without a token")
    assert main(["serve", "--token", "t"]) == 0
    assert served["host"] == "0.0.0.0"


# --- Users and tokens


USERS = '[[user]]\nid = "ada"\ntoken = "of-ada"\n'


@pytest.fixture
def users(tmp_path: Path) -> str:
    (tmp_path / "users.toml").write_text(USERS)
    return str(tmp_path / "users.toml")


def status_of(app: ASGIApp, path: str, token: str) -> int:
    """The status of a GET with that token."""

    fields = [(b"host", b"localhost"), (b"x-api-key", token.encode())]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": fields}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("arguments", "is_known"), [([], True), (["--users"], False), (["--users", "--token", "more"], False)]
)
def test_the_token_of_the_environment_is_no_user_beside_a_file_of_users(
    arguments: list[str], users: str, served: Served, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    monkeypatch.setenv("RAWSSE_TOKEN", "of-the-environment")
    arguments = [
        part for argument in arguments for part in ([argument, users] if argument == "--users" else [argument])
    ]
    assert main(["serve", *arguments]) == 0
    assert status_of(served["app"], "/me", "of-the-environment") == (200 if is_known else 401)
    if "more" in arguments:
        assert status_of(served["app"], "/me", "more") == 200


def test_the_token_for_the_metrics_may_come_from_the_environment(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, argument, token in (("m3trics", [], "m3trics"), ("m3trics", ["--metrics-token", "other"], "other")):
        monkeypatch.setenv("RAWSSE_METRICS_TOKEN", variable)
        assert main(["serve", *argument]) == 0
        assert [status_of(served["app"], "/metrics", each) for each in (token, "wrong")] == [200, 401]
    monkeypatch.setenv("RAWSSE_METRICS_TOKEN", "")
    assert main(["serve"]) == 0
    assert status_of(served["app"], "/metrics", "wrong") == 200


def test_the_ledger_and_the_store_are_closed_when_the_server_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, relays, closed = RunStart(1.0, "run", "ada", "text", "m"), list[Relay](), list[str]()

    class ClosedStore(MemoryStore):
        async def aclose(self) -> None:
            closed.append("store")

    async def serve(app: Relay, *_: object, on_shutdown: Any, **__: object) -> None:
        assert app.ledger is not None
        app.ledger.begun(begun)
        relays.append(app)
        await on_shutdown()

    monkeypatch.setattr("rawsse.server.serve", serve)
    monkeypatch.setattr("rawsse.cli.servers._prepare", lambda log_format: None)
    monkeypatch.setattr("rawsse.relay.RedisStore", lambda url: ClosedStore())
    assert main(["serve", "--ledger", str(tmp_path / "ledger.db"), "--store", "redis://127.0.0.1"]) == 0
    ledger = relays[0].ledger
    assert ledger is not None
    ledger.begun(begun)  # a ledger that is closed drops it
    assert (closed, ledger.dropped) == (["store"], 1)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
def test_users_are_read_again_one_reading_at_a_time_while_the_event_loop_goes_on(
    users: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: queue.SimpleQueue[str] = queue.SimpleQueue()
    may_end = threading.Event()

    def reload(file: UserFile) -> None:
        readings.put(threading.current_thread().name)
        if threading.current_thread() is not threading.main_thread():
            assert may_end.wait(PATIENCE)
        raise RuntimeError("a surprise")  # it must not cost the next signal

    async def next_reading() -> str:
        return await asyncio.to_thread(readings.get, timeout=PATIENCE)

    async def serve(app: ASGIApp, *where: Any, **options: Any) -> None:
        monkeypatch.setattr(UserFile, "reload", reload)
        signal.raise_signal(signal.SIGHUP)
        assert await next_reading() != "MainThread"
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
            await asyncio.sleep(0)
        await ticks(20)
        assert readings.empty()
        may_end.set()
        await next_reading()
        await ticks(20)
        assert readings.empty()

    monkeypatch.setattr("rawsse.server.serve", serve)
    monkeypatch.setattr("rawsse.cli.servers._prepare", lambda log_format: None)
    assert main(["serve", "--users", users]) == 0


# --- Proxies, and a run without a reader


def test_proxies_are_believed_only_if_they_are_named(served: Served) -> None:
    assert main(["serve"]) == 0
    assert isinstance(served["app"], Relay)
    assert main(["serve", "--proxy-headers", "127.0.0.1, 10.0.0.0/8"]) == 0
    assert isinstance(served["app"], Forwarded)
    assert main(["serve", "--metrics-token", "t"]) == 0


@pytest.mark.parametrize("addresses", ["", "localhost", "127.0.0.1,", "*"])
def test_what_is_no_address_of_a_proxy_is_refused(
    addresses: str, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--proxy-headers", addresses]) == 2
    assert capsys.readouterr().err.startswith(
        "rawsse: a proxy must be an IP address, or a network such as 10.0.0.0/8: "
    )
    assert served == {}


def test_an_answer_without_a_reader_is_cancelled_unless_it_is_to_be_drained(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RunLimits] = []

    def limits(**options: float) -> RunLimits:
        made.append(RunLimits(**options))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr("rawsse.relay.RunLimits", limits)
    assert main(["serve"]) == 0
    assert main(["serve", "--on-disconnect", "drain"]) == 0
    assert [each.drain_seconds for each in made] == [0.0, 600.0]


def test_an_answer_without_a_reader_goes_on_for_as_long_as_resume_grace_says(background: Background) -> None:
    gate = background.gate(free=1)
    upstream = background.enter(Server(Player(shipped_fixtures()["plain"], sleep=gate.sleep), port=0))
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    with Command("serve", "--port", "0", "--resume-grace", "0", env=env) as command:
        request = Request(f"{command.base_url}/stream", b'{"message": "Hi"}', {"content-type": "application/json"})
        with urlopen(request) as answer:
            answer.readline()
        assert gate.left.wait(PATIENCE / 2), "the default is as long as all of this test's patience"
