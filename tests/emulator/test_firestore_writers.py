"""Many writers at once, and writers whose memory is wrong: the totals stay exact."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from run_log.core import Outcome, RunEvent, RunStatus, WorkflowRun
from run_log.core.clock import PROCESS_CLOCK
from run_log.stores import FirestoreRunLogService
from run_log.stores.firestore.client import Patience
from run_log.testing import a_life, a_run, an_event

from .firestore_kit import Watch, WatchedService, vendor_error

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

WRITERS = 16
PATIENCE = 120.0


@pytest.fixture
async def writers() -> AsyncIterator[list[FirestoreRunLogService]]:
    """Yield services that know nothing of each other, and let each other go first for as long as it takes."""
    services = [WatchedService(Watch(), Patience(PATIENCE)) for _ in range(WRITERS)]
    yield [*services]
    await asyncio.gather(*(service.close() for service in services))


async def apply_by_all(
    writers: Sequence[FirestoreRunLogService], events: Sequence[RunEvent]
) -> list[list[Outcome]]:
    """Have the writers apply *events* at once, each its share."""
    shares = (writer.apply(events[n::WRITERS]) for n, writer in enumerate(writers))
    return await asyncio.gather(*shares)


async def test_writers_of_one_run(writers: list[FirestoreRunLogService]) -> None:
    """Sixteen writers of one run end in its newest state, with every event in its history, counted once."""
    events = [
        an_event(workflow_id="w", id="r", hlc=n, status=RunStatus.SUCCESS if n == 31 else RunStatus.RUNNING)
        for n in range(32)
    ]

    outcomes = await apply_by_all(writers, events)

    assert await writers[0].get_stats("w") == {"total": 1, "successful": 1}
    assert events[-1].run == await writers[0].get_run("w", "r")
    assert [event.version for event in events] == [
        item.version for item in await writers[0].get_history("w", "r")
    ]
    assert Outcome.DUPLICATE not in [outcome for answers in outcomes for outcome in answers]


async def test_savers_of_one_run(writers: list[FirestoreRunLogService]) -> None:
    """Sixteen savers of one run count it once, and each save is in its history."""
    runs = [a_run(workflow_id="w", id="r", result={"by": n}) for n in range(WRITERS)]

    await asyncio.gather(*(writer.save_run(run) for writer, run in zip(writers, runs, strict=True)))

    history = await writers[0].get_history("w", "r")
    assert await writers[0].get_stats("w") == {"total": 1, "successful": 1}
    assert len({item.version for item in history}) == WRITERS


async def test_writers_of_one_workflow(writers: list[FirestoreRunLogService]) -> None:
    """Sixteen writers of one hot workflow, each event twice, count each run once and each success."""
    lives = [
        a_life("w", f"r{n}", end=RunStatus.FAILED if n % 4 == 0 else RunStatus.SUCCESS) for n in range(200)
    ]
    events = [event for life in lives for event in life] * 2
    random.Random(3).shuffle(events)

    await apply_by_all(writers, events)

    runs, _ = await writers[0].list_runs("w", limit=1_000)
    assert await writers[0].get_stats("w") == {"total": 200, "successful": 150}
    assert {life[1].run.id: life[1].run for life in lives} == {run.id: run for run in runs}


async def test_two_services_with_stale_memory(writers: list[FirestoreRunLogService]) -> None:
    """Two services that take turns at one run, each remembering what the other made wrong, stay exact."""
    one, other = writers[:2]
    for n in range(6):
        status = RunStatus.SUCCESS if n % 2 else RunStatus.FAILED
        await (one if n % 3 else other).save_run(a_run(workflow_id="w", id="r", status=status))

        assert {"total": 1, "successful": n % 2} == await one.get_stats("w") == await other.get_stats("w")

    assert len(await one.get_history("w", "r")) == 6


async def test_a_save_comes_after_what_is_stored(writers: list[FirestoreRunLogService]) -> None:
    """A save is the newest state though another machine, whose clock is ahead, wrote the run before."""
    ahead = an_event(
        workflow_id="w", id="r", status=RunStatus.RUNNING, hlc=PROCESS_CLOCK.tick() + 3_600_000_000
    )
    await writers[0].apply([ahead])

    await writers[1].save_run(a_run(workflow_id="w", id="r"))

    history = await writers[1].get_history("w", "r")
    assert a_run(workflow_id="w", id="r") == await writers[1].get_run("w", "r")
    assert await writers[1].get_stats("w") == {"total": 1, "successful": 1}
    assert [item.status for item in history] == [RunStatus.RUNNING, RunStatus.SUCCESS]


def test_event_loops_in_turn() -> None:
    """One service works in one event loop after another, and remembers what it wrote."""
    service = FirestoreRunLogService()

    async def save(number: int) -> dict[str, int]:
        await service.save_run(a_run(workflow_id="w", id="same"))
        await service.save_run(a_run(workflow_id="w", id=f"r{number}"))
        stats = await service.get_stats("w")
        await service.close()
        return stats

    totals = [asyncio.run(save(number))["total"] for number in range(3)]

    assert totals == [2, 3, 4]


def test_event_loops_at_once() -> None:
    """One service works in event loops of several threads at once."""
    service = FirestoreRunLogService()
    together = threading.Barrier(3)

    async def save(number: int) -> None:
        together.wait()
        for n in range(5):
            await service.save_run(a_run(workflow_id="w", id=f"r{number}-{n}"))
        await service.close()

    def in_loop(number: int) -> None:
        asyncio.run(save(number))

    async def stats() -> dict[str, int]:
        answer = await service.get_stats("w")
        await service.close()
        return answer

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(in_loop, range(3)))

    assert asyncio.run(stats()) == {"total": 15, "successful": 15}


async def test_saves_under_way_together_keep_their_order(service: WatchedService, watch: Watch) -> None:
    """Of two saves of a run under way at once, the one that began last is the run's state."""
    runs = [a_run(workflow_id="w", id=f"r{n}", status=RunStatus.RUNNING) for n in range(20)]

    async def end(run: WorkflowRun) -> None:
        first = asyncio.create_task(service.save_run(run))
        await asyncio.sleep(0)
        await service.save_run(run.model_copy(update={"status": RunStatus.SUCCESS}))
        await first

    watch.before["commit"] = [vendor_error("ServiceUnavailable") for _ in range(10)]
    await asyncio.gather(*(end(run) for run in runs))
    listed, _ = await service.list_runs("w")

    assert {RunStatus.SUCCESS} == {run.status for run in listed}
    assert {"total": 20, "successful": 20} == await service.get_stats("w")
