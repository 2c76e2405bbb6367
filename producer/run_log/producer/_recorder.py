"""The scope a workflow wraps a run in."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from opentelemetry.trace import format_trace_id

from run_log.core import (
    InvalidArgumentError,
    RunEvent,
    RunProgress,
    RunRef,
    RunStatus,
    TriggerType,
    WorkflowRun,
    utc_now,
)
from run_log.core.clock import PROCESS_CLOCK
from run_log.core.events import current_span_context
from run_log.core.ids import MAX_ID_BYTES, as_text, bounded_id, id_text
from run_log.core.logs import get_logger
from run_log.core.models import validated
from run_log.core.nearest import OUTER_KEY, Contained, is_foreign, qualified_name
from run_log.core.steps import joined_steps

from ._capture import Checked, known_trigger, tell_unknown
from ._emitter import RunEventEmitter, default_emitter
from ._failure import Untouched, describe, is_cancellation, is_good_exit, name_and_text
from ._metrics import say_loss
from ._steps import Pulse, StepBook, StepScope

_REQUIRED: Final = ("id", "workflow_id", "status", "trigger_type", "started_at")
_OPTIONAL: Final = frozenset({"trigger_data", "result", "pause", "error"})
_logger: Final = get_logger("run_log.producer")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Emits(Protocol):
    """What a recorder needs of an emitter. A `RunEventEmitter` is also waited for at the end of a run."""

    def emit(self, run: object) -> None:
        """Take the run's state as it is now. Never raise, never wait."""
        ...


class RunHandle:
    """A run under way, as its workflow sees it. Its methods never raise and never wait.

    Attributes:
        workflow_id: The run's workflow.
        run_id: The run's id.
        attempt: Which try this is, from 1.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        *,
        emitter: Emits,
        elapsed: Callable[[], float],
        now: Callable[[], datetime] = utc_now,
        heartbeat: object = None,
    ) -> None:
        self.workflow_id: str = _own_id("workflow_id", state["workflow_id"])
        self.run_id: str = _own_id("run_id", state["id"])
        self.attempt: int = state.get("attempt", 1)
        own = {"workflow_id": self.workflow_id, "id": self.run_id, "status": RunStatus.RUNNING}
        self._state = {**state, **own}
        self._emitter = emitter
        self._elapsed = elapsed
        # The clock may be behind the one that the run started by, and no run ends before its start.
        started_at: datetime = state["started_at"]
        self._now: Callable[[], datetime] = lambda: max(now(), started_at)
        self._end = RunStatus.SUCCESS
        self._is_left = False
        self._process = os.getpid()
        self._said: Checked | None = None
        self._pulse: Pulse | None = None
        if isinstance(emitter, RunEventEmitter):
            seconds = _seconds(heartbeat, emitter.progress_interval, self.workflow_id, self.run_id)
            self._pulse = Pulse(emitter, self._say_progress, heartbeat=seconds)
        self._book = StepBook(tick=self._tick, now=self._now, told=self._tell)

    @property
    def ref(self) -> RunRef:
        """The run's identity, to pass as the ``parent`` of another run."""
        return RunRef(self.workflow_id, self.run_id)

    @property
    def status(self) -> RunStatus:
        """The status that was stated last."""
        return RunStatus(self._state["status"])

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Set what the run produced, in place of what was set before. The next state of the run states it.

        Args:
            result: Any JSON value under each key, or a model, a dataclass or a named tuple, whose fields are
                the keys. Anything without keys is kept under ``value``, and logged.
        """
        self._state["result"] = result

    def pause(
        self,
        reason: str = "",
        *,
        assignee: str | None = None,
        deadline: datetime | None = None,
        choices: Collection[str] = (),
        form: Mapping[str, Any] | None = None,
        default_choice: str | None = None,
    ) -> None:
        """State that the run waits for a human. A block that ends now leaves it paused: see `resume_run`.

        What cannot be offered is left out, and logged: a form that is no JSON Schema, a default that is no
        choice.

        Args:
            reason: What is to be decided.
            assignee: Who is asked; None for anybody.
            deadline: When the answer is due.
            choices: What they can choose from.
            form: What they fill in: a JSON Schema of an object, which refers to no other document.
            default_choice: Which of the choices ``run-log sweep`` takes once the deadline has passed.
        """
        self._state["pause"] = {
            "reason": reason,
            "assignee": assignee,
            "deadline": deadline,
            "choices": choices,
            "form": form,
            "default_choice": default_choice,
        }
        self._emit(RunStatus.PAUSED)

    def resume(self, *, answered_by: str | None = None, comment: str | None = None) -> None:
        """State that the run goes on, in the block that paused it.

        Args:
            answered_by: Who answered.
            comment: What they had to say.
        """
        self._answer(answered_by, comment)
        self._emit(RunStatus.RUNNING)

    def skip(self, reason: str = "") -> None:
        """Have the run end as skipped when the block ends.

        Args:
            reason: Why there was nothing to do.
        """
        self._end_as(RunStatus.SKIPPED, reason)

    def fail(self, error: str | BaseException = "") -> None:
        """Have the run end as failed when the block ends, without an exception.

        Args:
            error: What went wrong: a text, or an exception that the workflow has handled.
        """
        is_exception = issubclass(type(error), BaseException)  # isinstance would run its code
        text = describe(cast("BaseException", error)) if is_exception else error
        self._end_as(RunStatus.FAILED, text, qualified_name(type(error)) if is_exception else None)

    def cancel(self, reason: str = "") -> None:
        """Have the run end as cancelled when the block ends.

        Args:
            reason: Why it was stopped.
        """
        self._end_as(RunStatus.CANCELLED, reason)

    def _end_as(self, status: RunStatus, error: object, error_type: str | None = None) -> None:
        self._state |= {"error": error, "error_type": error_type}
        self._end = status

    def step(self, name: str, *, key: str | None = None) -> StepScope:
        """Record a block as a step of this run, by ``with`` or ``async with``; it yields a `StepHandle`.

        A step within a step has the outer one as its parent. A step that is entered again after it failed,
        by its name or its key, is the next attempt of the same one. Threads and tasks may record steps at
        once. A run keeps its newest `MAX_STEPS` steps.

        Args:
            name: What people call it.
            key: What tells it from the run's other steps, also in another process: 1 to 64 printable ASCII
                characters. None makes a new one.
        """
        return StepScope(self._book, name, key)

    def progress(self, fraction: float | None = None, text: str | None = None) -> None:
        """Say how far the run is. That is no transition, and comes at most every 2 seconds.

        Args:
            fraction: From 0 to 1; None for unknown.
            text: In words, such as "3 of 7 files".
        """
        with Guard(self):
            self._process = os.getpid()  # a forked child that says how far the run is speaks for it
            self._state["progress"] = RunProgress.model_validate({"fraction": fraction, "text": text})
            self._tell()

    def _tick(self) -> int:
        key = (self.workflow_id, self.run_id)
        emitter = self._emitter
        return emitter.tick(key) if isinstance(emitter, RunEventEmitter) else PROCESS_CLOCK.tick(key)

    def _tell(self) -> None:
        if self._pulse is not None:
            self._pulse.tell()

    def _say_progress(self, *, is_due: bool) -> bool:
        """Emit what changed since the last transition, and return whether there was anything to say."""
        # The reading first. A transition that begins after this look is stamped later, so it wins.
        hlc = self._tick()
        said = self._said
        if said is None:
            return False
        # A forked child may live longer than the run. What it says of steps must not make the run go on.
        is_running = said.run.status is RunStatus.RUNNING and self.status is RunStatus.RUNNING
        if not is_running or self._process != os.getpid():
            if is_due and self._book:
                self._emitter.emit(Checked(_only_begun(said.run), self._book.all(hlc), hlc=0))
            return is_due
        run = said.run.model_copy(update={"progress": self._state.get("progress")})
        # With the payloads of the last transition: the workflow may be changing its own.
        self._emitter.emit(Checked(run, self._book.all(hlc), hlc, said.payloads))
        return True

    def _enter(self) -> None:
        self._emit(RunStatus.RUNNING)

    def _leave(self, error: BaseException | None) -> None:
        if error is not None and is_cancellation(error):
            self.cancel(describe(error))
        elif error is not None and not is_good_exit(error):
            self.fail(error)
        elif self.status is RunStatus.PAUSED and self._end is RunStatus.SUCCESS:
            self._is_left = True
            if self._pulse is not None:
                with Guard(self):
                    self._pulse.finish()
            return
        self._state["completed_at"] = self._now()
        self._state["duration_ms"] = self._elapsed() * 1_000
        self._emit(self._end)
        self._is_left = True

    def _answer(self, answered_by: str | None, comment: str | None = None) -> None:
        asked = cast("Mapping[str, Any]", self._state.get("pause") or {})
        self._state["pause"] = {**asked, "answered_by": answered_by, "comment": comment}

    def _emit(self, status: RunStatus) -> None:
        if self._is_left:
            _logger.warning(
                "run_log_after_end",
                workflow_id=self.workflow_id,
                run_id=self.run_id,
                status=status.value,
                hint="the run's block was left before; nothing is recorded of this",
            )
            return
        self._state["status"] = status
        self._process = os.getpid()
        with Guard(self):
            if self._pulse is not None:
                self._pulse.begin()
            run = self._usable()
            steps = self._book.all(self._tick()) if self._book else ()
            # Validated above, so that a wrong value is logged with its run. Once is enough.
            if isinstance(run, WorkflowRun) and self._pulse is not None:
                run = self._said = Checked(run, steps)
            elif isinstance(run, WorkflowRun) and steps:
                run = RunEvent.from_run(run).model_copy(update={"steps": joined_steps(steps)})
            self._emitter.emit(run)
            if self._pulse is not None and status is RunStatus.RUNNING:
                self._pulse.said()

    def _usable(self) -> object:
        """Return the run as it stands, without the values that cannot be recorded, which are logged."""
        with Contained():
            run = validated(self._state)
            for name in ("trigger_data", "result"):
                held = getattr(run, name)
                if held.get(OUTER_KEY) is self._state.get(name, held):
                    self._state[name] = held  # so that the missing keys are logged once
            # Likewise what cannot be a label or a parent, or be offered by a pause.
            self._state |= {
                "labels": run.labels,
                "parent": run.parent,
                "pause": run.pause and dict(run.pause),
            }
            return run
        required = {name: self._state[name] for name in _REQUIRED}
        if _fault(required) is not None:
            return self._state  # no run: the emitter counts it and logs why
        for name in _OPTIONAL & self._state.keys():
            fault = _fault({**required, name: self._state[name]})
            if fault is not None:
                self._leave_out(name, required)
                _logger.error(
                    "run_log_value_not_recorded",
                    workflow_id=self.workflow_id,
                    run_id=self.run_id,
                    field=name,
                    error=fault,
                )
        return self._state

    def _leave_out(self, name: str, required: Mapping[str, object]) -> None:
        """Drop the field *name*; of a pause only the deadline, if that is what is wrong."""
        value: Any = self._state.pop(name)
        if name == "pause":
            undated: dict[str, Any] = {**value, "deadline": None}
            if _fault({**required, name: undated}) is None:
                self._state[name] = undated


class Guard(Contained):
    """Keeps errors of recording away from the workflow, and logs them."""

    def __init__(self, handle: RunHandle) -> None:
        self._handle = handle

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Hold *error* back, unless it is the workflow's own, and log that the state may be lost."""
        if error is None or not super().__exit__(kind, error, trace):
            return False
        with Contained():  # there may be no stack or memory left for logging
            handle, text = self._handle, name_and_text(error)
            _logger.error(
                "run_log_state_not_recorded",
                workflow_id=handle.workflow_id,
                run_id=handle.run_id,
                status=handle.status.value,
                error=text,
            )
            say_loss(text)
        return True


_current: Final[ContextVar[RunHandle | None]] = ContextVar("run_log_current_run", default=None)


def current_run() -> RunHandle | None:
    """Return the handle of the innermost run around this code, or None.

    A decorated function sets its result on it.
    """
    return _current.get()


def step(
    name: str | None = None, *, key: str | None = None
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Record each call of the decorated function as a step of the run around it, if there is one.

    Args:
        name: What people call the step; None takes the function's own name.
        key: See `RunHandle.step`.

    Raises:
        InvalidArgumentError: What is decorated is no function, or a generator function; or ``@step`` has no
            parentheses.
    """
    if callable(name):
        raise InvalidArgumentError('step needs parentheses: write @step() or @step("download")')

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        _check_function(function)
        own = name or getattr(function, "__qualname__", None) or type(function).__qualname__

        def scope() -> AbstractContextManager[object]:
            run = _current.get()
            return contextlib.nullcontext() if run is None else run.step(own, key=key)

        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            coroutine = cast("Callable[_P, Coroutine[Any, Any, Any]]", function)

            @functools.wraps(function)
            async def stepped_async(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                with scope():
                    return await coroutine(*args, **kwargs)

            return cast("Callable[_P, _T]", stepped_async)

        @functools.wraps(function)
        def stepped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with scope():
                return function(*args, **kwargs)

        return stepped

    return decorate


class RunRecorder:
    """What `record_run` returns: a context manager, sync and async, and a decorator.

    As a context manager it records one block at a time. As a decorator it records each call of the function,
    sync or async, as a run, whose handle `current_run` returns.

    Args:
        handle: Returns the run's handle. It is called on entry, so that the run starts then.
        handle_async: The same for async code; None calls *handle*.
        keeps_result: Whether what a decorated function returns becomes its run's result.
    """

    def __init__(
        self,
        handle: Callable[[], RunHandle],
        handle_async: Callable[[], Awaitable[RunHandle]] | None = None,
        *,
        keeps_result: bool = False,
    ) -> None:
        self._handle = handle
        self._handle_async = handle_async
        self._keeps_result = keeps_result
        self._entered: list[tuple[RunHandle, Token[RunHandle | None]]] = []

    def __enter__(self) -> RunHandle:
        """State that the run is running."""
        return self._enter(self._handle())

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """State how the run ended. An exception goes on.

        This waits briefly for delivery where the CPU may stop, or the process may end without warning.
        """
        handle = self._leave(error)
        if handle is not None:
            with Untouched(error), Guard(handle):
                emitter = handle._emitter  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
                if isinstance(emitter, RunEventEmitter):
                    emitter.await_end_sync()

    async def __aenter__(self) -> RunHandle:
        """State that the run is running."""
        return self._enter(self._handle() if self._handle_async is None else await self._handle_async())

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Do what `__exit__` does, without blocking the event loop."""
        handle = self._leave(error)
        if handle is not None:
            with Untouched(error), Guard(handle):
                emitter = handle._emitter  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
                if isinstance(emitter, RunEventEmitter):
                    await emitter.await_end()

    def __call__(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Return *function*, with each of its calls recorded as a run.

        Args:
            function: Sync or async. What it returns is recorded only with ``result=True``. A sync function
                that returns a coroutine is recorded until it returns.

        Raises:
            InvalidArgumentError: It is a generator function, whose calls return before its work begins, or
                a ``classmethod`` or ``staticmethod`` object: decorate the function below them.
        """
        _check_function(function)
        handle, handle_async, keeps_result = self._handle, self._handle_async, self._keeps_result
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            coroutine = cast("Callable[_P, Coroutine[Any, Any, Any]]", function)

            @functools.wraps(function)
            async def recorded_async(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                async with RunRecorder(handle, handle_async) as run:
                    returned = await coroutine(*args, **kwargs)
                    if keeps_result and returned is not None:
                        run.set_result(returned)
                    return returned

            return cast("Callable[_P, _T]", recorded_async)

        @functools.wraps(function)
        def recorded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with RunRecorder(handle) as run:
                returned = function(*args, **kwargs)
                if keeps_result and returned is not None:
                    run.set_result(cast("Any", returned))
                return returned

        return recorded

    def _enter(self, handle: RunHandle) -> RunHandle:
        self._entered.append((handle, _current.set(handle)))
        handle._enter()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
        return handle

    def _leave(self, error: BaseException | None) -> RunHandle | None:
        """State the end of the block's run, and return it."""
        entered = self._entry()
        if entered is None:
            return None  # left twice, or never entered: raising would hide the exception of the block
        handle, token = entered
        with Untouched(error):
            handle._leave(error)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
        # A fixture or a generator may leave in another context than it entered, with runs of its own.
        with contextlib.suppress(ValueError):
            _current.reset(token)
        return handle

    def _entry(self) -> tuple[RunHandle, Token[RunHandle | None]] | None:
        """Remove and return the run that is left: this context's, if several blocks share the recorder."""
        current = _current.get()
        for index, (handle, _) in enumerate(self._entered):
            if handle is current:
                return self._entered.pop(index)
        return self._entered.pop() if self._entered else None


def _check_function(function: object) -> None:
    name = getattr(function, "__qualname__", None) or repr(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidArgumentError(
            f"{name} is a generator function, which record_run cannot wrap; "
            "use `with record_run(...)` inside of it"
        )
    if isinstance(function, classmethod | staticmethod) or not callable(function):
        raise InvalidArgumentError(
            f"record_run wraps functions, and {name} is none; "
            "put @record_run(...) below @classmethod and @staticmethod"
        )


def record_run(  # noqa: PLR0913 - each names one thing about the run
    workflow_id: str,
    *,
    trigger_type: TriggerType | str = TriggerType.MANUAL,
    trigger_data: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    labels: Mapping[str, object] | None = None,
    parent: RunRef | None = None,
    heartbeat: timedelta | None = None,
    result: bool = False,
    emitter: Emits | None = None,
) -> RunRecorder:
    """Record a block as one run of *workflow_id*, by ``with`` or ``async with``; or a function, by ``@``.

    The run is running when the block is entered, and ends when it is left: as success, or as failed if an
    exception leaves the block, or as cancelled if its task is cancelled. The exception goes on. ``sys.exit``
    without an error code is success. The handle can set a result, pause, resume, skip, fail or cancel.

    Recording never raises, whatever happens to the network. It waits in two places only, at the end of the
    block and briefly (see ``RUN_LOG_END_FLUSH_SECONDS``): where the platform may stop the CPU once the
    response is sent, and in a forked process, which may end by ``os._exit``. In async code use
    ``async with``, so that only this task waits.

    Args:
        workflow_id: The workflow's name.
        trigger_type: What started the run: a `TriggerType` or any other word, at most 64 of
            ``a-z 0-9 _ . -``, a letter first. Another text is recorded as ``manual``, and logged once.
        trigger_data: What the run was started with, in any form that `RunHandle.set_result` takes.
        run_id: The run's id; None makes a random one. A number, a UUID, a path or bytes become their text.
            An id longer than `MAX_ID_BYTES` is recorded with a digest: see `RunHandle.run_id`. To continue
            a run, use `resume_run`.
        labels: What the run is found by: at most `MAX_LABELS` keys of ``a-z 0-9 _ . -`` with texts of at most
            128 characters. What cannot be a label is left out, and logged.
        parent: The run that started this one; None takes the run around this code, if there is one.
        heartbeat: After how long a silence the run says that it is alive, at least 2 seconds; None for never.
            `list_stale` goes by it. It comes from the emitter's own thread.
        result: Whether what a decorated function returns becomes the run's result. A block sets its own.
        emitter: Where states go; None takes `default_emitter`.
    """

    def open_handle() -> RunHandle:
        begun = time.perf_counter()
        known = known_trigger(trigger_type)
        tell_unknown()
        around = current_run()
        span = current_span_context()
        return RunHandle(
            {
                # Random rather than time-ordered: neighbouring keys would heat one range of the store.
                "id": str(uuid.uuid4()) if run_id is None else run_id,
                "workflow_id": workflow_id,
                "trigger_type": known,
                "trigger_data": trigger_data,
                "started_at": utc_now(),
                "labels": {} if labels is None else labels,
                "parent": around.ref if parent is None and around else parent,
                "trace_id": format_trace_id(span.trace_id) if span else None,
            },
            emitter=default_emitter() if emitter is None else emitter,
            elapsed=lambda: time.perf_counter() - begun,
            heartbeat=heartbeat,
        )

    return RunRecorder(open_handle, keeps_result=result)


def _only_begun(run: WorkflowRun) -> WorkflowRun:
    """Return the least that can be said of *run*, for an event whose steps alone are news."""
    return run.model_copy(
        update={
            "status": RunStatus.RUNNING,
            "attempt": 1,
            "trigger_data": {},
            "result": {},
            "pause": None,
            "error": None,
            "error_type": None,
            "progress": None,
            "completed_at": None,
            "duration_ms": 0.0,
        }
    )


def _seconds(heartbeat: object, least: float, workflow_id: str, run_id: str) -> float | None:
    """Return the seconds of a heartbeat; None, which is logged, where it is no duration."""
    if heartbeat is None:
        return None
    seconds = 0.0
    with Contained():  # it may be anything, and isinstance would run its code
        seconds = timedelta.total_seconds(cast("timedelta", heartbeat))
    if seconds > 0:
        return max(seconds, least)
    _logger.warning(
        "run_log_heartbeat_left_out",
        workflow_id=workflow_id,
        run_id=run_id,
        hint=f"heartbeat is {as_text(heartbeat):.100}; pass a timedelta above 0",
    )
    return None


def _own_id(name: str, value: object) -> Any:
    """Return the id that *value* is recorded as, or *value* if it is no id."""
    text = id_text(value)
    if not text:
        return value
    own = bounded_id(text)
    if own != text:
        hint = f"longer than {MAX_ID_BYTES:,} bytes, and recorded with a digest"
        _logger.warning("run_log_id_shortened", field=name, recorded_as=own, hint=hint)
    return own


def _fault(state: Mapping[str, object]) -> str | None:
    """Return why *state* is no run, or None if it is one."""
    try:
        validated(state)
    except BaseException as error:  # the values' own code may raise anything
        if not is_foreign(error):
            raise
        return name_and_text(error)
    return None
