"""Runs agents in ADK's environment, one way of running after the other, and says which there were."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import operator
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.adapters.adk.asking import (
    answer_behind,
    answer_directly,
    ask_all,
    asker,
    go_on,
    hand_over,
    hang,
)
from tests.adapters.adk.scripts import (
    PAID_BACK,
    agent,
    agents,
    breaks,
    calls,
    double,
    events_of,
    later,
    message,
    node,
    refuses,
    runner_of,
    says,
    sessions_in,
    tools,
    types,
    weather,
    workflow,
)
from tests.unit.docs.repository import fenced, read, run_example

from run_log.core import InvalidArgumentError, WorkflowRun, utc_now
from run_log.producer import record_run

_adk: Any = import_module("run_log.adapters.adk")
_Event: Any = import_module("google.adk.events.event").Event
_RequestInput: Any = import_module("google.adk.events.request_input").RequestInput

Way = Callable[[], Awaitable[object]]
WAYS: dict[str, Way] = {}


def way(function: Way) -> Way:
    """Have *function* be one of the ways of running. Its app has its name."""
    WAYS[function.__name__] = function
    return function


async def failure_of(running: Awaitable[object]) -> str:
    """Return the exception that *running* raises."""
    try:
        await running
    except Exception as error:  # noqa: BLE001 - whatever it is
        return repr(error)
    return "none"


@way
async def succeeds() -> object:
    """An agent that calls two tools."""
    root = agent(
        "clerk",
        calls(("weather", {"city": "Ulm"}), ("weather", {"city": "Bonn"})),
        says("It is sunny."),
        tools=[weather],
    )
    await events_of(runner_of(root, "succeeds", _adk.RunLogPlugin()))
    return None


@way
async def large() -> object:
    """A message, arguments of a tool and a response of megabytes."""
    text = "x" * 5_000_000
    root = agent("clerk", calls(("weather", {"city": text})), says(text), tools=[weather])
    await events_of(runner_of(root, "large", _adk.RunLogPlugin()), text)
    return None


@way
async def tool_fails() -> object:
    """A tool that raises."""
    root = agent("clerk", calls(("breaks", {"city": "Ulm"})), says("done"), tools=[breaks])
    return await failure_of(events_of(runner_of(root, "tool_fails", _adk.RunLogPlugin())))


@way
async def model_fails() -> object:
    """A model that cannot be reached."""
    root = agent("clerk", ConnectionError("no route"))
    return await failure_of(events_of(runner_of(root, "model_fails", _adk.RunLogPlugin())))


@way
async def model_refuses() -> object:
    """A model that says nothing but an error."""
    root = agent("clerk", refuses("SAFETY", "blocked"))
    await events_of(runner_of(root, "model_refuses", _adk.RunLogPlugin()))
    return None


@way
async def session_fails() -> object:
    """A session that cannot be written."""
    runner = runner_of(agent("clerk", says("hi")), "session_fails", _adk.RunLogPlugin())

    async def append_event(**_: object) -> None:
        raise OSError("the disk is full")

    runner.session_service.append_event = append_event
    return await failure_of(events_of(runner))


@way
async def node_is_retried() -> object:
    """A node that fails twice."""
    tries: list[object] = []

    async def fetch(node_input: Any) -> str:
        tries.append(node_input)
        if len(tries) < 3:
            raise ConnectionError("busy")
        return "fetched"

    config = workflow.RetryConfig(max_attempts=3, initial_delay=0.001, jitter=0)
    root = workflow.Workflow(name="flow", edges=[("START", node(fetch, retry_config=config), double)])
    await events_of(runner_of(root, "node_is_retried", _adk.RunLogPlugin()))
    return None


@way
async def agents_in_agents() -> object:
    """Agents in parallel, in a loop, one after the other."""
    parallel = agents.ParallelAgent(
        name="both",
        sub_agents=[
            agent("left", calls(("weather", {"city": "Ulm"})), says("left"), tools=[weather]),
            agent("right", calls(("weather", {"city": "Bonn"})), says("right"), tools=[weather]),
        ],
    )
    loop = agents.LoopAgent(name="again", max_iterations=2, sub_agents=[agent("turn", says("turned"))])
    root = agents.SequentialAgent(name="all", sub_agents=[parallel, loop])
    await events_of(runner_of(root, "agents_in_agents", _adk.RunLogPlugin()))
    return None


@way
async def nodes_in_nodes() -> object:
    """A workflow and an agent in a workflow, and a node that runs another."""
    inner = workflow.Workflow(name="inner", edges=[("START", agent("writer", says("written")), double)])

    async def spread(ctx: Any, node_input: Any) -> Any:
        return await ctx.run_node(node(double), node_input=node_input)

    root = workflow.Workflow(name="flow", edges=[("START", inner, node(spread, rerun_on_resume=True))])
    await events_of(runner_of(root, "nodes_in_nodes", _adk.RunLogPlugin()))
    return None


@way
async def agent_as_tool() -> object:
    """Agents that are tools, one of which asks."""
    child = agent("child", says("I am a child."), description="A child.")
    waiting = agent("waiting", calls(("later", {"text": "when?"})), description="Waits.")
    waiting.tools = [tools.LongRunningFunctionTool(later)]
    root = agent(
        "clerk",
        calls(("child", {"request": "who?"})),
        calls(("waiting", {"request": "when?"})),
        says("done"),
        tools=[tools.AgentTool(child), tools.AgentTool(waiting)],
    )
    await events_of(runner_of(root, "agent_as_tool", _adk.RunLogPlugin()))
    return None


@way
async def without_content() -> object:
    """A plugin that records no content."""
    root = agent("clerk", calls(("weather", {"city": "Ulm"})), says("It is sunny."), tools=[weather])
    plugin = _adk.RunLogPlugin(workflow_id="named_by_hand", content=False)
    await events_of(runner_of(root, "without_content", plugin))
    return None


@way
async def many_at_once() -> object:
    """Many invocations of several runners. Return how many runs are kept."""
    plugin = _adk.RunLogPlugin()
    runners = [runner_of(agent("clerk", says("hi")), "many_at_once", plugin) for _ in range(3)]
    await asyncio.gather(*(events_of(runners[number % 3], session_id=f"s{number}") for number in range(30)))
    return len(plugin._runs)


class _Talks(agents.BaseAgent):  # type: ignore[misc]  # untyped
    """An agent without a model, that says two things and waits before each."""

    async def _run_async_impl(self, ctx: Any) -> AsyncIterator[Any]:
        for text in ("first", "second"):
            await asyncio.sleep(0)
            content = message(text, role="model")
            yield _Event(author=self.name, invocation_id=ctx.invocation_id, content=content)


async def waits(node_input: Any) -> None:  # noqa: ARG001 - ADK names it
    """Wait for ever."""
    await asyncio.Event().wait()


STEPS_OF_WAITING = {"agent": 2, "agents": 3, "workflow": 0}
"""How many steps are under way in each kind of `_waiting`: agents, and the call of a model."""


def _waiting(kind: str) -> Any:
    """Return what begins and never ends."""
    if kind == "workflow":
        return workflow.Workflow(name="flow", edges=[("START", waits)])
    clerk = agent("clerk", None)
    return agents.SequentialAgent(name="all", sub_agents=[clerk]) if kind == "agents" else clerk


async def until(is_so: Callable[[], object]) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.002)


@way
async def task_cancelled() -> object:
    """Tasks that are cancelled."""
    for kind in ("agent", "agents", "workflow"):
        plugin = _adk.RunLogPlugin()
        task = asyncio.create_task(events_of(runner_of(_waiting(kind), "task_cancelled", plugin)))
        await until(partial(len, plugin._runs))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await until(partial(operator.not_, plugin._runs))
    return None


@way
async def timed_out() -> object:
    """Timeouts in a task that goes on."""
    plugin = _adk.RunLogPlugin()

    async def time_out(kind: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
                tasks.create_task(expire(limit, STEPS_OF_WAITING[kind]))
                await events_of(runner_of(_waiting(kind), "timed_out", plugin))

    async def expire(limit: asyncio.Timeout, steps: int) -> None:
        """Let the limit pass once the run is at what never ends."""
        await until(lambda: [run for run in plugin._runs.values() if len(run.under_way) >= steps])
        limit.reschedule(0)

    gc.disable()  # which would tell as well
    for kind in ("agent", "agents"):
        await time_out(kind)
    await until(partial(operator.not_, plugin._runs))
    gc.enable()
    await time_out("workflow")  # which has no callbacks
    await until(lambda: gc.collect() >= 0 and not plugin._runs)
    return None


@way
async def left() -> object:
    """Runs that their caller leaves: after a final response, and before it; by an exception, too."""
    plugin = _adk.RunLogPlugin()

    async def leave(root: Any, *, by_error: bool = False) -> None:
        running = runner_of(root, "left", plugin).run_async(
            user_id="mei", session_id="s1", new_message=message("hello")
        )
        async for _ in running:
            if by_error:
                raise KeyError("caller")
            break

    called = calls(("weather", {"city": "Ulm"}))
    await leave(_Talks(name="talker"))
    await leave(agent("clerk", called, tools=[weather]))
    await failure_of(leave(agent("clerk", called, tools=[weather]), by_error=True))
    await until(partial(operator.not_, plugin._runs))
    return None


@way
async def turns() -> object:
    """Turns of a conversation, each left after its response, and two that take turns themselves."""
    plugin = _adk.RunLogPlugin()
    runner = runner_of(_Talks(name="talker"), "turns", plugin)
    for _ in range(3):
        async for _ in runner.run_async(user_id="mei", session_id="s1", new_message=message("hello")):
            break
    others = [
        runner.run_async(user_id="mei", session_id=session, new_message=message("hello"))
        for session in ("s2", "s3")
    ]
    for _ in range(2):
        for running in others:
            await anext(running)
    for running in others:
        await running.aclose()
    await until(partial(operator.not_, plugin._runs))
    return None


@way
async def aborted() -> object:
    """A run that is told to abort."""
    signal = asyncio.Event()
    root = agent("clerk", calls(("weather", {"city": "Ulm"})), says("never"), tools=[weather])
    runner = runner_of(root, "aborted", _adk.RunLogPlugin())
    running = runner.run_async(
        user_id="mei", session_id="s1", new_message=message("hello"), abort_signal=signal
    )
    async for _ in running:
        signal.set()
    return None


@way
async def changes_nothing() -> object:
    """The same run without the plugin, with it, and with one that fails. Return the events of each."""

    class Broken(dict[str, Any]):
        def get(self, *_: object) -> Any:
            raise RuntimeError("broken")

    broken = _adk.RunLogPlugin()
    broken._runs = Broken()
    said: list[list[object]] = []
    for plugins in ([], [_adk.RunLogPlugin()], [broken]):
        root = agent("clerk", calls(("weather", {"city": "Ulm"})), says("It is sunny."), tools=[weather])
        events = await events_of(runner_of(root, "changes_nothing", *plugins))
        said.append([(event.author, [str(part.text) for part in event.content.parts]) for event in events])
    return said


@way
async def documented() -> object:
    """What the documentation shows first. Return the callbacks of the plugin."""
    document = read("docs/adk.md")
    names: dict[str, Any] = {"agent": agent("clerk", says("hi")), "sessions": sessions_in(None)}
    await run_example(fenced(document, "python"), names)
    runner = names["runner"]
    await runner.session_service.create_session(app_name="support", user_id="mei", session_id="s1")
    await events_of(runner)
    callbacks: list[str] = [name for name in dir(_adk.RunLogPlugin) if name.endswith("_callback")]
    return [name for name in callbacks if getattr(_adk.RunLogPlugin, name).__module__.startswith("run_log.")]


@way
async def asks_for_credentials() -> object:
    """A node that asks for credentials."""
    call = types.FunctionCall(
        id="c-1", name="adk_request_credential", args={"secret": "x", "message": "Log in."}
    )

    async def log_in() -> AsyncIterator[Any]:
        content = message(types.Part(function_call=call), role="model")
        yield _Event(content=content, long_running_tool_ids={"c-1"})

    root = workflow.Workflow(name="flow", edges=[("START", node(log_in))])
    await events_of(runner_of(root, "asks_for_credentials", _adk.RunLogPlugin()))
    return None


@way
async def cannot_be_handed_over() -> object:
    """Runs that no agent can be told an answer of. Return why."""
    state = {
        "id": "e-1",
        "workflow_id": "w",
        "status": "running",
        "trigger_type": "adk",
        "started_at": utc_now(),
    }
    answered = {"pause": {"answered_by": "mei"}}
    credential = {"result": {"request": {"id": "c-1", "name": "adk_request_credential"}}}
    refusals: list[str] = []
    for more in ({}, answered, credential, {**answered, **credential}):
        try:
            _adk.answer_of(WorkflowRun.model_validate({**state, **more}))
        except InvalidArgumentError as error:
            refusals.append(str(error))
    return refusals


async def run_all(sessions: Path) -> None:
    """Run in every way and all that ask, and print what each way returned."""
    await ask_all(sessions)
    with record_run("around", run_id="around"):
        await events_of(asker("here_behind", sessions))
    await answer_behind("here_behind", sessions)
    print(json.dumps({name: await run() for name, run in WAYS.items()}))  # noqa: T201 - for who started it


async def go_on_with_all(sessions: Path, killed: str) -> None:
    """Go on with all that does not go on by itself, and print which orders were paid back."""
    await go_on(sessions, killed)
    await answer_directly("asks_directly", "o-3", sessions)
    await answer_behind("elsewhere_behind", sessions)
    await hand_over(sessions)
    print(json.dumps(PAID_BACK))  # noqa: T201 - for who started it


def main() -> None:
    """Do what the first argument says, with the others."""
    warnings.simplefilter("ignore")
    logging.getLogger("google_adk").setLevel(logging.CRITICAL)
    command, *arguments = sys.argv[1:]
    match command, arguments:
        case "all", [sessions]:
            asyncio.run(run_all(Path(sessions)))
        case "hang", [sessions]:
            asyncio.run(hang(Path(sessions)))
        case "go-on", [sessions, killed]:
            asyncio.run(go_on_with_all(Path(sessions), killed))
        case _:
            sys.exit(f"unknown: {sys.argv[1:]}")


if __name__ == "__main__":
    main()
