from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from run_log.core.events import current_trace, span_link

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN = SpanContext(
    trace_id=0x0AF7651916CD43DD8448EB211C80319C,
    span_id=0xB7AD6B7169203331,
    is_remote=False,
    trace_flags=TraceFlags(1),
    trace_state=TraceState([("vendor", "1")]),
)


def test_outside_of_a_span_there_is_no_trace() -> None:
    """Without a current span nothing travels."""
    assert current_trace() == (None, None)


def test_the_current_span_is_told_as_w3c_text() -> None:
    """Inside of a span its W3C trace context is what travels."""
    with trace.use_span(NonRecordingSpan(SPAN)):
        told = current_trace()

    assert told == (PARENT, "vendor=1")


def test_a_link_leads_back_to_the_span() -> None:
    """What travelled gives a link to the same span, with its vendor state."""
    link = span_link(PARENT, "vendor=1")

    assert link is not None
    assert (SPAN.trace_id, SPAN.span_id) == (link.context.trace_id, link.context.span_id)
    assert link.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize(
    "parent", [None, "", "junk", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", PARENT + "-x"]
)
def test_junk_gives_no_link(parent: str | None) -> None:
    """A trace context that names no span gives no link, and raises nothing."""
    assert span_link(parent, "vendor=1") is None
