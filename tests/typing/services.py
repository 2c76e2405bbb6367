"""What users' type checkers see of the services: checked by mypy and pyright, never run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import assert_type

from run_log.core import Outcome, RunEvent, RunLogProtocol, Transition, TriggerType, WorkflowRun
from run_log.producer import (
    EmitterStats,
    FlushReport,
    PubSubRunLogService,
    RunEventEmitter,
    RunHandle,
    record_run,
)
from run_log.projector import Projector
from run_log.stores import (
    FirestoreRunLogService,
    InMemoryRunLogService,
    PendingRun,
    ProjectionStore,
    RunLog,
    RunLogReader,
    RunUpdate,
    RunWatch,
    SQLiteRunLogService,
    WorkflowStats,
    create_run_log_service,
    get_run_log_service,
    reset_run_log_service,
)


async def queries(log: RunLogProtocol, run: WorkflowRun) -> None:
    """Every query has a precise type."""
    assert_type(await log.save_run(run), None)
    assert_type(await log.list_runs("w", limit=10, start_after=None), tuple[list[WorkflowRun], str | None])
    assert_type(await log.get_run("w", "r"), WorkflowRun | None)
    assert_type(await log.get_stats("w"), dict[str, int])
    assert_type(await log.get_pending_runs(), list[WorkflowRun])
    assert_type(await log.get_latest_run("w"), WorkflowRun | None)


async def reading(log: RunLog) -> None:
    """What reads and answers has precise types; every service is one, and a reader."""
    assert_type(
        await log.list_runs("w", status="failed", order="oldest"), tuple[list[WorkflowRun], str | None]
    )
    assert_type([run async for run in log.iter_runs("w", trigger_type=TriggerType.MANUAL)], list[WorkflowRun])
    assert_type(await log.list_workflows(), tuple[list[WorkflowStats], str | None])
    assert_type(await log.list_pending(overdue=True), tuple[list[PendingRun], str | None])
    assert_type(await log.get_history("w", "r"), tuple[Transition, ...])
    assert_type(log.watch("w", since_cursor="c"), RunWatch)
    assert_type([update async for update in log.watch()], list[RunUpdate])
    assert_type(await log.resume("w", "r", answered_by="mei"), WorkflowRun)
    assert_type(await log.reject("w", "r", answered_by="mei", comment="no"), WorkflowRun)
    readers: list[RunLogReader] = [log, InMemoryRunLogService(), PubSubRunLogService.from_env()]
    assert readers


async def services() -> None:
    """Every service is a run log, and a store for the projector where it can be written to."""
    memory: RunLogProtocol = InMemoryRunLogService()
    firestore: RunLogProtocol = FirestoreRunLogService(project="p", database="d", root_collection="c")
    sqlite: ProjectionStore = SQLiteRunLogService(
        path=Path("runs.sqlite3"), busy_timeout=timedelta(seconds=1)
    )
    assert_type(await sqlite.apply([]), list[Outcome])
    pubsub: RunLogProtocol = PubSubRunLogService.from_env()
    assert_type(create_run_log_service("memory"), RunLog)
    assert_type(get_run_log_service(), RunLog)
    reset_run_log_service()
    await queries(memory, await pubsub.get_latest_run("w") or (await firestore.list_runs("w"))[0][0])
    assert_type(await FirestoreRunLogService.from_env().get_history("w", "r"), tuple[Transition, ...])


async def producer(run: WorkflowRun, event: RunEvent) -> None:
    """Emitting and recording have precise types, sync and async."""
    emitter = RunEventEmitter.from_env()
    emitter.emit(run)
    emitter.emit(event)
    assert_type(await emitter.flush(timeout=2.0), FlushReport)
    assert_type(emitter.stats, EmitterStats)
    with record_run("w", trigger_type=TriggerType.MANUAL, trigger_data={"a": 1}, run_id="r") as handle:
        assert_type(handle, RunHandle)
    async with record_run("w", emitter=emitter) as handle:
        assert_type(handle, RunHandle)


async def projector(events: list[RunEvent]) -> None:
    """The projector takes every store and answers outcomes."""
    assert_type(await Projector(InMemoryRunLogService()).apply(events), list[Outcome])
    assert_type(await Projector(FirestoreRunLogService.from_env()).apply(events), list[Outcome])
