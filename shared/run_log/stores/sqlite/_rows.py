"""A run as a row: a column for each field, times as microseconds since the epoch."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from run_log.core import RunEvent, RunStatus, StoreError, UnreadableRunError
from run_log.core.clock import micros_of, moment_of
from run_log.core.counters import NOT_COUNTED, SummaryCounter
from run_log.core.ids import document_id, original_id
from run_log.core.law import RunHead
from run_log.core.models import RunKey
from run_log.core.payload import decode_json, encode_json
from run_log.stores.committing.commits import StatsWrite
from run_log.stores.stored.fields import (
    ACTIVE_SHARD,
    ACTIVE_SINCE,
    COUNTED_HOUR,
    COUNTED_MICROS,
    EXPIRE_AT,
    HISTORY,
    OPTIONAL,
    PAUSED_DEADLINE,
    PAUSED_STARTED_AT,
    PAYLOADS,
    PROJECTION,
)
from run_log.stores.stored.reading import StoredRun, head_from_fields, number_of, stored_run
from run_log.stores.stored.writing import history_texts, projection_fields, run_fields
from run_log.stores.summaries import WorkflowStats

Row = Sequence[Any]
Place = tuple[str, str]
"""Where a run is kept: the document ids of its workflow and its own."""

_PLACE: Final = ("workflow", "run")
_FIELDS: Final = (
    "workflow_id",
    "id",
    "status",
    "trigger_type",
    "started_at",
    "completed_at",
    "duration_ms",
    "attempt",
    "pause",
    "error",
    "trigger_data",
    "result",
)
# The shard of an active run is left out: it keeps apart what writers of a distributed index would meet at.
_OPTIONAL: Final = tuple(name for name in OPTIONAL if name != ACTIVE_SHARD)
_PROJECTION: Final = ("attempt", "hlc", "event_id", "occurred_at", "inferred", *_OPTIONAL)
_MOMENTS: Final = frozenset(
    {
        "started_at",
        "completed_at",
        "occurred_at",
        PAUSED_STARTED_AT,
        PAUSED_DEADLINE,
        ACTIVE_SINCE,
    }
)
_STATUSES: Final = tuple(status.value for status in RunStatus)

RUN_COLUMNS: Final = (*_PLACE, *dict.fromkeys((*_PROJECTION, EXPIRE_AT, *_FIELDS)))
"""What is read of a run, its history aside."""

HEAD_COLUMNS: Final = (
    "status",
    EXPIRE_AT,
    "attempt",
    "hlc",
    "event_id",
    COUNTED_MICROS,
    COUNTED_HOUR,
    HISTORY,
)
"""What is read of a run to merge events into it."""

DOCUMENT_COLUMNS: Final = (*RUN_COLUMNS, HISTORY)
"""All that is stored of a run."""

BARE_COLUMNS: Final = tuple(name for name in DOCUMENT_COLUMNS if name not in PAYLOADS)
"""That without what workflows gave it."""

WORKFLOW_COLUMNS: Final = ("workflow", "workflow_id", "as_of", *_STATUSES)
"""What is read of a workflow."""

WRITE_RUN: Final = (
    f"INSERT INTO runs ({', '.join((*RUN_COLUMNS, HISTORY, 'changed'))}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join(f':{name}' for name in (*RUN_COLUMNS, HISTORY, 'changed'))}) "
    "ON CONFLICT (workflow, run) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*RUN_COLUMNS[2:], HISTORY, "changed"))
)
"""Puts a run's newest state in the place of what was there."""

WRITE_HISTORY: Final = (
    f"UPDATE runs SET {HISTORY} = :{HISTORY}, {EXPIRE_AT} = :{EXPIRE_AT}, changed = :changed "  # noqa: S608
    "WHERE workflow = :workflow AND run = :run"
)
"""Adds to a run's history what is not its newest state."""

ADD_TO_WORKFLOW: Final = (
    f"INSERT INTO workflows ({', '.join(WORKFLOW_COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in WORKFLOW_COLUMNS)}) "
    "ON CONFLICT (workflow) DO UPDATE SET as_of = max(as_of, excluded.as_of), "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _STATUSES)
)
"""Adds to a workflow's counts."""

ADD_TO_COUNTER: Final = (
    "INSERT INTO counters (workflow, scope, slot, name, count) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (workflow, scope, slot, name) DO UPDATE SET count = count + excluded.count"
)
"""Adds to a counter of a workflow's summary."""

COUNT_REPAIR: Final = (
    "INSERT INTO repairs (workflow, count) VALUES (?, 1) "
    "ON CONFLICT (workflow) DO UPDATE SET count = count + 1"
)
"""Counts that a workflow's counts were repaired."""

FORGET_COUNTERS: Final = "DELETE FROM counters WHERE workflow = ? AND scope = ? AND slot < ?"
"""Takes away the days or hours of a workflow that are over."""

DELETE_EXPIRED: Final = (
    "DELETE FROM runs WHERE rowid IN "
    "(SELECT rowid FROM runs INDEXED BY expired WHERE expire_at IS NOT NULL AND expire_at <= ? LIMIT ?)"
)
"""Deletes some of the runs that expired before a moment."""


EXPIRE_RUN: Final = f"UPDATE runs SET {EXPIRE_AT} = ? WHERE rowid = ?"  # noqa: S608 - our own names
"""Says when a run expires."""


def run_row(event: RunEvent) -> dict[str, Any]:
    """Return the columns of *event*'s run, as far as they follow from that alone: see `change_columns`."""
    workflow_id, run_id = event.key
    projection = projection_fields(event, NOT_COUNTED)
    fields: dict[str, Any] = {**dict.fromkeys(_OPTIONAL), **projection, **run_fields(event.run)}
    pause = fields["pause"]
    if pause is not None:
        deadline = pause["deadline"]
        fields["pause"] = encode_json({**pause, "deadline": deadline and deadline.isoformat()})
    for name in _MOMENTS:
        moment = fields[name]
        fields[name] = None if moment is None else micros_of(moment)
    return {**fields, "workflow": document_id(workflow_id), "run": document_id(run_id)}


def change_columns(head: RunHead, expires_at: datetime | None) -> dict[str, Any]:
    """Return the columns that follow from all that is known of a run.

    Args:
        head: How it stands.
        expires_at: When it may be deleted; None where it never may.
    """
    return {
        HISTORY: "\n".join(history_texts(head, head.history)),
        COUNTED_MICROS: head.counted.micros,
        COUNTED_HOUR: head.counted.hour,
        EXPIRE_AT: None if expires_at is None else micros_of(expires_at),
    }


def head_fields(row: Row) -> dict[str, Any]:
    """Return the fields that `HEAD_COLUMNS` hold, as `head_from_fields` reads them."""
    fields = dict(zip(HEAD_COLUMNS, row, strict=True))
    history = fields.pop(HISTORY)
    # What is no text is damaged; who reads the fields says so.
    lines = history.split("\n") if isinstance(history, str) else [history]
    expire_at = fields.pop(EXPIRE_AT)
    with contextlib.suppress(TypeError, OverflowError):
        expire_at = _moment(expire_at)
    return {
        "status": fields.pop("status"),
        EXPIRE_AT: expire_at,
        PROJECTION: {**fields, HISTORY: lines},
    }


def head_from_row(row: Row) -> RunHead | None:
    """Return the head that `HEAD_COLUMNS` hold; None where they hold none."""
    try:
        head = head_from_fields(head_fields(row), ("", "")).head
    except UnreadableRunError:
        return None
    return head if head.history else None


def run_from_row(row: Row, key: RunKey | None = None) -> StoredRun:
    """Return the run that `RUN_COLUMNS` hold.

    Args:
        row: Their values.
        key: The run that is looked for, to name it; None takes it from its place.

    Raises:
        UnreadableRunError: They do not hold a run.
    """
    values: dict[str, Any] = dict(zip(RUN_COLUMNS, row, strict=True))
    place = (str(values["workflow"]), str(values["run"]))
    named = key or (original_id(place[0]) or place[0], original_id(place[1]) or place[1])
    try:
        values |= {name: _moment(values[name]) for name in (*_MOMENTS, EXPIRE_AT)}
        projection = {name: values[name] for name in _PROJECTION}
        projection["inferred"] = bool(projection["inferred"])
        fields = {name: values[name] for name in (*_FIELDS, EXPIRE_AT)}
        if fields["pause"] is not None:
            fields["pause"] = decode_json(fields["pause"])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnreadableRunError(*named, str(error)) from error
    # As in other stores: what a run in its status does not have is absent.
    projection = {name: value for name, value in projection.items() if value is not None}
    return stored_run({**fields, PROJECTION: projection}, named, place=place)


def document_from_row(row: Row, *, whole: bool) -> tuple[object, dict[str, Any]]:
    """Return the document id of a run and its fields, as they would be a document's, whatever they hold.

    An id that is no text is returned as it is.

    Args:
        row: The values of `DOCUMENT_COLUMNS`, or of `BARE_COLUMNS`.
        whole: Whether of the former.
    """
    values: dict[str, Any] = dict(zip(DOCUMENT_COLUMNS if whole else BARE_COLUMNS, row, strict=True))
    for name in (*_MOMENTS, EXPIRE_AT):
        # What is no time is left as it is, for whoever reads the document to say so.
        with contextlib.suppress(TypeError, OverflowError):
            values[name] = _moment(values[name])
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        values["pause"] = decode_json(values["pause"]) if values["pause"] is not None else None
    projection = {name: values[name] for name in _PROJECTION if values[name] is not None}
    projection["inferred"] = bool(projection.get("inferred"))
    history = values[HISTORY]
    projection[HISTORY] = history.split("\n") if isinstance(history, str) else [history]
    fields: dict[str, Any] = {name: values[name] for name in _FIELDS if name in values}
    if values[EXPIRE_AT] is not None:
        fields[EXPIRE_AT] = values[EXPIRE_AT]
    return values["run"], {**fields, PROJECTION: projection}


def stats_from_row(row: Row) -> WorkflowStats:
    """Return the stats that `WORKFLOW_COLUMNS` hold.

    Raises:
        StoreError: They hold something else.
    """
    workflow, workflow_id, as_of, *counts = row
    if not isinstance(workflow_id, str) or document_id(workflow_id) != workflow:
        raise StoreError(
            f"the stats of workflow {reprlib.repr(workflow)} say that they are another workflow's"
        )
    if not all(isinstance(count, int) for count in (as_of, *counts)):
        raise StoreError(
            f"the stats of workflow {workflow_id!r} are damaged: {reprlib.repr([as_of, *counts])}"
        )
    try:
        moment = moment_of(as_of)
    except OverflowError as error:
        raise StoreError(f"the stats of workflow {workflow_id!r} are damaged: {as_of} is no time") from error
    by_status = {status: count for status, count in zip(RunStatus, counts, strict=True) if count}
    return WorkflowStats(
        workflow_id=workflow_id,
        total=sum(by_status.values()),
        successful=by_status.get(RunStatus.SUCCESS, 0),
        by_status=by_status,
        as_of=moment,
    )


def workflow_row(write: StatsWrite) -> dict[str, Any]:
    """Return the columns that add *write* to a workflow's counts."""
    counts = {status.value: write.delta.by_status.get(status, 0) for status in RunStatus}
    return {
        "workflow": document_id(write.workflow_id),
        "workflow_id": write.workflow_id,
        "as_of": 0 if write.as_of is None else micros_of(write.as_of),
        **counts,
    }


def counter_rows(write: StatsWrite) -> list[tuple[str, str, int, str, int]]:
    """Return what `ADD_TO_COUNTER` takes for each counter that *write* changes."""
    workflow = document_id(write.workflow_id)
    return [
        (workflow, counter.scope.value, counter.slot, counter.name, count)
        for counter, count in write.counters.items()
    ]


def counter_from_row(row: Row) -> tuple[SummaryCounter, int]:
    """Return the counter that a row of the table holds, its workflow aside.

    Raises:
        StoreError: It holds something else.
    """
    scope, slot, name, count = row
    try:
        return SummaryCounter.stored(scope, number_of(slot), name), number_of(count)
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"a counter is damaged: {error}") from error


def _moment(stored: object) -> datetime | None:
    if stored is None:
        return None
    if not isinstance(stored, int):
        raise TypeError(f"{reprlib.repr(stored)} is no time")
    return moment_of(stored)
