"""Stats spread over several documents: readers add them up, whatever number they were written with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from run_log.core import ConfigurationError, RunStatus
from run_log.stores import FirestoreRunLogService
from run_log.testing import a_life, an_event

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

RUNS = 60

OpenService = Callable[[int], FirestoreRunLogService]


@pytest.fixture
async def with_shards() -> AsyncIterator[OpenService]:
    """Yield what makes services that write that many shards."""
    async with contextlib.AsyncExitStack() as opened:

        def make(shards: int) -> FirestoreRunLogService:
            service = FirestoreRunLogService(stats_shards=shards)
            opened.push_async_callback(service.close)
            return service

        yield make


ENDS = (RunStatus.FAILED, RunStatus.SUCCESS, RunStatus.SUCCESS)
LIVES = [a_life("w", f"r{n}", end=ENDS[n % 3]) for n in range(RUNS)]
EVENTS = [event for life in LIVES for event in life]
AGAIN = [
    an_event(life[1].run.model_copy(update={"status": RunStatus.SUCCESS, "attempt": 2})) for life in LIVES
]
TOTALS = {"total": RUNS, "successful": RUNS * 2 // 3}


async def _documents(service: FirestoreRunLogService) -> int:
    """Return how many documents hold stats of the workflow besides its own."""
    shards = service._workflow("w").collection("stats")  # pyright: ignore[reportPrivateUsage] # what is stored
    return len([snapshot async for snapshot in shards.stream()])


async def test_shards_add_up(with_shards: OpenService) -> None:
    """Stats over sixteen shards equal a recount, also for a reader that is set to another number."""
    writer, reader = with_shards(16), with_shards(1)

    await writer.apply(EVENTS)

    runs, _ = await reader.list_runs("w", limit=1_000)
    recount = {"total": len(runs), "successful": sum(run.status is RunStatus.SUCCESS for run in runs)}
    assert TOTALS == recount == await reader.get_stats("w") == await writer.get_stats("w")
    assert 15 == await _documents(reader)


@pytest.mark.parametrize("numbers", [(1, 4, 16), (16, 4, 1), (1, 16, 4)])
async def test_another_number_keeps_totals(with_shards: OpenService, numbers: tuple[int, ...]) -> None:
    """Raising or lowering the number of shards keeps the totals while runs go on to change."""
    steps = ([life[0] for life in LIVES], [life[1] for life in LIVES], AGAIN)
    for shards, events in zip(numbers, steps, strict=True):
        await with_shards(shards).apply(events)

    stats = [await with_shards(shards).get_stats("w") for shards in (1, 4, 16)]

    assert [{"total": RUNS, "successful": RUNS}] * 3 == stats


async def test_writers_with_different_numbers_at_once(with_shards: OpenService) -> None:
    """Writers that are set to different numbers of shards at the same time end in exact totals."""
    await asyncio.gather(*(with_shards(shards).apply(EVENTS) for shards in (1, 3, 16)))

    assert TOTALS == await with_shards(1).get_stats("w")


@pytest.mark.parametrize("shards", [0, -1, 501])
def test_a_number_out_of_range(shards: int) -> None:
    """A number of shards that cannot be is refused, with the range."""
    with pytest.raises(ConfigurationError, match="within 1 and 500"):
        FirestoreRunLogService(stats_shards=shards)


async def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """``RUN_LOG_STATS_SHARDS`` spreads the stats."""
    monkeypatch.setenv("RUN_LOG_STATS_SHARDS", "8")
    service = FirestoreRunLogService.from_env()

    await service.apply(EVENTS)

    assert 7 == await _documents(service)
    await service.close()
