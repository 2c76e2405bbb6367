"""What is billed: how many documents each operation reads and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from run_log.core import RunStatus
from run_log.stores.committing.patience import Patience
from run_log.testing import a_life, a_run, an_event

from .firestore_kit import Watch, WatchedService

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]


@pytest.fixture
def watch() -> Watch:
    """Return what sees the calls of `service`."""
    return Watch()


@pytest.fixture
async def service(watch: Watch) -> AsyncIterator[WatchedService]:
    """Yield a service whose calls are counted."""
    service = WatchedService(watch, Patience())
    yield service
    await service.close()


async def test_new_runs_cost_a_write_each(service: WatchedService, watch: Watch) -> None:
    """A batch of runs from start to end costs one write a run, one a workflow, one commit, and no read."""
    lives = [a_life(f"w{n % 2}", f"r{n}") for n in range(10)]

    await service.apply([event for life in lives for event in life])

    assert watch.calls == ["commit"]
    assert Counter(
        [f"autopilot_runs/w{n % 2}/runs/r{n}" for n in range(10)] + ["autopilot_runs/w0", "autopilot_runs/w1"]
    ) == Counter(watch.writes[0])


async def test_the_next_events_need_no_read(service: WatchedService, watch: Watch) -> None:
    """Later events of runs this service wrote cost one write a run, one a workflow, and no read."""
    lives = [a_life("w", f"r{n}") for n in range(5)]
    await service.apply([life[0] for life in lives])
    watch.writes.clear()

    await service.apply([life[1] for life in lives])

    assert watch.calls == ["commit", "commit"]
    assert [len(writes) for writes in watch.writes] == [6]


async def test_stats_are_written_when_they_change(service: WatchedService, watch: Watch) -> None:
    """An event that changes no stats does not write them."""
    await service.apply([an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)])
    watch.writes.clear()

    await service.apply([an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)])

    assert watch.writes == [["autopilot_runs/w/runs/r"]]


async def test_duplicates_cost_nothing(service: WatchedService, watch: Watch) -> None:
    """Events that this service applied before cost neither read nor write."""
    events = a_life("w", "r")
    await service.apply(events)
    watch.calls.clear()

    await service.apply(events)

    assert watch.calls == []


async def test_a_save_costs_a_commit(service: WatchedService, watch: Watch) -> None:
    """A save, the first and the next ones, is one commit without a read."""
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        await service.save_run(a_run(workflow_id="w", id="r", status=status))

    assert watch.calls == ["commit", "commit"]
    assert watch.writes == [["autopilot_runs/w/runs/r", "autopilot_runs/w"]] * 2


async def test_a_wrong_guess_costs_one_read(service: WatchedService, watch: Watch) -> None:
    """A batch with a run that another service wrote is refused once, read once, and committed."""
    other = WatchedService(Watch(), Patience())
    await other.apply([an_event(workflow_id="w", id=f"r{n}") for n in range(3)])
    await other.close()

    await service.apply([an_event(workflow_id="w", id=f"r{n}") for n in range(6)])

    assert watch.calls == ["commit", "batch_get_documents", "commit"]
    assert await service.get_stats("w") == {"total": 6, "successful": 6}


async def test_queries_cost_a_call_each(service: WatchedService, watch: Watch) -> None:
    """Each query is one call, whatever it finds."""
    await service.apply([an_event(workflow_id="w", id=f"r{n}", status=RunStatus.PAUSED) for n in range(9)])
    watch.calls.clear()

    await service.list_runs("w", limit=3)
    await service.list_runs("w", limit=3, status=["paused", "failed"], trigger_type="manual", order="oldest")
    await service.list_workflows(limit=3)
    await service.get_latest_run("w")
    await service.get_pending_runs()
    await service.get_run("w", "r1")
    await service.get_stats("w")
    await service.get_history("w", "r1")
    await service.get_as_of("w")

    assert watch.calls == ["run_query"] * 5 + ["batch_get_documents"] * 4


@pytest.mark.parametrize("runs", [30, 300])
async def test_queries_read_what_they_return(service: WatchedService, watch: Watch, runs: int) -> None:
    """Each query reads what it returns and one more where a page may follow, however many runs there are."""
    paused = [an_event(workflow_id="w", id=f"p{n}", status=RunStatus.PAUSED) for n in range(5)]
    await service.apply([*paused, *(an_event(workflow_id="w", id=f"r{n}") for n in range(runs))])
    read: dict[str, int] = {}
    for name, query in {
        "list": service.list_runs("w", limit=10),
        "list by status": service.list_runs("w", limit=10, status="success", order="oldest"),
        "list workflows": service.list_workflows(limit=10),
        "get": service.get_run("w", "r1"),
        "history": service.get_history("w", "r1"),
        "stats": service.get_stats("w"),
        "as of": service.get_as_of("w"),
        "latest": service.get_latest_run("w"),
        "pending": service.get_pending_runs(),
        "inbox": service.list_pending(limit=3),
        "stale": service.list_stale(timedelta(0)),
    }.items():
        watch.documents = 0
        await query
        read[name] = watch.documents

    assert read == {
        "list": 11,
        "list by status": 11,
        "list workflows": 1,
        "get": 1,
        "history": 1,
        "stats": 1,
        "as of": 1,
        "latest": 1,
        "pending": 5,
        "inbox": 4,
        "stale": 0,
    }


async def test_a_summary_costs_four_documents(service: WatchedService, watch: Watch) -> None:
    """A summary reads the workflow's own document and the three last runs, however many runs there are."""
    statuses = [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.RUNNING]
    await service.apply(
        [an_event(workflow_id="w", id=f"r{n}", status=statuses[n % len(statuses)]) for n in range(90)]
    )
    watch.calls.clear()
    watch.documents = 0

    summary = await service.get_summary("w")

    assert Counter({"run_query": 3, "batch_get_documents": 1}) == Counter(watch.calls)
    assert (90, 4) == (summary.total, watch.documents)


async def test_shards_of_all_workflows_cost_one_call() -> None:
    """Listing workflows whose stats are spread over documents is two calls, however many they are."""
    watch = Watch()
    service = WatchedService(watch, Patience(), stats_shards=4)
    await service.apply([an_event(workflow_id=f"w{n % 5}", id=f"r{n}") for n in range(100)])
    watch.calls.clear()

    found, _ = await service.list_workflows()
    await service.close()

    assert watch.calls == ["run_query", "batch_get_documents"]
    assert [("w0", 20), ("w1", 20), ("w2", 20), ("w3", 20), ("w4", 20)] == [
        (stats.workflow_id, stats.total) for stats in found
    ]


async def test_five_hundred_runs_are_one_commit(service: WatchedService, watch: Watch) -> None:
    """Five hundred small runs of one workflow are one commit with one write of its stats."""
    await service.apply([an_event(workflow_id="w", id=f"r{n}") for n in range(500)])

    assert [501] == [len(writes) for writes in watch.writes]
