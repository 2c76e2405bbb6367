"""The inbox: paused runs, and the answers that let them go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from run_log.core import InvalidArgumentError, InvalidRunError, PauseRequest, RunStatus, WorkflowRun
from run_log.core.models import validated
from run_log.core.payload import encode_json
from run_log.stores.stored.fields import PAUSED_ASSIGNEE, PAUSED_DEADLINE, PAUSED_STARTED_AT, indexed_assignee
from run_log.stores.stored.reading import names_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRun:
    """A paused run that waits for an answer."""

    run: WorkflowRun
    paused_at: datetime
    """When it began to wait, on its emitter's clock, in UTC."""
    age: timedelta
    """How long it has waited."""
    overdue: bool
    """Whether its deadline has passed."""

    @property
    def reason(self) -> str:
        """What is to be decided."""
        return self._pause.reason

    @property
    def assignee(self) -> str | None:
        """Who is asked; None for anybody."""
        return self._pause.assignee

    @property
    def deadline(self) -> datetime | None:
        """When the answer is due, in UTC; None for no deadline."""
        return self._pause.deadline

    @property
    def _pause(self) -> PauseRequest:
        return self.run.pause or PauseRequest()


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxSelection:
    """Which paused runs, as of when."""

    assignee: str | None = None
    """Who is asked; None is any, nobody in particular too."""
    overdue: bool | None = None
    """Whether the deadline has passed; None is either."""
    workflow_id: str | None = None
    """Of which workflow; None is any."""
    now: datetime
    """In UTC."""
    scope: ClassVar[str] = "inbox"

    @property
    def sorted_by(self) -> str:
        """What of the projection map they come by: the deadline where that is asked for, else the start."""
        return PAUSED_STARTED_AT if self.overdue is None else PAUSED_DEADLINE

    @property
    def newest_first(self) -> bool:
        """Whether the latest comes first; else the earliest."""
        return self.overdue is None

    @property
    def assignees(self) -> tuple[str, ...]:
        """By what name who is asked may be stored; empty for any."""
        return () if self.assignee is None else names_of(self.assignee)

    @property
    def indexed_assignees(self) -> tuple[str, ...]:
        """What an index has of `assignees`: also of others, who begin alike."""
        return tuple(map(indexed_assignee, self.assignees))

    def is_wanted(self, run: WorkflowRun) -> bool:
        """Return whether *run*, which indexes have found, is among them."""
        return self.assignee is None or (run.pause is not None and run.pause.assignee in self.assignees)

    def includes(self, projection: Mapping[str, Any]) -> bool:
        """Return whether indexes find a run with this projection map, whatever its workflow."""
        return (
            PAUSED_STARTED_AT in projection
            and (self.assignee is None or projection.get(PAUSED_ASSIGNEE) in self.indexed_assignees)
            and (self.overdue is None or (projection[PAUSED_DEADLINE] < self.now) == self.overdue)
        )

    @property
    def text(self) -> str:
        """What tells a listing of them from others."""
        # The moment moves while somebody walks: by deadline, who becomes overdue meanwhile comes last.
        return encode_json([self.assignee, self.overdue, self.workflow_id])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a paused run is answered with."""

    answered_by: str
    """Who answers."""
    comment: str | None
    """What they have to say; None for nothing."""
    is_rejection: bool
    """Whether the run ends here, failed; else it goes on."""
    now: datetime
    """The answer's time."""

    def given_to(self, run: WorkflowRun) -> WorkflowRun:
        """Return *run*, which is paused, as it is after this.

        Raises:
            InvalidArgumentError: `answered_by` is empty or no text.
            InvalidRunError: `comment` is no text, or *run* has too long an id, of an earlier version.
        """
        if not self.answered_by or not _is_text(self.answered_by):
            raise InvalidArgumentError(f"answered_by is {self.answered_by!r}; pass who answers")
        if self.comment is not None and not _is_text(self.comment):
            raise InvalidRunError(f"comment is {self.comment!r}; pass a text, or None for nothing to say")
        said = {"answered_by": self.answered_by, "comment": self.comment}
        changes: dict[str, object] = {
            "status": RunStatus.RUNNING,
            "pause": (run.pause or PauseRequest()).model_copy(update=said),
        }
        if self.is_rejection:
            ended_at = max(self.now, run.started_at)
            changes |= {
                "status": RunStatus.FAILED,
                "error": f"rejected by {self.answered_by}" + (f": {self.comment}" if self.comment else ""),
                "completed_at": ended_at,
                "duration_ms": (ended_at - run.started_at) / timedelta(milliseconds=1),
            }
        return validated(run.model_copy(update=changes))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def pending(run: WorkflowRun, paused_at: datetime, now: datetime) -> PendingRun:
    """Return *run*, which has been paused since *paused_at*, as the inbox shows it at *now*."""
    deadline = run.pause.deadline if run.pause else None
    return PendingRun(
        run=run,
        paused_at=paused_at,
        age=max(now - paused_at, timedelta(0)),
        overdue=deadline is not None and deadline < now,
    )
