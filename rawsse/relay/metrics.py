"""Counts of runs, tokens and failures for Prometheus, under the names of OpenTelemetry's conventions for generative AI.

    metrics = Metrics({"rawsse_readers": count_readers})     # an observer of runs
    metrics.count_refusal("rate_limit_error")
    body = metrics.render().encode()                         # the body of `GET /metrics`, of type CONTENT_TYPE

The format is version 0.0.4 of https://prometheus.io/docs/instrumenting/exposition_formats/. Names, labels and buckets are those
of https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, with `_` for each dot and the unit at the end. Users are
never labels: each value of a label is kept until the process ends.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from rawsse.relay.dialects import one_line
from rawsse.relay.record import Observer, RunRecord, RunStart

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MAX_MODELS_COUNTED = 50
"""How many models get a label. A caller may ask for any name, so only models that answered take a place."""

MAX_TYPES_COUNTED = 30
"""The same for types of errors and reasons of refusals: upstreams and embedders may invent more."""

OTHER = "other"
"""The label of everything above these limits."""

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
"""The upper bounds of buckets that the conventions ask for."""

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """One metric. A histogram has `bounds`."""

    kind: str
    help: str
    bounds: tuple[float, ...] = ()


_DURATION = "gen_ai_client_operation_duration_seconds"
_FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
_USAGE = "gen_ai_client_token_usage"
_RUNS = "rawsse_runs_total"
_ERRORS = "rawsse_upstream_errors_total"
_CACHED = "rawsse_cache_tokens_total"
_RESUMES = "rawsse_resumes_total"
_REFUSED = "rawsse_refused_requests_total"
_OPEN = "rawsse_open_streams"

FAMILIES: Mapping[str, Family] = {
    _DURATION: Family("histogram", "How long a call of the API took, in seconds.", SECONDS),
    _FIRST_CHUNK: Family("histogram", "Time until the first piece of an answer, in seconds.", SECONDS),
    _USAGE: Family(
        "histogram", "Tokens that a call used; input includes those written to the cache and read from it.", TOKENS
    ),
    _CACHED: Family("counter", "Input tokens written to the prompt cache (creation) and read from it (read)."),
    _RUNS: Family("counter", "Runs that have ended."),
    _ERRORS: Family("counter", "Runs that ended with an error, by its type."),
    _RESUMES: Family("counter", "Requests to read a run again."),
    _REFUSED: Family("counter", "Requests that were refused before a call of the API."),
    _OPEN: Family("gauge", "Runs that have not ended."),
    "rawsse_readers": Family("gauge", "Clients that are reading a run."),
    "rawsse_ledger_rows_dropped_total": Family("counter", "Rows that the ledger could not write."),
}

# Of the values of labels. The format escapes line feeds, too, and `one_line` leaves none.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\""})


class Metrics(Observer):
    """An observer of runs that counts them.

    `read` maps metrics that are counted elsewhere, such as `rawsse_readers`, to functions that return their value: `render`
    calls them. `models` are those that the operator has named: they have a label from the start.
    """

    def __init__(self, read: Mapping[str, Callable[[], float]] | None = None, models: Iterable[str] = ()) -> None:
        self._read = {_OPEN: lambda: len(self._asked), **(read or {})}
        self._counts: defaultdict[str, defaultdict[Labels, int]] = defaultdict(lambda: defaultdict(int))
        self._histograms: defaultdict[str, dict[Labels, _Histogram]] = defaultdict(dict)
        self._models = _Names(MAX_MODELS_COUNTED, models)
        self._types = _Names(MAX_TYPES_COUNTED)
        self._asked: dict[tuple[str, str], str] = {}  # of open runs: the model that was asked for

    def begun(self, start: RunStart) -> None:
        """A run has begun."""
        self._asked[start.user, start.run] = start.model

    def ended(self, record: RunRecord) -> None:
        """Count the run, its time and its tokens."""
        asked = self._asked.pop((record.user, record.run), record.model)
        has_answered = record.total_tokens > 0  # the model's name comes with the first counts
        labels = {
            "gen_ai_operation_name": "chat",
            "gen_ai_provider_name": "anthropic",
            "gen_ai_request_model": self._models.find(asked, takes_place=has_answered),
        }
        if has_answered:
            labels["gen_ai_response_model"] = self._models.find(record.model)
            for kind, count in (("input", record.all_input_tokens), ("output", record.output_tokens)):
                self._observe(_USAGE, count, **labels, gen_ai_token_type=kind)
            self._count(_CACHED, record.cache_creation_input_tokens, kind="creation")
            self._count(_CACHED, record.cache_read_input_tokens, kind="read")
        if record.first_token_seconds is not None:
            self._observe(_FIRST_CHUNK, record.first_token_seconds, **labels)
        if record.error is not None:
            labels["error_type"] = self._types.find(record.error)
            self._count(_ERRORS, type=labels["error_type"])
        self._observe(_DURATION, record.seconds, **labels)
        self._count(_RUNS, ending=record.ending, dialect=record.dialect)

    def count_resume(self, result: str) -> None:
        """A client came back to a run: `result` is one of a few words, such as "resumed" or "gone"."""
        self._count(_RESUMES, result=self._types.find(result))

    def count_refusal(self, reason: str) -> None:
        """A request was refused: `reason` is the type of its error."""
        self._count(_REFUSED, reason=self._types.find(reason))

    def render(self) -> str:
        """All metrics that have a value, in Prometheus' text format."""
        lines: list[str] = []
        for name, family in FAMILIES.items():
            samples = [_sample(name, labels, count) for labels, count in self._counts[name].items()]
            for labels, histogram in self._histograms[name].items():
                samples += histogram.samples(name, labels)
            if name in self._read:
                samples.append(_sample(name, (), self._read[name]()))
            if samples:
                lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}", *samples]
        return "\n".join(lines) + "\n"

    def _count(self, name: str, by: int = 1, **labels: str) -> None:
        self._counts[name][tuple(labels.items())] += by

    def _observe(self, name: str, value: float, **labels: str) -> None:
        histogram = self._histograms[name].setdefault(tuple(labels.items()), _Histogram(FAMILIES[name].bounds))
        histogram.observe(value)


class _Names:
    """Names from outside as labels: those `known`, the first `limit` others, and `OTHER` for all later ones."""

    def __init__(self, limit: int, known: Iterable[str] = ()) -> None:
        self._known = {one_line(name) for name in known}
        self._limit = limit + len(self._known)

    def find(self, name: str, *, takes_place: bool = True) -> str:
        name = one_line(name)  # bounded, and without the lone surrogates that JSON may bring
        if takes_place and len(self._known) < self._limit:
            self._known.add(name)
        return name if name in self._known else OTHER


class _Histogram:
    """How many values are in each bucket: above the bound of the bucket before, and up to its own."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, name: str, labels: Labels) -> Iterator[str]:
        totals = list(
            accumulate(self._counts)
        )  # "le": a bucket counts all values that are less than its bound, or equal
        for bound, total in zip(self._bounds, totals, strict=True):
            yield _sample(f"{name}_bucket", (*labels, ("le", "+Inf" if bound == math.inf else str(bound))), total)
        yield _sample(f"{name}_sum", labels, self._sum)
        yield _sample(f"{name}_count", labels, totals[-1])


def _sample(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    pairs = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels)
    return f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}"
