"""Opening a tunnel through a proxy: CONNECT.

This file knows what is said to a proxy before TLS begins, and what its answers mean (RFC 9110, 9.3.6). It refuses to know
sockets: bytes in and bytes out. Pure.

    tunnel = Tunnel(proxy, origin)
    send(tunnel.request())
    while not tunnel.receive_data(receive()):     # b"" says that the proxy closed
        ...
    # from here on the bytes are the origin's

Every failure is a `ProxyError` that names the proxy, never its user or password, and says what to do.
"""

from __future__ import annotations

from rawsse.client.network.route import Origin, Proxy
from rawsse.errors import HeadTooLargeError, HTTPProtocolError, ProxyError, quote
from rawsse.http1 import MAX_HEAD_BYTES, ClientConnection, Headers, Response


class Tunnel:
    """A tunnel through `proxy` to `origin`, being opened. `max_head_bytes` bounds the proxy's answer."""

    def __init__(self, proxy: Proxy, origin: Origin, *, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._proxy = proxy
        self._origin = origin
        self._http = ClientConnection(origin.authority, max_head_bytes=max_head_bytes)

    def request(self) -> bytes:
        """The bytes of the request."""
        fields = [("user-agent", "rawsse")]
        if self._proxy.authorization is not None:
            fields.append(("proxy-authorization", self._proxy.authorization))
        return self._http.send_request("CONNECT", self._origin.authority, fields)

    def receive_data(self, data: bytes) -> bool:
        """Take bytes from the proxy; True when the tunnel is open. Raises `ProxyError`."""
        self._http.receive_data(data)
        answer = self._answer()
        if answer is None:
            return False
        if not 200 <= answer.status < 300:
            raise refusal(self._proxy, self._origin, answer.status, answer.headers)
        if ahead := self._http.trailing_data:
            # With TLS it is the client that speaks first: these bytes are not the origin's.
            raise self._error(f"sent something into the tunnel before TLS began: {quote(ahead)}", may_heal=False)
        return True

    def lost(self, error: OSError) -> ProxyError:
        """What is to be said when the connection to the proxy broke."""
        return self._error(f"did not answer: {error.strerror or error}")

    def _answer(self) -> Response | None:
        try:
            event = self._http.next_event()
        except HTTPProtocolError as exc:
            if exc.by_close:
                raise self._error("closed the connection without an answer") from None
            raise self._error(f"does not answer as an HTTP proxy does ({exc}): is it one?", may_heal=False) from None
        except HeadTooLargeError as exc:
            raise self._error(f"does not come to the end of its answer: {exc}", may_heal=False) from None
        return event if isinstance(event, Response) else None

    def _error(self, words: str, *, may_heal: bool = True) -> ProxyError:
        return ProxyError(f"{_asked(self._proxy, self._origin)} {words}", may_heal=may_heal)


def _asked(proxy: Proxy, origin: Origin) -> str:
    return f"the proxy {proxy}, asked to connect to {origin.authority},"


def refusal(proxy: Proxy, origin: Origin, status: int, headers: Headers) -> ProxyError:
    """The error for a proxy that answered `status`, and no 2xx."""
    may_heal = status in (408, 429) or status >= 500
    said = f"{_asked(proxy, origin)} answered {status}"
    return ProxyError(f"{said}: {_remedy(proxy, status, headers)}", status_code=status, may_heal=may_heal)


def _remedy(proxy: Proxy, status: int, headers: Headers) -> str:
    if status in (401, 407):  # tinyproxy says 401 to credentials that are wrong
        return _credentials_wanted(proxy, headers)
    if status == 403:
        return "it does not allow that; its operator can, or NO_PROXY takes this host past it"
    if status in (502, 503, 504):
        return "it did not reach that host"
    return "no tunnel was opened"


def _credentials_wanted(proxy: Proxy, headers: Headers) -> str:
    # RFC 9110, 11.7.1: Proxy-Authenticate = #challenge; challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]
    schemes = [quote(value.split()[0].rstrip(",")) for value in headers.get_all("proxy-authenticate") if value.split()]
    if schemes and "basic" not in " ".join(headers.get_all("proxy-authenticate")).lower():
        return f"it wants to know the user by {', '.join(schemes)}, and only Basic is spoken here"
    if proxy.authorization is None:
        return "it wants a user name and a password (Basic), as in http://user:password@host:port"
    return "it does not accept the user name and the password that were given for it"
