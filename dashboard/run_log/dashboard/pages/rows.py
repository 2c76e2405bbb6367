"""Rows of a list of runs, the same on a page and in the stream that keeps it up to date."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from markupsafe import Markup

from run_log.core import RunStatus, WorkflowRun
from run_log.dashboard.paths import name_of, run_path, segment_of

from .filters import Filter, with_query
from .rendering import templates
from .texts import first_line, since, took_ms

_MACROS: Final[Any] = templates.get_template("_row.html").module

MAX_CHIPS: Final = 2
"""The most labels that a row shows; the run's page shows all."""


class Row:
    """What a row shows of a run.

    Args:
        run: The run; its payloads are not looked at.
        shown: What the list is narrowed by: links go on from there.
        root: What paths begin with.
        now: What elapsed times are counted to.
    """

    def __init__(self, run: WorkflowRun, shown: Filter, *, root: str, now: datetime) -> None:
        self.run = run
        self.status = run.status.value
        self.now = now
        self.id = f"run/{name_of(run)}"
        self.workflow_path = f"{root}/workflows/{segment_of(run.workflow_id)}"
        self.path = with_query(run_path(root, run), shown.query)
        self.has_workflow = shown.workflow_id is None
        self._shown = shown
        self._root = root

    @property
    def html(self) -> str:
        """The row itself."""
        # Not rendered anew for each: a template costs more than a row.
        return str(_MACROS.row(self))

    @property
    def took(self) -> str | Markup:
        """How long the run took, or has been under way; empty for one that waits."""
        if self.run.status.is_terminal:
            return took_ms(self.run.duration_ms)
        return "" if self.run.status is RunStatus.PENDING else since(self.run.started_at, self.now)

    @property
    def note(self) -> str:
        """What a person wants to know next: the error's first line, what it waits for, how far it is."""
        run = self.run
        if run.status.is_terminal:
            return first_line(run.error)
        if run.status is RunStatus.PAUSED and run.pause:
            return first_line(run.pause.reason)
        return first_line(run.progress.text) if run.progress else ""

    @property
    def fraction(self) -> float | None:
        """How far a run is that is under way, from 0 to 1; None where it does not say."""
        run = self.run
        return run.progress.fraction if run.progress and run.status is RunStatus.RUNNING else None

    @property
    def chips(self) -> list[tuple[str, str]]:
        """Its labels, each with the path of the list narrowed by it."""
        pairs = [f"{key}={value}" for key, value in sorted(self.run.labels.items())]
        return [(pair, f"{self._root}/?{self._shown.having('label', pair)}") for pair in pairs[:MAX_CHIPS]]

    @property
    def more_chips(self) -> int:
        """How many labels it does not show."""
        return max(len(self.run.labels) - MAX_CHIPS, 0)


def rows(runs: Iterable[WorkflowRun], shown: Filter, *, root: str, now: datetime) -> list[Row]:
    """Return what the rows of *runs* show; see `Row`."""
    return [Row(run, shown, root=root, now=now) for run in runs]
