"""The W3C trace context of the moment, as text that travels with an event."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def current_span_context() -> trace.SpanContext | None:
    """Return the current span's context, which does not change; None outside of any span."""
    span = get_current_span()
    if span is INVALID_SPAN:
        return None
    context = span.get_span_context()
    return context if context.is_valid else None


def trace_headers(context: trace.SpanContext | None) -> tuple[str | None, str | None]:
    """Return ``traceparent`` and ``tracestate`` that name *context*; (None, None) for none.

    Args:
        context: Of the span that emitted.
    """
    if context is None:
        return None, None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(context)))
    return carrier.get("traceparent"), carrier.get("tracestate")


def current_trace() -> tuple[str | None, str | None]:
    """Return ``traceparent`` and ``tracestate`` of the current span; (None, None) outside of any."""
    return trace_headers(current_span_context())


def span_link(traceparent: str | None, tracestate: str | None) -> trace.Link | None:
    """Return a link to the span that *traceparent* names; None where it names none.

    Args:
        traceparent: W3C trace context as it arrived.
        tracestate: Its vendor state.
    """
    if traceparent is None:
        return None
    carrier = {"traceparent": traceparent, **({"tracestate": tracestate} if tracestate else {})}
    context = trace.get_current_span(_PROPAGATOR.extract(carrier)).get_span_context()
    return trace.Link(context) if context.is_valid else None
