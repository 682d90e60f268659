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
        value = self._proxy.authorization
        fields = [("user-agent", "rawsse"), *([("proxy-authorization", value)] if value else [])]
        return self._http.send_request("CONNECT", self._origin.authority, fields)

    def receive_data(self, data: bytes) -> bool:
        """Take bytes from the proxy; True when the tunnel is open. Raises `ProxyError`."""
        self._http.receive_data(data)
        try:
            answer = self._http.next_event()
        except (HTTPProtocolError, HeadTooLargeError) as exc:
            if getattr(exc, "by_close", False):
                raise self._error("closed the connection without an answer") from None
            raise self._error(f"does not answer as an HTTP proxy does ({exc}): is it one?", may_heal=False) from None
        if not isinstance(answer, Response):
            return False
        if not 200 <= answer.status < 300:
            raise refusal(self._proxy, self._origin, answer.status, answer.headers)
        if ahead := self._http.trailing_data:
            # With TLS it is the client that speaks first: these bytes are not the origin's.
            raise self._error(f"sent something into the tunnel before TLS began: {quote(ahead)}", may_heal=False)
        return True

    def lost(self, error: OSError) -> ProxyError:
        """The error for a connection to the proxy that broke."""
        return self._error(f"did not answer: {error.strerror or error}")

    def _error(self, words: str, *, may_heal: bool = True) -> ProxyError:
        return ProxyError(f"{_asked(self._proxy, self._origin)} {words}", may_heal=may_heal)


def _asked(proxy: Proxy, origin: Origin) -> str:
    return f"the proxy {proxy}, asked to connect to {origin.authority},"


def refusal(proxy: Proxy, origin: Origin, status: int, headers: Headers) -> ProxyError:
    """The error for a proxy that answered `status`, and not 2xx."""
    wanted = ", ".join(headers.get_all("proxy-authenticate"))
    match status:
        case 401 | 407 if wanted and "basic" not in wanted.lower():  # tinyproxy says 401 to credentials that are wrong
            remedy = f"it wants credentials that rawsse cannot give (only Basic is supported): {quote(wanted)}"
        case 401 | 407 if proxy.authorization is None:
            remedy = "it wants a user name and a password (Basic), as in http://user:password@host:port"
        case 401 | 407:
            remedy = "it does not accept the user name and the password that were given for it"
        case 403:
            remedy = "it does not allow that; its operator can, or NO_PROXY takes this host past it"
        case 502 | 503 | 504:
            remedy = "it did not reach that host"
        case _:
            remedy = "no tunnel was opened"
    may_heal = status in (408, 429) or status >= 500
    return ProxyError(f"{_asked(proxy, origin)} answered {status}: {remedy}", status_code=status, may_heal=may_heal)
