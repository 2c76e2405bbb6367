"""How long ended runs are kept, and which events are refused so that no deleted run comes back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from run_log.core import ConfigurationError, RunEvent, RunExpiredError
from run_log.core.law import RunChange, RunHead
from run_log.core.models import RunKey

MAX_RETENTION_DAYS: Final = 36_500

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long ended runs are kept. Runs that are under way or paused never expire.

    A run expires that long after its latest event. An event of a deleted run that is delivered again is older
    than that too, so it is known to be too late although nothing of the run is left.
    """

    keeps: timedelta

    @classmethod
    def of_days(cls, days: int | None) -> Retention | None:
        """Return the retention of so many days; None keeps every run.

        Raises:
            ConfigurationError: *days* is not within 1 and `MAX_RETENTION_DAYS`.
        """
        if days is None:
            return None
        if not 1 <= days <= MAX_RETENTION_DAYS:
            raise ConfigurationError(f"retention_days is {days}, not within 1 and {MAX_RETENTION_DAYS}")
        return cls(keeps=timedelta(days=days))

    def expires_at(self, head: RunHead) -> datetime | None:
        """Return when a run with this head expires; None where it never does."""
        if not head.status.is_terminal:
            return None
        return self._end(max(transition.occurred_at for transition in head.history))

    def is_over(self, events: Iterable[RunEvent], now: datetime) -> bool:
        """Return whether all of *events* are so old that their run may have been there, and expired."""
        return all(self._end(event.occurred_at) <= now for event in events)

    def error(self, key: RunKey) -> RunExpiredError:
        """Return the error for events that are too old, of a run that is not there."""
        return RunExpiredError(
            f"the event of run {key[1]!r} of workflow {key[0]!r} is older than {self.keeps.days} days, for "
            "which ended runs are kept, and the run is not there; raise RUN_LOG_RETENTION_DAYS to take it"
        )

    def check_not_revived(self, key: RunKey, change: RunChange, now: datetime) -> None:
        """Check that a run does not get the state of an earlier run with its id, which may have been deleted.

        Such a state is as old as what was deleted, and older than the events of the run that is there.
        Inferred events say nothing about when a run was there.

        Raises:
            RunExpiredError: It gets a state that may be an earlier run's.
        """
        winner = change.winner
        if winner is None or not self.is_over([winner], now):
            return
        observed = (transition for transition in change.after.history if not transition.inferred)
        if any(winner.occurred_at < transition.occurred_at for transition in observed):
            raise RunExpiredError(
                f"the event of run {key[1]!r} of workflow {key[0]!r} is older than {self.keeps.days} days, "
                "for which ended runs are kept, and than other events of the run: it may be of an earlier "
                "run with that id; raise RUN_LOG_RETENTION_DAYS to take it"
            )

    def _end(self, moment: datetime) -> datetime:
        try:
            return moment + self.keeps
        except OverflowError:
            return _NEVER


def check_not_expired(key: RunKey, expires_at: datetime | None, now: datetime) -> None:
    """Check that a run which is there can still change.

    Raises:
        RunExpiredError: It has expired, and is about to be deleted.
    """
    if expires_at is not None and expires_at <= now:
        raise RunExpiredError(
            f"run {key[1]!r} of workflow {key[0]!r} expired at {expires_at.isoformat()} and takes no event "
            "any more; give what runs now another id"
        )
