"""How many runs workflows have, read once for all who look."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from run_log.core.protocol import MAX_LIMIT
from run_log.stores import RunLog, WorkflowStats

EVERY_SECONDS: Final = 5.0
"""How old counts may be: a store bills each workflow that is read, and many may look."""


class Counted(NamedTuple):
    """The stats of workflows."""

    workflows: Sequence[WorkflowStats]
    are_all: bool
    """Whether there are no others: then they can be added up."""
    are_new: bool
    """Whether they were read for who has asked."""


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
        self._counted: Counted | None = None

    async def read(self) -> Counted:
        """Return them, those with the first ids where there are more than a listing has."""
        if self._counted is not None and self._clock() - self.read_at < EVERY_SECONDS:
            return self._counted
        # Before they are read: who asks meanwhile gets what there was before.
        self.read_at = self._clock()
        stats, more = await self._opened().list_workflows(limit=MAX_LIMIT)
        self._counted = Counted(stats, are_all=more is None, are_new=False)
        return self._counted._replace(are_new=True)
