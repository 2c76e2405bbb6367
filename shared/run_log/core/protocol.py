"""The contract of every run log: what can be asked, and what is promised."""

from __future__ import annotations

import abc
from typing import Any, Final

from .models import WorkflowRun

MAX_LIMIT: Final = 1_000
"""Most runs one page returns."""


class RunLogProtocol(abc.ABC):
    """A history of workflow runs.

    What is returned are copies: changing one changes nothing that is stored. Every method raises
    `StoreUnavailableError` where the store does not answer in bounded time.
    """

    @abc.abstractmethod
    async def save_run(self, run: Any) -> None:
        """Store *run* as its state is now. Saving the same run again updates it, and counts it once.

        A later attempt's state stays: a save with a lower `attempt` than the stored one changes nothing
        but the history.

        Args:
            run: A `WorkflowRun`, or any object with its fields.

        Raises:
            InvalidRunError: A field is missing or wrong (a naive datetime, say); nothing is stored.
        """

    @abc.abstractmethod
    async def list_runs(
        self, workflow_id: str, *, limit: int = 50, start_after: Any | None = None
    ) -> tuple[list[WorkflowRun], str | None]:
        """Return one page of a workflow's runs, newest first, and the cursor of the next page.

        Runs come by `started_at`, then by id. Walking the pages returns every run that was there when
        the walk began exactly once, whatever is stored meanwhile, unless its own `started_at` changes: then
        it comes where it stands by then, and may be missed or come twice.

        Args:
            workflow_id: The workflow; an unknown one has no runs.
            limit: Most runs to return, 1 to `MAX_LIMIT`.
            start_after: The cursor that the page before returned; None for the first page.

        Returns:
            The runs, and the next page's cursor: None exactly when nothing is left.

        Raises:
            InvalidArgumentError: *limit* or *workflow_id* cannot be used.
            InvalidCursorError: *start_after* is malformed or of another workflow.
        """

    @abc.abstractmethod
    async def get_run(self, workflow_id: str, run_id: str) -> WorkflowRun | None:
        """Return the run, or None where there is none.

        Raises:
            InvalidArgumentError: An id is empty.
            UnreadableRunError: It is stored in a form that cannot be read.
        """

    @abc.abstractmethod
    async def get_stats(self, workflow_id: str) -> dict[str, int]:
        """Return ``{"total": distinct runs, "successful": runs whose newest state is success}``.

        Raises:
            InvalidArgumentError: *workflow_id* is empty.
        """

    @abc.abstractmethod
    async def get_pending_runs(self) -> list[WorkflowRun]:
        """Return every paused run of every workflow, newest first."""

    @abc.abstractmethod
    async def get_latest_run(self, workflow_id: str) -> WorkflowRun | None:
        """Return the workflow's newest run by `started_at`, or None where it has none.

        Raises:
            InvalidArgumentError: *workflow_id* is empty.
        """
