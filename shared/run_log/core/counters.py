"""What a workflow's summary counts: statuses and durations, for all time, by day and by hour.

A counter is a sum over runs of what each contributes by its newest state, so it changes by the difference
between two states, as the stats do: duplicates and order change nothing, and it equals a recount.
"""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final, NamedTuple

from .clock import EPOCH
from .durations import DURATION_BUCKETS, duration_bucket, duration_micros
from .models import RunStatus, WorkflowRun

DAYS_KEPT: Final = 90
"""A summary looks back so many days, the current one among them."""

HOURS_KEPT: Final = 48
"""A summary looks back so many hours, the current one among them."""

# Clocks differ: what one machine still reads, another may not take away yet.
_SPARE_DAYS: Final = 1

_HOUR: Final = timedelta(hours=1)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class Scope(enum.StrEnum):
    """Over which runs a counter counts."""

    ALL = "all"
    DAY = "day"
    """Those that started on one day, in UTC."""
    HOUR = "hour"
    """Those that started in one hour, in UTC."""


class SummaryCounter(NamedTuple):
    """The name of one counter of a workflow."""

    scope: Scope
    slot: int
    """Which hour or day, counted from the epoch; 0 for all time."""
    name: str
    """A status, `MICROS`, or a bucket's (`bucket_name`)."""

    @classmethod
    def stored(cls, scope: str, slot: int, name: str) -> SummaryCounter:
        """Return the counter that a store names so.

        Raises:
            ValueError: There is none: no run has such a status or duration, or started then.
        """
        counter = cls(Scope(scope), slot, name)
        if counter.name not in _names():
            raise ValueError(f"{reprlib.repr(name)} is no name of a counter")
        hours = {Scope.ALL: 0, Scope.DAY: 24, Scope.HOUR: 1}[counter.scope] * slot
        if not hour_of(_FIRST) <= hours <= hour_of(_LAST):
            raise ValueError(f"{slot} is no hour or day")
        return counter


MICROS: Final = "micros"
"""Counts how long runs took, in microseconds."""


@cache
def _names() -> frozenset[str]:
    return frozenset({MICROS, *RunStatus, *map(bucket_name, range(DURATION_BUCKETS))})


@cache
def bucket_name(bucket: int) -> str:
    """Return the name of what counts the runs in a bucket of their durations' histogram."""
    return f"b{bucket}"


def hour_of(moment: datetime) -> int:
    """Return which hour since the epoch *moment*, an aware datetime, is in."""
    return (moment - EPOCH) // _HOUR


def hour_begins(hour: int) -> datetime:
    """Return when an hour since the epoch begins."""
    return EPOCH + hour * _HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """Which days and hours are counted at a moment: those that are read, and one to spare."""

    today: int
    """Days since the epoch."""

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

    def counts(self, counter: SummaryCounter) -> bool:
        """Return whether *counter* is still of use."""
        first = {Scope.ALL: 0, Scope.DAY: self.first_day, Scope.HOUR: 24 * self.first_hours}
        return counter.slot >= first[counter.scope]

    @property
    def last_day(self) -> int:
        """The day after which nothing is counted yet: whoever says it is later has a wrong clock."""
        return self.today + _SPARE_DAYS


class Counted(NamedTuple):
    """What was counted of a run beside its status, to take exactly that away once its state is another."""

    micros: int | None = None
    """Its duration in microseconds; None where that is not among the durations."""
    hour: int | None = None
    """Hours since the epoch; None where it is in no hour and no day."""

    @classmethod
    def of(cls, run: WorkflowRun, horizon: Horizon | None) -> Counted:
        """Return what is counted of *run*.

        Args:
            run: The run's newest state.
            horizon: The days that are counted; None for none.
        """
        hour = hour_of(run.started_at)
        held = horizon is not None and horizon.first_day <= hour // 24 <= horizon.last_day
        return cls(micros=duration_micros(run), hour=hour if held else None)


NOT_COUNTED: Final = Counted()
"""Nothing was: as of a run that was stored before there were summaries."""


def counters_of(
    status: RunStatus, counted: Counted, horizon: Horizon | None
) -> Iterator[tuple[SummaryCounter, int]]:
    """Yield what one run adds to each counter.

    Args:
        status: The run's.
        counted: What of it.
        horizon: The days whose counters are there; what was counted elsewhere is gone. None for none.
    """
    micros, hour = counted
    bucket = None if micros is None else bucket_name(duration_bucket(micros))
    if micros is not None and bucket is not None:
        # How many runs are in which status, for all time, the stats say.
        yield SummaryCounter(Scope.ALL, 0, MICROS), micros
        yield SummaryCounter(Scope.ALL, 0, bucket), 1
    if horizon is None or hour is None:
        return
    day = hour // 24
    for scope, slot, first in (
        (Scope.DAY, day, horizon.first_day),
        (Scope.HOUR, hour, horizon.first_hours),
    ):
        if day >= first:
            yield SummaryCounter(scope, slot, status.value), 1
            if micros is not None and bucket is not None:
                yield SummaryCounter(scope, slot, MICROS), micros
                yield SummaryCounter(scope, slot, bucket), 1


def add_counters(into: dict[SummaryCounter, int], counts: Mapping[SummaryCounter, int]) -> None:
    """Add *counts* to *into*, where nothing stays that is 0."""
    for counter, count in counts.items():
        into[counter] = into.get(counter, 0) + count
        if not into[counter]:
            del into[counter]
