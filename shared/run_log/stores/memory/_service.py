"""The embedded run log: no network, no disk, gone with the process."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Self

from typing_extensions import override

from run_log.core import Outcome, RunEvent, RunStatus, Settings, Version, WorkflowRun, utc_now
from run_log.core.bell import Bell
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.counters import Horizon, SummaryCounter, add_counters
from run_log.core.forks import renewed
from run_log.core.ids import document_id
from run_log.core.law import RunChange, RunHead, by_run, fold
from run_log.core.models import RunKey
from run_log.core.stats import StatsDelta
from run_log.stores.committing.commits import count_anomalies
from run_log.stores.committing.committer import Recent, head_bytes, names_bytes
from run_log.stores.inbox import InboxSelection, check_unanswered
from run_log.stores.listings import Order, Position, Selection
from run_log.stores.notices import Notice, NoticeKind
from run_log.stores.retention import Retention, check_not_expired
from run_log.stores.service import RunLogService
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.fields import ERROR_TYPE, EXPIRE_AT, LABELS, PARENT, label_text
from run_log.stores.stored.reading import Page, StoredRun, expires_at, is_expired, readable, run_from_fields
from run_log.stores.stored.writing import expiry_after, projection_fields, run_fields
from run_log.stores.summaries import WorkflowStats
from run_log.stores.watch import RunUpdate

from ._journal import Journal, JournalUpdates

MAX_RUNS: Final = 200
"""Runs kept for a workflow. A paused one is never evicted: somebody waits for it."""

MAX_EVICTED: Final = 100_000
"""Evicted runs a workflow remembers the head of, so that one saved again is not counted again."""

MAX_EVICTED_BYTES: Final = 100 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    head: RunHead
    fields: Mapping[str, Any]
    projection: Mapping[str, Any]
    position: Position
    number: int
    """Of its newest change."""


@dataclass(slots=True)
class _Workflow:
    runs: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    evicted: Recent[str, RunHead] = field(
        default_factory=lambda: Recent(
            MAX_EVICTED, MAX_EVICTED_BYTES, lambda run_id, head: names_bytes((run_id,)) + head_bytes(head)
        )
    )
    stats: StatsDelta = field(default_factory=StatsDelta)
    counters: dict[SummaryCounter, int] = field(default_factory=dict[SummaryCounter, int])
    as_of: datetime | None = None
    tidied: int | None = None

    def head(self, run_id: str) -> RunHead | None:
        entry = self.runs.get(run_id)
        return entry.head if entry else self.evicted.get(run_id)

    def stats_of(self, workflow_id: str) -> WorkflowStats:
        return WorkflowStats(
            workflow_id=workflow_id,
            total=self.stats.total,
            successful=self.stats.successful,
            by_status=dict(self.stats.by_status),
            as_of=self.as_of,
        )

    def write(self, run_id: str, change: RunChange, number: int, retention: Retention | None) -> None:
        self._count(change)
        if change.winner is not None:
            self.evicted.pop(run_id)  # it is back
            run = change.winner.run
            self.runs[run_id] = _Entry(
                head=change.after,
                fields=MappingProxyType(run_fields(run)),
                projection=MappingProxyType(
                    projection_fields(change.winner, change.after.counted, change.after.digest)
                ),
                position=Position(run.started_at, document_id(run_id)),
                number=number,
            )
        elif run_id in self.runs:
            self.runs[run_id] = replace(self.runs[run_id], head=change.after, number=number)
        entry = self.runs.get(run_id)
        if retention is not None and entry is not None:
            end = expiry_after(change, expires_at(entry.fields), retention)
            self.runs[run_id] = replace(entry, fields=MappingProxyType({**entry.fields, EXPIRE_AT: end}))
        self._evict()

    def _count(self, change: RunChange) -> None:
        delta, counters = change.delta, change.counters
        if not delta and not counters:
            return
        self.stats += delta
        add_counters(self.counters, counters)
        latest = change.latest
        self.as_of = max(self.as_of or latest, latest)
        horizon = change.horizon
        if horizon is not None and horizon.today != self.tidied:
            self.tidied = horizon.today
            self.counters = {
                counter: count for counter, count in self.counters.items() if horizon.counts(counter)
            }

    def _evict(self) -> None:
        while len(self.runs) > MAX_RUNS:
            ended = [
                run_id for run_id, entry in self.runs.items() if entry.head.status is not RunStatus.PAUSED
            ]
            # The last one that is not paused stays, or a workflow full of paused runs could hold no other.
            if len(ended) <= 1:
                return
            oldest = min(ended, key=lambda run_id: self.runs[run_id].position)
            # The head stays for a while: without it, a late event would count the run again.
            head = self.runs.pop(oldest).head
            self.evicted.put(oldest, replace(head, history=head.history[-1:], steps=()))


class InMemoryRunLogService(RunLogService):
    """A run log in this process's memory, for development, tests and small embedded use.

    It keeps `MAX_RUNS` runs of each workflow: every paused one, and the newest of the others; stats go on
    counting those that were evicted. Thread-safe, and usable from any event loop. A watch that is behind
    never sees what was evicted meanwhile, and its cursors mean nothing to another process.

    Args:
        retention_days: How long after its latest event a run expires that has ended; None keeps all.
        now: The time, to tell which days and hours the summaries count, and which runs have expired.
        clock: Stamps what is saved.

    Raises:
        ConfigurationError: *retention_days* is not within 1 and `MAX_RETENTION_DAYS`.
    """

    def __init__(
        self,
        *,
        retention_days: int | None = None,
        now: Callable[[], datetime] = utc_now,
        clock: HybridLogicalClock = PROCESS_CLOCK,
    ) -> None:
        super().__init__(clock)
        self._retention = Retention.of_days(retention_days)
        self._now = now
        self._workflows: defaultdict[str, _Workflow] = defaultdict(_Workflow)
        # Reentrant, since a signal handler may save a run in the middle; held over a fork, so that a child
        # finds no run half written.
        self._lock = renewed(self, "_lock", threading.RLock, is_held=True)
        self._notices: dict[tuple[NoticeKind, str], Notice] = {}
        self._journal = Journal(self._number_of)
        self._bell = Bell()

    @classmethod
    @override
    def from_settings(cls, settings: Settings) -> Self:
        return cls(retention_days=settings.retention_days)

    @override
    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """Durable as long as the process lives."""
        outcomes = [Outcome.DUPLICATE] * len(events)
        with self._lock:
            changes: dict[RunKey, RunChange] = {}
            for key, positions in by_run(events).items():
                changes[key] = self._fold(key, [events[position] for position in positions])
                for position, outcome in zip(positions, changes[key].outcomes, strict=True):
                    outcomes[position] = outcome
            # All are folded first: one that is refused leaves nothing of its batch.
            for key, change in changes.items():
                self._write(key, change)
        self._bell.ring()
        count_anomalies(changes.values())
        return outcomes

    @override
    async def _apply_answer(self, event: RunEvent, asked: Version) -> None:
        with self._lock:
            # Not the head of an evicted run: queries do not find that one.
            entry = self._entry(event.key)
            check_unanswered(entry.head if entry else None, event, asked)
            change = self._fold(event.key, [event])
            self._write(event.key, change)
        self._bell.ring()
        count_anomalies([change])

    def _fold(self, key: RunKey, events: Sequence[RunEvent]) -> RunChange:
        now = self._now()
        workflow = self._workflow(key[0])
        head, entry = workflow.head(key[1]), workflow.runs.get(key[1])
        # Nothing is known of the run, and its events are so old that it may have been deleted.
        if head is None and self._retention and self._retention.is_over(events, now):
            raise self._retention.error(key)
        change = fold(head, events, horizon=Horizon.at(now))
        if change.is_news and entry:
            check_not_expired(key, expires_at(entry.fields), now)
        elif change.is_news and head and self._retention:
            # Evicted, it is counted still.
            check_not_expired(key, self._retention.expires_at(head), now)
        if self._retention:
            self._retention.check_not_revived(key, change, now)
        return change

    def _workflow(self, workflow_id: str) -> _Workflow:
        return self._workflows.get(workflow_id) or _Workflow()  # reading makes none

    async def close(self) -> None:
        """End the watches: there is nothing else to let go of."""
        await self._watches.close()

    @override
    async def _save(self, event: RunEvent) -> None:
        with self._lock:
            head = self._workflow(event.key[0]).head(event.key[1])
            # What this process made or saw before it made the event is in order already.
            foreign = head is not None and head.version.hlc > self.version_clock.seen(event.key)
            latest = head.saved(event, clock=self.version_clock) if head and foreign else event
            self._write(event.key, self._fold(event.key, [latest]))
        self._bell.ring()

    def _write(self, key: RunKey, change: RunChange) -> None:
        if change.is_news:
            workflow_id, run_id = key
            self._workflows[workflow_id].write(run_id, change, self._journal.add(key), self._retention)

    @override
    async def read_page(
        self,
        workflow_id: str | None,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        payloads: bool,
    ) -> Page:
        found = self._readable(self._sorted(workflow_id, selection, after), limit + 1)
        return Page.of(found if payloads else [one.without_payloads() for one in found], limit)

    @override
    async def read_count(self, workflow_id: str | None, selection: Selection) -> int:
        now = self._now()
        entries = self._sorted(workflow_id, selection, None)
        return sum(not is_expired(expires_at(entry.fields), now) for entry in entries)

    @override
    async def read_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        entry = self._entry((workflow_id, run_id))
        return _stored(entry, (workflow_id, run_id)) if entry else None

    @override
    async def read_stats(self, workflow_id: str) -> WorkflowStats:
        with self._lock:
            return self._workflow(workflow_id).stats_of(workflow_id)

    @override
    async def read_summary(self, workflow_id: str) -> tuple[WorkflowStats, Mapping[SummaryCounter, int]]:
        with self._lock:
            workflow = self._workflow(workflow_id)
            return workflow.stats_of(workflow_id), dict(workflow.counters)

    @override
    async def read_workflows(self, after: str | None, most: int) -> list[WorkflowStats]:
        with self._lock:
            stats = {
                document_id(workflow_id): workflow.stats_of(workflow_id)
                for workflow_id, workflow in self._workflows.items()
            }
        places = sorted(place for place in stats if after is None or place > after)
        return [stats[place] for place in places[:most]]

    @override
    async def read_pending(self) -> Sequence[StoredRun]:
        return self._readable(self._placed(InboxSelection(now=utc_now()), None))

    @override
    async def read_overall_page(
        self, selection: InboxSelection | StaleSelection, after: Position | None, limit: int
    ) -> Page:
        runs = self._readable(self._placed(selection, after), limit + 1, selection.is_wanted)
        return Page.of(runs, limit)

    def _placed(self, selection: InboxSelection | StaleSelection, after: Position | None) -> list[_Entry]:
        with self._lock:
            found = [
                (document_id(workflow_id), entry)
                for workflow_id, workflow in self._workflows.items()
                if selection.workflow_id in (None, workflow_id)
                for entry in workflow.runs.values()
            ]
        entries = {
            Position(entry.projection[selection.sorted_by], entry.position.run, workflow): entry
            for workflow, entry in found
            if selection.includes(entry.projection)
        }
        return _beyond(entries, after, newest_first=selection.newest_first)

    @override
    async def read_latest(self, workflow_id: str, selection: Selection) -> StoredRun | None:
        return next(iter(self._readable(self._sorted(workflow_id, selection, None), 1)), None)

    @override
    async def read_head(self, workflow_id: str, run_id: str) -> RunHead | None:
        entry = self._entry((workflow_id, run_id))
        return entry.head if entry else None

    @override
    async def read_record(
        self, workflow_id: str, run_id: str, *, payloads: bool
    ) -> tuple[StoredRun, RunHead] | None:
        entry = self._entry((workflow_id, run_id))
        if entry is None:
            return None
        stored = _stored(entry, (workflow_id, run_id))
        return stored if payloads else stored.without_payloads(), entry.head

    def _readable(
        self,
        entries: Iterable[_Entry],
        most: int | None = None,
        is_wanted: Callable[[WorkflowRun], bool] = lambda _run: True,
    ) -> list[StoredRun]:
        return readable(
            entries,
            lambda entry: _stored(entry, (str(entry.fields.get("workflow_id")), str(entry.fields.get("id")))),
            most,
            now=self._now(),
            is_wanted=is_wanted,
        )

    @override
    async def put_notices(self, kind: NoticeKind, notices: Sequence[Notice]) -> None:
        with self._lock:
            self._notices |= {(kind, notice.key): notice for notice in notices}
            self._notices = {key: notice for key, notice in self._notices.items() if self._is_kept(notice)}

    @override
    async def remove_notices(self, kind: NoticeKind, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._notices.pop((kind, key), None)

    @override
    async def read_notices(self, kind: NoticeKind, most: int) -> list[str]:
        with self._lock:
            found = [one for (of, _), one in self._notices.items() if of is kind and self._is_kept(one)]
        newest = sorted(found, key=lambda notice: notice.at, reverse=True)
        return [notice.text for notice in newest[:most]]

    def _is_kept(self, notice: Notice) -> bool:
        return not is_expired(notice.expires_at, self._now())

    @override
    def updates(self, workflow_id: str | None, cursor: object, selection: str) -> JournalUpdates:
        def read(after: int) -> tuple[int, RunUpdate | None] | None:
            with self._lock:
                found = self._journal.after(after, workflow_id)
                if found is None:
                    return None
                number, key = found
                entry = self._workflows[key[0]].runs[key[1]]
            runs = self._readable([entry], 1)
            return number, self._update(runs[0], self._journal.cursor(number, selection)) if runs else None

        return JournalUpdates(
            read=read,
            last=lambda: self._journal.last,
            bell=self._bell,
            after=None if cursor is None else self._journal.number(cursor, selection),
        )

    @override
    async def read_place(self, selection: str) -> str:
        return self._journal.cursor(self._journal.last, selection)

    def _number_of(self, key: RunKey) -> int:
        entry = self._workflow(key[0]).runs.get(key[1])
        return entry.number if entry else 0

    def _entry(self, key: RunKey) -> _Entry | None:
        with self._lock:
            entry = self._workflow(key[0]).runs.get(key[1])
        return None if entry is None or is_expired(expires_at(entry.fields), self._now()) else entry

    def _sorted(self, workflow_id: str | None, selection: Selection, after: Position | None) -> list[_Entry]:
        with self._lock:
            if workflow_id is None:
                entries = [
                    (replace(entry.position, workflow=document_id(each)), entry)
                    for each, workflow in self._workflows.items()
                    for entry in workflow.runs.values()
                ]
            else:
                runs = self._workflow(workflow_id).runs.values()
                entries = [(entry.position, entry) for entry in runs]
        selected = {position: entry for position, entry in entries if _is_selected(entry, selection)}
        return _beyond(selected, after, newest_first=selection.order is Order.NEWEST)

    def __repr__(self) -> str:
        """Return how many runs are kept."""
        return (
            f"InMemoryRunLogService(runs={sum(len(workflow.runs) for workflow in self._workflows.values())})"
        )


def create_service(settings: Settings) -> InMemoryRunLogService:
    """Return the back end ``memory``: a run log of its own."""
    return InMemoryRunLogService.from_settings(settings)


def _is_selected(entry: _Entry, selection: Selection) -> bool:
    fields, started_at = entry.fields, entry.position.moment
    labels = fields.get(LABELS, ())
    return (
        (selection.statuses is None or fields["status"] in selection.statuses)
        and (selection.since is None or started_at >= selection.since)
        and (selection.until is None or started_at < selection.until)
        and selection.trigger_type in (None, fields["trigger_type"])
        and all(label_text(*label) in labels for label in selection.labels)
        and (selection.parent is None or fields.get(PARENT) == selection.parent._asdict())
        and selection.error_type in (None, fields.get(ERROR_TYPE))
    )


def _beyond(
    entries: Mapping[Position, _Entry], after: Position | None, *, newest_first: bool
) -> list[_Entry]:
    left = (one for one in entries if after is None or (one < after if newest_first else one > after))
    return [entries[position] for position in sorted(left, reverse=newest_first)]


def _stored(entry: _Entry, key: RunKey) -> StoredRun:
    return StoredRun(
        run=run_from_fields(entry.fields, key),
        version=entry.head.version,
        projection=entry.projection,
        expires_at=expires_at(entry.fields),
    )
