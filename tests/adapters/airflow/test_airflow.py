from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.frameworks import framework

from run_log.core import RunStatus, StepStatus
from run_log.stores import SQLiteRunLogService

pytestmark = [pytest.mark.process, pytest.mark.search, pytest.mark.timeout(900)]
"""An environment may have to be fetched, and Airflow takes long to start."""

AIRFLOW = framework("airflow")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run log in which the program's dag runs are recorded."""
    AIRFLOW.make()
    folder = tmp_path_factory.mktemp("airflow")
    environ = {
        "RUN_LOG_BACKEND": "sqlite",
        "RUN_LOG_SQLITE_PATH": str(folder / "runs"),
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    with AIRFLOW.start("-m", "tests.adapters.airflow.program", environ=environ) as process:
        try:
            stdout, stderr = process.communicate(timeout=400)
        finally:
            process.kill()
    assert process.returncode == 0, stdout + stderr
    return folder / "runs"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SQLiteRunLogService]:
    """Return the run log of the program."""
    service = SQLiteRunLogService(path=path)
    yield service
    await service.close()


async def test_a_dag_run(log: SQLiteRunLogService) -> None:
    """A dag run is a run with its id, type, configuration and date; it fails as its tasks do."""
    run = await log.get_latest_run("orders")

    assert run is not None
    assert run.id.startswith("manual__")
    assert (RunStatus.FAILED, "task_failure", "manual") == (run.status, run.error, run.trigger_type)
    assert ({"month": "may"}, ["logical_date"]) == (run.trigger_data, list(run.labels))


async def test_task_instances_are_steps(log: SQLiteRunLogService) -> None:
    """A task instance is a step with its try and its index, and fails with its error."""
    run = await log.get_latest_run("orders")
    assert run is not None
    steps = await log.get_steps("orders", run.id)

    assert [
        ("bad", 1, StepStatus.FAILED, "ValueError: no", {}),
        ("download", 1, StepStatus.SUCCESS, None, {}),
        ("flaky", 2, StepStatus.SUCCESS, None, {}),
        ("parse[0]", 1, StepStatus.SUCCESS, None, {}),
        ("parse[1]", 1, StepStatus.SUCCESS, None, {"skipped": True}),
    ] == sorted((step.name, step.attempt, step.status, step.error, dict(step.attributes)) for step in steps)


async def test_what_the_scheduler_tells(log: SQLiteRunLogService) -> None:
    """Start and end of a dag run are told, and a run that is cleared is the next attempt."""
    run = await log.get_run("nightly", "scheduled__1")
    assert run is not None
    history = await log.get_history("nightly", "scheduled__1")

    assert (2, RunStatus.SUCCESS, "scheduled") == (run.attempt, run.status, run.trigger_type)
    assert ["running", "failed", "running", "success"] == [line.status.value for line in history]
    assert {"logical_date": "2026-12-01T00:00:00+00:00"} == run.labels
