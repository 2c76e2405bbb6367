"""A rebuild from each kind of source: an archive, a subscription, or another projection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from run_log.core import DeadLetterReason, Outcome, RunLogError
from run_log.projector.archive import ArchiveFile
from run_log.projector.archive.reading import ArchivePosition
from run_log.projector.archive.source import ArchiveSource
from run_log.projector.ports import MessageSource
from run_log.projector.projector import Projector
from run_log.projector.pull import PullLimits, PullWorker, cancel
from run_log.stores import ProjectionStore

from .merging import Merge, MergingProjector
from .work import RebuildState, RebuildWork, Reject

if TYPE_CHECKING:
    from run_log.stores.firestore import RootPage

NOTED_EVERY: Final = 1.0
"""Seconds between two notes of the number of events."""

IN_FLIGHT: Final = 3
"""Pages that are merged at once while the next one is read. Each run is on one page, so they share none."""

_FILE: Final = "file:"
_ROOT: Final = "root"


async def rebuild_from_archive(
    files: Sequence[ArchiveFile], store: ProjectionStore, work: RebuildWork
) -> bool:
    """Fold the events in *files* into *store*, and return whether all are folded.

    What is not an event goes to the rejects. While the store does not answer, the rebuild waits.

    Raises:
        TransportRefusedError: A file cannot be read until somebody acts.
        ConfigurationError: The store does not exist or denies access, or Avro cannot be read.
        StoreUnavailableError: The state cannot be written.
    """
    ended = asyncio.Event()
    failures: list[RunLogError] = []

    def told(positions: Sequence[ArchivePosition]) -> None:
        try:
            work.note({f"{_FILE}{at.file}": {"after": at.after, "size": at.size} for at in positions})
        except RunLogError as error:
            # The worker does not wait for acknowledgements, so an error raised here would be lost.
            failures.append(error)
            ended.set()

    source = ArchiveSource(files, done=_done(work.state), rejects=work.rejects, told=told, finished=ended.set)
    worker = PullWorker(source, Projector(store), work.rejects)
    work.follow(_folded_by(worker), lambda: (source.done_files, source.total_files))
    stopping = asyncio.create_task(_set_after(work.stop, ended))
    try:
        if not source.is_finished:
            work.unsettle()
            await worker.run(stop=ended)
    finally:
        await cancel([stopping])
        await source.close()
    if failures:
        raise failures[0]
    return source.is_finished


def _done(state: RebuildState) -> dict[str, ArchivePosition]:
    return {
        name: ArchivePosition(file=name, after=fields["after"], size=fields["size"])
        for about, fields in state.notes.items()
        if (name := about.removeprefix(_FILE)) != about
    }


async def _set_after(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()


def _folded_by(worker: PullWorker, *, repeats: bool = True) -> Callable[[], int]:
    """Return a function that returns how many events *worker* has folded, with or without duplicates."""
    left_out = {Outcome.REJECTED} if repeats else {Outcome.REJECTED, Outcome.DUPLICATE}

    def folded() -> int:
        return sum(count for kind, count in worker.report.outcomes.items() if kind not in left_out)

    return folded


async def rebuild_from_subscription(
    source: MessageSource,
    store: ProjectionStore,
    work: RebuildWork,
    *,
    until_idle: float,
    limits: PullLimits,
) -> bool:
    """Fold what *source* delivers into *store*, and return whether all is folded.

    What is folded is acknowledged, so the subscription, which only the rebuild uses, keeps the position of
    the rebuild itself. All is folded after *until_idle* seconds without a message.

    Raises:
        StoreUnavailableError: The store does not answer, or the state cannot be written.
        RunLogError: See `PullWorker.run`.
    """
    worker = PullWorker(source, Projector(store), work.rejects, limits=limits)
    # A rebuild that goes on hears some events again, which are not counted again.
    work.follow(_folded_by(worker, repeats=not work.goes_on))
    work.unsettle()
    working = asyncio.create_task(worker.run(stop=work.stop, until_idle=until_idle))
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=NOTED_EVERY)
            work.note()
        await working
    finally:
        await cancel([working])
    return not work.stop.is_set()


async def rebuild_from_root(
    page_after: Callable[[str], Awaitable[RootPage]], merge: Merge, work: RebuildWork
) -> bool:
    """Merge the runs of a root collection into a store, and return whether all are merged.

    *page_after* returns the page after a position, which is empty for the first page. Others may write into
    the store meanwhile.

    Raises:
        StoreUnavailableError: A store does not answer in bounded time, or the state cannot be written.
        ConfigurationError: A store does not exist, or denies access.
        TransportUnavailableError: The rejects cannot be written.
    """
    projector = MergingProjector(merge)
    merged = 0
    work.follow(lambda: merged)
    after: str | None = work.state.get(_ROOT).get("after", "")
    under_way: deque[tuple[asyncio.Task[int], str | None]] = deque()

    async def first_done() -> None:
        nonlocal merged
        task, reached = under_way[0]
        # Pages may be merged in any order, but are counted in order, as the noted position moves past them.
        # A rebuild that goes on merges later pages again, and would count them twice.
        merged += await task
        under_way.popleft()
        work.note({_ROOT: {"after": reached}})

    try:
        while after is not None and not work.stop.is_set():
            page = await page_after(after)
            under_way.append((asyncio.create_task(_merge_page(page, projector, work)), page.after))
            after = page.after
            if len(under_way) == IN_FLIGHT:
                await first_done()
        while under_way:
            await first_done()
    finally:
        await cancel([task for task, _ in under_way])
    return after is None


async def _merge_page(page: RootPage, projector: MergingProjector, work: RebuildWork) -> int:
    """Merge a page, and return the number of runs; if the rebuild goes on, of those that changed."""
    counts_repeats = not work.goes_on
    for place, found in page.unreadable.items():
        work.rejects.add(Reject(place, DeadLetterReason.INVALID_EVENT, str(found.error), found.body))
    work.assumed.update(page.assumed)
    if page.runs:
        work.unsettle()
    merged = 0
    for result in await projector.merge(page.runs):
        if isinstance(result, Reject):
            work.rejects.add(result)
        else:
            merged += counts_repeats or result is not Outcome.DUPLICATE
    return merged
