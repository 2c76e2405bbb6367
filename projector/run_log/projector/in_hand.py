"""What a projector tells of itself: counters, the lag, and the progress that health checks look at."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Protocol

from opentelemetry import metrics

from run_log.core import DeadLetterReason, Outcome

_meter: Final = metrics.get_meter("run_log.projector")
_events: Final = _meter.create_counter(
    "run_log.projector.events", unit="{event}", description="Events by what became of them"
)
_dead_letters: Final = _meter.create_counter(
    "run_log.projector.dead_letters", unit="{message}", description="Messages dead-lettered, by reason"
)
_cut_letters: Final = _meter.create_counter(
    "run_log.projector.dead_letters.cut",
    unit="{message}",
    description="Messages of which the dead letter is not all",
)
_returned: Final = _meter.create_counter(
    "run_log.projector.returned", unit="{message}", description="Messages to be delivered again"
)
_batch: Final = _meter.create_histogram(
    "run_log.projector.batch.events", unit="{event}", description="Events projected together"
)
_in_hand: Final = _meter.create_up_down_counter(
    "run_log.projector.in_hand", unit="{message}", description="Messages taken and not yet settled"
)


class _Lagging(Protocol):
    def oldest_age(self) -> float: ...


_watched: Final[weakref.WeakSet[_Lagging]] = weakref.WeakSet()


def _observe_lag(_options: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
    ages = [progress.oldest_age() for progress in list(_watched)]
    return [metrics.Observation(max(ages))] if ages else []


_meter.create_observable_gauge(
    "run_log.projector.lag",
    [_observe_lag],
    unit="s",
    description="Age of the oldest message in hand, since it was published",
)


def _add(counter: metrics.Counter | metrics.UpDownCounter, amount: int, **labels: str) -> None:
    # A metric may be any code: what it raises must cost no message its fate.
    with contextlib.suppress(Exception):
        counter.add(amount, labels)


def count_events(outcomes: Iterable[Outcome]) -> None:
    """Count one batch of projected events by *outcomes*."""
    counts = dict.fromkeys(Outcome, 0)
    for outcome in outcomes:
        counts[outcome] += 1
    for outcome, count in counts.items():
        if count:
            _add(_events, count, outcome=outcome.value)
    with contextlib.suppress(Exception):
        _batch.record(sum(counts.values()))


def count_dead_letter(reason: DeadLetterReason) -> None:
    """Count one message that is kept among the dead letters."""
    _add(_dead_letters, 1, reason=reason.value)


def count_cut_letter() -> None:
    """Count one message of which not all is kept."""
    _add(_cut_letters, 1)


class Progress:
    """What a projector has in hand, for how long, and whether anything moves.

    Args:
        now: Monotonic seconds.
        utc_now: The wall clock, to tell how old a message is.
    """

    def __init__(
        self, *, now: Callable[[], float], utc_now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._now = now
        self._utc_now = utc_now
        self._published: dict[int, datetime | None] = {}
        self._moved_at = now()
        self.in_hand_bytes = 0
        _watched.add(self)

    @property
    def in_hand(self) -> int:
        """Messages taken and not yet settled."""
        return len(self._published)

    def has(self, token: int) -> bool:
        """Return whether the message of *token* is in hand."""
        return token in self._published

    def taken(self, token: int, published_at: datetime | None, size: int) -> None:
        """Count a message that is in hand from now on, under any *token* of its own."""
        if not self._published:
            self._moved_at = self._now()
        self._published[token] = published_at
        self.in_hand_bytes += size
        _add(_in_hand, 1)

    def settled(self, token: int, size: int, *, returned: bool) -> None:
        """Count the message of *token* as no longer in hand."""
        del self._published[token]
        self.in_hand_bytes -= size
        self._moved_at = self._now()
        _add(_in_hand, -1)
        if returned:
            _add(_returned, 1)

    def oldest_age(self) -> float:
        """Return the seconds since the oldest message in hand was published; 0 with nothing in hand."""
        # As a list at once: a reader of metrics asks in a thread of its own.
        published = [moment for moment in list(self._published.values()) if moment is not None]
        if not published:
            return 0.0
        return max(0.0, (self._utc_now() - min(published)).total_seconds())

    def stuck_for(self) -> float:
        """Return the seconds for which something was in hand and nothing was settled."""
        return self._now() - self._moved_at if self._published else 0.0
