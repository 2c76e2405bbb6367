"""What plays ADK's part in programs: models that say what is written down, and agents of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

# Untyped: this runs in ADK's environment, and is checked in that of the tests.
agents: Any = import_module("google.adk.agents")
types: Any = import_module("google.genai.types")
workflow: Any = import_module("google.adk.workflow")
tools: Any = import_module("google.adk.tools")
_apps: Any = import_module("google.adk.apps")
_Llm: Any = import_module("google.adk.models.base_llm").BaseLlm
_LlmResponse: Any = import_module("google.adk.models.llm_response").LlmResponse
_Runner: Any = import_module("google.adk.runners").Runner
_InFile: Any = import_module("google.adk.sessions.sqlite_session_service").SqliteSessionService
_InMemory: Any = import_module("google.adk.sessions").InMemorySessionService


class Scripted(_Llm):  # type: ignore[misc]  # untyped
    """A model that says its lines one after the other, in any process, and then the last one again."""

    model: str = "scripted"
    lines: tuple[Any, ...] = ()

    async def generate_content_async(self, request: Any, **_: object) -> AsyncIterator[Any]:
        """Say the next line; raise it, if it is an exception; wait for ever, if it is None."""
        said = sum(content.role == "model" for content in request.contents)
        line = self.lines[min(said, len(self.lines) - 1)]
        await asyncio.sleep(0)
        if line is None:
            await asyncio.Event().wait()
        if isinstance(line, Exception):
            raise line
        yield line


def message(*parts: Any, role: str = "user") -> Any:
    """Return a message of texts and other parts."""
    made = [types.Part(text=part) if isinstance(part, str) else part for part in parts]
    return types.Content(role=role, parts=made)


def says(text: str) -> Any:
    """Return a line of a model: a text, for which it took 7 tokens and gave 3."""
    usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=7, candidates_token_count=3)
    return _LlmResponse(content=message(text, role="model"), usage_metadata=usage)


def calls(*wanted: tuple[str, dict[str, Any]]) -> Any:
    """Return a line of a model: calls of tools, by their names and arguments."""
    parts = [types.Part(function_call=types.FunctionCall(name=name, args=args)) for name, args in wanted]
    return _LlmResponse(content=message(*parts, role="model"))


def refuses(code: str, text: str) -> Any:
    """Return a line of a model that says nothing but an error."""
    return _LlmResponse(error_code=code, error_message=text)


def agent(name: str, *lines: Any, tools: Iterable[Any] = (), **more: Any) -> Any:
    """Return an agent whose model says *lines*."""
    return agents.LlmAgent(name=name, model=Scripted(lines=lines), tools=list(tools), **more)


def node(function: Callable[..., Any], **more: Any) -> Any:
    """Return a node of a workflow that calls *function*."""
    return workflow.FunctionNode(func=function, name=function.__name__, **more)


def sessions_in(file: Path | None) -> Any:
    """Return a service that keeps sessions in *file*; None is this process's memory."""
    return _InMemory() if file is None else _InFile(str(file))


def runner_of(root: Any, name: str, *plugins: Any, sessions: Any = None, is_resumable: bool = False) -> Any:
    """Return a runner of *root* as the app *name*, with what keeps its sessions; None is this memory."""
    config = _apps.ResumabilityConfig(is_resumable=True) if is_resumable else None
    app = _apps.App(name=name, root_agent=root, plugins=list(plugins), resumability_config=config)
    return _Runner(app=app, session_service=sessions or _InMemory(), auto_create_session=True)


async def events_of(runner: Any, said: Any = "hello", **more: Any) -> list[Any]:
    """Run an invocation to its end, and return its events."""
    content = message(said) if isinstance(said, str) else said
    running = runner.run_async(**{"user_id": "mei", "session_id": "s1", "new_message": content, **more})
    return [event async for event in running]


def weather(city: str) -> str:  # noqa: ARG001 - the model names it
    """Tell the weather."""
    return "sunny"


def breaks(city: str) -> str:
    """Raise an error."""
    raise ValueError(city)


PAID_BACK: list[str] = []


def refund(order: str) -> str:
    """Pay back."""
    PAID_BACK.append(order)
    return "paid back"


def later(text: str) -> None:
    """Leave the answer to others."""


async def double(node_input: Any) -> int:
    """Return twice a number."""
    return 2 * (node_input if isinstance(node_input, int) else 1)
