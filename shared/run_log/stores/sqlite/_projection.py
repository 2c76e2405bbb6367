"""How events become rows: merged by the core's law, in one transaction with what they do to the counts."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from run_log.core import ConfigurationError, Outcome, RunEvent, RunStatus, UnreadableRunError, Version
from run_log.core.clock import HybridLogicalClock, micros_of
from run_log.core.counters import NOT_COUNTED, Horizon, Scope
from run_log.core.ids import document_id
from run_log.core.law import RunChange, RunHead, by_run, fold, newest_event, run_digest
from run_log.core.models import RunKey
from run_log.core.payload import decode_json, encode_json
from run_log.core.steps import step_text
from run_log.stores.committing.commits import (
    CommitOutcome,
    StatsWrite,
    count_anomalies,
    count_commit,
    stats_writes,
)
from run_log.stores.inbox import check_unanswered
from run_log.stores.retention import Retention, check_not_expired
from run_log.stores.stored.fields import (
    COUNTED_HOUR,
    COUNTED_MICROS,
    EXPIRE_AT,
    HISTORY,
    LABELS,
    OPTIONAL,
    PARENT,
    PROGRESS,
    PROGRESS_DIGEST,
    STEPS,
)
from run_log.stores.stored.reading import StoredHead, head_from_fields, head_to_merge
from run_log.stores.stored.writing import expiry_after, history_texts, projection_fields, run_fields

from ._queries import (
    ADDED_COLUMNS,
    DOCUMENT_COLUMNS,
    HEAD,
    HEAD_COLUMNS,
    MOMENTS,
    NEVER_EXPIRING,
    STATUSES,
    WORKFLOW_COLUMNS,
    Row,
    fields_from_row,
)
from ._schema import transaction

_WRITTEN: Final = (*DOCUMENT_COLUMNS, "changed")
_WRITE_RUN: Final = (
    f"INSERT INTO runs ({', '.join(_WRITTEN)}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join(f':{name}' for name in _WRITTEN)}) "
    "ON CONFLICT (workflow, run) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _WRITTEN[2:])
)
# For an event that only joins the history: the run's newest state stays.
_WRITE_HISTORY: Final = (
    f"UPDATE runs SET {HISTORY} = :{HISTORY}, {STEPS} = :{STEPS}, "  # noqa: S608
    f"{EXPIRE_AT} = :{EXPIRE_AT}, changed = :changed "
    "WHERE workflow = :workflow AND run = :run"
)
_ADD_TO_WORKFLOW: Final = (
    f"INSERT INTO workflows ({', '.join(WORKFLOW_COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in WORKFLOW_COLUMNS)}) "
    "ON CONFLICT (workflow) DO UPDATE SET as_of = max(as_of, excluded.as_of), "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in STATUSES)
)
_ADD_TO_COUNTER: Final = (
    "INSERT INTO counters (workflow, scope, slot, name, count) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (workflow, scope, slot, name) DO UPDATE SET count = count + excluded.count"
)
FORGET_COUNTERS: Final = "DELETE FROM counters WHERE workflow = ? AND scope = ? AND slot < ?"
_EXPIRED: Final = "FROM runs INDEXED BY expired WHERE expire_at IS NOT NULL AND expire_at <= ? LIMIT ?"
DELETE_EXPIRED: Final = (
    # First the labels, by which nobody could find the runs afterwards.
    f"DELETE FROM labels WHERE (of_workflow, of_run) IN (SELECT workflow, run {_EXPIRED})",  # noqa: S608
    f"DELETE FROM runs WHERE rowid IN (SELECT rowid {_EXPIRED})",  # noqa: S608 - our own names
)
FORGET_LABELS: Final = "DELETE FROM labels WHERE of_workflow = :workflow AND of_run = :run"
_ADD_LABEL: Final = "INSERT OR REPLACE INTO labels (of_workflow, of_run, label, began) VALUES (?, ?, ?, ?)"
_EXPIRE_RUN: Final = f"UPDATE runs SET {EXPIRE_AT} = ? WHERE rowid = ?"  # noqa: S608 - our own names

# Other processes wait for a transaction to end.
_MAX_TRANSACTION_RUNS: Final = 500
_MAX_DELETED_RUNS: Final = 100

_MAX_CHANGE: Final = 2**63 - 1

# An expired run is known for that much longer, so that its late events are told that it has expired.
_GRACE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By what a transaction goes beside its events."""

    retention: Retention | None
    """How long ended runs are kept; None keeps all."""
    now: Callable[[], datetime]
    """The time."""
    clock: HybridLogicalClock
    """Stamps saves after what is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The events of one run in one transaction."""

    events: Sequence[RunEvent]
    newest: RunEvent
    row: Mapping[str, Any]
    """Of the newest, made before the transaction begins: it holds up all others."""
    digest: str
    """Likewise: see `run_digest`."""

    def digest_of(self, event: RunEvent) -> str:
        """Return what `fold` asks for."""
        return self.digest if event is self.newest else run_digest(event.run)


def apply(connection: sqlite3.Connection, events: Sequence[RunEvent], terms: Terms) -> list[Outcome]:
    """Merge *events*, and return the outcome of each in order."""
    outcomes = [Outcome.DUPLICATE] * len(events)
    positions = by_run(events)
    keys = iter(positions)
    while part := list(islice(keys, _MAX_TRANSACTION_RUNS)):
        batches = {key: _batch([events[position] for position in positions[key]]) for key in part}
        for key, change in _committed(connection, batches, terms).items():
            for position, outcome in zip(positions[key], change.outcomes, strict=True):
                outcomes[position] = outcome
    return outcomes


def save(
    connection: sqlite3.Connection, event: RunEvent, is_newest: Callable[[], bool], terms: Terms
) -> None:
    """Make *event* its run's newest state: where a later one is stored, it is stamped after that.

    It keeps its stamp unless *is_newest* says that no later save of the run has begun meanwhile.
    """

    def stamped(batch: _Batch, stored: StoredHead | None) -> _Batch:
        if stored is None or not is_newest():
            return batch
        return _batch([stored.head.saved(batch.newest, clock=terms.clock)])

    _committed(connection, {event.key: _batch([event])}, terms, stamped)


def answer(connection: sqlite3.Connection, event: RunEvent, asked: Version, terms: Terms) -> None:
    """Merge *event* if its run's newest state is the pause of version *asked*; see `check_unanswered`."""

    def checked(batch: _Batch, stored: StoredHead | None) -> _Batch:
        is_seen = stored is not None and not stored.is_expired(terms.now())
        check_unanswered(stored.head if stored and is_seen else None, event, asked)
        return batch

    _committed(connection, {event.key: _batch([event])}, terms, checked)


def expire(connection: sqlite3.Connection, retention: Retention, after: int) -> tuple[int, int | None]:
    """Have some ended runs expire that do not yet, in one transaction.

    Returns:
        How many that were, and the number of the row to go on *after*; None where nothing is left.
    """
    with transaction(connection):
        with closing(connection.execute(NEVER_EXPIRING, (after, _MAX_TRANSACTION_RUNS))) as rows:
            found = [(int(number), _readable_head(row)) for number, *row in rows]
        times = [
            (micros_of(moment), number)
            for number, head in found
            if head is not None and (moment := retention.expires_at(head)) is not None
        ]
        connection.executemany(_EXPIRE_RUN, times)
    return len(times), found[-1][0] if len(found) == _MAX_TRANSACTION_RUNS else None


def _readable_head(row: Row) -> RunHead | None:
    try:
        head = head_from_fields(fields_from_row(HEAD_COLUMNS, row), ("", "")).head
    except UnreadableRunError:
        return None
    return head if head.history else None


def _batch(events: Sequence[RunEvent]) -> _Batch:
    newest = newest_event(events)
    row = _run_row(newest)
    digest = run_digest(newest.run, (row["trigger_data"], row["result"]))
    return _Batch(events=events, newest=newest, row=row, digest=digest)


def _committed(
    connection: sqlite3.Connection,
    batches: Mapping[RunKey, _Batch],
    terms: Terms,
    stamp: Callable[[_Batch, StoredHead | None], _Batch] = lambda batch, _stored: batch,
) -> dict[RunKey, RunChange]:
    begun = time.monotonic()
    outcome = CommitOutcome.FAILED  # until the commit has returned
    written = 0
    try:
        with transaction(connection):
            changes, written = _merged(connection, batches, terms, stamp)
        outcome = CommitOutcome.COMMITTED
    finally:
        count_commit(outcome, runs=written, seconds=time.monotonic() - begun)
    count_anomalies(changes.values())
    return changes


def _merged(
    connection: sqlite3.Connection,
    batches: Mapping[RunKey, _Batch],
    terms: Terms,
    stamp: Callable[[_Batch, StoredHead | None], _Batch],
) -> tuple[dict[RunKey, RunChange], int]:
    """Return what *batches* do to each run, and how many runs that changes."""
    now = terms.now()
    horizon = Horizon.at(now)
    changes: dict[RunKey, RunChange] = {}
    states: list[dict[str, Any]] = []
    histories: list[dict[str, Any]] = []
    for key, batch in batches.items():
        # Read within the transaction that writes: another process may have changed the run since.
        stored = _head(connection, key, batch.row)
        if stored is None and terms.retention and terms.retention.is_over(batch.events, now):
            raise terms.retention.error(key)
        before = stored.head if stored else None
        own = stamp(batch, stored)
        change = fold(before, own.events, horizon=horizon, digest=own.digest_of)
        changes[key] = change
        if not change.is_news:
            continue
        if stored:
            check_not_expired(key, stored.expires_at, now)
        if terms.retention:
            terms.retention.check_not_revived(key, change, now)
        expires_at = expiry_after(change, stored.expires_at if stored else None, terms.retention)
        columns = _change_columns(change, expires_at)
        if change.winner is None:
            histories.append({**own.row, **columns})
        else:
            row = own.row if change.winner is own.newest else _run_row(change.winner)
            states.append({**row, **columns})
    if not (states or histories):
        return changes, 0
    # One number for all that a transaction changes, since it takes effect together.
    changed = _next_change(connection)
    for row in (*states, *histories):
        row["changed"] = changed
    connection.executemany(_WRITE_RUN, states)
    connection.executemany(_WRITE_HISTORY, histories)
    _write_labels(connection, states)
    # In the same transaction as the runs: a reader never sees a run that is not counted.
    writes = stats_writes(changes)
    add_counts(connection, writes)
    _forget_counters(connection, writes, horizon)
    # There is no process of its own that deletes: each write takes some of what has expired along.
    if terms.retention:
        _delete_expired(connection, now)
    return changes, len(states) + len(histories)


def _delete_expired(connection: sqlite3.Connection, now: datetime) -> None:
    for statement in DELETE_EXPIRED:
        connection.execute(statement, (micros_of(now - _GRACE), _MAX_DELETED_RUNS))


def _write_labels(connection: sqlite3.Connection, states: Sequence[Mapping[str, Any]]) -> None:
    """Have the labels of runs be those of their new states."""
    connection.executemany(FORGET_LABELS, states)
    rows = [
        (row["workflow"], row["run"], label, row["started_at"])
        for row in states
        if row[LABELS] is not None
        for label in decode_json(row[LABELS])
    ]
    connection.executemany(_ADD_LABEL, rows)


def add_counts(connection: sqlite3.Connection, writes: Sequence[StatsWrite]) -> None:
    """Add to the counts of workflows."""
    connection.executemany(_ADD_TO_WORKFLOW, map(_workflow_row, writes))
    connection.executemany(_ADD_TO_COUNTER, [row for write in writes for row in _counter_rows(write)])


def _forget_counters(connection: sqlite3.Connection, writes: Sequence[StatsWrite], horizon: Horizon) -> None:
    workflows = [document_id(write.workflow_id) for write in writes]
    for scope, first in ((Scope.DAY, horizon.first_day), (Scope.HOUR, 24 * horizon.first_hours)):
        connection.executemany(FORGET_COUNTERS, [(workflow, scope.value, first) for workflow in workflows])


def _head(connection: sqlite3.Connection, key: RunKey, row: Mapping[str, Any]) -> StoredHead | None:
    with closing(connection.execute(HEAD, (row["workflow"], row["run"]))) as rows:
        found = rows.fetchone()
    return head_to_merge(fields_from_row(HEAD_COLUMNS, found), key) if found else None


def _next_change(connection: sqlite3.Connection) -> int:
    with closing(connection.execute("SELECT last FROM sequence")) as rows:
        row = rows.fetchone()
    if row is None or not isinstance(row[0], int) or not 0 <= row[0] < _MAX_CHANGE:
        raise ConfigurationError(
            "the file is damaged: it does not say how many changes it has seen; restore it from a copy, or "
            "set RUN_LOG_SQLITE_PATH to another file"
        )
    connection.execute("UPDATE sequence SET last = ?", (row[0] + 1,))
    return row[0] + 1


def _run_row(event: RunEvent) -> dict[str, Any]:
    """Return the columns of *event*'s run, as far as they follow from that alone: see `_change_columns`."""
    workflow_id, run_id = event.key
    projection = projection_fields(event, NOT_COUNTED)
    fields: dict[str, Any] = {
        **dict.fromkeys((*OPTIONAL, *ADDED_COLUMNS)),
        **projection,
        **run_fields(event.run),
    }
    pause = fields["pause"]
    if pause is not None:
        deadline = pause["deadline"]
        fields["pause"] = encode_json({**pause, "deadline": deadline and deadline.isoformat()})
    # In one order of columns, whatever the run has.
    parent: Mapping[str, str] = fields.pop(PARENT, None) or {}
    fields |= {f"{PARENT}_{name}": parent.get(name) for name in ("workflow_id", "run_id")}
    for name in (LABELS, PROGRESS):
        fields[name] = encode_json(fields[name]) if fields[name] else None
    for name in MOMENTS:
        moment = fields[name]
        fields[name] = None if moment is None else micros_of(moment)
    return {**fields, "workflow": document_id(workflow_id), "run": document_id(run_id)}


def _change_columns(change: RunChange, expires_at: datetime | None) -> dict[str, Any]:
    head = change.after
    return {
        PROGRESS_DIGEST: head.digest if head.is_progress else None,
        STEPS: "\n".join(map(step_text, head.steps)) or None,
        HISTORY: "\n".join(history_texts(head, head.history)),
        COUNTED_MICROS: head.counted.micros,
        COUNTED_HOUR: head.counted.hour,
        EXPIRE_AT: None if expires_at is None else micros_of(expires_at),
    }


def _workflow_row(write: StatsWrite) -> dict[str, Any]:
    counts = {status.value: write.delta.by_status.get(status, 0) for status in RunStatus}
    return {
        "workflow": document_id(write.workflow_id),
        "workflow_id": write.workflow_id,
        "as_of": 0 if write.as_of is None else micros_of(write.as_of),
        **counts,
    }


def _counter_rows(write: StatsWrite) -> list[tuple[str, str, int, str, int]]:
    workflow = document_id(write.workflow_id)
    return [
        (workflow, counter.scope.value, counter.slot, counter.name, count)
        for counter, count in write.counters.items()
    ]
