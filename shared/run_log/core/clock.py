"""The hybrid logical clock that orders events without trusting any machine's time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from .errors import WriteRefusedError
from .forks import renewed

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

MAX_HLC: Final = 2**62
"""Readings stay below this, so that one more always fits a 64-bit integer."""

MAX_AHEAD: Final = 60_000_000
"""How far ahead of its own machine's time a clock follows what it observes, in microseconds: a minute."""

MAX_RUNS_AHEAD: Final = 1_000
"""Runs remembered to be stored further ahead than that, of those that were observed last."""


def utc_now() -> datetime:
    """Return the machine's time as an aware datetime in UTC."""
    return datetime.now(UTC)


def epoch_micros() -> int:
    """Return the machine's time in microseconds since the epoch."""
    return time.time_ns() // 1_000


def micros_of(moment: datetime) -> int:
    """Return *moment*, which is aware, as whole microseconds since the epoch. Nothing of it is lost."""
    return (moment - EPOCH) // MICROSECOND


def moment_of(micros: int) -> datetime:
    """Return the moment, in UTC, that `micros_of` was given.

    Raises:
        OverflowError: There is none in years 1 to 9999.
    """
    return EPOCH + micros * MICROSECOND


def hlc_after(hlc: int, run: tuple[str, str]) -> int:
    """Return the reading just past *hlc*, for the run with this key, which has come as far as that.

    Raises:
        WriteRefusedError: There is none below `MAX_HLC`.
    """
    if hlc >= MAX_HLC - 1:
        raise WriteRefusedError(
            f"run {run[1]!r} of workflow {run[0]!r} is stored in the last version that there is, so that "
            "nothing can come after it; go on with it as its next attempt"
        )
    return max(hlc + 1, 0)


class HybridLogicalClock:
    """Microseconds since the epoch that strictly increase, and lie past what was observed within a minute.

    Two readings of one clock are never equal and never go back, whatever the machine's clock does. After
    `observe`, every reading lies past the observed one: a process that reads a run before it goes on with
    it writes later versions, even where its own clock is behind. What lies `MAX_AHEAD` or more ahead of the
    machine's time comes of a wrong clock, here or there, and moves nothing: only what is said of that very
    run is stamped past it. Safe in threads, signal handlers and forked children.

    Args:
        now: Microseconds since the epoch.
    """

    def __init__(self, now: Callable[[], int] = epoch_micros) -> None:
        self._now = now
        self._last = 0
        self._ahead: OrderedDict[tuple[str, str], int] = OrderedDict()
        # Reentrant, since a signal handler may interrupt its own thread inside.
        self._lock = renewed(self, "_lock", threading.RLock)

    @property
    def last(self) -> int:
        """The greatest reading made or followed so far, those for runs that are ahead aside."""
        return self._last

    def ahead_by(self, hlc: int) -> timedelta:
        """Return how far *hlc* lies ahead of the machine's time; less than 0 where it is behind."""
        return timedelta(microseconds=min(hlc, MAX_HLC) - self._now())

    def seen(self, run: tuple[str, str]) -> int:
        """Return what the next reading for *run* will be greater than."""
        with self._lock:
            return max(self._last, self._ahead.get(run, 0))

    def tick(self, run: tuple[str, str] | None = None) -> int:
        """Return the next reading, in microseconds since the epoch.

        Args:
            run: The key of the run that it is for: where that was observed to be ahead, the reading lies just
                past it, and the clock stays where it is. None for no run.

        Raises:
            WriteRefusedError: Nothing below `MAX_HLC` lies past what was observed of *run*.
        """
        with self._lock:
            now, last = self._now(), self._last
            now = now if now > last else last + 1  # not max(): every event pays for it
            if self._ahead and run is not None and run in self._ahead:
                return self._tick_ahead(run, now)
            self._last = now
            return now

    def _tick_ahead(self, run: tuple[str, str], now: int) -> int:
        if self._ahead[run] < now:
            del self._ahead[run]
            self._last = now
            return now
        ahead = self._ahead[run] = hlc_after(self._ahead[run], run)
        return ahead

    def observe(self, hlc: int, run: tuple[str, str] | None = None) -> None:
        """Make every later reading greater than *hlc*, where that is less than `MAX_AHEAD` ahead.

        Args:
            hlc: A reading of any clock.
            run: The key of the run that it is of: what is too far ahead counts for readings for it alone.
                None has it count for nothing.
        """
        if hlc <= self._last:
            return
        with self._lock:
            if hlc - self._now() < MAX_AHEAD:
                self._last = max(self._last, hlc)
            elif run is not None:
                self._ahead[run] = max(hlc, self._ahead.get(run, 0))
                self._ahead.move_to_end(run)
                if len(self._ahead) > MAX_RUNS_AHEAD:
                    self._ahead.popitem(last=False)


PROCESS_CLOCK: Final = HybridLogicalClock()
"""The clock that every emitter and service of this process shares unless it is given another."""
