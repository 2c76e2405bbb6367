"""What a run log needs of a store to answer queries, and what the projector needs of it to write."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

from run_log.core import Outcome, RunEvent
from run_log.core.counters import SummaryCounter
from run_log.core.law import RunHead

from .inbox import InboxSelection
from .listings import Position, Selection
from .notices import Notice, NoticeKind
from .stale import StaleSelection
from .stored.reading import Page, StoredRun
from .summaries import WorkflowStats
from .watch import UpdateSource

AUDIT_PAGE: Final = 300
"""How many documents an audit reads at a time, without payloads: some kilobytes each."""


class StoredRuns(abc.ABC):
    """The runs and counts of a store, as queries read them. Arguments are checked, and ids as stored.

    What cannot be read is skipped and counted, one run that is asked for aside.
    """

    is_projected: ClassVar[bool] = False
    """Whether projectors write into stores of this kind."""

    @abc.abstractmethod
    async def read_page(
        self,
        workflow_id: str | None,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        payloads: bool,
    ) -> Page:
        """Read the readable runs of a selection after a position, in its order; None is all workflows.

        Without *payloads* the runs have none, and none are read.
        """

    @abc.abstractmethod
    async def read_count(self, workflow_id: str | None, selection: Selection) -> int:
        """Count the runs of a selection, unreadable ones too; None is all workflows.

        One that has expired is counted only where the store cannot tell without reading it.

        Raises:
            InvalidArgumentError: The store cannot count by all of that.
        """

    @abc.abstractmethod
    async def read_workflows(self, after: str | None, most: int) -> list[WorkflowStats]:
        """Read the stats of at most so many workflows after a document id, by document id."""

    @abc.abstractmethod
    async def read_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """Read one run."""

    @abc.abstractmethod
    async def read_stats(self, workflow_id: str) -> WorkflowStats:
        """Read a workflow's stats; zeros for an unknown one."""

    @abc.abstractmethod
    async def read_summary(self, workflow_id: str) -> tuple[WorkflowStats, Mapping[SummaryCounter, int]]:
        """Read a workflow's stats and the counters of its summary; zeros and none for an unknown one."""

    @abc.abstractmethod
    async def read_pending(self) -> Sequence[StoredRun]:
        """Read every readable paused run, newest first."""

    @abc.abstractmethod
    async def read_overall_page(
        self, selection: InboxSelection | StaleSelection, after: Position | None, limit: int
    ) -> Page:
        """Read the readable runs of a selection over workflows after a position, in its order."""

    @abc.abstractmethod
    async def read_latest(self, workflow_id: str, selection: Selection) -> StoredRun | None:
        """Read the first readable run of a selection."""

    @abc.abstractmethod
    async def read_head(self, workflow_id: str, run_id: str) -> RunHead | None:
        """Read all of one run but its fields; None where it is not there."""

    @abc.abstractmethod
    async def read_record(
        self, workflow_id: str, run_id: str, *, payloads: bool
    ) -> tuple[StoredRun, RunHead] | None:
        """Read all of one run at one moment; without *payloads* it has none, and none are read."""

    @abc.abstractmethod
    async def read_notices(self, kind: NoticeKind, most: int) -> Sequence[Any]:
        """Read the texts of at most so many notices that have not expired, the newest first."""

    @abc.abstractmethod
    def updates(self, workflow_id: str | None, cursor: object, selection: str) -> UpdateSource:
        """Return where the updates of a watch of one workflow, or of all, come from.

        A *cursor* of None begins now; *selection* is what cursors are made with.

        Raises:
            InvalidCursorError: *cursor* cannot be used.
        """

    @abc.abstractmethod
    async def read_place(self, selection: str) -> str:
        """Return the cursor of updates that begin now; *selection* is what it is made with."""


class ProjectionStore(Protocol):
    """The write port: where events become the runs and stats that queries read.

    Defined by what the projector needs of a store.
    """

    async def apply(self, events: Sequence[RunEvent]) -> list[Outcome]:
        """Merge *events* into the store and answer one outcome for each, in order.

        Repeats change nothing, order changes nothing, and when this returns everything is durable: the
        run documents and the stats of their workflows changed together. Any number of callers and
        processes may apply at once.

        Args:
            events: Events of any runs, in any order, with repeats.

        Raises:
            StoreUnavailableError: The store does not answer; part of the events may be applied, and
                applying all of them again is safe.
            WriteRefusedError: The store will never take one of these events; none is applied that was
                to be written together with it. Apply parts of the batch to find out which.
            ConfigurationError: The store is not there, or does not let us in.
        """
        ...


class NoticeStore(Protocol):
    """The write port of notices. Each call raises what `ProjectionStore.apply` does, and may be repeated."""

    async def put_notices(self, kind: NoticeKind, notices: Sequence[Notice]) -> None:
        """Keep *notices*, each in the place of the one with its key, durably."""
        ...

    async def remove_notices(self, kind: NoticeKind, keys: Iterable[str]) -> None:
        """Remove the notices with these keys, if they are there."""
        ...
