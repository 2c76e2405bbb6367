"""The embedded run log: no network, no disk, gone with the process."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from run_log.core import (
    PROCESS_CLOCK,
    Outcome,
    Position,
    RunChange,
    RunEvent,
    RunHead,
    RunKey,
    RunStatus,
    Settings,
    StatsDelta,
    Transition,
    UnreadableRunError,
    by_run,
    document_id,
    fold,
)

from ._documents import run_fields, run_from_fields
from ._service import Page, RunLogService, StoredRun
from ._telemetry import skipped_unreadable

MAX_RUNS: Final = 200
"""Runs kept for a workflow. A paused one is never evicted: somebody waits for it."""

MAX_EVICTED: Final = 100_000
"""Evicted runs a workflow remembers the head of, so that one saved again is not counted again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    head: RunHead
    fields: Mapping[str, Any]
    position: Position


@dataclass(slots=True)
class _Workflow:
    runs: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    evicted: OrderedDict[str, RunHead] = field(default_factory=OrderedDict[str, RunHead])
    stats: StatsDelta = field(default_factory=StatsDelta)

    def head(self, run_id: str) -> RunHead | None:
        entry = self.runs.get(run_id)
        return entry.head if entry else self.evicted.get(run_id)

    def write(self, run_id: str, change: RunChange) -> None:
        self.stats += change.delta
        if change.winner is not None:
            self.evicted.pop(run_id, None)
            run = change.winner.run
            self.runs[run_id] = _Entry(
                head=change.after,
                fields=MappingProxyType(run_fields(run)),
                position=Position(run.started_at, document_id(run_id)),
            )
        elif run_id in self.runs:
            self.runs[run_id] = replace(self.runs[run_id], head=change.after)
        self._evict()

    def _evict(self) -> None:
        while len(self.runs) > MAX_RUNS:
            ended = [
                run_id for run_id, entry in self.runs.items() if entry.head.status is not RunStatus.PAUSED
            ]
            # The last one that is not paused stays, or a workflow full of paused runs could hold no other.
            if len(ended) <= 1:
                return
            oldest = min(ended, key=lambda run_id: self.runs[run_id].position)
            head = self.runs.pop(oldest).head
            self.evicted[oldest] = replace(head, history=head.history[-1:])
            if len(self.evicted) > MAX_EVICTED:
                self.evicted.popitem(last=False)


class InMemoryRunLogService(RunLogService):
    """A run log in this process's memory, for development, tests and small embedded use.

    It keeps `MAX_RUNS` runs of each workflow: every paused one, and the newest of the others; stats go on
    counting those that were evicted. Thread-safe, and usable from any event loop.
    """

    def __init__(self) -> None:
        self._workflows: defaultdict[str, _Workflow] = defaultdict(_Workflow)
        self._lock = threading.Lock()

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """See `ProjectionStore.apply`. Durable as long as the process lives."""
        outcomes = [Outcome.DUPLICATE] * len(events)
        with self._lock:
            for (workflow_id, run_id), positions in by_run(events).items():
                workflow = self._workflows[workflow_id]
                change = fold(workflow.head(run_id), [events[position] for position in positions])
                workflow.write(run_id, change)
                for position, outcome in zip(positions, change.outcomes, strict=True):
                    outcomes[position] = outcome
        return outcomes

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    async def _save(self, event: RunEvent) -> None:
        workflow_id, run_id = event.key
        with self._lock:
            workflow = self._workflows[workflow_id]
            head = workflow.head(run_id)
            # What this process made or saw before it made the event is in order already.
            foreign = head is not None and head.version.hlc > PROCESS_CLOCK.last
            latest = event.later_than(head.version) if head and foreign else event
            workflow.write(run_id, fold(head, [latest]))

    async def _page(self, workflow_id: str, after: Position | None, limit: int) -> Page:
        entries = self._sorted(workflow_id, after)
        runs = _readable(entries, limit + 1)
        return Page(runs=runs[:limit], more=len(runs) > limit)

    async def _read(self, workflow_id: str, run_id: str) -> StoredRun | None:
        entry = self._entry(workflow_id, run_id)
        return _stored(entry, (workflow_id, run_id)) if entry else None

    async def _stats(self, workflow_id: str) -> tuple[int, int]:
        with self._lock:
            workflow = self._workflows.get(workflow_id)
            return (workflow.stats.total, workflow.stats.successful) if workflow else (0, 0)

    async def _pending(self) -> Sequence[StoredRun]:
        with self._lock:
            paused = [
                (entry.position.started_at, document_id(workflow_id), entry.position.document_id, entry)
                for workflow_id, workflow in self._workflows.items()
                for entry in workflow.runs.values()
                if entry.head.status is RunStatus.PAUSED
            ]
        paused.sort(key=lambda item: item[:3], reverse=True)
        return _readable([item[3] for item in paused], len(paused))

    async def _latest(self, workflow_id: str) -> StoredRun | None:
        return next(iter(_readable(self._sorted(workflow_id, None), 1)), None)

    async def _history(self, workflow_id: str, run_id: str) -> tuple[Transition, ...]:
        entry = self._entry(workflow_id, run_id)
        return entry.head.history if entry else ()

    def _entry(self, workflow_id: str, run_id: str) -> _Entry | None:
        with self._lock:
            workflow = self._workflows.get(workflow_id)
            return workflow.runs.get(run_id) if workflow else None

    def _sorted(self, workflow_id: str, after: Position | None) -> list[_Entry]:
        with self._lock:
            workflow = self._workflows.get(workflow_id)
            entries = list(workflow.runs.values()) if workflow else []
        left = (entry for entry in entries if after is None or entry.position < after)
        return sorted(left, key=lambda entry: entry.position, reverse=True)

    def __repr__(self) -> str:
        """Return how many runs are kept."""
        return (
            f"InMemoryRunLogService(runs={sum(len(workflow.runs) for workflow in self._workflows.values())})"
        )


def create_service(_settings: Settings) -> InMemoryRunLogService:
    """Return a run log of its own: the back end ``memory`` has nothing to set."""
    return InMemoryRunLogService()


def _readable(entries: Iterable[_Entry], most: int) -> list[StoredRun]:
    runs: list[StoredRun] = []
    for entry in entries:
        if len(runs) == most:
            break
        try:
            runs.append(_stored(entry, (str(entry.fields.get("workflow_id")), str(entry.fields.get("id")))))
        except UnreadableRunError as error:
            skipped_unreadable(error)
    return runs


def _stored(entry: _Entry, key: RunKey) -> StoredRun:
    return StoredRun(run=run_from_fields(entry.fields, key), hlc=entry.head.version.hlc)
