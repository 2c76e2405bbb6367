"""The inbox: paused runs, and the answers that let them go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from run_log.core import (
    AlreadyAnsweredError,
    InvalidArgumentError,
    InvalidRunError,
    PauseRequest,
    RunEvent,
    RunNotFoundError,
    RunStatus,
    Transition,
    Version,
    WorkflowRun,
)
from run_log.core.forms import MAX_FORM_LEVELS, MAX_VALUES_BYTES, values_fault
from run_log.core.history import annotated
from run_log.core.json_form import duration_json, time_json
from run_log.core.law import RunHead
from run_log.core.models import RunKey, validated
from run_log.core.payload import decode_json, encode_json, is_deeper
from run_log.stores.stored.fields import PAUSED_ASSIGNEE, PAUSED_DEADLINE, PAUSED_STARTED_AT, indexed_assignee
from run_log.stores.stored.reading import StoredRun, names_of

BY_DEFAULT: Final = "default (deadline passed)"
"""Who answered a pause whose default was taken."""


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
    version: Version
    """Which pause that is: the version of the run's newest state, for `RunLog.resume` and `reject`."""

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON, and with it when it began to wait, for how long, and the version."""
        return {
            **self.run.to_json(),
            "paused_at": time_json(self.paused_at),
            "age_ms": duration_json(self.age),
            "overdue": self.overdue,
            "version": self.version.text,
        }

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
    def choices(self) -> tuple[str, ...]:
        """What can be chosen; empty for no choice."""
        return self._pause.choices

    @property
    def form(self) -> Mapping[str, Any] | None:
        """What is filled in, as a JSON Schema; None for nothing."""
        return self._pause.form

    @property
    def default_choice(self) -> str | None:
        """Which choice is taken when the deadline passes; None for none."""
        return self._pause.default_choice

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
    choice: str | None = None
    """What they chose; None for nothing."""
    values: Mapping[str, Any] | None = None
    """What they filled in; None for nothing."""
    if_version: Version | None = None
    """Which pause they answer; None for whatever the run waits for."""

    def given_to(self, run: WorkflowRun) -> WorkflowRun:
        """Return *run*, which is paused, as it is after this.

        Raises:
            InvalidArgumentError: `answered_by` is empty or no text, or what was chosen or filled in is not
                what the pause asks for.
            InvalidRunError: `comment` is no text, or *run* has too long an id, of an earlier version.
        """
        if not self.answered_by or not _is_text(self.answered_by):
            raise InvalidArgumentError(f"answered_by is {self.answered_by!r}; pass who answers")
        if self.comment is not None and not _is_text(self.comment):
            raise InvalidRunError(f"comment is {self.comment!r}; pass a text, or None for nothing to say")
        asked = run.pause or PauseRequest()
        self._check_choice(asked)
        self._check_values(asked)
        said = {
            "answered_by": self.answered_by,
            "comment": self.comment,
            "choice": self.choice,
            "values": self.values,
        }
        changes: dict[str, object] = {
            "status": RunStatus.RUNNING,
            "pause": asked.model_copy(update=said),
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

    def _check_choice(self, asked: PauseRequest) -> None:
        if self.choice is None and (self.is_rejection or not asked.choices):
            return
        # As the pause was read: a long choice is cut there.
        chosen = PauseRequest(choice=self.choice).choice if _is_text(self.choice) else None
        if chosen is None or chosen not in asked.choices:
            offered = ", ".join(map(repr, asked.choices)) or "none: the pause offers no choice"
            raise InvalidArgumentError(f"choice is {self.choice!r:.200}; pass one of {offered}")

    def _check_values(self, asked: PauseRequest) -> None:
        if self.values is None and (self.is_rejection or asked.form is None):
            return
        if not _is_object(self.values or {}):
            raise InvalidArgumentError(
                f"values is {self.values!r:.200}; pass an object, a value by each name"
            )
        # The very values that will be kept, of JSON's types.
        text = encode_json(dict(self.values or {}))
        if len(text) > MAX_VALUES_BYTES or is_deeper(text, MAX_FORM_LEVELS):
            raise InvalidArgumentError(
                f"values have {len(text)} bytes of JSON; the most are {MAX_VALUES_BYTES}, in at most "
                f"{MAX_FORM_LEVELS} levels"
            )
        if asked.form is not None and (fault := values_fault(asked.form, decode_json(text))):
            raise InvalidArgumentError(f"the values do not fit the form of the pause: {fault}")


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def pending(stored: StoredRun, now: datetime) -> PendingRun:
    """Return a paused run as the inbox shows it at *now*."""
    pause = stored.run.pause
    return PendingRun(
        run=stored.run,
        paused_at=stored.occurred_at,
        age=max(now - stored.occurred_at, timedelta(0)),
        overdue=pause is not None and _is_overdue(pause, now),
        version=stored.version,
    )


def _is_overdue(pause: PauseRequest, now: datetime) -> bool:
    return pause.deadline is not None and pause.deadline < now


def by_default(stored: StoredRun, now: datetime) -> RunEvent | None:
    """Return the event that a paused run goes on with its default choice; None where none is due *now*.

    Concluded from silence: any real answer to the same pause beats it.

    Raises:
        WriteRefusedError: Nothing can come after the newest event.
    """
    pause = stored.run.pause
    if stored.run.status is not RunStatus.PAUSED or pause is None:
        return None
    if pause.default_choice is None or not _is_overdue(pause, now):
        return None
    said = {"answered_by": BY_DEFAULT, "comment": None, "choice": pause.default_choice, "values": None}
    changes = {"status": RunStatus.RUNNING, "pause": pause.model_copy(update=said)}
    return stored.concluded(changes, now, what="answered by default")


def check_unanswered(head: RunHead | None, event: RunEvent, asked: Version) -> None:
    """Check that a store may write *event*, which answers the pause of version *asked*.

    Args:
        head: The run's stored head, as it is in the transaction that writes, or under its precondition; None
            where the run is not there.
        event: The answer.
        asked: The pause that it answers.

    Raises:
        RunNotFoundError: The run is not there.
        AlreadyAnsweredError: Its newest state is another.
    """
    if head is None:
        raise RunNotFoundError(*event.key)
    # An earlier try may have written it, and its answer was lost.
    if head.version != asked and Transition.of(event) not in head.history:
        raise already_answered(event.key, head.history, asked)


def already_answered(key: RunKey, history: Sequence[Transition], asked: Version) -> AlreadyAnsweredError:
    """Return the error that the pause of version *asked* is not the newest of *history* any more."""
    later = [line for line in annotated(history) if line.version > asked]
    answered_by = later[0].answered_by if later else None
    what = f"answered by {answered_by!r}" if answered_by else "not its newest state"
    newest = f", which is {history[-1].status.value} of {history[-1].version.text}" if history else ""
    if history and history[-1].version == asked:
        newest = ": the run has said since that it goes on"
    return AlreadyAnsweredError(
        f"the pause {asked.text} of run {key[1]!r} of workflow {key[0]!r} is {what}{newest}",
        answered_by=answered_by,
    )
