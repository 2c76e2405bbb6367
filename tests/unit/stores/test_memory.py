"""The embedded run log's own promises: a ring of 200 runs a workflow that forgets no count and no pause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from typing_extensions import override

from run_log.core import Outcome, RunStatus, StoreError, WorkflowRun
from run_log.stores import InMemoryRunLogService, WorkflowStats
from run_log.stores.inbox import InboxSelection
from run_log.stores.listings import Selection
from run_log.stores.memory._service import MAX_RUNS
from run_log.stores.stale import StaleSelection
from run_log.stores.stored.reading import Page
from run_log.testing import a_run, an_event

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def run(number: int, status: RunStatus = RunStatus.SUCCESS, workflow_id: str = "w") -> WorkflowRun:
    """Return a run that started *number* minutes after noon."""
    return a_run(
        workflow_id=workflow_id,
        id=f"r{number}",
        status=status,
        started_at=NOON + timedelta(minutes=number),
    )


async def filled(count: int, status: RunStatus = RunStatus.SUCCESS) -> InMemoryRunLogService:
    """Return a service with that many runs."""
    service = InMemoryRunLogService()
    for number in range(count):
        await service.save_run(run(number, status))
    return service


async def listed(service: InMemoryRunLogService) -> list[str]:
    """Return the ids of the runs that are kept."""
    return [item.id for item in (await service.list_runs("w", limit=1_000))[0]]


async def test_the_newest_runs_are_kept() -> None:
    """Of 250 runs the 200 newest are kept, whatever the order they came in."""
    service = InMemoryRunLogService()
    numbers = [n for start in range(10) for n in range(start, 250, 10)]

    for number in numbers:
        await service.save_run(run(number))

    assert [f"r{n}" for n in range(249, 49, -1)] == await listed(service)
    assert await service.get_run("w", "r0") is None
    assert await service.get_history("w", "r0") == ()


async def test_an_evicted_run_is_not_counted_again() -> None:
    """An evicted run stays counted; saved again, its change of state is counted; paused, it is kept again."""
    service = await filled(250)
    assert await service.get_stats("w") == {"total": 250, "successful": 250}

    await service.save_run(run(0))
    await service.save_run(run(1, RunStatus.FAILED))
    await service.save_run(run(2, RunStatus.PAUSED))

    assert await service.get_stats("w") == {"total": 250, "successful": 248}
    assert [run(2, RunStatus.PAUSED)] == await service.get_pending_runs()
    assert len(await listed(service)) == MAX_RUNS


async def test_a_late_event_of_an_evicted_run() -> None:
    """A late or repeated event of an evicted run changes neither the stats nor the listing."""
    service = InMemoryRunLogService()
    events = [an_event(run(number)) for number in range(250)]
    await service.apply(events)
    before = await listed(service)

    outcomes = await service.apply([events[0], an_event(run(1, RunStatus.FAILED), hlc=1)])

    assert outcomes == [Outcome.DUPLICATE, Outcome.STALE]
    assert await service.get_stats("w") == {"total": 250, "successful": 250}
    assert before == await listed(service)


async def test_a_paused_run_is_never_evicted() -> None:
    """A paused run is kept however many newer runs there are, and goes when it is over and the oldest."""
    service = InMemoryRunLogService()
    await service.save_run(run(0, RunStatus.PAUSED))
    for number in range(1, 250):
        await service.save_run(run(number))
    waiting = await service.get_pending_runs()

    await service.save_run(run(0))
    await service.save_run(run(250))

    assert [run(0, RunStatus.PAUSED)] == waiting
    assert [f"r{n}" for n in range(250, 50, -1)] == await listed(service)


async def test_more_paused_runs_than_are_kept() -> None:
    """Paused runs beyond the ring are all kept, and beside them the newest other run."""
    service = await filled(250, RunStatus.PAUSED)

    await service.save_run(run(-1))
    await service.save_run(run(-2))

    assert len(await service.get_pending_runs()) == 250
    assert run(-1) == await service.get_run("w", "r-1")
    assert await service.get_run("w", "r-2") is None
    assert await service.get_stats("w") == {"total": 252, "successful": 2}


async def test_workflows_have_their_own_ring() -> None:
    """The ring of one workflow evicts no run of another."""
    service = InMemoryRunLogService()
    await service.save_run(run(0, workflow_id="w2"))

    for number in range(250):
        await service.save_run(run(number))

    assert run(0, workflow_id="w2") == await service.get_run("w2", "r0")


async def test_a_walk_while_runs_are_evicted() -> None:
    """A walk goes on where it was when runs before and behind it are evicted; none comes twice."""
    service = await filled(200)
    page, cursor = await service.list_runs("w", limit=100)
    for number in range(200, 350):
        await service.save_run(run(number))

    rest, cursor = await service.list_runs("w", limit=100, start_after=cursor)

    assert cursor is None
    assert len(page) == 100
    assert rest == []


async def test_repr_says_how_many_runs_there_are() -> None:
    """Its repr says how many runs it keeps."""
    assert repr(await filled(3)) == "InMemoryRunLogService(runs=3)"


class Damaged(InMemoryRunLogService):
    """A store that begins anew whatever position it is to go on after."""

    @override
    async def read_page(
        self, workflow_id: str | None, selection: Selection, after: object, limit: int, *, payloads: bool
    ) -> Page:
        return await super().read_page(workflow_id, selection, None, limit, payloads=payloads)

    @override
    async def read_overall_page(
        self, selection: InboxSelection | StaleSelection, after: object, limit: int
    ) -> Page:
        return await super().read_overall_page(selection, None, limit)

    @override
    async def read_workflows(self, after: str | None, most: int) -> list[WorkflowStats]:
        return await super().read_workflows(None, most)


async def test_a_walk_that_would_never_end() -> None:
    """Where a store does not go on after a position, a walk ends with an error that says what to do."""
    service = Damaged()
    for number in range(2):
        await service.save_run(run(number, RunStatus.PAUSED))
        await service.save_run(run(number, workflow_id=f"w{number}"))

    for query in (partial(service.list_runs, "w"), service.list_pending, service.list_workflows):
        _, cursor = await query(limit=1)
        with pytest.raises(StoreError, match="its index is damaged, so restore it"):
            await query(limit=1, start_after=cursor)
