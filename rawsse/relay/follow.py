"""A run, or several, sent over one HTTP exchange until its end, or until the client goes.

await follow(exchange, run, after=12)
await follow_all(exchange, [(run, 12), (other, 0)], missing=["a-run-that-is-not-there"])
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rawsse.relay.dialects import Answer, Dialect, Failure, compact, frame
from rawsse.relay.exchange import JSON, TEXT, Exchange
from rawsse.relay.runs import Reader, Run
from rawsse.server import Outlet

SSE_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store, no-transform"),
    ("x-accel-buffering", "no"),  # nginx would gather the whole answer
)

STOPPED_STATUS = 499
"""Of an answer in the API's form that was stopped before it had begun: its clients would take a 200 for an empty answer, and a
5xx for one to be asked for again."""

_FORWARDED = re.compile(
    r"request-id|retry-after(-ms)?|x-should-retry|anthropic-(workspace-id|(ratelimit|priority|fast)-.*)"
)


async def follow(
    exchange: Exchange, run: Run, after: int = 0, *, first: bytes = b"", keeps_status: bool = False
) -> None:
    """Send the frames after the position `after`, and `first` before them. Raises `Gone` before anything was sent.

    `keeps_status`: the head waits until there is something to say, so that a failure before it keeps its HTTP status.
    Whoever comes back to a run may be an `EventSource`, which reads no frame of any answer but a 200.
    """
    if run.is_finished and after >= run.last and not first:
        await exchange.send_whole(204)
        return
    outlet = exchange.outlet()

    def start() -> bool:
        failure = run.early_failure if keeps_status and run.dialect.keeps_status else None
        if failure is not None and not run.dialect.is_resumable:  # `/v1/messages` refuses as the API does: in JSON
            answer = refused(failure)
            length = ("content-length", str(len(answer.body)))
            outlet.start(answer.status, exchange.fields((JSON, *answer.headers, length)))
            outlet.end(answer.body)
            return False
        said = forwarded(failure.headers if failure else run.headers)
        run_id = (("x-run-id", run.id),) if run.dialect.is_resumable else ()
        kind = SSE_HEADERS if run.dialect.heartbeat else (JSON, ("content-length", str(run.log_bytes)))
        headers = exchange.fields((*kind, *run.dialect.headers, *run_id, *said))
        outlet.start(failure.status if failure else 200, headers)
        return True

    reader = Reader(run, outlet, after, start, first)
    run.join(reader, holds=keeps_status)
    try:
        await outlet.closed()
    finally:
        reader.close()


async def follow_all(exchange: Exchange, wanted: Sequence[tuple[Run, int]], missing: Sequence[str]) -> None:
    """Send several runs, each from a position on, until all have ended.

    The first event is `event: runs`. Its `runs` has the id of each run by the first part of its frames' ids; `missing` has
    those that are not there, or whose frames are no longer kept. Each frame is as its run has it.
    """
    kept = [(run, after) for run, after in wanted if run.keeps(after)]
    missing = [*missing, *(run.id for run, after in wanted if not run.keeps(after))]
    if not missing and all(run.is_finished and after >= run.last for run, after in kept):
        await exchange.send_whole(204)
        return
    outlet = exchange.outlet()
    lanes = Lanes(outlet, len(kept))
    outlet.start(200, exchange.fields(SSE_HEADERS))
    told = {"runs": {run.tag: run.id for run, _ in kept}, "missing": missing}
    lanes.write(frame(compact(told), "runs").encode())
    readers = [Reader(run, lane, after, lambda: True) for lane, (run, after) in zip(lanes.lanes, kept, strict=True)]
    try:
        for reader, (run, _) in zip(readers, kept, strict=True):
            run.join(reader)
        await outlet.closed()
    finally:
        for reader in readers:
            reader.close()


async def send_refusal(exchange: Exchange, dialect: Dialect, answer: Answer) -> None:
    """Send a refusal of a run in the form that the clients of its dialect show to a person."""
    words = str(answer)
    if not dialect.is_resumable:
        await exchange.send_answer(answer)
    elif dialect.keeps_status:
        frames = dialect.fail(Failure(answer.status, answer.type, words))
        await exchange.send_whole(answer.status, (*SSE_HEADERS, *answer.headers), "".join(frames).encode())
    else:  # `useChat` shows the body of an answer that is no success
        await exchange.send_whole(answer.status, (TEXT, *answer.headers), words.encode())


class Lanes:
    """One outlet, shared by `count` readers: each writes to a lane. The outlet ends when every lane has ended."""

    def __init__(self, outlet: Outlet, count: int) -> None:
        self.lanes = [Lane(self) for _ in range(count)]
        self._open = set(self.lanes)
        self._outlet = outlet
        outlet.sink = self

    def write(self, data: bytes) -> bool:
        """See `Outlet.write`. Each lane may write once more after one of them was told to wait."""
        if self._open:
            return self._outlet.write(data)
        self._outlet.end(data)
        return True

    def end(self, lane: Lane, data: bytes) -> None:
        """The lane has ended."""
        self._open.discard(lane)
        self.write(data)

    def on_drain(self) -> None:
        """The client takes more."""
        for lane in list(self._open):
            lane.sink.on_drain()

    def on_closed(self) -> None:
        """The client has gone."""
        for lane in list(self._open):
            lane.sink.on_closed()


class Lane:
    """The outlet of one reader of several."""

    def __init__(self, lanes: Lanes) -> None:
        self.sink: Any = None
        self._lanes = lanes

    def write(self, data: bytes) -> bool:
        """See `Outlet.write`."""
        return self._lanes.write(data)

    def end(self, data: bytes = b"") -> None:
        """See `Outlet.end`."""
        self._lanes.end(self, data)


def refused(failure: Failure) -> Answer:
    """The failure in the API's form, with its status and the header fields that its clients go by."""
    headers = dict(forwarded(failure.headers))
    if failure.ending is not None and failure.ending.request_id is not None:
        headers["request-id"] = failure.ending.request_id
    status = failure.status if failure.status >= 400 else STOPPED_STATUS
    answer = Answer(status, failure.type, failure.message, headers=headers)
    if failure.body is not None:
        answer.body = compact(failure.body).encode()  # with its details: the SDKs' classes go by them
    return answer


def forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the API says about limits and for support; everything else of its head is between it and the relay."""
    return [(name, headers[name]) for name in headers if _FORWARDED.fullmatch(name)]
