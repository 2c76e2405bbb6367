"""The merge law: how events become a run's state, its history and its workflow's stats.

A run's state is its event of the greatest version. Its history is the set of its transitions, one for each
version, of which the newest are kept. Only a faulty publisher makes two different events of one version;
their content decides between them. State and history are joins of a semilattice (a CRDT): duplicates, any
order and any grouping of the events end in the same state.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from .clock import MAX_HLC, HybridLogicalClock, micros_of, rfc3339
from .counters import NOT_COUNTED, Counted, Horizon, SummaryCounter, add_counters, counters_of
from .events import RunEvent, Version
from .ids import valid_text
from .json_form import duration_json
from .models import RunKey, RunStatus, WorkflowRun
from .payload import decode_json, encode_json, fit_payloads
from .steps import Step, in_order, joined_steps, outlived

MAX_HISTORY: Final = 50
"""How many transitions of a run are kept: the newest by version."""

MAX_ANSWERER_BYTES: Final = 128
"""The most bytes of JSON text that a history keeps of who answered a pause."""


MAX_HISTORY_CHOICE_BYTES: Final = 128
"""The most bytes of JSON text that a history keeps of what was chosen."""

MAX_HISTORY_COMMENT_BYTES: Final = 384
"""The most bytes of JSON text, in UTF-8, that a history keeps of a comment."""

MAX_HISTORY_VALUES_BYTES: Final = 256
"""The most bytes of JSON text that a history keeps of the values of an answer."""

_NOBODY: Final = (None, None, None, None)


class Outcome(enum.StrEnum):
    """What became of one event."""

    APPLIED = "applied"
    """It is the run's newest state, or was so within its batch."""
    DUPLICATE = "duplicate"
    """The store had it already, or another event of its version that ranks higher. Nothing changed."""
    STALE = "stale"
    """The store had a newer state. History and steps have what the event adds; state and stats stay."""
    REJECTED = "rejected"
    """The store will never accept it. It belongs to the dead letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One entry of a run's history: an event put the run into a status."""

    version: Version
    """The version of the event."""
    status: RunStatus
    """The status that the event stated."""
    occurred_at: datetime
    """When it occurred, on the emitter's wall clock, in UTC."""
    inferred: bool = False
    """Whether the event was inferred rather than observed."""
    anomaly: bool = False
    """Whether the step into this status breaks the state machine: running after success, for example."""
    answered_by: str | None = None
    """Who answered the pause that ended with this transition, cut if it is long; None if nobody is known."""
    choice: str | None = None
    """What they chose, cut if it is long; None for nothing."""
    comment: str | None = None
    """What they had to say, cut if it is long; None for nothing."""
    values_text: str | None = None
    """See `values`: as JSON text, of which equal ones are exactly equal."""
    lasted: timedelta | None = None
    """How long the run was in this status, on the emitters' wall clocks; None while it still is. Zero if the
    clocks differ so much that the next status seems to come earlier."""

    @property
    def attempt(self) -> int:
        """The run's attempt, from 1."""
        return self.version.attempt

    @property
    def values(self) -> dict[str, Any] | None:
        """What they filled in, the largest values cut if it is long; None for nothing."""
        return None if self.values_text is None else decode_json(self.values_text)

    def to_json(self) -> dict[str, Any]:
        """Return the transition as JSON: times by RFC 3339 in UTC, the version as its text."""
        return {
            "status": self.status.value,
            "occurred_at": rfc3339(self.occurred_at),
            "lasted_ms": duration_json(self.lasted),
            "attempt": self.attempt,
            "event_id": self.version.event_id,
            "inferred": self.inferred,
            "anomaly": self.anomaly,
            "answered_by": self.answered_by,
            "choice": self.choice,
            "values": self.values,
            "comment": self.comment,
            "version": self.version.text,
        }

    @property
    def rank(self) -> tuple[bool, datetime, bool, str, str, str, str, str]:
        """What decides between two transitions of one version: the observed, later, ended one wins."""
        # Statuses, names and texts only make the order total. Without that, the order of arrival would
        # decide.
        status = self.status
        texts = (self.answered_by or "", self.choice or "", self.comment or "", self.values_text or "")
        return not self.inferred, self.occurred_at, status.is_terminal, status.value, *texts

    @classmethod
    def of(cls, event: RunEvent) -> Transition:
        """Return the transition that *event* states, as it is stored: without what `annotated` adds."""
        pause = event.run.pause if event.status is not RunStatus.PAUSED else None
        return cls(
            version=event.version,
            status=event.status,
            occurred_at=event.occurred_at,
            inferred=event.inferred,
            answered_by=_short(pause.answered_by, MAX_ANSWERER_BYTES) if pause else None,
            choice=_short(pause.choice, MAX_HISTORY_CHOICE_BYTES) if pause else None,
            comment=_short(pause.comment, MAX_HISTORY_COMMENT_BYTES, comment_json) if pause else None,
            values_text=_short_values(pause.values) if pause else None,
        )


def comment_json(text: str) -> str:
    """Return *text* as JSON text that is short in any alphabet."""
    # Escaped, most of the world's letters would take six bytes each of what is kept.
    return json.dumps(valid_text(text), ensure_ascii=False)


def _short(text: str | None, most: int, as_json: Callable[[str], str] = encode_json) -> str | None:
    # Measured as JSON, in which a character takes up to 12 bytes.
    while text and len(as_json(text).encode()) > most:
        text = f"{text[: len(text) * 3 // 4 - 1]}…"
    return text or None


def _short_values(values: dict[str, Any] | None) -> str | None:
    if not values:
        return None
    text = encode_json(values)
    if len(text) <= MAX_HISTORY_VALUES_BYTES:
        return text
    (fitted,), _ = fit_payloads((values,), MAX_HISTORY_VALUES_BYTES)
    return encode_json(fitted)


def newest(transitions: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return the newest `MAX_HISTORY` of a run's *transitions*, one for each version, in version order."""
    unique: dict[Version, Transition] = {}
    for line in transitions:
        known = unique.setdefault(line.version, line)
        if known is not line and known.rank < line.rank:
            unique[line.version] = line
    return tuple(unique[version] for version in sorted(unique)[-MAX_HISTORY:])


def run_digest(run: WorkflowRun, payloads: tuple[str, str] | None = None) -> str:
    """Return a digest of those fields of a run that a transition does not have. Equal states have equal ones.

    *payloads* are the run's trigger data and result, encoded by `encode_json`; None encodes them here.
    """
    fields: dict[str, object] = {
        "trigger_type": str(run.trigger_type),
        "error": run.error,
        "started_at": run.started_at.isoformat(),
        "completed_at": run.completed_at and run.completed_at.isoformat(),
        # As a float: 1 and 1.0 are the same duration, but not the same text.
        "duration_ms": float(run.duration_ms),
        "pause": run.pause and {name: value for name, value in run.pause if value not in (None, ())},
        # Absent if it is empty, as a run without labels was stored before there were any.
        "labels": dict(sorted(run.labels.items())) or None,
        "parent": run.parent,
        "trace_id": run.trace_id,
        "error_type": run.error_type,
        "progress": run.progress and run.progress.model_dump(),
    }
    # Absent fields leave no trace. So a field that a later version adds changes no digest that is stored.
    scalars = encode_json({name: value for name, value in fields.items() if value is not None})
    # Every run stores one. 15 bytes are 20 characters of base64, without padding.
    digest = hashlib.blake2b(scalars.encode(), digest_size=15)
    for payload in payloads or (encode_json(run.trigger_data), encode_json(run.result)):
        digest.update(b"\n")
        digest.update(payload.encode())
    return base64.b64encode(digest.digest()).decode()


def _digest(event: RunEvent) -> str:
    return run_digest(event.run)


def newest_event(events: Iterable[RunEvent]) -> RunEvent:
    """Return the event whose state a run has after all *events*, at least one, all of this run."""
    first, *others = events
    newest = first
    for event in others:
        if event.version > newest.version:
            newest = event
        elif event.version == newest.version and event is not newest:
            # Only now: a digest encodes the payloads, and two events of one version are a fault.
            newest = newest if _precedence(newest) >= _precedence(event) else event
    return newest


def _precedence(event: RunEvent) -> tuple[object, ...]:
    """Return what decides between two events of one version, as `fold` does."""
    if event.is_transition:
        return True, Transition.of(event).rank, _digest(event)
    return False, _content(event, _digest)


def _content(event: RunEvent, digest: Callable[[RunEvent], str]) -> str:
    """Return what decides between two events of one version that a history does not tell apart."""
    if event.is_transition:
        return digest(event)
    # No history tells when progress occurred, and whether it was observed: the digest does.
    return f"{int(not event.inferred)}/{micros_of(event.occurred_at):020}/{digest(event)}"


def mark_anomalies(history: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return *history*, in version order, with each transition marked that breaks the state machine.

    Within one attempt, an ended run keeps its status, and a run that has started is not pending again.
    """
    # Computed from the whole history, and not stored when an event arrives: the marks must not depend on the
    # order of arrival. A step after an inferred transition is no anomaly, because the inference was wrong,
    # not the run.
    marked: list[Transition] = []
    before: Transition | None = None
    for line in history:
        anomaly = (
            before is not None
            and not before.inferred
            and before.attempt == line.attempt
            and before.status is not line.status
            and (before.status.is_terminal or line.status is RunStatus.PENDING)
        )
        marked.append(line if anomaly == line.anomaly else replace(line, anomaly=anomaly))
        before = line
    return tuple(marked)


def annotated(history: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return *history* with what follows from its order: anomalies, durations, and answers to pauses."""
    marked = mark_anomalies(history)
    lines: list[Transition] = []
    before: Transition | None = None
    for line, after in zip(marked, (*marked[1:], None), strict=False):
        # Every later state repeats the answer. Only the first one after the pause is shown with it, and one
        # that beats a default: somebody has answered, before or after the default was taken.
        beats = before is not None and before.inferred and _answer(before) not in (_NOBODY, _answer(line))
        is_answer = before is not None and (before.status is RunStatus.PAUSED or beats)
        shown = line if is_answer else _without_answer(line)
        lasted = max(after.occurred_at - line.occurred_at, timedelta(0)) if after else None
        lines.append(replace(shown, lasted=lasted))
        before = shown
    return tuple(lines)


def _answer(line: Transition) -> tuple[str | None, str | None, str | None, str | None]:
    return line.answered_by, line.choice, line.comment, line.values_text


def _without_answer(line: Transition) -> Transition:
    return replace(line, answered_by=None, choice=None, comment=None, values_text=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHead:
    """All that is known of a run but its payload. It is enough to decide what becomes of another event."""

    version: Version
    """The version of the newest event."""
    status: RunStatus
    history: tuple[Transition, ...]
    """The newest `MAX_HISTORY` transitions in version order."""
    counted: Counted = NOT_COUNTED
    """What the workflow's summary counts of the newest state."""
    digest: str | None = None
    """The `run_digest` of the newest state, which of progress has when it occurred, too; None if a version
    without digests stored it."""
    steps: tuple[Step, ...] = ()
    """The run's newest steps, in the order of their versions."""

    @property
    def is_progress(self) -> bool:
        """Whether the newest event is no transition."""
        return not self.history or self.history[-1].version != self.version

    @property
    def shown_steps(self) -> tuple[Step, ...]:
        """The steps in the order in which they started; a running one that the run has outlived is cancelled.

        That is each one where the run has ended, and what was last heard of before the attempt began.
        """
        newest = self.version.attempt
        own = [line.version.hlc for line in self.history if line.attempt == newest]
        if self.status.is_terminal:
            alive_since = MAX_HLC
        else:
            alive_since = min(own, default=self.version.hlc) if newest > 1 else 0
        return in_order(outlived(step, alive_since) for step in self.steps)

    def saved(self, event: RunEvent, *, clock: HybridLogicalClock) -> RunEvent:
        """Return *event*, which a save of this process made, with a version after the stored one.

        If the event is stored already, it is returned with its stored version. Raises as `later_than` does.
        """
        for transition in self.history:
            version = transition.version
            # The answer to its commit was lost, and the retry stamped it once more. A second stamp would make
            # it another transition.
            if (version.attempt, version.event_id) == (event.run.attempt, event.event_id):
                return event.model_copy(update={"hlc": version.hlc})
        return event.later_than(self.version, clock=clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedRun:
    """All that a projection has of a run. It is enough to merge the run into another projection."""

    event: RunEvent
    """The newest event."""
    history: tuple[Transition, ...]
    """The transitions as stored. None is later than the event."""
    steps: tuple[Step, ...] = ()
    """The steps as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsDelta:
    """How a workflow's stats change. Changes add up, so a batch is one change."""

    total: int = 0
    """Distinct runs."""
    successful: int = 0
    """Runs whose newest state is success. It may be negative, as the next ones may."""
    by_status: Mapping[RunStatus, int] = field(default_factory=dict[RunStatus, int])
    """Runs in each status. Statuses that do not change are absent."""

    @classmethod
    def between(cls, before: RunStatus | None, after: RunStatus) -> StatsDelta:
        """Return the change when a run goes from *before* (None for a new run) to *after*."""
        if before is after:
            return cls()
        by_status = {after: 1} if before is None else {after: 1, before: -1}
        return cls(
            total=int(before is None),
            successful=by_status.get(RunStatus.SUCCESS, 0),
            by_status=by_status,
        )

    @classmethod
    def sum(cls, deltas: Iterable[StatsDelta]) -> StatsDelta:
        """Return the sum of *deltas*."""
        total = successful = 0
        by_status = Counter[RunStatus]()
        for delta in deltas:
            total += delta.total
            successful += delta.successful
            by_status.update(delta.by_status)
        return cls(
            total=total,
            successful=successful,
            by_status={status: count for status, count in by_status.items() if count},
        )

    def __add__(self, other: StatsDelta) -> StatsDelta:
        """Return the sum of both changes."""
        return StatsDelta.sum((self, other))

    def __bool__(self) -> bool:
        """Return whether anything changes."""
        return bool(self.total or self.successful or self.by_status)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What one batch of events does to one run."""

    before: RunHead | None
    """None for a new run."""
    after: RunHead
    winner: RunEvent | None
    """The event whose state is to be stored; None if the stored state stays."""
    added: tuple[Transition, ...]
    """Transitions to store, in version order, always the winner's too; empty if nothing changes."""
    outcomes: tuple[Outcome, ...]
    """One for each event, in the given order."""
    horizon: Horizon | None = None
    """The days that were counted; None for none."""

    @property
    def is_news(self) -> bool:
        """Whether anything is to be stored."""
        return bool(self.added) or self.winner is not None or self.adds_steps

    @property
    def adds_steps(self) -> bool:
        """Whether the run's steps change."""
        return self.after.steps != (self.before.steps if self.before else ())

    @property
    def latest(self) -> datetime:
        """When the latest of what is added occurred."""
        moments = [transition.occurred_at for transition in self.added]
        return max([*moments, self.winner.occurred_at] if self.winner else moments)

    @property
    def delta(self) -> StatsDelta:
        """How the workflow's stats change."""
        return StatsDelta.between(self.before.status if self.before else None, self.after.status)

    @property
    def counters(self) -> dict[SummaryCounter, int]:
        """How the workflow's summary changes. Counters that do not change are absent."""
        before, after = self.before, self.after
        if before is not None and (before.status, before.counted) == (after.status, after.counted):
            return {}
        changes = dict(counters_of(after.status, after.counted, self.horizon))
        if before is not None:
            gone = counters_of(before.status, before.counted, self.horizon)
            add_counters(changes, {counter: -count for counter, count in gone})
        return changes

    @property
    def anomalies(self) -> int:
        """How many of the added transitions break the state machine, in the history as it is now."""
        # A run's first transition is never an anomaly, and most changes bring only that one.
        if len(self.after.history) == 1 or not self.added:
            return 0
        added = {transition.version for transition in self.added}
        return sum(line.anomaly and line.version in added for line in mark_anomalies(self.after.history))


def fold(
    before: RunHead | None,
    events: Sequence[RunEvent],
    *,
    earlier: Sequence[Transition] = (),
    earlier_steps: Sequence[Step] = (),
    horizon: Horizon | None = None,
    digest: Callable[[RunEvent], str] = _digest,
) -> RunChange:
    """Merge *events* of one run, in any order and with repeats, into what is known of the run.

    Folding the `FoldedRun` of some events, with its history as *earlier* and its steps as *earlier_steps*,
    changes the head as folding those events does.

    Args:
        before: The run's stored head; None for a new run.
        events: At least one event.
        earlier: Transitions of events that one of *events* has superseded and that are no longer known.
        earlier_steps: Likewise their steps.
        horizon: The days and hours whose runs are counted; None for none.
        digest: Returns the `run_digest` of an event's run, for a caller that has computed it.
    """
    newest_version = before.version if before else None
    newest_digest = before.digest if before else None
    history = before.history if before else ()
    steps = before.steps if before else ()
    winner: RunEvent | None = None
    outcomes: list[Outcome] = []
    for event in events:
        transition = Transition.of(event)
        outcome = _outcome(newest_version, history, transition, is_transition=event.is_transition)
        if outcome is None:
            # The two differ at most in what a transition does not tell. If no digest was stored, the stored
            # event is taken to be this one: a repeat is likely, and a faulty publisher is not.
            newest_digest = _content(winner, digest) if winner is not None else newest_digest
            is_news = newest_digest is not None and _content(event, digest) > newest_digest
            outcome = Outcome.APPLIED if is_news else Outcome.DUPLICATE
        outcome, steps = _with_steps(outcome, steps, event.steps)
        outcomes.append(outcome)
        if outcome is Outcome.DUPLICATE:
            continue
        if event.is_transition:
            history = newest((*history, transition))
        if outcome is Outcome.APPLIED:
            winner, newest_version = event, transition.version
    if earlier:
        # The earlier history has only its newest transitions. The dropped ones are older than `MAX_HISTORY`
        # others, so they are not among the newest of both either.
        history = newest((*history, *earlier))
    steps = joined_steps(steps, earlier_steps) if earlier_steps else steps
    if winner is not None:
        after = RunHead(
            version=winner.version,
            status=winner.status,
            history=history,
            counted=Counted.of(winner.run, horizon),
            digest=_content(winner, digest),
            steps=steps,
        )
    elif before is not None:
        after = replace(before, history=history, steps=steps)
    else:
        raise ValueError("fold() needs at least one event")
    return RunChange(
        before=before,
        after=after,
        winner=winner,
        added=_added(before, after, winner),
        outcomes=tuple(outcomes),
        horizon=horizon,
    )


def _outcome(
    newest_version: Version | None,
    history: Sequence[Transition],
    transition: Transition,
    *,
    is_transition: bool,
) -> Outcome | None:
    """Return what becomes of an event; None if only its content can differ from that of the newest event."""
    version = transition.version
    if newest_version is None or version > newest_version:
        return Outcome.APPLIED
    known = next((line for line in reversed(history) if line.version == version), None)
    if not is_transition:
        # Superseded, it leaves nothing. Of one version, a transition beats it.
        return None if version == newest_version and known is None else Outcome.DUPLICATE
    if known is None:
        return Outcome.APPLIED if version == newest_version else Outcome.STALE
    if known.rank == transition.rank:
        return None if version == newest_version else Outcome.DUPLICATE
    if known.rank > transition.rank:
        return Outcome.DUPLICATE
    return Outcome.APPLIED if version == newest_version else Outcome.STALE


def _with_steps(
    outcome: Outcome, steps: tuple[Step, ...], more: Sequence[Step]
) -> tuple[Outcome, tuple[Step, ...]]:
    """Return what becomes of an event that has *more* steps, and the steps joined."""
    if not more:
        return outcome, steps
    joined = joined_steps(steps, more)
    # A late event of another process may bring steps that nobody else knows.
    return (Outcome.STALE if outcome is Outcome.DUPLICATE and joined != steps else outcome), joined


def _added(before: RunHead | None, after: RunHead, winner: RunEvent | None) -> tuple[Transition, ...]:
    """Return the transitions of *after* that *before* does not have, and always the winner's."""
    known = {line.version: line for line in before.history} if before else {}
    stated = winner.version if winner is not None else None
    return tuple(line for line in after.history if line.version == stated or known.get(line.version) != line)


def by_run(events: Iterable[RunEvent]) -> dict[RunKey, list[int]]:
    """Return the positions of each run's events among *events*, in order."""
    positions: dict[RunKey, list[int]] = {}
    for position, event in enumerate(events):
        positions.setdefault(event.key, []).append(position)
    return positions


def count_statuses(statuses: Iterable[RunStatus]) -> StatsDelta:
    """Return the stats of distinct runs with these statuses: the recount that stored stats must equal."""
    return StatsDelta.sum(StatsDelta.between(None, status) for status in statuses)
