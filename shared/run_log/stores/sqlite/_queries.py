"""What is read: the queries, each with its index, and their rows as runs and counts."""

from __future__ import annotations

import contextlib
import re
import reprlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from run_log.core import RunStatus, StoreError, UnreadableRunError
from run_log.core.clock import micros_of, moment_of
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id
from run_log.core.models import RunKey
from run_log.core.payload import decode_json
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, Position, Selection
from run_log.stores.sqlite._updates import ChangePosition
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import (
    ACTIVE_SINCE,
    COUNTED_HOUR,
    COUNTED_MICROS,
    ERROR_TYPE,
    EXPIRE_AT,
    HISTORY,
    LABELS,
    OPTIONAL,
    PARENT,
    PAUSED_ASSIGNEE,
    PAUSED_DEADLINE,
    PAUSED_STARTED_AT,
    PAYLOADS,
    PROGRESS,
    PROGRESS_DIGEST,
    PROJECTION,
    STEPS,
    TRACE_ID,
    VERSION_FIELDS,
    label_text,
)
from run_log.stores.stored.reading import (
    StoredHead,
    StoredRun,
    head_from_fields,
    key_at,
    number_of,
    stored_run,
)
from run_log.stores.summaries import WorkflowStats

Row = Sequence[Any]

ADDED_COLUMNS: Final = (LABELS, "parent_workflow_id", "parent_run_id", TRACE_ID, ERROR_TYPE, PROGRESS)
"""Columns that a file of an earlier version does not have."""
_FIELDS: Final = (
    "workflow_id",
    "id",
    "status",
    "trigger_type",
    "started_at",
    "completed_at",
    "duration_ms",
    "attempt",
    *ADDED_COLUMNS,
    "pause",
    "error",
    "trigger_data",
    "result",
)
_PROJECTION: Final = (*VERSION_FIELDS, *OPTIONAL)
MOMENTS: Final = (
    "started_at",
    "completed_at",
    "occurred_at",
    PAUSED_STARTED_AT,
    PAUSED_DEADLINE,
    ACTIVE_SINCE,
)
"""Columns of a run that hold microseconds since the epoch, beside `EXPIRE_AT`."""
_TIMES: Final = (*MOMENTS, EXPIRE_AT)
STATUSES: Final = tuple(status.value for status in RunStatus)

RUN_COLUMNS: Final = ("workflow", "run", *dict.fromkeys((*_PROJECTION, EXPIRE_AT, *_FIELDS)))
"""A run without its history, which no listing shows: parsing it takes ten times as long as the rest."""
HEAD_COLUMNS: Final = (
    "status",
    EXPIRE_AT,
    "attempt",
    "hlc",
    "event_id",
    COUNTED_MICROS,
    COUNTED_HOUR,
    PROGRESS_DIGEST,
    STEPS,
    HISTORY,
)
"""What is needed of a run to merge events into it."""
DOCUMENT_COLUMNS: Final = (*RUN_COLUMNS, STEPS, HISTORY)
BARE_COLUMNS: Final = tuple(name for name in DOCUMENT_COLUMNS if name not in PAYLOADS)
WORKFLOW_COLUMNS: Final = ("workflow", "workflow_id", "as_of", *STATUSES)

_SELECT_RUN: Final = f"SELECT {', '.join(RUN_COLUMNS)}"
_RUNS: Final = f"{_SELECT_RUN} FROM runs"
_WORKFLOWS: Final = f"SELECT {', '.join(WORKFLOW_COLUMNS)} FROM workflows"  # noqa: S608

STATE: Final = "SELECT log, last FROM sequence"
"""What tells the file from others, and the number of its last transaction."""

RUN: Final = f"{_RUNS} WHERE workflow = ? AND run = ?"
HEAD: Final = f"SELECT {', '.join(HEAD_COLUMNS)} FROM runs WHERE workflow = ? AND run = ?"  # noqa: S608
NEVER_EXPIRING: Final = (
    f"SELECT rowid, {', '.join(HEAD_COLUMNS)} FROM runs "  # noqa: S608
    "WHERE rowid > ? AND expire_at IS NULL ORDER BY rowid LIMIT ?"
)
WORKFLOW: Final = f"{_WORKFLOWS} WHERE workflow = ?"
# No document id is empty, so those after '' are all.
WORKFLOWS: Final = f"{_WORKFLOWS} WHERE workflow > ? ORDER BY workflow"
COUNTERS: Final = "SELECT scope, slot, name, count FROM counters WHERE workflow = ? AND count <> 0"

IS_TEXT: Final = {True: "CAST(?1 AS TEXT)", False: "?1"}
"""How a document id is passed, by whether it is a text: one that is no Unicode comes as its bytes."""
COUNT_RUNS: Final = "SELECT count(*) FROM runs INDEXED BY runs_by_start WHERE workflow = {0}"
REPAIRS: Final = "SELECT count FROM repairs WHERE workflow = ?"
# The first version of the schema had no repairs.
HAS_REPAIRS: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'repairs'"


# In the place of a payload that is not asked for: its pages are not walked over.
_NO_PAYLOAD: Final = "'{}'"


def _light(columns: Sequence[str]) -> str:
    return ", ".join(_NO_PAYLOAD if name in ("trigger_data", "result") else name for name in columns)


_SELECT_LIGHT: Final = f"SELECT {_light(RUN_COLUMNS)}"
_AT_ITS_PLACE: Final = "FROM runs WHERE workflow = ? AND run = ?"
RECORD: Final = {
    True: f"SELECT {', '.join(DOCUMENT_COLUMNS)} {_AT_ITS_PLACE}",
    False: f"SELECT {_light(DOCUMENT_COLUMNS)} {_AT_ITS_PLACE}",
}
"""All of a run, by whether its payloads are read."""

_ADDED_TO_RUNS: Final = ", ".join(ADDED_COLUMNS)
_NOTHING_ADDED: Final = ", ".join(["NULL"] * len(ADDED_COLUMNS))
_ADDED_TO_PROJECTION: Final = (f", {PROGRESS_DIGEST}", f", {STEPS}")
_LABELLED: Final = "labels INDEXED BY {} CROSS JOIN runs INDEXED BY sqlite_autoindex_runs_1"
_HAS_LABEL: Final = (
    "EXISTS (SELECT 1 FROM labels INDEXED BY sqlite_autoindex_labels_1 "
    "WHERE of_workflow = workflow AND of_run = run AND label = ?)"
)
_NOT_EXPIRED: Final = "runs.rowid NOT IN (SELECT rowid FROM runs INDEXED BY expired WHERE expire_at <= ?)"
_ADDED_CONDITION: Final = re.compile(r"\b(?:parent_workflow_id|parent_run_id|error_type) = ")
_ADDED_INDEX: Final = re.compile(r" INDEXED BY (?:all_by_\w+|runs_by_parent|runs_by_error_type)\b")
_LABELS: Final = re.compile(r"\blabels INDEXED BY \w+")
_NO_LABELS: Final = "(SELECT NULL AS of_workflow, NULL AS of_run, NULL AS label, NULL AS began WHERE 0)"


def without_added(sql: str) -> str:
    """Return a query of ours for a file of an earlier version, which has nothing of `_SECOND_EDITION`."""
    sql = sql.replace(_ADDED_TO_RUNS, _NOTHING_ADDED).replace(f", {RunStatus.CANCELLED.value}", ", 0")
    for name in _ADDED_TO_PROJECTION:
        sql = sql.replace(name, ", NULL")
    sql = _LABELS.sub(_NO_LABELS, sql)
    # Without the index of all workflows the file is scanned, and sorted.
    return _ADDED_CONDITION.sub("NULL = ", _ADDED_INDEX.sub("", sql))


class Query(NamedTuple):
    """A query and its values. Its rows are read one by one, as far as they are wanted."""

    sql: str
    values: tuple[Any, ...]


# What has to hold, and the values in it.
_Condition = tuple[str, tuple[Any, ...]]


def runs_query(
    workflow_id: str | None, selection: Selection, after: Position | None, *, payloads: bool = True
) -> Query:
    """Return the query for the runs of a workflow, or of all, that come after a position.

    *selection* is what `Selection.by_index` returns.
    """
    is_newest_first = selection.order is Order.NEWEST
    start, workflow, run = columns = _places(selection)
    source, conditions = _searched(workflow_id, selection)
    if workflow_id is not None:
        columns.remove(workflow)
    if after is not None:
        position = {start: micros_of(after.moment), workflow: after.workflow, run: after.run}
        values = {column: position[column] for column in columns}
        conditions.append(_beyond(values, newest_first=is_newest_first))
    # Where a position bounds that end already, the unary plus keeps the index for the position.
    bounded = after is not None
    if selection.since is not None:
        plus = "+" * (bounded and not is_newest_first)
        conditions.append((f"{plus}{start} >= ?", (micros_of(selection.since),)))
    if selection.until is not None:
        plus = "+" * (bounded and is_newest_first)
        conditions.append((f"{plus}{start} < ?", (micros_of(selection.until),)))
    any_status: list[list[_Condition]] = [[]]
    if selection.statuses is not None:
        any_status = [[("status = ?", (status.value,))] for status in selection.statuses]
    return _merged(
        source,
        [[*conditions, *of_status] for of_status in any_status],
        columns,
        newest_first=is_newest_first,
        select=_SELECT_RUN if payloads else _SELECT_LIGHT,
    )


def count_query(workflow_id: str | None, selection: Selection, now: datetime) -> Query:
    """Return the query for how many runs of a workflow, or of all, are selected and have not expired."""
    found = selection.by_index(of_all=workflow_id is None)
    start, *_ = _places(found)
    source, conditions = _searched(workflow_id, found)
    if selection.since is not None:
        conditions.append((f"{start} >= ?", (micros_of(selection.since),)))
    if selection.until is not None:
        conditions.append((f"{start} < ?", (micros_of(selection.until),)))
    if selection.statuses is not None:
        marks = ", ".join("?" * len(selection.statuses))
        conditions.append((f"status IN ({marks})", tuple(status.value for status in selection.statuses)))
    # What a listing looks for in the runs that it reads.
    if selection.trigger_type != found.trigger_type:
        conditions.append(("trigger_type = ?", (str(selection.trigger_type),)))
    if selection.error_type is not None and selection.error_type != found.error_type:
        conditions.append(("error_type = ?", (selection.error_type,)))
    further = (label for label in selection.labels if label not in found.labels)
    conditions += ((_HAS_LABEL, (label_text(*label),)) for label in further)
    # Rows are large, and an index has their ids but not their expiry: so those few that have expired, and
    # that no write has deleted yet, are looked up apart, and no row is read for the others.
    conditions.append((_NOT_EXPIRED, (micros_of(now),)))
    return Query(
        sql=f"SELECT count(*) FROM {source} WHERE {' AND '.join(one for one, _ in conditions)}",  # noqa: S608
        values=tuple(value for _, values in conditions for value in values),
    )


def _places(selection: Selection) -> list[str]:
    """Return the columns of the start, the workflow and the run, in the source of a selection."""
    return ["began", "of_workflow", "of_run"] if selection.labels else ["started_at", "workflow", "run"]


def _searched(workflow_id: str | None, selection: Selection) -> tuple[str, list[_Condition]]:
    """Return where the runs of a workflow, or of all, are searched, and what has to hold.

    Statuses and times aside. *selection* is what `Selection.by_index` returns.
    """
    _, workflow, _ = _places(selection)
    by, conditions = _found_by(selection)
    if workflow_id is not None:
        conditions.insert(0, (f"{workflow} = ?", (document_id(workflow_id),)))
    index = f"{'all' if workflow_id is None else 'runs'}_by_{by}"
    if not selection.labels:
        return f"runs INDEXED BY {index}", conditions
    # The order of a cross join is kept, so labels are searched first, and each has its run. A run that
    # something else moved would lead a cursor back.
    conditions.append(("workflow = of_workflow AND run = of_run AND started_at = began", ()))
    return _LABELLED.format(index), conditions


def _found_by(selection: Selection) -> tuple[str, list[_Condition]]:
    """Return what the index of a selection is by, and the conditions beside those of a status."""
    if selection.labels:
        return "label", [("label = ?", (label_text(*selection.labels[0]),))]
    if selection.parent:
        workflow_id, run_id = selection.parent
        return "parent", [
            ("parent_workflow_id = ?", (workflow_id,)),
            ("parent_run_id = ?", (run_id,)),
        ]
    if selection.error_type:
        return "error_type", [("error_type = ?", (selection.error_type,))]
    by_trigger: list[_Condition] = []
    if selection.trigger_type is not None:
        by_trigger = [("trigger_type = ?", (str(selection.trigger_type),))]
    filters = {"status": selection.statuses, "trigger": selection.trigger_type}
    matter = [name for name, value in filters.items() if value is not None]
    return "_and_".join(matter) or "start", by_trigger


def placed_query(selection: InboxSelection | StaleSelection, after: Position | None) -> Query:
    """Return the query for the runs of any workflow that come after a position.

    They come by the moment that the selection names, then by workflow, then by run.
    """
    moment = selection.sorted_by
    # Such an index holds no other runs: this says that it may be used.
    conditions: list[_Condition] = [(f"{moment} IS NOT NULL", ())]
    any_assignee: list[list[_Condition]] = [[]]
    columns = [moment, "workflow", "run"]
    if selection.workflow_id is not None:
        conditions.append(("workflow = ?", (document_id(selection.workflow_id),)))
        columns.remove("workflow")
    if isinstance(selection, StaleSelection):
        conditions.append((f"{moment} < ?", (micros_of(selection.before),)))
    elif selection.overdue is not None:
        # See `runs_query` for the plus: those not overdue begin at the moment, or at the position.
        plus = "+" * (after is not None and not selection.overdue)
        comparison = "<" if selection.overdue else ">="
        conditions.append((f"{plus}{moment} {comparison} ?", (micros_of(selection.now),)))
    if isinstance(selection, InboxSelection) and selection.assignee is not None:
        any_assignee = [[(f"{PAUSED_ASSIGNEE} = ?", (one,))] for one in selection.indexed_assignees]
    if after is not None:
        position = {moment: micros_of(after.moment), "workflow": after.workflow, "run": after.run}
        values = {column: position[column] for column in columns}
        conditions.append(_beyond(values, newest_first=selection.newest_first))
    return _merged(
        f"runs INDEXED BY {_index(selection)}",
        [[*conditions, *of_assignee] for of_assignee in any_assignee],
        columns,
        newest_first=selection.newest_first,
    )


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


def _beyond(position: dict[str, Any], *, newest_first: bool) -> _Condition:
    marks = ", ".join("?" * len(position))
    return f"({', '.join(position)}) {'<' if newest_first else '>'} ({marks})", tuple(position.values())


def _merged(
    source: str,
    parts: Sequence[Sequence[_Condition]],
    columns: Sequence[str],
    *,
    newest_first: bool,
    select: str = _SELECT_RUN,
) -> Query:
    """Return the query for what any of *parts* selects of a source with its index, sorted by *columns*."""
    # The index is named, for the planner only estimates, and may come to read a whole workflow for one page
    # (https://www.sqlite.org/lang_indexedby.html). Each part comes in order, so SQLite merges, and sorts
    # nothing.
    selected = (
        f"{select} FROM {source}{' WHERE ' * bool(part)}{' AND '.join(condition for condition, _ in part)}"
        for part in parts
    )
    order = ", ".join(f"{column} {'DESC' if newest_first else 'ASC'}" for column in columns)
    return Query(
        sql=f"{' UNION ALL '.join(selected)} ORDER BY {order}",
        values=tuple(value for part in parts for _, values in part for value in values),
    )


def changed_query(workflow_id: str | None, after: ChangePosition) -> Query:
    """Return the query for the runs that changed after a position, in the order of their changes.

    Each row has the number of the change, then `RUN_COLUMNS`. *workflow_id* None is all workflows.
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

    The document id may be None, for the first of all, or be no text.
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


def documents_query(workflow: str, columns: Sequence[str]) -> Query:
    """Return the query for *columns* of a workflow's runs, in the order of their document ids."""
    # SQLite's own name for the index of the one UNIQUE constraint there is.
    sql = (
        f"SELECT {', '.join(columns)} FROM runs INDEXED BY sqlite_autoindex_runs_1 "  # noqa: S608
        "WHERE workflow = ? ORDER BY run"
    )
    return Query(sql=sql, values=(workflow,))


def fields_from_row(columns: Sequence[str], row: Row) -> dict[str, Any]:
    """Return what *columns* of a run hold as the fields of a document; what is damaged stays as it is."""
    values: dict[str, Any] = dict(zip(columns, row, strict=True))
    for name in _TIMES:
        if type(moment := values.get(name)) is int:
            with contextlib.suppress(OverflowError):
                values[name] = moment_of(moment)
    if values.get("pause") is not None:
        with contextlib.suppress(TypeError, ValueError, RecursionError):
            values["pause"] = decode_json(values["pause"])
    # As in other stores: what a run in its status does not have is absent.
    projection = {name: value for name in _PROJECTION if (value := values.get(name)) is not None}
    projection["inferred"] = bool(projection.get("inferred"))
    lines = {name: values[name] for name in (HISTORY, STEPS) if values.get(name) is not None}
    if not lines.get(HISTORY) and PROGRESS_DIGEST in projection:
        lines.pop(HISTORY, None)  # no transition has come yet
    projection |= {
        name: held.split("\n") if isinstance(held, str) else [held] for name, held in lines.items()
    }
    fields: dict[str, Any] = {name: values[name] for name in _FIELDS if name in values}
    _read_added(fields)
    if values.get(EXPIRE_AT) is not None:
        fields[EXPIRE_AT] = values[EXPIRE_AT]
    return {**fields, PROJECTION: projection}


def _read_added(fields: dict[str, Any]) -> None:
    """Give *fields* of a row the form of a document's, in which what a run does not have is absent."""
    added = {name: value for name in ADDED_COLUMNS if (value := fields.pop(name, None)) is not None}
    for name in (LABELS, PROGRESS):
        if name in added:
            with contextlib.suppress(TypeError, ValueError, RecursionError):
                added[name] = decode_json(added[name])
    parent = {name: added.pop(f"{PARENT}_{name}", None) for name in ("workflow_id", "run_id")}
    if any(parent.values()):
        added[PARENT] = parent
    fields.update(added)


def record_from_row(row: Row, key: RunKey) -> tuple[StoredRun, StoredHead]:
    """Return the run and its head that `DOCUMENT_COLUMNS` hold; see `run_from_row`."""
    head = head_from_fields(fields_from_row(DOCUMENT_COLUMNS, row), key)
    return run_from_row(row[: len(RUN_COLUMNS)], key), head


def run_from_row(row: Row, key: RunKey | None = None) -> StoredRun:
    """Return the run that `RUN_COLUMNS` hold; *key* names it in errors, instead of its document ids.

    Raises:
        UnreadableRunError: They do not hold a run.
    """
    place = (str(row[0]), str(row[1]))
    named = key or key_at(*place)
    fields = fields_from_row(RUN_COLUMNS, row)
    projection = fields[PROJECTION]
    for name in _TIMES:
        moment = fields[name] if name in fields else projection.get(name)
        # The model would take a text or a number for a time, too.
        if moment is not None and not isinstance(moment, datetime):
            raise UnreadableRunError(*named, f"{name} is {reprlib.repr(moment)}, which is no time")
    return stored_run(fields, named, place=place)


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
