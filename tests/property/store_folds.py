"""What the store properties compare with: an independent fold in plain Python, and ways to open stores."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from run_log.core import RunEvent, RunStatus, StepStatus, Version, WorkflowRun
from run_log.core.clock import micros_of
from run_log.core.history import MAX_HISTORY
from run_log.core.law import run_digest
from run_log.core.models import RunKey
from run_log.core.steps import MAX_STEPS, OUTLIVED, Step, step_text
from run_log.stores import (
    FirestoreRunLogService,
    InMemoryRunLogService,
    RunLogService,
    SQLiteRunLogService,
)
from run_log.testing import FirestoreEmulator

OpenStores = Callable[[], AbstractAsyncContextManager[Sequence[RunLogService]]]
"""Opens several services of one empty store; to be called in a running event loop."""


@asynccontextmanager
async def memory_stores() -> AsyncGenerator[Sequence[RunLogService]]:
    """Yield the one service that a memory store has, several times."""
    yield [InMemoryRunLogService()] * 2


@asynccontextmanager
async def sqlite_stores() -> AsyncGenerator[Sequence[RunLogService]]:
    """Yield services with connections of their own, of one new file."""
    with tempfile.TemporaryDirectory() as folder:
        services = [SQLiteRunLogService(path=Path(folder) / "runs.sqlite3") for _ in range(3)]
        try:
            yield services
        finally:
            await asyncio.gather(*(service.close() for service in services))


@asynccontextmanager
async def firestore_stores() -> AsyncGenerator[Sequence[RunLogService]]:
    """Yield services with a memory of their own, of one new project on the emulator."""
    project = f"run-log-{uuid.uuid4().hex[:12]}"
    services = [FirestoreRunLogService(project=project) for _ in range(3)]
    try:
        yield services
    finally:
        await asyncio.gather(*(service.close() for service in services))


def use_firestore(emulator: FirestoreEmulator, environ: pytest.MonkeyPatch) -> OpenStores:
    """Point Firestore's clients at *emulator*; return what opens stores there."""
    for name, value in emulator.environment.items():
        environ.setenv(name, value)
    return firestore_stores


@dataclass
class Expected:
    """Where a set of events has to end."""

    runs: dict[RunKey, WorkflowRun] = field(default_factory=dict[RunKey, WorkflowRun])
    histories: dict[RunKey, list[tuple[Version, RunStatus]]] = field(
        default_factory=dict[RunKey, list[tuple[Version, RunStatus]]]
    )
    stats: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    steps: dict[RunKey, list[Step]] = field(default_factory=dict[RunKey, list[Step]])


def steps_of(events: Sequence[RunEvent], most: int = MAX_STEPS) -> list[Step]:
    """Return the steps that *events* of one run end in, in the order in which they started."""
    told = sorted((step for event in events for step in event.steps), key=lambda s: (s.version, step_text(s)))
    newest = sorted({step.key: step for step in told}.values(), key=lambda s: (s.version, s.key))
    return sorted(newest[-most:], key=lambda step: (step.started_at, step.version, step.key))


def _as_left(step: Step, newest: RunEvent, begun: int) -> Step:
    """Return *step* as it is shown: cancelled if it runs on after its run or the attempt of that."""
    is_older = newest.run.attempt > 1 and step.version < begun
    if step.status is not StepStatus.RUNNING or not (newest.status.is_terminal or is_older):
        return step
    return replace(step, status=StepStatus.CANCELLED, error=OUTLIVED)


def _place(event: RunEvent) -> tuple[object, ...]:
    """Return what orders the events of a run: in one version what was observed, then the later, the ended."""
    return (
        *(event.run.attempt, event.hlc, event.event_id),
        event.is_transition,
        *(not event.inferred, event.occurred_at, event.status.is_terminal, event.status.value),
        run_digest(event.run),
    )


def expected_of(events: Sequence[RunEvent]) -> Expected:
    """Return where *events* have to end: for each run, the event of the greatest version."""
    end = Expected()
    for key in {event.key for event in events}:
        own = {event.version: event for event in sorted(events, key=_place) if event.key == key}
        ordered = list(own.values())
        end.runs[key] = ordered[-1].run
        kept = [event for event in ordered if event.is_transition][-MAX_HISTORY:]
        end.histories[key] = [(event.version, event.status) for event in kept]
        newest = ordered[-1]
        attempt = [event for event in kept if event.run.attempt == newest.run.attempt]
        begins = [event.hlc if event.hlc > 0 else micros_of(event.occurred_at) for event in attempt]
        begun = min(begins, default=newest.hlc)
        told = steps_of([event for event in events if event.key == key])
        end.steps[key] = [_as_left(step, newest, begun) for step in told]
    for workflow_id in {key[0] for key in end.runs}:
        statuses = [run.status for key, run in end.runs.items() if key[0] == workflow_id]
        end.stats[workflow_id] = {
            "total": len(statuses),
            "successful": statuses.count(RunStatus.SUCCESS),
        }
    return end


async def found_in(service: RunLogService, expected: Expected) -> Expected:
    """Return what *service* holds of the runs and workflows of *expected*."""
    found = Expected()
    for workflow_id in expected.stats:
        found.stats[workflow_id] = await service.get_stats(workflow_id)
        runs, _ = await service.list_runs(workflow_id, limit=1_000)
        found.runs |= {run.key: run for run in runs}
    for key in expected.histories:
        found.histories[key] = [(item.version, item.status) for item in await service.get_history(*key)]
        found.steps[key] = list(await service.get_steps(*key))
    return found
