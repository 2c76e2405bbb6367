"""The scope a workflow wraps a run in."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Protocol

from run_log.core import RunStatus, TriggerType, get_logger, snapshot, utc_now

from ._default import default_emitter

_REQUIRED: Final = ("id", "workflow_id", "status", "trigger_type", "started_at")
_OPTIONAL: Final = frozenset({"trigger_data", "result", "pause", "error"})
_logger: Final = get_logger("run_log.producer")


class Emits(Protocol):
    """What a recorder needs of an emitter."""

    def emit(self, run: object) -> None:
        """Take the run's state now; never raise, never wait."""
        ...


class RunHandle:
    """A run under way, as its workflow sees it. Its methods never raise and never wait.

    Attributes:
        workflow_id: The run's workflow.
        run_id: The run's id.
    """

    def __init__(
        self,
        workflow_id: str,
        run_id: str,
        *,
        trigger_type: TriggerType | str,
        trigger_data: Mapping[str, Any],
        emitter: Emits,
        now: Callable[[], datetime],
        elapsed: Callable[[], float],
    ) -> None:
        self.workflow_id = workflow_id
        self.run_id = run_id
        self._emitter = emitter
        self._now = now
        self._elapsed = elapsed
        self._started = elapsed()
        self._end = RunStatus.SUCCESS
        self._ended = False
        self._state: dict[str, Any] = {
            "id": run_id,
            "workflow_id": workflow_id,
            "status": RunStatus.RUNNING,
            "trigger_type": trigger_type,
            "trigger_data": trigger_data,
            "result": {},
            "started_at": now(),
        }

    @property
    def status(self) -> RunStatus:
        """The status last stated."""
        return RunStatus(self._state["status"])

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Set what the run produced; stated with its next state.

        Args:
            result: Any JSON value under each key.
        """
        self._state["result"] = result

    def pause(
        self, reason: str = "", *, assignee: str | None = None, deadline: datetime | None = None
    ) -> None:
        """State that the run waits for a human. Left this way, it stays paused.

        Args:
            reason: What is to be decided.
            assignee: Who is asked; None for anybody.
            deadline: When the answer is due.
        """
        self._state["pause"] = {"reason": reason, "assignee": assignee, "deadline": deadline}
        self._emit(RunStatus.PAUSED)

    def resume(self, *, answered_by: str | None = None) -> None:
        """State that the run goes on after a pause.

        Args:
            answered_by: Who answered.
        """
        self._state["pause"] = {**self._state.get("pause", {}), "answered_by": answered_by}
        self._emit(RunStatus.RUNNING)

    def skip(self, reason: str = "") -> None:
        """End the run as skipped when the block is left.

        Args:
            reason: Why there was nothing to do.
        """
        self._state["error"], self._end = reason, RunStatus.SKIPPED

    def fail(self, error: str | BaseException = "") -> None:
        """End the run as failed when the block is left, without an exception.

        Args:
            error: What went wrong: a text, or an exception that the workflow has handled.
        """
        if isinstance(error, BaseException):
            error = "".join(traceback.format_exception_only(error)).strip()
        self._state["error"], self._end = error, RunStatus.FAILED

    def _start(self) -> None:
        self._emit(RunStatus.RUNNING)

    def _leave(self, error: BaseException | None) -> None:
        if error is not None:
            self.fail(error)
        elif self.status is RunStatus.PAUSED and self._end is RunStatus.SUCCESS:
            return
        self._state["completed_at"] = self._now()
        self._state["duration_ms"] = (self._elapsed() - self._started) * 1_000
        self._emit(self._end)
        self._ended = True

    def _emit(self, status: RunStatus) -> None:
        if self._ended:
            _logger.warning(
                "run_log_after_end", workflow_id=self.workflow_id, run_id=self.run_id, status=status.value
            )
            return
        self._state["status"] = status
        self._drop_unusable()
        self._emitter.emit(self._state)

    def _drop_unusable(self) -> None:
        """Leave out what a workflow set wrongly, so that the run's states are told all the same."""
        if _fault(self._state) is None:
            return
        required = {name: self._state[name] for name in _REQUIRED}
        if _fault(required) is not None:
            return
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

    def _leave_out(self, name: str, required: Mapping[str, object]) -> None:
        """Drop the field *name*, of a pause only its deadline where that is what is wrong."""
        value = self._state.pop(name)
        if name == "pause":
            undated = {**value, "deadline": None}
            if _fault({**required, name: undated}) is None:
                self._state[name] = undated


class RunRecorder:
    """The context manager, sync and async, that `record_run` returns. Enter it once.

    Args:
        handle: Returns the run's handle; called on entry, so that the run starts then.
    """

    def __init__(self, handle: Callable[[], RunHandle]) -> None:
        self._open = handle
        self._handle: RunHandle | None = None

    def __enter__(self) -> RunHandle:
        """State that the run is running."""
        self._handle = self._open()
        self._handle._start()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
        return self._handle

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """State how the run ended; an exception goes on."""
        if self._handle is not None:
            self._handle._leave(error)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    async def __aenter__(self) -> RunHandle:
        """State that the run is running."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """State how the run ended; an exception goes on."""
        self.__exit__(kind, error, trace)


def record_run(
    workflow_id: str,
    *,
    trigger_type: TriggerType | str = TriggerType.MANUAL,
    trigger_data: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    emitter: Emits | None = None,
) -> RunRecorder:
    """Record the block as one run of *workflow_id*: ``with`` and ``async with`` both work.

    The run is running when the block is entered and ends when it is left: as success, or as failed where
    an exception leaves it, which goes on. The handle can set a result, pause, resume, skip or fail.
    Recording never raises and never waits, whatever happens to the network.

    Args:
        workflow_id: The workflow's name.
        trigger_type: What started the run.
        trigger_data: What it was started with: any JSON value under each key.
        run_id: The run's id; None makes a random one.
        emitter: Where to; None takes this process's own, by ``RUN_LOG_BACKEND``.
    """

    def open_handle() -> RunHandle:
        return RunHandle(
            workflow_id,
            # Random rather than time-ordered: neighbouring keys would heat one range of the store.
            str(uuid.uuid4()) if run_id is None else run_id,
            trigger_type=trigger_type,
            trigger_data={} if trigger_data is None else trigger_data,
            emitter=default_emitter() if emitter is None else emitter,
            now=utc_now,
            elapsed=time.perf_counter,
        )

    return RunRecorder(open_handle)


def _fault(state: Mapping[str, object]) -> str | None:
    """Return why *state* is no run; None where it is one."""
    try:
        snapshot(state)
    except Exception as error:  # noqa: BLE001 - a workflow never notices, whatever its values' own code does
        return f"{type(error).__name__}: {error}"
    return None
