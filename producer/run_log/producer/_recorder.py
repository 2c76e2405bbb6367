"""The scope a workflow wraps a run in."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar, Token
from datetime import datetime
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from run_log.core import InvalidArgumentError, RunStatus, TriggerType, WorkflowRun, utc_now
from run_log.core.ids import MAX_ID_BYTES, bounded_id, id_text
from run_log.core.logs import get_logger
from run_log.core.models import validated
from run_log.core.nearest import OUTER_KEY, Contained, is_foreign

from ._capture import Checked, known_trigger, tell_unknown
from ._emitter import RunEventEmitter, default_emitter
from ._failure import Untouched, describe, is_good_exit, name_and_text
from ._metrics import say_loss

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

    @property
    def status(self) -> RunStatus:
        """The status that was stated last."""
        return RunStatus(self._state["status"])

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Set what the run produced. The next state of the run states it.

        Args:
            result: Any JSON value under each key, or a model, a dataclass or a named tuple, whose fields are
                the keys. Anything without keys is kept under ``value``, and logged.
        """
        self._state["result"] = result

    def pause(
        self, reason: str = "", *, assignee: str | None = None, deadline: datetime | None = None
    ) -> None:
        """State that the run waits for a human. A block that ends now leaves it paused: see `resume_run`.

        Args:
            reason: What is to be decided.
            assignee: Who is asked; None for anybody.
            deadline: When the answer is due.
        """
        self._state["pause"] = {"reason": reason, "assignee": assignee, "deadline": deadline}
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
        self._state["error"], self._end = reason, RunStatus.SKIPPED

    def fail(self, error: str | BaseException = "") -> None:
        """Have the run end as failed when the block ends, without an exception.

        Args:
            error: What went wrong: a text, or an exception that the workflow has handled.
        """
        is_exception = issubclass(type(error), BaseException)  # isinstance would run its code
        text = describe(cast("BaseException", error)) if is_exception else error
        self._state["error"], self._end = text, RunStatus.FAILED

    def _enter(self) -> None:
        self._emit(RunStatus.RUNNING)

    def _leave(self, error: BaseException | None) -> None:
        if error is not None and not is_good_exit(error):
            self.fail(error)
        elif self.status is RunStatus.PAUSED and self._end is RunStatus.SUCCESS:
            self._is_left = True
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
        with Guard(self):
            run = self._usable()
            # Validated above, so that a wrong value is logged with its run. Once is enough.
            if isinstance(run, WorkflowRun) and isinstance(self._emitter, RunEventEmitter):
                run = Checked(run)
            self._emitter.emit(run)

    def _usable(self) -> object:
        """Return the run as it stands, without the values that cannot be recorded, which are logged."""
        with Contained():
            run = validated(self._state)
            for name in ("trigger_data", "result"):
                held = getattr(run, name)
                if held.get(OUTER_KEY) is self._state.get(name, held):
                    self._state[name] = held  # so that the missing keys are logged once
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


class RunRecorder:
    """What `record_run` returns: a context manager, sync and async, and a decorator.

    As a context manager it records one block at a time. As a decorator it records each call of the function,
    sync or async, as a run, whose handle `current_run` returns.

    Args:
        handle: Returns the run's handle. It is called on entry, so that the run starts then.
        handle_async: The same for async code; None calls *handle*.
    """

    def __init__(
        self,
        handle: Callable[[], RunHandle],
        handle_async: Callable[[], Awaitable[RunHandle]] | None = None,
    ) -> None:
        self._handle = handle
        self._handle_async = handle_async
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
            function: Sync or async. What it returns is not recorded: see `RunHandle.set_result`. A sync
                function that returns a coroutine is recorded until it returns.

        Raises:
            InvalidArgumentError: It is a generator function, whose calls return before its work begins, or
                a ``classmethod`` or ``staticmethod`` object: decorate the function below them.
        """
        _check_function(function)
        handle, handle_async = self._handle, self._handle_async
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            coroutine = cast("Callable[_P, Coroutine[Any, Any, Any]]", function)

            @functools.wraps(function)
            async def recorded_async(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                async with RunRecorder(handle, handle_async):
                    return await coroutine(*args, **kwargs)

            return cast("Callable[_P, _T]", recorded_async)

        @functools.wraps(function)
        def recorded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with RunRecorder(handle):
                return function(*args, **kwargs)

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


def record_run(
    workflow_id: str,
    *,
    trigger_type: TriggerType | str = TriggerType.MANUAL,
    trigger_data: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    emitter: Emits | None = None,
) -> RunRecorder:
    """Record a block as one run of *workflow_id*, by ``with`` or ``async with``; or a function, by ``@``.

    The run is running when the block is entered, and ends when it is left: as success, or as failed if an
    exception leaves the block. The exception goes on. ``sys.exit`` without an error code is success. The
    handle can set a result, pause, resume, skip or fail.

    Recording never raises, whatever happens to the network. It waits in two places only, at the end of the
    block and briefly (see ``RUN_LOG_END_FLUSH_SECONDS``): where the platform may stop the CPU once the
    response is sent, and in a forked process, which may end by ``os._exit``. In async code use
    ``async with``, so that only this task waits.

    Args:
        workflow_id: The workflow's name.
        trigger_type: What started the run: a `TriggerType` or its text. Any other word is recorded as
            ``manual`` and logged once.
        trigger_data: What the run was started with, in any form that `RunHandle.set_result` takes.
        run_id: The run's id; None makes a random one. A number, a UUID, a path or bytes become their text.
            An id longer than `MAX_ID_BYTES` is recorded with a digest: see `RunHandle.run_id`. To continue
            a run, use `resume_run`.
        emitter: Where states go; None takes `default_emitter`.
    """

    def open_handle() -> RunHandle:
        begun = time.perf_counter()
        known = known_trigger(trigger_type)
        tell_unknown()
        return RunHandle(
            {
                # Random rather than time-ordered: neighbouring keys would heat one range of the store.
                "id": str(uuid.uuid4()) if run_id is None else run_id,
                "workflow_id": workflow_id,
                "trigger_type": known,
                "trigger_data": trigger_data,
                "started_at": utc_now(),
            },
            emitter=default_emitter() if emitter is None else emitter,
            elapsed=lambda: time.perf_counter() - begun,
        )

    return RunRecorder(open_handle)


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
