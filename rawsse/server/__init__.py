"""A small asyncio HTTP server that hosts any ASGI 3 application.

It implements ASGI (https://asgi.readthedocs.io: HTTP 2.4, lifespan 2.0) on `http1.ServerConnection`, with a deadline for
every wait. There is no WebSocket (answered 400), and no TLS: use a reverse proxy for that.

    async with Server(app, port=0) as server:        # in a program or a test: leaving it shuts down
        print(server.base_url)

    asyncio.run(serve(app, port=8000, ready=print))  # until SIGTERM or SIGINT

Read in this order:

    asgi.py        ASGI without connections: the types, the scope of a request, the lifespan
    forwarded.py   behind a reverse proxy: the client that the proxy saw
    connection.py  one TCP connection, and the calls of the app that answer its requests
    server.py      the listening socket, and a shutdown within its time

A client is gone at EOF, also when it closed only its sending side, and at a reset: then `receive` gives `http.disconnect`
at once and `send` raises `ClientDisconnectedError`. Neither is seen while the app leaves `max_buffered_bytes` of the body
untaken, since reading is then paused.

An extension for apps that pass a stream on: `extensions["rawsse.push"]` is an `Outlet`, which writes to the connection in the
caller's call, without a task that waits in `send`.

An extension for programs that break HTTP on purpose: `extensions["rawsse.wire"]` is the connection. `take_over()` gives its
transport (`asyncio.Transport`), and from then on the app alone writes to it. `drain()` waits while the client takes less than
is written. `end()` or `abort()` ends the connection, at the latest before the app returns.
"""

from rawsse.server.asgi import ASGIApp, ClientDisconnectedError, Message, Outlet, Receive, Scope, Send
from rawsse.server.connection import Limits
from rawsse.server.forwarded import Forwarded
from rawsse.server.server import Server, room_for_connections, serve

__all__ = ["ASGIApp", "ClientDisconnectedError", "Forwarded", "Limits", "Message", "Outlet", "Receive", "Scope", "Send"]
__all__ += ["Server", "room_for_connections", "serve"]
