"""A recount of a workflow's runs against what is stored, and the repair of what differs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from run_log.core import StoreError, StoreUnavailableError
from run_log.stores.stored.reading import id_at

from ._figures import (
    CountName,
    Recount,
    checked_horizon,
    delta_of,
    differing,
    expected_figures,
    stored_figures,
)
from .port import Audit, CountsRepair, StoredCounts, WorkflowSnapshot, chosen_workflows, run_record

MAX_LISTED_RUNS: Final = 1_000
"""Runs listed of a workflow that something is wrong with; the others are only counted."""

MAX_RECOUNTS: Final = 10
"""How often a workflow is counted anew when somebody else has repaired it meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountFinding:
    """A stored count that differs from a recount."""

    count: CountName
    stored: int
    recounted: int
    """What it should be: as many as the runs give, or more where some runs may have been deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinding:
    """A run document that cannot be read, or contradicts itself. A repair leaves it alone."""

    run_id: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found out about one workflow."""

    workflow_id: str
    runs: int = 0
    """How many run documents it has."""
    counts: Sequence[CountFinding] = ()
    """The counts that were wrong."""
    run_findings: Sequence[RunFinding] = ()
    """The first `MAX_LISTED_RUNS`."""
    unlisted: int = 0
    """How many more there are."""
    problem: str | None = None
    """Why the stored counts cannot be read, recounted or repaired; None where they can."""
    repaired: bool = False
    """Whether `counts` have been put right."""

    @property
    def differs(self) -> bool:
        """Whether anything is wrong still."""
        return bool((self.counts and not self.repaired) or self.run_findings or self.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyProgress:
    """How far the recount of a workflow is."""

    workflow_id: str
    runs: int
    """Counted so far."""
    total: int
    """How many there are by the stored count."""


async def verify(
    audit: Audit,
    workflow_id: str | None = None,
    *,
    repair: bool = False,
    on_page: Callable[[VerifyProgress], None] = lambda _progress: None,
) -> AsyncGenerator[Verification]:
    """Recount the runs of each workflow, compare that with its stored counts, and yield what was found.

    Counts and runs are read as of one moment, so what is written meanwhile makes no difference. The recount
    covers the all-time counts, and the days and hours that a summary may still show. Where runs expire, a
    stored count may be higher than the recount, since deleted runs stay counted: all-time counts of ended
    runs, and days and hours from before the oldest run that is kept. Every run document has to be readable,
    payloads aside, and its state has to be the newest of its history. One page of documents is held at a
    time.

    A repair adds the difference in one atomic commit: a count is right from then on, whatever is written
    meanwhile and whoever else repairs. Nothing is repaired where the counts cannot be read, or where a run is
    so damaged that nobody knows what it is counted as. An error of one workflow is its `problem`; the next
    workflow follows.

    Args:
        audit: The store's audit.
        workflow_id: Only this workflow; nothing is yielded where it is not there. None for all, in order.
        repair: Whether to put wrong counts right.
        on_page: Called after each page with the progress.

    Raises:
        StoreUnavailableError: The store does not answer, or others repair the same workflow again and again.
        ConfigurationError: The store is not there, or does not let us in.
    """
    async with aclosing(chosen_workflows(audit, workflow_id)) as workflows:
        async for workflow in workflows:
            try:
                found = await _verified(audit, workflow, repair, on_page)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                found = Verification(workflow_id=id_at(workflow), problem=str(error))
            if found is not None:
                yield found


class _Counted(NamedTuple):
    stored: StoredCounts
    repair: CountsRepair
    """What makes the stored counts right."""
    is_repairable: bool
    verification: Verification


async def _verified(
    audit: Audit,
    workflow: str,
    repair: bool,  # noqa: FBT001 - handed on
    on_page: Callable[[VerifyProgress], None],
) -> Verification | None:
    """Return what is found out about a workflow, by its document id; None where there is nothing of it."""
    for _ in range(MAX_RECOUNTS):
        async with audit.snapshot(workflow) as snapshot:
            # A snapshot each time: what somebody else repaired is seen by a later one alone.
            counted = await _counted(audit, workflow, snapshot, on_page)
            if counted is None:
                return None
            found = counted.verification
            # An emulator may show a commit of an earlier moment only later: then this was not one moment.
            if found.counts and await snapshot.counts() != counted.stored:
                continue
            if not (repair and found.counts and counted.is_repairable):
                return found
            if await snapshot.repair(counted.repair):
                return replace(found, repaired=True)
    raise StoreUnavailableError(
        f"workflow {id_at(workflow)!r} was repaired by somebody else each time of {MAX_RECOUNTS} that it was "
        "recounted; let one of you do it"
    )


async def _counted(
    audit: Audit, workflow: str, snapshot: WorkflowSnapshot, on_page: Callable[[VerifyProgress], None]
) -> _Counted | None:
    now = audit.now()
    horizon = checked_horizon(now)
    stored, recount = await snapshot.counts(), Recount(horizon)
    workflow_id = stored.workflow_id or id_at(workflow)
    findings: list[RunFinding] = []
    unlisted = 0
    async with aclosing(snapshot.documents(whole=False)) as pages:
        async for page in pages:
            for document in page:
                record = run_record(workflow, document)
                recount.add(record)
                if record.problem is None:
                    continue
                if len(findings) < MAX_LISTED_RUNS:
                    findings.append(RunFinding(run_id=record.key[1], problem=record.problem))
                else:
                    unlisted += 1
            on_page(VerifyProgress(workflow_id=workflow_id, runs=recount.runs, total=stored.total))
    figures = stored_figures(stored, horizon)
    if not (recount.runs or figures or stored.problem):
        return None
    known = [kept for kept in (audit.retention, recount.shortest_retention) if kept is not None]
    expected = expected_figures(figures, recount.figures, retention=min(known) if known else None, now=now)
    wrong = [] if stored.problem else differing(figures, expected)
    workflow_id = stored.workflow_id or recount.workflow_id or id_at(workflow)
    # A difference, not a value: what is counted meanwhile stays counted.
    delta, counters = delta_of({counter: right - found for counter, found, right in wrong})
    return _Counted(
        stored=stored,
        repair=CountsRepair(workflow_id=workflow_id, delta=delta, counters=counters, as_of=recount.as_of),
        is_repairable=not recount.uncounted,
        verification=Verification(
            workflow_id=workflow_id,
            runs=recount.runs,
            counts=[
                CountFinding(count=CountName.of(counter), stored=found, recounted=right)
                for counter, found, right in wrong
            ],
            run_findings=findings,
            unlisted=unlisted,
            problem=stored.problem,
        ),
    )
