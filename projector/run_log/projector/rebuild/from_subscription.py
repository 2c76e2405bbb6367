"""A rebuild from what Pub/Sub retains."""

from __future__ import annotations

import asyncio
from typing import Final

from run_log.projector.ports import MessageSource
from run_log.projector.projector import Projector
from run_log.projector.pull import PullLimits, PullWorker
from run_log.stores import ProjectionStore

from .progress import folded_by
from .work import RebuildWork

NOTED_EVERY: Final = 1.0
"""Seconds between two notes of how many events there were."""

_LIMITS: Final = PullLimits()


async def rebuild_from_subscription(
    source: MessageSource,
    store: ProjectionStore,
    work: RebuildWork,
    *,
    until_idle: float,
    limits: PullLimits = _LIMITS,
) -> bool:
    """Fold what *source* delivers into *store*, and return whether it was idle in the end, not stopped.

    The subscription itself knows how far it is: what is folded is acknowledged.

    Args:
        source: A subscription of the rebuild's own.
        store: Where to.
        work: The rebuild.
        until_idle: After how many seconds without a message all is folded.
        limits: How much is in hand.

    Raises:
        TransportRefusedError: See `PullWorker.run`, as the other errors.
        TransportUnavailableError: See `PullWorker.run`.
        StoreUnavailableError: See `PullWorker.run`; or the state cannot be written.
        ConfigurationError: See `PullWorker.run`.
    """
    worker = PullWorker(source, Projector(store), work.rejects, limits=limits)
    # Whoever goes on hears some again that it has heard.
    work.progress.follow(folded_by(worker, repeats=not work.goes_on))
    work.unsettle()
    working = asyncio.create_task(worker.run(stop=work.stop, until_idle=until_idle))
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=NOTED_EVERY)
            work.state.note(work.progress.notes())
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    return not work.stop.is_set()
