"""A recount of a workflow's runs against what is stored, and the repair of what differs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from run_log.core import StoreError, StoreUnavailableError
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id, original_id

from ._figures import (
    CountName,
    Figures,
    Recount,
    checked_horizon,
    delta_of,
    differing,
    expected_figures,
    stored_figures,
)
from .port import Audit, CountsRepair, StoredCounts, WorkflowSnapshot, run_record

MAX_LISTED_RUNS: Final = 1_000
"""Runs listed of a workflow that something is wrong with; the others are only counted."""

MAX_RECOUNTS: Final = 10
"""How often a workflow is counted anew when somebody else has repaired it meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountFinding:
    """A stored count that a recount does not bear out."""

    count: CountName
    stored: int
    recounted: int
    """What it has to be: what the runs give, and where some may have been deleted, no less than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinding:
    """A run document that cannot be read, or contradicts itself. It is never repaired."""

    run_id: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of one workflow."""

    workflow_id: str
    runs: int
    """Run documents there are."""
    counts: Sequence[CountFinding]
    run_findings: Sequence[RunFinding]
    """The first `MAX_LISTED_RUNS`."""
    unlisted: int
    """How many more there are."""
    problem: str | None
    """Why the stored counts cannot be read, or recounted, or repaired; None where they can."""
    repaired: bool
    """Whether `counts` are right by now."""

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


def _tell_nobody(_progress: VerifyProgress) -> None:
    pass


async def verify(
    audit: Audit,
    workflow_id: str | None = None,
    *,
    repair: bool = False,
    on_page: Callable[[VerifyProgress], None] = _tell_nobody,
) -> AsyncGenerator[Verification]:
    """Recount the runs of each workflow against its stored counts, and yield what came of each, in order.

    Counts and runs are read as of one moment, so what is written meanwhile makes no finding. Looked at are
    all-time counts, and those of days and hours that somebody may still ask for. Where runs expire, what may
    have been deleted may be stored beyond what is found: all-time counts of ended runs, and their days and
    hours from before all that is kept. Run documents have to be readable, payloads aside, and their state has
    to be the newest of their history. A page of them is held at a time.

    A repair adds the difference in one atomic commit, so each count is wrong as before up to then and right
    from then on, whatever is written meanwhile and whoever else repairs. Nothing is repaired where a run
    cannot be read so far that nobody knows what it is counted as, or the counts themselves cannot be read.
    What keeps one workflow from being recounted, or repaired, is its problem, and the next one follows.

    Args:
        audit: Where.
        workflow_id: Only this workflow; nothing is yielded where it is not there. None for all.
        repair: Whether wrong counts are put right.
        on_page: Told after each page how far it is.

    Raises:
        StoreUnavailableError: The store does not answer, or others repair the same workflow again and again.
        ConfigurationError: The store is not there, or does not let us in.
    """
    if workflow_id is not None:
        found = await _named(audit, document_id(workflow_id), repair, on_page)
        if found is not None:
            yield found
        return
    async with aclosing(audit.workflows()) as workflows:
        async for workflow in workflows:
            found = await _named(audit, workflow, repair, on_page)
            if found is not None:
                yield found


async def _named(
    audit: Audit,
    workflow: str,
    repair: bool,  # noqa: FBT001 - handed on
    on_page: Callable[[VerifyProgress], None],
) -> Verification | None:
    """Return what comes of a workflow; what ends its recount alone is what is wrong with it."""
    try:
        return await _verified(audit, workflow, repair, on_page)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return Verification(
            workflow_id=original_id(workflow) or workflow,
            runs=0,
            counts=(),
            run_findings=(),
            unlisted=0,
            problem=str(error),
            repaired=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """What a recount at one moment came to."""

    stored: StoredCounts
    recount: Recount
    run_findings: Sequence[RunFinding]
    unlisted: int
    stored_figures: Figures
    expected: Figures

    @property
    def differing(self) -> list[SummaryCounter]:
        return [] if self.stored.problem else differing(self.stored_figures, self.expected)

    def workflow_id(self, workflow: str) -> str:
        return self.stored.workflow_id or self.recount.workflow_id or original_id(workflow) or workflow

    def repair(self, workflow: str) -> CountsRepair:
        changes = {
            counter: self.expected.get(counter, 0) - self.stored_figures.get(counter, 0)
            for counter in self.differing
        }
        delta, counters = delta_of(changes)
        return CountsRepair(
            workflow_id=self.workflow_id(workflow),
            delta=delta,
            counters=counters,
            as_of=self.recount.as_of,
        )


async def _verified(
    audit: Audit,
    workflow: str,
    repair: bool,  # noqa: FBT001 - handed on
    on_page: Callable[[VerifyProgress], None],
) -> Verification | None:
    """Return what comes of the workflow with this document id; None where there is nothing of it."""
    for _ in range(MAX_RECOUNTS):
        async with audit.snapshot(workflow) as snapshot:
            counted = await _counted(audit, workflow, snapshot, on_page)
            if not counted.recount.runs and not counted.stored_figures and not counted.stored.problem:
                return None
            # An emulator may let a commit of an earlier moment be seen only later: then it was none.
            if counted.differing and await snapshot.counts() != counted.stored:
                continue
            repaired = False
            if repair and counted.differing and not counted.recount.uncounted:
                # A difference, not a value: what is counted meanwhile stays counted.
                repaired = await snapshot.repair(counted.repair(workflow))
                if not repaired:
                    continue
            return _verification(workflow, counted, repaired=repaired)
    raise StoreUnavailableError(
        f"workflow {original_id(workflow) or workflow!r} was repaired by somebody else each time of "
        f"{MAX_RECOUNTS} that it was recounted; let one of you do it"
    )


async def _counted(
    audit: Audit, workflow: str, snapshot: WorkflowSnapshot, on_page: Callable[[VerifyProgress], None]
) -> _Counted:
    now = audit.now()
    horizon = checked_horizon(now)
    stored, recount = await snapshot.counts(), Recount(horizon)
    workflow_id = stored.workflow_id or original_id(workflow) or workflow
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
    known = [kept for kept in (audit.retention, recount.shortest_retention) if kept is not None]
    expected = expected_figures(figures, recount.figures, retention=min(known) if known else None, now=now)
    return _Counted(
        stored=stored,
        recount=recount,
        run_findings=findings,
        unlisted=unlisted,
        stored_figures=figures,
        expected=expected,
    )


def _verification(workflow: str, counted: _Counted, *, repaired: bool) -> Verification:
    return Verification(
        workflow_id=counted.workflow_id(workflow),
        runs=counted.recount.runs,
        counts=[
            CountFinding(
                count=CountName.of(counter),
                stored=counted.stored_figures.get(counter, 0),
                recounted=counted.expected.get(counter, 0),
            )
            for counter in counted.differing
        ],
        run_findings=counted.run_findings,
        unlisted=counted.unlisted,
        problem=counted.stored.problem,
        repaired=repaired,
    )
