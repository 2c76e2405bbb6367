"""Keeps saves of one run that are under way at the same time in the order in which they began."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass

from run_log.core import RunEvent, Version
from run_log.core.forks import renewed
from run_log.core.models import RunKey


@dataclass(slots=True)
class _Run:
    newest: Version
    """The version of the save that began last."""
    count: int = 0


class SavesUnderWay:
    """The saves that a service has begun and not ended, of every run. Thread-safe."""

    def __init__(self) -> None:
        # Those of a forked child's parent end in the parent.
        self._runs = renewed(self, "_runs", dict[RunKey, _Run])
        self._lock = renewed(self, "_lock", threading.Lock)

    @contextlib.contextmanager
    def begun(self, event: RunEvent) -> Generator[Callable[[], bool]]:
        """Yield a function that tells whether no later save of *event*'s run has begun meanwhile.

        Only then may the save be stamped after what is stored: else it would overtake the later one.
        """
        # Counted, not kept: a service that has saved a million runs remembers those under way alone.
        with self._lock:
            run = self._runs.setdefault(event.key, _Run(newest=event.version))
            run.count += 1
            run.newest = max(run.newest, event.version)
        try:
            yield lambda: event.version == run.newest
        finally:
            with self._lock:
                run.count -= 1
                if not run.count:
                    self._runs.pop(event.key, None)
