"""The work of an import: batches of what is found, into a store, and what became of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

from run_log.core import (
    DeadLetterReason,
    EventDecodeError,
    Outcome,
    RunEvent,
    RunStatus,
    WorkflowRun,
    utc_now,
)
from run_log.core.payload import encode_json
from run_log.core.wire import check_stamp
from run_log.projector.projector import Projector
from run_log.projector.rebuild.work import Reject, RejectsFile
from run_log.stores import ProjectionStore, WorkflowStats
from run_log.stores.retention import Retention

from .errors import LeftOut
from .found import Found

BATCH: Final = 500
"""Rows that are read, and written, together: as many as SQLite writes in one transaction."""

BATCH_CHARACTERS: Final = 20_000_000
"""Of rows that are larger than usual, fewer are read together."""

MOST_REASONS: Final = 50
EXAMPLES: Final = 3
FIRST: Final = 5

EXPIRED: Final = "it ended longer ago than RUN_LOG_RETENTION_DAYS"
AHEAD: Final = "it is stamped more than a day ahead"
REFUSED: Final = "the run log refuses it"
OTHER: Final = "another reason"


@dataclass(slots=True, kw_only=True)
class Reason:
    """A reason for which something was left out."""

    count: int = 0
    examples: list[str] = field(default_factory=list[str])
    """The first of them: the place, and what exactly is wrong."""


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What an import has found so far, and what became of it."""

    rows: int = 0
    """Rows or documents read, also those that were left out."""
    outcomes: Counter[Outcome] = field(default_factory=Counter[Outcome])
    """Runs by what became of them; none in a dry run."""
    workflows: dict[str, Counter[RunStatus]] = field(default_factory=dict[str, Counter[RunStatus]])
    """Runs by workflow and status."""
    first: list[WorkflowRun] = field(default_factory=list[WorkflowRun])
    """The first runs, as they would be."""
    left_out: dict[str, Reason] = field(default_factory=dict[str, Reason])
    """What was left out, by reason."""
    without: Counter[str] = field(default_factory=Counter[str])
    """What of runs could not be read, or was assumed, and of how many."""
    complete: bool = False
    """Whether all was read."""

    @property
    def rejects(self) -> int:
        """How many rows were left out for another reason than their age."""
        return sum(reason.count for name, reason in self.left_out.items() if name != EXPIRED)

    @property
    def stats(self) -> list[WorkflowStats]:
        """Its runs by workflow and status, the largest workflow first."""
        counts = sorted(self.workflows.items(), key=lambda each: (-each[1].total(), each[0]))
        return [
            WorkflowStats(
                workflow_id=workflow_id,
                total=by_status.total(),
                successful=by_status[RunStatus.SUCCESS],
                by_status=by_status,
            )
            for workflow_id, by_status in counts
        ]

    def leave_out(self, place: str, why: LeftOut) -> None:
        """Count what is left out."""
        # A reason may name a word of the source, and there may be any number of words.
        known = why.reason in self.left_out or len(self.left_out) < MOST_REASONS
        reason = self.left_out.setdefault(why.reason if known else OTHER, Reason())
        reason.count += 1
        if len(reason.examples) < EXAMPLES:
            detail = str(why).removeprefix(why.reason).removeprefix(": ") if known else str(why)
            reason.examples.append(f"{place}: {detail}" if detail else place)

    def take(self, found: Found, event: RunEvent) -> None:
        """Count a run that is imported."""
        self.workflows.setdefault(event.run.workflow_id, Counter())[event.run.status] += 1
        self.without.update(found.without)
        if len(self.first) < FIRST:
            self.first.append(event.run)


async def import_runs(
    batches: AsyncGenerator[Sequence[Found]],
    store: ProjectionStore | None,
    report: ImportReport,
    *,
    stop: asyncio.Event,
    retention_days: int | None = None,
    rejects: RejectsFile | None = None,
    now: Callable[[], datetime] = utc_now,
) -> None:
    """Merge what *batches* bring into *store*, until they end or *stop* is set.

    Everything may be imported again, after a kill too: what is there changes nothing.

    Args:
        batches: What is found; closed at the end.
        store: The run log; None writes nothing, a dry run.
        report: What becomes of it, as it goes on.
        stop: Ends the work after the batch in hand.
        retention_days: How long ended runs are kept: older ones are left out. None keeps all.
        rejects: Keeps what is left out; None only counts it.
        now: The time.

    Raises:
        StoreError: See `Projector.apply`.
        RunLogError: The source cannot be read.
    """
    retention = Retention.of_days(retention_days)
    projector = None if store is None else Projector(store)

    def leave_out(found: Found, why: LeftOut) -> None:
        report.leave_out(found.place, why)
        if rejects is not None:
            rejects.add(Reject(found.place, DeadLetterReason.INVALID_EVENT, str(why), _body(found)))

    async with aclosing(batches):
        async for batch in batches:
            taken: list[tuple[Found, RunEvent]] = []
            for found in batch:
                report.rows += 1
                try:
                    taken.append((found, _checked(found, retention, now())))
                except LeftOut as why:
                    leave_out(found, why)
            projected = await projector.project([event for _, event in taken]) if projector else []
            for number, (found, event) in enumerate(taken):
                result = projected[number] if projected else None
                if result is not None and result.error is not None:
                    leave_out(found, LeftOut(REFUSED, str(result.error)))
                    continue
                report.take(found, event)
                if result is not None:
                    report.outcomes[result.outcome] += 1
            if stop.is_set():
                return
    report.complete = True


def _checked(found: Found, retention: Retention | None, now: datetime) -> RunEvent:
    if isinstance(found.what, LeftOut):
        raise found.what
    event = found.what
    if retention is not None and retention.is_over([event], now):
        raise LeftOut(EXPIRED)
    try:
        check_stamp(event, now)
    except EventDecodeError as error:
        raise LeftOut(AHEAD, event.occurred_at.isoformat()) from error
    return event


def _body(found: Found) -> bytes:
    if isinstance(found.record, bytes):
        return found.record
    record = found.what.run.to_json() if isinstance(found.what, RunEvent) else found.record
    return b"" if record is None else encode_json(record).encode()


async def batches_of(found: Generator[Found], *, size: int = BATCH) -> AsyncGenerator[Sequence[Found]]:
    """Yield what a source finds in batches. It is read in a thread, for files and databases block."""
    with closing(found):
        while batch := await asyncio.to_thread(_batch, found, size):
            yield batch


def _batch(found: Generator[Found], size: int) -> list[Found]:
    batch: list[Found] = []
    characters = 0
    for each in islice(found, size):
        batch.append(each)
        characters += each.size
        if characters > BATCH_CHARACTERS:
            break
    return batch
