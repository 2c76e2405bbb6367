"""How many runs workflows have, read once for all who look."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from run_log.core.protocol import MAX_LIMIT
from run_log.stores import RunLog, WorkflowStats

EVERY_SECONDS: Final = 5.0
"""How old counts may be: a store bills each workflow that is read, and many may look."""


class Counts:
    """The stats of all workflows, as they were a few seconds ago at most.

    Args:
        opened: Returns the run log.
        clock: Returns seconds that never go back.
    """

    def __init__(self, opened: Callable[[], RunLog], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._opened = opened
        self._clock = clock
        self.read_at = -math.inf
        """When they were read, on that clock."""
        self._stats: Sequence[WorkflowStats] | None = None

    async def read(self) -> Sequence[WorkflowStats] | None:
        """Return them; None where there are too many to count, or they are read for the first time."""
        if self._clock() - self.read_at >= EVERY_SECONDS:
            # Before it is read: nobody else asks meanwhile.
            self.read_at = self._clock()
            stats, more = await self._opened().list_workflows(limit=MAX_LIMIT)
            self._stats = None if more else stats
        return self._stats
