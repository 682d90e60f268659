"""Metrics for Prometheus and spans for OpenTelemetry, under the names of OpenTelemetry's conventions for generative AI.

    metrics = Metrics({"rawsse_readers": count_readers})     # an observer of runs
    metrics.count_refusal("rate_limit_error")
    body = metrics.render().encode()                         # the body of `GET /metrics`, of type CONTENT_TYPE

    tracing = Tracing(provider)     # another observer; needs the extra `otel`. The caller shuts the provider down

The metrics' format is version 0.0.4 of https://prometheus.io/docs/instrumenting/exposition_formats/. Their names, labels and
buckets are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, with `_` for each dot and the unit
appended. Users are never labels: each label value is kept until the process ends. The attributes of spans are those of
https://opentelemetry.io/docs/specs/semconv/gen-ai/anthropic/.
"""

from __future__ import annotations

import importlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from rawsse.errors import ConfigurationError
from rawsse.relay.dialects import one_line
from rawsse.relay.record import LEASE_LOST, NODE_LOST, Observer, RunRecord, RunStart

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MAX_MODELS_COUNTED = 50
"""How many models get a label. A client may request any name, so only models that answered are counted."""

MAX_TYPES_COUNTED = 30
"""The same for error types and reasons for refusals: upstreams and embedders may invent more."""

OTHER = "other"
"""The label of everything beyond these limits."""

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""The upper bounds of the buckets, as the conventions specify."""

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """One metric. A histogram has `bounds`."""

    kind: str
    help: str
    bounds: tuple[float, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "gen_ai_client_operation_duration_seconds": Family("histogram", "Seconds that a call of the API took.", SECONDS),
    "gen_ai_client_operation_time_to_first_chunk_seconds": Family("histogram", "Seconds to the first text.", SECONDS),
    "gen_ai_client_token_usage": Family("histogram", "Tokens that a call used, including those of the cache.", TOKENS),
    "rawsse_cache_tokens_total": Family("counter", "Input tokens written to the prompt cache, and read from it."),
    "rawsse_runs_total": Family("counter", "Runs that have ended."),
    "rawsse_upstream_errors_total": Family("counter", "Runs that failed at the API, by the type of the error."),
    "rawsse_relay_errors_total": Family("counter", "Runs that were cut because a node, or its store, was lost."),
    "rawsse_resumes_total": Family("counter", "Requests to read a run again."),
    "rawsse_refused_requests_total": Family("counter", "Requests that were refused before a call of the API."),
    "rawsse_open_streams": Family("gauge", "Runs that have not ended."),
    "rawsse_readers": Family("gauge", "Clients that are reading a run, at this node."),
    "rawsse_ready": Family("gauge", "1: new runs may begin. 0: a shutdown has begun, or the store is lost."),
    "rawsse_ledger_rows_dropped_total": Family("counter", "Rows that the ledger could not write."),
}

# For label values. The format also escapes line feeds, but `one_line` removes those.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\""})


class Metrics(Observer):
    """An observer of runs that counts them.

    `read` maps metrics that are counted elsewhere, such as `rawsse_readers`, to functions that return their value; `render`
    calls them. `models` are those that the operator has configured: they always have a label.
    """

    def __init__(self, read: Mapping[str, Callable[[], float]] | None = None, models: Iterable[str] = ()) -> None:
        self._read = {"rawsse_open_streams": lambda: len(self._asked), **(read or {})}
        self._counts: defaultdict[str, defaultdict[Labels, int]] = defaultdict(lambda: defaultdict(int))
        # The counts of the buckets, and the sum.
        self._histograms: defaultdict[str, dict[Labels, list[float]]] = defaultdict(dict)
        self._models = _Names(MAX_MODELS_COUNTED, models)
        self._types = _Names(MAX_TYPES_COUNTED)
        self._asked: dict[tuple[str, str], str] = {}  # of open runs: the requested model

    def begun(self, start: RunStart) -> None:
        """A run has begun."""
        self._asked[start.user, start.run] = start.model

    def ended(self, record: RunRecord) -> None:
        """Count the run, its time and its tokens."""
        asked = self._asked.pop((record.user, record.run), record.model)
        if record.error == LEASE_LOST:  # counted by the node that ended it
            self._count("rawsse_relay_errors_total", type=record.error)
            return
        labels = {
            "gen_ai_operation_name": "chat",
            "gen_ai_provider_name": "anthropic",
            "gen_ai_request_model": self._models.find(asked, takes_place=record.has_answered),
        }
        if record.has_answered:
            labels["gen_ai_response_model"] = self._models.find(record.model)
            for kind, count in (("input", record.all_input_tokens), ("output", record.output_tokens)):
                self._observe("gen_ai_client_token_usage", count, **labels, gen_ai_token_type=kind)
            self._count("rawsse_cache_tokens_total", record.cache_creation_input_tokens, kind="creation")
            self._count("rawsse_cache_tokens_total", record.cache_read_input_tokens, kind="read")
        if record.first_token_seconds is not None:
            self._observe("gen_ai_client_operation_time_to_first_chunk_seconds", record.first_token_seconds, **labels)
        if record.error is not None:
            labels["error_type"] = self._types.find(record.error)
            whose = "relay" if record.error == NODE_LOST else "upstream"
            self._count(f"rawsse_{whose}_errors_total", type=labels["error_type"])
        self._observe("gen_ai_client_operation_duration_seconds", record.seconds, **labels)
        self._count("rawsse_runs_total", ending=record.ending, dialect=record.dialect)

    def count_resume(self, result: str) -> None:
        """A client reconnected to a run: `result` is one of a few words, such as "resumed" or "gone"."""
        self._count("rawsse_resumes_total", result=self._types.find(result))

    def count_refusal(self, reason: str) -> None:
        """A request was refused: `reason` is the type of its error."""
        self._count("rawsse_refused_requests_total", reason=self._types.find(reason))

    def render(self) -> str:
        """All metrics that have a value, in Prometheus' text format."""
        lines: list[str] = []
        for name, family in FAMILIES.items():
            samples = [_sample(name, labels, count) for labels, count in self._counts[name].items()]
            for labels, (*counts, total) in self._histograms[name].items():
                # "le": a bucket counts all values that are less than its bound, or equal.
                for bound, count in zip((*map(str, family.bounds), "+Inf"), accumulate(counts), strict=True):
                    samples.append(_sample(f"{name}_bucket", (*labels, ("le", bound)), count))
                samples += [_sample(f"{name}_sum", labels, total), _sample(f"{name}_count", labels, sum(counts))]
            if name in self._read:
                samples.append(_sample(name, (), self._read[name]()))
            if samples:
                lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}", *samples]
        return "\n".join(lines) + "\n"

    def _count(self, name: str, by: int = 1, **labels: str) -> None:
        self._counts[name][tuple(labels.items())] += by

    def _observe(self, name: str, value: float, **labels: str) -> None:
        bounds = FAMILIES[name].bounds
        counts = self._histograms[name].setdefault(tuple(labels.items()), [0] * (len(bounds) + 2))
        counts[bisect_left(bounds, value)] += 1
        counts[-1] += value


class _Names:
    """Names from outside as labels: the `known` ones, the first `limit` others, and `OTHER` for the rest."""

    def __init__(self, limit: int, known: Iterable[str] = ()) -> None:
        self._known = {one_line(name) for name in known}
        self._limit = limit + len(self._known)

    def find(self, name: str, *, takes_place: bool = True) -> str:
        name = one_line(name)  # bounded, and without the lone surrogates that JSON can contain
        if takes_place and len(self._known) < self._limit:
            self._known.add(name)
        return name if name in self._known else OTHER


def _sample(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    pairs = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels)
    return f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}"


# --- Spans ---------------------------------------------------------------------------------------------------------

_REQUEST: Mapping[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.stream": True,
}


class Tracing(Observer):
    """An observer that makes a span of each run. `provider` is a `TracerProvider`, or None for the global one.

    The parent is the span that is current when the run begins: the relay calls `begun` in the task of the request, and
    OpenTelemetry's ASGI middleware makes the request's span current. Raises `ConfigurationError` if opentelemetry-api is not
    installed.
    """

    def __init__(self, provider: Any = None) -> None:
        try:
            self._trace = importlib.import_module("opentelemetry.trace")
        except ImportError:
            raise ConfigurationError("tracing needs opentelemetry-api: install the extra `otel`") from None
        self._tracer = self._trace.get_tracer("rawsse", tracer_provider=provider)
        self._spans: dict[tuple[str, str], Any] = {}  # of open runs

    def begun(self, start: RunStart) -> None:
        """Begin the run's span."""
        model = one_line(start.model)
        kind, attributes = self._trace.SpanKind.CLIENT, {**_REQUEST, "gen_ai.request.model": model}
        options = {"kind": kind, "attributes": attributes, "start_time": _nanoseconds(start.time)}
        self._spans[start.user, start.run] = self._tracer.start_span(f"chat {model}", **options)

    def ended(self, record: RunRecord) -> None:
        """End the run's span, if it has one."""
        span = self._spans.pop((record.user, record.run), None)
        if span is None:
            return
        reason = record.stop_reason
        found: dict[str, Any] = {
            "rawsse.ending": record.ending,
            "gen_ai.response.finish_reasons": (one_line(reason),) if reason is not None else None,
            "gen_ai.response.time_to_first_chunk": record.first_token_seconds,
        }
        if record.has_answered:
            found |= {
                "gen_ai.response.model": one_line(record.model),
                # "Anthropic `input_tokens` excludes cached tokens", and the attribute includes them.
                "gen_ai.usage.input_tokens": record.all_input_tokens,
                "gen_ai.usage.output_tokens": record.output_tokens,
                "gen_ai.usage.cache_creation.input_tokens": record.cache_creation_input_tokens,
                "gen_ai.usage.cache_read.input_tokens": record.cache_read_input_tokens,
            }
        if record.error is not None:
            found["error.type"] = one_line(record.error)
            span.set_status(self._trace.StatusCode.ERROR, one_line(record.words))
        span.set_attributes({name: value for name, value in found.items() if value is not None})
        span.end(_nanoseconds(record.time + record.seconds))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
