"""Runs that are folded already, merged into a projection; what it refuses stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from run_log.core import Outcome, RunEvent
from run_log.core.law import FoldedRun
from run_log.core.models import RunKey

from .projector import Projected, Projector


class MergingStore(Protocol):
    """A projection into which another one's runs can be merged."""

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome]:
        """Merge *runs*, each once, as if their events were applied; see `ProjectionStore.apply`.

        Raises:
            StoreUnavailableError: See `ProjectionStore.apply`, as the other errors.
            WriteRefusedError: See `ProjectionStore.apply`.
            ConfigurationError: See `ProjectionStore.apply`.
        """
        ...


class MergingProjector:
    """Merges runs into a store, isolating those it refuses, as `Projector` does with events.

    Args:
        store: Where the projection is.
    """

    def __init__(self, store: MergingStore) -> None:
        self._store = store
        self._projector = Projector(self)
        self._runs: dict[RunKey, FoldedRun] = {}

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Projected]:
        """Merge *runs*, each once, and return what became of each one's newest event, in order.

        Args:
            runs: None of them under way in another call.

        Raises:
            StoreUnavailableError: See `Projector.project`.
            ConfigurationError: See `Projector.project`.
        """
        by_key = {run.event.key: run for run in runs}
        self._runs |= by_key
        try:
            return await self._projector.project([run.event for run in runs])
        finally:
            for key in by_key:
                del self._runs[key]

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`."""
        return await self._store.merge([self._runs[event.key] for event in events])
