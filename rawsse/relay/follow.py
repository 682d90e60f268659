"""A run, or several, sent over one HTTP exchange until they end, or until the client disconnects.

await follow(exchange, run, after=12)
await follow_all(exchange, [(run, 12), (other, 0)], missing=["a-run-that-is-not-there"])
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rawsse.relay.dialects import Answer, Dialect, Failure, compact, frame
from rawsse.relay.exchange import JSON, TEXT, Exchange
from rawsse.relay.feed import Feed, Reader
from rawsse.server import Outlet

SSE_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),  # nginx would buffer the whole answer
)

STOPPED_STATUS = 499
"""The status of an answer in the API's form that was stopped before it began: clients would take a 200 for an empty answer,
and would retry after a 5xx."""

_FORWARDED = re.compile(
    r"request-id|retry-after(-ms)?|x-should-retry|anthropic-(workspace-id|(ratelimit|priority|fast)-.*)"
)


async def follow(
    exchange: Exchange, run: Feed, after: int = 0, *, first: bytes = b"", keeps_status: bool = False
) -> None:
    """Send the frames after the position `after`, and `first` before them. Raises `Gone` before anything is sent.

    `keeps_status`: the head waits for the first frame, so that an earlier failure keeps its HTTP status. Do not use it for a
    client that reconnects to a run: it may be an `EventSource`, which reads only a 200.
    """
    if run.is_finished and after >= run.last and not first:
        await exchange.send_whole(204)
        return
    outlet = exchange.outlet()

    def start() -> None:
        failure = run.early_failure if keeps_status and run.dialect.keeps_status else None
        if failure is not None and not run.dialect.is_resumable:  # `/v1/messages` sends errors as the API does: in JSON
            answer = refused(failure)
            length = ("content-length", str(len(answer.body)))
            outlet.start(answer.status, exchange.fields((JSON, *answer.headers, length)))
            outlet.end(answer.body)
            reader.close()
            return
        kind = SSE_HEADERS if run.dialect.heartbeat else (JSON, ("content-length", str(run.log_bytes)))
        run_id = (("x-run-id", run.id),) if run.dialect.is_resumable else ()
        upstream = forwarded(failure.headers if failure else run.headers)
        headers = exchange.fields((*kind, *run.dialect.headers, *run_id, *upstream))
        outlet.start(failure.status if failure else 200, headers)
        if first:
            outlet.write(first)

    outlet.sink = reader = Reader(run, after, outlet, start)
    run.join(reader, holds=keeps_status)
    try:
        await outlet.closed()
    finally:
        reader.close()


async def follow_all(exchange: Exchange, wanted: Sequence[tuple[Feed, int]], missing: Sequence[str]) -> None:
    """Send several runs, each from a position, until all have ended.

    The first event is `event: runs`. Its `runs` maps the first part of frame ids to run ids; `missing` lists runs that do not
    exist or whose frames are no longer kept. Frames are unchanged.
    """
    kept = [(run, after) for run, after in wanted if run.keeps(after)]
    missing = [*missing, *(run.id for run, after in wanted if not run.keeps(after))]
    if not missing and all(run.is_finished and after >= run.last for run, after in kept):
        await exchange.send_whole(204)
        return
    outlet = exchange.outlet()
    outlet.start(200, exchange.fields(SSE_HEADERS))
    told = {"runs": {run.tag: run.id for run, _ in kept}, "missing": missing}
    (outlet.write if kept else outlet.end)(frame(compact(told), "runs").encode())
    outlet.sink = readers = Readers(outlet, kept)
    try:
        for reader, (run, _) in zip(readers.all, kept, strict=True):
            run.join(reader)
        await outlet.closed()
    finally:
        readers.on_closed()


async def send_refusal(exchange: Exchange, dialect: Dialect, answer: Answer) -> None:
    """Send an error in the form that the dialect's clients can show."""
    if not dialect.is_resumable:
        await exchange.send_answer(answer)
    elif dialect.keeps_status:
        frames = dialect.fail(Failure(answer.status, answer.type, str(answer), field=answer.field))
        await exchange.send_whole(answer.status, (*SSE_HEADERS, *answer.headers), "".join(frames).encode())
    else:  # `useChat` shows the body of an error response
        await exchange.send_whole(answer.status, (TEXT, *answer.headers), str(answer).encode())


class Readers:
    """The readers of several runs, which share an outlet. The outlet ends with the last of them."""

    def __init__(self, outlet: Outlet, wanted: Sequence[tuple[Feed, int]]) -> None:
        self._outlet = outlet
        self._left = len(wanted)
        self.write = outlet.write
        self.all = [Reader(run, after, self, lambda: None) for run, after in wanted]

    def end(self, data: bytes = b"") -> None:
        """Write the last piece of one reader."""
        self._left -= 1
        (self._outlet.write if self._left else self._outlet.end)(data)

    def cut(self) -> None:
        """One of the runs is cut, and with it the response: its client reconnects for the rest of all of them."""
        self._outlet.cut()
        self.on_closed()

    def on_drain(self) -> None:
        """The client has caught up."""
        for reader in self.all:
            reader.on_drain()

    def on_closed(self) -> None:
        """The client has disconnected."""
        for reader in self.all:
            reader.close()


def refused(failure: Failure) -> Answer:
    """The failure in the API's form, with its status and the header fields that clients read."""
    headers = dict(forwarded(failure.headers))
    if failure.ending is not None and failure.ending.request_id is not None:
        headers["request-id"] = failure.ending.request_id
    status = failure.status if failure.status >= 400 else STOPPED_STATUS
    answer = Answer(status, failure.type, failure.message, headers=headers)
    if failure.body is not None:
        answer.body = compact(failure.body).encode()  # the SDKs choose the exception by its details
    return answer


def forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """The API's header fields for rate limits and for support. Clients need no others."""
    return [(name, headers[name]) for name in headers if _FORWARDED.fullmatch(name)]
