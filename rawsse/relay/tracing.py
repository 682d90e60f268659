"""One span of OpenTelemetry for each run, by the conventions for generative AI. Needs the extra `otel`.

    tracing = Tracing(provider)                 # an observer of runs; the provider is yours to shut down
    app = tracing.in_trace_of_request(relay)    # where nothing else reads `traceparent`

The parent of a span is the span that is current when the run begins; the relay calls `begun` in the request's own task. A host
with OpenTelemetry's ASGI middleware has made the request's span current, but that middleware wraps `send`, and each stream then
costs a task. `in_trace_of_request` reads `traceparent` without that.

The attributes are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/anthropic/.
"""

from __future__ import annotations

import importlib
from typing import Any

from rawsse.errors import ConfigurationError
from rawsse.relay.dialects import one_line
from rawsse.relay.record import Observer, RunRecord, RunStart
from rawsse.server import ASGIApp, Receive, Scope, Send


class Tracing(Observer):
    """An observer of runs that makes a span of each. `provider` is a `TracerProvider`, or None for the global one. Raises
    `ConfigurationError` where opentelemetry-api is not installed."""

    def __init__(self, provider: Any = None) -> None:
        try:
            self._trace = importlib.import_module("opentelemetry.trace")
            self._context = importlib.import_module("opentelemetry.context")
            self._propagate = importlib.import_module("opentelemetry.propagate")
        except ImportError:
            raise ConfigurationError("tracing needs opentelemetry-api: install the extra `otel`") from None
        self._tracer = self._trace.get_tracer("rawsse", tracer_provider=provider)
        self._spans: dict[tuple[str, str], Any] = {}  # of open runs

    def begun(self, start: RunStart) -> None:
        """Begin the run's span."""
        model = one_line(start.model)
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": model,
            "gen_ai.request.stream": True,
        }
        options = {
            "kind": self._trace.SpanKind.CLIENT,
            "attributes": attributes,
            "start_time": _nanoseconds(start.time),
        }
        self._spans[start.user, start.run] = self._tracer.start_span(f"chat {model}", **options)

    def ended(self, record: RunRecord) -> None:
        """End the run's span, if it was seen to begin."""
        span = self._spans.pop((record.user, record.run), None)
        if span is None:
            return
        span.set_attribute("rawsse.ending", record.ending)
        if record.total_tokens:  # else no model answered
            span.set_attribute("gen_ai.response.model", one_line(record.model))
            # "Anthropic `input_tokens` excludes cached tokens", and the attribute includes them.
            span.set_attribute("gen_ai.usage.input_tokens", record.all_input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", record.output_tokens)
            span.set_attribute("gen_ai.usage.cache_creation.input_tokens", record.cache_creation_input_tokens)
            span.set_attribute("gen_ai.usage.cache_read.input_tokens", record.cache_read_input_tokens)
        if record.stop_reason is not None:
            span.set_attribute("gen_ai.response.finish_reasons", (one_line(record.stop_reason),))
        if record.first_token_seconds is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", record.first_token_seconds)
        if record.error is not None:
            span.set_attribute("error.type", one_line(record.error))
            span.set_status(self._trace.StatusCode.ERROR, one_line(record.words))
        span.end(_nanoseconds(record.time + record.seconds))

    def in_trace_of_request(self, app: ASGIApp) -> ASGIApp:
        """`app`, called in the trace that the request's header fields name, unless a span is current already."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or self._trace.get_current_span().get_span_context().is_valid:
                await app(scope, receive, send)
                return
            fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            token = self._context.attach(self._propagate.extract(fields))
            try:
                await app(scope, receive, send)
            finally:
                self._context.detach(token)

        return traced


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
