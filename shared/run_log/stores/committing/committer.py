"""How events are committed to a document store: no transactions, and no reads on the common path."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from sys import getsizeof
from typing import Final, Generic, TypeVar

from run_log.core import Outcome, RunEvent, Version, utc_now
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.counters import Horizon, Scope
from run_log.core.errors import GuessRefusedError
from run_log.core.forks import renewed
from run_log.core.law import FoldedRun, RunChange, RunHead
from run_log.core.models import RunKey
from run_log.stores.inbox import check_unanswered
from run_log.stores.retention import Retention, check_not_expired
from run_log.stores.saves import SavesUnderWay
from run_log.stores.stored.reading import StoredHead

from .commits import (
    MAX_STATS_CHANGES,
    Commit,
    CommitOutcome,
    KnownRun,
    ProjectionDocuments,
    Retrying,
    RunBatch,
    RunWrite,
    StatsWrite,
    batches,
    count_anomalies,
    count_commit,
    stats_writes,
)

_K = TypeVar("_K")
_V = TypeVar("_V")

_ENTRY_BYTES: Final = 300
_HEAD_BYTES: Final = 450
_TRANSITION_BYTES: Final = 280
_STEP_BYTES: Final = 2_200

MAX_KNOWN_RUNS: Final = 20_000
"""Runs remembered from own commits. Memory may be wrong, for others write too: a write that trusts it is
refused then. A run beyond costs a refused commit and a read."""

MAX_KNOWN_BYTES: Final = 64 * 2**20
"""Bytes of them: as many runs of which five events are known, by ids of 36 characters."""

MAX_IN_FLIGHT: Final = 2
"""Commits of one `apply` under way at a time: while the store works on one, the next is made."""

_TURNS_TO_SEND: Final = 4
"""Turns of the event loop until a call is sent, and two more: the vendor's client and gRPC take one each."""

WARY_COMMITS: Final = 16
"""Commits after a wrong guess for which runs that are not remembered are read first, rather than guessed to
be new: whoever shares a subscription, or has just started, meets runs that others have begun."""

MAX_WORKFLOWS: Final = 100_000
"""Stats documents remembered to be announced as shards, and as many to hold no days that are over. One beyond
costs a write, or a longer one, now and then."""

MAX_WORKFLOWS_BYTES: Final = 16 * 2**20
"""Bytes of each of these two."""


async def _others_sent(others: int = 1) -> None:
    """Return once the calls that so many *others* begin meanwhile are sent."""
    # Making a commit takes milliseconds without a pause, in which the store would have nothing to do.
    for _ in range(_TURNS_TO_SEND * others):
        await asyncio.sleep(0)


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
        retention: How long ended runs are kept; None keeps all.
        known_runs: How many runs are remembered.
        now: Monotonic seconds, to tell how long a commit took.
        wall_now: The time, to tell which days and hours the summaries count, and which runs have expired.
    """

    def __init__(
        self,
        documents: ProjectionDocuments,
        *,
        patience: Retrying,
        stats_shards: int = 1,
        retention: Retention | None = None,
        known_runs: int = MAX_KNOWN_RUNS,
        now: Callable[[], float] = time.monotonic,
        wall_now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._documents = documents
        self._patience = patience
        self._shards = stats_shards
        self._retention = retention
        self._known: Recent[RunKey, KnownRun] = Recent(
            known_runs, MAX_KNOWN_BYTES, lambda key, run: names_bytes(key) + head_bytes(run.stored.head)
        )
        # No lock: event loops of several threads may lose each other's count, which costs a read or a retry.
        self._wariness = 0
        self._announced: Recent[str, int] = Recent(
            MAX_WORKFLOWS, MAX_WORKFLOWS_BYTES, lambda workflow_id, _: names_bytes((workflow_id,))
        )
        self._tidied: Recent[tuple[str, int], int] = Recent(
            MAX_WORKFLOWS, MAX_WORKFLOWS_BYTES, lambda place, _: names_bytes(place[:1])
        )
        self._now = now
        self._wall_now = wall_now
        self._saves = SavesUnderWay()

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """Make *events* part of the projection, in as few commits as they take."""
        return await self._apply(events, {})

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """Merge what another projection holds of *runs*, each once, as `apply` does its events.

        A run whose newest event is there is a duplicate only where nothing more of its history is new.
        """
        return await self._apply([run.event for run in runs], {run.event.key: run for run in runs})

    async def _apply(self, events: Sequence[RunEvent], earlier: Mapping[RunKey, FoldedRun]) -> list[Outcome]:
        outcomes = [Outcome.DUPLICATE] * len(events)
        waiting = batches(events, earlier)

        async def commit_in_turn(others: int) -> None:
            await _others_sent(others)
            for runs in waiting:
                for key, change in (await self._commit(runs)).items():
                    for position, outcome in zip(runs[key].positions, change.outcomes, strict=True):
                        is_news = key in earlier and change.is_news and outcome is Outcome.DUPLICATE
                        outcomes[position] = Outcome.STALE if is_news else outcome
                await _others_sent()

        # They hold different runs, so they never meet. A failure waits for the others: left alone, they would
        # commit after the caller was told that nothing more will.
        done = await asyncio.gather(*map(commit_in_turn, range(MAX_IN_FLIGHT)), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure
        return outcomes

    async def save(self, event: RunEvent, *, clock: HybridLogicalClock = PROCESS_CLOCK) -> None:
        """Make *event* its run's newest state: where a later one is stored, it is stamped after that.

        Saves of one run that are under way together keep the order in which they began.
        """
        (runs,) = batches([event])
        # Two saves of one run may overtake each other on their way. The one that began first keeps its stamp,
        # so that it stays the older one even where it arrives last.
        with self._saves.begun(event) as is_newest:
            await self._commit(
                runs, stamp=lambda batch, known: batch.saved(known, clock) if is_newest() else batch
            )

    async def answer(self, event: RunEvent, asked: Version) -> None:
        """Merge *event* if its run's newest state is the pause of version *asked*; see `check_unanswered`."""
        (runs,) = batches([event])

        def checked(batch: RunBatch, known: KnownRun | None) -> RunBatch:
            is_seen = known is not None and not known.stored.is_expired(self._wall_now())
            check_unanswered(known.stored.head if known and is_seen else None, event, asked)
            return batch

        # Read, and not remembered: a memory that is behind would refuse an answer for good.
        await self._commit(runs, stamp=checked, reads_first=True)

    async def _commit(
        self,
        runs: Mapping[RunKey, RunBatch],
        *,
        stamp: Callable[[RunBatch, KnownRun | None], RunBatch] = lambda batch, _known: batch,
        reads_first: bool = False,
    ) -> dict[RunKey, RunChange]:
        known: Mapping[RunKey, KnownRun] | None = None

        async def attempt() -> dict[RunKey, RunChange]:
            nonlocal known
            # A second try goes by what the first one has read: it repeats no wrong guess.
            if known is None:
                known = await (self._read(runs) if reads_first else self._guess(runs))
            now = self._wall_now()
            known = await self._surely_known(runs, known, now)
            merged = {key: stamp(batch, known.get(key)) for key, batch in runs.items()}
            horizon = Horizon.at(now)
            changes = {key: batch.merged(known.get(key), horizon) for key, batch in merged.items()}
            for key, change in changes.items():
                if change.is_news and key in known:
                    check_not_expired(key, known[key].stored.expires_at, now)
                if self._retention:
                    self._retention.check_not_revived(key, change, now)
            try:
                await self._write(merged, changes, known, horizon)
            except GuessRefusedError:
                # Another committer was faster, or this commit was made before and its answer was lost. What
                # is stored decides in both cases: merged into that, an event that is there is a duplicate.
                self._wariness = WARY_COMMITS
                known = await self._read(runs)
                raise
            return changes

        try:
            changes = await self._patience.run(attempt)
        except _TooManyChangesError:
            # How many fields a run changes is known once it is merged, so batches cannot be packed by that.
            both, middle = list(runs.items()), len(runs) // 2
            first, last = dict(both[:middle]), dict(both[middle:])
            return {**await self._commit(first), **await self._commit(last)}
        count_anomalies(changes.values())
        return changes

    async def _guess(self, runs: Mapping[RunKey, RunBatch]) -> Mapping[RunKey, KnownRun]:
        """Return what is remembered of *runs*; where guesses were wrong of late, read the others."""
        known = {key: run for key in runs if (run := self._known.get(key)) is not None}
        unknown = [key for key in runs if key not in known]
        if not self._wariness or not unknown:
            return known
        found = await self._read(unknown)
        self._wariness = WARY_COMMITS if found else self._wariness - 1
        return {**known, **found}

    async def _surely_known(
        self, runs: Mapping[RunKey, RunBatch], known: Mapping[RunKey, KnownRun], now: datetime
    ) -> Mapping[RunKey, KnownRun]:
        """Return what is *known*, having read again what may be gone by now.

        Raises:
            RunExpiredError: A run is not there, and all its events are old.
        """
        # Firestore deletes what has expired when it sees fit and tells nobody
        # (https://firebase.google.com/docs/firestore/ttl). A write by memory would be refused then, and
        # one as new would bring back a run that is gone.
        retention = self._retention

        def may_be_gone(key: RunKey) -> bool:
            if key in known:
                return known[key].stored.is_expired(now)
            return retention is not None and retention.is_over(runs[key].events, now)

        doubtful = [key for key in runs if may_be_gone(key)]
        if not doubtful:
            return known
        found = await self._read(doubtful)
        for key in doubtful:
            if key not in found and retention and retention.is_over(runs[key].events, now):
                raise retention.error(key)
        return {**{key: run for key, run in known.items() if key not in doubtful}, **found}

    async def _read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        known = await self._documents.read(keys)
        # A commit under way may have made this old by now. Whoever trusts it is refused, and reads again.
        for key, run in known.items():
            self._known.put(key, run)
        return known

    async def _write(
        self,
        runs: Mapping[RunKey, RunBatch],
        changes: Mapping[RunKey, RunChange],
        known: Mapping[RunKey, KnownRun],
        horizon: Horizon,
    ) -> None:
        writes = [
            RunWrite.of(runs[key], change, known.get(key), self._retention)
            for key, change in changes.items()
            if change.is_news
        ]
        if not writes:
            return
        # Together with the runs, or a fault between the two would leave counts wrong for good.
        stats = [self._tidying(write, horizon) for write in stats_writes(changes, shards=self._shards)]
        if len(writes) > 1 and any(write.changes > MAX_STATS_CHANGES for write in stats):
            raise _TooManyChangesError
        commit = Commit(runs=writes, stats=stats, announced=self._not_announced(stats))
        marks = await self._counted(commit)
        # Only now. Where the answer is lost memory keeps the older mark, and the next write is refused.
        for workflow_id, shards in commit.announced.items():
            self._announced.put(workflow_id, shards)
        for tidied in commit.stats:
            if tidied.forgets is not None:
                self._tidied.put((tidied.workflow_id, tidied.shard), tidied.forgets.today)
        for write, mark in zip(writes, marks, strict=True):
            before = known.get(write.key)
            length = len(write.history)
            if before and not write.replaces_history:
                length += before.stored.history_length
            stored = StoredHead(
                head=changes[write.key].after, history_length=length, expires_at=write.expires_at
            )
            self._known.put(write.key, KnownRun(stored=stored, mark=mark))

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

    def _tidying(self, write: StatsWrite, horizon: Horizon) -> StatsWrite:
        """Return *write*; the first of a day takes away what *horizon* has left behind."""
        # By the very horizon that its counters are of: a later one could take away what it counts.
        by_time = any(counter.scope is not Scope.ALL for counter in write.counters)
        if not by_time or self._tidied.get((write.workflow_id, write.shard)) == horizon.today:
            return write
        return replace(write, forgets=horizon)

    def _not_announced(self, stats: Sequence[StatsWrite]) -> dict[str, int]:
        """Return the workflows whose readers may not know yet that there are shards to add up."""
        # In the workflow's own document, which shards are to relieve: once a process, not with each commit.
        return {
            write.workflow_id: self._shards
            for write in stats
            if write.shard and not self._announced.get(write.workflow_id)
        }


class _TooManyChangesError(Exception):
    """A commit would change more fields of one document than Firestore takes."""


class Recent(Generic[_K, _V]):
    """A mapping that forgets what was used least recently. Threads may share it.

    Args:
        most: How many entries are kept.
        most_bytes: How many bytes of them; the newest one is kept whatever its size.
        size: Returns how many bytes an entry takes.
    """

    def __init__(self, most: int, most_bytes: int, size: Callable[[_K, _V], int]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._size = size
        # Reentrant, since a signal handler may record a run in the middle.
        self._lock = renewed(self, "_lock", threading.RLock)
        self._entries: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self.data_bytes = 0
        """Bytes of all entries."""

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._entries)

    def get(self, key: _K) -> _V | None:
        """Return what is kept for *key*, which it is used by; None where nothing is."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: _K, value: _V) -> None:
        """Keep *value* for *key* from now on."""
        size = self._size(key, value)
        with self._lock:
            self.pop(key)
            self._entries[key] = (value, size)
            self.data_bytes += size
            # The newest stays whatever its size: what was just written is what is asked for next.
            while len(self._entries) > max(1, self._most) or (
                self.data_bytes > self._most_bytes and len(self._entries) > 1
            ):
                self.pop(next(iter(self._entries)))

    def pop(self, key: _K) -> None:
        """Forget what is kept for *key*, if anything is."""
        with self._lock:
            _, size = self._entries.pop(key, (None, 0))
            self.data_bytes -= size


def names_bytes(names: Iterable[str]) -> int:
    """Return how many bytes an entry takes by these *names*, about: measured, CPython 3.11."""
    return _ENTRY_BYTES + sum(map(getsizeof, names))


def head_bytes(head: RunHead) -> int:
    """Return how many bytes *head* takes, about: measured, CPython 3.11."""
    size = _HEAD_BYTES + _TRANSITION_BYTES * len(head.history) + _STEP_BYTES * len(head.steps)
    for transition in head.history:
        size += getsizeof(transition.version.event_id)
        answer = (transition.answered_by, transition.choice, transition.comment, transition.values_text)
        size += sum(getsizeof(text) for text in answer if text is not None)
    return size
