"""Firestore as far as a projection sees it: atomic commits under preconditions, and every fault it has."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from run_log.core import RunEvent, RunStatus, StoreUnavailableError, Version, WriteRefusedError
from run_log.core.counters import Horizon, SummaryCounter, add_counters, counters_of
from run_log.core.errors import GuessRefusedError
from run_log.core.models import RunKey
from run_log.core.stats import count_statuses
from run_log.core.steps import joined_steps
from run_log.stores.committing.commits import Commit, KnownRun, RunWrite
from run_log.stores.stored.fields import EXPIRE_AT, HISTORY, PROJECTION, STEPS
from run_log.stores.stored.reading import head_from_fields, is_expired
from run_log.testing import a_run

from .process import Process
from .record import Record, ViolationError

_T = TypeVar("_T")

TODAY = a_run().started_at
"""The time in the simulation as far as summaries know: theirs are counted by day and hour."""

NOW_MICROS = int(TODAY.timestamp()) * 1_000_000
"""That time as a clock reads it."""

KEPT_DAYS = 30
"""For so long ended runs are kept."""

REFUSED = "refused"
"""Runs whose id begins so are refused for good."""


@dataclass(frozen=True)
class Document:
    """A run's document."""

    key: RunKey
    fields: Mapping[str, Any]
    projection: Mapping[str, Any]
    history: tuple[str, ...]
    steps: tuple[str, ...]
    expires_at: datetime | None
    mark: int

    @property
    def version(self) -> Version:
        """The version of the state it holds."""
        projection = self.projection
        return Version(projection["attempt"], projection["hlc"], projection["event_id"])

    @functools.cached_property
    def known(self) -> KnownRun:
        """What a projector gets to know of it."""
        fields = {
            "status": self.fields["status"],
            EXPIRE_AT: self.expires_at,
            PROJECTION: {**self.projection, HISTORY: list(self.history), STEPS: list(self.steps)},
        }
        return KnownRun(stored=head_from_fields(fields, self.key), mark=self.mark)


class DocumentStore:
    """The documents, and what is checked after every commit."""

    def __init__(self, record: Record) -> None:
        self.runs: dict[RunKey, Document] = {}
        self.deleted: dict[RunKey, Document] = {}
        self.stats: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
        self.counters: defaultdict[str, dict[SummaryCounter, int]] = defaultdict(dict)
        self.announced: dict[str, int] = {}
        self._record = record
        self._marks = itertools.count(1)

    def apply(self, commit: Commit, *, checks_preconditions: bool = True) -> list[int]:
        """Make all of *commit*'s writes or none; return the marks.

        Raises:
            GuessRefusedError: A precondition does not hold.
            WriteRefusedError: A write is refused for good.
            ViolationError: The documents contradict each other afterwards.
        """
        if any(write.key[1].startswith(REFUSED) for write in commit.runs):
            raise WriteRefusedError("too large")
        for write in commit.runs:
            stored = self.runs.get(write.key)
            if checks_preconditions and write.expected != (stored.mark if stored else None):
                self._record.note("guess refused", write.key)
                raise GuessRefusedError("another state")
        for write in commit.runs:
            self._write(write)
        for stats in commit.stats:
            counts = self.stats[stats.workflow_id, stats.shard]
            counts["total"] += stats.delta.total
            counts["successful"] += stats.delta.successful
            for status, count in stats.delta.by_status.items():
                counts[status.value] += count
            add_counters(self.counters[stats.workflow_id], stats.counters)
        for workflow_id, shards in commit.announced.items():
            self.announced[workflow_id] = max(shards, self.announced.get(workflow_id, 1))
        self._record.note("committed", [write.key for write in commit.runs])
        changed = [*(write.key[0] for write in commit.runs), *(stats.workflow_id for stats in commit.stats)]
        for workflow_id in dict.fromkeys(changed):
            self.check(workflow_id)
        return [self.runs[write.key].mark for write in commit.runs]

    def expire(self) -> None:
        """Have all that is there be about to be deleted."""
        for key, document in self.runs.items():
            self.runs[key] = dataclasses.replace(document, expires_at=TODAY)

    def delete_expired(self, chance: random.Random) -> None:
        """Delete some of what has expired, as Firestore does by and by."""
        for key, document in list(self.runs.items()):
            if is_expired(document.expires_at, TODAY) and chance.random() < 0.5:
                self._record.note("expired", key)
                self.deleted[key] = self.runs.pop(key)

    def check(self, workflow_id: str) -> None:
        """Check a workflow's stats against a recount, as a reader adds them up; what is deleted counts.

        Raises:
            ViolationError: They differ.
        """
        statuses = [RunStatus(document.fields["status"]) for document in self._ever(workflow_id)]
        recount = count_statuses(statuses)
        expected = {"total": recount.total, "successful": recount.successful}
        expected |= {status.value: count for status, count in recount.by_status.items()}
        shards = self.announced.get(workflow_id, 1)
        summed: Counter[str] = Counter()
        for shard in range(shards):
            summed.update(self.stats[workflow_id, shard])
        found = {name: count for name, count in summed.items() if count}
        if found != {name: count for name, count in expected.items() if count}:
            raise ViolationError(f"stats of {workflow_id} are {found}, a recount gives {expected}")
        self._check_counters(workflow_id)

    def _check_counters(self, workflow_id: str) -> None:
        recount: dict[SummaryCounter, int] = {}
        for document in self._ever(workflow_id):
            head = document.known.stored.head
            add_counters(recount, dict(counters_of(head.status, head.counted, Horizon.at(TODAY))))
        found = self.counters[workflow_id]
        if found != recount:
            raise ViolationError(f"the summary of {workflow_id} counts {found}, a recount gives {recount}")

    def _ever(self, workflow_id: str) -> list[Document]:
        both = (*self.runs.values(), *self.deleted.values())
        return [document for document in both if document.key[0] == workflow_id]

    def read(self, keys: Iterable[RunKey]) -> dict[RunKey, KnownRun]:
        """Return what is stored of *keys*."""
        return {key: self.runs[key].known for key in keys if key in self.runs}

    def holds(self, event: RunEvent) -> bool:
        """Return whether all that an event adds is there: its transition, if it is one, and its steps.

        A transition may be older than what is kept of them, and a step may be known in a newer state.
        """
        document = self.runs.get(event.key) or self.deleted.get(event.key)
        if document is None:
            return False
        head, version = document.known.stored.head, event.version
        if joined_steps(head.steps, event.steps) != head.steps:
            return False
        if not event.is_transition:
            return version <= head.version
        versions = [line.version for line in head.history]
        return version in versions or (len(versions) == 50 and version < versions[0])

    def _write(self, write: RunWrite) -> None:
        stored = self.runs.get(write.key)
        fields, projection = write.fields, write.projection
        if fields is None:
            if stored is None:
                raise ViolationError(f"a history without a run: {write.key}")
            fields, projection = stored.fields, stored.projection
        before = () if write.replaces_history or stored is None else stored.history
        history = (*before, *(line for line in write.history if line not in before))
        expires_at = stored.expires_at if write.keeps_expiry and stored else write.expires_at
        steps = tuple(write.steps) if write.steps is not None else stored.steps if stored else ()
        document = Document(write.key, fields, projection, history, steps, expires_at, next(self._marks))
        if write.key in self.deleted:
            raise ViolationError(f"{write.key} has expired, was deleted, and came back")
        if stored is not None and document.version < stored.version:
            raise ViolationError(f"{write.key} went back from {stored.version} to {document.version}")
        self.runs[write.key] = document


class SimulatedDocuments:
    """The store as one process sees it. See `ProjectionDocuments`."""

    def __init__(self, store: DocumentStore, process: Process, chance: random.Random, record: Record) -> None:
        self.store = store
        self._process = process
        self._chance = chance
        self._record = record
        self.faults = 0.0
        """How likely a call fails."""

    async def commit(self, commit: Commit, *, checks_preconditions: bool = True) -> Sequence[Any]:
        """See `ProjectionDocuments.commit`."""
        fault = self._fault("never arrives", "answer lost", "late", "aborted")

        def serve() -> list[int]:
            if fault in {"never arrives", "aborted"}:
                raise StoreUnavailableError(fault)
            marks = self.store.apply(commit, checks_preconditions=checks_preconditions)
            if fault == "answer lost":
                raise StoreUnavailableError(fault)
            return marks

        delay = self._chance.uniform(5, 40) if fault == "late" else 0.0
        return await self._ask(serve, delay)

    async def read(self, keys: Iterable[RunKey]) -> Mapping[RunKey, KnownRun]:
        """See `ProjectionDocuments.read`."""
        fault, wanted = self._fault("never arrives", "late"), list(keys)

        def serve() -> dict[RunKey, KnownRun]:
            if fault == "never arrives":
                raise StoreUnavailableError(fault)
            return self.store.read(wanted)

        return await self._ask(serve, 20.0 if fault == "late" else 0.0)

    async def _ask(self, serve: Callable[[], _T], delay: float) -> _T:
        try:
            return await self._process.ask(serve, delay=delay)
        except TimeoutError as error:
            self._record.note("deadline exceeded", self._process.name)
            raise StoreUnavailableError("deadline exceeded") from error

    def _fault(self, *kinds: str) -> str | None:
        if self._chance.random() >= self.faults:
            return None
        fault = self._chance.choice(kinds)
        self._record.note(f"store: {fault}", self._process.name)
        return fault
