from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.frameworks import framework

from run_log.core import RunRef, RunStatus, Step, StepStatus, WorkflowRun
from run_log.stores import SQLiteRunLogService

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]
"""An environment may have to be fetched."""

LANGGRAPH = framework("langgraph")
PROGRAM = ("-m", "tests.adapters.langgraph.program")
LATER = "5ce0dee1-6a3c-4d3a-9d55-5b4a9e4f2b1a"


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Return the variables of a run log in which the first program's graphs are recorded."""
    LANGGRAPH.make()
    folder = tmp_path_factory.mktemp("langgraph")
    environ = {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(folder / "runs")}
    first = LANGGRAPH.run(*PROGRAM, folder / "threads", "first", environ=environ)
    assert (-9, "") == (first.returncode, first.stderr)
    return environ


@pytest.fixture
async def log(environ: Mapping[str, str]) -> AsyncIterator[SQLiteRunLogService]:
    """Return the run log of the first program."""
    service = SQLiteRunLogService(path=environ["RUN_LOG_SQLITE_PATH"])
    yield service
    await service.close()


async def _runs(log: SQLiteRunLogService, workflow_id: str) -> list[WorkflowRun]:
    runs, _ = await log.list_runs(workflow_id, order="oldest")
    return runs


async def _run(log: SQLiteRunLogService, workflow_id: str) -> WorkflowRun:
    (run,) = await _runs(log, workflow_id)
    return run


async def _steps(log: SQLiteRunLogService, run: WorkflowRun) -> dict[str, Step]:
    return {step.name: step for step in await log.get_steps(run.workflow_id, run.id)}


async def _history(log: SQLiteRunLogService, run: WorkflowRun) -> list[str]:
    return [line.status.value for line in await log.get_history(run.workflow_id, run.id)]


async def test_an_invocation_is_a_run(log: SQLiteRunLogService) -> None:
    """An invocation is a run with its input, output, thread and trigger, within the run around it."""
    run = await _run(log, "whole")

    assert (RunStatus.SUCCESS, "chat") == (run.status, run.trigger_type)
    assert ({"said": ["in"]}, {"thread_id": "whole"}) == (run.trigger_data, run.labels)
    assert ["in", "first", "met", "met"] == run.result["said"][:4]
    assert RunRef("around", "around") == run.parent


async def test_nodes_are_steps(log: SQLiteRunLogService) -> None:
    """Each node is a step, in threads too, and the parent of those of a graph within it."""
    run = await _run(log, "whole")
    steps = await log.get_steps("whole", run.id)
    names = {step.key: step.name for step in steps}

    assert {StepStatus.SUCCESS} == {step.status for step in steps}
    assert [
        ("calls", None),
        ("deep", "calls"),
        ("deep", "sub"),
        ("first", None),
        ("left", None),
        ("right", None),
        ("sub", None),
    ] == sorted((step.name, step.parent and names[step.parent]) for step in steps)


async def test_a_failure(log: SQLiteRunLogService) -> None:
    """A node that raises fails, and so does its run, with the exception."""
    run = await _run(log, "fails")
    bad = (await _steps(log, run))["bad"]

    assert (RunStatus.FAILED, "ValueError") == (run.status, run.error_type)
    assert (StepStatus.FAILED, "ValueError: no") == (bad.status, bad.error)


async def test_a_retry(log: SQLiteRunLogService) -> None:
    """Retries of a node are attempts of its step."""
    flaky = (await _steps(log, await _run(log, "retries")))["flaky"]

    assert (3, StepStatus.SUCCESS, None) == (flaky.attempt, flaky.status, flaky.error)


async def test_going_on_after_a_failure(log: SQLiteRunLogService) -> None:
    """A thread that is resumed after a failure is the next attempt of the run that failed."""
    run = await _run(log, "again")

    assert (2, RunStatus.SUCCESS) == (run.attempt, run.status)
    assert ["running", "failed", "running", "success"] == await _history(log, run)


async def test_nothing_to_resume(log: SQLiteRunLogService) -> None:
    """An invocation that LangGraph refuses is a failed run, which no thread goes on with."""
    run = await _run(log, "nothing")

    assert (RunStatus.FAILED, {}) == (run.status, run.labels)
    assert "langgraph.errors.EmptyInputError" == run.error_type


async def test_functions(log: SQLiteRunLogService) -> None:
    """A workflow of functions is a run with a step for each task."""
    run = await _run(log, "LangGraph")
    steps = await log.get_steps("LangGraph", run.id)
    names = {step.key: step.name for step in steps}

    assert ({"value": [1, 2]}, {"value": [2, 4]}) == (run.trigger_data, run.result)
    assert [("double", "doubles"), ("double", "doubles"), ("doubles", None)] == sorted(
        (step.name, step.parent and names[step.parent]) for step in steps
    )


async def test_a_stream_that_is_left(log: SQLiteRunLogService) -> None:
    """A stream that its caller leaves is a cancelled run, or a paused one if it has asked something."""
    left, asking = await _run(log, "left"), await _run(log, "left-asking")

    assert (RunStatus.CANCELLED, "its stream was closed before its end") == (left.status, left.error)
    assert asking.pause is not None
    assert (RunStatus.PAUSED, "go on?") == (asking.status, asking.pause.reason)


async def test_a_pause(log: SQLiteRunLogService) -> None:
    """An interrupt pauses its run, and resuming goes on with it. Another input is another run."""
    before, paused, after = await _runs(log, "chat")
    step = (await _steps(log, paused))["asks"]

    assert ["running", "success"] == await _history(log, before)
    assert ["running", "paused", "running", "success"] == await _history(log, paused)
    assert ["running", "success"] == await _history(log, after)
    assert paused.pause is not None
    assert ("Send it?", ("pay", "wait"), "pay") == (
        paused.pause.reason,
        paused.pause.choices,
        paused.pause.comment,
    )
    assert (StepStatus.SUCCESS, None) == (step.status, step.error)


async def test_a_projection_that_is_behind(log: SQLiteRunLogService) -> None:
    """A graph that goes on before its run is projected, after a pause or a failure, loses nothing of it."""
    run = await _run(log, "behind")

    assert ["running", "paused", "running", "failed", "running", "success"] == await _history(log, run)
    assert ({"said": ["in"]}, {"thread_id": "behind"}, "chat") == (
        run.trigger_data,
        run.labels,
        run.trigger_type,
    )
    assert (2, RunRef("around", "around-behind")) == (run.attempt, run.parent)
    assert run.pause is not None
    assert ("Send it?", "pay") == (run.pause.reason, run.pause.comment)
    assert run.started_at < (await log.get_history("behind", run.id))[1].occurred_at


async def test_a_pause_before_a_node(log: SQLiteRunLogService) -> None:
    """A graph that stops before a node is paused without a question."""
    run = await _run(log, "before")

    assert ["running", "paused", "running", "success"] == await _history(log, run)
    assert {"said": [1, 2]} == run.result


async def test_several_questions(log: SQLiteRunLogService) -> None:
    """Several questions at once are one form, whose values LangGraph takes as they are."""
    run = await _run(log, "two")
    pause = run.pause

    assert pause is not None
    assert pause.form is not None
    assert ["One?", '{"Other?":1}'] == sorted(pause.reason.splitlines(), key=len)
    fields: dict[str, Any] = pause.form["properties"]
    assert {("One?", "string"), ('{"Other?":1}', "object")} == {
        (field["title"], field["type"]) for field in fields.values()
    }
    assert pause.values is not None
    assert fields.keys() == pause.values.keys()
    assert {"said": ["yes", {"amount": 3}]} == run.result


async def test_async_code(log: SQLiteRunLogService) -> None:
    """Async graphs are recorded alike; one whose task is cancelled ends as cancelled."""
    run, hangs = await _run(log, "async"), await _run(log, "hangs")

    assert ["running", "paused", "running", "success"] == await _history(log, run)
    assert {"said": ["slept", "yes"]} == run.result
    assert RunStatus.CANCELLED is hangs.status
    assert StepStatus.CANCELLED is (await _steps(log, hangs))["hangs"].status


async def test_an_answer_from_the_inbox(log: SQLiteRunLogService, environ: Mapping[str, str]) -> None:
    """Another process hands the answer to the graph and goes on with the run; an unread one begins anew."""
    before = await log.get_run("later", LATER)
    assert before is not None
    assert before.pause is not None
    assert ("4,200 EUR: pay?", {"thread_id": "later"}) == (before.pause.reason, before.labels)
    inner, pay = [(await _steps(log, before))[name] for name in ("inner", "pay")]
    assert (inner.key, StepStatus.RUNNING, None) == (pay.parent, pay.status, pay.error)

    await log.resume("later", LATER, answered_by="mei@example.com", values={"amount": 4200})
    threads = Path(environ["RUN_LOG_SQLITE_PATH"]).with_name("threads")
    second = LANGGRAPH.run(*PROGRAM, threads, "second", environ=environ)
    run = await log.get_run("later", LATER)

    assert (0, "") == (second.returncode, second.stderr)
    assert run is not None
    assert run.pause is not None
    assert (RunStatus.SUCCESS, "mei@example.com") == (run.status, run.pause.answered_by)
    assert {"said": ["first", "first", {"amount": 4200}]} == run.result
    assert StepStatus.SUCCESS is (await _steps(log, run))["pay"].status
    assert before.started_at == run.started_at
    *_, unread = await _runs(log, "later")
    assert (RunStatus.SUCCESS, {"thread_id": "nobody"}, None) == (unread.status, unread.labels, unread.pause)


async def test_what_is_large_or_has_no_text(log: SQLiteRunLogService) -> None:
    """A state of megabytes is cut, and objects without a text are named; the graph runs all the same."""
    run = await _run(log, "large")

    assert RunStatus.SUCCESS is run.status
    assert "said" in run.trigger_data
    assert "said" in run.result


async def test_a_branch_that_fails(log: SQLiteRunLogService) -> None:
    """An error of one of several branches fails the run and that branch's step, and no other."""
    run = await _run(log, "branches")
    steps = await _steps(log, run)

    assert (RunStatus.FAILED, "ValueError") == (run.status, run.error_type)
    assert (StepStatus.SUCCESS, StepStatus.FAILED) == (steps["start"].status, steps["bad"].status)
    assert StepStatus.FAILED is not steps["good"].status


async def test_nodes_that_say_where_to_go(log: SQLiteRunLogService) -> None:
    """A node that goes elsewhere, in its graph or in the one around it, succeeds; so does a graph told so."""
    first, second = await _runs(log, "goes")
    parent = await _run(log, "parent")

    assert [["goes", "end"], ["end"]] == [list(await _steps(log, run)) for run in (first, second)]
    assert {"sub", "leaves", "end"} == set(await _steps(log, parent))
    for run in (first, second, parent):
        assert RunStatus.SUCCESS is run.status
        assert {StepStatus.SUCCESS} == {step.status for step in (await _steps(log, run)).values()}


async def test_async_streams(log: SQLiteRunLogService) -> None:
    """Async streams and events are recorded alike, and are cancelled where their reader leaves."""
    left, left_events = await _run(log, "left-async"), await _run(log, "left-events")

    assert [RunStatus.CANCELLED] * 2 == [left.status, left_events.status]
    assert RunStatus.SUCCESS is (await _run(log, "events")).status


async def test_many_at_once(log: SQLiteRunLogService) -> None:
    """Many graphs in one loop that ask and go on at once each go on with their own run."""
    runs = await _runs(log, "many")

    assert 20 == len(runs)
    for run in runs:
        assert run.pause is not None
        assert run.labels == {"thread_id": f"many-{run.pause.comment}"}
        assert ["running", "paused", "running", "success"] == await _history(log, run)


async def test_a_killed_process(log: SQLiteRunLogService) -> None:
    """A run whose process was killed is still running, and is found as stale."""
    run = await _run(log, "killed")
    stale, _ = await log.list_stale(timedelta(0))

    assert RunStatus.RUNNING is run.status
    assert ("killed", run.id) in [each.run.key for each in stale]


def test_the_examples_run(environ: Mapping[str, str]) -> None:
    """The page's examples run as they stand."""
    result = LANGGRAPH.run(*PROGRAM, "-", "docs", environ=environ)

    assert (0, "paused 4,200 EUR: pay?\nsuccess\n", "") == (result.returncode, result.stdout, result.stderr)
