"""The queries for runs. Each shape has its index in ``infra/firestore.indexes.json``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.cloud.firestore_v1.base_query import FieldFilter

from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, Selection
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import (
    ACTIVE_SHARD,
    ACTIVE_SHARDS,
    ACTIVE_SINCE,
    CHANGED_AT,
    CHANGED_SHARD,
    CHANGED_SHARDS,
    PAUSED_ASSIGNEE,
    PAUSED_DEADLINE,
    PROJECTION,
)


def runs_query(runs: Any, selection: Selection) -> Any:
    """Return the query for those of *runs*, a workflow's collection, that are selected, in order."""
    query = runs
    for condition in _conditions(selection):
        query = query.where(filter=FieldFilter(*condition[:2], condition[2]))
    direction = "DESCENDING" if selection.order is Order.NEWEST else "ASCENDING"
    return _in_order(query, "started_at", direction)


def placed_query(runs: Any, selection: InboxSelection | StaleSelection) -> Any:
    """Return the query for those of *runs*, a workflow's or all runs as a group, that are selected, in order.

    A workflow is not looked for: its runs are given.
    """
    conditions = _of_stale(selection) if isinstance(selection, StaleSelection) else _of_inbox(selection)
    query = runs
    for field, operator, value in conditions:
        query = query.where(filter=FieldFilter(f"{PROJECTION}.{field}", operator, value))
    direction = "DESCENDING" if selection.newest_first else "ASCENDING"
    return _in_order(query, f"{PROJECTION}.{selection.sorted_by}", direction)


def changed_query(runs: Any, since: datetime, until: datetime | None = None) -> Any:
    """Return the query for those *runs* whose record changed from *since* to *until*, in that order.

    Both are included; without *until* there is no end.
    """
    changed_at = f"{PROJECTION}.{CHANGED_AT}"
    # Firestore merges the shards' index ranges, so the order is that of the times all the same.
    shards = FieldFilter(f"{PROJECTION}.{CHANGED_SHARD}", "in", list(range(CHANGED_SHARDS)))
    query = runs.where(filter=shards).where(filter=FieldFilter(changed_at, ">=", since))
    if until is not None:
        query = query.where(filter=FieldFilter(changed_at, "<=", until))
    return _in_order(query, changed_at, "ASCENDING")


# Only by fields that paused runs alone have: an index to which all runs write neighbouring keys takes 500
# writes a second (https://firebase.google.com/docs/firestore/best-practices).
def _of_inbox(selection: InboxSelection) -> list[tuple[str, str, Any]]:
    conditions: list[tuple[str, str, Any]] = []
    if selection.assignee is not None:
        conditions.append(_one_of(PAUSED_ASSIGNEE, selection.indexed_assignees))
    if selection.overdue is not None:
        conditions.append((PAUSED_DEADLINE, "<" if selection.overdue else ">=", selection.now))
    return conditions


def _of_stale(selection: StaleSelection) -> list[tuple[str, str, Any]]:
    conditions: list[tuple[str, str, Any]] = [(ACTIVE_SINCE, "<", selection.before)]
    if selection.workflow_id is None:
        # The index over all workflows is sharded; that of one workflow is not, for it has fewer writers.
        conditions.append((ACTIVE_SHARD, "in", list(range(ACTIVE_SHARDS))))
    return conditions


# By the name too, in the same direction: it ends each index, and tells apart those whose field is equal.
def _in_order(query: Any, field: str, direction: str) -> Any:
    return query.order_by(field, direction=direction).order_by("__name__", direction=direction)


def _conditions(selection: Selection) -> list[tuple[str, str, Any]]:
    conditions: list[tuple[str, str, Any]] = []
    if selection.statuses is not None:
        conditions.append(_one_of("status", [status.value for status in selection.statuses]))
    if selection.trigger_type is not None:
        conditions.append(("trigger_type", "==", selection.trigger_type.value))
    if selection.since is not None:
        conditions.append(("started_at", ">=", selection.since))
    if selection.until is not None:
        conditions.append(("started_at", "<", selection.until))
    return conditions


def _one_of(field: str, values: Sequence[str]) -> tuple[str, str, Any]:
    return (field, "in", list(values)) if len(values) > 1 else (field, "==", values[0])
