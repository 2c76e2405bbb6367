"""A real trace of workflow runs, where one is at hand: each run started and ended well."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from run_log.core import Position, RunStatus, WorkflowRun, document_id

REPOSITORY: Final = Path(__file__).resolve().parents[2]
VARIABLE: Final = "RUN_LOG_TRACE_FILE"
BESIDE: Final = REPOSITORY.parent / "shared" / "data" / "wfinstances-runs.jsonl.gz"


def trace_path() -> Path | None:
    """Return where the trace is; None where it is not."""
    path = Path(os.environ.get(VARIABLE) or BESIDE)
    return path if path.is_file() else None


def missing_reason() -> str:
    """Return why there is no trace, and what to do."""
    looked = os.environ.get(VARIABLE) or "../shared/data/wfinstances-runs.jsonl.gz beside the repository"
    return f"no trace at {looked}; set {VARIABLE} to a wfinstances-runs.jsonl.gz"


def read_trace(path: Path) -> list[WorkflowRun]:
    """Return the trace's runs as they ended, by start."""
    with gzip.open(path, "rt") as lines:
        return [WorkflowRun(status=RunStatus.SUCCESS, **json.loads(line)) for line in lines]


def states(runs: Iterable[WorkflowRun]) -> list[WorkflowRun]:
    """Return every state the runs were in, by the time they were in it: running, then success."""
    timed: list[tuple[datetime, WorkflowRun]] = []
    for run in runs:
        unfinished: dict[str, object] = {
            "status": RunStatus.RUNNING,
            "completed_at": None,
            "duration_ms": 0.0,
            "result": {},
        }
        timed.append((run.started_at, run.model_copy(update=unfinished)))
        timed.append((run.completed_at or run.started_at, run))
    # Sorting is stable: of a run that took no time, running stays first.
    timed.sort(key=lambda item: item[0])
    return [run for _, run in timed]


def expected_listing(runs: Iterable[WorkflowRun]) -> dict[str, list[WorkflowRun]]:
    """Return each workflow's runs as a listing returns them: an independent fold of the trace."""
    listing: dict[str, list[WorkflowRun]] = {}
    for run in runs:
        listing.setdefault(run.workflow_id, []).append(run)
    for of_workflow in listing.values():
        of_workflow.sort(key=lambda run: Position(run.started_at, document_id(run.id)), reverse=True)
    return listing


def sample(runs: Sequence[WorkflowRun], *, every: int) -> list[WorkflowRun]:
    """Return each *every*th run: all parts of the trace, ties included."""
    return list(runs[::every])
