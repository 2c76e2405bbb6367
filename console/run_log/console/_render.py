"""Tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from run_log.core import RunStatus, Transition, WorkflowRun
from run_log.stores import StaleRun

STYLES: Final[Mapping[RunStatus, str]] = {
    RunStatus.PENDING: "dim",
    RunStatus.RUNNING: "blue",
    RunStatus.SUCCESS: "green",
    RunStatus.FAILED: "red",
    RunStatus.SKIPPED: "yellow",
    RunStatus.PAUSED: "magenta",
}


def runs_table(runs: Sequence[WorkflowRun]) -> Table:
    """Return *runs* as a table, in the order given."""
    table = _table("Runs, newest first")
    for heading in ("workflow", "run", "status", "started (UTC)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("error")
    for run in runs:
        table.add_row(
            literal(run.workflow_id),
            literal(run.id),
            status_text(run.status),
            moment(run.started_at),
            f"{run.duration_ms:.1f} ms" if run.status.is_terminal else "",
            literal(run.error or ""),
        )
    return table


def stats_table(stats: Mapping[str, Mapping[str, int]]) -> Table:
    """Return each workflow's stats as a table."""
    table = _table("Stats")
    table.add_column("workflow")
    table.add_column("total", justify="right")
    table.add_column("successful", justify="right")
    for workflow_id, counts in stats.items():
        table.add_row(literal(workflow_id), str(counts["total"]), str(counts["successful"]))
    return table


def inbox_table(runs: Sequence[WorkflowRun]) -> Table:
    """Return paused runs as the inbox of those who have to answer."""
    table = _table("Waiting for a human")
    for heading in ("workflow", "run", "reason", "assignee", "deadline (UTC)"):
        table.add_column(heading)
    for run in runs:
        pause = run.pause
        table.add_row(
            literal(run.workflow_id),
            literal(run.id),
            literal(pause.reason if pause else ""),
            literal((pause.assignee if pause else None) or "anybody"),
            moment(pause.deadline) if pause and pause.deadline else "none",
        )
    return table


def stale_table(runs: Sequence[StaleRun]) -> Table:
    """Return runs that nothing was heard of for long as a table, in the order given."""
    table = _table("Not heard of for long")
    for heading in ("workflow", "run", "status", "heard of (UTC)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("silent for", justify="right", no_wrap=True)
    for stale in runs:
        table.add_row(
            literal(stale.run.workflow_id),
            literal(stale.run.id),
            status_text(stale.run.status),
            moment(stale.heard_at),
            str(timedelta(seconds=int(stale.silence.total_seconds()))),
        )
    return table


def history_table(run_id: str, history: Sequence[Transition]) -> Table:
    """Return a run's history as a table, oldest first."""
    table = _table(f"History of {run_id}")
    for heading in ("when (UTC)", "status", "attempt", "event"):
        table.add_column(heading, no_wrap=True)
    table.add_column("note")
    for transition in history:
        notes = [
            *(["breaks the state machine"] if transition.anomaly else []),
            *(["inferred"] if transition.inferred else []),
        ]
        table.add_row(
            moment(transition.occurred_at),
            status_text(transition.status),
            str(transition.version.attempt),
            literal(transition.version.event_id[-12:]),
            ", ".join(notes),
        )
    return table


def literal(value: str, *, style: str = "") -> Text:
    """Return *value* to be shown as it is: no markup, and nothing in it commands the terminal."""
    shown = (
        letter if letter.isprintable() or letter == "\n" else ascii(letter).strip("'") for letter in value
    )
    return Text("".join(shown), style=style)


def status_text(status: RunStatus) -> Text:
    """Return *status* in its colour; the word says it too."""
    return Text(status.value, style=STYLES[status])


def moment(value: datetime) -> str:
    """Return *value*, in UTC, from the month to the millisecond."""
    return value.strftime("%m-%d %H:%M:%S.") + f"{value.microsecond // 1_000:03d}"


def _table(title: str) -> Table:
    return Table(
        title=literal(title, style="table.title"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
