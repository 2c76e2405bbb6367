"""The queries for runs. Each shape has its index in ``infra/firestore.indexes.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from google.cloud.firestore_v1.base_query import FieldFilter

from run_log.core import InvalidArgumentError, WorkflowRun
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, Selection
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import (
    ACTIVE_SINCE,
    CHANGED_AT,
    CHANGED_SHARD,
    EARLIER_SHARDS,
    ERROR_TYPE,
    EXPIRE_AT,
    LABELS,
    OPTIONAL,
    PARENT,
    PAUSED_ASSIGNEE,
    PAUSED_DEADLINE,
    PROJECTION,
    VERSION_FIELDS,
    label_text,
)

from .client import shards_of

_Condition = tuple[str, str, Any]

_TWO_PAYLOADS: Final = ("trigger_data", "result")
_FIELDS: Final = (*(name for name in WorkflowRun.model_fields if name not in _TWO_PAYLOADS), EXPIRE_AT)
BUT_PAYLOADS: Final = (*_FIELDS, PROJECTION)
"""All of a run but its two payloads."""
_WITHOUT_PAYLOADS: Final = (
    *_FIELDS,
    *(f"{PROJECTION}.{name}" for name in (*VERSION_FIELDS, *OPTIONAL)),
)
"""What is read for a list without payloads: no history and no steps either, which no list shows."""


def runs_query(
    runs: Any, selection: Selection, root_collection: str | None = None, *, payloads: bool = True
) -> Any:
    """Return the query for those of *runs* that an index finds, in order; see `indexed`.

    Args:
        runs: The reference of a workflow's runs, or of all runs as a collection group.
        selection: What `indexed` returns.
        root_collection: Below which the runs of a group are; None for a workflow's.
        payloads: Whether all is read, or only what a list without payloads shows.
    """
    conditions = _in_root(root_collection) if root_collection is not None else []
    query = _where(runs, [*conditions, *_conditions(selection)])
    direction = "DESCENDING" if selection.order is Order.NEWEST else "ASCENDING"
    query = _in_order(query, "started_at", direction)
    return query.select((*_WITHOUT_PAYLOADS, *_TWO_PAYLOADS) if payloads else _WITHOUT_PAYLOADS)


def indexed(selection: Selection, *, of_all: bool) -> Selection:
    """Return what of *selection* an index finds; the rest is looked for in what that finds."""
    found = selection.by_index(of_all=of_all)
    if not of_all:
        return found
    if len(found.statuses or ()) > 1:
        # With the shards they would be more values than a query takes.
        found = replace(found, statuses=None)
    if found.order is Order.OLDEST:
        # Each run writes to each index. Who looks at all workflows looks at the newest runs.
        found = replace(found, statuses=None, labels=(), error_type=None)
    return found


def check_counted(selection: Selection, *, of_all: bool) -> None:
    """Check that an index finds all of *selection*: Firestore counts entries of an index, and reads no run.

    Raises:
        InvalidArgumentError: It does not.
    """
    found = indexed(selection, of_all=of_all)
    pairs = {
        "status": (selection.statuses, found.statuses),
        "trigger_type": (selection.trigger_type, found.trigger_type),
        "label": (selection.labels, found.labels),
        "error_type": (selection.error_type, found.error_type),
    }
    missing = [name for name, (asked, counted) in pairs.items() if asked != counted]
    if missing:
        names = " and ".join(missing)
        whose = "of all workflows " * of_all
        raise InvalidArgumentError(
            f"Firestore has no index that counts runs {whose}by {names} beside the rest; "
            f"leave out {names}, pass one label or one status at a time, or count what iter_runs yields"
        )


def placed_query(
    runs: Any, selection: InboxSelection | StaleSelection, root_collection: str | None = None
) -> Any:
    """Return the query for those of *runs* that are selected, in order.

    Args:
        runs: The reference of a workflow's runs, or of all runs as a collection group.
        selection: Which of them. A workflow is not looked for: its runs are given.
        root_collection: Below which the runs of a group are; None for a workflow's.
    """
    conditions = _of_stale(selection) if isinstance(selection, StaleSelection) else _of_inbox(selection)
    if root_collection is not None:
        # Of names so long that they are stored in two ways, earlier documents are not found: with their
        # shards, these would be more values than a query takes.
        is_twofold = isinstance(selection, InboxSelection) and len(selection.indexed_assignees) > 1
        conditions = [*_in_root(root_collection, earlier=not is_twofold), *conditions]
    query = _where(runs, conditions)
    direction = "DESCENDING" if selection.newest_first else "ASCENDING"
    return _in_order(query, f"{PROJECTION}.{selection.sorted_by}", direction)


def changed_query(runs: Any, root_collection: str, since: datetime, until: datetime | None = None) -> Any:
    """Return the query for those *runs* whose record changed from *since* to *until*, in that order.

    Both are included; without *until* there is no end.
    """
    changed_at = f"{PROJECTION}.{CHANGED_AT}"
    query = _where(runs, [*_in_root(root_collection), (changed_at, ">=", since)])
    if until is not None:
        query = _where(query, [(changed_at, "<=", until)])
    return _in_order(query, changed_at, "ASCENDING")


# Firestore merges the shards' index ranges, so the order is that of what follows all the same.
def _in_root(root_collection: str, *, earlier: bool = True) -> list[_Condition]:
    shards: list[str | int] = [*shards_of(root_collection)]
    if earlier:
        shards += range(EARLIER_SHARDS)
    return [(f"{PROJECTION}.{CHANGED_SHARD}", "in", shards)]


# Only by fields that paused runs alone have, so that no other run writes to these indexes.
def _of_inbox(selection: InboxSelection) -> list[_Condition]:
    conditions: list[_Condition] = []
    if selection.assignee is not None:
        conditions.append(_one_of(f"{PROJECTION}.{PAUSED_ASSIGNEE}", selection.indexed_assignees))
    if selection.overdue is not None:
        comparison = "<" if selection.overdue else ">="
        conditions.append((f"{PROJECTION}.{PAUSED_DEADLINE}", comparison, selection.now))
    return conditions


def _of_stale(selection: StaleSelection) -> list[_Condition]:
    return [(f"{PROJECTION}.{ACTIVE_SINCE}", "<", selection.before)]


def _where(query: Any, conditions: Sequence[_Condition]) -> Any:
    for condition in conditions:
        query = query.where(filter=FieldFilter(*condition))
    return query


# By the name too, in the same direction: it ends each index, and tells apart those whose field is equal.
def _in_order(query: Any, field: str, direction: str) -> Any:
    return query.order_by(field, direction=direction).order_by("__name__", direction=direction)


def _conditions(selection: Selection) -> list[_Condition]:
    conditions: list[_Condition] = []
    if selection.statuses is not None:
        conditions.append(_one_of("status", [status.value for status in selection.statuses]))
    if selection.trigger_type is not None:
        conditions.append(("trigger_type", "==", str(selection.trigger_type)))
    conditions += ((LABELS, "array_contains", label_text(*label)) for label in selection.labels)
    if selection.parent is not None:
        parent = selection.parent._asdict().items()
        conditions += ((f"{PARENT}.{name}", "==", value) for name, value in parent)
    if selection.error_type is not None:
        conditions.append((ERROR_TYPE, "==", selection.error_type))
    if selection.since is not None:
        conditions.append(("started_at", ">=", selection.since))
    if selection.until is not None:
        conditions.append(("started_at", "<", selection.until))
    return conditions


def _one_of(field: str, values: Sequence[str]) -> _Condition:
    return (field, "in", list(values)) if len(values) > 1 else (field, "==", values[0])
