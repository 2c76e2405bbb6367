"""Records the tasks of a Celery app as runs: a task's name is the workflow, its id the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from run_log.core import InvalidArgumentError, RunEvent, RunStatus, utc_now
from run_log.core.ids import bounded_id
from run_log.producer import RunHandle, current_run, default_emitter, record_run

# Untyped: Celery is published without annotations. No other module imports it.
celery: Any = import_module("celery")
state: Any = import_module("celery._state")
exceptions: Any = import_module("celery.exceptions")
signals: Any = import_module("celery.signals")
saferepr: Any = import_module("celery.utils.saferepr").saferepr

__all__ = ["install"]

PARENT_HEADER: Final = "run_log_parent"
"""The header of a task's message that names its parent: the ids of the workflow and of the run."""

SHOWN_HEADER: Final = "run_log_shown"
"""The header that has what the caller shows in place of a task's arguments, by `args` and `kwargs`."""

_BEFORE_ALL: Final = 0
"""The reading of the clock for a task that waits: the clock of the machine that runs it may be behind."""

_UNLOCK: Final = "celery.chord_unlock"
"""By this task some result back ends wait for a group. It is tried again each second, so it is left out."""

_OPEN: Final = "_run_log"
"""The attribute of a task's request that has what records it."""

# They have no keys, and `set_result` would log that for each run.
_WITHOUT_KEYS: Final = (str, bytes, bool, int, float, list, tuple, set, frozenset)

# billiard makes an exit of a signal that ends a process: its code is the signal's number less 256.
_SIGNALLED: Final = range(-256, -128)

# What ends a task of gevent's or eventlet's pool from outside. Its package may not be installed.
_KILLED: Final = "GreenletExit"

_apps: Final[WeakKeyDictionary[Any, timedelta | None]] = WeakKeyDictionary()
"""The apps whose tasks are recorded, with the heartbeat."""

_received: Final[WeakValueDictionary[str, Any]] = WeakValueDictionary()
"""What the worker holds of each task that it has received."""

_publishing: Final[ContextVar[tuple[Any, Any] | None]] = ContextVar("run_log_publishing", default=None)
"""The headers of the message that is being published, and its priority."""


def install(app: Any, *, heartbeat: timedelta | None = None) -> None:
    """Record the tasks of *app* from now on, in each process that calls this: those that send and workers.

    Calling it again only changes the heartbeat. What goes wrong in recording never reaches the tasks.

    Args:
        app: The `celery.Celery` app.
        heartbeat: After how long a silence a running task says that it is alive, at least 2 seconds; None for
            never. `list_stale` goes by it, and finds the tasks of a worker that was killed.

    Raises:
        InvalidArgumentError: *app* is not a Celery app.
    """
    app = getattr(app, "_get_current_object", lambda: app)()  # `celery.current_app` is a proxy
    if not isinstance(app, celery.Celery):
        raise InvalidArgumentError(f"install() takes a celery.Celery, not {app!r:.100}")
    _apps[app] = heartbeat
    # Each is connected once, however often it is asked for.
    signals.before_task_publish.connect(_publish)
    signals.after_task_publish.connect(_published)
    signals.task_received.connect(_receive)
    signals.task_prerun.connect(_begin)
    signals.task_postrun.connect(_end)
    signals.task_failure.connect(_failed)
    signals.task_revoked.connect(_revoked)
    signals.task_unknown.connect(_unknown)
    signals.task_rejected.connect(_rejected)


# In a process that sends


def _publish(
    headers: dict[str, Any], body: Any, declare: Any, properties: Mapping[str, Any], **_: object
) -> None:
    _publishing.set(None)
    if "id" not in headers:
        return  # messages of Celery's first protocol have no headers
    owners = _owners(declare)
    if owners and not any(app in _apps for app in owners):
        return
    _publishing.set((headers, properties.get("priority")))
    if shown := _shown([*owners, state.get_current_app()][0], headers, body):
        headers[SHOWN_HEADER] = shown
    if _own_request(headers) is not None:
        return  # a retry has its header already
    run, task = current_run(), state.get_current_worker_task()
    if run is not None:
        headers[PARENT_HEADER] = list(run.ref)
    elif task is not None and (parent := task.request.get(PARENT_HEADER)):
        headers[PARENT_HEADER] = parent  # of a task that is left out


def _own_request(headers: Mapping[str, Any]) -> Any:
    """Return the request of the running task if it sends itself, again or in its place; None otherwise."""
    task = state.get_current_worker_task()
    if task is None or (task.name, task.request.id) != (headers["task"], headers["id"]):
        return None
    return task.request


def _shown(app: Any, headers: Mapping[str, Any], body: Any) -> dict[str, str]:
    """Return what the caller shows in place of arguments: Celery itself always says the same of them."""
    shown: dict[str, str] = {}
    for name, value in zip(("args", "kwargs"), body, strict=False):
        text: str | None = headers.get(f"{name}repr")
        with suppress(Exception):
            if text == repr(value):
                continue  # so it is of nearly all, and Celery's own function takes ten times as long
        limit = getattr(app.amqp, f"{name}repr_maxsize")
        if text is not None and text != saferepr(value, limit, app.conf.get("task_repr_maxlevels", 3)):
            shown[name] = text
    return shown


def _owners(declare: Any) -> list[Any]:
    # The signal does not say which app it comes from. But it nearly always has a queue, an object of one app.
    return [
        app
        for app in state._get_active_apps()  # noqa: SLF001 - there is no public way to find all apps
        if (amqp := app.__dict__.get("amqp")) is not None
        and any(amqp.queues.get(queue.name) is queue for queue in declare or ())
    ]


def _published(headers: Any, body: Any, routing_key: Any = None, **_: object) -> None:
    # Not before it is published: where there is no broker, the caller gets an error, and nothing waits.
    publishing = _publishing.get()
    if publishing is None or publishing[0] is not headers or headers["task"] == _UNLOCK:
        return
    _publishing.set(None)
    own = _own_request(headers)
    opened = getattr(own, _OPEN, None)
    if opened is not None and headers["retries"] <= own.retries:
        opened[1].leave_open()  # no retry: it replaces itself
    args, kwargs, *_more = body
    delivery = {"routing_key": routing_key, "priority": publishing[1]}
    waiting = {
        **_described({**headers, "args": args, "kwargs": kwargs, "delivery_info": delivery}),
        "workflow_id": bounded_id(headers["task"]),
        "id": bounded_id(str(headers["id"])),
        "status": RunStatus.PENDING,
        "started_at": utc_now(),
    }
    default_emitter().emit(RunEvent.model_validate({"hlc": _BEFORE_ALL, "run": waiting}))


def _described(request: Any) -> dict[str, Any]:
    """Return what the request of a task, or its headers, say of its run."""
    delivery: Mapping[str, Any] = request.get("delivery_info") or {}
    root, shown = request.get("root_id"), request.get(SHOWN_HEADER)
    arguments: dict[str, Any] = {"args": request.get("args") or (), "kwargs": request.get("kwargs") or {}}
    labels = {
        "queue": delivery.get("routing_key"),
        "priority": delivery.get("priority") or None,
        "eta": request.get("eta"),
        "group": request.get("group"),
        "root": None if root == request.get("id") else root,
    }
    return {
        "attempt": (request.get("retries") or 0) + 1,
        "trigger_type": "scheduled" if request.get("celery_beat_task") else "celery",
        "trigger_data": arguments | shown if isinstance(shown, dict) else arguments,
        "labels": {key: value for key, value in labels.items() if value is not None},
        "parent": request.get(PARENT_HEADER),  # what is none is left out: a header may hold anything
    }


# Where the task runs


def _begin(task_id: str, task: Any, **_: object) -> None:
    if task.app not in _apps or task.name == _UNLOCK:
        return
    request = task.request
    recorder = record_run(task.name, run_id=task_id, heartbeat=_apps[task.app], **_described(request))
    setattr(request, _OPEN, (recorder, recorder.__enter__()))


def _end(task: Any, retval: Any, state: str | None, **_: object) -> None:
    request = task.request
    opened = getattr(request, _OPEN, None)
    if opened is None:
        return
    setattr(request, _OPEN, None)
    recorder, run = opened
    # Its result could not be stored, so for Celery it fails. An eager task may run where an error is handled.
    if state == "SUCCESS" and not request.is_eager and (unstored := sys.exception()) is not None:
        retval, state = unstored, "FAILURE"
    try:
        _say_end(run, retval, state)
    finally:  # else the next task in this thread would have this one around it
        recorder.__exit__(None, None, None)


def _say_end(run: RunHandle, retval: Any, state: str | None) -> None:
    match state:
        case "SUCCESS":
            if retval is not None:
                run.set_result({"value": retval} if type(retval) in _WITHOUT_KEYS else retval)
        case "RETRY":
            run.fail(retval if retval.exc is None else retval.exc)
        case "IGNORED":
            run.skip()
            with suppress(Exception):  # a reason may be anything, and its text is foreign code
                run.skip(str(retval))
        case "REJECTED" if retval.requeue:
            run.leave_open()  # the broker delivers it again
        case None:  # what is no `Exception`, or is to go on to the caller
            error = sys.exception()
            is_signalled = isinstance(error, SystemExit) and error.code in _SIGNALLED
            if is_signalled or type(error).__name__ == _KILLED:
                run.leave_open()  # the worker knows why, and says so
            run.fail("" if error is None else error)
        case _:
            run.fail(retval)


# In the worker, about tasks that run in another process, or not at all


def _receive(sender: Any, request: Any, **_: object) -> None:
    if sender.app in _apps:
        _received[request.id] = request


def _failed(sender: Any, task_id: str, exception: Any, args: Any, kwargs: Any, **_: object) -> None:
    # Where the task runs, it is about to end. What a task rejects has ended there.
    if getattr(sender.request, _OPEN, None) is not None or isinstance(exception, exceptions.Reject):
        return
    if sender.app in _apps and sender.name != _UNLOCK:
        run = _known(sender.name, task_id, {"args": args, "kwargs": kwargs})
        run.fail(exception)
        run.close()


def _revoked(sender: Any, request: Any, terminated: Any, signum: Any, expired: Any, **_: object) -> None:
    if sender.app in _apps and sender.name != _UNLOCK:
        run = _known(sender.name, request.id, request)
        run.cancel("expired" if expired else f"terminated by signal {signum}" if terminated else "revoked")
        run.close()


def _unknown(sender: Any, message: Any, name: str, **_: object) -> None:
    _dropped(sender, message, exceptions.NotRegistered(name))


def _rejected(sender: Any, message: Any, exc: Any, **_: object) -> None:
    _dropped(sender, message, exc)


def _dropped(consumer: Any, message: Any, error: BaseException) -> None:
    headers = message.headers
    if consumer.app not in _apps or not headers or "id" not in headers:
        return  # it is no task
    args: Any = None
    kwargs: Any = None
    with suppress(Exception):  # its body may be in a form that the worker does not take
        args, kwargs, *_ = message.payload
    request = {**headers, "args": args, "kwargs": kwargs, "delivery_info": message.delivery_info}
    run = _known(headers["task"], headers["id"], request)
    run.fail(error)
    run.close()


def _known(name: str, task_id: str, request: Any) -> RunHandle:
    """Return the run of a task that did not begin in this process, to end it."""
    received = _received.get(task_id)
    begun = getattr(received, "time_start", None) or time.time()
    described = _described(request if received is None else received.request_dict)
    return RunHandle(
        {**described, "workflow_id": name, "id": task_id, "started_at": datetime.fromtimestamp(begun, UTC)},
        emitter=default_emitter(),
        elapsed=lambda: max(0.0, time.time() - begun),
    )
