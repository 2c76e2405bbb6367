"""The events that are projected: those of the trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import TypeVar

from tests.e2e.trace_file import read_trace, source, states

from run_log.core import RunEvent, WorkflowRun, utc_now

from .report import Options

HOT_WORKFLOW = "hot"

Item = TypeVar("Item")


@cache
def finished_runs() -> Sequence[WorkflowRun]:
    """Return the runs as they ended, by start."""
    return read_trace(1.0)


def name() -> str:
    """Say which runs `finished_runs` returns."""
    runs = finished_runs()
    return f"{len(runs):,} runs in {len({run.workflow_id for run in runs}):,} workflows: {source()}"


def selected(options: Options) -> Sequence[WorkflowRun]:
    """Return every third run, in the order of start; every sixth or every one where asked for."""
    return finished_runs()[:: 1 if options.full else 6 if options.quick else 3]


def events_of(runs: Iterable[WorkflowRun]) -> list[RunEvent]:
    """Return two events a run, started and ended, in the order of their time."""
    return [RunEvent.from_run(run) for run in states(runs)]


def in_one_workflow(runs: Iterable[WorkflowRun]) -> list[WorkflowRun]:
    """Return *runs* as if all were of one workflow; their ids stay distinct."""
    return [
        run.model_copy(update={"workflow_id": HOT_WORKFLOW, "id": f"{run.workflow_id}:{run.id}"})
        for run in runs
    ]


def of_today(runs: Sequence[WorkflowRun]) -> list[WorkflowRun]:
    """Return *runs* as if they had started in the last hour: summaries count such by day and hour too."""
    now = utc_now()
    started = (now - timedelta(seconds=number % 3_600) for number in range(len(runs)))
    return [
        run.model_copy(
            update={"started_at": begun, "completed_at": begun + timedelta(milliseconds=run.duration_ms)}
        )
        for run, begun in zip(runs, started, strict=True)
    ]


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield *items* in parts of *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
