"""A workflow's counts by name: those that are stored, and those that a recount of its runs gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from run_log.core import RunStatus
from run_log.core.counters import Horizon, Scope, SummaryCounter, add_counters, counters_of, hour_begins
from run_log.core.stats import StatsDelta

from .port import RunRecord, StoredCounts

Figures = Mapping[SummaryCounter, int]
"""A workflow's counts; what is absent is 0."""

TOTAL: Final = SummaryCounter(Scope.ALL, 0, "total")
SUCCESSFUL: Final = SummaryCounter(Scope.ALL, 0, "successful")

# How far one machine's clock may be from another's, as the summaries allow.
_CLOCKS_DIFFER: Final = timedelta(days=1)

_STATUSES: Final = {status.value: status for status in RunStatus}
_ALL_TIME: Final = {status: SummaryCounter(Scope.ALL, 0, status.value) for status in RunStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class CountName:
    """Which runs one count of a workflow counts."""

    scope: Scope
    """All of them, or those of an hour or a day."""
    begins: datetime | None
    """When the hour or day begins, in UTC; None for all time."""
    name: str
    """``total``, ``successful``, a status, ``micros`` (how long runs took), or a bucket of durations."""

    @classmethod
    def of(cls, counter: SummaryCounter) -> Self:
        """Return how *counter* is called."""
        begins = hour_begins(counter.slot * counter.scope.hours) if counter.scope.hours else None
        return cls(scope=counter.scope, begins=begins, name=counter.name)

    def __str__(self) -> str:
        """Return it for people."""
        if self.begins is None:
            return self.name
        return f"{self.name} {self.begins:%Y-%m-%d}" + (f" {self.begins:%H}h" * (self.scope is Scope.HOUR))


def checked_horizon(now: datetime) -> Horizon:
    """Return which days and hours are checked: those that still count tomorrow."""
    # A writer goes by its own clock, which may be a day ahead, and deletes what is over by that.
    return Horizon.at(now + _CLOCKS_DIFFER)


def stored_figures(counts: StoredCounts, horizon: Horizon) -> dict[SummaryCounter, int]:
    """Return the stored counts that are within *horizon*."""
    figures = {counter: count for counter, count in counts.counters.items() if horizon.counts(counter)}
    figures |= {_ALL_TIME[status]: count for status, count in counts.by_status.items()}
    figures |= {TOTAL: counts.total, SUCCESSFUL: counts.successful}
    return {counter: count for counter, count in figures.items() if count}


class Recount:
    """Counts a workflow's runs anew, one by one, within *horizon*, by what their documents say."""

    def __init__(self, horizon: Horizon) -> None:
        self._horizon = horizon
        self.figures: dict[SummaryCounter, int] = {}
        self.runs = 0
        self.uncounted = 0
        """Runs that are so damaged that nobody knows what they are counted as."""
        self.workflow_id: str | None = None
        """As a run says it."""
        self.as_of: datetime | None = None
        """When the newest event of all runs happened."""
        self.shortest_retention: timedelta | None = None
        """Of the runs that expire, the shortest time from the latest event to that; None without any."""

    def add(self, record: RunRecord) -> None:
        """Count one run."""
        self.runs += 1
        if record.stored is None:
            self.uncounted += 1
            return
        head = record.stored.head
        if record.problem is None:
            self.workflow_id = record.key[0]
        own = {TOTAL: 1, _ALL_TIME[head.status]: 1}
        if head.status is RunStatus.SUCCESS:
            own[SUCCESSFUL] = 1
        add_counters(self.figures, own)
        add_counters(self.figures, dict(counters_of(head.status, head.counted, self._horizon)))
        if not head.history:
            return
        latest = max(transition.occurred_at for transition in head.history)
        self.as_of = max(self.as_of or latest, latest)
        if record.stored.expires_at is not None:
            kept = record.stored.expires_at - latest
            self.shortest_retention = min(self.shortest_retention or kept, kept)


def expected_figures(
    stored: Figures, recounted: Figures, *, retention: timedelta | None, now: datetime
) -> dict[SummaryCounter, int]:
    """Return what should be stored, given a recount of the runs that are still there.

    A run that has expired stays counted, and leaves no trace when it is deleted. So where runs may have been
    deleted, a stored count may be higher than the recount. Such runs had ended, and began before all that are
    kept. *retention* is the shortest time for which runs may have been kept; None where all are.
    """
    if retention is None:
        return dict(recounted)
    try:
        oldest = now - retention + _CLOCKS_DIFFER
    except OverflowError:  # a damaged document expires thousands of years before, or after, its latest event
        oldest = (
            datetime.max.replace(tzinfo=UTC) if retention < timedelta(0) else datetime.min.replace(tzinfo=UTC)
        )
    expected = {
        counter: max(stored.get(counter, 0), recounted.get(counter, 0))
        if _may_lack_runs(counter, oldest)
        else recounted.get(counter, 0)
        for counter in {**stored, **recounted}
    }
    by_status = {status: expected.get(counter, 0) for status, counter in _ALL_TIME.items()}
    expected[TOTAL], expected[SUCCESSFUL] = sum(by_status.values()), by_status[RunStatus.SUCCESS]
    return {counter: count for counter, count in expected.items() if count}


def differing(left: Figures, right: Figures) -> list[tuple[SummaryCounter, int, int]]:
    """Return the counters that are not the same in both, in order, each with its two counts."""
    both = ((counter, left.get(counter, 0), right.get(counter, 0)) for counter in {**left, **right})
    return sorted(one for one in both if one[1] != one[2])


def delta_of(changes: Figures) -> tuple[StatsDelta, dict[SummaryCounter, int]]:
    """Return *changes* of figures as those of stats, and of the summary's counters."""
    counters = dict(changes)
    total, successful = counters.pop(TOTAL, 0), counters.pop(SUCCESSFUL, 0)
    by_status = {
        status: counters.pop(counter) for status, counter in _ALL_TIME.items() if counter in counters
    }
    return StatsDelta(total=total, successful=successful, by_status=by_status), counters


def _may_lack_runs(counter: SummaryCounter, oldest: datetime) -> bool:
    if counter.name in _STATUSES and not _STATUSES[counter.name].is_terminal:
        return False
    begins = CountName.of(counter).begins
    return begins is None or begins < oldest
