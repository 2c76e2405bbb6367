"""``run-log verify``: shows findings as they come, and its progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from run_log.console.views.output import Listing, OutputFormat, StatusLine, note
from run_log.console.views.tables import findings_table
from run_log.core import NotFoundError, utc_now
from run_log.core.ids import bounded_id
from run_log.core.json_form import time_json
from run_log.stores.audit import Audit, Comparison, CountName, Verification, VerifyProgress, compare, verify
from run_log.stores.notices import NoticeKind, VerifyNotice

from .opening import opened_store

FIRST: Final = "here"
SECOND: Final = "there"

MAX_NAMED: Final = 20
"""How many of the workflows that differ are named in what is kept."""


class Finding(NamedTuple):
    """Something that is wrong, for people and for programs."""

    cells: Sequence[str]
    record: Mapping[str, Any]


async def verify_counts(
    workflow_id: str | None,
    *,
    repair: bool,
    record: bool,
    output: OutputFormat,
    now: Callable[[], datetime] = utc_now,
) -> bool:
    """Show wrong counts and unreadable runs of one workflow, or of all; return whether any is still wrong.

    With *record*, what is found is kept in the store, too.
    """
    listing = _listing(output, ("workflow", "what", "stored", "recounted", "note"))
    workflows = runs = repaired = 0
    differing: list[str] = []
    async with opened_store() as store:
        with StatusLine() as progress:

            def tell(far: VerifyProgress) -> None:
                progress.tell(f"{far.workflow_id}: {far.runs}/{max(far.runs, far.total)} runs")

            async for one in verify(store.audit(), workflow_id, repair=repair, on_page=tell):
                workflows += 1
                runs += one.runs
                differing += [one.workflow_id] if one.differs else []
                repaired += one.repaired
                _add(listing, _of_verification(one), progress)
        _check_there(workflow_id, workflows)
        listing.end()
        if record:
            finding = VerifyNotice(
                at=now(),
                workflow_id=workflow_id and bounded_id(workflow_id),
                workflows=workflows,
                runs=runs,
                repaired=repaired,
                differing=len(differing),
                first=tuple(differing[:MAX_NAMED]),
            )
            await store.put_notices(NoticeKind.VERIFICATION, [finding.stored()])
    done = f"; repaired: {repaired}" if repair else ""
    if not workflows:
        note("there are no workflows; check the settings")
    note(f"runs recounted: {runs}, of workflows: {workflows}{done}; {_differ(len(differing))}")
    return bool(differing)


async def compare_roots(workflow_id: str | None, *, against: str, output: OutputFormat) -> bool:
    """Show what differs between the projection here and another root or file; return whether any does."""
    listing = _listing(output, ("workflow", "what", FIRST, SECOND, "note"))
    workflows = runs = differing = 0
    async with opened_store() as here, opened_store(against) as there:
        first, second = here.audit(), there.audit()
        if await _is_empty(second):
            raise NotFoundError(
                f"the projection {against!r} does not exist, or is empty; pass another one as --against"
            )
        with StatusLine() as progress:

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


def _of_verification(one: Verification) -> Iterator[Finding]:
    for count in one.counts:
        numbers = {"stored": count.stored, "recounted": count.recounted}
        noted = "repaired" if one.repaired else ""
        yield _count(one.workflow_id, count.count, numbers, noted, repaired=one.repaired)
    if one.problem is not None:
        yield _other(one.workflow_id, "counts", "counts", one.problem, problem=one.problem)
    for run in one.run_findings:
        told = {"run_id": run.run_id, "problem": run.problem}
        yield _other(one.workflow_id, "run", f"run {run.run_id}", run.problem, **told)
    yield from _unlisted(one.workflow_id, one.unlisted)


def _of_comparison(one: Comparison) -> Iterator[Finding]:
    for count in one.counts:
        yield _count(one.workflow_id, count.count, {FIRST: count.first, SECOND: count.second})
    for problem in one.problems:
        yield _other(one.workflow_id, "counts", "counts", problem, problem=problem)
    for run in one.differences:
        only_in = {None: None, "first": FIRST, "second": SECOND}[run.only_in]
        noted = ", ".join(run.fields) if only_in is None else f"only {only_in}"
        told: dict[str, Any] = {"run_id": run.run_id, "only_in": only_in, "fields": list(run.fields)}
        yield _other(one.workflow_id, "run", f"run {run.run_id}", noted, **told)
    yield from _unlisted(one.workflow_id, one.unlisted)


def _unlisted(workflow_id: str, count: int) -> Iterator[Finding]:
    if count:
        yield _other(workflow_id, "unlisted", f"{count} runs more", "not listed", runs=count)


def _count(
    workflow_id: str, count: CountName, numbers: Mapping[str, int], noted: str = "", **more: Any
) -> Finding:
    name = {"scope": count.scope.value, "begins": time_json(count.begins), "name": count.name}
    return Finding(
        (workflow_id, str(count), *map(str, numbers.values()), noted),
        {"workflow_id": workflow_id, "kind": "count", **name, **numbers, **more},
    )


def _other(workflow_id: str, kind: str, what: str, noted: str, **more: Any) -> Finding:
    record = {"workflow_id": workflow_id, "kind": kind, **more}
    return Finding((workflow_id, what, "", "", noted), record)


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


def _add(listing: Listing[Finding], findings: Iterator[Finding], progress: StatusLine) -> None:
    page = list(findings)
    if page:
        progress.clear()
    listing.add(page)
