"""Continuing a run that another block, or another process, has left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

from run_log.core import (
    RunEvent,
    RunLogProtocol,
    RunStatus,
    TriggerType,
    WaitTimeoutError,
    WorkflowRun,
    utc_now,
)
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock
from run_log.core.ids import bounded_id, id_text
from run_log.core.logs import get_logger
from run_log.core.models import MAX_ATTEMPT, RunKey
from run_log.core.nearest import Contained, is_foreign
from run_log.core.wire import MAX_STAMPED_AHEAD

from ._emitter import RunEventEmitter, default_emitter
from ._failure import name_and_text
from ._handle import Emits, RunHandle
from ._recorder import RunRecorder
from .loops import read_run_log, run_aside

_logger: Final = get_logger("run_log.producer")


def resume_run(  # noqa: PLR0913 - each names one thing about the continuation
    workflow_id: str,
    run_id: str,
    *,
    answered_by: str | None = None,
    comment: str | None = None,
    choice: str | None = None,
    values: Mapping[str, Any] | None = None,
    retry: bool = False,
    timeout: float = 5.0,
    heartbeat: timedelta | None = None,
    known: RunEvent | None = None,
    run_log: RunLogProtocol | None = None,
    emitter: Emits | None = None,
) -> RunRecorder:
    """Record a block as the continuation of a run: paused, interrupted, or to be tried again.

    Entering the block reads the run. So its trigger, its result and its start stay, and what this process
    states comes after what was stated before, whatever its clock shows. A run that had ended continues as
    its next attempt. All else is as with `record_run`. Where the projection is behind, the run goes on from
    what this process has stated of it itself. If the run cannot be read, or does not exist, that is logged.
    The block runs all the same, and its states are recorded with what is known of the run.

    Args:
        workflow_id: The run's workflow.
        run_id: The run's id.
        answered_by: Who answered the pause. That and the next three are for a run that is still paused: an
            answer that the run log has already stays.
        comment: What they had to say.
        choice: What they chose; what the pause does not offer is left out, and logged.
        values: What they filled in; likewise where they do not fit the form of the pause.
        retry: Whether this is the next attempt even if the run had not ended, because its process was killed.
        timeout: Seconds that reading the run may take.
        heartbeat: As with `record_run`; that of the block before is not kept.
        known: A state of the run that is known without the run log, because the framework that runs it keeps
            it. The run goes on from it where the run log has none as late.
        run_log: Where the run is read; None takes what ``RUN_LOG_BACKEND`` names. With plain ``with`` it must
            not be bound to an event loop.
        emitter: Where states go; None takes `default_emitter`.
    """
    answer = {"answered_by": answered_by, "comment": comment, "choice": choice, "values": values}
    continuation = _Continuation(
        workflow_id, run_id, answer, retry, timeout, heartbeat, known, run_log, emitter
    )
    return RunRecorder(continuation.open, continuation.open_async)


@dataclass(frozen=True, slots=True)
class _Continuation:
    """The arguments of `resume_run`, and what entering its block does with them."""

    workflow_id: str
    run_id: str
    answer: Mapping[str, object]
    retry: bool
    timeout: float
    heartbeat: timedelta | None
    known: RunEvent | None
    run_log: RunLogProtocol | None
    emitter: Emits | None

    def open(self) -> RunHandle:
        known = self._known()
        try:
            run = run_aside(lambda: self._read_in_time(known)).result(self.timeout)
            return self._with(run) if run else self._without(None, known)
        except BaseException as error:  # a run log must not break the workflow
            if not is_foreign(error):
                raise
            return self._without(error, known)

    async def open_async(self) -> RunHandle:
        known = self._known()
        try:
            if self.run_log is not None:
                run = await self._read_in_time(known)
            else:
                # In a thread: connecting would block this loop, and longer than *timeout*.
                async with asyncio.timeout(self.timeout):
                    run = await asyncio.wrap_future(run_aside(lambda: self._read_in_time(known)))
            return self._with(run) if run else self._without(None, known)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._without(error, known)  # the reading was cancelled, and not this task
        except BaseException as error:  # a run log must not break the workflow
            if not is_foreign(error):
                raise
            return self._without(error, known)

    def _known(self) -> RunEvent | None:
        """Return the newest state of the run that is known without reading it."""
        found: list[RunEvent] = []
        with Contained():  # the ids may be anything
            workflow_id, run_id = id_text(self.workflow_id) or "", id_text(self.run_id) or ""
            key = (bounded_id(workflow_id), bounded_id(run_id))
            emitter = default_emitter() if self.emitter is None else self.emitter
            stated = emitter.left.event(key) if isinstance(emitter, RunEventEmitter) else None
            told = self.known if isinstance(self.known, RunEvent) and self.known.key == key else None
            found = [event for event in (stated, told) if event is not None]
        return max(found, key=lambda event: event.version, default=None)

    async def _read_in_time(self, known: RunEvent | None) -> WorkflowRun | None:
        async with asyncio.timeout(self.timeout):
            if self.run_log is not None:
                return await self._get(self.run_log, known)
            return await read_run_log(lambda run_log: self._get(run_log, known))

    async def _get(self, run_log: Any, known: RunEvent | None) -> WorkflowRun | None:
        """Return the run as it is stored; None if that is older than what is known."""
        wait_for = getattr(run_log, "wait_for", None)  # which a run log of the platform's own need not have
        if known is None or wait_for is None:
            return cast("WorkflowRun | None", await run_log.get_run(self.workflow_id, self.run_id))
        with suppress(WaitTimeoutError):
            return cast("WorkflowRun", await wait_for(self.workflow_id, self.run_id, known, timeout=0))
        return None

    def _with(self, run: WorkflowRun, hlc: int = 0) -> RunHandle:
        is_next = self.retry or run.status.is_terminal
        if is_next and run.attempt == MAX_ATTEMPT:
            is_next = False
            hint = "its states are told as of the same attempt; begin a run of another id"
            _logger.error("run_log_no_next_attempt", workflow_id=run.workflow_id, run_id=run.id, hint=hint)
        handle = self._handle(
            {
                **dict(run),
                "pause": run.pause and run.pause.model_dump(),
                "attempt": run.attempt + is_next,
                "error": None,
                "error_type": None,
                "completed_at": None,
                "duration_ms": 0,
                # The next attempt begins anew.
                "progress": None if is_next else run.progress,
            },
            read=run.key,
            hlc=hlc,
        )
        if run.status is RunStatus.PAUSED:
            handle._answer(self.answer)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its other half
        return handle

    def _without(self, error: BaseException | None, known: RunEvent | None) -> RunHandle:
        if error is not None or known is None:
            cause = name_and_text(error) if error is not None else "no such run; is its projection behind?"
            _logger.error(
                "run_log_run_not_read", workflow_id=self.workflow_id, run_id=self.run_id, error=cause
            )
        if known is not None:
            return self._with(known.run, known.hlc)
        state = {
            "id": self.run_id,
            "workflow_id": self.workflow_id,
            "trigger_type": TriggerType.MANUAL,
            "started_at": utc_now(),
            # Nobody knows what the pause asks for.
            "pause": dict(self.answer) if any(part is not None for part in self.answer.values()) else None,
        }
        return self._handle(state)

    def _handle(self, state: dict[str, Any], read: RunKey | None = None, hlc: int = 0) -> RunHandle:
        emitter = default_emitter() if self.emitter is None else self.emitter
        # Reading a run moves the clock of the process past it. The emitter may have another clock.
        if isinstance(emitter, RunEventEmitter):
            clock: HybridLogicalClock = getattr(self.run_log, "version_clock", PROCESS_CLOCK)
            emitter.observe(clock.last)
            if read is not None:
                _tell_if_ahead(read, clock.ahead_by(clock.seen(read)))
                emitter.observe(max(clock.seen(read), hlc), read)
        begun = time.perf_counter()
        # Never negative: this machine's clock may be behind the one that the run started by.
        before = max((utc_now() - state["started_at"]).total_seconds(), 0.0)
        return RunHandle(
            state,
            emitter=emitter,
            elapsed=lambda: before + time.perf_counter() - begun,
            heartbeat=self.heartbeat,
        )


def _tell_if_ahead(run: RunKey, ahead: timedelta) -> None:
    if ahead > MAX_STAMPED_AHEAD:
        _logger.warning(
            "run_log_run_ahead",
            workflow_id=run[0],
            run_id=run[1],
            ahead=str(ahead),
            hint="a projector makes dead letters of what is said after it (clock_ahead): pass retry=True",
        )
