"""The trace, with ends of every kind: each query of each store beside a model."""

from __future__ import annotations

import random
import uuid
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.model import check_inbox, check_stale, check_workflow, check_workflows

from run_log.core import PauseRequest, RunEvent, RunStatus, WorkflowRun
from run_log.stores import FirestoreRunLogService, InMemoryRunLogService, RunLogService, SQLiteRunLogService
from run_log.testing import an_event

from .trace_file import read_trace

ASSIGNEES = ("mei", "ada", None)
MOST_IN_MEMORY = 200
PER_APPLY = 2_000
EVERY = 5


def ends(runs: Sequence[WorkflowRun]) -> list[WorkflowRun]:
    """Return how the runs of the trace stand: most succeeded, the others by a hash of their ids."""
    return [_end(run, zlib.crc32(f"{run.workflow_id} {run.id}".encode())) for run in runs]


def _end(run: WorkflowRun, number: int) -> WorkflowRun:
    started_at = run.started_at
    if number % 10 == 0:
        return run.model_copy(update={"status": RunStatus.FAILED, "error": "it broke"})
    unfinished: dict[str, object] = {"completed_at": None, "duration_ms": 0.0, "result": {}}
    if number % 50 == 1:
        deadline = None if number % 3 == 0 else started_at + timedelta(days=number % 4_000)
        pause = PauseRequest(reason="go on?", assignee=ASSIGNEES[number % 3], deadline=deadline)
        return run.model_copy(update={**unfinished, "status": RunStatus.PAUSED, "pause": pause})
    if number % 50 == 2:
        return run.model_copy(update={**unfinished, "status": RunStatus.RUNNING})
    return run


def events_of(runs: Sequence[WorkflowRun]) -> list[RunEvent]:
    """Return the events of the runs: started, and as they stand; every tenth twice, in no order."""
    events: list[RunEvent] = []
    for number, run in enumerate(runs):
        started = {"status": RunStatus.RUNNING, "completed_at": None, "duration_ms": 0.0, "pause": None}
        first = an_event(run.model_copy(update=started), hlc=2 * number, occurred_at=run.started_at)
        events.append(first)
        if run.status is not RunStatus.RUNNING:
            occurred_at = run.completed_at or run.started_at
            events.append(an_event(run, hlc=2 * number + 1, occurred_at=occurred_at))
    events += events[::10]
    random.Random(7).shuffle(events)
    return events


@pytest.fixture(scope="module")
def runs() -> list[WorkflowRun]:
    """Return the trace's runs as they stand."""
    return ends(read_trace())


@pytest.fixture
def now(runs: Sequence[WorkflowRun]) -> datetime:
    """Return when the last run of the trace started: summaries look back from there."""
    return max(run.started_at for run in runs)


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("firestore", marks=pytest.mark.emulator)],
)
async def store(
    request: pytest.FixtureRequest, now: datetime, tmp_path: Path
) -> AsyncIterator[RunLogService]:
    """Yield each store, empty, at the time of the trace."""
    service: RunLogService
    if request.param == "memory":
        service = InMemoryRunLogService(now=lambda: now)
    elif request.param == "sqlite":
        service = SQLiteRunLogService(path=tmp_path / "runs", now=lambda: now)
    else:
        request.getfixturevalue("emulator_environment")
        service = FirestoreRunLogService(project=f"trace-{uuid.uuid4().hex[:8]}", now=lambda: now)
    yield service
    await service.close()


@pytest.mark.timeout(600)
async def test_every_query_of_the_trace(
    store: RunLogService, runs: Sequence[WorkflowRun], now: datetime
) -> None:
    """Every query over a trace, told twice and in no order, answers as a model of its runs does."""
    workflows: defaultdict[str, list[WorkflowRun]] = defaultdict(list)
    for run in runs:
        if not isinstance(store, InMemoryRunLogService) or len(workflows[run.workflow_id]) < MOST_IN_MEMORY:
            workflows[run.workflow_id].append(run)
    kept = [run for own in workflows.values() for run in own]
    events = events_of(kept)
    for start in range(0, len(events), PER_APPLY):
        await store.apply(events[start : start + PER_APPLY])

    await check_workflows(store, workflows)
    await check_inbox(store, kept, now)
    await check_stale(store, kept, now)
    # Those of an emulator take a while: some workflows of every size.
    by_size = sorted(workflows, key=lambda workflow_id: len(workflows[workflow_id]), reverse=True)
    for workflow_id in by_size[:: EVERY if isinstance(store, FirestoreRunLogService) else 1]:
        await check_workflow(store, workflow_id, workflows[workflow_id], now)
