"""How far a rebuild has come, for whoever looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sized
from typing import Any

from run_log.core import Outcome
from run_log.projector.pull import PullWorker

from .state import RebuildState

_TOTAL = "total"


class RebuildProgress:
    """How far a rebuild has come: what earlier processes have done of it, and what this one does.

    Args:
        state: The rebuild.
        rejects: What it rejects.
    """

    def __init__(self, state: RebuildState, rejects: Sized) -> None:
        self.earlier = int(state.get(_TOTAL).get("events", 0))
        """Events that earlier processes have folded."""
        self._rejects = rejects
        self._events: Callable[[], int] = lambda: 0
        self._files: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.expired = 0
        """Runs that were given the time at which they expire."""
        self.assumed: Counter[str] = Counter()
        """What this process assumed to read documents that are not run-log's, and of how many."""

    @property
    def folded(self) -> int:
        """Events that this process has folded: those that were there already too."""
        return self._events()

    @property
    def events(self) -> int:
        """Events folded in all. What a killed process had not noted yet is folded, and counted, again."""
        return self.earlier + self.folded

    @property
    def rejects(self) -> int:
        """What could not be folded in all."""
        return len(self._rejects)

    @property
    def files(self) -> tuple[int, int]:
        """Files of an archive that are done with, and how many there are; zeros for other sources."""
        return self._files()

    def follow(self, events: Callable[[], int], files: Callable[[], tuple[int, int]] | None = None) -> None:
        """Have them told by whoever does the work."""
        self._events = events
        self._files = files or self._files

    def notes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what is to be noted, for the process that goes on."""
        return {_TOTAL: {"events": self.events}}


def folded_by(worker: PullWorker, *, repeats: bool = True) -> Callable[[], int]:
    """Return what tells how many events *worker* has folded, those that were there already too or not."""

    def folded() -> int:
        outcomes = worker.report.outcomes
        left_out = outcomes[Outcome.REJECTED] + (0 if repeats else outcomes[Outcome.DUPLICATE])
        return sum(outcomes.values()) - left_out

    return folded
