"""The client and a server with TLS that is not ours, with certificates of an authority that only this test knows."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rawsse import AsyncClient
from rawsse.errors import CertificateError

from .peers import tls_server
from .stack import text

trustme = pytest.importorskip("trustme", reason="certificates: the extra `interop`")

pytestmark = pytest.mark.real

REQUEST: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello"}],
}
YEAR_2000 = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)

Serve = Callable[..., int]


@pytest.fixture
def authority() -> Any:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authority's certificate; the environment says nothing of any."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


@pytest.fixture
def serve(authority: Any, tmp_path: Path) -> Iterator[Serve]:
    """Start a server with a certificate for these names: its port."""
    with ExitStack() as stack:

        def serve(*names: str, host: str = "127.0.0.1", **options: Any) -> int:
            own = tmp_path / "own.pem"
            authority.issue_cert(*names, **options).private_key_and_cert_chain_pem.write_to_path(own)
            return stack.enter_context(tls_server(tmp_path, own, host))

        yield serve


def ask(base_url: str, **options: Any) -> str:
    async def story() -> str:
        async with AsyncClient(api_key="sk-any", base_url=base_url, max_retries=0, **options) as client:
            return "".join(block.text for block in (await client.messages.create(**REQUEST)).content)

    return asyncio.run(story())


# --- Trusted -------------------------------------------------------------------------------------------------------


def test_a_file_may_name_the_authority(serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert ask(f"https://localhost:{serve('localhost')}") == text("plain")


def test_a_folder_may_name_the_authority(serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None, "openssl gives certificates in a folder their names"
    command = [openssl, "x509", "-hash", "-noout", "-in", str(ca_file)]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    folder = ca_file.with_name("authorities")
    folder.mkdir()
    shutil.copy(ca_file, folder / f"{name}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    assert ask(f"https://localhost:{serve('localhost')}") == text("plain")


def test_a_context_may_know_the_authority(serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")  # nobody looks
    context = ssl.create_default_context(cafile=ca_file)
    assert ask(f"https://localhost:{serve('localhost')}", ssl_context=context) == text("plain")


def test_an_address_may_be_what_the_certificate_is_for(serve: Serve, ca_file: Path) -> None:
    context = ssl.create_default_context(cafile=ca_file)
    assert ask(f"https://127.0.0.1:{serve('127.0.0.1')}", ssl_context=context) == text("plain")


def test_a_name_may_have_a_dot_at_its_end(serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:  # not every resolver knows localhost with its dot
        return original(host.rstrip("."), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    context = ssl.create_default_context(cafile=ca_file)
    assert ask(f"https://localhost.:{serve('localhost')}", ssl_context=context) == text("plain")


# --- Not trusted ---------------------------------------------------------------------------------------------------


def refusal(base_url: str, **options: Any) -> str:
    with pytest.raises(CertificateError) as caught:
        ask(base_url, **options)
    assert not caught.value.safe_to_retry
    return str(caught.value)


def test_an_authority_that_nobody_knows_is_named_with_its_remedy(serve: Serve, ca_file: Path) -> None:
    del ca_file  # the environment says nothing of it
    base_url = f"https://localhost:{serve('localhost')}"
    said = refusal(base_url)
    words = "its certificate is not trusted: unable to get local issuer certificate; if its authority is your own"
    assert said.startswith(f"cannot connect to {base_url}: {words}")
    assert "SSL_CERT_FILE" in said


def test_the_environment_is_not_trusted_where_the_caller_says_so(
    serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert "unable to get local issuer" in refusal(f"https://localhost:{serve('localhost')}", trust_env=False)


def test_a_certificate_that_has_expired_is_told(serve: Serve, ca_file: Path) -> None:
    context = ssl.create_default_context(cafile=ca_file)
    port = serve("localhost", not_before=YEAR_2000, not_after=YEAR_2000 + datetime.timedelta(days=90))
    said = refusal(f"https://localhost:{port}", ssl_context=context)
    assert said.endswith("certificate has expired; its owner must renew it, unless the clock of this machine is wrong")


@pytest.mark.parametrize("name", ["api.example", "127.0.0.1"])
def test_a_certificate_for_another_name_is_told(serve: Serve, ca_file: Path, name: str) -> None:
    context = ssl.create_default_context(cafile=ca_file)
    said = refusal(f"https://localhost:{serve(name)}", ssl_context=context)
    assert said.endswith("certificate is not valid for 'localhost'; use a name that it is for")


# --- IPv6 ----------------------------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_localhost_is_found_wherever_it_listens(serve: Serve, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On most machines localhost is ::1 first and 127.0.0.1 then. Where there is no IPv6, the other is tried."""
    host = "::1" if has_ipv6() else "127.0.0.1"
    port = serve("localhost", host=host)
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    for addresses in (found, found[::-1]):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, addresses=addresses, **__: addresses)
        context = ssl.create_default_context(cafile=ca_file)
        assert ask(f"https://localhost:{port}", ssl_context=context) == text("plain")


def test_an_ipv6_address_in_the_base_url_is_connected_to(serve: Serve, ca_file: Path) -> None:
    context = ssl.create_default_context(cafile=ca_file)
    if has_ipv6():
        assert ask(f"https://[::1]:{serve('::1', host='::1')}", ssl_context=context) == text("plain")
    else:
        with pytest.raises(Exception, match=r"^cannot connect to https://\[::1\]:9: "):
            ask("https://[::1]:9", ssl_context=context)
