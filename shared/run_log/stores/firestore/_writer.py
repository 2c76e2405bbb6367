"""How events are committed to Firestore: no transactions, and no reads on the common path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from google.cloud import firestore

from run_log.core import (
    Outcome,
    RunChange,
    RunEvent,
    RunKey,
    StatsDelta,
    UnreadableRunError,
    Version,
    WriteRefusedError,
    document_id,
)
from run_log.stores._commits import TRIM_HISTORY_AT, KnownRun, KnownRuns, RunBatch, batches, stats_deltas
from run_log.stores._documents import (
    HISTORY,
    PAUSED_STARTED_AT,
    PROJECTION,
    StoredHead,
    head_from_fields,
    projection_fields,
    transition_text,
)

from ._connection import (
    REFUSED_ERRORS,
    RPC_TIMEOUT_SECONDS,
    VENDOR_ERRORS,
    Connection,
    GuessRefusedError,
    Patience,
    run_reference,
)

MAX_KNOWN_RUNS: Final = 20_000
"""Runs remembered from own commits, about 1.2 kB each; a run beyond costs a refused commit and a read."""


@dataclass(slots=True)
class _Saves:
    """The saves of one run that are under way."""

    newest: Version
    """The version of the one that began last."""
    under_way: int = 0


class FirestoreWriter:
    """Commits events without transactions and, on the common path, without reads.

    One atomic batched write holds the run documents and the stats increments. Each run is written under a
    precondition: it must not exist, or be as this writer remembers it. Where that is wrong, the whole
    batch is refused, the runs are read, merged and committed again. So memory can be wrong and answers
    can get lost: that costs a retry, never a count.

    Args:
        connection: Where to.
        root_collection: The collection that holds the projection.
        patience: How a commit is tried again.
        known_runs: How many runs are remembered.
    """

    def __init__(
        self,
        connection: Connection,
        root_collection: str,
        *,
        patience: Patience,
        known_runs: int = MAX_KNOWN_RUNS,
    ) -> None:
        self._connection = connection
        self._root = root_collection
        self._patience = patience
        self._known = KnownRuns(known_runs)
        self._saving: dict[RunKey, _Saves] = {}

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        outcomes = [Outcome.DUPLICATE] * len(events)
        for runs in list(batches(events)):
            changes = await self._commit(runs)
            for key, change in changes.items():
                for position, outcome in zip(runs[key].positions, change.outcomes, strict=True):
                    outcomes[position] = outcome
        return outcomes

    async def save(self, event: RunEvent) -> None:
        """Make *event* its run's newest state: where a later one is stored, it is stamped after that.

        Saves of one run that are under way together keep the order in which they began.
        """
        (runs,) = batches([event])
        saves = self._saving.setdefault(event.key, _Saves(newest=event.version))
        saves.under_way += 1
        saves.newest = max(saves.newest, event.version)
        try:
            await self._commit(runs, restamp=lambda: event.version == saves.newest)
        finally:
            saves.under_way -= 1
            if not saves.under_way:
                del self._saving[event.key]

    async def _commit(
        self, runs: Mapping[RunKey, RunBatch], *, restamp: Callable[[], bool] = lambda: False
    ) -> dict[RunKey, RunChange]:
        known = self._known.among(runs)
        guessed = True

        async def attempt() -> dict[RunKey, RunChange]:
            nonlocal known, guessed
            if not guessed:
                known = await self._read(runs)
            guessed = False
            merged = _restamped(runs, known) if restamp() else runs
            changes = {key: batch.merged(known.get(key)) for key, batch in merged.items()}
            await self._write(merged, changes, known)
            return changes

        return await self._patience.run(attempt)

    async def _write(
        self,
        runs: Mapping[RunKey, RunBatch],
        changes: Mapping[RunKey, RunChange],
        known: Mapping[RunKey, KnownRun],
    ) -> None:
        written = [key for key, change in changes.items() if change.added]
        if not written:
            return
        client = self._connection.client()
        batch = client.batch()
        lengths = {key: self._write_run(batch, runs[key], changes[key], known.get(key)) for key in written}
        for workflow_id, delta in stats_deltas(changes).items():
            fields = _stats_fields(workflow_id, delta)
            batch.set(client.collection(self._root).document(document_id(workflow_id)), fields, merge=True)
        try:
            results = await batch.commit(retry=None, timeout=RPC_TIMEOUT_SECONDS)
        except REFUSED_ERRORS as error:
            raise GuessRefusedError(
                f"{self._connection} holds another state than assumed ({error})"
            ) from error
        except VENDOR_ERRORS as error:
            raise self._connection.error(error) from error
        for key, result in zip(written, results, strict=False):
            stored = StoredHead(head=changes[key].after, history_length=lengths[key])
            self._known.remember(key, KnownRun(stored=stored, update_time=result.update_time))

    def _write_run(self, batch: Any, run: RunBatch, change: RunChange, known: KnownRun | None) -> int:
        """Add one run's write to *batch*; return how long its stored history is then."""
        client = self._connection.client()
        reference = run_reference(client, self._root, run.events[0].key)
        added = [transition_text(transition) for transition in change.added]
        if known is None:
            winner = cast("RunEvent", change.winner)
            batch.create(reference, {**run.fields, PROJECTION: {**projection_fields(winner), HISTORY: added}})
            return len(added)
        length = known.stored.history_length + len(added)
        updates: dict[str, Any] = {f"{PROJECTION}.{HISTORY}": firestore.ArrayUnion(added)}
        if length > TRIM_HISTORY_AT:
            kept = [transition_text(transition) for transition in change.after.history]
            updates = {f"{PROJECTION}.{HISTORY}": kept}
            length = len(kept)
        if change.winner is not None:
            updates |= run.fields
            projection = {PAUSED_STARTED_AT: firestore.DELETE_FIELD, **projection_fields(change.winner)}
            updates |= {f"{PROJECTION}.{name}": value for name, value in projection.items()}
        batch.update(reference, updates, option=client.write_option(last_update_time=known.update_time))
        return length

    async def _read(self, runs: Mapping[RunKey, RunBatch]) -> dict[RunKey, KnownRun]:
        client = self._connection.client()
        keys = {run_reference(client, self._root, key).path: key for key in runs}
        references = [run_reference(client, self._root, key) for key in runs]
        known: dict[RunKey, KnownRun] = {}
        try:
            snapshots = client.get_all(
                references, field_paths=["status", PROJECTION], retry=None, timeout=RPC_TIMEOUT_SECONDS
            )
            async for snapshot in snapshots:
                if snapshot.exists:
                    key = keys[snapshot.reference.path]
                    stored = _mergeable(snapshot.to_dict() or {}, key)
                    known[key] = KnownRun(stored=stored, update_time=snapshot.update_time)
        except VENDOR_ERRORS as error:
            raise self._connection.error(error) from error
        for key, run in known.items():
            self._known.remember(key, run)
        return known


def _mergeable(fields: Mapping[str, Any], key: RunKey) -> StoredHead:
    """Return the head to merge into; where it cannot be read, nobody knows what the stats count it as."""
    try:
        return head_from_fields(fields, key)
    except UnreadableRunError as error:
        raise WriteRefusedError(f"no event can be merged into it: {error}") from error


def _restamped(
    runs: Mapping[RunKey, RunBatch], known: Mapping[RunKey, KnownRun]
) -> Mapping[RunKey, RunBatch]:
    """Return *runs* with every event later than what is known; one that is stored already stays."""
    return {key: _restamped_run(batch, known.get(key)) for key, batch in runs.items()}


def _restamped_run(batch: RunBatch, known: KnownRun | None) -> RunBatch:
    (event,) = batch.events
    if known is None:
        return batch
    # One that is stored already keeps its identity, so merging finds it done.
    return replace(batch, events=[event.later_than(known.stored.head.version)])


def _stats_fields(workflow_id: str, delta: StatsDelta) -> dict[str, Any]:
    return {
        "workflow_id": workflow_id,
        "total": firestore.Increment(delta.total),
        "successful": firestore.Increment(delta.successful),
        "by_status": {status.value: firestore.Increment(count) for status, count in delta.by_status.items()},
    }
