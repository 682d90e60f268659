"""One row per run: who asked for it, how it ended, and what it cost.

The relay makes a `RunStart` when a run begins and a `RunRecord` when it ends, and gives both to its observers: the log, the
ledger, the metrics, the quotas. A call of `/v1/messages` without `stream` is a run here, too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rawsse.client.stream import EventStream
from rawsse.errors import Ending
from rawsse.messages.content import token_counts
from rawsse.relay.dialects import Failure, one_line

RUN_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""The ids of runs that others may choose: they come in header fields and paths, and must be hard to guess."""

log = logging.getLogger("rawsse.relay")


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run that has begun. `time` is in Unix seconds, `user` is empty where the relay has no users, `model` was asked for."""

    time: float
    run: str
    user: str
    dialect: str
    model: str


@dataclass(frozen=True, slots=True)
class RunRecord(RunStart):
    """A run that has ended. `model` is the one that answered, if one did.

    `ending` is the kind of an `Ending`; `error` the type of the failure, as `rate_limit_error`. The token counts are those
    that are billed; they are a lower bound unless `exact`. `on_disconnect` is "cancel" or "drain" if every reader left before
    the end. `words` say how the run ended, for the log: they may name addresses that a browser is not told.
    """

    ending: str
    stop_reason: str | None
    error: str | None
    seconds: float
    first_token_seconds: float | None
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    exact: bool
    on_disconnect: str | None
    request_id: str | None
    words: str

    @property
    def total_tokens(self) -> int:
        """Tokens of all kinds, in and out."""
        return self.output_tokens + self.all_input_tokens

    @property
    def all_input_tokens(self) -> int:
        """Tokens in, those written to the cache and read from it included."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON has it."""
        return asdict(self)


def record_of(
    start: RunStart,
    stream: EventStream | None,
    ending: Ending | None,
    failure: Failure | None,
    *,
    seconds: float,
    on_disconnect: str | None = None,
    words: str,
) -> RunRecord:
    """The record of a run that ended so. `stream` is None if the upstream was never called."""
    is_ours = failure is not None and failure.type in ("cancelled", "shutdown")
    kind = ending.kind if ending is not None else "cancelled" if is_ours else "error"
    tokens, exact = token_counts({})[0], True
    first_token_seconds = request_id = stop_reason = None
    model = start.model
    if stream is not None:
        answer = stream._call.exchange
        builder = answer.builder
        tokens, is_whole = token_counts(builder.usage)
        is_refused = answer.phase == "connect" or (answer.response is not None and not answer.is_open)
        exact = (builder.is_complete and is_whole) or (is_refused and not builder.usage)
        model = builder.model if isinstance(builder.model, str) else model
        first_token_seconds, request_id, stop_reason = (
            stream.timing.first_content,
            stream.request_id,
            builder.stop_reason,
        )
    return RunRecord(
        start.time,
        start.run,
        start.user,
        start.dialect,
        model,
        ending=kind,
        stop_reason=stop_reason,
        error=failure.type if failure is not None and kind not in ("complete", "cancelled") else None,
        seconds=seconds,
        first_token_seconds=first_token_seconds,
        exact=exact,
        on_disconnect=on_disconnect,
        request_id=request_id,
        words=words,
        **tokens,
    )


class Observer:
    """Is told of each run twice, in the event loop's thread. Neither function may wait. Both do nothing by default."""

    def begun(self, start: RunStart) -> None:
        """A run has begun."""

    def ended(self, record: RunRecord) -> None:
        """It has ended."""


class RunLog(Observer):
    """Writes one line of the log for each run. A JSON formatter finds the record in `LogRecord.run`."""

    def ended(self, record: RunRecord) -> None:
        """Log how the run ended."""
        level = logging.INFO if record.ending in ("complete", "cancelled") else logging.WARNING
        who = f" of {one_line(record.user)}" if record.user else ""
        text = "run %s (%s)%s ended: %s, %s, model %s, %d tokens in, %d out, %.1f s, request %s"
        log.log(
            level,
            text,
            record.run,
            record.dialect,
            who,
            record.ending,
            one_line(record.words),
            one_line(record.model),
            record.all_input_tokens,
            record.output_tokens,
            record.seconds,
            record.request_id,
            extra={"run": record},
        )


class OnEnd(Observer):
    """Calls the embedder's function with each record."""

    def __init__(self, on_end: Callable[[RunRecord], None]) -> None:
        self._on_end = on_end

    def ended(self, record: RunRecord) -> None:
        """Call it."""
        self._on_end(record)
