"""The contract of every run log: its methods and what they promise."""

from __future__ import annotations

import abc
from typing import Any, Final

from .models import WorkflowRun

MAX_LIMIT: Final = 1_000
"""The most runs that one page returns."""


class RunLogProtocol(abc.ABC):
    """A history of workflow runs.

    Every method returns copies: changing one changes nothing that is stored. Every method raises
    `StoreUnavailableError` if the store does not answer in bounded time, and `InvalidArgumentError` if an id
    is empty.
    """

    @abc.abstractmethod
    async def save_run(self, run: Any) -> None:
        """Store the state that *run* has now. Saving a run again updates it; it is counted once.

        The state of a later attempt stays. A save with a lower `attempt` than the stored one only adds to the
        history.

        Args:
            run: A `WorkflowRun`, or any object with its fields.

        Raises:
            InvalidRunError: A field is missing or wrong: a naive datetime, for example. Nothing is stored.
        """

    @abc.abstractmethod
    async def list_runs(
        self, workflow_id: str | None, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowRun], str | None]:
        """Return one page of the runs of a workflow, or of all, newest first, and the next page's cursor.

        Runs are sorted by `started_at`, then by workflow and by id. A walk through the pages returns each run
        that was there when the walk began exactly once, whatever is stored meanwhile. A run whose
        `started_at` changes during the walk moves: it may be missed or come twice.

        Args:
            workflow_id: The workflow, or None for all. An unknown one has no runs.
            limit: The most runs to return, 1 to `MAX_LIMIT`.
            start_after: The cursor that the previous page returned; None for the first page.

        Returns:
            The runs, and the cursor of the next page: None exactly when no runs are left.

        Raises:
            InvalidArgumentError: *limit* cannot be used.
            InvalidCursorError: *start_after* is malformed or belongs to another listing.
        """

    @abc.abstractmethod
    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """Return the run, or None if there is none.

        Raises:
            UnreadableRunError: The run is stored in a form that cannot be read.
        """

    @abc.abstractmethod
    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """Return ``{"total": distinct runs, "successful": runs whose newest state is success}``."""

    @abc.abstractmethod
    async def get_pending_runs(self) -> list[WorkflowRun]:
        """Return every paused run of every workflow, newest first."""

    @abc.abstractmethod
    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """Return the workflow's newest run by `started_at`, or None if it has none."""
