"""Certificates: those that are trusted, and the reason why one is not.

    tls = TLSContext()                  # SSL_CERT_FILE, SSL_CERT_DIR, else certifi
    tls = TLSContext(my_own_context)
    context = tls.get()                 # made now, and kept

`certifi` is loaded when a context is asked for: plain http does not need it.
"""

from __future__ import annotations

import functools
import os
import ssl

from rawsse.errors import ConfigurationError, quote

ALPN_PROTOCOL = "http/1.1"
"""The protocol offered (RFC 7301): without it a server may choose HTTP/2."""

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class TLSContext:
    """The `ssl.SSLContext` of one client, created when it is first needed: loading the certificates takes 15 ms and more.

    A `context` from the caller is used as it is. Otherwise certificates come from the file in `SSL_CERT_FILE` and the
    directories in `SSL_CERT_DIR` (in OpenSSL's layout: names are hashes), or from certifi if neither is set or `trust_env` is
    False.
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, trust_env: bool = True) -> None:
        self._context = context
        self._trust_env = trust_env

    def get(self) -> ssl.SSLContext:
        """The context. Raises `ConfigurationError` if the certificates cannot be read."""
        if self._context is None:
            # Not the whole environment: a traceback may show it, and with it the key.
            self._context = _make(*(os.environ.get(name) or None if self._trust_env else None for name in _VARIABLES))
        return self._context


def _make(file: str | None, folders: str | None) -> ssl.SSLContext:
    if folders and not any(map(os.path.isdir, folders.split(os.pathsep))):
        # OpenSSL would accept that, and trust no certificate.
        raise ConfigurationError(f"SSL_CERT_DIR names no directory: {quote(folders)}")
    source = "in SSL_CERT_FILE" if file else "of certifi"
    if not file and not folders:
        import certifi

        file = certifi.where()
    try:
        return _load(file, folders, os.stat(file).st_mtime_ns if file else 0)
    except OSError as exc:
        raise ConfigurationError(f"cannot read the certificates {source}, {quote(file or '')}: {exc}") from exc


# Loading takes longer than a whole request: once for all clients with these certificates, which do not change the context.
@functools.lru_cache(maxsize=8)
def _load(file: str | None, folders: str | None, changed: int) -> ssl.SSLContext:
    """`changed` is when the file was: a new one is read again."""
    context = ssl.create_default_context(cafile=file, capath=folders)
    context.set_alpn_protocols([ALPN_PROTOCOL])
    return context


def explain(error: BaseException) -> str | None:
    """The reason why a handshake failed, and the remedy; None for other errors."""
    if isinstance(error, ssl.SSLCertVerificationError):
        match error.verify_code:  # X509_V_ERR_…, https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
            case 9 | 10:  # not yet valid, expired
                remedy = "its owner must renew it, unless the clock of this machine is wrong"
            case 62 | 64:  # another host name, another address
                remedy = "use a name that it is for"
            case _:
                remedy = "if its authority is your own or a proxy's, name that in SSL_CERT_FILE, or give ssl_context"
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}; {remedy}"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it does not speak TLS there: is it http:// and not https://, or another port?"
    return None
