"""What is to be committed: runs grouped, sized and merged, before any vendor's call."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from opentelemetry import metrics

from run_log.core import RunEvent, Transition, WriteRefusedError
from run_log.core.clock import HybridLogicalClock
from run_log.core.counters import Horizon, SummaryCounter, add_counters
from run_log.core.history import MAX_HISTORY
from run_log.core.law import FoldedRun, RunChange, by_run, fold, newest_event, run_digest
from run_log.core.models import RunKey
from run_log.core.stats import StatsDelta
from run_log.core.steps import MAX_STEPS_BYTES, Step, step_text
from run_log.stores.retention import Retention
from run_log.stores.stored.fields import MAX_DOCUMENT_BYTES
from run_log.stores.stored.reading import StoredHead
from run_log.stores.stored.writing import (
    document_bytes,
    expiry_after,
    history_bytes,
    history_texts,
    projection_fields,
    run_fields,
)

_T = TypeVar("_T")

# Firestore takes 10 MiB (https://firebase.google.com/docs/firestore/quotas#writes_and_transactions). The
# emulator refuses 4 MiB. The room between is for writes that trim a history.
MAX_COMMIT_BYTES: Final = 3 * 2**20
"""Most bytes of writes in one commit."""

MAX_COMMIT_RUNS: Final = 500
"""Most runs in one commit."""

PART_RUNS: Final = 60
"""Runs after which a commit ends with its workflow, for the store to work on while the next is made."""

PART_WORKFLOWS: Final = 2
"""Of as many workflows at least. None is divided for this: each part would write its stats once more."""

MAX_STATS_CHANGES: Final = 500
"""Most changes of one stats document in one commit
(https://firebase.google.com/docs/firestore/quotas#writes_and_transactions)."""

_meter: Final = metrics.get_meter("run_log.stores")
_commits: Final = _meter.create_counter(
    "run_log.store.commits", unit="{commit}", description="Commits that were made or refused"
)
_commit_duration: Final = _meter.create_histogram(
    "run_log.store.commit.duration", unit="s", description="How long commits took"
)
_commit_runs: Final = _meter.create_histogram(
    "run_log.store.commit.runs", unit="{run}", description="Runs written in a commit"
)
_anomalies: Final = _meter.create_counter(
    "run_log.store.anomalies", unit="{transition}", description="Transitions that break the state machine"
)

_STATS_FIELDS: Final = 4  # total, successful, as_of, shards

TRIM_HISTORY_AT: Final = 2 * MAX_HISTORY
"""Stored transitions at which a write trims the history to its newest `MAX_HISTORY`. Until then it grows by
unions, which need no read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRun:
    """What a store is remembered to hold of a run."""

    stored: StoredHead
    mark: Any
    """The store's own mark of that very state: a write under it is refused once the state is another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """The events of one run in one commit, with the only document they can lead to."""

    events: Sequence[RunEvent]
    positions: Sequence[int]
    """Where each event stood among those given to `batches`."""
    newest: RunEvent
    """That of the events whose state they lead to."""
    fields: Mapping[str, Any]
    """The run's fields by it."""
    digest: str
    """That of its run; see `run_digest`."""
    size: int
    """The bytes of its write, unless that write trims the history."""
    earlier: Sequence[Transition] = ()
    """What is known of events that these have superseded."""
    earlier_steps: Sequence[Step] = ()
    """Likewise their steps."""

    def merged(self, known: KnownRun | None, horizon: Horizon) -> RunChange:
        """Return what the events do to the run as it is known, counting the days of *horizon*."""
        head = known.stored.head if known else None

        def digest(event: RunEvent) -> str:
            return self.digest if event is self.newest else run_digest(event.run)

        return fold(
            head,
            self.events,
            earlier=self.earlier,
            earlier_steps=self.earlier_steps,
            horizon=horizon,
            digest=digest,
        )

    def saved(self, known: KnownRun | None, clock: HybridLogicalClock) -> RunBatch:
        """Return the batch of a save, its one event stamped after what is *known*; see `RunHead.saved`."""
        if known is None:
            return self
        event = known.stored.head.saved(self.newest, clock=clock)
        return replace(self, events=[event], newest=event)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWrite:
    """What a commit does to one run's document, under a precondition."""

    key: RunKey
    expected: Any | None
    """The mark of the state it was made for; None: the run must not be there yet."""
    fields: Mapping[str, Any] | None
    """The run's fields, all of them; None where its stored state stays."""
    expires_at: datetime | None
    """When the run expires from now on; None where it never does."""
    keeps_expiry: bool
    """Whether that is so already."""
    projection: Mapping[str, Any]
    """The projection's own data, the history aside; what is absent is taken away. Empty where it stays."""
    history: Sequence[str]
    """Transitions, as stored."""
    steps: Sequence[str] | None
    """All of the run's steps, as stored; None where those that are stored stay."""
    replaces_history: bool
    """Whether *history* takes the place of what is stored; else it is added, each transition once."""

    @classmethod
    def of(
        cls, batch: RunBatch, change: RunChange, known: KnownRun | None, retention: Retention | None
    ) -> RunWrite:
        """Return the write that makes *change*, of *batch* to the run as it is *known*."""
        length = (known.stored.history_length if known else 0) + len(change.added)
        stored = known.stored.expires_at if known else None
        expires_at = expiry_after(change, stored, retention)
        # A union takes no read and no precondition on the history. It only grows, so now and then the newest
        # transitions are written in the place of all.
        trims = length > TRIM_HISTORY_AT
        kept = change.after.history if trims else change.added
        return cls(
            key=batch.events[0].key,
            expected=known.mark if known else None,
            fields=batch.fields if change.winner else None,
            expires_at=expires_at,
            keeps_expiry=expires_at == stored,
            projection=(
                projection_fields(change.winner, change.after.counted, change.after.digest)
                if change.winner
                else {}
            ),
            steps=[step_text(step) for step in change.after.steps] if change.adds_steps else None,
            history=history_texts(change.after, kept),
            replaces_history=known is None or trims,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsWrite:
    """What a commit adds to one shard of a workflow's stats, without any condition."""

    workflow_id: str
    shard: int
    """0 is the workflow's own document."""
    delta: StatsDelta
    as_of: datetime | None
    """When the latest of the events happened that came with it, on its emitter's clock; None for no event."""
    counters: Mapping[SummaryCounter, int] = field(default_factory=dict[SummaryCounter, int])
    """How much each counter of the summary changes; those that stay are absent."""
    forgets: Horizon | None = None
    """Days and hours before that are to be taken away; None leaves them."""

    @property
    def changes(self) -> int:
        """How many fields of the document it changes, at most."""
        return _STATS_FIELDS + len(self.delta.by_status) + len(self.counters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Writes that take effect together, or not at all."""

    runs: Sequence[RunWrite]
    stats: Sequence[StatsWrite]
    announced: Mapping[str, int]
    """Workflows of which it becomes known that their stats have at least so many shards."""


class ProjectionDocuments(Protocol):
    """What a projection needs of a document store: atomic writes under preconditions, and reads.

    Both raise `StoreUnavailableError` where the store does not answer or is too busy, `ConfigurationError`
    where it is not there or does not let us in. An answer may be lost: the writes of a call that failed with
    `StoreUnavailableError` may be there all the same.
    """

    async def commit(self, commit: Commit) -> Sequence[Any]:
        """Make all of *commit*'s writes or none, and return the mark of each run's new state, in order.

        Raises:
            GuessRefusedError: A run is not as expected; nothing is written.
            WriteRefusedError: It will never take one of these writes; nothing is written.
        """
        ...

    async def read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        """Return what is stored of those *keys* that are there.

        Raises:
            WriteRefusedError: One of them cannot be read, so no event can be merged into it.
        """
        ...


class Retrying(Protocol):
    """How an operation on the store is tried again."""

    async def run(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Return what *operation* returns, trying again for a while where the store is unavailable."""
        ...


def batches(
    events: Sequence[RunEvent], earlier: Mapping[RunKey, FoldedRun] = MappingProxyType({})
) -> Iterator[dict[RunKey, RunBatch]]:
    """Yield *events*, in any order, grouped by run and packed into commits that a store takes.

    Args:
        events: Of any runs.
        earlier: By run, what is known of events that its one event has superseded.

    Raises:
        WriteRefusedError: A run is larger than a document can be.
    """
    commit: dict[RunKey, RunBatch] = {}
    workflows: set[str] = set()
    size = 0
    positions = by_run(events)
    # In the order of workflows, so that each one's stats are written once all the same.
    for key in sorted(positions, key=lambda key: key[0]):
        # Made when its turn comes: by then the commit before is under way.
        batch = _run_batch(events, positions[key], earlier.get(key))
        # By bytes too: Firestore refuses a commit that is too large as a whole, and each run in it.
        is_full = size + batch.size > MAX_COMMIT_BYTES or len(commit) == MAX_COMMIT_RUNS
        is_part = len(commit) >= PART_RUNS and len(workflows) >= PART_WORKFLOWS and key[0] not in workflows
        if commit and (is_full or is_part):
            yield commit
            commit, workflows, size = {}, set[str](), 0
        commit[key] = batch
        workflows.add(key[0])
        size += batch.size
    if commit:
        yield commit


def shard_of(run_id: str, shards: int) -> int:
    """Return which of a workflow's *shards* counts a run: always the same, in every process."""
    # Not `hash`: Python's own differs from process to process.
    return zlib.crc32(run_id.encode()) % shards


def stats_writes(changes: Mapping[RunKey, RunChange], *, shards: int = 1) -> list[StatsWrite]:
    """Return how the workflows' stats, each over *shards* documents, change; what stays is absent."""
    places: dict[tuple[str, int], list[RunChange]] = {}
    for (workflow_id, run_id), change in changes.items():
        if change.is_news:
            places.setdefault((workflow_id, shard_of(run_id, shards)), []).append(change)
    # Increments commute, so they need no condition, and a busy workflow's document is never read to count: a
    # transaction that reads it fell to 0.05 events a second with 16 writers.
    writes = (_stats_write(*place, own) for place, own in places.items())
    return [write for write in writes if write.delta or write.counters]


class CommitOutcome(enum.StrEnum):
    """How one try of a commit ended."""

    COMMITTED = "committed"
    GUESS_REFUSED = "guess_refused"
    """The store held another state than was remembered of it."""
    FAILED = "failed"
    """It was not answered, or refused for another reason."""


def count_commit(outcome: CommitOutcome, *, runs: int, seconds: float) -> None:
    """Count one try of a commit of so many *runs*, which the store took so many *seconds* to answer."""
    _commits.add(1, {"outcome": outcome.value})
    _commit_duration.record(seconds, {"outcome": outcome.value})
    if outcome is CommitOutcome.COMMITTED:
        _commit_runs.record(runs)


def count_anomalies(changes: Iterable[RunChange]) -> None:
    """Count the transitions that *changes*, now stored, added in breach of the state machine."""
    if anomalies := sum(change.anomalies for change in changes):
        _anomalies.add(anomalies)


def _stats_write(workflow_id: str, shard: int, changes: Sequence[RunChange]) -> StatsWrite:
    # Most commits of a workflow end one run, and sums of one cost time.
    delta, counters = changes[0].delta, changes[0].counters
    if len(changes) > 1:
        delta = StatsDelta.sum(change.delta for change in changes)
        for change in changes[1:]:
            add_counters(counters, change.counters)
    return StatsWrite(
        workflow_id=workflow_id,
        shard=shard,
        delta=delta,
        counters=counters,
        as_of=max((change.latest for change in changes if change.added or change.winner), default=None),
    )


def _run_batch(events: Sequence[RunEvent], positions: Sequence[int], earlier: FoldedRun | None) -> RunBatch:
    own = [events[position] for position in positions]
    newest = newest_event(own)
    run = newest.run
    fields = run_fields(run)
    size = document_bytes(fields)
    # With the longest history it may get: refused now rather than once a run has gone on for long.
    history = earlier.history if earlier else ()
    steps = earlier.steps if earlier else ()
    # Whatever steps another process adds.
    has_steps = steps or any(event.steps for event in own)
    most = size + history_bytes(TRIM_HISTORY_AT) + (MAX_STEPS_BYTES if has_steps else 0)
    if most > MAX_DOCUMENT_BYTES:
        raise WriteRefusedError(
            f"run {run.id!r} of workflow {run.workflow_id!r} takes {most} bytes, a document holds "
            f"{MAX_DOCUMENT_BYTES}; publish it through run_log.producer, which cuts payloads to size"
        )
    size += history_bytes(len(own) + len(history)) + (MAX_STEPS_BYTES if has_steps else 0)
    return RunBatch(
        events=own,
        positions=positions,
        newest=newest,
        fields=fields,
        digest=run_digest(run, (fields["trigger_data"], fields["result"])),
        size=size,
        earlier=history,
        earlier_steps=steps,
    )
