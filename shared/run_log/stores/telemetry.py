"""Spans and counters of the read side: the same names whatever the store."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from opentelemetry import metrics, trace

from run_log.core import StoreError, UnreadableRunError
from run_log.core.logs import get_logger

span: Final = trace.get_tracer("run_log.stores").start_as_current_span
"""Opens a span around a block; an exception is recorded on it and goes on."""
_meter: Final = metrics.get_meter("run_log.stores")
_unreadable: Final = _meter.create_counter(
    "run_log.store.unreadable_runs",
    unit="{run}",
    description="Stored runs skipped because they cannot be read",
)
_unreadable_workflows: Final = _meter.create_counter(
    "run_log.store.unreadable_workflows",
    unit="{workflow}",
    description="Workflows skipped because their stats cannot be read",
)
_retries: Final = _meter.create_counter(
    "run_log.store.retries", unit="{retry}", description="Operations tried again, by why"
)
_logger: Final = get_logger("run_log.stores")
_collections: Final[list[list[UnreadableRunError]]] = []


@contextmanager
def skipped_runs() -> Generator[list[UnreadableRunError]]:
    """Yield a list that gets every unreadable run this process skips in the block, in any thread."""
    met: list[UnreadableRunError] = []
    _collections.append(met)
    try:
        yield met
    finally:
        _collections[:] = [one for one in _collections if one is not met]


def skipped_unreadable(error: UnreadableRunError) -> None:
    """Count and log a stored run that a listing skips."""
    _unreadable.add(1)
    for met in _collections:
        met.append(error)
    _logger.warning(
        "run_log_unreadable_run", workflow_id=error.workflow_id, run_id=error.run_id, error=str(error)
    )


def skipped_unreadable_stats(workflow_id: str, error: StoreError) -> None:
    """Count and log a workflow that a listing skips, for what is wrong with its stats."""
    _unreadable_workflows.add(1)
    hint = f"`run-log verify {workflow_id}` shows what is wrong"
    _logger.warning("run_log_unreadable_stats", workflow_id=workflow_id, error=str(error), hint=hint)


def count_retry(reason: str) -> None:
    """Count an operation that is tried again, by the *reason*."""
    _retries.add(1, {"reason": reason})
