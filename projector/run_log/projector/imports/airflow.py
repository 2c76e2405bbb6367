"""Airflow's metadata database: a DAG run is a run, and its task instances are the run's steps."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from run_log.core import RunStatus, Step, StepStatus
from run_log.core.clock import micros_of
from run_log.core.steps import MAX_STEPS, fitted, is_step_key, joined_steps

from .databases import Row, moment, opened_database, value_of
from .errors import LeftOut, UnreadableValueError
from .found import Found, Redact, imported_event
from .mapping import trigger_word

NO_CONF: Final = "configurations that only Airflow can read"
STEPS_CUT: Final = f"tasks beyond {MAX_STEPS}, of which the newest are kept as steps"

_STATES: Final[Mapping[str, RunStatus]] = {
    "queued": RunStatus.PENDING,
    "running": RunStatus.RUNNING,
    "success": RunStatus.SUCCESS,
    "failed": RunStatus.FAILED,
}
# States in which a task that has started has ended. In any other one it is running.
_ENDED: Final[Mapping[str, StepStatus]] = {
    "success": StepStatus.SUCCESS,
    "failed": StepStatus.FAILED,
    "up_for_retry": StepStatus.FAILED,
    "upstream_failed": StepStatus.CANCELLED,
    "skipped": StepStatus.CANCELLED,
    "removed": StepStatus.CANCELLED,
}
_TASK_COLUMNS: Final = (
    *("task_id", "dag_id", "run_id", "map_index", "start_date", "end_date"),
    *("state", "try_number", "operator"),
)
_MOST_NAMED: Final = 5
_NO_INDEX: Final = -1  # as Airflow has it of a task that is not mapped


def airflow_runs(url: str, *, redact: Redact) -> Generator[Found]:
    """Yield the DAG runs of Airflow 2.2 or newer, in the order in which they were made.

    Args:
        url: The metadata database, as SQLAlchemy takes it.
        redact: Replaces secrets.

    Raises:
        ConfigurationError, NotFoundError, TransportUnavailableError: The database cannot be read.
    """
    what = "the metadata database of Airflow 2.2 or newer"
    with opened_database(url) as database:
        runs, tasks = (database.table(name, what) for name in ("dag_run", "task_instance"))
        columns = [tasks.c[name] for name in _TASK_COLUMNS if name in tasks.c]
        for page in database.pages(runs):
            by_run: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
            if page:
                of_page = runs.c.id.between(page[0]["id"], page[-1]["id"])
                joined = tasks.join(
                    runs, (tasks.c.dag_id == runs.c.dag_id) & (tasks.c.run_id == runs.c.run_id)
                )
                for task in database.rows(database.select(*columns).select_from(joined).where(of_page)):
                    by_run[task["dag_id"], task["run_id"]].append(task)
            for row in page:
                yield _found(row, by_run[row["dag_id"], row["run_id"]], redact)


def _found(row: Row, tasks: Sequence[Row], redact: Redact) -> Found:
    place, without = f"dag_run {row['id']}", list[str]()
    try:
        steps = joined_steps([step for task in tasks if (step := _step(task)) is not None])
        event = imported_event(_fields(row, tasks, without), without, steps=steps, redact=redact)
    except LeftOut as why:
        return Found(place=place, what=why, record=dict(row))
    if len(tasks) > MAX_STEPS:
        without.append(STEPS_CUT)
    return Found(place=place, what=event, without=tuple(without))


def _fields(row: Row, tasks: Sequence[Row], without: list[str]) -> dict[str, Any]:
    status = _STATES.get(str(row["state"]))
    if status is None:
        raise LeftOut(f"its state is unknown, {row['state']!s:.40}")
    begun = (row.get(name) for name in ("start_date", "queued_at", "logical_date", "execution_date"))
    started_at = next((found for each in begun if (found := moment(each)) is not None), None)
    if started_at is None:
        raise LeftOut("it has no time")
    fields: dict[str, Any] = {
        "workflow_id": row["dag_id"],
        "id": row["run_id"],
        "status": status,
        "trigger_type": trigger_word(str(row.get("run_type") or "")),
        "started_at": started_at,
        "completed_at": moment(row["end_date"]) if status.is_terminal else None,
        # A run that was cleared is tried again. Airflow counts that since 2.8.
        "attempt": int(row.get("clear_number") or 0) + 1,
    }
    try:
        conf = value_of(row["conf"])
        if isinstance(conf, str):
            # Airflow's migrations back to version 2 pickle the text of JSON.
            conf = value_of(conf)
        fields["trigger_data"] = conf if isinstance(conf, dict) else {}
    except UnreadableValueError:
        without.append(NO_CONF)
    if status is RunStatus.FAILED:
        failed = sorted({str(task["task_id"]) for task in tasks if task["state"] == "failed"})
        named = ", ".join(failed[:_MOST_NAMED]) + (", ..." if len(failed) > _MOST_NAMED else "")
        fields["error"] = f"failed: {named}" if failed else None
    return fields


def _step(task: Row) -> Step | None:
    """Return the step of a task instance; None if it has not started."""
    started_at, ended_at = moment(task["start_date"]), moment(task["end_date"])
    state = str(task["state"])
    if started_at is None or state in {"None", "scheduled", "queued"}:
        return None
    status = _ENDED.get(state, StepStatus.RUNNING)
    ended_at = (ended_at or started_at) if state in _ENDED else None
    index = task.get("map_index", _NO_INDEX)
    name = str(task["task_id"]) if index == _NO_INDEX else f"{task['task_id']}[{index}]"
    return fitted(
        Step(
            key=_key(name),
            name=name,
            attempt=max(int(task["try_number"] or 0), 1),
            status=status,
            started_at=started_at,
            ended_at=ended_at,
            error=state if status is StepStatus.CANCELLED else None,
            attributes={"operator": task["operator"]} if task.get("operator") else {},
            version=_version(ended_at or started_at),
        )
    )


def _key(name: str) -> str:
    return name if is_step_key(name) else f"sha256-{hashlib.sha256(name.encode()).hexdigest()[:56]}"


def _version(at: datetime) -> int:
    return max(micros_of(at), 0)
