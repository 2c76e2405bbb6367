"""What the plugin records of ADK's real runner, read back as users read it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from tests.frameworks import framework
from tests.unit.docs.repository import codes, read, table

from run_log.core import RunRef, RunStatus, Step, StepStatus, WorkflowRun
from run_log.stores import SQLiteRunLogService

pytestmark = pytest.mark.process

ADK = framework("adk")
PROGRAM = ("-m", "tests.adapters.adk.program")
SILENT = timedelta(microseconds=1)
BEAT = timedelta(seconds=1.5)
"""Heard of after that, a run that says nothing else has had a heartbeat."""

SECONDS = 90

_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """Where programs keep what they do."""

    folder: Path

    @property
    def runs(self) -> Path:
        """The run log."""
        return self.folder / "runs.sqlite3"

    @property
    def sessions(self) -> Path:
        """ADK's sessions."""
        return self.folder / "sessions.sqlite3"

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead a program there."""
        return {"RUN_LOG_BACKEND": "sqlite", "RUN_LOG_SQLITE_PATH": str(self.runs)}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Return where the programs of this module keep what they do."""
    ADK.make()
    with tempfile.TemporaryDirectory() as folder:
        yield Place(Path(folder))


@pytest.fixture(scope="module")
def returned(place: Place) -> dict[str, Any]:
    """Run agents in every way, and return what each way returned."""
    result = ADK.run(*PROGRAM, "all", place.sessions, environ=place.environ)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return dict(json.loads(result.stdout))


@pytest_asyncio.fixture
async def log(place: Place, returned: object) -> AsyncIterator[SQLiteRunLogService]:  # noqa: ARG001 - what fills it
    """Return the run log that all is in."""
    service = SQLiteRunLogService(path=place.runs)
    yield service
    await service.close()


async def runs_of(log: SQLiteRunLogService, app: str) -> list[WorkflowRun]:
    """Return the runs of an app, the oldest first."""
    runs, _ = await log.list_runs(app, order="oldest", limit=100)
    return runs


async def the_run(log: SQLiteRunLogService, app: str) -> WorkflowRun:
    """Return the only run of an app."""
    (run,) = await runs_of(log, app)
    return run


async def steps_of(log: SQLiteRunLogService, app: str) -> list[tuple[str, ...]]:
    """Return the steps of an app's only run, each as the names from the outermost step to itself."""
    run = await the_run(log, app)
    steps = {step.key: step for step in await log.get_steps(app, run.id)}

    def names(step: Step) -> tuple[str, ...]:
        return (*(names(steps[step.parent]) if step.parent else ()), step.name)

    return sorted(map(names, steps.values()))


async def test_a_success(log: SQLiteRunLogService) -> None:
    """A run has its message, its response, the session as a label, and no user in a label."""
    run = await the_run(log, "succeeds")

    assert (RunStatus.SUCCESS, 1) == (run.status, run.attempt)
    assert "adk" == run.trigger_type
    assert {"message": "hello", "user_id": "mei"} == run.trigger_data
    assert {"response": "It is sunny."} == run.result
    assert {"session": "s1"} == run.labels
    assert run.id.startswith("e-")


async def test_agents_models_and_tools_are_steps(log: SQLiteRunLogService) -> None:
    """An agent's step holds its model's calls, with their tokens, and its tools, with their arguments."""
    run = await the_run(log, "succeeds")
    clerk, *inner = await log.get_steps("succeeds", run.id)

    assert ("clerk", {"kind": "agent"}) == (clerk.name, clerk.attributes)
    assert {clerk.key} == {step.parent for step in inner}
    assert {StepStatus.SUCCESS} == {step.status for step in (clerk, *inner)}
    assert [
        ("scripted", {"kind": "model"}),
        ("weather", {"kind": "tool", "arguments": {"city": "Ulm"}}),
        ("weather", {"kind": "tool", "arguments": {"city": "Bonn"}}),
        ("scripted", {"kind": "model", "input_tokens": 7, "output_tokens": 3}),
    ] == [(step.name, step.attributes) for step in inner]


async def test_what_is_large(log: SQLiteRunLogService) -> None:
    """Messages, arguments and responses of megabytes are cut; the run has all its steps."""
    run = await the_run(log, "large")

    assert (RunStatus.SUCCESS, {"message", "user_id"}) == (run.status, set(run.trigger_data))
    assert {"response"} == set(run.result)
    assert [("clerk",), ("clerk", "scripted"), ("clerk", "scripted"), ("clerk", "weather")] == await steps_of(
        log, "large"
    )


async def test_a_tool_that_raises(log: SQLiteRunLogService, returned: dict[str, Any]) -> None:
    """It fails its step, its agent's and the run, by its own exception, which reaches the caller."""
    run = await the_run(log, "tool_fails")
    failed = {
        step.name for step in await log.get_steps("tool_fails", run.id) if step.error == "ValueError: Ulm"
    }

    assert (RunStatus.FAILED, "ValueError") == (run.status, run.error_type)
    assert {"clerk", "breaks"} == failed
    assert "ValueError('Ulm')" == returned["tool_fails"]


async def test_a_model_that_fails(log: SQLiteRunLogService) -> None:
    """An exception of a model fails the run, and so does an error that is all that a model says."""
    failed, refused = await the_run(log, "model_fails"), await the_run(log, "model_refuses")

    assert (RunStatus.FAILED, "ConnectionError") == (failed.status, failed.error_type)
    assert (RunStatus.FAILED, "SAFETY: blocked") == (refused.status, refused.error)


async def test_a_session_that_cannot_be_written(log: SQLiteRunLogService, returned: dict[str, Any]) -> None:
    """An invocation that fails before it begins is a failed run."""
    run = await the_run(log, "session_fails")

    assert (RunStatus.FAILED, "OSError") == (run.status, run.error_type)
    assert "OSError('the disk is full')" == returned["session_fails"]


async def test_a_node_that_is_retried(log: SQLiteRunLogService) -> None:
    """Its tries are attempts of one step."""
    run = await the_run(log, "node_is_retried")
    steps = await log.get_steps("node_is_retried", run.id)

    assert [("fetch", 3), ("double", 1)] == [(step.name, step.attempt) for step in steps]
    assert {StepStatus.SUCCESS} == {step.status for step in steps}
    assert {"output": 2} == run.result


async def test_agents_in_agents(log: SQLiteRunLogService) -> None:
    """Steps of sequences, of loops, and of agents that run in parallel stand in their own agent's step."""
    turned = [("all", "again", "turn"), ("all", "again", "turn", "scripted")]
    sides = [
        ("all", "both", side, *inner)
        for side in ("left", "right")
        for inner in ((), ("scripted",), ("scripted",), ("weather",))
    ]

    assert sorted([("all",), ("all", "again"), ("all", "both"), *sides, *turned, *turned]) == await steps_of(
        log, "agents_in_agents"
    )


async def test_nodes_in_nodes(log: SQLiteRunLogService) -> None:
    """Steps of a workflow in a workflow, and of a node that another one runs, stand in that one's step."""
    assert [
        ("inner",),
        ("inner", "double"),
        ("inner", "writer"),
        ("inner", "writer", "scripted"),
        ("spread",),
        ("spread", "double"),
    ] == await steps_of(log, "nodes_in_nodes")


async def test_an_agent_as_a_tool(log: SQLiteRunLogService) -> None:
    """Its run is of a workflow of its own, has the run around it as its parent, and that one's session."""
    around = await the_run(log, "agent_as_tool")
    child = await the_run(log, "agent_as_tool.child")
    waiting = await the_run(log, "agent_as_tool.waiting")

    assert [RunStatus.SUCCESS] * 2 == [around.status, child.status]
    assert [RunRef("agent_as_tool", around.id)] * 2 == [child.parent, waiting.parent]
    assert {"session": "s1"} == child.labels
    assert RunStatus.FAILED is waiting.status  # nobody could answer it
    assert "AgentTool" in str(waiting.error)


async def test_without_content(log: SQLiteRunLogService) -> None:
    """Messages, responses and arguments can be left out, and the workflow can be given a name."""
    run = await the_run(log, "named_by_hand")
    steps = await log.get_steps("named_by_hand", run.id)

    assert ({"user_id": "mei"}, {}) == (run.trigger_data, run.result)
    assert [{"kind": "tool"}] == [step.attributes for step in steps if step.name == "weather"]


async def test_many_at_once(log: SQLiteRunLogService, returned: dict[str, Any]) -> None:
    """One plugin serves many invocations of several runners at once, and keeps nothing of them."""
    runs = await runs_of(log, "many_at_once")
    steps = [await log.get_steps("many_at_once", run.id) for run in runs]

    assert (30, {RunStatus.SUCCESS}) == (len(runs), {run.status for run in runs})
    assert [["clerk", "scripted"]] * 30 == [[step.name for step in found] for found in steps]
    assert 0 == returned["many_at_once"]


@pytest.mark.parametrize("app", ["task_cancelled", "timed_out"])
async def test_what_is_cancelled(log: SQLiteRunLogService, app: str) -> None:
    """A run ends as cancelled with its task, and if its task goes on after a timeout."""
    runs = await runs_of(log, app)
    steps = [step for run in runs for step in await log.get_steps(app, run.id)]

    assert [RunStatus.CANCELLED] * 3 == [run.status for run in runs]
    assert {StepStatus.CANCELLED} == {step.status for step in steps}
    assert {"clerk", "all", "scripted"} == {step.name for step in steps}


async def test_what_its_caller_leaves(log: SQLiteRunLogService) -> None:
    """A run that is left after a final response is a success, as ADK has it; before that it is cancelled."""
    answered, *unanswered = await runs_of(log, "left")

    assert (RunStatus.SUCCESS, {"response": "first"}) == (answered.status, answered.result)
    assert [(RunStatus.CANCELLED, "closed by its caller before its end")] * 2 == [
        (run.status, run.error) for run in unanswered
    ]


async def test_turns_of_one_task(log: SQLiteRunLogService) -> None:
    """Invocations of one task, left or interleaved, are no parts of each other."""
    runs = await runs_of(log, "turns")

    assert [(RunStatus.SUCCESS, None)] * 5 == [(run.status, run.parent) for run in runs]
    for run in runs:
        assert ["talker"] == [step.name for step in await log.get_steps("turns", run.id)]


async def test_what_is_aborted(log: SQLiteRunLogService) -> None:
    """A run that ADK's signal aborts is cancelled."""
    run = await the_run(log, "aborted")

    assert (RunStatus.CANCELLED, "aborted") == (run.status, run.error)


async def test_adk_runs_as_without_it(log: SQLiteRunLogService, returned: dict[str, Any]) -> None:
    """Events are the same without the plugin, with it, and with one whose every callback raises."""
    without, recorded, broken = returned["changes_nothing"]

    assert without == recorded == broken
    assert 3 == len(without)
    assert RunStatus.SUCCESS is (await the_run(log, "changes_nothing")).status


async def test_what_people_are_asked(paused: dict[str, WorkflowRun]) -> None:
    """A request is a typed pause: its message, and its schema as the form. The run keeps the request."""
    answer = {"type": "string", "title": "Answer"}
    text = {"type": "object", "properties": {"result": answer}, "required": ["result"]}
    asked = {name: (run.pause.reason, run.pause.form) for name, run in paused.items() if run.pause}
    values = paused["asks_for_values"].result["request"]["args"]

    assert {RunStatus.PAUSED} == {run.status for run in paused.values()}
    assert ("How much?", values["response_schema"]) == asked["asks_for_values"]
    assert {"order": "o-1"} == values["payload"]
    assert ("Which name?", text) == asked["asks_for_text"]
    assert ('later({"text": "when?"})', text) == asked["waits_for_tool"]


async def test_credentials(log: SQLiteRunLogService, returned: dict[str, Any]) -> None:
    """A request for credentials is a pause that only ADK's clients answer. Its arguments are not kept."""
    run = await the_run(log, "asks_for_credentials")
    *others, credentials = returned["cannot_be_handed_over"]

    assert run.pause is not None
    assert (RunStatus.PAUSED, "Log in.", None) == (run.status, run.pause.reason, run.pause.form)
    assert {"request": {"id": "c-1", "name": "adk_request_credential"}} == run.result
    assert credentials.startswith("run 'e-1' of 'w' waits for credentials")
    assert ["run 'e-1' of 'w' has no answer to hand to an agent"] * 3 == [
        text.split(":")[0] for text in others
    ]


async def test_the_documentation(log: SQLiteRunLogService, returned: dict[str, Any]) -> None:
    """The lines that it takes record a run, and the page lists every callback."""
    page = read("docs/adk.md")
    listed = [f"{name}_callback" for callback, _ in table(page, "callback") for name in codes(callback)]

    assert RunStatus.SUCCESS is (await the_run(log, "support")).status
    assert sorted(returned["documented"]) == sorted(listed)


async def test_a_tool_that_is_to_be_confirmed(paused: dict[str, WorkflowRun]) -> None:
    """Its confirmation is a pause with two choices, and a reason that shows the arguments."""
    pause = paused["confirms"].pause

    assert pause is not None
    assert ('refund({"order": "o-1"})', ("confirm", "decline")) == (pause.reason, pause.choices)


async def answers_of(log: SQLiteRunLogService, app: str) -> list[tuple[object, ...]]:
    """Return the states of an app's only run, each with its answer."""
    history = await log.get_history(app, (await the_run(log, app)).id)
    return [(line.status.value, line.answered_by, line.choice or line.values) for line in history]


@pytest.mark.usefixtures("continued")
async def test_answers_in_the_inbox(log: SQLiteRunLogService) -> None:
    """An answer that somebody gave to the run log is handed to the agent once, in another process."""
    begun = [("running", None, None), ("paused", None, None)]
    ended = [("running", None, None), ("success", None, None)]

    for app, values, result in (
        ("asks_for_values", {"amount": 5}, {"output": {"answer": {"amount": 5, "note": None}}}),
        ("asks_for_text", {"result": "42"}, {"output": {"answer": "42"}}),
        ("waits_for_tool", {"result": "at noon"}, {"response": "noted"}),
    ):
        run = await the_run(log, app)
        assert [*begun, ("running", "mei", values), *ended] == await answers_of(log, app)
        assert (1, result) == (run.attempt, run.result)


async def test_two_confirmations(continued: Continued, log: SQLiteRunLogService) -> None:
    """Requests at once are asked one after the other, and a tool runs only if it was confirmed."""
    run = await the_run(log, "confirms")

    assert [
        ("running", None, None),
        ("paused", None, None),
        ("running", "mei", "confirm"),
        ("running", None, None),
        ("paused", None, None),
        ("running", "bob", "decline"),
        ("running", None, None),
        ("success", None, None),
    ] == await answers_of(log, "confirms")
    assert (["o-1"], {"response": "done"}) == (continued.paid_back, run.result)


@pytest.mark.usefixtures("continued")
async def test_an_answer_past_the_run_log(log: SQLiteRunLogService) -> None:
    """An answer that ADK gets from somebody else resumes the run, too, and stands in its history."""
    assert [
        ("running", None, None),
        ("paused", None, None),
        ("running", None, {"result": "Ada"}),
        ("success", None, None),
    ] == await answers_of(log, "asks_directly")
    assert {"output": {"answer": "Ada"}} == (await the_run(log, "asks_directly")).result


@pytest.mark.usefixtures("continued")
@pytest.mark.parametrize(
    ("app", "parent"), [("here_behind", RunRef("around", "around")), ("elsewhere_behind", None)]
)
async def test_a_projection_that_is_behind(app: str, parent: RunRef | None, log: SQLiteRunLogService) -> None:
    """An invocation goes on with all of its run before that is projected, here and in another process."""
    run = await the_run(log, app)
    history = await log.get_history(app, run.id)

    assert ["running", "paused", "running", "success"] == [line.status.value for line in history]
    assert ("adk", {"session": "s1"}, parent) == (run.trigger_type, run.labels, run.parent)
    assert ({"message": "hello", "user_id": "mei"}, {"output": {"answer": "Ada"}}) == (
        run.trigger_data,
        run.result,
    )
    assert run.pause is not None
    assert ("Which name?", {"result": "Ada"}) == (run.pause.reason, run.pause.values)
    assert run.started_at < history[1].occurred_at


@pytest.mark.usefixtures("continued")
async def test_steps_of_two_processes(log: SQLiteRunLogService) -> None:
    """A run that goes on in another process keeps its steps, and what ADK repeats of a node is no new one."""
    run = await the_run(log, "waits_for_tool")
    values = await the_run(log, "asks_for_values")

    assert ["clerk", "scripted", "later", "clerk", "scripted"] == [
        step.name for step in await log.get_steps("waits_for_tool", run.id)
    ]
    assert ["double", "ask", "ask"] == [
        step.name for step in await log.get_steps("asks_for_values", values.id)
    ]


async def test_a_killed_process(continued: Continued, log: SQLiteRunLogService) -> None:
    """A run whose process was killed falls silent and is swept; what ADK goes on with is its next attempt."""
    run = await the_run(log, "hangs")
    history = await log.get_history("hangs", run.id)

    assert continued.killed == run.id
    assert [("running", 1, False), ("failed", 1, True), ("running", 2, False), ("success", 2, False)] == [
        (line.status.value, line.attempt, line.inferred) for line in history
    ]
    assert {"response": "back again"} == run.result


async def _paused(place: Place) -> dict[str, WorkflowRun]:
    log = SQLiteRunLogService(path=place.runs)
    runs, _ = await log.list_runs(None, status=RunStatus.PAUSED)
    await log.close()
    others = {"asks_for_credentials", "elsewhere_behind"}
    return {run.workflow_id: run for run in runs if run.workflow_id not in others}


@pytest.fixture(scope="module")
def paused(place: Place, returned: dict[str, Any]) -> dict[str, WorkflowRun]:  # noqa: ARG001 - made before
    """Return the runs that wait for an answer, by their workflows."""
    return asyncio.run(_paused(place))


async def _answer(place: Place, paused: dict[str, WorkflowRun]) -> None:
    log = SQLiteRunLogService(path=place.runs)
    answers: dict[str, dict[str, Any]] = {
        "asks_for_values": {"values": {"amount": 5}},
        "asks_for_text": {"values": {"result": "42"}},
        "waits_for_tool": {"values": {"result": "at noon"}},
        "confirms": {"choice": "confirm"},
    }
    for app, answer in answers.items():
        await log.resume(app, paused[app].id, answered_by="mei", **answer)
    await log.close()


async def _until(read: Callable[[], Awaitable[_T | None]]) -> _T:
    """Return what *read* returns, once that is something."""
    async with asyncio.timeout(SECONDS):
        while not (found := await read()):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
        return found


async def _killed(place: Place) -> str:
    """Kill a process whose agent hangs, once its heart has beaten, and return its run, which is swept."""
    log = SQLiteRunLogService(path=place.runs)

    async def beaten() -> str | None:
        stale, _ = await log.list_stale(SILENT, workflow_id="hangs")
        return next((one.run.id for one in stale if one.heard_at > one.run.started_at + BEAT), None)

    with ADK.start(*PROGRAM, "hang", place.sessions, environ=place.environ) as process:
        try:
            run_id = await _until(beaten)
        finally:
            process.kill()
            process.communicate()
    await log.mark_lost("hangs", run_id, older_than=SILENT)
    await log.close()
    return run_id


@dataclass(frozen=True)
class Continued:
    """What went on in another process."""

    killed: str
    """The run whose process was killed."""
    paid_back: list[str]
    """What the tool did that was to be confirmed."""


@pytest.fixture(scope="module")
def continued(place: Place, paused: dict[str, WorkflowRun]) -> Continued:
    """Have all go on in another process that waits for an answer, or was killed."""
    asyncio.run(_answer(place, paused))
    killed = asyncio.run(_killed(place))
    result = ADK.run(*PROGRAM, "go-on", place.sessions, killed, environ=place.environ)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return Continued(killed, json.loads(result.stdout))
