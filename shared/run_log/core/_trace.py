"""The W3C trace context of the moment, as text that travels with an event."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def current_trace() -> tuple[str | None, str | None]:
    """Return ``traceparent`` and ``tracestate`` of the current span; (None, None) outside of any."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None, None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent"), carrier.get("tracestate")


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
