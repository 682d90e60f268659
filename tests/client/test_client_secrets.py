"""No frame of ours shows the key: `capture_locals`, `cgitb` and their like print what the variables of each frame hold."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.answers import ASK
from support.clock import run

import rawsse
from rawsse import AsyncClient, Client
from rawsse.errors import RawsseError
from rawsse.replay import FakeNetwork, Fault, shipped_fixtures

PACKAGE = Path(rawsse.__file__).parent
KEY = "sk-ant-api03-AbCdEf0123456789_xYz-QQ"
NOWHERE = "http://127.0.0.1:1"

Fail = Callable[[], object]


def shown(fail: Fail) -> str:
    """What the frames of rawsse hold when `fail` has failed."""
    with pytest.raises((RawsseError, AttributeError, TypeError)) as caught:
        fail()
    seen: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
        seen += [repr(frame.locals) for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
        error = error.__cause__ or error.__context__
    assert seen
    return "\n".join(seen)


async def stream(client: AsyncClient, **more: Any) -> None:
    async with client, client.messages.stream(**{**ASK, **more}) as answer:
        await answer.get_final_message()


def stream_blocking(client: Client, **more: Any) -> None:
    with client, client.messages.stream(**{**ASK, **more}) as answer:
        answer.get_final_message()


def both(options: dict[str, Any], more: dict[str, Any]) -> tuple[Fail, Fail]:
    return lambda: run(stream(AsyncClient(**options), **more)), lambda: stream_blocking(Client(**options), **more)


WRONG: dict[str, dict[str, Any]] = {
    "a URL": {"base_url": "ftp://x"},
    "a timeout": {"timeout": -1},
    "a proxy": {"proxy": "socks5://x"},
    "limits": {"limits": 3},
    "both": {"auth_token": "token"},
    "a sign in the key": {"api_key": KEY + "\u00e9"},
    "a sign in the token": {"api_key": None, "auth_token": KEY + "\u00e9"},
    "the password of a proxy": {"api_key": "k", "proxy": f"ftp://u:{KEY}@h:99999"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_client_shows_no_key(wrong: dict[str, Any]) -> None:
    for fail in both({"api_key": KEY, "base_url": NOWHERE, **wrong}, {}):
        assert KEY not in shown(fail)


ENVIRONMENT = {
    "a URL": {"ANTHROPIC_BASE_URL": "ftp://x"},
    "a file of certificates": {"SSL_CERT_FILE": "/nowhere", "ANTHROPIC_BASE_URL": "https://127.0.0.1:1"},
    "a folder of certificates": {"SSL_CERT_DIR": "/nowhere", "ANTHROPIC_BASE_URL": "https://127.0.0.1:1"},
    "fields": {"ANTHROPIC_CUSTOM_HEADERS": f"x-a: {KEY}\nx-b: {KEY}\x01"},
    "no fields": {"ANTHROPIC_CUSTOM_HEADERS": KEY},
    "a proxy": {"HTTP_PROXY": f"socks5://u:{KEY}@x", "ANTHROPIC_BASE_URL": "http://example.invalid"},
    "a key": {"ANTHROPIC_API_KEY": KEY + "\u00e9"},
    "a token": {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": KEY + "\u00e9"},
}


@pytest.mark.parametrize("variables", ENVIRONMENT.values(), ids=ENVIRONMENT)
def test_what_is_wrong_in_the_environment_shows_no_key(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": NOWHERE, **variables}.items():
        monkeypatch.setenv(name, value)
    for fail in both({}, {}):
        assert KEY not in shown(fail)


CALLS: dict[str, dict[str, Any]] = {
    "no JSON": {"messages": [{"role": "user", "content": object()}]},
    "no number": {"temperature": float("nan")},
    "a name of a field": {"extra_headers": {"a b": "c"}},
    "a query": {"extra_query": {"a": object()}},
}


@pytest.mark.parametrize("more", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "options", [{"api_key": KEY}, {"auth_token": KEY}, {"api_key": "k", "default_headers": {"x-a": KEY}}]
)
def test_what_is_wrong_with_a_call_shows_no_key(options: dict[str, Any], more: dict[str, Any]) -> None:
    for fail in both({**options, "base_url": NOWHERE}, more):
        assert KEY not in shown(fail)


@pytest.mark.parametrize("fault", ["status=401", "reset@event=2", "error@event=2"])
def test_an_answer_that_fails_shows_no_key(fault: str) -> None:
    def options() -> dict[str, Any]:
        network = FakeNetwork(shipped_fixtures()["plain"], faults=[Fault.parse(fault)])
        return {"api_key": KEY, "base_url": NOWHERE, "connect": network, "max_retries": 0}

    for fail in (both(options(), {})[0], both(options(), {})[1]):
        assert KEY not in shown(fail)


def test_other_options_show_no_key() -> None:
    client, blocking = AsyncClient(api_key="k", base_url=NOWHERE), Client(api_key="k", base_url=NOWHERE)
    for each in (client, blocking):
        assert KEY not in shown(lambda each=each: each.with_options(api_key=KEY, base_url="ftp://x"))  # type: ignore[misc]
