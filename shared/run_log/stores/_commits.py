"""What is to be committed: runs grouped, sized and merged, before any vendor's call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from run_log.core import (
    MAX_HISTORY,
    RunChange,
    RunEvent,
    RunKey,
    StatsDelta,
    WriteRefusedError,
    by_run,
    fold,
)

from ._documents import MAX_DOCUMENT_BYTES, StoredHead, document_bytes, run_fields

MAX_COMMIT_BYTES: Final = 3 * 2**20
"""Most bytes of writes in one commit: Firestore takes 10 MiB, its emulator refuses 4 MiB. The room between
is for writes that trim a history."""

MAX_COMMIT_RUNS: Final = 500
"""Most runs in one commit."""

TRIM_HISTORY_AT: Final = 2 * MAX_HISTORY
"""Stored transitions at which a write trims the history to its newest `MAX_HISTORY`. Until then it grows by
unions, which need no read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRun:
    """What a store is remembered to hold of a run."""

    stored: StoredHead
    update_time: Any
    """The vendor's mark of that very state: a write under it is refused once the state is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """The events of one run in one commit, with the only document they can lead to."""

    events: Sequence[RunEvent]
    positions: Sequence[int]
    """Where each event stood among those given to `batches`."""
    fields: Mapping[str, Any]
    """The run's fields by the newest of the events."""
    size: int
    """The bytes of its write, unless that write trims the history."""

    def merged(self, known: KnownRun | None) -> RunChange:
        """Return what the events do to the run as it is known."""
        return fold(known.stored.head if known else None, self.events)


class KnownRuns:
    """The runs a store is remembered to hold: the most recently used ones, so memory stays bounded.

    Memory may be wrong (another process writes too): a write that trusts it is refused, never wrong.

    Args:
        most: How many runs are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._runs: OrderedDict[RunKey, KnownRun] = OrderedDict()

    def among(self, keys: Mapping[RunKey, object]) -> dict[RunKey, KnownRun]:
        """Return those of *keys* that are remembered."""
        found = {key: self._runs[key] for key in keys if key in self._runs}
        for key in found:
            self._runs.move_to_end(key)
        return found

    def remember(self, key: RunKey, known: KnownRun) -> None:
        """Remember what the store holds of *key* from now on."""
        self._runs[key] = known
        self._runs.move_to_end(key)
        if len(self._runs) > self._most:
            self._runs.popitem(last=False)


def batches(events: Sequence[RunEvent]) -> Iterator[dict[RunKey, RunBatch]]:
    """Yield *events* grouped by run, packed into commits that a store takes.

    Args:
        events: Events of any runs, in any order, with repeats.

    Raises:
        WriteRefusedError: A run is larger than a document can be.
    """
    commit: dict[RunKey, RunBatch] = {}
    size = 0
    runs = {key: _run_batch(events, positions) for key, positions in by_run(events).items()}
    for key, batch in runs.items():
        if commit and (size + batch.size > MAX_COMMIT_BYTES or len(commit) == MAX_COMMIT_RUNS):
            yield commit
            commit, size = {}, 0
        commit[key] = batch
        size += batch.size
    if commit:
        yield commit


def stats_deltas(changes: Mapping[RunKey, RunChange]) -> dict[str, StatsDelta]:
    """Return how each workflow's stats change; workflows whose stats stay are absent."""
    deltas: dict[str, StatsDelta] = {}
    for (workflow_id, _), change in changes.items():
        deltas[workflow_id] = deltas.get(workflow_id, StatsDelta()) + change.delta
    return {workflow_id: delta for workflow_id, delta in deltas.items() if delta}


def _run_batch(events: Sequence[RunEvent], positions: Sequence[int]) -> RunBatch:
    own = [events[position] for position in positions]
    run = max(own, key=lambda event: event.version).run
    fields = run_fields(run)
    size = document_bytes(fields, TRIM_HISTORY_AT)
    if size > MAX_DOCUMENT_BYTES:
        raise WriteRefusedError(
            f"run {run.id!r} of workflow {run.workflow_id!r} takes {size} bytes, a document holds "
            f"{MAX_DOCUMENT_BYTES}; publish it through run_log.producer, which cuts payloads to size"
        )
    return RunBatch(events=own, positions=positions, fields=fields, size=document_bytes(fields, len(own)))
