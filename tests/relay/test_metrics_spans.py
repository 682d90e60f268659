"""rawsse.relay.metrics, `Tracing`: the span of a run, as OpenTelemetry's own exporter gets it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rawsse.errors import ConfigurationError
from rawsse.relay.metrics import Tracing
from rawsse.relay.record import RunRecord, RunStart

from .test_metrics import DATED, MODEL, REFUSED, RUN

START = RunStart(time=RUN["time"], run="run-1", user="ada", dialect="text", model=MODEL)

sdk = pytest.mark.real


class Traced:
    """A `Tracing`, and the spans that its provider's exporter has got."""

    def __init__(self) -> None:
        trace = pytest.importorskip("opentelemetry.sdk.trace", reason="OpenTelemetry's SDK: the extra `interop`")
        export = pytest.importorskip("opentelemetry.sdk.trace.export")
        memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
        self._exporter = memory.InMemorySpanExporter()
        self.provider = trace.TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)

    @property
    def spans(self) -> list[Any]:
        return list(self._exporter.get_finished_spans())

    def play(self, **fields: Any) -> Any:
        """The span of a run."""
        self.tracing.begun(START)
        self.tracing.ended(RunRecord(**{**RUN, **fields}))
        return self.spans[-1]


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    yield traced
    traced.provider.shutdown()


@sdk
def test_a_run_is_one_client_span_with_the_attributes_of_the_conventions(traced: Traced) -> None:
    span = traced.play()
    assert [(span.name, span.kind.name) for span in traced.spans] == [(f"chat {MODEL}", "CLIENT")]
    # https://opentelemetry.io/docs/specs/semconv/gen-ai/anthropic/
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": DATED,
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.response.time_to_first_chunk": 0.75,
        "gen_ai.usage.input_tokens": 4310,  # those of the cache included
        "gen_ai.usage.output_tokens": 217,
        "gen_ai.usage.cache_creation.input_tokens": 300,
        "gen_ai.usage.cache_read.input_tokens": 4000,
        "rawsse.ending": "complete",
    }
    assert span.status.status_code.name == "UNSET"


@sdk
def test_it_lasts_as_long_as_the_run(traced: Traced) -> None:
    span = traced.play()
    assert (span.start_time, span.end_time) == (1_764_500_000 * 10**9, 1_764_500_003_500_000_000)


@sdk
def test_it_is_open_until_the_run_ends(traced: Traced) -> None:
    traced.tracing.begun(START)
    assert traced.spans == []


@sdk
def test_a_failure_has_its_type_and_its_words(traced: Traced) -> None:
    span = traced.play(**{**REFUSED, "words": "429: too\nfast"})
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "429: too fast")
    assert span.attributes["error.type"] == "rate_limit_error"
    absent = ("gen_ai.response.model", "gen_ai.response.finish_reasons", "gen_ai.usage.input_tokens")
    assert not set(absent) & set(span.attributes)
    assert "gen_ai.response.time_to_first_chunk" not in span.attributes


@sdk
def test_a_run_that_was_stopped_is_no_error(traced: Traced) -> None:
    span = traced.play(ending="cancelled", stop_reason=None)
    assert (span.status.status_code.name, span.attributes["rawsse.ending"]) == ("UNSET", "cancelled")


@sdk
def test_runs_of_two_users_are_kept_apart_and_an_end_without_a_begin_is_left_out(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    traced.tracing.begun(START)
    traced.tracing.ended(RunRecord(**{**RUN, "user": "grace"}))
    assert traced.spans == []
    traced.tracing.ended(RunRecord(**RUN))
    traced.tracing.ended(RunRecord(**RUN))
    assert len(traced.spans) == 1
    assert caplog.records == [], "OpenTelemetry complains of a span that is ended twice"


@sdk
def test_odd_names_reach_the_exporter_as_text(traced: Traced) -> None:
    traced.tracing.begun(replace(START, model="a\ud800\n" + "b" * 9000))
    traced.tracing.ended(RunRecord(**{**RUN, "model": "\ud800", "stop_reason": "\ud800"}))
    (span,) = traced.spans
    stop_reasons = span.attributes["gen_ai.response.finish_reasons"]
    for text in (span.name, span.attributes["gen_ai.response.model"], *stop_reasons):
        assert text.isprintable()
        assert len(text) < 1000


# --- Whose trace it belongs to


@sdk
def test_it_belongs_to_the_span_that_is_current_when_the_run_begins(traced: Traced) -> None:
    with traced.provider.get_tracer("host").start_as_current_span("POST /chat") as current:
        traced.tracing.begun(START)
    traced.tracing.ended(RunRecord(**RUN))
    child = traced.spans[-1]
    assert child.parent.span_id == current.get_span_context().span_id


def test_without_the_package_it_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(ConfigurationError, match=r"^tracing needs opentelemetry-api: install the extra `otel`$"):
        Tracing()
