from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.frameworks import framework
from tests.ports import unused_port

from run_log.core import RunStatus, StepStatus
from run_log.stores import SQLiteRunLogService

pytestmark = [pytest.mark.process, pytest.mark.search, pytest.mark.timeout(900)]
"""An environment may have to be fetched, and Airflow takes long to start."""

AIRFLOW = framework("airflow")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run log in which the program's dag runs are recorded."""
    AIRFLOW.make()
    folder, port = tmp_path_factory.mktemp("airflow"), unused_port()
    environ = {
        "RUN_LOG_BACKEND": "sqlite",
        "RUN_LOG_SQLITE_PATH": str(folder / "runs"),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API_AUTH__JWT_SECRET": 64 * "a",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__PARALLELISM": "1",  # several workers may wait for ever at their end
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "true",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    with AIRFLOW.start("-m", "tests.adapters.airflow.program", environ=environ) as process:
        try:
            stdout, stderr = process.communicate(timeout=400)
        finally:
            process.terminate()  # not killed: it ends its servers
    output = stdout + stderr
    assert process.returncode == 0, output
    assert "listener" not in output, output
    return folder / "runs"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SQLiteRunLogService]:
    """Return the run log of the program."""
    service = SQLiteRunLogService(path=path)
    yield service
    await service.close()


async def test_a_dag_run(log: SQLiteRunLogService) -> None:
    """A dag run is a run with its type, configuration and date, and its next attempt once it is cleared."""
    run = await log.get_run("orders", "may")
    assert run is not None
    history = await log.get_history("orders", "may")

    assert (
        2,
        RunStatus.SUCCESS,
        "manual",
        {"month": "may"},
        {"logical_date": "2026-12-01T00:00:00+00:00"},
    ) == (
        run.attempt,
        run.status,
        run.trigger_type,
        run.trigger_data,
        run.labels,
    )
    assert [(1, "running"), (1, "failed"), (2, "running"), (2, "success")] == [
        (line.attempt, line.status.value) for line in history
    ]


async def test_task_instances_are_steps(log: SQLiteRunLogService) -> None:
    """A task instance is a step with its try, its index and what its task sets, though a try was killed."""
    steps = await log.get_steps("orders", "may")

    assert [
        ("after", 1, StepStatus.SUCCESS, None, {}),
        ("bad", 1, StepStatus.SUCCESS, None, {}),  # marked by hand
        ("download", 1, StepStatus.SUCCESS, None, {"rows": 2}),
        ("flaky", 2, StepStatus.SUCCESS, None, {}),
        ("killed", 2, StepStatus.SUCCESS, None, {}),
        ("parse[0]", 1, StepStatus.SUCCESS, None, {}),
        ("parse[1]", 1, StepStatus.SUCCESS, None, {"skipped": True}),
    ] == sorted((step.name, step.attempt, step.status, step.error, dict(step.attributes)) for step in steps)


async def test_a_step_starts_when_its_task_did(log: SQLiteRunLogService) -> None:
    """A task that is marked by hand once its dag run has failed, in another process, has started before."""
    steps = {step.name: step for step in await log.get_steps("orders", "may")}
    failed = next(line for line in await log.get_history("orders", "may") if line.status is RunStatus.FAILED)

    assert steps["bad"].started_at < failed.occurred_at < steps["after"].started_at


async def test_what_is_marked_by_hand(log: SQLiteRunLogService) -> None:
    """A dag run that somebody marks as failed has failed, even if it had not started."""
    run = await log.get_run("held", "may")

    assert run is not None
    assert (RunStatus.FAILED, "marked by hand") == (run.status, run.error)


async def test_a_dag_run_under_way(log: SQLiteRunLogService) -> None:
    """What tasks tell, later than the scheduler, hides nothing that it has told of the dag run."""
    run = await log.get_run("nightly", "under-way")

    assert run is not None
    assert (RunStatus.RUNNING, "scheduled") == (run.status, run.trigger_type)
    assert ["parse"] == [step.name for step in await log.get_steps("nightly", "under-way")]


@pytest.mark.parametrize("run_id", ["started-ahead", "queued-ahead"])
async def test_clocks_that_differ(log: SQLiteRunLogService, run_id: str) -> None:
    """A dag run has ended if one scheduler has told so, however far the clock is ahead by which it began."""
    run = await log.get_run("nightly", run_id)

    assert run is not None
    assert RunStatus.SUCCESS is run.status
