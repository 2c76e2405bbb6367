"""A run as it is put into a store: its fields, its history, its size, and when it expires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, cast

from run_log.core import PauseRequest, RunEvent, RunStatus, Transition, WorkflowRun
from run_log.core.clock import micros_of
from run_log.core.counters import Counted
from run_log.core.history import (
    MAX_ANSWERER_BYTES,
    MAX_HISTORY_CHOICE_BYTES,
    MAX_HISTORY_COMMENT_BYTES,
    MAX_HISTORY_VALUES_BYTES,
    comment_json,
)
from run_log.core.ids import document_id
from run_log.core.law import RunChange, RunHead
from run_log.core.payload import encode_json
from run_log.stores.retention import Retention

from .fields import (
    ACTIVE_SINCE,
    COUNTED_HOUR,
    COUNTED_MICROS,
    ERROR_TYPE,
    LABELS,
    MAX_ASSIGNEE_BYTES,
    NO_DEADLINE,
    PARENT,
    PAUSED_ASSIGNEE,
    PAUSED_DEADLINE,
    PAUSED_STARTED_AT,
    PROGRESS,
    PROGRESS_DIGEST,
    TRACE_ID,
    indexed_assignee,
    label_text,
)

_OVERHEAD_BYTES: Final = 2_048 + MAX_ASSIGNEE_BYTES
# Of a transition's text: an event id has up to 128 characters, each of which JSON may have to escape. The
# newest has a digest too.
_TRANSITION_BYTES: Final = (330 + MAX_ANSWERER_BYTES + 1 + 23) + (
    MAX_HISTORY_CHOICE_BYTES + MAX_HISTORY_COMMENT_BYTES + MAX_HISTORY_VALUES_BYTES + 3
)


def run_fields(run: WorkflowRun) -> dict[str, Any]:
    """Return *run* as stored: payloads as JSON text, times as aware datetimes."""
    pause = run.pause
    fields: dict[str, Any] = {
        "id": run.id,
        "workflow_id": run.workflow_id,
        "status": run.status.value,
        "trigger_type": str(run.trigger_type),
        "trigger_data": encode_json(run.trigger_data),
        "result": encode_json(run.result),
        "error": run.error,
        "started_at": run.started_at,
        "completed_at": run.completed_at,
        "duration_ms": float(run.duration_ms),
        "attempt": run.attempt,
        "pause": _pause_fields(pause) if pause else None,
    }
    if run.labels:
        fields[LABELS] = sorted(map(label_text, run.labels, run.labels.values()))
    if run.parent:
        fields[PARENT] = run.parent._asdict()
    if run.trace_id:
        fields[TRACE_ID] = run.trace_id
    if run.error_type:
        fields[ERROR_TYPE] = run.error_type
    if run.progress:
        fields[PROGRESS] = run.progress.model_dump()
    return fields


def _pause_fields(pause: PauseRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "reason": pause.reason,
        "assignee": pause.assignee,
        "deadline": pause.deadline,
        "answered_by": pause.answered_by,
        "comment": pause.comment,
    }
    if pause.choices:
        fields["choices"] = list(pause.choices)
    for name in ("default_choice", "choice"):
        if text := getattr(pause, name):
            fields[name] = text
    # As text: see `_stored_object` of the model.
    for name in ("form", "values"):
        if value := getattr(pause, name):
            fields[name] = encode_json(value)
    return fields


def projection_fields(event: RunEvent, counted: Counted, digest: str | None = None) -> dict[str, Any]:
    """Return what the projection keeps about a run's newest event, of which *counted* is in the summary.

    *digest* is that of its run, which is kept here if the event is no transition.
    """
    version = event.version
    fields: dict[str, Any] = {
        "attempt": version.attempt,
        "hlc": version.hlc,
        "event_id": version.event_id,
        "occurred_at": event.occurred_at,
        "inferred": event.inferred,
    }
    if event.status is RunStatus.PAUSED:
        pause = event.run.pause or PauseRequest()
        fields[PAUSED_STARTED_AT] = event.run.started_at
        fields[PAUSED_DEADLINE] = pause.deadline or NO_DEADLINE
        if pause.assignee:
            fields[PAUSED_ASSIGNEE] = indexed_assignee(pause.assignee)
    elif event.status in (RunStatus.PENDING, RunStatus.RUNNING):
        fields[ACTIVE_SINCE] = event.occurred_at
    if not event.is_transition:
        fields[PROGRESS_DIGEST] = digest or ""
    if counted.micros is not None:
        fields[COUNTED_MICROS] = counted.micros
    if counted.hour is not None:
        fields[COUNTED_HOUR] = counted.hour
    return fields


def transition_text(transition: Transition, digest: str | None = None) -> str:
    """Return *transition* as stored: equal transitions give equal texts, so a union keeps one.

    *digest* is that of the state that it led to, where that is the run's newest.
    """
    # A text and no map: a map of six fields is seven messages for the vendor's client to build.
    version = transition.version
    moment = micros_of(transition.occurred_at)
    # By hand, for every event pays for it; a status is a plain word.
    text = (
        f"[{version.attempt},{version.hlc},{encode_json(version.event_id)},"
        f'"{transition.status.value}",{moment},{int(transition.inferred)}'
    )
    answer = (transition.choice, transition.comment, transition.values_text)
    has_more = answer != (None, None, None)
    if transition.answered_by is not None or digest is not None or has_more:
        text = f"{text},{encode_json(transition.answered_by or '')}"
    if digest is not None or has_more:
        text = f'{text},"{digest or ""}"'
    if has_more:
        choice, comment, values = answer
        text = f"{text},{encode_json(choice or '')},{comment_json(comment or '')},{values or 'null'}"
    return f"{text}]"


def history_texts(head: RunHead, transitions: Iterable[Transition]) -> list[str]:
    """Return those *transitions*, of the history of *head*, as stored."""
    return [
        transition_text(transition, head.digest if transition.version == head.version else None)
        for transition in transitions
    ]


def expiry_after(change: RunChange, stored: datetime | None, retention: Retention | None) -> datetime | None:
    """Return when a run expires once it has changed; None where it never does.

    *stored* is when it was to expire before. Without a *retention*, a run that gets a new state is kept.
    """
    if retention is not None:
        return retention.expires_at(change.after)
    return None if change.winner else stored


def document_bytes(fields: Mapping[str, Any]) -> int:
    """Return the most bytes that the document of these `run_fields` takes without a history."""
    size = sum(map(_text_bytes, fields.values()))
    # Ids stand in the document's name as well.
    names = len(document_id(fields["id"]).encode()) + len(document_id(fields["workflow_id"]).encode())
    return size + names + _OVERHEAD_BYTES


def _text_bytes(value: object) -> int:
    match value:
        case str():
            return len(value.encode())
        case dict():  # not any mapping, for which each of a dozen numbers would be asked at length
            return sum(map(_text_bytes, cast("dict[str, object]", value).values()))
        case list():
            # One byte more for each, as Firestore counts (docs: storage-size).
            return sum(_text_bytes(each) + 1 for each in cast("list[object]", value))
        case _:
            return 0


def history_bytes(transitions: int) -> int:
    """Return how many bytes so many transitions take in a document at most."""
    return transitions * _TRANSITION_BYTES
