"""The hybrid logical clock that orders events without trusting any machine's time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from ._forks import renewed

MAX_HLC: Final = 2**62
"""Readings stay below this, so that one more always fits a 64-bit integer."""

_MAX_OBSERVED: Final = 2**61
"""Readings observed beyond it (the year 75,000) count as it: one absurd event must not use up the clock."""


def epoch_micros() -> int:
    """Return the machine's time in microseconds since the epoch."""
    return time.time_ns() // 1_000


class HybridLogicalClock:
    """Microseconds since the epoch that strictly increase and never fall behind what was observed.

    Two readings of one clock are never equal and never go back, whatever the machine's clock does. After
    `observe`, every reading lies past the observed one: a process that reads a run before it goes on with
    it writes later versions, even where its own clock is behind. Safe in threads, signal handlers and
    forked children.

    Args:
        now: Microseconds since the epoch.
    """

    def __init__(self, now: Callable[[], int] = epoch_micros) -> None:
        self._now = now
        self._last = 0
        # Reentrant, since a signal handler may interrupt its own thread inside.
        self._lock = renewed(self, "_lock", threading.RLock)

    @property
    def last(self) -> int:
        """The greatest reading made or observed so far."""
        return self._last

    def tick(self) -> int:
        """Return the next reading, in microseconds since the epoch."""
        with self._lock:
            now, last = self._now(), self._last
            self._last = now = now if now > last else last + 1  # not max(): every event pays for it
            return now

    def observe(self, hlc: int) -> None:
        """Make every later reading greater than *hlc*.

        Args:
            hlc: A reading of any clock. An absurd one, 2**61 or more, moves the clock to 2**61 only, so
                that this process goes on making readings below `MAX_HLC`.
        """
        with self._lock:
            self._last = max(self._last, min(hlc, _MAX_OBSERVED))


PROCESS_CLOCK: Final = HybridLogicalClock()
"""The clock that every emitter and service of this process shares unless it is given another."""
