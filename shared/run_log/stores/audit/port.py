"""The audit port: a workflow's stored counts beside all of its run documents, as of one moment."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from run_log.core import RunStatus, UnreadableRunError
from run_log.core.counters import SummaryCounter
from run_log.core.ids import document_id, original_id
from run_log.core.law import RunHead, StatsDelta
from run_log.core.models import RunKey
from run_log.stores.stored.fields import HISTORY, PROJECTION
from run_log.stores.stored.reading import StoredHead, head_from_fields, run_from_fields

AUDIT_PAGE: Final = 300
"""Documents read at a time, without payloads: some kilobytes each."""

WHOLE_PAGE: Final = 50
"""Whole documents read at a time, at most: each may have a megabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCounts:
    """What a store has counted of a workflow, over all documents that hold it."""

    workflow_id: str | None = None
    """As their document says it; None where it does not."""
    total: int = 0
    successful: int = 0
    by_status: Mapping[RunStatus, int] = field(default_factory=dict[RunStatus, int])
    counters: Mapping[SummaryCounter, int] = field(default_factory=dict[SummaryCounter, int])
    """Those of its summary."""
    problem: str | None = None
    """Why they cannot be read; None where they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountsRepair:
    """What is to be added to a workflow's counts."""

    workflow_id: str
    delta: StatsDelta
    counters: Mapping[SummaryCounter, int]
    as_of: datetime | None
    """When the latest event happened that was found in its runs; None where none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDocument:
    """A run as it is stored."""

    id: str
    """The document's id."""
    fields: Mapping[str, Any]
    """Its fields, with the projection map."""


class WorkflowSnapshot(Protocol):
    """One workflow as it is at one moment, however long it is looked at and whatever is written meanwhile.

    Reads raise `StoreUnavailableError` where the store does not answer in bounded time, `StoreError` where
    it no longer knows that moment, and `ConfigurationError` where it does not let us in.
    """

    @property
    def at(self) -> datetime | None:
        """The moment; None where a store cannot look at one that is over."""
        ...

    async def counts(self) -> StoredCounts:
        """Return what is counted, as of the moment."""
        ...

    def documents(self, *, whole: bool) -> AsyncGenerator[Sequence[RunDocument]]:
        """Yield all run documents as of the moment, page by page in the order of their ids.

        Args:
            whole: Whether with all that is in them; else without `PAYLOADS`.
        """
        ...

    async def repair(self, change: CountsRepair) -> bool:
        """Add *change* to the counts as they are by now, at once and once.

        It is the difference at the moment of the snapshot, and additions do not mind each other: so the
        counts are right from then on, whatever was written since.

        Returns:
            False where somebody has repaired them since the moment: they have to be counted anew.

        Raises:
            StoreUnavailableError: The store does not answer; the counts have to be counted anew.
        """
        ...


class Audit(Protocol):
    """What it takes to check a store's counts, and to compare its documents with another's."""

    @property
    def retention(self) -> timedelta | None:
        """How long ended runs are kept; None keeps all."""
        ...

    def now(self) -> datetime:
        """Return the time, to tell which days and hours are counted."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a recount needs of a stored run."""

    key: RunKey
    """As far as it is known."""
    stored: StoredHead | None
    """How it stands; None where that cannot be read, so that nobody knows what it is counted as."""
    problem: str | None
    """What is wrong with the document; None where nothing is."""


def run_record(workflow: str, document: RunDocument) -> RunRecord:
    """Return what *document*, of the workflow with this document id, says of its run, payloads aside."""
    key = (original_id(workflow) or workflow, original_id(document.id) or document.id)
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
    """Return in what a document contradicts itself; None where it does not."""
    if not fields.get(PROJECTION):
        return None  # written by something that knew no versions
    if not head.history:
        return f"its {HISTORY} is empty"
    newest = head.history[-1]
    if newest.version != head.version:
        return f"its version is {head.version}, the newest of its {HISTORY} is {newest.version}"
    if newest.status is not head.status:
        return f"its status is {head.status.value}, by its {HISTORY} it is {newest.status.value}"
    return None
