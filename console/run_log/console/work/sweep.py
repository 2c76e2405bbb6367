"""Runs that nothing was heard of for long: shown, and marked as lost where that is asked for."""

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
    """What a sweep came to."""

    found: int
    """Stale runs."""
    marked: int
    """Those that were still stale when they were marked."""
    refused: int = 0
    """Those that cannot be marked; each is named on stderr."""


async def sweep(
    log: RunLog,
    listing: Listing[StaleRun],
    *,
    older_than: timedelta,
    workflow_id: str | None,
    mark: bool,
    now: datetime,
) -> Swept:
    """Show what is stale, and mark it as lost if *mark*; each run is read again before.

    One that cannot be marked is named, and the others are.

    Args:
        log: Where the runs are.
        listing: Where they are shown.
        older_than: How long ago their newest event has to be, at least.
        workflow_id: Only those of this workflow; None is all.
        mark: Whether they are marked; else nothing is changed.
        now: What silence is counted to.

    Raises:
        StoreUnavailableError: The store does not answer in bounded time.
        TransportUnavailableError: What was marked could not be published in time.
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
            f"{marked} runs were marked, and not all of that was published in {FLUSH_SECONDS:.0f} s; "
            "sweep again, which marks each only once"
        )
    return Swept(found=found, marked=marked, refused=refused)
