"""A workflow at a glance: how many runs, how they ended, how long they took, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from run_log.core import InvalidArgumentError, RunStatus, StoreError, WorkflowRun
from run_log.core.clock import MICROSECOND
from run_log.core.counters import (
    DAYS_KEPT,
    HOURS_KEPT,
    MICROS,
    Durations,
    Scope,
    SummaryCounter,
    hour_begins,
    hour_of,
)
from run_log.core.json_form import duration_json, time_json

MAX_WINDOW: Final = timedelta(days=DAYS_KEPT)
"""The longest time a summary looks back, other than to the beginning."""

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
# No datetime is earlier, so no window begins before.
_FIRST_HOUR: Final = hour_of(datetime.min.replace(tzinfo=UTC))

_STATUSES: Final = {status.value: status for status in RunStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStats:
    """How many runs a workflow has."""

    workflow_id: str
    total: int = 0
    """Distinct runs."""
    successful: int = 0
    """Runs whose newest state is success."""
    by_status: Mapping[RunStatus, int] = field(default_factory=dict[RunStatus, int])
    """Runs whose newest state is that; statuses without runs are absent."""
    as_of: datetime | None = None
    """How far the projection has come, at least: when the latest event happened that came with a change of
    these counts, on its emitter's clock. None where that is not known."""

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON."""
        return {
            "workflow_id": self.workflow_id,
            "total": self.total,
            "successful": self.successful,
            "by_status": _by_status(self.by_status),
            "as_of": time_json(self.as_of),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBucket:
    """The runs that started in one hour, or on one day, in UTC."""

    begins: datetime
    """When it begins."""
    width: timedelta
    """An hour or a day."""
    by_status: Mapping[RunStatus, int]
    """Runs whose newest state is that; statuses without runs are absent."""
    durations: Durations
    """How long those took that succeeded or failed."""

    @property
    def total(self) -> int:
        """How many runs started in it."""
        return sum(self.by_status.values())

    def to_json(self) -> dict[str, Any]:
        """Return the bucket as JSON: its width and its durations are milliseconds."""
        return {
            "begins": time_json(self.begins),
            "width_ms": duration_json(self.width),
            "total": self.total,
            "by_status": _by_status(self.by_status),
            "durations": self.durations.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSummary:
    """A workflow at a glance."""

    workflow_id: str
    since: datetime | None
    """The counts and durations are of the runs that started then or later; None: of all that ever were."""
    total: int
    """Distinct runs."""
    by_status: Mapping[RunStatus, int]
    """Runs whose newest state is that; statuses without runs are absent."""
    durations: Durations
    """How long those took that succeeded or failed."""
    buckets: Sequence[TimeBucket]
    """The same by hour or day, the oldest first, without gaps; the last one is the current."""
    last_run: WorkflowRun | None
    """The run that started last, whenever that was."""
    last_success: WorkflowRun | None
    """Of the runs whose newest state is success, the one that started last, whenever that was."""
    last_failure: WorkflowRun | None
    """Of the runs whose newest state is failed, the one that started last, whenever that was."""
    as_of: datetime | None
    """How far the projection has come, at least; see `WorkflowStats.as_of`."""

    @property
    def success_rate(self) -> float | None:
        """The share of successes among the runs that succeeded or failed, 0 to 1; None without such."""
        successful = self.by_status.get(RunStatus.SUCCESS, 0)
        ended = successful + self.by_status.get(RunStatus.FAILED, 0)
        return successful / ended if ended else None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON, with its buckets and its last runs."""
        return {
            "workflow_id": self.workflow_id,
            "since": time_json(self.since),
            "total": self.total,
            "by_status": _by_status(self.by_status),
            "success_rate": self.success_rate,
            "durations": self.durations.to_json(),
            "buckets": [bucket.to_json() for bucket in self.buckets],
            "last_run": self.last_run and self.last_run.to_json(),
            "last_success": self.last_success and self.last_success.to_json(),
            "last_failure": self.last_failure and self.last_failure.to_json(),
            "as_of": time_json(self.as_of),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryWindow:
    """Which hours or days a summary is about."""

    scope: Scope
    """`Scope.HOUR` or `Scope.DAY`: what its buckets are."""
    first: int
    """The oldest of them, counted from the epoch."""
    last: int
    """The current one."""
    is_whole: bool
    """Whether the counts are of all the runs there ever were, and the buckets alone of the window."""

    @classmethod
    def of(cls, window: object, now: datetime) -> SummaryWindow:
        """Return the window that looks back so far from *now*, in whole hours or days with the current one.

        Up to `HOURS_KEPT` they are hours, beyond that days, up to `MAX_WINDOW`; None is to the beginning.

        Raises:
            InvalidArgumentError: *window* is no such time.
        """
        hour = hour_of(now)
        if window is None:
            first = max(hour // 24 - DAYS_KEPT + 1, _FIRST_HOUR // 24)
            return cls(scope=Scope.DAY, first=first, last=hour // 24, is_whole=True)
        if not isinstance(window, timedelta) or not timedelta(0) < window <= MAX_WINDOW:
            raise InvalidArgumentError(
                f"window is {window!r}; pass a timedelta above 0 and of {MAX_WINDOW} at most, or None for all"
            )
        is_short = window <= HOURS_KEPT * _HOUR
        scope, last, width = (Scope.HOUR, hour, _HOUR) if is_short else (Scope.DAY, hour // 24, _DAY)
        first = max(last + 1 - -(-window // width), _FIRST_HOUR * _HOUR // width)
        return cls(scope=scope, first=first, last=last, is_whole=False)

    def includes(self, counter: SummaryCounter) -> bool:
        """Return whether the summary's counts and durations are made of *counter*.

        What started after the present, by a clock that is ahead, belongs to them as it does to a listing.
        """
        if self.is_whole:
            return counter.scope is Scope.ALL
        return counter.scope is self.scope and counter.slot >= self.first

    def buckets(self, counters: Mapping[SummaryCounter, int]) -> list[TimeBucket]:
        """Return every bucket of the window, the oldest first, also those without runs."""
        own: dict[int, dict[SummaryCounter, int]] = {}
        for counter, count in counters.items():
            if counter.scope is self.scope:
                own.setdefault(counter.slot, {})[counter] = count
        return [
            TimeBucket(
                begins=hour_begins(slot * self.scope.hours),
                width=self.scope.hours * _HOUR,
                by_status=statuses_of(own.get(slot, {})),
                durations=durations_of(own.get(slot, {})),
            )
            for slot in range(self.first, self.last + 1)
        ]

    @property
    def since(self) -> datetime:
        """When the window begins."""
        return hour_begins(self.first * self.scope.hours)


def _by_status(counts: Mapping[RunStatus, int]) -> dict[str, int]:
    return {status.value: count for status, count in counts.items()}


def statuses_of(counters: Mapping[SummaryCounter, int]) -> dict[RunStatus, int]:
    """Return the counts of runs in each status among *counters*, whatever their scope."""
    found: Counter[RunStatus] = Counter()
    for counter, count in counters.items():
        if counter.name in _STATUSES:
            found[_STATUSES[counter.name]] += count
    return dict(found)


def durations_of(counters: Mapping[SummaryCounter, int]) -> Durations:
    """Return the durations among *counters*, whatever their scope."""
    micros = 0
    buckets: Counter[int] = Counter()
    for counter, count in counters.items():
        if counter.name == MICROS:
            micros += count
        elif counter.name not in _STATUSES:
            buckets[int(counter.name[1:])] += count
    try:
        total = micros * MICROSECOND
    except OverflowError as error:
        raise StoreError(f"a summary is damaged: runs took {micros} microseconds together") from error
    return Durations(
        count=sum(buckets.values()),
        total=total,
        buckets={bucket: count for bucket, count in buckets.items() if count},
    )


def summary_of(
    stats: WorkflowStats,
    counters: Mapping[SummaryCounter, int],
    window: SummaryWindow,
    newest: Sequence[WorkflowRun | None],
) -> WorkflowSummary:
    """Return the summary of a workflow, given its last run, its last success and its last failure."""
    own = {counter: count for counter, count in counters.items() if window.includes(counter)}
    by_status = stats.by_status if window.is_whole else statuses_of(own)
    last_run, last_success, last_failure = newest
    return WorkflowSummary(
        workflow_id=stats.workflow_id,
        since=None if window.is_whole else window.since,
        total=stats.total if window.is_whole else sum(by_status.values()),
        by_status=by_status,
        durations=durations_of(own),
        buckets=window.buckets(counters),
        last_run=last_run,
        last_success=last_success,
        last_failure=last_failure,
        as_of=stats.as_of,
    )
