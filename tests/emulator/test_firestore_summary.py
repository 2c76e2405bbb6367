"""The summary in Firestore: what a commit may change, what a document may hold, and what is old."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.model import check_summaries

from run_log.core import Outcome, RunStatus, WorkflowRun
from run_log.core.counters import DURATION_BUCKETS, Horizon, Scope, SummaryCounter, bucket_name
from run_log.stores.committing.commits import MAX_STATS_CHANGES
from run_log.stores.firestore._documents import counter_path, past_paths
from run_log.stores.firestore.client import Patience
from run_log.stores.stored.fields import MAX_DOCUMENT_BYTES
from run_log.testing import a_run, an_event

from .firestore_kit import Watch, WatchedService

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

NOON = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = NOON
        self.passes = timedelta(0)
        """How much of it passes until it is asked for again."""

    def __call__(self) -> datetime:
        """Return the time."""
        moment, self.now = self.now, self.now + self.passes
        return moment


@pytest.fixture
def clock() -> Clock:
    """Return the time of `service`."""
    return Clock()


@pytest.fixture
async def service(watch: Watch, clock: Clock) -> AsyncIterator[WatchedService]:
    """Yield a service whose calls are counted."""
    service = WatchedService(watch, Patience(), now=clock)
    yield service
    await service.close()


def ended(number: int, started_at: datetime, duration_ms: float, **fields: Any) -> WorkflowRun:
    """Return a run that ended."""
    return a_run(workflow_id="w", id=f"r{number}", started_at=started_at, duration_ms=duration_ms, **fields)


async def document(service: WatchedService) -> dict[str, Any]:
    """Return what the workflow's document holds."""
    snapshot = await service.reference("autopilot_runs/w").get()
    return dict(snapshot.to_dict())


async def test_a_batch_of_many_counters_is_split(service: WatchedService, watch: Watch) -> None:
    """A batch that changes more counters of a document than Firestore takes at once is committed in parts."""
    runs = [
        ended(number, NOON - number * timedelta(hours=4), 1.09**number, status=RunStatus.SUCCESS)
        for number in range(300)
    ]
    events = [an_event(run) for run in runs]

    outcomes = await service.apply(events)

    assert [Outcome.APPLIED] * len(runs) == outcomes
    assert 1 < len(watch.writes)
    assert max(watch.changes) <= MAX_STATS_CHANGES
    await check_summaries(service, "w", runs, NOON)
    assert [Outcome.DUPLICATE] * len(runs) == await service.apply(events)


def slots(fields: Mapping[str, Any], kind: str) -> set[int]:
    """Return the days or hours that are in a workflow's document."""
    return {int(slot[1:]) for turn in fields[kind].values() for slot in turn}


async def test_what_is_over_is_taken_away(service: WatchedService, clock: Clock) -> None:
    """Days and hours that no summary shows any more are taken away by a later commit, whenever that comes."""
    runs = [ended(day, NOON + day * DAY, 5.0) for day in (*range(12), *range(14, 400, 7))]
    first = Horizon.at(NOON).today
    shown: set[int] = set()
    for run in runs:
        clock.now = run.started_at
        today = Horizon.at(clock.now).today
        shown.add(today)
        await service.apply([an_event(run)])
        fields = await document(service)
        days, hours = slots(fields, "days"), {hour // 24 for hour in slots(fields, "hours")}
        assert {day for day in shown if today - day <= 91} <= days <= shown
        assert min(days) >= today - 91 - 2 * 31
        assert {day for day in shown if today - day <= 2} <= hours
        assert min(hours) >= max(first, today - 11)
        if today == first + 11:
            # The hours of a day go while the day itself is still shown.
            assert (12, {today - 3, today - 2, today - 1, today}) == (len(days), hours)
            await check_summaries(service, "w", runs[:12], clock.now)


async def test_a_commit_at_midnight(service: WatchedService, watch: Watch, clock: Clock) -> None:
    """A commit that is made while a day begins takes away nothing that it counts."""
    clock.now = datetime(2026, 3, 4, 23, 59, 59, tzinfo=UTC)
    clock.passes = timedelta(seconds=2)
    day = Horizon.at(clock.now)
    oldest = clock.now - (day.today - day.first_hours) * DAY

    await service.apply([an_event(ended(0, oldest, 5.0))])

    assert Horizon.at(clock.now) != day
    assert [True] == [0 < masked for masked in watch.masked]
    assert [] == watch.contradictions


@pytest.mark.parametrize("today", range(20_000, 20_400, 13))
def test_what_is_counted_is_never_taken_away(today: int) -> None:
    """No day and no hour that counts, here or on a machine whose clock is a day ahead, is taken away."""
    gone = set(past_paths(Horizon(today=today)))

    for horizon in (Horizon(today=today), Horizon(today=today + 1)):
        for scope, first, width in ((Scope.DAY, horizon.first_day, 1), (Scope.HOUR, horizon.first_hours, 24)):
            for slot in range(first * width, (horizon.last_day + 1) * width):
                path = counter_path(SummaryCounter(scope, slot, "success"))
                assert ".".join(path.split(".")[:2]) not in gone


def test_the_document_has_room_for_every_counter() -> None:
    """A workflow's document stays below Firestore's limit with every counter that there can be."""
    horizon = Horizon(today=20_000)
    names = [*RunStatus, "micros", *(bucket_name(bucket) for bucket in range(DURATION_BUCKETS))]
    days = range(horizon.first_day // 31 * 31, horizon.last_day + 2)
    hours = range(24 * horizon.first_hours, 24 * (horizon.last_day + 2))
    there = [(Scope.ALL, 0), *((Scope.DAY, day) for day in days), *((Scope.HOUR, hour) for hour in hours)]
    paths = {counter_path(SummaryCounter(scope, slot, name)) for scope, slot in there for name in names}

    # A number is 8 bytes, a name its length and 1 (https://firebase.google.com/docs/firestore/storage-size).
    maps = {path.rpartition(".")[0] for path in paths}
    size = sum(len(path.rpartition(".")[2]) + 1 + 8 for path in paths)
    size += sum(sum(len(part) + 1 for part in one.split(".")) + 32 for one in maps)
    # The ids, the stats and the name of the document take less than that.
    assert size < MAX_DOCUMENT_BYTES - 16_000
