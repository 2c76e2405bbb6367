"""Two projections of the same events, compared document by document: what differs, and what is missing."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from run_log.core import StoreError, StoreUnavailableError
from run_log.core.counters import Horizon
from run_log.core.ids import document_id, original_id
from run_log.core.law import newest
from run_log.stores.stored.fields import CHANGED_AT, COUNTED_HOUR, HISTORY, PROJECTION
from run_log.stores.stored.reading import transition_from_text

from ._figures import CountName, checked_horizon, differing, stored_figures
from .port import Audit, RunDocument, StoredCounts, WorkflowSnapshot

MAX_LISTED: Final = 1_000
"""Documents listed of a workflow; the others are only counted."""

MAX_COMPARISONS: Final = 3
"""How often a workflow is compared whose counts were not those of one moment."""

_TOLD_EVERY: Final = 100
"""Runs after which it is told how far a comparison is."""

_T = TypeVar("_T")


class Side(enum.StrEnum):
    """One of the two that are compared."""

    FIRST = "first"
    SECOND = "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """A run that is not the same in both."""

    run_id: str
    only_in: Side | None
    """Where alone it is; None where it is in both."""
    fields: Sequence[str]
    """The names of the fields that differ, those of the projection's own data after its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountDifference:
    """A count that is not the same in both."""

    count: CountName
    first: int
    second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs of one workflow."""

    workflow_id: str
    runs: int
    """Runs that were compared: those of both, once."""
    differences: Sequence[RunDifference]
    """The first `MAX_LISTED`."""
    unlisted: int
    """How many more there are."""
    counts: Sequence[CountDifference]
    problems: Sequence[str]
    """Why counts could not be compared."""

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return bool(self.differences or self.counts or self.problems)


async def compare(
    first: Audit,
    second: Audit,
    workflow_id: str | None = None,
    *,
    on_page: Callable[[str, int], None] = lambda _workflow_id, _runs: None,
) -> AsyncGenerator[Comparison]:
    """Compare two projections and yield what came of each workflow that either has, in order.

    Where both are in one database, each workflow is looked at as of one moment. All fields of all run
    documents are compared, and the sums of stats and summaries. What is not, since it depends on when or in
    which batches the same events were written, and not on them alone: ``projection.changed_at``; the order of
    the history, and transitions beyond the newest that are kept; ``as_of`` of a workflow; and days and hours
    that are over, in ``projection.counted_hour`` and in the summaries. A page of each is held at a time. What
    keeps one workflow from being compared is its problem, and the next one follows.

    Args:
        first: One projection.
        second: The other.
        workflow_id: Only this workflow; None for all.
        on_page: Told how many runs of a workflow have been compared, after each page or so.

    Raises:
        StoreUnavailableError: A store does not answer.
        ConfigurationError: A store is not there, or does not let us in.
    """
    if workflow_id is not None:
        yield await _compared(first, second, document_id(workflow_id), on_page)
        return
    async with aclosing(first.workflows()) as one, aclosing(second.workflows()) as other:
        async for left, right in _joined(one, other, key=lambda workflow: workflow):
            yield await _compared(first, second, str(left or right), on_page)


async def _compared(
    first: Audit, second: Audit, workflow: str, on_page: Callable[[str, int], None]
) -> Comparison:
    try:
        for _ in range(MAX_COMPARISONS - 1):
            found, is_settled = await _compared_once(first, second, workflow, on_page)
            if is_settled:
                return found
        return (await _compared_once(first, second, workflow, on_page))[0]
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return Comparison(
            workflow_id=original_id(workflow) or workflow,
            runs=0,
            differences=(),
            unlisted=0,
            counts=(),
            problems=[str(error)],
        )


async def _compared_once(
    first: Audit, second: Audit, workflow: str, on_page: Callable[[str, int], None]
) -> tuple[Comparison, bool]:
    """Return what differs, and whether all of it was of one moment."""
    workflow_id = original_id(workflow) or workflow
    horizon = checked_horizon(first.now())
    async with first.snapshot(workflow) as one, second.snapshot(workflow, at=one.at) as other:
        counts = await one.counts(), await other.counts()
        runs = await _compared_runs(one, other, horizon, lambda count: on_page(workflow_id, count))
        found = Comparison(
            workflow_id=workflow_id,
            runs=runs.count,
            differences=runs.listed,
            unlisted=runs.unlisted,
            counts=_count_differences(*counts, horizon),
            problems=[count.problem for count in counts if count.problem],
        )
        # An emulator may let a commit of an earlier moment be seen only later: then it was none.
        is_settled = not found.differs or counts == (await one.counts(), await other.counts())
    return found, is_settled


@dataclass(slots=True)
class _Runs:
    count: int = 0
    unlisted: int = 0
    listed: list[RunDifference] = field(default_factory=list[RunDifference])


async def _compared_runs(
    one: WorkflowSnapshot, other: WorkflowSnapshot, horizon: Horizon, tell: Callable[[int], None]
) -> _Runs:
    runs = _Runs()
    async with aclosing(_documents(one)) as lefts, aclosing(_documents(other)) as rights:
        async for left, right in _joined(lefts, rights, key=lambda document: document.id):
            runs.count += 1
            if runs.count % _TOLD_EVERY == 0:
                tell(runs.count)
            difference = _difference(left, right, horizon)
            if difference is None:
                continue
            if len(runs.listed) < MAX_LISTED:
                runs.listed.append(difference)
            else:
                runs.unlisted += 1
    tell(runs.count)
    return runs


async def _documents(snapshot: WorkflowSnapshot) -> AsyncGenerator[RunDocument]:
    async with aclosing(snapshot.documents(whole=True)) as pages:
        async for page in pages:
            for document in page:
                yield document


async def _joined(
    left: AsyncIterator[_T], right: AsyncIterator[_T], *, key: Callable[[_T], str]
) -> AsyncIterator[tuple[_T | None, _T | None]]:
    """Yield what has the same key in both, None where one has none; each is in the order of its keys."""
    one, other = await anext(left, None), await anext(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and key(one) < key(other)):
            yield one, None
            one = await anext(left, None)
        elif one is None or key(other) < key(one):
            yield None, other
            other = await anext(right, None)
        else:
            yield one, other
            one, other = await anext(left, None), await anext(right, None)


def _difference(
    left: RunDocument | None, right: RunDocument | None, horizon: Horizon
) -> RunDifference | None:
    if left is not None and right is not None:
        one, other = _comparable(left.fields, horizon), _comparable(right.fields, horizon)
        if one == other:
            return None
        fields = sorted(name for name in {**one, **other} if one.get(name) != other.get(name))
        return RunDifference(run_id=_run_id(left), only_in=None, fields=fields)
    if left is not None:
        return RunDifference(run_id=_run_id(left), only_in=Side.FIRST, fields=())
    if right is not None:
        return RunDifference(run_id=_run_id(right), only_in=Side.SECOND, fields=())
    return None


def _comparable(fields: Mapping[str, Any], horizon: Horizon) -> dict[str, Any]:
    """Return the fields of a document that follow from its events alone, by name."""
    found = {name: value for name, value in fields.items() if name != PROJECTION}
    projection = fields.get(PROJECTION)
    if not isinstance(projection, Mapping):
        return found if projection is None else {**found, PROJECTION: projection}
    own: dict[str, Any] = {**projection}
    own.pop(CHANGED_AT, None)
    hour = own.get(COUNTED_HOUR)
    if isinstance(hour, int) and hour // 24 < horizon.first_day:
        del own[COUNTED_HOUR]
    if HISTORY in own:
        own[HISTORY] = _kept(own[HISTORY])
    return {**found, **{f"{PROJECTION}.{name}": value for name, value in own.items()}}


def _kept(history: Any) -> Any:
    """Return the transitions of a history that are kept, in order; what is no history as it is."""
    try:
        return newest(map(transition_from_text, history))
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return history


def _count_differences(first: StoredCounts, second: StoredCounts, horizon: Horizon) -> list[CountDifference]:
    if first.problem or second.problem:
        return []
    one, other = stored_figures(first, horizon), stored_figures(second, horizon)
    return [
        CountDifference(count=CountName.of(counter), first=one.get(counter, 0), second=other.get(counter, 0))
        for counter in differing(one, other)
    ]


def _run_id(document: RunDocument) -> str:
    return original_id(document.id) or document.id
