"""Folded runs, merged into a store; those that the store refuses become rejects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from run_log.core import Outcome, RunEvent, encode_event
from run_log.core.law import FoldedRun
from run_log.core.models import RunKey
from run_log.projector.projector import Projector

from .work import Reject

Merge = Callable[[Sequence[FoldedRun]], Awaitable[list[Outcome]]]
"""Merges runs, each given once, as if their events were applied; raises what `ProjectionStore.apply` does."""


class MergingProjector:
    """Merges folded runs into a store, and isolates those that the store refuses."""

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self._projector = Projector(self)
        self._runs: dict[RunKey, FoldedRun] = {}

    async def merge(self, runs: Sequence[FoldedRun]) -> list[Outcome | Reject]:
        """Merge *runs*, each given once, and return what became of each, in order.

        None of them may be in another call that is under way. It raises what `Projector.project` does.
        """
        by_key = {run.event.key: run for run in runs}
        self._runs |= by_key
        events = [run.event for run in runs]
        try:
            projected = await self._projector.project(events)
        finally:
            for key in by_key:
                del self._runs[key]
        return [
            result.outcome
            if result.reason is None
            else Reject("/".join(event.key), result.reason, str(result.error), encode_event(event).data)
            for event, result in zip(events, projected, strict=True)
        ]

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """Merge the runs of *events*: `Projector` calls this as it would call a store."""
        return await self._merge([self._runs[event.key] for event in events])
