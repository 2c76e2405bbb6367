"""The audit port: a workflow's stored counts beside all of its run documents, as of one moment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from run_log.core import RunStatus, UnreadableRunError
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id
from run_log.core.law import RunHead
from run_log.core.models import RunKey
from run_log.core.stats import StatsDelta
from run_log.stores.stored.fields import HISTORY, PROGRESS_DIGEST, PROJECTION
from run_log.stores.stored.reading import StoredHead, head_from_fields, key_at, run_from_fields

WHOLE_PAGE: Final = 50
"""How many whole documents are read at a time, at most: each may have a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCounts:
    """The counts that a store has of a workflow, summed over all documents that hold them."""

    workflow_id: str | None = None
    """As the document says it; None where it does not."""
    total: int = 0
    successful: int = 0
    by_status: Mapping[RunStatus, int] = field(default_factory=dict[RunStatus, int])
    counters: Mapping[SummaryCounter, int] = field(default_factory=dict[SummaryCounter, int])
    """Those of its summary."""
    problem: str | None = None
    """Why they cannot be read; None where they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountsRepair:
    """What a repair adds to a workflow's counts."""

    workflow_id: str
    delta: StatsDelta
    counters: Mapping[SummaryCounter, int]
    as_of: datetime | None
    """When the latest event of its runs happened; None where no run has any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDocument:
    """A run as it is stored: the document's id, and its fields with the projection map."""

    id: str
    fields: Mapping[str, Any]


class WorkflowSnapshot(Protocol):
    """One workflow as it is at one moment, however long reading takes and whatever is written meanwhile.

    Reads raise `StoreUnavailableError` where the store does not answer in bounded time, `StoreError` where
    it no longer knows that moment, and `ConfigurationError` where it does not let us in.
    """

    @property
    def at(self) -> datetime | None:
        """The moment; None for a store that cannot read a moment that is over."""
        ...

    async def counts(self) -> StoredCounts:
        """Return the stored counts, as of the moment."""
        ...

    def documents(self, *, whole: bool) -> AsyncGenerator[Sequence[RunDocument]]:
        """Yield all run documents as of the moment, page by page in the order of their ids.

        Args:
            whole: Whether to read all of their fields, or all but `PAYLOADS`.
        """
        ...

    async def repair(self, change: CountsRepair) -> bool:
        """Add *change* to the counts as they are now, in one commit, unless others repaired them meanwhile.

        It is the difference at the moment of the snapshot, and a sum does not depend on the order: so the
        counts are right from then on, whatever was written since.

        Returns:
            False where somebody has repaired the counts since the moment: recount the runs.

        Raises:
            StoreUnavailableError: The store does not answer: recount the runs.
        """
        ...


class Audit(Protocol):
    """What a store offers to have its counts checked, and its documents compared with another's."""

    @property
    def retention(self) -> timedelta | None:
        """How long ended runs are kept; None keeps all."""
        ...

    def now(self) -> datetime:
        """Return the time, by which days and hours are counted."""
        ...

    def workflows(self) -> AsyncGenerator[str]:
        """Yield the document ids of all workflows that have counts or runs, in order."""
        ...

    def snapshot(
        self, workflow: str, *, at: datetime | None = None
    ) -> AbstractAsyncContextManager[WorkflowSnapshot]:
        """Open a workflow as it is at one moment.

        Args:
            workflow: Its document id.
            at: The moment: one that a snapshot of the same database has; None is now.
        """
        ...


async def chosen_workflows(audit: Audit, workflow_id: str | None) -> AsyncGenerator[str]:
    """Yield the document id of this workflow, there or not; None: of all workflows, in order."""
    if workflow_id is not None:
        yield document_id(workflow_id)
        return
    async with aclosing(audit.workflows()) as workflows:
        async for workflow in workflows:
            yield workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a recount needs of a stored run."""

    key: RunKey
    stored: StoredHead | None
    """Its head; None where that cannot be read, so that nobody knows what the run is counted as."""
    problem: str | None = None
    """What is wrong with the document; None where nothing is."""


def run_record(workflow: str, document: RunDocument) -> RunRecord:
    """Return what *document*, of the workflow with this document id, says of its run, payloads aside."""
    key = key_at(workflow, document.id)
    try:
        stored = head_from_fields(document.fields, key)
    except UnreadableRunError as error:
        return RunRecord(key=key, stored=None, problem=str(error))
    try:
        run = run_from_fields({**document.fields, "trigger_data": "{}", "result": "{}", "error": None}, key)
    except UnreadableRunError as error:
        return RunRecord(key=key, stored=stored, problem=str(error))
    if (document_id(run.workflow_id), document_id(run.id)) != (workflow, document.id):
        problem = f"it says that it is run {run.id!r} of workflow {run.workflow_id!r}"
        return RunRecord(key=key, stored=stored, problem=problem)
    return RunRecord(key=run.key, stored=stored, problem=_contradiction(stored.head, document.fields))


def _contradiction(head: RunHead, fields: Mapping[str, Any]) -> str | None:
    if not fields.get(PROJECTION):
        return None  # written by something that knew no versions
    # An earlier version that took over from this one has left the digest where it was.
    if PROGRESS_DIGEST in fields[PROJECTION] and head.is_progress:
        return _contradiction_of_progress(head)
    if not head.history:
        return f"its {HISTORY} is empty"
    newest = head.history[-1]
    if newest.version != head.version:
        return f"its version is {head.version}, the newest of its {HISTORY} is {newest.version}"
    if newest.status is not head.status:
        return f"its status is {head.status.value}, by its {HISTORY} it is {newest.status.value}"
    return None


def _contradiction_of_progress(head: RunHead) -> str | None:
    """Return what contradicts itself in a run whose newest event is no transition; None for nothing."""
    if head.status is not RunStatus.RUNNING:
        return f"its status is {head.status.value}, and its newest event says how far it is"
    if head.history and head.history[-1].version >= head.version:
        return f"its version is {head.version}, the newest of its {HISTORY} is {head.history[-1].version}"
    return None
