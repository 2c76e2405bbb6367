"""What people see, as snapshots: after a change that is meant, ``pytest --snapshot-update`` writes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from run_log.console.checks import Check, Verdict
from run_log.console.views.layout import Screen, Sheet, Table
from run_log.console.views.tables import (
    checks_table,
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


async def _runs() -> Table | Sheet:
    runs, _ = await (await _log()).list_runs("invoices")
    return runs_table(runs, workflow_id="invoices")


async def _success() -> Table | Sheet:
    run = await (await _log()).get_run("invoices", "r1")
    assert run is not None
    return run_sheet(run)


async def _failure() -> Table | Sheet:
    run = await (await _log()).get_run("invoices", "r2")
    assert run is not None
    return run_sheet(run)


async def _line() -> Table | Sheet:
    run = await (await _log()).get_run("invoices", "r2")
    assert run is not None
    return run_line(run)


async def _paused() -> Table | Sheet:
    run = await (await _log()).get_run("invoices", "r3")
    assert run is not None
    return run_sheet(run)


async def _history() -> Table | Sheet:
    return history_table(await (await _log()).get_history("invoices", "r4"))


async def _pending() -> Table | Sheet:
    runs, _ = await (await _log()).list_pending(now=NOON)
    return pending_table(runs)


async def _stale() -> Table | Sheet:
    runs, _ = await (await _log()).list_stale(timedelta(minutes=30), now=NOON)
    return stale_table(runs)


async def _workflows() -> Table | Sheet:
    workflows, _ = await (await _log()).list_workflows()
    return workflows_table(workflows)


async def _summary() -> Table | Sheet:
    sheet, _ = summary_view(await (await _log()).get_summary("invoices", 2 * HOUR, now=NOON))
    return sheet


async def _hours() -> Table | Sheet:
    _, hours = summary_view(await (await _log()).get_summary("invoices", 2 * HOUR, now=NOON))
    return hours


async def _nothing() -> Table | Sheet:
    (sheet,) = summary_view(await InMemoryRunLogService().get_summary("invoices"))
    return sheet


async def _checks() -> Table | Sheet:
    return checks_table(
        [
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
    )


@pytest.mark.parametrize(
    "shown",
    [
        *(_runs, _success, _failure, _line, _paused, _history, _pending, _stale),
        *(_workflows, _summary, _hours, _nothing, _checks),
    ],
    ids=lambda shown: shown.__name__.strip("_"),
)
async def test_what_people_see(
    shown: Callable[[], Awaitable[Table | Sheet]], snapshot: SnapshotAssertion
) -> None:
    """Everything is shown as it always has been, on a terminal of 80 columns."""
    view = await shown()

    assert snapshot == "\n".join(view.lines(Screen(width=80)))
