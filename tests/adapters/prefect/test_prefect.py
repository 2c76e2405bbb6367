from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.adapters.prefect.environment import environ_in
from tests.frameworks import framework

from run_log.core import RunStatus, Step, StepStatus, WorkflowRun
from run_log.stores import SQLiteRunLogService

pytestmark = [pytest.mark.process, pytest.mark.search, pytest.mark.timeout(900)]
"""An environment may have to be fetched, and Prefect's server takes long to start."""

PREFECT = framework("prefect")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run log in which the program's flows are recorded."""
    PREFECT.make()
    folder = tmp_path_factory.mktemp("prefect")
    with PREFECT.start("-m", "tests.adapters.prefect.program", environ=environ_in(folder)) as process:
        try:
            stdout, stderr = process.communicate(timeout=500)
        finally:
            process.kill()
    assert (-signal.SIGKILL, "4,200 EUR: pay?\n") == (process.returncode, stdout), stderr
    return folder / "runs"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SQLiteRunLogService]:
    """Return the run log of the program."""
    service = SQLiteRunLogService(path=path)
    yield service
    await service.close()


async def _runs(log: SQLiteRunLogService, workflow_id: str) -> list[WorkflowRun]:
    runs, _ = await log.list_runs(workflow_id, order="oldest")
    return runs


async def _run(log: SQLiteRunLogService, workflow_id: str) -> WorkflowRun:
    (run,) = await _runs(log, workflow_id)
    return run


async def _steps(log: SQLiteRunLogService, run: WorkflowRun) -> list[Step]:
    return list(await log.get_steps(run.workflow_id, run.id))


async def _history(log: SQLiteRunLogService, run: WorkflowRun) -> list[str]:
    return [line.status.value for line in await log.get_history(run.workflow_id, run.id)]


async def test_a_flow_that_is_retried(log: SQLiteRunLogService) -> None:
    """A flow run is a run with its parameters and name; a retry is its next attempt."""
    run = await _run(log, "main")

    assert (RunStatus.SUCCESS, 2, {"x": 3}, "manual") == (
        run.status,
        run.attempt,
        run.trigger_data,
        run.trigger_type,
    )
    assert ["flow_run_name"] == list(run.labels)
    assert ["running", "failed", "running", "success"] == await _history(log, run)


async def test_tasks_are_steps(log: SQLiteRunLogService) -> None:
    """A task run is a step, from the cache too; a task within a task has it as its parent."""
    steps = await _steps(log, await _run(log, "main"))
    names = {step.key: step.name for step in steps}
    first = [(step.name, step.attempt, step.parent and names[step.parent]) for step in steps[:5]]

    assert {StepStatus.SUCCESS} == {step.status for step in steps}
    assert [
        ("flaky", 2, None),
        ("outer", 1, None),
        ("inner", 1, "outer"),
        ("cached", 1, None),
        ("cached", 1, None),
    ] == first
    assert 10 == len(steps)


async def test_mapped_tasks(log: SQLiteRunLogService) -> None:
    """A task that is mapped is a step for each of its calls."""
    steps = await _steps(log, await _run(log, "maps"))

    assert [("doubles", 1, StepStatus.SUCCESS)] * 3 == [
        (step.name, step.attempt, step.status) for step in steps
    ]


async def test_a_subflow(log: SQLiteRunLogService) -> None:
    """A subflow is a run whose parent is the flow run that called it."""
    run, subs = await _run(log, "main"), await _runs(log, "sub")

    assert [run.key, run.key] == [sub.parent for sub in subs]
    assert ["inner"] == [step.name for step in await _steps(log, subs[0])]


async def test_a_failure(log: SQLiteRunLogService) -> None:
    """A flow and a task that raise fail with the exception; so does a flow that Ctrl-C ends."""
    run, interrupted = await _run(log, "fails"), await _run(log, "interrupted")
    (bad,) = await _steps(log, run)

    assert (RunStatus.FAILED, "ValueError") == (run.status, run.error_type)
    assert (StepStatus.FAILED, "ValueError: no") == (bad.status, bad.error)
    assert (RunStatus.FAILED, "KeyboardInterrupt") == (interrupted.status, interrupted.error_type)


async def test_a_pause_that_nobody_answers(log: SQLiteRunLogService) -> None:
    """A flow that goes on after a pause has timed out is running again, until Prefect fails it."""
    assert ["running", "paused", "running", "failed"] == await _history(log, await _run(log, "unanswered"))


@pytest.mark.parametrize("name", ["suspended", "suspended-async"])
async def test_a_flow_that_is_suspended(log: SQLiteRunLogService, name: str) -> None:
    """A flow whose process ends until it is answered is one run: paused, then going on with the answer."""
    run = await _run(log, name)
    history = await log.get_history(name, run.id)

    assert ["running", "paused", "running", "running", "success"] == [line.status.value for line in history]
    assert (1, {"order": "o-1"}, {"flow_run_name", "deployment_id"}) == (
        run.attempt,
        run.trigger_data,
        set(run.labels),
    )
    assert run.pause is not None
    assert run.pause.form is not None
    assert ("o-1: pay?", ["amount"], {"amount": 4200}) == (
        run.pause.reason,
        list(run.pause.form["properties"]),
        run.pause.values,
    )
    assert (name == "suspended") == (run.pause.deadline is not None)
    assert run.started_at <= history[1].occurred_at


async def test_a_task_that_crashes(log: SQLiteRunLogService) -> None:
    """A task that Prefect tells nothing of ends with its flow, which fails, and is not kept in memory."""
    run = await _run(log, "crashes")
    (crashes,) = await _steps(log, run)

    assert RunStatus.FAILED is run.status
    assert ("crashes", StepStatus.CANCELLED) == (crashes.name, crashes.status)


async def test_a_killed_process(log: SQLiteRunLogService) -> None:
    """A flow whose process was killed stays running, is found as stale, and is swept."""
    run = await _run(log, "killed")
    stale, _ = await log.list_stale(timedelta(0), workflow_id="killed")

    assert (RunStatus.RUNNING, [run.id]) == (run.status, [each.run.id for each in stale])

    await log.mark_lost("killed", run.id, older_than=timedelta(0))

    assert ["running", "failed"] == await _history(log, run)


async def test_async_flows(log: SQLiteRunLogService) -> None:
    """Async flows and tasks are recorded alike."""
    run = await _run(log, "async")

    assert ["running", "success"] == await _history(log, run)
    assert ["slow", "slow"] == [step.name for step in await _steps(log, run)]


async def test_an_end_from_another_process(log: SQLiteRunLogService) -> None:
    """The end of a flow whose process is gone is recorded by the hook that Prefect's runner calls."""
    run = await _run(log, "elsewhere")

    assert (RunStatus.CANCELLED, "no longer needed") == (run.status, run.error)


async def test_tasks_of_another_process(log: SQLiteRunLogService) -> None:
    """A task that runs in a process of a task runner is a step of the flow's run."""
    (far,) = await _steps(log, await _run(log, "processes"))

    assert ("far", StepStatus.SUCCESS) == (far.name, far.status)


async def test_the_examples_ran(log: SQLiteRunLogService) -> None:
    """The page's examples run as they stand: a flow, a pause, and its answer handed to Prefect."""
    orders, expense = await _run(log, "orders"), await _run(log, "expense")
    answers = [line for line in await log.get_history("expense", expense.id) if line.answered_by]

    assert (RunStatus.SUCCESS, {"order": "o-1"}) == (orders.status, orders.trigger_data)
    assert (1, "mei@example.com", {"amount": 4200}) == (
        len(answers),
        answers[0].answered_by,
        answers[0].values,
    )
    assert expense.pause is not None
    assert expense.pause.form is not None
    assert (RunStatus.SUCCESS, "4,200 EUR: pay?", ["amount"], {"amount": 4200}) == (
        expense.status,
        expense.pause.reason,
        list(expense.pause.form["properties"]),
        expense.pause.values,
    )
