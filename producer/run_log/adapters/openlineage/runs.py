"""How what events of OpenLineage tell becomes events of the run log.

The state of a run is that of its newest event. Events of OpenLineage add to each other: an end does not say
when its run started. So what is known of a run, here and in the run log, is joined with what an event tells.
The start is the earliest time, labels are all there are, and of two parents or two values of a label the
greater text holds. None of it depends on the order of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, cast

from run_log.core import RunEvent, RunStatus, Version, WorkflowRun
from run_log.core.clock import moment_of
from run_log.core.fields import MAX_LABELS
from run_log.stores import RunRecord

from .events import Told

TRIGGER_TYPE: Final = "openlineage"
"""The trigger type of each run: events do not say what started it."""

_MILLISECOND: Final = timedelta(milliseconds=1)


def told_of(known: Sequence[RunEvent], told: Told) -> tuple[RunEvent, list[RunEvent]]:
    """Return the newest event of a run after what was *told*, and the events to emit.

    *known* are events of the run, of each place that knows any the newest.
    """
    base = max(known, key=lambda event: event.version, default=None)
    if base is not None and base.run.attempt > 1:
        # Somebody has begun the run anew, and of that events do not tell.
        known = ()
    gathered = _gathered([event.run for event in known], told)
    stated = _stated(told, gathered)
    own = _event(told, told.version, {**_rest(base), **gathered, **stated}) if stated else None
    if base is None:
        newest = own or _silent(told, gathered)
        return newest, [newest]
    if own and own.version > base.version:
        return own, [own]
    newest = _corrected(base, gathered) if known else base
    events = [newest] if newest is not base else []
    # What is of the same version is the same event.
    return newest, [own, *events] if own and not (events and own.version == base.version) else events


def _silent(told: Told, gathered: dict[str, Any]) -> RunEvent:
    """Return the state of a run of which no status is known. Whatever states one is later."""
    running = {"id": told.key[1], "workflow_id": told.key[0], "status": RunStatus.RUNNING}
    return _event(told, told.version._replace(hlc=0), {**_rest(None), **running, **gathered})


def event_of(record: RunRecord) -> RunEvent:
    """Return the newest event of a run that the run log has."""
    version = record.version
    stated = next((line for line in reversed(record.history) if line.version == version), None)
    # Without validation: a run that something without versions stored has an event without an id.
    return RunEvent.model_construct(
        event_id=version.event_id,
        hlc=version.hlc,
        occurred_at=moment_of(version.hlc) if stated is None else stated.occurred_at,
        inferred=stated is not None and stated.inferred,
        run=record.run,
        is_progress=stated is None,
    )


def _gathered(runs: Sequence[WorkflowRun], told: Told) -> dict[str, Any]:
    labels: dict[str, str] = {}
    for some in (told.labels, *(run.labels for run in runs)):
        for key, value in some.items():
            labels[key] = max(value, labels.get(key, value))
    parents = [parent for parent in (told.parent, *(run.parent for run in runs)) if parent]
    return {
        "started_at": min([told.moment, *(run.started_at for run in runs)]),
        "labels": dict(sorted(labels.items())[:MAX_LABELS]),
        "parent": max(parents, default=None),
    }


def _stated(told: Told, gathered: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the event itself states; None if it states no status."""
    if told.status is None:
        return None
    is_end = told.status.is_terminal
    return {
        "id": told.key[1],
        "workflow_id": told.key[0],
        "status": told.status,
        "attempt": 1,
        "error": told.error,
        "error_type": told.error_type,
        "completed_at": told.moment if is_end else None,
        "duration_ms": (told.moment - gathered["started_at"]) / _MILLISECOND if is_end else 0,
    }


def _rest(base: RunEvent | None) -> dict[str, Any]:
    """Return what somebody else may have said of the run, which stays."""
    return {"trigger_type": TRIGGER_TYPE} if base is None else dict(base.run)


def _corrected(base: RunEvent, gathered: dict[str, Any]) -> RunEvent:
    """Return *base* with what is *gathered*, just after its version; itself if it has all of that."""
    run = dict(base.run)
    if all(run[name] == value for name, value in gathered.items()):
        return base
    run |= gathered
    if base.run.completed_at is not None:
        run["duration_ms"] = max(base.run.completed_at - run["started_at"], timedelta(0)) / _MILLISECOND
    version = base.version.successor
    return RunEvent(
        event_id=version.event_id,
        hlc=version.hlc,
        occurred_at=base.occurred_at,
        inferred=base.inferred,
        is_progress=base.status is RunStatus.RUNNING,
        # As a dict, which the event does not copy once more.
        run=cast("WorkflowRun", run),
    )


def _event(told: Told, version: Version, run: dict[str, Any]) -> RunEvent:
    return RunEvent(
        event_id=version.event_id,
        hlc=version.hlc,
        occurred_at=told.moment,
        is_progress=told.is_progress or told.status is None,
        run=cast("WorkflowRun", run),
    )
