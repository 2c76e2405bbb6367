"""Celery's result back ends, a database or Redis: what is stored of a task is a run of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from datetime import UTC, tzinfo
from functools import partial
from typing import Any, Final, cast

from run_log.core import InvalidArgumentError, RunStatus
from run_log.core.nearest import OUTER_KEY

from .databases import Row, moment, opened_database, value_of
from .errors import LeftOut, UnreadableValueError
from .found import Found, Redact, imported_event
from .redis import SCHEMES, stored_values

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
_KEY: Final = "celery-task-meta-"
_ENDS_OF_PREFIXES: Final = (":", "_", "-", ".")
_LABELS: Final = ("queue", "worker")


def celery_runs(
    url: str,
    *,
    workflow_id: str | None = None,
    statuses: Mapping[str, RunStatus] = CELERY_STATUSES,
    zone: tzinfo = UTC,
    key_prefix: str | None = None,
    redact: Redact,
) -> Generator[Found]:
    """Yield the tasks in the table ``celery_taskmeta`` as they were stored, or those in Redis in any order.

    Args:
        url: The database, as SQLAlchemy takes it, or the address of Redis.
        workflow_id: The workflow of tasks whose names Celery did not store; None leaves them out.
        statuses: What states mean, in lower case.
        zone: The time zone of Celery's times: its setting ``timezone``.
        key_prefix: What keys of Redis begin with: Celery's setting ``global_keyprefix``.
        redact: Replaces secrets.

    Raises:
        ConfigurationError, NotFoundError, TransportUnavailableError: The database cannot be read.
        InvalidArgumentError: A database has no *key_prefix*.
    """
    found = partial(_found, workflow_id=workflow_id, statuses=statuses, zone=zone, redact=redact)
    if url.startswith(SCHEMES):
        prefix = key_prefix or ""
        # As Celery does.
        prefix += "_" if prefix and not prefix.endswith(_ENDS_OF_PREFIXES) else ""
        for key, stored in stored_values(url, prefix + _KEY):
            # All of it was read at once, so its values are read already.
            yield found(key, partial(_result, stored), read=lambda value: value, stored=stored)
        return
    if key_prefix is not None:
        raise InvalidArgumentError("--key-prefix is for Redis: keys have one, and rows have none")
    with opened_database(url) as database:
        table = database.table(_TABLE, "the database of Celery's result back end")
        for rows in database.pages(table):
            for row in rows:
                yield found(f"{_TABLE} {row['id']}", partial(dict[str, Any], row), read=value_of)


def _result(stored: bytes) -> Row:
    try:
        found = value_of(stored)
    except UnreadableValueError as error:
        raise LeftOut("it is not JSON, nor plain pickled values", f"{error!s:.100}") from error
    if not isinstance(found, dict) or not {"task_id", "status", "result"} <= found.keys():
        raise LeftOut("it is no result of Celery")
    return cast("dict[str, Any]", found)


def _found(  # noqa: PLR0913 - what both back ends share
    place: str,
    row_of: Callable[[], Row],
    *,
    read: Callable[[Any], Any],
    stored: bytes | None = None,
    workflow_id: str | None,
    statuses: Mapping[str, RunStatus],
    zone: tzinfo,
    redact: Redact,
) -> Found:
    without = list[str]()
    size = len(stored or b"")
    record: Row | bytes | None = stored
    try:
        record = row = row_of()
        fields = _task_fields(row, workflow_id, statuses, zone)
        fields |= _values(row, fields["status"], read, without)
        event = imported_event(fields, without, redact=redact)
    except LeftOut as why:
        return Found(place=place, what=why, record=record, size=size)
    return Found(place=place, what=event, without=tuple(without), size=size)


def _task_fields(
    row: Row, workflow_id: str | None, statuses: Mapping[str, RunStatus], zone: tzinfo
) -> dict[str, Any]:
    name = row.get("name") or workflow_id
    if not name:
        raise LeftOut("Celery did not store its name, as result_extended is off (pass --workflow)")
    state = str(row["status"])
    status = statuses.get(state.lower())
    if status is None:
        raise LeftOut(f"its state is unknown (pass --status {state[:40]}=STATUS)")
    ended_at = moment(row.get("date_done"), zone)
    if ended_at is None:
        raise LeftOut("it has no time, as Celery stores when a task ended alone")
    retries = row.get("retries")
    attempt = (retries if isinstance(retries, int) else 0) + 1
    return {
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


def _values(row: Row, status: RunStatus, read: Callable[[Any], Any], without: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    try:
        called = {key: read(row[key]) for key in ("args", "kwargs") if row.get(key)}
        fields["trigger_data"] = {key: value for key, value in called.items() if value}
    except UnreadableValueError:
        without.append(NO_VALUES)
    try:
        result = read(row["result"])
    except UnreadableValueError:
        result = None
        without.append(NO_VALUES)
    if row["status"] == "SUCCESS" or status in {RunStatus.SUCCESS, RunStatus.RUNNING}:
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
