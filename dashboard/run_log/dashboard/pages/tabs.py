"""The tabs above a list of runs: one for each status, with how many runs there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from run_log.core import RunStatus
from run_log.stores import WorkflowStats

from .filters import Filter, with_query
from .rendering import templates

# What is looked for most comes first.
_TABS: Final = (
    RunStatus.RUNNING,
    RunStatus.PAUSED,
    RunStatus.FAILED,
    RunStatus.SUCCESS,
    RunStatus.PENDING,
    RunStatus.SKIPPED,
    RunStatus.CANCELLED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A link to the list of runs in one status, or in any."""

    status: str
    """Empty for any."""
    name: str
    path: str
    count: int | None
    """How many runs there ever were; None where that is not known."""
    is_here: bool


def tabs_html(shown: Filter, workflows: Sequence[WorkflowStats] | None, root: str) -> str:
    """Return the tabs of a list as HTML; see `tabs_of`."""
    return templates.get_template("_tabs.html").render(tabs=tabs_of(shown, workflows, root))


def tabs_of(shown: Filter, workflows: Sequence[WorkflowStats] | None, root: str) -> list[Tab]:
    """Return a tab for each status; *workflows* is None where not all of them are known."""
    chosen = shown.all("status")

    def tab(status: str, name: str, count: int | None) -> Tab:
        return Tab(
            status=status,
            name=name,
            path=with_query(f"{root}/", shown.having("status", status or None)),
            count=count,
            is_here=chosen == ([status] if status else []),
        )

    counts = _counts(shown.workflow_id, workflows)
    every = None if counts is None else sum(counts.values())
    return [
        tab("", "All", every),
        *(tab(status.value, status.value, None if counts is None else counts[status]) for status in _TABS),
    ]


def _counts(workflow_id: str | None, workflows: Sequence[WorkflowStats] | None) -> Counter[Any] | None:
    if workflows is None:
        return None
    own = [stats for stats in workflows if workflow_id in (None, stats.workflow_id)]
    return sum((Counter(stats.by_status) for stats in own), Counter[RunStatus]())
