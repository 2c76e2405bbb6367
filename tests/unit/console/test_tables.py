"""What people see, as snapshots: after a change that is meant, ``pytest --snapshot-update`` writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from syrupy.assertion import SnapshotAssertion

from run_log.console.checks import Check, Verdict
from run_log.console.views.layout import Screen, Sheet, Table
from run_log.console.views.tables import (
    checks_table,
    failures_table,
    history_table,
    pending_table,
    run_line,
    run_sheet,
    runs_table,
    stale_table,
    summary_view,
    workflows_table,
)
from run_log.core import PauseRequest, RunEvent, RunStatus
from run_log.stores import InMemoryRunLogService
from run_log.testing import a_run

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _state(run_id: str, status: RunStatus, minute: int, **fields: Any) -> RunEvent:
    started_at = NOON - HOUR
    run = a_run(id=run_id, workflow_id="invoices", status=status, started_at=started_at, **fields)
    return RunEvent(
        event_id=f"{run_id}-{minute:02}".rjust(12, "0"),
        hlc=minute,
        occurred_at=started_at + timedelta(minutes=minute),
        run=run,
    )


async def _log() -> InMemoryRunLogService:
    """Return a run log with one run of each kind."""
    log = InMemoryRunLogService(now=lambda: NOON)
    asked = PauseRequest(reason="pay 1,200 EUR?", assignee="ann", deadline=NOON - timedelta(minutes=1))
    await log.apply(
        [
            _state("r1", RunStatus.RUNNING, 0),
            _state("r1", RunStatus.SUCCESS, 2, duration_ms=120_000.0, result={"paid": [1, 2], "of": "Ö"}),
            _state("r2", RunStatus.RUNNING, 1),
            _state("r2", RunStatus.FAILED, 3, duration_ms=61.5, error="no account\nat line 3"),
            _state("r3", RunStatus.PAUSED, 4, pause=asked),
            _state("r4", RunStatus.PAUSED, 4, pause=asked),
            _state("r4", RunStatus.RUNNING, 6, pause=asked.model_copy(update={"answered_by": "bob"})),
            _state("r5", RunStatus.SKIPPED, 5, duration_ms=0.0),
        ]
    )
    return log


async def _sheet(log: InMemoryRunLogService, run_id: str) -> Sheet:
    run = await log.get_run("invoices", run_id)
    assert run is not None
    return run_sheet(run)


async def _views() -> dict[str, Table | Sheet]:
    """Return each view, by the name of its snapshot."""
    log, broken = await _log(), await _log()
    nameless = {"error": "", "error_type": "billing.NoAccountError", "duration_ms": 0.0}
    await broken.apply([_state("r6", RunStatus.FAILED, 7, **nameless)])
    runs, _ = await log.list_runs("invoices")
    (failed,) = [run for run in runs if run.id == "r2"]
    summary, hours = summary_view(await log.get_summary("invoices", 2 * HOUR, now=NOON))
    (nothing,) = summary_view(await InMemoryRunLogService().get_summary("invoices"))
    return {
        "runs": runs_table(runs, workflow_id="invoices"),
        "runs of all": runs_table((await log.list_runs(None))[0]),
        "failures": failures_table(await broken.list_failures()),
        "failures of one": failures_table(await broken.list_failures("invoices"), workflow_id="invoices"),
        "success": await _sheet(log, "r1"),
        "failure": await _sheet(log, "r2"),
        "line": run_line(failed),
        "paused": await _sheet(log, "r3"),
        "history": history_table(await log.get_history("invoices", "r4")),
        "pending": pending_table((await log.list_pending(now=NOON))[0]),
        "stale": stale_table((await log.list_stale(timedelta(minutes=30), now=NOON))[0]),
        "workflows": workflows_table((await log.list_workflows())[0]),
        "summary": summary,
        "hours": hours,
        "nothing": nothing,
        "checks": checks_table(CHECKS),
    }


CHECKS = [
    Check(name="topic", verdict=Verdict.OK, found="projects/p/topics/run-log-events, keeps 7 days"),
    Check(
        name="subscription",
        verdict=Verdict.WRONG,
        found="is deleted after 3 days",
        remedy="never delete it",
    ),
    Check(name="lag", verdict=Verdict.UNKNOWN, found="Cloud Monitoring refuses to tell"),
    Check(name="expiry", verdict=Verdict.SKIPPED, found="every run is kept"),
]


async def test_what_people_see(snapshot: SnapshotAssertion) -> None:
    """Everything is shown as it always has been, on a terminal of 80 columns."""
    for name, view in (await _views()).items():
        assert snapshot(name=name) == "\n".join(view.lines(Screen(width=80)))
