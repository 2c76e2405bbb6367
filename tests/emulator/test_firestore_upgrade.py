"""Documents that an earlier version stored: what they lack is absent, and comes with their next event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from run_log.console.checks import Check, Verdict
from run_log.console.work.doctor import _documents  # pyright: ignore[reportPrivateUsage]
from run_log.core import Outcome, RunStatus, Settings, TriggerType, WorkflowRun, utc_now
from run_log.core.payload import encode_json
from run_log.projector.rebuild import FromRoot
from run_log.stores import FirestoreRunLogService
from run_log.stores.audit import compare
from run_log.stores.firestore import Connection
from run_log.testing import a_run, an_event

from .firestore_kit import OpenedService
from .rebuild_kit import ANEW, LIVE
from .test_rebuild import run_rebuild

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("emulator_environment")]

NOON: Final = datetime(2026, 3, 4, 12, tzinfo=UTC)
MICROS: Final = 1_772_625_600_000_000


def old_document(run_id: str, status: str, **fields: Any) -> dict[str, Any]:
    """Return a run's document as an earlier version wrote it."""
    paused = {"paused_started_at": NOON} if status == "paused" else {}
    # The shards came later than the inbox, and had no root collection at first.
    shard = {} if status == "success" else {"changed_shard": 15, "changed_at": NOON}
    return {
        "id": run_id,
        "workflow_id": "w",
        "status": status,
        "trigger_type": "manual",
        "trigger_data": '{"a":[1]}',
        "result": "{}",
        "error": None,
        "started_at": NOON,
        "completed_at": NOON + timedelta(seconds=2) if status == "success" else None,
        "duration_ms": 2_000.0 if status == "success" else 0.0,
        "attempt": 1,
        "pause": {"reason": "go on?", "assignee": "mei", "deadline": None, "answered_by": None}
        if status == "paused"
        else None,
        "projection": {
            "attempt": 1,
            "hlc": MICROS,
            "event_id": f"event-of-{run_id}",
            "occurred_at": NOON,
            "inferred": False,
            "history": [encode_json([1, MICROS, f"event-of-{run_id}", status, MICROS, 0])],
            **paused,
            **shard,
        },
        **fields,
    }


@pytest.fixture
async def service() -> AsyncIterator[OpenedService]:
    """Yield a service of a project in which an earlier version stored three runs."""
    service = OpenedService.from_env()
    for run_id, status in (("ended", "success"), ("waiting", "paused"), ("begun", "running")):
        await service.reference(f"autopilot_runs/w/runs/{run_id}").set(old_document(run_id, status))
    await service.reference("autopilot_runs/w").set(
        {
            "workflow_id": "w",
            "total": 3,
            "successful": 1,
            "by_status": {"success": 1, "paused": 1, "running": 1},
        }
    )
    yield service
    await service.close()


async def test_what_an_earlier_version_stored_is_read(service: OpenedService) -> None:
    """Runs and stats of an earlier version are read by every query; what they lack is absent."""
    expected = WorkflowRun(
        id="ended",
        workflow_id="w",
        status=RunStatus.SUCCESS,
        trigger_type=TriggerType.MANUAL,
        trigger_data={"a": [1]},
        started_at=NOON,
        completed_at=NOON + timedelta(seconds=2),
        duration_ms=2_000,
    )
    counts = {RunStatus.SUCCESS: 1, RunStatus.PAUSED: 1, RunStatus.RUNNING: 1}

    assert expected == await service.get_run("w", "ended")
    assert ["waiting", "ended", "begun"] == [run.id for run in (await service.list_runs("w"))[0]]
    assert [expected] == [run async for run in service.iter_runs("w", status="success")]
    assert {"total": 3, "successful": 1} == await service.get_stats("w")
    assert ["waiting"] == [run.id for run in await service.get_pending_runs()]
    assert ["waiting"] == [one.run.id for one in (await service.list_pending())[0]]
    (transition,) = await service.get_history("w", "ended")
    assert (RunStatus.SUCCESS, None) == (transition.status, transition.answered_by)
    ((stats,), _) = await service.list_workflows()
    assert (counts, None) == (stats.by_status, stats.as_of)
    summary = await service.get_summary("w")
    assert (3, counts, 0, None) == (summary.total, summary.by_status, summary.durations.count, summary.as_of)
    assert expected == summary.last_success
    assert ["waiting"] == [run.id for run in (await service.list_runs(None, status="paused"))[0]]
    # These go by fields that came later.
    assert ["waiting", "begun"] == [run.id for run in (await service.list_runs(None))[0]]
    assert [3, 2] == [await service.count_runs("w"), await service.count_runs()]
    assert [] == (await service.list_stale(timedelta(0)))[0]
    assert [] == (await service.list_pending(assignee="mei"))[0]


async def test_the_next_event_adds_what_is_missing(service: OpenedService) -> None:
    """The next event of such a run counts it where it was not, and nothing twice."""
    now = utc_now()
    events = [
        an_event(workflow_id="w", id="waiting", status=RunStatus.PAUSED, started_at=now, occurred_at=now),
        an_event(workflow_id="w", id="begun", status=RunStatus.RUNNING, started_at=now, occurred_at=NOON),
        an_event(workflow_id="w", id="ended", duration_ms=5_000, started_at=now, occurred_at=now),
    ]

    assert [Outcome.APPLIED] * 3 == await service.apply(events)
    assert [Outcome.DUPLICATE] * 3 == await service.apply(events)

    assert {"total": 3, "successful": 1} == await service.get_stats("w")
    summary = await service.get_summary("w", timedelta(hours=2), now=now)
    assert (3, 1, timedelta(seconds=5)) == (
        summary.total,
        summary.durations.count,
        summary.durations.total,
    )
    assert ["begun"] == [one.run.id for one in (await service.list_stale(timedelta(0), now=now))[0]]
    assert ["waiting"] == [one.run.id for one in (await service.list_pending(overdue=False))[0]]
    assert now == summary.as_of


async def _checked(root_collection: str = LIVE) -> Check:
    """Return what the doctor says of the documents below a root collection."""
    connection = Connection(Settings.from_env().project, None)
    check = await _documents(connection, Settings(backend="firestore", root_collection=root_collection))
    await connection.close()
    return check


async def _listed(root_collection: str) -> set[str]:
    """Return the ids that a list over all workflows below a root collection shows."""
    log = FirestoreRunLogService(root_collection=root_collection)
    runs, _ = await log.list_runs(None)
    await log.close()
    return {run.id for run in runs}


async def test_what_lists_over_all_workflows_do_not_show(service: OpenedService, tmp_path: Path) -> None:
    """The doctor tells how many runs these lists leave out, until a rebuild copies them to where none is."""
    copied = old_document("copied", "running")
    copied["projection"]["changed_shard"] = "another_root/3"
    await service.reference("autopilot_runs/w/runs/copied").set(copied)

    told = await _checked()
    rebuilt = await run_rebuild(FromRoot(name=LIVE), tmp_path)

    assert {"waiting", "begun"} == await _listed(LIVE)
    assert (Verdict.WRONG, "queries over all workflows do not see 2 documents or more of workflow 'w'") == (
        told.verdict,
        told.found.partition(", such as")[0],
    )
    assert "run-log rebuild --from root:autopilot_runs --into NEW" in told.remedy
    assert 4 == rebuilt.runs
    assert Verdict.OK is (await _checked(ANEW)).verdict
    assert {"waiting", "begun", "ended", "copied"} == await _listed(ANEW)


async def test_a_run_without_a_start(service: OpenedService) -> None:
    """The doctor tells of a run that no query by time sees before those that only some queries do not see."""
    fields = old_document("timeless", "running")
    del fields["started_at"]
    await service.reference("autopilot_runs/w/runs/timeless").set(fields)

    told = await _checked()

    assert Verdict.WRONG is told.verdict
    assert told.found.startswith("queries do not see 1 documents or more of workflow 'w'")
    assert told.found.endswith("they have no started_at")


async def test_the_next_event_of_a_run_shows_it_in_every_list(service: OpenedService) -> None:
    """The doctor has nothing to tell any more once each run has had an event of this version."""
    told = await _checked()
    await service.apply([an_event(workflow_id="w", id="ended")])

    assert (Verdict.WRONG, Verdict.OK) == (told.verdict, (await _checked()).verdict)
    assert {"waiting", "begun", "ended"} == await _listed(LIVE)


async def test_duplicates_of_before_the_upgrade_change_nothing(service: OpenedService) -> None:
    """An event that an earlier version stored is a duplicate to this one."""
    event = an_event(
        a_run(workflow_id="w", id="ended", started_at=NOON),
        hlc=MICROS,
        event_id="event-of-ended",
        occurred_at=NOON,
    )

    assert [Outcome.DUPLICATE] == await service.apply([event])
    assert (await service.get_summary("w")).as_of is None


async def test_shards_of_before_are_no_difference(plain: OpenedService) -> None:
    """A run that an earlier version stored equals the same run below a root collection of today."""
    rebuilt = FirestoreRunLogService(root_collection="autopilot_runs_2")
    event = an_event(workflow_id="w", id="r", status=RunStatus.RUNNING)
    for root in (plain, rebuilt):
        await root.apply([event])
    earlier = {"projection.changed_shard": 15, "projection.active_shard": 3}
    await plain.reference("autopilot_runs/w/runs/r").update(earlier)

    (compared,) = [one async for one in compare(plain.audit(), rebuilt.audit())]
    await rebuilt.close()

    assert not compared.differs
