"""How many bytes a typical run takes: as messages, and stored in Firestore with its index entries.

Firestore's sizes are as https://firebase.google.com/docs/firestore/storage-size has them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import mean
from typing import Any, Final, cast

from run_log.core import RunEvent, RunStatus, Settings, Transition, encode_event
from run_log.core.counters import NOT_COUNTED, Counted
from run_log.core.ids import document_id
from run_log.stores.firestore._documents import changed_shard
from run_log.stores.firestore.client import RUNS
from run_log.stores.stored.fields import CHANGED_AT, CHANGED_SHARD, HISTORY, PROJECTION
from run_log.stores.stored.writing import projection_fields, run_fields, transition_text
from run_log.testing import an_event

from .repository import read

RUN_ID: Final = "0198f0c2-7f3e-7b5a-9d41-3c2b1a0f9e8d"
WORKFLOW_ID: Final = "invoices"
_TRACEPARENT: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
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


def message_bytes() -> tuple[float, float]:
    """Return the mean bytes of an event's body, and of its attributes with their names."""
    messages = [encode_event(event) for event in life()]
    attributes = ("".join(map("".join, message.attributes.items())) for message in messages)
    return mean(len(message.data) for message in messages), mean(len(text.encode()) for text in attributes)


def document_bytes(events: Sequence[RunEvent]) -> int:
    """Return what Firestore stores for the run's document after *events*."""
    return _name_bytes(of_run=True) + _value_bytes(_stored(events))


def index_entries(events: Sequence[RunEvent]) -> list[int]:
    """Return the bytes of each index entry of the run's document after *events*."""
    fields = _stored(events)
    deployed = json.loads(read("infra/firestore.indexes.json"))
    single = [
        (index["queryScope"], [override["fieldPath"]], _text_bytes(override["fieldPath"]))
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
    for scope, paths, size_of_path in [*single, *composite]:
        values = [_at(fields, path) for path in paths]
        # A document without one of the fields has no entry.
        if None not in values:
            names = _name_bytes(of_run=True) + (_name_bytes(of_run=False) if scope == "COLLECTION" else 0)
            sizes.append(names + size_of_path + sum(map(_value_bytes, values)) + _EXTRA_BYTES)
    return sizes


def _stored(events: Sequence[RunEvent]) -> dict[str, Any]:
    """Return the fields of the run's document after *events*."""
    newest = events[-1]
    counted = Counted(micros=1_500_000, hour=490_000) if newest.status.is_terminal else NOT_COUNTED
    history = [
        Transition(version=event.version, status=event.status, occurred_at=event.occurred_at)
        for event in events
    ]
    projection = {
        **projection_fields(newest, counted),
        CHANGED_SHARD: changed_shard(RUN_ID),
        CHANGED_AT: newest.occurred_at,
        HISTORY: [transition_text(transition) for transition in history],
    }
    return {**run_fields(newest.run), PROJECTION: projection}


def _at(fields: dict[str, Any], path: str) -> Any:
    value: Any = fields
    for step in path.split("."):
        value = value.get(step)
    return value


def _name_bytes(*, of_run: bool) -> int:
    root = Settings.model_fields["root_collection"].default
    ids = [root, document_id(WORKFLOW_ID), *([RUNS, document_id(RUN_ID)] if of_run else [])]
    return sum(map(_text_bytes, ids)) + _NAME_EXTRA_BYTES


def _text_bytes(text: str) -> int:
    return len(text.encode()) + 1


def _value_bytes(value: object) -> int:
    match value:
        case str():
            return _text_bytes(value)
        case dict():
            fields = cast("dict[str, object]", value)
            return sum(_text_bytes(name) + _value_bytes(one) for name, one in fields.items()) + _EXTRA_BYTES
        case list():
            return sum(map(_value_bytes, cast("list[object]", value)))
        case None | bool():
            return 1
        case _:
            assert isinstance(value, (int, float, datetime))
            return 8
