"""Certificates: which are trusted, and what is wrong with one that is not.

This file knows `ssl`'s contexts, their environment variables and their errors. It refuses to know sockets and handshakes.

    tls = TLSContext()                  # SSL_CERT_FILE, SSL_CERT_DIR, else certifi
    tls = TLSContext(my_own_context)
    context = tls.get()                 # made now, and kept

`ssl` and `certifi` are loaded when a context is asked for: plain http needs neither.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rawsse.errors import ConfigurationError, quote

if TYPE_CHECKING:
    import ssl

ALPN_PROTOCOL = "http/1.1"
"""What we speak (RFC 7301): without it a server may choose HTTP/2."""


class TLSContext:
    """The `ssl.SSLContext` of one client, made when first asked for: loading the certificates costs 15 ms and more.

    `context` is the caller's own, and is used as it is. Else certificates come from the file in `SSL_CERT_FILE` and the
    directories in `SSL_CERT_DIR` (as OpenSSL has them: names are hashes), or from certifi if neither is set;
    `trust_env=False` does not look at them.
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, trust_env: bool = True) -> None:
        self._context = context
        self._trust_env = trust_env

    def get(self) -> ssl.SSLContext:
        """The context. Raises `ConfigurationError` if the certificates cannot be read."""
        if self._context is None:
            self._context = _make(os.environ if self._trust_env else {})
        return self._context


def _make(environ: Mapping[str, str]) -> ssl.SSLContext:
    file, folders = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
    if folders and not any(os.path.isdir(folder) for folder in folders.split(os.pathsep)):
        # OpenSSL would not mind, and trust nobody.
        raise ConfigurationError(f"SSL_CERT_DIR names no directory: {quote(folders)}")
    source = "in SSL_CERT_FILE" if file else "of certifi"
    if not file and not folders:
        import certifi

        file = certifi.where()
    try:
        return _load(file, folders, os.stat(file).st_mtime_ns if file else 0)
    except OSError as exc:
        raise ConfigurationError(f"cannot read the certificates {source}, {quote(file or '')}: {exc}") from exc


# Nobody who gets it changes it, and loading takes longer than a whole request: once for all clients with these certificates.
@functools.lru_cache(maxsize=8)
def _load(file: str | None, folders: str | None, changed: int) -> ssl.SSLContext:
    """`changed` is when the file was: a new one is read anew."""
    import ssl

    context = ssl.create_default_context(cafile=file, capath=folders)
    context.set_alpn_protocols([ALPN_PROTOCOL])
    return context


def is_untrusted(error: BaseException) -> bool:
    """The handshake failed because of the other side's certificate: trying again will not help."""
    import ssl

    return isinstance(error, ssl.SSLCertVerificationError)


# X509_V_ERR_…, https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64


def explain(error: BaseException) -> str | None:
    """What went wrong in a handshake, and what to do; None if it was something else."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}; {_remedy(error.verify_code)}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it does not speak TLS there: is it http:// and not https://, or another port?"
    return None


def _remedy(code: int) -> str:
    if code in (_EXPIRED, _NOT_YET_VALID):
        return "its owner must renew it, unless the clock of this machine is wrong"
    if code in (_OTHER_NAME, _OTHER_ADDRESS):
        return "use a name that it is for"
    return (
        "if it is from a certificate authority of your own, as that of a proxy that looks into TLS, put the authority's"
        " certificate into a file and name that in SSL_CERT_FILE, or give ssl_context"
    )
