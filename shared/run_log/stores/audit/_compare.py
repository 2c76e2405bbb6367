"""Two projections of the same events, compared document by document: what differs, and what is missing."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from run_log.core import StoreError, StoreUnavailableError
from run_log.core.counters import Horizon
from run_log.core.history import newest
from run_log.stores.stored.fields import COUNTED_HOUR, HISTORY, OF_THE_STORE, PROJECTION
from run_log.stores.stored.reading import id_at, transition_from_text

from ._figures import CountName, checked_horizon, differing, stored_figures
from .port import Audit, RunDocument, StoredCounts, WorkflowSnapshot, chosen_workflows

MAX_LISTED: Final = 1_000
"""How many runs of a workflow are listed that differ; the others are only counted."""

MAX_COMPARISONS: Final = 3
"""How often a workflow is compared until its counts are of one moment."""

_TOLD_EVERY: Final = 100

_T = TypeVar("_T")


class Side(enum.StrEnum):
    """One of the two projections."""

    FIRST = "first"
    SECOND = "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """A run that is not the same in both."""

    run_id: str
    only_in: Side | None = None
    """The only side that has it; None where both have it."""
    fields: Sequence[str] = ()
    """The names of the fields that differ; those of the projection map begin with ``projection.``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountDifference:
    """A count that is not the same in both."""

    count: CountName
    first: int
    second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs in one workflow."""

    workflow_id: str
    runs: int = 0
    """How many runs were compared; one that both have counts once."""
    differences: Sequence[RunDifference] = ()
    """The first `MAX_LISTED`."""
    unlisted: int = 0
    """How many more there are."""
    counts: Sequence[CountDifference] = ()
    problems: Sequence[str] = ()
    """Why it could not be compared, or its counts could not."""

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
    """Compare two projections and yield what differs in each workflow that either has, in order.

    Where both are in one database, each workflow is read as of one moment. All fields of all run documents
    are compared, and the sums of stats and summaries. Left out is what depends on where, when, or in which
    batches the same events were written: ``projection.changed_at`` and ``projection.changed_shard``; the
    order of the history, and transitions beyond the newest that are kept; ``as_of`` of a workflow; and days
    and hours that are over, in ``projection.counted_hour`` and in the summaries. One page of each is held at
    a time. An error of one workflow is its problem; the next workflow follows.

    Args:
        first: One projection.
        second: The other.
        workflow_id: Only this workflow; None for all.
        on_page: Called with a workflow's id and how many of its runs have been compared, now and then.

    Raises:
        StoreUnavailableError: A store does not answer.
        ConfigurationError: A store is not there, or does not let us in.
    """
    # Both come in the order of document ids, so that two pages are held and no list of all workflows.
    ones, others = chosen_workflows(first, workflow_id), chosen_workflows(second, workflow_id)
    async with aclosing(ones), aclosing(others):
        async for workflow, _, _ in _joined(ones, others, key=lambda workflow: workflow):
            try:
                yield await _compared(first, second, workflow, on_page)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                yield Comparison(workflow_id=id_at(workflow), problems=[str(error)])


async def _compared(
    first: Audit, second: Audit, workflow: str, on_page: Callable[[str, int], None]
) -> Comparison:
    workflow_id = id_at(workflow)
    horizon = checked_horizon(first.now())
    attempts = 0
    while True:
        attempts += 1
        async with first.snapshot(workflow) as one, second.snapshot(workflow, at=one.at) as other:
            counts = await one.counts(), await other.counts()
            runs, differences, unlisted = await _compared_runs(
                one, other, horizon, partial(on_page, workflow_id)
            )
            found = Comparison(
                workflow_id=workflow_id,
                runs=runs,
                differences=differences,
                unlisted=unlisted,
                counts=_count_differences(*counts, horizon),
                problems=[count.problem for count in counts if count.problem],
            )
            # An emulator may show a commit of an earlier moment only later: then this was not one moment.
            is_settled = not found.differs or counts == (await one.counts(), await other.counts())
        if is_settled or attempts == MAX_COMPARISONS:
            return found


async def _compared_runs(
    one: WorkflowSnapshot, other: WorkflowSnapshot, horizon: Horizon, tell: Callable[[int], None]
) -> tuple[int, list[RunDifference], int]:
    """Return how many runs there are, the first that differ, and how many more of these there are."""
    count = unlisted = 0
    listed: list[RunDifference] = []
    async with aclosing(_documents(one)) as lefts, aclosing(_documents(other)) as rights:
        async for run, left, right in _joined(lefts, rights, key=lambda document: document.id):
            count += 1
            if count % _TOLD_EVERY == 0:
                tell(count)
            difference = _difference(id_at(run), left, right, horizon)
            if difference is None:
                continue
            if len(listed) < MAX_LISTED:
                listed.append(difference)
            else:
                unlisted += 1
    tell(count)
    return count, listed, unlisted


async def _documents(snapshot: WorkflowSnapshot) -> AsyncGenerator[RunDocument]:
    async with aclosing(snapshot.documents(whole=True)) as pages:
        async for page in pages:
            for document in page:
                yield document


async def _joined(
    left: AsyncIterator[_T], right: AsyncIterator[_T], *, key: Callable[[_T], str]
) -> AsyncIterator[tuple[str, _T | None, _T | None]]:
    """Yield each key with what has it in both, None where one has none; each is in the order of its keys."""
    one, other = await anext(left, None), await anext(right, None)
    while keys := [key(item) for item in (one, other) if item is not None]:
        first = min(keys)
        in_left = one if one is not None and key(one) == first else None
        in_right = other if other is not None and key(other) == first else None
        yield first, in_left, in_right
        if in_left is not None:
            one = await anext(left, None)
        if in_right is not None:
            other = await anext(right, None)


def _difference(
    run_id: str, left: RunDocument | None, right: RunDocument | None, horizon: Horizon
) -> RunDifference | None:
    if left is None or right is None:
        return RunDifference(run_id=run_id, only_in=Side.SECOND if left is None else Side.FIRST)
    one, other = _comparable(left.fields, horizon), _comparable(right.fields, horizon)
    if one == other:
        return None
    fields = sorted(name for name in {**one, **other} if one.get(name) != other.get(name))
    return RunDifference(run_id=run_id, fields=fields)


def _comparable(fields: Mapping[str, Any], horizon: Horizon) -> dict[str, Any]:
    """Return the fields of a document that follow from its events alone, by name."""
    found = {name: value for name, value in fields.items() if name != PROJECTION}
    projection = fields.get(PROJECTION)
    if not isinstance(projection, Mapping):
        return found if projection is None else {**found, PROJECTION: projection}
    own: dict[str, Any] = {**projection}
    for name in OF_THE_STORE:
        own.pop(name, None)
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
        CountDifference(count=CountName.of(counter), first=left, second=right)
        for counter, left, right in differing(one, other)
    ]
