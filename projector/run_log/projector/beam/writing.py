"""Folded runs, on their way into a store: gathered, and written together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from run_log.core import encode_event
from run_log.core.law import FoldedRun
from run_log.projector.merging import MergingProjector, MergingStore
from run_log.projector.rebuild import reject_line

from .steps import encode_folded

MAX_RUNS: Final = 500
"""Most runs written together: as many as a commit holds."""

MAX_BYTES: Final = 3 * 2**20
"""Most bytes of them, about, for the same reason."""


class ClosableStore(MergingStore, Protocol):
    """A projection that lets go of its connections."""

    async def close(self) -> None:
        """Let go of connections."""
        ...


OpenStore = Callable[[], ClosableStore]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of runs that were written together."""

    runs: int
    """Runs that are durable."""
    rejects: Sequence[str]
    """A line for each of the others, which the store will never take."""


class RunWriter:
    """Writes runs into a store, as many together as a commit holds. For one thread at a time.

    Writing a run again changes nothing, also while somebody else does.

    Args:
        open_store: Opens the store.
    """

    def __init__(self, open_store: OpenStore) -> None:
        self._store = open_store()
        self._projector = MergingProjector(self._store)
        self._loop = asyncio.Runner()
        self._waiting: list[FoldedRun] = []
        self._size = 0

    def begin(self) -> None:
        """Forget what was not written: whoever failed to gives all of it again."""
        self._waiting, self._size = [], 0

    def add(self, run: FoldedRun) -> Written | None:
        """Write *run* together with those before it once they are enough; None until then.

        Raises:
            StoreUnavailableError: See `write`.
            ConfigurationError: See `write`.
        """
        size = len(encode_folded(run))
        written = self.write() if self._waiting and self._size + size > MAX_BYTES else None
        self._waiting.append(run)
        self._size += size
        return self.write() if len(self._waiting) == MAX_RUNS else written

    def write(self) -> Written:
        """Write what waits.

        Raises:
            StoreUnavailableError: The store does not answer in bounded time.
            ConfigurationError: It is not there, or does not let us in.
        """
        runs = self._waiting
        self.begin()
        results = self._loop.run(self._projector.merge(runs))
        refused = [(run, result) for run, result in zip(runs, results, strict=True) if result.reason]
        rejects = [
            reject_line(
                "/".join(run.event.key),
                reason=result.reason,
                error=str(result.error),
                body=encode_event(run.event).data,
            )
            for run, result in refused
            if result.reason is not None
        ]
        return Written(runs=len(runs) - len(rejects), rejects=rejects)

    def close(self) -> None:
        """Let go of the store's connections."""
        self._loop.run(self._store.close())
        self._loop.close()
