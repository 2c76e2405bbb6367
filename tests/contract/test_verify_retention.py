"""Counts of workflows whose runs expire: what may have been deleted stays counted, all else is exact."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from run_log.core import RunEvent, RunStatus
from run_log.core.counters import Scope, SummaryCounter, bucket_name, hour_of
from run_log.stores.audit import Verification, verify
from run_log.testing import an_event

from .audited import AuditedStore, OpenPair

DAYS = 30
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def _retention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_LOG_RETENTION_DAYS", str(DAYS))


async def verified(store: AuditedStore, *, repair: bool = False) -> Verification:
    """Return what came of the one workflow there is."""
    (found,) = [one async for one in verify(store.audit(page=3), repair=repair)]
    return found


def told(found: Verification) -> set[tuple[Scope, str, int]]:
    """Return which counts are wrong, and by how much."""
    return {(one.count.scope, one.count.name, one.stored - one.recounted) for one in found.counts}


def runs(at: datetime, *statuses: RunStatus) -> list[RunEvent]:
    """Return events of a run for each status, from that moment."""
    return [
        an_event(
            workflow_id="w",
            id=f"{at:%j}-{number}",
            status=status,
            started_at=at,
            occurred_at=at,
            duration_ms=5.0,
        )
        for number, status in enumerate(statuses)
    ]


async def store_old_and_new(store: AuditedStore) -> list[RunEvent]:
    """Store runs that have expired by now, and runs that have not; return the former."""
    statuses = (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED)
    old = runs(store.clock(), *statuses)
    await store.apply([*old, *runs(store.clock() - DAY, RunStatus.RUNNING, RunStatus.PAUSED)])
    store.clock.ahead += (DAYS + 3) * DAY
    await store.apply(runs(store.clock(), *statuses))
    return old


async def delete(store: AuditedStore, events: Sequence[RunEvent]) -> None:
    """Delete the runs of *events*."""
    for event in events:
        await store.delete(*event.key)


async def test_deleted_runs_stay_counted(store: AuditedStore) -> None:
    """Runs that were deleted since they had expired stay counted: nothing is found, nothing taken out."""
    old = await store_old_and_new(store)
    stats, summary = await store.get_stats("w"), await store.get_summary("w")

    assert not (await verified(store)).differs
    await delete(store, old)

    assert set() == told(await verified(store, repair=True))
    assert (stats, summary) == (await store.get_stats("w"), await store.get_summary("w"))


async def test_a_retention_that_only_the_runs_tell(
    store: AuditedStore, open_pair: OpenPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever checks without the setting goes by the runs that expire, where there still are any."""
    await delete(store, await store_old_and_new(store))
    monkeypatch.delenv("RUN_LOG_RETENTION_DAYS")

    checking = await open_pair()
    checking[0].clock.ahead = store.clock.ahead
    found = await verified(checking[0], repair=True)
    for one in checking:
        await one.close()

    assert set() == told(found)


async def test_what_has_not_ended_is_counted_exactly(store: AuditedStore) -> None:
    """Runs under way never expire, so one more of them than there are is found, in the total too."""
    await delete(store, await store_old_and_new(store))
    await store.add_runs("w", RunStatus.RUNNING, 2)

    found = await verified(store, repair=True)

    assert {(Scope.ALL, "running", 2), (Scope.ALL, "total", 2)} == told(found)
    assert not (await verified(store)).differs


async def test_fewer_than_there_are(store: AuditedStore) -> None:
    """Fewer runs than are there is wrong, whatever has expired, and is made as many as are there."""
    await delete(store, await store_old_and_new(store))
    await store.add_runs("w", RunStatus.SUCCESS, -2)

    found = await verified(store, repair=True)

    assert {(Scope.ALL, "success", -1), (Scope.ALL, "successful", -1), (Scope.ALL, "total", -1)} == told(
        found
    )
    assert not (await verified(store)).differs
    assert 1 == (await store.get_stats("w"))["successful"]


async def test_young_days_are_exact(store: AuditedStore) -> None:
    """Days and hours are exact of which nothing can have expired; of older ones more may be stored."""
    await delete(store, await store_old_and_new(store))
    hour = hour_of(store.clock())
    young = [
        SummaryCounter(Scope.HOUR, hour, "success"),
        SummaryCounter(Scope.DAY, hour // 24, bucket_name(9)),
        SummaryCounter(Scope.DAY, hour // 24 - DAYS + 2, "failed"),
        SummaryCounter(Scope.DAY, hour // 24 - DAYS - 20, "paused"),
    ]
    old = [
        SummaryCounter(Scope.ALL, 0, "micros"),
        SummaryCounter(Scope.DAY, hour // 24 - DAYS, "failed"),
        SummaryCounter(Scope.DAY, hour // 24 - DAYS - 20, bucket_name(9)),
    ]
    for counter in (*young, *old):
        await store.add_count("w", counter, 4)

    found = await verified(store, repair=True)

    assert {(counter.scope, counter.name, 4) for counter in young} == told(found)
    assert not (await verified(store)).differs
