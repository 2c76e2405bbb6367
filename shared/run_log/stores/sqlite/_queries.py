"""The queries: each has its index, and reads no more rows than are taken from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from run_log.core.clock import micros_of
from run_log.core.ids import document_id
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, OverallPosition, Position, Selection
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import PAUSED_ASSIGNEE

from ._rows import BARE_COLUMNS, DOCUMENT_COLUMNS, HEAD_COLUMNS, RUN_COLUMNS, WORKFLOW_COLUMNS
from ._updates import ChangedPlace

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


def changed_query(workflow_id: str | None, after: ChangedPlace) -> Query:
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
