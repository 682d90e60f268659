"""`rawsse serve --users --ledger`: one file turns on users and limits, one command shows who spent what."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from support.background import PATIENCE, Background
from support.command import ROOT, Command

from rawsse.cli import main
from rawsse.relay import ledger
from rawsse.replay import ReplayServer, shipped_fixtures

KEY = "sk-ant-the-owner's-key"
TOKENS = {"ada": "token-of-ada", "bob": "token-of-bob"}
USERS = f"""
[[user]]
id = "ada"
token_sha256 = "{sha256(b"token-of-ada").hexdigest()}"
requests_per_minute = 2

[[user]]
id = "bob"
token = "token-of-bob"
"""


@pytest.fixture
def upstream() -> Iterator[ReplayServer]:
    with Background() as background:
        yield background.enter(ReplayServer(shipped_fixtures()["plain"], speed=0))


@pytest.fixture
def command(upstream: ReplayServer, tmp_path: Path) -> Iterator[Command]:
    (tmp_path / "users.toml").write_text(USERS)
    (tmp_path / "users.toml").chmod(0o600)
    files = ("--users", tmp_path / "users.toml", "--ledger", tmp_path / "ledger.db")
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url}
    with Command("serve", "--port", "0", *files, "--system", "Be brief.", env=env) as command:
        yield command


def ask(command: Command, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
    """(status, body)."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    data = json.dumps(body).encode() if body is not None else None
    request = Request(f"{command.base_url}{path}", data, headers, method=method)
    try:
        with urlopen(request, timeout=PATIENCE) as response:
            return response.status, response.read()
    except HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def chat(command: Command, token: str, text: str = "Hello") -> int:
    return ask(command, "POST", "/stream", token, {"message": text})[0]


def test_users_have_limits_and_the_ledger_says_who_used_what(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(command, "token-of-nobody") == 401
    assert [chat(command, TOKENS["ada"]) for _ in range(3)] == [200, 200, 429]
    assert chat(command, TOKENS["bob"]) == 200
    me = json.loads(ask(command, "GET", "/me", TOKENS["ada"])[1])
    assert (me["user"], me["limits"], me["left"]) == ("ada", {"requests_per_minute": 2}, {"requests_per_minute": 0})
    assert command.stop() == 0
    log = command.complaint()
    assert log.count(" of ada ended: complete") == 2
    for secret in (KEY, *TOKENS.values()):
        assert secret not in log
    (tmp_path / "prices.toml").write_text(
        '["claude-sonnet-5"]\ninput = 1\noutput = 10\ncache_write = 1\ncache_read = 1'
    )
    assert main(["usage", str(tmp_path / "ledger.db"), "--by", "user", "--json"]) == 0
    rows = {row["user"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["runs"] for name, row in rows.items()} == {"ada": 2, "bob": 1}
    usage = json.loads((ROOT / "fixtures/plain.json").read_text())["message"]["usage"]
    assert rows["ada"]["input_tokens"] == 2 * usage["input_tokens"]
    assert rows["ada"]["exact"] is True


def test_users_are_read_again_on_sighup_and_a_broken_file_changes_nothing(command: Command, tmp_path: Path) -> None:
    def changed(text: str, words: str) -> None:
        (tmp_path / "users.toml").write_text(text)
        command.send_signal(signal.SIGHUP)
        assert words in command.log_line()

    assert chat(command, TOKENS["bob"]) == 200
    assert " of bob ended" in command.log_line()
    changed(USERS.replace("token-of-bob", "new-token-of-bob"), "read")
    assert (chat(command, "token-of-bob"), chat(command, "new-token-of-bob")) == (401, 200)
    assert " of bob ended" in command.log_line()
    changed("[[user]]\nid = 3", "the users stay as they were")
    assert chat(command, "new-token-of-bob") == 200


def test_a_kill_costs_the_ledger_no_run_that_it_had_written(command: Command, tmp_path: Path) -> None:
    assert [chat(command, TOKENS["bob"]) for _ in range(5)] == [200] * 5
    deadline = time.monotonic() + PATIENCE
    while usage(tmp_path).get("bob", 0) < 5 and time.monotonic() < deadline:
        threading.Event().wait(0.02)  # a batch is written once a second
    command.stop(signal.SIGKILL)
    assert usage(tmp_path) == {"bob": 5}


def usage(folder: Path) -> dict[str, int]:
    return {row["user"]: row["runs"] for row in ledger.usage([folder / "ledger.db"], by=("user",))}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a table [[user]]"),
        ('[[user]]\nid = "ada"', "expected either token_sha256 or token"),
        ("[[", "cannot read"),
    ],
)
def test_a_file_of_users_that_cannot_be_used_is_said_at_the_start(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    (tmp_path / "users.toml").write_text(text)
    assert main(["serve", "--users", str(tmp_path / "users.toml")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "users.toml") in said
    assert words in said


def test_with_users_it_may_listen_on_any_address(upstream: ReplayServer, tmp_path: Path) -> None:
    (tmp_path / "users.toml").write_text(USERS)
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": upstream.base_url, "RAWSSE_HOST": "0.0.0.0"}
    with Command("serve", "--port", "0", "--users", tmp_path / "users.toml", env=env) as command:
        assert command.line().startswith("listening on http://0.0.0.0:")
