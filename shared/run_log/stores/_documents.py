"""The stored form of a run: its fields, plus one map for the projection's own data.

Every store keeps this form, so a run comes back alike from each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
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

_OVERHEAD_BYTES: Final = 2_048
_TRANSITION_BYTES: Final = 200


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


def transition_fields(transition: Transition) -> dict[str, Any]:
    """Return *transition* as stored: equal transitions give equal maps, so a union keeps one."""
    return {
        "event_id": transition.version.event_id,
        "attempt": transition.version.attempt,
        "hlc": transition.version.hlc,
        "status": transition.status.value,
        "occurred_at": transition.occurred_at,
        "inferred": transition.inferred,
    }


def run_from_fields(fields: Mapping[str, Any], key: RunKey) -> WorkflowRun:
    """Return the run that *fields* hold.

    Args:
        fields: A document's fields.
        key: The run that is looked for, to name it.

    Raises:
        UnreadableRunError: They do not hold a run.
    """
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
        stored = cast("list[Mapping[str, Any]]", projection.get(HISTORY) or [])
        head = RunHead(
            version=Version(
                int(projection.get("attempt", 1)),
                int(projection.get("hlc", 0)),
                str(projection.get("event_id", "")),
            ),
            status=RunStatus(fields["status"]),
            history=history_from_fields(stored),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableRunError(*key, repr(error)) from error
    return StoredHead(head=head, history_length=len(stored))


def history_from_fields(stored: Iterable[Mapping[str, Any]]) -> tuple[Transition, ...]:
    """Return the newest transitions of a stored history, in version order.

    Args:
        stored: Stored transitions in any order.

    Raises:
        KeyError: One lacks a field.
        ValueError: One has a status that does not exist.
    """
    return newest(
        Transition(
            version=Version(int(item["attempt"]), int(item["hlc"]), str(item["event_id"])),
            status=RunStatus(item["status"]),
            occurred_at=plain_datetime(item["occurred_at"]),
            inferred=bool(item.get("inferred", False)),
        )
        for item in stored
    )


def plain_datetime(value: datetime) -> datetime:
    """Return *value* as a plain datetime: a vendor's subclass breaks on ``replace``."""
    return datetime.combine(value.date(), value.timetz())


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
    names = len(fields["id"].encode()) + len(fields["workflow_id"].encode())
    return size + names + transitions * _TRANSITION_BYTES + _OVERHEAD_BYTES


def _payload(stored: object) -> object:
    """Return a payload as it was given; a map stands where something else than run-log wrote it."""
    return decode_json(stored) if isinstance(stored, str) else stored
