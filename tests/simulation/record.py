"""What happened in a schedule, and what must never happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class ViolationError(Exception):
    """An invariant does not hold."""


class Record:
    """The trace of one schedule."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()

    def note(self, what: str, details: object = "") -> None:
        """Write down, and count, that *what* happened."""
        self.counts[what] += 1
        self.lines.append(f"{self._now():10.4f} {what} {details}")
