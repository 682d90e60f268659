"""`rawsse serve --store`: several relays, one store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.request import Request, urlopen

import pytest
from support.background import PATIENCE, Background
from support.command import Command
from support.redis_server import need_redis, redis_server

from rawsse.cli import main
from rawsse.replay import ReplayServer, shipped_fixtures

need_redis()

ID = "a-run-id-of-the-client"


@pytest.fixture
def relays() -> Iterator[list[Command]]:
    with Background() as background, redis_server() as url, ExitStack() as stack:
        upstream = background.enter(ReplayServer(shipped_fixtures()["plain"], speed=0))
        env = {"ANTHROPIC_API_KEY": "sk-ant-the-owner's-key", "ANTHROPIC_BASE_URL": upstream.base_url}
        arguments = ("serve", "--port", "0", "--store", url)
        yield [stack.enter_context(Command(*arguments, env=env)) for _ in range(2)]


def ask(relay: Command, path: str, body: Any = None) -> bytes:
    headers = {"content-type": "application/json", "x-run-id": ID}
    request = Request(f"{relay.base_url}{path}", body and json.dumps(body).encode(), headers)
    with urlopen(request, timeout=PATIENCE) as response:
        data: bytes = response.read()
        return data


def test_a_run_of_one_relay_is_read_at_the_other(relays: list[Command]) -> None:
    first, second = relays
    whole = ask(first, "/stream", {"message": "Hello"})
    assert whole.endswith(b"data: [DONE]\n\n")
    assert ask(second, f"/runs/{ID}") == whole
    assert first.stop() == 0
    assert ask(second, f"/runs/{ID}") == whole  # its node has left, and the store has it
    assert ask(second, "/stream", {"message": "Hello"}) == whole  # the same request again: no second run


def test_without_the_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-the-owner's-key")
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    assert main(["serve", "--port", "0", "--store", "redis://127.0.0.1"]) == 2
    assert "pip install 'rawsse[redis]'" in capsys.readouterr().err


def test_a_url_of_something_else_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-the-owner's-key")
    assert main(["serve", "--port", "0", "--store", "mysql://ada:s3cret@127.0.0.1"]) == 2
    error = capsys.readouterr().err
    assert "redis://" in error
    assert "s3cret" not in error
