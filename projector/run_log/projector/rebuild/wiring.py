"""Rebuilds wired from settings. What needs a Google library imports it when it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from run_log.core import ConfigurationError, Settings, TransportRefusedError, utc_now
from run_log.projector.archive import ArchiveFile, find_files
from run_log.projector.pull import PullLimits
from run_log.stores import RunLog, SQLiteRunLogService

from .folding import rebuild_from_archive, rebuild_from_root, rebuild_from_subscription
from .sources import FromArchive, FromRoot, FromSubscription, RebuildSource, check, rebuilding, replay_name
from .work import RebuildWork

if TYPE_CHECKING:
    from run_log.pubsub import PubSubConnection

_WALK: Final = "walk"
_REPLAY: Final = "replay"
_ROOT: Final = "root"
# How far this machine's clock may be ahead of Pub/Sub's, which stamps messages when they are published.
_SKEW: Final = timedelta(minutes=10)

_WORKFLOWS_AT_A_TIME: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """The result of a rebuild."""

    complete: bool
    """Whether all is folded. If not, it was stopped, and can go on."""
    went_on: bool
    """Whether it was complete before, and has folded what came or changed since."""
    events: int
    """Events folded, or runs merged, in all. What was read again counts only if it changed anything."""
    folded: int
    """The events or runs of this process among them."""
    runs: int | None
    """Runs that the new projection counts; None if the rebuild is not complete."""
    rejects: int
    """Number of rejects in all."""
    expired: int
    """Runs that got a time at which they expire."""
    assumed: Mapping[str, int]
    """Assumptions that were made to read foreign documents, each with the number of documents."""
    seconds: float
    """How long this process folded, without the last wait for more messages."""


async def rebuild(settings: Settings, source: RebuildSource, *, into: str, work: RebuildWork) -> Rebuilt:
    """Fold *source* into a new projection beside the live one.

    Called again after that, it folds what came or changed since. Once all is folded, and not before, runs get
    the time at which they expire by the settings; `rebuilding` says why.

    Args:
        settings: Where the live projection is.
        source: Where events come from.
        into: The root collection to make; with the back end ``sqlite``, the path of a file.
        work: The rebuild. It goes on from its state.

    Raises:
        ConfigurationError: *source*, *into* and the settings do not fit, a setting is wrong, or there is no
            file.
        NotFoundError: The root collection to copy does not exist.
        TransportRefusedError: A file or a subscription cannot be read until somebody acts.
        TransportUnavailableError: Pub/Sub does not answer.
        StoreUnavailableError: The store does not answer in bounded time, or the state cannot be written.
    """
    check(settings, source, into)
    went_on = work.goes_on
    folding = _IntoFile(into) if settings.backend == "sqlite" else _IntoRoot(settings, into)
    begun = time.monotonic()
    expired, runs = 0, None
    try:
        complete = await folding.fold(source, work)
        seconds = time.monotonic() - begun
        if complete and isinstance(source, FromSubscription):
            seconds -= source.until_idle
        if complete and not work.is_settled:
            days = settings.retention_days
            expired = await folding.expire(days) if days is not None else 0
            work.settle()
        if complete:
            runs = await _count(folding.store)
    finally:
        await folding.close()
    return Rebuilt(
        complete=complete,
        went_on=went_on,
        events=work.events,
        folded=work.folded,
        runs=runs,
        rejects=len(work.rejects),
        expired=expired,
        assumed=work.assumed,
        seconds=max(seconds, 0.0),
    )


class _IntoFile:
    def __init__(self, into: str) -> None:
        self.store = SQLiteRunLogService(path=Path(into))

    async def fold(self, source: RebuildSource, work: RebuildWork) -> bool:
        assert isinstance(source, FromArchive)  # noqa: S101 - checked before
        return await rebuild_from_archive(await _files(source, work), self.store, work)

    async def expire(self, days: int) -> int:
        return await self.store.expire(days)

    async def close(self) -> None:
        await self.store.close()


class _IntoRoot:
    def __init__(self, settings: Settings, into: str) -> None:
        from run_log.stores.firestore import FirestoreRoot, FirestoreRunLogService  # noqa: PLC0415 - see above

        self._settings = settings
        self._into = into
        self.store = FirestoreRunLogService.from_settings(rebuilding(settings, into))
        self._root = FirestoreRoot.from_settings(settings, into)

    async def fold(self, source: RebuildSource, work: RebuildWork) -> bool:
        match source:
            case FromArchive():
                return await rebuild_from_archive(await _files(source, work), self.store, work)
            case FromSubscription():
                return await self._fold_subscription(source, work)
            case FromRoot():
                return await self._fold_root(source, work)

    async def expire(self, days: int) -> int:
        return await self._root.expire(days)

    async def close(self) -> None:
        await asyncio.gather(self.store.close(), self._root.close())

    async def _fold_root(self, source: FromRoot, work: RebuildWork) -> bool:
        from run_log.stores.firestore import FirestoreRoot  # noqa: PLC0415 - see above

        root = FirestoreRoot.from_settings(self._settings, source.name)
        try:
            since = _walk_since(work, await root.now())
            return await rebuild_from_root(partial(root.page, since=since), self.store.merge, work)
        finally:
            await root.close()

    async def _fold_subscription(self, source: FromSubscription, work: RebuildWork) -> bool:
        from run_log.projector.pubsub import opened_source  # noqa: PLC0415 - see above
        from run_log.pubsub import REPLAY_LEASE, PubSubConnection, end_replay  # noqa: PLC0415

        connection = PubSubConnection.from_settings(self._settings)
        name = replay_name(self._into)
        replay = work.state.get(_REPLAY)
        heard = replay.get("heard")
        # An earlier version deleted its subscription without a note once it was complete.
        if not replay.get("subscription") or ("heard" not in replay and work.goes_on):
            since = await asyncio.to_thread(
                self._begin, connection, name, source.since, heard and datetime.fromisoformat(heard)
            )
            noted = {"subscription": name, "since": since.isoformat(), "heard": heard}
            work.state.note({_REPLAY: noted})
        limits = PullLimits(lease_seconds=REPLAY_LEASE.total_seconds())
        try:
            async with opened_source(connection, name) as messages:
                complete = await rebuild_from_subscription(
                    messages, self.store, work, until_idle=source.until_idle, limits=limits
                )
        except TransportRefusedError as error:
            raise TransportRefusedError(
                f"{error}; if the rebuild's own subscription is gone, delete {work.state.path} to begin again"
            ) from error
        if complete and not source.keeps:
            until = utc_now() - timedelta(seconds=source.until_idle) - _SKEW
            work.state.note({_REPLAY: {"subscription": None, "heard": until.isoformat()}})
            await asyncio.to_thread(end_replay, connection, name)
        return complete

    def _begin(
        self, connection: PubSubConnection, name: str, since: datetime | None, heard: datetime | None
    ) -> datetime:
        """Create a subscription that delivers what the topic retains, and return since when that is.

        Everything that was published before *heard* is folded already. Otherwise *since* is what the user
        asked for; None is all that the topic retains.
        """
        from run_log.pubsub import begin_replay, topic_retention  # noqa: PLC0415 - see above

        topic = self._settings.topic
        if heard is not None:
            retention = topic_retention(connection, topic)
            if retention is None or utc_now() - retention > heard:
                raise ConfigurationError(
                    f"the topic {topic!r} no longer retains all that was published since "
                    f"{heard.isoformat(timespec='seconds')}; pass --from archive:PATH or root:NAME"
                )
            since = heard
        elif since is None:
            retention = topic_retention(connection, topic)
            if retention is None:
                raise ConfigurationError(
                    f"the topic {topic!r} does not retain messages; set a retention (`gcloud pubsub "
                    f"topics update {topic} --message-retention-duration=31d`), or pass --since, or --from "
                    "archive:PATH or root:NAME"
                )
            since = utc_now() - retention
        begin_replay(connection, topic, name, since)
        return since


def _walk_since(work: RebuildWork, now: datetime) -> datetime | None:
    """Return since when runs must have changed to be copied; None for all runs.

    A walk over the whole root collection may take several processes. The next walk copies what has changed
    since that one began.
    """
    noted, place = work.state.get(_WALK), work.state.get(_ROOT)
    since = noted.get("since")
    if place.get("after", "") is None:
        since = noted.get("begun")
        # In this order: if a crash cuts off the second line, the walk before is repeated, and none is
        # skipped.
        work.state.note({_ROOT: {"after": ""}, _WALK: {"since": since, "begun": now.isoformat()}})
    elif not noted:
        # An earlier version did not note when it began its walk.
        work.state.note({_WALK: {"since": None, "begun": None if place else now.isoformat()}})
    return None if since is None else datetime.fromisoformat(since)


async def _files(source: FromArchive, work: RebuildWork) -> list[ArchiveFile]:
    without = [work.state.path, work.rejects.path]
    return await asyncio.to_thread(find_files, source.path, without=without)


async def _count(log: RunLog) -> int:
    count, cursor = 0, None
    while True:
        workflows, cursor = await log.list_workflows(limit=_WORKFLOWS_AT_A_TIME, start_after=cursor)
        count += sum(stats.total for stats in workflows)
        if cursor is None:
            return count
