"""Two projections, compared: everything but what depends on when or how events were written."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from run_log.core import RunStatus
from run_log.core.counters import Scope, SummaryCounter, hour_of
from run_log.stores.audit import Comparison, CountName, RunDifference, Side, compare
from run_log.stores.audit._compare import MAX_LISTED
from run_log.testing import an_event

from .audited import AuditedStore, lives

Pair = tuple[AuditedStore, AuditedStore]
PAGE = 3
"""Runs read at a time: a few runs are many pages."""


async def compared(pair: Pair, workflow_id: str | None = None) -> list[Comparison]:
    """Return what came of each workflow, read in many pages."""
    first, second = (store.audit(page=PAGE) for store in pair)
    return [one async for one in compare(first, second, workflow_id)]


async def test_the_same_events(pair: Pair) -> None:
    """Two projections of the same events do not differ, in whatever order and batches they were written."""
    events = lives(20) + lives(4, workflow_id="a/b c")
    shuffled = random.Random(2).sample(events, len(events))
    first, second = pair

    await first.apply(events)
    for start in range(0, len(shuffled), 7):
        await second.apply(shuffled[start : start + 7])

    found = await compared(pair)

    assert [("a/b c", 4, False), ("w", 20, False)] == [
        (one.workflow_id, one.runs, one.differs) for one in found
    ]


async def test_what_differs(pair: Pair) -> None:
    """What is in one of them alone is told, and of what is in both the names of the fields that differ."""
    events = lives(9)
    first, second = pair
    await first.apply([event for event in events if event.run.id != "r001"])
    await second.apply([event for event in events if event.run.id not in ("r000", "r008")])
    await second.set_field("w", "r004", "result", "{}")
    await second.set_field("w", "r005", "trigger_type", "webhook")

    (found,) = await compared(pair)

    assert [
        RunDifference(run_id="r000", only_in=Side.FIRST, fields=()),
        RunDifference(run_id="r001", only_in=Side.SECOND, fields=()),
        RunDifference(run_id="r004", only_in=None, fields=["result"]),
        RunDifference(run_id="r005", only_in=None, fields=["trigger_type"]),
        RunDifference(run_id="r008", only_in=Side.FIRST, fields=()),
    ] == found.differences
    assert (9, 0, True) == (found.runs, found.unlisted, found.differs)
    assert (8, 7) == next((one.first, one.second) for one in found.counts if one.count.name == "total")


async def test_a_state_that_differs(pair: Pair) -> None:
    """A run that went on in one of them differs in its state, its version and its history."""
    events = lives(3)
    first, second = pair
    await first.apply(events)
    await second.apply(events)
    await second.apply([an_event(events[-1].run, status=RunStatus.SKIPPED, error="no", attempt=2)])

    (found,) = await compared(pair)

    (difference,) = found.differences
    assert "r002" == difference.run_id
    assert {"status", "error", "attempt", "projection.event_id", "projection.history"} <= set(
        difference.fields
    )


async def test_counts_that_differ(pair: Pair) -> None:
    """Each count that differs is told, with what either has."""
    events = lives(5)
    first, second = pair
    await first.apply(events)
    await second.apply(events)
    hour = hour_of(datetime.now(UTC))
    await first.add_count("w", SummaryCounter(Scope.HOUR, hour, "skipped"), 2)
    await second.add_runs("w", RunStatus.SKIPPED, 3)

    (found,) = await compared(pair)

    everywhere = [CountName(scope=Scope.ALL, begins=None, name=name) for name in ("skipped", "total")]
    begins = datetime.fromtimestamp(hour * 3_600, UTC)
    in_hour = CountName(scope=Scope.HOUR, begins=begins, name="skipped")
    expected = [(everywhere[0], 0, 3), (everywhere[1], 5, 8), (in_hour, 2, 0)]
    assert expected == [(one.count, one.first, one.second) for one in found.counts]
    assert [] == found.differences


async def test_days_that_are_over(pair: Pair) -> None:
    """A run that was counted on a day that is over by now is the same where it never was."""
    first, second = pair
    long_ago = timedelta(days=100)
    events = [
        an_event(event.run, started_at=event.run.started_at - long_ago, occurred_at=event.occurred_at)
        for event in lives(3)
    ]
    first.clock.ahead = -long_ago
    await first.apply(events)
    first.clock.ahead = timedelta(0)
    await second.apply(events)

    (found,) = await compared(pair)

    assert (3, False) == (found.runs, found.differs)


async def test_workflows_of_one_side(pair: Pair) -> None:
    """A workflow that is in one of them alone is told with all of its runs."""
    first, second = pair
    await first.apply(lives(2, workflow_id="a"))
    await second.apply(lives(3, workflow_id="b"))

    found = await compared(pair)

    sides = [{one.only_in for one in comparison.differences} for comparison in found]
    assert [("a", 2, {Side.FIRST}), ("b", 3, {Side.SECOND})] == [
        (one.workflow_id, one.runs, side) for one, side in zip(found, sides, strict=True)
    ]


async def test_one_workflow(pair: Pair) -> None:
    """Where one workflow is named, nothing is said of the others."""
    first, _ = pair
    await first.apply(lives(2, workflow_id="a") + lives(2, workflow_id="b"))

    assert ["b"] == [one.workflow_id for one in await compared(pair, "b")]


async def test_what_is_listed_is_bounded(pair: Pair) -> None:
    """Of many runs that differ the first are listed, and the others counted."""
    first, _ = pair
    now = datetime.now(UTC)
    runs = [an_event(workflow_id="w", id=f"r{number:05}", started_at=now) for number in range(MAX_LISTED + 7)]
    await first.apply(runs)

    (found,) = await compared(pair)

    assert (MAX_LISTED, 7) == (len(found.differences), found.unlisted)
    assert [event.run.id for event in runs[:MAX_LISTED]] == [one.run_id for one in found.differences]


async def test_how_far_it_is(pair: Pair) -> None:
    """A comparison tells how many runs it has come past, to the end."""
    first, second = pair
    await first.apply(lives(4))
    told: list[tuple[str, int]] = []

    def tell(workflow_id: str, runs: int) -> None:
        told.append((workflow_id, runs))

    async for _ in compare(first.audit(), second.audit(), on_page=tell):
        pass

    assert ("w", 4) == told[-1]
