"""How many bytes a typical run takes: as messages, and stored in Firestore with its index entries.

Firestore's sizes are as https://firebase.google.com/docs/firestore/storage-size has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from run_log.core import RunEvent, RunStatus, Settings, Transition, encode_event
from run_log.core.counters import NOT_COUNTED, Counted
from run_log.core.ids import document_id
from run_log.stores.committing.commits import shard_of
from run_log.stores.firestore.client import RUNS
from run_log.stores.stored.fields import CHANGED_AT, CHANGED_SHARD, CHANGED_SHARDS, HISTORY, PROJECTION
from run_log.stores.stored.writing import projection_fields, run_fields, transition_text
from run_log.testing import an_event

from .repository import read

RUN_ID: Final = "0198f0c2-7f3e-7b5a-9d41-3c2b1a0f9e8d"
WORKFLOW_ID: Final = "invoices"
_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_ROOT: Final = Settings.model_fields["root_collection"].default
_NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)
_EXTRA_BYTES: Final = 32
_NAME_EXTRA_BYTES: Final = 16


def life() -> Sequence[RunEvent]:
    """Return the two events of a typical run: it runs, then it has succeeded; a span emits each."""
    results: dict[RunStatus, dict[str, Any]] = {RunStatus.RUNNING: {}, RunStatus.SUCCESS: {"lines": 128}}
    return [
        an_event(
            workflow_id=WORKFLOW_ID,
            id=RUN_ID,
            status=status,
            trigger_data={"file": "may.csv"},
            result=result,
            hlc=1_795_466_603_950_876 + number,
            event_id=f"01a20a26-2dae-7cbb-8e53-390c7e0c994{number}",
            started_at=_NOON,
            occurred_at=_NOON + timedelta(seconds=number, microseconds=1),
        ).model_copy(update={"traceparent": _TRACEPARENT})
        for number, (status, result) in enumerate(results.items())
    ]


def body_bytes() -> float:
    """Return the bytes of an event's body, the mean of the two."""
    return sum(len(encode_event(event).data) for event in life()) / len(life())


def attribute_bytes() -> float:
    """Return the bytes of an event's attributes, their names among them, the mean of the two."""
    texts = [text for event in life() for pair in encode_event(event).attributes.items() for text in pair]
    return sum(len(text.encode()) for text in texts) / len(life())


def stored(events: Sequence[RunEvent]) -> dict[str, Any]:
    """Return the fields of the run's document after *events*."""
    newest = events[-1]
    ended = newest.status.is_terminal
    counted = Counted(micros=1_500_000, hour=490_000) if ended else NOT_COUNTED
    history = [
        Transition(version=event.version, status=event.status, occurred_at=event.occurred_at)
        for event in events
    ]
    projection = {
        **projection_fields(newest, counted),
        CHANGED_SHARD: shard_of(RUN_ID, CHANGED_SHARDS),
        CHANGED_AT: newest.occurred_at,
        HISTORY: [transition_text(transition) for transition in history],
    }
    return {**run_fields(newest.run), PROJECTION: projection}


def document_bytes(events: Sequence[RunEvent]) -> int:
    """Return what Firestore stores for the run's document after *events*."""
    return _run_name_bytes() + _map_bytes(stored(events))


def index_entries(events: Sequence[RunEvent]) -> list[int]:
    """Return the bytes of each index entry of the run's document after *events*."""
    fields = stored(events)
    deployed = json.loads(read("infra/firestore.indexes.json"))
    single = [
        (index["queryScope"], [override["fieldPath"]])
        for override in deployed["fieldOverrides"]
        if override["collectionGroup"] == RUNS
        for index in override["indexes"]
    ]
    composite = [
        (index["queryScope"], [field["fieldPath"] for field in index["fields"]])
        for index in deployed["indexes"]
        if index["collectionGroup"] == RUNS
    ]
    return [
        _run_name_bytes() + (_workflow_name_bytes() if scope == "COLLECTION" else 0) + size + _EXTRA_BYTES
        for (scope, paths), named in [*((one, True) for one in single), *((one, False) for one in composite)]
        if (size := _indexed_bytes(fields, paths, named=named)) is not None
    ]


def _indexed_bytes(fields: Mapping[str, Any], paths: Sequence[str], *, named: bool) -> int | None:
    """Return the bytes of the values at *paths*; None where one is absent, so that there is no entry."""
    size = 0
    for path in paths:
        value: Any = fields
        for step in path.split("."):
            if step not in value:
                return None
            value = value[step]
        size += _value_bytes(value) + (_text_bytes(path) if named else 0)
    return size


def _run_name_bytes() -> int:
    return _name_bytes(_ROOT, document_id(WORKFLOW_ID), RUNS, document_id(RUN_ID))


def _workflow_name_bytes() -> int:
    return _name_bytes(_ROOT, document_id(WORKFLOW_ID))


def _name_bytes(*ids: str) -> int:
    return sum(map(_text_bytes, ids)) + _NAME_EXTRA_BYTES


def _text_bytes(text: str) -> int:
    return len(text.encode()) + 1


def _map_bytes(fields: Mapping[str, object]) -> int:
    return sum(_text_bytes(name) + _value_bytes(value) for name, value in fields.items()) + _EXTRA_BYTES


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return _text_bytes(value)
    if isinstance(value, dict):
        return _map_bytes(cast("dict[str, object]", value))
    if isinstance(value, list):
        return sum(map(_value_bytes, cast("list[object]", value)))
    if value is None or isinstance(value, bool):
        return 1
    assert isinstance(value, (int, float, datetime))
    return 8
