"""What every run log does alike beside its queries: save, answer, and conclude what was lost."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

from typing_extensions import override

from run_log.core import (
    AlreadyAnsweredError,
    InvalidArgumentError,
    NotPausedError,
    Outcome,
    RunEvent,
    RunNotFoundError,
    RunStatus,
    Settings,
    Version,
    WorkflowRun,
)
from run_log.core.clock import PROCESS_CLOCK, HybridLogicalClock, hlc_after
from run_log.core.events import current_trace
from run_log.core.models import validated

from .arguments import heard_before, identifier, moment_or_now
from .inbox import Answer, already_answered, by_default
from .notices import Notice, NoticeKind
from .ports import StoredRuns
from .reader import RunLogReader
from .stale import ACTIVE, lost
from .stored.reading import StoredRun
from .telemetry import span
from .watch import RunUpdate


class RunLog(RunLogReader, abc.ABC):
    """What `create_run_log_service` returns: queries, saves, and answers to paused runs.

    Attributes:
        label_fields: Fields of a platform's own runs that become labels when they are saved.
    """

    label_fields: Sequence[str] = ()

    async def resume(  # noqa: PLR0913 - each is a part of the answer
        self,
        workflow_id: str,
        run_id: str,
        *,
        answered_by: str,
        comment: str | None = None,
        choice: str | None = None,
        values: Mapping[str, Any] | None = None,
        if_version: Version | str | None = None,
        now: datetime | None = None,
    ) -> WorkflowRun:
        """Answer a paused run so that it goes on, and return it: running, with who answered.

        The answer is a state of the run like any other. It is stamped just after the state that it answers,
        whatever this machine's clock says, so what the run says later is later. Two answers at the same
        moment are both in the history, and the later one holds. Of any number of answers with the same
        *if_version*, one alone succeeds.

        Args:
            workflow_id: The run's workflow.
            run_id: The run's id.
            answered_by: Who answers.
            comment: What they have to say.
            choice: Which of the pause's choices; needed where it has any.
            values: What is filled in, by the pause's form.
            if_version: Which pause is answered: `PendingRun.version`, the newest of the history, or its
                text. None answers whatever the run waits for.
            now: The answer's time; None is the machine's.

        Raises:
            AlreadyAnsweredError: *if_version* is not the run's newest state any more. It says who answered.
            NotPausedError: The run does not wait for an answer.
            InvalidArgumentError: *choice* is none of the choices, or *values* do not fit the form; the
                message names the fields at fault.
            RunNotFoundError: It is not there.
            UnreadableRunError: The run is stored in a form that cannot be read.
            WriteRefusedError: Nothing can come after the version of the newest event.
        """
        answer = Answer(
            answered_by=answered_by,
            comment=comment,
            is_rejection=False,
            now=moment_or_now(now),
            choice=choice,
            values=values,
            if_version=_version(if_version),
        )
        return await self._answer(workflow_id, run_id, answer)

    async def reject(  # noqa: PLR0913 - as `resume`
        self,
        workflow_id: str,
        run_id: str,
        *,
        answered_by: str,
        comment: str | None = None,
        choice: str | None = None,
        values: Mapping[str, Any] | None = None,
        if_version: Version | str | None = None,
        now: datetime | None = None,
    ) -> WorkflowRun:
        """Answer a paused run so that it ends, and return it: failed, with who answered.

        The comment becomes part of the run's error. Arguments and errors are those of `resume`, but nothing
        has to be chosen or filled in.
        """
        answer = Answer(
            answered_by=answered_by,
            comment=comment,
            is_rejection=True,
            now=moment_or_now(now),
            choice=choice,
            values=values,
            if_version=_version(if_version),
        )
        return await self._answer(workflow_id, run_id, answer)

    async def mark_lost(
        self, workflow_id: str, run_id: str, *, older_than: timedelta, now: datetime | None = None
    ) -> bool:
        """Mark a run as failed that is stale, and return whether it still was.

        The run is read again first, and a paused one is never lost. Its error begins with ``lost``. The event
        is inferred from the newest that was heard. Whatever the run says after that wins, however late it
        arrives, and a conclusion that is drawn twice is recorded once.

        Args:
            workflow_id: The run's workflow.
            run_id: The run's id.
            older_than: How long ago its newest event has to be, at least.
            now: What silence is counted to, aware; None is the machine's time.

        Raises:
            RunNotFoundError: The run is not there.
            UnreadableRunError: The run is stored in a form that cannot be read.
            WriteRefusedError: Nothing can come after the version of the newest event.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        moment = moment_or_now(now)
        before = heard_before(older_than, moment)
        with span("run_log.mark_lost", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            stored = await self._there(workflow_id, run_id)
            if stored.run.status not in ACTIVE or stored.occurred_at >= before:
                return False
            event = lost(stored, moment)
        await self._conclude(event)
        return True

    async def cancel(
        self,
        workflow_id: str,
        run_id: str,
        *,
        cancelled_by: str,
        reason: str | None = None,
        now: datetime | None = None,
    ) -> WorkflowRun:
        """State that a run was stopped, and return it: cancelled, or as it is where it has ended already.

        Nothing is stopped by it. What the run itself says after its newest state wins, however late it
        arrives.

        Args:
            workflow_id: The run's workflow.
            run_id: The run's id.
            cancelled_by: Who stopped it; part of the run's error.
            reason: Why.
            now: When; None is the machine's time.

        Raises:
            InvalidArgumentError: *cancelled_by* is empty or no text.
            RunNotFoundError: The run is not there.
            UnreadableRunError: The run is stored in a form that cannot be read.
            WriteRefusedError: Nothing can come after the version of the newest event.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        moment = moment_or_now(now)
        with span("run_log.get", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            stored = await self._there(workflow_id, run_id)
            run = self._observed(stored)
            if run.status.is_terminal:
                return run
            event = self._after(stored, _cancelled(run, cancelled_by, reason, moment))
        with span("run_log.save", attributes={"workflow_id": run.workflow_id, "run_id": run.id}):
            await self._conclude(event)
        return event.run

    async def take_default(self, workflow_id: str, run_id: str, *, now: datetime | None = None) -> bool:
        """Have a paused run go on with its default choice if its deadline has passed; return whether it does.

        The run is read again first. The event is inferred from the pause, and `answered_by` says that it was
        the default. Any real answer to the same pause wins, and a default that is taken twice is recorded
        once.

        Args:
            workflow_id: The run's workflow.
            run_id: The run's id.
            now: What the deadline is compared with, aware; None is the machine's time.

        Raises:
            RunNotFoundError: The run is not there.
            UnreadableRunError: The run is stored in a form that cannot be read.
            WriteRefusedError: Nothing can come after the version of the newest event.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        with span("run_log.get", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            stored = await self._there(workflow_id, run_id)
        event = by_default(stored, moment_or_now(now))
        if event is None:
            return False
        try:
            await self._conclude(event, stored.version)
        except AlreadyAnsweredError:
            return False
        return True

    @property
    def place(self) -> str:
        """Where the runs are, for people."""
        return repr(self)

    async def reach(self, seconds: float) -> None:
        """Check that runs can be read, for callers that cannot wait as long as a query does.

        Args:
            seconds: How long that may take.

        Raises:
            NotFoundError: There is no run log where it should be. Queries find nothing there, and a save
                makes it.
            StoreUnavailableError: The store does not answer in time.
            ConfigurationError: It cannot be read; the message says what to do.
        """
        del seconds  # nothing to wait for

    async def flush(self, timeout: float = 2.0) -> bool:  # noqa: ASYNC109 - bounds a delivery that goes on
        """Wait up to *timeout* seconds until what was saved is durable, and return whether it is.

        Most stores make each save durable before it returns.
        """
        del timeout  # nothing to wait for
        return True

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of connections. Closing twice is fine."""

    async def _answer(self, workflow_id: str, run_id: str, answer: Answer) -> WorkflowRun:
        """Make what *answer* leads to the run's newest state, just after the one it answers; return that."""
        event = await self.conclude_answer(workflow_id, run_id, answer)
        with span("run_log.save", attributes={"workflow_id": event.run.workflow_id, "run_id": event.run.id}):
            await self._conclude(event, answer.if_version)
        return event.run

    async def conclude_answer(self, workflow_id: str, run_id: str, answer: Answer) -> RunEvent:
        """Return the event that answers a paused run: just after the one it answers, by any clock.

        See `resume` for the arguments and errors. Nothing is written.
        """
        workflow_id, run_id = identifier("workflow_id", workflow_id), identifier("run_id", run_id)
        with span("run_log.get", attributes={"workflow_id": workflow_id, "run_id": run_id}):
            stored = await self._there(workflow_id, run_id)
            if answer.if_version not in (None, stored.version):
                head = await self._source.read_head(*stored.run.key)
                raise already_answered(stored.run.key, head.history if head else (), answer.if_version)
            if stored.run.status is not RunStatus.PAUSED:
                raise NotPausedError(
                    f"run {run_id!r} of workflow {workflow_id!r} is {stored.run.status.value}, not paused"
                )
            return self._after(stored, answer.given_to(self._observed(stored)))

    def _after(self, stored: StoredRun, run: WorkflowRun) -> RunEvent:
        """Return the event that *run*, as it is *stored*, is so now: just after its newest, by any clock."""
        event = RunEvent.from_run(run, clock=self.version_clock, trace=current_trace())
        # An id before all others: what the run itself says in the next microsecond is later, too.
        version = {"hlc": hlc_after(stored.version.hlc, run.key), "event_id": f"!{event.event_id}"}
        return event.model_copy(update=version)

    async def _there(self, workflow_id: str, run_id: str) -> StoredRun:
        stored = await self._read_named(workflow_id, run_id)
        if stored is None:
            raise RunNotFoundError(workflow_id, run_id)
        return stored

    @abc.abstractmethod
    async def _conclude(self, event: RunEvent, asked: Version | None = None) -> None:
        """Record *event*, which was concluded from what is stored, as it is.

        With *asked* only where the run's newest state is the pause of that version, in one step.

        Raises:
            AlreadyAnsweredError: It is another one.
        """


class RunLogService(RunLog, StoredRuns):
    """A run log that keeps its runs itself, wherever that is. What it saves is durable when it returns.

    A store adds how a run is written and read; arguments are checked, spans opened and cursors made once.

    Args:
        clock: Stamps what is saved, and follows what is read.
    """

    def __init__(self, clock: HybridLogicalClock = PROCESS_CLOCK) -> None:
        super().__init__(self, clock)

    @classmethod
    def from_env(cls) -> Self:
        """Return the service that the environment describes.

        Raises:
            ConfigurationError: A setting is missing or wrong; the message says which, and what to set.
        """
        settings = Settings.from_env()
        service = cls.from_settings(settings)
        service.label_fields = settings.label_fields
        return service

    @classmethod
    @abc.abstractmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the service that *settings* describe; see the constructor."""

    @override
    async def save_run(self, run: Any) -> None:
        with span("run_log.save") as saving:
            event = RunEvent.from_run(
                run, clock=self.version_clock, trace=current_trace(), label_fields=self.label_fields
            )
            saving.set_attributes({"workflow_id": event.run.workflow_id, "run_id": event.run.id})
            await self._save(event)

    @override
    async def _conclude(self, event: RunEvent, asked: Version | None = None) -> None:
        if asked is None:
            await self.apply([event])
        else:
            await self._apply_answer(event, asked)

    @abc.abstractmethod
    async def _apply_answer(self, event: RunEvent, asked: Version) -> None:
        """Merge *event* if its run's newest state is the pause of version *asked*, in one step.

        Raises as `check_unanswered` does.
        """

    @abc.abstractmethod
    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """Merge *events* into the store; see `ProjectionStore.apply`."""

    @abc.abstractmethod
    async def put_notices(self, kind: NoticeKind, notices: Sequence[Notice]) -> None:
        """Keep *notices*; see `NoticeStore.put_notices`."""

    @abc.abstractmethod
    async def remove_notices(self, kind: NoticeKind, keys: Iterable[str]) -> None:
        """Remove notices; see `NoticeStore.remove_notices`."""

    @abc.abstractmethod
    async def _save(self, event: RunEvent) -> None:
        """Make *event* the run's newest state, stamped later than what is stored, durably."""

    def _update(self, stored: StoredRun, cursor: str) -> RunUpdate:
        return RunUpdate(run=self._observed(stored), version=stored.version, cursor=cursor)


def _cancelled(run: WorkflowRun, by: object, reason: str | None, now: datetime) -> WorkflowRun:
    if not isinstance(by, str) or not by:
        raise InvalidArgumentError(f"cancelled_by is {by!r:.200}; pass who stopped it")
    ended_at = max(now, run.started_at)
    changes: dict[str, object] = {
        "status": RunStatus.CANCELLED,
        "error": f"cancelled by {by}" + (f": {reason}" if reason else ""),
        "error_type": None,
        "completed_at": ended_at,
        "duration_ms": (ended_at - run.started_at) / timedelta(milliseconds=1),
    }
    return validated(run.model_copy(update=changes))


def _version(value: object) -> Version | None:
    if value is None or isinstance(value, Version):
        return value
    if isinstance(value, str):
        return Version.from_text(value)
    raise InvalidArgumentError(f"if_version is {value!r:.200}; pass a Version, or its text")
