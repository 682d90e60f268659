"""HTTP/1.1 as bytes in and bytes out, both roles, over h11. Pure: no sockets, no clock, no randomness.

This room knows RFC 9110 and 9112 as far as h11 leaves them to its user: limits, messages that two readers would read in two
ways, framing of what we send, keep-alive, chunked bodies, content codings. It refuses to know TLS, deadlines, and what a
body means.

Read in this order:

    message.py     what messages are made of: header fields, heads, pieces of bodies
    codings.py     the wrappings of a body: chunked, gzip, deflate
    connection.py  one connection, in either role. The only file that imports h11.

    client = ClientConnection(host="api.anthropic.com")
    wire = client.send_request("POST", "/v1/messages", [("content-type", "application/json")], body)
    client.receive_data(bytes_from_the_peer)      # b"" says that the peer closed
    while (event := client.next_event()) is not None:
        ...                                       # Response, Data, EndOfMessage; None: more bytes are needed

    server = ServerConnection()
    server.receive_data(bytes_from_the_peer)
    server.next_event()                           # Request, Data, EndOfMessage, ConnectionClosed; None
    wire = server.send_response(200, [("content-type", "text/plain")])
    wire += server.send_data(b"hello") + server.send_end()

Events come one at a time, so that the connection's state always belongs to the event at hand. Header names are lower-case
`str`, header values `str` (latin-1, as RFC 9110 5.5 has it); bodies are `bytes`. What the peer does wrong raises
`HTTPProtocolError` or a `LimitExceededError`; what you do wrong raises `HTTPUsageError`. No error quotes a header's value.
"""

from rawsse.http1.codings import (
    MAX_CHUNK_HEAD_BYTES,
    MAX_DECODED_BYTES,
    ChunkedReader,
    ContentDecoder,
)
from rawsse.http1.connection import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_PIPELINED_BYTES,
    ClientConnection,
    RawHeaders,
    ServerConnection,
)
from rawsse.http1.message import ConnectionClosed, Data, EndOfMessage, Headers, Request, Response

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_CHUNK_HEAD_BYTES",
    "MAX_DECODED_BYTES",
    "MAX_HEAD_BYTES",
    "MAX_PIPELINED_BYTES",
    "ChunkedReader",
    "ClientConnection",
    "ConnectionClosed",
    "ContentDecoder",
    "Data",
    "EndOfMessage",
    "Headers",
    "RawHeaders",
    "Request",
    "Response",
    "ServerConnection",
]
