"""The public JSON form of what queries return, and of their pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from run_log.core import PauseRequest, RunStatus
from run_log.stores import InMemoryRunLogService, page_json
from run_log.testing import an_event

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def log() -> InMemoryRunLogService:
    """Return a run log with a success, a failure, a paused and a silent run, an hour ago."""
    log = InMemoryRunLogService(now=lambda: NOON)
    statuses = {
        "s": RunStatus.SUCCESS,
        "f": RunStatus.FAILED,
        "p": RunStatus.PAUSED,
        "q": RunStatus.RUNNING,
    }
    await log.apply(
        [
            an_event(
                workflow_id="w",
                id=run_id,
                status=status,
                started_at=NOON - HOUR,
                occurred_at=NOON - HOUR,
                event_id=f"e-{run_id}",
                hlc=number,
                duration_ms=2_000.0 if status.is_terminal else 0.0,
                completed_at=NOON if status.is_terminal else None,
                trigger_data={"n": number},
                error="no 17" if status is RunStatus.FAILED else None,
                pause=PauseRequest(deadline=NOON - HOUR / 2) if status is RunStatus.PAUSED else None,
            )
            for number, (run_id, status) in enumerate(statuses.items())
        ]
    )
    return log


async def test_a_pending_run(log: InMemoryRunLogService) -> None:
    """A pending run is its run, with when it began to wait, for how long, and its version."""
    ((pending,), _) = await log.list_pending(now=NOON)

    assert {
        **pending.run.to_json(),
        "paused_at": "2026-03-04T11:00:00.000000Z",
        "age_ms": 3_600_000.0,
        "overdue": True,
        "version": "1:2:e-p",
    } == pending.to_json()


async def test_a_stale_run(log: InMemoryRunLogService) -> None:
    """A stale run is its run, with when it was heard of, and for how long it has been silent."""
    ((stale,), _) = await log.list_stale(HOUR / 2, now=NOON)

    assert {
        **stale.run.to_json(),
        "heard_at": "2026-03-04T11:00:00.000000Z",
        "silence_ms": 3_600_000.0,
    } == stale.to_json()


async def test_an_update(log: InMemoryRunLogService) -> None:
    """An update is its run, with the version and the cursor."""
    async with log.watch("w") as watch:
        await log.apply([an_event(workflow_id="w", id="q", event_id="e-more", hlc=9)])
        update = await anext(watch)

    assert {**update.run.to_json(), "version": "1:9:e-more", "cursor": update.cursor} == update.to_json()


async def test_a_group_of_failures(log: InMemoryRunLogService) -> None:
    """A group of failures has its newest run, without the payloads that were not read."""
    (group,) = await log.list_failures("w")
    newest = group.newest.to_json()
    del newest["trigger_data"], newest["result"]

    assert {
        "workflow_id": "w",
        "error_type": None,
        "text": "no #",
        "count": 1,
        "newest": newest,
    } == group.to_json()


async def test_counts(log: InMemoryRunLogService) -> None:
    """The counts of a workflow stand under the texts of the statuses."""
    ((stats,), _) = await log.list_workflows()
    by_status = {"success": 1, "failed": 1, "paused": 1, "running": 1}

    assert {
        "workflow_id": "w",
        "total": 4,
        "successful": 1,
        "by_status": by_status,
        "as_of": "2026-03-04T11:00:00.000000Z",
    } == stats.to_json()


async def test_a_summary(log: InMemoryRunLogService) -> None:
    """A summary has its counts, its durations, its buckets and its last runs."""
    summary = await log.get_summary("w", 2 * HOUR, now=NOON)
    run, failure = await log.get_run("w", "s"), await log.get_run("w", "f")
    durations = {"count": 2, "mean_ms": 2_000.0, **_percentiles(summary.to_json()["durations"])}
    by_status = {"success": 1, "failed": 1, "paused": 1, "running": 1}
    none = {"count": 0, **dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "p99_ms"))}

    assert run is not None
    assert failure is not None
    assert {
        "workflow_id": "w",
        "since": "2026-03-04T11:00:00.000000Z",
        "total": 4,
        "by_status": by_status,
        "success_rate": 0.5,
        "durations": durations,
        "buckets": [
            {
                "begins": "2026-03-04T11:00:00.000000Z",
                "width_ms": 3_600_000.0,
                "total": 4,
                "by_status": by_status,
                "durations": durations,
            },
            {
                "begins": "2026-03-04T12:00:00.000000Z",
                "width_ms": 3_600_000.0,
                "total": 0,
                "by_status": {},
                "durations": none,
            },
        ],
        "last_run": summary.last_run and summary.last_run.to_json(),
        "last_success": run.to_json(),
        "last_failure": failure.to_json(),
        "as_of": "2026-03-04T11:00:00.000000Z",
    } == json.loads(json.dumps(summary.to_json()))


def _percentiles(durations: dict[str, float]) -> dict[str, float]:
    found = {name: durations[name] for name in ("p50_ms", "p95_ms", "p99_ms")}
    assert all(1_900 < took < 2_100 for took in found.values())
    return found


async def test_an_unknown_workflow(log: InMemoryRunLogService) -> None:
    """The summary of a workflow without runs has null where nothing is known."""
    summary = (await log.get_summary("other", now=NOON)).to_json()

    unknown = ("since", "success_rate", "last_run", "last_success", "last_failure", "as_of")
    assert [None] * 6 == [summary[name] for name in unknown]


async def test_pages(log: InMemoryRunLogService) -> None:
    """A page has its items under their name, and the cursor as `next_page_token` while more is left."""
    first, cursor = await log.list_runs("w", limit=3)
    last, end = await log.list_runs("w", limit=3, start_after=cursor)
    history = await log.get_history("w", "s")

    assert end is None
    assert cursor is not None
    assert {"runs": [run.to_json() for run in first], "next_page_token": cursor} == page_json(
        "runs", first, cursor
    )
    assert {"runs": [run.to_json() for run in last]} == page_json("runs", last, end)
    assert {"transitions": [one.to_json() for one in history]} == page_json("transitions", history)
