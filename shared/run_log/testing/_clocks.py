"""Clocks and ids that a test controls."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from run_log.core import InvalidArgumentError
from run_log.core.clock import micros_of


class ManualClock:
    """A clock that stands still until it is advanced. Thread-safe.

    Its methods fit wherever the library takes a clock: ``RunEvent.from_run(run, now=clock.now)``,
    ``HybridLogicalClock(now=clock.micros)``, ``topic.subscribe(now=clock.monotonic)``. *start* is the first
    time that it shows; InvalidArgumentError if it is naive.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if start.utcoffset() is None:
            raise InvalidArgumentError(f"start={start.isoformat()} has no time zone: pass an aware datetime")
        self._start = start.astimezone(UTC)
        self._passed = timedelta(0)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the clock's time, in UTC."""
        return self._start + self._passed

    def micros(self) -> int:
        """Return the clock's time in microseconds since the epoch."""
        return micros_of(self.now())

    def monotonic(self) -> float:
        """Return the seconds that have passed since the start."""
        return self._passed.total_seconds()

    def advance(self, by: timedelta | float) -> None:
        """Advance the clock; a number is in seconds. InvalidArgumentError if *by* is negative."""
        step = by if isinstance(by, timedelta) else timedelta(seconds=by)
        if step < timedelta(0):
            raise InvalidArgumentError(f"by={by} would turn the clock back; pass 0 or more")
        with self._lock:
            self._passed += step

    async def sleep(self, seconds: float) -> None:
        """Advance the clock by *seconds* at once. Other coroutines get one turn, as with any sleep."""
        self.advance(max(seconds, 0))
        await asyncio.sleep(0)


def sequential_ids(prefix: str = "event") -> Callable[[], str]:
    """Return a function that makes ``event-000001``, ``event-000002`` and so on.

    Up to a million ids sort in the order in which they were made.
    """
    numbers = itertools.count(1)
    return lambda: f"{prefix}-{next(numbers):06d}"
