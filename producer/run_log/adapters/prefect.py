"""Flow runs of Prefect 3, recorded by its state hooks."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, Final
from uuid import UUID

from run_log.core import RunRef, RunStatus, TriggerType, WorkflowRun, utc_now
from run_log.producer import JoinedRun, RunHandle, StepHandle, default_emitter, join_run, record_run
from run_log.producer.loops import is_in_loop

# Untyped: Prefect is not installed where this is checked.
_prefect: Any = import_module("prefect")
_flow_runs: Any = import_module("prefect.flow_runs")
_run_input: Any = import_module("prefect.input.run_input")
_FlowRunContext: Any = import_module("prefect.context").FlowRunContext

_FLOW_HOOKS: Final = ("running", "completion", "failure", "crashed", "cancellation")
_TASK_HOOKS: Final = ("running", "completion", "failure")

MAX_JOINED: Final = 100
"""The most flow runs of other processes whose tasks' attempts are known here."""


def install(*, heartbeat: timedelta | None = None) -> None:
    """Record each flow and task that is defined from now on. Calling it again only changes the heartbeat.

    Args:
        heartbeat: See `record_run`.
    """
    _process.heartbeat = heartbeat
    for kind, name, events in (
        (_prefect.Flow, "flow", _FLOW_HOOKS),
        (_prefect.Task, "task", _TASK_HOOKS),
    ):
        if not hasattr(kind.__init__, "run_log_original"):
            hooks = {event: globals()[f"run_log_{name}_{event}"] for event in events}
            kind.__init__ = _attaching(kind.__init__, hooks)


def _attaching(original: Callable[..., None], hooks: dict[str, Any]) -> Callable[..., None]:
    """Return the constructor *original*, after which the flow or task has *hooks*."""

    @functools.wraps(original)
    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for event, hook in hooks.items():
            attribute = f"on_{event}_hooks"
            # A new list: the flow's own may be one that its author shares between flows. Ours is there
            # already where this is a copy that `with_options` makes.
            others = [each for each in getattr(self, attribute) if each != hook]
            setattr(self, attribute, [*others, hook])

    initialize.run_log_original = original  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess] - marks it
    return initialize


@dataclass(slots=True)
class _Steps:
    """The step of a task run, and what ends it."""

    flow_run_id: UUID
    handle: StepHandle
    end: Callable[[BaseException | None], None]


class _Process:
    """What is known of the flows and tasks that run in this process.

    Attributes:
        heartbeat: Of its runs.
        runs: Of its flows, by flow run.
        joined: The runs of flows in other processes, tasks of which run here.
        steps: By task run.
    """

    def __init__(self) -> None:
        self.heartbeat: timedelta | None = None
        # Single operations of a dict are atomic, so these need no lock.
        self.runs: dict[UUID, RunHandle] = {}
        self.joined: dict[UUID, JoinedRun] = {}
        self.steps: dict[UUID, _Steps] = {}


_process: Final = _Process()

# The hooks are functions of this module: Prefect pickles flows and tasks with their hooks. One that has to
# wait returns what Prefect awaits in async code, so that the event loop is not blocked.


def run_log_flow_running(flow: Any, flow_run: Any, _state: Any) -> Awaitable[None] | None:
    """Begin a run, or its next attempt."""
    before = _process.runs.pop(flow_run.id, None)
    _process.runs[flow_run.id] = record_run(
        flow.name,
        run_id=str(flow_run.id),
        attempt=flow_run.run_count + 1,  # Prefect counts after this
        trigger_type=_trigger(flow_run),
        trigger_data=flow_run.parameters,
        labels=_labels(flow_run),
        parent=_around(flow_run),
        heartbeat=_process.heartbeat,
    ).open()
    if before is None:
        return None
    before.fail("it failed, and is tried again")
    return _closed(before)


def _around(flow_run: Any) -> RunRef | None:
    """Return the run of the flow of this process that has started this one."""
    context = _FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None:
        return None
    return None if context.flow_run.id == flow_run.id else RunRef(context.flow.name, str(context.flow_run.id))


def run_log_flow_completion(flow: Any, flow_run: Any, state: Any) -> Awaitable[None] | None:
    """End a run as success."""
    return _end(flow, flow_run, state, RunStatus.SUCCESS)


def run_log_flow_failure(flow: Any, flow_run: Any, state: Any) -> Awaitable[None] | None:
    """End a run as failed."""
    return _end(flow, flow_run, state, RunStatus.FAILED)


run_log_flow_crashed = run_log_flow_failure


def run_log_flow_cancellation(flow: Any, flow_run: Any, state: Any) -> Awaitable[None] | None:
    """End a run as cancelled."""
    return _end(flow, flow_run, state, RunStatus.CANCELLED)


def _end(flow: Any, flow_run: Any, state: Any, status: RunStatus) -> Awaitable[None] | None:
    run = _process.runs.pop(flow_run.id, None)
    for task_run_id, step in list(_process.steps.items()):
        if step.flow_run_id == flow_run.id:  # Prefect calls no hook of a task that crashed
            _process.steps.pop(task_run_id, None)
    if run is None:
        _emit_end(flow, flow_run, state, status)
        return None
    if status is RunStatus.CANCELLED:
        run.cancel(state.message or "")
    elif status is RunStatus.FAILED:
        run.fail(_exception(state) or state.message or state.name)
    return _closed(run)


def run_log_task_running(_task: Any, task_run: Any, _state: Any) -> None:
    """Begin a step, or its next attempt."""
    key, name = str(task_run.id), task_run.name
    run = _process.runs.get(task_run.flow_run_id)
    if run is not None:
        parents = task_run.task_inputs.get("__parents__") or [None]
        parent = getattr(next(iter(parents)), "id", None)
        handle = run.begin_step(name, key=key, parent=None if parent is None else str(parent))
        _process.steps[task_run.id] = _Steps(task_run.flow_run_id, handle, handle.end)
    elif task_run.flow_run_id is not None:
        joined = _join(task_run.flow_run_id)
        if joined is not None:
            scope = joined.step(name, key=key)

            def end(error: BaseException | None) -> None:
                scope.__exit__(None, error, None)
                joined.__exit__()  # this process may end without warning

            _process.steps[task_run.id] = _Steps(task_run.flow_run_id, scope.__enter__(), end)


def _join(flow_run_id: UUID) -> JoinedRun | None:
    """Return the run of a flow that runs in another process."""
    known = _process.joined.get(flow_run_id)
    context = _FlowRunContext.get()
    if known is None and context is not None and context.flow is not None:
        while len(_process.joined) >= MAX_JOINED:  # nothing tells of their ends here
            _process.joined.pop(next(iter(_process.joined)), None)
        known = _process.joined[flow_run_id] = join_run(context.flow.name, str(flow_run_id))
    return known


def run_log_task_completion(task: Any, task_run: Any, state: Any) -> None:
    """End a step as success."""
    if task_run.id not in _process.steps:  # from the cache: it has not run
        run_log_task_running(task, task_run, state)
    step = _process.steps.pop(task_run.id, None)
    if step is not None:
        step.end(None)


def run_log_task_failure(_task: Any, task_run: Any, state: Any) -> None:
    """End a step as failed."""
    step = _process.steps.pop(task_run.id, None)
    if step is not None:
        step.handle.fail(_exception(state) or state.message or state.name)
        step.end(None)


def pause_flow_run(
    wait_for_input: Any = None, timeout: int = 3600, *, reason: str = "", **options: Any
) -> Any:  # as Prefect's own
    """Do what Prefect's ``pause_flow_run`` does, and record the pause, its form and the answer.

    Args:
        wait_for_input: As with Prefect; the form is made of it.
        timeout: As with Prefect; the deadline is made of it.
        reason: What is to be decided; the description of the input by default.
        options: See Prefect's.
    """
    options["timeout"] = timeout
    if is_in_loop():
        return _pause_async(wait_for_input, reason, options)
    with _paused(wait_for_input, options["timeout"], reason) as answered:
        value = _flow_runs.pause_flow_run(wait_for_input, **options)
        answered(value)
    return value


async def _pause_async(wait_for_input: Any, reason: str, options: dict[str, Any]) -> Any:
    with _paused(wait_for_input, options["timeout"], reason) as answered:
        value = await _flow_runs.apause_flow_run(wait_for_input, **options)
        answered(value)
    return value


@contextmanager
def _paused(wait_for_input: Any, timeout: int, reason: str) -> Generator[Callable[[Any], None]]:
    """State that the flow's run is paused, and yield what states that it goes on with an answer."""
    context = _FlowRunContext.get()
    run = None if context is None or context.flow_run is None else _process.runs.get(context.flow_run.id)
    form, description = None, None
    with suppress(Exception):  # Prefect says what is wrong with it
        if wait_for_input is not None:
            model = _run_input.run_input_subclass_from_type(wait_for_input)
            form, description = model.model_json_schema(), getattr(model, "_description", None)

    def answered(value: Any) -> None:
        if run is not None:
            values = value.model_dump(mode="json") if hasattr(value, "model_dump") else {"value": value}
            run.resume(values=None if wait_for_input is None else values)

    if run is not None:
        text = reason or (description if isinstance(description, str) else "")
        run.pause(text, form=form, deadline=utc_now() + timedelta(seconds=timeout))
    try:
        yield answered
    except Exception:  # the flow may handle it and go on: its run must not stay paused
        if run is not None:
            run.resume()
        raise


def _emit_end(flow: Any, flow_run: Any, state: Any, status: RunStatus) -> None:
    """State the end of a run whose process is gone: Prefect's runner calls the hooks then."""
    default_emitter().emit(
        WorkflowRun(
            id=str(flow_run.id),
            workflow_id=flow.name,
            status=status,
            attempt=max(flow_run.run_count, 1),
            trigger_type=_trigger(flow_run),
            trigger_data=flow_run.parameters,
            labels=_labels(flow_run),
            error=state.message,
            started_at=flow_run.start_time or utc_now(),
            completed_at=utc_now(),
        )
    )


def _trigger(flow_run: Any) -> TriggerType:
    return TriggerType.SCHEDULED if flow_run.auto_scheduled else TriggerType.MANUAL


def _labels(flow_run: Any) -> dict[str, str]:
    deployment = flow_run.deployment_id
    labels = {"flow_run_name": flow_run.name}
    return labels if deployment is None else labels | {"deployment_id": str(deployment)}


def _exception(state: Any) -> BaseException | None:
    """Return the exception of a failed *state*, if it is in memory."""
    held = getattr(state.data, "result", state.data)
    return held if isinstance(held, BaseException) else None


def _closed(run: RunHandle) -> Coroutine[Any, Any, None] | None:
    """Close *run*: at once, or by what is returned, where waiting would block an event loop."""
    if is_in_loop():
        return run.close_async()
    run.close()
    return None
