"""Runs and events for tests: give the fields that the test is about; the others are always the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

from run_log.core import PauseRequest, RunEvent, RunRef, RunStatus, TriggerType, WorkflowRun
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.ids import uuid7
from run_log.core.models import snapshot

_STARTED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DURATION: Final = timedelta(seconds=1.5)
_ENDED: Final = frozenset(status for status in RunStatus if status.is_terminal)


class RunChanges(TypedDict, total=False):
    """The fields of a `WorkflowRun`, each optional."""

    id: str
    workflow_id: str
    status: RunStatus
    trigger_type: TriggerType | str
    trigger_data: dict[str, Any]
    result: dict[str, Any]
    error: str | None
    started_at: datetime
    completed_at: datetime | None
    duration_ms: float
    attempt: int
    pause: PauseRequest | None
    labels: dict[str, str]
    parent: RunRef | None
    trace_id: str | None
    error_type: str | None


def a_run(**changes: Unpack[RunChanges]) -> WorkflowRun:
    """Return a run: ``run-1`` of ``workflow-1``, started by hand on 2026-01-01, ended in success.

    The defaults follow the status. An ended run took 1.5 seconds. A failed, skipped or cancelled run has an
    error. A paused run has a pause request. *changes* are the fields that differ.

    Raises:
        InvalidRunError: A field is invalid; the message names it.
    """
    defaults: RunChanges = {
        "id": "run-1",
        "workflow_id": "workflow-1",
        "status": RunStatus.SUCCESS,
        "trigger_type": TriggerType.MANUAL,
        "started_at": _STARTED_AT,
    }
    fields: RunChanges = {**defaults, **changes}
    return snapshot({**_defaults_for(fields["status"], fields["started_at"]), **fields})


def an_event(
    run: WorkflowRun | None = None,
    *,
    hlc: int | None = None,
    event_id: str | None = None,
    occurred_at: datetime | None = None,
    inferred: bool = False,
    **run_changes: Unpack[RunChanges],
) -> RunEvent:
    """Return an event, by default later than every event built or emitted before.

    Args:
        run: The state of the run; None for `a_run`.
        hlc: The clock's reading, in microseconds since the epoch; None for the next one.
        event_id: None for a new one.
        occurred_at: When it happened; None for the end of the run, or else its start.
        inferred: Whether the state was inferred rather than observed.
        **run_changes: Fields that differ from *run*.

    Raises:
        InvalidRunError: A field of the run is invalid; the message names it.
        ValidationError: *hlc* or *event_id* is invalid (pydantic's error, a ValueError).
    """
    state = a_run(**run_changes) if run is None else snapshot({**dict(run), **run_changes})
    return RunEvent(
        event_id=uuid7() if event_id is None else event_id,
        hlc=PROCESS_CLOCK.tick() if hlc is None else hlc,
        occurred_at=occurred_at or state.completed_at or state.started_at,
        inferred=inferred,
        run=state,
    )


def a_life(
    workflow_id: str = "workflow-1",
    run_id: str = "run-1",
    *,
    end: RunStatus = RunStatus.SUCCESS,
    clock: HybridLogicalClock = PROCESS_CLOCK,
    new_id: Callable[[], str] = uuid7,
) -> list[RunEvent]:
    """Return the two events of one run: it is running, then it has the status *end*.

    *clock* stamps the events, and *new_id* makes their ids. InvalidRunError if an id of the run is invalid.
    """
    return [
        an_event(
            a_run(workflow_id=workflow_id, id=run_id, status=status), hlc=clock.tick(), event_id=new_id()
        )
        for status in (RunStatus.RUNNING, end)
    ]


def _defaults_for(status: RunStatus, started_at: datetime) -> RunChanges:
    fields: RunChanges = {}
    if status in _ENDED:
        fields["completed_at"] = started_at + _DURATION
        fields["duration_ms"] = _DURATION / timedelta(milliseconds=1)
    if status == RunStatus.FAILED:
        fields["error"] = "it broke"
    elif status == RunStatus.SKIPPED:
        fields["error"] = "nothing to do"
    elif status == RunStatus.CANCELLED:
        fields["error"] = "stopped"
    elif status == RunStatus.PAUSED:
        fields["pause"] = PauseRequest(reason="go on?")
    return fields
