"""Counts that are recounted from the runs: what is wrong is found exactly, and put right once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from run_log.core import RunStatus
from run_log.core.counters import MICROS, Scope, SummaryCounter, bucket_name, hour_of
from run_log.stores.audit import CountFinding, Verification, VerifyProgress, verify
from run_log.stores.audit._verify import MAX_LISTED_RUNS
from run_log.testing import a_run, an_event

from .audited import AuditedStore, lives

PAGE = 3
"""Runs read at a time: a few runs are many pages."""

HOUR = hour_of(datetime.now(UTC))
SUCCESS = RunStatus.SUCCESS.value


async def verified(
    store: AuditedStore, workflow_id: str | None = None, *, repair: bool = False
) -> list[Verification]:
    """Return what came of each workflow, read in many pages."""
    return [one async for one in verify(store.audit(page=PAGE), workflow_id, repair=repair)]


def told(findings: Sequence[CountFinding]) -> list[tuple[str, int]]:
    """Return what was counted, and how much too much."""
    return [(str(one.count), one.stored - one.recounted) for one in findings]


async def test_what_is_right(store: AuditedStore) -> None:
    """Where every count equals a recount nothing is found, in any workflow, nor where one is zero again."""
    run = a_run(workflow_id="z", id="r", started_at=datetime.now(UTC))
    for status in (RunStatus.RUNNING, RunStatus.FAILED, RunStatus.SUCCESS):
        await store.apply([an_event(run, status=status)])
    await store.apply(lives(20) + lives(4, workflow_id="a/b c"))

    found = await verified(store)

    assert [("a/b c", 4, False), ("w", 20, False), ("z", 1, False)] == [
        (one.workflow_id, one.runs, one.differs) for one in found
    ]


async def test_nothing_stored(store: AuditedStore) -> None:
    """Where nothing is stored nothing is found, nor of a workflow that is not there."""
    assert [] == await verified(store)
    assert [] == await verified(store, "w")


COUNTERS = [
    SummaryCounter(Scope.ALL, 0, MICROS),
    SummaryCounter(Scope.ALL, 0, bucket_name(7)),
    SummaryCounter(Scope.DAY, HOUR // 24, SUCCESS),
    SummaryCounter(Scope.DAY, HOUR // 24 - 80, bucket_name(9)),
    SummaryCounter(Scope.HOUR, HOUR, MICROS),
    SummaryCounter(Scope.HOUR, HOUR - 30, "failed"),
]


@pytest.mark.parametrize("by", [3, -2])
@pytest.mark.parametrize("counter", COUNTERS, ids=str)
async def test_a_wrong_counter(store: AuditedStore, counter: SummaryCounter, by: int) -> None:
    """One counter that is wrong is found alone, with what is stored and what it has to be, and put right."""
    await store.apply(lives(8))
    await store.add_count("w", counter, by)

    (found,) = await verified(store)
    (repaired,) = await verified(store, repair=True)
    (again,) = await verified(store)

    (finding,) = found.counts
    assert (counter.scope, counter.name, by) == (
        finding.count.scope,
        finding.count.name,
        finding.stored - finding.recounted,
    )
    assert (True, False) == (found.differs, found.repaired)
    assert (found.counts, False, True) == (repaired.counts, repaired.differs, repaired.repaired)
    assert ([], False) == (again.counts, again.differs)


@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.RUNNING])
async def test_wrong_stats(store: AuditedStore, status: RunStatus) -> None:
    """Runs that are counted and not there are found in every count that has them, and taken out of all."""
    await store.apply(lives(8))
    stats = await store.get_stats("w")
    await store.add_runs("w", status, 5)

    (found,) = await verified(store, repair=True)

    names = {status.value, "total", *(["successful"] * (status is RunStatus.SUCCESS))}
    assert {(name, 5) for name in names} == set(told(found.counts))
    assert stats == await store.get_stats("w")
    assert [False] == [one.differs for one in await verified(store)]


async def test_a_run_that_was_taken_away(store: AuditedStore) -> None:
    """A run that something else deleted is found in every count that it stands in."""
    events = lives(3)
    await store.apply(events)
    await store.delete("w", "r001")

    (found,) = await verified(store, repair=True)

    assert ("total", 1) in told(found.counts)
    assert Scope.DAY in {one.count.scope for one in found.counts}
    assert [(2, False)] == [(one.runs, one.differs) for one in await verified(store)]


async def test_only_the_workflow_that_is_named(store: AuditedStore) -> None:
    """Where one workflow is named, no other is looked at or repaired."""
    await store.apply(lives(2, workflow_id="a") + lives(2, workflow_id="b"))
    for workflow_id in ("a", "b"):
        await store.add_runs(workflow_id, RunStatus.SKIPPED, 1)

    repaired = await verified(store, "b", repair=True)

    assert [("b", True)] == [(one.workflow_id, one.repaired) for one in repaired]
    assert [("a", True), ("b", False)] == [(one.workflow_id, one.differs) for one in await verified(store)]


async def test_two_repairs_at_once(store: AuditedStore) -> None:
    """However many repair at once, a difference is added once."""
    await store.apply(lives(8))
    stats = await store.get_stats("w")
    for _ in range(2):  # the second time, it has been repaired before
        await store.add_runs("w", RunStatus.SUCCESS, 5)
        await store.add_count("w", COUNTERS[2], -4)

        done = await asyncio.gather(*(verified(store, repair=True) for _ in range(4)))

        assert [False] * 4 == [one.differs for (one,) in done]
        assert 1 == sum(one.repaired for (one,) in done)
        assert stats == await store.get_stats("w")
        assert [False] == [one.differs for one in await verified(store)]


async def test_repairs_while_others_write(store: AuditedStore) -> None:
    """A repair while others write leaves every count equal to a recount, whatever came between."""
    await store.apply(lives(10, seed=1))
    await store.add_runs("w", RunStatus.FAILED, 100)
    await store.add_count("w", COUNTERS[4], 1_000)
    events = lives(40, seed=3)

    async def write() -> None:
        for start in range(0, len(events), 4):
            await store.apply(events[start : start + 4])

    *_, (repaired,) = await asyncio.gather(write(), verified(store, repair=True))

    assert repaired.repaired
    assert {100, 1_000} == {excess for _, excess in told(repaired.counts)}
    assert [(40, False)] == [(one.runs, one.differs) for one in await verified(store)]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("trigger_type", "carrier pigeon", "trigger_type"),
        ("attempt", "9" * 30, ""),
        ("status", "skipped", "its status is skipped, by its history it is "),
    ],
    ids=["unreadable", "a number that nothing counts", "not as its history"],
)
async def test_a_run_that_something_else_changed(
    store: AuditedStore, field: str, value: str, problem: str
) -> None:
    """A document that cannot be read or contradicts itself is told and left; its neighbours are counted."""
    await store.apply([*lives(3), an_event(workflow_id="w", id="x", started_at=datetime.now(UTC))])
    await store.set_field("w", "x", field, value)

    for repair in (True, False):
        (found,) = await verified(store, repair=repair)

        (finding,) = found.run_findings
        assert ("x", 4, True) == (finding.run_id, found.runs, found.differs)
        assert problem in finding.problem


async def test_a_run_of_which_nobody_knows_how_it_counts(store: AuditedStore) -> None:
    """Where it cannot be read what a run is counted as, counts are told, and none is repaired."""
    await store.apply(lives(4))
    stats = await store.get_stats("w")
    await store.set_field("w", "r002", "status", "lost at sea")

    (found,) = await verified(store, repair=True)

    assert ["r002"] == [one.run_id for one in found.run_findings]
    assert ("total", 1) in told(found.counts)
    assert (True, False) == (found.differs, found.repaired)
    assert stats == await store.get_stats("w")


async def test_counts_that_nothing_can_repair(store: AuditedStore) -> None:
    """Counts too far off for any number to repair them are named, and the next workflow is looked at."""
    await store.apply(lives(3) + lives(2, workflow_id="x"))
    await store.add_count("w", SummaryCounter(Scope.ALL, 0, bucket_name(7)), -(2**63))

    found = await verified(store, repair=True)

    assert [("w", True, False), ("x", False, False)] == [
        (one.workflow_id, one.differs, one.repaired) for one in found
    ]
    assert "cannot" in str(found[0].problem)


async def test_what_is_listed_is_bounded(store: AuditedStore) -> None:
    """Of many documents that cannot be read the first are listed, and the others counted."""
    count = MAX_LISTED_RUNS + 7
    await store.apply([an_event(workflow_id="w", id=f"r{number:05}") for number in range(count)])
    await store.set_every_field("w", "trigger_type", "carrier pigeon")

    (found,) = [one async for one in verify(store.audit())]

    assert (MAX_LISTED_RUNS, 7) == (len(found.run_findings), found.unlisted)


async def test_counts_that_are_gone(store: AuditedStore) -> None:
    """A workflow whose counts are gone, and whose runs are there, is found, and gets them back."""
    await store.apply(lives(5) + lives(2, workflow_id="a"))
    summary = await store.get_summary("w")
    await store.forget_counts("w")

    before = await verified(store)
    await verified(store, repair=True)
    after = await verified(store)

    assert [("a", False), ("w", True)] == [(one.workflow_id, one.differs) for one in before]
    assert [("a", False), ("w", False)] == [(one.workflow_id, one.differs) for one in after]
    assert summary == await store.get_summary("w")


async def test_days_that_are_over(store: AuditedStore) -> None:
    """What is left of days and hours that nobody asks for any more is no finding."""
    store.clock.ahead = timedelta(days=-100)
    await store.apply(lives(5, until=store.clock()))
    assert [False] == [one.differs for one in await verified(store)]

    for days in (-97, -96, -95, -60, -11, -10, -9, -8, 0):
        store.clock.ahead = timedelta(days=days)
        assert [False] == [one.differs for one in await verified(store)], days
    await store.add_count("w", SummaryCounter(Scope.DAY, HOUR // 24 - 95, SUCCESS), 7)

    assert [False] == [one.differs for one in await verified(store)]


async def test_how_far_it_is(store: AuditedStore) -> None:
    """A recount tells after each page how many runs it has counted, of how many."""
    await store.apply(lives(7))
    far: list[VerifyProgress] = []

    async for _ in verify(store.audit(page=PAGE), on_page=far.append):
        pass

    assert [("w", 3, 7), ("w", 6, 7), ("w", 7, 7)] == [(one.workflow_id, one.runs, one.total) for one in far]
