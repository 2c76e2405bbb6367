"""Runs of any time from year 1 to year 9999: stored, listed, filtered, paged and summed up like others."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest
from google.api_core.datetime_helpers import DatetimeWithNanoseconds

from run_log.core import InvalidArgumentError, PauseRequest, RunStatus, WorkflowRun
from run_log.stores import RunLog
from run_log.stores.listings import Order
from run_log.testing import a_run, an_event

from .adapters import every_adapter, memory_alone
from .harness import Harness, ids, pages, save, walk

MICROSECOND: Final = timedelta(microseconds=1)
FIRST: Final = datetime.min.replace(tzinfo=UTC)
LAST: Final = datetime.max.replace(tzinfo=UTC)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS: Final = [
    *(FIRST + step * MICROSECOND for step in (0, 1, 999_999)),
    *(LAST - step * MICROSECOND for step in (0, 1, 999_999, 1_000_000)),
    *(EPOCH + step * MICROSECOND for step in (-1_500_000, -500_000, -1, 0, 1)),
    # Beyond, a float of seconds has no room for a microsecond, and one of nanoseconds has none here.
    *(datetime(year, 3, 1, 0, 0, 0, 123_457, UTC) for year in (1600, 1901, 2038, 2255, 2263, 5_000)),
]
"""Ends of ranges of whoever keeps time in a number, and what lies beside them."""


def runs_at(seed: int) -> list[WorkflowRun]:
    """Return a paused run for each moment, its deadline another one or none, the newest first."""
    chance = random.Random(seed)
    deadlines = [*chance.sample(MOMENTS, len(MOMENTS) - 2), None, None]
    runs = [
        a_run(
            workflow_id="w",
            id=f"r{number:02}",
            status=RunStatus.PAUSED,
            started_at=moment,
            pause=PauseRequest(deadline=deadline),
        )
        for number, (moment, deadline) in enumerate(zip(MOMENTS, deadlines, strict=True))
    ]
    return sorted(runs, key=lambda run: run.started_at, reverse=True)


def deadline_of(run: WorkflowRun) -> datetime:
    """Return when an answer is due, as the inbox sorts it."""
    return (run.pause and run.pause.deadline) or LAST


async def store(harness: Harness, runs: list[WorkflowRun]) -> None:
    """Store *runs*, each said at the time at which it started."""
    chance = random.Random(len(runs))
    events = [an_event(run, occurred_at=run.started_at) for run in runs]
    await harness.store.apply(chance.sample(events, len(events)))


async def test_any_time_is_listed(harness: Harness, service: RunLog) -> None:
    """Runs of any time come back as they are, in order, from both ends, in pages of any size."""
    runs = runs_at(1)
    await store(harness, runs)

    for limit in (1, 4):
        assert runs == [run for page in await walk(service, "w", limit) for run in page]
        oldest = [run for page in await walk(service, "w", limit, order=Order.OLDEST) for run in page]
        assert runs[::-1] == oldest
    assert runs[0] == await service.get_latest_run("w")
    assert runs == await service.get_pending_runs()


@every_adapter
async def test_any_time_is_saved(harness: Harness, service: RunLog) -> None:
    """A run of any time that is saved, by whichever way saves go, comes back as it is."""
    runs = [
        a_run(workflow_id="w", id=f"r{number}", status=RunStatus.RUNNING, started_at=moment)
        for number, moment in enumerate((FIRST, EPOCH - 500_000 * MICROSECOND, LAST))
    ]

    await save(harness, *runs)

    assert (runs[::-1], None) == await service.list_runs("w")


async def test_any_time_filters(harness: Harness, service: RunLog) -> None:
    """A listing begins and ends at just the moment that is asked for, whatever kind of datetime that is."""
    runs = runs_at(2)
    await store(harness, runs)

    for moment in MOMENTS:
        theirs = DatetimeWithNanoseconds.combine(moment.date(), moment.timetz())
        since, _ = await service.list_runs("w", since=theirs)
        until, _ = await service.list_runs("w", until=theirs)
        assert [run for run in runs if run.started_at >= moment] == since
        assert [run for run in runs if run.started_at < moment] == until


async def test_any_deadline_is_in_the_inbox(harness: Harness, service: RunLog) -> None:
    """The inbox has each run on its side of any moment, by deadline, in pages of any size."""
    runs = runs_at(3)
    await store(harness, runs)

    for now in (FIRST, EPOCH - 500_000 * MICROSECOND, MOMENTS[-1], LAST):
        for overdue in (True, False):
            walked = await pages(service.list_pending, overdue=overdue, limit=3, now=now)
            found = [one.run for page in walked for one in page]
            expected = [run for run in runs if (deadline_of(run) < now) == overdue]
            assert sorted(expected, key=lambda run: (deadline_of(run), run.id)) == found


async def test_pages_of_one_go_past_the_unreadable(harness: Harness, service: RunLog) -> None:
    """What cannot be read is left behind at any time, by start and by deadline."""
    runs = [run for run in runs_at(4) if run.pause and run.pause.deadline is None]
    await store(harness, runs)
    for moment in (FIRST + MICROSECOND, EPOCH - MICROSECOND, LAST):
        await harness.plant_unreadable("w", moment, status=RunStatus.PAUSED)

    walked = await walk(service, "w", 1)
    inbox = await pages(service.list_pending, overdue=False, limit=1)

    assert [[run] for run in runs] == walked
    assert [[name] for name in sorted(ids(runs))] == [[one.run.id for one in page] for page in inbox]


async def test_any_time_is_stale_and_summed_up(harness: Harness, service: RunLog) -> None:
    """Runs that were heard of at any time are stale in order, and a summary looks back from any moment."""
    runs = [run.model_copy(update={"status": RunStatus.RUNNING, "pause": None}) for run in runs_at(5)]
    await store(harness, runs)

    page, cursor = await service.list_stale(timedelta(0), limit=5, now=LAST)
    rest, _ = await service.list_stale(timedelta(0), limit=50, now=LAST, start_after=cursor)
    nobody, _ = await service.list_stale(timedelta(days=999_999_999), now=LAST)

    # Who was heard of at the last moment was not silent at all.
    assert ids(runs[:0:-1]) == [one.run.id for one in (*page, *rest)]
    assert [] == nobody
    for now in (FIRST, EPOCH, LAST):
        for window in (None, timedelta(hours=3), timedelta(days=90)):
            summary = await service.get_summary("w", window, now=now)
            assert summary.buckets[0].begins >= FIRST
            assert summary.buckets[-1].begins <= now
    assert (await service.get_as_of("w")) == LAST


@memory_alone
async def test_a_moment_of_no_year(service: RunLog) -> None:
    """A moment that is in no year from 1 to 9999 in UTC is a wrong argument, told as such."""
    beyond = datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))

    for asked in (
        service.list_pending(now=beyond),
        service.get_summary("w", now=beyond),
        service.list_stale(timedelta(0), now=beyond),
        service.list_runs("w", until=beyond),
    ):
        with pytest.raises(InvalidArgumentError, match="outside years 1 to 9999"):
            await asked
