"""Spans: each operation opens the same one in every adapter."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from run_log.core import RunStatus, UnreadableRunError
from run_log.stores import RunLog
from run_log.testing import a_run

from .adapters import every_adapter
from .harness import Harness, save


def operations(spans: InMemorySpanExporter) -> list[tuple[str, dict[str, object]]]:
    """Return name and attributes of each finished span of a run log's operations."""
    return [
        (span.name, dict(span.attributes or {}))
        for span in spans.get_finished_spans()
        if span.name.startswith("run_log.") and span.name != "run_log.project"
    ]


@every_adapter
async def test_each_operation_has_its_span(
    harness: Harness, service: RunLog, spans: InMemorySpanExporter
) -> None:
    """Each public operation opens one span, with its arguments as attributes."""
    await save(harness, a_run(workflow_id="w", id="r", status=RunStatus.PAUSED))
    await service.list_runs("w", limit=7)
    await service.count_runs("w")
    await service.count_runs()
    await service.get_run("w", "r")
    await service.get_stats("w")
    await service.get_pending_runs()
    await service.get_latest_run("w")
    await service.get_history("w", "r")

    assert operations(spans) == [
        ("run_log.save", {"workflow_id": "w", "run_id": "r"}),
        ("run_log.list", {"workflow_id": "w", "limit": 7}),
        ("run_log.count", {"workflow_id": "w"}),
        ("run_log.count", {}),
        ("run_log.get", {"workflow_id": "w", "run_id": "r"}),
        ("run_log.stats", {"workflow_id": "w"}),
        ("run_log.get_pending_runs", {}),
        ("run_log.get_latest", {"workflow_id": "w"}),
        ("run_log.history", {"workflow_id": "w", "run_id": "r"}),
    ]


async def test_a_failed_operation_has_an_error_span(
    harness: Harness, service: RunLog, spans: InMemorySpanExporter
) -> None:
    """An operation that raises leaves a span with the error on it."""
    unreadable = await harness.plant_unreadable("w", a_run().started_at)
    spans.clear()

    with pytest.raises(UnreadableRunError):
        await service.get_run("w", unreadable)

    (span,) = spans.get_finished_spans()
    assert (span.name, span.status.status_code) == ("run_log.get", StatusCode.ERROR)
    assert [event.name for event in span.events] == ["exception"]


@every_adapter
async def test_a_refused_run_has_an_error_span(service: RunLog, spans: InMemorySpanExporter) -> None:
    """A save that is refused leaves a span with the error on it."""
    with pytest.raises(ValueError, match="is not a run"):
        await service.save_run(None)

    (span,) = spans.get_finished_spans()
    assert (span.name, span.status.status_code) == ("run_log.save", StatusCode.ERROR)
