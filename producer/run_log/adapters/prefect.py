"""Flow runs of Prefect 3, recorded by its state hooks."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, Final
from uuid import UUID

from run_log.core import RunEvent, RunRef, RunStatus, TriggerType, WorkflowRun, utc_now
from run_log.core.clock import HybridLogicalClock, micros_of
from run_log.producer import (
    JoinedRun,
    RunHandle,
    StepHandle,
    default_emitter,
    join_run,
    record_run,
    resume_run,
)
from run_log.producer.loops import is_in_loop

# Untyped: Prefect is not installed where this is checked.
_prefect: Any = import_module("prefect")
_flow_runs: Any = import_module("prefect.flow_runs")
_run_input: Any = import_module("prefect.input.run_input")
_Pause: Any = import_module("prefect.exceptions").Pause
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
    """Begin a run, or its next attempt, or go on after it was suspended."""
    before = _process.runs.pop(flow_run.id, None)
    if before is None and flow_run.empirical_policy.resuming:
        return _resume(flow, flow_run)
    attempt = flow_run.run_count + 1  # Prefect counts after this
    begun = _begun(flow_run)
    recorder = record_run(
        flow.name, run_id=str(flow_run.id), attempt=attempt, heartbeat=_process.heartbeat, **begun
    )
    _process.runs[flow_run.id] = recorder.open()
    if before is None:
        return None
    before.fail("it failed, and is tried again")
    return _closed(before)


def _begun(flow_run: Any) -> dict[str, Any]:
    """Return what a run has from its beginning."""
    return {
        "trigger_type": _trigger(flow_run),
        "trigger_data": flow_run.parameters,
        "labels": _labels(flow_run),
        "parent": _around(flow_run),
    }


def _resume(flow: Any, flow_run: Any) -> Awaitable[None] | None:
    """Go on with a run whose process has ended when it was suspended."""
    known = None
    with suppress(Exception):  # a run that is not known is read
        started_at = flow_run.start_time
        run = {"id": str(flow_run.id), "workflow_id": flow.name, "status": RunStatus.RUNNING}
        run |= {**_begun(flow_run), "attempt": flow_run.run_count, "started_at": started_at}
        known = RunEvent.from_run(run, clock=HybridLogicalClock(lambda: micros_of(started_at)))
    recorder = resume_run(flow.name, str(flow_run.id), heartbeat=_process.heartbeat, known=known)

    async def resume() -> None:
        _process.runs[flow_run.id] = await recorder.open_async()

    if is_in_loop():
        return resume()
    _process.runs[flow_run.id] = recorder.open()
    return None


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
    run = _forget(flow_run.id)
    if run is None:
        _emit_end(flow, flow_run, state, status)
        return None
    if status is RunStatus.CANCELLED:
        run.cancel(state.message or "")
    elif status is RunStatus.FAILED:
        run.fail(_exception(state) or state.message or state.name)
    return _closed(run)


def _forget(flow_run_id: UUID) -> RunHandle | None:
    """Return the run of a flow that ends here, and keep nothing of it."""
    for task_run_id, step in list(_process.steps.items()):
        if step.flow_run_id == flow_run_id:  # Prefect calls no hook of a task that crashed
            _process.steps.pop(task_run_id, None)
    return _process.runs.pop(flow_run_id, None)


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
    return _wait("pause_flow_run", reason, wait_for_input, timeout=timeout, **options)


def suspend_flow_run(
    wait_for_input: Any = None, timeout: int | None = None, *, reason: str = "", **options: Any
) -> Any:  # as Prefect's own
    """Do what Prefect's ``suspend_flow_run`` does, and record the pause, its form and the answer.

    Args:
        wait_for_input: As with Prefect; the form is made of it.
        timeout: As with Prefect; the deadline is made of it.
        reason: What is to be decided; the description of the input by default.
        options: See Prefect's. With another ``flow_run_id``, nothing is recorded.
    """
    return _wait("suspend_flow_run", reason, wait_for_input, timeout=timeout, **options)


def _wait(name: str, reason: str, wait_for_input: Any, **options: Any) -> Any:
    """Call Prefect's function *name*, or what it is in async code, as a pause of the flow's run."""
    paused = _Paused(name, reason, wait_for_input, options)
    if is_in_loop():

        async def wait() -> Any:
            with paused:
                return paused.answered(await getattr(_flow_runs, f"a{name}")(wait_for_input, **options))

        return wait()
    with paused:
        return paused.answered(getattr(_flow_runs, name)(wait_for_input, **options))


class _Paused:
    """A block in which Prefect waits, or ends the flow's process, until somebody answers."""

    def __init__(self, name: str, reason: str, wait_for_input: Any, options: Mapping[str, Any]) -> None:
        context = _FlowRunContext.get()
        flow_run = None if context is None else context.flow_run
        is_other = flow_run is None or options.get("flow_run_id") not in (None, flow_run.id)
        self._run = None if flow_run is None or is_other else _process.runs.get(flow_run.id)
        self._is_suspended = name == "suspend_flow_run"
        self._wait_for_input = wait_for_input
        self._reason, self._timeout = reason, options["timeout"]

    def __enter__(self) -> None:
        # Of a suspension nobody knows whether it is one, or was answered, before Prefect says so.
        if not self._is_suspended:
            self._pause()

    def _pause(self) -> None:
        if self._run is None:
            return
        form, description = None, None
        with suppress(Exception):  # Prefect says what is wrong with it
            if self._wait_for_input is not None:
                model = _run_input.run_input_subclass_from_type(self._wait_for_input)
                form, description = model.model_json_schema(), getattr(model, "_description", None)
        text = self._reason or (description if isinstance(description, str) else "")
        deadline = None if self._timeout is None else utc_now() + timedelta(seconds=self._timeout)
        self._run.pause(text, form=form, deadline=deadline)

    def answered(self, value: Any) -> Any:
        """State that the run goes on with an answer, and return that."""
        if self._run is not None:
            values = value.model_dump(mode="json") if hasattr(value, "model_dump") else {"value": value}
            self._run.resume(values=None if self._wait_for_input is None else values)
        return value

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, _Pause) and self._is_suspended:
            self._pause()
            if self._run is not None:
                _forget(UUID(self._run.run_id))
                self._run.close(wait=not is_in_loop())
        elif isinstance(error, Exception) and self._run is not None and not self._is_suspended:
            self._run.resume()  # the flow may handle it and go on: its run must not stay paused


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
