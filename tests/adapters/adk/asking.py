"""What asks people in ADK's environment, and how it gets answers: here or in another process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.adapters.adk.scripts import (
    agent,
    calls,
    double,
    events_of,
    later,
    message,
    node,
    refund,
    runner_of,
    says,
    sessions_in,
    tools,
    types,
    weather,
    workflow,
)
from tests.unit.docs.repository import fenced, read, run_example, section

from run_log.producer import default_emitter

_adk: Any = import_module("run_log.adapters.adk")
_RequestInput: Any = import_module("google.adk.events.request_input").RequestInput


def _ask(key: str, text: str, schema: Any = None) -> Any:
    """Return a node that asks, and returns the answer when it has one."""

    async def ask(ctx: Any) -> AsyncIterator[Any]:
        if key in ctx.resume_inputs:
            yield {"answer": ctx.resume_inputs[key]}
        else:
            yield _RequestInput(
                interrupt_id=key, message=text, payload={"order": key}, response_schema=schema
            )

    return node(ask, rerun_on_resume=True)


def asking(name: str) -> Any:
    """Return the agent or workflow that asks, by its app's name."""
    if name == "asks_for_values":
        schema = {
            "type": "object",
            "properties": {"amount": {"type": "integer"}, "note": {"type": "string"}},
            "required": ["amount"],
        }
        return workflow.Workflow(name="flow", edges=[("START", double, _ask("o-1", "How much?", schema))])
    if name == "asks_for_text":
        return workflow.Workflow(name="flow", edges=[("START", _ask("o-2", "Which name?"))])
    if name == "asks_directly":
        return workflow.Workflow(name="flow", edges=[("START", _ask("o-3", "Which name?"))])
    if name.endswith("_behind"):
        return workflow.Workflow(name="flow", edges=[("START", _ask("o-4", "Which name?"))])
    if name == "waits_for_tool":
        called = calls(("later", {"text": "when?"}))
        return agent("clerk", called, says("noted"), tools=[tools.LongRunningFunctionTool(later)])
    confirmed = tools.FunctionTool(refund, require_confirmation=True)
    called = calls(("refund", {"order": "o-1"}), ("refund", {"order": "o-2"}))
    return agent("clerk", called, says("done"), tools=[confirmed])


ASKING = (
    "asks_for_values",
    "asks_for_text",
    "asks_directly",
    "elsewhere_behind",
    "waits_for_tool",
    "confirms",
)


def asker(name: str, sessions: Path) -> Any:
    """Return the runner of what asks, which goes on in other processes."""
    root = asking(name)
    return runner_of(
        root,
        name,
        _adk.RunLogPlugin(),
        sessions=sessions_in(sessions),
        is_resumable=name == "asks_for_values",
    )


async def ask_all(sessions: Path) -> None:
    """Run all that ask."""
    for name in ASKING:
        await events_of(asker(name, sessions))


async def answer_directly(app: str, request: str, sessions: Path) -> None:
    """Give an answer to ADK, past the run log."""
    response = types.FunctionResponse(id=request, name="adk_request_input", response={"result": "Ada"})
    await events_of(asker(app, sessions), message(types.Part(function_response=response)))


async def answer_behind(app: str, sessions: Path) -> None:
    """Give an answer to ADK while nothing of its run is to be read yet."""
    await default_emitter().flush(30)  # after that its place is fixed
    projected = os.environ["RUN_LOG_SQLITE_PATH"]
    os.environ["RUN_LOG_SQLITE_PATH"] = f"{projected}-behind"
    await answer_directly(app, "o-4", sessions)
    os.environ["RUN_LOG_SQLITE_PATH"] = projected


async def hand_over(sessions: Path) -> None:
    """Hand over the answers as the documentation does, and once more, when there are none."""
    block = fenced(section(read("docs/adk.md"), "## Hand answers back"), "python")
    for name in ASKING:
        names: dict[str, Any] = {"runner": asker(name, sessions)}
        await run_example(block.replace('"support"', repr(name)), names)
        log = names["log"]
        await names["hand_over"]()
        await default_emitter().flush(30)
        if name == "confirms":  # there is a second tool to confirm
            ((asked,), _) = await log.list_pending(workflow_id=name)
            await log.resume(name, asked.run.id, answered_by="bob", choice=_adk.DECLINE)
            await names["hand_over"]()
            await default_emitter().flush(30)
        await names["hand_over"]()
        await log.close()


async def hang(sessions: Path) -> None:
    """Run an agent that never ends, in an app that can go on with it."""
    plugin = _adk.RunLogPlugin(heartbeat=timedelta(seconds=2))
    root = agent("clerk", calls(("weather", {"city": "Ulm"})), None, tools=[weather])
    await events_of(runner_of(root, "hangs", plugin, sessions=sessions_in(sessions), is_resumable=True))


async def go_on(sessions: Path, invocation_id: str) -> None:
    """Go on with an invocation whose process was killed."""
    root = agent("clerk", says("back again"), tools=[weather])
    runner = runner_of(root, "hangs", _adk.RunLogPlugin(), sessions=sessions_in(sessions), is_resumable=True)
    running = runner.run_async(user_id="mei", session_id="s1", invocation_id=invocation_id)
    async for _ in running:
        pass
