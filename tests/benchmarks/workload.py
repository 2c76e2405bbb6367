"""The events that are projected: the real trace's where it is at hand, else made up in its likeness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import TypeVar

from tests.e2e.trace_file import read_trace, states, trace_path

from run_log.core import RunEvent, RunStatus, WorkflowRun, utc_now
from run_log.testing import a_run

from .report import Options

GENERATED_RUNS = 18_000
GENERATED_WORKFLOWS = 700
HOT_WORKFLOW = "hot"

Item = TypeVar("Item")


@cache
def finished_runs() -> Sequence[WorkflowRun]:
    """Return the runs as they ended, by start."""
    path = trace_path()
    return read_trace(path) if path else list(_generated())


def name() -> str:
    """Say which runs `finished_runs` returns."""
    kind = "the real trace" if trace_path() else "a generated trace (the real one is absent)"
    runs = finished_runs()
    return f"{kind}: {len(runs):,} runs in {len({run.workflow_id for run in runs}):,} workflows"


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


def _generated() -> Iterator[WorkflowRun]:
    for number in range(GENERATED_RUNS):
        started_at = a_run().started_at + timedelta(seconds=number)
        yield a_run(
            id=f"run-{number:06}",
            workflow_id=f"workflow-{number % GENERATED_WORKFLOWS:03}",
            status=RunStatus.SUCCESS,
            trigger_data={
                "program": "align",
                "arguments": ["-c", "20", "-pop", "AFR"],
                "parents": ["a", "b"],
            },
            result={"avgCPU": 57.4, "readBytes": None, "outputFiles": [f"chr-{number}.tar.gz"]},
            started_at=started_at,
            completed_at=started_at + timedelta(seconds=90),
            duration_ms=90_000.0,
        )
