"""A rebuild from each kind of source: an archive, a subscription, or another projection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from run_log.core import DeadLetterReason, Outcome, RunLogError, encode_event
from run_log.core.law import FoldedRun
from run_log.projector.archive import ArchiveFile, ArchivePosition, ArchiveSource
from run_log.projector.ports import MessageSource
from run_log.projector.projector import MergingProjector, MergingStore, Projector
from run_log.projector.pull import PullLimits, PullWorker
from run_log.stores import ProjectionStore

from .work import RebuildState, RebuildWork, folded_by

_FILE: Final = "file:"
_LIMITS: Final = PullLimits()


async def rebuild_from_archive(
    files: Sequence[ArchiveFile],
    store: ProjectionStore,
    work: RebuildWork,
    *,
    limits: PullLimits = _LIMITS,
) -> bool:
    """Fold the events in *files* into *store*, and return whether all are folded.

    What is not an event goes to the rejects. While the store does not answer, the rebuild waits.

    Args:
        files: The archive.
        store: Where events are folded into.
        work: The rebuild.
        limits: How much is in hand.

    Raises:
        TransportRefusedError: A file cannot be read until somebody acts.
        ConfigurationError: The store does not exist or denies access, or Avro cannot be read.
        StoreUnavailableError: The state cannot be written.
    """
    ended = asyncio.Event()
    failures: list[RunLogError] = []

    def told(positions: Sequence[ArchivePosition]) -> None:
        notes = {
            f"{_FILE}{position.file}": {"after": position.after, "size": position.size}
            for position in positions
        }
        try:
            work.state.note({**notes, **work.progress.notes()})
        except RunLogError as error:
            # The worker does not wait for acknowledgements, so an error raised here would be lost.
            failures.append(error)
            ended.set()

    source = ArchiveSource(files, done=_done(work.state), rejects=work.rejects, told=told, finished=ended.set)
    worker = PullWorker(source, Projector(store), work.rejects, limits=limits)
    work.progress.follow(folded_by(worker), lambda: (source.done_files, source.total_files))
    stopping = asyncio.create_task(_set_after(work.stop, ended))
    try:
        if not source.is_finished:
            work.unsettle()
            await worker.run(stop=ended)
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
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


NOTED_EVERY: Final = 1.0
"""Seconds between two notes of the number of events."""


async def rebuild_from_subscription(
    source: MessageSource,
    store: ProjectionStore,
    work: RebuildWork,
    *,
    until_idle: float,
    limits: PullLimits = _LIMITS,
) -> bool:
    """Fold what *source* delivers into *store*, and return whether all is folded.

    What is folded is acknowledged, so the subscription itself keeps the position of the rebuild.

    Args:
        source: A subscription that only the rebuild uses.
        store: Where events are folded into.
        work: The rebuild.
        until_idle: All is folded after so many seconds without a message.
        limits: How much is in hand.

    Raises:
        TransportRefusedError: See `PullWorker.run`.
        TransportUnavailableError: See `PullWorker.run`.
        StoreUnavailableError: See `PullWorker.run`, or the state cannot be written.
        ConfigurationError: See `PullWorker.run`.
    """
    worker = PullWorker(source, Projector(store), work.rejects, limits=limits)
    # A rebuild that goes on hears some events again, which are not counted again.
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


IN_FLIGHT: Final = 3
"""Pages that are merged at once while the next one is read. Each run is on one page, so they share none."""

_ROOT: Final = "root"


class UnreadableDocument(Protocol):
    """A document where a run should be, which cannot be read as one."""

    @property
    def error(self) -> RunLogError:
        """Why it cannot be read."""
        ...

    @property
    def body(self) -> bytes:
        """Its content, for people."""
        ...


class RunPage(Protocol):
    """Some of the runs of a projection."""

    @property
    def runs(self) -> Sequence[FoldedRun]:
        """The runs that can be read."""
        ...

    @property
    def unreadable(self) -> Mapping[str, UnreadableDocument]:
        """The documents that cannot be read, by path."""
        ...

    @property
    def assumed(self) -> Mapping[str, int]:
        """Assumptions that were made to read foreign documents, each with the number of documents."""
        ...

    @property
    def after(self) -> str | None:
        """The position of the next page; None if nothing is left."""
        ...


class RunPages(Protocol):
    """All runs of a projection, page by page."""

    async def page(self, after: str = "") -> RunPage:
        """Return the runs after a position; empty for the first page.

        Raises:
            StoreUnavailableError: The store does not answer in bounded time.
            ConfigurationError: The store does not exist, or denies access.
        """
        ...


async def rebuild_from_root(root: RunPages, store: MergingStore, work: RebuildWork) -> bool:
    """Merge the runs of *root* into *store*, and return whether all are merged.

    Args:
        root: Where runs are read.
        store: Where runs are merged into. Others may write there meanwhile.
        work: The rebuild.

    Raises:
        StoreUnavailableError: A store does not answer in bounded time, or the state cannot be written.
        ConfigurationError: A store does not exist, or denies access.
        TransportUnavailableError: The rejects cannot be written.
    """
    merging = _Merging(store, work)
    work.progress.follow(lambda: merging.merged)
    after: str | None = work.state.get(_ROOT).get("after", "")
    under_way: deque[tuple[asyncio.Task[int], str | None]] = deque()
    try:
        while after is not None and not work.stop.is_set():
            page = await root.page(after)
            under_way.append((asyncio.create_task(merging.merge(page)), page.after))
            after = page.after
            while len(under_way) == IN_FLIGHT or (after is None and under_way):
                await _first_done(under_way, merging, work)
        while under_way:
            await _first_done(under_way, merging, work)
    finally:
        for task, _ in under_way:
            task.cancel()
        await asyncio.gather(*(task for task, _ in under_way), return_exceptions=True)
    return after is None


async def _first_done(
    under_way: deque[tuple[asyncio.Task[int], str | None]], merging: _Merging, work: RebuildWork
) -> None:
    task, reached = under_way[0]
    # Pages may be merged in any order, but are counted in order, as the noted position moves past them. A
    # rebuild that goes on merges later pages again, and would count them twice.
    merging.merged += await task
    under_way.popleft()
    work.state.note({_ROOT: {"after": reached}, **work.progress.notes()})


class _Merging:
    """Merges pages; what cannot be read, or is refused, goes to the rejects."""

    def __init__(self, store: MergingStore, work: RebuildWork) -> None:
        self._projector = MergingProjector(store)
        self._work = work
        self._rejects = work.rejects
        self._counts_repeats = not work.goes_on
        self.merged = 0

    async def merge(self, page: RunPage) -> int:
        """Merge a page, and return the number of runs; if the rebuild goes on, of those that changed."""
        merged = 0
        for place, found in page.unreadable.items():
            reason, error = DeadLetterReason.INVALID_EVENT, str(found.error)
            self._rejects.add(place, reason=reason, error=error, body=found.body)
        self._work.progress.assumed.update(page.assumed)
        if page.runs:
            self._work.unsettle()
        for run, result in zip(page.runs, await self._projector.merge(page.runs), strict=True):
            if result.reason is None:
                merged += self._counts_repeats or result.outcome is not Outcome.DUPLICATE
                continue
            place, body = "/".join(run.event.key), encode_event(run.event).data
            self._rejects.add(place, reason=result.reason, error=str(result.error), body=body)
        return merged
