"""The stored form of a run: its fields, plus one map for the projection's own data.

Every store keeps this form, so a run comes back alike from each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from pydantic import ValidationError

from run_log.core import (
    Position,
    RunEvent,
    RunHead,
    RunKey,
    RunStatus,
    Transition,
    UnreadableRunError,
    Version,
    WorkflowRun,
    decode_json,
    document_id,
    encode_json,
    newest,
)

PROJECTION: Final = "projection"
"""The map beside a run's fields that is the projection's own."""

PAUSED_STARTED_AT: Final = "paused_started_at"
"""In the projection map of paused runs only: their `started_at`. The inbox is an index on this field alone,
so that runs which never pause write nothing to it."""

HISTORY: Final = "history"

MAX_DOCUMENT_BYTES: Final = 1_048_576
"""Firestore's limit for a document (https://firebase.google.com/docs/firestore/quotas)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_OVERHEAD_BYTES: Final = 2_048
_TRANSITION_BYTES: Final = 330
"""Of a transition's text: an event id has up to 128 characters, each of which JSON may have to escape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHead:
    """A run's head as a store holds it."""

    head: RunHead
    history_length: int
    """Transitions stored; more than the head's history until they are trimmed."""


def run_fields(run: WorkflowRun) -> dict[str, Any]:
    """Return *run* as stored: payloads as JSON text, times as aware datetimes."""
    pause = run.pause
    return {
        "id": run.id,
        "workflow_id": run.workflow_id,
        "status": run.status.value,
        "trigger_type": run.trigger_type.value,
        "trigger_data": encode_json(run.trigger_data),
        "result": encode_json(run.result),
        "error": run.error,
        "started_at": run.started_at,
        "completed_at": run.completed_at,
        "duration_ms": float(run.duration_ms),
        "attempt": run.attempt,
        "pause": pause.model_dump() if pause else None,
    }


def projection_fields(event: RunEvent) -> dict[str, Any]:
    """Return what the projection keeps about the run's newest event, the history aside."""
    fields: dict[str, Any] = {
        "attempt": event.version.attempt,
        "hlc": event.version.hlc,
        "event_id": event.version.event_id,
        "occurred_at": event.occurred_at,
        "inferred": event.inferred,
    }
    if event.status is RunStatus.PAUSED:
        fields[PAUSED_STARTED_AT] = event.run.started_at
    return fields


def transition_text(transition: Transition) -> str:
    """Return *transition* as stored: equal transitions give equal texts, so a union keeps one.

    A text rather than a map: a map of six fields is seven messages for the vendor's client to build.
    """
    version = transition.version
    moment = (transition.occurred_at - _EPOCH) // _MICROSECOND
    return encode_json(
        [
            version.attempt,
            version.hlc,
            version.event_id,
            transition.status.value,
            moment,
            int(transition.inferred),
        ]
    )


def transition_from_text(text: str) -> Transition:
    """Return the transition that `transition_text` was given.

    Raises:
        ValueError: *text* is not of its making.
        TypeError: *text* is not of its making.
    """
    attempt, hlc, event_id, status, moment, inferred = decode_json(text)
    return Transition(
        version=Version(int(attempt), int(hlc), str(event_id)),
        status=RunStatus(status),
        occurred_at=_EPOCH + moment * _MICROSECOND,
        inferred=bool(inferred),
    )


def run_from_fields(fields: Mapping[str, Any], key: RunKey) -> WorkflowRun:
    """Return the run that *fields* hold.

    Args:
        fields: A document's fields.
        key: The run that is looked for, to name it.

    Raises:
        UnreadableRunError: They do not hold a run.
    """
    started_at = fields.get("started_at")
    if not isinstance(started_at, datetime):
        # The model would read a text or a number too, but a store sorts those apart from timestamps: the
        # cursor made from one would skip every run between.
        raise UnreadableRunError(*key, f"started_at is {started_at!r}, not a timestamp")
    try:
        payloads = {name: _payload(fields.get(name)) for name in ("trigger_data", "result")}
        return WorkflowRun.model_validate({**fields, **payloads})
    except (ValidationError, ValueError, RecursionError) as error:
        raise UnreadableRunError(*key, str(error)) from error


def head_from_fields(fields: Mapping[str, Any], key: RunKey) -> StoredHead:
    """Return the head that *fields* hold.

    A document without a projection map was written by something that knew no versions: every event is
    newer than it.

    Args:
        fields: A document's fields, of which ``status`` and the projection map are read.
        key: The run that is looked for, to name it.

    Raises:
        UnreadableRunError: They do not hold a head.
    """
    try:
        projection = cast("Mapping[str, Any]", fields.get(PROJECTION) or {})
        stored = cast("list[str]", projection.get(HISTORY) or [])
        head = RunHead(
            version=Version(
                int(projection.get("attempt", 1)),
                int(projection.get("hlc", 0)),
                str(projection.get("event_id", "")),
            ),
            status=RunStatus(fields["status"]),
            history=newest(map(transition_from_text, stored)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableRunError(*key, repr(error)) from error
    return StoredHead(head=head, history_length=len(stored))


def position_of(run: WorkflowRun) -> Position:
    """Return where *run* stands in its workflow's listing."""
    return Position(run.started_at, document_id(run.id))


def document_bytes(fields: Mapping[str, Any], transitions: int) -> int:
    """Return about how many bytes a run's document takes, never less than it does.

    Args:
        fields: What `run_fields` returned.
        transitions: How many transitions its history holds.
    """
    pause = cast("Mapping[str, Any]", fields["pause"] or {})
    texts = (*fields.values(), *pause.values())
    size = sum(len(text.encode()) for text in texts if isinstance(text, str))
    # Ids stand in the document's name as well.
    names = len(document_id(fields["id"]).encode()) + len(document_id(fields["workflow_id"]).encode())
    return size + names + transitions * _TRANSITION_BYTES + _OVERHEAD_BYTES


def _payload(stored: object) -> object:
    """Return a payload as it was given; a map stands where something else than run-log wrote it."""
    return decode_json(stored) if isinstance(stored, str) else stored
