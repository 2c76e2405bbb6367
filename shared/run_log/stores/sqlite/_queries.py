"""What is read: the queries, each with its index, and their rows as runs and counts."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from run_log.core import RunStatus, StoreError, UnreadableRunError
from run_log.core.clock import micros_of, moment_of
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id, original_id
from run_log.core.law import RunHead
from run_log.core.models import RunKey
from run_log.core.payload import decode_json
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, OverallPosition, Position, Selection
from run_log.stores.sqlite._updates import ChangePosition
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import (
    ACTIVE_SHARD,
    ACTIVE_SINCE,
    COUNTED_HOUR,
    COUNTED_MICROS,
    EXPIRE_AT,
    HISTORY,
    OPTIONAL,
    PAUSED_ASSIGNEE,
    PAUSED_DEADLINE,
    PAUSED_STARTED_AT,
    PAYLOADS,
    PROJECTION,
)
from run_log.stores.stored.reading import StoredRun, head_from_fields, number_of, stored_run
from run_log.stores.summaries import WorkflowStats

Row = Sequence[Any]

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
OPTIONAL_COLUMNS: Final = tuple(name for name in OPTIONAL if name != ACTIVE_SHARD)
_PROJECTION: Final = ("attempt", "hlc", "event_id", "occurred_at", "inferred", *OPTIONAL_COLUMNS)
MOMENTS: Final = frozenset(
    {
        "started_at",
        "completed_at",
        "occurred_at",
        PAUSED_STARTED_AT,
        PAUSED_DEADLINE,
        ACTIVE_SINCE,
    }
)
STATUSES: Final = tuple(status.value for status in RunStatus)

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

WORKFLOW_COLUMNS: Final = ("workflow", "workflow_id", "as_of", *STATUSES)
"""What is read of a workflow."""


_RUNS: Final = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs"  # noqa: S608 - our own names

STATE: Final = "SELECT log, last FROM sequence"
"""What tells the file from others, and the number of its last transaction."""

_Condition = tuple[str, tuple[Any, ...]]
"""What has to hold, and the values in it."""

RUN: Final = f"{_RUNS} WHERE workflow = ? AND run = ?"
"""One run."""

HEAD: Final = f"SELECT {', '.join(HEAD_COLUMNS)} FROM runs WHERE workflow = ? AND run = ?"  # noqa: S608
"""What is needed of a run to merge events into it."""

NEVER_EXPIRING: Final = (
    f"SELECT rowid, {', '.join(HEAD_COLUMNS)} FROM runs "  # noqa: S608
    "WHERE rowid > ? AND expire_at IS NULL ORDER BY rowid LIMIT ?"
)
"""The next runs that do not expire, in the order of their rows."""

_WORKFLOWS: Final = f"SELECT {', '.join(WORKFLOW_COLUMNS)} FROM workflows"  # noqa: S608

WORKFLOW: Final = f"{_WORKFLOWS} WHERE workflow = ?"
"""One workflow."""

COUNTERS: Final = "SELECT scope, slot, name, count FROM counters WHERE workflow = ? AND count <> 0"
"""The counters of a workflow's summary."""

WORKFLOWS: Final = f"{_WORKFLOWS} WHERE workflow > ? ORDER BY workflow"
"""The workflows after a document id; none is empty, so those after ``''`` are all."""

IS_TEXT: Final = {True: "CAST(?1 AS TEXT)", False: "?1"}
"""How a document id is handed over, by whether it is a text: one that is no Unicode comes as its bytes."""

COUNT_RUNS: Final = "SELECT count(*) FROM runs INDEXED BY runs_by_start WHERE workflow = {0}"
"""How many runs a workflow has; see `IS_TEXT`."""

REPAIRS: Final = "SELECT count FROM repairs WHERE workflow = ?"
"""How often the counts of a workflow were repaired."""

HAS_REPAIRS: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'repairs'"
"""Whether the file has that: the first version had not."""

_INDEXES: Final = {
    (False, False): "runs_by_start",
    (True, False): "runs_by_status",
    (False, True): "runs_by_trigger",
    (True, True): "runs_by_status_and_trigger",
}
"""By whether the status matters, and the trigger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query and its values. Its rows are read one by one, as far as they are wanted."""

    sql: str
    values: tuple[Any, ...]


def runs_query(workflow_id: str, selection: Selection, after: Position | None) -> Query:
    """Return the query for a workflow's runs.

    Args:
        workflow_id: The workflow.
        selection: Which of its runs, and in which order.
        after: The place they come after; None is the beginning.
    """
    is_newest_first = selection.order is Order.NEWEST
    conditions: list[_Condition] = []
    if selection.trigger_type is not None:
        conditions.append(("trigger_type = ?", (selection.trigger_type.value,)))
    if after is not None:
        comparison = "<" if is_newest_first else ">"
        place = (micros_of(after.started_at), after.document_id)
        conditions.append((f"(started_at, run) {comparison} (?, ?)", place))
    # Where a place bounds that end already, the unary plus keeps the index for the place.
    bounded = after is not None
    if selection.since is not None:
        plus = "+" * (bounded and not is_newest_first)
        conditions.append((f"{plus}started_at >= ?", (micros_of(selection.since),)))
    if selection.until is not None:
        plus = "+" * (bounded and is_newest_first)
        conditions.append((f"{plus}started_at < ?", (micros_of(selection.until),)))
    if selection.statuses is None:
        parts = [conditions]
    else:
        parts = [[("status = ?", (status.value,)), *conditions] for status in selection.statuses]
    index = _INDEXES[selection.statuses is not None, selection.trigger_type is not None]
    of_workflow: _Condition = ("workflow = ?", (document_id(workflow_id),))
    direction = "DESC" if is_newest_first else "ASC"
    order = f"started_at {direction}, run {direction}"
    return _merged(index, [[of_workflow, *part] for part in parts], order)


def changed_query(workflow_id: str | None, after: ChangePosition) -> Query:
    """Return the query for the runs that changed after a place, in the order of their changes.

    Each row has the number of the change, then what is read of a run.

    Args:
        workflow_id: The workflow; None for all.
        after: The place.
    """
    if workflow_id is None:
        index, condition = "runs_by_change", "(changed, workflow, run) > (?, ?, ?)"
        values: tuple[Any, ...] = (after.number, after.workflow, after.run)
        order = "changed, workflow, run"
    else:
        index, condition = "runs_of_workflow_by_change", "workflow = ? AND (changed, run) > (?, ?)"
        values = (document_id(workflow_id), after.number, after.run)
        order = "changed, run"
    columns = ", ".join(("changed", *RUN_COLUMNS))
    sql = f"SELECT {columns} FROM runs INDEXED BY {index} WHERE {condition} ORDER BY {order}"  # noqa: S608
    return Query(sql=sql, values=values)


def next_workflow_query(after: object, *, is_text: bool) -> Query:
    """Return the query for the first workflow after a document id that has counts or runs; NULL: none has.

    Args:
        after: The document id; None for the first of all.
        is_text: Whether that is a text.
    """
    condition = "IS NOT NULL" if after is None else f"> {IS_TEXT[is_text]}"
    first, further = (
        f"SELECT min(workflow) AS workflow FROM {table} WHERE workflow {condition}"  # noqa: S608
        for table in ("workflows", "runs INDEXED BY runs_by_start")
    )
    return Query(
        sql=f"SELECT min(workflow), typeof(min(workflow)) = 'text' FROM ({first} UNION ALL {further})",  # noqa: S608
        values=() if after is None else (after,),
    )


def documents_query(workflow: str, *, whole: bool) -> Query:
    """Return the query for the runs of a workflow in the order of their document ids.

    Args:
        workflow: The workflow's document id.
        whole: Whether all of `DOCUMENT_COLUMNS` are read, else `BARE_COLUMNS`.
    """
    columns = ", ".join(DOCUMENT_COLUMNS if whole else BARE_COLUMNS)
    # SQLite's own name for the index of the one UNIQUE constraint there is.
    sql = (
        f"SELECT {columns} FROM runs INDEXED BY sqlite_autoindex_runs_1 "  # noqa: S608
        "WHERE workflow = ? ORDER BY run"
    )
    return Query(sql=sql, values=(workflow,))


def placed_query(selection: InboxSelection | StaleSelection, after: OverallPosition | None) -> Query:
    """Return the query for runs of any workflow.

    Args:
        selection: Which runs. They come by what it says, then by workflow, then by run.
        after: The place they come after; None is the beginning.
    """
    moment = selection.sorted_by
    # Such an index holds no other runs: this says that it may be used.
    conditions: list[_Condition] = [(f"{moment} IS NOT NULL", ())]
    of_assignee: list[list[_Condition]] = [[]]
    columns = [moment, "workflow", "run"]
    if selection.workflow_id is not None:
        conditions.append(("workflow = ?", (document_id(selection.workflow_id),)))
        columns.remove("workflow")
    if isinstance(selection, StaleSelection):
        conditions.append((f"{moment} < ?", (micros_of(selection.before),)))
    else:
        conditions += _of_inbox(selection, is_bounded=after is not None)
        if selection.assignee is not None:
            of_assignee = [[(f"{PAUSED_ASSIGNEE} = ?", (one,))] for one in selection.indexed_assignees]
    if after is not None:
        place = {moment: micros_of(after.moment), "workflow": after.workflow, "run": after.run}
        comparison = "<" if selection.newest_first else ">"
        marks = ", ".join("?" * len(columns))
        conditions.append(
            (f"({', '.join(columns)}) {comparison} ({marks})", tuple(place[name] for name in columns))
        )
    direction = "DESC" if selection.newest_first else "ASC"
    order = ", ".join(f"{column} {direction}" for column in columns)
    return _merged(_index(selection), [[*own, *conditions] for own in of_assignee], order)


def _of_inbox(selection: InboxSelection, *, is_bounded: bool) -> list[_Condition]:
    conditions: list[_Condition] = []
    if selection.overdue is not None:
        # See `runs_query` for the plus: those that are not overdue begin at the moment, or at the place.
        plus = "+" * (is_bounded and not selection.overdue)
        comparison = "<" if selection.overdue else ">="
        conditions.append((f"{plus}{selection.sorted_by} {comparison} ?", (micros_of(selection.now),)))
    return conditions


def _index(selection: InboxSelection | StaleSelection) -> str:
    if isinstance(selection, StaleSelection):
        return "stale" if selection.workflow_id is None else "stale_of_workflow"
    whose = {
        (False, False): "",
        (False, True): "_of_workflow",
        (True, False): "_of_assignee",
        (True, True): "_of_both",
    }[selection.assignee is not None, selection.workflow_id is not None]
    return f"inbox{whose}_by_{'start' if selection.overdue is None else 'deadline'}"


def _merged(index: str, parts: list[list[_Condition]], order: str) -> Query:
    """Return the query for what any of *parts* selects: each comes in order, so they are not sorted."""
    return Query(
        sql=" UNION ALL ".join(_selected(index, part) for part in parts) + f" ORDER BY {order}",
        values=tuple(value for part in parts for _, values in part for value in values),
    )


def _selected(index: str, conditions: list[_Condition]) -> str:
    # Named, for the planner only estimates, and may come to read a whole workflow for one page
    # (https://www.sqlite.org/lang_indexedby.html).
    return f"{_RUNS} INDEXED BY {index} WHERE {' AND '.join(condition for condition, _ in conditions)}"


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
        values |= {name: _moment(values[name]) for name in (*MOMENTS, EXPIRE_AT)}
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
    for name in (*MOMENTS, EXPIRE_AT):
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
