"""What users' type checkers see. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, assert_type

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    InvalidCursorError,
    Message,
    Outcome,
    PauseRequest,
    ReceivedMessage,
    RunEvent,
    RunLogError,
    RunLogProtocol,
    RunRef,
    RunStatus,
    Settings,
    Transition,
    TriggerType,
    UnreadableRunError,
    Version,
    WorkflowRun,
    decode_event,
    encode_event,
    utc_now,
)
from run_log.core.models import RunKey
from run_log.producer import (
    EmitterStats,
    FlushReport,
    PubSubRunLogService,
    RunEventEmitter,
    RunHandle,
    record_run,
    resume_run,
)
from run_log.projector import Projector
from run_log.stores import (
    FailureGroup,
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


def runs(moment: datetime) -> None:
    """A run is made of plain values, and its fields are assignable."""
    run = WorkflowRun(
        id="r1",
        workflow_id="w1",
        status=RunStatus.RUNNING,
        trigger_type=TriggerType.MANUAL,
        started_at=moment,
    )
    run.status = RunStatus.SUCCESS
    run.completed_at = moment
    run.result = {"any": [1, None]}
    run.pause = PauseRequest(reason="why")
    assert_type(run.id, str)
    assert_type(run.trigger_data, dict[str, Any])
    assert_type(run.result, dict[str, Any])
    assert_type(run.error, str | None)
    assert_type(run.started_at, datetime)
    assert_type(run.duration_ms, float)
    assert_type(run.attempt, int)
    assert_type(run.pause.deadline, datetime | None)
    assert_type(run.key, RunKey)
    assert_type(run.status.is_terminal, bool)
    WorkflowRun(id=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]


def events(run: WorkflowRun) -> None:
    """An event is made from anything, and its version compares."""
    event = RunEvent(run=run)
    assert_type(RunEvent.from_run(object()), RunEvent)
    assert_type(event.infer(run), RunEvent)
    assert_type(event.version, Version)
    assert_type(event.version < event.version.successor, bool)
    assert_type(event.key, tuple[str, str])
    assert_type(event.status, RunStatus)
    assert_type(event.traceparent, str | None)
    event.hlc = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def wire(event: RunEvent, received: ReceivedMessage) -> None:
    """A received message is a message; an event comes out or an error with its reason."""
    assert_type(encode_event(event), Message)
    assert_type(decode_event(received), RunEvent)
    assert_type(received.attributes, Mapping[str, str])
    assert_type(DeadLetterReason.UNDECODABLE, Literal[DeadLetterReason.UNDECODABLE])
    assert_type(EventDecodeError("what", reason="undecodable").reason, str)
    assert_type(utc_now(), datetime)


def settings() -> None:
    """Settings are typed values, read from any mapping, and do not change."""
    read = Settings.from_env({"RUN_LOG_BACKEND": "memory"})
    assert_type(read, Settings)
    assert_type(read.project, str | None)
    read.topic = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def errors(error: UnreadableRunError, cursor: InvalidCursorError) -> None:
    """Errors carry their ids, and a caller's mistake is a `ValueError`."""
    root: RunLogError = error
    mistake: ValueError = cursor
    assert_type(error.run_id, str)
    raise root from mistake


async def queries(log: RunLogProtocol, run: WorkflowRun) -> None:
    """Every query of the contract has a precise type; what is saved may be anything."""
    assert_type(await log.save_run(run), None)
    await log.save_run(object())
    assert_type(await log.list_runs("w", limit=10, start_after=None), tuple[list[WorkflowRun], str | None])
    assert_type(await log.get_run("w", "r"), WorkflowRun | None)
    assert_type(await log.get_stats("w"), dict[str, int])
    assert_type(await log.get_pending_runs(), list[WorkflowRun])
    assert_type(await log.get_latest_run("w"), WorkflowRun | None)
    await log.list_runs("w", 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def reading(log: RunLog) -> None:
    """What reads and answers has precise types; every service is one, and a reader."""
    assert_type(
        await log.list_runs("w", status="failed", order="oldest"), tuple[list[WorkflowRun], str | None]
    )
    assert_type(
        await log.list_runs(None, label=("team", "a"), parent=RunRef("w", "r"), payloads=False),
        tuple[list[WorkflowRun], str | None],
    )
    await log.list_runs(None, label={"team": "a"}, error_type="ValueError", trigger_type="cron")
    await log.list_runs(None, label=[("team", "a"), ("stage", "x")])
    await log.list_runs(None, parent="r")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await log.count_runs("w", status=["failed", "success"], since=utc_now()), int)
    assert_type(await log.count_runs(label=("team", "a"), trigger_type="cron"), int)
    await log.count_runs("w", order="oldest")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await log.list_failures(since=utc_now()), list[FailureGroup])
    assert_type([run async for run in log.iter_runs("w", trigger_type=TriggerType.MANUAL)], list[WorkflowRun])
    assert_type(await log.list_workflows(), tuple[list[WorkflowStats], str | None])
    assert_type(await log.list_pending(overdue=True), tuple[list[PendingRun], str | None])
    assert_type(await log.get_history("w", "r"), tuple[Transition, ...])
    assert_type(log.watch("w", since_cursor="c"), RunWatch)
    assert_type([update async for update in log.watch()], list[RunUpdate])
    assert_type(await log.resume("w", "r", answered_by="mei"), WorkflowRun)
    assert_type(await log.reject("w", "r", answered_by="mei", comment="no"), WorkflowRun)
    seen = Version(1, 5, "e")
    assert_type(
        await log.resume("w", "r", answered_by="mei", choice="pay", values={"a": 1}, if_version=seen),
        WorkflowRun,
    )
    assert_type(await log.reject("w", "r", answered_by="mei", if_version=seen.text), WorkflowRun)
    assert_type(await log.take_default("w", "r"), bool)
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
    async with resume_run("w", "r", answered_by="mei", choice="pay", values={"a": 1}, known=None) as handle:
        handle.resume(answered_by="mei", comment="as agreed", choice="pay", values={"a": 1})


async def projector(events: list[RunEvent]) -> None:
    """The projector takes every store and answers outcomes."""
    assert_type(await Projector(InMemoryRunLogService()).apply(events), list[Outcome])
    assert_type(await Projector(FirestoreRunLogService.from_env()).apply(events), list[Outcome])
