"""The merge law: how events become a run's state, its history and its workflow's stats.

A run's state is its event of greatest version; its history is the set of its transitions, newest first
kept. Both are joins of a semilattice, so merging is commutative, associative and idempotent: duplicates,
any order and any grouping of the events end in the same state.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from ._counters import NOT_COUNTED, Counted, Horizon, SummaryCounter, add_counters, counters_of
from ._events import RunEvent, Version
from ._models import RunKey, RunStatus
from ._payload import encode_json

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
    """The store had it already; nothing changed."""
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
    """Return the newest `MAX_HISTORY` of *transitions*, each once, in version order.

    Args:
        transitions: Transitions of one run, in any order, with repeats.
    """
    unique = {transition.version.event_id: transition for transition in transitions}
    return tuple(sorted(unique.values(), key=lambda transition: transition.version)[-MAX_HISTORY:])


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
    """History to add, in version order; empty where nothing changes."""
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
) -> RunChange:
    """Merge *events* of one run, in any order and with repeats, onto what is known of it.

    Folding the `FoldedRun` of some events, its history as *earlier*, does to the head what folding those
    events does: what is dropped of a run that has many is not among the newest of all either.

    Args:
        before: The run's head as stored; None for a run not seen before.
        events: At least one event, all of the same run.
        earlier: Transitions by events that one of *events* has superseded, of which no more is known.
        horizon: The days and hours whose runs are counted; None for none.
    """
    newest_version = before.version if before else None
    history = before.history if before else ()
    winner: RunEvent | None = None
    outcomes: list[Outcome] = []
    for event in events:
        version = event.version
        outcome = _place(newest_version, history, version)
        outcomes.append(outcome)
        if outcome is Outcome.DUPLICATE:
            continue
        history = newest((*history, Transition.of(event)))
        if outcome is Outcome.APPLIED:
            winner, newest_version = event, version
    if earlier:
        history = newest((*history, *earlier))
    if winner is not None:
        counted = Counted.of(winner.run, horizon)
        after = RunHead(version=winner.version, status=winner.status, history=history, counted=counted)
    elif before is not None:
        after = replace(before, history=history)
    else:
        raise ValueError("fold() needs at least one event")
    known = {transition.version for transition in before.history} if before else set[Version]()
    return RunChange(
        before=before,
        after=after,
        winner=winner,
        added=tuple(transition for transition in history if transition.version not in known),
        outcomes=tuple(outcomes),
        horizon=horizon,
    )


def _place(newest_version: Version | None, history: Sequence[Transition], version: Version) -> Outcome:
    if newest_version is None:
        return Outcome.APPLIED
    if any(transition.version.event_id == version.event_id for transition in history):
        return Outcome.DUPLICATE
    return Outcome.APPLIED if version > newest_version else Outcome.STALE


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
