"""Ended runs that are kept for so many days, and what comes after."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from run_log.core import Outcome, RunEvent, RunExpiredError, RunRef, RunStatus
from run_log.projector import Projector
from run_log.stores import RunLog
from run_log.testing import an_event

from .adapters import counting_anything, every_adapter
from .harness import Harness

DAYS = 30
DAY = timedelta(days=1)
KEPT = timedelta(days=DAYS, seconds=1)
"""A moment longer than runs are kept."""


@pytest.fixture(autouse=True)
def _retention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_LOG_RETENTION_DAYS", str(DAYS))


def life(run_id: str, at: datetime, *, end: RunStatus = RunStatus.SUCCESS) -> list[RunEvent]:
    """Return the events of a run: that it begins, and how it stands, at that moment."""
    return [
        an_event(workflow_id="w", id=run_id, status=status, started_at=at, occurred_at=at)
        for status in (RunStatus.RUNNING, end)
    ]


async def expired(harness: Harness, *, end: RunStatus = RunStatus.SUCCESS) -> list[RunEvent]:
    """Store a run, have it expire, and return its events."""
    events = life("old", harness.clock(), end=end)
    await harness.store.apply(events)
    harness.clock.ahead += KEPT
    return events


@pytest.mark.parametrize("end", [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED])
async def test_an_expired_run_is_not_seen(harness: Harness, service: RunLog, end: RunStatus) -> None:
    """A run that ended longer ago than is kept is seen by no query once it expires, and stays counted."""
    await expired(harness, end=end)
    assert 1 == (await service.get_stats("w"))["total"] == (await service.get_summary("w")).total
    kept = life("kept", harness.clock(), end=end)
    await harness.store.apply(kept)

    run = kept[-1].run
    assert await service.get_run("w", "old") is None
    assert () == await service.get_history("w", "old")
    for order in ("newest", "oldest"):
        assert ([run], None) == await service.list_runs("w", limit=1, order=order)
    assert [run] == [one async for one in service.iter_runs("w", status=end)]
    assert run == await service.get_latest_run("w")
    assert run == (await service.get_summary("w")).last_run


@counting_anything
async def test_an_expired_run_is_not_counted(harness: Harness, service: RunLog) -> None:
    """A run that has expired is in no count, from the moment on at which no listing shows it."""
    marks = {"labels": {"team": "a"}, "error_type": "ValueError", "parent": RunRef("w", "p")}
    last = life("old", harness.clock())[-1]
    await harness.store.apply([last.model_copy(update={"run": last.run.model_copy(update=marks)})])
    counts: list[list[int]] = []

    for ahead in (KEPT - DAY, DAY):
        harness.clock.ahead += ahead
        counts.append(
            [
                await service.count_runs(),
                await service.count_runs("w"),
                await service.count_runs("w", status="success"),
                await service.count_runs(label=("team", "a")),
                await service.count_runs("w", error_type="ValueError", parent=("w", "p")),
            ]
        )
    await harness.store.apply(life("kept", harness.clock()))

    assert [[1] * 5, [0] * 5] == counts
    assert [1, 0] == [await service.count_runs("w"), await service.count_runs(label=("team", "a"))]


@pytest.mark.parametrize("status", [RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED])
async def test_what_has_not_ended_does_not_expire(
    harness: Harness, service: RunLog, status: RunStatus
) -> None:
    """A run that waits or is under way is kept, however long ago it was heard of."""
    _, last = await expired(harness, end=status)
    harness.clock.ahead += 365 * DAY

    assert last.run == await service.get_run("w", "old")
    assert [last.run] == (await service.list_runs("w"))[0]
    assert ([last.run] if status is RunStatus.PAUSED else []) == await service.get_pending_runs()


async def test_a_run_expires_after_its_latest_event(harness: Harness, service: RunLog) -> None:
    """A run is kept from its latest event on, be that one of its history that came late."""
    first, last = life("r", harness.clock())
    late = an_event(first.run, hlc=1, occurred_at=last.occurred_at + DAY)
    await harness.store.apply([first, last])
    await harness.store.apply([late])

    harness.clock.ahead += KEPT
    assert last.run == await service.get_run("w", "r")
    harness.clock.ahead += DAY
    assert await service.get_run("w", "r") is None


async def test_a_run_that_goes_on_does_not_expire(harness: Harness, service: RunLog) -> None:
    """A run that had ended and goes on is kept."""
    await harness.store.apply(life("r", harness.clock()))
    again = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING, occurred_at=harness.clock())
    await harness.store.apply([again])

    harness.clock.ahead += KEPT

    assert again.run == await service.get_run("w", "r")


async def test_a_late_event_does_not_revive_a_run(harness: Harness, service: RunLog) -> None:
    """Until an expired run is deleted it takes no event: none brings it back, and repeats are duplicates."""
    events = await expired(harness)
    stats, summary = await service.get_stats("w"), await service.get_summary("w")
    late = an_event(events[0].run, hlc=1, occurred_at=events[0].occurred_at)
    new = an_event(workflow_id="w", id="old", status=RunStatus.RUNNING, occurred_at=harness.clock())

    for event in (late, new):
        with pytest.raises(RunExpiredError, match=r"expired at .*; give what runs now another id"):
            await harness.store.apply([event])

    assert [Outcome.DUPLICATE] * 2 == await harness.store.apply(events)
    assert await service.get_run("w", "old") is None
    assert (stats, summary) == (await service.get_stats("w"), await service.get_summary("w"))


async def test_a_new_event_of_a_deleted_run(harness: Harness, service: RunLog) -> None:
    """Once an expired run is deleted, a new event under its id begins another run, which is counted too."""
    first, last = await expired(harness)
    await harness.delete(*last.key)
    new = an_event(last.run, status=RunStatus.RUNNING, occurred_at=harness.clock())
    projector = Projector(harness.store)

    assert [Outcome.REJECTED] * 2 == await projector.apply([first, last])
    assert ({"total": 1, "successful": 1}, None) == (
        await service.get_stats("w"),
        await service.get_run(*last.key),
    )

    outcomes = [*await projector.apply([new]), *await projector.apply([first, last])]

    assert [Outcome.APPLIED] == outcomes[:1]
    assert Outcome.APPLIED not in outcomes[1:]
    assert ({"total": 2, "successful": 1}, new.run) == (
        await service.get_stats("w"),
        await service.get_run(*last.key),
    )


async def test_a_run_that_is_gone_does_not_come_back(harness: Harness, service: RunLog) -> None:
    """Events older than what is kept begin no run: it may have been there, and have been deleted."""
    late = life("gone", harness.clock() - KEPT)

    with pytest.raises(RunExpiredError, match=r"older than 30 days, .* raise RUN_LOG_RETENTION_DAYS"):
        await harness.store.apply(late)

    assert await service.get_run("w", "gone") is None
    assert {"total": 0, "successful": 0} == await service.get_stats("w")


@pytest.mark.parametrize("together", [False, True])
async def test_an_id_that_is_used_again(harness: Harness, service: RunLog, *, together: bool) -> None:
    """Events of a run that was deleted do not change the state of a later one with its id, nor its stats."""
    now = harness.clock()
    deleted = an_event(
        workflow_id="w", id="r", attempt=2, started_at=now - KEPT, occurred_at=now - KEPT, hlc=1
    )
    first = an_event(
        workflow_id="w", id="r", status=RunStatus.RUNNING, started_at=now, occurred_at=now, hlc=2
    )
    last = an_event(workflow_id="w", id="r", status=RunStatus.FAILED, started_at=now, occurred_at=now, hlc=3)
    projector = Projector(harness.store)

    if together:
        outcomes = await projector.apply([deleted, first])
    else:
        outcomes = [*reversed([*await projector.apply([first]), *await projector.apply([deleted])])]
    stats = await service.get_stats("w")
    outcomes += await projector.apply([deleted, last])

    assert [Outcome.REJECTED, Outcome.APPLIED] * 2 == outcomes
    assert {"total": 1, "successful": 0} == stats == await service.get_stats("w")
    assert last.run == await service.get_run("w", "r")


@every_adapter
async def test_what_a_run_thought_lost_says_late(harness: Harness, service: RunLog) -> None:
    """A run that was concluded to be lost gets what it said of itself, also where that is old by now."""
    first, last = life("r", harness.clock())
    await harness.store.apply([first])
    harness.clock.ahead += KEPT
    await service.mark_lost("w", "r", older_than=DAY, now=harness.clock())
    await harness.settle()

    assert [Outcome.APPLIED] == await harness.store.apply([last])
    assert last.run == await service.get_run("w", "r")


async def test_a_late_event_of_a_run_that_is_kept(harness: Harness, service: RunLog) -> None:
    """An old event of a run that is there joins its history."""
    first, last = life("r", harness.clock(), end=RunStatus.PAUSED)
    old = an_event(first.run, hlc=1, occurred_at=harness.clock() - KEPT)

    assert [Outcome.APPLIED] * 2 == await harness.store.apply([first, last])
    assert [Outcome.STALE] == await harness.store.apply([old])
    assert 3 == len(await service.get_history("w", "r"))
