"""The plugin: what ADK calls, and what is recorded then."""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any, Final, ParamSpec

from run_log.core.logs import get_logger
from run_log.core.nearest import Contained, is_foreign
from run_log.producer import record_run, resume_run

from ._requests import SESSION, Past, pause_for
from ._run import Place, Run, current_place, error_of, text_of

# Untyped: ADK is not installed where this is checked.
_BasePlugin: Any = import_module("google.adk.plugins").BasePlugin
_AgentTool: Any = import_module("google.adk.tools.agent_tool").AgentTool

_TRIGGER: Final = "adk"

_UNWINDING: Final = 1.0
"""Seconds after which the run of a cancelled agent has ended, if ADK has not said so."""

_P = ParamSpec("_P")
_logger: Final = get_logger("run_log.adapters")


def _contained(
    callback: Callable[_P, Coroutine[Any, Any, None]],
) -> Callable[_P, Coroutine[Any, Any, None]]:
    """Keep what *callback* raises away from ADK, which would fail the run."""

    @functools.wraps(callback)
    async def contained(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            await callback(*args, **kwargs)
        except BaseException as error:
            if not is_foreign(error):
                raise
            _logger.error("run_log_adapter_failed", callback=callback.__name__, error=repr(error))  # noqa: TRY400

    return contained


class RunLogPlugin(_BasePlugin):  # type: ignore[misc]  # untyped
    """A plugin that records invocations as runs. One serves any number of runners and invocations at once.

    It changes nothing of what ADK does, and never raises. It waits in two places only: an invocation that
    goes on waits until its run is read, five seconds at most, and the end of a run may wait, as `record_run`
    does.

    Args:
        workflow_id: The workflow of the runs; None takes the app's name.
        content: Whether messages, responses and arguments of tools are recorded. What people are asked is.
        heartbeat: See `record_run`.
    """

    def __init__(
        self,
        *,
        workflow_id: str | None = None,
        content: bool = True,
        heartbeat: timedelta | None = timedelta(seconds=30),
    ) -> None:
        super().__init__("run_log")  # pyright: ignore[reportUnknownMemberType] - untyped
        self._workflow_id = workflow_id
        self._keeps_content = content
        self._heartbeat = heartbeat
        # Single operations of a dict are atomic, so threads need no lock.
        self._runs: dict[str, Run] = {}

    @_contained
    async def before_run_callback(self, *, invocation_context: Any) -> None:
        """Begin a run, or go on with it."""
        await self._begin(invocation_context)

    @_contained
    async def on_event_callback(self, *, invocation_context: Any, event: Any) -> None:
        """Note a request, a response, an error, or a step of a node."""
        run = self._runs.get(invocation_context.invocation_id)
        if run is not None and not event.partial:
            run.follow()
            run.hear(event, keeps_content=self._keeps_content)

    @_contained
    async def after_run_callback(self, *, invocation_context: Any) -> None:
        """End the run, or have it wait for an answer."""
        run = self._run_of(invocation_context)
        if run is None:
            return
        why = None
        if invocation_context.is_aborted:
            why = "aborted"
        elif _is_closing(run) and not (run.last is not None and run.last.is_final_response()):
            why = "closed by its caller before its end"
        self._settle(run, why)
        await run.handle.close_async()

    @_contained
    async def on_run_error_callback(self, *, invocation_context: Any, error: Exception) -> None:
        """End the run as failed. It may fail before it begins: if its session cannot be written."""
        run = self._run_of(invocation_context) or await self._begin(invocation_context)
        self._forget(run, error)
        await run.handle.close_async(error)

    @_contained
    async def before_agent_callback(self, *, agent: Any, callback_context: Any) -> None:
        """Begin the step of an agent."""
        run = self._runs.get(callback_context.invocation_id)
        if run is not None:
            around = run.around(callback_context.node_path)
            run.begin("agent", agent.name, agent.name, around).enter()

    @_contained
    async def after_agent_callback(self, *, agent: Any, callback_context: Any) -> None:
        """End the step of an agent. ADK calls this for one that is cancelled, too."""
        run = self._runs.get(callback_context.invocation_id)
        if run is None:
            return
        error = sys.exception() if _is_closing(run) else None
        run.end(run.find("agent", agent.name), error)
        if error is not None and agent.name == run.root:
            # ADK calls nothing more, unless its caller has just left.
            asyncio.get_running_loop().call_later(_UNWINDING, self._abandon, run, "cancelled")

    @_contained
    async def on_agent_error_callback(self, *, agent: Any, callback_context: Any, error: Exception) -> None:
        """End the step of an agent as failed."""
        run = self._runs.get(callback_context.invocation_id)
        if run is not None:
            run.end(run.find("agent", agent.name), error)

    @_contained
    async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:
        """Begin the step of a call of a model."""
        run = self._runs.get(callback_context.invocation_id)
        if run is not None:
            run.begin("model", llm_request.model or "model", None, run.innermost())

    @_contained
    async def after_model_callback(self, *, callback_context: Any, llm_response: Any) -> None:
        """End the step of a call of a model, with the tokens that it took."""
        run = self._runs.get(callback_context.invocation_id)
        if run is None or llm_response.partial:
            return
        place, usage = run.find("model"), llm_response.usage_metadata
        if place is not None and usage is not None:
            tokens = {
                "input_tokens": usage.prompt_token_count,
                "cached_tokens": usage.cached_content_token_count,
                "output_tokens": usage.candidates_token_count,
                "thought_tokens": usage.thoughts_token_count,
            }
            place.tokens = {name: count for name, count in tokens.items() if count}
        run.end(place, error_of(llm_response))

    @_contained
    async def on_model_error_callback(self, *, callback_context: Any, error: Exception, **_: object) -> None:
        """End the step of a call of a model as failed."""
        run = self._runs.get(callback_context.invocation_id)
        if run is not None:
            run.end(run.find("model"), error)

    @_contained
    async def before_tool_callback(
        self, *, tool: Any, tool_args: Mapping[str, Any], tool_context: Any
    ) -> None:
        """Begin the step of a tool."""
        run = self._runs.get(tool_context.invocation_id)
        if run is not None:
            arguments = {"arguments": tool_args} if self._keeps_content and tool_args else {}
            around = run.around(tool_context.node_path)
            place = run.begin("tool", tool.name, id(tool_context), around, **arguments)
            place.is_agent_tool = isinstance(tool, _AgentTool)
            place.enter()

    @_contained
    async def after_tool_callback(self, *, tool_context: Any, **_: object) -> None:
        """End the step of a tool."""
        run = self._runs.get(tool_context.invocation_id)
        if run is not None:
            run.end(run.find("tool", id(tool_context)))

    @_contained
    async def on_tool_error_callback(self, *, tool_context: Any, error: BaseException, **_: object) -> None:
        """End the step of a tool as failed, or as cancelled."""
        run = self._runs.get(tool_context.invocation_id)
        if run is not None:
            run.end(run.find("tool", id(tool_context)), error)

    async def _begin(self, context: Any) -> Run:
        session, run_id = context.session, context.invocation_id
        root: str | None = None if context.agent is None else context.agent.name
        place = current_place()
        outer = place.run if place is not None and place.run.context is not None else None
        in_agent_tool = outer is not None and place is not None and place.is_agent_tool
        workflow_id = self._workflow_id or session.app_name
        if in_agent_tool and root:  # ADK has it run in an app of the same name
            workflow_id = f"{workflow_id}.{root}"
        session_id = outer.session_id if outer is not None and in_agent_tool else session.id
        before = self._runs.get(run_id)
        if before is not None:  # an answer is handed over twice, and the one that comes last tells the rest
            before.let_go(None)
        past = Past.of(session.events, run_id)
        text = text_of(past.began.content if past.has_begun else context.user_content)
        begins: dict[str, Any] = {
            "trigger_type": _TRIGGER,
            "trigger_data": {
                **({"message": text} if self._keeps_content else {}),
                "user_id": session.user_id,
            },
            "labels": {SESSION: session_id},
            "parent": None if outer is None else outer.handle.ref,
        }
        if past.has_begun:
            known = None
            with Contained():  # a run that is not known is read
                known = past.stated({"workflow_id": workflow_id, "id": run_id, **begins})
            recorder = resume_run(workflow_id, run_id, heartbeat=self._heartbeat, known=known, **past.answer)
        else:
            recorder = record_run(workflow_id, run_id=run_id, heartbeat=self._heartbeat, **begins)
        handle = await recorder.open_async()
        run = Run(handle, session_id, root, past.requests, in_agent_tool, sys.exception())
        self._runs[run_id] = run
        loop = asyncio.get_running_loop()
        run.context = weakref.ref(context, functools.partial(self._context_gone, run, loop))
        run.task_done = functools.partial(self._task_done, run)
        run.follow()
        Place(run).enter()
        return run

    def _run_of(self, context: Any) -> Run | None:
        run = self._runs.get(context.invocation_id)
        return run if run is not None and run.context is not None and run.context() is context else None

    def _settle(self, run: Run, why: str | None) -> None:
        """Say how a run ends; *why* it is cancelled, None if it has come to its end."""
        handle, request = run.handle, next(iter(run.requests.values()), None)
        self._forget(run, asyncio.CancelledError(why) if why and request is None else None)
        error = error_of(run.last)
        if request is not None and run.in_agent_tool:
            handle.fail(
                "it waits for an answer, which AgentTool cannot hand to it: make the agent a sub-agent"
            )
        elif request is not None:
            pause_for(handle, request)
        elif why:
            handle.cancel(why)
        else:
            handle.set_result(run.result)
            if error:
                handle.fail(error)

    def _forget(self, run: Run, error: BaseException | None) -> None:
        if self._runs.get(run.handle.run_id) is run:
            del self._runs[run.handle.run_id]
        run.let_go(error)

    def _task_done(self, run: Run, task: asyncio.Task[Any]) -> None:
        # ADK calls nothing where a task is cancelled. One that ends otherwise may have handed the run
        # to another, or asyncio closes it. To ask for its exception would keep asyncio from logging it.
        if task.cancelled():
            self._abandon(run, "the task that ran it was cancelled")

    def _context_gone(self, run: Run, loop: asyncio.AbstractEventLoop, _: object) -> None:
        # The garbage collector calls this, whatever the program is at.
        if run.context is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._abandon, run, "abandoned by its caller")

    def _abandon(self, run: Run, why: str) -> None:
        """End a run of which ADK tells nothing more, unless it has ended."""
        if run.context is not None:
            self._settle(run, why)
            run.handle.close(wait=False)


def _is_closing(run: Run) -> bool:
    """Return whether the run is being closed or cancelled just now."""
    error = sys.exception()
    return isinstance(error, (GeneratorExit, asyncio.CancelledError)) and error is not run.handled
