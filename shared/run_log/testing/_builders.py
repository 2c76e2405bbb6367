"""Runs and events to test with: give what the test is about, the rest is sensible and always the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

from run_log.core import PauseRequest, RunEvent, RunStatus, TriggerType, WorkflowRun
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.ids import uuid7
from run_log.core.models import snapshot

STARTED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When a built run started unless it is told otherwise."""

_DURATION: Final = timedelta(seconds=1.5)
_ENDED: Final = frozenset(status for status in RunStatus if status.is_terminal)


class RunChanges(TypedDict, total=False):
    """The fields of a run, each to be given or left out; `WorkflowRun` says what they mean."""

    id: str
    workflow_id: str
    status: RunStatus
    trigger_type: TriggerType
    trigger_data: dict[str, Any]
    result: dict[str, Any]
    error: str | None
    started_at: datetime
    completed_at: datetime | None
    duration_ms: float
    attempt: int
    pause: PauseRequest | None


def a_run(**changes: Unpack[RunChanges]) -> WorkflowRun:
    """Return a run: ``run-1`` of ``workflow-1``, started by hand on 2026-01-01 and ended in success.

    The defaults follow the status: an ended run took 1.5 seconds, a failed or skipped one says why, a
    paused one says what it waits for.

    Args:
        **changes: Fields that differ.

    Raises:
        InvalidRunError: A field cannot be used; the message names it.
    """
    defaults: RunChanges = {
        "id": "run-1",
        "workflow_id": "workflow-1",
        "status": RunStatus.SUCCESS,
        "trigger_type": TriggerType.MANUAL,
        "started_at": STARTED_AT,
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
    """Return an event: by default a new one, later than every event built or emitted before it.

    Args:
        run: The run as it stands; None for `a_run`.
        hlc: The event's clock reading, in microseconds since the epoch; None for the process's next.
        event_id: The event's identity; None for a new one.
        occurred_at: When it happened; None for when the run ended, or started.
        inferred: Whether the state was concluded rather than observed.
        **run_changes: Fields in which the event's run differs from *run*.

    Raises:
        InvalidRunError: A field of the run cannot be used; the message names it.
        ValidationError: *hlc* or *event_id* cannot be used (pydantic's, a ValueError).
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
    """Return the events of one run from beginning to end: it runs, then it stands as *end* says.

    Args:
        workflow_id: The run's workflow.
        run_id: The run's id.
        end: The second event's status.
        clock: Stamps the events; each is a later version than the one before.
        new_id: Makes the events' identities.

    Raises:
        InvalidRunError: An id cannot be used.
    """
    return [
        an_event(
            a_run(workflow_id=workflow_id, id=run_id, status=status), hlc=clock.tick(), event_id=new_id()
        )
        for status in (RunStatus.RUNNING, end)
    ]


def _defaults_for(status: RunStatus, started_at: datetime) -> RunChanges:
    """Return what the other fields of a run in *status* are likely to hold."""
    fields: RunChanges = {}
    if status in _ENDED:
        fields["completed_at"] = started_at + _DURATION
        fields["duration_ms"] = _DURATION / timedelta(milliseconds=1)
    if status == RunStatus.FAILED:
        fields["error"] = "it broke"
    elif status == RunStatus.SKIPPED:
        fields["error"] = "nothing to do"
    elif status == RunStatus.PAUSED:
        fields["pause"] = PauseRequest(reason="go on?")
    return fields
