"""Spans and counters of the read side: the same names whatever the store."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from opentelemetry import metrics, trace

from run_log.core import UnreadableRunError, get_logger

_tracer: Final = trace.get_tracer("run_log.stores")
_unreadable: Final = metrics.get_meter("run_log.stores").create_counter(
    "run_log.store.unreadable_runs",
    unit="{run}",
    description="Stored runs skipped because they cannot be read",
)
_logger: Final = get_logger("run_log.stores")


@contextmanager
def operation(name: str, **attributes: str | int) -> Generator[trace.Span]:
    """Run the block in the span *name*; an exception is recorded on it and goes on.

    Args:
        name: The span's name, such as ``run_log.list``.
        attributes: The span's attributes.
    """
    with _tracer.start_as_current_span(name, attributes=attributes) as span:
        yield span


def skipped_unreadable(error: UnreadableRunError) -> None:
    """Count and log a stored run that a listing skips.

    Args:
        error: Which run, and why.
    """
    _unreadable.add(1)
    _logger.warning(
        "run_log_unreadable_run", workflow_id=error.workflow_id, run_id=error.run_id, error=str(error)
    )
