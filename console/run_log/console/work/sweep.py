"""``run-log sweep``: shows runs that sent no event for long, marks them as lost, and takes defaults."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from run_log.console.views.output import Listing, note
from run_log.core import (
    RunNotFoundError,
    RunStatus,
    TransportUnavailableError,
    UnreadableRunError,
    WriteRefusedError,
)
from run_log.stores import RunLog, StaleRun

from .opening import FLUSH_SECONDS

PAGE: Final = 200


class Swept(NamedTuple):
    """How many runs were stale, how many of them still were when they were marked, how many cannot be."""

    found: int
    marked: int
    refused: int = 0
    due: int = 0
    """How many paused runs are past their deadline and have a default choice."""
    taken: int = 0
    """How many of them go on with it."""


async def sweep(
    log: RunLog,
    listing: Listing[StaleRun],
    *,
    older_than: timedelta,
    workflow_id: str | None,
    mark: bool,
    now: datetime,
    running_only: bool = False,
) -> Swept:
    """Show runs whose newest event is *older_than* that. If *mark*, read each again and mark it as lost.

    Then also take the default choice of each paused run whose deadline has passed. A run that cannot be
    marked is named on stderr, and the others are marked. If *running_only*, pending runs are left out.
    """
    found = marked = refused = 0
    cursor = None
    while True:
        page, cursor = await log.list_stale(
            older_than, workflow_id=workflow_id, limit=PAGE, start_after=cursor, now=now
        )
        if running_only:
            page = [stale for stale in page if stale.run.status is RunStatus.RUNNING]
        # Before anything is marked, so that what is shown is how runs were found.
        listing.add(page)
        found += len(page)
        if mark:
            for stale in page:
                try:
                    marked += await log.mark_lost(*stale.run.key, older_than=older_than, now=now)
                except RunNotFoundError:
                    continue  # it has expired since it was listed
                except (UnreadableRunError, WriteRefusedError) as error:
                    refused += _tell(error)
        if cursor is None:
            break
    listing.end()
    defaults = await _take_defaults(log, workflow_id=workflow_id, mark=mark, now=now)
    refused += defaults.refused
    if (marked or defaults.marked) and not await log.flush(FLUSH_SECONDS):
        raise TransportUnavailableError(
            f"{marked + defaults.marked} runs were marked, but not all marks were published within "
            f"{FLUSH_SECONDS:.0f} s; sweep again: each run is marked only once"
        )
    return Swept(found=found, marked=marked, refused=refused, due=defaults.found, taken=defaults.marked)


async def _take_defaults(log: RunLog, *, workflow_id: str | None, mark: bool, now: datetime) -> Swept:
    """Return how many paused runs have a default that is due, and if *mark* how many go on with it."""
    due = taken = refused = 0
    cursor = None
    while True:
        page, cursor = await log.list_pending(
            overdue=True, workflow_id=workflow_id, limit=PAGE, start_after=cursor, now=now
        )
        for pending in page:
            if pending.default_choice is None:
                continue
            due += 1
            try:
                taken += mark and await log.take_default(*pending.run.key, now=now)
            except RunNotFoundError:
                continue  # it has expired since it was listed
            except (UnreadableRunError, WriteRefusedError) as error:
                refused += _tell(error)
        if cursor is None:
            return Swept(found=due, marked=taken, refused=refused)


def _tell(error: Exception) -> int:
    note(" ".join(str(error).split()), style="red")
    return 1
