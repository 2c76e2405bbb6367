"""A workflow at a glance."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.model import check_summary

from run_log.core import RunEvent, RunStatus, WorkflowRun
from run_log.stores import MAX_WINDOW, RunLog, TimeBucket
from run_log.testing import a_run, an_event

from .adapters import memory_alone
from .harness import Harness, save

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def now(harness: Harness) -> datetime:
    """Return the middle of the store's current hour: tests take their times from it."""
    return harness.clock().replace(minute=30, second=0, microsecond=0)


def ended(number: int, started_at: datetime, **fields: Any) -> WorkflowRun:
    """Return a run that took *number* seconds and a bit."""
    run = a_run(
        workflow_id="w",
        id=f"r{number}",
        started_at=started_at,
        completed_at=started_at + timedelta(seconds=number),
        duration_ms=1_000 * number + 0.25,
    )
    return a_run(**{**dict(run), **fields})


def spread(now: datetime) -> list[WorkflowRun]:
    """Return runs of every status, started over the last 91 days, more and more of them."""
    ages = [timedelta(minutes=7) * number**2 for number in range(137)]
    statuses = [*RunStatus, RunStatus.SUCCESS, RunStatus.SUCCESS, RunStatus.FAILED]
    return [
        ended(number, now - age, status=statuses[number % len(statuses)]) for number, age in enumerate(ages)
    ]


def event(run: WorkflowRun, hlc: int) -> RunEvent:
    """Return the event that *run* is so, at that version, told when the run started."""
    return an_event(run, hlc=hlc, occurred_at=run.started_at)


async def test_an_unknown_workflow_has_an_empty_summary(service: RunLog, now: datetime) -> None:
    """The summary of a workflow without runs is of zeros, with every day or hour in it."""
    whole = await service.get_summary("w", now=now)
    short = await service.get_summary("w", timedelta(hours=2), now=now)

    assert (0, {}, None, None, 90) == (
        whole.total,
        whole.by_status,
        whole.success_rate,
        whole.as_of,
        len(whole.buckets),
    )
    check_summary(whole, [])
    check_summary(short, [])


async def test_a_summary_equals_a_recount(harness: Harness, service: RunLog, now: datetime) -> None:
    """A summary's counts, durations, last runs, hours and days equal a recount of its runs, once each."""
    runs = spread(now)
    events = [event(run, number) for number, run in enumerate(runs, start=1)]
    for batch in (events, events[::-1], events[:3]):
        await harness.store.apply(batch)

    for hours in (None, 1, 2, 24, 48, 49, 24 * 7, 24 * 90):
        summary = await service.get_summary("w", None if hours is None else hours * HOUR, now=now)

        check_summary(summary, runs)
        assert summary.total == (len(runs) if hours is None else len([*recent(runs, summary.since)])), hours
        assert 0 < summary.total, hours


def recent(runs: list[WorkflowRun], since: datetime | None) -> list[WorkflowRun]:
    """Return the runs that started then or later."""
    return [run for run in runs if since is None or run.started_at >= since]


@pytest.mark.parametrize(
    ("window", "width", "since"),
    [
        (timedelta(microseconds=1), HOUR, "2026-03-04T12:00"),
        (HOUR, HOUR, "2026-03-04T12:00"),
        (timedelta(minutes=61), HOUR, "2026-03-04T11:00"),
        (48 * HOUR, HOUR, "2026-03-02T13:00"),
        (48 * HOUR + timedelta(seconds=1), DAY, "2026-03-02T00:00"),
        (MAX_WINDOW, DAY, "2025-12-05T00:00"),
    ],
)
@memory_alone
async def test_a_window_is_of_whole_hours_or_days(
    service: RunLog, window: timedelta, width: timedelta, since: str
) -> None:
    """A window has so many hours, or days beyond 48 hours, the current one among them."""
    noon = datetime(2026, 3, 4, 12, 34, 56, tzinfo=UTC)

    summary = await service.get_summary("w", window, now=noon)

    assert datetime.fromisoformat(since).replace(tzinfo=UTC) == summary.since == summary.buckets[0].begins
    assert {width} == {bucket.width for bucket in summary.buckets}
    assert math.ceil(window / width) == len(summary.buckets)
    assert noon < summary.buckets[-1].begins + width


async def test_a_run_is_counted_as_it_stands(harness: Harness, service: RunLog, now: datetime) -> None:
    """A run that goes on is taken out of what it was counted in before, whatever the order of arrival."""
    states = [
        ended(1, now, status=RunStatus.RUNNING, completed_at=None, duration_ms=0),
        ended(1, now, status=RunStatus.FAILED, duration_ms=5),
        ended(1, now - 30 * HOUR, status=RunStatus.SUCCESS, duration_ms=7_000, attempt=2),
    ]
    events = [event(run, number) for number, run in enumerate(states, start=1)]

    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 2]):
        for number in order:
            await harness.store.apply([events[number]])
            summary = await service.get_summary("w", 48 * HOUR, now=now)
            check_summary(summary, [(await service.get_run("w", "r1")) or states[0]])


async def test_what_started_long_ago_is_in_the_whole_alone(
    harness: Harness, service: RunLog, now: datetime
) -> None:
    """Runs from before what is kept by day count for all time, and stay right when they change."""
    old = [ended(number, now - timedelta(days=200 * number)) for number in range(1, 4)]
    later = old[0].model_copy(update={"status": RunStatus.FAILED, "duration_ms": 1.0})
    await harness.store.apply([event(run, 1) for run in old])
    await harness.store.apply([event(later, 2)])

    whole = await service.get_summary("w", now=now)

    check_summary(whole, [later, *old[1:]])
    assert [0] * 90 == [bucket.total for bucket in whole.buckets]
    assert 0 == (await service.get_summary("w", MAX_WINDOW, now=now)).total


async def test_a_clock_that_is_ahead_is_never_counted_twice(
    harness: Harness, service: RunLog, now: datetime
) -> None:
    """A run that says it starts in a year counts for all time, in no hour until it says otherwise."""
    ahead = ended(1, now + timedelta(days=365), status=RunStatus.RUNNING, completed_at=None, duration_ms=0)
    await harness.store.apply([event(ahead, 1)])
    first = await service.get_summary("w", DAY, now=now)
    await harness.store.apply([event(ended(1, now), 2)])

    second = await service.get_summary("w", DAY, now=now)

    assert (0, 1) == (first.total, second.total)
    check_summary(second, [ended(1, now)])


async def test_durations_are_of_runs_that_ended(harness: Harness, service: RunLog, now: datetime) -> None:
    """Only runs that succeeded or failed have a duration: what they say, or from their start to their end."""
    second = timedelta(seconds=1)
    told = ended(1, now, duration_ms=4_000)
    untold = ended(2, now, duration_ms=0, completed_at=now + 2 * second, status=RunStatus.FAILED)
    unknown = ended(3, now, duration_ms=0, completed_at=None)
    skipped = ended(4, now, status=RunStatus.SKIPPED)
    running = ended(5, now, status=RunStatus.RUNNING)
    backwards = ended(6, now, duration_ms=0, completed_at=now - second)
    await save(harness, told, untold, unknown, skipped, running, backwards)

    durations = (await service.get_summary("w", now=now)).durations

    assert (3, 6 * second, 2 * second) == (durations.count, durations.total, durations.mean)


async def test_a_summary_says_how_far_the_projection_has_come(
    harness: Harness, service: RunLog, now: datetime
) -> None:
    """The summary, the workflows' stats and get_as_of say when the latest event happened that was counted."""
    times = [now - HOUR, now - 3 * HOUR, now - 2 * HOUR]
    for number, occurred_at in enumerate(times):
        run = ended(number, now - DAY)
        await harness.store.apply([an_event(run, hlc=number, occurred_at=occurred_at)])

    (stats,), _ = await service.list_workflows()
    whole = await service.get_summary("w", now=now)

    assert [now - HOUR] * 3 == [stats.as_of, whole.as_of, await service.get_as_of("w")]
    assert await service.get_as_of("unknown") is None


async def test_an_hour_says_how_many_started_in_it(harness: Harness, service: RunLog, now: datetime) -> None:
    """An hour has the runs from its first microsecond to the last before the next."""
    begins = now.replace(minute=0) - HOUR
    last = begins + HOUR - timedelta(microseconds=1)
    await save(harness, ended(1, begins), ended(2, last), ended(3, begins + HOUR))

    summary = await service.get_summary("w", 2 * HOUR, now=now)

    assert [(begins, 2), (begins + HOUR, 1)] == [(bucket.begins, bucket.total) for bucket in summary.buckets]
    assert isinstance(summary.buckets[0], TimeBucket)
