"""A run under way, as its workflow sees it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, Protocol, cast

from run_log.core import RunEvent, RunProgress, RunRef, RunStatus, WorkflowRun, utc_now
from run_log.core.clock import PROCESS_CLOCK
from run_log.core.logs import get_logger
from run_log.core.nearest import Contained, qualified_name
from run_log.core.steps import joined_steps

from ._capture import Checked
from ._emitter import RunEventEmitter
from ._failure import Untouched, describe, is_cancellation, is_good_exit, name_and_text
from ._metrics import say_loss
from ._state import answered, heartbeat_seconds, only_begun, own_id, usable
from ._steps import Pulse, StepBook, StepHandle, StepScope, new_step

_logger: Final = get_logger("run_log.producer")


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
        self.workflow_id: str = own_id("workflow_id", state["workflow_id"])
        self.run_id: str = own_id("run_id", state["id"])
        self.attempt: int = state.get("attempt", 1)
        own = {"workflow_id": self.workflow_id, "id": self.run_id, "status": RunStatus.RUNNING}
        self._state = {**state, **own}
        self._emitter = emitter
        self._elapsed = elapsed
        # The clock may be behind the one that the run started by, and no run ends before its start.
        started_at: datetime = state["started_at"]
        self._now: Callable[[], datetime] = lambda: max(now(), started_at)
        self._end = RunStatus.SUCCESS
        self._is_left = self._stays_open = False
        self._process = os.getpid()
        self._said: Checked | None = None
        self._said_after = 0
        self._pulse: Pulse | None = None
        if isinstance(emitter, RunEventEmitter):
            seconds = heartbeat_seconds(heartbeat, emitter.progress_interval, self.workflow_id, self.run_id)
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

    def resume(
        self,
        *,
        answered_by: str | None = None,
        comment: str | None = None,
        choice: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """State that the run goes on, in the block that paused it, with the answer.

        What is none of the pause's choices, or does not fit its form, is left out, and logged.

        Args:
            answered_by: Who answered.
            comment: What they had to say.
            choice: What they chose.
            values: What they filled in.
        """
        self._answer({"answered_by": answered_by, "comment": comment, "choice": choice, "values": values})
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

    def leave_open(self) -> None:
        """Have the run stay as it is when the block ends, since something else goes on with it or ends it.

        If an exception leaves the block, the run fails all the same.
        """
        self._stays_open = True

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

    def begin_step(self, name: str, *, key: str | None = None, parent: str | None = None) -> StepHandle:
        """Begin a step of this run where no block can stand. End it by `StepHandle.end`.

        Args:
            name: What people call it.
            key: See `step`.
            parent: The key of the step around it.
        """
        handle = new_step(self._book, name, key, parent)
        try:
            handle.begin()
        except BaseException as error:  # Ctrl-C came in between, and nobody will end the step
            handle.end(error)
            raise
        return handle

    def close(self, error: BaseException | None = None, *, wait: bool = True) -> None:
        """End a run that was opened by `RunRecorder.open`: what leaving a block does, also that it may wait.

        Args:
            error: What ended it. None is success, unless `fail`, `skip` or `cancel` was called; a run that is
                paused stays so.
            wait: Whether it may wait. Where an event loop calls back, it must not.
        """
        self._leave(error)
        if wait:
            self._await_end(error)

    async def close_async(self, error: BaseException | None = None) -> None:
        """Do what `close` does, without blocking the event loop."""
        self._leave(error)
        await self._await_end_async(error)

    def _await_end(self, error: BaseException | None) -> None:
        with Untouched(error), Guard(self):
            if isinstance(self._emitter, RunEventEmitter):
                self._emitter.await_end_sync()

    async def _await_end_async(self, error: BaseException | None) -> None:
        with Untouched(error), Guard(self):
            if isinstance(self._emitter, RunEventEmitter):
                await self._emitter.await_end()

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
        is_running = is_running and not self._is_left
        if not is_running or self._process != os.getpid():
            if is_due and self._book:
                self._emitter.emit(Checked(only_begun(said.run), self._book.all(hlc), hlc=0))
            return is_due
        run = said.run.model_copy(update={"progress": self._state.get("progress")})
        # With the payloads of the last transition: the workflow may be changing its own.
        self._emitter.emit(Checked(run, self._book.all(hlc), hlc, said.payloads))
        return True

    def _enter(self) -> None:
        self._emit(RunStatus.RUNNING)

    def _leave(self, error: BaseException | None) -> None:
        is_paused = self.status is RunStatus.PAUSED and self._end is RunStatus.SUCCESS
        if error is not None and is_cancellation(error):
            self.cancel(describe(error))
        elif error is not None and not is_good_exit(error):
            self.fail(error)
        elif self._stays_open or is_paused:
            self._is_left = True
            if self._pulse is not None:
                with Guard(self):
                    self._pulse.finish()
            self._note_left()
            return
        self._state["completed_at"] = self._now()
        self._state["duration_ms"] = self._elapsed() * 1_000
        self._emit(self._end)
        self._is_left = True
        self._note_left()

    def _note_left(self) -> None:
        with Guard(self):
            if isinstance(self._emitter, RunEventEmitter):
                self._emitter.left.note(self._said, self._said_after)

    def _answer(self, answer: Mapping[str, object]) -> None:
        self._state["pause"] = answered(self._state, answer)

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
            run = usable(self._state)
            steps = self._book.all(self._tick()) if self._book else ()
            # Validated above, so that a wrong value is logged with its run. Once is enough.
            if isinstance(run, WorkflowRun) and isinstance(self._emitter, RunEventEmitter):
                self._said_after = self._emitter.seen(run.key)
                run = self._said = Checked(run, steps)
            elif isinstance(run, WorkflowRun) and steps:
                run = RunEvent.from_run(run).model_copy(update={"steps": joined_steps(steps)})
            self._emitter.emit(run)
            if self._pulse is not None and status is RunStatus.RUNNING:
                self._pulse.said()


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


innermost: Final[ContextVar[RunHandle | None]] = ContextVar("run_log_current_run", default=None)


def current_run() -> RunHandle | None:
    """Return the handle of the innermost run around this code, or None.

    A decorated function sets its result on it.
    """
    return innermost.get()
