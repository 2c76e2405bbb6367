from __future__ import annotations

from datetime import timedelta

import pytest

from run_log.core import RunStatus
from run_log.core.counters import (
    MICROS,
    Horizon,
    Scope,
    SummaryCounter,
    bucket_name,
    duration_bucket,
    hour_of,
)
from run_log.core.law import fold
from run_log.core.stats import StatsDelta
from run_log.stores.committing.commits import StatsWrite, shard_of, stats_writes
from run_log.testing import a_run, an_event


@pytest.mark.parametrize(("run_id", "shard"), [("r0", 1), ("r1", 2), ("run-000123", 1), ("\N{SNOWMAN}", 2)])
def test_a_run_has_one_shard_for_ever(run_id: str, shard: int) -> None:
    """A run is counted by the same shard in every process and version."""
    assert shard == shard_of(run_id, 7)
    assert 0 == shard_of(run_id, 1)
    assert {0, 1} == {shard_of(f"r{n}", 2) for n in range(9)}


def test_stats_of_a_workflow_are_one_write_a_shard() -> None:
    """However many runs of a workflow change, each shard of its stats is written once."""
    changes = {
        ("w", f"r{n}"): fold(None, [an_event(workflow_id="w", id=f"r{n}", status=RunStatus.SUCCESS)])
        for n in range(100)
    }

    writes = stats_writes(changes, shards=4)

    assert sorted((write.workflow_id, write.shard) for write in writes) == [("w", n) for n in range(4)]
    assert (
        100 == sum(write.delta.total for write in writes) == sum(write.delta.successful for write in writes)
    )


def test_what_stays_is_not_written() -> None:
    """A run of which nothing is counted otherwise than before writes no stats."""
    first = an_event(workflow_id="w", id="r", hlc=1, status=RunStatus.RUNNING)
    change = fold(None, [first])
    again = fold(change.after, [an_event(workflow_id="w", id="r", hlc=2, status=RunStatus.RUNNING)])

    assert [] == stats_writes({("w", "r"): again})
    assert [
        StatsWrite(
            workflow_id="w",
            shard=0,
            delta=StatsDelta.between(None, first.status),
            as_of=first.occurred_at,
        )
    ] == stats_writes({("w", "r"): change})


def test_a_duration_alone_is_written() -> None:
    """A run that keeps its status and took longer than was known changes the summary, and no stats."""
    known = fold(None, [an_event(id="r", hlc=1, duration_ms=1)]).after
    change = fold(known, [an_event(id="r", hlc=2, duration_ms=3)])

    (write,) = stats_writes({("workflow-1", "r"): change})

    assert not write.delta
    assert 2_000 == write.counters[SummaryCounter(Scope.ALL, 0, MICROS)]


def test_what_is_counted_is_summed() -> None:
    """The counters of a batch are the sums over its runs, and those that end where they began are absent."""
    horizon = Horizon.at(a_run().started_at)
    runs = [a_run(workflow_id="w", id=f"r{n}", duration_ms=n) for n in (1, 1, 2)]
    changes = {
        ("w", str(n)): fold(
            None, [an_event(run, occurred_at=run.started_at + timedelta(hours=n))], horizon=horizon
        )
        for n, run in enumerate(runs)
    }

    (write,) = stats_writes(changes)

    assert a_run().started_at + timedelta(hours=2) == write.as_of
    # Besides the counters: total, successful, success, as_of and shards.
    assert 5 + len(write.counters) == write.changes
    hour = hour_of(a_run().started_at)
    for scope, slot in ((Scope.ALL, 0), (Scope.DAY, hour // 24), (Scope.HOUR, hour)):
        assert 4_000 == write.counters[SummaryCounter(scope, slot, MICROS)]
        assert 2 == write.counters[SummaryCounter(scope, slot, bucket_name(duration_bucket(1_000)))]
        assert (3 if slot else 0) == write.counters.get(SummaryCounter(scope, slot, "success"), 0)
