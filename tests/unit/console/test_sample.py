"""``run-log dashboard --sample``: workflows that keep running in a file of their own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.processes import started

from run_log.console.work.sample import REGION, Sample, sample_environment
from run_log.console.work.sample_past import EXPENSES, INVOICES, MAILS, REPORTS, past
from run_log.core import RunStatus
from run_log.producer import default_emitter, reset_default_emitter
from run_log.stores import RunLog, SQLiteRunLogService, get_run_log_service, reset_run_log_service

NOW = datetime(2026, 6, 16, 10, tzinfo=UTC)


@pytest.fixture
async def log(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunLog]:
    """Return the embedded run log, into which the default emitter records."""
    monkeypatch.delenv("RUN_LOG_BACKEND", raising=False)
    reset_default_emitter()
    reset_run_log_service()
    yield get_run_log_service()
    reset_default_emitter()
    reset_run_log_service()


async def _at_once(seconds: float) -> None:
    del seconds
    await asyncio.sleep(0)


async def test_each_kind_of_run_occurs(log: RunLog) -> None:
    """The samples have what a newcomer wants to see: steps, tries, labels, pauses, failures, nested runs."""
    sample = Sample(log, chance=random.Random(7), sleep=_at_once)
    for workflow in (sample.sync_invoices, sample.triage_mail, sample.ask_for_expense, sample.report):
        for _ in range(50):
            await asyncio.gather(workflow(), return_exceptions=True)
    await default_emitter().flush(30)

    seen = {
        workflow: Counter([run.status async for run in log.iter_runs(workflow)])
        for workflow in (INVOICES, MAILS, EXPENSES, REPORTS, REGION)
    }
    assert {RunStatus.SUCCESS, RunStatus.FAILED} == set(seen[INVOICES])
    assert {RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SKIPPED} == set(seen[MAILS])
    assert {RunStatus.PAUSED} == set(seen[EXPENSES])
    asked = [one.run.pause for one in (await log.list_pending(limit=50))[0]]
    assert any(pause and pause.form for pause in asked)
    assert any(pause and pause.choices for pause in asked)
    nested = [run.parent async for run in log.iter_runs(REGION)]
    assert all(parent is not None and parent.workflow_id == REPORTS for parent in nested)
    tries = [
        max(step.attempt for step in await log.get_steps(*run.key)) async for run in log.iter_runs(INVOICES)
    ]
    assert 3 == max(tries)


async def test_what_is_answered_goes_on(log: RunLog) -> None:
    """An expense that somebody answers is paid, by the workflows that run all the time."""
    sample = Sample(log, chance=random.Random(7), sleep=_at_once)
    await sample.ask_for_expense()
    await default_emitter().flush(30)
    ((waiting,), _) = await log.list_pending()
    pause = waiting.run.pause
    assert pause is not None
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks, log.watch(EXPENSES) as updates:
        running = tasks.create_task(sample._go_on_with_answered(tasks))  # pyright: ignore[reportPrivateUsage] - `run` never ends
        await asyncio.sleep(0)
        await log.resume(
            *waiting.run.key,
            answered_by="mei",
            choice=pause.choices[0] if pause.choices else None,
            values={"amount": 5, "account": "4712 Travel"} if pause.form else None,
        )
        run = waiting.run
        while not run.status.is_terminal:
            run = (await anext(updates)).run
        running.cancel()

    assert (RunStatus.SUCCESS, {"paid": True}) == (run.status, run.result)


async def test_the_past_is_over(tmp_path: Path) -> None:
    """What happened before is the same for the same chance, has ended, and fills the charts."""
    events = list(past(NOW, random.Random(1), days=30))

    log = SQLiteRunLogService(path=tmp_path / "runs.sqlite3", now=lambda: NOW)
    await log.apply(events)
    summary = await log.get_summary(INVOICES, timedelta(days=30), now=NOW)
    assert [event.run for event in events] == [event.run for event in past(NOW, random.Random(1), days=30)]
    assert {RunStatus.SUCCESS, RunStatus.FAILED} == set(summary.by_status)
    assert 25 < sum(1 for bucket in summary.buckets if bucket.total)
    assert all(run.completed_at and run.completed_at < NOW for run in [event.run for event in events[1::2]])
    await log.close()


def test_nothing_of_the_environment_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples go to a file of their own, whatever is set, and what was set is set again afterwards."""
    monkeypatch.setenv("RUN_LOG_BACKEND", "firestore")
    monkeypatch.setenv("RUN_LOG_SPOOL_DIR", "/var/spool/run-log")
    monkeypatch.setenv("RUN_LOG_DASHBOARD_READ_ONLY", "true")
    before = dict(os.environ)

    with sample_environment():
        path = Path(os.environ["RUN_LOG_SQLITE_PATH"])
        assert "sqlite" == os.environ["RUN_LOG_BACKEND"]
        assert "RUN_LOG_SPOOL_DIR" not in os.environ
        assert "true" == os.environ["RUN_LOG_DASHBOARD_READ_ONLY"]
        assert path.parent.is_dir()

    assert before == dict(os.environ)
    assert not path.parent.exists()


@pytest.mark.process
async def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    """The command says where to look, and Ctrl-C ends it without a trace of it."""
    environment = {"TMPDIR": str(tmp_path)}
    async with started("dashboard", "--sample", "--port", "0", environment=environment) as process:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            while not (line := await process.stderr.readline()).startswith(b"dashboard  http://"):
                assert line, "it has ended"
            process.send_signal(signal.SIGINT)
            await process.communicate()

    assert 0 == process.returncode
    assert [] == os.listdir(tmp_path)  # noqa: PTH208 - a list, and in one call
