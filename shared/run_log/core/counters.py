"""What a workflow's summary counts: runs by status and by duration, for all time, by day and by hour.

A counter is a sum over runs. It changes by the difference between two states of a run, as the stats do, so
it equals a recount. Durations are counted in a histogram that merges by addition and whose error is stated.
"""

from __future__ import annotations

import bisect
import enum
import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple

from .clock import EPOCH, MICROSECOND
from .json_form import duration_json
from .models import RunStatus, WorkflowRun

RELATIVE_ERROR: Final = 0.05
"""The most that a quantile differs from the true duration, as a share of it."""

RESOLUTION: Final = timedelta(microseconds=10)
"""The most that a quantile differs from the true duration where `RELATIVE_ERROR` of it would be less."""

MAX_DURATION: Final = timedelta(days=3_653)
"""A longer run counts as one of ten years."""

# A summary looks back this far, the current day or hour included.
DAYS_KEPT: Final = 90
HOURS_KEPT: Final = 48

# Clocks differ: a day that one machine still reads must not be deleted by another.
_SPARE_DAYS: Final = 1

_HOUR: Final = timedelta(hours=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def _bounds() -> list[int]:
    """Return the longest duration of each bucket, in microseconds."""
    # Each is (1 + e) / (1 - e) times the one below, where e is the error (Masson, Rim and Lee, DDSketch,
    # VLDB 2019). In whole numbers: a logarithm may be rounded to either side of a bound on another machine.
    # Then a run that was added to one bucket would be taken out of its neighbour.
    percent = round(100 * RELATIVE_ERROR)
    last = MAX_DURATION // MICROSECOND
    bounds = [RESOLUTION // MICROSECOND]
    while bounds[-1] < last:
        grown = bounds[-1] * (100 + percent) // (100 - percent)
        bounds.append(min(max(grown, bounds[-1] + 1), last))
    return bounds


_BOUNDS: Final = _bounds()

DURATION_BUCKETS: Final = len(_BOUNDS)


def duration_bucket(micros: int) -> int:
    """Return the bucket that counts a duration of so many microseconds. It is the same on every machine."""
    return min(bisect.bisect_left(_BOUNDS, micros), DURATION_BUCKETS - 1)


def duration_micros(run: WorkflowRun) -> int | None:
    """Return how long *run* took in microseconds, at most `MAX_DURATION`; None if it has no duration.

    That is its ``duration_ms``, or, where that is 0, the time between its start and its end.
    """
    # A skipped run did nothing.
    if run.status not in (RunStatus.SUCCESS, RunStatus.FAILED):
        return None
    if run.duration_ms > 0:
        micros = run.duration_ms * 1_000
    elif run.completed_at is not None:
        micros = max((run.completed_at - run.started_at) // MICROSECOND, 0)
    else:
        return None
    return round(min(micros, MAX_DURATION // MICROSECOND))


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long the runs took that succeeded or failed."""

    count: int = 0
    """Runs whose duration is known."""
    total: timedelta = timedelta(0)
    """The sum of their durations, exactly."""
    buckets: Mapping[int, int] = field(default_factory=dict[int, int])
    """Runs in each bucket of `duration_bucket`; empty buckets are absent."""

    @property
    def mean(self) -> timedelta | None:
        """The mean, exactly; None without runs."""
        return self.total / self.count if self.count else None

    @property
    def p50(self) -> timedelta | None:
        """The median; see `quantile`."""
        return self.quantile(0.5)

    @property
    def p95(self) -> timedelta | None:
        """The duration that 95 % of the runs did not exceed; see `quantile`."""
        return self.quantile(0.95)

    @property
    def p99(self) -> timedelta | None:
        """The duration that 99 % of the runs did not exceed; see `quantile`."""
        return self.quantile(0.99)

    def to_json(self) -> dict[str, Any]:
        """Return the durations as JSON: how many, and their mean and percentiles in milliseconds."""
        return {
            "count": self.count,
            "mean_ms": duration_json(self.mean),
            "p50_ms": duration_json(self.p50),
            "p95_ms": duration_json(self.p95),
            "p99_ms": duration_json(self.p99),
        }

    def quantile(self, share: float) -> timedelta | None:
        """Return the shortest duration that *share* of the runs did not exceed; None without runs.

        It is exact but for `RELATIVE_ERROR` of it, or `RESOLUTION`.

        Raises:
            ValueError: *share* is not within 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}, not within 0 and 1")
        # Rounded first: 0.56 of 75 is 42, but slightly more in floating point.
        rank = max(math.ceil(round(share * self.count, 6)), 1)
        for bucket, count in sorted(self.buckets.items()):
            rank -= count
            if rank <= 0:
                return _middle(bucket)
        return None


def _middle(bucket: int) -> timedelta:
    if bucket == 0:
        return RESOLUTION / 2
    # Not the mean: of this one, the bucket's shortest and longest duration differ by the same share.
    shortest, longest = _BOUNDS[bucket - 1] + 1, _BOUNDS[bucket]
    return 2 * shortest * longest / (shortest + longest) * MICROSECOND


class Scope(enum.StrEnum):
    """Which runs a counter counts: all, or those that started on one day or in one hour, in UTC."""

    ALL = "all"
    DAY = "day"
    HOUR = "hour"

    @property
    def hours(self) -> int:
        """How many hours a slot of it has; 0 for all time, which has one slot."""
        return {Scope.ALL: 0, Scope.DAY: 24, Scope.HOUR: 1}[self]


class SummaryCounter(NamedTuple):
    """The name of one counter of a workflow."""

    scope: Scope
    slot: int
    """The hour or day, counted from the epoch; 0 for all time."""
    name: str
    """A status, `MICROS`, or the name of a bucket (`bucket_name`)."""

    @classmethod
    def stored(cls, scope: str, slot: int, name: str) -> SummaryCounter:
        """Return the counter that a store has under this name. ValueError if no run can be counted there."""
        counter = cls(Scope(scope), slot, name)
        if counter.name not in _names():
            raise ValueError(f"{reprlib.repr(name)} is not the name of a counter")
        if not hour_of(_FIRST) <= counter.scope.hours * slot <= hour_of(_LAST):
            raise ValueError(f"{slot} is not an hour or day of the years 1 to 9999")
        return counter


MICROS: Final = "micros"
"""The name of the counter that sums up how long runs took, in microseconds."""


@cache
def _names() -> frozenset[str]:
    return frozenset({MICROS, *RunStatus, *map(bucket_name, range(DURATION_BUCKETS))})


def bucket_name(bucket: int) -> str:
    """Return the name of the counter of the runs in a bucket of the histogram."""
    return f"b{bucket}"


def hour_of(moment: datetime) -> int:
    """Return the hour since the epoch that *moment*, an aware datetime, is in."""
    # Rounded down, also before the epoch: an hour belongs to one day.
    return (moment - EPOCH) // _HOUR


def hour_begins(hour: int) -> datetime:
    """Return when an hour since the epoch begins."""
    return EPOCH + hour * _HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """The days and hours that are counted at a moment: those that a summary reads, and one day more."""

    today: int
    """Days since the epoch, like all of these."""

    @classmethod
    def at(cls, now: datetime) -> Horizon:
        """Return the horizon at *now*, an aware datetime."""
        return cls(today=hour_of(now) // 24)

    @property
    def first_day(self) -> int:
        """The oldest day that is counted."""
        return self.today - DAYS_KEPT - _SPARE_DAYS

    @property
    def first_hours(self) -> int:
        """The oldest day whose hours are counted."""
        return self.today - HOURS_KEPT // 24 - _SPARE_DAYS

    @property
    def last_day(self) -> int:
        """The newest day that is counted. A run that starts later comes from a wrong clock."""
        return self.today + _SPARE_DAYS

    def counts(self, counter: SummaryCounter) -> bool:
        """Return whether *counter* is within the horizon."""
        first = {Scope.ALL: 0, Scope.DAY: self.first_day, Scope.HOUR: 24 * self.first_hours}
        return counter.slot >= first[counter.scope]


class Counted(NamedTuple):
    """What was counted of a run besides its status: exactly this is subtracted when its state changes."""

    micros: int | None = None
    """The run's duration in microseconds; None if it is not among the durations."""
    hour: int | None = None
    """Hours since the epoch; None if the run is not counted in an hour and a day."""

    @classmethod
    def of(cls, run: WorkflowRun, horizon: Horizon | None) -> Counted:
        """Return what is counted of *run*, in its newest state. A *horizon* of None has no days."""
        hour = hour_of(run.started_at)
        held = horizon is not None and horizon.first_day <= hour // 24 <= horizon.last_day
        return cls(micros=duration_micros(run), hour=hour if held else None)


NOT_COUNTED: Final = Counted()
"""Nothing was counted: the run was stored before there were summaries, for example."""


def counters_of(
    status: RunStatus, counted: Counted, horizon: Horizon | None
) -> Iterator[tuple[SummaryCounter, int]]:
    """Yield what one run adds to each counter of *horizon*; None has no days."""
    micros, hour = counted
    durations: dict[str, int] = {}
    if micros is not None:
        durations = {MICROS: micros, bucket_name(duration_bucket(micros)): 1}
    # No status here: the stats already count them for all time.
    yield from _each(Scope.ALL, 0, durations)
    if horizon is None or hour is None:
        return
    # Counters of days beyond the horizon are deleted, so a run adds nothing to them.
    if hour // 24 >= horizon.first_day:
        yield from _each(Scope.DAY, hour // 24, {status.value: 1, **durations})
    if hour // 24 >= horizon.first_hours:
        yield from _each(Scope.HOUR, hour, {status.value: 1, **durations})


def _each(scope: Scope, slot: int, counts: Mapping[str, int]) -> Iterator[tuple[SummaryCounter, int]]:
    for name, count in counts.items():
        yield SummaryCounter(scope, slot, name), count


def add_counters(into: dict[SummaryCounter, int], counts: Mapping[SummaryCounter, int]) -> None:
    """Add *counts* to *into*. A counter that becomes 0 is removed."""
    for counter, count in counts.items():
        into[counter] = into.get(counter, 0) + count
        if not into[counter]:
            del into[counter]
