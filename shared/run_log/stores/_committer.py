"""How events are committed to a document store: no transactions, and no reads on the common path."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from run_log.core import Outcome, RunChange, RunEvent, RunKey, Version

from ._commits import (
    Commit,
    KnownRun,
    KnownRuns,
    ProjectionDocuments,
    RunBatch,
    RunWrite,
    StatsWrite,
    batches,
    stats_writes,
)
from ._documents import StoredHead
from ._patience import GuessRefusedError, Patience
from ._telemetry import CommitOutcome, count_anomalies, count_commit

MAX_KNOWN_RUNS: Final = 20_000
"""Runs remembered from own commits, about 1.2 kB each; a run beyond costs a refused commit and a read."""

MAX_IN_FLIGHT: Final = 2
"""Commits of one `apply` under way at a time: while the store works on one, the next is made."""

WARY_COMMITS: Final = 16
"""Commits after a wrong guess for which runs that are not remembered are read first, rather than guessed to
be new: whoever shares a subscription, or has just started, meets runs that others have begun."""

MAX_ANNOUNCED: Final = 100_000
"""Workflows remembered to be announced as sharded; one beyond costs a write now and then."""


@dataclass(slots=True)
class _Saves:
    """The saves of one run that are under way."""

    newest: Version
    """The version of the one that began last."""
    under_way: int = 0


class Committer:
    """Commits events without transactions and, on the common path, without reads.

    One atomic batched write holds the run documents and the stats increments. Each run is written under a
    precondition: it must not exist, or be as this committer remembers it. Where that is wrong, the whole
    batch is refused, the runs are read, merged and committed again. So memory can be wrong and answers
    can get lost: that costs a retry, never a count.

    Args:
        documents: Where to.
        patience: How a commit is tried again.
        stats_shards: Over how many documents the stats of a workflow are spread.
        known_runs: How many runs are remembered.
        now: Monotonic seconds, to tell how long a commit took.
    """

    def __init__(
        self,
        documents: ProjectionDocuments,
        *,
        patience: Patience,
        stats_shards: int = 1,
        known_runs: int = MAX_KNOWN_RUNS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._documents = documents
        self._patience = patience
        self._shards = stats_shards
        self._known = KnownRuns(known_runs)
        self._wariness = 0
        self._announced: OrderedDict[str, None] = OrderedDict()
        self._now = now
        self._saving: dict[RunKey, _Saves] = {}

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        outcomes = [Outcome.DUPLICATE] * len(events)
        waiting = batches(events)

        async def commit_in_turn() -> None:
            for runs in waiting:
                for key, change in (await self._commit(runs)).items():
                    for position, outcome in zip(runs[key].positions, change.outcomes, strict=True):
                        outcomes[position] = outcome

        # They hold different runs, so they never meet.
        done = await asyncio.gather(*(commit_in_turn() for _ in range(MAX_IN_FLIGHT)), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure
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
        known: Mapping[RunKey, KnownRun] | None = None

        async def attempt() -> dict[RunKey, RunChange]:
            nonlocal known
            known = await self._guess(runs) if known is None else known
            merged = _restamped(runs, known) if restamp() else runs
            changes = {key: batch.merged(known.get(key)) for key, batch in merged.items()}
            try:
                await self._write(merged, changes, known)
            except GuessRefusedError:
                self._wariness = WARY_COMMITS
                known = await self._read(runs)
                raise
            return changes

        changes = await self._patience.run(attempt)
        count_anomalies(changes.values())
        return changes

    async def _guess(self, runs: Mapping[RunKey, RunBatch]) -> Mapping[RunKey, KnownRun]:
        """Return what is remembered of *runs*; where guesses were wrong of late, read the others."""
        known = self._known.among(runs)
        unknown = [key for key in runs if key not in known]
        if not self._wariness or not unknown:
            return known
        found = await self._read(unknown)
        self._wariness = WARY_COMMITS if found else self._wariness - 1
        return {**known, **found}

    async def _read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        known = await self._documents.read(keys)
        for key, run in known.items():
            self._known.remember(key, run)
        return known

    async def _write(
        self,
        runs: Mapping[RunKey, RunBatch],
        changes: Mapping[RunKey, RunChange],
        known: Mapping[RunKey, KnownRun],
    ) -> None:
        writes = [
            RunWrite.of(runs[key], change, known.get(key)) for key, change in changes.items() if change.added
        ]
        if not writes:
            return
        stats = stats_writes(changes, shards=self._shards)
        commit = Commit(runs=writes, stats=stats, announced=self._not_announced(stats))
        marks = await self._counted(commit)
        for workflow_id in commit.announced:
            self._announced[workflow_id] = None
            if len(self._announced) > MAX_ANNOUNCED:
                self._announced.popitem(last=False)
        for write, mark in zip(writes, marks, strict=True):
            before = known.get(write.key)
            length = len(write.history)
            if before and not write.replaces_history:
                length += before.stored.history_length
            stored = StoredHead(head=changes[write.key].after, history_length=length)
            self._known.remember(write.key, KnownRun(stored=stored, mark=mark))

    async def _counted(self, commit: Commit) -> Sequence[object]:
        begun = self._now()
        outcome = CommitOutcome.FAILED
        try:
            marks = await self._documents.commit(commit)
            outcome = CommitOutcome.COMMITTED
        except GuessRefusedError:
            outcome = CommitOutcome.GUESS_REFUSED
            raise
        finally:
            count_commit(outcome, runs=len(commit.runs), seconds=self._now() - begun)
        return marks

    def _not_announced(self, stats: Sequence[StatsWrite]) -> dict[str, int]:
        """Return the workflows whose readers may not know yet that there are shards to add up."""
        return {
            write.workflow_id: self._shards
            for write in stats
            if write.shard and write.workflow_id not in self._announced
        }


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
