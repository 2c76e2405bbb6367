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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from .clock import MAX_HLC, HybridLogicalClock, micros_of
from .counters import NOT_COUNTED, Counted, Horizon, SummaryCounter, add_counters, counters_of
from .events import RunEvent, Version
from .history import Transition, mark_anomalies, newest
from .models import RunKey, RunStatus, WorkflowRun
from .payload import encode_json
from .stats import StatsDelta
from .steps import Step, in_order, joined_steps, outlived


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
        own = [line.began for line in self.history if line.attempt == newest]
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
    after = _head(before, winner, history, steps, horizon, digest)
    return RunChange(
        before=before,
        after=after,
        winner=winner,
        added=_added(before, after, winner),
        outcomes=tuple(outcomes),
        horizon=horizon,
    )


def _head(
    before: RunHead | None,
    winner: RunEvent | None,
    history: tuple[Transition, ...],
    steps: tuple[Step, ...],
    horizon: Horizon | None,
    digest: Callable[[RunEvent], str],
) -> RunHead:
    """Return the head with this history and these steps: the state of *winner*, or that of *before*."""
    if winner is not None:
        return RunHead(
            version=winner.version,
            status=winner.status,
            history=history,
            counted=Counted.of(winner.run, horizon),
            digest=_content(winner, digest),
            steps=steps,
        )
    if before is None:
        raise ValueError("fold() needs at least one event")
    return replace(before, history=history, steps=steps)


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
