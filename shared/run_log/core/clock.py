"""The hybrid logical clock. It orders events without trusting the time of any machine."""

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
"""Every reading is below this, so that the next one always fits a 64-bit integer."""

MAX_AHEAD: Final = 60_000_000
"""The clock follows an observed reading that is less than this ahead of its machine's time. Microseconds."""

MAX_RUNS_AHEAD: Final = 1_000
"""The clock remembers this many runs that are further ahead: those it observed last."""


def utc_now() -> datetime:
    """Return the machine's time as an aware datetime in UTC."""
    return datetime.now(UTC)


def epoch_micros() -> int:
    """Return the machine's time in microseconds since the epoch."""
    return time.time_ns() // 1_000


def micros_of(moment: datetime) -> int:
    """Return the microseconds from the epoch to *moment*, an aware datetime. The number is exact."""
    # Not `timestamp()`: a float cannot hold every microsecond of the years 1 to 9999.
    return (moment - EPOCH) // MICROSECOND


def rfc3339(moment: datetime) -> str:
    """Return *moment*, an aware datetime, as text in UTC with ``Z`` and microseconds."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat(timespec='microseconds').removesuffix('+00:00')}Z"


def moment_of(micros: int) -> datetime:
    """Return the moment in UTC so many microseconds after the epoch. OverflowError beyond years 1 to 9999."""
    return EPOCH + micros * MICROSECOND


def hlc_after(hlc: int, run: tuple[str, str]) -> int:
    """Return the reading after *hlc*, the latest of *run*. WriteRefusedError if none is below `MAX_HLC`."""
    if hlc >= MAX_HLC - 1:
        raise WriteRefusedError(
            f"run {run[1]!r} of workflow {run[0]!r} already has the last possible version, "
            "so nothing can come after it; go on with it as its next attempt"
        )
    return max(hlc + 1, 0)


class HybridLogicalClock:
    """A clock whose readings, in microseconds since the epoch, strictly increase whatever the machine's does.

    After `observe`, every reading is greater than the observed one. So a process that reads a run before it
    goes on with it writes later versions, even if its own clock is behind.

    A reading `MAX_AHEAD` or more ahead of this machine's time comes from a wrong clock, here or there. The
    clock does not follow it. Only events of that one run are stamped after it.

    Safe in threads, signal handlers and forked children. *now* returns microseconds since the epoch.
    """

    def __init__(self, now: Callable[[], int] = epoch_micros) -> None:
        self._now = now
        self._last = 0
        self._ahead: OrderedDict[tuple[str, str], int] = OrderedDict()
        # Reentrant: a signal handler may emit while its own thread is inside `tick`. With a plain lock the
        # thread would wait for itself for ever.
        self._lock = renewed(self, "_lock", threading.RLock)

    @property
    def last(self) -> int:
        """The greatest reading that was made or followed, without those for runs that are ahead."""
        return self._last

    def ahead_by(self, hlc: int) -> timedelta:
        """Return how far *hlc* is ahead of the machine's time; negative if it is behind."""
        return timedelta(microseconds=min(hlc, MAX_HLC) - self._now())

    def seen(self, run: tuple[str, str]) -> int:
        """Return the reading that the next one for *run* will exceed."""
        with self._lock:
            return max(self._last, self._ahead.get(run, 0))

    def tick(self, run: tuple[str, str] | None = None) -> int:
        """Return the next reading, in microseconds since the epoch, for an event of *run*.

        If this run was observed to be ahead, its reading comes just after the observed one, and the clock
        itself does not move.

        Raises:
            WriteRefusedError: No reading below `MAX_HLC` comes after what was observed of *run*.
        """
        with self._lock:
            now, last = self._now(), self._last
            # Not max(): a call takes longer, and every event pays for it.
            now = now if now > last else last + 1
            if self._ahead and run is not None and run in self._ahead:
                return self._tick_ahead(run, now)
            self._last = now
            return now

    def _tick_ahead(self, run: tuple[str, str], now: int) -> int:
        if self._ahead[run] < now:
            # The machine's time has caught up with the run.
            del self._ahead[run]
            self._last = now
            return now
        self._ahead[run] = hlc_after(self._ahead[run], run)
        return self._ahead[run]

    def observe(self, hlc: int, run: tuple[str, str] | None = None) -> None:
        """Make every later reading greater than *hlc*, which any clock may have made.

        A reading that is `MAX_AHEAD` or more ahead counts only for *run*, the run that it is of.
        """
        # Read without the lock: the last reading only grows, so a reading that it has passed stays passed.
        if hlc <= self._last:
            return
        with self._lock:
            if hlc - self._now() < MAX_AHEAD:
                self._last = max(self._last, hlc)
            elif run is not None:
                # Following it would stamp every run of this process, and of all that read those, with the
                # wrong time. One machine set to next year would carry the whole fleet there.
                self._ahead[run] = max(hlc, self._ahead.get(run, 0))
                self._ahead.move_to_end(run)
                if len(self._ahead) > MAX_RUNS_AHEAD:
                    self._ahead.popitem(last=False)


PROCESS_CLOCK: Final = HybridLogicalClock()
"""The clock that every emitter and service of this process shares, unless it is given another."""
