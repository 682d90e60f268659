"""One span of OpenTelemetry for each run, by the conventions for generative AI. Needs the extra `otel`.

    tracing = Tracing(provider)                 # an observer of runs; the caller shuts the provider down
    app = tracing.in_trace_of_request(relay)    # where nothing else reads `traceparent`

The parent of a span is the span that is current when the run begins; the relay calls `begun` in the task of the request.
OpenTelemetry's ASGI middleware makes the request's span current, but it also wraps `send`, and each stream then costs a task.
`in_trace_of_request` reads `traceparent` without that.

The attributes are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/anthropic/.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from rawsse.errors import ConfigurationError
from rawsse.relay.dialects import one_line
from rawsse.relay.record import Observer, RunRecord, RunStart
from rawsse.server import ASGIApp, Receive, Scope, Send

_REQUEST: Mapping[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.stream": True,
}


class Tracing(Observer):
    """An observer that makes a span of each run. `provider` is a `TracerProvider`, or None for the global one. Raises
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
        kind, attributes = self._trace.SpanKind.CLIENT, {**_REQUEST, "gen_ai.request.model": model}
        options = {"kind": kind, "attributes": attributes, "start_time": _nanoseconds(start.time)}
        self._spans[start.user, start.run] = self._tracer.start_span(f"chat {model}", **options)

    def ended(self, record: RunRecord) -> None:
        """End the run's span, if it has one."""
        span = self._spans.pop((record.user, record.run), None)
        if span is None:
            return
        found: dict[str, Any] = {
            "rawsse.ending": record.ending,
            "gen_ai.response.finish_reasons": record.stop_reason and (one_line(record.stop_reason),),
            "gen_ai.response.time_to_first_chunk": record.first_token_seconds,
        }
        if record.total_tokens:  # else no model answered
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
