"""A small asyncio HTTP server that hosts any ASGI 3 application.

It implements ASGI (https://asgi.readthedocs.io: HTTP 2.4, lifespan 2.0) on `http1.ServerConnection`, with a deadline for
every wait. WebSocket requests are answered with 400. There is no TLS: use a reverse proxy for that.

    async with Server(app, port=0) as server:        # in a program or a test: leaving it shuts down
        print(server.base_url)

    asyncio.run(serve(app, port=8000, ready=print))  # until SIGTERM or SIGINT

Read in this order:

    asgi.py        ASGI without connections: the types, the scope of a request, the lifespan, reverse proxies
    connection.py  one TCP connection, and the application calls for its requests
    server.py      the listening socket, and a shutdown with a time limit

EOF or a reset means that the client has disconnected, even if it closed only its sending side. `receive` then returns
`http.disconnect` at once, and `send` raises `ClientDisconnectedError`. The server notices neither while the app leaves
`max_buffered_bytes` of the request's body unread, since reading is then paused.

An extension for apps that forward a stream: `extensions["rawsse.push"]` is an `Outlet`, which writes to the connection
directly, without a task that waits in `send`.

An extension for programs that break HTTP on purpose: `extensions["rawsse.wire"]` is the connection. `take_over()` returns its
transport (`asyncio.Transport`), and from then on only the app writes to it. `drain()` waits until the client has caught up.
The app must call `end()` or `abort()` before it returns.
"""

from rawsse.server.asgi import ASGIApp, ClientDisconnectedError, Forwarded, Message, Outlet, Receive, Scope, Send
from rawsse.server.connection import Limits
from rawsse.server.server import Server, room_for_connections, serve

__all__ = ["ASGIApp", "ClientDisconnectedError", "Forwarded", "Limits", "Message", "Outlet", "Receive", "Scope", "Send"]
__all__ += ["Server", "room_for_connections", "serve"]
