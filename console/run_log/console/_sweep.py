"""Runs that nothing was heard of for long: shown, and marked as lost where that is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console

from run_log.core import InvalidArgumentError, TransportUnavailableError
from run_log.stores import RunLog

from ._render import stale_table

PAGE: Final = 200
FLUSH_SECONDS: Final = 30.0

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = re.compile(r"([0-9]{1,6})([smhd])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep came to."""

    found: int
    """Stale runs."""
    marked: int
    """Those that were still stale when they were marked."""


def duration(text: str) -> timedelta:
    """Return the time that *text* says, such as ``90m``.

    Raises:
        InvalidArgumentError: It says none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidArgumentError(
            f"{text!r} is no time; pass a whole number with s, m, h or d, such as 90m or 2d"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


async def sweep(
    log: RunLog,
    console: Console,
    *,
    older_than: timedelta,
    workflow_id: str | None,
    mark: bool,
    now: datetime,
) -> Swept:
    """Show what is stale, and mark it as lost if *mark*; each run is read again before.

    Args:
        log: Where the runs are.
        console: Where they are shown.
        older_than: How long ago their newest event has to be, at least.
        workflow_id: Only those of this workflow; None is all.
        mark: Whether they are marked; else nothing is changed.
        now: What silence is counted to.

    Raises:
        StoreUnavailableError: The store does not answer in bounded time.
        TransportUnavailableError: What was marked could not be published in time.
    """
    found = marked = 0
    cursor = None
    while True:
        page, cursor = await log.list_stale(
            older_than, workflow_id=workflow_id, limit=PAGE, start_after=cursor, now=now
        )
        if page:
            console.print(stale_table(page))
        found += len(page)
        if mark:
            for stale in page:
                marked += await log.mark_lost(*stale.run.key, older_than=older_than, now=now)
        if cursor is None:
            break
    if marked and not await log.flush(FLUSH_SECONDS):
        raise TransportUnavailableError(
            f"{marked} runs were marked, and not all of that was published in {FLUSH_SECONDS:.0f} s; "
            "sweep again, which marks each only once"
        )
    return Swept(found=found, marked=marked)
