"""rawsse.client.network.tls: which certificates are trusted, and the reason why one is not."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path
from typing import Any

import certifi
import pytest
from support.sockets import LOCALHOST

from rawsse.client.network import tls
from rawsse.client.network.tls import TLSContext, explain
from rawsse.errors import ConfigurationError


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of certificates."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What contexts were made of: file and folder."""
    made: list[tuple[Any, Any]] = []
    real = ssl.create_default_context

    def note(*, cafile: Any, capath: Any) -> ssl.SSLContext:
        made.append((cafile, capath))
        return real(cafile=cafile, capath=capath)

    tls._load.cache_clear()
    monkeypatch.setattr(ssl, "create_default_context", note)
    return made


# --- The context ---------------------------------------------------------------------------------------------------


def test_the_context_is_made_once_and_only_when_it_is_asked_for(environ: Any, loaded: list[Any]) -> None:
    context = TLSContext()
    assert loaded == []
    assert context.get() is context.get()
    assert loaded == [(certifi.where(), None)]


@pytest.mark.parametrize("names", [["SSL_CERT_FILE"], ["SSL_CERT_DIR"], ["SSL_CERT_FILE", "SSL_CERT_DIR"]])
def test_the_environment_replaces_certifi(names: list[str], environ: Any, loaded: list[Any], tmp_path: Path) -> None:
    values = {"SSL_CERT_FILE": str(LOCALHOST), "SSL_CERT_DIR": str(tmp_path)}
    for name in names:
        environ.setenv(name, values[name])
    TLSContext().get()
    assert loaded == [tuple(values[name] if name in names else None for name in values)]


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_empty_variable_is_none(name: str, environ: Any, loaded: list[Any]) -> None:
    environ.setenv(name, "")
    TLSContext().get()
    assert loaded == [(certifi.where(), None)]


def test_the_environment_is_not_looked_at_where_it_is_not_trusted(environ: Any, loaded: list[Any]) -> None:
    environ.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    environ.setenv("SSL_CERT_DIR", "/nowhere/at/all")
    TLSContext(trust_env=False).get()
    assert loaded == [(certifi.where(), None)]


def test_clients_with_the_same_certificates_share_a_context(environ: pytest.MonkeyPatch, loaded: list[Any]) -> None:
    assert TLSContext().get() is TLSContext().get()
    assert len(loaded) == 1


def test_a_file_that_has_changed_is_read_again(environ: pytest.MonkeyPatch, loaded: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(Path(certifi.where()).read_bytes())
    environ.setenv("SSL_CERT_FILE", str(file))
    before = TLSContext().get()
    os.utime(file, ns=(1, 1))
    assert TLSContext().get() is not before


def test_a_context_checks_names_and_certificates() -> None:
    context = TLSContext(trust_env=False).get()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert len(context.get_ca_certs()) > 50  # certifi has some 140


def test_a_context_of_one_s_own_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ssl.create_default_context()
    monkeypatch.setattr(ssl.SSLContext, "set_alpn_protocols", None)  # it is not called
    assert TLSContext(own).get() is own


def test_certificates_that_cannot_be_read_are_named(environ: Any) -> None:
    environ.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    words = r"^cannot read the certificates in SSL_CERT_FILE, '/nowhere/at/all.pem': .*No such file"
    with pytest.raises(ConfigurationError, match=words):
        TLSContext().get()


def test_a_file_without_certificates_is_named(environ: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("hello")
    environ.chdir(tmp_path)  # a long path is cut
    environ.setenv("SSL_CERT_FILE", "empty.pem")
    with pytest.raises(ConfigurationError, match=r"cannot read the certificates in SSL_CERT_FILE, 'empty.pem'"):
        TLSContext().get()


def test_a_folder_that_is_not_there_is_named(environ: Any) -> None:
    environ.setenv("SSL_CERT_DIR", f"/nowhere/a{os.pathsep}/nowhere/b")
    with pytest.raises(ConfigurationError, match=r"^SSL_CERT_DIR names no directory: '/nowhere/a.*/nowhere/b'$"):
        TLSContext().get()


def test_one_folder_of_several_is_enough(environ: Any, tmp_path: Path) -> None:
    environ.setenv("SSL_CERT_DIR", f"/nowhere/a{os.pathsep}{tmp_path}")
    assert TLSContext().get().get_ca_certs() == []  # they are read when they are needed


def test_a_context_that_failed_is_tried_again(environ: Any, tmp_path: Path) -> None:
    file = tmp_path / "late.pem"
    environ.setenv("SSL_CERT_FILE", str(file))
    context = TLSContext()
    with pytest.raises(ConfigurationError):
        context.get()
    shutil.copy(LOCALHOST, file)
    assert len(context.get().get_ca_certs()) == 1


# --- Words ---------------------------------------------------------------------------------------------------------


def untrusted(code: int, words: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {words}")
    error.verify_code, error.verify_message = code, words
    return error


# The codes and words are OpenSSL's: X509_STORE_CTX_get_error(3).
@pytest.mark.parametrize(
    ("code", "words", "remedy"),
    [
        (18, "self-signed certificate", "name that in SSL_CERT_FILE"),
        (19, "self-signed certificate in certificate chain", "name that in SSL_CERT_FILE"),
        (20, "unable to get local issuer certificate", "name that in SSL_CERT_FILE"),
        (10, "certificate has expired", "its owner must renew it, unless the clock of this machine is wrong"),
        (9, "certificate is not yet valid", "its owner must renew it, unless the clock of this machine is wrong"),
        (62, "Hostname mismatch, certificate is not valid for 'a'.", "use a name that it is for"),
        (64, "IP address mismatch, certificate is not valid for '1.2.3.4'.", "use a name that it is for"),
    ],
)
def test_a_certificate_that_is_not_trusted_has_its_reason_and_its_remedy(code: int, words: str, remedy: str) -> None:
    said = explain(untrusted(code, words)) or ""
    assert said.startswith(f"its certificate is not trusted: {words.rstrip('.')}; ")
    assert said.endswith(remedy)


@pytest.mark.parametrize(("reason", "is_known"), [("WRONG_VERSION_NUMBER", True), ("HTTP_REQUEST", True), ("X", False)])
def test_a_peer_without_tls_is_told_from_other_failures(reason: str, is_known: bool) -> None:
    error = ssl.SSLError(1, "words")
    error.reason = reason
    assert (explain(error) is not None) == is_known


def test_other_errors_are_not_explained() -> None:
    assert explain(ConnectionResetError("x")) is None


def test_what_is_spoken_is_http_1_1() -> None:
    assert tls.ALPN_PROTOCOL == "http/1.1"
