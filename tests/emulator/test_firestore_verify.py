"""Counts in Firestore that are verified, and repaired while projectors write."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.cloud import firestore

from run_log.core import RunEvent, RunStatus, StoreError, StoreUnavailableError
from run_log.core.counters import Scope, SummaryCounter, hour_of
from run_log.projector import Projector
from run_log.stores import FirestoreRunLogService
from run_log.stores.audit import Verification, compare, verify
from run_log.stores.committing.commits import MAX_STATS_CHANGES
from run_log.stores.firestore._documents import counter_path
from run_log.stores.firestore.client import Patience
from run_log.stores.stored.fields import PAYLOADS
from run_log.testing import a_run, an_event

from .firestore_kit import OpenedService, Watch, WatchedService, vendor_error

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

Told = frozenset[tuple[str, int]]
"""Which counts are wrong, and by how much."""

NOW = datetime.now(UTC)
"""What the runs are at most a day older than: the service goes by the machine's clock."""

W = "autopilot_runs/w"
RUNNING, SUCCESS, FAILED = RunStatus.RUNNING, RunStatus.SUCCESS, RunStatus.FAILED
vendor: Any = firestore  # published without annotations


def lives(count: int, *, seed: int, first: int = 0) -> list[RunEvent]:
    """Return the events of so many runs that started within the day before `NOW`, in order."""
    chance = random.Random(seed)
    return [
        an_event(
            a_run(
                workflow_id="w",
                id=f"r{number:05}",
                status=status,
                started_at=NOW - timedelta(hours=chance.random() * 24),
                duration_ms=chance.random() * 10_000,
            )
        )
        for number in range(first, first + count)
        for status in (RUNNING, chance.choice((SUCCESS, FAILED)))
    ]


async def plant(plain: OpenedService, changes: Mapping[str, int], path: str = W) -> None:
    """Add to fields of a document that holds counts what no run stands for."""
    added = {name: vendor.Increment(by) for name, by in changes.items()}
    await plain.reference(path).update(added)


async def held(plain: OpenedService, path: str = W) -> dict[str, Any]:
    """Return what a document holds."""
    return dict((await plain.reference(path).get()).to_dict())


async def verified(service: FirestoreRunLogService, *, repair: bool = False, page: int = 7) -> Verification:
    """Return what came of the one workflow there is, read in many pages."""
    (found,) = [one async for one in verify(service.audit(page=page), repair=repair)]
    return found


def told(found: Verification) -> Told:
    """Return which counts are wrong, and by how much."""
    assert found.problem is None
    assert not found.run_findings
    return frozenset((str(one.count), one.stored - one.recounted) for one in found.counts)


COUNTED = lives(1, seed=1)[-1].run
"""A run of every set with seed 1: the hour and the day in which it counts have counters at any time."""

HOUR = hour_of(COUNTED.started_at)
DAY = HOUR // 24
WRONG = {
    "total": 2,
    "by_status.failed": 3,
    counter_path(SummaryCounter(Scope.DAY, DAY, COUNTED.status.value)): -4,
    counter_path(SummaryCounter(Scope.HOUR, HOUR, "b7")): 5,
    counter_path(SummaryCounter(Scope.ALL, 0, "micros")): 60,
}
"""What is planted: a total that is not the sum of the statuses, and one count of each other kind."""

TOLD: Told = frozenset(
    {
        *(("total", 2), ("failed", 3), ("micros", 60)),
        (f"{COUNTED.status.value} {COUNTED.started_at:%Y-%m-%d}", -4),
        (f"b7 {COUNTED.started_at:%Y-%m-%d %H}h", 5),
    }
)


async def test_shards(plain: OpenedService) -> None:
    """Counts over shards are verified as their sum, also once there are fewer shards, and repaired in one."""
    many = WatchedService(Watch(), Patience(), stats_shards=5)
    await many.apply(lives(40, seed=1))
    await plain.apply(lives(20, seed=2, first=30))
    assert not (await verified(many)).differs
    stats = await plain.get_stats("w")
    await plant(plain, WRONG, f"{W}/stats/3")
    shards = [await held(plain, f"{W}/stats/{shard}") for shard in (1, 2, 3, 4)]

    repaired = await verified(plain, repair=True)

    assert TOLD == told(repaired)
    assert not (await verified(plain)).differs
    assert stats == await plain.get_stats("w") == await many.get_stats("w")
    assert shards == [await held(plain, f"{W}/stats/{shard}") for shard in (1, 2, 3, 4)]
    await many.close()


async def test_a_large_repair(service: WatchedService, plain: OpenedService, watch: Watch) -> None:
    """A repair of more counts than a commit may change is made in parts, and all of it is made."""
    await service.apply(lives(3, seed=1))
    counters = [
        SummaryCounter(Scope.DAY, DAY - day, f"b{bucket}") for day in (1, 2, 3, 4) for bucket in range(263)
    ]
    for start in range(0, len(counters), 350):
        await plant(plain, {counter_path(counter): 1 for counter in counters[start : start + 350]})
    await plant(plain, {"total": 9})
    watch.writes.clear()
    watch.changes.clear()

    repaired = await verified(service, repair=True)

    assert len(counters) + 1 == len(repaired.counts)
    assert 3 == len([writes for writes in watch.writes if f"{W}/repairs/last" in writes])
    assert max(watch.changes) <= MAX_STATS_CHANGES
    assert not (await verified(service)).differs


@pytest.mark.parametrize("page", [1, 7, 100])
async def test_pages(service: WatchedService, watch: Watch, page: int) -> None:
    """A workflow is read page by page, each run once, without its payloads."""
    await service.apply(lives(21, seed=1))
    watch.calls.clear()
    watch.documents = 0

    found = await verified(service, page=page)
    async with service.audit(page=page).snapshot("w") as snapshot:
        pages = [documents async for documents in snapshot.documents(whole=False)]

    assert (21, False) == (found.runs, found.differs)
    assert 2 * (21 // page + 1) == watch.calls.count("run_query")
    assert 2 * 21 + 1 == watch.documents
    assert page >= max(map(len, pages))
    assert not any({*PAYLOADS} & {*document.fields} for documents in pages for document in documents)


@pytest.mark.parametrize(
    ("moment", "error", "repaired", "recounts"),
    [("after", "ServiceUnavailable", False, 2), ("before", "Aborted", True, 1)],
    ids=["its answer is lost", "locks are not to be had"],
)
async def test_a_repair_that_fails_at_first(
    service: WatchedService,
    plain: OpenedService,
    watch: Watch,
    moment: str,
    error: str,
    *,
    repaired: bool,
    recounts: int,
) -> None:
    """A repair whose answer is lost is found done by a recount; one that locks hold off is tried as it is."""
    await service.apply(lives(9, seed=1))
    await plant(plain, WRONG)
    getattr(watch, moment)["commit"] = [vendor_error(error)]
    watch.calls.clear()

    found = await verified(service, repair=True, page=100)

    assert (TOLD if repaired else frozenset(), repaired) == (told(found), found.repaired)
    assert (recounts, 2) == (watch.calls.count("run_query"), watch.calls.count("commit"))
    assert [] == getattr(watch, moment)["commit"]
    assert not (await verified(service)).differs


async def test_a_moment_that_is_over(service: WatchedService) -> None:
    """A moment that Firestore no longer knows is an error that says why, at once."""
    await service.apply(lives(1, seed=1))
    long_ago = datetime.now(UTC) - timedelta(days=30)

    async with service.audit().snapshot("w", at=long_ago) as snapshot:
        for read in (snapshot.counts(), anext(snapshot.documents(whole=False))):
            with pytest.raises(StoreError, match=r"as it was for an hour.*took longer") as caught:
                await read
            assert not isinstance(caught.value, StoreUnavailableError)


async def test_counts_that_cannot_be_read(service: WatchedService, plain: OpenedService) -> None:
    """Counts that something else changed to what they cannot be are told, and not repaired."""
    await service.apply(lives(3, seed=1))
    await plain.reference(W).update({"by_status": {"lost": 7}})

    found = await verified(service, repair=True)

    assert (3, [], True, False) == (found.runs, found.counts, found.differs, found.repaired)
    assert "damaged" in str(found.problem)
    await plain.reference(W).update({"workflow_id": "another"})
    assert "says that it is of workflow 'another'" in str((await verified(service)).problem)


async def test_nobody_else_sees_repairs(service: WatchedService, plain: OpenedService) -> None:
    """What a repair leaves behind is in no listing, and is no workflow once the workflow is gone."""
    events = lives(3, seed=1)
    await service.apply(events)
    await plant(plain, WRONG)
    await verified(service, repair=True)

    workflows, _ = await service.list_workflows()
    runs, _ = await service.list_runs("w")

    assert (["w"], 3) == ([stats.workflow_id for stats in workflows], len(runs))
    for path in (W, *(f"{W}/runs/{event.run.id}" for event in events)):
        await plain.reference(path).delete()
    assert [] == [one async for one in verify(service.audit())]


class Writers:
    """Three projectors that go on with the same runs of the one workflow until they are told to stop."""

    RUNS = 60

    def __init__(self) -> None:
        self._stores = [FirestoreRunLogService.from_env() for _ in range(3)]
        self._begun = 0

    @property
    def runs(self) -> int:
        """How many runs they have written."""
        return min(self._begun, self.RUNS)

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Write for as long as the block lasts."""
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._write(Projector(store), stop)) for store in self._stores]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def _write(self, projector: Projector, stop: asyncio.Event) -> None:
        while not stop.is_set():
            events = lives(3, seed=self._begun, first=self._begun % self.RUNS)
            self._begun += 3
            for event in events:
                await projector.apply([event])

    async def close(self) -> None:
        """Let go of the stores."""
        for store in self._stores:
            await store.close()


@pytest.fixture
async def writers() -> AsyncIterator[Writers]:
    """Yield three projectors."""
    writers = Writers()
    yield writers
    await writers.close()


async def test_what_is_written_meanwhile(service: WatchedService, writers: Writers) -> None:
    """While projectors write, every recount finds nothing, and what is compared with itself is the same."""
    async with writers.writing():
        for _ in range(10):
            for found in (
                verify(service.audit(page=7)),
                compare(service.audit(page=7), service.audit(page=50)),
            ):
                assert [] == [one async for one in found if one.differs]

    last = await verified(service)
    assert (writers.runs, False) == (last.runs, last.differs)


async def test_repairs_while_projectors_write(
    service: WatchedService, plain: OpenedService, writers: Writers
) -> None:
    """Repaired while projectors write, counts are wrong as before or right at every moment, and end right."""
    await service.apply(lives(20, seed=0, first=90_000))
    for _ in range(5):
        await plant(plain, WRONG)
        polled = [told(await verified(service))]
        async with writers.writing():
            repairs = asyncio.gather(verified(service, repair=True), verified(plain, repair=True))
            while not repairs.done() or polled[-1]:
                polled.append(told(await verified(service, page=50)))

        assert [(False, False), (False, True)] == sorted((one.differs, one.repaired) for one in await repairs)
        assert {TOLD, frozenset()} == {*polled}
        assert sorted(polled, key=len, reverse=True) == polled
        found = await verified(service)
        assert (20 + writers.runs, False) == (found.runs, found.differs)
        assert 20 + writers.runs == (await service.get_stats("w"))["total"]
