"""Celery's database result back end: a row is a run of a task."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import UTC, tzinfo
from typing import Any, Final, cast

from run_log.core import RunStatus
from run_log.core.nearest import OUTER_KEY

from .databases import Row, moment, opened_database, value_of
from .errors import LeftOut, UnreadableValueError
from .found import Found, Redact, imported_event

CELERY_STATUSES: Final[Mapping[str, RunStatus]] = {
    "pending": RunStatus.PENDING,
    "received": RunStatus.PENDING,
    "started": RunStatus.RUNNING,
    "retry": RunStatus.PENDING,
    "success": RunStatus.SUCCESS,
    "failure": RunStatus.FAILED,
    "revoked": RunStatus.CANCELLED,
    "rejected": RunStatus.FAILED,
    "ignored": RunStatus.SKIPPED,
}
"""What Celery's own states mean, in lower case."""

NO_VALUES: Final = "arguments or results that only Celery can read"

_TABLE: Final = "celery_taskmeta"
_LABELS: Final = ("queue", "worker")


def celery_runs(
    url: str,
    *,
    workflow_id: str | None = None,
    statuses: Mapping[str, RunStatus] = CELERY_STATUSES,
    zone: tzinfo = UTC,
    redact: Redact,
) -> Generator[Found]:
    """Yield the tasks in the table ``celery_taskmeta``, in the order in which they were stored.

    Args:
        url: The database, as SQLAlchemy takes it.
        workflow_id: The workflow of tasks whose names Celery did not store; None leaves them out.
        statuses: What states mean, in lower case.
        zone: The time zone of Celery's times: its setting ``timezone``.
        redact: Replaces secrets.

    Raises:
        ConfigurationError, NotFoundError, TransportUnavailableError: The database cannot be read.
    """
    with opened_database(url) as database:
        table = database.table(_TABLE, "the database of Celery's result back end")
        for rows in database.pages(table):
            for row in rows:
                yield _found(row, workflow_id, statuses, zone, redact)


def _found(
    row: Row, workflow_id: str | None, statuses: Mapping[str, RunStatus], zone: tzinfo, redact: Redact
) -> Found:
    place, without = f"{_TABLE} {row['id']}", list[str]()
    try:
        fields = _fields(row, workflow_id, statuses, zone, without)
        event = imported_event(fields, without, redact=redact)
    except LeftOut as why:
        return Found(place=place, what=why, record=dict(row))
    return Found(place=place, what=event, without=tuple(without))


def _fields(
    row: Row,
    workflow_id: str | None,
    statuses: Mapping[str, RunStatus],
    zone: tzinfo,
    without: list[str],
) -> dict[str, Any]:
    name = row.get("name") or workflow_id
    if not name:
        raise LeftOut("Celery did not store its name, as result_extended is off (pass --workflow)")
    state = str(row["status"])
    status = statuses.get(state.lower())
    if status is None:
        raise LeftOut(f"its state is unknown (pass --status {state[:40]}=STATUS)")
    ended_at = moment(row["date_done"], zone)
    if ended_at is None:
        raise LeftOut("it has no time, as Celery stores when a task ended alone")
    attempt = int(row.get("retries") or 0) + 1
    fields: dict[str, Any] = {
        "workflow_id": name,
        "id": row["task_id"],
        "status": status,
        # Of a task that is tried again, the next try is what is pending.
        "attempt": attempt + (state == "RETRY"),
        "trigger_type": "celery",
        "started_at": ended_at,
        "completed_at": ended_at if status.is_terminal else None,
        "labels": {key: row[key] for key in _LABELS if row.get(key)},
    }
    try:
        called = {key: value_of(row[key]) for key in ("args", "kwargs") if row.get(key)}
        fields["trigger_data"] = {key: value for key, value in called.items() if value}
    except UnreadableValueError:
        without.append(NO_VALUES)
    try:
        result = value_of(row["result"])
    except UnreadableValueError:
        result = None
        without.append(NO_VALUES)
    if state == "SUCCESS" or status in {RunStatus.SUCCESS, RunStatus.RUNNING}:
        fields["result"] = (
            result if isinstance(result, dict) else {} if result is None else {OUTER_KEY: result}
        )
    else:
        fields |= _failure(result, row.get("traceback"))
    return fields


def _failure(result: Any, traceback: str | None) -> dict[str, Any]:
    """Return the fields of the exception that Celery stored as *result*."""
    text = str(traceback or "").strip()
    if not isinstance(result, dict):
        return {"error": text or None}
    stored = cast("dict[str, Any]", result)
    kind, said = str(stored.get("exc_type") or ""), stored.get("exc_message")
    said = (
        ", ".join(map(str, cast("list[object]", said))) if isinstance(said, list | tuple) else str(said or "")
    )
    module = stored.get("exc_module")
    message = f"{kind}: {said}" if said else kind
    return {
        "error": "\n".join(filter(None, (message, text))) or None,
        "error_type": f"{module}.{kind}" if kind and module and module != "builtins" else kind or None,
    }
