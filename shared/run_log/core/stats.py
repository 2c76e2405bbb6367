"""How a workflow's stats change when its runs do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .models import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsDelta:
    """How a workflow's stats change. Changes add up, so a batch is one change."""

    total: int = 0
    """Distinct runs."""
    successful: int = 0
    """Runs whose newest state is success. It may be negative, as the next ones may."""
    by_status: Mapping[RunStatus, int] = field(default_factory=dict[RunStatus, int])
    """Runs in each status. Statuses that do not change are absent."""

    @classmethod
    def between(cls, before: RunStatus | None, after: RunStatus) -> StatsDelta:
        """Return the change when a run goes from *before* (None for a new run) to *after*."""
        if before is after:
            return cls()
        by_status = {after: 1} if before is None else {after: 1, before: -1}
        return cls(
            total=int(before is None),
            successful=by_status.get(RunStatus.SUCCESS, 0),
            by_status=by_status,
        )

    @classmethod
    def sum(cls, deltas: Iterable[StatsDelta]) -> StatsDelta:
        """Return the sum of *deltas*."""
        total = successful = 0
        by_status = Counter[RunStatus]()
        for delta in deltas:
            total += delta.total
            successful += delta.successful
            by_status.update(delta.by_status)
        return cls(
            total=total,
            successful=successful,
            by_status={status: count for status, count in by_status.items() if count},
        )

    def __add__(self, other: StatsDelta) -> StatsDelta:
        """Return the sum of both changes."""
        return StatsDelta.sum((self, other))

    def __bool__(self) -> bool:
        """Return whether anything changes."""
        return bool(self.total or self.successful or self.by_status)


def count_statuses(statuses: Iterable[RunStatus]) -> StatsDelta:
    """Return the stats of distinct runs with these statuses: the recount that stored stats must equal."""
    return StatsDelta.sum(StatsDelta.between(None, status) for status in statuses)
