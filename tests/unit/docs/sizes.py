"""How many bytes a typical run takes: as messages, and stored in Firestore with its index entries.

Firestore's sizes are as https://firebase.google.com/docs/firestore/storage-size has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from statistics import mean
from typing import Any, Final, cast

from run_log.core import RunEvent, RunStatus, Transition, encode_event
from run_log.core.counters import NOT_COUNTED, Counted
from run_log.stores.committing.commits import shard_of
from run_log.stores.firestore.client import RUNS, shards_of
from run_log.stores.stored.fields import CHANGED_AT, CHANGED_SHARD, HISTORY, PROJECTION, SHARDS
from run_log.stores.stored.writing import projection_fields, run_fields, transition_text
from run_log.testing import an_event

from .repository import read

RUN_ID: Final = "0198f0c2-7f3e-7b5a-9d41-3c2b1a0f9e8d"
PARENT: Final = ("autopilot_runs", "invoices")
RUN: Final = (*PARENT, RUNS, RUN_ID)


def life() -> Sequence[RunEvent]:
    """Return the two events of a typical run: it runs, then it has succeeded; a span emits each."""
    results: dict[RunStatus, dict[str, Any]] = {RunStatus.RUNNING: {}, RunStatus.SUCCESS: {"lines": 128}}
    noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
    span = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    return [
        an_event(
            workflow_id=PARENT[1],
            id=RUN_ID,
            status=status,
            trigger_data={"file": "may.csv"},
            result=result,
            hlc=1_795_466_603_950_876 + number,
            event_id=f"01a20a26-2dae-7cbb-8e53-390c7e0c994{number}",
            started_at=noon,
            occurred_at=noon + timedelta(seconds=number, microseconds=1),
        ).model_copy(update=span)
        for number, (status, result) in enumerate(results.items())
    ]


def message_bytes() -> tuple[float, float]:
    """Return the mean bytes of an event's body, and of its attributes with their names."""
    messages = [encode_event(event) for event in life()]
    attributes = ("".join(map("".join, message.attributes.items())) for message in messages)
    return mean(len(message.data) for message in messages), mean(len(text.encode()) for text in attributes)


def row_bytes() -> float:
    """Return the mean bytes of an event's row as https://cloud.google.com/bigquery/pricing#data has it."""
    names = 2 + len("projects/a-project/subscriptions/run-log-warehouse") + 2 + len("12345678901234567") + 8
    messages = [encode_event(event) for event in life()]
    return names + mean(
        2 + len(message.data) + len(json.dumps(dict(message.attributes), separators=(",", ":")))
        for message in messages
    )


def document_bytes(events: Sequence[RunEvent]) -> int:
    """Return what Firestore stores for the run's document after *events*."""
    return _name_bytes(RUN) + _bytes(_stored(events))


def index_entries(events: Sequence[RunEvent]) -> list[int]:
    """Return the bytes of each index entry of the run's document after *events*."""
    deployed = json.loads(read("infra/firestore.indexes.json"))
    # The entry of an index of one field holds the field's name too.
    single = [
        (index["queryScope"], [override["fieldPath"]], _bytes(override["fieldPath"]))
        for override in deployed["fieldOverrides"]
        if override["collectionGroup"] == RUNS
        for index in override["indexes"]
    ]
    composite = [
        (index["queryScope"], [field["fieldPath"] for field in index["fields"]], 0)
        for index in deployed["indexes"]
        if index["collectionGroup"] == RUNS
    ]
    sizes: list[int] = []
    for scope, paths, name_bytes in [*single, *composite]:
        values = [_at(_stored(events), path) for path in paths]
        # A document without one of the fields has no entry.
        if None not in values:
            parent = _name_bytes(PARENT) if scope == "COLLECTION" else 0
            sizes.append(_name_bytes(RUN) + parent + name_bytes + sum(map(_bytes, values)) + 32)
    return sizes


def _stored(events: Sequence[RunEvent]) -> Mapping[str, Any]:
    newest = events[-1]
    counted = Counted(micros=1_500_000, hour=490_000) if newest.status.is_terminal else NOT_COUNTED
    projection = {
        **projection_fields(newest, counted),
        CHANGED_SHARD: shards_of(PARENT[0])[shard_of(RUN_ID, SHARDS)],
        CHANGED_AT: newest.occurred_at,
        HISTORY: [transition_text(Transition.of(event)) for event in events],
    }
    return {**run_fields(newest.run), PROJECTION: projection}


def _at(fields: Any, path: str) -> Any:
    for step in path.split("."):
        fields = None if fields is None else fields.get(step)
    return fields


def _name_bytes(ids: Sequence[str]) -> int:
    return sum(map(_bytes, ids)) + 16


def _bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode()) + 1
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return sum(_bytes(name) + _bytes(inner) for name, inner in fields.items()) + 32
    if isinstance(value, list):
        return sum(map(_bytes, cast("list[object]", value)))
    if value is None or isinstance(value, bool):
        return 1
    assert isinstance(value, (int, float, datetime))
    return 8
