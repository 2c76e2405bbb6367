"""What users' type checkers see of `run_log.core`. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, assert_type

from structlog.stdlib import BoundLogger

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
from run_log.core.clock import HybridLogicalClock
from run_log.core.events import current_trace
from run_log.core.ids import document_id, original_id, uuid7
from run_log.core.law import (
    RunChange,
    RunHead,
    StatsDelta,
    by_run,
    count_statuses,
    fold,
    is_anomaly,
    mark_anomalies,
    newest,
)
from run_log.core.logs import get_logger
from run_log.core.models import RunKey, snapshot
from run_log.core.payload import decode_json, detached, encode_json, fit_payloads, fit_text
from run_log.core.schema import event_schema, event_schema_text
from run_log.core.settings import variable
from run_log.stores.listings import Position, decode_cursor, encode_cursor


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
    assert_type(snapshot(object()), WorkflowRun)
    WorkflowRun(id=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]


def events(run: WorkflowRun, clock: HybridLogicalClock) -> None:
    """An event is made from anything, and its version compares."""
    event = RunEvent(run=run)
    assert_type(RunEvent.from_run(object(), clock=clock), RunEvent)
    assert_type(event.infer(run), RunEvent)
    assert_type(event.version, Version)
    assert_type(event.version < event.version.successor, bool)
    assert_type(event.key, tuple[str, str])
    assert_type(event.status, RunStatus)
    assert_type(event.traceparent, str | None)
    assert_type(clock.tick(), int)
    event.hlc = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def law(head: RunHead | None, batch: list[RunEvent]) -> None:
    """Folding takes a head or None, and says what to store and to count."""
    change = fold(head, batch)
    assert_type(change, RunChange)
    assert_type(change.before, RunHead | None)
    assert_type(change.after, RunHead)
    assert_type(change.winner, RunEvent | None)
    assert_type(change.added, tuple[Transition, ...])
    assert_type(change.outcomes, tuple[Outcome, ...])
    assert_type(change.delta + change.delta, StatsDelta)
    assert_type(change.delta.by_status, Mapping[RunStatus, int])
    assert_type(by_run(batch), dict[tuple[str, str], list[int]])
    assert_type(count_statuses([RunStatus.FAILED]), StatsDelta)
    assert_type(newest(change.added), tuple[Transition, ...])
    assert_type(mark_anomalies(change.after.history), tuple[Transition, ...])
    assert_type(is_anomaly(RunStatus.PENDING, RunStatus.RUNNING), bool)


def wire(event: RunEvent, received: ReceivedMessage) -> None:
    """A received message is a message; an event comes out or an error with its reason."""
    assert_type(encode_event(event), Message)
    assert_type(decode_event(received), RunEvent)
    assert_type(received.attributes, Mapping[str, str])
    assert_type(DeadLetterReason.UNDECODABLE, Literal[DeadLetterReason.UNDECODABLE])
    assert_type(EventDecodeError("what", reason="undecodable").reason, str)
    assert_type(event_schema(), dict[str, Any])
    assert_type(event_schema_text(), str)
    assert_type(current_trace(), tuple[str | None, str | None])


def payloads(payload: dict[str, Any]) -> None:
    """Anything goes into JSON; payloads stay dictionaries."""
    assert_type(encode_json(object()), str)
    decode_json("{}").anything()
    assert_type(detached(payload), tuple[tuple[dict[str, Any], ...], int])
    assert_type(fit_payloads((payload,), 10), tuple[tuple[dict[str, Any], ...], int])
    assert_type(fit_text("text", 10), str)


def places(position: Position) -> None:
    """A cursor is text; what a caller passes as one may be anything."""
    assert_type(encode_cursor(position, scope="w1"), str)
    assert_type(decode_cursor(object(), scope="w1"), Position)
    assert_type(document_id("a/b"), str)
    assert_type(original_id("a%2Fb"), str | None)
    assert_type(uuid7(), str)
    assert_type(utc_now(), datetime)


def settings() -> None:
    """Settings are typed values, read from any mapping, and do not change."""
    read = Settings.from_env({"RUN_LOG_BACKEND": "memory"})
    assert_type(read, Settings)
    assert_type(read.project, str | None)
    assert_type(variable("topic"), str)
    assert_type(get_logger("run_log.x"), BoundLogger)
    read.topic = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def errors(error: UnreadableRunError, cursor: InvalidCursorError) -> None:
    """Errors carry their ids, and a caller's mistake is a `ValueError`."""
    root: RunLogError = error
    mistake: ValueError = cursor
    assert_type(error.run_id, str)
    raise root from mistake


async def protocol(log: RunLogProtocol, run: WorkflowRun) -> None:
    """The contract every run log keeps."""
    await log.save_run(run)
    await log.save_run(object())
    assert_type(await log.list_runs("w1", limit=10, start_after=None), tuple[list[WorkflowRun], str | None])
    assert_type(await log.get_run("w1", "r1"), WorkflowRun | None)
    assert_type(await log.get_stats("w1"), dict[str, int])
    assert_type(await log.get_pending_runs(), list[WorkflowRun])
    assert_type(await log.get_latest_run("w1"), WorkflowRun | None)
    await log.list_runs("w1", 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
