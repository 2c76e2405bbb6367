"""Rebuilds wired from settings. What needs a Google library imports it when it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from run_log.core import ConfigurationError, Settings, utc_now
from run_log.projector._pull import PullLimits
from run_log.projector.archive import find_files
from run_log.stores import ProjectionStore, RunLog, SQLiteRunLogService

from ._archive import rebuild_from_archive
from ._root import rebuild_from_root
from ._sources import FromArchive, FromRoot, FromSubscription, RebuildSource, check, replay_name
from ._subscription import rebuild_from_subscription
from ._work import RebuildWork

if TYPE_CHECKING:
    from run_log.pubsub import PubSubConnection

_END: Final = "end"
_REPLAY: Final = "replay"
_WORKFLOWS_AT_A_TIME: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild has come to."""

    complete: bool
    """Whether all is folded; else it was stopped, and the same rebuild goes on."""
    events: int
    """Events folded in all, or runs merged."""
    folded: int
    """Of these, by this process."""
    runs: int | None
    """Runs that the projection counts now; None where it is not complete."""
    rejects: int
    """What could not be folded in all."""
    expired: int
    """Runs that were given the time at which they expire."""
    seconds: float
    """How long this process folded, without the waiting until nothing more came."""


async def rebuild(
    settings: Settings,
    source: RebuildSource,
    *,
    into: str,
    work: RebuildWork,
    now: Callable[[], float] = time.monotonic,
    wall_now: Callable[[], datetime] = utc_now,
) -> Rebuilt:
    """Fold *source* into a projection beside the live one.

    Runs expire there as the settings say once all is folded, and not before: a run that is deleted meanwhile
    would come back with its next event, and be counted twice.

    Args:
        settings: Where the live one is, and all else.
        source: What is folded.
        into: A root collection; the path of a file with the back end ``sqlite``.
        work: The rebuild; it goes on where its state says.
        now: Monotonic seconds.
        wall_now: The time, to tell since when the topic retains.

    Raises:
        ConfigurationError: *source*, *into* and settings do not fit, or a setting is wrong.
        TransportRefusedError: A file or a subscription cannot be had until somebody acts.
        TransportUnavailableError: Pub/Sub does not answer.
        StoreUnavailableError: The store does not answer in bounded time, or the state cannot be written.
    """
    check(settings, source, into)
    folding: _Folding
    if settings.backend == "sqlite":
        folding = _IntoFile(settings, Path(into))
    else:
        folding = _IntoRoot(settings, into, wall_now)
    begun = now()
    waited = 0.0
    # New files may have come to an archive; the others are done once and for all.
    complete = bool(work.state.get(_END).get("complete")) and not isinstance(source, FromArchive)
    try:
        if not complete:
            complete = await folding.fold(source, work)
            waited = source.until_idle if isinstance(source, FromSubscription) and complete else 0.0
            seconds = now() - begun - waited
            expired = await folding.expire() if complete else 0
        else:
            seconds, expired = 0.0, 0
        if complete and not (isinstance(source, FromSubscription) and source.keeps):
            work.state.note({_END: {"complete": True}})
        runs = await folding.count() if complete else None
    finally:
        await folding.close()
    progress = work.progress
    return Rebuilt(
        complete=complete,
        events=progress.events,
        folded=progress.folded,
        runs=runs,
        rejects=progress.rejects,
        expired=expired,
        seconds=max(seconds, 0.0),
    )


class _Folding(Protocol):
    """Into where a rebuild goes."""

    async def fold(self, source: RebuildSource, work: RebuildWork) -> bool:
        """Fold *source*, and return whether that is done, and was not stopped."""
        ...

    async def expire(self) -> int:
        """Have runs expire as the settings say, and return how many got a time for that."""
        ...

    async def count(self) -> int:
        """Return how many runs there are."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class _IntoFile:
    def __init__(self, settings: Settings, path: Path) -> None:
        self._store = SQLiteRunLogService(path=path)
        self._days = settings.retention_days

    async def fold(self, source: RebuildSource, work: RebuildWork) -> bool:
        assert isinstance(source, FromArchive)  # noqa: S101 - checked before
        return await _fold_archive(source, self._store, work)

    async def expire(self) -> int:
        return await self._store.expire(self._days) if self._days is not None else 0

    async def count(self) -> int:
        return await _count(self._store)

    async def close(self) -> None:
        await self._store.close()


class _IntoRoot:
    def __init__(self, settings: Settings, into: str, wall_now: Callable[[], datetime]) -> None:
        from run_log.stores.firestore import FirestoreRoot, FirestoreRunLogService  # noqa: PLC0415 - see above

        self._settings = settings
        self._into = into
        self._wall_now = wall_now
        # Without a retention: nothing is refused for its age, and nothing expires yet.
        anew = settings.model_copy(update={"root_collection": into, "retention_days": None})
        self._store = FirestoreRunLogService.from_settings(anew)
        self._root = FirestoreRoot.from_settings(settings, into)

    async def fold(self, source: RebuildSource, work: RebuildWork) -> bool:
        match source:
            case FromArchive():
                return await _fold_archive(source, self._store, work)
            case FromSubscription():
                return await self._fold_subscription(source, work)
            case FromRoot():
                return await self._fold_root(source, work)

    async def expire(self) -> int:
        days = self._settings.retention_days
        expired = 0
        after: str | None = "" if days is not None else None
        while days is not None and after is not None:
            count, after = await self._root.expire_page(days, after)
            expired += count
        return expired

    async def count(self) -> int:
        return await _count(self._store)

    async def close(self) -> None:
        await asyncio.gather(self._store.close(), self._root.close())

    async def _fold_root(self, source: FromRoot, work: RebuildWork) -> bool:
        from run_log.stores.firestore import FirestoreRoot  # noqa: PLC0415 - see above

        root = FirestoreRoot.from_settings(self._settings, source.name)
        try:
            return await rebuild_from_root(root, self._store, work)
        finally:
            await root.close()

    async def _fold_subscription(self, source: FromSubscription, work: RebuildWork) -> bool:
        from run_log.projector._pubsub import PubSubSource  # noqa: PLC0415 - see above
        from run_log.pubsub import REPLAY_LEASE, PubSubConnection, end_replay  # noqa: PLC0415

        connection = PubSubConnection.from_settings(self._settings)
        name = replay_name(self._into)
        if not work.state.get(_REPLAY):
            since = await asyncio.to_thread(self._begin, connection, name, source.since)
            work.state.note({_REPLAY: {"subscription": name, "since": since.isoformat()}})
        messages = PubSubSource(connection, name)
        limits = PullLimits(lease_seconds=REPLAY_LEASE.total_seconds())
        try:
            complete = await rebuild_from_subscription(
                messages, self._store, work, until_idle=source.until_idle, limits=limits
            )
        finally:
            await messages.close()
        if complete and not source.keeps:
            await asyncio.to_thread(end_replay, connection, name)
        return complete

    def _begin(self, connection: PubSubConnection, name: str, since: datetime | None) -> datetime:
        from run_log.pubsub import begin_replay, topic_retention  # noqa: PLC0415 - see above

        topic = self._settings.topic
        if since is None:
            retention = topic_retention(connection, topic)
            if retention is None:
                raise ConfigurationError(
                    f"the topic {topic!r} keeps nothing that was delivered; have it retain (`gcloud pubsub "
                    f"topics update {topic} --message-retention-duration=31d`), or pass --since, or --from "
                    "archive:PATH or root:NAME"
                )
            since = self._wall_now() - retention
        begin_replay(connection, topic, name, since)
        return since


async def _fold_archive(source: FromArchive, store: ProjectionStore, work: RebuildWork) -> bool:
    files = await asyncio.to_thread(find_files, source.place, without=[work.state.path, work.rejects.path])
    return await rebuild_from_archive(files, store, work)


async def _count(log: RunLog) -> int:
    count, cursor = 0, None
    while True:
        workflows, cursor = await log.list_workflows(limit=_WORKFLOWS_AT_A_TIME, start_after=cursor)
        count += sum(stats.total for stats in workflows)
        if cursor is None:
            return count
