"""What is billed: how many documents each operation reads and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from run_log.core import InvalidArgumentError, RunEvent, RunRef, RunStatus, Step, StepStatus, utc_now
from run_log.stores import FirestoreRunLogService
from run_log.stores.firestore.client import Patience
from run_log.stores.firestore.watch.changes import ChangedDocuments, ChangePosition, WatchPosition
from run_log.testing import a_life, a_run, an_event

from .firestore_kit import OpenedService, Watch, WatchedConnection, WatchedService

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

COMMIT, FIND, GET, COUNT = "commit", "run_query", "batch_get_documents", "run_aggregation_query"


async def test_new_runs_cost_a_write_each(service: WatchedService, watch: Watch) -> None:
    """A batch of runs from start to end costs one write a run, one a workflow, one commit, and no read."""
    lives = [a_life(f"w{n % 2}", f"r{n}") for n in range(500)]

    await service.apply([event for life in lives for event in life])

    runs = [f"autopilot_runs/w{n % 2}/runs/r{n}" for n in range(500)]
    assert watch.calls == [COMMIT]
    assert Counter([*runs, "autopilot_runs/w0", "autopilot_runs/w1"]) == Counter(watch.writes[0])


async def test_the_next_events_need_no_read(service: WatchedService, watch: Watch) -> None:
    """Later events of runs this service wrote cost a write a run and no read; the same again, nothing."""
    lives = [a_life("w", f"r{n}") for n in range(5)]
    same = an_event(workflow_id="w", id="r0", status=RunStatus.SUCCESS)
    await service.apply([life[0] for life in lives])
    await service.apply([life[1] for life in lives])
    await service.apply([same])
    for again in (lives[0], [same]):
        await service.apply(again)

    assert watch.calls == [COMMIT] * 3
    # An event that changes no stats does not write them.
    assert [6, 6, 1] == [len(writes) for writes in watch.writes]


async def test_what_a_run_is_made_of_costs_no_more(service: WatchedService, watch: Watch) -> None:
    """Labels, a parent and steps cost no further write and no read; nor does progress."""

    def states(number: int, *, told: int) -> list[RunEvent]:
        steps = [
            Step(
                key=f"s{step}",
                name="load",
                status=StepStatus.SUCCESS if step < told else StepStatus.RUNNING,
                started_at=utc_now(),
                attributes={"rows": step},
                version=2 * told + step,
            )
            for step in range(told + 1)
        ]
        run = a_run(
            workflow_id="w",
            id=f"r{number}",
            status=RunStatus.RUNNING,
            labels={"team": "a", "stage": "b"},
            parent=RunRef("v", "p"),
        )
        return [an_event(run).model_copy(update={"is_progress": told > 1, "steps": tuple(steps)})]

    for told in range(4):
        await service.apply([event for number in range(5) for event in states(number, told=told)])

    assert [COMMIT] * 4 == watch.calls
    assert [6, 5, 5, 5] == [len(writes) for writes in watch.writes]
    assert 4 == len(await service.get_steps("w", "r0"))
    assert 2 == len(await service.get_history("w", "r0"))


async def test_a_save_costs_a_commit(service: WatchedService, watch: Watch) -> None:
    """A save, the first and the next ones, is one commit without a read."""
    for status in (RunStatus.RUNNING, RunStatus.SUCCESS):
        await service.save_run(a_run(workflow_id="w", id="r", status=status))

    assert watch.calls == [COMMIT] * 2
    assert watch.writes == [["autopilot_runs/w/runs/r", "autopilot_runs/w"]] * 2


async def test_a_wrong_guess_costs_one_read(
    service: WatchedService, watch: Watch, plain: WatchedService
) -> None:
    """A batch with a run that another service wrote is refused once, read once, and committed."""
    await plain.apply([an_event(workflow_id="w", id=f"r{n}") for n in range(3)])

    await service.apply([an_event(workflow_id="w", id=f"r{n}") for n in range(6)])

    assert watch.calls == [COMMIT, GET, COMMIT]
    assert await service.get_stats("w") == {"total": 6, "successful": 6}


Query = Callable[[WatchedService], Awaitable[object]]
QUERIES: dict[str, tuple[Query, list[str], int]] = {
    "list": (lambda service: service.list_runs("w", limit=10), [FIND], 11),
    "list by status": (
        lambda service: service.list_runs("w", limit=10, status="success", order="oldest"),
        [FIND],
        11,
    ),
    "list by several": (
        lambda service: service.list_runs("w", limit=3, status=["paused", "failed"], trigger_type="manual"),
        [FIND],
        4,
    ),
    "list without payloads": (lambda service: service.list_runs("w", limit=10, payloads=False), [FIND], 11),
    "list by label": (lambda service: service.list_runs("w", limit=3, label=("team", "a")), [FIND], 4),
    "list by parent": (lambda service: service.list_runs("w", limit=3, parent=("w", "p")), [FIND], 4),
    "list all": (lambda service: service.list_runs(None, limit=10), [FIND], 11),
    "list all by status": (lambda service: service.list_runs(None, limit=10, status="failed"), [FIND], 11),
    "list all by label": (lambda service: service.list_runs(None, limit=3, label=("team", "a")), [FIND], 4),
    "count": (lambda service: service.count_runs("w"), [COUNT], 0),
    "count by several": (
        lambda service: service.count_runs("w", status=["paused", "failed"], trigger_type="manual"),
        [COUNT],
        0,
    ),
    "count all by label": (lambda service: service.count_runs(label=("team", "a")), [COUNT], 0),
    "list workflows": (lambda service: service.list_workflows(limit=10), [FIND], 1),
    "get": (lambda service: service.get_run("w", "r1"), [GET], 1),
    "history": (lambda service: service.get_history("w", "r1"), [GET], 1),
    "stats": (lambda service: service.get_stats("w"), [GET], 1),
    "as of": (lambda service: service.get_as_of("w"), [GET], 1),
    "latest": (lambda service: service.get_latest_run("w"), [FIND], 1),
    "pending": (lambda service: service.get_pending_runs(), [FIND], 5),
    "inbox": (lambda service: service.list_pending(limit=3), [FIND], 4),
    "stale": (lambda service: service.list_stale(timedelta(0)), [FIND], 0),
    "summary": (lambda service: service.get_summary("w"), [GET, FIND, FIND, FIND], 4),
    "notices": (lambda service: service.get_notices(), [FIND, FIND], 0),
}


@pytest.mark.parametrize("runs", [30, 300])
async def test_queries_cost_a_call_each(service: WatchedService, watch: Watch, runs: int) -> None:
    """Each query is one call, a summary four; a page costs one document more than it has, a count none."""
    ends = (RunStatus.SUCCESS, RunStatus.FAILED)
    paused = [an_event(workflow_id="w", id=f"p{n}", status=RunStatus.PAUSED) for n in range(5)]
    ended = [
        an_event(
            workflow_id="w",
            id=f"r{n}",
            status=ends[n % 2],
            labels={"team": "a"} if n < 4 else {},
            parent=RunRef("w", "p") if n < 4 else None,
        )
        for n in range(runs)
    ]
    await service.apply([*paused, *ended])
    for name, (ask, calls, documents) in QUERIES.items():
        watch.calls.clear()
        watch.documents = 0

        await ask(service)

        assert (name, Counter(calls), documents) == (name, Counter(watch.calls), watch.documents)


async def test_a_count_that_is_refused_costs_nothing(service: WatchedService, watch: Watch) -> None:
    """What no index counts is refused before Firestore is asked, and the runs are not read instead."""
    for workflow_id in ("w", None):
        with pytest.raises(InvalidArgumentError, match="by status beside the rest; leave out status"):
            await service.count_runs(workflow_id, label=("team", "a"), status="failed")

    assert [] == watch.calls


async def test_another_root_costs_nothing(
    service: WatchedService, watch: Watch, plain: OpenedService
) -> None:
    """No query over all workflows reads a document of another root collection beside."""
    copy = FirestoreRunLogService(root_collection="autopilot_runs_2")
    statuses = (RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.FAILED)
    for root in (plain, copy):
        await root.apply(
            [
                an_event(
                    workflow_id=f"w{n % 2}",
                    id=f"r{n:02}",
                    status=statuses[n % 3],
                    labels={"team": "a"},
                    parent=RunRef("w", "p"),
                    error_type="ValueError",
                )
                for n in range(18)
            ]
        )
    await copy.close()
    now = utc_now() + timedelta(hours=1)
    queries: dict[str, tuple[Awaitable[object], int]] = {
        "all": (service.list_runs(None), 18),
        "oldest": (service.list_runs(None, order="oldest", status="failed"), 18),
        "status": (service.list_runs(None, status="failed"), 6),
        "failures": (service.list_failures(), 6),
        "label": (service.list_runs(None, label=("team", "a")), 18),
        "parent": (service.list_runs(None, parent=RunRef("w", "p")), 18),
        "error type": (service.list_runs(None, error_type="ValueError"), 18),
        "count": (service.count_runs(), 0),
        "pending": (service.get_pending_runs(), 6),
        "inbox": (service.list_pending(overdue=False), 6),
        "stale": (service.list_stale(timedelta(0), now=now), 6),
    }
    for name, (asked, documents) in queries.items():
        watch.documents = 0

        await asked

        assert (name, documents) == (name, watch.documents)
    assert [18, 6] == [await service.count_runs(), await service.count_runs(status="failed")]
    changes = ChangedDocuments(WatchedConnection(watch), "autopilot_runs", None, page=100)
    everything = WatchPosition(seen=ChangePosition(0, ""), until=await changes.now())
    changed, _ = await changes.page(everything)
    assert 18 == len(changed)


async def test_a_page_reads_a_bounded_number_of_runs(service: WatchedService, watch: Watch) -> None:
    """Where hardly any run that an index finds is selected, a page ends after so many, and goes on there."""
    runs = [an_event(workflow_id="w", id=f"r{n:04}", labels={"team": "a"}) for n in range(1_200)]
    await service.apply(runs)
    watch.documents = 0
    watch.calls.clear()

    first, cursor = await service.list_runs("w", limit=5, label=("team", "a"), status="failed")

    assert ([], 1_000 + 6) == (first, watch.documents)
    assert len(watch.calls) < 10
    assert ([], None) == await service.list_runs(
        "w", limit=5, label=("team", "a"), status="failed", start_after=cursor
    )
    assert watch.documents == 1_200 + 6


async def test_shards_of_all_workflows_cost_one_call(watch: Watch) -> None:
    """Listing workflows whose stats are spread over documents is two calls, however many they are."""
    service = WatchedService(watch, Patience(), stats_shards=4)
    await service.apply([an_event(workflow_id=f"w{n % 5}", id=f"r{n}") for n in range(100)])
    watch.calls.clear()

    found, _ = await service.list_workflows()
    await service.close()

    assert watch.calls == [FIND, GET]
    assert [(f"w{n}", 20) for n in range(5)] == [(stats.workflow_id, stats.total) for stats in found]
