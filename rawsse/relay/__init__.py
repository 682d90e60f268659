"""The Messages API, re-emitted to browsers. An ASGI 3 application.

Read in this order:

    dialects.py  what a browser is sent for each event, and what it may send
    ui.py        the dialect of the Vercel AI SDK
    record.py    one row per run: who asked for it, how it ended, and what it cost
    users.py     who may use the relay: users, their limits and tokens
    quotas.py    how much each user may use
    choices.py   the system prompt, model and `max_tokens` that a request may choose
    push.py      the events of an answer, pushed to a function as they come
    runs.py      one upstream generation each, with its own log, read from any point
    guard.py     which hosts and origins it answers
    exchange.py  one HTTP exchange over ASGI: bodies, errors, header fields, and where a stream is written
    app.py       the routes, the files of the page; how a run and an HTTP exchange meet
"""

from rawsse.relay.app import Relay
from rawsse.relay.guard import Guard, check_bind
from rawsse.relay.runs import RunLimits
from rawsse.relay.users import User, UserFile, UserLimits

__all__ = ["Guard", "Relay", "RunLimits", "User", "UserFile", "UserLimits", "check_bind"]
