"""The merge law: how events become a run's state, its history and its workflow's stats.

A run's state is its event of greatest version; its history is the set of its transitions, one a version,
newest first kept. Of two different events in one version, which only a faulty publisher makes, the content
decides. Both are joins of a semilattice, so merging is commutative, associative and idempotent: duplicates,
any order and any grouping of the events end in the same state.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from .clock import HybridLogicalClock
from .counters import NOT_COUNTED, Counted, Horizon, SummaryCounter, add_counters, counters_of
from .events import RunEvent, Version
from .models import RunKey, RunStatus, WorkflowRun
from .payload import encode_json

MAX_HISTORY: Final = 50
"""Transitions kept for a run: the newest by version."""

MAX_ANSWERER_BYTES: Final = 128
"""Most bytes, as JSON text, of who answered a pause, in a history."""

_NEXT: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.PENDING: frozenset(RunStatus),
    RunStatus.RUNNING: frozenset(RunStatus) - {RunStatus.PENDING},
    RunStatus.PAUSED: frozenset(RunStatus) - {RunStatus.PENDING},
    RunStatus.SUCCESS: frozenset({RunStatus.SUCCESS}),
    RunStatus.FAILED: frozenset({RunStatus.FAILED}),
    RunStatus.SKIPPED: frozenset({RunStatus.SKIPPED}),
}
"""The state machine within one attempt: an ended run stays as it ended, a started one is not pending."""


class Outcome(enum.StrEnum):
    """What became of one event."""

    APPLIED = "applied"
    """It is (or was, within its batch) the run's newest state."""
    DUPLICATE = "duplicate"
    """The store had it already, or another of its version that goes before it; nothing changed."""
    STALE = "stale"
    """A newer state was there first; the history has it, the state and the stats are as they were."""
    REJECTED = "rejected"
    """The store will never take it; it belongs to the dead letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One line of a run's history: that an event put the run into a status."""

    version: Version
    """Which event."""
    status: RunStatus
    """The status it stated."""
    occurred_at: datetime
    """When, on the emitter's wall clock, in UTC."""
    inferred: bool = False
    """Whether the event was concluded rather than observed."""
    anomaly: bool = False
    """Whether the step into this status breaks the state machine (running after success, say)."""
    answered_by: str | None = None
    """Who answered the pause that the run left by this, its beginning where that is long; None where nobody
    did, or said so."""
    lasted: timedelta | None = None
    """How long the run was in this status, on the emitters' wall clocks; None while it is. Zero where clocks
    differ so much that the next status came before."""

    @property
    def attempt(self) -> int:
        """Which attempt at the run this was of, from 1."""
        return self.version.attempt

    @property
    def rank(self) -> tuple[bool, datetime, bool, str, str]:
        """What decides between two of one version: what was observed, then the later, then the ended one."""
        status = self.status
        return (
            not self.inferred,
            self.occurred_at,
            status.is_terminal,
            status.value,
            self.answered_by or "",
        )

    @classmethod
    def of(cls, event: RunEvent) -> Transition:
        """Return the transition that *event* states, as it is stored: without what its neighbours tell."""
        pause = event.run.pause
        return cls(
            version=event.version,
            status=event.status,
            occurred_at=event.occurred_at,
            inferred=event.inferred,
            answered_by=_short(pause.answered_by) if pause and event.status is not RunStatus.PAUSED else None,
        )


def _short(text: str | None) -> str | None:
    while text and len(encode_json(text)) > MAX_ANSWERER_BYTES:
        text = f"{text[: len(text) * 3 // 4 - 1]}…"
    return text or None


def newest(transitions: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return the newest `MAX_HISTORY` of *transitions*, one a version, in version order.

    Args:
        transitions: Transitions of one run, in any order, with repeats.
    """
    unique: dict[Version, Transition] = {}
    for transition in transitions:
        known = unique.setdefault(transition.version, transition)
        if known is not transition and known.rank < transition.rank:
            unique[transition.version] = transition
    return tuple(sorted(unique.values(), key=lambda transition: transition.version)[-MAX_HISTORY:])


def run_digest(run: WorkflowRun, payloads: tuple[str, str] | None = None) -> str:
    """Return a digest of what an event says of a run that its transition does not: equal for equal states.

    Args:
        run: The run.
        payloads: Its trigger data and its result as `encode_json` makes them; None makes them.
    """
    told: dict[str, object] = {
        "trigger_type": run.trigger_type.value,
        "error": run.error,
        "started_at": run.started_at.isoformat(),
        "completed_at": run.completed_at and run.completed_at.isoformat(),
        "duration_ms": float(run.duration_ms),
        "pause": run.pause and {name: value for name, value in run.pause if value is not None},
    }
    # What is absent leaves no trace, so that a field that comes later changes no digest that is stored.
    scalars = encode_json({name: value for name, value in told.items() if value is not None})
    digest = hashlib.blake2b(scalars.encode(), digest_size=15)
    for payload in payloads or (encode_json(run.trigger_data), encode_json(run.result)):
        digest.update(b"\n")
        digest.update(payload.encode())
    return base64.b64encode(digest.digest()).decode()


def _digest(event: RunEvent) -> str:
    return run_digest(event.run)


def newest_event(events: Iterable[RunEvent]) -> RunEvent:
    """Return that of *events*, at least one and all of one run, whose state the run has after them."""
    newest: RunEvent | None = None
    for event in events:
        if newest is None or event.version > newest.version:
            newest = event
        elif event.version == newest.version and event is not newest:
            one, other = ((Transition.of(each).rank, _digest(each)) for each in (newest, event))
            newest = newest if one >= other else event
    if newest is None:
        raise ValueError("newest_event() needs at least one event")
    return newest


def is_anomaly(before: RunStatus, after: RunStatus) -> bool:
    """Return whether a run in one attempt cannot go from *before* to *after*."""
    return after not in _NEXT[before]


def mark_anomalies(history: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return *history* with every transition marked that breaks the state machine.

    Derived from the whole ordered history, so the marks do not depend on the order of arrival. What
    comes after an inferred transition is none: the inference was wrong, not the run.

    Args:
        history: Transitions of one run in version order.
    """
    marked: list[Transition] = []
    for transition in history:
        before = marked[-1] if marked else None
        anomaly = (
            before is not None
            and not before.inferred
            and before.version.attempt == transition.version.attempt
            and is_anomaly(before.status, transition.status)
        )
        marked.append(transition if anomaly == transition.anomaly else replace(transition, anomaly=anomaly))
    return tuple(marked)


def annotated(history: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return *history* with all that follows from its order: anomalies, durations, and who answered a pause.

    Args:
        history: Transitions of one run in version order, as stored.
    """
    marked = mark_anomalies(history)
    return tuple(
        replace(
            transition,
            lasted=max(after.occurred_at - transition.occurred_at, timedelta(0)) if after else None,
            # Every later state of the run repeats the answer.
            answered_by=transition.answered_by if before and before.status is RunStatus.PAUSED else None,
        )
        for before, transition, after in zip((None, *marked), marked, (*marked[1:], None), strict=False)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHead:
    """What is needed to place another event of a run: everything but its payload."""

    version: Version
    """Of the newest event."""
    status: RunStatus
    """The newest event's."""
    history: tuple[Transition, ...]
    """The newest `MAX_HISTORY` transitions in version order."""
    counted: Counted = NOT_COUNTED
    """What of its newest state is counted in the workflow's summary."""
    digest: str | None = None
    """Of the newest event's state, by `run_digest`; None where what stored it did not know of digests."""

    def saved(self, event: RunEvent, *, clock: HybridLogicalClock) -> RunEvent:
        """Return *event*, a save's, stamped after all there is; as it is stored where it is there already.

        Args:
            event: One whose id is its own: this process made it.
            clock: Stamps it.

        Raises:
            WriteRefusedError: See `RunEvent.later_than`.
        """
        for transition in self.history:
            version = transition.version
            # The answer to its commit was lost, and it was stamped anew for that.
            if (version.attempt, version.event_id) == (event.run.attempt, event.event_id):
                return event.model_copy(update={"hlc": version.hlc})
        return event.later_than(self.version, clock=clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedRun:
    """All that a projection holds of a run: enough to merge it into another projection."""

    event: RunEvent
    """Its newest event."""
    history: tuple[Transition, ...]
    """Its transitions, as stored; none is later than the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsDelta:
    """How a workflow's stats change. Adds up, so a batch is one change."""

    total: int = 0
    """Distinct runs more."""
    successful: int = 0
    """Runs more whose newest state is success; may be negative."""
    by_status: Mapping[RunStatus, int] = field(default_factory=dict[RunStatus, int])
    """Runs more in each status; statuses that do not change are absent."""

    @classmethod
    def between(cls, before: RunStatus | None, after: RunStatus) -> StatsDelta:
        """Return the change when a run goes from *before* (None: not there yet) to *after*."""
        if before is after:
            return cls()
        by_status = {after: 1} if before is None else {after: 1, before: -1}
        return cls(
            total=int(before is None),
            successful=int(after is RunStatus.SUCCESS) - int(before is RunStatus.SUCCESS),
            by_status=by_status,
        )

    @classmethod
    def sum(cls, deltas: Iterable[StatsDelta]) -> StatsDelta:
        """Return all the changes as one."""
        total = successful = 0
        by_status: dict[RunStatus, int] = {}
        for delta in deltas:
            total += delta.total
            successful += delta.successful
            for status, count in delta.by_status.items():
                by_status[status] = by_status.get(status, 0) + count
        return cls(
            total=total,
            successful=successful,
            by_status={status: count for status, count in by_status.items() if count},
        )

    def __add__(self, other: StatsDelta) -> StatsDelta:
        """Return both changes as one."""
        return StatsDelta.sum((self, other))

    def __bool__(self) -> bool:
        """Return whether anything changes."""
        return bool(self.total or self.successful or self.by_status)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What one batch of events does to one run."""

    before: RunHead | None
    """The head the events were folded onto; None for a run not seen before."""
    after: RunHead
    """The head afterwards."""
    winner: RunEvent | None
    """The event whose state is to be stored; None where the stored state stays."""
    added: tuple[Transition, ...]
    """History to add, in version order, the winner's always; empty where nothing changes."""
    outcomes: tuple[Outcome, ...]
    """One for each event, in the order given."""
    horizon: Horizon | None = None
    """The days that were counted when it was made; None for none."""

    @property
    def delta(self) -> StatsDelta:
        """How the workflow's stats change."""
        return StatsDelta.between(self.before.status if self.before else None, self.after.status)

    @property
    def counters(self) -> dict[SummaryCounter, int]:
        """How the workflow's summary changes; counters that stay are absent."""
        before, after = self.before, self.after
        if before is not None and (before.status, before.counted) == (after.status, after.counted):
            return {}
        changes = dict(counters_of(after.status, after.counted, self.horizon))
        if before is not None and before.counted != NOT_COUNTED:
            gone = counters_of(before.status, before.counted, self.horizon)
            add_counters(changes, {counter: -count for counter, count in gone})
        return changes

    @property
    def anomalies(self) -> int:
        """How many of the added transitions break the state machine, as the history stands now."""
        if len(self.after.history) == 1 or not self.added:
            return 0
        added = {transition.version for transition in self.added}
        return sum(
            transition.anomaly and transition.version in added
            for transition in mark_anomalies(self.after.history)
        )


def fold(
    before: RunHead | None,
    events: Sequence[RunEvent],
    *,
    earlier: Sequence[Transition] = (),
    horizon: Horizon | None = None,
    digest: Callable[[RunEvent], str] = _digest,
) -> RunChange:
    """Merge *events* of one run, in any order and with repeats, onto what is known of it.

    Folding the `FoldedRun` of some events, its history as *earlier*, does to the head what folding those
    events does: what is dropped of a run that has many is not among the newest of all either.

    Args:
        before: The run's head as stored; None for a run not seen before.
        events: At least one event, all of the same run.
        earlier: Transitions by events that one of *events* has superseded, of which no more is known.
        horizon: The days and hours whose runs are counted; None for none.
        digest: The `run_digest` of an event's run, for who has it at hand.
    """
    newest_version = before.version if before else None
    newest_digest = before.digest if before else None
    history = before.history if before else ()
    winner: RunEvent | None = None
    outcomes: list[Outcome] = []
    for event in events:
        transition = Transition.of(event)
        outcome = _place(newest_version, history, transition)
        if outcome is None:
            # All that the history tells is the same. Where nobody knows what was stored, it was this.
            newest_digest = digest(winner) if winner is not None else newest_digest
            is_news = newest_digest is not None and digest(event) > newest_digest
            outcome = Outcome.APPLIED if is_news else Outcome.DUPLICATE
        outcomes.append(outcome)
        if outcome is Outcome.DUPLICATE:
            continue
        history = newest((*history, transition))
        if outcome is Outcome.APPLIED:
            winner, newest_version = event, transition.version
    if earlier:
        history = newest((*history, *earlier))
    if winner is not None:
        after = RunHead(
            version=winner.version,
            status=winner.status,
            history=history,
            counted=Counted.of(winner.run, horizon),
            digest=digest(winner),
        )
    elif before is not None:
        after = replace(before, history=history)
    else:
        raise ValueError("fold() needs at least one event")
    known = {transition.version: transition for transition in before.history} if before else {}
    stated = winner.version if winner is not None else None
    return RunChange(
        before=before,
        after=after,
        winner=winner,
        added=tuple(
            transition
            for transition in history
            if transition.version == stated or known.get(transition.version) != transition
        ),
        outcomes=tuple(outcomes),
        horizon=horizon,
    )


def _place(
    newest_version: Version | None, history: Sequence[Transition], transition: Transition
) -> Outcome | None:
    """Return what becomes of an event; None where it is like the newest in all that its transition tells."""
    version = transition.version
    if newest_version is None or version > newest_version:
        return Outcome.APPLIED
    known = next((line for line in reversed(history) if line.version == version), None)
    if known is None:
        return Outcome.STALE
    if known.rank == transition.rank:
        return None if version == newest_version else Outcome.DUPLICATE
    if known.rank > transition.rank:
        return Outcome.DUPLICATE
    return Outcome.APPLIED if version == newest_version else Outcome.STALE


def by_run(events: Iterable[RunEvent]) -> dict[RunKey, list[int]]:
    """Return, for each run that *events* are about, the positions of its events in order.

    Args:
        events: Events of any runs.
    """
    positions: dict[RunKey, list[int]] = {}
    for position, event in enumerate(events):
        positions.setdefault(event.key, []).append(position)
    return positions


def count_statuses(statuses: Iterable[RunStatus]) -> StatsDelta:
    """Return the stats of runs with these statuses: the recount that stored stats have to equal.

    Args:
        statuses: The status of each distinct run.
    """
    return StatsDelta.sum(StatsDelta.between(None, status) for status in statuses)
