"""A whole run log: the protocol, the read side around it, and what only needs those."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Unpack

from run_log.core import InvalidArgumentError, RunLogProtocol, WorkflowRun, utc_now
from run_log.core.protocol import MAX_LIMIT
from run_log.stores.listings import RunFilters, aware

from ._reader import RunLogReader
from .inbox import Answer


class RunLog(RunLogReader, RunLogProtocol, abc.ABC):
    """What `create_run_log_service` returns: queries, saves, and answers to paused runs."""

    async def iter_runs(
        self, workflow_id: str, *, page_size: int = 200, **filters: Unpack[RunFilters]
    ) -> AsyncIterator[WorkflowRun]:
        """See `RunLogReader.iter_runs`."""
        cursor = None
        page_size = whole("page_size", page_size)
        while True:
            runs, cursor = await self.list_runs(workflow_id, limit=page_size, start_after=cursor, **filters)
            for run in runs:
                yield run
            if cursor is None:
                return

    async def resume(
        self,
        workflow_id: str,
        run_id: str,
        *,
        answered_by: str,
        comment: str | None = None,
        now: datetime | None = None,
    ) -> WorkflowRun:
        """Answer a paused run so that it goes on; return it as it is then: running, and who said so.

        The answer is a state of the run like any other, stamped just after the one that it answers, whatever
        this machine's clock says: what the run says later is later. Whoever answers first is not protected
        from whoever answers at the same moment: both answers are in the history, and the later one holds.

        Args:
            workflow_id: The run's workflow.
            run_id: The run's id.
            answered_by: Who answers.
            comment: What they have to say.
            now: The answer's time; None is the machine's.

        Raises:
            NotPausedError: The run does not wait for an answer.
            RunNotFoundError: It is not there.
            InvalidArgumentError: An id or *answered_by* is empty.
            UnreadableRunError: The run is stored in a form that cannot be read.
            WriteRefusedError: Nothing can come after the version of the newest event.
            StoreUnavailableError: The store does not answer in bounded time.
        """
        answer = Answer(answered_by=answered_by, comment=comment, is_rejection=False, now=moment_or_now(now))
        return await self._answer(workflow_id, run_id, answer)

    async def reject(
        self,
        workflow_id: str,
        run_id: str,
        *,
        answered_by: str,
        comment: str | None = None,
        now: datetime | None = None,
    ) -> WorkflowRun:
        """Answer a paused run so that it ends; return it as it is then: failed, and who said so.

        Args:
            workflow_id: The run's workflow.
            run_id: The run's id.
            answered_by: Who answers.
            comment: What they have to say; it becomes part of the run's error.
            now: The answer's time; None is the machine's.

        Raises:
            NotPausedError: See `resume`, as the other errors.
        """
        answer = Answer(answered_by=answered_by, comment=comment, is_rejection=True, now=moment_or_now(now))
        return await self._answer(workflow_id, run_id, answer)

    @abc.abstractmethod
    async def mark_lost(
        self, workflow_id: str, run_id: str, *, older_than: timedelta, now: datetime | None = None
    ) -> bool:
        """Mark a run as failed that is stale, and return whether it still was.

        The run is read again first, and a paused one is never lost. Its error begins with ``lost``. The event
        is inferred from the newest that was heard: whatever the run says after that beats it, however late it
        arrives, and two who conclude the same say it once.

        Args:
            workflow_id: The run's workflow.
            run_id: The run's id.
            older_than: How long ago its newest event has to be, at least.
            now: What silence is counted to, aware; None is the machine's time.

        Raises:
            RunNotFoundError: The run is not there.
            InvalidArgumentError: An argument cannot be used.
            UnreadableRunError: The run is stored in a form that cannot be read.
            WriteRefusedError: Nothing can come after the version of the newest event.
            StoreUnavailableError: The store does not answer in bounded time.
        """

    @property
    def place(self) -> str:
        """Where the runs are, for people."""
        return repr(self)

    async def reach(self, seconds: float) -> None:
        """Return once it is known that runs can be read; for whoever would not wait as long as a query does.

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
        """Wait until what was saved is durable, and return whether it is: at once, where saves are.

        Args:
            timeout: Seconds to wait at most.
        """
        del timeout  # nothing to wait for
        return True

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of connections. Closing twice is fine."""

    @abc.abstractmethod
    async def _answer(self, workflow_id: str, run_id: str, answer: Answer) -> WorkflowRun:
        """See `resume` and `reject`."""


def moment_or_now(value: object) -> datetime:
    """Return *value* in UTC if it is an aware datetime; the machine's time where it is None.

    Raises:
        InvalidArgumentError: It is neither.
    """
    return utc_now() if value is None else aware("now", value)


def whole(name: str, value: object) -> int:
    """Return *value* if it is a whole number from 1 to `MAX_LIMIT`.

    Args:
        name: What it is called in an error.
        value: What a caller passes.

    Raises:
        InvalidArgumentError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LIMIT:
        raise InvalidArgumentError(f"{name} is {value!r}; pass a whole number from 1 to {MAX_LIMIT}")
    return value
