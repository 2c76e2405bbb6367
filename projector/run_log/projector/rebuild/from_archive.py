"""A rebuild from the files of an archive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from run_log.core import RunLogError
from run_log.projector.archive import ArchiveFile, ArchivePlace, ArchiveSource
from run_log.projector.projector import Projector
from run_log.projector.pull import PullLimits, PullWorker
from run_log.stores import ProjectionStore

from .progress import folded_by
from .state import RebuildState
from .work import RebuildWork

_FILE: Final = "file:"
_LIMITS: Final = PullLimits()


async def rebuild_from_archive(
    files: Sequence[ArchiveFile],
    store: ProjectionStore,
    work: RebuildWork,
    *,
    limits: PullLimits = _LIMITS,
) -> bool:
    """Fold what *files* hold into *store*, and return whether that is done, and was not stopped.

    What is no event is kept among the rejects and holds nothing up. While the store does not answer it waits.

    Args:
        files: The archive.
        store: Where to.
        work: The rebuild.
        limits: How much is in hand.

    Raises:
        TransportRefusedError: A file cannot be read until somebody acts.
        ConfigurationError: The store is not there, or does not let us in; or Avro cannot be read.
        StoreUnavailableError: The state cannot be written.
    """
    ended = asyncio.Event()
    failures: list[RunLogError] = []

    def told(places: Sequence[ArchivePlace]) -> None:
        notes = {f"{_FILE}{place.file}": {"after": place.after, "size": place.size} for place in places}
        try:
            work.state.note({**notes, **work.progress.notes()})
        except RunLogError as error:
            # Raised here it would be lost: nobody waits for an acknowledgement.
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


def _done(state: RebuildState) -> dict[str, ArchivePlace]:
    return {
        name: ArchivePlace(file=name, after=fields["after"], size=fields["size"])
        for about, fields in state.places.items()
        if (name := about.removeprefix(_FILE)) != about
    }


async def _set_after(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()
