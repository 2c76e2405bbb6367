"""A real trace of workflow runs, or one invented where it is not at hand: each run started and ended well."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from run_log.core import RunStatus, WorkflowRun
from run_log.core.ids import document_id
from run_log.stores.listings import Position
from run_log.testing import a_run

REPOSITORY: Final = Path(__file__).resolve().parents[2]
FILE_VARIABLE: Final = "RUN_LOG_TRACE_FILE"
SHARE_VARIABLE: Final = "RUN_LOG_TRACE_SHARE"
BESIDE: Final = REPOSITORY.parent / "shared" / "data" / "wfinstances-runs.jsonl.gz"

_SHARE: Final = 0.1
"""Of the trace, in `make test`; `make trace` takes all of it."""
_INVENTED: Final = 18_000
_INVENTED_WORKFLOWS: Final = 700


def trace_path() -> Path | None:
    """Return where the trace is; None where it is not."""
    path = Path(os.environ.get(FILE_VARIABLE) or BESIDE)
    return path if path.is_file() else None


def source() -> str:
    """Return where the runs come from, for people."""
    path = trace_path()
    return (
        str(path) if path else f"invented; set {FILE_VARIABLE} to a wfinstances-runs.jsonl.gz for a real one"
    )


def read_trace(share: float | None = None) -> list[WorkflowRun]:
    """Return a share of the trace's runs as they ended, by start; of invented ones where it is not at hand.

    Args:
        share: Which, from all parts of the trace; None is what the environment says, or a tenth.
    """
    share = float(os.environ.get(SHARE_VARIABLE) or _SHARE) if share is None else share
    path = trace_path()
    runs = _read(path) if path else _invented()
    return runs[:: round(1 / share)]


def _read(path: Path) -> list[WorkflowRun]:
    with gzip.open(path, "rt") as lines:
        return [WorkflowRun(status=RunStatus.SUCCESS, **json.loads(line)) for line in lines]


def _invented() -> list[WorkflowRun]:
    """Return runs like the trace's: most are of few workflows, many start at once, some take no time."""
    chance = random.Random(_INVENTED)
    runs: list[WorkflowRun] = []
    started_at = a_run().started_at
    for number in range(_INVENTED):
        started_at += timedelta(seconds=chance.choice((0, 0, 0, 1, 60, 3_600)))
        took = timedelta(milliseconds=chance.choice((0, 1, 1_500, 90_000)))
        runs.append(
            a_run(
                workflow_id=f"workflow-{int(chance.paretovariate(0.4)) % _INVENTED_WORKFLOWS:03}",
                id=f"run-{number:06}",
                status=RunStatus.SUCCESS,
                trigger_data={"program": "align", "arguments": ["-c", "20"], "parents": ["a", "b"]},
                result={"avgCPU": 57.4, "readBytes": None, "outputFiles": [f"chr-{number}.tar.gz"]},
                started_at=started_at,
                completed_at=started_at + took,
                duration_ms=took / timedelta(milliseconds=1),
            )
        )
    return runs


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
