"""Stats spread over several documents: readers add them up, whatever number they were written with."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from run_log.core import ConfigurationError, RunEvent, RunStatus
from run_log.stores import FirestoreRunLogService
from run_log.stores.committing.patience import Patience
from run_log.testing import a_life, an_event

from .firestore_kit import Watch, WatchedService

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

RUNS = 60

OpenService = Callable[[int], FirestoreRunLogService]


@pytest.fixture
async def with_shards() -> AsyncIterator[OpenService]:
    """Yield what makes services that write that many shards."""
    services: list[FirestoreRunLogService] = []

    def make(shards: int) -> FirestoreRunLogService:
        services.append(FirestoreRunLogService(stats_shards=shards))
        return services[-1]

    yield make
    await asyncio.gather(*(service.close() for service in services))


def _lives() -> list[list[RunEvent]]:
    return [
        a_life("w", f"r{n}", end=RunStatus.FAILED if n % 3 == 0 else RunStatus.SUCCESS) for n in range(RUNS)
    ]


def _step(lives: Sequence[Sequence[RunEvent]], number: int) -> list[RunEvent]:
    return [life[number] for life in lives]


async def _documents(service: FirestoreRunLogService) -> int:
    """Return how many documents hold stats of the workflow besides its own."""
    shards = service._workflow("w").collection("stats")  # pyright: ignore[reportPrivateUsage] # what is stored
    return len([snapshot async for snapshot in shards.stream()])


async def test_shards_add_up(with_shards: OpenService) -> None:
    """Stats over sixteen shards equal a recount, also for a reader that is set to another number."""
    writer, reader = with_shards(16), with_shards(1)

    await writer.apply([event for life in _lives() for event in life])

    runs, _ = await reader.list_runs("w", limit=1_000)
    recount = {"total": len(runs), "successful": sum(run.status is RunStatus.SUCCESS for run in runs)}
    assert {"total": RUNS, "successful": RUNS * 2 // 3} == recount
    assert recount == await reader.get_stats("w") == await writer.get_stats("w")
    assert 15 == await _documents(reader)


@pytest.mark.parametrize("numbers", [(1, 4, 16), (16, 4, 1), (1, 16, 4)])
async def test_another_number_keeps_totals(with_shards: OpenService, numbers: tuple[int, ...]) -> None:
    """Raising or lowering the number of shards keeps the totals while runs go on to change."""
    lives = _lives()
    again = [
        an_event(life[1].run.model_copy(update={"status": RunStatus.SUCCESS, "attempt": 2})) for life in lives
    ]
    for shards, events in zip(numbers, (_step(lives, 0), _step(lives, 1), again), strict=True):
        await with_shards(shards).apply(events)

    stats = [await with_shards(shards).get_stats("w") for shards in (1, 4, 16)]

    assert [{"total": RUNS, "successful": RUNS}] * 3 == stats


async def test_writers_with_different_numbers_at_once(with_shards: OpenService) -> None:
    """Writers that are set to different numbers of shards at the same time end in exact totals."""
    events = [event for life in _lives() for event in life]
    writers = [with_shards(shards) for shards in (1, 3, 16)]

    await asyncio.gather(*(writer.apply(events) for writer in writers))

    assert {"total": RUNS, "successful": RUNS * 2 // 3} == await with_shards(1).get_stats("w")


async def test_one_shard_costs_nothing() -> None:
    """With one shard nothing but the workflow's own document is written or read for its stats."""
    watch = Watch()
    service = WatchedService(watch, Patience())

    await service.apply([event for life in _lives() for event in life])
    watch.calls.clear()
    await service.get_stats("w")
    calls = list(watch.calls)

    paths = set(itertools.chain(*watch.writes))
    assert ["autopilot_runs/w"] == [path for path in paths if "/runs/" not in path]
    assert 0 == await _documents(service)
    assert ["batch_get_documents"] == calls
    await service.close()


async def test_shards_are_announced_once() -> None:
    """Once a process has announced its shards, commits leave the workflow's own document alone."""
    watch = Watch()
    service = WatchedService(watch, Patience(), stats_shards=500)
    lives = [life for life in _lives() if life[0].run.id != "r0"]

    for life in lives:
        await service.apply(life)

    told = [writes for writes in watch.writes if "autopilot_runs/w" in writes]
    assert 1 <= len(told) <= 2  # one of sixty runs may be counted by the workflow's own document
    assert {"total": RUNS - 1, "successful": RUNS * 2 // 3} == await service.get_stats("w")
    await service.close()


@pytest.mark.parametrize("shards", [0, -1, 501])
def test_a_number_out_of_range(shards: int) -> None:
    """A number of shards that cannot be is refused, with the range."""
    with pytest.raises(ConfigurationError, match="within 1 and 500"):
        FirestoreRunLogService(stats_shards=shards)


async def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """``RUN_LOG_STATS_SHARDS`` spreads the stats."""
    monkeypatch.setenv("RUN_LOG_STATS_SHARDS", "8")
    service = FirestoreRunLogService.from_env()

    await service.apply([event for life in _lives() for event in life])

    assert 7 == await _documents(service)
    await service.close()
