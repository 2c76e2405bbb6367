"""``run-log verify``: shows findings as they come, and its progress."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from run_log.console.views.output import Listing, OutputFormat, StatusLine, note
from run_log.console.views.tables import findings_table
from run_log.core import NotFoundError
from run_log.stores.audit import Audit, Comparison, CountName, Verification, VerifyProgress, compare, verify

from .opening import opened_audit

FIRST: Final = "here"
SECOND: Final = "there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong, for people and for programs."""

    cells: Sequence[str]
    record: Mapping[str, Any]


async def verify_counts(workflow_id: str | None, *, repair: bool, output: OutputFormat) -> bool:
    """Show wrong counts and unreadable runs; return whether anything is still wrong.

    Args:
        workflow_id: The workflow; None for all.
        repair: Whether to correct counts.
        output: The format to print in.

    Raises:
        NotFoundError: The workflow does not exist.
    """
    listing = _listing(output, ("workflow", "what", "stored", "recounted", "note"))
    workflows = runs = differing = repaired = 0
    async with opened_audit() as audit:
        with _progress() as progress:

            def tell(far: VerifyProgress) -> None:
                progress.tell(f"{far.workflow_id}: {far.runs}/{max(far.runs, far.total)} runs")

            async for one in verify(audit, workflow_id, repair=repair, on_page=tell):
                workflows += 1
                runs += one.runs
                differing += one.differs
                repaired += one.repaired
                _add(listing, _of_verification(one), progress)
    _check_there(workflow_id, workflows)
    listing.end()
    done = f"; repaired: {repaired}" if repair else ""
    if not workflows:
        note("there are no workflows; check the settings")
    note(f"runs recounted: {runs}, of workflows: {workflows}{done}; {_differ(differing)}")
    return differing > 0


async def compare_roots(workflow_id: str | None, *, against: str, output: OutputFormat) -> bool:
    """Show what differs between the projection here and another one; return whether anything does.

    Args:
        workflow_id: Only this workflow; None for all.
        against: The root collection or the file of the other one.
        output: The format to print in.

    Raises:
        NotFoundError: Neither has the workflow, or the other one is empty.
    """
    listing = _listing(output, ("workflow", "what", FIRST, SECOND, "note"))
    workflows = runs = differing = 0
    async with opened_audit() as first, opened_audit(against) as second:
        if await _is_empty(second):
            raise NotFoundError(
                f"the projection {against!r} does not exist, or is empty; pass another one as --against"
            )
        with _progress() as progress:

            def tell(workflow: str, count: int) -> None:
                progress.tell(f"{workflow}: {count} runs")

            async for one in compare(first, second, workflow_id, on_page=tell):
                workflows += bool(one.runs or one.differs)
                runs += one.runs
                differing += one.differs
                _add(listing, _of_comparison(one), progress)
    _check_there(workflow_id, workflows)
    listing.end()
    note(f"runs compared: {runs}, of workflows: {workflows}; {_differ(differing)}")
    return differing > 0


def _of_verification(one: Verification) -> list[Finding]:
    workflow = {"workflow_id": one.workflow_id}
    found = [
        Finding(
            cells=(
                one.workflow_id,
                str(count.count),
                str(count.stored),
                str(count.recounted),
                "repaired" if one.repaired else "",
            ),
            record={
                **workflow,
                "kind": "count",
                **_count_record(count.count),
                "stored": count.stored,
                "recounted": count.recounted,
                "repaired": one.repaired,
            },
        )
        for count in one.counts
    ]
    if one.problem is not None:
        record = {**workflow, "kind": "counts", "problem": one.problem}
        found.append(Finding(cells=(one.workflow_id, "counts", "", "", one.problem), record=record))
    for run in one.run_findings:
        record = {**workflow, "kind": "run", "run_id": run.run_id, "problem": run.problem}
        found.append(
            Finding(cells=(one.workflow_id, f"run {run.run_id}", "", "", run.problem), record=record)
        )
    return found + _unlisted(one.workflow_id, one.unlisted)


def _of_comparison(one: Comparison) -> list[Finding]:
    workflow = {"workflow_id": one.workflow_id}
    found = [
        Finding(
            cells=(one.workflow_id, str(count.count), str(count.first), str(count.second), ""),
            record={
                **workflow,
                "kind": "count",
                **_count_record(count.count),
                FIRST: count.first,
                SECOND: count.second,
            },
        )
        for count in one.counts
    ]
    found += [
        Finding(
            cells=(one.workflow_id, "counts", "", "", problem),
            record={**workflow, "kind": "counts", "problem": problem},
        )
        for problem in one.problems
    ]
    for run in one.differences:
        only_in = {None: None, "first": FIRST, "second": SECOND}[run.only_in]
        told = ", ".join(run.fields) if only_in is None else f"only {only_in}"
        record: dict[str, Any] = {
            **workflow,
            "kind": "run",
            "run_id": run.run_id,
            "only_in": only_in,
            "fields": list(run.fields),
        }
        found.append(Finding(cells=(one.workflow_id, f"run {run.run_id}", "", "", told), record=record))
    return found + _unlisted(one.workflow_id, one.unlisted)


def _unlisted(workflow_id: str, count: int) -> list[Finding]:
    if not count:
        return []
    record = {"workflow_id": workflow_id, "kind": "unlisted", "runs": count}
    return [Finding(cells=(workflow_id, f"{count} runs more", "", "", "not listed"), record=record)]


def _count_record(count: CountName) -> dict[str, Any]:
    begins = None if count.begins is None else count.begins.isoformat().replace("+00:00", "Z")
    return {"scope": count.scope.value, "begins": begins, "name": count.name}


def _listing(output: OutputFormat, headings: Sequence[str]) -> Listing[Finding]:
    return Listing(
        output,
        "findings",
        table=lambda page: findings_table(headings, [finding.cells for finding in page]),
        record=lambda finding: finding.record,
    )


async def _is_empty(audit: Audit) -> bool:
    async with contextlib.aclosing(audit.workflows()) as workflows:
        return await anext(workflows, None) is None


def _check_there(workflow_id: str | None, workflows: int) -> None:
    if workflow_id is not None and not workflows:
        raise NotFoundError(f"there is no workflow {workflow_id!r}")


def _differ(workflows: int) -> str:
    return f"workflows that differ: {workflows}" if workflows else "nothing differs"


@contextlib.contextmanager
def _progress() -> Generator[StatusLine]:
    """Yield a status line on stderr, and clear it at the end."""
    line = StatusLine()
    try:
        yield line
    finally:
        line.clear()


def _add(listing: Listing[Finding], findings: Sequence[Finding], progress: StatusLine) -> None:
    """Show results, after clearing the status line."""
    if findings:
        progress.clear()
    listing.add(findings)
