"""``run-log sweep``: shows runs that sent no event for long, and marks them as lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from run_log.console.views.output import Listing, note
from run_log.core import RunNotFoundError, TransportUnavailableError, UnreadableRunError, WriteRefusedError
from run_log.stores import RunLog, StaleRun

from .opening import FLUSH_SECONDS

PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The result of a sweep."""

    found: int
    """Number of stale runs."""
    marked: int
    """Number of runs that were still stale when they were marked."""
    refused: int = 0
    """Number of runs that cannot be marked. Each is named on stderr."""


async def sweep(
    log: RunLog,
    listing: Listing[StaleRun],
    *,
    older_than: timedelta,
    workflow_id: str | None,
    mark: bool,
    now: datetime,
) -> Swept:
    """Show stale runs. If *mark*, read each again and mark it as lost.

    A run that cannot be marked is named on stderr, and the others are marked.

    Args:
        log: The run log.
        listing: Shows the runs.
        older_than: Least age of a run's newest event.
        workflow_id: Only runs of this workflow; None for all.
        mark: Whether to mark the runs. If not, nothing is changed.
        now: The time, to tell ages.

    Raises:
        StoreUnavailableError: The store does not answer in bounded time.
        TransportUnavailableError: The marks were not published in time.
    """
    found = marked = refused = 0
    cursor = None
    while True:
        page, cursor = await log.list_stale(
            older_than, workflow_id=workflow_id, limit=PAGE, start_after=cursor, now=now
        )
        listing.add(page)
        found += len(page)
        if mark:
            for stale in page:
                try:
                    marked += await log.mark_lost(*stale.run.key, older_than=older_than, now=now)
                except RunNotFoundError:
                    continue  # it has expired since it was listed
                except (UnreadableRunError, WriteRefusedError) as error:
                    note(" ".join(str(error).split()), style="red")
                    refused += 1
        if cursor is None:
            break
    listing.end()
    if marked and not await log.flush(FLUSH_SECONDS):
        raise TransportUnavailableError(
            f"{marked} runs were marked, but not all marks were published within {FLUSH_SECONDS:.0f} s; "
            "sweep again: each run is marked only once"
        )
    return Swept(found=found, marked=marked, refused=refused)
