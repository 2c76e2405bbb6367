"""How long runs took: a histogram that merges by addition, with a stated error."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from .clock import MICROSECOND
from .models import RunStatus, WorkflowRun

RELATIVE_ERROR: Final = 0.05
"""How far a quantile is from the duration it stands for, at most, as a share of it."""

RESOLUTION: Final = timedelta(microseconds=10)
"""How far a quantile is from the duration it stands for, at most, where that is more than its share."""

MAX_DURATION: Final = timedelta(days=3_653)
"""A longer run counts as one of ten years."""


def _bounds() -> list[int]:
    """Return the longest duration of each bucket, in microseconds.

    Each is (1 + e) / (1 - e) of the one below, e being the error (Masson, Rim and Lee, DDSketch, VLDB 2019).
    In whole numbers: a logarithm may fall on either side of a bound on another machine, and what was counted
    in one bucket would be taken out of its neighbour.
    """
    percent = round(100 * RELATIVE_ERROR)
    last = MAX_DURATION // MICROSECOND
    bounds = [RESOLUTION // MICROSECOND]
    while bounds[-1] < last:
        grown = bounds[-1] * (100 + percent) // (100 - percent)
        bounds.append(min(max(grown, bounds[-1] + 1), last))
    return bounds


_BOUNDS: Final = _bounds()

DURATION_BUCKETS: Final = len(_BOUNDS)
"""How many buckets a histogram has at most."""


def duration_bucket(micros: int) -> int:
    """Return which bucket counts a duration of so many microseconds: the same on every machine."""
    return min(bisect.bisect_left(_BOUNDS, micros), DURATION_BUCKETS - 1)


def duration_micros(run: WorkflowRun) -> int | None:
    """Return how long *run* took in microseconds, at most `MAX_DURATION`; None where nobody can say.

    Of runs that succeeded or failed: one that was skipped did nothing. Its ``duration_ms`` counts; where that
    is 0, the time between its start and its end.
    """
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
    """How many there are whose duration is known."""
    total: timedelta = timedelta(0)
    """All of them together, exactly."""
    buckets: Mapping[int, int] = field(default_factory=dict[int, int])
    """How many fell into each bucket of `duration_bucket`; empty ones are absent."""

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
        """What 95 % of the runs took at most; see `quantile`."""
        return self.quantile(0.95)

    @property
    def p99(self) -> timedelta | None:
        """What 99 % of the runs took at most; see `quantile`."""
        return self.quantile(0.99)

    def quantile(self, share: float) -> timedelta | None:
        """Return the shortest duration that *share* of the runs took at most; None without runs.

        At most `RELATIVE_ERROR` of that duration away from it, or `RESOLUTION`.

        Args:
            share: Between 0 and 1.

        Raises:
            ValueError: *share* is not.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}, not within 0 and 1")
        # Rounded first: 0.56 of 75 is 42, in floating point a little more.
        rank = max(math.ceil(round(share * self.count, 6)), 1)
        for bucket, count in sorted(self.buckets.items()):
            rank -= count
            if rank <= 0:
                return _middle(bucket)
        return None


def _middle(bucket: int) -> timedelta:
    """Return the duration that is as far, as a share, from the bucket's shortest as from its longest."""
    if bucket == 0:
        return RESOLUTION / 2
    shortest, longest = _BOUNDS[bucket - 1] + 1, _BOUNDS[bucket]
    return 2 * shortest * longest / (shortest + longest) * MICROSECOND
