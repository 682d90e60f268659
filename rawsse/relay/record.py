"""One record per run: its user, its ending and its tokens.

The relay makes a `RunStart` when a run begins and a `RunRecord` when it ends, and gives both to its observers: the log, the
ledger, the metrics, the quotas. A call of `/v1/messages` without `stream` counts as a run.
"""

from __future__ import annotations

import logging
import re
from dataclasses import asdict, dataclass
from typing import Any

from rawsse.client.stream import EventStream
from rawsse.errors import Ending
from rawsse.messages.content import token_counts
from rawsse.relay.dialects import Failure, one_line

RUN_ID = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""Run ids that clients may choose: safe in header fields and paths, and long enough to be hard to guess."""

LEASE_LOST = "lease_lost"
"""The `error` of a run that its node has lost, and whose end another node tells, too: the metrics count it there, and its
log has it."""

NODE_LOST = "node_lost"
"""The `error` of a run that was cut because its node died, or could not reach the store."""

BYTES_PER_TOKEN = 4
"""How many bytes count as one token where the API has not counted: about right for English text."""

_MEDIA = re.compile(rb'"[A-Za-z0-9+/=]{1000,}+"')
"""Base64 in a request: an image has far fewer tokens than its bytes suggest."""

log = logging.getLogger("rawsse.relay")


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run that has begun. `time` is in Unix seconds, `user` is empty if the relay has no users, `model` is the one
    requested."""

    time: float
    run: str
    user: str
    dialect: str
    model: str


@dataclass(frozen=True, slots=True)
class RunRecord(RunStart):
    """A run that has ended. `model` is the one that answered, if one did.

    `ending` is the kind of an `Ending`; `error` is the type of the failure, such as `rate_limit_error`. The token counts
    are the billed ones if `exact`. The API reports output tokens only at the end of an answer. So those of a stopped or
    truncated answer are estimated: the bytes of content received, divided by `BYTES_PER_TOKEN`. Before `message_start` the
    input tokens are estimated, from the request without base64: the API has the prompt, and may bill it. `estimated_tokens`
    is the part of the counts that the API has not reported. `on_disconnect` is "cancel" or "drain" if every reader left
    before the end. `words` describe the ending for the log: they may contain addresses that browsers must not see.
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
    estimated_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens of all kinds, in and out."""
        return self.output_tokens + self.all_input_tokens

    @property
    def has_answered(self) -> bool:
        """The API has begun to answer: it has counted tokens, and named the model."""
        return self.total_tokens > self.estimated_tokens

    @property
    def all_input_tokens(self) -> int:
        """Input tokens, including those written to the cache and read from it."""
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens

    def to_dict(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return asdict(self)


def record_of(
    start: RunStart, stream: EventStream | None, ending: Ending | None, failure: Failure | None, **more: Any
) -> RunRecord:
    """The record of a run. `stream` is None if the upstream was never called. `more` has the remaining fields of the record:
    `seconds`, `on_disconnect`, `words`."""
    is_ours = failure is not None and failure.type in ("cancelled", "shutdown")
    kind = ending.kind if ending is not None else "cancelled" if is_ours else "error"
    error = failure.type if failure is not None and kind not in ("complete", "cancelled") else None
    usage = {} if stream is None else stream._call.exchange.builder.usage
    counts, is_known = token_counts(usage)
    found: dict[str, Any] = {"stop_reason": None, "first_token_seconds": None, "request_id": None, "exact": True}
    if stream is not None:
        builder = stream._call.exchange.builder
        found = {"stop_reason": builder.stop_reason, "request_id": stream.request_id}
        found["first_token_seconds"] = stream.timing.first_content
        found["exact"] = (builder.is_complete and is_known) or (stream._call.cost_nothing and not usage)
        if isinstance(builder.model, str):
            found["model"] = builder.model
        if not found["exact"]:
            seen = builder.content_bytes if usage else len(_MEDIA.sub(b"", stream._call.settings.request.body))
            counts = estimated_counts(usage, seen)
    return RunRecord(**{**asdict(start), **more, **counts, **found}, ending=kind, error=error)


def estimated_counts(usage: dict[str, Any], seen_bytes: int) -> dict[str, int]:
    """The token counts of a run that are not exact: those of the API's `usage`, or the estimate if that is more. `seen_bytes`
    are those of the content, or of the prompt if there is no `usage`."""
    counts, _ = token_counts(usage)
    kind = "output_tokens" if usage else "input_tokens"
    more = max(0, -(-seen_bytes // BYTES_PER_TOKEN) - counts[kind])
    return {**counts, kind: counts[kind] + more, "estimated_tokens": more}


class Observer:
    """Called twice for each run, in the event loop's thread. Neither method may block. Both do nothing by default."""

    def begun(self, start: RunStart) -> None:
        """A run has begun."""

    def ended(self, record: RunRecord) -> None:
        """The run has ended."""


class RunLog(Observer):
    """Logs one line for each run. A JSON formatter finds the record in `LogRecord.run`."""

    def ended(self, record: RunRecord) -> None:
        """Log how the run ended."""
        level = logging.INFO if record.ending in ("complete", "cancelled") else logging.WARNING
        user = f" of {one_line(record.user)}" if record.user else ""
        how = f"{record.ending}, {one_line(record.words)}, model {one_line(record.model)}"
        tokens_in, out = f"{record.all_input_tokens} tokens in", f"{record.output_tokens} out"
        if record.estimated_tokens:
            tokens_in, out = (tokens_in, f"about {out}") if record.has_answered else (f"about {tokens_in}", out)
        tokens = f"{tokens_in}, {out}"
        text = "run %s (%s)%s ended: %s, %s, %.1f s, request %s"
        values = (record.run, record.dialect, user, how, tokens, record.seconds, record.request_id)
        if record.error != LEASE_LOST:
            log.log(level, text, *values, extra={"run": record})
