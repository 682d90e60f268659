"""HTTP/1.1 as bytes in and bytes out, both roles, over h11. Pure: no sockets, no clock, no randomness.

h11 parses the heads. This package adds limits, protection from request smuggling, framing of outgoing bodies, keep-alive,
chunked bodies and content codings (RFC 9110 and 9112).

Read in this order:

    codings.py     the codings of a body: chunked, gzip, deflate
    connection.py  one connection, in either role, and its events. The only file that imports h11.

    client = ClientConnection(host="api.anthropic.com")
    wire = client.send_request("POST", "/v1/messages", [("content-type", "application/json")], body)
    client.receive_data(bytes_from_the_peer)      # b"" means that the peer closed
    while (event := client.next_event()) is not None:
        ...                                       # Response, Data, EndOfMessage; None: more bytes are needed

    server = ServerConnection()
    server.receive_data(bytes_from_the_peer)
    server.next_event()                           # Request, Data, EndOfMessage, ConnectionClosed; None
    wire = server.send_response(200, [("content-type", "text/plain")])
    wire += server.send_data(b"hello") + server.send_end()

Events are returned one at a time, so that the connection's state always belongs to the latest event. All received bytes of a
body are one `Data`, however they were chunked. Header names are lower-case `str`, header values `str` (latin-1, RFC 9110,
5.5), bodies `bytes`. Violations by the peer raise `HTTPProtocolError` or a `LimitExceededError`, misuse by the caller
`HTTPUsageError`; no error quotes a header's value.
"""

from rawsse.http1.codings import *
from rawsse.http1.connection import *

__all__ = ["ClientConnection", "RawHeaders", "ServerConnection", "host_name"]
__all__ += ["ConnectionClosed", "Data", "EndOfMessage", "Headers", "Request", "Response"]
__all__ += ["ChunkedReader", "ContentDecoder"]
__all__ += ["MAX_BODY_BYTES", "MAX_CHUNK_HEAD_BYTES", "MAX_DECODED_BYTES", "MAX_HEAD_BYTES", "MAX_PIPELINED_BYTES"]
