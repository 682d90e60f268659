"""The Messages API, re-emitted to browsers. An ASGI 3 application.

Read in this order:

    dialects.py  the frames for a browser, and the requests that it may send
    ui.py        the dialect of the Vercel AI SDK
    paths.py     the paths that begin a run, and the dialects of each
    users.py     who may use the relay: users, tokens, limits, and what a request may choose
    record.py    one row per run: its user, its ending and its tokens
    metrics.py   metrics for Prometheus and spans for OpenTelemetry, from these rows
    ledger.py    these rows in a SQLite file, and their sums
    push.py      the events of an answer, pushed to a function as they arrive
    feed.py      the log of a run's frames, and its readers
    store.py     shared storage of runs, so that each of several relays can read, resume and stop every run
    redis_store.py  the same in Redis
    quotas.py    how much each user may use
    runs.py      one upstream generation each, with a feed; where a relay begins and finds them
    stored_runs.py  runs whose log is in a store: a node's own, and other nodes'
    node.py      one of several relays that share a store
    guard.py     which hosts and origins the relay answers
    exchange.py  one HTTP exchange over ASGI: bodies, errors, header fields, and the outlet for a stream
    follow.py    a run, or several, sent over one HTTP exchange
    doctor.py    events at known times, to show how proxies delay or change them
    event_source.py  heartbeats, resume and stop for any stream of events, in any ASGI application
    page.py      the files of a folder: the built-in page, or the operator's
    app.py       the routes
"""

from rawsse.relay.app import Relay
from rawsse.relay.dialects import Answer, Failure
from rawsse.relay.event_source import EventRuns, event_source
from rawsse.relay.guard import Guard, check_bind
from rawsse.relay.ledger import Ledger
from rawsse.relay.metrics import Tracing
from rawsse.relay.record import Observer, RunRecord
from rawsse.relay.redis_store import RedisStore
from rawsse.relay.runs import RunLimits
from rawsse.relay.store import MemoryStore, Store
from rawsse.relay.users import User, UserFile, UserLimits

__all__ = ["EventRuns", "Guard", "Ledger", "Observer", "Relay", "RunLimits", "RunRecord", "Tracing", "User", "UserFile"]
__all__ += ["Answer", "Failure", "MemoryStore", "RedisStore", "Store", "UserLimits", "check_bind", "event_source"]
