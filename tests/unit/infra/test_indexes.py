from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from run_log.core import RunStatus, Settings, TriggerType
from run_log.stores.firestore._documents import STATS_SHARDS
from run_log.stores.firestore.client import RUNS
from run_log.stores.firestore.queries import changed_query, placed_query, runs_query
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, Selection
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import EXPIRE_AT

INDEXES = Path(__file__).resolve().parents[3] / "infra" / "firestore.indexes.json"
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)

Index = tuple[str, tuple[tuple[str, str], ...]]
"""Its scope, and its fields with their directions."""


def needed_by(query: Any) -> Index:
    """Return the index that Firestore needs for *query*.

    Fields that have to equal something come first, then the order; the document's name ends every index.
    """
    structured = query._to_protobuf()
    where = structured.where
    filters = [one.field_filter for one in where.composite_filter.filters] or [where.field_filter]
    equal = [one.field.field_path for one in filters if one.op.name in ("EQUAL", "IN")]
    order = [(one.field.field_path, one.direction.name) for one in structured.order_by]
    scope = "COLLECTION_GROUP" if structured.from_[0].all_descendants else "COLLECTION"
    fields = [*((name, "ASCENDING") for name in equal), *(one for one in order if one[0] != "__name__")]
    return scope, tuple(fields)


def listings(client: Any) -> set[Index]:
    """Return the indexes that listings need, with any filters, from either end."""
    selections = [
        Selection(statuses=statuses, trigger_type=trigger_type, since=since, until=until, order=order)
        for statuses, trigger_type, since, until, order in product(
            (None, (RunStatus.FAILED,), (RunStatus.FAILED, RunStatus.SUCCESS)),
            (None, TriggerType.MANUAL),
            (None, NOON),
            (None, NOON),
            Order,
        )
    ]
    return {needed_by(runs_query(client.collection(RUNS), selection)) for selection in selections}


def over_workflows(client: Any) -> set[Index]:
    """Return the indexes that the inbox and the stale runs need, of one workflow and of all."""
    everywhere: tuple[tuple[Any, str | None], ...] = (
        (client.collection(RUNS), "w"),
        (client.collection_group(RUNS), None),
    )
    found: set[Index] = set()
    for runs, workflow_id in everywhere:
        found.add(needed_by(placed_query(runs, StaleSelection(before=NOON, workflow_id=workflow_id))))
        for assignee, overdue in product((None, "mei"), (None, True, False)):
            inbox = InboxSelection(assignee=assignee, overdue=overdue, workflow_id=workflow_id, now=NOON)
            found.add(needed_by(placed_query(runs, inbox)))
    return found


def watched(client: Any) -> set[Index]:
    """Return the indexes that watches need, of one workflow and of all."""
    return {
        needed_by(changed_query(runs, NOON, until))
        for runs in (client.collection(RUNS), client.collection_group(RUNS))
        for until in (None, NOON)
    }


def test_every_query_has_its_index() -> None:
    """The indexes that are deployed are those that the queries need, and nothing else of a run is indexed."""
    vendor: Any = AnonymousCredentials
    client: Any = firestore.AsyncClient(project="p", credentials=vendor())
    needed = listings(client) | over_workflows(client) | watched(client)
    single: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for scope, fields in needed:
        if len(fields) == 1:
            ((name, order),) = fields
            single[name].add((scope, order))

    deployed = json.loads(INDEXES.read_text())

    assert {index for index in needed if len(index[1]) > 1} == {
        (index["queryScope"], tuple((field["fieldPath"], field["order"]) for field in index["fields"]))
        for index in deployed["indexes"]
    }
    assert {"*": set[tuple[str, str]](), **single} == {
        override["fieldPath"]: {(one["queryScope"], one["order"]) for one in override["indexes"]}
        for override in deployed["fieldOverrides"]
        if override["collectionGroup"] == RUNS and override["fieldPath"] != EXPIRE_AT
    }
    assert {RUNS} == {one["collectionGroup"] for one in deployed["indexes"]}


def test_expired_runs_are_deleted() -> None:
    """Firestore deletes what has expired by the field that says when, which is in no index."""
    overrides = json.loads(INDEXES.read_text())["fieldOverrides"]

    assert {"collectionGroup": RUNS, "fieldPath": EXPIRE_AT, "ttl": True, "indexes": []} in overrides
    assert 1 == sum("ttl" in override for override in overrides)


def test_the_counters_of_a_workflow_are_not_indexed() -> None:
    """Nothing of a workflow's own document and its shards is indexed: they hold thousands of counters."""
    overrides = json.loads(INDEXES.read_text())["fieldOverrides"]

    for group in (Settings(backend="firestore").root_collection, STATS_SHARDS):
        assert {"collectionGroup": group, "fieldPath": "*", "indexes": []} in overrides
