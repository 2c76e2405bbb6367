"""Dag runs of Airflow 3, recorded by a listener.

Airflow calls it in three kinds of processes. The scheduler tells of dag runs, within a transaction, so a
state is only emitted. Each task's own process tells of the task, which adds a step to the run. The API server
tells of what people mark by hand.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any, Final, TypeVar

from run_log.core import RunEvent, RunStatus, Settings, WorkflowRun, utc_now
from run_log.core.clock import micros_of
from run_log.core.nearest import Contained
from run_log.producer import JoinedRun, RunEventEmitter, StepHandle, default_emitter, join_run

_T = TypeVar("_T")

# Untyped: Airflow is not installed where this is checked.
_AirflowPlugin: Any = import_module("airflow.plugins_manager").AirflowPlugin
_marked: Any = import_module("pluggy").HookimplMarker("airflow")

_MARKED_BY_HAND: Final = "marked by hand"


def _hook(function: _T) -> _T:
    """Mark *function* as a hook of Airflow's."""
    marked: _T = _marked(function)
    return marked


class RunLogPlugin(_AirflowPlugin):  # type: ignore[misc]  # untyped
    """The plugin that Airflow finds where this class is imported, in a file of its plugins folder."""

    name = "run_log"
    listeners = (sys.modules[__name__],)


@dataclass(frozen=True, slots=True)
class _Task:
    """A task instance that runs in this process."""

    run: JoinedRun
    scope: Any
    """The step's block."""
    step: StepHandle


_tasks: Final[dict[tuple[str, str, str, int], _Task]] = {}


@_hook
def on_starting(component: Any) -> None:
    """Load what delivers before an executor forks its workers: each task's process would have to."""
    if hasattr(component, "job_type"):  # a task's own process has begun, and may load it beside the task
        with Contained():
            default_emitter()
            if Settings.from_env().backend == "pubsub":
                RunEventEmitter.from_env()  # imports Google's library


@_hook
def on_dag_run_running(dag_run: Any) -> None:
    """State that a dag run is running."""
    _emit(dag_run, RunStatus.RUNNING)


@_hook
def on_dag_run_success(dag_run: Any) -> None:
    """State that a dag run has succeeded."""
    _emit(dag_run, RunStatus.SUCCESS)


@_hook
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """State that a dag run has failed."""
    _emit(dag_run, RunStatus.FAILED, msg or _MARKED_BY_HAND)


def _emit(dag_run: Any, status: RunStatus, error: str | None = None) -> None:
    with Contained():  # Airflow logs it too, but in the midst of its scheduling
        now = utc_now()
        begun = dag_run.start_date or now
        ended = None if status is RunStatus.RUNNING else dag_run.end_date or now
        run = WorkflowRun(
            id=dag_run.run_id,
            workflow_id=dag_run.dag_id,
            status=status,
            attempt=dag_run.clear_number + 1,
            trigger_type=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
            trigger_data=dag_run.conf or {},
            labels={} if dag_run.logical_date is None else {"logical_date": dag_run.logical_date.isoformat()},
            error=error,
            started_at=begun,
            completed_at=ended,
            duration_ms=0 if ended is None else max((ended - begun) / timedelta(milliseconds=1), 0),
        )
        # The clocks of schedulers differ. All of them read from the database when the run was queued: a start
        # is stamped with that, and an end later, whoever tells of it.
        queued = micros_of(dag_run.queued_at or begun)
        emitter = default_emitter()
        emitter.observe(queued, run.key)
        emitter.emit(RunEvent.model_validate({"hlc": queued, "run": run}) if ended is None else run)


@_hook
def on_task_instance_running(task_instance: Any) -> None:
    """Begin a step."""
    with Contained():
        _tasks[_named(task_instance)] = _begun(task_instance)


@_hook
def on_task_instance_success(task_instance: Any) -> None:
    """End a step as success."""
    _end(task_instance, None)


@_hook
def on_task_instance_failed(task_instance: Any, error: str | BaseException | None) -> None:
    """End a step as failed. Its next try is the next attempt."""
    _end(task_instance, error or _MARKED_BY_HAND)


@_hook
def on_task_instance_skipped(task_instance: Any) -> None:
    """End a step that has skipped itself."""
    _end(task_instance, None, skipped=True)


@_hook
def before_stopping(component: Any) -> None:
    """Deliver the steps of this process: a task's ends without running any hook of ours."""
    del component
    with Contained():
        while _tasks:  # deferred: they go on in another process
            _tasks.popitem()[1].run.__exit__()
        default_emitter().await_end_sync()


def _end(task_instance: Any, error: str | BaseException | None, **attributes: Any) -> None:
    with Contained():
        task = _tasks.pop(_named(task_instance), None) or _begun(task_instance)
        if attributes:
            task.step.set(**attributes)
        if error is not None:
            task.step.fail(error)
        task.scope.__exit__(None, None, None)
        task.run.__exit__()


def _begun(task_instance: Any) -> _Task:
    run = join_run(task_instance.dag_id, task_instance.run_id)
    *_, task_id, map_index = _named(task_instance)
    name = task_id if map_index < 0 else f"{task_id}[{map_index}]"
    begun = task_instance.start_date  # not now: it may have been deferred, or have run in another process
    scope = run.step(name, key=name, attempt=task_instance.try_number, started_at=begun)
    return _Task(run, scope, scope.__enter__())


def _named(task_instance: Any) -> tuple[str, str, str, int]:
    index = task_instance.map_index
    return task_instance.dag_id, task_instance.run_id, task_instance.task_id, -1 if index is None else index
