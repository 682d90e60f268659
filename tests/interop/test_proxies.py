"""The client through proxies that are not ours: tinyproxy of Debian, and proxy.py of PyPI, which is an https proxy as well."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rawsse import AsyncClient
from rawsse.errors import APIError, ProxyError

from .conftest import Start
from .peers import proxy_py, tinyproxy, tls_server
from .stack import recorded, text

trustme = pytest.importorskip("trustme", reason="certificates: the extra `interop`")

pytestmark = pytest.mark.real

USER, PASSWORD = "Aladdin", "open-sesame"
REQUEST: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the authority's certificate is, `ca.pem`, and one for this machine with its key, `own.pem`."""
    folder = tmp_path_factory.mktemp("proxies")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "own.pem")
    return folder


@pytest.fixture(autouse=True)
def _trust(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.fixture(scope="module", params=["tinyproxy", "proxy.py", "proxy.py with TLS"])
def proxy(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Where a proxy is that wants user and password."""
    given: dict[str, Any] = {"user": USER, "password": PASSWORD}
    if request.param == "tinyproxy":
        running = tinyproxy(folder, **given)
    else:
        running = proxy_py(folder, certificate=folder / "own.pem" if "TLS" in request.param else None, **given)
    with running as url:
        yield url


@pytest.fixture(scope="module")
def https_url(folder: Path) -> Iterator[str]:
    with tls_server(folder, folder / "own.pem") as port:
        yield f"https://localhost:{port}"


@pytest.fixture(params=["http", "https"])
def base_url(request: pytest.FixtureRequest, start: Start, https_url: str) -> str:
    """Where a Messages API is that answers with the recording `plain`."""
    return https_url if request.param == "https" else start(recorded("plain")).upstream_url


def with_user(proxy: str, user: str = f"{USER}:{PASSWORD}") -> str:
    return proxy.replace("://", f"://{user}@")


def ask(base_url: str, proxy: str, *, count: int = 1) -> list[str]:
    """The texts of so many answers, one after another."""

    async def story() -> list[str]:
        texts = []
        async with AsyncClient(api_key="sk-any", base_url=base_url, proxy=proxy, max_retries=0) as client:
            for _ in range(count):
                async with client.messages.stream(**REQUEST) as stream:
                    texts.append("".join([text async for text in stream.text_stream]))
        return texts

    return asyncio.run(story())


def failure(base_url: str, proxy: str) -> APIError:
    with pytest.raises(APIError) as caught:
        ask(base_url, proxy)
    assert PASSWORD not in str(caught.value)
    return caught.value


def test_an_answer_comes_through_with_user_and_password(base_url: str, proxy: str) -> None:
    assert ask(base_url, with_user(proxy)) == [text("plain")]


def test_several_answers_come_through_one_after_another(base_url: str, proxy: str) -> None:
    assert ask(base_url, with_user(proxy), count=3) == [text("plain")] * 3


@pytest.mark.parametrize(
    ("user", "words"),
    [("", "it wants a user name and a password"), (f"{USER}:wrong", "it does not accept the user name")],
)
def test_a_proxy_that_wants_to_know_who_asks_says_so(https_url: str, proxy: str, user: str, words: str) -> None:
    error = failure(https_url, with_user(proxy, user) if user else proxy)
    at = https_url.removeprefix("https://")
    assert isinstance(error, ProxyError)
    assert error.status_code in (401, 407)  # tinyproxy says 401 to a password that is wrong
    assert str(error).startswith(f"the proxy {proxy}, asked to connect to {at}, answered {error.status_code}: {words}")
    assert not error.safe_to_retry


def test_an_origin_that_the_proxy_does_not_reach_is_the_proxy_s_to_tell(proxy: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    error = failure(f"https://localhost:{port}", with_user(proxy))
    assert str(error).startswith(f"the proxy {proxy}, asked to connect to localhost:{port}, ")
    assert isinstance(error, ProxyError)
    assert error.safe_to_retry
