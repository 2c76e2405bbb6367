from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import firestore

from run_log.core import RunRef, RunStatus, Settings, TriggerType
from run_log.stores.firestore._documents import STATS_SHARDS
from run_log.stores.firestore._notices import NOTICES
from run_log.stores.firestore.client import RUNS
from run_log.stores.firestore.queries import changed_query, indexed, placed_query, runs_query
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Order, Selection
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import CHANGED_SHARD, EXPIRE_AT, PROJECTION

INDEXES = Path(__file__).resolve().parents[3] / "infra" / "firestore.indexes.json"
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)

ROOT = "autopilot_runs"
MOST_VALUES = 30
"""What Firestore takes (https://firebase.google.com/docs/firestore/query-data/queries#limits_on_or_queries)."""

Index = tuple[str, tuple[tuple[str, str], ...]]
"""Its scope, and its fields with their directions."""


def needed_by(query: Any) -> Index:
    """Return the index that Firestore needs for *query*.

    Fields that have to equal something come first, then the order; the document's name ends every index.
    """
    structured = query._to_protobuf()
    where = structured.where
    filters = [one.field_filter for one in where.composite_filter.filters] or [where.field_filter]
    kinds = {"EQUAL": "ASCENDING", "IN": "ASCENDING", "ARRAY_CONTAINS": "CONTAINS"}
    equal = [(one.field.field_path, kinds[one.op.name]) for one in filters if one.op.name in kinds]
    order = [(one.field.field_path, one.direction.name) for one in structured.order_by]
    scope = "COLLECTION_GROUP" if structured.from_[0].all_descendants else "COLLECTION"
    fields = [*equal, *(one for one in order if one[0] != "__name__")]
    return scope, tuple(fields)


def values_of(query: Any) -> int:
    """Return how many combinations of values *query* looks for; Firestore takes 30 at most."""
    structured = query._to_protobuf()
    where = structured.where
    filters = [one.field_filter for one in where.composite_filter.filters] or [where.field_filter]
    return prod(len(one.value.array_value.values) for one in filters if one.op.name == "IN")


def listings(client: Any) -> Iterator[Any]:
    """Yield the queries of listings, with any filters, from either end, of one workflow and of all."""
    for of_all, statuses, trigger_type, labels, parent, error_type, since, order, payloads in product(
        (False, True),
        (None, (RunStatus.FAILED,), (RunStatus.FAILED, RunStatus.SUCCESS)),
        (None, TriggerType.MANUAL),
        ((), (("customer", "acme"), ("team", "billing"))),
        (None, RunRef("w", "r")),
        (None, "ValueError"),
        (None, NOON),
        Order,
        (False, True),
    ):
        selection = Selection(
            statuses=statuses,
            trigger_type=trigger_type,
            labels=labels,
            parent=parent,
            error_type=error_type,
            since=since,
            until=since,
            order=order,
        )
        runs = client.collection_group(RUNS) if of_all else client.collection(RUNS)
        root = ROOT if of_all else None
        yield runs_query(runs, indexed(selection, of_all=of_all), root, payloads=payloads)


def over_workflows(client: Any) -> Iterator[Any]:
    """Yield the queries of the inbox and of stale runs, of one workflow and of all."""
    everywhere: tuple[tuple[Any, str | None, str | None], ...] = (
        (client.collection(RUNS), "w", None),
        (client.collection_group(RUNS), None, ROOT),
    )
    for runs, workflow_id, root in everywhere:
        yield placed_query(runs, StaleSelection(before=NOON, workflow_id=workflow_id), root)
        for assignee, overdue in product((None, "mei", "m" * 2_000), (None, True, False)):
            inbox = InboxSelection(assignee=assignee, overdue=overdue, workflow_id=workflow_id, now=NOON)
            yield placed_query(runs, inbox, root)


def watched(client: Any) -> Iterator[Any]:
    """Yield the queries of watches, of one workflow and of all."""
    for runs, until in product((client.collection(RUNS), client.collection_group(RUNS)), (None, NOON)):
        yield changed_query(runs, ROOT, NOON, until)


def test_every_query_has_its_index() -> None:
    """The indexes that are deployed are those that the queries need, and nothing else of a run is indexed."""
    vendor: Any = AnonymousCredentials
    client: Any = firestore.AsyncClient(project="p", credentials=vendor())
    queries = [*listings(client), *over_workflows(client), *watched(client)]
    needed = set(map(needed_by, queries))
    single: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for scope, fields in needed:
        if len(fields) == 1:
            ((name, order),) = fields
            single[name].add((scope, order))

    deployed = json.loads(INDEXES.read_text())

    assert {index for index in needed if len(index[1]) > 1} == {
        (
            index["queryScope"],
            tuple(
                (field["fieldPath"], field.get("order") or field["arrayConfig"]) for field in index["fields"]
            ),
        )
        for index in deployed["indexes"]
    }
    assert {"*": set[tuple[str, str]](), **single} == {
        override["fieldPath"]: {(one["queryScope"], one["order"]) for one in override["indexes"]}
        for override in deployed["fieldOverrides"]
        if override["collectionGroup"] == RUNS and override["fieldPath"] != EXPIRE_AT
    }
    assert {RUNS} == {one["collectionGroup"] for one in deployed["indexes"]}
    assert max(map(values_of, queries)) == MOST_VALUES
    # Each index over all workflows is spread, and of one root collection.
    over_all = [fields for scope, fields in needed if scope == "COLLECTION_GROUP"]
    assert {(f"{PROJECTION}.{CHANGED_SHARD}", "ASCENDING")} == {fields[0] for fields in over_all}


def test_what_has_expired_is_deleted() -> None:
    """Firestore deletes runs and notices by the field that says when they expire, which is in no index."""
    overrides = json.loads(INDEXES.read_text())["fieldOverrides"]

    assert [
        {"collectionGroup": group, "fieldPath": EXPIRE_AT, "ttl": True, "indexes": []}
        for group in (RUNS, NOTICES)
    ] == [override for override in overrides if "ttl" in override]


def test_notices_have_the_indexes_that_every_field_has() -> None:
    """The query for the newest notices goes by one field, for which Firestore needs no index from us."""
    overrides = json.loads(INDEXES.read_text())["fieldOverrides"]

    assert [EXPIRE_AT] == [one["fieldPath"] for one in overrides if one["collectionGroup"] == NOTICES]


def test_the_counters_of_a_workflow_are_not_indexed() -> None:
    """Nothing of a workflow's own document and its shards is indexed: they hold thousands of counters."""
    overrides = json.loads(INDEXES.read_text())["fieldOverrides"]

    for group in (Settings(backend="firestore").root_collection, STATS_SHARDS):
        assert {"collectionGroup": group, "fieldPath": "*", "indexes": []} in overrides
